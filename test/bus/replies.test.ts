// The reply rule and isolation: who answers when several may, and what one handler can do to another (nothing).
import { describe, expect, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Activity } from "../../src/bus/Activity.ts"
import { DeadLetters, type NewLetter } from "../../src/bus/DeadLetters.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import { handle, observe, pass, Router } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Event from "../../src/event/Event.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as EventStore from "../../src/store/EventStore.ts"

const letters: Array<NewLetter> = []
const kept = Layer.effect(DeadLetters, Effect.map(DeadLetters, (none) => ({ ...none, record: (letter: NewLetter) => void letters.push(letter) })))
  .pipe(Layer.provide(DeadLetters.layerOff))
const bus = Router.layer.pipe(
  Layer.provideMerge(Subscriptions.layer),
  Layer.provideMerge(Layer.mergeAll(EventStore.layerMemory, Activity.layerOff, kept))
)

const Ask = Event.make("quiz:ask", { success: Schema.String, error: Schema.String })
const Said = Event.fact("quiz:said", { payload: { by: Schema.String }, streamId: ({ by }) => by })

type Kind = "answers" | "passes" | "fails" | "dies" | "hangs"
type Way = "concurrent" | "sequential"

/** What one handler does, after so many virtual milliseconds. */
const behaviour = (name: string, kind: Kind, millis: number, log: Array<string>) => () =>
  Effect.gen(function*() {
    log.push(`${name} starts`)
    if (kind === "hangs") return yield* Effect.never
    if (millis > 0) yield* Effect.sleep(millis)
    log.push(`${name} ends`)
    if (kind === "passes") return yield* pass
    if (kind === "fails") return yield* Effect.fail(name)
    if (kind === "dies") return yield* Effect.die(name)
    return name
  }).pipe(Effect.onInterrupt(() => Effect.sync(() => log.push(`${name} interrupted`))))

const shown = (exit: Exit.Exit<string, string | KsiError>): string => {
  if (Exit.isSuccess(exit)) return exit.value
  const error = Cause.squash(exit.cause)
  return error instanceof KsiError ? error.reason._tag : `!${String(error)}`
}

/** Runs the handlers in order and answers with the reply, when it came, and what was seen. */
const ask = (handlers: ReadonlyArray<readonly [Way, Kind, number, number | undefined]>) => {
  const log: Array<string> = []
  const layers = handlers.map(([execution, kind, millis, timeout], i) =>
    handle(Ask, behaviour(String.fromCodePoint(97 + i), kind, millis, log), { execution, ...(timeout === undefined ? {} : { timeout }) }))
  // Registered one after the other: the order is the order of the list.
  const all = layers.reduce<Layer.Layer<never, KsiError, Router>>((before, layer) => Layer.provideMerge(layer, before) as Layer.Layer<never, KsiError, Router>, Layer.empty)
  return Effect.gen(function*() {
    const ksi = yield* KsiService
    let done = -1
    let clock = 0
    const fiber = yield* Effect.forkChild(Effect.exit(ksi.call(Ask, {})))
    fiber.addObserver(() => {
      done = clock
    })
    while (done < 0 && clock < 1000) {
      clock += 10
      yield* TestClock.adjust(10)
    }
    const exit = done < 0 ? undefined : yield* Fiber.join(fiber)
    return { reply: exit === undefined ? "nothing" : shown(exit), done, log }
  }).pipe(Effect.provide(Layer.provideMerge(all, bus)))
}

const c = (kind: Kind, millis = 0, timeout?: number) => ["concurrent", kind, millis, timeout] as const
const s = (kind: Kind, millis = 0, timeout?: number) => ["sequential", kind, millis, timeout] as const

