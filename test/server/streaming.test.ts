// Requests that are answered with streams over HTTP: as server-sent events, and as lines.
import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Diagnostics from "node:diagnostics_channel"
import type * as NodeHttp from "node:http"
import type * as Net from "node:net"
import { serve } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as Http from "../../src/server/Http.ts"
import { Permissions } from "../../src/store/Permissions.ts"
import { eventually, makeCounts } from "../wire/Daemon.ts"
import * as Items from "../wire/Items.ts"
import { app, ask, json, ownerToken, post, Raw } from "./Server.ts"

/** Items of 64 KiB that are counted as they are made. */
const Wide = Event.make("w:wide", { success: Schema.String, stream: true })
/** Waits for the gate; fails before it says one thing, or after that, or not at all. */
const Gated = Event.make("w:gated", { payload: { fail: Schema.Literals(["first", "later", "never"]) }, success: Schema.Int, error: Items.Refused, stream: true })
/** Fails with what cannot be written. */
const Odd = Event.make("w:odd", { success: Schema.Int, error: Schema.Unknown, stream: true })
const Others = EventGroup.make(Wide, Gated, Odd)

const width = 64 * 1024

const makeOthers = () => {
  const made = { wide: 0, left: 0, waiting: 0, gate: Deferred.makeUnsafe<void>() }
  const refused = Stream.fail(new Items.Refused({ why: "so" }))
  const layer = serve(Others).pipe(Layer.provide(Others.toLayer({
    "w:wide": () => Stream.fromEffectRepeat(Effect.sync(() => {
      made.wide++
      return "x".repeat(width)
    })).pipe(Stream.ensuring(Effect.sync(() => made.left++))),
    "w:gated": ({ fail }) => {
      const waited = Stream.fromEffectDrain(Effect.suspend(() => {
        made.waiting++
        return Deferred.await(made.gate)
      }))
      const said = Stream.concat(fail === "first" ? refused : Stream.empty, Stream.succeed(1))
      return Stream.concat(waited, Stream.concat(said, fail === "later" ? refused : Stream.empty))
    },
    "w:odd": () => Stream.concat(Stream.succeed(1), Stream.fail({ big: 1n }))
  })))
  return { made, layer }
}

const start = Effect.fnUntraced(function*(
  { finishing = true, limits = {}, ...options }: Partial<Http.Options> & { readonly limits?: Partial<Limits.LimitsShape>; readonly finishing?: boolean } = {}
) {
  const items = Items.makeMade(finishing)
  const others = makeOthers()
  const context = yield* Layer.build(Http.layer({ port: 0, ownerToken, ...options }).pipe(
    Layer.provideMerge(Layer.mergeAll(serve(Items.Group).pipe(Layer.provide(Items.handlers(items))), others.layer).pipe(Layer.provideMerge(app(makeCounts(), limits)))),
    Layer.provide(Layer.succeed(Limits.Limits, { ...Limits.defaults, ...limits }))
  ))
  return { port: Number(new URL(Context.get(context, Http.Http).url).port), items, others: others.made, context }
})

const asEvents = { ...json, accept: "text/event-stream" }
const asLines = { ...json, accept: "application/x-ndjson" }

/** What a reader of server-sent events is told, field by field. */
const messagesOf = (text: string) =>
  text.split("\n\n").slice(0, -1).filter((block) => !block.startsWith(":")).map((block) => {
    const field = (name: string) => block.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2)
    return { id: field("id"), event: field("event"), data: JSON.parse(field("data") ?? "null") as unknown }
  })
const linesOf = (text: string) => text.split("\n").slice(0, -1).map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>)

/** A post by hand, of which as much is read as is wanted. */
const open = Effect.fnUntraced(function*(port: number, event: string, data: unknown = {}, accept = "text/event-stream", more = "") {
  const raw = yield* Raw.connect(port)
  const body = JSON.stringify(data)
  raw.socket.write(`POST /events/${event} HTTP/1.1\r\nHost: localhost:${port}\r\nContent-Type: application/json\r\nAccept: ${accept}\r\n${more}Content-Length: ${body.length}\r\n\r\n${body}`)
  return raw
})

