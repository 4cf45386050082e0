import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import * as StreamSettings from "../../src/store/StreamSettings.ts"

// Versions 3 to 7, stored at 30 to 70.
const held = { first: 3, last: 7, now: 100, recordedAt: (version: number) => version * 10 }

describe("StreamSettings.firstKept", () => {
  it.each([
    [{}, 3],
    [{ maxCount: 5 }, 3],
    [{ maxCount: 2 }, 6],
    [{ maxCount: 1 }, 7],
    [{ truncateBefore: 2 }, 3],
    [{ truncateBefore: 5 }, 5],
    [{ truncateBefore: 900 }, 8],
    // Exactly as old as it may be.
    [{ maxAge: 50 }, 5],
    [{ maxAge: 49 }, 6],
    [{ maxAge: 10 }, 8],
    [{ maxAge: 1000 }, 3],
    [{ maxAge: 60, maxCount: 2, truncateBefore: 4 }, 6],
    [{ maxAge: 31, maxCount: 4, truncateBefore: 4 }, 7]
  ])("%j keeps version %i and what follows", (settings, first) => {
    expect(StreamSettings.firstKept(settings, held)).toBe(first)
  })

  it("looks at few facts of a long stream", () => {
    let looks = 0
    const recordedAt = (version: number) => {
      looks++
      return version
    }
    expect(StreamSettings.firstKept({ maxAge: 400_000 }, { first: 1, last: 1_000_000, now: 1_000_000, recordedAt })).toBe(600_000)
    expect(looks).toBeLessThan(25)
  })
})

describe("StreamSettings.check", () => {
  it("takes what is valid as it is", () => {
    const settings = { maxCount: 1, maxAge: 2, truncateBefore: 3, metadata: { a: [null] } }
    expect(Result.getOrThrow(StreamSettings.check(settings))).toEqual(settings)
    expect(Result.getOrThrow(StreamSettings.check({}))).toEqual({})
  })

  it.each([{ maxCount: 0 }, { maxCount: "2" }, { maxAge: 0.5 }, { truncateBefore: null }, { metadata: [] }, { max: 1 }, 7])(
    "says in one sentence why %j is none", (value) => {
      const checked = StreamSettings.check(value)
      expect(Result.isFailure(checked) && checked.failure).toMatch(/^[^\n]+$/)
    })
})
