/**
 * Following what happens: stored facts first, then live ones, without a gap and without a repeat.
 *
 * The rule: a subscriber never holds more than a bounded buffer, and holds up a publisher only where it says so. What
 * becomes of one that is slower than what it follows is its `overflow`; `buffer` is how many facts, and how many
 * requests, may wait for it. The two are held apart: a flood of requests pushes out no fact.
 *
 * | overflow | facts beyond the buffer | requests beyond the buffer | publishers |
 * | --- | --- | --- | --- |
 * | `spill` (default) | read back from the journal, none is lost | left out, counted | never wait |
 * | `block` | none is lost | wait with their callers | wait until there is room |
 * | `latest` | push out the oldest, counted | push out the oldest, counted | never wait |
 * | `drop` | left out, counted | left out, counted | never wait |
 * | `sample` | the newest, once in `every`; the others counted | as facts | never wait |
 * | `disconnect` | it fails with `SlowConsumer` | it fails with `SlowConsumer` | never wait |
 *
 * `missed` of a delivery is how many of its kind were left out just before it. The policy is for what comes live: what is
 * stored when a subscription opens is read page by page, in full, whatever the policy.
 *
 * Whom `principal` names hears only what it may subscribe to: the rest takes no room, and is not counted. When it may hear
 * nothing of its pattern any more, `next` fails with `PermissionDenied` (`Unauthenticated` where its token has ended).
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
 *
 * const subscriptions = yield* Subscription.Subscriptions
 * const newest = yield* subscriptions.open("stock:*", { overflow: "latest", buffer: 1 })
 * for (const quantity of [1, 2, 3]) yield* ksi.emit(Reserved, { sku: "tea", quantity })
 * const [fact] = yield* newest.next
 * fact.data                                   // { sku: "tea", quantity: 3 }
 * fact.missed                                 // 2
 * ```
 *
 * **Gotchas** on `block`:
 *
 * - `emit` waits when its fact is stored and its handlers run; interrupting it, or a timeout around it, ends the wait and
 *   loses nothing. A request waits before it is carried out; its deadline counts, and one whose caller stops waiting is
 *   not made, and counted in `missed`.
 * - The wait ends when there is room, when the subscription closes, and when the subscriber has taken nothing for
 *   `subscriptionBlockMillis` (10 seconds) while somebody waited. A warning is logged then, and nobody waits for it until
 *   it takes again. It still misses no fact; requests beyond its buffer are left out and counted meanwhile.
 * - The fiber that takes never waits for itself: a subscriber may emit what it follows. One that emits from other fibers,
 *   and waits for them, stands still until that time has passed.
 * - Facts that are not emitted (an import, an append to the store) wait for nobody; one that is emitted after them waits
 *   until the subscriber has come that far. Until it has caught up for the first time nobody waits for it either.
 * - Up to `buffer` facts whose publishers wait are held beside the buffer; those beyond are read back from the journal.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type * as Envelope from "../event/Envelope.ts"
import * as EventPattern from "../event/EventPattern.ts"
import * as Grant from "../event/Grant.ts"
import * as Json from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import { Authorizer } from "./Authorizer.ts"
import { plain } from "./Causation.ts"
import { Follower } from "./internal/follower.ts"
import type { Seat } from "./internal/waiting.ts"
import { Journal } from "./Journal.ts"
import type { Overflow, SubscribeOptions } from "./KsiService.ts"

type NonEmpty<A> = readonly [A, ...ReadonlyArray<A>]

/** An open subscription. */
export interface Subscription {
  /** The last position that was stored when it opened. */
  readonly position: number
  /**
   * Waits for what comes next: one or more deliveries, in order; with a policy other than `spill` always one. For one
   * fiber at a time. Interrupting the wait loses nothing.
   */
  readonly next: Effect.Effect<NonEmpty<Envelope.Delivery>, KsiError.KsiError>
  /**
   * Whether there is nothing for it now: then `wake` is called once there is, on the stack of who published it. For whoever has so
   * many that a fiber for each is too much.
   */
  rests(wake: () => void): boolean
  /** Whether its principal may still hear of this event: a delivery may have waited for a slow reader since it came out. */
  hears(name: string): boolean
}

