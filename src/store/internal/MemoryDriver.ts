// Facts in memory, with the semantics of the stores on disk. What is handed out is frozen: nobody can change the past.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import { type Append, atOnce, type Moment, type Outcome, Said, withSaying } from "../../bus/Journal.ts"
import * as CloudEvent from "../../event/CloudEvent.ts"
import type { NewFact, StoredFact } from "../../event/CloudEvent.ts"
import * as Envelope from "../../event/Envelope.ts"
import { type Labels, matchesTerm, type Term } from "../../event/FactQuery.ts"
import * as Json from "../../event/Json.ts"
import type { JsonObject } from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import * as Limits from "../../event/Limits.ts"
import * as Tags from "../../event/Tags.ts"
import { makeAnnouncer } from "./Announcer.ts"
import { onForget } from "../Forgetting.ts"
import { makeMemory as makeSnapshots, type Snapshots } from "../Snapshots.ts"
import * as StreamSettings from "../StreamSettings.ts"
import {
  type Driver, type Found, goOn, type Removed, type Retained, type Search, type StreamDetails, type StreamInfo, windowOf
} from "./Driver.ts"
import * as Expectations from "./Expectations.ts"
import { Participants } from "./Participants.ts"

const nothing: JsonObject = {}

/** The bytes of a fact's JSON and labels. */
const bytesOf = ({ attributes, data, id, name, source, streamId }: StoredFact): number => {
  const text = data === undefined ? "" : JSON.stringify(data)
  return Buffer.byteLength(text) + Buffer.byteLength(JSON.stringify(attributes)) + 3 * (id.length + source.length + name.length + streamId.length)
}

const several = (positions: number | ReadonlyArray<number>): ReadonlyArray<number> => typeof positions === "number" ? [positions] : positions

/** The fact that was said, as it is handed out. */
const toStored = ({ cause, data, id, moment, name, position, streamId, version }: Said): StoredFact => {
  const { recordedAt, timestamp } = moment ?? { recordedAt: 0, timestamp: 0 }
  const attributes: JsonObject = cause === undefined
    ? { correlationid: id }
    : { correlationid: cause.correlationId, causationid: cause.id, depth: cause.depth }
  return Object.freeze({
    id, source: Envelope.ownSource, name, streamId, data: Json.freeze(data), time: Envelope.timeText(timestamp), attributes: Object.freeze(attributes),
    position, version, timestamp, recordedAt
  })
}

/**
 * What an in-memory store holds, and the ways to change it. What the bus says itself is kept as it came and looked
 * at when somebody asks: then it becomes a fact that can be handed out, and then ids are looked up.
 */
class Memory {
  /** By position - 1; `undefined` where a fact was removed. */
  private readonly kept: Array<StoredFact | Said | undefined> = []
  /** By position - 1; 0 where nobody has asked. */
  private readonly bytes: Array<number> = []
  /** Positions of a stream's facts by version - 1. */
  private readonly byStream = new Map<string, Array<number>>()
  /** Positions of the facts with a tag. */
  private readonly byTag = new Map<string, Array<number>>()
  /** Where the facts with an id are: one position, or several of different sources. Of the first `indexed` facts. */
  private readonly ids = new Map<string, number | ReadonlyArray<number>>()
  private indexed = 0
  /** Positions by correlation and by label, of the first `correlated` facts: made when somebody asks. */
  private readonly chains = new Map<string, Array<number>>()
  private correlated = 0
  /** When the last fact was kept. */
  private latest = -Infinity
  /** Of what was said last: what follows in the same millisecond shares it. */
  private moment: Moment = { timestamp: 0, recordedAt: 0 }
  private sorted: ReadonlyArray<string> | undefined = []
  /** The first versions that are left, of streams that lost some. */
  private readonly firsts = new Map<string, number>()
  private readonly deleted = new Set<string>()
  readonly settings = new Map<string, StreamSettings.StreamSettings>()
  /** Who changes something together with facts. */
  readonly participants = new Participants()

  get length(): number {
    return this.kept.length
  }

