/**
 * The daemon over HTTP and WebSocket: every event at `POST /events/{name}` (one that is answered by a stream as server-sent events
 * or lines, where `Accept` says so), what there is to ask at `GET /events`, following at `GET /subscribe` (server-sent events), the
 * wire itself at `/ws`, and how it is at `/health/live`, `/health/ready` and `/metrics`.
 *
 * The rule: this is a skin. A request becomes an envelope whose principal is bound to who asks (`local-http`, the bearer of a
 * token, or `owner` with the token in `run/http.token`), and goes through the one door that all others go through. Before
 * that, `HttpGuard` turns away what a foreign web page may have made.
 *
 * **Example**
 *
 * ```ts
 * const listening = Layer.build(Http.layer({ port: 0 }))
 * const { url } = Context.get(yield* listening, Http.Http)
 * const answer = yield* Effect.promise(() => fetch(`${url}/health/live`))
 * answer.status                               // 200
 * ```
 *
 * **Gotchas** On an address that is no loopback address everybody needs a token, but for the two questions of health. An
 * answer is not compressed. A WebSocket message that is longer than `frameBytes` ends its connection (code 1009); over the Unix
 * socket it is answered.
 *
 * Source: RFC 9110, RFC 9457; interfaces of the original had no HTTP.
 */
import type { WebSocketServer } from "@effect/platform-node/NodeWS"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { createHash, timingSafeEqual } from "node:crypto"
import * as NodeHttp from "node:http"
import type { AddressInfo } from "node:net"
import type { Duplex } from "node:stream"
import { Authorizer, type AuthorizerShape } from "../bus/Authorizer.ts"
import { Router } from "../bus/Router.ts"
import { Subscriptions } from "../bus/Subscription.ts"
import * as EventPattern from "../event/EventPattern.ts"
import { localHttp, owner } from "../event/Grant.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits, type LimitsShape } from "../event/Limits.ts"
import * as System from "../plugins/System.ts"
import * as Connection from "../wire/Connection.ts"
import { WebSocketTransport } from "../wire/internal/WebSocketTransport.ts"
import * as HttpGuard from "./HttpGuard.ts"
import { Http, type Options } from "./internal/address.ts"
import * as Calls from "./internal/calls.ts"
import * as Connections from "./internal/connections.ts"
import * as Events from "./internal/events.ts"
import { answer, type Exchange, type Fork, refuse, write } from "./internal/exchange.ts"
import * as Metrics from "./Metrics.ts"
import * as Problem from "./Problem.ts"

// ------------------------------------------------------------------------------------------------------------- models

export { Http, type Options }

// ----------------------------------------------------------------------------------------------------------- identity

const digest = (text: string): Uint8Array => createHash("sha256").update(text).digest()

/** Who asks, by the headers. */
const makeIdentify = (authorizer: AuthorizerShape, host: string, ownerToken: string | undefined) => {
  const secret = ownerToken === undefined ? undefined : digest(ownerToken)
  const isOpen = HttpGuard.isLoopback(host)
  const unknown = (problem: string) => Result.fail(new KsiError.Unauthenticated({ problem }))
  return ({ authorization }: NodeHttp.IncomingHttpHeaders): Result.Result<string, KsiError.Unauthenticated> => {
    if (authorization === undefined) return isOpen ? Result.succeed(localHttp) : unknown("this address answers nobody without a token")
    const [, token] = /^bearer +(\S+) *$/i.exec(authorization) ?? []
    if (token === undefined) return unknown("the Authorization header is not \"Bearer <token>\"")
    if (secret !== undefined && timingSafeEqual(digest(token), secret)) return Result.succeed(owner)
    return authorizer.authenticate(token)
  }
}

// ------------------------------------------------------------------------------------------------------------ routing

const eventsPath = "/events/"
const places: ReadonlySet<string> = new Set(["/events", "/subscribe", "/ws", "/metrics"])
const health: ReadonlySet<string> = new Set(["/health/live", "/health/ready"])

interface Site {
  readonly guard: (headers: NodeHttp.IncomingHttpHeaders) => HttpGuard.Refusal | undefined
  readonly identify: ReturnType<typeof makeIdentify>
  readonly calls: ReturnType<typeof Calls.make>
  /** Follows events until the other side goes. */
  readonly follow: (exchange: Exchange) => void
  /** Answers with the figures of the runtime. */
  readonly figures: (exchange: Exchange) => void
  readonly isReady: () => boolean
}

