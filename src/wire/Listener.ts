/**
 * Where clients find a daemon: a Unix socket in a directory that only its owner can enter.
 *
 * The rule: whoever can open the socket is `owner` (a token makes them less), so the directory is closed (0700) before the
 * socket exists. A socket that a dead daemon left behind is removed, a live daemon's is never touched.
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
 * the socket. A client that shuts down its half of the connection still gets its answers.
 *
 * It stands on node:net and not on effect's SocketServer: that one closes its connections when it stops accepting, and
 * loads a WebSocket server.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import { Buffer } from "node:buffer"
import * as Fs from "node:fs/promises"
import * as Net from "node:net"
import * as Path from "node:path"
import type { Router } from "../bus/Router.ts"
import type { Subscriptions } from "../bus/Subscription.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import * as Connection from "./Connection.ts"
import * as Frame from "./Frame.ts"
import { NetTransport } from "./internal/NetTransport.ts"

// ------------------------------------------------------------------------------------------------------------- models

/** Where and how to listen on a Unix socket. */
export interface UnixOptions {
  /** At most 107 bytes. */
  readonly path: string
  /** How long requests may still run when the layer closes, before they are interrupted. Default: not at all. */
  readonly drain?: Duration.Input | undefined
}

// ------------------------------------------------------------------------------------------------------------ service

/** A place where clients connect. */
export class Listener extends Context.Service<Listener, {
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

const listen = (server: Net.Server, path: string): Effect.Effect<void, KsiError.KsiError> =>
  Effect.callback((resume) => {
    const refused = (error: Error) => resume(Effect.fail(failed(path, error.message, codeOf(error) === "EADDRINUSE")))
    server.once("error", refused)
    server.listen(path, () => {
      server.off("error", refused)
      resume(Effect.void)
    })
  })

// ---------------------------------------------------------------------------------------------------------- accepting

type Serve = (transport: NetTransport) => Effect.Effect<void>

/** The open connections of a server, and what becomes of a new one. */
const makeAccepting = Effect.fnUntraced(function*(server: Net.Server, serve: Serve) {
  const { connections: max } = yield* Limits
  const clock = yield* Clock.Clock
  const fork = yield* FiberSet.makeRuntime()
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
    // Not before the bytes of its last answers have left, however slowly they are read.
    socket.on("close", () => {
      open.delete(transport)
      if (open.size === 0) idle?.()
    })
    transport.begin(() => void fork(Effect.ensuring(serve(transport), Effect.sync(() => transport.close()))))
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

const makeUnix = Effect.fnUntraced(function*({ drain, path }: UnixOptions) {
  yield* makeRoom(path)
  const context = yield* Effect.context<Router | Subscriptions>()
  const shared = (yield* Connection.Shared) ?? Connection.makeShared(yield* Limits)
  const serve: Serve = (transport) => Effect.provideContext(Connection.run(transport, { principal: "owner", shared }), context)
  const server = Net.createServer({ allowHalfOpen: true })
  // Closed last: its connections have ended by then, gently or not. Node removes the socket's file.
  let destroy: Effect.Effect<void> = Effect.void
  let closed: Promise<void> | undefined
  const stopAccepting = Effect.sync(() => {
    closed ??= new Promise((resolve) => server.close(() => resolve()))
  })
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => Effect.andThen(destroy, Effect.andThen(stopAccepting, Effect.promise(() => closed ?? Promise.resolve())))))
  const accepting = yield* makeAccepting(server, serve)
  destroy = accepting.destroy
  yield* Effect.addFinalizer(() =>
    Effect.andThen(stopAccepting, drain === undefined ? Effect.void : Effect.ignore(Effect.timeout(accepting.drain, drain)))
  )
  yield* listen(server, path)
  yield* accepting.logErrors
  yield* trying(path, "the socket cannot be closed to others", () => Fs.chmod(path, 0o600))
  return Listener.of({ address: path, connections: accepting.connections })
})

/**
 * Listens on a Unix socket; everyone who connects is `owner`, until a token says otherwise. Serve `Control.layer` beside
 * it, so that clients can subscribe. Closing it stops accepting, lets requests run for `drain`, then interrupts them; the socket's file is gone
 * afterwards. Fails with `ListenFailed`.
 */
export const layerUnix = (options: UnixOptions): Layer.Layer<Listener, KsiError.KsiError, Router | Subscriptions> =>
  Layer.effect(Listener, makeUnix(options))
