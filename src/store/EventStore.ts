/**
 * Streams of facts, remembered: append, read, follow. (contract; the implementation of `make` and `layerMemory` follows)
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { NewFact, StoredFact } from "../event/CloudEvent.ts"
import type { KsiError } from "../event/KsiError.ts"
import type { Journal, Outcome } from "../bus/Journal.ts"

/** A fact as a program appends it; what is left out is filled in. */
export interface FactInput {
  readonly name: string
  readonly data?: unknown
  /** Default: a new UUIDv7. */
  readonly id?: string
  /** Default: `/ksi`. */
  readonly source?: string
  /** RFC 3339. Default: now. */
  readonly time?: string
  readonly attributes?: NewFact["attributes"]
}

/** A stream and how far it is. */
export interface StreamInfo {
  readonly streamId: string
  /** Version of its last fact; the number of its facts. */
  readonly version: number
}

/** What a driver (memory, SQLite, PostgreSQL) does; everything else is built on it once. Not an API for users. */
export interface Driver extends Pick<Journal["Service"], "append" | "read" | "head" | "listen"> {
  /** Facts of one stream with `from <= version <= to`; newest first when `backward`. Bounds as `read`. */
  readonly readStream: (options: {
    readonly streamId: string
    readonly from: number
    readonly to?: number | undefined
    readonly limit: number
    readonly backward?: boolean | undefined
  }) => Effect.Effect<ReadonlyArray<StoredFact>, KsiError>
  /** Streams in the order of their names (by code unit), after `after`. */
  readonly streams: (options: {
    readonly prefix?: string | undefined
    readonly after?: string | undefined
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<StreamInfo>, KsiError>
  /** Facts with this id, of any source, in position order. */
  readonly byId: (id: string) => Effect.Effect<ReadonlyArray<StoredFact>, KsiError>
  /** What this store is, for `health` and `doctor`. */
  readonly describe: { readonly kind: "memory" | "sqlite"; readonly file: string | undefined }
}

/** The event store. */
export class EventStore extends Context.Service<EventStore, Driver & {
  /**
   * Appends facts to one stream, all or none. `expectedVersion` is the version the stream must have (0: it must not
   * exist). Fails with `VersionConflict`, `IdConflict`, `StoreFailure`, `LimitExceeded`.
   */
  readonly appendTo: (
    streamId: string,
    facts: ReadonlyArray<FactInput>,
    options?: { readonly expectedVersion?: number }
  ) => Effect.Effect<ReadonlyArray<Outcome>, KsiError>
  /** All facts of a stream, oldest first; `NotFound` where the stream does not exist. */
  readonly stream: (streamId: string, options?: {
    readonly from?: number
    readonly to?: number
    readonly backward?: boolean
  }) => Stream.Stream<StoredFact, KsiError>
  /** All facts from a position to another (default: the head at the start), in order. */
  readonly all: (options?: { readonly from?: number; readonly to?: number }) => Stream.Stream<StoredFact, KsiError>
}>()("ksi/store/EventStore") {}
