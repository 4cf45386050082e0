import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Logger, Metric, Option, References, Schema, Stream, Tracer } from "effect"
import { TestClock } from "effect/testing"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Builtin from "../../src/bus/Builtin.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import * as Router from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import { keptSpans } from "../Spans.ts"

class SoldOut extends Schema.TaggedError<SoldOut>()("SoldOut", { at: Schema.Date }) {}
class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", { who: Schema.String }) {}

const Buy = Event.make("shop:buy", {
  payload: { n: Schema.Int },
  success: Schema.Struct({ run: Schema.Int, at: Schema.Date }),
  error: SoldOut
})
const Wait = Event.make("shop:wait", { payload: { millis: Schema.Int } })
const Nothing = Event.make("shop:nothing")
const Ticks = Event.make("shop:ticks", { success: Schema.Int, stream: true })
const Sold = Event.fact("shop:sold", { payload: { n: Schema.Int }, streamId: () => "shop" })
const Shop = EventGroup.make(Buy, Wait, Nothing, Ticks, Sold)

/** The shop: `n` < 0 is sold out, `n` = 0 a defect. */
const shop = (seen: { runs: number }) =>
  Ksi.serve(Shop).pipe(Layer.provide(Shop.toLayer({
    "shop:buy": ({ n }) => Effect.suspend(() => {
      const run = ++seen.runs
      if (n === 0) return Effect.die(new Error("zero"))
      return n < 0 ? Effect.fail(new SoldOut({ at: new Date(run) })) : Effect.succeed({ run, at: new Date(run) })
    }),
    "shop:wait": ({ millis }) => Effect.andThen(Effect.sync(() => void seen.runs++), Effect.sleep(millis)),
    "shop:nothing": () => Effect.sync(() => void seen.runs++),
    "shop:ticks": () => Stream.fromEffectRepeat(Effect.as(Effect.sleep(10), 1))
  })))

const world = (middleware: Layer.Layer<never, KsiError, Runtime>, seen = { runs: 0 }, runtime: Layer.Layer<Runtime, KsiError> = Ksi.layerMemory) =>
  Layer.mergeAll(shop(seen), middleware).pipe(Layer.provideMerge(runtime))

describe("log", () => {
  it.effect("one line for each event, with level, outcome, elapsed and correlation", () => {
    const lines: Array<unknown> = []
    const logger = Logger.make(({ fiber, logLevel, message }) => {
      lines.push([logLevel, message, fiber.getRef(References.CurrentLogAnnotations)])
    })
    const id = expect.stringMatching(/^[0-9a-f-]{36}$/)
    return Effect.gen(function*() {
      const ksi = yield* Ksi
      yield* ksi.call(Buy, { n: 1 })
      yield* Effect.flip(ksi.call(Buy, { n: -1 }))
      yield* ksi.emit(Sold, { n: 1 })
      const waiting = yield* Effect.forkChild(ksi.call(Wait, { millis: 40 }))
      yield* TestClock.adjust(40)
      yield* Fiber.join(waiting)
      const hanging = yield* Effect.forkChild(ksi.call(Wait, { millis: 40 }), { startImmediately: true })
      yield* Fiber.interrupt(hanging)
      const line = (level: string, event: string, outcome: string, more: object = {}) =>
        [level, [`${event} ${outcome}`], { event, outcome, id, correlationId: id, elapsed: 0, ...more }]
      expect(lines).toEqual([
        line("Debug", "shop:buy", "success"),
        line("Error", "shop:buy", "failure", { problem: expect.any(String) }),
        line("Debug", "shop:sold", "success"),
        line("Debug", "shop:wait", "success", { elapsed: 40 }),
        line("Error", "shop:wait", "interrupted", { problem: "it was interrupted" })
      ])
    }).pipe(
      Effect.provide(world(Middleware.use(Builtin.log({ level: "Debug", failureLevel: "Error" })))),
      Effect.provide(Logger.layer([logger])),
      Effect.provideService(References.MinimumLogLevel, "All")
    )
  })
})

