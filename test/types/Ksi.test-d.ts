// Modules for the daemon: what may be missing is what the daemon gives, and nothing else.
import { Context, Effect, Layer, Schema } from "effect"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import * as Projection from "../../src/store/Projection.ts"

const Order = Event.make("shop:order", { success: Schema.String })
const Ordered = Event.fact("shop:ordered", { payload: {}, streamId: () => "orders" })
const Shop = EventGroup.make(Order, Ordered)
const ShopHandlers = Shop.toLayer({
  *"shop:order"() {
    yield* (yield* Ksi).emit(Ordered, {})
    return "ordered"
  }
})
const Orders = Projection.make("orders", {
  events: [Ordered], state: Schema.Int, initial: 0, on: { "shop:ordered": (n) => n + 1 }
})
class Warehouse extends Context.Service<Warehouse, { readonly left: number }>()("shop/Warehouse") {}

const served = Ksi.serve(Shop).pipe(Layer.provide(ShopHandlers))
export const whole: Layer.Layer<never, unknown, Runtime> = Ksi.module(Layer.merge(served, Projection.serve(Orders)))
export const factsOnly = Ksi.module(Ksi.serve(EventGroup.make(Ordered)))
export const failing = Ksi.module(Layer.effectDiscard(Effect.fail("no warehouse")))

// @ts-expect-error the handlers are forgotten
Ksi.module(Ksi.serve(Shop))
// @ts-expect-error the handlers are merged, not provided
Ksi.module(Layer.merge(Ksi.serve(Shop), ShopHandlers))
// @ts-expect-error nobody gives a warehouse
Ksi.module(Layer.merge(served, Layer.effectDiscard(Warehouse)))
