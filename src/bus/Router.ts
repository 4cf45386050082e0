/**
 * Where an event goes: one table, one entry per event, compiled when the event is registered.
 *
 * The rule, for a request: decode, check the depth, run the handler in the context of its own layer plus the envelope,
 * check the reply, record the activity. For a fact: decode, append, publish (the store does), then run its handlers,
 * each on its own. A handler that completes at once completes the call at once: no fiber, no promise.
 *
 * **Example**
 *
 * ```ts
 * const router = yield* Router
 * yield* router.define(Ping)
 * yield* router.handle(Ping, { name: Ping.name, run: () => Effect.succeed("pong"), context: Context.empty() })
 * yield* router.ksi.call(Ping, {})            // "pong"
 * ```
 *
 * **Gotchas** A handler does not see the caller's services, only those of its own layer: plugins are isolated.
 *
 * Source: seed section 2.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Envelope from "../event/Envelope.ts"
import type * as Event from "../event/Event.ts"
import { type AnyGroup, type EventGroup, type Handler, type HandlerEntry, handlerKey } from "../event/EventGroup.ts"
import * as EventName from "../event/EventName.ts"
import * as EventRegistry from "../event/EventRegistry.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import { Activity } from "./Activity.ts"
import * as Causation from "./Causation.ts"
import { drive } from "./internal/drive.ts"
import { Journal } from "./Journal.ts"
import { type Answer, DeclaredFailure, type DispatchOptions, type Emitted, KsiService, type KsiShape, type SubscribeOptions } from "./KsiService.ts"
import { Subscriptions } from "./Subscription.ts"

interface TableEntry extends EventRegistry.Entry {
  readonly handlers: Array<HandlerEntry>
}

type Run = Effect.Effect<unknown, unknown>
type AnyExit = Exit.Exit<unknown, unknown>
type AnyFiber = Fiber.Fiber<unknown, unknown>

/** The table of events and handlers, and the doors through it. */
export class Router extends Context.Service<Router, {
  readonly registry: EventRegistry.EventRegistry
  /** Adds an event without a handler. Fails with `PluginInvalid` when the name is taken by another definition. */
  readonly define: (event: Event.Any) => Effect.Effect<void, KsiError.KsiError>
  /**
   * Adds a handler until the scope closes. A request has one handler: a second fails with `PluginInvalid`. A fact may
   * have many.
   */
  readonly handle: (event: Event.Any, handler: HandlerEntry) => Effect.Effect<void, KsiError.KsiError, Scope.Scope>
  /** How many handlers an event has. */
  readonly handlers: (name: string) => number
  /** Makes the envelope of something that comes from outside; hand it to `dispatch`. */
  readonly envelope: (name: string, data: unknown, options?: DispatchOptions) => Causation.LiveEnvelope
  /** Runs an envelope made by `envelope`. Completes at once where its handler does. */
  readonly dispatch: (
    envelope: Causation.LiveEnvelope,
    as?: DispatchOptions["as"]
  ) => Effect.Effect<Answer, KsiError.KsiError | DeclaredFailure>
  /** The five words over this router. */
  readonly ksi: KsiShape
  /** Waits until no fact handler runs. */
  readonly settled: Effect.Effect<void>
}>()("ksi/bus/Router") {
  /** The router, and the `Ksi` service over it. */
  static readonly layer: Layer.Layer<Router | KsiService, never, Journal | Activity | Subscriptions> = Layer.effectContext(
    Effect.suspend(() => make)
  )
}

const failedToWire = (plugin: string, problem: string) =>
  KsiError.fail(new KsiError.PluginInvalid({ plugin, problem }))

// The fast path of a handler: what it returned is an Exit already, or is driven to one without an effect in between.
const start = (handler: HandlerEntry, envelope: Envelope.Envelope): Run => {
  try {
    return drive(handler.run(envelope.data, envelope))
  } catch (defect) {
    return Exit.die(defect)
  }
}

