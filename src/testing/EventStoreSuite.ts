/**
 * What every event store must do, as programs: the one conformance suite that each driver passes.
 *
 * The rule: a case knows nothing of the driver. It needs a *fresh, empty* store under the default limits, speaks only
 * through `EventStore` and `Journal`, and dies with an `AssertionError` when a promise is not kept.
 *
 * **Example**
 *
 * ```ts
 * // In a test file, one test for each: it.effect(name, () => run.pipe(Effect.provide(layer)))
 * for (const { run } of EventStoreSuite.cases) yield* run.pipe(Effect.provide(Layer.fresh(EventStore.layerMemory)))
 * ```
 *
 * **Gotchas** Build the layer anew for each case (`Layer.fresh` inside one program): positions are compared with 1.
 * What only some drivers do (files, locks, a crash) has its own tests beside them.
 */
import * as assert from "node:assert/strict"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import type { Outcome } from "../bus/Journal.ts"
import * as CloudEvent from "../event/CloudEvent.ts"
import * as Json from "../event/Json.ts"
import type * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import * as correlations from "./internal/correlations.ts"
import * as decisions from "./internal/decisions.ts"
import * as lossless from "./internal/lossless.ts"
import * as removing from "./internal/removing.ts"
import {
  type Case, everything, fact, facts, invalidAt, kinds, positions, promise, refused, type Store, upTo, versions
} from "./internal/promise.ts"
import * as snapshots from "./internal/snapshots.ts"

export type { Case } from "./internal/promise.ts"

type StoredFact = CloudEvent.StoredFact

const contents: ReadonlyArray<Partial<CloudEvent.NewFact>> = [
  { name: "suite:other" },
  { streamId: "b" },
  { data: { id: "2" } },
  { data: null },
  { data: undefined },
  { time: "2020-01-01T00:00:00Z" },
  { attributes: { tenant: "x" } },
  { attributes: { subject: null } }
]

const shown = (value: unknown) => JSON.stringify(value, (_key, item: unknown) => item ?? String(item))

