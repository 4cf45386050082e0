/**
 * The conformance suite's cases of snapshots: what replaying relies on, whatever keeps them.
 */
import * as assert from "node:assert/strict"
import * as Effect from "effect/Effect"
import * as Snapshots from "../../store/Snapshots.ts"
import { type Case, promise, type Store } from "./promise.ts"

const chain: Snapshots.Chain = { projection: "suite", fingerprint: "f", subject: Snapshots.ofAll }
const about = (streamId: string): Snapshots.Chain => ({ ...chain, subject: Snapshots.ofStream(streamId) })

/** A point whose chunks 0 and up are written now. */
const point = (position: number, previous: number, times: Partial<Snapshots.Point> = {}): Snapshots.Point => ({
  position, through: position, previous, newest: position, oldest: position, late: false, chunks: 1, written: position, ...times
})

/** Writes points one after the other, each with a text that says which it is in chunk 0. */
const write = (store: Store, points: ReadonlyArray<Snapshots.Point>, into = chain) =>
  Effect.forEach(points, (point) =>
    store.driver.snapshots.write({
      chain: into, last: point.previous, epoch: store.driver.snapshots.epoch(), point, bodies: new Map([[0, `at ${point.position}`]])
    }))

/** The cases. */
export const cases: ReadonlyArray<Case> = [
  promise("snapshots: the last point up to a position, all of whose facts had happened by an instant", (store) =>
    Effect.gen(function*() {
      const { snapshots } = store.driver
      const points = [point(10, 0), point(20, 10, { newest: 50 }), point(30, 20, { newest: 50, oldest: 15, late: true }), point(40, 30, { newest: 60 })]
      assert.equal(yield* snapshots.newest(chain), undefined)
      assert.deepEqual(yield* write(store, points), [true, true, true, true])
      assert.deepEqual(yield* snapshots.newest(chain), points[3])
      const before = (position: number, instant: number) => Effect.map(snapshots.before(chain, position, instant), (found) => found?.position)
      const bounds = [[9, Infinity], [10, Infinity], [39, Infinity], [1e30, Infinity], [39, 49], [39, 50], [1e30, 59], [1e30, 9]] as const
      assert.deepEqual(yield* Effect.forEach(bounds, ([position, instant]) => before(position, instant)),
        [undefined, 10, 30, 40, 10, 30, 30, undefined])
      assert.deepEqual([yield* snapshots.after(chain, 0), yield* snapshots.after(chain, 10), yield* snapshots.after(chain, 40)],
        [points[0], points[1], undefined])
      const late = (from: number, to: number, instant: number) => snapshots.late(chain, from, to, instant)
      assert.deepEqual(yield* Effect.all([late(20, 40, 15), late(20, 40, 14), late(30, 40, 99), late(0, 29, 99)]), [[points[2]], [], [], []])
      assert.equal(yield* snapshots.newest({ ...chain, fingerprint: "other" }), undefined)
    })),
  promise("snapshots: of each chunk what was written last by then, texts and bytes as they came", ({ driver: { snapshots } }) =>
    Effect.gen(function*() {
      const bytes = Uint8Array.of(0, 255, 10)
      const wide = "{\"a\":\"\u00e9\u{1F600}\"}"
      const put = (last: number, position: number, bodies: ReadonlyArray<readonly [number, Snapshots.Body]>) =>
        snapshots.write({ chain, last, epoch: snapshots.epoch(), point: point(position, last, { chunks: 2 }), bodies: new Map(bodies) })
      yield* put(0, 10, [[0, "first"], [1, bytes]])
      yield* put(10, 20, [[0, wide]])
      const read = (at: number, from: number, limit: number) =>
        Effect.map(snapshots.chunks(chain, point(at, 0, { chunks: 2 }), from, limit), (chunks) =>
          chunks.map(({ body, position }) => [position, typeof body === "string" ? body : [...body]]))
      assert.deepEqual(yield* read(10, 0, 9), [[10, "first"], [10, [...bytes]]])
      assert.deepEqual(yield* read(20, 0, 9), [[20, wide], [10, [...bytes]]])
      assert.deepEqual([yield* read(20, 0, 1), yield* read(20, 1, 9)], [[[20, wide]], [[10, [...bytes]]]])
    })),
  promise("snapshots: who believes in another last point, or began before something was forgotten, writes nothing", (store) =>
    Effect.gen(function*() {
      const { snapshots } = store.driver
      assert.deepEqual(yield* write(store, [point(10, 0), point(20, 0), point(20, 10)]), [true, false, true])
      const epoch = snapshots.epoch()
      snapshots.forget({ streamId: "nobody", fromPosition: 1000 })
      assert.equal(yield* snapshots.write({ chain, last: 20, epoch, point: point(30, 20), bodies: new Map() }), false)
      assert.equal((yield* snapshots.newest(chain))?.position, 20)
    })),
  promise("snapshots: a stream's facts are forgotten where they are part of a state; a chain can be dropped", (store) =>
    Effect.gen(function*() {
      const { snapshots } = store.driver
      const chains = [chain, { ...chain, subject: Snapshots.ofEverything }, about("a"), about("b")]
      yield* Effect.forEach(chains, (into) => write(store, [point(10, 0), point(20, 10), point(30, 20)], into))
      snapshots.forget({ streamId: "a", fromPosition: 20 })
      const newest = Effect.forEach(chains, (chain) => Effect.map(snapshots.newest(chain), (point) => point?.position))
      assert.deepEqual(yield* newest, [10, 10, 10, 30])
      assert.deepEqual(yield* write(store, [point(25, 10)]), [true])
      assert.deepEqual(yield* snapshots.chunks(chain, point(25, 10), 0, 1), [{ position: 25, body: "at 25" }])
      yield* snapshots.drop(about("b"))
      assert.deepEqual(yield* newest, [25, 10, 10, undefined])
    }))
]
