// The five words over a connection that comes back: what `Remote.layer` is.
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { type Answer, DeclaredFailure, type DispatchOptions, type KsiShape, type StreamOptions, type SubscribeOptions } from "../../bus/KsiService.ts"
import type { Expectations } from "../../bus/Journal.ts"
import * as StreamTimeout from "../../bus/StreamTimeout.ts"
import * as Envelope from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import * as EventCodec from "../../event/EventCodec.ts"
import { isObject } from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import * as Client from "../Client.ts"
import { RemoteFailure } from "../Frame.ts"
import { addressOf } from "./dial.ts"

// ------------------------------------------------------------------------------------------------------------- models

/** Where the daemon is, and how to deal with a connection that is lost. */
export interface Options {
  /** `unix:` and the path of the daemon's socket, or the path alone; `tcp://host:port`; `ws://host:port`, or `wss:`, `http:`, `https:`. */
  readonly url: string
  /** Says who the program is; without one it is whoever opened the socket, and over TCP nobody. */
  readonly token?: string | Redacted.Redacted | undefined
  /** How long the daemon may take to accept a connection. Default: 10 seconds. */
  readonly connectTimeout?: Duration.Input | undefined
  /** One that says nothing for half of it is asked whether it is there, and is lost where it does not answer in another half. Default: the limit `idleMillis`, 1 minute. */
  readonly idle?: Duration.Input | undefined
  /** A label for everything this program sends. */
  readonly clientId?: string | undefined
  /** Requests that may wait for their answer; more wait for their turn. Default: 64. */
  readonly outstanding?: number | undefined
  /** When to try again, from the moment a connection is lost; where it ends, and where the daemon does not know the token any more, so does the program's connection. Default: from 50 ms to 5 s, for ever, with jitter. */
  readonly reconnect?: Schedule.Schedule<unknown, KsiError.KsiError> | undefined
  /** Whether what the connection cut off is sent again when it is back, and is carried out once all the same. Default: no. */
  readonly resend?: boolean | undefined
}

/** How the connection is. */
export type State =
  | { readonly _tag: "connecting" }
  | { readonly _tag: "connected" }
  | { readonly _tag: "waiting"; readonly problem: string }
  /** There will be none any more. `error`: why, where that is not that it was lost; what is asked then fails with it. */
  | { readonly _tag: "closed"; readonly problem: string; readonly error?: KsiError.KsiError | undefined }

// --------------------------------------------------------------------------------------------------------------- link

type Connected = Client.Client["Service"]

const defaultReconnect: Schedule.Schedule<unknown> = Schedule.jittered(
  Schedule.modifyDelay(Schedule.exponential("50 millis", 1.6), ({ duration }) => Effect.succeed(Duration.min(duration, Duration.seconds(5))))
)

const clientOptions = ({ clientId, connectTimeout, idle, outstanding, token, url }: Options): Client.ConnectOptions => ({
  url, clientId, outstanding, connectTimeout, idle, token: Redacted.isRedacted(token) ? Redacted.value(token) : token
})

const isLost = (error: unknown): error is KsiError.KsiError & { readonly reason: KsiError.ConnectionLost } =>
  KsiError.is(error) && error.reason._tag === "ConnectionLost"

