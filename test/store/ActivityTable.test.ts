// The activity journal, in memory and in a real SQLite file.
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Logger, Metric, Result } from "effect"
import { TestClock } from "effect/testing"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { Activity, type ActivityQuery, type Ended } from "../../src/bus/Activity.ts"
import * as EventPattern from "../../src/event/EventPattern.ts"
import * as Json from "../../src/event/Json.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as ActivityTable from "../../src/store/ActivityTable.ts"
import * as StoreFile from "../../src/store/internal/StoreFile.ts"
import { seeded } from "../Seeded.ts"
import * as Format1 from "./format1.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-activity-"))
afterAll(() => Fs.rmSync(folder, { recursive: true }))
let files = 0
const fresh = () => Path.join(folder, `${++files}.db`)

const file = (filename = fresh()) => Layer.effect(StoreFile.StoreFile, StoreFile.make({ filename, sync: "normal" }))
const inFile = (options?: ActivityTable.Options, filename?: string) =>
  ActivityTable.layer(options).pipe(Layer.provideMerge(file(filename)))
const small = Effect.provideService(Limits.Limits, { ...Limits.defaults, activityBuffer: 4, activityRows: 10 })

interface Request {
  readonly id: string
  readonly name?: string
  readonly data?: unknown
  readonly exit?: Exit.Exit<unknown, unknown>
  readonly timestamp?: number
  readonly correlationId?: string
  readonly clientId?: string
  readonly label?: string
  readonly encode?: (data: unknown) => unknown
}

const ended = (request: Request): Ended => ({
  envelope: {
    id: request.id,
    name: request.name ?? "stock:reserve",
    data: request.data,
    metadata: {
      correlationId: request.correlationId ?? request.id,
      causationId: request.correlationId === undefined ? undefined : "parent",
      depth: 2,
      timestamp: request.timestamp ?? 1000,
      source: "/ksi",
      principal: "owner",
      streamId: undefined,
      deadline: undefined,
      traceparent: undefined,
      tracestate: undefined,
      idempotencyKey: undefined,
      clientCorrelationId: request.label,
      clientId: request.clientId
    }
  },
  encode: request.encode ?? ((data) => data),
  exit: request.exit ?? Exit.succeed("ok"),
  duration: 1.5
})

const record = (activity: Activity["Service"], ...requests: ReadonlyArray<Request>) =>
  Effect.forEach(requests, (request) => activity.record(ended(request)) ?? Effect.void, { discard: true })

const patterns = (...texts: ReadonlyArray<string>) => texts.map((text) => Result.getOrThrow(EventPattern.parse(text)))

const ids = (answer: { readonly records: ReadonlyArray<{ readonly id: string }> }) => answer.records.map(({ id }) => id)

const kinds: ReadonlyArray<
  readonly [name: string, layer: (options?: ActivityTable.Options) => Layer.Layer<Activity, KsiError.KsiError>]
> = [
  ["in memory", ActivityTable.layerMemory],
  ["in a file", (options) => inFile(options)]
]

const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
setFlagsFromString("--expose-gc")
const collectGarbage: () => void = runInNewContext("gc")

for (const [name, make] of kinds) {
  it.effect(`${name}, holds nothing of what was answered, not even until it is written`, () =>
    Effect.gen(function*() {
      const activity = yield* Activity
      const ask = Effect.suspend(() => {
        const answer = { long: "x".repeat(1000) }
        return Effect.as(record(activity, { id: "a", exit: Exit.succeed(answer) }), new WeakRef(answer))
      })
      const answered = yield* ask
      yield* turn
      collectGarbage()
      expect(answered.deref()).toBe(undefined)
      expect((yield* activity.query({ limit: 1 })).records[0]?.outcome).toBe("success")
    }).pipe(Effect.provide(make())))
}

