import { describe, expect, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Option, References, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Activity } from "../../src/bus/Activity.ts"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { Authorizer, ownerOnly } from "../../src/bus/Authorizer.ts"
import * as Causation from "../../src/bus/Causation.ts"
import { DeclaredFailure, KsiService } from "../../src/bus/KsiService.ts"
import { type Append, Journal } from "../../src/bus/Journal.ts"
import { Router, serve, serveBuiltin } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import type { Envelope } from "../../src/event/Envelope.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as EventStore from "../../src/store/EventStore.ts"

const bus = Router.layer.pipe(
  Layer.provideMerge(Subscriptions.layer),
  Layer.provideMerge(Layer.mergeAll(EventStore.layerMemory, Activity.layerOff, DeadLetters.layerOff))
)

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { sku: Schema.String, left: Schema.Int }) {}
const Reserve = Event.make("stock:reserve", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  success: Schema.Struct({ holdId: Schema.String }),
  error: OutOfStock
})
const Reserved = Event.fact("stock:reserved", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  streamId: ({ sku }) => `stock-${sku}`
})
const Watch = Event.make("stock:watch", { payload: { upTo: Schema.Int }, success: Schema.Int, stream: true })
const Stock = EventGroup.make(Reserve, Reserved, Watch)

class Warehouse extends Context.Service<Warehouse, { readonly left: (sku: string) => Effect.Effect<number> }>()(
  "test/Warehouse"
) {}

const handlers = Stock.toLayer(Effect.gen(function*() {
  const ksi = yield* KsiService
  return {
    *"stock:reserve"({ quantity, sku }) {
      const warehouse = yield* Warehouse
      const left = yield* warehouse.left(sku)
      if (sku === "boom") return yield* Effect.die(new Error("secret"))
      if (left < quantity) return yield* new OutOfStock({ sku, left })
      const { position } = yield* ksi.emit(Reserved, { sku, quantity })
      return { holdId: `hold-${position}` }
    },
    "stock:watch": ({ upTo }) => Stream.range(1, upTo)
  }
})).pipe(Layer.provide(Layer.succeed(Warehouse, { left: (sku) => Effect.succeed(sku === "empty" ? 0 : 10) })))

const stock = serve(Stock).pipe(Layer.provide(handlers), Layer.provideMerge(bus))

const reasonOf = <A, R>(effect: Effect.Effect<A, unknown, R>) =>
  Effect.map(Effect.flip(effect), (error) => error instanceof KsiError ? error.reason._tag : String(error))

describe("begin", () => {
  const begin = (name: string, data: unknown) => Effect.gen(function*() {
    const router = yield* Router
    return yield* Effect.withFiber((fiber) => Effect.succeed(router.begin(fiber, router.envelope(name, data))))
  })

  it.effect("is an exit where nothing waits: an answer, an error, a refusal, a payload that does not fit", () => {
    const Halve = Event.make("test:halve", { payload: { n: Schema.Int }, success: Schema.Finite, error: Schema.String })
    const halving = EventGroup.make(Halve)
    const layer = serve(halving).pipe(Layer.provide(halving.toLayer({
      *"test:halve"({ n }) {
        if (n % 2 === 1) return yield* Effect.fail("odd")
        return yield* Effect.succeed(n / 2)
      }
    })), Layer.provideMerge(stock))
    return Effect.gen(function*() {
      expect(yield* begin("test:halve", { n: 4 })).toEqual(Exit.succeed({ kind: "value", value: 2 }))
      for (const [name, data, reason] of [["stock:resrve", {}, "UnknownEvent"], ["stock:reserve", { sku: 7 }, "PayloadInvalid"], ["stock:watch", {}, "WrongShape"]] as const) {
        const refused = yield* begin(name, data)
        expect(Exit.isExit(refused), name).toBe(true)
        expect(yield* reasonOf(refused)).toBe(reason)
      }
      const declared = yield* begin("test:halve", { n: 3 })
      expect(Exit.isExit(declared)).toBe(true)
      expect(yield* Effect.flip(declared)).toMatchObject({ event: "test:halve", error: "odd" })
    }).pipe(Effect.provide(layer))
  })

  it.effect("is what is left where something waits: the handler has begun, and is interrupted with who runs the rest", () => {
    const log: Array<string> = []
    const Wait = Event.make("test:wait", {})
    const waiting = EventGroup.make(Wait)
    const layer = serve(waiting).pipe(Layer.provide(waiting.toLayer({
      *"test:wait"(_, { id }) {
        log.push("begun")
        const current = yield* Causation.Current
        log.push(`in its context: ${current?.id === id}`)
        yield* Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("interrupted")))
      }
    })), Layer.provideMerge(bus))
    return Effect.gen(function*() {
      const left = yield* begin("test:wait", {})
      expect(Exit.isExit(left)).toBe(false)
      expect(log).toEqual(["begun"])
      const fiber = yield* Effect.forkDetach(left, { startImmediately: true })
      expect(log).toEqual(["begun", "in its context: true"])
      yield* Fiber.interrupt(fiber)
      expect(log.at(-1)).toBe("interrupted")
      // Nothing was done to whoever began it.
      expect(yield* Causation.Current).toBeUndefined()
    }).pipe(Effect.provide(layer))
  })

  it.effect("what breaks is a defect, and nothing is thrown", () =>
    Effect.gen(function*() {
      const router = yield* Router
      const broken = router.envelope("stock:reserve", { sku: "tea", quantity: 1 })
      Object.defineProperty(broken, "data", { get: () => { throw new Error("boom") } })
      const begun = yield* Effect.withFiber((fiber) => Effect.succeed(router.begin(fiber, broken)))
      const exit = yield* Effect.exit(begun)
      expect(Exit.isFailure(exit) && Cause.hasDies(exit.cause)).toBe(true)
    }).pipe(Effect.provide(stock)))
})

