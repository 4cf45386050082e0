import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schema, Stream } from "effect"
import { KsiService } from "../../src/bus/KsiService.ts"
import { Router, serve } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as Json from "../../src/event/Json.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import { ask, cloudEvent, pagesOf, reasonOf, runtime, withRuntime } from "./Builtins.ts"

const deep: unknown = JSON.parse(`${"[".repeat(20_000)}${"]".repeat(20_000)}`)
const importAll = (events: ReadonlyArray<unknown>) => ask("store:import", { events })
const cursorOf = (value: unknown) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url")
const many = (count: number, streamOf: (n: number) => string, from = 1) =>
  Array.from({ length: count }, (_, i) => cloudEvent(from + i, { subject: streamOf(from + i), data: { n: from + i } }))

describe("store:import", () => {
  it.effect("stores facts; the same again changes nothing; other content is told", () =>
    withRuntime(Effect.gen(function*() {
      const events = [cloudEvent(1, { data: { a: 1 } }), cloudEvent(2)]
      expect(yield* importAll(events)).toEqual({ imported: 2, duplicates: 0, rejected: 0, rejections: [], position: 2 })
      expect(yield* importAll(events)).toEqual({ imported: 0, duplicates: 2, rejected: 0, rejections: [], position: 2 })
      const mixed = [cloudEvent(3), cloudEvent(1, { data: { a: 2 } }), cloudEvent(3), cloudEvent(2), 7]
      const reply = yield* importAll(mixed)
      expect(reply).toMatchObject({ imported: 1, duplicates: 2, position: 3, rejections: [{ index: 1, reason: "IdConflict" }, { index: 4, reason: "PayloadInvalid" }] })
      expect(JSON.stringify(reply["rejections"])).toContain("stored at position 1 with other content")
    })))

  it.effect("tells what is wrong with each event by its index, and stores the others", () =>
    withRuntime(Effect.gen(function*() {
      const reply = yield* importAll([
        7, cloudEvent(1), { specversion: "0.3" }, cloudEvent(2, { subject: "ksi-saga" }), cloudEvent(3, { type: "system:health" }),
        cloudEvent(4, { time: "yesterday" }), cloudEvent(5, { data: "x".repeat(2000) }), cloudEvent(6), cloudEvent("\ud800"),
        cloudEvent(7, { time: deep }), cloudEvent(8, { time: 5 }), cloudEvent(9, { data: deep }), cloudEvent(10, { list: ["x"] })
      ])
      expect(reply).toMatchObject({ imported: 2, duplicates: 0, position: 2 })
      expect((reply["rejections"] as Array<{ index: number; reason: string }>).map(({ index, reason }) => [index, reason])).toEqual([
        [0, "PayloadInvalid"], [2, "PayloadInvalid"], [3, "PayloadInvalid"], [4, "WrongShape"], [5, "PayloadInvalid"],
        [6, "LimitExceeded"], [8, "PayloadInvalid"], [9, "PayloadInvalid"], [10, "PayloadInvalid"], [11, "LimitExceeded"],
        [12, "PayloadInvalid"]
      ])
      const { items } = yield* pagesOf("store:export", {})
      expect(items.map(({ id }) => id)).toEqual(["1", "6"])
    }), { frameBytes: 1000 }))

  it.effect("refuses more events than a call may have", () =>
    withRuntime(Effect.gen(function*() {
      expect(yield* reasonOf(importAll(many(1001, String)))).toMatchObject({ _tag: "LimitExceeded", limit: "appendEvents", actual: 1001 })
      expect(yield* importAll(many(1000, String))).toMatchObject({ imported: 1000 })
      expect(yield* importAll([])).toEqual({ imported: 0, duplicates: 0, rejected: 0, rejections: [], position: 1000 })
    })))

  const Placed = Event.fact("order:placed", { payload: { total: Schema.Int }, streamId: () => "order-1" })
  const Orders = EventGroup.make(Placed)
  it.effect("holds known facts to their schema, runs no handler, and is heard by subscribers", () => {
    let handled = 0
    const handlers = Orders.toLayer({ "order:placed": () => Effect.sync(() => void handled++) })
    const served = serve(Orders).pipe(Layer.provide(handlers), Layer.provideMerge(runtime()))
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const heard = yield* ksi.subscribe("order:*").pipe(Stream.take(1), Stream.runCollect, Effect.forkChild({ startImmediately: true }))
      yield* Effect.yieldNow
      const reply = yield* importAll([cloudEvent(1, { data: { total: "five" } }), cloudEvent(2, { data: { total: 5 } }), cloudEvent(3)])
      expect(reply).toMatchObject({ imported: 1, rejections: [{ index: 0, reason: "PayloadInvalid" }, { index: 2, reason: "PayloadInvalid" }] })
      expect(JSON.stringify(reply["rejections"])).toContain("total: expected")
      expect((yield* Fiber.join(heard)).map(({ id }) => id)).toEqual(["2"])
      yield* (yield* Router).settled
      expect(handled).toBe(0)
      yield* ksi.emit(Placed, { total: 6 })
      yield* (yield* Router).settled
      expect(handled).toBe(1)
    }).pipe(Effect.provide(served))
  })

  it.effect("comes out as it went in, and goes in again", () => {
    const texts = [
      "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/a\",\"type\":\"x.y.z\",\"data\":{\"big\":12345678901234567890123,\"small\":1e-400}}",
      "{\"specversion\":\"1.0\",\"id\":\"2\",\"source\":\"/a\",\"type\":\"a:b\",\"subject\":\"s\",\"data\":null}",
      "{\"specversion\":\"1.0\",\"id\":\"3\",\"source\":\"/a\",\"type\":\"a:b\",\"subject\":\"s\",\"time\":\"2018-03-15T12:00:00.123456789+01:00\"}",
      "{\"specversion\":\"1.0\",\"id\":\"4\",\"source\":\"/a\",\"type\":\"ä:😀\",\"subject\":\"ß\\u0000\",\"comexample\":\"ext\",\"seq\":9007199254740993,\"flag\":false}",
      "{\"specversion\":\"1.0\",\"id\":\"5\",\"source\":\"/a\",\"type\":\"a:b\",\"datacontenttype\":\"image/png\",\"data_base64\":\"AAEC\"}",
      "{\"specversion\":\"1.0\",\"id\":\"6\",\"source\":\"/a\",\"type\":\"a:b\",\"position\":\"north\",\"data\":[1,{\"__proto__\":\"x\"}]}"
    ]
    const events = texts.map(Json.parse)
    const out = (more: (item: Record<string, unknown>, n: number) => unknown) =>
      Effect.map(pagesOf("store:export", {}), ({ items }) => items.map((item, n) => JSON.stringify(more(item, n))))
    const bare = ({ position, version, ...rest }: Record<string, unknown>) => position === "north" ? { ...rest, position } : rest
    return Effect.gen(function*() {
      const first = yield* withRuntime(Effect.gen(function*() {
        expect(yield* importAll(events)).toMatchObject({ imported: 6, rejections: [] })
        const kept = yield* out(bare)
        for (const [n, text] of kept.entries()) expect(Json.equal(Json.parse(text), events[n]), text).toBe(true)
        expect(kept.join()).toContain("12345678901234567890123")
        expect(kept.join()).toContain("9007199254740993")
        return yield* out((item) => item)
      }))
      // What was exported is a second import: of the same facts here, of all of them elsewhere.
      yield* withRuntime(Effect.gen(function*() {
        expect(yield* importAll(first.map((text) => Json.parse(text)))).toMatchObject({ imported: 6, rejections: [] })
        expect(yield* importAll(events)).toMatchObject({ duplicates: 6, rejections: [] })
        expect(yield* out((item) => item)).toEqual(first)
      }))
    })
  })
})

