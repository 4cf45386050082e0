// Looking back where history was removed: every answer is that of the facts that are left, whatever was kept of those that are not.
import { describe, expect, it } from "@effect/vitest"
import { Effect, Option, Schema } from "effect"
import type { StoredFact } from "../../src/event/CloudEvent.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import * as Blame from "../../src/store/Blame.ts"
import * as Branch from "../../src/store/Branch.ts"
import * as Comparison from "../../src/store/Comparison.ts"
import * as Difference from "../../src/store/Difference.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as Search from "../../src/store/Search.ts"
import * as Snapshots from "../../src/store/Snapshots.ts"
import * as TimeTravel from "../../src/store/TimeTravel.ts"
import { seeded } from "../Seeded.ts"
import { append, Count, Counted, everything, factsOf, fold, memory, stores, streams } from "./histories.ts"

const { latest } = Projection

/** A sum, and the id of the last fact that it is of. */
const Sum = Projection.make("sum", {
  events: [Counted], state: Schema.Struct({ last: Schema.String, total: Schema.Int }), initial: { last: "", total: 0 },
  on: { [Counted.name]: ({ total }, { by }, { id }) => ({ last: id, total: total + by }) }
})

/** What is left of a stream at a moment, folded by hand. */
const momentOf = <S>(projection: Projection.Projection<S>, facts: ReadonlyArray<StoredFact>) => {
  const last = facts.at(-1)
  return last === undefined ? undefined : {
    streamId: last.streamId, version: last.version, lastEvent: last.name, lastEventId: last.id,
    timestamp: last.time ?? new Date(last.timestamp).toISOString(), state: fold(projection, facts)
  }
}

const within = (facts: ReadonlyArray<StoredFact>, { instant = Infinity, position }: TimeTravel.When) =>
  facts.filter((fact) => fact.position <= Number(position ?? Infinity) && fact.timestamp <= instant)

const often = Effect.provideService(Snapshots.Policy, { streamFacts: 3, allFacts: 5, bytesPerFact: 1e9 })
const instant = Date.parse("2026-01-14T00:00:00Z")

/** Every question about the past of a store, against what is left of it. */
const compareAll = <S>(projection: Projection.Projection<S>) =>
  Effect.gen(function*() {
    const left = yield* everything
    const { head } = yield* EventStore.EventStore
    const whens: ReadonlyArray<TimeTravel.When> = [
      ...Array.from({ length: head() + 1 }, (_, n) => ({ position: BigInt(n) })), { instant }, { instant: 0 }, { instant, position: 30n }, {}
    ]
    for (const when of whens) {
      const told = JSON.stringify({ ...when, position: String(when.position) })
      const ofStream = (streamId: string) => within(left, when).filter((fact) => fact.streamId === streamId)
      for (const streamId of streams) {
        expect(yield* Difference.momentOr(projection, { ...when, streamId }), `${told} ${streamId}`).toEqual(momentOf(projection, ofStream(streamId)))
      }
      const handled = streams.filter((id) => ofStream(id).some(({ name }) => projection.handles(name)))
      expect(yield* TimeTravel.at(projection, when), told).toEqual(handled.map((id) => momentOf(projection, ofStream(id))))
    }
    return left
  })

const compareEach = Effect.andThen(compareAll(latest), Effect.andThen(compareAll(Count), compareAll(Sum)))

const removals: Readonly<Record<string, (store: EventStore.EventStore["Service"]) => Effect.Effect<unknown, KsiError.KsiError>>> = {
  "the beginning of a stream": (store) => Effect.andThen(store.configure("s-0", { truncateBefore: 6 }), store.retain),
  "of two streams": (store) => Effect.andThen(store.configure("s-1", { maxCount: 4 }), Effect.andThen(store.configure("s-0", { truncateBefore: 9 }), store.retain)),
  "a whole stream": (store) => store.delete("s-2"),
  "all that can go": (store) => Effect.andThen(Effect.forEach(["s-0", "s-1"], (id) => store.configure(id, { truncateBefore: 1000 })), store.retain)
}

