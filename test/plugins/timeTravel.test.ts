// `time:diff`, `find`, `blame`, `branch` and `compare`, as programs ask them by name.
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schema } from "effect"
import { KsiService } from "../../src/bus/KsiService.ts"
import * as Event from "../../src/event/Event.ts"
import { searchFacts } from "../../src/plugins/internal/timeHandlers.ts"
import * as Time from "../../src/plugins/Time.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import { ask, cloudEvent, pagesOf, reasonOf, withRuntime } from "./Builtins.ts"

const history = Effect.gen(function*() {
  const { rejections } = yield* ask("store:import", { events: [
    cloudEvent(1, { type: "cart:opened", subject: "a", time: "2026-01-01T00:00:00Z", data: { by: "ann", total: 0 } }),
    cloudEvent(2, { type: "cart:opened", subject: "b", time: "2026-01-02T00:00:00+01:00", data: { by: "bob" } }),
    cloudEvent(3, { type: "cart:filled", subject: "a", time: "2026-01-03T00:00:00Z", data: { total: 20, lines: ["tea", "milk"] } }),
    // It arrived late: it happened before the cart was filled.
    cloudEvent(4, { type: "cart:note", subject: "a", time: "2026-01-02T12:00:00Z", data: { note: "hi" } }),
    cloudEvent(5, { type: "cart:filled", subject: "a", time: "2026-01-04T00:00:00Z", data: { total: 35, lines: ["tea"] } })
  ] })
  expect(rejections).toEqual([])
})
const itemsOf = (event: string, payload: Record<string, unknown>) => Effect.map(pagesOf(event, payload), ({ items }) => items)

const Filled = Event.fact("cart:filled", { payload: { total: Schema.Int }, streamId: () => "a" })
const total = (name: string, most = Infinity) =>
  Projection.make(name, {
    events: [Filled], state: Schema.Struct({ most: Schema.Int }), initial: { most: 0 },
    on: { [Filled.name]: (state, { total }) => ({ most: Math.min(most, Math.max(state.most, total)) }) }
  })

describe("a reducer that throws", () => {
  it.effect("is told with its fact by all of time:*", () => {
    const fragile = (name: string) => Projection.make(name, {
      events: [Filled], state: Schema.Struct({ most: Schema.Int }), initial: { most: 0 },
      on: { [Filled.name]: (state, { total }) => {
        if (total > 30) throw new Error("too much")
        return { most: Math.max(state.most, total) }
      } }
    })
    const served = Layer.mergeAll(Projection.serve(fragile("fragile")), Projection.serve(total("total")))
    return withRuntime(Effect.scoped(Effect.gen(function*() {
      yield* history
      yield* Layer.build(served)
      for (const [event, payload] of [
        ["time:at", { at: 5, stream: "a" }], ["time:at", { at: 5 }], ["time:at", { at: "2026-02-01" }], ["time:diff", { from: 1, to: 5 }],
        ["time:find", { where: "state.most > 100" }], ["time:blame", { stream: "a", field: "most" }],
        ["time:branch", { stream: "a", edits: [{ drop: 3 }] }],
        ["time:compare", { stream: "a", a: "fragile", b: "total" }], ["time:compare", { stream: "a", a: "total", b: "fragile" }]
      ] as const) {
        const reason = yield* reasonOf(ask(event, { ...(event === "time:compare" ? {} : { projection: "fragile" }), ...payload }))
        expect([event, reason]).toMatchObject([event, { _tag: "StoreFailure", operation: "fold the projection \"fragile\"", position: 5 }])
        expect(reason).toHaveProperty("problem", "its code throws at the fact \"5\" (cart:filled) at position 5: too much")
      }
    })))
  })
})

