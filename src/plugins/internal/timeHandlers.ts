// The handlers of `time:*` beyond `time:at`. What takes long is done in pieces: a search looks at so many facts in one
// call and answers with a cursor to go on; what it knows by then is kept for the next call, and found again without it.
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import type { StoredFact } from "../../event/CloudEvent.ts"
import type * as Event from "../../event/Event.ts"
import * as Json from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import { Limits } from "../../event/Limits.ts"
import * as Blame from "../../store/Blame.ts"
import * as Branch from "../../store/Branch.ts"
import * as Cel from "../../store/Cel.ts"
import * as Comparison from "../../store/Comparison.ts"
import * as Difference from "../../store/Difference.ts"
import { EventStore } from "../../store/EventStore.ts"
import * as FactWalk from "../../store/internal/factWalk.ts"
import { mapped } from "../../store/internal/turns.ts"
import * as Projection from "../../store/Projection.ts"
import * as Search from "../../store/Search.ts"
import * as TimeTravel from "../../store/TimeTravel.ts"
import type { Page } from "./fields.ts"
import * as KeptAnswers from "./keptAnswers.ts"
import * as Paging from "./paging.ts"
import * as Events from "./timeEvents.ts"

/** Facts that one call of a search looks at. */
export const searchFacts = 20_000

type Answer = Effect.Effect<typeof Page.Type, KsiError.KsiError>
type Failing<A> = Effect.Effect<A, KsiError.KsiError, EventStore>

/** Where a fact is, as it is answered. */
const placeOf = (fact: StoredFact) => ({
  streamId: fact.streamId,
  position: fact.position,
  id: fact.id,
  event: fact.name,
  version: fact.version,
  timestamp: FactWalk.timeOf(fact)
})

/** The newest few things, by name. */
const makeKept = <A>(max: number) => {
  const things = new Map<string, A>()
  return {
    /** Takes it out. */
    take: (key: string): A | undefined => {
      const thing = things.get(key)
      things.delete(key)
      return thing
    },
    put: (key: string, thing: A): void => {
      things.set(key, thing)
      for (const oldest of things.keys()) {
        if (things.size <= max) break
        things.delete(oldest)
      }
    }
  }
}

/** The moment that a payload asks for; no later than the position that all pages answer for. */
const whenOf = (
  event: { readonly name: string },
  field: string,
  asked: string | number | undefined,
  position: number,
  recorded: boolean | undefined
): Effect.Effect<TimeTravel.When, KsiError.KsiError> => {
  if (asked === undefined) return Effect.succeed({ position: BigInt(position) })
  const parsed = TimeTravel.parseMoment(String(asked))
  if (Result.isFailure(parsed)) return KsiError.fail(KsiError.invalidAt(event.name, field, parsed.failure))
  return Effect.succeed("instant" in parsed.success
    ? { position: BigInt(position), instant: parsed.success.instant, recorded }
    : { position: parsed.success.position < position ? parsed.success.position : BigInt(position) })
}

// ---------------------------------------------------------------------------------------------------- answers in pages

/** An answer of many items, each with a name of its own. */
interface Listed {
  /** What must be the same for a list that was kept to be the answer. */
  readonly by: unknown
  readonly items: Failing<ReadonlyArray<unknown>>
  readonly nameOf: (item: unknown) => string
  /** Whether the items are in the order of their names. */
  readonly isSorted: boolean
}

const named = (field: "streamId" | "field") => (item: unknown): string => String(Json.isObject(item) ? item[field] : undefined)
const byStream = { nameOf: named("streamId"), isSorted: true }
const byField = { nameOf: named("field"), isSorted: false }

/** Where the page after the item of a name begins; `undefined` where that cannot be said: facts were removed, and it went with them. */
const indexAfter = ({ isSorted, nameOf }: Listed, all: ReadonlyArray<unknown>, name: string): number | undefined => {
  const at = all.findIndex((item) => nameOf(item) === name)
  if (at >= 0) return at + 1
  if (!isSorted) return undefined
  const next = all.findIndex((item) => nameOf(item) > name)
  return next < 0 ? all.length : next
}

