// Read models that change in the transaction of the append, in memory and in a real SQLite file: whatever is appended, refused,
// lost with its commit or opened again, they are at once what a full replay gives.
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Option, Result, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import * as Os from "node:os"
import * as Path from "node:path"
import type { NewFact } from "../../src/event/CloudEvent.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import * as Disk from "../../src/store/Disk.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as ReadModel from "../../src/store/ReadModel.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-inline-"))
afterAll(() => Fs.rmSync(folder, { recursive: true }))
let files = 0
const fresh = () => Path.join(folder, `${++files}.db`)

/** A disk whose next commit fails, when it is told so. */
class Failing extends DatabaseSync {
  static armed = false
  override exec(sql: string): void {
    if (sql === "COMMIT" && Failing.armed) {
      Failing.armed = false
      throw new Error("the disk is gone")
    }
    super.exec(sql)
  }
}

const Paid = Event.fact("bill:paid", { payload: { by: Schema.Array(Schema.String), cents: Schema.Int }, streamId: () => "bill-1" })
const tooMuch = 13
const noState = 14
const tooFew = 15
const sums = (factor = 1) =>
  Projection.make("sums", {
    events: [Paid],
    state: Schema.Struct({ sum: Schema.Int }),
    initial: { sum: 0 },
    version: factor,
    key: ({ by }) => by,
    on: {
      [Paid.name]: ({ sum }, { cents }) => {
        if (cents === tooMuch) throw new RangeError("13 is too much")
        return { sum: cents === noState ? 0.5 : sum + factor * cents }
      }
    }
  })
const Sums = sums()
// By stream, and of every fact: it has its own mind on which it refuses.
const Bills = Projection.make("bills", {
  events: [Paid],
  state: Schema.Struct({ count: Schema.Int, cents: Schema.Int }),
  initial: { count: 0, cents: 0 },
  on: {
    [Paid.name]: (state, { cents }) => {
      if (cents === tooFew) throw new RangeError("15 is not enough")
      return { count: state.count + 1, cents: state.cents + cents }
    }
  }
})
const inline = { mode: "inline" } as const
const both = Layer.mergeAll(ReadModel.layer(Sums, inline), ReadModel.layer(Bills, inline))

let ids = 0
const paid = (cents: number, by: ReadonlyArray<string> = ["ann"], streamId = "bill-1", id = `${++ids}`): NewFact => ({
  id, source: "/test", name: Paid.name, streamId, data: { by, cents }, time: undefined, attributes: {}
})
const append = (...facts: ReadonlyArray<NewFact>) => Effect.flatMap(EventStore, (store) => store.append({ facts }))
const reasonOf = <A>(exit: Exit.Exit<A, KsiError.KsiError>) =>
  Exit.isSuccess(exit) ? undefined : Option.getOrUndefined(Exit.findErrorOption(exit))?.reason

/** What a full replay gives. */
const replayed = Effect.fnUntraced(function*<S>(projection: Projection.Projection<S>) {
  const states = new Map<string, S>()
  for (const fact of yield* (yield* EventStore).read({ from: 1, limit: 100_000 })) {
    for (const key of new Set(Result.getOrThrow(projection.keys?.(fact) ?? Result.succeed([fact.streamId])))) {
      states.set(key, Result.getOrThrow(projection.apply(states.get(key) ?? projection.initial, fact)))
    }
  }
  return [...states].toSorted(([a], [b]) => a < b ? -1 : 1)
})
/** What is kept, at once: nobody waits. */
const kept = <S>(projection: Projection.Projection<S>) =>
  Effect.map(ReadModel.list(projection, { limit: 100 }), (entries) => entries.map(({ key, state }) => [key, state] as const))
const same = Effect.gen(function*() {
  expect(yield* kept(Sums)).toEqual(yield* replayed(Sums))
  expect(yield* kept(Bills)).toEqual(yield* replayed(Bills))
})
const statusOf = (name: string) =>
  Effect.flatMap(ReadModel.ReadModels, ({ status }) => Effect.map(status, (all) => all.find((one) => one.name === name)))

// ------------------------------------------------------------------------------------------------------------ property

