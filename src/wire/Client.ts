/**
 * The other end of the wire: calls by name over a daemon's Unix socket, TCP or WebSocket, many at once on one connection, and
 * streams of what happens.
 *
 * The rule: what fails over there fails here as the same class; a connection that is lost fails every call it owed an
 * answer, and says whether the request can have left.
 *
 * **Example**
 *
 * ```ts
 * yield* Layer.build(Listener.layerUnix({ path: "var/run/daemon.sock" }))
 * const client = yield* Client.connect({ url: "var/run/daemon.sock" })
 * const { data } = yield* client.call("stock:reserve", { sku: "tea", quantity: 1 })
 * data.status                                 // "success"
 * ```
 *
 * Streams and subscriptions share the connection with calls: of each no more comes than its reader takes, so a slow one holds
 * up nothing but itself. A call, and a stream, carries the W3C trace context of the caller's current span, and what the daemon does for it is
 * in that trace.
 *
 * **Gotchas** The wire has no word for cancelling a call: interrupting one here stops waiting, the daemon goes on. A stream that
 * is left is cancelled, and who leaves it waits (5 seconds at most) until its handler's finalizers have run.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { outgoing } from "../bus/Causation.ts"
import type { Expectations } from "../bus/Journal.ts"
import type { Answer, DeclaredFailure, Overflow } from "../bus/KsiService.ts"
import { isObject, type JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits, type LimitsShape } from "../event/Limits.ts"
import * as TraceContext from "../event/TraceContext.ts"
import * as Control from "./Control.ts"
import * as Frame from "./Frame.ts"
import { addressOf, dial } from "./internal/dial.ts"
import { Lines } from "./Lines.ts"
import { Liveness } from "./internal/Liveness.ts"
import { Outgoing } from "./internal/Outgoing.ts"
import { type Newest, Receiving } from "./internal/Receiving.ts"

// ------------------------------------------------------------------------------------------------------------- models

/** How a call can fail. */
export type CallFailure = KsiError.KsiError | DeclaredFailure | Frame.RemoteFailure

/** What a call may say besides name and data. */
export interface CallOptions {
  /** What a fact expects of the store. */
  readonly expects?: Expectations | undefined
  /** Milliseconds that the daemon may take. */
  readonly deadlineMillis?: number | undefined
  readonly idempotencyKey?: string | undefined
  /** W3C Trace Context; default: that of the caller's current span, else of the event that the caller handles. */
  readonly traceparent?: string | undefined
  readonly tracestate?: string | undefined
}

/** What a stream may say besides name and data. */
export interface StreamOptions extends Pick<CallOptions, "deadlineMillis" | "traceparent" | "tracestate"> {
  /** Items that may be held here, or be on their way, before they are taken. Default: the limit `streamItems`. */
  readonly bufferSize?: number | undefined
}

/** Where to connect. */
export interface ConnectOptions {
  /** `unix:` and the path of the daemon's socket, or the path alone; `tcp://host:port`; `ws://host:port`, or `wss:`, `http:`, `https:`. */
  readonly url: string
  /** Says who the client is; without one it is whoever opened the socket, and over TCP nobody. */
  readonly token?: string | undefined
  /** How long the daemon may take to accept. Default: 10 seconds. */
  readonly connectTimeout?: Duration.Input | undefined
  /** One that says nothing for half of it is asked whether it is there, and is lost where it does not answer in another half. Default: the limit `idleMillis`, 1 minute. */
  readonly idle?: Duration.Input | undefined
  /** A label for everything this client sends. */
  readonly clientId?: string | undefined
  /** Calls that may wait for their answer; more wait for their turn. Default: 64. */
  readonly outstanding?: number | undefined
}

