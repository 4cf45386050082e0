import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { KsiService } from "../../src/bus/KsiService.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as Time from "../../src/plugins/Time.ts"
import { ask, cloudEvent, pagesOf, reasonOf, runtime, withRuntime } from "./Builtins.ts"

const give = (...events: ReadonlyArray<unknown>) =>
  Effect.map(ask("store:import", { events }), (reply) => expect(reply["rejections"]).toEqual([]))
const itemsOf = (payload: Record<string, unknown>) => Effect.map(pagesOf("time:at", payload), ({ items }) => items)

const history = give(
  cloudEvent(1, { type: "cart:opened", subject: "a", time: "2026-01-01T00:00:00Z", data: { by: "ann" } }),
  cloudEvent(2, { type: "cart:opened", subject: "b", time: "2026-01-02T00:00:00+01:00", data: { by: "bob" } }),
  cloudEvent(3, { type: "cart:paid", subject: "a", time: "2026-01-03T00:00:00Z", data: { paid: true } }),
  // It arrived late: it happened before the payment.
  cloudEvent(4, { type: "cart:note", subject: "a", time: "2026-01-02T12:00:00Z", data: "hi" })
)

describe("time:at", () => {
  it.effect("tells every stream at a position", () =>
    withRuntime(Effect.gen(function*() {
      yield* history
      expect(yield* itemsOf({ at: 2 })).toEqual([
        { streamId: "a", version: 1, lastEvent: "cart:opened", lastEventId: "1", timestamp: "2026-01-01T00:00:00Z", state: { by: "ann" } },
        { streamId: "b", version: 1, lastEvent: "cart:opened", lastEventId: "2", timestamp: "2026-01-02T00:00:00+01:00", state: { by: "bob" } }
      ])
      expect(yield* itemsOf({ at: "3", stream: "a" })).toMatchObject([{ version: 2, state: { by: "ann", paid: true } }])
      // A position that is not there yet is the present.
      expect(yield* itemsOf({ at: 900, stream: "a" })).toMatchObject([{ version: 3, state: { by: "ann", paid: true, value: "hi" } }])
    })))

  it.effect("tells what had happened by an instant, or what was stored by then", () =>
    withRuntime(Effect.gen(function*() {
      yield* history
      expect(yield* itemsOf({ at: "2026-01-02T18:00:00Z", stream: "a" })).toMatchObject([{ lastEventId: "4", state: { by: "ann", value: "hi" } }])
      expect(yield* itemsOf({ at: "2026-01-01" })).toMatchObject([{ streamId: "a", version: 1 }])
      expect(yield* itemsOf({ at: "2025-01-01T00:00:00Z" })).toEqual([])
      // The test clock stands at the beginning of 1970: that is when all of it was stored.
      expect(yield* itemsOf({ at: "1970-01-01T00:00:00Z", recorded: true })).toHaveLength(2)
    })))

  it.effect("walks pages of one moment while the store goes on, though nothing is kept of it", () =>
    Effect.gen(function*() {
      yield* give(...Array.from({ length: 20 }, (_, n) => cloudEvent(n, { subject: `s-${10 + n % 10}`, data: { n } })))
      let extra = 100
      const between = Effect.gen(function*() {
        yield* give(cloudEvent(++extra, { subject: "s-11", data: { extra } }), cloudEvent(++extra, { subject: `s-1${extra}` }))
        // Three other questions push the first out of the cache.
        for (const limit of [1, 2, 3]) yield* ask("time:at", { at: extra % 20 + limit, limit: 1 })
      })
      for (const at of [20, 900, "2030-01-01T00:00:00Z"]) {
        const before = (yield* EventStore.EventStore).head()
        const whole = yield* itemsOf({ at })
        const { items, pages } = yield* pagesOf("time:at", { at, limit: 3 }, between)
        expect(items).toEqual(whole)
        expect(pages).toBe(Math.ceil(whole.length / 3))
        expect((yield* EventStore.EventStore).head()).toBeGreaterThan(before)
      }
    }).pipe(Effect.provide(runtime())))

  it.effect("what a deleted stream said is on no later page, though the answer was worked out before", () =>
    withRuntime(Effect.gen(function*() {
      yield* give(...["a", "b", "c"].map((subject, n) => cloudEvent(n + 1, { subject, data: { secret: subject } })))
      const store = yield* EventStore.EventStore
      for (const [event, payload] of [["time:at", { at: 3 }], ["time:diff", { from: 1, to: 3 }]] as const) {
        yield* give(cloudEvent(event, { subject: `a-${event}`, data: { secret: "mine" } }))
        const all = { ...payload, ...(event === "time:at" ? { at: store.head() } : { to: store.head() }), limit: 1 }
        const { cursor, items } = yield* ask(event, all)
        expect(items).toHaveLength(1)
        yield* store.delete(`a-${event}`)
        const rest = yield* pagesOf(event, { ...all, cursor })
        expect(JSON.stringify(rest.items)).not.toContain("mine")
        expect(JSON.stringify(rest.items)).toContain("\"c\"")
      }
    })))

  it.effect("keeps to the bytes of a page", () =>
    withRuntime(Effect.gen(function*() {
      yield* give(...Array.from({ length: 20 }, (_, n) => cloudEvent(n, { subject: `s-${n}`, data: { text: "x".repeat(n === 9 ? 5000 : 100) } })))
      const { items, sizes } = yield* pagesOf("time:at", { at: 20 })
      expect(items).toHaveLength(20)
      expect(sizes.filter((size) => size > 3000)).toHaveLength(1)
      expect(sizes.length).toBeGreaterThan(2)
    }), { pageBytes: 3000 }))

  it.effect("leaves KSI's own streams out unless asked", () =>
    withRuntime(Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      yield* store.driver.append({ facts: [{ id: "1", source: "/ksi", name: "saga:step", streamId: "ksi-saga", data: {}, time: undefined, attributes: {} }] })
      expect(yield* itemsOf({ at: 1 })).toEqual([])
      expect(yield* itemsOf({ at: 1, all: true })).toMatchObject([{ streamId: "ksi-saga" }])
    })))

  it.effect("says what is wrong", () =>
    withRuntime(Effect.gen(function*() {
      yield* history
      for (const at of ["yesterday", "", "-1", 0, -5, "2026-02-30"]) {
        expect(yield* reasonOf(ask("time:at", { at }))).toMatchObject({ _tag: "PayloadInvalid", event: "time:at", problems: [{ path: "at" }] })
      }
      expect(yield* reasonOf(ask("time:at", { at: 1, projection: "lates" }))).toMatchObject({ _tag: "NotFound", what: "projection", similar: ["latest"] })
      expect(yield* reasonOf(ask("time:at", { at: 4, stream: "c" }))).toMatchObject({ _tag: "NotFound" })
      const { cursor } = yield* ask("time:at", { at: 4, limit: 1 })
      for (const payload of [{ at: 3, cursor }, { at: 4, cursor: "nonsense" }, { at: 4, recorded: true, cursor }]) {
        expect(yield* reasonOf(ask("time:at", payload))).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "cursor" }] })
      }
    })))

  const Paid = Event.fact("cart:paid", { payload: { cents: Schema.Int }, streamId: () => "a" })
  const Total = Projection.make("total", {
    events: [Paid], state: Schema.Struct({ last: Schema.Date, cents: Schema.Int }), initial: { last: new Date(0), cents: 0 },
    on: { [Paid.name]: (state, { cents }) => ({ last: new Date(5), cents: state.cents + cents }) }
  })

  it.effect("asks other projections by name, and answers with their states as JSON", () =>
    Effect.gen(function*() {
      const ksi = yield* KsiService
      yield* give(cloudEvent(1, { type: "cart:paid", subject: "a", data: { cents: 5 } }), cloudEvent(2, { type: "cart:opened", subject: "b" }))
      yield* give(cloudEvent(3, { type: "cart:paid", subject: "a", data: { cents: 7 } }))
      const { items } = yield* ksi.call(Time.At, { at: 3, projection: "total" })
      expect(items).toMatchObject([{ streamId: "a", version: 2, state: { cents: 12, last: "1970-01-01T00:00:00.005Z" } }])
    }).pipe(Effect.provide(Projection.serve(Total).pipe(Layer.provideMerge(runtime())))))

  it.effect("a projection that comes later is found, one that is gone is not, and its successor answers for itself", () =>
    withRuntime(Effect.gen(function*() {
      yield* give(...[1, 2, 3].map((n) => cloudEvent(n, { type: "cart:paid", subject: `s-${n}`, data: { cents: n } })))
      const total = (first: number) =>
        Projection.make("total", {
          events: [Paid], state: Schema.Int, initial: first, on: { [Paid.name]: (state, { cents }) => state + cents }
        })
      const first = { at: 3, projection: "total", limit: 2 }
      const missing = { _tag: "NotFound", what: "projection", id: "total" }
      expect(yield* reasonOf(ask("time:at", first))).toMatchObject(missing)
      const { cursor, items } = yield* Effect.scoped(Effect.gen(function*() {
        yield* Layer.build(Projection.serve(total(0)))
        return yield* ask("time:at", first)
      }))
      expect(items).toMatchObject([{ state: 1 }, { state: 2 }])
      const rest = { ...first, cursor }
      expect(yield* reasonOf(ask("time:at", rest))).toMatchObject(missing)
      yield* Layer.build(Projection.serve(total(100)))
      expect((yield* ask("time:at", rest))["items"]).toMatchObject([{ state: 103 }])
    })))
})
