// A fact whose data has changed twice, in an app that has been there all the time: on a real file, by every way that facts are read.
import { expect, it } from "@effect/vitest"
import { Effect, Layer, Schema, Stream } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import { Router } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import * as DeadLetter from "../../src/plugins/DeadLetter.ts"
import * as Store from "../../src/plugins/Store.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as TimeTravel from "../../src/store/TimeTravel.ts"
import * as KsiTest from "../../src/testing/KsiTest.ts"

const streamId = () => "till"
const First = Event.fact("till:paid", { payload: { price: Schema.Int }, streamId })
const Second = Event.fact("till:paid", {
  payload: { cents: Schema.Int }, streamId, version: 2, upcast: { 1: ({ price }: { price: number }) => ({ cents: price * 100 }) }
})
const Third = Event.fact("till:paid", {
  payload: { cents: Schema.Int, currency: Schema.String }, streamId, version: 3,
  upcast: { 1: ({ price }: { price: number }) => ({ cents: price * 100 }), 2: (old: { cents: number }) => ({ ...old, currency: "EUR" }) }
})

/** One release of the app: its handler writes down what it hears, or fails. */
const release = (event: typeof First | typeof Second | typeof Third, heard: Array<unknown>, fails = false) => {
  // The three have one name, and the handler takes any payload.
  const group = EventGroup.make(event as typeof First)
  const handle = (payload: unknown) => Effect.suspend(() => {
    heard.push(payload)
    return fails ? Effect.die(new Error("no paper")) : Effect.void
  })
  return Ksi.serve(group).pipe(Layer.provide(group.toLayer({ "till:paid": handle })))
}

const Total = Projection.make("total", {
  events: [Third], state: Schema.Struct({ cents: Schema.Int, last: Schema.String }), initial: { cents: 0, last: "" },
  on: { [Third.name]: ({ cents }, payload) => ({ cents: cents + payload.cents, last: payload.currency }) }
})

it.effect("facts of three releases are one history, and what is stored stays as it was written", () =>
  Effect.gen(function*() {
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-versions-"))
    const filename = Path.join(folder, "ksi.db")
    const running = <A, E>(app: Layer.Layer<never, unknown, Runtime>, body: Effect.Effect<A, E, Runtime>) =>
      Effect.provide(body, Layer.orDie(app.pipe(Layer.provideMerge(Layer.fresh(Ksi.layerSqlite({ filename, sync: "normal" }))))))
    const heard: Array<unknown> = []
    yield* running(release(First, heard, true), Effect.gen(function*() {
      yield* (yield* KsiService).emit(First, { price: 1 })
      yield* (yield* Router).settled
    }))
    yield* running(release(Second, heard), Effect.flatMap(KsiService, (ksi) => ksi.emit(Second, { cents: 250 })))
    yield* running(Layer.mergeAll(release(Third, heard), Store.layer, DeadLetter.layer), Effect.gen(function*() {
      const ksi = yield* KsiService
      const store = yield* EventStore
      yield* ksi.emit(Third, { cents: 5, currency: "GBP" })
      const paid = [{ cents: 100, currency: "EUR" }, { cents: 250, currency: "EUR" }, { cents: 5, currency: "GBP" }]
      const typed = yield* ksi.subscribe(Third, { from: "start" }).pipe(Stream.take(3), Stream.runCollect)
      expect(typed.map(({ data }) => data)).toEqual(paid)
      expect((yield* TimeTravel.at(Total, { streamId: "till" })).state).toEqual({ cents: 355, last: "GBP" })
      // As it was written: by pattern, in the store, in an export.
      const asWritten = [{ price: 1 }, { cents: 250 }, { cents: 5, currency: "GBP" }]
      const byPattern = yield* ksi.subscribe("till:*", { from: "start" }).pipe(Stream.take(3), Stream.runCollect)
      expect(byPattern.map(({ data, dataVersion }) => [data, dataVersion])).toEqual([[asWritten[0], undefined], [asWritten[1], 2], [asWritten[2], 3]])
      expect((yield* store.read({ from: 1, limit: 3 })).map(({ attributes }) => attributes["dataversion"])).toEqual([undefined, 2, 3])
      const { items } = yield* ksi.call(Store.Export, {})
      expect(items).toMatchObject(asWritten.map((data, n) => n === 0 ? { data } : { data, dataversion: n + 1 }))
      // The reaction that failed in the first release is rerun in this one.
      const { letters: [letter] } = yield* (yield* DeadLetters).list({ limit: 1 })
      yield* ksi.call(DeadLetter.Rerun, { letter: letter?.letter ?? 0 })
      expect(heard).toEqual([{ price: 1 }, { cents: 250 }, paid[2], paid[0]])
      // What comes from elsewhere is looked at as what it says it is, and stored as it came.
      const cloudEvent = (id: string, data: unknown, more: object = {}) => ({ specversion: "1.0", id, source: "/there", type: "till:paid", subject: "till", data, ...more })
      const reply = yield* ksi.call(Store.Import, { events: [
        cloudEvent("1", { price: 3 }), cloudEvent("2", { cents: 1 }, { dataversion: 2 }), cloudEvent("3", { price: 3 }, { dataversion: 3 }), cloudEvent("4", {}, { dataversion: 4 })
      ] })
      expect(reply).toMatchObject({ imported: 2, rejections: [{ index: 2 }, { index: 3, error: expect.stringContaining("up to version 3") }] })
      expect((yield* TimeTravel.at(Total, { streamId: "till" })).state.cents).toBe(656)
    }))
    // A release that is older than the store says so, and where.
    yield* running(release(Second, heard), Effect.gen(function*() {
      const error = yield* Effect.flip((yield* KsiService).subscribe(Second, { from: 3 }).pipe(Stream.runDrain))
      expect(error.message).toContain("at position 3 has data of version 3, and this program knows till:paid up to version 2")
    }))
    Fs.rmSync(folder, { recursive: true })
  }))

it.effect("a received event is of today's shape, whatever version its sender says", () =>
  Effect.gen(function*() {
    const plain = Event.fact("till:noted", { payload: { text: Schema.String }, streamId })
    const group = EventGroup.make(Third, plain)
    const app = Ksi.serve(group).pipe(
      Layer.provide(group.toLayer({ "till:paid": () => Effect.void, "till:noted": () => Effect.void })), Layer.provideMerge(Ksi.layerMemory)
    )
    yield* Effect.gen(function*() {
      const router = yield* Router
      for (const [name, data] of [["till:paid", { cents: 1, currency: "EUR" }], ["till:noted", { text: "x" }]] as const) {
        const fact = { id: name, source: "/there", name, streamId: "till", data, time: undefined, attributes: { dataversion: 9, tenant: "t" } }
        yield* router.dispatch(router.received(fact, {}), "emit")
      }
      const stored = yield* (yield* EventStore).read({ from: 1, limit: 2 })
      expect(stored.map(({ attributes }) => attributes)).toMatchObject([{ dataversion: 3, tenant: "t" }, { tenant: "t" }])
      expect(stored[1]?.attributes).not.toHaveProperty("dataversion")
    }).pipe(Effect.provide(app))
  }))

it.effect("history that a scenario gives is of today's version", () =>
  Effect.gen(function*() {
    yield* KsiTest.scenario.given(Third.of({ cents: 5, currency: "GBP" })).when(Third.of({ cents: 1, currency: "USD" }))
      .thenEmits(Third.of({ cents: 1, currency: "USD" }))
      .thenState(Total, "till", { cents: 6, last: "USD" })
  }).pipe(Effect.provide(KsiTest.layer(release(Third, [])))))
