/**
 * Who caused what. A fiber-local reference holds the envelope being handled; whatever a handler calls or emits becomes
 * its child: same correlation, its id as causation, one deeper.
 *
 * The rule: nobody passes ids by hand, and nobody can forget to. Ids are made when somebody reads them, so an event
 * that nobody asks about costs none.
 *
 * **Example**
 *
 * ```ts
 * const parent = new Causation.LiveEnvelope("a:b", {}, undefined, Causation.own, { now: () => 0, ids: () => "id-1" })
 * const child = new Causation.LiveEnvelope("c:d", {}, parent, Causation.own, { now: () => 0, ids: () => "id-2" })
 * child.metadata.causationId                  // "id-1"
 * child.metadata.correlationId                // "id-1"
 * child.metadata.depth                        // 1
 * ```
 *
 * **Gotchas** The ids in a live envelope's metadata are made when they are read: spread a copy from `plain(metadata)`.
 * So is its `traceparent`: it names the nearest span that is known, which is whoever asks where the event itself is traced
 * (`Builtin.trace`), else the event that caused it, else what came in from outside.
 *
 * Source: seed section 1; the original shared one correlation id between all requests.
 */
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { type NewFact, parseTime } from "../event/CloudEvent.ts"
import * as Envelope from "../event/Envelope.ts"
import type { Expectations } from "./Journal.ts"
import * as TraceContext from "../event/TraceContext.ts"

/** What a request brings from outside: who asks, and how they label it. */
export interface Origin {
  readonly principal: string
  readonly source: string
  readonly clientId: string | undefined
  readonly clientCorrelationId: string | undefined
  /** Milliseconds since 1970. */
  readonly deadline: number | undefined
  /** The same by a clock that nobody sets: what counts. The router knows. */
  readonly due: number | undefined
  readonly idempotencyKey: string | undefined
  /** W3C Trace Context: the span that it is asked in, over there. */
  readonly traceparent: string | undefined
  readonly tracestate: string | undefined
}

/** The origin of what this process does by itself. */
export const own: Origin = {
  principal: "owner",
  source: Envelope.ownSource,
  clientId: undefined,
  clientCorrelationId: undefined,
  deadline: undefined,
  due: undefined,
  idempotencyKey: undefined,
  traceparent: undefined,
  tracestate: undefined
}

// The spans of events, where somebody makes them: an envelope that nobody traces has no field for one.
const spans = new WeakMap<Envelope.Envelope, Tracer.Span>()

/** Notes that a span stands for an event, from now on. */
export const setSpan = (envelope: Envelope.Envelope, span: Tracer.Span): void => void spans.set(envelope, span)

/** What a line of a log says of an event: never what is in it. */
export const labelsOf = ({ id, metadata: { correlationId }, name }: Envelope.Envelope) => ({ event: name, id, correlationId })

/** The span that stands for an event, where it is traced. */
export const spanOf = (envelope: Envelope.Envelope): Tracer.Span | undefined => spans.get(envelope)

/** A look at an envelope: everything is read where it is, and ids are made when they are first read. */
class LiveMetadata implements Envelope.Metadata {
  private readonly envelope: LiveEnvelope

  constructor(envelope: LiveEnvelope) {
    this.envelope = envelope
  }

  get correlationId(): string {
    const { id, parent } = this.envelope
    return parent === undefined ? id : parent.metadata.correlationId
  }

  get causationId(): string | undefined {
    return this.envelope.parent?.id
  }

  get depth(): number {
    return this.envelope.depth
  }

  get timestamp(): number {
    return this.envelope.timestamp
  }

  get source(): string {
    return this.envelope.origin.source
  }

  get principal(): string {
    return this.envelope.origin.principal
  }

  get streamId(): undefined {
    return undefined
  }

  get deadline(): number | undefined {
    return this.envelope.origin.deadline
  }

  get idempotencyKey(): string | undefined {
    return this.envelope.origin.idempotencyKey
  }

  get clientCorrelationId(): string | undefined {
    return this.envelope.origin.clientCorrelationId
  }

  get clientId(): string | undefined {
    return this.envelope.origin.clientId
  }

  get traceparent(): string | undefined {
    return this.envelope.trace.traceparent
  }

  get tracestate(): string | undefined {
    return this.envelope.trace.tracestate
  }

  toJSON(): Envelope.Metadata {
    return plain(this)
  }
}

