import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schema, Stream } from "effect"
import { Activity } from "../../src/bus/Activity.ts"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import { Router } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Event from "../../src/event/Event.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as EventStore from "../../src/store/EventStore.ts"

const bus = Router.layer.pipe(
  Layer.provideMerge(Subscriptions.layer),
  Layer.provideMerge(Layer.mergeAll(EventStore.layerMemory, Activity.layerOff, DeadLetters.layerOff))
)
const small = bus.pipe(Layer.provide(Layer.succeed(Limits.Limits, { ...Limits.defaults, subscriptionBuffer: 8 })))

const Ticked = Event.fact("clock:ticked", { payload: { n: Schema.Int }, streamId: () => "clock" })
const Other = Event.fact("noise:made", { payload: {}, streamId: () => "noise" })

const define = Effect.gen(function*() {
  const router = yield* Router
  yield* router.define(Ticked)
  yield* router.define(Other)
})

describe("catching up and staying live", () => {
  it.effect("stored facts first, then live ones, without gap or repeat", () =>
    Effect.gen(function*() {
      yield* define
      const ksi = yield* KsiService
      for (let n = 1; n <= 20; n++) yield* ksi.emit(Ticked, { n })
      const fiber = yield* ksi.subscribe("clock:*", { from: "start" }).pipe(
        Stream.take(100), Stream.map((d) => d.position), Stream.runCollect, Effect.forkChild
      )
      for (let n = 21; n <= 100; n++) {
        yield* ksi.emit(Ticked, { n })
        if (n % 7 === 0) yield* Effect.yieldNow
      }
      expect(yield* Fiber.join(fiber)).toEqual(Array.from({ length: 100 }, (_, i) => BigInt(i + 1)))
    }).pipe(Effect.provide(bus)))

  it.effect("a slow subscriber holds a bounded buffer and loses nothing", () =>
    Effect.gen(function*() {
      yield* define
      const ksi = yield* KsiService
      const subscriptions = yield* Subscriptions
      const slow = yield* subscriptions.open("clock:*", { from: "now" })
      for (let n = 1; n <= 500; n++) {
        yield* ksi.emit(Ticked, { n })
        if (n % 3 === 0) yield* ksi.emit(Other, {})
      }
      const seen: Array<unknown> = []
      let largest = 0
      while (seen.length < 500) {
        const deliveries = yield* slow.next
        largest = Math.max(largest, deliveries.length)
        seen.push(...deliveries.map((d) => (d.data as { n: number }).n))
        // Falls behind again and again.
        if (seen.length % 5 === 0 && seen.length < 400) yield* ksi.emit(Other, {})
      }
      expect(seen).toEqual(Array.from({ length: 500 }, (_, i) => i + 1))
      expect(largest).toBeLessThanOrEqual(8)
    }).pipe(Effect.provide(small)))

  it.effect("from a position is inclusive; `now` hears only what comes", () =>
    Effect.gen(function*() {
      yield* define
      const ksi = yield* KsiService
      const subscriptions = yield* Subscriptions
      for (let n = 1; n <= 5; n++) yield* ksi.emit(Ticked, { n })
      const from = yield* ksi.subscribe("*", { from: 4n }).pipe(Stream.take(2), Stream.runCollect)
      expect(from.map((d) => d.position)).toEqual([4n, 5n])
      const now = yield* subscriptions.open("*")
      expect(now.position).toBe(5)
      yield* ksi.emit(Ticked, { n: 6 })
      expect((yield* now.next).map((d) => d.position)).toEqual([6n])
      const later = yield* subscriptions.open("*", { from: 8n })
      yield* ksi.emit(Ticked, { n: 7 })
      yield* ksi.emit(Ticked, { n: 8 })
      expect((yield* later.next).map((d) => d.position)).toEqual([8n])
    }).pipe(Effect.provide(bus)))

  it.effect("a fact's definition gives decoded data", () => {
    const Dated = Event.fact("dated:happened", { payload: { at: Schema.Date }, streamId: () => "dated" })
    return Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      yield* router.define(Dated)
      const at = new Date("2020-02-02T00:00:00.000Z")
      yield* ksi.emit(Dated, { at })
      const [typed] = yield* ksi.subscribe(Dated, { from: "start" }).pipe(Stream.take(1), Stream.runCollect)
      expect(typed?.data.at).toEqual(at)
      const [plain] = yield* ksi.subscribe("dated:*", { from: "start" }).pipe(Stream.take(1), Stream.runCollect)
      expect(plain?.data).toEqual({ at: "2020-02-02T00:00:00.000Z" })
    }).pipe(Effect.provide(bus))
  })
})

