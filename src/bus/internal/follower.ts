// One subscriber: reads the journal until it has caught up, then listens. What happens when it is slower than what comes
// is its policy.
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { StoredFact } from "../../event/CloudEvent.ts"
import type { Delivery } from "../../event/Envelope.ts"
import type { AnyOf, Trie } from "../../event/EventPattern.ts"
import * as KsiError from "../../event/KsiError.ts"
import type { Journal } from "../Journal.ts"
import type { Overflow } from "../KsiService.ts"
import { Backlog } from "./backlog.ts"
import { type Seat, Waiting } from "./waiting.ts"

type NonEmpty<A> = readonly [A, ...ReadonlyArray<A>]

/** What all followers of one bus share. */
export interface Shared {
  readonly journal: Journal["Service"]
  readonly clock: Clock.Clock
  /** How long one with `block` may take nothing while somebody waits, in milliseconds. */
  readonly patience: number
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  /** Who hears of the commits. */
  readonly listening: Trie<Follower>
}

/** What becomes of one that is slow. */
export interface Policy {
  readonly overflow: Overflow
  /** Facts, and requests, that may wait for it. */
  readonly capacity: number
  /** How often one with `sample` is told of something, in milliseconds. */
  readonly everyMillis: number
}

/** Where one begins. */
export interface Place {
  /** The last position that was stored when it opened. */
  readonly position: number
  /** The first one it wants. */
  readonly start: number
}

/** One subscriber. */
export class Follower {
  private readonly shared: Shared
  private readonly pattern: AnyOf
  private readonly overflow: Overflow
  private readonly capacity: number
  private readonly everyMillis: number
  /** Whether it may hear of what is called so; `undefined` where it may hear everything. */
  private readonly sees: ((name: string) => boolean) | undefined
  private readonly backlog = new Backlog()
  private readonly waiting: Waiting | undefined
  /** The last position that was stored when it opened. */
  readonly position: number
  /** Position of the first fact that has not been looked at; while it listens, of the first one that it wanted. */
  private reads: number
  /** Position of the first fact that did not fit, and is read back from the journal with all after it. */
  private spilled: number | undefined = undefined
  private detach: (() => void) | undefined = undefined
  private isClosed = false
  /** Whether it has ever caught up; before that it holds up nobody. */
  private wasLive = false
  private resume: (() => void) | undefined = undefined
  /** Why it hears nothing any more. */
  private refused: KsiError.KsiError | undefined = undefined
  /** Why it hears nothing after what is held for it. */
  private tooSlow: KsiError.KsiError | undefined = undefined
  /** When one with `sample` may be told of the next one. */
  private free = 0

  constructor(
    shared: Shared,
    pattern: AnyOf,
    { capacity, everyMillis, overflow }: Policy,
    { position, start }: Place,
    sees: ((name: string) => boolean) | undefined
  ) {
    this.shared = shared
    this.sees = sees
    this.pattern = pattern
    this.overflow = overflow
    this.capacity = capacity
    this.everyMillis = everyMillis
    this.reads = start
    this.position = position
    const { clock, fork, patience } = shared
    this.waiting = overflow !== "block" ? undefined : new Waiting({
      clock, patience, fork, capacity,
      requests: this.backlog.requests,
      reached: () => this.reached(),
      stalled: Effect.logWarning(`the subscription to ${pattern.text} has taken nothing for ${patience} ms; nobody waits for it any more until it does`)
    })
    this.attachIfCaughtUp()
  }

  // In one turn: nothing can be committed between the look at the head and the registration.
  private attachIfCaughtUp(): boolean {
    if (this.detach === undefined && !this.isClosed && this.reads > this.shared.journal.head()) {
      this.detach = this.shared.listening.addAll(this.pattern, this)
      this.wasLive = true
    }
    return this.detach !== undefined
  }

  close(): void {
    this.isClosed = true
    this.detach?.()
    this.detach = undefined
    this.waiting?.close()
  }

  /** It may hear nothing any more; whoever takes next is told why. */
  refuse(why: KsiError.KsiError): void {
    if (this.refused !== undefined) return
    this.refused = why
    this.backlog.take(Infinity)
    this.close()
    this.wake()
  }

  /** There is no room for what comes: it may be told of what came before, and no more. */
  private cutOff(position: number): void {
    if (this.tooSlow !== undefined) return
    this.tooSlow = KsiError.make(new KsiError.SlowConsumer({ pattern: this.pattern.text, buffer: this.capacity, position }))
    this.close()
  }

  // ------------------------------------------------------------------------------------------------------ what comes in

  /** A fact was committed. Call `wake` when all of the commit were told. */
  hear(fact: StoredFact): void {
    // A start beyond the head listens at once, and lets pass what comes before it.
    if (this.spilled !== undefined || this.tooSlow !== undefined || fact.position < this.reads || this.sees?.(fact.name) === false) return
    const { capacity, overflow } = this
    const { facts } = this.backlog
    // Those whose publishers wait are held beside the buffer, so that one goes on for each that is taken.
    if (facts.size < (overflow === "block" ? 2 * capacity : capacity)) facts.push(fact)
    else if (overflow === "latest" || overflow === "sample") facts.slide(fact)
    else if (overflow === "drop") facts.skip(1)
    else if (overflow === "disconnect") this.cutOff(fact.position)
    else this.spilled = fact.position
  }

