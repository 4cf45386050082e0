/**
 * Durable appends, one fact each, with an expected version, into 1000 streams in turn, ~260 bytes of JSON.
 *
 * `bare` is node:sqlite alone doing the same: the same tables, the same identity (UNIQUE), versions in memory, the stream
 * index written behind, as many appends in each transaction as there are callers; no checks, no errors, no fibers.
 * `bare-unique` leaves uniqueness of (stream, version) to the database instead, as most stores do. All of them
 * synchronous=FULL, wal_autocheckpoint=1000.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Envelope from "../../src/event/Envelope.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import type { Bench, Subject } from "./Bench.ts"
import { dataOf } from "./Orders.ts"

const streams = 1000
const names = ["order:placed", "order:paid", "order:shipped", "order:closed"]

const columns = `position INTEGER PRIMARY KEY, stream INTEGER NOT NULL, version INTEGER NOT NULL, source INTEGER NOT NULL,
  id TEXT NOT NULL, name INTEGER NOT NULL, data TEXT, attributes TEXT, time TEXT, timestamp INTEGER NOT NULL,
  recorded INTEGER NOT NULL`

/** node:sqlite alone. */
class Bare {
  readonly db: DatabaseSync
  private readonly unique: boolean
  private readonly ids = Envelope.makeIds(1, 2)
  private readonly versions: Array<number>
  private position: number
  private tail: Array<readonly [stream: number, version: number, position: number]> = []
  private moving: typeof this.tail = []
  private readonly insert
  private readonly index

