// What `ksi stream` says is tried against a daemon in test/scenarios/stream.test.ts.
import { expect, it } from "vitest"
import { countProblem } from "../../src/cli/StreamRequest.ts"

it("a limit is one or more, or none", () => {
  expect([undefined, 1, 1000].map((count) => countProblem("limit", count))).toEqual([undefined, undefined, undefined])
  expect([0, -1].map((count) => countProblem("limit", count))).toEqual(["--limit: expected 1 or more, found 0", "--limit: expected 1 or more, found -1"])
})
