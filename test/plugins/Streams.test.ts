import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Grant from "../../src/event/Grant.ts"
import * as Streams from "../../src/plugins/Streams.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import { ask, cloudEvent, pagesOf, reasonOf, withRuntime } from "./Builtins.ts"

const fill = (stream: string, count: number, first = 1) =>
  ask("store:import", { events: Array.from({ length: count }, (_, index) => cloudEvent(first + index, { subject: stream })) })

describe("what is kept of a stream", () => {
  it.effect("is set, told, applied, and the same in export, log and time travel", () =>
    withRuntime(Effect.gen(function*() {
      yield* fill("a", 6)
      yield* fill("b", 2, 7)
      expect(yield* ask("store:configure_stream", { stream: "a", settings: { maxCount: 2 } })).toEqual({ settings: { maxCount: 2 } })
      expect((yield* pagesOf("store:export", {})).items.length).toBe(8)
      expect(yield* (yield* EventStore.EventStore).retain).toBe(4)
      expect(yield* ask("store:stream_info", { stream: "a" })).toEqual({
        streamId: "a", version: 6, firstVersion: 5, count: 2, isDeleted: false, settings: { maxCount: 2 }
      })
      for (const limit of [1, 2, 100]) {
        expect((yield* pagesOf("store:export", { limit })).items.map(({ id }) => id)).toEqual(["5", "6", "7", "8"])
        expect((yield* pagesOf("store:export", { stream: "a", limit })).items.map(({ id }) => id)).toEqual(["5", "6"])
        expect((yield* pagesOf("store:read", { stream: "a", backward: true, limit })).items.map(({ id }) => id)).toEqual(["6", "5"])
      }
      expect((yield* pagesOf("time:at", { at: 8 })).items.map(({ streamId, version }) => [streamId, version])).toEqual([["a", 6], ["b", 2]])
      expect(yield* reasonOf(ask("time:at", { at: 2, stream: "a" }))).toMatchObject({ _tag: "NotFound" })
    })))

  it.effect("is its tombstone once it is deleted", () =>
    withRuntime(Effect.gen(function*() {
      yield* fill("a", 3)
      expect(yield* reasonOf(ask("store:delete_stream", { stream: "a", expectedVersion: 2 }))).toMatchObject({ _tag: "VersionConflict" })
      expect(yield* ask("store:delete_stream", { stream: "a", reason: "asked" })).toEqual({ already: false, version: 4 })
      expect(yield* ask("store:delete_stream", { stream: "a" })).toEqual({ already: true, version: 4 })
      expect((yield* pagesOf("store:read", { stream: "a" })).items).toMatchObject([{ type: "store:stream_deleted", data: { reason: "asked" } }])
      expect(yield* ask("store:import", { events: [cloudEvent(9, { subject: "a" }), cloudEvent(10, { subject: "b" })] }))
        .toMatchObject({ imported: 1, rejections: [{ index: 0, reason: "StreamDeleted" }] })
    })))

  it.effect("cannot be set for KSI's own streams, or wrongly", () =>
    withRuntime(Effect.gen(function*() {
      for (const payload of [{ stream: "ksi-permissions", settings: { maxCount: 1 } }, { stream: "a", settings: { maxCount: 0 } }]) {
        expect(yield* reasonOf(ask("store:configure_stream", payload))).toMatchObject({ _tag: "PayloadInvalid" })
      }
      expect(yield* reasonOf(ask("store:stream_info", { stream: "a" }))).toMatchObject({ _tag: "NotFound" })
    })))

  it("is the owner's to destroy", () => {
    for (const name of ["store:configure_stream", "store:delete_stream"]) expect(Grant.builtins[name]).toBe("owner")
  })
})

describe("layerRetaining", () => {
  it.effect("applies retention again and again", () =>
    Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      yield* store.configure("a", { maxAge: 60_000 })
      yield* store.appendTo("a", [{ name: "a:b" }])
      const count = Effect.map(store.details("a"), (details) => details.count)
      yield* TestClock.adjust("1 minute")
      expect(yield* count).toBe(1)
      yield* TestClock.adjust("1 minute")
      expect(yield* count).toBe(0)
    }).pipe(Effect.provide(Streams.layerRetaining("30 seconds").pipe(Layer.provideMerge(EventStore.layerMemory)))))
})
