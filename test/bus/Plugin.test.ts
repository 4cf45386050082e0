import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Plugin from "../../src/bus/Plugin.ts"
import { handle, Router } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"
import { reasonOf } from "../plugins/Builtins.ts"

class Rate extends Context.Service<Rate, number>()("test/Rate") {}
class Stock extends Context.Service<Stock, string>()("test/Stock") {}

const runtime = Layer.merge(Ksi.layerMemory, Plugin.Plugins.layer)
const inRuntime = <A, E>(program: Effect.Effect<A, E, Plugin.Plugins | Router | Ksi | Scope.Scope>) =>
  Effect.provide(Effect.scoped(program), Layer.fresh(runtime))

/** Modules as `ksi start` hands them over: each from a file of its name. */
const start = (...plugins: ReadonlyArray<Plugin.Plugin>) =>
  Effect.flatMap(Plugin.Plugins, (service) =>
    service.start(plugins.map((plugin) => ({ from: `${plugin.name}.ts`, load: Effect.succeed(plugin) }))))

const states = Effect.gen(function*() {
  const { list } = yield* Plugin.Plugins
  return Object.fromEntries((yield* list).map(({ name, state }) => [name, state]))
})

const problemOf = <A, E, R>(program: Effect.Effect<A, E, R>) =>
  Effect.map(reasonOf(program), (reason) => reason._tag === "PluginInvalid" ? reason : expect.fail(reason._tag))

/** A layer that writes down when it starts and stops. */
const noted = (log: Array<string>, name: string) =>
  Layer.effectDiscard(Effect.acquireRelease(
    Effect.sync(() => void log.push(`+${name}`)),
    () => Effect.sync(() => void log.push(`-${name}`))
  ))

const Ping = Event.make("net:ping", { success: Schema.String })
const Pong = Event.make("net:pong", { success: Schema.String })
const Net = EventGroup.make(Ping, Pong)
const net = Ksi.serve(Net).pipe(
  Layer.provide(Net.toLayer({ "net:ping": () => Effect.succeed("pong"), "net:pong": () => Effect.succeed("ping") }))
)
const other = Ksi.serve(EventGroup.make(
  Event.make("net:ping", { success: Schema.Int }), Event.make("net:pong", { success: Schema.Int })
))

it("a plain layer is named after its file", () => {
  expect(["app.ts", "./src/shop.mts", "C:\\x\\till.js", "a.b.ts", "noext"].map(Plugin.nameOf)).toEqual(["app", "shop", "till", "a.b", "noext"])
  expect([Plugin.make("a", Layer.empty), Layer.empty, null, "a"].map(Plugin.isPlugin)).toEqual([true, false, false, false])
})

