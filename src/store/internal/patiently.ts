// What works in the background while the store cannot be read or written: it waits, and tries again.
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { KsiError } from "../../event/KsiError.ts"

/** A little, and then longer. */
const pauses = Schedule.exponential("100 millis").pipe(
  Schedule.modifyDelay(({ duration }) => Effect.succeed(Duration.min(duration, Duration.seconds(30))))
)

/** Runs it until it succeeds; `troubled` hears each time why it did not. */
export const patiently = <A>(effect: Effect.Effect<A, KsiError>, troubled: (problem: string) => void): Effect.Effect<A> =>
  // The pauses have no end: no failure is left.
  Effect.orDie(effect.pipe(
    Effect.tapError((error) => Effect.sync(() => troubled(error.message))),
    Effect.retry(pauses)
  ))
