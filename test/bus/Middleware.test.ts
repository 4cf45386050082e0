import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Logger, Option, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Activity } from "../../src/bus/Activity.ts"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { DeclaredFailure, KsiService } from "../../src/bus/KsiService.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import { handle, Router, serve } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as EventStore from "../../src/store/EventStore.ts"

const bus = Router.layer.pipe(
  Layer.provideMerge(Subscriptions.layer),
  Layer.provideMerge(Layer.mergeAll(EventStore.layerMemory, Activity.layerOff, DeadLetters.layerOff))
)

const Ask = Event.make("door:ask", { payload: { n: Schema.Int }, success: Schema.String, error: Schema.String })
const Came = Event.fact("door:came", { payload: { n: Schema.Int }, streamId: () => "door" })
const Count = Event.make("door:count", { payload: { n: Schema.Int }, success: Schema.Int, stream: true })
const Door = EventGroup.make(Ask, Came, Count)

class Caller extends Context.Service<Caller, { readonly name: string }>()("test/Caller") {}
class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", { who: Schema.String }) {}

const trail = (name: string, log: Array<string>, suspended = false) =>
  Middleware.make(name, {
    before: () => suspended ? Effect.andThen(Effect.yieldNow, Effect.sync(() => void log.push(`${name} in`))) : void log.push(`${name} in`),
    after: (_, exit) => suspended ? Effect.andThen(Effect.yieldNow, Effect.sync(() => void log.push(`${name} out ${exit._tag}`))) : void log.push(`${name} out ${exit._tag}`)
  })

const handlers = (log: Array<string>) => ({
  "door:ask": ({ n }: { readonly n: number }) =>
    Effect.suspend(() => {
      log.push("handler")
      return n < 0 ? Effect.fail("negative") : n === 0 ? Effect.die("zero") : Effect.succeed(`answer ${n}`)
    }),
  "door:count": ({ n }: { readonly n: number }) => Stream.range(1, n)
})

describe("order", () => {
  for (const suspended of [false, true]) {
    it.effect(`outermost first on the way in, innermost first on the way out (${suspended ? "suspended" : "at once"})`, () => {
      const log: Array<string> = []
      const [A, B] = [trail("a", log, suspended), trail("b", log, suspended)]
      const Group = Door.middleware(A).middleware(B)
      const main = serve(Group).pipe(
        Layer.provide([Group.toLayer(handlers(log)), A.layer, B.layer]),
        Layer.provideMerge(bus)
      )
      return Effect.gen(function*() {
        const ksi = yield* KsiService
        const { "door:ask": ask, "door:came": came, "door:count": count } = Group.events
        expect(yield* ksi.call(ask, { n: 1 })).toBe("answer 1")
        expect(log.splice(0)).toEqual(["a in", "b in", "handler", "b out Success", "a out Success"])
        expect(yield* Effect.flip(ksi.call(ask, { n: -1 }))).toBe("negative")
        expect(log.splice(0)).toEqual(["a in", "b in", "handler", "b out Failure", "a out Failure"])
        yield* Effect.exit(ksi.call(ask, { n: 0 }))
        expect(log.splice(0)).toEqual(["a in", "b in", "handler", "b out Failure", "a out Failure"])
        expect((yield* ksi.emit(came, { n: 1 })).position).toBe(1n)
        expect(log.splice(0)).toEqual(["a in", "b in", "b out Success", "a out Success"])
        expect(yield* Stream.runCollect(ksi.stream(count, { n: 2 }))).toEqual([1, 2])
        expect(log.splice(0)).toEqual(["a in", "b in", "b out Success", "a out Success"])
      }).pipe(Effect.provide(main))
    })
  }

  it.effect("those of the runtime stand outside of the group's, and leave with their layer", () => {
    const log: Array<string> = []
    const Inner = trail("inner", log)
    const Group = Door.middleware(Inner)
    const main = serve(Group).pipe(Layer.provide([Group.toLayer(handlers(log)), Inner.layer]), Layer.provideMerge(bus))
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const router = yield* Router
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Layer.build(Middleware.use(trail("outer", log), { pattern: "door:*" }))
        expect(router.describe("door:ask").middleware).toEqual(["outer", "inner"])
        yield* ksi.call(Group.events["door:ask"], { n: 1 })
        expect(log.splice(0)).toEqual(["outer in", "inner in", "handler", "inner out Success", "outer out Success"])
      }))
      yield* ksi.call(Group.events["door:ask"], { n: 1 })
      expect(log.splice(0)).toEqual(["inner in", "handler", "inner out Success"])
    }).pipe(Effect.provide(main))
  })
})

