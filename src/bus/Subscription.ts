/**
 * Following what happens: stored facts first, then live ones, without a gap and without a repeat.
 *
 * The rule: a subscriber never holds up a publisher and never holds more than a bounded buffer. One that falls behind
 * goes back to reading the journal, which is where its backlog is kept; only requests (which have no place in the
 * journal) are left out, and counted.
 *
 * How the gap is closed: the step from reading to listening happens in one turn of the event loop, after a look at the
 * journal's head. A commit is published in one turn as well, so it is either before that step (and read) or after it
 * (and heard).
 *
 * **Example**
 *
 * ```ts
 * yield* ksi.emit(Reserved, { sku: "tea", quantity: 1 })
 * const names = yield* ksi.subscribe("stock:*", { from: "start" }).pipe(
 *   Stream.take(1), Stream.map((fact) => fact.name), Stream.runCollect)
 * names                                       // ["stock:reserved"]
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { StoredFact } from "../event/CloudEvent.ts"
import * as Envelope from "../event/Envelope.ts"
import * as EventPattern from "../event/EventPattern.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import { plain } from "./Causation.ts"
import { Journal } from "./Journal.ts"
import type { SubscribeOptions } from "./KsiService.ts"

type NonEmpty<A> = readonly [A, ...ReadonlyArray<A>]

/** An open subscription. */
export interface Subscription {
  /** The last position that was stored when it opened. */
  readonly position: number
  /** Waits for what comes next: one or more deliveries, in order. */
  readonly next: Effect.Effect<NonEmpty<Envelope.Delivery>, KsiError.KsiError>
}

interface Listener {
  facts: Array<StoredFact>
  requests: Array<Envelope.Delivery>
  /** Position of the first fact that did not fit. */
  overflow: number | undefined
  missed: number
  wake: (() => void) | undefined
}

/** Delivers facts and requests to whoever follows them. */
export class Subscriptions extends Context.Service<Subscriptions, {
  /** Opens a subscription; it is live when this answers, and closed with the scope. */
  readonly open: (
    pattern: string,
    options?: SubscribeOptions
  ) => Effect.Effect<Subscription, KsiError.KsiError, Scope.Scope>
  /** Tells subscribers that asked for requests; `encode` makes JSON of the data. Never waits. */
  readonly publishRequest: (envelope: Envelope.Envelope, encode: (data: unknown) => unknown) => void
  /** How many subscriptions are open. */
  readonly count: () => number
}>()("ksi/bus/Subscriptions") {
  /** Over the journal in context. */
  static readonly layer: Layer.Layer<Subscriptions, never, Journal> = Layer.effect(
    Subscriptions,
    Effect.suspend(() => make)
  )
}

const startOf = (from: SubscribeOptions["from"], head: number): Effect.Effect<number, KsiError.KsiError> => {
  if (from === undefined || from === "now") return Effect.succeed(head + 1)
  if (from === "start") return Effect.succeed(1)
  const position = Number(from)
  return Number.isSafeInteger(position) && position >= 0
    ? Effect.succeed(Math.max(1, position))
    : KsiError.fail(KsiError.invalidAt("pubsub:subscribe", "from", `expected a position, "start" or "now", got ${String(from)}`))
}

const toDelivery = (fact: StoredFact): Envelope.Delivery => Envelope.fromFact(fact, fact.data)

const wake = (listener: Listener): void => {
  const resume = listener.wake
  listener.wake = undefined
  resume?.()
}

const offerFact = (listener: Listener, fact: StoredFact, capacity: number): void => {
  if (listener.overflow !== undefined) return
  if (listener.facts.length >= capacity) listener.overflow = fact.position
  else listener.facts.push(fact)
}

const offerRequest = (listener: Listener, envelope: Envelope.Envelope, data: unknown, capacity: number): void => {
  if (listener.requests.length >= capacity) {
    listener.missed++
    return
  }
  listener.requests.push({
    id: envelope.id,
    name: envelope.name,
    data,
    metadata: plain(envelope.metadata),
    position: undefined,
    version: undefined,
    missed: listener.missed
  })
  listener.missed = 0
}

// Facts keep the order of their positions; requests fall in between by time.
const takeLive = (listener: Listener): ReadonlyArray<Envelope.Delivery> => {
  const { facts, requests } = listener
  if (facts.length === 0 && requests.length === 0) return []
  listener.facts = []
  listener.requests = []
  const deliveries: Array<Envelope.Delivery> = []
  let next = 0
  for (const fact of facts) {
    for (let request = requests[next]; request !== undefined; request = requests[next]) {
      if (request.metadata.timestamp > fact.recordedAt) break
      deliveries.push(request)
      next++
    }
    deliveries.push(toDelivery(fact))
  }
  deliveries.push(...requests.slice(next))
  return deliveries
}

