// Remember facts in a SQLite file, fold them into state, and ask what was known at any moment.
//   npx node --conditions=ksi-source scratchpad/examples/04_store_and_time_travel.ts
import { Console, Effect, Layer, Schema, Stream } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Event, EventGroup, EventStore, Ksi, Projection, TimeTravel } from "ksi"

const Received = Event.fact("stock:received", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  streamId: ({ sku }) => `stock-${sku}`
})
const Reserved = Event.fact("stock:reserved", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  streamId: ({ sku }) => `stock-${sku}`
})
const Stock = EventGroup.make(Received, Reserved)

const Level = Projection.make("stock-level", {
  events: [Received, Reserved],
  state: Schema.Struct({ left: Schema.Int, held: Schema.Int }),
  initial: { left: 0, held: 0 },
  on: {
    [Received.name]: (state, { quantity }) => ({ ...state, left: state.left + quantity }),
    [Reserved.name]: (state, { quantity }) => ({ left: state.left - quantity, held: state.held + quantity })
  }
})

const program = Effect.gen(function*() {
  const ksi = yield* Ksi
  yield* ksi.emit(Received, { sku: "tea", quantity: 10 })
  const { position } = yield* ksi.emit(Reserved, { sku: "tea", quantity: 3 })
  yield* ksi.emit(Reserved, { sku: "tea", quantity: 4 })

  const now = yield* TimeTravel.at(Level, { streamId: "stock-tea" })
  yield* Console.log(`now, version ${now.version}: ${JSON.stringify(now.state)}`)
  const before = yield* TimeTravel.at(Level, { streamId: "stock-tea", position: position - 1n })
  yield* Console.log(`before the first reservation: ${JSON.stringify(before.state)}`)

  // Two programs decide on what they read; only the first append after it is accepted.
  const store = yield* EventStore.EventStore
  const fact = { name: Reserved.name, data: { sku: "tea", quantity: 1 } }
  yield* store.appendTo("stock-tea", [fact], { expectedVersion: now.version })
  const late = yield* Effect.flip(store.appendTo("stock-tea", [fact], { expectedVersion: now.version }))
  yield* Console.log(`${late.reason._tag}: ${late.message}`)

  const names = yield* store.stream("stock-tea").pipe(Stream.map((f) => `${f.version} ${f.name}`), Stream.runCollect)
  yield* Console.log(names.join(", "))
})

const directory = mkdtempSync(join(tmpdir(), "ksi-example-"))
const Main = Ksi.serve(Stock).pipe(
  Layer.provide(Stock.toLayer({})),
  Layer.provideMerge(Ksi.layerSqlite({ filename: join(directory, "shop.db") }))
)
await Effect.runPromise(program.pipe(Effect.provide(Main))).finally(() => rmSync(directory, { recursive: true }))
// prints:
// now, version 3: {"left":3,"held":7}
// before the first reservation: {"left":10,"held":0}
// VersionConflict: stream "stock-tea" is at version 4, not 3
// 1 stock:received, 2 stock:reserved, 3 stock:reserved, 4 stock:reserved