describe("a layer that is missing", () => {
  it.effect("leaves no event unguarded: nothing is served", () => {
    const Gate = Middleware.make("gate", { before: () => Effect.die("shut") })
    const Guarded = EventGroup.make(Ask).middleware(trail("outer", [])).middleware(Gate)
    const unguarded = serve(Guarded).pipe(Layer.provide([
      Guarded.toLayer({ "door:ask": () => Effect.succeed("open") }),
      trail("outer", []).layer
    ])) as Layer.Layer<never, KsiError, Router> // what a program says that gets past the types
    return Effect.gen(function*() {
      const error = yield* Effect.flip(Layer.build(unguarded))
      expect(error.reason._tag).toBe("PluginInvalid")
      expect(error.message).toContain("door:ask stands behind the middleware \"gate\": provide its layer")
      expect((yield* Router).describe("door:ask").handlers).toEqual([])
    }).pipe(Effect.provide(bus))
  })
})

describe("services and errors", () => {
  const Auth = Middleware.make("auth", {
    provides: Caller,
    error: Forbidden,
    before: ({ metadata }) => metadata.clientId === undefined
      ? Effect.succeed({ name: metadata.principal })
      : Effect.fail(new Forbidden({ who: metadata.clientId }))
  })
  const Secured = EventGroup.make(Ask).middleware(Auth)
  const main = serve(Secured).pipe(
    Layer.provide([
      Secured.toLayer({ *"door:ask"() { return (yield* Caller).name } }),
      Auth.layer
    ]),
    Layer.provideMerge(bus)
  )

  it.effect("what is provided is there; what it fails with is typed, and crosses a boundary as declared", () =>
    Effect.gen(function*() {
      const ksi = yield* KsiService
      expect(yield* ksi.call(Secured.events["door:ask"], { n: 1 })).toBe("owner")
      const refused = yield* Effect.flip(ksi.dispatch("door:ask", { n: 1 }, { clientId: "mallory" }))
      expect(refused).toBeInstanceOf(DeclaredFailure)
      expect(refused).toMatchObject({ error: { _tag: "Forbidden", who: "mallory" } })
    }).pipe(Effect.provide(main)))

  it.effect("a caller whose event does not know the error sees Rejected", () => {
    const Strict = Middleware.make("strict", { error: Forbidden, before: () => Effect.fail(new Forbidden({ who: "you" })) })
    const open = serve(Door).pipe(Layer.provide(Door.toLayer(handlers([]))), Layer.provideMerge(bus))
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      yield* Layer.build(Middleware.use(Strict))
      const reason = { _tag: "Rejected", event: "door:ask", middleware: "strict" }
      expect(yield* Effect.flip(ksi.call(Ask, { n: 1 }))).toMatchObject({ reason })
      expect(yield* Effect.flip(ksi.emit(Came, { n: 1 }))).toMatchObject({ reason: { ...reason, event: "door:came" } })
    }).pipe(Effect.provide(open))
  })

  it.effect("it may answer instead of the handler; the reply is what it says", () => {
    const log: Array<string> = []
    const Cache = Middleware.make("cache", { before: () => Middleware.answer("cached") })
    const Outer = trail("outer", log)
    const Group = EventGroup.make(Ask).middleware(Outer).middleware(Cache)
    const cached = serve(Group).pipe(
      Layer.provide([Group.toLayer({ "door:ask": () => Effect.die("asked") }), Cache.layer, Outer.layer]),
      Layer.provideMerge(bus)
    )
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      expect(yield* ksi.call(Group.events["door:ask"], { n: 1 })).toBe("cached")
      expect(log).toEqual(["outer in", "outer out Success"])
    }).pipe(Effect.provide(cached))
  })
})