/** What to follow. */
export interface SubscribeOptions {
  /** One, or several of which any may match. */
  readonly pattern: string | ReadonlyArray<string>
  /** A position (inclusive), `start`, or `now`. Default: `now`. */
  readonly from?: number | "start" | "now" | undefined
  readonly requests?: boolean | undefined
  /** When the reader is slow: as `Ksi.subscribe`; `block` is for the owner alone. */
  readonly overflow?: Overflow | undefined
  /** Items held in the daemon, and as many here. Default: the limit `subscriptionBuffer` there, `streamItems` here. */
  readonly buffer?: number | undefined
  /** How often `sample` tells of the newest, in milliseconds. */
  readonly every?: number | undefined
  /** Whether `fields` have all that is known of the event (`metadata`). */
  readonly metadata?: boolean | undefined
  /** Called once it is live, with the last position stored by then. */
  readonly onSubscribed?: ((position: number) => void) | undefined
}

/** What a subscriber is told. */
export interface Told {
  readonly event: string
  readonly data: unknown
  /** Absent for a request. */
  readonly position: number | undefined
  readonly version: number | undefined
  readonly streamId: string | undefined
  readonly eventId: string
  /** Seconds since 1970. */
  readonly timestamp: number
  /** How many of its kind were left out just before it. */
  readonly missed: number
  /** The frame with all its fields. */
  readonly fields: JsonObject
}

// ------------------------------------------------------------------------------------------------------------ service

/** Speaks to a daemon. */
export class Client extends Context.Service<Client, {
  readonly address: string
  /** Waits until the connection is over; answers with why. Fails with `Unauthenticated` where the token is not valid, or no longer. */
  readonly closed: Effect.Effect<string, KsiError.KsiError>
  /** Calls a request or emits a fact: the definition over there decides. */
  readonly call: (event: string, data: unknown, options?: CallOptions) => Effect.Effect<Frame.Reply, CallFailure>
  /** `call` with data that is JSON text already and is sent as it is. */
  readonly callRaw: (event: string, dataText: string, options?: CallOptions) => Effect.Effect<Frame.Reply, CallFailure>
  /**
   * As `call`, with the answer as it is: nothing is put into it. It is `undefined` for a request that answers nothing.
   */
  readonly ask: (event: string, data: unknown, options?: CallOptions) => Effect.Effect<Answer, CallFailure>
  /** The items of a request that answers with a stream, pulled by whoever reads them. Nothing is asked before it is read. */
  readonly stream: (event: string, data: unknown, options?: StreamOptions) => Stream.Stream<unknown, CallFailure>
  /** Follows what happens. Fails with `ConnectionLost` when the connection ends. */
  readonly subscribe: (options: SubscribeOptions) => Stream.Stream<Told, CallFailure>
}>()("ksi/wire/Client") {}

// --------------------------------------------------------------------------------------------------------- connection

const lost = (url: string, problem: string, unsent: boolean): KsiError.KsiError =>
  KsiError.make(new KsiError.ConnectionLost({ address: addressOf(url), problem, unsent }))

// A reply is bounded in characters by the daemon; a character is at most three bytes of UTF-8.
const bytesPerCharacter = 3

interface Wire {
  readonly send: (text: string) => void
}

interface WireSink {
  /** `length` in characters. */
  readonly frame: (frame: Frame.Incoming, length: number) => void
  /** There will be no more frames; may come again. */
  readonly lost: (problem: string) => void
  /** The token is not valid: there will be no more frames. */
  readonly refused: (error: KsiError.KsiError) => void
}

// Requests that leave in one write, at most.
const sentTogether = 16

/** The label of the greeting. No call has it: theirs are numbered. */
const greeting = "hello"

const isUnauthenticated = (error: unknown): error is KsiError.KsiError => KsiError.is(error) && error.reason._tag === "Unauthenticated"

/**
 * Tells of a token that is not valid, or no longer. Not everything that fails with `Unauthenticated` says so (a handler may have asked
 * another daemon): then the token is shown again, in a greeting, or where WebSockets are opened.
 */
const makeProof = (show: Effect.Effect<void, KsiError.KsiError>, refused: (error: KsiError.KsiError) => void, fork: (effect: Effect.Effect<void>) => void) => {
  let isShowing = false
  const again = show.pipe(
    Effect.catch((error) => Effect.sync(() => isUnauthenticated(error) ? refused(error) : undefined)),
    Effect.ensuring(Effect.sync(() => {
      isShowing = false
    }))
  )
  return (incoming: Frame.Incoming): void => {
    if (incoming.ok) return
    const error = Frame.failureOf(incoming)
    if (!isUnauthenticated(error)) return
    if (incoming.event === Control.Hello.name && incoming.correlationId === greeting) return refused(error)
    if (isShowing) return
    isShowing = true
    fork(again)
  }
}