describe("items", () => {
  it.live("come as events with their number, and the last event says that it is the end", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const { headers, status, text } = yield* post(port, "s:count", { to: 3, chunk: 2 }, asEvents)
      expect([status, headers["content-type"], headers["cache-control"], headers["x-correlation-id"]])
        .toEqual([200, "text/event-stream", "no-store", expect.stringMatching(/^[0-9a-f-]{36}$/)])
      expect(text).toBe("id: 1\ndata: 1\n\nid: 2\ndata: 2\n\nid: 3\ndata: 3\n\nevent: end\ndata: {\"items\":3}\n\n")
    }))

  it.live("come as lines, none of which is mistaken for the last", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const { headers, status, text } = yield* post(port, "s:dates", { of: "2020-02-02T00:00:00.000Z" }, asLines)
      expect([status, headers["content-type"]]).toEqual([200, "application/x-ndjson"])
      expect(text).toBe("{\"data\":\"2020-02-02T00:00:00.000Z\"}\n{\"data\":\"2020-02-02T00:00:00.001Z\"}\n{\"end\":{\"items\":2}}\n")
    }))

  it.live("of a stream that has none are an end, and a CloudEvent asks as JSON does", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      expect((yield* post(port, "s:count", { to: 0, chunk: 1 }, asEvents)).text).toBe("event: end\ndata: {\"items\":0}\n\n")
      const event = { specversion: "1.0", id: "c1", source: "/x", type: "s:count", data: { to: 1, chunk: 1 } }
      expect((yield* post(port, "s:count", event, { ...asLines, "content-type": "application/cloudevents+json" })).text).toBe("{\"data\":1}\n{\"end\":{\"items\":1}}\n")
    }))

  it.live("come as they are made, not when all are", () =>
    Effect.gen(function*() {
      const { others, port } = yield* start()
      const raw = yield* open(port, "s:endless")
      yield* eventually(() => raw.text.includes("id: 1000\ndata: \"item 1000\"\n\n"))
      expect(raw.text).not.toContain("event: end")
      expect(others.wide).toBe(0)
    }))
})

describe("what goes wrong", () => {
  it.live("before the first item is a problem with its status, whatever was to come", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      for (const as of [asEvents, asLines]) {
        const invalid = yield* post(port, "s:count", { to: "x" }, as)
        expect([invalid.status, invalid.headers["content-type"], invalid.body.reason]).toEqual([400, "application/problem+json", "PayloadInvalid"])
        expect((yield* post(port, "s:nope", {}, as)).body).toMatchObject({ status: 404, reason: "UnknownEvent" })
        expect((yield* post(port, "s:count", "{", as)).body).toMatchObject({ status: 400, reason: "PayloadInvalid" })
      }
    }))

  it.live("instead of the first item is one too, however long it took", () =>
    Effect.gen(function*() {
      const { others, port } = yield* start()
      const raw = yield* open(port, "w:gated", { fail: "first" }, "application/x-ndjson")
      yield* eventually(() => others.waiting === 1)
      expect(raw.text).toBe("")
      Deferred.doneUnsafe(others.gate, Exit.void)
      yield* eventually(() => raw.text.endsWith("}"))
      expect(raw.text).toMatch(/^HTTP\/1\.1 422 /)
      expect(raw.text).toContain("application/problem+json")
    }))

  it.live("later is the last that comes, after all that went well", () =>
    Effect.gen(function*() {
      const { port } = yield* start({ limits: { frameBytes: 1000 } })
      const expected = {
        fail: { status: 422, reason: "Refused", error: { _tag: "Refused", why: "so" } },
        die: { status: 500, reason: "Defect" },
        interrupt: { status: 503, reason: "Interrupted", retryable: true },
        wrong: { status: 500, reason: "ReplyInvalid" },
        unwritable: { status: 500, reason: "ReplyInvalid" },
        long: { status: 413, reason: "LimitExceeded", details: { limit: "frameBytes", max: 1000 } }
      }
      for (const [how, problem] of Object.entries(expected)) {
        const said = yield* post(port, "s:broken", { how }, asEvents)
        expect([said.status, messagesOf(said.text)]).toMatchObject([200, [{ id: "1", data: 1 }, { id: "2", data: 2 }, { event: "error", data: problem }]])
        expect(said.text).not.toContain("a secret")
        const listed = linesOf((yield* post(port, "s:broken", { how }, asLines)).text)
        expect(listed).toMatchObject([{ data: 1 }, { data: 2 }, { error: problem }])
      }
      // Of a chunk whose third item cannot be sent the first two are.
      expect(linesOf((yield* post(port, "s:together", {}, asLines)).text)).toMatchObject([{ data: "one" }, { data: "two" }, { error: { reason: "LimitExceeded" } }])
    }))

  it.live("an error that cannot be written says so, and breaks nobody else", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      expect(messagesOf((yield* post(port, "w:odd", {}, asEvents)).text)).toMatchObject([{ data: 1 }, { event: "error", data: { status: 500 } }])
      expect((yield* post(port, "s:once", {})).status).toBe(200)
    }))

  it.live("who may no longer hear it is told so in the midst of it; who never might learns nothing", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const permissions = Context.get(context, Permissions)
      const { id, principal, token } = yield* permissions.createToken({ by: "owner" })
      const bearer = { authorization: `Bearer ${token}` }
      for (const event of ["s:endless", "s:once"]) {
        expect((yield* post(port, event, {}, { ...asEvents, ...bearer })).body).toMatchObject({ status: 403, reason: "PermissionDenied" })
      }
      expect((yield* post(port, "s:endless", {}, { ...asEvents, ...bearer, "last-event-id": "1" })).status).toBe(403)
      yield* permissions.grant({ by: "owner", principal, rule: { pattern: "s:endless", actions: ["stream"], allow: true } })
      const raw = yield* open(port, "s:endless", {}, "text/event-stream", `Authorization: Bearer ${token}\r\n`)
      yield* eventually(() => raw.text.includes("id: 100\n"))
      yield* permissions.revokeToken({ id, by: "owner" })
      yield* eventually(() => raw.text.includes("event: error"))
      expect(raw.text).toContain("\"reason\":\"Unauthenticated\"")
    }))
})

