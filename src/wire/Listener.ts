/**
 * Where clients find a daemon: a Unix socket in a directory that only its owner can enter, and TCP for those with a token.
 *
 * The rule: whoever can open the socket is `owner` (a token makes them less), so the directory is closed (0700) before the
 * socket exists. A socket that a dead daemon left behind is removed, a live daemon's is never touched. Over TCP, whoever
 * connects is `anonymous`, who may only greet: a valid token makes them its bearer, and who shows none within `headerMillis` is gone.
 *
 * **Example**
 *
 * ```ts
 * const context = yield* Layer.build(Listener.layerUnix({ path: "var/run/daemon.sock" }))
 * const listener = Context.get(context, Listener.Listener)
 * listener.connections()                      // 0
 * ```
 *
 * **Gotchas** Two daemons that start at the same moment on one path are kept apart by the lock of their home, not by
 * the socket. A client that shuts down its half of the connection still gets its answers. TCP is not encrypted: who can read
 * the network reads the token.
 *
 * It stands on node:net and not on effect's SocketServer: that one closes its connections when it stops accepting, and
 * loads a WebSocket server.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import { Buffer } from "node:buffer"
import * as Fs from "node:fs/promises"
import * as Net from "node:net"
import * as Path from "node:path"
import type { Router } from "../bus/Router.ts"
import type { Subscriptions } from "../bus/Subscription.ts"
import { anonymous, owner } from "../event/Grant.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits, type LimitsShape } from "../event/Limits.ts"
import * as Connection from "./Connection.ts"
import * as Frame from "./Frame.ts"
import { keepAliveMillis, NetTransport } from "./internal/NetTransport.ts"

// ------------------------------------------------------------------------------------------------------------- models

/** Where and how to listen on a Unix socket. */
export interface UnixOptions {
  /** At most 107 bytes. */
  readonly path: string
  /** How long requests may still run when the layer closes, before they are interrupted. Default: not at all. */
  readonly drain?: Duration.Input | undefined
}

/** Where and how to listen on TCP. */
export interface TcpOptions {
  /** Default: `127.0.0.1`. */
  readonly host?: string | undefined
  /** 0 takes a free one. */
  readonly port: number
  /** How long requests may still run when the layer closes, before they are interrupted. Default: not at all. */
  readonly drain?: Duration.Input | undefined
}

// ------------------------------------------------------------------------------------------------------------ service

/** A place where clients connect. */
export class Listener extends Context.Service<Listener, {
  /** The path of the socket, or as `tcp://127.0.0.1:4601`. */
  readonly address: string
  /** How many connections are open. */
  readonly connections: () => number
}>()("ksi/wire/Listener") {}

// -------------------------------------------------------------------------------------------------------------- place

const maxPathBytes = 107

const failed = (address: string, problem: string, taken = false) =>
  KsiError.make(new KsiError.ListenFailed({ address, problem, taken }))

const trying = <A>(path: string, what: string, run: () => Promise<A>): Effect.Effect<A, KsiError.KsiError> =>
  Effect.tryPromise({
    try: run,
    catch: (cause) => failed(path, `${what} (${KsiError.sentenceOf(cause)})`)
  })

const codeOf = (error: Error): unknown => Reflect.get(error, "code")

/** Whether somebody accepts connections at the path; touches nothing. Fails with `ListenFailed` where it cannot be asked. */
export const probe = (path: string): Effect.Effect<"alive" | "stale" | "absent", KsiError.KsiError> =>
  Effect.callback((resume) => {
    const socket = Net.connect(path)
    socket.on("connect", () => {
      socket.destroy()
      resume(Effect.succeed("alive"))
    })
    socket.on("error", (error) => {
      const code = codeOf(error)
      if (code === "ENOENT") return resume(Effect.succeed("absent"))
      if (code === "ECONNREFUSED") return resume(Effect.succeed("stale"))
      resume(Effect.fail(failed(path, `what is there cannot be asked (${error.message})`)))
    })
    return Effect.sync(() => socket.destroy())
  })

/** Closes the directory to everybody else; it is made where it does not exist. */
const closeDirectory = Effect.fnUntraced(function*(path: string) {
  const directory = Path.dirname(path)
  yield* trying(path, "its directory cannot be made", () => Fs.mkdir(directory, { recursive: true, mode: 0o700 }))
  const { mode } = yield* trying(path, "its directory cannot be read", () => Fs.stat(directory))
  if ((mode & 0o1000) !== 0) {
    return yield* Effect.fail(failed(path, `${directory} is shared by everybody; choose a directory of its own`))
  }
  if ((mode & 0o777) !== 0o700) {
    yield* trying(path, "its directory cannot be closed to others", () => Fs.chmod(directory, 0o700))
  }
})

