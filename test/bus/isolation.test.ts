// What one call, hook, handler or listener does stays with it: each case was once otherwise.
import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Option, Schema, Scope, Stream, Tracer } from "effect"
import { TestClock } from "effect/testing"
import * as Causation from "../../src/bus/Causation.ts"
import type { NewLetter } from "../../src/bus/DeadLetters.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import { Router, serve } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as EventPattern from "../../src/event/EventPattern.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import { telling } from "./Bus.ts"

const Any = Schema.Struct({ any: Schema.Unknown })
const Ask = Event.make("quiz:ask", { payload: Any, success: Schema.Unknown })
const Said = Event.fact("quiz:said", { payload: Any, streamId: () => "quiz" })

const recorded: Array<string> = []
const letters: Array<NewLetter> = []
const bus = Layer.suspend(() => {
  recorded.length = letters.length = 0
  return telling(({ envelope }) => void recorded.push(envelope.name), (letter) => void letters.push(letter))
})
const all = Effect.runSync(EventPattern.fromText("*"))
const empty = Context.empty()
const entry = (name: string, run: (payload: { any: never }) => unknown) =>
  ({ name, context: empty, run: run as (payload: unknown) => unknown }) // payloads are what the events say

const test = <E>(name: string, program: Effect.Effect<void, E, Router | KsiService | Subscriptions | EventStore.EventStore | Scope.Scope>) =>
  it.effect(name, () => program.pipe(Effect.scoped, Effect.provide(bus), Effect.provide(Logger.layer([]))))

describe("a call", () => {
  test("that ends its own fiber before it waits gives the context back, comes out through its hooks and is recorded", Effect.gen(function*() {
    let inFlight = 0
    const Gauge = Middleware.make("gauge", { before: () => void inFlight++, after: () => void inFlight-- })
    const group = EventGroup.make(Ask).middleware(Gauge)
    const self: { fiber?: Fiber.Fiber<unknown, unknown> } = {}
    const handlers = group.toLayer({
      *"quiz:ask"() {
        self.fiber?.interruptUnsafe()
        return yield* Effect.never
      }
    })
    yield* Layer.build(serve(group).pipe(Layer.provide([handlers, Gauge.layer])))
    const ksi = yield* KsiService
    const seen: Array<unknown> = []
    const call = Effect.onExit(ksi.call(group.events["quiz:ask"], { any: 1 }), () =>
      Effect.sync(() => void seen.push(self.fiber?.getRef(Causation.Current))))
    self.fiber = yield* Effect.forkChild(Effect.andThen(Effect.yieldNow, call))
    expect(Exit.isFailure(yield* Fiber.await(self.fiber))).toBe(true)
    expect([inFlight, seen, recorded]).toEqual([0, [undefined], ["quiz:ask"]])
  }))

  test("ends with the hooks that it began with", Effect.gen(function*() {
    const log: Array<string> = []
    const router = yield* Router
    const ksi = yield* KsiService
    const go = Deferred.makeUnsafe<void>()
    const hook = (name: string) => ({
      name, error: Schema.Never, provides: undefined, around: undefined, when: undefined, context: empty,
      before: () => void log.push(`${name} in`),
      after: () => Effect.sync(() => void log.push(`${name} out`))
    })
    yield* router.handle(Ask, entry("waits", () => Deferred.await(go)))
    const scope = yield* Scope.make()
    yield* Scope.provide(router.use(hook("one"), all), scope)
    yield* router.use(hook("two"), all)
    const call = yield* Effect.forkChild(ksi.call(Ask, { any: 1 }), { startImmediately: true })
    yield* Scope.close(scope, Exit.void)
    yield* router.use(hook("three"), all)
    yield* Deferred.succeed(go, undefined)
    yield* Fiber.await(call)
    expect(log).toEqual(["one in", "two in", "two out", "one out"])
  }))

  test("whose answer is there interrupts the handlers that are still at it", Effect.gen(function*() {
    const router = yield* Router
    const ksi = yield* KsiService
    let running = 0
    yield* router.handle(Ask, entry("answers", () => Effect.succeed("one")))
    yield* router.handle(Ask, entry("goes on", () =>
      Effect.suspend(() => (running++, Effect.ensuring(Effect.never, Effect.sync(() => running--))))))
    for (let n = 0; n < 10; n++) expect(yield* ksi.call(Ask, { any: n })).toBe("one")
    expect(running).toBe(0)
  }))

  test("has the trace of who asks, not of who built the layer", Effect.gen(function*() {
    const group = EventGroup.make(Ask)
    const span = (traceId: string) => Tracer.externalSpan({ traceId, spanId: "b7ad6b7169203331" })
    const handlers = group.toLayer({
      "quiz:ask": () => Effect.map(Effect.serviceOption(Tracer.ParentSpan), (parent) => Option.isSome(parent))
    })
    yield* Effect.provideService(Layer.build(serve(group).pipe(Layer.provide(handlers))), Tracer.ParentSpan, span("0".repeat(31) + "1"))
    const ksi = yield* KsiService
    expect(yield* ksi.call(Ask, { any: 1 })).toBe(false)
  }))
})