/** Runs a handler in its own context plus the envelope, and gives the fiber its context back before `finish`. */
const runIn = (
  fiber: AnyFiber,
  handler: HandlerEntry,
  envelope: Envelope.Envelope,
  finish: (exit: AnyExit) => Run
): Run => {
  const previous = fiber.context
  fiber.setContext(Context.add(handler.context, Causation.Current, envelope))
  const run = start(handler, envelope)
  if (Exit.isExit(run)) {
    fiber.setContext(previous)
    return finish(run)
  }
  return Effect.onExitPrimitive(run, (exit) => {
    fiber.setContext(previous)
    const finished = finish(exit)
    // The type speaks of a finalizer; an exit it returns takes the place of the first one.
    return finished === exit ? undefined : finished as Effect.Effect<void, unknown>
  })
}

/** What every door needs: the table, ids, time, and the envelope of a child. */
const makeRouting = Effect.gen(function*() {
  const limits = yield* Limits
  const clock = yield* Clock.Clock
  const ids = Envelope.makeIds(yield* Random.nextIntBetween(0, 0xffff), yield* Random.nextIntBetween(0, 0xffffffff))
  const registry = EventRegistry.make()
  const table = new Map<string, TableEntry>()
  const child = (fiber: AnyFiber, name: string, data: unknown): Causation.LiveEnvelope => {
    const parent = fiber.getRef(Causation.Current)
    return new Causation.LiveEnvelope(
      name, data, parent, Causation.originOf(parent), clock.currentTimeMillisUnsafe(), ids
    )
  }
  const tooDeep = (envelope: Causation.LiveEnvelope): Exit.Exit<never, KsiError.KsiError> | undefined =>
    envelope.depth > limits.depth
      ? KsiError.exit(
        new KsiError.LimitExceeded({ limit: "depth", max: limits.depth, actual: envelope.depth, retryable: false })
      )
      : undefined
  const noHandler = (event: string) => new KsiError.NoHandler({ event, passed: 0, similar: registry.similar(event) })
  return {
    registry, table, clock, ids, child, tooDeep, noHandler,
    unknown: (name: string) => KsiError.exit(registry.unknown(name))
  }
})

type Routing = Effect.Success<typeof makeRouting>

const leaveOut = () => null

/** Runs requests: depth, deadline, handler, check of the reply, activity. */
const makeRequests = Effect.fnUntraced(function*({ clock, noHandler, tooDeep }: Routing) {
  const activity = yield* Activity
  const subscriptions = yield* Subscriptions

  const checked = (entry: TableEntry, exit: AnyExit): AnyExit => {
    if (Exit.isFailure(exit) || entry.codec.isSuccess(exit.value)) return exit
    const problems = entry.codec.successProblems(exit.value)
    return KsiError.exit(new KsiError.ReplyInvalid({ event: entry.event.name, problems }))
  }

  const record = (entry: TableEntry, envelope: Causation.LiveEnvelope, exit: AnyExit, startedAt: bigint): Run => {
    const duration = Number(clock.currentTimeNanosUnsafe() - startedAt) / 1e6
    const encode = entry.event.annotations.audit === "outline" ? leaveOut : entry.codec.encodePayload
    const wait = activity.record({ envelope, encode, exit, duration })
    return wait === undefined ? exit : Effect.flatMap(wait, () => exit)
  }

  const withDeadline = (
    fiber: AnyFiber,
    envelope: Causation.LiveEnvelope,
    run: (fiber: AnyFiber) => Run
  ): Run => {
    const { deadline } = envelope
    // Nested calls are interrupted together with the root, which carries the deadline of the whole tree.
    if (deadline === undefined || envelope.depth > 0) return run(fiber)
    const millis = deadline - clock.currentTimeMillisUnsafe()
    const late = KsiError.exit(new KsiError.DeadlineExceeded({ event: envelope.name, millis }))
    return millis <= 0 ? late : Effect.timeoutOrElse(Effect.withFiber(run), { duration: millis, orElse: () => late })
  }

  return (fiber: AnyFiber, entry: TableEntry, envelope: Causation.LiveEnvelope): Run => {
    const startedAt = clock.currentTimeNanosUnsafe()
    subscriptions.publishRequest(envelope)
    const deep = tooDeep(envelope)
    if (deep !== undefined) return record(entry, envelope, deep, startedAt)
    const handler = entry.handlers[0]
    if (handler === undefined) return record(entry, envelope, KsiError.exit(noHandler(envelope.name)), startedAt)
    return withDeadline(fiber, envelope, (running) =>
      runIn(running, handler, envelope, (exit) => record(entry, envelope, checked(entry, exit), startedAt)))
  }
})

