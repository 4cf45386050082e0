// One consumer group at work: a reader that hands facts to partitions by their stream, members that handle one fact of their
// partition at a time, and a writer of checkpoints. What is not noted as dealt with is handled again.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import type { StoredFact } from "../../event/CloudEvent.ts"
import type * as KsiError from "../../event/KsiError.ts"
import type * as EventStore from "../EventStore.ts"
import { ownStream } from "./Admission.ts"
import type { ConsumerRows, Group, Parked } from "./ConsumerRows.ts"
import { patiently } from "./patiently.ts"

/** What became of one attempt: nothing, or what was wrong with it. */
export interface Wrong {
  readonly error: string
  /** Whether another attempt may go better. */
  readonly retryable: boolean
  /** How often it was tried before this was said. Default: once. */
  readonly attempts?: number | undefined
}

/** How an attempt ended: well, with something wrong, or not at all because the group stops. */
export type Outcome = Wrong | undefined | "stopped"

/** What a group is told. */
export interface Work {
  readonly name: string
  readonly store: Pick<EventStore.EventStore["Service"], "head" | "read" | "listen">
  readonly rows: ConsumerRows
  /** Told whenever it is noted how far the group is, once the ledger says so too. */
  readonly noted: (position: number) => void
  readonly wants: (fact: StoredFact) => boolean
  readonly handle: (fact: StoredFact, attempt: number) => Effect.Effect<Outcome>
  readonly retry: Schedule.Schedule<unknown, string>
  readonly maxAttempts: number
  readonly concurrency: number
  /** `stream`: what comes later in the stream of a parked fact is set aside too. `fact`: it goes on. */
  readonly parking: "stream" | "fact"
  readonly maxParked: number
  /** Facts under way, or done out of order, at most. */
  readonly window: number
  readonly page: number
  /** How long a member may take to finish when the group stops, in milliseconds. */
  readonly stopMillis: number
}

/** What is set aside of a stream is to be handled again. */
interface Retrial {
  readonly streamId: string
  readonly ended: (handled: number) => void
}

type Job = { readonly fact: StoredFact } | Retrial

/** A partition: what waits for its member. */
class Lane {
  readonly jobs: Array<Job> = []
  readonly some = Latch.makeUnsafe()
  push(job: Job): void {
    this.jobs.push(job)
    this.some.openUnsafe()
  }
  /** The first that is asked to be handled again; the facts stay where they are. */
  takeRetrial(): Retrial | undefined {
    for (const [index, job] of this.jobs.entries()) {
      if ("fact" in job) continue
      this.jobs.splice(index, 1)
      return job
    }
    return undefined
  }
}

/** The partition of a stream: the same in every process. */
export const partitionOf = (streamId: string, partitions: number): number => {
  let hash = 0x811c9dc5
  for (let i = 0; i < streamId.length; i++) hash = Math.imul(hash ^ streamId.charCodeAt(i), 0x01000193)
  return (hash >>> 0) % partitions
}

/** What a group has dealt with. */
export class Ledger {
  /** Handed out and not dealt with, in the order of their positions. */
  readonly pending = new Set<number>()
  readonly done: Set<number>
  readonly parkedStreams: Map<string, number>
  parked: number
  /** Looked at up to here. */
  fetched: number
  saved: number
  unsaved: Array<Parked> = []
  dirty = false
  trouble: string | undefined = undefined
  blocked = false

  constructor(group: Group, parkedStreams: ReadonlyMap<string, number>) {
    this.done = new Set(group.done)
    this.fetched = group.position
    this.saved = group.position
    this.parked = group.parked
    this.parkedStreams = new Map(parkedStreams)
  }

  /** Everything up to here is dealt with. */
  mark(): number {
    for (const first of this.pending) return first - 1
    return this.fetched
  }

  settle(position: number): void {
    this.pending.delete(position)
    this.done.add(position)
    this.dirty = true
  }

  park(row: Parked): void {
    this.unsaved.push(row)
    this.parked++
    this.parkedStreams.set(row.streamId, (this.parkedStreams.get(row.streamId) ?? 0) + 1)
    this.settle(row.position)
  }

  unpark({ streamId }: Parked): void {
    this.parked--
    const left = (this.parkedStreams.get(streamId) ?? 1) - 1
    if (left > 0) this.parkedStreams.set(streamId, left)
    else this.parkedStreams.delete(streamId)
  }

  /** What is to be noted. */
  take(): { readonly position: number; readonly done: ReadonlyArray<number>; readonly parked: ReadonlyArray<Parked> } {
    const position = this.mark()
    for (const each of this.done) if (each <= position) this.done.delete(each)
    const parked = this.unsaved
    this.unsaved = []
    this.dirty = false
    return { position, done: [...this.done].toSorted((a, b) => a - b), parked }
  }
}

/** A group at work. */
export interface Working {
  readonly ledger: Ledger
  /** Notes everything that is dealt with. */
  readonly flush: Effect.Effect<void, KsiError.KsiError>
  /** Handles what is set aside of a stream once more, in order; answers with how many went well. */
  readonly again: (streamId: string) => Effect.Effect<number>
  /** There is room among what is set aside. */
  readonly madeRoom: () => void
}

