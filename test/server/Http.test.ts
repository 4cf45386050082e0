import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { observe } from "../../src/bus/Router.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import { Permissions } from "../../src/store/Permissions.ts"
import { Die, eventually, Happened } from "../wire/Daemon.ts"
import { ask, asOwner, json, ownerToken, post, Raw, start } from "./Server.ts"

const bearer = (token: string) => ({ ...json, authorization: `Bearer ${token}` })

describe("a posted event", () => {
  it.live("is answered with its value, whatever it is", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      for (const value of [{ a: [1, null] }, "text", 0, false, null, []]) {
        const { body, headers, status } = yield* post(port, "t:echo", { value })
        expect([status, body, headers["content-type"]]).toEqual([200, value, "application/json"])
        expect(headers["x-correlation-id"]).toMatch(/^[0-9a-f-]{36}$/)
        expect(headers["x-content-type-options"]).toBe("nosniff")
      }
      expect((yield* post(port, "t:later", { value: 7 })).body).toBe(7)
      expect((yield* post(port, "t:nothing")).text).toBe("null")
      expect((yield* ask(port, "POST", "/events/t%3Anothing", json)).status).toBe(200)
    }))

  it.live("keeps the digits of numbers that a double cannot hold", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      expect((yield* post(port, "t:echo", "{\"value\":12345678901234567890}")).text).toBe("12345678901234567890")
    }))

  it.live("that is a fact is stored and has its place", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const first = yield* post(port, "t:happened", { n: 1 })
      expect([first.status, first.body.position]).toEqual([201, 1])
      const [fact] = yield* Context.get(context, EventStore).read({ from: 1, limit: 10 })
      expect(fact).toMatchObject({ id: first.body.event_id, name: "t:happened", data: { n: 1 }, attributes: { principal: "local-http" } })
      expect(first.headers["x-correlation-id"]).toBe(first.body.event_id)
    }))

  it.live("that fails says why", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const refused = yield* post(port, "t:refuse", { why: "no" })
      expect([refused.status, refused.headers["content-type"]]).toEqual([422, "application/problem+json"])
      expect(refused.body).toMatchObject({ reason: "Refused", error: { _tag: "Refused", why: "no" }, retryable: false, correlationId: refused.headers["x-correlation-id"] })
      const died = yield* post(port, Die.name)
      expect([died.status, died.body.reason, died.text.includes("secret")]).toEqual([500, "Defect", false])
      const invalid = yield* post(port, "t:happened", { n: "two" })
      expect([invalid.status, invalid.body.reason, invalid.body.details.problems[0].path]).toEqual([400, "PayloadInvalid", "n"])
      const unknown = yield* post(port, "t:ecko")
      expect([unknown.status, unknown.body.reason, unknown.body.details.similar]).toEqual([404, "UnknownEvent", ["t:echo"]])
      expect((yield* post(port, "t:items")).body.reason).toBe("WrongShape")
    }))

  const bodies: ReadonlyArray<readonly [name: string, body: string | Uint8Array, status: number, reason: string]> = [
    ["not JSON", "{", 400, "PayloadInvalid"],
    ["not UTF-8", new Uint8Array([0x22, 0xff, 0x22]), 400, "PayloadInvalid"],
    ["not an object", "[1]", 400, "PayloadInvalid"],
    ["too deep", "[".repeat(100_000), 413, "LimitExceeded"],
    ["too long", `{"value":"${"x".repeat(5000)}"}`, 413, "LimitExceeded"]
  ]
  for (const [name, body, status, reason] of bodies) {
    it.live(`with a body that is ${name}`, () =>
      Effect.gen(function*() {
        const { port } = yield* start({ limits: { frameBytes: 4096 } })
        const said = yield* ask(port, "POST", "/events/t:echo", json, body)
        expect([said.status, said.body.reason]).toEqual([name === "too deep" ? 413 : status, reason])
      }))
  }

  it.live("whose body is too long is answered before its end, and the connection goes on", () =>
    Effect.gen(function*() {
      const { port } = yield* start({ limits: { frameBytes: 4096 } })
      const raw = yield* Raw.connect(port)
      raw.socket.write(`POST /events/t:echo HTTP/1.1\r\nHost: localhost:${port}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`)
      for (let n = 0; n < 5; n++) raw.socket.write(`400\r\n${"x".repeat(1024)}\r\n`)
      yield* eventually(() => raw.text.includes("LimitExceeded"))
      raw.socket.write(`0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: localhost:${port}\r\n\r\n`)
      yield* eventually(() => raw.text.includes("\"live\""))
      expect(raw.text.match(/HTTP\/1\.1 (\d+)/g)).toEqual(["HTTP/1.1 413", "HTTP/1.1 200"])
    }))

  const types: ReadonlyArray<readonly [type: string | undefined, status: number]> = [
    ["application/json", 200], ["Application/JSON; charset=UTF-8", 200], ["application/json; charset=\"utf-8\"", 200],
    ["application/json; charset=latin1", 415], [undefined, 415], ["", 415], ["text/plain", 415], ["application/x-www-form-urlencoded", 415],
    ["multipart/form-data; boundary=x", 415], ["text/plain; application/json", 415], ["application/jsonx", 415], ["application/cloudevents-batch+json", 415]
  ]
  for (const [type, status] of types) {
    it.live(`of the type ${String(type)}: ${status}`, () =>
      Effect.gen(function*() {
        const { counts, port } = yield* start()
        const said = yield* ask(port, "POST", "/events/t:echo", type === undefined ? {} : { "content-type": type }, "{\"value\":1}")
        expect(said.status).toBe(status)
        expect(counts.running).toBe(0)
      }))
  }

  it.live("that is compressed is of no type that is taken", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      for (const [coding, status] of [["gzip", 415], ["gzip, identity", 415], ["identity", 200]] as const) {
        expect((yield* post(port, "t:echo", { value: 1 }, { ...json, "content-encoding": coding })).status).toBe(status)
      }
    }))

  it.live("with an idempotency key is carried out once, quoted or not", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const keyed = (key: string, n: number) => post(port, "t:happened", { n }, { ...json, "idempotency-key": key })
      const first = yield* keyed("k1", 1)
      expect(yield* keyed("\"k1\"", 1)).toMatchObject({ status: 201, body: first.body })
      expect(yield* keyed("k1", 2)).toMatchObject({ status: 409, body: { reason: "IdempotencyConflict" } })
      expect((yield* keyed("x".repeat(257), 1)).status).toBe(400)
      expect(Context.get(context, EventStore).head()).toBe(1)
    }))

  it.live("is interrupted when who asked goes away", () =>
    Effect.gen(function*() {
      const { counts, port } = yield* start()
      const asking = yield* Effect.forkChild(post(port, "t:forever"))
      yield* Deferred.await(counts.some)
      yield* Fiber.interrupt(asking)
      yield* eventually(() => counts.interrupted === 1)
    }))
})