/** Delivers facts and requests to whoever follows them. */
export class Subscriptions extends Context.Service<Subscriptions, {
  /**
   * Opens a subscription; it is live when this answers, and closed with the scope. Fails with `PatternInvalid`,
   * `PayloadInvalid` for an option that makes no sense, `LimitExceeded` for a buffer beyond `subscriptionBuffer`,
   * `PermissionDenied` where the principal may hear nothing of it.
   */
  readonly open: (
    pattern: string | ReadonlyArray<string>,
    options?: SubscribeOptions
  ) => Effect.Effect<Subscription, KsiError.KsiError, Scope.Scope>
  /**
   * Tells subscribers that asked for requests; `encode` makes JSON of the data. `undefined` when all took it at once;
   * else what its caller waits for before it is carried out: room in the buffers of those with `overflow: "block"`.
   */
  readonly publishRequest: (
    envelope: Envelope.Envelope,
    encode: (data: unknown) => unknown
  ) => Effect.Effect<void> | undefined
  /**
   * What who emitted the fact at this position waits for, now that it is stored: room in the buffers of those with
   * `overflow: "block"`. `undefined` where there is room. Interrupting the wait changes nothing but the wait.
   */
  readonly room: (name: string, position: number) => Effect.Effect<void> | undefined
  /** How many subscriptions are open. */
  readonly count: () => number
}>()("ksi/bus/Subscriptions") {
  /** Over the journal in context. */
  static readonly layer: Layer.Layer<Subscriptions, never, Journal> = Layer.effect(
    Subscriptions,
    Effect.suspend(() => make)
  )
}

const refuse = (path: string, problem: string) => KsiError.fail(KsiError.invalidAt("pubsub:subscribe", path, problem))

const startOf = (from: SubscribeOptions["from"], head: number): Effect.Effect<number, KsiError.KsiError> => {
  if (from === undefined || from === "now") return Effect.succeed(head + 1)
  if (from === "start") return Effect.succeed(1)
  const position = Number(from)
  return Number.isSafeInteger(position) && position >= 0
    ? Effect.succeed(Math.max(1, position))
    : refuse("from", `expected a position, "start" or "now", got ${String(from)}`)
}

const policies: ReadonlySet<Overflow> = new Set<Overflow>(["spill", "block", "latest", "drop", "sample", "disconnect"])

const defaultEvery: Duration.Input = "1 second"

// Not every program has a compiler behind it.
const policyOf = Effect.fnUntraced(function*({ buffer, every, overflow = "spill" }: SubscribeOptions, max: number) {
  if (!policies.has(overflow)) return yield* refuse("overflow", `expected ${[...policies].join(", ")}, got ${String(overflow)}`)
  if (every !== undefined && overflow !== "sample") return yield* refuse("every", `is for "sample", not for "${overflow}"`)
  if (buffer !== undefined && (!Number.isSafeInteger(buffer) || buffer < 1)) return yield* refuse("buffer", `expected an integer from 1, got ${String(buffer)}`)
  if (buffer !== undefined && buffer > max) {
    return yield* KsiError.fail(new KsiError.LimitExceeded({ limit: "subscriptionBuffer", max, actual: buffer, retryable: false }))
  }
  if (overflow !== "sample") return { overflow, capacity: buffer ?? max, everyMillis: 0 }
  if (buffer !== undefined && buffer !== 1) return yield* refuse("buffer", `is 1 with "sample", got ${buffer}`)
  const everyMillis = Option.match(Duration.fromInput(every ?? defaultEvery), { onNone: () => Number.NaN, onSome: Duration.toMillis })
  if (!(everyMillis >= 1 && everyMillis < Infinity)) return yield* refuse("every", `expected a duration from 1 millisecond, got ${String(every)}`)
  return { overflow, capacity: 1, everyMillis }
})

// Who listens never breaks a call, and changes nothing of it: data that has no JSON form is left out.
const jsonOf = (data: unknown, encode: (data: unknown) => unknown): unknown => {
  try {
    return Json.frozen(encode(data))
  } catch {
    return null
  }
}

const toDelivery = (envelope: Envelope.Envelope, encode: (data: unknown) => unknown): Envelope.Delivery => {
  const { id, metadata, name } = envelope
  return { id, name, data: jsonOf(envelope.data, encode), metadata: plain(metadata), position: undefined, version: undefined, missed: 0 }
}

const waitAll = (seats: ReadonlyArray<Seat>): Effect.Effect<void> =>
  Effect.onInterrupt(
    Effect.forEach(seats, ({ taken }) => taken, { discard: true }),
    () => Effect.sync(() => seats.forEach(({ leave }) => leave()))
  )

