import { describe, expect, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { KsiService } from "../../src/bus/KsiService.ts"
import { Router } from "../../src/bus/Router.ts"
import * as Limits from "../../src/event/Limits.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import * as Control from "../../src/wire/Control.ts"
import { Plain, runtime, start } from "./Daemon.ts"

describe("without a connection", () => {
  it.effect("every one of them says where it belongs", () =>
    Effect.gen(function*() {
      const ksi = yield* KsiService
      const payloads = {
        "wire:hello": { version: 1 },
        "pubsub:subscribe": { pattern: "*", subscription_id: "s" },
        "pubsub:unsubscribe": { subscription_id: "s" },
        "stream:cancel": { stream_id: "s" },
        "monitor:subscribe": {},
        "monitor:unsubscribe": {}
      }
      expect(Object.keys(payloads)).toEqual(Object.keys(Control.Group.events))
      for (const [name, payload] of Object.entries(payloads)) {
        expect(Control.isControl(name)).toBe(true)
        const error = yield* Effect.flip(ksi.dispatch(name, payload))
        expect(error instanceof KsiError ? error.reason : error).toMatchObject({ _tag: "WrongShape", expected: "connection", event: name })
      }
      expect(Control.isControl("pubsub:other")).toBe(false)
    }).pipe(Effect.provide(runtime())))

  it.effect("they are described as any other event", () =>
    Effect.gen(function*() {
      const { registry } = yield* Router
      for (const event of Object.values(Control.Group.events)) {
        expect(registry.get(event.name)?.event).toBe(event)
        for (const example of event.annotations.examples ?? []) {
          expect(Schema.is(event.payload as Schema.Codec<unknown>)(example), `${event.name} ${JSON.stringify(example)}`).toBe(true)
        }
      }
    }).pipe(Effect.provide(runtime())))
})

describe("over a connection", () => {
  it.live("the greeting tells version, limits and principal; another version learns which is spoken", () =>
    Effect.gen(function*() {
      const { path } = yield* start()
      const plain = yield* Plain.connect(path)
      const hello = yield* plain.ask({ event: "wire:hello", version: 1, correlation_id: 1 })
      expect(hello).toMatchObject({ ok: true, data: { status: "success", version: 1, principal: "owner", limits: { ...Limits.defaults } } })
      const other = yield* plain.ask({ event: "wire:hello", version: 2 })
      expect(other.data).toMatchObject({ reason: "PayloadInvalid" })
      expect(other.data.error).toContain("speaks version 1")
      const missing = yield* plain.ask({ event: "wire:hello" })
      expect(missing.data.details.problems).toEqual([{ path: "version", problem: "is missing" }])
    }))

  it.live("an unknown token does not pass for the owner", () =>
    Effect.gen(function*() {
      const { path } = yield* start()
      const plain = yield* Plain.connect(path)
      const refused = yield* plain.ask({ event: "wire:hello", version: 1, token: "guess" })
      expect(refused.ok).toBe(false)
      expect(refused.data).toMatchObject({ reason: "Unauthenticated", cause: "ksi", retryable: false })
      expect(JSON.stringify(refused)).not.toContain("guess")
    }))

  it.live("positions that are none are refused", () =>
    Effect.gen(function*() {
      const { path } = yield* start()
      const plain = yield* Plain.connect(path)
      for (const from of [-1, 1.5, "yesterday", null]) {
        const refused = yield* plain.ask({ event: "pubsub:subscribe", pattern: "*", subscription_id: "s", from })
        expect(refused.data.reason).toBe("PayloadInvalid")
      }
    }))
})
