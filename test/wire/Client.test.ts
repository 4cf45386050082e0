import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Schema, Scope, Stream } from "effect"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { DeclaredFailure } from "../../src/bus/KsiService.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Client from "../../src/wire/Client.ts"
import { RemoteFailure } from "../../src/wire/Frame.ts"
import { eventually, folder, makeCounts, start } from "./Daemon.ts"

const connected = Effect.fnUntraced(function*(options: Partial<Client.ConnectOptions> = {}) {
  const daemon = yield* start()
  return { ...daemon, client: yield* Client.connect({ url: daemon.path, ...options }) }
})

/** A server that does to each connection what the test says. */
const serving = (handle: (socket: Net.Socket) => void) =>
  Effect.gen(function*() {
    const path = Path.join(yield* folder, "s")
    yield* Effect.acquireRelease(
      Effect.callback<Net.Server>((resume) => {
        const server = Net.createServer((socket) => {
          socket.on("error", () => {})
          handle(socket)
        }).listen(path, () => resume(Effect.succeed(server)))
      }),
      (server) => Effect.sync(() => server.close())
    )
    return path
  })

describe("calls", () => {
  it.live("answer with data and context apart", () =>
    Effect.gen(function*() {
      const { client } = yield* connected({ clientId: "probe" })
      const { context, data, event } = yield* client.call("t:echo", { value: { a: 1 } })
      expect({ data, event }).toEqual({ data: { a: 1, status: "success" }, event: "t:echo" })
      expect(context).toMatchObject({ _client_id: "probe", _event_depth: 0 })
    }))

  it.live("data that is JSON already is sent digit for digit", () =>
    Effect.gen(function*() {
      const { client } = yield* connected()
      const { data } = yield* client.callRaw("t:echo", "{\"value\":{\"n\":12345678901234567890}}")
      expect(JSON.stringify(data)).toBe("{\"n\":12345678901234567890,\"status\":\"success\"}")
      const pretty = yield* client.callRaw("t:echo", "{\n  \"value\": {\n    \"a\": \"b\\nc\"\n  }\n}\n")
      expect(pretty.data["a"]).toBe("b\nc")
    }))

  it.live("emit a fact", () =>
    Effect.gen(function*() {
      const { client } = yield* connected()
      yield* client.call("t:happened", { n: 1 })
      expect((yield* client.call("t:happened", { n: 2 })).data).toMatchObject({ status: "success", position: 2 })
    }))

  it.live("fail with what failed over there", () =>
    Effect.gen(function*() {
      const { client } = yield* connected()
      const unknown = yield* Effect.flip(client.call("t:ech", {}))
      expect(unknown instanceof KsiError ? unknown.reason : unknown).toMatchObject({ _tag: "UnknownEvent", similar: ["t:echo"] })
      expect(yield* Effect.flip(client.call("t:refuse", { why: "no" }))).toStrictEqual(
        new DeclaredFailure({ event: "t:refuse", error: { _tag: "Refused", why: "no" }, message: "t:refuse failed" })
      )
      const defect = yield* Effect.flip(client.call("t:die", {}))
      expect(defect).toBeInstanceOf(RemoteFailure)
      expect(defect).toMatchObject({ cause: "defect" })
      const late = yield* Effect.flip(client.call("t:forever", {}, { deadlineMillis: 10 }))
      expect(late).toMatchObject({ reason: { _tag: "DeadlineExceeded" } })
    }).pipe(Effect.provide(Logger.layer([]))))

  it.live.each([1, 7, 64])("five hundred of them, at most %i outstanding, never mix", (outstanding) =>
    Effect.gen(function*() {
      let most = 0
      let open = 0
      // A daemon that answers each chunk late and backwards.
      const path = yield* serving((socket) => {
        let rest = ""
        socket.on("data", (chunk) => {
          const lines = (rest + chunk.toString("utf8")).split("\n")
          rest = lines.pop() ?? ""
          open += lines.length
          most = Math.max(most, open)
          setImmediate(() => {
            open -= lines.length
            for (const line of lines.toReversed()) {
              const { correlation_id, data, event } = JSON.parse(line)
              socket.write(`${JSON.stringify({ event, ok: true, data, correlation_id })}\n`)
            }
          })
        })
      })
      const client = yield* Client.connect({ url: path, outstanding })
      const replies = yield* Effect.forEach(Array.from({ length: 500 }, (_, n) => n), (n) => client.call("t:echo", { n }), { concurrency: "unbounded" })
      expect(replies.map(({ data }) => data["n"])).toEqual(Array.from({ length: 500 }, (_, n) => n))
      expect(most).toBeLessThanOrEqual(outstanding)
    }))

  it.live("one that is interrupted leaves the others alone", () =>
    Effect.gen(function*() {
      const { client, counts } = yield* connected({ outstanding: 2 })
      for (let i = 0; i < 5; i++) {
        const fiber = yield* Effect.forkChild(client.call("t:forever", {}), { startImmediately: true })
        yield* eventually(() => counts.running === i + 1)
        yield* Fiber.interrupt(fiber)
      }
      expect((yield* client.call("t:echo", { value: 1 })).data["result"]).toBe(1)
    }))

  const Value = Schema.Json
  it.effect.prop("any value comes back as it went", [Value], ([value]) =>
    Effect.gen(function*() {
      const { client } = yield* connected()
      const { data } = yield* client.call("t:echo", { value: { value } })
      expect(data["value"]).toEqual(JSON.parse(JSON.stringify(value)))
    }))
})

