/**
 * Events that belong together, and the layer that handles them.
 *
 * `toLayer` takes one handler for each request (facts may be handled too, they need not be) and says in its type what
 * the handlers need. A handler is a plain function that returns an `Effect` (a `Stream` for a stream event), or a
 * generator method, which is shortest and fastest.
 *
 * **Example**
 *
 * ```ts
 * const Stock = EventGroup.make(Reserve, Reserved)
 * const StockHandlers = Stock.toLayer({
 *   *"stock:reserve"({ sku, quantity }) {
 *     const ksi = yield* Ksi
 *     const { id } = yield* ksi.emit(Reserved, { sku, quantity })
 *     return { holdId: id }
 *   }
 * })
 * Object.keys(Stock.events)                       // ["stock:reserve", "stock:reserved"]
 * Layer.isLayer(StockHandlers)                    // true
 * ```
 *
 * **Gotchas** `(payload) => Effect.gen(function*() { … })` works but makes a new generator function for every call;
 * the generator method does not. A handler of an event that the group does not have does not compile, and where types
 * were not checked the layer dies with a `TypeError` that names the nearest event.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Delivery, Envelope } from "./Envelope.ts"
import * as Event from "./Event.ts"
import * as EventName from "./EventName.ts"
import type { KsiError } from "./KsiError.ts"

// `any` is written nowhere; where TypeScript needs "whatever this function is", `unknown` and `never` say it.
type Yielded<E> = Effect.Effect<unknown, E, unknown>

type MayFail<Ev extends Event.AnyRequest> = Event.Declared<Ev> | KsiError

/** What answers a request. */
export type RequestHandler<Ev extends Event.AnyRequest> = (
  payload: Event.Payload<Ev>,
  envelope: Envelope<Event.Payload<Ev>>
) => Ev["mode"] extends "stream" ? Stream.Stream<Event.Success<Ev>, Event.Declared<Ev> | KsiError, unknown>
  :
    | Effect.Effect<Event.Success<Ev>, MayFail<Ev>, unknown>
    | Generator<Yielded<MayFail<Ev>>, Event.Success<Ev>, never>

/** What reacts to a fact. */
export type FactHandler<Ev extends Event.AnyFact> = (
  payload: Event.Payload<Ev>,
  /** The fact with its position and version: it is stored. */
  envelope: Delivery<Event.Payload<Ev>>
) => Effect.Effect<unknown, unknown, unknown> | Generator<Yielded<unknown>, unknown, never>

/** What `toLayer` takes: a handler for each request, and for the facts one wants to react to. */
export type HandlersOf<Evs extends Event.Any> =
  & { readonly [Ev in Evs as Ev extends Event.AnyRequest ? Ev["name"] : never]: Ev extends Event.AnyRequest ? RequestHandler<Ev> : never }
  & { readonly [Ev in Evs as Ev extends Event.AnyFact ? Ev["name"] : never]?: Ev extends Event.AnyFact ? FactHandler<Ev> : never }

/** What the result of a handler needs. */
export type ServicesOfReturn<X> = X extends Effect.Effect<infer _A, infer _E, infer R> ? R
  : X extends Stream.Stream<infer _A, infer _E, infer R> ? R
  : X extends Generator<infer Y, infer _A, infer _N> ? Y extends Effect.Effect<infer _A2, infer _E2, infer R> ? R : never
  : never

/** What handlers need from their surroundings, whatever stands before them. */
export type ServicesOf<Hs> = ServicesBehind<never, Hs>

/** What the middleware of one event provides to its handler. What a fact sets off runs later, behind no middleware. */
export type ProvidedTo<Ev extends Event.Any> = Ev extends Event.AnyRequest ? Event.Provided<Ev> : never

type ProvidedAt<Evs extends Event.Any, Name> = Evs extends { readonly name: Name } ? ProvidedTo<Evs> : never

/** What the handlers need from their surroundings besides what the middleware of their events provides. */
export type ServicesBehind<Evs extends Event.Any, Hs> = {
  [K in keyof Hs]: Hs[K] extends (...args: never) => infer X ? Exclude<ServicesOfReturn<X>, ProvidedAt<Evs, K>> : never
}[keyof Hs]

/** Refuses a handler of an event that the group does not have: most often a misspelt fact, which nobody would miss. */
export type NoStrangers<Hs, Evs extends Event.Any> = {
  readonly [K in Exclude<keyof Hs & `${string}:${string}`, Evs["name"]>]: never
}

/**
 * The service that says "this request is handled"; `Ksi.serve` asks for it. Contravariant in what its middleware
 * provides: handlers that rely on a middleware do not serve a group without it, the other way round is fine.
 */
export interface Handler<in out Name extends string, in Provides = never> {
  readonly "~ksi/Handler": Name
  readonly "~needs": (provided: Provides) => void
}

