/**
 * Streams of facts, remembered: append, read, follow. A *stream* is the history of one thing, in versions from 1; a
 * *position* is a place in the order of everything, from 1. Neither has gaps, until facts are removed on purpose: by what is set
 * for a stream (`configure`, `retain`) or with the whole stream (`delete`). No version and no position is ever given out twice.
 *
 * The rule: a fact is one (`source`, `id`). The same content again changes nothing and says where it is; other content
 * under the same identity is refused. Whoever appends learns the outcome of every fact, and may say which version it
 * expects, so that two writers never overwrite each other.
 *
 * What differs between databases is the small `Driver`. Everything else (checks, ids, limits, `Stream`s) is built on it
 * once, by `make`; `layerOf` provides the store and the bus's `Journal` from one driver.
 *
 * **Example**
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const store = yield* EventStore.EventStore
 *   yield* store.appendTo("cart-1", [{ name: "cart:opened", data: { by: "ann" } }], { expectedVersion: 0 })
 *   return yield* Stream.runCollect(store.stream("cart-1"))
 * }).pipe(Effect.provide(EventStore.layerMemory))
 * ```
 *
 * A decision that is about more than one stream is guarded by what it asked: whoever appends repeats the query, and says how
 * far the answer went (a *dynamic consistency boundary*).
 *
 * ```ts
 * const store = yield* EventStore.EventStore
 * const query = [{ names: ["seat:booked"], tags: ["flight:kl1"] }]
 * const booked = (seat) => [{ name: "seat:booked", data: { seat }, tags: ["flight:kl1"] }]
 * const { facts, position } = yield* store.readAll({ query })
 * const taken = (yield* Stream.runCollect(facts)).length                          // 0
 * yield* store.appendTo("seat-1a", booked("1a"), { condition: { query, after: position } })
 * const late = store.appendTo("seat-1b", booked("1b"), { condition: { query, after: position } })
 * const { reason } = yield* Effect.flip(late)
 * [reason._tag, reason.position]                                                  // ["ConditionFailed", 1]
 * ```
 *
 * **Gotchas** A condition is looked up by its tags, or its streams, in an index. One that has only names looks through all
 * facts behind `after`, while other appends wait: without `after`, and in a large store, give such facts a tag.
 *
 * Streams whose id starts with `ksi-` are KSI's own: nobody else can append to them. Data is kept as JSON: a
 * `Date` comes back as its text, a key whose value is `undefined` is gone. `layerMemory` keeps facts no longer than
 * its scope lives. An id whose fact was removed is not known any more: appended again, it is new.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { atOnce, begin, type Expectations, Journal, type Outcome, sayingOf, withSaying } from "../bus/Journal.ts"
import type { From } from "../bus/KsiService.ts"
import * as CloudEvent from "../event/CloudEvent.ts"
import * as Envelope from "../event/Envelope.ts"
import * as EventName from "../event/EventName.ts"
import * as FactQuery from "../event/FactQuery.ts"
import * as Json from "../event/Json.ts"
import type { JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import * as Tags from "../event/Tags.ts"
import * as Admission from "./internal/Admission.ts"
import type { Driver, FactSearch, StreamDetails } from "./internal/Driver.ts"
import { follow } from "./internal/Following.ts"
import { makeMemory } from "./internal/MemoryDriver.ts"
import * as StreamSettings from "./StreamSettings.ts"

export { ownStream } from "./internal/Admission.ts"
export type { Driver, FactPage, FactSearch, Removed, StreamDetails, StreamInfo } from "./internal/Driver.ts"

/** A fact as a program appends it; what is left out is filled in. */
export interface FactInput {
  readonly name: string
  readonly data?: unknown
  /** Default: a new UUIDv7. */
  readonly id?: string
  /** Default: `/ksi`. */
  readonly source?: string
  /** RFC 3339. Default: now. */
  readonly time?: string
  readonly attributes?: CloudEvent.NewFact["attributes"]
  /** What it is about besides its stream: see `Tags`. */
  readonly tags?: ReadonlyArray<string> | undefined
}

/** Which facts are read. */
export interface ReadOptions extends FactQuery.Selection {
  /** First position; default: 1. */
  readonly from?: number | bigint | undefined
  /** Last position; default: the head when the read began. */
  readonly to?: number | bigint | undefined
  /** Newest first. */
  readonly backward?: boolean | undefined
}

