/**
 * The other end of the wire: calls by name over a daemon's Unix socket, many at once on one connection, and streams of
 * what happens.
 *
 * The rule: what fails over there fails here as the same class; a connection that is lost fails every call it owed an
 * answer, and says whether the request can have left.
 *
 * **Example**
 *
 * ```ts
 * yield* Layer.build(Listener.layerUnix({ path: "var/run/daemon.sock" }))
 * const client = yield* Client.connect({ path: "var/run/daemon.sock" })
 * const { data } = yield* client.call("stock:reserve", { sku: "tea", quantity: 1 })
 * data.status                                 // "success"
 * ```
 *
 * A call carries the W3C trace context of the caller's current span, and what the daemon does for it is in that trace.
 *
 * **Gotchas** The wire has no word for cancelling a call: interrupting one here stops waiting, the daemon goes on. A
 * subscription has a connection of its own, so that a slow reader holds up nothing but itself.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as Net from "node:net"
import { outgoing } from "../bus/Causation.ts"
import type { DeclaredFailure } from "../bus/KsiService.ts"
import type { JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import * as TraceContext from "../event/TraceContext.ts"
import * as Control from "./Control.ts"
import * as Frame from "./Frame.ts"
import { Lines } from "./Lines.ts"
import { NetTransport } from "./internal/NetTransport.ts"
import { Outgoing } from "./internal/Outgoing.ts"

// ------------------------------------------------------------------------------------------------------------- models

/** How a call can fail. */
export type CallFailure = KsiError.KsiError | DeclaredFailure | Frame.RemoteFailure

/** What a call may say besides name and data. */
export interface CallOptions {
  /** Milliseconds that the daemon may take. */
  readonly deadlineMillis?: number | undefined
  readonly idempotencyKey?: string | undefined
  /** W3C Trace Context; default: that of the caller's current span, else of the event that the caller handles. */
  readonly traceparent?: string | undefined
  readonly tracestate?: string | undefined
}

/** Where to connect. */
export interface ConnectOptions {
  readonly path: string
  /** Says who the client is; without one it is whoever opened the socket. */
  readonly token?: string | undefined
  /** A label for everything this client sends. */
  readonly clientId?: string | undefined
  /** Calls that may wait for their answer; more wait for their turn. Default: 64. */
  readonly outstanding?: number | undefined
}

/** What to follow. */
export interface SubscribeOptions {
  readonly pattern: string
  /** A position (inclusive), `start`, or `now`. Default: `now`. */
  readonly from?: number | "start" | "now" | undefined
  readonly requests?: boolean | undefined
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
  /** The frame with all its fields. */
  readonly fields: JsonObject
}

// ------------------------------------------------------------------------------------------------------------ service

/** Speaks to a daemon. */
export class Client extends Context.Service<Client, {
  readonly address: string
  /** Calls a request or emits a fact: the definition over there decides. */
  readonly call: (event: string, data: unknown, options?: CallOptions) => Effect.Effect<Frame.Reply, CallFailure>
  /** `call` with data that is JSON text already and is sent as it is. */
  readonly callRaw: (event: string, dataText: string, options?: CallOptions) => Effect.Effect<Frame.Reply, CallFailure>
  /** Follows what happens, on a connection of its own. Fails with `ConnectionLost` when that ends. */
  readonly subscribe: (options: SubscribeOptions) => Stream.Stream<Told, CallFailure>
}>()("ksi/wire/Client") {}

// --------------------------------------------------------------------------------------------------------- connection

const lost = (address: string, problem: string, unsent: boolean): KsiError.KsiError =>
  KsiError.make(new KsiError.ConnectionLost({ address, problem, unsent }))

