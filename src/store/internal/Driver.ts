// What differs between the databases that an event store may have; everything else is built on it once.
import type * as Effect from "effect/Effect"
import type { Journal, Outcome } from "../../bus/Journal.ts"
import type { NewFact, StoredFact } from "../../event/CloudEvent.ts"
import type { KsiError } from "../../event/KsiError.ts"
import type { StreamSettings } from "../StreamSettings.ts"

/** A stream and how far it is. */
export interface StreamInfo {
  readonly streamId: string
  /** Version of its last fact, also where that was removed; without removals the number of its facts. */
  readonly version: number
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

/** Facts of a stream that go: those before a position. */
export interface Removed {
  readonly streamId: string
  readonly fromPosition: number
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
  /** Streams in the order of their names (by code unit), from `from` on and after `after`. */
  readonly streams: (options: {
    readonly prefix?: string | undefined
    readonly from?: string | undefined
    readonly after?: string | undefined
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<StreamInfo>, KsiError>
  /** Facts with this id, of any source, in position order. */
  readonly byId: (id: string) => Effect.Effect<ReadonlyArray<StoredFact>, KsiError>
  /** What is known of a stream; of one that is only configured, version 0. `undefined` where it is neither. */
  readonly details: (streamId: string) => Effect.Effect<StreamDetails | undefined, KsiError>
  /** Sets what is kept of a stream, in place of what was set before. */
  readonly configure: (streamId: string, settings: StreamSettings) => Effect.Effect<void, KsiError>
  /** Applies retention to configured streams from a stream's id on, in their order: a bounded number of streams and facts. */
  readonly retainSome: (options: { readonly from: string; readonly facts: number; readonly streams: number }) => Effect.Effect<Retained, KsiError>
  /**
   * Appends the last fact of a stream and removes all before it, both or neither. Fails with `StreamDeleted` where that was
   * done before, with `VersionConflict`, with `IdConflict`.
   */
  readonly entomb: (tombstone: NewFact, expectedVersion: number | undefined) => Effect.Effect<Outcome, KsiError>
  /** Registers who removes what it keeps of facts that go: called in the removal's transaction. */
  readonly onRemoved: (hook: (removed: Removed) => void) => void
  /** What this store is, for `health` and `doctor`. */
  readonly describe: { readonly kind: "memory" | "sqlite"; readonly file: string | undefined }
}
