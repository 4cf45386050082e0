import { describe, expect, it } from "@effect/vitest"
import { Effect, JsonPatch, Option, Result, Schema } from "effect"
import * as Json from "../../src/event/Json.ts"
import * as Comparison from "../../src/store/Comparison.ts"
import * as Projection from "../../src/store/Projection.ts"
import { append, Count, Counted, everything, factsOf, fold, memory, stores, streams } from "./histories.ts"

const { latest } = Projection
/** Counts as `Count` does, and forgets counts of three from then on. */
const Forgetful = Projection.make("forgetful", {
  events: [Counted], state: Schema.Int, initial: 0, on: { [Counted.name]: (state, { by }) => by === 3 ? state : state + by }
})

for (const [where, layer] of stores) {
  it.effect(`the first divergence is the one that folding both anew for each fact shows, ${where}`, () =>
    Effect.gen(function*() {
      yield* append(factsOf(23, 60))
      const facts = yield* everything
      for (const range of [{}, { to: 6n }, ...streams.map((streamId) => ({ streamId }))]) {
        const streamId = "streamId" in range ? range.streamId : undefined
        const to = "to" in range ? range.to : 1000n
        const expected = facts.find((fact) => {
          const own = facts.filter((other) => other.streamId === fact.streamId && other.version <= fact.version)
          return fact.position <= to && (streamId === undefined || fact.streamId === streamId) && fold(Count, own) !== fold(Forgetful, own)
        })
        const found = yield* Comparison.compare(Count, Forgetful, range)
        expect(Option.map(found, ({ fact }) => fact)).toEqual(Option.fromUndefinedOr(expected))
        if (Option.isNone(found)) continue
        const { a, b, patch } = found.value
        expect([a - b, JsonPatch.apply(patch as JsonPatch.JsonPatch, a)]).toEqual([3, b])
      }
      expect(Option.isSome(yield* Comparison.compare(Count, Forgetful))).toBe(true)
    }).pipe(Effect.provide(layer)))
}

describe("compare", () => {
  it.effect("finds nothing between two that say the same, and goes by what the states are as JSON", () =>
    Effect.gen(function*() {
      yield* append(factsOf(3, 30))
      const sorted: typeof latest = {
        ...latest,
        apply: (state, fact) => Result.map(latest.apply(state, fact), (next) => Object.fromEntries(Object.entries(next).toReversed()))
      }
      expect(yield* Comparison.compare(latest, sorted)).toEqual(Option.none())
      expect(Json.equal(latest.initial, sorted.initial)).toBe(true)
    }).pipe(Effect.provide(memory)))

  it.effect("says which of both cannot read a fact", () =>
    Effect.gen(function*() {
      yield* append([{ id: "1", source: "/t", name: Counted.name, streamId: "a", data: { by: "x" }, time: undefined, attributes: {} }])
      const error = yield* Effect.flip(Comparison.compare(latest, Forgetful))
      expect(error.reason).toMatchObject({ _tag: "StoreFailure", operation: "fold the projection \"forgetful\"" })
    }).pipe(Effect.provide(memory)))
})
