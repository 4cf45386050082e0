// A part of the history, read page by page and once only: what every search through the past walks along.
import * as Effect from "effect/Effect"
import type { StoredFact } from "../../event/CloudEvent.ts"
import * as Envelope from "../../event/Envelope.ts"
import type * as KsiError from "../../event/KsiError.ts"
import type { EventStore } from "../EventStore.ts"
import type { When } from "../TimeTravel.ts"
import { pace } from "./turns.ts"

/** What looking back needs of a store: nothing that writes. */
export type Reads = Pick<EventStore["Service"], "read" | "readStream" | "byId" | "head" | "streams">

/** Which facts are walked along. */
export interface Walk {
  /** Only this stream. */
  readonly streamId?: string | undefined
  /** The first position; with a stream, its first version. */
  readonly from: number
  /** The last position. */
  readonly to: number
}

/** The facts of a walk, at most `limit` at a time; an empty page is the end. */
export const pagesOf = (store: Reads, { from, streamId, to }: Walk) => {
  let next = from
  let over = false
  return (limit: number): Effect.Effect<ReadonlyArray<StoredFact>, KsiError.KsiError> =>
    Effect.suspend(() => {
      if (over || (streamId === undefined && next > to)) return Effect.succeed([])
      const read = streamId === undefined
        ? store.read({ from: next, to, limit })
        : store.readStream({ streamId, from: next, limit })
      return Effect.map(read, (page) => {
        const last = page.at(-1)
        over = last === undefined || last.position >= to
        if (last !== undefined) next = (streamId === undefined ? last.position : last.version) + 1
        return last === undefined || last.position <= to ? page : page.filter(({ position }) => position <= to)
      })
    })
}

/** Walks along, page by page; other fibers run between pages, and where a page takes long. `visit` answers with an error, or with `true` to stop. */
export const walk = Effect.fnUntraced(function*(
  store: Reads,
  walk: Walk,
  pageItems: number,
  visit: (fact: StoredFact) => KsiError.KsiError | boolean
): Effect.fn.Return<void, KsiError.KsiError> {
  const next = pagesOf(store, walk)
  const { isLong, rest } = yield* pace
  for (let page = yield* next(pageItems); page.length > 0; page = yield* next(pageItems)) {
    for (const fact of page) {
      const answer = visit(fact)
      if (answer === true) return
      if (answer !== false) return yield* Effect.fail(answer)
      if (isLong()) yield* rest
    }
    yield* rest
  }
})

/** Whether a fact within the positions counts at a moment. */
export const countsAt = ({ instant, recorded }: When) => (fact: StoredFact): boolean =>
  instant === undefined || (recorded === true ? fact.recordedAt : fact.timestamp) <= instant

/** The last position that counts, as far as the store goes. */
export const lastOf = (store: Reads, { position }: When): number =>
  position === undefined ? store.head() : Math.min(store.head(), Math.floor(Number(position)) || 0)

/** The first position that counts: what is no number is no bound. */
export const firstOf = (from: number | bigint | undefined): number => Math.max(1, Math.ceil(Number(from ?? 1)) || 1)

/** When a fact happened, in its own words. */
export const timeOf = (fact: StoredFact): string => fact.time ?? Envelope.timeText(fact.timestamp)
