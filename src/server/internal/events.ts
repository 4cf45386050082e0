// Server-sent events: a subscription as a stream of text that a browser's EventSource follows, and resumes where it was cut.
//
// Each fact has its position as its id, and one that stands for nothing but where it began comes first: a client that lost the
// connection says the last it heard (`Last-Event-ID`) and goes on after it, without a gap and without a repeat.
//
// Source: HTML Living Standard, section 9.2.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ServerResponse } from "node:http"
import type { SubscribeOptions } from "../../bus/KsiService.ts"
import type { Subscriptions } from "../../bus/Subscription.ts"
import type { Delivery } from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import * as EventCodec from "../../event/EventCodec.ts"
import * as EventPattern from "../../event/EventPattern.ts"
import * as KsiError from "../../event/KsiError.ts"
import { optionsOf, Subscribe } from "../../wire/Control.ts"
import * as Problem from "../Problem.ts"
import { type Exchange, refuse } from "./exchange.ts"
import * as Unread from "./unread.ts"

/** What follows events. */
export interface Parts extends Unread.Bounds {
  readonly subscriptions: Subscriptions["Service"]
}

interface Wanted {
  readonly pattern: string | ReadonlyArray<string>
  readonly options: SubscribeOptions
}

// What is asked for is what `pubsub:subscribe` takes, and what is wrong with it is told in its words.
const { decodePayload } = EventCodec.compile(Subscribe)
const names: ReadonlySet<string> = new Set(["pattern", "from", "requests", "overflow", "every_ms", "buffer"])

const invalid = (path: string, problem: string): Effect.Effect<never, KsiError.KsiError> =>
  KsiError.fail(KsiError.invalidAt(Subscribe.name, path, problem))

/** The JSON that a text in a query stands for. */
const valueOf = (text: string): string | number | boolean => {
  if (/^\d{1,16}$/.test(text)) return Number(text)
  return text === "true" || (text === "false" ? false : text)
}

/** The last position that was heard; `undefined` where the request does not say. */
const heardOf = ({ headers: { "last-event-id": last } }: Exchange["request"]): Effect.Effect<number | undefined, KsiError.KsiError> => {
  // A browser that has heard nothing yet leaves it out; others send it empty.
  if (typeof last !== "string" || last === "") return Effect.succeed(undefined)
  return /^\d{1,15}$/.test(last)
    ? Effect.succeed(Number(last))
    : invalid("Last-Event-ID", `expected the position that was heard last, got ${JSON.stringify(last.slice(0, 80))}`)
}

const wantedOf = ({ principal, search }: Exchange, heard: number | undefined): Effect.Effect<Wanted, KsiError.KsiError> => {
  const given: Record<string, unknown> = {}
  for (const [key, text] of new URLSearchParams(search)) {
    if (!names.has(key)) return invalid(key, `expected one of ${[...names].join(", ")}`)
    if (Object.hasOwn(given, key)) return invalid(key, "expected once")
    given[key] = key === "pattern" ? EventPattern.said(text) : valueOf(text)
  }
  const { from } = given
  if (typeof from === "string" && from !== "start" && from !== "now") return invalid("from", `expected a position, "start" or "now", got ${JSON.stringify(from)}`)
  // After the last that was heard, wherever it began.
  if (heard !== undefined) given["from"] = heard + 1
  // Decoded by the definition.
  const payload = decodePayload({ pattern: "*", subscription_id: "http", ...given }) as Effect.Effect<Event.Payload<typeof Subscribe>, KsiError.KsiError>
  return Effect.flatMap(payload, (wanted) => Effect.map(optionsOf(wanted, principal), (options) => ({ pattern: wanted.pattern, options })))
}

const textOf = ({ data, id, metadata, missed, name, position, version }: Delivery): string => {
  const place = position === undefined ? {} : { position: Number(position), version, stream_id: metadata.streamId }
  const left = missed === 0 ? {} : { missed }
  const said = { event: name, data: data ?? null, ...place, ...left, event_id: id, timestamp: metadata.timestamp / 1000 }
  return `${position === undefined ? "" : `id: ${position}\n`}data: ${JSON.stringify(said)}\n\n`
}

const retryMillis = 1000

/** What waits to be written to a response, until the scope closes. */
const outgoingOf = (parts: Parts, response: ServerResponse) =>
  Effect.acquireRelease(
    Unread.outgoingOf(parts, response, (text) => response.write(text)),
    (outgoing) => Effect.sync(() => {
      outgoing.flush()
      outgoing.break()
    })
  )

/** Ends a stream; with what it ends with, if it does not end well. */
const endWith = (response: ServerResponse, problem: Problem.Problem | undefined): void => {
  // Who does not read would keep the connection. What it has not read it finds again where it left off.
  if (response.writableNeedDrain) return void response.destroy()
  response.end(problem && `event: error\ndata: ${JSON.stringify(Problem.document(problem))}\n\n`)
}

const problemOf = (cause: Cause.Cause<KsiError.KsiError>, principal: string): Problem.Problem | undefined => {
  if (Cause.hasInterruptsOnly(cause)) return undefined
  const error = Cause.squash(cause)
  return KsiError.is(error) ? Problem.ofReason(error.reason, principal) : Problem.make("Defect", "following broke; the daemon's log says more")
}

/** Follows until the other side goes, or may hear nothing any more. */
export const follow = (parts: Parts, exchange: Exchange): Effect.Effect<void> => {
  const { subscriptions } = parts
  const { principal, request, response } = exchange
  const run: Effect.Effect<void, KsiError.KsiError, Scope.Scope> = Effect.gen(function*() {
    const last = yield* heardOf(request)
    const { options, pattern } = yield* wantedOf(exchange, last)
    const subscription = yield* subscriptions.open(pattern, options)
    const { next, position } = subscription
    if (last !== undefined && last > position) {
      const problem = `the store ends at position ${position}, ${last} was heard of another one: begin again, with from=start or now`
      return yield* invalid("Last-Event-ID", problem)
    }
    response.writeHead(200, [...Unread.eventHeaders])
    if (request.method === "HEAD") return
    const outgoing = yield* outgoingOf(parts, response)
    const { from } = options
    const heard = typeof from === "number" ? from - 1 : from === "start" ? 0 : position
    outgoing.append(`retry: ${retryMillis}\nid: ${heard}\n\n`)
    yield* Unread.keepAlive(outgoing)
    for (;;) {
      for (const delivery of yield* next) {
        if (!outgoing.hasRoom) yield* outgoing.room
        // What has come out already, and waited for a slow client, may be for it no longer.
        if (subscription.hears(delivery.name)) outgoing.append(textOf(delivery))
      }
    }
  })
  // Also where it is interrupted: whoever stops the daemon waits for the end.
  return Effect.onExit(Effect.scoped(run), (exit) => Effect.gen(function*() {
    const problem = exit._tag === "Failure" ? problemOf(exit.cause, principal) : undefined
    if (exit._tag === "Failure" && problem?.reason === "Defect") yield* Effect.logError("following over HTTP broke", exit.cause)
    if (problem !== undefined && !response.headersSent) refuse(response, problem)
    else endWith(response, problem)
  })).pipe(Effect.exit, Effect.asVoid)
}
