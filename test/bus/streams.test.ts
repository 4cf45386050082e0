// Requests that are answered by a stream: what a handler sees, how a stream ends, and that each is recorded once.
import { describe, expect, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { outcomeOf } from "../../src/bus/Activity.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import { Router } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import { telling } from "./Bus.ts"

const Count = Event.make("items:count", { success: Schema.Int, error: Schema.String, stream: true })
const Root = Event.make("items:root", { success: Schema.Unknown })
class Secret extends Context.Service<Secret, { readonly text: string }>()("test/Secret") {}

const recorded: Array<string> = []
const bus = telling(({ envelope, exit }) => {
  if (envelope.name === Count.name) recorded.push(outcomeOf(exit)[0])
})

/** Reads a stream whose handler is given, behind middleware that is given. */
const reading = <A>(
  handler: () => unknown,
  hooks: Parameters<typeof Middleware.make>[1] | undefined,
  use: (items: Stream.Stream<number, unknown>) => Effect.Effect<A, unknown, KsiService | Router | Scope.Scope>
) =>
  Effect.gen(function*() {
    recorded.length = 0
    const router = yield* Router
    const ksi = yield* KsiService
    const context = Context.omit(Scope.Scope)(yield* Effect.context<Scope.Scope>()) as Context.Context<never>
    yield* router.handle(Count, { name: "it", run: handler, context })
    // Its hooks need nothing.
    if (hooks !== undefined) yield* Layer.build(Middleware.use(Middleware.make("hook", hooks)) as Layer.Layer<never, KsiError, Router>)
    return yield* use(ksi.stream(Count, {}))
  }).pipe(Effect.scoped, Effect.provide(bus), Effect.provide(Logger.layer([])))

const settle = Effect.gen(function*() {
  for (let i = 0; i < 30; i++) yield* Effect.yieldNow
})
const endOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return `ok ${JSON.stringify(exit.value)}`
  const reason = exit.cause.reasons.find(Cause.isFailReason)
  if (reason !== undefined) return reason.error instanceof KsiError ? reason.error.reason._tag : JSON.stringify(reason.error)
  return Cause.hasDies(exit.cause) ? "died" : "interrupted"
}
const collected = (items: Stream.Stream<number, unknown>) => Effect.map(Effect.exit(Stream.runCollect(items)), endOf)
const none = () => undefined as never

describe("what a handler sees", () => {
  for (const [name, hooks] of [["alone", undefined], ["behind middleware", { after: () => {} }]] as const) {
    it.effect(`its own services and envelope, not its caller's, also when it ends (${name})`, () => {
      const seen: Array<string> = []
      const look = (where: string) => Effect.gen(function*() {
        const secret = yield* Effect.serviceOption(Secret)
        const scope = yield* Effect.serviceOption(Scope.Scope)
        seen.push(`${where}: ${secret._tag} ${scope._tag}`)
      })
      const handler = () => Stream.fromEffect(Effect.as(look("item"), 1)).pipe(Stream.ensuring(look("end")), Stream.concat(Stream.never))
      return reading(handler, hooks, (items) =>
        Effect.gen(function*() {
          expect(yield* collected(Stream.take(items, 1))).toBe("ok [1]")
          expect(seen).toEqual(["item: None None", "end: None None"])
          expect(recorded).toEqual(["success"])
        }).pipe(Effect.provideService(Secret, { text: "mine" })))
    })
  }
})