describe("trace", () => {
  it.effect("a span for each event, under the caller's, above what the handler does; ended with its outcome", () => {
    const spans: Array<Tracer.Span> = []
    const native = Tracer.make({
      span: (options) => {
        const span = new Tracer.NativeSpan(options)
        spans.push(span)
        return span
      }
    })
    const Outer = Event.make("deep:outer")
    const Deep = EventGroup.make(Outer)
    const deep = Ksi.serve(Deep).pipe(Layer.provide(Deep.toLayer({
      *"deep:outer"() {
        const ksi = yield* Ksi
        yield* Effect.orDie(Effect.withSpan(ksi.call(Nothing, {}), "work"))
      }
    })))
    return Effect.gen(function*() {
      const ksi = yield* Ksi
      yield* Effect.withSpan(ksi.call(Outer, {}), "program")
      yield* Effect.flip(ksi.call(Buy, { n: -1 }))
      const parents = spans.map(({ name, parent }) => [name, parent._tag === "Some" && parent.value._tag === "Span" ? parent.value.name : undefined])
      expect(parents).toEqual([
        ["program", undefined], ["deep:outer", "program"], ["work", "deep:outer"], ["shop:nothing", "work"], ["shop:buy", undefined]
      ])
      expect(spans.map(({ status }) => status._tag === "Ended" ? status.exit._tag : status._tag)).toEqual(
        ["Success", "Success", "Success", "Success", "Failure"]
      )
      expect(spans[1]?.attributes.get("ksi.event")).toBe("deep:outer")
      expect(spans[3]?.attributes.get("ksi.correlation_id")).toBe(spans[1]?.attributes.get("ksi.id"))
    }).pipe(
      Effect.provide(deep.pipe(Layer.provideMerge(world(Middleware.use(Builtin.trace))))),
      Effect.provideService(Tracer.Tracer, native)
    )
  })
})

