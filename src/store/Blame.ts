/**
 * Which fact gave each field of a state the value that it has.
 *
 * The rule: a field is blamed on the last fact that changed its value, be it to the same as once before; a fact that
 * says again what was so already changes nothing. Fields are the leaves of the state's JSON: what is no object and no
 * list, and what is an empty one. Items of a list are known by their place.
 *
 * **Example**
 *
 * ```ts
 * const store = yield* EventStore.EventStore
 * yield* store.appendTo("cup-1", [{ name: "cup:made", data: { of: "tea", hot: true } }, { name: "cup:left", data: { hot: false } }])
 * const blamed = yield* Blame.blame(Projection.latest, { streamId: "cup-1" })
 * blamed.map(({ fact, field, value }) => [field, value, fact?.name])
 * // [["of", "tea", "cup:made"], ["hot", false, "cup:left"]]
 * ```
 *
 * **Gotchas** It reads the stream from its beginning: what a snapshot holds has forgotten where it comes from. A value
 * that stood in the projection's initial state and never changed is no fact's. Where the beginning of a stream was removed,
 * the first fact that is left is blamed for what those before it said too, and what only they said is not there. Who takes the first item out of a list
 * changes all the others, which move.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { StoredFact } from "../event/CloudEvent.ts"
import * as EventName from "../event/EventName.ts"
import * as Json from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import * as Difference from "./Difference.ts"
import { EventStore } from "./EventStore.ts"
import * as FactWalk from "./internal/factWalk.ts"
import { type Projection, step } from "./Projection.ts"
import * as TimeTravel from "./TimeTravel.ts"

/** A field, and where its value comes from. */
export interface Blamed {
  /** As people write it: `lines[1].sku`; empty where the state itself is the leaf. */
  readonly field: string
  /** The same as a JSON Pointer. */
  readonly pointer: string
  readonly value: unknown
  /** `undefined` where the value is that of the projection's initial state. */
  readonly fact: StoredFact | undefined
}

/** Where each part of a value comes from. */
type Origin =
  | { readonly kind: "leaf"; readonly fact: StoredFact | undefined }
  | { readonly kind: "node"; readonly parts: ReadonlyMap<string, Origin> }

type Container = ReadonlyArray<unknown> | Json.JsonObject

const isContainer = (value: unknown): value is Container =>
  Array.isArray(value) ? value.length > 0 : Json.isObject(value) && Object.keys(value).length > 0

const partOf = (value: unknown, key: string): unknown =>
  Array.isArray(value) ? value[Number(key)] : Json.isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined

/** The origins of `after`; what is as it was keeps its own. */
const originOf = (origin: Origin | undefined, before: unknown, after: unknown, fact: StoredFact | undefined): Origin => {
  if (origin !== undefined && before === after) return origin
  if (!isContainer(after)) return origin?.kind === "leaf" && Json.equal(before, after) ? origin : { kind: "leaf", fact }
  const known = origin?.kind === "node" && Array.isArray(before) === Array.isArray(after) ? origin.parts : undefined
  const parts = new Map<string, Origin>()
  for (const [key, part] of Object.entries(after)) parts.set(key, originOf(known?.get(key), partOf(before, key), part, fact))
  return { kind: "node", parts }
}

const leavesOf = function*(origin: Origin, value: unknown, path: ReadonlyArray<Difference.Step>): Generator<Blamed> {
  if (origin.kind === "leaf") {
    yield { field: Difference.pathText(path), pointer: Difference.pointer(path), value, fact: origin.fact }
    return
  }
  for (const [key, part] of origin.parts) {
    yield* leavesOf(part, partOf(value, key), [...path, Array.isArray(value) ? Number(key) : key])
  }
}

/** Whether a leaf is the field that was asked for, or within it. */
const isWithin = ({ field, pointer }: Blamed, asked: string): boolean =>
  asked.startsWith("/")
    ? pointer === asked || pointer.startsWith(`${asked}/`)
    : field === asked || field.startsWith(`${asked}.`) || field.startsWith(`${asked}[`)

/** What may be asked for: every leaf, and what it stands in. */
const fieldsOf = (blamed: ReadonlyArray<Blamed>): ReadonlyArray<string> =>
  [...new Set(blamed.flatMap(({ field }) => [field, field.split(/[.[]/, 1).join()]))].filter((field) => field !== "")

/**
 * The fact behind each field of a stream's state at a moment (default: now), in the order of the state. `field` asks for
 * one field, or for all within it: dotted (`lines[1].sku`) or a JSON Pointer (`/lines/1/sku`). Fails with `NotFound` where
 * the stream or the field does not exist, and as `TimeTravel.at` does.
 */
export const blame = Effect.fnUntraced(function*<S>(
  projection: Projection<S>,
  { field, streamId, ...when }: TimeTravel.When & { readonly streamId: string; readonly field?: string | undefined }
): Effect.fn.Return<ReadonlyArray<Blamed>, KsiError.KsiError, EventStore> {
  const store = yield* EventStore
  const { pageItems } = yield* Limits.Limits
  const counts = FactWalk.countsAt(when)
  let state = projection.initial
  let encoded = projection.encode(state)
  let origin = originOf(undefined, undefined, encoded, undefined)
  let found = false
  yield* FactWalk.walk(store, { streamId, from: 1, to: FactWalk.lastOf(store, when) }, pageItems, (fact) => {
    if (!counts(fact)) return false
    found = true
    const applied = step(projection, state, fact)
    if (Result.isFailure(applied)) return applied.failure
    state = applied.success
    const next = projection.encode(state)
    origin = originOf(origin, encoded, next, fact)
    encoded = next
    return false
  })
  // It knows what to say of a stream that is not there, or not yet.
  if (!found) yield* TimeTravel.at(projection, { ...when, streamId })
  const blamed = [...leavesOf(origin, encoded, [])]
  if (field === undefined) return blamed
  const asked = blamed.filter((leaf) => isWithin(leaf, field))
  return asked.length > 0 ? asked : yield* KsiError.fail(
    new KsiError.NotFound({ what: "field", id: field, similar: EventName.nearest(field, fieldsOf(blamed)), detail: `in the state of ${streamId}` })
  )
})
