import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Schema } from "effect"
import * as Meter from "../../src/bus/Meter.ts"
import * as Router from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"

const exits = {
  success: Exit.void,
  failure: Exit.fail("no"),
  defect: Exit.die(new Error("no")),
  interrupted: Exit.interrupt(1)
} as const

describe("a tally", () => {
  it("counts each outcome, tells of the first of each, and puts durations where they belong", () => {
    const begun: Array<string> = []
    const tally = Meter.make(({ event }, series) => void begun.push(`${event} ${series}`)).of("a:b")
    for (const exit of Object.values(exits)) for (const millis of [0, 0.1, 0.11, 30_000, 1e9]) tally.ended(exit, millis)
    tally.stored()
    tally.stored()
    expect([tally.success, tally.failure, tally.defect, tally.interrupted, tally.facts]).toEqual([5, 5, 5, 5, 2])
    expect(begun).toEqual([...Object.keys(exits).map((kind) => `a:b ${kind}`), "a:b facts"])
    expect([tally.buckets[0], tally.buckets[1], tally.buckets[15], tally.buckets[16]]).toEqual([8, 4, 4, 4])
    expect(tally.buckets.reduce((sum, n) => sum + n, 0)).toBe(20)
    expect(tally.sum).toBeCloseTo(4 * (0.21 + 30_000 + 1e9))
  })

  it("takes what a cause mostly is: a failure before a defect, a defect before an interruption", () => {
    const tally = Meter.make(() => {}).of("a:b")
    const { defect, failure, interrupted } = exits
    const cause = (exit: Exit.Exit<unknown, unknown>) => Exit.isFailure(exit) ? exit.cause : Cause.empty
    tally.ended(Exit.failCause(Cause.combine(cause(defect), cause(failure))), 0)
    tally.ended(Exit.failCause(Cause.combine(cause(interrupted), cause(defect))), 0)
    expect([tally.failure, tally.defect, tally.interrupted]).toEqual([1, 1, 0])
  })
})

describe("a router that is made with a meter", () => {
  const Ask = Event.make("shop:ask", { payload: { n: Schema.Int }, success: Schema.Int })
  const Said = Event.fact("shop:said", { payload: { n: Schema.Int }, streamId: () => "shop" })
  const Shop = EventGroup.make(Ask, Said)
  const shop = Ksi.serve(Shop).pipe(Layer.provide(Shop.toLayer({ "shop:ask": ({ n }) => n > 0 ? Effect.succeed(n) : Effect.as(Effect.yieldNow, n) })))

  for (const audit of ["all", "off"] as const) {
    it.effect(`counts each request once by whichever way it goes, and each stored fact (audit ${audit})`, () => {
      const buried: Array<string> = []
      const meter = Meter.make(() => {}, (reason) => void buried.push(reason))
      return Effect.gen(function*() {
        const ksi = yield* Ksi
        // At once, after a wait, by name, behind a wrapping handler, with a payload that is none.
        yield* ksi.call(Ask, { n: 1 })
        yield* ksi.call(Ask, { n: 0 })
        yield* ksi.dispatch("shop:ask", { n: 1 })
        yield* Effect.scoped(Effect.andThen(Layer.build(Router.handle(Ask, () => Effect.succeed(1), { timeout: "1 second" })), ksi.call(Ask, { n: 0 })))
        yield* Effect.exit(ksi.dispatch("shop:ask", { n: "x" }))
        yield* Effect.exit(ksi.call(Ask, { n: 1.5 }))
        yield* Effect.exit(ksi.dispatch("shop:ask", { n: 1 }, { principal: "stranger" }))
        // The short way, by name, and one that is refused.
        yield* ksi.emit(Said, { n: 1 })
        yield* ksi.dispatch("shop:said", { n: 1 })
        yield* Effect.exit(ksi.dispatch("shop:said", { n: "x" }))
        yield* Effect.exit(ksi.dispatch("shop:nobody", {}))
        const [ask, said] = [meter.of("shop:ask"), meter.of("shop:said")]
        expect([ask.success, ask.failure, ask.defect, ask.interrupted, ask.facts]).toEqual([4, 3, 0, 0, 0])
        expect([said.success, said.failure, said.facts]).toEqual([0, 0, 2])
        expect(buried).toEqual([])
      }).pipe(
        Effect.provide(shop.pipe(Layer.provideMerge(Ksi.layerMemoryWith({ audit })), Layer.provide(Layer.succeed(Meter.Current, meter))))
      )
    })
  }
})
