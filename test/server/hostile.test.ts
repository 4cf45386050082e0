// What is sent to break the server, over real sockets: it answers, refuses or ends the connection, and goes on for others.
import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { serve } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import { Big, eventually, Happened } from "../wire/Daemon.ts"
import { ask, asOwner, json, ownerToken, post, Raw, start } from "./Server.ts"

const statuses = (text: string): ReadonlyArray<string> => [...text.matchAll(/HTTP\/1\.1 (\d+) (?!Continue)/g)].map(([, status]) => status ?? "")
const healthy = (port: number) => Effect.map(ask(port, "GET", "/health/ready"), ({ status }) => expect(status).toBe(200))
const head = (port: number, line: string, ...headers: ReadonlyArray<string>) => [`${line} HTTP/1.1`, `Host: localhost:${port}`, ...headers, "", ""].join("\r\n")
const posted = (port: number, event: string, body: string, ...headers: ReadonlyArray<string>) =>
  head(port, `POST /events/${event}`, "Content-Type: application/json", `Content-Length: ${Buffer.byteLength(body)}`, ...headers) + body
const upgrade = (port: number, ...headers: ReadonlyArray<string>) =>
  head(port, "GET /ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", ...headers)

const Gates = EventGroup.make(Event.make("gate:wait"))

/** Waits until there is room for more, or the connection is gone. */
const written = ({ socket }: Raw, bytes: Buffer): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const done = () => resume(Effect.void)
    if (socket.destroyed || socket.write(bytes)) return done()
    socket.once("drain", done).once("close", done)
  })

describe("one request that looks like two", () => {
  const body = "{\"n\":1}"
  const hidden = (port: number) => posted(port, Happened.name, body)
  const shapes: ReadonlyArray<readonly [name: string, text: (port: number) => string]> = [
    ["Content-Length and Transfer-Encoding", (port) => head(port, "POST /events/t:echo", "Content-Type: application/json", "Content-Length: 4", "Transfer-Encoding: chunked") + `0\r\n\r\n${hidden(port)}`],
    ["Transfer-Encoding before Content-Length", (port) => head(port, "POST /events/t:echo", "Content-Type: application/json", "Transfer-Encoding: chunked", "Content-Length: 4") + `0\r\n\r\n${hidden(port)}`],
    ["two lengths", (port) => head(port, "POST /events/t:echo", "Content-Type: application/json", "Content-Length: 2", "Content-Length: 40") + `{}${hidden(port)}`],
    ["a length that is a list", (port) => head(port, "POST /events/t:echo", "Content-Type: application/json", "Content-Length: 2, 2") + `{}${hidden(port)}`],
    ["a length with a sign", (port) => head(port, "POST /events/t:echo", "Content-Type: application/json", "Content-Length: +2") + `{}${hidden(port)}`],
    ["an encoding that is not chunked", (port) => head(port, "POST /events/t:echo", "Content-Type: application/json", "Transfer-Encoding: xchunked") + `0\r\n\r\n${hidden(port)}`],
    ["a folded header", (port) => head(port, "POST /events/t:echo", "Content-Type: application/json", "X-A: b\r\n Transfer-Encoding: chunked", "Content-Length: 0") + hidden(port)],
    ["a space before the colon", (port) => head(port, "POST /events/t:echo", "Content-Type: application/json", "Transfer-Encoding : chunked") + `0\r\n\r\n${hidden(port)}`],
    ["lines that end with a bare LF", (port) => `POST /events/t:echo HTTP/1.1\nHost: localhost:${port}\nContent-Length: 0\n\n${hidden(port)}`],
    ["a NUL in a header", (port) => head(port, "POST /events/t:echo", "X-A: b\0c", "Content-Length: 0") + hidden(port)],
    ["a chunk of a wrong size", (port) => head(port, "POST /events/t:echo", "Content-Type: application/json", "Transfer-Encoding: chunked") + `1\r\n{}\r\n0\r\n\r\n${hidden(port)}`]
  ]
  for (const [name, text] of shapes) {
    it.live(`${name}: refused, with all that follows it`, () =>
      Effect.gen(function*() {
        const { context, port } = yield* start()
        const raw = yield* Raw.connect(port)
        raw.socket.write(text(port))
        yield* eventually(() => raw.closed)
        expect(statuses(raw.text).slice(0, 1)).toEqual(["400"])
        expect([raw.text.includes("201"), Context.get(context, EventStore).head()]).toEqual([false, 0])
        yield* healthy(port)
      }))
  }

  it.live("a body where none is expected is not the next request", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const inner = hidden(port)
      for (const line of ["GET /events", "HEAD /events", "GET /health/live", "DELETE /events"]) {
        const raw = yield* Raw.connect(port)
        raw.socket.write(head(port, line, `Content-Length: ${inner.length}`) + inner + head(port, "GET /health/ready"))
        yield* eventually(() => raw.text.includes("\"ready\""))
        expect(statuses(raw.text)).toHaveLength(2)
      }
      expect(Context.get(context, EventStore).head()).toBe(0)
    }))

  it.live("trailers say nothing", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const raw = yield* Raw.connect(port)
      raw.socket.write(`${head(port, `POST /events/${Happened.name}`, "Content-Type: application/json", "Transfer-Encoding: chunked", "Trailer: Authorization, Idempotency-Key")}7\r\n${body}\r\n0\r\nAuthorization: Bearer ${ownerToken}\r\nIdempotency-Key: k\r\n\r\n`)
      yield* eventually(() => raw.text.includes("position"))
      expect((yield* Context.get(context, EventStore).read({ from: 1, limit: 1 }))[0]?.attributes["principal"]).toBe("local-http")
    }))
})

