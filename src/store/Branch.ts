/**
 * What would have been: the history with facts dropped, replaced or inserted, or read by other code, beside what was.
 *
 * The rule: nothing is written. A branch is made of reads of the store and of pure folds; it has no way to emit, append
 * or call, and what it tells is gone when it is forgotten. Facts that are not edited stay as they are, also those after
 * the edits: they are folded over what the edits leave behind, and those that no longer fit are told.
 *
 * **Example**
 *
 * ```ts
 * const store = yield* EventStore.EventStore
 * yield* store.appendTo("cart-9", [{ name: "cart:filled", data: { total: 20 } }, { name: "cart:cut", data: { total: 5, coupon: "x" } }])
 * const { lines } = yield* Branch.branch(Projection.latest, { edits: [Branch.drop(2n)] })
 * lines.map(({ branch, patch, real }) => [real, branch, patch[0]])
 * // [[{ total: 5, coupon: "x" }, { total: 20 }, { op: "remove", path: "/coupon" }]]
 * ```
 *
 * **Gotchas** In a branch versions are counted anew, so that they have no gap; positions stay. An inserted fact has the
 * position of the fact that it comes after, and the time of the fact before it in its stream unless it says another one.
 * A fact does not fit where the projection refuses it or throws: it then changes nothing in the branch.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as CloudEvent from "../event/CloudEvent.ts"
import * as Envelope from "../event/Envelope.ts"
import { maxForeignLength } from "../event/EventName.ts"
import * as Json from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import * as Difference from "./Difference.ts"
import { EventStore } from "./EventStore.ts"
import { labelProblem } from "./internal/Admission.ts"
import * as FactWalk from "./internal/factWalk.ts"
import { type Projection, step } from "./Projection.ts"
import * as TimeTravel from "./TimeTravel.ts"

type StoredFact = CloudEvent.StoredFact

/** A fact that is in the store: its position, or its id where only one source has a fact of that id. */
export type Target = number | bigint | string

/** What a fact would have said instead; what is left out stays. */
export interface Replacement {
  readonly name?: string | undefined
  readonly data?: unknown
  /** RFC 3339. */
  readonly time?: string | undefined
}

/** A fact that did not happen. */
export interface Imagined {
  readonly name: string
  readonly data?: unknown
  /** Default: the stream that the branch is of. */
  readonly streamId?: string | undefined
  /** Default: `imagined-` and its place among the edits. */
  readonly id?: string | undefined
  /** RFC 3339. */
  readonly time?: string | undefined
}

/** One change of the history. */
export type Edit =
  | { readonly kind: "drop"; readonly target: Target }
  | { readonly kind: "replace"; readonly target: Target; readonly by: Replacement }
  | { readonly kind: "insert"; readonly fact: Imagined; readonly after: number | bigint }

/** As if a fact had not happened. */
export const drop = (target: Target): Edit => ({ kind: "drop", target })

/** As if a fact had said something else. */
export const replace = (target: Target, by: Replacement): Edit => ({ kind: "replace", target, by })

/** As if something had happened right after a position; 0 is before everything. */
export const insert = (fact: Imagined, after: number | bigint): Edit => ({ kind: "insert", fact, after })

/** A fact that does not fit into the branch, and why. */
export interface Misfit {
  readonly fact: StoredFact
  readonly problem: string
}

/** One stream, as it was and as it would have been. */
export interface Line<out S, out T> {
  readonly streamId: string
  readonly real: S
  readonly branch: T
  /** Of its last fact: the number of facts, with those that were removed from the store. */
  readonly versions: { readonly real: number; readonly branch: number }
  readonly changes: ReadonlyArray<Difference.Change>
  /** Applied to the encoded real state it gives that of the branch. */
  readonly patch: ReadonlyArray<Difference.Operation>
  /** The first position after which the states differ, and the fact there; `undefined` where they never do. */
  readonly divergence: { readonly fact: StoredFact; readonly real: S; readonly branch: T } | undefined
  readonly misfits: ReadonlyArray<Misfit>
}

/** What would have been. */
export interface Branch<out S, out T> {
  /** The last position of the history that was read. */
  readonly position: number
  /** The streams that an edit touches, ordered by stream id; with other code, all. */
  readonly lines: ReadonlyArray<Line<S, T>>
}

// ------------------------------------------------------------------------------------------------------------- edits

