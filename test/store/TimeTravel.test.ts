import { describe, expect, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Layer, Result, Schema } from "effect"
import { TestClock } from "effect/testing"
import { type NewFact, parseTime } from "../../src/event/CloudEvent.ts"
import * as Event from "../../src/event/Event.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as Blame from "../../src/store/Blame.ts"
import * as Branch from "../../src/store/Branch.ts"
import * as Difference from "../../src/store/Difference.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as Search from "../../src/store/Search.ts"
import * as TimeTravel from "../../src/store/TimeTravel.ts"

const { latest } = Projection
const layer = (limits: Partial<Limits.LimitsShape> = {}) =>
  Layer.fresh(EventStore.layerMemory.pipe(Layer.provideMerge(Layer.succeed(Limits.Limits, { ...Limits.defaults, ...limits }))))
const memory = Effect.provide(layer())

const fact = (id: number, streamId: string, data: unknown, time?: string): NewFact => ({
  id: `${id}`, source: "/test", name: `test:n${id}`, streamId, data, time, attributes: {}
})
const append = (...facts: ReadonlyArray<NewFact>) =>
  Effect.flatMap(EventStore.EventStore, (store) => store.driver.append({ facts }))
const millis = (text: string) => parseTime(text) ?? expect.fail(text)

const Counted = Event.fact("test:counted", { payload: { by: Schema.Int }, streamId: () => "a" })
const Count = Projection.make("count", {
  events: [Counted], state: Schema.Int, initial: 0, on: { [Counted.name]: (state, { by }) => state + by }
})

