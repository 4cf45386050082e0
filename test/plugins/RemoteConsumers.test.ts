// A program works for a consumer group: in the daemon's process, there over the five words alone, and beside it. The same program, told the same.
import { describe, expect, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Schedule, Schema, Scope, Stream } from "effect"
import * as Net from "node:net"
import * as Path from "node:path"
import { KsiService } from "../../src/bus/KsiService.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as Grant from "../../src/event/Grant.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import * as Consumers from "../../src/plugins/Consumers.ts"
import * as RemoteConsumers from "../../src/plugins/RemoteConsumers.ts"
import * as Consumer from "../../src/store/Consumer.ts"
import * as Permissions from "../../src/store/Permissions.ts"
import * as Control from "../../src/wire/Control.ts"
import * as Listener from "../../src/wire/Listener.ts"
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

// -------------------------------------------------------------------------------------------------------- the connection

/** A daemon, and a way to it that can be cut and opened again. */
const world = Effect.gen(function*() {
  const path = Path.join(yield* folder, "run", "daemon.sock")
  const way = Path.join(yield* folder, "way.sock")
  const context = yield* Layer.build(Layer.fresh(daemon))
  yield* Effect.provideContext(Layer.build(Listener.layerUnix({ path })), context)
  const open = new Set<Net.Socket>()
  const server = Net.createServer((near) => {
    const far = Net.connect(path)
    for (const [socket, other] of [[near, far], [far, near]] as const) {
      open.add(socket)
      socket.on("error", () => socket.destroy()).on("close", () => other.destroy()).pipe(other)
    }
  })
  const start = Effect.callback<void>((resume) => void server.listen(way, () => resume(Effect.void)))
  const stop = Effect.sync(() => {
    server.close()
    for (const socket of open) socket.destroy()
    open.clear()
  })
  yield* start
  yield* Effect.addFinalizer(() => stop)
  return { context, path, way, start, stop }
})