describe("what is accepted", () => {
  const anyway: ReadonlyArray<readonly [accept: string, type: string]> = [
    ["text/event-stream", "text/event-stream"], ["application/json, text/event-stream", "text/event-stream"], ["TEXT/Event-Stream ; charset=utf-8", "text/event-stream"],
    ["application/x-ndjson;q=0.9, text/event-stream;q=0.8", "application/x-ndjson"], ["application/x-ndjson, text/event-stream", "application/x-ndjson"],
    ["text/event-stream;q=0, */*", "application/problem+json"], ["*/*", "application/problem+json"], ["application/json", "application/problem+json"], ["text/html", "application/problem+json"]
  ]
  for (const [accept, type] of anyway) {
    it.live(`of a stream: ${accept} is ${type}`, () =>
      Effect.gen(function*() {
        const { port } = yield* start()
        const said = yield* post(port, "s:count", { to: 1, chunk: 1 }, { ...json, accept })
        expect(said.headers["content-type"]).toBe(type)
        if (said.status !== 200) expect(said.body).toMatchObject({ status: 400, reason: "WrongShape" })
      }))
  }

  it.live("of what is answered once: JSON, where that is taken too; else nothing is carried out", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      for (const accept of ["application/json, text/event-stream", "text/event-stream, */*;q=0.1", "text/html"]) {
        const said = yield* post(port, "s:once", {}, { ...json, accept })
        expect([said.status, said.text]).toEqual([200, "1"])
      }
      for (const accept of ["text/event-stream", "application/x-ndjson", "text/event-stream, application/json;q=0"]) {
        const request = yield* post(port, "s:once", {}, { ...json, accept })
        expect([request.status, request.headers["content-type"], request.body]).toMatchObject([406, "application/problem+json", { reason: "NotAcceptable", next: expect.stringContaining("application/json") }])
        expect((yield* post(port, "t:happened", { n: 1 }, { ...json, accept })).status).toBe(406)
      }
      // Nothing was stored: this is the first.
      expect((yield* post(port, "t:happened", { n: 1 })).body).toMatchObject({ position: 1 })
    }))

  it.live("nothing that would be carried out twice unseen: to go on where it was cut, or to be the same again", () =>
    Effect.gen(function*() {
      const { items, port } = yield* start()
      for (const header of ["Last-Event-ID", "Idempotency-Key"]) {
        const said = yield* post(port, "s:endless", {}, { ...asEvents, [header]: "7" })
        expect([said.status, said.body.details.problems[0].path, items.pulled]).toEqual([400, header, 0])
      }
      expect((yield* post(port, "s:count", { to: 1, chunk: 1 }, { ...asEvents, "last-event-id": "" })).status).toBe(200)
    }))

  it.live("nothing of a page of another site", () =>
    Effect.gen(function*() {
      const { items, port } = yield* start()
      const bad = [{ host: "evil.example" }, { origin: "http://evil.example" }, { "sec-fetch-site": "cross-site" }]
      for (const more of bad) expect((yield* post(port, "s:endless", {}, { ...asEvents, ...more })).status).toBe(403)
      expect((yield* ask(port, "POST", "/events/s:endless", { accept: "text/event-stream" }, "{}")).status).toBe(415)
      expect(items.pulled).toBe(0)
    }))
})

