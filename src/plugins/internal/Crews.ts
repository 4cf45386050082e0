// Those who work for consumer groups beside the daemon: a group runs here as any other, and its facts are handed over to the
// workers that are there, its crew.
//
// The rule: the group hands over the next fact of a stream when the one before is reported, whoever had it: so a stream's order holds
// while workers come and go. A worker has no more facts than it handles at a time. What it has not reported when it goes is handed
// over again, as the same attempt. Where a fact goes: to the worker that has the others of its stream (it may remember them) while
// there is room, else to the one that has the most.
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { Authorizer, type AuthorizerShape } from "../../bus/Authorizer.ts"
import type { Delivery } from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import * as EventPattern from "../../event/EventPattern.ts"
import * as KsiError from "../../event/KsiError.ts"
import { Consumers, type Outcome, resolved } from "../../store/Consumer.ts"
import { partitionOf } from "../../store/internal/consuming.ts"
import type { Done, Work } from "./consumerEvents.ts"

type Item = Event.Success<typeof Work>
type Asked = Event.Payload<typeof Work>
type Report = Event.Payload<typeof Done>

/** A fact that waits for what becomes of it. */
interface Job {
  readonly delivery: Delivery
  readonly attempt: number
  readonly resume: (outcome: Outcome) => void
}

// -------------------------------------------------------------------------------------------------------------- a crew

/** Who works for a group: what it has, and what it will be told. */
export class Worker {
  readonly principal: string
  readonly out = new Map<string, Job>()
  readonly queue: Queue.Queue<Item, KsiError.KsiError | Cause.Done>
  /** Nobody else can guess it. */
  readonly secret: string
  private readonly concurrency: number
  private handed = 0
  private why: KsiError.KsiError | "done" | undefined = undefined

  constructor(principal: string, concurrency: number, secret: string, queue: Worker["queue"]) {
    this.principal = principal
    this.concurrency = concurrency
    this.secret = secret
    this.queue = queue
  }

  /** How many facts it may have besides those that it has. */
  get room(): number {
    return this.why === undefined ? this.concurrency - this.out.size : 0
  }

  hand(job: Job): void {
    const { attempt, delivery: { data, dataVersion, id, metadata, name, position, version } } = job
    const ticket = `${this.secret}-${++this.handed}`
    this.out.set(ticket, job)
    Queue.offerUnsafe(this.queue, {
      kind: "fact", ticket, attempt, event: name, id, data, streamId: metadata.streamId ?? "", position: Number(position), version: Number(version),
      ...(dataVersion === undefined ? {} : { dataVersion }), metadata: { ...metadata }
    })
  }

  /** Gets nothing more, and is told why when it has reported what it has. */
  dismiss(why: KsiError.KsiError | "done"): void {
    this.why ??= why
    this.look()
  }

  /** What it has it need not report any more. */
  giveUp(): ReadonlyArray<Job> {
    const left = [...this.out.values()]
    this.out.clear()
    return left
  }

  /** Ends its items where it was dismissed and has nothing left. */
  look(): void {
    if (this.why === undefined || this.out.size > 0) return
    if (this.why === "done") Queue.endUnsafe(this.queue)
    else Queue.failCauseUnsafe(this.queue, Cause.fail(this.why))
  }
}

/** Whose it is: the worker with the highest number for a stream. When one comes or goes, only its streams move. */
export const favourite = <W extends { readonly secret: string }>(workers: ReadonlyArray<W>, streamId: string): W | undefined => {
  let best: W | undefined
  let most = -1
  for (const worker of workers) {
    const weight = partitionOf(`${streamId}\n${worker.secret}`, 0x7fffffff)
    if (weight > most) [best, most] = [worker, weight]
  }
  return best
}

/** The workers of one group. */
export class Crew {
  private readonly mayHear: (principal: string, name: string) => boolean
  private readonly refusal: (principal: string, name: string) => KsiError.KsiError
  private workers: ReadonlyArray<Worker> = []
  private readonly waiting: Array<Job> = []
  private isClosed = false

  constructor({ allows, refusal }: Pick<AuthorizerShape, "allows" | "refusal">) {
    this.mayHear = (principal, name) => allows(principal, "subscribe", name)
    this.refusal = (principal, name) => KsiError.make(refusal(principal, "subscribe", name))
  }

  get isEmpty(): boolean {
    return this.workers.length === 0
  }

  /** How many facts it handles at a time. */
  get size(): number {
    return this.workers.reduce((sum, { out, room }) => sum + out.size + room, 0)
  }

  join(worker: Worker): void {
    this.workers = [...this.workers, worker]
    this.advance()
  }

  /** What it had goes to others, or waits for one. */
  leave(worker: Worker): void {
    this.workers = this.workers.filter((other) => other !== worker)
    this.waiting.unshift(...worker.giveUp())
    this.advance()
  }

