// Time that only goes forward. What is measured or waited for goes by it: the clock on the wall may be set in between, by
// a person, by NTP, or when a suspended machine wakes.
import type * as Clock from "effect/Clock"

/** Milliseconds since some moment before this process began. */
export const steadyMillis = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
