/**
 * What `/metrics` shows: the figures of a running daemon, as text that Prometheus reads; over OTLP they are the same.
 *
 * The rule: every series begins with `ksi_`, and labels are bounded: an event's name only where it is registered, `other`
 * for every name that is not. Nothing is computed for a figure before somebody reads it: the bus adds to counters of its
 * own (`bus/Meter.ts`), all else is asked of those who know it. Reading touches no disk.
 *
 * **Example**
 *
 * ```ts
 * const Main = Ksi.serve(Stock).pipe(
 *   Layer.provide(StockHandlers),
 *   Layer.provideMerge(Metrics.layer), Layer.provideMerge(Ksi.layerMemory), Layer.provide(Metrics.layerMeter)
 * )
 * const text = yield* Effect.andThen(program, Effect.flatMap(Metrics.Metrics, ({ text }) => text)).pipe(Effect.provide(Main))
 * text.split("\n").filter((line) => line.startsWith("ksi_requests_total"))
 * // ["ksi_requests_total{event=\"stock:reserve\",outcome=\"success\"} 1"]
 * ```
 *
 * **Gotchas** A series is there from its first count on. What a module counts with Effect's `Metric` is shown too, as
 * `ksi_app_…` where its name is not one of these: its labels are the module's own. The counters are the process's: they
 * begin at 0 with it.
 *
 * Source: Prometheus text exposition format 0.0.4; its conventions for names (base units, `_total`).
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import { monitorEventLoopDelay, performance } from "node:perf_hooks"
import { getHeapStatistics } from "node:v8"
import type { LetterReason } from "../bus/DeadLetters.ts"
import * as Meter from "../bus/Meter.ts"
import { Subscriptions } from "../bus/Subscription.ts"
import * as System from "../plugins/System.ts"
import { EventStore } from "../store/EventStore.ts"

/** One family of series, as the README lists them. */
export interface Family {
  readonly name: string
  readonly type: "counter" | "gauge" | "histogram"
  readonly labels: ReadonlyArray<string>
  readonly description: string
}

const family = (type: Family["type"], name: string, description: string, ...labels: ReadonlyArray<string>): Family =>
  ({ name: `ksi_${name}`, type, labels, description })

/** Every family that KSI itself shows. */
export const families = {
  requests: family("counter", "requests_total", "Requests that have ended, by how they did", "event", "outcome"),
  duration: family("histogram", "request_duration_seconds", "How long requests took", "event"),
  facts: family("counter", "facts_total", "Facts that were said here and stored; imported ones are not counted", "event"),
  position: family("gauge", "store_position", "The last position of the store"),
  connections: family("gauge", "connections", "Open connections"),
  subscriptions: family("gauge", "subscriptions", "Open subscriptions"),
  letters: family("counter", "dead_letters_total", "Reactions that failed or were given up", "reason"),
  lettersLost: family("counter", "dead_letters_lost", "dead letters that could not be written"),
  activityLost: family("counter", "activity_lost", "requests that the activity journal could not write"),
  delay: family("gauge", "event_loop_delay_seconds", "How late the event loop was within the last one to two minutes", "quantile"),
  busy: family("counter", "event_loop_busy_seconds_total", "How long the event loop had something to do"),
  resident: family("gauge", "resident_memory_bytes", "Memory of the process"),
  heap: family("gauge", "heap_used_bytes", "Of it, what JavaScript's objects use"),
  uptime: family("gauge", "uptime_seconds", "How long the daemon has been running"),
  build: family("gauge", "build_info", "1, with what is running", "version")
} as const

/** The figures, as text. */
export class Metrics extends Context.Service<Metrics, {
  /** All series, in Prometheus' text format; its media type is `contentType`. Never fails. */
  readonly text: Effect.Effect<string>
}>()("ksi/server/Metrics") {}

/**
 * What is done with the figures before they are gone: whoever sends them somewhere sends the last ones. Must end in time.
 */
export const AtEnd: Context.Reference<Effect.Effect<void>> = Context.Reference<Effect.Effect<void>>("ksi/server/Metrics/AtEnd", {
  defaultValue: () => Effect.void
})

/** The media type of `text`. */
export const contentType = "text/plain; version=0.0.4; charset=utf-8"

// ------------------------------------------------------------------------------------------------------------ counting

type Register = <Input, State>(metric: Metric.Metric<Input, State>, get: () => State) => void

/** Registers series whose figures are asked for when somebody reads them, until the scope closes. */
const makeRegister: Effect.Effect<Register, never, Scope.Scope> = Effect.gen(function*() {
  const registered: Array<Metric.Registration> = []
  const context = yield* Effect.context<never>()
  yield* Effect.addFinalizer(() => Effect.sync(() => registered.forEach(({ remove }) => remove())))
  return (metric, get) => {
    registered.push(Metric.registerUnsafe(metric, context, { get, update: () => {}, modify: () => {} }))
  }
})

const counter = ({ description, name }: Family, attributes: Readonly<Record<string, string>> = {}) =>
  Metric.counter(name, { description, attributes, incremental: true })

const gauge = ({ description, name }: Family, attributes: Readonly<Record<string, string>> = {}) =>
  Metric.gauge(name, { description, attributes })

const secondsOf = (millis: number): number => Number((millis / 1000).toPrecision(12))
const bounds = Meter.boundaries.map(secondsOf)

