import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Random, Ref, Result, Schema } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import { Ksi } from "../../src/Ksi.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Simulation from "../../src/testing/Simulation.ts"

// ---------------------------------------------------------------------------------------------------------------- apps

class SoldOut extends Schema.TaggedError<SoldOut>()("SoldOut", { left: Schema.Int }) {}
const Order = Event.make("shop:order", { payload: { id: Schema.String, quantity: Schema.Int }, success: Schema.Int, error: SoldOut })
const Ordered = Event.fact("shop:ordered", { payload: { id: Schema.String, quantity: Schema.Int }, streamId: ({ id }) => `order-${id}` })
const Shop = EventGroup.make(Order, Ordered)
const shop = Ksi.serve(Shop).pipe(Layer.provide(Shop.toLayer({
  *"shop:order"({ id, quantity }) {
    if (quantity > 3) return yield* new SoldOut({ left: 3 })
    if (quantity < 0) throw new Error("nobody can order less than nothing")
    const { version } = yield* (yield* Ksi).emit(Ordered, { id, quantity })
    return version
  }
})))

const head = Effect.map(EventStore, (store) => store.head())
const ids = (count: number) => Array.from({ length: count }, (_, index) => `${index}`)
const refusedWith = (result: Result.Result<unknown, unknown>): string =>
  Result.isFailure(result) && KsiError.is(result.failure) ? result.failure.reason._tag : "none"
const failureOf = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<E> => Effect.flip(effect) as Effect.Effect<E, never> // it must fail

const storm = { network: { delayMillis: [1, 100], loss: 0.1, duplication: 0.1 }, disk: { crash: 0.02, full: 0.02 } } as const

// --------------------------------------------------------------------------------------------------------------- tests

describe("calls between simulated daemons", () => {
  it.effect("go over the network and come back, typed both ways; time is the world's", () => Effect.gen(function*() {
    const { log, millis, value } = yield* Simulation.run({
      seed: 1, nodes: { shop }, network: { delayMillis: [100, 100] },
      program: ({ nodes }) => Effect.gen(function*() {
        const version = yield* nodes.shop.call(Order, { id: "a", quantity: 1 })
        const { left } = yield* failureOf(nodes.shop.call(Order, { id: "a", quantity: 4 })) as unknown as Effect.Effect<SoldOut>
        const { position, streamId } = yield* nodes.shop.emit(Ordered, { id: "b", quantity: 1 })
        return [version, left, position, streamId]
      })
    })
    expect(value).toEqual([1, 3, 2n, "order-b"])
    expect(millis).toBe(600)
    expect(log[1]).toBe("0.000 s  client -> shop shop:order {\"id\":\"a\",\"quantity\":1}")
  }))

  it.effect("what KSI refuses is refused, what breaks breaks, and who does not exist is a defect", () => Effect.gen(function*() {
    const { value } = yield* Simulation.run({
      seed: 1, nodes: { shop },
      program: ({ nodes }) => Effect.gen(function*() {
        const unknown = yield* Effect.result(nodes.shop.dispatch("shop:rob", {}))
        const invalid = yield* Effect.result(nodes.shop.dispatch("shop:order", { id: 1 }))
        const local = yield* Effect.result(nodes.shop.call(Order, { id: "a", quantity: 1.5 }))
        const broken = yield* Effect.exit(nodes.shop.call(Order, { id: "a", quantity: -1 }))
        return [refusedWith(unknown), refusedWith(invalid), refusedWith(local), Exit.hasDies(broken)]
      })
    })
    expect(value).toEqual(["UnknownEvent", "PayloadInvalid", "PayloadInvalid", true])
  }))

  it.effect("an answer of nothing comes back as that", () => Effect.gen(function*() {
    const Ping = Event.make("ping:now", { payload: {}, success: Schema.Void })
    const Pings = EventGroup.make(Ping)
    const { value } = yield* Simulation.run({
      seed: 1, nodes: { pings: Ksi.serve(Pings).pipe(Layer.provide(Pings.toLayer({ "ping:now": () => Effect.void }))) },
      program: ({ nodes }) => Effect.exit(nodes.pings.call(Ping, {}))
    })
    expect(value).toEqual(Exit.void)
  }))

  it.effect("an app asks another one, and not the one that does not exist", () => Effect.gen(function*() {
    const Buy = Event.make("front:buy", { payload: { at: Schema.String }, success: Schema.Int, error: SoldOut })
    const Front = EventGroup.make(Buy)
    const front = Ksi.serve(Front).pipe(Layer.provide(Front.toLayer(Effect.gen(function*() {
      const { self, to } = yield* Simulation.Network
      return {
        *"front:buy"({ at }) {
          return yield* Effect.catchTag(to(at).call(Order, { id: self, quantity: 9 }), "KsiError", Effect.die)
        }
      }
    }))))
    const { value } = yield* Simulation.run({
      seed: 1, nodes: { shop, front },
      program: ({ nodes }) => Effect.gen(function*() {
        const soldOut = yield* failureOf(nodes.front.call(Buy, { at: "shop" }))
        const nobody = yield* Effect.exit(nodes.front.call(Buy, { at: "chop" }))
        return [soldOut, Exit.hasDies(nobody)]
      })
    })
    expect(value).toEqual([new SoldOut({ left: 3 }), true])
  }))
})

