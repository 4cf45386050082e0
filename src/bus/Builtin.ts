/**
 * The middleware that KSI brings along: what most programs want around their events, each a value or a small factory.
 *
 * The rule: they are made with `Middleware.make` and nothing else, so that each can be read as an example. Put one
 * before everything with `Middleware.use`, or before a group with `group.middleware` and its `layer`.
 *
 * **Example**
 *
 * ```ts
 * const outcomes: Array<string> = []
 * const Kept = Builtin.record((envelope, exit) => void outcomes.push(`${envelope.name} ${exit._tag}`))
 * yield* Layer.build(Layer.mergeAll(
 *   Middleware.use(Kept),
 *   Middleware.use(Builtin.timeout("1 second"), { pattern: "stock:*" }),
 *   Middleware.use(Builtin.metrics)
 * ))
 * yield* program
 * outcomes                                    // ["stock:reserved Success", "stock:reserve Success"]
 * ```
 *
 * **Gotchas** Two of one factory in one context need two names (`timeout("1 second", { name: "short" })`), as a
 * middleware is found by its name. Whatever stands inside of `idempotency` is not asked for an answer that is kept.
 *
 * Source: seed section 1; W3C Trace Context and OpenTelemetry's semantic conventions for RPC and messaging (`trace`).
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Tracer from "effect/Tracer"
import type { Envelope } from "../event/Envelope.ts"
import type * as Event from "../event/Event.ts"
import { jsonCodec } from "../event/EventCodec.ts"
import * as KsiError from "../event/KsiError.ts"
import * as TraceContext from "../event/TraceContext.ts"
import { kindOf, outcomeOf } from "./Activity.ts"
import { LiveEnvelope, setSpan, spanOf } from "./Causation.ts"
import { Idempotency } from "./Idempotency.ts"
import * as Middleware from "./Middleware.ts"
import { Router } from "./Router.ts"

// The default is also that of the type parameter where it is used.
const named = <Name extends string>(name: Name | undefined, otherwise: string): Name => name ?? otherwise as Name

// ---------------------------------------------------------------------------------------------------------- telling

/**
 * Logs one line for each event when it has ended: its name and outcome, with `event`, `id`, `correlationId`, `outcome`
 * and `elapsed` (milliseconds) as annotations, and `problem` where it did not succeed.
 */
export const log = <const Name extends string = "log">(options: {
  readonly name?: Name
  /** Of events that succeed. Default: `Info`. */
  readonly level?: LogLevel.Severity
  /** Of events that do not. Default: `Warn`. */
  readonly failureLevel?: LogLevel.Severity
} = {}) => {
  const { failureLevel = "Warn", level = "Info" } = options
  return Middleware.make(named<Name>(options.name, "log"), {
    after: (envelope, exit, elapsed) => {
      const [outcome, problem] = outcomeOf(exit)
      const { id, metadata: { correlationId }, name: event } = envelope
      const annotations = { event, id, correlationId, outcome, elapsed, ...(problem === undefined ? {} : { problem }) }
      const line = Effect.logWithLevel(problem === undefined ? level : failureLevel)(`${event} ${outcome}`)
      return Effect.annotateLogs(line, annotations)
    }
  })
}

/** The span above an event's where that is not the current one: of who asks from outside, or asked long ago. */
const spanAbove = (envelope: Envelope, current: Tracer.AnySpan | undefined): Tracer.AnySpan | undefined => {
  if (envelope instanceof LiveEnvelope && envelope.isTraceOwn) return TraceContext.toSpan(envelope.trace)
  return current === undefined ? TraceContext.toSpan(envelope.metadata) : undefined
}

/** Says on the span of an event what it is. */
const introduce = (span: Tracer.Span, envelope: Envelope, more: Readonly<Record<string, string>>): void => {
  const { id, metadata: { correlationId, principal }, name } = envelope
  span.attribute("ksi.event", name)
  span.attribute("ksi.id", id)
  span.attribute("ksi.correlation_id", correlationId)
  span.attribute("ksi.principal", principal)
  for (const key in more) span.attribute(key, more[key])
}

