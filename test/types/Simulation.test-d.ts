// Simulations: the program knows its daemons by name, and an app gets the runtime and the network, nothing else.
import { Context, Effect, Layer, Schema } from "effect"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as Simulation from "../../src/testing/Simulation.ts"

class SoldOut extends Schema.TaggedError<SoldOut>()("SoldOut", { left: Schema.Int }) {}
const Order = Event.make("shop:order", { payload: { n: Schema.Int }, success: Schema.String, error: SoldOut })
const Shop = EventGroup.make(Order)
class Till extends Context.Service<Till, { readonly open: boolean }>()("shop/Till") {}
const lacking = Ksi.serve(Shop).pipe(Layer.provide(Shop.toLayer({
  *"shop:order"() {
    yield* Simulation.Network
    return (yield* Till).open ? "yes" : "no"
  }
})))
const shop = Layer.provide(lacking, Layer.succeed(Till, { open: true }))

export const inferred: Effect.Effect<Simulation.Report<string>, Simulation.SimulationFailed> = Simulation.run({
  seed: 1, nodes: { shop, other: shop },
  program: ({ nodes: { other, shop }, partition }) => Effect.gen(function*() {
    yield* partition(["shop", "client"], ["other"])
    yield* other.kill
    return yield* shop.call(Order, { n: 1 })
  })
})
export const explored: Effect.Effect<number, Simulation.SimulationFailed> = Simulation.explore({ program: () => Effect.void })

// @ts-expect-error there is no such daemon
Simulation.run({ seed: 1, nodes: { shop }, program: ({ nodes: { chop } }) => chop.kill })
// @ts-expect-error nor in a partition
Simulation.run({ seed: 1, nodes: { shop }, program: ({ partition }) => partition(["client"], ["chop"]) })
// @ts-expect-error nobody provides the till
Simulation.run({ seed: 1, nodes: { lacking }, program: () => Effect.void })
// @ts-expect-error nor to the program
Simulation.run({ seed: 1, program: () => Till })
// @ts-expect-error the payload is another
Simulation.run({ seed: 1, nodes: { shop }, program: ({ nodes }) => nodes.shop.call(Order, { m: 1 }) })
// @ts-expect-error a run needs a seed
Simulation.run({ program: () => Effect.void })
