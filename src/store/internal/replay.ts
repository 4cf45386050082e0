// Folds the facts up to a moment, from the snapshot that serves it best, and leaves snapshots where it passes.
//
// At a position: the last point up to it, and the facts after that. At an instant: the last point all of whose facts had
// happened by then; of the facts after it those that had happened, which can only be in the block right after it, in blocks
// that hold late facts, and after the last point. What is wrong with a snapshot never becomes an answer: its chain is dropped,
// and the facts are folded.
import * as Effect from "effect/Effect"
import type { StoredFact } from "../../event/CloudEvent.ts"
import * as KsiErrors from "../../event/KsiError.ts"
import type { KsiError } from "../../event/KsiError.ts"
import type { Format, Projection } from "../Projection.ts"
import { type Body, type Chain, type Chunk, ofAll, ofEverything, type Point, type PolicyShape, type Snapshots } from "../Snapshots.ts"
import { Folding, StreamIds } from "./Folding.ts"
import { pace } from "./turns.ts"

/** What is folded: one stream, or all. */
export interface Subject {
  readonly name: string
  /** Facts after a place up to another; a page of them. */
  readonly read: (after: number, until: number, limit: number) => Effect.Effect<ReadonlyArray<StoredFact>, KsiError>
  /** The place of a fact: its version, or its position. */
  readonly place: (fact: StoredFact) => number
  readonly counts: (fact: StoredFact) => boolean
  /** Facts from one point to the next, at least. */
  readonly least: number
  readonly pageItems: number
}

/** The facts that count: up to a position, and of those the ones that had happened by an instant. */
export interface Bounds {
  readonly position: number
  readonly instant: number
}

/** The snapshots that a replay may use. */
export interface Shelf<S> {
  readonly snapshots: Snapshots
  readonly chain: Chain
  readonly format: Format<S>
  readonly policy: PolicyShape
}

// By the snapshots of a store, whichever projection asks.
const idsOf = new WeakMap<Snapshots, Map<string, StreamIds>>()

/** The stream ids that are known of a subject of many. */
const streamIds = <S>({ chain: { subject }, snapshots }: Shelf<S>): StreamIds | undefined => {
  if (subject !== ofAll && subject !== ofEverything) return undefined
  const known = idsOf.get(snapshots) ?? new Map<string, StreamIds>()
  idsOf.set(snapshots, known)
  const ids = known.get(subject) ?? new StreamIds()
  known.set(subject, ids)
  return ids
}

const origin: Point = { position: 0, through: 0, previous: 0, newest: -Infinity, oldest: Infinity, late: false, chunks: 0, written: 0 }

/** Facts that are read and folded in one turn of the event loop: a few milliseconds of work, with the point that may follow. */
const turnFacts = 256

/** Chunks that are read, or written, in one turn. */
const turnChunks = 16

/** A snapshot that cannot be read or written costs time, not an answer. */
const quietly = <A, B>(effect: Effect.Effect<A, KsiError>, otherwise: B): Effect.Effect<A | B> =>
  effect.pipe(Effect.catch((error) => Effect.as(Effect.logDebug("snapshots are not used", error.message), otherwise)))

/** Hands the facts after a place to `visit`, which may have something to do; other fibers run between pages, and where one takes long. */
const scan = (
  subject: Subject,
  { position }: Bounds,
  after: number,
  until: number,
  visit: (fact: StoredFact) => Effect.Effect<void, KsiError> | undefined
): Effect.Effect<void, KsiError> =>
  Effect.gen(function*() {
    // What follows a snapshot is few.
    const most = Math.min(subject.pageItems, turnFacts)
    const { isLong, rest } = yield* pace
    let limit = Math.min(most, subject.least)
    for (let place = after; place < until; limit = most) {
      const page = yield* subject.read(place, until, limit)
      for (const fact of page) {
        if (fact.position > position || subject.place(fact) > until) return
        if (!subject.counts(fact)) continue
        const more = visit(fact)
        if (more !== undefined) yield* more
        if (isLong()) yield* rest
      }
      const last = page.at(-1)
      if (last === undefined || last.position >= position) return
      place = subject.place(last)
      if (place < until) yield* rest
    }
  })

/** Adds a fact where it had happened by then. */
const adding = <S>(folding: Folding<S>, instant: number) => (fact: StoredFact): Effect.Effect<void, KsiError> | undefined => {
  const error = fact.timestamp <= instant ? folding.add(fact) : undefined
  return error === undefined ? undefined : Effect.fail(error)
}

/** Takes chunks over; whether they are whole. */
const restored = <S>(folding: Folding<S>, format: Format<S>, chunks: ReadonlyArray<Chunk>): boolean => {
  try {
    for (const chunk of chunks) folding.restore(format, chunk)
    return true
  } catch {
    return false
  }
}

