import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Schema, Stream } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Activity } from "../src/bus/Activity.ts"
import { DeadLetters } from "../src/bus/DeadLetters.ts"
import { Idempotency } from "../src/bus/Idempotency.ts"
import * as Event from "../src/event/Event.ts"
import * as EventGroup from "../src/event/EventGroup.ts"
import type { KsiError } from "../src/event/KsiError.ts"
import { Ksi, type Runtime } from "../src/Ksi.ts"

const Count = Event.make("count:up", { payload: { by: Schema.Int }, success: Schema.Int })
const Counted = Event.fact("count:went-up", { payload: { by: Schema.Int }, streamId: () => "counter" })
const Counter = EventGroup.make(Count, Counted)
const CounterHandlers = Counter.toLayer({
  *"count:up"({ by }) {
    const ksi = yield* Ksi
    const { version } = yield* ksi.emit(Counted, { by })
    return version
  }
})
const on = (runtime: Layer.Layer<Runtime, KsiError>) =>
  Ksi.serve(Counter).pipe(Layer.provide(CounterHandlers), Layer.provideMerge(runtime))

const program = Effect.gen(function*() {
  const ksi = yield* Ksi
  const versions = [yield* ksi.call(Count, { by: 1 }), yield* ksi.call(Count, { by: 2 })]
  const facts = yield* ksi.subscribe(Counted, { from: "start" }).pipe(Stream.take(2), Stream.runCollect)
  return { versions, by: facts.map(({ data }) => data.by) }
})

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ksi-facade-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

describe("Ksi", () => {
  it.effect("the same program runs in memory and on disk", () =>
    Effect.gen(function*() {
      const expected = { versions: [1, 2], by: [1, 2] }
      expect(yield* Effect.provide(program, on(Ksi.layerMemory))).toEqual(expected)
      const filename = join(yield* folder, "count.db")
      expect(yield* Effect.provide(program, on(Ksi.layerSqlite({ filename })))).toEqual(expected)
      // What is on disk is there the next time.
      expect((yield* Effect.provide(program, on(Ksi.layerSqlite({ filename })))).versions).toEqual([3, 4])
    }))

  it.effect("what is kept of requests can be chosen in memory as on disk", () =>
    Effect.gen(function*() {
      const filename = join(yield* folder, "count.db")
      const kept = Effect.gen(function*() {
        yield* program
        const activity = yield* Activity
        return (yield* activity.query({ limit: 9, forward: true })).records.map(({ data }) => data)
      })
      expect(yield* Effect.provide(kept, on(Ksi.layerMemory))).toEqual([{ by: 1 }, { by: 2 }])
      for (const layer of [Ksi.layerMemoryWith({ audit: "outline" }), Ksi.layerSqlite({ filename, audit: "outline" })]) {
        expect(yield* Effect.provide(kept, on(layer))).toEqual([null, null])
      }
      expect(yield* Effect.provide(kept, on(Ksi.layerMemoryWith({ audit: "off" })))).toEqual([])
    }))

  it.effect("both keep dead letters and answers under idempotency keys; on disk they are there the next time", () =>
    Effect.gen(function*() {
      const event = { id: "1", name: "count:went-up", data: { by: 1 }, streamId: "counter", position: 1, attributes: {} }
      const leave = Effect.gen(function*() {
        const dead = yield* DeadLetters
        const { once } = yield* Idempotency
        dead.record({ handler: "count:went-up#1", reason: "died", error: "bug", event, timestamp: 0 })
        const { total } = yield* dead.list({ limit: 1 })
        const key = { principal: "owner", event: "count:up", key: "k" }
        return [total, yield* once(key, { by: 1 }, Effect.succeed(total))]
      })
      const filename = join(yield* folder, "count.db")
      for (const again of [[1, 1], [1, 1]]) expect(yield* Effect.provide(leave, Ksi.layerMemory)).toEqual(again)
      for (const again of [[1, 1], [2, 1]]) expect(yield* Effect.provide(leave, Ksi.layerSqlite({ filename }))).toEqual(again)
    }))

  it.effect("two runtimes in memory share nothing", () =>
    Effect.gen(function*() {
      expect((yield* Effect.provide(program, on(Ksi.layerMemory))).versions).toEqual([1, 2])
      expect((yield* Effect.provide(program, on(Ksi.layerMemory))).versions).toEqual([1, 2])
    }))

  it.effect("a store that another runtime writes is refused", () =>
    Effect.gen(function*() {
      const filename = join(yield* folder, "count.db")
      yield* Layer.build(Ksi.layerSqlite({ filename }))
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(Ksi.layerSqlite({ filename }))))
      const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      expect(error).toMatchObject({ _tag: "KsiError", reason: { _tag: "StoreLocked" } })
    }))
})
