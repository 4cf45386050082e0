import { describe, expect, it } from "@effect/vitest"
import { Clock, Context, Effect, Fiber, Layer, Schema, Stream } from "effect"
import type { KsiService } from "../../src/bus/KsiService.ts"
import { Plugins } from "../../src/bus/Plugin.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as KsiErrors from "../../src/event/KsiError.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as DeadLetter from "../../src/plugins/DeadLetter.ts"
import * as Module from "../../src/plugins/Module.ts"
import * as Monitor from "../../src/plugins/Monitor.ts"
import * as Permission from "../../src/plugins/Permission.ts"
import * as Store from "../../src/plugins/Store.ts"
import * as System from "../../src/plugins/System.ts"
import * as Time from "../../src/plugins/Time.ts"
import * as Trace from "../../src/plugins/Trace.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as KsiTest from "../../src/testing/KsiTest.ts"

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { left: Schema.Int }) {}
class Declined extends Schema.TaggedError<Declined>()("Declined", {}) {}

const Reserve = Event.make("stock:reserve", { payload: { sku: Schema.String, quantity: Schema.Int }, success: Schema.Struct({ left: Schema.Int }), error: OutOfStock })
const Reserved = Event.fact("stock:reserved", { payload: { sku: Schema.String, quantity: Schema.Int }, streamId: ({ sku }) => `stock-${sku}` })
const Released = Event.fact("stock:released", { payload: { sku: Schema.String, quantity: Schema.Int }, streamId: ({ sku }) => `stock-${sku}` })
const Charge = Event.make("pay:charge", { payload: { cents: Schema.Int }, success: Schema.String, error: Declined })
const Buy = Event.make("shop:buy", { payload: { sku: Schema.String }, success: Schema.String, error: Schema.Union([OutOfStock, Declined]) })
const Stock = EventGroup.make(Reserve, Reserved, Released, Charge, Buy)

const Level = Projection.make("held", {
  events: [Reserved, Released], state: Schema.Struct({ held: Schema.Int }), initial: { held: 0 },
  on: {
    "stock:reserved": ({ held }, { quantity }) => ({ held: held + quantity }),
    "stock:released": ({ held }, { quantity }) => ({ held: held - quantity })
  }
})

class Warehouse extends Context.Service<Warehouse, { readonly capacity: number }>()("test/Warehouse") {}

const handlers = Stock.toLayer({
  *"stock:reserve"({ quantity, sku }) {
    const { capacity } = yield* Warehouse
    const ksi = yield* Ksi
    if (quantity > capacity) return yield* new OutOfStock({ left: capacity })
    yield* ksi.emit(Reserved, { sku, quantity })
    return { left: capacity - quantity }
  },
  *"pay:charge"({ cents }) {
    yield* Effect.sleep("1 second")
    return `paid ${cents}`
  },
  *"shop:buy"({ sku }) {
    const ksi = yield* Ksi
    yield* Effect.orDie(ksi.call(Reserve, { sku, quantity: 1 }))
    return yield* ksi.call(Charge, { cents: 100 }).pipe(Effect.catchTag("KsiError", Effect.die))
  },
  // A reservation that is not taken is given back.
  "stock:reserved": ({ quantity, sku }) => Effect.gen(function*() {
    yield* Effect.sleep("20 seconds")
    yield* (yield* Ksi).emit(Released, { sku, quantity })
  })
})
const app = Ksi.serve(Stock).pipe(Layer.provide(handlers), Layer.provide(Layer.succeed(Warehouse, { capacity: 3 })))
// Nothing in it waits for anything outside.
const stock = KsiTest.layer(app, { outsideMillis: 5 })
const play = <E>(scenario: Effect.Effect<void, E, KsiTest.KsiTest>) => Effect.provide(scenario, stock)
const failure = (scenario: Effect.Effect<void, KsiTest.ScenarioFailed, KsiTest.KsiTest>) => Effect.map(Effect.flip(play(scenario)), ({ message }) => message)
const tea = (quantity: number) => ({ sku: "tea", quantity })

