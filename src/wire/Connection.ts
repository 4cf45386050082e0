/**
 * One client's connection: lines in, lines out. Requests run concurrently; replies leave as they come, all of one turn
 * of the event loop in one write. A request that completes at once has no fiber: the connection's only lends its context.
 *
 * The rule: what a connection began ends with it. When the other side is gone, its requests are interrupted and its
 * subscriptions closed. A side that has only stopped sending (it shut down its half) still gets every answer.
 *
 * Who is at the other end is bound to the connection. A token in `wire:hello` changes it from that line on, and ends what was
 * followed before; nothing else in a message does.
 *
 * Memory is bounded on both ways: a line by `frameBytes`, those under way in all connections by `incomingBytes`, running requests by `connectionRequests`, what waits to be
 * written by `connectionBufferBytes`. At a bound the connection reads no further, and the client's own writes wait; a
 * subscription that cannot be written is not pulled, and goes back to the journal for what it missed. What waits in all
 * connections together is bounded by `outgoingBytes`: beyond it the one in which most waits is closed.
 *
 * **Example**
 *
 * ```ts
 * const sent: Array<string> = []
 * const transport: Connection.Transport = {
 *   start: (sink) => {
 *     sink.bytes(new TextEncoder().encode("{\"event\":\"no:such\"}\n"))
 *     sink.ended("half-closed")
 *   },
 *   pause: () => {},
 *   resume: () => {},
 *   destroy: () => {},
 *   write: (text) => sent.push(text) > 0
 * }
 * yield* Connection.run(transport, { principal: "owner" })
 * JSON.parse(sent.join("")).data.reason        // "UnknownEvent"
 * ```
 *
 * **Gotchas** A single reply may exceed a connection's bound by its own length, and so may each request that was running
 * when it was reached; only the bound of all together is never exceeded. Of short texts the characters are counted.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import { Authorizer } from "../bus/Authorizer.ts"
import * as Causation from "../bus/Causation.ts"
import type { Answer, DeclaredFailure, Dispatched } from "../bus/KsiService.ts"
import { Router } from "../bus/Router.ts"
import { Subscriptions } from "../bus/Subscription.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits, type LimitsShape } from "../event/Limits.ts"
import * as Control from "./Control.ts"
import * as Frame from "./Frame.ts"
import { Followers, type Identity } from "./internal/Followers.ts"
import { Gathering } from "./internal/Gathering.ts"
import * as LineReader from "./internal/LineReader.ts"
import { Budget, type Holder, Outgoing } from "./internal/Outgoing.ts"
import { Streams } from "./internal/Streams.ts"
import type { Fork } from "./internal/Telling.ts"
import { grant } from "./internal/Window.ts"
import { Lines } from "./Lines.ts"

// ------------------------------------------------------------------------------------------------------------- models

export { type Budget, type Gathering, type Holder, Outgoing }

/** What connections share: what waits to be read by the other sides, and the long lines that are under way. */
export interface Shared {
  readonly budget: Budget
  readonly gathering: Gathering
}

/** Room for what connections share. */
export const makeShared = ({ incomingBytes, outgoingBytes }: Pick<LimitsShape, "incomingBytes" | "outgoingBytes">): Shared =>
  ({ budget: new Budget(outgoingBytes), gathering: new Gathering(incomingBytes) })

/** What the connections of all ways into a daemon share; without it each way in has its own. */
export const Shared: Context.Reference<Shared | undefined> = Context.Reference<Shared | undefined>("ksi/wire/Connection/Shared", {
  defaultValue: () => undefined
})

/**
 * How the incoming side ended: the other side is gone, it sends no more but still reads, or this side stops and
 * finishes what it has begun.
 */
export type Ended = "gone" | "half-closed" | "stopping"

/** Who is told of what comes in. */
export interface Sink {
  readonly bytes: (chunk: Uint8Array) => void
  /** The other side has read what was written. */
  readonly drained: () => void
  /** There will be no more bytes. May come again, as when a half-closed side is gone for good. */
  readonly ended: (how: Ended) => void
}