/** Fails with `ListenFailed` where a path is too long for a socket; touches nothing. */
export const checkPath = (path: string): Effect.Effect<void, KsiError.KsiError> => {
  const bytes = Buffer.byteLength(path)
  return bytes > maxPathBytes
    ? Effect.fail(failed(path, `the path has ${bytes} bytes, a Unix socket's has at most ${maxPathBytes}`))
    : Effect.void
}

/** Whether there is nothing at the path, not even a link. */
const isFree = (path: string) =>
  Effect.promise(() => Fs.lstat(path).then(() => false, (cause: Error) => codeOf(cause) === "ENOENT"))

const makeRoom = Effect.fnUntraced(function*(path: string) {
  yield* checkPath(path)
  yield* closeDirectory(path)
  const found = yield* probe(path)
  if (found === "absent") {
    if (yield* isFree(path)) return
    return yield* Effect.fail(failed(path, "there is a symbolic link that leads nowhere; remove it"))
  }
  if (found === "alive") return yield* Effect.fail(failed(path, "a daemon listens there already", true))
  const stat = yield* trying(path, "what is there cannot be read", () => Fs.lstat(path))
  if (!stat.isSocket()) return yield* Effect.fail(failed(path, "there is a file that is not a socket"))
  yield* trying(path, "a stale socket cannot be removed", () => Fs.unlink(path))
})

const problems: { readonly [code: string]: string } = {
  EADDRINUSE: "the port is in use", EACCES: "this user may not listen on it", EADDRNOTAVAIL: "this machine does not have that address",
  ENOTFOUND: "nobody knows that name"
}

const listen = (server: Net.Server, address: string, place: Net.ListenOptions): Effect.Effect<void, KsiError.KsiError> =>
  Effect.callback((resume) => {
    const refused = (error: Error) => {
      const said = place.path === undefined ? problems[String(codeOf(error))] : undefined
      resume(Effect.fail(failed(address, said ?? error.message, codeOf(error) === "EADDRINUSE")))
    }
    server.once("error", refused)
    server.listen(place, () => {
      server.off("error", refused)
      resume(Effect.void)
    })
  })

// ---------------------------------------------------------------------------------------------------------- accepting

type Serve = (transport: NetTransport, greeted: ((principal: string) => void) | undefined) => Effect.Effect<void>

type Fork = (effect: Effect.Effect<void>) => Fiber.Fiber<void>

/** Closes connections whose tokens are not valid, or do not come: told of a connection, and of who it is. */
const makePatience = ({ headerMillis }: LimitsShape, clock: Clock.Clock, fork: Fork) => (socket: Net.Socket) => {
  let waiting: Fiber.Fiber<void> | undefined
  const reason = new KsiError.Unauthenticated({ problem: `no valid token came within ${headerMillis} ms` })
  const close = Effect.sync(() => {
    socket.write(Frame.encodeUnreadable({ reason, event: undefined, correlationId: undefined }, clock.currentTimeMillisUnsafe()))
    // Whether it reads or not.
    socket.destroy()
  })
  const greeted = (principal: string): void => {
    if (principal === anonymous) {
      waiting ??= fork(Effect.delay(close, headerMillis))
      return
    }
    waiting?.interruptUnsafe()
    waiting = undefined
  }
  greeted(anonymous)
  socket.on("close", () => waiting?.interruptUnsafe())
  return greeted
}

