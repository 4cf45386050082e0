import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, References, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Journal } from "../../src/bus/Journal.ts"
import type { NewFact } from "../../src/event/CloudEvent.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as EventStoreSuite from "../../src/testing/EventStoreSuite.ts"

const memory = Effect.provide(EventStore.layerMemory)
const limited = (limits: Partial<Limits.LimitsShape>) =>
  Effect.provide(EventStore.layerMemory.pipe(Layer.provide(Layer.succeed(Limits.Limits, { ...Limits.defaults, ...limits }))))

const fact = (id: string, data: unknown = { id }): NewFact => ({
  id, source: "/test", name: "test:happened", streamId: "a", data, time: undefined, attributes: {}
})

describe("EventStore.layerMemory keeps the promises of an event store", () => {
  for (const { name, run } of EventStoreSuite.cases) it.effect(name, () => memory(run))
})

describe("EventStore.layerMemory", () => {
  it.effect("provides the store and the journal over one driver", () =>
    Effect.gen(function*() {
      const journal = yield* Journal
      const store = yield* EventStore.EventStore
      yield* journal.append({ facts: [fact("1")] })
      expect(store.head()).toBe(1)
      expect(store.driver.describe).toEqual({ kind: "memory", file: undefined })
    }).pipe(memory))

  it.effect("takes tags that are a list of texts, and nothing else for them", () =>
    Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      for (const tags of ["ab", [1], { 0: "a" }, null]) {
        // What a program without a compiler may say.
        const error = yield* Effect.flip(store.appendTo("a", [{ name: "a:happened", tags: tags as unknown as ReadonlyArray<string> }]))
        expect(error.reason).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "tags", problem: "must be a list of texts" }] })
      }
      expect(store.head()).toBe(0)
    }).pipe(memory))

  it.effect("commits at the time of the clock; a fact without time happened then", () =>
    Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      yield* TestClock.setTime(5_000)
      yield* store.append({ facts: [fact("1")] })
      yield* TestClock.setTime(7_000)
      yield* store.appendTo("b", [{ name: "b:happened" }])
      const facts = yield* Stream.runCollect(store.all())
      expect(facts.map((f) => [f.recordedAt, f.timestamp, f.time])).toEqual([
        [5_000, 5_000, undefined],
        [7_000, 7_000, "1970-01-01T00:00:07.000Z"]
      ])
    }).pipe(memory))

  it.effect("hands out facts that nobody can change", () =>
    Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      yield* store.append({ facts: [fact("1", { deep: { list: [{ x: 1 }] } })] })
      const [read] = yield* store.read({ from: 1, limit: 1 })
      expect(() => Reflect.ownKeys(Object.assign(read ?? {}, { position: 9 }))).toThrow(TypeError)
      expect(Reflect.set(Object(read?.data).deep.list[0], "x", 2)).toBe(false)
    }).pipe(memory))

  it.effect("tells of a listener that threw in the log", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) => lines.push(String(message)))
      const store = yield* EventStore.EventStore
      yield* store.listen(() => {
        throw new Error("not today")
      })
      yield* store.append({ facts: [fact("1")] }).pipe(
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, "All")
      )
      expect(lines.join()).toContain("a listener of the store threw")
      expect(lines.join()).toContain("not today")
    }).pipe(memory))

  it.effect("a listener that appends is heard in order by all", () =>
    Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      const heard: Array<number> = []
      yield* store.listen(([first]) => {
        if (first?.position === 1) Effect.runSync(store.append({ facts: [fact("2")] }))
      })
      yield* store.listen((facts) => heard.push(...facts.map((f) => f.position)))
      yield* store.append({ facts: [fact("1")] })
      expect(heard).toEqual([1, 2])
    }).pipe(memory))

  it.effect("is a new store each time it is built", () =>
    Effect.gen(function*() {
      const head = Effect.gen(function*() {
        const store = yield* EventStore.EventStore
        yield* store.append({ facts: [fact("1")] })
        return store.head()
      })
      expect(yield* memory(head)).toBe(1)
      expect(yield* memory(head)).toBe(1)
    }))
})