describe("who is asked for", () => {
  const hosts: ReadonlyArray<readonly [text: (port: number) => string, status: string]> = [
    [(port) => `GET /nope HTTP/1.1\r\nHost: localhost:${port}\r\nHost: localhost:${port}\r\n\r\n`, "403"],
    [(port) => `GET /nope HTTP/1.1\r\nHost: localhost:${port}\r\nHost: evil.example\r\n\r\n`, "403"],
    [() => "GET /nope HTTP/1.1\r\n\r\n", "400"],
    [() => "GET /nope HTTP/1.1\r\nHost:\r\n\r\n", "403"],
    [() => "GET /nope HTTP/1.0\r\n\r\n", "403"],
    [(port) => `GET /nope HTTP/1.0\r\nHost: localhost:${port}\r\n\r\n`, "404"],
    [(port) => `GET http://evil.example/health/live HTTP/1.1\r\nHost: localhost:${port}\r\n\r\n`, "404"],
    [(port) => `GET http://localhost:${port}/health/live HTTP/1.1\r\nHost: evil.example\r\n\r\n`, "403"],
    [(port) => `OPTIONS * HTTP/1.1\r\nHost: localhost:${port}\r\n\r\n`, "404"],
    ...["user@localhost:PORT", "localhost:PORT@evil.example", "localhost:PORT/x", "localhost:PORT#x", "localhost:PORT?x", "localhost: PORT", "localhost:PORT.evil.example", "localhost.evil.example:PORT", "127.1:PORT", "2130706433:PORT", "0x7f.1:PORT", "[::ffff:127.0.0.1]:PORT", "evil.example:PORT", "localhost:1PORT", "localhost", "localhost:", "ſocalhost:PORT"]
      .map((host) => [(port: number) => `GET /nope HTTP/1.1\r\nHost: ${host.replace("PORT", String(port))}\r\n\r\n`, "403"] as const),
    [(port) => `GET /nope HTTP/1.1\r\nHost: LocalHost.:${port}\r\n\r\n`, "404"]
  ]
  it.live("is one name of ours, given once, whatever the target says", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      for (const [text, status] of hosts) {
        const raw = yield* Raw.connect(port)
        raw.socket.write(text(port))
        yield* eventually(() => raw.text.includes("\r\n\r\n"))
        expect([text(port), statuses(raw.text)]).toEqual([text(port), [status]])
      }
      // CONNECT is for proxies.
      const raw = yield* Raw.connect(port)
      raw.socket.write(`CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost:${port}\r\n\r\n`)
      yield* eventually(() => raw.closed)
      expect(raw.text).toBe("")
    }))

  it.live("two tokens are none, and two origins are foreign", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const raw = yield* Raw.connect(port)
      raw.socket.write(head(port, "GET /events", `Authorization: Bearer ${ownerToken}`, "Authorization: Bearer other"))
      raw.socket.write(head(port, "GET /events", "Authorization: Bearer other", `Authorization: Bearer ${ownerToken}`))
      raw.socket.write(head(port, "GET /events", `Origin: http://localhost:${port}`, "Origin: http://evil.example"))
      raw.socket.write(head(port, "GET /events", "Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"))
      raw.socket.write(posted(port, "t:echo", "{\"value\":1}", "Content-Type: text/plain"))
      yield* eventually(() => statuses(raw.text).length === 5)
      expect(statuses(raw.text)).toEqual(["401", "401", "403", "403", "415"])
    }))
})