/** Which facts are followed. */
export interface FollowOptions extends FactQuery.Selection {
  /** A position (inclusive), `start`, or `now` (the default). */
  readonly from?: From | undefined
}

/** What a deletion came to. */
export interface Deleted {
  /** `deleted` now, or `already` before. */
  readonly kind: "deleted" | "already"
  /** Version of the tombstone. */
  readonly version: number
}

/** The name of a tombstone, the last fact of a deleted stream: data `{ reason? }`. */
export const streamDeleted = "store:stream_deleted"

type StoredFact = CloudEvent.StoredFact

/** The event store. */
export class EventStore extends Context.Service<EventStore, Journal["Service"] & Pick<Driver, "byId" | "configure" | "readStream" | "streams"> & {
  /**
   * Appends facts to one stream, all or none. Fails with `VersionConflict`, `ConditionFailed`, `IdConflict`,
   * `PayloadInvalid`, `PatternInvalid`, `LimitExceeded`, `StoreFailure`.
   */
  readonly appendTo: (
    streamId: string,
    facts: ReadonlyArray<FactInput>,
    options?: Expectations
  ) => Effect.Effect<ReadonlyArray<Outcome>, KsiError.KsiError>
  /** All facts of a stream, oldest first; `NotFound` where the stream does not exist. */
  readonly stream: (streamId: string, options?: {
    readonly from?: number
    readonly to?: number
    readonly backward?: boolean
  }) => Stream.Stream<StoredFact, KsiError.KsiError>
  /** All facts from a position to another, in order; of a query or a pattern only those that match. Read in pages. */
  readonly all: (options?: ReadOptions) => Stream.Stream<StoredFact, KsiError.KsiError>
  /**
   * As `all`, and tells the position that what is read stands for: the head when the read began. It is the `after` of an
   * append whose condition asks the same again.
   */
  readonly readAll: (options?: ReadOptions) => Effect.Effect<{
    readonly facts: Stream.Stream<StoredFact, KsiError.KsiError>
    readonly position: number
  }, KsiError.KsiError>
  /**
   * Facts as they are committed, without end: stored ones from a position on, then live ones, without a gap and without a
   * repeat. Who is slow holds up nobody and misses nothing: beyond `subscriptionBuffer` facts it reads on in the store.
   */
  readonly subscribe: (options?: FollowOptions) => Stream.Stream<StoredFact, KsiError.KsiError>
  /** What a stream holds and what is set for it; `NotFound` where it neither has a fact nor settings. */
  readonly details: (streamId: string) => Effect.Effect<StreamDetails, KsiError.KsiError>
  /**
   * Deletes a stream: appends a last fact (`store:stream_deleted`) and removes all before it, both or neither, for all readers at
   * once. The file is rid of a long stream some turns of the event loop later, and this answers then; what a process leaves that
   * dies meanwhile the next one erases. The stream takes no fact any more (`StreamDeleted`). Deleting it again changes nothing. Fails with `NotFound`, `VersionConflict`.
   */
  readonly delete: (
    streamId: string,
    options?: { readonly expectedVersion?: number | undefined; readonly reason?: string | undefined }
  ) => Effect.Effect<Deleted, KsiError.KsiError>
  /** Removes what the settings of streams let go, a bounded number at a time; answers with how many facts went. */
  readonly retain: Effect.Effect<number, KsiError.KsiError>
  /** What KSI's own modules build on; its `append` takes facts of KSI's own streams (`ksi-…`), too. Not an API for users. */
  readonly driver: Driver
}>()("ksi/store/EventStore") {}

const tagged = ({ attributes = {}, tags }: FactInput): JsonObject =>
  tags === undefined || tags.length === 0 ? attributes : { ...attributes, [Tags.attribute]: Tags.toText(tags) }

