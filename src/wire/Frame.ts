/**
 * One line of the wire: JSON text to a request, a reply to JSON text, and back again for clients. Pure.
 *
 * The rule: every line gets an answer with what could be read of it. `data` of a reply is always an object with a
 * `status`; what failed says why (`reason`), whose fault it was (`cause`) and whether trying again may help
 * (`retryable`). A defect shows its correlation id and nothing else.
 *
 * **Example**
 *
 * ```ts
 * const request = Result.getOrThrow(Frame.decode("{\"event\":\"stock:reserve\",\"data\":{\"sku\":\"tea\"},\"correlation_id\":7}"))
 * request.event                               // "stock:reserve"
 * request.correlationId                       // 7
 * ```
 *
 * **Gotchas** `deadline_ms` counts from the moment the line is read: the clocks of two machines need not agree. A
 * number that a double cannot hold keeps its digits; others are written back the way JavaScript writes them. A malformed
 * `traceparent` is nobody's error: the request is answered, and starts a trace of its own.
 *
 * A reply whose reason this version does not know (it came from a newer one), a defect and an interruption come back
 * as `RemoteFailure`, which keeps every field: nothing is dropped, and nobody mistakes it for a reason it is not.
 */
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { type Answer, brokenOf, DeclaredFailure } from "../bus/KsiService.ts"
import type { Expectations } from "../bus/Journal.ts"
import type { Delivery, Envelope } from "../event/Envelope.ts"
import * as EventName from "../event/EventName.ts"
import * as Json from "../event/Json.ts"
import type { JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"

// ------------------------------------------------------------------------------------------------------------- models

/** What a line says of the stream that it asks for. */
export interface StreamRequest {
  /** Chosen by the client, unique on its connection. */
  readonly id: string
  /** Items, and characters of their frames, that may be sent before more is granted; `undefined`: as the socket takes them. */
  readonly items: number | undefined
  readonly bytes: number | undefined
}

/** A request as it stands in a line. */
export interface Request {
  readonly event: string
  readonly data: unknown
  /** Any JSON value of at most 65,536 characters, echoed as it came; `undefined` where the line has none. */
  readonly correlationId: unknown
  /** Who the client says it is: a label. */
  readonly clientId: string | undefined
  /** Milliseconds from now; `undefined` where the line has none. */
  readonly deadlineMillis: number | undefined
  readonly idempotencyKey: string | undefined
  /** W3C Trace Context as the line has it; what is malformed is ignored by who continues the trace. */
  readonly traceparent: string | undefined
  readonly tracestate: string | undefined
  /** `undefined` where the line asks for one answer. */
  readonly stream: StreamRequest | undefined
  /** Whether the answer is wanted as it is, with nothing put into it or around it: programs of KSI's own read it. */
  readonly bare: boolean
  /** What a fact expects of the store, as far as it looks like that; the store says whether it makes sense. */
  readonly expects: Expectations | undefined
}

/** A line that is no request, or none that can begin, with what could be read of it. */
export interface Unreadable {
  readonly reason: KsiError.Reason
  readonly event: string | undefined
  readonly correlationId: unknown
}

/** A line as a client receives it. */
export interface Incoming {
  readonly event: string | undefined
  readonly ok: boolean
  readonly data: unknown
  readonly correlationId: unknown
  /** Seconds since 1970. */
  readonly timestamp: number | undefined
  /** Every field of the line. */
  readonly fields: JsonObject
}

/** A successful reply. */
export interface Reply {
  readonly event: string
  /** Always with a `status`. */
  readonly data: JsonObject
  /** Ids of the request: `_event_id`, `_correlation_id`, … */
  readonly context: JsonObject
  /** When it was answered, in seconds since 1970. */
  readonly timestamp: number | undefined
}

/** The other side failed with what has no class here: a defect, an interruption, or a reason of a newer version. */
export class RemoteFailure extends Schema.TaggedClass<RemoteFailure>()("RemoteFailure", {
  event: Schema.String,
  /** `ksi`, `domain`, `defect` or `interrupt`. */
  cause: Schema.String,
  reason: Schema.String,
  message: Schema.String,
  details: Schema.Unknown,
  retryable: Schema.Boolean
}) {}

// ----------------------------------------------------------------------------------------------------------- requests

const Version = Schema.Int
const Texts = Schema.optionalKey(Schema.Array(Schema.String))
// Bounds and limits are the store's to look at.
const decodeExpectations = Schema.decodeUnknownExit(Schema.Struct({
  expectedVersion: Schema.optionalKey(Version),
  expectedVersions: Schema.optionalKey(Schema.Array(Schema.Struct({ streamId: Schema.String, version: Version }))),
  condition: Schema.optionalKey(Schema.Struct({
    query: Schema.Array(Schema.Struct({ names: Texts, streamIds: Texts, tags: Texts })), after: Schema.optionalKey(Version)
  }))
}), { onExcessProperty: "error" })

const unreadable = (problem: string, event?: string, correlationId?: unknown): Result.Result<never, Unreadable> =>
  Result.fail({ reason: new KsiError.FrameInvalid({ problem }), event, correlationId })

type Bounds = Pick<Limits.LimitsShape, "idLength" | "jsonDepth">

/** How deep the data of a fact may lie in a frame: `store:import` has it in an event, in a list, in its own data. */
const frameDepth = 4
/** Characters of a correlation id: every reply, and every record of a request, has it again. */
const correlationLength = 65_536
/** The longest idempotency key. */
export const maxKeyLength = 256

/** What to say of a line that is not UTF-8. */
export const notUtf8: Unreadable = {
  reason: new KsiError.FrameInvalid({ problem: "it is not UTF-8" }),
  event: undefined,
  correlationId: undefined
}

/** What to say of a line that brought down what reads it. */
export const broken: Unreadable = {
  reason: new KsiError.FrameInvalid({ problem: "reading it failed; the daemon's log says more" }),
  event: undefined,
  correlationId: undefined
}

/** What to say of a line that is longer than `max` bytes. */
export const tooLong = (max: number): Unreadable => ({
  reason: new KsiError.LimitExceeded({ limit: "frameBytes", max, retryable: false }),
  event: undefined,
  correlationId: undefined
})

/** What to say of a long line that finds no room, as all connections together hold `max` bytes of such. */
export const oneTooMany = (max: number, { correlationId, event }: Partial<Request> = {}): Unreadable => ({
  reason: new KsiError.LimitExceeded({ limit: "incomingBytes", max, retryable: true }), event, correlationId
})

/** Whether a frame of this event is flat: it carries its fields beside `event`. */
export const isFlat = (event: string): boolean => event.startsWith("wire:") || event.startsWith("pubsub:") || event.startsWith("stream:")
const envelopeFields = new Set(["event", "data", "correlation_id", "deadline_ms", "idempotency_key", "traceparent", "tracestate"])

/** Control frames carry their fields beside `event`; `data`, where it is there too, goes before. */
const controlData = (frame: JsonObject): unknown => {
  const { data } = frame
  if (data !== undefined && !Json.isObject(data)) return data
  const fields: Record<string, unknown> = {}
  for (const key of Object.keys(frame)) {
    if (!envelopeFields.has(key) && !key.startsWith("_")) fields[key] = frame[key]
  }
  return { ...fields, ...data }
}

const nameOf = (frame: JsonObject): string | undefined => {
  const { event } = frame
  return typeof event === "string" && event !== "" && event.length <= EventName.maxForeignLength ? event : undefined
}

/** What to say of a line that is too deep: `JSON.parse` reads any depth, but nothing else can be done with it. */
const tooDeep = (line: string, max: number): Unreadable => {
  const reason = new KsiError.LimitExceeded({ limit: "jsonDepth", max, retryable: false })
  const parsed = Result.try((): unknown => JSON.parse(line))
  const frame = Result.isSuccess(parsed) && Json.isObject(parsed.success) ? parsed.success : {}
  const { correlation_id: correlationId } = frame
  // A label that is an object may be what is too deep, and a number may have lost its digits here.
  const echoed = typeof correlationId === "string" && correlationId.length <= correlationLength || Number.isSafeInteger(correlationId)
  return { reason, event: nameOf(frame), correlationId: echoed ? correlationId : undefined }
}

/** Reads one line. */
export const decode = (line: string, bounds: Bounds = Limits.defaults): Result.Result<Request, Unreadable> => {
  if (Json.isDeeper(line, bounds.jsonDepth + frameDepth)) return Result.fail(tooDeep(line, bounds.jsonDepth))
  let frame: unknown
  try {
    frame = Json.parse(line)
  } catch (cause) {
    return unreadable(`it is not JSON (${KsiError.sentenceOf(cause)})`)
  }
  return Json.isObject(frame) ? requestOf(frame, bounds) : unreadable("it is not a JSON object")
}

const isLong = (correlationId: unknown): boolean => {
  if (typeof correlationId === "string") return correlationId.length > correlationLength
  return typeof correlationId === "object" && JSON.stringify(correlationId).length > correlationLength
}

/** A whole number from 1; what is no such is not taken for one. */
const isCount = (u: unknown): u is number => Number.isSafeInteger(u) && Number(u) >= 1

/** What a line says of a stream; a sentence where it makes no sense. */
const streamOf = ({ credit = {}, stream, stream_id: id }: JsonObject, { idLength }: Bounds): StreamRequest | string | undefined => {
  if (stream === undefined || stream === false) return undefined
  if (stream !== true) return "\"stream\" is neither true nor false"
  if (typeof id !== "string" || id === "" || id.length > idLength) return `"stream_id" is not a text of 1 to ${idLength} characters`
  if (!Json.isObject(credit)) return "\"credit\" is not an object"
  const { bytes, items } = credit
  return (items === undefined || isCount(items)) && (bytes === undefined || isCount(bytes))
    ? { id, items, bytes }
    : "\"items\" and \"bytes\" of \"credit\" must be whole numbers from 1 on"
}

/** What a line says that a fact expects of the store; a sentence where it makes no sense. */
const expectationsOf = ({ expects }: JsonObject): Expectations | string | undefined => {
  if (expects === undefined) return undefined
  if (!Json.isObject(expects)) return "\"expects\" is not an object"
  const exit = decodeExpectations(expects)
  return Exit.isSuccess(exit) ? exit.value : "\"expects\" may have \"expectedVersion\", \"expectedVersions\" and \"condition\", as an append has"
}

const requestOf = (frame: JsonObject, bounds: Bounds): Result.Result<Request, Unreadable> => {
  const { idLength } = bounds
  const { correlation_id: correlationId, deadline_ms: deadlineMillis, idempotency_key: idempotencyKey } = frame
  const event = nameOf(frame)
  if (isLong(correlationId)) return unreadable(`"correlation_id" has more than ${correlationLength} characters`, event)
  if (event === undefined) {
    const problem = frame["event"] === undefined ? "it has no \"event\"" : `"event" is not a text of 1 to ${EventName.maxForeignLength} characters`
    return unreadable(problem, undefined, correlationId)
  }
  if (deadlineMillis !== undefined && !(typeof deadlineMillis === "number" && deadlineMillis > 0)) {
    return unreadable("\"deadline_ms\" is not a positive number of milliseconds", event, correlationId)
  }
  if (idempotencyKey !== undefined && !(typeof idempotencyKey === "string" && idempotencyKey !== "" && idempotencyKey.length <= maxKeyLength)) {
    return unreadable(`"idempotency_key" is not a text of 1 to ${maxKeyLength} characters`, event, correlationId)
  }
  const stream = streamOf(frame, bounds)
  if (typeof stream === "string") return unreadable(stream, event, correlationId)
  const expects = expectationsOf(frame)
  if (typeof expects === "string") return unreadable(expects, event, correlationId)
  const { _client_id: clientId, traceparent, tracestate } = frame
  if (typeof clientId === "string" && clientId.length > idLength) {
    return unreadable(`"_client_id" has ${clientId.length} characters, at most ${idLength} are allowed`, event, correlationId)
  }
  return Result.succeed({
    event,
    data: isFlat(event) ? controlData(frame) : frame["data"],
    correlationId,
    clientId: typeof clientId === "string" ? clientId : undefined,
    deadlineMillis,
    idempotencyKey,
    traceparent: typeof traceparent === "string" ? traceparent : undefined,
    tracestate: typeof tracestate === "string" ? tracestate : undefined,
    stream,
    bare: frame["bare"] === true,
    expects
  })
}

// Positions are bigints for programs, and numbers in JSON.
const wholeNumber = (_key: string, value: unknown): unknown => typeof value === "bigint" ? Number(value) : value

/** The text of a request; `dataText` is JSON and goes in as it is. */
export const encodeRequest = (request: {
  readonly event: string
  readonly dataText?: string | undefined
  readonly correlationId: string
  readonly clientId?: string | undefined
  readonly deadlineMillis?: number | undefined
  readonly idempotencyKey?: string | undefined
  readonly traceparent?: string | undefined
  readonly tracestate?: string | undefined
  readonly stream?: StreamRequest | undefined
  readonly bare?: boolean | undefined
  readonly expects?: Expectations | undefined
}): string => {
  let text = `{"event":${JSON.stringify(request.event)},"correlation_id":${JSON.stringify(request.correlationId)}`
  if (request.dataText !== undefined) text += `,"data":${request.dataText}`
  if (request.clientId !== undefined) text += `,"_client_id":${JSON.stringify(request.clientId)}`
  if (request.deadlineMillis !== undefined) text += `,"deadline_ms":${request.deadlineMillis}`
  if (request.idempotencyKey !== undefined) text += `,"idempotency_key":${JSON.stringify(request.idempotencyKey)}`
  if (request.traceparent !== undefined) text += `,"traceparent":${JSON.stringify(request.traceparent)}`
  if (request.bare === true) text += ",\"bare\":true"
  if (request.expects !== undefined) text += `,"expects":${JSON.stringify(request.expects, wholeNumber)}`
  if (request.stream !== undefined) {
    const { bytes, id, items } = request.stream
    text += `,"stream":true,"stream_id":${JSON.stringify(id)},"credit":${JSON.stringify({ items, bytes })}`
  }
  if (request.tracestate !== undefined) text += `,"tracestate":${JSON.stringify(request.tracestate)}`
  return text + "}\n"
}

// ------------------------------------------------------------------------------------------------------------ replies

/** Characters that a reply may have beyond `frameBytes`: what is around its data. */
export const replyOverhead = 4096

/** A time as the wire writes it: seconds, with a fraction, for Python tells an int from a float, and the original's clients expect a float. */
export const seconds = (millis: number): string => Number.isInteger(millis / 1000) ? `${millis / 1000}.0` : String(millis / 1000)

/**
 * A time and what stands around it. The last is kept, in one piece: many replies share a millisecond, and a text put
 * together of many costs as many steps when it is written.
 */
const makeTimeText = (before: string, after: string) => {
  let last = Number.NaN
  let text = ""
  return (millis: number): string => {
    if (millis !== last) {
      last = millis
      text = [before, seconds(millis), after].join("")
    }
    return text
  }
}

/** A text as JSON: `JSON.stringify`, at half its cost for the short plain ones that names and labels are. */
const quoted = (text: string): string => {
  if (text.length > 64) return JSON.stringify(text)
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    const plain = code >= 0x20 && code < 0x7f && code !== 0x22 && code !== 0x5c
    if (!plain) return JSON.stringify(text)
  }
  return `"${text}"`
}

