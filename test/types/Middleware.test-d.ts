// Programs about middleware, several handlers and observers: what must infer, and what must not compile.
import { Context, Effect, Layer, Schema, Stream } from "effect"
import type * as Tracer from "effect/Tracer"
import * as Builtin from "../../src/bus/Builtin.ts"
import type { Idempotency } from "../../src/bus/Idempotency.ts"
import type { KsiService } from "../../src/bus/KsiService.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import { handle, observe, pass, type Router, serve } from "../../src/bus/Router.ts"
import type { Envelope } from "../../src/event/Envelope.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import type { KsiError } from "../../src/event/KsiError.ts"

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const holds = <T extends true>(_?: T) => {}

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { sku: Schema.String }) {}
class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", {}) {}
class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}
class Caller extends Context.Service<Caller, { readonly name: string }>()("test/Caller") {}
class Tenant extends Context.Service<Tenant, { readonly id: number }>()("test/Tenant") {}
class Tokens extends Context.Service<Tokens, { readonly check: (token: string) => Effect.Effect<boolean> }>()("test/Tokens") {}

const Reserve = Event.make("stock:reserve", {
  payload: { sku: Schema.String },
  success: Schema.Struct({ holdId: Schema.String }),
  error: OutOfStock
})
const Reserved = Event.fact("stock:reserved", { payload: { sku: Schema.String }, streamId: ({ sku }) => `stock-${sku}` })
const Watch = Event.make("stock:watch", { payload: { sku: Schema.String }, success: Schema.Int, stream: true })
const Stock = EventGroup.make(Reserve, Reserved, Watch)

declare const ksi: KsiService["Service"]

// ---------------------------------------------------------------- definitions
const Auth = Middleware.make("auth", {
  provides: Caller,
  error: Forbidden,
  before: Effect.fnUntraced(function*({ metadata }: Envelope) {
    const tokens = yield* Tokens
    if (!(yield* tokens.check(metadata.clientId ?? ""))) return yield* new Forbidden()
    return { name: metadata.principal }
  })
})
holds<Same<typeof Auth, Middleware.Middleware<"auth", Caller, typeof Forbidden, Tokens>>>()
holds<Same<Layer.Services<typeof Auth.layer>, Tokens>>()
holds<Same<Layer.Success<typeof Auth.layer>, Middleware.MiddlewareService<"auth">>>()
const Limit = Middleware.make("limit", { error: Busy, before: () => new Busy() })
const Tenants = Middleware.make("tenants", { provides: Tenant, before: () => Effect.succeed({ id: 1 }) })
const Bare = Middleware.make("bare", { before: ({ name }) => void name.length, after: (_, exit, elapsed) => void (exit._tag.length + elapsed) })
holds<Same<typeof Bare, Middleware.Middleware<"bare", never, typeof Schema.Never, never>>>()
export const answering = Middleware.make("cache", { before: () => Middleware.answer({ holdId: "h" }) })
export const refusing = Middleware.make("half", {
  provides: Caller, error: Forbidden,
  before: ({ metadata: { depth } }) => depth === 0 ? Effect.fail(new Forbidden()) : Effect.succeed({ name: "x" })
})

// the built-in ones
holds<Same<Layer.Services<typeof Builtin.idempotency.layer>, Router | Idempotency>>()
holds<Same<Event.Provided<Event.WithMiddleware<typeof Reserve, typeof Builtin.trace>>, Tracer.ParentSpan>>()
const slow = Builtin.timeout("1 second", { name: "slow" })
holds<Same<typeof slow, Middleware.Middleware<"slow", never, typeof Schema.Never, Router>>>()
const recording = Builtin.record(() => Effect.asVoid(Tenant))
holds<Same<Layer.Services<typeof recording.layer>, Tenant>>()
const everywhere = Middleware.use(Auth, { pattern: "stock:*" })
holds<Same<typeof everywhere, Layer.Layer<never, KsiError, Router | Tokens>>>()

