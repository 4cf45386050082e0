// Facts in memory, with the semantics of the stores on disk. What is handed out is frozen: nobody can change the past.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import { type Append, atOnce, type Outcome } from "../../bus/Journal.ts"
import * as CloudEvent from "../../event/CloudEvent.ts"
import type { NewFact, StoredFact } from "../../event/CloudEvent.ts"
import * as Json from "../../event/Json.ts"
import type { JsonObject } from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import * as Limits from "../../event/Limits.ts"
import { makeAnnouncer } from "./Announcer.ts"
import type { Driver, StreamInfo } from "./Driver.ts"

/** The bytes of a fact's JSON and labels. */
const bytesOf = ({ attributes, data, id, name, source, streamId }: StoredFact): number => {
  const text = data === undefined ? "" : JSON.stringify(data)
  return Buffer.byteLength(text) + Buffer.byteLength(JSON.stringify(attributes)) + 3 * (id.length + source.length + name.length + streamId.length)
}

const several = (known: StoredFact | ReadonlyArray<StoredFact>): ReadonlyArray<StoredFact> => "position" in known ? [known] : known

/** What an in-memory store holds, and the three ways to change it. */
class Memory {
  readonly facts: Array<StoredFact> = []
  /** By position - 1; 0 where nobody has asked. */
  private readonly bytes: Array<number> = []
  /** Facts of a stream by version - 1. */
  readonly byStream = new Map<string, Array<StoredFact>>()
  /** One fact, or several of different sources. */
  private readonly ids = new Map<string, StoredFact | ReadonlyArray<StoredFact>>()
  private sorted: ReadonlyArray<string> | undefined = []

  version(streamId: string): number {
    return this.byStream.get(streamId)?.length ?? 0
  }

  find(fact: NewFact): StoredFact | undefined {
    const known = this.ids.get(fact.id)
    if (known === undefined) return undefined
    return several(known).find((stored) => stored.source === fact.source)
  }

  byId(id: string): ReadonlyArray<StoredFact> {
    const known = this.ids.get(id)
    return known === undefined ? [] : several(known)
  }

  bytesAt(fact: StoredFact): number {
    return this.bytes[fact.position - 1] ||= bytesOf(fact)
  }

  push(fact: NewFact, now: number): StoredFact {
    const { attributes, data, id, name, source, streamId, time } = fact
    const recordedAt = Math.max(now, this.facts.at(-1)?.recordedAt ?? now)
    const stream = this.stream(streamId)
    const stored: StoredFact = Object.freeze({
      id,
      source,
      name,
      streamId,
      data: data === undefined ? undefined : Json.frozen(data),
      time,
      // JSON of an object is an object.
      attributes: Json.frozen(attributes) as JsonObject,
      position: this.facts.length + 1,
      version: stream.length + 1,
      timestamp: (time === undefined ? undefined : CloudEvent.parseTime(time)) ?? recordedAt,
      recordedAt
    })
    this.facts.push(stored)
    this.bytes.push(0)
    if (stored.version === 1) this.sorted = undefined
    stream.push(stored)
    const known = this.ids.get(id)
    this.ids.set(id, known === undefined ? stored : [...several(known), stored])
    return stored
  }

  /** Takes the last facts back until `length` are left. */
  truncate(length: number): void {
    while (this.facts.length > length) {
      const last = this.facts.pop()
      this.bytes.pop()
      if (last === undefined) return
      const stream = this.stream(last.streamId)
      stream.pop()
      if (stream.length === 0) this.byStream.delete(last.streamId)
      const others = this.byId(last.id).filter((stored) => stored !== last)
      if (others.length === 0) this.ids.delete(last.id)
      else this.ids.set(last.id, others)
    }
  }

  streamIds(): ReadonlyArray<string> {
    return this.sorted ??= [...this.byStream.keys()].toSorted()
  }

  private stream(streamId: string): Array<StoredFact> {
    const known = this.byStream.get(streamId)
    if (known !== undefined) return known
    const fresh: Array<StoredFact> = []
    this.byStream.set(streamId, fresh)
    return fresh
  }
}

/** Puts the facts in, or leaves everything as it was and says why not. */
const commit = (
  memory: Memory,
  request: Append,
  now: number
): Result.Result<ReadonlyArray<Outcome>, KsiError.Reason> => {
  const before = memory.facts.length
  const outcomes: Array<Outcome> = []
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
    const streamId = request.facts[0]?.streamId ?? fact.streamId
    const expected = request.expectedVersion
    // Before the first new fact only: what follows in this append has moved the stream itself.
    if (expected !== undefined && memory.facts.length === before && memory.version(streamId) !== expected) {
      return Result.fail(new KsiError.VersionConflict({ streamId, expected, actual: memory.version(streamId) }))
    }
    const { position, version } = memory.push(fact, now)
    outcomes.push({ kind: "appended", position, version })
  }
  return Result.succeed(outcomes)
}

/** As many facts as the bounds allow, at least one: `at` steps through `count` of them. */
const page = (
  memory: Memory,
  pageBytes: number,
  limit: number,
  count: number,
  at: (index: number) => StoredFact | undefined
): Effect.Effect<ReadonlyArray<StoredFact>> =>
  Effect.sync(() => {
    const facts: Array<StoredFact> = []
    let left = pageBytes
    for (let index = 0; index < count && facts.length < limit; index++) {
      const fact = at(index)
      if (fact === undefined) break
      left -= memory.bytesAt(fact)
      if (left < 0 && facts.length > 0) break
      facts.push(fact)
    }
    return facts
  })

/** Index of the first item that is not before `key`. */
const lowerBound = (items: ReadonlyArray<string>, key: string): number => {
  let low = 0
  let high = items.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((items[middle] ?? "") < key) low = middle + 1
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

/** A new store in memory. */
export const makeMemory: Effect.Effect<Driver> = Effect.gen(function*() {
  const { pageBytes } = yield* Limits.Limits
  const clock = yield* Clock.Clock
  const memory = new Memory()
  const { announce, listen } = makeAnnouncer()
  const append = (request: Append): Effect.Effect<ReadonlyArray<Outcome>, KsiError.KsiError> => {
    const before = memory.facts.length
    const committed = commit(memory, request, clock.currentTimeMillisUnsafe())
    if (Result.isFailure(committed)) return KsiError.exit(committed.failure)
    const thrown = memory.facts.length === before ? [] : announce(memory.facts.slice(before))
    const answer = Exit.succeed(committed.success)
    if (thrown.length === 0) return answer
    return Effect.andThen(Effect.logError("a listener of the store threw", ...thrown), answer)
  }
  return {
    append: (request) => atOnce(() => append(request)),
    read: ({ from, limit, to }) => {
      const first = Math.max(1, from)
      const count = (to ?? Number.MAX_SAFE_INTEGER) - first + 1
      return page(memory, pageBytes, limit, count, (index) => memory.facts[first - 1 + index])
    },
    head: () => memory.facts.length,
    listen,
    readStream: ({ backward, from, limit, streamId, to }) =>
      Effect.suspend(() => {
        const stream = memory.byStream.get(streamId) ?? []
        const first = Math.max(1, from)
        const last = Math.min(to ?? stream.length, stream.length)
        return page(memory, pageBytes, limit, last - first + 1, (index) =>
          stream[backward === true ? last - 1 - index : first - 1 + index])
      }),
    streams: (options) => Effect.sync(() => listStreams(memory, options)),
    byId: (id) => Effect.sync(() => [...memory.byId(id)]),
    describe: { kind: "memory", file: undefined }
  }
})
