// Programs about groups and handlers that must infer, and programs that must not compile (each with its reason).
// `npm run types` runs this file: it holds when it compiles.
import { Context, Effect, Layer, Schema, type Scope, Stream } from "effect"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import type { KsiError } from "../../src/event/KsiError.ts"

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const holds = <T extends true>(_?: T) => {}

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { sku: Schema.String, left: Schema.Int }) {}
class Other extends Schema.TaggedError<Other>()("Other", {}) {}
class Warehouse extends Context.Service<Warehouse, {
  left(sku: string): Effect.Effect<number>
  changes(sku: string): Stream.Stream<number>
}>()("test/Warehouse") {}
class Clerk extends Context.Service<Clerk, { readonly name: string }>()("test/Clerk") {}

const Reserve = Event.make("stock:reserve", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  success: Schema.Struct({ holdId: Schema.String }),
  error: OutOfStock
})
const Reserved = Event.fact("stock:reserved", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  streamId: ({ sku }) => `stock-${sku}`
})
const Watch = Event.make("stock:watch", { payload: { sku: Schema.String }, success: Schema.Int, stream: true })
const Stock = EventGroup.make(Reserve, Reserved, Watch)

// ---------------------------------------------------------------- definitions
holds<Same<Event.Payload<typeof Reserve>, { readonly sku: string; readonly quantity: number }>>()
holds<Same<Event.Success<typeof Reserve>, { readonly holdId: string }>>()
holds<Same<Event.Failure<typeof Reserve>, OutOfStock>>()
holds<Same<(typeof Reserve)["mode"], "call">>()
holds<Same<(typeof Watch)["mode"], "stream">>()
holds<Same<(typeof Stock)["events"]["stock:watch"], typeof Watch>>()
const Both = Event.make("stock:both", { error: Schema.Union([OutOfStock, Other]) })
holds<Same<Event.Failure<typeof Both>, OutOfStock | Other>>()
const Bare = Event.make("stock:bare")
holds<Same<Event.Failure<typeof Bare>, never>>()
holds<Same<Event.Success<typeof Bare>, void>>()
const Dated = Event.fact("stock:dated", { payload: Schema.Struct({ at: Schema.Date }), streamId: ({ at }) => at.toISOString() })
holds<Same<Event.Payload<typeof Dated>, { readonly at: Date }>>()
const Defaulted = Event.make("stock:defaulted", {
  payload: { n: Schema.Int.pipe(Schema.withConstructorDefault(Effect.succeed(1))) }
})
holds<Same<Event.PayloadInput<typeof Defaulted>, { readonly n?: number }>>()
export const of = Reserved.of({ sku: "tea", quantity: 1 }).payload.sku.length

// @ts-expect-error a name needs a namespace
export const noNamespace = Event.make("reserve")
// @ts-expect-error a fact needs its stream
export const noStream = Event.fact("stock:lost", { payload: { sku: Schema.String } })
// @ts-expect-error the stream is told by the payload, which has no `sky`
export const wrongField = Event.fact("stock:lost", { payload: { sku: Schema.String }, streamId: ({ sky }) => sky })
// @ts-expect-error a fact is not answered
export const answered = Event.fact("stock:lost", { payload: {}, success: Schema.Int, streamId: () => "" })
// @ts-expect-error quantity is missing
Reserved.of({ sku: "tea" })

// ---------------------------------------------------------------- handlers that infer
// plain functions
export const plain = Stock.toLayer({
  "stock:reserve": ({ quantity, sku }, envelope) => {
    holds<Same<typeof quantity, number>>()
    holds<Same<typeof envelope.data, { readonly sku: string; readonly quantity: number }>>()
    return Effect.succeed({ holdId: sku })
  },
  "stock:watch": ({ sku }) => Stream.make(sku.length)
})
holds<Same<Layer.Services<typeof plain>, never>>()
holds<Same<Layer.Error<typeof plain>, never>>()
holds<Same<Layer.Success<typeof plain>, EventGroup.Handler<"stock:reserve"> | EventGroup.Handler<"stock:watch">>>()

