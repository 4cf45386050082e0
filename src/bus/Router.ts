/**
 * Where an event goes: one table, one entry per event, its schemas compiled when it is defined.
 *
 * The rule: whoever comes from outside and is not the owner is looked at first (`Authorizer`). Then, for a request: decode,
 * look at depth and deadline, run the handler in the context of its own layer plus the envelope, check the reply, record
 * the activity. For a fact: decode, append, publish (the store does), then run its
 * handlers, each on its own. A handler that completes at once completes the call at once: no fiber, no promise.
 *
 * **Example**
 *
 * ```ts
 * const router = yield* Router
 * yield* router.handle(Ping, { name: Ping.name, run: () => Effect.succeed("pong"), context: Context.empty() })
 * yield* router.dispatch(router.envelope(Ping.name, {}))      // { kind: "value", value: "pong" }
 * ```
 *
 * **Gotchas** A handler does not see the caller's services, only those of its own layer: plugins are isolated. Two
 * layers of handlers for one group cannot be merged: the later one takes the place of the earlier one. A handler runs in
 * its caller's fiber: what it forks as a child ends with that fiber, what must end with the handler is forked in a scope.
 *
 * Source: seed section 2.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type NewFact, versionAttribute } from "../event/CloudEvent.ts"
import type * as Envelope from "../event/Envelope.ts"
import type * as Event from "../event/Event.ts"
import {
  type AnyGroup, type EventGroup, type FactHandler, type HandlerEntry, type HandlerFor, handlerKey, type ProvidedTo, type RequestHandler,
  type ServicesOfReturn
} from "../event/EventGroup.ts"
import * as EventName from "../event/EventName.ts"
import * as EventPattern from "../event/EventPattern.ts"
import type * as EventRegistry from "../event/EventRegistry.ts"
import * as KsiError from "../event/KsiError.ts"
import type { Activity } from "./Activity.ts"
import * as Causation from "./Causation.ts"
import * as Answers from "./internal/answers.ts"
import * as Doors from "./internal/door.ts"
import { type AnyFiber, enter, enterWithin, type Run } from "./internal/drive.ts"
import type { DeadLetters, Letter } from "./DeadLetters.ts"
import * as Facts from "./internal/facts.ts"
import { type Hook, hooksIn, type MiddlewareService } from "./internal/pipeline.ts"
import * as Reactions from "./internal/reactions.ts"
import * as Requests from "./internal/requests.ts"
import * as Table from "./internal/table.ts"
import { makeDispatch, makeItems, type Parts, unguarded, type Use, useOf, wrongShape } from "./internal/untyped.ts"
import type { Expectations, Journal } from "./Journal.ts"
import { type Answer, DeclaredFailure, type DispatchOptions, KsiService, type KsiShape, type StreamOptions, type SubscribeOptions } from "./KsiService.ts"
import * as StreamTimeout from "./StreamTimeout.ts"
import { Subscriptions } from "./Subscription.ts"

/** Who has to do with an event, in order. */
export interface Wiring {
  readonly middleware: ReadonlyArray<string>
  readonly handlers: ReadonlyArray<{ readonly name: string; readonly execution: "concurrent" | "sequential" }>
  readonly observers: ReadonlyArray<string>
}

