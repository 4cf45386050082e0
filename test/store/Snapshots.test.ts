// Snapshots: with them every answer is what folding all facts would give, and they are what makes it quick.
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Layer, Result, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { NewFact } from "../../src/event/CloudEvent.ts"
import * as Event from "../../src/event/Event.ts"
import * as Disk from "../../src/store/Disk.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as Snapshots from "../../src/store/Snapshots.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import * as TimeTravel from "../../src/store/TimeTravel.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-snapshots-"))
afterAll(() => Fs.rmSync(folder, { recursive: true }))
let files = 0
const fresh = () => Path.join(folder, `${++files}.db`)

type Store = EventStore.EventStore["Service"]
const { latest } = Projection
const every = (facts: number): Snapshots.PolicyShape => ({ streamFacts: facts, allFacts: facts, bytesPerFact: 1e9 })
const times = (count: number) => Array.from({ length: count }, (_, i) => i)

const Counted = Event.fact("test:counted", { payload: { by: Schema.Int }, streamId: () => "a" })
const Tally = Schema.Struct({ total: Schema.Int, seen: Schema.Array(Schema.Date) })
const makeTally = (name = "tally", factor = 1, version?: number) =>
  Projection.make(name, {
    events: [Counted], state: Tally, initial: { total: 0, seen: [] }, ...(version === undefined ? {} : { version }),
    on: {
      [Counted.name]: ({ seen, total }, { by }, { metadata }) =>
        ({ total: total + by * factor, seen: [...seen.slice(-1), new Date(metadata.timestamp)] })
    }
  })
const tally = makeTally()

const counted = (id: number | string, streamId: string, by: number, time?: string): NewFact =>
  ({ id: `${id}`, source: "/test", name: Counted.name, streamId, data: { by }, time, attributes: {} })
const other = (id: number | string, streamId: string, time?: string): NewFact => ({ ...counted(id, streamId, 0, time), name: "test:other" })

/** What anybody may ask, as one value; a failure is its message. */
const ask = <S>(store: Store, policy: Snapshots.PolicyShape, projection: Projection.Projection<S>, when: TimeTravel.When & {
  readonly streamId?: string | undefined
  readonly all?: boolean
}) => {
  const { streamId, ...rest } = when
  const asked: Effect.Effect<unknown, { readonly message: string }, EventStore.EventStore> = streamId === undefined
    ? TimeTravel.at(projection, rest)
    : TimeTravel.at(projection, { ...rest, streamId })
  return Effect.match(asked, { onSuccess: (value) => value, onFailure: ({ message }): unknown => message }).pipe(
    Effect.provideService(EventStore.EventStore, store),
    Effect.provideService(Snapshots.Policy, policy)
  )
}

/** Counts the facts that are read from a store. */
const counting = (store: Store) => {
  let facts = 0
  const noting = <A, E>(page: Effect.Effect<ReadonlyArray<A>, E>) => Effect.tap(page, ({ length }) => Effect.sync(() => void (facts += length)))
  return {
    store: { ...store, read: (options: Parameters<Store["read"]>[0]) => noting(store.read(options)),
      readStream: (options: Parameters<Store["readStream"]>[0]) => noting(store.readStream(options)) },
    taken: () => {
      const were = facts
      facts = 0
      return were
    }
  }
}

const memory = Layer.fresh(EventStore.layerMemory)
const sqlite = (filename = fresh()) => SqliteEventStore.layer({ filename, sync: "normal", indexThreshold: 3 })
const stores = [["in memory", () => memory], ["in a file", () => sqlite()]] as const

// -------------------------------------------------------------------------------------------------------- the property

