import { describe, expect, it } from "@effect/vitest"
import { Clock, Context, Deferred, Effect, Exit, Fiber, Random, Ref } from "effect"
import * as World from "../../src/testing/World.ts"

/** Four who read, and then write one more: right only where nobody comes between. */
const counting = Effect.gen(function*() {
  const count = yield* Ref.make(0)
  const one = Effect.flatMap(Ref.get(count), (n) => Ref.set(count, n + 1))
  yield* Effect.all([one, one, one, one], { concurrency: "unbounded" })
  return yield* Ref.get(count)
})

const ended = <A, E>(exit: Exit.Exit<A, E> | undefined): A => exit !== undefined && Exit.isSuccess(exit) ? exit.value : expect.fail("it has not ended well")

describe("a world", () => {
  it("goes the same way for the same seed, a thousand times of a thousand", () => {
    const heard = (seed: number): ReadonlyArray<unknown> => {
      const log: Array<unknown> = []
      const worker = (name: string) => Effect.forEach([1, 2, 3], (n) => Effect.gen(function*() {
        yield* Effect.sleep((yield* Random.nextIntBetween(0, 3)) * 10)
        log.push([name, n, yield* Clock.currentTimeMillis])
      }))
      const world = World.make({ seed })
      ended(world.run(Effect.all(["a", "b", "c", "d"].map(worker), { concurrency: "unbounded" })))
      return [...log, world.steps(), world.now()]
    }
    const orders = new Set<string>()
    for (let seed = 0; seed < 1000; seed++) {
      const [first, second] = [heard(seed), heard(seed)]
      expect(second).toEqual(first)
      orders.add(JSON.stringify(first))
    }
    expect(orders.size).toBeGreaterThan(900)
  })

  it("finds the order in which an update is lost, and without a seed nobody gives way unasked", () => {
    const found = Array.from({ length: 200 }, (_, seed) => ended(World.make({ seed }).run(counting)))
    expect(found).toContain(4)
    expect(found.some((count) => count < 4)).toBe(true)
    expect(ended(World.make().run(counting))).toBe(4)
    expect(ended(World.make({ seed: 1, preemption: 0 }).run(counting))).toBe(4)
    const inOrder = Array.from({ length: 20 }, (_, seed) => ended(World.make({ seed, order: "arrival" }).run(Effect.all([counting, Random.next]))))
    expect(inOrder.every(([count]) => count === 4)).toBe(true)
    expect(new Set(inOrder.map(([, number]) => number)).size).toBe(20)
  })

  it("its clock goes to the next who wakes, in order, and no further", () => {
    const woken: Array<string> = []
    const world = World.make({ startAt: 1000 })
    const sleeper = (name: string, millis: number) => Effect.andThen(Effect.sleep(millis), Effect.clockWith((clock) => Effect.sync(() => woken.push(`${name} ${clock.currentTimeMillisUnsafe()}`))))
    const fibers = [sleeper("b", 20), sleeper("a", 10), sleeper("c", 20), sleeper("d", 3_600_000)].map(world.fork)
    expect([world.settle(), woken, world.due(), world.now()]).toEqual(["idle", [], 1010, 1000])
    world.advance(20)
    expect([woken, world.due(), world.now()]).toEqual([["a 1010", "b 1020", "c 1020"], 3_601_000, 1020])
    expect(fibers.map((fiber) => fiber.pollUnsafe() !== undefined)).toEqual([true, true, true, false])
    ended(world.run(Effect.sleep("1 hour")))
    expect(world.now()).toBe(1020 + 3_600_000)
  })

  it("those who wake at the same instant go on in any order, and come between one another", () => {
    const orders = new Set<string>()
    let lost = 0
    for (let seed = 0; seed < 300; seed++) {
      let [heard, count] = ["", 0]
      const one = (name: string) => Effect.gen(function*() {
        yield* Effect.sleep(10)
        heard += name
        const read = count
        yield* Effect.yieldNow
        count = read + 1
      })
      ended(World.make({ seed, preemption: 0 }).run(Effect.all(["a", "b", "c"].map(one), { concurrency: "unbounded" })))
      orders.add(heard)
      if (count < 3) lost++
    }
    expect(orders.size).toBe(6)
    expect(lost).toBeGreaterThan(0)
  })

  it("a process that is killed takes no further step: not of those that wait, nor of the one that is at it; others go on", () => {
    for (let seed = 0; seed < 50; seed++) {
      const world = World.make({ seed })
      const [dying, living] = [world.process(), world.process()]
      const heard: Array<string> = []
      const sleeper = (name: string) => Effect.ensuring(
        Effect.forever(Effect.andThen(Effect.sleep(10), Effect.sync(() => heard.push(name)))),
        Effect.sync(() => heard.push(`finalizer of ${name}`)))
      dying.fork(sleeper("dead"))
      living.fork(sleeper("alive"))
      world.advance(25)
      const suicide = dying.fork(Effect.andThen(Effect.sync(dying.kill), Effect.sync(() => heard.push("after death"))))
      const interrupted = living.fork(Effect.andThen(Effect.sleep(5), Effect.sync(() => suicide.interruptUnsafe())))
      world.advance(1000)
      expect(heard.filter((name) => name === "dead").length).toBe(2)
      expect(heard.filter((name) => name === "alive").length).toBe(102)
      expect(heard.filter((name) => name.includes("finalizer") || name === "after death")).toEqual([])
      expect([dying.isAlive(), living.isAlive(), suicide.pollUnsafe(), interrupted.pollUnsafe()]).toEqual([false, true, undefined, Exit.void])
    }
  })

  it("time passes for so many steps only, where somebody who wakes goes on for ever", () => {
    const world = World.make({ seed: 1 })
    world.fork(Effect.andThen(Effect.sleep(10), Effect.forever(Effect.yieldNow)))
    world.advance(20, 500)
    expect([world.steps(), world.now()]).toEqual([500, 10])
  })

  it("goes back to its beginning, where nobody is left: then everything goes as the first time", () => {
    const run = (world: World.World) => {
      const heard: Array<unknown> = []
      const say = (name: string) => Effect.gen(function*() {
        yield* Effect.sleep(10)
        heard.push([name, yield* Random.next, yield* Clock.currentTimeMillis])
      })
      ended(world.run(Effect.all(["a", "b", "c", "d"].map(say), { concurrency: "unbounded" })))
      return heard
    }
    for (const seed of [undefined, 1, 2, 3]) {
      const world = World.make({ seed, startAt: 5 })
      const first = run(world)
      expect(run(world)).not.toEqual(first)
      expect([world.rewind(), world.now()]).toEqual([true, 5])
      expect(run(world)).toEqual(first)
      const sleeper = world.fork(Effect.sleep(1000))
      world.settle()
      expect([world.rewind(), sleeper.pollUnsafe()]).toEqual([false, undefined])
    }
  })

  it("who sleeps for ever is never due", () => {
    const world = World.make()
    expect(world.run(Effect.sleep(Infinity))).toBeUndefined()
    expect([world.due(), world.now()]).toEqual([undefined, 0])
    world.fork(Effect.sleep(7))
    world.settle()
    expect([world.due(), world.due((millis) => millis !== 7)]).toEqual([7, undefined])
  })

  it("a sleep that is interrupted is not waited for", () => {
    const world = World.make()
    ended(world.run(Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(Effect.sleep("1 day"))
      yield* Effect.sleep(1)
      yield* Fiber.interrupt(fiber)
    })))
    expect([world.now(), world.due()]).toEqual([1, undefined])
  })

  it("effects find the services that they are forked with, and the world's clock", () => {
    class Name extends Context.Service<Name, string>()("test/Name") {}
    const world = World.make({ startAt: 5 })
    const fork = world.forkWith(Context.make(Name, "ann"))
    const who = Effect.zip(Effect.andThen(Effect.sleep(2), Name), Clock.currentTimeMillis)
    const fibers = [fork(who), fork(Effect.andThen(Effect.sleep(1), who))]
    world.advance(3)
    expect(fibers.map((fiber) => ended(fiber.pollUnsafe()))).toEqual([["ann", 7], ["ann", 8]])
  })

  it("a timeout is the clock's", () => {
    const world = World.make()
    const exit = world.run(Effect.timeoutOrElse(Effect.never, { duration: "5 seconds", orElse: () => Effect.succeed("late") }))
    expect([ended(exit), world.now()]).toEqual(["late", 5000])
  })

  it("what waits for nothing that comes stands still, and what never ends is stopped", () => {
    expect(World.make().run(Effect.never)).toBeUndefined()
    expect(World.make({ seed: 1 }).run(Effect.flatMap(Deferred.make<void>(), Deferred.await))).toBeUndefined()
    const world = World.make()
    expect(world.run(Effect.forever(Effect.yieldNow), 1000)).toBeUndefined()
    expect(world.steps()).toBe(1000)
    expect(world.settle(500)).toBe("steps")
    expect(world.steps()).toBe(1500)
  })

  it("random numbers are the seed's, and integers are spread over all there are", () => {
    const numbers = (seed: number) => ended(World.make({ seed }).run(Effect.all([Random.next, Random.nextInt, Random.nextIntBetween(0, 9)])))
    expect(numbers(1)).toEqual(numbers(1))
    expect(numbers(1)).not.toEqual(numbers(2))
    const many = ended(World.make({ seed: 3 }).run(Effect.replicateEffect(Random.nextInt, 1000)))
    expect([many.some((n) => n < -(2 ** 52)), many.some((n) => n > 2 ** 52), many.every(Number.isSafeInteger)]).toEqual([true, true, true])
  })
})
