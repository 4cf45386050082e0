// Requests that are answered by a stream: item after item, as server-sent events or as lines of JSON, and at last how it ended.
//
// The rule: who reads can tell the end from a cut. What fails before there was anything to read is a problem with its status, as
// everywhere; afterwards the problem is the last that comes. No more items are made than may wait for a client that reads slowly.
// One that goes away interrupts the handler.
//
// Source: HTML Living Standard, section 9.2; RFC 9110, section 12.5.1.
import type * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Pull from "effect/Pull"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { IncomingHttpHeaders } from "node:http"
import type { AuthorizerShape } from "../../bus/Authorizer.ts"
import type * as Causation from "../../bus/Causation.ts"
import type { DeclaredFailure } from "../../bus/KsiService.ts"
import type { Router } from "../../bus/Router.ts"
import type * as Event from "../../event/Event.ts"
import * as KsiError from "../../event/KsiError.ts"
import type { Outgoing } from "../../wire/Connection.ts"
import { itemText } from "../../wire/internal/Streams.ts"
import * as Problem from "../Problem.ts"
import { type Exchange, type Fork, labelsOf, refuse } from "./exchange.ts"
import * as Unread from "./unread.ts"

/** What answers with streams. */
export interface Parts extends Unread.Bounds {
  readonly router: Router["Service"]
  readonly authorizer: AuthorizerShape
  readonly fork: Fork
}

/** How items, and what comes last, are written; all that is given is JSON. */
interface Way {
  readonly type: string
  readonly headers: ReadonlyArray<string>
  readonly item: (text: string, number: number) => string
  readonly end: (items: number) => string
  readonly error: (problem: string) => string
  /** Whether something may be said that is nothing to who reads. */
  readonly hasComments: boolean
}

const events: Way = {
  type: "text/event-stream",
  headers: Unread.eventHeaders,
  item: (text, number) => `id: ${number}\ndata: ${text}\n\n`,
  // One without data would be told to nobody.
  end: (items) => `event: end\ndata: {"items":${items}}\n\n`,
  error: (problem) => `event: error\ndata: ${problem}\n\n`,
  hasComments: true
}

// An item may look like anything: so none of them is a line as it is.
const lines: Way = {
  type: "application/x-ndjson",
  headers: ["content-type", "application/x-ndjson", "cache-control", "no-store", "x-content-type-options", "nosniff", "x-accel-buffering", "no"],
  item: (text) => `{"data":${text}}\n`,
  end: (items) => `{"end":{"items":${items}}}\n`,
  error: (problem) => `{"error":${problem}}\n`,
  hasComments: false
}

// -------------------------------------------------------------------------------------------------------- what is wanted

/** What a client takes: the way of a stream that it wants most, and whether an answer that is none. */
interface Accepted {
  readonly way: Way | undefined
  readonly isPlain: boolean
}

const anything: Accepted = { way: undefined, isPlain: true }

/** What the header `Accept` says. Who names no stream gets JSON, whatever it names. */
const acceptedOf = ({ accept }: IncomingHttpHeaders): Accepted => {
  // Nearly all of them.
  if (accept === undefined || accept === "*/*") return anything
  let way: Way | undefined
  let most = 0
  let isPlain = false
  for (const range of accept.toLowerCase().split(",")) {
    const [type = "", ...parameters] = range.split(";").map((part) => part.trim())
    const given = parameters.find((parameter) => parameter.startsWith("q="))
    const quality = given === undefined ? 1 : Number(given.slice("q=".length))
    const named = type === events.type ? events : type === lines.type ? lines : undefined
    if (named === undefined) isPlain ||= quality > 0
    else if (quality > most) {
      way = named
      most = quality
    }
  }
  return way === undefined ? anything : { way, isPlain }
}

/**
 * How a post to this event is to be answered: by a stream, where both agree to that; `undefined` where there is one answer, also
 * that who asks may not. Else the problem: one that takes nothing but a stream, or that wants a stream to go on, is asked for nothing.
 */
export const wayOf = (
  authorizer: AuthorizerShape,
  { principal, request: { headers } }: Exchange,
  event: Event.Any
): Result.Result<Way, Problem.Problem> | undefined => {
  const { isPlain, way } = acceptedOf(headers)
  const use = event.kind === "fact" ? "emit" : event.mode
  if (way === undefined || !authorizer.allows(principal, use, event.name)) return undefined
  if (use !== "stream") {
    const problem = `${event.name} is answered once, not by a stream`
    return isPlain ? undefined : Result.fail(Problem.make("NotAcceptable", problem, { next: "say so: -H 'Accept: application/json'" }))
  }
  const refused = (header: string, problem: string) => Result.fail(Problem.ofReason(KsiError.invalidAt(event.name, header, problem)))
  const last = headers["last-event-id"]
  // It would be carried out once more, and look as if it had gone on; or as if it had not been.
  if (last !== undefined && last !== "") return refused("Last-Event-ID", "a stream that was cut does not go on: ask anew, without it")
  if (headers["idempotency-key"] !== undefined) return refused("Idempotency-Key", "the items of a stream are not kept: ask without it")
  return Result.succeed(way)
}

