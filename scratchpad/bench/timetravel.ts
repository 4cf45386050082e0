/**
 * The state of one stream, of all 1,000 and of one of 10,000 events, as of any position of a store of a million events, from
 * snapshots.
 *
 * `bare` is what a snapshot cannot go below: node:sqlite alone reads a state that was kept as one text, parses it, reads the events
 * after it and adds them up; no names, no ids, no checks. `replay` is the same without a snapshot, from the first event.
 * Besides medians the run prints p50 and p99 of single questions, for two lengths of the log; and what the first question costs,
 * which folds the log and writes the snapshots. Between two questions the event loop turns, as it does between two requests.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Fs from "node:fs"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { DatabaseSync } from "node:sqlite"
import * as Event from "../../src/event/Event.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import * as TimeTravel from "../../src/store/TimeTravel.ts"
import type { Bench, Gauge } from "./Bench.ts"
import { dataOf } from "./Orders.ts"

const streams = 1000
const pageItems = 1000
const longStream = "long"
const longEvents = 10_000
/** Where the bare reader has its snapshot: so many events before the one asked for, as many as KSI reads on average. */
const bareBehind = 290

const Placed = Event.fact("order:placed", { payload: { total: Schema.Number }, streamId: () => "order" })

/** What a state usually is: far smaller than its facts. */
const totals = Projection.make("totals", {
  events: [Placed],
  state: Schema.Struct({ orders: Schema.Int, total: Schema.Number }),
  initial: { orders: 0, total: 0 },
  on: { [Placed.name]: ({ orders, total }, placed) => ({ orders: orders + 1, total: total + placed.total }) }
})

const fill = (store: EventStore["Service"], events: number) =>
  Effect.gen(function*() {
    const fact = (at: number, streamId: string) => ({
      id: `0198c0de-${String(at % 10_000).padStart(4, "0")}-7000-8000-${String(at).padStart(12, "0")}`,
      source: "/ksi",
      name: Placed.name,
      streamId,
      data: dataOf(at),
      time: new Date(1_767_225_600_000 + at * 10).toISOString(),
      attributes: {}
    })
    for (let at = 0; at < longEvents; at += pageItems) {
      yield* store.append({ facts: Array.from({ length: pageItems }, (_, i) => fact(at + i, longStream)) })
    }
    for (let at = longEvents; at < events; at += pageItems) {
      yield* store.append({ facts: Array.from({ length: pageItems }, (_, i) => fact(at + i, `order-${(at + i) * 7919 % streams}`)) })
    }
  })

/** Numbers that look random and are the same in every run. */
const makeRandom = (seed: number) => {
  let state = seed
  return (below: number): number => {
    state = (state * 1_664_525 + 1_013_904_223) % 4_294_967_296
    return Math.floor(state / 4_294_967_296 * below)
  }
}

const percentile = (values: ReadonlyArray<number>, part: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))] ?? Number.NaN

const ask = <S>(store: EventStore["Service"], { streamId, ...when }: TimeTravel.When & { readonly streamId?: string }, projection: Projection.Projection<S>) =>
  Effect.provideService(
    Effect.asVoid<unknown, unknown, EventStore>(streamId === undefined ? TimeTravel.at(projection, when) : TimeTravel.at(projection, { ...when, streamId })),
    EventStore,
    store
  )

interface Row {
  readonly stream: number
  readonly data: string
}

interface Totals {
  readonly orders: number
  readonly total: number
}

const added = (state: Totals | undefined, data: string): Totals => ({
  orders: (state?.orders ?? 0) + 1,
  total: (state?.total ?? 0) + Number(JSON.parse(data).total)
})

/** What is left of the work where a state lies ready as one text. */
const bareAll = (db: DatabaseSync, events: number) => {
  const read = db.prepare("SELECT stream, data FROM events WHERE position > ? AND position <= ?")
  const states = new Map<number, Totals>()
  // The statement selects both.
  const rows = (from: number, to: number) => read.all(from, to) as unknown as ReadonlyArray<Row>
  for (const { data, stream } of rows(events - 20_000, events)) states.set(stream, added(states.get(stream), data))
  db.exec("CREATE TEMP TABLE ready (one INTEGER PRIMARY KEY, body TEXT)")
  db.prepare("INSERT INTO ready VALUES (1, ?)").run(JSON.stringify([...states]))
  const ready = db.prepare("SELECT body FROM ready")
  return (position: number): number => {
    const at = new Map<number, Totals>(JSON.parse(String(ready.get()?.["body"])))
    for (const { data, stream } of rows(position - bareBehind, position)) at.set(stream, added(at.get(stream), data))
    return at.size
  }
}

/** From the first event, one after the other. */
const replay = (db: DatabaseSync) => {
  const read = db.prepare("SELECT stream, data FROM events WHERE position > ? AND position <= ?")
  return (position: number): number => {
    const states = new Map<number, Totals>()
    for (let from = 0; from < position; from += pageItems) {
      for (const { data, stream } of read.all(from, Math.min(position, from + pageItems)) as unknown as ReadonlyArray<Row>) {
        states.set(stream, added(states.get(stream), data))
      }
    }
    return states.size
  }
}

const measured = (name: string, runs: number, once: () => Promise<unknown> | unknown): Gauge & { readonly singles: Array<number> } => {
  const singles: Array<number> = []
  return {
    name,
    singles,
    run: async () => {
      const own: Array<number> = []
      for (let i = 0; i < runs; i++) {
        const start = performance.now()
        await once()
        own.push(performance.now() - start)
        await new Promise<void>((resolve) => void setImmediate(resolve))
      }
      singles.push(...own)
      return percentile(own, 0.5)
    }
  }
}