describe("what a span says", () => {
  const run = <A, E>(effect: Effect.Effect<A, E, Ksi | Router.Router>, middleware = Middleware.use(Builtin.trace), more: Layer.Layer<never, KsiError, Runtime> = Layer.empty) => {
    const { spans, tracer } = keptSpans()
    return Effect.gen(function*() {
      yield* Effect.exit(effect)
      yield* Effect.flatMap(Router.Router, ({ settled }) => settled)
      return spans
    }).pipe(Effect.provide(world(Layer.merge(middleware, more))), Effect.provideService(Tracer.Tracer, tracer), Effect.scoped)
  }
  const call = (n: number) => Effect.flatMap(Ksi, (ksi) => Effect.exit(ksi.call(Buy, { n })))
  const emit = Effect.flatMap(Ksi, (ksi) => ksi.emit(Sold, { n: 1 }))

  it.effect("what kind of event it was and how it ended: a declared failure is no defect", () =>
    Effect.gen(function*() {
      const spans = yield* run(Effect.gen(function*() {
        for (const n of [1, -1, 0]) yield* call(n)
        yield* Effect.exit(Effect.flatMap(Ksi, (ksi) => ksi.dispatch("shop:buy", { n: 1 }, { deadline: 0 })))
        const hanging = yield* Effect.forkChild(Effect.flatMap(Ksi, (ksi) => ksi.call(Wait, { millis: 40 })), { startImmediately: true })
        yield* Fiber.interrupt(hanging)
        yield* emit
      }))
      const told = spans.map(({ attributes, kind, name }) => [name, kind, attributes.get("ksi.outcome"), attributes.get("error.type")])
      expect(told).toEqual([
        ["shop:buy", "server", "success", undefined], ["shop:buy", "server", "failure", "SoldOut"], ["shop:buy", "server", "defect", "Error"],
        ["shop:wait", "server", "interrupted", undefined], ["shop:sold", "producer", "success", undefined]
      ])
      expect(Object.fromEntries(spans[0]?.attributes ?? [])).toEqual({
        "ksi.event": "shop:buy", "ksi.id": expect.any(String), "ksi.correlation_id": spans[0]?.attributes.get("ksi.id"), "ksi.principal": "owner",
        "rpc.system.name": "ksi", "rpc.method": "shop:buy", "ksi.outcome": "success"
      })
      expect(Object.fromEntries(spans[4]?.attributes ?? [])).toMatchObject({
        "messaging.system": "ksi", "messaging.operation.type": "send", "messaging.destination.name": "shop:sold", "messaging.message.id": spans[4]?.attributes.get("ksi.id")
      })
    }))

  it.effect("of each reaction that it is one, of which handler, and how it ended", () =>
    Effect.gen(function*() {
      const reactions = Layer.mergeAll(
        Router.handle(Sold, () => Effect.void, { name: "billing" }),
        Router.handle(Sold, () => Effect.fail(new Forbidden({ who: "me" })), { name: "shipping" }),
        Router.observe("shop:sold", () => Effect.die(new RangeError("broken")), { name: "watcher" })
      )
      const spans = yield* run(emit, undefined, reactions)
      const [sold, ...others] = spans
      const told = others.map(({ attributes, kind, name, parent, status }) =>
        [name, kind, attributes.get("ksi.handler"), attributes.get("ksi.outcome"), attributes.get("error.type"), Option.getOrUndefined(parent)?.spanId === sold?.spanId, status._tag])
      expect(told).toEqual([
        ["process shop:sold", "consumer", "billing", "success", undefined, true, "Ended"],
        ["process shop:sold", "consumer", "shipping", "failure", "Forbidden", true, "Ended"],
        ["process shop:sold", "consumer", "watcher", "defect", "RangeError", true, "Ended"]
      ])
    }))

  it.effect("once, where a module has the middleware and the daemon too", () =>
    Effect.gen(function*() {
      const reaction = Router.handle(Sold, () => Effect.void, { name: "billing" })
      const both = Layer.mergeAll(Middleware.use(Builtin.trace), Middleware.use(Builtin.trace, { pattern: "shop:*" }))
      const spans = yield* run(Effect.andThen(call(1), emit), both, reaction)
      expect(spans.map(({ name, status }) => [name, status._tag])).toEqual([["shop:buy", "Ended"], ["shop:sold", "Ended"], ["process shop:sold", "Ended"]])
    }))

  it.effect("nothing, where nobody records the trace", () =>
    Effect.gen(function*() {
      const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
      const asked = Effect.flatMap(Ksi, (ksi) => Effect.andThen(ksi.dispatch("shop:buy", { n: 1 }, { traceparent }), ksi.dispatch("shop:sold", { n: 1 }, { traceparent })))
      const spans = yield* run(asked, undefined, Router.handle(Sold, () => Effect.void))
      expect(spans.map(({ attributes, name, sampled }) => [name, sampled, attributes.size])).toEqual([
        ["shop:buy", false, 0], ["shop:sold", false, 0], ["process shop:sold", false, 0]
      ])
    }))
})

