// The clock on the wall is set forward and back while things run: what waits goes by a clock that nobody sets.
import { describe, expect, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Fiber, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import { KsiService } from "../../src/bus/KsiService.ts"
import { handle, Router } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Event from "../../src/event/Event.ts"
import * as Limits from "../../src/event/Limits.ts"
import { telling } from "./Bus.ts"

const Outer = Event.make("clock:outer", { success: Schema.Number })
const Inner = Event.make("clock:inner", { success: Schema.Number })
const Asked = Event.make("clock:asked")
const Ticked = Event.fact("clock:ticked", { payload: { n: Schema.Int }, streamId: () => "clock" })
const hour = 60 * 60 * 1000

/** The test's clock, whose time of day may be set. */
const settable = Effect.map(Clock.Clock, (clock) => {
  const wall = { shift: 0 }
  const now = () => clock.currentTimeMillisUnsafe() + wall.shift
  // Everything else is that of the test's clock.
  const set: Clock.Clock = Object.create(clock, {
    currentTimeMillisUnsafe: { value: now }, currentTimeMillis: { value: Effect.sync(now) }
  })
  return { wall, set }
})

/** Calls `clock:outer` with a second's deadline; whoever handles it lets the clock be set, then goes on. */
const within = (rest: Effect.Effect<unknown, unknown, KsiService>, shift: number) =>
  Effect.gen(function*() {
    const { set, wall } = yield* settable
    const reached = yield* Deferred.make<void>()
    const go = yield* Deferred.make<void>()
    const layer = Layer.mergeAll(
      handle(Outer, () => Effect.andThen(Deferred.succeed(reached, undefined), Effect.andThen(Deferred.await(go), Effect.as(Effect.orDie(rest), 1)))),
      handle(Inner, () => Effect.as(Effect.sleep("400 millis"), 2))
    ).pipe(Layer.provideMerge(telling(() => {})))
    return yield* Effect.gen(function*() {
      yield* (yield* Router).define(Ticked)
      const ksi = yield* KsiService
      const now = yield* Clock.currentTimeMillis
      const call = yield* Effect.forkChild(Effect.exit(ksi.dispatch(Outer.name, {}, { deadline: now + 1000 })))
      yield* Deferred.await(reached)
      wall.shift = shift
      yield* Deferred.succeed(go, undefined)
      yield* TestClock.adjust("450 millis")
      const early = call.pollUnsafe()
      yield* TestClock.adjust("550 millis")
      return { early, late: yield* Fiber.join(call) }
    }).pipe(Effect.provide(layer), Effect.provideService(Clock.Clock, set))
  })

const say = Effect.flatMap(KsiService, (ksi) => ksi.emit(Ticked, { n: 1 }))
const ask = Effect.flatMap(KsiService, (ksi) => ksi.dispatch(Inner.name, {}))

describe.each([["forward", hour], ["back", -hour]] as const)("a clock that is set %s by an hour", (_, shift) => {
  it.effect("ends no request before its time: what it asks and says meanwhile is answered", () =>
    Effect.gen(function*() {
      for (const rest of [say, ask]) {
        const { late } = yield* within(rest, shift)
        expect(late).toMatchObject({ _tag: "Success" })
      }
    }))

  it.effect("ends a request at its time", () =>
    Effect.gen(function*() {
      const { early, late } = yield* within(Effect.never, shift)
      expect(early).toBeUndefined()
      expect(Exit.findErrorOption(late)).toMatchObject({ value: { reason: { _tag: "DeadlineExceeded", millis: 1000 } } })
    }))

  it.effect("a deadline that is given after it counts from then on", () =>
    Effect.gen(function*() {
      const soon = Effect.gen(function*() {
        const deadline = (yield* Clock.currentTimeMillis) + 100
        return yield* Effect.flip((yield* KsiService).dispatch(Inner.name, {}, { deadline }))
      })
      const { early } = yield* within(soon, shift)
      // The outer one is answered because the inner one was not.
      expect(early && Exit.isSuccess(early) && Exit.isSuccess(early.value)).toBe(true)
    }))

  it.effect("a subscriber that blocks is waited for as long as ever, and no longer", () =>
    Effect.gen(function*() {
      const { set, wall } = yield* settable
      yield* Effect.gen(function*() {
        yield* (yield* Router).define(Ticked)
        const ksi = yield* KsiService
        yield* (yield* Subscriptions).open("clock:*", { overflow: "block", buffer: 1 })
        yield* ksi.emit(Ticked, { n: 0 })
        const waiting = yield* Effect.forkChild(ksi.emit(Ticked, { n: 1 }))
        yield* TestClock.adjust(60)
        wall.shift = shift
        yield* TestClock.adjust(39)
        expect(waiting.pollUnsafe()).toBeUndefined()
        yield* TestClock.adjust(2)
        expect(waiting.pollUnsafe()).toBeDefined()
      }).pipe(
        Effect.scoped,
        Effect.provide(handle(Asked, () => Effect.void).pipe(
          Layer.provideMerge(telling(() => {})),
          Layer.provide(Layer.succeed(Limits.Limits, { ...Limits.defaults, subscriptionBlockMillis: 100 }))
        )),
        Effect.provideService(Clock.Clock, set)
      )
    }))
})
