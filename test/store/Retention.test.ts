// Facts that are removed on purpose: against a pure model, over restarts and failed commits, and for those who read on.
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Layer, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as EventStore from "../../src/store/EventStore.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import * as StoreInspection from "../../src/store/StoreInspection.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-retention-"))
afterAll(() => Fs.rmSync(folder, { recursive: true }))
let files = 0
const fresh = () => Path.join(folder, `${++files}.db`)

type Store = EventStore.EventStore["Service"]

const fact = (id: string, streamId = "a", data: unknown = { id }) =>
  ({ id, source: "/t", name: "a:b", streamId, data, time: undefined, attributes: {} })

const open = <A, E>(filename: string, body: (store: Store) => Effect.Effect<A, E, Scope.Scope>) =>
  Effect.scoped(Effect.provide(Effect.flatMap(EventStore.EventStore, body),
    SqliteEventStore.layer({ filename, sync: "normal", indexThreshold: 4 })))

// ------------------------------------------------------------------------------------------------------------ the model

const streams = ["a", "b", "ü😀"] as const
const Step = Schema.Union([
  Schema.Struct({ do: Schema.Literal("append"), streams: Schema.Array(Schema.Literals(streams)).check(Schema.isMaxLength(7)) }),
  Schema.Struct({
    do: Schema.Literal("configure"), stream: Schema.Literals(streams), maxCount: Schema.Literals([0, 1, 2, 5]),
    maxAge: Schema.Literals([0, 1, 20, 30]), truncateBefore: Schema.Literals([0, 2, 4, 50])
  }),
  Schema.Struct({ do: Schema.Literal("retain") }),
  Schema.Struct({ do: Schema.Literal("wait") }),
  Schema.Struct({ do: Schema.Literal("reopen") }),
  Schema.Struct({ do: Schema.Literal("delete"), stream: Schema.Literal("b") })
])
type Step = typeof Step.Type

const settingsOf = (step: Extract<Step, { do: "configure" }>) => ({
  ...(step.maxCount > 0 ? { maxCount: step.maxCount } : {}),
  ...(step.maxAge > 0 ? { maxAge: step.maxAge } : {}),
  ...(step.truncateBefore > 0 ? { truncateBefore: step.truncateBefore } : {})
})

interface Kept {
  readonly position: number
  readonly streamId: string
  readonly version: number
  readonly at: number
}

/** What must be left, in the plainest way: a list that is filtered. */
class Model {
  facts: ReadonlyArray<Kept> = []
  head = 0
  readonly heads = new Map<string, number>()
  readonly deleted = new Set<string>()
  readonly settings = new Map<string, ReturnType<typeof settingsOf>>()
  append(streamId: string, at: number) {
    const version = (this.heads.get(streamId) ?? 0) + 1
    this.heads.set(streamId, version)
    this.facts = [...this.facts, { position: ++this.head, streamId, version, at }]
  }
  retain(now: number) {
    this.facts = this.facts.filter(({ at, streamId, version }) => {
      const { maxAge = Infinity, maxCount = Infinity, truncateBefore = 0 } = this.settings.get(streamId) ?? {}
      return version >= truncateBefore && version > (this.heads.get(streamId) ?? 0) - maxCount && at >= now - maxAge
    })
  }
  delete(streamId: string, at: number) {
    if (!this.heads.has(streamId) || this.deleted.has(streamId)) return
    this.facts = this.facts.filter((kept) => kept.streamId !== streamId)
    this.append(streamId, at)
    this.deleted.add(streamId)
    this.settings.delete(streamId)
  }
}

const shown = (facts: ReadonlyArray<Omit<Kept, "at">>) => facts.map(({ position, streamId, version }) => [position, streamId, version])

/** Every way of reading says the same as the model. */
const compare = Effect.fnUntraced(function*(store: Store, model: Model) {
  expect(store.head()).toBe(model.head)
  expect(shown(yield* Stream.runCollect(store.all()))).toEqual(shown(model.facts))
  for (let from = 1; from <= model.head + 1; from += 3) {
    const expected = model.facts.filter(({ position }) => position >= from && position <= from + 5).slice(0, 2)
    expect(shown(yield* store.read({ from, to: from + 5, limit: 2 }))).toEqual(shown(expected))
  }
  for (const [streamId, head] of model.heads) {
    const kept = model.facts.filter((one) => one.streamId === streamId)
    const range = { streamId, from: 2, to: head, limit: 3 }
    const inRange = kept.filter(({ version }) => version >= 2)
    expect(shown(yield* store.readStream(range))).toEqual(shown(inRange.slice(0, 3)))
    expect(shown(yield* store.readStream({ ...range, backward: true }))).toEqual(shown(inRange.toReversed().slice(0, 3)))
    const { count, isDeleted, version } = yield* store.details(streamId)
    expect([count, isDeleted, version]).toEqual([kept.length, model.deleted.has(streamId), head])
  }
})

