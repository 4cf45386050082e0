/**
 * State as it was: of one stream or of all, at a position or at an instant. What changed between two moments, the first
 * fact after which something holds, which fact gave a field its value, what would have been with other facts or other
 * code, and where two projections part.
 *
 * The rule: the first page fixes the position, so that all pages tell of one moment even while the store goes on. Facts
 * up to that position are folded, and of those, when an instant is asked for, the ones that had happened by then.
 *
 * **Example**
 *
 * ```ts
 * const ksi = yield* KsiService
 * yield* ksi.emit(Reserved, { sku: "tea", quantity: 1 })
 * const { items } = yield* ksi.call(Time.At, { at: 1 })
 * items.length                                // 1
 * ```
 *
 * **Gotchas** The projection `latest` needs no code: it merges the data of a stream's facts. Others are offered under
 * their names by `Projection.serve`, while their layers live. What was folded for one page is kept for the next ones,
 * for the last two questions, for a minute and up to the limit `keptAnswerBytes`; a page that comes later folds again, and
 * answers the same. `time:find` and
 * `time:compare` look at 20,000 facts in one call; a page without an item, but with a cursor, is not the end.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Router from "../bus/Router.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import { EventStore } from "../store/EventStore.ts"
import { firstWhere } from "../store/internal/bisect.ts"
import { mapped } from "../store/internal/turns.ts"
import * as Projection from "../store/Projection.ts"
import * as TimeTravel from "../store/TimeTravel.ts"
import { optional, Ordinal, pageOf, paging, State, Timestamp } from "./internal/fields.ts"
import * as KeptAnswers from "./internal/keptAnswers.ts"
import * as Paging from "./internal/paging.ts"
import { Blame, Branch, Compare, Diff, Find, Moment } from "./internal/timeEvents.ts"
import * as TimeHandlers from "./internal/timeHandlers.ts"

export { Blame, Branch, Compare, Diff, Find } from "./internal/timeEvents.ts"

/** The state of every stream, or of one, at a moment. */
export const At = Event.make("time:at", {
  payload: {
    at: Moment.annotate({ description: "a position, an instant in RFC 3339, a date, which is its midnight in UTC, `now` or `start`" }),
    stream: optional(Schema.String, "only this stream"),
    projection: optional(Schema.String, "how facts become state; `latest` (the default) merges their data"),
    recorded: optional(Schema.Boolean, "go by the time a fact was stored, not by the time it happened"),
    all: optional(Schema.Boolean, "also KSI's own streams (`ksi-…`)"),
    ...paging
  },
  success: pageOf(Schema.Struct({
    streamId: Schema.String, version: Ordinal, lastEvent: Schema.String, lastEventId: Schema.String, timestamp: Timestamp, state: State
  })),
  idempotent: true,
  annotations: {
    description: "The state of streams at a moment, ordered by stream id: " +
      "`{ streamId, version, lastEvent, lastEventId, timestamp, state }`.",
    examples: [{ at: 100 }, { at: "2026-01-31T12:00:00Z", stream: "order-1" }]
  }
})

/** The events of `time:*`. */
export const Group = EventGroup.make(At, Diff, Find, Blame, Branch, Compare)

// ----------------------------------------------------------------------------------------------------------- folding

/** A moment to ask for: a position, and an instant where only what had happened by then counts. */
interface When {
  readonly position: bigint
  readonly instant?: number | undefined
  readonly recorded?: boolean | undefined
  readonly all?: boolean | undefined
  readonly streamId?: string | undefined
}

type Moments = ReadonlyArray<TimeTravel.Moment<unknown>>

/** The states at a moment, as JSON, ordered by stream id. */
const momentsAt = ({ streamId, ...when }: When) =>
  <S>(projection: Projection.Projection<S>): Effect.Effect<Moments, KsiError.KsiError, EventStore> => {
    const encoded = (moment: TimeTravel.Moment<S>): TimeTravel.Moment<unknown> => ({
      ...moment,
      state: projection.encode(moment.state)
    })
    return streamId === undefined
      ? Effect.flatMap(TimeTravel.at(projection, when), (moments) => mapped(moments, encoded))
      : Effect.map(TimeTravel.at(projection, { ...when, streamId }), (moment) => [encoded(moment)])
  }

// ---------------------------------------------------------------------------------------------------------- handlers

/** Index of the first stream after `next`; the moments are ordered by stream id. */
const indexAfter = (moments: Moments, next: string): number =>
  firstWhere(0, moments.length, (index) => (moments[index]?.streamId ?? "") > next)

const whenOf = (payload: Event.Payload<typeof At>, position: number): Effect.Effect<When, KsiError.KsiError> => {
  const parsed = TimeTravel.parseMoment(String(payload.at))
  if (Result.isFailure(parsed)) return KsiError.fail(KsiError.invalidAt(At.name, "at", parsed.failure))
  const { all, recorded, stream } = payload
  const rest = { all, recorded, streamId: stream }
  if ("instant" in parsed.success) {
    return Effect.succeed({ ...rest, position: BigInt(position), instant: parsed.success.instant })
  }
  const asked = parsed.success.position
  return Effect.succeed({ ...rest, position: asked < position ? asked : BigInt(position) })
}

const handlers = Group.toLayer(Effect.gen(function*() {
  const store = yield* EventStore
  const { pageBytes, pageItems } = yield* Limits
  const projections = yield* Projection.Projections
  const kept = yield* KeptAnswers.make<Moments>()

  const fold = (projection: Projection.Served, payload: Event.Payload<typeof At>, position: number) =>
    Effect.flatMap(whenOf(payload, position), (when) =>
      Effect.provideService(projection.use(momentsAt(when)), EventStore, store))

  return {
    ...(yield* TimeHandlers.make),
    *"time:at"(payload: Event.Payload<typeof At>) {
      const { cursor, next, position, query } = yield* Paging.open(At, payload, store.head())
      const { limit = pageItems } = payload
      // The same for every page of one walk: they share the query, and the position they answer for.
      const key = cursor("")
      const projection = yield* projections.get(query.projection ?? Projection.latest.name)
      const epoch = kept.epoch()
      const moments = kept.get(key, projection) ?? (yield* fold(projection, query, position))
      const fits = Paging.makeBudget(pageBytes)
      const items: Array<unknown> = []
      for (let index = typeof next === "string" ? indexAfter(moments, next) : 0; index < moments.length; index++) {
        const moment = moments[index]
        if (items.length >= limit || !fits(moment)) {
          yield* kept.keep(key, projection, epoch, moments, moments)
          return Paging.page(items, cursor(moments[index - 1]?.streamId ?? ""))
        }
        items.push(moment)
      }
      kept.forget(key)
      return Paging.page(items, undefined)
    }
  }
}))

/** Serves `time:*`. */
export const layer: Layer.Layer<never, KsiError.KsiError, Router.Router | EventStore | Projection.Projections> = Router
  .serveBuiltin(Group).pipe(Layer.provide(handlers))
