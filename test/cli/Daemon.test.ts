import { describe, expect, it } from "@effect/vitest"
import * as Daemon from "../../src/cli/Daemon.ts"

describe("uptime", () => {
  for (
    const [seconds, text] of [
      [0, "0 s"], [0.9, "0 s"], [59, "59 s"], [60, "1 min"], [61, "1 min 1 s"], [3600, "1 h"], [3601, "1 h"],
      [3725, "1 h 2 min"], [86_400, "1 d"], [90_061, "1 d 1 h"], [86_400 * 400 + 60, "400 d"]
    ] as const
  ) {
    it(`${seconds} s is ${text}`, () => expect(Daemon.uptime(seconds)).toBe(text))
  }
})
