import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Logger, References, Stream, Tracer } from "effect"
import { TestConsole } from "effect/testing"
import * as Builtin from "../../src/bus/Builtin.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import * as Router from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as Logs from "../../src/server/Logs.ts"
import { keptSpans } from "../Spans.ts"

const Ask = Event.make("shop:ask")
const Inner = Event.make("shop:inner")
const Ticks = Event.make("shop:ticks", { stream: true })
const Die = Event.make("shop:die")
const Said = Event.fact("shop:said", { payload: {}, streamId: () => "shop" })
const Shop = EventGroup.make(Ask, Inner, Ticks, Die, Said)

const shop = Ksi.serve(Shop).pipe(Layer.provide(Shop.toLayer({
  *"shop:ask"() {
    const ksi = yield* Ksi
    yield* Effect.logInfo("before").pipe(Effect.annotateLogs({ mine: 1, event: "of mine" }))
    yield* Effect.orDie(ksi.call(Inner, {}))
    yield* Effect.logInfo("after")
    yield* Effect.forkChild(Effect.logInfo("forked"), { startImmediately: true })
    yield* Effect.orDie(ksi.emit(Said, {}))
  },
  "shop:inner": () => Effect.logInfo("inner"),
  "shop:ticks": () => Stream.fromEffect(Effect.logInfo("tick")),
  "shop:die": () => Effect.die(new Error("broken")),
  "shop:said": () => Effect.andThen(Effect.logInfo("reacting"), Effect.fail("no paper"))
})))

interface Line {
  readonly message: unknown
  readonly annotations: Readonly<Record<string, unknown>>
}

/** Runs in the shop; the lines that were written, by their message. */
const lines = <A, E>(run: Effect.Effect<A, E, Ksi | Router.Router>, isTraced: boolean, options?: { readonly spans?: boolean }) => {
  const written: Array<Line> = []
  const logger = Logs.labelled(Logger.map(Logger.formatStructured, ({ annotations, message }) => void written.push({ annotations, message })), options)
  const { spans, tracer } = keptSpans()
  return Effect.gen(function*() {
    yield* Effect.exit(run)
    yield* Effect.flatMap(Router.Router, ({ settled }) => settled)
    return { spans, of: (text: string) => written.find(({ message }) => [message].flat().some((part) => String(part).includes(text)))?.annotations }
  }).pipe(
    Effect.provide(shop.pipe(Layer.provideMerge(isTraced ? Middleware.use(Builtin.trace) : Layer.empty), Layer.provideMerge(Ksi.layerMemory))),
    Effect.provide(Logger.layer([logger])),
    Effect.provideService(Tracer.Tracer, tracer),
    Effect.provideService(References.MinimumLogLevel, "All")
  )
}

const ask = Effect.flatMap(Ksi, (ksi) => Effect.andThen(ksi.dispatch("shop:ask", {}), Effect.exit(ksi.dispatch("shop:die", {}))))

describe("a line", () => {
  it.effect("says which event it is of: a handler's, a nested one's, a fork's, a reaction's, the bus's own", () =>
    Effect.gen(function*() {
      const { of } = yield* lines(ask, false)
      const id = of("after")?.["id"]
      expect(of("after")).toEqual({ event: "shop:ask", id: expect.stringMatching(/^[0-9a-f-]{36}$/), correlationId: id })
      expect(of("inner")).toEqual({ event: "shop:inner", id: expect.not.stringMatching(String(id)), correlationId: id })
      expect(of("forked")).toEqual(of("after"))
      expect(of("reacting")).toMatchObject({ event: "shop:said", correlationId: id })
      expect(of("handler shop:said")).toMatchObject(of("reacting") ?? {})
      expect(of("died")).toMatchObject({ event: "shop:die" })
    }))

  it.effect("says which span, where it is traced, unless the logger does so itself", () =>
    Effect.gen(function*() {
      const { of, spans } = yield* lines(ask, true)
      const idsOf = (name: string) => {
        const span = spans.find((span) => span.name === name)
        return { trace_id: span?.traceId, span_id: span?.spanId }
      }
      expect(of("after")).toMatchObject(idsOf("shop:ask"))
      expect(of("inner")).toMatchObject(idsOf("shop:inner"))
      expect(of("reacting")).toMatchObject(idsOf("process shop:said"))
      expect(of("died")).toMatchObject(idsOf("shop:die"))
      const own = yield* lines(ask, true, { spans: false })
      expect(Object.keys(own.of("after") ?? {})).toEqual(["event", "id", "correlationId"])
    }))

  it.effect("says of itself what it will, and outside of events nothing", () =>
    Effect.gen(function*() {
      const { of } = yield* lines(Effect.andThen(ask, Effect.logInfo("outside").pipe(Effect.annotateLogs({ a: 1 }))), false)
      expect(of("before")).toMatchObject({ mine: 1, event: "of mine", correlationId: of("after")?.["correlationId"] })
      expect(of("outside")).toEqual({ a: 1 })
      const silent = yield* lines(Effect.withSpan(Effect.withTracerEnabled(Effect.withSpan(Effect.logInfo("silent"), "a"), false), "b"), false)
      expect(silent.of("silent")).toEqual({})
    }))

  it.effect("of a stream's handler too", () =>
    Effect.gen(function*() {
      const { of } = yield* lines(Effect.flatMap(Ksi, (ksi) => Stream.runDrain(ksi.stream(Ticks, {}))), true)
      expect(of("tick")).toMatchObject({ event: "shop:ticks", span_id: expect.any(String) })
    }))

  it.effect("for people on a terminal", () =>
    Effect.gen(function*() {
      yield* (yield* Ksi).call(Inner, {})
      const text = (yield* TestConsole.logLines).join("\n")
      for (const part of ["inner", "event:\nshop:inner", "correlationId:\n"]) expect(text).toContain(part)
    }).pipe(
      Effect.provide(shop.pipe(Layer.provideMerge(Ksi.layerMemory))),
      Effect.provide(Logger.layer([Logs.labelled(Logger.consolePrettyTty({ colors: false }))])),
      Effect.provide(TestConsole.layer)
    ))

  it.effect("in any form", () => {
    const texts: Array<string> = []
    const keep = (logger: Logger.Logger<unknown, string>) => Logs.labelled(Logger.map(logger, (text) => void texts.push(text)))
    return Effect.gen(function*() {
      yield* (yield* Ksi).call(Inner, {})
      expect(texts.map((text) => text.includes("shop:inner"))).toEqual([true, true])
    }).pipe(Effect.provide(shop.pipe(Layer.provideMerge(Ksi.layerMemory))), Effect.provide(Logger.layer([keep(Logger.formatJson), keep(Logger.formatLogFmt)])))
  })
})
