// Who may do what, from one end to the other: every built-in event × every kind of principal × every surface, and what
// becomes of connections and commands.
import { afterAll, beforeAll, describe, expect, it } from "@effect/vitest"
import { WebSocket } from "@effect/platform-node/NodeWS"
import { Context, Deferred, Effect, Layer, Result, Schema } from "effect"
import { TestClock } from "effect/testing"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { Activity } from "../../src/bus/Activity.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import * as Plugin from "../../src/bus/Plugin.ts"
import { Router } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as EventPattern from "../../src/event/EventPattern.ts"
import * as Grant from "../../src/event/Grant.ts"
import * as Limits from "../../src/event/Limits.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as Consumers from "../../src/plugins/Consumers.ts"
import * as DeadLetter from "../../src/plugins/DeadLetter.ts"
import * as Maintenance from "../../src/plugins/Maintenance.ts"
import * as Module from "../../src/plugins/Module.ts"
import * as Monitor from "../../src/plugins/Monitor.ts"
import * as Permission from "../../src/plugins/Permission.ts"
import * as ReadModels from "../../src/plugins/ReadModels.ts"
import * as Store from "../../src/plugins/Store.ts"
import * as Streams from "../../src/plugins/Streams.ts"
import * as System from "../../src/plugins/System.ts"
import * as Time from "../../src/plugins/Time.ts"
import * as Trace from "../../src/plugins/Trace.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import { Permissions } from "../../src/store/Permissions.ts"
import * as Http from "../../src/server/Http.ts"
import * as Connection from "../../src/wire/Connection.ts"
import * as Control from "../../src/wire/Control.ts"
import * as Listener from "../../src/wire/Listener.ts"
import { ksi } from "../cli/commandLine.ts"
import { folder, Plain, type Reply } from "../wire/Daemon.ts"
import { Home } from "./Daemon.ts"

const Order = Event.make("shop:order", { payload: { n: Schema.Int }, success: Schema.Int })
const Wait = Event.make("shop:wait")
const Items = Event.make("shop:items", { success: Schema.Int, stream: true })
const Placed = Event.fact("shop:placed", { payload: { n: Schema.Int }, streamId: () => "shop" })
const Shop = EventGroup.make(Order, Wait, Items, Placed)

/** What a daemon has, but the process around it. */
const daemon = (gate: Deferred.Deferred<void>) =>
  Layer.mergeAll(
    System.layer, Store.layer, Streams.layer, Maintenance.layer, Time.layer, Trace.layer, Monitor.layer, DeadLetter.layer, ReadModels.layer, Consumers.layer, Module.layer, Permission.layer, Control.layer,
    Ksi.serve(Shop).pipe(Layer.provide(Shop.toLayer({
      "shop:order": ({ n }) => Effect.succeed(n),
      "shop:wait": () => Deferred.await(gate),
      "shop:items": () => { throw new Error("not over this wire") }
    })))
  ).pipe(Layer.provideMerge(Layer.mergeAll(Ksi.layerMemory, System.Shutdown.layer, Plugin.Plugins.layer)))

const start = Effect.gen(function*() {
  const gate = yield* Deferred.make<void>()
  const path = join(yield* folder, "run", "daemon.sock")
  const context = yield* Layer.build(Listener.layerUnix({ path }).pipe(Layer.provideMerge(Layer.fresh(daemon(gate)))))
  return { path, gate, context }
})

const hello = (token: unknown) => ({ event: "wire:hello", version: 1, token })

// ------------------------------------------------------------------------------------------------------------- matrix

/** Each kind of principal, and the level that it has in the table; `-1` is nobody. */
const levels: ReadonlyArray<Grant.Level> = ["anyone", "known", ...Grant.profileNames]
const kinds = {
  owner: levels.indexOf("owner"), "token of owner": levels.indexOf("owner"), trusted: levels.indexOf("trusted"),
  standard: levels.indexOf("standard"), "local-http": levels.indexOf("standard"), restricted: levels.indexOf("restricted"),
  "no profile": levels.indexOf("known"), unknown: 0, expired: 0, revoked: 0
} as const
type Kind = keyof typeof kinds
const all = Object.keys(kinds) as ReadonlyArray<Kind>

interface Bearer {
  readonly principal: string
  readonly token: string | undefined
}

