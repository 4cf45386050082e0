// Whether the other side is still there, and whether it still knows who asks. All sockets are real; the network between the two is a
// proxy that can swallow everything without closing anything, or break.
import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Logger, Schedule, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { KsiService } from "../../src/bus/KsiService.ts"
import { serve } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as Http from "../../src/server/Http.ts"
import { Permissions } from "../../src/store/Permissions.ts"
import * as Client from "../../src/wire/Client.ts"
import * as Control from "../../src/wire/Control.ts"
import * as Listener from "../../src/wire/Listener.ts"
import * as Remote from "../../src/wire/Remote.ts"
import { runtime } from "../plugins/Builtins.ts"
import * as Daemon from "./Daemon.ts"

type Way = "unix" | "tcp" | "ws"

// It fails as one does that has asked another daemon, with a token that is not valid there.
const Nested = Event.make("v:nested")
const Group = EventGroup.make(Nested)
const nested = Group.toLayer({ "v:nested": () => KsiError.fail(new KsiError.Unauthenticated({ problem: "elsewhere" })) })

/** A daemon with one way in, behind a proxy. */
const start = Effect.fnUntraced(function*(way: Way, limits: Partial<Limits.LimitsShape> = {}) {
  const counts = Daemon.makeCounts()
  const app = Layer.mergeAll(serve(Daemon.Group).pipe(Layer.provide(Daemon.handlers(counts))), serve(Group).pipe(Layer.provide(nested)), Control.layer)
    .pipe(Layer.provideMerge(runtime()))
  const context = yield* Layer.build(app)
  const permissions = Context.get(context, Permissions)
  const { id, token } = yield* permissions.createToken({ by: "owner", profile: "trusted" })
  const path = Path.join(yield* Daemon.folder, "run", "daemon.sock")
  const built = way === "ws"
    ? Effect.map(Layer.build(Http.layer({ port: 0, hosts: ["127.0.0.1"] })), (http) => Context.get(http, Http.Http).url.replace("http:", "ws:"))
    : Effect.map(Layer.build(way === "tcp" ? Listener.layerTcp({ port: 0 }) : Listener.layerUnix({ path })), (listener) => Context.get(listener, Listener.Listener).address)
  const direct = yield* built.pipe(Effect.provideContext(context), Effect.provideService(Limits.Limits, { ...Limits.defaults, ...limits }))
  return { counts, direct, revoke: permissions.revokeToken({ id, by: "owner" }), token, ...yield* proxied(direct) }
})

/** A network between the two that can fall silent, or break; `accepted` is how often somebody has dialled. */
const proxied = Effect.fnUntraced(function*(direct: string) {
  const place = direct.startsWith("/") ? { path: direct } : { host: new URL(direct).hostname, port: Number(new URL(direct).port) }
  const sockets: Array<Net.Socket> = []
  const seen = { accepted: 0, asked: 0 }
  let isSilent = false
  const server = Net.createServer((near) => {
    seen.accepted++
    const far = Net.connect(place)
    sockets.push(near, far)
    for (const [from, to] of [[near, far], [far, near]] as const) {
      from.on("error", () => to.destroy()).on("close", () => to.destroy()).on("data", (bytes) => {
        if (from === near && bytes.includes("wire:ping")) seen.asked++
        if (!isSilent) to.write(bytes)
      })
    }
  })
  yield* Effect.acquireRelease(Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))), () => Effect.sync(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  }))
  // Of a server that listens on a port.
  const { port } = server.address() as Net.AddressInfo
  return {
    seen, url: `${direct.startsWith("ws:") ? "ws" : "tcp"}://127.0.0.1:${port}`,
    fallSilent: () => {
      isSilent = true
    },
    cut: () => {
      for (const socket of sockets.splice(0)) socket.destroy()
    }
  }
})

const live = (name: string, test: Effect.Effect<void, unknown, Scope.Scope>) => it.live(name, () => test.pipe(Effect.scoped, Effect.provide(Logger.layer([]))))

const turns = (count: number): Effect.Effect<void> =>
  Effect.repeat(Effect.promise(() => new Promise((resolve) => void setImmediate(resolve))), { times: count }).pipe(Effect.asVoid)

