// What becomes of a subscriber that is too slow, by policy: a model says what each must deliver, and the bus delivers it.
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Logger, Option, Schema, SchemaGetter, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Activity } from "../../src/bus/Activity.ts"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { Journal } from "../../src/bus/Journal.ts"
import { KsiService, type Overflow, type SubscribeOptions } from "../../src/bus/KsiService.ts"
import { handle, Router } from "../../src/bus/Router.ts"
import { type Subscription, Subscriptions } from "../../src/bus/Subscription.ts"
import type { Delivery } from "../../src/event/Envelope.ts"
import * as Event from "../../src/event/Event.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import { seeded } from "../Seeded.ts"

const Ticked = Event.fact("clock:ticked", { payload: { n: Schema.Int }, streamId: () => "clock" })
const Asked = Event.make("clock:ask", { payload: { n: Schema.Int } })
const Noise = Event.fact("noise:made", { payload: {}, streamId: () => "noise" })

const blockMillis = 100
const bus = handle(Asked, () => Effect.void).pipe(
  Layer.provideMerge(Router.layer),
  Layer.provideMerge(Subscriptions.layer),
  Layer.provideMerge(Layer.mergeAll(EventStore.layerMemory, Activity.layerOff, DeadLetters.layerOff)),
  Layer.provide(Layer.succeed(Limits.Limits, { ...Limits.defaults, subscriptionBuffer: 16, subscriptionBlockMillis: blockMillis }))
)
type Services = KsiService | Router | Subscriptions | EventStore.EventStore | Scope.Scope
const run = <A, E>(effect: Effect.Effect<A, E, Services>, loggers: ReadonlyArray<Logger.Logger<unknown, unknown>> = []) =>
  Effect.gen(function*() {
    const router = yield* Router
    yield* router.define(Ticked)
    yield* router.define(Noise)
    return yield* effect
  }).pipe(Effect.scoped, Effect.provide(bus), Effect.provide(Logger.layer(loggers)))

/** Numbers from 0 to below 1, the same for the same seed. */
const random = (seed: number) => {
  const next = seeded(seed * 2654435761)
  return () => next(2 ** 32) / 2 ** 32
}

type Kind = "fact" | "request"
interface Thing {
  readonly kind: Kind
  /** Which one of its kind, from 0. */
  readonly n: number
  /** When it came. */
  readonly at: number
}

const kindOf = (delivery: Delivery): Kind => delivery.position === undefined ? "request" : "fact"
const numberOf = (delivery: Delivery) => (delivery.data as { readonly n: number }).n

/** Checks that what is delivered is in order, and that `missed` is the gap before it, to the item. */
const makeReader = () => {
  const last: Record<Kind, number> = { fact: -1, request: -1 }
  return {
    last,
    read: (delivery: Delivery) => {
      const kind = kindOf(delivery)
      const n = numberOf(delivery)
      expect(n).toBeGreaterThan(last[kind])
      expect(delivery.missed, `${kind} ${n} after ${last[kind]}`).toBe(n - last[kind] - 1)
      last[kind] = n
    }
  }
}

const settle = Effect.gen(function*() {
  for (let i = 0; i < 20; i++) yield* Effect.yieldNow
})

const seeds = Array.from({ length: 60 }, (_, seed) => seed)