/** Writes down how far the group is; one after the other. */
const makeFlush = (work: Work, ledger: Ledger, room: Latch.Latch) => {
  const turns = Semaphore.makeUnsafe(1)
  return turns.withPermit(Effect.uninterruptible(Effect.suspend(() => {
    const { done, parked, position } = ledger.take()
    return work.rows.save(work.name, { position, done }, parked).pipe(
      Effect.tap(() => Effect.sync(() => {
        ledger.saved = position
        ledger.trouble = undefined
        room.openUnsafe()
        work.noted(position)
      })),
      Effect.tapError((error) => Effect.sync(() => {
        // Not noted: so it is still to be.
        ledger.unsaved = [...parked, ...ledger.unsaved]
        ledger.dirty = true
        ledger.trouble = error.message
      }))
    )
  })))
}

/** What became of all attempts. */
export type Attempted = { readonly attempts: number; readonly wrong: Wrong | undefined } | "stopped"

/** How often something is tried, and when. */
interface Trying<Fact> {
  readonly handle: (fact: Fact, attempt: number) => Effect.Effect<Outcome>
  readonly retry: Schedule.Schedule<unknown, string>
  readonly maxAttempts: number
}

/** Tries a fact until it goes well, or the schedule ends, or the group stops between two attempts. */
export const makeAttempts = <Fact>(work: Trying<Fact>, stop: Latch.Latch, isStopping: () => boolean) =>
  Effect.fnUntraced(function*(fact: Fact, before: number): Effect.fn.Return<Attempted> {
    const step = yield* Schedule.toStep(work.retry)
    for (let attempts = before + 1;; attempts++) {
      const wrong = yield* work.handle(fact, attempts)
      if (wrong === "stopped") return "stopped"
      attempts += (wrong?.attempts ?? 1) - 1
      if (wrong === undefined || !wrong.retryable || attempts - before >= work.maxAttempts) return { attempts, wrong }
      const now = yield* Clock.currentTimeMillis
      const next = yield* Effect.exit(step(now, wrong.error))
      if (Exit.isFailure(next)) return { attempts, wrong }
      yield* Effect.raceFirst(Effect.sleep(next.value[1]), stop.await)
      if (isStopping()) return "stopped"
    }
  })

type Attempt = (fact: StoredFact, before: number) => Effect.Effect<Attempted>

/** Handles what is set aside of a stream once more. */
const makeAgain = (work: Work, ledger: Ledger, attempt: Attempt, flush: Working["flush"], room: Latch.Latch) =>
  Effect.fnUntraced(function*(streamId: string) {
    let handled = 0
    for (let after = 0;;) {
      yield* flush
      const [row] = yield* work.rows.parked(work.name, { streamId, after, limit: 1 })
      if (row === undefined) return handled
      const [fact] = yield* work.store.read({ from: row.position, to: row.position, limit: 1 })
      const attempted = fact === undefined ? { attempts: row.attempts, wrong: undefined } : yield* attempt(fact, row.attempts)
      if (attempted === "stopped") return handled
      const { attempts, wrong } = attempted
      if (wrong !== undefined) {
        yield* work.rows.again(work.name, { ...row, attempts, error: wrong.error })
        if (work.parking === "stream") return handled
        after = row.position
        continue
      }
      for (const removed of yield* work.rows.remove(work.name, [row.position])) ledger.unpark(removed)
      room.openUnsafe()
      handled++
    }
  })

/** What a member does with the jobs of its lane. */
const makeMember = (
  work: Work,
  ledger: Ledger,
  dirty: Latch.Latch,
  stop: Latch.Latch,
  room: Latch.Latch,
  isStopping: () => boolean,
  attempt: Attempt,
  again: (streamId: string) => Effect.Effect<number, KsiError.KsiError>
) => {
  const retry = ({ ended, streamId }: Retrial) => Effect.map(again(streamId), ended)
  /** Waits until something more may be set aside. Whoever asks for what is set aside to be handled again makes room: that goes first. */
  const waitForRoom = Effect.fnUntraced(function*(lane: Lane) {
    while (ledger.parked >= work.maxParked && !isStopping()) {
      ledger.blocked = true
      const asked = lane.takeRetrial()
      if (asked !== undefined) {
        yield* retry(asked)
        continue
      }
      room.closeUnsafe()
      lane.some.closeUnsafe()
      yield* Effect.raceFirst(Effect.raceFirst(room.await, lane.some.await), stop.await)
    }
  })
  const isBehind = ({ streamId }: StoredFact) => work.parking === "stream" && ledger.parkedStreams.has(streamId)
  const park = Effect.fnUntraced(function*({ position, streamId }: StoredFact, attempts: number, error: string | undefined) {
    ledger.blocked = false
    ledger.park({ position, streamId, attempts, error, timestamp: yield* Clock.currentTimeMillis })
    dirty.openUnsafe()
  })
  const handleFact = Effect.fnUntraced(function*(fact: StoredFact, lane: Lane) {
    if (isBehind(fact)) {
      yield* waitForRoom(lane)
      if (isStopping()) return
      // Unless nothing is set aside any more that it would have to wait behind.
      if (isBehind(fact)) return yield* park(fact, 0, undefined)
      ledger.blocked = false
    }
    const attempted = yield* attempt(fact, 0)
    if (attempted === "stopped") return
    const { attempts, wrong } = attempted
    if (wrong === undefined) {
      ledger.settle(fact.position)
      dirty.openUnsafe()
      return
    }
    yield* Effect.logError(`the consumer group "${work.name}" has set a fact aside`, { position: fact.position, stream: fact.streamId, error: wrong.error })
    yield* waitForRoom(lane)
    if (!isStopping()) yield* park(fact, attempts, wrong.error)
  })
  return (job: Job, lane: Lane): Effect.Effect<void, KsiError.KsiError> => "fact" in job ? handleFact(job.fact, lane) : retry(job)
}

