// Small histories out of a seed, with late facts and equal times, in a store in memory or in a file.
import { Effect, Layer, Schema } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { NewFact, StoredFact } from "../../src/event/CloudEvent.ts"
import * as Event from "../../src/event/Event.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import { seeded } from "../Seeded.ts"

export const Counted = Event.fact("test:counted", { payload: { by: Schema.Int }, streamId: () => "a" })
/** A state that is a number, and grows where `by` is positive. */
export const Count = Projection.make("count", {
  events: [Counted], state: Schema.Int, initial: 0, on: { [Counted.name]: (state, { by }) => state + by }
})

export const streams = ["s-0", "s-1", "s-2"] as const

// Pages are small, so that every walk crosses some.
const limits = Layer.succeed(Limits.Limits, { ...Limits.defaults, pageItems: 7 })

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ksi-history-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

export const memory = Layer.fresh(Layer.provideMerge(EventStore.layerMemory, limits))
export const sqlite = Layer.fresh(Layer.provideMerge(
  Layer.unwrap(Effect.map(folder, (path) => SqliteEventStore.layer({ filename: join(path, "ksi.db") }))),
  limits
))
export const stores = [["in memory", memory], ["in SQLite", sqlite]] as const

/** A value that another one of the seed is often equal to, or a part of. */
export const valueOf = (random: (below: number) => number, depth = 2): unknown => {
  switch (random(depth === 0 ? 5 : 8)) {
    case 0:
      return null
    case 1:
      return random(3)
    case 2:
      return `text ${random(2)}`
    case 3:
      return random(2) === 0
    case 4:
      return random(2) === 0 ? [] : {}
    case 5:
      return Array.from({ length: random(4) }, () => valueOf(random, depth - 1))
    default:
      return Object.fromEntries(Array.from({ length: random(4) }, () => [["a", "b/c", "d~", "e.f", "__proto__"][random(5)] ?? "a", valueOf(random, depth - 1)]))
  }
}

/** Facts of a seed; every third one is a count, the others have any data. */
export const factsOf = (seed: number, length: number): ReadonlyArray<NewFact> => {
  const random = seeded(seed)
  return Array.from({ length }, (_, i) => ({
    id: `f${i + 1}`,
    source: "/test",
    name: i % 3 === 0 ? Counted.name : `test:n${random(3)}`,
    streamId: streams[random(3)] ?? "s-0",
    data: i % 3 === 0 ? { by: random(4) } : valueOf(random),
    time: random(4) === 0 ? undefined : `2026-01-${10 + random(9)}T00:00:00Z`,
    attributes: {}
  }))
}

export const append = (facts: ReadonlyArray<NewFact>) =>
  Effect.flatMap(EventStore.EventStore, (store) => store.append({ facts }))

/** Everything that is stored. */
export const everything = Effect.flatMap(EventStore.EventStore, (store) => store.read({ from: 1, limit: 100_000 }))

/** The state after each fact, by brute force. */
export const fold = <S>(projection: Projection.Projection<S>, facts: ReadonlyArray<StoredFact>): S =>
  facts.reduce<S>((state, fact) => {
    const applied = projection.apply(state, fact)
    if (applied._tag === "Failure") throw applied.failure
    return applied.success
  }, projection.initial)
