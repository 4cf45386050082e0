import { NodeServices } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Start from "../../src/cli/Start.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"
import { ksi } from "./commandLine.ts"

const Ping = Event.make("net:ping", { success: Schema.String })
const Net = EventGroup.make(Ping)
const net = Ksi.serve(Net).pipe(Layer.provide(Net.toLayer({ "net:ping": () => Effect.succeed("pong") })))

const world = (modules: Readonly<Record<string, unknown>>) =>
  Layer.merge(
    NodeServices.layer,
    Layer.succeed(Start.Host, {
      load: async (path) => modules[path],
      command: "ksi",
      serves: () => {},
      info: { version: "1.2.3" }
    })
  )

const home = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ksi-start-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const ask = (socket: string, frame: object): Effect.Effect<unknown> =>
  Effect.callback((resume) => {
    const client = connect(socket, () => client.write(`${JSON.stringify(frame)}\n`))
    client.once("data", (bytes) => {
      client.destroy()
      resume(Effect.succeed(JSON.parse(String(bytes))))
    })
  })

describe("daemon", () => {
  it.live("is reachable when it has started, knows its modules, and is gone with its scope", () =>
    Effect.gen(function*() {
      const path = yield* home
      const socket = yield* Effect.scoped(Effect.gen(function*() {
        const daemon = yield* Start.daemon({ ...Start.defaults, port: "off", home: path, modules: ["net.ts"] })
        expect(daemon.socket).toBe(join(path, "run", "daemon.sock"))
        expect(yield* ask(daemon.socket, { event: "net:ping" })).toMatchObject({ ok: true, data: { result: "pong" } })
        expect(yield* ask(daemon.socket, { event: "system:health" })).toMatchObject({
          data: { version: "1.2.3", connections: 1, home: path }
        })
        expect(yield* ask(daemon.socket, { event: "system:shutdown" })).toMatchObject({ ok: true })
        yield* daemon.stopped
        return daemon.socket
      }))
      expect(existsSync(socket)).toBe(false)
      expect(existsSync(join(path, "ksi.db"))).toBe(true)
    }).pipe(Effect.provide(world({ "net.ts": { default: net } }))))

  for (const store of ["memory", "sqlite"] as const) {
    it.live(`keeps of requests what audit says (${store})`, () =>
      Effect.gen(function*() {
        const kept = (audit: Start.Options["audit"]) =>
          Effect.scoped(Effect.gen(function*() {
            const { socket } = yield* Start.daemon({ ...Start.defaults, port: "off", home: yield* home, store, audit })
            yield* ask(socket, { event: "system:help", data: { event: "system:health" } })
            return yield* ask(socket, { event: "event_log:query", data: { pattern: "system:help" } })
          }))
        const event = (data: unknown) => ({ data: { total: 1, events: [{ event_name: "system:help", data }] } })
        expect(yield* kept("all")).toMatchObject(event({ event: "system:health" }))
        expect(yield* kept("outline")).toMatchObject(event(null))
        expect(yield* kept("off")).toMatchObject({ data: { total: 0, events: [] } })
      }).pipe(Effect.provide(world({}))))
  }

  it.live("a request with an idempotency key runs once, also across a restart", () => {
    let runs = 0
    const Buy = Event.make("shop:buy", { payload: { n: Schema.Int }, success: Schema.Int, error: Schema.String })
    const Bought = Event.fact("shop:bought", { payload: { n: Schema.Int }, streamId: () => "shop" })
    const Shop = EventGroup.make(Buy, Bought)
    const shop = Ksi.serve(Shop).pipe(Layer.provide(Shop.toLayer({
      "shop:buy": ({ n }) => Effect.suspend(() => (runs++, n < 0 ? Effect.fail("sold out") : Effect.succeed(runs)))
    })))
    return Effect.gen(function*() {
      const path = yield* home
      const started = <A>(use: (socket: string) => Effect.Effect<A>) =>
        Effect.scoped(Effect.flatMap(Start.daemon({ ...Start.defaults, port: "off", home: path, modules: ["shop.ts"] }), ({ socket }) => use(socket)))
      const buy = (n: number, key?: string) => ({ event: "shop:buy", data: { n }, idempotency_key: key })
      const result = (value: number) => ({ ok: true, data: { result: value } })
      const soldOut = { ok: false, data: { cause: "domain", error_data: "sold out" } }
      const conflict = { ok: false, data: { reason: "IdempotencyConflict" } }
      yield* started((socket) => Effect.gen(function*() {
        expect(yield* ask(socket, buy(1, "a"))).toMatchObject(result(1))
        expect(yield* ask(socket, buy(1, "a"))).toMatchObject(result(1))
        expect(yield* ask(socket, buy(2, "a"))).toMatchObject(conflict)
        expect(yield* ask(socket, buy(-1, "b"))).toMatchObject(soldOut)
        expect(yield* ask(socket, buy(-1, "b"))).toMatchObject(soldOut)
        expect(runs).toBe(2)
        expect(yield* ask(socket, buy(1))).toMatchObject(result(3))
        const said = yield* ask(socket, { event: "shop:bought", data: { n: 1 }, idempotency_key: "a" })
        expect(said).toMatchObject({ ok: true, data: { position: 1 } })
        expect(yield* ask(socket, { event: "shop:bought", data: { n: 1 }, idempotency_key: "a" })).toMatchObject({ data: { position: 1 } })
      }))
      yield* started((socket) => Effect.gen(function*() {
        expect(yield* ask(socket, buy(1, "a"))).toMatchObject(result(1))
        expect(yield* ask(socket, buy(-1, "b"))).toMatchObject(soldOut)
        expect(yield* ask(socket, buy(2, "a"))).toMatchObject(conflict)
        expect(runs).toBe(3)
        expect(yield* ask(socket, { event: "shop:bought", data: { n: 1 } })).toMatchObject({ data: { position: 2 } })
      }))
    }).pipe(Effect.provide(world({ "shop.ts": { default: shop } })))
  })

  it.live("a module that collides is named", () =>
    Effect.gen(function*() {
      const path = yield* home
      const error = yield* Effect.flip(
        Effect.scoped(Start.daemon({ ...Start.defaults, port: "off", home: path, modules: ["net.ts", "again.ts"] }))
      )
      expect(error.reason).toMatchObject({ _tag: "PluginInvalid", plugin: "again.ts" })
      expect(error.message).toContain("net:ping")
      expect(existsSync(join(path, "run", "daemon.sock"))).toBe(false)
    }).pipe(Effect.provide(world({ "net.ts": { default: net }, "again.ts": { default: Ksi.serve(EventGroup.make(Event.make("net:ping", { success: Schema.Int }))) } }))))
})

describe("the command", () => {
  it.live("is listed in the help", () =>
    Effect.gen(function*() {
      const { code, stdout } = yield* ksi(["--help"])
      expect(code).toBe(0)
      expect(stdout).toContain("start")
    }))
})
