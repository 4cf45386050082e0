// One trace from a client over a real socket through handlers, facts and what those cause, into the store and out again
// after a restart; and on to the next daemon, also where nobody makes spans.
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Option, Schema, Stream, Tracer } from "effect"
import * as Path from "node:path"
import * as Builtin from "../../src/bus/Builtin.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import * as Router from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Client from "../../src/wire/Client.ts"
import * as Control from "../../src/wire/Control.ts"
import * as Listener from "../../src/wire/Listener.ts"
import { folder, Plain } from "../wire/Daemon.ts"
import { keptSpans } from "../Spans.ts"

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
const spanId = "00f067aa0ba902b7"
const traceparent = `00-${traceId}-${spanId}-01`

/** A tracer that keeps what it is given. */
const kept = () => {
  const { spans, tracer } = keptSpans()
  const named = (name: string) => {
    const found = spans.filter((span) => span.name === name)
    expect(found.length, `spans called ${name}`).toBe(1)
    return found[0] as Tracer.NativeSpan
  }
  return {
    spans,
    named,
    layer: Layer.succeed(Tracer.Tracer, tracer),
    /** The name of the span above, or its id where it is another process's. */
    above: (name: string): string | undefined => {
      const parent = Option.getOrUndefined(named(name).parent)
      return parent && (spans.find((span) => span.spanId === parent.spanId)?.name ?? parent.spanId)
    }
  }
}

const Order = Event.make("shop:order", { payload: { sku: Schema.String } })
const Reserve = Event.make("shop:reserve", { payload: { sku: Schema.String } })
const Ship = Event.make("shop:ship", { payload: { sku: Schema.String } })
const Ordered = Event.fact("shop:ordered", { payload: { sku: Schema.String }, streamId: ({ sku }) => sku })
const Shipped = Event.fact("shop:shipped", { payload: { sku: Schema.String }, streamId: ({ sku }) => sku })
const Seen = Event.make("shop:seen", { success: Schema.Array(Schema.UndefinedOr(Schema.String)) })
const Shop = EventGroup.make(Order, Reserve, Ship, Ordered, Shipped, Seen)

const handlers = (seen: Array<string | undefined>) => Shop.toLayer({
  *"shop:order"({ sku }, { metadata }) {
    seen.push(metadata.traceparent, metadata.tracestate)
    const ksi = yield* Ksi
    yield* Effect.orDie(Effect.withSpan(ksi.call(Reserve, { sku }), "work"))
    yield* Effect.orDie(ksi.emit(Ordered, { sku }))
  },
  "shop:reserve": () => Effect.void,
  "shop:ship": () => Effect.void,
  *"shop:ordered"({ sku }) {
    yield* Effect.sleep(1)
    yield* Effect.withSpan(Effect.void, "react")
    const ksi = yield* Ksi
    yield* ksi.call(Ship, { sku })
    yield* ksi.emit(Shipped, { sku })
  },
  "shop:seen": () => Effect.sync(() => seen.splice(0))
})

const traced = Middleware.use(Builtin.trace)

/** The shop behind a socket, in the scope of the test. */
const daemon = Effect.fnUntraced(function*(options: {
  readonly runtime?: Layer.Layer<Runtime, KsiError>
  readonly middleware?: Layer.Layer<never, KsiError, Runtime>
  readonly tracer?: Layer.Layer<never>
} = {}) {
  const path = Path.join(yield* folder, "run", "daemon.sock")
  const { middleware = traced, runtime = Ksi.layerMemory, tracer = Layer.empty } = options
  const served = Layer.mergeAll(Ksi.serve(Shop).pipe(Layer.provide(handlers([]))), Control.layer, middleware, Listener.layerUnix({ path }))
  const context = yield* Layer.build(served.pipe(Layer.provideMerge(runtime), Layer.provide(tracer)))
  return { path, context, settled: Effect.flatMap(Router.Router, ({ settled }) => settled).pipe(Effect.provideContext(context)) }
})

