/**
 * The daemon as a command sees it: where it is, one connection, paged answers.
 *
 * The rule: a one-shot command never waits for a daemon. Nobody there is `ConnectionLost`, exit code 5, next `ksi start`.
 * It is whoever can open the socket, unless the environment has a token (`KSI_TOKEN`, or `KSI_TOKEN_FILE` with its path):
 * then it is the token's bearer, and nobody where the token is not valid.
 *
 * What it asks is in the trace that the environment names, if any (`TRACEPARENT`).
 *
 * **Example**
 *
 * ```ts
 * Remote.given({ stream: undefined, from: 1 })          // { from: 1 }
 * ```
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type { PlatformError } from "effect/PlatformError"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { readFile } from "node:fs/promises"
import type { JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as TraceContext from "../event/TraceContext.ts"
import * as Client from "../wire/Client.ts"
import { Io } from "./Io.ts"
import * as Output from "./Output.ts"
import * as Settings from "./Settings.ts"

/** What a call to the daemon fails with. */
export type RemoteError = Client.CallFailure

/** Where a subscription starts. */
export type From = number | "start" | "now"

/** One connection to a daemon. */
export interface Remote {
  /** Where it is. */
  readonly address: string
  /** The `data` of the reply. With a key it is carried out once, however often it is asked. */
  readonly call: (
    event: string,
    data: JsonObject,
    options?: Pick<Client.CallOptions, "idempotencyKey">
  ) => Effect.Effect<JsonObject, RemoteError>
  /** As `call`, with the data as JSON text, which is sent as it is. */
  readonly callRaw: (event: string, data: string) => Effect.Effect<JsonObject, RemoteError>
  /** The items of a request that answers with a stream. */
  readonly stream: (event: string, data: JsonObject, options?: Pick<Client.StreamOptions, "bufferSize">) => Stream.Stream<unknown, RemoteError>
  /** The frames of what a pattern matches. `opened` is told the last position stored when it went live. */
  readonly subscribe: (
    pattern: string,
    options: { readonly from: From; readonly requests: boolean; readonly opened: (position: number) => void }
  ) => Stream.Stream<JsonObject, RemoteError>
}

/** The fields that are given. */
export const given = (fields: JsonObject): JsonObject =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))

/** What a file system says about a file, without the ornament. */
export const fileProblem = ({ reason }: PlatformError): string => {
  switch (reason._tag) {
    case "NotFound":
      return "there is no such file"
    case "PermissionDenied":
      return "permission denied"
    default:
      return reason.message
  }
}

const itemsOf = (reply: JsonObject): ReadonlyArray<JsonObject> => {
  const { items } = reply
  // The schema of a paged reply says that items are a list.
  return Array.isArray(items) ? items as ReadonlyArray<JsonObject> : []
}

/** All items of a paged answer, page by page as they are consumed. */
export const pages = (remote: Remote, event: string, data: JsonObject): Stream.Stream<JsonObject, RemoteError> =>
  Stream.paginate(Option.none<string>(), (cursor) =>
    Effect.map(remote.call(event, Option.isNone(cursor) ? data : { ...data, cursor: cursor.value }), (reply) => {
      const next = reply["cursor"]
      return [itemsOf(reply), typeof next === "string" ? Option.some(Option.some(next)) : Option.none()] as const
    }))

/**
 * The trace that this process was started in: `TRACEPARENT` and `TRACESTATE`, as tracing tools hand them to what they
 * start. A malformed one is ignored, for it came with the environment and not with the command.
 */
export const trace = Effect.map(Io, ({ variable }): TraceContext.Texts =>
  TraceContext.accept(variable("TRACEPARENT"), variable("TRACESTATE")) ?? TraceContext.none)

const fileToken = (path: string): Effect.Effect<string, KsiError.KsiError> =>
  Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    // Who was given a token must not go on without it.
    catch: (cause) => KsiError.make(new KsiError.Unauthenticated({ problem: `KSI_TOKEN_FILE cannot be read: ${KsiError.sentenceOf(cause)}` }))
  }).pipe(Effect.map((text) => text.trim()))

/** The token that this process was given, if any. Fails with `Unauthenticated` where it cannot be read. */
const token = Effect.gen(function*() {
  const { variable } = yield* Io
  const file = variable("KSI_TOKEN_FILE")
  return variable("KSI_TOKEN") ?? (file === undefined ? undefined : yield* fileToken(file))
})

/** Connects; of more calls than `outstanding` (default 64) some wait for their turn. Fails with `ConnectionLost` when nobody is there. */
export const connectWith = Effect.fnUntraced(function*({ outstanding }: { readonly outstanding?: number }) {
  const texts = yield* trace
  const client = yield* Client.connect({ url: yield* Settings.address, token: yield* token, clientId: "ksi-cli", outstanding }).pipe(
    // No request was wrong: where to ask was.
    Effect.mapError((error) => error.reason._tag === "PayloadInvalid"
      ? new Output.Usage({ message: `where the daemon is (--url, KSI_URL): ${error.reason.problems.map(({ problem }) => problem).join("; ")}`, similar: [], next: "ksi --help" })
      : error)
  )
  const remote: Remote = {
    address: client.address,
    call: (event, data, options) => Effect.map(client.call(event, data, { ...texts, ...options }), (reply) => reply.data),
    callRaw: (event, data) => Effect.map(client.callRaw(event, data, texts), (reply) => reply.data),
    stream: (event, data, options) => client.stream(event, data, { ...texts, ...options }),
    subscribe: (pattern, { from, opened, requests }) =>
      Stream.map(client.subscribe({ pattern, from, requests, onSubscribed: opened }), ({ fields }) => fields)
  }
  return remote
})

/** Connects. Fails with `ConnectionLost` when nobody is there, and with `Usage` where settings do not say where. */
export const connect: Effect.Effect<
  Remote,
  RemoteError | Output.Usage,
  Io | Scope.Scope | FileSystem.FileSystem | Settings.Addressing
> = connectWith({})