describe("store:export", () => {
  it.effect("walks all facts in pages of one moment while the store goes on", () =>
    withRuntime(Effect.gen(function*() {
      yield* importAll(many(25, (n) => `s-${n % 3}`))
      let extra = 100
      const between = Effect.suspend(() => importAll(many(5, () => "s-1", extra += 5)))
      const { items, pages } = yield* pagesOf("store:export", { limit: 7 }, between)
      expect(items.map(({ position }) => position)).toEqual(Array.from({ length: 25 }, (_, i) => i + 1))
      expect(items[24]).toEqual({ ...cloudEvent(25, { subject: "s-1", data: { n: 25 } }), position: 25, version: 9 })
      expect(pages).toBe(4)
      expect((yield* pagesOf("store:export", { limit: 7 })).items.length).toBe(40)
    })))

  it.effect("keeps to the bytes of a page, and still shows a fact that is bigger", () =>
    withRuntime(Effect.gen(function*() {
      yield* importAll([...many(30, () => "s"), cloudEvent(99, { data: "x".repeat(4000) }), ...many(5, () => "s", 200)])
      const { items, sizes } = yield* pagesOf("store:export", {})
      expect(items.length).toBe(36)
      expect(sizes.filter((size) => size > 2000).length).toBe(1)
      expect(sizes.length).toBeGreaterThan(3)
    }), { pageBytes: 2000 }))

  it.effect("takes a pattern, a tag and a stream, page by page of one moment", () =>
    withRuntime(Effect.gen(function*() {
      const event = (n: number) =>
        cloudEvent(n, { subject: n % 2 === 0 ? "even" : "odd", type: n % 3 === 0 ? "order:line:added" : "stock:moved", ...(n % 5 === 0 ? { ksitags: "five,x" } : {}) })
      yield* importAll(Array.from({ length: 60 }, (_, n) => event(n + 1)))
      const between = Effect.suspend(() => importAll([event(990), event(15)]))
      const positions = (payload: Record<string, unknown>) =>
        Effect.map(pagesOf("store:export", { limit: 3, ...payload }, between), ({ items }) => items.map(({ position }) => Number(position)))
      const of = (wanted: (n: number) => boolean) => Array.from({ length: 60 }, (_, n) => n + 1).filter(wanted)
      expect(yield* positions({ pattern: "order:*", to: 60 })).toEqual(of((n) => n % 3 === 0))
      expect(yield* positions({ tag: "five", to: 60 })).toEqual(of((n) => n % 5 === 0))
      expect(yield* positions({ tag: "five", pattern: "order:line:added", stream: "even", from: 10, to: 60 })).toEqual([30, 60])
      expect(yield* positions({ tag: "six" })).toEqual([])
      const page = yield* ask("store:export", { tag: "five", limit: 1 })
      expect(page).toMatchObject({ items: [{ position: 5, ksitags: "five,x" }] })
      expect(yield* reasonOf(ask("store:export", { pattern: "st*" }))).toMatchObject({ _tag: "PatternInvalid" })
      expect(yield* reasonOf(ask("store:export", { tag: "five", stream: "evne" }))).toMatchObject({ _tag: "NotFound", similar: ["even"] })
    })))

  it.effect("takes a range of positions, of all or of one stream", () =>
    withRuntime(Effect.gen(function*() {
      yield* importAll(many(20, (n) => n % 2 === 0 ? "even" : "odd"))
      const positions = (payload: Record<string, unknown>) =>
        Effect.map(pagesOf("store:export", payload, importAll(many(1, () => "even", 500))), ({ items }) => items.map(({ position }) => position))
      expect(yield* positions({ from: 5, to: 7 })).toEqual([5, 6, 7])
      expect(yield* positions({ from: 19, to: 900 })).toEqual([19, 20])
      expect(yield* positions({ from: 7, to: 5 })).toEqual([])
      expect(yield* positions({ stream: "even", from: 5, to: 11, limit: 2 })).toEqual([6, 8, 10])
      expect(yield* positions({ stream: "odd", limit: 3 })).toEqual([1, 3, 5, 7, 9, 11, 13, 15, 17, 19])
      expect(yield* positions({ stream: "odd", to: 2 })).toEqual([1])
    })))

  it.effect("leaves KSI's own streams out, however many facts they have", () =>
    withRuntime(Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      const own = (n: number) => ({ id: `own-${n}`, source: "/ksi", name: "saga:step", streamId: "ksi-saga", data: {}, time: undefined, attributes: {} })
      yield* importAll(many(2, () => "a"))
      for (let at = 0; at < 60; at += 20) yield* store.driver.append({ facts: Array.from({ length: 20 }, (_, n) => own(at + n)) })
      yield* importAll(many(2, () => "z", 10))
      const shown = yield* pagesOf("store:export", { limit: 3 })
      expect(shown.items.map(({ id }) => id)).toEqual(["1", "2", "10", "11"])
      expect(shown.pages).toBeLessThan(6)
      expect((yield* pagesOf("store:export", { all: true })).items.length).toBe(64)
      expect((yield* pagesOf("store:streams", { limit: 1 })).items).toEqual([{ streamId: "a", version: 2 }, { streamId: "z", version: 2 }])
      expect((yield* pagesOf("store:streams", { all: true })).items.map(({ streamId }) => streamId)).toEqual(["a", "ksi-saga", "z"])
      // More than one page of reads finds nothing to show.
    }), { pageItems: 2 }))

  it.effect("shows what comes behind KSI's own streams, whatever those are called", () =>
    withRuntime(Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      const own = ["ksi-", "ksi-a", "ksi-\uffff", "ksi-\uffff\uffff", `ksi-${"\uffff".repeat(200)}`]
      const others = ["a", "ksi", "ksi,", "ksi.", "ksi..", "ksia", "z", "\uffff\uffff\uffff"]
      const fact = (streamId: string, n: number) =>
        ({ id: `${n}`, source: "/ksi", name: "saga:step", streamId, data: {}, time: undefined, attributes: {} })
      yield* store.driver.append({ facts: [...own, ...others].map(fact) })
      for (const limit of [1, 2, 3, 100]) {
        expect((yield* pagesOf("store:streams", { limit })).items.map(({ streamId }) => streamId)).toEqual(others)
      }
      expect((yield* pagesOf("store:streams", { limit: 2, prefix: "ksi" })).items.map(({ streamId }) => streamId)).toEqual(others.slice(1, -2))
      expect((yield* pagesOf("store:streams", { prefix: "ksi-" })).items).toEqual([])
    })))

  it.effect("of a stream that does not exist names the nearest", () =>
    withRuntime(Effect.gen(function*() {
      yield* importAll(many(2, () => "order-1"))
      for (const name of ["store:export", "store:read"]) {
        expect(yield* reasonOf(ask(name, { stream: "ordr-1" }))).toMatchObject({ _tag: "NotFound", what: "stream", similar: ["order-1"] })
      }
    })))
})