const echo = (correlationId: unknown): string =>
  typeof correlationId === "string" ? quoted(correlationId) : JSON.stringify(correlationId) ?? "null"

const rootTime = makeTimeText("\",\"_event_depth\":0,\"_client_id\":null,\"_timestamp\":", ",\"_response_id\":\"resp_")

/** The ids of a request as a reply tells them: from the first to the last, without what stands around them. */
const idsText = (envelope: Envelope): string => {
  const { id, metadata } = envelope
  const { causationId, clientId, correlationId: root, depth, timestamp } = metadata
  // Nothing caused it, and its client has no name: so are nearly all.
  if (causationId === undefined && depth === 0 && clientId === undefined) {
    return `${id}","_correlation_id":"${root}","_parent_event_id":null,"_root_event_id":"${root}${rootTime(timestamp)}${id}`
  }
  const parent = causationId === undefined ? "null" : `"${causationId}"`
  const client = clientId === undefined ? "null" : quoted(clientId)
  return `${id}","_correlation_id":"${root}","_parent_event_id":${parent},"_root_event_id":"${root}","_event_depth":${depth},"_client_id":${client},"_timestamp":${
    seconds(timestamp)
  },"_response_id":"resp_${id}`
}

const openObject = 0x7b

/** The `data` of a successful reply up to the ids. `undefined` is the answer of an event that answers nothing. */
const valueText = (value: unknown): string => {
  const text = JSON.stringify(value)
  if (text === undefined) return "{\"status\":\"success\",\"_ksi_context\":{\"_event_id\":\""
  if (text.charCodeAt(0) !== openObject) return `{"status":"success","result":${text},"_ksi_context":{"_event_id":"`
  // It wrote itself as an object, so it is one.
  const own = value as JsonObject
  // The context is the router's to give.
  if (own["_ksi_context"] !== undefined) return valueText({ ...own, _ksi_context: undefined })
  const comma = text.length === 2 ? "" : ","
  return own["status"] === undefined
    ? `${text.slice(0, -1)}${comma}"status":"success","_ksi_context":{"_event_id":"`
    : `${text.slice(0, -1)}${comma}"_ksi_context":{"_event_id":"`
}