  /** What becomes of a fact. */
  handle(delivery: Delivery, attempt: number): Effect.Effect<Outcome> {
    return Effect.callback<Outcome>((resume) => {
      if (this.isClosed) return resume(Effect.succeed("stopped"))
      const job: Job = { delivery, attempt, resume: (outcome) => resume(Effect.succeed(outcome)) }
      this.waiting.push(job)
      this.advance()
    })
  }

  report(worker: Worker, ticket: string, outcome: Outcome): void {
    const job = worker.out.get(ticket)
    worker.out.delete(ticket)
    job?.resume(outcome)
    worker.look()
    this.advance()
  }

  /** No fact is handed over any more; each worker goes when it has reported those that it has, or at once. */
  close(atOnce = false): void {
    this.isClosed = true
    if (atOnce) this.waiting.push(...this.workers.flatMap((worker) => worker.giveUp()))
    this.advance()
    for (const worker of this.workers) worker.dismiss("done")
  }

  /** Hands over what can be, the oldest first. */
  private advance(): void {
    if (this.isClosed) {
      for (const { resume } of this.waiting.splice(0)) resume("stopped")
      return
    }
    while (this.waiting.length > 0) {
      const job = this.waiting[0]
      const worker = job && this.workerFor(job.delivery)
      if (job === undefined || worker === undefined) return
      if (this.mayHear(worker.principal, job.delivery.name)) {
        this.waiting.shift()
        worker.hand(job)
      } else worker.dismiss(this.refusal(worker.principal, job.delivery.name))
    }
  }

  private workerFor({ metadata: { streamId = "" } }: Delivery): Worker | undefined {
    if (this.workers.length === 1) return this.workers.find(({ room }) => room > 0)
    const own = favourite(this.workers, streamId)
    if (own === undefined || own.room > 0) return own
    return this.workers.filter(({ room }) => room > 0).toSorted((a, b) => b.room - a.room)[0]
  }
}

// --------------------------------------------------------------------------------------------------------------- groups

/** A group that somebody works for, or wants to. */
interface Post {
  /** One comes or goes at a time. */
  readonly turn: Semaphore.Semaphore
  /** Who is there, or waits for a turn. */
  holders: number
  open: { readonly crew: Crew; readonly terms: string; readonly scope: Scope.Closeable } | undefined
}

// Each is a fiber. Streams share them: with few, one would wait for the other where nothing has to.
const partitions = 256

const invalid = (group: string, problem: string) => KsiError.fail(new KsiError.PluginInvalid({ plugin: `the consumer group "${group}"`, problem }))
const noTicket = (id: string) => KsiError.fail(new KsiError.NotFound({ what: "ticket", id, similar: [], detail: "that is out: its fact was reported, or handed to somebody else" }))

/** What all workers of a group have to say alike. Where a group begins is of no account once it has; how much one does is its own. */
const termsOf = ({ concurrency: _, events, retry, start: __, ...options }: Asked): string => {
  const { maxAttempts, maxParked, parking, window } = resolved(options)
  return JSON.stringify({ events: [...new Set(events)].toSorted(), maxAttempts, maxParked, parking, window, retry })
}

const scheduleOf = ({ retry }: Asked): { readonly retry?: Schedule.Schedule<unknown, string> } =>
  retry === undefined ? {} : {
    retry: Schedule.modifyDelay(Schedule.exponential(retry.firstMillis), ({ duration }) =>
      Effect.succeed(Duration.min(duration, Duration.millis(retry.mostMillis))))
  }

// What is kept of a failure is for a person.
const maxError = 10_000

const outcomeOf = ({ attempts, error, retryable = true }: Report): Outcome =>
  error === undefined ? undefined : { error: error.slice(0, maxError).toWellFormed(), retryable, attempts }

/** Whether somebody may hear anything of what it asks for; of a name: whether it may hear that. */
const mayHear = ({ allows, hears }: AuthorizerShape, principal: string, event: string): Effect.Effect<boolean, KsiError.KsiError> =>
  event.includes("*")
    ? Effect.map(EventPattern.fromText(event), (pattern) => hears(principal, pattern))
    : Effect.succeed(allows(principal, "subscribe", event))

/** Starts a group in the daemon, for workers that are still to come. */
const open = Effect.fnUntraced(function*(asked: Asked, parent: Scope.Scope) {
  const { group, retry: _, ...options } = asked
  const crew = new Crew(yield* Authorizer)
  const scope = yield* Scope.fork(parent)
  const consuming = (yield* Consumers).consume(group, {
    ...options,
    ...scheduleOf(asked),
    concurrency: Math.max(partitions, resolved(options).concurrency),
    members: () => crew.size,
    handle: (delivery, attempt) => crew.handle(delivery, attempt)
  })
  yield* Effect.onError(Scope.provide(consuming, scope), () => Scope.close(scope, Exit.void))
  // Before the group waits for what its members have under way: nobody will report it.
  yield* Scope.addFinalizer(scope, Effect.sync(() => crew.close(true)))
  return { crew, terms: termsOf(asked), scope }
})