describe("the policies, against a model", () => {
  const lossy = (policy: "latest" | "drop", seed: number) =>
    run(Effect.gen(function*() {
      const next = random(seed)
      const buffer = 1 + Math.floor(next() * 6)
      const ksi = yield* KsiService
      const sub = yield* (yield* Subscriptions).open("clock:*", { overflow: policy, buffer, requests: true })
      const { last, read } = makeReader()
      const kept: Record<Kind, Array<Thing>> = { fact: [], request: [] }
      const made: Record<Kind, number> = { fact: 0, request: 0 }
      for (let at = 0; at < 80; at++) {
        yield* TestClock.adjust(1)
        const dice = next()
        if (dice < 0.6) {
          const kind: Kind = dice < 0.35 ? "fact" : "request"
          const n = made[kind]++
          yield* kind === "fact" ? ksi.emit(Ticked, { n }) : ksi.call(Asked, { n })
          if (policy === "drop" && kept[kind].length === buffer) continue
          kept[kind].push({ kind, n, at })
          if (kept[kind].length > buffer) kept[kind].shift()
          continue
        }
        if (dice < 0.65) yield* ksi.emit(Noise, {})
        const heads = [kept.fact[0], kept.request[0]].filter((thing) => thing !== undefined).toSorted((a, b) => a.at - b.at)
        const [expected] = heads
        const taking = yield* Effect.forkChild(sub.next, { startImmediately: true })
        if (expected === undefined) {
          expect(taking.pollUnsafe()).toBeUndefined()
          // Nothing is lost by no longer waiting.
          yield* Fiber.interrupt(taking)
          continue
        }
        kept[expected.kind].shift()
        const taken = yield* Fiber.join(taking)
        expect(taken.map((delivery) => [kindOf(delivery), numberOf(delivery)])).toEqual([[expected.kind, expected.n]])
        taken.forEach(read)
      }
      // One more of each when there is room for it tells of all the others.
      while (kept.fact.length + kept.request.length > 0) {
        for (const delivery of yield* sub.next) {
          read(delivery)
          kept[kindOf(delivery)].shift()
        }
      }
      yield* ksi.emit(Ticked, { n: made.fact })
      yield* ksi.call(Asked, { n: made.request })
      for (let i = 0; i < 2; i++) (yield* sub.next).forEach(read)
      expect(last).toEqual(made)
    }))

  it.effect.each(seeds)("latest, seed %i", (seed) => lossy("latest", seed))
  it.effect.each(seeds)("drop, seed %i", (seed) => lossy("drop", seed))

  it.effect.each(seeds)("spill, seed %i: every fact, bounded; requests beyond the buffer are counted", (seed) =>
    run(Effect.gen(function*() {
      const next = random(seed)
      const buffer = 1 + Math.floor(next() * 6)
      const ksi = yield* KsiService
      const sub = yield* (yield* Subscriptions).open("clock:*", { buffer, requests: true })
      const { last, read } = makeReader()
      const made: Record<Kind, number> = { fact: 0, request: 0 }
      for (let step = 0; step < 80; step++) {
        yield* TestClock.adjust(1)
        const dice = next()
        if (dice < 0.45) yield* ksi.emit(Ticked, { n: made.fact++ })
        else if (dice < 0.7) yield* ksi.call(Asked, { n: made.request++ })
        else if (dice < 0.75) yield* ksi.emit(Noise, {})
        else if (last.fact + 1 < made.fact) {
          const taken = yield* sub.next
          taken.forEach(read)
          expect(taken.length).toBeLessThanOrEqual(2 * buffer)
        }
      }
      yield* ksi.emit(Ticked, { n: made.fact })
      while (last.fact < made.fact) for (const delivery of yield* sub.next) {
        if (kindOf(delivery) === "fact") expect(delivery.missed).toBe(0)
        read(delivery)
      }
      yield* ksi.call(Asked, { n: made.request })
      while (last.request < made.request) (yield* sub.next).forEach(read)
      expect(last).toEqual(made)
    })))

  it.effect.each(seeds)("block, seed %i: everything, and a publisher waits for exactly as long as there is no room", (seed) =>
    run(Effect.gen(function*() {
      const next = random(seed)
      const buffer = 1 + Math.floor(next() * 5)
      const ksi = yield* KsiService
      const store = yield* EventStore.EventStore
      const sub = yield* (yield* Subscriptions).open("clock:*", { overflow: "block", buffer, requests: true })
      const { last, read } = makeReader()
      // Those not yet delivered, with their publishers; an imported fact has none.
      const outside: Record<Kind, Array<Thing & { readonly fiber: Fiber.Fiber<unknown, unknown> | undefined }>> = { fact: [], request: [] }
      const made: Record<Kind, number> = { fact: 0, request: 0 }
      const check = () => {
        for (const kind of ["fact", "request"] as const) {
          outside[kind].forEach(({ fiber, n }, index) => {
            if (fiber !== undefined) expect(fiber.pollUnsafe() !== undefined, `${kind} ${n} at ${index} of ${buffer}`).toBe(index < buffer)
          })
        }
      }
      for (let at = 0; at < 80; at++) {
        yield* TestClock.adjust(1)
        const dice = next()
        if (dice < 0.5) {
          const kind: Kind = dice < 0.3 ? "fact" : "request"
          const n = made[kind]++
          const publish: Effect.Effect<unknown, unknown> = kind === "fact" ? ksi.emit(Ticked, { n }) : ksi.call(Asked, { n })
          outside[kind].push({ kind, n, at, fiber: yield* Effect.forkChild(publish, { startImmediately: true }) })
        } else if (dice < 0.56) {
          const n = made.fact++
          yield* store.appendTo("clock", [{ name: Ticked.name, data: { n } }])
          outside.fact.push({ kind: "fact", n, at, fiber: undefined })
        } else if (dice < 0.62) {
          // A publisher stops waiting: its fact is stored, its request is not made.
          const kind: Kind = dice < 0.59 ? "fact" : "request"
          const index = buffer + Math.floor(next() * 3)
          const given = outside[kind][index]
          if (given?.fiber === undefined) continue
          yield* Fiber.interrupt(given.fiber)
          if (kind === "fact") outside.fact[index] = { ...given, fiber: undefined }
          else outside.request.splice(index, 1)
        } else {
          const heads = [outside.fact[0], outside.request[0]].filter((thing) => thing !== undefined).toSorted((a, b) => a.at - b.at)
          const [expected] = heads
          if (expected === undefined) continue
          const taken = yield* Effect.forkChild(sub.next, { startImmediately: true }).pipe(Effect.flatMap(Fiber.join))
          expect(taken.map((delivery) => [kindOf(delivery), numberOf(delivery)])).toEqual([[expected.kind, expected.n]])
          outside[expected.kind].shift()
          taken.forEach(read)
        }
        yield* settle
        check()
      }
      // What is still in line behind the last one taken.
      while (outside.fact.length + outside.request.length > 0) {
        for (const delivery of yield* sub.next) {
          read(delivery)
          outside[kindOf(delivery)].shift()
        }
        yield* settle
        check()
      }
      yield* ksi.emit(Ticked, { n: made.fact })
      yield* ksi.call(Asked, { n: made.request })
      for (let i = 0; i < 2; i++) (yield* sub.next).forEach(read)
      expect(last).toEqual(made)
    })))
})

