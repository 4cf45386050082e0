/**
 * Facts in and out: import, export, the streams there are and their logs. Everything is a CloudEvent, and what goes in
 * comes out as it was: digits, time text, extension attributes, an absent subject.
 *
 * The rule: an import is no experience. It stores facts and tells subscribers, but runs no handler. Each event stands
 * for itself: what is wrong with one is told by its index, and the others are stored. The identity is (`source`, `id`),
 * so the same import twice changes nothing.
 *
 * **Example**
 *
 * ```ts
 * const ksi = yield* KsiService
 * const event = { specversion: "1.0", id: "1", source: "/shop", type: "order:placed", subject: "order-1" }
 * yield* ksi.call(Store.Import, { events: [event] })
 * const { items } = yield* ksi.call(Store.Export, {})
 * items                                       // [{ ...event, position: 1, version: 1 }]
 * ```
 *
 * **Gotchas** Long answers are paged: while there is more, the reply has a `cursor`, which goes into the next request.
 * The first page fixes the position that all pages answer for, so a walk through the pages is one consistent picture,
 * however long it takes. A page may be shorter than `limit`, even empty, and still have a cursor.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Outcome } from "../bus/Journal.ts"
import * as Router from "../bus/Router.ts"
import * as CloudEvent from "../event/CloudEvent.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import type * as EventRegistry from "../event/EventRegistry.ts"
import * as FactQuery from "../event/FactQuery.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits, type LimitsShape } from "../event/Limits.ts"
import { firstWhereEffect } from "../store/internal/bisect.ts"
import { EventStore, type FactPage, ownStream, type StreamInfo, streamNotFound } from "../store/EventStore.ts"
import { Count, Opaque, optional, Ordinal, Page, pageOf, paging } from "./internal/fields.ts"
import * as Paging from "./internal/paging.ts"

// ------------------------------------------------------------------------------------------------------------ events

/** Takes facts in, as CloudEvents. */
export const Import = Event.make("store:import", {
  payload: {
    events: Schema.Array(Opaque).annotate({ description: "CloudEvents 1.0 in the JSON format, at most 1000" })
  },
  success: Schema.Struct({
    imported: Count.annotate({ description: "facts that are new" }),
    duplicates: Count.annotate({ description: "facts that were stored before with the same content" }),
    rejected: Count.annotate({ description: "events that were not stored" }),
    rejections: Schema.Array(Schema.Struct({
      index: Count.annotate({ description: "place in `events`, from 0" }),
      reason: Schema.String,
      error: Schema.String
    })),
    position: Count.annotate({ description: "the last position of the store" })
  }),
  idempotent: true,
  annotations: {
    // The events are in the store, word for word; the activity journal need not hold them again.
    audit: "outline",
    description: "Stores CloudEvents as facts. No handler runs; subscribers hear them. Whatever is wrong with one event " +
      "is told in `rejections`, and the others are stored.",
    examples: [{ events: [{ specversion: "1.0", id: "1", source: "/shop", type: "order:placed", subject: "order-1", data: { total: 5 } }] }]
  }
})

/** Gives facts out, as CloudEvents. */
export const Export = Event.make("store:export", {
  payload: {
    stream: optional(Schema.String, "only facts of this stream"),
    pattern: optional(Schema.String, "only events of this pattern"),
    tag: optional(Schema.NonEmptyString, "only facts that have this tag"),
    from: optional(Ordinal, "first position"),
    to: optional(Ordinal, "last position"),
    all: optional(Schema.Boolean, "also KSI's own streams (`ksi-…`)"),
    ...paging
  },
  success: Page,
  idempotent: true,
  annotations: {
    description: "Facts in the order of their positions, as CloudEvents with the extensions `position` and `version`; " +
      "what `store:import` takes.",
    examples: [{}, { from: 1, to: 1000, limit: 100 }, { stream: "order-1" }, { pattern: "order:*", tag: "vip" }]
  }
})