const days = ["2018-01-01T00:00:00Z", "2018-01-02T00:00:00Z", "2018-01-02T01:00:00+01:00", "2018-01-03T00:00:00.5Z"] as const
const millis = (day: string) => Date.parse(day)
const names = ["a", "b", "ksi-c"] as const
const Moments = Schema.Struct({
  streamId: Schema.optional(Schema.Literals(names)), back: Schema.Literals([0, 1, 4]), day: Schema.optional(Schema.Literals(days)),
  coded: Schema.Boolean, all: Schema.Boolean
})
const Step = Schema.Struct({
  streamId: Schema.Literals(names), time: Schema.Literals(days), by: Schema.Literals([1, 2, 3]),
  handled: Schema.Boolean, wait: Schema.Literals([0, 1]), ask: Schema.optional(Moments), reopen: Schema.Literals([0, 0, 0, 1])
})
const Case = Schema.Struct({ every: Schema.Literals([1, 2, 3, 5]), steps: Schema.Array(Step).check(Schema.isMaxLength(20)) })

const play = (
  { every: facts, steps }: typeof Case.Type,
  opened: (scope: Scope.Scope) => Effect.Effect<Store, unknown>,
  reopens: boolean
) =>
  Effect.gen(function*() {
    const policy = every(facts)
    let scope = yield* Scope.make()
    let store = yield* opened(scope)
    const same = (projection: "latest" | "tally", when: Parameters<typeof ask>[3]) =>
      Effect.gen(function*() {
        const by = (policy: Snapshots.PolicyShape) =>
          projection === "latest" ? ask(store, policy, latest, when) : ask(store, policy, tally, when)
        expect(yield* by(policy), JSON.stringify({ projection, ...when, position: String(when.position) })).toEqual(yield* by(Snapshots.never))
      })
    for (const [index, step] of steps.entries()) {
      const { by, handled, streamId, time } = step
      yield* TestClock.adjust(step.wait)
      yield* store.driver.append({ facts: [handled ? counted(index, streamId, by, time) : { ...other(index, streamId, time), data: { [`k${by}`]: index } }] })
      if (step.ask !== undefined) {
        const { all, back, coded, day, streamId } = step.ask
        const instant = day === undefined ? undefined : millis(day)
        yield* same(coded ? "tally" : "latest", { streamId, all, position: BigInt(Math.max(0, index + 1 - back)), instant })
      }
      if (reopens && step.reopen === 1) {
        yield* Scope.close(scope, Exit.void)
        scope = yield* Scope.make()
        store = yield* opened(scope)
      }
    }
    for (const projection of ["latest", "tally"] as const) {
      for (const streamId of [undefined, ...names]) {
        for (const n of times(steps.length + 1)) yield* same(projection, { streamId, position: BigInt(n) })
        for (const instant of days.flatMap((day) => [millis(day) - 1, millis(day)])) {
          yield* same(projection, { streamId, instant, all: true })
          yield* same(projection, { streamId, instant, position: BigInt(steps.length >> 1) })
        }
        for (const instant of times(steps.length)) yield* same(projection, { streamId, instant, recorded: true })
      }
    }
    yield* Scope.close(scope, Exit.void)
  })

describe("with snapshots an answer is what folding all facts gives, whatever was asked before", () => {
  const of = (layer: Layer.Layer<EventStore.EventStore, unknown>) => (scope: Scope.Scope) =>
    Effect.flatMap(Layer.buildWithScope(layer, scope), (context) => Effect.provide(EventStore.EventStore, context))
  it.effect.prop("in memory", [Case], ([one]) => play(one, of(memory), false), { arbitrary: { runs: 25 } })
  it.effect.prop("in a file, also when it is closed and opened", [Case], ([one]) => play(one, of(sqlite()), true), {
    arbitrary: { runs: 10 }
  })
})

// ---------------------------------------------------------------------------------------------------------- they are used