  /** A request was made. Where its caller has to wait, the answer is its seat. */
  ask(request: Delivery): Seat | undefined {
    if (this.sees?.(request.name) === false || this.refused !== undefined || this.tooSlow !== undefined) return undefined
    const { requests } = this.backlog
    if (requests.size < this.capacity) requests.push(request)
    else if (this.overflow === "latest" || this.overflow === "sample") requests.slide(request)
    else if (this.overflow === "disconnect") this.cutOff(this.shared.journal.head() + 1)
    else if (this.waiting !== undefined && !this.waiting.isStalled) return this.waiting.caller(request)
    else requests.skip(1)
    return undefined
  }

  /** Lets the subscriber go on. */
  wake(): void {
    const { resume } = this
    this.resume = undefined
    resume?.()
  }

  // Facts before this position have room.
  private reached(): number {
    if (this.waiting === undefined || this.waiting.isStalled || !this.wasLive || this.isClosed) return Infinity
    const beyond = this.backlog.facts.at(this.capacity)
    return beyond?.position ?? this.spilled ?? (this.detach === undefined ? this.reads : Infinity)
  }

  /** What who says the fact at this position waits for, once it is stored; `undefined` where there is room. */
  room(position: number): Effect.Effect<void> | undefined {
    return position < this.reached() ? undefined : this.waiting?.publisher(position)
  }

  // ------------------------------------------------------------------------------------------------------ what goes out

  private readOn(): Effect.Effect<void, KsiError.KsiError> {
    const { head, read } = this.shared.journal
    const reached = head()
    return Effect.map(read({ from: this.reads, limit: this.capacity }), (page) => {
      // What was there has been removed.
      if (page.length === 0) this.reads = Math.max(this.reads, reached + 1)
      for (const fact of page) {
        this.reads = fact.position + 1
        if (this.pattern.matches(fact.name) && this.sees?.(fact.name) !== false) this.backlog.facts.push(fact)
      }
    })
  }

  // Whether the journal has to be read before anything is handed out.
  private isBehind(): boolean {
    if (this.tooSlow !== undefined) return false
    // Where publishers wait, it reads on before the buffer itself runs dry, so that one goes on for each that is taken.
    if (this.backlog.facts.size > (this.waiting === undefined ? 0 : this.capacity)) return false
    if (this.spilled !== undefined) {
      this.reads = this.spilled
      this.spilled = undefined
      this.detach?.()
      this.detach = undefined
    }
    return !this.attachIfCaughtUp()
  }

  /** Whether there is something to hand out, or to say. */
  private get hasSomething(): boolean {
    // The fiber may have yielded since it looked.
    return !this.backlog.isEmpty || this.spilled !== undefined || this.refused !== undefined || this.tooSlow !== undefined
  }

  private somethingCame(): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (this.hasSomething) return resume(Effect.void)
      // In a turn of its own: never on the stack of who publishes, and with all that was said in the meantime.
      this.resume = () => resume(Effect.yieldNow)
      return Effect.sync(() => {
        this.resume = undefined
      })
    })
  }

  /** See `Subscription`. */
  rests(wake: () => void): boolean {
    if (this.hasSomething || this.isBehind()) return false
    this.resume = wake
    return true
  }

  /** For how long one with `sample` is not told of what is there, in milliseconds; what was stored before it came is not sampled. */
  private early(): number {
    if (this.everyMillis === 0 || this.detach === undefined || this.backlog.isEmpty) return 0
    const now = this.shared.clock.currentTimeMillisUnsafe()
    if (this.free > now) return this.free - now
    this.free = now + this.everyMillis
    return 0
  }

  private handOut(): Effect.Effect<NonEmpty<Delivery>, KsiError.KsiError> {
    if (this.refused !== undefined) return Effect.fail(this.refused)
    const early = this.early()
    if (early > 0) return Effect.andThen(Effect.sleep(early), Effect.suspend(() => this.handOut()))
    // What has a policy is exact to the item; what loses nothing goes faster by the buffer.
    const taken = this.backlog.take(this.overflow === "spill" ? Infinity : 1)
    this.waiting?.advance()
    // What was let in may be more than may be seen by now.
    const { sees } = this
    const deliveries = sees === undefined ? taken : taken.filter(({ name }) => sees(name))
    // Looked at just here.
    if (deliveries.length > 0) return Effect.succeed(deliveries as unknown as NonEmpty<Delivery>)
    if (this.tooSlow !== undefined) return Effect.fail(this.tooSlow)
    return this.isBehind() || taken.length > 0 ? this.next : Effect.flatMap(this.somethingCame(), () => this.next)
  }

  /** See `Subscription`. */
  get next(): Effect.Effect<NonEmpty<Delivery>, KsiError.KsiError> {
    // One that only waits to be told holds nothing of this.
    return Effect.withFiber(({ id }) => {
      if (this.refused !== undefined) return Effect.fail(this.refused)
      this.waiting?.asked(id)
      return this.isBehind() ? Effect.flatMap(this.readOn(), () => this.handOut()) : this.handOut()
    })
  }

  /** See `Subscription`. */
  hears(name: string): boolean {
    return this.sees?.(name) ?? true
  }
}