describe("a scenario", () => {
  it.effect("goes as it should", () => play(
    KsiTest.scenario
      .given(Reserved.of(tea(1)))
      .when(Reserve, tea(2))
      .thenReplies({ left: 1 })
      .thenReplies(({ left }) => left === 1)
      .thenEmits(Reserved.of(tea(2)))
      .thenState(Level, "stock-tea", { held: 3 })
      .thenState(Level, "stock-tea", ({ held }) => held > 2)
  ))

  it.effect("a declared failure, and nothing came of it", () => play(
    KsiTest.scenario.when(Reserve, tea(4)).thenFails("OutOfStock", ({ left }) => left === 3).thenEmits()
  ))

  it.effect("what is given is history: nobody reacts to it", () => play(
    KsiTest.scenario.given(Reserved.of(tea(1))).when(Reserve, tea(4)).thenFails("OutOfStock").thenAfter("1 hour").thenEmits().thenState(Level, "stock-tea", { held: 1 })
  ))

  it.effect("time passes when it is told to, and then what was due happens", () => play(
    KsiTest.scenario.when(Reserve, tea(2)).thenEmits(Reserved.of(tea(2)))
      .thenAfter("19 seconds").thenEmits()
      .thenAfter("1 second").thenEmits(Released.of(tea(2))).thenState(Level, "stock-tea", { held: 0 })
  ))

  it.effect("a call that waits for the clock answers after it", () => play(
    KsiTest.scenario.when(Charge, { cents: 5 }).thenAfter("1 second").thenReplies("paid 5")
  ))

  const charge = KsiTest.mock(Charge, ({ cents }) => Effect.succeed(`mocked ${cents}`))
  it.effect("a mock stands in for a handler, and knows how it was called", () => play(
    KsiTest.scenario.with(charge).when(Buy, { sku: "tea" }).thenReplies("mocked 100").thenCalled(charge, { cents: 100 })
  ))

  it.effect("a mock that fails", () => play(
    KsiTest.scenario.with(KsiTest.mock(Charge, () => Effect.fail(new Declined()))).when(Buy, { sku: "tea" }).thenFails("Declined").thenEmits(Reserved.of({ sku: "tea", quantity: 1 }))
  ))

  it.effect("who may not is denied, who may is not", () => play(
    KsiTest.scenario.as("bob").when(Reserve, tea(1)).thenDenied().thenEmits()
      .as("ann", { grants: ["stock:*"] }).when(Reserve, tea(1)).thenReplies({ left: 2 })
      .as("carl", { profile: "restricted" }).when(Reserve, tea(1)).thenDenied()
  ))

  it.effect("a fact is said, and reacted to", () => play(
    KsiTest.scenario.when(Reserved.of(tea(1))).thenEmits(Reserved.of(tea(1))).thenAfter("20 seconds").thenEmitsAmongOthers(Released.of(tea(1)))
  ))

  it.effect("a fact is like what is told of it, whatever else it has", () => play(
    KsiTest.scenario.when(Reserve, tea(2))
      .thenEmits(KsiTest.like(Reserved, { sku: "tea" }))
      .thenEmits(KsiTest.like(Reserved, {}))
      .thenEmitsAmongOthers(KsiTest.like(Reserved, { quantity: 2 }))
  ))

  it.effect("each has an app of its own", () => play(Effect.forEach([1, 2], () =>
    KsiTest.scenario.when(Reserve, tea(1)).thenState(Level, "stock-tea", { held: 1 }), { discard: true })))
})