/** What messaging systems say of a message, by OpenTelemetry's conventions. */
const messageOf = ({ id, name }: Envelope, operation: "send" | "process") => ({
  "messaging.system": "ksi", "messaging.operation.type": operation, "messaging.destination.name": name, "messaging.message.id": id
})

const nameOf = (u: unknown): string | undefined => {
  if (KsiError.is(u)) return u.reason._tag
  if (typeof u !== "object" || u === null) return undefined
  if ("_tag" in u && typeof u._tag === "string") return u._tag
  return "name" in u && typeof u.name === "string" ? u.name : undefined
}

/** Says on a span how it ended: what was declared is a failure, what was not a defect. */
const conclude = (span: Tracer.Span, exit: Exit.Exit<unknown, unknown>): void => {
  const outcome = kindOf(exit)
  span.attribute("ksi.outcome", outcome)
  if (Exit.isSuccess(exit) || outcome === "interrupted") return
  span.attribute("error.type", Result.getOrElse(Result.try(() => nameOf(Cause.squash(exit.cause))), () => undefined) ?? "_OTHER")
}

/** The span of an event that nobody has ended yet. */
const openSpanOf = (envelope: Envelope): Tracer.Span | undefined => {
  const span = spanOf(envelope)
  return span?.status._tag === "Started" ? span : undefined
}

/** Whether a span is already that of this reaction. */
const standsFor = (span: Tracer.AnySpan | undefined, { id }: Envelope, handler: string): boolean =>
  span?._tag === "Span" && span.attributes.get("ksi.handler") === handler && span.attributes.get("ksi.id") === id

/**
 * A span for each event, named after it; what its handler does is under it. It goes to the `Tracer` of the context this
 * middleware's layer is built in. `ksi start --otlp` puts it before everything.
 *
 * It is under the span of whoever asks: in this process the current one, over the wire (or in `dispatch`) what the W3C
 * `traceparent` names, sampled or not as that says. A fact carries the `traceparent` of its own span into the store, and
 * each of its handlers has a span under that one (`process stock:reserved`); so has who observes an event that is asked or said in a span.
 *
 * A request from outside is a `server` span, one that a handler asks an `internal` one, both with `rpc.*`; a fact is a
 * `producer` and a handler of one a `consumer`, with `messaging.*`. All say `ksi.event`, `ksi.id`, `ksi.correlation_id`,
 * `ksi.principal` and `ksi.outcome`, and where they did not succeed `error.type`: the tag of the error.
 */
export const trace = Middleware.make("trace", {
  provides: Tracer.ParentSpan,
  before: (envelope) =>
    Effect.contextWith((context: Context.Context<Router>) => {
      // Two of them, a module's own and the daemon's, make one span.
      const open = openSpanOf(envelope)
      if (open !== undefined) return Effect.succeed(open)
      const { name } = envelope
      const parent = spanAbove(envelope, Context.getOrUndefined(context, Tracer.ParentSpan))
      const isFact = Context.get(context, Router).registry.get(name)?.event.kind === "fact"
      const kind = isFact ? "producer" : envelope.metadata.depth === 0 ? "server" : "internal"
      return Effect.map(Effect.makeSpan(name, { parent, kind }), (span) => {
        // On one that is not sent nobody reads it.
        if (span.sampled) introduce(span, envelope, isFact ? messageOf(envelope, "send") : { "rpc.system.name": "ksi", "rpc.method": name })
        // An envelope passes once; where it passes again, inside of a retry, the span before has ended.
        setSpan(envelope, span)
        return span
      })
    }),
  after: (envelope, exit) =>
    Effect.clockWith((clock) => Effect.sync(() => {
      const span = openSpanOf(envelope)
      if (span === undefined) return
      if (span.sampled) conclude(span, exit)
      span.end(clock.currentTimeNanosUnsafe(), exit)
    })),
  reaction: (next, envelope, handler) =>
    Effect.contextWith((context: Context.Context<never>) => {
      const parent = Context.getOrUndefined(context, Tracer.ParentSpan)
      // Who observes a request is told before it has a span: without one above, it would begin a tree of its own.
      if (parent === undefined || standsFor(parent, envelope, handler)) return next
      return Effect.useSpan(`process ${envelope.name}`, { kind: "consumer", parent }, (span) => {
        if (!span.sampled) return Effect.withParentSpan(next, span)
        introduce(span, envelope, { "ksi.handler": handler, ...messageOf(envelope, "process") })
        return Effect.onExit(Effect.withParentSpan(next, span), (exit) => Effect.sync(() => conclude(span, exit)))
      })
    })
})

