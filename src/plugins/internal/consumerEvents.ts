// The events of `consumer:*`: what they take, and what they answer with.
import * as Schema from "effect/Schema"
import * as Event from "../../event/Event.ts"
import { Count, Opaque, optional, Ordinal, pageOf, paging, upTo } from "./fields.ts"

const Name = Schema.String.annotate({ description: "the group's name, as `consumer:list` tells it" })

/** The groups there are. */
export const List = Event.make("consumer:list", {
  success: Schema.Struct({
    items: Schema.Array(Schema.Struct({
      group: Schema.String,
      status: Schema.Literals(["following", "blocked", "idle"])
        .annotate({ description: "`idle`: nobody works for it; `blocked`: too much is set aside" }),
      position: Count.annotate({ description: "everything up to here is dealt with" }),
      lag: Count.annotate({ description: "positions that are not" }),
      pending: Count.annotate({ description: "facts under way" }),
      parked: Count.annotate({ description: "facts that are set aside" }),
      members: Count.annotate({ description: "how many facts can be handled at a time" }),
      problem: optional(Schema.String, "why it waits")
    }))
  }),
  idempotent: true,
  annotations: { description: "The consumer groups, how far each is, and how much it has set aside.", examples: [{}] }
})

/** What a group has set aside. */
export const Parked = Event.make("consumer:parked", {
  payload: { group: Name, stream: optional(Schema.String, "only facts of this stream"), ...paging },
  success: pageOf(Schema.Struct({
    position: Ordinal,
    streamId: Schema.String,
    attempts: Count,
    error: optional(Schema.String, "why it was set aside; without one it waits behind one that was"),
    parkedAt: Schema.String.annotate({ description: "when it was set aside: RFC 3339" })
  })),
  idempotent: true,
  annotations: {
    description: "Facts that a group has set aside, by position: `{ position, streamId, attempts, parkedAt }`, with the `error` of one " +
      "that failed; one without waits behind it.",
    examples: [{ group: "billing" }]
  }
})

/** Handles again what is set aside. */
export const Retry = Event.make("consumer:retry", {
  payload: { group: Name, stream: optional(Schema.String, "only facts of this stream") },
  success: Schema.Struct({ handled: Count, parked: Count.annotate({ description: "facts that are still set aside" }) }),
  annotations: {
    description: "Handles once more what a group has set aside, each stream in its order.",
    examples: [{ group: "billing", stream: "order-1" }]
  }
})

/** Gives up what is set aside. */
export const Discard = Event.make("consumer:discard", {
  payload: {
    group: Name,
    positions: Schema.Array(Ordinal).check(Schema.isBetweenLength(1, 1000)).annotate({ description: "positions, at most 1000" })
  },
  success: Schema.Struct({ discarded: Count.annotate({ description: "how many of them were set aside" }) }),
  idempotent: true,
  annotations: { description: "Gives up facts that a group has set aside: they count as dealt with.", examples: [{ group: "billing", positions: [7] }] }
})

/** Waits for a group. */
export const Settled = Event.make("consumer:settled", {
  payload: { group: Name, position: optional(Count, "up to here; default: up to the last fact that is stored now") },
  idempotent: true,
  annotations: {
    description: "Answers when a group that is worked for has dealt with everything up to a position, and has noted that.",
    examples: [{ group: "billing" }, { group: "billing", position: 40 }]
  }
})

// -------------------------------------------------------------------------------------------------------------- working

const millis = upTo(86_400_000)

/** The work has begun: what happens from now on is handed over. */
const Begun = Schema.Struct({ kind: Schema.Literal("begun"), group: Schema.String })

/** A fact that is handed over. */
const HandedOver = Schema.Struct({
  kind: Schema.Literal("fact"),
  ticket: Schema.String.annotate({ description: "what to report it with, in `consumer:done`" }),
  attempt: Ordinal.annotate({ description: "1, and one more each time that it is handed over again because it failed" }),
  event: Schema.String.annotate({ description: "the event's name" }),
  id: Schema.String,
  data: Opaque.annotate({ description: "what the fact says, as it is stored" }),
  streamId: Schema.String,
  position: Ordinal.annotate({ description: "its place among all facts" }),
  version: Ordinal.annotate({ description: "its place in its stream" }),
  dataVersion: optional(Opaque, "which version of its event's data it has, as it says itself; absent for 1"),
  metadata: Schema.Record(Schema.String, Opaque)
    .annotate({ description: "what is known about it: `timestamp` (milliseconds since 1970), `source`, `principal`, `correlationId` …" })
})
/** A fact that is handed over. */
export type HandedOver = typeof HandedOver.Type

/** Works for a group. */
export const Work = Event.make("consumer:work", {
  payload: {
    group: Schema.String.annotate({ description: "the group's name; one that is new begins where `start` says" }),
    events: Schema.Array(Schema.NonEmptyString).check(Schema.isBetweenLength(1, 1000))
      .annotate({ description: "which facts: names, and patterns as \"order:*\"" }),
    concurrency: optional(upTo(10_000), "facts that you handle at a time: no more are handed over before you report one; 8 when absent"),
    maxAttempts: optional(Ordinal, "attempts before a fact is set aside; 5 when absent"),
    retry: optional(
      Schema.Struct({ firstMillis: millis, mostMillis: millis }),
      "how long it waits before a fact that failed is handed over again: `firstMillis`, doubled each time, at most `mostMillis`; 200 and no bound when absent"
    ),
    parking: optional(Schema.Literals(["stream", "fact"]), "what is set aside with a fact: all that follows in its `stream` (when absent), or the `fact` alone"),
    maxParked: optional(Ordinal, "facts that may be set aside; beyond it the group waits for room; 10000 when absent"),
    window: optional(Ordinal, "facts under way, and done out of order, at most; 1024 when absent"),
    start: optional(
      Schema.Union([Schema.Literals(["start", "now"]), Count]),
      "where a new group begins: at the first fact, with the next one (when absent), or at a position"
    )
  },
  success: Schema.Union([Begun, HandedOver]),
  stream: true,
  annotations: {
    description: "Works for a consumer group as long as it is read: first `{ kind: \"begun\" }`, then the facts that are handed over, each " +
      "of which is reported with `consumer:done`. The facts of a stream come one after the other. What is not reported when you are gone " +
      "is handed over again.",
    examples: [{ group: "billing", events: ["order:placed"] }, { group: "audit", events: ["order:*", "user:*"], start: "start", concurrency: 1 }]
  }
})

/** Reports a fact. */
export const Done = Event.make("consumer:done", {
  payload: {
    ticket: Schema.String.annotate({ description: "of the fact, as `consumer:work` handed it over" }),
    error: optional(Schema.String, "why it could not be handled; it was, when absent"),
    retryable: optional(Schema.Boolean, "whether another attempt may go better; true when absent. One that may not is set aside at once"),
    attempts: optional(Ordinal, "how often you tried it yourself; 1 when absent")
  },
  annotations: {
    // Of two tickets of one worker the other can be guessed: the journal is for more people than they are.
    audit: "outline",
    description: "Reports that a fact of `consumer:work` is handled, or why it is not. `NotFound` where it was handed to somebody else meanwhile.",
    examples: [{ ticket: "5f0c…-1" }, { ticket: "5f0c…-2", error: "no paper", retryable: true }]
  }
})
