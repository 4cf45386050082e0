// Consumer groups, in memory and in a real SQLite file: ordered in a stream, at least once, and never again what was noted.
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Schedule, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import type { KsiError } from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import * as Consumer from "../../src/store/Consumer.ts"
import { EventStore } from "../../src/store/EventStore.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-consumers-"))
afterAll(() => Fs.rmSync(folder, { recursive: true }))
let files = 0

const Placed = Event.fact("order:placed", { payload: { order: Schema.String, n: Schema.Int }, streamId: ({ order }) => order })
const place = Effect.fnUntraced(function*(order: string, ...numbers: ReadonlyArray<number>) {
  const store = yield* EventStore
  for (const n of numbers) yield* store.appendTo(order, [{ name: Placed.name, data: { order, n } }])
})
type Handler = (payload: { readonly order: string; readonly n: number }, delivery: Consumer.Handed<unknown>) => Effect.Effect<unknown, unknown>
const group = (handler: Handler, options: Consumer.Options = {}) =>
  Consumer.layer("billing", { events: [Placed], handler, start: "start", ...options })
const started = (layer: ReturnType<typeof group>) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.andThen(Layer.build(layer), effect))
const statusOf = Effect.flatMap(Consumer.Consumers, ({ status }) => Effect.map(status, ([only]) => only))
const parked = Effect.flatMap(Consumer.Consumers, (consumers) => consumers.parked("billing", { limit: 100 }))
const reason = <A, R>(effect: Effect.Effect<A, KsiError, R>) => Effect.map(Effect.flip(effect), (error) => error.reason)
const now = Schedule.forever

const kinds: ReadonlyArray<readonly [name: string, layer: () => Layer.Layer<Runtime, KsiError>]> = [
  ["in memory", () => Layer.fresh(Ksi.layerMemory)],
  ["in a file", () => Layer.fresh(Ksi.layerSqlite({ filename: Path.join(folder, `${++files}.db`), sync: "normal" }))]
]

const Plan = Schema.Struct({
  facts: Schema.Array(Schema.Struct({ order: Schema.Literals(["a", "b", "c", "d"]), fails: Schema.Literals([0, 0, 0, 1, 2]), restart: Schema.Boolean })),
  concurrency: Schema.Literals([1, 2, 5]),
  window: Schema.Literals([1, 3, 100]),
  pageItems: Schema.Literals([1, 4, 1000])
})