  version(streamId: string): number {
    return this.byStream.get(streamId)?.length ?? 0
  }

  /** The first version that a stream may hold. */
  first(streamId: string): number {
    return this.firsts.get(streamId) ?? 1
  }

  isDeleted(streamId: string): boolean {
    return this.deleted.has(streamId)
  }

  /** Removes what a stream holds before a version; with `forEver` it takes no more. Of a fact that is gone, its place is left. */
  cut(streamId: string, first: number, forEver: boolean): void {
    for (const position of this.left(streamId, first)) {
      const gone = this.kept[position - 1]
      this.kept[position - 1] = undefined
      this.bytes[position - 1] = 0
      if (gone !== undefined && position <= this.indexed) this.unindex(gone)
      if (gone !== undefined && !(gone instanceof Said)) this.untag(gone)
    }
    this.firsts.set(streamId, first)
    if (!forEver) return
    this.deleted.add(streamId)
    this.settings.delete(streamId)
  }

  /** Positions of what a stream holds before a version. */
  left(streamId: string, before: number): ReadonlyArray<number> {
    return this.positions(streamId).slice(this.first(streamId) - 1, before - 1)
  }

  positions(streamId: string): ReadonlyArray<number> {
    return this.byStream.get(streamId) ?? []
  }

  tagged(tag: string): ReadonlyArray<number> {
    return this.byTag.get(tag) ?? []
  }

  /** What a fact is matched by; what was said has no tags. */
  labels(position: number): Labels | undefined {
    const kept = this.kept[position - 1]
    return kept instanceof Said ? { name: kept.name, streamId: kept.streamId, attributes: nothing } : kept
  }

  at(position: number): StoredFact | undefined {
    const kept = this.kept[position - 1]
    return kept instanceof Said ? this.kept[position - 1] = toStored(kept) : kept
  }

  find({ id, source }: NewFact): StoredFact | undefined {
    return this.byId(id).find((stored) => stored.source === source)
  }

  byId(id: string): ReadonlyArray<StoredFact> {
    for (; this.indexed < this.kept.length; this.indexed++) {
      const next = this.kept[this.indexed]
      if (next !== undefined) this.index(next)
    }
    const known = this.ids.get(id)
    return known === undefined ? [] : several(known).flatMap((position) => this.at(position) ?? [])
  }

  /** Positions of the facts of a chain, or with a label. */
  chain(correlationId: string): ReadonlyArray<number> {
    for (; this.correlated < this.kept.length; this.correlated++) {
      const next = this.kept[this.correlated]
      if (next !== undefined) this.correlate(next)
    }
    return this.chains.get(correlationId) ?? []
  }

  bytesAt(fact: StoredFact): number {
    while (this.bytes.length < fact.position) this.bytes.push(0)
    return this.bytes[fact.position - 1] ||= bytesOf(fact)
  }

  push(fact: NewFact, now: number): StoredFact {
    const { attributes, data, id, name, source, streamId, time } = fact
    const recordedAt = this.recordedAt(now)
    const stored: StoredFact = Object.freeze({
      id,
      source,
      name,
      streamId,
      data: data === undefined ? undefined : Json.frozen(data),
      time,
      // JSON of an object is an object.
      attributes: Json.frozen(attributes) as JsonObject,
      position: this.kept.length + 1,
      version: this.next(streamId),
      timestamp: (time === undefined ? undefined : CloudEvent.parseTime(time)) ?? recordedAt,
      recordedAt
    })
    this.kept.push(stored)
    for (const tag of Tags.of(stored)) {
      const known = this.byTag.get(tag)
      if (known === undefined) this.byTag.set(tag, [stored.position])
      else known.push(stored.position)
    }
    return stored
  }

  say(said: Said, timestamp: number): void {
    // It is said in this very turn.
    const recordedAt = this.recordedAt(timestamp)
    if (this.moment.timestamp !== timestamp || this.moment.recordedAt !== recordedAt) this.moment = { timestamp, recordedAt }
    said.moment = this.moment
    said.version = this.next(said.streamId)
    said.position = this.kept.push(said)
  }

