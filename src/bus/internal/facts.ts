// Appends facts behind their middleware. Once a fact is stored its handlers run, whatever becomes of who said it.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Tracer from "effect/Tracer"
import { type NewFact, versionAttribute } from "../../event/CloudEvent.ts"
import * as Envelope from "../../event/Envelope.ts"
import * as Event from "../../event/Event.ts"
import * as Json from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import * as Tags from "../../event/Tags.ts"
import * as TraceContext from "../../event/TraceContext.ts"
import { type LiveEnvelope, ReceivedEnvelope, saidIn } from "../Causation.ts"
import * as Journal from "../Journal.ts"
import type { Emitted } from "../KsiService.ts"
import { Subscriptions } from "../Subscription.ts"
import { type AnyFiber, type Run, settle } from "./drive.ts"
import type { Provided } from "./pipeline.ts"
import type { Reactions } from "./reactions.ts"
import * as Sayings from "./sayings.ts"
import type { FactEntry, Table, TableEntry } from "./table.ts"

/** Whether an entry is a fact's. */
export const isFactEntry = (entry: TableEntry): entry is FactEntry => entry.event.kind === "fact"

type Outcomes = ReadonlyArray<Journal.Outcome>

const spanIn = (context: Context.Context<never>) => Context.getOrUndefined(context, Tracer.ParentSpan)

/** The span that a fact is said in: its own where its middleware makes one, else that of whoever says it. */
const traceOf = (fiber: AnyFiber, provided: Provided, envelope: LiveEnvelope): TraceContext.Texts => {
  const own = provided && spanIn(provided)
  const span = own ?? (envelope.isTraceOwn ? undefined : spanIn(fiber.context))
  return (span && TraceContext.ofSpan(span)) ?? envelope.trace
}

const attempt = (run: () => Run): Run => {
  try {
    return run()
  } catch (defect) {
    return Exit.die(defect)
  }
}

// First of all: whoever is asked for the stream may change the payload. What has no JSON the store refuses, with a sentence.
const keep = (encoded: unknown): unknown => {
  try {
    return Json.frozen(encoded)
  } catch {
    return encoded
  }
}

/** The fact as it says which version its data has: that of the event, whatever its sender said. */
const withVersion = (event: Event.AnyFact, fact: NewFact): NewFact => {
  if (event.version === 1 && fact.attributes[versionAttribute] === undefined) return fact
  const { [versionAttribute]: _, ...others } = fact.attributes
  return { ...fact, attributes: Object.freeze({ ...others, ...Event.attributesOf(event) }) }
}

/** The fact with the tags of its definition, whatever tags it came with; of a definition that says none it keeps those. */
const withTags = (event: Event.AnyFact, data: unknown, fact: NewFact): NewFact => {
  const tags = event.tags?.(data)
  if (tags === undefined) return fact
  const { [Tags.attribute]: _, ...attributes } = fact.attributes
  return { ...fact, attributes: tags.length === 0 ? attributes : { ...attributes, [Tags.attribute]: Tags.toText(tags) } }
}

/** What an envelope becomes; one that was made elsewhere, and says another stream than its definition, becomes nothing. */
const factOf = ({ event }: FactEntry, envelope: LiveEnvelope, kept: unknown, trace: TraceContext.Texts): NewFact | KsiError.Reason => {
  const streamId = event.streamId(envelope.data)
  const defined = (fact: NewFact) => withTags(event, envelope.data, withVersion(event, fact))
  if (!(envelope instanceof ReceivedEnvelope)) return defined(Envelope.toFact(envelope, streamId, kept, trace))
  const { fact, origin: { principal } } = envelope
  if (fact.source === Envelope.ownSource) return KsiError.invalidAt(fact.name, "source", `"${fact.source}" is this daemon itself`)
  if (fact.attributes["subject"] !== null && fact.streamId !== streamId) {
    return KsiError.invalidAt(fact.name, "subject", `expected the stream of its data, "${streamId}", got "${fact.streamId}"`)
  }
  return defined(Envelope.receivedFact(fact, streamId, kept, principal))
}