describe.each(["unix", "tcp", "ws"] as const)("over %s", (way) => {
  live("a daemon that says nothing more is lost to whoever waits for it, though nobody has closed anything", Effect.gen(function*() {
    const { counts, fallSilent, token, url } = yield* start(way)
    const client = yield* Client.connect({ url, token: way === "unix" ? undefined : token, idle: 200 })
    const waiting = yield* Effect.forkChild(Effect.flip(client.call("t:forever", {})))
    yield* Deferred.await(counts.some)
    fallSilent()
    expect((yield* Fiber.join(waiting)).message).toContain("was lost: it has not answered for 100 ms, whether it is still there")
    expect(yield* client.closed).toContain("has not answered")
  }))
})

describe("a daemon", () => {
  live("that has nothing to say answers whether it is there, also who waits for others, and is not lost", Effect.gen(function*() {
    const { counts, seen, token, url } = yield* start("tcp", { connectionRequests: 1 })
    const client = yield* Client.connect({ url, token, idle: 60 })
    const over = yield* Effect.forkChild(client.closed)
    const running = yield* Effect.forkChild(client.call("t:forever", {}))
    yield* Deferred.await(counts.some)
    const waiting = yield* Effect.forkChild(client.call("t:echo", { value: 1 }))
    yield* Daemon.eventually(() => seen.asked >= 4)
    expect([over, running, waiting].map((fiber) => fiber.pollUnsafe())).toEqual([undefined, undefined, undefined])
  }))

  live("is asked only where it is silent", Effect.gen(function*() {
    const { seen, token, url } = yield* start("tcp")
    const client = yield* Client.connect({ url, token, idle: 1000 })
    for (let n = 0; n < 20; n++) yield* Effect.andThen(client.call("t:echo", { value: n }), Effect.sleep(30))
    expect(seen.asked).toBe(0)
  }))

  live("answers a ping to who is nobody yet, however it is written, and keeps no record of it", Effect.gen(function*() {
    const { direct } = yield* start("tcp")
    const plain = yield* Daemon.Plain.connect(Number(new URL(direct).port))
    plain.send({ event: "wire:ping" })
    plain.send({ correlation_id: "x", event: "wire:ping" })
    expect((yield* plain.received(2)).map(({ event }) => event)).toEqual(["wire:pong", "wire:pong"])
  }))

  // Only Linux shows the timers of its sockets.
  it.live.skipIf(!Fs.existsSync("/proc/net/tcp"))("and its client let the system ask over TCP whether the machine over there still is", () =>
    Effect.gen(function*() {
      for (const way of ["tcp", "ws"] as const) {
        const { direct, token } = yield* start(way)
        yield* Effect.flatMap(Client.connect({ url: direct, token }), (client) => client.call("t:echo", { value: 1 }))
        const port = Number(new URL(direct).port).toString(16).toUpperCase().padStart(4, "0")
        const kept = () => Fs.readFileSync("/proc/net/tcp", "utf8").split("\n").map((line) => line.trim().split(/\s+/))
          // Established, with a timer that is that of keep-alive.
          .filter(([, near, far, state, , timer]) => `${near} ${far}`.includes(`:${port}`) && state === "01" && timer?.startsWith("02:"))
        yield* Daemon.eventually(() => kept().length === 2)
      }
    }).pipe(Effect.scoped))
})

const stateOf = (remote: Remote.Remote["Service"], wanted: Remote.State["_tag"]) =>
  Effect.map(Stream.runHead(Stream.filter(remote.states, ({ _tag }) => _tag === wanted)), (found) => found._tag === "Some" ? found.value : undefined)

