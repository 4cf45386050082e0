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
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { StoredFact } from "../event/CloudEvent.ts"
import * as Envelope from "../event/Envelope.ts"
import * as EventPattern from "../event/EventPattern.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
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
  /** Tells subscribers that asked for requests. Never waits. */
  readonly publishRequest: (envelope: Envelope.Envelope) => void
  /** How many subscriptions are open. */
  readonly count: () => number
}>()("ksi/bus/Subscriptions") {
  /** Over the journal in context. */
  static readonly layer: Layer.Layer<Subscriptions, never, Journal> = Layer.effect(
    Subscriptions,
    Effect.suspend(() => make)
  )
}

const parsePattern = (text: string): Effect.Effect<EventPattern.EventPattern, KsiError.KsiError> =>
  Result.match(EventPattern.parse(text), {
    onSuccess: Effect.succeed,
    onFailure: ({ problem }) =>
      KsiError.fail(new KsiError.PayloadInvalid({ event: "pubsub:subscribe", problems: [{ path: "pattern", problem }] }))
  })

const startOf = (from: SubscribeOptions["from"], head: number): Effect.Effect<number, KsiError.KsiError> => {
  if (from === undefined || from === "now") return Effect.succeed(head + 1)
  if (from === "start") return Effect.succeed(1)
  const position = Number(from)
  return Number.isSafeInteger(position) && position >= 0
    ? Effect.succeed(Math.max(1, position))
    : KsiError.fail(
      new KsiError.PayloadInvalid({
        event: "pubsub:subscribe",
        problems: [{ path: "from", problem: `expected a position, "start" or "now", got ${String(from)}` }]
      })
    )
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

const offerRequest = (listener: Listener, envelope: Envelope.Envelope, capacity: number): void => {
  if (listener.requests.length >= capacity) {
    listener.missed++
    return
  }
  listener.requests.push({
    id: envelope.id,
    name: envelope.name,
    data: envelope.data,
    metadata: envelope.metadata,
    position: undefined,
    version: undefined,
    missed: listener.missed
  })
  listener.missed = 0
}

// Facts and requests keep the order in which they happened as far as both are known.
const takeLive = (listener: Listener): ReadonlyArray<Envelope.Delivery> => {
  const deliveries = listener.facts.map(toDelivery)
  if (listener.requests.length > 0) {
    deliveries.push(...listener.requests)
    deliveries.sort((a, b) => a.metadata.timestamp - b.metadata.timestamp)
    // Facts must stay in position order whatever their times say.
    const facts = deliveries.filter((d) => d.position !== undefined).sort((a, b) => (Number(a.position) - Number(b.position)))
    let at = 0
    for (let i = 0; i < deliveries.length; i++) {
      if (deliveries[i]?.position !== undefined) deliveries[i] = facts[at++] ?? deliveries[i] as Envelope.Delivery
    }
    listener.requests = []
  }
  listener.facts = []
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
    const pattern = yield* parsePattern(text)
    const position = journal.head()
    let next = yield* startOf(options.from, position)
    let detach: (() => void) | undefined
    const listener: Listener = { facts: [], requests: [], overflow: undefined, missed: 0, wake: undefined }
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        count++
        return options.requests === true ? requests.add(pattern, listener) : () => {}
      }),
      (forget) =>
        Effect.sync(() => {
          count--
          forget()
          detach?.()
        })
    )
    // In one turn: nothing can be committed between the look at the head and the listener's registration.
    const attachIfCaughtUp = () => {
      if (detach === undefined && next > journal.head()) detach = facts.add(pattern, listener)
    }
    attachIfCaughtUp()
    const readOn = Effect.fnUntraced(function*() {
      const page = yield* journal.read({ from: next, limit: capacity })
      const last = page[page.length - 1]
      if (last !== undefined) next = last.position + 1
      return page.filter((fact) => pattern.matches(fact.name)).map(toDelivery)
    })
    const step = Effect.fnUntraced(function*() {
      for (;;) {
        const live = takeLive(listener).filter((d) => d.position === undefined || Number(d.position) >= next)
        if (live.length > 0) return live
        if (detach !== undefined && listener.overflow !== undefined) {
          next = listener.overflow
          listener.overflow = undefined
          detach()
          detach = undefined
        }
        attachIfCaughtUp()
        if (detach !== undefined) {
          yield* awaitWake(listener)
          continue
        }
        const page = yield* readOn()
        if (page.length > 0) return page
      }
    })
    // Both ways out of `step` are guarded by a length above 0.
    return { position, next: Effect.suspend(step) as unknown as Subscription["next"] }
  })

  return Subscriptions.of({
    open,
    publishRequest: (envelope) => {
      if (requests.isEmpty()) return
      requests.match(envelope.name, (listener) => {
        offerRequest(listener, envelope, capacity)
        wake(listener)
      })
    },
    count: () => count
  })
})