const bearers: Effect.Effect<Record<Kind, Bearer>, KsiError, Permissions> = Effect.gen(function*() {
  const { createToken, revokeToken } = yield* Permissions
  const of = (profile?: Grant.ProfileName, expiresIn?: number) => createToken({ by: "owner", profile, expiresIn })
  const revoked = yield* of("owner")
  yield* revokeToken({ by: "owner", id: revoked.id })
  const expired = yield* of("owner", 1)
  yield* TestClock.adjust(1)
  return {
    owner: { principal: "owner", token: undefined }, "token of owner": yield* of("owner"), trusted: yield* of("trusted"), standard: yield* of("standard"),
    "local-http": { principal: "local-http", token: undefined }, restricted: yield* of("restricted"), "no profile": yield* of(),
    unknown: { principal: "somebody", token: `ksi_some-12345678_${"0".repeat(64)}` }, expired, revoked
  }
})

const refused = new Set(["PermissionDenied", "Unauthenticated"])
/** Whether the table lets a kind of principal do this. */
const expected = (kind: Kind, action: Grant.Action, name: string): boolean => {
  const level = kinds[kind]
  if (level === levels.indexOf("owner")) return true
  const least = Grant.builtins[name]
  // The users' own.
  if (least === undefined) return level >= levels.indexOf("standard")
  if (action === "subscribe") return level >= levels.indexOf("trusted")
  return action !== "emit" && level >= levels.indexOf(least)
}

const ownerToken = "ksi_http_owner"

/** The same daemon with HTTP in front of it. */
const startHttp = Effect.gen(function*() {
  const listening = Http.layer({ host: "127.0.0.1", port: 0, hosts: [], ownerToken })
  const context = yield* Layer.build(listening.pipe(Layer.provideMerge(Layer.fresh(daemon(yield* Deferred.make<void>())))))
  return { url: Context.get(context, Http.Http).url, context }
})

/** One request with everything that might pass for an identity, and what can be told of its answer but for names and ids. */
const http = (url: string, method: string, path: string, token: string | undefined, data?: unknown, type = "application/json") =>
  Effect.promise(async () => {
    const answer = await fetch(`${url}${path}`, {
      method,
      headers: { "x-agent-id": "owner", "x-client-id": "owner", "x-principal": "owner", ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...(data === undefined ? {} : { "content-type": type }) },
      ...(data === undefined ? {} : { body: JSON.stringify(data) })
    })
    const { headers, status } = answer
    const isStream = headers.get("content-type") === "text/event-stream"
    if (isStream) await answer.body?.cancel()
    const text = isStream ? "" : await answer.text()
    const name = decodeURIComponent(path).replace(/^.*[/=]/, "")
    const same = [...headers].filter(([key]) => key !== "date" && key !== "content-length" && key !== "x-correlation-id")
    // As it came: the tests look into answers of many shapes.
    // oxlint-disable-next-line typescript/no-explicit-any
    const body: any = text === "" ? undefined : JSON.parse(text)
    const said = JSON.stringify([status, same, headers.get("x-correlation-id")?.length, text]).replaceAll(name, "NAME").replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}/g, "ID")
    return { status, body, said, isRefused: (status === 401 || status === 403) && refused.has(body?.reason) }
  })

/** A WebSocket that answers one at a time. */
class Socket {
  readonly webSocket: WebSocket
  private readonly replies: Array<Reply> = []
  private look: () => void = () => {}
  private asked = 0

  private constructor(webSocket: WebSocket) {
    this.webSocket = webSocket
    // By default a message is a Buffer.
    webSocket.on("message", (message) => {
      this.replies.push(JSON.parse((message as Buffer).toString("utf8")) as Reply)
      this.look()
    })
  }

  /** `undefined` where it is refused. */
  static connect(url: string, token: string | undefined) {
    return Effect.acquireRelease(
      Effect.callback<Socket | undefined>((resume) => {
        const webSocket = new WebSocket(`${url.replace("http", "ws")}/ws`, { headers: token === undefined ? {} : { authorization: `Bearer ${token}` } })
        const socket = new Socket(webSocket)
        webSocket.on("open", () => resume(Effect.succeed(socket)))
        webSocket.on("error", ({ message }) => resume(message.includes("401") ? Effect.succeed(undefined) : Effect.die(new Error(message))))
      }),
      (socket) => Effect.sync(() => socket?.webSocket.terminate())
    )
  }

  /** The next frame that comes. */
  readonly next: Effect.Effect<Reply> = Effect.callback((resume) => {
    this.look = () => {
      const reply = this.replies.shift()
      if (reply === undefined) return
      this.look = () => {}
      resume(Effect.succeed(reply))
    }
    this.look()
  })

  /** Also where it follows something, whose frames are passed over. */
  ask(frame: object): Effect.Effect<Reply> {
    return Effect.suspend(() => {
      const id = ++this.asked
      this.webSocket.send(JSON.stringify({ ...frame, correlation_id: id }))
      return Effect.repeat(this.next, { until: ({ correlation_id: answered }) => answered === id })
    })
  }
}

