// Runs what a handler returned: an Effect as it is, a generator step by step. As long as the generator yields effects
// that are complete, no fiber operation is needed at all; from the first one that suspends, Effect takes over.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"

type Steps = Generator<Effect.Effect<unknown, unknown, unknown>, unknown, unknown>

const step = (steps: Steps, first: IteratorResult<Effect.Effect<unknown, unknown, unknown>, unknown>): Effect.Effect<unknown, unknown> => {
  let state = first
  for (;;) {
    if (state.done === true) return Exit.succeed(state.value)
    const yielded = state.value
    if (!Exit.isExit(yielded)) {
      // The handler runs in the context of its layer, which has what the yielded effect needs.
      return Effect.flatMap(yielded as Effect.Effect<unknown, unknown>, (value) => step(steps, steps.next(value)))
    }
    if (Exit.isFailure(yielded)) return Exit.failCause(yielded.cause)
    state = steps.next(yielded.value)
  }
}

const isSteps = (u: unknown): u is Steps => typeof u === "object" && u !== null && Symbol.iterator in u && "next" in u

/** The effect of a handler's result. Anything that is neither an Effect nor a generator is a defect. */
export const drive = (returned: unknown): Effect.Effect<unknown, unknown> => {
  // As above: its context is the handler's.
  if (Effect.isEffect(returned)) return returned as Effect.Effect<unknown, unknown>
  if (isSteps(returned)) return step(returned, returned.next())
  return Exit.die(new TypeError("a handler must return an Effect or be a generator method"))
}