describe("trace across processes", () => {
  const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
  const traceparent = `00-${traceId}-00f067aa0ba902b7-01`
  const kept = () => {
    const { spans, tracer } = keptSpans()
    const last = (name: string) => spans.findLast((span) => span.name === name)
    const above = (name: string) => Option.getOrUndefined(last(name)?.parent ?? Option.none())?.spanId
    return { spans, last, above, tracer: Effect.provideService(Tracer.Tracer, tracer) }
  }
  const traced = Middleware.use(Builtin.trace)

  it.effect("what dispatch is told goes before the current span, a malformed one does not", () => {
    const { above, last, tracer } = kept()
    return Effect.gen(function*() {
      const ksi = yield* Ksi
      const dispatch = (traceparent: string) => Effect.withSpan(ksi.dispatch("shop:nothing", {}, { traceparent }), "program")
      yield* dispatch(traceparent)
      expect(above("shop:nothing")).toBe("00f067aa0ba902b7")
      yield* dispatch("00-1")
      expect(above("shop:nothing")).toBe(last("program")?.spanId)
    }).pipe(Effect.provide(world(traced)), tracer)
  })

  it.effect("a fact carries its own span, an emit without the middleware that of who says it", () => {
    const { last, tracer } = kept()
    const said = Effect.gen(function*() {
      const ksi = yield* Ksi
      yield* Effect.withSpan(ksi.emit(Sold, { n: 1 }), "program", { sampled: false })
      const [fact] = yield* ksi.subscribe(Sold, { from: "start" }).pipe(Stream.take(1), Stream.runCollect)
      return fact?.metadata.traceparent
    })
    return Effect.gen(function*() {
      expect(yield* Effect.provide(said, world(traced), { local: true })).toBe(`00-${last("program")?.traceId}-${last("shop:sold")?.spanId}-00`)
      expect(yield* Effect.provide(said, world(Layer.empty), { local: true })).toBe(`00-${last("program")?.traceId}-${last("program")?.spanId}-00`)
    }).pipe(tracer)
  })

  it.effect("a stream's items, an observer and what it asks are in the trace", () => {
    const { above, last, spans, tracer } = kept()
    const observer = Router.observe("shop:wait", () =>
      Effect.gen(function*() {
        yield* Effect.yieldNow
        yield* Effect.withSpan(Effect.void, "look")
        yield* Effect.flatMap(Ksi, (ksi) => ksi.call(Nothing, {}))
      }))
    return Effect.gen(function*() {
      const ksi = yield* Ksi
      yield* Effect.forkChild(ksi.dispatch("shop:wait", { millis: 40 }, { traceparent }), { startImmediately: true })
      yield* TestClock.adjust(40)
      expect([above("shop:wait"), above("process shop:wait")]).toEqual(["00f067aa0ba902b7", "00f067aa0ba902b7"])
      expect(above("look")).toBe(last("process shop:wait")?.spanId)
      yield* Effect.flatMap(Router.Router, ({ settled }) => settled)
      expect(last("shop:nothing")?.traceId).toBe(traceId)
      const ticks = yield* Effect.forkChild(Effect.withSpan(Stream.runDrain(Stream.take(ksi.stream(Ticks, {}), 1)), "program"), { startImmediately: true })
      yield* TestClock.adjust(10)
      yield* Fiber.join(ticks)
      expect(above("shop:ticks")).toBe(last("program")?.spanId)
      expect(spans.every(({ status }) => status._tag === "Ended")).toBe(true)
    }).pipe(Effect.provide(Layer.provideMerge(observer, world(traced))), tracer)
  })

  it.effect("where tracing is off, the trace is passed on past it", () => {
    const { spans, tracer } = kept()
    return Effect.gen(function*() {
      const ksi = yield* Ksi
      yield* ksi.dispatch("shop:sold", { n: 1 }, { traceparent })
      const [fact] = yield* ksi.subscribe(Sold, { from: "start" }).pipe(Stream.take(1), Stream.runCollect)
      expect(fact?.metadata.traceparent).toBe(traceparent)
      expect(spans).toEqual([])
    }).pipe(Effect.provide(world(traced)), (effect) => Effect.withTracerEnabled(effect, false), tracer)
  })

  it.effect("a retry that asks twice has a span each time, under the same parent", () => {
    const { spans, tracer } = kept()
    const Again = Middleware.make("again", { around: (next) => Effect.retry(next, { times: 1 }) })
    const layers = Layer.effectDiscard(Effect.andThen(Layer.build(Middleware.use(Again)), Layer.build(traced)))
    return Effect.gen(function*() {
      const ksi = yield* Ksi
      yield* Effect.flip(ksi.dispatch("shop:buy", { n: -1 }, { traceparent }))
      expect(spans.map(({ name, parent, status }) => [name, Option.getOrUndefined(parent)?.spanId, status._tag])).toEqual(
        [1, 2].map(() => ["shop:buy", "00f067aa0ba902b7", "Ended"])
      )
    }).pipe(Effect.provide(world(layers)), tracer)
  })
})