const identity: ReadonlyArray<Case> = [
  promise("positions and versions count from 1 without gaps, over streams and appends", (store) =>
    Effect.gen(function*() {
      assert.equal(store.head(), 0)
      const first = yield* store.append({ facts: [fact("1"), fact("2", { streamId: "b" }), fact("3")] })
      const second = yield* store.append({ facts: [fact("4", { streamId: "b" })] })
      assert.deepEqual([...first, ...second], [
        { kind: "appended", position: 1, version: 1 },
        { kind: "appended", position: 2, version: 1 },
        { kind: "appended", position: 3, version: 2 },
        { kind: "appended", position: 4, version: 2 }
      ])
      assert.equal(store.head(), 4)
      const read = yield* everything(store)
      assert.deepEqual(read.map((f) => [f.position, f.id, f.streamId, f.version]), [
        [1, "1", "a", 1], [2, "2", "b", 1], [3, "3", "a", 2], [4, "4", "b", 2]
      ])
    })),
  promise("the same content again changes nothing and says where it is, whatever the order of its keys", (store) =>
    Effect.gen(function*() {
      const attributes = { tenant: "x", region: "eu" }
      yield* store.append({ facts: [fact("0"), fact("1", { data: { a: 1, b: [1, { c: 2, d: 3 }] }, attributes })] })
      const again = fact("1", { data: { b: [1, { d: 3, c: 2 }], a: 1 }, attributes: { region: "eu", tenant: "x" } })
      for (const mode of ["all", "each"] as const) {
        const outcomes = yield* store.append({ facts: [again], mode })
        assert.deepEqual(outcomes, [{ kind: "duplicate", position: 2, version: 2 }])
      }
      assert.equal(store.head(), 2)
    })),
  ...contents.map((other) =>
    promise(`other content under the same identity is a conflict: ${shown(other)}`, (store) =>
      Effect.gen(function*() {
        yield* store.append({ facts: [fact("0"), fact("1")] })
        const reason = yield* refused(store.append({ facts: [fact("1", other)] }), "IdConflict")
        assert.deepEqual([reason.source, reason.id, reason.position], ["/suite", "1", 2])
        const outcomes = yield* store.append({ facts: [fact("1", other)], mode: "each" })
        assert.deepEqual(outcomes, [{ kind: "conflict", position: 2, version: 2 }])
        assert.equal(store.head(), 2)
        assert.deepEqual((yield* store.byId("1")).map((f) => f.data), [{ id: "1" }])
      }))
  ),
  promise("the same id of another source is another fact, and byId finds both in position order", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: [fact("1"), fact("2"), fact("1", { source: "/other" })] })
      assert.deepEqual((yield* store.byId("1")).map((f) => [f.position, f.source]), [[1, "/suite"], [3, "/other"]])
      assert.deepEqual(yield* store.byId("nobody"), [])
    })),
  promise("`all` stores every fact or none, and a refused append leaves no gap", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: [fact("1")] })
      const refusedFacts = [fact("2"), fact("3", { streamId: "b" }), fact("1", { data: 0 }), fact("4")]
      yield* refused(store.append({ facts: refusedFacts }), "IdConflict")
      assert.equal(store.head(), 1)
      assert.deepEqual(yield* store.byId("2"), [])
      assert.deepEqual(yield* store.streams({ limit: 10 }), [{ streamId: "a", version: 1 }])
      const next = yield* store.append({ facts: [fact("3", { streamId: "b" }), fact("5")] })
      assert.deepEqual([positions(next), versions(next)], [[2, 3], [1, 2]])
    })),
  promise("`each` stores what it can and tells the outcome of every fact, in their order", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: [fact("1"), fact("2")] })
      const mixed = [fact("3"), fact("1", { data: 0 }), fact("2"), fact("4", { streamId: "b" })]
      assert.deepEqual(yield* store.append({ facts: mixed, mode: "each" }), [
        { kind: "appended", position: 3, version: 3 },
        { kind: "conflict", position: 1, version: 1 },
        { kind: "duplicate", position: 2, version: 2 },
        { kind: "appended", position: 4, version: 1 }
      ])
      assert.deepEqual((yield* everything(store)).map((f) => f.id), ["1", "2", "3", "4"])
    })),
  promise("`all` takes duplicates among new facts", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: [fact("1")] })
      const outcomes = yield* store.append({ facts: [fact("1"), fact("2")] })
      assert.deepEqual([kinds(outcomes), positions(outcomes)], [["duplicate", "appended"], [1, 2]])
    })),
  promise("identity holds within one append", (store) =>
    Effect.gen(function*() {
      const twice = yield* store.append({ facts: [fact("1"), fact("1"), fact("2")] })
      assert.deepEqual([kinds(twice), positions(twice)], [["appended", "duplicate", "appended"], [1, 1, 2]])
      const within = yield* refused(store.append({ facts: [fact("3"), fact("3", { data: 0 })] }), "IdConflict")
      // Neither is stored: no position is the other one's.
      assert.deepEqual([within._tag === "IdConflict" && within.position, store.head()], [0, 2])
      const each = yield* store.append({ facts: [fact("3"), fact("3", { data: 0 })], mode: "each" })
      assert.deepEqual([kinds(each), positions(each)], [["appended", "conflict"], [3, 3]])
    })),
  promise("nothing to append is no append", (store) =>
    Effect.gen(function*() {
      assert.deepEqual(yield* store.append({ facts: [] }), [])
      assert.deepEqual(yield* store.append({ facts: [], expectedVersion: 7 }), [])
      assert.equal(store.head(), 0)
    }))
]

const winOnce = (store: Store, worker: number): Effect.Effect<Outcome, KsiError.KsiError> =>
  Effect.gen(function*() {
    for (;;) {
      const [info] = yield* store.streams({ prefix: "a", limit: 1 })
      const expectedVersion = info?.version ?? 0
      const tried = yield* Effect.result(store.append({ facts: [fact(`${worker}`)], expectedVersion }))
      if (tried._tag === "Success") {
        assert.equal(tried.success[0]?.version, expectedVersion + 1)
        return tried.success[0] ?? assert.fail("an append of one fact has one outcome")
      }
      assert.equal(tried.failure.reason._tag, "VersionConflict")
      yield* Effect.yieldNow
    }
  })

