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
