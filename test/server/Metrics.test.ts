import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Metric, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { Activity } from "../../src/bus/Activity.ts"
import { Router } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as System from "../../src/plugins/System.ts"
import * as Metrics from "../../src/server/Metrics.ts"
import { parse } from "./exposition.ts"

class SoldOut extends Schema.TaggedError<SoldOut>()("SoldOut", {}) {}
const Order = Event.make("shop:order", { payload: { n: Schema.Int }, error: SoldOut })
const Ticks = Event.make("shop:ticks", { success: Schema.Int, stream: true })
const Wait = Event.make("shop:wait", { payload: { millis: Schema.Int } })
const Ordered = Event.fact("shop:ordered", { payload: { n: Schema.Int }, streamId: () => "shop" })
const Shop = EventGroup.make(Order, Ticks, Wait, Ordered)

/** `n` < 0 is sold out, 0 a defect; the fact's handler fails. */
const shop = Ksi.serve(Shop).pipe(Layer.provide(Shop.toLayer({
  *"shop:order"({ n }) {
    if (n === 0) return yield* Effect.die(new Error("zero"))
    if (n < 0) return yield* new SoldOut()
    yield* Effect.orDie((yield* Ksi).emit(Ordered, { n }))
  },
  "shop:ticks": () => Stream.make(1, 2, 3),
  "shop:wait": ({ millis }) => Effect.sleep(millis),
  "shop:ordered": () => Effect.fail("no paper")
})))

const world = (audit: "all" | "off" = "all") =>
  shop.pipe(
    Layer.provideMerge(Metrics.layer.pipe(Layer.provide(Layer.succeed(System.Info, { version: "1.2.3", connections: () => 7, memoryBytes: () => 1000 })))),
    Layer.provideMerge(Ksi.layerMemoryWith({ audit })),
    Layer.provide(Metrics.layerMeter),
    Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map()))
  )

const read = Effect.map(Effect.flatMap(Metrics.Metrics, ({ text }) => text), parse)

const figure = (families: ReturnType<typeof parse>, name: string, labels: Record<string, string> = {}) =>
  families.get(name.replace(/_(bucket|sum|count)$/, ""))?.samples
    .find((sample) => sample.name === name && JSON.stringify(sample.labels) === JSON.stringify(labels))?.value

for (const audit of ["all", "off"] as const) {
  describe(`what is counted, with audit ${audit}`, () => {
    it.effect("requests by event and outcome, their durations, facts, dead letters", () =>
      Effect.gen(function*() {
        const ksi = yield* Ksi
        for (const n of [1, 2, 3]) yield* ksi.call(Order, { n })
        yield* Effect.exit(ksi.call(Order, { n: -1 }))
        yield* Effect.exit(ksi.call(Order, { n: 0 }))
        yield* ksi.dispatch("shop:order", { n: 4 })
        yield* Effect.exit(ksi.dispatch("shop:order", { n: "no number" }))
        yield* Stream.runDrain(ksi.stream(Ticks, {}))
        yield* Effect.flatMap(Router, ({ settled }) => settled)
        const families = yield* read
        const requests = (event: string, outcome: string) => figure(families, "ksi_requests_total", { event, outcome })
        expect([requests("shop:order", "success"), requests("shop:order", "failure"), requests("shop:order", "defect")]).toEqual([4, 2, 1])
        expect([requests("shop:ticks", "success"), requests("shop:ordered", "success")]).toEqual([1, undefined])
        expect(figure(families, "ksi_request_duration_seconds_count", { event: "shop:order" })).toBe(7)
        expect([figure(families, "ksi_facts_total", { event: "shop:ordered" }), figure(families, "ksi_store_position")]).toEqual([4, 4])
        expect(figure(families, "ksi_dead_letters_total", { reason: "failed" })).toBe(4)
        expect([figure(families, "ksi_connections"), figure(families, "ksi_resident_memory_bytes"), figure(families, "ksi_build_info", { version: "1.2.3" })])
          .toEqual([7, 1000, 1])
      }).pipe(Effect.provide(world(audit))))

    it.effect("how long they took, in the right bucket and in seconds", () =>
      Effect.gen(function*() {
        const ksi = yield* Ksi
        for (const millis of [10, 11, 700, 40_000]) {
          yield* Effect.all([ksi.call(Wait, { millis }), TestClock.adjust(millis)], { concurrency: 2 })
        }
        const families = yield* read
        const within = (le: string) => figure(families, "ksi_request_duration_seconds_bucket", { event: "shop:wait", le })
        expect(["0.005", "0.01", "0.025", "0.5", "1", "30", "+Inf"].map(within)).toEqual([0, 1, 2, 2, 3, 3, 4])
        expect(figure(families, "ksi_request_duration_seconds_sum", { event: "shop:wait" })).toBe(40.721)
        expect(figure(families, "ksi_uptime_seconds")).toBe(40.721)
      }).pipe(Effect.provide(world(audit))))
  })
}

