import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Result, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as KsiError from "../../src/event/KsiError.ts"
import type * as Remote from "../../src/cli/Remote.ts"
import * as Subscribe from "../../src/cli/Subscribe.ts"

const lost = (unsent: boolean) => KsiError.make(new KsiError.ConnectionLost({ address: "a", problem: "p", unsent }))
const at = (position: number) => ({ event: "a:b", position, version: position, stream_id: "s", event_id: `e${position}`, timestamp: 0, data: {} })

/** A daemon whose connections do one after the other what is listed; the rest refuse. */
const daemon = (
  connections: ReadonlyArray<"refuse" | { readonly head: number; readonly facts: ReadonlyArray<number>; readonly then: "lost" | "stay" }>
) => {
  const froms: Array<Remote.From> = []
  const said: Array<string> = []
  let made = 0
  const follow = (from: Remote.From) =>
    Subscribe.follow({
      connect: Effect.suspend(() => {
        const connection = connections[made++] ?? "refuse"
        if (connection === "refuse") return Effect.fail(lost(true))
        const subscribe: Remote.Remote["subscribe"] = (_pattern, options) =>
          Stream.suspend(() => {
            froms.push(options.from)
            options.opened(connection.head)
            const facts = Stream.fromIterable(connection.facts.map(at))
            return Stream.concat(facts, connection.then === "lost" ? Stream.fail(lost(false)) : Stream.never)
          })
        return Effect.succeed({ subscribe })
      }),
      pattern: "*",
      from,
      requests: false,
      lost: Effect.sync(() => void said.push("lost")),
      again: Effect.sync(() => void said.push("again"))
    })
  return { follow, froms, said, made: () => made }
}

const positions = (stream: ReturnType<ReturnType<typeof daemon>["follow"]>, count: number) =>
  stream.pipe(Stream.take(count), Stream.map((item) => item["position"]), Stream.runCollect)

describe("follow", () => {
  it.effect("goes on after the last position when the daemon is back", () =>
    Effect.gen(function*() {
      const world = daemon([
        { head: 2, facts: [1, 2], then: "lost" },
        "refuse",
        "refuse",
        { head: 4, facts: [3, 4], then: "lost" },
        { head: 5, facts: [5], then: "stay" }
      ])
      const fiber = yield* Effect.forkChild(positions(world.follow("start"), 5))
      yield* TestClock.adjust("30 seconds")
      expect(yield* Fiber.join(fiber)).toEqual([1, 2, 3, 4, 5])
      expect(world.froms).toEqual(["start", 3, 5])
      expect(world.said).toEqual(["lost", "lost", "lost", "again", "lost", "again"])
    }))

  it.effect("from now on is from where it first went live, though nothing was heard before the break", () =>
    Effect.gen(function*() {
      const world = daemon([{ head: 41, facts: [], then: "lost" }, { head: 43, facts: [42, 43], then: "stay" }])
      const fiber = yield* Effect.forkChild(positions(world.follow("now"), 2))
      yield* TestClock.adjust("10 seconds")
      expect(yield* Fiber.join(fiber)).toEqual([42, 43])
      expect(world.froms).toEqual(["now", 42])
    }))

  it.effect("does not wait for a daemon that was never there", () =>
    Effect.gen(function*() {
      const world = daemon([])
      const error = yield* Effect.flip(positions(world.follow("now"), 1))
      expect(error).toMatchObject({ reason: { _tag: "ConnectionLost", unsent: true } })
      expect(world.made()).toBe(1)
    }))

  it.effect("waits longer and longer, at most some six seconds", () =>
    Effect.gen(function*() {
      const world = daemon([{ head: 0, facts: [], then: "lost" }])
      yield* Effect.forkChild(Stream.runDrain(world.follow("now")))
      yield* TestClock.adjust("1 minute")
      const first = world.made()
      yield* TestClock.adjust("1 minute")
      // Five seconds, jittered by a fifth: between ten and fifteen attempts a minute.
      expect(world.made() - first).toBeGreaterThanOrEqual(10)
      expect(world.made() - first).toBeLessThanOrEqual(15)
    }))
})

describe("arguments and rows", () => {
  it("from is start, now, or a position from 1", () => {
    expect(["start", "now", "1", "41"].map(Subscribe.fromOf).map(Result.getOrThrow)).toEqual(["start", "now", 1, 41])
    for (const text of ["0", "-1", "1.5", "", "later", "1e3"]) expect(Result.isFailure(Subscribe.fromOf(text))).toBe(true)
  })
  it("a fact keeps its place; a request has none", () => {
    expect(Subscribe.itemOf({ ...at(7), subscription_id: "s", event_name: "a:b" })).toEqual({
      position: 7, version: 7, stream_id: "s", event: "a:b", event_id: "e7", timestamp: 0, data: {}
    })
    expect(Subscribe.itemOf({ event: "a:b", event_id: "r", timestamp: 1 })).toEqual({ event: "a:b", event_id: "r", timestamp: 1, data: null })
  })
  it("columns are position, time, name, stream and data", () => {
    expect(Subscribe.columns(Subscribe.itemOf(at(7)))).toEqual(["7", "1970-01-01T00:00:00.000Z", "a:b", "s", "{}"])
    expect(Subscribe.columns({ event: "a:b", event_id: "r", timestamp: 1.5, data: null })).toEqual(["-", "1970-01-01T00:00:01.500Z", "a:b", "-", "null"])
  })
})
