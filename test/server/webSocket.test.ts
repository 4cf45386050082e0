// The wire over WebSockets: the same frames, one a message.
import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Scope } from "effect"
import { Permissions } from "../../src/store/Permissions.ts"
import { eventually, type Reply } from "../wire/Daemon.ts"
import { ask, Raw, start } from "./Server.ts"

/** Node's own client, as a browser has it. */
class Client {
  readonly socket: WebSocket
  readonly messages: Array<Reply> = []
  closed: number | undefined

  private constructor(socket: WebSocket) {
    this.socket = socket
    socket.addEventListener("message", ({ data }) => this.messages.push(JSON.parse(String(data)) as Reply))
    socket.addEventListener("close", ({ code }) => (this.closed = code))
  }

  static connect(port: number) {
    return Effect.acquireRelease(
      Effect.callback<Client>((resume) => {
        const client = new Client(new WebSocket(`ws://localhost:${port}/ws`))
        client.socket.addEventListener("open", () => resume(Effect.succeed(client)))
        client.socket.addEventListener("error", () => resume(Effect.die(new Error("it could not be opened"))))
      }),
      ({ socket }) => Effect.sync(() => socket.close())
    )
  }

  send(...frames: ReadonlyArray<unknown>): void {
    for (const frame of frames) this.socket.send(typeof frame === "string" ? frame : JSON.stringify(frame))
  }

  ask(frame: unknown): Effect.Effect<Reply> {
    return Effect.suspend(() => {
      const at = this.messages.length
      this.send(frame)
      return Effect.map(eventually(() => this.messages.length > at), () => this.messages[at] as Reply)
    })
  }
}

const echo = (value: unknown) => ({ event: "t:echo", data: { value }, correlation_id: value })