const boundaries = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000]

const seriesOf = (event: string, outcome: string) => ({
  count: Metric.counter("ksi_events_total", {
    description: "Events that have ended", incremental: true, attributes: { event, outcome }
  }),
  duration: Metric.histogram("ksi_event_duration", {
    description: "How long events took, in milliseconds", boundaries, attributes: { event }
  })
})

const makeMetrics = () => {
  // As many as there are series: to make one costs more than to count.
  const known = new Map<string, ReturnType<typeof seriesOf>>()
  return Middleware.make("metrics", {
    after: ({ name }, exit, elapsed) => {
      const [outcome] = outcomeOf(exit)
      const key = `${name} ${outcome}`
      const series = known.get(key) ?? seriesOf(name, outcome)
      known.set(key, series)
      return Effect.contextWith((context: Context.Context<never>) => {
        series.count.updateUnsafe(1, context)
        series.duration.updateUnsafe(elapsed, context)
        return Effect.void
      })
    }
  })
}

/**
 * Counts events: `ksi_events_total{event,outcome}`, and `ksi_event_duration{event}` in milliseconds. There are as many
 * series as there are registered events: what a client misspells is none.
 */
export const metrics = makeMetrics()

/**
 * Hands each event to a function when it has ended, with what became of it. What the function returns is waited for, so
 * that nothing queues up; where it throws or fails, that is logged and the event does not notice.
 */
export const record = <R = never, const Name extends string = "record">(
  taken: (envelope: Envelope, exit: Exit.Exit<unknown, unknown>) => Effect.Effect<unknown, unknown, R> | void,
  options: { readonly name?: Name } = {}
) =>
  Middleware.make(named<Name>(options.name, "record"), {
    after: (envelope, exit) =>
      Effect.suspend((): Effect.Effect<unknown, unknown, R> => taken(envelope, exit) ?? Effect.void).pipe(
        Effect.catchCause((cause) =>
          Cause.hasInterruptsOnly(cause) ? Effect.interrupt : Effect.logWarning(`${envelope.name} was not recorded`, cause)
        ),
        Effect.asVoid
      )
  })

// ---------------------------------------------------------------------------------------------------------- guarding

/**
 * Gives what is behind it so long, and interrupts it then: `DeadlineExceeded`. Streams must have ended by then. Facts
 * are left alone: one that is being stored is stored.
 */
export const timeout = <const Name extends string = "timeout">(
  time: Duration.Input,
  options: { readonly name?: Name } = {}
) => {
  const millis = Duration.toMillis(Duration.fromInputUnsafe(time))
  return Middleware.make(named<Name>(options.name, "timeout"), {
    around: (next, { name: event }) =>
      Effect.flatMap(Router, ({ registry }) =>
        registry.get(event)?.event.kind === "fact" ? next : Effect.timeoutOrElse(next, {
          duration: millis,
          orElse: () => KsiError.fail(new KsiError.DeadlineExceeded({ event, millis }))
        }))
  })
}

/** An end that is not kept: it travels as a defect, for which nothing is kept, and comes out as what it was. */
class Unkept {
  readonly exit: Exit.Exit<unknown, unknown>
  constructor(exit: Exit.Exit<unknown, unknown>) {
    this.exit = exit
  }
}

/** How the answers of an event are written and read. */
interface Forms {
  readonly success: Schema.Codec<unknown, unknown>
  readonly error: Schema.Codec<unknown, unknown>
}

