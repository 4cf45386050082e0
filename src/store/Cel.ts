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
 * `has(data.total) && data.total > 100`. What could take longer than anyone waits is left out: `matches`, `split`, `map`,
 * `cel.bind`, and more than one list looked through for each item of another one. The language is loaded when the first
 * expression is compiled.
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

/** How many values there are in a value. */
const sizeOf = (value: unknown): number => {
  if (typeof value !== "object" || value === null || Json.isRaw(value)) return 1
  let size = 1
  for (const item of Object.values(value)) size += sizeOf(item)
  return size
}

const isNode = (u: unknown): u is ASTNode => typeof u === "object" && u !== null && "op" in u && "args" in u

// They go through a list: their last argument is worked out for each item.
const quantifiers: ReadonlySet<string> = new Set(["all", "exists", "exists_one", "filter"])

// A regular expression may never end; the others make values that may grow without bound.
const refused: ReadonlySet<string> = new Set(["matches", "split", "map", "bind"])

/** A node of an expression, and for how many lists at once it is worked out anew for each item. */
interface Place {
  readonly node: ASTNode
  readonly depth: number
}

const placesOf = function*(node: unknown, depth: number): Generator<Place> {
  if (Array.isArray(node)) for (const item of node) yield* placesOf(item, depth)
  if (!isNode(node)) return
  yield { node, depth }
  if (node.op === "rcall" && quantifiers.has(node.args[0])) {
    yield* placesOf(node.args[1], depth)
    yield* placesOf(node.args[2], depth + 1)
  } else yield* placesOf(node.args, depth)
}

/** Whether a node is something that may be large, and not a part of the item at hand. */
const isWhole = ({ args, op }: ASTNode): boolean =>
  op === "list" || op === "map" || (op === "id" && (args === "state" || args === "data" || args === "event"))

/** What is wrong with an expression that the language itself takes. */
const problemIn = (places: ReadonlyArray<Place>): Problem | undefined => {
  for (const { depth, node } of places) {
    if (node.op === "rcall" && refused.has(node.args[0])) {
      const instead = node.args[0] === "matches" ? "; use contains, startsWith or endsWith" : ""
      return { problem: `there is no ${node.args[0]} here${instead}`, at: node.start }
    }
    if (depth > 1 && isWhole(node)) return { problem: "looks through too many lists for each item of another one", at: node.start }
  }
  return undefined
}

// Values that are looked at, of a state that is looked through for each item of a list in it.
const maxSteps = 10_000_000

/** Compiles an expression; fails with what is wrong with it. */
export const compile = Effect.fnUntraced(function*(text: string): Effect.fn.Return<Condition, Problem> {
  if (text.length > maxLength) {
    return yield* Effect.fail({ problem: `has ${text.length} characters, at most ${maxLength} are allowed` })
  }
  const cel = yield* environment
  const parsed = Result.try({ try: () => cel.parse(text), catch: problemOf })
  if (Result.isFailure(parsed)) return yield* Effect.fail(parsed.failure)
  const run = parsed.success
  const places = [...placesOf(run.ast, 0)]
  const problem = problemIn(places)
  if (problem !== undefined) return yield* Effect.fail(problem)
  const square = places.find(({ depth, node }) => depth === 1 && isWhole(node))
  const checked = run.check()
  if (!checked.valid) return yield* Effect.fail(problemOf(checked.error))
  if (checked.type !== "bool" && checked.type !== "dyn") {
    return yield* Effect.fail({ problem: `is of type ${checked.type}, not true or false` })
  }
  return {
    text,
    isOfState: places.every(({ node }) => node.op !== "id" || (node.args !== "event" && node.args !== "data")),
    holds: ({ data, event, state }) => {
      if (square !== undefined && (sizeOf(state) + sizeOf(data) + limits.maxAstNodes) ** 2 > maxSteps) {
        return Result.fail({ problem: "the state is too large to be looked through for each item of a list", at: square.node.start })
      }
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
