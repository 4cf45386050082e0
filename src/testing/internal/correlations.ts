/**
 * The promises of an event store about chains of causes: facts are found by the correlation id they carry.
 */
import * as assert from "node:assert/strict"
import * as Effect from "effect/Effect"
import * as Limits from "../../event/Limits.ts"
import { type Case, fact, positions, promise, refused, type Store } from "./promise.ts"

const all = Effect.fnUntraced(function*(store: Store, correlationId: string, limit = 1000) {
  const found: Array<number> = []
  for (let from = 1;;) {
    const page = yield* store.driver.byCorrelation({ correlationId, from, limit })
    assert.ok(page.length <= limit)
    if (page.length === 0) return found
    found.push(...positions(page))
    from = (page.at(-1)?.position ?? 0) + 1
  }
})

const caused = (id: string, by: string) => fact(id, { attributes: { correlationid: by, causationid: by, depth: 1 } })

/** The promises about chains. */
export const cases: ReadonlyArray<Case> = [
  promise("facts of a chain are found by its correlation id, in position order, also those that came since it was asked for", (store) =>
    Effect.gen(function*() {
      assert.deepEqual(yield* all(store, "r"), [])
      yield* store.append({ facts: [fact("r", { attributes: { correlationid: "r" } }), caused("1", "r"), caused("2", "s"), fact("3")] })
      assert.deepEqual([yield* all(store, "r"), yield* all(store, "s"), yield* all(store, "t")], [[2], [3], []])
      yield* store.append({ facts: [fact("4"), { ...caused("5", "r"), streamId: "b" }] })
      assert.deepEqual(yield* all(store, "r"), [2, 6])
      assert.deepEqual(positions(yield* store.driver.byCorrelation({ correlationId: "r", from: 3, limit: 10 })), [6])
      assert.deepEqual(positions(yield* store.driver.byCorrelation({ correlationId: "r", from: 1, limit: 1 })), [2])
      assert.deepEqual(positions(yield* store.driver.byCorrelation({ correlationId: "r", from: 1, limit: 0 })), [])
    })),
  promise("and by the label that a client gave; attributes that are no texts are no ids", (store) =>
    Effect.gen(function*() {
      yield* store.append({
        facts: [
          fact("1", { attributes: { correlationid: "1", clientcorrelationid: "mine" } }),
          fact("2", { attributes: { correlationid: "1", clientcorrelationid: "mine", causationid: "1" } }),
          fact("3", { attributes: { correlationid: 5, clientcorrelationid: true } }),
          fact("4", { attributes: { correlationid: "mine", clientcorrelationid: "mine" } })
        ]
      })
      assert.deepEqual([yield* all(store, "mine"), yield* all(store, "1")], [[1, 2, 4], [2]])
      assert.deepEqual([yield* all(store, "5"), yield* all(store, "true")], [[], []])
    })),
  promise("long chains come in pages, and an append that failed is in none", (store) =>
    Effect.gen(function*() {
      const count = Limits.defaults.appendEvents
      for (let round = 0; round < 5; round++) {
        yield* store.append({ facts: Array.from({ length: count }, (_, n) => caused(`${round}-${n}`, n % 2 === 0 ? "even" : "odd")) })
      }
      yield* refused(store.append({ facts: [caused("new", "even"), fact("0-0", { data: "other" })] }), "IdConflict")
      const even = yield* all(store, "even", 64)
      assert.deepEqual(even, Array.from({ length: 5 * count / 2 }, (_, n) => 2 * n + 1))
    }))
]