const Append = Schema.Struct({
  facts: Schema.Array(Schema.Struct({
    by: Schema.Array(Schema.Literals(["ann", "bob", "eve"])).check(Schema.isMaxLength(3)),
    cents: Schema.Literals([1, 2, 3, 5, 8, tooMuch, noState, tooFew]),
    stream: Schema.Literals(["bill-1", "bill-2"]),
    how: Schema.Literals(["new", "new", "new", "again", "broken"])
  })).check(Schema.isMinLength(1), Schema.isMaxLength(3)),
  stale: Schema.Literals([false, false, false, true])
})
const Steps = Schema.Array(Schema.Struct({
  appends: Schema.Array(Append).check(Schema.isMaxLength(12)),
  commitFails: Schema.Literals([false, false, true]),
  then: Schema.Literals(["go on", "go on", "keep anew", "open anew"])
})).check(Schema.isMaxLength(8))

type Step = typeof Steps.Type[number]

const factOf = ({ by, cents, how, stream }: typeof Append.Type["facts"][number], before: ReadonlyArray<NewFact>): NewFact => {
  const again = how === "again" ? before.at(-1) : undefined
  const fact = again ?? paid(cents, by, stream)
  return how === "broken" ? { ...paid(cents, by, stream), data: { by: "nobody" } } : fact
}

/** Why an append must be refused, whatever the others of its batch are. */
const isUnfit = (facts: ReadonlyArray<NewFact>) =>
  facts.some(({ data }) => {
    const { by, cents } = data as { readonly by: unknown; readonly cents?: number } // factOf made it
    if (!Array.isArray(by)) return true
    // Whom nobody is told of changes no sum.
    return cents === tooFew || (by.length > 0 && (cents === tooMuch || cents === noState))
  })

const play = Effect.fnUntraced(function*(steps: ReadonlyArray<Step>, isFile: boolean, anew: (what: "model" | "store") => Effect.Effect<void, KsiError.KsiError>, within: <A, E>(effect: Effect.Effect<A, E, Runtime>) => Effect.Effect<A, E>) {
  const known: Array<NewFact> = []
  for (const { appends, commitFails, then } of steps) {
    const requests = appends.map(({ facts, stale }) => ({ facts: facts.map((fact) => factOf(fact, known)), expectedVersion: stale ? 1_000_000 : undefined }))
    Failing.armed = isFile && commitFails && requests.length > 0
    const failing = Failing.armed
    const exits = yield* within(Effect.flatMap(EventStore, (store) =>
      Effect.forEach(requests, (request) => Effect.exit(store.append(request)), { concurrency: "unbounded" })))
    Failing.armed = false
    exits.forEach((exit, at) => {
      const { expectedVersion, facts = [] } = requests[at] ?? {}
      const news = facts.filter(({ id }) => !known.some((fact) => fact.id === id))
      // A stumble over one that was there is no failure of the commit.
      if (failing) expect(reasonOf(exit)?._tag).toBe("StoreFailure")
      else if (news.length === 0) expect(Exit.isSuccess(exit)).toBe(true)
      else if (expectedVersion !== undefined) expect(reasonOf(exit)?._tag).toBe("VersionConflict")
      else if (isUnfit(news)) expect(reasonOf(exit)).toMatchObject({ _tag: "StoreFailure", operation: expect.stringMatching(/"(sums|bills)"/) })
      else expect(reasonOf(exit)).toBe(undefined)
      if (Exit.isSuccess(exit)) known.push(...news)
    })
    yield* within(same)
    expect(yield* within(Effect.map(EventStore, (store) => store.head()))).toBe(known.length)
    if (then !== "go on") {
      yield* anew(then === "open anew" ? "store" : "model")
      yield* within(same)
    }
  }
})

const Main = (filename: string | undefined): Layer.Layer<Runtime, KsiError.KsiError> =>
  filename === undefined
    ? Layer.fresh(Ksi.layerMemory)
    : Layer.fresh(Ksi.layerSqlite({ filename, sync: "normal", indexThreshold: 5 }))
      .pipe(Layer.provide(Layer.succeed(Disk.Disk, (name, options) => name.endsWith(".db") ? new Failing(name, options) : Disk.open(name, options))))

/** A store with its models, each of which can be begun anew. */
const playing = Effect.fnUntraced(function*(steps: ReadonlyArray<Step>, filename: string | undefined) {
  let store = yield* Scope.make()
  let models = yield* Scope.make()
  let context: Context.Context<Runtime> = yield* Layer.buildWithScope(Main(filename), store)
  const keep = Effect.suspend(() => Effect.provide(Effect.asVoid(Layer.buildWithScope(Layer.fresh(both), models)), context))
  yield* keep
  yield* play(steps, filename !== undefined, Effect.fnUntraced(function*(what) {
    yield* Scope.close(models, Exit.void)
    models = yield* Scope.make()
    if (what === "store" && filename !== undefined) {
      yield* Scope.close(store, Exit.void)
      store = yield* Scope.make()
      context = yield* Layer.buildWithScope(Main(filename), store)
    }
    yield* keep
  }), (effect) => Effect.suspend(() => Effect.provide(effect, context)))
  yield* Scope.close(models, Exit.void)
  yield* Scope.close(store, Exit.void)
})