/** The state at a point; `undefined` where it is damaged. */
const restore = <S>(projection: Projection<S>, shelf: Shelf<S>, point: Point): Effect.Effect<Folding<S> | undefined> =>
  Effect.gen(function*() {
    const { chain, format, snapshots } = shelf
    const folding = new Folding(projection, streamIds(shelf))
    for (let first = 0; first < point.chunks; first += turnChunks) {
      if (first > 0) yield* Effect.yieldNow
      const wanted = Math.min(turnChunks, point.chunks - first)
      const chunks = yield* quietly(snapshots.chunks(chain, point, first, wanted), [])
      if (chunks.length < wanted) return undefined
      if (!restored(folding, format, chunks)) return undefined
    }
    return folding.written === point.written ? folding : undefined
  })

/** Folds everything from a point on, and adds points to the chain while this is who makes it longer. */
const advance = <S>(
  subject: Subject,
  { chain, policy, snapshots }: Shelf<S>,
  bounds: Bounds,
  folding: Folding<S>,
  start: Point,
  epoch: number
): Effect.Effect<void, KsiError> => {
  let last = start
  let facts = 0
  let oldest = Infinity
  let newest = start.newest
  let leads = true
  const write = (fact: StoredFact) =>
    Effect.gen(function*() {
      leads = (yield* quietly(snapshots.newest(chain), origin))?.position === (last === origin ? undefined : last.position)
      const bodies = leads ? yield* encoded(folding) : undefined
      if (bodies === undefined) {
        leads = false
        return
      }
      const { position } = fact
      folding.saved(bodies, position)
      const { chunks, written } = folding
      const late = oldest < last.newest
      const point = { position, through: subject.place(fact), previous: last.through, newest, oldest, late, chunks, written }
      leads = yield* quietly(snapshots.write({ chain, last: last.position, epoch, point, bodies }), false)
      last = point
      facts = 0
      oldest = Infinity
    })
  return scan(subject, bounds, start.through, Infinity, (fact) => {
    const error = folding.add(fact)
    if (error !== undefined) return Effect.fail(error)
    facts++
    oldest = Math.min(oldest, fact.timestamp)
    newest = Math.max(newest, fact.timestamp)
    return leads && facts >= subject.least && facts * policy.bytesPerFact >= folding.changedBytes ? write(fact) : undefined
  })
}

/** The chunks that have changed; `undefined` where a state is none that its projection can write. */
const encoded = <S>(folding: Folding<S>): Effect.Effect<ReadonlyMap<number, Body> | undefined> =>
  Effect.gen(function*() {
    const bodies = new Map<number, Body>()
    for (const chunk of folding.changed) {
      try {
        bodies.set(chunk, folding.encode(chunk))
      } catch {
        return undefined
      }
      if (bodies.size % turnChunks === 0) yield* Effect.yieldNow
    }
    return bodies
  })

/** From a point on; where its state is damaged, from the first fact, with a new chain. */
const from = <S>(projection: Projection<S>, shelf: Shelf<S>, point: Point | undefined) =>
  Effect.gen(function*() {
    const { chain, snapshots } = shelf
    const epoch = snapshots.epoch()
    const folding = point === undefined ? undefined : yield* restore(projection, shelf, point)
    if (point !== undefined && folding !== undefined) return { folding, start: point, epoch }
    // What was taken away meanwhile is not damaged.
    if (point !== undefined && snapshots.epoch() === epoch) yield* quietly(snapshots.drop(chain), undefined)
    return { folding: new Folding(projection, streamIds(shelf)), start: origin, epoch: snapshots.epoch() }
  })

const toPosition = <S>(projection: Projection<S>, subject: Subject, shelf: Shelf<S>, bounds: Bounds, point: Point | undefined) =>
  Effect.gen(function*() {
    const { epoch, folding, start } = yield* from(projection, shelf, point)
    yield* advance(subject, shelf, bounds, folding, start, epoch)
    return folding
  })

/** Where facts that count may be. */
interface Plan {
  /** The last point all of whose facts had happened by then. */
  readonly point: Point | undefined
  /** From one place up to another, in order. */
  readonly ranges: ReadonlyArray<readonly [after: number, until: number]>
}

const planOf = <S>({ chain, snapshots }: Shelf<S>, { instant, position }: Bounds): Effect.Effect<Plan, KsiError> =>
  Effect.gen(function*() {
    const last = yield* snapshots.before(chain, position, Infinity)
    const point = yield* snapshots.before(chain, position, instant)
    if (last === undefined || last.position === point?.position) return { point, ranges: [[last?.through ?? 0, Infinity]] }
    // There is one: the last point is not this one.
    const next = (yield* snapshots.after(chain, point?.position ?? 0)) ?? last
    const late = yield* snapshots.late(chain, next.position, last.position, instant)
    const blocks = late.map(({ previous, through }) => [previous, through] as const)
    return { point, ranges: [[point?.through ?? 0, next.through], ...blocks, [last.through, Infinity]] }
  })