it("what provides a service and never makes it is refused where it is defined", () => {
  // @ts-expect-error the types say so first
  expect(() => Middleware.make("auth", { provides: Caller }))
    .toThrow(new TypeError("the middleware \"auth\" provides test/Caller, and has no `before` that makes it"))
})

describe("around", () => {
  it.effect("wraps what is behind it: a retry", () => {
    let tries = 0
    const log: Array<string> = []
    const Retry = Middleware.make("retry", { around: (next) => Effect.retry(next, { times: 2 }) })
    const [Outer, Inner] = [trail("outer", log), trail("inner", log)]
    const Group = EventGroup.make(Ask).middleware(Outer).middleware(Retry).middleware(Inner)
    const main = serve(Group).pipe(
      Layer.provide([
        Group.toLayer({ "door:ask": () => Effect.suspend(() => ++tries < 3 ? Effect.fail("again") : Effect.succeed("at last")) }),
        Outer.layer, Retry.layer, Inner.layer
      ]),
      Layer.provideMerge(bus)
    )
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      expect(yield* ksi.call(Group.events["door:ask"], { n: 1 })).toBe("at last")
      expect(tries).toBe(3)
      expect(log).toEqual([
        "outer in", "inner in", "inner out Failure", "inner in", "inner out Failure", "inner in", "inner out Success", "outer out Success"
      ])
    }).pipe(Effect.provide(main))
  })
})

describe("when", () => {
  it.effect("says which events `around` wraps; one that throws says yes", () => {
    const log: Array<string> = []
    const Some = Middleware.make("some", {
      around: (next, { data }) => Effect.andThen(Effect.sync(() => void log.push(`around ${JSON.stringify(data)}`)), next),
      when: ({ data }) => {
        const { n } = data as { readonly n: number }
        if (n > 2) throw new Error("boom")
        return n > 1
      }
    })
    const Outer = trail("outer", log)
    const Group = Door.middleware(Outer).middleware(Some)
    const main = serve(Group).pipe(Layer.provide([Group.toLayer(handlers([])), Outer.layer, Some.layer]), Layer.provideMerge(bus))
    const [into, out] = ["outer in", "outer out Success"]
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const { "door:ask": ask, "door:came": came } = Group.events
      expect(yield* ksi.call(ask, { n: 1 })).toBe("answer 1")
      expect(log.splice(0)).toEqual([into, out])
      expect(yield* ksi.call(ask, { n: 2 })).toBe("answer 2")
      expect(log.splice(0)).toEqual([into, "around {\"n\":2}", out])
      expect(yield* ksi.call(ask, { n: 3 })).toBe("answer 3")
      expect(log.splice(0)).toEqual([into, "around {\"n\":3}", out])
      yield* ksi.emit(came, { n: 1 })
      expect(log.splice(0)).toEqual([into, out])
      yield* ksi.emit(came, { n: 2 })
      expect(log.splice(0)).toEqual([into, "around {\"n\":2}", out])
    }).pipe(Effect.provide(main))
  })
})