describe("TimeTravel.at", () => {
  it.effect("one stream: version, last event, its time text verbatim, state", () =>
    Effect.gen(function*() {
      yield* append(
        fact(1, "a", { x: 1 }, "2018-03-15T14:00:00+02:00"),
        fact(2, "b", { x: 9 }),
        fact(3, "a", { y: 2 }, "2018-03-15t12:00:01.5Z")
      )
      expect(yield* TimeTravel.at(latest, { streamId: "a", position: 1n })).toEqual({
        streamId: "a", version: 1, lastEvent: "test:n1", lastEventId: "1", timestamp: "2018-03-15T14:00:00+02:00", state: { x: 1 }
      })
      expect(yield* TimeTravel.at(latest, { streamId: "a" })).toEqual({
        streamId: "a", version: 2, lastEvent: "test:n3", lastEventId: "3", timestamp: "2018-03-15t12:00:01.5Z", state: { x: 1, y: 2 }
      })
    }).pipe(memory))

  it.effect("a fact without time happened when it was committed", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(millis("2020-01-01T00:00:00Z"))
      yield* append(fact(1, "a", {}))
      const moment = yield* TimeTravel.at(latest, { streamId: "a", instant: millis("2020-01-01T00:00:00Z") })
      expect(moment.timestamp).toBe("2020-01-01T00:00:00.000Z")
      yield* Effect.flip(TimeTravel.at(latest, { streamId: "a", instant: millis("2020-01-01T00:00:00Z") - 1 }))
    }).pipe(memory))

  it.effect("a late fact counts from when it happened, and is folded at its position", () =>
    Effect.gen(function*() {
      yield* append(
        fact(1, "a", { x: "first" }, "2018-01-01T00:00:00Z"),
        fact(2, "a", { x: "second" }, "2018-01-03T00:00:00Z"),
        fact(3, "a", { x: "late" }, "2018-01-02T00:00:00Z")
      )
      const at = (text: string) => TimeTravel.at(latest, { streamId: "a", instant: millis(text) })
      expect(yield* at("2018-01-01T12:00:00Z")).toMatchObject({ version: 1, state: { x: "first" } })
      expect(yield* at("2018-01-02T00:00:00Z")).toMatchObject({ version: 3, lastEventId: "3", state: { x: "late" } })
      expect(yield* at("2018-01-04T00:00:00Z")).toMatchObject({ version: 3, state: { x: "late" } })
    }).pipe(memory))

  it.effect("recorded: what was stored by then, whenever it happened", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1000)
      yield* append(fact(1, "a", { x: 1 }, "2030-01-01T00:00:00Z"))
      yield* TestClock.setTime(2000)
      yield* append(fact(2, "a", { x: 2 }, "1970-01-01T00:00:00Z"), fact(3, "b", { x: 3 }))
      const recorded = (instant: number) => TimeTravel.at(latest, { instant, recorded: true })
      expect((yield* recorded(999)).length).toBe(0)
      expect((yield* recorded(1999)).map((m) => m.state)).toEqual([{ x: 1 }])
      expect((yield* recorded(2000)).map((m) => m.state)).toEqual([{ x: 2 }, { x: 3 }])
      expect((yield* TimeTravel.at(latest, { instant: 1500 })).map((m) => m.state)).toEqual([{ x: 2 }])
      const single = yield* TimeTravel.at(latest, { streamId: "a", instant: 1000, recorded: true })
      expect(single).toMatchObject({ version: 1, state: { x: 1 } })
    }).pipe(memory))

  it.effect("with a position and an instant both count", () =>
    Effect.gen(function*() {
      yield* append(
        fact(1, "a", { x: 1 }, "2018-01-01T00:00:00Z"),
        fact(2, "a", { x: 2 }, "2018-01-03T00:00:00Z"),
        fact(3, "a", { x: 3 }, "2018-01-01T00:00:00Z")
      )
      const instant = millis("2018-01-02T00:00:00Z")
      expect(yield* TimeTravel.at(latest, { streamId: "a", position: 2n, instant })).toMatchObject({ state: { x: 1 } })
      expect(yield* TimeTravel.at(latest, { streamId: "a", position: 3n, instant })).toMatchObject({ state: { x: 3 } })
    }).pipe(memory))

  it.effect("all streams by code unit; KSI's own only when asked for", () =>
    Effect.gen(function*() {
      const ids = ["b", "\uFF5E", "a", "\u{1F600}", "ksi-x", "aa"]
      yield* append(...ids.map((streamId, index) => fact(index, streamId, { index })))
      const names = (options?: { readonly all?: boolean }) =>
        Effect.map(TimeTravel.at(latest, options), (moments) => moments.map((m) => m.streamId))
      expect(yield* names()).toEqual(["a", "aa", "b", "\u{1F600}", "\uFF5E"])
      expect(yield* names({ all: true })).toEqual(["a", "aa", "b", "ksi-x", "\u{1F600}", "\uFF5E"])
      expect((yield* TimeTravel.at(latest, { streamId: "ksi-x" })).version).toBe(1)
    }).pipe(memory))

  it.effect("NotFound says whether the stream is unknown or not there yet", () =>
    Effect.gen(function*() {
      yield* append(fact(1, "x", {}), fact(2, "order-1", {}, "2018-01-03T00:00:00Z"))
      const message = (when: TimeTravel.When & { readonly streamId: string }) =>
        Effect.map(Effect.flip(TimeTravel.at(latest, when)), (error) => [error.reason._tag, error.message])
      expect(yield* message({ streamId: "order-2" })).toEqual(
        ["NotFound", "there is no stream \"order-2\"; nearest: \"order-1\""]
      )
      expect(yield* message({ streamId: "order-1", position: 1n })).toEqual(
        ["NotFound", "there is no stream \"order-1\" at position 1: it begins at position 2, 2018-01-03T00:00:00Z"]
      )
      expect(yield* message({ streamId: "order-1", instant: millis("2018-01-01T00:00:00Z") })).toEqual(
        ["NotFound", "there is no stream \"order-1\" at 2018-01-01T00:00:00.000Z: it begins at position 2, 2018-01-03T00:00:00Z"]
      )
      expect((yield* message({ streamId: "order-1", instant: Number.NEGATIVE_INFINITY }))[0]).toBe("NotFound")
      expect(yield* TimeTravel.at(latest, { position: 0n })).toEqual([])
      expect((yield* TimeTravel.at(latest, { position: 10n ** 30n })).length).toBe(2)
    }).pipe(memory))

  it.effect("a moment is as far as its stream is, also by facts that the projection leaves out", () =>
    Effect.gen(function*() {
      yield* append(
        { ...fact(1, "a", { by: 2 }), name: "test:counted" },
        fact(2, "a", {}),
        fact(3, "b", {})
      )
      expect(yield* TimeTravel.at(Count, { streamId: "a" })).toMatchObject({ version: 2, lastEvent: "test:n2", state: 2 })
      expect((yield* TimeTravel.at(Count)).map((m) => [m.streamId, m.state])).toEqual([["a", 2]])
      expect(yield* TimeTravel.at(Count, { streamId: "b" })).toMatchObject({ version: 1, state: 0 })
    }).pipe(memory))

  it.effect("a fact that no longer fits its event fails, unless the moment was before it", () =>
    Effect.gen(function*() {
      const counted = (id: number, by: unknown) => ({ ...fact(id, "a", { by }), name: "test:counted" })
      yield* append(counted(1, 1), counted(2, "two"), counted(3, 3))
      expect(yield* TimeTravel.at(Count, { position: 1n })).toMatchObject([{ state: 1 }])
      for (const when of [{}, { streamId: "a" }, { position: 2n }] as const) {
        const error = yield* Effect.flip(Effect.asVoid(TimeTravel.at(Count, when as { readonly streamId: string })))
        expect(error.reason._tag).toBe("StoreFailure")
        expect(error.message).toContain("the fact \"2\" at position 2 is no test:counted any more: by: expected number")
      }
    }).pipe(memory))

  it.effect("facts that arrive while it reads are of no moment before the end", () =>
    Effect.gen(function*() {
      const inner = yield* EventStore.EventStore
      yield* append(fact(1, "a", { x: 1 }), fact(2, "b", { x: 1 }), fact(3, "c", { x: 1 }))
      let more = 100
      const store = {
        ...inner,
        read: (options: Parameters<typeof inner.read>[0]) =>
          Effect.andThen(append(fact(++more, "a", { x: more })), inner.read(options))
      }
      const moments = yield* TimeTravel.at(latest).pipe(Effect.provideService(EventStore.EventStore, store))
      expect(moments.map((m) => m.state)).toEqual([{ x: 1 }, { x: 1 }, { x: 1 }])
      expect(more).toBeGreaterThan(101)
    }).pipe(Effect.provide(layer({ pageItems: 2 }))))

  it.effect("other fibers run between its pages, and it can be interrupted there", () =>
    Effect.gen(function*() {
      yield* append(...Array.from({ length: 900 }, (_, index) => fact(index, `s${index}`, {})))
      const inner = yield* EventStore.EventStore
      let pages = 0
      const store = {
        ...inner,
        read: (options: Parameters<typeof inner.read>[0]) => {
          pages++
          return inner.read(options)
        }
      }
      const fiber = yield* Effect.forkChild(
        TimeTravel.at(latest).pipe(Effect.provideService(EventStore.EventStore, store))
      )
      yield* Effect.repeat(Effect.yieldNow, { until: () => pages >= 3 })
      yield* Fiber.interrupt(fiber)
      expect(pages).toBeLessThan(10)
    }).pipe(Effect.provide(layer({ pageItems: 10 }))))
})

