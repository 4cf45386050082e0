import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Schema, Stream } from "effect"
import { Activity } from "../../src/bus/Activity.ts"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { DeclaredFailure, KsiService } from "../../src/bus/KsiService.ts"
import { Router, serve } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as EventStore from "../../src/store/EventStore.ts"

const Double = Event.make("math:double", { payload: { n: Schema.Int }, success: Schema.Int })
const Doubled = Event.fact("math:doubled", { payload: { n: Schema.Int }, streamId: () => "math" })
const Maths = EventGroup.make(Double, Doubled)

const real = serve(Maths).pipe(
  Layer.provide(Maths.toLayer({
    *"math:double"({ n }) {
      const ksi = yield* KsiService
      yield* ksi.emit(Doubled, { n })
      return n * 2
    }
  })),
  Layer.provideMerge(Router.layer),
  Layer.provide(Subscriptions.layer),
  Layer.provide(Layer.mergeAll(EventStore.layerMemory, Activity.layerOff, DeadLetters.layerOff))
)

// The same program against another implementation of the tag: what "swap the layer" means.
const canned = Layer.succeed(KsiService, {
  call: () => Effect.succeed(4 as never),
  emit: () => Effect.succeed({ id: "1", streamId: "math", position: 1n, version: 1 }),
  stream: () => Stream.empty,
  subscribe: () => Stream.empty,
  dispatch: () => Effect.succeed({ kind: "value", value: 4 })
})

const program = Effect.gen(function*() {
  const ksi = yield* KsiService
  return yield* ksi.call(Double, { n: 2 })
})

describe("KsiService", () => {
  it.effect("one program, two layers, one answer", () =>
    Effect.gen(function*() {
      expect(yield* Effect.provide(program, real)).toBe(4)
      expect(yield* Effect.provide(program, canned)).toBe(4)
    }))

  it.effect("dispatch lets the definition decide between call and emit", () =>
    Effect.gen(function*() {
      const ksi = yield* KsiService
      expect(yield* ksi.dispatch("math:double", { n: 2 })).toEqual({ kind: "value", value: 4 })
      expect(yield* ksi.dispatch("math:doubled", { n: 2 })).toMatchObject({ kind: "fact", position: 2, version: 2 })
    }).pipe(Effect.provide(real)))
})

describe("DeclaredFailure", () => {
  it("keeps the error as JSON", () => {
    const failure = new DeclaredFailure({ event: "a:b", error: { _tag: "No", n: 1 }, message: "no" })
    expect(JSON.parse(JSON.stringify(failure))).toEqual({
      _tag: "DeclaredFailure", event: "a:b", error: { _tag: "No", n: 1 }, message: "no"
    })
  })
})
