// What differs between the databases that an event store may have; everything else is built on it once.
import type * as Effect from "effect/Effect"
import type { Journal, Outcome } from "../../bus/Journal.ts"
import type { NewFact, StoredFact } from "../../event/CloudEvent.ts"
import type { Compiled } from "../../event/FactQuery.ts"
import type { KsiError } from "../../event/KsiError.ts"
import type { Snapshots } from "../Snapshots.ts"
import type { StreamSettings } from "../StreamSettings.ts"
import type { Participant } from "./Participants.ts"

/** A stream and how far it is. */
export interface StreamInfo {
  readonly streamId: string
  /** Version of its last fact, also where that was removed; without removals the number of its facts. */
  readonly version: number
}

/** A page of the facts that were looked for. */
export interface FactPage {
  readonly facts: ReadonlyArray<StoredFact>
  /** Where to go on looking; `undefined` where everything has been looked at. A page without facts may have one. */
  readonly next: number | undefined
}

/** What to look for, and where. */
export interface FactSearch {
  readonly query: Compiled
  readonly from: number
  readonly to: number
  readonly limit: number
  readonly backward: boolean
}

/** How many positions one search goes through before others have their turn. */
export const searched = 65_536

/** The part of a range, as far as one search goes; what is left of it begins at `next`. */
export const windowOf = ({ backward, from, to }: Pick<FactSearch, "backward" | "from" | "to">): { readonly low: number; readonly high: number; readonly next: number | undefined } => {
  if (to - from < searched) return { low: from, high: to, next: undefined }
  return backward ? { low: to - searched + 1, high: to, next: to - searched } : { low: from, high: from + searched - 1, next: from + searched }
}

/** Where a search goes on that has found this position last; `undefined` at its end. */
export const goOn = ({ backward, from, to }: Pick<FactSearch, "backward" | "from" | "to">, position: number): number | undefined => {
  const next = backward ? position - 1 : position + 1
  return next < from || next > to ? undefined : next
}

/** A stream, what it still holds, and what is set for it. */
export interface StreamDetails extends StreamInfo {
  /** The first version that is left; `version + 1` where none is. */
  readonly first: number
  /** Facts that are left. */
  readonly count: number
  /** Whether it was deleted: what is left is its tombstone. */
  readonly isDeleted: boolean
  readonly settings: StreamSettings
}

/** Facts of a stream that go: where they are, in their order; at least one. */
export interface Removed {
  readonly streamId: string
  readonly positions: ReadonlyArray<number>
}

/** What one turn of retention did. */
export interface Retained {
  readonly facts: number
  /** Where to go on; `undefined` at the end. */
  readonly next: string | undefined
}

/** What a driver (memory, SQLite) does; everything else is built on it once. Not an API for users. */
export interface Driver extends Pick<Journal["Service"], "append" | "read" | "head" | "listen"> {
  /** Facts of one stream with `from <= version <= to`; newest first when `backward`. Bounds as `read`. */
  readonly readStream: (options: {
    readonly streamId: string
    readonly from: number
    readonly to?: number | undefined
    readonly limit: number
    readonly backward?: boolean | undefined
  }) => Effect.Effect<ReadonlyArray<StoredFact>, KsiError>
  /** Facts of a query with `from <= position <= to`, both of them within the store; newest first when `backward`. Bounds as `read`. */
  readonly search: (options: FactSearch) => Effect.Effect<FactPage, KsiError>
  /** Streams in the order of their names (by code unit), from `from` on and after `after`. */
  readonly streams: (options: {
    readonly prefix?: string | undefined
    readonly from?: string | undefined
    readonly after?: string | undefined
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<StreamInfo>, KsiError>
  /** Facts with this id, of any source, in position order. */
  readonly byId: (id: string) => Effect.Effect<ReadonlyArray<StoredFact>, KsiError>
  /**
   * Facts that one request or fact caused, however indirectly, by their attribute `correlationid`; or that a client labelled
   * so (`clientcorrelationid`). In position order from `from` on; bounds as `read`. The root itself is found by its id.
   */
  readonly byCorrelation: (options: {
    readonly correlationId: string
    readonly from: number
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<StoredFact>, KsiError>
  /** States that folds have passed, beside the facts. */
  readonly snapshots: Snapshots
  /** What is known of a stream; of one that is only configured, version 0. `undefined` where it is neither. */
  readonly details: (streamId: string) => Effect.Effect<StreamDetails | undefined, KsiError>
  /** Sets what is kept of a stream, in place of what was set before. */
  readonly configure: (streamId: string, settings: StreamSettings) => Effect.Effect<void, KsiError>
  /** Applies retention to configured streams from a stream's id on, in their order: a bounded number of streams and facts. */
  readonly applyRetention: (options: { readonly from: string; readonly facts: number; readonly streams: number }) => Effect.Effect<Retained, KsiError>
  /**
   * Appends the last fact of a stream and removes all before it, both or neither. Fails with `StreamDeleted` where that was
   * done before, with `VersionConflict`, with `IdConflict`.
   */
  readonly deleteStream: (tombstone: NewFact, expectedVersion: number | undefined) => Effect.Effect<Outcome, KsiError>
  /** Registers who removes what it keeps of facts that go: called in the removal's transaction. */
  readonly onRemoved: (hook: (removed: Removed) => void) => void
  /** Takes part in the transactions of appends from the next one on, in this very turn; answers with how to leave. */
  readonly join: (participant: Participant) => () => void
  /** What this store is, for `health` and `doctor`. */
  readonly describe: { readonly kind: "memory" | "sqlite"; readonly file: string | undefined }
}