  /** Takes the last facts back until `length` are left. */
  truncate(length: number): void {
    while (this.kept.length > length) {
      const last = this.kept.pop()
      if (last === undefined) return
      this.bytes.length = Math.min(this.bytes.length, this.kept.length)
      const stream = this.byStream.get(last.streamId)
      stream?.pop()
      if (stream?.length === 0) this.byStream.delete(last.streamId)
      if (!(last instanceof Said)) this.untag(last)
      if (this.indexed <= this.kept.length) continue
      this.indexed = this.kept.length
      this.unindex(last)
    }
  }

  /** Begins anew. */
  forget(): void {
    this.kept.length = 0
    this.bytes.length = 0
    this.byStream.clear()
    this.ids.clear()
    this.indexed = 0
    this.firsts.clear()
    this.deleted.clear()
    this.settings.clear()
    this.chains.clear()
    this.correlated = 0
    this.byTag.clear()
    this.latest = -Infinity
    this.sorted = undefined
  }

  streamIds(): ReadonlyArray<string> {
    return this.sorted ??= [...this.byStream.keys()].toSorted()
  }

  private untag(last: StoredFact): void {
    for (const tag of Tags.of(last)) {
      const known = this.byTag.get(tag)
      // Mostly the last one: an append that is taken back.
      known?.splice(known.lastIndexOf(last.position), 1)
      if (known?.length === 0) this.byTag.delete(tag)
    }
  }

  private recordedAt(now: number): number {
    if (now > this.latest) this.latest = now
    return this.latest
  }

  private index({ id, position }: StoredFact | Said): void {
    const known = this.ids.get(id)
    this.ids.set(id, known === undefined ? position : [...several(known), position])
  }

  private correlate(kept: StoredFact | Said): void {
    const { clientcorrelationid: label, correlationid = undefined } = kept instanceof Said
      ? { correlationid: kept.cause?.correlationId, clientcorrelationid: undefined }
      : kept.attributes
    for (const chain of new Set([correlationid === kept.id ? undefined : correlationid, label])) {
      if (typeof chain !== "string") continue
      const known = this.chains.get(chain)
      if (known === undefined) this.chains.set(chain, [kept.position])
      else known.push(kept.position)
    }
  }

  private unindex({ id, position }: StoredFact | Said): void {
    const others = several(this.ids.get(id) ?? []).filter((other) => other !== position)
    if (others.length === 0) this.ids.delete(id)
    else this.ids.set(id, others)
  }

  /** The version of the fact that is kept next. */
  private next(streamId: string): number {
    const position = this.kept.length + 1
    const known = this.byStream.get(streamId)
    if (known !== undefined) return known.push(position)
    this.byStream.set(streamId, [position])
    this.sorted = undefined
    return 1
  }
}

/** Those of ascending positions that are within a range. */
const within = (positions: ReadonlyArray<number>, from: number, to: number): ReadonlyArray<number> =>
  positions.slice(lowerBound(positions, from), lowerBound(positions, to + 1))

/** Where facts of a term may be, by tag or stream; `undefined` where they may be anywhere. */
const candidates = (memory: Memory, { streamIds, tags }: Term, from: number, to: number): ReadonlyArray<number> | undefined => {
  const [first, ...others] = tags.map((tag) => within(memory.tagged(tag), from, to))
  if (first !== undefined) return others.reduce((a, b) => b.length < a.length ? b : a, first)
  if (streamIds === undefined) return undefined
  return [...streamIds].flatMap((streamId) => within(memory.positions(streamId), from, to)).sort((a, b) => a - b)
}

const ofTerm = (memory: Memory, term: Term, { backward, from, limit, to }: Omit<Search, "query">): ReadonlyArray<number> => {
  const list = candidates(memory, term, from, to)
  const count = list === undefined ? to - from + 1 : list.length
  const found: Array<number> = []
  for (let index = 0; index < count && found.length < limit; index++) {
    const at = backward ? count - 1 - index : index
    const position = list === undefined ? from + at : list[at] ?? 0
    const labels = memory.labels(position)
    if (labels !== undefined && matchesTerm(term, labels)) found.push(position)
  }
  return found
}

