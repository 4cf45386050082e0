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
import type { Format, Projection } from "../Projection.ts"
import type { Body, Chunk } from "../Snapshots.ts"

/** Streams in a chunk. */
export const chunkStreams = 256

/** Shorter texts gain too little. */
const compressedFrom = 2048
/** Of a stream that was never written. */
const guessedBytes = 48

const { ZSTD_c_checksumFlag: checksum, ZSTD_c_compressionLevel: level } = Zlib.constants
const compression = { params: { [level]: 1, [checksum]: 1 } }

/** A stream and its state, up to some fact. */
export interface Folded<S> {
  readonly index: number
  readonly streamId: string
  version: number
  lastEvent: string
  lastEventId: string
  timestamp: string
  /** Whether the projection has handled any of its facts. */
  handled: boolean
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

const encode = <S>(projection: Projection<S>, streams: ReadonlyArray<Folded<S>>): Body => {
  const names = [...new Set(streams.map(({ lastEvent }) => lastEvent))]
  const indexes = new Map(names.map((name, index) => [name, index]))
  const json = JSON.stringify([
    pack(streams.map(({ streamId }) => streamId)),
    streams.map(({ version }) => version),
    names,
    streams.map(({ lastEvent }) => indexes.get(lastEvent)),
    pack(streams.map(({ lastEventId }) => lastEventId)),
    pack(streams.map(({ timestamp }) => timestamp)),
    streams.every(({ handled }) => handled) ? 1 : streams.map(({ handled }) => handled ? 1 : 0),
    streams.map(({ state }) => projection.encode(state))
  ])
  // A blank before it says that it may be parsed without care, which takes a good part of the time.
  const text = isPlain(json) ? ` ${json}` : json
  return text.length < compressedFrom ? text : Zlib.zstdCompressSync(text, compression)
}

/** Whether it comes back from `JSON.parse` as what it was. */
const isPlain = (json: string): boolean => !Json.isSuspicious(json) && !json.includes("\\")

/** Reads a chunk back, with `base` as the index of its first stream. Throws where it is none. */
export const decode = <S>(format: Format<S>, body: Body, base: number): ReadonlyArray<Folded<S>> => {
  const written = typeof body === "string" ? body : Zlib.zstdDecompressSync(body).toString()
  const json: unknown = written.startsWith(" ") ? JSON.parse(written) : Json.parse(written)
  if (!Array.isArray(json)) throw new TypeError("a chunk expected")
  const [ids, versions, names, indexes, eventIds, times, handled, states]: ReadonlyArray<unknown> = json
  const streams = unpack(ids)
  const lastIds = unpack(eventIds)
  const timestamps = unpack(times)
  for (const column of [versions, names, indexes, states]) if (!Array.isArray(column)) throw new TypeError("a column expected")
  // Just looked at.
  const [v, n, i, s] = [versions, names, indexes, states] as [
    ReadonlyArray<unknown>, ReadonlyArray<unknown>, ReadonlyArray<number>, ReadonlyArray<unknown>
  ]
  return streams.map((streamId, at) => ({
    index: base + at,
    streamId: text(streamId),
    version: count(v[at]),
    lastEvent: text(n[i[at] ?? -1]),
    lastEventId: text(lastIds[at]),
    timestamp: text(timestamps[at]),
    handled: Array.isArray(handled) ? handled[at] === 1 : handled === 1,
    state: format.decode(s[at])
  }))
}

const chunkOf = (index: number): number => Math.floor(index / chunkStreams)

/** Streams while facts are added to them. */
export class Folding<S> {
  /** In the order of their first facts. */
  readonly streams: Array<Folded<S>> = []
  /** Chunks that have changed since they were written. */
  readonly changed = new Set<number>()
  private readonly projection: Projection<S>
  private readonly byId = new Map<string, Folded<S>>()
  /** Of each chunk when it was written last, and where that was. */
  private readonly bytes: Array<number> = []
  private readonly positions: Array<number> = []

  constructor(projection: Projection<S>) {
    this.projection = projection
  }

  /** About how many bytes the chunks have that have changed. */
  changedBytes = 0

  /** How many chunks there are. */
  get chunks(): number {
    return Math.ceil(this.streams.length / chunkStreams)
  }

  /** A stream, as far as it was folded. */
  get(streamId: string): Folded<S> | undefined {
    return this.byId.get(streamId)
  }

  /** Takes over the next chunk of a snapshot. Throws where it is none. */
  restore(format: Format<S>, { body, position }: Chunk): void {
    const streams = decode(format, body, this.streams.length)
    this.bytes.push(body.length)
    this.positions.push(position)
    for (const stream of streams) {
      this.streams.push(stream)
      this.byId.set(stream.streamId, stream)
    }
  }

  /** One more fact of its stream; the error is why the projection cannot go on. */
  add(fact: StoredFact): KsiError.KsiError | undefined {
    const { projection } = this
    const known = this.byId.get(fact.streamId)
    const applied = projection.apply(known === undefined ? projection.initial : known.state, fact)
    if (Result.isFailure(applied)) return applied.failure
    const timestamp = fact.time ?? Envelope.timeText(fact.timestamp)
    const handled = projection.handles(fact.name)
    if (known === undefined) {
      const { id: lastEventId, name: lastEvent, streamId, version } = fact
      const stream = { index: this.streams.length, streamId, version, lastEvent, lastEventId, timestamp, handled, state: applied.success }
      this.byId.set(streamId, stream)
      this.streams.push(stream)
      this.touch(stream.index)
      return undefined
    }
    known.version = fact.version
    known.lastEvent = fact.name
    known.lastEventId = fact.id
    known.timestamp = timestamp
    known.handled ||= handled
    known.state = applied.success
    this.touch(known.index)
    return undefined
  }

  /** A chunk, written. Throws where a state cannot be. */
  encode(chunk: number): Body {
    return encode(this.projection, this.streams.slice(chunk * chunkStreams, (chunk + 1) * chunkStreams))
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
    this.changed.clear()
    this.changedBytes = 0
  }

  private touch(index: number): void {
    const chunk = chunkOf(index)
    if (this.changed.has(chunk)) return
    this.changed.add(chunk)
    this.changedBytes += this.bytes[chunk] ?? guessedBytes
  }
}
