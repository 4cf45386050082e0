// Requests that come in: an envelope goes in, its answer or its problem is written. Whoever goes away interrupts it.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import type { AuthorizerShape } from "../../bus/Authorizer.ts"
import * as Causation from "../../bus/Causation.ts"
import type { Dispatched } from "../../bus/KsiService.ts"
import type { Router } from "../../bus/Router.ts"
import * as KsiError from "../../event/KsiError.ts"
import type { LimitsShape } from "../../event/Limits.ts"
import type { Budget } from "../../wire/Connection.ts"
import * as Problem from "../Problem.ts"
import { answer, type Exchange, type Fork, labelsOf, readText, refuse } from "./exchange.ts"
import * as Posted from "./posted.ts"
import * as Streaming from "./streaming.ts"
import * as Unread from "./unread.ts"

/** What answers requests. */
export interface Parts {
  readonly router: Router["Service"]
  readonly authorizer: AuthorizerShape
  readonly limits: LimitsShape
  /** What may wait to be read by all clients together. */
  readonly budget: Budget
  readonly fork: Fork
  readonly surroundings: Fiber.Fiber<unknown, unknown>
}

const ok = 200
const created = 201

const reply = ({ response }: Exchange, envelope: Causation.LiveEnvelope, exit: Dispatched): void => {
  if (exit._tag === "Failure") return refuse(response, Problem.ofCause(exit.cause, envelope), labelsOf(envelope))
  const { value: said } = exit
  if (said.kind === "fact") return answer(response, created, { event_id: said.id, position: said.position }, labelsOf(envelope))
  answer(response, ok, said.value, labelsOf(envelope))
}

const headerOf = (given: string | ReadonlyArray<string> | undefined): string | undefined => typeof given === "string" ? given : undefined

/** Writes what came of an envelope. An answer that cannot be written must not break what others share. */
const makeWrite = ({ budget, fork }: Parts) => (exchange: Exchange, envelope: Causation.LiveEnvelope, exit: Dispatched): void => {
  try {
    reply(exchange, envelope, exit)
    Unread.count(budget, exchange)
  } catch (cause) {
    fork(Effect.annotateLogs(Effect.logError(`the reply of ${envelope.name} cannot be written`, cause), Causation.labelsOf(envelope)))
    const { correlationId } = envelope.metadata
    refuse(exchange.response, { ...Problem.ofReason(KsiError.unwritable(envelope.name)), correlationId }, labelsOf(envelope))
  }
}

/** Reads what is posted to an event; what is wrong with it is answered. */
const read = (limits: LimitsShape, { request, response }: Exchange, name: string, done: (posted: Posted.Posted) => void): void => {
  const kind = Posted.kindOf(request.headers)
  if (Result.isFailure(kind)) return refuse(response, kind.failure)
  readText(request, limits.frameBytes, (text, problem) => {
    if (problem === "too long") {
      return refuse(response, Problem.ofReason(new KsiError.LimitExceeded({ limit: "frameBytes", max: limits.frameBytes, retryable: false })))
    }
    if (problem !== undefined) return refuse(response, Problem.make("PayloadInvalid", `the body is ${problem}`))
    const posted = Posted.read(kind.success, request.headers, text, name, limits)
    if (Result.isFailure(posted)) refuse(response, posted.failure)
    else done(posted.success)
  })
}

/** The calls of one server. */
export const make = (parts: Parts) => {
  const { authorizer, fork, limits, router, surroundings } = parts
  const write = makeWrite(parts)
  const running = new Set<Fiber.Fiber<unknown, unknown>>()
  const stream = Streaming.make(parts, running)

  const dispatch = (exchange: Exchange, envelope: Causation.LiveEnvelope): void => {
    const begun = router.begin(surroundings, envelope)
    // What is complete needs no fiber. It succeeds and fails as what is left of another does.
    if (Exit.isExit(begun)) return write(exchange, envelope, begun as Dispatched)
    const fiber = fork(begun)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return write(exchange, envelope, exit)
    running.add(fiber)
    fiber.addObserver((exit) => {
      running.delete(fiber)
      write(exchange, envelope, exit)
    })
    // Nobody is there any more to hear the answer.
    exchange.response.on("close", () => fiber.interruptUnsafe())
  }

  /** Asks one of KSI's own events on behalf of who asks. */
  const ask = (exchange: Exchange, name: string, data: unknown): void =>
    dispatch(exchange, router.envelope(name, data, { principal: exchange.principal }))

  const begin = (exchange: Exchange, name: string, { data, fact }: Posted.Posted): void => {
    const { principal, request: { headers } } = exchange
    const key = Posted.keyOf(headers)
    if (Result.isFailure(key)) return refuse(exchange.response, Problem.ofReason(KsiError.invalidAt(name, "", key.failure)))
    const labels = {
      principal,
      idempotencyKey: key.success,
      traceparent: headerOf(headers["traceparent"]),
      tracestate: headerOf(headers["tracestate"])
    }
    // Who may not say it does not learn that it could be said.
    const event = router.registry.get(name)?.event
    const isFact = fact !== undefined && event?.kind === "fact" && authorizer.allows(principal, "emit", name)
    const envelope = isFact
      ? router.received(fact, labels)
      : router.envelope(name, data, fact === undefined ? labels : { ...labels, clientCorrelationId: fact.id })
    const way = event === undefined ? undefined : Streaming.wayOf(authorizer, exchange, event)
    if (way === undefined) dispatch(exchange, envelope)
    else if (Result.isSuccess(way)) stream(exchange, envelope, way.success)
    else refuse(exchange.response, way.failure)
  }

  return {
    ask,
    /** Takes what is posted to an event. */
    post: (exchange: Exchange, name: string): void => read(limits, exchange, name, (posted) => begin(exchange, name, posted)),
    /** Interrupts what runs, and waits for its end. */
    interrupt: Effect.suspend(() => Fiber.interruptAll([...running]))
  }
}
