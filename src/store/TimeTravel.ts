/**
 * What was known at a moment: the state of one stream, or of all, as a projection had it at a position or an instant.
 *
 * The rule: *at a position* are the facts up to and including it. *At an instant* are the facts that had happened by
 * then, by their own `time`; a fact that arrived late still counts from when it happened. `recorded` asks what was
 * stored by then instead. Either way facts are folded in the order of their positions.
 *
 * **Example**
 *
 * ```ts
 * const store = yield* EventStore.EventStore
 * yield* store.appendTo("cart-1", [{ name: "cart:opened", data: { by: "ann" } }])
 * yield* store.appendTo("cart-1", [{ name: "cart:paid", data: { paid: true } }])
 * const before = yield* TimeTravel.at(Projection.latest, { streamId: "cart-1", position: 1n })
 * before.state                                  // { by: "ann" }
 * TimeTravel.parseMoment("2018-03-15")          // Result.succeed({ instant: 1521072000000 })
 * ```
 *
 * What was folded once leaves snapshots behind (`Snapshots`), so that the next question reads a few hundred facts wherever its
 * moment is. `stream` gives the whole system a part at a time.
 *
 * **Gotchas** `version`, `lastEvent` and `timestamp` of a moment are those of the stream's last fact by then, whether
 * the projection handles it or not, so that `version` may be used as the expected version of an append. Streams without
 * any fact that the projection handles are left out of the answer for all streams. An instant later than the present is
 * the present, as far as facts go.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as CloudEvent from "../event/CloudEvent.ts"
import * as Envelope from "../event/Envelope.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import { EventStore, ownStream, streamNotFound } from "./EventStore.ts"
import { firstWhereEffect } from "./internal/bisect.ts"
import { type Bounds, gradually, replay, type Shelf, type Subject } from "./internal/replay.ts"
import { formatOf, type Projection } from "./Projection.ts"
import * as Snapshots from "./Snapshots.ts"

type StoredFact = CloudEvent.StoredFact

/** A moment of the past; with both a position and an instant, the facts that are within both; with neither, now. */
export interface When {
  /** The last position that counts. */
  readonly position?: number | bigint | undefined
  /** Milliseconds since 1970, inclusive. */
  readonly instant?: number | undefined
  /** Compares `instant` with when a fact was committed instead of when it happened. */
  readonly recorded?: boolean | undefined
}

/** A stream at a moment. */
export interface Moment<out S> {
  readonly streamId: string
  /** Version of its last fact by then. */
  readonly version: number
  /** Name of that fact. */
  readonly lastEvent: string
  readonly lastEventId: string
  /** The text of that fact's `time`, verbatim; where it had none, when it was committed. */
  readonly timestamp: string
  readonly state: S
}

/** The last position that was committed by an instant. */
const recordedBy = (store: EventStore["Service"], instant: number): Effect.Effect<number, KsiError.KsiError> =>
  // Commit time never decreases.
  Effect.map(
    firstWhereEffect(1, store.head() + 1, (position) =>
      Effect.map(store.read({ from: position, limit: 1 }), ([fact]) => fact === undefined || fact.recordedAt > instant)),
    (first) => first - 1
  )

const boundsOf = (store: EventStore["Service"], when: When): Effect.Effect<Bounds, KsiError.KsiError> =>
  Effect.gen(function*() {
    // Facts that arrive while this reads would make the answer about no moment at all.
    const to = Math.min(store.head(), when.position === undefined ? Infinity : Math.floor(Number(when.position)))
    const instant = when.instant ?? Infinity
    if (Number.isNaN(to) || Number.isNaN(instant)) return yield* KsiError.fail(KsiError.invalidAt("time:at", "at", "expected a moment, got NaN"))
    if (when.recorded !== true) return { position: to, instant }
    return { position: instant === Infinity ? to : Math.min(to, yield* recordedBy(store, instant)), instant: Infinity }
  })