describe("a posted CloudEvent", () => {
  const event = { specversion: "1.0", id: "e-1", source: "/shop", type: "t:happened", data: { n: 1 }, time: "2020-01-02T03:04:05.678901Z", rating: 5 }
  const structured = { "content-type": "application/cloudevents+json; charset=utf-8" }
  const first = (context: Context.Context<EventStore>) =>
    Effect.map(Context.get(context, EventStore).read({ from: 1, limit: 10 }), (facts) => facts[0])

  it.live("keeps its identity, its time and its attributes; the same again is the same", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      for (let n = 0; n < 2; n++) {
        expect(yield* post(port, "t:happened", event, structured)).toMatchObject({ status: 201, body: { event_id: "e-1", position: 1 } })
      }
      expect(yield* first(context)).toMatchObject({
        id: "e-1", source: "/shop", streamId: "t", time: event.time, data: { n: 1 }, timestamp: Date.parse(event.time), attributes: { rating: 5, principal: "local-http" }
      })
      const other = yield* post(port, "t:happened", { ...event, data: { n: 2 } }, structured)
      expect([other.status, other.body.reason]).toEqual([409, "IdConflict"])
      expect(Context.get(context, EventStore).head()).toBe(1)
    }))

  it.live("runs the fact's handlers once", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const heard: Array<string> = []
      const observer = observe("t:happened", ({ id }) => Effect.sync(() => heard.push(id)))
      yield* Layer.build(Layer.provide(observer, Layer.succeedContext(context)))
      for (let n = 0; n < 3; n++) yield* post(port, "t:happened", event, structured)
      yield* post(port, "t:happened", { ...event, id: "e-2" }, structured)
      yield* eventually(() => heard.includes("e-2"))
      expect(heard).toEqual(["e-1", "e-2"])
    }))

  it.live("in headers is the same", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const headers = { ...json, "ce-specversion": "1.0", "ce-id": "e%201", "ce-source": "/shop", "ce-type": "t:happened", "ce-note": "caf%C3%A9" }
      expect((yield* post(port, "t:happened", { n: 1 }, headers)).status).toBe(201)
      expect(yield* first(context)).toMatchObject({ id: "e 1", source: "/shop", time: undefined, attributes: { note: "café" }, data: { n: 1 } })
    }))

  it.live("of a request carries its data", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      expect((yield* post(port, "t:echo", { ...event, type: "t:echo", data: { value: 3 } }, structured)).body).toBe(3)
    }))

  const wrong: ReadonlyArray<readonly [name: string, change: object, path: string]> = [
    ["without an id", { id: undefined }, ""],
    ["of another version", { specversion: "0.3" }, ""],
    ["of another event", { type: "t:echo" }, "type"],
    ["of another stream than its data says", { subject: "other" }, "subject"],
    ["that says it came from this daemon", { source: "/ksi" }, "source"]
  ]
  for (const [name, change, path] of wrong) {
    it.live(`${name} is refused`, () =>
      Effect.gen(function*() {
        const { context, port } = yield* start()
        const said = yield* post(port, "t:happened", { ...event, ...change }, structured)
        expect([said.status, said.body.reason, said.body.details.problems[0].path]).toEqual([400, "PayloadInvalid", path])
        expect(Context.get(context, EventStore).head()).toBe(0)
      }))
  }

  it.live("cannot say who sends it", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      yield* post(port, "t:happened", { ...event, principal: "somebody" }, structured)
      expect((yield* first(context))?.attributes["principal"]).toBe("local-http")
    }))
})

