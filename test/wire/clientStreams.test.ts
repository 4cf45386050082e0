// Streams of a client, over a real socket.
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Logger, Schema, Scope, Stream } from "effect"
import * as Path from "node:path"
import { DeclaredFailure } from "../../src/bus/KsiService.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as Client from "../../src/wire/Client.ts"
import { RemoteFailure } from "../../src/wire/Frame.ts"
import * as Listener from "../../src/wire/Listener.ts"
import { eventually, folder } from "./Daemon.ts"
import { type Made, makeMade, runtime } from "./Items.ts"

const connected = Effect.fnUntraced(function*(made: Made = makeMade(), limits: Partial<Limits.LimitsShape> = {}) {
  const path = Path.join(yield* folder, "run", "daemon.sock")
  const within = { ...Limits.defaults, ...limits }
  yield* Layer.build(Listener.layerUnix({ path }).pipe(Layer.provideMerge(runtime(made)))).pipe(Effect.provideService(Limits.Limits, within))
  return { made, path, client: yield* Client.connect({ url: path }) }
})

const numbers = (to: number) => Array.from({ length: to }, (_, n) => n + 1)

describe("a stream", () => {
  it.live.each([1, 7, 1000])("has all items in their order, made %i at a time", (chunk) =>
    Effect.gen(function*() {
      const { client } = yield* connected()
      const items = yield* Stream.runCollect(client.stream("s:count", { to: 20_000, chunk }))
      expect(items).toEqual(numbers(20_000))
    }))

  it.effect.prop("whatever the chunks and the buffer, nothing is lost, nothing comes twice", [
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 300 })),
    Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 40 })),
    Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 70 }))
  ], ([to, chunk, bufferSize]) =>
    Effect.gen(function*() {
      const { client } = yield* connected()
      expect(yield* Stream.runCollect(client.stream("s:count", { to, chunk }, { bufferSize }))).toEqual(numbers(to))
    }), { arbitrary: { runs: 25 } })

  it.live("asks for nothing before it is read, and again each time it is", () =>
    Effect.gen(function*() {
      const { client, made } = yield* connected()
      const items = client.stream("s:endless", {}, { bufferSize: 1 })
      yield* client.call("s:once", {})
      expect(made.pulled).toBe(0)
      expect(yield* Stream.runCollect(Stream.take(items, 2))).toEqual(["item 1", "item 2"])
      expect(yield* Stream.runCollect(Stream.take(items, 1))).toEqual([`item ${made.pulled}`])
    }))

  it.live("that is not read is made up to its buffer, and holds up neither calls nor other streams", () =>
    Effect.gen(function*() {
      const { client, made } = yield* connected()
      const began = Deferred.makeUnsafe<void>()
      const reader = yield* Effect.forkChild(Stream.runForEach(client.stream("s:endless", {}, { bufferSize: 10 }), () =>
        Effect.andThen(Deferred.succeed(began, undefined), Effect.never)))
      yield* Deferred.await(began)
      expect(yield* Stream.runCollect(client.stream("s:count", { to: 5000, chunk: 10 }))).toHaveLength(5000)
      expect((yield* client.call("s:once", {})).data["result"]).toBe(1)
      // What its reader has in hand was not taken yet.
      expect(made.pulled).toBe(10)
      yield* Fiber.interrupt(reader)
      expect(made.finished).toBe(1)
    }))

  it.live("that is left is cancelled: its handler's finalizers have run when that is done", () =>
    Effect.gen(function*() {
      const made = makeMade(false)
      const { client } = yield* connected(made)
      const left = yield* Effect.forkChild(Stream.runCollect(Stream.take(client.stream("s:endless", {}), 3)))
      yield* eventually(() => made.pulled >= 3)
      for (let turn = 0; turn < 20; turn++) yield* Effect.yieldNow
      expect([left.pollUnsafe(), made.finished]).toEqual([undefined, 0])
      Deferred.doneUnsafe(made.finishing, Exit.void)
      expect(yield* Fiber.join(left)).toEqual(["item 1", "item 2", "item 3"])
      expect(made.finished).toBe(1)
    }))

  it.live("ends as its handler did", () =>
    Effect.gen(function*() {
      const { client } = yield* connected()
      const failing = (how: string) => Effect.flip(Stream.runCollect(client.stream("s:broken", { how })))
      expect(yield* failing("fail")).toStrictEqual(new DeclaredFailure({ event: "s:broken", error: { _tag: "Refused", why: "so" }, message: "s:broken failed" }))
      expect(yield* failing("die")).toMatchObject({ cause: "defect" })
      expect(yield* failing("interrupt")).toBeInstanceOf(RemoteFailure)
      expect(yield* failing("wrong")).toMatchObject({ reason: { _tag: "ReplyInvalid" } })
      expect(yield* failing("no such way")).toMatchObject({ reason: { _tag: "PayloadInvalid" } })
      expect(yield* Effect.flip(Stream.runCollect(client.stream("s:nope", {})))).toMatchObject({ reason: { _tag: "UnknownEvent" } })
      // What came before the end is not lost for it.
      const seen: Array<unknown> = []
      yield* Effect.exit(Stream.runForEach(client.stream("s:broken", { how: "fail" }), (item) => Effect.sync(() => seen.push(item))))
      expect(seen).toEqual([1, 2])
    }).pipe(Effect.provide(Logger.layer([]))))

  it.live("beyond those that a connection may have is refused, and may be asked again", () =>
    Effect.gen(function*() {
      const { client } = yield* connected(makeMade(), { connectionStreams: 1 })
      const began = Deferred.makeUnsafe<void>()
      const reader = yield* Effect.forkChild(Stream.runForEach(client.stream("s:endless", {}), () =>
        Effect.andThen(Deferred.succeed(began, undefined), Effect.never)))
      yield* Deferred.await(began)
      expect(yield* Effect.flip(Stream.runCollect(client.stream("s:count", { to: 1, chunk: 1 })))).toMatchObject({
        reason: { _tag: "LimitExceeded", limit: "connectionStreams" }
      })
      yield* Fiber.interrupt(reader)
      expect(yield* Stream.runCollect(client.stream("s:count", { to: 1, chunk: 1 }))).toEqual([1])
    }))

  it.live("fails with the connection, which says so", () =>
    Effect.gen(function*() {
      const path = Path.join(yield* folder, "run", "daemon.sock")
      const daemon = yield* Scope.make()
      yield* Layer.buildWithScope(Listener.layerUnix({ path }).pipe(Layer.provideMerge(runtime())), daemon)
      const client = yield* Client.connect({ url: path })
      const began = Deferred.makeUnsafe<void>()
      const reader = yield* Effect.forkChild(Effect.flip(Stream.runForEach(client.stream("s:endless", {}, { bufferSize: 1 }), () => Deferred.succeed(began, undefined))))
      yield* Deferred.await(began)
      yield* Scope.close(daemon, Exit.void)
      const problem = yield* Fiber.join(reader)
      expect(problem instanceof KsiError ? problem.reason._tag : problem).toMatch(/ConnectionLost/)
    }))
})
