/**
 * Questions beyond the state at a moment, over a million events of 1,000 streams: the first fact after which a monotone condition
 * holds, what would have been without a fact, what changed between two positions, and which fact a value is from.
 *
 * `scan` is the same question answered by reading fact by fact from the first one. Random positions, conditions and facts; medians,
 * and p50 and p99 of single questions. Between two questions the event loop turns, as it does between two requests.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Event from "../../src/event/Event.ts"
import * as Blame from "../../src/store/Blame.ts"
import * as Branch from "../../src/store/Branch.ts"
import * as Difference from "../../src/store/Difference.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as Search from "../../src/store/Search.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import * as TimeTravel from "../../src/store/TimeTravel.ts"
import type { Bench, Gauge } from "./Bench.ts"
import { dataOf } from "./Orders.ts"

const streams = 1000
const pageItems = 1000

const Placed = Event.fact("order:placed", { payload: { total: Schema.Number }, streamId: () => "order" })

const totals = Projection.make("totals", {
  events: [Placed],
  state: Schema.Struct({ orders: Schema.Int, total: Schema.Number }),
  initial: { orders: 0, total: 0 },
  on: { [Placed.name]: ({ orders, total }, placed) => ({ orders: orders + 1, total: total + placed.total }) }
})

const fill = (store: EventStore["Service"], events: number) =>
  Effect.gen(function*() {
    for (let at = 0; at < events; at += pageItems) {
      const facts = Array.from({ length: pageItems }, (_, i) => ({
        id: `id-${String(at + i).padStart(9, "0")}`,
        source: "/ksi",
        name: Placed.name,
        streamId: `order-${(at + i) * 7919 % streams}`,
        data: dataOf(at + i),
        time: new Date(1_767_225_600_000 + (at + i) * 10).toISOString(),
        attributes: {}
      }))
      yield* store.append({ facts })
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

const cases = async (bench: Bench, store: EventStore["Service"], events: number): Promise<void> => {
  const random = makeRandom(events)
  const perStream = events / streams
  const stream = () => `order-${random(streams)}`
  const singles: Array<number> = []
  const measure = async (options: Parameters<Bench["measure"]>[0]): Promise<void> => {
    singles.length = 0
    await bench.measure(options)
    bench.say(`${"".padEnd(32)}${options.case}: p50 ${percentile(singles, 0.5).toFixed(2)} p99 ${percentile(singles, 0.99).toFixed(2)} ms`)
  }
  const gauge = (name: string, runs: number, question: () => Effect.Effect<unknown, unknown, EventStore>): Gauge => ({
    name,
    run: async () => {
      const took: Array<number> = []
      for (let i = 0; i < runs; i++) {
        const start = performance.now()
        await Effect.runPromise(Effect.provideService(question(), EventStore, store))
        took.push(performance.now() - start)
        await new Promise<void>((resolve) => void setImmediate(resolve))
      }
      if (name === "ksi") singles.push(...took)
      return percentile(took, 0.5)
    }
  })
  const found = <S>(search: Effect.Effect<Option.Option<S>, unknown, EventStore>) =>
    Effect.map(search, (fact) => {
      if (Option.isNone(fact)) throw new Error("nothing was found")
    })
  const least = () => 1 + random(perStream - 1)
  const find = (monotone: boolean, streamId: string | undefined) => {
    const orders = least()
    return found(monotone
      ? Search.find(totals, (state) => state.orders >= orders, { streamId, monotone })
      : Search.find(totals, (state) => state.orders >= orders, { streamId }))
  }
  // What was folded once leaves what makes the next time faster, where the store keeps such things.
  await gauge("warm", 1, () => TimeTravel.at(totals)).run()
  for (let i = 0; i < streams; i++) await gauge("warm", 1, () => TimeTravel.at(totals, { streamId: `order-${i}` })).run()
  const runs = bench.quick ? 30 : 100
  const unit = "ms"
  await measure({ case: "find", metric: "p50, one stream, monotone", unit, subjects: [gauge("ksi", runs, () => find(true, stream())), gauge("scan", 10, () => find(false, stream()))] })
  await measure({ case: "find-all", metric: "p50, all streams, monotone", unit, subjects: [gauge("ksi", Math.ceil(runs / 3), () => find(true, undefined)), gauge("scan", 1, () => find(false, undefined))] })
  // Of the last tenth, so that what stays of the history is folded behind it; and of any place in it.
  const drop = (from: number) => Branch.branch(totals, { edits: [Branch.drop(BigInt(1 + from + random(events - from)))] })
  await measure({ case: "branch", metric: "p50, one fact of the last tenth dropped", unit, subjects: [gauge("ksi", runs, () => drop(events * 0.9))] })
  await measure({ case: "branch-any", metric: "p50, any fact dropped", unit, subjects: [gauge("ksi", runs, () => drop(0))] })
  const position = () => BigInt(events / 10 + random(events * 0.9))
  await measure({ case: "diff", metric: "p50, one stream, two positions", unit, subjects: [
    gauge("ksi", runs, () => Difference.diff(totals, { position: position() }, { position: position() }, { streamId: stream() }))
  ] })
  await measure({ case: "blame", metric: `p50, a stream of ${perStream} events`, unit, subjects: [gauge("ksi", runs, () => Blame.blame(totals, { streamId: stream() }))] })
}

const opened = (filename: string, body: (store: EventStore["Service"]) => Effect.Effect<unknown, unknown>): Promise<unknown> =>
  Effect.runPromise(Effect.provide(Effect.flatMap(EventStore, body), SqliteEventStore.layer({ filename, sync: "normal" })))

/** All cases. */
export const run = async (bench: Bench): Promise<void> => {
  const events = bench.quick ? 200_000 : 1_000_000
  const filename = await bench.fixture(`timetravel-ops-format3-${events}.db`, (made) => opened(made, (store) => fill(store, events)))
  await opened(filename, (store) => Effect.promise(() => cases(bench, store, events)))
}