describe("requests", () => {
  it.effect("a handler answers, and what it emits is stored", () =>
    Effect.gen(function*() {
      const ksi = yield* KsiService
      expect(yield* ksi.call(Reserve, { sku: "tea", quantity: 1 })).toEqual({ holdId: "hold-1" })
      expect(yield* ksi.call(Reserve, { sku: "tea", quantity: 2 })).toEqual({ holdId: "hold-2" })
      const store = yield* EventStore.EventStore
      const facts = yield* Stream.runCollect(store.stream("stock-tea"))
      expect(facts.map((fact) => [fact.version, fact.name, fact.data])).toEqual([
        [1, "stock:reserved", { sku: "tea", quantity: 1 }],
        [2, "stock:reserved", { sku: "tea", quantity: 2 }]
      ])
    }).pipe(Effect.provide(stock)))

  it.effect("a declared error arrives as itself", () =>
    Effect.gen(function*() {
      const ksi = yield* KsiService
      const error = yield* Effect.flip(ksi.call(Reserve, { sku: "empty", quantity: 1 }))
      expect(error).toBeInstanceOf(OutOfStock)
      const dispatched = yield* Effect.flip(ksi.dispatch("stock:reserve", { sku: "empty", quantity: 1 }))
      expect(dispatched).toBeInstanceOf(DeclaredFailure)
      expect(dispatched).toMatchObject({ error: { _tag: "OutOfStock", sku: "empty", left: 0 } })
    }).pipe(Effect.provide(stock)))

  it.effect("an invalid payload is told in full and no handler runs", () =>
    Effect.gen(function*() {
      const ksi = yield* KsiService
      const error = yield* Effect.flip(ksi.dispatch("stock:reserve", { sku: 7, quantity: "two" }))
      expect(error).toBeInstanceOf(KsiError)
      expect((error as KsiError).reason).toMatchObject({
        _tag: "PayloadInvalid",
        problems: [
          { path: "sku", problem: "expected string, got 7" },
          { path: "quantity", problem: "expected number, got \"two\"" }
        ]
      })
      const store = yield* EventStore.EventStore
      expect(store.head()).toBe(0)
    }).pipe(Effect.provide(stock)))

  it.effect("the reasons are distinct: unknown, no handler, wrong shape, invalid reply", () => {
    const Lonely = Event.make("shop:lonely", {})
    const Loose = Event.make("shop:loose", { success: Schema.Unknown })
    const Liar = Event.make("shop:liar", { success: Schema.Struct({ n: Schema.Int }) })
    return Effect.gen(function*() {
      const router = yield* Router
      yield* router.define(Lonely)
      yield* router.handle(Loose, { name: Loose.name, run: () => Effect.succeed({ n: 1n }), context: Context.empty() })
      // A handler that lies about its type, as plain JavaScript could.
      yield* router.handle(Liar, { name: Liar.name, run: () => Effect.succeed({ n: "x" }), context: Context.empty() })
      const ksi = yield* KsiService
      expect(yield* reasonOf(ksi.dispatch("stock:resrve", {}))).toBe("UnknownEvent")
      const unknown = yield* Effect.flip(ksi.dispatch("stock:resrve", {}))
      expect((unknown as KsiError).message).toContain("\"stock:reserve\"")
      expect(yield* reasonOf(ksi.dispatch("shop:lonely", {}))).toBe("NoHandler")
      expect(yield* reasonOf(ksi.dispatch("stock:reserved", {}, { as: "call" }))).toBe("WrongShape")
      expect(yield* reasonOf(ksi.dispatch("stock:reserve", {}, { as: "emit" }))).toBe("WrongShape")
      expect(yield* reasonOf(ksi.dispatch("stock:watch", {}))).toBe("WrongShape")
      expect(yield* reasonOf(ksi.dispatch("shop:liar", {}))).toBe("ReplyInvalid")
      expect(yield* reasonOf(ksi.dispatch("shop:loose", {}))).toBe("ReplyInvalid")
    }).pipe(Effect.provide(stock))
  })

  it.effect("falsy replies are replies", () => {
    const replies = [0, false, "", null]
    const Echo = Event.make("shop:echo", { payload: { at: Schema.Int }, success: Schema.Unknown })
    return Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      yield* router.handle(Echo, {
        name: Echo.name,
        run: (payload) => Effect.succeed(replies[(payload as { at: number }).at]),
        context: Context.empty()
      })
      for (let at = 0; at < replies.length; at++) expect(yield* ksi.call(Echo, { at })).toBe(replies[at])
    }).pipe(Effect.provide(bus))
  })

  it.effect("a defect stays a defect, is logged with its correlation id, and its text does not reach a dispatcher", () => {
    const logged: Array<{ message: unknown; annotations: unknown }> = []
    const logger = Logger.make(({ fiber, message }) => {
      logged.push({ message, annotations: fiber.getRef(References.CurrentLogAnnotations) })
    })
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const exit = yield* Effect.exit(ksi.dispatch("stock:reserve", { sku: "boom", quantity: 1 }))
      expect(Exit.isFailure(exit) && Cause.hasDies(exit.cause)).toBe(true)
      expect(logged).toHaveLength(1)
      expect(JSON.stringify(logged[0]?.annotations)).toContain("correlationId")
    }).pipe(Effect.provide(stock), Effect.provide(Logger.layer([logger])))
  })

  it.effect("interrupting the caller interrupts the handler and runs its finalizers", () => {
    const Slow = Event.make("shop:slow", {})
    return Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      const started = yield* Deferred.make<void>()
      const finalized = yield* Deferred.make<void>()
      yield* router.handle(Slow, {
        name: Slow.name,
        run: () =>
          Effect.andThen(Deferred.succeed(started, undefined), Effect.never).pipe(
            Effect.onInterrupt(() => Deferred.succeed(finalized, undefined))
          ),
        context: Context.empty()
      })
      const fiber = yield* Effect.forkChild(ksi.call(Slow, {}))
      yield* Deferred.await(started)
      yield* Fiber.interrupt(fiber)
      yield* Deferred.await(finalized)
    }).pipe(Effect.provide(bus))
  })

  it.effect("a deadline interrupts the handler and is a typed error", () => {
    const Slow = Event.make("shop:slow", {})
    return Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      yield* router.handle(Slow, { name: Slow.name, run: () => Effect.never, context: Context.empty() })
      const fiber = yield* Effect.forkChild(Effect.flip(ksi.dispatch("shop:slow", {}, { deadline: 100 })))
      yield* TestClock.adjust(99)
      expect(fiber.pollUnsafe()).toBeUndefined()
      yield* TestClock.adjust(1)
      expect(((yield* Fiber.join(fiber)) as KsiError).reason).toMatchObject({ _tag: "DeadlineExceeded", millis: 100 })
    }).pipe(Effect.provide(bus))
  })
})

