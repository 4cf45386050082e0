/**
 * Conditions as text, in the Common Expression Language (CEL): `state.total > 100 && event.name == "order:paid"`.
 *
 * The rule: fail closed. A text that is no expression, or that cannot be true or false, is refused before anything is
 * read, with its place. One that cannot be decided for some state says why; it never counts as true, nor as false.
 *
 * **Example**
 *
 * ```ts
 * const condition = yield* Cel.compile("state.total > 100")
 * condition.holds({ state: { total: 120 } })             // Result.succeed(true)
 * condition.holds({ state: {} })                         // Result.fail({ problem: "no such key: total", at: 6 })
 * yield* Effect.flip(Cel.compile("state.total >"))       // { problem: "unexpected end of the expression", at: 13 }
 * ```
 *
 * **Gotchas** JSON has one kind of number, CEL has two: numbers of `state` are doubles, and an integer beside one in
 * `+ - * / %` counts as one. Integers that no double holds stay exact. A field that may be missing is asked for first:
 * `has(data.total) && data.total > 100`. There is no `matches`: a regular expression can take longer than anyone waits.
 * The language is loaded when the first expression is compiled.
 */
import type { ASTNode } from "@marcbachmann/cel-js"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Json from "../event/Json.ts"

/** What an expression may speak of. */
export interface Scope {
  readonly state: unknown
  /** `name`, `id`, `time`, `position`, `version` of the fact. */
  readonly event?: { readonly [field: string]: unknown } | undefined
  /** The fact's data; `null` where it has none. */
  readonly data?: unknown
}

/** What is wrong with an expression, or with its evaluation. */
export interface Problem {
  readonly problem: string
  /** Where in the text: how many characters stand before it. */
  readonly at?: number | undefined
}

/** An expression that is true or false. */
export interface Condition {
  readonly text: string
  /** Whether it asks for nothing but `state`. */
  readonly isOfState: boolean
  readonly holds: (scope: Scope) => Result.Result<boolean, Problem>
}

const maxLength = 4096

// How far an expression may go; a list or map within it has at most 1,000 items by the language's own limit.
const limits = { maxAstNodes: 500, maxDepth: 50 }

const arithmetic: Readonly<Record<string, (a: number, b: number) => number>> = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
  "%": (a, b) => a % b
}

const load = async () => {
  const { Environment } = await import("@marcbachmann/cel-js")
  const environment = new Environment({ limits })
    .registerVariable("state", "dyn")
    .registerVariable("event", "map<string, dyn>")
    .registerVariable("data", "dyn")
  for (const [operator, of] of Object.entries(arithmetic)) {
    const handler = (a: unknown, b: unknown) => of(Number(a), Number(b))
    environment.registerOperator(`double ${operator} int: double`, handler)
    environment.registerOperator(`int ${operator} double: double`, handler)
  }
  environment.registerOperator("double % double: double", (a: number, b: number) => a % b)
  return environment
}

let loading: ReturnType<typeof load> | undefined

const environment = Effect.promise(() => loading ??= load())

const sentence = (text: string): string =>
  text.startsWith("Unexpected token: EOF") ? "unexpected end of the expression" : text.charAt(0).toLowerCase() + text.slice(1)

/** What the language says of its own errors; anything else is a defect of the program. */
const problemOf = (cause: unknown): Problem => {
  if (!(cause instanceof Error)) throw cause
  const { range, summary } = cause as Error & { readonly range?: { readonly start: number }; readonly summary?: string } // fields of the language's errors, absent in others
  return { problem: sentence(summary ?? cause.message), at: range?.start }
}

/** The same value with numbers that no double holds as the language has them. */
const readable = (value: unknown): unknown => {
  if (typeof value !== "object" || value === null) return value
  if (Json.isRaw(value)) {
    const integer = /^-?\d{1,19}$/.test(value.rawJSON) ? BigInt(value.rawJSON) : undefined
    return integer !== undefined && BigInt.asIntN(64, integer) === integer ? integer : Number(value.rawJSON)
  }
  if (Array.isArray(value)) {
    const items = value.map(readable)
    return items.every((item, i) => item === value[i]) ? value : items
  }
  const entries = Object.entries(value)
  const changed = entries.map(([key, item]) => [key, readable(item)] as const)
  // `fromEntries` defines keys: "__proto__" is a key like any other.
  return changed.every(([, item], i) => item === entries[i]?.[1]) ? value : Object.fromEntries(changed)
}

const isNode = (u: unknown): u is ASTNode => typeof u === "object" && u !== null && "op" in u && "args" in u

/** Every node of an expression. */
const nodesOf = function*(node: unknown): Generator<ASTNode> {
  if (Array.isArray(node)) for (const item of node) yield* nodesOf(item)
  if (!isNode(node)) return
  yield node
  yield* nodesOf(node.args)
}

/** Compiles an expression; fails with what is wrong with it. */
export const compile = Effect.fnUntraced(function*(text: string): Effect.fn.Return<Condition, Problem> {
  if (text.length > maxLength) {
    return yield* Effect.fail({ problem: `has ${text.length} characters, at most ${maxLength} are allowed` })
  }
  const cel = yield* environment
  const parsed = Result.try({ try: () => cel.parse(text), catch: problemOf })
  if (Result.isFailure(parsed)) return yield* Effect.fail(parsed.failure)
  const run = parsed.success
  const nodes = [...nodesOf(run.ast)]
  const regular = nodes.find((node) => node.op === "rcall" && node.args[0] === "matches")
  if (regular !== undefined) {
    return yield* Effect.fail({ problem: "there is no matches here; use contains, startsWith or endsWith", at: regular.start })
  }
  const checked = run.check()
  if (!checked.valid) return yield* Effect.fail(problemOf(checked.error))
  if (checked.type !== "bool" && checked.type !== "dyn") {
    return yield* Effect.fail({ problem: `is of type ${checked.type}, not true or false` })
  }
  return {
    text,
    isOfState: nodes.every((node) => node.op !== "id" || (node.args !== "event" && node.args !== "data")),
    holds: ({ data, event, state }) => {
      const scope = { state: readable(state), event: event ?? {}, data: readable(data ?? null) }
      const answer = Result.try({ try: (): unknown => run(scope), catch: problemOf })
      if (Result.isFailure(answer)) return Result.fail(answer.failure)
      return typeof answer.success === "boolean"
        ? Result.succeed(answer.success)
        : Result.fail({ problem: "is neither true nor false", at: 0 })
    }
  }
})

/** A problem in one line: what is wrong, and at which column. */
export const problemText = ({ at, problem }: Problem): string => at === undefined ? problem : `${problem}, at column ${at + 1}`
