// What a client is promised, over each way into a daemon: Unix socket, TCP and WebSocket. All sockets are real.
import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Logger, Stream } from "effect"
import * as Net from "node:net"
import * as Path from "node:path"
import { DeclaredFailure } from "../../src/bus/KsiService.ts"
import { serve } from "../../src/bus/Router.ts"
import * as Http from "../../src/server/Http.ts"
import { Permissions } from "../../src/store/Permissions.ts"
import * as Client from "../../src/wire/Client.ts"
import * as Control from "../../src/wire/Control.ts"
import * as Listener from "../../src/wire/Listener.ts"
import { runtime } from "../plugins/Builtins.ts"
import * as Daemon from "./Daemon.ts"
import * as Items from "./Items.ts"

type Way = "unix" | "tcp" | "ws"
const ways: ReadonlyArray<Way> = ["unix", "tcp", "ws"]

/** A daemon with one way in, and who may all that the tests do. */
const start = Effect.fnUntraced(function*(way: Way) {
  const counts = Daemon.makeCounts()
  const made = Items.makeMade()
  const app = Layer.mergeAll(
    serve(Daemon.Group).pipe(Layer.provide(Daemon.handlers(counts))), serve(Items.Group).pipe(Layer.provide(Items.handlers(made))), Control.layer
  ).pipe(Layer.provideMerge(runtime()))
  const context = yield* Layer.build(app)
  const { token } = yield* Context.get(context, Permissions).createToken({ by: "owner", profile: "trusted" })
  const path = Path.join(yield* Daemon.folder, "run", "daemon.sock")
  const built = way === "ws"
    ? Effect.map(Layer.build(Http.layer({ port: 0, hosts: ["127.0.0.1"] })), (http) => Context.get(http, Http.Http).url.replace("http:", "ws:"))
    : Effect.map(Layer.build(way === "tcp" ? Listener.layerTcp({ port: 0 }) : Listener.layerUnix({ path })), (listener) => Context.get(listener, Listener.Listener).address)
  const url = yield* Effect.provideContext(built, context)
  return { url, token, counts, made }
})

const connected = Effect.fnUntraced(function*(way: Way) {
  const daemon = yield* start(way)
  return { ...daemon, client: yield* Client.connect(daemon) }
})

/** Forwards bytes; whoever destroys its sockets breaks the network between the two. */
const proxy = Effect.fnUntraced(function*(url: string) {
  const place = url.startsWith("/") ? { path: url } : { host: new URL(url).hostname, port: Number(new URL(url).port) }
  const sockets: Array<Net.Socket> = []
  const server = Net.createServer((near) => {
    const far = Net.connect(place)
    sockets.push(near, far)
    for (const [from, to] of [[near, far], [far, near]] as const) from.on("error", () => to.destroy()).pipe(to)
  })
  yield* Effect.acquireRelease(Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))), () => Effect.sync(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  }))
  const { port } = server.address() as Net.AddressInfo
  return { sockets, url: `${url.startsWith("ws:") ? "ws" : "tcp"}://127.0.0.1:${port}` }
})

