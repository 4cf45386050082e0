import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { KsiService } from "../../src/bus/KsiService.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Trace from "../../src/store/Trace.ts"
import { ask, cloudEvent, pagesOf, reasonOf, withRuntime } from "./Builtins.ts"

const give = (...events: ReadonlyArray<unknown>) =>
  Effect.map(ask("store:import", { events }), (reply) => expect(reply["rejections"]).toEqual([]))
const chain = (count: number, first = 1) =>
  give(...Array.from({ length: count }, (_, n) =>
    cloudEvent(first + n, { type: "cart:step", data: { n }, ...(n + first === 1 ? {} : { correlationid: "1", causationid: "1", depth: 1 }) })))

describe("time:trace", () => {
  it.effect("tells nodes, text or Mermaid, of the id of a fact, a request, or a label", () =>
    withRuntime(Effect.gen(function*() {
      yield* chain(3)
      const reply = yield* ask("time:trace", { id: "3" })
      expect(reply).toMatchObject({ duration: 0, truncated: false })
      expect(reply["items"]).toMatchObject([
        { kind: "fact", id: "1", event: "cart:step", parent: null, depth: 0, offset: 0, position: 1, version: 1, principal: "owner" },
        { id: "2", parent: "1", depth: 1, position: 2 },
        { id: "3", parent: "1", depth: 1, position: 3 }
      ])
      const { nodes } = yield* Trace.of("3")
      expect(reply["items"]).toEqual(nodes)
      const trace = { id: "3", nodes, duration: 0, more: false }
      expect((yield* ask("time:trace", { id: "3", as: "text" }))["items"]).toEqual(Trace.text(trace))
      expect((yield* ask("time:trace", { id: "3", as: "mermaid" }))["items"]).toEqual(Trace.mermaid(trace))
    })))

  it.effect("walks the pages of one moment while the trace goes on", () =>
    withRuntime(Effect.gen(function*() {
      yield* chain(10)
      let next = 11
      const { items, pages } = yield* pagesOf("time:trace", { id: "1", limit: 3 }, Effect.suspend(() => chain(1, next++)))
      expect(items.map((item) => item["id"])).toEqual(Array.from({ length: 10 }, (_, n) => `${n + 1}`))
      expect(pages).toBe(4)
      expect((yield* ask("time:trace", { id: "1" }))["items"]).toHaveLength(next - 1)
    })))

  it.effect("what was removed is on no later page, though it was found before", () =>
    withRuntime(Effect.gen(function*() {
      const store = yield* EventStore
      yield* store.appendTo("a", [{ name: "a:noted", id: "root" }])
      for (const stream of ["b", "c"]) {
        yield* store.appendTo(stream, [{ name: `${stream}:noted`, attributes: { causationid: "root", correlationid: "root" } }])
      }
      const first = yield* ask("time:trace", { id: "root", limit: 1 })
      expect(first["items"]).toMatchObject([{ event: "a:noted" }])
      const second = yield* ask("time:trace", { id: "root", limit: 2 })
      expect(second["items"]).toMatchObject([{ event: "a:noted" }, { event: "b:noted" }])
      const lines = yield* ask("time:trace", { id: "root", as: "text", limit: 3 })
      yield* store.delete("b")
      const rest = yield* ask("time:trace", { id: "root", limit: 1, cursor: first["cursor"] })
      expect(rest["items"]).toMatchObject([{ event: "c:noted" }])
      // It was after one that is gone: nobody can say where that is.
      for (const [query, cursor] of [[{}, second["cursor"]], [{ as: "text" }, lines["cursor"]]] as const) {
        expect(yield* reasonOf(ask("time:trace", { id: "root", ...query, cursor }))).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "cursor" }] })
      }
    })))

  it.effect("keeps to the bytes of a page", () =>
    withRuntime(Effect.gen(function*() {
      yield* chain(40)
      const { items, sizes } = yield* pagesOf("time:trace", { id: "1" })
      expect(items).toHaveLength(40)
      expect(sizes.length).toBeGreaterThan(2)
      expect(sizes.every((size) => size <= 3000)).toBe(true)
    }), { pageBytes: 3000 }))

  it.effect("of more than 10,000 nodes has the first ones and says so", () =>
    withRuntime(Effect.gen(function*() {
      yield* chain(1000)
      for (let first = 1001; first <= 10_001; first += 1000) yield* chain(first === 10_001 ? 1 : 1000, first)
      const reply = yield* ask("time:trace", { id: "1", limit: 10_000 })
      const { items } = yield* pagesOf("time:trace", { id: "1", limit: 10_000 })
      expect(items).toHaveLength(10_000)
      expect(reply["truncated"]).toBe(true)
    })))

  it.effect("says what is wrong", () =>
    withRuntime(Effect.gen(function*() {
      expect(yield* reasonOf(ask("time:trace", { id: "nobody" }))).toMatchObject({ _tag: "NotFound", what: "request or fact" })
      expect(yield* reasonOf(ask("time:trace", { id: "x".repeat(2000) }))).toMatchObject({ _tag: "NotFound", id: `${"x".repeat(256)}…` })
      expect(yield* reasonOf(ask("time:trace", { id: "1", as: "svg" }))).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "as" }] })
      yield* chain(3)
      const { cursor } = yield* ask("time:trace", { id: "1", limit: 1 })
      for (const payload of [{ id: "2", cursor }, { id: "1", as: "text", cursor }, { id: "1", cursor: "x" }]) {
        expect(yield* reasonOf(ask("time:trace", payload))).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "cursor" }] })
      }
    })))
})

