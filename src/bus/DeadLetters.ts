/**
 * The port through which the bus remembers reactions that failed: a fact's handler or an observer that failed, died or
 * took too long. The fact is stored and stays true; what is kept here is that one handler did not deal with it.
 *
 * The rule: a letter is kept until a person deals with it (rerun or discard) or the bound `deadLetters` is reached; then
 * the oldest goes first. Recording one never fails and never holds anybody up.
 *
 * **Example**
 *
 * ```ts
 * const letters = yield* DeadLetters
 * const { total } = yield* letters.list({ limit: 10 })
 * total                                       // 0
 * ```
 *
 * **Gotchas** Letters are written behind: one that was recorded within the last moments is lost with the process
 * (`kill -9`, power). The fact is not: the store has it.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"

/** What became of the handler. */
export type LetterReason = "failed" | "died" | "timed-out" | "overloaded"

/** A reaction that failed. */
export interface NewLetter {
  /** Which handler: the name it was registered under, as `stock:reserved#2` or an observer's pattern. */
  readonly handler: string
  readonly reason: LetterReason
  /** One sentence. */
  readonly error: string
  /** The event as the handler got it, with its id; data as JSON. */
  readonly event: {
    readonly id: string
    readonly name: string
    readonly data: unknown
    readonly streamId: string | undefined
    readonly position: number | undefined
    readonly attributes: JsonObject
  }
  /** When it failed, in milliseconds since 1970. */
  readonly timestamp: number
}

/** A letter that is kept. */
export interface Letter extends NewLetter {
  /** Its own number, greater than that of any before it. */
  readonly letter: number
  /** How often a person has rerun it, in vain. */
  readonly reruns: number
}

/** Which letters. */
export interface LetterQuery {
  /** Patterns of the event's name, any of which must match; all when absent. */
  readonly patterns?: ReadonlyArray<string> | undefined
  /** The letter that the page before ended with. */
  readonly after?: number | undefined
  readonly limit: number
}

/** Reactions that failed. */
export class DeadLetters extends Context.Service<DeadLetters, {
  /** Keeps a letter; written behind. Never fails, never waits. */
  readonly record: (letter: NewLetter) => void
  /**
   * Newest first, and how many match in all. A page may be shorter than `limit`, for its bytes are bounded too; only an
   * empty one is the end. Fails with `PatternInvalid`, or `StoreFailure` where the letters cannot be read.
   */
  readonly list: (query: LetterQuery) => Effect.Effect<
    { readonly letters: ReadonlyArray<Letter>; readonly total: number },
    KsiError.KsiError
  >
  /** One letter; `NotFound` where there is none. */
  readonly get: (letter: number) => Effect.Effect<Letter, KsiError.KsiError>
  /** Notes that it was rerun in vain, and why; `NotFound` where there is none. */
  readonly rerun: (letter: number, error: string) => Effect.Effect<void, KsiError.KsiError>
  /** Removes letters; answers with how many there were. */
  readonly discard: (letters: ReadonlyArray<number>) => Effect.Effect<number, KsiError.KsiError>
}>()("ksi/bus/DeadLetters") {
  /** Keeps nothing. */
  static readonly layerOff: Layer.Layer<DeadLetters> = Layer.sync(DeadLetters, () => ({
    record: () => {},
    list: () => Effect.succeed({ letters: [], total: 0 }),
    get: notFound,
    rerun: notFound,
    discard: () => Effect.succeed(0)
  }))
}

/** Fails with `NotFound`. */
export const notFound = (letter: number): Effect.Effect<never, KsiError.KsiError> =>
  KsiError.fail(new KsiError.NotFound({ what: "dead letter", id: String(letter), similar: [] }))