/** The log of one stream. */
export const Read = Event.make("store:read", {
  payload: {
    stream: Schema.String.annotate({ description: "the stream's id" }),
    from: optional(Ordinal, "first version"),
    to: optional(Ordinal, "last version"),
    backward: optional(Schema.Boolean, "newest first"),
    ...paging
  },
  success: Page,
  idempotent: true,
  annotations: {
    description: "The facts of one stream in the order of their versions, as CloudEvents with `position` and `version`.",
    examples: [{ stream: "order-1" }, { stream: "order-1", backward: true, limit: 10 }]
  }
})

/** The streams there are. */
export const Streams = Event.make("store:streams", {
  payload: {
    prefix: optional(Schema.String, "only streams whose id starts like this"),
    all: optional(Schema.Boolean, "also KSI's own streams (`ksi-…`)"),
    ...paging
  },
  success: pageOf(Schema.Struct({ streamId: Schema.String, version: Ordinal.annotate({ description: "of its last fact" }) })),
  idempotent: true,
  annotations: {
    description: "Streams by id, each `{ streamId, version }`, as of the position of the first page; without those of which retention " +
      "or deletion has removed all facts up to it.",
    examples: [{}, { prefix: "order-", limit: 100 }]
  }
})

/** The events of `store:*`. */
export const Group = EventGroup.make(Import, Export, Read, Streams)

// ------------------------------------------------------------------------------------------------------------ import

type Store = EventStore["Service"]

interface Rejection {
  readonly index: number
  readonly reason: string
  readonly error: string
}

/** A fact with its place among the events of the import. */
interface Candidate {
  readonly index: number
  readonly fact: CloudEvent.NewFact
}

const maxError = 500

const rejected = (index: number, reason: string, error: string): Rejection => ({
  index,
  reason,
  error: error.length > maxError ? `${error.slice(0, maxError - 3)}...` : error
})

const rejectedBy = (index: number, { message, reason }: KsiError.KsiError): Rejection => rejected(index, reason._tag, message)

/** The fact that an event is, or why it cannot be one here. */
const candidate = (
  registry: EventRegistry.EventRegistry,
  limits: LimitsShape,
  event: unknown,
  index: number
): Result.Result<Candidate, Rejection> => {
  const decoded = CloudEvent.decode(event, limits.idLength)
  if (Result.isFailure(decoded)) return Result.fail(rejected(index, "PayloadInvalid", decoded.failure))
  const fact = decoded.success
  if (ownStream(fact.streamId)) {
    return Result.fail(rejected(index, "PayloadInvalid", `the stream "${fact.streamId}" belongs to KSI; facts cannot be imported into it`))
  }
  const entry = registry.get(fact.name)
  if (entry === undefined) return Result.succeed({ index, fact })
  if (entry.event.kind === "request") {
    return Result.fail(rejected(index, "WrongShape", `${fact.name} is a request; only facts can be imported`))
  }
  const payload = entry.codec.decodeFact(fact, fact.attributes[CloudEvent.versionAttribute])
  if (Exit.isSuccess(payload)) return Result.succeed({ index, fact })
  const failure = payload.cause.reasons.find((reason) => reason._tag === "Fail")
  return Result.fail(
    failure === undefined
      ? rejected(index, "PayloadInvalid", `the schema of ${fact.name} cannot read this data`)
      : rejectedBy(index, failure.error)
  )
}

interface Counts {
  imported: number
  duplicates: number
  readonly rejections: Array<Rejection>
}

const count = (counts: Counts, candidates: ReadonlyArray<Candidate>, outcomes: ReadonlyArray<Outcome>): void => {
  for (const [at, { fact, index }] of candidates.entries()) {
    const outcome = outcomes[at]
    if (outcome === undefined) continue
    if (outcome.kind === "appended") counts.imported++
    else if (outcome.kind === "duplicate") counts.duplicates++
    else {
      const { id, source } = fact
      counts.rejections.push(rejectedBy(index, KsiError.make(new KsiError.IdConflict({ source, id, position: outcome.position }))))
    }
  }
}