/** The responses and connections that servers of this process make, as node tells of them. */
const served = Effect.acquireRelease(
  Effect.sync(() => {
    const seen: Array<{ readonly response: NodeHttp.ServerResponse; readonly socket: Net.Socket }> = []
    // What node says it is.
    const look = (message: unknown) => void seen.push(message as { response: NodeHttp.ServerResponse; socket: Net.Socket })
    Diagnostics.subscribe("http.server.request.start", look)
    return { seen, look }
  }),
  ({ look }) => Effect.sync(() => void Diagnostics.unsubscribe("http.server.request.start", look))
)

const turns = (count: number): Effect.Effect<void> =>
  Effect.promise(async () => {
    for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
  })

describe("one that reads", () => {
  it.live("slowly holds no more than its buffer, and no item is made that has no room in it", () =>
    Effect.gen(function*() {
      const capacity = 512 * 1024
      const { others, port } = yield* start({ limits: { connectionBufferBytes: capacity } })
      const { seen } = yield* served
      const raw = yield* open(port, "w:wide")
      raw.socket.pause()
      /** Waits until no more is made: what was, and how much of it the system has not taken. */
      const stalled = Effect.gen(function*() {
        for (let before = -1; before !== others.wide;) {
          before = others.wide
          yield* turns(200)
        }
        const [{ response, socket } = expect.fail("no request came")] = seen
        expect(response.writableNeedDrain).toBe(true)
        return { made: others.wide, held: others.wide * width - (socket.bytesWritten - socket.writableLength) }
      })
      yield* eventually(() => others.wide > 0)
      const first = yield* stalled
      // The buffer is full, to an item; what node was handed at last is at most four of them more.
      expect(first.held).toBeGreaterThan(capacity - width)
      expect(first.held).toBeLessThan(capacity + 5 * width)
      // It goes on where it is read, and holds as much again when it is not.
      raw.socket.resume()
      yield* eventually(() => others.wide > first.made + 100)
      raw.socket.pause()
      const second = yield* stalled
      expect(second.held).toBeGreaterThan(capacity - width)
      expect(second.held).toBeLessThan(capacity + 5 * width)
      expect(raw.text.indexOf("id: 2\n")).toBeGreaterThan(width)
    }))

  it.live("slowly misses nothing of a stream that has ended long ago", () =>
    Effect.gen(function*() {
      const { port } = yield* start({ limits: { connectionBufferBytes: 64 * 1024 } })
      const raw = yield* open(port, "s:count", { to: 500_000, chunk: 1000 }, "application/x-ndjson")
      raw.socket.pause()
      yield* turns(500)
      raw.socket.resume()
      yield* eventually(() => raw.text.endsWith("\r\n0\r\n\r\n"))
      expect(raw.text).toContain("{\"data\":500000}\n")
      expect(raw.text).toContain("{\"end\":{\"items\":500000}}\n")
    }))

  it.live("no more, because it is gone, interrupts the handler, whose finalizers run; nobody else's", () =>
    Effect.gen(function*() {
      const { items, port } = yield* start({ finishing: false })
      const [gone, half, stays] = [yield* open(port, "s:endless"), yield* open(port, "s:endless"), yield* open(port, "s:endless", {}, "application/x-ndjson")]
      for (const raw of [gone, half, stays]) yield* eventually(() => raw.text.includes("item "))
      stays.socket.pause()
      gone.socket.destroy()
      // A stream has no end that one who has said all could wait for.
      half.socket.end()
      yield* turns(50)
      expect(items.finished).toBe(0)
      Deferred.doneUnsafe(items.finishing, Exit.void)
      yield* eventually(() => items.finished === 2)
      const before = stays.text.length
      stays.socket.resume()
      yield* eventually(() => stays.text.length > before)
      expect(items.finished).toBe(2)
    }))

  it.live("so little that there is no room for all is cut off, and its handler ends", () =>
    Effect.gen(function*() {
      const { others, port } = yield* start({ limits: { outgoingBytes: 512 * 1024 } })
      const raw = yield* open(port, "w:wide")
      raw.socket.pause()
      yield* eventually(() => others.left === 1)
      expect((yield* post(port, "s:once")).status).toBe(200)
    }))

  it.live("is one of the connections, and asks as much on it as others", () =>
    Effect.gen(function*() {
      const { others, port } = yield* start({ limits: { connections: 1, connectionRequests: 1 } })
      const raw = yield* open(port, "w:gated", { fail: "never" })
      yield* eventually(() => others.waiting === 1)
      const other = yield* open(port, "w:gated", { fail: "never" })
      yield* eventually(() => other.closed)
      expect(other.text).toMatch(/^HTTP\/1\.1 503 /)
      expect(other.text).toContain("\"limit\":\"connections\"")
      raw.socket.write(`POST /events/w:gated HTTP/1.1\r\nHost: localhost:${port}\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: 16\r\n\r\n{"fail":"never"}`)
      yield* turns(50)
      Deferred.doneUnsafe(others.gate, Exit.void)
      yield* eventually(() => raw.text.includes("connectionRequests"))
      expect(raw.text.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 503"])
      expect(others.waiting).toBe(1)
    }))
})

describe("several on one connection", () => {
  const asked = (port: number, event: string, data: unknown, accept = "text/event-stream") => {
    const body = JSON.stringify(data)
    return `POST /events/${event} HTTP/1.1\r\nHost: localhost:${port}\r\nContent-Type: application/json\r\nAccept: ${accept}\r\nContent-Length: ${body.length}\r\n\r\n${body}`
  }

  it.live("are answered in their order, each to its end", () =>
    Effect.gen(function*() {
      const { port } = yield* start({ limits: { connectionBufferBytes: 64 * 1024 } })
      const raw = yield* Raw.connect(port)
      const many = asked(port, "s:count", { to: 50_000, chunk: 100 }, "application/x-ndjson")
      raw.socket.write(many + many + asked(port, "s:once", {}, "*/*"))
      yield* eventually(() => raw.text.endsWith("\r\n\r\n1"))
      expect(raw.text.split("{\"data\":50000}\n{\"end\":{\"items\":50000}}\n")).toHaveLength(3)
      expect(raw.text.match(/HTTP\/1\.1 200/g)).toHaveLength(3)
    }))

  it.live("end with it, also those whose turn has not come", () =>
    Effect.gen(function*() {
      const { items, others, port } = yield* start()
      const raw = yield* Raw.connect(port)
      raw.socket.write(asked(port, "w:gated", { fail: "never" }) + asked(port, "s:endless", {}) + asked(port, "w:wide", {}))
      yield* eventually(() => others.waiting === 1 && items.pulled > 0 && others.wide > 0)
      raw.socket.destroy()
      yield* eventually(() => items.finished === 1 && others.left === 1)
    }))

  it.live("may be of an older protocol, in which the end of the connection is the end", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const raw = yield* Raw.connect(port)
      raw.socket.write(asked(port, "s:count", { to: 3, chunk: 3 }).replace("HTTP/1.1", "HTTP/1.0"))
      yield* eventually(() => raw.closed)
      expect(raw.text.slice(raw.text.indexOf("\r\n\r\n") + 4)).toBe("id: 1\ndata: 1\n\nid: 2\ndata: 2\n\nid: 3\ndata: 3\n\nevent: end\ndata: {\"items\":3}\n\n")
    }))
})

