// Read models and consumers: what every customer has spent, kept behind the store; what is left of every article, kept in the very
// transaction of the order; and somebody who ships what was ordered, tries again, and sets aside what keeps failing.
//   npx node --conditions=ksi-source scratchpad/examples/15_read_models.ts
import { Console, Effect, Layer, Logger, Option, Schedule, Schema } from "effect"
import { Consumer, Event, EventGroup, Ksi, Projection, ReadModel } from "ksi"

const Ordered = Event.fact("shop:ordered", {
  payload: { sku: Schema.String, customer: Schema.String, quantity: Schema.Int, cents: Schema.Int },
  streamId: ({ sku }) => sku
})
const Shop = EventGroup.make(Ordered)

// One state for each customer, from the facts of all streams.
const Spent = Projection.make("spent", {
  events: [Ordered], state: Schema.Int, initial: 0,
  key: ({ customer }) => customer,
  on: { [Ordered.name]: (spent, { cents }) => spent + cents }
})

// One for each stream, which is an article: three of each are there. Inline, its reducer has the last word on an order.
const Stock = Projection.make("stock", {
  events: [Ordered], state: Schema.Int, initial: 3,
  on: {
    [Ordered.name]: (left, { quantity }) => {
      if (quantity > left) throw new Error(`only ${left} left`)
      return left - quantity
    }
  }
})

let isPostThere = false
const Shipping = Consumer.layer("shipping", {
  events: [Ordered],
  start: "start",
  maxAttempts: 2,
  retry: Schedule.spaced("1 millis"),
  handler: ({ customer, sku }) =>
    Effect.suspend(() => sku === "rum" && !isPostThere ? Effect.fail(new Error("the post takes no rum")) : Console.log(`shipped ${sku} to ${customer}`))
})

const program = Effect.gen(function*() {
  const ksi = yield* Ksi
  const order = (sku: string, customer: string, quantity: number) => ksi.emit(Ordered, { sku, customer, quantity, cents: 400 * quantity })
  const stockOf = (sku: string) => Effect.map(ReadModel.get(Stock, sku), Option.map(({ state }) => state))

  yield* order("tea", "ann", 2)
  yield* Console.log(`tea left: ${Option.getOrElse(yield* stockOf("tea"), () => 3)}`)
  yield* Consumer.settled("shipping")

  // The second order does not fit: it is not stored, and nobody hears of it.
  const refused = yield* Effect.flip(order("tea", "bob", 2))
  yield* Console.log(refused.message)

  const { position } = yield* order("rum", "bob", 1)
  yield* Consumer.settled("shipping")
  yield* ReadModel.waitFor(Spent, position)
  for (const { key, state } of yield* ReadModel.list(Spent)) yield* Console.log(`${key} has spent ${state}`)

  const consumers = yield* Consumer.Consumers
  for (const { attempts, error, streamId } of yield* consumers.parked("shipping", { limit: 10 })) {
    yield* Console.log(`parked: ${streamId}, after ${attempts} attempts: ${error}`)
  }
  isPostThere = true
  const { handled, left } = yield* consumers.retry("shipping")
  yield* Console.log(`handled ${handled}, ${left} left`)
})

const Main = Layer.mergeAll(
  Ksi.serve(Shop).pipe(Layer.provide(Shop.toLayer({}))), ReadModel.layer(Spent), ReadModel.layer(Stock, { mode: "inline" }), Shipping
).pipe(Layer.provideMerge(Ksi.layerMemory), Layer.provide(Logger.layer([])))
await Effect.runPromise(program.pipe(Effect.provide(Main)))
// prints:
// tea left: 1
// shipped tea to ann
// the store failed to keep the inline read model "stock": shop:ordered in "tea": only 1 left
// ann has spent 800
// bob has spent 400
// parked: rum, after 2 attempts: the post takes no rum
// shipped rum to bob
// handled 1, 0 left