describe("over the socket", () => {
  it.live("client, daemon, handler, nested call, fact, fact handler and what it causes are one trace", () =>
    Effect.gen(function*() {
      const there = kept()
      const here = kept()
      const { context, path, settled } = yield* daemon({ tracer: there.layer })
      const client = yield* Client.connect({ url: path })
      yield* Effect.withSpan(client.call("shop:order", { sku: "tea" }), "program").pipe(Effect.provide(here.layer))
      yield* settled
      const { above, named, spans } = there
      const program = here.named("program")
      expect(above("shop:order")).toBe(program.spanId)
      expect([above("work"), above("shop:ordered")]).toEqual(["shop:order", "shop:order"])
      expect(above("shop:reserve")).toBe("work")
      expect(above("process shop:ordered")).toBe("shop:ordered")
      expect([above("react"), above("shop:ship"), above("shop:shipped")]).toEqual(Array.from({ length: 3 }, () => "process shop:ordered"))
      expect(new Set(spans.map((span) => span.traceId))).toEqual(new Set([program.traceId]))
      expect(spans.every(({ sampled, status }) => sampled && status._tag === "Ended")).toBe(true)
      const facts = yield* Effect.flatMap(EventStore, (store) => store.read({ from: 1, limit: 9 })).pipe(Effect.provideContext(context))
      expect(facts.map(({ attributes, name }) => [name, attributes["traceparent"]])).toEqual(
        ["shop:ordered", "shop:shipped"].map((name) => [name, `00-${program.traceId}-${named(name).spanId}-01`])
      )
    }))

  it.live("a line's traceparent is honoured, sampled or not, with its tracestate; a malformed one starts a trace", () =>
    Effect.gen(function*() {
      const there = kept()
      const { path, settled } = yield* daemon({ tracer: there.layer })
      const plain = yield* Plain.connect(path)
      const ask = (fields: object) => plain.ask({ event: "shop:order", data: { sku: "tea" }, ...fields })
      const roots = () => there.spans.filter(({ name }) => name === "shop:order")
      for (const flags of ["01", "00"]) {
        there.spans.length = 0
        expect((yield* ask({ traceparent: `00-${traceId}-${spanId}-${flags}`, tracestate: "rojo=1,congo=2" })).ok).toBe(true)
        yield* settled
        expect(there.spans.length).toBe(8)
        expect(there.spans.every((span) => span.traceId === traceId && span.sampled === (flags === "01"))).toBe(true)
        expect(there.above("shop:order")).toBe(spanId)
        expect((yield* plain.ask({ event: "shop:seen" })).data.result).toEqual([`00-${traceId}-${spanId}-${flags}`, "rojo=1,congo=2"])
      }
      for (const junk of ["00-1", traceparent.toUpperCase(), `${traceparent}-more`, 7, null, {}, [traceparent], "0".repeat(100_000)]) {
        there.spans.length = 0
        expect(yield* ask({ traceparent: junk, tracestate: junk })).toMatchObject({ ok: true, data: { status: "success" } })
        yield* settled
        expect(roots()[0]?.parent).toEqual(Option.none())
        expect(new Set(there.spans.map((span) => span.traceId))).toEqual(new Set([roots()[0]?.traceId]))
        expect((yield* plain.ask({ event: "shop:seen" })).data.result).toEqual([null, null])
      }
    }))

  it.live("concurrent requests of one connection do not mix", () =>
    Effect.gen(function*() {
      const there = kept()
      const { path } = yield* daemon({ tracer: there.layer })
      const client = yield* Client.connect({ url: path })
      const ids = Array.from({ length: 50 }, (_, n) => (n + 1).toString(16).padStart(32, "0"))
      yield* Effect.forEach(ids, (id) => client.call("shop:order", { sku: id }, { traceparent: `00-${id}-${spanId}-01` }), { concurrency: "unbounded" })
      for (const id of ids) {
        const own = there.spans.filter((span) => span.traceId === id && span.name !== "react" && !span.name.startsWith("shop:ship"))
        expect(own.map(({ name }) => name)).toEqual(["shop:order", "work", "shop:reserve", "shop:ordered", "process shop:ordered"])
      }
    }))
})

