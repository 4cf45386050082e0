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
 * `cel.bind`, and more than one list looked through for each item of another one. What depends on how large a state is, and how
 * long its texts are, is refused for that state. The language is loaded when the first expression is compiled.
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

/** How much there is in a value: values, and characters of texts. */
interface Size {
  values: number
  characters: number
  /** Characters of the longest text. */
  longest: number
  /** Steps that the largest item of a list takes. */
  largest: number
}

// So many characters are looked at in the time of one value.
const charactersPerStep = 32

const stepsOf = ({ characters, values }: Size): number => values + characters / charactersPerStep

const measure = (value: unknown, size: Size): Size => {
  size.values++
  if (typeof value === "string") {
    size.characters += value.length
    size.longest = Math.max(size.longest, value.length)
  } else if (Array.isArray(value)) {
    for (const item of value) {
      const before = stepsOf(size)
      size.largest = Math.max(size.largest, stepsOf(measure(item, size)) - before)
    }
  } else if (typeof value === "object" && value !== null && !Json.isRaw(value)) {
    for (const item of Object.values(value)) measure(item, size)
  }
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
  /** For how many of these lists it is the same thing, and may be large: a part of the state, or of an outer item. */
  readonly repeats: number
  /** Whether it is a part of an outer item. */
  readonly isItem: boolean
}

type Items = ReadonlyMap<unknown, number>

const placeOf = (node: ASTNode, depth: number, items: Items): Place => {
  const { args, op } = node
  const bound = op === "id" ? items.get(args) : undefined
  if (bound !== undefined) return { node, depth, repeats: depth - bound, isItem: true }
  const isWhole = op === "list" || op === "map" || (op === "id" && (args === "state" || args === "data" || args === "event"))
  return { node, depth, repeats: isWhole ? depth : 0, isItem: false }
}

const placesOf = function*(node: unknown, depth: number, items: Items): Generator<Place> {
  if (Array.isArray(node)) for (const item of node) yield* placesOf(item, depth, items)
  if (!isNode(node)) return
  yield placeOf(node, depth, items)
  if (node.op === "rcall" && quantifiers.has(node.args[0])) {
    const [, list, [item, ...inner]] = node.args
    yield* placesOf(list, depth, items)
    yield* placesOf(inner, depth + 1, item === undefined ? items : new Map([...items, [item.args, depth + 1]]))
  } else yield* placesOf(node.args, depth, items)
}

/** What is wrong with an expression that the language itself takes. */
const problemIn = (places: ReadonlyArray<Place>): Problem | undefined => {
  for (const { node, repeats } of places) {
    if (node.op === "rcall" && refused.has(node.args[0])) {
      const instead = node.args[0] === "matches" ? "; use contains, startsWith or endsWith" : ""
      return { problem: `there is no ${node.args[0]} here${instead}`, at: node.start }
    }
    if (repeats > 1) return { problem: "looks through too many lists for each item of another one", at: node.start }
  }
  return undefined
}

// Values that are looked at, of a state that is looked through for each item of a list in it.
const maxSteps = 10_000_000
// The same, of what is looked through once: each node of the expression, for each item.
const maxNodes = 4_000_000
// Characters that are joined, and that are compared where one text is looked for in another one.
const maxJoined = 50_000_000
const maxCompared = 500_000_000

// The worst text for the worst pattern takes the product of both.
const lookups: ReadonlySet<string> = new Set(["contains", "indexOf", "lastIndexOf"])

/** How long a text that stands in the expression is; `undefined` for any other node. */
const literalLength = (node: unknown): number | undefined =>
  isNode(node) && node.op === "value" && typeof node.args === "string" ? node.args.length : undefined

/** Says why an expression would take too long over a scope: by what it asks, and by how much there is to look at. */
const makeLimit = (places: ReadonlyArray<Place>) => {
  const square = places.find(({ isItem, repeats }) => repeats === 1 && !isItem)?.node
  const items = places.find(({ isItem, repeats }) => repeats === 1 && isItem)?.node
  const inner = places.find(({ depth }) => depth > 0)?.node
  const innerNodes = places.filter(({ depth }) => depth > 0).length
  // Each name may stand for the longest text, and all of them may be joined.
  const names = Math.max(1, places.filter(({ node }) => node.op === "id").length)
  const looked = places.flatMap(({ depth, node }) =>
    node.op === "rcall" && lookups.has(node.args[0]) ? [{ at: node.start, depth, length: literalLength(node.args[2][0]) }] : [])
  const longText = places.find(({ node }) => node.op === "rcall" || node.op === "+")?.node
  return ({ data, event, state }: Scope): Problem | undefined => {
    const size = [state, data, event].reduce<Size>((sum, part) => measure(part, sum), { values: 0, characters: 0, longest: 0, largest: 0 })
    const { characters, largest, longest, values } = size
    const steps = stepsOf(size) + limits.maxAstNodes
    if (square !== undefined && steps ** 2 > maxSteps) {
      return { problem: "the state is too large to be looked through for each item of a list", at: square.start }
    }
    if (items !== undefined && steps * largest > maxSteps) {
      return { problem: "the items of a list are too large to be looked through for each item of another one", at: items.start }
    }
    if (inner !== undefined && values * innerNodes > maxNodes) {
      return { problem: "the state is too large for so much to be asked of each item of a list", at: inner.start }
    }
    if (longText !== undefined && characters * names > maxJoined) return { problem: "the texts of the state are too long", at: longText.start }
    const slow = looked.find(({ depth, length }) => {
      const times = depth === 0 ? 1 : square === undefined ? values : values ** 2
      return times * longest * names * (length ?? longest * names) > maxCompared
    })
    return slow === undefined ? undefined : { problem: "the texts of the state are too long to look for one in another", at: slow.at }
  }
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
  const places = [...placesOf(run.ast, 0, new Map())]
  const problem = problemIn(places)
  if (problem !== undefined) return yield* Effect.fail(problem)
  const limit = makeLimit(places)
  const checked = run.check()
  if (!checked.valid) return yield* Effect.fail(problemOf(checked.error))
  if (checked.type !== "bool" && checked.type !== "dyn") {
    return yield* Effect.fail({ problem: `is of type ${checked.type}, not true or false` })
  }
  return {
    text,
    isOfState: places.every(({ node }) => node.op !== "id" || (node.args !== "event" && node.args !== "data")),
    holds: (given) => {
      const tooMuch = limit(given)
      if (tooMuch !== undefined) return Result.fail(tooMuch)
      const { data, event, state } = given
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