describe("disconnect", () => {
  it.effect.each(seeds)("seed %i: what fits its buffer, then an end that says where to go on, from where nothing is missing", (seed) =>
    run(Effect.gen(function*() {
      const next = random(seed)
      const buffer = 1 + Math.floor(next() * 6)
      const ksi = yield* KsiService
      const subscriptions = yield* Subscriptions
      const heard: Array<number> = []
      let made = 0
      let from = 1
      let ends = 0
      for (let turn = 0; turn < 10; turn++) {
        const sub = yield* subscriptions.open("clock:*", { overflow: "disconnect", buffer, from })
        // Until it has caught up nothing can be too much.
        while (heard.length < made) heard.push(...(yield* sub.next).map(numberOf))
        const taking = yield* Effect.forkChild(sub.next, { startImmediately: true })
        yield* Fiber.interrupt(taking)
        const more = turn === 5 ? buffer + 1 : Math.floor(next() * 2 * buffer)
        for (let n = 0; n < more; n++) yield* ksi.emit(Ticked, { n: made++ })
        for (let n = 0; n < Math.min(more, buffer); n++) {
          const taken = yield* sub.next
          expect(taken).toHaveLength(1)
          heard.push(...taken.map(numberOf))
        }
        if (more <= buffer) {
          from = heard.length + 1
          continue
        }
        ends++
        const ended = yield* Effect.flip(sub.next)
        expect(ended.reason).toMatchObject({ _tag: "SlowConsumer", pattern: "clock:*", buffer, position: heard.length + 1 })
        expect(ended.retryable).toBe(true)
        // For good.
        yield* ksi.emit(Ticked, { n: made++ })
        expect((yield* Effect.flip(sub.next)).reason._tag).toBe("SlowConsumer")
        from = heard.length + 1
      }
      expect(ends).toBeGreaterThan(0)
      const rest = yield* subscriptions.open("clock:*", { from })
      while (heard.length < made) heard.push(...(yield* rest.next).map(numberOf))
      expect(heard).toEqual(Array.from({ length: made }, (_, n) => n))
    })))

  it.effect("too many requests end it too, and its place is after what it was told", () =>
    run(Effect.gen(function*() {
      const ksi = yield* KsiService
      const sub = yield* (yield* Subscriptions).open("clock:*", { overflow: "disconnect", buffer: 2, requests: true })
      const waiting = yield* Effect.forkChild(Effect.flip(Effect.forever(Effect.andThen(sub.next, Effect.never))), { startImmediately: true })
      yield* ksi.emit(Ticked, { n: 0 })
      yield* settle
      yield* Fiber.interrupt(waiting)
      for (let n = 0; n < 3; n++) yield* ksi.call(Asked, { n })
      const [first, second] = [yield* sub.next, yield* sub.next]
      expect([...first, ...second].map(numberOf)).toEqual([0, 1])
      expect((yield* Effect.flip(sub.next)).reason).toMatchObject({ _tag: "SlowConsumer", position: 2 })
    })))

  it.effect("a wait for what never comes ends with it", () =>
    run(Effect.gen(function*() {
      const ksi = yield* KsiService
      const sub = yield* (yield* Subscriptions).open("clock:*", { overflow: "disconnect", buffer: 1 })
      const store = yield* EventStore.EventStore
      const ended = yield* Effect.forkChild(Effect.flip(Effect.forever(sub.next)), { startImmediately: true })
      // In one commit: nothing can be taken in between.
      yield* store.appendTo("clock", [{ name: Ticked.name, data: { n: 0 } }, { name: Ticked.name, data: { n: 1 } }])
      expect((yield* Fiber.join(ended)).reason).toMatchObject({ _tag: "SlowConsumer", position: 2 })
      yield* ksi.emit(Ticked, { n: 2 })
    })))
})