describe("what there is to ask", () => {
  it.live("is told to each as far as it is for them", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const names = (body: { namespaces: Record<string, { events: ReadonlyArray<{ name: string }> }> }) =>
        Object.values(body.namespaces).flatMap(({ events }) => events.map(({ name }) => name))
      const local = names((yield* ask(port, "GET", "/events")).body)
      const owner = names((yield* ask(port, "GET", "/events", asOwner)).body)
      expect(local).toContain("t:echo")
      expect([local.includes("system:shutdown"), owner.includes("system:shutdown")]).toEqual([false, true])
      expect(names((yield* ask(port, "GET", "/events?pattern=t:*")).body)).not.toContain("system:health")
      expect((yield* ask(port, "GET", "/events?pattern=::")).body.reason).toBe("PatternInvalid")
      const help = yield* ask(port, "GET", "/events/t:happened")
      expect(help.body).toMatchObject({ event: "t:happened", kind: "fact", schemas: { payload: { type: "object" } } })
      expect((yield* ask(port, "GET", "/events/system:shutdown")).status).toBe(401)
    }))

  const places: ReadonlyArray<readonly [method: string, path: string, status: number, allow?: string]> = [
    ["GET", "/", 404], ["GET", "/nope", 404], ["POST", "/nope", 404], ["GET", "/events/", 404], ["GET", "/events/%zz", 404], ["GET", "//events", 404],
    ["DELETE", "/events", 405, "GET"], ["POST", "/events", 405, "GET"], ["PUT", "/events/t:echo", 405, "GET, POST"], ["OPTIONS", "/events/t:echo", 405, "GET, POST"],
    ["POST", "/subscribe", 405, "GET"], ["POST", "/health/live", 405, "GET"], ["GET", "/ws", 426], ["HEAD", "/events", 200], ["HEAD", "/health/ready", 200],
    ["GET", "/metrics", 200], ["POST", "/metrics", 405, "GET"], ["GET", "/health/live", 200], ["GET", "/health/ready", 200], ["GET", "/health/live?x", 200]
  ]
  for (const [method, path, status, allow] of places) {
    it.live(`${method} ${path}: ${status}`, () =>
      Effect.gen(function*() {
        const { port } = yield* start()
        const said = yield* ask(port, method, path)
        expect([said.status, said.headers["allow"]]).toEqual([status, allow])
        if (method === "HEAD") expect(said.text).toBe("")
        expect(Object.keys(said.headers).filter((name) => name.startsWith("access-control"))).toEqual([])
      }))
  }
})

