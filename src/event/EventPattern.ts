/**
 * One dialect of event patterns, used everywhere: segments split by `:`, `*` stands for one segment and, as the
 * last segment, for one or more; `*` alone is every event.
 *
 * A `Trie` holds many patterns and finds the ones that match a name in time that depends on the name's segments,
 * not on how many patterns there are.
 *
 * **Example**
 *
 * ```ts
 * const pattern = Result.getOrThrow(EventPattern.parse("stock:*"))
 * pattern.matches("stock:reserved")          // true
 * pattern.matches("stock:level:changed")     // true
 * pattern.matches("order:placed")            // false
 * ```
 *
 * **Gotchas** `stock:*` does not match `stock` itself, and `*` inside a segment (`st*ck`) is refused.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as KsiError from "./KsiError.ts"

/** A parsed pattern. */
export interface EventPattern {
  readonly text: string
  readonly segments: ReadonlyArray<string>
  readonly matches: (name: string) => boolean
}

const maxLength = 256

const matchesSegments = (pattern: ReadonlyArray<string>, name: string): boolean => {
  const segments = name.split(":")
  const last = pattern.length - 1
  for (let i = 0; i <= last; i++) {
    if (i >= segments.length) return false
    const part = pattern[i]
    if (part === "*") {
      if (i === last) return true
    } else if (part !== segments[i]) return false
  }
  return segments.length === pattern.length
}

/** Reads a pattern; the failure says what is wrong with it. */
export const parse = (text: string): Result.Result<EventPattern, KsiError.PatternInvalid> => {
  const fail = (problem: string) => Result.fail(new KsiError.PatternInvalid({ pattern: text, problem }))
  if (text.length === 0) return fail("it is empty; \"*\" is every event")
  if (text.length > maxLength) return fail(`it has ${text.length} characters, at most ${maxLength} are allowed`)
  const segments = text.split(":")
  for (const part of segments) {
    if (part === "") return fail("it has an empty segment")
    if (part !== "*" && part.includes("*")) return fail(`"*" must be a whole segment, found "${part}"`)
  }
  return Result.succeed({
    text,
    segments,
    matches: text === "*"
      ? () => true
      : segments.includes("*")
      ? (name: string) => matchesSegments(segments, name)
      : (name: string) => name === text
  })
}

/** A pattern as people say it: a bare namespace means everything in it. */
export const said = (text: string): string => text.includes(":") || text.includes("*") || text === "" ? text : `${text}:*`

/** Reads a pattern; fails with `PatternInvalid`. */
export const fromText = (text: string): Effect.Effect<EventPattern, KsiError.KsiError> =>
  Effect.fromResult(Result.mapError(parse(text), KsiError.make))

/** Patterns of which any may match. */
export interface AnyOf {
  /** As people read it: with commas in between. */
  readonly text: string
  readonly each: ReadonlyArray<EventPattern>
  readonly matches: (name: string) => boolean
}

/** Reads one pattern or several; fails with `PatternInvalid`, also where there is none. */
export const anyOf = (texts: string | ReadonlyArray<string>): Effect.Effect<AnyOf, KsiError.KsiError> =>
  Effect.map(Effect.forEach(typeof texts === "string" ? [texts] : texts.length === 0 ? [""] : texts, fromText), (each): AnyOf => {
    const [only] = each
    const text = each.map((pattern) => pattern.text).join(", ")
    return { text, each, matches: each.length === 1 && only !== undefined ? only.matches : (name) => each.some(({ matches }) => matches(name)) }
  })

interface Node<A> {
  readonly children: Map<string, Node<A>>
  any: Node<A> | undefined
  readonly exact: Set<A>
  readonly rest: Set<A>
}

const makeNode = <A>(): Node<A> => ({ children: new Map(), any: undefined, exact: new Set(), rest: new Set() })

const isEmpty = <A>(node: Node<A>): boolean =>
  node.children.size === 0 && node.any === undefined && node.exact.size === 0 && node.rest.size === 0

/** Many patterns, each with a value; finds the values whose pattern matches a name. */
export interface Trie<A> {
  /** Adds a value under a pattern and returns how to take it out again. */
  readonly add: (pattern: EventPattern, value: A) => () => void
  /** `add` under several. */
  readonly addAll: (patterns: AnyOf, value: A) => () => void
  /** Calls `visit` once for every value of which a pattern matches. */
  readonly match: (name: string, visit: (value: A) => void) => void
  /** Whether any pattern at all is held. */
  readonly isEmpty: () => boolean
}

const remove = <A>(node: Node<A>, segments: ReadonlyArray<string>, at: number, value: A): void => {
  if (at === segments.length) {
    node.exact.delete(value)
    return
  }
  const part = segments[at] ?? ""
  if (part === "*") {
    if (at === segments.length - 1) node.rest.delete(value)
    else if (node.any !== undefined) {
      remove(node.any, segments, at + 1, value)
      if (isEmpty(node.any)) node.any = undefined
    }
    return
  }
  const child = node.children.get(part)
  if (child === undefined) return
  remove(child, segments, at + 1, value)
  if (isEmpty(child)) node.children.delete(part)
}

const visitFrom = <A>(node: Node<A>, name: string, from: number, visit: (value: A) => void): void => {
  if (from > name.length) {
    for (const value of node.exact) visit(value)
    return
  }
  for (const value of node.rest) visit(value)
  if (node.children.size === 0 && node.any === undefined) return
  const colon = name.indexOf(":", from)
  const end = colon < 0 ? name.length : colon
  const child = node.children.get(name.slice(from, end))
  if (child !== undefined) visitFrom(child, name, end + 1, visit)
  if (node.any !== undefined) visitFrom(node.any, name, end + 1, visit)
}

const insert = <A>(root: Node<A>, { segments }: EventPattern, value: A): void => {
  let node = root
  for (const [i, part] of segments.entries()) {
    if (part === "*" && i === segments.length - 1) {
      node.rest.add(value)
      return
    }
    let next = part === "*" ? node.any : node.children.get(part)
    if (next === undefined) {
      next = makeNode<A>()
      if (part === "*") node.any = next
      else node.children.set(part, next)
    }
    node = next
  }
  node.exact.add(value)
}

// More names than any registry has; beyond it foreign names only pass through.
const maxKnown = 10_000

/** An empty trie. Adding the same value twice under one pattern keeps one. */
export const makeTrie = <A>(): Trie<A> => {
  const root = makeNode<A>()

  // Names come again and again: what matched a name is remembered until a pattern comes or goes.
  const known = new Map<string, ReadonlyArray<A>>()

  const matching = (name: string): ReadonlyArray<A> => {
    const before = known.get(name)
    if (before !== undefined) return before
    const visited = new Set<A>()
    visitFrom(root, name, 0, (value) => visited.add(value))
    const found = [...visited]
    if (known.size >= maxKnown) known.clear()
    known.set(name, found)
    return found
  }

  // Counted: whether there is any is asked for every event.
  let count = 0
  const add: Trie<A>["add"] = (pattern, value) => {
    insert(root, pattern, value)
    known.clear()
    count++
    let isThere = true
    return () => {
      if (!isThere) return
      isThere = false
      count--
      remove(root, pattern.segments, 0, value)
      known.clear()
    }
  }
  return {
    add,
    addAll: ({ each }, value) => {
      const [only] = each
      if (each.length === 1 && only !== undefined) return add(only, value)
      const removals = each.map((pattern) => add(pattern, value))
      return () => removals.forEach((forget) => forget())
    },
    match: (name, visit) => {
      for (const value of matching(name)) visit(value)
    },
    isEmpty: () => count === 0
  }
}