describe("metrics", () => {
  it.effect("counts by event and outcome, and measures; a name that is not registered is no series", () =>
    Effect.gen(function*() {
      const ksi = yield* Ksi
      yield* ksi.call(Buy, { n: 1 })
      yield* ksi.call(Buy, { n: 1 })
      yield* Effect.flip(ksi.call(Buy, { n: -1 }))
      yield* Effect.exit(ksi.call(Buy, { n: 0 }))
      yield* Effect.flip(ksi.dispatch("shop:misspelt", {}))
      const waiting = yield* Effect.forkChild(ksi.call(Wait, { millis: 40 }))
      yield* TestClock.adjust(40)
      yield* Fiber.join(waiting)
      const all = yield* Metric.snapshot
      const counts = all.filter(({ id }) => id === "ksi_events_total").map(({ attributes, state }) => [attributes, state])
      const count = (event: string, outcome: string, n: number) => [{ event, outcome }, { count: n, incremental: true }]
      expect(counts).toEqual([
        count("shop:buy", "success", 2), count("shop:buy", "failure", 1), count("shop:buy", "defect", 1), count("shop:wait", "success", 1)
      ])
      const durations = all.filter(({ id }) => id === "ksi_event_duration").map(({ attributes, state }) => [attributes, state])
      expect(durations).toMatchObject([[{ event: "shop:buy" }, { count: 4, max: 0 }], [{ event: "shop:wait" }, { count: 1, max: 40 }]])
    }).pipe(
      Effect.provide(world(Middleware.use(Builtin.metrics))),
      Effect.provideService(Metric.MetricRegistry, new Map())
    ))
})

describe("record", () => {
  it.effect("is handed every event with its exit; its own trouble is nobody else's", () => {
    const taken: Array<string> = []
    let way: "fine" | "throws" | "dies" = "fine"
    const second: Array<string> = []
    const Second = Builtin.record(({ name }) => void second.push(name), { name: "second" })
    const Kept = Builtin.record(({ name }, exit) => {
      if (way === "throws") throw new Error("full")
      if (way === "dies") return Effect.die("full")
      return Effect.sync(() => void taken.push(`${name} ${exit._tag}`))
    })
    return Effect.gen(function*() {
      const ksi = yield* Ksi
      yield* ksi.call(Buy, { n: 1 })
      yield* Effect.flip(ksi.call(Buy, { n: -1 }))
      yield* ksi.emit(Sold, { n: 1 })
      yield* Stream.runDrain(Stream.take(ksi.stream(Ticks, {}), 0))
      expect(taken).toEqual(["shop:buy Success", "shop:buy Failure", "shop:sold Success"])
      expect(second.slice(0, 3)).toEqual(["shop:buy", "shop:buy", "shop:sold"])
      expect((yield* Router.Router).describe("shop:buy").middleware.toSorted()).toEqual(["record", "second"])
      for (const each of ["throws", "dies"] as const) {
        way = each
        expect((yield* ksi.call(Buy, { n: 1 })).run).toBeGreaterThan(0)
      }
    }).pipe(Effect.provide(world(Layer.merge(Middleware.use(Kept), Middleware.use(Second)))), Effect.provide(Logger.layer([])))
  })
})

