/**
 * W3C Trace Context: the two texts by which a trace goes from one process to the next, and the spans of Effect's tracer
 * that they stand for.
 *
 * The rule: what cannot be read is ignored, and never an error of what it came with. The `tracestate` of others is
 * passed on as it is, for as long as its trace goes on.
 *
 * **Example**
 *
 * ```ts
 * const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
 * const parent = TraceContext.parse(traceparent, "vendor=x")
 * parent?.spanId                              // "00f067aa0ba902b7"
 * parent?.sampled                             // true
 * TraceContext.accept("00-1", "vendor=x")     // undefined
 * ```
 *
 * **Gotchas** A `traceparent` of a later version is read as far as version 00 goes and written as version 00, as the
 * recommendation asks. A `tracestate` of more than 512 characters is left out.
 *
 * Source: W3C Trace Context Level 2, sections 2.2, 3.2 and 3.3.
 */
import * as Context from "effect/Context"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"

/** A place in a trace, as another process names it. */
export interface TraceContext {
  /** 32 hexadecimal digits. */
  readonly traceId: string
  /** 16 hexadecimal digits. */
  readonly spanId: string
  /** Whether whoever began the trace records it. */
  readonly sampled: boolean
  /** Whether the trace id is known to be random. */
  readonly random: boolean
  /** What tracing systems say to each other; opaque. */
  readonly tracestate: string | undefined
}

/** A place in a trace as it travels; `tracestate` means nothing without the other. */
export interface Texts {
  readonly traceparent: string | undefined
  readonly tracestate: string | undefined
}

/** No trace. */
export const none: Texts = { traceparent: undefined, tracestate: undefined }

// What follows in a later version is separated by a dash, and nobody knows what it means. Version ff is forbidden.
const format00 = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/
const traceIdFormat = /^(?!0{32})[0-9a-f]{32}$/
const spanIdFormat = /^(?!0{16})[0-9a-f]{16}$/
// The characters of a header; a text that is none must not become one elsewhere.
const tracestateFormat = /^[\t\x20-\x7e]{1,512}$/

const sampledFlag = 1
const randomFlag = 2

/** Reads the two texts; `undefined` where the first is no `traceparent`. The second is left out where it is malformed. */
export const parse = (traceparent: unknown, tracestate?: unknown): TraceContext | undefined => {
  const [, version, traceId = "", spanId = "", digits = "", rest] = typeof traceparent === "string"
    ? format00.exec(traceparent) ?? []
    : []
  if (version === undefined || (version === "00" && rest !== undefined)) return undefined
  const flags = Number.parseInt(digits, 16)
  return {
    traceId,
    spanId,
    sampled: (flags & sampledFlag) !== 0,
    random: (flags & randomFlag) !== 0,
    tracestate: typeof tracestate === "string" && tracestateFormat.test(tracestate) ? tracestate : undefined
  }
}

/** Writes a place in a trace, in version 00. */
export const format = ({ random, sampled, spanId, traceId, tracestate }: TraceContext): Texts => ({
  traceparent: `00-${traceId}-${spanId}-0${(sampled ? sampledFlag : 0) | (random ? randomFlag : 0)}`,
  tracestate
})

/** The two texts as they are passed on; `undefined` where they are ignored. */
export const accept = (traceparent: unknown, tracestate: unknown): Texts | undefined => {
  if (traceparent === undefined) return undefined
  const context = parse(traceparent, tracestate)
  return context && format(context)
}

/** On the span that stands for another process's: what came with it and has no place in a span. */
const Received: Context.Reference<TraceContext | undefined> = Context.Reference<TraceContext | undefined>(
  "ksi/event/TraceContext/Received",
  { defaultValue: () => undefined }
)

/** The span of another process that the texts name; `undefined` where they name none. */
export const toSpan = ({ traceparent, tracestate }: Texts): Tracer.ExternalSpan | undefined => {
  if (traceparent === undefined) return undefined
  const context = parse(traceparent, tracestate)
  return context && Tracer.externalSpan({
    traceId: context.traceId,
    spanId: context.spanId,
    sampled: context.sampled,
    annotations: Context.make(Received, context)
  })
}

const above = (span: Tracer.AnySpan): Tracer.AnySpan | undefined =>
  span._tag === "Span" ? Option.getOrUndefined(span.parent) : undefined

/** What came with the trace from the process before this one. */
const receivedWith = (span: Tracer.AnySpan, traceId: string): TraceContext | undefined => {
  for (let at: Tracer.AnySpan | undefined = span; at !== undefined; at = above(at)) {
    const received = Context.get(at.annotations, Received)
    if (received !== undefined) return received.traceId === traceId ? received : undefined
  }
  return undefined
}

/**
 * The texts that name a span to others; those of the nearest span above it where it is not to be told, as when tracing
 * is off. `undefined` where there is none, or where its ids are not those of W3C.
 */
export const ofSpan = (span: Tracer.AnySpan): Texts | undefined => {
  for (let at: Tracer.AnySpan | undefined = span; at !== undefined; at = above(at)) {
    if (Context.get(at.annotations, Tracer.DisablePropagation)) continue
    const { sampled, spanId } = at
    // Some systems have ids of half the length.
    const traceId = at.traceId.padStart(32, "0")
    if (!traceIdFormat.test(traceId) || !spanIdFormat.test(spanId)) return undefined
    const received = receivedWith(at, traceId)
    return format({ traceId, spanId, sampled, random: received?.random ?? false, tracestate: received?.tracestate })
  }
  return undefined
}