// ------------------------------------------------------------------------------------------------------- properties

const days = ["2018-01-01T00:00:00Z", "2018-01-02T01:00:00+01:00", "2018-01-02T00:00:00Z", "2018-01-03T00:00:00.5Z"] as const
const Step = Schema.Struct({
  streamId: Schema.Literals(["a", "b", "ksi-c"]),
  time: Schema.Literals(days),
  data: Schema.Struct({ key: Schema.Literals(["x", "y"]), value: Schema.Int })
})

/** The answer by another road: filter, group, merge with a Map. */
const expected = (facts: ReadonlyArray<NewFact>, holds: (fact: NewFact, position: number) => boolean) => {
  const versions = new Map<string, number>()
  const states = new Map<string, { version: number; last: NewFact; state: Map<string, unknown> }>()
  facts.forEach((fact, index) => {
    const version = (versions.get(fact.streamId) ?? 0) + 1
    versions.set(fact.streamId, version)
    if (!holds(fact, index + 1)) return
    const state = states.get(fact.streamId)?.state ?? new Map<string, unknown>()
    for (const [key, value] of Object.entries(Object(fact.data))) state.set(key, value)
    states.set(fact.streamId, { version, last: fact, state })
  })
  return ["a", "b", "ksi-c"].flatMap((streamId) => {
    const found = states.get(streamId)
    return found === undefined ? [] : [{
      streamId, version: found.version, lastEvent: found.last.name, lastEventId: found.last.id, timestamp: found.last.time,
      state: Object.fromEntries(found.state)
    }]
  })
}

describe("TimeTravel.at, by properties", () => {
  it.effect.prop("is the fold of the facts that count, for every position and instant", [Schema.Array(Step)], ([steps]) =>
    Effect.gen(function*() {
      // Adding 0 makes 0 of -0, which JSON does not know.
      const facts = steps.map(({ data, streamId, time }, index) =>
        fact(index, streamId, { [data.key]: data.value + 0 }, time))
      yield* append(...facts)
      for (let n = 0; n <= facts.length; n++) {
        const answer = expected(facts, (_, position) => position <= n)
        expect(yield* TimeTravel.at(latest, { position: BigInt(n), all: true })).toEqual(answer)
        for (const moment of answer) {
          expect(yield* TimeTravel.at(latest, { position: BigInt(n), streamId: moment.streamId })).toEqual(moment)
        }
      }
      for (const day of days) {
        for (const instant of [millis(day) - 1, millis(day)]) {
          const answer = expected(facts, ({ time }) => millis(time ?? "") <= instant)
          expect(yield* TimeTravel.at(latest, { instant, all: true })).toEqual(answer)
          for (const moment of answer) {
            expect(yield* TimeTravel.at(latest, { instant, streamId: moment.streamId })).toEqual(moment)
          }
        }
      }
    }).pipe(Effect.provide(layer({ pageItems: 3 }))))
})