const isRead = (method: string): boolean => method === "GET" || method === "HEAD"

const notAllowed = (response: NodeHttp.ServerResponse, path: string, allow: string): void =>
  refuse(response, Problem.make("MethodNotAllowed", `${path} takes ${allow}`, { allow }))

const stopping = Problem.make("Interrupted", "the daemon is stopping", { retryable: true })

/** How the daemon is; whoever watches it has no token. */
const tell = ({ isReady }: Site, response: NodeHttp.ServerResponse, path: string, method: string): void => {
  if (!isRead(method)) return notAllowed(response, path, "GET")
  if (path === "/health/live") return answer(response, 200, { status: "live" })
  if (isReady()) return answer(response, 200, { status: "ready" })
  refuse(response, stopping)
}

const nowhere = (path: string): Problem.Problem =>
  Problem.make("NotFound", `there is no ${JSON.stringify(path.slice(0, 80))} here`, { next: "GET /events" })

const get = ({ calls, figures, follow }: Site, exchange: Exchange): void => {
  const { path, response, search } = exchange
  if (path === "/metrics") return figures(exchange)
  if (path === "/subscribe") return follow(exchange)
  if (path === "/events") {
    const { pattern = "*", ...others } = Object.fromEntries(new URLSearchParams(search))
    const [stranger] = Object.keys(others)
    if (stranger !== undefined) return refuse(response, Problem.ofReason(KsiError.invalidAt("system:discover", stranger, "expected pattern only")))
    return calls.ask(exchange, "system:discover", { pattern: EventPattern.said(pattern), level: "events" })
  }
  if (path === "/ws") return refuse(response, Problem.make("UpgradeRequired", "this is a WebSocket", { next: "connect with a WebSocket client" }))
  refuse(response, nowhere(path))
}

/** The name in a path below `/events/`; `undefined` where it is none. */
const nameIn = (path: string): string | undefined => {
  try {
    const name = decodeURIComponent(path.slice(eventsPath.length))
    return name === "" ? undefined : name
  } catch {
    return undefined
  }
}

/** Sends one exchange where it belongs. */
const route = (site: Site, exchange: Exchange, method: string): void => {
  const { calls } = site
  const { path, response } = exchange
  if (!path.startsWith(eventsPath)) return isRead(method) || !places.has(path) ? get(site, exchange) : notAllowed(response, path, "GET")
  const name = nameIn(path)
  if (name === undefined) return refuse(response, nowhere(path))
  if (method === "POST") return calls.post(exchange, name)
  if (isRead(method)) return calls.ask(exchange, "system:help", { event: name })
  notAllowed(response, path, "GET, POST")
}

const foreign = ({ detail, next, reason }: HttpGuard.Refusal) => Problem.make(reason, detail, { next })

/** Where a request wants to go; `undefined` where its target is none of ours. */
const targetOf = (url: string | undefined): { readonly path: string; readonly search: string } | undefined => {
  if (url === undefined || !url.startsWith("/")) return undefined
  const at = url.indexOf("?")
  return at < 0 ? { path: url, search: "" } : { path: url.slice(0, at), search: url.slice(at) }
}

/** Answers one request, or has it answered. */
const serve = (site: Site, request: NodeHttp.IncomingMessage, response: NodeHttp.ServerResponse): void => {
  const { headers, method = "GET" } = request
  const target = targetOf(request.url)
  const refused = site.guard(headers)
  // Who watches the process asks it by its address, and learns nothing but that it is there.
  const isWatching = refused?.reason === "ForeignHost" && target !== undefined && health.has(target.path)
  if (refused !== undefined && !isWatching) return refuse(response, foreign(refused))
  if (target === undefined) return refuse(response, nowhere(request.url ?? ""))
  const { path, search } = target
  if (health.has(path)) return tell(site, response, path, method)
  if (!site.isReady()) return refuse(response, stopping)
  const who = site.identify(headers)
  if (Result.isFailure(who)) return refuse(response, Problem.ofReason(who.failure))
  route(site, { request, response, path, search, principal: who.success }, method)
}

