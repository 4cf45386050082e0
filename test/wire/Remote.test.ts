// The five words, in the daemon's process and against it, over each way in: the same program, told the same.
import { describe, expect, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Redacted, Schema, Scope, Stream } from "effect"
import * as Net from "node:net"
import * as Path from "node:path"
import * as Builtin from "../../src/bus/Builtin.ts"
import { KsiService, type SubscribeOptions } from "../../src/bus/KsiService.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import type { Router } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import { Ksi } from "../../src/Ksi.ts"
import type { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Http from "../../src/server/Http.ts"
import { Permissions } from "../../src/store/Permissions.ts"
import * as Control from "../../src/wire/Control.ts"
import { RemoteFailure } from "../../src/wire/Frame.ts"
import * as Listener from "../../src/wire/Listener.ts"
import * as Remote from "../../src/wire/Remote.ts"
import { eventually, folder } from "./Daemon.ts"

class Refused extends Schema.TaggedError<Refused>()("Refused", { why: Schema.String, at: Schema.Date }) {}
class Tired extends Schema.TaggedError<Tired>()("Tired", {}) {}

const Answer = Event.make("r:answer", { payload: { value: Schema.Unknown }, success: Schema.Unknown })
const Day = Event.make("r:day", { payload: { of: Schema.Date, in: Schema.Int.pipe(Schema.withConstructorDefault(Effect.succeed(1))) }, success: Schema.Date })
const Nothing = Event.make("r:nothing")
const Fail = Event.make("r:fail", { payload: { how: Schema.Literals(["declared", "die", "interrupt", "reply", "middleware"]) }, success: Schema.Int, error: Refused })
const Days = Event.make("r:days", { payload: { of: Schema.Date, count: Schema.Int, fail: Schema.Boolean }, success: Schema.Date, error: Refused, stream: true })
const Slow = Event.make("r:slow", { payload: { n: Schema.Int }, success: Schema.Int })
const Read = Event.make("r:read", { success: Schema.Int, idempotent: true })
const Happened = Event.fact("r:happened", { payload: { n: Schema.Int, on: Schema.Date }, streamId: ({ n }) => `s-${n % 2}` })
const Occurred = Event.fact("r:occurred", { payload: { n: Schema.Int, on: Schema.Date }, streamId: ({ n }) => `s-${n % 2}`, formerly: ["r:happened"] })
const Other = Event.make("r:answer", { payload: { value: Schema.Unknown }, success: Schema.Int })
const Group = EventGroup.make(Answer, Day, Nothing, Fail, Days, Slow, Read, Happened, Occurred)

interface Seen {
  slow: number
  readonly go: Deferred.Deferred<void>
}

const day = new Date("2020-02-02T00:00:00.000Z")

const handlers = (seen: Seen) =>
  Group.toLayer({
    "r:answer": ({ value }) => Effect.succeed(value),
    "r:day": ({ of, in: days }) => Effect.succeed(new Date(of.getTime() + days * 86_400_000)),
    "r:nothing": () => Effect.void,
    "r:fail": ({ how }): Effect.Effect<number, Refused> => {
      switch (how) {
        case "declared":
          return Effect.fail(new Refused({ why: "so", at: day }))
        case "die":
          return Effect.die(new Error("a secret"))
        case "interrupt":
          return Effect.interrupt
        default:
          return Effect.succeed("no number" as unknown as number)
      }
    },
    "r:days": ({ count, fail, of }) => Stream.concat(
      Stream.map(Stream.range(0, count - 1), (n) => new Date(of.getTime() + n)),
      fail ? Stream.fail(new Refused({ why: "enough", at: of })) : Stream.empty
    ),
    "r:slow": ({ n }) => Effect.as(Effect.andThen(Effect.sync(() => seen.slow++), Deferred.await(seen.go)), n),
    "r:read": () => Effect.as(Effect.andThen(Effect.sync(() => seen.slow++), Deferred.await(seen.go)), 1)
  })

const daemon = (seen: Seen) =>
  Layer.mergeAll(Ksi.serve(Group).pipe(Layer.provide(handlers(seen))), Control.layer, Middleware.use(Builtin.idempotency)).pipe(Layer.provideMerge(Ksi.layerMemory))

const makeSeen = (): Seen => ({ slow: 0, go: Deferred.makeUnsafe() })

type Program<A> = Effect.Effect<A, unknown, KsiService | Scope.Scope>

/** Where a program runs: in the process of the daemon, or beside it. */
type Run = <A>(program: Program<A>, extra?: Layer.Layer<never, KsiError, Router>) => Effect.Effect<A, unknown, Scope.Scope>

/** Beside a daemon that knows it by a token. */
const withToken = (listen: Effect.Effect<string, KsiError, Router | Subscriptions | Scope.Scope>): Run => (program, extra = Layer.empty) =>
  Effect.gen(function*() {
    const context = yield* Layer.build(Layer.provideMerge(extra, daemon(makeSeen())))
    const { token } = yield* Context.get(context, Permissions).createToken({ by: "owner", profile: "trusted" })
    const url = yield* Effect.provideContext(listen, context)
    return yield* Effect.provide(program, Ksi.layerRemote({ url, token: Redacted.make(token) }))
  })

const places: ReadonlyArray<readonly [string, Run]> = [
  ["in process", (program, extra = Layer.empty) => Effect.provide(program, Layer.provideMerge(extra, daemon(makeSeen())))],
  ["over a Unix socket", (program, extra = Layer.empty) => Effect.gen(function*() {
    const path = Path.join(yield* folder, "run", "daemon.sock")
    yield* Layer.build(Layer.mergeAll(Listener.layerUnix({ path }), extra).pipe(Layer.provide(daemon(makeSeen()))))
    return yield* Effect.provide(program, Ksi.layerRemote({ url: `unix:${path}` }))
  })],
  ["over TCP", withToken(Effect.map(Layer.build(Listener.layerTcp({ port: 0 })), (context) => Context.get(context, Listener.Listener).address))],
  ["over WebSocket", withToken(Effect.map(Layer.build(Http.layer({ port: 0 })), (context) => Context.get(context, Http.Http).url))]
]

describe.each(places)("%s", (place, run) => {
  const isOwner = !["over TCP", "over WebSocket"].includes(place)
  // Whom a token stands for is a fact too, and there are some more before it.
  const at = (position: number): bigint => BigInt(position + (isOwner ? 0 : 5))
  const it1 = (name: string, program: Program<void>, extra?: Layer.Layer<never, KsiError, Router>) =>
    it.live(name, () => run(program, extra).pipe(Effect.scoped, Effect.provide(Logger.layer([]))) as Effect.Effect<void>)
  const ksi = Effect.flatMap(KsiService, Effect.succeed)

  it1("a call answers with the handler's value, whatever its form", Effect.gen(function*() {
    const { call } = yield* ksi
    for (const value of [1, "text", null, true, [], [1, { a: 2 }], {}, { a: 1 }, { status: "mine", result: 3 }, { _ksi_context: 1, kind: "fact" }]) {
      expect(yield* call(Answer, { value })).toEqual(value)
    }
    expect(yield* call(Nothing, {})).toBeUndefined()
    expect(yield* call(Day, { of: day })).toEqual(new Date("2020-02-03T00:00:00.000Z"))
  }))

  it1("failures are what they were", Effect.gen(function*() {
    const { call } = yield* ksi
    const declared = yield* Effect.flip(call(Fail, { how: "declared" }))
    expect(declared).toBeInstanceOf(Refused)
    expect(declared).toMatchObject({ why: "so", at: day })
    const died = yield* Effect.exit(call(Fail, { how: "die" }))
    expect(Exit.isFailure(died) && Cause.hasDies(died.cause) && !Cause.hasFails(died.cause)).toBe(true)
    const interrupted = yield* Effect.exit(call(Fail, { how: "interrupt" }))
    expect(Exit.isFailure(interrupted) && Cause.hasInterruptsOnly(interrupted.cause)).toBe(true)
    expect(yield* Effect.flip(call(Fail, { how: "reply" }))).toMatchObject({ reason: { _tag: "ReplyInvalid", event: "r:fail" } })
    // The compiler would say so before.
    const wrong = yield* Effect.flip(call(Fail, { how: "nope" as "die" }))
    expect(wrong).toMatchObject({ reason: { _tag: "PayloadInvalid", event: "r:fail" } })
    const unknown = Event.make("r:answr", { payload: { value: Schema.Unknown } })
    expect(yield* Effect.flip(call(unknown, { value: 1 }))).toMatchObject({ reason: { _tag: "UnknownEvent", similar: ["r:answer"] } })
  }))

  it1("what a middleware of the daemon refuses with, and the event does not know, is Rejected", Effect.gen(function*() {
    const { call } = yield* ksi
    expect(yield* Effect.flip(call(Nothing, {}))).toMatchObject({ reason: { _tag: "Rejected", event: "r:nothing" } })
  }), Middleware.use(Middleware.make("guard", { error: Tired, before: () => Effect.fail(new Tired()) })))

  it1("a fact is emitted, and what it expects of the store is looked at", Effect.gen(function*() {
    const { emit } = yield* ksi
    const first = yield* emit(Happened, { n: 1, on: day })
    expect(first).toEqual({ id: first.id, streamId: "s-1", position: at(1), version: 1 })
    expect(yield* emit(Happened, { n: 3, on: day }, { expectedVersion: 1 })).toMatchObject({ position: at(2), version: 2 })
    const conflict = yield* Effect.flip(emit(Happened, { n: 3, on: day }, { expectedVersion: 1 }))
    expect(conflict).toMatchObject({ reason: { _tag: "VersionConflict", streamId: "s-1", expected: 1, actual: 2 } })
    const condition = { query: [{ streamIds: ["s-1"] }], after: at(1) }
    expect(yield* Effect.flip(emit(Happened, { n: 3, on: day }, { condition }))).toMatchObject({ reason: { _tag: "ConditionFailed", position: Number(at(2)) } })
    expect(yield* emit(Happened, { n: 3, on: day }, { condition: { ...condition, after: at(2) } })).toMatchObject({ position: at(3) })
  }))

  it1("a stream has its items, and its end", Effect.gen(function*() {
    const { stream } = yield* ksi
    const items = yield* Stream.runCollect(stream(Days, { of: day, count: 3, fail: false }))
    expect(items).toEqual([0, 1, 2].map((n) => new Date(day.getTime() + n)))
    const seen: Array<Date> = []
    const failed = yield* Effect.flip(Stream.runForEach(stream(Days, { of: day, count: 2, fail: true }), (item) => Effect.sync(() => seen.push(item))))
    expect([seen.length, failed instanceof Refused, failed]).toMatchObject([2, true, { why: "enough", at: day }])
    expect(yield* Stream.runCollect(Stream.take(stream(Days, { of: day, count: 100_000, fail: false }), 2))).toHaveLength(2)
  }))

  it1("a subscription catches up, goes on live, and tells what is known", Effect.gen(function*() {
    const { call, emit, subscribe } = yield* ksi
    for (const n of [1, 2, 3]) yield* emit(Happened, { n, on: day })
    const live = Deferred.makeUnsafe<void>()
    const following = yield* Effect.forkChild(subscribe(Happened, { from: at(2) }).pipe(
      Stream.tap(({ position }) => position === at(3) ? Deferred.succeed(live, undefined) : Effect.void), Stream.take(3), Stream.runCollect))
    yield* Deferred.await(live)
    yield* emit(Happened, { n: 4, on: day })
    const facts = yield* Fiber.join(following)
    expect(facts.map(({ data, missed, name, position, version }) => ({ data, missed, name, position, version }))).toEqual([
      { data: { n: 2, on: day }, missed: 0, name: "r:happened", position: at(2), version: 1 },
      { data: { n: 3, on: day }, missed: 0, name: "r:happened", position: at(3), version: 2 },
      { data: { n: 4, on: day }, missed: 0, name: "r:happened", position: at(4), version: 2 }
    ])
    const [fact] = facts
    expect(fact?.metadata).toMatchObject({ correlationId: fact?.id, depth: 0, source: "/ksi", principal: isOwner ? "owner" : expect.stringMatching(/^token:/), streamId: "s-0" })
    // By pattern, and requests too: their data is JSON.
    const heard = yield* Effect.forkChild(subscribe("r:*", { requests: true, from: at(4) }).pipe(
      Stream.filter(({ name }) => name === "r:day"), Stream.runHead))
    const answered = yield* Effect.forkChild(Effect.forever(Effect.andThen(call(Day, { of: day, in: 2 }), Effect.sleep(5))))
    expect(yield* Fiber.join(heard)).toMatchObject({ value: { name: "r:day", data: { of: "2020-02-02T00:00:00.000Z", in: 2 }, position: undefined } })
    yield* Fiber.interrupt(answered)
    expect(yield* Effect.flip(Stream.runDrain(subscribe("r::x")))).toMatchObject({ reason: { _tag: "PatternInvalid" } })
  }))

  it1("a fact is heard under the names that it had before", Effect.gen(function*() {
    const { dispatch, subscribe } = yield* ksi
    yield* dispatch("r:happened", { n: 1, on: "2020-02-02T00:00:00.000Z" })
    yield* dispatch("r:occurred", { n: 2, on: "2020-02-03T00:00:00.000Z" })
    yield* dispatch("r:happened", { n: 3, on: "2020-02-04T00:00:00.000Z" })
    const facts = yield* Stream.runCollect(Stream.take(subscribe(Occurred, { from: "start" }), 3))
    expect(facts.map(({ data: { n, on }, name, position }) => [n, on.getUTCDate(), name, position])).toEqual([
      [1, 2, "r:occurred", at(1)], [2, 3, "r:occurred", at(2)], [3, 4, "r:occurred", at(3)]
    ])
  }))

  it1("whoever is slow is dealt with as it wants", Effect.gen(function*() {
    const { emit, subscribe } = yield* ksi
    const all = Array.from({ length: 300 }, (_, n) => n)
    /** Follows, stands still with the first one until all were said, and goes on. */
    const follow = Effect.fnUntraced(function*(options: SubscribeOptions) {
      const first = Deferred.makeUnsafe<void>()
      const go = Deferred.makeUnsafe<void>()
      const heard: Array<readonly [n: number, missed: number]> = []
      const fiber = yield* Effect.forkChild(Effect.exit(Stream.runForEach(subscribe(Happened, options), ({ data: { n }, missed }) =>
        Effect.andThen(Effect.sync(() => heard.push([n, missed])), n < 0 ? Effect.andThen(Deferred.succeed(first, undefined), Deferred.await(go)) : Effect.void))))
      yield* Effect.raceFirst(Deferred.await(first), Effect.forever(Effect.andThen(emit(Happened, { n: -1, on: day }), Effect.sleep(20))))
      return { heard, go, fiber, last: () => heard.at(-1)?.[0] }
    })
    const newest = yield* follow({ overflow: "latest", buffer: 1 })
    const sampled = yield* follow({ overflow: "sample", every: 1 })
    const oldest = yield* follow({ overflow: "drop", buffer: 20 })
    const spilled = yield* follow({ buffer: 20 })
    const cut = yield* follow({ overflow: "disconnect", buffer: 20 })
    for (const n of all) yield* emit(Happened, { n, on: day })
    const ways = [newest, sampled, oldest, spilled, cut]
    for (const { go } of ways) yield* Deferred.succeed(go, undefined)
    yield* eventually(() => newest.last() === 299 && sampled.last() === 299 && spilled.last() === 299)
    const numbers = ({ heard }: typeof newest) => heard.map(([n]) => n).filter((n) => n >= 0)
    // One more, and whoever has left something out says how much.
    yield* emit(Happened, { n: 300, on: day })
    yield* eventually(() => [newest, sampled, oldest, spilled].every(({ last }) => last() === 300))
    expect(numbers(spilled)).toEqual([...all, 300])
    for (const way of [newest, sampled, oldest]) {
      expect(numbers(way).toSorted((a, b) => a - b)).toEqual(numbers(way))
      const missed = way.heard.reduce((sum, [n, missed]) => n >= 0 ? sum + missed : sum, 0)
      // What was said to get the others going is counted too.
      expect(missed + numbers(way).length).toBeGreaterThanOrEqual(301)
      expect(missed + numbers(way).length).toBeLessThan(340)
    }
    // As many here as there, at most.
    expect(numbers(newest).length).toBeLessThanOrEqual(5)
    expect(numbers(oldest).slice(0, 5)).toEqual([0, 1, 2, 3, 4])
    expect(numbers(oldest).length).toBeLessThanOrEqual(60)
    const ended = yield* Fiber.join(cut.fiber)
    const reason = Exit.isFailure(ended) && Cause.squash(ended.cause) instanceof KsiError ? (Cause.squash(ended.cause) as KsiError).reason : undefined // one of ours
    expect(reason).toMatchObject({ _tag: "SlowConsumer", buffer: 20 })
    expect(numbers(cut)).toEqual(all.slice(0, numbers(cut).length))
    // And from there nothing is missing.
    const from = reason?._tag === "SlowConsumer" ? reason.position : 0
    const [next] = yield* Stream.runCollect(Stream.take(subscribe(Happened, { from }), 1))
    expect(next?.data.n).toBe(numbers(cut).length)
    for (const { fiber } of ways) yield* Fiber.interrupt(fiber)
  }))

  it1("with block nobody goes faster than the owner follows", Effect.gen(function*() {
    const { emit, subscribe } = yield* ksi
    if (!isOwner) {
      const refused = yield* Effect.flip(Stream.runDrain(subscribe(Happened, { overflow: "block" })))
      return expect(refused).toMatchObject({ reason: { _tag: "PayloadInvalid", problems: [{ path: "overflow", problem: expect.stringContaining("owner") }] } })
    }
    const go = Deferred.makeUnsafe<void>()
    const first = Deferred.makeUnsafe<void>()
    const heard: Array<number> = []
    yield* Effect.forkChild(Stream.runForEach(subscribe(Happened, { overflow: "block", buffer: 2 }), ({ data: { n } }) =>
      n < 0 ? Effect.andThen(Deferred.succeed(first, undefined), Deferred.await(go)) : Effect.sync(() => heard.push(n))))
    yield* Effect.raceFirst(Deferred.await(first), Effect.forever(Effect.andThen(emit(Happened, { n: -1, on: day }), Effect.sleep(20))))
    let said = 0
    const saying = yield* Effect.forkChild(Effect.forEach(Array.from({ length: 100 }, (_, n) => n), (n) =>
      Effect.andThen(emit(Happened, { n, on: day }), Effect.sync(() => said++))))
    yield* Effect.sleep(100)
    // Two there, two here or on the way, one in hand there.
    expect(said).toBeLessThan(12)
    yield* Deferred.succeed(go, undefined)
    yield* Fiber.join(saying)
    yield* eventually(() => heard.length === 100)
  }))

  it1("what is only known by name is asked as JSON", Effect.gen(function*() {
    const { dispatch } = yield* ksi
    expect(yield* dispatch("r:day", { of: "2020-02-02T00:00:00.000Z", in: 1 })).toEqual({ kind: "value", value: "2020-02-03T00:00:00.000Z" })
    expect(yield* dispatch("r:happened", { n: 1, on: "2020-02-02T00:00:00.000Z" })).toMatchObject({ kind: "fact", position: Number(at(1)), version: 1 })
    expect(yield* Effect.flip(dispatch("r:fail", { how: "declared" }))).toMatchObject({ event: "r:fail", error: { _tag: "Refused", why: "so" } })
    expect(yield* Effect.flip(dispatch("r:nope", {}))).toMatchObject({ reason: { _tag: "UnknownEvent" } })
  }))
})

// -------------------------------------------------------------------------------------------------------- the connection

/** A daemon, and a way to it that can be cut and opened again. */
const world = Effect.gen(function*() {
  const path = Path.join(yield* folder, "run", "daemon.sock")
  const way = Path.join(yield* folder, "way.sock")
  const seen = makeSeen()
  yield* Layer.build(Layer.provideMerge(Listener.layerUnix({ path }), daemon(seen)))
  const open = new Set<() => void>()
  const server = Net.createServer((near) => {
    const far = Net.connect(path)
    const end = () => {
      open.delete(end)
      near.destroy()
      far.destroy()
    }
    open.add(end)
    near.on("error", end).on("close", end)
    far.on("error", end).on("close", end)
    near.pipe(far)
    far.pipe(near)
  })
  const listen = Effect.callback<void>((resume) => void server.listen(way, () => resume(Effect.void)))
  const stop = Effect.sync(() => {
    server.close()
    for (const end of open) end()
  })
  yield* listen
  yield* Effect.addFinalizer(() => stop)
  return { path: way, seen, start: listen, stop }
})

const reading = (connection: Remote.Remote["Service"]) =>
  Effect.gen(function*() {
    const states: Array<string> = []
    yield* Effect.forkScoped(Stream.runForEach(connection.states, ({ _tag }) => Effect.sync(() => states.push(_tag))))
    return states
  })

describe("the connection", () => {
  const within = <A>(program: Effect.Effect<A, unknown, Scope.Scope>) => program.pipe(Effect.scoped, Effect.provide(Logger.layer([]))) as Effect.Effect<A>

  it.live("that nobody answers fails the layer", () =>
    within(Effect.gen(function*() {
      const path = Path.join(yield* folder, "no.sock")
      const exit = yield* Effect.flip(Effect.scoped(Layer.build(Ksi.layerRemote({ url: path }))))
      expect(exit).toMatchObject({ reason: { _tag: "ConnectionLost", unsent: true, address: path } })
    })))

  it.live("comes back, and says how it is meanwhile; what it cut off is retryable only where that is safe", () =>
    within(Effect.gen(function*() {
      const { path, seen, start, stop } = yield* world
      yield* Effect.gen(function*() {
        const ksi = yield* KsiService
        const remote = yield* Remote.Remote
        const states = yield* reading(remote)
        const asked = yield* Effect.forkChild(Effect.all([ksi.call(Slow, { n: 1 }), ksi.call(Read, {})].map(Effect.flip), { concurrency: 2 }))
        yield* eventually(() => seen.slow === 2)
        yield* stop
        const errors = yield* Fiber.join(asked)
        expect(errors.map(({ reason, retryable }) => [reason._tag, "unsent" in reason && reason.unsent, retryable])).toEqual([
          ["ConnectionLost", false, false], ["ConnectionLost", false, true]
        ])
        yield* eventually(() => states.includes("waiting"))
        expect((yield* Effect.flip(ksi.call(Nothing, {}))).reason).toMatchObject({ _tag: "ConnectionLost", unsent: true })
        yield* start
        yield* eventually(() => states.at(-1) === "connected")
        yield* ksi.call(Nothing, {})
        expect((yield* remote.state)._tag).toBe("connected")
      }).pipe(Effect.provide(Ksi.layerRemote({ url: path })))
    })))

  it.live("with resend nobody sees it go, and nothing is carried out twice", () =>
    within(Effect.gen(function*() {
      const { path, seen, start, stop } = yield* world
      yield* Effect.gen(function*() {
        const ksi = yield* KsiService
        const asked = yield* Effect.forkChild(Effect.all([ksi.call(Slow, { n: 7 }), ksi.emit(Happened, { n: 1, on: day })], { concurrency: 2 }))
        yield* eventually(() => seen.slow === 1)
        yield* stop
        const more = yield* Effect.forkChild(ksi.emit(Happened, { n: 2, on: day }))
        Deferred.doneUnsafe(seen.go, Exit.void)
        yield* start
        const [n, first] = yield* Fiber.join(asked)
        expect([n, first.position, (yield* Fiber.join(more)).position]).toEqual([7, 1n, 2n])
      }).pipe(Effect.provide(Ksi.layerRemote({ url: path, resend: true })))
    })))

  it.live("of another definition: a reply that it does not promise is invalid", () =>
    within(Effect.gen(function*() {
      const { path } = yield* world
      const ksi = yield* Effect.provide(Effect.flatMap(KsiService, Effect.succeed), yield* Layer.build(Ksi.layerRemote({ url: path })))
      expect(yield* Effect.flip(ksi.call(Other, { value: "text" }))).toMatchObject({ reason: { _tag: "ReplyInvalid", event: "r:answer" } })
      const died = yield* Effect.exit(ksi.call(Fail, { how: "die" }))
      expect(Exit.isFailure(died) && Cause.squash(died.cause)).toBeInstanceOf(RemoteFailure)
    })))
})