/** What a connection needs of its transport: events instead of effects, because every chunk pays for them. */
export interface Transport {
  /** Begins to read. */
  readonly start: (sink: Sink) => void
  readonly pause: () => void
  readonly resume: () => void
  /** Hands text over; says whether more may follow at once, else `drained` is called. */
  readonly write: (text: string) => boolean
  /** Ends at once; what was not read is lost. */
  readonly destroy: () => void
}

/** Who is at the other end. */
export interface Options {
  /** Bound to the connection; only a token changes it. */
  readonly principal: string
  /** What it shares with others; nothing where it has none. */
  readonly shared?: Shared | undefined
  /** Told of each token that was presented: who it stands for, `anonymous` where it is not valid. */
  readonly greeted?: ((principal: string) => void) | undefined
}

// ----------------------------------------------------------------------------------------------------------- requests

// How long requests that were interrupted may take to end.
const interruptMillis = 5000

/**
 * Interrupts requests: one that cannot be interrupted must not keep the daemon from ending. For a fiber of its own: what
 * closes a scope cannot be interrupted either, not even by a timeout.
 */
const interruptAll = (running: ReadonlyArray<Fiber.Fiber<unknown, unknown>>): Effect.Effect<void> =>
  Effect.timeoutOrElse(Fiber.interruptAll(running), {
    duration: interruptMillis,
    orElse: () => Effect.logWarning(`${running.length} requests were interrupted and go on all the same; nobody waits for them`)
  })

/** A line, or what is wrong with it. */
type Incoming = string | Frame.Unreadable

interface Parts {
  readonly router: Router["Service"]
  readonly followers: Followers
  readonly streams: Streams
  readonly outgoing: Outgoing
  readonly limits: LimitsShape
  readonly clock: Clock.Clock
  readonly identity: Identity
  readonly gathering: Gathering
  /** The fiber of the connection: it is in the surroundings of the listener. */
  readonly surroundings: Fiber.Fiber<unknown, unknown>
  /** Runs in those surroundings: their loggers, their clock. */
  readonly fork: Fork
}

const labelOf = (correlationId: unknown, maxLength: number): string | undefined => {
  if (correlationId === undefined || correlationId === null) return undefined
  const text = typeof correlationId === "string" ? correlationId : JSON.stringify(correlationId)
  return text.length <= maxLength ? text : undefined
}

/** How a request wants to be answered. */
type Asked = Pick<Frame.Request, "bare" | "correlationId">

/** Writes replies: what cannot be written, or is too long for a frame, is a failure that says so. */
const makeWriter = ({ clock, fork, limits }: Parts) => {
  const written = (envelope: Causation.LiveEnvelope, { bare, correlationId }: Asked, exit: Dispatched, now: number): string => {
    try {
      return bare ? Frame.encodeBare(envelope, correlationId, exit, now) : Frame.encodeReply(envelope, correlationId, exit, now)
    } catch (cause) {
      fork(Effect.annotateLogs(Effect.logError(`the reply of ${envelope.name} cannot be written`, cause), Causation.labelsOf(envelope)))
      return Frame.encodeReply(envelope, correlationId, KsiError.exit(KsiError.unwritable(envelope.name)), now)
    }
  }

  const textOf = (envelope: Causation.LiveEnvelope, asked: Asked, exit: Dispatched): string => {
    const now = clock.currentTimeMillisUnsafe()
    const text = written(envelope, asked, exit, now)
    if (text.length <= limits.frameBytes + Frame.replyOverhead) return text
    const reason = { limit: "frameBytes", max: limits.frameBytes, actual: text.length, retryable: false }
    return Frame.encodeReply(envelope, asked.correlationId, KsiError.exit(new KsiError.LimitExceeded(reason)), now)
  }
  return textOf
}

