/**
 * The port through which the bus remembers reactions that failed: a fact's handler or an observer that failed, died or
 * took too long. The fact is stored and stays true; what is kept here is that one handler did not deal with it.
 *
 * The rule: a letter is kept until a person deals with it (rerun or discard) or the bound is reached; then the oldest
 * goes first. Recording one never fails and never holds anybody up.
 *
 * **Example**
 *
 * ```ts
 * const letters = yield* DeadLetters
 * const { total } = yield* letters.list({ limit: 10 })
 * total                                       // 0
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { JsonObject } from "../event/Json.ts"
import type { KsiError } from "../event/KsiError.ts"

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
  /** Milliseconds since 1970. */
  readonly timestamp: number
}

/** A letter that is kept. */
export interface Letter extends NewLetter {
  /** Its own id, greater than that of any before it. */
  readonly letter: number
  /** How often a person has rerun it. */
  readonly reruns: number
}

/** Reactions that failed. */
export class DeadLetters extends Context.Service<DeadLetters, {
  /** Keeps a letter; written behind. Never fails. */
  readonly record: (letter: NewLetter) => void
  /** Newest first; `after` is the letter that the page before ended with. */
  readonly list: (options: {
    readonly patterns?: ReadonlyArray<string> | undefined
    readonly after?: number | undefined
    readonly limit: number
  }) => Effect.Effect<{ readonly letters: ReadonlyArray<Letter>; readonly total: number }, KsiError>
  /** One letter; `NotFound` where there is none. */
  readonly get: (letter: number) => Effect.Effect<Letter, KsiError>
  /** Notes that it was rerun. */
  readonly rerun: (letter: number) => Effect.Effect<void, KsiError>
  /** Removes letters; answers with how many there were. */
  readonly discard: (letters: ReadonlyArray<number>) => Effect.Effect<number, KsiError>
}>()("ksi/bus/DeadLetters") {
  /** Keeps nothing. */
  static readonly layerOff: Layer.Layer<DeadLetters> = Layer.succeed(DeadLetters, {
    record: () => {},
    list: () => Effect.succeed({ letters: [], total: 0 }),
    get: () => Effect.die(new Error("dead letters are off")),
    rerun: () => Effect.void,
    discard: () => Effect.succeed(0)
  })
}
