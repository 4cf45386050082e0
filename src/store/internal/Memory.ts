// What a store in memory holds: facts by position, and where they are by stream, id, chain and tag; and how they are looked for.
import { type Moment, Said } from "../../bus/Journal.ts"
import * as CloudEvent from "../../event/CloudEvent.ts"
import type { NewFact, StoredFact } from "../../event/CloudEvent.ts"
import { type Labels, matchesTerm, type Term } from "../../event/FactQuery.ts"
import * as Envelope from "../../event/Envelope.ts"
import * as Json from "../../event/Json.ts"
import type { JsonObject } from "../../event/Json.ts"
import * as Tags from "../../event/Tags.ts"
import type * as StreamSettings from "../StreamSettings.ts"
import { firstWhere } from "./bisect.ts"
import type { FactSearch } from "./Driver.ts"
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
export class Memory {
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

/** Index of the first item that is not before `key`. */
export const lowerBound = <A extends string | number>(items: ReadonlyArray<A>, key: A): number =>
  firstWhere(0, items.length, (index) => {
    const item = items[index]
    return item === undefined || item >= key
  })

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

const ofTerm = (memory: Memory, term: Term, { backward, from, limit, to }: Omit<FactSearch, "query">): ReadonlyArray<number> => {
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
export const matching = (memory: Memory, { query, ...range }: FactSearch): ReadonlyArray<number> => {
  const found = new Set(query.terms.flatMap((term) => ofTerm(memory, term, range)))
  return [...found].sort((a, b) => range.backward ? b - a : a - b).slice(0, range.limit)
}