describe("time:diff", () => {
  it.effect("tells a stream at two moments, as a patch and in words", () =>
    withRuntime(Effect.gen(function*() {
      yield* history
      expect(yield* itemsOf("time:diff", { from: 3, to: 5, stream: "a" })).toEqual([{
        streamId: "a",
        from: { version: 2, lastEvent: "cart:filled", timestamp: "2026-01-03T00:00:00Z" },
        to: { version: 4, lastEvent: "cart:filled", timestamp: "2026-01-04T00:00:00Z" },
        patch: [{ op: "remove", path: "/lines/1" }, { op: "add", path: "/note", value: "hi" }, { op: "replace", path: "/total", value: 35 }],
        words: ["lines[1] removed (was \"milk\")", "note \"hi\" (new)", "total 20 → 35"]
      }])
      // What had happened by then counts, the late note too.
      expect(yield* itemsOf("time:diff", { from: "2026-01-02", to: "2026-01-02T18:00:00Z" })).toMatchObject([{ streamId: "a", words: ["note \"hi\" (new)"] }])
      expect(yield* itemsOf("time:diff", { from: 1, to: 2 })).toMatchObject([{ streamId: "b", from: null, words: ["by \"bob\" (new)"] }])
      expect(yield* itemsOf("time:diff", { from: 5, to: 900 })).toEqual([])
    })))

  it.effect("leaves no stream out, and tells none twice, when one is deleted between two pages", () =>
    withRuntime(Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      for (const n of [1, 2, 3, 4, 5, 6]) yield* store.appendTo(`s-${n}`, [{ name: "n:noted", data: { n } }])
      const whole = yield* itemsOf("time:diff", { from: 1, to: 6 })
      expect(whole).toHaveLength(5)
      const first = yield* ask("time:diff", { from: 1, to: 6, limit: 3 })
      // Two other questions push the answer out of what is kept.
      for (const to of [4, 5]) yield* ask("time:diff", { from: 1, to, limit: 1 })
      yield* store.delete("s-3")
      const second = yield* ask("time:diff", { from: 1, to: 6, limit: 3, cursor: first["cursor"] })
      expect([first["items"], second["items"]]).toEqual([whole.slice(0, 3), whole.slice(3)])
    })))

  it.effect("walks pages of one history while the store goes on", () =>
    withRuntime(Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      const write = Effect.suspend(() => store.append({ facts: Array.from({ length: 10 }, (_, n) => ({
        id: `${store.head() + n}`, source: "/t", name: "n", streamId: `s-${n}`, data: { at: store.head() }, time: undefined, attributes: {}
      })) }))
      yield* write
      yield* write
      const payload = { from: 10, to: "2100-01-01" }
      const whole = yield* itemsOf("time:diff", payload)
      const { items, pages } = yield* pagesOf("time:diff", { ...payload, limit: 3 }, write)
      expect([items, pages]).toEqual([whole, 4])
      const { sizes } = yield* pagesOf("time:diff", payload, write)
      expect(sizes.length).toBeGreaterThan(2)
      expect(Math.max(...sizes)).toBeLessThan(1000)
    }), { pageBytes: 1000 }))
})

