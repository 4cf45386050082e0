// The doors of one connection: its greeting and its subscriptions. Each subscription has a scope of its own, inside the
// connection's, with a fiber that pulls deliveries for as long as they can be written.
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { AuthorizerShape } from "../../bus/Authorizer.ts"
import type { SubscribeOptions } from "../../bus/KsiService.ts"
import type { Subscription, Subscriptions } from "../../bus/Subscription.ts"
import type { Delivery, Envelope } from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import * as EventPattern from "../../event/EventPattern.ts"
import { anonymous } from "../../event/Grant.ts"
import { isObject } from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import type { LimitsShape } from "../../event/Limits.ts"
import * as Control from "../Control.ts"
import * as Frame from "../Frame.ts"
import type { Outgoing } from "./Outgoing.ts"

/** Runs an effect in a fiber of its own. */
export type Fork = <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>

/** Who is at the other end of a connection; a token changes it. */
export interface Identity {
  principal: string
  /** It has said which version of the wire it speaks: it knows frames of several items. */
  isGreeted: boolean
}

interface Parts {
  readonly subscriptions: Subscriptions["Service"]
  readonly authorizer: AuthorizerShape
  readonly limits: LimitsShape
  readonly clock: Clock.Clock
  readonly outgoing: Outgoing
  readonly scope: Scope.Scope
  readonly identity: Identity
  readonly fork: Fork
  /** Ends a stream of the connection. */
  readonly cancel: (streamId: string) => Effect.Effect<void, KsiError.KsiError>
  /** Told when a subscription has ended. */
  readonly closed: () => void
  /** Told of each token that was presented: who it stands for. */
  readonly greeted: ((principal: string) => void) | undefined
}

interface Wanted {
  /** What the client calls it, as its frames say. */
  readonly id: string
  readonly pattern: string
  readonly options: SubscribeOptions
  readonly withMetadata?: boolean | undefined
  readonly accepts: (delivery: Delivery) => boolean
}

const refuse = (event: string, path: string, problem: string) => KsiError.fail(KsiError.invalidAt(event, path, problem))

const texts = (given: string | ReadonlyArray<string> | undefined): ReadonlyArray<string> =>
  given === undefined ? [] : typeof given === "string" ? [given] : given

/** The subscriptions of one connection. */
export class Followers {
  private readonly parts: Parts
  private readonly open = new Map<string, { readonly scope: Scope.Closeable; readonly id: string }>()
  // One door at a time, in the order of the requests: a client need not wait for the end before it begins again.
  private readonly turn = Semaphore.makeUnsafe(1)

  constructor(parts: Parts) {
    this.parts = parts
  }

  get isEmpty(): boolean {
    return this.open.size === 0
  }

  /** Ends all subscriptions. */
  readonly closeAll: Effect.Effect<void> = Effect.suspend(() => Effect.forEach([...this.open.keys()], (key) => this.close(key), { discard: true }))

  /**
   * Takes the token out of a greeting and becomes who it stands for, in this very step: the next line is theirs, whatever
   * middleware does with the greeting. Without a token nothing changes.
   */
  greet(data: unknown): { readonly data: unknown; readonly problem: KsiError.Reason | undefined } {
    if (!isObject(data) || !Object.hasOwn(data, "token")) return { data, problem: undefined }
    const { token, ...rest } = data
    const bearer = this.parts.authorizer.authenticate(token)
    const principal = Result.getOrElse(bearer, () => anonymous)
    this.become(principal)
    this.parts.greeted?.(principal)
    return { data: rest, problem: Result.isFailure(bearer) ? bearer.failure : undefined }
  }

  /** What was followed was followed by somebody else. */
  private become(principal: string): void {
    const { clock, fork, identity, outgoing } = this.parts
    if (identity.principal === principal) return
    identity.principal = principal
    const reason = new KsiError.Unauthenticated({ problem: `the connection is ${principal} now` })
    const end = Effect.suspend(() => Effect.forEach([...this.open], ([key, { id }]) => {
      outgoing.append(Frame.encodeSubscriptionEnd(id, reason, clock.currentTimeMillisUnsafe()))
      return this.close(key)
    }, { discard: true }))
    // In turn: one that is being opened is closed too, and those of the new one come after.
    fork(this.turn.withPermits(1)(end))
  }

  /**
   * Opens the doors to a request; call what is returned once its reply is on its way. `problem` is what is wrong with the
   * token of a greeting.
   */
  attach(envelope: Envelope, clientId: string | undefined, problem: KsiError.Reason | undefined): () => void {
    const { principal } = envelope.metadata
    // The first delivery must not overtake the reply that announces the subscription.
    let begin: (() => void) | undefined
    const follow = (key: string, wanted: Wanted) =>
      Effect.map(this.follow(key, { ...wanted, options: { ...wanted.options, principal } }), ({ begins, position }) => {
        begin = begins
        return position
      })
    const inTurn = this.turn.withPermits(1)
    Control.attach(envelope, {
      hello: (payload) => problem === undefined ? this.hello(payload, principal) : KsiError.fail(problem),
      subscribe: (payload) => inTurn(this.subscribe(payload, follow)),
      unsubscribe: ({ subscription_id }) =>
        inTurn(Effect.as(this.end(`pubsub ${subscription_id}`, subscription_id), { status: "unsubscribed", subscription_id })),
      cancel: ({ stream_id }) => Effect.as(this.parts.cancel(stream_id), { status: "cancelled", stream_id }),
      monitor: (payload) => inTurn(this.monitor(payload, clientId, follow)),
      unmonitor: ({ client_id = clientId ?? "client" }) =>
        inTurn(Effect.as(this.end(`monitor ${client_id}`, client_id), { status: "unsubscribed", client_id }))
    })
    return () => begin?.()
  }