describe("a name in the path", () => {
  const names = ["%2e%2e", "%2e%2e%2fhealth%2flive", "t%00echo", "t:echo%00", "t:echo%0d%0aSet-Cookie:%20a=b", "t:echo/", "t:echo/x", "%C3%BC", "%E2%80%AE", "t%3Aech%6F%20", "T:ECHO", "t:echo;x", "__proto__", "constructor", "toString", "%F0%9F%92%A9", "x".repeat(8000), "a:".repeat(3000)]
  it.live("is a name that is unknown, or none", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      for (const name of names) {
        for (const method of ["POST", "GET"]) {
          const said = yield* ask(port, method, `/events/${name}`, asOwner, method === "POST" ? "{}" : undefined)
          expect([method, name.slice(0, 40), said.status, said.body.reason]).toEqual([method, name.slice(0, 40), 404, "UnknownEvent"])
          expect(said.headers["set-cookie"]).toBe(undefined)
        }
      }
      for (const name of ["%", "%zz", "%C3%28", "%ff", "%ED%A0%80"]) expect((yield* post(port, name)).body.reason).toBe("NotFound")
      yield* healthy(port)
    }))
})

describe("many at once", () => {
  it.live("ten thousand requests in one go, of a client that never reads: what waits is bounded, and the others are served", () =>
    Effect.gen(function*() {
      const { connections, port } = yield* start({ limits: { outgoingBytes: 8 * 1024 * 1024 } })
      const raw = yield* Raw.connect(port)
      raw.socket.pause()
      const before = process.memoryUsage().rss
      const body = JSON.stringify({ size: 1024 * 1024 })
      raw.socket.write(posted(port, Big.name, body).repeat(10_000))
      // Each would be a megabyte; together they are ten thousand.
      yield* eventually(() => connections() === 0)
      expect(process.memoryUsage().rss - before).toBeLessThan(300 * 1024 * 1024)
      yield* healthy(port)
    }))

  it.live("who goes away takes with it all that ran for it, and all that waited to be read", () =>
    Effect.gen(function*() {
      const { connections, counts, port } = yield* start({ limits: { outgoingBytes: 8 * 1024 * 1024 } })
      // Behind one that is not answered nothing can be written: sixteen megabytes in all, two at a time.
      for (let n = 1; n <= 8; n++) {
        const raw = yield* Raw.connect(port)
        raw.socket.write(posted(port, "t:forever", "").repeat(2) + posted(port, Big.name, JSON.stringify({ size: 1024 * 1024 })).repeat(2))
        yield* eventually(() => counts.running === 2)
        yield* healthy(port)
        // Nobody who came before holds anything any more.
        expect([n, raw.closed]).toEqual([n, false])
        raw.socket.destroy()
        yield* eventually(() => counts.interrupted === 2 * n && connections() === 0)
      }
    }))

  it.live("a client that reads gets each of its answers, in order", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const raw = yield* Raw.connect(port)
      const count = 10_000
      const text = Array.from({ length: count }, (_, value) => posted(port, "t:echo", JSON.stringify({ value: `v${value}` }))).join("")
      raw.socket.write(text)
      yield* eventually(() => raw.text.includes(`"v${count - 1}"`))
      expect([...raw.text.matchAll(/^"v(\d+)"/gm)].map(([, n]) => Number(n))).toEqual(Array.from({ length: count }, (_, n) => n))
    }))

  it.live("a thousand connections with half a request each hold nobody up, and are ended in time", () =>
    Effect.gen(function*() {
      const { connections, port } = yield* start({ limits: { headerMillis: 1000, bodyMillis: 1000 } })
      const halves = ["GET /health/li", `POST /events/t:echo HTTP/1.1\r\nHost: localhost:${port}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"va`, `POST /events/t:echo HTTP/1.1\r\nHost: localhost:${port}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{`]
      const all = yield* Effect.forEach(Array.from({ length: 1000 }), () => Raw.connect(port), { concurrency: 100 })
      all.forEach(({ socket }, n) => socket.write(halves[n % 3] ?? ""))
      yield* healthy(port)
      yield* eventually(() => all.every(({ closed }) => closed))
      yield* eventually(() => connections() === 0)
      expect(new Set(all.flatMap(({ text }) => statuses(text)))).toEqual(new Set(["408"]))
    }))

  it.live("a flood of chunk extensions, of parameters and of headers is refused", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const raw = yield* Raw.connect(port)
      raw.socket.write(head(port, "POST /events/t:echo", "Content-Type: application/json", "Transfer-Encoding: chunked"))
      raw.socket.write(`1;${"a=b;".repeat(20_000)}\r\n{\r\n`)
      yield* eventually(() => raw.closed)
      expect(statuses(raw.text)).toEqual(["431"])
      expect((yield* ask(port, "GET", `/subscribe?${"from=1&".repeat(2000)}`)).body.reason).toBe("PayloadInvalid")
      expect((yield* ask(port, "GET", `/events?${"a=b&".repeat(3000)}`)).status).toBe(400)
      const headers = yield* Raw.connect(port)
      headers.socket.write(head(port, "GET /events", ...Array.from({ length: 5000 }, (_, n) => `X-${n}: 1`)))
      yield* eventually(() => headers.closed)
      expect(statuses(headers.text)).toEqual(["431"])
    }))

  it.live("a body without an end is not kept", () =>
    Effect.gen(function*() {
      const { port } = yield* start({ limits: { bodyMillis: 2000, headerMillis: 1000 } })
      const raw = yield* Raw.connect(port)
      raw.socket.write(head(port, "POST /events/t:echo", "Content-Type: application/json", "Transfer-Encoding: chunked", "Expect: 100-continue"))
      yield* eventually(() => raw.text.includes("100 Continue"))
      const before = process.memoryUsage().rss
      const chunk = Buffer.from(`100000\r\n${"x".repeat(1024 * 1024)}\r\n`)
      for (let n = 0; n < 128 && !raw.closed; n++) {
        yield* written(raw, chunk)
      }
      expect(statuses(raw.text)).toEqual(["413"])
      expect(process.memoryUsage().rss - before).toBeLessThan(100 * 1024 * 1024)
      yield* eventually(() => raw.closed)
    }))
})