/** The edits of one stream, by position. */
interface Plan {
  readonly dropped: Set<number>
  readonly replaced: Map<number, Replacement>
  /** In the order in which they are to happen. */
  readonly inserted: Array<{ readonly fact: Imagined; readonly id: string; readonly after: number }>
  /** The first position that is not as it was. */
  first: number
}

const emptyPlan = (): Plan => ({ dropped: new Set(), replaced: new Map(), inserted: [], first: Number.MAX_SAFE_INTEGER })

const invalid = (index: number, problem: string) => KsiError.fail(KsiError.invalidAt("time:branch", `edits.${index}`, problem))

const factOf = Effect.fnUntraced(function*(
  store: FactWalk.Reads,
  target: Target,
  index: number,
  { last, streamId }: { readonly last: number; readonly streamId: string | undefined }
): Effect.fn.Return<StoredFact, KsiError.KsiError> {
  const inReach = typeof target === "string" || (Number.isInteger(Number(target)) && target > 0 && target <= last)
  const facts = typeof target === "string"
    ? yield* store.byId(target)
    : inReach ? yield* store.read({ from: Number(target), to: Number(target), limit: 1 }) : []
  const [fact, other] = facts.filter((fact) => fact.position <= last && (streamId === undefined || fact.streamId === streamId))
  if (other !== undefined) return yield* invalid(index, `several facts have the id "${target}"; say a position`)
  if (fact !== undefined) return fact
  const detail = streamId === undefined ? `up to position ${last}` : `in ${streamId} up to position ${last}`
  return yield* KsiError.fail(new KsiError.NotFound({ what: "fact", id: String(target), similar: [], detail }))
})

const timeProblem = (edit: Edit): string | undefined => {
  const time = edit.kind === "insert" ? edit.fact.time : edit.kind === "replace" ? edit.by.time : undefined
  return time === undefined || CloudEvent.parseTime(time) !== undefined ? undefined : `its time "${time}" is no RFC 3339 text`
}

/** What an append would not take either: a name or an id that is none. */
const labelsProblem = ({ fact: { id, name, streamId } }: Extract<Edit, { kind: "insert" }>, idLength: number): string | undefined => {
  for (const [label, text, max] of [["name", name, maxForeignLength], ["streamId", streamId, idLength], ["id", id, idLength]] as const) {
    const problem = text === undefined && label !== "name" ? undefined : labelProblem(text, max)
    if (problem !== undefined) return `its ${label} ${problem}`
  }
  return undefined
}

const plansOf = Effect.fnUntraced(function*(
  store: FactWalk.Reads,
  edits: ReadonlyArray<Edit>,
  reach: { readonly last: number; readonly streamId: string | undefined }
): Effect.fn.Return<Map<string, Plan>, KsiError.KsiError> {
  const { idLength } = yield* Limits.Limits
  const plans = new Map<string, Plan>()
  const planOf = (streamId: string, position: number): Plan => {
    const plan = plans.get(streamId) ?? emptyPlan()
    plans.set(streamId, plan)
    plan.first = Math.min(plan.first, position)
    return plan
  }
  for (const [index, edit] of edits.entries()) {
    const problem = (edit.kind === "insert" ? labelsProblem(edit, idLength) : undefined) ?? timeProblem(edit)
    if (problem !== undefined) return yield* invalid(index, problem)
    if (edit.kind === "insert") {
      const { after, fact } = edit
      const streamId = fact.streamId ?? reach.streamId
      if (streamId === undefined) return yield* invalid(index, "which stream does the inserted fact belong to?")
      if (reach.streamId !== undefined && streamId !== reach.streamId) return yield* invalid(index, `the branch is of ${reach.streamId} only`)
      if (!Number.isInteger(Number(after)) || after < 0 || after > reach.last) return yield* invalid(index, `the history has the positions 1 to ${reach.last}; 0 is before them`)
      planOf(streamId, Number(after) + 1).inserted.push({ fact, id: fact.id ?? `imagined-${index + 1}`, after: Number(after) })
      continue
    }
    const { position, streamId } = yield* factOf(store, edit.target, index, reach)
    const plan = planOf(streamId, position)
    if (plan.dropped.has(position) || plan.replaced.has(position)) return yield* invalid(index, `the fact at position ${position} is edited twice`)
    if (edit.kind === "drop") plan.dropped.add(position)
    else plan.replaced.set(position, edit.by)
  }
  // A stable sort: those after the same position happen in the order of the edits.
  for (const { inserted } of plans.values()) inserted.sort((a, b) => a.after - b.after)
  return plans
})

