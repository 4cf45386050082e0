// Folds facts into the states of one version of a read model: in batches, each with its checkpoint, until somebody stops it
// or a fact cannot be folded. Between two batches others have their turn.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Result from "effect/Result"
import type { StoredFact } from "../../event/CloudEvent.ts"
import * as Json from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import * as EventStore from "../EventStore.ts"
import type { Format, Projection } from "../Projection.ts"
import type { ChangedRow, ModelRows, ModelSet } from "./ModelRows.ts"
import { patiently } from "./patiently.ts"

/** A fact that cannot be folded. */
export interface Failure {
  readonly position: number
  readonly problem: string
}

/** How far a version is, as it is told. */
export interface Progress {
  readonly set: number
  position: number
  /** Why it does not go on. */
  failure: Failure | undefined
  /** Why it waits: the store cannot be written, or read. It tries again. */
  trouble: string | undefined
}

/** What folding needs. */
export interface Folding<S> {
  readonly store: Pick<EventStore.EventStore["Service"], "head" | "read" | "listen">
  readonly rows: ModelRows
  readonly projection: Projection<S>
  readonly format: Format<S>
  /** Facts of one batch, at most. */
  readonly batch: number
  /** Says that a version has moved on, or failed. */
  readonly moved: () => void
  /** Whether it shall change with the facts, once it has caught up. */
  readonly isInline: boolean
}

/** What becomes of a version that has caught up. */
export interface Arrival {
  /** It is the one that is asked, from now on. */
  readonly taken: () => void
  /** Makes it the one that is asked and lets it take part, if it is at the end of the store in that very turn. */
  readonly join: Effect.Effect<boolean, KsiError.KsiError>
}

// How long a batch may hold the event loop, and when it is worth while to make it larger.
const longMillis = 8
const shortMillis = 3
const firstBatch = 64
const leastBatch = 8
/** States that are kept ready between two batches. */
export const keptStates = 4096
const nanosPerMilli = 1_000_000n

/** A batch size that follows what a batch takes. */
const makeSize = (max: number) => {
  let size = Math.min(firstBatch, max)
  return {
    get: () => size,
    took: (millis: number, facts: number): void => {
      if (millis > longMillis) size = Math.max(Math.min(leastBatch, max), size >>> 1)
      else if (millis < shortMillis && facts >= size) size = Math.min(max, size * 2)
    }
  }
}

interface Change<S> {
  readonly state: S
  /** Nothing is kept any more: the stream was deleted that the state was of. */
  readonly isGone: boolean
  readonly position: number
}

/** What a page of facts did: the changes of all before the first that could not be folded. */
export interface Folded<S> {
  readonly changes: ReadonlyMap<string, Change<S>>
  readonly position: number
  readonly failure: Failure | undefined
}

/** What was thrown, in words. */
export const problemOf = (cause: unknown): string =>
  KsiError.is(cause) && cause.reason._tag === "StoreFailure" ? cause.reason.problem : KsiError.sentenceOf(cause)

/** Whether a fact says that what was kept of its stream is to go: the stream was deleted. */
const erases = <S>({ keys }: Projection<S>, name: string): boolean => keys === undefined && name === EventStore.streamDeleted

/** Whether a fact counts for a model. */
export const counts = <S>(projection: Projection<S>, name: string, streamId: string): boolean =>
  (projection.handles(name) || erases(projection, name)) && !EventStore.ownStream(streamId)

/** The keys of a fact, each once. */
const keysOf = <S>(projection: Projection<S>, fact: StoredFact): Result.Result<ReadonlyArray<string>, KsiError.KsiError> =>
  projection.keys === undefined
    ? Result.succeed([fact.streamId])
    : Result.map(projection.keys(fact), (keys) => keys.length > 1 ? [...new Set(keys)] : keys)

/** The keys of facts that count, and the position of the fact whose keys cannot be told. */
export const collect = <S>(projection: Projection<S>, facts: ReadonlyArray<StoredFact>) => {
  const keyed: Array<readonly [fact: StoredFact, keys: ReadonlyArray<string>]> = []
  for (const fact of facts) {
    try {
      const keys = keysOf(projection, fact)
      if (Result.isFailure(keys)) return { keyed, failure: { position: fact.position, problem: problemOf(keys.failure) } }
      keyed.push([fact, keys.success])
    } catch (cause) {
      return { keyed, failure: { position: fact.position, problem: problemOf(cause) } }
    }
  }
  return { keyed, failure: undefined }
}

/** Folds facts over states that are there; `position` is the end of their page. */
export const fold = <S>(
  projection: Projection<S>,
  { failure, keyed }: ReturnType<typeof collect<S>>,
  stateOf: (key: string) => S,
  position: number
): Folded<S> => {
  const changes = new Map<string, Change<S>>()
  const failed = (failure: Failure): Folded<S> => ({ changes, position: failure.position - 1, failure })
  for (const [fact, keys] of keyed) {
    try {
      const next: Array<readonly [string, Change<S>]> = []
      for (const key of keys) {
        if (erases(projection, fact.name)) {
          next.push([key, { state: projection.initial, position: fact.position, isGone: true }])
          continue
        }
        const before = changes.get(key)
        const after = projection.apply(before === undefined ? stateOf(key) : before.state, fact)
        if (Result.isFailure(after)) return failed({ position: fact.position, problem: problemOf(after.failure) })
        next.push([key, { state: after.success, position: fact.position, isGone: false }])
      }
      // All keys of a fact, or none.
      for (const [key, change] of next) changes.set(key, change)
    } catch (cause) {
      return failed({ position: fact.position, problem: problemOf(cause) })
    }
  }
  return failure === undefined ? { changes, position, failure } : failed(failure)
}