describe("one that does not", () => {
  it.effect("says what came, what was expected and all that happened", () =>
    Effect.gen(function*() {
      const message = yield* failure(KsiTest.scenario.with(KsiTest.mock(Charge, () => Effect.succeed("x"))).when(Buy, { sku: "tea" }).thenEmits(Reserved.of(tea(2))))
      expect(message).toBe([
        "expected exactly these facts, in this order",
        "",
        "  - expected",
        "  + came",
        "    [",
        "      {",
        "        \"event\": \"stock:reserved\",",
        "        \"data\": {",
        "          \"sku\": \"tea\",",
        "  -       \"quantity\": 2",
        "  +       \"quantity\": 1",
        "        }",
        "      }",
        "    ]",
        "",
        "what happened (? a request, ! a fact):",
        "  ? shop:buy {\"sku\":\"tea\"}",
        "    ? stock:reserve {\"sku\":\"tea\",\"quantity\":1}",
        "      ! stock:reserved {\"sku\":\"tea\",\"quantity\":1}",
        "    ? pay:charge {\"cents\":100}",
        ""
      ].join("\n"))
    }))

  const cases: ReadonlyArray<readonly [name: string, scenario: Effect.Effect<void, KsiTest.ScenarioFailed, KsiTest.KsiTest>, says: ReadonlyArray<string>]> = [
    ["another reply", KsiTest.scenario.when(Reserve, tea(1)).thenReplies({ left: 1 }), ["stock:reserve replied otherwise", "-   \"left\": 1", "+   \"left\": 2"]],
    ["a reply that a predicate refuses", KsiTest.scenario.when(Reserve, tea(1)).thenReplies(() => false), ["is not as it should be: {\"left\":2}"]],
    ["a failure where a reply should be", KsiTest.scenario.when(Reserve, tea(4)).thenReplies({ left: 1 }), ["expected stock:reserve to reply", "OutOfStock"]],
    ["a reply where a failure should be", KsiTest.scenario.when(Reserve, tea(1)).thenFails("OutOfStock"), ["expected stock:reserve to fail with OutOfStock", "\"left\": 2"]],
    ["no refusal", KsiTest.scenario.when(Reserve, tea(1)).thenDenied(), ["refused with PermissionDenied"]],
    ["a fact too many", KsiTest.scenario.when(Reserve, tea(1)).thenEmits(), ["expected no fact", "stock:reserved"]],
    ["a fact that is not like it", KsiTest.scenario.when(Reserve, tea(2)).thenEmits(KsiTest.like(Reserved, { quantity: 3 })), ["exactly these facts", "\"like\""]],
    ["another fact than the one it is like", KsiTest.scenario.when(Reserve, tea(2)).thenEmits(KsiTest.like(Released, { quantity: 2 })), ["exactly these facts"]],
    ["two that are like the only one", KsiTest.scenario.when(Reserve, tea(2)).thenEmitsAmongOthers(Reserved.of(tea(2)), KsiTest.like(Reserved, {})), ["these facts among others"]],
    ["a fact too few", KsiTest.scenario.when(Reserve, tea(4)).thenEmitsAmongOthers(Reserved.of(tea(4))), ["these facts among others"]],
    ["another state", KsiTest.scenario.when(Reserve, tea(1)).thenState(Level, "stock-tea", { held: 2 }), ["the state held of \"stock-tea\" is another one"]],
    ["no such stream", KsiTest.scenario.when(Reserve, tea(1)).thenState(Level, "stock-coffee", { held: 2 }), ["the state held of \"stock-coffee\" is another one", "+   \"held\": 0"]],
    ["no answer yet", KsiTest.scenario.when(Charge, { cents: 1 }).thenReplies("paid 1"), ["it has not answered", "thenAfter(\"1s\")"]],
    ["a call that was given and fails", KsiTest.scenario.givenCall(Reserve, tea(9)).when(Reserve, tea(1)), ["the given call of stock:reserve failed"]],
    ["a mock that was not added", KsiTest.scenario.when(Reserve, tea(1)).thenCalled(KsiTest.mock(Charge, () => Effect.succeed("")), { cents: 1 }), [".with(mock)"]]
  ]
  for (const [name, scenario, says] of cases) {
    it.effect(name, () => Effect.map(failure(scenario), (message) => {
      for (const text of says) expect(message).toContain(text)
      expect(message).toContain("what happened")
    }))
  }
})

