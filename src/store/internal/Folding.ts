/**
 * Streams while they are folded, and how they are written into a snapshot and read back.
 *
 * The rule: streams are in the order of their first facts, in chunks of 256. What a chunk holds, and so what it says, depends on
 * the facts alone; streams that nobody adds to any more are in chunks that nobody writes again.
 *
 * **Gotchas** What repeats is kept in columns: most of a moment is an id and a time, and a thousand of them are one text each. A
 * text that is long is compressed, with a checksum; the parser finds what is wrong with others.
 */
import * as Result from "effect/Result"
import * as Zlib from "node:zlib"
import type { StoredFact } from "../../event/CloudEvent.ts"
import * as Envelope from "../../event/Envelope.ts"
import * as Json from "../../event/Json.ts"
import type * as KsiError from "../../event/KsiError.ts"
import { type Format, type Projection, step } from "../Projection.ts"
import type { Body, Chunk } from "../Snapshots.ts"

/** Streams in a chunk. */
export const chunkStreams = 256

/** Shorter texts gain too little. */
const compressedFrom = 2048
/** Of a stream that was never written. */
const guessedBytes = 48

const { ZSTD_c_checksumFlag: checksum, ZSTD_c_compressionLevel: level } = Zlib.constants
const compression = { params: { [level]: 1, [checksum]: 1 } }

/** A stream and its state, up to some fact: what a moment says, so that it is handed out as it is. */
export interface Folded<S> {
  readonly streamId: string
  version: number
  lastEvent: string
  lastEventId: string
  timestamp: string
  state: S
}

/** Texts as one, where none of them holds the separator. */
type Packed = string | ReadonlyArray<string>

const pack = (texts: ReadonlyArray<string>): Packed => texts.some((text) => text === "" || text.includes(" ")) ? texts : texts.join(" ")
const unpack = (packed: unknown): ReadonlyArray<unknown> => {
  if (typeof packed === "string") return packed.split(" ")
  if (Array.isArray(packed)) return packed
  throw new TypeError("texts expected")
}

const text = (value: unknown): string => {
  if (typeof value !== "string") throw new TypeError("a text expected")
  return value
}
const count = (value: unknown): number => {
  if (typeof value !== "number") throw new TypeError("a number expected")
  return value
}

/** A state, written. Throws where it cannot be: what came back would be another one. */
const stateText = <S>(projection: Projection<S>, state: S): string => text(JSON.stringify(projection.encode(state)))

/** Columns of a chunk; the last one is of states, each of them written as JSON. */
const encode = <S>(streams: ReadonlyArray<Folded<S>>, handled: ReadonlyArray<boolean>, states: ReadonlyArray<string>): Body => {
  const names = [...new Set(streams.map(({ lastEvent }) => lastEvent))]
  const indexes = new Map(names.map((name, index) => [name, index]))
  const columns = JSON.stringify([
    pack(streams.map(({ streamId }) => streamId)),
    streams.map(({ version }) => version),
    names,
    streams.map(({ lastEvent }) => indexes.get(lastEvent)),
    pack(streams.map(({ lastEventId }) => lastEventId)),
    pack(streams.map(({ timestamp }) => timestamp)),
    handled.every((one) => one) ? 1 : handled.map((one) => one ? 1 : 0)
  ])
  const written = states.join(",")
  const json = `${columns.slice(0, -1)},[${written}]]`
  // A blank before it says that it may be parsed without care, which takes a good part of the time. Only states hold numbers of
  // any size, and keys.
  const text = Json.isSuspicious(written) || written.includes("\\") ? json : ` ${json}`
  return text.length < compressedFrom ? text : Zlib.zstdCompressSync(text, compression)
}

/** What a chunk says. */
interface Decoded<S> {
  readonly streams: ReadonlyArray<Folded<S>>
  readonly handled: ReadonlyArray<boolean>
}