describe("time:find", () => {
  it.effect("tells the first fact after which a condition holds", () =>
    withRuntime(Effect.gen(function*() {
      yield* history
      const found = {
        streamId: "a", position: 3, id: "3", event: "cart:filled", version: 2, timestamp: "2026-01-03T00:00:00Z",
        before: { by: "ann", total: 0 }, after: { by: "ann", total: 20, lines: ["tea", "milk"] }
      }
      expect(yield* itemsOf("time:find", { where: "state.total > 10", stream: "a" })).toEqual([found])
      expect(yield* itemsOf("time:find", { where: "state.total > 10", stream: "a", monotone: true })).toEqual([found])
      expect(yield* itemsOf("time:find", { where: "event.name == \"cart:filled\" && size(data.lines) == 2" })).toEqual([found])
      expect(yield* itemsOf("time:find", { where: "event.position >= 3.0 && has(state.note)", to: 3 })).toEqual([])
      expect(yield* itemsOf("time:find", { where: "state.total > 10", stream: "a", from: 4 })).toMatchObject([{ position: 4 }])
    })))

  it.effect("looks at streams of one kind, or at facts of some events, and need not know the others", () =>
    withRuntime(Effect.gen(function*() {
      yield* history
      yield* (yield* EventStore.EventStore).appendTo("b", [{ name: "cart:filled", data: { total: 12 } }])
      const find = (more: object) => Effect.map(itemsOf("time:find", { where: "state.total > 10", ...more }), (items) => items.map(({ position }) => position))
      expect(yield* reasonOf(find({}))).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "where" }] })
      expect(yield* find({ prefix: "a" })).toEqual([3])
      expect(yield* find({ pattern: "cart:filled" })).toEqual([3])
      expect(yield* find({ pattern: "cart:filled", prefix: "b" })).toEqual([6])
      // The state is that of all facts: by then the cart was filled.
      expect(yield* find({ pattern: "cart:note" })).toEqual([4])
      expect(yield* find({ pattern: "cart:note", monotone: true, prefix: "a" })).toEqual([4])
      expect(yield* find({ prefix: "c" })).toEqual([])
      expect(yield* reasonOf(find({ prefix: "a", stream: "a" }))).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "prefix" }] })
      expect(yield* reasonOf(find({ pattern: "cart::*" }))).toMatchObject({ _tag: "PatternInvalid" })
    })))

  it.effect("fails closed: what is no condition, and what cannot be decided, is refused with its place", () =>
    withRuntime(Effect.gen(function*() {
      yield* history
      const problem = (payload: Record<string, unknown>) =>
        Effect.map(reasonOf(ask("time:find", payload)), (reason) => reason._tag === "PayloadInvalid" ? reason.problems : [reason])
      expect(yield* problem({ where: "state.total >" })).toEqual([{ path: "where", problem: "unexpected end of the expression, at column 14" }])
      expect(yield* problem({ where: "state.total > 10" })).toEqual([{
        path: "where", problem: "cannot be decided after the cart:opened at position 2: no such key: total, at column 7"
      }])
      expect(yield* problem({ where: "state.total > 10 && data.x", monotone: true })).toEqual([{
        path: "where", problem: "asks for event or data; what is monotone may ask for state only"
      }])
      expect(yield* problem({ where: "state.total < 30", stream: "a", monotone: true, from: 2 })).toMatchObject([{ path: "monotone", problem: expect.stringContaining("it is not monotone") }])
      expect(yield* problem({ where: "true", stream: "c" })).toMatchObject([{ _tag: "NotFound", what: "stream" }])
    })))

  const many = Effect.gen(function*() {
    const store = yield* EventStore.EventStore
    for (let n = 0; n < 2.5 * searchFacts; n += 500) {
      yield* store.append({ facts: Array.from({ length: 500 }, (_, i) => ({
        id: `${n + i}`, source: "/t", name: "n", streamId: `s-${i % 5}`, data: { n: n + i }, time: undefined, attributes: {}
      })) })
    }
  })

  it.effect("looks at so many facts in one call, and goes on where it stopped, remembered or not", () =>
    withRuntime(Effect.gen(function*() {
      yield* many
      const where = { where: `state.n >= ${2.2 * searchFacts}` }
      const { items, pages } = yield* pagesOf("time:find", where)
      expect([items, pages]).toMatchObject([[{ position: 2.2 * searchFacts + 1, before: { n: 2.2 * searchFacts - 5 } }], 3])
      const first = yield* ask("time:find", where)
      expect(first["items"]).toEqual([])
      // The same page twice: the second time nothing is remembered of the first.
      const again = { ...where, cursor: first["cursor"] }
      const second = yield* ask("time:find", again)
      expect(yield* ask("time:find", again)).toEqual(second)
      const last = yield* ask("time:find", { ...where, cursor: second["cursor"] })
      expect(last).toMatchObject({ items: [{ position: 2.2 * searchFacts + 1 }] })
      expect(last["cursor"]).toBe(undefined)
      for (const wrong of [{ where: "state.n > 1", cursor: first["cursor"] }, { ...where, cursor: "x" }]) {
        expect(yield* reasonOf(ask("time:find", wrong))).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "cursor" }] })
      }
    })))

  it.effect("lets others go on meanwhile, and ends when nobody waits any more", () =>
    withRuntime(Effect.gen(function*() {
      yield* many
      let turns = 0
      const other = yield* Effect.forkChild(Effect.forever(Effect.andThen(Effect.sync(() => turns++), Effect.yieldNow)))
      yield* ask("time:find", { where: "state.n < 0" })
      // Once for each page at least; a turn of the other one takes two.
      expect(turns).toBeGreaterThan(searchFacts / 1000 / 4)
      const searching = yield* Effect.forkChild(ask("time:find", { where: "state.n < 0" }))
      for (let i = 0; i < 5; i++) yield* Effect.yieldNow
      yield* Fiber.interrupt(searching)
      yield* Fiber.interrupt(other)
      expect(yield* ask("system:health", {})).toMatchObject({ position: 2.5 * searchFacts })
    })))
})