/** The snapshots of a projection, where it has any. */
const shelfOf = <S>(
  store: EventStore["Service"],
  projection: Projection<S>,
  subject: string,
  policy: Snapshots.PolicyShape
): Shelf<S> | undefined => {
  const format = formatOf(projection)
  if (format === undefined) return undefined
  const chain = { projection: projection.name, fingerprint: format.fingerprint, subject }
  return { snapshots: store.driver.snapshots, chain, format, policy }
}

const inTimeRange = (millis: number): boolean => Math.abs(millis) <= 8.64e15

/** The stream exists, but has no fact within the bounds. */
const notYet = (first: StoredFact, { instant, position }: When): KsiError.Reason => {
  const moment = instant === undefined
    ? `position ${position}`
    : inTimeRange(instant) ? Envelope.timeText(instant) : `${instant} milliseconds`
  const begin = `position ${first.position}, ${first.time ?? Envelope.timeText(first.timestamp)}`
  const removed = first.version > 1 ? `; its history before version ${first.version} was removed` : ""
  return new KsiError.NotFound({
    what: "stream", id: first.streamId, similar: [], detail: `at ${moment}: it begins at ${begin}${removed}`
  })
}

/** Why a stream has no fact within the bounds. */
const missing = (store: EventStore["Service"], streamId: string, when: When): Effect.Effect<never, KsiError.KsiError> =>
  Effect.gen(function*() {
    const [first] = yield* store.readStream({ streamId, from: 1, limit: 1 })
    if (first !== undefined) return yield* KsiError.fail(notYet(first, when))
    const { version } = yield* store.details(streamId)
    if (version === 0) return yield* streamNotFound(store, streamId)
    const detail = `any more: all its facts, up to version ${version}, were removed`
    return yield* KsiError.fail(new KsiError.NotFound({ what: "stream", id: streamId, similar: [], detail }))
  })

const atStream = <S>(
  projection: Projection<S>,
  streamId: string,
  when: When
): Effect.Effect<Moment<S>, KsiError.KsiError, EventStore> =>
  Effect.gen(function*() {
    const store = yield* EventStore
    const { pageItems } = yield* Limits.Limits
    const policy = yield* Snapshots.Policy
    const subject: Subject = {
      name: Snapshots.ofStream(streamId),
      read: (after, until, limit) => store.readStream({ streamId, from: after + 1, to: until, limit }),
      place: ({ version }) => version,
      counts: () => true,
      least: policy.streamFacts,
      pageItems
    }
    const shelf = shelfOf(store, projection, subject.name, policy)
    const found = (yield* replay(projection, subject, shelf, yield* boundsOf(store, when))).get(streamId)
    return found ?? (yield* missing(store, streamId, when))
  })

type All = When & { readonly all?: boolean | undefined }

/** All streams, or all but KSI's own. */
const allOf = (store: EventStore["Service"], { all }: All, bounds: Bounds, pageItems: number, policy: Snapshots.PolicyShape): Subject => ({
  name: all === true ? Snapshots.ofEverything : Snapshots.ofAll,
  read: (after, until, limit) => store.read({ from: after + 1, to: Math.min(bounds.position, until), limit }),
  place: ({ position }) => position,
  counts: all === true ? () => true : ({ streamId }) => !ownStream(streamId),
  least: policy.allFacts,
  pageItems
})

const atAll = <S>(
  projection: Projection<S>,
  when: All
): Effect.Effect<ReadonlyArray<Moment<S>>, KsiError.KsiError, EventStore> =>
  Effect.gen(function*() {
    const store = yield* EventStore
    const { pageItems } = yield* Limits.Limits
    const policy = yield* Snapshots.Policy
    const bounds = yield* boundsOf(store, when)
    const subject = allOf(store, when, bounds, pageItems, policy)
    return (yield* replay(projection, subject, shelfOf(store, projection, subject.name, policy), bounds)).sorted
  })