describe("store:read", () => {
  it.effect("reads a stream both ways, in pages of one moment", () =>
    withRuntime(Effect.gen(function*() {
      yield* importAll(many(20, (n) => n % 2 === 0 ? "even" : "odd"))
      let extra = 100
      const between = Effect.suspend(() => importAll(many(1, () => "even", ++extra)))
      const versions = (payload: Record<string, unknown>) =>
        Effect.map(pagesOf("store:read", { stream: "even", ...payload }, between), ({ items }) => items.map(({ version }) => version))
      const ten = Array.from({ length: 10 }, (_, i) => i + 1)
      expect(yield* versions({ limit: 3 })).toEqual(ten)
      const now = 10 + extra - 100
      expect(yield* versions({ limit: 3, backward: true })).toEqual(Array.from({ length: now }, (_, i) => now - i))
      expect(yield* versions({ limit: 1, from: 4, to: 6 })).toEqual([4, 5, 6])
      // The last page knows that it is the last.
      for (const backward of [true, false]) {
        expect((yield* pagesOf("store:read", { stream: "odd", limit: 5, backward })).pages).toBe(2)
      }
      expect(yield* versions({ limit: 1, from: 4, to: 6, backward: true })).toEqual([6, 5, 4])
      expect(yield* versions({ from: 400 })).toEqual([])
      const { items: [first] } = yield* pagesOf("store:read", { stream: "even" })
      expect(first).toEqual({ ...cloudEvent(2, { subject: "even", data: { n: 2 } }), position: 2, version: 1 })
    })))
})