/** A connection that comes back for as long as the scope is open. */
const makeLink = Effect.fnUntraced(function*(options: Options) {
  const { reconnect = defaultReconnect } = options
  const wanted = clientOptions(options)
  const state = yield* SubscriptionRef.make<State>({ _tag: "connecting" })
  const parent = yield* Effect.scope
  let client: Connected | undefined

  const attempt = Effect.gen(function*() {
    yield* SubscriptionRef.set(state, { _tag: "connecting" })
    const scope = yield* Scope.fork(parent)
    const connected = yield* Client.connect(wanted).pipe(
      Scope.provide(scope),
      Effect.tapError((error) => Effect.andThen(Scope.close(scope, Exit.void), SubscriptionRef.set(state, { _tag: "waiting", problem: error.message })))
    )
    client = connected
    yield* SubscriptionRef.set(state, { _tag: "connected" })
    return { connected, scope }
  })

  const address = addressOf(wanted.url)
  const lost = (problem: string) => KsiError.fail(new KsiError.ConnectionLost({ address, problem, unsent: true }))
  /** For good: what was refused is refused again. */
  const close = (error: KsiError.KsiError) =>
    SubscriptionRef.set(state, { _tag: "closed", problem: error.message, error: isLost(error) ? undefined : error })
  const first = yield* attempt
  yield* Effect.forkScoped(Effect.gen(function*() {
    for (let { connected, scope } = first;;) {
      const ended = yield* Effect.result(connected.closed)
      client = undefined
      if (Result.isFailure(ended)) return yield* Effect.andThen(close(ended.failure), Scope.close(scope, Exit.void))
      const problem = ended.success
      yield* SubscriptionRef.set(state, { _tag: "waiting", problem })
      yield* Scope.close(scope, Exit.void)
      // That it was lost is the first failure: all who lost it do not come back in the same moment.
      let isFirst = true
      const again = yield* Effect.result(Effect.retry(Effect.suspend(() => {
        if (!isFirst) return attempt
        isFirst = false
        return lost(problem)
      }), { schedule: reconnect, while: isLost }))
      if (again._tag === "Failure") return yield* close(again.failure)
      ;({ connected, scope } = again.success)
    }
  }))
  yield* Effect.addFinalizer(() => SubscriptionRef.set(state, { _tag: "closed", problem: "its layer is closed" }))

  const absent = Effect.suspend(() => {
    const now = SubscriptionRef.getUnsafe(state)
    if ("error" in now && now.error !== undefined) return Effect.fail(now.error)
    return lost("problem" in now ? now.problem : "it is not connected yet")
  })
  return {
    address,
    options: wanted,
    state,
    /** What a program does with what it has now; fails where there is nothing. */
    use: <A, E>(f: (client: Connected) => Effect.Effect<A, E>): Effect.Effect<A, E | KsiError.KsiError> =>
      Effect.suspend((): Effect.Effect<A, E | KsiError.KsiError> => client === undefined ? absent : f(client)),
    /** Waits until there is a connection; fails when there will be none. */
    ready: Effect.suspend(() => client !== undefined ? Effect.void : Effect.flatMap(
      Stream.runHead(Stream.filter(SubscriptionRef.changes(state), ({ _tag }) => _tag === "connected" || _tag === "closed")),
      (found) => found._tag === "Some" && found.value._tag === "connected" ? Effect.void : absent
    ))
  }
})

type Link = Effect.Success<ReturnType<typeof makeLink>>

// A daemon that accepts connections and drops them is not asked all the time.
const pauseMillis = 100

/** Begins again when the connection is back. */
const whileThere = <A, E>(link: Link, stream: Stream.Stream<A, E>): Stream.Stream<A, E | KsiError.KsiError> =>
  stream.pipe(Stream.catch((error): Stream.Stream<A, E | KsiError.KsiError> =>
    isLost(error) ? Stream.unwrap(Effect.as(Effect.andThen(Effect.sleep(pauseMillis), link.ready), whileThere(link, stream))) : Stream.fail(error)
  ))

// ------------------------------------------------------------------------------------------------------------ reading

interface Replies {
  readonly success: (value: unknown) => Exit.Exit<unknown, Schema.SchemaError>
  readonly errors: ReadonlyArray<(value: unknown) => Exit.Exit<unknown, Schema.SchemaError>>
}

const replies = new WeakMap<Event.Any, Replies>()

const repliesOf = (event: Event.Any): Replies => {
  const known = replies.get(event)
  if (known !== undefined) return known
  const reader = (schema: Schema.Top) => Schema.decodeUnknownExit(EventCodec.jsonCodec(schema))
  const success = event.kind === "request" ? event.success : Schema.Void
  const made: Replies = {
    // Nothing is nothing, and is not written.
    success: SchemaAST.isVoid(success.ast) ? () => Exit.void : reader(success),
    errors: [...event.kind === "request" ? [reader(event.error)] : [], ...event.middleware.map(({ error }) => reader(error))]
  }
  replies.set(event, made)
  return made
}

const readSuccess = (event: Event.Any, value: unknown): Exit.Exit<unknown, KsiError.KsiError> => {
  const read = repliesOf(event).success(value)
  if (Exit.isSuccess(read)) return Exit.succeed(read.value)
  const problem = KsiError.sentenceOf(Cause.squash(read.cause))
  return KsiError.exit(new KsiError.ReplyInvalid({ event: event.name, problems: [{ path: "", problem }] }))
}

type Items = Arr.NonEmptyReadonlyArray<unknown>

/** A chunk of items; no more of it where one is not what the event promises. */
const readItems = (event: Event.AnyRequest, items: Items): Exit.Exit<Items, KsiError.KsiError> => {
  const read: Array<unknown> = []
  for (const item of items) {
    const exit = readSuccess(event, item)
    if (Exit.isFailure(exit)) return Exit.failCause(exit.cause)
    read.push(exit.value)
  }
  // One for each.
  return Exit.succeed(read as unknown as Items)
}

