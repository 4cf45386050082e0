/**
 * What every event store promises of facts that are removed on purpose: retention, tombstones, and the holes they leave.
 */
import * as assert from "node:assert/strict"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { StreamSettings } from "../../store/StreamSettings.ts"
import { type Case, everything, fact, facts, invalidAt, positions, promise, refused, type Store, upTo, versions } from "./promise.ts"

/** Facts by turns of "a" and "b": of "a" the odd positions. */
const twoStreams = (store: Store, count: number) =>
  store.append({ facts: facts(count, (index) => ({ streamId: index % 2 === 0 ? "a" : "b" })) })

const log = (store: Store) => Effect.map(Stream.runCollect(store.all()), positions)
const streamOf = (store: Store, streamId: string, backward = false) =>
  Effect.map(Stream.runCollect(store.stream(streamId, { backward })), versions)

const retention: ReadonlyArray<Case> = [
  promise("a setting changes nothing until retention is applied, and then the same for every reader", (store) =>
    Effect.gen(function*() {
      yield* twoStreams(store, 20)
      yield* store.configure("a", { maxCount: 3 })
      assert.deepEqual(yield* log(store), upTo(20))
      assert.equal(yield* store.retain, 7)
      const left = upTo(20).filter((position) => position % 2 === 0 || position >= 15)
      assert.deepEqual(yield* log(store), left)
      assert.deepEqual(positions(yield* everything(store)), left)
      assert.deepEqual(yield* streamOf(store, "a"), [8, 9, 10])
      assert.deepEqual(yield* streamOf(store, "a", true), [10, 9, 8])
      assert.deepEqual(yield* streamOf(store, "b"), upTo(10))
      assert.deepEqual(yield* store.byId("1"), [])
      assert.deepEqual(positions(yield* store.byId("15")), [15])
      assert.equal(store.head(), 20)
      assert.equal(yield* store.retain, 0)
    })),
  promise("reads step over holes: every bound, every limit, both directions; a page is empty only where nothing is left", (store) =>
    Effect.gen(function*() {
      yield* twoStreams(store, 24)
      yield* store.configure("a", { truncateBefore: 10 })
      yield* store.retain
      const left = upTo(24).filter((position) => position % 2 === 0 || position >= 19)
      for (let from = 1; from <= 26; from++) {
        for (const to of [undefined, 1, from, from + 3, 24, 30]) {
          for (const limit of [1, 3, 100]) {
            const expected = left.filter((position) => position >= from && position <= (to ?? 99)).slice(0, limit)
            assert.deepEqual(positions(yield* store.read({ from, to, limit })), expected, `${from} ${to} ${limit}`)
            const kept = [10, 11, 12].filter((version) => version >= from && version <= (to ?? 99))
            for (const backward of [false, true]) {
              const page = yield* store.readStream({ streamId: "a", from, to, limit, backward })
              assert.deepEqual(versions(page), (backward ? kept.toReversed() : kept).slice(0, limit))
            }
          }
        }
      }
    })),
  promise("big facts around holes: a page ends at its bytes and holds at least one", (store) =>
    Effect.gen(function*() {
      const big = "x".repeat(400 * 1024)
      for (const index of upTo(12)) {
        yield* store.append({ facts: [fact(`${index}`, { streamId: index % 3 === 0 ? "b" : "a", data: big })] })
      }
      yield* store.configure("a", { maxCount: 2 })
      yield* store.retain
      assert.deepEqual(yield* log(store), [3, 6, 9, 10, 11, 12])
    })),
  promise("versions and positions are not given out again, also where the last facts are gone", (store) =>
    Effect.gen(function*() {
      yield* twoStreams(store, 6)
      yield* store.configure("a", { truncateBefore: 99 })
      yield* store.configure("b", { truncateBefore: 99 })
      assert.equal(yield* store.retain, 6)
      assert.deepEqual(yield* log(store), [])
      assert.equal(store.head(), 6)
      assert.deepEqual(yield* streamOf(store, "a"), [])
      assert.deepEqual(yield* store.streams({ limit: 9 }), [{ streamId: "a", version: 3 }, { streamId: "b", version: 3 }])
      yield* refused(store.append({ facts: [fact("x")], expectedVersion: 0 }), "VersionConflict")
      const [outcome] = yield* store.append({ facts: [fact("x")], expectedVersion: 3 })
      assert.deepEqual(outcome, { kind: "appended", position: 7, version: 4 })
      assert.deepEqual(yield* streamOf(store, "a"), [4])
    })),
  promise("a fact that was removed is not known any more: its id is free", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: [fact("1"), fact("2")] })
      yield* store.configure("a", { maxCount: 1 })
      yield* store.retain
      const outcomes = yield* store.append({ facts: [fact("1", { data: "other" }), fact("2")] })
      assert.deepEqual(outcomes, [{ kind: "appended", position: 3, version: 3 }, { kind: "duplicate", position: 2, version: 2 }])
    })),
  promise("age is counted from when a fact was stored", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: [fact("1", { time: "1999-01-01T00:00:00Z" }), fact("2")] })
      yield* store.configure("a", { maxAge: 3_600_000 })
      assert.equal(yield* store.retain, 0)
    })),
  promise("thousands of facts of many streams go, a turn after the other", (store) =>
    Effect.gen(function*() {
      for (const batch of upTo(4)) {
        yield* store.append({ facts: facts(1000).map(({ id }) => fact(`${batch}-${id}`, { streamId: batch < 4 ? "a" : `s${id}` })) })
      }
      yield* store.configure("a", { maxCount: 10 })
      for (const index of upTo(200)) yield* store.configure(`s${index}`, { truncateBefore: 2 })
      assert.equal(yield* store.retain, 2990 + 200)
      assert.deepEqual(yield* streamOf(store, "a"), upTo(3000).slice(-10))
      assert.equal((yield* log(store)).length, 10 + 800)
    })),
  promise("settings are given back as they were set, replaced as a whole, and gone when nothing is set", (store) =>
    Effect.gen(function*() {
      const settings: StreamSettings = { maxCount: 2, maxAge: 1000, metadata: { owner: "ann", tags: ["x"] } }
      yield* store.configure("later", settings)
      assert.deepEqual(yield* store.details("later"), {
        streamId: "later", version: 0, first: 1, count: 0, isDeleted: false, settings
      })
      assert.deepEqual(yield* store.streams({ limit: 9 }), [])
      yield* store.configure("later", { truncateBefore: 3 })
      assert.deepEqual((yield* store.details("later")).settings, { truncateBefore: 3 })
      yield* store.configure("later", {})
      yield* refused(store.details("later"), "NotFound")
    })),
  promise("settings that are none, and those of KSI's own streams, are refused", (store) =>
    Effect.gen(function*() {
      for (const settings of [{ maxCount: 0 }, { maxAge: 1.5 }, { truncateBefore: -1 }, { maxcount: 2 }]) {
        yield* invalidAt("settings", store.configure("a", settings))
      }
      yield* invalidAt("stream", store.configure("ksi-permissions", { maxCount: 1 }))
      yield* invalidAt("stream", store.configure("", { maxCount: 1 }))
      yield* invalidAt("streamId", store.delete("ksi-permissions"))
    }))
]