describe("what is asked at the same time", () => {
  const Add = Event.make("count:add", { payload: { n: Schema.Int }, success: Schema.Int })
  const Take = Event.make("count:take", { success: Schema.Struct({ id: Schema.String }) })
  const Give = Event.make("count:give", { payload: { id: Schema.String }, success: Schema.Boolean })
  const Added = Event.fact("count:added", { payload: { n: Schema.Int }, streamId: () => "count" })
  const Count = EventGroup.make(Add, Take, Give, Added)
  const Sum = Projection.make("sum", { events: [Added], state: Schema.Int, initial: 0, on: { "count:added": (sum, { n }) => sum + n } })
  const handlers = Count.toLayer(Effect.sync(() => {
    let [sum, taken] = [0, 0]
    return {
      // Whoever comes between reads the same.
      "count:add": ({ n }) => Effect.gen(function*() {
        const read = sum
        yield* Effect.yieldNow
        sum = read + n
        yield* (yield* Ksi).emit(Added, { n })
        return sum
      }),
      "count:take": () => Effect.sync(() => ({ id: `id-${++taken}` })),
      "count:give": ({ id }) => Effect.sync(() => id === `id-${taken}`),
      "count:added": ({ n }) => n < 0 ? Effect.die(new Error("less is not more")) : Effect.void
    }
  }))
  const app = KsiTest.layer(Ksi.serve(Count).pipe(Layer.provide(handlers)), { outsideMillis: 5 })
  const on = <E>(scenario: Effect.Effect<void, E, KsiTest.KsiTest>) => Effect.provide(scenario, app)
  const says = (scenario: Effect.Effect<void, KsiTest.ScenarioFailed, KsiTest.KsiTest>) => Effect.map(Effect.flip(on(scenario)), ({ message }) => message)
  const both = KsiTest.scenario.whenTogether(KsiTest.ask(Add, { n: 1 }), KsiTest.ask(Add, { n: 2 }))
  const orders = both.thenOneOf([{ reply: 1 }, { reply: 3 }], [{ reply: 3 }, { reply: 2 }])

  it.effect("goes in the order of the seed: some lose an update, each of them always", () =>
    Effect.gen(function*() {
      const seeds = Array.from({ length: 30 }, (_, seed) => seed)
      const lost = (seed: number) => Effect.map(Effect.exit(on(orders.withSeed(seed))), ({ _tag }) => _tag === "Failure")
      const first = yield* Effect.forEach(seeds, lost)
      expect(first).toContain(true)
      expect(yield* Effect.forEach(seeds, lost)).toEqual(first)
    }))

  it.effect("says what came of each where none of the lists is it", () => Effect.map(
    says(both.thenOneOf([{ reply: 9 }, { fails: "Nope" }], [{ refused: "PermissionDenied" }, { replyLike: {} }])),
    (message) => {
      for (const part of ["none of these", "\"failed\": \"Nope\"", "\"refused\": \"PermissionDenied\"", "\"reply\": 9"]) expect(message).toContain(part)
    }
  ))

  it.effect("those of one list go in turn, those after come later, and states count", () => on(
    KsiTest.scenario
      .whenTogether([KsiTest.ask(Add, { n: 1 }), KsiTest.ask(Add, { n: 2 })])
      .when(Add, { n: 4 })
      .thenOneOf([{ reply: 1 }, { reply: 3 }, { reply: 7 }, KsiTest.stateOf(Sum, "count", 7)])
      .when(Add, { n: 1 })
      .thenReplies(8)
  ))

  it.effect("a state that is another is none of them, and a list has an answer for each", () =>
    Effect.gen(function*() {
      expect(yield* says(both.thenOneOf([{ done: true }, { done: true }, KsiTest.stateOf(Sum, "count", 4)]))).toContain("\"sum of count\": 4")
      expect(yield* says(both.thenOneOf([{ done: true }]))).toContain("2 were asked since whenTogether, and thenOneOf has a list of 1 answers")
    }))

  it.effect("a payload may be made of what was replied before", () =>
    Effect.gen(function*() {
      const twice = KsiTest.scenario.givenCall(Take, {}).givenCall(Take, {})
      yield* on(twice.when(Give, ({ reply }) => reply(Take, 2)).thenReplies(true).when(Give, ({ reply }) => ({ id: reply(Take).id })).thenReplies(false))
      expect(yield* says(twice.when(Give, ({ reply }) => reply(Take, 3)))).toContain("the payload of count:give cannot be made: count:take has no reply 3 to build on")
    }))

  it.effect("a reaction that fails fails the scenario, unless it is expected", () =>
    Effect.gen(function*() {
      const less = KsiTest.scenario.when(Add, { n: -1 }).thenReplies(-1)
      expect(yield* says(less)).toContain("the reaction count:added to count:added failed: less is not more")
      // Facts that are missing may be missing because of it.
      expect(yield* says(less.thenEmits())).toContain("expected no fact; the reaction count:added to count:added failed: less is not more\n")
      expect((yield* says(less.thenReactionFails(Added).thenEmits())).split("\n")[0]).toBe("expected no fact")
      yield* on(less.thenReactionFails(Added, (error) => error.includes("not more")))
      expect(yield* says(less.thenReactionFails(Added, (error) => error === "else"))).toContain("a reaction to count:added failed otherwise: less is not more")
      expect(yield* says(KsiTest.scenario.when(Add, { n: 1 }).thenReactionFails(Added))).toContain("expected a reaction to count:added to fail, and none has")
    }))

  it.effect("for ever does not come", () =>
    Effect.map(says(KsiTest.scenario.when(Add, { n: 1 }).thenAfter(Infinity)), (message) => expect(message).toContain("thenAfter(Infinity) would never come")))
})

