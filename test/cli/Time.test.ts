import { expect, it } from "@effect/vitest"
import * as Time from "../../src/cli/Time.ts"

it("digits are a position, everything else is the daemon's to read", () => {
  expect(["41", "0", "2018-03-15T12:00:00Z", "2018", "-1", "1.5", "9".repeat(20)].map(Time.momentOf))
    .toEqual([41, 0, "2018-03-15T12:00:00Z", 2018, "-1", "1.5", "9".repeat(20)])
})
it("a state is stream, version, last event, its time, and the state on one line", () => {
  const item = { streamId: "order-1", version: 3, lastEvent: "order:paid", lastEventId: "e", timestamp: "2018-03-15T12:00:00Z", state: { paid: true } }
  expect(Time.columns(item)).toEqual(["order-1", "v3", "order:paid", "2018-03-15T12:00:00Z", "{\"paid\":true}"])
  expect(Time.columns({ streamId: "a", version: 1, lastEvent: "x" })).toEqual(["a", "v1", "x", "-", "null"])
})