describe("an event behind a middleware", () => {
  test("is not carried out where its handler is there and the middleware is not", Effect.gen(function*() {
    const Gate = Middleware.make("gate", { before: () => Effect.die("closed") })
    const group = EventGroup.make(Ask).middleware(Gate)
    const router = yield* Router
    const ksi = yield* KsiService
    yield* router.handle(group.events["quiz:ask"], entry("answers", () => Effect.succeed("gold")))
    const problem = "quiz:ask cannot start: it stands behind the middleware \"gate\", which is not there: serve its group"
    expect((yield* Effect.flip(ksi.call(Ask, { any: 1 }))).message).toBe(problem)
    expect((yield* Effect.flip(ksi.dispatch("quiz:ask", { any: 1 }))).message).toBe(problem)
  }))
})

describe("data", () => {
  test("of a fact is for each reaction what was stored", Effect.gen(function*() {
    const router = yield* Router
    const ksi = yield* KsiService
    const seen: Array<unknown> = []
    yield* router.handle(Said, entry("changes", (payload: { any: Array<number> }) => Effect.sync(() => payload.any.push(5))))
    yield* router.handle(Said, entry("waits", (payload) => Effect.andThen(Effect.sleep(1), Effect.sync(() => void seen.push(payload)))))
    const any = [1]
    yield* ksi.emit(Said, { any })
    any.push(2)
    yield* TestClock.adjust(1)
    yield* router.settled
    expect(seen).toEqual([{ any: [1] }])
    expect(letters.map(({ event, handler }) => [handler, event.data])).toEqual([["changes", { any: [1] }]])
  }))

  test("of a request is for who listens a frozen copy", Effect.gen(function*() {
    const router = yield* Router
    const ksi = yield* KsiService
    yield* router.handle(Ask, entry("echoes", (payload) => Effect.succeed(payload)))
    const heard = yield* Effect.forkChild(Stream.runHead(ksi.subscribe("quiz:*", { requests: true })), { startImmediately: true })
    const any = { deep: [1] }
    yield* ksi.call(Ask, { any })
    const delivery = Option.getOrThrow(yield* Fiber.join(heard))
    any.deep.push(2)
    expect(delivery.data).toEqual({ any: { deep: [1] } })
    expect(() => (delivery.data as { any: { deep: Array<number> } }).any.deep.push(3)).toThrow(TypeError)
  }))

  test("that says something else each time is stored as it was first read, and half an append is none", Effect.gen(function*() {
    const store = yield* EventStore.EventStore
    const ksi = yield* KsiService
    yield* (yield* Router).define(Said)
    let reads = 0
    yield* ksi.emit(Said, { any: Object.freeze({ get x() { return `read ${reads++}` } }) })
    const [fact] = yield* store.read({ from: 1, limit: 1 })
    expect(JSON.stringify(fact?.data)).toBe(JSON.stringify(fact?.data))
    let looks = 0
    const evil = { get x() { if (++looks > 1) throw new Error("once"); return 1 } }
    const appended = yield* Effect.exit(store.appendTo("s", [{ name: "a:good", data: 1 }, { name: "a:evil", data: evil }]))
    expect([Exit.isFailure(appended), store.head()]).toEqual([true, 1])
  }))

  it.effect("of a payload has the defaults of its optional fields too", () => {
    const Greet = Event.make("quiz:greet", {
      payload: { word: Schema.String.pipe(Schema.optionalKey, Schema.withConstructorDefault(Effect.succeed("hello"))) }, success: Schema.Unknown
    })
    return Effect.gen(function*() {
      yield* (yield* Router).handle(Greet, entry("echoes", (payload) => Effect.succeed(payload)))
      expect(yield* (yield* KsiService).call(Greet, {})).toEqual({ word: "hello" })
    }).pipe(Effect.scoped, Effect.provide(bus))
  })
})

describe("an observer", () => {
  test("is not hurried by the deadline of what it observes", Effect.gen(function*() {
    const router = yield* Router
    const ksi = yield* KsiService
    yield* router.handle(Ask, entry("answers", () => Effect.succeed("ok")))
    yield* router.define(Said)
    yield* router.observe(Effect.runSync(EventPattern.fromText("quiz:ask")), entry("audit", () =>
      Effect.andThen(Effect.sleep(20), ksi.emit(Said, { any: "seen" }))))
    yield* ksi.dispatch("quiz:ask", { any: 1 }, { deadline: 10 })
    yield* TestClock.adjust(20)
    yield* router.settled
    expect([letters, (yield* EventStore.EventStore).head()]).toEqual([[], 1])
  }))
})
