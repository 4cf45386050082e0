/**
 * One client's connection: lines in, lines out. Requests run concurrently; replies leave as they come, all of one turn
 * of the event loop in one write.
 *
 * The rule: what a connection began ends with it. When the other side is gone, its requests are interrupted and its
 * subscriptions closed. A side that has only stopped sending (it shut down its half) still gets every answer.
 *
 * Memory is bounded on both ways: a line by `frameBytes`, running requests by `connectionRequests`, what waits to be
 * written by `connectionBufferBytes`. At a bound the connection reads no further, and the client's own writes wait; a
 * subscription that cannot be written is not pulled, and goes back to the journal for what it missed.
 *
 * **Example**
 *
 * ```ts
 * const sent: Array<string> = []
 * const bytes = new TextEncoder().encode("{\"event\":\"no:such\"}\n")
 * let pulls = 0
 * yield* Connection.run({
 *   pull: Effect.suspend(() => pulls++ === 0 ? Effect.succeed([bytes]) : Effect.fail("the end")),
 *   write: (text) => Effect.sync(() => { sent.push(text) }),
 *   ended: Effect.succeed("half-closed")
 * }, { principal: "owner" })
 * JSON.parse(sent.join("")).data.reason        // "UnknownEvent"
 * ```
 *
 * **Gotchas** What waits to be written is counted in characters, not bytes. A single reply may exceed the bound by its
 * own length, and so may each request that was running when it was reached.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import * as SchemaAST from "effect/SchemaAST"
import type { LiveEnvelope } from "../bus/Causation.ts"
import type { Answer, DeclaredFailure } from "../bus/KsiService.ts"
import { Router } from "../bus/Router.ts"
import { Subscriptions } from "../bus/Subscription.ts"
import type * as Event from "../event/Event.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits, type LimitsShape } from "../event/Limits.ts"
import * as Control from "./Control.ts"
import * as Frame from "./Frame.ts"
import { Followers } from "./internal/Followers.ts"
import { Lines } from "./internal/Lines.ts"
import { Outgoing } from "./internal/Outgoing.ts"

// ------------------------------------------------------------------------------------------------------------- models

/**
 * How the incoming side ended: the other side is gone, it sends no more but still reads, or this side stops and
 * finishes what it has begun.
 */
export type Ended = "gone" | "half-closed" | "stopping"

/** What a connection needs of its transport. */
export interface Transport {
  /** Waits for the next bytes; fails when there will be none. */
  readonly pull: Effect.Effect<NonEmptyReadonlyArray<Uint8Array | string>, unknown>
  /** Hands text over; completes when more may follow. */
  readonly write: (text: string) => Effect.Effect<void, unknown>
  /** How it ended; asked once, after the last pull. */
  readonly ended: Effect.Effect<Ended>
}

/** Who is at the other end. */
export interface Options {
  /** Bound to the connection; nothing in a message changes it. */
  readonly principal: string
}

// ----------------------------------------------------------------------------------------------------------- requests

type Dispatched = Exit.Exit<Answer, KsiError.KsiError | DeclaredFailure>

interface Parts {
  readonly router: Router["Service"]
  readonly followers: Followers
  readonly outgoing: Outgoing
  readonly limits: LimitsShape
  readonly clock: Clock.Clock
  readonly principal: string
}

const labelOf = (correlationId: unknown, maxLength: number): string | undefined => {
  if (correlationId === undefined || correlationId === null) return undefined
  const text = typeof correlationId === "string" ? correlationId : JSON.stringify(correlationId)
  return text.length <= maxLength ? text : undefined
}

const answersNothing = (event: Event.Any | undefined): boolean =>
  event?.kind === "request" && SchemaAST.isVoid(event.success.ast)