  constructor(file: string, unique: boolean) {
    this.db = new DatabaseSync(file)
    this.unique = unique
    this.db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 1000")
    this.db.exec(unique
      ? `CREATE TABLE IF NOT EXISTS events (${columns}, UNIQUE (stream, version))`
      : `CREATE TABLE IF NOT EXISTS events (${columns}, UNIQUE (id, source));
         CREATE TABLE IF NOT EXISTS stream_index (stream INTEGER NOT NULL, version INTEGER NOT NULL,
           position INTEGER NOT NULL, PRIMARY KEY (stream, version)) WITHOUT ROWID`)
    this.insert = this.db.prepare("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
    this.index = unique ? undefined : this.db.prepare("INSERT INTO stream_index VALUES (?, ?, ?)")
    this.position = Number(this.db.prepare("SELECT max(position) AS n FROM events").get()?.["n"] ?? 0)
    this.versions = Array.from({ length: streams }, () => 0)
    const heads = this.db.prepare("SELECT stream, max(version) AS version FROM events GROUP BY stream").all()
    for (const { stream, version } of heads) this.versions[Number(stream) - 1] = Number(version)
  }

  private slice(): void {
    for (const [stream, version, position] of this.moving.splice(0, 1024)) this.index?.run(stream, version, position)
    if (this.moving.length === 0 && this.tail.length >= 16_384) {
      this.moving = this.tail.toSorted((a, b) => a[0] - b[0] || a[1] - b[1])
      this.tail = []
    }
  }

  /** One transaction. */
  append(count: number): void {
    this.db.exec("BEGIN IMMEDIATE")
    for (let i = 0; i < count; i++) {
      const now = Date.now()
      const position = ++this.position
      const stream = position % streams
      const version = (this.versions[stream] ?? 0) + 1
      this.versions[stream] = version
      this.insert.run(
        position, stream + 1, version, 1, this.ids(now), 1 + position % names.length, JSON.stringify(dataOf(position)), null,
        Envelope.timeText(now), now, now
      )
      if (!this.unique) this.tail.push([stream + 1, version, position])
    }
    if (!this.unique) this.slice()
    this.db.exec("COMMIT")
  }

  subject(name: string, callers: number): Subject {
    return {
      name,
      run: (millis) => {
        const start = performance.now()
        let count = 0
        while (performance.now() - start < millis) {
          this.append(callers)
          count += callers
        }
        return { count, millis: performance.now() - start }
      }
    }
  }
}

/** KSI's store, with callers that wait for their appends one at a time. */
const ksi = (store: EventStore["Service"], callers: number): Effect.Effect<Subject> =>
  Effect.gen(function*() {
    const known = yield* store.streams({ limit: streams, prefix: "stream-" })
    const versions = new Map(known.map(({ streamId, version }) => [streamId, version]))
    const ids = Array.from({ length: streams }, (_, i) => `stream-${i}`)
    const caller = (first: number, end: number) =>
      Effect.gen(function*() {
        let count = 0
        for (let n = first; performance.now() < end; n += callers) {
          const streamId = ids[n % streams] ?? ""
          const expectedVersion = versions.get(streamId) ?? 0
          versions.set(streamId, expectedVersion + 1)
          const name = names[n % names.length] ?? ""
          yield* store.appendTo(streamId, [{ name, data: dataOf(n) }], { expectedVersion })
          count++
        }
        return count
      })
    return {
      name: "ksi",
      run: async (millis) => {
        const start = performance.now()
        const all = Effect.forEach(Array.from({ length: callers }, (_, i) => i), (i) => caller(i, start + millis), {
          concurrency: "unbounded"
        })
        const counts = await Effect.runPromise(all)
        return { count: counts.reduce((a, b) => a + b), millis: performance.now() - start }
      }
    }
  })

/** A file of so many events, made once. */
const fixture = async (bench: Bench, kind: "ksi" | "bare" | "bare-unique", count: number): Promise<string> => {
  const cached = Path.join(bench.cache, `append-${kind}-${count}.db`)
  if (!Fs.existsSync(cached)) {
    bench.say(`making      ${kind} of ${count} events`)
    const file = Path.join(bench.folder, `making-${kind}.db`)
    if (kind === "ksi") {
      await Effect.runPromise(Effect.provide(
        Effect.gen(function*() {
          const store = yield* EventStore
          const subject = yield* ksi(store, 500)
          while (store.head() < count) yield* Effect.promise(() => Promise.resolve(subject.run(100)))
        }),
        SqliteEventStore.layer({ filename: file, sync: "normal" })
      ))
    } else {
      const bare = new Bare(file, kind === "bare-unique")
      bare.db.exec("PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000")
      for (let n = 0; n < count; n += 10_000) bare.append(10_000)
      bare.db.close()
    }
    Fs.renameSync(file, cached)
  }
  const copy = Path.join(bench.folder, `${kind}-${count}.db`)
  Fs.copyFileSync(cached, copy, Fs.constants.COPYFILE_FICLONE)
  return copy
}

/** One case on a store that has so many events already. */
export const compare = async (bench: Bench, id: string, callers: number, events: number): Promise<void> => {
  const fileOf = async (kind: "ksi" | "bare" | "bare-unique") =>
    events === 0 ? Path.join(bench.folder, `${id}-${kind}.db`) : await fixture(bench, kind, events)
  const bare = new Bare(await fileOf("bare"), false)
  const unique = new Bare(await fileOf("bare-unique"), true)
  const scope = Scope.makeUnsafe()
  const layer = SqliteEventStore.layer({ filename: await fileOf("ksi") })
  const context = await Effect.runPromise(Layer.buildWithScope(layer, scope))
  const own = await Effect.runPromise(ksi(Context.get(context, EventStore), callers))
  await bench.compare({
    case: id,
    metric: "durable appends",
    unit: "appends/s",
    subjects: [own, bare.subject("bare", callers), unique.subject("bare-unique", callers)]
  })
  await Effect.runPromise(Scope.close(scope, Exit.void))
  bare.db.close()
  unique.db.close()
}

/** All cases. */
export const run = async (bench: Bench): Promise<void> => {
  await compare(bench, "full-64-fresh", 64, 0)
  await compare(bench, "full-64-1m", 64, 1_000_000)
  await compare(bench, "full-1", 1, 0)
}
