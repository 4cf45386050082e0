/**
 * The first fact after which something holds: of one stream, or of all, each stream by its own state.
 *
 * The rule: what is found is what reading fact by fact finds. A caller who promises `monotone` (once it holds, it goes
 * on holding) gets the same in log2 n looks at the past instead; a promise that is seen broken at the ends is an error.
 *
 * **Example**
 *
 * ```ts
 * const store = yield* EventStore.EventStore
 * yield* store.appendTo("jar-1", [{ name: "jar:filled", data: { coins: 5 } }, { name: "jar:filled", data: { coins: 12 } }])
 * const found = yield* Search.find(Projection.latest, (state) => Number(state["coins"]) > 10, { streamId: "jar-1" })
 * Option.map(found, ({ after, before, fact }) => [fact.version, before, after])
 * // Option.some([2, { coins: 5 }, { coins: 12 }])
 * ```
 *
 * **Gotchas** Without a stream, `monotone` promises it of every stream, and the states of all streams are looked at
 * log2 n times. Facts that arrive while it searches are not looked at. KSI's own streams are left out unless named. In a
 * store of streams of several kinds `prefix` and `pattern` say which are meant: a predicate need not know the others.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { StoredFact } from "../event/CloudEvent.ts"
import * as EventPattern from "../event/EventPattern.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import * as Difference from "./Difference.ts"
import { EventStore, ownStream, streamNotFound } from "./EventStore.ts"
import * as FactWalk from "./internal/factWalk.ts"
import { pace } from "./internal/turns.ts"
import { formatOf, type Projection, step } from "./Projection.ts"
import * as Snapshots from "./Snapshots.ts"
import * as TimeTravel from "./TimeTravel.ts"

/** The fact after which it holds, and its stream's state before and after. */
export interface Found<out S> {
  readonly fact: StoredFact
  readonly before: S
  readonly after: S
}

/** Where to look. */
export interface Where {
  /** Only this stream. */
  readonly streamId?: string | undefined
  /** Only streams whose id starts like this. */
  readonly prefix?: string | undefined
  /** Only facts of events of this pattern may be found; the states are those of all facts. */
  readonly pattern?: string | undefined
  /** The first position that may be found; the state before it is known all the same. */
  readonly from?: number | bigint | undefined
  /** The last position that may be found; default the end of the store. */
  readonly to?: number | bigint | undefined
}

/** Whether it holds for a state, right after a fact; the error ends the search. */
export type Judge<in S> = (state: S, fact: StoredFact) => Result.Result<boolean, KsiError.KsiError>

/** Whether a stream is looked at. KSI's own are where somebody asks for them. */
const asked = ({ prefix = "", streamId }: Where): (id: string) => boolean =>
  streamId === undefined && !ownStream(prefix)
    ? (id) => id.startsWith(prefix) && !ownStream(id)
    : (id) => id.startsWith(prefix)

/** Whether facts of this name may be found. */
const named = (pattern: string | undefined): Effect.Effect<(name: string) => boolean, KsiError.KsiError> =>
  pattern === undefined
    ? Effect.succeed(() => true)
    : Effect.map(EventPattern.fromText(pattern), ({ matches }) => matches)

// ------------------------------------------------------------------------------------------------------ fact by fact

/** A search that goes on where it stopped: how far it is, and what it found. */
export interface Search<out S> {
  /** The position up to which nothing was found. */
  readonly position: () => number
  readonly isOver: () => boolean
  /** Looks at so many more facts, or at fewer where it finds one or comes to the end. */
  readonly advance: (facts: number) => Effect.Effect<Option.Option<Found<S>>, KsiError.KsiError>
}

interface Start<S> {
  readonly states: Map<string, S>
  /** Where to read on: a position; with a stream, a version. */
  readonly next: number
}