describe("TimeTravel.parseMoment", () => {
  it("reads positions, instants and dates", () => {
    const read = (text: string) => Result.getOrThrow(TimeTravel.parseMoment(text))
    expect(read("1")).toEqual({ position: 1n })
    expect(read("12345678901234567890")).toEqual({ position: 12345678901234567890n })
    expect(read("2018-03-15T12:00:00Z")).toEqual({ instant: Date.UTC(2018, 2, 15, 12) })
    expect(read("2018-03-15T12:00:00.250+02:00")).toEqual({ instant: Date.UTC(2018, 2, 15, 10, 0, 0, 250) })
    expect(read("2018-03-15")).toEqual({ instant: Date.UTC(2018, 2, 15) })
    expect(read("2018")).toEqual({ position: 2018n })
  })

  it.effect("now is after every fact, start before any", () =>
    Effect.gen(function*() {
      yield* append(fact(1, "a", { x: 1 }), fact(2, "a", { x: 2 }))
      const now = Result.getOrThrow(TimeTravel.parseMoment("now"))
      const start = Result.getOrThrow(TimeTravel.parseMoment("start"))
      expect((yield* TimeTravel.at(latest, now)).map(({ state }) => state)).toEqual([{ x: 2 }])
      expect(yield* TimeTravel.at(latest, { ...now, streamId: "a" })).toMatchObject({ version: 2 })
      expect(yield* TimeTravel.at(latest, start)).toEqual([])
      const none = yield* Effect.flip(TimeTravel.at(latest, { ...start, streamId: "a" }))
      expect(none.message).toContain("at position 0: it begins at position 1")
    }).pipe(Effect.provide(layer())))

  it("says what is wrong with anything else", () => {
    const problem = (text: string) => Result.getOrThrow(Result.flip(TimeTravel.parseMoment(text)))
    expect(problem("0")).toBe("positions start at 1")
    expect(problem("2018-03-15T12:00:00")).toBe(
      "\"2018-03-15T12:00:00\" has no offset: write \"2018-03-15T12:00:00Z\" for UTC, or one such as \"2018-03-15T12:00:00+01:00\""
    )
    for (const text of ["", " 1", "-1", "1.5", "1e3", "0x10", "yesterday", "2018-02-30", "2018-3-15", "2018-03-15T25:00:00Z", "٣"]) {
      expect(problem(text)).toBe(
        `"${text}" is no moment: expected a position such as 41, an instant such as 2018-03-15T12:00:00Z, a date such as 2018-03-15, now or start`
      )
    }
  })
})

describe("a fold whose steps take long", () => {
  // Each step takes five milliseconds of a clock that nothing else moves.
  let millis = 0
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => millis,
    currentTimeMillis: Effect.sync(() => millis),
    currentTimeNanosUnsafe: () => BigInt(millis) * 1_000_000n,
    currentTimeNanos: Effect.sync(() => BigInt(millis) * 1_000_000n),
    monotonicTimeNanosUnsafe: () => BigInt(millis) * 1_000_000n,
    monotonicTimeNanos: Effect.sync(() => BigInt(millis) * 1_000_000n),
    sleep: () => Effect.never
  }
  const Slow = Projection.make("slow", {
    events: [Counted], state: Schema.Int, initial: 0, on: { [Counted.name]: (state, { by }) => {
      millis += 5
      return state + by
    } }
  })
  const questions: Readonly<Record<string, Effect.Effect<unknown, unknown, EventStore.EventStore>>> = {
    at: TimeTravel.at(Slow, { streamId: "a" }),
    "at an instant, of all": TimeTravel.at(Slow, { instant: 1e12 }),
    find: Search.find(Slow, (state) => state < 0),
    blame: Blame.blame(Slow, { streamId: "a" }),
    branch: Branch.branch(Slow, { edits: [Branch.drop(1n)] }),
    "diff of many streams": Difference.diff({ ...Slow, encode: (state) => {
      millis += 5
      return state
    } }, { position: 0n }, {})
  }
  for (const [name, question] of Object.entries(questions)) {
    it.effect(`lets others have their turn: ${name}`, () =>
      Effect.gen(function*() {
        const store = yield* EventStore.EventStore
        yield* store.appendTo("a", Array.from({ length: 100 }, () => ({ name: Counted.name, data: { by: 1 } })))
        for (let n = 0; n < 30; n++) yield* store.appendTo(`s-${n}`, [{ name: Counted.name, data: { by: 0 } }])
        let last = millis
        let longest = 0
        const others = Effect.gen(function*() {
          longest = Math.max(longest, millis - last)
          last = millis
          yield* Effect.yieldNow
        })
        const fiber = yield* Effect.forkChild(Effect.forever(others))
        yield* question
        yield* others
        yield* Fiber.interrupt(fiber)
        // Four steps between two looks at the clock, each of two reducers at most; the last look may come a moment too soon.
        expect(longest).toBeLessThanOrEqual(80)
      }).pipe(Effect.provideService(Clock.Clock, clock), memory))
  }
})
