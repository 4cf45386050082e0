/**
 * What stands around handlers: hooks before and after, compiled into one loop for each event, and `around` for what must
 * wrap. A middleware may provide a typed service to the handlers behind it, may fail with a typed error that callers see
 * in the types, and may answer instead of the handler.
 *
 * The rule: the first one added is the outermost. `before` hooks run from the outside in, `after` hooks from the inside
 * out, and every middleware whose `before` let the event through has its `after` run, whatever became of the event. One
 * that throws is a defect of that call and of no other.
 *
 * **Example**
 *
 * ```ts
 * const seen: Array<string> = []
 * const Trail = Middleware.make("trail", {
 *   before: (envelope) => void seen.push(envelope.name),
 *   after: (_, exit) => void seen.push(exit._tag)
 * })
 * const Watched = EventGroup.make(Ping).middleware(Trail)
 * const Main = Ksi.serve(Watched).pipe(
 *   Layer.provide([Watched.toLayer({ "net:ping": () => Effect.succeed("pong") }), Trail.layer]),
 *   Layer.provideMerge(Ksi.layerMemory))
 * const ping = Effect.flatMap(Ksi, (ksi) => ksi.call(Watched.events["net:ping"], {}))
 * yield* ping.pipe(Effect.provide(Main))      // "pong"
 * seen                                        // ["net:ping", "Success"]
 * ```
 *
 * **Gotchas** A hook that returns nothing, or an effect that is already complete, costs no fiber operation. `after` gets
 * the elapsed milliseconds as a third argument; the clock is only read where some hook takes it. For a stream, `around`
 * wraps the whole stream, and `after` runs when it ends; one that fails there is how the stream ends.
 *
 * Source: seed section 1.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Envelope } from "../event/Envelope.ts"
import type * as Event from "../event/Event.ts"
import * as EventPattern from "../event/EventPattern.ts"
import * as KsiError from "../event/KsiError.ts"
import { servicesOf } from "./Causation.ts"
import { Answered, type Hook, hookKey, hooksIn, type MiddlewareService } from "./internal/pipeline.ts"
import { Router } from "./Router.ts"

export type { MiddlewareService } from "./internal/pipeline.ts"

/** A middleware. */
export interface Middleware<in out Name extends string, out Provides, out E extends Schema.Top, out R> extends Event.AnyMiddleware {
  readonly name: Name
  readonly error: E
  readonly "~provides": Provides
  /** What `Ksi.serve` of a group behind this middleware asks for. Its hooks run in the context this layer is built in. */
  readonly layer: Layer.Layer<MiddlewareService<Name>, never, R>
}

/** What a middleware may fail with besides its own error: an answer instead of the handler's. */
export type { Answered } from "./internal/pipeline.ts"

/** What `provides` asks for: only `before` can make a service. Of a service that is not known nothing is asked. */
type Made<Identifier> = [Identifier] extends [never] ? unknown : unknown extends Identifier ? unknown : { readonly before: unknown }

/** Defines a middleware. Throws a `TypeError` where nothing makes what it provides. */
export const make = <
  const Name extends string,
  Identifier = never,
  Shape = void,
  E extends Schema.Top = Schema.Never,
  RB = never,
  RA = never,
  RW = never
>(name: Name, options: {
  /** The service that `before` makes for the handlers behind it. */
  readonly provides?: Context.Key<Identifier, Shape>
  /** What it may fail with; callers of an event behind it see it. */
  readonly error?: E
  /** Before the handler: lets through, fails, or answers (`Middleware.answer`). */
  readonly before?: (
    envelope: Envelope
  ) => Effect.Effect<NoInfer<Shape>, NoInfer<E>["Type"] | KsiError.KsiError | Answered, RB> | ([Identifier] extends [never] ? void : never)
  /** After the handler, also when it failed or was interrupted. `elapsed` in milliseconds. */
  readonly after?: (
    envelope: Envelope,
    exit: Exit.Exit<unknown, unknown>,
    elapsed: number
  ) => Effect.Effect<void, never, RA> | void
  /** Around everything behind it; for what must wrap, as a retry. Hooks are faster. */
  readonly around?: (
    next: Effect.Effect<unknown, unknown>,
    envelope: Envelope
  ) => Effect.Effect<unknown, unknown, RW>
  /**
   * Around each reaction to the event, each by itself: the handlers of a fact, and whoever observes the event. `handler` is
   * what `describe` calls it. What it fails with goes to the dead letters, as the reaction's own failure does.
   */
  readonly reaction?: (
    next: Effect.Effect<unknown, unknown>,
    envelope: Envelope,
    handler: string
  ) => Effect.Effect<unknown, unknown, RW>
  /** Which events `around` wraps, where not all: the others take the shorter way. Cheap, and without effects. */
  readonly when?: (envelope: Envelope) => boolean
} & Made<NoInfer<Identifier>>): Middleware<Name, Identifier, E, RB | RA | RW> => {
  if (options.provides !== undefined && options.before === undefined) {
    throw new TypeError(`the middleware "${name}" provides ${options.provides.key}, and has no \`before\` that makes it`)
  }
  // An absent error is no error: the default of the type parameter.
  const error = (options.error ?? Schema.Never) as E
  const layer = Layer.effect(
    hookKey(name),
    // The scope of the layer is not that of one event: what a hook left in it would stay there for as long as the layer.
    Effect.map(Effect.map(Effect.context<never>(), servicesOf), (context): Hook => ({
      name,
      error,
      // A key of one service is a key.
      provides: options.provides as Hook["provides"],
      // Their types were checked above; the pipeline runs them in the context they need.
      before: options.before as Hook["before"],
      after: options.after as Hook["after"],
      around: options.around as Hook["around"],
      reaction: options.reaction as Hook["reaction"],
      when: options.when,
      context: context as Context.Context<never>
    }))
  )
  // What the hooks need is what the layer needs; the phantom says what handlers get.
  return { name, error, "~provides": undefined, layer } as unknown as Middleware<Name, Identifier, E, RB | RA | RW>
}

/** Fails `before` with an answer: the handler is not asked, and the caller gets this value. */
export const answer = (value: unknown): Exit.Exit<never, Answered> => Exit.fail(new Answered({ value }))

/**
 * Puts a middleware before all events that the pattern matches (default: all), outside of the groups' own, until the
 * layer closes. Callers whose event does not know its error see `KsiError` with the reason `Rejected`.
 */
export const use = <Name extends string, Provides, E extends Schema.Top, R>(
  middleware: Middleware<Name, Provides, E, R>,
  options?: { readonly pattern?: string }
): Layer.Layer<never, KsiError.KsiError, Router | R> =>
  Layer.effectDiscard(Effect.gen(function*() {
    const router = yield* Router
    const [hook] = hooksIn(yield* Effect.context<never>(), [middleware])
    const pattern = EventPattern.parse(options?.pattern ?? "*")
    if (Result.isFailure(pattern)) return yield* KsiError.fail(pattern.failure)
    if (hook !== undefined) yield* router.use(hook, pattern.success)
  })).pipe(Layer.provide(middleware.layer))