// a handler that needs a service, as an Effect, a Stream, a generator method and an fnUntraced
export const needing = Stock.toLayer({
  "stock:reserve": ({ sku }) => Effect.map(Clerk, (clerk) => ({ holdId: clerk.name + sku })),
  "stock:watch": ({ sku }) => Stream.unwrap(Effect.map(Warehouse, (warehouse) => warehouse.changes(sku)))
})
holds<Same<Layer.Services<typeof needing>, Clerk | Warehouse>>()

export const generator = Stock.toLayer({
  *"stock:reserve"({ quantity, sku }, envelope) {
    holds<Same<typeof envelope.data, { readonly sku: string; readonly quantity: number }>>()
    const warehouse = yield* Warehouse
    const left = yield* warehouse.left(sku)
    holds<Same<typeof left, number>>()
    if (left < quantity) return yield* new OutOfStock({ sku, left })
    return { holdId: sku }
  },
  "stock:watch": ({ sku }) => Stream.make(sku.length)
})
holds<Same<Layer.Services<typeof generator>, Warehouse>>()

export const untraced = Stock.toLayer({
  "stock:reserve": Effect.fnUntraced(function*({ quantity, sku }) {
    holds<Same<typeof quantity, number>>()
    const warehouse = yield* Warehouse
    const left = yield* warehouse.left(sku)
    if (left < quantity) return yield* new OutOfStock({ sku, left })
    return { holdId: sku }
  }),
  "stock:watch": ({ sku }) => Stream.make(sku.length)
})
holds<Same<Layer.Services<typeof untraced>, Warehouse>>()

// all of it inside Effect.gen: the services come from the layer's own construction
export const inGen = Stock.toLayer(Effect.gen(function*() {
  const warehouse = yield* Warehouse
  return {
    *"stock:reserve"({ quantity, sku }) {
      holds<Same<typeof sku, string>>()
      const left = yield* warehouse.left(sku)
      if (left < quantity) return yield* new OutOfStock({ sku, left })
      const clerk = yield* Clerk
      return { holdId: clerk.name }
    },
    "stock:reserved": ({ quantity }) => Effect.sync(() => quantity.toFixed(1)),
    "stock:watch": ({ sku }) => warehouse.changes(sku)
  }
}))
holds<Same<Layer.Services<typeof inGen>, Warehouse | Clerk>>()

export const inGenPlain = Stock.toLayer(Effect.gen(function*() {
  const warehouse = yield* Warehouse
  return {
    "stock:reserve": ({ sku }) => Effect.map(warehouse.left(sku), (left) => ({ holdId: `${left}` })),
    "stock:watch": ({ sku }) => warehouse.changes(sku)
  }
}))
holds<Same<Layer.Services<typeof inGenPlain>, Warehouse>>()

// building may fail, and what it acquires is scoped
export const failing = Stock.toLayer(Effect.gen(function*() {
  yield* Effect.addFinalizer(() => Effect.void)
  if (Math.random() > 2) return yield* new Other()
  return { "stock:reserve": ({ sku }) => Effect.succeed({ holdId: sku }), "stock:watch": () => Stream.empty }
}))
holds<Same<Layer.Services<typeof failing>, never>>()
holds<Same<Layer.Error<typeof failing>, Other>>()

// a handler may fail with KSI's own error, and closes the scopes it opens
export const own = Stock.toLayer({
  "stock:reserve": ({ sku }): Effect.Effect<{ readonly holdId: string }, KsiError> => Effect.succeed({ holdId: sku }),
  *"stock:reserved"({ sku }) {
    yield* Effect.scoped(Effect.addFinalizer(() => Effect.void))
    const clerk = yield* Clerk
    return clerk.name + sku
  },
  "stock:watch": () => Stream.empty
})
holds<Same<Layer.Services<typeof own>, Clerk>>()

// a scope that a handler left open is not forgotten: nobody can provide it
export const open = EventGroup.make(Bare).toLayer({ "stock:bare": () => Effect.addFinalizer(() => Effect.void) })
holds<Same<Layer.Services<typeof open>, Scope.Scope>>()