describe("what takes long", () => {
  it.effect("is kept alive with comments, from before the first item on; lines have none", () =>
    Effect.gen(function*() {
      const { others, port } = yield* start()
      const raw = yield* open(port, "w:gated", { fail: "first" })
      const lines = yield* open(port, "w:gated", { fail: "first" }, "application/x-ndjson")
      yield* eventually(() => others.waiting === 2)
      yield* TestClock.adjust("14 seconds")
      yield* turns(20)
      expect(raw.text).toBe("")
      for (const beats of [1, 2]) {
        yield* TestClock.adjust(beats === 1 ? "1 second" : "15 seconds")
        yield* eventually(() => raw.text.split(":\n\n").length === beats + 1)
      }
      expect(raw.text).toMatch(/^HTTP\/1\.1 200 /)
      Deferred.doneUnsafe(others.gate, Exit.void)
      yield* eventually(() => raw.text.endsWith("\r\n0\r\n\r\n"))
      // The status has been said: so the problem is told in an event.
      expect(raw.text).toContain("event: error\ndata: {\"type\":\"urn:ksi:reason:Refused\"")
      yield* eventually(() => lines.text.endsWith("}"))
      expect(lines.text).toMatch(/^HTTP\/1\.1 422 /)
    }))

  it.live("may end while the server stops; what does not is interrupted, and told so", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { items, others, port } = yield* Scope.provide(start({ drain: "500 millis" }), scope)
      const short = yield* open(port, "w:gated", { fail: "never" })
      const endless = yield* open(port, "s:endless")
      yield* eventually(() => others.waiting === 1 && endless.text.includes("item "))
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      Deferred.doneUnsafe(others.gate, Exit.void)
      yield* eventually(() => short.closed)
      expect([short.text.includes("event: end"), items.finished]).toEqual([true, 0])
      yield* eventually(() => endless.closed)
      expect([endless.text.includes("event: error"), endless.text.includes("\"reason\":\"Interrupted\""), items.finished]).toEqual([true, true, 1])
      yield* Fiber.await(closing)
    }))
})
