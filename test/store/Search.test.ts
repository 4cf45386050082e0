import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Result } from "effect"
import type { StoredFact } from "../../src/event/CloudEvent.ts"
import * as EventPattern from "../../src/event/EventPattern.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as Search from "../../src/store/Search.ts"
import { append, Count, everything, factsOf, fold, memory, stores, streams } from "./histories.ts"

const { latest } = Projection

/** What is found by folding the whole prefix anew for each fact. */
const bruteForce = <S>(
  projection: Projection.Projection<S>,
  facts: ReadonlyArray<StoredFact>,
  predicate: (state: S, fact: StoredFact) => boolean,
  { from = 1n, pattern = "*", prefix = "", streamId, to = 1_000_000n }: Search.Where
) => {
  const history = facts.filter((fact) => fact.streamId.startsWith(prefix) && (streamId === undefined || fact.streamId === streamId))
  const { matches } = Result.getOrThrow(EventPattern.parse(pattern))
  for (const fact of history) {
    if (fact.position < from || fact.position > to || !matches(fact.name)) continue
    const own = history.filter((other) => other.streamId === fact.streamId)
    const after = fold(projection, own.filter(({ version }) => version <= fact.version))
    if (predicate(after, fact)) return Option.some({ fact, before: fold(projection, own.filter(({ version }) => version < fact.version)), after })
  }
  return Option.none()
}

const ranges: ReadonlyArray<Search.Where> = [undefined, ...streams].flatMap((streamId) =>
  [{}, { from: 9n }, { to: 25n }, { from: 12n, to: 30n }, { from: 30n, to: 12n }, { from: 900n }].map((range): Search.Where => ({ ...range, streamId }))).concat([
    { prefix: "s-" }, { prefix: "s-1" }, { prefix: "s-1", from: 9n }, { prefix: "t" }, { pattern: "test:counted" }, { pattern: "test:*", to: 25n },
    { pattern: "test:n1", from: 5n }, { pattern: "test:n1", streamId: "s-0" }, { pattern: "test:counted", prefix: "s-2", to: 40n }, { pattern: "test:n9" }
  ])

for (const [where, layer] of stores) {
  describe(`find, ${where}`, () => {
    it.effect("finds what reading fact by fact finds", () =>
      Effect.gen(function*() {
        yield* append(factsOf(7, 60))
        const facts = yield* everything
        const predicates = [
          (state: object) => "a" in state,
          (state: object, fact: StoredFact) => fact.position % 5 === 0 && Object.keys(state).length > 2,
          () => false,
          () => true
        ]
        for (const predicate of predicates) {
          for (const range of ranges) {
            expect(yield* Search.find(latest, predicate, range)).toEqual(bruteForce(latest, facts, predicate, range))
          }
        }
      }).pipe(Effect.provide(layer)))

    it.effect("finds the same by bisecting, where what is asked for is monotone", () =>
      Effect.gen(function*() {
        yield* append(factsOf(11, 80))
        const facts = yield* everything
        let found = 0
        for (const least of [0, 1, 3, 8, 20, 1000]) {
          for (const range of ranges) {
            const predicate = (state: number) => state >= least
            const expected = bruteForce(Count, facts, predicate, range)
            expect(yield* Search.find(Count, predicate, { ...range, monotone: true }), JSON.stringify([least, String(range.from), range.streamId, range.prefix, range.pattern])).toEqual(expected)
            if (Option.isSome(expected)) found++
          }
        }
        expect(found).toBeGreaterThan(40)
      }).pipe(Effect.provide(layer)))
  })
}