// a bare request is answered with nothing; a group grows
export const grown = EventGroup.make(Bare).add(Both).toLayer({
  "stock:bare": () => Effect.void,
  *"stock:both"() {
    yield* Effect.void
    return yield* new Other()
  }
})
holds<Same<Layer.Services<typeof grown>, never>>()

// ServicesOf, by itself
holds<Same<EventGroup.ServicesOf<{ readonly a: () => Effect.Effect<void, never, Clerk>; readonly b: () => Stream.Stream<number, never, Warehouse> }>, Clerk | Warehouse>>()

// ---------------------------------------------------------------- programs that must not compile
Stock.toLayer(
  // @ts-expect-error stock:watch has no handler
  { "stock:reserve": ({ sku }: { readonly sku: string }) => Effect.succeed({ holdId: sku }) }
)
Stock.toLayer(
  // @ts-expect-error stock:watch has no handler, inside Effect.gen
  Effect.gen(function*() {
    yield* Warehouse
    return { "stock:reserve": ({ sku }: { readonly sku: string }) => Effect.succeed({ holdId: sku }) }
  })
)
Stock.toLayer({
  // @ts-expect-error the reply has no holdId
  "stock:reserve": ({ sku }) => Effect.succeed({ hold: sku }),
  "stock:watch": () => Stream.make(1)
})
Stock.toLayer({
  // @ts-expect-error the reply has no holdId, in a generator method
  *"stock:reserve"({ sku }) {
    yield* Effect.void
    return { hold: sku }
  },
  "stock:watch": () => Stream.make(1)
})
Stock.toLayer({
  // @ts-expect-error Other is not declared
  "stock:reserve": () => Effect.fail(new Other()),
  "stock:watch": () => Stream.make(1)
})
Stock.toLayer({
  // @ts-expect-error Other is not declared, in a generator method
  *"stock:reserve"({ sku }) {
    yield* new Other()
    return { holdId: sku }
  },
  "stock:watch": () => Stream.make(1)
})
Stock.toLayer({
  "stock:reserve": ({ sku }) => Effect.succeed({ holdId: sku }),
  // @ts-expect-error an item of the stream is an Int, not a text
  "stock:watch": () => Stream.make("one")
})
Stock.toLayer({
  "stock:reserve": ({ sku }) => Effect.succeed({ holdId: sku }),
  // @ts-expect-error a stream event is answered by a Stream
  "stock:watch": () => Effect.succeed(1)
})
Stock.toLayer({
  // @ts-expect-error a call is answered once, not by a Stream
  "stock:reserve": () => Stream.make({ holdId: "" }),
  "stock:watch": () => Stream.make(1)
})
Stock.toLayer({
  // @ts-expect-error the payload has no price
  "stock:reserve": ({ price }) => Effect.succeed({ holdId: price }),
  "stock:watch": () => Stream.make(1)
})
Stock.toLayer({
  // @ts-expect-error a handler answers with an Effect, not a bare value
  "stock:reserve": ({ sku }) => ({ holdId: sku }),
  "stock:watch": () => Stream.make(1)
})
// @ts-expect-error Warehouse is still needed
export const closed: Layer.Layer<never> = generator
// @ts-expect-error handlers of another group are not handlers of this one
export const other: Layer.Layer<EventGroup.Handler<"order:place">> = plain
Stock.toLayer({
  "stock:reserve": ({ sku }) => Effect.succeed({ holdId: sku }),
  "stock:watch": () => Stream.make(1),
  // @ts-expect-error a fact of the group is misspelt
  "stock:resrved": () => Effect.void
})
Stock.toLayer(
  // @ts-expect-error a fact of the group is misspelt, inside Effect.gen
  Effect.gen(function*() {
    yield* Warehouse
    return {
      "stock:reserve": ({ sku }: { readonly sku: string }) => Effect.succeed({ holdId: sku }),
      "stock:watch": () => Stream.make(1),
      "stock:resrved": () => Effect.void
    }
  })
)