const answerText = (answer: Answer): string =>
  answer.kind === "value"
    ? valueText(answer.value)
    : `{"status":"success","event_id":"${answer.id}","position":${answer.position},"_ksi_context":{"_event_id":"`

const headText = (event: string | undefined, ok: boolean): string =>
  ["{\"event\":", event === undefined ? "null" : quoted(event), ok ? ",\"ok\":true,\"data\":" : ",\"ok\":false,\"data\":"].join("")

// Kept as times are.
let lastEvent: string | undefined
let lastHead = ""
const successHead = (event: string): string => {
  if (event !== lastEvent) {
    lastEvent = event
    lastHead = headText(event, true)
  }
  return lastHead
}

const endTime = makeTimeText(",\"timestamp\":", "}\n")

interface Failed {
  readonly status: "failed" | "error"
  readonly error: string
  readonly reason: string
  readonly cause: "ksi" | "domain" | "defect" | "interrupt"
  /** The declared error, encoded; null for others. */
  readonly error_data: unknown
  readonly details: unknown
  readonly retryable: boolean
}

const encodeReason = Schema.encodeUnknownSync(KsiError.ReasonJson)
const decodeReason = Schema.decodeUnknownExit(KsiError.ReasonJson)

const ofReason = (reason: KsiError.Reason): Failed => {
  // The codec of a tagged class writes an object.
  const { _tag, ...details } = encodeReason(reason) as Record<string, unknown>
  return {
    status: reason._tag === "UnknownEvent" ? "error" : "failed",
    error: reason.message,
    reason: reason._tag,
    cause: "ksi",
    error_data: null,
    details,
    retryable: reason.retryable
  }
}