/** Reasons that one fact alone may be to blame for; the store then takes none of those that came with it. */
const blames = ({ reason }: KsiError.KsiError): boolean =>
  reason._tag === "PayloadInvalid" || reason._tag === "LimitExceeded" || reason._tag === "StreamDeleted" ||
  (reason._tag === "StoreFailure" && reason.refused === true)

/** Appends, each for itself. A fact that makes the store refuse all is found by halving: the others still get in. */
const append = (store: Store, counts: Counts, candidates: ReadonlyArray<Candidate>): Effect.Effect<void, KsiError.KsiError> =>
  store.append({ facts: candidates.map(({ fact }) => fact), mode: "each" }).pipe(
    Effect.map((outcomes) => count(counts, candidates, outcomes)),
    Effect.catch((error) => {
      const [only] = candidates
      if (!blames(error) || only === undefined) return Effect.fail(error)
      if (candidates.length === 1) return Effect.sync(() => void counts.rejections.push(rejectedBy(only.index, error)))
      const half = candidates.length >> 1
      return Effect.andThen(append(store, counts, candidates.slice(0, half)), append(store, counts, candidates.slice(half)))
    })
  )

const importAll = Effect.fnUntraced(function*(
  store: Store,
  registry: EventRegistry.EventRegistry,
  limits: LimitsShape,
  events: ReadonlyArray<unknown>
): Effect.fn.Return<Event.Success<typeof Import>, KsiError.KsiError> {
  const max = limits.appendEvents
  if (events.length > max) {
    return yield* KsiError.fail(
      new KsiError.LimitExceeded({ limit: "appendEvents", max, actual: events.length, retryable: false })
    )
  }
  const counts: Counts = { imported: 0, duplicates: 0, rejections: [] }
  const candidates: Array<Candidate> = []
  for (const [index, event] of events.entries()) {
    const result = candidate(registry, limits, event, index)
    if (Result.isSuccess(result)) candidates.push(result.success)
    else counts.rejections.push(result.failure)
  }
  if (candidates.length > 0) yield* append(store, counts, candidates)
  counts.rejections.sort((a, b) => a.index - b.index)
  return { ...counts, rejected: counts.rejections.length, position: store.head() }
})

// ------------------------------------------------------------------------------------------------------------- pages

type Facts = Effect.Effect<ReadonlyArray<CloudEvent.StoredFact>, KsiError.KsiError>

/** Reads of the store for one page; a page that found nothing to show in them says where to go on. */
const maxReads = 16
const leastRead = 64

/** The version that a stream had when the store ended at `position`; 0 where it did not exist. */
const versionAt = Effect.fnUntraced(function*(
  store: Store,
  streamId: string,
  position: number
): Effect.fn.Return<number, KsiError.KsiError> {
  const [newest] = yield* store.readStream({ streamId, from: 1, limit: 1, backward: true })
  if (newest === undefined) return 0
  if (newest.position <= position) return newest.version
  return (yield* firstAfter(store, streamId, newest.version, position)) - 1
})

/** Nothing more of a stream whose facts are gone, all of those that are asked for; `NotFound` where it never had one. */
const emptied = (store: Store, streamId: string): Effect.Effect<typeof Page.Type, KsiError.KsiError> =>
  Effect.flatMap(store.details(streamId), ({ version }) =>
    version === 0 ? streamNotFound(store, streamId) : Effect.succeed(Paging.page([], undefined)))

/** The first version of a stream that is behind `position`; `versions + 1` where none is. */
const firstAfter = (store: Store, streamId: string, versions: number, position: number) =>
  firstWhereEffect(1, versions + 1, (version) =>
    Effect.map(store.readStream({ streamId, from: version, limit: 1 }), ([fact]) =>
      fact === undefined || fact.position > position))

