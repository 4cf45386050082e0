// The turns of the event loop, as the store's surroundings have them: in a simulation they are the simulation's.
import * as Effect from "effect/Effect"
import * as Scheduler from "effect/Scheduler"

/** Runs something in the next turn. */
export type NextTurn = (task: () => void) => void

/** Of the scheduler that the store is built under. */
export const nextTurn: Effect.Effect<NextTurn> = Effect.map(Scheduler.Scheduler, (scheduler) => {
  const dispatcher = scheduler.makeDispatcher()
  return (task) => dispatcher.scheduleTask(task, 0)
})

/** How long a fold may hold a turn, in milliseconds: what comes in meanwhile waits for so long. */
const longMillis = 8
/** Of so many steps one looks at the clock: most steps take no longer than that. */
const stepsPerLook = 4

/** Work of many steps in one fiber, of which nobody knows beforehand how long a step takes. */
export interface Pace {
  /** Whether this turn has lasted long enough; to be asked after each step. */
  readonly isLong: () => boolean
  /** Lets others have their turn, also one that interrupts. */
  readonly rest: Effect.Effect<void>
}

/** The pace of work that begins now. */
export const pace: Effect.Effect<Pace> = Effect.clockWith((clock) =>
  Effect.sync(() => {
    let began = clock.currentTimeMillisUnsafe()
    let steps = 0
    // A clock that is set back must not end the turns.
    const isLong = () => ++steps % stepsPerLook === 0 && Math.abs(clock.currentTimeMillisUnsafe() - began) >= longMillis
    const begin = Effect.sync(() => void (began = clock.currentTimeMillisUnsafe()))
    return { isLong, rest: Effect.andThen(Effect.yieldNow, begin) }
  }))

/** Maps many items, in as many turns as it takes. */
export const mapped = Effect.fnUntraced(function*<A, B>(items: Iterable<A>, map: (item: A) => B): Effect.fn.Return<ReadonlyArray<B>> {
  const { isLong, rest } = yield* pace
  const answers: Array<B> = []
  for (const item of items) {
    answers.push(map(item))
    if (isLong()) yield* rest
  }
  return answers
})