/** Reads a chunk back; `index` says which. Throws where it is none. */
const decode = <S>(format: Format<S>, body: Body, index: number, ids: StreamIds | undefined): Decoded<S> => {
  const written = typeof body === "string" ? body : Zlib.zstdDecompressSync(body).toString()
  const json: unknown = written.startsWith(" ") ? JSON.parse(written) : Json.parse(written)
  if (!Array.isArray(json)) throw new TypeError("a chunk expected")
  const [packed, versions, names, indexes, eventIds, times, handled, states]: ReadonlyArray<unknown> = json
  const streams = ids === undefined ? unpack(packed) : ids.unpack(index, packed)
  const lastIds = unpack(eventIds)
  const timestamps = unpack(times)
  for (const column of [versions, names, indexes, states]) if (!Array.isArray(column)) throw new TypeError("a column expected")
  // Just looked at.
  const [v, n, i, s] = [versions, names, indexes, states] as [
    ReadonlyArray<unknown>, ReadonlyArray<unknown>, ReadonlyArray<number>, ReadonlyArray<unknown>
  ]
  return {
    streams: streams.map((streamId, at) => ({
      streamId: text(streamId),
      version: count(v[at]),
      lastEvent: text(n[i[at] ?? -1]),
      lastEventId: text(lastIds[at]),
      timestamp: text(timestamps[at]),
      state: format.decode(s[at])
    })),
    handled: streams.map((_, at) => Array.isArray(handled) ? handled[at] === 1 : handled === 1)
  }
}

/** Chunks whose stream ids are held, so that a store of very many streams is not held twice. */
const heldChunks = 64

/**
 * The ids of all streams in the order of their first facts, as the last question had them, and how they are sorted: both are
 * the same from one question to the next but for what is new.
 */
export class StreamIds {
  private readonly chunks: Array<{ readonly packed: string; readonly ids: ReadonlyArray<unknown> }> = []
  private known: ReadonlyArray<string> = []
  /** Indexes of `known`, sorted by what they stand for. */
  private order: ReadonlyArray<number> = []

  unpack(index: number, packed: unknown): ReadonlyArray<unknown> {
    const held = this.chunks[index]
    if (held !== undefined && held.packed === packed) return held.ids
    const ids = unpack(packed)
    if (typeof packed === "string" && index < heldChunks) this.chunks[index] = { packed, ids }
    return ids
  }

  /** The indexes of streams, in the order of their ids by code unit; there may be more than there are streams. */
  sorted(streams: ReadonlyArray<{ readonly streamId: string }>): ReadonlyArray<number> {
    const { known } = this
    if (streams.length <= known.length && streams.every(({ streamId }, i) => known[i] === streamId)) return this.order
    const ids = streams.map(({ streamId }) => streamId)
    const order = ids.map((_, index) => index)
    // Each id is there once.
    order.sort((a, b) => ((ids[a] ?? "") < (ids[b] ?? "") ? -1 : 1))
    if (ids.length <= heldChunks * chunkStreams) {
      this.known = ids
      this.order = order
    }
    return order
  }
}

const chunkOf = (index: number): number => Math.floor(index / chunkStreams)

/** Streams while facts are added to them. */
export class Folding<S> {
  /** In the order of their first facts. */
  readonly streams: Array<Folded<S>> = []
  /** Chunks that have changed since they were written. */
  readonly changed = new Set<number>()
  private readonly projection: Projection<S>
  private readonly ids: StreamIds | undefined
  private readonly indexes = new Map<string, number>()
  /** Whether the projection has handled any of a stream's facts. */
  private readonly handled: Array<boolean> = []
  /** States as they were written last, of chunks that are written again and again. */
  private readonly texts = new Map<number, Array<string | undefined>>()
  /** Of each chunk when it was written last, and where that was. */
  private readonly bytes: Array<number> = []
  private readonly positions: Array<number> = []

  constructor(projection: Projection<S>, ids?: StreamIds | undefined) {
    this.projection = projection
    this.ids = ids
  }

  /** About how many bytes the chunks have that have changed. */
  changedBytes = 0