describe("a network", () => {
  it.effect("loses, doubles and overtakes as it is told, and not where it is not", () => Effect.gen(function*() {
    const orders = new Set<string>()
    let [lost, twice] = [0, 0]
    for (let seed = 0; seed < 100; seed++) {
      const program = ({ nodes }: Simulation.Simulation<"shop">) => Effect.gen(function*() {
        const told = yield* Effect.forEach(ids(3), (id) => Effect.result(nodes.shop.call(Order, { id, quantity: 1 }, { timeout: 100 })), { concurrency: 3 })
        const facts = yield* nodes.shop.use(Effect.flatMap(EventStore, ({ read }) => read({ from: 1, limit: 100 })))
        return { told, names: facts.map(({ streamId }) => streamId) }
      })
      const fine = yield* Simulation.run({ seed, nodes: { shop }, program })
      expect(fine.value.told.every(Result.isSuccess)).toBe(true)
      expect(fine.value.names.length).toBe(3)
      orders.add(fine.value.names.join())
      const foul = yield* Simulation.run({ seed, nodes: { shop }, network: { loss: 0.1, duplication: 0.1 }, program })
      lost += foul.value.told.filter(Result.isFailure).length
      twice += foul.value.names.length - new Set(foul.value.names).size
    }
    expect(orders.size).toBe(6)
    // Of 300 calls: a fifth loses its question or its answer, a tenth is asked twice.
    expect(lost).toBeGreaterThan(20)
    expect(lost).toBeLessThan(100)
    expect(twice).toBeGreaterThan(5)
  }))

  it.effect("a partition keeps apart who is in its groups, until it is healed", () => Effect.gen(function*() {
    const { millis, value } = yield* Simulation.run({
      seed: 3, nodes: { shop, other: shop },
      program: ({ heal, nodes, partition }) => Effect.gen(function*() {
        const order = (node: Simulation.Node) => Effect.result(node.call(Order, { id: "a", quantity: 1 }))
        yield* partition(["client", "other"], ["shop"])
        const [cut, same] = [yield* order(nodes.shop), yield* order(nodes.other)]
        yield* heal
        return [refusedWith(cut), Result.isSuccess(same), Result.isSuccess(yield* order(nodes.shop)), yield* nodes.shop.use(head)]
      })
    })
    expect(value).toEqual(["ConnectionLost", true, true, 1])
    expect(millis).toBeGreaterThan(1000)
  }))
})