/** Lists that are worked out whole and answered page by page. */
const makeAnswers = Effect.gen(function*() {
  const store = yield* EventStore
  const { pageBytes, pageItems } = yield* Limits
  const kept = yield* KeptAnswers.make<ReadonlyArray<unknown>>()
  return Effect.fnUntraced(function*<P extends { readonly cursor?: string; readonly limit?: number }>(
    event: { readonly name: string; readonly payload: Schema.Codec<P, unknown> },
    payload: P,
    prepare: (query: P, position: number) => Effect.Effect<Listed, KsiError.KsiError>
  ): Effect.fn.Return<typeof Page.Type, KsiError.KsiError> {
    const { cursor, next, position, query } = yield* Paging.open(event, payload, store.head())
    const { limit = pageItems } = payload
    const key = cursor("")
    const listed = yield* prepare(query, position)
    const { by, items: work, nameOf } = listed
    // Once facts were removed, nobody is told any more what they said.
    const epoch = kept.epoch()
    const all = kept.get(key, by) ?? (yield* Effect.provideService(work, EventStore, store))
    const start = next === undefined ? 0 : indexAfter(listed, all, String(next))
    if (start === undefined) {
      return yield* KsiError.fail(KsiError.invalidAt(event.name, "cursor", "the history is another one now: facts were removed; leave it out to start again"))
    }
    const fits = Paging.makeBudget(pageBytes)
    const items: Array<unknown> = []
    for (const item of all.slice(start)) {
      if (items.length >= limit || !fits(item)) {
        yield* kept.keep(key, by, epoch, all, all)
        return Paging.page(items, cursor(nameOf(items.at(-1))))
      }
      items.push(item)
    }
    kept.forget(key)
    return Paging.page(items, undefined)
  })
})

const sideOf = (moment: TimeTravel.Moment<unknown> | undefined) =>
  moment === undefined ? null : { version: moment.version, lastEvent: moment.lastEvent, timestamp: moment.timestamp }

const diffItem = ({ changes, from, patch, streamId, to }: Difference.Diff<unknown>) =>
  ({ streamId, from: sideOf(from), to: sideOf(to), patch, words: Difference.words(changes) })

const blameItem = ({ fact, field, value }: Blame.Blamed) => ({
  field, position: fact?.position ?? null, id: fact?.id ?? null, event: fact?.name ?? null,
  timestamp: fact === undefined ? null : FactWalk.timeOf(fact), value
})

const editOf = (edit: typeof Events.Edit.Type): Branch.Edit => {
  const target = (asked: string | number): Branch.Target => typeof asked === "number" ? BigInt(asked) : asked
  if ("drop" in edit) return Branch.drop(target(edit.drop))
  if ("replace" in edit) return Branch.replace(target(edit.replace), edit)
  const { stream: streamId, ...fact } = edit.insert
  return Branch.insert({ ...fact, streamId }, BigInt(edit.after))
}

const lineItem = <S, T>(real: Projection.Projection<S>, code: Projection.Projection<T>) => (line: Branch.Line<S, T>) => ({
  streamId: line.streamId,
  real: { version: line.versions.real, state: real.encode(line.real) },
  branch: { version: line.versions.branch, state: code.encode(line.branch) },
  patch: line.patch,
  words: Difference.words(line.changes),
  divergence: line.divergence === undefined ? null : {
    ...placeOf(line.divergence.fact),
    real: { state: real.encode(line.divergence.real) }, branch: { state: code.encode(line.divergence.branch) }
  },
  misfits: line.misfits.map(({ fact, problem }) => ({ ...placeOf(fact), problem }))
})

const maxEdits = 1000

const branchItems = (
  { real, code }: { readonly real: Projection.Served; readonly code: Projection.Served | undefined },
  options: Branch.Options
): Failing<ReadonlyArray<unknown>> =>
  real.use((projection) => code === undefined
    ? Effect.flatMap(Branch.branch(projection, options), ({ lines }) => mapped(lines, lineItem(projection, projection)))
    : code.use((other) =>
      Effect.flatMap(Branch.branch(projection, { ...options, projection: other }), ({ lines }) => mapped(lines, lineItem(projection, other)))))