describe("the connection", () => {
  it.live("is cut: the handler under way is interrupted before its fact is handled again, and the work goes on when it is back", () =>
    within(Effect.gen(function*() {
      const { context, start, stop, way } = yield* world
      const go = yield* Deferred.make<void>()
      const log: Array<string> = []
      const layer = group(({ n }, { attempt }) => Effect.gen(function*() {
        log.push(`begins ${n} ${attempt}`)
        if (n === 2) yield* Effect.onInterrupt(Deferred.await(go), () => Effect.sync(() => void log.push(`interrupted ${n}`)))
        log.push(`ends ${n}`)
      }))
      yield* Effect.provideContext(place("a", 1, 2, 3), context)
      yield* Effect.gen(function*() {
        yield* Layer.build(layer)
        yield* eventually(() => log.length === 3)
        yield* stop
        yield* eventually(() => log.length === 4)
        yield* Deferred.succeed(go, undefined)
        // Nobody works for it now; what is stored meanwhile waits.
        yield* Effect.provideContext(place("b", 4), context)
        const { status } = Context.get(context, Consumer.Consumers)
        yield* Effect.repeat(status, { until: ([only]) => only?.status === "idle" && only.position === 1 })
        yield* start
        yield* eventually(() => log.includes("ends 3") && log.includes("ends 4"))
        yield* Consumer.settled("billing")
      }).pipe(Effect.provide(Ksi.layerRemote({ url: way })))
      expect(log.filter((line) => !line.endsWith("4") && !line.includes("4 1"))).toEqual([
        "begins 1 1", "ends 1", "begins 2 1", "interrupted 2", "begins 2 1", "ends 2", "begins 3 1", "ends 3"
      ])
      expect(log.filter((line) => line.startsWith("begins 4"))).toEqual(["begins 4 1"])
    })))

  it.live("is given up: the work ends, and says so once", () =>
    within(Effect.gen(function*() {
      const { stop, way } = yield* world
      const said: Array<unknown> = []
      const logger = Logger.make(({ message }) => void said.push(message))
      yield* Effect.gen(function*() {
        yield* Layer.build(group(() => Effect.void))
        yield* stop
        yield* eventually(() => said.some((message) => String(message).includes("there is no connection any more")))
      }).pipe(Effect.provide(Ksi.layerRemote({ url: way, reconnect: Schedule.recurs(0) })), Effect.provide(Logger.layer([logger])))
      expect(said.filter((message) => String(message).includes("cut off"))).toHaveLength(1)
    })))

  it.live("a worker may be handed only what its principal may hear: all of it at the start, each fact when it comes; none is lost", () =>
    within(Effect.gen(function*() {
      const { context, path } = yield* world
      const { createToken, grant } = Context.get(context, Permissions.Permissions)
      const clerk = yield* createToken({ by: "owner", name: "clerk" })
      const rule = (pattern: string) => grant({ by: "owner", principal: clerk.principal, rule: { pattern, actions: Grant.actions, allow: true } })
      const asClerk = <A, E, R>(program: Effect.Effect<A, E, R | Words>) => Effect.provide(program, Ksi.layerRemote({ url: path, token: clerk.token }))
      const heard: Array<string> = []
      const audit = (who: string) =>
        Consumer.layerPattern("audit", "order:*", { start: "start", handler: (_, { name }) => Effect.sync(() => void heard.push(`${who} ${name}`)) })
      const refusal = Effect.map(Effect.flip(Effect.scoped(asClerk(Layer.build(audit("clerk"))))), ({ reason }) => reason)
      expect(yield* refusal).toMatchObject({ _tag: "PermissionDenied", event: "consumer:work" })
      yield* rule("consumer:*")
      expect(yield* refusal).toMatchObject({ _tag: "PermissionDenied", action: "subscribe", event: "order:*" })
      yield* rule("order:placed")
      yield* Effect.provideContext(place("a", 1), context)
      yield* Effect.gen(function*() {
        yield* Layer.build(audit("clerk"))
        yield* eventually(() => heard.length === 1)
        const ksi = Context.get(context, KsiService)
        const { position } = yield* ksi.emit(Noted, { n: 1, on: new Date(0) })
        const { status } = Context.get(context, Consumer.Consumers)
        // It is sent away, and comes again, and again.
        yield* Effect.repeat(status, { until: ([only]) => only?.status === "idle" })
        expect((yield* status)[0]).toMatchObject({ position: Number(position) - 1, lag: 1, parked: 0 })
      }).pipe(asClerk)
      // Who may hear it gets it.
      yield* Effect.provide(started(audit("owner"), Consumer.settled("audit")), Ksi.layerRemote({ url: path }))
      expect(heard).toEqual(["clerk order:placed", "owner order:noted"])
    })))
})

// -------------------------------------------------------------------------------------------------- frames of others

type Item = Event.Success<typeof Consumers.Work>
type Fact = Extract<Item, { readonly kind: "fact" }>

/** Reads what is handed over, and reports nothing. */
const reading = Effect.fnUntraced(function*(asked: Event.PayloadInput<typeof Consumers.Work>) {
  const { stream } = yield* KsiService
  const facts: Array<Fact> = []
  const begun = yield* Deferred.make<void>()
  const fiber = yield* Effect.forkChild(Stream.runForEach(stream(Consumers.Work, asked), (item) => item.kind === "begun"
    ? Deferred.succeed(begun, undefined)
    : Effect.sync(() => void facts.push(item))))
  yield* Effect.raceFirst(Deferred.await(begun), Fiber.join(fiber))
  return { facts, fiber }
})
const done = Effect.fnUntraced(function*(fact: Fact | undefined, report: Omit<Event.PayloadInput<typeof Consumers.Done>, "ticket"> = {}) {
  yield* (yield* KsiService).call(Consumers.Done, { ticket: fact?.ticket ?? "", ...report })
})

