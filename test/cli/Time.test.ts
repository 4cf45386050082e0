import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
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
it.effect("edits of a branch are read from the command line, drops first, and refused in words", () =>
  Effect.gen(function*() {
    const said = { drop: ["41", "e-7"], replace: ["42 {\"total\": 5}", "e-8  null"], insert: ["0 order:noted", "40 order:noted {\"text\":\"a b\"}"] }
    expect(yield* Time.editsOf(said)).toEqual([
      { drop: 41 }, { drop: "e-7" }, { replace: 42, data: { total: 5 } }, { replace: "e-8", data: null },
      { insert: { name: "order:noted" }, after: 0 }, { insert: { name: "order:noted", data: { text: "a b" } }, after: 40 }
    ])
    const none = { drop: [], replace: [], insert: [] }
    for (const wrong of [{ ...none, replace: ["41"] }, { ...none, replace: ["41 {total:5}"] }, { ...none, insert: ["order:noted {}"] }, { ...none, insert: ["40 order:noted nope"] }]) {
      expect(yield* Effect.flip(Time.editsOf(wrong))).toMatchObject({ _tag: "Usage", next: "ksi time branch --help", message: expect.stringMatching(/^--(replace|insert)/) })
    }
  }))