/** Runs the requests of one connection and appends their replies. */
const makeRequests = ({ clock, followers, limits, outgoing, principal, router }: Parts) => {
  const running = new Set<Fiber.Fiber<unknown, unknown>>()

  // An event that answers nothing is written as `null` by its schema; on the wire it is a bare success.
  const plain = (envelope: LiveEnvelope, exit: Dispatched): Dispatched => {
    if (Exit.isFailure(exit) || exit.value.kind !== "value" || exit.value.value !== null) return exit
    return answersNothing(router.registry.get(envelope.name)?.event)
      ? Exit.succeed({ kind: "value", value: undefined })
      : exit
  }

  const textOf = (envelope: LiveEnvelope, correlationId: unknown, exit: Dispatched): string => {
    const now = clock.currentTimeMillisUnsafe()
    const text = Frame.encodeReply(envelope, correlationId, plain(envelope, exit), now)
    if (text.length <= limits.frameBytes) return text
    const reason = { limit: "frameBytes", max: limits.frameBytes, actual: text.length, retryable: false }
    return Frame.encodeReply(envelope, correlationId, KsiError.exit(new KsiError.LimitExceeded(reason)), now)
  }

  const dispatch = (request: Frame.Request): void => {
    const { clientId, correlationId, deadlineMillis, event, idempotencyKey } = request
    const envelope = router.envelope(event, request.data, {
      principal,
      clientId,
      clientCorrelationId: labelOf(correlationId, limits.idLength),
      idempotencyKey,
      deadline: deadlineMillis === undefined ? undefined : clock.currentTimeMillisUnsafe() + deadlineMillis
    })
    const answered = Control.isControl(event) ? followers.attach(envelope, clientId) : undefined
    const fiber = Effect.runFork(router.dispatch(envelope))
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) {
      outgoing.append(textOf(envelope, correlationId, exit))
      return answered?.()
    }
    running.add(fiber)
    fiber.addObserver((exit) => {
      running.delete(fiber)
      outgoing.append(textOf(envelope, correlationId, exit))
      answered?.()
      outgoing.changed()
    })
  }

  return {
    /** Whether another may begin. */
    hasRoom: () => running.size < limits.connectionRequests && outgoing.hasRoom,
    isIdle: () => running.size === 0,
    interrupt: Effect.suspend(() => Fiber.interruptAll([...running])),
    begin: (incoming: string | Frame.Unreadable): void => {
      const request = typeof incoming === "string" ? Frame.decode(incoming) : Result.fail(incoming)
      if (Result.isSuccess(request)) return dispatch(request.success)
      outgoing.append(Frame.encodeUnreadable(request.failure, clock.currentTimeMillisUnsafe()))
    }
  }
}

type Requests = ReturnType<typeof makeRequests>

// ------------------------------------------------------------------------------------------------------------ running

/** Begins every request of `pending` as soon as there is room. */
const beginAll = (pending: Array<string | Frame.Unreadable>, requests: Requests, outgoing: Outgoing) => {
  let at = 0
  const beginSome = (): boolean => {
    outgoing.hold()
    for (; at < pending.length && requests.hasRoom(); at++) {
      const incoming = pending[at]
      if (incoming !== undefined) requests.begin(incoming)
    }
    outgoing.flush()
    return at === pending.length && requests.hasRoom()
  }
  return Effect.suspend(function again(): Effect.Effect<void> {
    if (outgoing.broken || beginSome()) {
      pending.length = 0
      return Effect.void
    }
    return Effect.flatMap(outgoing.until(requests.hasRoom), again)
  })
}

const readAll = Effect.fnUntraced(function*(transport: Transport, parts: Parts, requests: Requests) {
  const { limits, outgoing } = parts
  const pending: Array<string | Frame.Unreadable> = []
  const lines = new Lines(limits.frameBytes, {
    // An empty line is nothing: somebody typed a newline too many.
    line: (text) => text.trim() === "" ? 0 : pending.push(text),
    bad: (why) => pending.push(why === "too long" ? Frame.tooLong(limits.frameBytes) : Frame.notUtf8)
  })
  while (!outgoing.broken) {
    const pulled = yield* Effect.exit(transport.pull)
    if (Exit.isFailure(pulled)) break
    for (const chunk of pulled.value) lines.push(typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk)
    if (pending.length > 0) yield* beginAll(pending, requests, outgoing)
  }
  const ended = yield* transport.ended
  if (ended === "half-closed") {
    lines.end()
    yield* beginAll(pending, requests, outgoing)
  }
  return ended
})

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
  const { principal } = options
  const outgoing = yield* Outgoing.make(transport.write, limits.connectionBufferBytes)
  const scope = yield* Effect.scope
  const followers = new Followers({ router, subscriptions, limits, clock, outgoing, scope, principal })
  const parts: Parts = { router, followers, outgoing, limits, clock, principal }
  const requests = makeRequests(parts)
  yield* Effect.addFinalizer(() => Effect.tap(requests.interrupt, () => Effect.sync(() => outgoing.flush())))
  const ended = yield* readAll(transport, parts, requests)
  if (ended === "gone") return
  if (ended === "stopping") yield* followers.closeAll
  yield* outgoing.until(() => requests.isIdle() && followers.isEmpty)
  outgoing.flush()
  yield* outgoing.until(() => outgoing.isEmpty)
}, Effect.scoped)