type Request = Effect.Success<ReturnType<typeof makeRequests>>

/** Appends facts, and runs their handlers. */
const makeFacts = Effect.fnUntraced(function*(routing: Routing) {
  const journal = yield* Journal
  const limits = yield* Limits
  const running = yield* FiberSet.make()
  const fork = yield* FiberSet.runtime(running)()
  let inFlight = 0

  const forkHandler = (handler: HandlerEntry, envelope: Envelope.Envelope): void => {
    const run = Effect.suspend(() => start(handler, envelope)).pipe(
      Effect.timeout(limits.factHandlerMillis),
      Effect.provideContext(Context.add(handler.context, Causation.Current, envelope)),
      Effect.catchCause((cause) =>
        Cause.hasInterruptsOnly(cause) ? Effect.void : Effect.logError(`a handler of ${envelope.name} failed`, cause).pipe(
          Effect.annotateLogs({ event: envelope.name, id: envelope.id, correlationId: envelope.metadata.correlationId })
        )
      )
    )
    inFlight++
    fork(run).addObserver(() => {
      inFlight--
    })
  }

  const runHandlers = (entry: TableEntry, envelope: Envelope.Envelope): Effect.Effect<void> => {
    for (const handler of entry.handlers) {
      if (inFlight >= limits.factHandlers) {
        // The fact is durable; only this reaction to it is given up, loudly.
        return Effect.logError(`${limits.factHandlers} fact handlers are running; ${envelope.name} ${envelope.id} was not handled`)
      }
      forkHandler(handler, envelope)
    }
    return Effect.void
  }

  const emit = Effect.fnUntraced(function*(
    entry: TableEntry & { readonly event: Event.AnyFact },
    envelope: Causation.LiveEnvelope
  ): Effect.fn.Return<Emitted, KsiError.KsiError> {
    const deep = routing.tooDeep(envelope)
    if (deep !== undefined) return yield* deep
    const streamId = entry.event.streamId(envelope.data)
    const fact = Envelope.toFact(envelope, streamId, entry.codec.encodePayload(envelope.data))
    const [outcome] = yield* journal.append({ facts: [fact] })
    if (outcome === undefined) return yield* Effect.die(new Error("the journal answered without an outcome"))
    if (entry.handlers.length > 0) yield* runHandlers(entry, envelope)
    return { id: envelope.id, streamId, position: BigInt(outcome.position), version: outcome.version }
  })

  const settled = Effect.suspend(() => FiberSet.awaitEmpty(running))
  return { emit, settled }
})

type Facts = Effect.Success<ReturnType<typeof makeFacts>>

const isFactEntry = (entry: TableEntry): entry is TableEntry & { readonly event: Event.AnyFact } =>
  entry.event.kind === "fact"

const wrongShape = (event: Event.Any, used: string) => {
  const expected = event.kind === "fact" ? "emit" : event.mode === "stream" ? "stream" : "call"
  return KsiError.exit(new KsiError.WrongShape({ event: event.name, used, expected }))
}

