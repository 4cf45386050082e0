/** A small module for the daemon of a benchmark: one request, checked on its way in and out, whose handler answers at once. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"

/** The request. */
export const Hold = Event.make("bench:hold", {
  payload: { sku: Schema.String, quantity: Schema.Int, customer: Schema.Struct({ id: Schema.String, vip: Schema.Boolean }) },
  success: Schema.Struct({ holdId: Schema.String, sku: Schema.String, quantity: Schema.Int })
})
const Group = EventGroup.make(Hold)
const Handlers = Group.toLayer({
  *"bench:hold"({ quantity, sku }) {
    const holdId = yield* Effect.succeed("hold-1")
    return { holdId, sku, quantity }
  }
})

/** Serves it. */
export const layer = Ksi.serve(Group).pipe(Layer.provide(Handlers))

export default Ksi.module(layer)
