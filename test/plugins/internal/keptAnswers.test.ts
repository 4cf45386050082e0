// What is kept between the pages of a long answer: so many bytes, so long, and nothing of what was removed.
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Limits from "../../../src/event/Limits.ts"
import * as KeptAnswers from "../../../src/plugins/internal/keptAnswers.ts"
import * as EventStore from "../../../src/store/EventStore.ts"

const by = {}
const items = (count: number) => Array.from({ length: count }, () => "x".repeat(8))
const kept = Effect.gen(function*() {
  const answers = yield* KeptAnswers.make<string>()
  const keep = (key: string, count: number) => answers.keep(key, by, answers.epoch(), key, items(count))
  return { ...answers, keep, keys: (...keys: ReadonlyArray<string>) => keys.filter((key) => answers.get(key, by) !== undefined) }
})
const bounded = Effect.provide(EventStore.layerMemory.pipe(
  Layer.merge(Layer.succeed(Limits.Limits, { ...Limits.defaults, keptAnswerBytes: 100 }))
))

describe("answers between their pages", () => {
  it.effect("are no more than their bytes, and two", () =>
    Effect.gen(function*() {
      const { forget, get, keep, keys } = yield* kept
      yield* keep("a", 6)
      yield* keep("b", 4)
      expect(keys("a", "b")).toEqual(["a", "b"])
      expect(get("a", {})).toBe(undefined)
      // The oldest goes: ten bytes each.
      yield* keep("c", 5)
      expect(keys("a", "b", "c")).toEqual(["b", "c"])
      // Asked for again, it is the newest.
      yield* keep("b", 4)
      yield* keep("d", 1)
      expect(keys("b", "c", "d")).toEqual(["b", "d"])
      yield* keep("e", 11)
      expect(keys("b", "d", "e")).toEqual(["b", "d"])
      forget("b")
      expect(keys("b", "d")).toEqual(["d"])
    }).pipe(Effect.scoped, bounded))

  it.effect("go a minute after the last page, though nobody asks, and when facts are removed", () =>
    Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      const { keep, keys } = yield* kept
      yield* keep("a", 1)
      yield* TestClock.adjust("40 seconds")
      expect(keys("a")).toEqual(["a"])
      yield* keep("a", 1)
      yield* TestClock.adjust("40 seconds")
      expect(keys("a")).toEqual(["a"])
      yield* TestClock.adjust("20 seconds")
      expect(keys("a")).toEqual([])
      yield* keep("b", 1)
      yield* store.appendTo("s", [{ name: "s:noted" }])
      expect(keys("b")).toEqual(["b"])
      yield* store.delete("s")
      expect(keys("b")).toEqual([])
    }).pipe(Effect.scoped, bounded))
})