describe("sample", () => {
  it.effect("tells of the newest, once in every interval, and counts the others", () =>
    run(Effect.gen(function*() {
      const ksi = yield* KsiService
      const heard: Array<readonly [at: number, n: number]> = []
      let now = 0
      const { read } = makeReader()
      yield* Effect.forkScoped(Stream.runForEach(ksi.subscribe("clock:*", { overflow: "sample", every: "100 millis" }), (delivery) =>
        Effect.sync(() => {
          read(delivery)
          heard.push([now, numberOf(delivery)])
        })), { startImmediately: true })
      for (let n = 0; n < 100; n++) {
        yield* ksi.emit(Ticked, { n })
        yield* settle
        yield* TestClock.adjust(10)
        now += 10
        yield* settle
      }
      yield* TestClock.adjust(1000)
      // The first one at once; each of the others is the newest there was when its time had come.
      expect(heard.slice(0, 4)).toEqual([[0, 0], [90, 9], [190, 19], [290, 29]])
      expect(heard.length).toBeGreaterThanOrEqual(10)
      expect(heard.length).toBeLessThanOrEqual(12)
      expect(heard.at(-1)?.[1]).toBe(99)
    })))

  it.effect("what was stored before it came is told in full; a pause costs nothing", () =>
    run(Effect.gen(function*() {
      const ksi = yield* KsiService
      for (let n = 0; n < 5; n++) yield* ksi.emit(Ticked, { n })
      const sub = yield* (yield* Subscriptions).open("clock:*", { from: "start", overflow: "sample", every: 1000 })
      for (let n = 0; n < 5; n++) expect((yield* sub.next).map(numberOf)).toEqual([n])
      for (const n of [5, 6]) {
        yield* ksi.emit(Ticked, { n })
        const taking = yield* Effect.forkChild(sub.next, { startImmediately: true })
        yield* settle
        expect(taking.pollUnsafe()).toMatchObject({ value: [{ missed: 0 }] })
        yield* TestClock.adjust(1000)
      }
    })))

  it.effect("options that make no sense are refused", () =>
    run(Effect.gen(function*() {
      const subscriptions = yield* Subscriptions
      for (const [path, options] of [
        ["every", { overflow: "sample", every: 0 }],
        ["every", { overflow: "sample", every: Infinity }],
        ["every", { overflow: "sample", every: "soon" as "1 second" }],
        ["every", { every: 100 }],
        ["buffer", { overflow: "sample", buffer: 2 }],
        ["overflow", { overflow: "sampled" as "sample" }]
      ] as ReadonlyArray<readonly [string, SubscribeOptions]>) {
        expect((yield* Effect.flip(subscriptions.open("clock:*", options))).reason, JSON.stringify(options)).toMatchObject({
          _tag: "PayloadInvalid", problems: [{ path }]
        })
      }
      expect(subscriptions.count()).toBe(0)
    })))
})