describe("lost connections", () => {
  it.live("nobody listens: nothing was sent", () =>
    Effect.gen(function*() {
      const path = Path.join(yield* folder, "s")
      const error = yield* Effect.flip(Client.connect({ url: path }))
      expect(error.reason).toMatchObject({ _tag: "ConnectionLost", unsent: true, address: path })
      const layered = yield* Effect.flip(Layer.build(Client.layer({ url: path })))
      expect(layered.reason).toMatchObject({ _tag: "ConnectionLost", unsent: true })
    }))

  it.live("lost in flight, it may have been done; after that, nothing is sent", () =>
    Effect.gen(function*() {
      const path = yield* serving((socket) => socket.on("data", () => socket.destroy()))
      const client = yield* Client.connect({ url: path })
      const both = yield* Effect.all([client.call("a:b", {}), client.call("a:b", {})].map(Effect.flip), { concurrency: 2 })
      for (const error of both) expect(error).toMatchObject({ reason: { _tag: "ConnectionLost", unsent: false } })
      expect(yield* Effect.flip(client.call("a:b", {}))).toMatchObject({ reason: { unsent: true } })
    }))

  it.live("a daemon that speaks nonsense is left", () =>
    Effect.gen(function*() {
      const path = yield* serving((socket) => socket.on("data", () => socket.write("hello?\n")))
      const client = yield* Client.connect({ url: path })
      const error = yield* Effect.flip(client.call("a:b", {}))
      expect(error).toMatchObject({ reason: { _tag: "ConnectionLost", unsent: false } })
      expect(error instanceof KsiError ? error.message : "").toContain("no frame")
    }))

  it.live("closing the client fails what it waits for", () =>
    Effect.gen(function*() {
      const daemon = yield* start({ counts: makeCounts() })
      const scope = yield* Scope.make()
      const client = yield* Client.connect({ url: daemon.path }).pipe(Scope.provide(scope))
      const fiber = yield* Effect.forkChild(Effect.flip(client.call("t:forever", {})), { startImmediately: true })
      yield* eventually(() => daemon.counts.running === 1)
      yield* Scope.close(scope, Exit.void)
      expect(yield* Fiber.join(fiber)).toMatchObject({ reason: { _tag: "ConnectionLost" } })
      yield* eventually(() => daemon.counts.interrupted === 1)
    }))
})