/** The table of events and handlers, and the untyped door through it. */
export class Router extends Context.Service<Router, {
  readonly registry: EventRegistry.EventRegistry
  /**
   * Adds an event without a handler until the scope closes, behind the hooks given. Fails with `PluginInvalid` when the
   * name is taken by another definition.
   */
  readonly define: (event: Event.Any, hooks?: ReadonlyArray<Hook>) => Effect.Effect<void, KsiError.KsiError, Scope.Scope>
  /** Adds a handler after those there are, and its event, until the scope closes. */
  readonly handle: (event: Event.Any, handler: HandlerEntry) => Effect.Effect<void, KsiError.KsiError, Scope.Scope>
  /** Puts a hook before all events that the pattern matches, outside of their own, until the scope closes. */
  readonly use: (hook: Hook, pattern: EventPattern.EventPattern) => Effect.Effect<void, never, Scope.Scope>
  /** Runs a handler on every event that the pattern matches, beside its handlers, until the scope closes. */
  readonly observe: (pattern: EventPattern.EventPattern, observer: HandlerEntry) => Effect.Effect<void, never, Scope.Scope>
  /** How many handlers an event has. */
  readonly handlers: (name: string) => number
  /** Who stands before an event, who handles it and who observes it, by name and in order. */
  readonly describe: (name: string) => Wiring
  /** Runs the handler that a dead letter names once more, as a new envelope caused by the old one. */
  readonly rerun: (letter: Letter) => Effect.Effect<void, KsiError.KsiError>
  /**
   * Makes the envelope of something that comes from outside; hand it to `dispatch`. Whoever accepts it says who asks
   * (`principal`): without one it is the owner.
   */
  readonly envelope: (name: string, data: unknown, labels?: Partial<Causation.Origin>) => Causation.LiveEnvelope
  /**
   * As `envelope`, of a fact that was made elsewhere: it keeps its identity, its time and its attributes, but those in which KSI
   * says who sent it and what caused it (`Envelope.receivedFact`). One that is stored
   * already is not stored again, and its handlers do not run again; `IdConflict` where it says something else. Its `subject`,
   * where it has one, must be the stream that the definition puts it in.
   */
  readonly received: (fact: NewFact, labels: Partial<Causation.Origin>) => Causation.LiveEnvelope
  /**
   * Runs an envelope made by `envelope`, if its principal may (`PermissionDenied`, `Unauthenticated`). Completes at once where
   * its handler does.
   */
  readonly dispatch: (
    envelope: Causation.LiveEnvelope,
    as?: DispatchOptions["as"]
  ) => Effect.Effect<Answer, KsiError.KsiError | DeclaredFailure>
  /**
   * `dispatch`, begun at once and without a fiber: an `Exit` where it completes at once, else what is left of it, for a fiber
   * of its own to run, once. `surroundings` is a fiber in whose context both are; nothing is done to it.
   */
  readonly begin: (
    surroundings: Fiber.Fiber<unknown, unknown>,
    envelope: Causation.LiveEnvelope
  ) => Effect.Effect<Answer, KsiError.KsiError | DeclaredFailure>
  /**
   * The items of an envelope made by `envelope`, as JSON, many at a time as the handler makes them. Nothing is asked before the
   * first pull; it fails as `dispatch` does.
   */
  readonly items: (envelope: Causation.LiveEnvelope) => Stream.Stream<unknown, KsiError.KsiError | DeclaredFailure>
  /** Waits until no fact handler runs. */
  readonly settled: Effect.Effect<void>
  /** Whether no fact handler runs. */
  readonly isSettled: () => boolean
}>()("ksi/bus/Router") {
  /** The router, and the `Ksi` service over it. */
  static readonly layer: Layer.Layer<Router | KsiService, never, Journal | Activity | DeadLetters | Subscriptions> = Layer.effectContext(
    Effect.suspend(() => make)
  )
}

const knows = (event: Event.Any, middleware: string): boolean => event.middleware.some(({ name }) => name === middleware)

// Whether an event knows every error that its hooks may bring in.
const knowsAll = (event: Event.Any, { hooks, mayRefuse }: Table.TableEntry): boolean =>
  !mayRefuse || hooks.every(({ name }) => knows(event, name))

/** The hook whose error this is, where the event declares neither the error nor the hook. */
const undeclared = (entry: Table.TableEntry | undefined, event: Event.Any, error: unknown): Hook | undefined => {
  if (entry === undefined || KsiError.is(error) || entry.codec.isError(error)) return undefined
  const hook = entry.hooks.find(({ error: schema }) => Schema.is(schema)(error))
  return hook === undefined || knows(event, hook.name) ? undefined : hook
}

type Said = (fiber: AnyFiber, event: never, payload: unknown) => Run

/**
 * Makes effects of an event and a payload. They have both in them and share what is done with them: a closure for each
 * would cost more than reading three fields. So do all routers: a class of its own would cost each a fifth of its start.
 */
const effectOf = (label: string) => {
  class Saying {
    readonly run: Said
    readonly event: Event.Any
    readonly payload: unknown
    constructor(run: Said, event: Event.Any, payload: unknown) {
      this.run = run
      this.event = event
      this.payload = payload
    }
  }
  Object.setPrototypeOf(Saying.prototype, Effectable.Prototype<Run & Saying>({
    label,
    evaluate(fiber) {
      // Of the kind that `run` is for: both come from one place, below.
      return this.run(fiber, this.event as never, this.payload)
    }
  }))
  return <Ev extends Event.Any>(run: (fiber: AnyFiber, event: Ev, payload: unknown) => Run) => (event: Ev, payload: unknown): Run =>
    new Saying(run, event, payload) as unknown as Run // by its prototype
}

const callOf = effectOf("Ksi.call")
const emitOf = effectOf("Ksi.emit")

