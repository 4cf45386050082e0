// Folds facts into the states of one version of a read model: in batches, each with its checkpoint, until somebody stops it
// or a fact cannot be folded. Between two batches others have their turn.
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type { StoredFact } from "../../event/CloudEvent.ts"
import * as KsiError from "../../event/KsiError.ts"
import type * as EventStore from "../EventStore.ts"
import type { Format, Projection } from "../Projection.ts"
import type { ModelRows, ModelSet, StateRow } from "./ModelRows.ts"

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
}

// How long a batch may hold the event loop, and when it is worth while to make it larger.
const longMillis = 8
const shortMillis = 3
const firstBatch = 64
const leastBatch = 8
/** States that are kept ready between two batches. */
const keptStates = 4096
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
  readonly position: number
}

/** What a page of facts did: the changes of all before the first that could not be folded. */
interface Folded<S> {
  readonly changes: ReadonlyMap<string, Change<S>>
  readonly position: number
  readonly failure: Failure | undefined
}

const problemOf = (cause: unknown): string =>
  KsiError.is(cause) && cause.reason._tag === "StoreFailure" ? cause.reason.problem : KsiError.sentenceOf(cause)

/** The keys of a fact, each once. */
const keysOf = <S>(projection: Projection<S>, fact: StoredFact): Result.Result<ReadonlyArray<string>, KsiError.KsiError> =>
  projection.keys === undefined
    ? Result.succeed([fact.streamId])
    : Result.map(projection.keys(fact), (keys) => keys.length > 1 ? [...new Set(keys)] : keys)

/** The keys of a page, and the position of the fact whose keys cannot be told. */
const collect = <S>(projection: Projection<S>, facts: ReadonlyArray<StoredFact>) => {
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

/** Folds a page over states that are there; `position` is the end of the page. */
const fold = <S>(
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
        const before = changes.get(key)
        const after = projection.apply(before === undefined ? stateOf(key) : before.state, fact)
        if (Result.isFailure(after)) return failed({ position: fact.position, problem: problemOf(after.failure) })
        next.push([key, { state: after.success, position: fact.position }])
      }
      // All keys of a fact, or none.
      for (const [key, change] of next) changes.set(key, change)
    } catch (cause) {
      return failed({ position: fact.position, problem: problemOf(cause) })
    }
  }
  return failure === undefined ? { changes, position, failure } : failed(failure)
}

const rowsOf = <S>(projection: Projection<S>, changes: Folded<S>["changes"]): ReadonlyArray<StateRow> | string => {
  try {
    return Array.from(changes, ([key, { position, state }]) => ({ key, position, state: JSON.stringify(projection.encode(state)) }))
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
          kept.set(key, text === undefined ? projection.initial : format.decode(JSON.parse(text)))
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
  const { batch, projection, rows, store } = folding
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
    const collected = collect(projection, facts.filter(({ name, streamId }) => projection.handles(name) && !streamId.startsWith("ksi-")))
    const problem = yield* states.load(new Set(collected.keyed.flatMap(([, keys]) => keys)))
    if (problem !== undefined) {
      progress.failure = { position: from + 1, problem }
      return false
    }
    const stateOf = (key: string): S => states.kept.get(key) ?? projection.initial
    const written = yield* write(fold(projection, collected, stateOf, last), from, last >= head)
    size.took(Number(((yield* Clock.monotonicTimeNanos) - started) / nanosPerMilli), facts.length)
    if (typeof written === "boolean") return written
    // One of the facts makes a state that cannot be kept: alone, each says whether it is that one.
    if (limit > 1) return false
    progress.failure = { position: last, problem: written }
    return false
  })
}

/** Waits a little, and then longer, while the store is in trouble. */
const patience = Schedule.exponential("100 millis").pipe(
  Schedule.modifyDelay(({ duration }) => Effect.succeed(Duration.min(duration, Duration.seconds(30))))
)

/** How far a version is at first. */
export const progressOf = ({ position, set }: ModelSet): Progress => ({ set, position, failure: undefined, trouble: undefined })

/** Folds until it is interrupted or a fact fails. `taken` hears when the version is the one that is asked. */
export const follow = Effect.fnUntraced(function*<S>(folding: Folding<S>, set: ModelSet, progress: Progress, taken: () => void) {
  const { moved, store } = folding
  const some = Latch.makeUnsafe(true)
  const step = makeStep(folding, set, progress)
  let serving = set.role === "serving"
  let single = 0
  yield* store.listen(() => void some.openUnsafe())
  while (progress.failure === undefined) {
    yield* some.await
    some.closeUnsafe()
    while (progress.failure === undefined && (progress.position < store.head() || !serving)) {
      const before = progress.position
      const isServing = yield* step(single > 0 ? 1 : undefined).pipe(
        Effect.tapError((error) => Effect.sync(() => {
          progress.trouble = error.message
          moved()
        })),
        Effect.retry(patience)
      )
      progress.trouble = undefined
      // Nothing was written, and nothing has failed: so one of the batch's facts will.
      if (progress.position === before && before < store.head()) single = folding.batch
      else if (single > 0) single--
      if (isServing && !serving) {
        serving = true
        taken()
      }
      moved()
      yield* Effect.yieldNow
      if (progress.position >= store.head()) break
    }
  }
}, Effect.scoped)
