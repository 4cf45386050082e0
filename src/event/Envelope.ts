/**
 * What travels: an event's id, name and data with everything known about how it came to be. Immutable.
 *
 * The rule: a nested call inherits `correlationId` from the envelope being handled, names it as its `causationId`, and
 * is one deeper. The ids are always KSI's own; a client's correlation id is an echo label beside them.
 *
 * **Example**
 *
 * ```ts
 * const ids = Envelope.makeIds(0x1234, 0x5678)
 * ids(1_795_333_214_410)          // "01a20232-d0ca-7000-8000-123400005678"
 * ids(1_795_333_214_410)          // "01a20232-d0ca-7000-8001-123400005678"
 * ```
 *
 * Source: seed section 1; W3C Trace Context; RFC 9562 section 5.7 (UUIDv7) and 6.2 method 1 (counter).
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import { type NewFact, type StoredFact, versionAttribute } from "./CloudEvent.ts"
import type { JsonObject } from "./Json.ts"
import type * as TraceContext from "./TraceContext.ts"

/** What is known about an event besides its data. */
export interface Metadata {
  /** The id of the request or fact at the root of this chain of causes. */
  readonly correlationId: string
  /** The id of the envelope whose handler made this one. */
  readonly causationId: string | undefined
  /** Distance from the root, which is 0. */
  readonly depth: number
  /** When it was made, in milliseconds since 1970. */
  readonly timestamp: number
  /** Who made it: a URI reference as in CloudEvents. */
  readonly source: string
  /** Who asked; `owner` for the process itself. */
  readonly principal: string
  readonly streamId: string | undefined
  /** When the answer stops being wanted, in milliseconds since 1970. */
  readonly deadline: number | undefined
  readonly idempotencyKey: string | undefined
  /** The label a client gave its request. Echoed and searchable, never trusted. */
  readonly clientCorrelationId: string | undefined
  readonly clientId: string | undefined
  /**
   * W3C Trace Context: the span that a request is asked in, or that a fact was said in; `undefined` where nobody traces.
   * Of a stored fact it is the attribute as it stands, which may be malformed: `TraceContext.parse` says.
   */
  readonly traceparent: string | undefined
  /** What other tracing systems say of that trace; opaque. */
  readonly tracestate: string | undefined
}

/** An event on its way. */
export interface Envelope<out P = unknown> {
  readonly id: string
  readonly name: string
  readonly data: P
  readonly metadata: Metadata
}

/** A fact as a subscriber receives it; a request, where asked for, has no position. */
export interface Delivery<out P = unknown> extends Envelope<P> {
  readonly position: bigint | undefined
  readonly version: number | undefined
  /**
   * How many of the same kind (facts, requests) were left out just before this one because the subscriber was slow. Facts
   * are left out only where its `overflow` is `latest` or `drop`.
   */
  readonly missed: number
  /** Which version of its event's data a stored fact has, as it says itself (`dataversion`); absent for 1. */
  readonly dataVersion?: unknown
}

/** Makes the next id for something that happened at `millis`. */
export type Ids = (millis: number) => string

const hex = (n: number, length: number) => n.toString(16).padStart(length, "0")
// Ids are made on the hot path: two look-ups cost a fifth of two conversions.
const bytes = Array.from({ length: 256 }, (_, n) => hex(n, 2))
const digits = Array.from("0123456789abcdef")
const byte = (n: number): string => bytes[n & 0xff] ?? ""

/**
 * A source of UUIDv7, strictly increasing, even when the clock stands still or goes back. `high` and `low` are 16 and
 * 32 random bits that tell this source from others; a counter of 26 bits orders ids within one millisecond.
 */
export const makeIds = (high: number, low: number): Ids => {
  const tail = hex(high & 0xffff, 4) + hex(low >>> 0, 8)
  // An id is put together of two texts that many ids share: it takes a third of the time and of the memory. The second is made
  // when it is first used: a source may be there for a handful of ids.
  const ends: Array<string> = []
  let last = -1
  let counter = 0
  let prefix = ""
  let beginning = ""
  const restart = (millis: number) => {
    last = Math.floor(millis)
    counter = 0
    const time = hex(last, 12)
    prefix = `${time.slice(0, 8)}-${time.slice(8)}-7`
  }
  return (millis) => {
    // Of two times within one millisecond the later one is no later here.
    if (millis >= last + 1) restart(millis)
    else if (++counter > 0x3ffffff) restart(last + 1)
    // 4 + 8 bits of the counter, the variant, 6 bits more; the last 8 are in the end.
    if ((counter & 0xff) === 0) {
      beginning = `${prefix}${digits[counter >>> 22] ?? ""}${byte(counter >>> 14)}-${byte(0x80 | ((counter >>> 8) & 0x3f))}`
    }
    return beginning + (ends[counter & 0xff] ??= `${byte(counter)}-${tail}`)
  }
}

