import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { KsiService } from "../../src/bus/KsiService.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import { handle, observe, Router, serve } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import type { Work } from "../../src/plugins/Consumers.ts"
import * as System from "../../src/plugins/System.ts"
import { ask, cloudEvent, events, reasonOf, recorded, runtime, withRuntime } from "./Builtins.ts"

const Reserve = Event.make("stock:reserve", {
  payload: {
    sku: Schema.String.annotate({ description: "what" }),
    quantity: Schema.Int,
    mode: Schema.optionalKey(Schema.Literals(["fast", "cheap"]))
  },
  success: Schema.String,
  error: Schema.Struct({ left: Schema.Int }),
  annotations: { description: "Reserves stock." }
})
const Reserved = Event.fact("stock:reserved", { payload: { sku: Schema.String }, streamId: ({ sku }) => sku })
const Watch = Event.make("stock:watch", { payload: { sku: Schema.String }, success: Schema.Int, stream: true })
const Stock = EventGroup.make(Reserve, Reserved)

const served = serve(Stock).pipe(
  Layer.provide(Stock.toLayer({ "stock:reserve": () => Effect.succeed("hold") })),
  Layer.provideMerge(runtime())
)

describe("system:health", () => {
  it.effect("answers from memory, with the uptime by the clock", () =>
    withRuntime(Effect.gen(function*() {
      yield* TestClock.adjust("90 seconds")
      yield* ask("store:import", { events: [{ specversion: "1.0", id: "1", source: "/", type: "a:b" }] })
      expect(yield* ask("system:health")).toEqual({
        status: "healthy", version: "0.0.0", uptime: 90, position: 1, store: { kind: "memory" },
        events: events.length, subscriptions: 0
      })
    })))

  it.effect("shows what the process says of itself", () =>
    Effect.gen(function*() {
      const reply = yield* ask("system:health")
      expect(reply).toMatchObject({
        version: "1.2.3", pid: 42, home: "var", socket: "var/run/daemon.sock", memory_bytes: 5, connections: 7, uptime: 0
      })
    }).pipe(Effect.provide(runtime({}, Layer.succeed(System.Info, {
      version: "1.2.3", pid: 42, home: "var", socket: "var/run/daemon.sock", memoryBytes: () => 5, connections: () => 7
    })))))
})

describe("system:discover", () => {
  const ofStore = events.filter(({ name }) => name.startsWith("store:")).length
  it.effect("counts by namespace, in the words that were recorded", () =>
    Effect.gen(function*() {
      const reply = yield* ask("system:discover")
      expect(Object.keys(reply)).toEqual(expect.arrayContaining([...recorded("system:discover")]))
      expect(reply).toMatchObject({
        total_namespaces: 11, total_events: events.length + 2, _level: "summary",
        _filters: { namespace: null, event: null, module: null }
      })
      expect(reply["namespaces"]).toMatchObject({
        system: { count: 4 }, store: { count: ofStore }, stock: { count: 2, description: "reserve, reserved" }
      })
      expect(JSON.stringify(reply)).not.toContain("\"events\"")
    }).pipe(Effect.provide(served)))

  it.effect("lists what a pattern matches, with handlers", () =>
    Effect.gen(function*() {
      expect(yield* ask("system:discover", { pattern: "stock:*" })).toEqual({
        namespaces: {
          stock: {
            count: 2, description: "reserve, reserved",
            events: [
              { name: "stock:reserve", kind: "request", mode: "call", description: "Reserves stock.", handlers: 1 },
              { name: "stock:reserved", kind: "fact", handlers: 0 }
            ]
          }
        },
        total_namespaces: 1, total_events: 2, _level: "events", _filters: { namespace: null, event: null, module: null }
      })
    }).pipe(Effect.provide(served)))

  it.effect("filters by namespace, module and event", () =>
    withRuntime(Effect.gen(function*() {
      for (const filter of [{ namespace: "store" }, { module: "store" }]) {
        expect(yield* ask("system:discover", { ...filter, detail: true })).toMatchObject({
          total_namespaces: 1, total_events: ofStore, _filters: { namespace: null, event: null, module: null, ...filter }
        })
      }
      const one = yield* ask("system:discover", { event: "store:read", level: "events" })
      expect(one).toMatchObject({ total_events: 1, namespaces: { store: { count: 1, events: [{ name: "store:read" }] } } })
      expect(yield* ask("system:discover", { namespace: "nothing" })).toMatchObject({ namespaces: {}, total_events: 0 })
    })))

  it.effect("refuses what is no pattern", () =>
    withRuntime(Effect.gen(function*() {
      expect(yield* reasonOf(ask("system:discover", { pattern: "st*ck" }))).toMatchObject({
        _tag: "PatternInvalid", pattern: "st*ck"
      })
    })))
})

