// The doors of one connection: its greeting and its subscriptions. There may be very many of those, and most are silent most of
// the time: one has a fiber only while there is something to tell that may be told.
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { AuthorizerShape } from "../../bus/Authorizer.ts"
import type { SubscribeOptions } from "../../bus/KsiService.ts"
import type { Subscriptions } from "../../bus/Subscription.ts"
import type { Envelope } from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import * as EventPattern from "../../event/EventPattern.ts"
import { anonymous } from "../../event/Grant.ts"
import { isObject } from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import type { LimitsShape } from "../../event/Limits.ts"
import * as Control from "../Control.ts"
import * as Frame from "../Frame.ts"
import type { Outgoing } from "./Outgoing.ts"
import { type Fork, type Manner, Telling } from "./Telling.ts"
import type { Window } from "./Window.ts"

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
  readonly identity: Identity
  readonly fork: Fork
  /** Ends a stream of the connection. */
  readonly cancel: (streamId: string) => Effect.Effect<void, KsiError.KsiError>
  /** Told when a subscription has ended. */
  readonly closed: () => void
  /** Told of each token that was presented: who it stands for. */
  readonly greeted: ((principal: string) => void) | undefined
}

interface Wanted extends Manner {
  readonly pattern: string | ReadonlyArray<string>
  readonly options: SubscribeOptions
}

const everything = () => true

const refuse = (event: string, path: string, problem: string) => KsiError.fail(KsiError.invalidAt(event, path, problem))

const texts = (given: string | ReadonlyArray<string> | undefined): ReadonlyArray<string> =>
  given === undefined ? [] : typeof given === "string" ? [given] : given

/** The subscriptions of one connection. */
export class Followers {
  private readonly parts: Parts
  private readonly open = new Map<string, Telling>()
  // One door at a time, in the order of the requests: a client need not wait for the end before it begins again.
  private readonly turn = Semaphore.makeUnsafe(1)

  constructor(parts: Parts) {
    this.parts = parts
  }

  get isEmpty(): boolean {
    return this.open.size === 0
  }

  /** What one may be told; `undefined` where there is none. */
  windowOf(id: string | undefined): Window | undefined {
    return this.open.get(`pubsub ${id}`)?.window
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
      subscribe: (payload) => inTurn(this.subscribe(payload, principal, follow)),
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
    payload: Event.Payload<typeof Control.Subscribe>,
    principal: string,
    follow: (key: string, wanted: Wanted) => Effect.Effect<number, KsiError.KsiError>
  ) {
    const { credit, metadata: withMetadata, pattern, subscription_id } = payload
    const key = `pubsub ${subscription_id}`
    if (this.open.has(key)) {
      return yield* refuse("pubsub:subscribe", "subscription_id", `"${subscription_id}" is subscribed already`)
    }
    const options = yield* Control.optionsOf(payload, principal)
    const position = yield* follow(key, { id: subscription_id, pattern, options, withMetadata, credit, accepts: everything })
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
      accepts: single ? everything : ({ name }) => parsed.some((pattern) => pattern.matches(name))
    })
    return { status: "subscribed" as const, client_id, patterns }
  })

  private readonly follow = Effect.fnUntraced(function*(this: Followers, key: string, wanted: Wanted) {
    const { fork, limits, outgoing, subscriptions } = this.parts
    const { connectionSubscriptions: max } = limits
    if (this.open.size >= max) {
      return yield* KsiError.fail(new KsiError.LimitExceeded({ limit: "connectionSubscriptions", max, retryable: true }))
    }
    const telling = new Telling(outgoing, wanted, (cause) => this.ended(key, wanted.id, cause))
    // Taken before the journal is asked, so that a second request for the same name finds it.
    this.open.set(key, telling)
    const subscription = yield* subscriptions.open(wanted.pattern, wanted.options).pipe(
      Scope.provide(telling.scope), Effect.onError(() => this.close(key))
    )
    const begins = () => {
      if (this.open.get(key) === telling) telling.begin(subscription, fork)
    }
    return { position: subscription.position, begins }
  })

  /** It cannot go on: the client is told why. */
  private ended(key: string, id: string, cause: Cause.Cause<KsiError.KsiError>): Effect.Effect<void> {
    const { clock, outgoing } = this.parts
    const error = Cause.squash(cause)
    const reason = KsiError.is(error)
      ? error.reason
      : new KsiError.StoreFailure({ operation: "deliver", problem: "it broke; the daemon's log says more" })
    outgoing.append(Frame.encodeSubscriptionEnd(id, reason, clock.currentTimeMillisUnsafe()))
    const log = KsiError.is(error) ? Effect.void : Effect.logError(`subscription "${id}" broke`, cause)
    return Effect.andThen(log, this.forget(key))
  }

  // The fiber that calls this is ended with it; it cannot wait for its own end.
  private forget(key: string): Effect.Effect<void> {
    return Effect.sync(() => void this.parts.fork(this.close(key)))
  }

  private close(key: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      const opened = this.open.get(key)
      this.open.delete(key)
      if (opened === undefined) return Effect.void
      return Effect.ensuring(opened.close, Effect.sync(this.parts.closed))
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