describe.each(ways)("over %s", (way) => {
  it.live("calls are answered, with values, declared errors, and defects", () =>
    Effect.gen(function*() {
      const { client } = yield* connected(way)
      expect((yield* client.call("t:echo", { value: "ä\n\u0000" })).data["result"]).toBe("ä\n\u0000")
      expect(yield* Effect.flip(client.call("t:refuse", { why: "no" }))).toBeInstanceOf(DeclaredFailure)
      expect(yield* Effect.flip(client.call("t:die", {}))).toMatchObject({ cause: "defect" })
      const many = yield* Effect.forEach(Array.from({ length: 300 }, (_, n) => n), (value) => client.call("t:later", { value }), { concurrency: "unbounded" })
      expect(many.map(({ data }) => data["result"])).toEqual(Array.from({ length: 300 }, (_, n) => n))
    }).pipe(Effect.provide(Logger.layer([]))))

  it.live("four mebibytes go and come", () =>
    Effect.gen(function*() {
      const { client } = yield* connected(way)
      const value = "x".repeat(4 * 1024 * 1024 - 1000)
      expect((yield* client.call("t:echo", { value })).data["result"] === value).toBe(true)
    }))

  it.live("streams have all items; one that is not read is made up to its buffer, and is cancelled when it is left", () =>
    Effect.gen(function*() {
      const { client, made } = yield* connected(way)
      expect(yield* Stream.runCollect(client.stream("s:count", { to: 5000, chunk: 7 }))).toEqual(Array.from({ length: 5000 }, (_, n) => n + 1))
      const began = Deferred.makeUnsafe<void>()
      const reader = yield* Effect.forkChild(Stream.runForEach(client.stream("s:endless", {}, { bufferSize: 10 }), () =>
        Effect.andThen(Deferred.succeed(began, undefined), Effect.never)))
      yield* Deferred.await(began)
      expect((yield* client.call("s:once", {})).data["result"]).toBe(1)
      expect(made.pulled).toBe(10)
      yield* Fiber.interrupt(reader)
      expect(made.finished).toBe(1)
    }))

  it.live("a subscription that is read slowly misses nothing", () =>
    Effect.gen(function*() {
      const { client } = yield* connected(way)
      const live = Deferred.makeUnsafe<void>()
      const seen = yield* Effect.forkChild(client.subscribe({ pattern: "t:happened", onSubscribed: () => Deferred.doneUnsafe(live, Effect.void) }).pipe(
        Stream.tap(() => Effect.yieldNow), Stream.take(500), Stream.runCollect
      ))
      yield* Deferred.await(live)
      yield* Effect.forEach(Array.from({ length: 500 }, (_, n) => n), (n) => client.call("t:happened", { n }), { concurrency: 32, discard: true })
      const positions = (yield* Fiber.join(seen)).map(({ position }) => position ?? 0)
      expect(positions).toHaveLength(500)
      expect(positions.every((position, at) => at === 0 || position > (positions[at - 1] ?? 0))).toBe(true)
    }))

  it.live("a network that breaks fails what was owed, and interrupts it over there", () =>
    Effect.gen(function*() {
      const { counts, token, url } = yield* start(way)
      const between = yield* proxy(url)
      const client = yield* Client.connect({ url: between.url, token })
      const call = yield* Effect.forkChild(Effect.flip(client.call("t:forever", {})))
      yield* Deferred.await(counts.some)
      for (const socket of between.sockets) socket.destroy()
      expect(yield* Fiber.join(call)).toMatchObject({ reason: { _tag: "ConnectionLost", unsent: false } })
      yield* Daemon.eventually(() => counts.interrupted === 1)
      expect(yield* Effect.flip(client.call("t:echo", { value: 1 }))).toMatchObject({ reason: { _tag: "ConnectionLost", unsent: true } })
    }))
})

describe("dialling", () => {
  const problem = (options: Client.ConnectOptions) =>
    Effect.map(Effect.flip(Client.connect(options)), ({ reason }) => `${reason._tag} ${reason.message}`)

  it.live.each([
    ["", "unix:"], ["unix:", "unix:"], ["localhost:4600", "tcp://host:port"], ["tcp://localhost", "tcp://host:port"], ["tcp://localhost:1/x", "tcp://host:port"],
    ["ftp://localhost", "got ftp:"], ["ws://", "no URL"], ["ws://a:secret@localhost", "token apart"], ["ws://localhost#x", "fragment"]
  ] as const)("%s is no place to dial", ([url, said]) =>
    Effect.gen(function*() {
      const told = yield* problem({ url })
      expect(told).toMatch(/^PayloadInvalid /)
      expect(told).toContain(said)
      expect(told).not.toContain("secret")
    }))

  /** A port that answers as the test says. */
  const serving = Effect.fnUntraced(function*(handle: (socket: Net.Socket) => void) {
    const open = new Set<Net.Socket>()
    const server = Net.createServer((socket) => {
      open.add(socket.on("error", () => {}))
      handle(socket)
    })
    yield* Effect.acquireRelease(Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))), () => Effect.sync(() => {
      for (const socket of open) socket.destroy()
      server.close()
    }))
    return (server.address() as Net.AddressInfo).port
  })

  it.live("says why nobody accepts", () =>
    Effect.gen(function*() {
      const silent = yield* serving((socket) => socket.resume())
      expect(yield* problem({ url: `ws://127.0.0.1:${silent}`, connectTimeout: 50 })).toContain("did not accept within 50ms")
      const { url } = yield* start("ws")
      expect(yield* problem({ url, token: "ksi_wrong" })).toMatch(/Unauthenticated .*not valid/)
      expect(yield* problem({ url: `${url}/elsewhere` })).toMatch(/it answered 404: there is no "\/elsewhere" here/)
      expect(yield* problem({ url: url.replace("ws:", "https:") })).toContain("does not speak TLS")
      const web = yield* serving((socket) => socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")))
      expect(yield* problem({ url: `http://127.0.0.1:${web}` })).toContain("it answered 200")
      const other = yield* serving((socket) => socket.once("data", () => socket.end("220 mail\r\n")))
      expect(yield* problem({ url: `ws://127.0.0.1:${other}` })).toContain("does not speak WebSocket")
    }))

  it.live("what is no frame ends the connection, and says so", () =>
    Effect.gen(function*() {
      const port = yield* serving((socket) => socket.once("data", () => socket.write("220 mail\n")))
      const client = yield* Client.connect({ url: `tcp://127.0.0.1:${port}` })
      expect(yield* Effect.flip(client.call("t:echo", {}))).toMatchObject({ reason: { _tag: "ConnectionLost", problem: expect.stringContaining("no frame") } })
    }))
})