/** What is known right before a position. */
const startAt = Effect.fnUntraced(function*<S>(
  projection: Projection<S>,
  position: number,
  { prefix = "", streamId }: Where
): Effect.fn.Return<Start<S>, KsiError.KsiError, EventStore> {
  const before = { position: BigInt(position - 1) }
  if (position <= 1) return { states: new Map(), next: 1 }
  if (streamId === undefined) {
    const moments = yield* TimeTravel.at(projection, { ...before, all: ownStream(prefix) })
    return { states: new Map(moments.map((moment) => [moment.streamId, moment.state])), next: position }
  }
  const moment = yield* Difference.momentOr(projection, { ...before, streamId })
  return moment === undefined
    ? { states: new Map(), next: 1 }
    : { states: new Map([[streamId, moment.state]]), next: moment.version + 1 }
})

const mustExist = Effect.fnUntraced(function*(store: EventStore["Service"], streamId: string) {
  const [newest] = yield* store.readStream({ streamId, from: 1, limit: 1, backward: true })
  if (newest === undefined) yield* streamNotFound(store, streamId)
})

/** Opens a search that reads fact by fact. Fails with `NotFound` where the stream does not exist. */
export const open = Effect.fnUntraced(function*<S>(
  projection: Projection<S>,
  judge: Judge<S>,
  where: Where
): Effect.fn.Return<Search<S>, KsiError.KsiError, EventStore> {
  const { from = 1n, streamId, to } = where
  const store = yield* EventStore
  const { pageItems } = yield* Limits.Limits
  const isAsked = asked(where)
  const mayBeFound = yield* named(where.pattern)
  if (streamId !== undefined) yield* mustExist(store, streamId)
  const first = FactWalk.firstOf(from)
  const last = FactWalk.lastOf(store, { position: to })
  const { next, states } = yield* startAt(projection, first, where)
  const read = FactWalk.pagesOf(store, { streamId, from: next, to: last })
  let position = first - 1
  let over = false

  const look = (fact: StoredFact): KsiError.KsiError | Found<S> | undefined => {
    if (fact.position < first || !isAsked(fact.streamId)) return undefined
    const before = states.has(fact.streamId) ? states.get(fact.streamId) as S : projection.initial // it has one
    const applied = step(projection, before, fact)
    if (Result.isFailure(applied)) return applied.failure
    const after = applied.success
    states.set(fact.streamId, after)
    if (!mayBeFound(fact.name)) return undefined
    const holds = judge(after, fact)
    if (Result.isFailure(holds)) return holds.failure
    return holds.success ? { fact, before, after } : undefined
  }

  return {
    position: () => position,
    isOver: () => over,
    advance: Effect.fnUntraced(function*(facts) {
      const { isLong, rest } = yield* pace
      for (let left = facts; left > 0 && !over;) {
        const page = yield* read(Math.min(left, pageItems))
        if (page.length === 0) over = true
        for (const fact of page) {
          const found = look(fact)
          if (KsiError.is(found)) return yield* Effect.fail(found)
          position = fact.position
          if (found !== undefined) {
            over = true
            return Option.some(found)
          }
          // States may be large, and conditions long.
          if (isLong()) yield* rest
        }
        left -= page.length
        yield* rest
      }
      return Option.none()
    })
  }
})

// --------------------------------------------------------------------------------------------------------- bisecting

// Fewer facts than this are read one by one: that takes no longer than a look at the past.
const nearVersions = 64
const nearPositions = 1000

/**
 * A number for which it does not hold, at most `near` below one for which it does; so it is for `low` and `high`. `kept` knows
 * numbers between two others that are looked at for less, and those are looked at first.
 */
const bisect = Effect.fnUntraced(function*<E, R>(
  low: number,
  high: number,
  near: number,
  holds: (n: number) => Effect.Effect<boolean, E, R>,
  kept: (low: number, high: number) => Effect.Effect<number | undefined> = () => Effect.undefined
): Effect.fn.Return<number, E, R> {
  let below = low
  let at = high
  while (true) {
    const cheap = yield* kept(below, at)
    if (cheap === undefined && at - below <= near) return below
    const middle = cheap ?? Math.floor((below + at) / 2)
    if (yield* holds(middle)) at = middle
    else below = middle
  }
})

