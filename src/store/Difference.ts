/**
 * What is different between two JSON values, and between two moments of a stream: as a JSON Patch (RFC 6902) for
 * programs, and in words for people.
 *
 * The rule: the patch, applied to the first value, gives the second. Objects are compared by key; lists by the longest
 * list of items that both have in common, so that an item taken out of the middle is told as one that was removed.
 *
 * **Example**
 *
 * ```ts
 * const changes = Difference.between({ total: 20, lines: ["tea", "milk"] }, { total: 35, lines: ["tea"], paid: true })
 * Difference.words(changes)                   // ["lines[1] removed (was \"milk\")", "paid true (new)", "total 20 → 35"]
 * Difference.patchOf(changes)[1]              // { op: "add", path: "/paid", value: true }
 * ```
 *
 * **Gotchas** There is no `move` or `copy`: what has changed its place was removed and added. Keys are told in the order
 * of their code units. Numbers that no double holds are compared digit for digit.
 */
import * as Effect from "effect/Effect"
import * as Json from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import { EventStore } from "./EventStore.ts"
import { mapped } from "./internal/turns.ts"
import type { Projection } from "./Projection.ts"
import * as TimeTravel from "./TimeTravel.ts"

/** A step into a JSON value: a key, or a place in a list from 0. */
export type Step = string | number

/** One difference; `before` of what is removed or replaced, `after` of what is added or replaces it. */
export type Change =
  | { readonly op: "add"; readonly path: ReadonlyArray<Step>; readonly after: unknown }
  | { readonly op: "remove"; readonly path: ReadonlyArray<Step>; readonly before: unknown }
  | { readonly op: "replace"; readonly path: ReadonlyArray<Step>; readonly before: unknown; readonly after: unknown }

/** One operation of a JSON Patch. */
export type Operation =
  | { readonly op: "add" | "replace"; readonly path: string; readonly value: unknown }
  | { readonly op: "remove"; readonly path: string }

// Lists whose lengths multiply to more are compared by place.
const maxCells = 65_536

/** A part of one list that stands where a part of the other one stood; the bounds are from and to, without the last. */
interface Gap {
  readonly a: readonly [number, number]
  readonly b: readonly [number, number]
}

/** How long the longest list is that both have in them, from each place on. */
const commonLengths = (a: ReadonlyArray<string>, b: ReadonlyArray<string>): ReadonlyArray<Uint16Array> => {
  const lengths = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1))
  for (let i = a.length - 1; i >= 0; i--) {
    const [row, below] = [lengths[i], lengths[i + 1]]
    if (row === undefined || below === undefined) continue
    for (let j = b.length - 1; j >= 0; j--) {
      row[j] = a[i] === b[j] ? (below[j + 1] ?? 0) + 1 : Math.max(below[j] ?? 0, row[j + 1] ?? 0)
    }
  }
  return lengths
}

/** What stands between the items that both lists have in common, in order. */
const gapsOf = (a: ReadonlyArray<unknown>, b: ReadonlyArray<unknown>): ReadonlyArray<Gap> => {
  if (a.length * b.length > maxCells) return [{ a: [0, a.length], b: [0, b.length] }]
  const [left, right] = [a.map(Json.canonicalText), b.map(Json.canonicalText)]
  const lengths = commonLengths(left, right)
  const gaps: Array<Gap> = []
  let [i, j, fromA, fromB] = [0, 0, 0, 0]
  const close = () => {
    if (i > fromA || j > fromB) gaps.push({ a: [fromA, i], b: [fromB, j] })
  }
  while (i < a.length && j < b.length) {
    if (left[i] === right[j]) {
      close()
      fromA = ++i
      fromB = ++j
    } else if ((lengths[i + 1]?.[j] ?? 0) >= (lengths[i]?.[j + 1] ?? 0)) i++
    else j++
  }
  i = a.length
  j = b.length
  close()
  return gaps
}