describe("consumer:work and consumer:done", () => {
  const it1 = (name: string, program: Effect.Effect<void, unknown, Daemon | Scope.Scope>) =>
    it.live(name, () => within(Effect.provide(program, Layer.fresh(daemon))))
  const asked = { group: "billing", events: ["order:placed"], start: "start" } as const

  it1("hands over no more than is handled at a time, and the next of a stream when the one before is reported", Effect.gen(function*() {
    yield* place("a", 1, 2)
    yield* place("b", 3)
    yield* place("c", 4)
    const { facts } = yield* reading({ ...asked, concurrency: 2 })
    yield* eventually(() => facts.length === 2)
    yield* Effect.sleep(20)
    expect(facts.map(({ streamId }) => streamId).toSorted()).toHaveLength(2)
    expect(new Set(facts.map(({ streamId }) => streamId)).size).toBe(2)
    for (let n = 0; n < 4; n++) {
      yield* eventually(() => facts.length > n)
      yield* done(facts[n])
    }
    yield* Consumer.settled("billing")
    expect(facts.map(({ position }) => position).toSorted()).toEqual([1, 2, 3, 4])
    expect(facts.filter(({ streamId }) => streamId === "a").map(({ position }) => position)).toEqual([1, 2])
    expect(facts[0]).toMatchObject({ kind: "fact", attempt: 1, event: "order:placed", metadata: { principal: "owner", source: "/ksi", timestamp: expect.any(Number) } })
  }))

  it1("a slow worker holds up the streams that it has, and no other", Effect.gen(function*() {
    const slow = yield* reading({ ...asked, concurrency: 2 })
    yield* place("a", 1)
    yield* place("b", 2)
    yield* eventually(() => slow.facts.length === 2)
    const { call, stream } = yield* KsiService
    const quick: Array<string> = []
    yield* Effect.forkChild(Stream.runForEach(stream(Consumers.Work, asked), (item) => item.kind === "begun" ? Effect.void : Effect.suspend(() => {
      quick.push(item.streamId)
      return call(Consumers.Done, { ticket: item.ticket })
    })))
    for (let n = 0; n < 30; n++) yield* place(`${"abcdef"[n % 6]}`, n)
    yield* eventually(() => quick.length === 20)
    expect(new Set(quick)).toEqual(new Set(["c", "d", "e", "f"]))
    expect(slow.facts).toHaveLength(2)
    expect(yield* statusOf).toMatchObject({ position: 0, pending: 12, members: 10 })
  }))

  it1("what is not reported goes to another when its worker is gone: the same attempt, with another ticket", Effect.gen(function*() {
    yield* place("a", 1, 2)
    const first = yield* reading(asked)
    yield* eventually(() => first.facts.length === 1)
    const second = yield* reading(asked)
    expect(second.facts).toEqual([])
    yield* Fiber.interrupt(first.fiber)
    yield* eventually(() => second.facts.length === 1)
    expect(second.facts[0]).toMatchObject({ position: 1, attempt: 1 })
    expect((yield* Effect.flip(done(first.facts[0]))).message).toMatch(/^there is no ticket ".+" that is out: its fact was reported, or handed to somebody else$/)
    yield* done(second.facts[0])
    expect(yield* Effect.flip(done(second.facts[0]))).toMatchObject({ reason: { _tag: "NotFound", what: "ticket" } })
    yield* eventually(() => second.facts.length === 2)
    expect(second.facts[1]).toMatchObject({ position: 2, attempt: 1 })
    // Nobody is left: it stays.
    yield* Fiber.interrupt(second.fiber)
    expect(yield* statusOf).toMatchObject({ status: "idle", position: 1, parked: 0 })
  }))

  it1("who fails says whether to try again: then it is handed over again after a while, and set aside after so many attempts", Effect.gen(function*() {
    yield* place("a", 1)
    yield* place("b", 2)
    const { facts } = yield* reading({ ...asked, maxAttempts: 3, retry: { firstMillis: 1, mostMillis: 2 } })
    const attempts = () => facts.map(({ attempt, position }) => `${position} ${attempt}`)
    yield* eventually(() => facts.length === 2)
    const second = facts.find(({ position }) => position === 2)
    yield* done(second, { error: "never", retryable: false })
    for (let n = 1; n <= 3; n++) {
      yield* eventually(() => attempts().includes(`1 ${n}`))
      yield* done(facts.findLast(({ position }) => position === 1), { error: `no paper ${n}` })
    }
    yield* Consumer.settled("billing")
    expect(yield* parked).toMatchObject([{ position: 1, attempts: 3, error: "no paper 3" }, { position: 2, attempts: 1, error: "never" }])
    // A person has it handled again: whoever works gets it.
    const retried = yield* Effect.forkChild(Effect.flatMap(Consumer.Consumers, (consumers) => consumers.retry("billing", "b")))
    yield* eventually(() => attempts().includes("2 2"))
    yield* done(facts.at(-1), { error: "still", retryable: false, attempts: 4 })
    expect(yield* Fiber.join(retried)).toEqual({ handled: 0, left: 2 })
    expect((yield* parked)[1]).toMatchObject({ position: 2, attempts: 5, error: "still" })
  }))

  it1("all who work for a group ask for the same; what is asked for has to make sense", Effect.gen(function*() {
    const reason = (more: object) => Effect.map(Effect.flip(reading({ ...asked, ...more })), (error) => KsiError.is(error) ? error.reason : error)
    yield* reading(asked)
    yield* reading({ ...asked, concurrency: 3, maxAttempts: 5, start: "now" })
    expect(yield* statusOf).toMatchObject({ status: "following", members: 11 })
    expect(yield* reason({ events: ["order:noted"] })).toMatchObject({
      _tag: "PluginInvalid", problem: "others work for it, and not with the same events and options: theirs are {\"events\":[\"order:placed\"],\"maxAttempts\":5,\"maxParked\":10000,\"parking\":\"stream\",\"window\":1024}"
    })
    expect(yield* reason({ retry: { firstMillis: 1, mostMillis: 2 } })).toMatchObject({ _tag: "PluginInvalid" })
    expect(yield* reason({ group: "other", events: ["order:*:x*"] })).toMatchObject({ _tag: "PatternInvalid" })
    expect(yield* reason({ group: "" })).toMatchObject({ _tag: "PluginInvalid", problem: "it needs a name" })
    expect(yield* reason({ group: "other", start: -1 })).toMatchObject({ _tag: "PayloadInvalid" })
    yield* started(group(() => Effect.void, {}, "here"), Effect.gen(function*() {
      expect(yield* reason({ group: "here" })).toMatchObject({ _tag: "PluginInvalid", problem: expect.stringContaining("somebody here works for it already") })
    }))
    // Who was refused is not in the way.
    yield* reading({ ...asked, group: "here" })
  }))

  it1("who stops lets what was handed over be reported, hands over nothing more, and lets nobody in", Effect.gen(function*() {
    yield* place("a", 1, 2)
    const { facts, fiber } = yield* reading(asked)
    yield* eventually(() => facts.length === 1)
    const { end } = yield* Consumers.Workers
    const ending = yield* Effect.forkChild(end("1 minute"), { startImmediately: true })
    expect(yield* Effect.flip(reading(asked))).toMatchObject({ reason: { _tag: "ConnectionLost", problem: "it is stopping" } })
    yield* done(facts[0])
    yield* Fiber.join(fiber)
    yield* Fiber.join(ending)
    expect(facts).toHaveLength(1)
    expect(yield* statusOf).toMatchObject({ status: "idle", position: 1 })
  }))

  it1("what has its workers and ends does not wait for them", Effect.gen(function*() {
    const scope = yield* Scope.make()
    const context = yield* Layer.buildWithScope(Layer.fresh(daemon), scope)
    yield* Effect.gen(function*() {
      yield* place("a", 1)
      const { facts, fiber } = yield* reading(asked)
      yield* eventually(() => facts.length === 1)
      yield* Effect.timeout(Scope.close(scope, Exit.void), "5 seconds")
      yield* Effect.exit(Fiber.join(fiber))
    }).pipe(Effect.provideContext(context))
  }))

  it1("who stops does not wait for ever", Effect.gen(function*() {
    yield* place("a", 1)
    const { facts, fiber } = yield* reading(asked)
    yield* eventually(() => facts.length === 1)
    yield* (yield* Consumers.Workers).end("5 millis")
    yield* Fiber.join(fiber)
    expect(yield* statusOf).toMatchObject({ status: "idle", position: 0 })
  }))
})