describe("what a full replay gives, at once", () => {
  it.effect.prop("in memory", [Steps], ([steps]) => playing(steps, undefined), { arbitrary: { runs: 80 } })
  it.effect.prop("in a file, with commits that fail, and opened again", [Steps], ([steps]) => playing(steps, fresh()), { arbitrary: { runs: 25 } })
})

// --------------------------------------------------------------------------------------------------------------- cases

for (const [where, make] of [["in memory", () => Main(undefined)], ["in a file", () => Main(fresh())]] as const) {
  describe(where, () => {
    it.effect("what is emitted is in the state when the emitter has its answer; what cannot be folded is refused with its reason", () =>
      Effect.gen(function*() {
        yield* Layer.build(both)
        yield* Layer.build(Ksi.serve(EventGroup.make(Paid)).pipe(Layer.provide(EventGroup.make(Paid).toLayer({}))))
        const ksi = yield* Ksi
        yield* ksi.emit(Paid, { by: ["ann"], cents: 4 })
        expect(yield* kept(Sums)).toEqual([["ann", { sum: 4 }]])
        const refused = yield* Effect.flip(ksi.emit(Paid, { by: ["ann"], cents: tooMuch }))
        expect(refused.reason).toMatchObject({
          _tag: "StoreFailure", operation: "keep the inline read model \"sums\"", problem: "bill:paid in \"bill-1\": 13 is too much"
        })
        // Its position was freed, and the other model has forgotten it.
        expect(yield* ksi.emit(Paid, { by: ["bob"], cents: 5 })).toMatchObject({ position: 2n })
        yield* same
        expect(yield* statusOf("sums")).toMatchObject({ status: "following", mode: "inline", position: 2, lag: 0, failure: undefined })
      }).pipe(Effect.scoped, Effect.provide(make())))

    it.effect("a model that begins with facts there catches up first, and misses none that come meanwhile", () =>
      Effect.gen(function*() {
        const store = yield* EventStore
        for (let n = 0; n < 300; n++) yield* append(paid(1, ["ann", `p${n % 7}`]))
        let done = false
        // Everything that is stored while it begins is in it when it has begun.
        const [, during] = yield* Effect.all([
          Effect.andThen(Layer.build(both), Effect.sync(() => void (done = true))),
          Effect.gen(function*() {
            let count = 0
            for (; !done && count < 5000; count++) yield* Effect.andThen(append(paid(2, ["bob"])), Effect.yieldNow)
            return count
          })
        ], { concurrency: "unbounded" })
        expect(during).toBeGreaterThan(1)
        expect(done).toBe(true)
        yield* same
        expect(store.head()).toBe(300 + during)
      }).pipe(Effect.scoped, Effect.provide(make())))

    it.effect("other code: the old version answers until the new one has caught up, which changes with the facts from then on", () =>
      Effect.gen(function*() {
        for (let n = 0; n < 40; n++) yield* append(paid(1, ["ann"]))
        yield* Effect.scoped(Layer.build(both))
        const Double = sums(2)
        yield* Effect.gen(function*() {
          yield* Layer.build(ReadModel.layer(Double, inline))
          const seen = new Set<number>()
          while ((yield* statusOf("sums"))?.mode !== "inline") {
            seen.add((yield* kept(Double))[0]?.[1].sum ?? 0)
            yield* Effect.yieldNow
          }
          expect([...seen].every((sum) => sum === 40)).toBe(true)
          expect(yield* kept(Double)).toEqual([["ann", { sum: 80 }]])
          yield* append(paid(3))
          expect(yield* kept(Double)).toEqual([["ann", { sum: 86 }]])
          // Anew on request: it is asked and changes all the while.
          yield* ReadModel.rebuild(Double)
          for (let n = 1; (yield* statusOf("sums"))?.status !== "following"; n++) {
            yield* append(paid(1))
            expect(yield* kept(Double)).toEqual([["ann", { sum: 86 + 2 * n }]])
            yield* Effect.yieldNow
          }
          yield* append(paid(1))
          expect(yield* kept(Double)).toEqual(yield* replayed(Double))
          expect(yield* Effect.flip(append(paid(tooMuch)))).toMatchObject({ reason: { _tag: "StoreFailure" } })
        }).pipe(Effect.scoped)
      }).pipe(Effect.provide(make())))

    it.effect("where what is stored cannot be folded, it says so and stands in nobody's way", () =>
      Effect.gen(function*() {
        yield* append(paid(1), paid(tooMuch))
        yield* Layer.build(ReadModel.layer(Sums, inline))
        expect(yield* statusOf("sums")).toMatchObject({ status: "failed", mode: "async", failure: { position: 2 } })
        yield* append(paid(tooMuch))
      }).pipe(Effect.scoped, Effect.provide(make())))

    it.effect("who waits for a position to come is told when it has", () =>
      Effect.gen(function*() {
        yield* Layer.build(both)
        yield* Effect.all([ReadModel.waitFor(Sums, 2), append(paid(1), paid(1))], { concurrency: "unbounded" })
        yield* ReadModel.waitFor(Sums, 2)
      }).pipe(Effect.scoped, Effect.provide(make())))

    for (const mode of ["async", "inline"] as const) {
      it.effect(`a stream that is deleted takes its state along (${mode}); what is kept under other keys stays`, () =>
        Effect.gen(function*() {
          yield* Effect.gen(function*() {
            const store = yield* EventStore
            const latest = Projection.latest
            yield* Layer.build(Layer.mergeAll(ReadModel.layer(Bills, { mode }), ReadModel.layer(Sums, { mode }), ReadModel.layer(latest, { mode })))
            yield* append(paid(1), paid(2, ["bob"], "bill-2"))
            for (const model of [Bills, Sums, latest]) yield* ReadModel.waitFor(model as typeof Bills, 2) // only its name counts
            yield* store.delete("bill-1", { reason: "asked to" })
            for (const model of [Bills, Sums, latest]) yield* ReadModel.waitFor(model as typeof Bills, 3) // only its name counts
            expect((yield* ReadModel.list(Bills)).map(({ key }) => key)).toEqual(["bill-2"])
            expect((yield* ReadModel.list(latest)).map(({ key }) => key)).toEqual(["bill-2"])
            expect(yield* ReadModel.get(Bills, "bill-1")).toEqual(Option.none())
            expect((yield* ReadModel.list(Sums)).map(({ key }) => key)).toEqual(["ann", "bob"])
            yield* ReadModel.rebuild(Bills)
            while ((yield* statusOf("bills"))?.status !== "following") yield* Effect.yieldNow
            expect((yield* ReadModel.list(Bills)).map(({ key }) => key)).toEqual(["bill-2"])
          }).pipe(Effect.scoped)
        }).pipe(Effect.provide(make())))
    }
  })
}

