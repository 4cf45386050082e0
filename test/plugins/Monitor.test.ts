import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import { KsiService } from "../../src/bus/KsiService.ts"
import { Router, serve } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { ask as raw, cloudEvent, reasonOf, recorded, runtime, type Runtime, withRuntime } from "./Builtins.ts"

interface Happened {
  readonly timestamp: number
  readonly event_name: string
  readonly event_id: string
  readonly correlation_id: string
  readonly parent: string | null
  readonly depth: number
  readonly kind: string
  readonly outcome?: string
  readonly duration?: number
  readonly position?: number
  readonly data: unknown
}

interface Reply extends Record<string, unknown> {
  readonly events: ReadonlyArray<Happened>
}

const Buy = Event.make("shop:buy", { payload: { sku: Schema.String }, success: Schema.String })
const Pack = Event.make("shop:pack", { payload: { sku: Schema.String } })
const Bought = Event.fact("shop:bought", { payload: { sku: Schema.String }, streamId: ({ sku }) => `shop-${sku}` })
const Shop = EventGroup.make(Buy, Pack, Bought)

const handlers = Shop.toLayer(Effect.gen(function*() {
  const ksi = yield* KsiService
  return {
    *"shop:buy"({ sku }) {
      yield* ksi.call(Pack, { sku })
      yield* Effect.sleep("10 millis")
      const { id } = yield* ksi.emit(Bought, { sku })
      yield* Effect.sleep("10 millis")
      return id
    },
    *"shop:pack"({ sku }) {
      if (sku === "boom") return yield* Effect.die(new Error("out of string"))
    }
  }
}))

const shop = (limits: Parameters<typeof runtime>[0] = {}) =>
  serve(Shop).pipe(Layer.provide(handlers), Layer.provideMerge(runtime(limits)))

const test = <A, E>(name: string, program: Effect.Effect<A, E, Runtime>, limits: Parameters<typeof runtime>[0] = {}) =>
  it.effect(name, () => Effect.provide(program, shop(limits)))

const ask = (name: string, data: unknown = {}) => Effect.map(raw(name, data), (reply) => reply as Reply)
const names = ({ events }: Reply) => events.map(({ event_name }) => event_name)

/** Buys, with a client's labels, while the clock goes on. */
const buy = Effect.fnUntraced(function*(sku: string, label: string) {
  const router = yield* Router
  const envelope = router.envelope("shop:buy", { sku }, { clientCorrelationId: label, clientId: `client-${label}`, principal: "local-http" })
  const running = yield* Effect.forkChild(router.dispatch(envelope))
  yield* TestClock.adjust("50 millis")
  yield* Fiber.await(running)
  return envelope
})

const give = (from: number, count: number, more: (n: number) => Record<string, unknown> = () => ({})) =>
  Effect.map(
    raw("store:import", { events: Array.from({ length: count }, (_, i) => cloudEvent(from + i, more(from + i))) }),
    (reply) => expect(reply["imported"]).toBe(count)
  )

