// What a scenario plays on: the app over a runtime of its own, in a world of its own, and an eye on everything that happens.
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Scope from "effect/Scope"
import { Router } from "../../bus/Router.ts"
import { Subscriptions } from "../../bus/Subscription.ts"
import type { Delivery } from "../../event/Envelope.ts"
import type { KsiError } from "../../event/KsiError.ts"
import { Limits } from "../../event/Limits.ts"
import { Ksi, type Runtime } from "../../Ksi.ts"
import { ownStream } from "../../store/EventStore.ts"
import * as Forgetting from "../../store/Forgetting.ts"
import * as World from "../World.ts"

/** Why it goes no further: all is done, nothing comes from outside any more, or it goes on for ever. */
export type Stopped = "done" | "quiet" | "endless"

/** What an effect that was begun came to, as soon as it has. */
export type Poll<A, E> = () => Exit.Exit<A, E> | undefined

/** An app that has been started. */
export interface Stage {
  readonly world: World.World
  readonly services: Context.Context<Runtime>
  /** Everything since it began, in order; without what KSI says of itself. */
  readonly happened: ReadonlyArray<Delivery>
  /** Puts an effect into the world. */
  readonly begin: <A, E>(effect: Effect.Effect<A, E, Runtime>) => Poll<A, E>
  /** Runs an effect in the world until it ends; `undefined` where it waits for the clock, or for something that does not come. */
  readonly play: <A, E>(effect: Effect.Effect<A, E, Runtime>) => Effect.Effect<Exit.Exit<A, E> | undefined>
  /** Goes on until this has answered and every reaction has ended, or nothing comes any more. */
  readonly rest: (hasAnswered: () => boolean) => Effect.Effect<Stopped>
  /** As `rest`, and lets time pass for whoever sleeps: an hour at most. */
  readonly restOn: (hasAnswered: () => boolean) => Effect.Effect<Stopped>
  /** When the next is due who sleeps; the bound that KSI gives every reaction is nobody who sleeps. */
  readonly due: () => number | undefined
  /** Ends the app; whether it has ended. */
  readonly end: Effect.Effect<boolean>
  /**
   * Makes it as new, but for what the app keeps itself: KSI has forgotten everything, and time and order begin again. `false` where
   * something is left that goes on, or cannot be forgotten: then it is of no use any more.
   */
  readonly renew: () => boolean
}

/** How an app is started. */
export interface Options extends World.Options {
  /** Whether nothing of it is logged. Its steps are the same. */
  readonly isQuiet?: boolean | undefined
  /** How many pauses of a millisecond the outside has to come up with something. */
  readonly patience: number
}

// What goes on without the clock for longer than this goes on for ever.
const endless = 1_000_000
// So many turns of the event loop are given even where all is done: promises that are resolved already enter in them.
const turns = 10

/** Turns of the event loop, with a look after each, until there is something to say or it may turn no more. */
const turning = <A>(look: () => A | undefined, mayTurn: () => boolean): Effect.Effect<A | undefined> =>
  Effect.callback((resume) => {
    const turn = (): void => {
      try {
        const found = look()
        if (found === undefined && mayTurn()) immediate = setImmediate(turn)
        else resume(Effect.succeed(found))
      } catch (defect) {
        resume(Effect.die(defect))
      }
    }
    let immediate = setImmediate(turn)
    return Effect.sync(() => clearImmediate(immediate))
  })
// The outside has real time, whatever clock the scenario itself runs under. Pauses are counted, and not milliseconds: where the
// machine is busy each takes longer, for both sides.
const pause = Context.get(Context.empty(), Clock.Clock).sleep(Duration.millis(1))

/** Lets the world and what is outside of it take turns until this is done, or nothing has come for as long as patience lasts. */
const drive = Effect.fnUntraced(function*(world: World.World, isDone: () => boolean, patience: number, linger: number) {
  let taken = 0
  const look = (): Stopped | undefined => {
    const before = world.steps()
    const stopped = world.settle(endless)
    if (world.steps() > before) taken = 0
    const done = isDone()
    if (stopped === "steps") return done && linger === 0 ? "done" : "endless"
    if (done && taken >= linger) return "done"
    if (!done && taken >= turns + patience) return "quiet"
    taken++
    return undefined
  }
  const mayTurn = () => taken <= turns
  let stopped = look()
  while (stopped === undefined) stopped = yield* mayTurn() ? turning(look, mayTurn) : Effect.map(pause, look)
  return stopped
})

const hour = 3_600_000
// Where somebody sleeps, the outside has this much before the clock goes on: here nobody asks what happens when.
const whereSomebodySleeps = 50

/** As `drive`, and lets time pass for whoever sleeps: an hour at most. */
const driveOn = Effect.fnUntraced(function*(world: World.World, due: Stage["due"], isDone: () => boolean, patience: number, linger: number) {
  const last = world.now() + hour
  for (;;) {
    world.settle(endless)
    const stopped = yield* drive(world, isDone, due() === undefined ? patience : Math.min(patience, whereSomebodySleeps), linger)
    const next = world.due()
    if (stopped !== "quiet" || next === undefined || next > last) return stopped
    world.advance(next - world.now())
  }
})

