// A program works for a consumer group: in the daemon's process, there over the five words alone, and beside it. The same program, told the same.
import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Schedule, Schema, Scope, Stream } from "effect"
import * as Net from "node:net"
import * as Path from "node:path"
import { KsiService } from "../../src/bus/KsiService.ts"
import type { Router } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import * as Consumers from "../../src/plugins/Consumers.ts"
import * as RemoteConsumers from "../../src/plugins/RemoteConsumers.ts"
import * as Consumer from "../../src/store/Consumer.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Control from "../../src/wire/Control.ts"
import * as Listener from "../../src/wire/Listener.ts"
import * as Remote from "../../src/wire/Remote.ts"
import { eventually, folder } from "../wire/Daemon.ts"

const Placed = Event.fact("order:placed", { payload: { order: Schema.String, n: Schema.Int }, streamId: ({ order }) => order })
const Noted = Event.fact("order:noted", { payload: { n: Schema.Int, on: Schema.Date }, streamId: () => "notes" })
const Group = EventGroup.make(Placed, Noted)

const daemon = Layer.mergeAll(
  Ksi.serve(Group).pipe(Layer.provide(Group.toLayer({ "order:placed": () => Effect.void, "order:noted": () => Effect.void }))),
  Consumers.layer, Control.layer
).pipe(Layer.provideMerge(Ksi.layerMemory))

type Daemon = Runtime | Consumers.Workers
type Words = KsiService | Consumer.Consumers

/** What a program is given, by the daemon that is there. */
type Place = (context: Context.Context<Daemon>) => Effect.Effect<Context.Context<Words>, KsiError.KsiError, Scope.Scope>

const besideAt = (path: string) => Layer.build(Ksi.layerRemote({ url: `unix:${path}` }))

const places: ReadonlyArray<readonly [string, Place]> = [
  ["in process", (context) => Effect.succeed(context)],
  ["in process, over the five words", (context) => Layer.build(RemoteConsumers.layer).pipe(
    Effect.provideContext(Context.make(KsiService, Context.get(context, KsiService))),
    Effect.map((words) => Context.add(words, KsiService, Context.get(context, KsiService)))
  )],
  ["over a Unix socket", (context) => Effect.gen(function*() {
    const path = Path.join(yield* folder, "run", "daemon.sock")
    yield* Effect.provideContext(Layer.build(Listener.layerUnix({ path })), context)
    return yield* besideAt(path)
  })]
]

type Handler = (payload: { readonly order: string; readonly n: number }, delivery: Consumer.Handed<unknown>) => Effect.Effect<unknown, unknown>
const group = (handler: Handler, options: Consumer.Options = {}, name = "billing") =>
  Consumer.layer(name, { events: [Placed], handler, start: "start", ...options })
const place = Effect.fnUntraced(function*(order: string, ...numbers: ReadonlyArray<number>) {
  const ksi = yield* KsiService
  for (const n of numbers) yield* ksi.emit(Placed, { order, n })
})
const parked = Effect.flatMap(Consumer.Consumers, (consumers) => consumers.parked("billing", { limit: 100 }))
const statusOf = Effect.flatMap(Consumer.Consumers, ({ status }) => Effect.map(status, ([only]) => only))
const started = <A, E, R, E2, R2>(layer: Layer.Layer<never, E2, R2>, effect: Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.andThen(Layer.build(layer), effect))
const now = Schedule.forever
const within = <A>(program: Effect.Effect<A, unknown, Scope.Scope>) => program.pipe(Effect.scoped, Effect.provide(Logger.layer([]))) as Effect.Effect<A>

