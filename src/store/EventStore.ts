/**
 * Streams of facts, remembered: append, read, follow. A *stream* is the history of one thing, in versions from 1; a
 * *position* is a place in the order of everything, from 1; neither has gaps.
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
 * **Gotchas** Streams whose id starts with `ksi-` are KSI's own: `appendTo` refuses them. Data is kept as JSON: a
 * `Date` comes back as its text, a key whose value is `undefined` is gone. `layerMemory` keeps every fact for as long
 * as its scope lives.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Append, Journal, type Outcome } from "../bus/Journal.ts"
import * as CloudEvent from "../event/CloudEvent.ts"
import * as Envelope from "../event/Envelope.ts"
import * as EventName from "../event/EventName.ts"
import * as Json from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"

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
}

/** A stream and how far it is. */
export interface StreamInfo {
  readonly streamId: string
  /** Version of its last fact; the number of its facts. */
  readonly version: number
}

type StoredFact = CloudEvent.StoredFact

/** What a driver (memory, SQLite, PostgreSQL) does; everything else is built on it once. Not an API for users. */
export interface Driver extends Pick<Journal["Service"], "append" | "read" | "head" | "listen"> {
  /** Facts of one stream with `from <= version <= to`; newest first when `backward`. Bounds as `read`. */
  readonly readStream: (options: {
    readonly streamId: string
    readonly from: number
    readonly to?: number | undefined
    readonly limit: number
    readonly backward?: boolean | undefined
  }) => Effect.Effect<ReadonlyArray<StoredFact>, KsiError.KsiError>
  /** Streams in the order of their names (by code unit), after `after`. */
  readonly streams: (options: {
    readonly prefix?: string | undefined
    readonly after?: string | undefined
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<StreamInfo>, KsiError.KsiError>
  /** Facts with this id, of any source, in position order. */
  readonly byId: (id: string) => Effect.Effect<ReadonlyArray<StoredFact>, KsiError.KsiError>
  /** What this store is, for `health` and `doctor`. */
  readonly describe: { readonly kind: "memory" | "sqlite"; readonly file: string | undefined }
}

/** The event store. */
export class EventStore extends Context.Service<EventStore, Driver & {
  /**
   * Appends facts to one stream, all or none. `expectedVersion` is the version the stream must have (0: it must not
   * exist). Fails with `VersionConflict`, `IdConflict`, `PayloadInvalid`, `LimitExceeded`, `StoreFailure`.
   */
  readonly appendTo: (
    streamId: string,
    facts: ReadonlyArray<FactInput>,
    options?: { readonly expectedVersion?: number }
  ) => Effect.Effect<ReadonlyArray<Outcome>, KsiError.KsiError>
  /** All facts of a stream, oldest first; `NotFound` where the stream does not exist. */
  readonly stream: (streamId: string, options?: {
    readonly from?: number
    readonly to?: number
    readonly backward?: boolean
  }) => Stream.Stream<StoredFact, KsiError.KsiError>
  /** All facts from a position to another (default: the head at the start), in order. */
  readonly all: (options?: {
    readonly from?: number
    readonly to?: number
  }) => Stream.Stream<StoredFact, KsiError.KsiError>
}>()("ksi/store/EventStore") {}

/** Whether a stream belongs to KSI: its id starts with `ksi-`. Users may read such a stream, never append to it. */
export const ownStream = (streamId: string): boolean => streamId.startsWith("ksi-")

// ---------------------------------------------------------------------------------------------------------- checks

/** Bytes left of `budget` after the JSON of `value`, at its longest; negative where only writing it can tell. */
const spend = (value: unknown, budget: number, depth: number): number => {
  if (typeof value === "string") return budget - 6 * value.length - 2
  if (typeof value === "number") return Number.isFinite(value) ? budget - 25 : -1
  if (typeof value === "boolean" || value === null) return budget - 5
  if (typeof value !== "object" || depth === 0) return -1
  let left = budget - 2
  if (Array.isArray(value)) {
    for (const item of value) if ((left = spend(item, left - 1, depth - 1)) < 0) return -1
    return left
  }
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return -1
  for (const key of Object.keys(value)) {
    left = spend(Reflect.get(value, key), left - 6 * key.length - 4, depth - 1)
    if (left < 0) return -1
  }
  return left
}

const invalid = (event: string, path: string, problem: string): KsiError.Reason =>
  new KsiError.PayloadInvalid({ event, problems: [{ path, problem }] })

const overLimit = (limit: keyof Limits.LimitsShape, max: number, actual: number): KsiError.Reason =>
  new KsiError.LimitExceeded({ limit, max, actual, retryable: false })

/** The same as a JSON value: itself where it is one that surely fits, else what its JSON text says. */
const toJson = (
  fact: CloudEvent.NewFact,
  part: "data" | "attributes",
  max: number
): Result.Result<unknown, KsiError.Reason> => {
  const value = fact[part]
  if (spend(value, max, 64) >= 0) return Result.succeed(value)
  const text = Result.try({
    try: (): string | undefined => JSON.stringify(value),
    catch: (cause) => cause instanceof Error ? cause.message.split("\n")[0] ?? "" : String(cause)
  })
  if (Result.isFailure(text)) return Result.fail(invalid(fact.name, part, `cannot be written as JSON: ${text.failure}`))
  if (text.success === undefined) return Result.fail(invalid(fact.name, part, `a ${typeof value} is not JSON`))
  const bytes = Buffer.byteLength(text.success)
  return bytes > max ? Result.fail(overLimit("frameBytes", max, bytes)) : Result.succeed(Json.parse(text.success))
}

const labelProblem = (text: string, max: number): string | undefined => {
  if (text.length === 0) return "must not be empty"
  if (text.length > max) return `has ${text.length} characters, at most ${max} are allowed`
  return text.isWellFormed() ? undefined : "must be well-formed Unicode"
}

const labels = ["streamId", "id", "source", "name"] as const

/** The fact as a driver may take it: labels within their limits, a real time, data that is JSON and not too long. */
const admit = (
  fact: CloudEvent.NewFact,
  limits: Limits.LimitsShape
): Result.Result<CloudEvent.NewFact, KsiError.Reason> => {
  for (const label of labels) {
    const problem = labelProblem(fact[label], label === "name" ? EventName.maxForeignLength : limits.idLength)
    if (problem !== undefined) return Result.fail(invalid(fact.name, label, problem))
  }
  if (fact.time !== undefined && CloudEvent.parseTime(fact.time) === undefined) {
    return Result.fail(invalid(fact.name, "time", `expected an RFC 3339 text, got ${JSON.stringify(fact.time)}`))
  }
  const data = fact.data === undefined ? Result.succeed(undefined) : toJson(fact, "data", limits.frameBytes)
  if (Result.isFailure(data)) return Result.fail(data.failure)
  const attributes = toJson(fact, "attributes", limits.frameBytes)
  if (Result.isFailure(attributes)) return Result.fail(attributes.failure)
  return data.success === fact.data && attributes.success === fact.attributes
    ? Result.succeed(fact)
    // JSON of an object is an object.
    : Result.succeed({ ...fact, data: data.success, attributes: attributes.success as CloudEvent.JsonObject })
}

/** The append with every fact checked; the first thing wrong refuses all of it. */
const admitAll = (request: Append, limits: Limits.LimitsShape): Result.Result<Append, KsiError.Reason> => {
  if (request.facts.length > limits.appendEvents) {
    return Result.fail(overLimit("appendEvents", limits.appendEvents, request.facts.length))
  }
  const facts: Array<CloudEvent.NewFact> = []
  for (const fact of request.facts) {
    const admitted = admit(fact, limits)
    if (Result.isFailure(admitted)) return Result.fail(admitted.failure)
    facts.push(admitted.success)
  }
  return Result.succeed({ ...request, facts })
}

/** What `appendTo` was given as a fact; a CloudEvent's own rules say whether its attributes are any. */
const complete = (
  streamId: string,
  input: FactInput,
  millis: number,
  ids: Envelope.Ids
): Result.Result<CloudEvent.NewFact, KsiError.Reason> => {
  const fact: CloudEvent.NewFact = {
    id: input.id ?? ids(millis),
    source: input.source ?? Envelope.ownSource,
    name: input.name,
    streamId,
    data: input.data,
    time: input.time ?? Envelope.timeText(millis),
    attributes: input.attributes ?? {}
  }
  if (input.attributes === undefined) return Result.succeed(fact)
  for (const key of ["specversion", "id", "source", "type", "subject", "time", "data"]) {
    if (Object.hasOwn(input.attributes, key)) {
      return Result.fail(invalid(input.name, `attributes.${key}`, "is not an extension attribute"))
    }
  }
  const event = { ...input.attributes, specversion: "1.0", id: "1", source: "/", type: "a", subject: "a" }
  return Result.mapBoth(CloudEvent.decode(event), {
    onFailure: (problem) => invalid(input.name, "attributes", problem),
    onSuccess: () => fact
  })
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
      const candidates = page.map((info) => info.streamId).filter((id) => !ownStream(id) && id !== streamId)
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

const streamOf = (driver: Driver, limit: number): EventStore["Service"]["stream"] => (streamId, options) =>
  Stream.unwrap(Effect.gen(function*() {
    const [newest] = yield* driver.readStream({ streamId, from: 1, limit: 1, backward: true })
    if (newest === undefined) return yield* streamNotFound(driver, streamId)
    const from = Math.max(1, options?.from ?? 1)
    const to = Math.min(newest.version, options?.to ?? newest.version)
    if (from > to) return Stream.empty
    return options?.backward === true
      ? pages(to, (at) => driver.readStream({ streamId, from, to: at, limit, backward: true }), ({ version }) =>
        version > from ? version - 1 : undefined)
      : pages(from, (at) => driver.readStream({ streamId, from: at, to, limit }), ({ version }) =>
        version < to ? version + 1 : undefined)
  }))

const allOf = (driver: Driver, limit: number): EventStore["Service"]["all"] => (options) =>
  Stream.suspend(() => {
    const from = Math.max(1, options?.from ?? 1)
    const to = Math.min(driver.head(), options?.to ?? Number.MAX_SAFE_INTEGER)
    if (from > to) return Stream.empty
    return pages(from, (at) => driver.read({ from: at, to, limit }), ({ position }) =>
      position < to ? position + 1 : undefined)
  })

/** The event store over a driver: checks what is appended, fills in what is left out, reads in pages. */
export const make = (driver: Driver): Effect.Effect<EventStore["Service"]> =>
  Effect.gen(function*() {
    const limits = yield* Limits.Limits
    const high = yield* Random.nextIntBetween(0, 0xffff)
    const ids = Envelope.makeIds(high, yield* Random.nextIntBetween(0, 0xffffffff))
    const append = (request: Append): Effect.Effect<ReadonlyArray<Outcome>, KsiError.KsiError> =>
      Effect.suspend(() => {
        if (request.facts.length === 0) return Effect.succeed([])
        const admitted = admitAll(request, limits)
        return Result.isFailure(admitted) ? KsiError.fail(admitted.failure) : driver.append(admitted.success)
      })
    return {
      append,
      read: (options) => driver.read(options),
      head: () => driver.head(),
      listen: (listener) => driver.listen(listener),
      readStream: (options) => driver.readStream(options),
      streams: (options) => driver.streams(options),
      byId: (id) => driver.byId(id),
      describe: driver.describe,
      appendTo: (streamId, inputs, options) =>
        Effect.clockWith((clock) => {
          if (ownStream(streamId)) {
            const problem = "streams named \"ksi-…\" belong to KSI; choose another id"
            return KsiError.fail(invalid(inputs[0]?.name ?? "append", "streamId", problem))
          }
          const millis = clock.currentTimeMillisUnsafe()
          const facts: Array<CloudEvent.NewFact> = []
          for (const input of inputs) {
            const fact = complete(streamId, input, millis, ids)
            if (Result.isFailure(fact)) return KsiError.fail(fact.failure)
            facts.push(fact.success)
          }
          return append({ facts, expectedVersion: options?.expectedVersion })
        }),
      stream: streamOf(driver, limits.pageItems),
      all: allOf(driver, limits.pageItems)
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

// ------------------------------------------------------------------------------------------------------- in memory

const freeze = (value: unknown): void => {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return
  Object.freeze(value)
  for (const item of Object.values(value)) freeze(item)
}

/** A copy that nobody can change, and the bytes of its JSON. */
const keep = (fact: CloudEvent.NewFact): readonly [copy: CloudEvent.NewFact, bytes: number] => {
  const data = fact.data === undefined ? undefined : JSON.stringify(fact.data)
  const attributes = JSON.stringify(fact.attributes)
  const copy = {
    ...fact,
    data: data === undefined ? undefined : Json.parse(data),
    // JSON of an object is an object.
    attributes: Json.parse(attributes) as CloudEvent.JsonObject
  }
  freeze(copy.data)
  freeze(copy.attributes)
  const labels = fact.id.length + fact.source.length + fact.name.length + fact.streamId.length
  return [copy, Buffer.byteLength(data ?? "") + Buffer.byteLength(attributes) + 3 * labels]
}

/** What an in-memory store holds, and the three ways to change it. */
class Memory {
  readonly facts: Array<StoredFact> = []
  readonly bytes: Array<number> = []
  /** Facts of a stream by version - 1. */
  readonly byStream = new Map<string, Array<StoredFact>>()
  readonly byId = new Map<string, Array<StoredFact>>()
  private sorted: ReadonlyArray<string> | undefined = []

  version(streamId: string): number {
    return this.byStream.get(streamId)?.length ?? 0
  }

  find(fact: CloudEvent.NewFact): StoredFact | undefined {
    return this.byId.get(fact.id)?.find((stored) => stored.source === fact.source)
  }

  push(fact: CloudEvent.NewFact, now: number): StoredFact {
    const [copy, bytes] = keep(fact)
    const recordedAt = Math.max(now, this.facts.at(-1)?.recordedAt ?? now)
    const stored: StoredFact = Object.freeze({
      ...copy,
      position: this.facts.length + 1,
      version: this.version(fact.streamId) + 1,
      timestamp: (fact.time === undefined ? undefined : CloudEvent.parseTime(fact.time)) ?? recordedAt,
      recordedAt
    })
    this.facts.push(stored)
    this.bytes.push(bytes)
    if (stored.version === 1) this.sorted = undefined
    this.entry(this.byStream, fact.streamId).push(stored)
    this.entry(this.byId, fact.id).push(stored)
    return stored
  }

  /** Takes the last facts back until `length` are left. */
  truncate(length: number): void {
    while (this.facts.length > length) {
      const last = this.facts.pop()
      this.bytes.pop()
      if (last === undefined) return
      this.drop(this.byStream, last.streamId)
      this.drop(this.byId, last.id)
    }
  }

  streamIds(): ReadonlyArray<string> {
    return this.sorted ??= [...this.byStream.keys()].toSorted()
  }

  private entry(map: Map<string, Array<StoredFact>>, key: string): Array<StoredFact> {
    const known = map.get(key)
    if (known !== undefined) return known
    const fresh: Array<StoredFact> = []
    map.set(key, fresh)
    return fresh
  }

  private drop(map: Map<string, Array<StoredFact>>, key: string): void {
    const list = map.get(key)
    list?.pop()
    if (list?.length === 0) map.delete(key)
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

type Listener = (facts: ReadonlyArray<StoredFact>) => void

/** Tells listeners of commits, in order even when one of them appends; collects what they threw. */
const makeAnnouncer = () => {
  const listeners = new Set<{ readonly call: Listener }>()
  const waiting: Array<ReadonlyArray<StoredFact>> = []
  let busy = false
  const announce = (facts: ReadonlyArray<StoredFact>): ReadonlyArray<unknown> => {
    waiting.push(facts)
    if (busy) return []
    busy = true
    const thrown: Array<unknown> = []
    for (let batch = waiting.shift(); batch !== undefined; batch = waiting.shift()) {
      for (const listener of Array.from(listeners)) {
        if (!listeners.has(listener)) continue
        try {
          listener.call(batch)
        } catch (cause) {
          thrown.push(cause)
        }
      }
    }
    busy = false
    return thrown
  }
  const listen = (call: Listener): Effect.Effect<void, never, Scope.Scope> =>
    Effect.asVoid(Effect.acquireRelease(
      Effect.sync(() => {
        const listener = { call }
        listeners.add(listener)
        return listener
      }),
      (listener) => Effect.sync(() => listeners.delete(listener))
    ))
  return { announce, listen }
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
      left -= memory.bytes[fact.position - 1] ?? 0
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
  const { after, limit, prefix = "" } = options
  const ids = memory.streamIds()
  const infos: Array<StreamInfo> = []
  const first = lowerBound(ids, after !== undefined && after > prefix ? after : prefix)
  for (let index = first; infos.length < limit; index++) {
    const streamId = ids[index]
    if (streamId === undefined || !streamId.startsWith(prefix)) break
    if (streamId !== after) infos.push({ streamId, version: memory.version(streamId) })
  }
  return infos
}

const makeMemory: Effect.Effect<Driver> = Effect.gen(function*() {
  const { pageBytes } = yield* Limits.Limits
  const memory = new Memory()
  const { announce, listen } = makeAnnouncer()
  return {
    append: (request) =>
      Effect.clockWith((clock): Effect.Effect<ReadonlyArray<Outcome>, KsiError.KsiError> => {
        const before = memory.facts.length
        const committed = commit(memory, request, clock.currentTimeMillisUnsafe())
        if (Result.isFailure(committed)) return KsiError.fail(committed.failure)
        const thrown = memory.facts.length === before ? [] : announce(memory.facts.slice(before))
        const answer = Exit.succeed(committed.success)
        if (thrown.length === 0) return answer
        return Effect.andThen(Effect.logError("a listener of the store threw", ...thrown), answer)
      }),
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
    byId: (id) => Effect.sync(() => [...memory.byId.get(id) ?? []]),
    describe: { kind: "memory", file: undefined }
  }
})

/** The event store in memory: the same semantics as on disk, gone with its scope; every build is a new store. */
export const layerMemory: Layer.Layer<EventStore | Journal> = layerOf(makeMemory)
