// What runs because of an event without answering it: the handlers of facts, and observers. Each in a fiber of its own,
// with its own timeout, isolated from all others; what fails goes to the dead letters.
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Tracer from "effect/Tracer"
import * as Envelope from "../../event/Envelope.ts"
import { attributesOf } from "../../event/Event.ts"
import type { HandlerEntry } from "../../event/EventGroup.ts"
import * as EventPattern from "../../event/EventPattern.ts"
import type { JsonObject } from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import { Limits } from "../../event/Limits.ts"
import * as TraceContext from "../../event/TraceContext.ts"
import { DeadLetters, type LetterReason } from "../DeadLetters.ts"
import { Current, labelsOf, LiveEnvelope, servicesOf } from "../Causation.ts"
import { Lanes } from "./answers.ts"
import { type Run, start, tell } from "./drive.ts"
import { reacting } from "./pipeline.ts"
import type { Table, TableEntry } from "./table.ts"

const reasonOf = (cause: Cause.Cause<unknown>): LetterReason => {
  const error = Cause.findErrorOption(cause)
  if (error._tag === "None") return "died"
  return Cause.isTimeoutError(error.value) ? "timed-out" : "failed"
}

const jsonOf = (entry: TableEntry, data: unknown): unknown => {
  try {
    return entry.codec.encodePayload(data)
  } catch {
    return null
  }
}

/** What says the version of the data, where that is not 1. */
const versionOf = ({ event }: TableEntry): JsonObject => event.kind === "fact" ? attributesOf(event) : {}

/** Keeps what failed. */
const makeUndertaker = Effect.fnUntraced(function*({ clock, meter }: Table) {
  const letters = yield* DeadLetters
  return (entry: TableEntry, handler: HandlerEntry, event: Envelope.Envelope, reason: LetterReason, error: string): void => {
    const position = "position" in event && typeof event.position === "bigint" ? Number(event.position) : undefined
    const { streamId } = event.metadata
    meter?.buried(reason)
    letters.record({
      handler: handler.name,
      reason,
      error,
      event: {
        id: event.id,
        name: event.name,
        data: jsonOf(entry, event.data),
        streamId,
        position,
        attributes: { ...Envelope.toFact(event, streamId ?? "", undefined).attributes, ...versionOf(entry) }
      },
      timestamp: clock.currentTimeMillisUnsafe()
    })
  }
})

const makeObservers = () => {
  const observers = EventPattern.makeTrie<HandlerEntry>()
  const none: ReadonlyArray<HandlerEntry> = []
  const of = (name: string): ReadonlyArray<HandlerEntry> => {
    if (observers.isEmpty()) return none
    const found: Array<HandlerEntry> = []
    observers.match(name, (observer) => found.push(observer))
    return found
  }
  return {
    isEmpty: observers.isEmpty,
    /** Those who observe an event. */
    of,
    /** Adds an observer until the scope closes. */
    add: (pattern: EventPattern.EventPattern, observer: HandlerEntry) =>
      Effect.acquireRelease(
        Effect.sync(() => observers.add(pattern, observer)),
        (remove) => Effect.sync(remove)
      )
  }
}

/** The context of a reaction: the router's own below the handler's, merged once for each handler; its trace goes on. */
const makeSurroundings = Effect.gen(function*() {
  // Without the scope of the router, which outlives every reaction.
  const base = servicesOf(yield* Effect.context<never>())
  const contexts = new WeakMap<HandlerEntry, Context.Context<never>>()
  return (handler: HandlerEntry, envelope: Envelope.Envelope): Context.Context<never> => {
    const merged = contexts.get(handler) ?? Context.merge(base, handler.context)
    contexts.set(handler, merged)
    const own = Context.add(merged, Current, envelope)
    const span = TraceContext.toSpan(envelope instanceof LiveEnvelope ? envelope.trace : envelope.metadata)
    return span === undefined ? own : Context.add(own, Tracer.ParentSpan, span)
  }
})

