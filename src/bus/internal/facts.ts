// Appends facts behind their middleware. Once a fact is stored its handlers run, whatever becomes of who said it.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"
import * as Envelope from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import * as TraceContext from "../../event/TraceContext.ts"
import { type LiveEnvelope, plain } from "../Causation.ts"
import { Journal } from "../Journal.ts"
import type { Emitted } from "../KsiService.ts"
import { Subscriptions } from "../Subscription.ts"
import { type AnyFiber, type Run, settle } from "./drive.ts"
import type { Provided } from "./pipeline.ts"
import type { Reactions } from "./reactions.ts"
import type { Table, TableEntry } from "./table.ts"

/** A fact's entry. */
export type FactEntry = TableEntry & { readonly event: Event.AnyFact }

/** Whether an entry is a fact's. */
export const isFactEntry = (entry: TableEntry): entry is FactEntry => entry.event.kind === "fact"

const spanIn = (context: Context.Context<never>) => Context.getOrUndefined(context, Tracer.ParentSpan)

/** The span that a fact is said in: its own where its middleware makes one, else that of whoever says it. */
const traceOf = (fiber: AnyFiber, provided: Provided, envelope: LiveEnvelope): TraceContext.Texts => {
  const own = provided && spanIn(provided)
  const span = own ?? (envelope.isTraceOwn ? undefined : spanIn(fiber.context))
  return (span && TraceContext.ofSpan(span)) ?? envelope.trace
}

/** The facts of one router. */
export const make = Effect.fnUntraced(function*({ refuse }: Table, reactions: Reactions) {
  const journal = yield* Journal
  const subscriptions = yield* Subscriptions

  const stored = (entry: FactEntry, envelope: LiveEnvelope, trace: TraceContext.Texts): Run => {
    const streamId = entry.event.streamId(envelope.data)
    const fact = Envelope.toFact(envelope, streamId, entry.codec.encodePayload(envelope.data), trace)
    // The wait is one commit; between it and the handlers nobody may get in.
    return Effect.uninterruptibleMask((restore) => Effect.flatMap(journal.append({ facts: [fact] }), ([outcome]) => {
      if (outcome === undefined) return Effect.die(new Error("the journal answered without an outcome"))
      const { id, metadata, name } = envelope
      const { version } = outcome
      const emitted: Emitted = { id, streamId, position: BigInt(outcome.position), version }
      const { traceparent, tracestate } = trace
      const said = { ...plain(metadata), streamId, traceparent, tracestate }
      const delivery = { id, name, data: envelope.data, metadata: said, position: emitted.position, version, missed: 0 }
      for (const handler of entry.handlers) reactions.react(entry, handler, delivery)
      reactions.observe(entry, delivery)
      // Stored, and being handled: whom a slow subscriber holds up waits here, and may stop waiting.
      const room = subscriptions.room(name, outcome.position)
      return room === undefined ? Effect.succeed(emitted) : Effect.as(restore(room), emitted)
    }))
  }

  const emit = (fiber: AnyFiber, entry: FactEntry, envelope: LiveEnvelope): Run => {
    const refused = refuse(envelope)
    if (refused !== undefined) return refused
    return entry.pipeline(
      fiber,
      envelope,
      (inner, provided, finish) => settle(Effect.suspend(() => stored(entry, envelope, traceOf(inner, provided, envelope))), finish),
      (exit) => exit
    )
  }

  return {
    /** Answers with `Emitted`; fails with a `KsiError` or an error of the middleware. */
    emit
  }
})

/** The facts of one router. */
export type Facts = Effect.Success<ReturnType<typeof make>>
