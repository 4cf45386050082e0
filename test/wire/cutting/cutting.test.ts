// A subscription, and a stream with a cursor, over a way that is cut leave nothing out and repeat nothing. `npm run soak -- cuts` does it at a thousand points.
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { cutting } from "./Cutting.ts"

it.live.each([1, 2, 3])("seed %i: no gap, nothing twice", (seed) =>
  Effect.gen(function*() {
    const { cuts, items, positions } = yield* cutting(seed, 150)
    expect(positions).toEqual(Array.from({ length: 150 }, (_, n) => n + 1))
    expect(items).toEqual(positions)
    expect(cuts).toBeGreaterThan(0)
  }), 60_000)
