// Requests that are answered once: an envelope goes in, its answer or its problem is written. Whoever goes away interrupts it.
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
import * as TraceContext from "../../event/TraceContext.ts"
import type { Budget } from "../../wire/Connection.ts"
import * as Problem from "../Problem.ts"
import { answer, type Exchange, readText, refuse } from "./exchange.ts"
import * as Posted from "./posted.ts"

/** Runs an effect in a fiber of its own, in the surroundings of the server. */
export type Fork = <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>

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

const headerText = /^[\x20-\x7e]*$/

/** As a header: the id of an event that was made elsewhere may be any text. */
const textOf = (id: string): string => headerText.test(id) ? id : encodeURIComponent(id.toWellFormed())

/** What goes with every answer of an event: the id that the daemon knows it by, and the span that it was, where it was traced. */
const labelsOf = (envelope: Causation.LiveEnvelope): ReadonlyArray<string> => {
  const labels = ["x-correlation-id", textOf(envelope.metadata.correlationId)]
  const span = Causation.spanOf(envelope)
  const { traceparent } = (span && TraceContext.ofSpan(span)) ?? TraceContext.none
  return traceparent === undefined ? labels : [...labels, "traceparent", traceparent]
}

const reply = ({ response }: Exchange, envelope: Causation.LiveEnvelope, exit: Dispatched): void => {
  if (exit._tag === "Failure") return refuse(response, Problem.ofCause(exit.cause, envelope), labelsOf(envelope))
  const { value: said } = exit
  if (said.kind === "fact") return answer(response, created, { event_id: said.id, position: said.position }, labelsOf(envelope))
  answer(response, ok, said.value, labelsOf(envelope))
}

/** Counts what the other side has not read of its answer among what waits for all. */
const count = (budget: Budget, { request: { socket }, response }: Exchange): void => {
  const { writableLength: bytes } = response
  // Nearly always: the system took it all.
  if (bytes === 0 || response.destroyed) return
  const change = (now: number) => {
    const more = now - holder.bytes
    holder.bytes = now
    budget.change(more)
    if (now === 0) budget.leave(holder)
  }
  const holder = {
    bytes: 0,
    giveUp: () => {
      // An answer whose turn has not come has no connection yet.
      socket.destroy()
      change(0)
    }
  }
  budget.join(holder)
  response.on("close", () => change(0))
  change(bytes)
}

const headerOf = (given: string | ReadonlyArray<string> | undefined): string | undefined => typeof given === "string" ? given : undefined

/** Writes what came of an envelope. An answer that cannot be written must not break what others share. */
const makeWrite = ({ budget, fork }: Parts) => (exchange: Exchange, envelope: Causation.LiveEnvelope, exit: Dispatched): void => {
  try {
    reply(exchange, envelope, exit)
    count(budget, exchange)
  } catch (cause) {
    fork(Effect.annotateLogs(Effect.logError(`the reply of ${envelope.name} cannot be written`, cause), Causation.labelsOf(envelope)))
    const { correlationId } = envelope.metadata
    refuse(exchange.response, { ...Problem.ofReason(KsiError.unwritable(envelope.name)), correlationId }, labelsOf(envelope))
  }
}

/** The calls of one server. */
export const make = (parts: Parts) => {
  const { authorizer, fork, limits, router, surroundings } = parts
  const write = makeWrite(parts)
  const running = new Set<Fiber.Fiber<unknown, unknown>>()

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
    const isFact = fact !== undefined && router.registry.get(name)?.event.kind === "fact" && authorizer.allows(principal, "emit", name)
    dispatch(exchange, isFact
      ? router.received(fact, labels)
      : router.envelope(name, data, fact === undefined ? labels : { ...labels, clientCorrelationId: fact.id }))
  }

  /** Takes what is posted to an event. */
  const post = (exchange: Exchange, name: string): void => {
    const { request, response } = exchange
    const kind = Posted.kindOf(request.headers)
    if (Result.isFailure(kind)) return refuse(response, kind.failure)
    readText(request, limits.frameBytes, (text, problem) => {
      if (problem === "too long") {
        return refuse(response, Problem.ofReason(new KsiError.LimitExceeded({ limit: "frameBytes", max: limits.frameBytes, retryable: false })))
      }
      if (problem !== undefined) return refuse(response, Problem.make("PayloadInvalid", `the body is ${problem}`))
      const posted = Posted.read(kind.success, request.headers, text, name, limits)
      if (Result.isFailure(posted)) refuse(response, posted.failure)
      else begin(exchange, name, posted.success)
    })
  }

  return {
    ask,
    post,
    /** Interrupts what runs, and waits for its end. */
    interrupt: Effect.suspend(() => Fiber.interruptAll([...running]))
  }
}