describe("a client that sends no more", () => {
  it.live("gets its answers all the same, however long they take", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const gate = yield* Deferred.make<void>()
      yield* Layer.build(serve(Gates).pipe(Layer.provide(Gates.toLayer({ "gate:wait": () => Deferred.await(gate) })), Layer.provide(Layer.succeedContext(context))))
      const raw = yield* Raw.connect(port)
      raw.socket.end(posted(port, "gate:wait", "") + posted(port, Happened.name, "{\"n\":1}") + posted(port, "t:echo", "{\"value\":2}"))
      // It has been noticed that no more will come.
      yield* eventually(() => raw.text.includes("100 Continue"))
      yield* Deferred.succeed(gate, undefined)
      yield* eventually(() => raw.closed)
      expect(statuses(raw.text)).toEqual(["200", "201", "200"])
    }))

  it.live("in HTTP/1.0, which knows no interim answer, gets its own", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const gate = yield* Deferred.make<void>()
      yield* Layer.build(serve(Gates).pipe(Layer.provide(Gates.toLayer({ "gate:wait": () => Deferred.await(gate) })), Layer.provide(Layer.succeedContext(context))))
      const raw = yield* Raw.connect(port)
      raw.socket.end(posted(port, "gate:wait", "").replace("HTTP/1.1", "HTTP/1.0"))
      yield* Effect.sleep("50 millis")
      expect([raw.text, raw.closed]).toEqual(["", false])
      yield* Deferred.succeed(gate, undefined)
      yield* eventually(() => raw.closed)
      expect(statuses(raw.text)).toEqual(["200"])
    }))

  it.live("is asked whether it is there; one that is gone is noticed, and what ran for it is interrupted", () =>
    Effect.gen(function*() {
      const { connections, counts, port } = yield* start()
      const there = yield* Raw.connect(port)
      there.socket.end(posted(port, "t:forever", ""))
      const gone = yield* Raw.connect(port)
      gone.socket.write(posted(port, "t:forever", ""))
      yield* eventually(() => counts.running === 2)
      gone.socket.destroy()
      yield* eventually(() => counts.interrupted === 1)
      expect([connections(), there.closed]).toEqual([1, false])
      there.socket.destroy()
      yield* eventually(() => counts.interrupted === 2)
    }))

  it.live("with half a request is told that it is none", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const raw = yield* Raw.connect(port)
      raw.socket.end(`POST /events/${Happened.name} HTTP/1.1\r\nHost: localhost:${port}\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"n":1}`)
      yield* eventually(() => raw.closed)
      expect(statuses(raw.text)).toEqual(["400"])
    }))
})

