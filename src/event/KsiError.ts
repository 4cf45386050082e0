/**
 * The one error class of KSI. What a handler declares travels untouched beside it; everything KSI itself has to say
 * is a `KsiError` with a tagged `reason`, so signatures stay short and `Effect.catchReason` stays precise.
 *
 * The rule: every reason says what happened (`message`), whether the same call may succeed later (`retryable`), and
 * what to do next (`next`, a command). A reason is data: it crosses the wire and comes back as the same class.
 *
 * **Example**
 *
 * ```ts
 * const Release = Event.make("stock:release", { success: Schema.String })
 * const answer = yield* ksi.call(Release, {}).pipe(
 *   Effect.catchReason("KsiError", "UnknownEvent", ({ similar }) => Effect.succeed(`did you mean ${similar[0]}?`)))
 * answer                                  // "did you mean stock:reserve?"
 * ```
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"

/** One thing wrong with a value, and where. */
export const Problem = Schema.Struct({
  /** Path from the value's root, joined by dots; empty for the value itself. */
  path: Schema.String,
  /** What was expected and what was found. */
  problem: Schema.String
})
/** One thing wrong with a value, and where. */
export type Problem = typeof Problem.Type

const quoted = (names: ReadonlyArray<string>) => names.map((name) => `"${name}"`).join(", ")
const nearestText = (names: ReadonlyArray<string>) => names.length === 0 ? "" : `; nearest: ${quoted(names)}`
/** Several problems in one sentence. */
export const problemsText = (problems: ReadonlyArray<Problem>) =>
  problems.map(({ path, problem }) => path === "" ? problem : `${path}: ${problem}`).join("; ")

/** No event of this name is registered. */
export class UnknownEvent extends Schema.TaggedClass<UnknownEvent>()("UnknownEvent", {
  event: Schema.String,
  similar: Schema.Array(Schema.String),
  namespaces: Schema.Array(Schema.String)
}) {
  get message(): string {
    return `no event is called "${this.event}"${nearestText(this.similar)}`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    const namespace = this.event.split(":")[0] ?? ""
    return this.namespaces.includes(namespace) ? `ksi discover '${namespace}:*'` : "ksi discover"
  }
}

/** The event is registered, but nobody answers it. */
export class NoHandler extends Schema.TaggedClass<NoHandler>()("NoHandler", {
  event: Schema.String,
  /** How many handlers were asked and passed. */
  passed: Schema.Int,
  similar: Schema.Array(Schema.String)
}) {
  get message(): string {
    const tried = this.passed === 0 ? "" : ` (${this.passed} passed)`
    return `nobody handles "${this.event}"${tried}${nearestText(this.similar)}`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    return `ksi describe ${this.event}`
  }
}

/** The payload does not fit the event's schema; no handler ran. */
export class PayloadInvalid extends Schema.TaggedClass<PayloadInvalid>()("PayloadInvalid", {
  event: Schema.String,
  problems: Schema.Array(Problem)
}) {
  get message(): string {
    return `${this.event} rejected before any handler ran: ${problemsText(this.problems)}`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    return `ksi describe ${this.event}`
  }
}

/** A text that is no event pattern. */
export class PatternInvalid extends Schema.TaggedClass<PatternInvalid>()("PatternInvalid", {
  pattern: Schema.String,
  problem: Schema.String
}) {
  get message(): string {
    return `"${this.pattern}" is not a pattern: ${this.problem}`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    return "ksi discover"
  }
}

/** A handler answered with something its event does not promise. */
export class ReplyInvalid extends Schema.TaggedClass<ReplyInvalid>()("ReplyInvalid", {
  event: Schema.String,
  problems: Schema.Array(Problem)
}) {
  get message(): string {
    return `the handler of ${this.event} answered with an invalid reply: ${problemsText(this.problems)}`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    return `ksi describe ${this.event}`
  }
}

/** A fact was called, a request was emitted, or a stream was asked for one answer. */
export class WrongShape extends Schema.TaggedClass<WrongShape>()("WrongShape", {
  event: Schema.String,
  /** What the caller did: `call`, `emit`, `stream`. */
  used: Schema.String,
  /** What this event is for: `call`, `emit`, `stream`, or `connection`. */
  expected: Schema.String
}) {
  get message(): string {
    const kind = this.expected === "emit" ? "a fact" : this.expected === "stream" ? "a stream" : "a request"
    if (this.expected === "connection") return `${this.event} belongs to a connection; send it over the socket`
    return `${this.event} is ${kind}: use ${this.expected}, not ${this.used}`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    if (this.expected === "connection") return "ksi subscribe <pattern>"
    return `ksi ${this.expected} ${this.event}`
  }
}

