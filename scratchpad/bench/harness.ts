/**
 * The test harness: scenarios a second through the real bus and store, each with an app of its own or on one that is played on again;
 * how long an app takes to start; and seeds a second of a simulation of four fibers, and of two daemons.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as KsiTest from "../../src/testing/KsiTest.ts"
import * as Simulation from "../../src/testing/Simulation.ts"
import * as World from "../../src/testing/World.ts"
import type { Bench } from "./Bench.ts"

const Reserve = Event.make("stock:reserve", { payload: { sku: Schema.String, quantity: Schema.Int }, success: Schema.Int })
const Reserved = Event.fact("stock:reserved", { payload: { sku: Schema.String, quantity: Schema.Int }, streamId: ({ sku }) => `stock-${sku}` })
const Stock = EventGroup.make(Reserve, Reserved)
const stock = Ksi.serve(Stock).pipe(Layer.provide(Stock.toLayer({
  *"stock:reserve"({ quantity, sku }) {
    yield* (yield* Ksi).emit(Reserved, { sku, quantity })
    return 3 - quantity
  }
})))
const app = KsiTest.layer(stock)
const tea = (quantity: number) => ({ sku: "tea", quantity })

const scenario = KsiTest.scenario.given(Reserved.of(tea(1))).when(Reserve, tea(2)).thenReplies(1).thenEmits(Reserved.of(tea(2)))

const repeated = (one: Effect.Effect<unknown, unknown>) => async (millis: number) => {
  const start = performance.now()
  let count = 0
  while (performance.now() - start < millis) {
    await Effect.runPromise(Effect.replicateEffect(one, 50, { discard: true }))
    count += 50
  }
  return { count, millis: performance.now() - start }
}

/** As `repeated`, in one layer: the app is started once, and played on again. */
const reused = (millis: number) => {
  const start = performance.now()
  const counting = Effect.gen(function*() {
    for (let count = 0;; count += 50) {
      if (performance.now() - start >= millis) return { count, millis: performance.now() - start }
      yield* Effect.replicateEffect(scenario, 50, { discard: true })
    }
  })
  return Effect.runPromise(Effect.provide(counting, KsiTest.layer(stock, { reuse: true })))
}

// Two daemons, three calls over the network, and rest in the end.
const daemons = (disk: Simulation.DiskOptions | undefined) => repeated(Effect.suspend(() => Simulation.run({
  seed: seed++, nodes: { one: stock, other: stock }, disk, network: { loss: 0.05, duplication: 0.05 },
  program: ({ calm, nodes }) => Effect.andThen(
    Effect.forEach([nodes.one, nodes.other, nodes.one], (node) => Effect.exit(node.call(Reserve, tea(1))), { concurrency: 3 }), calm)
})))

let seed = 0
const simulate = (millis: number) => {
  const start = performance.now()
  let count = 0
  while (performance.now() - start < millis) {
    let n = 0
    const one = Effect.andThen(Effect.sleep(1), Effect.flatMap(Effect.sync(() => n), (read) => Effect.sync(() => (n = read + 1))))
    if (World.make({ seed: seed++ }).run(Effect.all([one, one, one, one], { concurrency: "unbounded", discard: true })) === undefined) {
      throw new Error("it has not ended")
    }
    count++
  }
  return { count, millis: performance.now() - start }
}

export const run = async (bench: Bench): Promise<void> => {
  // By itself: what apps leave behind that are started anew, thousands of them, is no cost of one that is not.
  await bench.compare({ case: "scenario-reuse", metric: "scenarios", unit: "/s", subjects: [{ name: "ksi", run: reused }] })
  await bench.compare({
    case: "scenario", metric: "scenarios", unit: "/s",
    subjects: [
      { name: "ksi", run: repeated(Effect.provide(scenario, app)) },
      { name: "nothing outside", run: repeated(Effect.provide(scenario, KsiTest.layer(stock, { outsideMillis: 0 }))) },
      { name: "start", run: repeated(Effect.provide(KsiTest.scenario, app)) }
    ]
  })
  await bench.compare({ case: "simulation", metric: "seeds", unit: "/s", subjects: [{ name: "ksi", run: simulate }] })
  await bench.compare({
    case: "daemons", metric: "seeds", unit: "/s",
    subjects: [{ name: "memory", run: daemons(undefined) }, { name: "disk", run: daemons({ crash: 0.005, full: 0.005 }) }]
  })
}