describe("isolation", () => {
  const policies: ReadonlyArray<Overflow> = ["spill", "block", "latest", "drop", "sample", "disconnect"]

  it.effect("one stuck subscriber of each policy, and a sibling that hears everything", () =>
    run(Effect.gen(function*() {
      const ksi = yield* KsiService
      const subscriptions = yield* Subscriptions
      for (const overflow of policies) yield* subscriptions.open("clock:*", { overflow, ...overflow === "sample" ? {} : { buffer: 2 }, requests: true })
      const heard: Array<number> = []
      yield* Effect.forkScoped(Stream.runForEach(ksi.subscribe("clock:*"), (delivery) => Effect.sync(() => heard.push(numberOf(delivery)))), { startImmediately: true })
      const said = yield* Effect.forkScoped(
        Effect.forEach(Array.from({ length: 50 }, (_, n) => n), (n) => ksi.emit(Ticked, { n }), { concurrency: "unbounded" }),
        { startImmediately: true }
      )
      yield* settle
      // All but two publishers wait for the one that blocks; the sibling has every fact already.
      expect(heard).toEqual(Array.from({ length: 50 }, (_, n) => n))
      expect(said.pollUnsafe()).toBeUndefined()
      yield* TestClock.adjust(blockMillis)
      expect(yield* Fiber.join(said)).toHaveLength(50)
    })))

  it.effect("what a subscriber does is not done in the middle of an emit", () =>
    run(Effect.gen(function*() {
      const ksi = yield* KsiService
      const heard: Array<number> = []
      yield* Effect.forkScoped(Stream.runForEach(ksi.subscribe("clock:*"), (delivery) => Effect.sync(() => heard.push(numberOf(delivery)))), { startImmediately: true })
      yield* ksi.emit(Ticked, { n: 0 })
      yield* ksi.emit(Ticked, { n: 1 })
      expect(heard).toEqual([])
      yield* settle
      expect(heard).toEqual([0, 1])
    })))

  it.effect("publishers of what no blocking subscriber follows do not wait", () =>
    run(Effect.gen(function*() {
      const ksi = yield* KsiService
      yield* (yield* Subscriptions).open("clock:*", { overflow: "block", buffer: 1 })
      yield* ksi.emit(Ticked, { n: 0 })
      for (let i = 0; i < 10; i++) yield* ksi.emit(Noise, {})
      // Without `requests` calls are none of its business either.
      for (let n = 0; n < 10; n++) yield* ksi.call(Asked, { n })
    })))

  it.effect("a flood of requests pushes out no fact and holds up no fact", () =>
    run(Effect.gen(function*() {
      const ksi = yield* KsiService
      const subscriptions = yield* Subscriptions
      for (const overflow of ["spill", "latest", "drop"] as const) {
        const sub = yield* subscriptions.open("clock:*", { overflow, buffer: 2, requests: true })
        yield* ksi.emit(Ticked, { n: 0 })
        yield* ksi.emit(Ticked, { n: 1 })
        for (let n = 0; n < 20; n++) yield* Effect.andThen(TestClock.adjust(1), ksi.call(Asked, { n }))
        const facts: Array<number> = []
        if (overflow === "spill") yield* ksi.emit(Ticked, { n: 2 })
        const wanted = overflow === "spill" ? 3 : 2
        yield* TestClock.adjust(1)
        for (let round = 0; round < 10 && facts.length < wanted; round++) {
          for (const delivery of yield* sub.next) if (kindOf(delivery) === "fact") facts.push(numberOf(delivery))
          // They never stop coming.
          yield* ksi.call(Asked, { n: 20 + round })
        }
        expect(facts).toEqual([0, 1, 2].slice(0, wanted))
      }
    })))
})