/** `call`, `emit` and `stream`: typed values in, typed values out. */
const makeTyped = (routing: Routing, request: Request, facts: Facts) => {
  const open = (
    fiber: AnyFiber,
    event: Event.Any,
    payload: unknown,
    used: string,
    run: (entry: TableEntry, envelope: Causation.LiveEnvelope) => Run
  ): Run => {
    const entry = routing.table.get(event.name)
    if (entry === undefined) return routing.unknown(event.name)
    const fits = entry.event.kind === "fact" ? used === "emit" : used === entry.event.mode
    if (!fits) return wrongShape(entry.event, used)
    const made = entry.codec.makePayload(payload)
    return Exit.isFailure(made) ? made : run(entry, routing.child(fiber, event.name, made.value))
  }
  const call = (event: Event.AnyRequest, payload: unknown): Run =>
    Effect.withFiber((fiber) =>
      open(fiber, event, payload, "call", (entry, envelope) => request(fiber, entry, envelope))
    )
  const emit = (event: Event.AnyFact, payload: unknown): Run =>
    Effect.withFiber((fiber) =>
      open(fiber, event, payload, "emit", (entry, envelope) =>
        isFactEntry(entry) ? facts.emit(entry, envelope) : wrongShape(entry.event, "emit"))
    )
  const items = (entry: TableEntry, envelope: Causation.LiveEnvelope): Effect.Effect<Stream.Stream<unknown, unknown>, KsiError.KsiError> => {
    const handler = entry.handlers[0]
    if (handler === undefined) return KsiError.fail(routing.noHandler(envelope.name))
    // The handler's type, checked where it was written, says that it returns a Stream.
    const stream = handler.run(envelope.data, envelope) as Stream.Stream<unknown, unknown>
    return Effect.succeed(stream.pipe(
      Stream.mapEffect((item) =>
        entry.codec.isSuccess(item) ? Effect.succeed(item) : KsiError.fail(
          new KsiError.ReplyInvalid({ event: envelope.name, problems: entry.codec.successProblems(item) })
        )
      ),
      Stream.provideContext(Context.add(handler.context, Causation.Current, envelope))
    ))
  }
  const stream = (event: Event.AnyRequest, payload: unknown): Stream.Stream<unknown, unknown> =>
    Stream.unwrap(Effect.withFiber((fiber) =>
      // `items` succeeds with a stream, and nothing else does.
      open(fiber, event, payload, "stream", items) as Effect.Effect<Stream.Stream<unknown, unknown>, unknown>
    ))
  return { call, emit, stream }
}

const encodeExit = (entry: TableEntry, envelope: Envelope.Envelope, exit: AnyExit): Effect.Effect<Answer, KsiError.KsiError | DeclaredFailure> => {
  if (Exit.isSuccess(exit)) return Exit.succeed({ kind: "value", value: entry.codec.encodeSuccess(exit.value) })
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
const makeDispatch = (routing: Routing, request: Request, facts: Facts) =>
  (envelope: Causation.LiveEnvelope, as?: DispatchOptions["as"]): Effect.Effect<Answer, KsiError.KsiError | DeclaredFailure> => {
    const entry = routing.table.get(envelope.name)
    if (entry === undefined) return routing.unknown(envelope.name)
    const { event } = entry
    if (as !== undefined && as !== (event.kind === "fact" ? "emit" : "call")) return wrongShape(event, as)
    if (event.kind === "request" && event.mode === "stream") return wrongShape(event, "call")
    const decoded = entry.codec.decodePayload(envelope.data ?? {})
    if (Exit.isFailure(decoded)) return Exit.failCause(decoded.cause)
    envelope.data = decoded.value
    if (isFactEntry(entry)) {
      return Effect.map(facts.emit(entry, envelope), ({ id, position, version }): Answer => ({
        kind: "fact", id, position: Number(position), version
      }))
    }
    return Effect.withFiber((fiber) => {
      const run = request(fiber, entry, envelope)
      return Exit.isExit(run)
        ? encodeExit(entry, envelope, run)
        : Effect.flatMap(Effect.exit(run), (exit) => encodeExit(entry, envelope, exit))
    })
  }

const makeTable = (routing: Routing) => {
  const define = (event: Event.Any): Effect.Effect<TableEntry, KsiError.KsiError> =>
    Effect.suspend(() => {
      const registered = routing.registry.register(event)
      if (Result.isFailure(registered)) return failedToWire(event.name, registered.failure)
      const entry = routing.table.get(event.name) ?? { ...registered.success, handlers: [] }
      routing.table.set(event.name, entry)
      return Effect.succeed(entry)
    })
  const handle = Effect.fnUntraced(function*(event: Event.Any, handler: HandlerEntry) {
    const { handlers } = yield* define(event)
    if (event.kind === "request" && handlers.length > 0) {
      return yield* failedToWire(event.name, "it has a handler already")
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => handlers.push(handler)),
      () => Effect.sync(() => handlers.splice(handlers.indexOf(handler), 1))
    )
  })
  return { define, handle }
}