describe("misbehaviour is a defect of that call only", () => {
  const cases: ReadonlyArray<readonly [string, Middleware.Middleware<"bad", never, typeof Schema.Never, never>]> = [
    ["before throws", Middleware.make("bad", { before: () => { throw new Error("boom") } })],
    ["before dies", Middleware.make("bad", { before: () => Effect.die("boom") })],
    ["after throws", Middleware.make("bad", { after: () => { throw new Error("boom") } })],
    ["after dies later", Middleware.make("bad", { after: () => Effect.andThen(Effect.yieldNow, Effect.die("boom")) })],
    ["around throws", Middleware.make("bad", { around: () => { throw new Error("boom") } })],
    ["around forgets", Middleware.make("bad", { around: () => undefined as never })]
  ]
  it.effect.each(cases)("%s", ([, bad]) =>
    Effect.gen(function*() {
      const ksi = yield* KsiService
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Layer.build(Middleware.use(bad))
        const exit = yield* Effect.exit(ksi.call(Ask, { n: 1 }))
        expect(Exit.isFailure(exit) && Exit.hasDies(exit)).toBe(true)
      }))
      expect(yield* ksi.call(Ask, { n: 1 })).toBe("answer 1")
    }).pipe(
      Effect.provide(serve(Door).pipe(Layer.provide(Door.toLayer(handlers([]))), Layer.provideMerge(bus))),
      Effect.provide(Logger.layer([]))
    ))

  it.effect("one that hangs is interrupted with its caller, and those outside of it see that", () => {
    const log: Array<string> = []
    const main = serve(Door).pipe(Layer.provide(Door.toLayer(handlers([]))), Layer.provideMerge(bus))
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      yield* Layer.build(Middleware.use(trail("outer", log)))
      yield* Layer.build(Middleware.use(Middleware.make("hangs", { before: () => Effect.never })))
      const fiber = yield* Effect.forkChild(Effect.timeoutOption(ksi.call(Ask, { n: 1 }), 50))
      yield* TestClock.adjust(50)
      expect(Option.isNone(yield* Fiber.join(fiber))).toBe(true)
      expect(log).toEqual(["outer in", "outer out Failure"])
    }).pipe(Effect.provide(main))
  })
})

describe("elapsed", () => {
  it.effect("is measured where a hook takes it", () => {
    const elapsed: Array<number> = []
    const Timing = Middleware.make("timing", { after: (_, _exit, millis) => void elapsed.push(millis) })
    const Slow = Event.make("slow:ask", {})
    const Group = EventGroup.make(Slow).middleware(Timing)
    const main = serve(Group).pipe(
      Layer.provide([Group.toLayer({ "slow:ask": () => Effect.sleep(40) }), Timing.layer]),
      Layer.provideMerge(bus)
    )
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const fiber = yield* Effect.forkChild(ksi.call(Group.events["slow:ask"], {}))
      yield* TestClock.adjust(40)
      yield* Fiber.join(fiber)
      expect(elapsed).toEqual([40])
    }).pipe(Effect.provide(main))
  })
})

describe("causes", () => {
  it.effect("what a hook calls is caused by the event it stands before", () => {
    const Note = Event.make("note:make", { success: Schema.NullOr(Schema.String) })
    const Notes = EventGroup.make(Note)
    const seen: Array<unknown> = []
    const Auditor = Middleware.make("auditor", {
      before: ({ id }) => Effect.gen(function*() {
        const ksi = yield* KsiService
        seen.push((yield* Effect.orDie(ksi.call(Note, {}))) === id)
      })
    })
    const main = serve(Door).pipe(
      Layer.provide(Door.toLayer(handlers([]))),
      Layer.provideMerge(serve(Notes)),
      Layer.provide(Notes.toLayer({ "note:make": (_, { metadata }) => Effect.succeed(metadata.causationId ?? null) })),
      Layer.provideMerge(bus)
    )
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      yield* Layer.build(Middleware.use(Auditor, { pattern: "door:*" }))
      yield* ksi.call(Ask, { n: 1 })
      expect(seen).toEqual([true])
      expect(yield* Effect.flip(Layer.build(Middleware.use(Auditor, { pattern: "d*r" })))).toBeInstanceOf(KsiError)
    }).pipe(Effect.provide(main))
  })
})

