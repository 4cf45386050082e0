/**
 * Who caused what, and where the time went: one request or fact, all that led to it and all that came of it, as a tree over
 * streams and requests.
 *
 * The rule: nothing is made up. Requests come from the activity journal, facts from the store, and what stands below what is
 * what their `causationId` says. A cause that is not recorded has a place in the tree that says so, and a trace that is too
 * long says that there is more.
 *
 * **Example**
 *
 * ```ts
 * const { holdId } = yield* program               // the id of a fact that a request said
 * const { nodes } = yield* Trace.of(holdId)
 * nodes.map(({ kind, event, depth }) => [kind, event, depth])
 * // => [["request", "stock:reserve", 0], ["fact", "stock:reserved", 1]]
 * ```
 *
 * `text` and `mermaid` draw a trace.
 *
 * **Gotchas** A request is recorded when it has ended: of one that still runs only what it caused is there. The journal
 * forgets its oldest requests, the store forgets nothing: an old trace may be facts under causes that are not recorded any
 * more. `offset` of a fact is when it was stored, whatever its own `time` says. Clocks of the same machine are compared: one
 * that was set back while the trace went on makes offsets that are less than those of the cause.
 */
import * as Effect from "effect/Effect"
import { Activity, type ActivityRecord } from "../bus/Activity.ts"
import type { StoredFact } from "../event/CloudEvent.ts"
import * as Envelope from "../event/Envelope.ts"
import * as KsiError from "../event/KsiError.ts"
import { EventStore } from "./EventStore.ts"
import { type Trace, treeOf } from "./internal/traceTree.ts"

export { mermaid, text, type TextOptions } from "./internal/traceText.ts"
export type { FactNode, MissingNode, Node, RequestNode, Trace } from "./internal/traceTree.ts"

/** Characters of an id that an error repeats. */
const mostEchoed = 256

/** Nodes of a trace where nobody says how many. */
export const defaultLimit = 1000

// ------------------------------------------------------------------------------------------------------ what is there

/** Facts and requests of the same chains of causes. */
export interface Gathered {
  readonly facts: ReadonlyArray<StoredFact>
  readonly requests: ReadonlyArray<ActivityRecord>
  readonly more: boolean
}

// A label may stand for any number of chains. What inherits the label is found by it; each of these is asked for besides.
const mostChains = 32

const correlationOf = (fact: StoredFact): string => Envelope.metadataOf(fact, fact.timestamp).correlationId

/** Facts with this correlation id or label, at most `limit`. */
const factsOf = Effect.fnUntraced(function*(store: EventStore["Service"], correlationId: string, limit: number) {
  const facts: Array<StoredFact> = (yield* store.byId(correlationId)).filter((fact) => correlationOf(fact) === correlationId)
  for (let from = 1; facts.length < limit;) {
    const page = yield* store.driver.byCorrelation({ correlationId, from, limit: limit - facts.length })
    facts.push(...page)
    const last = page.at(-1)
    if (last === undefined) break
    from = last.position + 1
  }
  return facts
})

/**
 * Everything of the chains that an id belongs to: the id of a request or fact, a correlation id, or the label of a client.
 * At most `limit` facts and as many requests, the first ones.
 */
export const gather = Effect.fnUntraced(function*(
  id: string,
  limit: number = defaultLimit
): Effect.fn.Return<Gathered, KsiError.KsiError, EventStore | Activity> {
  const activity = yield* Activity
  const store = yield* EventStore
  const facts = new Map<number, StoredFact>()
  const requests = new Map<string, ActivityRecord>()
  let more = false
  const take = Effect.fnUntraced(function*(correlationId: string) {
    // One more than wanted, to know whether there is more.
    for (const fact of yield* factsOf(store, correlationId, limit + 1)) facts.set(fact.position, fact)
    const page = yield* activity.query({ correlationId, forward: true, limit: limit + 1 })
    for (const record of page.records) requests.set(record.id, record)
  })
  const { records } = yield* activity.query({ id, limit: 1 })
  const chains = new Set<string>([...records.map(({ correlationId }) => correlationId), ...(yield* store.byId(id)).map(correlationOf)])
  yield* take(id)
  for (const { correlationId } of requests.values()) chains.add(correlationId)
  for (const fact of facts.values()) chains.add(correlationOf(fact))
  chains.delete(id)
  for (const chain of [...chains].slice(0, mostChains)) yield* take(chain)
  more ||= chains.size > mostChains || facts.size > limit || requests.size > limit
  return {
    facts: [...facts.values()].toSorted((a, b) => a.position - b.position).slice(0, limit),
    requests: [...requests.values()].slice(0, limit),
    more
  }
})

/**
 * The trace that an id belongs to: the id of a fact or of a request, a correlation id, or the label that a client gave its
 * request. Of more than `limit` (default 1000) the first ones. Fails with `NotFound` where nothing is recorded of it.
 */
export const of = (
  id: string,
  { limit = defaultLimit }: { readonly limit?: number | undefined } = {}
): Effect.Effect<Trace, KsiError.KsiError, EventStore | Activity> =>
  Effect.flatMap(gather(id, limit), ({ facts, more, requests }) =>
    facts.length + requests.length === 0
      ? KsiError.fail(new KsiError.NotFound({ what: "request or fact", id: id.length > mostEchoed ? `${id.slice(0, mostEchoed)}…` : id, similar: [], detail: "in the store or the activity journal" }))
      : Effect.succeed(treeOf(id, facts, requests, { limit, more })))