// ----------------------------------------------------------------------------------------------------------- folding

const replacedBy = (fact: StoredFact, { data, name, time }: Replacement): StoredFact => ({
  ...fact,
  name: name ?? fact.name,
  data: data === undefined ? fact.data : data,
  time: time ?? fact.time,
  timestamp: time === undefined ? fact.timestamp : CloudEvent.parseTime(time) ?? fact.timestamp
})

const imagined = (plan: Plan["inserted"][number], streamId: string, before: StoredFact | undefined): StoredFact => {
  const given = plan.fact.time === undefined ? undefined : CloudEvent.parseTime(plan.fact.time)
  return {
    id: plan.id,
    source: Envelope.ownSource,
    name: plan.fact.name,
    streamId,
    data: plan.fact.data,
    time: plan.fact.time ?? before?.time,
    attributes: {},
    position: plan.after,
    version: 0,
    timestamp: given ?? before?.timestamp ?? 0,
    recordedAt: before?.recordedAt ?? 0
  }
}

const problemOf = ({ message, reason }: KsiError.KsiError): string => reason._tag === "StoreFailure" ? reason.problem : message

/** Two lines of one stream, folded side by side. */
const makeLines = <S, T>(
  streamId: string,
  real: Projection<S>,
  code: Projection<T>,
  start: { readonly real: S; readonly branch: T; readonly version: number }
) => {
  let was = start.real
  let would = start.branch
  const versions = { real: start.version, branch: start.version }
  const misfits: Array<Misfit> = []
  let divergence: Line<S, T>["divergence"]
  return {
    isReal: (fact: StoredFact): KsiError.KsiError | undefined => {
      const applied = step(real, was, fact)
      if (Result.isFailure(applied)) return applied.failure
      was = applied.success
      versions.real = fact.version
      return undefined
    },
    isImagined: (as: StoredFact): void => {
      const fact = { ...as, version: ++versions.branch }
      // A reducer that was never meant to see such a history may throw.
      const tried = Result.try({ try: () => code.apply(would, fact), catch: KsiError.sentenceOf })
      if (Result.isFailure(tried)) misfits.push({ fact, problem: tried.failure })
      else if (Result.isFailure(tried.success)) misfits.push({ fact, problem: problemOf(tried.success.failure) })
      else would = tried.success.success
    },
    /** Compares what both have come to. */
    compare: (fact: StoredFact): void => {
      if (divergence !== undefined || Json.equal(real.encode(was), code.encode(would))) return
      divergence = { fact, real: was, branch: would }
    },
    end: (): Line<S, T> => {
      const changes = Difference.between(real.encode(was), code.encode(would))
      return { streamId, real: was, branch: would, versions, changes, patch: Difference.patchOf(changes), divergence, misfits }
    }
  }
}

interface Ground<S, T> {
  readonly real: Projection<S>
  readonly code: Projection<T>
  /** The same projection: until the first edit both are one. */
  readonly shared: Projection<S & T> | undefined
  readonly when: TimeTravel.When
  readonly last: number
}

const startOf = Effect.fnUntraced(function*<S, T>(
  { code, real, shared, when }: Ground<S, T>,
  streamId: string,
  first: number
): Effect.fn.Return<{ readonly real: S; readonly branch: T; readonly version: number }, KsiError.KsiError, EventStore> {
  if (shared === undefined || first <= 1) return { real: real.initial, branch: code.initial, version: 0 }
  const moment = yield* Difference.momentOr(shared, { ...when, position: BigInt(first - 1), streamId })
  return moment === undefined
    ? { real: real.initial, branch: code.initial, version: 0 }
    : { real: moment.state, branch: moment.state, version: moment.version }
})