describe("the figures", () => {
  it.live("are for whoever may ask how the runtime is", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const { token } = yield* Context.get(context, Permissions).createToken({ by: "owner" })
      const told = yield* ask(port, "GET", "/metrics")
      expect([told.status, told.headers["content-type"]]).toEqual([200, "text/plain; version=0.0.4; charset=utf-8"])
      expect(told.text).toMatch(/^ksi_store_position [1-9]/m)
      expect((yield* ask(port, "GET", "/metrics", bearer(token))).status).toBe(403)
      expect((yield* ask(port, "GET", "/metrics", asOwner)).status).toBe(200)
    }))
})

describe("who asks", () => {
  const shutdown = (port: number, headers: Readonly<Record<string, string>>) => post(port, "system:shutdown", {}, headers)

  it.live("is local-http without a token, the owner with the owner's, and who a token says", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const { token } = yield* Context.get(context, Permissions).createToken({ profile: "restricted", by: "owner" })
      const health = (headers: Readonly<Record<string, string>>) => post(port, "system:health", {}, headers)
      expect([(yield* health(json)).status, (yield* health(bearer(token))).status, (yield* health(asOwner)).status]).toEqual([200, 200, 200])
      const anonymous = yield* shutdown(port, json)
      expect([anonymous.status, anonymous.body.reason, anonymous.headers["www-authenticate"]]).toEqual([401, "PermissionDenied", "Bearer realm=\"ksi\""])
      expect(anonymous.body.next).toContain("permission grant local-http system:shutdown")
      const known = yield* shutdown(port, bearer(token))
      expect([known.status, known.body.reason]).toEqual([403, "PermissionDenied"])
      expect((yield* shutdown(port, asOwner)).status).toBe(200)
    }))

  for (const authorization of ["Bearer nonsense", "Bearer", "Basic b3duZXI6", `Bearer ${ownerToken}x`, `Token ${ownerToken}`, "Bearer a b"]) {
    it.live(`${authorization} is nobody, whatever is asked`, () =>
      Effect.gen(function*() {
        const { port } = yield* start()
        for (const [method, path] of [["POST", "/events/system:health"], ["GET", "/events"], ["GET", "/subscribe"], ["GET", "/metrics"]] as const) {
          const said = yield* ask(port, method, path, { ...json, authorization })
          expect([said.status, said.body.reason]).toEqual([401, "Unauthenticated"])
        }
        expect((yield* ask(port, "GET", "/health/live", { authorization })).status).toBe(200)
      }))
  }

  it.live("a revoked token is nobody's at once, on a connection that is open too", () =>
    Effect.gen(function*() {
      const { context, port } = yield* start()
      const permissions = Context.get(context, Permissions)
      const { id, token } = yield* permissions.createToken({ profile: "standard", by: "owner" })
      const raw = yield* Raw.connect(port)
      const line = `GET /events HTTP/1.1\r\nHost: localhost:${port}\r\nAuthorization: Bearer ${token}\r\n\r\n`
      raw.socket.write(line)
      yield* eventually(() => raw.text.includes("namespaces"))
      yield* permissions.revokeToken({ id, by: "owner" })
      raw.socket.write(line)
      yield* eventually(() => raw.text.includes("Unauthenticated"))
    }))

  it.live("on an address that others can reach is told by a token, and by nothing else", () =>
    Effect.gen(function*() {
      const { port } = yield* start({ host: "0.0.0.0" })
      const host = { host: `localhost:${port}` }
      expect((yield* ask(port, "GET", "/events", host)).status).toBe(401)
      expect((yield* ask(port, "GET", "/events", { ...host, ...asOwner })).status).toBe(200)
      expect((yield* ask(port, "GET", "/health/ready", host)).status).toBe(200)
    }))
})

