/**
 * The port through which the bus remembers facts: append, read back, hear of every commit. The event store provides it.
 *
 * The rule: `append` answers when the facts are durable, and listeners hear of them in position order, after that and
 * before the append answers. Positions and versions count from 1 without gaps.
 *
 * **Example**
 *
 * ```ts
 * const journal = yield* Journal
 * const fact = Result.getOrThrow(CloudEvent.decode({ specversion: "1.0", id: "1", source: "/a", type: "order:placed" }))
 * yield* journal.append({ facts: [fact] })                    // [{ kind: "appended", position: 1, version: 1 }]
 * yield* journal.append({ facts: [fact] })                    // [{ kind: "duplicate", position: 1, version: 1 }]
 * ```
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import type * as Scope from "effect/Scope"
import type { NewFact, StoredFact } from "../event/CloudEvent.ts"
import type { FactQuery } from "../event/FactQuery.ts"
import type { KsiError } from "../event/KsiError.ts"

/** What became of one fact of an append. */
export interface Outcome {
  /** `duplicate`: stored before with the same content; `conflict`: stored before with other content. */
  readonly kind: "appended" | "duplicate" | "conflict"
  /** Where the fact is; for a conflict, where the other one is. */
  readonly position: number
  readonly version: number
}

/** What must not have happened since a decision was made. */
export interface Condition {
  readonly query: FactQuery
  /** The position that the decision is based on: the head when it began to read. */
  readonly after?: number | bigint | undefined
}

/** What an append expects of the store; where that does not hold, nothing is stored. */
export interface Expectations {
  /**
   * The version that the stream of the first fact must have; 0 says that it must not exist. Facts that are all stored
   * already are a no-op even when it has moved on, so that a retry is safe. It says nothing of other streams that the append
   * writes to: for these there is `expectedVersions`.
   */
  readonly expectedVersion?: number | undefined
  /** Versions that streams must have, also such that nothing is appended to; 0 says that one must not exist. */
  readonly expectedVersions?: ReadonlyArray<{ readonly streamId: string; readonly version: number }> | undefined
  /**
   * Fails with `ConditionFailed` when a fact that matches `query` came after position `after` (default: 0, so that there
   * must be none at all). As with versions, facts that are all stored already are a no-op.
   */
  readonly condition?: Condition | undefined
}

/** One append. */
export interface Append extends Expectations {
  readonly facts: ReadonlyArray<NewFact>
  /**
   * `all` (the default): every fact or none; a conflict fails the append with `IdConflict`.
   * `each`: every fact for itself; a conflict is told in its outcome.
   */
  readonly mode?: "all" | "each" | undefined
}

/**
 * An effect that whoever is in a fiber already may begin at once: it is complete, where nothing has to be waited for,
 * without a turn of the fiber.
 */
class AtOnce<A, E> {
  readonly begin: () => Effect.Effect<A, E>
  constructor(begin: () => Effect.Effect<A, E>) {
    this.begin = begin
  }
}
Object.setPrototypeOf(AtOnce.prototype, Effectable.Prototype<Effect.Effect<unknown, unknown> & AtOnce<unknown, unknown>>({
  label: "Journal.atOnce",
  evaluate() {
    return this.begin()
  }
}))

/** As `Effect.suspend`; `begin` need not wait for the fiber. */
export const atOnce = <A, E>(begin: () => Effect.Effect<A, E>): Effect.Effect<A, E> =>
  new AtOnce(begin) as unknown as Effect.Effect<A, E> // by its prototype

/** Begins an effect of `atOnce` here and now: what it answers with may be complete. Any other effect is itself. */
export const begin = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  effect instanceof AtOnce ? effect.begin() : effect

/** When something was said, and when it was kept. */
export interface Moment {
  readonly timestamp: number
  readonly recordedAt: number
}

/** What caused a fact that an event said. */
export interface Cause {
  readonly id: string
  readonly correlationId: string
  /** How deep the fact is. */
  readonly depth: number
}

/**
 * A fact that the bus has made itself, just now: it is the first with its id, and its data is JSON that nobody else has.
 * The store writes into it where it is. A store in memory keeps these by the million: they are small, and share what they
 * can.
 */
export class Said {
  readonly id: string
  readonly name: string
  readonly streamId: string
  readonly data: unknown
  readonly cause: Cause | undefined
  position = 0
  version = 0
  moment: Moment | undefined = undefined

  constructor(id: string, name: string, streamId: string, data: unknown, cause: Cause | undefined) {
    this.id = id
    this.name = name
    this.streamId = streamId
    this.data = data
    this.cause = cause
  }
}

/**
 * The short way into a store that keeps facts without waiting: what is known to be right of a fact that the bus has made is
 * not asked. It belongs to one `append` and is found by it: whoever puts another in its place closes it.
 */
export interface Saying {
  /** How many bytes the text of `Said.data` may have. */
  readonly frameBytes: number
  /** How deep it may be. */
  readonly jsonDepth: number
  /** Whether a fact may go this way, as far as its labels say. */
  readonly takes: (said: Said) => boolean
  /** Keeps what was said at this time, writes into it where it is, and tells who listens. Answers with what is left to do. */
  readonly say: (said: Said, timestamp: number) => Effect.Effect<void> | undefined
}

type AppendTo = Journal["Service"]["append"]
// Beside the function, not on it: what copies or wraps a function takes along what is on it.
const sayings = new WeakMap<AppendTo, Saying>()

/** An `append` with a short way beside it. */
export const withSaying = (append: AppendTo, way: Saying): AppendTo => {
  sayings.set(append, way)
  return append
}

/** The short way beside an `append`, where it has one. */
export const sayingOf = (append: AppendTo): Saying | undefined => sayings.get(append)

/** The journal of facts. */
export class Journal extends Context.Service<Journal, {
  /**
   * Makes facts durable, in order. Fails with `VersionConflict`, `ConditionFailed`, `IdConflict`, `LimitExceeded` or `StoreFailure`.
   * Once handed to the store it is carried out even if the caller is interrupted.
   */
  readonly append: (request: Append) => Effect.Effect<ReadonlyArray<Outcome>, KsiError>
  /** Facts with `from <= position <= to`, in order: at most `limit` and at most `pageBytes` (but at least one). */
  readonly read: (options: {
    readonly from: number
    readonly to?: number | undefined
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<StoredFact>, KsiError>
  /** The last committed position; 0 for an empty journal. Synchronous, so that catching up can end without a gap. */
  readonly head: () => number
  /**
   * Calls `listener` with every commit, synchronously and in position order, until the scope closes. A store may leave
   * out the commits of times when `isIdle` says so: what nobody hears need not be made.
   */
  readonly listen: (
    listener: (facts: ReadonlyArray<StoredFact>) => void,
    isIdle?: () => boolean
  ) => Effect.Effect<void, never, Scope.Scope>
}>()("ksi/bus/Journal") {}