const openWire = Effect.fnUntraced(function*(options: ConnectOptions, sink: WireSink) {
  const { clientId, connectTimeout, idle, token, url } = options
  const limits = yield* Limits
  const maxBytes = (limits.frameBytes + Frame.replyOverhead) * bytesPerCharacter
  const dialling = dial(url, { token, connectTimeout, maxBytes })
  const { isPresented, transport } = yield* dialling
  const outgoing = new Outgoing(transport.write, limits.connectionBufferBytes)
  const broken = (problem: string) => {
    sink.lost(problem)
    transport.destroy()
  }
  const refused = (error: KsiError.KsiError) => {
    sink.refused(error)
    transport.destroy()
  }
  const scope = yield* Effect.scope
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const hello = (shown: string | undefined) => {
    const dataText = JSON.stringify({ version: Control.version, token: shown })
    outgoing.append(Frame.encodeRequest({ event: Control.Hello.name, dataText, correlationId: greeting, clientId }))
  }
  const show = isPresented ? Effect.asVoid(Effect.scoped(dialling)) : Effect.sync(() => hello(token))
  const prove = makeProof(show, refused, (effect) => void run(Effect.forkIn(effect, scope)))
  const liveness = new Liveness({
    millis: idle === undefined ? limits.idleMillis : Duration.toMillis(idle), ask: () => outgoing.append(`${Control.pingLine}\n`), gone: broken
  })
  const lines = new Lines(maxBytes, {
    line: (text) => {
      const incoming = Frame.decodeIncoming(text)
      if (Result.isSuccess(incoming)) {
        // Who is nobody is told so before what was asked.
        if (token !== undefined) prove(incoming.success)
        sink.frame(incoming.success, text.length)
      } else broken(`it sent what is no frame: ${incoming.failure}`)
    },
    bad: (why) => broken(`it sent a line that is ${why}`)
  })
  transport.start({
    bytes: (chunk) => {
      liveness.heard()
      lines.push(chunk)
    },
    drained: () => outgoing.drained(),
    ended: () => sink.lost(transport.problem ?? "it closed the connection")
  })
  yield* Effect.addFinalizer(() => Effect.sync(() => {
    outgoing.flush()
    sink.lost("the client is closed")
  }))
  let sent = 0
  const wire: Wire = {
    send: (text) => {
      outgoing.append(text)
      // Of many that are asked in one turn the daemon begins with the first while the last are written.
      if (++sent % sentTogether === 0) outgoing.flush()
    }
  }
  // Nothing waits for its answer: with a token that is not valid, every other answer says so too.
  if (token !== undefined) hello(isPresented ? undefined : token)
  yield* Effect.forkScoped(liveness.watch)
  return wire
})

// -------------------------------------------------------------------------------------------------------------- calls

const numberOf = (u: unknown): number | undefined => typeof u === "number" ? u : undefined

const told = ({ data, event, fields, timestamp }: Frame.Incoming): Told => ({
  event: event ?? "",
  data,
  position: numberOf(fields["position"]),
  version: numberOf(fields["version"]),
  streamId: typeof fields["stream_id"] === "string" ? fields["stream_id"] : undefined,
  eventId: String(fields["event_id"]),
  timestamp: timestamp ?? 0,
  missed: numberOf(fields["missed"]) ?? 0,
  fields
})

type Resume = (answer: Exit.Exit<Frame.Incoming, CallFailure>) => void

type Incoming = Receiving<unknown, CallFailure>

const defaultOutstanding = 64

