// What an append expects of the store it goes into: versions of streams, and that nothing has come which its decision did not
// know. Whatever the store, they are asked in one order, and the first that does not hold is the answer.
import * as Result from "effect/Result"
import type { Append } from "../../bus/Journal.ts"
import { type Compiled, compile } from "../../event/FactQuery.ts"
import * as KsiError from "../../event/KsiError.ts"

interface Version {
  readonly streamId: string
  readonly version: number
}

/** What one append expects. */
export interface Expectations {
  readonly versions: ReadonlyArray<Version>
  readonly condition: { readonly query: Compiled; readonly after: number } | undefined
}

/** Where an append would go. */
export interface Place {
  /** The version that a stream has; 0 where it does not exist. */
  readonly version: (streamId: string) => number
  /** The first position behind `after` of a fact that matches. */
  readonly first: (query: Compiled, after: number) => number | undefined
}

const none: ReadonlyArray<Version> = []

/** What an append expects; `undefined` where it is nothing. */
export const of = ({ condition, expectedVersion, expectedVersions = none, facts }: Append): Expectations | KsiError.KsiError | undefined => {
  if (expectedVersion === undefined && condition === undefined && expectedVersions.length === 0) return undefined
  const own: ReadonlyArray<Version> = expectedVersion === undefined ? none : facts.slice(0, 1).map(({ streamId }) => ({ streamId, version: expectedVersion }))
  const versions = expectedVersions.length === 0 ? own : [...own, ...expectedVersions]
  if (condition === undefined) return { versions, condition }
  // Its length has been looked at before.
  const query = compile(condition, Infinity)
  return Result.isFailure(query)
    ? KsiError.make(query.failure)
    : { versions, condition: { query: query.success, after: Number(condition.after ?? 0) } }
}

/** The first expectation that does not hold. */
export const unmet = ({ condition, versions }: Expectations, place: Place): KsiError.Reason | undefined => {
  for (const { streamId, version: expected } of versions) {
    const actual = place.version(streamId)
    if (actual !== expected) return new KsiError.VersionConflict({ streamId, expected, actual })
  }
  if (condition === undefined) return undefined
  const { after, query } = condition
  const position = place.first(query, after)
  return position === undefined ? undefined : new KsiError.ConditionFailed({ position, after })
}