const awaitWake = (listener: Listener): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    // The fiber may have yielded since it looked.
    if (listener.facts.length > 0 || listener.requests.length > 0 || listener.overflow !== undefined) {
      return resume(Effect.void)
    }
    listener.wake = () => resume(Effect.void)
    return Effect.sync(() => {
      listener.wake = undefined
    })
  })

/** One subscriber: reads the journal until it has caught up, then listens until it falls behind. */
class Follower {
  readonly listener: Listener = { facts: [], requests: [], overflow: undefined, missed: 0, wake: undefined }
  private detach: (() => void) | undefined = undefined
  private readonly journal: Journal["Service"]
  private readonly facts: EventPattern.Trie<Listener>
  private readonly pattern: EventPattern.EventPattern
  private readonly capacity: number
  private next: number

  constructor(
    journal: Journal["Service"],
    facts: EventPattern.Trie<Listener>,
    pattern: EventPattern.EventPattern,
    capacity: number,
    next: number
  ) {
    this.journal = journal
    this.facts = facts
    this.pattern = pattern
    this.capacity = capacity
    this.next = next
    this.attachIfCaughtUp()
  }

  // In one turn: nothing can be committed between the look at the head and the listener's registration.
  private attachIfCaughtUp(): boolean {
    if (this.detach === undefined && this.next > this.journal.head()) {
      this.detach = this.facts.add(this.pattern, this.listener)
    }
    return this.detach !== undefined
  }

  close(): void {
    this.detach?.()
    this.detach = undefined
  }

  private fallBack(): void {
    if (this.detach === undefined || this.listener.overflow === undefined) return
    this.next = this.listener.overflow
    this.listener.overflow = undefined
    this.close()
  }

  private readonly readOn = Effect.suspend(() => this.journal.read({ from: this.next, limit: this.capacity })).pipe(
    Effect.map((page) => {
      const last = page[page.length - 1]
      if (last !== undefined) this.next = last.position + 1
      return page.filter((fact) => this.pattern.matches(fact.name)).map(toDelivery)
    })
  )

  /** One step; an empty answer means: once more. */
  private readonly step: Effect.Effect<ReadonlyArray<Envelope.Delivery>, KsiError.KsiError> = Effect.suspend(() => {
    // A start beyond the head listens at once, and lets pass what comes before it.
    const live = takeLive(this.listener).filter((d) => d.position === undefined || Number(d.position) >= this.next)
    if (live.length > 0) return Effect.succeed(live)
    this.fallBack()
    return this.attachIfCaughtUp() ? Effect.as(awaitWake(this.listener), []) : this.readOn
  })

  readonly take: Subscription["next"] = Effect.suspend(() => this.step).pipe(
    Effect.repeat({ until: (deliveries) => deliveries.length > 0 }),
    // Repeated until it is not empty.
    Effect.map((deliveries) => deliveries as unknown as NonEmpty<Envelope.Delivery>)
  )
}

const make = Effect.gen(function*() {
  const journal = yield* Journal
  const { subscriptionBuffer: capacity } = yield* Limits
  const facts = EventPattern.makeTrie<Listener>()
  const requests = EventPattern.makeTrie<Listener>()
  let count = 0

  yield* journal.listen((committed) => {
    if (facts.isEmpty()) return
    const touched = new Set<Listener>()
    for (const fact of committed) {
      facts.match(fact.name, (listener) => {
        offerFact(listener, fact, capacity)
        touched.add(listener)
      })
    }
    for (const listener of touched) wake(listener)
  })

  const open = Effect.fnUntraced(function*(text: string, options: SubscribeOptions = {}) {
    const pattern = yield* EventPattern.fromText(text)
    const position = journal.head()
    const start = yield* startOf(options.from, position)
    const follower = yield* Effect.acquireRelease(
      Effect.sync(() => {
        count++
        const follower = new Follower(journal, facts, pattern, capacity, start)
        const forget = options.requests === true ? requests.add(pattern, follower.listener) : undefined
        return { take: follower.take, close: () => (forget?.(), follower.close()) }
      }),
      ({ close }) =>
        Effect.sync(() => {
          count--
          close()
        })
    )
    return { position, next: follower.take }
  })

  return Subscriptions.of({
    open,
    publishRequest: (envelope, encode) => {
      if (requests.isEmpty()) return
      const touched: Array<Listener> = []
      requests.match(envelope.name, (listener) => touched.push(listener))
      if (touched.length === 0) return
      const data = encode(envelope.data)
      for (const listener of touched) {
        offerRequest(listener, envelope, data, capacity)
        wake(listener)
      }
    },
    count: () => count
  })
})