const play = Effect.fnUntraced(function*(steps: ReadonlyArray<Step>, store: () => Store, reopen: Effect.Effect<void, unknown>) {
  const model = new Model()
  let now = 1000
  yield* TestClock.setTime(now)
  for (const [index, step] of steps.entries()) {
    if (step.do === "append") {
      const request = { facts: step.streams.map((streamId, at) => fact(`${index}-${at}`, streamId)) }
      const done = yield* Effect.exit(store().append(request))
      const isRefused = step.streams.some((streamId) => model.deleted.has(streamId))
      expect(Exit.isFailure(done)).toBe(isRefused)
      if (!isRefused) for (const streamId of step.streams) model.append(streamId, now)
    } else if (step.do === "configure") {
      const done = yield* Effect.exit(store().configure(step.stream, settingsOf(step)))
      expect(Exit.isFailure(done)).toBe(model.deleted.has(step.stream))
      if (Exit.isSuccess(done)) model.settings.set(step.stream, settingsOf(step))
    } else if (step.do === "retain") {
      const before = model.facts.length
      model.retain(now)
      expect(yield* store().retain).toBe(before - model.facts.length)
    } else if (step.do === "wait") yield* TestClock.setTime(now += 10)
    else if (step.do === "reopen") yield* reopen
    else {
      yield* Effect.exit(store().delete(step.stream))
      model.delete(step.stream, now)
    }
    yield* compare(store(), model)
  }
})

const Steps = Schema.Array(Step).check(Schema.isMaxLength(20))

describe("against a model", () => {
  it.effect.prop("the store in memory holds what is left, whatever happens", [Steps], ([steps]) =>
    Effect.gen(function*() {
      const store = yield* EventStore.inMemory
      yield* play(steps, () => store, Effect.void)
    }), { arbitrary: { runs: 150 } })

  it.effect.prop("and so does a file, also when it is closed and opened", [Steps], ([steps]) =>
    Effect.gen(function*() {
      const filename = fresh()
      let scope = yield* Scope.make()
      const opened = Effect.suspend(() =>
        Effect.flatMap(Layer.buildWithScope(SqliteEventStore.layer({ filename, sync: "normal", indexThreshold: 3 }), scope), (context) =>
          Effect.provide(EventStore.EventStore, context)))
      let store = yield* opened
      yield* play(steps, () => store, Effect.gen(function*() {
        yield* Scope.close(scope, Exit.void)
        scope = yield* Scope.make()
        store = yield* opened
      }))
      yield* Scope.close(scope, Exit.void)
    }), { arbitrary: { runs: 40 } })
})

// ------------------------------------------------------------------------------------------------------------- the file

describe("a file", () => {
  it.effect("that lost everything goes on where it was", () =>
    Effect.gen(function*() {
      const filename = fresh()
      yield* TestClock.setTime(5000)
      yield* open(filename, Effect.fnUntraced(function*(store) {
        yield* store.append({ facts: [fact("1"), fact("2"), fact("3", "b")] })
        for (const streamId of ["a", "b"]) yield* store.configure(streamId, { truncateBefore: 100 })
        expect(yield* store.retain).toBe(3)
      }))
      expect((yield* StoreInspection.inspect(filename)).state).toMatchObject({ position: 3, altered: [] })
      yield* TestClock.setTime(4000)
      yield* open(filename, Effect.fnUntraced(function*(store) {
        expect(store.head()).toBe(3)
        expect(yield* store.append({ facts: [fact("1")] })).toEqual([{ kind: "appended", position: 4, version: 3 }])
        // The clock went back: the commit time does not.
        expect((yield* store.byId("1")).map(({ recordedAt }) => recordedAt)).toEqual([5000])
      }))
    }))

  it.effect("a removal whose commit or whose listener fails leaves everything as it was", () =>
    Effect.gen(function*() {
      const filename = fresh()
      yield* open(filename, Effect.fnUntraced(function*(store) {
        yield* store.append({ facts: Array.from({ length: 9 }, (_, index) => fact(`${index}`)) })
        yield* store.configure("a", { maxCount: 2 })
        let fails = true
        store.driver.onRemoved(() => {
          if (fails) throw new Error("not today")
        })
        for (const removal of [Effect.asVoid(store.retain), Effect.asVoid(store.delete("a"))]) {
          expect((yield* Effect.flip(removal)).reason._tag).toBe("StoreFailure")
          expect((yield* store.readStream({ streamId: "a", from: 1, limit: 20 })).length).toBe(9)
          expect(store.head()).toBe(9)
        }
        expect(yield* store.append({ facts: [fact("x")] })).toMatchObject([{ position: 10, version: 10 }])
        fails = false
        expect(yield* store.retain).toBe(8)
      }))
      yield* open(filename, Effect.fnUntraced(function*(store) {
        expect((yield* store.readStream({ streamId: "a", from: 1, limit: 20 })).map(({ version }) => version)).toEqual([9, 10])
      }))
    }))

  it.effect("does not hold what was removed any more, once its log is written back", () =>
    Effect.gen(function*() {
      const filename = fresh()
      const secret = "ann@example.com, a secret"
      yield* open(filename, Effect.fnUntraced(function*(store) {
        for (let index = 0; index < 50; index++) yield* store.append({ facts: [fact(`${index}`, index % 2 === 0 ? "a" : "b", { by: index % 2 === 0 ? secret : "x" })] })
        yield* store.append({ facts: [fact("long", "a", { by: secret.repeat(2000) })] })
      }))
      expect(Fs.readFileSync(filename).includes(secret)).toBe(true)
      yield* open(filename, (store) => store.delete("a"))
      const db = new DatabaseSync(filename)
      db.exec("PRAGMA wal_checkpoint(TRUNCATE)")
      db.close()
      expect(Fs.readFileSync(filename).includes(secret)).toBe(false)
      yield* open(filename, Effect.fnUntraced(function*(store) {
        expect((yield* Stream.runCollect(store.stream("b"))).length).toBe(25)
      }))
    }))
})