describe("a process", () => {
  it.effect("killed, takes no further step; stopped, runs its finalizers; with a disk, it remembers", () => Effect.gen(function*() {
    const ended: Array<string> = []
    const dying = Layer.merge(shop, Layer.effectDiscard(Effect.addFinalizer(() => Effect.sync(() => ended.push("finalizer")))))
    for (const disk of [undefined, {}]) {
      ended.length = 0
      const { value } = yield* Simulation.run({
        seed: 1, nodes: { shop: dying }, disk: disk as Simulation.DiskOptions | undefined,
        program: ({ nodes: { shop } }) => Effect.gen(function*() {
          yield* shop.call(Order, { id: "a", quantity: 1 })
          yield* shop.kill
          const dead = [shop.isUp(), refusedWith(yield* Effect.result(shop.call(Order, { id: "a", quantity: 1 }))), [...ended]]
          yield* shop.start
          const kept = yield* shop.use(head)
          yield* shop.stop
          const stopped = [shop.isUp(), [...ended], refusedWith(yield* Effect.result(shop.use(head)))]
          yield* shop.start
          return { dead, kept, stopped, again: yield* shop.call(Order, { id: "a", quantity: 1 }) }
        })
      })
      expect(value.dead).toEqual([false, "ConnectionLost", []])
      expect(value.stopped).toEqual([false, ["finalizer"], "ConnectionLost"])
      expect([value.kept, value.again]).toEqual(disk === undefined ? [0, 1] : [1, 2])
    }
  }))

  it.effect("who waits for it is told that it has ended, and nothing of it goes on", () => Effect.gen(function*() {
    let steps = 0
    const Slow = Event.make("slow:go", { payload: {}, success: Schema.Int })
    const Slows = EventGroup.make(Slow)
    const slow = Ksi.serve(Slows).pipe(Layer.provide(Slows.toLayer({
      *"slow:go"() {
        for (;;) {
          yield* Effect.sleep(10)
          steps++
        }
      }
    })))
    const { value } = yield* Simulation.run({
      seed: 1, nodes: { slow },
      program: ({ nodes }) => Effect.gen(function*() {
        const [answer, used] = yield* Effect.all([
          Effect.result(nodes.slow.call(Slow, {}, { timeout: "1 minute" })),
          Effect.result(nodes.slow.use(Effect.never)),
          Effect.andThen(Effect.sleep(105), nodes.slow.kill)
        ], { concurrency: "unbounded" })
        const before = steps
        yield* Effect.sleep("1 minute")
        return [refusedWith(answer), refusedWith(used), before > 5, steps - before]
      })
    })
    expect(value).toEqual(["ConnectionLost", "ConnectionLost", true, 0])
  }))
})