describe("the matrix", () => {
  it.effect("every built-in event has its least profile, and there is none besides", () =>
    Effect.gen(function*() {
      const { registry } = yield* Router
      const builtin = registry.list(Result.getOrThrow(EventPattern.parse("*"))).map(({ event }) => event.name).filter((name) => !name.startsWith("shop:"))
      expect(builtin).toEqual(Object.keys(Grant.builtins).toSorted())
    }).pipe(Effect.provide(daemon(Deferred.makeUnsafe()))))

  it.effect("in process: dispatch as a principal, and subscribe", () =>
    Effect.gen(function*() {
      const { registry } = yield* Router
      const dispatcher = yield* KsiService
      const { open } = yield* Subscriptions
      const who = yield* bearers
      for (const { event } of registry.list(Result.getOrThrow(EventPattern.parse("*")))) {
        const action = event.kind === "fact" ? "emit" : event.mode
        for (const kind of all) {
          const { principal } = who[kind]
          const error = yield* Effect.flip(Effect.andThen(dispatcher.dispatch(event.name, {}, { principal }), Effect.fail("answered"))).pipe(
            Effect.raceFirst(Effect.as(Effect.yieldNow.pipe(Effect.repeat({ times: 20 })), "waits")))
          const denied = error instanceof KsiError && refused.has(error.reason._tag)
          expect(denied, `${kind} ${action} ${event.name}`).toBe(!expected(kind, action, event.name))
          const heard = yield* Effect.exit(Effect.scoped(open(event.name, { principal })))
          expect(heard._tag === "Success", `${kind} subscribe ${event.name}`).toBe(expected(kind, "subscribe", event.name))
        }
      }
    }).pipe(Effect.provide(daemon(Deferred.makeUnsafe()))))

  it.effect("over the socket: as the bearer of a token, or as whoever opened it", () =>
    Effect.gen(function*() {
      const { context, path } = yield* start
      const who = yield* Effect.provideContext(bearers, context)
      const { registry } = yield* Effect.provideContext(Router, context)
      const events = registry.list(Result.getOrThrow(EventPattern.parse("*"))).map(({ event }) => event).filter(({ name }) => name !== "shop:wait" && name !== "wire:hello")
      for (const kind of all) {
        if (kind === "local-http") continue
        const { principal, token } = who[kind]
        const plain = yield* Plain.connect(path)
        const greeted = yield* plain.ask(token === undefined ? { event: "wire:hello", version: 1 } : hello(token))
        const isNobody = kinds[kind] === 0
        expect(greeted.data, kind).toMatchObject(isNobody ? { reason: "Unauthenticated" } : { principal })
        for (const event of events) {
          const action = event.kind === "fact" ? "emit" : event.mode
          const { data } = yield* plain.ask({ event: event.name, data: {}, _client_id: "owner", _agent_id: "owner" })
          // What it wants to hear is another question.
          const denied = data.reason === "Unauthenticated" || (data.reason === "PermissionDenied" && data.details.event === event.name)
          expect(denied, `${kind} ${action} ${event.name} ${JSON.stringify(data)}`).toBe(!expected(kind, action, event.name))
          const subscribed = yield* plain.ask({ event: "pubsub:subscribe", pattern: event.name, subscription_id: event.name })
          expect(subscribed.ok, `${kind} subscribe ${event.name}`).toBe(expected(kind, "subscribe", event.name))
          // Ended again: what follows would be told of it.
          if (subscribed.ok) yield* plain.ask({ event: "pubsub:unsubscribe", subscription_id: event.name })
        }
      }
    }))

  it.effect("over HTTP and WebSocket: as the bearer of a token, as the owner's, or as whoever is on this machine", () =>
    Effect.gen(function*() {
      const { context, url } = yield* startHttp
      const who = yield* Effect.provideContext(bearers, context)
      const { registry } = yield* Effect.provideContext(Router, context)
      const events = registry.list(Result.getOrThrow(EventPattern.parse("*"))).map(({ event }) => event).filter(({ name }) => name !== "shop:wait")
      for (const kind of all) {
        const token = kind === "owner" ? ownerToken : who[kind].token
        const isNobody = kinds[kind] === 0
        const socket = yield* Socket.connect(url, token)
        expect(socket === undefined, `${kind} /ws`).toBe(isNobody)
        for (const event of events) {
          const action = event.kind === "fact" ? "emit" : event.mode
          const { name } = event
          const posted = yield* http(url, "POST", `/events/${name}`, token, { _client_id: "owner", _agent_id: "owner" })
          const may = !isNobody && expected(kind, action, name)
          expect(posted.isRefused && (isNobody || posted.body.details.event === name), `${kind} POST ${name} ${JSON.stringify(posted.body)}`).toBe(!may)
          const told = yield* http(url, "GET", `/events/${name}`, token)
          if (may) expect(told.status, `${kind} GET ${name}`).toBe(200)
          const mayHear = !isNobody && expected(kind, "subscribe", name)
          const following = yield* http(url, "GET", `/subscribe?pattern=${name}`, token)
          expect(following.status === 200, `${kind} follow ${name}`).toBe(mayHear)
          if (socket === undefined || name === "wire:hello") continue
          const { data } = yield* socket.ask({ event: name, data: {}, _client_id: "owner", _agent_id: "owner" })
          const denied = data.reason === "Unauthenticated" || (data.reason === "PermissionDenied" && data.details.event === name)
          expect(denied, `${kind} ${action} ${name} over a WebSocket`).toBe(!may)
          const subscribed = yield* socket.ask({ event: "pubsub:subscribe", pattern: name, subscription_id: name })
          expect(subscribed.ok, `${kind} subscribe ${name} over a WebSocket`).toBe(mayHear)
          if (subscribed.ok) yield* socket.ask({ event: "pubsub:unsubscribe", subscription_id: name })
        }
      }
      // A greeting with a token that is none makes nobody of who was somebody.
      for (const kind of ["unknown", "expired", "revoked"] as const) {
        const socket = (yield* Socket.connect(url, undefined)) ?? expect.fail()
        expect((yield* socket.ask(hello(who[kind].token))).data.reason).toBe("Unauthenticated")
        expect((yield* socket.ask({ event: "system:health" })).data.reason).toBe("Unauthenticated")
      }
    }))

  it.live("what is refused over HTTP is in the journal, without what was sent", () =>
    Effect.gen(function*() {
      const { context, url } = yield* startHttp
      const secret = "not for the journal"
      yield* http(url, "POST", "/events/permission:grant", undefined, { principal: secret })
      yield* http(url, "POST", "/events/permission:granted", undefined, { specversion: "1.0", id: secret, source: "/s", type: "permission:granted", data: { secret } }, "application/cloudevents+json")
      yield* http(url, "GET", "/events/system:shutdown", undefined)
      const { records } = yield* Effect.provideContext(Effect.flatMap(Activity, ({ query }) => query({ limit: 10 })), context)
      expect(records.map(({ data, name, outcome, principal }) => [name, outcome, principal, data])).toEqual([
        ["system:help", "failure", "local-http", { event: "system:shutdown" }],
        ["permission:granted", "failure", "local-http", null],
        ["permission:grant", "failure", "local-http", null]
      ])
      expect(records.map(({ data }) => JSON.stringify(data)).join("")).not.toContain(secret)
    }))

  it.effect("of what is hidden nothing is learnt: it is as if nobody had registered it", () =>
    Effect.gen(function*() {
      const { context, url } = yield* startHttp
      const { restricted } = yield* Effect.provideContext(bearers, context)
      const asks = [
        (name: string, token: string | undefined) => http(url, "POST", `/events/${name}`, token, { n: 1 }),
        (name: string, token: string | undefined) => http(url, "POST", `/events/${name}`, token, { specversion: "1.0", id: "e", source: "/s", type: name, data: { n: 1 } }, "application/cloudevents+json"),
        (name: string, token: string | undefined) => http(url, "GET", `/events/${name}`, token),
        (name: string, token: string | undefined) => http(url, "HEAD", `/events/${name}`, token),
        (name: string, token: string | undefined) => http(url, "PUT", `/events/${name}`, token),
        (name: string, token: string | undefined) => http(url, "GET", `/subscribe?pattern=${name}`, token),
        (name: string, token: string | undefined) => http(url, "GET", `/events?pattern=${name}`, token)
      ]
      const hidden: ReadonlyArray<readonly [token: string | undefined, names: ReadonlyArray<string>]> = [
        [undefined, ["system:shutdown", "permission:granted", "permission:grant", "module:load"]],
        [restricted.token, ["shop:order", "shop:placed", "shop:items", "system:shutdown", "permission:granted"]]
      ]
      for (const [token, names] of hidden) {
        const unknown = { system: "system:nothing", permission: "permission:nothing", module: "module:nothing", shop: "shop:nothing" } as const
        for (const name of names) {
          // A name with this namespace is there.
          const other = unknown[name.split(":")[0] as keyof typeof unknown]
          for (const [n, ask] of asks.entries()) expect((yield* ask(name, token)).said, `${n} ${name}`).toBe((yield* ask(other, token)).said)
        }
      }
      // Nor from what is near to a name that nobody has.
      const near = yield* http(url, "POST", "/events/shop:ordr", restricted.token, {})
      expect(JSON.stringify(near.body)).not.toContain("shop:order")
      expect(JSON.stringify((yield* http(url, "POST", "/events/sho:p", undefined, {})).body)).toContain("shop")
    }))

  it.live("a token that is revoked ends what is followed with it at once", () =>
    Effect.gen(function*() {
      const { context, url } = yield* startHttp
      const { createToken, revokeToken } = yield* Effect.provideContext(Permissions, context)
      const { id, token } = yield* createToken({ by: "owner", profile: "standard" })
      const socket = (yield* Socket.connect(url, token)) ?? expect.fail()
      yield* socket.ask({ event: "pubsub:subscribe", pattern: "shop:*", subscription_id: "a" })
      const following = yield* Effect.promise(() => fetch(`${url}/subscribe?pattern=shop:*`, { headers: { authorization: `Bearer ${token}` } }))
      const told = following.text()
      const ended = socket.next
      yield* revokeToken({ by: "owner", id })
      expect(yield* Effect.promise(() => told)).toMatch(/event: error\ndata: .*"reason":"Unauthenticated"/)
      expect(yield* ended).toMatchObject({ event: "pubsub:subscribe", ok: false, subscription_id: "a", data: { reason: "Unauthenticated" } })
      expect((yield* socket.ask({ event: "shop:order", data: { n: 1 } })).data.reason).toBe("Unauthenticated")
    }))
})