// @ts-expect-error who provides a service makes it in `before`
export const forgotten = Middleware.make("forgotten", { provides: Caller, before: () => Effect.succeed({ nom: "x" }) })
// @ts-expect-error who provides a service cannot let through without it
export const letThrough = Middleware.make("through", { provides: Caller, before: () => {} })
// @ts-expect-error nothing makes what it provides
export const unmade = Middleware.make("unmade", { provides: Caller })
// @ts-expect-error nor does what comes after
export const madeLate = Middleware.make("late", { provides: Caller, error: Forbidden, after: () => {} })
// @ts-expect-error Busy is not declared
export const undeclared = Middleware.make("undeclared", { error: Forbidden, before: () => Effect.fail(new Busy()) })
// @ts-expect-error nothing is declared
export const undeclaredBare = Middleware.make("undeclared", { before: () => Effect.fail(new Busy()) })
// @ts-expect-error what comes after changes nothing, and fails with nothing
export const failingAfter = Middleware.make("after", { after: () => Effect.fail(new Busy()) })

// ---------------------------------------------------------------- what callers see
const Secured = Stock.middleware(Auth).middleware(Limit)
const SecuredReserve = Secured.events["stock:reserve"]
const call = ksi.call(SecuredReserve, { sku: "tea" })
holds<Same<typeof call, Effect.Effect<{ readonly holdId: string }, OutOfStock | Forbidden | Busy | KsiError>>>()
const once = ksi.call(Stock.middleware(Auth).events["stock:reserve"], { sku: "tea" })
holds<Same<typeof once, Effect.Effect<{ readonly holdId: string }, OutOfStock | Forbidden | KsiError>>>()
const plain = ksi.call(Reserve, { sku: "tea" })
holds<Same<typeof plain, Effect.Effect<{ readonly holdId: string }, OutOfStock | KsiError>>>()
const items = ksi.stream(Secured.events["stock:watch"], { sku: "tea" })
holds<Same<typeof items, Stream.Stream<number, Forbidden | Busy | KsiError>>>()
const recovered = Effect.catchTag(call, ["Forbidden", "Busy"], () => Effect.succeed({ holdId: "" }))
holds<Same<Effect.Error<typeof recovered>, OutOfStock | KsiError>>()
// @ts-expect-error Forbidden is still there
export const unhandled: Effect.Effect<{ readonly holdId: string }, OutOfStock | Busy | KsiError> = call

// ---------------------------------------------------------------- what handlers see
const securedHandlers = Stock.middleware(Auth).middleware(Tenants).toLayer({
  *"stock:reserve"() {
    const caller = yield* Caller
    holds<Same<typeof caller.name, string>>()
    const tenant = yield* Tenant
    const tokens = yield* Tokens
    return { holdId: `${caller.name}${tenant.id}${yield* tokens.check("")}` }
  },
  "stock:watch": () => Stream.fromEffect(Effect.map(Tenant, ({ id }) => id))
})
// what the middleware provides is not asked for; what it does not is
holds<Same<Layer.Services<typeof securedHandlers>, Tokens>>()

const plainHandlers = Stock.toLayer({ "stock:reserve": () => Effect.succeed({ holdId: "h" }), "stock:watch": () => Stream.make(1) })
const inNeed = Stock.toLayer({
  "stock:reserve": () => Effect.map(Caller, ({ name }) => ({ holdId: name })),
  "stock:watch": () => Stream.make(1)
})
holds<Same<Layer.Services<typeof inNeed>, Caller>>()
// what a fact sets off runs later, behind no middleware; nor is an event that was added later behind it
const later = EventGroup.make(Reserved).middleware(Auth).toLayer({ "stock:reserved": () => Effect.asVoid(Caller) })
holds<Same<Layer.Services<typeof later>, Caller>>()
const added = EventGroup.make(Reserve).middleware(Auth).add(Watch).toLayer({
  "stock:reserve": () => Effect.map(Caller, ({ name }) => ({ holdId: name })),
  "stock:watch": () => Stream.fromEffect(Effect.map(Caller, ({ name }) => name.length))
})
holds<Same<Layer.Services<typeof added>, Caller>>()
EventGroup.make(Reserve).middleware(Auth).toLayer({
  // @ts-expect-error a handler does not fail with its middleware's error: that is declared by the middleware
  "stock:reserve": () => Effect.fail(new Forbidden())
})

// ---------------------------------------------------------------- serving
const Both = Stock.middleware(Auth).middleware(Tenants)
const asked = serve(Both)
holds<Same<Exclude<Layer.Services<typeof asked>, EventGroup.HandlerFor<(typeof Both)["events"][keyof (typeof Both)["events"]]>>,
  Router | Middleware.MiddlewareService<"auth"> | Middleware.MiddlewareService<"tenants">>>()