describe("event_log:query", () => {
  test("joins requests and facts, newest first, with the keys that were recorded", Effect.gen(function*() {
    yield* TestClock.adjust("1 day")
    const envelope = yield* buy("tea", "c1")
    const reply = yield* ask("event_log:query")
    expect(Object.keys(reply)).toEqual(expect.arrayContaining([...recorded("event_log:query")]))
    expect(names(reply)).toEqual(["shop:bought", "shop:pack", "shop:buy"])
    expect(reply).toMatchObject({ total: 3, has_more: false, offset: 0, facts_from: 1, facts_to: 1 })
    const [bought, pack, root] = reply.events
    const chain = { correlation_id: envelope.id, client_correlation_id: "c1", client_id: "client-c1", principal: "local-http" }
    expect(root).toEqual({
      ...chain, timestamp: 86_400, event_name: "shop:buy", data: { sku: "tea" }, event_id: envelope.id, parent: null, depth: 0,
      kind: "request", outcome: "success", duration: 20
    })
    expect(pack).toMatchObject({ ...chain, parent: envelope.id, depth: 1, kind: "request", outcome: "success" })
    expect(bought).toMatchObject({
      ...chain, timestamp: 86_400.01, parent: envelope.id, depth: 1, kind: "fact", position: 1, version: 1, stream_id: "shop-tea"
    })
    expect(names(yield* ask("event_log:query", { reverse: false, pattern: "shop:*" }))).toEqual(["shop:buy", "shop:pack", "shop:bought"])
  }))

  test("filters by pattern, time, chain and client", Effect.gen(function*() {
    yield* TestClock.adjust("1 day")
    const first = yield* buy("tea", "c1")
    yield* TestClock.adjust("1 hour")
    yield* buy("rice", "c2")
    const found = (payload: object) => Effect.map(ask("event_log:query", { event_patterns: ["shop:*"], ...payload }), names)
    expect(yield* found({ event_patterns: null, pattern: ["shop:pack", "nothing:*"] })).toEqual(["shop:pack", "shop:pack"])
    expect(yield* found({ event_patterns: "shop:bought" })).toEqual(["shop:bought", "shop:bought"])
    for (const chain of [{ correlation_id: "c1" }, { correlation_id: first.id }, { client_id: "client-c1" }, { until: 86_500 }, { until: "1970-01-02T00:01:00Z" }, { until: "86500" }]) {
      const reply = yield* ask("event_log:query", { pattern: "shop:*", ...chain })
      expect(names(reply), JSON.stringify(chain)).toEqual(["shop:bought", "shop:pack", "shop:buy"])
      expect(reply.events[2]?.event_id).toBe(first.id)
      expect(reply["total"]).toBe(3)
    }
    expect(yield* found({ since: 86_500 })).toHaveLength(3)
    expect(yield* found({ since: 86_500, until: 86_600 })).toEqual([])
    expect(yield* found({ correlation_id: "c3" })).toEqual([])
  }))

  test("pages by offset over both sources, nothing twice and nothing left out", Effect.gen(function*() {
    for (let n = 0; n < 12; n++) {
      yield* buy(`sku-${n}`, `c${n}`)
      yield* give(n * 10, n % 4, () => ({ type: "shop:bought", data: { sku: "x" } }))
    }
    const whole = yield* ask("event_log:query", { pattern: "shop:*", limit: 1000 })
    expect(whole["total"]).toBe(12 * 3 + 18)
    expect(whole.events).toHaveLength(54)
    const ids: Array<string> = []
    for (let offset = 0;; offset += 7) {
      const page = yield* ask("event_log:query", { pattern: "shop:*", limit: 7, offset })
      ids.push(...page.events.map(({ event_id, kind }) => `${kind} ${event_id}`))
      expect(page).toMatchObject({ total: 54, offset, has_more: offset + 7 < 54 })
      expect(page.events.map(({ timestamp }) => timestamp)).toEqual(page.events.map(({ timestamp }) => timestamp).toSorted((a, b) => b - a))
      if (page["has_more"] === false) break
    }
    expect(ids.length).toBe(54)
    expect(new Set(ids).size).toBe(54)
  }))

  test("pages through more requests than one look at the journal gives", Effect.gen(function*() {
    const ksi = yield* KsiService
    for (let n = 0; n < 250; n++) yield* ksi.call(Pack, { sku: String(n) })
    const skus = ({ events }: Reply) => events.map(({ data }) => Number((data as { sku: string }).sku))
    expect(skus(yield* ask("event_log:query", { limit: 1000, pattern: "shop:*" })).toSorted((a, b) => a - b))
      .toEqual(Array.from({ length: 250 }, (_, n) => n))
    expect(skus(yield* ask("event_log:query", { limit: 2, offset: 240, pattern: "shop:*" })).toSorted()).toEqual([8, 9])
  }))

  test("looks at a bounded number of facts and says which", Effect.gen(function*() {
    yield* give(0, 1, () => ({ type: "old:fact" }))
    for (let at = 1; at < 11_000; at += 1000) yield* give(at, 1000)
    const back = yield* ask("event_log:query", { pattern: "old:*" })
    expect(back).toMatchObject({ events: [], total: 0, facts_from: 1002, facts_to: 11_001 })
    const forth = yield* ask("event_log:query", { pattern: "old:*", reverse: false })
    expect(forth).toMatchObject({ total: 1, facts_from: 1, facts_to: 10_000 })
    expect(yield* ask("event_log:query", { pattern: "order:*", limit: 5 })).toMatchObject({ total: 10_000, has_more: true })
  }))

  test("finds the newest even among facts that fill pages, and keeps to the bytes of a reply", Effect.gen(function*() {
    yield* give(1, 40, (n) => ({ data: "x".repeat(n * 10) }))
    const reply = yield* ask("event_log:query", { pattern: "order:*" })
    expect(reply.events.length).toBeGreaterThan(2)
    expect(reply.events.map(({ position }) => position)).toEqual(reply.events.map((_, n) => 40 - n))
    expect(Buffer.byteLength(JSON.stringify(reply))).toBeLessThan(4000)
    expect(reply).toMatchObject({ total: 40, has_more: true, facts_from: 1, facts_to: 40 })
  }), { pageBytes: 4000 })

  test("says what is wrong", Effect.gen(function*() {
    for (const [payload, path] of [
      [{ since: "yesterday" }, "since"],
      [{ until: "2026-02-30" }, "until"], [{ limit: 0 }, "limit"], [{ limit: 1001 }, "limit"], [{ offset: -1 }, "offset"], [{ offset: 10_001 }, "offset"]
    ] as const) {
      expect(yield* reasonOf(raw("event_log:query", payload))).toMatchObject({ _tag: "PayloadInvalid", event: "event_log:query", problems: [{ path }] })
    }
    for (const [payload, pattern] of [[{ pattern: "sh*p" }, "sh*p"], [{ event_patterns: ["a:*", ""] }, ""]] as const) {
      expect(yield* reasonOf(raw("event_log:query", payload))).toMatchObject({ _tag: "PatternInvalid", pattern })
    }
  }))
})