/** A tally's durations, as the histogram of Effect's that they are. */
const histogramOf = ({ buckets, sum }: Meter.Tally): Metric.HistogramState => {
  let count = 0
  const within = bounds.map((bound, at): [number, number] => [bound, count += buckets[at] ?? 0])
  count += buckets[bounds.length] ?? 0
  // Nobody keeps the extremes: what is shown of them are the bounds that they are within.
  const least = within.find(([, n]) => n > 0)?.[0] ?? 0
  const most = within.find(([, n]) => n === count)?.[0] ?? bounds.at(-1) ?? 0
  return { buckets: within, count, min: least, max: most, sum: secondsOf(sum) }
}

/** Shows a series of an event from its first count on; its durations with the first of them. */
const show = (register: Register) => {
  const timed = new WeakSet<Meter.Tally>()
  return (tally: Meter.Tally, series: Meter.Series): void => {
    const { event } = tally
    if (series === "facts") return register(counter(families.facts, { event }), () => ({ count: tally.facts, incremental: true }))
    register(counter(families.requests, { event, outcome: series }), () => ({ count: tally[series], incremental: true }))
    if (event === Meter.other || timed.has(tally)) return
    timed.add(tally)
    const { description, name } = families.duration
    register(Metric.histogram(name, { description, attributes: { event }, boundaries: bounds }), () => histogramOf(tally))
  }
}

const showLetters = (register: Register) => {
  const counts = new Map<LetterReason, number>()
  return (reason: LetterReason): void => {
    const before = counts.get(reason) ?? 0
    counts.set(reason, before + 1)
    if (before === 0) register(counter(families.letters, { reason }), () => ({ count: counts.get(reason) ?? 0, incremental: true }))
  }
}

/** Lets the routers that are made over it count, until it closes. */
export const layerMeter: Layer.Layer<never> = Layer.effect(
  Meter.Current,
  Effect.map(makeRegister, (register) => Meter.make(show(register), showLetters(register)))
)

// ------------------------------------------------------------------------------------------------------------- looking

const resolutionMillis = 20

/** How late the event loop is: the greater of this minute's figure and of the last one's, whoever reads it how often. */
const makeDelays = Effect.gen(function*() {
  const monitor = yield* Effect.acquireRelease(
    Effect.sync(() => monitorEventLoopDelay({ resolution: resolutionMillis })),
    (monitor) => Effect.sync(() => monitor.disable())
  )
  monitor.enable()
  // What is measured is the time between two looks; that there is one each 20 ms is no delay.
  const secondsOver = (nanos: number): number => Math.max(0, nanos / 1e9 - resolutionMillis / 1000)
  const look = (): readonly [p50: number, p99: number, max: number] => monitor.count === 0 ? [0, 0, 0]
    : [secondsOver(monitor.percentile(50)), secondsOver(monitor.percentile(99)), secondsOver(monitor.max)]
  let before = look()
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep("1 minute"), Effect.sync(() => {
    before = look()
    monitor.reset()
  }))))
  return (at: 0 | 1 | 2): number => Math.max(look()[at], before[at])
})

const make = Effect.gen(function*() {
  const register = yield* makeRegister
  const info = yield* System.Info
  const store = yield* EventStore
  const subscriptions = yield* Subscriptions
  const clock = yield* Clock.Clock
  const startedAt = clock.monotonicTimeNanosUnsafe()
  const delay = yield* makeDelays

  const read = (family: Family, get: () => number, attributes?: Readonly<Record<string, string>>) =>
    register(gauge(family, attributes), () => ({ value: get() }))
  read(families.position, store.head)
  const { connections, memoryBytes } = info
  if (connections !== undefined) read(families.connections, connections)
  if (memoryBytes !== undefined) read(families.resident, memoryBytes)
  read(families.subscriptions, subscriptions.count)
  read(families.delay, () => delay(0), { quantile: "0.5" })
  read(families.delay, () => delay(1), { quantile: "0.99" })
  read(families.delay, () => delay(2), { quantile: "1" })
  register(counter(families.busy), () => ({ count: performance.eventLoopUtilization().active / 1000, incremental: true }))
  read(families.heap, () => getHeapStatistics().used_heap_size)
  read(families.uptime, () => Number(clock.monotonicTimeNanosUnsafe() - startedAt) / 1e9)
  read(families.build, () => 1, { version: info.version })

  const atEnd = yield* AtEnd
  yield* Effect.addFinalizer(() => atEnd)

  // Few are ever asked: who is loads the writer, and with it a server's router.
  const context = yield* Effect.context<never>()
  const writer = yield* Effect.cached(Effect.promise(() => import("effect/observability/PrometheusMetrics")))
  return Metrics.of({
    // Of the registry that it was built with, whoever asks.
    text: Effect.map(writer, ({ formatUnsafe }) => formatUnsafe(context, { metricNameMapper: nameOf }))
  })
})

/** What a series is called here: a module's own begins with `ksi_` as well. */
const nameOf = (name: string): string => name.startsWith("ksi_") ? name : `ksi_app_${name}`

/** The figures of the runtime that it is built over; those of events where that was built over `layerMeter`. */
export const layer: Layer.Layer<Metrics, never, EventStore | Subscriptions> = Layer.effect(Metrics, make)