describe("system:help", () => {
  it.effect("tells every built-in event, with examples that its schema accepts", () =>
    withRuntime(Effect.gen(function*() {
      const { registry } = yield* Router
      for (const event of events.filter(({ kind }) => kind === "request")) {
        const reply = yield* ask("system:help", { event: event.name })
        expect(Object.keys(reply)).toEqual(expect.arrayContaining([...recorded("system:help")]))
        expect(reply, event.name).toMatchObject({ event: event.name, kind: "request", mode: event.name === "consumer:work" ? "stream" : "call", handlers: 1, async: true })
        expect(reply["summary"]).toBe(event.annotations.description)
        expect(JSON.stringify(reply)).not.toContain(event.definedAt)
        for (const [name, parameter] of Object.entries(reply["parameters"] as Record<string, { description: string }>)) {
          expect(parameter.description, `${event.name} ${name}`).not.toBe("")
        }
        const examples = event.annotations.examples ?? []
        expect(examples.length, event.name).toBeGreaterThan(0)
        for (const example of examples) {
          const decoded = registry.get(event.name)?.codec.decodePayload(example)
          expect(decoded?._tag, `${event.name} ${JSON.stringify(example)}`).toBe("Success")
        }
      }
    })))

  it.effect("makes words out of schemas, and a payload where there is no example", () =>
    Effect.gen(function*() {
      expect(yield* ask("system:help", { event: "stock:reserve" })).toMatchObject({
        module: "stock", handler: "stock:reserve", summary: "Reserves stock.", triggers: [],
        parameters: {
          sku: { type: "string", required: true, description: "what" },
          quantity: { type: "integer", required: true, description: "" },
          mode: { type: "\"fast\" | \"cheap\"", required: false, description: "" }
        },
        examples: [{ command: "ksi call stock:reserve --data '{\"sku\":\"text\",\"quantity\":1}'" }],
        usage: {
          command: "echo '{\"event\":\"stock:reserve\",\"data\":{\"sku\":\"text\",\"quantity\":1}}' | nc -N -U var/run/daemon.sock"
        },
        schemas: { payload: { type: "object" }, success: { type: "string" }, error: { type: "object" } }
      })
      const fact = yield* ask("system:help", { event: "stock:reserved" })
      expect(fact).toMatchObject({
        kind: "fact", handler: null, handlers: 0, examples: [{ command: "ksi emit stock:reserved --data '{\"sku\":\"text\"}'" }]
      })
      expect(fact).not.toHaveProperty("mode")
    }).pipe(Effect.provide(served)))

  it.effect("tells who has to do with an event: middleware, handlers in order, observers", () =>
    Effect.gen(function*() {
      const help = yield* ask("system:help", { event: "stock:reserve" })
      expect(help).toMatchObject({
        handlers: 2,
        handled_by: [{ name: "stock:reserve", execution: "concurrent" }, { name: "fallback", execution: "sequential" }],
        middleware: ["outer"],
        observers: ["observer of stock:*"]
      })
      expect(yield* ask("system:help", { event: "stock:reserved" })).toMatchObject({
        handled_by: [], middleware: ["outer"], observers: ["observer of stock:*"]
      })
    }).pipe(Effect.provide(Layer.mergeAll(
      handle(Reserve, () => Effect.succeed("none"), { name: "fallback", execution: "sequential" }),
      observe("stock:*", () => Effect.void),
      Middleware.use(Middleware.make("outer", { before: () => Effect.void }), { pattern: "stock:*" })
    ).pipe(Layer.provideMerge(served)))))

  it.effect("of a stream says how it is asked", () =>
    withRuntime(Effect.gen(function*() {
      yield* (yield* Router).define(Watch)
      const reply = yield* ask("system:help", { event: "stock:watch" })
      expect(reply).toMatchObject({
        mode: "stream",
        examples: [{ command: "ksi stream stock:watch --data '{\"sku\":\"text\"}'" }],
        usage: { command: expect.stringContaining("echo '{\"event\":\"stock:watch\",\"stream\":true,\"stream_id\":\"s1\",\"data\":{\"sku\":\"text\"}}' | nc -N -U ") }
      })
    })))

  it.effect("of an unknown event names the nearest", () =>
    withRuntime(Effect.gen(function*() {
      expect(yield* reasonOf(ask("system:help", { event: "store:raed" }))).toMatchObject({
        _tag: "UnknownEvent", similar: expect.arrayContaining(["store:read"]), namespaces: expect.arrayContaining(["system"])
      })
    })))
})