describe("monitor:get_events", () => {
  test("answers in the words that were recorded", Effect.gen(function*() {
    yield* buy("tea", "c1")
    const reply = yield* ask("monitor:get_events", { event_patterns: ["shop:*"], limit: 2 })
    expect(Object.keys(reply)).toEqual(expect.arrayContaining([...recorded("monitor:get_events")]))
    expect(reply).toMatchObject({
      count: 2, total_events: 3,
      query: { event_patterns: ["shop:*"], _agent_id: null, since: null, until: null, limit: 2, reverse: true }
    })
    const first = reply.events[0]
    expect(typeof first?.timestamp).toBe("number")
    expect(Object.keys(first ?? {})).toEqual(expect.arrayContaining(["timestamp", "event_name", "data"]))
    // What the original's clients write for "not given".
    const nulls = { event_patterns: null, since: null, until: null, limit: null, reverse: null, _agent_id: null }
    expect((yield* ask("monitor:get_events", nulls))["query"]).toMatchObject({ limit: 100, reverse: true, event_patterns: null })
    expect((yield* ask("monitor:get_events", { _agent_id: "client-c1", since: 0 }))["total_events"]).toBe(3)
  }))
})

describe("monitor:get_status", () => {
  test("answers in the words that were recorded", Effect.gen(function*() {
    yield* buy("tea", "c1")
    const reply = yield* ask("monitor:get_status", { limit: 2 })
    expect(Object.keys(reply)).toEqual([...recorded("monitor:get_status")])
    expect(reply).toMatchObject({ event_count: 2, agents: [], agent_count: 0, total_identities: 0, timestamp: 0.05, status: "ok" })
    expect(names(reply)).toEqual(["shop:bought", "shop:buy"])
  }))
})

describe("monitor:get_correlation_chain", () => {
  test("tells who caused what, oldest first, by KSI's id, a client's label, or any event of the chain", Effect.gen(function*() {
    yield* TestClock.adjust("1 day")
    const envelope = yield* buy("tea", "c1")
    yield* buy("rice", "c2")
    const byLabel = yield* ask("monitor:get_correlation_chain", { correlation_id: "c1" })
    expect(names(byLabel)).toEqual(["shop:buy", "shop:pack", "shop:bought"])
    expect(byLabel).toMatchObject({ correlation_id: "c1", count: 3, has_more: false })
    const [root, , fact] = byLabel.events
    expect(root).toMatchObject({ event_id: envelope.id, parent: null, depth: 0, outcome: "success", duration: 20 })
    expect(fact).toMatchObject({ parent: envelope.id, depth: 1, position: 1 })
    for (const id of [envelope.id, ...byLabel.events.map(({ event_id }) => event_id)]) {
      expect((yield* ask("monitor:get_correlation_chain", { correlation_id: id })).events).toEqual(byLabel.events)
    }
  }))

  test("shows how it failed", Effect.gen(function*() {
    yield* buy("boom", "c1")
    const { events } = yield* ask("monitor:get_correlation_chain", { correlation_id: "c1" })
    expect(events.map(({ event_name, outcome }) => [event_name, outcome])).toEqual([["shop:buy", "defect"], ["shop:pack", "defect"]])
    expect(events[1]).toHaveProperty("error")
  }))

  test("of a foreign fact is found wherever it is; of nothing it is empty", Effect.gen(function*() {
    yield* give(1, 1)
    yield* give(2, 1, () => ({ correlationid: "1", causationid: "1", depth: 1 }))
    for (let at = 10; at < 11_000; at += 1000) yield* give(at, 1000)
    const reply = yield* ask("monitor:get_correlation_chain", { correlation_id: "1" })
    expect(reply.events.map(({ event_id, parent }) => [event_id, parent])).toEqual([["1", null], ["2", "1"]])
    expect(reply).toMatchObject({ facts_from: 1, facts_to: 11_002 })
    expect(yield* ask("monitor:get_correlation_chain", { correlation_id: "nobody" })).toMatchObject({ events: [], count: 0, has_more: false })
  }))

  test("is found however many facts came before, between and after", Effect.gen(function*() {
    for (let at = 0; at < 11_000; at += 1000) yield* give(at, 1000)
    yield* TestClock.adjust("1 day")
    const envelope = yield* buy("tea", "c1")
    yield* TestClock.adjust("1 day")
    for (let at = 20_000; at < 31_000; at += 1000) yield* give(at, 1000)
    for (const id of [envelope.id, "c1"]) {
      const reply = yield* ask("monitor:get_correlation_chain", { correlation_id: id })
      expect(names(reply)).toEqual(["shop:buy", "shop:pack", "shop:bought"])
      expect(reply).toMatchObject({ facts_from: 1, facts_to: 22_001, has_more: false })
    }
  }))

  it.effect("a moment that no clock reaches is refused", () =>
    withRuntime(Effect.gen(function*() {
      for (const since of [1e300, -1e300, 8.64e12 + 1]) {
        expect(yield* reasonOf(raw("monitor:get_events", { since }))).toMatchObject({ _tag: "PayloadInvalid" })
      }
      expect(yield* raw("monitor:get_events", { since: 8.64e12 })).toMatchObject({ count: 0 })
    })))
})