/** The services of the requests among some events. */
export type HandlerFor<Evs extends Event.Any> = Evs extends Event.AnyRequest ? Handler<Evs["name"], Event.Provided<Evs>> : never

/** How a handler is kept: the function, the context its layer was built in, and how it is run. */
export interface HandlerEntry {
  readonly name: string
  readonly run: (payload: unknown, envelope: Envelope) => unknown
  readonly context: Context.Context<never>
  /** Default: `concurrent`. */
  readonly execution?: "concurrent" | "sequential" | undefined
  /** Milliseconds it may take; absent: as long as the request may, and `Limits.factHandlerMillis` for a fact. */
  readonly timeoutMillis?: number | undefined
  /** One at a time for each key, in the order of arrival. What the one whose turn it is calls itself does not wait. */
  readonly key?: ((payload: unknown) => string) | undefined
}

/** The key under which the handler of an event is found. */
export const handlerKey = (name: string): Context.Service<Handler<string>, HandlerEntry> =>
  Context.Service<Handler<string>, HandlerEntry>(`ksi/Handler/${name}`)

/** Events that belong together. */
export interface EventGroup<in out Evs extends Event.Any> {
  /** The events by name. */
  readonly events: { readonly [Ev in Evs as Ev["name"]]: Ev }
  /**
   * The layer that handles the group's events. What `build` acquires lives as long as the layer; a handler has no
   * scope of its own: one that needs a `Scope` closes it with `Effect.scoped`, or it stays in the layer's type.
   */
  readonly toLayer: <Hs extends HandlersOf<Evs>, EX = never, RX = never>(
    build: (Hs & NoStrangers<Hs, Evs>) | Effect.Effect<Hs & NoStrangers<Hs, Evs>, EX, RX>
  ) => Layer.Layer<HandlerFor<Evs>, EX, Exclude<RX, Scope.Scope> | ServicesBehind<Evs, Hs>>
  /** A group of these events and more. */
  readonly add: <const More extends ReadonlyArray<Event.Any>>(...events: More) => EventGroup<Evs | More[number]>
  /**
   * The group behind a middleware, inside of those it has. Callers who use the events of the new group see the
   * middleware's errors in their types; its handlers may use what the middleware provides.
   */
  readonly middleware: <Mw extends Event.AnyMiddleware>(middleware: Mw) => EventGroup<Event.WithMiddleware<Evs, Mw>>
}

/** A group whose events are not known to the compiler. */
export interface AnyGroup {
  readonly events: { readonly [name: string]: Event.Any }
}

// What `NoStrangers` refuses, once more at run time: `ksi start app.ts` runs modules whose types nobody checked.
const refuseStrangers = (names: ReadonlyArray<string>, handlers: object): void => {
  for (const key of Object.keys(handlers)) {
    if (!key.includes(":") || names.includes(key)) continue
    const [nearest] = EventName.nearest(key, names, 1)
    throw new TypeError(`"${key}" is no event of this group${nearest === undefined ? "" : `; nearest: "${nearest}"`}`)
  }
}

const contextOf = (
  events: ReadonlyArray<Event.Any>,
  handlers: object,
  context: Context.Context<never>
): Context.Context<never> => {
  refuseStrangers(events.map(({ name }) => name), handlers)
  let result = Context.empty()
  for (const { name } of events) {
    const run: unknown = Object.hasOwn(handlers, name) ? Reflect.get(handlers, name) : undefined
    if (typeof run !== "function") continue
    // A method keeps its `this`; its argument types were checked where the handlers were written.
    const bound = run.bind(handlers) as HandlerEntry["run"]
    result = Context.add(result, handlerKey(name), { name, run: bound, context }) as Context.Context<never>
  }
  return result
}

/** Makes a group. Throws a `TypeError` when two of the events share a name. */
export const make = <const Evs extends ReadonlyArray<Event.Any>>(...events: Evs): EventGroup<Evs[number]> => {
  const byName: Record<string, Event.Any> = {}
  for (const event of events) {
    if (Object.hasOwn(byName, event.name)) throw new TypeError(`"${event.name}" is twice in one group`)
    byName[event.name] = event
  }
  const toLayer = (build: object): Layer.Layer<never, unknown, unknown> =>
    Layer.effectContext(Effect.gen(function*() {
      const context = yield* Effect.context<never>()
      // What it fails with and needs is in the type of the layer, given below.
      const handlers = Effect.isEffect(build) ? yield* (build as Effect.Effect<object>) : build
      return contextOf(events, handlers, context)
    }))
  return {
    // The record was filled from the very events that the type lists.
    events: byName as EventGroup<Evs[number]>["events"],
    toLayer: toLayer as EventGroup<Evs[number]>["toLayer"],
    middleware: (added) =>
      // The same events, each with the middleware; the type says so event by event.
      make(...events.map((event) => Event.middleware(event, added))) as never,
    add: (...more) => make(...events, ...more) as EventGroup<Evs[number] | (typeof more)[number]>
  }
}