/** A stream, an event id, a position or a subscription that does not exist. */
export class NotFound extends Schema.TaggedClass<NotFound>()("NotFound", {
  what: Schema.String,
  id: Schema.String,
  similar: Schema.Array(Schema.String),
  /** Where it is missing, of something that is there otherwise; follows the id. */
  detail: Schema.optionalKey(Schema.String)
}) {
  get message(): string {
    const detail = this.detail === undefined ? "" : ` ${this.detail}`
    return `there is no ${this.what} "${this.id}"${detail}${nearestText(this.similar)}`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    if (this.what === "dead letter") return "ksi dead ls"
    if (this.what === "read model" || this.what === "projection") return "ksi projection ls"
    if (this.what === "consumer group" || this.what === "ticket") return "ksi consumer ls"
    if (this.what === "request or fact") return "ksi call event_log:query"
    if (this.what === "token") return "ksi token ls"
    if (this.what === "grant" || this.what === "profile") return "ksi permission ls"
    if (this.what === "stream") return this.detail === undefined ? "ksi streams" : `ksi stream-log ${this.id}`
    if (this.what.startsWith("fact")) return "ksi export"
    if (this.what === "field") return "ksi time blame --help"
    return "ksi discover"
  }
}

/** Bytes that are not a frame: not JSON, not an object, without `event`, not UTF-8. */
export class FrameInvalid extends Schema.TaggedClass<FrameInvalid>()("FrameInvalid", { problem: Schema.String }) {
  get message(): string {
    return `the frame could not be read: ${this.problem}`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    return `send one JSON object a line, as {"event":"system:health"}`
  }
}

/** A limit was reached; `Limits` has its name and value. */
export class LimitExceeded extends Schema.TaggedClass<LimitExceeded>()("LimitExceeded", {
  limit: Schema.String,
  max: Schema.Number,
  actual: Schema.optionalKey(Schema.Number),
  retryable: Schema.Boolean
}) {
  get message(): string {
    return `the limit ${this.limit} of ${this.max} was reached${this.actual === undefined ? "" : ` (${this.actual})`}`
  }
  get next(): string {
    return this.retryable ? "try again when less is running" : "send less at once"
  }
}

/** A subscriber with `overflow: "disconnect"` was behind by more than its buffer. */
export class SlowConsumer extends Schema.TaggedClass<SlowConsumer>()("SlowConsumer", {
  pattern: Schema.String,
  buffer: Schema.Number,
  /** The first fact that it was not told of: where it may go on. */
  position: Schema.Number
}) {
  get message(): string {
    return `the subscriber to ${this.pattern} was behind by more than its buffer of ${this.buffer}, and is told no more`
  }
  get retryable(): boolean {
    return true
  }
  get next(): string {
    return `ksi subscribe ${word(this.pattern)} --from ${this.position}`
  }
}

/** The deadline of a call passed before its answer. */
export class DeadlineExceeded extends Schema.TaggedClass<DeadlineExceeded>()("DeadlineExceeded", {
  event: Schema.String,
  millis: Schema.Number
}) {
  get message(): string {
    return `${this.event} did not answer within ${this.millis} ms`
  }
  get retryable(): boolean {
    return true
  }
  get next(): string {
    return `ksi describe ${this.event}`
  }
}

/** The stream moved on: another append came first. */
export class VersionConflict extends Schema.TaggedClass<VersionConflict>()("VersionConflict", {
  streamId: Schema.String,
  expected: Schema.Number,
  actual: Schema.Number
}) {
  get message(): string {
    return `stream "${this.streamId}" is at version ${this.actual}, not ${this.expected}`
  }
  get retryable(): boolean {
    return true
  }
  get next(): string {
    return `ksi stream-log ${this.streamId}`
  }
}

/** A fact that the append's condition excludes is there: the decision was based on less than is known. */
export class ConditionFailed extends Schema.TaggedClass<ConditionFailed>()("ConditionFailed", {
  /** The first fact that matches. */
  position: Schema.Number,
  /** What the decision was based on; 0 for nothing. */
  after: Schema.Number
}) {
  get message(): string {
    const what = `a fact that matches the condition of the append is at position ${this.position}`
    return this.after === 0 ? what : `${what}, after ${this.after}`
  }
  // The same append says the same position: only a new decision can succeed.
  get retryable(): boolean {
    return false
  }
  get next(): string {
    return "read again, decide again, and append with the new position"
  }
}

/** The stream was deleted: its tombstone is its last fact for ever. */
export class StreamDeleted extends Schema.TaggedClass<StreamDeleted>()("StreamDeleted", { streamId: Schema.String }) {
  get message(): string {
    return `stream "${this.streamId}" was deleted; no fact can be appended to it any more`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    return `ksi stream-log ${this.streamId}`
  }
}