describe("time:test", () => {
  const Note = Event.make("note:write", { payload: { text: Schema.String } })
  const Noted = Event.fact("note:written", { payload: { text: Schema.String }, streamId: () => "notes" })
  const Notes = EventGroup.make(Note, Noted)
  const app = Ksi.serve(Notes).pipe(Layer.provide(Notes.toLayer(Effect.map(KsiService, (ksi) => ({
    "note:write": ({ text }: { readonly text: string }) => Effect.asVoid(Effect.orDie(ksi.emit(Noted, { text }))),
    "note:written": () => Effect.void
  })))))
  const noted = (text: string) => Effect.flatMap(KsiService, (ksi) => ksi.call(Note, { text }))

  it.effect("tells requests of a stream, of positions or of a trace as tests that import the app", () =>
    withRuntime(Effect.gen(function*() {
      yield* noted("one")
      yield* noted("two")
      const { text } = yield* ask("time:test", { stream: "notes", app: "../notes.ts", groups: ["Notes"] })
      expect(text).toContain("import app, { Notes as NotesEvents } from \"../notes.ts\"")
      expect(String(text).match(/it\.effect/g)).toHaveLength(2)
      const second = String((yield* ask("time:test", { from: 2, to: 2 }))["text"])
      expect(second).toContain("    .given(Written.of({ text: \"one\" }))\n    .when(Write, { text: \"two\" })\n    .thenEmits(Written.of({ text: \"two\" }))\n")
      const [fact] = yield* (yield* EventStore).read({ from: 2, limit: 1 })
      expect((yield* ask("time:test", { trace: fact?.id }))["text"]).toBe(second)
    }).pipe(Effect.provide(app))))

  it.effect("says what is wrong", () =>
    withRuntime(Effect.gen(function*() {
      expect(yield* reasonOf(ask("time:test", { trace: "nobody" }))).toMatchObject({ _tag: "NotFound" })
      for (const group of ["a b", "x } from \"evil\"; import { y", ""]) {
        expect(yield* reasonOf(ask("time:test", { groups: [group] }))).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "groups.0" }] })
      }
      yield* noted("x".repeat(5000))
      expect(yield* reasonOf(ask("time:test", {}))).toMatchObject({ _tag: "LimitExceeded", limit: "pageBytes" })
    }).pipe(Effect.provide(app)), { pageBytes: 3000 }))
})