// What an emit answers with: the fact's place.
const Emitted = Schema.Struct({ id: Schema.String, streamId: Schema.String, position: Schema.BigInt, version: Schema.Int })
const known = new WeakMap<Event.Any, Forms>()

const formsOf = (event: Event.Any): Forms => {
  const forms = known.get(event) ?? (event.kind === "fact"
    ? { success: jsonCodec(Emitted), error: jsonCodec(Schema.Never) }
    : { success: jsonCodec(event.success), error: jsonCodec(event.error) })
  known.set(event, forms)
  return forms
}

/** An end as JSON. What is neither a reply nor a declared error nor KSI's own (a middleware refused it) is not kept. */
const toKept = ({ error, success }: Forms, exit: Exit.Exit<unknown, unknown>): Exit.Exit<unknown, unknown> => {
  const unkept = Exit.die(new Unkept(exit))
  if (Exit.isSuccess(exit)) {
    const json = Schema.encodeUnknownExit(success)(exit.value)
    return Exit.isSuccess(json) ? json : unkept
  }
  const [reason, ...more] = exit.cause.reasons
  if (reason === undefined || more.length > 0 || !Cause.isFailReason(reason)) return unkept
  if (KsiError.is(reason.error)) return exit
  const json = Schema.encodeUnknownExit(error)(reason.error)
  return Exit.isSuccess(json) ? Exit.fail(json.value) : unkept
}

/** The end again. One that its event no longer promises, since a newer program defines it otherwise, is `ReplyInvalid`. */
const fromKept = (event: Event.Any, exit: Exit.Exit<unknown, unknown>): Exit.Exit<unknown, unknown> => {
  const { error, success } = formsOf(event)
  const orInvalid = <A>(value: Exit.Exit<A, Schema.SchemaError>): Exit.Exit<A, KsiError.KsiError> =>
    Exit.mapError(value, ({ message }) =>
      KsiError.make(new KsiError.ReplyInvalid({ event: event.name, problems: [{ path: "", problem: message }] })))
  if (Exit.isSuccess(exit)) return orInvalid(Schema.decodeUnknownExit(success)(exit.value))
  const [reason] = exit.cause.reasons
  if (reason?._tag === "Die" && reason.defect instanceof Unkept) return reason.defect.exit
  if (reason?._tag !== "Fail" || KsiError.is(reason.error)) return exit
  const failure = orInvalid(Schema.decodeUnknownExit(error)(reason.error))
  return Exit.isSuccess(failure) ? Exit.fail(failure.value) : failure
}

// Those that stand behind an `idempotency` already: a second one, as of a module in a daemon, would wait for the first.
const inside = new WeakSet<Envelope>()

/**
 * Carries out an event that has an idempotency key once: the same again gets the same reply or declared error, also
 * after a restart where answers are kept in a file; with another payload it is `IdempotencyConflict`. Who comes while
 * it runs waits. What a middleware refused, what died, what was interrupted and what may be tried again is not kept.
 */
export const idempotency = Middleware.make("idempotency", {
  when: (envelope) => envelope.metadata.idempotencyKey !== undefined && !inside.has(envelope),
  around: (next, envelope) =>
    Effect.gen(function*() {
      const { metadata: { idempotencyKey: key, principal }, name } = envelope
      const entry = (yield* Router).registry.get(name)
      // The items of a stream are no answer that could be kept.
      if (key === undefined || entry === undefined || (entry.event.kind === "request" && entry.event.mode === "stream")) {
        return yield* next
      }
      const { codec, event } = entry
      const { once } = yield* Idempotency
      const run = Effect.suspend(() => {
        inside.add(envelope)
        return Effect.ensuring(next, Effect.sync(() => inside.delete(envelope)))
      })
      const work = Effect.flatMap(Effect.exit(run), (exit) => toKept(formsOf(event), exit))
      const exit = yield* Effect.exit(once({ principal, event: name, key }, codec.encodePayload(envelope.data), work))
      return yield* fromKept(event, exit)
    })
})
