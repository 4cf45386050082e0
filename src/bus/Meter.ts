/**
 * The port through which the bus counts: how often each event was asked and how that ended, how long it took, how often a
 * fact was stored, and what failed behind their backs. Nobody counts unless somebody asks (`ksi start` does).
 *
 * The rule: the counters of an event are found with the event, not looked up, and to count is to add to a field. Only what
 * is registered has counters of its own: what a client misspells is counted as one, whatever it is called.
 *
 * **Example**
 *
 * ```ts
 * const first: Array<string> = []
 * const meter = Meter.make(({ event }, series) => void first.push(`${event} ${series}`))
 * const tally = meter.of("stock:reserve")
 * tally.ended(Exit.void, 0.3)
 * tally.ended(Exit.void, 4)
 * tally.success                               // 2
 * first                                       // ["stock:reserve success"]
 * ```
 *
 * **Gotchas** The router takes the meter once, when it is made.
 */
import * as Context from "effect/Context"
import type * as Exit from "effect/Exit"
import { kindOf, type OutcomeKind } from "./Activity.ts"
import type { LetterReason } from "./DeadLetters.ts"

/** Upper bounds of the histogram of durations, in milliseconds; what is above the last is counted as well. */
export const boundaries: ReadonlyArray<number> =
  [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10_000, 30_000]

/** What is counted of one event. */
export type Series = OutcomeKind | "facts"

type Begun = (tally: Tally, series: Series) => void

/** The counters of one event. */
export class Tally {
  readonly event: string
  success = 0
  failure = 0
  defect = 0
  interrupted = 0
  /** How often the fact was stored. */
  facts = 0
  /** Of all durations, in milliseconds. */
  sum = 0
  /** How many durations were within each boundary and above the one before; the last: above all. */
  readonly buckets = new Float64Array(boundaries.length + 1)
  private readonly begun: Begun

  constructor(event: string, begun: Begun) {
    this.event = event
    this.begun = begun
  }

  /** A request has ended, after so many milliseconds. */
  ended(exit: Exit.Exit<unknown, unknown>, millis: number): void {
    const kind = exit._tag === "Success" ? "success" : kindOf(exit)
    if (this[kind]++ === 0) this.begun(this, kind)
    let at = 0
    while (millis > (boundaries[at] ?? Infinity)) at++
    this.buckets[at] = (this.buckets[at] ?? 0) + 1
    this.sum += millis
  }

  /** The fact was stored. */
  stored(): void {
    if (this.facts++ === 0) this.begun(this, "facts")
  }
}

/** What the bus counts with. */
export interface Meter {
  /** The counters of a registered event; the same for the same name. */
  readonly of: (event: string) => Tally
  /** Somebody from outside named an event that is not registered. */
  readonly unknown: () => void
  /** A reaction has failed, or was given up. */
  readonly buried: (reason: LetterReason) => void
}

/** The meter of the routers that are made in this context; none by default. */
export const Current: Context.Reference<Meter | undefined> = Context.Reference<Meter | undefined>("ksi/bus/Meter", {
  defaultValue: () => undefined
})

/** What stands for all events that are not registered. It is no event's name. */
export const other = "other"

/** A meter in memory. `begun` is told of each series when it is counted for the first time. */
export const make = (begun: Begun, buried: (reason: LetterReason) => void = () => {}): Meter => {
  const tallies = new Map<string, Tally>()
  const unknown = new Tally(other, begun)
  return {
    of: (event) => {
      const tally = tallies.get(event) ?? new Tally(event, begun)
      tallies.set(event, tally)
      return tally
    },
    unknown: () => {
      // It was answered from a look at a table: how long that took says nothing.
      if (unknown.failure++ === 0) begun(unknown, "failure")
    },
    buried
  }
}