/** Makes points that are missing, of all facts: what had happened by an instant cannot say where others may begin. */
const complete = <S>(projection: Projection<S>, subject: Subject, shelf: Shelf<S>, bounds: Bounds): Effect.Effect<void, KsiError> =>
  Effect.gen(function*() {
    const known = yield* quietly(shelf.snapshots.before(shelf.chain, bounds.position, Infinity), undefined)
    const [more] = yield* subject.read((known?.through ?? 0) + subject.least - 1, Infinity, 1)
    if (more === undefined || more.position > bounds.position) return
    // Also where a reducer throws: it may be at a fact that does not count.
    yield* Effect.ignoreCause(toPosition(projection, subject, shelf, bounds, known))
  })

const toInstant = <S>(projection: Projection<S>, subject: Subject, shelf: Shelf<S>, bounds: Bounds) =>
  Effect.gen(function*() {
    yield* complete(projection, subject, shelf, bounds)
    const plan = yield* quietly(planOf(shelf, bounds), undefined)
    if (plan === undefined) return yield* plainly(projection, subject, bounds)
    const { folding, start } = yield* from(projection, shelf, plan.point)
    if (start === origin && plan.point !== undefined) return yield* plainly(projection, subject, bounds)
    const add = adding(folding, bounds.instant)
    for (const [after, until] of plan.ranges) yield* scan(subject, bounds, after, until, add)
    return folding
  })

/** Of all facts. */
const plainly = <S>(projection: Projection<S>, subject: Subject, bounds: Bounds): Effect.Effect<Folding<S>, KsiError> =>
  Effect.suspend(() => {
    const folding = new Folding(projection)
    return Effect.as(scan(subject, bounds, 0, Infinity, adding(folding, bounds.instant)), folding)
  })

/** How the streams of a subject are handed out: those of the snapshot, then those whose first facts came after it. */
export interface Gradual<S> {
  /** Some streams, in the order of their first facts; none at the end. */
  readonly next: Effect.Effect<Folding<S>, KsiError>
}

const damaged = (): KsiError =>
  KsiErrors.make(new KsiErrors.StoreFailure({ operation: "read snapshots", problem: "one was damaged or taken away meanwhile; ask again, it is made anew" }))

/**
 * As `replay`, some streams at a time: the facts after the snapshot are held, and of the states those of one turn. Fails with
 * `StoreFailure` where a snapshot turns out to be damaged; it is gone then, so that who asks again is answered.
 */
export const gradually = <S>(
  projection: Projection<S>,
  subject: Subject,
  shelf: Shelf<S>,
  bounds: Bounds
): Effect.Effect<Gradual<S>, KsiError> =>
  Effect.gen(function*() {
    const { chain, format, snapshots } = shelf
    yield* complete(projection, subject, shelf, bounds)
    const { point, ranges } = yield* planOf(shelf, bounds)
    const recent = new Map<string, Array<StoredFact>>()
    for (const [after, until] of ranges) {
      yield* scan(subject, bounds, after, until, (fact) => {
        if (fact.timestamp > bounds.instant) return undefined
        const known = recent.get(fact.streamId)
        if (known === undefined) recent.set(fact.streamId, [fact])
        else known.push(fact)
        return undefined
      })
    }
    const begun = point ?? origin
    let first = 0
    let written = 0
    const some = Effect.gen(function*() {
      const folding = new Folding(projection)
      if (first < begun.chunks) {
        const wanted = Math.min(turnChunks, begun.chunks - first)
        const chunks = yield* snapshots.chunks(chain, begun, first, wanted)
        first += wanted
        written += chunks.reduce((sum, { position }) => sum + position, 0)
        const isWhole = chunks.length === wanted && (first < begun.chunks || written === begun.written)
        if (!isWhole || !restored(folding, format, chunks)) {
          yield* quietly(snapshots.drop(chain), undefined)
          return yield* Effect.fail(damaged())
        }
        for (const { streamId } of folding.streams) {
          for (const fact of recent.get(streamId) ?? []) yield* added(folding, fact)
          recent.delete(streamId)
        }
        return folding
      }
      for (const [streamId, facts] of recent) {
        for (const fact of facts) yield* added(folding, fact)
        recent.delete(streamId)
        if (folding.chunks >= turnChunks) break
      }
      return folding
    })
    return { next: some }
  })

const added = <S>(folding: Folding<S>, fact: StoredFact): Effect.Effect<void, KsiError> => {
  const error = folding.add(fact)
  return error === undefined ? Effect.void : Effect.fail(error)
}

/** The streams of a subject within bounds. Fails with `StoreFailure` where a fact cannot be read or folded. */
export const replay = <S>(
  projection: Projection<S>,
  subject: Subject,
  shelf: Shelf<S> | undefined,
  bounds: Bounds
): Effect.Effect<Folding<S>, KsiError> => {
  if (shelf === undefined || !Number.isFinite(subject.least)) {
    return plainly(projection, subject, bounds)
  }
  const { chain, snapshots } = shelf
  return bounds.instant < Infinity
    ? toInstant(projection, subject, shelf, bounds)
    : Effect.flatMap(quietly(snapshots.before(chain, bounds.position, Infinity), undefined), (point) =>
      toPosition(projection, subject, shelf, bounds, point))
}
