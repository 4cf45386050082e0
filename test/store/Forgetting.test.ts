import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer } from "effect"
import { Activity } from "../../src/bus/Activity.ts"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { Idempotency } from "../../src/bus/Idempotency.ts"
import { Router } from "../../src/bus/Router.ts"
import { Ksi } from "../../src/Ksi.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Forgetting from "../../src/store/Forgetting.ts"
import { Permissions } from "../../src/store/Permissions.ts"

const built = Effect.gen(function*() {
  const forgetting: Forgetting.All = []
  const runtime = yield* Effect.provideService(Layer.build(Layer.fresh(Ksi.layerMemory)), Forgetting.Forgetting, forgetting)
  return { forgetting, runtime, of: <I, S>(key: Context.Key<I, S>): S => Context.getUnsafe(runtime, key) }
})

const event = { id: "1", name: "a:b", data: {}, streamId: "a", position: 1, attributes: {} }

describe("Forgetting", () => {
  it.effect("a runtime that has forgotten is as new: facts, requests, letters and answers are gone, and positions begin at 1", () => Effect.gen(function*() {
    const { forgetting, of, runtime } = yield* built
    const store = of(EventStore)
    const fill = Effect.gen(function*() {
      const first = yield* store.appendTo("a", [{ name: "a:b", id: "same" }, { name: "a:b" }], { expectedVersion: 0 })
      yield* Effect.ignore(of(Router).dispatch(of(Router).envelope("no:such", {})))
      of(DeadLetters).record({ handler: "h", reason: "failed", error: "e", event, timestamp: 0 })
      const once = yield* of(Idempotency).once({ principal: "owner", event: "a:b", key: "k" }, {}, Effect.succeed(first.length))
      const { letters } = yield* of(DeadLetters).list({ limit: 10 })
      const { total } = yield* of(Activity).query({ limit: 10 })
      return { first, once, letter: letters.map(({ letter }) => letter), total, streams: yield* store.streams({ limit: 10 }), head: store.head() }
    })
    const before = yield* Effect.provideContext(fill, runtime)
    expect(Forgetting.forget(forgetting)).toBe(true)
    expect([store.head(), yield* store.streams({ limit: 10 }), yield* store.byId("same"), yield* store.read({ from: 1, limit: 9 })]).toEqual([0, [], [], []])
    expect([(yield* of(DeadLetters).list({ limit: 9 })).total, (yield* of(Activity).query({ limit: 9 })).total]).toEqual([0, 0])
    expect(yield* of(Idempotency).once({ principal: "owner", event: "a:b", key: "k" }, { other: 1 }, Effect.succeed("new"))).toBe("new")
    expect(Forgetting.forget(forgetting)).toBe(true)
    expect(yield* Effect.provideContext(fill, runtime)).toEqual(before)
  }))

  it.effect("one in which somebody was granted something is not: it says so", () => Effect.gen(function*() {
    const { forgetting, of } = yield* built
    yield* of(Permissions).grant({ by: "owner", principal: "ann", profile: "trusted" })
    expect(Forgetting.forget(forgetting)).toBe(false)
  }))

  it.effect("nothing is registered where nobody collects it", () => Effect.gen(function*() {
    expect(yield* Effect.exit(Forgetting.onForget(() => true))).toEqual(Exit.void)
    expect(yield* Forgetting.Forgetting).toBeUndefined()
  }))
})
