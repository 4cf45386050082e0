/**
 * Durable appends, one fact each, with an expected version, into 1000 streams in turn, ~260 bytes of JSON.
 *
 * `bare` is node:sqlite alone doing the same: the same tables, the same identity (UNIQUE), versions in memory, the stream
 * index written behind, as many appends in each transaction as there are callers; no checks, no errors, no fibers.
 * `bare-unique` leaves uniqueness of (stream, version) to the database instead, as most stores do. All of them
 * synchronous=FULL, wal_autocheckpoint=1000. `emmett` is Emmett on SQLite as it comes, for one caller: of several at once
 * it fails nearly all, how many is told.
 *
 * `loop-p99` is how long the event loop is held while 256 callers append, also with checkpoints in a thread of their own; `journal` what it costs appends that requests
 * make when the activity journal records the requests.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { monitorEventLoopDelay } from "node:perf_hooks"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import type { Bench, Gauge, Subject } from "./Bench.ts"
import { Bare } from "./Bare.ts"
import * as Emmett from "./Emmett.ts"
import { dataOf, names, streams } from "./Orders.ts"

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

// A file of another format would be brought to this one first.
const format = 3

/** A file of so many events, made once. */
export const fixture = async (bench: Bench, kind: "ksi" | "bare" | "bare-unique", count: number): Promise<string> => {
  const cached = Path.join(bench.cache, `append-${kind}-${count}${kind === "ksi" ? `-format${format}` : ""}.db`)
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
  const emmett = callers === 1 ? await Emmett.open(bench, Path.join(bench.folder, `${id}-emmett.db`)) : undefined
  await withStore(await fileOf("ksi"), async (store) => {
    const own = await Effect.runPromise(ksi(store, callers))
    const peers = emmett === undefined ? [] : [Emmett.appending(emmett, 1)]
    await bench.compare({
      case: id,
      metric: "durable appends",
      unit: "appends/s",
      subjects: [own, bare.subject("bare", callers), unique.subject("bare-unique", callers), ...peers]
    })
  })
  bare.db.close()
  unique.db.close()
}

/** What a function does with a store, which is open for so long. */
const withStore = async (
  filename: string,
  use: (store: EventStore["Service"]) => Promise<void>,
  options: Partial<SqliteEventStore.Options> = {}
): Promise<void> => {
  const scope = Scope.makeUnsafe()
  const context = await Effect.runPromise(Layer.buildWithScope(SqliteEventStore.layer({ filename, ...options }), scope))
  await use(Context.get(context, EventStore))
  await Effect.runPromise(Scope.close(scope, Exit.void))
}

const batchFacts = 100

/** One caller, a hundred facts to one stream in each append. */
const batch = async (bench: Bench): Promise<void> => {
  const bare = new Bare(Path.join(bench.folder, "batch-bare.db"), false)
  const emmett = await Emmett.open(bench, Path.join(bench.folder, "batch-emmett.db"))
  await withStore(Path.join(bench.folder, "batch-ksi.db"), async (store) => {
    let n = 0
    const once = () => {
      n += batchFacts
      const stream = Math.floor(n / batchFacts)
      const expectedVersion = batchFacts * Math.floor((stream - 1) / streams)
      const facts = Array.from({ length: batchFacts }, (_, i) => ({ name: names[(n + i) % names.length] ?? "", data: dataOf(n + i) }))
      return store.appendTo(`stream-${stream % streams}`, facts, { expectedVersion })
    }
    const own: Subject = {
      name: "ksi",
      run: async (millis) => {
        const start = performance.now()
        let count = 0
        const all = Effect.gen(function*() {
          for (; performance.now() - start < millis; count += batchFacts) yield* once()
        })
        await Effect.runPromise(all)
        return { count, millis: performance.now() - start }
      }
    }
    const peers = emmett === undefined ? [] : [Emmett.appending(emmett, batchFacts)]
    const subjects: readonly [Subject, ...Array<Subject>] = [own, bare.subject("raw", batchFacts, batchFacts), ...peers]
    await bench.compare({ case: `batch-${batchFacts}`, metric: "facts appended a hundred at a time", unit: "facts/s", subjects })
  })
  if (emmett !== undefined) {
    bench.say(`            emmett: of 64 appends at once ${await Emmett.failingOf(emmett, 64)} fail`)
  }
  bare.db.close()
}

