// Define events with schemas on all sides, handle them with a service of your own, and call by name or by value.
//   npx node --conditions=ksi-source scratchpad/examples/02_define_and_handle.ts
import { Console, Context, Effect, Layer, Schema, Stream } from "effect"
import { Event, EventGroup, Ksi } from "ksi"

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { sku: Schema.String, left: Schema.Int }) {}

const Reserve = Event.make("stock:reserve", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  success: Schema.Struct({ holdId: Schema.String, left: Schema.Int }),
  error: OutOfStock,
  annotations: { description: "Holds items for a customer.", examples: [{ sku: "tea", quantity: 1 }] }
})
const Reserved = Event.fact("stock:reserved", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  streamId: ({ sku }) => `stock-${sku}`
})
const Watch = Event.make("stock:watch", { payload: { sku: Schema.String }, success: Schema.Int, stream: true })
const Stock = EventGroup.make(Reserve, Reserved, Watch)

class Warehouse extends Context.Service<Warehouse, {
  readonly take: (sku: string, quantity: number) => Effect.Effect<number, OutOfStock>
  readonly levels: (sku: string) => Stream.Stream<number>
}>()("shop/Warehouse") {}

const WarehouseTest = Layer.sync(Warehouse, () => {
  let left = 5
  return {
    take: (sku, quantity) =>
      Effect.suspend(() => {
        if (left < quantity) return Effect.fail(new OutOfStock({ sku, left }))
        left -= quantity
        return Effect.succeed(left)
      }),
    levels: () => Stream.range(1, 3)
  }
})

// Forget a request here and it does not compile. Facts may be handled too; they need not be.
const StockHandlers = Stock.toLayer(Effect.gen(function*() {
  const ksi = yield* Ksi
  const warehouse = yield* Warehouse
  return {
    *"stock:reserve"({ quantity, sku }) {
      const left = yield* warehouse.take(sku, quantity)
      const { id } = yield* ksi.emit(Reserved, { sku, quantity })
      return { holdId: id.slice(-4), left }
    },
    "stock:reserved": ({ quantity, sku }, { metadata }) =>
      Console.log(`  fact: ${quantity} ${sku} reserved, ${metadata.depth} deep`),
    "stock:watch": ({ sku }) => warehouse.levels(sku)
  }
}))

const Main = Ksi.serve(Stock).pipe(
  Layer.provide(StockHandlers),
  Layer.provide(WarehouseTest),
  Layer.provideMerge(Ksi.layerMemory)
)

const program = Effect.gen(function*() {
  const ksi = yield* Ksi
  const { left } = yield* ksi.call(Reserve, { sku: "tea", quantity: 2 })
  yield* Console.log(`left: ${left}`)

  const answer = yield* ksi.dispatch("stock:reserve", { sku: "tea", quantity: 1 })
  yield* Console.log(`by name: ${answer.kind}`)

  const levels = yield* Stream.runCollect(ksi.stream(Watch, { sku: "tea" }))
  yield* Console.log(`levels: ${levels.join(", ")}`)

  const facts = yield* ksi.subscribe("stock:*", { from: "start" }).pipe(Stream.take(2), Stream.runCollect)
  yield* Console.log(facts.map((fact) => `${fact.position} ${fact.name}`).join("; "))
})

await Effect.runPromise(program.pipe(Effect.provide(Main)))
// prints:
//   fact: 2 tea reserved, 1 deep
// left: 3
//   fact: 1 tea reserved, 1 deep
// by name: value
// levels: 1, 2, 3
// 1 stock:reserved; 2 stock:reserved
