import { describe, expect, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as Event from "../../src/event/Event.ts"
import * as EventPattern from "../../src/event/EventPattern.ts"
import * as EventRegistry from "../../src/event/EventRegistry.ts"

const payload = { sku: Schema.String, quantity: Schema.Int }
const define = () => Event.make("stock:reserve", { payload, success: Schema.String })
const pattern = (text: string) => Result.getOrThrow(EventPattern.parse(text))
const refusal = (a: Event.Any, b: Event.Any) => {
  const registry = EventRegistry.make()
  registry.register(a)
  const result = registry.register(b)
  return Result.isFailure(result) ? result.failure : "accepted"
}

describe("register", () => {
  it("answers with the entry, and again with the same one", () => {
    const registry = EventRegistry.make()
    const event = define()
    const first = Result.getOrThrow(registry.register(event))
    expect(first.event).toBe(event)
    expect(Result.getOrThrow(registry.register(event))).toBe(first)
    // The same definition written twice, as two copies of one module do.
    expect(Result.getOrThrow(registry.register(define()))).toBe(first)
    expect(registry.get("stock:reserve")).toBe(first)
    expect(registry.get("stock:nothing")).toBe(undefined)
  })

  it("names both places of two different definitions", () => {
    const other = Event.make("stock:reserve", { payload: { ...payload, price: Schema.Int }, success: Schema.String })
    const message = refusal(define(), other)
    expect(message).toMatch(/"stock:reserve" is defined twice with different schemas: at .*EventRegistry\.test\.ts:8:\d+ and at .*EventRegistry\.test\.ts:\d+:\d+$/)
  })

  it("sees another version of the same data", () => {
    const fact = (version: number, upcast: Readonly<Record<number, (old: unknown) => unknown>>) => Event.fact("stock:reserved", { payload, streamId: () => "s", version, upcast })
    expect(refusal(fact(1, {}), fact(2, { 1: (old) => old }))).toContain("defined twice")
  })

  it.each([
    ["another success", Event.make("stock:reserve", { payload, success: Schema.Int })],
    ["another error", Event.make("stock:reserve", { payload, success: Schema.String, error: Schema.String })],
    ["a stream", Event.make("stock:reserve", { payload, success: Schema.String, stream: true })],
    ["another kind", Event.fact("stock:reserve", { payload, streamId: () => "s" })],
    ["a stricter field", Event.make("stock:reserve", { payload: { ...payload, quantity: Schema.Int.check(Schema.isGreaterThan(0)) }, success: Schema.String })]
  ])("sees %s", (_, other) => {
    expect(refusal(define(), other)).toContain("defined twice")
  })

  it("a refused definition leaves the first in place", () => {
    const registry = EventRegistry.make()
    const first = Result.getOrThrow(registry.register(define()))
    registry.register(Event.make("stock:reserve"))
    expect(registry.get("stock:reserve")).toBe(first)
  })
})

describe("looking up", () => {
  const registry = EventRegistry.make()
  for (const name of ["stock:reserve", "order:place", "stock:level:changed"] as const) registry.register(Event.make(name))
  const list = (text: string) => registry.list(pattern(text)).map(({ event }) => event.name)

  it("lists what a pattern matches, by name", () => {
    expect(list("*")).toEqual(["order:place", "stock:level:changed", "stock:reserve"])
    expect(list("stock:*")).toEqual(["stock:level:changed", "stock:reserve"])
    expect(list("none:*")).toEqual([])
  })

  it("says what may have been meant", () => {
    expect(registry.unknown("stock:resrve")).toMatchObject({ event: "stock:resrve", similar: ["stock:reserve"], namespaces: ["order", "stock"] })
    expect(registry.similar("stock:reserve")).toEqual([])
    expect(registry.similar("order:placed")).toEqual(["order:place"])
  })
})

describe("schemas", () => {
  it("are JSON Schema of every side; a fact has one", () => {
    class Gone extends Schema.TaggedError<Gone>()("Gone", { at: Schema.Date }) {}
    const all = EventRegistry.schemas(Event.make("demo:all", { payload, success: Schema.Date, error: Gone }))
    expect(all.payload).toMatchObject({ type: "object", required: ["sku", "quantity"], properties: { sku: { type: "string" }, quantity: { type: "integer" } } })
    expect(all.success).toMatchObject({ type: "string" })
    expect(JSON.stringify(all.error)).toContain("Gone")
    expect(EventRegistry.schemas(Event.fact("demo:was", { payload, streamId: () => "s" }))).toMatchObject({ success: undefined, error: undefined })
  })

  it("carry the definitions they refer to", () => {
    const Sku = Schema.String.annotate({ identifier: "Sku" })
    const { payload } = EventRegistry.schemas(Event.make("demo:ref", { payload: { a: Sku, b: Schema.Array(Sku) } }))
    const text = JSON.stringify(payload)
    for (const [, name] of text.matchAll(/"\$ref":"#\/\$defs\/(\w+)"/g)) expect(Object(Reflect.get(payload, "$defs"))).toHaveProperty(name ?? "")
  })
})
