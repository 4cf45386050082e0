// Opens a connection to a daemon, by its URL: a Unix socket, TCP, or WebSocket.
//
// The rule: what cannot be dialled is said before anything is, and what nobody accepted has not left: `ConnectionLost` with
// `unsent`. What speaks WebSocket is loaded with the first one.
import type { WebSocket } from "@effect/platform-node/NodeWS"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { IncomingMessage } from "node:http"
import * as Net from "node:net"
import { isObject } from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import type { Transport } from "../Connection.ts"
import { keepAliveMillis, NetTransport } from "./NetTransport.ts"
import { WebSocketTransport } from "./WebSocketTransport.ts"

/** How to dial. */
export interface Options {
  readonly token: string | undefined
  readonly connectTimeout: Duration.Input | undefined
  /** The longest frame that may come. */
  readonly maxBytes: number
}

/** An open connection. */
export interface Dialled {
  /** `problem`: why it broke, where that is known. */
  readonly transport: Transport & { readonly problem: string | undefined }
  /** Whether the token was looked at already: then it is not said again. */
  readonly isPresented: boolean
}

// ----------------------------------------------------------------------------------------------------------------- URL

type Place =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "webSocket"; readonly url: string }

/** How the place is named to people: a Unix socket by its path, the rest as it was given. */
export const addressOf = (url: string): string => url.startsWith("unix:") ? url.slice("unix:".length).replace(/^\/\/(?=\/)/, "") : url

const expected = "expected unix:/path/of/daemon.sock, tcp://host:port, ws://host:port or wss://host:port"

const webSocketSchemes: { readonly [protocol: string]: string } = { "ws:": "ws:", "wss:": "wss:", "http:": "ws:", "https:": "wss:" }

const placeOf = (given: string): Result.Result<Place, KsiError.PayloadInvalid> => {
  const invalid = (problem: string) => Result.fail(KsiError.invalidAt("wire:hello", "url", problem))
  const hasScheme = /^[a-z][a-z\d+.-]*:\/\//i.test(given)
  if (!hasScheme || given.startsWith("unix:")) {
    const path = addressOf(given)
    // Who writes a host and a port means no file of that name.
    return path === "" || /^[\w.-]+:\d+$/.test(path) ? invalid(`${expected}, got ${JSON.stringify(path)}`) : Result.succeed({ kind: "unix", path })
  }
  if (!URL.canParse(given)) return invalid(`${expected}, got what is no URL`)
  const url = new URL(given)
  // Not shown: it is in what logs and errors say.
  if (url.username !== "" || url.password !== "") return invalid("has a name or a password in it; give the token apart")
  if (url.hash !== "") return invalid("has a fragment (#), which no server is told")
  if (url.protocol === "tcp:") {
    const isPlain = (url.pathname === "" || url.pathname === "/") && url.search === ""
    if (!isPlain || url.port === "" || url.port === "0" || url.hostname === "") return invalid(`expected tcp://host:port, got ${given}`)
    return Result.succeed({ kind: "tcp", host: url.hostname.replace(/^\[|\]$/g, ""), port: Number(url.port) })
  }
  const scheme = webSocketSchemes[url.protocol]
  if (scheme === undefined) return invalid(`${expected}, got ${url.protocol}//`)
  return Result.succeed({ kind: "webSocket", url: `${scheme}//${url.host}${url.pathname === "/" ? "/ws" : url.pathname}${url.search}` })
}

// ------------------------------------------------------------------------------------------------------------- dialling

/** Fails with a sentence where nobody accepts. */
type Opened = Effect.Effect<Dialled["transport"], string | KsiError.KsiError, Scope.Scope>

/** What a system says of a connection, in the words of who asked for it. */
const said = (error: Error): string => {
  // The names of a host may have many addresses: then each has failed, and only the first says how.
  const [first] = error instanceof AggregateError ? error.errors : []
  const { message } = first instanceof Error ? first : error
  if (/wrong version number|packet length too long/i.test(message)) return "it does not speak TLS there; use ws: or http: instead"
  if (/self.signed|certificate/i.test(message)) return `its certificate is not trusted (${message})`
  if (message === "socket hang up" || message.startsWith("Parse Error")) return `it does not speak WebSocket there, or only over TLS (${message})`
  return message
}