describe("foreign pages", () => {
  const places = [["GET", "/health/live"], ["GET", "/events"], ["GET", "/subscribe"], ["GET", "/ws"], ["GET", "/nope"], ["POST", "/events/t:echo"], ["OPTIONS", "/events/t:echo"], ["DELETE", "/"]] as const
  const foreign: ReadonlyArray<readonly [name: string, headers: Readonly<Record<string, string>>, reason: string]> = [
    ["a name that leads here (DNS rebinding)", { host: "evil.example:4600" }, "ForeignHost"],
    ["another origin", { origin: "http://evil.example" }, "ForeignOrigin"],
    ["no origin to speak of", { origin: "null" }, "ForeignOrigin"],
    ["another site", { "sec-fetch-site": "cross-site" }, "ForeignOrigin"],
    ["another port of this machine", { "sec-fetch-site": "same-site", origin: "http://localhost:3000" }, "ForeignOrigin"],
    ["a form without CORS", { origin: "http://evil.example", "content-type": "text/plain", "sec-fetch-mode": "no-cors", "sec-fetch-site": "cross-site" }, "ForeignOrigin"],
    ["the owner's token in it", { ...asOwner, origin: "http://evil.example" }, "ForeignOrigin"]
  ]
  for (const [name, headers, reason] of foreign) {
    it.live(`${name}: refused everywhere`, () =>
      Effect.gen(function*() {
        const { context, port } = yield* start()
        for (const [method, path] of places) {
          // Who watches the process asks it by its address.
          if (reason === "ForeignHost" && path === "/health/live") continue
          const said = yield* ask(port, method, path, { "content-type": "application/json", ...headers }, method === "POST" ? "{\"value\":1}" : undefined)
          expect([method, path, said.status, said.body.reason]).toEqual([method, path, 403, reason])
        }
        const upgrade = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" }
        expect((yield* ask(port, "GET", "/ws", { ...headers, ...upgrade })).body.reason).toBe(reason)
        expect(Context.get(context, EventStore).head()).toBe(0)
      }))
  }

  it.live("by any name it may be asked whether it lives, and nothing else", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const probe = (path: string, more = {}) => Effect.map(ask(port, "GET", path, { host: "10.1.2.3:4600", ...more }), ({ status }) => status)
      expect([yield* probe("/health/live"), yield* probe("/health/ready"), yield* probe("/metrics"), yield* probe("/health/x")]).toEqual([200, 200, 403, 403])
    }))

  it.live("a form that a page of this machine posts without saying so is of no type that is taken", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      for (const type of ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"]) {
        expect((yield* ask(port, "POST", `/events/${Happened.name}`, { "content-type": type }, "{\"n\":1}")).status).toBe(415)
      }
    }))
})