describe("an answer", () => {
  it.live("is never that of another request: garbage behind one that runs ends the connection without a word", () =>
    Effect.gen(function*() {
      const { counts, port } = yield* start()
      const raw = yield* Raw.connect(port)
      raw.socket.write(posted(port, "t:forever", ""))
      yield* Deferred.await(counts.some)
      raw.socket.write("garbage\r\n\r\n")
      yield* eventually(() => raw.closed)
      expect(raw.text).toBe("")
      yield* eventually(() => counts.interrupted === 1)
    }))

  it.live("garbage sent by who follows is not answered in the middle of the stream", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const raw = yield* Raw.connect(port)
      raw.socket.write(head(port, "GET /subscribe"))
      yield* eventually(() => raw.text.includes("retry"))
      raw.socket.write("garbage\r\n\r\n")
      yield* eventually(() => raw.closed)
      expect(statuses(raw.text)).toEqual(["200"])
    }))

  it.live("is not written into a WebSocket: no upgrade while one is owed", () =>
    Effect.gen(function*() {
      const { counts, port } = yield* start()
      const raw = yield* Raw.connect(port)
      raw.socket.write(posted(port, "t:forever", ""))
      yield* Deferred.await(counts.some)
      raw.socket.write(upgrade(port))
      yield* eventually(() => raw.closed)
      expect(raw.text).toBe("")
    }))

  it.live("to a fact whose id is no text of a header comes all the same", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const event = { specversion: "1.0", source: "/s", type: Happened.name, data: { n: 1 } }
      for (const id of ["日本", "a\r\nSet-Cookie: a=b", "\u0000", "é"]) {
        const said = yield* post(port, Happened.name, { ...event, id }, { "content-type": "application/cloudevents+json" })
        expect([said.status, said.body.event_id, said.headers["set-cookie"]]).toEqual([201, id, undefined])
      }
      expect(Context.get(context, EventStore).head()).toBe(4)
    }))
})

