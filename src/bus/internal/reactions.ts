// What runs because of an event without answering it: the handlers of facts, and observers. Each in a fiber of its own,
// with its own timeout, isolated from all others; what fails goes to the dead letters.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Envelope from "../../event/Envelope.ts"
import type { HandlerEntry } from "../../event/EventGroup.ts"
import * as EventPattern from "../../event/EventPattern.ts"
import * as KsiError from "../../event/KsiError.ts"
import { Limits } from "../../event/Limits.ts"
import { DeadLetters, type LetterReason } from "../DeadLetters.ts"
import { Lanes } from "./answers.ts"
import { contextOf, start } from "./drive.ts"
import type { Table, TableEntry } from "./table.ts"

const labels = (envelope: Envelope.Envelope) => ({
  event: envelope.name, id: envelope.id, correlationId: envelope.metadata.correlationId
})

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

/** Keeps what failed. */
const makeUndertaker = Effect.fnUntraced(function*({ clock }: Table) {
  const letters = yield* DeadLetters
  return (entry: TableEntry, handler: HandlerEntry, event: Envelope.Envelope, reason: LetterReason, error: string): void => {
    const position = "position" in event && typeof event.position === "bigint" ? Number(event.position) : undefined
    const { streamId } = event.metadata
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
        attributes: Envelope.toFact(event, streamId ?? "", undefined).attributes
      },
      timestamp: clock.currentTimeMillisUnsafe()
    })
  }
})

const makeObservers = () => {
  const observers = EventPattern.makeTrie<HandlerEntry>()
  const of = (name: string): ReadonlyArray<HandlerEntry> => {
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

/** The reactions of one router. */
export const make = Effect.fnUntraced(function*(table: Table) {
  const { factHandlerMillis, factHandlers, keyedHandlers } = yield* Limits
  const bury = yield* makeUndertaker(table)
  const running = yield* FiberSet.make()
  const fork = yield* FiberSet.runtime(running)()
  const lanes = new Lanes(keyedHandlers)
  const observers = makeObservers()
  let inFlight = 0

  /** Runs one reaction to its end; fails with what it failed with. */
  const run = (handler: HandlerEntry, envelope: Envelope.Envelope): Effect.Effect<unknown, unknown> =>
    lanes.inTurn(
      handler,
      envelope,
      Effect.suspend(() => start(handler, envelope)).pipe(
        Effect.timeout(handler.timeoutMillis ?? factHandlerMillis),
        Effect.provideContext(contextOf(handler, envelope))
      )
    )

  const failed = (entry: TableEntry, handler: HandlerEntry, envelope: Envelope.Envelope, cause: Cause.Cause<unknown>) => {
    if (Cause.hasInterruptsOnly(cause)) return Effect.void
    bury(entry, handler, envelope, reasonOf(cause), KsiError.sentenceOf(Cause.squash(cause)))
    return Effect.annotateLogs(Effect.logError(`handler ${handler.name} of ${envelope.name} failed`, cause), labels(envelope))
  }

  /** Starts a reaction, or gives it up where too many run. Never waits. */
  const react = (entry: TableEntry, handler: HandlerEntry, envelope: Envelope.Envelope): void => {
    if (inFlight >= factHandlers) {
      return bury(entry, handler, envelope, "overloaded", `${factHandlers} reactions were running`)
    }
    inFlight++
    fork(Effect.catchCause(run(handler, envelope), (cause) => failed(entry, handler, envelope, cause))).addObserver(() => {
      inFlight--
    })
  }

  return {
    run,
    react,
    observers,
    /** Tells the observers of an event. Never waits. */
    observe: (entry: TableEntry, envelope: Envelope.Envelope): void => {
      if (observers.isEmpty()) return
      for (const observer of observers.of(envelope.name)) react(entry, observer, envelope)
    },
    settled: Effect.suspend(() => FiberSet.awaitEmpty(running))
  }
})

/** The reactions of one router. */
export type Reactions = Effect.Success<ReturnType<typeof make>>
