/**
 * States that a fold has passed, kept so that the next one need not begin at the first fact.
 *
 * The rule: a snapshot is a cache. It may be thrown away at any time, no answer depends on it, and where one cannot be written
 * or read, the facts are folded instead. It is found only by the code that made it: a projection's fingerprint is part of where
 * it lies, so that edited code never meets the states of what it was.
 *
 * The snapshots of one projection over one subject (a stream, or all of them) are a *chain* of points. A point says how far it
 * is, and what a question about an instant must know: the newest event time of everything before it, and the oldest one since
 * the point before. A state is written in chunks of 256 streams in the order of their first facts, and of those a point writes
 * only the ones that have changed.
 *
 * **Example**
 *
 * ```ts
 * const store = yield* EventStore.EventStore
 * for (let n = 1; n <= 200; n++) yield* store.appendTo("cart-1", [{ name: "cart:filled", data: { items: n } }])
 * yield* TimeTravel.at(Projection.latest, { streamId: "cart-1" })
 * const { fingerprint } = Projection.formatOf(Projection.latest) ?? { fingerprint: "" }
 * const newest = yield* store.driver.snapshots.newest({ projection: "latest", fingerprint, subject: Snapshots.ofStream("cart-1") })
 * newest?.position                            // 192
 * ```
 *
 * **Gotchas** Points are written by whoever asks, as the fold passes them: the first question after a million new facts folds
 * those, the next ones do not. Appends never wait for a snapshot.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { KsiError } from "../event/KsiError.ts"
import { firstWhere } from "./internal/bisect.ts"

/** Which snapshots: of this code, over this subject. */
export interface Chain {
  readonly projection: string
  readonly fingerprint: string
  readonly subject: string
}

/** The subject of all streams but KSI's own. */
export const ofAll = "all"
/** The subject of all streams. */
export const ofEverything = "everything"
/** The subject of one stream. */
export const ofStream = (streamId: string): string => `stream:${streamId}`

/** A place in a chain. */
export interface Point {
  /** Position of the last fact that it holds. */
  readonly position: number
  /** The same, for a stream as its version: where reading goes on after it. */
  readonly through: number
  /** `through` of the point before it; 0 where there is none. */
  readonly previous: number
  /** The newest event time of all facts that it holds. */
  readonly newest: number
  /** The oldest event time of those since the point before it. */
  readonly oldest: number
  /** Whether one of those is older than a fact that the point before holds. */
  readonly late: boolean
  /** How many chunks its state has. */
  readonly chunks: number
  /** The sum of the positions at which these were written: where one is lost, an older one of it must not pass for it. */
  readonly written: number
}

/** The state of some streams, as a fold writes it. */
export type Body = string | Uint8Array

/** A chunk as it was written at some point. */
export interface Chunk {
  readonly position: number
  readonly body: Body
}

/** Where snapshots are kept; beside the facts, so that they go where those go. */
export interface Snapshots {
  /** Grows with each `forget`: what was folded before one is not written after it. */
  readonly epoch: () => number
  /** The last point of a chain. */
  readonly newest: (chain: Chain) => Effect.Effect<Point | undefined, KsiError>
  /** The last point up to a position whose facts had all happened by an instant. */
  readonly before: (chain: Chain, position: number, instant: number) => Effect.Effect<Point | undefined, KsiError>
  /** The first point after a position. */
  readonly after: (chain: Chain, position: number) => Effect.Effect<Point | undefined, KsiError>
  /** Points with `from < position <= to` since whose forerunner a late fact came that had happened by an instant. */
  readonly late: (chain: Chain, from: number, to: number, instant: number) => Effect.Effect<ReadonlyArray<Point>, KsiError>
  /** The state at a point, chunk by chunk, from one chunk on; fewer than it has where one is missing. */
  readonly chunks: (
    chain: Chain, point: Point, first: number, limit: number
  ) => Effect.Effect<ReadonlyArray<Chunk>, KsiError>
  /**
   * Adds a point with the chunks that changed, unless the chain has other points than the writer believes (`last`, 0 for none),
   * or something was forgotten since `epoch`; whether it did.
   */
  readonly write: (options: {
    readonly chain: Chain
    readonly last: number
    readonly epoch: number
    readonly point: Point
    readonly bodies: ReadonlyMap<number, Body>
  }) => Effect.Effect<boolean, KsiError>
  /** Throws a chain away. */
  readonly drop: (chain: Chain) => Effect.Effect<void, KsiError>
  /**
   * Throws away all states that hold facts of a stream from a position on. Synchronous, for whoever takes facts away: in SQLite
   * within the same transaction.
   */
  readonly forget: (options: { readonly streamId: string; readonly fromPosition: number }) => void
}

