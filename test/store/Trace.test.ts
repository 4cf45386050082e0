import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Activity } from "../../src/bus/Activity.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import { Router } from "../../src/bus/Router.ts"
import type { NewFact } from "../../src/event/CloudEvent.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Trace from "../../src/store/Trace.ts"

class NoBoxes extends Schema.TaggedError<NoBoxes>()("NoBoxes", { left: Schema.Int }) {}
const Sku = { sku: Schema.String }
const Buy = Event.make("shop:buy", { payload: Sku, error: NoBoxes })
const Pack = Event.make("shop:pack", { payload: Sku, error: NoBoxes })
const Ship = Event.make("shop:ship", { payload: Sku })
const Bought = Event.fact("shop:bought", { payload: Sku, streamId: ({ sku }) => `order-${sku}` })
const Shipped = Event.fact("shop:shipped", { payload: Sku, streamId: ({ sku }) => `parcel-${sku}` })
const Shop = EventGroup.make(Buy, Pack, Ship, Bought, Shipped)

// Buy takes 3 + 2 x 20 + 1 ms; its fact is followed by a ship of 30 ms, 5 ms later.
const handlers = Shop.toLayer(Effect.gen(function*() {
  const ksi = yield* Ksi
  return {
    *"shop:buy"({ sku }) {
      yield* Effect.sleep(3)
      yield* Effect.all([ksi.call(Pack, { sku }), Effect.delay(ksi.call(Pack, { sku: `${sku}-2` }), 20)], { concurrency: 2 })
      yield* Effect.sleep(1)
      yield* ksi.emit(Bought, { sku })
    },
    *"shop:pack"({ sku }) {
      yield* Effect.sleep(20)
      if (sku.startsWith("none")) return yield* new NoBoxes({ left: 0 })
    },
    *"shop:bought"({ sku }) {
      yield* Effect.sleep(5)
      yield* ksi.call(Ship, { sku })
    },
    *"shop:ship"({ sku }) {
      yield* Effect.sleep(30)
      yield* ksi.emit(Shipped, { sku })
    },
    *"shop:shipped"() {}
  }
}))
const app = (below = Ksi.layerMemory) => Ksi.serve(Shop).pipe(Layer.provide(handlers), Layer.provideMerge(below))

/** Time passes until all that was asked, and what came of it, has ended. */
const during = <A, E, R>(asking: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(asking)
    for (let millis = 0; millis < 100; millis++) yield* TestClock.adjust(1)
    yield* (yield* Router).settled
    return yield* Fiber.join(fiber)
  })
const buy = (sku: string) => during(Effect.flatMap(KsiService, (ksi) => ksi.call(Buy, { sku })))
const shapeOf = ({ nodes }: Trace.Trace) =>
  nodes.map((node) => [node.kind === "missing" ? node.id : node.event, nodes.find(({ id }) => id === node.parent)?.depth ?? null, node.offset])