describe("EventStore.make", () => {
  it.effect("counts bytes, not characters, and names the limit", () =>
    Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      yield* store.append({ facts: [fact("1", "é".repeat(49))] })
      const error = yield* Effect.flip(store.append({ facts: [fact("2", "é".repeat(50))] }))
      expect(error.message).toBe("the limit frameBytes of 100 was reached (102)")
      expect(error.retryable).toBe(false)
    }).pipe(limited({ frameBytes: 100 })))

  it.effect("attributes have the same limit", () =>
    Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      const error = yield* Effect.flip(
        store.append({ facts: [{ ...fact("1"), attributes: { note: "x".repeat(200) } }] })
      )
      expect(error.reason._tag).toBe("LimitExceeded")
    }).pipe(limited({ frameBytes: 100 })))

  it.effect("data that refers to itself in two places is refused at once", () =>
    Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      const node: Record<string, unknown> = {}
      node["left"] = node
      node["right"] = node
      const error = yield* Effect.flip(store.append({ facts: [fact("1", node)] }))
      expect(error.message).toContain("data: cannot be written as JSON: Converting circular structure")
    }).pipe(memory))

  it.effect("reads as the consumer asks: a page at a time", () =>
    Effect.gen(function*() {
      const reads: Array<number> = []
      const inner = yield* EventStore.EventStore
      const store = yield* EventStore.make({
        ...inner.driver,
        read: (options) => {
          reads.push(options.from)
          return inner.read(options)
        }
      })
      yield* store.append({ facts: Array.from({ length: 20 }, (_, index) => fact(`${index}`)) })
      const first = yield* Stream.runCollect(Stream.take(store.all(), 12))
      expect(first.map((f) => f.position)).toEqual(Array.from({ length: 12 }, (_, index) => index + 1))
      expect(reads).toEqual([1, 6, 11])
    }).pipe(Effect.provideService(Limits.Limits, { ...Limits.defaults, pageItems: 5 }), memory))

  it.effect("a reader that is interrupted reads no more", () =>
    Effect.gen(function*() {
      const inner = yield* EventStore.EventStore
      yield* inner.append({ facts: [fact("1"), fact("2")] })
      let pages = 0
      const store = yield* EventStore.make({
        ...inner.driver,
        read: (options) => Effect.andThen(Effect.sync(() => ++pages), pages === 0 ? inner.read(options) : Effect.never)
      })
      const fiber = yield* Effect.forkChild(Stream.runDrain(store.all()))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(fiber)
      expect(pages).toBe(2)
    }).pipe(Effect.provideService(Limits.Limits, { ...Limits.defaults, pageItems: 1 }), memory))

  it.effect("ids increase within a millisecond, and differ between stores", () =>
    Effect.gen(function*() {
      const append = Effect.gen(function*() {
        const store = yield* EventStore.EventStore
        yield* store.appendTo("a", Array.from({ length: 500 }, () => ({ name: "a:b" })))
        return (yield* Stream.runCollect(store.all())).map((f) => f.id)
      })
      const one = yield* memory(append)
      expect(one).toEqual(one.toSorted())
      expect(new Set([...one, ...(yield* memory(append))]).size).toBe(1000)
    }))
})

describe("EventStore.nearestStreams", () => {
  it.effect("finds the neighbour of a mistyped id among many, and does not suggest KSI's own", () =>
    Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      const named = (streamId: string) => ({ ...fact(streamId), streamId })
      const ids = Array.from({ length: 900 }, (_, index) => `order-${index}`)
      yield* store.driver.append({ facts: [...ids, "ksi-orders", "parcel-7"].map(named) })
      expect(yield* EventStore.nearestStreams(store, "order-8800")).toContain("order-880")
      expect(yield* EventStore.nearestStreams(store, "parcle-7")).toEqual(["parcel-7"])
      expect(yield* EventStore.nearestStreams(store, "ksi-order")).toEqual([])
      expect(yield* EventStore.nearestStreams(store, "zebra")).toEqual([])
    }).pipe(memory))
})

describe("EventStore.ownStream", () => {
  it("is about the first four characters", () => {
    expect(["ksi-", "ksi-x", "ksi", "Ksi-x", "a-ksi-", ""].map(EventStore.ownStream)).toEqual(
      [true, true, false, false, false, false]
    )
  })
})