describe.each(places)("%s", (where, make) => {
  const it1 = (name: string, program: Effect.Effect<void, unknown, Words | Scope.Scope>) =>
    it.live(name, () => within(Effect.gen(function*() {
      const context = yield* Layer.build(Layer.fresh(daemon))
      yield* Effect.provideContext(program, yield* make(context))
    })))

  it1("hears the facts of its events once, decoded, in the order of their streams, and goes on where it was", Effect.gen(function*() {
    const heard: Array<string> = []
    yield* place("a", 1, 2)
    const layer = group(({ n, order }, { attempt, group, metadata: { streamId }, name, position, version }) =>
      Effect.sync(() => void heard.push([name, order, n, group, streamId, version, position, attempt].join(" "))), { concurrency: 2 })
    yield* started(layer, Effect.andThen(place("b", 3), Consumer.settled("billing")))
    expect(heard.toSorted()).toEqual(["order:placed a 1 billing a 1 1 1", "order:placed a 2 billing a 2 2 1", "order:placed b 3 billing b 1 3 1"])
    expect(yield* statusOf).toMatchObject({ name: "billing", status: "idle", position: 3, lag: 0, members: 0 })
    yield* place("a", 4)
    yield* started(layer, Effect.andThen(Consumer.settled("billing"), Effect.map(statusOf, (status) =>
      expect(status).toMatchObject({ status: "following", position: 4, pending: 0, parked: 0, members: 2, trouble: undefined }))))
    expect(heard.slice(3)).toEqual(["order:placed a 4 billing a 3 4 1"])
  }))

  it1("a new group begins with the next fact once its layer is built; a pattern hears data as it is stored, and what is known of it", Effect.gen(function*() {
    const ksi = yield* KsiService
    yield* ksi.emit(Noted, { n: 1, on: new Date(0) })
    const heard: Array<Consumer.Handed<unknown>> = []
    const layer = Consumer.layerPattern("audit", "order:*", { handler: (_, delivery) => Effect.sync(() => void heard.push(delivery)) })
    yield* started(layer, Effect.gen(function*() {
      const { id } = yield* ksi.emit(Noted, { n: 2, on: new Date(5) })
      yield* Consumer.settled("audit", 2)
      expect(heard).toEqual([{
        id, name: "order:noted", data: { n: 2, on: "1970-01-01T00:00:00.005Z" }, group: "audit", attempt: 1, missed: 0, position: 2n, version: 2,
        metadata: expect.objectContaining({ correlationId: id, causationId: undefined, depth: 0, principal: "owner", source: "/ksi", streamId: "notes" })
      }])
    }))
    expect((yield* Effect.flip(Effect.scoped(Layer.build(Consumer.layerPattern("x", "a::b", { handler: () => Effect.void }))))).reason._tag).toBe("PatternInvalid")
  }))

  it1("tries again as its schedule says, with the number of the attempt, then parks; what is parked is handled again in order, or discarded", Effect.gen(function*() {
    const attempts: Array<string> = []
    let broken = true
    const layer = group(({ n, order }, { attempt }) => {
      attempts.push(`${order}${n} ${attempt}`)
      return broken && n === 1 ? Effect.fail("no paper") : Effect.void
    }, { maxAttempts: 3, retry: Schedule.spaced("2 millis") })
    yield* started(layer, Effect.gen(function*() {
      const consumers = yield* Consumer.Consumers
      yield* place("a", 1, 2)
      yield* place("b", 7)
      yield* Consumer.settled("billing")
      expect(attempts.toSorted()).toEqual(["a1 1", "a1 2", "a1 3", "b7 1"])
      expect(yield* parked).toMatchObject([
        { position: 1, streamId: "a", attempts: 3, error: "no paper" }, { position: 2, streamId: "a", attempts: 0, error: undefined }
      ])
      expect((yield* consumers.parked("billing", { limit: 1, after: 1 })).map(({ position }) => position)).toEqual([2])
      expect(yield* consumers.retry("billing", "a")).toEqual({ handled: 0, left: 2 })
      expect((yield* parked)[0]).toMatchObject({ position: 1, attempts: 6, error: "no paper" })
      broken = false
      expect(yield* consumers.retry("billing")).toEqual({ handled: 2, left: 0 })
      expect(attempts.slice(-2)).toEqual(["a1 7", "a2 1"])
      broken = true
      yield* place("c", 1, 5)
      yield* Consumer.settled("billing")
      expect(yield* consumers.discard("billing", [4, 99])).toBe(1)
      expect(yield* consumers.retry("billing")).toEqual({ handled: 1, left: 0 })
      expect((yield* Effect.flip(consumers.retry("biling"))).reason).toMatchObject({ _tag: "NotFound", what: "consumer group", similar: ["billing"] })
    }))
  }))

  it1("what no longer fits its event is parked at once, and a handler that dies is one that fails", Effect.gen(function*() {
    const Stricter = Event.fact("order:placed", { payload: { order: Schema.String, n: Schema.Int.check(Schema.isLessThan(5)) }, streamId: ({ order }) => order })
    const layer = Consumer.layer("billing", {
      events: [Stricter], start: "start", maxAttempts: 2, retry: now, handler: ({ n }) => n === 2 ? Effect.die(new Error("broken")) : Effect.void
    })
    yield* place("a", 5)
    yield* place("b", 2)
    yield* started(layer, Consumer.settled("billing"))
    expect(yield* parked).toMatchObject([{ position: 1, attempts: 1, error: expect.stringContaining("n") }, { position: 2, attempts: 2, error: "broken" }])
  }))

  it1("a stop finishes what is under way, and gives up what waits for its next attempt", Effect.gen(function*() {
    const begun = yield* Deferred.make<void>()
    const go = yield* Deferred.make<void>()
    const handled: Array<string> = []
    let failing = true
    const layer = group(({ n, order }) => Effect.gen(function*() {
      if (order === "slow" && n === 1) {
        yield* Deferred.succeed(begun, undefined)
        yield* Deferred.await(go)
      } else if (failing) return yield* Effect.fail("not yet")
      handled.push(`${order}${n}`)
    }), { retry: Schedule.spaced("1 hour") })
    const scope = yield* Scope.make()
    yield* Layer.buildWithScope(layer, scope)
    yield* place("slow", 1, 3)
    yield* place("other", 2)
    yield* Deferred.await(begun)
    const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
    yield* Deferred.succeed(go, undefined)
    yield* Fiber.join(closing)
    expect(handled).toEqual(["slow1"])
    expect(yield* statusOf).toMatchObject({ status: "idle", position: 1 })
    failing = false
    yield* started(layer, Consumer.settled("billing"))
    expect(handled.toSorted()).toEqual(["other2", "slow1", "slow3"])
  }))

  it1("one name, one group; and what it cannot start with is said", Effect.gen(function*() {
    const refusal = (layer: ReturnType<typeof group>) => Effect.map(Effect.flip(Effect.scoped(Layer.build(layer))), ({ reason }) => reason)
    yield* started(group(() => Effect.void), Effect.gen(function*() {
      expect(yield* refusal(group(() => Effect.void, { maxAttempts: 7 }))).toMatchObject({ _tag: "PluginInvalid", plugin: "the consumer group \"billing\"" })
    }))
    expect(yield* refusal(group(() => Effect.void, {}, ""))).toMatchObject({ _tag: "PluginInvalid", problem: "it needs a name" })
    // Beside the daemon the payload of its event is what is wrong.
    expect((yield* refusal(group(() => Effect.void, { concurrency: 0 })))._tag).toMatch(where === "in process" ? "PluginInvalid" : "PayloadInvalid")
  }))
})
