// A subscription over a way that is cut leaves nothing out and repeats nothing. `npm run soak -- cuts` does it at a thousand points.
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { cutting } from "./Cutting.ts"

it.live.each([1, 2, 3])("seed %i: no gap, nothing twice", (seed) =>
  Effect.gen(function*() {
    const { cuts, positions } = yield* cutting(seed, 150)
    expect(positions).toEqual(Array.from({ length: 150 }, (_, n) => n + 1))
    expect(cuts).toBeGreaterThan(0)
  }), 60_000)