describe("time:blame", () => {
  it.effect("tells which fact gave each field its value, now or then, page by page", () =>
    withRuntime(Effect.gen(function*() {
      yield* history
      const { items, pages } = yield* pagesOf("time:blame", { stream: "a", limit: 2 })
      expect(pages).toBe(2)
      expect(items).toEqual([
        { field: "by", position: 1, id: "1", event: "cart:opened", timestamp: "2026-01-01T00:00:00Z", value: "ann" },
        { field: "total", position: 5, id: "5", event: "cart:filled", timestamp: "2026-01-04T00:00:00Z", value: 35 },
        { field: "lines[0]", position: 3, id: "3", event: "cart:filled", timestamp: "2026-01-03T00:00:00Z", value: "tea" },
        { field: "note", position: 4, id: "4", event: "cart:note", timestamp: "2026-01-02T12:00:00Z", value: "hi" }
      ])
      expect(yield* itemsOf("time:blame", { stream: "a", field: "lines", at: 3 })).toMatchObject([{ field: "lines[0]" }, { field: "lines[1]", value: "milk" }])
      expect(yield* itemsOf("time:blame", { stream: "a", field: "total", at: "2026-01-03T12:00:00Z" })).toMatchObject([{ position: 3 }])
      expect(yield* reasonOf(ask("time:blame", { stream: "a", field: "nte" }))).toMatchObject({ _tag: "NotFound", similar: ["note"] })
      expect(yield* reasonOf(ask("time:blame", { stream: "a", at: "noon" }))).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "at" }] })
    })))

  it.effect("says so when the field that a page ended with has gone, with facts that were removed", () =>
    withRuntime(Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      for (const key of ["a", "b", "c", "d"]) yield* store.appendTo("s", [{ name: "n:noted", data: { [key]: 1 } }])
      const { cursor } = yield* ask("time:blame", { stream: "s", limit: 2 })
      for (const at of [2, 3]) yield* ask("time:blame", { stream: "s", at, limit: 1 })
      yield* store.configure("s", { maxCount: 2 })
      yield* store.retain
      expect(yield* reasonOf(ask("time:blame", { stream: "s", cursor }))).toMatchObject({
        _tag: "PayloadInvalid", problems: [{ path: "cursor", problem: expect.stringContaining("facts were removed") }]
      })
    })))
})