describe("system:shutdown", () => {
  it.effect("answers, and whoever waits hears of it", () =>
    withRuntime(Effect.gen(function*() {
      const shutdown = yield* System.Shutdown
      const waiting = yield* Effect.forkChild(shutdown.requested)
      yield* Effect.yieldNow
      expect(waiting.pollUnsafe()).toBeUndefined()
      expect(yield* ask("system:shutdown")).toEqual({ status: "shutting_down" })
      expect(yield* ask("system:shutdown")).toEqual({ status: "shutting_down" })
      yield* Fiber.join(waiting)
    })))
})

describe("every built-in event", () => {
  // Fields that exist with values that may or may not fit, fields that do not exist, and payloads that are no objects.
  const Entries = Schema.Array(Schema.Tuple([Schema.Int, Schema.Json]))
  const disguises = [
    (value: unknown) => value,
    (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url"),
    (value: unknown) => JSON.stringify(value),
    (value: unknown) => [value]
  ]
  const payloadOf = (event: Event.Any, entries: typeof Entries.Type) => {
    const struct = event.payload as unknown as { readonly fields: Record<string, unknown> }
    const names = [...Object.keys(struct.fields), "other"]
    return Object.fromEntries(entries.map(([n, value]) => {
      const pick = Math.abs(n)
      return [names[pick % names.length], disguises[Math.floor(pick / names.length) % disguises.length]?.(value)]
    }))
  }
  /** The answer, or the first item. */
  const asked = Effect.fnUntraced(function*(event: Event.Any, payload: unknown) {
    if (event.kind === "fact" || event.mode === "call") return yield* ask(event.name, payload)
    const { stream } = yield* KsiService
    // Anything may come from outside.
    return yield* Stream.runHead(stream(event as typeof Work, payload as Event.PayloadInput<typeof Work>))
  })
  for (const event of events) {
    if (event.name === "system:shutdown") continue
    it.effect.prop(`${event.name} answers any payload with a value or a clear refusal`, [Entries, Schema.Json], ([entries, json]) =>
      Effect.gen(function*() {
        yield* ask("store:import", { events: [cloudEvent(1), cloudEvent(2)] })
        for (const payload of [payloadOf(event, entries), json]) {
          const exit = yield* Effect.exit(asked(event, payload))
          if (Exit.isSuccess(exit)) continue
          for (const reason of exit.cause.reasons) {
            if (reason._tag !== "Fail" || !KsiError.is(reason.error)) throw new Error(Cause.pretty(exit.cause))
            // Of a store in memory there is no file; a group needs a name.
            expect(["StoreFailure", "PluginInvalid", "PayloadInvalid", "PatternInvalid", "UnknownEvent", "NotFound"]).toContain(reason.error.reason._tag)
          }
        }
        expect(yield* reasonOf(asked(event, 7))).toMatchObject({ _tag: "PayloadInvalid", event: event.name })
      }).pipe(withRuntime), { arbitrary: { runs: 60 } })
  }
})