/** Who wants to work for which group. */
class Posts {
  private readonly posts = new Map<string, Post>()
  private readonly nobody = Latch.makeUnsafe(true)
  isEnding = false

  /** The group's, for as long as the scope is open. */
  of(group: string): Effect.Effect<Post, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.sync(() => {
        const post = this.posts.get(group) ?? { turn: Semaphore.makeUnsafe(1), holders: 0, open: undefined }
        this.posts.set(group, post)
        post.holders++
        this.nobody.closeUnsafe()
        return post
      }),
      (post) => Effect.sync(() => {
        if (--post.holders === 0) this.posts.delete(group)
        if (this.posts.size === 0) this.nobody.openUnsafe()
      })
    )
  }

  private close(atOnce: boolean): void {
    for (const { open } of this.posts.values()) open?.crew.close(atOnce)
  }

  /** Lets nobody in any more, and waits until all are gone: those that take longer than this are sent away. */
  end(patience: Duration.Input): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.isEnding = true
      this.close(false)
      return Effect.timeoutOrElse(this.nobody.await, { duration: patience, orElse: () => Effect.sync(() => this.close(true)) })
    })
  }
}

/** The groups that are worked for beside the daemon. */
export const make = Effect.gen(function*() {
  const authorizer = yield* Authorizer
  const parent = yield* Effect.scope
  const services = yield* Effect.context<Consumers>()
  const posts = new Posts()
  const tickets = new Map<string, { readonly worker: Worker; readonly crew: Crew }>()

  const enter = Effect.fnUntraced(function*(asked: Asked, principal: string, post: Post) {
    if (posts.isEnding) return yield* KsiError.fail(new KsiError.ConnectionLost({ address: "the daemon", problem: "it is stopping", unsent: true }))
    // The group is nobody's request: it outlives the first worker's.
    const { crew, terms } = post.open ??= yield* Effect.updateContext(open(asked, parent), (_: Context.Context<never>) => services)
    if (terms !== termsOf(asked)) {
      return yield* invalid(asked.group, `others work for it, and not with the same events and options: theirs are ${terms}`)
    }
    const secret = yield* SecureRandom.SecureRandom.use(({ uuidV4 }) => uuidV4()).pipe(Effect.provide(SecureRandom.layerWebCrypto))
    const { concurrency } = resolved({ concurrency: asked.concurrency })
    const worker = new Worker(principal, concurrency, secret, yield* Queue.unbounded<Item, KsiError.KsiError | Cause.Done>())
    tickets.set(secret, { worker, crew })
    Queue.offerUnsafe(worker.queue, { kind: "begun", group: asked.group })
    crew.join(worker)
    return worker
  })

  const leave = Effect.fnUntraced(function*(worker: Worker, post: Post) {
    tickets.delete(worker.secret)
    const crew = post.open?.crew
    crew?.leave(worker)
    if (post.open === undefined || crew?.isEmpty !== true) return
    yield* Scope.close(post.open.scope, Exit.void)
    post.open = undefined
  })

  return {
    /** What a worker is told, as long as it is read. */
    work: (asked: Asked, principal: string): Stream.Stream<Item, KsiError.KsiError> =>
      Stream.unwrap(Effect.gen(function*() {
        for (const event of asked.events) {
          if (!(yield* mayHear(authorizer, principal, event))) return yield* Effect.fail(KsiError.make(authorizer.refusal(principal, "subscribe", event)))
        }
        const post = yield* posts.of(asked.group)
        const worker = yield* Effect.acquireRelease(post.turn.withPermit(enter(asked, principal, post)), (joined) => post.turn.withPermit(leave(joined, post)))
        return Stream.fromQueue(worker.queue)
      })),
    done: (report: Report, principal: string): Effect.Effect<void, KsiError.KsiError> =>
      Effect.suspend(() => {
        const { ticket } = report
        const found = tickets.get(ticket.slice(0, ticket.lastIndexOf("-")))
        if (found === undefined || found.worker.principal !== principal || !found.worker.out.has(ticket)) return noTicket(ticket)
        found.crew.report(found.worker, ticket, outcomeOf(report))
        return Effect.void
      }),
    /** Hands over nothing more, and waits so long until what was is reported and its workers are gone. */
    end: (patience: Duration.Input) => posts.end(patience)
  }
})
