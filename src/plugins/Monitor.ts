/**
 * What happened here: requests and facts in one list, filtered; and who caused what.
 *
 * The rule: requests come from the activity journal, facts from the store, and neither is copied into the other. A
 * question looks at a bounded number of facts and says which ones it looked at (`facts_from`, `facts_to`), but for a chain of
 * causes, whose facts are found wherever they are; an answer never grows beyond a page.
 *
 * **Example**
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const ksi = yield* KsiService
 *   const store = yield* EventStore.EventStore
 *   yield* store.appendTo("cart-1", [{ name: "cart:opened" }, { name: "cart:paid" }])
 *   const { events } = yield* ksi.call(Monitor.Query, { pattern: "cart:*", limit: 1 })
 *   return events.length
 * })
 * yield* program.pipe(Effect.provide(Monitor.layer.pipe(Layer.provideMerge(Ksi.layerMemory))))   // 1
 * ```
 *
 * **Gotchas** `timestamp` is when a request was made and when a fact was stored; when a fact happened is its `time`. A
 * page holds what ended last (requests) or was stored last (facts), in the order of `timestamp`: so a request that ran
 * for long can be on an earlier page than its `timestamp` says. Patterns are KSI's: `*` is a whole segment.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { Activity } from "../bus/Activity.ts"
import * as Router from "../bus/Router.ts"
import type { StoredFact } from "../event/CloudEvent.ts"
import * as Envelope from "../event/Envelope.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import * as EventPattern from "../event/EventPattern.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import { EventStore } from "../store/EventStore.ts"
import * as TimeTravel from "../store/TimeTravel.ts"
import * as Trace from "../store/Trace.ts"
import { Count, nullable, Opaque, upTo } from "./internal/fields.ts"
import * as Paging from "./internal/paging.ts"
import * as Trail from "./internal/trail.ts"

// ------------------------------------------------------------------------------------------------------------ events

const Pattern = Schema.String.check(Schema.isMaxLength(256))
const Patterns = Schema.Union([Pattern, Schema.Array(Pattern).check(Schema.isMaxLength(100))])
// What a Date can hold, as seconds.
const farthest = 8.64e12
const Moment = Schema.Union([
  Schema.Finite.check(Schema.isBetween({ minimum: -farthest, maximum: farthest })),
  Schema.String
])

const scan = "Requests come from the activity journal, facts from the store, over at most 10,000 facts; `facts_from` " +
  "and `facts_to` are the positions that were looked at."

const filters = {
  event_patterns: nullable(Patterns, "only events that one of these patterns matches"),
  since: nullable(Moment, "not before: seconds since 1970, or RFC 3339"),
  until: nullable(Moment, "not after: seconds since 1970, or RFC 3339"),
  limit: nullable(upTo(1000), "at most this many events; default 100"),
  reverse: nullable(Schema.Boolean, "newest first (the default), or oldest first")
}

const found = {
  events: Schema.Array(Opaque),
  facts_from: Count.annotate({ description: "first position that was looked at; 0 where there was none" }),
  facts_to: Count.annotate({ description: "last position that was looked at; 0 where there was none" })
}

/** What happened: requests and facts in one list. */
export const Query = Event.make("event_log:query", {
  payload: {
    pattern: nullable(Patterns, "only events that one of these patterns matches"),
    ...filters,
    offset: nullable(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10_000 })), "events to skip"),
    correlation_id: nullable(Schema.String, "only this chain: KSI's correlation id, or the label a client gave"),
    client_id: nullable(Schema.String, "only what this client asked for")
  },
  success: Schema.Struct({ ...found, total: Count, has_more: Schema.Boolean, offset: Count }),
  idempotent: true,
  annotations: {
    description: `What happened, newest first. ${scan}`,
    examples: [{}, { pattern: ["order:*"], limit: 10 }, { correlation_id: "c1" }]
  }
})

/** What happened, in the words of the original's monitor. */
export const GetEvents = Event.make("monitor:get_events", {
  payload: { ...filters, _agent_id: nullable(Schema.String, "a label: only what this client asked for") },
  success: Schema.Struct({
    ...found,
    count: Count,
    total_events: Count,
    query: Schema.Struct({
      event_patterns: Schema.NullOr(Schema.Array(Schema.String)),
      _agent_id: Schema.NullOr(Schema.String),
      since: Schema.NullOr(Schema.Finite),
      until: Schema.NullOr(Schema.Finite),
      limit: Count,
      reverse: Schema.Boolean
    })
  }),
  idempotent: true,
  annotations: {
    description: `What happened, newest first. ${scan}`,
    examples: [{}, { event_patterns: ["order:*"], limit: 10 }]
  }
})