/** The position of a snapshot of all streams between two others, near their middle: no fact must be read for a look at it. */
const snapshotBetween = <S>(store: EventStore["Service"], projection: Projection<S>) => {
  const format = formatOf(projection)
  if (format === undefined) return undefined
  const { snapshots } = store.driver
  const chain = { projection: projection.name, fingerprint: format.fingerprint, subject: Snapshots.ofAll }
  return (low: number, high: number): Effect.Effect<number | undefined> =>
    Effect.gen(function*() {
      const middle = Math.floor((low + high) / 2)
      const before = yield* snapshots.before(chain, middle, Infinity)
      if (before !== undefined && before.position > low) return before.position
      const after = yield* snapshots.after(chain, middle)
      return after !== undefined && after.position < high ? after.position : undefined
      // Without them it takes longer, and finds the same.
    }).pipe(Effect.orElseSucceed(() => undefined))
}

const broken = (from: number, to: number): KsiError.Reason =>
  KsiError.invalidAt("time:find", "monotone", `it holds before position ${from} and no longer at position ${to}: it is not monotone`)

type Holds<S> = (state: S) => Result.Result<boolean, KsiError.KsiError>

/** Whether it holds before any fact. It may be about what only facts bring: what cannot be said of no fact does not hold. */
const holdsInitially = <S>(projection: Projection<S>, holds: Holds<S>): boolean =>
  Result.getOrElse(holds(projection.initial), () => false)

/** The stream's moment at a position, and whether it holds there. */
const lookAt = Effect.fnUntraced(function*<S>(
  projection: Projection<S>,
  holds: Holds<S>,
  position: number,
  streamId: string
): Effect.fn.Return<{ readonly moment: TimeTravel.Moment<S> | undefined; readonly holds: boolean }, KsiError.KsiError, EventStore> {
  const moment = position < 1 ? undefined : yield* Difference.momentOr(projection, { position: BigInt(position), streamId })
  return { moment, holds: moment === undefined ? holdsInitially(projection, holds) : yield* Effect.fromResult(holds(moment.state)) }
})

/** Where to read on from to find it soon; `undefined` where there is nothing to find. */
const bisectStream = Effect.fnUntraced(function*<S>(
  projection: Projection<S>,
  holds: Holds<S>,
  range: { readonly from: number; readonly to: number; readonly streamId: string }
): Effect.fn.Return<number | undefined, KsiError.KsiError, EventStore> {
  const { from, streamId, to } = range
  const store = yield* EventStore
  const start = yield* lookAt(projection, holds, from - 1, streamId)
  const end = yield* lookAt(projection, holds, to, streamId)
  if (start.holds && !end.holds) return yield* KsiError.fail(broken(from, to))
  if (start.holds) return from
  if (!end.holds || end.moment === undefined) return undefined
  const below = yield* bisect(start.moment?.version ?? 0, end.moment.version, nearVersions, Effect.fnUntraced(function*(version) {
    const [fact] = yield* store.readStream({ streamId, from: version, limit: 1 })
    if (fact === undefined) return true
    return (yield* lookAt(projection, holds, fact.position, streamId)).holds
  }))
  const [fact] = yield* store.readStream({ streamId, from: below + 1, limit: 1 })
  return fact?.position ?? to
})