/** Facts as CloudEvents until the page is full; `step` 1 goes up, -1 down, `last` is the last place of all. */
const factPage = Effect.fnUntraced(function*(options: {
  readonly start: number
  readonly last: number
  readonly step: 1 | -1
  readonly limit: number
  readonly pageBytes: number
  readonly read: (at: number, limit: number) => Facts
  readonly place: (fact: CloudEvent.StoredFact) => number
  readonly shown: (fact: CloudEvent.StoredFact) => boolean
  readonly cursor: (next: number) => string
}): Effect.fn.Return<typeof Page.Type, KsiError.KsiError> {
  const { cursor, last, limit, place, read, shown, step } = options
  const fits = Paging.makeBudget(options.pageBytes)
  const items: Array<unknown> = []
  let at = options.start
  const ended = () => step > 0 ? at > last : at < last
  for (let reads = 0; reads < maxReads && items.length < limit && !ended(); reads++) {
    const facts = yield* read(at, limit - items.length)
    // Nothing where something must be: the store was cut short meanwhile; what is there has been shown.
    if (facts.length === 0) return Paging.page(items, undefined)
    for (const fact of facts) {
      if (shown(fact)) {
        const item = CloudEvent.encode(fact)
        if (items.length === limit || !fits(item)) return Paging.page(items, cursor(place(fact)))
        items.push(item)
      }
      at = place(fact) + step
    }
  }
  return Paging.page(items, ended() ? undefined : cursor(at))
})

const numberOr = (next: number | string | undefined, first: number): number => typeof next === "number" ? next : first

/** Pages of an export that asks for a pattern or a tag. */
const makeExportFound = (store: Store, pageBytes: number, pageItems: number) => {
  /** The next facts of a query, from a position on; none where there are no more. */
  const search = Effect.fnUntraced(function*(query: FactQuery.Compiled, from: number, to: number, limit: number) {
    for (let at: number | undefined = from; at !== undefined;) {
      const found: FactPage = yield* store.driver.search({ query, from: at, to, limit, backward: false })
      if (found.facts.length > 0) return found.facts
      at = found.next
      yield* Effect.yieldNow
    }
    return []
  })

  return Effect.fnUntraced(function*(
    { cursor, next, position, query: { all, from = 1, pattern, stream, tag, to = position } }: Paging.Paged<Event.Payload<typeof Export>>,
    limit: number
  ) {
    if (stream !== undefined && (yield* versionAt(store, stream, position)) === 0) return yield* emptied(store, stream)
    const item = { ...(stream === undefined ? {} : { streamIds: [stream] }), ...(tag === undefined ? {} : { tags: [tag] }) }
    const query = yield* Effect.fromResult(Result.mapError(FactQuery.compile({ pattern, query: [item] }), KsiError.make))
    const last = Math.min(to, position)
    return yield* factPage({
      start: numberOr(next, from), last, step: 1, limit, pageBytes, cursor,
      read: (at, limit) => search(query, at, last, Math.min(limit, pageItems)),
      place: (fact) => fact.position,
      shown: all === true || stream !== undefined ? () => true : (fact) => !ownStream(fact.streamId)
    })
  })
}