const whole = serve(Both).pipe(Layer.provide([securedHandlers, Auth.layer, Tenants.layer]))
holds<Same<typeof whole, Layer.Layer<never, KsiError, Router | Tokens>>>()
// handlers that do not know of the middleware serve the group behind it
export const reverse: Layer.Layer<never, KsiError, Router | Tokens> =
  serve(Both).pipe(Layer.provide([plainHandlers, Auth.layer, Tenants.layer]))

// @ts-expect-error handlers of a secured group rely on the caller: they do not serve the group without it
export const unsecured: Layer.Layer<never, KsiError, Router | Tokens> = serve(Stock).pipe(Layer.provide(securedHandlers))
// @ts-expect-error nor the group behind one of the two
export const halfSecured: Layer.Layer<never, KsiError, Router | Tokens> =
  serve(Stock.middleware(Auth)).pipe(Layer.provide([securedHandlers, Auth.layer]))
// @ts-expect-error the layer of the second middleware is missing
export const halfProvided: Layer.Layer<never, KsiError, Router | Tokens> =
  serve(Both).pipe(Layer.provide([securedHandlers, Auth.layer]))
// @ts-expect-error nobody provides what the middleware needs
export const noTokens: Layer.Layer<never, KsiError, Router> = whole

// ---------------------------------------------------------------- one more handler
const more = handle(Reserve, ({ sku }, envelope) => {
  holds<Same<typeof sku, string>>()
  holds<Same<typeof envelope.data, { readonly sku: string }>>()
  return sku === "tea" ? Effect.succeed({ holdId: sku }) : pass
})
holds<Same<typeof more, Layer.Layer<never, KsiError, Router>>>()
const moreGenerator = handle(Reserve, function*({ sku }) {
  const { check } = yield* Tokens
  if (!(yield* check(sku))) return yield* pass
  if (sku === "") return yield* new OutOfStock({ sku })
  return { holdId: sku }
}, { execution: "sequential", timeout: "1 second", key: ({ sku }) => sku, name: "second" })
holds<Same<typeof moreGenerator, Layer.Layer<never, KsiError, Router | Tokens>>>()
const moreUntraced = handle(Reserve, Effect.fnUntraced(function*({ sku }: { readonly sku: string }) {
  const { name } = yield* Caller
  return { holdId: name + sku }
}))
holds<Same<typeof moreUntraced, Layer.Layer<never, KsiError, Router | Caller>>>()
const behind = handle(Secured.events["stock:reserve"], () => Effect.map(Caller, ({ name }) => ({ holdId: name })))
holds<Same<typeof behind, Layer.Layer<never, KsiError, Router>>>()
const factBehind = handle(Secured.events["stock:reserved"], () => Effect.asVoid(Caller))
holds<Same<typeof factBehind, Layer.Layer<never, KsiError, Router | Caller>>>()
const reaction = handle(Reserved, ({ sku }, { position }) => Effect.map(Tenant, ({ id }) => `${sku}${id}${position}`))
holds<Same<typeof reaction, Layer.Layer<never, KsiError, Router | Tenant>>>()

// @ts-expect-error the reply has no holdId
handle(Reserve, () => Effect.succeed({ hold: "h" }))
// @ts-expect-error the reply has no holdId, in a generator
handle(Reserve, function*() {
  yield* Effect.void
  return { hold: "h" }
})
// @ts-expect-error Busy is not declared
handle(Reserve, () => Effect.fail(new Busy()))
// @ts-expect-error Busy is not declared, in a generator
handle(Reserve, function*() {
  return yield* new Busy()
})
// @ts-expect-error the payload has no price
handle(Reserve, ({ price }) => Effect.succeed({ holdId: price }))
// @ts-expect-error a key is a text
handle(Reserve, () => pass, { key: () => 1 })
// @ts-expect-error the payload has no price, in a key
handle(Reserve, () => pass, { key: ({ price }) => price })

// ---------------------------------------------------------------- observers
const watching = observe("stock:*", ({ data, name }) => {
  holds<Same<typeof data, unknown>>()
  return Effect.andThen(Tenant, Effect.fail(name))
})
holds<Same<typeof watching, Layer.Layer<never, KsiError, Router | Tenant>>>()
// @ts-expect-error an observer answers with an Effect
observe("stock:*", ({ name }) => name)
