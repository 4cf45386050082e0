/**
 * What is set for a stream: how much of its history is kept, and what a user notes about it.
 *
 * The rule: a setting says what *may* go. It goes when retention is applied (`EventStore.retain`), for every reader at once:
 * stream, log, id, export, time travel, and subscribers that catch up. Until then a stream may hold more than its setting says.
 * What goes is always the beginning of a stream. Versions and positions are never given out again.
 *
 * **Example**
 *
 * ```ts
 * const settings = { maxCount: 2 }
 * // Of a stream with the versions 1 to 5, the first that stays.
 * StreamSettings.firstKept(settings, { first: 1, last: 5, now: 0, recordedAt: () => 0 })   // 4
 * ```
 *
 * **Gotchas** A fact's age is counted from when it was stored, not from when it happened: an imported history is young. With
 * `maxAge` or `truncateBefore` a stream can lose all of its facts; its version stays.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { firstWhere } from "./internal/bisect.ts"

const Count = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }))

/** The settings of a stream; what is left out keeps everything. */
export const StreamSettings = Schema.Struct({
  maxCount: Schema.optionalKey(Count.annotate({ description: "the newest facts that stay" })),
  maxAge: Schema.optionalKey(Count.annotate({ description: "milliseconds that a fact stays after it was stored" })),
  truncateBefore: Schema.optionalKey(Count.annotate({ description: "the first version that stays" })),
  metadata: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown).annotate({ description: "whatever is to be noted" }))
})

/** The settings of a stream. */
export type StreamSettings = typeof StreamSettings.Type

/** Settings that keep everything. */
export const none: StreamSettings = {}

const decode = Schema.decodeUnknownResult(StreamSettings)

/** The settings that a value is, or one sentence on why it is none. */
export const check = (value: unknown): Result.Result<StreamSettings, string> =>
  Result.mapError(decode(value, { onExcessProperty: "error" }), (error) => error.message.split("\n")[0] ?? "")

/** Whether nothing is set. */
export const isNone = (settings: StreamSettings): boolean => Object.values(settings).every((value) => value === undefined)

/** A stream as retention sees it: the versions it holds, and when each was stored. */
export interface Held {
  readonly first: number
  readonly last: number
  readonly now: number
  readonly recordedAt: (version: number) => number
}

/** The first version that is not older than this; `last + 1` where all are. Within a stream, facts are stored in order. */
const firstSince = ({ first, last, recordedAt }: Held, since: number): number =>
  firstWhere(first, last + 1, (version) => recordedAt(version) >= since)

/** The first version that stays; `last + 1` where none does. Never before `first`. */
export const firstKept = (settings: StreamSettings, held: Held): number => {
  const { first, last, now } = held
  const { maxAge, maxCount, truncateBefore = 1 } = settings
  const cut = Math.min(last + 1, Math.max(first, truncateBefore, maxCount === undefined ? 1 : last - maxCount + 1))
  return maxAge === undefined ? cut : firstSince({ ...held, first: cut }, now - maxAge)
}
