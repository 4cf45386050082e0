// Time travel: the history of an order. What it was, what changed, when something came true, which fact a value is from, and
// what would have been without one fact, or with other code.
//   npx node --conditions=ksi-source scratchpad/examples/14_time_travel.ts
import { Console, Effect, Layer, Option, Schema } from "effect"
import { Event, EventGroup, Ksi, Projection, TimeTravel } from "ksi"

const order = { streamId: () => "order-1" }
const Added = Event.fact("order:added", { payload: { sku: Schema.String, cents: Schema.Int }, ...order })
const Removed = Event.fact("order:removed", { payload: { sku: Schema.String }, ...order })
const Reduced = Event.fact("order:reduced", { payload: { percent: Schema.Int }, ...order })
const Orders = EventGroup.make(Added, Removed, Reduced)

interface Line {
  readonly sku: string
  readonly cents: number
}
const sum = (lines: ReadonlyArray<Line>) => lines.reduce((cents, line) => cents + line.cents, 0)

const reducedTo = (percentOf: (total: number, percent: number) => number) => Projection.make("order", {
  events: [Added, Removed, Reduced],
  state: Schema.Struct({ lines: Schema.Array(Schema.Struct({ sku: Schema.String, cents: Schema.Int })), total: Schema.Int }),
  initial: { lines: [], total: 0 },
  on: {
    [Added.name]: ({ lines, total }, { cents, sku }) => ({ lines: [...lines, { sku, cents }], total: total + cents }),
    [Removed.name]: (state, { sku }) => {
      if (!state.lines.some((line) => line.sku === sku)) throw new Error(`there is no ${sku} in the order`)
      const lines = state.lines.filter((line) => line.sku !== sku)
      return { lines, total: sum(lines) }
    },
    [Reduced.name]: (state, { percent }) => ({ ...state, total: percentOf(state.total, percent) })
  }
})
const Order = reducedTo((total, percent) => total - total * percent / 100)
const Mended = reducedTo((total, percent) => total - Math.min(500, total * percent / 100))

const program = Effect.gen(function*() {
  const ksi = yield* Ksi
  yield* ksi.emit(Added, { sku: "tea", cents: 900 })
  const { position } = yield* ksi.emit(Added, { sku: "pot", cents: 4000 })
  yield* ksi.emit(Removed, { sku: "tea" })
  yield* ksi.emit(Added, { sku: "rum", cents: 2000 })
  yield* ksi.emit(Reduced, { percent: 50 })
  const streamId = "order-1"

  const then = yield* TimeTravel.at(Order, { streamId, position })
  yield* Console.log(`at ${position}: ${then.state.lines.map(({ sku }) => sku).join(", ")}, ${then.state.total}`)

  const { changes, patch } = yield* TimeTravel.diff(Order, { position }, {}, { streamId })
  yield* Console.log(`since then: ${TimeTravel.words(changes).join("; ")}`)
  yield* Console.log(`as a patch: ${JSON.stringify(patch.at(-1))}`)

  const high = yield* TimeTravel.find(Order, ({ total }) => total > 5000, { streamId })
  yield* Console.log(Option.match(high, { onNone: () => "never", onSome: ({ after, fact }) => `above 5000 after ${fact.name} at ${fact.position}: ${after.total}` }))

  for (const { fact, field, value } of yield* TimeTravel.blame(Order, { streamId, field: "total" })) {
    yield* Console.log(`${field} is ${JSON.stringify(value)} since ${fact?.name} at ${fact?.position}`)
  }

  // What if neither tea nor rum had been added? The other facts stay, and one of them no longer fits.
  const without = yield* TimeTravel.branch(Order, { streamId, edits: [TimeTravel.drop(1n), TimeTravel.drop(4n)] })
  for (const { branch, misfits, real } of without.lines) {
    yield* Console.log(`without tea and rum: ${branch.total} instead of ${real.total}; ${misfits.map(({ fact, problem }) => `${fact.name}: ${problem}`).join()}`)
  }

  // And if the code had been right? The store is as it was all along.
  const parting = yield* TimeTravel.compare(Order, Mended, { streamId })
  yield* Console.log(Option.match(parting, { onNone: () => "the same", onSome: ({ a, b, fact }) => `they part at ${fact.name}: ${a.total} or ${b.total}` }))
})

const Main = Ksi.serve(Orders).pipe(Layer.provide(Orders.toLayer({})), Layer.provideMerge(Ksi.layerMemory))
await Effect.runPromise(program.pipe(Effect.provide(Main)))
// prints:
// at 2: tea, pot, 4900
// since then: lines[0] removed (was {"sku":"tea","cents":900}); lines[1] {"sku":"rum","cents":2000} (new); total 4900 → 3000
// as a patch: {"op":"replace","path":"/total","value":3000}
// above 5000 after order:added at 4: 6000
// total is 3000 since order:reduced at 5
// without tea and rum: 2000 instead of 3000; order:removed: there is no tea in the order
// they part at order:reduced: 3000 or 5500