/** `call`, `emit` and `stream`: typed values in, typed values out. */
const makeTyped = ({ facts, requests, table }: Parts) => {
  /** What an event is here, if it may be used so. */
  const find = (event: Event.Any, used: Use): Table.TableEntry | undefined => {
    const entry = table.get(event.name)
    return entry !== undefined && useOf(entry.event) === used && entry.unguarded === undefined ? entry : undefined
  }
  /** Why it may not. */
  const refused = (event: Event.Any, used: Use) => {
    const entry = table.get(event.name)
    if (entry === undefined) return table.unknown(event.name)
    return useOf(entry.event) === used ? unguarded(entry) : wrongShape(entry.event, used)
  }
  // An error that a middleware of the runtime brought in, and that the caller's event does not know.
  const rejected = (event: Event.Any, error: unknown) => {
    const hook = undeclared(table.get(event.name), event, error)
    return hook === undefined ? error : KsiError.make(
      new KsiError.Rejected({ event: event.name, middleware: hook.name, problem: KsiError.sentenceOf(error) })
    )
  }
  const told = (event: Event.Any, run: Run): Run => Effect.mapError(run, (error) => rejected(event, error))
  const call = callOf((fiber, event: Event.AnyRequest, payload) => {
    const entry = find(event, "call")
    if (entry === undefined) return refused(event, "call")
    const run = requests.call(fiber, entry, payload)
    return knowsAll(event, entry) ? enter(fiber, run) : enterWithin(fiber, told(event, run), run)
  })
  const emitting = (fiber: AnyFiber, event: Event.AnyFact, payload: unknown, expects?: Expectations): Run => {
    const entry = find(event, "emit")
    if (entry === undefined || !Facts.isFactEntry(entry)) return refused(event, "emit")
    let data: unknown
    try {
      // What it throws says nothing; below it is said again.
      data = entry.codec.quickPayload?.(payload)
    } catch {}
    if (data === undefined) {
      const made = entry.codec.makePayload(payload)
      if (Exit.isFailure(made)) return made
      data = made.value
    }
    const run = facts.emit(fiber, entry, table.child(fiber, event.name, data), expects)
    return knowsAll(event, entry) ? enter(fiber, run) : enterWithin(fiber, told(event, run), run)
  }
  const plainly = emitOf(emitting)
  const emit = (event: Event.AnyFact, payload: unknown, { condition, expectedVersion, expectedVersions }: Expectations = {}): Run =>
    (condition ?? expectedVersion ?? expectedVersions) === undefined
      ? plainly(event, payload)
      : Effect.withFiber((fiber: AnyFiber) => emitting(fiber, event, payload, { condition, expectedVersion, expectedVersions }))
  const items = (event: Event.AnyRequest, payload: unknown): Stream.Stream<unknown, unknown> =>
    Stream.unwrap(Effect.withFiber((fiber: AnyFiber): Effect.Effect<Stream.Stream<unknown, unknown>, unknown> => {
      const entry = find(event, "stream")
      if (entry === undefined) return refused(event, "stream")
      const made = entry.codec.makePayload(payload)
      if (Exit.isSuccess(made)) return Effect.succeed(requests.items(entry, table.child(fiber, event.name, made.value)))
      // Answers with the failure it is given.
      return requests.rejected(fiber, entry, payload, made) as Effect.Effect<never, unknown>
    }))
  const stream = (event: Event.AnyRequest, payload: unknown, options?: StreamOptions) => StreamTimeout.within(event.name, items(event, payload), options)
  return { call, emit, stream }
}

const makeSubscribe = (table: Table.Table, subscriptions: Subscriptions["Service"]) =>
  // `unwrap` gives the subscription the scope of the stream: it closes when the stream ends, however it ends.
  (target: string | Event.AnyFact, options?: SubscribeOptions) =>
    Stream.unwrap(Effect.gen(function*() {
      if (typeof target === "string") {
        const { next } = yield* subscriptions.open(target, options)
        return Stream.fromPull(Effect.succeed(next))
      }
      const entry = table.get(target.name)
      if (entry === undefined) return yield* table.unknown(target.name)
      if (!Facts.isFactEntry(entry)) return yield* wrongShape(entry.event, "subscribe")
      // What was stored under another name is the same fact.
      const { next } = yield* subscriptions.open([target.name, ...target.formerly], options)
      return Stream.mapEffect(Stream.fromPull(Effect.succeed(next)), (delivery) =>
        Effect.map(entry.codec.decodeFact(delivery, delivery.dataVersion), (data): Envelope.Delivery => ({ ...delivery, name: target.name, data })))
    }))

const wiringOf = ({ reactions, table }: Parts, name: string): Wiring => {
  const entry = table.get(name)
  return {
    middleware: entry?.hooks.map((hook) => hook.name) ?? [],
    handlers: entry?.handlers.map(({ execution = "concurrent", name }) => ({ name, execution })) ?? [],
    observers: reactions.observers.of(name).map((observer) => observer.name)
  }
}

