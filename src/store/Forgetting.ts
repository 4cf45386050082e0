/**
 * What the parts of a runtime in memory keep, taken back: for whoever begins anew without building it again, as a test does that
 * plays thousands of scenarios on one app.
 *
 * The rule: who keeps something in memory registers how to forget it, and says when it cannot. Without somebody who collects these,
 * nothing is registered.
 *
 * **Example**
 *
 * ```ts
 * const forgetting: Forgetting.All = []
 * const runtime = yield* Layer.build(Ksi.layerMemory).pipe(Effect.provideService(Forgetting.Forgetting, forgetting))
 * const store = Context.get(runtime, EventStore.EventStore)
 * yield* store.appendTo("cart-1", [{ name: "cart:opened" }])
 * const isNew = Forgetting.forget(forgetting)
 * [isNew, store.head()]                       // [true, 0]
 * ```
 *
 * **Gotchas** Only for a runtime at rest that nobody follows: positions begin at 1 again.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"

/** How each part forgets; `false` where it cannot. */
export type All = Array<() => boolean>

/** Where parts register; by default nowhere. */
export const Forgetting: Context.Reference<All | undefined> = Context.Reference<All | undefined>("ksi/store/Forgetting", {
  defaultValue: () => undefined
})

/** Registers how a part forgets. */
export const onForget = (forget: () => boolean): Effect.Effect<void> => Effect.map(Forgetting, (all) => void all?.push(forget))

/** Forgets everything; whether the runtime is as it was built. */
export const forget = (all: All): boolean => all.map((each) => each()).every((isForgotten) => isForgotten)