describe("starting", () => {
  it.effect("is in parallel where nothing is needed: two that wait for each other both run", () =>
    inRuntime(Effect.gen(function*() {
      const a = yield* Deferred.make<void>()
      const b = yield* Deferred.make<void>()
      const meet = (mine: Deferred.Deferred<void>, theirs: Deferred.Deferred<void>) =>
        Layer.effectDiscard(Effect.andThen(Deferred.succeed(mine, undefined), Deferred.await(theirs)))
      yield* start(Plugin.make("a", meet(a, b)), Plugin.make("b", meet(b, a)))
      expect(yield* states).toEqual({ a: "running", b: "running" })
    })))

  it.effect("is after what is needed, whose services are there, whatever the order of naming", () =>
    inRuntime(Effect.gen(function*() {
      let seen: unknown
      const late = Layer.effect(Rate, Effect.as(Effect.sleep("2 seconds"), 3))
      const shop = Layer.effect(Stock, Effect.map(Rate, (rate) => String(seen = rate)))
      const fiber = yield* Effect.forkChild(start(
        Plugin.make("shop", shop, { needs: ["bank"] }), Plugin.make("bank", late), Plugin.make("quick", Layer.empty)
      ))
      yield* TestClock.adjust("1 seconds")
      expect(yield* states).toEqual({ shop: "starting", bank: "starting", quick: "running" })
      expect(seen).toBeUndefined()
      yield* TestClock.adjust("1 seconds")
      yield* Fiber.join(fiber)
      expect(seen).toBe(3)
      const [first, second] = yield* (yield* Plugin.Plugins).list
      expect(first).toEqual({
        name: "shop", from: "shop.ts", needs: ["bank"], state: "running", events: [], services: ["test/Stock"],
        startedAt: 2000, took: 0, error: undefined
      })
      expect(second).toMatchObject({ services: ["test/Rate"], startedAt: 0, took: 2000 })
    })))

  it.effect("knows whose an event is, and the handler may be another's", () =>
    inRuntime(Effect.gen(function*() {
      yield* start(
        Plugin.make("words", Ksi.serve(EventGroup.make(Ping))),
        Plugin.make("deeds", handle(Ping, () => Effect.succeed("pong")))
      )
      const list = yield* (yield* Plugin.Plugins).list
      expect(list.map(({ events, name }) => [name, events])).toEqual([["words", ["net:ping"]], ["deeds", ["net:ping"]]])
      expect(yield* (yield* Ksi).call(Ping, {})).toBe("pong")
    })))

  it.effect("names those that it waits for", () =>
    inRuntime(Effect.gen(function*() {
      const said: Array<unknown> = []
      const stuck = Plugin.make("stuck", Layer.effectDiscard(Effect.never))
      yield* start(Plugin.make("quick", Layer.empty), stuck, Plugin.make("after", Layer.empty, { needs: ["stuck"] })).pipe(
        Effect.provide(Logger.layer([Logger.make(({ message }) => void said.push(message))])),
        Effect.forkChild
      )
      yield* TestClock.adjust("9 seconds")
      expect(said).toEqual([])
      yield* TestClock.adjust("11 seconds")
      expect(said.flat()).toEqual(["still starting: stuck.ts", "still starting: stuck.ts"])
    })))

  it.effect("interrupted, closes what was started", () =>
    inRuntime(Effect.gen(function*() {
      const log: Array<string> = []
      const fiber = yield* Effect.forkChild(
        Effect.scoped(start(Plugin.make("a", noted(log, "a")), Plugin.make("b", Layer.effectDiscard(Effect.never))))
      )
      yield* TestClock.adjust("1 seconds")
      yield* Fiber.interrupt(fiber)
      expect(log).toEqual(["+a", "-a"])
      expect(yield* states).toMatchObject({ a: "stopped" })
    })))
})

it.effect("stopping is in reverse: those that need before what they need, whichever was ready first", () =>
  inRuntime(Effect.gen(function*() {
    const log: Array<string> = []
    const scope = yield* Scope.make()
    const slow = noted(log, "a").pipe(Layer.provide(Layer.effectDiscard(Effect.sleep("1 seconds"))))
    const fiber = yield* start(
      Plugin.make("c", noted(log, "c"), { needs: ["b"] }), Plugin.make("a", slow), Plugin.make("b", noted(log, "b"))
    ).pipe(Scope.provide(scope), Effect.forkChild)
    yield* TestClock.adjust("1 seconds")
    yield* Fiber.join(fiber)
    yield* Scope.close(scope, Exit.void)
    expect(log).toEqual(["+b", "+c", "+a", "-a", "-c", "-b"])
    expect(yield* states).toEqual({ a: "stopped", b: "stopped", c: "stopped" })
  })))