describe.each(stores)("snapshots %s", (_, layer) => {
  const scenario = <E>(body: (store: Store) => Effect.Effect<void, E>) =>
    Effect.flatMap(EventStore.EventStore, body).pipe(Effect.provide(layer()))

  it.effect("are used: what is read does not grow with what is stored", () => scenario((inner) => Effect.gen(function*() {
    const { store, taken } = counting(inner)
    yield* store.append({ facts: times(1000).map((i) => counted(i, `s${i % 4}`, 1, `2020-01-01T00:${String(Math.floor(i / 60)).padStart(2, "0")}:${String(i % 60).padStart(2, "0")}Z`)) })
    const policy = every(10)
    const at = (when: Parameters<typeof ask>[3]) => Effect.andThen(Effect.sync(taken), Effect.andThen(ask(store, policy, tally, when), Effect.sync(taken)))
    expect(yield* at({})).toBe(1000)
    expect(yield* at({ streamId: "s1" })).toBeGreaterThanOrEqual(250)
    for (const position of [995n, 600n, 33n]) {
      expect(yield* at({ position })).toBeLessThanOrEqual(10)
      expect(yield* at({ position, streamId: "s1" })).toBeLessThanOrEqual(40)
    }
    const instant = Date.parse("2020-01-01T00:08:20Z")
    expect(yield* at({ instant })).toBeLessThanOrEqual(32)
    expect(yield* at({ instant, streamId: "s1" })).toBeLessThanOrEqual(32)
    expect(yield* at({ instant: 0, recorded: true })).toBeLessThanOrEqual(25)
    expect(yield* ask(inner, policy, tally, { instant, streamId: "s1" })).toEqual(yield* ask(inner, Snapshots.never, tally, { instant, streamId: "s1" }))
  })))

  it.effect("are not written by an append, but by the next question", () => scenario((store) => Effect.gen(function*() {
    const policy = every(2)
    yield* store.append({ facts: times(10).map((i) => counted(i, "a", 1)) })
    for (const streamId of [undefined, "a"]) yield* ask(store, policy, tally, { streamId })
    const fingerprint = Projection.formatOf(tally)?.fingerprint ?? ""
    const points = Effect.forEach([Snapshots.ofAll, Snapshots.ofStream("a")], (subject) =>
      Effect.map(store.driver.snapshots.newest({ projection: "tally", fingerprint, subject }), (point) => point?.position))
    expect(yield* points).toEqual([10, 10])
    for (const i of times(20)) yield* Effect.provideService(store.append({ facts: [counted(`n${i}`, "a", 1)] }), Snapshots.Policy, policy)
    expect(yield* points).toEqual([10, 10])
    // Whoever asks next writes them.
    yield* ask(store, policy, tally, {})
    expect(yield* points).toEqual([30, 10])
  })))

  it.effect("find late facts without reading what cannot be one", () => scenario((inner) => Effect.gen(function*() {
    const { store, taken } = counting(inner)
    const second = (n: number) => new Date(Date.UTC(2020, 0, 1) + n * 1000).toISOString()
    yield* store.append({ facts: times(900).map((i) => counted(i, `s${i % 3}`, 1, second(i === 700 ? 50 : i))) })
    yield* ask(store, every(10), tally, {})
    taken()
    const when = { instant: Date.parse(second(100)) }
    const answer = yield* ask(store, every(10), tally, when)
    expect(taken()).toBeLessThanOrEqual(50)
    expect(answer).toEqual(yield* ask(inner, Snapshots.never, tally, when))
    expect(answer).toMatchObject([{ state: { total: 34 } }, { state: { total: 35 } }, { state: { total: 33 } }])
  })))

  it.effect("of more streams than a chunk has: what is not added to is not written again", () => scenario((store) => Effect.gen(function*() {
    yield* store.append({ facts: times(700).map((i) => counted(`n${i}`, `s${i}`, i)) })
    const policy = every(100)
    yield* ask(store, policy, latest, {})
    const written: Array<number> = []
    const noting = { ...store, driver: { ...store.driver, snapshots: { ...store.driver.snapshots, write: (options: Parameters<Snapshots.Snapshots["write"]>[0]) => {
      written.push(...options.bodies.keys())
      return store.driver.snapshots.write(options)
    } } } }
    yield* store.append({ facts: times(300).map((i) => counted(`m${i}`, `s${600 + i % 50}`, 1)) })
    yield* ask(noting, policy, latest, {})
    expect(written).toEqual([2, 2, 2])
    for (const position of [256n, 257n, 512n, 699n, 801n, 1000n]) {
      expect(yield* ask(store, policy, latest, { position })).toEqual(yield* ask(store, Snapshots.never, latest, { position }))
    }
  })))

  it.effect("let the whole system be streamed, some thousand streams at a time", () => scenario((store) => Effect.gen(function*() {
    for (const page of times(5)) {
      const ids = times(1000).map((i) => page * 1000 + i)
      yield* store.append({ facts: ids.map((i) => counted(i, `s${i}`, i % 7, new Date(i).toISOString())) })
    }
    yield* store.append({ facts: times(150).map((i) => counted(`m${i}`, `s${i * 40}`, 100, new Date(i).toISOString())) })
    let reads = 0
    const noting = { ...store, driver: { ...store.driver, snapshots: { ...store.driver.snapshots, chunks: (...asked: Parameters<Snapshots.Snapshots["chunks"]>) => {
      reads++
      return store.driver.snapshots.chunks(...asked)
    } } } }
    const streamed = (when: TimeTravel.When, count = Infinity) =>
      Stream.runCollect(Stream.take(TimeTravel.stream(tally, when), count)).pipe(
        Effect.provideService(EventStore.EventStore, noting),
        Effect.provideService(Snapshots.Policy, every(100))
      )
    for (const when of [{}, { position: 5049n }, { instant: 3000, position: 4000n }, { instant: 40 }]) {
      const moments = yield* streamed(when)
      expect(moments.toSorted((a, b) => a.streamId < b.streamId ? -1 : 1)).toEqual(yield* ask(store, Snapshots.never, tally, when))
    }
    reads = 0
    expect((yield* streamed({}, 3)).map(({ streamId }) => streamId)).toEqual(["s0", "s1", "s2"])
    expect(reads).toBe(1)
    yield* streamed({})
    expect(reads).toBe(3)
  })))

  it.effect("are those of this very code: another version, or another reducer, begins anew", () => scenario((store) => Effect.gen(function*() {
    yield* store.append({ facts: times(20).map((i) => counted(i, "a", 1)) })
    const policy = every(4)
    const total = (projection: typeof tally) =>
      Effect.map(ask(store, policy, projection, { streamId: "a" }), (moment) => Object(Object(moment).state).total)
    expect(yield* total(makeTally("t"))).toBe(20)
    // The factor is closed over: its text says nothing of it, the version does.
    expect(yield* total(makeTally("t", 3, 2))).toBe(60)
    const edited = Projection.make("t", {
      events: [Counted], state: Tally, initial: { total: 0, seen: [] },
      on: { [Counted.name]: ({ seen, total }, { by }) => ({ seen, total: total + by * 5 }) }
    })
    expect(yield* total(edited)).toBe(100)
    const prints = [makeTally("t"), makeTally("t", 3, 2), edited, makeTally("u")].map((p) => Projection.formatOf(p)?.fingerprint)
    expect(new Set(prints).size).toBe(4)
    expect(Projection.formatOf(makeTally("t"))?.fingerprint).toBe(prints[0])
    // A copy with another reducer has no snapshots at all.
    const copy = { ...tally, apply: () => Result.succeed({ total: -1, seen: [] }) }
    expect(yield* total(copy)).toBe(-1)
    for (const version of times(12)) yield* total(makeTally("t", 1, 100 + version))
    const chain = (version: number) => store.driver.snapshots.newest({
      projection: "t", fingerprint: Projection.formatOf(makeTally("t", 1, version))?.fingerprint ?? "", subject: Snapshots.ofStream("a")
    })
    expect(yield* chain(111)).toMatchObject({ position: 20 })
    expect(yield* chain(108)).toMatchObject({ position: 20 })
    expect(yield* chain(107)).toBe(undefined)
  })))

  it.effect("are not written of a state that is no JSON: what came back would be another one", () => scenario((store) => Effect.gen(function*() {
    yield* store.append({ facts: times(20).map((i) => counted(i, "a", 1)) })
    const undone = Projection.make("undone", {
      events: [Counted], state: Schema.Any, initial: 0, on: { [Counted.name]: (state: unknown) => state === null ? "read back" : undefined }
    })
    const policy = every(4)
    for (const position of [10n, 13n, 20n]) {
      expect(yield* ask(store, policy, undone, { streamId: "a", position })).toMatchObject({ state: undefined })
    }
  })))

  it.effect("forget what was taken away, and what was folded before is not written after", () => scenario((store) => Effect.gen(function*() {
    yield* store.append({ facts: times(40).map((i) => counted(i, i % 2 === 0 ? "a" : "b", 1)) })
    const policy = every(5)
    for (const streamId of [undefined, "a", "b"]) yield* ask(store, policy, tally, { streamId })
    const fingerprint = Projection.formatOf(tally)?.fingerprint ?? ""
    const newest = (subject: string) =>
      Effect.map(store.driver.snapshots.newest({ projection: "tally", fingerprint, subject }), (point) => point?.position)
    const epoch = store.driver.snapshots.epoch()
    store.driver.snapshots.forget({ streamId: "a", fromPosition: 21 })
    expect([yield* newest("all"), yield* newest("stream:a"), yield* newest("stream:b")]).toEqual([20, 19, 40])
    const chain = { projection: "tally", fingerprint, subject: "all" }
    const point = { position: 30, through: 30, previous: 20, newest: 0, oldest: 0, late: false, chunks: 1, written: 30 }
    expect(yield* store.driver.snapshots.write({ chain, last: 20, epoch, point, bodies: new Map() })).toBe(false)
    expect(yield* store.driver.snapshots.write({ chain, last: 15, epoch: store.driver.snapshots.epoch(), point, bodies: new Map() })).toBe(false)
    for (const streamId of [undefined, "a"]) {
      expect(yield* ask(store, policy, tally, { streamId })).toEqual(yield* ask(store, Snapshots.never, tally, { streamId }))
    }
    expect([yield* newest("all"), yield* newest("stream:a")]).toEqual([40, 39])
  })))
})

