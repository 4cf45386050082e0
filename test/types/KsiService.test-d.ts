// Programs about the five words and about serving: what must infer, and what must not compile.
import { Effect, Layer, Result, Schema, Stream } from "effect"
import { KsiService } from "../../src/bus/KsiService.ts"
import { type Router, serve } from "../../src/bus/Router.ts"
import type { Delivery } from "../../src/event/Envelope.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import type { KsiError } from "../../src/event/KsiError.ts"

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const holds = <T extends true>(_?: T) => {}

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { sku: Schema.String, left: Schema.Int }) {}
class Closed extends Schema.TaggedError<Closed>()("Closed", {}) {}

const Reserve = Event.make("stock:reserve", {
  payload: { sku: Schema.String, quantity: Schema.Int.pipe(Schema.withConstructorDefault(Effect.succeed(1))) },
  success: Schema.Struct({ holdId: Schema.String }),
  error: Schema.Union([OutOfStock, Closed])
})
const Reserved = Event.fact("stock:reserved", { payload: { sku: Schema.String }, streamId: ({ sku }) => `stock-${sku}` })
const Watch = Event.make("stock:watch", { payload: { sku: Schema.String }, success: Schema.Int, error: Closed, stream: true })
const Bare = Event.make("stock:bare")
const Stock = EventGroup.make(Reserve, Reserved, Watch)

declare const ksi: KsiService["Service"]
declare const router: Layer.Layer<Router>

// ---------------------------------------------------------------- what must infer
const call = ksi.call(Reserve, { sku: "tea", quantity: 1 })
holds<Same<typeof call, Effect.Effect<{ readonly holdId: string }, OutOfStock | Closed | KsiError>>>()
export const defaulted = ksi.call(Reserve, { sku: "tea" })
holds<Same<ReturnType<typeof bare>, Effect.Effect<void, KsiError>>>()
function bare() {
  return ksi.call(Bare, {})
}
const emitted = Effect.map(ksi.emit(Reserved, { sku: "tea" }), ({ position, version }) => ({ position, version }))
holds<Same<typeof emitted, Effect.Effect<{ position: bigint; version: number }, KsiError>>>()
const stream = ksi.stream(Watch, { sku: "tea" })
holds<Same<typeof stream, Stream.Stream<number, Closed | KsiError>>>()
const typed = ksi.subscribe(Reserved, { from: 41n })
holds<Same<typeof typed, Stream.Stream<Delivery<{ readonly sku: string }>, KsiError>>>()
const untyped = ksi.subscribe("stock:*", { from: "start", requests: true })
holds<Same<typeof untyped, Stream.Stream<Delivery, KsiError>>>()

// recovery takes exactly what was handled out of the error
const recovered = call.pipe(
  Effect.catchTag("OutOfStock", ({ left }) => Effect.succeed({ holdId: `backorder-${left}` })),
  Effect.catchReason("KsiError", "NoHandler", ({ passed }) => Effect.succeed({ holdId: `nobody-${passed}` }))
)
holds<Same<Effect.Success<typeof recovered>, { readonly holdId: string } | { holdId: string }>>()
holds<Same<Effect.Error<typeof recovered>, Closed | KsiError>>()
const outcome = Effect.result(call)
holds<Same<Effect.Success<typeof outcome>, Result.Result<{ readonly holdId: string }, OutOfStock | Closed | KsiError>>>()

// handlers inside Effect.gen speak through the service
const handlers = Stock.toLayer(Effect.gen(function*() {
  const ksi = yield* KsiService
  return {
    *"stock:reserve"({ sku, quantity }) {
      if (quantity > 3) return yield* new OutOfStock({ sku, left: 3 })
      const { id } = yield* ksi.emit(Reserved, { sku })
      return { holdId: id }
    },
    "stock:watch": ({ sku }) => ksi.stream(Watch, { sku })
  }
}))
holds<Same<Layer.Services<typeof handlers>, KsiService>>()

// serving asks for exactly the group's handlers
holds<Same<Layer.Services<ReturnType<typeof serveStock>>, Router | EventGroup.Handler<"stock:reserve"> | EventGroup.Handler<"stock:watch">>>()
function serveStock() {
  return serve(Stock)
}
export const served = serve(Stock).pipe(Layer.provide(handlers), Layer.provide(router))
holds<Same<Layer.Services<typeof served>, KsiService>>()

// ---------------------------------------------------------------- what must not compile
// @ts-expect-error sku is missing
ksi.call(Reserve, { quantity: 1 })
// @ts-expect-error quantity is a number
ksi.call(Reserve, { sku: "tea", quantity: "two" })
// @ts-expect-error Reserve has no price
ksi.call(Reserve, { sku: "tea", price: 2 })
// @ts-expect-error a fact is emitted, not called
ksi.call(Reserved, { sku: "tea" })
// @ts-expect-error a request is called, not emitted
ksi.emit(Reserve, { sku: "tea" })
// @ts-expect-error a stream is streamed, not called
ksi.call(Watch, { sku: "tea" })
// @ts-expect-error a call is no stream
ksi.stream(Reserve, { sku: "tea" })
// @ts-expect-error a fact is no stream: it is subscribed to
ksi.stream(Reserved, { sku: "tea" })
// @ts-expect-error a request has no past: subscribe to a fact or to a pattern
ksi.subscribe(Reserve)
// What is wrong is told where it stands, and not as another overload that does not fit.
ksi.subscribe("stock:*", {
  // @ts-expect-error no such overflow
  overflow: "spil"
})
ksi.subscribe(Reserved, {
  // @ts-expect-error no such overflow
  overflow: "spil"
})
// @ts-expect-error the reply has no `hold`
export const wrongReply = Effect.map(call, ({ hold }) => hold)
// @ts-expect-error OutOfStock is still there
export const unhandled: Effect.Effect<{ readonly holdId: string }, KsiError | Closed> = call
// @ts-expect-error nobody provides the handlers
export const unprovided: Layer.Layer<never, KsiError> = serve(Stock).pipe(Layer.provide(router))
// @ts-expect-error the handler of stock:reserve is there, that of stock:watch is not
export const half: Layer.Layer<never, KsiError, KsiService> = serve(Stock).pipe(
  Layer.provide(EventGroup.make(Reserve).toLayer({ "stock:reserve": () => Effect.succeed({ holdId: "h" }) })),
  Layer.provide(router)
)
