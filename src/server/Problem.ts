/**
 * What an HTTP client is told when something went wrong: a status and a problem document (RFC 9457).
 *
 * The rule: `reason` says what happened, in the words of every other surface; the status follows from it, in the one table
 * here. A defect shows its correlation id and nothing else.
 *
 * **Example**
 *
 * ```ts
 * const problem = Problem.ofReason(new KsiError.NoHandler({ event: "stock:reserve", passed: 0, similar: [] }))
 * problem.status                              // 404
 * Problem.document(problem).detail            // "nobody handles \"stock:reserve\""
 * Problem.headers(problem)                    // {}
 * ```
 *
 * Source: RFC 9457; RFC 9110 section 15.
 */
import * as Cause from "effect/Cause"
import * as Schema from "effect/Schema"
import { brokenOf, type DeclaredFailure } from "../bus/KsiService.ts"
import type { Envelope } from "../event/Envelope.ts"
import { localHttp } from "../event/Grant.ts"
import * as KsiError from "../event/KsiError.ts"

/** What went wrong. */
export interface Problem {
  readonly status: number
  /** The reason's tag; of a declared error its `_tag`. */
  readonly reason: string
  /** One sentence. */
  readonly detail: string
  /** Whether the same request may succeed later. */
  readonly retryable: boolean
  /** What the daemon's log and its journal know it by; none where nothing was begun. */
  readonly correlationId?: string | undefined
  /** What to do next. */
  readonly next?: string | undefined
  /** The fields of the reason. */
  readonly details?: unknown
  /** The declared error, as its schema writes it. */
  readonly error?: unknown
  /** Methods that the place takes, of `MethodNotAllowed`. */
  readonly allow?: string | undefined
}

/** The status of every reason: the one table. What is overloaded, or has more than it can take at once, is 503 instead of 413. */
export const statuses = {
  PayloadInvalid: 400,
  PatternInvalid: 400,
  FrameInvalid: 400,
  WrongShape: 400,
  Unauthenticated: 401,
  PermissionDenied: 403,
  ForeignHost: 403,
  ForeignOrigin: 403,
  UnknownEvent: 404,
  NoHandler: 404,
  NotFound: 404,
  MethodNotAllowed: 405,
  NotAcceptable: 406,
  RequestTimeout: 408,
  VersionConflict: 409,
  ConditionFailed: 409,
  IdConflict: 409,
  IdempotencyConflict: 409,
  StreamDeleted: 410,
  LimitExceeded: 413,
  SlowConsumer: 503,
  MediaTypeUnsupported: 415,
  DeclaredFailure: 422,
  Rejected: 422,
  HandlerFailed: 422,
  UpgradeRequired: 426,
  HeadersTooLarge: 431,
  ReplyInvalid: 500,
  Defect: 500,
  PluginInvalid: 500,
  ListenFailed: 500,
  StoreFailure: 503,
  StoreLocked: 503,
  ConnectionLost: 503,
  Interrupted: 503,
  DeadlineExceeded: 504
} as const satisfies Record<KsiError.Reason["_tag"] | "DeclaredFailure" | "Defect" | "Interrupted", number> & Record<string, number>

const overloaded = 503

/** What is wrong with a request that never became an event. */
export const make = (
  reason: keyof typeof statuses,
  detail: string,
  more: Pick<Problem, "next" | "allow"> & { readonly retryable?: boolean } = {}
): Problem => ({ status: statuses[reason], reason, detail, retryable: more.retryable ?? false, next: more.next, allow: more.allow })

const encodeReason = Schema.encodeUnknownSync(KsiError.ReasonJson)

/** What KSI itself has to say; `principal` is who asked, where that is known. */
export const ofReason = (reason: KsiError.Reason, principal?: string): Problem => {
  // The codec of a tagged class writes an object.
  const { _tag, ...details } = encodeReason(reason) as Record<string, unknown>
  const status = reason._tag === "LimitExceeded" && reason.retryable ? overloaded : statuses[reason._tag]
  // Who has shown no token may have one.
  const helps = reason._tag === "PermissionDenied" && principal === localHttp
  return {
    status: helps ? statuses.Unauthenticated : status,
    reason: reason._tag,
    detail: reason.message,
    retryable: reason.retryable,
    next: reason.next,
    details
  }
}

/** Why a request failed that became an event. */
export const ofCause = (cause: Cause.Cause<KsiError.KsiError | DeclaredFailure>, envelope: Envelope): Problem => {
  const { correlationId, principal } = envelope.metadata
  const error = Cause.findErrorOption(cause)
  if (error._tag === "Some") {
    if (KsiError.is(error.value)) return { ...ofReason(error.value.reason, principal), correlationId }
    const { error: encoded, message, reason } = error.value
    return { status: statuses.DeclaredFailure, reason, detail: message, retryable: false, correlationId, error: encoded }
  }
  const { message, reason, retryable } = brokenOf(cause, envelope)
  return { status: statuses[reason], reason, detail: message, retryable, correlationId }
}

/** The problem document; fields that have no value are left out. */
export const document = ({ allow: _, reason, ...problem }: Problem) => ({
  type: `urn:ksi:reason:${reason}`,
  title: reason.replaceAll(/(?<=[a-z])(?=[A-Z])/g, " "),
  ...problem,
  reason
})

const retrySeconds = "1"

/** The headers that go with it, beside those of every answer. */
export const headers = ({ allow, retryable, status }: Problem): Readonly<Record<string, string>> => ({
  ...(allow === undefined ? {} : { allow }),
  ...(status === statuses.Unauthenticated ? { "www-authenticate": "Bearer realm=\"ksi\"" } : {}),
  ...(retryable && status === overloaded ? { "retry-after": retrySeconds } : {})
})