describe("causation", () => {
  const Outer = Event.make("chain:outer", { payload: { n: Schema.Int }, success: Schema.String })
  const Inner = Event.make("chain:inner", { payload: { n: Schema.Int }, success: Schema.String })
  const Happened = Event.fact("chain:happened", { payload: { n: Schema.Int }, streamId: ({ n }) => `chain-${n}` })
  const Chain = EventGroup.make(Outer, Inner, Happened)

  const collect = (seen: Array<Envelope>) =>
    serve(Chain).pipe(
      Layer.provide(Chain.toLayer(Effect.gen(function*() {
        const ksi = yield* KsiService
        return {
          *"chain:outer"({ n }, envelope) {
            seen.push(envelope)
            yield* Effect.yieldNow
            // Across fibers too.
            const [first] = yield* Effect.all([ksi.call(Inner, { n }), ksi.call(Inner, { n })], { concurrency: 2 })
            yield* Effect.yieldNow
            yield* ksi.emit(Happened, { n })
            return first
          },
          "chain:inner": ({ n }, envelope) =>
            Effect.gen(function*() {
              yield* Effect.yieldNow
              seen.push(envelope)
              expect(envelope.data.n).toBe(n)
              return envelope.metadata.correlationId
            }),
          "chain:happened": (_, envelope) => Effect.sync(() => seen.push(envelope))
        }
      }))),
      Layer.provideMerge(bus)
    )

  it.effect("1,000 concurrent requests never mix", () => {
    const seen: Array<Envelope> = []
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const router = yield* Router
      const correlations = yield* Effect.forEach(
        Array.from({ length: 1000 }, (_, n) => n),
        (n) => ksi.call(Outer, { n }),
        { concurrency: "unbounded" }
      )
      yield* router.settled
      expect(new Set(correlations).size).toBe(1000)
      expect(seen).toHaveLength(4000)
      const byId = new Map(seen.map((envelope) => [envelope.id, envelope]))
      expect(byId.size).toBe(4000)
      for (const envelope of seen) {
        const { causationId, correlationId, depth } = envelope.metadata
        if (envelope.name === "chain:outer") {
          expect([depth, causationId, correlationId]).toEqual([0, undefined, envelope.id])
          continue
        }
        expect(depth).toBe(1)
        const parent = byId.get(causationId ?? "")
        expect(parent?.name).toBe("chain:outer")
        expect(correlationId).toBe(parent?.id)
        expect(envelope.data).toEqual(parent?.data)
      }
    }).pipe(Effect.provide(collect(seen)))
  })

  it.effect("a stored fact carries its cause", () =>
    Effect.gen(function*() {
      const ksi = yield* KsiService
      const correlation = yield* ksi.call(Outer, { n: 1 })
      const store = yield* EventStore.EventStore
      const [fact] = yield* store.read({ from: 1, limit: 1 })
      expect(fact?.attributes).toMatchObject({ correlationid: correlation, causationid: correlation, depth: 1 })
    }).pipe(Effect.provide(collect([]))))

  it.effect("the caller's envelope comes back after success, failure, defect and interruption", () => {
    const Ok = Event.make("ctx:ok", {})
    const Bad = Event.make("ctx:bad", {})
    const Dies = Event.make("ctx:dies", {})
    const Hangs = Event.make("ctx:hangs", {})
    return Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      const run = (event: Event.AnyRequest, effect: Effect.Effect<unknown, unknown>) =>
        router.handle(event, { name: event.name, run: () => Effect.andThen(Effect.yieldNow, effect), context: Context.empty() })
      yield* run(Ok, Effect.void)
      yield* run(Bad, Effect.fail("no"))
      yield* run(Dies, Effect.die("no"))
      yield* run(Hangs, Effect.never)
      const before = yield* Effect.context<never>()
      yield* ksi.call(Ok, {})
      yield* Effect.exit(ksi.call(Bad, {}))
      yield* Effect.exit(ksi.call(Dies, {}))
      const timed = yield* Effect.forkChild(Effect.timeoutOption(ksi.call(Hangs, {}), 10))
      yield* TestClock.adjust(10)
      expect(Option.isNone(yield* Fiber.join(timed))).toBe(true)
      expect(yield* Causation.Current).toBeUndefined()
      expect((yield* Effect.context<never>()).mapUnsafe.size).toBe(before.mapUnsafe.size)
    }).pipe(Effect.provide(bus))
  })

  it.effect("a nested dispatch may bring the deadline forward, and may not say who asks", () => {
    const Root = Event.make("nest:root", { success: Schema.Unknown })
    const Leaf = Event.make("nest:leaf", { success: Schema.Unknown })
    const Slow = Event.make("nest:slow", {})
    return Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      const on = (event: Event.AnyRequest, run: (envelope: Envelope) => Effect.Effect<unknown, unknown>) =>
        router.handle(event, { name: event.name, run: (_, envelope) => run(envelope), context: Context.empty() })
      yield* on(Leaf, ({ metadata }) => Effect.succeed(JSON.parse(JSON.stringify(metadata))))
      yield* on(Slow, () => Effect.never)
      yield* on(Root, () => Effect.map(
        ksi.dispatch("nest:leaf", {}, { deadline: 50, principal: "mallory", clientId: "inner", idempotencyKey: "k" }),
        (answer) => answer.kind === "value" ? answer.value : undefined
      ))
      const answer = yield* ksi.dispatch("nest:root", {}, { deadline: 100, principal: "token:1", clientId: "outer" })
      expect(answer).toMatchObject({
        value: { principal: "token:1", clientId: "inner", deadline: 50, idempotencyKey: "k", depth: 1 }
      })
      const Early = Event.make("nest:early", {})
      yield* on(Early, () => Effect.asVoid(ksi.dispatch("nest:slow", {}, { deadline: 50 })))
      const fiber = yield* Effect.forkChild(Effect.flip(ksi.dispatch("nest:early", {}, { deadline: 100 })))
      yield* TestClock.adjust(50)
      expect(((yield* Fiber.join(fiber)) as KsiError).reason).toMatchObject({ _tag: "DeadlineExceeded", event: "nest:slow" })
    }).pipe(Effect.provide(bus), Effect.provideService(Authorizer, { ...ownerOnly, allows: () => true }))
  })

  it.effect("a handler that never suspends lets others run", () => {
    const Busy = Event.make("busy:loop", {})
    let stop = false
    return Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      yield* router.handle(Busy, {
        name: Busy.name,
        *run() {
          while (!stop) yield* Exit.void
        },
        context: Context.empty()
      })
      const fiber = yield* Effect.forkChild(ksi.call(Busy, {}))
      yield* Effect.yieldNow
      stop = true
      yield* Fiber.join(fiber)
    }).pipe(Effect.provide(bus))
  })

  it.effect("a loop of events ends in LimitExceeded, not in a crash", () => {
    const Again = Event.make("loop:again", { success: Schema.Int })
    return Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      yield* router.handle(Again, {
        name: Again.name,
        run: () => ksi.call(Again, {}),
        context: Context.empty()
      })
      expect(yield* reasonOf(ksi.call(Again, {}))).toBe("LimitExceeded")
    }).pipe(Effect.provide(bus), Effect.provideService(Limits.Limits, { ...Limits.defaults, depth: 16 }))
  })
})