const makeListed = Effect.gen(function*() {
  const projections = yield* Projection.Projections
  const answer = yield* makeAnswers
  const projectionOf = (name: string | undefined) => projections.get(name ?? Projection.latest.name)
  return {
    "time:diff": (payload: Event.Payload<typeof Events.Diff>): Answer =>
      answer(Events.Diff, payload, Effect.fnUntraced(function*({ all, from, projection, recorded, stream, to }, position) {
        const by = yield* projectionOf(projection)
        const a = yield* whenOf(Events.Diff, "from", from, position, recorded)
        const b = yield* whenOf(Events.Diff, "to", to, position, recorded)
        const items: Failing<ReadonlyArray<unknown>> = by.use((projection) => stream === undefined
          ? Effect.flatMap(Difference.diff(projection, a, b, { all }), (diffs) => mapped(diffs, diffItem))
          : Effect.map(Difference.diff(projection, a, b, { streamId: stream }), (diff) => [diffItem(diff)]))
        return { by, items, ...byStream }
      })),
    "time:blame": (payload: Event.Payload<typeof Events.Blame>): Answer =>
      answer(Events.Blame, payload, Effect.fnUntraced(function*({ at, field, projection, recorded, stream: streamId }, position) {
        const by = yield* projectionOf(projection)
        const when = yield* whenOf(Events.Blame, "at", at, position, recorded)
        const items = by.use((projection) => Blame.blame(projection, { ...when, streamId, field }))
        return { by, items: Effect.flatMap(items, (blamed) => mapped(blamed, blameItem)), ...byField }
      })),
    "time:branch": (payload: Event.Payload<typeof Events.Branch>): Answer =>
      answer(Events.Branch, payload, Effect.fnUntraced(function*({ at, edits, projection, recorded, stream: streamId, with: other }, position) {
        if (edits.length > maxEdits) return yield* KsiError.fail(KsiError.invalidAt(Events.Branch.name, "edits", `has ${edits.length} items, at most ${maxEdits} are allowed`))
        const real = yield* projectionOf(projection)
        const code = other === undefined ? undefined : yield* projectionOf(other)
        const when = yield* whenOf(Events.Branch, "at", at, position, recorded)
        // With other code the answer is worked out anew: the next page may find yet other code under the name.
        return { by: code === undefined ? real : {}, items: branchItems({ real, code }, { at: when, streamId, edits: edits.map(editOf) }), ...byStream }
      }))
  }
})

// ------------------------------------------------------------------------------------------------------------ searches

/** A search of which only the JSON of what it finds is known. */
interface Running {
  /** The projections it reads with; others of the same name look for themselves. */
  readonly by: ReadonlyArray<Projection.Served>
  readonly position: () => number
  readonly isOver: () => boolean
  readonly advance: (facts: number) => Effect.Effect<Option.Option<unknown>, KsiError.KsiError>
}

const running = <S>(
  search: Search.Search<S>,
  by: Running["by"],
  item: (found: Search.Found<S>) => unknown
): Running => ({ ...search, by, advance: (facts) => Effect.map(search.advance(facts), Option.map(item)) })

const makeSearches = Effect.gen(function*() {
  const store = yield* EventStore
  const kept = makeKept<Running>(4)
  return Effect.fnUntraced(function*<P extends { readonly cursor?: string; readonly from?: number; readonly to?: number }>(
    event: { readonly name: string; readonly payload: Schema.Codec<P, unknown> },
    payload: P,
    prepare: (query: P, position: number) => Effect.Effect<
      { readonly by: Running["by"]; readonly open: (where: Search.Where) => Failing<Running>; readonly jump?: (where: Search.Where) => Failing<Option.Option<unknown>> },
      KsiError.KsiError
    >
  ): Effect.fn.Return<typeof Page.Type, KsiError.KsiError> {
    const { cursor, next, position, query } = yield* Paging.open(event, payload, store.head())
    const { by, jump, open } = yield* prepare(query, position)
    const from = typeof next === "number" ? next : query.from ?? 1
    const where = { from: BigInt(from), to: BigInt(Math.min(query.to ?? position, position)) }
    if (jump !== undefined) {
      const found = yield* Effect.provideService(jump(where), EventStore, store)
      return Paging.page(Option.toArray(found), undefined)
    }
    // Taken out while it runs: two calls with one cursor do not carry on the same search.
    const before = payload.cursor === undefined ? undefined : kept.take(payload.cursor)
    const isSame = before !== undefined && before.by.every((projection, i) => projection === by[i])
    const search = isSame ? before : yield* Effect.provideService(open(where), EventStore, store)
    const found = yield* search.advance(searchFacts)
    if (search.isOver()) return Paging.page(Option.toArray(found), undefined)
    const after = cursor(search.position() + 1)
    kept.put(after, search)
    return Paging.page([], after)
  })
})

