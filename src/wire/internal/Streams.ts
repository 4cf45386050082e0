// The streams of one connection: each a fiber that pulls items of its request for as long as they may be sent.
//
// How much may be sent is the client's to say (credit, in items and in characters of their frames), so that one who is slow on
// one stream holds up no other. A client that says nothing is sent what the socket takes: then its slowest stream is the pace of
// all it has there.
//
// The rule: frames of a stream are numbered, and its last one says that it is the last and how it ended; nothing of it comes after.
import * as Channel from "effect/Channel"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { AuthorizerShape } from "../../bus/Authorizer.ts"
import type { LiveEnvelope } from "../../bus/Causation.ts"
import type { DeclaredFailure } from "../../bus/KsiService.ts"
import type { Router } from "../../bus/Router.ts"
import * as KsiError from "../../event/KsiError.ts"
import type { LimitsShape } from "../../event/Limits.ts"
import * as Frame from "../Frame.ts"
import type { Identity } from "./Followers.ts"
import type { Outgoing } from "./Outgoing.ts"
import type { Fork } from "./Telling.ts"
import { Window } from "./Window.ts"

interface Parts {
  readonly router: Router["Service"]
  readonly authorizer: AuthorizerShape
  readonly limits: LimitsShape
  readonly clock: Clock.Clock
  readonly outgoing: Outgoing
  readonly identity: Identity
  readonly fork: Fork
  /** Told when a stream has ended. */
  readonly closed: () => void
}

// A frame of several items takes no more once it has so many characters: the frames of others get their turn.
const frameLength = 64 * 1024

type Failure = KsiError.KsiError | DeclaredFailure

/** An item of this event as JSON, or why it cannot be sent: it may have at most so many characters. */
export const itemText = (event: string, item: unknown, max: number): string | KsiError.KsiError => {
  try {
    // An item of an event that promises none has no text.
    const text = JSON.stringify(item) ?? "null"
    if (text.length <= max) return text
    return KsiError.make(new KsiError.LimitExceeded({ limit: "frameBytes", max, actual: text.length, retryable: false }))
  } catch {
    return KsiError.make(KsiError.unwritable(event))
  }
}

/** One stream, as it is written. */
class Writing {
  readonly window: Window
  private readonly outgoing: Outgoing
  private readonly head: string
  private readonly name: string
  private readonly max: number
  /** Whether a frame may have several items. */
  private readonly isMany: boolean
  private count = 0
  /** Items that have gathered for the next frame, and their characters. */
  private gathered: Array<string> = []
  private length = 0

  constructor(name: string, request: Frame.StreamRequest, { identity, limits, outgoing }: Parts) {
    this.name = name
    this.max = limits.frameBytes
    this.isMany = identity.isGreeted
    this.outgoing = outgoing
    this.window = new Window(request)
    this.head = `{"event":${JSON.stringify(name)},"stream_id":${JSON.stringify(request.id)},"seq":`
  }

  /** Sends an item: those that are made in one turn share a frame. Throws a `KsiError` where it cannot be sent. */
  item(item: unknown): void {
    const text = itemText(this.name, item, this.max)
    if (KsiError.is(text)) throw text
    if (this.isMany && this.gathered.length === 0) this.outgoing.beforeFlush(this.close)
    this.gathered.push(text)
    this.length += text.length
    this.window.spend(1, text.length)
    if (!this.isMany || this.length >= frameLength) this.close()
  }

  /** Sends the frame of what has gathered. */
  readonly close = (): void => {
    const { count, gathered, head, length, window } = this
    if (gathered.length === 0) return
    this.gathered = []
    this.length = 0
    this.count += gathered.length
    const items = gathered.length === 1 ? `"data":${gathered[0]}` : `"items":[${gathered.join(",")}]`
    const line = `${head}${count}${window.marked()},${items}}\n`
    // The rest of its characters; the newline is none of them.
    window.spend(0, line.length - 1 - length)
    this.outgoing.append(line)
  }