/** What `appendTo` was given as a fact; a CloudEvent's own rules say whether its attributes are any. */
const complete = (
  streamId: string,
  input: FactInput,
  millis: number,
  ids: Envelope.Ids
): Result.Result<CloudEvent.NewFact, KsiError.Reason> => {
  // Not every program has a compiler behind it.
  const tags: unknown = input.tags
  if (tags !== undefined && !(Array.isArray(tags) && tags.every((tag) => typeof tag === "string"))) {
    return Result.fail(KsiError.invalidAt(input.name, "tags", "must be a list of texts"))
  }
  const fact: CloudEvent.NewFact = {
    id: input.id ?? ids(millis),
    source: input.source ?? Envelope.ownSource,
    name: input.name,
    streamId,
    data: input.data,
    time: input.time ?? Envelope.timeText(millis),
    attributes: tagged(input)
  }
  if (input.attributes === undefined) return Result.succeed(fact)
  const problem = CloudEvent.attributeProblem(input.attributes)
  return problem === undefined ? Result.succeed(fact) : Result.fail(KsiError.invalidAt(input.name, "attributes", problem))
}

// ----------------------------------------------------------------------------------------------------- constructors

/** Ids of streams like this one, nearest first, at most three: what to say when there is none of this name. */
export const nearestStreams = (
  driver: Pick<Driver, "streams">,
  streamId: string
): Effect.Effect<ReadonlyArray<string>, KsiError.KsiError> =>
  Effect.gen(function*() {
    // Most mistakes are near the end: look among the streams that begin alike, then less and less alike.
    for (let cut = 1;; cut *= 2) {
      const prefix = streamId.slice(0, Math.max(0, streamId.length - cut))
      const page = yield* driver.streams({ prefix, limit: 256 })
      const candidates = page.map((info) => info.streamId).filter((id) => !Admission.ownStream(id) && id !== streamId)
      const near = EventName.nearest(streamId, candidates)
      if (near.length > 0 || prefix === "") return near
    }
  })

/** Fails with `NotFound` and the nearest streams. */
export const streamNotFound = (
  driver: Pick<Driver, "streams">,
  streamId: string
): Effect.Effect<never, KsiError.KsiError> =>
  Effect.flatMap(nearestStreams(driver, streamId), (similar) =>
    KsiError.fail(new KsiError.NotFound({ what: "stream", id: streamId, similar })))

/** Pages, each read when asked for; `next` says where the page after this one starts, `undefined` at the end. */
const pages = <S>(
  start: S,
  read: (at: S) => Effect.Effect<ReadonlyArray<StoredFact>, KsiError.KsiError>,
  next: (last: StoredFact) => S | undefined
): Stream.Stream<StoredFact, KsiError.KsiError> =>
  Stream.paginate(start, (at) =>
    Effect.map(read(at), (page) => {
      const last = page.at(-1)
      return [page, last === undefined ? Option.none() : Option.fromUndefinedOr(next(last))] as const
    }))

/** Both ends of what is read; refused where one is no whole number. There is no end that is too far away. */
const rangeOf = (
  { from, to }: { readonly from?: number | bigint | undefined; readonly to?: number | bigint | undefined },
  last: number
): Effect.Effect<{ readonly from: number; readonly to: number }, KsiError.KsiError> => {
  for (const [path, end] of [["from", from], ["to", to]] as const) {
    const isEnd = end === undefined || Math.abs(Number(end)) === Infinity || Number.isInteger(Number(end))
    if (!isEnd) return KsiError.fail(KsiError.invalidAt("store:read", path, `expected a whole number, got ${String(end)}`))
  }
  return Effect.succeed({ from: Math.max(1, Number(from ?? 1)), to: Math.min(last, Number(to ?? last)) })
}

const streamOf = (driver: Driver, limit: number): EventStore["Service"]["stream"] => (streamId, options = {}) =>
  Stream.unwrap(Effect.gen(function*() {
    const [newest] = yield* driver.readStream({ streamId, from: 1, limit: 1, backward: true })
    if (newest === undefined) {
      const details = yield* driver.details(streamId)
      return details === undefined || details.version === 0 ? yield* streamNotFound(driver, streamId) : Stream.empty
    }
    const { from, to } = yield* rangeOf(options, newest.version)
    if (from > to) return Stream.empty
    return options.backward === true
      ? pages(to, (at) => driver.readStream({ streamId, from, to: at, limit, backward: true }), ({ version }) =>
        version > from ? version - 1 : undefined)
      : pages(from, (at) => driver.readStream({ streamId, from: at, to, limit }), ({ version }) =>
        version < to ? version + 1 : undefined)
  }))

