/**
 * Two versions of a projection over the same history: where they first say something different.
 *
 * The rule: both see every fact, and are compared by the JSON of their states after each. The first fact after which
 * these differ is the answer, with both states and the patch that leads from the one to the other.
 *
 * **Example**
 *
 * ```ts
 * const store = yield* EventStore.EventStore
 * yield* store.appendTo("note-1", [{ name: "note:written", data: { text: "a" } }, { name: "note:written", data: "b" }])
 * const shouting = { ...Projection.latest, name: "shouting", encode: (state) => ({ ...state, ...(state.value ? { value: "B" } : {}) }) }
 * const divergence = yield* Comparison.compare(Projection.latest, shouting, { streamId: "note-1" })
 * Option.map(divergence, ({ fact, patch }) => [fact.version, patch])
 * // Option.some([2, [{ op: "replace", path: "/value", value: "B" }]])
 * ```
 *
 * **Gotchas** Without a stream the states of all streams are held, of both versions. KSI's own streams are left out
 * unless named.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { StoredFact } from "../event/CloudEvent.ts"
import * as Json from "../event/Json.ts"
import type * as KsiError from "../event/KsiError.ts"
import * as Difference from "./Difference.ts"
import type { EventStore } from "./EventStore.ts"
import { type Projection, step } from "./Projection.ts"
import * as Search from "./Search.ts"

/** Where two versions part. */
export interface Divergence<out A, out B> {
  /** The first fact after which their states differ. */
  readonly fact: StoredFact
  readonly a: A
  readonly b: B
  readonly changes: ReadonlyArray<Difference.Change>
  /** Applied to the encoded state of the first version it gives that of the second. */
  readonly patch: ReadonlyArray<Difference.Operation>
}

/** Both states at once. */
export type Both<A, B> = readonly [A, B]

/** Two projections as one, whose state is that of both. */
export const both = <A, B>(a: Projection<A>, b: Projection<B>): Projection<Both<A, B>> => ({
  // No snapshot and no registry knows this name.
  name: `${a.name} and ${b.name}`,
  initial: [a.initial, b.initial],
  handles: (event) => a.handles(event) || b.handles(event),
  apply: ([stateA, stateB], fact) => {
    const nextA = step(a, stateA, fact)
    if (Result.isFailure(nextA)) return Result.fail(nextA.failure)
    const nextB = step(b, stateB, fact)
    return Result.isFailure(nextB) ? Result.fail(nextB.failure) : Result.succeed([nextA.success, nextB.success])
  },
  encode: ([stateA, stateB]) => [a.encode(stateA), b.encode(stateB)],
  keys: undefined
})

/** Opens a comparison that can be carried on piece by piece. */
export const open = <A, B>(
  a: Projection<A>,
  b: Projection<B>,
  where: Search.Where
): Effect.Effect<Search.Search<Both<A, B>>, KsiError.KsiError, EventStore> =>
  Search.open(both(a, b), ([stateA, stateB]) => Result.succeed(!Json.equal(a.encode(stateA), b.encode(stateB))), where)

/** What a comparison found, told in full. */
export const divergenceOf = <A, B>(
  a: Projection<A>,
  b: Projection<B>,
  { after: [stateA, stateB], fact }: Search.Found<Both<A, B>>
): Divergence<A, B> => {
  const changes = Difference.between(a.encode(stateA), b.encode(stateB))
  return { fact, a: stateA, b: stateB, changes, patch: Difference.patchOf(changes) }
}

/** Where two versions of a projection first differ; none where they say the same all along. Fails as `Search.find` does. */
export const compare = Effect.fnUntraced(function*<A, B>(
  a: Projection<A>,
  b: Projection<B>,
  where: Search.Where = {}
): Effect.fn.Return<Option.Option<Divergence<A, B>>, KsiError.KsiError, EventStore> {
  const search = yield* open(a, b, where)
  return Option.map(yield* search.advance(Number.MAX_SAFE_INTEGER), (found) => divergenceOf(a, b, found))
})