const bisectAll = Effect.fnUntraced(function*<S>(
  projection: Projection<S>,
  holds: Holds<S>,
  { from, to, where }: { readonly from: number; readonly to: number; readonly where: Where }
): Effect.fn.Return<number | undefined, KsiError.KsiError, EventStore> {
  const store = yield* EventStore
  const isAsked = asked(where)
  const all = ownStream(where.prefix ?? "")
  // Of a stream without a fact that the projection handles, `at` does not tell.
  if (holdsInitially(projection, holds)) return from
  const some = Effect.fnUntraced(function*(position: number) {
    if (position < 1) return false
    for (const { state, streamId } of yield* TimeTravel.at(projection, { position: BigInt(position), all })) {
      if (isAsked(streamId) && (yield* Effect.fromResult(holds(state)))) return true
    }
    return false
  })
  const atStart = yield* some(from - 1)
  const atEnd = yield* some(to)
  if (atStart && !atEnd) return yield* KsiError.fail(broken(from, to))
  if (atStart) return from
  return atEnd ? 1 + (yield* bisect(from - 1, to, nearPositions, some, snapshotBetween(store, projection))) : undefined
})

/**
 * Finds by bisecting, for what is monotone and asks for nothing but the state. Fails with `PayloadInvalid` at `monotone`
 * where it holds at the beginning and no longer at the end.
 */
export const findMonotone = Effect.fnUntraced(function*<S>(
  projection: Projection<S>,
  holds: Holds<S>,
  where: Where
): Effect.fn.Return<Option.Option<Found<S>>, KsiError.KsiError, EventStore> {
  const store = yield* EventStore
  const { streamId } = where
  const from = FactWalk.firstOf(where.from)
  const to = FactWalk.lastOf(store, { position: where.to })
  if (from > to) return Option.none()
  if (streamId !== undefined) yield* mustExist(store, streamId)
  const position = streamId === undefined
    ? yield* bisectAll(projection, holds, { from, to, where })
    : yield* bisectStream(projection, holds, { from, to, streamId })
  if (position === undefined) return Option.none()
  // From here on it is found soon, unless it held before: then the next fact of a stream for which it does is looked for.
  return yield* findFrom(projection, holds, { ...where, from: BigInt(position), to: BigInt(to) })
})

const findFrom = Effect.fnUntraced(function*<S>(
  projection: Projection<S>,
  judge: Judge<S>,
  where: Where
): Effect.fn.Return<Option.Option<Found<S>>, KsiError.KsiError, EventStore> {
  const search = yield* open(projection, judge, where)
  return yield* search.advance(Number.MAX_SAFE_INTEGER)
})

/**
 * The first fact after which `predicate` holds for the state of its stream; none where there is no such fact. Fails with
 * `NotFound` where the stream does not exist, and as `TimeTravel.at` does. A predicate that throws is a defect.
 */
export function find<S>(
  projection: Projection<S>,
  predicate: (state: S, fact: StoredFact) => boolean,
  where?: Where & { readonly monotone?: false | undefined }
): Effect.Effect<Option.Option<Found<S>>, KsiError.KsiError, EventStore>
/**
 * The same for a predicate that goes on holding once it holds: found in log2 n looks at the past. It sees the state only.
 * Fails with `PayloadInvalid` at `monotone` where it holds at the beginning and no longer at the end.
 */
export function find<S>(
  projection: Projection<S>,
  predicate: (state: S) => boolean,
  where: Where & { readonly monotone: boolean | undefined }
): Effect.Effect<Option.Option<Found<S>>, KsiError.KsiError, EventStore>
export function find<S>(
  projection: Projection<S>,
  predicate: ((state: S, fact: StoredFact) => boolean) | ((state: S) => boolean),
  { monotone, ...where }: Where & { readonly monotone?: boolean | undefined } = {}
): Effect.Effect<Option.Option<Found<S>>, KsiError.KsiError, EventStore> {
  return monotone === true
    // The overload says that it takes the state only.
    ? findMonotone(projection, (state) => Result.succeed((predicate as (state: S) => boolean)(state)), where)
    : findFrom(projection, (state, fact) => Result.succeed(predicate(state, fact)), where)
}