describe("facts", () => {
  it.effect("handlers run each on their own; a failing, dying or hanging one hurts nobody", () => {
    const ran: Array<string> = []
    return Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      const on = (effect: Effect.Effect<unknown, unknown>) =>
        router.handle(Reserved, { name: Reserved.name, run: () => effect, context: Context.empty() })
      yield* on(Effect.fail("no"))
      yield* on(Effect.die("no"))
      yield* on(Effect.onInterrupt(Effect.never, () => Effect.sync(() => ran.push("interrupted"))))
      yield* on(Effect.sync(() => ran.push("ran")))
      const { position } = yield* ksi.emit(Reserved, { sku: "tea", quantity: 1 })
      expect(position).toBe(1n)
      yield* Effect.yieldNow
      expect(ran).toEqual(["ran"])
      expect(router.isSettled()).toBe(false)
      yield* TestClock.adjust(Limits.defaults.factHandlerMillis)
      yield* router.settled
      expect(router.isSettled()).toBe(true)
      expect(ran).toEqual(["ran", "interrupted"])
    }).pipe(Effect.provide(bus), Effect.provide(Logger.layer([])))
  })

  it.effect("a stored fact is handled, even when whoever said it is interrupted meanwhile", () => {
    let ran = 0
    const stored = Deferred.makeUnsafe<void>()
    const go = Deferred.makeUnsafe<void>()
    // A journal whose commit takes until it is told.
    const slow = Layer.effect(Journal, Effect.map(Journal, (journal) => ({
      ...journal,
      append: (request: Append) =>
        Effect.tap(journal.append(request), () => Effect.andThen(Deferred.succeed(stored, undefined), Deferred.await(go)))
    }))).pipe(Layer.provide(EventStore.layerMemory))
    const slowBus = Router.layer.pipe(
      Layer.provideMerge(Subscriptions.layer), Layer.provideMerge(Layer.mergeAll(slow, Activity.layerOff, DeadLetters.layerOff))
    )
    return Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      yield* router.handle(Reserved, { name: Reserved.name, run: () => Effect.sync(() => ran++), context: Context.empty() })
      const fiber = yield* Effect.forkChild(ksi.emit(Reserved, { sku: "tea", quantity: 1 }))
      yield* Deferred.await(stored)
      fiber.interruptUnsafe()
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.await(fiber)
      yield* router.settled
      expect(ran).toBe(1)
    }).pipe(Effect.provide(slowBus))
  })

  it.effect("a handler is told where its fact is", () => {
    const seen: Array<unknown> = []
    return Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      yield* router.handle(Reserved, {
        name: Reserved.name,
        run: (_, envelope) => Effect.sync(() => seen.push(envelope)),
        context: Context.empty()
      })
      const { id } = yield* ksi.emit(Reserved, { sku: "tea", quantity: 1 })
      yield* router.settled
      expect(seen).toMatchObject([{ id, position: 1n, version: 1, metadata: { streamId: "stock-tea" } }])
    }).pipe(Effect.provide(bus))
  })

  it.effect("importing runs no handler", () => {
    let ran = 0
    return Effect.gen(function*() {
      const router = yield* Router
      yield* router.handle(Reserved, {
        name: Reserved.name, run: () => Effect.sync(() => ran++), context: Context.empty()
      })
      const store = yield* EventStore.EventStore
      yield* store.appendTo("stock-tea", [{ name: "stock:reserved", data: { sku: "tea", quantity: 1 } }])
      yield* router.settled
      expect(ran).toBe(0)
    }).pipe(Effect.provide(bus))
  })
})