/** The facts of one router. */
export const make = Effect.fnUntraced(function*({ refuse }: Table, reactions: Reactions) {
  const journal = yield* Journal.Journal
  const subscriptions = yield* Subscriptions

  /** A fact is stored: its handlers begin. Answers with a wait where a subscriber holds up those who say something. */
  const happened = (entry: FactEntry, envelope: LiveEnvelope, fact: NewFact, emitted: Emitted, trace: TraceContext.Texts): Effect.Effect<void> | undefined => {
    const { id, position, version } = emitted
    const { data: kept, name, streamId } = fact
    if (entry.tally !== undefined) entry.tally.stored()
    if (!reactions.isIgnored(entry)) {
      const metadata = envelope instanceof ReceivedEnvelope ? Envelope.metadataOf(fact, envelope.timestamp) : saidIn(envelope, streamId, trace)
      // What is stored, and not what somebody may have made of it since.
      reactions.stored(entry, () => ({ id, name, data: entry.codec.readFact(kept), metadata, position, version, missed: 0 }))
    }
    return subscriptions.room(name, Number(position))
  }

  /** What came of an append of one fact, and the wait there may be. A fact that was stored before has been handled before. */
  const said = (entry: FactEntry, envelope: LiveEnvelope, fact: NewFact, trace: TraceContext.Texts, [outcome]: Outcomes) => {
    if (outcome === undefined) throw new Error("the journal answered without an outcome")
    const { kind, position, version } = outcome
    const emitted: Emitted = { id: fact.id, streamId: fact.streamId, position: BigInt(position), version }
    return [emitted, kind === "duplicate" ? undefined : happened(entry, envelope, fact, emitted, trace)] as const
  }

  const stored = (entry: FactEntry, envelope: LiveEnvelope, trace: TraceContext.Texts, expects?: Journal.Expectations): Run => {
    const kept = keep(entry.codec.encodePayload(envelope.data))
    const fact = factOf(entry, envelope, kept, trace)
    if ("_tag" in fact) return KsiError.exit(fact)
    const appended = Journal.begin(journal.append(expects === undefined ? { facts: [fact] } : { ...expects, facts: [fact] }))
    const complete: Run = appended
    if (Exit.isExit(complete)) {
      if (Exit.isFailure(complete)) return complete
      // What an append succeeds with.
      const [emitted, room] = said(entry, envelope, fact, trace, complete.value as Outcomes)
      return room === undefined ? Exit.succeed(emitted) : Effect.as(room, emitted)
    }
    // The wait is one commit; between it and the handlers nobody may get in.
    return Effect.uninterruptibleMask((restore) => Effect.flatMap(appended, (outcomes) => {
      const [emitted, room] = said(entry, envelope, fact, trace, outcomes)
      // Stored, and being handled: whom a slow subscriber holds up waits here, and may stop waiting.
      return room === undefined ? Effect.succeed(emitted) : Effect.as(restore(room), emitted)
    }))
  }

  const say = Sayings.make(journal, subscriptions, reactions)

  const emit = (fiber: AnyFiber, entry: FactEntry, envelope: LiveEnvelope, expects?: Journal.Expectations): Run => {
    const refused = refuse(envelope)
    if (refused !== undefined) return refused
    if (entry.hooks.length === 0) {
      try {
        return (expects === undefined ? say(fiber, entry, envelope) : undefined) ??
          stored(entry, envelope, traceOf(fiber, undefined, envelope), expects)
      } catch (defect) {
        return Exit.die(defect)
      }
    }
    const store: Parameters<FactEntry["pipeline"]>[2] = (inner, provided, finish) =>
      settle(attempt(() => stored(entry, envelope, traceOf(inner, provided, envelope), expects)), finish)
    return entry.pipeline(fiber, envelope, store, (exit) => exit)
  }

  return {
    /** Answers with `Emitted`; fails with a `KsiError` or an error of the middleware. */
    emit
  }
})

/** The facts of one router. */
export type Facts = Effect.Success<ReturnType<typeof make>>