describe("reaction", () => {
  class Till extends Context.Service<Till, { readonly log: (line: string) => void }>()("test/Till") {}
  const log: Array<string> = []
  const layer = Layer.merge(Ksi.layerMemory, Layer.succeed(Till, { log: (line) => void log.push(line) }))
  const around = (name: string, run: (next: Effect.Effect<unknown, unknown>) => Effect.Effect<unknown, unknown> = (next) => next) =>
    Middleware.make(name, {
      reaction: (next, envelope, handler) => Effect.flatMap(Till, (till) => Effect.suspend(() => {
        till.log(`${name} ${handler} of ${envelope.name}`)
        return Effect.onExit(run(next), (exit) => Effect.sync(() => till.log(`${name} ${exit._tag}`)))
      }))
    })
  const shop = (middleware: Layer.Layer<never, KsiError, Router | Till>, react: () => Effect.Effect<unknown, unknown> = () => Effect.sync(() => void log.push("handler"))) =>
    Layer.mergeAll(middleware, handle(Came, react, { name: "billing" })).pipe(Layer.provideMerge(layer))
  const came = Effect.gen(function*() {
    log.length = 0
    const ksi = yield* KsiService
    yield* ksi.emit(Came, { n: 1 })
    yield* Effect.flatMap(Router, ({ settled }) => settled)
    return yield* Effect.flatMap(DeadLetters, (letters) => letters.list({ limit: 9 }))
  })

  it.effect("stands around each reaction, outermost first, with its services", () =>
    Effect.gen(function*() {
      const outer = Layer.mergeAll(Middleware.use(around("outer")), Middleware.use(around("inner"), { pattern: "door:*" }), Middleware.use(trail("hooks", [])))
      const { total } = yield* came.pipe(Effect.provide(shop(outer)))
      expect(log).toEqual(["outer billing of door:came", "inner billing of door:came", "handler", "inner Success", "outer Success"])
      expect(total).toBe(0)
    }))

  it.effect("may try again, give up, or break: what it fails with is the reaction's failure, and nobody else's", () =>
    Effect.gen(function*() {
      let runs = 0
      const react = () => Effect.suspend(() => ++runs % 2 === 1 ? Effect.fail("no paper") : Effect.void)
      const retried = yield* came.pipe(Effect.provide(shop(Middleware.use(around("again", (next) => Effect.retry(next, { times: 1 }))), react)))
      expect([runs, retried.total]).toEqual([2, 0])
      const without = yield* came.pipe(Effect.provide(shop(Middleware.use(around("as it is")), react)))
      expect(without.letters.map(({ error, handler, reason }) => [error, handler, reason])).toEqual([["no paper", "billing", "failed"]])
      const breaking = Middleware.make("breaking", { reaction: () => { throw new Error("broken hook") } })
      const broken = yield* came.pipe(Effect.provide(shop(Middleware.use(breaking))))
      expect(broken.letters.map(({ error, reason }) => [error, reason])).toEqual([["broken hook", "died"]])
      const hollow = Middleware.make("hollow", { reaction: () => undefined as never })
      expect((yield* came.pipe(Effect.provide(shop(Middleware.use(hollow))))).letters.map(({ reason }) => reason)).toEqual(["died"])
    }))

  it.effect("counts in the time of the handler, and stands around a rerun", () =>
    Effect.gen(function*() {
      const slow = Middleware.use(around("slow", (next) => Effect.andThen(Effect.sleep("1 hour"), next)))
      yield* Effect.gen(function*() {
        const ksi = yield* KsiService
        yield* ksi.emit(Came, { n: 1 })
        yield* TestClock.adjust("31 seconds")
        yield* Effect.flatMap(Router, ({ settled }) => settled)
        const { letters: [letter] } = yield* Effect.flatMap(DeadLetters, (letters) => letters.list({ limit: 9 }))
        expect(letter?.reason).toBe("timed-out")
        log.length = 0
        if (letter === undefined) return
        const again = yield* Effect.forkChild(Effect.flatMap(Router, (router) => router.rerun(letter)), { startImmediately: true })
        expect(log).toEqual(["slow billing of door:came"])
        yield* Fiber.interrupt(again)
      }).pipe(Effect.provide(shop(slow)))
    }))
})
