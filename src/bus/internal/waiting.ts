// Who waits for one subscriber with `overflow: "block"`: publishers whose fact is stored and has no room yet, and callers
// whose request has none. A subscriber that takes nothing for too long holds up nobody any more until it takes again.
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { Delivery } from "../../event/Envelope.ts"
import type { Lane } from "./backlog.ts"
import { steadyMillis } from "./steady.ts"

// Resumed in a turn of its own: a publisher goes on neither on the subscriber's stack nor in the middle of its take.
const go = Effect.yieldNow

class Place {
  done = false
  private resume: (() => void) | undefined = undefined

  release(): void {
    this.done = true
    const { resume } = this
    this.resume = undefined
    resume?.()
  }

  /** Waits for the release; `leave` is called when the waiting is interrupted. */
  wait(leave: () => void): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (this.done) return resume(Effect.void)
      this.resume = () => resume(go)
      return Effect.sync(leave)
    })
  }
}

class Publisher extends Place {
  readonly position: number

  constructor(position: number) {
    super()
    this.position = position
  }
}

class Caller extends Place {
  readonly request: Delivery
  /** Requests that were left out before this one. */
  missed: number

  constructor(request: Delivery, missed: number) {
    super()
    this.request = request
    this.missed = missed
  }
}

/** A request in the line for one subscriber. */
export interface Seat {
  /** Waits until there is room for it. */
  readonly taken: Effect.Effect<void>
  /** Gives it up, where it is still in the line. */
  readonly leave: () => void
}

interface Parts {
  readonly clock: Clock.Clock
  /** How long the subscriber may take nothing while somebody waits, in milliseconds. */
  readonly patience: number
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly requests: Lane<Delivery>
  readonly capacity: number
  /** Facts before this position have room. */
  readonly reached: () => number
  readonly stalled: Effect.Effect<void>
}

/** Publishers and callers that one subscriber holds up. */
export class Waiting {
  private readonly parts: Parts
  // By position, the lowest first.
  private readonly publishers: Array<Publisher> = []
  private readonly callers: Array<Caller> = []
  // Requests that were left out behind the last one in the line.
  private tail = 0
  private since = 0
  private takenAt = 0
  private watch: Fiber.Fiber<void> | undefined = undefined
  /** Whether it holds up nobody until it takes again. */
  isStalled = false
  private taker: number | undefined = undefined

  constructor(parts: Parts) {
    this.parts = parts
  }

  private get isEmpty(): boolean {
    return this.publishers.length === 0 && this.callers.length === 0
  }

  // One watch for all that wait; it ends by itself when it finds nobody.
  private begin(place: Place): void {
    if (this.isEmpty) this.since = steadyMillis(this.parts.clock)
    if (place instanceof Caller) this.callers.push(place)
    else if (place instanceof Publisher) this.insert(place)
    this.watch ??= this.parts.fork(this.watching)
  }

  private insert(publisher: Publisher): void {
    let at = this.publishers.length
    while (at > 0 && (this.publishers[at - 1]?.position ?? 0) > publisher.position) at--
    this.publishers.splice(at, 0, publisher)
  }

  private readonly watching: Effect.Effect<void> = Effect.suspend(() => {
    const { clock, patience, stalled } = this.parts
    const left = Math.max(this.since, this.takenAt) + patience - steadyMillis(clock)
    if (!this.isEmpty && left > 0) return Effect.andThen(Effect.sleep(left), this.watching)
    this.watch = undefined
    if (this.isEmpty) return Effect.void
    this.isStalled = true
    this.releaseAll()
    return stalled
  })

  // With nobody in the line the next request goes to the buffer itself.
  private forgetTail(): void {
    this.parts.requests.skip(this.tail)
    this.tail = 0
  }

  private releaseAll(): void {
    for (const publisher of this.publishers.splice(0)) publisher.release()
    for (const caller of this.callers.splice(0)) {
      this.parts.requests.skip(caller.missed + 1)
      caller.release()
    }
    this.forgetTail()
  }

  /** Waits until the fact at a position has room. The subscriber's own fiber does not wait for itself. */
  publisher(position: number): Effect.Effect<void> {
    return Effect.withFiber((fiber) => {
      if (fiber.id === this.taker || position < this.parts.reached()) return Effect.void
      const publisher = new Publisher(position)
      this.begin(publisher)
      return publisher.wait(() => {
        const index = this.publishers.indexOf(publisher)
        if (index >= 0) this.publishers.splice(index, 1)
      })
    })
  }

  /** Puts a request at the end of the line. */
  caller(request: Delivery): Seat {
    const caller = new Caller(request, this.tail)
    this.tail = 0
    this.begin(caller)
    const leave = () => {
      const index = this.callers.indexOf(caller)
      if (index < 0) return
      this.callers.splice(index, 1)
      const following = this.callers[index]
      const count = caller.missed + 1
      if (following === undefined) this.tail += count
      else following.missed += count
      if (this.callers.length === 0) this.forgetTail()
      caller.release()
    }
    const taken = Effect.withFiber((fiber) => {
      if (fiber.id === this.taker) leave()
      return caller.wait(leave)
    })
    return { taken, leave }
  }

  /** Told that the subscriber's fiber asks for more: it lives. */
  asked(fiber: number): void {
    this.taker = fiber
    this.isStalled = false
    this.takenAt = steadyMillis(this.parts.clock)
  }

  /** Lets those go on for whom there is room now. */
  readonly advance = (): void => {
    const { capacity, reached, requests } = this.parts
    for (let first = this.callers[0]; first !== undefined && requests.size < capacity; first = this.callers[0]) {
      this.callers.shift()
      requests.push(first.request, first.missed)
      first.release()
    }
    if (this.callers.length === 0) this.forgetTail()
    if (this.publishers.length === 0) return
    const end = reached()
    for (let first = this.publishers[0]; first !== undefined && first.position < end; first = this.publishers[0]) {
      this.publishers.shift()
      first.release()
    }
  }

  /** Lets everybody go. */
  close(): void {
    this.releaseAll()
    this.watch?.interruptUnsafe()
    this.watch = undefined
  }
}
