// The event store on real SQLite files: the conformance suite, and what only a file can do.
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Logger, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import * as Os from "node:os"
import * as Path from "node:path"
import type { Append } from "../../src/bus/Journal.ts"
import { Activity } from "../../src/bus/Activity.ts"
import * as Json from "../../src/event/Json.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import * as EventStoreSuite from "../../src/testing/EventStoreSuite.ts"
import * as Format1 from "./format1.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-sqlite-"))
afterAll(() => Fs.rmSync(folder, { recursive: true }))
let files = 0
const fresh = () => Path.join(folder, `${++files}.db`)

type Store = EventStore.EventStore["Service"]

const layer = (options: Partial<SqliteEventStore.Options> = {}) =>
  SqliteEventStore.layer({ filename: fresh(), sync: "normal", ...options })

/** Opens the store, does this with it, and closes it. */
const open = <A, E>(
  options: Partial<SqliteEventStore.Options>,
  body: (store: Store) => Effect.Effect<A, E, Scope.Scope>
) => Effect.scoped(Effect.provide(Effect.flatMap(EventStore.EventStore, body), layer(options)))

const reasonOf = <A>(effect: Effect.Effect<A, KsiError.KsiError>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

/** Asks the file itself, from outside. */
const ask = (filename: string, sql: string): ReadonlyArray<unknown> => {
  const db = new DatabaseSync(filename)
  try {
    return Object.values(db.prepare(sql).get() ?? {})
  } finally {
    db.close()
  }
}

const times = (count: number) => Array.from({ length: count }, (_, i) => i)
const fact = (id: string, streamId = "a", data: unknown = { id }) =>
  ({ id, source: "/t", name: "a:b", streamId, data, time: undefined, attributes: {} })
const everything = (store: Store) => Stream.runCollect(store.all())

/** Positions from 1 without gaps, versions of each stream too, and the streams say the same. */
const verify = (store: Store) =>
  Effect.gen(function*() {
    const facts = yield* everything(store)
    const byStream = new Map<string, Array<number>>()
    facts.forEach(({ position, streamId, version }, i) => {
      expect(position).toBe(i + 1)
      const positions = byStream.get(streamId) ?? []
      byStream.set(streamId, positions)
      expect(version).toBe(positions.push(position))
    })
    expect(store.head()).toBe(facts.length)
    for (const [streamId, positions] of byStream) {
      const stream = yield* Stream.runCollect(store.stream(streamId))
      expect(stream.map(({ position }) => position)).toEqual(positions)
    }
    return facts
  })

describe("the index of chains", () => {
  const caused = (id: string, correlationid: unknown) => ({ ...fact(id), attributes: { correlationid, causationid: "r", depth: 1 } })
  const chain = (store: Store) =>
    Effect.map(store.driver.byCorrelation({ correlationId: "r", from: 1, limit: 100 }), (facts) => facts.map(({ id }) => id))

  it.effect("is made when it is asked for, goes on after the store was closed, and is of facts that are there", () =>
    Effect.gen(function*() {
      const filename = fresh()
      const indexed = () => ask(filename, "SELECT (SELECT through FROM correlated), (SELECT count(*) FROM correlations)")
      yield* open({ filename }, (store) =>
        Effect.gen(function*() {
          yield* store.append({ facts: [caused("1", "r"), fact("2"), caused("3", "r"), caused("4", 5)] })
          expect(indexed()).toEqual([0, 0])
          expect(yield* chain(store)).toEqual(["1", "3"])
          expect(indexed()).toEqual([4, 2])
          yield* store.append({ facts: [caused("5", "r"), fact("6")] })
        }))
      // Another program may have written what is no JSON, and taken a fact away.
      ask(filename, "UPDATE events SET attributes = '{' WHERE position = 6")
      ask(filename, "DELETE FROM events WHERE position = 3")
      yield* open({ filename }, (store) => Effect.map(chain(store), (ids) => expect(ids).toEqual(["1", "5"])))
      expect(indexed()).toEqual([6, 3])
    }))

  it.effect("lets others go on while it is made of many facts", () =>
    open({}, (store) =>
      Effect.gen(function*() {
        for (let at = 0; at < 20; at++) yield* store.append({ facts: times(1000).map((n) => caused(`${at}-${n}`, n === 0 ? "r" : `other-${n}`)) })
        const order: Array<string> = []
        const other = yield* Effect.forkChild(Effect.forEach(times(4), (n) => Effect.andThen(Effect.yieldNow, Effect.sync(() => order.push(`other ${n}`)))))
        expect(yield* chain(store)).toHaveLength(20)
        order.push("chain")
        yield* Fiber.join(other)
        // Ten slices: nine turns between them.
        expect(order.indexOf("chain")).toBeGreaterThan(2)
      })))
})

describe("keeps the promises of every event store", () => {
  for (const { name, run } of EventStoreSuite.cases) {
    it.effect(name, () => run.pipe(Effect.provide(layer())))
  }
})

describe("keeps them while events move into the stream index", () => {
  for (const { name, run } of EventStoreSuite.cases) {
    it.effect(name, () => run.pipe(Effect.provide(layer({ indexThreshold: 3 }))))
  }
})

describe("group commit", () => {
  it.effect("appends of one turn share a commit, in their order, each with its own answer", () =>
    open({}, (store) =>
      Effect.gen(function*() {
        const commits: Array<number> = []
        yield* store.listen((facts) => commits.push(facts.length))
        const answers = yield* Effect.forEach(times(64), (i) =>
          Effect.exit(store.append({ facts: [fact(`${i % 60}`, "a", i)], expectedVersion: i === 7 ? 99 : undefined })), {
          concurrency: "unbounded"
        })
        expect(commits).toEqual([59])
        expect(answers.filter(Exit.isSuccess).length).toBe(59)
        const reasons = answers.flatMap((exit) =>
          Exit.isFailure(exit) ? exit.cause.reasons.filter(Cause.isFailReason).map(({ error }) => error.reason._tag) : [])
        expect(reasons).toEqual(["VersionConflict", "IdConflict", "IdConflict", "IdConflict", "IdConflict"])
        expect((yield* verify(store)).map(({ id }) => id)).toEqual(times(60).filter((i) => i !== 7).map(String))
      })))

  it.effect("a retry in the same commit as its first try, whose stream has moved on, is a no-op", () =>
    open({}, (store) =>
      Effect.gen(function*() {
        const again = { facts: [fact("3")], expectedVersion: 0 }
        const requests: ReadonlyArray<Append> = [
          ...times(5).map((i) => ({ facts: [fact(`${i}`)] })), again, ...times(20).map((i) => ({ facts: [fact(`${i + 5}`)] }))
        ]
        const outcomes = yield* Effect.forEach(requests, store.append, { concurrency: "unbounded" })
        expect(outcomes[5]).toEqual([{ kind: "duplicate", position: 4, version: 4 }])
        expect(yield* verify(store)).toHaveLength(25)
      })))

  it.effect("a commit that fails leaves nothing behind, in the file or in memory", () => {
    const filename = fresh()
    return open({ filename, indexThreshold: 3 }, (store) =>
      Effect.gen(function*() {
        yield* store.append({ facts: times(8).map((i) => fact(`${i}`)) })
        ask(filename, "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.id = 'bad' BEGIN SELECT RAISE(ABORT, 'refused'); END")
        const batch = (last: string) => Effect.forEach([...times(20).map((i) => `n${i}`), last], (id) =>
          Effect.exit(store.append({ facts: [fact(id, id.length > 2 ? "new" : "a")] })), { concurrency: "unbounded" })
        expect((yield* batch("bad")).every(Exit.isFailure)).toBe(true)
        expect(yield* verify(store)).toHaveLength(8)
        expect(yield* store.streams({ limit: 9 })).toEqual([{ streamId: "a", version: 8 }])
        expect((yield* batch("good")).every(Exit.isSuccess)).toBe(true)
        expect(yield* verify(store)).toHaveLength(29)
      }))
  })

  it.effect("1,000 callers at once are answered in several commits", () =>
    open({}, (store) =>
      Effect.gen(function*() {
        const commits: Array<number> = []
        yield* store.listen((facts) => commits.push(facts.length))
        const outcomes = yield* Effect.forEach(times(1000), (i) => store.append({ facts: [fact(`${i}`, `s${i % 9}`)] }), {
          concurrency: "unbounded"
        })
        expect(outcomes.map(([outcome]) => outcome?.position)).toEqual(times(1000).map((i) => i + 1))
        expect(commits).toEqual([512, 488])
        yield* verify(store)
      })))

  it.effect("who is interrupted while waiting has appended nothing; the others are not disturbed", () =>
    open({}, (store) =>
      Effect.gen(function*() {
        const fibers = yield* Effect.forEach(times(3), (i) =>
          Effect.forkChild(store.append({ facts: [fact(`${i}`)] }), { startImmediately: true }))
        if (fibers[1] !== undefined) yield* Fiber.interrupt(fibers[1])
        const exits = yield* Effect.forEach(fibers, Fiber.await)
        expect(exits.map((exit) => exit._tag)).toEqual(["Success", "Failure", "Success"])
        expect((yield* verify(store)).map(({ id }) => id)).toEqual(["0", "2"])
      })))

  it.effect("a listener that throws is logged and hurts nobody", () => {
    const logged: Array<unknown> = []
    return open({}, (store) =>
      Effect.gen(function*() {
        const heard: Array<string> = []
        yield* store.listen(() => {
          throw new Error("bad listener")
        })
        yield* store.listen((facts) => heard.push(...facts.map(({ id }) => id)))
        yield* store.append({ facts: [fact("1")] })
        yield* store.append({ facts: [fact("2")] })
        expect(heard).toEqual(["1", "2"])
        expect(JSON.stringify(logged)).toContain("a listener of the store threw")
      })).pipe(Effect.provide(Logger.layer([Logger.make(({ message }) => void logged.push(message))])))
  })

  it.effect("closing commits what is waiting; later appends fail", () =>
    Effect.gen(function*() {
      const filename = fresh()
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(layer({ filename }), scope)
      const store = yield* Effect.provide(EventStore.EventStore, context)
      const waiting = yield* Effect.forkChild(store.append({ facts: [fact("1")] }), { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      expect((yield* Fiber.join(waiting))[0]?.position).toBe(1)
      expect(yield* reasonOf(store.append({ facts: [fact("2")] }))).toMatchObject({ _tag: "StoreFailure" })
      expect(yield* reasonOf(store.read({ from: 1, limit: 1 }))).toMatchObject({ _tag: "StoreFailure" })
      expect(yield* open({ filename }, verify)).toHaveLength(1)
    }))
})

describe("the file", () => {
  it.effect("events move into the stream index in order, and nothing shows", () => {
    const filename = fresh()
    return Effect.gen(function*() {
      yield* open({ filename, indexThreshold: 100 }, (store) =>
        Effect.gen(function*() {
          for (const round of times(12)) {
            yield* Effect.forEach(times(37), (i) => store.append({ facts: [fact(`${round}-${i}`, `s${i % 5}`)] }), {
              concurrency: "unbounded"
            })
            yield* verify(store)
          }
        }))
      const [through, entries, wrong] = ask(filename, `SELECT through, (SELECT count(*) FROM stream_index),
        (SELECT count(*) FROM events e WHERE e.position <= meta.through AND NOT EXISTS (SELECT 1 FROM stream_index i
          WHERE i.stream = e.stream AND i.version = e.version AND i.position = e.position)) FROM meta`)
      expect(through).toBeGreaterThan(300)
      expect([entries, wrong]).toEqual([through, 0])
      expect(yield* open({ filename, indexThreshold: 100 }, verify)).toHaveLength(12 * 37)
    })
  })

  it.effect("a stream on disk is read in pages of many facts that hold no more bytes than they may, and every fact once", () =>
    open({ indexThreshold: 100 }, (store) =>
      Effect.gen(function*() {
        // Short ones, then long ones, so that pages end within what is read at once, then one that is a page of its own.
        const sizes = [...times(150).map(() => 10), ...times(120).map((i) => 9000 + 1000 * (i % 30)), 1_500_000, ...times(30).map(() => 10)]
        for (const [i, size] of sizes.entries()) yield* store.append({ facts: [fact(`${i}`, "long", "x".repeat(size))] })
        for (const i of times(300)) yield* store.append({ facts: [fact(`other ${i}`, "other")] })
        const pages: Array<ReadonlyArray<number>> = []
        for (let from = 1; from <= sizes.length;) {
          const page = yield* store.readStream({ streamId: "long", from, limit: 1000 })
          page.forEach(({ data, version }, i) => expect([version, data]).toEqual([from + i, "x".repeat(sizes[from + i - 1] ?? 0)]))
          pages.push(page.map(({ data }) => String(data).length))
          from += page.length
        }
        const bytes = pages.map((page) => page.reduce((a, b) => a + b, 0))
        expect(bytes.filter((n) => n > 1024 * 1024)).toEqual([1_500_000])
        expect(pages.length).toBeGreaterThan(3)
        expect(pages.length).toBeLessThan(12)
      })))

  it.effect("is as it was after closing and opening: order, versions, identity, numbers, commit times", () => {
    const filename = fresh()
    const big = Json.parse("{\"n\":12345678901234567890,\"s\":\"ü\"}")
    return Effect.gen(function*() {
      yield* TestClock.adjust("1 hour")
      yield* open({ filename }, (store) =>
        store.append({ facts: [fact("1", "a", big), fact("2", "b", null), { ...fact("3"), data: undefined }] }))
      yield* TestClock.setTime(0)
      yield* open({ filename }, (store) =>
        Effect.gen(function*() {
          const again = yield* store.append({ facts: [fact("1", "a", big), fact("4", "a")] })
          expect(again.map(({ kind, position, version }) => [kind, position, version]))
            .toEqual([["duplicate", 1, 1], ["appended", 4, 3]])
          const facts = yield* verify(store)
          expect(JSON.stringify(facts.map(({ data }) => data))).toBe("[{\"n\":12345678901234567890,\"s\":\"ü\"},null,null,{\"id\":\"4\"}]")
          expect(facts[2]?.data).toBeUndefined()
          expect(facts.map(({ recordedAt }) => recordedAt)).toEqual([3_600_000, 3_600_000, 3_600_000, 3_600_000])
        }))
    })
  })

  it.effect("has one writer; the next one may come when it is gone", () =>
    Effect.gen(function*() {
      const filename = fresh()
      yield* open({ filename }, (store) =>
        Effect.gen(function*() {
          const second = open({ filename }, (other) => other.append({ facts: [fact("2")] }))
          expect(yield* reasonOf(second)).toMatchObject({ _tag: "StoreLocked", file: filename })
          yield* store.append({ facts: [fact("1")] })
        }))
      expect(yield* open({ filename }, verify)).toHaveLength(1)
    }))

  const refusals: ReadonlyArray<readonly [what: string, make: (filename: string) => void, problem: string]> = [
    ["of another program", (f) => ask(f, "CREATE TABLE mine (a)"), "another program"],
    ["with another program's mark", (f) => ask(f, "PRAGMA application_id = 7"), ""],
    ["that is no database", (f) => Fs.writeFileSync(f, "hello, I am a text file and no database at all".repeat(50)), "not a database"]
  ]
  for (const [what, make, problem] of refusals) {
    it.effect(`a file ${what} is refused and left alone`, () =>
      Effect.gen(function*() {
        const filename = fresh()
        make(filename)
        if (what.includes("mark")) ask(filename, "CREATE TABLE mine (a)")
        const before = Fs.readFileSync(filename)
        const reason = yield* reasonOf(open({ filename }, () => Effect.void))
        expect(reason).toMatchObject({ _tag: "StoreFailure", operation: "open", problem: expect.stringContaining(problem) })
        expect(Fs.readFileSync(filename).equals(before)).toBe(true)
        expect(Fs.existsSync(`${filename}.lock`)).toBe(false)
      }))
  }

  it.effect("a file of a newer KSI is refused; so is a folder that is not there, and no file at all", () =>
    Effect.gen(function*() {
      const filename = fresh()
      yield* open({ filename }, (store) => store.append({ facts: [fact("1")] }))
      ask(filename, "PRAGMA user_version = 99")
      const problems = yield* Effect.forEach([filename, Path.join(folder, "no", "x.db"), ":memory:", ""], (filename) =>
        Effect.map(reasonOf(open({ filename }, () => Effect.void)), (reason) => reason.message))
      expect(problems[0]).toContain("format 99")
      expect(problems[1]).toContain("cannot be opened")
      expect(problems[2]).toContain("memory store")
      expect(problems[3]).toContain("not a file")
    }))

  it.effect("a file of an older format is opened with all its facts, and takes more", () =>
    Effect.gen(function*() {
      const filename = fresh()
      Format1.make(filename, 10)
      yield* open({ filename }, (store) => store.append({ facts: [fact("2")] }))
      const facts = yield* open({ filename }, verify)
      expect(facts.map(({ id, streamId, data }) => [id, streamId, data])).toEqual([["fact-1", "order-1", { sku: "tea" }], ["2", "a", { id: "2" }]])
    }))

  it.effect("a link leads to its file: the second opener is refused by whatever name", () =>
    Effect.gen(function*() {
      const filename = fresh()
      const links = [fresh(), fresh()] as const
      Fs.symlinkSync(filename, links[0])
      Fs.symlinkSync(links[0], links[1])
      // The first opener may be the one that comes over the link, before there is a file.
      yield* open({ filename: links[1] }, (store) =>
        Effect.gen(function*() {
          yield* store.append({ facts: [fact("1")] })
          for (const other of [filename, ...links]) {
            expect(yield* reasonOf(open({ filename: other }, () => Effect.void))).toMatchObject({ _tag: "StoreLocked" })
          }
        }))
      expect(yield* open({ filename }, (store) => Effect.sync(store.head))).toBe(1)
    }))

  it.effect("a file with two names is refused by both", () =>
    Effect.gen(function*() {
      const filename = fresh()
      const other = fresh()
      yield* open({ filename }, (store) => store.append({ facts: [fact("1")] }))
      Fs.linkSync(filename, other)
      for (const name of [filename, other]) {
        expect(yield* reasonOf(open({ filename: name }, () => Effect.void))).toMatchObject({
          _tag: "StoreFailure", problem: expect.stringContaining("2 names (hard links)")
        })
      }
      Fs.unlinkSync(other)
      expect(yield* open({ filename }, (store) => Effect.sync(store.head))).toBe(1)
    }))

  it.effect("a fact that another program broke does not hide those around it", () => {
    const filename = fresh()
    return open({ filename }, (store) =>
      Effect.gen(function*() {
        yield* store.append({ facts: times(5).map((n) => fact(`${n}`, n === 2 ? "b" : "a")) })
        ask(filename, "UPDATE events SET data = '{nope' WHERE position = 2 RETURNING 1")
        ask(filename, "UPDATE events SET attributes = '[' WHERE position = 3 RETURNING 1")
        const marked = { data: undefined, attributes: { ksiunreadable: true } }
        const facts = yield* everything(store)
        expect(facts.map(({ id, position }) => [id, position])).toEqual(times(5).map((n) => [`${n}`, n + 1]))
        expect(facts.slice(1, 3)).toMatchObject([marked, marked])
        expect(facts[3]).toMatchObject({ data: { id: "3" }, attributes: {} })
        expect((yield* Stream.runCollect(store.stream("a"))).map(({ id }) => id)).toEqual(["0", "1", "3", "4"])
        expect(yield* store.byId("1")).toMatchObject([marked])
        // It is another fact now, to whoever brings it again; its neighbours in the batch get in.
        const [again, after] = yield* Effect.all([reasonOf(store.append({ facts: [fact("1")] })), store.append({ facts: [fact("9")] })], {
          concurrency: "unbounded"
        })
        expect([again._tag, after[0]?.kind]).toEqual(["IdConflict", "appended"])
      }))
  })

  it.effect("a fact that cannot be compared fails its own append only", () => {
    const filename = fresh()
    const depth = 100_000
    return open({ filename }, (store) =>
      Effect.gen(function*() {
        yield* store.append({ facts: [fact("1"), fact("2")] })
        // As a store of another time may hold it: readable, and too deep for anything else.
        ask(filename, `UPDATE events SET data = '${"[".repeat(depth)}${"]".repeat(depth)}' WHERE position = 1 RETURNING 1`)
        const deepest: unknown = JSON.parse(`${"[".repeat(256)}1${"]".repeat(256)}`)
        const answers = yield* Effect.all(
          [fact("1", "a", deepest), fact("2"), fact("3")].map((fact) => Effect.exit(store.append({ facts: [fact] }))),
          { concurrency: "unbounded" }
        )
        expect(answers.map((exit) => Exit.isSuccess(exit) ? exit.value[0]?.kind : "refused")).toEqual(["refused", "duplicate", "appended"])
      }))
  })

  it.effect("another program's write is noticed", () => {
    const filename = fresh()
    return open({ filename }, (store) =>
      Effect.gen(function*() {
        yield* store.append({ facts: [fact("1"), fact("2", "b")] })
        ask(filename, "INSERT INTO events SELECT 3, stream, 2, source, 'x', name, data, attributes, time, timestamp, recorded FROM events WHERE id = '1'")
        const outcomes = yield* store.append({ facts: [fact("3"), fact("x")], mode: "each" })
        expect(outcomes.map(({ kind, position, version }) => [kind, position, version]))
          .toEqual([["appended", 4, 3], ["conflict", 3, 2]])
        yield* verify(store)
      }))
  })

  it.effect("keeps requests beside the facts, or not, as told", () =>
    Effect.gen(function*() {
      const count = Effect.flatMap(Activity, (activity) =>
        Effect.gen(function*() {
          const metadata = { correlationId: "1", causationId: undefined, depth: 0, timestamp: 0, source: "/", principal: "owner",
            streamId: undefined, deadline: undefined, idempotencyKey: undefined, clientCorrelationId: undefined, clientId: undefined,
            traceparent: undefined, tracestate: undefined }
          activity.record({ envelope: { id: "1", name: "a:b", data: 1, metadata }, encode: (data) => data, exit: Exit.void, duration: 1 })
          return (yield* activity.query({ limit: 9 })).records.map(({ data }) => data)
        }))
      expect(yield* Effect.provide(count, layer())).toEqual([1])
      expect(yield* Effect.provide(count, layer({ audit: "outline" }))).toEqual([null])
      expect(yield* Effect.provide(count, layer({ audit: "off" }))).toEqual([])
    }))
})

describe("when the disk is full", () => {
  it.effect("the batch fails, reading goes on, and writing too as soon as there is room", () => {
    const filename = fresh()
    return Effect.gen(function*() {
      // The limit is the connection's own, so the test reaches for it.
      const limited = Object.getOwnPropertyDescriptor(DatabaseSync.prototype, "prepare")?.value as DatabaseSync["prepare"]
      const connections = new Set<DatabaseSync>()
      DatabaseSync.prototype.prepare = function(this: DatabaseSync, ...args: Parameters<DatabaseSync["prepare"]>) {
        connections.add(this)
        return limited.apply(this, args)
      }
      const pages = (count: number) => {
        for (const db of connections) if (db.isOpen && db.location() === filename) db.exec(`PRAGMA max_page_count = ${count}`)
      }
      yield* open({ filename, indexThreshold: 5 }, (store) =>
        Effect.gen(function*() {
          yield* store.append({ facts: times(7).map((i) => fact(`${i}`, `s${i % 2}`)) })
          pages(1)
          const large = "x".repeat(200_000)
          const failed = yield* Effect.forEach(times(5), (i) =>
            reasonOf(store.append({ facts: [fact(`small ${i}`, "new"), fact(`large ${i}`, "s1", large)] })), {
            concurrency: "unbounded"
          })
          expect(failed.map(({ _tag }) => _tag)).toEqual(times(5).map(() => "StoreFailure"))
          expect(failed[0]?.message).toContain("full")
          expect(yield* verify(store)).toHaveLength(7)
          expect(yield* store.streams({ limit: 9 })).toHaveLength(2)
          pages(1_000_000)
          const outcomes = yield* store.append({ facts: [fact("small 0", "new"), fact("large 0", "s1", large)], expectedVersion: 0 })
          expect(outcomes.map(({ position, version }) => [position, version])).toEqual([[8, 1], [9, 4]])
          expect(yield* verify(store)).toHaveLength(9)
        })).pipe(Effect.ensuring(Effect.sync(() => {
          DatabaseSync.prototype.prepare = limited
        })))
      expect(yield* open({ filename }, verify)).toHaveLength(9)
    })
  })
})

/** Starts the appender, kills it when it has said `lines` lines, and tells what it acknowledged. */
const killed = (filename: string, run: string, lines: number) =>
  Effect.callback<ReadonlyArray<string>>((resume) => {
    const script = Path.join(import.meta.dirname, "crash/appender.ts")
    const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", script, filename, run], {
      stdio: ["ignore", "pipe", "inherit"]
    })
    let said = ""
    child.stdout.on("data", (chunk) => {
      said += chunk
      if (said.split("\n").length > lines) child.kill("SIGKILL")
    })
    // The last line may be cut: then it was not acknowledged.
    child.on("close", () => resume(Effect.succeed(said.split("\n").slice(0, -1).filter((line) => line !== "open"))))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

describe("kill -9", () => {
  it.live("loses nothing that was acknowledged, and leaves neither gap nor lock", () =>
    Effect.gen(function*() {
      const filename = fresh()
      const acknowledged: Array<string> = []
      for (const [round, lines] of [150, 900, 2500].entries()) {
        acknowledged.push(...yield* killed(filename, `${round}`, lines))
        const facts = yield* open({ filename, indexThreshold: 200 }, verify)
        const known = new Set(facts.map(({ id, position, version }) => `${id} ${position} ${version}`))
        expect(acknowledged.filter((line) => !known.has(line))).toEqual([])
        expect(new Set(facts.map(({ id }) => id)).size).toBe(facts.length)
      }
      expect(acknowledged.length).toBeGreaterThan(3000)
    }), 60_000)
})

// A few streams, ids and versions, so that they meet often.
const Step = Schema.Struct({
  facts: Schema.Array(Schema.Struct({
    id: Schema.Literals(times(40).map(String)),
    stream: Schema.Literals(["a", "b", "ü😀"]),
    data: Schema.Literals(["x", "x", "x", "y"])
  })).check(Schema.isMaxLength(6)),
  expected: Schema.Literals([-1, 0, 1, 2, 3]),
  each: Schema.Boolean,
  /** What happens afterwards: the next step is in the same transaction, in another, or after closing and opening. */
  last: Schema.Literals(["together", "together", "together", "apart", "reopen"])
})
type Step = typeof Step.Type

const batches = (steps: ReadonlyArray<Step>): ReadonlyArray<ReadonlyArray<Step>> => {
  const all: Array<Array<Step>> = [[]]
  for (const step of steps) {
    all.at(-1)?.push(step)
    if (step.last !== "together") all.push([])
  }
  return all
}

const requestOf = ({ each, expected, facts }: Step): Append => ({
  facts: facts.map(({ data, id, stream }) => fact(id, stream, data)),
  mode: each ? "each" : "all",
  expectedVersion: expected < 0 ? undefined : expected
})

describe("against a model", () => {
  it.effect.prop("does what the store in memory does, whatever is appended, also when it is closed and opened", [
    Schema.Array(Step).check(Schema.isMaxLength(24))
  ], ([steps]) =>
    Effect.gen(function*() {
      const model = yield* EventStore.EventStore
      const filename = fresh()
      let scope = yield* Scope.make()
      const opened = Effect.suspend(() =>
        Effect.flatMap(Layer.buildWithScope(layer({ filename, indexThreshold: 3 }), scope), (context) =>
          Effect.provide(EventStore.EventStore, context)))
      let store = yield* opened
      for (const batch of batches(steps)) {
        // All at once: they share a transaction, and come in this order.
        const append = (store: Store) =>
          Effect.forEach(batch, (step) => Effect.map(Effect.exit(store.append(requestOf(step))), shownExit), {
            concurrency: "unbounded"
          })
        expect(yield* append(store)).toEqual(yield* append(model))
        if (batch.at(-1)?.last === "reopen") {
          yield* Scope.close(scope, Exit.void)
          scope = yield* Scope.make()
          store = yield* opened
        }
        expect(yield* store.streams({ limit: 9 })).toEqual(yield* model.streams({ limit: 9 }))
      }
      expect(yield* verify(store)).toEqual(yield* everything(model))
      for (const { streamId } of yield* model.streams({ limit: 9 })) {
        const range = { streamId, from: 2, to: 3, limit: 2, backward: true }
        expect(yield* store.readStream(range)).toEqual(yield* model.readStream(range))
      }
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.provide(EventStore.layerMemory)), { arbitrary: { runs: 80 } })
})

const shownExit = (exit: Exit.Exit<unknown, KsiError.KsiError>): unknown =>
  Exit.isSuccess(exit) ? exit.value : exit.cause.reasons.map((reason) => Cause.isFailReason(reason) ? reason.error.message : reason)