/** Positions of the facts that match, in order. */
const matching = (memory: Memory, { query, ...range }: Search): ReadonlyArray<number> => {
  const found = new Set(query.terms.flatMap((term) => ofTerm(memory, term, range)))
  return [...found].sort((a, b) => range.backward ? b - a : a - b).slice(0, range.limit)
}

const placeOf = (memory: Memory): Expectations.Place => ({
  version: (streamId) => memory.version(streamId),
  first: (query, after) => matching(memory, { query, from: after + 1, to: memory.length, limit: 1, backward: false })[0]
})

/** Puts the facts in, or leaves everything as it was and says why not. */
const commit = (memory: Memory, request: Append, now: number): Result.Result<ReadonlyArray<Outcome>, KsiError.Reason> => {
  const before = memory.length
  try {
    const committed = put(memory, request, now)
    if (memory.participants.isEmpty || memory.length === before) return committed
    const refusal = together(memory, before)
    if (refusal === undefined) return committed
    memory.truncate(before)
    return Result.fail(refusal.reason)
  } catch (cause) {
    // Data that throws when it is looked at once more; or one who takes part does.
    memory.truncate(before)
    throw cause
  }
}

/** Lets those who take part change what is theirs with the facts behind a position, or tell why these are refused. */
const together = (memory: Memory, before: number): KsiError.KsiError | undefined => {
  const { participants } = memory
  const concerned: Array<StoredFact> = []
  for (let position = before + 1; position <= memory.length; position++) {
    const fact = memory.at(position)
    if (fact !== undefined && participants.handles(fact.name, fact.streamId)) concerned.push(fact)
  }
  let isCommitted = false
  try {
    const refusal = concerned.length === 0 ? undefined : participants.refusal(concerned)
    if (refusal === undefined) participants.write(memory.length)
    isCommitted = refusal === undefined
    return refusal
  } finally {
    participants.ended(isCommitted)
  }
}

const put = (memory: Memory, request: Append, now: number): Result.Result<ReadonlyArray<Outcome>, KsiError.Reason> => {
  const before = memory.length
  const expected = Expectations.of(request)
  if (KsiError.is(expected)) return Result.fail(expected.reason)
  const outcomes: Array<Outcome> = []
  for (const { streamId } of request.facts) {
    if (memory.isDeleted(streamId)) return Result.fail(new KsiError.StreamDeleted({ streamId }))
  }
  for (const fact of request.facts) {
    const found = memory.find(fact)
    if (found !== undefined) {
      const kind = CloudEvent.sameContent(found, fact) ? "duplicate" : "conflict"
      if (kind === "conflict" && request.mode !== "each") {
        memory.truncate(before)
        return Result.fail(new KsiError.IdConflict({ source: fact.source, id: fact.id, position: found.position }))
      }
      outcomes.push({ kind, position: found.position, version: found.version })
      continue
    }
    // Before the first new fact only: what follows in this append has moved the store itself.
    const unmet = expected === undefined || memory.length > before ? undefined : Expectations.unmet(expected, placeOf(memory))
    if (unmet !== undefined) return Result.fail(unmet)
    const { position, version } = memory.push(fact, now)
    outcomes.push({ kind: "appended", position, version })
  }
  return Result.succeed(outcomes)
}

/** As many facts as the bounds allow, at least one: `at` steps through `count` of them. */
const pageNow = (
  memory: Memory,
  pageBytes: number,
  limit: number,
  count: number,
  at: (index: number) => StoredFact | undefined
): ReadonlyArray<StoredFact> => {
  const facts: Array<StoredFact> = []
  let left = pageBytes
  for (let index = 0; index < count && facts.length < limit; index++) {
    const fact = at(index)
    if (fact === undefined) continue
    left -= memory.bytesAt(fact)
    if (left < 0 && facts.length > 0) break
    facts.push(fact)
  }
  return facts
}