describe("how a stream ends", () => {
  const two = () => Stream.make(1, 2)
  const cases: ReadonlyArray<readonly [string, () => unknown, Parameters<typeof Middleware.make>[1] | undefined, string, string]> = [
    ["all items", two, undefined, "ok [1,2]", "success"],
    ["fails as declared", () => Stream.concat(two(), Stream.fail("no")), undefined, "\"no\"", "failure"],
    ["no Stream", () => Effect.succeed(1), undefined, "died", "defect"],
    ["throws", () => { throw new Error("boom") }, undefined, "died", "defect"],
    ["an item that is none", () => Stream.make(1, "two"), undefined, "ReplyInvalid", "failure"],
    ["dies in its finalizer", () => Stream.ensuring(two(), Effect.die("late")), undefined, "died", "defect"],
    ["an after dies", two, { after: () => Effect.die("after") }, "died", "defect"],
    ["an after throws later", two, { after: () => Effect.map(Effect.yieldNow, () => { throw new Error("boom") }) }, "died", "defect"],
    ["a before answers", two, { before: () => Middleware.answer(7) }, "ok [7]", "success"],
    ["a before dies", two, { before: () => Effect.die("before") }, "died", "defect"],
    ["a middleware provides nothing and hands on", two, { around: (next) => Effect.andThen(Effect.yieldNow, next) }, "ok [1,2]", "success"]
  ]
  it.effect.each(cases)("%s", ([, handler, hooks, end, outcome]) =>
    reading(handler, hooks, (items) => Effect.gen(function*() {
      expect(yield* collected(items)).toBe(end)
      expect(recorded).toEqual([outcome])
    })))

  const broken: ReadonlyArray<readonly [string, Parameters<typeof Middleware.make>[1]]> = [
    ["before", { before: () => Effect.flatMap(Effect.yieldNow, none) }],
    ["around", { around: () => Effect.flatMap(Effect.yieldNow, none) }],
    ["after", { after: () => Effect.flatMap(Effect.yieldNow, none) }]
  ]
  it.effect.each(broken)("an %s that goes on with what is no effect is a defect", ([, hooks]) =>
    reading(two, hooks, (items) => Effect.map(collected(items), (end) => expect(end).toBe("died"))))

  it.effect("an after that dies when the reader has enough is a defect of its stream", () =>
    reading(() => Stream.range(1, 9), { after: () => Effect.die("after") }, (items) => Effect.gen(function*() {
      expect(yield* collected(Stream.take(items, 2))).toBe("died")
      expect(recorded).toEqual(["defect"])
    })))

  for (const [name, read] of [["reads all", 9], ["has enough", 1]] as const) {
    it.effect(`an after that hangs is interrupted with its reader, who ${name}`, () =>
      reading(two, { after: () => Effect.never }, (items) => Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(collected(Stream.take(items, read)), { startImmediately: true })
        yield* settle
        expect(fiber.pollUnsafe()).toBeUndefined()
        yield* Fiber.interrupt(fiber)
        expect(recorded).toEqual(["interrupted"])
      })))
  }

  it.effect("its reader is interrupted: the handler's finalizers and every after run", () => {
    const seen: Array<string> = []
    const handler = () => Stream.ensuring(Stream.concat(two(), Stream.never), Effect.sync(() => seen.push("finalized")))
    return reading(handler, { after: (_, exit) => Effect.andThen(Effect.yieldNow, Effect.sync(() => void seen.push(endOf(exit)))) }, (items) => Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(Stream.runDrain(items), { startImmediately: true })
      yield* settle
      yield* Fiber.interrupt(fiber)
      expect(seen).toEqual(["finalized", "interrupted"])
      expect(recorded).toEqual(["interrupted"])
    }))
  })

  it.effect("a middleware that has waited enough ends it, and the handler with it", () => {
    const finalized = Deferred.makeUnsafe<void>()
    const handler = () => Stream.ensuring(Stream.concat(two(), Stream.never), Deferred.succeed(finalized, undefined))
    return reading(handler, { around: (next) => Effect.timeoutOrElse(next, { duration: 50, orElse: () => Effect.die("slow") }) }, (items) => Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(collected(items), { startImmediately: true })
      yield* Effect.andThen(settle, TestClock.adjust(50))
      expect(yield* Fiber.join(fiber)).toBe("died")
      yield* Deferred.await(finalized)
      expect(recorded).toEqual(["defect"])
    }))
  })

  it.effect("a nested stream ends with the request that reads it", () =>
    reading(() => Stream.concat(two(), Stream.never), undefined, (items) => Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      const context = Context.omit(Scope.Scope)(yield* Effect.context<Scope.Scope>()) as Context.Context<never>
      yield* router.handle(Root, { name: "root", run: () => Stream.runDrain(items), context })
      const fiber = yield* Effect.forkChild(Effect.exit(ksi.dispatch(Root.name, {}, { deadline: 100 })), { startImmediately: true })
      yield* Effect.andThen(settle, TestClock.adjust(100))
      expect(endOf(yield* Fiber.join(fiber))).toBe("DeadlineExceeded")
      expect(recorded).toEqual(["interrupted"])
    })))
})

describe("backpressure", () => {
  for (const [name, hooks] of [["alone", undefined], ["behind a hook", { after: () => {} }], ["wrapped", { around: (next: Effect.Effect<unknown, unknown>) => next }]] as const) {
    it.effect(`nothing is made that nobody asked for (${name})`, () => {
      let made = 0
      const handler = () => Stream.mapEffect(Stream.range(1, 100), (n) => Effect.sync(() => (made++, n)))
      return reading(handler, hooks, (items) => Effect.gen(function*() {
        const pull = yield* Stream.toPull(items)
        for (let n = 1; n <= 3; n++) {
          expect(yield* pull).toEqual([n])
          yield* settle
          expect(made).toBe(n)
        }
      }))
    })
  }
})

it.effect("a reader that fails, fails with that and nothing else; the handler learns that it ended", () => {
  const ended: Array<string> = []
  const handler = () => Stream.onExit(Stream.range(1, 10), (exit) => Effect.sync(() => ended.push(endOf(exit))))
  return Effect.gen(function*() {
    const exit = yield* reading(handler, undefined, (items) =>
      Effect.exit(Stream.runForEach(items, (n) => n === 3 ? Effect.fail("enough") : Effect.void)))
    expect(exit).toEqual(Exit.fail("enough"))
    expect(ended).toEqual(["\"enough\""])
  })
})