describe("laws", () => {
  it.effect("one that holds for every payload", () => play(
    KsiTest.property(Reserve, (outcome, { quantity, sku }) => !sku.isWellFormed()
      // Half a character is no name of a stream.
      ? quantity > 3 || outcome.kind === "refusal"
      : quantity > 3 ? outcome.kind === "failure" && outcome.error._tag === "OutOfStock"
      // What is left of less than nothing may be more than an integer can be: no reply is better than a wrong one.
      : outcome.kind === "reply" ? outcome.reply.left === 3 - quantity : !Number.isSafeInteger(3 - quantity))
  ))

  it.effect("one that does not: the least payload is told, and comes again by its replay", () =>
    Effect.gen(function*() {
      const never = (replay?: string) => failure(KsiTest.property(Reserve, (_, { quantity }) => quantity < 10, { runs: 500, replay }))
      const message = yield* never()
      expect(message).toContain("the law does not hold for stock:reserve")
      expect(message).toMatch(/"quantity":\s*10\b/)
      const [, replay] = /Replay: (\S+)/.exec(message) ?? []
      expect(yield* never(replay)).toMatch(/"quantity":\s*10\b/)
      expect(yield* never()).toBe(message)
    }))

  it.effect("one on an app with stand-ins", () =>
    Effect.gen(function*() {
      const law = (mocks: ReadonlyArray<KsiTest.Mock<typeof Charge>>) =>
        KsiTest.property(Charge, (outcome) => outcome.kind === "reply" && outcome.reply !== "", { runs: 20, mocks })
      yield* play(law([KsiTest.mock(Charge, () => Effect.succeed("mocked"))]))
      expect(yield* failure(law([KsiTest.mock(Charge, ({ cents }) => Effect.succeed(cents > 1 ? "" : "mocked"))]))).toMatch(/"cents":\s*2\b/)
    }))

  const Said = Event.fact("wild:said", { payload: { n: Schema.Int }, streamId: () => "wild" })
  const say = (n: number) => Effect.flatMap(Ksi, (ksi) => ksi.emit(Said, { n }))
  const wild = (handler: (payload: { readonly text: string }) => Effect.Effect<number, unknown, KsiService>) => {
    const Wild = Event.make("wild:ask", { payload: { text: Schema.String, n: Schema.optionalKey(Schema.Int) }, success: Schema.Int, idempotent: true })
    const served = EventGroup.make(Wild, Said)
    const layer = served.toLayer({
      "wild:ask": handler as never,
      "wild:said": ({ n }) => n < 0 ? Effect.die(new Error("reacting is not for me")) : Effect.void
    })
    return [EventGroup.make(Wild), KsiTest.layer(Ksi.serve(served).pipe(Layer.provide(layer)), { outsideMillis: 5 })] as const
  }

  it.effect("those of every event hold for this app", () => play(KsiTest.fuzz(Stock)))

  const cases: ReadonlyArray<readonly [name: string, handler: (payload: { readonly text: string }) => Effect.Effect<number, unknown, KsiService>, says: string]> = [
    ["one that breaks after a while", () => Effect.andThen(Effect.sleep("1 minute"), Effect.die(new Error("late"))), "it broke: late"],
    ["one that never answers", () => Effect.never, "it never answers"],
    ["one that waits for ever, an hour at a time", () => Effect.forever(Effect.sleep("1 hour")), "it never answers"],
    ["a reaction that breaks", () => Effect.as(say(-1), 1), "to wild:said failed: reacting is not for me"],
    ["what says a fact each time that it is asked", () => Effect.as(say(1), 1), "says facts the second time as well"],
    ["a handler that breaks", ({ text }) => text.length > 2 ? Effect.die(new Error("too long for me")) : Effect.succeed(1), "it broke: too long for me"],
    ["a reply that is none", ({ text }) => Effect.succeed(text.length + 0.5), "its reply is not what it promises"],
    ["an error that nobody declared", () => Effect.fail(new Error("oh")), "it broke"]
  ]
  for (const [name, handler, says] of cases) {
    it.effect(`${name} is found`, () => {
      const [group, app] = wild(handler)
      return Effect.map(Effect.flip(Effect.provide(KsiTest.fuzz(group), app)), ({ message }) => expect(message).toContain(says))
    })
  }

  it.effect("those of every event hold with a stand-in for what breaks", () => {
    const [group, app] = wild(() => Effect.die(new Error("not in a test")))
    return Effect.provide(KsiTest.fuzz(group, { mocks: [KsiTest.mock(group.events["wild:ask"], () => Effect.succeed(1))] }), app)
  })

  it.effect("what may be asked twice and then replies otherwise is found", () => {
    let asked = 0
    const [group, app] = wild(() => asked++ % 2 === 0 ? Effect.as(say(1), 1) : Effect.succeed(2))
    return Effect.map(Effect.flip(Effect.provide(KsiTest.fuzz(group), app)), ({ message }) => expect(message).toContain("replies otherwise the second time"))
  })

  it.effect("what may be asked twice and fails then is found", () => {
    let asked = 0
    const [group, app] = wild(() => ++asked % 2 === 1 ? Effect.succeed(1) : KsiErrors.fail(new KsiErrors.LimitExceeded({ limit: "once", max: 1, retryable: false })))
    return Effect.map(Effect.flip(Effect.provide(KsiTest.fuzz(group), app)), ({ message }) => expect(message).toContain("fails the second time"))
  })
})