const expectations: ReadonlyArray<Case> = [
  promise("an expected version must be the stream's; 0 says that it does not exist", (store) =>
    Effect.gen(function*() {
      const conflict = yield* refused(store.append({ facts: [fact("1")], expectedVersion: 1 }), "VersionConflict")
      assert.deepEqual([conflict.streamId, conflict.expected, conflict.actual], ["a", 1, 0])
      yield* store.append({ facts: [fact("1"), fact("2")], expectedVersion: 0 })
      for (const expectedVersion of [0, 1, 3]) {
        const moved = yield* refused(store.append({ facts: [fact("3")], expectedVersion }), "VersionConflict")
        assert.deepEqual([moved.expected, moved.actual], [expectedVersion, 2])
      }
      assert.equal(store.head(), 2)
      assert.deepEqual(versions(yield* store.append({ facts: [fact("3")], expectedVersion: 2 })), [3])
    })),
  promise("the expected version is that of the first fact's stream", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: [fact("1", { streamId: "b" }), fact("2", { streamId: "b" })] })
      const both = [fact("3"), fact("4", { streamId: "b" })]
      yield* refused(store.append({ facts: both, expectedVersion: 2 }), "VersionConflict")
      assert.deepEqual(versions(yield* store.append({ facts: both, expectedVersion: 0 })), [1, 3])
    })),
  promise("facts that are all stored already are a no-op, even when the stream has moved on", (store) =>
    Effect.gen(function*() {
      const retried = { facts: [fact("1"), fact("2")], expectedVersion: 0 }
      yield* store.append(retried)
      yield* store.append({ facts: [fact("3")] })
      for (const mode of ["all", "each"] as const) {
        const again = yield* store.append({ ...retried, mode })
        assert.deepEqual([kinds(again), positions(again)], [["duplicate", "duplicate"], [1, 2]])
      }
      yield* refused(store.append({ ...retried, facts: [fact("1"), fact("4")] }), "VersionConflict")
      assert.equal(store.head(), 3)
    })),
  promise("64 writers who expect a version: one winner for each", (store) =>
    Effect.gen(function*() {
      const won = yield* Effect.forEach(upTo(64), (worker) => winOnce(store, worker), { concurrency: "unbounded" })
      assert.deepEqual(versions(won).toSorted((a, b) => a - b), upTo(64))
      assert.deepEqual(versions(yield* store.readStream({ streamId: "a", from: 1, limit: 100 })), upTo(64))
    })),
  promise("64 writers who expect nothing: all are stored, without gaps", (store) =>
    Effect.gen(function*() {
      const write = (n: number) => store.append({ facts: [fact(`x${n}`), fact(`y${n}`, { streamId: `s${n % 4}` })] })
      const outcomes = yield* Effect.forEach(upTo(64), write, { concurrency: "unbounded" })
      assert.deepEqual(positions(outcomes.flat()).toSorted((a, b) => a - b), upTo(128))
      for (const [first, second] of outcomes) assert.equal(second?.position, (first?.position ?? 0) + 1)
      const read = yield* everything(store)
      assert.deepEqual(positions(read), upTo(128))
      for (const streamId of ["a", "s0", "s1", "s2", "s3"]) {
        const own = read.filter((f) => f.streamId === streamId)
        assert.deepEqual(versions(own), upTo(own.length))
      }
    }))
]

const kilobytes = (count: number) => "x".repeat(count * 1024)
const inCodeUnitOrder = ["B", "a", "a%", "a_", "aa", "ab", "b", "é", "\u{1F600}", "\u{1F600}x", "\uFF5E"]