/** Metadata as an object of its own, which may be spread and compared. */
export const plain = (metadata: Envelope.Metadata): Envelope.Metadata => ({
  correlationId: metadata.correlationId,
  causationId: metadata.causationId,
  depth: metadata.depth,
  timestamp: metadata.timestamp,
  source: metadata.source,
  principal: metadata.principal,
  streamId: metadata.streamId,
  deadline: metadata.deadline,
  idempotencyKey: metadata.idempotencyKey,
  clientCorrelationId: metadata.clientCorrelationId,
  clientId: metadata.clientId,
  traceparent: metadata.traceparent,
  tracestate: metadata.tracestate
})

/** The metadata of a fact that is stored in a stream, as an object of its own. */
export const saidIn = (envelope: LiveEnvelope, streamId: string, { traceparent, tracestate }: TraceContext.Texts): Envelope.Metadata => {
  const { id, origin: { clientCorrelationId, clientId, deadline, idempotencyKey, principal, source }, parent } = envelope
  const { depth, timestamp } = envelope
  return {
    correlationId: parent === undefined ? id : parent.metadata.correlationId,
    causationId: parent?.id,
    depth, timestamp, source, principal, streamId, deadline, idempotencyKey, clientCorrelationId, clientId, traceparent, tracestate
  }
}

/** Where envelopes get their time and ids from. */
export interface Stamps {
  /** Milliseconds since 1970. */
  readonly now: () => number
  readonly ids: Envelope.Ids
}

/** An envelope that makes its id and its metadata when they are first read. */
export class LiveEnvelope implements Envelope.Envelope {
  readonly name: string
  /** The payload; the router replaces the encoded one by the decoded one before anyone sees it. */
  data: unknown
  readonly depth: number
  /** What caused it. */
  readonly parent: Envelope.Envelope | undefined
  /** What it brings from outside, or inherits. */
  readonly origin: Origin
  /** When it was made, in milliseconds since 1970. */
  readonly timestamp: number
  /** What a fact expects of the store. */
  expects: Expectations | undefined = undefined
  private readonly stamps: Stamps
  private ownId: string | undefined = undefined

  constructor(name: string, data: unknown, parent: Envelope.Envelope | undefined, origin: Origin, stamps: Stamps) {
    this.name = name
    this.data = data
    this.parent = parent
    this.depth = parent === undefined ? 0 : depthBelow(parent)
    this.origin = origin
    // Now, not when somebody asks: who keeps an envelope may ask much later.
    this.timestamp = stamps.now()
    this.stamps = stamps
  }

  get id(): string {
    return this.ownId ??= this.stamps.ids(this.timestamp)
  }

  /** When the answer stops being wanted, in milliseconds since 1970: the earlier of its own and its parents'. */
  get deadline(): number | undefined {
    return this.origin.deadline
  }

  /** Whether it must be answered earlier than what caused it; else its parent's end is its end. */
  get isDeadlineOwn(): boolean {
    return !(this.parent instanceof LiveEnvelope) || this.parent.deadline !== this.origin.deadline
  }

  /** Whether whoever made it said which span it is asked in; else that is the current span of whoever asks. */
  get isTraceOwn(): boolean {
    const { traceparent } = this.origin
    if (traceparent === undefined) return false
    return this.parent === undefined || traceparent !== (
      this.parent instanceof LiveEnvelope ? this.parent.origin.traceparent : this.parent.metadata.traceparent
    )
  }

  /** The span it is asked in, as far as it is known: nobody looks at the fibers of those who trace nothing. */
  get trace(): TraceContext.Texts {
    if (this.isTraceOwn) return this.origin
    const { parent } = this
    const asked = spans.get(this)?.parent.pipe(Option.getOrUndefined) ?? (parent && spans.get(parent))
    return (asked && TraceContext.ofSpan(asked)) ?? this.origin
  }

  /** Whether the handler of another envelope made it, however indirectly. */
  comesFrom(other: Envelope.Envelope): boolean {
    for (let cause = this.parent; cause !== undefined; cause = cause instanceof LiveEnvelope ? cause.parent : undefined) {
      if (cause === other) return true
    }
    return false
  }

  /** The same for those who look on: its deadline is that of the answer, which is none of theirs. */
  get unhurried(): LiveEnvelope {
    if (this.deadline === undefined) return this
    const stamps: Stamps = { now: () => this.timestamp, ids: () => this.id }
    return new LiveEnvelope(this.name, this.data, this.parent, { ...this.origin, deadline: undefined, due: undefined }, stamps)
  }

  get metadata(): Envelope.Metadata {
    return new LiveMetadata(this)
  }

  /** What a child of this envelope starts from: the same client and deadline, but not its idempotency key. */
  get inherited(): Origin {
    return this.origin.idempotencyKey === undefined ? this.origin : { ...this.origin, idempotencyKey: undefined }
  }
}