const lineOf = Effect.fnUntraced(function*<S, T>(
  ground: Ground<S, T>,
  streamId: string,
  plan: Plan
): Effect.fn.Return<Line<S, T>, KsiError.KsiError, EventStore> {
  const { code, last, real, when } = ground
  const store = yield* EventStore
  const { pageItems } = yield* Limits.Limits
  const counts = FactWalk.countsAt(when)
  const start = yield* startOf(ground, streamId, Math.min(plan.first, last + 1))
  // Of a stream whose beginning was removed, versions go on from what is gone.
  const [first] = start.version > 0 ? [] : yield* store.readStream({ streamId, from: 1, limit: 1 })
  const lines = makeLines(streamId, real, code, first === undefined ? start : { ...start, version: first.version - 1 })
  // An inserted fact takes its time from the fact before it.
  const isAsked = start.version > 0 && plan.inserted.length > 0
  let [before] = isAsked ? yield* store.readStream({ streamId, from: start.version, limit: 1 }) : []
  let next = 0
  const insertUpTo = (position: number) => {
    for (let at = plan.inserted[next]; at !== undefined && at.after < position; at = plan.inserted[++next]) {
      const fact = imagined(at, streamId, before)
      if (!counts(fact)) continue
      lines.isImagined(fact)
      lines.compare(fact)
    }
  }
  yield* FactWalk.walk(store, { streamId, from: start.version + 1, to: last }, pageItems, (fact) => {
    insertUpTo(fact.position)
    before = fact
    const isReal = counts(fact)
    const error = isReal ? lines.isReal(fact) : undefined
    if (error !== undefined) return error
    const by = plan.replaced.get(fact.position)
    const instead = by === undefined ? fact : replacedBy(fact, by)
    // A fact that would have happened at another time may count where it did not.
    const isImagined = !plan.dropped.has(fact.position) && (by === undefined ? isReal : counts(instead))
    if (isImagined) lines.isImagined(instead)
    if (isReal || isImagined) lines.compare(fact)
    return false
  })
  insertUpTo(last + 1)
  return lines.end()
})

/** What a branch is made of. */
export interface Options {
  /** The moment up to which both lines are folded; default now. */
  readonly at?: TimeTravel.When | undefined
  /** Only this stream. */
  readonly streamId?: string | undefined
  readonly edits?: ReadonlyArray<Edit> | undefined
}

/**
 * The history with edits, beside the real one: for each stream that they touch both states, the patch, where they part,
 * and what no longer fits. Fails with `NotFound` where an edited fact or the stream does not exist, with `PayloadInvalid`
 * where edits make no sense, and as `TimeTravel.at` does where the real line cannot be folded.
 */
export function branch<S>(projection: Projection<S>, options: Options): Effect.Effect<Branch<S, S>, KsiError.KsiError, EventStore>
/** The same, with the branch read by other code: also without any edit. */
export function branch<S, T>(
  projection: Projection<S>,
  options: Options & { readonly projection: Projection<T> }
): Effect.Effect<Branch<S, T>, KsiError.KsiError, EventStore>
export function branch<S>(
  projection: Projection<S>,
  options: Options & { readonly projection?: Projection<unknown> | undefined }
): Effect.Effect<Branch<S, unknown>, KsiError.KsiError, EventStore> {
  const when = options.at ?? {}
  return options.projection === undefined
    ? branchOf({ real: projection, code: projection, shared: projection, when }, options)
    : branchOf({ real: projection, code: options.projection, shared: undefined, when }, options)
}

const branchOf = Effect.fnUntraced(function*<S, T>(
  on: Omit<Ground<S, T>, "last">,
  { edits = [], streamId }: Options
): Effect.fn.Return<Branch<S, T>, KsiError.KsiError, EventStore> {
  const store = yield* EventStore
  const last = FactWalk.lastOf(store, on.when)
  const ground = { ...on, last }
  const plans = yield* plansOf(store, edits, { last, streamId })
  if (streamId !== undefined && !plans.has(streamId)) {
    // It knows what to say of a stream that is not there, or not yet.
    yield* TimeTravel.at(on.real, { ...on.when, streamId })
    plans.set(streamId, emptyPlan())
  }
  if (streamId === undefined && on.shared === undefined) {
    const moments = yield* TimeTravel.at(on.real, { ...on.when, position: BigInt(last) })
    for (const { streamId } of moments) if (!plans.has(streamId)) plans.set(streamId, emptyPlan())
  }
  const lines: Array<Line<S, T>> = []
  for (const id of [...plans.keys()].toSorted()) lines.push(yield* lineOf(ground, id, plans.get(id) ?? emptyPlan()))
  return { position: last, lines }
})