describe("streams", () => {
  it.effect("items come as they are pulled, and ending early interrupts the producer", () =>
    Effect.gen(function*() {
      const ksi = yield* KsiService
      expect(yield* Stream.runCollect(ksi.stream(Watch, { upTo: 3 }))).toEqual([1, 2, 3])
      expect(yield* Stream.runCollect(Stream.take(ksi.stream(Watch, { upTo: 1_000_000 }), 2))).toEqual([1, 2])
      expect(yield* reasonOf(Stream.runCollect(ksi.stream(Watch, { upTo: 0.5 })))).toBe("PayloadInvalid")
    }).pipe(Effect.provide(stock)))
})

describe("wiring", () => {
  it.effect("a definition leaves with its last layer: the name is free for another one", () =>
    Effect.gen(function*() {
      const router = yield* Router
      const one = Event.make("twice:one", { payload: { a: Schema.Int } })
      yield* Effect.scoped(Effect.andThen(router.define(one), Effect.scoped(router.define(one))))
      expect(router.registry.get("twice:one")).toBeUndefined()
      yield* router.define(Event.make("twice:one", { payload: { a: Schema.String } }))
    }).pipe(Effect.provide(bus)))

  it.effect("two definitions of one name are refused with both places", () =>
    Effect.gen(function*() {
      const router = yield* Router
      yield* router.define(Event.make("twice:one", { payload: { a: Schema.Int } }))
      yield* router.define(Event.make("twice:one", { payload: { a: Schema.Int } }))
      const error = yield* Effect.flip(router.define(Event.make("twice:one", { payload: { a: Schema.String } })))
      expect(error.reason._tag).toBe("PluginInvalid")
      expect(error.message.match(/Router\.test\.ts:\d+/g)).toHaveLength(2)
    }).pipe(Effect.provide(bus)))

  it.effect("the namespaces of KSI are refused to users", () => {
    const Fake = EventGroup.make(Event.make("system:fake", {}))
    const fake = Fake.toLayer({ "system:fake": () => Effect.void })
    return Effect.gen(function*() {
      const refused = yield* Effect.flip(Layer.build(serve(Fake).pipe(Layer.provide(fake), Layer.provide(bus))))
      expect(refused.reason._tag).toBe("PluginInvalid")
      yield* Layer.build(serveBuiltin(Fake).pipe(Layer.provide(fake), Layer.provide(bus)))
    })
  })

  it.effect("a handler leaves with its scope", () =>
    Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      const handler = { name: Reserve.name, run: () => Effect.succeed({ holdId: "x" }), context: Context.empty() }
      yield* router.define(Reserve)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* router.handle(Reserve, handler)
        expect(yield* ksi.call(Reserve, { sku: "tea", quantity: 1 })).toEqual({ holdId: "x" })
      }))
      expect(yield* reasonOf(ksi.call(Reserve, { sku: "tea", quantity: 1 }))).toBe("NoHandler")
    }).pipe(Effect.provide(bus)))
})