/** An event with this source and id is stored already, with other content. */
export class IdConflict extends Schema.TaggedClass<IdConflict>()("IdConflict", {
  source: Schema.String,
  id: Schema.String,
  /** Where the other one is; 0 where it is another fact of the same append, which is not stored either. */
  position: Schema.Number
}) {
  get message(): string {
    if (this.position === 0) return `two events of the append are "${this.id}" of source "${this.source}", with different content`
    return `an event "${this.id}" of source "${this.source}" is stored at position ${this.position} with other content`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    return this.position === 0 ? "ksi describe store:import" : `ksi export --from ${this.position} --to ${this.position}`
  }
}

/** An idempotency key came again, with another payload. */
export class IdempotencyConflict extends Schema.TaggedClass<IdempotencyConflict>()("IdempotencyConflict", {
  event: Schema.String,
  key: Schema.String
}) {
  get message(): string {
    return `the idempotency key "${this.key}" of ${this.event} was used with another payload`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    return "give a new request a new key"
  }
}

/** Another process writes this store. */
export class StoreLocked extends Schema.TaggedClass<StoreLocked>()("StoreLocked", {
  file: Schema.String,
  /** Which process, where that is known. */
  pid: Schema.optionalKey(Schema.Int)
}) {
  get message(): string {
    return `${this.pid === undefined ? "another process" : `process ${this.pid}`} is writing ${this.file}`
  }
  get retryable(): boolean {
    return true
  }
  get next(): string {
    return "ksi stop, or start with another --home"
  }
}

/** The database refused: disk full, read-only, corrupt, or not a KSI store. */
export class StoreFailure extends Schema.TaggedClass<StoreFailure>()("StoreFailure", {
  operation: Schema.String,
  problem: Schema.String,
  /** Whether the same would fail again: an inline read model cannot fold the fact. */
  refused: Schema.optionalKey(Schema.Boolean),
  /** Of the fact that makes it fail, where it is one that is stored. */
  position: Schema.optionalKey(Schema.Number)
}) {
  get message(): string {
    return `the store failed to ${this.operation}: ${this.problem}`
  }
  get retryable(): boolean {
    return this.refused !== true
  }
  get next(): string {
    if (this.position !== undefined) return `ksi export --from ${this.position} --to ${this.position}`
    if (this.refused === true) return "ksi projection ls"
    return this.operation === "open" ? "ksi start --store-file <another file>" : "ksi doctor"
  }
}

/** The daemon cannot be reached, or went away while it owed an answer. */
export class ConnectionLost extends Schema.TaggedClass<ConnectionLost>()("ConnectionLost", {
  address: Schema.String,
  problem: Schema.String,
  /** Whether the request never left: sending it again is safe. */
  unsent: Schema.Boolean,
  /** Whether it may be carried out twice: then it is too. */
  idempotent: Schema.optionalKey(Schema.Boolean)
}) {
  get message(): string {
    return this.unsent
      ? `no daemon answers at ${this.address}: ${this.problem}`
      : `the connection to ${this.address} was lost: ${this.problem}`
  }
  get retryable(): boolean {
    return this.unsent || this.idempotent === true
  }
  get next(): string {
    if (!this.unsent) return "ksi status"
    return this.address.includes("://") ? "look whether a daemon runs there, and listens on it (ksi start --tcp, --port)" : "ksi start"
  }
}

/** An address where nobody can be reached: a path that is too long, a live daemon, no permission. */
export class ListenFailed extends Schema.TaggedClass<ListenFailed>()("ListenFailed", {
  address: Schema.String,
  problem: Schema.String,
  /** Whether a daemon answers there already. */
  taken: Schema.Boolean
}) {
  get message(): string {
    return `cannot listen at ${this.address}: ${this.problem}`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    if (this.address.startsWith("http:")) return `ksi start --port <another port>, or --port off`
    if (this.address.startsWith("tcp:")) return "ksi start --tcp <another address>, or --tcp off"
    return this.taken ? "ksi status, or ksi stop" : "ksi start --socket <another path>"
  }
}

/** A plugin, a handler or a definition that cannot be wired into the runtime. */
export class PluginInvalid extends Schema.TaggedClass<PluginInvalid>()("PluginInvalid", {
  plugin: Schema.String,
  problem: Schema.String
}) {
  get message(): string {
    return `${this.plugin} cannot start: ${this.problem}`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    return /^(there is no such file|it is a directory)/.test(this.problem)
      ? "name the file of a module: ksi start --help"
      : "mend the module and start again"
  }
}

/** A middleware refused the event with an error that the caller's event does not declare. */
export class Rejected extends Schema.TaggedClass<Rejected>()("Rejected", {
  event: Schema.String,
  middleware: Schema.String,
  problem: Schema.String
}) {
  get message(): string {
    return `middleware "${this.middleware}" rejected ${this.event}: ${this.problem}`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    return `ksi describe ${this.event}`
  }
}