describe("a WebSocket", () => {
  it.live("answers frame for frame, one a message", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const client = yield* Client.connect(port)
      client.send(...Array.from({ length: 100 }, (_, n) => echo(n)))
      yield* eventually(() => client.messages.length === 100)
      expect(client.messages.map(({ data }) => data.result)).toEqual(Array.from({ length: 100 }, (_, n) => n))
      expect((yield* client.ask("nonsense")).data).toMatchObject({ reason: "FrameInvalid" })
      expect((yield* client.ask({ event: "no:such" })).data.reason).toBe("UnknownEvent")
    }))

  it.live("a message is one frame, however it is laid out; a newline within a text is still none of JSON's", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const client = yield* Client.connect(port)
      expect((yield* client.ask(JSON.stringify(echo({ a: [1, 2] }), null, 2))).data).toMatchObject({ a: [1, 2] })
      expect((yield* client.ask("{\"event\":\"t:echo\",\"data\":{\"value\":\"a\nb\"}}")).data.reason).toBe("FrameInvalid")
      expect((yield* client.ask("{\"event\":\"t:echo\"}\n{\"event\":\"t:echo\"}")).data.reason).toBe("FrameInvalid")
      expect(client.messages).toHaveLength(3)
      client.socket.send(new TextEncoder().encode(JSON.stringify(echo("bytes"))))
      yield* eventually(() => client.messages.length === 4)
      expect(client.messages[3]?.data.result).toBe("bytes")
    }))

  it.live("is local-http until a token says otherwise, and follows as far as it may", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const client = yield* Client.connect(port)
      expect((yield* client.ask({ event: "wire:hello", version: 1 })).data.principal).toBe("local-http")
      expect((yield* client.ask({ event: "system:shutdown" })).data.reason).toBe("PermissionDenied")
      expect((yield* client.ask({ event: "pubsub:subscribe", pattern: "t:*", subscription_id: "s", from: "start" })).data.status).toBe("subscribed")
      yield* client.ask({ event: "t:happened", data: { n: 1 } })
      yield* eventually(() => client.messages.some((message) => message["subscription_id"] === "s" && message["position"] === 1))
      const { principal, token } = yield* Context.get(context, Permissions).createToken({ by: "owner", profile: "restricted" })
      client.send({ event: "wire:hello", version: 1, token })
      const greeted = () => client.messages.filter(({ event }) => event === "wire:hello")[1]
      yield* eventually(() => greeted() !== undefined)
      expect(greeted()?.data.principal).toBe(principal)
    }))

  it.live("with the owner's token in its headers is the owner's", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const raw = yield* Raw.connect(port)
      raw.socket.write(`GET /ws HTTP/1.1\r\nHost: localhost:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer ksi_http_test\r\n\r\n`)
      yield* eventually(() => raw.text.includes("101 Switching"))
      const hello = Buffer.from("{\"event\":\"wire:hello\",\"version\":1}")
      // A masked text frame whose mask is zero.
      raw.socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | hello.length, 0, 0, 0, 0]), hello]))
      yield* eventually(() => raw.text.includes("\"principal\":\"owner\""))
    }))

  it.live("what it began ends with it", () =>
    Effect.gen(function*() {
      const { counts, port } = yield* start()
      const client = yield* Client.connect(port)
      client.send({ event: "t:forever" })
      yield* Deferred.await(counts.some)
      client.socket.close()
      yield* eventually(() => counts.interrupted === 1)
    }))

  it.live("a message beyond the limit ends it, and no other", () =>
    Effect.gen(function*() {
      const { port } = yield* start({ limits: { frameBytes: 4096 } })
      const other = yield* Client.connect(port)
      const client = yield* Client.connect(port)
      client.send(echo("x".repeat(5000)))
      yield* eventually(() => client.closed !== undefined)
      expect(client.closed).toBe(1009)
      expect((yield* other.ask(echo(1))).data.result).toBe(1)
    }))

  it.live("one that does not answer any more is ended", () =>
    Effect.gen(function*() {
      const { connections, port } = yield* start({ limits: { idleMillis: 100 } })
      const alive = yield* Client.connect(port)
      const raw = yield* Raw.connect(port)
      raw.socket.write(`GET /ws HTTP/1.1\r\nHost: localhost:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`)
      yield* eventually(() => raw.text.includes("101 Switching"))
      yield* eventually(() => raw.closed)
      yield* eventually(() => connections() === 1)
      expect((yield* alive.ask(echo(1))).data.result).toBe(1)
    }))

  it.live("one that has stopped reading what waits for it is not taken for one that is gone", () =>
    Effect.gen(function*() {
      const { port } = yield* start({ limits: { idleMillis: 100 } })
      const { WebSocket } = yield* Effect.promise(() => import("@effect/platform-node/NodeWS"))
      const reader = yield* Effect.acquireRelease(
        Effect.callback<InstanceType<typeof WebSocket>>((resume) => {
          const socket = new WebSocket(`ws://localhost:${port}/ws`)
          socket.on("open", () => resume(Effect.succeed(socket)))
        }),
        (socket) => Effect.sync(() => socket.terminate())
      )
      let [characters, closed] = [0, false]
      reader.on("message", (message) => (characters += String(message).length)).on("close", () => (closed = true)).on("error", () => {})
      // More than the system holds for a socket.
      const [size, count] = [2_000_000, 12]
      reader.pause()
      for (let n = 0; n < count; n++) reader.send(JSON.stringify({ event: "t:big", data: { size }, correlation_id: n }))
      // Each of these is gone when it has not answered for as long as the reader may be silent.
      for (let n = 0; n < 3; n++) {
        const raw = yield* Raw.connect(port)
        raw.socket.write(`GET /ws HTTP/1.1\r\nHost: localhost:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`)
        yield* eventually(() => raw.closed)
      }
      reader.resume()
      yield* eventually(() => closed || characters > size * count)
      expect([closed, characters > size * count]).toEqual([false, true])
    }).pipe(Effect.scoped))

  it.live("lets what runs end when the daemon stops, and says that it goes", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { counts, port } = yield* Scope.provide(start({ drain: "10 seconds" }), scope)
      const idle = yield* Client.connect(port)
      const busy = yield* Client.connect(port)
      busy.send({ event: "t:forever", correlation_id: "f" })
      yield* Deferred.await(counts.some)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* eventually(() => idle.closed !== undefined)
      expect([idle.closed, busy.closed]).toEqual([1001, undefined])
      busy.socket.close()
      yield* Fiber.join(closing)
      expect(counts.interrupted).toBe(1)
    }))

  it.live("of another kind, or elsewhere, is answered as a request", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const upgrade = { connection: "Upgrade", upgrade: "h2c", "http2-settings": "AAMAAABkAARAAAAAAAIAAAAA" }
      expect((yield* ask(port, "GET", "/health/live", upgrade)).status).toBe(200)
      expect((yield* ask(port, "GET", "/events", { connection: "Upgrade", upgrade: "websocket" })).status).toBe(200)
      expect((yield* ask(port, "GET", "/ws", { connection: "Upgrade", upgrade: "websocket" })).status).toBe(400)
    }))
})