const ofDeclared = ({ error, message, reason }: DeclaredFailure): Failed => ({
  status: "failed",
  error: message,
  reason,
  cause: "domain",
  error_data: error ?? null,
  details: {},
  retryable: false
})

const failed = (cause: Cause.Cause<KsiError.KsiError | DeclaredFailure>, envelope: Envelope): Failed => {
  const error = Cause.findErrorOption(cause)
  if (error._tag === "Some") {
    return error.value instanceof DeclaredFailure ? ofDeclared(error.value) : ofReason(error.value.reason)
  }
  const { message, reason, retryable } = brokenOf(cause, envelope)
  return {
    status: "failed",
    error: message,
    reason,
    cause: reason === "Interrupted" ? "interrupt" : "defect",
    error_data: null,
    details: { correlation_id: envelope.metadata.correlationId },
    retryable
  }
}

/** What the reply to a request that failed has as its `data`, as an object. */
export const encodeFailure = (cause: Cause.Cause<KsiError.KsiError | DeclaredFailure>, envelope: Envelope): JsonObject => ({ ...failed(cause, envelope) })

const failedText = (failure: Failed): string => `${JSON.stringify(failure).slice(0, -1)},"_ksi_context":{"_event_id":"`

/** The line that answers a request. `now` in milliseconds since 1970. */
export const encodeReply = (
  envelope: Envelope,
  correlationId: unknown,
  exit: Exit.Exit<Answer, KsiError.KsiError | DeclaredFailure>,
  now: number
): string => {
  const beginning = Exit.isSuccess(exit)
    ? successHead(envelope.name) + answerText(exit.value)
    : headText(envelope.name, false) + failedText(failed(exit.cause, envelope))
  return `${beginning}${idsText(envelope)}"}},"count":1,"correlation_id":${echo(correlationId)}${endTime(now)}`
}

