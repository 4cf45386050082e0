import { describe, expect, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Logger, Metric, Random, Redacted, References, Tracer } from "effect"
import { TestClock } from "effect/testing"
import * as Telemetry from "../../src/server/Telemetry.ts"
import { type Answer, Collector } from "./Collector.ts"

const collector = Effect.acquireRelease(Effect.promise(() => Collector.start()), (each) => Effect.promise(() => each[Symbol.asyncDispose]()))

const options = ({ url: endpoint }: { readonly url: string }, more: Partial<Telemetry.Options> = {}): Telemetry.Options => ({
  endpoint, format: "json", headers: Redacted.make("authorization=Bearer%20s3cret"), serviceName: "shop", serviceVersion: "1.2.3",
  attributes: "deployment.environment.name=test%20bed", intervalMillis: 25, ...more
})

/** Lines for people, and a registry of its own. */
const world = () => {
  const lines: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
  const layer = Layer.merge(Logger.layer([logger]), Layer.succeed(Metric.MetricRegistry, new Map()))
  return { lines, layer, told: () => lines.filter((line) => line.includes("telemetry")) }
}

const work = Effect.gen(function*() {
  yield* Effect.withSpan(Effect.logInfo("worked"), "work")
  yield* Metric.update(Metric.counter("ksi_worked"), 1)
})

const soon = (condition: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => condition() ? Effect.void : Effect.andThen(Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 5))), soon(condition)))

describe("what is sent", () => {
  it.live("spans, lines and metrics, with the resource and the headers; the rest when it closes", () =>
    Effect.gen(function*() {
      const to = yield* collector
      const { layer, lines } = world()
      yield* Effect.provide(work, Telemetry.layer(options(to, { intervalMillis: 60_000 }))).pipe(Effect.provide(layer))
      expect(lines).toEqual(["Info worked"])
      expect(to.received.map(({ path }) => path).toSorted()).toEqual(["/v1/logs", "/v1/metrics", "/v1/traces"])
      const [span] = to.spans
      const [line] = to.lines
      expect([span?.name, line?.body.stringValue, line?.traceId, line?.spanId]).toEqual(["work", "worked", span?.traceId, span?.spanId])
      expect(to.metrics.map(({ name }) => name)).toEqual(["ksi_worked"])
      for (const { headers, text } of to.received) {
        expect([headers.authorization, headers["content-type"]]).toEqual(["Bearer s3cret", "application/json"])
        expect(text).not.toContain("s3cret")
        for (const part of ["\"shop\"", "\"1.2.3\"", "\"deployment.environment.name\"", "\"test bed\""]) expect(text).toContain(part)
      }
    }))

  it.live("as protobuf", () =>
    Effect.gen(function*() {
      const to = yield* collector
      yield* Effect.provide(work, Telemetry.layer(options(to, { format: "protobuf", headers: undefined, attributes: "" }))).pipe(Effect.provide(world().layer))
      expect(new Set(to.received.map(({ headers }) => headers["content-type"]))).toEqual(new Set(["application/x-protobuf"]))
      // The first field of each is a message: what it wraps begins with the resource.
      for (const { text } of to.received) expect([text.charCodeAt(0), text.includes("service.name"), text.includes("shop")]).toEqual([10, true, true])
    }))

  it.live("of the traces that begin here as many as one wants, each whole; of others all that are recorded", () =>
    Effect.gen(function*() {
      const to = yield* collector
      const outside = (sampled: boolean) => Tracer.externalSpan({ traceId: "a".repeat(32), spanId: "b".repeat(16), sampled })
      yield* Effect.gen(function*() {
        for (let n = 0; n < 400; n++) yield* Effect.withSpan(Effect.withSpan(Effect.void, "inner"), "outer")
        for (const sampled of [true, false]) yield* Effect.withSpan(Effect.void, "from outside", { parent: outside(sampled) })
      }).pipe(Effect.provide(Telemetry.layer(options(to, { traceShare: 0.25 }))), Effect.provide(world().layer), Random.withSeed("share"))
      const named = (name: string) => to.spans.filter((span) => span.name === name)
      expect(named("outer").length).toBeGreaterThan(60)
      expect(named("outer").length).toBeLessThan(140)
      expect(named("inner").map(({ parentSpanId }) => parentSpanId)).toEqual(named("outer").map(({ spanId }) => spanId))
      expect(named("from outside")).toHaveLength(1)
    }))

  it.live("nothing that the environment would add", () => {
    const env = { OTEL_RESOURCE_ATTRIBUTES: "a=%zz", OTEL_SERVICE_NAME: "other", OTEL_EXPORTER_OTLP_HEADERS: "x=1" }
    return Effect.gen(function*() {
      const to = yield* collector
      yield* Effect.provide(work, Telemetry.layer(options(to))).pipe(Effect.provide(world().layer))
      expect(to.spans).toHaveLength(1)
      expect(to.received.every(({ headers, text }) => headers["x"] === undefined && !text.includes("other"))).toBe(true)
    }).pipe(Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env })))
  })
})