/** Makes the envelopes of requests: who asks is the connection's to say, the rest are labels. */
const makeEnvelopes = ({ clock, identity, limits, router }: Parts) => (request: Frame.Request, data: unknown): Causation.LiveEnvelope => {
  const { principal } = identity
  const { clientId, correlationId, deadlineMillis, event, expects, idempotencyKey, traceparent, tracestate } = request
  const clientCorrelationId = labelOf(correlationId, limits.idLength)
  const labels = { principal, clientId, clientCorrelationId, idempotencyKey, deadline: undefined, traceparent, tracestate }
  const now = deadlineMillis === undefined ? 0 : clock.currentTimeMillisUnsafe()
  const made = router.envelope(event, data, deadlineMillis === undefined ? labels : { ...labels, deadline: now + deadlineMillis })
  // The clock may have gone on between the two: the deadline counts from the envelope's time, to the millisecond.
  const envelope = deadlineMillis === undefined || made.timestamp === now
    ? made
    : router.envelope(event, data, { ...labels, deadline: made.timestamp + deadlineMillis })
  envelope.expects = expects
  return envelope
}

/** Told once a reply is on its way. */
type Answered = (() => void) | undefined

type Running = Fiber.Fiber<Answer, KsiError.KsiError | DeclaredFailure>

/** Runs requests and appends their replies. */
const makeRunning = (parts: Parts, completed: () => void) => {
  const { fork, gathering, outgoing, router, surroundings } = parts
  const textOf = makeWriter(parts)
  const running = new Set<Running>()
  // A handler that runs at once may stop the daemon before it has answered (`system:shutdown` does).
  let beginning = false

  const answer = (envelope: Causation.LiveEnvelope, asked: Asked, answered: Answered, exit: Dispatched): void => {
    outgoing.append(textOf(envelope, asked, exit))
    answered?.()
  }

  /** Answers when the request has ended; until then its line counts. */
  const follow = (fiber: Running, envelope: Causation.LiveEnvelope, asked: Asked, bytes: number, answered: Answered): void => {
    running.add(fiber)
    gathering.pin(bytes)
    fiber.addObserver((exit) => {
      running.delete(fiber)
      gathering.pin(-bytes)
      if (outgoing.isBroken) answered?.()
      else answer(envelope, asked, answered, exit)
      completed()
    })
  }

  return {
    running,
    isIdle: () => running.size === 0 && !beginning,
    /** `bytes` is how long its line was. */
    run: (envelope: Causation.LiveEnvelope, asked: Asked, bytes: number, answered: Answered): void => {
      beginning = true
      const begun = router.begin(surroundings, envelope)
      // What is complete needs no fiber. It succeeds and fails as what is left of another does.
      if (Exit.isExit(begun)) {
        beginning = false
        return answer(envelope, asked, answered, begun as Dispatched)
      }
      const fiber = fork(begun)
      beginning = false
      const exit = fiber.pollUnsafe()
      if (exit === undefined) follow(fiber, envelope, asked, bytes, answered)
      else answer(envelope, asked, answered, exit)
    }
  }
}

