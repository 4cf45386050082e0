// Facts are removed from a SQLite store, by retention and with whole streams, while its process dies between two writes and its disk
// is full. One fiber does it all and repeats what had no answer, so a list says what must be left; another one reads all the while,
// and must never see a part of a stream that is deleted.
import * as assert from "node:assert/strict"
import { Effect, Fiber, Layer, Random, Stream } from "effect"
import { EventStore } from "../../../src/store/EventStore.ts"
import * as KsiError from "../../../src/event/KsiError.ts"
import type * as Simulation from "../../../src/testing/Simulation.ts"

const rounds = 12
/** Longer than what is erased in one turn. */
const longest = 500
const short = ["s0", "s1", "s2"]

type Store = EventStore["Service"]
type Counts = Record<string, number>

const tell = (counts: Counts, what: string): void => void (counts[what] = (counts[what] ?? 0) + 1)

/** Does something until it is answered. */
const insist = Effect.fnUntraced(function*<A>(node: Simulation.Node, counts: Counts, body: (store: Store) => Effect.Effect<A, KsiError.KsiError>) {
  for (;;) {
    const tried = yield* Effect.result(node.use(Effect.flatMap(EventStore, (store) => Effect.result(body(store)))))
    if (tried._tag === "Success" && tried.success._tag === "Success") return tried.success.success
    const failure = tried._tag === "Failure" ? tried.failure : tried.success._tag === "Failure" ? tried.success.failure : undefined
    assert.ok(failure?.reason._tag === "ConnectionLost" || failure?.reason._tag === "StoreFailure", String(failure))
    tell(counts, failure.reason._tag)
    yield* Effect.sleep("100 millis")
  }
})

/** What is left, by stream: ids in their order. */
type Left = Map<string, ReadonlyArray<string>>

/** A tag is a write of its own, in which the process may die: so only some have one. */
const taggedEach = 50

const fact = (streamId: string, id: string, n: number) =>
  ({ id, source: "/model", name: "m:a", streamId, data: 1, time: undefined, attributes: n % taggedEach === 0 ? { ksitags: streamId } : {} })

/** What is appended again is looked at fact by fact, each time with a chance to die: so a few at a time. */
const together = 20

const appended = Effect.fnUntraced(function*(node: Simulation.Node, counts: Counts, left: Left, streamId: string, ids: ReadonlyArray<string>) {
  for (let at = 0; at < ids.length; at += together) {
    const facts = ids.slice(at, at + together).map((id, n) => fact(streamId, id, at + n))
    yield* insist(node, counts, (store) => store.append({ facts }))
  }
  left.set(streamId, [...left.get(streamId) ?? [], ...ids])
})

const remove = Effect.fnUntraced(function*(node: Simulation.Node, counts: Counts, left: Left, gone: Set<string>) {
  const kept = new Map<string, number>()
  for (let round = 0; round < rounds; round++) {
    const streamId = short[yield* Random.nextIntBetween(0, 2)] ?? ""
    const drawn = yield* Random.nextIntBetween(0, 99)
    if (drawn < 45) {
      const count = 1 + (yield* Random.nextIntBetween(0, 30))
      yield* appended(node, counts, left, streamId, Array.from({ length: count }, (_, n) => `${round}.${n}`))
    } else if (drawn < 60) {
      const maxCount = 1 + (yield* Random.nextIntBetween(0, 20))
      yield* insist(node, counts, (store) => store.configure(streamId, { maxCount }))
      kept.set(streamId, maxCount)
    } else if (drawn < 75) {
      tell(counts, "retain")
      yield* insist(node, counts, (store) => store.retain)
      for (const [id, ids] of left) left.set(id, ids.slice(-(kept.get(id) ?? ids.length)))
    } else {
      tell(counts, "delete")
      const long = `long-${round}`
      const count = 1 + (yield* Random.nextIntBetween(0, longest))
      yield* appended(node, counts, left, long, Array.from({ length: count }, (_, n) => `${round}.${n}`))
      gone.add(long)
      yield* insist(node, counts, (store) => store.delete(long))
      left.set(long, [])
    }
  }
})

/** Of a stream that is being deleted either all is seen or its tombstone, in whatever way one looks. */
const watch = Effect.fnUntraced(function*(node: Simulation.Node, counts: Counts, gone: ReadonlySet<string>) {
  for (;;) {
    yield* Effect.sleep("20 millis")
    const streamId = [...gone].at(-1)
    if (streamId === undefined) continue
    const seen = yield* Effect.result(node.use(Effect.gen(function*() {
      const store = yield* EventStore
      const details = yield* store.details(streamId)
      const own = yield* Stream.runCollect(store.stream(streamId))
      const tagged = yield* Stream.runCollect(store.all({ query: [{ tags: [streamId] }] }))
      return { details, own, tagged }
    })))
    if (seen._tag === "Failure") continue
    const { details: { isDeleted, version }, own, tagged } = seen.success
    const all = Math.ceil(version / taggedEach)
    const isOne = isDeleted ? own.length === 1 && tagged.length === 0 : own.length === version && tagged.length === all
    // Between two questions it may be deleted; never is there a part of it.
    const isTwo = !isDeleted && (own.length === version || own.length === 1) && tagged.length === 0
    assert.ok(isOne || isTwo, `${streamId}: ${own.length} facts, ${tagged.length} tagged, of ${version}`)
    tell(counts, isDeleted ? "deleted" : "whole")
  }
})

const check = (left: Left, gone: ReadonlySet<string>) =>
  Effect.gen(function*() {
    const store = yield* EventStore
    for (const [streamId, ids] of left) {
      const { isDeleted, version } = yield* store.details(streamId)
      assert.equal(isDeleted, gone.has(streamId))
      const facts = yield* Stream.runCollect(store.stream(streamId))
      assert.deepEqual(facts.map(({ id, name }) => name === "m:a" ? id : name), isDeleted ? ["store:stream_deleted"] : ids)
      assert.equal(facts.at(-1)?.version, version)
    }
    const all = yield* Stream.runCollect(store.all())
    const expected = [...left].reduce((sum, [streamId, ids]) => sum + (gone.has(streamId) ? 1 : ids.length), 0)
    assert.equal(all.length, expected)
    assert.deepEqual(all.map(({ position }) => position), all.map(({ position }) => position).toSorted((a, b) => a - b))
  })

/** What one seed simulates; answers with how often what happened. */
export const removing = {
  nodes: { store: Layer.empty },
  disk: { crash: 0.003, full: 0.01 },
  program: ({ calm, nodes: { store } }: Simulation.Simulation<"store">) =>
    Effect.gen(function*() {
      const counts: Counts = {}
      const left: Left = new Map()
      const gone = new Set<string>()
      const watching = yield* Effect.forkChild(watch(store, counts, gone))
      yield* remove(store, counts, left, gone)
      yield* Fiber.interrupt(watching)
      yield* calm
      yield* store.use(check(left, gone))
      return counts
    })
}