/** What of a subject's turns the event loop is held: the 99th percentile, in milliseconds. */
const held = ({ name, run }: Subject, millis: number): Gauge => ({
  name,
  run: async () => {
    const delay = monitorEventLoopDelay({ resolution: 1 })
    delay.enable()
    await run(millis)
    delay.disable()
    return delay.percentile(99) / 1e6
  }
})

const loop = async (bench: Bench): Promise<void> => {
  const callers = 256
  const millis = bench.quick ? 1000 : 4000
  const bare = new Bare(Path.join(bench.folder, "loop-bare.db"), false)
  const file = (name: string) => Path.join(bench.folder, `loop-${name}.db`)
  await withStore(file("ksi"), (store) => withStore(file("thread"), async (threaded) => {
    const own = await Effect.runPromise(ksi(store, callers))
    const other = await Effect.runPromise(ksi(threaded, callers))
    for (const { run } of [own, other]) await run(500)
    const subjects: readonly [Gauge, Gauge, Gauge] = [
      held(own, millis), held({ ...other, name: "ksi-thread" }, millis), held(bare.subject("bare", callers, 1, true), millis)
    ]
    await bench.measure({ case: "loop-p99", metric: "event loop held, 256 appends in flight, p99", unit: "ms", subjects })
  }, { checkpoints: "thread" }))
  bare.db.close()
}

const Place = Event.make("order:place", { payload: { n: Schema.Int, note: Schema.String }, success: Schema.Int })
const Placed = Event.fact("order:placed", {
  payload: { n: Schema.Int, note: Schema.String }, streamId: ({ n }) => `order-${n % streams}`
})
const Orders = EventGroup.make(Place, Placed)

const OrdersLive = Orders.toLayer(Effect.gen(function*() {
  const bus = yield* Ksi
  return {
    "order:place": (order) => Effect.map(bus.emit(Placed, order), ({ position }) => Number(position))
  }
}))

/** Callers of a request that appends a fact, with what the activity journal keeps. */
const placing = async (file: string, audit: "all" | "off", callers: number) => {
  const scope = Scope.makeUnsafe()
  const app = Ksi.serve(Orders).pipe(Layer.provide(OrdersLive), Layer.provideMerge(Ksi.layerSqlite({ filename: file, audit })))
  const context = await Effect.runPromise(Layer.buildWithScope(app, scope))
  const bus = Context.get(context, Ksi)
  let n = 0
  const caller = (end: number) =>
    Effect.gen(function*() {
      let count = 0
      for (; performance.now() < end; count++) yield* bus.call(Place, { n: n++, note: "leave it at the neighbour's door" })
      return count
    })
  const subject: Subject = {
    name: audit === "all" ? "ksi" : "ksi-unrecorded",
    run: async (millis) => {
      const start = performance.now()
      const all = Effect.forEach(Array.from({ length: callers }), () => caller(start + millis), { concurrency: "unbounded" })
      const counts = await Effect.runPromise(all)
      return { count: counts.reduce((a, b) => a + b), millis: performance.now() - start }
    }
  }
  return { subject, close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

const journal = async (bench: Bench): Promise<void> => {
  const on = await placing(Path.join(bench.folder, "journal-on.db"), "all", 64)
  const off = await placing(Path.join(bench.folder, "journal-off.db"), "off", 64)
  const subjects: readonly [Subject, Subject] = [on.subject, off.subject]
  await bench.compare({ case: "journal", metric: "requests that append a fact, recorded", unit: "requests/s", subjects })
  await on.close()
  await off.close()
}

/** All cases. */
export const run = async (bench: Bench): Promise<void> => {
  await compare(bench, "full-64-fresh", 64, 0)
  await compare(bench, "full-64-1m", 64, 1_000_000)
  await compare(bench, "full-1", 1, 0)
  await batch(bench)
  await loop(bench)
  await journal(bench)
}
