import { expect, it } from "@effect/vitest"
import * as Dead from "../../src/cli/Dead.ts"

it("a letter is its number, when, what, who, why, how often, and what it said", () => {
  const item = {
    letter: 12, timestamp: 1521115200.5, event: "order:placed", handler: "order:placed#2", reason: "timed-out", reruns: 2, error: "30 s"
  }
  expect(Dead.columns(item))
    .toEqual(["12", "2018-03-15T12:00:00.500Z", "order:placed", "order:placed#2", "timed-out", "2", "30 s"])
  expect(Dead.columns({ ...item, reruns: 0 })[5]).toBe("0")
})
