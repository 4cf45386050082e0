// The short way of a fact: one that this program says for itself, that no middleware stands before and nobody traces, into a
// store that need not wait. It is the long way without what is known beforehand: nothing is checked twice, and no request
// to a store is written down. What is not for it takes the long way, which is the reference; then nothing has happened.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Delivery } from "../../event/Envelope.ts"
import * as Json from "../../event/Json.ts"
import { type LiveEnvelope, makeSpanFinder, own, saidIn } from "../Causation.ts"
import { type Cause, type Journal, Said, sayingOf } from "../Journal.ts"
import type { Emitted } from "../KsiService.ts"
import type { Subscriptions } from "../Subscription.ts"
import type { AnyFiber, Run } from "./drive.ts"
import type { Reactions } from "./reactions.ts"
import type { FactEntry } from "./table.ts"

/** Says a fact that need not be refused; `undefined` where there is no short way for it. */
export type Say = (fiber: AnyFiber, entry: FactEntry, envelope: LiveEnvelope) => Run | undefined

const causeOf = ({ depth, parent }: LiveEnvelope): Cause | undefined =>
  parent && { id: parent.id, correlationId: parent.metadata.correlationId, depth }

const finish = (emitted: Emitted, rest: Effect.Effect<void> = Effect.void, room: Effect.Effect<void> = Effect.void): Run =>
  Effect.as(Effect.andThen(rest, room), emitted)

/** The short ways of one router. */
export const make = (journal: Journal["Service"], subscriptions: Subscriptions["Service"], reactions: Reactions): Say => {
  const spanOf = makeSpanFinder()
  const isTraced = (fiber: AnyFiber, envelope: LiveEnvelope): boolean =>
    spanOf(fiber) !== undefined || (envelope.parent !== undefined && envelope.trace !== own)

  // Looked up again only where somebody has put another in its place.
  let { append } = journal
  let way = sayingOf(append)

  return (fiber, entry, envelope) => {
    if (journal.append !== append) {
      append = journal.append
      way = sayingOf(append)
    }
    const { copier } = entry.codec
    if (way === undefined || copier === undefined || copier.depth > way.jsonDepth || entry.event.tags !== undefined) return undefined
    if (envelope.origin !== own || isTraced(fiber, envelope)) return undefined
    const { data, name } = envelope
    // First of all: whoever is asked for the stream may keep the payload, and change it.
    const copy = copier.copy(data, way.frameBytes)
    if (copy === undefined) return undefined
    const streamId = entry.event.streamId(data)
    const { id } = envelope
    const fact = new Said(id, name, streamId, copy, causeOf(envelope))
    if (!way.takes(fact)) return undefined
    const rest = way.say(fact, envelope.timestamp)
    if (entry.tally !== undefined) entry.tally.stored()
    const { version } = fact
    const position = BigInt(fact.position)
    if (!reactions.isIgnored(entry)) {
      const delivery: Delivery = { id, name, data: Json.freeze(copy), metadata: saidIn(envelope, streamId, own), position, version, missed: 0 }
      reactions.stored(entry, () => delivery)
    }
    const emitted: Emitted = { id, streamId, position, version }
    const room = subscriptions.room(name, fact.position)
    return rest === undefined && room === undefined ? Exit.succeed(emitted) : finish(emitted, rest, room)
  }
}