describe("subscriptions", () => {
  it.live("tell what was and what comes, in order", () =>
    Effect.gen(function*() {
      const { client } = yield* connected()
      for (let n = 1; n <= 5; n++) yield* client.call("t:happened", { n })
      let opened = -1
      const told = yield* Effect.forkChild(client.subscribe({ pattern: "t:*", from: 2, onSubscribed: (position) => opened = position }).pipe(
        Stream.take(6), Stream.runCollect
      ), { startImmediately: true })
      yield* eventually(() => opened >= 0)
      expect(opened).toBe(5)
      for (let n = 6; n <= 8; n++) yield* client.call("t:happened", { n })
      const facts = yield* Fiber.join(told)
      expect(facts.map(({ position }) => position)).toEqual([2, 3, 4, 5, 6, 7])
      expect(facts[0]).toMatchObject({ event: "t:happened", data: { n: 2 }, streamId: "t", version: 2 })
    }))

  it.live("a slow reader misses nothing", () =>
    Effect.gen(function*() {
      const { client } = yield* connected()
      const told = yield* Effect.forkChild(client.subscribe({ pattern: "t:*", from: "start" }).pipe(
        Stream.mapEffect((fact) => Effect.as(Effect.promise(() => new Promise((resolve) => setImmediate(resolve))), fact.position)),
        Stream.take(2000), Stream.runCollect
      ), { startImmediately: true })
      yield* Effect.forEach(Array.from({ length: 2000 }, (_, n) => n), (n) => client.call("t:happened", { n }), { concurrency: 64, discard: true })
      expect(yield* Fiber.join(told)).toEqual(Array.from({ length: 2000 }, (_, i) => i + 1))
    }))

  it.live("two thousand share a connection with calls, and are forgotten when they are left", () =>
    Effect.gen(function*() {
      const { client, context } = yield* connected()
      const { count } = Context.get(context, Subscriptions)
      const many = 2000
      let live = 0
      const heard = new Map<number, number>()
      const following = yield* Effect.forkChild(Effect.forEach(Array.from({ length: many }, (_, id) => id), (id) =>
        Stream.runForEach(client.subscribe({ pattern: "t:*", onSubscribed: () => live++ }), ({ position }) =>
          Effect.sync(() => heard.set(id, (heard.get(id) ?? 0) + (position ?? 0)))), { concurrency: "unbounded" }))
      yield* eventually(() => live === many)
      expect(count()).toBe(many)
      for (const n of [1, 2]) yield* client.call("t:happened", { n })
      yield* eventually(() => [...heard.values()].filter((sum) => sum === 3).length === many)
      yield* Fiber.interrupt(following)
      expect(count()).toBe(0)
      expect((yield* client.call("t:echo", { value: 1 })).data["result"]).toBe(1)
    }))

  it.live("one that is not read holds up no other; what waits for it is its buffer, here and there", () =>
    Effect.gen(function*() {
      const { client, context } = yield* connected()
      const told: Array<string> = []
      const first = Deferred.makeUnsafe<void>()
      const follow = (overflow: "drop" | "latest", stuck: boolean) =>
        Effect.forkChild(Stream.runForEach(client.subscribe({ pattern: "t:*", from: "start", overflow, buffer: 5 }), ({ position, missed }) => {
          told.push(`${overflow} ${stuck} ${position} ${missed}`)
          return stuck ? Effect.andThen(Deferred.succeed(first, undefined), Effect.never) : Effect.void
        }))
      const readers = [yield* follow("drop", true), yield* follow("latest", true)]
      yield* client.call("t:happened", { n: 1 })
      yield* Deferred.await(first)
      const all = yield* Effect.forkChild(client.subscribe({ pattern: "t:*", from: "start" }).pipe(Stream.take(3000), Stream.runCollect))
      const store = Context.get(context, EventStore.EventStore)
      for (let n = 2; n <= 3000; n++) yield* store.appendTo("t", [{ name: "t:happened", data: { n } }])
      expect((yield* Fiber.join(all)).map(({ position }) => position)).toEqual(Array.from({ length: 3000 }, (_, i) => i + 1))
      expect(told.toSorted()).toEqual(["drop true 1 0", "latest true 1 0"])
      yield* Fiber.interruptAll(readers)
    }))

  it.live("beyond those that a connection may have are refused, others go on", () =>
    Effect.gen(function*() {
      const daemon = yield* Effect.provideService(start(), Limits.Limits, { ...Limits.defaults, connectionSubscriptions: 2 })
      const client = yield* Client.connect({ url: daemon.path })
      let live = 0
      const follow = client.subscribe({ pattern: "t:*", onSubscribed: () => live++ }).pipe(Stream.take(1), Stream.runCollect)
      const two = yield* Effect.forkChild(Effect.all([follow, follow], { concurrency: 2 }))
      yield* eventually(() => live === 2)
      expect(yield* Effect.flip(follow)).toMatchObject({ reason: { _tag: "LimitExceeded", limit: "connectionSubscriptions", max: 2, retryable: true } })
      yield* client.call("t:happened", { n: 1 })
      expect((yield* Fiber.join(two)).map((facts) => facts.length)).toEqual([1, 1])
      const again = yield* Effect.forkChild(follow)
      yield* eventually(() => live === 3)
      yield* client.call("t:happened", { n: 2 })
      expect(yield* Fiber.join(again)).toHaveLength(1)
    }))

  it.live("a bad pattern fails as it does over there, a lost daemon is lost", () =>
    Effect.gen(function*() {
      const { client } = yield* connected()
      const bad = yield* Effect.flip(Stream.runDrain(client.subscribe({ pattern: "t*" })))
      expect(bad).toMatchObject({ reason: { _tag: "PatternInvalid" } })
      const scope = yield* Scope.make()
      const daemon = yield* start().pipe(Scope.provide(scope))
      const other = yield* Client.connect({ url: daemon.path })
      let live = false
      const fiber = yield* Effect.forkChild(
        Effect.flip(Stream.runDrain(other.subscribe({ pattern: "*", onSubscribed: () => live = true }))),
        { startImmediately: true }
      )
      yield* eventually(() => live)
      yield* Scope.close(scope, Exit.void)
      expect(yield* Fiber.join(fiber)).toMatchObject({ reason: { _tag: "ConnectionLost", unsent: false } })
      expect(Fs.existsSync(daemon.path)).toBe(false)
    }))
})