for (const [name, make] of kinds) {
  describe(name, () => {
    it.effect("keeps what was recorded, also what is still in the buffer", () =>
      Effect.gen(function*() {
        const activity = yield* Activity
        const data = { n: 1, big: [null, "ü"] }
        yield* record(activity, { id: "a", data, correlationId: "root", clientId: "cli", label: "mine", timestamp: 5 })
        yield* record(activity, { id: "b", data: undefined })
        const { records, total } = yield* activity.query({ limit: 10, forward: true })
        expect(total).toBe(2)
        expect(records[0]).toEqual({
          id: "a", name: "stock:reserve", data, outcome: "success", error: undefined, duration: 1.5, timestamp: 5,
          correlationId: "root", causationId: "parent", depth: 2, principal: "owner", clientId: "cli",
          clientCorrelationId: "mine"
        })
        expect(records[1]).toMatchObject({ id: "b", data: null, causationId: undefined, clientId: undefined })
      }).pipe(Effect.provide(make())))

    it.effect("tells success, failure, defect and interruption apart, with a sentence", () =>
      Effect.gen(function*() {
        const activity = yield* Activity
        const notFound = KsiError.make(new KsiError.StoreLocked({ file: "x.db" }))
        const exits: ReadonlyArray<readonly [Exit.Exit<unknown, unknown>, string, string | undefined]> = [
          [Exit.succeed(1), "success", undefined],
          [Exit.fail(notFound), "failure", "another process is writing x.db"],
          [Exit.fail({ _tag: "OutOfStock" }), "failure", "OutOfStock"],
          [Exit.fail("no"), "failure", "no"],
          [Exit.fail({ left: 0 }), "failure", "{\"left\":0}"],
          [Exit.fail(7n), "failure", "7"],
          [Exit.die(new TypeError("bug")), "defect", "bug"],
          [Exit.failCause(Cause.interrupt()), "interrupted", "it was interrupted"],
          [Exit.failCause(Cause.combine(Cause.interrupt(), Cause.die("first"))), "defect", "first"]
        ]
        yield* record(activity, ...exits.map(([exit], i) => ({ id: `${i}`, exit })))
        const { records } = yield* activity.query({ limit: 10, forward: true })
        expect(records.map(({ error, outcome }) => [outcome, error])).toEqual(exits.map(([, ...rest]) => rest))
      }).pipe(Effect.provide(make())))

    it.effect("a payload that cannot be encoded is null, with a note", () =>
      Effect.gen(function*() {
        const activity = yield* Activity
        yield* record(
          activity,
          { id: "a", data: 1n },
          { id: "b", exit: Exit.fail("no"), encode: () => { throw new Error("bad codec") } },
          { id: "c", data: 2, encode: (data) => ({ encoded: data }) }
        )
        const { records } = yield* activity.query({ limit: 10, forward: true })
        expect(records.map(({ data }) => data)).toEqual([null, null, { encoded: 2 }])
        expect(records[0]).toMatchObject({ outcome: "success", error: expect.stringContaining("could not be recorded") })
        expect(records[1]?.error).toBe("no; the payload could not be recorded: bad codec")
      }).pipe(Effect.provide(make())))

    it.effect("finds by every criterion, pages, and counts all that match", () =>
      Effect.gen(function*() {
        const activity = yield* Activity
        yield* record(
          activity,
          { id: "1", name: "stock:reserve", timestamp: 10, clientId: "x" },
          { id: "2", name: "stock:level:get", timestamp: 20, correlationId: "1" },
          { id: "3", name: "order:place", timestamp: 30, label: "mine", exit: Exit.fail("no") },
          { id: "4", name: "order:place", timestamp: 40 }
        )
        const find = (query: Partial<Parameters<Activity["Service"]["query"]>[0]>) =>
          Effect.map(activity.query({ limit: 10, ...query }), ids)
        expect(yield* find({})).toEqual(["4", "3", "2", "1"])
        expect(yield* find({ forward: true })).toEqual(["1", "2", "3", "4"])
        expect(yield* find({ patterns: patterns("stock:*") })).toEqual(["2", "1"])
        expect(yield* find({ patterns: patterns("stock:*:get", "order:place") })).toEqual(["4", "3", "2"])
        expect(yield* find({ patterns: [] })).toEqual([])
        expect(yield* find({ since: 20, until: 30 })).toEqual(["3", "2"])
        expect(yield* find({ correlationId: "1" })).toEqual(["2", "1"])
        expect(yield* find({ correlationId: "mine" })).toEqual(["3"])
        expect(yield* find({ id: "3" })).toEqual(["3"])
        expect(yield* find({ clientId: "x" })).toEqual(["1"])
        expect(yield* find({ outcome: "failure" })).toEqual(["3"])
        expect(yield* find({ outcome: "failure", clientId: "x" })).toEqual([])
        const page = yield* activity.query({ limit: 2, offset: 1 })
        expect([ids(page), page.total]).toEqual([["3", "2"], 4])
      }).pipe(Effect.provide(make())))

    it.effect("outline keeps no payload and never encodes one", () =>
      Effect.gen(function*() {
        const activity = yield* Activity
        let encoded = 0
        yield* record(activity, { id: "a", data: { secret: 1 }, encode: () => encoded++ })
        const { records } = yield* activity.query({ limit: 1 })
        expect([records[0]?.id, records[0]?.data, records[0]?.error, encoded]).toEqual(["a", null, undefined, 0])
      }).pipe(Effect.provide(make({ audit: "outline" }))))

    it.effect("off keeps nothing", () =>
      Effect.gen(function*() {
        const activity = yield* Activity
        yield* record(activity, { id: "a" })
        expect(yield* activity.query({ limit: 1 })).toEqual({ records: [], total: 0 })
      }).pipe(Effect.provide(make({ audit: "off" }))))

    it.effect("forgets the oldest", () =>
      Effect.gen(function*() {
        const activity = yield* Activity
        for (let i = 1; i <= 35; i++) {
          yield* record(activity, { id: `${i}` })
          if (i % 3 === 0) yield* activity.flush
        }
        const { records, total } = yield* activity.query({ limit: 100 })
        expect(total).toBe(10)
        expect([records[0]?.id, records.at(-1)?.id]).toEqual(["35", "26"])
      }).pipe(Effect.provide(make()), small))
  })
}