describe("a posted CloudEvent", () => {
  const event = { specversion: "1.0", id: "e-1", source: "/shop", type: Happened.name, data: { n: 1 } }
  const structured = { "content-type": "application/cloudevents+json" }
  const kept = (context: Context.Context<EventStore>) => Effect.map(Context.get(context, EventStore).read({ from: 1, limit: 10 }), (facts) => facts.at(-1))

  it.live("with data that is no JSON is refused, and not taken without it", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      for (const type of [Happened.name, "t:nothing"]) {
        const said = yield* post(port, type, { ...event, type, data: undefined, data_base64: "e30=" }, structured)
        expect([said.status, said.body.details.problems[0].path]).toEqual([400, "data_base64"])
      }
      const binary = { ...json, "ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": Happened.name }
      expect((yield* post(port, Happened.name, "", { ...binary, "ce-data": "{\"n\":1}" })).status).toBe(400)
      expect((yield* post(port, Happened.name, { n: 1 }, { ...binary, "ce-data_base64": "e30=" })).status).toBe(400)
      expect((yield* post(port, Happened.name, { n: 1 }, { ...binary, "ce-": "x" })).status).toBe(400)
      expect(Context.get(context, EventStore).head()).toBe(0)
    }))

  it.live("in headers: as the binding writes them, as older senders quote them, and as bytes of UTF-8", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const raw = yield* Raw.connect(port)
      const notes: ReadonlyArray<readonly [sent: string, read: string]> = [["caf%C3%A9", "café"], ["\"a \\\"b\\\" c\"", "a \"b\" c"], ["café", "café"], ["100%", "100%"], ["%ff", "%ff"], ["%22x%22", "\"x\""]]
      for (const [at, [sent, read]] of notes.entries()) {
        const body = "{\"n\":1}"
        raw.socket.write(posted(port, Happened.name, body, "ce-specversion: 1.0", `ce-id: ${at}`, "ce-source: /s", `ce-type: ${Happened.name}`, `ce-note: ${sent}`))
        yield* eventually(() => statuses(raw.text).length === at + 1)
        expect((yield* kept(context))?.attributes["note"]).toBe(read)
      }
      expect(new Set(statuses(raw.text))).toEqual(new Set(["201"]))
    }))

  it.live("of long ago or far ahead, with its stream as its subject, and a trace that is none", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      for (const [at, time] of ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999999-12:00", "9999-12-31T23:59:60Z"].entries()) {
        const said = yield* post(port, Happened.name, { ...event, id: `t${at}`, time, subject: "t", traceparent: "not one" }, { ...structured, traceparent: "00-zz" })
        expect(said.status).toBe(201)
        expect(yield* kept(context)).toMatchObject({ time, streamId: "t", attributes: { traceparent: "not one" } })
      }
      for (const time of ["2020-02-31T00:00:00Z", "2020-01-01", "+010000-01-01T00:00:00Z", 7]) {
        expect((yield* post(port, Happened.name, { ...event, time }, structured)).status).toBe(400)
      }
    }))

  it.live("posted by many at once is stored once; each is told the same, with a key and without", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      for (const headers of [structured, { ...structured, "idempotency-key": "k" }]) {
        const id = "idempotency-key" in headers ? "e-2" : "e-1"
        const said = yield* Effect.forEach(Array.from({ length: 40 }), () => post(port, Happened.name, { ...event, id }, headers), { concurrency: "unbounded" })
        expect(new Set(said.map(({ status, text }) => `${status} ${text}`)).size).toBe(1)
      }
      expect(Context.get(context, EventStore).head()).toBe(2)
    }))

  for (const [key, status] of [["", 400], ["\"\"", 400], ["\"", 201], ["a, b", 201], ["ÿ", 201], ["x".repeat(256), 201], [`"${"x".repeat(256)}"`, 201], [`"${"x".repeat(257)}"`, 400]] as const) {
    it.live(`with the idempotency key ${key.slice(0, 9)}…${key.length}: ${status}`, () =>
      Effect.gen(function*() {
        const { port } = yield* start()
        expect((yield* post(port, Happened.name, { n: 1 }, { ...json, "idempotency-key": key })).status).toBe(status)
      }))
  }
})

describe("who goes away while a fact is being stored", () => {
  it.live("leaves it stored and handled, or not there at all", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const all = yield* Effect.forEach(Array.from({ length: 50 }), () => Raw.connect(port), { concurrency: 50 })
      for (const [n, { socket }] of all.entries()) socket.write(posted(port, Happened.name, JSON.stringify({ n })), () => socket.destroy())
      yield* healthy(port)
      const facts = yield* Context.get(context, EventStore).read({ from: 1, limit: 100 })
      expect(facts.map(({ position }) => position)).toEqual(facts.map((_, n) => n + 1))
    }))
})

