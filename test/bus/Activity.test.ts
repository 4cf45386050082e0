import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Activity, type Ended } from "../../src/bus/Activity.ts"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import { Router, serve } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import * as EventStore from "../../src/store/EventStore.ts"

const Work = Event.make("work:do", { payload: { n: Schema.Int }, error: Schema.String })
const Group = EventGroup.make(Work)

const busWith = (activity: Layer.Layer<Activity>) =>
  serve(Group).pipe(
    Layer.provide(Group.toLayer({
      "work:do": ({ n }) => n === 0 ? Effect.fail("zero") : n < 0 ? Effect.die("negative") : Effect.void
    })),
    Layer.provideMerge(Router.layer),
    Layer.provide(Subscriptions.layer),
    Layer.provideMerge(Layer.mergeAll(EventStore.layerMemory, activity, DeadLetters.layerOff))
  )

describe("what the router records", () => {
  it.effect("every request once, with its exit and duration, whatever became of it", () => {
    const seen: Array<Ended> = []
    const activity = Layer.succeed(Activity, {
      isOn: true,
      record: (ended) => void seen.push(ended),
      query: () => Effect.succeed({ records: [], total: 0 }),
      flush: Effect.void
    })
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      for (const n of [1, 0, -1]) yield* Effect.exit(ksi.call(Work, { n }))
      expect(seen.map(({ envelope, exit }) => [envelope.data, Exit.isSuccess(exit)])).toEqual([
        [{ n: 1 }, true], [{ n: 0 }, false], [{ n: -1 }, false]
      ])
      for (const { duration, encode, envelope } of seen) {
        expect(duration).toBeGreaterThanOrEqual(0)
        expect(encode(envelope.data)).toEqual(envelope.data)
      }
    }).pipe(Effect.provide(busWith(activity)))
  })

  it.effect("streams, refused payloads and missed deadlines too", () => {
    const Count = Event.make("work:count", { payload: { upTo: Schema.Int }, success: Schema.Int, stream: true })
    const Hangs = Event.make("work:hangs", {})
    const seen: Array<readonly [string, unknown, string]> = []
    const activity = Layer.succeed(Activity, {
      isOn: true,
      record: ({ envelope, exit }) => {
        const error = Exit.findErrorOption(exit)
        const outcome = Exit.isSuccess(exit) ? "ok" : error._tag === "Some" && KsiError.is(error.value) ? error.value.reason._tag : "other"
        seen.push([envelope.name, envelope.data, outcome])
        return undefined
      },
      query: () => Effect.succeed({ records: [], total: 0 }),
      flush: Effect.void
    })
    return Effect.gen(function*() {
      const router = yield* Router
      const ksi = yield* KsiService
      yield* router.handle(Count, {
        name: Count.name, run: (payload) => Stream.range(1, (payload as { upTo: number }).upTo), context: Context.empty()
      })
      yield* router.handle(Hangs, { name: Hangs.name, run: () => Effect.never, context: Context.empty() })
      yield* Stream.runDrain(ksi.stream(Count, { upTo: 2 }))
      yield* Effect.exit(ksi.dispatch("work:do", { n: "x" }))
      yield* Effect.exit(ksi.dispatch("work:hangs", {}, { deadline: -5 }))
      const late = yield* Effect.forkChild(Effect.exit(ksi.dispatch("work:hangs", {}, { deadline: 10 })))
      yield* TestClock.adjust(10)
      yield* Fiber.join(late)
      expect(seen).toEqual([
        ["work:count", { upTo: 2 }, "ok"],
        ["work:do", { n: "x" }, "PayloadInvalid"],
        ["work:hangs", {}, "DeadlineExceeded"],
        ["work:hangs", {}, "DeadlineExceeded"]
      ])
    }).pipe(Effect.provide(busWith(activity)))
  })

  it.effect("a full journal slows the caller, and nothing else", () => {
    let release = false
    const activity = Layer.succeed(Activity, {
      isOn: true,
      record: () =>
        Effect.suspend(() => release ? Effect.void : Effect.yieldNow).pipe(Effect.repeat({ until: () => release })),
      query: () => Effect.succeed({ records: [], total: 0 }),
      flush: Effect.void
    })
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const fiber = yield* Effect.forkChild(ksi.call(Work, { n: 1 }))
      yield* Effect.yieldNow
      expect(fiber.pollUnsafe()).toBeUndefined()
      release = true
      for (let turns = 0; turns < 10 && fiber.pollUnsafe() === undefined; turns++) yield* Effect.yieldNow
      expect(fiber.pollUnsafe()).toEqual(Exit.void)
    }).pipe(Effect.provide(busWith(activity)))
  })

  it.effect("layerOff keeps nothing", () =>
    Effect.gen(function*() {
      const ksi = yield* KsiService
      const activity = yield* Activity
      yield* ksi.call(Work, { n: 1 })
      yield* activity.flush
      expect(yield* activity.query({ limit: 10 })).toEqual({ records: [], total: 0 })
    }).pipe(Effect.provide(busWith(Activity.layerOff))))
})
