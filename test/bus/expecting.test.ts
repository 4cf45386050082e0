// Facts that are said only if the store is as whoever decided believes it to be.
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Schema, Stream } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import { Ksi } from "../../src/Ksi.ts"
import { EventStore } from "../../src/store/EventStore.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-expecting-"))
afterAll(() => Fs.rmSync(folder, { recursive: true }))

const Seat = { flight: Schema.String, seat: Schema.String }
const Book = Event.make("seat:book", { payload: Seat, success: Schema.Boolean })
const Booked = Event.fact("seat:booked", {
  payload: Seat, streamId: ({ flight, seat }) => `${flight}-${seat}`, tags: ({ flight }) => [`flight:${flight}`]
})
const Seats = EventGroup.make(Book, Booked)
const SeatsLive = Seats.toLayer(Effect.gen(function*() {
  const ksi = yield* Ksi
  const store = yield* EventStore
  return {
    // At most two seats of a flight, whoever books which at the same time.
    "seat:book": ({ flight, seat }) =>
      Effect.gen(function*() {
        const query = [{ names: [Booked.name], tags: [`flight:${flight}`] }]
        const { facts, position } = yield* store.readAll({ query })
        if ((yield* Stream.runCollect(facts)).length >= 2) return false
        yield* ksi.emit(Booked, { flight, seat }, { condition: { query, after: position }, expectedVersion: 0 })
        return true
      }).pipe(Effect.retry({ while: (error) => error.reason._tag === "ConditionFailed" }))
  }
}))

const app = (kind: "in memory" | "in a file") =>
  Ksi.serve(Seats).pipe(
    Layer.provide(SeatsLive),
    Layer.provideMerge(Layer.suspend(() => kind === "in memory" ? Ksi.layerMemory : Ksi.layerSqlite({ filename: Path.join(folder, "seats.db"), sync: "normal" })))
  )

const reasonOf = <A, R>(effect: Effect.Effect<A, unknown, R>) =>
  Effect.map(Effect.flip(effect), (error) => error instanceof KsiError ? error.reason : error)

describe.each(["in memory", "in a file"] as const)("%s", (kind) => {
  it.effect("a fact expects a version, several, or that nothing came; where that does not hold nothing happened", () =>
    Effect.gen(function*() {
      const ksi = yield* Ksi
      const { head } = yield* EventStore
      const seat = { flight: "kl1", seat: "1a" }
      expect((yield* ksi.emit(Booked, seat, { expectedVersion: 0 })).version).toBe(1)
      expect(yield* reasonOf(ksi.emit(Booked, seat, { expectedVersion: 0 }))).toMatchObject({ _tag: "VersionConflict", actual: 1 })
      const others = { expectedVersions: [{ streamId: "kl1-1a", version: 1 }, { streamId: "kl1-1b", version: 1 }] }
      expect(yield* reasonOf(ksi.emit(Booked, seat, others))).toMatchObject({ _tag: "VersionConflict", streamId: "kl1-1b", actual: 0 })
      const query = [{ tags: ["flight:kl1"] }]
      expect(yield* reasonOf(ksi.emit(Booked, seat, { condition: { query } }))).toMatchObject({ _tag: "ConditionFailed", position: 1 })
      expect(head()).toBe(1)
      // What was emitted has the tags of its definition: the next decision sees it.
      expect((yield* ksi.emit(Booked, seat, { condition: { query, after: 1 }, expectedVersion: 1 })).version).toBe(2)
      expect(yield* reasonOf(ksi.emit(Booked, seat, { condition: { query, after: 1 } }))).toMatchObject({ _tag: "ConditionFailed", position: 2 })
      expect((yield* ksi.emit(Booked, seat, {})).version).toBe(3)
    }).pipe(Effect.provide(app(kind))))

  it.effect("twenty who decide at the same time, each on what it has read: two seats are booked, and no more", () =>
    Effect.gen(function*() {
      const ksi = yield* Ksi
      const answers = yield* Effect.forEach(Array.from({ length: 20 }, (_, n) => `${n}`), (seat) => ksi.call(Book, { flight: "kl2", seat }), { concurrency: "unbounded" })
      expect(answers.filter((isBooked) => isBooked)).toHaveLength(2)
      const { readAll } = yield* EventStore
      const { facts } = yield* readAll({ query: [{ tags: ["flight:kl2"] }] })
      // Who decided is who caused it.
      const booked = yield* Stream.runCollect(facts)
      expect(booked.map(({ attributes }) => typeof attributes["causationid"])).toEqual(["string", "string"])
    }).pipe(Effect.provide(app(kind))))
})