const lists = (a: ReadonlyArray<unknown>, b: ReadonlyArray<unknown>, path: ReadonlyArray<Step>, changes: Array<Change>): void => {
  const shorter = Math.min(a.length, b.length)
  let start = 0
  while (start < shorter && Json.equal(a[start], b[start])) start++
  let end = 0
  while (end < shorter - start && Json.equal(a[a.length - 1 - end], b[b.length - 1 - end])) end++
  const [left, right] = [a.slice(start, a.length - end), b.slice(start, b.length - end)]
  // Whatever stands before a gap is as in the second list by then: so are the places.
  for (const { a: [fromA, toA], b: [fromB, toB] } of gapsOf(left, right)) {
    const at = start + fromB
    const shared = Math.min(toA - fromA, toB - fromB)
    for (let k = 0; k < shared; k++) collect(left[fromA + k], right[fromB + k], [...path, at + k], changes)
    // From the last to the first, so that no place shifts.
    for (let k = toA - fromA - 1; k >= shared; k--) changes.push({ op: "remove", path: [...path, at + k], before: left[fromA + k] })
    for (let k = shared; k < toB - fromB; k++) changes.push({ op: "add", path: [...path, at + k], after: right[fromB + k] })
  }
}

const collect = (a: unknown, b: unknown, path: ReadonlyArray<Step>, changes: Array<Change>): void => {
  if (a === b) return
  if (Array.isArray(a) && Array.isArray(b)) return lists(a, b, path, changes)
  if (!Json.isObject(a) || !Json.isObject(b)) {
    if (!Json.equal(a, b)) changes.push({ op: "replace", path, before: a, after: b })
    return
  }
  for (const key of [...new Set([...Object.keys(a), ...Object.keys(b)])].toSorted()) {
    const at = [...path, key]
    if (!Object.hasOwn(b, key)) changes.push({ op: "remove", path: at, before: a[key] })
    else if (!Object.hasOwn(a, key)) changes.push({ op: "add", path: at, after: b[key] })
    else collect(a[key], b[key], at, changes)
  }
}

/** The differences between two JSON values, in the order in which they are to be applied; none where they mean the same. */
export const between = (a: unknown, b: unknown): ReadonlyArray<Change> => {
  const changes: Array<Change> = []
  collect(a, b, [], changes)
  return changes
}