/** A handler that was run once more failed once more. */
export class HandlerFailed extends Schema.TaggedClass<HandlerFailed>()("HandlerFailed", {
  event: Schema.String,
  handler: Schema.String,
  problem: Schema.String
}) {
  get message(): string {
    return `handler ${this.handler} of ${this.event} failed again: ${this.problem}`
  }
  get retryable(): boolean {
    return true
  }
  get next(): string {
    return "ksi dead ls"
  }
}

// A command is pasted into a shell: a name from outside must not be more than a word there.
const word = (text: string): string => /^[\w:./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`

/** Who asks may not do this; nothing of the request was read. */
export class PermissionDenied extends Schema.TaggedClass<PermissionDenied>()("PermissionDenied", {
  principal: Schema.String,
  /** The event's name; of a subscription its pattern. */
  event: Schema.String,
  /** `call`, `emit`, `stream` or `subscribe`. */
  action: Schema.String
}) {
  get message(): string {
    return `${this.principal} may not ${this.action} ${this.event}`
  }
  get retryable(): boolean {
    return false
  }
  /** The grant that would help. */
  get next(): string {
    // Who may do nothing to it is not told whether it is a request or a fact.
    const action = this.action === "call" || this.action === "emit" ? "call --action emit" : this.action
    return `ksi permission grant ${word(this.principal)} ${word(this.event)} --action ${action}`
  }
}

/** Nobody knows who asks: a token that is none, or that is no longer valid. */
export class Unauthenticated extends Schema.TaggedClass<Unauthenticated>()("Unauthenticated", { problem: Schema.String }) {
  get message(): string {
    return `it is not known who asks: ${this.problem}`
  }
  get retryable(): boolean {
    return false
  }
  get next(): string {
    return "ksi token create --profile standard"
  }
}

/** Everything KSI itself can fail with. */
export const Reason = Schema.Union([
  UnknownEvent, NoHandler, PayloadInvalid, PatternInvalid, ReplyInvalid, WrongShape, NotFound, FrameInvalid,
  LimitExceeded, SlowConsumer, DeadlineExceeded, VersionConflict, ConditionFailed, StreamDeleted, IdConflict, IdempotencyConflict, StoreLocked, StoreFailure,
  ConnectionLost, ListenFailed, PluginInvalid, Rejected, HandlerFailed,
  PermissionDenied, Unauthenticated
])
/** Everything KSI itself can fail with. */
export type Reason = typeof Reason.Type

/** Reasons as JSON, and back. */
export const ReasonJson = Schema.toCodecJson(Reason)

/** KSI's error: one class, told apart by `reason`. */
export class KsiError extends Schema.TaggedError<KsiError>("ksi/KsiError")("KsiError", { reason: Reason }) {
  override get message(): string {
    return this.reason.message
  }
  /** Whether the same call may succeed later. */
  get retryable(): boolean {
    return this.reason.retryable
  }
}

/**
 * A `KsiError` without a stack trace. An expected failure is data: capturing where it was made costs ten times
 * the failure itself and tells an operator nothing.
 */
export const make = (reason: Reason): KsiError => {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  try {
    return new KsiError({ reason })
  } finally {
    Error.stackTraceLimit = limit
  }
}

/** An effect that fails with this reason. */
export const fail = (reason: Reason): Effect.Effect<never, KsiError> => Effect.fail(make(reason))

/** An exit that failed with this reason. */
export const exit = (reason: Reason): Exit.Exit<never, KsiError> => Exit.fail(make(reason))

/** The reason that a payload is wrong in one place; `path` as in `Problem`. */
export const invalidAt = (event: string, path: string, problem: string): PayloadInvalid =>
  new PayloadInvalid({ event, problems: [{ path, problem }] })

/** The reason that a reply fits its schema and cannot be written all the same. */
export const unwritable = (event: string): ReplyInvalid =>
  new ReplyInvalid({ event, problems: [{ path: "", problem: "it cannot be written as JSON" }] })

/** Whether a value is a `KsiError`. */
export const is = (u: unknown): u is KsiError => u instanceof KsiError

/** What an exception of unknown kind says, in one sentence. Anything can be thrown, also what has no text. */
export const sentenceOf = (cause: unknown): string => {
  try {
    return String(cause instanceof Error && cause.message !== "" ? cause.message : cause)
  } catch {
    return `a thrown ${typeof cause} without a text`
  }
}

/** The first defect of a cause; `undefined` where it has none, as one that only failed or was interrupted. */
export const defectOf = (cause: Cause.Cause<unknown>): unknown => {
  for (const reason of cause.reasons) if (reason._tag === "Die") return reason.defect
  return undefined
}