const opened = (path: string): Effect.Effect<Net.Socket, KsiError.KsiError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Net.Socket, KsiError.KsiError>((resume) => {
      const socket = Net.connect(path)
      const refused = (error: Error) => resume(Effect.fail(lost(path, error.message, true)))
      socket.once("error", refused)
      socket.once("connect", () => {
        socket.off("error", refused)
        resume(Effect.succeed(socket))
      })
      return Effect.sync(() => socket.destroy())
    }),
    (socket) => Effect.sync(() => socket.destroy()),
    { interruptible: true }
  )

// A reply is bounded in characters by the daemon; a character is at most three bytes of UTF-8.
const bytesPerCharacter = 3

interface Wire {
  readonly send: (text: string) => void
  readonly pause: () => void
  readonly resume: () => void
}

interface WireSink {
  readonly frame: (frame: Frame.Incoming) => void
  /** There will be no more frames; may come again. */
  readonly lost: (problem: string) => void
}

/** The label of the greeting. No call has it: theirs are numbered. */
const greeting = "hello"

const openWire = Effect.fnUntraced(function*({ clientId, path, token }: ConnectOptions, sink: WireSink) {
  const limits = yield* Limits
  const socket = yield* opened(path)
  const transport = new NetTransport(socket)
  const outgoing = new Outgoing(transport.write, limits.connectionBufferBytes)
  const broken = (problem: string) => {
    sink.lost(problem)
    transport.destroy()
  }
  const lines = new Lines((limits.frameBytes + Frame.replyOverhead) * bytesPerCharacter, {
    line: (text) => {
      const incoming = Frame.decodeIncoming(text)
      if (Result.isSuccess(incoming)) sink.frame(incoming.success)
      else broken(`it sent what is no frame: ${incoming.failure}`)
    },
    bad: (why) => broken(`it sent a line that is ${why}`)
  })
  transport.start({
    bytes: (chunk) => lines.push(chunk),
    drained: () => outgoing.drained(),
    ended: () => sink.lost(transport.problem ?? "it closed the connection")
  })
  yield* Effect.addFinalizer(() => Effect.sync(() => {
    outgoing.flush()
    sink.lost("the client is closed")
  }))
  const wire: Wire = { send: (text) => outgoing.append(text), pause: transport.pause, resume: transport.resume }
  // Nothing waits for its answer: with a token that is not valid, every other answer says so too.
  if (token !== undefined) {
    const dataText = JSON.stringify({ version: Control.version, token })
    wire.send(Frame.encodeRequest({ event: Control.Hello.name, dataText, correlationId: greeting, clientId }))
  }
  return wire
})

// -------------------------------------------------------------------------------------------------------------- calls

type Resume = (effect: Effect.Effect<Frame.Reply, CallFailure>) => void

const defaultOutstanding = 64

const makeCalls = Effect.fnUntraced(function*(options: ConnectOptions) {
  const { clientId, path } = options
  const waiting = new Map<unknown, Resume>()
  const turns = Semaphore.makeUnsafe(options.outstanding ?? defaultOutstanding)
  let ended: string | undefined
  let last = 0
  const wire = yield* openWire(options, {
    frame: (incoming) => {
      const resume = waiting.get(incoming.correlationId)
      waiting.delete(incoming.correlationId)
      resume?.(Frame.decodeReply(incoming))
    },
    lost: (problem) => {
      ended ??= problem
      const owed = [...waiting.values()]
      waiting.clear()
      for (const resume of owed) resume(Effect.fail(lost(path, ended, false)))
    }
  })

  const send = (event: string, dataText: string, callOptions: CallOptions = {}) =>
    Effect.withFiber((fiber: Fiber.Fiber<unknown, unknown>) => {
      const { traceparent, tracestate } = callOptions.traceparent === undefined ? outgoing(fiber) ?? TraceContext.none : callOptions
      return Effect.callback<Frame.Reply, CallFailure>((resume) => {
        if (ended !== undefined) return resume(Effect.fail(lost(path, ended, true)))
        const correlationId = `c${++last}`
        waiting.set(correlationId, resume)
        wire.send(Frame.encodeRequest({ event, dataText, correlationId, clientId, ...callOptions, traceparent, tracestate }))
        return Effect.sync(() => waiting.delete(correlationId))
      })
    })
  return (event: string, dataText: string, callOptions?: CallOptions) =>
    turns.withPermits(1)(send(event, dataText, callOptions))
})