/** When a point is written. */
export interface PolicyShape {
  /** Facts of a stream from one point to the next, at least; `Infinity` for no snapshots. */
  readonly streamFacts: number
  /** The same of all streams. */
  readonly allFacts: number
  /** Bytes of snapshots for each fact: larger states are written less often. */
  readonly bytesPerFact: number
}

/** When points are written; a layer may say otherwise. */
export const Policy: Context.Reference<PolicyShape> = Context.Reference<PolicyShape>("ksi/store/Snapshots/Policy", {
  defaultValue: () => ({ streamFacts: 64, allFacts: 192, bytesPerFact: 52 })
})

/** No snapshots at all: every question folds all facts. */
export const never: PolicyShape = { streamFacts: Infinity, allFacts: Infinity, bytesPerFact: 1 }

/** How many versions of a projection keep snapshots. */
export const keptFingerprints = 4

// ----------------------------------------------------------------------------------------------------------- in memory

interface Kept {
  readonly chain: Chain
  readonly points: Array<Point>
  /** By chunk: the positions at which it was written, and what. */
  readonly chunks: Map<number, Array<Chunk>>
}

const keyOf = ({ fingerprint, projection, subject }: Chain): string => JSON.stringify([projection, fingerprint, subject])

/** How many items hold, where those that do come first. */
const countWhile = <A>(items: ReadonlyArray<A>, holds: (item: A) => boolean): number =>
  firstWhere(0, items.length, (index) => {
    const item = items[index]
    return item === undefined || !holds(item)
  })

const cut = ({ chunks, points }: Kept, from: number): void => {
  points.length = countWhile(points, ({ position }) => position < from)
  for (const rows of chunks.values()) rows.length = countWhile(rows, ({ position }) => position < from)
}

/** Snapshots in memory. */
export const makeMemory = (): Snapshots & { readonly clear: () => void } => {
  const chains = new Map<string, Kept>()
  const fingerprints = new Map<string, Array<string>>()
  let epoch = 0
  const pointsOf = (chain: Chain): ReadonlyArray<Point> => chains.get(keyOf(chain))?.points ?? []
  const create = (chain: Chain): Kept => {
    const kept: Kept = { chain, points: [], chunks: new Map() }
    chains.set(keyOf(chain), kept)
    const known = fingerprints.get(chain.projection) ?? []
    if (known.includes(chain.fingerprint)) return kept
    fingerprints.set(chain.projection, [...known, chain.fingerprint].slice(-keptFingerprints))
    const [oldest] = known
    if (known.length < keptFingerprints) return kept
    for (const [key, { chain: { fingerprint, projection } }] of chains) {
      if (projection === chain.projection && fingerprint === oldest) chains.delete(key)
    }
    return kept
  }
  return {
    epoch: () => epoch,
    newest: (chain) => Effect.sync(() => pointsOf(chain).at(-1)),
    before: (chain, position, instant) =>
      Effect.sync(() => {
        const points = pointsOf(chain)
        return points[countWhile(points, (point) => point.position <= position && point.newest <= instant) - 1]
      }),
    after: (chain, position) =>
      Effect.sync(() => {
        const points = pointsOf(chain)
        return points[countWhile(points, (point) => point.position <= position)]
      }),
    late: (chain, from, to, instant) =>
      Effect.sync(() => pointsOf(chain).filter(({ late, oldest, position }) =>
        late && position > from && position <= to && oldest <= instant)),
    chunks: (chain, { chunks: count, position: at }, first, limit) =>
      Effect.sync(() => {
        const chunks = chains.get(keyOf(chain))?.chunks
        return Array.from({ length: Math.max(0, Math.min(limit, count - first)) }, (_, i) => chunks?.get(first + i) ?? [])
          .flatMap((rows) => rows[countWhile(rows, ({ position }) => position <= at) - 1] ?? [])
      }),
    write: ({ bodies, chain, epoch: since, last, point }) =>
      Effect.sync(() => {
        if (epoch !== since || (pointsOf(chain).at(-1)?.position ?? 0) !== last) return false
        const { chunks, points } = chains.get(keyOf(chain)) ?? create(chain)
        for (const [chunk, body] of bodies) {
          const row = { position: point.position, body }
          const rows = chunks.get(chunk)
          if (rows === undefined) chunks.set(chunk, [row])
          else rows.push(row)
        }
        points.push(point)
        return true
      }),
    drop: (chain) => Effect.sync(() => void chains.delete(keyOf(chain))),
    forget: ({ fromPosition, streamId }) => {
      epoch++
      for (const kept of chains.values()) {
        const { subject } = kept.chain
        if (subject === ofAll || subject === ofEverything || subject === ofStream(streamId)) cut(kept, fromPosition)
      }
    },
    clear: () => {
      epoch++
      chains.clear()
      fingerprints.clear()
    }
  }
}
