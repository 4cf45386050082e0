/** What the examples of module comments take for granted: the stock domain, served by a runtime in memory. */
import { Context, Effect, Layer, Schema, Stream } from "effect"
import { Plugins } from "../../src/bus/Plugin.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as DeadLetter from "../../src/plugins/DeadLetter.ts"
import * as Maintenance from "../../src/plugins/Maintenance.ts"
import * as Module from "../../src/plugins/Module.ts"
import * as Monitor from "../../src/plugins/Monitor.ts"
import * as Permission from "../../src/plugins/Permission.ts"
import * as Store from "../../src/plugins/Store.ts"
import * as Streams from "../../src/plugins/Streams.ts"
import * as System from "../../src/plugins/System.ts"
import * as Time from "../../src/plugins/Time.ts"
import * as Trace from "../../src/plugins/Trace.ts"

export { Ksi }

export class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { sku: Schema.String, left: Schema.Int }) {}

export const Reserve = Event.make("stock:reserve", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  success: Schema.Struct({ holdId: Schema.String }),
  error: OutOfStock
})
export const Reserved = Event.fact("stock:reserved", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  streamId: ({ sku }) => `stock-${sku}`
})
export const Watch = Event.make("stock:watch", { payload: { sku: Schema.String }, success: Schema.Int, stream: true })
/** Handled by nobody: examples bring their own handler. */
export const Ping = Event.make("net:ping", { success: Schema.String })
export const Stock = EventGroup.make(Reserve, Reserved, Watch)

/** Three of everything. */
export class Warehouse extends Context.Service<Warehouse, {
  left(sku: string): Effect.Effect<number>
  changes(sku: string): Stream.Stream<number>
}>()("doctest/Warehouse") {
  static readonly layer = Layer.succeed(Warehouse, {
    left: () => Effect.succeed(3),
    changes: () => Stream.make(3, 2, 1)
  })
}

export const StockHandlers = Stock.toLayer(Effect.gen(function*() {
  const ksi = yield* Ksi
  const warehouse = yield* Warehouse
  return {
    *"stock:reserve"({ quantity, sku }) {
      const left = yield* warehouse.left(sku)
      if (left < quantity) return yield* new OutOfStock({ sku, left })
      const { id } = yield* ksi.emit(Reserved, { sku, quantity })
      return { holdId: id }
    },
    "stock:watch": ({ sku }) => warehouse.changes(sku)
  }
})).pipe(Layer.provide(Warehouse.layer))

/** A program to run: the id of a hold on one tea. */
export const program = Effect.gen(function*() {
  const ksi = yield* Ksi
  return yield* ksi.call(Reserve, { sku: "tea", quantity: 1 })
})

/** Where examples run: fresh for each, with the built-in events. */
export const layer = Layer.mergeAll(
  Ksi.serve(Stock),
  System.layer.pipe(Layer.provide(System.Shutdown.layer)),
  Store.layer,
  Maintenance.layer,
  Streams.layer,
  Time.layer,
  Trace.layer,
  Monitor.layer,
  DeadLetter.layer,
  Permission.layer,
  Module.layer.pipe(Layer.provideMerge(Plugins.layer))
).pipe(
  Layer.provide(StockHandlers),
  Layer.provideMerge(Ksi.layerMemory)
)