const told = (bench: Bench, id: string, events: number, singles: ReadonlyArray<number>) =>
  bench.say(`${"".padEnd(32)}${id} of ${events} events: p50 ${percentile(singles, 0.5).toFixed(2)} p99 ${percentile(singles, 0.99).toFixed(2)} ms`)

/** The first question: how long, how much of it this process worked, and how long it held the event loop at most. */
const cold = async (bench: Bench, events: number, first: () => Promise<unknown>): Promise<void> => {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const cpu = process.cpuUsage()
  const start = performance.now()
  await first()
  const seconds = (performance.now() - start) / 1000
  const { system, user } = process.cpuUsage(cpu)
  delay.disable()
  bench.say(`first question of ${events} events, which writes the snapshots: ${seconds.toFixed(1)} s, ${(events / seconds / 1000).toFixed(0)} k facts/s; ` +
    `${((system + user) / events).toFixed(1)} us of work a fact; event loop p99 ${(delay.percentile(99) / 1e6).toFixed(0)} max ${(delay.max / 1e6).toFixed(0)} ms`)
}

const questions = async (bench: Bench, store: EventStore["Service"], filename: string, events: number, isWhole: boolean): Promise<void> => {
  const random = makeRandom(events)
  const run = (when: Parameters<typeof ask>[1]) => Effect.runPromise(ask(store, when, totals))
  const position = () => longEvents + streams + random(events - longEvents - streams)
  await cold(bench, events, () => run({}))
  for (let i = 0; i < streams; i++) await run({ streamId: `order-${i}` })
  await run({ streamId: longStream })
  const db = new DatabaseSync(filename, { readOnly: true })
  const kept = Number(Object.values(db.prepare("SELECT total(octet_length(body)) FROM snapshots").get() ?? {})[0])
  bench.say(`snapshots of all streams and of each: ${(kept / events).toFixed(0)} bytes per event`)
  const runs = bench.quick ? 100 : 300
  const bare = bareAll(db, events)
  const all = measured("ksi", runs, () => run({ position: BigInt(position()) }))
  const stream = measured("ksi", runs, () => run({ position: BigInt(position()), streamId: `order-${random(streams)}` }))
  const long = measured("ksi", runs, () => run({ streamId: longStream }))
  if (isWhole) {
    const full = replay(db)
    const unit = "ms"
    const bareOnes = measured("bare", runs, () => bare(position()))
    const one = db.prepare(`SELECT e.data FROM stream_index i JOIN events e ON e.position = i.position WHERE i.stream = ? AND i.version BETWEEN ? AND ?`)
    const fold = (stream: number, from: number, to: number) => {
      let state: Totals | undefined
      for (const { data } of one.all(stream, from, to) as unknown as ReadonlyArray<Row>) state = added(state, data)
      return state
    }
    const some = () => 2 + random(streams)
    const known = Math.floor((events - longEvents) / streams) - 40
    const foldOne = measured("bare", runs, () => fold(some(), known - 32, known))
    await bench.measure({ case: "at-all", metric: "p50 of all streams at a random position", unit, subjects: [all, bareOnes, measured("replay", 1, () => full(position()))] })
    await bench.measure({ case: "at-stream", metric: "p50 of one stream at a random position", unit, subjects: [
      stream, foldOne, measured("replay", runs, () => fold(some(), 1, random(known)))
    ] })
    // As in read.ts: the newest are still in memory.
    await bench.measure({ case: "stream-snapshot", metric: "p50 of the state of a stream of 10,000 events", unit, subjects: [
      long, measured("bare", runs, () => fold(1, longEvents - 32, longEvents)), measured("replay", 3, () => fold(1, 1, longEvents))
    ] })
    await Effect.runPromise(ask(store, {}, Projection.latest))
    const latest = measured("ksi", runs, () => Effect.runPromise(ask(store, { position: BigInt(position()) }, Projection.latest)))
    await latest.run()
    told(bench, "at-all, bare", events, bareOnes.singles)
    told(bench, "at-stream, bare", events, foldOne.singles)
    told(bench, "at-all by latest (states as large as facts)", events, latest.singles)
  } else for (const gauge of [all, stream, long]) for (let i = 0; i < 3; i++) await gauge.run()
  told(bench, "at-all", events, all.singles)
  told(bench, "at-stream", events, stream.singles)
  told(bench, "stream-snapshot", events, long.singles)
  db.close()
}

const opened = (filename: string, body: (store: EventStore["Service"]) => Effect.Effect<unknown, unknown>): Promise<unknown> =>
  Effect.runPromise(Effect.provide(Effect.flatMap(EventStore, body), SqliteEventStore.layer({ filename, sync: "normal" })))

/** All cases. */
export const run = async (bench: Bench): Promise<void> => {
  for (const [events, isWhole] of bench.quick ? [[50_000, false], [200_000, true]] as const : [[100_000, false], [1_000_000, true]] as const) {
    const filename = await bench.fixture(`timetravel-format3-${events}.db`, (made) => opened(made, (store) => fill(store, events)))
    await opened(filename, (store) => Effect.promise(() => questions(bench, store, filename, events, isWhole)))
    Fs.rmSync(filename, { force: true })
  }
}