describe("the server", () => {
  it.live("says when its port is taken", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const again = yield* Effect.flip(start({ port }))
      expect(again).toBeInstanceOf(KsiError)
      expect(again.reason).toMatchObject({ _tag: "ListenFailed", address: `http://127.0.0.1:${port}`, taken: true, problem: "the port is in use" })
      expect(again.reason.next).toContain("--port")
    }))

  it.live("lets what runs end, answers no more, and is gone", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { counts, port } = yield* Scope.provide(start({ drain: "10 seconds" }), scope)
      const idle = yield* Raw.connect(port)
      const busy = yield* Raw.connect(port)
      const head = (path: string) => `Host: localhost:${port}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}`.replace(/^/, `POST ${path} HTTP/1.1\r\n`)
      busy.socket.write(head("/events/t:forever"))
      yield* Deferred.await(counts.some)
      const following = yield* Raw.connect(port)
      following.socket.write(`GET /subscribe HTTP/1.1\r\nHost: localhost:${port}\r\n\r\n`)
      yield* eventually(() => following.text.includes("retry"))
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* eventually(() => idle.closed && following.closed)
      expect(busy.closed).toBe(false)
      // Pipelined behind what runs: it came too late.
      busy.socket.destroy()
      yield* Fiber.join(closing)
      expect(counts.interrupted).toBe(1)
    }))

  it.live("interrupts what has not ended in time, and says so", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { counts, port } = yield* Scope.provide(start({ drain: "20 millis" }), scope)
      const asking = yield* Effect.forkChild(post(port, "t:forever"))
      yield* Deferred.await(counts.some)
      yield* Scope.close(scope, Exit.void)
      expect(yield* Fiber.join(asking)).toMatchObject({ status: 503, body: { reason: "Interrupted", retryable: true }, headers: { "retry-after": "1" } })
    }))

  it.live("drops who is slow with the head or the body, and nobody else", () =>
    Effect.gen(function*() {
      const { port } = yield* start({ limits: { headerMillis: 100, bodyMillis: 200 } })
      const head = yield* Raw.connect(port)
      head.socket.write("GET /health/live HTTP/1.1\r\nHost: loc")
      const body = yield* Raw.connect(port)
      body.socket.write(`POST /events/t:echo HTTP/1.1\r\nHost: localhost:${port}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`)
      const silent = yield* Raw.connect(port)
      const busy = yield* Effect.forkChild(Effect.forever(ask(port, "GET", "/health/live")))
      yield* eventually(() => head.closed && body.closed && silent.closed)
      expect([head.text, body.text].map((text) => text.slice(0, 12))).toEqual(["HTTP/1.1 408", "HTTP/1.1 408"])
      expect(head.text).toContain("RequestTimeout")
      yield* Fiber.interrupt(busy)
    }))

  it.live("answers what is no HTTP, and headers beyond the limit", () =>
    Effect.gen(function*() {
      const { port } = yield* start({ limits: { headerBytes: 2048 } })
      const nonsense = yield* Raw.connect(port)
      nonsense.socket.write("{\"event\":\"system:health\"}\n")
      const long = yield* Raw.connect(port)
      long.socket.write(`GET /health/live HTTP/1.1\r\nHost: localhost:${port}\r\nX-Long: ${"x".repeat(4096)}\r\n\r\n`)
      const two = yield* Raw.connect(port)
      two.socket.write(`GET http://evil.example/ HTTP/1.1\r\nHost: localhost:${port}\r\n\r\n`)
      yield* eventually(() => nonsense.text.includes("}") && long.text.includes("}") && two.text.includes("}"))
      expect([nonsense.text, long.text, two.text].map((text) => text.slice(9, 12))).toEqual(["400", "431", "404"])
      expect(JSON.parse(long.text.split("\r\n\r\n")[1] ?? "")).toMatchObject({ reason: "HeadersTooLarge", status: 431 })
    }))

  it.live("takes no more connections than the limit, nor requests at once on one", () =>
    Effect.gen(function*() {
      const { connections, counts, port } = yield* start({ limits: { connections: 2, connectionRequests: 3 } })
      const first = yield* Raw.connect(port)
      const request = `POST /events/t:forever HTTP/1.1\r\nHost: localhost:${port}\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n`
      first.socket.write(request.repeat(10))
      yield* eventually(() => counts.running === 3)
      yield* Raw.connect(port)
      yield* eventually(() => connections() === 2)
      const third = yield* Raw.connect(port)
      yield* eventually(() => third.closed || third.text !== "")
      yield* eventually(() => third.text.includes("}"))
      expect(third.text.slice(9, 12)).toBe("503")
      expect(counts.running).toBe(3)
    }))
})