describe("timeout", () => {
  const short = Middleware.use(Builtin.timeout("50 millis"))
  const exceeded = { reason: { _tag: "DeadlineExceeded", event: "shop:wait", millis: 50 } }

  it.effect("interrupts what takes longer, and only that", () =>
    Effect.gen(function*() {
      const ksi = yield* Ksi
      const fibers = yield* Effect.forEach([49, 51], (millis) => Effect.forkChild(Effect.exit(ksi.call(Wait, { millis }))))
      yield* TestClock.adjust(51)
      const [inTime, late] = yield* Effect.forEach(fibers, Fiber.join)
      expect(inTime).toEqual(Exit.void)
      expect(late && Effect.runSync(Effect.flip(late))).toMatchObject(exceeded)
      expect((yield* ksi.emit(Sold, { n: 1 })).version).toBe(1)
    }).pipe(Effect.provide(world(short))))

  it.effect("a stream must have ended by then", () =>
    Effect.gen(function*() {
      const ksi = yield* Ksi
      const items: Array<number> = []
      const fiber = yield* Effect.forkChild(Effect.flip(Stream.runForEach(ksi.stream(Ticks, {}), (n) => Effect.sync(() => void items.push(n)))))
      for (let i = 0; i < 6; i++) yield* TestClock.adjust(10)
      expect(yield* Fiber.join(fiber)).toMatchObject({ reason: { _tag: "DeadlineExceeded", event: "shop:ticks" } })
      expect(items.length).toBeGreaterThanOrEqual(3)
      expect(items.length).toBeLessThan(5)
    }).pipe(Effect.provide(world(short))))

  it.effect("two of them have two names", () => {
    const Long = Builtin.timeout("1 minute", { name: "long" })
    const Short = Builtin.timeout("50 millis")
    const [Fast, Slow] = [EventGroup.make(Wait).middleware(Short), EventGroup.make(Nothing).middleware(Long)]
    const served = Layer.mergeAll(
      Ksi.serve(Fast).pipe(Layer.provide(Fast.toLayer({ "shop:wait": () => Effect.never }))),
      Ksi.serve(Slow).pipe(Layer.provide(Slow.toLayer({ "shop:nothing": () => Effect.sleep("2 seconds") })))
    ).pipe(Layer.provide([Short.layer, Long.layer]), Layer.provideMerge(Ksi.layerMemory))
    return Effect.gen(function*() {
      const ksi = yield* Ksi
      const slow = yield* Effect.forkChild(ksi.call(Slow.events["shop:nothing"], {}))
      const fast = yield* Effect.forkChild(Effect.flip(ksi.call(Fast.events["shop:wait"], { millis: 1 })))
      yield* TestClock.adjust("2 seconds")
      expect(yield* Fiber.join(slow)).toBeUndefined()
      expect(yield* Fiber.join(fast)).toMatchObject(exceeded)
    }).pipe(Effect.provide(served))
  })
})

