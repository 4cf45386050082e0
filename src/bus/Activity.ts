/**
 * The port through which the bus remembers requests: the activity journal. Requests leave a trail (payload, outcome,
 * duration, causation, principal), but no position and no place in any stream. Written behind, in batches, bounded.
 *
 * The rule: complete by default. When the buffer is full, `record` answers with an effect and the caller waits for it.
 *
 * **Example**
 *
 * ```ts
 * const activity = yield* Activity
 * yield* (yield* Ksi).call(Reserve, { sku: "tea", quantity: 1 })
 * const { records } = yield* activity.query({ patterns: [yield* EventPattern.fromText("stock:*")], limit: 1 })
 * records.map(({ name, outcome }) => [name, outcome])         // [["stock:reserve", "success"]]
 * ```
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type { Envelope } from "../event/Envelope.ts"
import type { EventPattern } from "../event/EventPattern.ts"
import * as Errors from "../event/KsiError.ts"
import type { KsiError } from "../event/KsiError.ts"

/** How a request ended. */
export type OutcomeKind = "success" | "failure" | "defect" | "interrupted"

const textOf = (error: unknown): string => {
  if (error instanceof Error) return error.message
  if (typeof error === "string") return error
  if (typeof error === "object" && error !== null) {
    if ("message" in error && typeof error.message === "string") return error.message
    if ("_tag" in error && typeof error._tag === "string") return error._tag
  }
  return String(JSON.stringify(error))
}

// Anything can be thrown, also what throws when it is looked at.
const sentence = (error: unknown): string => Result.getOrElse(Result.try(() => textOf(error)), () => Errors.sentenceOf(error))

/** How an exit ended. */
export const kindOf = (exit: Exit.Exit<unknown, unknown>): OutcomeKind => {
  if (Exit.isSuccess(exit)) return "success"
  const { reasons } = exit.cause
  if (reasons.some(Cause.isFailReason)) return "failure"
  return reasons.some(Cause.isDieReason) ? "defect" : "interrupted"
}

/** How an exit ended, and a sentence where it did not succeed. */
export const outcomeOf = (exit: Exit.Exit<unknown, unknown>): readonly [OutcomeKind, string | undefined] => {
  if (Exit.isSuccess(exit)) return ["success", undefined]
  const { reasons } = exit.cause
  const failure = reasons.find(Cause.isFailReason)
  if (failure !== undefined) return ["failure", sentence(failure.error)]
  const defect = reasons.find(Cause.isDieReason)
  return defect === undefined ? ["interrupted", "it was interrupted"] : ["defect", sentence(defect.defect)]
}

const tagOf = (error: unknown): string | undefined => {
  if (Errors.is(error)) return error.reason._tag
  return typeof error === "object" && error !== null && "_tag" in error && typeof error._tag === "string" ? error._tag : undefined
}

/** The tag of what an exit failed with: a declared error's own, or KSI's reason; `undefined` where it has none. */
export const reasonOf = (exit: Exit.Exit<unknown, unknown>): string | undefined => {
  const failure = Exit.isSuccess(exit) ? undefined : exit.cause.reasons.find(Cause.isFailReason)
  return failure === undefined ? undefined : Result.getOrUndefined(Result.try(() => tagOf(failure.error)))
}

/** What the router hands over when a request has ended. Encoding is left to the writer, off the caller's path. */
export interface Ended {
  readonly envelope: Envelope
  /** Makes JSON of the envelope's data. */
  readonly encode: (data: unknown) => unknown
  readonly exit: Exit.Exit<unknown, unknown>
  /** Milliseconds, with fraction. */
  readonly duration: number
}

/** A request as the journal keeps it. */
export interface ActivityRecord {
  readonly id: string
  readonly name: string
  /** The payload, as JSON. */
  readonly data: unknown
  readonly outcome: OutcomeKind
  /** One sentence; `undefined` for a success. */
  readonly error: string | undefined
  /** The tag of what it failed with; `undefined` where it has none. */
  readonly reason: string | undefined
  /** Milliseconds; in a file to the microsecond. */
  readonly duration: number
  /** Milliseconds since 1970. */
  readonly timestamp: number
  readonly correlationId: string
  readonly causationId: string | undefined
  readonly depth: number
  readonly principal: string
  readonly clientId: string | undefined
  readonly clientCorrelationId: string | undefined
}

/** Which requests. */
export interface ActivityQuery {
  /** Patterns, any of which must match; all when absent. */
  readonly patterns?: ReadonlyArray<EventPattern> | undefined
  /** Milliseconds since 1970, inclusive. */
  readonly since?: number | undefined
  readonly until?: number | undefined
  /** KSI's correlation id, or the label that a client gave. */
  readonly correlationId?: string | undefined
  readonly id?: string | undefined
  /** Only requests that a client with this label sent. */
  readonly clientId?: string | undefined
  readonly outcome?: OutcomeKind | undefined
  readonly limit: number
  readonly offset?: number | undefined
  /** Oldest first; newest first when absent. */
  readonly forward?: boolean | undefined
}

/** The activity journal. */
export class Activity extends Context.Service<Activity, {
  /** Whether anything is recorded; where not, durations need not be measured. */
  readonly isOn: boolean
  /** Records a request that has ended. `undefined` when it was taken at once; else an effect to wait for. */
  readonly record: (ended: Ended) => Effect.Effect<void> | undefined
  /** Looks requests up; those still in the buffer are included. */
  readonly query: (query: ActivityQuery) => Effect.Effect<{
    readonly records: ReadonlyArray<ActivityRecord>
    /** How many match without `limit` and `offset`. */
    readonly total: number
  }, KsiError>
  /** Waits until everything recorded so far is written. */
  readonly flush: Effect.Effect<void>
}>()("ksi/bus/Activity") {
  /** Records nothing and finds nothing (`KSI_AUDIT=off`). */
  static readonly off: Activity["Service"] = {
    isOn: false,
    record: () => undefined,
    query: () => Effect.succeed({ records: [], total: 0 }),
    flush: Effect.void
  }

  /** `off` as a layer. */
  static readonly layerOff: Layer.Layer<Activity> = Layer.succeed(Activity, Activity.off)
}