describe("time:branch", () => {
  it.effect("tells what would have been, stream by stream, and writes nothing", () =>
    withRuntime(Effect.gen(function*() {
      yield* history
      const store = yield* EventStore.EventStore
      const before = yield* store.read({ from: 1, limit: 100 })
      const [line] = yield* itemsOf("time:branch", { edits: [{ drop: 3 }, { replace: "5", data: { total: 1 } }], at: 5 })
      expect(line).toMatchObject({
        streamId: "a", real: { version: 4, state: { by: "ann", total: 35, lines: ["tea"], note: "hi" } },
        branch: { version: 3, state: { by: "ann", total: 1, note: "hi" } },
        words: ["lines removed (was [\"tea\"])", "total 35 → 1"],
        divergence: { position: 3, id: "3", event: "cart:filled", real: { state: { total: 20 } }, branch: { state: { total: 0 } } }, misfits: []
      })
      const inserted = yield* itemsOf("time:branch", { edits: [{ insert: { name: "cart:note", data: { note: "x" }, stream: "b" }, after: 0 }, { drop: "1" }] })
      expect(inserted).toMatchObject([{ streamId: "a" }, { streamId: "b", branch: { version: 2, state: { note: "x", by: "bob" } } }])
      expect(yield* pagesOf("time:branch", { edits: [{ drop: 1 }, { drop: 2 }], limit: 1 })).toMatchObject({ pages: 2 })
      expect(yield* store.read({ from: 1, limit: 100 })).toEqual(before)
      for (const [insert, problem] of [
        [{ name: "", stream: "a" }, "its name must not be empty"], [{ name: "cart:note", stream: "" }, "its streamId must not be empty"],
        [{ name: "cart:note", stream: "a", id: "x".repeat(257) }, "its id has 257 characters, at most 256 are allowed"]
      ] as const) {
        expect(yield* reasonOf(ask("time:branch", { edits: [{ insert, after: 0 }] }))).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "edits.0", problem }] })
      }
      expect(yield* reasonOf(ask("time:branch", { edits: [{ drop: 9 }] }))).toMatchObject({ _tag: "NotFound", what: "fact", id: "9" })
      expect(yield* reasonOf(ask("time:branch", { edits: [{ insert: { name: "n" }, after: 1 }] }))).toMatchObject({ _tag: "PayloadInvalid" })
      expect(yield* reasonOf(ask("time:branch", { edits: Array.from({ length: 1001 }, () => ({ drop: 1 })) }))).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "edits" }] })
    })))

  it.effect("reads the branch with other code that is served under its name", () =>
    withRuntime(Effect.gen(function*() {
      yield* history
      yield* Layer.build(Layer.mergeAll(Projection.serve(total("total")), Projection.serve(total("capped", 30))))
      const [line, ...rest] = yield* itemsOf("time:branch", { edits: [], projection: "total", with: "capped" })
      expect(rest).toEqual([])
      expect(line).toMatchObject({ streamId: "a", real: { state: { most: 35 } }, branch: { state: { most: 30 } }, divergence: { position: 5 } })
      const invalid = yield* itemsOf("time:branch", { edits: [{ replace: 5, data: { total: "much" } }], projection: "total" })
      expect(invalid).toMatchObject([{ branch: { state: { most: 20 } }, misfits: [{ position: 5, problem: expect.stringContaining("total: expected number") }] }])
    })))
})

describe("time:compare", () => {
  it.effect("tells the first fact after which two projections differ", () =>
    withRuntime(Effect.gen(function*() {
      const ksi = yield* KsiService
      yield* history
      yield* Layer.build(Layer.mergeAll(Projection.serve(total("total")), Projection.serve(total("capped", 30))))
      const { items } = yield* ksi.call(Time.Compare, { a: "total", b: "capped" })
      expect(items).toEqual([{
        streamId: "a", position: 5, id: "5", event: "cart:filled", version: 4, timestamp: "2026-01-04T00:00:00Z",
        a: { most: 35 }, b: { most: 30 }, patch: [{ op: "replace", path: "/most", value: 30 }], words: ["most 35 → 30"]
      }])
      expect(yield* itemsOf("time:compare", { a: "total", b: "capped", to: 4 })).toEqual([])
      expect(yield* itemsOf("time:compare", { a: "total", b: "total", stream: "a" })).toEqual([])
      expect(yield* reasonOf(ask("time:compare", { a: "total", b: "caped" }))).toMatchObject({ _tag: "NotFound", what: "projection", similar: ["capped"] })
    })))
})