it.effect("in memory, the last ones are kept, however many there were", () =>
  Effect.gen(function*() {
    const activity = yield* Activity
    for (let i = 1; i <= 7000; i++) {
      yield* record(activity, { id: `${i}`, data: { i }, ...(i % 2 === 0 ? { exit: Exit.fail("even") } : {}) })
      if (i % 1000 !== 0) continue
      const { records, total } = yield* activity.query({ limit: 2, forward: true })
      const first = Math.max(1, i - 2499)
      expect([total, ids({ records }), records[0]?.data]).toEqual([Math.min(i, 2500), [`${first}`, `${first + 1}`], { i: first }])
    }
    expect((yield* activity.query({ limit: 0, outcome: "failure" })).total).toBe(1250)
  }).pipe(Effect.provide(ActivityTable.layerMemory()), Effect.provideService(Limits.Limits, { ...Limits.defaults, activityRows: 2500 })))

const number = (sql: string) => Effect.map(StoreFile.StoreFile, ({ db }) => StoreFile.number(db, sql))
const stored = number("SELECT total(last - first + 1) FROM activity")
const blocks = number("SELECT count(*) FROM activity")

describe("written behind", () => {
  it.effect("a batch is written 25 ms after its first request", () =>
    Effect.gen(function*() {
      const activity = yield* Activity
      yield* TestClock.adjust("1 hour")
      yield* record(activity, { id: "a" }, { id: "b" })
      yield* TestClock.adjust("24 millis")
      expect(yield* stored).toBe(0)
      yield* TestClock.adjust("1 millis")
      expect(yield* stored).toBe(2)
    }).pipe(Effect.provide(inFile())))

  it.effect("a full buffer is written at once, slows the caller and loses nothing", () =>
    Effect.gen(function*() {
      const activity = yield* Activity
      const waits = Array.from({ length: 10 }, (_, i) => activity.record(ended({ id: `${i}` })))
      expect(waits.map((wait) => wait !== undefined)).toEqual([false, false, false, true, true, true, true, true, true, true])
      const slowed = yield* Effect.forkChild(Effect.all(waits.map((wait) => wait ?? Effect.void)))
      const gone = yield* Effect.forkChild(waits.at(-1) ?? Effect.void)
      yield* Fiber.interrupt(gone)
      yield* Fiber.join(slowed)
      expect(activity.record(ended({ id: "10" }))).toBeUndefined()
      expect((yield* activity.query({ limit: 100, forward: true })).records.length).toBe(10)
      expect((yield* activity.query({ limit: 1 })).records[0]?.id).toBe("10")
    }).pipe(Effect.provide(inFile()), small))

  it.effect("closing writes the rest, and it is there after opening again", () => {
    const filename = fresh()
    return Effect.gen(function*() {
      yield* Effect.scoped(Effect.provide(Effect.flatMap(Activity, (activity) => record(activity, { id: "a" })), inFile({}, filename)))
      yield* Effect.gen(function*() {
        const activity = yield* Activity
        yield* record(activity, { id: "b" })
        expect(ids(yield* activity.query({ limit: 9 }))).toEqual(["b", "a"])
      }).pipe(Effect.provide(inFile({}, filename)))
    })
  })

  it.effect("keeps so many bytes: the oldest go first, what stays is complete, also when it is opened again", () => {
    const filename = fresh()
    const limited = Effect.provideService(Limits.Limits, { ...Limits.defaults, activityBytes: 1_000_000 })
    const payload = "é".repeat(50_000)
    const bytes = number("SELECT total(octet_length(data)) FROM activity")
    const some = Effect.fnUntraced(function*(prefix: string) {
      const activity = yield* Activity
      for (let i = 0; i < 30; i++) {
        yield* record(activity, { id: `${prefix}${i}`, data: payload })
        if (i % 4 === 0) yield* activity.flush
      }
      const { records, total } = yield* activity.query({ limit: 100 })
      expect([total, yield* bytes]).toEqual([9, 9 * (100_002 + "[]".length)])
      expect(ids({ records })).toEqual(Array.from({ length: 9 }, (_, i) => `${prefix}${29 - i}`))
      expect(records.every(({ data }) => data === payload)).toBe(true)
    })
    return Effect.gen(function*() {
      yield* some("a").pipe(Effect.provide(inFile({}, filename)))
      yield* some("b").pipe(Effect.provide(inFile({}, filename)))
      // One that is too much alone goes too, and the next is kept.
      yield* Effect.gen(function*() {
        const activity = yield* Activity
        yield* record(activity, { id: "whole", data: "x".repeat(1_000_000) })
        expect((yield* activity.query({ limit: 9 })).total).toBe(0)
        yield* record(activity, { id: "next" }, { id: "last", exit: Exit.fail("y".repeat(1000)) })
        expect(ids(yield* activity.query({ limit: 9 }))).toEqual(["last", "next"])
      }).pipe(Effect.provide(inFile({}, filename)))
    }).pipe(limited)
  })

  it.effect("rare requests share a block too, and are found by each that is theirs", () =>
    Effect.gen(function*() {
      const activity = yield* Activity
      for (let i = 1; i <= 200; i++) {
        const mine = i % 50 === 0
        yield* record(activity, {
          id: `${i}`, data: { i }, timestamp: 1000 + i,
          ...(mine ? { label: `"l\u0007${i}`, clientId: `ü\ud800${i}`, correlationId: `c${i}`, exit: Exit.fail(`e${i}`) } : {})
        })
        yield* activity.flush
      }
      expect([yield* stored, yield* blocks]).toEqual([200, 4])
      const find = (query: object) => Effect.map(activity.query({ limit: 9, ...query }), ({ records, total }) => [total, records[0]?.id, records[0]?.data])
      const [hundred, last] = [[1, "100", { i: 100 }], [4, "200", { i: 200 }]]
      expect(yield* find({ id: "100" })).toEqual(hundred)
      expect(yield* find({ correlationId: "c100" })).toEqual(hundred)
      expect(yield* find({ correlationId: `"l\u0007100` })).toEqual(hundred)
      expect(yield* find({ clientId: "ü\ud800100" })).toEqual(hundred)
      expect(yield* find({ outcome: "failure" })).toEqual(last)
      expect(yield* find({ since: 1100, until: 1100 })).toEqual(hundred)
      // What only looks like it, in another place, is not it.
      expect(yield* find({ id: "c100" })).toEqual([0, undefined, undefined])
      expect(yield* find({ clientId: "e100" })).toEqual([0, undefined, undefined])
      const page = yield* activity.query({ limit: 60, offset: 60, forward: true })
      expect([page.total, ids(page)]).toEqual([200, Array.from({ length: 60 }, (_, i) => `${61 + i}`)])
    }).pipe(Effect.provide(inFile())))

  it.effect("more than is kept goes bit by bit: a smaller limit holds at once for who asks, and for the file a little later", () => {
    const filename = fresh()
    const filled = Effect.gen(function*() {
      const activity = yield* Activity
      for (let i = 1; i <= 6400; i++) {
        yield* record(activity, { id: `${i}` })
        if (i % 64 === 0) yield* activity.flush
      }
      expect([yield* stored, yield* blocks]).toEqual([6400, 100])
    })
    const less = Effect.gen(function*() {
      const activity = yield* Activity
      const held: Array<number> = []
      for (let i = 1; i <= 9; i++) {
        yield* record(activity, { id: `new ${i}` })
        const { records, total } = yield* activity.query({ limit: 1000, forward: true })
        expect([total, ids({ records }).at(-1)]).toEqual([100, `new ${i}`])
        held.push(yield* blocks)
      }
      expect(held).toEqual([83, 65, 47, 29, 11, 3, 3, 3, 3])
    })
    return Effect.gen(function*() {
      yield* Effect.provide(filled, inFile({}, filename))
      yield* less.pipe(Effect.provide(inFile({}, filename)), Effect.provideService(Limits.Limits, { ...Limits.defaults, activityRows: 100 }))
    })
  })

  it.effect("a file of format 1, which had a row for each request, has them all when it is opened, and new ones after them", () => {
    const filename = fresh()
    Format1.make(filename, 2500)
    return Effect.gen(function*() {
      expect(yield* number("PRAGMA user_version")).toBe(3)
      const activity = yield* Activity
      yield* record(activity, { id: "new" })
      const { records, total } = yield* activity.query({ limit: 3000, forward: true })
      expect([total, ids({ records })]).toEqual([2501, [...Array.from({ length: 2500 }, (_, i) => `${i + 1}`), "new"]])
      expect(records[8]).toEqual({
        id: "9", name: "order:place", data: { n: 9, big: Json.parse("12345678901234567890") }, outcome: "success", error: undefined, duration: 1.5,
        timestamp: 1009, correlationId: "9", causationId: undefined, depth: 0, principal: "local-http", clientId: undefined, clientCorrelationId: undefined
      })
      expect(records[9]).toEqual({
        id: "10", name: "stock:reserve", data: null, outcome: "failure", error: "none left", duration: 2.5, timestamp: 1010,
        correlationId: "9", causationId: "9", depth: 1, principal: "owner", clientId: "till", clientCorrelationId: "label 10"
      })
      expect(yield* number("SELECT count(*) FROM sqlite_master WHERE name LIKE 'activity%'")).toBe(1)
    }).pipe(Effect.provide(inFile({}, filename)))
  })

  it.effect("where it cannot be brought to the newest format, it stays as it is", () => {
    const filename = fresh()
    Format1.make(filename, 10)
    const ask = (sql: string) => {
      const db = new DatabaseSync(filename)
      const answer = db.prepare(sql).all()
      db.close()
      return answer
    }
    ask("CREATE TABLE activity_1 (mine)")
    const before = ask("SELECT name, sql FROM sqlite_master")
    return Effect.gen(function*() {
      const error = yield* Effect.flip(Effect.scoped(Layer.build(inFile({}, filename))))
      expect(error.message).toContain("activity_1")
      expect([ask("SELECT name, sql FROM sqlite_master"), ask("SELECT count(*) AS n FROM activity"), ask("PRAGMA user_version")])
        .toEqual([before, [{ n: 10 }], [{ user_version: 1 }]])
    })
  })

  it.effect("a disk that is full fails no request, is reported once and counted, and recording goes on later", () => {
    const logged: Array<unknown> = []
    const capture = Logger.layer([Logger.make(({ message }) => void logged.push(message))])
    return Effect.gen(function*() {
      const activity = yield* Activity
      const { db } = yield* StoreFile.StoreFile
      yield* record(activity, { id: "before" })
      yield* activity.flush
      db.exec(`PRAGMA max_page_count = ${StoreFile.number(db, "PRAGMA page_count")}`)
      const big = "x".repeat(50_000)
      for (let i = 0; i < 3; i++) {
        yield* record(activity, { id: `lost ${i}`, data: big })
        yield* activity.flush
      }
      expect(logged.length).toBe(1)
      db.exec("PRAGMA max_page_count = 1000000")
      yield* record(activity, { id: "after", data: big })
      expect(ids(yield* activity.query({ limit: 10 }))).toEqual(["after", "before"])
      const snapshot = yield* Metric.snapshot
      expect(snapshot.find(({ id }) => id === "ksi_activity_lost")).toMatchObject({ state: { count: 3 } })
    }).pipe(Effect.provide(Layer.merge(inFile(), capture)), Effect.provideService(Metric.MetricRegistry, new Map()))
  })
})

