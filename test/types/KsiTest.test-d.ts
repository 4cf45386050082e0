// Scenarios: what a request does not declare cannot be expected of it.
import { Context, Effect, Layer, Schema } from "effect"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as KsiTest from "../../src/testing/KsiTest.ts"

class SoldOut extends Schema.TaggedError<SoldOut>()("SoldOut", { left: Schema.Int }) {}
const Order = Event.make("shop:order", { payload: { n: Schema.Int }, success: Schema.String, error: SoldOut })
const Ask = Event.make("shop:ask", { success: Schema.Int })
const Ordered = Event.fact("shop:ordered", { payload: { n: Schema.Int }, streamId: () => "shop" })
const Shop = EventGroup.make(Order, Ask, Ordered)
class Till extends Context.Service<Till, { readonly open: boolean }>()("shop/Till") {}
const app = Ksi.serve(Shop).pipe(Layer.provide(Shop.toLayer({
  *"shop:order"() {
    return (yield* Till).open ? "yes" : "no"
  },
  "shop:ask": () => Effect.succeed(1)
})))
const { scenario } = KsiTest

export const needsTill: Layer.Layer<KsiTest.KsiTest, never, Till> = KsiTest.layer(app)
export const needsNothing: Layer.Layer<KsiTest.KsiTest> = KsiTest.layer(Layer.provide(app, Layer.succeed(Till, { open: true })))
export const effect: Effect.Effect<void, KsiTest.ScenarioFailed, KsiTest.KsiTest> = scenario
  .given(Ordered.of({ n: 1 }))
  .when(Order, { n: 2 })
  .thenFails("SoldOut", ({ left }) => left === 1)
  .thenReplies("yes")
  .thenReplies((reply) => reply.length > 1)
  .thenRefused("PayloadInvalid", ({ problems }) => problems.length > 0)
  .thenEmits(Ordered.of({ n: 2 }))
  .thenAfter("1 second")
  .when(Ordered.of({ n: 3 }))
  .thenEmits()

const Open = Projection.make("open", {
  events: [Ordered], state: Schema.Struct({ is: Schema.Literals(["open", "closed"]) }), initial: { is: "open" }, on: { "shop:ordered": (state) => state }
})
// What is expected is of the state's type, and does not say what that is.
scenario.when(Order, { n: 2 }).thenState(Open, "shop", { is: "closed" }).thenState(Open, "shop", ({ is }) => is === "open")
// @ts-expect-error no such state
scenario.when(Order, { n: 2 }).thenState(Open, "shop", { is: "ajar" })
// @ts-expect-error it declares no such error
scenario.when(Order, { n: 2 }).thenFails("SoldOt")
// @ts-expect-error it declares none
scenario.when(Ask, {}).thenFails("SoldOut")
// @ts-expect-error the error has no such field
scenario.when(Order, { n: 2 }).thenFails("SoldOut", ({ right }) => right)
// @ts-expect-error KSI knows no such reason
scenario.when(Order, { n: 2 }).thenRefused("PayloadInvald")
// @ts-expect-error the payload is another
scenario.when(Order, { m: 2 })
// @ts-expect-error the reply is a text
scenario.when(Order, { n: 2 }).thenReplies(3)
// @ts-expect-error a fact is said, it replies nothing
scenario.when(Ordered.of({ n: 1 })).thenReplies("yes")
// @ts-expect-error nothing was asked yet
scenario.given(Ordered.of({ n: 1 })).thenEmits()
// @ts-expect-error a request is no history
scenario.given(Order)
// @ts-expect-error the mock replies otherwise
KsiTest.mock(Order, () => Effect.succeed(3))

export const together: Effect.Effect<void, KsiTest.ScenarioFailed, KsiTest.KsiTest> = scenario
  .withSeed(3)
  .givenCall(Ask, {})
  .whenTogether(KsiTest.ask(Order, ({ reply }) => ({ n: reply(Ask) })), [KsiTest.ask(Ask, {}), Ordered.of({ n: 1 })])
  .thenOneOf([{ reply: "yes" }, { reply: 1 }, { done: true }], [{ fails: "SoldOut" }, { replyLike: {} }, { refused: "LimitExceeded" }])
  .thenReactionFails(Ordered, (error) => error.length > 1)

// @ts-expect-error the payload is another
KsiTest.ask(Order, { m: 2 })
// @ts-expect-error what makes it makes another
KsiTest.ask(Order, ({ reply }) => ({ n: reply(Order) }))
// @ts-expect-error a fact has no reply
scenario.when(Order, ({ reply }) => ({ n: reply(Ordered) }))
// @ts-expect-error a request alone is not asked
scenario.whenTogether(Order)
// @ts-expect-error KSI knows no such reason
scenario.whenTogether(KsiTest.ask(Ask, {})).thenOneOf([{ refused: "PayloadInvald" }])
// @ts-expect-error a request has no reactions that are lost
scenario.when(Ask, {}).thenReactionFails(Ask)