describe("the client", () => {
  const sentBy = Effect.fnUntraced(function*<E>(use: (client: Client.Client["Service"]) => Effect.Effect<unknown, E>) {
    const { path } = yield* daemon({ middleware: Layer.empty })
    const client = yield* Client.connect({ url: path })
    yield* use(client)
    return (yield* client.call("shop:seen", {}, { traceparent })).data["result"]
  })
  const order = (client: Client.Client["Service"], options?: Client.CallOptions) => client.call("shop:order", { sku: "tea" }, options)

  it.live("sends the current span's, or what it is told, or nothing", () =>
    Effect.gen(function*() {
      expect(yield* sentBy((client) => order(client))).toEqual([null, null])
      expect(yield* sentBy((client) => order(client, { traceparent, tracestate: "a=1" }))).toEqual([traceparent, "a=1"])
      const here = kept()
      const within = <A, E>(effect: Effect.Effect<A, E>) => Effect.withSpan(effect, "program", { sampled: false }).pipe(Effect.provide(here.layer))
      expect(yield* sentBy((client) => within(order(client)))).toEqual([`00-${here.named("program").traceId}-${here.named("program").spanId}-00`, null])
      // What is said outright goes before the span, and without the span's state.
      expect(yield* sentBy((client) => Effect.withSpan(order(client, { traceparent }), "other"))).toEqual([traceparent, null])
      expect(yield* sentBy((client) => Effect.withTracerEnabled(Effect.withSpan(order(client), "silent"), false))).toEqual([null, null])
    }))

  it.live("in a handler of another daemon that makes no spans it passes on what came in, to the letter", () =>
    Effect.gen(function*() {
      const there = kept()
      const last = yield* daemon({ tracer: there.layer })
      const client = yield* Client.connect({ url: last.path })
      const relay = Router.handle(Event.make("relay:order"), () => Effect.orDie(Effect.asVoid(order(client))))
      const first = yield* daemon({ middleware: relay })
      const outside = yield* Client.connect({ url: first.path })
      yield* outside.call("relay:order", {}, { traceparent, tracestate: "a=1" })
      expect(there.above("shop:order")).toBe(spanId)
      expect((yield* client.call("shop:seen", {})).data["result"]).toEqual([traceparent, "a=1"])
      there.spans.length = 0
      yield* outside.call("relay:order", {})
      expect(there.named("shop:order").parent).toEqual(Option.none())
    }))
})

describe("the store", () => {
  it.live("keeps a fact's trace over a restart; what comes later knows where it comes from", () =>
    Effect.gen(function*() {
      const filename = Path.join(yield* folder, "ksi.db")
      const there = kept()
      yield* Effect.scoped(Effect.gen(function*() {
        const { path, settled } = yield* daemon({ runtime: Ksi.layerSqlite({ filename }), tracer: there.layer })
        const client = yield* Client.connect({ url: path })
        yield* client.call("shop:order", { sku: "tea" }, { traceparent, tracestate: "a=1" })
        yield* settled
      }))
      const told = yield* Effect.scoped(Effect.gen(function*() {
        const { context } = yield* daemon({ runtime: Ksi.layerSqlite({ filename }) })
        return yield* Effect.flatMap(Ksi, (ksi) => Stream.runCollect(Stream.take(ksi.subscribe("shop:*", { from: "start" }), 2))).pipe(
          Effect.provideContext(context)
        )
      }))
      expect(told.map(({ metadata, name }) => [name, metadata.traceparent, metadata.tracestate])).toEqual(
        ["shop:ordered", "shop:shipped"].map((name) => [name, `00-${traceId}-${there.named(name).spanId}-01`, "a=1"])
      )
    }))

  it.live("without spans a fact carries the trace that it was asked for in, and its handlers stay in it", () =>
    Effect.gen(function*() {
      const there = kept()
      const { context, path, settled } = yield* daemon({ middleware: Layer.empty, tracer: there.layer })
      const client = yield* Client.connect({ url: path })
      yield* client.call("shop:ordered", { sku: "tea" }, { traceparent, tracestate: "a=1" })
      yield* settled
      const facts = yield* Effect.flatMap(EventStore, (store) => store.read({ from: 1, limit: 9 })).pipe(Effect.provideContext(context))
      expect(facts.map(({ attributes }) => [attributes["traceparent"], attributes["tracestate"]])).toEqual([[traceparent, "a=1"], [traceparent, "a=1"]])
      expect(there.spans.map(({ name }) => name)).toEqual(["react"])
      expect(there.above("react")).toBe(spanId)
    }))

  it.live("nobody traces: nothing is written", () =>
    Effect.gen(function*() {
      const { context, path, settled } = yield* daemon({ middleware: Layer.empty })
      const client = yield* Client.connect({ url: path })
      yield* Effect.forkChild(client.call("shop:ordered", { sku: "tea" })).pipe(Effect.flatMap(Fiber.join))
      yield* settled
      const facts = yield* Effect.flatMap(EventStore, (store) => store.read({ from: 1, limit: 9 })).pipe(Effect.provideContext(context))
      expect(facts.map(({ attributes }) => "traceparent" in attributes || "tracestate" in attributes)).toEqual([false, false])
    }))
})