describe("any history of requests", () => {
  const texts = ["a", "é", "\u0000", "\ud800", "\"", "\\", "%", "_", "__proto__", "k1", "2024", "", "a\nb"]
  const limits = { ...Limits.defaults, activityBuffer: 50, activityRows: 148 }

  it.effect("is found alike in a file and in memory, by every question, over the bounds of blocks and while the oldest go", () =>
    Effect.gen(function*() {
      for (let seed = 1; seed <= 6; seed++) {
        const below = seeded(seed)
        const one = <A>(items: ReadonlyArray<A>): A | undefined => items[below(items.length)]
        const maybe = <A>(items: ReadonlyArray<A>): A | undefined => below(3) === 0 ? undefined : one(items)
        const request = (n: number): Request => ({
          id: `${one(texts)}${n}`, name: one(["a:b", "a:c", "b:c", "long:name"]) ?? "a:b", timestamp: 1000 + below(50),
          data: one<unknown>([null, 1, { a: one(texts) }, [one(texts)], "x".repeat(below(2000)), { n: 1e21 }]),
          exit: one<Exit.Exit<unknown, unknown>>([Exit.succeed(1), Exit.fail("no"), Exit.die(new Error("broken"))]) ?? Exit.void,
          ...(below(2) === 0 ? {} : { correlationId: `${one(texts)}${below(n + 1)}` }),
          ...(below(2) === 0 ? {} : { clientId: `c${one(texts)}` }), ...(below(2) === 0 ? {} : { label: `l${one(texts)}` })
        })
        const requests = Array.from({ length: 700 }, (_, n) => request(n))
        const question = (): ActivityQuery => ({
          limit: below(200), offset: below(3) === 0 ? below(160) : undefined, forward: below(2) === 0,
          ...(below(2) === 0 ? { patterns: patterns(one(["a:*", "*", "b:c", "none:*"]) ?? "*") } : {}),
          ...(below(4) === 0 ? { since: 1000 + below(50) } : {}), ...(below(4) === 0 ? { until: 1000 + below(50) } : {}),
          ...(below(4) === 0 ? { outcome: one(["success", "failure", "defect"] as const) } : {}),
          ...(below(4) === 0 ? { id: maybe(requests)?.id } : {}),
          ...(below(4) === 0 ? { correlationId: maybe(requests)?.correlationId ?? "lk1" } : {}),
          ...(below(4) === 0 ? { clientId: maybe(requests)?.clientId } : {})
        })
        const questions = Array.from({ length: 60 }, question)
        const asked = Array.from({ length: 7 }, () => below(100))
        const played = Effect.gen(function*() {
          const activity = yield* Activity
          const answers: Array<unknown> = []
          for (const [at, count] of asked.entries()) {
            yield* record(activity, ...requests.slice(100 * at, 100 * at + count))
            for (const each of questions) answers.push(yield* activity.query(each))
          }
          return answers
        })
        const withLimits = <E>(layer: Layer.Layer<Activity, E>) => Effect.provide(played, layer).pipe(Effect.provideService(Limits.Limits, limits))
        const [inMemory, kept] = [yield* withLimits(ActivityTable.layerMemory()), yield* withLimits(inFile())]
        for (const [at, answer] of kept.entries()) expect(answer, JSON.stringify([seed, questions[at % questions.length]])).toEqual(inMemory[at])
      }
    }), 60_000)
})