describe("Trace.of", () => {
  const whole = Effect.gen(function*() {
    yield* TestClock.adjust("1 day")
    yield* buy("tea")
    yield* buy("rice")
    const store = yield* EventStore
    const [fact] = yield* store.read({ from: 1, limit: 1 })
    const trace = yield* Trace.of(fact?.id ?? "")
    expect(trace.nodes.map((node) => node.kind === "missing" ? [] : [node.kind, node.event, node.depth, node.offset])).toEqual([
      ["request", "shop:buy", 0, 0], ["request", "shop:pack", 1, 3], ["request", "shop:pack", 1, 23], ["fact", "shop:bought", 1, 44],
      ["request", "shop:ship", 2, 49], ["fact", "shop:shipped", 3, 79]
    ])
    expect(trace).toMatchObject({ id: fact?.id, duration: 79, more: false })
    const [root, , , bought, ship, shipped] = trace.nodes
    // Two packs of 20 ms, one after the other.
    expect(root).toMatchObject({ parent: null, duration: 44, own: 4, outcome: "success", principal: "owner", timestamp: "1970-01-02T00:00:00.000Z" })
    expect(bought).toMatchObject({ parent: root?.id, position: 1, version: 1, streamId: "order-tea", timestamp: "1970-01-02T00:00:00.044Z" })
    expect([ship?.parent, shipped?.parent]).toEqual([bought?.id, ship?.id])
    for (const { id } of trace.nodes) expect((yield* Trace.of(id)).nodes).toEqual(trace.nodes)
  })
  it.effect("is the tree of requests and facts, by any of their ids, over streams", () => Effect.provide(whole, app()))
  it.effect("is the same on disk", () =>
    Effect.gen(function*() {
      const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-trace-"))
      yield* Effect.provide(whole, app(Ksi.layerSqlite({ filename: Path.join(folder, "ksi.db") }).pipe(Layer.orDie)))
      Fs.rmSync(folder, { recursive: true })
    }))

  it.effect("tells what failed, with the tag of a declared error", () =>
    Effect.gen(function*() {
      yield* Effect.exit(buy("none"))
      const { records: [first] } = yield* (yield* Activity).query({ limit: 1, forward: true })
      const { nodes } = yield* Trace.of(first?.id ?? "")
      expect(nodes.filter((node) => node.kind === "request").map(({ event, outcome, reason }) => [event, outcome, reason])).toEqual([
        ["shop:buy", "failure", "NoBoxes"], ["shop:pack", "failure", "NoBoxes"]
      ])
    }).pipe(Effect.provide(app())))

  it.effect("by the label of a client is all that it was given to", () =>
    Effect.gen(function*() {
      const ksi = yield* KsiService
      for (const sku of ["tea", "rice"]) yield* during(ksi.dispatch("shop:buy", { sku }, { clientCorrelationId: "mine" }))
      const { nodes } = yield* Trace.of("mine")
      expect(nodes).toHaveLength(12)
      expect(nodes.filter(({ parent }) => parent === null).map(({ depth, kind }) => [kind, depth])).toEqual([["request", 0], ["request", 0]])
    }).pipe(Effect.provide(app())))

  it.effect("says of what causes nothing is recorded, and where they stood", () =>
    Effect.gen(function*() {
      yield* buy("tea")
      const ship = (yield* (yield* EventStore).byId((yield* (yield* EventStore).read({ from: 2, limit: 1 }))[0]?.id ?? ""))[0]
      const { nodes } = yield* Trace.of(ship?.id ?? "")
      // Who knows what the ship came of: all that its fact says is what it belongs to, and how deep it is.
      expect(nodes.map(({ depth, kind, parent }) => [kind, depth, nodes.findIndex(({ id }) => id === parent)])).toEqual([
        ["missing", 0, -1], ["fact", 1, 0], ["missing", 2, 0], ["fact", 3, 2]
      ])
    }).pipe(Effect.provide(app(Ksi.layerMemoryWith({ audit: "off" })))))

  const given = (...facts: ReadonlyArray<readonly [id: string, attributes: NewFact["attributes"]]>) =>
    Effect.flatMap(EventStore, (store) =>
      store.append({
        facts: facts.map(([id, attributes]) => ({ id, source: "/there", name: "a:b", streamId: "a", data: {}, time: undefined, attributes }))
      }))
  const memory = Effect.provide(Ksi.layerMemory)

  it.effect("hangs what lies deeper below its root where what is between is not recorded", () =>
    Effect.gen(function*() {
      yield* given(["root", {}], ["deep", { correlationid: "root", causationid: "gone", depth: 5 }])
      expect(shapeOf(yield* Trace.of("root"))).toEqual([["a:b", null, 0], ["gone", 0, 0], ["a:b", 4, 0]])
      yield* given(["orphan", { correlationid: "far", causationid: "near", depth: 2 }])
      expect(shapeOf(yield* Trace.of("far"))).toEqual([["far", null, 0], ["near", 0, 0], ["a:b", 1, 0]])
    }).pipe(memory))

  it.effect("ends where foreign facts claim to have caused each other, or themselves", () =>
    Effect.gen(function*() {
      const by = (causationid: string) => ({ correlationid: "c", causationid, depth: 1 })
      yield* given(["1", by("2")], ["2", by("1")], ["3", by("3")], ["4", by("1")])
      const { nodes } = yield* Trace.of("c")
      expect(nodes.map(({ id }) => id).toSorted()).toEqual(["1", "2", "3", "4"])
      expect(Trace.text({ id: "c", nodes, duration: 0, more: false })).toHaveLength(5)
    }).pipe(memory))

  it.effect("of more than is wanted has the first ones, and says that there is more", () =>
    Effect.gen(function*() {
      yield* given(["c", {}], ...Array.from({ length: 40 }, (_, n) => [`${n}`, { correlationid: "c", causationid: "c", depth: 1 }] as const))
      for (const [limit, more] of [[10, true], [40, true], [41, false]] as const) {
        const trace = yield* Trace.of("c", { limit })
        expect([trace.nodes.length, trace.more, trace.nodes[0]?.id, trace.nodes[1]?.id]).toEqual([limit, more, "c", "0"])
      }
      const error = yield* Effect.flip(Trace.of("nobody"))
      expect(error.reason).toMatchObject({ _tag: "NotFound", id: "nobody", next: "ksi call event_log:query" })
    }).pipe(memory))
})