describe("idempotency", () => {
  const once = Middleware.use(Builtin.idempotency)
  const buy = (n: number, idempotencyKey?: string) =>
    Effect.flatMap(Ksi, (ksi) => ksi.dispatch("shop:buy", { n }, idempotencyKey === undefined ? {} : { idempotencyKey }))

  it.effect("the same key runs once: the same reply, the same declared error; without a key all run", () => {
    const seen = { runs: 0 }
    return Effect.gen(function*() {
      const first = { kind: "value", value: { run: 1, at: "1970-01-01T00:00:00.001Z" } }
      expect(yield* buy(1, "a")).toEqual(first)
      expect(yield* buy(1, "a")).toEqual(first)
      const refused = yield* Effect.flip(buy(-1, "b"))
      expect(refused).toMatchObject({ _tag: "DeclaredFailure", error: { _tag: "SoldOut", at: "1970-01-01T00:00:00.002Z" } })
      expect(yield* Effect.flip(buy(-1, "b"))).toEqual(refused)
      expect(seen.runs).toBe(2)
      expect(yield* Effect.flip(buy(2, "a"))).toMatchObject({ reason: { _tag: "IdempotencyConflict", event: "shop:buy", key: "a" } })
      yield* buy(1)
      yield* buy(1)
      expect(seen.runs).toBe(4)
      const ksi = yield* Ksi
      for (const _ of [1, 2]) {
        expect(yield* ksi.dispatch("shop:nothing", {}, { idempotencyKey: "a" })).toEqual({ kind: "value", value: undefined })
      }
      expect(seen.runs).toBe(5)
    }).pipe(Effect.provide(world(once, seen)))
  })

  it.effect("a fact is said once", () =>
    Effect.gen(function*() {
      const ksi = yield* Ksi
      const first = yield* ksi.dispatch("shop:sold", { n: 1 }, { idempotencyKey: "a" })
      expect(first).toMatchObject({ kind: "fact", position: 1, version: 1 })
      expect(yield* ksi.dispatch("shop:sold", { n: 1 }, { idempotencyKey: "a" })).toEqual(first)
      expect((yield* ksi.emit(Sold, { n: 1 })).position).toBe(2n)
    }).pipe(Effect.provide(world(once))))

  it.effect("a handler inside sees what went out before: values, not JSON", () => {
    const ends: Array<Exit.Exit<unknown, unknown>> = []
    const Kept = Builtin.record((_, exit) => void ends.push(exit))
    const layers = Layer.effectDiscard(Effect.andThen(Layer.build(Middleware.use(Kept)), Layer.build(once)))
    return Effect.gen(function*() {
      for (const n of [1, 1, -1, -1]) yield* Effect.exit(buy(n, `${n}`))
      expect(ends).toEqual([1, 1].map((run) => Exit.succeed({ run, at: new Date(run) })).concat(
        [2, 2].map((run) => Exit.fail(new SoldOut({ at: new Date(run) }))) as never
      ))
    }).pipe(Effect.provide(world(layers)))
  })

  it.effect("who comes while it runs waits; an interrupted run leaves nothing", () => {
    const seen = { runs: 0 }
    const wait = Effect.flatMap(Ksi, (ksi) => ksi.dispatch("shop:wait", { millis: 40 }, { idempotencyKey: "w" }))
    return Effect.gen(function*() {
      const first = yield* Effect.forkChild(wait, { startImmediately: true })
      const second = yield* Effect.forkChild(wait, { startImmediately: true })
      yield* TestClock.adjust(20)
      yield* Fiber.interrupt(first)
      yield* TestClock.adjust(20)
      expect(second.pollUnsafe()).toBeUndefined()
      yield* TestClock.adjust(20)
      expect(yield* Fiber.join(second)).toEqual({ kind: "value", value: undefined })
      expect(seen.runs).toBe(2)
      yield* wait
      expect(seen.runs).toBe(2)
    }).pipe(Effect.provide(world(once, seen)))
  })

  it.effect("a defect and a middleware's refusal are not kept", () => {
    const seen = { runs: 0 }
    let open = false
    const Gate = Middleware.make("gate", {
      error: Forbidden,
      before: ({ metadata }) => open ? Effect.void : Effect.fail(new Forbidden({ who: metadata.principal }))
    })
    const layers = Layer.effectDiscard(Effect.andThen(Layer.build(once), Layer.build(Middleware.use(Gate))))
    return Effect.gen(function*() {
      expect(yield* Effect.flip(buy(1, "a"))).toMatchObject({ error: { _tag: "Forbidden", who: "owner" } })
      open = true
      expect(yield* buy(1, "a")).toMatchObject({ value: { run: 1 } })
      for (const runs of [2, 3]) {
        expect(Exit.hasDies(yield* Effect.exit(buy(0, "z")))).toBe(true)
        expect(seen.runs).toBe(runs)
      }
    }).pipe(Effect.provide(world(layers, seen)), Effect.provide(Logger.layer([])))
  })

  it.effect("two of them are one", () => {
    const seen = { runs: 0 }
    const twice = Layer.merge(once, Middleware.use(Builtin.idempotency))
    return Effect.gen(function*() {
      expect((yield* Router.Router).describe("shop:buy").middleware).toEqual(["idempotency", "idempotency"])
      expect(yield* buy(1, "a")).toMatchObject({ value: { run: 1 } })
      expect(yield* buy(1, "a")).toMatchObject({ value: { run: 1 } })
      expect(Exit.hasDies(yield* Effect.exit(buy(0, "z")))).toBe(true)
      expect(Exit.hasDies(yield* Effect.exit(buy(0, "z")))).toBe(true)
      expect(seen.runs).toBe(3)
    }).pipe(Effect.provide(world(twice, seen)), Effect.provide(Logger.layer([])))
  })

  it.live("a restart keeps replies and declared errors (SQLite)", () =>
    Effect.gen(function*() {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "ksi-once-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
      )
      const seen = { runs: 0 }
      const run = <A, E>(effect: Effect.Effect<A, E, Runtime>) =>
        Effect.provide(effect, world(once, seen, Ksi.layerSqlite({ filename: join(folder, "ksi.db") })), { local: true })
      const both = Effect.all([buy(1, "a"), Effect.flip(buy(-1, "b"))])
      const before = yield* run(both)
      expect(yield* run(both)).toEqual(before)
      expect(seen.runs).toBe(2)
      expect(yield* run(Effect.flip(buy(2, "a")))).toMatchObject({ reason: { _tag: "IdempotencyConflict" } })
    }))
})