/** A frame as a client sends it; the mask is zero. */
const frame = (first: number, payload: Buffer | string, masked = true): Buffer => {
  const body = Buffer.from(payload)
  const bit = masked ? 0x80 : 0
  const length = body.length < 126 ? Buffer.from([bit | body.length]) : Buffer.from([bit | 126, body.length >> 8, body.length & 255])
  return Buffer.concat([Buffer.from([first]), length, masked ? Buffer.alloc(4) : Buffer.alloc(0), body])
}

const opened = Effect.fnUntraced(function*(port: number, ...headers: ReadonlyArray<string>) {
  const raw = yield* Raw.connect(port)
  raw.socket.write(upgrade(port, ...headers))
  yield* eventually(() => raw.text.includes("101 Switching"))
  return raw
})

describe("a WebSocket", () => {
  const wrong: ReadonlyArray<readonly [name: string, bytes: Buffer]> = [
    ["an unmasked frame", frame(0x81, "{}", false)],
    ["a compressed frame", frame(0xc1, "{}")],
    ["a reserved opcode", frame(0x83, "{}")],
    ["a continuation of nothing", frame(0x80, "{}")],
    ["a ping that is too long", frame(0x89, "x".repeat(200))],
    ["a close with half a code", frame(0x88, "x")],
    ["text that is not UTF-8", frame(0x81, Buffer.from([0xff, 0xfe]))],
    ["a length beyond all bounds", Buffer.from([0x81, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0])],
    ["twenty thousand fragments", Buffer.concat([frame(0x01, "{"), ...Array.from({ length: 20_000 }, () => frame(0x00, " "))])]
  ]
  it.live("that breaks the protocol is ended, and no other", () =>
    Effect.gen(function*() {
      const { connections, port } = yield* start()
      const other = yield* opened(port)
      const all = yield* Effect.forEach(wrong, ([, bytes]) => Effect.tap(opened(port), ({ socket }) => Effect.sync(() => socket.write(bytes))))
      yield* eventually(() => connections() === 1)
      expect(all.flatMap(({ closed }, n) => closed ? [] : [wrong[n]?.[0]])).toEqual([])
      other.socket.write(frame(0x81, "{\"event\":\"t:echo\",\"data\":{\"value\":\"still here\"}}"))
      yield* eventually(() => other.text.includes("still here"))
    }))

  it.live("is closed without a code, or not closed at all by who goes", () =>
    Effect.gen(function*() {
      const { connections, port } = yield* start()
      const raw = yield* opened(port)
      raw.socket.write(frame(0x88, ""))
      const other = yield* opened(port)
      other.socket.destroy()
      yield* eventually(() => connections() === 0)
    }))

  it.live("an upgrade that is none is refused", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      for (const [from, to] of [["Version: 13", "Version: 7"], ["Key: dGhlIHNhbXBsZSBub25jZQ==", "Key: short"], ["GET /ws", "POST /ws"], ["Key: dGhlIHNhbXBsZSBub25jZQ==", "Extensions: permessage-deflate; x=\"\0"]] as const) {
        const raw = yield* Raw.connect(port)
        raw.socket.write(upgrade(port).replace(from, to))
        yield* eventually(() => raw.closed)
        expect(statuses(raw.text)[0]).toMatch(/^4/)
      }
      yield* healthy(port)
    }))

  it.live("a flood of pings by who never reads is not kept", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const raw = yield* opened(port)
      raw.socket.pause()
      const before = process.memoryUsage().rss
      const pings = Buffer.concat(Array.from({ length: 5000 }, () => frame(0x89, "x".repeat(125))))
      for (let n = 0; n < 100; n++) {
        yield* written(raw, pings)
      }
      // Sixty megabytes of them, and as many of answers.
      expect(process.memoryUsage().rss - before).toBeLessThan(50 * 1024 * 1024)
      yield* healthy(port)
    }))
})

const deafs: ReadonlyArray<readonly [name: string, follow: (port: number) => Effect.Effect<Raw, never, Scope.Scope>]> = [
  ["server-sent events", Effect.fnUntraced(function*(port: number) {
    const raw = yield* Raw.connect(port)
    raw.socket.write(head(port, "GET /subscribe?requests=true"))
    return raw
  })],
  ["a WebSocket", Effect.fnUntraced(function*(port: number) {
    const raw = yield* opened(port)
    raw.socket.write(frame(0x81, JSON.stringify({ event: "pubsub:subscribe", pattern: "*", subscription_id: "s", requests: true })))
    return raw
  })]
]