const make = Effect.gen(function*() {
  const subscriptions = yield* Subscriptions
  const routing = yield* makeRouting
  const facts = yield* makeFacts(routing)
  const { define, handle } = makeTable(routing)
  const request = yield* makeRequests(routing)
  const { call, emit, stream } = makeTyped(routing, request, facts)
  const dispatch = makeDispatch(routing, request, facts)

  // `unwrap` gives the subscription the scope of the stream: it closes when the stream ends, however it ends.
  const subscribe = (target: string | Event.AnyFact, options?: SubscribeOptions) =>
    Stream.unwrap(Effect.gen(function*() {
      const { next } = yield* subscriptions.open(typeof target === "string" ? target : target.name, options)
      const deliveries = Stream.fromPull(Effect.succeed(next))
      const codec = typeof target === "string" ? undefined : routing.table.get(target.name)?.codec
      return codec === undefined ? deliveries : Stream.mapEffect(deliveries, (delivery) =>
        Effect.map(codec.decodePayload(delivery.data), (data): Envelope.Delivery => ({ ...delivery, data })))
    }))

  const envelope: Router["Service"]["envelope"] = (name, data, options) =>
    new Causation.LiveEnvelope(
      name, data, undefined,
      options === undefined ? Causation.own : { ...Causation.own, ...options },
      routing.clock.currentTimeMillisUnsafe(), routing.ids
    )

  const untyped = {
    call,
    emit,
    stream,
    subscribe,
    dispatch: (name: string, data: unknown, options?: DispatchOptions) =>
      Effect.withFiber((fiber: AnyFiber) => {
        const parent = fiber.getRef(Causation.Current)
        const made = parent === undefined ? envelope(name, data, options) : routing.child(fiber, name, data)
        return dispatch(made, options?.as)
      })
  }
  // The router is untyped inside; the five words put the types of the definitions back on.
  const ksi = untyped as unknown as KsiShape

  return Context.make(
    Router,
    Router.of({
      registry: routing.registry,
      define: (event) => Effect.asVoid(define(event)),
      handle,
      handlers: (name) => routing.table.get(name)?.handlers.length ?? 0,
      envelope,
      dispatch,
      ksi,
      settled: facts.settled
    })
  ).pipe(Context.add(KsiService, KsiService.of(ksi)))
})

type RequestsOf<Evs extends Event.Any> = Evs extends Event.AnyRequest ? Handler<Evs["name"]> : never

const serveGroup = (group: AnyGroup, builtin: boolean) =>
  Layer.effectDiscard(Effect.gen(function*() {
    const router = yield* Router
    const context = yield* Effect.context<never>()
    for (const event of Object.values(group.events)) {
      if (!builtin && EventName.reserved.has(EventName.namespace(event.name))) {
        return yield* failedToWire(event.name, `the namespace "${EventName.namespace(event.name)}" belongs to KSI`)
      }
      yield* router.define(event)
      const handler = Context.getOption(context, handlerKey(event.name))
      if (handler._tag === "None") continue
      // The scope of the layer is not the scope of one call: a handler that needs one says so in its type.
      yield* router.handle(event, { ...handler.value, context: Context.omit(Scope.Scope)(handler.value.context) as Context.Context<never> })
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
