// What happened, out of two places: requests from the activity journal, facts from the store. Looking for facts is
// bounded in facts and in reads; how far it got is part of the answer.
import * as Effect from "effect/Effect"
import type { Activity, ActivityQuery, ActivityRecord } from "../../bus/Activity.ts"
import type { Journal } from "../../bus/Journal.ts"
import type { StoredFact } from "../../event/CloudEvent.ts"
import * as Envelope from "../../event/Envelope.ts"
import type * as KsiError from "../../event/KsiError.ts"
import { firstWhereEffect } from "../../store/internal/bisect.ts"

/** Facts that one question looks at. */
const maxScanned = 10_000
const maxReads = 64
const chunkFacts = 1000
const requestPage = 100

type Reader = Pick<Journal["Service"], "read" | "head">

/** Something that happened, as it is answered. */
export interface Item {
  /** Seconds since 1970: when a request was made, when a fact was stored. */
  readonly timestamp: number
  readonly event_name: string
  readonly data: unknown
  readonly event_id: string
  readonly correlation_id: string
  /** Id of what caused it. */
  readonly parent: string | null
  readonly depth: number
  readonly kind: "request" | "fact"
  readonly principal: string
  readonly client_id?: string
  readonly client_correlation_id?: string
  /** Of a request. */
  readonly outcome?: string
  readonly error?: string
  /** Milliseconds that a request took. */
  readonly duration?: number
  /** Of a fact. */
  readonly position?: number
  readonly version?: number
  readonly stream_id?: string
  readonly source?: string
  /** When a fact happened, by its own words. */
  readonly time?: string
}

const labels = (of: { readonly clientId: string | undefined; readonly clientCorrelationId: string | undefined }) => ({
  ...(of.clientId === undefined ? {} : { client_id: of.clientId }),
  ...(of.clientCorrelationId === undefined ? {} : { client_correlation_id: of.clientCorrelationId })
})

/** A fact as an item. */
export const ofFact = (fact: StoredFact): Item => {
  const { metadata } = Envelope.fromFact(fact, undefined)
  return {
    timestamp: fact.recordedAt / 1000,
    event_name: fact.name,
    data: fact.data ?? null,
    event_id: fact.id,
    correlation_id: metadata.correlationId,
    parent: metadata.causationId ?? null,
    depth: metadata.depth,
    kind: "fact",
    principal: metadata.principal,
    ...labels(metadata),
    position: fact.position,
    version: fact.version,
    stream_id: fact.streamId,
    source: fact.source,
    ...(fact.time === undefined ? {} : { time: fact.time })
  }
}

/** A request as an item. */
export const ofRequest = (record: ActivityRecord): Item => ({
  timestamp: record.timestamp / 1000,
  event_name: record.name,
  data: record.data ?? null,
  event_id: record.id,
  correlation_id: record.correlationId,
  parent: record.causationId ?? null,
  depth: record.depth,
  kind: "request",
  principal: record.principal,
  ...labels(record),
  outcome: record.outcome,
  ...(record.error === undefined ? {} : { error: record.error }),
  duration: record.duration
})

/** Oldest first; what was caused comes after its cause. */
export const inOrder = (a: Item, b: Item): number =>
  a.timestamp - b.timestamp || a.depth - b.depth || (a.position ?? 0) - (b.position ?? 0)

/** The millisecond in which a UUIDv7 was made; `undefined` for other texts. */
export const millisOf = (id: string): number | undefined =>
  /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i.test(id)
    ? Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)
    : undefined

// -------------------------------------------------------------------------------------------------------------- facts

/** Facts to look for: between two positions, newest first unless `forward`. */
interface Search {
  readonly from: number
  readonly to: number
  readonly forward: boolean
  readonly matches: (fact: StoredFact) => boolean
  /** So many that match are kept, the others are counted. */
  readonly keep: number
  /** Whether to go on counting when `keep` are found. */
  readonly count: boolean
}

/** What was found, in the order of the search, and the positions that were looked at (0 and 0: none). */
interface Found {
  readonly facts: ReadonlyArray<StoredFact>
  readonly total: number
  readonly from: number
  readonly to: number
}

/** The positions whose facts were stored within `[since, until]`; commit time never decreases. */
export const positionsOf = Effect.fnUntraced(function*(
  store: Reader,
  since: number | undefined,
  until: number | undefined
): Effect.fn.Return<{ readonly from: number; readonly to: number }, KsiError.KsiError> {
  const head = store.head()
  const storedFrom = (millis: number, inclusive: boolean) =>
    firstWhereEffect(1, head + 1, (position) =>
      Effect.map(store.read({ from: position, limit: 1 }), ([fact]) =>
        fact === undefined || (inclusive ? fact.recordedAt >= millis : fact.recordedAt > millis)))
  return {
    from: since === undefined ? 1 : yield* storedFrom(since, true),
    to: until === undefined ? head : (yield* storedFrom(until, false)) - 1
  }
})