describe("a process that ends", () => {
  const Wait = Event.make("desk:wait", { payload: {}, success: Schema.Int })
  const Desk = EventGroup.make(Wait)

  it.effect("by being stopped takes nothing on, and interrupts what it answers with before its finalizers run", () => Effect.gen(function*() {
    const ended: Array<string> = []
    const closing = Layer.effectDiscard(Effect.addFinalizer(() => Effect.andThen(Effect.sync(() => ended.push("finalizer")), Effect.sleep(100))))
    const desk = Layer.merge(closing, Ksi.serve(Desk).pipe(Layer.provide(Desk.toLayer({
      "desk:wait": () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => ended.push("handler")))
    }))))
    const { value } = yield* Simulation.run({
      seed: 1, nodes: { desk },
      program: ({ nodes: { desk } }) => Effect.gen(function*() {
        const ask = Effect.result(desk.call(Wait, {}, { timeout: "1 minute" }))
        const stopping = Effect.gen(function*() {
          yield* Effect.sleep(20)
          const late = Effect.andThen(Effect.sleep(1), Effect.all([ask, Effect.result(desk.use(head)), Effect.sync(desk.isUp)]))
          return (yield* Effect.all([late, desk.stop], { concurrency: 2 }))[0]
        })
        const [asked, [late, used, isUp]] = yield* Effect.all([ask, stopping], { concurrency: 2 })
        const unsent = [asked, late].map((told) =>
          Result.isFailure(told) && told.failure.reason._tag === "ConnectionLost" ? told.failure.reason.unsent : undefined)
        return [unsent, refusedWith(used), isUp]
      })
    })
    expect(value).toEqual([[false, true], "ConnectionLost", false])
    expect(ended).toEqual(["handler", "finalizer"])
  }))

  it.effect("by its disk comes back by itself, but not where it has been killed or stopped meanwhile", () => Effect.gen(function*() {
    for (const end of [undefined, "kill", "stop"] as const) {
      let deaths = 0
      yield* Simulation.run({
        seed: 4, nodes: { shop }, disk: { crash: 0.05 },
        program: ({ nodes: { shop } }) => Effect.gen(function*() {
          for (let n = 0; n < 20 && shop.isUp(); n++) yield* Effect.result(shop.call(Order, { id: `${n}`, quantity: 1 }))
          if (!shop.isUp()) deaths++
          if (end !== undefined) yield* shop[end]
          yield* Effect.sleep("1 minute")
          if (shop.isUp() !== (end === undefined)) return yield* Effect.fail(`${end ?? "nothing"}, and it is ${shop.isUp() ? "up" : "down"}`)
          yield* shop.start
        })
      })
      expect(deaths).toBe(1)
    }
  }))

  it.effect("is forgotten: no run stays in memory", () => Effect.gen(function*() {
    setFlagsFromString("--expose-gc")
    const collect = runInNewContext("gc") as () => void // what the flag adds
    const held: Array<WeakRef<object>> = []
    const holding = Ksi.serve(Desk).pipe(Layer.provide(Desk.toLayer(Effect.sync(() => {
      const self = { answer: 42 }
      held.push(new WeakRef(self))
      return { "desk:wait": () => Effect.succeed(self.answer) }
    }))))
    yield* Simulation.run({
      seed: 1, nodes: { desk: holding }, disk: {},
      program: ({ nodes: { desk } }) => Effect.andThen(desk.kill, Effect.andThen(desk.start, desk.call(Wait, {})))
    })
    for (let turn = 0; turn < 20 && held.some((each) => each.deref() !== undefined); turn++) {
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      collect()
    }
    expect(held.map((each) => each.deref())).toEqual([undefined, undefined])
  }))
})

describe("a disk", () => {
  it.effect("belongs to a daemon by any name, and nothing is written beside it", () => Effect.gen(function*() {
    const beside = () => Fs.readdirSync(Os.tmpdir()).filter((name) => name.startsWith("up.db"))
    const before = beside()
    const { value } = yield* Simulation.run({
      seed: 1, nodes: { "../up": shop, "a/b": shop, " ": shop, A: shop, a: shop }, disk: {},
      program: ({ nodes }) => Effect.gen(function*() {
        yield* Effect.forEach(Object.values(nodes), (node) => node.call(Order, { id: node.name, quantity: 1 }))
        return yield* Effect.forEach(Object.values(nodes), (node) => node.use(head))
      })
    })
    expect(value).toEqual([1, 1, 1, 1, 1])
    expect(beside()).toEqual(before)
  }))

  it.effect("what was acknowledged is there, whatever dies and whatever is full; and each of it happens", () => Effect.gen(function*() {
    const seen = { crash: 0, commit: 0, full: 0, unheard: 0 }
    for (let seed = 0; seed < 60; seed++) {
      const { log } = yield* Simulation.run({
        seed, nodes: { shop }, ...storm,
        program: ({ calm, nodes: { shop } }) => Effect.gen(function*() {
          const told = yield* Effect.forEach(ids(10), (id) =>
            Effect.andThen(Effect.flatMap(Random.nextIntBetween(0, 2000), Effect.sleep), Effect.result(shop.call(Order, { id, quantity: 1 }))), { concurrency: 10 })
          yield* calm
          const facts = yield* shop.use(Effect.flatMap(EventStore, ({ read }) => read({ from: 1, limit: 100 })))
          const stored = new Set(facts.map(({ streamId }) => streamId))
          for (const [index, answer] of told.entries()) {
            if (Result.isSuccess(answer) && !stored.has(`order-${index}`)) return yield* Effect.fail(`order ${index} was acknowledged, and is not there`)
            if (Result.isFailure(answer) && stored.has(`order-${index}`)) seen.unheard++
          }
          for (const [index, { position }] of facts.entries()) if (position !== index + 1) return yield* Effect.fail(`a gap before ${position}`)
        })
      })
      const text = log.join("\n")
      if (/dies before/.test(text)) seen.crash++
      if (/dies after its commit/.test(text)) seen.commit++
      if (/disk is full/.test(text)) seen.full++
    }
    expect(Object.values(seen).every((count) => count > 0), JSON.stringify(seen)).toBe(true)
  }), 60_000)

  it.effect("its files are gone with the run", () => Effect.gen(function*() {
    const directories = () => Fs.readdirSync(Os.tmpdir()).filter((name) => name.startsWith("ksi-simulation-")).length
    const before = directories()
    const inside = yield* Simulation.run({ seed: 1, nodes: { shop }, disk: {}, program: () => Effect.sync(directories) })
    expect([inside.value - before, directories() - before]).toEqual([1, 0])
    yield* Effect.exit(Simulation.run({ seed: 1, nodes: { shop }, disk: {}, program: () => Effect.fail("no") }))
    expect(directories()).toBe(before)
  }))
})