describe("memory", () => {
  it.effect("what loses nothing holds no more than its buffer, and with block as many again; the rest it reads back", () => {
    const read = new Set<number>()
    const spied = Layer.effect(Journal, Effect.map(Journal, (journal) => ({
      ...journal,
      read: (options: Parameters<typeof journal.read>[0]) =>
        Effect.tap(journal.read(options), (page) => Effect.sync(() => {
          expect(page.length).toBeLessThanOrEqual(4)
          for (const { position } of page) read.add(position)
        }))
    }))).pipe(Layer.provideMerge(EventStore.layerMemory))
    return Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      for (const [overflow, held] of [["spill", 4], ["block", 8]] as const) {
        read.clear()
        const sub = yield* (yield* Subscriptions).open("clock:*", { overflow, buffer: 4 })
        // Stored by an import: nobody waits for room.
        for (let n = 0; n < 50; n++) yield* store.appendTo("clock", [{ name: Ticked.name, data: { n } }])
        const heard: Array<number> = []
        while (heard.length < 50) heard.push(...(yield* sub.next).map(numberOf))
        expect(heard).toEqual(Array.from({ length: 50 }, (_, n) => n))
        expect(read.size).toBe(50 - held)
      }
    }).pipe(Effect.scoped, Effect.provide(Subscriptions.layer.pipe(Layer.provideMerge(spied))))
  })
})

