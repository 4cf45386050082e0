/**
 * Where an event goes: one table, one entry per event, its schemas compiled when it is defined.
 *
 * The rule, for a request: decode, look at depth and deadline, run the handler in the context of its own layer plus the
 * envelope, check the reply, record the activity. For a fact: decode, append, publish (the store does), then run its
 * handlers, each on its own. A handler that completes at once completes the call at once: no fiber, no promise.
 *
 * **Example**
 *
 * ```ts
 * const router = yield* Router
 * yield* router.handle(Ping, { name: Ping.name, run: () => Effect.succeed("pong"), context: Context.empty() })
 * yield* router.dispatch(router.envelope("net:ping", {}))     // { kind: "value", value: "pong" }
 * ```
 *
 * **Gotchas** A handler does not see the caller's services, only those of its own layer: plugins are isolated. Two
 * layers of handlers for one group cannot be merged: the later one takes the place of the earlier one.
 *
 * Source: seed section 2.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Envelope from "../event/Envelope.ts"
import type * as Event from "../event/Event.ts"
import { type AnyGroup, type EventGroup, type Handler, type HandlerEntry, handlerKey } from "../event/EventGroup.ts"
import * as EventName from "../event/EventName.ts"
import type * as EventRegistry from "../event/EventRegistry.ts"
import * as KsiError from "../event/KsiError.ts"
import type { Activity } from "./Activity.ts"
import type * as Causation from "./Causation.ts"
import type { AnyExit, AnyFiber, Run } from "./internal/drive.ts"
import * as Facts from "./internal/facts.ts"
import * as Requests from "./internal/requests.ts"
import * as Table from "./internal/table.ts"
import type { Journal } from "./Journal.ts"
import { type Answer, DeclaredFailure, type DispatchOptions, KsiService, type KsiShape, type SubscribeOptions } from "./KsiService.ts"
import { Subscriptions } from "./Subscription.ts"

/** The table of events and handlers, and the untyped door through it. */
export class Router extends Context.Service<Router, {
  readonly registry: EventRegistry.EventRegistry
  /**
   * Adds an event without a handler until the scope closes. Fails with `PluginInvalid` when the name is taken by another
   * definition.
   */
  readonly define: (event: Event.Any) => Effect.Effect<void, KsiError.KsiError, Scope.Scope>
  /**
   * Adds a handler, and its event, until the scope closes. A request has one handler: a second fails with
   * `PluginInvalid`. A fact may have many.
   */
  readonly handle: (event: Event.Any, handler: HandlerEntry) => Effect.Effect<void, KsiError.KsiError, Scope.Scope>
  /** How many handlers an event has. */
  readonly handlers: (name: string) => number
  /** Makes the envelope of something that comes from outside; hand it to `dispatch`. */
  readonly envelope: (name: string, data: unknown, labels?: Partial<Causation.Origin>) => Causation.LiveEnvelope
  /** Runs an envelope made by `envelope`. Completes at once where its handler does. */
  readonly dispatch: (
    envelope: Causation.LiveEnvelope,
    as?: DispatchOptions["as"]
  ) => Effect.Effect<Answer, KsiError.KsiError | DeclaredFailure>
  /** Waits until no fact handler runs. */
  readonly settled: Effect.Effect<void>
}>()("ksi/bus/Router") {
  /** The router, and the `Ksi` service over it. */
  static readonly layer: Layer.Layer<Router | KsiService, never, Journal | Activity | Subscriptions> = Layer.effectContext(
    Effect.suspend(() => make)
  )
}

type Use = "call" | "emit" | "stream"

const useOf = (event: Event.Any): Use => event.kind === "fact" ? "emit" : event.mode

const wrongShape = (event: Event.Any, used: string) =>
  KsiError.exit(new KsiError.WrongShape({ event: event.name, used, expected: useOf(event) }))

interface Parts {
  readonly table: Table.Table
  readonly requests: Requests.Requests
  readonly facts: Facts.Facts
}

