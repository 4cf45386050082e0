import { describe, expect, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import * as EventPattern from "../../src/event/EventPattern.ts"
import * as KsiError from "../../src/event/KsiError.ts"

const pattern = (text: string) => Result.getOrThrow(EventPattern.parse(text))

describe("parse", () => {
  it("refuses what is no pattern and says why", () => {
    const problem = (text: string) => {
      const result = EventPattern.parse(text)
      return Result.isFailure(result) ? result.failure.message : "none"
    }
    expect(problem("")).toContain("\"*\" is every event")
    for (const text of [":", "a:", ":a", "a::b"]) expect(problem(text)).toContain("empty segment")
    for (const text of ["st*ck:a", "stock:a*", "**", "a:**"]) expect(problem(text)).toContain("whole segment")
    expect(problem("a".repeat(257))).toContain("257 characters, at most 256")
    expect(problem("a".repeat(256))).toBe("none")
  })

  it.effect("as an effect fails with the same reason", () =>
    Effect.gen(function*() {
      expect((yield* EventPattern.fromText("a:*")).text).toBe("a:*")
      const error = yield* Effect.flip(EventPattern.fromText("a::b"))
      expect(error).toBeInstanceOf(KsiError.KsiError)
      expect(error.reason).toMatchObject({ _tag: "PatternInvalid", pattern: "a::b", problem: "it has an empty segment" })
    }))

  it.each([
    ["*", ["a", "a:b", "a:b:c"], []],
    ["a:*", ["a:b", "a:b:c"], ["a", "b:a", "aa:b"]],
    ["a:b", ["a:b"], ["a", "a:b:c", "a:bb"]],
    ["*:b", ["a:b", "c:b"], ["a:c", "a:b:c", "b"]],
    ["a:*:c", ["a:b:c", "a:a:c"], ["a:c", "a:b:b:c", "a:b:c:d"]],
    ["*:*", ["a:b", "a:b:c"], ["a"]],
    ["a:*:*", ["a:b:c", "a:b:c:d"], ["a:b"]]
  ])("%s", (text, yes, no) => {
    for (const name of yes) expect(pattern(text).matches(name), name).toBe(true)
    for (const name of no) expect(pattern(text).matches(name), name).toBe(false)
  })
})

// Few letters and few segments, so that random names and patterns meet.
const segment = Schema.Literals(["a", "b", "c"])
const Name = Schema.Array(segment).check(Schema.isBetweenLength(1, 5))
const Pattern = Schema.Array(Schema.Literals(["a", "b", "*", "*"])).check(Schema.isBetweenLength(1, 5))

/** The dialect, said once more and slowly. */
const oracle = (parts: ReadonlyArray<string>, name: ReadonlyArray<string>): boolean => {
  const [part, ...rest] = parts
  const [first, ...more] = name
  if (part === undefined) return first === undefined
  if (first === undefined) return false
  if (part === "*" && rest.length === 0) return true
  return (part === "*" || part === first) && oracle(rest, more)
}

const found = (trie: EventPattern.Trie<number>, name: string) => {
  const values: Array<number> = []
  trie.match(name, (value) => values.push(value))
  return values.toSorted((a, b) => a - b)
}

describe("trie", () => {
  it("finds a value once, under however many patterns it is", () => {
    const trie = EventPattern.makeTrie<number>()
    expect(trie.isEmpty()).toBe(true)
    const remove = trie.add(pattern("a:*"), 1)
    trie.add(pattern("a:*"), 1)
    trie.add(pattern("*"), 1)
    expect(found(trie, "a:b")).toEqual([1])
    remove()
    remove()
    expect(found(trie, "a:b")).toEqual([1])
  })

  it.effect("holds a value under any of several patterns", () =>
    Effect.gen(function*() {
      const several = yield* EventPattern.anyOf(["a:*", "a:b", "c:d"])
      expect([several.text, ...["a:b", "a:x", "c:d", "c:x"].map(several.matches)]).toEqual(["a:*, a:b, c:d", true, true, true, false])
      const trie = EventPattern.makeTrie<number>()
      const remove = trie.addAll(several, 1)
      expect(["a:b", "a:x", "c:d", "c:x"].map((name) => found(trie, name))).toEqual([[1], [1], [1], []])
      remove()
      expect([trie.isEmpty(), ...["a:b", "a:x", "c:d"].map((name) => found(trie, name))]).toEqual([true, [], [], []])
      expect((yield* EventPattern.anyOf("a:*")).each).toHaveLength(1)
      for (const bad of ["", "st*ck", [], ["a:*", "x*"]]) expect((yield* Effect.flip(EventPattern.anyOf(bad))).reason._tag).toBe("PatternInvalid")
    }))

  it("a visit may remove", () => {
    const trie = EventPattern.makeTrie<() => void>()
    const seen: Array<number> = []
    for (const n of [1, 2, 3]) {
      const remove = trie.add(pattern("a:b"), () => {
        seen.push(n)
        remove()
      })
    }
    trie.match("a:b", (visit) => visit())
    expect(seen).toEqual([1, 2, 3])
    expect(trie.isEmpty()).toBe(true)
  })

  it.prop("agrees with matches and with an oracle, while patterns come and go", {
    patterns: Schema.Array(Schema.Struct({ parts: Pattern, removed: Schema.Boolean })),
    names: Schema.Array(Name)
  }, ({ names, patterns }) => {
    const trie = EventPattern.makeTrie<number>()
    const check = (live: (i: number) => boolean) => {
      for (const name of names) {
        const text = name.join(":")
        const expected = patterns.flatMap(({ parts }, i) => live(i) && oracle(parts, name) ? [i] : [])
        expect(found(trie, text)).toEqual(expected)
        expect(patterns.flatMap(({ parts }, i) => live(i) && pattern(parts.join(":")).matches(text) ? [i] : [])).toEqual(expected)
      }
    }
    const removers = patterns.map(({ parts }, i) => trie.add(pattern(parts.join(":")), i))
    check(() => true)
    patterns.forEach(({ removed }, i) => {
      if (removed) removers[i]?.()
    })
    check((i) => patterns[i]?.removed === false)
    for (const remove of removers) remove()
    expect(trie.isEmpty()).toBe(true)
  }, { arbitrary: { runs: 300 } })
})

it("a bare namespace is a pattern for all of it", () =>
  expect(["stock", "stock:*", "stock:reserve", "*", ""].map(EventPattern.said)).toEqual(["stock:*", "stock:*", "stock:reserve", "*", ""]))