describe("the reply rule", () => {
  const table: ReadonlyArray<readonly [string, Parameters<typeof ask>[0], string]> = [
    ["one answers", [c("answers")], "a"],
    ["one passes", [c("passes")], "NoHandler"],
    ["all pass", [c("passes"), s("passes"), c("passes")], "NoHandler"],
    ["the first answers", [c("answers"), c("answers")], "a"],
    ["the first passes", [c("passes"), c("answers")], "b"],
    ["the earlier one wins, though it is slower", [c("answers", 50), c("answers")], "a"],
    ["the slower one passes in the end", [c("passes", 50), c("answers")], "b"],
    ["a failure is an answer", [c("fails"), c("answers")], "!a"],
    ["a defect is an answer", [c("dies"), c("answers")], "!a"],
    ["a timeout is an answer", [c("hangs", 0, 30), c("answers")], "DeadlineExceeded"],
    ["a later failure does not count", [c("answers", 20), c("fails")], "a"],
    ["sequential after concurrent", [c("passes"), s("answers")], "b"],
    ["sequential before concurrent", [s("passes"), c("answers")], "b"],
    ["a sequential failure is an answer", [s("fails"), s("answers")], "!a"],
    ["passes through three groups", [c("passes"), c("passes"), s("passes"), s("passes"), c("answers")], "e"]
  ]
  it.effect.each(table)("%s", ([, handlers, expected]) =>
    Effect.gen(function*() {
      expect((yield* ask(handlers)).reply).toBe(expected)
    }))

  it.effect("concurrent neighbours start together, and those still running are interrupted by the answer", () =>
    Effect.gen(function*() {
      const { done, log } = yield* ask([c("passes", 20), c("answers", 30), c("hangs"), s("answers")])
      expect(log.slice(0, 3)).toEqual(["a starts", "b starts", "c starts"])
      expect(log).toContain("c interrupted")
      expect(log).not.toContain("d starts")
      expect(done).toBe(30)
    }))

  it.effect("a sequential handler starts only when all before it passed", () =>
    Effect.gen(function*() {
      const { log } = yield* ask([c("passes", 20), s("passes", 20), s("answers")])
      expect(log).toEqual(["a starts", "a ends", "b starts", "b ends", "c starts", "c ends"])
    }))

  it.effect("NoHandler counts who passed", () =>
    Effect.gen(function*() {
      const ksi = yield* KsiService
      const error = yield* Effect.flip(ksi.call(Ask, {}))
      expect(error).toMatchObject({ reason: { _tag: "NoHandler", passed: 2 } })
    }).pipe(Effect.provide(Layer.mergeAll(handle(Ask, () => pass), handle(Ask, () => pass, { execution: "sequential" })).pipe(
      Layer.provideMerge(bus)
    ))))
})

describe("isolation", () => {
  it.effect("no handler sees the services of its caller, however it is run", () => {
    class Secret extends Context.Service<Secret, { readonly text: string }>()("test/Secret") {}
    const look = () => Effect.map(Effect.serviceOption(Secret), (found) => found._tag)
    const ways = [{}, { timeout: 100 }, { key: () => "a" }, { execution: "sequential" as const }]
    return Effect.gen(function*() {
      for (const options of ways) {
        for (const others of [[], [handle(Ask, () => pass)]]) {
          const layers = [...others, handle(Ask, look, options)]
            .reduce<Layer.Layer<never, KsiError, Router>>((before, layer) => Layer.provideMerge(layer, before) as Layer.Layer<never, KsiError, Router>, Layer.empty)
          const found = Effect.flatMap(KsiService, (ksi) => ksi.call(Ask, {})).pipe(
            Effect.provideService(Secret, { text: "mine" }), Effect.provide(Layer.provideMerge(layers, bus)))
          expect(yield* found).toBe("None")
        }
      }
    })
  })
})