describe("what is outside", () => {
  const Do = Event.make("out:do", { payload: { n: Schema.Int }, success: Schema.Int })
  const Late = Event.fact("out:late", { payload: { n: Schema.Int }, streamId: () => "out" })
  const Said = Event.fact("out:said", { payload: { n: Schema.Int }, streamId: () => "out" })
  const group = EventGroup.make(Do, Late, Said)
  const late = Effect.flatMap(Ksi, (ksi) => ksi.emit(Late, { n: 1 }))
  const said = Effect.flatMap(Ksi, (ksi) => ksi.emit(Said, { n: 1 }))
  const real = (millis: number) => Effect.promise(() => new Promise<void>((resolve) => setTimeout(resolve, millis)))
  type Body = Effect.Effect<unknown, unknown, KsiService>
  const layer = (ask: Body, react: Body = Effect.void, options?: KsiTest.Options, above: Layer.Layer<never> = Layer.empty) =>
    KsiTest.layer(Layer.merge(above, Ksi.serve(group).pipe(Layer.provide(group.toLayer({
      "out:do": () => ask as never, "out:said": () => Effect.asVoid(react), "out:late": () => Effect.void
    })))), options)
  const asked = KsiTest.scenario.when(Do, { n: 1 })
  const heart = Layer.effectDiscard(Effect.forkScoped(Effect.forever(Effect.sleep("1 minute"))))
  const fails = (scenario: Effect.Effect<void, KsiTest.ScenarioFailed, KsiTest.KsiTest>, on: Layer.Layer<KsiTest.KsiTest>) =>
    Effect.map(Effect.flip(Effect.provide(scenario, on)), ({ message }) => message)

  it.effect("is waited for while somebody sleeps", () =>
    Effect.provide(asked.thenReplies(1).thenEmits(Said.of({ n: 1 }), Late.of({ n: 1 })), layer(Effect.as(said, 1), Effect.andThen(real(100), late), {}, heart)))

  it.effect("happens between one sleep and the next, before the clock goes on", () =>
    Effect.provide(
      asked.thenAfter("10 seconds").thenReplies(10_000).thenEmits(Late.of({ n: 1 })),
      layer(Effect.gen(function*() {
        const from = yield* Clock.currentTimeMillis
        yield* Effect.sleep("5 seconds")
        yield* real(3)
        yield* Effect.sleep("5 seconds")
        yield* late
        return (yield* Clock.currentTimeMillis) - from
      }), Effect.void, { outsideMillis: 50 })
    ))

  it.effect("that does not come in time leaves nothing to look at", () =>
    Effect.map(
      fails(asked.thenReplies(1).thenEmits(Said.of({ n: 1 })), layer(Effect.as(said, 1), Effect.andThen(real(300), late), { outsideMillis: 10 })),
      (message) => expect(message).toContain("something outside is still under way: a reaction has not ended")
    ))

  it.effect("what goes on for ever is stopped", () =>
    Effect.map(
      fails(asked.thenReplies(1), layer(Effect.as(Effect.forkDetach(Effect.forever(Effect.sleep(0))), 1))),
      (message) => expect(message).toContain("goes on for ever")
    ))

  const unlooked: ReadonlyArray<readonly [name: string, ask: Body, scenario: Effect.Effect<void, KsiTest.ScenarioFailed, KsiTest.KsiTest>, says: string]> = [
    ["a last one that broke", Effect.die(new Error("no")), asked.thenEmits(), "out:do did not succeed, and nothing expected that"],
    ["an earlier one that broke", Effect.die(new Error("no")), asked.when(Said.of({ n: 1 })), "out:do did not succeed"],
    ["a last one that has not answered", Effect.sleep("1 second"), asked.thenEmits(), "has not answered: it waits for the clock: thenAfter(\"1s\")"],
    ["the same fact twice, of one", Effect.as(said, 1), asked.thenEmitsAmongOthers(Said.of({ n: 1 }), Said.of({ n: 1 })), "these facts among others"]
  ]
  for (const [name, ask, scenario, says] of unlooked) {
    it.effect(`fails: ${name}`, () => Effect.map(fails(scenario, layer(ask, Effect.void, { outsideMillis: 5 })), (message) => expect(message).toContain(says)))
  }

  it.effect("what the schema does not take is refused at the door", () =>
    Effect.provide(KsiTest.scenario.when(Do, { n: 1.5 }).thenRefused("PayloadInvalid", ({ problems }) => problems[0]?.path === "n"), layer(Effect.succeed(1))))

  it.effect("the later mock of an event stands in, and one added twice is called once", () => {
    const [one, two] = [1, 2].map((n) => KsiTest.mock(Do, () => Effect.succeed(n)))
    if (one === undefined || two === undefined) return Effect.die("there are two")
    return Effect.provide(Effect.andThen(
      KsiTest.scenario.with(one).with(two).when(Do, { n: 1 }).thenReplies(2),
      KsiTest.scenario.with(one).with(one).when(Do, { n: 1 }).thenReplies(1).thenCalled(one, { n: 1 })
    ), layer(Effect.succeed(0)))
  })

  it.effect("a mock is called with what it was given, whatever it does with it", () => {
    const changing = KsiTest.mock(Do, (payload) => Effect.sync(() => Reflect.set(payload, "n", 9) ? 1 : 0))
    return Effect.provide(KsiTest.scenario.with(changing).when(Do, { n: 1 }).thenReplies(1).thenCalled(changing, { n: 1 }), layer(Effect.succeed(0)))
  })

  it.effect("a law whose history cannot be stored does not hold", () => {
    const Nowhere = Event.fact("out:nowhere", { payload: { n: Schema.Int }, streamId: () => "" })
    return Effect.map(
      fails(KsiTest.property(Do, () => true, { runs: 1, given: [Nowhere.of({ n: 1 })] }), layer(Effect.succeed(1))),
      (message) => expect(message).toContain("what was given failed")
    )
  })

  it.effect("an app that does not finish starting is closed, and an end that does not end is told", () =>
    Effect.gen(function*() {
      let closed = 0
      const resource = Layer.effectDiscard(Effect.acquireRelease(Effect.void, () => Effect.sync(() => closed++)))
      const hanging = layer(Effect.succeed(1), Effect.void, { outsideMillis: 5 }, Layer.provideMerge(Layer.effectDiscard(Effect.never), resource))
      const exit = yield* Effect.exit(Effect.provide(KsiTest.scenario, hanging))
      expect([exit._tag, closed]).toEqual(["Failure", 1])
      const stuck = Layer.effectDiscard(Effect.acquireRelease(Effect.void, () => Effect.never))
      expect(yield* fails(asked.thenReplies(1), layer(Effect.succeed(1), Effect.void, { outsideMillis: 5 }, stuck))).toContain("the app does not end")
    }))
})