describe("labels", () => {
  it.effect("10,000 names that are no events are one series", () =>
    Effect.gen(function*() {
      const ksi = yield* Ksi
      for (let n = 0; n < 10_000; n++) yield* Effect.exit(ksi.dispatch(`shop:${n}"\\\n`, {}, n % 2 === 0 ? {} : { principal: "stranger" }))
      const families = yield* read
      expect(figure(families, "ksi_requests_total", { event: "other", outcome: "failure" })).toBe(10_000)
      expect([...families.values()].reduce((sum, { samples }) => sum + samples.length, 0)).toBeLessThan(50)
    }).pipe(Effect.provide(world())))

  it.effect("every series begins with ksi_, has a type and says what it is, also a module's own", () =>
    Effect.gen(function*() {
      const ksi = yield* Ksi
      yield* ksi.call(Order, { n: 1 })
      yield* Effect.flatMap(Router, ({ settled }) => settled)
      yield* Metric.update(Metric.counter("tea sold", { description: "cups\nof \\ it" }).pipe(Metric.withAttributes({ "the sort": "a\"b\\c\nd" })), 3)
      const families = yield* read
      for (const [name, { samples }] of families) {
        expect(name).toMatch(/^ksi_[a-z][a-z_]*$/)
        expect(samples.length).toBeGreaterThan(0)
      }
      expect(figure(families, "ksi_app_tea_sold", { the_sort: "a\"b\\c\nd" })).toBe(3)
      // Each of its own is as it is declared; those of loss are there when something is lost.
      for (const { description, labels, name, type } of Object.values(Metrics.families)) {
        const found = families.get(name)
        if (name.endsWith("_lost")) continue
        expect([found?.type, found?.help], name).toEqual([type, description])
        for (const sample of found?.samples ?? []) expect(Object.keys(sample.labels).filter((label) => label !== "le"), name).toEqual(labels)
      }
      const known = new Set(Object.values(Metrics.families).map(({ name }) => name))
      expect([...families.keys()].filter((name) => !known.has(name))).toEqual(["ksi_app_tea_sold"])
    }).pipe(Effect.provide(world())))
})

describe("who does not count", () => {
  it.effect("pays nothing: without the meter no event has counters, and the rest is shown", () =>
    Effect.gen(function*() {
      yield* (yield* Ksi).call(Order, { n: 1 })
      const families = yield* read
      expect(families.has("ksi_requests_total")).toBe(false)
      expect(figure(families, "ksi_store_position")).toBe(1)
    }).pipe(Effect.provide(shop.pipe(
      Layer.provideMerge(Metrics.layer), Layer.provideMerge(Ksi.layerMemory), Layer.provide(Layer.succeed(Metric.MetricRegistry, new Map()))
    ))))

  it.effect("series are gone with the scope that they were made in", () => {
    const registry: Metric.MetricRegistry = new Map()
    return Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const main = shop.pipe(Layer.provideMerge(Metrics.layer), Layer.provideMerge(Ksi.layerMemory), Layer.provide(Metrics.layerMeter))
        const context = yield* Layer.build(main.pipe(Layer.provide(Layer.succeed(Metric.MetricRegistry, registry))))
        yield* Effect.provideContext(Effect.flatMap(Ksi, (ksi) => ksi.call(Wait, { millis: 0 })), context)
        expect(registry.size).toBeGreaterThan(9)
      }))
      expect([...registry.keys()]).toEqual([])
    })
  })

  it.effect("what is recorded of requests is what it was", () =>
    Effect.gen(function*() {
      const ksi = yield* Ksi
      yield* ksi.call(Order, { n: 1 })
      const { records } = yield* Effect.flatMap(Activity, (activity) => activity.query({ limit: 9 }))
      expect(records.map(({ name, outcome }) => [name, outcome])).toEqual([["shop:order", "success"]])
    }).pipe(Effect.provide(world())))
})

describe("the event loop", () => {
  it.live("what holds it up is seen", () =>
    Effect.gen(function*() {
      const turn = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))
      yield* Effect.promise(() => turn(100))
      const until = performance.now() + 150
      while (performance.now() < until);
      yield* Effect.promise(() => turn(50))
      const families = yield* read
      const delay = (quantile: string) => figure(families, "ksi_event_loop_delay_seconds", { quantile }) ?? NaN
      expect(delay("1")).toBeGreaterThan(0.1)
      expect(delay("0.5")).toBeLessThan(0.1)
      expect(figure(families, "ksi_event_loop_busy_seconds_total")).toBeGreaterThan(0.1)
    }).pipe(Effect.provide(world())))
})

describe("the README", () => {
  it("has the table of the series", () => {
    const readme = readFileSync(join(import.meta.dirname, "..", "..", "README.md"), "utf8")
    const rows = Object.values(Metrics.families).map(({ description, labels, name, type }) =>
      `| \`${name}\` | ${type} | ${labels.map((label) => `\`${label}\``).join(", ")} | ${description} |`)
    expect(readme).toContain(["| series | type | labels | what it is |", "| --- | --- | --- | --- |", ...rows].join("\n"))
  })
})