describe("in a file", () => {
  it.effect("what a deleted stream's state said is nowhere in the file any more", () =>
    Effect.gen(function*() {
      for (const mode of ["async", "inline"] as const) {
        const filename = fresh()
        const secret = `the secret of ${mode}`
        yield* Effect.gen(function*() {
          const store = yield* EventStore
          yield* Layer.build(ReadModel.layer(Projection.latest, { mode }))
          yield* store.appendTo("person-1", [{ name: "person:named", data: { secret } }])
          yield* store.appendTo("person-2", [{ name: "person:named", data: { other: 1 } }])
          yield* ReadModel.waitFor(Projection.latest, 2)
          yield* store.delete("person-1")
          yield* ReadModel.waitFor(Projection.latest, 3)
        }).pipe(Effect.scoped, Effect.provide(Main(filename)))
        expect(Fs.readFileSync(filename).includes(secret)).toBe(false)
        expect(Fs.readFileSync(filename).includes("person-2")).toBe(true)
      }
    }))

  it.effect("a start does not look at facts again that an inline model has passed", () =>
    Effect.gen(function*() {
      const filename = fresh()
      yield* Effect.gen(function*() {
        yield* Layer.build(both)
        yield* append(paid(1))
        for (let n = 0; n < 20; n++) yield* (yield* EventStore).appendTo("other", [{ name: "other:thing" }])
        yield* TestClock.adjust(1)
      }).pipe(Effect.scoped, Effect.provide(Main(filename)))
      const db = new DatabaseSync(filename, { readOnly: true })
      expect(db.prepare("SELECT name, position FROM read_models ORDER BY name").all()).toEqual([
        { name: "bills", position: 21 }, { name: "sums", position: 21 }
      ])
      db.close()
    }))
})
