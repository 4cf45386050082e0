/** What the checks of the arena are made of. None of them knows the bugs: each holds promises of KSI, in many seeds. */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Layer from "effect/Layer"
import type { Runtime } from "../../../../src/Ksi.ts"
import * as Simulation from "../../../../src/testing/Simulation.ts"

/** Something that KSI promises. */
export interface Check {
  readonly name: string
  /** How many seeds it is tried with. */
  readonly seeds: number
  /** One run; fails where the promise is broken. */
  readonly run: (seed: number, order: "seeded" | "arrival") => Effect.Effect<unknown, Simulation.SimulationFailed>
}

/** A promise that was broken. */
export class Broken extends Data.TaggedError("Broken")<{ readonly message: string }> {}

/** Breaks off where something does not hold. */
export const must = (holds: boolean, message: string): Effect.Effect<void, Broken> => holds ? Effect.void : Effect.fail(new Broken({ message }))

/** Breaks off where two things are not the same, as JSON. */
export const same = (what: string, actual: unknown, expected: unknown): Effect.Effect<void, Broken> => {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)]
  return must(a === b, `${what}: expected ${b}, got ${a}`)
}

/** A number from 0 and below `n`, of the seed. */
export const below = (n: number): Effect.Effect<number> => Random.nextIntBetween(0, n - 1)

/** One of these, of the seed. */
export const oneOf = <A>(items: readonly [A, ...ReadonlyArray<A>]): Effect.Effect<A> => Effect.map(below(items.length), (index) => items[index] ?? items[0])

/** A pause of 0 to `millis`. */
export const pause = (millis: number): Effect.Effect<void> => Effect.flatMap(below(millis + 1), Effect.sleep)

/** 0, 1, … */
export const upTo = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index)

/** All at once. */
export const together = { concurrency: "unbounded" } as const

/** An app as a daemon serves it. */
export type App = Layer.Layer<never, unknown, Runtime | Simulation.Network>

/** A run that goes on for ever is stopped soon: none of these takes a fifth of so many steps where all is well. */
export const simulate: typeof Simulation.run = (options) => Simulation.run({ maxSteps: 5000, ...options })