const selected = (options: FactQuery.Selection, max: number): Effect.Effect<FactQuery.Compiled, KsiError.KsiError> =>
  Effect.fromResult(Result.mapError(FactQuery.compile(options, max), KsiError.make))

/** The facts of a query, page by page. */
const searched = (driver: Driver, search: Omit<FactSearch, "query">, query: FactQuery.Compiled): Stream.Stream<StoredFact, KsiError.KsiError> =>
  Stream.paginate(search.backward ? search.to : search.from, (at) =>
    Effect.map(
      driver.search({ ...search, query, ...(search.backward ? { to: at } : { from: at }) }),
      ({ facts, next }) => [facts, Option.fromUndefinedOr(next)] as const
    ))

const readAllOf = (driver: Driver, { pageItems: limit, queryTerms }: Limits.LimitsShape): EventStore["Service"]["readAll"] =>
  Effect.fnUntraced(function*(options: ReadOptions = {}) {
    const position = driver.head()
    const backward = options.backward === true
    const query = yield* selected(options, queryTerms)
    const { from, to } = yield* rangeOf(options, position)
    if (from > to) return { position, facts: Stream.empty }
    const isPlain = options.query === undefined && options.pattern === undefined && !backward
    return {
      position,
      facts: isPlain
        ? pages(from, (at) => driver.read({ from: at, to, limit }), (last) => last.position < to ? last.position + 1 : undefined)
        : searched(driver, { from, to, limit, backward }, query)
    }
  })

const startOf = (from: From, head: number): Effect.Effect<number, KsiError.KsiError> => {
  if (from === "now") return Effect.succeed(head + 1)
  if (from === "start") return Effect.succeed(1)
  return Admission.isWhole(Number(from))
    ? Effect.succeed(Math.max(1, Number(from)))
    : KsiError.fail(KsiError.invalidAt("store:subscribe", "from", `expected a position, "start" or "now", got ${String(from)}`))
}

const followOf = (driver: Driver, { queryTerms, subscriptionBuffer }: Limits.LimitsShape): EventStore["Service"]["subscribe"] =>
  (options = {}) =>
    Stream.unwrap(Effect.gen(function*() {
      const query = yield* selected(options, queryTerms)
      const from = yield* startOf(options.from ?? "now", driver.head())
      return follow(driver, query, subscriptionBuffer, from)
    }))

const detailsOf = (driver: Driver): EventStore["Service"]["details"] => (streamId) =>
  Effect.flatMap(driver.details(streamId), (details) =>
    details === undefined ? streamNotFound(driver, streamId) : Effect.succeed(details))

const refuseOwn = (streamId: string): Effect.Effect<void, KsiError.KsiError> =>
  Admission.ownStream(streamId) ? KsiError.fail(Admission.notOwn(streamDeleted)) : Effect.void

const configureOf = (driver: Driver, limits: Limits.LimitsShape): EventStore["Service"]["configure"] => (streamId, settings) =>
  Effect.suspend(() => {
    const wrong = (path: string, problem: string) => KsiError.fail(KsiError.invalidAt("store:configure_stream", path, problem))
    const problem = Admission.labelProblem(streamId, limits.idLength)
    if (problem !== undefined) return wrong("stream", problem)
    if (Admission.ownStream(streamId)) return wrong("stream", "streams named \"ksi-…\" belong to KSI; nothing can be set for them")
    const checked = StreamSettings.check(settings)
    if (Result.isFailure(checked)) return wrong("settings", checked.failure)
    const { metadata } = checked.success
    if (metadata !== undefined && !Admission.fits(metadata, limits)) {
      return wrong("metadata", "must be JSON, and not too long")
    }
    return driver.configure(streamId, metadata === undefined
      ? checked.success
      // A copy: what the caller does with its own object later sets nothing.
      : { ...checked.success, metadata: Json.frozen(metadata) as JsonObject })
  })