// -------------------------------------------------------------------------------------------------------- connections

const replies = (lines: ReadonlyArray<Reply>) => lines.map(({ data, event, ok }) => [event, ok, data.reason ?? data.principal ?? data.result])

describe("a connection", () => {
  it.live("is its token's from the line of the greeting on, also of lines that came with it, and never the owner's again", () =>
    Effect.gen(function*() {
      const { context, path } = yield* start
      const { token } = yield* Effect.provideContext(Effect.flatMap(Permissions, ({ createToken }) => createToken({ by: "owner", profile: "restricted" })), context)
      const stop = { event: "permission:list", data: {} }
      const plain = yield* Plain.connect(path)
      plain.send(stop, hello(token), stop, { event: "wire:hello", version: 1 }, stop, { event: "wire:hello", version: 2 }, stop, hello("wrong"), stop, { event: "shop:order", data: { n: 1 } }, { event: "wire:hello", version: 1 })
      const lines = replies(yield* plain.received(11))
      expect(lines.map(([, ok, reason]) => ok === true ? "ok" : reason)).toEqual([
        "ok", "ok", "PermissionDenied", "ok", "PermissionDenied", "PayloadInvalid", "PermissionDenied",
        "Unauthenticated", "Unauthenticated", "Unauthenticated", "ok"
      ])
      expect(lines[10]).toEqual(["wire:hello", true, "anonymous"])
      // A good token lets nobody in again.
      expect((yield* plain.ask(hello(token))).ok).toBe(true)
      expect((yield* plain.ask({ event: "system:health" })).ok).toBe(true)
    }))

  it.live("a greeting that middleware holds up, or that is no good otherwise, changes who it is all the same", () =>
    Effect.gen(function*() {
      const { context, path } = yield* start
      const { token } = yield* Effect.provideContext(Effect.flatMap(Permissions, ({ createToken }) => createToken({ by: "owner", profile: "restricted" })), context)
      const held = yield* Deferred.make<void>()
      yield* Effect.provideContext(Layer.build(Middleware.use(
        Middleware.make("hold", { around: (next) => Effect.andThen(Deferred.await(held), next) }), { pattern: "wire:hello" }
      )), context)
      const plain = yield* Plain.connect(path)
      plain.send(hello(token), { event: "system:shutdown", correlation_id: "s" })
      expect((yield* plain.received(1))[0]).toMatchObject({ correlation_id: "s", data: { reason: "PermissionDenied" } })
      yield* Deferred.succeed(held, undefined)
      const other = yield* Plain.connect(path)
      for (const bad of [null, 7, {}, [token], "", "x".repeat(1_000_000), "é\u0000", ` ${token}`]) {
        const one = yield* Plain.connect(path)
        one.send({ event: "wire:hello", token: bad }, { event: "system:health" }, { event: "wire:hello", data: { version: 1, token: bad } })
        expect((yield* one.received(3)).map(({ data, ok }) => [ok, data.reason]).slice(1), JSON.stringify(bad).slice(0, 40)).toEqual([[false, "Unauthenticated"], [false, "Unauthenticated"]])
      }
      expect((yield* other.ask({ event: "system:health" })).ok).toBe(true)
    }))

  it.live("what was followed before ends with the greeting, and says so", () =>
    Effect.gen(function*() {
      const { context, path } = yield* start
      const plain = yield* Plain.connect(path)
      const { token } = yield* Effect.provideContext(Effect.flatMap(Permissions, ({ createToken }) => createToken({ by: "owner", profile: "standard" })), context)
      plain.send({ event: "pubsub:subscribe", pattern: "*", subscription_id: "a" }, hello(token), { event: "pubsub:subscribe", pattern: "*", subscription_id: "a" })
      yield* plain.received(4)
      plain.send({ event: "shop:placed", data: { n: 1 } })
      const lines = yield* plain.received(6)
      expect(lines.filter(({ correlation_id: id, subscription_id }) => id === undefined && subscription_id === "a")).toMatchObject([
        { event: "pubsub:subscribe", ok: false, data: { reason: "Unauthenticated" } }, { event: "shop:placed", position: 6 }
      ])
    }))

  it.live("a token that is revoked is over for the next request, for subscriptions at once; what runs is finished", () =>
    Effect.gen(function*() {
      const { context, gate, path } = yield* start
      const { createToken, revokeToken } = yield* Effect.provideContext(Permissions, context)
      const { id, token } = yield* createToken({ by: "owner", profile: "standard" })
      const plain = yield* Plain.connect(path)
      yield* plain.ask(hello(token))
      yield* plain.ask({ event: "pubsub:subscribe", pattern: "shop:*", subscription_id: "a" })
      plain.send({ event: "shop:wait", correlation_id: "w" })
      expect((yield* plain.ask({ event: "shop:order", data: { n: 7 } })).ok).toBe(true)
      yield* revokeToken({ by: "owner", id })
      const lines = yield* plain.received(4)
      expect(lines[3]).toMatchObject({ event: "pubsub:subscribe", ok: false, subscription_id: "a", data: { reason: "Unauthenticated" } })
      expect((yield* plain.ask({ event: "shop:order", data: { n: 7 } })).data).toMatchObject({ reason: "Unauthenticated" })
      yield* Deferred.succeed(gate, undefined)
      expect((yield* plain.received(6))[5]).toMatchObject({ event: "shop:wait", ok: true, correlation_id: "w" })
      expect((yield* plain.ask(hello(token))).data).toMatchObject({ reason: "Unauthenticated" })
    }))

  it.live("subscribers are told of what they may hear, of requests too; the token of a greeting is told to nobody", () =>
    Effect.gen(function*() {
      const { context, path } = yield* start
      const { createToken, grant } = yield* Effect.provideContext(Permissions, context)
      const { principal, token } = yield* createToken({ by: "owner" })
      yield* grant({ by: "owner", principal, rule: { pattern: "shop:order", actions: ["subscribe"], allow: true } })
      const few = yield* Plain.connect(path)
      yield* few.ask(hello(token))
      expect((yield* few.ask({ event: "pubsub:subscribe", pattern: "store:*", subscription_id: "b" })).data).toMatchObject({
        reason: "PermissionDenied", details: { principal, event: "store:*", action: "subscribe" }
      })
      yield* few.ask({ event: "monitor:subscribe", data: { event_patterns: ["shop:*", "wire:*"], client_id: "m" } })
      const everything = yield* Plain.connect(path)
      yield* everything.ask({ event: "pubsub:subscribe", pattern: "*", subscription_id: "c", requests: true })
      const other = yield* Plain.connect(path)
      yield* other.ask(hello(token))
      yield* other.ask({ event: "wire:hello", data: { version: 1, token } })
      const owner = yield* Plain.connect(path)
      yield* owner.ask({ event: "shop:placed", data: { n: 1 } })
      yield* owner.ask({ event: "shop:order", data: { n: 1 } })
      const told = (yield* few.received(4))[3]
      expect(told).toMatchObject({ event: "shop:order", subscription_id: "m" })
      expect(told).not.toHaveProperty("missed")
      // Two greetings, a fact and a request.
      expect((yield* everything.received(5)).slice(1).map(({ event }) => event).toSorted()).toEqual(["shop:order", "shop:placed", "wire:hello", "wire:hello"])
      const { records } = yield* Effect.provideContext(Effect.flatMap(Activity, ({ query }) => query({ limit: 100 })), context)
      const secret = token.split("_")[2] ?? expect.fail()
      expect(everything.lines.join("") + few.lines.join("") + JSON.stringify(records)).not.toContain(secret)
      expect(records.find(({ name, outcome }) => name === "pubsub:subscribe" && outcome === "failure")).toMatchObject({ principal })
    }))
})