const page = (...args: Parameters<typeof pageNow>): Effect.Effect<ReadonlyArray<StoredFact>> => Effect.sync(() => pageNow(...args))

const search = (memory: Memory, pageBytes: number, options: Search): Found => {
  const { high, low, next } = windowOf(options)
  const positions = matching(memory, { ...options, from: low, to: high })
  const facts = pageNow(memory, pageBytes, options.limit, positions.length, (index) => memory.at(positions[index] ?? 0))
  const last = facts.at(-1)
  const isAll = last === undefined || (positions.length < options.limit && facts.length === positions.length)
  return { facts, next: isAll ? next : goOn(options, last.position) }
}

/** Index of the first item that is not before `key`. */
const lowerBound = <A extends string | number>(items: ReadonlyArray<A>, key: A): number => {
  let low = 0
  let high = items.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const item = items[middle]
    if (item !== undefined && item < key) low = middle + 1
    else high = middle
  }
  return low
}

const listStreams = (memory: Memory, options: Parameters<Driver["streams"]>[0]): ReadonlyArray<StreamInfo> => {
  const { after = "", from = "", limit, prefix = "" } = options
  const ids = memory.streamIds()
  const infos: Array<StreamInfo> = []
  const first = lowerBound(ids, [after, from, prefix].reduce((a, b) => a > b ? a : b))
  for (let index = first; infos.length < limit; index++) {
    const streamId = ids[index]
    if (streamId === undefined || !streamId.startsWith(prefix)) break
    if (streamId !== after) infos.push({ streamId, version: memory.version(streamId) })
  }
  return infos
}

const detailsOf = (memory: Memory, streamId: string): StreamDetails | undefined => {
  const settings = memory.settings.get(streamId)
  const version = memory.version(streamId)
  if (version === 0 && settings === undefined) return undefined
  const first = memory.first(streamId)
  const isDeleted = memory.isDeleted(streamId)
  return { streamId, version, first, count: version - first + 1, isDeleted, settings: settings ?? StreamSettings.none }
}

/** What takes facts out, and the settings by which it does. */
const retention = (
  memory: Memory,
  clock: Clock.Clock,
  snapshots: Snapshots,
  tell: (from: number) => Effect.Effect<void> | undefined
): Pick<Driver, "details" | "configure" | "retainSome" | "entomb" | "onRemoved"> => {
  const hooks: Array<(removed: Removed) => void> = [
    ({ positions: [fromPosition = 0], streamId }) => snapshots.forget({ streamId, fromPosition })
  ]
  const cut = (streamId: string, first: number, forEver: boolean) => {
    const positions = memory.left(streamId, first)
    if (positions.length > 0) for (const hook of hooks) hook({ streamId, positions })
    memory.cut(streamId, first, forEver)
  }
  const apply = ({ facts, from, streams }: Parameters<Driver["retainSome"]>[0], now: number): Retained => {
    const ids = [...memory.settings.keys()].filter((id) => id >= from).toSorted()
    let removed = 0
    for (const streamId of ids.slice(0, streams)) {
      const first = memory.first(streamId)
      const kept = StreamSettings.firstKept(memory.settings.get(streamId) ?? StreamSettings.none, {
        first, last: memory.version(streamId), now,
        recordedAt: (version) => memory.at(memory.positions(streamId)[version - 1] ?? 0)?.recordedAt ?? 0
      })
      const to = Math.min(kept, first + facts - removed)
      if (to > first) cut(streamId, to, false)
      removed += to - first
      if (to < kept) return { facts: removed, next: streamId }
    }
    return { facts: removed, next: ids[streams] }
  }
  return {
    details: (streamId) => Effect.sync(() => detailsOf(memory, streamId)),
    configure: (streamId, settings) =>
      Effect.suspend(() => {
        if (memory.isDeleted(streamId)) return KsiError.fail(new KsiError.StreamDeleted({ streamId }))
        if (StreamSettings.isNone(settings)) memory.settings.delete(streamId)
        else memory.settings.set(streamId, settings)
        return Effect.void
      }),
    retainSome: (options) => Effect.sync(() => apply(options, clock.currentTimeMillisUnsafe())),
    entomb: (tombstone, expectedVersion) =>
      Effect.suspend(() => {
        const before = memory.length
        const committed = commit(memory, { facts: [tombstone], expectedVersion }, clock.currentTimeMillisUnsafe())
        if (Result.isFailure(committed)) return KsiError.fail(committed.failure)
        const [outcome] = committed.success
        if (outcome?.kind !== "appended") {
          const { id, source } = tombstone
          return KsiError.fail(new KsiError.IdConflict({ source, id, position: outcome?.position ?? 0 }))
        }
        cut(tombstone.streamId, outcome.version, true)
        return Effect.as(tell(before + 1) ?? Effect.void, outcome)
      }),
    onRemoved: (hook) => void hooks.push(hook)
  }
}