const deleteOf = (driver: Driver, ids: Envelope.Ids, limits: Limits.LimitsShape): EventStore["Service"]["delete"] => (streamId, options) =>
  Effect.gen(function*() {
    yield* refuseOwn(streamId)
    if (options?.expectedVersion !== undefined && !Admission.isWhole(options.expectedVersion)) {
      return yield* KsiError.fail(KsiError.invalidAt(streamDeleted, "expectedVersion", "must be a whole number from 0 on"))
    }
    const details = yield* driver.details(streamId)
    if (details === undefined || details.version === 0) return yield* streamNotFound(driver, streamId)
    if (details.isDeleted) return { kind: "already", version: details.version }
    const millis = yield* Effect.clockWith((clock) => Effect.succeed(clock.currentTimeMillisUnsafe()))
    const data = options?.reason === undefined ? {} : { reason: options.reason }
    const tombstone = Result.flatMap(complete(streamId, { name: streamDeleted, data }, millis, ids), (fact) => Admission.admit(fact, limits))
    if (Result.isFailure(tombstone)) return yield* KsiError.fail(tombstone.failure)
    const { version } = yield* driver.deleteStream(tombstone.success, options?.expectedVersion)
    return { kind: "deleted", version }
  })

// One turn of retention: it blocks the event loop as long as a batch of appends may.
const turnFacts = 1024
const turnStreams = 64

const retainOf = (driver: Driver): EventStore["Service"]["retain"] =>
  Effect.gen(function*() {
    let facts = 0
    for (let from: string | undefined = ""; from !== undefined;) {
      const turn: { readonly facts: number; readonly next: string | undefined } = yield* driver.applyRetention({
        from, facts: turnFacts, streams: turnStreams
      })
      facts += turn.facts
      from = turn.next
      yield* Effect.yieldNow
    }
    return facts
  })

/** The event store over a driver: checks what is appended, fills in what is left out, reads in pages. */
export const make = (driver: Driver): Effect.Effect<EventStore["Service"]> =>
  Effect.gen(function*() {
    const limits = yield* Limits.Limits
    const ids = yield* Envelope.randomIds
    const admitting = (own: boolean): Driver["append"] => (request) =>
      atOnce(() => {
        if (request.facts.length === 0) return Effect.succeed([])
        const admitted = Admission.admitAll(request, limits, own, driver.head)
        return Result.isFailure(admitted) ? KsiError.exit(admitted.failure) : begin(driver.append(admitted.success))
      })
    const append = admitting(false)
    const readAll = readAllOf(driver, limits)
    const below = sayingOf(driver.append)
    return {
      append: below === undefined ? append : withSaying(append, Admission.sayingOver(below, limits)),
      appendTo: (streamId, inputs, options) =>
        Effect.clockWith((clock) => {
          const millis = clock.currentTimeMillisUnsafe()
          const facts: Array<CloudEvent.NewFact> = []
          for (const input of inputs) {
            const fact = complete(streamId, input, millis, ids)
            if (Result.isFailure(fact)) return KsiError.fail(fact.failure)
            facts.push(fact.success)
          }
          const { condition, expectedVersion, expectedVersions } = options ?? {}
          return append({ facts, expectedVersion, expectedVersions, condition })
        }),
      head: () => driver.head(),
      listen: (listener, isIdle) => driver.listen(listener, isIdle),
      read: (options) => driver.read(options),
      readStream: (options) => driver.readStream(options),
      byId: (id) => driver.byId(id),
      stream: streamOf(driver, limits.pageItems),
      readAll,
      all: (options) => Stream.unwrap(Effect.map(readAll(options), ({ facts }) => facts)),
      subscribe: followOf(driver, limits),
      streams: (options) => driver.streams(options),
      details: detailsOf(driver),
      configure: configureOf(driver, limits),
      delete: deleteOf(driver, ids, limits),
      retain: retainOf(driver),
      driver: { ...driver, append: admitting(true) }
    }
  })

// ----------------------------------------------------------------------------------------------------------- layers

/** The event store and the bus's journal over one driver, which lives as long as the layer. */
export const layerOf = <E, R>(
  makeDriver: Effect.Effect<Driver, E, R>
): Layer.Layer<EventStore | Journal, E, Exclude<R, Scope.Scope>> =>
  Layer.effectContext(
    Effect.map(Effect.flatMap(makeDriver, make), (store) =>
      Context.make(EventStore, store).pipe(Context.add(Journal, store)))
  )

/** An event store in memory: the same semantics as on disk, gone with its scope. */
export const inMemory: Effect.Effect<EventStore["Service"]> = Effect.flatMap(makeMemory, make)

/** `inMemory` as a layer; every build is a new store. */
export const layerMemory: Layer.Layer<EventStore | Journal> = layerOf(makeMemory)
