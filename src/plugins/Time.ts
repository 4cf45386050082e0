/**
 * State as it was: of one stream or of all, at a position or at an instant.
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
 * their names by providing `Projections` where the plugin is built. What was folded for one page is kept for the next
 * ones, for the last two questions only; a page that comes later folds again, and answers the same.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Router from "../bus/Router.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import * as EventName from "../event/EventName.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import { EventStore } from "../store/EventStore.ts"
import * as Projection from "../store/Projection.ts"
import * as TimeTravel from "../store/TimeTravel.ts"
import { optional, Page, paging } from "./internal/fields.ts"
import * as Paging from "./internal/paging.ts"

/** The state of every stream, or of one, at a moment. */
export const At = Event.make("time:at", {
  payload: {
    at: Schema.Union([Schema.String, Schema.Int]).annotate({
      description: "a position, an instant in RFC 3339, or a date, which is its midnight in UTC"
    }),
    stream: optional(Schema.String, "only this stream"),
    projection: optional(Schema.String, "how facts become state; `latest` (the default) merges their data"),
    recorded: optional(Schema.Boolean, "go by the time a fact was stored, not by the time it happened"),
    all: optional(Schema.Boolean, "also KSI's own streams (`ksi-…`)"),
    ...paging
  },
  success: Page,
  idempotent: true,
  annotations: {
    description: "The state of streams at a moment, ordered by stream id: " +
      "`{ streamId, version, lastEvent, lastEventId, timestamp, state }`.",
    examples: [{ at: 100 }, { at: "2026-01-31T12:00:00Z", stream: "order-1" }]
  }
})

/** The events of `time:*`. */
export const Group = EventGroup.make(At)

// ------------------------------------------------------------------------------------------------------- projections

/** A moment to ask for: a position, and an instant where only what had happened by then counts. */
export interface When {
  readonly position: bigint
  readonly instant?: number | undefined
  readonly recorded?: boolean | undefined
  readonly all?: boolean | undefined
  readonly streamId?: string | undefined
}

type Moments = ReadonlyArray<TimeTravel.Moment<unknown>>

/** A projection that can be asked by its name, whatever its state is. */
export interface Timeline {
  readonly name: string
  /** The states at a moment, as JSON, ordered by stream id. */
  readonly at: (when: When) => Effect.Effect<Moments, KsiError.KsiError, EventStore>
}

/** Offers a projection to `time:at`. */
export const timeline = <S>(projection: Projection.Projection<S>): Timeline => {
  const encoded = (moment: TimeTravel.Moment<S>): TimeTravel.Moment<unknown> => ({
    ...moment,
    state: projection.encode(moment.state)
  })
  return {
    name: projection.name,
    at: ({ streamId, ...when }) =>
      streamId === undefined
        ? Effect.map(TimeTravel.at(projection, when), (moments) => moments.map(encoded))
        : Effect.map(TimeTravel.at(projection, { ...when, streamId }), (moment) => [encoded(moment)])
  }
}

/** The projections that `time:at` knows besides `latest`. */
export const Projections: Context.Reference<ReadonlyArray<Timeline>> = Context.Reference<ReadonlyArray<Timeline>>(
  "ksi/plugins/Time/Projections",
  { defaultValue: () => [] }
)

// ---------------------------------------------------------------------------------------------------------- handlers

const kept = 2
const keptItems = 1_000_000

/** What was folded last, so that the next page need not fold again. */
const makeCache = () => {
  const answers = new Map<string, Moments>()
  return {
    get: (key: string): Moments | undefined => answers.get(key),
    /** Keeps the answer as the newest; the oldest goes. */
    set: (key: string, moments: Moments): void => {
      answers.delete(key)
      if (moments.length <= keptItems) answers.set(key, moments)
      for (const oldest of answers.keys()) {
        if (answers.size <= kept) break
        answers.delete(oldest)
      }
    },
    forget: (key: string): void => void answers.delete(key)
  }
}

/** Index of the first stream after `next`; the moments are ordered by stream id. */
const indexAfter = (moments: Moments, next: string): number => {
  let low = 0
  let high = moments.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((moments[middle]?.streamId ?? "") <= next) low = middle + 1
    else high = middle
  }
  return low
}

const whenOf = (payload: Event.Payload<typeof At>, position: number): Effect.Effect<When, KsiError.KsiError> => {
  const parsed = TimeTravel.parseMoment(String(payload.at))
  if (Result.isFailure(parsed)) return Paging.invalid(At.name, "at", parsed.failure)
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
  const timelines = new Map([timeline(Projection.latest), ...yield* Projections].map((known) => [known.name, known]))
  const cache = makeCache()

  const fold = Effect.fnUntraced(function*(payload: Event.Payload<typeof At>, position: number) {
    const when = yield* whenOf(payload, position)
    const { projection: name = Projection.latest.name } = payload
    const known = timelines.get(name)
    if (known === undefined) {
      const similar = EventName.nearest(name, timelines.keys())
      return yield* KsiError.fail(new KsiError.NotFound({ what: "projection", id: name, similar }))
    }
    return yield* Effect.provideService(known.at(when), EventStore, store)
  })

  return {
    *"time:at"(payload: Event.Payload<typeof At>) {
      const { cursor, next, position, query } = yield* Paging.open(At, payload, store.head())
      const { limit = pageItems } = payload
      // The same for every page of one walk: they share the query, and the position they answer for.
      const key = cursor("")
      const moments = cache.get(key) ?? (yield* fold(query, position))
      const fits = Paging.makeBudget(pageBytes)
      const items: Array<unknown> = []
      for (let index = typeof next === "string" ? indexAfter(moments, next) : 0; index < moments.length; index++) {
        const moment = moments[index]
        if (items.length >= limit || !fits(moment)) {
          cache.set(key, moments)
          return Paging.page(items, cursor(moments[index - 1]?.streamId ?? ""))
        }
        items.push(moment)
      }
      cache.forget(key)
      return Paging.page(items, undefined)
    }
  }
}))

/** Serves `time:*`. */
export const layer: Layer.Layer<never, KsiError.KsiError, Router.Router | EventStore> = Router.serveBuiltin(Group).pipe(
  Layer.provide(handlers)
)
