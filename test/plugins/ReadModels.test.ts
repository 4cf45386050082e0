import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import * as Event from "../../src/event/Event.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as ReadModel from "../../src/store/ReadModel.ts"
import { ask, cloudEvent, pagesOf, reasonOf, withRuntime } from "./Builtins.ts"

const Reserved = Event.fact("stock:reserved", {
  payload: { sku: Schema.String, quantity: Schema.Int }, streamId: ({ sku }) => `stock-${sku}`
})
const Held = Projection.make("held", {
  events: [Reserved], state: Schema.Int, initial: 0, key: ({ sku }) => sku,
  on: {
    [Reserved.name]: (held, { quantity }) => {
      if (quantity === 0) throw new Error("nothing is reserved")
      return held + quantity
    }
  }
})
const reserve = (sku: string, quantity: number) =>
  Effect.flatMap(EventStore, (store) => store.appendTo(`stock-${sku}`, [{ name: Reserved.name, data: { sku, quantity } }]))

describe("projection:*", () => {
  it.effect("tells the states in pages, by key and by prefix", () =>
    withRuntime(Effect.gen(function*() {
      yield* Layer.build(ReadModel.layer(Held))
      for (const sku of ["tea", "table", "cup"]) yield* reserve(sku, 2)
      yield* reserve("tea", 3)
      yield* ReadModel.waitFor(Held, 4)
      const { items, pages } = yield* pagesOf("projection:get", { projection: "held", limit: 2 })
      expect(items).toEqual([{ key: "cup", state: 2, position: 3 }, { key: "table", state: 2, position: 2 }, { key: "tea", state: 5, position: 4 }])
      expect(pages).toBe(2)
      expect((yield* ask("projection:get", { projection: "held", key: "tea" }))["items"]).toEqual([items[2]])
      expect((yield* ask("projection:get", { projection: "held", key: "pot" }))["items"]).toEqual([])
      expect((yield* ask("projection:get", { projection: "held", prefix: "t" }))["items"]).toEqual(items.slice(1))
      expect(yield* reasonOf(ask("projection:get", { projection: "hold" }))).toMatchObject({ _tag: "NotFound", similar: ["held"] })
      expect(yield* ask("projection:list")).toEqual({
        items: [
          { projection: "held", timeTravel: false, status: "following", mode: "async", position: 4, lag: 0 },
          { projection: "latest", timeTravel: true }
        ]
      })
    })))

  it.effect("lists what time:* can be asked for, as long as it is served", () =>
    withRuntime(Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Layer.build(Layer.merge(ReadModel.layer(Held), Projection.serve(Held)))
        expect(yield* ask("projection:list")).toMatchObject({ items: [{ projection: "held", timeTravel: true, status: "following" }, { projection: "latest" }] })
        expect(yield* reasonOf(ask("time:at", { at: "now", projection: "hold" }))).toMatchObject({ _tag: "NotFound", similar: ["held"], next: "ksi projection ls" })
      }))
      // Its states are kept.
      expect(yield* ask("projection:list")).toMatchObject({ items: [{ projection: "held", timeTravel: false, status: "idle" }, { projection: "latest", timeTravel: true }] })
    })))

  it.effect("builds one anew, and tells of one that has stopped", () =>
    withRuntime(Effect.gen(function*() {
      yield* Layer.build(ReadModel.layer(Held))
      yield* reserve("tea", 2)
      yield* ReadModel.waitFor(Held, 1)
      expect(yield* ask("projection:rebuild", { projection: "held" })).toEqual({ projection: "held", status: "rebuilding" })
      expect(yield* reasonOf(ask("projection:rebuild", { projection: "hold" }))).toMatchObject({ _tag: "NotFound" })
      for (let turns = 0; turns < 10; turns++) yield* Effect.yieldNow
      expect(yield* ask("projection:list")).toMatchObject({ items: [{ status: "following" }, { projection: "latest" }] })
      yield* reserve("tea", 0)
      yield* Effect.exit(ReadModel.waitFor(Held, 2))
      expect(yield* ask("projection:list")).toEqual({
        items: [
          { projection: "held", timeTravel: false, status: "failed", mode: "async", position: 1, lag: 1, failedPosition: 2, problem: "nothing is reserved" },
          { projection: "latest", timeTravel: true }
        ]
      })
    })))

  it.effect("a fact that an inline model cannot fold is refused for good, and the others of its import get in", () =>
    withRuntime(Effect.gen(function*() {
      yield* Layer.build(ReadModel.layer(Held, { mode: "inline" }))
      const refused = yield* reasonOf(reserve("tea", 0))
      expect(refused).toMatchObject({ _tag: "StoreFailure", refused: true, retryable: false, next: "ksi projection ls" })
      const events = [1, 2, 0, 4, 0].map((quantity, n) =>
        cloudEvent(n, { type: Reserved.name, subject: "stock-cup", data: { sku: "cup", quantity } }))
      const reply = yield* ask("store:import", { events })
      const problem = "the store failed to keep the inline read model \"held\": stock:reserved in \"stock-cup\": nothing is reserved"
      expect(reply).toMatchObject({
        imported: 3, duplicates: 0, position: 3,
        rejections: [{ index: 2, reason: "StoreFailure", error: problem }, { index: 4, reason: "StoreFailure", error: problem }]
      })
      expect((yield* ask("projection:get", { projection: "held", key: "cup" }))["items"]).toEqual([{ key: "cup", state: 7, position: 3 }])
    })))
})
