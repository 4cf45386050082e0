// The driver of a store in memory (`Memory`), with the semantics of the stores on disk. What is handed out is frozen: nobody can
// change the past.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import { type Append, atOnce, type Outcome, type Said, withSaying } from "../../bus/Journal.ts"
import * as CloudEvent from "../../event/CloudEvent.ts"
import type { StoredFact } from "../../event/CloudEvent.ts"
import * as KsiError from "../../event/KsiError.ts"
import * as Limits from "../../event/Limits.ts"
import { makeAnnouncer } from "./Announcer.ts"
import { onForget } from "../Forgetting.ts"
import { makeMemory as makeSnapshots, type Snapshots } from "../Snapshots.ts"
import * as StreamSettings from "../StreamSettings.ts"
import {
  type Driver, type FactPage, type FactSearch, goOn, type Removed, type Retained, type StreamDetails, type StreamInfo, windowOf
} from "./Driver.ts"
import * as Expectations from "./Expectations.ts"
import { lowerBound, matching, Memory } from "./Memory.ts"

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
        const position = found.position > before ? 0 : found.position
        return Result.fail(new KsiError.IdConflict({ source: fact.source, id: fact.id, position }))
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

const search = (memory: Memory, pageBytes: number, options: FactSearch): FactPage => {
  const { high, low, next } = windowOf(options)
  const positions = matching(memory, { ...options, from: low, to: high })
  const facts = pageNow(memory, pageBytes, options.limit, positions.length, (index) => memory.at(positions[index] ?? 0))
  const last = facts.at(-1)
  const isAll = last === undefined || (positions.length < options.limit && facts.length === positions.length)
  return { facts, next: isAll ? next : goOn(options, last.position) }
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
): Pick<Driver, "details" | "configure" | "applyRetention" | "deleteStream" | "onRemoved"> => {
  const hooks: Array<(removed: Removed) => void> = [
    ({ positions: [fromPosition = 0], streamId }) => snapshots.forget({ streamId, fromPosition })
  ]
  const cut = (streamId: string, first: number, forEver: boolean) => {
    const positions = memory.left(streamId, first)
    if (positions.length > 0) for (const hook of hooks) hook({ streamId, positions })
    memory.cut(streamId, first, forEver)
  }
  const apply = ({ facts, from, streams }: Parameters<Driver["applyRetention"]>[0], now: number): Retained => {
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
    applyRetention: (options) => Effect.sync(() => apply(options, clock.currentTimeMillisUnsafe())),
    deleteStream: (tombstone, expectedVersion) =>
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
