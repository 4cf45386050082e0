import { describe, expect, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as Json from "../../src/event/Json.ts"
import * as Cel from "../../src/store/Cel.ts"

const scope: Cel.Scope = {
  state: { total: 150, price: 9.5, name: "ann", lines: [{ n: 1 }, { n: 2 }], none: null, paid: true, big: Json.parse("9007199254740993"), huge: Json.parse("1e400") },
  event: { name: "order:paid", id: "e1", time: "2026-01-02T00:00:00Z", position: 5, version: 2 },
  data: { amount: 20 }
}
const holds = (text: string, within: Cel.Scope = scope) => Effect.map(Cel.compile(text), (condition) => condition.holds(within))
const refused = (text: string) => Effect.flip(Cel.compile(text))

describe("Cel", () => {
  const truths: Readonly<Record<string, boolean>> = {
    "state.total > 100": true,
    "state.total > 150": false,
    "state.total >= 150 && state.total <= 150.0": true,
    "state.total == 150": true,
    "state.price == 9.5 && state.price > 9 && state.price < 10": true,
    "state.total + 1 == 151 && 1 + state.total == 151.0": true,
    "2 * state.total == 300 && state.total / 4 == 37.5 && state.total - 1 == 149": true,
    "state.total % 2 == 0 && state.total % 4 == 2": true,
    "-state.total < 0": true,
    "state.big == 9007199254740993 && state.big > 9007199254740992": true,
    "state.big + 1 > 9007199254740993": true,
    "state.huge > 1e308": true,
    "state.paid": true,
    "!state.paid || state.name == \"ann\"": true,
    "state.none == null": true,
    "has(state.missing)": false,
    "has(state.missing) && state.missing > 1": false,
    "state.missing > 1 || state.paid": true,
    "state.lines.exists(l, l.n > 1) && !state.lines.all(l, l.n > 1)": true,
    "size(state.lines) == 2 && state.lines[0].n == 1": true,
    "event.name.startsWith(\"order:\") && event.position > 4 && event.version == 2": true,
    "timestamp(event.time) > timestamp(\"2026-01-01T00:00:00Z\")": true,
    "data.amount in [10, 20]": true,
    "state.name == 3": false
  }
  for (const [text, expected] of Object.entries(truths)) {
    it.effect(text, () => Effect.gen(function*() {
      expect(yield* holds(text)).toEqual(Result.succeed(expected))
    }))
  }

  it.effect("what is no condition is refused with its place, before anything is looked at", () =>
    Effect.gen(function*() {
      expect(yield* refused("state.total > ")).toEqual({ problem: "unexpected end of the expression", at: 14 })
      expect(yield* refused("state.total >> 1")).toMatchObject({ at: 13 })
      expect(yield* refused("")).toMatchObject({ problem: "unexpected end of the expression" })
      expect(yield* refused("state.a && totl > 1")).toEqual({ problem: "unknown variable: totl", at: 11 })
      expect(yield* refused("1 + 2")).toMatchObject({ problem: "is of type int, not true or false" })
      expect(yield* refused("\"a\" + 1 == \"a1\"")).toMatchObject({ problem: "no such overload: string + int" })
      expect(yield* refused("state.paid && state.name.matches(\"(a+)+$\")")).toMatchObject({ problem: expect.stringContaining("there is no matches"), at: 14 })
      for (const text of ["state.name.split(\"\").size() > 0", "state.lines.map(l, l.n).exists(n, n > 1)", "cel.bind(x, state.lines + state.lines, x.exists(l, l.n > 1))"]) {
        expect(yield* refused(text), text).toMatchObject({ problem: expect.stringMatching(/^there is no (split|map|bind) here$/) })
      }
      expect(yield* refused("state.a.all(x, state.b.all(y, state.c.all(z, x == y)))")).toEqual({ problem: "looks through too many lists for each item of another one", at: 30 })
      expect(yield* refused("[1].all(a, [2].all(b, [3].all(c, true)))")).toMatchObject({ problem: expect.stringContaining("too many lists") })
      expect(yield* refused(`state.paid${" || state.paid".repeat(400)}`)).toMatchObject({ problem: expect.any(String) })
      expect(yield* refused("(".repeat(300))).toMatchObject({ problem: expect.any(String) })
      expect(yield* refused(" ".repeat(5000))).toMatchObject({ problem: "has 5000 characters, at most 4096 are allowed" })
    }))

  it.effect("what cannot be decided is an error, never true", () =>
    Effect.gen(function*() {
      expect(yield* holds("state.missing > 1")).toEqual(Result.fail({ problem: "no such key: missing", at: 6 }))
      expect(yield* holds("!(state.missing > 1)")).toMatchObject({ _tag: "Failure" })
      expect(yield* holds("state.name > 3")).toMatchObject({ _tag: "Failure", failure: { problem: "no such overload: dyn<string> > int" } })
      expect(yield* holds("state.total")).toEqual(Result.fail({ problem: "is neither true nor false", at: 0 }))
      expect(yield* holds("state.lines[7].n == 1")).toMatchObject({ _tag: "Failure" })
      expect(yield* holds("event.nme == \"x\"")).toMatchObject({ _tag: "Failure", failure: { problem: "no such key: nme" } })
      // Keys are the value's own: what every object inherits is not there.
      for (const text of ["state.constructor == null", "state.toString == null", "state[\"__proto__\"] == null", "state.name.length == 3"]) {
        expect(yield* holds(text), text).toMatchObject({ _tag: "Failure" })
      }
      expect(yield* holds("data.amount > 1", { state: {} })).toMatchObject({ _tag: "Failure" })
      expect(yield* holds("data == null && !has(data.amount)", { state: {} })).toEqual(Result.succeed(true))
    }))

  it.effect("a large state is looked through once, not once for each of its items", () =>
    Effect.gen(function*() {
      const state = { limit: 1, lines: Array.from({ length: 20_000 }, (_, n) => ({ n, parts: [n, n] })) }
      expect(yield* holds("state.lines.exists(l, l.n == 19999.0 && l.parts.all(p, p == l.n))", { state })).toEqual(Result.succeed(true))
      expect(yield* holds("state.lines.exists(l, l.n == state.limit)", { state })).toEqual(
        Result.fail({ problem: "the state is too large to be looked through for each item of a list", at: 29 })
      )
      expect(yield* holds("state.lines.exists(l, l.n == state.lines[1].n)", { state: { lines: state.lines.slice(0, 100) } })).toEqual(Result.succeed(true))
    }))

  it.effect("what would hold up everybody is refused for that state: many items, long texts, large items of items", () =>
    Effect.gen(function*() {
      const long = "a".repeat(200_000)
      const lines = Array.from({ length: 20_000 }, (_, n) => ({ n, name: "ann" }))
      const tooMuch: ReadonlyArray<readonly [text: string, state: unknown, problem: string]> = [
        ["state.text.contains(state.part)", { text: long, part: `b${long}` }, "the texts of the state are too long to look for one in another"],
        ["state.text.lastIndexOf(state.part) > 0", { text: long, part: `b${long}` }, "the texts of the state are too long to look for one in another"],
        ["state.lines.exists(l, (state.text + l.name).size() == 1)", { text: long, lines: lines.slice(0, 2000) }, "the state is too large to be looked through for each item of a list"],
        [`${"state.text + ".repeat(100)}state.text == "b"`, { text: long.repeat(5) }, "the texts of the state are too long"],
        [`state.lines.exists(l, ${"l.n == -1 || ".repeat(40)}l.n == -2)`, { lines: lines.concat(lines) }, "the state is too large for so much to be asked of each item of a list"],
        ["state.lines.exists(l, l.m.exists(a, l.m.exists(b, a + b == -1)))", { lines: [{ m: Array.from({ length: 20_000 }, (_, n) => n) }] }, "the items of a list are too large to be looked through for each item of another one"],
        ["state.lines.exists(l, l.m.exists(a, (l.text + a).size() == 1))", { lines: [{ text: long, m: Array.from({ length: 2000 }, () => "b") }] }, "the items of a list are too large to be looked through for each item of another one"]
      ]
      for (const [text, state, problem] of tooMuch) {
        expect(yield* holds(text, { state }), text.slice(0, 80)).toEqual(Result.fail({ problem, at: expect.any(Number) }))
      }
      expect(yield* refused("state.a.all(x, x.m.all(y, y.m.all(z, x.n == z.n)))")).toMatchObject({ problem: expect.stringContaining("too many lists") })
      // What people ask is answered, of large states too.
      const large = { text: long.repeat(5), name: "ann", lines }
      expect(yield* holds("state.text.contains(\"needle in it\") || state.name.contains(\"nn\")", { state: large })).toEqual(Result.succeed(true))
      expect(yield* holds("state.lines.exists(l, l.name.startsWith(\"b\") && l.n > 3) || state.name.size() == 3", { state: large })).toEqual(Result.succeed(true))
      expect(yield* holds("state.name.contains(state.part)", { state: { name: "ann", part: "nn", lines } })).toEqual(Result.succeed(true))
    }))

  it.effect("knows whether it asks for more than the state, and tells problems in one line", () =>
    Effect.gen(function*() {
      const isOfState = (text: string) => Effect.map(Cel.compile(text), (condition) => condition.isOfState)
      expect(yield* isOfState("state.total > 1 && state.lines.exists(x, x.n == size(state.lines))")).toBe(true)
      expect(yield* isOfState("state.event == state.data")).toBe(true)
      expect(yield* isOfState("state.total > 1 && [1].exists(x, event.version == x)")).toBe(false)
      expect(yield* isOfState("has(data.x)")).toBe(false)
      expect(Cel.problemText({ problem: "no such key: x", at: 6 })).toBe("no such key: x, at column 7")
      expect(Cel.problemText({ problem: "is long" })).toBe("is long")
    }))
})