/** What one connection owes: answers to calls, items of streams, what happens. */
const makeOwed = (url: string) => {
  const waiting = new Map<unknown, Resume>()
  const streams = new Map<unknown, Incoming>()
  const subscriptions = new Map<unknown, Receiving<Told, CallFailure>>()
  const over = Deferred.makeUnsafe<string, KsiError.KsiError>()
  let ended: string | undefined
  let refusal: KsiError.KsiError | undefined

  /** What a frame says of a stream; one that was left is not there. */
  const streamed = (incoming: Frame.Incoming, length: number): void => {
    const { data, fields: { items, mark, stream_end: isEnd, stream_id: id }, ok } = incoming
    const stream = streams.get(id)
    if (isEnd !== true) return stream?.push(Array.isArray(items) ? items : [data], length, mark)
    streams.delete(id)
    stream?.end(ok ? Exit.void : Exit.fail(Frame.failureOf(incoming)))
  }

  /** What a frame says of a subscription; one that was left is not there. */
  const followed = (incoming: Frame.Incoming, length: number): void => {
    const { fields: { mark, subscription_id: id }, ok } = incoming
    const subscription = subscriptions.get(id)
    if (ok) return subscription?.push([told(incoming)], length, mark)
    subscriptions.delete(id)
    subscription?.end(Exit.fail(Frame.failureOf(incoming)))
  }

  const sink: WireSink = {
    frame: (incoming, length) => {
      const { correlationId, fields } = incoming
      // No reply: those have the label of their request.
      if (correlationId === undefined && fields["subscription_id"] !== undefined) return followed(incoming, length)
      if (fields["seq"] !== undefined && fields["stream_id"] !== undefined) return streamed(incoming, length)
      const resume = waiting.get(correlationId)
      waiting.delete(correlationId)
      if (resume !== undefined) return resume(Exit.succeed(incoming))
      // A stream that could not begin.
      const stream = streams.get(correlationId)
      if (stream === undefined || incoming.ok) return
      streams.delete(correlationId)
      stream.end(Exit.fail(Frame.failureOf(incoming)))
    },
    refused: (error) => {
      if (ended !== undefined) return
      refusal = error
      sink.lost(error.message)
    },
    lost: (problem) => {
      ended ??= problem
      Deferred.doneUnsafe(over, refusal === undefined ? Exit.succeed(ended) : Exit.fail(refusal))
      const failed = Exit.fail(refusal ?? lost(url, ended, false))
      const owed = [...waiting.values()]
      waiting.clear()
      for (const resume of owed) resume(failed)
      for (const stream of [...streams.values(), ...subscriptions.values()]) stream.end(failed)
      streams.clear()
      subscriptions.clear()
    }
  }
  return { waiting, streams, subscriptions, sink, over, ended: () => ended, refusal: () => refusal }
}

type Owed = ReturnType<typeof makeOwed>

/** The trace that a request is in, as it is sent. */
const traceOf = (fiber: Fiber.Fiber<unknown, unknown>, options: Pick<CallOptions, "traceparent" | "tracestate">): TraceContext.Texts =>
  options.traceparent === undefined ? outgoing(fiber) ?? TraceContext.none : { traceparent: options.traceparent, tracestate: options.tracestate }

const makeCalls = ({ clientId, outstanding = defaultOutstanding, url }: ConnectOptions, wire: Wire, { ended, refusal, waiting }: Owed) => {
  // A semaphore would cost every call more than its frame does.
  let running = 0
  let last = 0
  const queue = new Set<() => void>()
  const free = () => {
    running--
    for (const start of queue) {
      if (running >= outstanding) return
      queue.delete(start)
      start()
    }
  }
  return (event: string, dataText: string, callOptions: CallOptions = {}, bare = false) =>
    Effect.withFiber((fiber: Fiber.Fiber<unknown, unknown>) => {
      const { traceparent, tracestate } = traceOf(fiber, callOptions)
      return Effect.callback<Frame.Incoming, CallFailure>((resume) => {
        let correlationId: string | undefined
        const start = () => {
          const problem = ended()
          if (problem !== undefined) return resume(Effect.fail(refusal() ?? lost(url, problem, true)))
          running++
          correlationId = `c${++last}`
          waiting.set(correlationId, (answer) => {
            free()
            resume(answer)
          })
          wire.send(Frame.encodeRequest({ event, dataText, correlationId, clientId, ...callOptions, traceparent, tracestate, bare }))
        }
        if (running < outstanding) start()
        else queue.add(start)
        return Effect.sync(() => {
          if (correlationId === undefined) queue.delete(start)
          else if (waiting.delete(correlationId)) free()
        })
      })
    })
}

