// The streams of one connection: each a fiber that pulls items of its request for as long as they may be sent.
//
// How much may be sent is the client's to say (credit, in items and in characters of their frames), so that one who is slow on
// one stream holds up no other. A client that says nothing is sent what the socket takes: then its slowest stream is the pace of
// all it has there.
//
// The rule: frames of a stream are numbered, and its last one says that it is the last and how it ended; nothing of it comes after.
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
import { isObject } from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import type { LimitsShape } from "../../event/Limits.ts"
import * as Frame from "../Frame.ts"
import type { Fork, Identity } from "./Followers.ts"
import type { Outgoing } from "./Outgoing.ts"

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

/** What a client lets a stream send. */
class Window {
  private items: number
  private bytes: number
  private wake: (() => void) | undefined
  /** What the client wants to see again, in the next frame: it tells how long that takes. */
  mark: unknown

  constructor({ bytes = Infinity, items = Infinity }: Frame.StreamRequest) {
    this.items = items
    this.bytes = bytes
  }

  /** How many items may be sent; their frames may exceed the characters by the last one. */
  get room(): number {
    return this.bytes > 0 ? this.items : 0
  }

  spend(items: number, bytes: number): void {
    this.items -= items
    this.bytes -= bytes
  }

  grant(items: number, bytes: number): void {
    this.items += items
    this.bytes += bytes
    if (this.room > 0) this.wake?.()
  }

  readonly opened: Effect.Effect<void> = Effect.callback<void>((resume) => {
    if (this.room > 0) return resume(Effect.void)
    this.wake = () => {
      this.wake = undefined
      resume(Effect.void)
    }
    return Effect.sync(() => {
      this.wake = undefined
    })
  })
}

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
  private readonly head: string
  private readonly name: string
  private readonly max: number
  /** Whether a frame may have several items. */
  private readonly isMany: boolean
  private count = 0

  constructor(name: string, request: Frame.StreamRequest, { identity, limits }: Parts) {
    this.name = name
    this.max = limits.frameBytes
    this.isMany = identity.isGreeted
    this.window = new Window(request)
    this.head = `{"event":${JSON.stringify(name)},"stream_id":${JSON.stringify(request.id)},"seq":`
  }

  private marked(): string {
    const { mark } = this.window
    if (mark === undefined) return ""
    this.window.mark = undefined
    return `,"mark":${JSON.stringify(mark)}`
  }

  /** The next frame, of items from this one on; answers with how many are in it. Throws a `KsiError` where the first cannot be sent. */
  frame(items: ReadonlyArray<unknown>, from: number, write: (text: string) => void): number {
    const most = this.isMany ? Math.min(items.length - from, this.window.room) : 1
    const first = itemText(this.name, items[from], this.max)
    if (KsiError.is(first)) throw first
    let text = first
    let taken = 1
    for (; taken < most && text.length < frameLength; taken++) {
      const next = itemText(this.name, items[from + taken], this.max)
      // What came before it is sent, and then it is the first.
      if (KsiError.is(next)) break
      text += `,${next}`
    }
    const line = `${this.head}${this.count}${this.marked()},${taken === 1 ? `"data":${text}}` : `"items":[${text}]}`}\n`
    this.count += taken
    this.window.spend(taken, line.length - 1)
    write(line)
    return taken
  }

  /** The last one. */
  end(envelope: LiveEnvelope, correlationId: unknown, exit: Exit.Exit<unknown, Failure>, now: number): string {
    const how = Exit.isSuccess(exit) ? "\"ok\":true" : `"ok":false,"error":${JSON.stringify(Frame.encodeFailure(exit.cause, envelope))}`
    const label = JSON.stringify(correlationId) ?? "null"
    return `${this.head}${this.count},"stream_end":true,${how},"correlation_id":${label},"timestamp":${Frame.seconds(now)}}\n`
  }
}

const countOf = (u: unknown): number | undefined => u === undefined ? 0 : Number.isSafeInteger(u) && Number(u) >= 0 ? Number(u) : undefined

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
    const write = (text: string) => outgoing.append(text)
    const mayNot = () => KsiError.make(authorizer.refusal(principal, "stream", name))
    /** As many frames as may be sent; the place of the first item that is in none. */
    const some = (items: ReadonlyArray<unknown>, from: number): number => {
      // What it was allowed when it began it may not be any more.
      if (!authorizer.allows(principal, "stream", name)) throw mayNot()
      let at = from
      while (at < items.length && window.room > 0 && outgoing.hasRoom) at += writing.frame(items, at, write)
      return at
    }
    const sending = Effect.gen(function*() {
      const pull = yield* Stream.toPull(router.items(envelope))
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

  /**
   * Lets a stream send more. One that is not there has just ended: that is no error. Answers with what is wrong with the frame.
   */
  credit(data: unknown): KsiError.Reason | undefined {
    const { bytes, items, mark, stream_id: id } = isObject(data) ? data : {}
    const moreItems = countOf(items)
    const moreBytes = countOf(bytes)
    if (typeof id !== "string") return KsiError.invalidAt("stream:credit", "stream_id", "must be a text")
    if (moreItems === undefined) return KsiError.invalidAt("stream:credit", "items", "must be a whole number from 0 on")
    if (moreBytes === undefined) return KsiError.invalidAt("stream:credit", "bytes", "must be a whole number from 0 on")
    if (mark !== undefined && !Number.isSafeInteger(mark)) return KsiError.invalidAt("stream:credit", "mark", "must be a whole number")
    const window = this.open.get(id)?.window
    if (window === undefined) return undefined
    if (mark !== undefined) window.mark = mark
    window.grant(moreItems, moreBytes)
    return undefined
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