const node = (id: string, parent: string | null, more: Partial<Trace.RequestNode> = {}): Trace.RequestNode => ({
  kind: "request", id, parent, event: `a:${id}`, depth: 0, offset: 0, timestamp: "1970-01-01T00:00:00.000Z", principal: "owner", outcome: "success", duration: 5, own: 5, ...more
})
const fact = (id: string, parent: string | null, more: Partial<Trace.FactNode> = {}): Trace.FactNode => ({
  kind: "fact", id, parent, event: `a:${id}`, depth: 0, offset: 0, timestamp: "1970-01-01T00:00:00.000Z", principal: "owner", position: 7, version: 2, streamId: "s", ...more
})

describe("a drawing", () => {
  const trace: Trace.Trace = {
    id: "f",
    duration: 90_061_000,
    more: true,
    nodes: [
      node("r", null, { duration: 1234.5, own: 0.25, principal: "ann" }),
      node("x", "r", { offset: 1000, duration: 8.214, own: 8.214, outcome: "failure", reason: "NoBoxes", error: "", principal: "ann" }),
      fact("f", "r", { offset: 61_000, principal: "ann" }),
      { kind: "missing", id: "m", parent: "f", depth: 2, offset: 7_500_000 },
      fact("d", "m", { offset: 90_061_000, principal: "bob" }),
      node("y", "r", { offset: -2, outcome: "defect", error: "it broke", principal: "ann" })
    ]
  }
  it("as text aligns times, and marks facts, failures, what is missing and what was asked for", () => {
    expect(Trace.text(trace)).toEqual([
      "3 requests, 2 facts, 2 failed in 1 d 1 h; there is more, which is left out",
      "     +0 ms   1.23 s  a:r  own 0.25 ms  ann",
      "      +1 s  8.21 ms  ├─ ✗ a:x  NoBoxes",
      "+1 min 1 s           ├─ • a:f  #7  s v2  ←",
      "+2 h 5 min           │  └─ ? m  not recorded: it still runs, or its record is gone",
      "  +1 d 1 h           │     └─ • a:d  #7  s v2  bob",
      "     -2 ms     5 ms  └─ ✗ a:y  defect: it broke"
    ])
  })
  it("is cut to a width by what is seen, not by colours, and is otherwise the same", () => {
    const stripped = (lines: ReadonlyArray<string>) => lines.map((line) => line.replaceAll(/\p{Cc}\[\d*m/gu, ""))
    const coloured = Trace.text(trace, { coloured: true, width: 30 })
    expect(coloured.join("")).toContain("\u001b[31m")
    expect(stripped(coloured)).toEqual(Trace.text(trace, { width: 30 }))
    expect(Math.max(...stripped(coloured).map((line) => Array.from(line).length))).toBe(30)
    expect(stripped(Trace.text(trace, { coloured: true }))).toEqual(Trace.text(trace))
  })
  it("has no character of a foreign name that a terminal would obey", () => {
    const evil = "\u001b[2J\n\u009b31m\u0007"
    const lines = Trace.text({ ...trace, nodes: [node("r", null, { event: evil, error: evil, outcome: "failure", principal: evil }), fact("f", "r", { event: evil, streamId: evil }), { kind: "missing", id: evil, parent: "f", depth: 0, offset: 0 }] })
    expect(lines.join("")).not.toMatch(/\p{Cc}/u)
    expect(lines).toHaveLength(4)
  })
  it("as Mermaid has labels that are quoted, without a character that means something", () => {
    const evil = "a\"]; click n0 \"javascript:x\" %% <b>&#35;`|{}()[]\n-->"
    const lines = Trace.mermaid({ ...trace, nodes: [...trace.nodes, node("z", "y", { event: evil, error: evil, outcome: "defect" }), { kind: "missing", id: evil, parent: null, depth: 0, offset: 0 }] })
    expect(lines.slice(0, 4)).toEqual([
      "flowchart TD",
      "  n0[\"a:r<br/>1.23 s\"]",
      "  n0 -->|\"+1 s\"| n1[\"a:x<br/>8.21 ms<br/>NoBoxes\"]:::failed",
      "  n0 -->|\"+1 min 1 s\"| n2([\"a:f<br/>#35;7  s v2\"])"
    ])
    // What Mermaid's grammar takes for a node, an edge with a label, a class.
    const label = /"(?:[\p{L}\p{N} .,:/+_\u00b7-]|#\d+;|<br\/>)*"/u.source
    const box = `n\\d+(?:\\[${label}\\]|\\(\\[${label}\\]\\))(?::::(?:failed|missing))?`
    const line = new RegExp(`^(?:flowchart TD|  (?:n\\d+ -->\\|${label}\\| )?${box}|  classDef \\w+ [\\w:#,-]+)$`, "u")
    for (const each of lines) expect(each).toMatch(line)
  })
})
