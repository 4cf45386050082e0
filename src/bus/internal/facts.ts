// Appends facts, and runs their handlers. Once a fact is stored its handlers run, whatever becomes of who said it.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Envelope from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import type { HandlerEntry } from "../../event/EventGroup.ts"
import type { KsiError } from "../../event/KsiError.ts"
import { Limits } from "../../event/Limits.ts"
import type { LiveEnvelope } from "../Causation.ts"
import { Journal } from "../Journal.ts"
import type { Emitted } from "../KsiService.ts"
import { contextOf, start } from "./drive.ts"
import type { Table, TableEntry } from "./table.ts"

/** A fact's entry. */
export type FactEntry = TableEntry & { readonly event: Event.AnyFact }

/** Whether an entry is a fact's. */
export const isFactEntry = (entry: TableEntry): entry is FactEntry => entry.event.kind === "fact"

const labels = (envelope: Envelope.Envelope) => ({
  event: envelope.name, id: envelope.id, correlationId: envelope.metadata.correlationId
})

/** The facts of one router. */
export const make = Effect.fnUntraced(function*({ refuse }: Table) {
  const journal = yield* Journal
  const { factHandlerMillis, factHandlers } = yield* Limits
  const running = yield* FiberSet.make()
  const fork = yield* FiberSet.runtime(running)()
  let inFlight = 0

  const forkHandler = (handler: HandlerEntry, delivery: Envelope.Delivery): void => {
    const run = Effect.suspend(() => start(handler, delivery)).pipe(
      Effect.timeout(factHandlerMillis),
      Effect.provideContext(contextOf(handler, delivery)),
      Effect.catchCause((cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.void
          : Effect.annotateLogs(Effect.logError(`a handler of ${delivery.name} failed`, cause), labels(delivery))
      )
    )
    inFlight++
    fork(run).addObserver(() => {
      inFlight--
    })
  }

  const react = (entry: FactEntry, delivery: Envelope.Delivery): Effect.Effect<void> => {
    for (const handler of entry.handlers) {
      if (inFlight >= factHandlers) {
        // The fact is durable; only this reaction to it is given up, loudly.
        return Effect.logError(`${factHandlers} fact handlers are running; ${delivery.name} was not handled`).pipe(
          Effect.annotateLogs(labels(delivery))
        )
      }
      forkHandler(handler, delivery)
    }
    return Effect.void
  }

  const emit = (entry: FactEntry, envelope: LiveEnvelope): Effect.Effect<Emitted, KsiError> =>
    Effect.suspend(() => {
      const refused = refuse(envelope)
      if (refused !== undefined) return refused
      const streamId = entry.event.streamId(envelope.data)
      const fact = Envelope.toFact(envelope, streamId, entry.codec.encodePayload(envelope.data))
      const stored = Effect.flatMap(journal.append({ facts: [fact] }), ([outcome]) => {
        if (outcome === undefined) return Effect.die(new Error("the journal answered without an outcome"))
        const { id, metadata, name } = envelope
        const { version } = outcome
        const emitted: Emitted = { id, streamId, position: BigInt(outcome.position), version }
        if (entry.handlers.length === 0) return Effect.succeed(emitted)
        const delivery = { id, name, data: envelope.data, metadata: { ...metadata, streamId }, position: emitted.position, version, missed: 0 }
        return Effect.as(react(entry, delivery), emitted)
      })
      // The wait is one commit; between it and the handlers nobody may get in.
      return Effect.uninterruptible(stored)
    })

  const settled = Effect.suspend(() => FiberSet.awaitEmpty(running))
  return { emit, settled }
})

/** The facts of one router. */
export type Facts = Effect.Success<ReturnType<typeof make>>