describe("block", () => {
  const full = Effect.fnUntraced(function*(options: SubscribeOptions = {}) {
    const ksi = yield* KsiService
    const sub = yield* (yield* Subscriptions).open("clock:*", { overflow: "block", buffer: 1, ...options })
    yield* ksi.emit(Ticked, { n: 0 })
    return { ksi, sub }
  })
  const waits = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.gen(function*() {
      const fiber = yield* Effect.forkScoped(effect, { startImmediately: true })
      yield* settle
      expect(fiber.pollUnsafe()).toBeUndefined()
      return fiber
    })

  it.effect("the fact is stored and handled before its publisher waits; ending the wait loses nothing", () => {
    const handled: Array<number> = []
    return run(Effect.gen(function*() {
      yield* Layer.build(handle(Ticked, ({ n }) => Effect.sync(() => handled.push(n))))
      const { ksi, sub } = yield* full()
      const fiber = yield* waits(ksi.emit(Ticked, { n: 1 }))
      const store = yield* EventStore.EventStore
      expect(store.head()).toBe(2)
      expect(handled).toEqual([0, 1])
      yield* Fiber.interrupt(fiber)
      expect(yield* Effect.forkChild(Effect.timeoutOption(ksi.emit(Ticked, { n: 2 }), 10), { startImmediately: true }).pipe(
        Effect.tap(() => TestClock.adjust(10)), Effect.flatMap(Fiber.join)
      )).toEqual(Option.none())
      const heard: Array<number> = []
      for (let i = 0; i < 3; i++) heard.push(...(yield* sub.next).map(numberOf))
      expect(heard).toEqual([0, 1, 2])
    }))
  })

  it.effect("closing the subscription lets everybody go, and the calls are carried out", () =>
    run(Effect.gen(function*() {
      const ksi = yield* KsiService
      const held = yield* Effect.scoped(Effect.gen(function*() {
        const { ksi } = yield* full({ requests: true })
        yield* ksi.call(Asked, { n: 0 })
        return yield* Effect.forEach(
          [ksi.emit(Ticked, { n: 1 }), ksi.emit(Ticked, { n: 2 }), ksi.call(Asked, { n: 1 }), ksi.call(Asked, { n: 2 })],
          (publish) => Effect.forkDetach(publish as Effect.Effect<unknown, unknown>, { startImmediately: true })
        ).pipe(Effect.tap(settle), Effect.tap((fibers) => Effect.sync(() => {
          for (const fiber of fibers) expect(fiber.pollUnsafe()).toBeUndefined()
        })))
      }))
      for (const fiber of held) expect(Exit.isSuccess(yield* Fiber.await(fiber))).toBe(true)
      yield* ksi.emit(Ticked, { n: 3 })
    })))

  it.effect("a subscriber that says what it follows does not wait for itself", () =>
    run(Effect.gen(function*() {
      const ksi = yield* KsiService
      const heard: Array<number> = []
      const echo = ksi.subscribe(Ticked, { overflow: "block", buffer: 1 }).pipe(
        Stream.tap(({ data: { n } }) => Effect.sync(() => heard.push(n))),
        // Three for each of the first: far more than there is room for.
        Stream.mapEffect(({ data: { n } }) => n > 3 ? Effect.void : Effect.forEach([1, 2, 3], (i) => ksi.emit(Ticked, { n: n * 3 + i }), { discard: true })),
        Stream.take(13), Stream.runDrain
      )
      const fiber = yield* Effect.forkScoped(echo, { startImmediately: true })
      yield* ksi.emit(Ticked, { n: 0 })
      yield* Fiber.join(fiber)
      expect(heard).toEqual(Array.from({ length: 13 }, (_, n) => n))
    })))

  it.effect("nor does one that makes the requests it follows: those without room are counted", () =>
    run(Effect.gen(function*() {
      const ksi = yield* KsiService
      const heard: Array<readonly [number, number]> = []
      const echo = ksi.subscribe("clock:*", { overflow: "block", buffer: 1, requests: true }).pipe(
        Stream.tap((delivery) => Effect.sync(() => heard.push([numberOf(delivery), delivery.missed]))),
        Stream.mapEffect((delivery) => Effect.forEach([1, 2, 3], (i) => ksi.call(Asked, { n: numberOf(delivery) * 3 + i }), { discard: true })),
        Stream.take(3), Stream.runDrain
      )
      const fiber = yield* Effect.forkScoped(echo, { startImmediately: true })
      yield* ksi.call(Asked, { n: 0 })
      yield* Fiber.join(fiber)
      expect(heard).toEqual([[0, 0], [1, 0], [4, 2]])
    })))

  it.effect("a circle through another fiber ends: one that takes nothing for so long holds up nobody", () => {
    const warnings: Array<unknown> = []
    const logger = Logger.make(({ message }) => void warnings.push(message))
    return run(Effect.gen(function*() {
      const ksi = yield* KsiService
      const sub = yield* (yield* Subscriptions).open("clock:*", { overflow: "block", buffer: 1 })
      const heard: Array<number> = []
      // What it does with a delivery waits, in fibers of their own, for room that only it could make.
      const consumer = yield* Effect.forkScoped(Effect.gen(function*() {
        for (const delivery of yield* sub.next) {
          heard.push(numberOf(delivery))
          yield* Effect.forEach([1, 2, 3], (n) => ksi.emit(Ticked, { n }), { concurrency: 3 })
        }
        for (let i = 0; i < 3; i++) heard.push(...(yield* sub.next).map(numberOf))
      }), { startImmediately: true })
      yield* ksi.emit(Ticked, { n: 0 })
      yield* TestClock.adjust(blockMillis - 1)
      expect(consumer.pollUnsafe()).toBeUndefined()
      expect(warnings).toEqual([])
      yield* TestClock.adjust(1)
      yield* Fiber.join(consumer)
      expect(heard).toEqual([0, 1, 2, 3])
      expect(warnings.flat().join()).toContain("clock:*")
    }), [logger])
  })

  it.effect("after that nobody waits until it takes again; then they do", () =>
    run(Effect.gen(function*() {
      const { ksi, sub } = yield* full({ requests: true })
      yield* ksi.call(Asked, { n: 0 })
      const fact = yield* waits(ksi.emit(Ticked, { n: 1 }))
      const call = yield* waits(ksi.call(Asked, { n: 1 }))
      yield* TestClock.adjust(blockMillis)
      yield* Effect.andThen(Fiber.join(fact), Fiber.join(call))
      for (let n = 2; n < 30; n++) yield* Effect.andThen(ksi.emit(Ticked, { n }), ksi.call(Asked, { n }))
      const facts: Array<number> = []
      const take = Effect.map(Effect.flatMap(Effect.forkScoped(sub.next), Fiber.join), ([delivery]) => {
        if (kindOf(delivery) === "fact") facts.push(numberOf(delivery))
        return delivery
      })
      yield* take
      const again = yield* waits(ksi.emit(Ticked, { n: 30 }))
      while (facts.length < 30) yield* take
      yield* Fiber.join(again)
      yield* take
      expect(facts).toEqual(Array.from({ length: 31 }, (_, n) => n))
      // Requests have no place to be read from: those of the stall are counted.
      yield* ksi.call(Asked, { n: 30 })
      expect((yield* take).missed).toBe(29)
    })))

  it.effect("a slow subscriber that does take is waited for, however long", () =>
    run(Effect.gen(function*() {
      const { ksi, sub } = yield* full()
      const fibers = yield* Effect.forEach([1, 2, 3, 4], (n) => Effect.forkScoped(ksi.emit(Ticked, { n }), { startImmediately: true }))
      for (const fiber of fibers) {
        yield* TestClock.adjust(blockMillis - 1)
        expect(fiber.pollUnsafe()).toBeUndefined()
        yield* Effect.flatMap(Effect.forkScoped(sub.next), Fiber.join)
        yield* Fiber.join(fiber)
      }
    })))

  it.effect("one that still reads what was stored before holds up nobody", () =>
    run(Effect.gen(function*() {
      const ksi = yield* KsiService
      for (let n = 0; n < 5; n++) yield* ksi.emit(Ticked, { n })
      const sub = yield* (yield* Subscriptions).open("clock:*", { from: "start", overflow: "block", buffer: 2 })
      for (let n = 5; n < 10; n++) yield* ksi.emit(Ticked, { n })
      const heard: Array<number> = []
      while (heard.length < 10) heard.push(...(yield* sub.next).map(numberOf))
      expect(heard).toEqual(Array.from({ length: 10 }, (_, n) => n))
    })))

  it.effect("a call's deadline counts while it waits, and its handler does not run", () =>
    run(Effect.gen(function*() {
      const { ksi } = yield* full({ requests: true })
      yield* ksi.call(Asked, { n: 0 })
      const late = yield* Effect.forkScoped(Effect.flip(ksi.dispatch(Asked.name, { n: 1 }, { deadline: 50 })), { startImmediately: true })
      yield* TestClock.adjust(50)
      expect(yield* Fiber.join(late)).toMatchObject({ reason: { _tag: "DeadlineExceeded" } })
    })))
})