/** The figures, for whoever may ask how the runtime is. */
const makeFigures = (
  authorizer: AuthorizerShape, metrics: Option.Option<Metrics.Metrics["Service"]>, fork: Fork
): Site["figures"] => ({ path, principal, response }) => {
  const { name } = System.Health
  // A program may have none.
  if (Option.isNone(metrics)) return refuse(response, nowhere(path))
  const { text } = metrics.value
  if (!authorizer.allows(principal, "call", name)) return refuse(response, Problem.ofReason(authorizer.refusal(principal, "call", name), principal))
  fork(Effect.map(text, (figures) => write(response, 200, Metrics.contentType, figures)))
}

// --------------------------------------------------------------------------------------------------------- WebSockets

// How long the other side may take to answer that it is the end.
const closeMillis = 1000

type Run = (transport: WebSocketTransport, principal: string) => Effect.Effect<void>

/** The open WebSockets of a server. */
const makeWebSockets = Effect.fnUntraced(function*(site: Site, { frameBytes, idleMillis }: LimitsShape, run: Run) {
  const fork = yield* FiberSet.makeRuntime()
  const transports = new Set<WebSocketTransport>()
  // Loaded when somebody wants one: it is the only dependency beside node itself.
  let server: Promise<WebSocketServer> | undefined
  const settings = { noServer: true, maxPayload: frameBytes, perMessageDeflate: false, clientTracking: false, closeTimeout: closeMillis }
  const load = () => import("@effect/platform-node/NodeWS").then(({ WebSocketServer }) => new WebSocketServer(settings))

  const accept = async (request: NodeHttp.IncomingMessage, stream: Duplex, head: Buffer, principal: string): Promise<void> => {
    server ??= load()
    const upgrading = await server
    // Meanwhile it may have been told to stop.
    if (!site.isReady()) return Connections.endWith(stream, stopping)
    upgrading.handleUpgrade(request, stream, head, (webSocket) => {
      const transport = new WebSocketTransport(webSocket, stream)
      transports.add(transport)
      stream.on("close", () => transports.delete(transport))
      fork(Effect.ensuring(run(transport, principal), Effect.sync(() => transport.close())))
    })
  }
  yield* Effect.forkScoped(Effect.forever(Effect.delay(Effect.sync(() => transports.forEach((transport) => transport.check())), idleMillis / 2)))
  return {
    upgrade: (request: NodeHttp.IncomingMessage, stream: Duplex, head: Buffer): void => {
      stream.on("error", () => stream.destroy())
      const refused = site.guard(request.headers)
      if (refused !== undefined) return Connections.endWith(stream, foreign(refused))
      if (!site.isReady()) return Connections.endWith(stream, stopping)
      const who = site.identify(request.headers)
      if (Result.isFailure(who)) return Connections.endWith(stream, Problem.ofReason(who.failure))
      accept(request, stream, head, who.success).catch(() => stream.destroy())
    },
    stop: () => transports.forEach((transport) => transport.stop())
  }
})

// ------------------------------------------------------------------------------------------------------------- server

const isWebSocket = ({ headers: { upgrade }, url }: NodeHttp.IncomingMessage): boolean =>
  upgrade?.toLowerCase() === "websocket" && targetOf(url)?.path === "/ws"

const createServer = ({ bodyMillis, headerBytes, headerMillis, idleMillis }: LimitsShape): NodeHttp.Server =>
  NodeHttp.createServer({
    maxHeaderSize: headerBytes,
    headersTimeout: Math.min(headerMillis, bodyMillis),
    requestTimeout: bodyMillis,
    keepAliveTimeout: idleMillis,
    connectionsCheckingInterval: Math.max(10, Math.min(headerMillis / 4, 1000)),
    keepAlive: true,
    keepAliveInitialDelay: 30_000,
    // What is given twice is neither of the two: whoever stands before this server may have looked at the other one.
    joinDuplicateHeaders: true,
    // Who asks for another protocol is answered in this one.
    shouldUpgradeCallback: isWebSocket
  })