describe("keyed handlers", () => {
  it.effect("one at a time for each key, in the order of arrival; keys do not wait for each other", () => {
    const log: Array<string> = []
    const Work = Event.make("work:do", { payload: { key: Schema.String, n: Schema.Int } })
    const worker = handle(Work, ({ key, n }) =>
      Effect.gen(function*() {
        log.push(`${key}${n} starts`)
        yield* Effect.sleep(10)
        log.push(`${key}${n} ends`)
      }), { key: ({ key }) => key })
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const fibers = yield* Effect.forEach(
        [["a", 1], ["a", 2], ["b", 1], ["a", 3], ["b", 2]] as const,
        ([key, n]) => Effect.forkChild(ksi.call(Work, { key, n }), { startImmediately: true })
      )
      yield* TestClock.adjust(100)
      yield* Fiber.joinAll(fibers)
      const of = (key: string) => log.filter((line) => line.startsWith(key))
      expect(of("a")).toEqual(["a1 starts", "a1 ends", "a2 starts", "a2 ends", "a3 starts", "a3 ends"])
      expect(of("b")).toEqual(["b1 starts", "b1 ends", "b2 starts", "b2 ends"])
      expect(log.indexOf("b1 starts")).toBeLessThan(log.indexOf("a1 ends"))
    }).pipe(Effect.provide(Layer.provideMerge(worker, bus)))
  })

  it.effect("what the holder of a key calls itself is part of its turn; others wait", () => {
    const log: Array<string> = []
    const Work = Event.make("work:do", { payload: { key: Schema.String, left: Schema.Int } })
    const worker = handle(Work, ({ key, left }) =>
      Effect.gen(function*() {
        log.push(`${left} starts`)
        yield* Effect.sleep(10)
        if (left > 0) yield* (yield* KsiService).call(Work, { key, left: left - 1 })
        log.push(`${left} ends`)
      }), { key: ({ key }) => key })
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const fiber = yield* Effect.forkChild(ksi.call(Work, { key: "a", left: 2 }), { startImmediately: true })
      const next = yield* Effect.forkChild(ksi.call(Work, { key: "a", left: 0 }), { startImmediately: true })
      yield* TestClock.adjust(100)
      yield* Fiber.join(fiber)
      yield* Fiber.join(next)
      expect(log).toEqual(["2 starts", "1 starts", "0 starts", "0 ends", "1 ends", "2 ends", "0 starts", "0 ends"])
    }).pipe(Effect.provide(Layer.provideMerge(worker, bus)))
  })

  it.effect("one that stops waiting leaves the line; one that stops working ends its turn", () => {
    const log: Array<string> = []
    const Work = Event.make("work:do", { payload: { n: Schema.Int } })
    const worker = handle(Work, ({ n }) => Effect.andThen(Effect.sync(() => log.push(`${n} starts`)), Effect.sleep(10)), { key: () => "a" })
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const [first, second, third] = yield* Effect.forEach([1, 2, 3], (n) => Effect.forkChild(ksi.call(Work, { n }), { startImmediately: true }))
      if (first === undefined || second === undefined || third === undefined) throw new Error("three")
      yield* Fiber.interrupt(second)
      yield* TestClock.adjust(5)
      yield* Fiber.interrupt(first)
      yield* TestClock.adjust(10)
      yield* Fiber.join(third)
      expect(log).toEqual(["1 starts", "3 starts"])
      yield* Effect.forkChild(ksi.call(Work, { n: 4 }), { startImmediately: true })
      expect(log).toHaveLength(3)
    }).pipe(Effect.provide(Layer.provideMerge(worker, bus)))
  })

  it.effect("so many may wait for one key, and no more", () => {
    const Work = Event.make("work:do", { payload: { key: Schema.String } })
    const worker = handle(Work, () => Effect.never, { key: ({ key }) => key })
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      for (let i = 0; i < 3; i++) yield* Effect.forkChild(ksi.call(Work, { key: "a" }), { startImmediately: true })
      expect(yield* Effect.flip(ksi.call(Work, { key: "a" }))).toMatchObject({ reason: { _tag: "LimitExceeded", limit: "keyedHandlers" } })
    }).pipe(
      Effect.provide(Layer.provideMerge(worker, bus)),
      Effect.provideService(Limits.Limits, { ...Limits.defaults, keyedHandlers: 3 })
    )
  })
})