/** What is opened by a callback, and destroyed with the scope. */
const opening = <A extends Dialled["transport"]>(open: (done: (exit: Effect.Effect<A, string | KsiError.KsiError>) => void) => () => void): Opened =>
  Effect.acquireRelease(Effect.callback<A, string | KsiError.KsiError>((resume) => Effect.sync(open(resume))), (transport) => Effect.sync(transport.destroy), { interruptible: true })

const openNet = (options: Net.NetConnectOpts): Opened =>
  opening((done) => {
    const socket = Net.connect(options)
    const refused = (error: Error) => done(Effect.fail(said(error)))
    socket.once("error", refused)
    socket.once("connect", () => {
      socket.off("error", refused)
      done(Effect.succeed(new NetTransport(socket)))
    })
    return () => socket.destroy()
  })

// An answer that refuses is short; of a longer one the rest is not read.
const refusalBytes = 16 * 1024

/** What a server said instead of becoming a WebSocket; a daemon says why (RFC 9457). */
const refusalOf = async (response: IncomingMessage): Promise<string | KsiError.KsiError> => {
  let text = ""
  try {
    for await (const chunk of response.setEncoding("utf8")) {
      text += chunk
      if (text.length > refusalBytes) break
    }
    const problem: unknown = JSON.parse(text)
    if (isObject(problem) && typeof problem["detail"] === "string") {
      const { detail, reason } = problem
      if (reason === "Unauthenticated") return KsiError.make(new KsiError.Unauthenticated({ problem: detail.replace(/^it is not known who asks: /, "") }))
      return `it answered ${response.statusCode}: ${detail}`
    }
  } catch {
    // No daemon wrote that: the number has to do.
  }
  return `it answered ${response.statusCode}, and not as a daemon's /ws does`
}

const openWebSocket = (WebSocketClass: typeof WebSocket, url: string, { maxBytes, token }: Options): Opened =>
  opening((done) => {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` }
    const webSocket = new WebSocketClass(url, { headers, maxPayload: maxBytes, perMessageDeflate: false, followRedirects: false })
    let stream: Net.Socket | undefined
    webSocket.on("error", (error) => done(Effect.fail(said(error))))
    webSocket.on("upgrade", ({ socket }) => {
      stream = socket.setNoDelay(true).setKeepAlive(true, keepAliveMillis)
    })
    webSocket.on("unexpected-response", (_, response) => {
      done(Effect.promise(() => refusalOf(response)).pipe(Effect.flatMap(Effect.fail), Effect.ensuring(Effect.sync(() => webSocket.terminate()))))
    })
    webSocket.on("open", () => {
      if (stream === undefined) return
      // Until somebody takes it.
      webSocket.pause()
      done(Effect.succeed(new WebSocketTransport(webSocket, stream)))
    })
    return () => webSocket.terminate()
  })

const open = (place: Place, options: Options): Opened => {
  switch (place.kind) {
    case "unix":
      return openNet({ path: place.path })
    case "tcp":
      return openNet({ host: place.host, port: place.port, noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveMillis })
    case "webSocket":
      return Effect.flatMap(Effect.promise(() => import("@effect/platform-node/NodeWS")), ({ WebSocket }) => openWebSocket(WebSocket, place.url, options))
  }
}

/**
 * Opens a connection until the scope closes. Fails with `PayloadInvalid` where the URL is none, with `ConnectionLost { unsent: true }`
 * where nobody accepts, and with `Unauthenticated` where that says that it does not know the token.
 */
export const dial = Effect.fnUntraced(function*(url: string, options: Options) {
  const place = yield* Effect.mapError(Effect.fromResult(placeOf(url)), KsiError.make)
  const { connectTimeout = "10 seconds", token } = options
  const transport = yield* open(place, options).pipe(
    Effect.timeoutOrElse({
      duration: connectTimeout,
      orElse: () => Effect.fail(`it did not accept within ${Duration.format(Duration.fromInputUnsafe(connectTimeout))}`)
    }),
    Effect.mapError((problem) =>
      KsiError.is(problem) ? problem : KsiError.make(new KsiError.ConnectionLost({ address: addressOf(url), problem, unsent: true })))
  )
  const dialled: Dialled = { transport, isPresented: place.kind === "webSocket" && token !== undefined }
  return dialled
})