describe("what cannot start", () => {
  it.effect("is told all at once: every plugin, every fault", () =>
    inRuntime(Effect.gen(function*() {
      const log: Array<string> = []
      const service = yield* Plugin.Plugins
      const failure = yield* problemOf(Effect.scoped(service.start([
        { from: "good.ts", load: Effect.succeed(Plugin.make("good", Layer.merge(net, noted(log, "good")))) },
        { from: "again.ts", load: Effect.succeed(Plugin.make("again", other)) },
        { from: "broken.ts", load: Effect.succeed(Plugin.make("broken", Layer.effectDiscard(Effect.fail(new Error("no power"))))) },
        { from: "unread.ts", load: Effect.fail("it does not parse") },
        { from: "needy.ts", load: Effect.succeed(Plugin.make("needy", Layer.effectDiscard(Stock))) },
        { from: "after.ts", load: Effect.succeed(Plugin.make("after", Layer.empty, { needs: ["broken"] })) }
      ])))
      expect(failure.plugin).toBe("again.ts, broken.ts, unread.ts, needy.ts, after.ts")
      const [head, ...lines] = failure.problem.split("\n")
      expect(head).toBe("6 faults")
      expect(lines.map((line) => line.replace(/: at .*$/, ""))).toEqual([
        "  again.ts: net:ping: \"net:ping\" is defined twice with different schemas",
        "  again.ts: net:pong: \"net:pong\" is defined twice with different schemas",
        "  broken.ts: no power",
        "  unread.ts: it does not parse",
        "  needy.ts: nobody provides the service test/Stock",
        "  after.ts: it needs \"broken\", which cannot start"
      ])
      expect(log).toEqual(["+good", "-good"])
      expect(yield* states).toEqual({
        good: "stopped", again: "failed", broken: "failed", unread: "failed", needy: "failed", after: "failed"
      })
      expect((yield* service.list)[2]).toMatchObject({ error: "no power", took: undefined })
    })))

  it.effect("requests that nobody handles", () =>
    inRuntime(Effect.gen(function*() {
      const forgetful = Plugin.make("forgetful", Ksi.serve(Net))
      expect(yield* problemOf(start(forgetful))).toMatchObject({
        plugin: "forgetful.ts", problem: "nobody handles net:ping, net:pong; provide the handlers' layer to Ksi.serve"
      })
    })))

  it.effect("is not blamed for what was still to come when it failed, nor for the wiring of what it needs", () =>
    inRuntime(Effect.gen(function*() {
      const broken = Layer.effectDiscard(Effect.fail("no power")).pipe(Layer.provide(Ksi.serve(EventGroup.make(Ping))))
      const wrong = Layer.merge(other, Layer.succeed(Rate, 3))
      const failure = yield* problemOf(start(
        Plugin.make("net", Ksi.serve(EventGroup.make(Pong))),
        Plugin.make("broken", broken),
        Plugin.make("wrong", wrong),
        Plugin.make("shop", Layer.effectDiscard(Rate), { needs: ["wrong"] })
      ))
      expect(failure.plugin).toBe("net.ts, broken.ts, wrong.ts")
      expect(failure.problem.split("\n").filter((line) => line.includes("broken.ts"))).toEqual(["  broken.ts: no power"])
      expect(failure.problem).toContain("net.ts: nobody handles net:pong; ")
    })))

  it.effect("a service of a plugin that it does not say it needs", () =>
    inRuntime(Effect.gen(function*() {
      const problem = (yield* problemOf(start(
        Plugin.make("bank", Layer.succeed(Rate, 3)), Plugin.make("shop", Layer.effectDiscard(Rate))
      ))).problem
      expect(problem).toBe("it needs the service test/Rate of \"bank\": say so with Plugin.make(…, { needs: [\"bank\"] })")
    })))

  it.effect("needs that nobody meets, needs in a circle, and names that are taken; nobody waits", () =>
    inRuntime(Effect.gen(function*() {
      const one = (name: string, ...needs: ReadonlyArray<string>) => Plugin.make(name, Layer.empty, { needs })
      expect((yield* problemOf(start(one("a", "banc"), one("bank")))).problem)
        .toBe("it needs \"banc\", which is not started with it; nearest: \"bank\"")
      expect((yield* problemOf(start(one("a", "b"), one("b", "a"), one("c", "a")))).problem).toBe([
        "3 faults",
        "  a.ts: it needs itself: b cannot start before it",
        "  b.ts: it needs itself: a cannot start before it",
        "  c.ts: it needs \"a\", which cannot start"
      ].join("\n"))
      expect((yield* problemOf(start(one("a", "a")))).problem).toBe("it needs itself: a cannot start before it")
      expect((yield* problemOf(start(one("a"), one("a")))).problem).toContain("a.ts is called \"a\" too")
    })))

  it.effect("once it runs, a definition that collides fails where it is made", () =>
    inRuntime(Effect.gen(function*() {
      let router: Router["Service"] | undefined
      yield* start(Plugin.make("net", Layer.merge(net, Layer.effectDiscard(Effect.map(Router, (mine) => (router = mine))))))
      const failure = yield* reasonOf(router?.define(Event.make("net:ping", { success: Schema.Int })) ?? Effect.void)
      expect(failure).toMatchObject({ _tag: "PluginInvalid", plugin: "net:ping" })
    })))
})