describe("KSI's own events keep the laws of every event", () => {
  const own = { System, Store, Time, Monitor, DeadLetter, Permission, Module }
  const layers = Layer.mergeAll(System.layer, Store.layer, Time.layer, Trace.layer, Monitor.layer, DeadLetter.layer, Permission.layer, Module.layer)
  const daemon = KsiTest.layer(layers.pipe(Layer.provide(Layer.merge(System.Shutdown.layer, Plugins.layer))))
  for (const [name, { Group }] of Object.entries(own)) {
    it.effect(name, () => Effect.provide(KsiTest.fuzz(Group, { runs: 10 }), daemon))
  }
})

describe("an app that is played on again", () => {
  const Note = Event.make("note:add", { payload: { text: Schema.String }, success: Schema.Int, idempotent: true })
  const Noted = Event.fact("note:added", { payload: { text: Schema.String }, streamId: () => "notes" })
  const Notes = EventGroup.make(Note, Noted)
  const Count = Projection.make("notes", { events: [Noted], state: Schema.Int, initial: 0, on: { [Noted.name]: (count) => count + 1 } })
  const makeApp = () => {
    const lives = { begun: 0, ended: 0 }
    const life = Layer.effectDiscard(Effect.acquireRelease(Effect.sync(() => lives.begun++), () => Effect.sync(() => lives.ended++)))
    const app = Layer.merge(life, Ksi.serve(Notes).pipe(Layer.provide(Notes.toLayer({
      *"note:add"({ text }) {
        if (text === "late") yield* Effect.forkDetach(Effect.sleep("1 minute"))
        if (text === "outside") yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 150)))
        const { version } = yield* (yield* Ksi).emit(Noted, { text })
        return version
      }
    }))))
    return { lives, app }
  }
  const add = (text: string) => KsiTest.scenario.when(Note, { text }).thenReplies(1).thenEmits(Noted.of({ text })).thenState(Count, "notes", 1)

  it.effect("is as new for each scenario that ends clean, whatever came of it, and ends with the layer", () => Effect.gen(function*() {
    const { app, lives } = makeApp()
    yield* Effect.gen(function*() {
      const times: Array<number> = []
      const now = KsiTest.scenario.when(Note, { text: "a" }).thenReplies((version) => times.push(version) > 0)
      for (const text of ["a", "b", "c"]) yield* add(text)
      yield* now
      const failed = yield* Effect.flip(add("d").thenEmits(Noted.of({ text: "not this" })))
      expect(failed.message).toContain("note:added {\"text\":\"d\"}")
      expect(failed.message).not.toContain("\"c\"")
      for (const text of ["e", "f"]) yield* add(text)
      yield* Effect.all(["g", "h", "i"].map(add), { concurrency: "unbounded" })
      yield* KsiTest.property(Note, ({ kind }) => kind === "reply", { runs: 20 })
      expect([times, lives.ended]).toEqual([[1], 0])
      expect(lives.begun).toBeLessThanOrEqual(3)
    }).pipe(Effect.provide(KsiTest.layer(app, { reuse: true })))
    expect(lives.ended).toBe(lives.begun)
  }))

  it.effect("is not played on again where something of it goes on, somebody was granted something, or a mock stands in", () => Effect.gen(function*() {
    const { app, lives } = makeApp()
    const mock = KsiTest.mock(Note, () => Effect.succeed(7))
    yield* Effect.gen(function*() {
      yield* KsiTest.scenario.when(Note, { text: "late" }).thenReplies(1)
      expect(lives).toEqual({ begun: 1, ended: 1 })
      yield* KsiTest.scenario.as("ann", { grants: ["note:*"] }).when(Note, { text: "a" }).thenReplies(1)
      yield* KsiTest.scenario.as("ann").when(Note, { text: "a" }).thenDenied()
      expect(lives.begun).toBe(3)
      yield* KsiTest.scenario.with(mock).when(Note, { text: "a" }).thenReplies(7)
      yield* add("b")
      expect(lives.begun).toBe(4)
    }).pipe(Effect.provide(KsiTest.layer(app, { reuse: true })))
    expect(lives.ended).toBe(lives.begun)
  }))

  it.effect("nor where a request has not ended, whoever gave up on it; what follows makes the next no other", () => Effect.gen(function*() {
    const { app, lives } = makeApp()
    yield* Effect.gen(function*() {
      yield* Effect.flip(KsiTest.scenario.when(Note, { text: "outside" }).thenReplies(1))
      yield* add("a")
      expect(lives.begun).toBe(2)
      const given = yield* Effect.forkChild(KsiTest.scenario.when(Note, { text: "outside" }).thenReplies(1))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(given)
      for (const text of ["b", "c"]) yield* add(text)
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 200)))
      for (const text of ["d", "e"]) yield* add(text)
    }).pipe(Effect.provide(KsiTest.layer(app, { reuse: true, outsideMillis: 20 })))
    expect(lives.ended).toBe(lives.begun)
  }))

  it.effect("nor one that follows, or that keeps a fiber which sleeps", () => Effect.gen(function*() {
    const { app, lives } = makeApp()
    const following = Layer.effectDiscard(Effect.flatMap(Ksi, (ksi) => Effect.forkScoped(Stream.runDrain(ksi.subscribe("*")))))
    const ticking = Layer.effectDiscard(Effect.forkScoped(Effect.forever(Effect.sleep("1 minute"))))
    for (const more of [following, ticking]) {
      const before = lives.begun
      yield* Effect.provide(Effect.forEach(["a", "b"], add), KsiTest.layer(Layer.merge(app, more), { reuse: true }))
      expect([lives.begun - before, lives.ended]).toEqual([2, lives.begun])
    }
  }))

  it.effect("and without the option each scenario has its own", () => Effect.gen(function*() {
    const { app, lives } = makeApp()
    yield* Effect.provide(Effect.andThen(add("a"), add("b")), KsiTest.layer(app))
    expect(lives).toEqual({ begun: 2, ended: 2 })
  }))
})