const tombstones: ReadonlyArray<Case> = [
  promise("a deleted stream is its tombstone, and takes no fact any more", (store) =>
    Effect.gen(function*() {
      yield* twoStreams(store, 6)
      const heard: Array<string> = []
      yield* store.listen((list) => heard.push(...list.map(({ name }) => name)))
      assert.deepEqual(yield* store.delete("a", { expectedVersion: 3, reason: "asked to" }), { kind: "deleted", version: 4 })
      const [tombstone, ...others] = yield* store.readStream({ streamId: "a", from: 1, limit: 9 })
      assert.deepEqual([tombstone?.name, tombstone?.version, tombstone?.position, tombstone?.data, others], [
        "store:stream_deleted", 4, 7, { reason: "asked to" }, []
      ])
      assert.deepEqual(heard, ["store:stream_deleted"])
      assert.deepEqual(yield* log(store), [2, 4, 6, 7])
      for (const expectedVersion of [undefined, 0, 4]) {
        const append = { facts: [fact("n", { streamId: "b" }), fact("x")], expectedVersion }
        assert.equal((yield* refused(store.append(append), "StreamDeleted")).streamId, "a")
      }
      yield* refused(store.append({ facts: [fact("1")], mode: "each" }), "StreamDeleted")
      yield* refused(store.configure("a", { maxCount: 1 }), "StreamDeleted")
      assert.equal(store.head(), 7)
      assert.deepEqual(positions(yield* store.append({ facts: [fact("n", { streamId: "b" })] })), [8])
    })),
  promise("deleting again changes nothing; an expected version must be the stream's; what never was is not found", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: facts(2) })
      yield* refused(store.delete("a", { expectedVersion: 1 }), "VersionConflict")
      yield* refused(store.delete("other"), "NotFound")
      assert.deepEqual(yield* streamOf(store, "a"), [1, 2])
      yield* store.configure("a", { maxAge: 1 })
      yield* store.delete("a")
      assert.deepEqual(yield* store.delete("a"), { kind: "already", version: 3 })
      const { count, first, isDeleted, settings } = yield* store.details("a")
      assert.deepEqual([count, first, isDeleted, settings], [1, 3, true, {}])
      assert.equal(yield* store.retain, 0)
      assert.deepEqual(yield* streamOf(store, "a"), [3])
    })),
  promise("who keeps something of facts hears which facts go", (store) =>
    Effect.gen(function*() {
      const removed: Array<unknown> = []
      store.driver.onRemoved((what) => removed.push(what))
      yield* twoStreams(store, 6)
      yield* store.configure("a", { maxCount: 1 })
      yield* store.retain
      yield* store.delete("b")
      yield* store.configure("a", { truncateBefore: 99 })
      yield* store.retain
      assert.deepEqual(removed, [
        { streamId: "a", positions: [1, 3] }, { streamId: "b", positions: [2, 4, 6] }, { streamId: "a", positions: [5] }
      ])
    }))
]

