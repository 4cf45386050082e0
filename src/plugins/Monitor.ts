/** Draft: the event definitions; handlers follow. */
import * as Schema from "effect/Schema"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import { Count, nullable, Opaque, upTo } from "./internal/fields.ts"

const Patterns = Schema.Union([Schema.String, Schema.Array(Schema.String)])
const Moment = Schema.Union([Schema.Finite, Schema.String])

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
  payload: { limit: nullable(upTo(1000), "at most this many events; default 20") },
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
  payload: { correlation_id: Schema.String.annotate({ description: "KSI's correlation id, or the label a client gave" }) },
  success: Schema.Struct({ ...found, correlation_id: Schema.String, count: Count }),
  idempotent: true,
  annotations: {
    description: `Everything that one request or fact caused, oldest first, each with its parent. ${scan}`,
    examples: [{ correlation_id: "c1" }]
  }
})

/** The events of `event_log:*` and `monitor:*`. */
export const Group = EventGroup.make(Query, GetEvents, GetStatus, GetCorrelationChain)