/** Whether there is more up to `end` than a page that begins at `start` has. */
const endsEarly = (store: Reader, page: ReadonlyArray<StoredFact>, start: number, end: number) => {
  const last = page.at(-1)?.position ?? end
  if (last >= end || page.length === end - start + 1) return Effect.succeed(false)
  return Effect.map(store.read({ from: last + 1, to: end, limit: 1 }), (more) => more.length > 0)
}

/** Looks through the facts, at most `maxScanned` of them and in at most `maxReads` reads. */
export const search = Effect.fnUntraced(function*(
  store: Reader,
  { count, forward, from, keep, matches, to }: Search
): Effect.fn.Return<Found, KsiError.KsiError> {
  const low = forward ? from : Math.max(from, to - maxScanned + 1)
  const high = forward ? Math.min(to, from + maxScanned - 1) : to
  const facts: Array<StoredFact> = []
  let total = 0
  let next = forward ? low : high
  let chunk = chunkFacts
  for (let reads = 0; reads < maxReads && next >= low && next <= high; reads++) {
    const start = forward ? next : Math.max(low, next - chunk + 1)
    const end = forward ? Math.min(high, next + chunk - 1) : next
    const page = yield* store.read({ from: start, to: end, limit: end - start + 1 })
    // Big facts: the page ended before its end. Going back, that leaves out just the newest ones.
    if (!forward && (yield* endsEarly(store, page, start, end))) {
      chunk = Math.max(1, Math.min(page.length, chunk >> 1))
      continue
    }
    for (const fact of forward ? page : page.toReversed()) {
      next = forward ? fact.position + 1 : fact.position - 1
      if (!matches(fact)) continue
      total++
      if (facts.length < keep) facts.push(fact)
    }
    // Behind the first and the last of a page facts may have been removed; going forward, the page may have ended for its bytes.
    if (!forward) next = start - 1
    else if (page.length === 0) next = end + 1
    if (!count && facts.length >= keep) break
    chunk = Math.min(chunkFacts, chunk * 2)
  }
  const looked = forward ? { from: low, to: next - 1 } : { from: next + 1, to: high }
  return looked.from > looked.to ? { facts, total, from: 0, to: 0 } : { facts, total, ...looked }
})

// --------------------------------------------------------------------------------------------------------------- both

/** Requests, a page at a time, in the order in which they ended. */
export const makeRequests = (activity: Activity["Service"], query: Omit<ActivityQuery, "limit" | "offset">) => {
  const seen = new Set<string>()
  let waiting: Array<ActivityRecord> = []
  let offset = 0
  let ended = false
  let total: number | undefined
  const fill = Effect.fnUntraced(function*() {
    while (waiting.length === 0 && !ended) {
      const page = yield* activity.query({ ...query, limit: requestPage, offset })
      total ??= page.total
      offset += page.records.length
      ended = page.records.length < requestPage
      // Requests that end meanwhile move the others along.
      waiting = page.records.filter(({ id }) => !seen.has(id))
      for (const { id } of waiting) seen.add(id)
    }
  })
  return {
    /** The next one, left where it is. */
    peek: Effect.suspend(() => waiting.length > 0 || ended ? Effect.succeed(waiting[0]) : Effect.map(fill(), () => waiting[0])),
    take: () => void waiting.shift(),
    /** How many match; known once `peek` has been asked. */
    total: () => total ?? 0
  }
}

const endOf = (record: ActivityRecord): number => record.timestamp + record.duration

/**
 * Facts and requests in one list: newest first, or oldest first. A request counts as of its end, which is after the
 * facts it made. `visit` answers whether to go on.
 */
export const merge = Effect.fnUntraced(function*(
  facts: ReadonlyArray<StoredFact>,
  requests: ReturnType<typeof makeRequests>,
  forward: boolean,
  visit: (item: () => Item) => boolean
): Effect.fn.Return<void, KsiError.KsiError> {
  let at = 0
  for (;;) {
    const fact = facts[at]
    const record = yield* requests.peek
    if (fact === undefined && record === undefined) return
    const factFirst = record === undefined || (fact !== undefined &&
      (forward ? fact.recordedAt <= endOf(record) : fact.recordedAt > endOf(record)))
    if (factFirst && fact !== undefined) {
      at++
      if (!visit(() => ofFact(fact))) return
    } else if (record !== undefined) {
      requests.take()
      if (!visit(() => ofRequest(record))) return
    }
  }
})