/** The answer of a frame, as it is. */
const answerOf = (incoming: Frame.Incoming): Exit.Exit<Answer, CallFailure> => {
  if (!incoming.ok) return Exit.fail(Frame.failureOf(incoming))
  const { fact, value } = incoming.fields
  if (!isObject(fact)) return Exit.succeed({ kind: "value", value })
  return Exit.succeed({ kind: "fact", id: String(fact["id"]), position: Number(fact["position"]), version: Number(fact["version"]) })
}

// How long the daemon may take to end a stream that was left.
const leaveMillis = 5000

const makeStreams = (options: ConnectOptions, limits: LimitsShape, wire: Wire, { ended, refusal, streams }: Owed) => {
  const { clientId, url } = options
  let last = 0
  let isGreeted = options.token !== undefined
  const control = (event: string, fields: JsonObject) =>
    wire.send(Frame.encodeRequest({ event, dataText: JSON.stringify(fields), correlationId: greeting, clientId }))

  /** Asks for a stream, and cancels it with the scope if it has not ended. */
  const open = Effect.fnUntraced(function*(event: string, data: unknown, asked: StreamOptions) {
    const problem = ended()
    if (problem !== undefined) return yield* Effect.fail(refusal() ?? lost(url, problem, true))
    // Then items that are made together may share a frame.
    if (!isGreeted) control(Control.Hello.name, { version: Control.version })
    isGreeted = true
    const id = `s${++last}`
    const over = Deferred.makeUnsafe<void>()
    const most = { items: asked.bufferSize ?? limits.streamItems, bytes: limits.streamBytes }
    const incoming = new Receiving<unknown, CallFailure>(most, ({ bytes, items }, mark) => {
      wire.send(Frame.encodeRequest({ event: Control.credit, dataText: JSON.stringify({ stream_id: id, items, bytes, mark }), correlationId: id }))
    }, () => Deferred.doneUnsafe(over, Exit.void))
    const { traceparent, tracestate } = yield* Effect.withFiber((fiber: Fiber.Fiber<unknown, unknown>) => Effect.succeed(traceOf(fiber, asked)))
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        streams.set(id, incoming)
        const dataText = JSON.stringify(data) ?? "{}"
        wire.send(Frame.encodeRequest({
          event, dataText, correlationId: id, clientId, deadlineMillis: asked.deadlineMillis, traceparent, tracestate, stream: { id, ...incoming.initial }
        }))
      }),
      () => Effect.suspend(() => {
        if (incoming.isEnded) return Effect.void
        control(Control.Cancel.name, { stream_id: id })
        return Effect.ignore(Effect.timeout(Deferred.await(over), leaveMillis))
      })
    )
    return incoming.pull
  })
  return (event: string, data: unknown, asked: StreamOptions = {}) => Stream.unwrap(Effect.map(open(event, data, asked), (pull) => Stream.fromPull(Effect.succeed(pull))))
}

// ------------------------------------------------------------------------------------------------------ subscriptions

// How many of the newest are held where nothing is said: as many as in the daemon.
const newestOf = ({ buffer, overflow }: SubscribeOptions, { subscriptionBuffer }: LimitsShape): Newest<Told> | undefined => {
  if (overflow !== "latest" && overflow !== "sample") return undefined
  return {
    items: overflow === "sample" ? 1 : buffer ?? subscriptionBuffer,
    kindOf: ({ position }) => position === undefined,
    after: (gone, next) => ({ ...next, missed: next.missed + gone.missed + 1 })
  }
}