/** A state as it is kept. Throws where it is none. */
const textOf = <S>(projection: Projection<S>, state: S): string => {
  const text: string | undefined = JSON.stringify(projection.encode(state))
  // Nothing kept is what a key has whose stream was deleted.
  if (text === undefined) throw new TypeError(`the type ${typeof state} is not JSON's`)
  return text
}

/** The states as they are kept, or why one cannot be. */
export const rowsOf = <S>(projection: Projection<S>, changes: Folded<S>["changes"]): ReadonlyArray<ChangedRow> | string => {
  try {
    return Array.from(changes, ([key, { isGone, position, state }]) =>
      ({ key, position, state: isGone ? undefined : textOf(projection, state) }))
  } catch (cause) {
    return `the state that it makes is none: ${problemOf(cause)}`
  }
}

/** The states of one version that were used last. */
const makeStates = <S>({ format, projection, rows }: Folding<S>, set: number) => {
  const kept = new Map<string, S>()
  return {
    kept,
    /** Reads what is not there; fails with the key whose state cannot be read any more. */
    load: Effect.fnUntraced(function*(keys: Iterable<string>): Effect.fn.Return<string | undefined, KsiError.KsiError> {
      const missing = [...keys].filter((key) => !kept.has(key))
      if (missing.length === 0) return undefined
      const found = yield* rows.load(set, missing)
      for (const key of missing) {
        const text = found.get(key)
        try {
          kept.set(key, text === undefined ? projection.initial : format.decode(Json.parse(text)))
        } catch (cause) {
          return `the kept state of "${key}" is none of this projection (${problemOf(cause)}); give it another version`
        }
      }
      return undefined
    })
  }
}

/** One batch: answers with whether this version is the one that is asked. */
const makeStep = <S>(folding: Folding<S>, set: ModelSet, progress: Progress) => {
  const { batch, isInline, projection, rows, store } = folding
  const states = makeStates(folding, set.set)
  const size = makeSize(batch)

  const write = Effect.fnUntraced(function*({ changes, failure, position }: Folded<S>, from: number, takeOver: boolean) {
    const texts = rowsOf(projection, changes)
    if (typeof texts === "string") return texts
    const serving = position < from
      ? false
      : yield* rows.commit({ set: set.set, from, position, rows: texts, takeOver: takeOver && failure === undefined })
    progress.position = Math.max(position, from)
    progress.failure = failure
    if (states.kept.size > keptStates) states.kept.clear()
    else for (const [key, { state }] of changes) states.kept.set(key, state)
    return serving
  })

  return Effect.fnUntraced(function*(limit = size.get()): Effect.fn.Return<boolean, KsiError.KsiError> {
    const started = yield* Clock.monotonicTimeNanos
    const from = progress.position
    const head = store.head()
    const facts = from < head ? yield* store.read({ from: from + 1, limit }) : []
    // Where no fact is left up to the head, all of them were removed.
    const last = facts.at(-1)?.position ?? Math.max(from, head)
    const collected = collect(projection, facts.filter(({ name, streamId }) => counts(projection, name, streamId)))
    const problem = yield* states.load(new Set(collected.keyed.flatMap(([, keys]) => keys)))
    if (problem !== undefined) {
      progress.failure = { position: from + 1, problem }
      return false
    }
    const stateOf = (key: string): S => states.kept.get(key) ?? projection.initial
    const written = yield* write(fold(projection, collected, stateOf, last), from, last >= head && !isInline)
    size.took(Number(((yield* Clock.monotonicTimeNanos) - started) / nanosPerMilli), facts.length)
    if (typeof written === "boolean") return written
    // One of the facts makes a state that cannot be kept: alone, each says whether it is that one.
    if (limit > 1) return false
    progress.failure = { position: last, problem: written }
    return false
  })
}

/** How far a version is at first. */
export const progressOf = ({ position, set }: ModelSet): Progress => ({ set, position, failure: undefined, trouble: undefined })

/** Folds until it is interrupted, a fact fails, or the version changes with the facts themselves. */
export const follow = Effect.fnUntraced(function*<S>(folding: Folding<S>, set: ModelSet, progress: Progress, arrival: Arrival) {
  const { isInline, moved, store } = folding
  const some = Latch.makeUnsafe(true)
  const step = makeStep(folding, set, progress)
  const persistently = (effect: Effect.Effect<boolean, KsiError.KsiError>) =>
    patiently(effect, (problem) => {
      progress.trouble = problem
      moved()
    })
  let serving = set.role === "serving"
  let single = 0
  yield* store.listen(() => void some.openUnsafe())
  while (progress.failure === undefined) {
    yield* some.await
    some.closeUnsafe()
    while (progress.failure === undefined && (progress.position < store.head() || !serving || isInline)) {
      const before = progress.position
      const isServing = yield* persistently(step(single > 0 ? 1 : undefined))
      progress.trouble = undefined
      // Nothing was written, and nothing has failed: so one of the batch's facts will.
      if (progress.position === before && before < store.head()) single = folding.batch
      else if (single > 0) single--
      if (isInline && progress.failure === undefined && (yield* persistently(arrival.join))) return
      if (isServing && !serving && !isInline) {
        serving = true
        arrival.taken()
      }
      moved()
      yield* Effect.yieldNow
      if (progress.position >= store.head()) break
    }
  }
}, Effect.scoped)