describe("store:streams", () => {
  it.effect("lists streams as of the first page, whatever happens since", () =>
    withRuntime(Effect.gen(function*() {
      yield* importAll(many(12, (n) => `s-${n % 4}`))
      let extra = 100
      // Known streams grow, and new ones appear before and behind.
      const between = Effect.suspend(() => importAll(["s-0", "s-3", "s-00", "s-35", "t"].map((subject) => cloudEvent(++extra, { subject }))))
      const { items, pages } = yield* pagesOf("store:streams", { limit: 1 }, between)
      expect(items).toEqual([0, 1, 2, 3].map((n) => ({ streamId: `s-${n}`, version: 3 })))
      expect(pages).toBeGreaterThanOrEqual(4)
      expect((yield* pagesOf("store:streams", { prefix: "s-0" })).items).toEqual([
        { streamId: "s-0", version: 3 + (extra - 100) / 5 }, { streamId: "s-00", version: (extra - 100) / 5 }
      ])
    })))

  it.effect("of an empty store is an empty page", () =>
    withRuntime(Effect.gen(function*() {
      for (const name of ["store:streams", "store:export"]) expect(yield* ask(name)).toEqual({ items: [] })
    })))
})

describe("cursors", () => {
  it.effect("go on where everything before them is gone, and end where nothing is left", () =>
    withRuntime(Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      yield* importAll(many(10, () => "s"))
      const pages = [["store:read", { stream: "s" }], ["store:export", { stream: "s" }], ["store:export", { stream: "s", pattern: "*" }]] as const
      const first = yield* Effect.forEach(pages, ([event, payload]) => ask(event, { ...payload, limit: 3 }))
      const versions = (reply: Json.JsonObject) => (reply["items"] as ReadonlyArray<Json.JsonObject>).map(({ version }) => version)
      yield* store.configure("s", { truncateBefore: 9 })
      yield* store.retain
      yield* importAll(many(1, () => "s", 11))
      for (const [at, [event, payload]] of pages.entries()) expect(versions(yield* ask(event, { ...payload, cursor: first[at]?.["cursor"] })), event).toEqual([9, 10])
      yield* store.configure("s", { truncateBefore: 11 })
      yield* store.retain
      for (const [at, [event, payload]] of pages.entries()) expect(yield* ask(event, { ...payload, cursor: first[at]?.["cursor"] })).toEqual({ items: [] })
      yield* store.delete("s")
      for (const [at, [event, payload]] of pages.entries()) expect(yield* ask(event, { ...payload, cursor: first[at]?.["cursor"] })).toEqual({ items: [] })
      expect(versions(yield* ask("store:read", { stream: "s" }))).toEqual([12])
      // What only was set up never had a fact.
      yield* store.configure("later", { maxCount: 1 })
      expect(yield* reasonOf(ask("store:read", { stream: "later" }))).toMatchObject({ _tag: "NotFound", id: "later" })
    })))

  it.effect("work without the query they belong to, and refuse another", () =>
    withRuntime(Effect.gen(function*() {
      yield* importAll(many(10, () => "order-1"))
      const { cursor } = yield* ask("store:export", { stream: "order-1", from: 2, limit: 4 })
      expect((yield* ask("store:export", { cursor }))["items"]).toHaveLength(5)
      for (const [name, payload, problem] of [
        ["store:export", { cursor, stream: "order-2" }, "another \"stream\""],
        ["store:export", { cursor, all: true }, "another \"all\""],
        ["store:streams", { cursor }, "belongs to store:export"],
        ["store:export", { cursor: "!" }, "is not a cursor"],
        ["store:export", { cursor: "" }, "is not a cursor"],
        ["store:export", { cursor: cursorOf({ event: "store:export", position: -1, next: 1, query: {} }) }, "is not a cursor"],
        ["store:export", { cursor: cursorOf({ event: "store:export", position: 1, next: 0, query: {} }) }, "is not a cursor"],
        ["store:export", { cursor: cursorOf({ event: "store:export", position: 1, next: 1, query: { from: "x" } }) }, "is not a cursor"],
        ["store:export", { cursor: cursorOf({ event: "store:export", position: 11, next: 1, query: {} }) }, "this one ends at position 10"]
      ] as const) {
        const reason = yield* reasonOf(ask(name, payload))
        expect(reason).toMatchObject({ _tag: "PayloadInvalid", event: name, problems: [{ path: "cursor" }] })
        expect(reason.message).toContain(problem)
      }
    })))
})