/** An event that was made elsewhere: what is said of it there stays, its id and its time first. It is a root here. */
export class ReceivedEnvelope extends LiveEnvelope {
  /** The event as it was sent. */
  readonly fact: NewFact

  constructor(fact: NewFact, origin: Origin, stamps: Stamps) {
    const timestamp = fact.time === undefined ? undefined : parseTime(fact.time)
    super(fact.name, fact.data, undefined, origin, { now: () => timestamp ?? stamps.now(), ids: () => fact.id })
    this.fact = fact
  }
}

/** How deep a child of an envelope is. */
const depthBelow = (parent: Envelope.Envelope): number =>
  (parent instanceof LiveEnvelope ? parent.depth : parent.metadata.depth) + 1

/** What a child of `parent` starts from. */
export const originOf = (parent: Envelope.Envelope | undefined): Origin => {
  if (parent === undefined) return own
  if (parent instanceof LiveEnvelope) return parent.inherited
  const { clientCorrelationId, clientId, principal, traceparent, tracestate } = parent.metadata
  return { ...own, principal, clientId, clientCorrelationId, ...TraceContext.accept(traceparent, tracestate) }
}

/** Whether a deadline comes before that of the origin. */
const isEarlier = (deadline: number | undefined, due: number | undefined, origin: Origin): boolean => {
  if (deadline === undefined || origin.deadline === undefined) return deadline !== undefined
  return due === undefined || origin.due === undefined ? deadline < origin.deadline : due < origin.due
}

/**
 * The origin of a child that a handler labels: its client's words may be replaced and its deadline brought forward.
 * Who asks stays who asked. A malformed `traceparent` is ignored.
 */
export const narrow = (parent: Envelope.Envelope | undefined, origin: Origin, labels: Partial<Origin>, due = labels.due): Origin => {
  const { clientCorrelationId, clientId, deadline, idempotencyKey } = labels
  const isNearer = isEarlier(deadline, due, origin)
  // Together or not at all: the state of one trace says nothing of another.
  const { traceparent, tracestate } = TraceContext.accept(labels.traceparent, labels.tracestate) ?? origin
  return {
    principal: parent === undefined ? labels.principal ?? origin.principal : origin.principal,
    source: parent === undefined ? labels.source ?? origin.source : origin.source,
    clientId: clientId ?? origin.clientId,
    clientCorrelationId: clientCorrelationId ?? origin.clientCorrelationId,
    idempotencyKey,
    deadline: isNearer ? deadline : origin.deadline,
    due: isNearer ? due : origin.due,
    traceparent,
    tracestate
  }
}

/**
 * What a layer's handlers and hooks run in: the services of the context that it is built in. Neither its scope nor the span
 * that it is built in is theirs: they are asked later, by others.
 */
export const servicesOf = (context: Context.Context<never>): Context.Context<never> =>
  // Whoever needs these says so in its type, which is given where the layer is made.
  Context.omit(Scope.Scope, Tracer.ParentSpan)(context as Context.Context<Scope.Scope | Tracer.ParentSpan>) as Context.Context<never>

/** The envelope that this fiber is handling; `undefined` outside of any handler. */
export const Current: Context.Reference<Envelope.Envelope | undefined> = Context.Reference<
  Envelope.Envelope | undefined
>("ksi/bus/Causation/Current", { defaultValue: () => undefined })

/**
 * Finds what may be in the context of a fiber. That it is not there is remembered of the last context asked: a program that
 * handles nothing makes all its calls in one context, and to find nothing in it costs more than to find something.
 */
const remembering = <A>(find: (context: Context.Context<never>) => A | undefined) =>
  (): ((fiber: Fiber.Fiber<unknown, unknown>) => A | undefined) => {
    let empty: Context.Context<never> | undefined
    return ({ context }) => {
      if (context === empty) return undefined
      const found = find(context)
      if (found === undefined) empty = context
      return found
    }
  }

/** Finds the envelope that a fiber is handling. */
export const makeFinder = remembering((context) => Context.get(context, Current))

/** Finds the span that a fiber is in. */
export const makeSpanFinder = remembering((context) => Context.getOrUndefined(context, Tracer.ParentSpan))

/**
 * The trace context that goes out with what a fiber asks elsewhere: of its current span, else of the envelope it handles,
 * which is passed on where nobody traces here.
 */
export const outgoing = (fiber: Fiber.Fiber<unknown, unknown>): TraceContext.Texts | undefined => {
  const span = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)
  return (span && TraceContext.ofSpan(span)) ?? fiber.getRef(Current)?.metadata
}