const listen = (server: NodeHttp.Server, host: string, port: number): Effect.Effect<number, KsiError.KsiError> =>
  Effect.callback((resume) => {
    const address = `http://${HttpGuard.inUrl(host)}:${port}`
    const refused = (error: NodeJS.ErrnoException) => {
      const taken = error.code === "EADDRINUSE"
      resume(KsiError.fail(new KsiError.ListenFailed({ address, problem: taken ? "the port is in use" : error.message, taken })))
    }
    server.once("error", refused)
    server.listen(port, host.replace(/^\[|\]$/g, ""), () => {
      server.off("error", refused)
      // Of a server that listens on a port.
      resume(Effect.succeed((server.address() as AddressInfo).port))
    })
  })

// -------------------------------------------------------------------------------------------------------------- layer

const make = Effect.fnUntraced(function*({ drain = 0, host = "127.0.0.1", hosts = [], ownerToken, port: wanted = 4600 }: Options) {
  const router = yield* Router
  const subscriptions = yield* Subscriptions
  const limits = yield* Limits
  const authorizer = yield* Authorizer
  const metrics = yield* Effect.serviceOption(Metrics.Metrics)
  const context = yield* Effect.context<Router | Subscriptions>()
  const fork = Effect.runForkWith(context)
  const shared = (yield* Connection.Shared) ?? Connection.makeShared(limits)
  const { budget } = shared
  const surroundings = yield* Effect.forkScoped(Effect.never)
  const calls = Calls.make({ router, authorizer, limits, budget, fork, surroundings })
  const server = createServer(limits)
  const connections = Connections.make(server, limits, fork)
  const following = yield* FiberSet.make<void>()
  const followIn = yield* FiberSet.runtime(following)<never>()
  let ready = false
  let guard: Site["guard"] = () => undefined

  const follow = (exchange: Exchange): void => {
    const fiber = followIn(Events.follow({ subscriptions, limits, budget }, exchange))
    exchange.response.on("close", () => fiber.interruptUnsafe())
  }
  const site: Site = {
    guard: (headers) => guard(headers), identify: makeIdentify(authorizer, host, ownerToken), calls, follow, isReady: () => ready,
    figures: makeFigures(authorizer, metrics, fork)
  }
  yield* Effect.addFinalizer(() => connections.destroy)
  const webSockets = yield* makeWebSockets(site, limits, (transport, principal) =>
    Effect.provideContext(Connection.run(transport, { principal, shared }), context))
  server.on("upgrade", (request: NodeHttp.IncomingMessage, stream: Duplex, head: Buffer) => {
    // What is owed in this protocol would be written into the other one.
    if (connections.leave(stream)) webSockets.upgrade(request, stream, head)
    else stream.destroy()
  })
  server.on("request", (request: NodeHttp.IncomingMessage, response: NodeHttp.ServerResponse) => {
    // One of many that came at once, on a connection that is broken by now: nobody would hear the answer.
    if (request.socket.destroyed) return
    if (!ready) response.setHeader("connection", "close")
    if (connections.begin(request, response)) serve(site, request, response)
    else refuse(response, Problem.ofReason(new KsiError.LimitExceeded({ limit: "connectionRequests", max: limits.connectionRequests, retryable: true })))
    // What nobody reads is thrown away: it must not hold up what comes after it.
    if (request.listenerCount("data") === 0) request.resume()
  })

  const endFollowing = FiberSet.clear(following)
  yield* Effect.addFinalizer(() => Effect.andThen(endFollowing, calls.interrupt))
  const stop = Effect.suspend(() => {
    ready = false
    webSockets.stop()
    return Effect.andThen(endFollowing, connections.drain)
  })
  yield* Effect.addFinalizer(() => Effect.ignore(Effect.timeout(stop, drain)))
  const port = yield* listen(server, host, wanted)
  // A connection that could not be accepted (too many open files) must not end the process.
  server.on("error", (error) => void fork(Effect.logError("a connection could not be accepted", error)))
  guard = HttpGuard.make({ host, port, hosts })
  ready = true
  return Http.of({ url: `http://${HttpGuard.inUrl(host)}:${port}`, connections: connections.count })
})

/**
 * Speaks HTTP. Closing it stops accepting, lets requests run for `drain`, then interrupts them. Fails with `ListenFailed`, as where
 * the port is in use.
 */
export const layer = (options: Options = {}): Layer.Layer<Http, KsiError.KsiError, Router | Subscriptions> =>
  Layer.effect(Http, make(options))