/**
 * As `at` for all streams, a few thousand at a time and in the order of their first facts: for more than fit into memory. What
 * it holds besides are the facts after the snapshot that it begins at. Of a projection without snapshots it folds everything
 * first. Fails as `at` does, and with `StoreFailure` where a snapshot turns out to be damaged: ask again, it is made anew.
 */
export const stream = <S>(projection: Projection<S>, when: All = {}): Stream.Stream<Moment<S>, KsiError.KsiError, EventStore> =>
  Stream.unwrap(Effect.gen(function*() {
    const store = yield* EventStore
    const { pageItems } = yield* Limits.Limits
    const policy = yield* Snapshots.Policy
    const bounds = yield* boundsOf(store, when)
    const subject = allOf(store, when, bounds, pageItems, policy)
    const shelf = shelfOf(store, projection, subject.name, policy)
    if (shelf === undefined || policy.allFacts === Infinity) {
      return Stream.fromIterable((yield* replay(projection, subject, undefined, bounds)).shown)
    }
    const { next } = yield* gradually(projection, subject, shelf, bounds)
    return Stream.paginate(undefined, () =>
      Effect.map(next, ({ shown, streams }) => [shown, streams.length === 0 ? Option.none() : Option.some(undefined)] as const))
  }))

/**
 * The state of one stream at a moment; `NotFound` where the stream has no fact by then. Fails with `StoreFailure` where
 * a fact cannot be read or no longer fits the projection's events.
 */
export function at<S>(
  projection: Projection<S>,
  when: When & { readonly streamId: string }
): Effect.Effect<Moment<S>, KsiError.KsiError, EventStore>
/**
 * The states of all streams at a moment, ordered by stream id (by code unit). Streams of KSI's own are left out unless
 * `all`.
 */
export function at<S>(
  projection: Projection<S>,
  when?: When & { readonly streamId?: undefined; readonly all?: boolean | undefined }
): Effect.Effect<ReadonlyArray<Moment<S>>, KsiError.KsiError, EventStore>
export function at<S>(
  projection: Projection<S>,
  when: When & { readonly streamId?: string | undefined; readonly all?: boolean | undefined } = {}
): Effect.Effect<Moment<S> | ReadonlyArray<Moment<S>>, KsiError.KsiError, EventStore> {
  return when.streamId === undefined ? atAll(projection, when) : atStream(projection, when.streamId, when)
}

/** What a person may write for a moment. */
export type Parsed = { readonly position: bigint } | { readonly instant: number }

const start: Parsed = { position: 0n }
const now: Parsed = { position: BigInt(Number.MAX_SAFE_INTEGER) }

/**
 * Reads a moment: a position (`41`), an instant in RFC 3339 with its offset (`2018-03-15T12:00:00Z`), a date, which is its
 * midnight in UTC, `now` (after every fact), or `start` (before any). The failure is one sentence.
 */
export const parseMoment = (text: string): Result.Result<Parsed, string> => {
  if (text === "start") return Result.succeed(start)
  if (text === "now") return Result.succeed(now)
  if (/^\d+$/.test(text)) {
    const position = BigInt(text)
    return position > 0n ? Result.succeed({ position }) : Result.fail("positions start at 1")
  }
  const instant = CloudEvent.parseTime(/^\d{4}-\d\d-\d\d$/.test(text) ? `${text}T00:00:00Z` : text)
  if (instant !== undefined) return Result.succeed({ instant })
  const local = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?$/.test(text)
  if (local && CloudEvent.parseTime(`${text}Z`) !== undefined) {
    return Result.fail(`"${text}" has no offset: write "${text}Z" for UTC, or one such as "${text}+01:00"`)
  }
  const forms = "a position such as 41, an instant such as 2018-03-15T12:00:00Z, a date such as 2018-03-15, now or start"
  return Result.fail(`"${text}" is no moment: expected ${forms}`)
}