/** The open connections of a server, and what becomes of a new one. */
const makeAccepting = Effect.fnUntraced(function*(server: Net.Server, serve: Serve, hasStrangers: boolean) {
  const limits = yield* Limits
  const { connections: max } = limits
  const clock = yield* Clock.Clock
  const fork = yield* FiberSet.makeRuntime()
  const patience = hasStrangers ? makePatience(limits, clock, fork) : undefined
  const open = new Set<NetTransport>()
  let idle: (() => void) | undefined

  const refuse = (socket: Net.Socket): void => {
    const reason = new KsiError.LimitExceeded({ limit: "connections", max, retryable: true })
    socket.on("error", () => socket.destroy())
    const line = Frame.encodeUnreadable({ reason, event: undefined, correlationId: undefined }, clock.currentTimeMillisUnsafe())
    socket.end(line, () => socket.destroy())
  }

  server.on("connection", (socket) => {
    if (open.size >= max) return refuse(socket)
    const transport = new NetTransport(socket)
    open.add(transport)
    const greeted = patience?.(socket)
    // Not before the bytes of its last answers have left, however slowly they are read.
    socket.on("close", () => {
      open.delete(transport)
      if (open.size === 0) idle?.()
    })
    transport.begin(() => void fork(Effect.ensuring(serve(transport, greeted), Effect.sync(() => transport.close()))))
  })

  const empty = Effect.callback<void>((resume) => {
    if (open.size === 0) return resume(Effect.void)
    idle = () => resume(Effect.void)
  })
  const destroy = Effect.sync(() => {
    for (const transport of open) transport.destroy()
  })
  const drain = Effect.suspend(() => {
    for (const transport of open) transport.stop()
    return empty
  })
  /** A connection that could not be accepted (too many open files) must not end the process. */
  const logErrors = Effect.sync(() => {
    server.on("error", (error) => void fork(Effect.logError("a connection could not be accepted", error)))
  })
  return { connections: () => open.size, destroy, drain, logErrors }
})

// -------------------------------------------------------------------------------------------------------------- layer

/** Listens, and closes with the scope; `principal` is who connects. */
const makeListening = Effect.fnUntraced(function*(
  address: string, place: Net.ListenOptions, principal: string, drain: Duration.Input | undefined
) {
  const context = yield* Effect.context<Router | Subscriptions>()
  const shared = (yield* Connection.Shared) ?? Connection.makeShared(yield* Limits)
  const serve: Serve = (transport, greeted) => Effect.provideContext(Connection.run(transport, { principal, shared, greeted }), context)
  // What is said of TCP is nothing to a Unix socket.
  const server = Net.createServer({ allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveMillis })
  // Closed last: its connections have ended by then, gently or not. Node removes a Unix socket's file.
  let destroy: Effect.Effect<void> = Effect.void
  let closed: Promise<void> | undefined
  const stopAccepting = Effect.sync(() => {
    closed ??= new Promise((resolve) => server.close(() => resolve()))
  })
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => Effect.andThen(destroy, Effect.andThen(stopAccepting, Effect.promise(() => closed ?? Promise.resolve())))))
  const accepting = yield* makeAccepting(server, serve, principal === anonymous)
  destroy = accepting.destroy
  yield* Effect.addFinalizer(() =>
    Effect.andThen(stopAccepting, drain === undefined ? Effect.void : Effect.ignore(Effect.timeout(accepting.drain, drain)))
  )
  yield* listen(server, address, place)
  yield* accepting.logErrors
  return { server, connections: accepting.connections }
})

const makeUnix = Effect.fnUntraced(function*({ drain, path }: UnixOptions) {
  yield* makeRoom(path)
  const { connections } = yield* makeListening(path, { path }, owner, drain)
  yield* trying(path, "the socket cannot be closed to others", () => Fs.chmod(path, 0o600))
  return Listener.of({ address: path, connections })
})

/** A host as a URL has it. */
const inUrl = (host: string): string => host.includes(":") ? `[${host}]` : host

const makeTcp = Effect.fnUntraced(function*({ drain, host: given = "127.0.0.1", port: wanted }: TcpOptions) {
  const host = given.replace(/^\[|\]$/g, "")
  const { connections, server } = yield* makeListening(`tcp://${inUrl(host)}:${wanted}`, { host, port: wanted }, anonymous, drain)
  // Of a server that listens on a port.
  const { port } = server.address() as Net.AddressInfo
  return Listener.of({ address: `tcp://${inUrl(host)}:${port}`, connections })
})

/**
 * Listens on a Unix socket; everyone who connects is `owner`, until a token says otherwise. Serve `Control.layer` beside
 * it, so that clients can subscribe. Closing it stops accepting, lets requests run for `drain`, then interrupts them; the socket's file is gone
 * afterwards. Fails with `ListenFailed`.
 */
export const layerUnix = (options: UnixOptions): Layer.Layer<Listener, KsiError.KsiError, Router | Subscriptions> =>
  Layer.effect(Listener, makeUnix(options))

/**
 * Listens on TCP; everyone who connects is `anonymous` until a token says otherwise, and is gone where none does within
 * `headerMillis`. Closing it is as with `layerUnix`. Fails with `ListenFailed`, as where the port is in use.
 */
export const layerTcp = (options: TcpOptions): Layer.Layer<Listener, KsiError.KsiError, Router | Subscriptions> =>
  Layer.effect(Listener, makeTcp(options))