describe("a seed", () => {
  it.effect("makes the same run, line for line, whatever goes wrong", () => Effect.gen(function*() {
    const logs = new Set<string>()
    const once = (seed: number) => Simulation.run({
      seed, nodes: { shop, other: shop }, ...storm,
      program: ({ calm, nodes, partition }) => Effect.gen(function*() {
        const order = (node: Simulation.Node) => (id: string) => Effect.result(node.call(Order, { id, quantity: 1 }))
        yield* Effect.forEach(ids(3), order(nodes.shop), { concurrency: 3 })
        yield* partition(["shop"], ["other", "client"])
        yield* Effect.forEach(ids(3), order(nodes.other), { concurrency: 3 })
        yield* calm
        return [yield* nodes.shop.use(head), yield* nodes.other.use(head)]
      })
    })
    for (let seed = 0; seed < 25; seed++) {
      const [first, second] = [yield* once(seed), yield* once(seed)]
      expect(second).toEqual(first)
      logs.add(first.log.join("\n"))
    }
    expect(logs.size).toBe(25)
  }), 60_000)

  it.effect("finds a lost update between two daemons, replays it, and the mended program passes", () => Effect.gen(function*() {
    const counting = (isMended: boolean) => ({
      nodes: { shop }, network: { duplication: 0.2, loss: 0.1 },
      program: ({ calm, nodes: { shop } }: Simulation.Simulation<"shop">) => Effect.gen(function*() {
        // Whoever hears nothing asks again.
        const order = (id: string) => Effect.retry(shop.call(Order, { id, quantity: 1 }, isMended ? { idempotencyKey: id } : {}), { times: 5 })
        yield* Effect.forEach(ids(3), order, { concurrency: 3 })
        yield* calm
        const count = yield* shop.use(head)
        if (count !== 3) return yield* Effect.fail(new Error(`3 orders, and ${count} facts`))
      })
    })
    const failure = yield* failureOf(Simulation.explore(counting(false)))
    const [headline, , happened] = failure.message.split("\n")
    expect(headline).toMatch(new RegExp(`^Simulation\\.run\\(\\{ seed: ${failure.seed}, … \\}\\) fails: 3 orders, and \\d facts$`))
    expect(happened).toBe("what happened:")
    const again = yield* failureOf(Simulation.run({ ...counting(false), seed: failure.seed }))
    expect(again.log).toEqual(failure.log)
    expect(yield* Simulation.explore(counting(true))).toBe(100)
  }))

  it.effect("needs no daemon: any program is run in its world", () => Effect.gen(function*() {
    const count = Effect.gen(function*() {
      const ref = yield* Ref.make(0)
      const one = Effect.flatMap(Ref.get(ref), (n) => Ref.set(ref, n + 1))
      yield* Effect.all([one, one, one, one], { concurrency: "unbounded", discard: true })
      const n = yield* Ref.get(ref)
      if (n !== 4) return yield* Effect.fail(`${n} of 4`)
    })
    const { seed } = yield* failureOf(Simulation.explore({ program: () => count }))
    expect((yield* failureOf(Simulation.run({ seed, program: () => count }))).seed).toBe(seed)
    expect(yield* Simulation.explore({ preemption: 0, program: () => count })).toBe(100)
  }))
})

