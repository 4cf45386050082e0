import { describe, expect, it } from "@effect/vitest"
import * as TimeText from "../../src/cli/TimeText.ts"

const look = { coloured: false, width: Infinity }
const place = { streamId: "order-1", position: 41, id: "e41", event: "order:paid", version: 3, timestamp: "2018-03-15T12:00:00Z" }

describe("TimeText", () => {
  it("tells a difference with marks, aligned, and says when there is none", () => {
    const item = {
      streamId: "order-1", from: null, to: { version: 2, lastEvent: "order:paid" },
      patch: [{ op: "add", path: "/unit price", value: 2 }, { op: "remove", path: "/coupon" }, { op: "replace", path: "/n", value: 2 }],
      words: ["[\"unit price\"] 2 (new)", "coupon removed (was \"a (new)\")", "n 1 → 2"]
    }
    expect(TimeText.diff(item, look)).toBe([
      "order-1  nothing yet → v2 order:paid", "  + [\"unit price\"]  2", "  - coupon          was \"a (new)\"", "  ~ n               1 → 2", ""
    ].join("\n"))
    expect(TimeText.diff({ streamId: "a", from: { version: 1, lastEvent: "x" }, to: { version: 2, lastEvent: "y" }, patch: [], words: [] }, look))
      .toBe("a  v1 x → v2 y\n    the same\n")
  })

  it("cuts lines to the terminal, and colours take no room", () => {
    const item = { ...place, before: { n: 1 }, after: { n: 2, text: "x".repeat(100) } }
    const plain = TimeText.found(item, { coloured: false, width: 40 })
    expect(plain.split("\n").every((line) => line.length <= 40)).toBe(true)
    expect(plain).toContain("…")
    const coloured = TimeText.found(item, { coloured: true, width: 40 })
    expect(coloured).toContain("\u001b[33m~\u001b[0m n")
    // oxlint-disable-next-line no-control-regex
    expect(coloured.replaceAll(/\u001b\[\d+m/g, "")).toBe(plain)
  })

  it("tells the fact that was found, what it changed and what came of it", () => {
    expect(TimeText.found({ ...place, before: { total: 20, paid: true }, after: { total: 120, paid: true } }, look)).toBe([
      "order:paid  position 41, v3 of order-1, 2018-03-15T12:00:00Z", "  ~ total  20 → 120", "    paid   true", ""
    ].join("\n"))
    expect(TimeText.found({ ...place, before: {}, after: {} }, look)).toContain("it changed nothing")
  })

  it("what does not fit beside another stands below it, and the mark says which is which", () => {
    const words = [`name "${"a".repeat(20)}" → "${"b".repeat(20)}"`]
    const item = { streamId: "order-1", from: { version: 1, lastEvent: "order:placed" }, to: { version: 2, lastEvent: "order:renamed-again" }, patch: [{ op: "replace" }], words }
    expect(TimeText.diff(item, { ...look, width: 40 })).toBe([
      "order-1", "    v1 order:placed → v2 order:renamed-…", `  ~ name  "${"a".repeat(20)}"`, `          → "${"b".repeat(20)}"`, ""
    ].join("\n"))
  })

  it("tells the state of one stream field by field, of many a line each", () => {
    const item = { streamId: "order-1", version: 3, lastEvent: "order:paid", lastEventId: "e", timestamp: "2018-03-15T12:00:00Z", state: { paid: true, lines: [1] } }
    expect(TimeText.at(true)(item, look)).toBe("order-1  v3 order:paid, 2018-03-15T12:00:00Z\n    paid   true\n    lines  [1]\n")
    expect(TimeText.at(false)(item, look)).toBe("order-1  v3 order:paid, 2018-03-15T12:00:00Z\n    {\"paid\":true,\"lines\":[1]}\n")
    expect(TimeText.at(true)({ ...item, state: 5 }, look)).toContain("\n    state  5\n")
  })

  it("gathers fields below the fact that they come from, the first fact first", () => {
    const blamed = [
      { ...place, field: "total", value: 5 }, { field: "kind", value: "cart", position: null, id: null, event: null, timestamp: null },
      { ...place, field: "by", position: 7, event: "order:placed", value: "ann" }, { ...place, field: "paid", value: true }
    ]
    expect(TimeText.blame(blamed, look)).toBe([
      "(initial)  there before any fact", "    kind  \"cart\"", "order:placed  position 7, 2018-03-15T12:00:00Z", "    by  \"ann\"",
      "order:paid  position 41, 2018-03-15T12:00:00Z", "    total  5", "    paid   true", ""
    ].join("\n"))
  })

  it("tells where a value comes from, also when it was there from the start", () => {
    expect(TimeText.blamed({ ...place, field: "total", value: 5 })).toEqual(["total", "5", "41", "order:paid", "2018-03-15T12:00:00Z"])
    expect(TimeText.blamed({ field: "", value: "x".repeat(60), position: null, id: null, event: null, timestamp: null }))
      .toEqual(["state", `"${"x".repeat(38)}…`, "-", "(initial)", "-"])
  })

  it("tells what would have been, where it parts and what does not fit", () => {
    const item = {
      streamId: "order-1", real: { version: 4, state: {} }, branch: { version: 3, state: {} }, patch: [{ op: "remove", path: "/a" }], words: ["a removed (was 1)"],
      divergence: place, misfits: [{ ...place, position: 43, event: "order:refunded", problem: "nothing left" }]
    }
    expect(TimeText.branched(item, look)).toBe([
      "order-1  v4 as it was, v3 as it would have been", "  - a             was 1", "    parts at      position 41, order:paid",
      "  ! does not fit  position 43, order:refunded: nothing left", ""
    ].join("\n"))
    expect(TimeText.branched({ ...item, patch: [], words: [], divergence: null, misfits: [] }, look)).toContain("    the same state\n")
  })

  it("tells where two projections part, with both states", () => {
    expect(TimeText.compared({ ...place, a: 5, b: 6, patch: [{ op: "replace", path: "", value: 6 }], words: ["state 5 → 6"] }, ["old", "new"], look)).toBe([
      "order:paid  position 41, v3 of order-1, 2018-03-15T12:00:00Z",
      "  ~ state  5 → 6", "    old    5", "    new    6", ""
    ].join("\n"))
  })

  it("points at the place in an expression, also in one of several lines", () => {
    expect(TimeText.pointed("state.total >", 13)).toBe("\n  state.total >\n               ^")
    expect(TimeText.pointed("a &&\n  b >\n c", 9)).toBe("\n    b >\n      ^")
    expect(TimeText.pointed("a", undefined)).toBe("")
  })
})