const bounds: ReadonlyArray<Case> = [
  promise("a bound that is no whole number is refused; one beyond everything is none", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: facts(3) })
      for (const wrong of [Number.NaN, 1.5]) {
        for (const backward of [false, true]) {
          yield* invalidAt("from", Stream.runCollect(store.all({ from: wrong, backward })))
          yield* invalidAt("to", Stream.runCollect(store.all({ to: wrong, backward })))
          yield* invalidAt("from", Stream.runCollect(store.stream("a", { from: wrong, backward })))
          yield* invalidAt("to", Stream.runCollect(store.stream("a", { to: wrong, backward })))
        }
        yield* invalidAt("expectedVersion", store.delete("a", { expectedVersion: wrong }))
      }
      for (const far of [Infinity, 2 ** 60]) {
        for (const backward of [false, true]) {
          assert.equal((yield* Stream.runCollect(store.all({ from: -far, to: far, backward }))).length, 3)
          assert.equal((yield* Stream.runCollect(store.stream("a", { from: -far, to: far, backward }))).length, 3)
        }
      }
    })),
  promise("a reason that is longer than a fact may be is refused, and nothing is deleted", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: facts(1) })
      yield* refused(store.delete("a", { reason: "x".repeat(5 * 1024 * 1024) }), "LimitExceeded")
      assert.deepEqual(yield* streamOf(store, "a"), [1])
    }))
]

/** The cases. */
export const cases: ReadonlyArray<Case> = [...retention, ...tombstones, ...bounds]
