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
import type { KsiError } from "../event/KsiError.ts"

/** What became of one fact of an append. */
export interface Outcome {
  /** `duplicate`: stored before with the same content; `conflict`: stored before with other content. */
  readonly kind: "appended" | "duplicate" | "conflict"
  /** Where the fact is; for a conflict, where the other one is. */
  readonly position: number
  readonly version: number
}

/** One append. */
export interface Append {
  readonly facts: ReadonlyArray<NewFact>
  /**
   * The version that the stream of the first fact must have; 0 says that it must not exist. Facts that are all stored
   * already are a no-op even when it has moved on, so that a retry is safe.
   */
  readonly expectedVersion?: number | undefined
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

/** The journal of facts. */
export class Journal extends Context.Service<Journal, {
  /**
   * Makes facts durable, in order. Fails with `VersionConflict`, `IdConflict`, `LimitExceeded` or `StoreFailure`.
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
  /** Calls `listener` with every commit, synchronously and in position order, until the scope closes. */
  readonly listen: (listener: (facts: ReadonlyArray<StoredFact>) => void) => Effect.Effect<void, never, Scope.Scope>
}>()("ksi/bus/Journal") {}