  /** The last one. */
  end(envelope: LiveEnvelope, correlationId: unknown, exit: Exit.Exit<unknown, Failure>, now: number): string {
    const how = Exit.isSuccess(exit) ? "\"ok\":true" : `"ok":false,"error":${JSON.stringify(Frame.encodeFailure(exit.cause, envelope))}`
    const label = JSON.stringify(correlationId) ?? "null"
    return `${this.head}${this.count},"stream_end":true,${how},"correlation_id":${label},"timestamp":${Frame.seconds(now)}}\n`
  }
}

/** The streams of one connection. */
export class Streams {
  private readonly parts: Parts
  private readonly open = new Map<string, { readonly window: Window; readonly fiber: Fiber.Fiber<unknown, unknown> }>()

  constructor(parts: Parts) {
    this.parts = parts
  }

  get isEmpty(): boolean {
    return this.open.size === 0
  }

  /** Who sends. */
  fibers(): ReadonlyArray<Fiber.Fiber<unknown, unknown>> {
    return Array.from(this.open.values(), ({ fiber }) => fiber)
  }

  /** Why a stream cannot begin; `undefined` where it can. */
  refusal(event: string, { id }: Frame.StreamRequest): KsiError.Reason | undefined {
    const { connectionStreams: max } = this.parts.limits
    if (this.open.has(id)) return KsiError.invalidAt(event, "stream_id", `"${id}" is a stream of this connection already`)
    return this.open.size < max ? undefined : new KsiError.LimitExceeded({ limit: "connectionStreams", max, retryable: true })
  }

  /** Begins one that may; `ended` is called when it has ended. */
  begin(envelope: LiveEnvelope, request: Frame.StreamRequest, correlationId: unknown, ended: () => void): void {
    const { clock, closed, fork, outgoing } = this.parts
    const writing = new Writing(envelope.name, request, this.parts)
    const fiber = fork(Effect.scoped(this.send(envelope, writing)))
    this.open.set(request.id, { window: writing.window, fiber })
    fiber.addObserver((exit) => {
      this.open.delete(request.id)
      writing.close()
      outgoing.append(writing.end(envelope, correlationId, exit, clock.currentTimeMillisUnsafe()))
      ended()
      closed()
    })
  }

  /** Sends items until there are no more. */
  private send(envelope: LiveEnvelope, writing: Writing): Effect.Effect<void, Failure, Scope.Scope> {
    const { authorizer, outgoing, router } = this.parts
    const { name, metadata: { principal } } = envelope
    const { window } = writing
    const mayNot = () => KsiError.make(authorizer.refusal(principal, "stream", name))
    /** As many as may be sent; the place of the first that may not. */
    const some = (items: ReadonlyArray<unknown>, from: number): number => {
      // What it was allowed when it began it may not be any more.
      if (!authorizer.allows(principal, "stream", name)) throw mayNot()
      let at = from
      while (at < items.length && window.room > 0 && outgoing.hasRoom) writing.item(items[at++])
      return at
    }
    const sending = Effect.gen(function*() {
      // In the services that this fiber has: they are provided once.
      const pull = yield* Channel.toPullScoped(Stream.toChannel(router.items(envelope)), yield* Effect.scope)
      for (;;) {
        if (window.room <= 0) yield* window.opened
        if (!outgoing.hasRoom) yield* outgoing.room
        const items = yield* pull
        // It throws nothing but these.
        const next = (from: number) => Effect.try({ try: () => some(items, from), catch: (cause) => cause as KsiError.KsiError })
        for (let at = yield* next(0); at < items.length; at = yield* next(at)) {
          if (window.room <= 0) yield* window.opened
          if (!outgoing.hasRoom) yield* outgoing.room
        }
      }
    })
    return Effect.catchCause(sending, (cause) => {
      const exit = Pull.doneExitFromCause(cause)
      return Exit.isSuccess(exit) ? Effect.void : Effect.failCause(exit.cause)
    })
  }

  /** What one may send; `undefined` where there is none. */
  windowOf(id: string): Window | undefined {
    return this.open.get(id)?.window
  }

  /** Ends a stream, and answers when its finalizers have run. */
  cancel(id: string): Effect.Effect<void, KsiError.KsiError> {
    return Effect.suspend(() => {
      const stream = this.open.get(id)
      return stream === undefined
        ? KsiError.fail(new KsiError.NotFound({ what: "stream", id, similar: [] }))
        : Fiber.interrupt(stream.fiber)
    })
  }
}
