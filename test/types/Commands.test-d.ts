// Models: what an event cannot answer cannot be said of it, and the state is the same everywhere.
import { type Effect, Schema } from "effect"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as Commands from "../../src/testing/Commands.ts"
import * as KsiTest from "../../src/testing/KsiTest.ts"

class SoldOut extends Schema.TaggedError<SoldOut>()("SoldOut", { left: Schema.Int }) {}
const Order = Event.make("shop:order", { payload: { n: Schema.Int }, success: Schema.Struct({ id: Schema.String, n: Schema.Int }), error: SoldOut })
const Cancel = Event.make("shop:cancel", { payload: { id: Schema.String } })
const Ordered = Event.fact("shop:ordered", { payload: { n: Schema.Int }, streamId: () => "shop" })
const Shop = EventGroup.make(Order, Cancel, Ordered)
const Sum = Projection.make("sum", { events: [Ordered], state: Schema.Int, initial: 0, on: { "shop:ordered": (sum, { n }) => sum + n } })

const model = Commands.model(Shop, {
  initial: { left: 3, ids: [] as ReadonlyArray<string> },
  commands: {
    "shop:order": (state, { n }, must) => n > state.left
      ? must.fail("SoldOut")
      : must.replyLike({ n }, ({ id }) => ({ left: state.left - n, ids: [...state.ids, id] })),
    "shop:cancel": (state, { id }, must) => must.succeed({ ...state, ids: state.ids.filter((other) => other !== id) }),
    "shop:ordered": (_, { n }, must) => n > 9 ? must.beRefused("LimitExceeded") : must.succeed()
  },
  payloads: {
    "shop:order": (_, pick) => ({ n: pick([1, 2, 3]) }),
    "shop:cancel": ({ ids }, pick, made) => ({ id: pick([...ids, made.id]) })
  },
  states: ({ left }) => [KsiTest.stateOf(Sum, "shop", 3 - left)]
})
export const checked: Effect.Effect<void, KsiTest.ScenarioFailed, KsiTest.KsiTest> = Commands.check(model, { fibers: 2, seed: 1 })
export const lawful: Effect.Effect<void, KsiTest.ScenarioFailed, KsiTest.KsiTest> = Commands.check(Shop)

const initial = { left: 3 }
// @ts-expect-error it declares no such error
Commands.model(Shop, { initial, commands: { "shop:order": (_, __, must) => must.fail("SoldOt") } })
// @ts-expect-error it declares none
Commands.model(Shop, { initial, commands: { "shop:cancel": (_, __, must) => must.fail("SoldOut") } })
// @ts-expect-error the reply is another
Commands.model(Shop, { initial, commands: { "shop:order": (_, { n }, must) => must.reply({ n }) } })
// @ts-expect-error the reply has no such field
Commands.model(Shop, { initial, commands: { "shop:order": (_, { n }, must) => must.replyLike({ m: n }) } })
// @ts-expect-error the state is another
Commands.model(Shop, { initial, commands: { "shop:order": (_, __, must) => must.succeed({ right: 1 }) } })
// @ts-expect-error a fact has no reply
Commands.model(Shop, { initial, commands: { "shop:ordered": (_, { n }, must) => must.reply(n) } })
// @ts-expect-error the payload is another
Commands.model(Shop, { initial, commands: {}, payloads: { "shop:order": () => ({ m: 1 }) } })
// @ts-expect-error the group has no such event
Commands.model(Shop, { initial, commands: { "shop:orders": (_, __, must) => must.succeed() } })
// @ts-expect-error the state of the projection is a number
KsiTest.stateOf(Sum, "shop", "three")