describe.each(stores)("after history was removed, %s", (_, layer) => {
  it.effect("a moment is the fold of what is left, whatever snapshots there were", () => Effect.gen(function*() {
    const store = yield* EventStore.EventStore
    yield* append(factsOf(71, 60))
    for (const [index, remove] of Object.values(removals).entries()) {
      yield* compareEach
      const before = (yield* everything).length
      yield* remove(store)
      expect((yield* everything).length).toBeLessThan(before)
      yield* compareEach
      // What comes after a removal is folded on.
      yield* Effect.ignore(append(factsOf(80 + index, 9).filter(({ streamId }) => streamId !== "s-2").map((fact) => ({ ...fact, id: `${fact.id}-${index}` }))))
    }
    const left = yield* compareAll(Sum)
    expect(left.map(({ position }) => position)).not.toContain(1)
  }).pipe(often, Effect.provide(layer)), 20_000)

  it.effect("find, compare, diff, blame and branch look at what is left", () => Effect.gen(function*() {
    const store = yield* EventStore.EventStore
    yield* append(factsOf(73, 60))
    yield* TimeTravel.at(Sum)
    for (const streamId of streams) yield* TimeTravel.at(Sum, { streamId })
    yield* store.configure("s-0", { truncateBefore: 8 })
    yield* store.configure("s-1", { maxCount: 5 })
    yield* store.retain
    const left = yield* everything
    const random = seeded(5)
    for (const streamId of [undefined, ...streams]) {
      for (const least of [1, 3, 7, 100]) {
        const holds = ({ total }: typeof Sum.initial) => total >= least
        const expected = left.find((fact) =>
          (streamId === undefined || fact.streamId === streamId) &&
          holds(fold(Sum, left.filter((one) => one.streamId === fact.streamId && one.version <= fact.version))))
        for (const monotone of [true, false]) {
          const found = monotone ? yield* Search.find(Sum, holds, { streamId, monotone: true }) : yield* Search.find(Sum, holds, { streamId })
          expect(Option.getOrUndefined(found)?.fact).toEqual(expected)
        }
        const bounded = Projection.make("bounded", {
          events: [Counted], state: Schema.Struct({ last: Schema.String, total: Schema.Int }), initial: { last: "", total: 0 },
          on: { [Counted.name]: ({ total }, { by }, { id }) => ({ last: id, total: Math.min(least - 1, total + by) }) }
        })
        expect(Option.getOrUndefined(yield* Comparison.compare(Sum, bounded, { streamId }))?.fact).toEqual(expected)
      }
    }
    for (const streamId of streams) {
      const own = left.filter((fact) => fact.streamId === streamId)
      const blamed = yield* Blame.blame(Sum, { streamId })
      expect(blamed.find(({ field }) => field === "last")?.fact).toEqual(own.findLast(({ name }) => name === Counted.name))
      const [a, b] = [own[1], own.at(-1)]
      if (a === undefined || b === undefined) return expect.fail("facts are left")
      const { patch } = yield* Difference.diff(Sum, { position: BigInt(a.position) }, { position: BigInt(b.position) }, { streamId })
      const upTo = ({ version }: StoredFact) => fold(Sum, own.filter((one) => one.version <= version))
      expect(patch).toEqual(Difference.patchOf(Difference.between(upTo(a), upTo(b))))
      for (let n = 0; n < 6; n++) {
        const at = n === 0 ? own[0] : own[random(own.length)]
        if (at === undefined) return expect.fail("facts are left")
        const { lines } = yield* Branch.branch(Sum, { edits: [Branch.replace(BigInt(at.position), { name: Counted.name, data: { by: 1000 } })] })
        const instead = own.map((fact) => fact === at ? { ...fact, name: Counted.name, data: { by: 1000 } } : fact)
        // Nothing was dropped: versions are as they were.
        expect(lines).toMatchObject([{ streamId, real: fold(Sum, own), branch: fold(Sum, instead), versions: { real: b.version, branch: b.version } }])
      }
    }
    const gone = yield* Effect.flip(Branch.branch(Sum, { edits: [Branch.drop(1n)] }))
    expect(gone.reason).toMatchObject(left[0]?.position === 1 ? {} : { _tag: "NotFound", what: "fact", id: "1" })
  }).pipe(often, Effect.provide(layer)))

  it.effect("who asks for what is gone is told so", () => Effect.gen(function*() {
    const store = yield* EventStore.EventStore
    for (const streamId of ["a", "b", "c"]) yield* store.appendTo(streamId, Array.from({ length: 4 }, (_, i) => ({ name: "test:x", data: { i }, time: `2026-01-0${i + 1}T00:00:00Z` })))
    yield* store.configure("a", { truncateBefore: 3 })
    yield* store.configure("b", { truncateBefore: 1000 })
    yield* store.configure("none", { maxCount: 1 })
    yield* store.retain
    yield* store.delete("c")
    const problem = (when: TimeTravel.When & { readonly streamId: string }) =>
      Effect.map(Effect.flip(TimeTravel.at(latest, when)), ({ message }) => message)
    const cut = "it begins at position 3, 2026-01-03T00:00:00Z; its history before version 3 was removed"
    expect(yield* problem({ streamId: "a", position: 2n })).toBe(`there is no stream "a" at position 2: ${cut}`)
    expect(yield* problem({ streamId: "a", instant: Date.parse("2026-01-02T00:00:00Z") })).toBe(`there is no stream "a" at 2026-01-02T00:00:00.000Z: ${cut}`)
    expect(yield* problem({ streamId: "b", position: 7n })).toBe(`there is no stream "b" any more: all its facts, up to version 4, were removed`)
    expect(yield* problem({ streamId: "c", position: 9n })).toContain("its history before version 5 was removed")
    expect(yield* problem({ streamId: "none" })).toMatch(/^there is no stream "none"/)
    expect(yield* TimeTravel.at(latest, { streamId: "a", position: 3n })).toMatchObject({ version: 3, state: { i: 2 } })
    expect(yield* TimeTravel.at(latest, { position: 2n })).toEqual([])
  }).pipe(often, Effect.provide(layer)))
})

describe("a stream of which nothing was removed", () => {
  it.effect("is told of as before", () => Effect.gen(function*() {
    const store = yield* EventStore.EventStore
    yield* store.appendTo("x", [{ name: "test:x" }])
    yield* store.appendTo("y", [{ name: "test:x", time: "2026-01-01T00:00:00Z" }])
    const { message } = yield* Effect.flip(TimeTravel.at(latest, { streamId: "y", position: 1n }))
    expect(message).toBe("there is no stream \"y\" at position 1: it begins at position 2, 2026-01-01T00:00:00Z")
  }).pipe(Effect.provide(memory)))
})