const reading: ReadonlyArray<Case> = [
  promise("read: both bounds inclusive, at most `limit`, nothing beyond the end", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: facts(10) })
      const read = (options: Parameters<Store["read"]>[0]) => Effect.map(store.read(options), positions)
      assert.deepEqual(yield* read({ from: 1, limit: 3 }), [1, 2, 3])
      assert.deepEqual(yield* read({ from: 4, to: 6, limit: 100 }), [4, 5, 6])
      assert.deepEqual(yield* read({ from: 9, to: 100, limit: 100 }), [9, 10])
      assert.deepEqual(yield* read({ from: 4, to: 4, limit: 100 }), [4])
      assert.deepEqual(yield* read({ from: 11, limit: 100 }), [])
      assert.deepEqual(yield* read({ from: 5, to: 4, limit: 100 }), [])
    })),
  promise("readStream: by version, forwards or newest first, of this stream only", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: facts(20, (index) => ({ streamId: index % 2 === 0 ? "a" : "ab" })) })
      const read = (options: Omit<Parameters<Store["readStream"]>[0], "streamId">) =>
        Effect.map(store.readStream({ streamId: "a", ...options }), versions)
      assert.deepEqual(yield* read({ from: 1, limit: 100 }), upTo(10))
      assert.deepEqual(yield* read({ from: 3, to: 5, limit: 100 }), [3, 4, 5])
      assert.deepEqual(yield* read({ from: 8, limit: 2 }), [8, 9])
      assert.deepEqual(yield* read({ from: 1, limit: 3, backward: true }), [10, 9, 8])
      assert.deepEqual(yield* read({ from: 3, to: 5, limit: 100, backward: true }), [5, 4, 3])
      assert.deepEqual(yield* read({ from: 3, to: 5, limit: 2, backward: true }), [5, 4])
      assert.deepEqual(yield* read({ from: 11, limit: 100 }), [])
      assert.deepEqual(yield* store.readStream({ streamId: "nobody", from: 1, limit: 100 }), [])
      const odd = yield* store.readStream({ streamId: "a", from: 1, limit: 100 })
      assert.deepEqual(positions(odd), upTo(20).filter((n) => n % 2 === 1))
    })),
  promise("a page ends at its bytes, but holds at least one fact", (store) =>
    Effect.gen(function*() {
      const sizes = [400, 400, 400, 1500, 1500, 10, 10]
      for (const [index, size] of sizes.entries()) {
        yield* store.append({ facts: [fact(`${index}`, { data: kilobytes(size) })] })
      }
      for (const backward of [undefined, false, true]) {
        const seen: Array<number> = []
        while (seen.length < sizes.length) {
          const next = backward === true ? { from: 1, to: sizes.length - seen.length } : { from: seen.length + 1 }
          const page = backward === undefined
            ? yield* store.read({ ...next, limit: 100 })
            : yield* store.readStream({ streamId: "a", ...next, limit: 100, backward })
          const bytes = page.reduce((sum, f) => sum + JSON.stringify(f.data).length, 0)
          assert.ok(page.length === 1 || (page.length > 1 && bytes <= Limits.defaults.pageBytes), `${bytes} bytes`)
          seen.push(...versions(page))
        }
        assert.deepEqual(backward === true ? seen.toReversed() : seen, upTo(sizes.length))
      }
      assert.equal((yield* store.read({ from: 1, limit: 100 })).length, 2)
    })),
  promise("streams are listed by code unit, with their versions, by prefix, after a name, at most `limit`", (store) =>
    Effect.gen(function*() {
      const shuffled = inCodeUnitOrder.toReversed()
      yield* store.append({ facts: shuffled.map((streamId, index) => fact(`${index}`, { streamId })) })
      yield* store.append({ facts: [fact("again", { streamId: "aa" })] })
      const names = (options: Omit<Parameters<Store["streams"]>[0], "limit"> & { readonly limit?: number }) =>
        Effect.map(store.streams({ limit: 100, ...options }), (list) => list.map((info) => info.streamId))
      assert.deepEqual(yield* names({}), inCodeUnitOrder)
      assert.deepEqual(yield* names({ limit: 3 }), inCodeUnitOrder.slice(0, 3))
      for (const [index, after] of inCodeUnitOrder.entries()) {
        assert.deepEqual(yield* names({ after }), inCodeUnitOrder.slice(index + 1))
        assert.deepEqual(yield* names({ after, limit: 2 }), inCodeUnitOrder.slice(index + 1, index + 3))
      }
      for (const prefix of ["a", "a%", "a_", "é", "\u{1F600}", "zz", ""]) {
        const expected = inCodeUnitOrder.filter((id) => id.startsWith(prefix))
        assert.deepEqual(yield* names({ prefix }), expected)
        assert.deepEqual(yield* names({ prefix, after: "a_" }), expected.filter((id) => id > "a_"))
      }
      assert.deepEqual(yield* store.streams({ prefix: "aa", limit: 1 }), [{ streamId: "aa", version: 2 }])
    })),
  promise("stream: all of it in pages, a part of it, backwards; NotFound names the nearest", (store) =>
    Effect.gen(function*() {
      for (const batch of [0, 1, 2]) {
        const streamId = "order-1"
        yield* store.append({ facts: facts(900).map((f) => fact(`${batch}-${f.id}`, { streamId })) })
      }
      const run = (options?: Parameters<Store["stream"]>[1]) =>
        Effect.map(Stream.runCollect(store.stream("order-1", options)), versions)
      assert.deepEqual(yield* run(), upTo(2700))
      assert.deepEqual(yield* run({ backward: true }), upTo(2700).toReversed())
      assert.deepEqual(yield* run({ from: 999, to: 1001 }), [999, 1000, 1001])
      assert.deepEqual(yield* run({ from: 1000, to: 2001, backward: true }), upTo(2001).slice(999).toReversed())
      assert.deepEqual(yield* run({ from: 2701 }), [])
      const missing = yield* refused(Stream.runCollect(store.stream("order-2")), "NotFound")
      assert.deepEqual([missing.what, missing.id, missing.similar], ["stream", "order-2", ["order-1"]])
    })),
  promise("all: in pages, to the head at the start, or between two positions", (store) =>
    Effect.gen(function*() {
      for (const batch of [0, 1, 2]) yield* store.append({ facts: facts(900).map((f) => fact(`${batch}-${f.id}`)) })
      const seen: Array<number> = []
      yield* Stream.runForEach(store.all(), ({ position }) => {
        seen.push(position)
        return position === 1 ? Effect.asVoid(store.append({ facts: [fact("later")] })) : Effect.void
      })
      assert.deepEqual(seen, upTo(2700))
      const part = yield* Stream.runCollect(store.all({ from: 1000, to: 2001 }))
      assert.deepEqual(positions(part), upTo(2001).slice(999))
      assert.deepEqual(yield* Stream.runCollect(store.all({ from: 5000 })), [])
    }))
]

