// What differs between the databases that an event store may have; everything else is built on it once.
import type * as Effect from "effect/Effect"
import type { Journal } from "../../bus/Journal.ts"
import type { StoredFact } from "../../event/CloudEvent.ts"
import type { KsiError } from "../../event/KsiError.ts"
import type { Snapshots } from "../Snapshots.ts"

/** A stream and how far it is. */
export interface StreamInfo {
  readonly streamId: string
  /** Version of its last fact; the number of its facts. */
  readonly version: number
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
  /** What this store is, for `health` and `doctor`. */
  readonly describe: { readonly kind: "memory" | "sqlite"; readonly file: string | undefined }
}