  private hello({ version }: Event.Payload<typeof Control.Hello>, principal: string) {
    if (version !== Control.version) {
      return refuse("wire:hello", "version", `this daemon speaks version ${Control.version}, got ${version}`)
    }
    this.parts.identity.isGreeted = true
    return Effect.succeed({ version: Control.version, limits: { ...this.parts.limits }, principal })
  }

  private readonly subscribe = Effect.fnUntraced(function*(
    this: Followers,
    { metadata: withMetadata, pattern, subscription_id, ...options }: Event.Payload<typeof Control.Subscribe>,
    follow: (key: string, wanted: Wanted) => Effect.Effect<number, KsiError.KsiError>
  ) {
    const key = `pubsub ${subscription_id}`
    if (this.open.has(key)) {
      return yield* refuse("pubsub:subscribe", "subscription_id", `"${subscription_id}" is subscribed already`)
    }
    const position = yield* follow(key, { id: subscription_id, pattern, options, withMetadata, accepts: () => true })
    return { status: "subscribed" as const, subscription_id, position }
  })

  private readonly monitor = Effect.fnUntraced(function*(
    this: Followers,
    payload: Event.Payload<typeof Control.MonitorSubscribe>,
    clientId: string | undefined,
    follow: (key: string, wanted: Wanted) => Effect.Effect<number, KsiError.KsiError>
  ) {
    const given = [...texts(payload.event_patterns), ...texts(payload.patterns)]
    const patterns = given.length === 0 ? ["*"] : given
    const parsed = yield* Effect.forEach(patterns, EventPattern.fromText)
    const { client_id = clientId ?? "client" } = payload
    const key = `monitor ${client_id}`
    yield* this.close(key)
    // Patterns may overlap: one subscription to everything tells of each event once.
    const [only] = patterns
    const single = patterns.length === 1 && only !== undefined
    yield* follow(key, {
      id: client_id,
      pattern: single ? only : "*",
      options: { requests: true },
      accepts: single ? () => true : ({ name }) => parsed.some((pattern) => pattern.matches(name))
    })
    return { status: "subscribed" as const, client_id, patterns }
  })

  private readonly follow = Effect.fnUntraced(function*(this: Followers, key: string, wanted: Wanted) {
    const { limits, subscriptions } = this.parts
    const { connectionSubscriptions: max } = limits
    if (this.open.size >= max) {
      return yield* KsiError.fail(new KsiError.LimitExceeded({ limit: "connectionSubscriptions", max, retryable: true }))
    }
    const scope = yield* Scope.fork(this.parts.scope)
    // Taken before the journal is asked, so that a second request for the same name finds it.
    this.open.set(key, { scope, id: wanted.id })
    const subscription = yield* subscriptions.open(wanted.pattern, wanted.options).pipe(
      Scope.provide(scope), Effect.onError(() => this.close(key))
    )
    const begins = () => {
      if (this.open.get(key)?.scope === scope) Fiber.runIn(this.parts.fork(this.deliver(key, wanted, subscription)), scope)
    }
    return { position: subscription.position, begins }
  })

  private deliver(key: string, wanted: Wanted, subscription: Subscription): Effect.Effect<void> {
    const { clock, outgoing } = this.parts
    const next = Effect.andThen(outgoing.room, subscription.next)
    const tellAll = Effect.fnUntraced(function*(this: Followers) {
      for (;;) {
        for (const delivery of yield* next) {
          if (!outgoing.hasRoom) yield* outgoing.room
          if (subscription.hears(delivery.name) && wanted.accepts(delivery)) outgoing.append(Frame.encodeDelivery(delivery, wanted.id, delivery.data, wanted.withMetadata))
        }
      }
    })
    return tellAll.call(this).pipe(Effect.catchCause((cause) => {
      if (Cause.hasInterruptsOnly(cause)) return Effect.interrupt
      const error = Cause.squash(cause)
      const reason = KsiError.is(error)
        ? error.reason
        : new KsiError.StoreFailure({ operation: "deliver", problem: "it broke; the daemon's log says more" })
      outgoing.append(Frame.encodeSubscriptionEnd(wanted.id, reason, clock.currentTimeMillisUnsafe()))
      const log = KsiError.is(error) ? Effect.void : Effect.logError(`subscription "${wanted.id}" broke`, cause)
      return Effect.andThen(log, this.forget(key))
    }))
  }

  // The fiber that calls this runs in the scope; it cannot wait for its own end.
  private forget(key: string): Effect.Effect<void> {
    return Effect.sync(() => void this.parts.fork(this.close(key)))
  }

  private close(key: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      const opened = this.open.get(key)
      this.open.delete(key)
      if (opened === undefined) return Effect.void
      return Effect.ensuring(Scope.close(opened.scope, Exit.void), Effect.sync(this.parts.closed))
    })
  }

  private end(key: string, id: string): Effect.Effect<void, KsiError.KsiError> {
    return Effect.suspend(() =>
      this.open.has(key)
        ? this.close(key)
        : KsiError.fail(new KsiError.NotFound({ what: "subscription", id, similar: [] }))
    )
  }
}