/** `call`, `emit` and `stream`: typed values in, typed values out. */
const makeTyped = ({ facts, requests, table }: Parts) => {
  const open = <A>(
    event: Event.Any,
    payload: unknown,
    used: Use,
    run: (fiber: AnyFiber, entry: Table.TableEntry, envelope: Causation.LiveEnvelope) => Effect.Effect<A, unknown>
  ): Effect.Effect<A, unknown> =>
    Effect.withFiber((fiber: AnyFiber) => {
      const entry = table.get(event.name)
      if (entry === undefined) return table.unknown(event.name)
      if (useOf(entry.event) !== used) return wrongShape(entry.event, used)
      const made = entry.codec.makePayload(payload)
      if (Exit.isSuccess(made)) return run(fiber, entry, table.child(fiber, event.name, made.value))
      if (used === "emit") return Exit.failCause(made.cause)
      // Answers with the failure it is given.
      return requests.rejected(entry, table.child(fiber, event.name, payload), made) as Effect.Effect<never, unknown>
    })
  const call = (event: Event.AnyRequest, payload: unknown): Run => open(event, payload, "call", requests.run)
  const emit = (event: Event.AnyFact, payload: unknown): Run =>
    open(event, payload, "emit", (_, entry, envelope) =>
      Facts.isFactEntry(entry) ? facts.emit(entry, envelope) : wrongShape(entry.event, "emit"))
  const stream = (event: Event.AnyRequest, payload: unknown): Stream.Stream<unknown, unknown> =>
    Stream.unwrap(open(event, payload, "stream", (_, entry, envelope) => Effect.succeed(requests.items(entry, envelope))))
  return { call, emit, stream }
}

/** A reply as JSON. One that its schema accepts and JSON does not (a bigint where anything is allowed) is invalid too. */
const encodeValue = (entry: Table.TableEntry, value: unknown): Exit.Exit<Answer, KsiError.KsiError> => {
  try {
    return Exit.succeed({ kind: "value", value: entry.codec.encodeSuccess(value) })
  } catch (cause) {
    const problem = cause instanceof Error ? cause.message : String(cause)
    return KsiError.exit(new KsiError.ReplyInvalid({ event: entry.event.name, problems: [{ path: "", problem }] }))
  }
}

/** What is left of an exit at a boundary: JSON, an error that may be told, or something that broke. */
const encodeExit = (
  entry: Table.TableEntry,
  envelope: Envelope.Envelope,
  exit: AnyExit
): Effect.Effect<Answer, KsiError.KsiError | DeclaredFailure> => {
  if (Exit.isSuccess(exit)) return encodeValue(entry, exit.value)
  const error = Cause.findErrorOption(exit.cause)
  if (error._tag === "Some") {
    if (KsiError.is(error.value)) return Exit.fail(error.value)
    if (entry.codec.isError(error.value)) {
      const message = error.value instanceof Error && error.value.message !== "" ? error.value.message : undefined
      return Exit.fail(
        new DeclaredFailure({
          event: envelope.name,
          error: entry.codec.encodeError(error.value),
          message: message ?? `${envelope.name} failed`
        })
      )
    }
  }
  // What is left is a defect or an interruption; it stays what it is, and the boundary hides its text.
  const cause = Cause.fromReasons<never>(exit.cause.reasons.map((reason) =>
    reason._tag === "Fail" ? Cause.makeDieReason(reason.error) : reason
  ))
  if (Cause.hasInterruptsOnly(cause)) return Exit.failCause(cause)
  return Effect.logError(`a handler of ${envelope.name} died`, cause).pipe(
    Effect.annotateLogs({ event: envelope.name, id: envelope.id, correlationId: envelope.metadata.correlationId }),
    Effect.andThen(Exit.failCause(cause))
  )
}