describe("a run fails with what is wrong", () => {
  const why = <E>(program: (simulation: Simulation.Simulation<"shop">) => Effect.Effect<unknown, E>) =>
    Effect.map(failureOf(Simulation.run({ seed: 5, nodes: { shop }, program })), ({ message }) => message.split("\n")[0])

  it.effect("where the program never ends", () => Effect.gen(function*() {
    const headline = "Simulation.run({ seed: 5, … }) fails: "
    expect(yield* why(() => Effect.never)).toBe(`${headline}it waits for something that does not come`)
    expect(yield* why(({ nodes: { shop } }) => Effect.andThen(shop.kill, Effect.never)))
      .toBe(`${headline}it waits for something that does not come; shop is down`)
    expect(yield* why(() => Effect.forever(Effect.yieldNow))).toBe(`${headline}it has not ended after 1000000 steps (maxSteps)`)
    const beating = Layer.effectDiscard(Effect.forkScoped(Effect.forever(Effect.sleep("1 second"))))
    const { message } = yield* failureOf(Simulation.run({ seed: 5, nodes: { beating }, maxSteps: 1000, program: () => Effect.never }))
    expect(message).toContain("it has not ended after 1000 steps")
    expect(yield* why(() => Effect.die(new Error("no")))).toBe(`${headline}no`)
  }))

  it.effect("where a daemon does not start", () => Effect.gen(function*() {
    const { message } = yield* failureOf(Simulation.run({
      seed: 5, nodes: { bad: Layer.effectDiscard(Effect.fail(new Error("no money"))) }, program: () => Effect.void
    }))
    expect(message.split("\n")[0]).toBe("Simulation.run({ seed: 5, … }) fails: bad does not start: no money")
  }))

  it.effect("where its disk lets no daemon start", () => Effect.gen(function*() {
    const { message } = yield* failureOf(Simulation.run({ seed: 5, nodes: { shop }, disk: { crash: 1 }, program: () => Effect.void }))
    expect(message).toContain("fails: shop does not start: its disk has killed it 100 times before it was up")
  }))

  it.effect("where a partition is of nobody, or twice of the same", () => Effect.gen(function*() {
    const chop = "chop" as "shop" // as somebody does who makes names
    expect(yield* why(({ partition }) => partition(["client"], [chop]))).toContain("partition is chop: there is no such daemon")
    expect(yield* why(({ partition }) => partition(["client", "shop"], ["shop"]))).toContain("partition is shop: it is in two groups")
  }))

  it.effect("where something never comes to rest", () => Effect.gen(function*() {
    const pinging = Layer.effectDiscard(Effect.flatMap(Simulation.Network, ({ to }) =>
      Effect.forkScoped(Effect.forever(Effect.result(to("shop").dispatch("shop:order", {}, { timeout: "1 hour" }))))))
    const { message } = yield* failureOf(Simulation.run({
      seed: 5, nodes: { shop, pinging }, network: { delayMillis: [60_000, 60_000] }, program: ({ calm }) => calm
    }))
    expect(message).toContain("fails: it does not come to rest within an hour")
  }))

  it.effect("where somebody who wakes goes on for ever", () => Effect.gen(function*() {
    const program = () => Effect.andThen(Effect.sleep(10), Effect.forever(Effect.yieldNow))
    const { message } = yield* failureOf(Simulation.run({ seed: 5, maxSteps: 1000, program }))
    expect(message.split("\n")[0]).toContain("it has not ended after 1000 steps")
  }))

  it.effect("of many seeds the first", () => Effect.gen(function*() {
    const tried: Array<number> = []
    const { seed } = yield* failureOf(Simulation.explore({
      from: 10, seeds: 20, program: () => Effect.suspend(() => tried.push(tried.length + 10) > 5 ? Effect.fail("six") : Effect.void)
    }))
    expect([seed, tried]).toEqual([15, [10, 11, 12, 13, 14, 15]])
  }))
})

