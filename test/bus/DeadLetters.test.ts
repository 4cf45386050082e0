import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"

it.effect("off: nothing is kept, and nobody fails for it", () =>
  Effect.gen(function*() {
    const dead = yield* DeadLetters
    const event = { id: "1", name: "a:b", data: 1, streamId: "s", position: 1, attributes: {} }
    expect(dead.record({ handler: "a:b#1", reason: "failed", error: "no", event, timestamp: 0 })).toBe(undefined)
    expect(yield* dead.list({ limit: 10 })).toEqual({ letters: [], total: 0 })
    expect(yield* dead.discard([1])).toBe(0)
    for (const gone of [dead.get(1), dead.rerun(1, "no")]) {
      expect((yield* Effect.flip(gone)).reason).toMatchObject({ _tag: "NotFound", what: "dead letter", id: "1" })
    }
  }).pipe(Effect.provide(DeadLetters.layerOff)))