const polled = <A, E>(fiber: Fiber.Fiber<A, E>): Poll<A, E> => () => fiber.pollUnsafe()

/** Notes down everything that happens. */
const watch = Effect.fnUntraced(function*(happened: Array<Delivery>) {
  const { open } = yield* Subscriptions
  const { next } = yield* open("*", { requests: true })
  yield* Effect.forkScoped(Effect.forever(Effect.map(next, (deliveries) => {
    for (const delivery of deliveries) if (!ownStream(delivery.metadata.streamId ?? "")) happened.push(delivery)
  })))
})

// What an eye on what happens holds without reading on.
const fewEnough = 256
const noLoggers: ReadonlySet<Logger.Logger<unknown, unknown>> = new Set()

/** Starts an app in a world; what it finds outside of the runtime is `outside`. */
export const make = <E>(
  app: Layer.Layer<never, E, Runtime>,
  outside: Context.Context<never>,
  { isQuiet = false, patience, ...options }: Options
): Effect.Effect<Stage, E | KsiError> =>
  Effect.gen(function*() {
    const world = World.make(options)
    const around = isQuiet ? Context.add(outside, Logger.CurrentLoggers, noLoggers) : outside
    const play = <A, E>(begin: () => Poll<A, E>) =>
      Effect.suspend(() => {
        const poll = begin()
        return Effect.map(drive(world, () => poll() !== undefined, patience, 0), poll)
      })
    const scope = Scope.makeUnsafe()
    const happened: Array<Delivery> = []
    const forgetting: Forgetting.All = []
    const building = Effect.gen(function*() {
      const services = yield* Layer.build(Layer.fresh(app.pipe(Layer.provideMerge(Ksi.layerMemory), Layer.provide(Layer.succeedContext(around))))).pipe(
        Effect.provideService(Forgetting.Forgetting, forgetting))
      yield* Effect.provideContext(watch(happened), services)
      return isQuiet ? Context.add(services, Logger.CurrentLoggers, noLoggers) : services
    })
    const end = Effect.suspend(() => {
      const poll = polled(world.fork(Scope.close(scope, Exit.void)))
      return Effect.map(driveOn(world, world.due, () => poll() !== undefined, patience, 0), () => poll() !== undefined)
    })
    const built = yield* play(() => polled(world.fork(Scope.provide(building, scope))))
    if (built === undefined || Exit.isFailure(built)) yield* end
    if (built === undefined) return yield* Effect.die(new Error("the app does not start: it waits for the clock, or for something outside"))
    const services = yield* built
    const { factHandlerMillis } = Context.get(services, Limits)
    const forkWith = world.forkWith(services)
    const open = new Set<unknown>()
    const begin: Stage["begin"] = (effect) => {
      const fiber = forkWith(effect)
      if (fiber.pollUnsafe() === undefined) {
        open.add(fiber)
        fiber.addObserver(() => open.delete(fiber))
      }
      return polled(fiber)
    }
    const due = () => world.due((millis) => millis !== factHandlerMillis)
    const { isSettled } = Context.get(services, Router)
    const { count } = Context.get(services, Subscriptions)
    const renew = (): boolean => {
      // What was begun may wait for something outside. One who follows has its place, and so has the eye on what happens once it had
      // to read on.
      const isAlone = open.size === 0 && isSettled() && count() === 1 && happened.length < fewEnough
      if (!isAlone || !world.rewind() || !Forgetting.forget(forgetting)) return false
      happened.length = 0
      return true
    }
    return {
      world, services, happened, begin, end, renew,
      play: (effect) => play(() => begin(effect)),
      due,
      rest: (hasAnswered) => drive(world, () => hasAnswered() && isSettled(), patience, turns),
      restOn: (hasAnswered) => driveOn(world, due, () => hasAnswered() && isSettled(), patience, turns)
    }
  })

const keptApps = 4

/** Starts apps, and hands one that has ended as new to the next who asks; `close` ends those that are left. */
export const reusing = <E, R>(start: Effect.Effect<Stage, E, R>): { readonly start: Effect.Effect<Stage, E, R>; readonly close: Effect.Effect<void> } => {
  const free: Array<Stage> = []
  const lend = (stage: Stage): Stage => ({
    ...stage,
    end: Effect.suspend(() => {
      if (free.length >= keptApps || !stage.renew()) return stage.end
      free.push(stage)
      return Effect.succeed(true)
    })
  })
  return {
    start: Effect.suspend(() => {
      const stage = free.pop()
      return stage === undefined ? Effect.map(start, lend) : Effect.succeed(lend(stage))
    }),
    close: Effect.suspend(() => Effect.forEach(free.splice(0), ({ end }) => end, { discard: true }))
  }
}