const rerun = ({ reactions, table }: Parts, letter: Letter): Effect.Effect<void, KsiError.KsiError> =>
  Effect.withFiber((fiber: AnyFiber) => {
    const { event, handler: name } = letter
    const entry = table.get(event.name)
    if (entry === undefined) return table.unknown(event.name)
    const handler = entry.handlers.find((candidate) => candidate.name === name) ?? reactions.observers.of(event.name).find((candidate) => candidate.name === name)
    if (handler === undefined) {
      return KsiError.fail(new KsiError.NotFound({ what: "handler", id: name, similar: entry.handlers.map((each) => each.name) }))
    }
    const decoded = entry.codec.decodeFact(event, event.attributes[versionAttribute])
    if (Exit.isFailure(decoded)) return Exit.failCause(decoded.cause)
    const again = table.again(fiber, event, decoded.value)
    return Effect.asVoid(reactions.run(entry, handler, again)).pipe(Effect.catchCause((cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.interrupt : KsiError.fail(
        new KsiError.HandlerFailed({ event: event.name, handler: name, problem: KsiError.sentenceOf(Cause.squash(cause)) })
      )
    ))
  })

/** What `Router.layer` provides: the router, and the five words over it. */
export const make = Effect.gen(function*() {
  const subscriptions = yield* Subscriptions
  const table = yield* Table.make
  const reactions = yield* Reactions.make(table)
  const facts = yield* Facts.make(table, reactions)
  const requests = yield* Requests.make(table, reactions)
  const door = yield* Doors.make(table)
  const parts = { door, table, facts, requests, reactions }
  const { begin, dispatch } = makeDispatch(parts)
  const untyped = {
    ...makeTyped(parts),
    subscribe: makeSubscribe(table, subscriptions),
    dispatch: (name: string, data: unknown, options?: DispatchOptions) =>
      Effect.withFiber((fiber: AnyFiber) => dispatch(table.child(fiber, name, data, options), options?.as))
  }
  const router = Router.of({
    registry: table.registry,
    define: (event, hooks) => Effect.asVoid(table.define(event, hooks)),
    handle: table.handle,
    use: (hook, pattern) => Effect.asVoid(table.use(hook, pattern)),
    observe: (pattern, observer) => Effect.asVoid(reactions.observers.add(pattern, observer)),
    handlers: (name) => table.get(name)?.handlers.length ?? 0,
    describe: (name) => wiringOf(parts, name),
    rerun: (letter) => rerun(parts, letter),
    envelope: table.root,
    received: table.received,
    dispatch,
    begin,
    items: makeItems(parts),
    settled: reactions.settled,
    isSettled: reactions.isSettled
  })
  // The router is untyped inside; the five words put the types of the definitions back on.
  return Context.make(Router, router).pipe(Context.add(KsiService, KsiService.of(untyped as unknown as KsiShape)))
})

/** What `serve` asks for: the handlers of the group's requests, and its middleware. */
export type Needs<Evs extends Event.Any> = HandlerFor<Evs> | MiddlewareFor<Event.MiddlewareOf<Evs>["name"]>

type MiddlewareFor<Name extends string> = Name extends string ? MiddlewareService<Name> : never

const serveGroup = (group: AnyGroup, builtin: boolean) =>
  Layer.effectDiscard(Effect.gen(function*() {
    const router = yield* Router
    const context = yield* Effect.context<never>()
    for (const event of Object.values(group.events)) {
      const namespace = EventName.namespace(event.name)
      if (!builtin && EventName.reserved.has(namespace)) {
        const problem = `the namespace "${namespace}" belongs to KSI`
        return yield* KsiError.fail(new KsiError.PluginInvalid({ plugin: event.name, problem }))
      }
      const hooks = hooksIn(context, event.middleware)
      const missing = event.middleware.find(({ name }) => !hooks.some((hook) => hook.name === name))
      // The types ask for it; where a cast got past them, the event would stand open to everybody.
      if (missing !== undefined) {
        const problem = `${event.name} stands behind the middleware "${missing.name}": provide its layer`
        return yield* KsiError.fail(new KsiError.PluginInvalid({ plugin: namespace, problem }))
      }
      yield* router.define(event, hooks)
      const handler = Context.getOption(context, handlerKey(event.name))
      if (handler._tag === "None") continue
      // The scope of the layer is not the scope of one call: a handler that needs one says so in its type.
      const own = Causation.servicesOf(handler.value.context)
      yield* router.handle(event, { ...handler.value, context: own })
    }
  }))

/**
 * Serves a group's events until the layer closes. Its type asks for exactly the group's handlers and middleware, so that
 * a missing one does not compile. Fails with `PluginInvalid` for a name that is defined otherwise or reserved, and for an
 * event whose middleware is not there.
 */
export const serve = <Evs extends Event.Any>(
  group: EventGroup<Evs>
): Layer.Layer<never, KsiError.KsiError, Router | Needs<Evs>> =>
  // Handlers and middleware are found in the context by name; the type says that they are there.
  serveGroup(group, false) as Layer.Layer<never, KsiError.KsiError, Router | Needs<Evs>>

/** `serve` for KSI's own plugins, which may use the reserved namespaces. */
export const serveBuiltin = <Evs extends Event.Any>(
  group: EventGroup<Evs>
): Layer.Layer<never, KsiError.KsiError, Router | Needs<Evs>> =>
  // As in `serve`.
  serveGroup(group, true) as Layer.Layer<never, KsiError.KsiError, Router | Needs<Evs>>

/** How a handler is run. */
export interface HandleOptions<Ev extends Event.Any> {
  /** Whether it starts together with its concurrent neighbours, or only when all before it passed. Default: concurrent. */
  readonly execution?: "concurrent" | "sequential"
  /** How long it may take; a timeout is an answer (`DeadlineExceeded`), and for a fact a dead letter. */
  readonly timeout?: Duration.Input
  /** One at a time for each key, in the order of arrival. */
  readonly key?: (payload: Event.Payload<Ev>) => string
  /** What `describe` and dead letters call it. Default: the event's name and its place. */
  readonly name?: string
}

type HandlerOf<Ev extends Event.Any> = Ev extends Event.AnyRequest ? RequestHandler<Ev>
  : Ev extends Event.AnyFact ? FactHandler<Ev>
  : never

const millisOf = (input: Duration.Input | undefined): number | undefined =>
  input === undefined ? undefined : Duration.toMillis(Duration.fromInputUnsafe(input))

/**
 * One more handler of an event, after those registered before it. Several handlers may answer one request: the reply
 * rule says whose answer counts. A handler that has none says `Router.pass`.
 */
export const handle = <Ev extends Event.Any, H extends HandlerOf<Ev>>(
  event: Ev,
  handler: H,
  options: HandleOptions<Ev> = {}
): Layer.Layer<never, KsiError.KsiError, Router | Exclude<ServicesOfReturn<ReturnOf<H>>, ProvidedTo<Ev>>> =>
  Layer.effectDiscard(Effect.gen(function*() {
    const router = yield* Router
    const context = Causation.servicesOf(yield* Effect.context<never>())
    yield* router.handle(event, {
      name: options.name ?? `${event.name}#${router.handlers(event.name) + 1}`,
      // Both were checked against the event just above.
      run: handler as unknown as HandlerEntry["run"],
      key: options.key as HandlerEntry["key"],
      context: context as Context.Context<never>,
      execution: options.execution,
      timeoutMillis: millisOf(options.timeout)
    })
    // What the handler needs was taken from the context; the layer's type, given above, asks for it.
  })) as Layer.Layer<never, KsiError.KsiError, never>

type ReturnOf<H> = H extends (...args: never) => infer X ? X : never

/**
 * Runs an effect on every event that the pattern matches, requests and facts, beside their handlers. It never changes a
 * reply; what fails goes to the dead letters.
 */
export const observe = <R>(
  pattern: string,
  observer: (envelope: Envelope.Envelope) => Effect.Effect<unknown, unknown, R>,
  options: { readonly timeout?: Duration.Input; readonly name?: string; readonly key?: (data: unknown) => string } = {}
): Layer.Layer<never, KsiError.KsiError, Router | R> =>
  Layer.effectDiscard(Effect.gen(function*() {
    const router = yield* Router
    const parsed = EventPattern.parse(pattern)
    if (Result.isFailure(parsed)) return yield* KsiError.fail(parsed.failure)
    const context = Causation.servicesOf(yield* Effect.context<never>())
    yield* router.observe(parsed.success, {
      name: options.name ?? `observer of ${pattern}`,
      run: (_, envelope) => observer(envelope),
      // The services it needs are in it: the layer's type asked for them.
      context: context as Context.Context<never>,
      key: options.key,
      timeoutMillis: millisOf(options.timeout)
    })
  }))

/** "Not mine": the next handler is asked. Whose call it is gets `NoHandler` when all of them pass. */
export const pass: Effect.Effect<never, KsiError.KsiError> = Answers.pass
