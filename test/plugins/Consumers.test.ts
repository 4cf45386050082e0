import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import * as Event from "../../src/event/Event.ts"
import * as Consumer from "../../src/store/Consumer.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import { ask, pagesOf, reasonOf, withRuntime } from "./Builtins.ts"

const Placed = Event.fact("order:placed", { payload: { n: Schema.Int }, streamId: ({ n }) => `order-${n % 2}` })

describe("consumer:*", () => {
  it.effect("tells what is parked in pages, has it handled again, or gives it up", () =>
    withRuntime(Effect.gen(function*() {
      let broken = true
      yield* Layer.build(Consumer.layer("billing", {
        events: [Placed], start: "start", maxAttempts: 1, handler: () => broken ? Effect.fail("no paper") : Effect.void
      }))
      const store = yield* EventStore
      for (let n = 1; n <= 6; n++) yield* store.appendTo(`order-${n % 2}`, [{ name: Placed.name, data: { n } }])
      yield* Consumer.settled("billing")
      const { items, pages } = yield* pagesOf("consumer:parked", { group: "billing", limit: 4 })
      expect(items).toEqual([1, 2, 3, 4, 5, 6].map((position) => ({
        position, streamId: `order-${position % 2}`, parkedAt: "1970-01-01T00:00:00.000Z", ...(position < 3 ? { attempts: 1, error: "no paper" } : { attempts: 0 })
      })))
      expect(pages).toBe(2)
      expect((yield* ask("consumer:parked", { group: "billing", stream: "order-0" }))["items"]).toHaveLength(3)
      expect(yield* ask("consumer:retry", { group: "billing", stream: "order-1" })).toEqual({ handled: 0, parked: 6 })
      broken = false
      expect(yield* ask("consumer:discard", { group: "billing", positions: [1, 77] })).toEqual({ discarded: 1 })
      expect(yield* ask("consumer:retry", { group: "billing", stream: "order-1" })).toEqual({ handled: 2, parked: 3 })
      expect(yield* ask("consumer:retry", { group: "billing" })).toEqual({ handled: 3, parked: 0 })
      expect(yield* ask("consumer:list")).toEqual({
        items: [{ group: "billing", status: "following", position: 6, lag: 0, pending: 0, parked: 0, members: 8 }]
      })
      for (const [event, payload] of [["parked", {}], ["retry", {}], ["discard", { positions: [1] }]] as const) {
        expect(yield* reasonOf(ask(`consumer:${event}`, { group: "biling", ...payload }))).toMatchObject({ _tag: "NotFound", similar: ["billing"] })
      }
      expect(yield* reasonOf(ask("consumer:discard", { group: "billing", positions: [] }))).toMatchObject({ _tag: "PayloadInvalid" })
    })))

  it.effect("a group that has set too much aside is blocked, and health says its name until there is room", () =>
    withRuntime(Effect.gen(function*() {
      yield* Layer.build(Consumer.layer("billing", { events: [Placed], start: "start", maxAttempts: 1, maxParked: 1, concurrency: 1, handler: () => Effect.fail("no paper") }))
      const store = yield* EventStore
      expect(yield* ask("system:health")).not.toHaveProperty("blocked_consumers")
      for (let n = 1; n <= 2; n++) yield* store.appendTo(`order-${n}`, [{ name: Placed.name, data: { n } }])
      while (!("blocked_consumers" in (yield* ask("system:health")))) yield* Effect.yieldNow
      expect(yield* ask("system:health")).toMatchObject({ blocked_consumers: ["billing"] })
      expect((yield* ask("consumer:list"))["items"]).toMatchObject([{ group: "billing", status: "blocked", parked: 1 }])
      yield* ask("consumer:discard", { group: "billing", positions: [1] })
      while ("blocked_consumers" in (yield* ask("system:health"))) yield* Effect.yieldNow
      yield* Consumer.settled("billing")
      expect((yield* ask("consumer:list"))["items"]).toMatchObject([{ status: "following", position: 2, parked: 1 }])
    })))
})