/** Begins the requests of one connection. */
const makeRequests = (parts: Parts, completed: () => void) => {
  const { clock, followers, fork, gathering, limits, outgoing, router, streams } = parts
  const { isIdle, run, running } = makeRunning(parts, completed)
  const envelopeOf = makeEnvelopes(parts)
  const read = LineReader.make(router.registry, limits)

  const stream = (request: Frame.Request, wanted: Frame.StreamRequest, bytes: number): void => {
    const { correlationId, data, event } = request
    const reason = streams.refusal(event, wanted)
    if (reason !== undefined) return refuse({ reason, event, correlationId })
    gathering.pin(bytes)
    streams.begin(envelopeOf(request, data), wanted, correlationId, () => gathering.pin(-bytes))
  }

  const dispatch = (request: Frame.Request, bytes: number): void => {
    const { clientId, correlationId, data, event } = request
    if (request.stream !== undefined) return stream(request, request.stream, bytes)
    if (event === Control.credit) {
      const reason = grant(data, (streamId, subscriptionId) => streamId === undefined ? followers.windowOf(subscriptionId) : streams.windowOf(streamId))
      return reason === undefined ? undefined : refuse({ reason, event, correlationId })
    }
    if (event === Control.ping) return outgoing.append(Control.pongLine)
    if (!Control.isControl(event)) return run(envelopeOf(request, data), request, bytes, undefined)
    const greeting = event === Control.Hello.name ? followers.greet(data) : undefined
    const envelope = envelopeOf(request, greeting === undefined ? data : greeting.data)
    run(envelope, request, bytes, followers.attach(envelope, clientId, greeting?.problem))
  }

  const refuse = (line: Frame.Unreadable): void => outgoing.append(Frame.encodeUnreadable(line, clock.currentTimeMillisUnsafe()))

  const begin = (incoming: Incoming): void => {
    const quick = typeof incoming === "string" ? read(incoming) : undefined
    // Those are short.
    if (quick !== undefined) return dispatch(quick, 0)
    const request = typeof incoming === "string" ? Frame.decode(incoming, limits) : Result.fail(incoming)
    if (Result.isFailure(request)) return refuse(request.failure)
    // A text has about as many characters as its line had bytes.
    const bytes = typeof incoming === "string" ? incoming.length : 0
    if (gathering.hasRoom(bytes)) dispatch(request.success, bytes)
    else refuse(Frame.oneTooMany(gathering.max, request.success))
  }

  return {
    /** Whether another may begin. */
    hasRoom: () => running.size < limits.connectionRequests && outgoing.hasRoom && !outgoing.isBroken,
    isIdle,
    interrupt: Effect.suspend(() => Effect.asVoid(Fiber.await(fork(interruptAll([...running, ...streams.fibers()]))))),
    begin: (incoming: Incoming): void => {
      // One line must not break what others share.
      try {
        begin(incoming)
      } catch (cause) {
        fork(Effect.logError("a line could not be begun", cause))
        refuse(Frame.broken)
      }
    }
  }
}

// ------------------------------------------------------------------------------------------------------------ running

// What a line costs besides its characters; a bad line has nothing else.
const lineOverhead = 64
const openObject = 0x7b

/** What has come in and not begun. */
const makePending = ({ connectionBufferBytes }: LimitsShape) => {
  let queue: Array<Incoming> = []
  let at = 0
  let length = 0
  const costOf = (incoming: Incoming) => lineOverhead + (typeof incoming === "string" ? incoming.length : 0)
  return {
    push: (incoming: Incoming): void => {
      length += costOf(incoming)
      queue.push(incoming)
    },
    isEmpty: () => at === queue.length,
    isFull: () => length >= connectionBufferBytes,
    take: (): Incoming | undefined => {
      const taken = queue[at++]
      if (taken !== undefined) length -= costOf(taken)
      if (at < queue.length) return taken
      queue = []
      at = 0
      return taken
    }
  }
}

/** Cuts what comes in into lines; `gaveUp` is told when one was given up for others. */
const makeLines = ({ gathering, limits: { frameBytes }, outgoing }: Parts, take: (incoming: Incoming) => void, gaveUp: () => void): Lines =>
  new Lines(frameBytes, {
    line: (text) => {
      // Whether anybody is there is not asked of those who wait.
      if (text === Control.pingLine) return outgoing.append(Control.pongLine)
      // An empty line is nothing: somebody typed a newline too many.
      if (text.charCodeAt(0) === openObject || text.trim() !== "") take(text)
    },
    bad: (why) => {
      if (why !== "one too many") return take(why === "too long" ? Frame.tooLong(frameBytes) : Frame.notUtf8)
      take(Frame.oneTooMany(gathering.max))
      // It may be another connection that has brought this about.
      gaveUp()
    }
  }, gathering)

/** Waits for room: one wait at a time. */
const makeOnce = (outgoing: Outgoing, then: () => void) => {
  let waits = false
  return (): void => {
    if (waits) return
    waits = true
    outgoing.whenRoom(() => {
      waits = false
      then()
    })
  }
}

