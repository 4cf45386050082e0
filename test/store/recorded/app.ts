// An app whose traffic is recorded, and told as tests that import it.
import { Effect, Layer, Schema } from "effect"
import { Event, EventGroup, Ksi, Projection, TimeTravel, EventStore } from "../../../src/index.ts"

class SoldOut extends Schema.TaggedError<SoldOut>()("SoldOut", { left: Schema.Int }) {}

const Sku = { sku: Schema.String }
const stock = ({ sku }: { readonly sku: string }) => `stock-${sku}`

export const Stocked = Event.fact("shop:stocked", {
  payload: { ...Sku, count: Schema.Int },
  streamId: stock,
  version: 2,
  upcast: { 1: ({ dozens, sku }: { dozens: number; sku: string }) => ({ sku, count: 12 * dozens }) }
})
export const Bought = Event.fact("shop:bought", { payload: { ...Sku, count: Schema.Int, order: Schema.String, at: Schema.Date }, streamId: stock })
export const Shipped = Event.fact("parcel:shipped", { payload: Sku, streamId: ({ sku }) => `parcel-${sku}` })
export const Buy = Event.make("shop:buy", { payload: { ...Sku, count: Schema.Int, until: Schema.Date }, success: Schema.String, error: SoldOut })
export const Ship = Event.make("parcel:ship", { payload: Sku })
export const Break = Event.make("shop:break")

export const Shop = EventGroup.make(Stocked, Bought, Buy, Break)
export const Parcel = EventGroup.make(Shipped, Ship)

const Left = Projection.make("left", {
  events: [Stocked, Bought], state: Schema.Int, initial: 0,
  on: { [Stocked.name]: (left, { count }) => left + count, [Bought.name]: (left, { count }) => left - count }
})

const shop = Shop.toLayer(Effect.gen(function*() {
  const ksi = yield* Ksi
  const store = yield* EventStore.EventStore
  return {
    *"shop:buy"({ count, sku, until }) {
      const { state: left } = yield* TimeTravel.at(Left, { streamId: stock({ sku }) }).pipe(
        Effect.provideService(EventStore.EventStore, store), Effect.orElseSucceed(() => ({ state: 0 }))
      )
      if (left < count) return yield* new SoldOut({ left })
      const { id } = yield* ksi.emit(Bought, { sku, count, order: crypto.randomUUID(), at: until })
      return id
    },
    "shop:break": () => Effect.die(new Error("no\npaper")),
    "shop:bought": ({ sku }) => Effect.asVoid(Effect.orDie(ksi.call(Ship, { sku }))),
    "shop:stocked": () => Effect.void
  }
}))
const parcel = Parcel.toLayer(Effect.gen(function*() {
  const ksi = yield* Ksi
  return {
    "parcel:ship": ({ sku }) => Effect.asVoid(Effect.orDie(ksi.emit(Shipped, { sku }))),
    "parcel:shipped": () => Effect.void
  }
}))

export default Ksi.module(Ksi.serve(Shop).pipe(Layer.provide(shop), Layer.merge(Ksi.serve(Parcel).pipe(Layer.provide(parcel)))))