/** A path as a JSON Pointer (RFC 6901). */
export const pointer = (path: ReadonlyArray<Step>): string =>
  path.map((step) => `/${String(step).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("")

const plainKey = /^[\p{L}_$][\p{L}\p{N}_$-]*$/u

/** A path as people write it: `lines[1].sku`. */
export const pathText = (path: ReadonlyArray<Step>): string =>
  path.map((step, i) =>
    typeof step === "number" ? `[${step}]` : plainKey.test(step) ? `${i === 0 ? "" : "."}${step}` : `[${JSON.stringify(step)}]`
  ).join("")

/** Changes as a JSON Patch. */
export const patchOf = (changes: ReadonlyArray<Change>): ReadonlyArray<Operation> =>
  changes.map((change) => {
    const path = pointer(change.path)
    return change.op === "remove" ? { op: "remove", path } : { op: change.op, path, value: change.after }
  })

const maxText = 80

/** A value in few words: its JSON, cut where it is long. */
export const valueText = (value: unknown): string => {
  const text = JSON.stringify(value) ?? "nothing"
  return text.length <= maxText ? text : `${Array.from(text).slice(0, maxText - 1).join("")}…`
}

/** One change in words: what, and how. */
export const wordsOf = (change: Change): readonly [field: string, what: string] => {
  const field = change.path.length === 0 ? "state" : pathText(change.path)
  switch (change.op) {
    case "add":
      return [field, `${valueText(change.after)} (new)`]
    case "remove":
      return [field, `removed (was ${valueText(change.before)})`]
    case "replace":
      return [field, `${valueText(change.before)} → ${valueText(change.after)}`]
  }
}

/** Changes in words, one text each. */
export const words = (changes: ReadonlyArray<Change>): ReadonlyArray<string> => changes.map((change) => wordsOf(change).join(" "))

// ------------------------------------------------------------------------------------------------------ two moments

/** A stream at two moments. */
export interface Diff<out S> {
  readonly streamId: string
  /** `undefined` where the stream has no fact by then: its state is the projection's initial one. */
  readonly from: TimeTravel.Moment<S> | undefined
  readonly to: TimeTravel.Moment<S> | undefined
  readonly changes: ReadonlyArray<Change>
  /** Applied to the encoded state of `from` it gives that of `to`. */
  readonly patch: ReadonlyArray<Operation>
}

const diffOf = <S>(
  projection: Projection<S>,
  streamId: string,
  from: TimeTravel.Moment<S> | undefined,
  to: TimeTravel.Moment<S> | undefined
): Diff<S> => {
  const encoded = (moment: TimeTravel.Moment<S> | undefined) => projection.encode(moment === undefined ? projection.initial : moment.state)
  const changes = between(encoded(from), encoded(to))
  return { streamId, from, to, changes, patch: patchOf(changes) }
}

/** The stream's moment; `undefined` where it has no fact by then, also where it does not exist. */
export const momentOr = <S>(
  projection: Projection<S>,
  when: TimeTravel.When & { readonly streamId: string }
): Effect.Effect<TimeTravel.Moment<S> | undefined, KsiError.KsiError, EventStore> =>
  TimeTravel.at(projection, when).pipe(
    Effect.catch((error) => error.reason._tag === "NotFound" ? Effect.succeed(undefined) : Effect.fail(error))
  )

/**
 * What is different in one stream between two moments; the second may be the earlier one. Fails with `NotFound` where
 * the stream has no fact by either.
 */
export function diff<S>(
  projection: Projection<S>,
  a: TimeTravel.When,
  b: TimeTravel.When,
  options: { readonly streamId: string }
): Effect.Effect<Diff<S>, KsiError.KsiError, EventStore>
/** What is different in all streams, ordered by stream id; those whose state is the same are left out. */
export function diff<S>(
  projection: Projection<S>,
  a: TimeTravel.When,
  b: TimeTravel.When,
  options?: { readonly streamId?: undefined; readonly all?: boolean | undefined }
): Effect.Effect<ReadonlyArray<Diff<S>>, KsiError.KsiError, EventStore>
export function diff<S>(
  projection: Projection<S>,
  a: TimeTravel.When,
  b: TimeTravel.When,
  { all, streamId }: { readonly streamId?: string | undefined; readonly all?: boolean | undefined } = {}
): Effect.Effect<Diff<S> | ReadonlyArray<Diff<S>>, KsiError.KsiError, EventStore> {
  return streamId === undefined ? diffAll(projection, a, b, all) : diffStream(projection, a, b, streamId)
}

const diffStream = Effect.fnUntraced(function*<S>(
  projection: Projection<S>,
  a: TimeTravel.When,
  b: TimeTravel.When,
  streamId: string
): Effect.fn.Return<Diff<S>, KsiError.KsiError, EventStore> {
  const from = yield* momentOr(projection, { ...a, streamId })
  // Where it is in neither, `at` knows what to say.
  const to = from === undefined ? yield* TimeTravel.at(projection, { ...b, streamId }) : yield* momentOr(projection, { ...b, streamId })
  return diffOf(projection, streamId, from, to)
})

const diffAll = Effect.fnUntraced(function*<S>(
  projection: Projection<S>,
  a: TimeTravel.When,
  b: TimeTravel.When,
  all: boolean | undefined
): Effect.fn.Return<ReadonlyArray<Diff<S>>, KsiError.KsiError, EventStore> {
  const store = yield* EventStore
  // Both answer for one history, also while facts arrive.
  const head = BigInt(store.head())
  const within = (when: TimeTravel.When) => ({
    ...when, all, position: when.position === undefined || when.position > head ? head : when.position
  })
  const before = new Map((yield* TimeTravel.at(projection, within(a))).map((moment) => [moment.streamId, moment]))
  const after = new Map((yield* TimeTravel.at(projection, within(b))).map((moment) => [moment.streamId, moment]))
  const ids = [...new Set([...before.keys(), ...after.keys()])].toSorted()
  const diffs = yield* mapped(ids, (streamId) => diffOf(projection, streamId, before.get(streamId), after.get(streamId)))
  return diffs.filter(({ changes }) => changes.length > 0)
})