/** Whether the condition holds after a fact; where it cannot be said, the fact that it cannot be said of. */
const judging = <S>(projection: Projection.Projection<S>, condition: Cel.Condition): Search.Judge<S> => (state, fact) => {
  const event = { name: fact.name, id: fact.id, time: FactWalk.timeOf(fact), position: fact.position, version: fact.version }
  const holds = condition.holds({ state: projection.encode(state), event, data: fact.data })
  return Result.mapError(holds, (problem) => KsiError.make(KsiError.invalidAt(
    Events.Find.name, "where", `cannot be decided after the ${fact.name} at position ${fact.position}: ${Cel.problemText(problem)}`
  )))
}

/** The same for a state of which the fact is not looked at. */
const judgingState = <S>(projection: Projection.Projection<S>, condition: Cel.Condition) => (state: S) =>
  Result.mapError(condition.holds({ state: projection.encode(state) }), (problem) => KsiError.make(KsiError.invalidAt(
    Events.Find.name, "where", `cannot be decided for the state ${Difference.valueText(projection.encode(state))}: ${Cel.problemText(problem)}`
  )))

const conditionOf = Effect.fnUntraced(function*({ monotone, where }: Event.Payload<typeof Events.Find>): Effect.fn.Return<Cel.Condition, KsiError.KsiError> {
  const invalid = (problem: Cel.Problem) => KsiError.make(KsiError.invalidAt(Events.Find.name, "where", Cel.problemText(problem)))
  const condition = yield* Effect.mapError(Cel.compile(where), invalid)
  if (monotone !== true || condition.isOfState) return condition
  return yield* Effect.fail(invalid({ problem: "asks for event or data; what is monotone may ask for state only" }))
})

const makeSearched = Effect.gen(function*() {
  const projections = yield* Projection.Projections
  const answer = yield* makeSearches
  const foundItem = <S>(projection: Projection.Projection<S>) => ({ after, before, fact }: Search.Found<S>) =>
    ({ ...placeOf(fact), before: projection.encode(before), after: projection.encode(after) })
  return {
    "time:find": (payload: Event.Payload<typeof Events.Find>): Answer =>
      answer(Events.Find, payload, Effect.fnUntraced(function*(query) {
        const condition = yield* conditionOf(query)
        const by = yield* projections.get(query.projection ?? Projection.latest.name)
        const { pattern, prefix, stream: streamId } = query
        if (streamId !== undefined && prefix !== undefined) {
          return yield* KsiError.fail(KsiError.invalidAt(Events.Find.name, "prefix", "is for several streams, and one is named"))
        }
        const only = { streamId, prefix, pattern }
        const open = (where: Search.Where) => by.use((projection): Failing<Running> =>
          Effect.map(Search.open(projection, judging(projection, condition), { ...where, ...only }), (search) =>
            running(search, [by], foundItem(projection))))
        const jump = (where: Search.Where) => by.use((projection): Failing<Option.Option<unknown>> =>
          Effect.map(Search.findMonotone(projection, judgingState(projection, condition), { ...where, ...only }), Option.map(foundItem(projection))))
        return { by: [by], open, ...(query.monotone === true ? { jump } : {}) }
      })),
    "time:compare": (payload: Event.Payload<typeof Events.Compare>): Answer =>
      answer(Events.Compare, payload, Effect.fnUntraced(function*({ a: nameA, b: nameB, stream: streamId }) {
        const servedA = yield* projections.get(nameA)
        const servedB = yield* projections.get(nameB)
        const open = (where: Search.Where) => servedA.use((a) => servedB.use((b): Failing<Running> =>
          Effect.map(Comparison.open(a, b, { ...where, streamId }), (search) =>
            running(search, [servedA, servedB], (found) => {
              const divergence = Comparison.divergenceOf(a, b, found)
              return {
                ...placeOf(found.fact), a: a.encode(divergence.a), b: b.encode(divergence.b),
                patch: divergence.patch, words: Difference.words(divergence.changes)
              }
            }))))
        return { by: [servedA, servedB], open }
      }))
  }
})

/** All of them. */
export const make = Effect.gen(function*() {
  return { ...(yield* makeListed), ...(yield* makeSearched) }
})
