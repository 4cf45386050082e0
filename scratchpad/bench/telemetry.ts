/**
 * What watching costs: local calls of one event, one after the other in one fiber, against the same with nothing on (`off`).
 *
 * `counted` is what every daemon does for `/metrics`: outcomes and durations of each event; `counted-unrecorded` the same
 * where the activity journal is off, so that nobody else looks at the clock. `traced` makes a span for each call that
 * nobody keeps, `unsampled` one of a trace that is not recorded, `otlp` sends all spans to a collector in another thread.
 * `nested` is a call that calls another and says a fact with a handler: four spans. `logged` writes a line for each call, to
 * nowhere, with its labels (`ksi`) and without (`off`).
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { once } from "node:events"
import { Worker } from "node:worker_threads"
import * as Builtin from "../../src/bus/Builtin.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import { Router } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import type { KsiError } from "../../src/event/KsiError.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import * as Logs from "../../src/server/Logs.ts"
import * as Metrics from "../../src/server/Metrics.ts"
import * as Telemetry from "../../src/server/Telemetry.ts"
import type { Bench, Subject } from "./Bench.ts"

const payload = { sku: Schema.String, quantity: Schema.Int }
const Order = Event.make("bench:order", { payload, success: Schema.Struct({ id: Schema.String }) })
const Basket = Event.make("bench:basket", { payload })
const Said = Event.make("bench:said", { payload })
const Ordered = Event.fact("bench:ordered", { payload, streamId: ({ sku }) => sku })
const group = EventGroup.make(Order, Basket, Said, Ordered)

const handlers = group.toLayer({
  *"bench:order"({ sku }) {
    return { id: yield* Effect.succeed(sku) }
  },
  *"bench:basket"({ quantity, sku }) {
    const ksi = yield* Ksi
    yield* Effect.orDie(ksi.call(Order, { sku, quantity }))
    yield* Effect.orDie(ksi.emit(Ordered, { sku, quantity }))
  },
  "bench:said": () => Effect.logInfo("said"),
  "bench:ordered": () => Effect.void
})

type Work = (ksi: Ksi["Service"], at: number) => Effect.Effect<unknown, unknown>
const order: Work = (ksi, at) => ksi.call(Order, { sku: "tea", quantity: at })
const basket: Work = (ksi, at) => ksi.call(Basket, { sku: `tea-${at & 63}`, quantity: at })
const said: Work = (ksi, at) => ksi.call(Said, { sku: "tea", quantity: at })
const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
const unsampled: Work = (ksi, at) => ksi.dispatch("bench:order", { sku: "tea", quantity: at }, { traceparent })

interface Options {
  readonly audit?: "all" | "off"
  readonly meter?: boolean
  readonly middleware?: Layer.Layer<never, KsiError, Runtime>
  readonly around?: Layer.Layer<never>
}

const traced: Options = { middleware: Middleware.use(Builtin.trace) }

/** What is compared, and how it ends. */
interface Measured extends Subject {
  readonly close: () => Promise<unknown>
}

const measured = async (name: string, work: Work, { around = Layer.empty, audit = "all", meter = false, middleware = Layer.empty }: Options): Promise<Measured> => {
  const main = Ksi.serve(group).pipe(
    Layer.provide(handlers), Layer.provideMerge(middleware), Layer.provideMerge(Ksi.layerMemoryWith({ audit })),
    Layer.provide(meter ? Metrics.layerMeter : Layer.empty), Layer.provideMerge(around)
  )
  const scope = Scope.makeUnsafe()
  const context = await Effect.runPromise(Layer.buildWithScope(main, scope))
  const ksi = Context.get(context, Ksi)
  const { settled } = Context.get(context, Router)
  const loop = Effect.fnUntraced(function*(millis: number) {
    const start = performance.now()
    let count = 0
    while (performance.now() - start < millis) {
      for (let i = 0; i < 64; i++, count++) yield* work(ksi, count)
      // As a server does between requests: spans leave, and what reacts has its turn.
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
    }
    yield* settled
    return { count, millis: performance.now() - start }
  })
  return { name, close: () => Effect.runPromise(Scope.close(scope, Exit.void)), run: (millis) => Effect.runPromiseWith(context)(loop(millis)) }
}

/** Spans that nobody keeps. */
const forgetting = Layer.succeed(Tracer.Tracer, Tracer.make({ span: (options) => new Tracer.NativeSpan(options) }))

/** A collector in a thread of its own: its address. */
const startCollector = async () => {
  const worker = new Worker(`
    const server = require("node:http").createServer((request, response) => request.resume().on("end", () => response.end()))
    server.listen(0, "127.0.0.1", () => require("node:worker_threads").parentPort.postMessage(server.address().port))
  `, { eval: true })
  const [port]: Array<unknown> = await once(worker, "message")
  return { url: `http://127.0.0.1:${String(port)}`, close: () => worker.terminate() }
}

/** All cases. */
export const run = async (bench: Bench): Promise<void> => {
  const compared = async (id: string, ksi: readonly [Work, Options], off: readonly [Work, Options]): Promise<void> => {
    const subjects = [await measured("ksi", ...ksi), await measured("off", ...off)] as const
    await bench.compare({ case: id, metric: "throughput", unit: "calls/s", subjects })
    for (const { close } of subjects) await close()
  }
  const collector = await startCollector()
  const otlp = Telemetry.layer({
    endpoint: collector.url, format: "json", headers: undefined, serviceName: "bench", serviceVersion: "0", attributes: ""
  })
  const writing = (labelled: boolean): Options => {
    const logger = Logger.map(Logger.formatJson, () => {})
    return { around: Logger.layer([labelled ? Logs.labelled(logger) : logger]) }
  }
  await compared("counted", [order, { meter: true }], [order, {}])
  await compared("counted-unrecorded", [order, { meter: true, audit: "off" }], [order, { audit: "off" }])
  await compared("traced", [order, { ...traced, around: forgetting }], [order, {}])
  await compared("unsampled", [unsampled, { ...traced, around: forgetting }], [unsampled, {}])
  await compared("otlp", [order, { ...traced, meter: true, around: otlp }], [order, {}])
  await compared("nested", [basket, { ...traced, meter: true, around: otlp }], [basket, {}])
  await compared("logged", [said, writing(true)], [said, writing(false)])
  await collector.close()
}