type Followers = EventPattern.Trie<Follower>
type Shape = Subscriptions["Service"]

const tell = (requests: Followers): Shape["publishRequest"] => (envelope, encode) => {
  if (requests.isEmpty()) return undefined
  const touched: Array<Follower> = []
  requests.match(envelope.name, (follower) => touched.push(follower))
  if (touched.length === 0) return undefined
  const delivery = toDelivery(envelope, encode)
  const seats: Array<Seat> = []
  for (const follower of touched) {
    const seat = follower.ask(delivery)
    if (seat !== undefined) seats.push(seat)
    follower.wake()
  }
  return seats.length === 0 ? undefined : waitAll(seats)
}

const roomIn = (blocking: Followers): Shape["room"] => (name, position) => {
  if (blocking.isEmpty()) return undefined
  const waits: Array<Effect.Effect<void>> = []
  blocking.match(name, (follower) => {
    const wait = follower.room(position)
    if (wait !== undefined) waits.push(wait)
  })
  return waits.length === 0 ? undefined : Effect.forEach(waits, (wait) => wait, { discard: true })
}

/** Those who may not hear everything, and what becomes of them when it is less than before. */
const makeGuard = Effect.gen(function*() {
  const authorizer = yield* Authorizer
  const guarded = new Set<() => void>()
  yield* authorizer.changes(() => {
    for (const look of guarded) look()
  })
  return (principal: string, { each, text }: EventPattern.AnyOf) => {
    const refusal = () =>
      each.some((pattern) => authorizer.hears(principal, pattern))
        ? undefined
        : KsiError.make(authorizer.refusal(principal, "subscribe", text))
    return {
      refusal,
      sees: (name: string) => authorizer.allows(principal, "subscribe", name),
      /** Ends the follower when there is nothing left for it to hear; until what is returned is called. */
      watch: (follower: Follower) => {
        const look = () => {
          const why = refusal()
          if (why !== undefined) follower.refuse(why)
        }
        guarded.add(look)
        return () => guarded.delete(look)
      }
    }
  }
})

/** What `Subscriptions.layer` provides. */
export const make = Effect.gen(function*() {
  const guardOf = yield* makeGuard
  const journal = yield* Journal
  const limits = yield* Limits
  const clock = yield* Clock.Clock
  // Without the scope of the layer, which is not that of a subscription.
  const context = Context.omit(Scope.Scope)(yield* Effect.context<Scope.Scope>()) as Context.Context<never>
  const listening: Followers = EventPattern.makeTrie()
  const blocking: Followers = EventPattern.makeTrie()
  const requests: Followers = EventPattern.makeTrie()
  const shared = { journal, clock, patience: limits.subscriptionBlockMillis, fork: Effect.runForkWith(context), listening }
  let count = 0

  yield* journal.listen((committed) => {
    if (listening.isEmpty()) return
    const touched = new Set<Follower>()
    for (const fact of committed) {
      listening.match(fact.name, (follower) => {
        follower.hear(fact)
        touched.add(follower)
      })
    }
    for (const follower of touched) follower.wake()
  }, listening.isEmpty)

  const open = Effect.fnUntraced(function*(texts: string | ReadonlyArray<string>, options: SubscribeOptions = {}) {
    const patterns = yield* EventPattern.anyOf(texts)
    const policy = yield* policyOf(options, limits.subscriptionBuffer)
    const { principal = Grant.owner } = options
    const guard = principal === Grant.owner ? undefined : guardOf(principal, patterns)
    const refused = guard?.refusal()
    if (refused !== undefined) return yield* Effect.fail(refused)
    const position = journal.head()
    const start = yield* startOf(options.from, position)
    const scope = yield* Effect.scope
    return yield* Effect.uninterruptible(Effect.suspend(() => {
      count++
      const follower = new Follower(shared, patterns, policy, { position, start }, guard?.sees)
      const unwatch = guard?.watch(follower)
      const unblock = policy.overflow === "block" ? blocking.addAll(patterns, follower) : undefined
      const unask = options.requests === true ? requests.addAll(patterns, follower) : undefined
      // There may be very many, for long: it keeps nothing of what asked for it.
      const close = Effect.sync(() => {
        count--
        follower.close()
        unwatch?.()
        unblock?.()
        unask?.()
      })
      return Effect.as(Scope.addFinalizer(scope, close), follower)
    }))
  })

  return Subscriptions.of({ open, publishRequest: tell(requests), room: roomIn(blocking), count: () => count })
})