describe("a client that is slow", () => {
  it.live("is not told what it may hear no longer, whatever had been got ready for it", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(Layer.fresh(daemon(Deferred.makeUnsafe())))
      const { createToken, grant, revoke } = yield* Effect.provideContext(Permissions, context)
      const { principal, token } = yield* createToken({ by: "owner" })
      for (const pattern of ["shop:*", "stock:*"]) yield* grant({ by: "owner", principal, rule: { pattern, actions: ["subscribe"], allow: true } })
      const written: Array<string> = []
      let sink: Connection.Sink = { bytes: () => {}, drained: () => {}, ended: () => {} }
      const transport: Connection.Transport = {
        start: (given) => void (sink = given),
        pause: () => {},
        resume: () => {},
        destroy: () => {},
        // It reads nothing until it says so.
        write: (text) => {
          written.push(text)
          return false
        }
      }
      yield* Connection.run(transport, { principal: "owner" }).pipe(
        Effect.provideContext(context), Effect.provideService(Limits.Limits, { ...Limits.defaults, connectionBufferBytes: 1 }), Effect.forkScoped({ startImmediately: true })
      )
      const read = Effect.gen(function*() {
        for (let turn = 0; turn < 20; turn++) {
          sink.drained()
          yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        }
      })
      sink.bytes(new TextEncoder().encode(`${JSON.stringify(hello(token))}\n${JSON.stringify({ event: "pubsub:subscribe", pattern: "*", subscription_id: "a" })}\n`))
      yield* read
      const store = yield* Effect.provideContext(EventStore, context)
      yield* store.appendTo("s", Array.from({ length: 10 }, (_, n) => ({ name: n === 9 ? "stock:level" : "shop:placed" })))
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      yield* revoke({ by: "owner", principal, pattern: "shop:*" })
      const before = written.join("").split("shop:placed").length
      yield* read
      const after = written.join("")
      expect(after).toContain("stock:level")
      // What was written is written; one more was on its way.
      expect(before).toBeLessThan(9)
      expect(after.split("shop:placed").length - before).toBeLessThanOrEqual(2)
    }))
})