/** The last things that happened, at a glance. */
export const GetStatus = Event.make("monitor:get_status", {
  payload: { limit: nullable(upTo(1000), "at most this many events; default 100") },
  success: Schema.Struct({
    events: Schema.Array(Opaque),
    event_count: Count,
    agents: Schema.Array(Opaque),
    agent_count: Count,
    total_identities: Count,
    timestamp: Schema.Finite.annotate({ description: "seconds since 1970" }),
    status: Schema.Literal("ok")
  }),
  idempotent: true,
  annotations: { description: "The last requests and facts, newest first.", examples: [{}, { limit: 3 }] }
})

/** Who caused what. */
export const GetCorrelationChain = Event.make("monitor:get_correlation_chain", {
  payload: {
    correlation_id: Schema.String.annotate({
      description: "KSI's correlation id, the label a client gave, or the id of an event of the chain"
    })
  },
  success: Schema.Struct({
    ...found,
    correlation_id: Schema.String,
    count: Count,
    has_more: Schema.Boolean.annotate({ description: "whether the chain is longer than a page" })
  }),
  idempotent: true,
  annotations: {
    description: "Everything that one request or fact caused, oldest first, each with its parent. Requests come from the activity " +
      "journal, facts from the whole store; `time:trace` tells it as a tree.",
    examples: [{ correlation_id: "c1" }]
  }
})

/** The events of `event_log:*` and `monitor:*`. */
export const Group = EventGroup.make(Query, GetEvents, GetStatus, GetCorrelationChain)

// ----------------------------------------------------------------------------------------------------------- queries

const defaultLimit = 100
const chainLimit = 1000

/** What to look for, after the words of a payload have been read. */
interface Criteria {
  readonly patterns: ReadonlyArray<EventPattern.EventPattern> | undefined
  /** Milliseconds since 1970. */
  readonly since: number | undefined
  readonly until: number | undefined
  readonly correlationId: string | undefined
  readonly clientId: string | undefined
  readonly limit: number
  readonly offset: number
  readonly forward: boolean
}

const patternsOf = (
  given: string | ReadonlyArray<string> | null | undefined
): Effect.Effect<ReadonlyArray<EventPattern.EventPattern> | undefined, KsiError.KsiError> =>
  given === null || given === undefined
    ? Effect.succeed(undefined)
    : Effect.forEach(typeof given === "string" ? [given] : given, EventPattern.fromText)

/** Milliseconds of seconds or of an RFC 3339 text. */
const millisOf = (
  event: string,
  path: string,
  given: number | string | null | undefined
): Effect.Effect<number | undefined, KsiError.KsiError> => {
  if (given === null || given === undefined) return Effect.succeed(undefined)
  if (typeof given === "number") return Effect.succeed(given * 1000)
  if (/^\d+(\.\d+)?$/.test(given)) return Effect.succeed(Number(given) * 1000)
  const parsed = TimeTravel.parseMoment(given)
  return Result.isSuccess(parsed) && "instant" in parsed.success
    ? Effect.succeed(parsed.success.instant)
    : KsiError.fail(KsiError.invalidAt(event, path, Result.isFailure(parsed) ? parsed.failure : "expected an instant"))
}

/** The words of the two queries; both dialects of "which events" may be used. */
const criteriaOf = Effect.fnUntraced(function*(
  event: string,
  payload: Event.Payload<typeof Query> & { readonly _agent_id?: string | null }
): Effect.fn.Return<Criteria, KsiError.KsiError> {
  const first = yield* patternsOf(payload.pattern)
  const second = yield* patternsOf(payload.event_patterns)
  return {
    patterns: first === undefined ? second : second === undefined ? first : [...first, ...second],
    since: yield* millisOf(event, "since", payload.since),
    until: yield* millisOf(event, "until", payload.until),
    correlationId: payload.correlation_id ?? undefined,
    clientId: payload.client_id ?? payload._agent_id ?? undefined,
    limit: payload.limit ?? defaultLimit,
    offset: payload.offset ?? 0,
    forward: payload.reverse === false
  }
})

const matcherOf = ({ clientId, correlationId, patterns }: Criteria) => (fact: StoredFact): boolean => {
  if (patterns !== undefined && !patterns.some((pattern) => pattern.matches(fact.name))) return false
  if (clientId === undefined && correlationId === undefined) return true
  const { metadata } = Envelope.fromFact(fact, undefined)
  return (clientId === undefined || metadata.clientId === clientId) &&
    (correlationId === undefined || metadata.correlationId === correlationId ||
      metadata.clientCorrelationId === correlationId)
}