/** The line that answers a request that asked for the answer as it is. A failure is told as every other. */
export const encodeBare = (
  envelope: Envelope,
  correlationId: unknown,
  exit: Exit.Exit<Answer, KsiError.KsiError | DeclaredFailure>,
  now: number
): string => {
  if (Exit.isFailure(exit)) return encodeReply(envelope, correlationId, exit, now)
  const { value: answer } = exit
  const text = answer.kind === "value"
    ? JSON.stringify(answer.value)
    : `{"id":${JSON.stringify(answer.id)},"position":${answer.position},"version":${answer.version}}`
  // The answer of an event that answers nothing has no text.
  const field = text === undefined ? "" : `,"${answer.kind}":${text}`
  return `{"ok":true,"correlation_id":${echo(correlationId)}${field}}\n`
}

/** The line that answers what is no request. */
export const encodeUnreadable = ({ correlationId, event, reason }: Unreadable, now: number): string =>
  `${headText(event, false)}${JSON.stringify(ofReason(reason))},"count":1,"correlation_id":${echo(correlationId)}${endTime(now)}`

// ------------------------------------------------------------------------------------------------------ subscriptions

/** The line that tells a subscriber; `data` is the delivery's data as JSON. */
export const encodeDelivery = (delivery: Delivery, subscriptionId: string, data: unknown, withMetadata = false, marked = ""): string => {
  const name = quoted(delivery.name)
  const { dataVersion, metadata, missed, position, version } = delivery
  const place = position === undefined
    ? ""
    : `,"position":${position},"version":${version},"stream_id":${JSON.stringify(metadata.streamId)}`
  // The key is between its sender and KSI.
  const known = withMetadata ? `,"data_version":${JSON.stringify(dataVersion) ?? "null"},"metadata":${JSON.stringify({ ...metadata, idempotencyKey: undefined })}` : ""
  return `{"event":${name},"event_name":${name},"data":${JSON.stringify(data) ?? "null"},"subscription_id":${
    JSON.stringify(subscriptionId)
  }${place}${known}${missed === 0 ? "" : `,"missed":${missed}`}${marked},"event_id":${JSON.stringify(delivery.id)},"timestamp":${seconds(metadata.timestamp)}}\n`
}