describe("options", () => {
  it.effect("what makes no sense is refused", () =>
    run(Effect.gen(function*() {
      const subscriptions = yield* Subscriptions
      const refused = (options: object) => Effect.map(Effect.flip(subscriptions.open("*", options)), ({ reason }) => reason)
      for (const buffer of [0, -1, 1.5, Number.NaN]) expect(yield* refused({ buffer })).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "buffer" }] })
      expect(yield* refused({ buffer: 17 })).toMatchObject({ _tag: "LimitExceeded", limit: "subscriptionBuffer", max: 16, actual: 17 })
      expect(yield* refused({ overflow: "newest" })).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "overflow" }] })
      expect(subscriptions.count()).toBe(0)
    })))

  it.effect("what is stored already is read in full by every policy; a start beyond the head lets pass what comes before it", () =>
    run(Effect.gen(function*() {
      const ksi = yield* KsiService
      const subscriptions = yield* Subscriptions
      for (let n = 1; n <= 40; n++) yield* ksi.emit(Ticked, { n })
      for (const overflow of ["spill", "block", "latest", "drop"] as const) {
        const history = yield* ksi.subscribe(Ticked, { from: "start", overflow, buffer: 3 }).pipe(Stream.take(40), Stream.runCollect)
        expect(history.map(({ data, missed }) => [data.n, missed])).toEqual(Array.from({ length: 40 }, (_, i) => [i + 1, 0]))
      }
      const later = yield* Effect.forEach(["spill", "latest", "drop"] as const, (overflow) =>
        subscriptions.open("clock:*", { from: 60, overflow, buffer: 3 }))
      for (let n = 41; n <= 62; n++) yield* ksi.emit(Ticked, { n })
      const all = (sub: Subscription): Effect.Effect<ReadonlyArray<number>, unknown> =>
        Effect.gen(function*() {
          const heard: Array<number> = []
          while (heard.length < 3) heard.push(...(yield* sub.next).map(({ missed, position }) => Number(position) + 1000 * missed))
          return heard
        })
      for (const sub of later) expect(yield* all(sub)).toEqual([60, 61, 62])
    })))

  it.effect("a request whose data has no JSON form is told without it, and answered all the same", () => {
    const Picky = Schema.String.pipe(Schema.decodeTo(Schema.String, {
      decode: SchemaGetter.passthrough(),
      encode: SchemaGetter.transform((): string => { throw new Error("no JSON for this") })
    }))
    const Odd = Event.make("odd:ask", { payload: { thing: Picky }, success: Schema.String })
    return run(Effect.gen(function*() {
      yield* Layer.build(handle(Odd, () => Effect.succeed("answered")))
      const ksi = yield* KsiService
      const sub = yield* (yield* Subscriptions).open("odd:*", { requests: true })
      expect(yield* ksi.call(Odd, { thing: "x" })).toBe("answered")
      expect((yield* sub.next)[0]).toMatchObject({ name: "odd:ask", data: null })
    }))
  })
})