describe("reactions", () => {
  it.effect("handlers of facts and observers run each for itself; what fails is a dead letter", () => {
    letters.length = 0
    const ran: Array<string> = []
    const finalized = Deferred.makeUnsafe<void>()
    const reactions = [
      handle(Said, () => Effect.fail("no"), { name: "fails" }),
      handle(Said, () => Effect.die(new Error("broken")), { name: "dies" }),
      handle(Said, () => { throw new Error("thrown") }, { name: "throws" }),
      handle(Said, () => Effect.onInterrupt(Effect.never, () => Deferred.succeed(finalized, undefined)), { name: "hangs", timeout: 50 }),
      handle(Said, ({ by }, { position }) => Effect.sync(() => ran.push(`${by} at ${position}`)), { name: "works" }),
      observe("quiz:*", ({ name }) => Effect.sync(() => ran.push(`observed ${name}`))),
      observe("quiz:*", () => Effect.fail("blind"), { name: "blind" })
    ]
    const all = reactions.reduce<Layer.Layer<never, KsiError, Router>>((before, layer) => Layer.provideMerge(layer, before) as Layer.Layer<never, KsiError, Router>, Layer.empty)
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const router = yield* Router
      const { position } = yield* ksi.emit(Said, { by: "ann" })
      expect(position).toBe(1n)
      yield* TestClock.adjust(50)
      yield* Deferred.await(finalized)
      yield* router.settled
      expect(ran.toSorted()).toEqual(["ann at 1", "observed quiz:said"])
      expect(letters.map(({ error, handler, reason }) => [handler, reason, error]).toSorted()).toEqual([
        ["blind", "failed", "blind"], ["dies", "died", "broken"], ["fails", "failed", "no"],
        ["hangs", "timed-out", expect.any(String)], ["throws", "died", "thrown"]
      ])
      expect(letters[0]?.event).toMatchObject({ name: "quiz:said", data: { by: "ann" }, streamId: "ann", position: 1 })
      expect(router.describe("quiz:said")).toMatchObject({
        handlers: [{ name: "fails" }, { name: "dies" }, { name: "throws" }, { name: "hangs" }, { name: "works" }],
        observers: ["observer of quiz:*", "blind"]
      })
    }).pipe(Effect.provide(Layer.provideMerge(all, bus)), Effect.provide(Logger.layer([])))
  })

  it.effect("an observer never changes a reply, and sees requests before they are answered", () => {
    const seen: Array<unknown> = []
    const layers = handle(Ask, () => Effect.succeed("reply")).pipe(
      Layer.provideMerge(observe("quiz:*", (envelope) => Effect.sync(() => seen.push(envelope.name)))),
      Layer.provideMerge(observe("quiz:*", () => Effect.never)),
      Layer.provideMerge(bus)
    )
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      expect(yield* ksi.call(Ask, {})).toBe("reply")
      expect(seen).toEqual(["quiz:ask"])
    }).pipe(Effect.provide(layers), Effect.provide(Logger.layer([])))
  })

  it.effect("an observer that asks what it observes comes to the end of its depth", () => {
    letters.length = 0
    let asked = 0
    const layers = handle(Ask, () => Effect.succeed("reply")).pipe(
      Layer.provideMerge(observe("quiz:*", () =>
        Effect.gen(function*() {
          asked++
          yield* (yield* KsiService).call(Ask, {})
        }))),
      Layer.provideMerge(bus),
      Layer.provide(Layer.succeed(Limits.Limits, { ...Limits.defaults, depth: 5 }))
    )
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const { settled } = yield* Router
      expect(yield* ksi.call(Ask, {})).toBe("reply")
      yield* settled
      // Those of depth 0 to 5; what is deeper is refused, and nobody hears of it.
      expect(asked).toBe(6)
      expect(letters.map(({ error }) => error)).toEqual([expect.stringContaining("depth")])
    }).pipe(Effect.provide(layers), Effect.provide(Logger.layer([])))
  })

  it.effect("a dead letter can be run once more, as a new event caused by the old one", () => {
    letters.length = 0
    let broken = true
    const causes: Array<string | undefined> = []
    const reaction = handle(Said, (_, { metadata }) =>
      Effect.suspend(() => {
        causes.push(metadata.causationId)
        return broken ? Effect.fail("broken") : Effect.void
      }), { name: "mended" })
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const router = yield* Router
      const { id } = yield* ksi.emit(Said, { by: "ann" })
      yield* router.settled
      const [letter] = letters
      if (letter === undefined) throw new Error("no letter")
      const again = router.rerun({ ...letter, letter: 1, reruns: 0 })
      expect(yield* Effect.flip(again)).toMatchObject({ reason: { _tag: "HandlerFailed" } })
      broken = false
      yield* again
      expect(causes).toEqual([undefined, id, id])
      expect(yield* Effect.flip(router.rerun({ ...letter, handler: "gone", letter: 1, reruns: 0 }))).toMatchObject({ reason: { _tag: "NotFound" } })
    }).pipe(Effect.provide(Layer.provideMerge(reaction, bus)), Effect.provide(Logger.layer([])))
  })
})