// ---------------------------------------------------------------------------------------------------------------- answers

type Failure = KsiError.KsiError | DeclaredFailure

// Items that are made together are written together, up to so many characters: then others get their turn.
const pieceLength = 64 * 1024

/** One answer, as it is written. */
class Answer {
  private readonly exchange: Exchange
  private readonly envelope: Causation.LiveEnvelope
  private readonly way: Way
  private readonly parts: Parts
  private outgoing: Outgoing | undefined
  private items = 0

  constructor(parts: Parts, exchange: Exchange, envelope: Causation.LiveEnvelope, way: Way) {
    this.parts = parts
    this.exchange = exchange
    this.envelope = envelope
    this.way = way
  }

  /** Its head goes with the first that there is to write. */
  private readonly write = (text: string): boolean => {
    const { response } = this.exchange
    if (!response.headersSent) response.writeHead(200, [...this.way.headers, ...labelsOf(this.envelope)])
    return response.write(text)
  }

  /** Writes some items from this one on; answers with the place of the next. Throws a `KsiError` where the first cannot be written. */
  private some(items: ReadonlyArray<unknown>, from: number, outgoing: Outgoing): number {
    const { authorizer, limits } = this.parts
    const { name, metadata: { principal } } = this.envelope
    // What it was allowed when it began it may not be any more.
    if (!authorizer.allows(principal, "stream", name)) throw KsiError.make(authorizer.refusal(principal, "stream", name))
    const pieces: Array<string> = []
    let length = 0
    let at = from
    for (; at < items.length && length < pieceLength; at++) {
      const text = itemText(name, items[at], limits.frameBytes)
      if (KsiError.is(text)) {
        if (at === from) throw text
        // What came before it is written, and then it is the first.
        break
      }
      const piece = this.way.item(text, ++this.items)
      pieces.push(piece)
      length += piece.length
    }
    // In one piece: a text put together of many takes ten times its bytes while it waits.
    outgoing.append(pieces.join(""))
    return at
  }

  /** Writes items until there are no more. */
  readonly sending: Effect.Effect<void, Failure> = Effect.scoped(Effect.gen({ self: this }, function*(): Effect.fn.Return<void, Failure | Cause.Done<void>, Scope.Scope> {
    const outgoing = this.outgoing = yield* Unread.outgoingOf(this.parts, this.exchange.response, this.write)
    if (this.way.hasComments) yield* Unread.keepAlive(outgoing)
    // In the services that this fiber has: they are provided once.
    const pull = yield* Channel.toPullScoped(Stream.toChannel(this.parts.router.items(this.envelope)), yield* Effect.scope)
    for (;;) {
      if (!outgoing.hasRoom) yield* outgoing.room
      const items = yield* pull
      // It throws nothing but these.
      const next = (from: number) => Effect.try({ try: () => this.some(items, from, outgoing), catch: (cause) => cause as KsiError.KsiError })
      for (let at = yield* next(0); at < items.length; at = yield* next(at)) if (!outgoing.hasRoom) yield* outgoing.room
    }
  })).pipe(Effect.catchCause((cause) => {
    const exit = Pull.doneExitFromCause(cause)
    return Exit.isSuccess(exit) ? Effect.void : Effect.failCause(exit.cause)
  }))

  /** The problem that it ended with, as JSON; of an error that cannot be written, that it cannot. */
  private problemOf(exit: Exit.Failure<unknown, Failure>): { readonly problem: Problem.Problem; readonly text: string } {
    const problem = Problem.ofCause(exit.cause, this.envelope)
    try {
      return { problem, text: JSON.stringify(Problem.document(problem)) }
    } catch {
      const { correlationId } = problem
      const unwritable = { ...Problem.ofReason(KsiError.unwritable(this.envelope.name)), correlationId }
      return { problem: unwritable, text: JSON.stringify(Problem.document(unwritable)) }
    }
  }

  /** Writes how it ended, after all that waits: from here on it is the response that holds it. */
  end(exit: Exit.Exit<void, Failure>): void {
    const { envelope, exchange, outgoing, way } = this
    const { response } = exchange
    if (response.destroyed || outgoing === undefined) return outgoing?.break()
    const failed = Exit.isFailure(exit) ? this.problemOf(exit) : undefined
    if (failed !== undefined && !response.headersSent && outgoing.isEmpty) {
      outgoing.break()
      return refuse(response, failed.problem, labelsOf(envelope))
    }
    outgoing.append(failed === undefined ? way.end(this.items) : way.error(failed.text))
    outgoing.finish()
    response.end()
    Unread.count(this.parts.budget, exchange)
  }
}

/** Answers with streams; who is at work stands in `running` for as long. */
export const make = (parts: Parts, running: Set<Fiber.Fiber<unknown, unknown>>) =>
  (exchange: Exchange, envelope: Causation.LiveEnvelope, way: Way): void => {
    const answer = new Answer(parts, exchange, envelope, way)
    const fiber = parts.fork(answer.sending)
    running.add(fiber)
    fiber.addObserver((exit) => {
      running.delete(fiber)
      answer.end(exit)
    })
    exchange.response.on("close", () => fiber.interruptUnsafe())
  }