describe("what cannot be simulated is refused, before anything is", () => {
  type Given = Partial<Simulation.Options<string, void, never>> & { readonly seed?: number; readonly seeds?: number }
  const refused: ReadonlyArray<readonly [Given, string]> = [
    ...[-1, 1.5, NaN, 2 ** 32].map((seed) => [{ seed }, `seed is ${seed}: it is a whole number from 0 to 4294967295`] as const),
    ...[-0.1, 1.1, NaN].map((loss) => [{ network: { loss } }, `network.loss is ${loss}: it is a chance from 0 to 1`] as const),
    [{ network: { duplication: 2 } }, "network.duplication is 2"],
    [{ network: { delayMillis: [10, 1] } }, "network.delayMillis is [10, 1]: it is from and to, in milliseconds"],
    [{ network: { delayMillis: [0, Infinity] } }, "network.delayMillis is [0, Infinity]"],
    [{ network: { delayMillis: [-1, 1] } }, "network.delayMillis is [-1, 1]"],
    [{ disk: { crash: NaN } }, "disk.crash is NaN"],
    [{ disk: { full: -1 } }, "disk.full is -1"],
    [{ disk: { restartAfterMillis: [NaN, 1] } }, "disk.restartAfterMillis is [NaN, 1]"],
    // With it nobody would ever come to a step.
    [{ preemption: 1 }, "preemption is 1: it is a chance from 0 to 0.5"],
    [{ startAt: NaN }, "startAt is NaN"],
    [{ maxSteps: 0 }, "maxSteps is 0"],
    [{ nodes: { client: shop } }, "the name of a daemon is \"client\": it is not empty, and \"client\" is the program"],
    [{ nodes: { "": shop } }, "the name of a daemon is \"\""],
    [{ seeds: 0 }, "seeds is 0: it is a whole number from 1 to 4294967296"],
    [{ seeds: NaN }, "seeds is NaN"]
  ]
  it.effect.each(refused)("%j", ([given, why]) => Effect.gen(function*() {
    let ran = 0
    const options = { ...given, program: () => Effect.sync(() => void ran++) }
    const cause: Cause.Cause<unknown> = yield* Effect.flip(Effect.sandbox("seeds" in given ? Effect.asVoid(Simulation.explore(options)) : Effect.asVoid(Simulation.run({ seed: 1, ...options }))))
    expect(String(Cause.squash(cause))).toContain(why)
    expect(ran).toBe(0)
  }))

  it.effect("and what is at the edge is not", () => Effect.gen(function*() {
    // Not both at once: a daemon that starts again and again, and gives way at every other step, takes millions of them.
    const at = (seed: number, edge: Pick<Simulation.Options<string, unknown, unknown>, "disk" | "preemption">) => Simulation.run({
      seed, nodes: { shop }, network: { delayMillis: [0, 0], loss: 1, duplication: 1 }, ...edge,
      program: ({ calm, nodes: { shop } }) => Effect.gen(function*() {
        const lost = yield* Effect.result(shop.call(Order, { id: "a", quantity: 1 }))
        yield* calm
        yield* calm
        return [refusedWith(lost), yield* shop.call(Order, { id: "a", quantity: 1 })]
      })
    })
    for (const seed of [0, 2 ** 32 - 1]) {
      for (const edge of [{ preemption: 0.5 }, { disk: { full: 1 } }]) expect((yield* at(seed, edge)).value).toEqual(["ConnectionLost", 1])
    }
  }))
})