/** Begins what comes in as there is room for it, and knows when the connection is over. */
const makeReading = (transport: Transport, parts: Parts, done: () => void) => {
  const { followers, fork, limits, outgoing, streams } = parts
  const pending = makePending(limits)
  let paused = false
  let ended: Ended | undefined
  const requests = makeRequests(parts, () => advance())
  // What finds nobody waiting before it begins at once.
  const take = (incoming: Incoming): void => {
    if (pending.isEmpty() && requests.hasRoom()) requests.begin(incoming)
    else pending.push(incoming)
  }
  const lines = makeLines(parts, take, () => advance())

  const beginSome = (): void => {
    // What is flushed may make room for more.
    do {
      outgoing.hold()
      while (!pending.isEmpty() && requests.hasRoom()) {
        const incoming = pending.take()
        if (incoming !== undefined) requests.begin(incoming)
      }
      outgoing.flush()
    } while (!pending.isEmpty() && requests.hasRoom())
  }

  const waitForRoom = makeOnce(outgoing, () => advance())

  /** Goes on as far as there is room; called whenever there may be more of it. */
  const advance = (): void => {
    if (!pending.isEmpty()) beginSome()
    // What waits to be written may leave at the end of a turn, and nobody but this tells: a stream may wait for a line that waits here.
    if (!pending.isEmpty() && !outgoing.hasRoom) waitForRoom()
    // Some is read ahead while there is no room: a client that goes away is noticed meanwhile.
    if (pending.isFull() !== paused && ended === undefined) {
      paused = !paused
      if (paused) transport.pause()
      else transport.resume()
    }
    if (ended === undefined || !pending.isEmpty() || !requests.isIdle() || !followers.isEmpty || !streams.isEmpty) return
    outgoing.flush()
    if (outgoing.isEmpty) done()
  }

  const sink: Sink = {
    bytes: (chunk) => {
      if (ended !== undefined) return
      outgoing.hold()
      lines.push(chunk)
      outgoing.flush()
      advance()
    },
    drained: () => {
      outgoing.drained()
      advance()
    },
    ended: (how) => {
      if (how === "half-closed" && ended === undefined) lines.end()
      lines.close()
      ended = how
      if (how === "gone") {
        outgoing.break()
        return done()
      }
      if (how === "stopping") fork(followers.closeAll)
      advance()
    }
  }
  return { advance, requests, sink }
}

/**
 * Serves one connection until it ends. Never fails: what goes wrong is answered, or ends the connection. Interrupting
 * it interrupts its requests, each of which is still answered as far as the other side reads.
 */
export const run: (
  transport: Transport,
  options: Options
) => Effect.Effect<void, never, Router | Subscriptions> = Effect.fnUntraced(function*(transport: Transport, options: Options) {
  const router = yield* Router
  const subscriptions = yield* Subscriptions
  const limits = yield* Limits
  const clock = yield* Clock.Clock
  const authorizer = yield* Authorizer
  const identity: Identity = { principal: options.principal, isGreeted: false }
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  const over = Deferred.makeUnsafe<void>()
  const { budget, gathering } = options.shared ?? makeShared(limits)
  const outgoing = yield* Effect.acquireRelease(
    Effect.sync(() => new Outgoing(transport.write, limits.connectionBufferBytes, budget, (bytes) => {
      fork(Effect.logWarning(`a connection was closed that had not read ${bytes} bytes`))
      transport.destroy()
      reading.sink.ended("gone")
    })),
    (outgoing) => Effect.sync(() => outgoing.break())
  )
  const closed = () => reading.advance()
  const streams = new Streams({ router, authorizer, limits, clock, outgoing, identity, fork, closed })
  const followers = new Followers({
    subscriptions, authorizer, limits, clock, outgoing, identity, fork, closed, greeted: options.greeted,
    cancel: (id) => streams.cancel(id)
  })
  yield* Effect.addFinalizer(() => followers.closeAll)
  const surroundings = yield* Effect.withFiber((fiber: Fiber.Fiber<unknown, unknown>) => Effect.succeed(fiber))
  const parts: Parts = { router, followers, streams, outgoing, limits, clock, identity, gathering, surroundings, fork }
  const reading = makeReading(transport, parts, () => Deferred.doneUnsafe(over, Exit.void))
  yield* Effect.addFinalizer(() =>
    Effect.andThen(reading.requests.interrupt, Effect.sync(() => outgoing.flush()))
  )
  transport.start(reading.sink)
  yield* Deferred.await(over)
}, Effect.scoped)