describe("requests", () => {
  it.effect("come live when asked for; a slow subscriber is told how many it missed", () => {
    const Ping = Event.make("net:ping", {})
    return Effect.gen(function*() {
      yield* define
      const router = yield* Router
      const ksi = yield* KsiService
      const subscriptions = yield* Subscriptions
      yield* router.define(Ping)
      const deaf = yield* subscriptions.open("net:*")
      const hears = yield* subscriptions.open("net:*", { requests: true })
      for (let i = 0; i < 20; i++) yield* Effect.exit(ksi.call(Ping, {}))
      const first = yield* hears.next
      expect(first).toHaveLength(8)
      expect(first.every((d) => d.position === undefined && d.name === "net:ping" && d.missed === 0)).toBe(true)
      yield* Effect.exit(ksi.call(Ping, {}))
      expect((yield* hears.next).map((d) => d.missed)).toEqual([12])
      const nothing = yield* Effect.forkChild(deaf.next)
      yield* Effect.yieldNow
      expect(nothing.pollUnsafe()).toBeUndefined()
    }).pipe(Effect.provide(small))
  })
})

describe("types", () => {
  it.effect("requests come as JSON too; a fact that is not registered is refused", () => {
    const Dated = Event.make("dated:ask", { payload: { at: Schema.Date } })
    const Never = Event.fact("never:defined", { payload: { at: Schema.Date }, streamId: () => "s" })
    return Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      const subscriptions = yield* Subscriptions
      yield* router.define(Dated)
      const hears = yield* subscriptions.open("dated:*", { requests: true })
      yield* Effect.exit(ksi.call(Dated, { at: new Date(0) }))
      expect((yield* hears.next)[0].data).toEqual({ at: "1970-01-01T00:00:00.000Z" })
      const refused = yield* Effect.flip(Stream.runDrain(ksi.subscribe(Never)))
      expect(refused.reason._tag).toBe("UnknownEvent")
    }).pipe(Effect.provide(bus))
  })
})

describe("scope", () => {
  it.effect("closing it ends the subscription", () =>
    Effect.gen(function*() {
      yield* define
      const subscriptions = yield* Subscriptions
      yield* Effect.scoped(Effect.gen(function*() {
        yield* subscriptions.open("*", { requests: true })
        yield* subscriptions.open("clock:*")
        expect(subscriptions.count()).toBe(2)
      }))
      expect(subscriptions.count()).toBe(0)
      const ksi = yield* KsiService
      yield* ksi.emit(Ticked, { n: 1 })
      yield* ksi.subscribe("*", { from: "start" }).pipe(Stream.take(1), Stream.runDrain)
      expect(subscriptions.count()).toBe(0)
    }).pipe(Effect.provide(bus)))

  it.effect("a pattern or a start that makes no sense is refused", () =>
    Effect.gen(function*() {
      const subscriptions = yield* Subscriptions
      for (const [pattern, from] of [["", "now"], ["a*:b", "now"], ["a:b", -1n], ["a:b", 1.5]] as const) {
        const error = yield* Effect.flip(subscriptions.open(pattern, { from }))
        expect(error).toBeInstanceOf(KsiError)
        expect(error.reason._tag).toBe(from === "now" ? "PatternInvalid" : "PayloadInvalid")
      }
    }).pipe(Effect.provide(bus)))
})

describe("facts that were removed", () => {
  it.effect("are stepped over by who catches up, also where they were the last ones", () =>
    Effect.gen(function*() {
      yield* define
      const ksi = yield* KsiService
      const store = yield* EventStore.EventStore
      const subscriptions = yield* Subscriptions
      for (let n = 1; n <= 30; n++) yield* n % 3 === 0 ? ksi.emit(Other, {}) : ksi.emit(Ticked, { n })
      for (let n = 31; n <= 60; n++) yield* ksi.emit(Ticked, { n })
      const early = yield* subscriptions.open("*", { from: "start" })
      yield* store.configure("clock", { truncateBefore: 100 })
      expect(yield* store.retain).toBe(50)
      expect((yield* early.next).map((d) => d.position)).toEqual([3n, 6n, 9n, 12n, 15n, 18n, 21n, 24n])
      expect((yield* early.next).map((d) => d.position)).toEqual([27n, 30n])
      const none = yield* subscriptions.open("*", { from: 31n })
      const waiting = yield* Effect.forkChild(Effect.all([early.next, none.next]))
      yield* Effect.yieldNow
      yield* ksi.emit(Other, {})
      const live = yield* Fiber.join(waiting)
      expect(live.map((deliveries) => deliveries.map((d) => d.position))).toEqual([[61n], [61n]])
    }).pipe(Effect.provide(small)))
})
