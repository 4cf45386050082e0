import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { within } from "../../src/bus/StreamTimeout.ts"

const items = (...millis: ReadonlyArray<number>) => Stream.mapEffect(Stream.fromIterable(millis), (wait) => Effect.as(Effect.sleep(wait), wait))

/** What came, and what it ended with. */
const read = Effect.fnUntraced(function*(stream: Stream.Stream<number, { readonly message: string }>, each: Effect.Effect<void> = Effect.void) {
  const seen: Array<number> = []
  const reader = yield* Effect.forkChild(Effect.result(Stream.runForEach(stream, (item) => Effect.andThen(Effect.sync(() => seen.push(item)), each))))
  yield* TestClock.adjust("1 hour")
  const end = yield* Fiber.join(reader)
  return [seen, end._tag === "Failure" ? end.failure.message : "done"]
})

describe("within", () => {
  it.effect("the first item has a time of its own", () =>
    Effect.gen(function*() {
      expect(yield* read(within("a:b", items(100, 5, 5), { firstItem: 100, idle: 10 }))).toEqual([[100, 5, 5], "done"])
      expect(yield* read(within("a:b", items(101, 5), { firstItem: 100, idle: 10 }))).toEqual([[], "a:b did not answer within 100 ms"])
      expect(yield* read(within("a:b", items(50, 500), { firstItem: 100 }))).toEqual([[50, 500], "done"])
    }))

  it.effect("between items it is idle, from the first on where that has none of its own", () =>
    Effect.gen(function*() {
      expect(yield* read(within("a:b", items(10, 10, 11, 10), { idle: 10 }))).toEqual([[10, 10], "a:b did not answer within 10 ms"])
      expect(yield* read(within("a:b", items(11), { idle: 10 }))).toEqual([[], "a:b did not answer within 10 ms"])
    }))

  it.effect("a slow consumer is none of its business", () =>
    Effect.gen(function*() {
      expect(yield* read(within("a:b", items(1, 1, 1), { idle: 10 }), Effect.sleep(1000))).toEqual([[1, 1, 1], "done"])
    }))

  it.effect("who makes the items is interrupted, and finishes", () =>
    Effect.gen(function*() {
      let finished = 0
      const source = Stream.ensuring(items(5, 100), Effect.sync(() => finished++))
      yield* read(within("a:b", source, { idle: 10 }))
      expect(finished).toBe(1)
    }))

  it("without a time it is the stream itself", () => {
    const source = items(1)
    expect(within("a:b", source, { bufferSize: 1 })).toBe(source)
  })
})