describe("a collector that does not take it", () => {
  const answers: Readonly<Record<string, Answer>> = {
    "with 500": (_, response) => void response.writeHead(500).end("<html>no</html>"),
    "with 404": (_, response) => void response.writeHead(404).end(),
    "with a redirect": ({ path }, response) => void response.writeHead(307, { location: `/elsewhere${path}` }).end(),
    "by hanging up": (_, response) => void response.destroy()
  }
  for (const [how, answer] of Object.entries(answers)) {
    it.live(`is told of once, and asked at most twice for a batch (${how})`, () =>
      Effect.gen(function*() {
        const to = yield* collector
        to.answer = answer
        const { layer, told } = world()
        yield* Effect.gen(function*() {
          yield* work
          yield* soon(() => told().length > 0 && ["traces", "logs", "metrics"].every((signal) => to.received.some(({ path }) => path.includes(signal))))
          for (let n = 0; n < 20; n++) yield* work
          yield* Effect.sleep(100)
        }).pipe(Effect.provide(Telemetry.layer(options(to))), Effect.provide(layer))
        expect(told()).toEqual([expect.stringMatching(/^Warn telemetry does not reach http:\/\/127\.0\.0\.1:\d+: .+; until it does, it is dropped$/)])
        expect(to.received.length).toBeLessThanOrEqual(6)
        expect(to.received.filter(({ path }) => path.startsWith("/elsewhere"))).toEqual([])
      }))
  }

  it.live("holds nothing up, and no more than so many batches are on their way", () =>
    Effect.gen(function*() {
      const to = yield* collector
      to.answer = () => {}
      const { layer, told } = world()
      const started = performance.now()
      yield* Effect.gen(function*() {
        for (let n = 0; n < 50_000; n++) yield* Effect.withSpan(Effect.void, "work", { captureStackTrace: false })
        yield* soon(() => told().length > 0)
      }).pipe(Effect.provide(Telemetry.layer(options(to, { intervalMillis: 60_000 }))), Effect.provide(layer))
      expect(to.most).toBeLessThanOrEqual(Telemetry.maxInFlight)
      expect(to.received.length).toBeLessThanOrEqual(Telemetry.maxInFlight)
      expect(told()).toHaveLength(1)
      expect(performance.now() - started).toBeLessThan(5000)
    }))

  it.live("answers without end, or garbage: what counts is that it took it", () =>
    Effect.gen(function*() {
      const to = yield* collector
      to.answer = (_, response) => {
        response.writeHead(200).write("{".repeat(100_000))
        const more = setInterval(() => response.write("garbage".repeat(10_000)), 1)
        response.on("close", () => clearInterval(more))
      }
      const { layer, told } = world()
      yield* Effect.gen(function*() {
        for (let n = 0; n < 3; n++) {
          yield* work
          const before = to.received.length
          yield* soon(() => to.received.length > before + 2)
          // Nobody reads on.
          yield* soon(() => to.open === 0)
        }
      }).pipe(Effect.provide(Telemetry.layer(options(to))), Effect.provide(layer))
      expect(told()).toEqual([])
    }))

  it.effect("is tried again after a minute, and a line says that it is well again", () =>
    Effect.gen(function*() {
      const to = yield* collector
      const { layer, told } = world()
      let status = 500
      to.answer = (_, response) => void response.writeHead(status).end()
      const traces = () => to.received.filter(({ path }) => path === "/v1/traces").length
      yield* Effect.gen(function*() {
        yield* Effect.withSpan(Effect.void, "lost")
        yield* TestClock.adjust(5000)
        yield* soon(() => told().length === 1 && to.open === 0)
        yield* Effect.withSpan(Effect.void, "lost")
        yield* TestClock.adjust(30_000)
        status = 200
        yield* TestClock.adjust(35_000)
        yield* Effect.withSpan(Effect.void, "found")
        yield* TestClock.adjust(10_000)
        yield* soon(() => told().length === 2)
      }).pipe(Effect.provide(Telemetry.layer(options(to, { intervalMillis: 5000 }))), Effect.provide(layer))
      expect(told()[1]).toMatch(/^Info telemetry reaches http:\/\/127\.0\.0\.1:\d+ again$/)
      expect(traces()).toBe(2)
      expect(to.spans.map(({ name }) => name)).toEqual(["lost", "found"])
    }).pipe(Effect.provideService(References.MinimumLogLevel, "Info")))
})