describe("find", () => {
  const counts = (...by: ReadonlyArray<number>) =>
    append(by.map((n, i) => ({ id: `${i}`, source: "/t", name: "test:counted", streamId: "a", data: { by: n }, time: undefined, attributes: {} })))

  it.effect("looks at few facts where the caller promises monotone", () =>
    Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      for (let i = 0; i < 8; i++) yield* store.appendTo("a", Array.from({ length: 500 }, () => ({ name: "test:counted", data: { by: 1 } })))
      for (const [streamId, most] of [["a", 80], [undefined, 300]] as const) {
        let asked = 0
        const found = yield* Search.find(Count, (state) => (asked++, state >= 2777), { streamId, monotone: true })
        expect(Option.map(found, ({ after, before, fact }) => [before, after, fact.version])).toEqual(Option.some([2776, 2777, 2777]))
        expect(asked).toBeLessThan(most)
      }
    }).pipe(Effect.provide(memory)))

  it.effect("bisects to where reading from the first fact comes to, in a history that is long", () =>
    Effect.gen(function*() {
      for (let i = 0; i < 3; i++) yield* append(factsOf(11, 1000).map((fact) => ({ ...fact, id: `${fact.id}-${i}` })))
      for (const least of [1, 40, 333, 480, 5000]) {
        for (const range of [{}, { from: 1200n }, { to: 1500n }, { from: 700n, to: 2900n }]) {
          for (const streamId of [undefined, "s-0", "s-2"]) {
            const expected = yield* Search.find(Count, (state) => state >= least, { ...range, streamId })
            expect(yield* Search.find(Count, (state) => state >= least, { ...range, streamId, monotone: true })).toEqual(expected)
          }
        }
      }
    }).pipe(Effect.provide(memory)))

  it.effect("says so where the promise is seen broken at the ends", () =>
    Effect.gen(function*() {
      yield* counts(5, 5, -10)
      const where = { streamId: "a", from: 2n, monotone: true }
      for (const streamId of ["a", undefined]) {
        const error = yield* Effect.flip(Search.find(Count, (state) => state > 3, { ...where, streamId }))
        expect(error.reason).toMatchObject({
          _tag: "PayloadInvalid", problems: [{ path: "monotone", problem: "it holds before position 2 and no longer at position 3: it is not monotone" }]
        })
      }
      // What holds at neither end is taken at the caller's word.
      expect(yield* Search.find(Count, (state) => state === 10, { streamId: "a", monotone: true })).toEqual(Option.none())
    }).pipe(Effect.provide(memory)))

  it.effect("a stream that does not exist is not found; a fact that cannot be folded is an error with its position", () =>
    Effect.gen(function*() {
      yield* counts(1)
      for (const monotone of [true, undefined]) {
        const missing = yield* Effect.flip(Search.find(Count, () => true, { streamId: "b", monotone }))
        expect(missing.reason).toMatchObject({ _tag: "NotFound", what: "stream", id: "b" })
      }
      const store = yield* EventStore.EventStore
      yield* store.appendTo("a", [{ name: "test:counted", data: { by: "x" } }])
      const broken = yield* Effect.flip(Search.find(Count, (state) => state > 1))
      expect(broken.reason).toMatchObject({ _tag: "StoreFailure", problem: expect.stringContaining("at position 2") })
      // Before it there is no trouble.
      expect(Option.isSome(yield* Search.find(Count, (state) => state > 0))).toBe(true)
    }).pipe(Effect.provide(memory)))

  it.effect("leaves KSI's own streams alone, lets others run, and can be interrupted", () =>
    Effect.gen(function*() {
      yield* counts(...Array.from({ length: 500 }, () => 1))
      const store = yield* EventStore.EventStore
      yield* store.driver.append({ facts: [{ id: "own", source: "/ksi", name: "saga:step", streamId: "ksi-saga", data: {}, time: undefined, attributes: {} }] })
      let looked = 0
      const searching = yield* Effect.forkChild(Search.find(latest, (_, fact) => (looked++, fact.streamId.startsWith("ksi-"))))
      yield* Effect.yieldNow
      yield* Effect.yieldNow
      expect(looked).toBeGreaterThan(0)
      expect(looked).toBeLessThan(500)
      yield* Fiber.interrupt(searching)
      expect(Exit.hasInterrupts(yield* Fiber.await(searching))).toBe(true)
      expect(yield* Search.find(latest, (_, fact) => fact.streamId.startsWith("ksi-"))).toEqual(Option.none())
    }).pipe(Effect.provide(memory)))

  it.effect("goes on where it stopped, and ends where the store ended when it began", () =>
    Effect.gen(function*() {
      yield* counts(1, 1, 1, 1, 1)
      const search = yield* Search.open(Count, (state) => Result.succeed(state >= 4), {})
      expect([yield* search.advance(2), search.position(), search.isOver()]).toEqual([Option.none(), 2, false])
      expect(Option.map(yield* search.advance(2), ({ fact }) => fact.position)).toEqual(Option.some(4))
      const beyond = yield* Search.open(Count, (state) => Result.succeed(state >= 6), {})
      yield* beyond.advance(5)
      const store = yield* EventStore.EventStore
      yield* store.appendTo("a", [{ name: "test:counted", data: { by: 9 } }])
      expect([yield* beyond.advance(5), beyond.isOver(), beyond.position()]).toEqual([Option.none(), true, 5])
    }).pipe(Effect.provide(memory)))
})