/** What somebody over there failed with, as it would have failed here. */
const readFailure = (event: Event.Any, error: Client.CallFailure): Effect.Effect<never, unknown> => {
  if (error instanceof RemoteFailure) return error.cause === "interrupt" ? Effect.interrupt : Effect.die(error)
  if (!(error instanceof DeclaredFailure)) {
    const isIdempotent = isLost(error) && !error.reason.unsent && event.kind === "request" && event.idempotent
    return isIdempotent ? KsiError.fail(new KsiError.ConnectionLost({ ...error.reason, idempotent: true })) : Effect.fail(error)
  }
  for (const read of repliesOf(event).errors) {
    const known = read(error.error)
    if (Exit.isSuccess(known)) return Effect.fail(known.value)
  }
  return KsiError.fail(new KsiError.Rejected({ event: event.name, middleware: "of the daemon", problem: error.message }))
}

// -------------------------------------------------------------------------------------------------------------- asking

type Asked = Effect.Effect<Answer, Client.CallFailure>

/** Asks once, or with `resend` until there is an answer. */
const makeAsking = (link: Link, ids: Envelope.Ids, resend: boolean) => {
  const once = (event: string, data: unknown, options: Client.CallOptions): Asked =>
    link.use((client) => client.ask(event, data, options))
  if (!resend) return once
  return (event: string, data: unknown, options: Client.CallOptions): Asked =>
    Effect.clockWith((clock) => {
      const idempotencyKey = options.idempotencyKey ?? ids(clock.currentTimeMillisUnsafe())
      const again: Asked = once(event, data, { ...options, idempotencyKey }).pipe(
        Effect.catch((error) => isLost(error) ? Effect.andThen(link.ready, again) : Effect.fail(error))
      )
      return again
    })
}

type Asking = ReturnType<typeof makeAsking>

const encoded = (event: Event.Any, payload: unknown): Exit.Exit<unknown, KsiError.KsiError> => {
  const codec = EventCodec.compile(event)
  const made = codec.makePayload(payload)
  return Exit.isFailure(made) ? made : Exit.succeed(codec.encodePayload(made.value))
}

const noOptions: Client.CallOptions = {}

const makeTyped = (ask: Asking) => {
  const told = (event: Event.Any, asked: Asked): Effect.Effect<Answer, unknown> => asked.pipe(Effect.catch((error) => readFailure(event, error)))
  return {
    call: (event: Event.AnyRequest, payload: unknown): Effect.Effect<unknown, unknown> =>
      Effect.suspend((): Effect.Effect<unknown, unknown> => {
        const data = encoded(event, payload)
        if (Exit.isFailure(data)) return data
        return Effect.matchEffect(ask(event.name, data.value, noOptions), {
          onFailure: (error) => readFailure(event, error),
          onSuccess: (answer) => readSuccess(event, answer.kind === "value" ? answer.value : undefined)
        })
      }),
    emit: (event: Event.AnyFact, payload: unknown, expects?: Expectations): Effect.Effect<unknown, unknown> =>
      Effect.flatMap(Effect.suspend(() => EventCodec.compile(event).makePayload(payload)), (made) =>
        Effect.map(told(event, ask(event.name, EventCodec.compile(event).encodePayload(made), { expects })), (answer) =>
          answer.kind === "fact"
            ? { id: answer.id, streamId: event.streamId(made), position: BigInt(answer.position), version: answer.version }
            : undefined))
  }
}

const makeStream = (link: Link) => (event: Event.AnyRequest, payload: unknown, options: StreamOptions = {}): Stream.Stream<unknown, unknown> => {
  const items = (asked: unknown): Stream.Stream<unknown, unknown> => Stream.unwrap(Effect.gen(function*() {
    const data = yield* encoded(event, asked)
    const client = yield* link.use(Effect.succeed)
    return client.stream(event.name, data, { bufferSize: options.bufferSize }).pipe(
      Stream.catch((error) => Stream.fromEffect(readFailure(event, error))),
      Stream.mapArrayEffect((items) => readItems(event, items))
    )
  }))
  const { cursor } = event
  return StreamTimeout.within(event.name, cursor === undefined ? items(payload) : continued(link, event, cursor, payload, items), options)
}