/** Keeps a reaction that has failed, and logs it. */
const makeFailed = (bury: Effect.Success<ReturnType<typeof makeUndertaker>>) =>
  (entry: TableEntry, handler: HandlerEntry, envelope: Envelope.Envelope, cause: Cause.Cause<unknown>) => {
    const error = Cause.hasInterruptsOnly(cause) ? "it interrupted itself" : KsiError.sentenceOf(Cause.squash(cause))
    bury(entry, handler, envelope, reasonOf(cause), error)
    const next = { next: `ksi dead ls ${envelope.name}` }
    return Effect.annotateLogs(Effect.logError(`handler ${handler.name} of ${envelope.name} failed`, cause), { ...labelsOf(envelope), ...next })
  }

/** The reactions of one router. */
export const make = Effect.fnUntraced(function*(table: Table) {
  const { factHandlerMillis, factHandlers, keyedHandlers } = yield* Limits
  const bury = yield* makeUndertaker(table)
  const failed = makeFailed(bury)
  const running = yield* FiberSet.make()
  const lanes = new Lanes(keyedHandlers)
  const observers = makeObservers()
  let inFlight = 0
  const surroundings = yield* makeSurroundings

  const bounded = (handler: HandlerEntry, run: Run): Run => Effect.timeout(run, handler.timeoutMillis ?? factHandlerMillis)

  /** Runs one reaction to its end, in its own context; fails with what it failed with. */
  const run = ({ reacting: hooks }: TableEntry, handler: HandlerEntry, envelope: Envelope.Envelope): Run => {
    const begun = Effect.suspend(() => start(handler, envelope))
    const reaction = hooks.length === 0 ? begun : reacting(hooks, handler.name, envelope, begun)
    // Replaced, not merged: who runs a reaction once more does not lend it its services.
    return Effect.updateContext(lanes.inTurn(handler, envelope, bounded(handler, reaction)), () => surroundings(handler, envelope))
  }

  const fork = (entry: TableEntry, handler: HandlerEntry, envelope: Envelope.Envelope, reaction: Run): void => {
    inFlight++
    let isTold = false
    // Not reached when the runtime ends: nothing runs on in a fiber that was interrupted from outside.
    const guarded = Effect.catchCause(reaction, (cause) => {
      isTold = true
      return failed(entry, handler, envelope, cause)
    })
    const forked = Effect.runForkWith(surroundings(handler, envelope))
    const fiber = forked(guarded)
    fiber.addObserver((exit) => {
      inFlight--
      // What is no effect at all ends its fiber on the spot, past everything that was to catch it.
      if (!isTold && Exit.isFailure(exit) && Cause.hasDies(exit.cause)) forked(failed(entry, handler, envelope, exit.cause))
    })
    FiberSet.addUnsafe(running, fiber)
  }

  /** Starts a reaction, or gives it up where too many run. Never waits; one that is done at once needs no fiber. */
  const react = (entry: TableEntry, handler: HandlerEntry, envelope: Envelope.Envelope): void => {
    if (inFlight >= factHandlers) {
      return bury(entry, handler, envelope, "overloaded", `${factHandlers} reactions were running`)
    }
    if (handler.key !== undefined || entry.reacting.length > 0) return fork(entry, handler, envelope, run(entry, handler, envelope))
    const reaction = tell(handler, envelope)
    if (reaction === undefined) return
    if (!Exit.isExit(reaction)) fork(entry, handler, envelope, bounded(handler, reaction))
    else if (Exit.isFailure(reaction)) fork(entry, handler, envelope, reaction)
  }

  return {
    run,
    observers,
    /** A fact is stored: those who react to it begin. `delivery` is made for each. Never waits. */
    stored: (entry: TableEntry, delivery: () => Envelope.Delivery): void => {
      for (const handler of entry.handlers) react(entry, handler, delivery())
      for (const observer of observers.of(entry.event.name)) react(entry, observer, delivery())
    },
    /** Whether nobody reacts to an event. */
    isIgnored: (entry: TableEntry): boolean => entry.handlers.length === 0 && observers.isEmpty(),
    /** Tells the observers of an event. Never waits. */
    observe: (entry: TableEntry, envelope: Envelope.Envelope): void => {
      if (observers.isEmpty()) return
      const seen = envelope instanceof LiveEnvelope ? envelope.unhurried : envelope
      for (const observer of observers.of(envelope.name)) react(entry, observer, seen)
    },
    settled: Effect.suspend(() => FiberSet.awaitEmpty(running)),
    isSettled: () => inFlight === 0
  }
})

/** The reactions of one router. */
export type Reactions = Effect.Success<ReturnType<typeof make>>