const listening: ReadonlyArray<Case> = [
  promise("listeners hear every commit in position order, before its append answers, nothing else", (store, journal) =>
    Effect.gen(function*() {
      const heard: Array<StoredFact> = []
      const heads: Array<boolean> = []
      yield* journal.listen((list) => {
        heard.push(...list)
        heads.push(journal.head() >= (list.at(-1)?.position ?? 0))
      })
      yield* store.append({ facts: [fact("1"), fact("2")] })
      assert.deepEqual(positions(heard), [1, 2])
      yield* store.append({ facts: [fact("1")] })
      yield* refused(store.append({ facts: [fact("3"), fact("1", { data: 0 })] }), "IdConflict")
      yield* refused(store.append({ facts: [fact("3")], expectedVersion: 9 }), "VersionConflict")
      yield* store.append({ facts: [fact("2"), fact("3"), fact("1", { data: 0 })], mode: "each" })
      assert.deepEqual(positions(heard), [1, 2, 3])
      const write = (n: number) =>
        Effect.map(store.append({ facts: [fact(`w${n}`)] }), ([outcome]) =>
          assert.ok(heard.some((f) => f.position === outcome?.position), "heard before the answer"))
      yield* Effect.forEach(upTo(50), write, { concurrency: "unbounded" })
      assert.deepEqual(positions(heard), upTo(53))
      assert.deepEqual(heard, yield* everything(store))
      assert.ok(heads.every((ahead) => ahead))
    })),
  promise("a listener that throws hurts nobody", (store) =>
    Effect.gen(function*() {
      const heard: Array<number> = []
      yield* store.listen(() => {
        throw new Error("not today")
      })
      yield* store.listen((list) => heard.push(...positions(list)))
      assert.deepEqual(positions(yield* store.append({ facts: [fact("1")] })), [1])
      assert.deepEqual(positions(yield* store.append({ facts: [fact("2")] })), [2])
      assert.deepEqual(heard, [1, 2])
    })),
  promise("a listener hears from its registration until its scope closes", (store) =>
    Effect.gen(function*() {
      const heard: Array<number> = []
      yield* store.append({ facts: [fact("1")] })
      yield* Effect.scoped(Effect.gen(function*() {
        yield* store.listen((list) => heard.push(...positions(list)))
        yield* store.append({ facts: [fact("2")] })
      }))
      yield* store.append({ facts: [fact("3")] })
      assert.deepEqual(heard, [2])
    })),
  promise("who reads up to the head and listens from there misses nothing and hears nothing twice", (store) =>
    Effect.gen(function*() {
      const batch = (n: number) => facts(7).map((f) => fact(`${n}/${f.id}`))
      const write = (n: number) => Effect.andThen(store.append({ facts: batch(n) }), Effect.yieldNow)
      const writers = yield* Effect.forkChild(Effect.forEach(upTo(40), write, { concurrency: 4 }))
      const heard: Array<number> = []
      let seen = 0
      while (seen < 30) {
        seen += (yield* store.read({ from: seen + 1, limit: 5 })).length
        yield* Effect.yieldNow
      }
      const caughtUp = upTo(seen)
      yield* store.listen((list) => heard.push(...positions(list)))
      const head = store.head()
      while (seen < head) {
        const page = yield* store.read({ from: seen + 1, to: head, limit: 5 })
        caughtUp.push(...positions(page))
        seen += page.length
      }
      yield* Fiber.join(writers)
      assert.deepEqual([...caughtUp, ...heard.filter((position) => position > head)], upTo(280))
    })),
  promise("an interrupted append is stored whole or not at all, and leaves the store usable", (store) =>
    Effect.gen(function*() {
      const fibers = yield* Effect.forEach(upTo(32), (n) =>
        Effect.forkChild(store.append({ facts: [fact(`${n}`), fact(`${n}b`)] })))
      yield* Effect.forEach(fibers, (fiber, index) => index % 2 === 0 ? Fiber.interrupt(fiber) : Effect.yieldNow)
      yield* Effect.forEach(fibers, Fiber.await)
      yield* store.append({ facts: [fact("last")] })
      const read = yield* everything(store)
      assert.deepEqual(positions(read), upTo(read.length))
      const ids = new Set(read.map((f) => f.id))
      for (const n of upTo(32)) assert.equal(ids.has(`${n}`), ids.has(`${n}b`))
      for (const n of upTo(32).filter((m) => m % 2 === 0)) assert.ok(ids.has(`${n}`))
    }))
]