/** Asks again for what comes after the last item each time that the connection is lost. */
const continued = (link: Link, event: Event.AnyRequest, cursor: Event.Cursor, payload: unknown, items: (asked: unknown) => Stream.Stream<unknown, unknown>) =>
  Stream.unwrap(Effect.map(Effect.suspend(() => EventCodec.compile(event).makePayload(payload)), (first) => {
    let asked = first
    let last: { readonly item: unknown } | undefined
    const some = Stream.unwrap(Effect.gen(function*() {
      if (last !== undefined) asked = yield* EventCodec.compile(event).makePayload(cursor(last.item, asked))
      last = undefined
      return Stream.mapArray(items(asked), (chunk) => {
        last = { item: chunk.at(-1) }
        return chunk
      })
    }))
    return whileThere(link, some)
  }))

const dispatching = (ask: Asking) => (name: string, data: unknown, options: DispatchOptions = {}): Effect.Effect<Answer, unknown> =>
  Effect.clockWith((clock) => {
    const { deadline, idempotencyKey, traceparent, tracestate } = options
    const deadlineMillis = deadline === undefined ? undefined : Math.max(1, deadline - clock.currentTimeMillisUnsafe())
    return ask(name, data ?? {}, { deadlineMillis, idempotencyKey, traceparent, tracestate }).pipe(
      Effect.catch((error): Effect.Effect<never, unknown> =>
        !(error instanceof RemoteFailure) ? Effect.fail(error) : error.cause === "interrupt" ? Effect.interrupt : Effect.die(error))
    )
  })

// ------------------------------------------------------------------------------------------------------- subscriptions

const nothingKnown: Envelope.Metadata = {
  correlationId: "", causationId: undefined, depth: 0, timestamp: 0, source: "", principal: "", streamId: undefined, deadline: undefined,
  idempotencyKey: undefined, clientCorrelationId: undefined, clientId: undefined, traceparent: undefined, tracestate: undefined
}

const deliveryOf = ({ data, event, eventId, fields, missed, position, version }: Client.Told): Envelope.Delivery => {
  const { data_version: dataVersion, metadata } = fields
  return {
    id: eventId,
    name: event,
    data,
    // As the daemon wrote it.
    metadata: { ...nothingKnown, ...isObject(metadata) ? metadata as Partial<Envelope.Metadata> : {} },
    position: position === undefined ? undefined : BigInt(position),
    version,
    missed,
    ...dataVersion === undefined || dataVersion === null ? {} : { dataVersion }
  }
}

/** Follows a pattern for as long as the program is connected, or will be. */
const following = (link: Link, pattern: string | ReadonlyArray<string>, options: SubscribeOptions): Stream.Stream<Envelope.Delivery, Client.CallFailure> => {
  const { buffer, every, from = "now", overflow, requests } = options
  return Stream.suspend(() => {
    let next: number | "start" | "now" = typeof from === "string" ? from : Number(from)
    const once = Stream.unwrap(Effect.map(link.use(Effect.succeed), (client) =>
      client.subscribe({
        pattern, from: next, requests, overflow, buffer, metadata: true,
        every: every === undefined ? undefined : Duration.toMillis(every),
        onSubscribed: (position) => {
          if (next === "now") next = position + 1
        }
      }))).pipe(Stream.mapArray((told) => {
        const last = told.findLast(({ position }) => position !== undefined)?.position
        if (last !== undefined) next = last + 1
        const [first, ...more] = told.map(deliveryOf)
        // One for each.
        return [first, ...more] as unknown as readonly [Envelope.Delivery, ...ReadonlyArray<Envelope.Delivery>]
      }))
    return whileThere(link, once)
  })
}

const makeSubscribe = (link: Link) => (target: string | Event.AnyFact, options: SubscribeOptions = {}): Stream.Stream<Envelope.Delivery, unknown> => {
  if (typeof target === "string") return following(link, target, options)
  const { decodeFact } = EventCodec.compile(target)
  return Stream.mapEffect(following(link, [target.name, ...target.formerly], options), (delivery) =>
    Effect.map(decodeFact(delivery, delivery.dataVersion), (data): Envelope.Delivery => ({ ...delivery, name: target.name, data })))
}

// -------------------------------------------------------------------------------------------------------------- layer

/** The five words over a connection, and the connection. Fails with `ConnectionLost` where nobody answers. */
export const make = Effect.fnUntraced(function*(options: Options) {
  const link = yield* makeLink(options)
  const ask = makeAsking(link, yield* Envelope.randomIds, options.resend === true)
  const untyped = { ...makeTyped(ask), stream: makeStream(link), subscribe: makeSubscribe(link), dispatch: dispatching(ask) }
  return {
    // Untyped inside, as the router is; the definitions put the types back on.
    ksi: untyped as unknown as KsiShape,
    connection: { address: link.address, state: SubscriptionRef.get(link.state), states: SubscriptionRef.changes(link.state) }
  }
})