  /** How many chunks there are. */
  get chunks(): number {
    return Math.ceil(this.streams.length / chunkStreams)
  }

  /** A stream, as far as it was folded. */
  get(streamId: string): Folded<S> | undefined {
    return this.streams[this.indexes.get(streamId) ?? -1]
  }

  /** The streams that have a fact which the projection handles. */
  get shown(): ReadonlyArray<Folded<S>> {
    return this.streams.filter((_, index) => this.handled[index])
  }

  /** The same, ordered by stream id. */
  get sorted(): ReadonlyArray<Folded<S>> {
    const sorted: Array<Folded<S>> = []
    for (const index of (this.ids ?? new StreamIds()).sorted(this.streams)) {
      const stream = this.streams[index]
      if (stream !== undefined && this.handled[index] === true) sorted.push(stream)
    }
    return sorted
  }

  /** Takes over the next chunk of a snapshot. Throws where it is none. */
  restore(format: Format<S>, { body, position }: Chunk): void {
    const { handled, streams } = decode(format, body, this.positions.length, this.ids)
    this.bytes.push(body.length)
    this.positions.push(position)
    for (const [at, stream] of streams.entries()) this.begin(stream, handled[at] === true)
  }

  /** One more fact of its stream; the error is why the projection cannot go on. */
  add(fact: StoredFact): KsiError.KsiError | undefined {
    const { projection } = this
    const index = this.indexes.get(fact.streamId)
    const known = index === undefined ? undefined : this.streams[index]
    const applied = step(projection, known === undefined ? projection.initial : known.state, fact)
    if (Result.isFailure(applied)) return applied.failure
    const timestamp = fact.time ?? Envelope.timeText(fact.timestamp)
    const handled = projection.handles(fact.name)
    if (index === undefined || known === undefined) {
      const { id: lastEventId, name: lastEvent, streamId, version } = fact
      this.begin({ streamId, version, lastEvent, lastEventId, timestamp, state: applied.success }, handled)
      this.touch(this.streams.length - 1)
      return undefined
    }
    known.version = fact.version
    known.lastEvent = fact.name
    known.lastEventId = fact.id
    known.timestamp = timestamp
    if (handled) this.handled[index] = true
    if (handled) this.forgetText(index)
    known.state = applied.success
    this.touch(index)
    return undefined
  }

  /** A chunk, written. Throws where a state cannot be. */
  encode(chunk: number): Body {
    const first = chunk * chunkStreams
    const streams = this.streams.slice(first, first + chunkStreams)
    const texts = this.texts.get(chunk) ?? []
    this.texts.set(chunk, texts)
    const states = streams.map(({ state }, at) => texts[at] ??= stateText(this.projection, state))
    return encode(streams, this.handled.slice(first, first + chunkStreams), states)
  }

  /** The sum of the positions at which its chunks were written. */
  get written(): number {
    return this.positions.reduce((sum, position) => sum + position, 0)
  }

  /** What `encode` made is to be kept at this position: nothing has changed since. */
  saved(bodies: ReadonlyMap<number, Body>, position: number): void {
    for (const [chunk, body] of bodies) {
      this.bytes[chunk] = body.length
      this.positions[chunk] = position
    }
    for (const chunk of this.texts.keys()) if (!bodies.has(chunk)) this.texts.delete(chunk)
    this.changed.clear()
    this.changedBytes = 0
  }

  private begin(stream: Folded<S>, handled: boolean): void {
    this.indexes.set(stream.streamId, this.streams.length)
    this.streams.push(stream)
    this.handled.push(handled)
  }

  private forgetText(index: number): void {
    const texts = this.texts.get(chunkOf(index))
    if (texts !== undefined) texts[index % chunkStreams] = undefined
  }

  private touch(index: number): void {
    const chunk = chunkOf(index)
    if (this.changed.has(chunk)) return
    this.changed.add(chunk)
    this.changedBytes += this.bytes[chunk] ?? guessedBytes
  }
}