for (const [name, make] of kinds) {
  describe(name, () => {
    it.effect("is settled when that is noted, also where no fact was for it", () =>
      started(group(() => Effect.void))(Effect.gen(function*() {
        const store = yield* EventStore
        for (const n of [1, 2, 3]) yield* store.appendTo("other", [{ name: "other:noted", data: { n } }])
        yield* Consumer.settled("billing")
        expect(yield* statusOf).toMatchObject({ position: 3, lag: 0 })
      })).pipe(Effect.provide(make())))

    it.effect.prop("each fact at least once, in the order of its stream, and never again once it is noted", [Plan], ([{ concurrency, facts, pageItems, window }]) =>
      Effect.gen(function*() {
        const seen: Array<{ readonly position: number; readonly stream: string }> = []
        const failures = new Map<number, number>(facts.map(({ fails }, n) => [n, fails]))
        const noted = new Set<number>()
        const layer = group(({ n }, { metadata: { streamId = "" }, position }) =>
          Effect.gen(function*() {
            for (let turn = 0; turn < n % 3; turn++) yield* Effect.yieldNow
            const left = failures.get(n) ?? 0
            failures.set(n, left - 1)
            if (left > 0) return yield* Effect.fail("not now")
            if (noted.has(Number(position))) throw new Error("noted, and handled again")
            seen.push({ position: Number(position), stream: streamId })
          }), { concurrency, window, retry: now, maxAttempts: 5 })
        let scope = yield* Scope.make()
        yield* Layer.buildWithScope(layer, scope)
        for (const [n, { order, restart }] of facts.entries()) {
          yield* place(order, n)
          if (!restart) continue
          yield* Scope.close(scope, Exit.void)
          // Everything that was handled before a graceful end is noted.
          for (const { position } of seen) noted.add(position)
          scope = yield* Scope.make()
          yield* Layer.buildWithScope(layer, scope)
        }
        yield* Consumer.settled("billing")
        const inOrder = seen.map(({ position }) => position).toSorted((a, b) => a - b)
        expect(inOrder).toEqual(facts.map((_, index) => index + 1))
        for (const [, ones] of Map.groupBy(seen, ({ stream }) => stream)) {
          expect(ones.map(({ position }) => position)).toEqual(ones.map(({ position }) => position).toSorted((a, b) => a - b))
        }
        expect(yield* parked).toEqual([])
        yield* Scope.close(scope, Exit.void)
      }).pipe(Effect.provide(make()), Effect.provideService(Limits.Limits, { ...Limits.defaults, pageItems })), { arbitrary: { runs: name === "in memory" ? 80 : 15 } })

    it.effect("tries again as the schedule says, with the number of the attempt, and then parks; others go on", () =>
      Effect.gen(function*() {
        const attempts: Array<string> = []
        const layer = group(({ n, order }, { attempt, group }) => {
          attempts.push(`${group} ${order} ${n} ${attempt}`)
          return order === "a" && n === 1 ? Effect.fail("no paper") : Effect.void
        }, { concurrency: 4, maxAttempts: 3, retry: Schedule.spaced("10 seconds") })
        yield* Effect.gen(function*() {
          yield* place("a", 1, 2)
          yield* place("b", 7)
          yield* Effect.yieldNow
          yield* TestClock.adjust("9 seconds")
          expect(attempts.filter((text) => text.includes("a 1"))).toHaveLength(1)
          yield* TestClock.adjust("11 seconds")
          yield* Consumer.settled("billing")
          expect(attempts.filter((text) => text.includes("a 1"))).toEqual([1, 2, 3].map((n) => `billing a 1 ${n}`))
          expect(attempts).toContain("billing b 7 1")
          // What follows in its stream waits behind it.
          expect(attempts.some((text) => text.includes("a 2"))).toBe(false)
          expect(yield* parked).toMatchObject([
            { position: 1, streamId: "a", attempts: 3, error: "no paper" }, { position: 2, streamId: "a", attempts: 0, error: undefined }
          ])
          expect(yield* statusOf).toMatchObject({ status: "following", position: 3, lag: 0, parked: 2, pending: 0, members: 4 })
        }).pipe(started(layer))
        expect(yield* statusOf).toMatchObject({ status: "idle", position: 3, parked: 2 })
      }).pipe(Effect.provide(make())))

    it.effect("facts of an older version, and under a former name, are handled as they would be written today", () =>
      Effect.gen(function*() {
        const Settled = Event.fact("bill:settled", {
          payload: { cents: Schema.Int },
          streamId: () => "bill-1",
          version: 2,
          upcast: { 1: ({ price }: { readonly price: number }) => ({ cents: price * 100 }) },
          formerly: ["bill:paid"]
        })
        const handled: Array<unknown> = []
        const layer = Consumer.layer("billing", {
          events: [Settled], start: "start",
          handler: ({ cents }, { data, name }) => Effect.sync(() => void handled.push([name, cents, data]))
        })
        yield* Effect.gen(function*() {
          const store = yield* EventStore
          yield* store.appendTo("bill-1", [
            { name: "bill:paid", data: { price: 3 } },
            { name: "bill:settled", data: { price: 4 } },
            { name: "bill:settled", data: { cents: 500 }, attributes: { dataversion: 2 } },
            // Of a program that is newer than this one.
            { name: "bill:settled", data: { euros: 6 }, attributes: { dataversion: 3 } }
          ])
          yield* Consumer.settled("billing")
          expect(handled).toEqual([300, 400, 500].map((cents) => ["bill:settled", cents, { cents }]))
          expect(yield* parked).toMatchObject([{ position: 4, attempts: 1, error: expect.stringContaining("has data of version 3, and this program knows bill:settled up to version 2") }])
        }).pipe((effect) => Effect.scoped(Effect.andThen(Layer.build(layer), effect)))
        const Paid = Event.fact("bill:paid", { payload: {}, streamId: () => "bill-1" })
        const twice = Consumer.layer("twice", { events: [Settled, Paid], handler: () => Effect.void })
        expect(yield* reason(Effect.scoped(Layer.build(twice)))).toMatchObject({ _tag: "PluginInvalid", problem: "it has two events for facts called bill:paid" })
      }).pipe(Effect.provide(make())))

    it.effect("what is parked is handled again in order, also after a restart; or discarded", () =>
      Effect.gen(function*() {
        let broken = true
        const handled: Array<string> = []
        const layer = group(({ n, order }, { attempt }) => {
          if (broken && n === 1) return Effect.die(new Error("no paper"))
          handled.push(`${order}${n} ${attempt}`)
          return Effect.void
        }, { maxAttempts: 2, retry: now })
        yield* Effect.andThen(place("a", 1, 2, 3), Consumer.settled("billing")).pipe(started(layer))
        yield* Effect.gen(function*() {
          const consumers = yield* Consumer.Consumers
          yield* place("b", 1, 5)
          yield* Consumer.settled("billing")
          expect(handled).toEqual([])
          expect(yield* consumers.retry("billing", "a")).toEqual({ handled: 0, left: 5 })
          expect((yield* parked)[0]).toMatchObject({ position: 1, attempts: 4, error: "no paper" })
          broken = false
          expect(yield* consumers.retry("billing", "a")).toEqual({ handled: 3, left: 2 })
          expect(handled).toEqual(["a1 5", "a2 1", "a3 1"])
          yield* place("a", 4)
          yield* Consumer.settled("billing")
          expect(handled.at(-1)).toBe("a4 1")
          // The head of b is given up; the rest of it is handled.
          expect(yield* consumers.discard("billing", [4, 99])).toBe(1)
          expect(yield* consumers.retry("billing")).toEqual({ handled: 1, left: 0 })
          expect(handled.at(-1)).toBe("b5 1")
          expect(yield* reason(consumers.retry("biling"))).toMatchObject({ _tag: "NotFound", what: "consumer group", similar: ["billing"] })
        }).pipe(started(layer))
      }).pipe(Effect.provide(make())))

    it.effect("with parking: fact, the stream goes on; where too much is set aside the group waits for room", () =>
      Effect.gen(function*() {
        const handled: Array<number> = []
        const layer = group(({ n }) => n % 2 === 1 ? Effect.fail("odd") : Effect.sync(() => void handled.push(n)), {
          parking: "fact", maxAttempts: 1, maxParked: 2, concurrency: 1
        })
        yield* Effect.gen(function*() {
          yield* place("a", 1, 2, 3, 4, 5, 6)
          yield* Consumer.settled("billing", 4)
          const consumers = yield* Consumer.Consumers
          expect(consumers.blocked()).toEqual(["billing"])
          expect(yield* statusOf).toMatchObject({ status: "blocked", position: 4, parked: 2, pending: 2 })
          expect(handled).toEqual([2, 4])
          yield* consumers.discard("billing", [1])
          yield* Consumer.settled("billing")
          expect(handled).toEqual([2, 4, 6])
          expect(consumers.blocked()).toEqual([])
          expect((yield* parked).map(({ position }) => position)).toEqual([3, 5])
        }).pipe(started(layer))
      }).pipe(Effect.provide(make())))

    it.effect("a stop finishes what is under way, and gives up what waits for its next attempt", () =>
      Effect.gen(function*() {
        const begun = yield* Deferred.make<void>()
        const go = yield* Deferred.make<void>()
        const handled: Array<number> = []
        let failing = true
        const layer = group(({ n, order }) =>
          Effect.gen(function*() {
            if (order === "slow") {
              yield* Deferred.succeed(begun, undefined)
              yield* Deferred.await(go)
            } else if (failing) return yield* Effect.fail("not yet")
            handled.push(n)
          }), { retry: Schedule.spaced("1 hour"), concurrency: 16 })
        const scope = yield* Scope.make()
        yield* Layer.buildWithScope(layer, scope)
        yield* place("slow", 1)
        yield* place("other", 2)
        yield* Deferred.await(begun)
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        yield* Deferred.succeed(go, undefined)
        yield* Fiber.join(closing)
        expect(handled).toEqual([1])
        failing = false
        yield* Consumer.settled("billing").pipe(started(layer))
        expect(handled).toEqual([1, 2])
      }).pipe(Effect.provide(make())))

    it.effect("starts where it is told; what no longer fits its event is parked at once; one name, one group", () =>
      Effect.gen(function*() {
        const store = yield* EventStore
        yield* place("a", 1, 2)
        yield* store.appendTo("a", [{ name: Placed.name, data: { order: "a", n: "three" } }])
        const handled: Array<number> = []
        const layer = group(({ n }) => Effect.sync(() => void handled.push(n)), { start: 2 })
        yield* Effect.gen(function*() {
          yield* Consumer.settled("billing")
          expect(handled).toEqual([2])
          expect(yield* parked).toMatchObject([{ position: 3, attempts: 1, error: expect.stringContaining("n") }])
          expect(yield* reason(Effect.scoped(Layer.build(layer)))).toMatchObject({ _tag: "PluginInvalid" })
        }).pipe(started(layer))
        expect(yield* reason(Effect.scoped(Layer.build(group(() => Effect.void, { concurrency: 0 }))))).toMatchObject({
          _tag: "PluginInvalid", problem: expect.stringContaining("concurrency")
        })
        const names: Array<string> = []
        const audit = Consumer.layerPattern("audit", "order:*", { handler: (_, { name }) => Effect.sync(() => void names.push(name)) })
        yield* Effect.andThen(place("z", 9), Consumer.settled("audit")).pipe(started(audit))
        expect(names).toEqual(["order:placed"])
      }).pipe(Effect.provide(make())))

    it.effect.each(["stream", "fact"] as const)("a group that waits for room handles what is set aside again when it is asked to (%s)", (parking) =>
      Effect.gen(function*() {
        let broken = true
        const handled: Array<number> = []
        const layer = group(({ n }) => {
          if (broken) return Effect.fail("no paper")
          handled.push(n)
          return Effect.void
        }, { concurrency: 1, maxAttempts: 1, maxParked: 2, parking })
        yield* Effect.gen(function*() {
          const consumers = yield* Consumer.Consumers
          yield* place("a", 1, 2, 3, 4, 5)
          while (consumers.blocked().length === 0) yield* Effect.yieldNow
          expect(yield* statusOf).toMatchObject({ status: "blocked", parked: 2, pending: 3 })
          broken = false
          expect(yield* consumers.retry("billing")).toMatchObject({ handled: 2 })
          // The fact that waited had failed already where each stands for itself: it is set aside, and goes on when it is asked to.
          yield* Consumer.settled("billing")
          if (parking === "fact") expect(yield* consumers.retry("billing")).toEqual({ handled: 1, left: 0 })
          expect(handled).toEqual(parking === "fact" ? [1, 2, 4, 5, 3] : [1, 2, 3, 4, 5])
          expect(yield* statusOf).toMatchObject({ status: "following", parked: 0, lag: 0 })
        }).pipe(started(layer))
      }).pipe(Effect.provide(make())))

    it.effect("says what it cannot start with", () =>
      Effect.gen(function*() {
        const wrong: ReadonlyArray<readonly [name: string, options: object, problem: string]> = [
          ["", {}, "it needs a name"],
          ["x".repeat(300), {}, "its name has 300 characters, at most 256 are allowed"],
          ["\ud800", {}, "its name must be well-formed Unicode"],
          ["g", { start: Number.NaN }, "start must be \"start\", \"now\" or a position, got NaN"],
          ["g", { start: "begin" }, "start must be \"start\", \"now\" or a position, got begin"],
          ["g", { concurrency: 1e9 }, "concurrency must be at most 10000, got 1000000000"]
        ]
        for (const [name, options, problem] of wrong) {
          const layer = Consumer.layer(name, { events: [Placed], handler: () => Effect.void, ...options })
          expect(yield* reason(Effect.scoped(Layer.build(layer)))).toMatchObject({ _tag: "PluginInvalid", problem })
        }
      }).pipe(Effect.provide(make())))

    it.effect("what a handler emits is caused by the fact", () =>
      Effect.gen(function*() {
        const Billed = Event.fact("bill:sent", { payload: { n: Schema.Int }, streamId: () => "bills" })
        yield* Layer.build(Ksi.serve(EventGroup.make(Billed)))
        yield* place("a", 1)
        yield* Layer.build(Consumer.layer("billing", {
          events: [Placed], start: "start",
          handler: Effect.fnUntraced(function*({ n }) {
            yield* (yield* Ksi).emit(Billed, { n })
          })
        }))
        yield* Consumer.settled("billing", 1)
        const [placed, billed] = yield* (yield* EventStore).read({ from: 1, limit: 2 })
        expect(billed?.attributes["causationid"]).toBe(placed?.id)
      }).pipe(Effect.scoped, Effect.provide(make())))
  })
}