/** The line that ends a subscription which cannot go on. */
export const encodeSubscriptionEnd = (subscriptionId: string, reason: KsiError.Reason, now: number): string =>
  `{"event":"pubsub:subscribe","ok":false,"data":${JSON.stringify(ofReason(reason))},"subscription_id":${
    JSON.stringify(subscriptionId)
  },"timestamp":${seconds(now)}}\n`

// ------------------------------------------------------------------------------------------------------------ clients

/** Reads a line that a daemon sent; the failure is one sentence. */
export const decodeIncoming = (line: string): Result.Result<Incoming, string> => {
  const parsed = Json.parseResult(line)
  if (Result.isFailure(parsed)) return Result.fail(parsed.failure)
  const fields = parsed.success
  if (!Json.isObject(fields)) return Result.fail("it is not a JSON object")
  const { correlation_id: correlationId, data, event, ok, timestamp } = fields
  return Result.succeed({
    event: typeof event === "string" ? event : undefined,
    ok: ok !== false,
    data,
    correlationId,
    timestamp: typeof timestamp === "number" ? timestamp : undefined,
    fields
  })
}

const textOf = (u: unknown, otherwise: string): string => typeof u === "string" ? u : otherwise

/** What a failed reply (or the end of a stream) says, as the class that it was on the other side. */
export const failureOf = (incoming: Incoming): KsiError.KsiError | DeclaredFailure | RemoteFailure => {
  const said = incoming.data ?? incoming.fields["error"]
  const data = Json.isObject(said) ? said : {}
  const event = incoming.event ?? ""
  const message = textOf(data["error"], `${event} failed`)
  const reason = textOf(data["reason"], "Unknown")
  if (data["cause"] === "domain") return new DeclaredFailure({ event, error: data["error_data"], message })
  if (data["cause"] === "ksi" && Json.isObject(data["details"])) {
    const revived = decodeReason({ ...data["details"], _tag: reason })
    if (Exit.isSuccess(revived)) return KsiError.make(revived.value)
  }
  return new RemoteFailure({
    event,
    cause: textOf(data["cause"], "unknown"),
    reason,
    message,
    details: data["details"] ?? {},
    retryable: data["retryable"] === true
  })
}

/** A reply as the exit that it was on the other side. */
export const decodeReply = (
  incoming: Incoming
): Exit.Exit<Reply, KsiError.KsiError | DeclaredFailure | RemoteFailure> => {
  if (!incoming.ok) return Exit.fail(failureOf(incoming))
  const { _ksi_context: context, ...data } = Json.isObject(incoming.data) ? incoming.data : { result: incoming.data }
  return Exit.succeed({
    event: incoming.event ?? "",
    data,
    context: Json.isObject(context) ? context : {},
    timestamp: incoming.timestamp
  })
}
