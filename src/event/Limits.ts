/**
 * Every limit of the runtime, with its name and default. Reaching one is a typed error (`LimitExceeded`) or a wait,
 * never a crash and never a silent loss: the one thing that is given up, the reaction to a fact beyond `factHandlers`,
 * is logged (the fact itself is stored).
 *
 * **Example**
 *
 * ```ts
 * const limits = yield* Limits.Limits.pipe(Effect.provideService(Limits.Limits, { ...Limits.defaults, depth: 16 }))
 * limits.depth                            // 16
 * ```
 */
import * as Context from "effect/Context"

/** The limits; sizes are bytes of UTF-8 unless the name says otherwise. */
export interface LimitsShape {
  /** Nested calls and emits below one request; bounds event storms. */
  readonly depth: number
  /** One line of the socket, and one event's data. */
  readonly frameBytes: number
  /** Arrays and objects within one another, in a frame and in one event's data. */
  readonly jsonDepth: number
  /** One page of a long answer. */
  readonly pageBytes: number
  /** Items of one page when the caller does not say. */
  readonly pageItems: number
  /** Long answers of `time:*` that are kept between their pages, as JSON; each of `time:at`, `time:trace` and the others together. */
  readonly keptAnswerBytes: number
  /** Events of one `store:import` call, and of one append. */
  readonly appendEvents: number
  /** Tags of one fact. */
  readonly factTags: number
  /** Items, names, stream ids and tags of one query together; streams whose versions one append expects. */
  readonly queryTerms: number
  /** Appends that wait for the writer as text already; those beyond wait in line too, but are written as text later. */
  readonly appendQueue: number
  /** Requests that one connection may have running. */
  readonly connectionRequests: number
  /** Subscriptions of one connection. */
  readonly connectionSubscriptions: number
  /** Streams of one connection. */
  readonly connectionStreams: number
  /** Items of one stream that a client holds, with those on their way to it, before it has taken them. */
  readonly streamItems: number
  /** The same, in characters of their frames. */
  readonly streamBytes: number
  /** Connections of one listener. */
  readonly connections: number
  /** The head of one HTTP request: its line and its headers. */
  readonly headerBytes: number
  /** How long the head of an HTTP request may take to arrive, in milliseconds. */
  readonly headerMillis: number
  /** How long a whole HTTP request may take to arrive, in milliseconds. */
  readonly bodyMillis: number
  /** How long an HTTP connection may be idle, and a WebSocket silent, in milliseconds. */
  readonly idleMillis: number
  /** Bytes that may wait to be written to one connection before its subscriptions pause. */
  readonly connectionBufferBytes: number
  /** Bytes of long lines that all connections together may hold, under way or of running requests; beyond it one is refused. */
  readonly incomingBytes: number
  /** Bytes that may wait to be written to all connections together; beyond it the one that reads least is closed. */
  readonly outgoingBytes: number
  /** Live facts, and live requests, held for one subscriber; what happens beyond it is its `overflow`. */
  readonly subscriptionBuffer: number
  /** How long a subscriber with `overflow: "block"` may take nothing while publishers wait for it, in milliseconds. */
  readonly subscriptionBlockMillis: number
  /** Fact handlers running at once in the runtime; beyond it a fact is stored and its handlers do not run, which is logged. */
  readonly factHandlers: number
  /** Calls of one keyed handler that may wait for one key. */
  readonly keyedHandlers: number
  /** How long one fact handler may run, in milliseconds. */
  readonly factHandlerMillis: number
  /** Requests of the activity journal that wait for their write before callers are slowed. */
  readonly activityBuffer: number
  /** Requests that the activity journal keeps; the oldest go first. */
  readonly activityRows: number
  /** Bytes of the payloads and labels that the activity journal keeps; the oldest requests go first. */
  readonly activityBytes: number
  /** Reactions that failed which are kept until a person deals with them; the oldest go first. */
  readonly deadLetters: number
  /** Answers that are kept under their idempotency key; the oldest go first. */
  readonly idempotencyKeys: number
  /** Grants (and profiles given) of all principals together. */
  readonly grants: number
  /** Tokens that are neither revoked nor expired. */
  readonly tokens: number
  /** Characters of a foreign id, source, stream id or event type. */
  readonly idLength: number
}

/** The defaults. */
export const defaults: LimitsShape = {
  depth: 64,
  frameBytes: 4 * 1024 * 1024,
  jsonDepth: 256,
  pageBytes: 1024 * 1024,
  pageItems: 1000,
  keptAnswerBytes: 64 * 1024 * 1024,
  appendEvents: 1000,
  factTags: 32,
  queryTerms: 256,
  appendQueue: 8192,
  connectionRequests: 256,
  connectionSubscriptions: 10_000,
  connectionStreams: 256,
  streamItems: 65_536,
  streamBytes: 4 * 1024 * 1024,
  connections: 10_000,
  headerBytes: 16 * 1024,
  headerMillis: 10_000,
  bodyMillis: 60_000,
  idleMillis: 60_000,
  connectionBufferBytes: 1024 * 1024,
  incomingBytes: 256 * 1024 * 1024,
  outgoingBytes: 256 * 1024 * 1024,
  subscriptionBuffer: 512,
  subscriptionBlockMillis: 10_000,
  factHandlers: 1024,
  keyedHandlers: 1024,
  factHandlerMillis: 30_000,
  activityBuffer: 8192,
  activityRows: 100_000,
  activityBytes: 1024 * 1024 * 1024,
  deadLetters: 10_000,
  idempotencyKeys: 100_000,
  grants: 10_000,
  tokens: 1_000,
  idLength: 256
}

/** The limits in force; replace it with `Effect.provideService` or `Layer.succeed`. */
export const Limits: Context.Reference<LimitsShape> = Context.Reference<LimitsShape>("ksi/event/Limits", {
  defaultValue: () => defaults
})