describe.each(["tcp", "ws"] as const)("a token over %s", (way) => {
  /** What a program has, and asks with. */
  const remote = (options: Remote.Options) =>
    Effect.map(Layer.build(Ksi.layerRemote(options)), (context) => ({ ksi: Context.get(context, KsiService), remote: Context.get(context, Remote.Remote) }))
  const isUnauthenticated = (error: unknown) => KsiError.is(error) && error.reason._tag === "Unauthenticated"

  live("that is not valid ends the connection of a program for good, with an error that says so", Effect.gen(function*() {
    const { seen, url } = yield* start(way)
    const built = yield* Effect.result(remote({ url, token: "ksi_no", reconnect: Schedule.spaced("1 millis") }))
    if (way === "ws") {
      expect(built._tag === "Failure" && isUnauthenticated(built.failure)).toBe(true)
    } else if (built._tag === "Success") {
      const { ksi, remote } = built.success
      const state = yield* stateOf(remote, "closed")
      expect(state?._tag === "closed" && isUnauthenticated(state.error)).toBe(true)
      expect(isUnauthenticated(yield* Effect.flip(ksi.call(Daemon.Nothing, {})))).toBe(true)
      expect(isUnauthenticated(yield* Effect.flip(Stream.runDrain(ksi.subscribe("t:*"))))).toBe(true)
    } else expect.fail(String(built.failure))
    yield* Effect.sleep(50)
    expect(seen.accepted).toBe(1)
  }))

  live("that is revoked ends it too: what is followed, what is asked, and it is not tried again", Effect.gen(function*() {
    const { revoke, seen, token, url } = yield* start(way)
    const { ksi, remote: connection } = yield* remote({ url, token, reconnect: Schedule.spaced("1 millis") })
    const following = yield* Effect.forkChild(Effect.flip(Stream.runDrain(ksi.subscribe("t:*"))))
    yield* ksi.call(Daemon.Nothing, {})
    yield* turns(20)
    yield* revoke
    expect(isUnauthenticated(yield* Fiber.join(following))).toBe(true)
    const state = yield* stateOf(connection, "closed")
    expect(state?._tag === "closed" && isUnauthenticated(state.error)).toBe(true)
    expect(isUnauthenticated(yield* Effect.flip(ksi.call(Daemon.Nothing, {})))).toBe(true)
    const { accepted } = seen
    yield* Effect.sleep(50)
    expect(seen.accepted).toBe(accepted)
  }))

  live("is not taken for one that is not valid where only a handler says so of another one", Effect.gen(function*() {
    const { seen, token, url } = yield* start(way)
    const client = yield* Client.connect({ url, token })
    expect(isUnauthenticated(yield* Effect.flip(client.call("v:nested", {})))).toBe(true)
    // It has been shown again: where WebSockets are opened, or in a greeting.
    if (way === "ws") yield* Daemon.eventually(() => seen.accepted === 2)
    expect((yield* client.call("t:echo", { value: 1 })).data).toMatchObject({ result: 1 })
    expect(isUnauthenticated(yield* Effect.flip(client.call("v:nested", {})))).toBe(true)
    expect((yield* client.call("t:echo", { value: 2 })).data).toMatchObject({ result: 2 })
  }))

  live("that is revoked while the connection is lost ends it when it would come back", Effect.gen(function*() {
    const { cut, revoke, token, url } = yield* start(way)
    const { remote: connection } = yield* remote({ url, token, reconnect: Schedule.spaced("10 millis") })
    yield* revoke
    cut()
    const state = yield* stateOf(connection, "closed")
    expect(state?._tag === "closed" && isUnauthenticated(state.error)).toBe(true)
  }))
})

describe("a connection that is lost", () => {
  const world = Effect.gen(function*() {
    const { cut, seen, token, url } = yield* start("tcp")
    return { cut, seen, options: { url, token } }
  })
  const connection = (options: Remote.Options) => Effect.map(Layer.build(Remote.layer(options)), (context) => Context.get(context, Remote.Remote))

  it.effect("is tried again after the first delay of its schedule, not before", () =>
    Effect.gen(function*() {
      const { cut, options, seen } = yield* world
      const remote = yield* connection({ ...options, reconnect: Schedule.spaced("1 second") })
      cut()
      yield* stateOf(remote, "waiting")
      yield* turns(20)
      yield* TestClock.adjust(999)
      yield* turns(20)
      expect([(yield* remote.state)._tag, seen.accepted]).toEqual(["waiting", 1])
      yield* TestClock.adjust(1)
      yield* stateOf(remote, "connected")
      expect(seen.accepted).toBe(2)
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))))

  it.effect("by default after 50 ms with jitter", () =>
    Effect.gen(function*() {
      const { cut, options, seen } = yield* world
      const remote = yield* connection(options)
      cut()
      yield* stateOf(remote, "waiting")
      yield* turns(20)
      yield* TestClock.adjust(39)
      yield* turns(20)
      expect([(yield* remote.state)._tag, seen.accepted]).toEqual(["waiting", 1])
      yield* TestClock.adjust(22)
      yield* stateOf(remote, "connected")
      expect(seen.accepted).toBe(2)
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))))

  live("does not come back where the schedule says so", Effect.gen(function*() {
    const { cut, options, seen } = yield* world
    const remote = yield* connection({ ...options, reconnect: Schedule.recurs(0) })
    cut()
    const state = yield* stateOf(remote, "closed")
    expect(state).toMatchObject({ _tag: "closed", error: undefined })
    expect(seen.accepted).toBe(1)
  }))
})