// ------------------------------------------------------------------------------------------------------ subscriptions

const numberOf = (u: unknown): number | undefined => typeof u === "number" ? u : undefined

const told = ({ data, event, fields, timestamp }: Frame.Incoming): Told => ({
  event: event ?? "",
  data,
  position: numberOf(fields["position"]),
  version: numberOf(fields["version"]),
  streamId: typeof fields["stream_id"] === "string" ? fields["stream_id"] : undefined,
  eventId: String(fields["event_id"]),
  timestamp: timestamp ?? 0,
  fields
})

const isReply = (incoming: Frame.Incoming): boolean => incoming.fields["correlation_id"] !== undefined

type NonEmpty<A> = readonly [A, ...ReadonlyArray<A>]

const makeSubscription = Effect.fnUntraced(function*(options: ConnectOptions, wanted: SubscribeOptions) {
  const { clientId, path } = options
  const { from, onSubscribed, pattern, requests } = wanted
  let items: Array<Told> = []
  let failure: CallFailure | undefined
  let wake: (() => void) | undefined
  const fail = (cause: CallFailure) => {
    failure ??= cause
    wake?.()
  }
  const wire = yield* openWire(options, {
    frame: (frame) => {
      if (!frame.ok) return fail(Frame.failureOf(frame))
      if (frame.correlationId === greeting) return
      if (isReply(frame)) return onSubscribed?.(numberOf(Reflect.get(Object(frame.data), "position")) ?? 0)
      items.push(told(frame))
      // No more than one chunk is held: the daemon notices, and reads on from its journal later.
      wire.pause()
      wake?.()
    },
    lost: (problem) => fail(lost(path, problem, false))
  })
  const dataText = JSON.stringify({ pattern, subscription_id: "s", from, requests })
  wire.send(Frame.encodeRequest({ event: "pubsub:subscribe", dataText, correlationId: "s", clientId }))
  const next = Effect.callback<NonEmpty<Told>, CallFailure>((resume) => {
    wake = () => {
      if (items.length === 0 && failure === undefined) return
      wake = undefined
      const taken = items
      items = []
      if (taken.length === 0 && failure !== undefined) return resume(Effect.fail(failure))
      wire.resume()
      // The length was looked at.
      resume(Effect.succeed(taken as unknown as NonEmpty<Told>))
    }
    wake()
    return Effect.sync(() => {
      wake = undefined
    })
  })
  return next
})

// -------------------------------------------------------------------------------------------------------------- layer

/**
 * Connects until the scope closes. Fails with `ConnectionLost { unsent: true }` when nobody listens. A call fails with
 * `ConnectionLost` when the connection is lost: `unsent` is true where its request cannot have left.
 */
export const connect = (
  options: ConnectOptions
): Effect.Effect<Client["Service"], KsiError.KsiError, Scope.Scope> =>
  Effect.map(makeCalls(options), (callRaw) =>
    Client.of({
      address: options.path,
      // A newline in a JSON text is white space (inside its texts it is escaped), but it would end the frame.
      callRaw: (event, dataText, callOptions) => callRaw(event, dataText.replaceAll("\n", " "), callOptions),
      call: (event, data, callOptions) => callRaw(event, JSON.stringify(data) ?? "{}", callOptions),
      subscribe: (wanted) => Stream.unwrap(Effect.map(makeSubscription(options, wanted), (next) => Stream.fromPull(Effect.succeed(next))))
    }))

/** A client of the daemon at a Unix socket. Fails as `connect`. */
export const layerUnix = (options: ConnectOptions): Layer.Layer<Client, KsiError.KsiError> =>
  Layer.effect(Client, connect(options))