const makePages = Effect.gen(function*() {
  const store = yield* EventStore
  const { pageBytes, pageItems } = yield* Limits

  const exportStream = Effect.fnUntraced(function*(
    streamId: string,
    { cursor, next, position, query: { from = 1, to = position } }: Paging.Paged<Event.Payload<typeof Export>>,
    limit: number
  ) {
    const versions = yield* versionAt(store, streamId, position)
    if (versions === 0) return yield* emptied(store, streamId)
    const last = to >= position ? versions : (yield* firstAfter(store, streamId, versions, to)) - 1
    const start = typeof next === "number" ? next : from === 1 ? 1 : yield* firstAfter(store, streamId, versions, from - 1)
    return yield* factPage({
      start, last, step: 1, limit, pageBytes, cursor,
      read: (at, limit) => store.readStream({ streamId, from: at, to: last, limit: Math.min(limit, pageItems) }),
      place: ({ version }) => version,
      shown: () => true
    })
  })

  const exportFound = makeExportFound(store, pageBytes, pageItems)

  const exportPage = Effect.fnUntraced(function*(payload: Event.Payload<typeof Export>) {
    const paged = yield* Paging.open(Export, payload, store.head())
    const { cursor, next, position, query } = paged
    const { limit = pageItems } = payload
    if (query.pattern !== undefined || query.tag !== undefined) return yield* exportFound(paged, limit)
    if (query.stream !== undefined) return yield* exportStream(query.stream, paged, limit)
    const last = Math.min(query.to ?? position, position)
    return yield* factPage({
      start: numberOr(next, query.from ?? 1), last, step: 1, limit, pageBytes, cursor,
      // Facts that are not shown must not make many small reads out of a small limit.
      read: (at, limit) => store.read({ from: at, to: last, limit: Math.min(Math.max(limit, leastRead), pageItems) }),
      place: (fact) => fact.position,
      shown: query.all === true ? () => true : (fact) => !ownStream(fact.streamId)
    })
  })

  const readPage = Effect.fnUntraced(function*(payload: Event.Payload<typeof Read>) {
    const { cursor, next, position, query } = yield* Paging.open(Read, payload, store.head())
    const { limit = pageItems } = payload
    const { backward = false, from = 1, stream: streamId } = query
    const versions = yield* versionAt(store, streamId, position)
    if (versions === 0) return yield* emptied(store, streamId)
    const to = Math.min(query.to ?? versions, versions)
    return yield* factPage({
      start: numberOr(next, backward ? to : from),
      last: backward ? from : to,
      step: backward ? -1 : 1,
      limit, pageBytes, cursor,
      read: (at, limit) => {
        const range = backward ? { from, to: at } : { from: at, to }
        return store.readStream({ streamId, ...range, backward, limit: Math.min(limit, pageItems) })
      },
      place: ({ version }) => version,
      shown: () => true
    })
  })

  return { exportPage, readPage, streamsPage: makeStreamsPage(store, pageBytes, pageItems) }
})

/** The first id that is behind all that start with `ksi-`: "." comes after "-". */
const behindOwn = "ksi."

const makeStreamsPage = (store: Store, pageBytes: number, pageItems: number) => {
  const asOf = (info: StreamInfo, position: number): Effect.Effect<number, KsiError.KsiError> =>
    store.head() === position ? Effect.succeed(info.version) : versionAt(store, info.streamId, position)

  return Effect.fnUntraced(function*(payload: Event.Payload<typeof Streams>): Effect.fn.Return<typeof Page.Type, KsiError.KsiError> {
    const { cursor, next, position, query } = yield* Paging.open(Streams, payload, store.head())
    const { limit = pageItems } = payload
    const fits = Paging.makeBudget(pageBytes)
    const items: Array<StreamInfo> = []
    let after = typeof next === "string" ? next : undefined
    let from: string | undefined
    for (let reads = 0; reads < maxReads; reads++) {
      const wanted = Math.min(limit, pageItems) + 1
      const infos = yield* store.streams({ prefix: query.prefix, from, after, limit: wanted })
      let jumped = false
      for (const info of infos) {
        const { streamId } = info
        if (query.all !== true && ownStream(streamId)) {
          from = behindOwn
          jumped = true
          break
        }
        const version = yield* asOf(info, position)
        if (version > 0) {
          const item = { streamId, version }
          if (items.length === limit || !fits(item)) return Paging.page(items, after === undefined ? undefined : cursor(after))
          items.push(item)
        }
        after = streamId
      }
      if (infos.length < wanted && !jumped) return Paging.page(items, undefined)
    }
    return Paging.page(items, after === undefined ? undefined : cursor(after))
  })
}

// ---------------------------------------------------------------------------------------------------------- handlers

const handlers = Group.toLayer(Effect.gen(function*() {
  const store = yield* EventStore
  const { registry } = yield* Router.Router
  const limits = yield* Limits
  const { exportPage, readPage, streamsPage } = yield* makePages
  return {
    "store:import": ({ events }: Event.Payload<typeof Import>) => importAll(store, registry, limits, events),
    "store:export": exportPage,
    "store:read": readPage,
    "store:streams": streamsPage
  }
}))

/** Serves `store:*`. */
export const layer: Layer.Layer<never, KsiError.KsiError, Router.Router | EventStore> = Router.serveBuiltin(Group).pipe(
  Layer.provide(handlers)
)
