// A module for the daemon: its default export is a Layer. Start it, then talk to it from another terminal.
//   npm start -- scratchpad/examples/05_service.ts
//   npm run -s ksi -- call shop:order sku=tea quantity=2
//   npm run -s ksi -- time at 2100-01-01 --stream shop-tea --projection shop-sales
import { Effect, Layer, Schema } from "effect"
import { Event, EventGroup, Ksi, Projection } from "ksi"

class SoldOut extends Schema.TaggedError<SoldOut>()("SoldOut", { sku: Schema.String }) {
  override get message() {
    return `${this.sku} is sold out`
  }
}

const Order = Event.make("shop:order", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  success: Schema.Struct({ order: Schema.String }),
  error: SoldOut,
  annotations: { description: "Orders items.", examples: [{ sku: "tea", quantity: 2 }] }
})
const Ordered = Event.fact("shop:ordered", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  streamId: ({ sku }) => `shop-${sku}`,
  annotations: { description: "Items were ordered." }
})
const Shop = EventGroup.make(Order, Ordered)

const ShopHandlers = Shop.toLayer({
  *"shop:order"({ quantity, sku }) {
    if (sku === "gold") return yield* new SoldOut({ sku })
    const ksi = yield* Ksi
    const { version } = yield* ksi.emit(Ordered, { sku, quantity })
    return { order: `${sku}-${version}` }
  },
  "shop:ordered": ({ quantity, sku }) => Effect.log(`${quantity} ${sku} ordered`)
})

/** What was sold of each item, at any moment of the past. */
const Sales = Projection.make("shop-sales", {
  events: [Ordered],
  state: Schema.Struct({ orders: Schema.Int, quantity: Schema.Int }),
  initial: { orders: 0, quantity: 0 },
  on: { "shop:ordered": (sold, { quantity }) => ({ orders: sold.orders + 1, quantity: sold.quantity + quantity }) }
})

// Does not compile when the handlers are forgotten.
export default Ksi.module(Layer.merge(Ksi.serve(Shop).pipe(Layer.provide(ShopHandlers)), Projection.serve(Sales)))
