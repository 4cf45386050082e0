// Time that only goes forward. What is measured or waited for goes by it: the clock on the wall may be set in between, by
// a person, by NTP, or when a suspended machine wakes.
import type * as Clock from "effect/Clock"

/** Milliseconds since some moment before this process began. */
export const steadyMillis = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

// So long the clock on the wall is trusted to go on as it did: one that is set by less shifts what is left by less.
const trustedMillis = 100

/** As `steadyMillis`, for those who ask often: mostly by a look at the clock on the wall, which costs a quarter. */
export const makeSteady = (clock: Clock.Clock): () => number => {
  let from = Infinity
  let offset = 0
  return () => {
    const wall = clock.currentTimeMillisUnsafe()
    if (!(wall >= from && wall < from + trustedMillis)) {
      offset = steadyMillis(clock) - wall
      from = wall
    }
    return offset + wall
  }
}