describe("who follows everything and never reads", () => {
  for (const [name, follow] of deafs) {
    it.live(`over ${name}: what waits for all of them is bounded`, () =>
      Effect.gen(function*() {
        const { connections, context, port } = yield* start({ limits: { outgoingBytes: 16 * 1024 * 1024 } })
        const { count } = Context.get(context, Subscriptions)
        const all = yield* Effect.forEach(Array.from({ length: 30 }), () => follow(port))
        yield* eventually(() => count() === 30)
        for (const { socket } of all) socket.pause()
        const before = process.memoryUsage().rss
        const ksi = Context.get(context, KsiService)
        // Three megabytes each, for thirty of them.
        for (let n = 0; n < 4; n++) yield* ksi.dispatch("t:echo", { value: "x".repeat(3 * 1024 * 1024) })
        // The greatest holders were cut off.
        yield* eventually(() => connections() < 10)
        expect(process.memoryUsage().rss - before).toBeLessThan(250 * 1024 * 1024)
        yield* healthy(port)
      }))

    it.live(`over ${name}: holds up nobody who stops the daemon`, () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const { context, port } = yield* Scope.provide(start({ drain: "20 seconds" }), scope)
        const idle = yield* Raw.connect(port)
        idle.socket.write(head(port, "GET /health/live"))
        const quiet = yield* follow(port)
        yield* eventually(() => Context.get(context, Subscriptions).count() === 1 && idle.text !== "")
        const began = performance.now()
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
        // Another one takes its place at once.
        yield* eventually(() => quiet.closed)
        const again = yield* start({ port })
        yield* healthy(again.port)
        yield* Fiber.join(closing)
        expect(performance.now() - began).toBeLessThan(5000)
      }))
  }

  it.live("a reader of server-sent events that has stopped reading is cut off when the daemon stops", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { context, port } = yield* Scope.provide(start({ drain: "20 seconds" }), scope)
      const raw = yield* Raw.connect(port)
      raw.socket.write(head(port, "GET /subscribe?requests=true"))
      yield* eventually(() => raw.text.includes("retry"))
      raw.socket.pause()
      // More than the system takes on its own, each written before the next.
      for (let n = 0; n < 12; n++) {
        yield* Context.get(context, KsiService).dispatch("t:echo", { value: "x".repeat(3 * 1024 * 1024) })
        yield* healthy(port)
      }
      const began = performance.now()
      yield* Scope.close(scope, Exit.void)
      expect(performance.now() - began).toBeLessThan(5000)
    }))

  it.live("a slow reader of an answer that was given gets all of it, though the daemon stops", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { port } = yield* Scope.provide(start({ drain: "10 seconds" }), scope)
      const size = 30 * 1024 * 1024
      const raw = yield* Raw.connect(port)
      raw.socket.write(posted(port, Big.name, JSON.stringify({ size })))
      yield* eventually(() => raw.text !== "")
      raw.socket.pause()
      yield* healthy(port)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      const refused = yield* Effect.exit(Effect.retry(Effect.flatMap(Effect.exit(ask(port, "GET", "/health/live")), (exit) => Exit.isFailure(exit) ? Effect.void : Effect.fail("still there")), { times: 1000 }))
      expect(Exit.isSuccess(refused)).toBe(true)
      raw.socket.resume()
      yield* Fiber.join(closing)
      yield* eventually(() => raw.closed)
      expect(raw.text.length - raw.text.indexOf("\r\n\r\n") - 4).toBe(size + 2)
    }))

  it.live("a question only for the head of a stream is answered, and ends", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const said = yield* ask(port, "HEAD", "/subscribe")
      expect([said.status, said.headers["content-type"], said.text]).toEqual([200, "text/event-stream", ""])
      expect(Context.get(context, Subscriptions).count()).toBe(0)
      expect((yield* ask(port, "HEAD", "/subscribe?from=soon")).status).toBe(400)
    }))
})