/** A source of ids whose random bits come from `Random`. */
export const randomIds: Effect.Effect<Ids> = Effect.gen(function*() {
  const high = yield* Random.nextIntBetween(0, 0xffff)
  return makeIds(high, yield* Random.nextIntBetween(0, 0xffffffff))
})

/** `source` of everything this process says itself. */
export const ownSource = "/ksi"

const makeTimeText = () => {
  // What happens within a millisecond is written alike: making the text costs as much as the rest of a fact.
  let last = Number.NaN
  let text = ""
  return (millis: number): string => {
    if (millis !== last) {
      text = new Date(millis).toISOString()
      last = millis
    }
    return text
  }
}

/** RFC 3339 in UTC with milliseconds. */
export const timeText: (millis: number) => string = makeTimeText()

const put = (attributes: Record<string, unknown>, key: string, value: unknown) => {
  if (value !== undefined) attributes[key] = value
}

/**
 * The fact that an envelope becomes; `data` is its encoded payload. `trace` is the span it is said in, which stands in
 * the attributes of the CloudEvents extension "distributed tracing".
 */
export const toFact = (
  envelope: Envelope,
  streamId: string,
  data: unknown,
  trace: TraceContext.Texts = envelope.metadata
): NewFact => {
  const { metadata } = envelope
  const attributes: Record<string, unknown> = { correlationid: metadata.correlationId }
  put(attributes, "causationid", metadata.causationId)
  if (metadata.depth > 0) attributes["depth"] = metadata.depth
  if (metadata.principal !== "owner") attributes["principal"] = metadata.principal
  put(attributes, "clientcorrelationid", metadata.clientCorrelationId)
  put(attributes, "clientid", metadata.clientId)
  put(attributes, "traceparent", trace.traceparent)
  put(attributes, "tracestate", trace.tracestate)
  return {
    id: envelope.id,
    source: metadata.source,
    name: envelope.name,
    streamId,
    data,
    time: timeText(metadata.timestamp),
    // Of texts and a number: whoever keeps the fact need not copy them.
    attributes: Object.freeze(attributes)
  }
}

/**
 * The fact that an event becomes which was made elsewhere: with its own identity, time and attributes, so that the same again is
 * the same. What KSI itself says of a fact is not for its sender to say: who it was (`principal`), and where it stands in the
 * chains of causes here: it begins one of its own. Its `correlationid` is kept like the label of a client: as `clientcorrelationid`.
 */
export const receivedFact = (received: NewFact, streamId: string, data: unknown, principal: string): NewFact => {
  const { causationid: _, correlationid, depth: __, principal: ___, subject: ____, ...own } = received.attributes
  const attributes: Record<string, unknown> = own
  if (own["clientcorrelationid"] === undefined) put(attributes, "clientcorrelationid", correlationid)
  if (principal !== "owner") attributes["principal"] = principal
  return { ...received, streamId, data, attributes: Object.freeze(attributes) }
}

const textAt = (attributes: JsonObject, key: string): string | undefined => {
  const value = attributes[key]
  return typeof value === "string" ? value : undefined
}

// A number that an event was imported with may be any.
const depthAt = ({ depth }: JsonObject): number => typeof depth === "number" && Number.isSafeInteger(depth) && depth > 0 ? depth : 0

/** What is known about a fact that happened at `timestamp`, in milliseconds since 1970. */
export const metadataOf = ({ attributes, id, source, streamId }: NewFact, timestamp: number): Metadata => ({
  correlationId: textAt(attributes, "correlationid") ?? id,
  causationId: textAt(attributes, "causationid"),
  depth: depthAt(attributes),
  timestamp,
  source,
  principal: textAt(attributes, "principal") ?? "owner",
  streamId,
  deadline: undefined,
  idempotencyKey: undefined,
  clientCorrelationId: textAt(attributes, "clientcorrelationid"),
  clientId: textAt(attributes, "clientid"),
  traceparent: textAt(attributes, "traceparent"),
  tracestate: textAt(attributes, "tracestate")
})

/** The envelope of a stored fact; `data` as given, decoded or not. */
export const fromFact = <P>(fact: StoredFact, data: P): Delivery<P> => {
  const delivery: Delivery<P> = {
    id: fact.id,
    name: fact.name,
    data,
    position: BigInt(fact.position),
    version: fact.version,
    missed: 0,
    metadata: metadataOf(fact, fact.timestamp)
  }
  const dataVersion = fact.attributes[versionAttribute]
  return dataVersion === undefined ? delivery : { ...delivery, dataVersion }
}