/** A new store in memory. */
export const makeMemory: Effect.Effect<Driver> = Effect.gen(function*() {
  const { frameBytes, jsonDepth, pageBytes } = yield* Limits.Limits
  const clock = yield* Clock.Clock
  const memory = new Memory()
  const snapshots = makeSnapshots()
  yield* onForget(() => {
    memory.forget()
    memory.participants.clear()
    snapshots.clear()
    return true
  })
  const { announce, isIdle, listen } = makeAnnouncer()
  /** Tells of the facts from a position on; answers with what is left to do. */
  const tell = (from: number): Effect.Effect<void> | undefined => {
    if (memory.length < from || isIdle()) return undefined
    const facts: Array<StoredFact> = []
    for (let position = from; position <= memory.length; position++) {
      const fact = memory.at(position)
      if (fact !== undefined) facts.push(fact)
    }
    const thrown = announce(facts)
    return thrown.length === 0 ? undefined : Effect.logError("a listener of the store threw", ...thrown)
  }
  const append = (request: Append): Effect.Effect<ReadonlyArray<Outcome>, KsiError.KsiError> => {
    const before = memory.length
    const committed = commit(memory, request, clock.currentTimeMillisUnsafe())
    if (Result.isFailure(committed)) return KsiError.exit(committed.failure)
    const rest = tell(before + 1)
    const answer = Exit.succeed(committed.success)
    return rest === undefined ? answer : Effect.andThen(rest, answer)
  }
  const say = (said: Said, timestamp: number) => {
    memory.say(said, timestamp)
    return tell(said.position)
  }
  return {
    append: withSaying((request) => atOnce(() => append(request)), { frameBytes, jsonDepth, takes: ({ name, streamId }) => !memory.isDeleted(streamId) && !memory.participants.handles(name, streamId), say }),
    read: ({ from, limit, to }) => {
      const first = Math.max(1, from)
      const count = Math.min(to ?? memory.length, memory.length) - first + 1
      return page(memory, pageBytes, limit, count, (index) => memory.at(first + index))
    },
    head: () => memory.length,
    listen,
    readStream: ({ backward, from, limit, streamId, to }) =>
      Effect.suspend(() => {
        const stream = memory.positions(streamId)
        const first = Math.max(memory.first(streamId), from)
        const last = Math.min(to ?? stream.length, stream.length)
        return page(memory, pageBytes, limit, last - first + 1, (index) =>
          memory.at(stream[backward === true ? last - 1 - index : first - 1 + index] ?? 0))
      }),
    search: (options) => Effect.sync(() => search(memory, pageBytes, options)),
    streams: (options) => Effect.sync(() => listStreams(memory, options)),
    byId: (id) => Effect.sync(() => [...memory.byId(id)]),
    byCorrelation: ({ correlationId, from, limit }) =>
      Effect.suspend(() => {
        const chain = memory.chain(correlationId)
        const first = chain.findIndex((position) => position >= from)
        return page(memory, pageBytes, limit, first < 0 ? 0 : chain.length - first, (index) => memory.at(chain[first + index] ?? 0))
      }),
    snapshots,
    join: (participant) => memory.participants.join(participant),
    ...retention(memory, clock, snapshots, tell),
    describe: { kind: "memory", file: undefined }
  }
})