const appending: ReadonlyArray<Case> = [
  promise("appendTo fills in id, source and time, and keeps what was given", (store) =>
    Effect.gen(function*() {
      const inputs = [{ name: "order:placed", data: { n: 1 } }, { name: "order:paid" }, {
        name: "order:sent", id: "own", source: "/shop", time: "2020-01-01T00:00:00+01:00", attributes: { tenant: "x" }
      }]
      const outcomes = yield* store.appendTo("order-1", inputs, { expectedVersion: 0 })
      assert.deepEqual(kinds(outcomes), ["appended", "appended", "appended"])
      const [placed, paid, sent] = yield* everything(store)
      assert.deepEqual([placed?.source, placed?.streamId], ["/ksi", "order-1"])
      assert.deepEqual([placed?.data, paid?.data], [{ n: 1 }, undefined])
      assert.equal(placed?.timestamp, CloudEvent.parseTime(placed?.time ?? ""))
      assert.ok((placed?.id ?? "") < (paid?.id ?? ""), "ids increase")
      assert.deepEqual(sent && CloudEvent.encode(sent), {
        specversion: "1.0", id: "own", source: "/shop", type: "order:sent", subject: "order-1",
        time: "2020-01-01T00:00:00+01:00", tenant: "x", position: 3, version: 3
      })
      yield* refused(store.appendTo("order-1", [{ name: "order:paid" }], { expectedVersion: 2 }), "VersionConflict")
      yield* invalidAt("attributes", store.appendTo("b", [{ name: "a:b", attributes: { id: "x" } }]))
      yield* invalidAt("attributes", store.appendTo("b", [{ name: "a:b", attributes: { "Not-One": 1 } }]))
      assert.equal(store.head(), 3)
    })),
  promise("streams of KSI's own are refused to everybody else", (store, journal) =>
    Effect.gen(function*() {
      yield* invalidAt("streamId", store.appendTo("ksi-saga", [{ name: "a:b" }]))
      yield* invalidAt("streamId", store.append({ facts: [fact("0"), fact("1", { streamId: "ksi-\uffff\uffff" })] }))
      yield* invalidAt("streamId", journal.append({ facts: [fact("1", { streamId: "ksi-saga" })] }))
      assert.equal(store.head(), 0)
      yield* store.driver.append({ facts: [fact("1", { streamId: "ksi-saga" })] })
      assert.equal((yield* Stream.runCollect(store.stream("ksi-saga"))).length, 1)
    })),
  promise("more facts than `appendEvents` are refused, as many are taken", (store) =>
    Effect.gen(function*() {
      const max = Limits.defaults.appendEvents
      const reason = yield* refused(store.append({ facts: facts(max + 1) }), "LimitExceeded")
      assert.deepEqual([reason.limit, reason.max, reason.actual], ["appendEvents", max, max + 1])
      assert.equal(store.head(), 0)
      assert.deepEqual(positions(yield* store.append({ facts: facts(max) })), upTo(max))
    })),
  promise("data nested deeper than `jsonDepth` is refused, as deep is taken and can be read", (store) =>
    Effect.gen(function*() {
      const max = Limits.defaults.jsonDepth
      // The number takes the careful way.
      const nested = (depth: number): unknown => Json.parse(`${"[".repeat(depth)}1e400${"]".repeat(depth)}`)
      const plain = (depth: number): unknown => JSON.parse(`${"[".repeat(depth)}${"]".repeat(depth)}`)
      for (const data of [nested(max + 1), plain(max + 1), plain(20_000)]) {
        for (const each of [{ data }, { attributes: { deep: data } }]) {
          const reason = yield* refused(store.append({ facts: [fact("0"), fact("1", each)] }), "LimitExceeded")
          assert.deepEqual([reason.limit, reason.max], ["jsonDepth", max])
        }
      }
      assert.equal(store.head(), 0)
      const given = [fact("1", { data: nested(max) }), fact("2", { data: plain(max) })]
      for (const kind of ["appended", "duplicate"]) assert.deepEqual(kinds(yield* store.append({ facts: given })), [kind, kind])
      const texts = (yield* everything(store)).map(({ data }) => JSON.stringify(data))
      assert.deepEqual(texts, given.map(({ data }) => JSON.stringify(data)))
    })),
  promise("labels and times that are no texts are refused", (store) =>
    Effect.gen(function*() {
      const deep: unknown = JSON.parse(`${"[".repeat(20_000)}${"]".repeat(20_000)}`)
      // A program without a compiler passes anything.
      const loose = (other: object) => store.append({ facts: [{ ...fact("1"), ...other } as CloudEvent.NewFact] })
      for (const bad of [5, null, {}, deep]) {
        yield* invalidAt("time", loose({ time: bad }))
        for (const label of ["streamId", "id", "source"]) yield* invalidAt(label, loose({ [label]: bad }))
      }
      assert.equal(store.head(), 0)
    })),
  promise("data longer than `frameBytes` of JSON is refused, as long is taken", (store) =>
    Effect.gen(function*() {
      const max = Limits.defaults.frameBytes
      const text = "é".repeat(max / 2 - 1)
      const reason = yield* refused(store.append({ facts: [fact("1", { data: `${text}x` })] }), "LimitExceeded")
      assert.deepEqual([reason.limit, reason.max, reason.actual], ["frameBytes", max, max + 1])
      yield* store.append({ facts: [fact("1", { data: text })] })
      assert.ok((yield* everything(store))[0]?.data === text)
    })),
  promise("labels longer than their limit, empty ones, broken Unicode and a time that is none are refused", (store) =>
    Effect.gen(function*() {
      const long = "é".repeat(Limits.defaults.idLength)
      const longest = { source: long, streamId: long, name: "é".repeat(256) }
      yield* store.append({ facts: [fact(long, longest)] })
      const [read] = yield* everything(store)
      assert.deepEqual([read?.id, read?.source, read?.streamId, read?.name], [long, long, long, long])
      for (const label of ["id", "source", "streamId", "name"] as const) {
        for (const text of [`${long}x`, "", "\ud800"]) {
          yield* invalidAt(label, store.append({ facts: [fact("1"), fact("2", { [label]: text })] }))
        }
      }
      for (const time of ["yesterday", "2018-03-15", "2018-02-30T00:00:00Z"]) {
        yield* invalidAt("time", store.append({ facts: [fact("1", { time })] }))
      }
      assert.equal(store.head(), 1)
    }))
]

/** All promises of an event store. */
export const cases: ReadonlyArray<Case> = [
  ...identity, ...expectations, ...lossless.cases, ...correlations.cases, ...reading, ...listening, ...appending,
  ...decisions.cases, ...snapshots.cases, ...removing.cases
]
