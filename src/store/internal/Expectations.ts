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
  /** Of the stream of the first fact; most appends expect nothing else. */
  readonly own: Version | undefined
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
  const [first] = facts
  const own = expectedVersion === undefined || first === undefined ? undefined : { streamId: first.streamId, version: expectedVersion }
  if (condition === undefined) return { own, versions: expectedVersions, condition }
  // Its length has been looked at before.
  const query = compile(condition, Infinity)
  return Result.isFailure(query)
    ? KsiError.make(query.failure)
    : { own, versions: expectedVersions, condition: { query: query.success, after: Number(condition.after ?? 0) } }
}

const movedFrom = ({ streamId, version: expected }: Version, place: Place): KsiError.Reason | undefined => {
  const actual = place.version(streamId)
  return actual === expected ? undefined : new KsiError.VersionConflict({ streamId, expected, actual })
}

/** The first expectation that does not hold. */
export const unmet = ({ condition, own, versions }: Expectations, place: Place): KsiError.Reason | undefined => {
  const moved = own && movedFrom(own, place)
  if (moved !== undefined) return moved
  for (const version of versions) {
    const other = movedFrom(version, place)
    if (other !== undefined) return other
  }
  if (condition === undefined) return undefined
  const { after, query } = condition
  const position = place.first(query, after)
  return position === undefined ? undefined : new KsiError.ConditionFailed({ position, after })
}
