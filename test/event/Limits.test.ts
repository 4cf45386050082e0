import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Limits from "../../src/event/Limits.ts"

it.effect("every limit is a positive whole number", () =>
  Effect.gen(function*() {
    const limits = yield* Limits.Limits
    expect(limits).toBe(Limits.defaults)
    for (const [name, value] of Object.entries(limits)) {
      expect(Number.isSafeInteger(value) && value > 0, `${name} = ${value}`).toBe(true)
    }
  }))

it.effect("one may be replaced for a part of the program", () =>
  Effect.gen(function*() {
    const inside = yield* Effect.map(Limits.Limits, ({ depth }) => depth).pipe(
      Effect.provideService(Limits.Limits, { ...Limits.defaults, depth: 3 })
    )
    expect(inside).toBe(3)
    expect((yield* Limits.Limits).depth).toBe(Limits.defaults.depth)
  }))