const makeSubscriptions = ({ clientId, url }: ConnectOptions, limits: LimitsShape, wire: Wire, { ended, refusal, subscriptions, waiting }: Owed) => {
  let last = 0
  const ask = (event: string, id: string, fields: JsonObject, answered: Resume) => {
    waiting.set(id, answered)
    wire.send(Frame.encodeRequest({ event, dataText: JSON.stringify(fields), correlationId: id, clientId }))
  }

  /** Waits until the daemon has forgotten it. */
  const leave = (id: string) =>
    Effect.callback<void>((resume) => {
      subscriptions.delete(id)
      ask(Control.Unsubscribe.name, `u${id}`, { subscription_id: id }, () => resume(Effect.void))
    }).pipe(Effect.timeoutOrElse({ duration: leaveMillis, orElse: () => Effect.void }))

  const open = Effect.fnUntraced(function*(wanted: SubscribeOptions) {
    const problem = ended()
    if (problem !== undefined) return yield* Effect.fail(refusal() ?? lost(url, problem, true))
    const { buffer, every, from, metadata, onSubscribed, overflow, pattern, requests } = wanted
    const id = `f${++last}`
    const newest = newestOf(wanted, limits)
    const most = { items: newest === undefined ? buffer ?? limits.streamItems : limits.streamItems, bytes: limits.streamBytes }
    const incoming = new Receiving<Told, CallFailure>(most, (more, mark) => {
      wire.send(Frame.encodeRequest({ event: Control.credit, dataText: JSON.stringify({ subscription_id: id, ...more, mark }), correlationId: id }))
    }, () => {}, newest)
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        subscriptions.set(id, incoming)
        const fields = { pattern, subscription_id: id, from, requests, overflow, every_ms: every, buffer, metadata, credit: incoming.initial }
        ask(Control.Subscribe.name, id, fields, (answer) => {
          // One that is lost has ended already.
          if (Exit.isFailure(answer)) return
          const { value: frame } = answer
          if (frame.ok) return onSubscribed?.(numberOf(Reflect.get(Object(frame.data), "position")) ?? 0)
          subscriptions.delete(id)
          incoming.end(Exit.fail(Frame.failureOf(frame)))
        })
      }),
      () => Effect.suspend(() => incoming.isEnded ? Effect.void : leave(id))
    )
    return incoming.pull
  })
  return (wanted: SubscribeOptions) => Stream.unwrap(Effect.map(open(wanted), (pull) => Stream.fromPull(Effect.succeed(pull))))
}

// -------------------------------------------------------------------------------------------------------------- layer

/** Follows what happens at a daemon, on a connection of its own. Fails with `ConnectionLost` when that ends. */
export const subscribe = (options: ConnectOptions, wanted: SubscribeOptions): Stream.Stream<Told, CallFailure> =>
  Stream.unwrap(Effect.map(connect(options), (client) => client.subscribe(wanted)))

/**
 * Connects until the scope closes. Fails with `ConnectionLost { unsent: true }` when nobody listens or accepts, and with
 * `PayloadInvalid` where the URL is none. A call fails with `ConnectionLost` when the connection is lost: `unsent` is true where its request cannot have left.
 */
export const connect = (
  options: ConnectOptions
): Effect.Effect<Client["Service"], KsiError.KsiError, Scope.Scope> =>
  Effect.gen(function*() {
    const limits = yield* Limits
    const owed = makeOwed(options.url)
    const wire = yield* openWire(options, owed.sink)
    const send = makeCalls(options, wire, owed)
    const callRaw = (event: string, dataText: string, callOptions?: CallOptions) => Effect.flatMap(send(event, dataText, callOptions), Frame.decodeReply)
    return Client.of({
      address: addressOf(options.url),
      closed: Deferred.await(owed.over),
      // A newline in a JSON text is white space (inside its texts it is escaped), but it would end the frame.
      callRaw: (event, dataText, callOptions) => callRaw(event, dataText.replaceAll("\n", " "), callOptions),
      call: (event, data, callOptions) => callRaw(event, JSON.stringify(data) ?? "{}", callOptions),
      ask: (event, data, callOptions) => Effect.flatMap(send(event, JSON.stringify(data) ?? "{}", callOptions, true), answerOf),
      stream: makeStreams(options, limits, wire, owed),
      subscribe: makeSubscriptions(options, limits, wire, owed)
    })
  })

/** A client of a daemon. Fails as `connect`. */
export const layer = (options: ConnectOptions): Layer.Layer<Client, KsiError.KsiError> =>
  Layer.effect(Client, connect(options))
