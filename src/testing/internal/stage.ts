// What a scenario plays on: the app over a runtime of its own, in a world of its own, and an eye on everything that happens.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { Router } from "../../bus/Router.ts"
import { Subscriptions } from "../../bus/Subscription.ts"
import type { Delivery } from "../../event/Envelope.ts"
import type { KsiError } from "../../event/KsiError.ts"
import { Ksi, type Runtime } from "../../Ksi.ts"
import { ownStream } from "../../store/EventStore.ts"
import * as World from "../World.ts"

/** An app that has been started. */
export interface Stage {
  readonly world: World.World
  readonly services: Context.Context<Runtime>
  /** Everything since it began, in order; without what KSI says of itself. */
  readonly happened: ReadonlyArray<Delivery>
  /** Begins an effect in the world, and goes as far as it can; what is returned says whether it has ended since. */
  readonly begin: <A, E>(effect: Effect.Effect<A, E, Runtime>) => Effect.Effect<() => Exit.Exit<A, E> | undefined>
  /** Runs an effect in the world until it ends; `undefined` where it waits for the clock, or for something that does not come. */
  readonly play: <A, E>(effect: Effect.Effect<A, E, Runtime>) => Effect.Effect<Exit.Exit<A, E> | undefined>
  readonly end: Effect.Effect<void>
}

// How many turns of the event loop the outside has to answer: few where somebody sleeps, who is most likely what is waited for.
const turns = { awake: 20_000, asleep: 20 } as const

/** Lets the world and what is outside of it take turns until this is done, or nothing comes any more. */
const drive = (world: World.World, isDone: () => boolean): Effect.Effect<void> =>
  Effect.callback((resume) => {
    let turn: NodeJS.Immediate | undefined
    let taken = 0
    const go = (): void => {
      // What goes on for ever would do so in each turn.
      if (world.settle() === "steps" || isDone() || taken++ >= (world.due() === undefined ? turns.awake : turns.asleep)) return resume(Effect.void)
      turn = setImmediate(go)
    }
    go()
    return Effect.sync(() => clearImmediate(turn))
  })

const beginIn = (world: World.World) => <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<() => Exit.Exit<A, E> | undefined> =>
  Effect.suspend(() => {
    const fiber = world.fork(effect)
    const poll = () => fiber.pollUnsafe()
    return Effect.as(drive(world, () => poll() !== undefined), poll)
  })

/** Notes down everything that happens. */
const watch = Effect.fnUntraced(function*(happened: Array<Delivery>) {
  const { open } = yield* Subscriptions
  const { next } = yield* open("*", { requests: true })
  yield* Effect.forkScoped(Effect.forever(Effect.map(next, (deliveries) => {
    for (const delivery of deliveries) if (!ownStream(delivery.metadata.streamId ?? "")) happened.push(delivery)
  })))
})

/** Starts an app in a world; what it finds outside of the runtime is `outside`. */
export const make = <E>(
  app: Layer.Layer<never, E, Runtime>,
  outside: Context.Context<never>,
  options: World.Options
): Effect.Effect<Stage, E | KsiError> =>
  Effect.gen(function*() {
    const world = World.make(options)
    const begin = beginIn(world)
    const play = <A, E>(effect: Effect.Effect<A, E>) => Effect.map(begin(effect), (poll) => poll())
    const scope = Scope.makeUnsafe()
    const happened: Array<Delivery> = []
    const building = Effect.gen(function*() {
      const services = yield* Layer.build(Layer.fresh(app.pipe(Layer.provideMerge(Ksi.layerMemory), Layer.provide(Layer.succeedContext(outside)))))
      yield* Effect.provideContext(watch(happened), services)
      return services
    })
    const built = yield* play(Scope.provide(building, scope))
    if (built === undefined) return yield* Effect.die(new Error("the app does not start: it waits for the clock, or for something outside"))
    const services = yield* built
    return {
      world, services, happened,
      begin: (effect) => begin(Effect.provideContext(effect, services)),
      play: (effect) => play(Effect.provideContext(effect, services)),
      end: Effect.asVoid(play(Scope.close(scope, Exit.void)))
    }
  })

/** Waits until every reaction to what was said has ended, or waits for the clock. */
export const settled = ({ play }: Stage): Effect.Effect<void> =>
  Effect.asVoid(play(Effect.flatMap(Router, (router) => router.settled)))