/** Reads the store and hands out what the group wants, as long as there is room in its window. */
const makeReader = (work: Work, ledger: Ledger, lanes: ReadonlyArray<Lane>, some: Latch.Latch, dirty: Latch.Latch, handed: Latch.Latch) =>
  Effect.fnUntraced(function*() {
    const { concurrency, page, store, wants, window } = work
    const room = () => window - ledger.pending.size - ledger.done.size
    for (;;) {
      yield* some.await
      some.closeUnsafe()
      while (ledger.fetched < store.head()) {
        while (room() <= 0) {
          handed.closeUnsafe()
          if (room() <= 0) yield* handed.await
        }
        const head = store.head()
        const facts = yield* store.read({ from: ledger.fetched + 1, limit: Math.min(page, room()) })
        // Where no fact is left up to the head, all of them were removed.
        if (facts.length === 0) ledger.fetched = head
        for (const fact of facts) {
          const isNew = !ledger.done.has(fact.position)
          if (isNew && !ownStream(fact.streamId) && wants(fact)) {
            ledger.pending.add(fact.position)
            lanes[partitionOf(fact.streamId, concurrency)]?.push({ fact })
          }
          ledger.fetched = fact.position
        }
        dirty.openUnsafe()
        yield* Effect.yieldNow
      }
    }
  })

/** Starts a group; when the scope closes its members finish what they are at, and how far they are is noted. */
export const start = Effect.fnUntraced(function*(work: Work, from: number) {
  const { name, rows, store } = work
  const ledger = new Ledger(yield* rows.open(name, from), yield* rows.streams(name))
  const lanes = Array.from({ length: work.concurrency }, () => new Lane())
  const [some, dirty, handed, stop, room] = [Latch.makeUnsafe(true), Latch.makeUnsafe(), Latch.makeUnsafe(), Latch.makeUnsafe(), Latch.makeUnsafe()]
  let stopping = false
  const flush = makeFlush(work, ledger, handed)
  const isStopping = () => stopping
  const trouble = <A>(effect: Effect.Effect<A, KsiError.KsiError>) =>
    patiently(effect, (problem) => void (ledger.trouble = problem))

  const attempt = makeAttempts(work, stop, isStopping)
  const again = makeAgain(work, ledger, attempt, flush, room)
  const handle = makeMember(work, ledger, dirty, stop, room, isStopping, attempt, (streamId) => trouble(again(streamId)))
  const take = Effect.fnUntraced(function*(lane: Lane) {
    while (!stopping) {
      const job = lane.jobs.shift()
      if (job === undefined) {
        lane.some.closeUnsafe()
        yield* Effect.raceFirst(lane.some.await, stop.await)
      } else yield* handle(job, lane)
    }
  })

  yield* store.listen(() => void some.openUnsafe())
  const reader = yield* Effect.forkScoped(trouble(makeReader(work, ledger, lanes, some, dirty, handed)()))
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(
    dirty.await,
    Effect.suspend(() => {
      dirty.closeUnsafe()
      return Effect.andThen(trouble(flush), Effect.yieldNow)
    })
  )))
  const members = yield* Effect.forEach(lanes, (lane) => Effect.forkScoped(take(lane)))
  yield* Effect.addFinalizer(() =>
    Effect.gen(function*() {
      stopping = true
      yield* Fiber.interrupt(reader)
      stop.openUnsafe()
      yield* Effect.ignore(Effect.timeout(Fiber.awaitAll(members), work.stopMillis))
      yield* Fiber.interruptAll(members)
      // Whoever asked for one of these need not wait any longer.
      for (const job of lanes.flatMap(({ jobs }) => jobs)) if ("ended" in job) job.ended(0)
      yield* Effect.ignore(flush)
    }))
  const working: Working = {
    ledger,
    flush,
    madeRoom: () => void room.openUnsafe(),
    again: (streamId) =>
      Effect.callback<number>((resume) =>
        void lanes[partitionOf(streamId, work.concurrency)]?.push({ streamId, ended: (handled) => resume(Effect.succeed(handled)) }))
  }
  return working
})