interface Answer {
  readonly events: ReadonlyArray<Trail.Item>
  readonly total: number
  readonly facts_from: number
  readonly facts_to: number
}

/** A clock that was set back a little must not hide a fact that came after its cause. */
const slackMillis = 1000

const makeTrail = Effect.gen(function*() {
  const activity = yield* Activity
  const store = yield* EventStore
  const { pageBytes } = yield* Limits

  const query = Effect.fnUntraced(function*(criteria: Criteria, count: boolean): Effect.fn.Return<Answer, KsiError.KsiError> {
    const { clientId, correlationId, forward, limit, offset, patterns, since, until } = criteria
    const made = correlationId === undefined ? undefined : Trail.millisOf(correlationId)
    const after = made === undefined ? since : Math.max(since ?? 0, made - slackMillis)
    const range = yield* Trail.positionsOf(store, after, until)
    const matches = matcherOf(criteria)
    const found = yield* Trail.search(store, { ...range, forward, matches, keep: offset + limit, count })
    const requests = Trail.makeRequests(activity, { patterns, since, until, correlationId, clientId, forward })
    const fits = Paging.makeBudget(pageBytes)
    const events: Array<Trail.Item> = []
    let skip = offset
    yield* Trail.merge(found.facts, requests, forward, (make) => {
      if (skip > 0) {
        skip--
        return true
      }
      const item = make()
      if (!fits(item)) return false
      return events.push(item) < limit
    })
    yield* requests.peek
    events.sort(forward ? Trail.inOrder : (a, b) => Trail.inOrder(b, a))
    return { events, total: requests.total() + found.total, facts_from: found.from, facts_to: found.to }
  })

  return { query, chain: makeChain(activity, store, pageBytes) }
})

const makeChain = (activity: Activity["Service"], store: EventStore["Service"], pageBytes: number) =>
  Effect.fnUntraced(function*(id: string): Effect.fn.Return<Event.Success<typeof GetCorrelationChain>, KsiError.KsiError> {
    const head = store.head()
    const { facts, more, requests } = yield* Trace.gather(id, chainLimit).pipe(
      Effect.provideService(Activity, activity),
      Effect.provideService(EventStore, store)
    )
    const items = [...requests.map(Trail.ofRequest), ...facts.map(Trail.ofFact)].toSorted(Trail.inOrder)
    const fits = Paging.makeBudget(pageBytes)
    const events: Array<Trail.Item> = []
    for (const item of items) {
      if (events.length === chainLimit || !fits(item)) break
      events.push(item)
    }
    return {
      events,
      correlation_id: id,
      count: events.length,
      has_more: more || items.length > events.length,
      facts_from: Math.min(1, head),
      facts_to: head
    }
  })

// ---------------------------------------------------------------------------------------------------------- handlers

const seconds = (millis: number | undefined): number | null => millis === undefined ? null : millis / 1000

const handlers = Group.toLayer(Effect.gen(function*() {
  const { chain, query } = yield* makeTrail
  return {
    *"event_log:query"(payload: Event.Payload<typeof Query>) {
      const criteria = yield* criteriaOf(Query.name, payload)
      const answer = yield* query(criteria, true)
      const { offset } = criteria
      return { ...answer, offset, has_more: offset + answer.events.length < answer.total }
    },
    *"monitor:get_events"(payload: Event.Payload<typeof GetEvents>) {
      const criteria = yield* criteriaOf(GetEvents.name, payload)
      const { total, ...answer } = yield* query(criteria, true)
      const { clientId, forward, limit, patterns, since, until } = criteria
      return {
        ...answer,
        count: answer.events.length,
        total_events: total,
        query: {
          event_patterns: patterns?.map(({ text }) => text) ?? null,
          _agent_id: clientId ?? null,
          since: seconds(since),
          until: seconds(until),
          limit,
          reverse: !forward
        }
      }
    },
    *"monitor:get_status"({ limit }: Event.Payload<typeof GetStatus>) {
      const criteria = yield* criteriaOf(GetStatus.name, { limit: limit ?? defaultLimit })
      const { events } = yield* query(criteria, false)
      return {
        events,
        event_count: events.length,
        agents: [],
        agent_count: 0,
        total_identities: 0,
        timestamp: (yield* Clock.currentTimeMillis) / 1000,
        status: "ok" as const
      }
    },
    "monitor:get_correlation_chain": ({ correlation_id }: Event.Payload<typeof GetCorrelationChain>) => chain(correlation_id)
  }
}))

/** Serves `event_log:*` and `monitor:*`. */
export const layer: Layer.Layer<never, KsiError.KsiError, Router.Router | EventStore | Activity> = Router.serveBuiltin(
  Group
).pipe(Layer.provide(handlers))
