import { describe, expect, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { parseTime } from "../../src/event/CloudEvent.ts"
import * as Json from "../../src/event/Json.ts"
import * as Blame from "../../src/store/Blame.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import { append, Count, Counted, everything, factsOf, fold, memory, stores, streams } from "./histories.ts"

const { latest } = Projection

const stepsOf = (pointer: string) => pointer.split("/").slice(1).map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"))

const missing = Symbol("missing")
const isLeaf = (value: unknown) => Array.isArray(value) ? value.length === 0 : !Json.isObject(value) || Object.keys(value).length === 0

const leaves = (value: unknown): number =>
  isLeaf(value) || typeof value !== "object" || value === null ? 1 : Object.values(value).reduce<number>((sum, part) => sum + leaves(part), 0)

/** The value at a pointer where it is a leaf. */
const leafAt = (value: unknown, pointer: string): unknown => {
  let at = value
  for (const step of stepsOf(pointer)) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, step)) return missing
    at = Object.getOwnPropertyDescriptor(at, step)?.value
  }
  return isLeaf(at) ? at : missing
}

for (const [where, layer] of stores) {
  it.effect(`each field is blamed on the last fact that changed it, ${where}`, () =>
    Effect.gen(function*() {
      yield* append(factsOf(31, 90))
      const facts = yield* everything
      let checked = 0
      for (const streamId of streams) {
        for (const when of [{}, { position: 40n }, { instant: parseTime("2026-01-14T00:00:00Z") }]) {
          const own = facts.filter((fact) => fact.streamId === streamId && fact.position <= (when.position ?? 1000n) && fact.timestamp <= (when.instant ?? Infinity))
          const states = own.map((_, i) => fold(latest, own.slice(0, i + 1)))
          const blamed = yield* Blame.blame(latest, { streamId, ...when })
          for (const { fact, pointer, value } of blamed) {
            const values = [missing, ...states.map((state) => leafAt(state, pointer))]
            expect(Json.equal(values.at(-1), value), pointer).toBe(true)
            const last = values.findLastIndex((now, i) => i > 0 && (values[i - 1] === missing || !Json.equal(now, values[i - 1])))
            expect(fact?.position, `${streamId}${pointer}`).toBe(own[last - 1]?.position)
            checked++
          }
          expect(blamed).toHaveLength(states.length === 0 ? 1 : leaves(states.at(-1)))
        }
      }
      expect(checked).toBeGreaterThan(30)
    }).pipe(Effect.provide(layer)))
}

describe("blame", () => {
  const history = Effect.gen(function*() {
    const store = yield* EventStore.EventStore
    yield* store.appendTo("o", [
      { name: "o:made", data: { total: 5, lines: [{ sku: "tea" }, { sku: "milk" }], by: "ann" } },
      { name: "o:changed", data: { total: 7, lines: [{ sku: "tea" }, { sku: "rum" }], "e.f": 1 } },
      { name: "o:changed", data: { total: 5, by: "ann" } }
    ])
  })
  const versions = (options: { readonly field?: string; readonly position?: bigint } = {}) =>
    Effect.map(Blame.blame(latest, { streamId: "o", ...options }), (blamed) => blamed.map(({ fact, field }) => [field, fact?.version]))

  it.effect("a value that came back is the newest fact's, one said again is still the first one's", () =>
    Effect.gen(function*() {
      yield* history
      expect(yield* versions()).toEqual([["total", 3], ["lines[0].sku", 1], ["lines[1].sku", 2], ["by", 1], ["[\"e.f\"]", 2]])
      expect(yield* versions({ position: 2n })).toEqual([["total", 2], ["lines[0].sku", 1], ["lines[1].sku", 2], ["by", 1], ["[\"e.f\"]", 2]])
    }).pipe(Effect.provide(memory)))

  it.effect("asks for one field, or all within one, in either spelling; for one that is not there it knows the nearest", () =>
    Effect.gen(function*() {
      yield* history
      for (const field of ["lines[1].sku", "/lines/1/sku", "lines[1]", "/lines/1"]) expect(yield* versions({ field })).toEqual([["lines[1].sku", 2]])
      expect(yield* versions({ field: "lines" })).toHaveLength(2)
      expect(yield* versions({ field: "/e.f" })).toEqual([["[\"e.f\"]", 2]])
      const error = yield* Effect.flip(versions({ field: "totl" }))
      expect(error.reason).toMatchObject({ _tag: "NotFound", what: "field", similar: ["total"] })
      expect((yield* Effect.flip(versions({ field: "tota" }))).reason).toMatchObject({ _tag: "NotFound" })
    }).pipe(Effect.provide(memory)))

  it.effect("what stood in the initial state is nobody's; a state without fields is one itself", () =>
    Effect.gen(function*() {
      yield* append([{ id: "1", source: "/t", name: Counted.name, streamId: "a", data: { by: 2 }, time: undefined, attributes: {} }])
      const Pair = Projection.make("pair", {
        events: [Counted], state: Schema.Struct({ sum: Schema.Int, unit: Schema.String }), initial: { sum: 0, unit: "cups" },
        on: { [Counted.name]: (state, { by }) => ({ ...state, sum: state.sum + by }) }
      })
      expect((yield* Blame.blame(Pair, { streamId: "a" })).map(({ fact, field }) => [field, fact?.position])).toEqual([["sum", 1], ["unit", undefined]])
      expect((yield* Blame.blame(Count, { streamId: "a" })).map(({ fact, field, value }) => [field, value, fact?.position])).toEqual([["", 2, 1]])
      expect((yield* Effect.flip(Blame.blame(Count, { streamId: "b" }))).reason).toMatchObject({ _tag: "NotFound", what: "stream" })
    }).pipe(Effect.provide(memory)))
})