// ----------------------------------------------------------------------------------------------------------- commands

const home = new Home()
const run = (token: string | undefined, ...argv: ReadonlyArray<string>) =>
  Effect.runPromise(ksi(argv, { env: { KSI_HOME: home.path, ...(token === undefined ? {} : { KSI_TOKEN: token }) } }))

describe("the command line", () => {
  beforeAll(async () => {
    await home.start("test/cli/app.ts")
  })
  afterAll(() => home[Symbol.asyncDispose]())

  it("a token is shown once, on stdout; its bearer may what it may, and is told what would help", async () => {
    const made = await run(undefined, "token", "create", "till", "--profile", "restricted", "--expires", "30d")
    expect(made).toMatchObject({ code: 0, stderr: expect.stringMatching(/^token:till-[0-9a-f]{8}, expires 20\S+Z; the token is shown this one time:\n$/) })
    const token = made.stdout.trimEnd()
    const id = token.split("_")[1] ?? expect.fail()
    expect(made.stdout).toMatch(/^ksi_till-[0-9a-f]{8}_[0-9a-f]{64}\n$/)
    expect(await run(token, "call", "app:add", "a=1", "b=2")).toEqual({
      code: 4, stdout: "",
      stderr: `✗ PermissionDenied  token:${id} may not call app:add\n  next       ksi permission grant token:${id} app:add --action call --action emit\n`
    })
    expect(JSON.parse((await run(token, "call", "app:add", "a=1", "b=2", "--json")).stderr)).toEqual({
      error: { reason: "PermissionDenied", message: `token:${id} may not call app:add`, details: { principal: `token:${id}`, event: "app:add", action: "call" }, retryable: false }
    })
    expect((await run(token, "permission", "check", "app:add")).code).toBe(4)
    const granted = await run(undefined, "permission", "grant", `token:${id}`, "app:add", "--action", "call")
    expect(granted).toEqual({ code: 0, stderr: "", stdout: `token:${id} has now\n  profile  restricted\n  allow    app:add     call\n` })
    expect(await run(token, "call", "app:add", "a=1", "b=2")).toEqual({ code: 0, stdout: "3\n", stderr: "" })
    expect(await run(token, "permission", "check", "app:add")).toEqual({ code: 0, stderr: "", stdout: `token:${id} may call app:add: app:add allows it\n` })
    for (const argv of [["stop"], ["permission", "grant", `token:${id}`, "*"], ["token", "create", "--profile", "owner"], ["subscribe", "app:*"], ["streams"], ["dead", "ls"]]) {
      expect((await run(token, ...argv)).code, argv.join(" ")).toBe(4)
    }
    const listed = await run(undefined, "token", "ls", "--json")
    expect(JSON.parse(listed.stdout)).toMatchObject({ id, profiles: ["restricted"], valid: true, by: "owner" })
    expect(listed.stdout).not.toContain(token.split("_")[2])
    expect(await run(undefined, "token", "revoke", id)).toEqual({ code: 0, stdout: `revoked ${id}\n`, stderr: "" })
    expect(await run(token, "call", "app:add", "a=1", "b=2")).toEqual({
      code: 4, stdout: "",
      stderr: "✗ Unauthenticated  it is not known who asks: the token is not valid here: it is no token, was revoked, or has expired\n  next       ksi token create --profile standard\n"
    })
    expect((await run(undefined, "token", "revoke", id)).code).toBe(3)
    expect(await run(undefined, "token", "ls")).toEqual({ code: 0, stdout: "", stderr: "no tokens\n" })
  })

  it("a token from a file; one that cannot be read is not the owner", async () => {
    const { stdout } = await run(undefined, "token", "create", "--profile", "standard", "--json")
    const { id, token } = JSON.parse(stdout) as { id: string; token: string }
    expect(id).toMatch(/^token-/)
    const file = join(home.path, "token")
    const withFile = (path: string, ...argv: ReadonlyArray<string>) => Effect.runPromise(ksi(argv, { env: { KSI_HOME: home.path, KSI_TOKEN_FILE: path } }))
    expect((await withFile(file, "health")).code).toBe(4)
    writeFileSync(file, "")
    expect((await withFile(file, "health")).code).toBe(4)
    writeFileSync(file, `${token}\n`)
    expect((await withFile(file, "health")).code).toBe(0)
    expect((await withFile(file, "stop")).code).toBe(4)
    expect((await withFile(file, "permission", "ls")).code).toBe(4)
  })

  it("grants are listed, as of any moment, and taken away; what is wrong is usage", async () => {
    await run(undefined, "permission", "grant", "local-http", "app:*", "--deny")
    expect((await run(undefined, "permission", "ls", "local-http")).stdout).toBe("local-http  profile  standard\nlocal-http  deny     app:*     everything\n")
    expect(await run(undefined, "permission", "check", "app:add", "local-http")).toEqual({
      code: 4, stderr: "",
      stdout: "local-http may not call app:add: app:* denies it\n  next  ksi permission grant local-http app:add --action call --action emit\n"
    })
    expect((await run(undefined, "permission", "check", "app:add", "local-http", "--at", "1")).code).toBe(0)
    expect((await run(undefined, "permission", "ls", "local-http", "--at", "1", "--json")).stdout).toBe("{\"principal\":\"local-http\",\"profile\":\"standard\"}\n")
    expect(await run(undefined, "permission", "revoke", "local-http", "app:*")).toMatchObject({ code: 0, stdout: "local-http has now\n  profile  standard\n" })
    expect((await run(undefined, "permission", "revoke", "local-http", "app:*")).code).toBe(3)
    expect((await run(undefined, "permission", "ls", "--profile", "restricted")).stdout).toContain("allow  system:health")
    for (const argv of [
      ["permission", "grant", "local-http"], ["permission", "grant", "owner", "*"], ["permission", "grant", "local-http", "a*"],
      ["permission", "grant", "local-http", "--profile", "king"], ["token", "create", "--expires", "soon"], ["token", "create", "Till"], ["permission", "check", "app:add", "--at", "soon"]
    ]) expect((await run(undefined, ...argv)).code, argv.join(" ")).toBe(2)
  })

  it("a process of its own ends with 4, and what was granted outlives the daemon", async () => {
    const token = (await run(undefined, "token", "create", "till", "--profile", "standard")).stdout.trimEnd()
    const principal = `token:${token.split("_")[1]}`
    await run(undefined, "permission", "grant", principal, "module:list")
    const daemon = await home.ksi("stop")
    expect(daemon.code).toBe(0)
    const again = await home.start("test/cli/app.ts")
    expect((await run(token, "plugin", "ls")).code).toBe(0)
    expect((await run(token, "stop")).code).toBe(4)
    expect((await run(undefined, "time", "at", "1000000", "--stream", "ksi-permission")).code).toBe(0)
    await again.kill("SIGKILL")
    await home.start("test/cli/app.ts")
    expect((await run(token, "call", "app:add", "a=1", "b=2")).stdout).toBe("3\n")
    const denied = await home.ksi("permission", "check", "store:import", principal)
    expect([denied.code, denied.stdout]).toEqual([4, expect.stringContaining("the profile standard denies it")])
  })
})