/** `dispatch`: JSON in, JSON out. */
const makeDispatch = ({ facts, requests, table }: Parts): Router["Service"]["dispatch"] => (envelope, as) =>
  Effect.withFiber((fiber: AnyFiber): Effect.Effect<Answer, KsiError.KsiError | DeclaredFailure> => {
    const entry = table.get(envelope.name)
    if (entry === undefined) return table.unknown(envelope.name)
    const use = useOf(entry.event)
    if (as !== undefined && as !== use) return wrongShape(entry.event, as)
    if (use === "stream") return wrongShape(entry.event, "call")
    const decoded = entry.codec.decodePayload(envelope.data ?? {})
    if (Facts.isFactEntry(entry)) {
      if (Exit.isFailure(decoded)) return Exit.failCause(decoded.cause)
      envelope.data = decoded.value
      return Effect.map(facts.emit(entry, envelope), ({ id, position, version }): Answer => ({
        kind: "fact", id, position: Number(position), version
      }))
    }
    if (Exit.isSuccess(decoded)) envelope.data = decoded.value
    const run = Exit.isSuccess(decoded) ? requests.run(fiber, entry, envelope) : requests.rejected(entry, envelope, decoded)
    return Exit.isExit(run)
      ? encodeExit(entry, envelope, run)
      : Effect.flatMap(Effect.exit(run), (exit) => encodeExit(entry, envelope, exit))
  })

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
      const { next } = yield* subscriptions.open(target.name, options)
      return Stream.mapEffect(Stream.fromPull(Effect.succeed(next)), (delivery) =>
        Effect.map(entry.codec.decodePayload(delivery.data), (data): Envelope.Delivery => ({ ...delivery, data })))
    }))

const make = Effect.gen(function*() {
  const subscriptions = yield* Subscriptions
  const table = yield* Table.make
  const facts = yield* Facts.make(table)
  const requests = yield* Requests.make(table)
  const parts = { table, facts, requests }
  const dispatch = makeDispatch(parts)
  const untyped = {
    ...makeTyped(parts),
    subscribe: makeSubscribe(table, subscriptions),
    dispatch: (name: string, data: unknown, { as, ...labels }: DispatchOptions = {}) =>
      Effect.withFiber((fiber: AnyFiber) => dispatch(table.child(fiber, name, data, labels), as))
  }
  const router = Router.of({
    registry: table.registry,
    define: (event) => Effect.asVoid(table.define(event)),
    handle: table.handle,
    handlers: (name) => table.get(name)?.handlers.length ?? 0,
    envelope: table.root,
    dispatch,
    settled: facts.settled
  })
  // The router is untyped inside; the five words put the types of the definitions back on.
  return Context.make(Router, router).pipe(Context.add(KsiService, KsiService.of(untyped as unknown as KsiShape)))
})

type RequestsOf<Evs extends Event.Any> = Evs extends Event.AnyRequest ? Handler<Evs["name"]> : never

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
      yield* router.define(event)
      const handler = Context.getOption(context, handlerKey(event.name))
      if (handler._tag === "None") continue
      // The scope of the layer is not the scope of one call: a handler that needs one says so in its type.
      const own = Context.omit(Scope.Scope)(handler.value.context) as Context.Context<never>
      yield* router.handle(event, { ...handler.value, context: own })
    }
  }))

/**
 * Serves a group's events until the layer closes. Its type asks for exactly the group's handlers, so that a missing
 * one does not compile. Fails with `PluginInvalid` for a name that is defined otherwise, handled already or reserved.
 */
export const serve = <Evs extends Event.Any>(
  group: EventGroup<Evs>
): Layer.Layer<never, KsiError.KsiError, Router | RequestsOf<Evs>> =>
  // The handlers are found in the context by name; the type says that they are there.
  serveGroup(group, false) as Layer.Layer<never, KsiError.KsiError, Router | RequestsOf<Evs>>

/** `serve` for KSI's own plugins, which may use the reserved namespaces. */
export const serveBuiltin = <Evs extends Event.Any>(
  group: EventGroup<Evs>
): Layer.Layer<never, KsiError.KsiError, Router | RequestsOf<Evs>> =>
  // As in `serve`.
  serveGroup(group, true) as Layer.Layer<never, KsiError.KsiError, Router | RequestsOf<Evs>>