// --------------------------------------------------------------------------------------------------------- what goes wrong

describe("a file whose snapshots are damaged, or cannot be written", () => {
  const facts = times(60).map((i) => counted(i, `s${i % 3}`, 1, new Date(i * 1000).toISOString()))
  const whens = [{}, { streamId: "s1" }, { position: 31n }, { instant: 30_500 }, { instant: 30_500, streamId: "s1" }]
  const policy = every(5)
  const answers = (store: Store, policy: Snapshots.PolicyShape) => Effect.forEach(whens, (when) => ask(store, policy, tally, when))

  it.effect.each([
    "UPDATE snapshots SET body = x'00'", "UPDATE snapshots SET body = '[]'", "UPDATE snapshots SET body = replace(body, '\"total\":', '\"total\":\"x\",\"t\":')",
    "UPDATE snapshots SET body = replace(body, '1970-', '1970 ')", "DELETE FROM snapshots", "DELETE FROM snapshots WHERE position > 20", "DELETE FROM snapshot_points WHERE position < 30"
  ])("answers all the same, and writes them anew: %s", (damage) => Effect.gen(function*() {
    const filename = fresh()
    const within = <A, E>(body: (store: Store) => Effect.Effect<A, E>) =>
      Effect.flatMap(EventStore.EventStore, body).pipe(Effect.provide(Layer.fresh(sqlite(filename))))
    const before = yield* within((store) => Effect.gen(function*() {
      yield* store.append({ facts })
      yield* answers(store, policy)
      return yield* answers(store, Snapshots.never)
    }))
    const db = new DatabaseSync(filename)
    db.exec(damage)
    db.close()
    yield* within((store) => Effect.gen(function*() {
      expect(yield* answers(store, policy)).toEqual(before)
      expect(yield* answers(store, policy)).toEqual(before)
      const { store: noting, taken } = counting(store)
      yield* ask(noting, policy, tally, {})
      expect(taken()).toBeLessThanOrEqual(10)
    }))
  }))

  it.effect("answers all the same while the disk is full, and writes them when it is not any more", () => Effect.gen(function*() {
    let isFull = false
    class Full extends DatabaseSync {
      override exec(sql: string): void {
        if (isFull && sql === "COMMIT") throw new Error("database or disk is full")
        super.exec(sql)
      }
    }
    const disk = Layer.succeed(Disk.Disk, (name: string, options: { readonly timeout: number }) => new Full(name, options))
    yield* Effect.flatMap(EventStore.EventStore, (store) => Effect.gen(function*() {
      yield* store.append({ facts })
      const plain = yield* answers(store, Snapshots.never)
      const { store: noting, taken } = counting(store)
      isFull = true
      expect(yield* answers(noting, policy)).toEqual(plain)
      taken()
      expect(yield* answers(noting, policy)).toEqual(plain)
      expect(taken()).toBeGreaterThan(120)
      isFull = false
      expect(yield* answers(noting, policy)).toEqual(plain)
      taken()
      expect(yield* answers(noting, policy)).toEqual(plain)
      expect(taken()).toBeLessThan(60)
    })).pipe(Effect.provide(sqlite().pipe(Layer.provide(disk))))
  }))

  it.effect("whose table of code somebody emptied: other code inherits no state", () => Effect.gen(function*() {
    const filename = fresh()
    const opened = <A, E>(effect: Effect.Effect<A, E, EventStore.EventStore>) => effect.pipe(Effect.provide(sqlite(filename)))
    const add = times(20).flatMap((n) => [counted(`a${n}`, "a", 1), counted(`b${n}`, "b", 1)])
    yield* opened(Effect.flatMap(EventStore.EventStore, (store) =>
      Effect.andThen(store.append({ facts: add }), ask(store, every(5), tally, { streamId: "a" }))))
    const db = new DatabaseSync(filename)
    db.exec("DELETE FROM snapshot_fingerprints")
    db.close()
    const double = makeTally("double", 2)
    yield* opened(Effect.gen(function*() {
      const store = yield* EventStore.EventStore
      for (const streamId of ["b", "a"]) {
        expect(yield* ask(store, every(5), double, { streamId })).toMatchObject({ state: { total: 40 } })
      }
    }))
    const after = new DatabaseSync(filename)
    // Both were kept, each under the code that made it.
    expect(after.prepare(`SELECT f.projection, count(*) AS chains FROM snapshot_chains c JOIN snapshot_fingerprints f ON f.id = c.fingerprint
      GROUP BY 1`).all().map((row) => row["chains"])).toEqual([2])
    after.close()
  }))

  it.effect("a fact that no longer fits stops the chain before it, and no other answer", () => Effect.gen(function*() {
    const store = yield* EventStore.EventStore
    yield* store.append({ facts: [...facts.slice(0, 20), { ...counted("bad", "s0", 0, new Date(1e9).toISOString()), data: { by: "x" } }, ...facts.slice(20)] })
    for (const when of [...whens, { position: 20n }, { instant: 1e10 }]) {
      for (const _ of times(2)) expect(yield* ask(store, policy, tally, when)).toEqual(yield* ask(store, Snapshots.never, tally, when))
    }
    expect(yield* ask(store, policy, tally, {})).toContain("no test:counted any more")
    // One that throws is an error where it counts, and nothing where it does not.
    const fragile = Projection.make("fragile", {
      events: [Counted], state: Schema.Int, initial: 0,
      on: { [Counted.name]: (state, { by }) => {
        if (by === 2) throw new Error("two")
        return state + by
      } }
    })
    yield* store.append({ facts: [counted("two", "s4", 2, new Date(1e12).toISOString()), ...times(9).map((i) => counted(`c${i}`, "s4", 1, new Date(i).toISOString()))] })
    expect(yield* ask(store, policy, fragile, { instant: 1e6, streamId: "s4" })).toMatchObject({ state: 9 })
    expect(yield* ask(store, policy, fragile, { streamId: "s4" })).toMatch(/the projection "fragile": its code throws at the fact "two" \(test:counted\) at position \d+: two$/)
  }).pipe(Effect.provide(sqlite())))
})
