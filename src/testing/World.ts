/**
 * A world of its own for effects: its tasks run in an order that a seed chooses, its clock stands still until somebody moves it,
 * its random numbers are the seed's. The same seed makes the same run, step for step.
 *
 * The rule: nothing in it depends on anything outside. A fiber that is in it gives way between any two steps, where the seed says
 * so, and which of those that could go on goes on next is the seed's choice too; so an order in which something goes wrong is found,
 * and found again.
 *
 * **Example**
 *
 * ```ts
 * const order = (seed: number) => {
 *   const heard: Array<string> = []
 *   const say = (name: string) => Effect.andThen(Effect.yieldNow, Effect.sync(() => heard.push(name)))
 *   World.make({ seed }).run(Effect.all(["a", "b", "c", "d"].map(say), { concurrency: "unbounded" }))
 *   return heard.join("")
 * }
 * order(1) === order(1)                       // true
 * new Set([1, 2, 3, 4, 5].map(order)).size > 1 // true
 * ```
 *
 * **Gotchas** What waits for something outside (a promise, a timer of node, a socket) does not go on while the world runs: to the
 * world it stands still. `idle` says so, and whoever drives the world may let the outside happen and run it again.
 *
 * Source: seed section 11; deterministic simulation as in FoundationDB and TigerBeetle.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Scheduler from "effect/Scheduler"
import { chance } from "./internal/chance.ts"

// ------------------------------------------------------------------------------------------------------------- models

/** How a world is made. */
export interface Options {
  /**
   * Chooses the order and the random numbers. Without one the order is that of arrival, nobody gives way unasked, and random numbers
   * are those of the seed 0.
   */
  readonly seed?: number | undefined
  /** When it begins, in milliseconds since 1970. Default: 0. */
  readonly startAt?: number | undefined
  /** `arrival`: first come, first served, and nobody gives way unasked; a seed makes the random numbers only. Default: `seeded`, where there is a seed. */
  readonly order?: "seeded" | "arrival" | undefined
  /** How often a fiber gives way between two steps, from 0 to 1. Default: 0.1 where there is a seed. */
  readonly preemption?: number | undefined
}

/** Why it goes no further: nobody can go on without the clock, or it has run ten million steps and would go on for ever. */
export type Stopped = "idle" | "steps"

/**
 * Fibers that can be stopped dead together, as a process is by SIGKILL: none of them takes another step, and no finalizer runs.
 */
export interface Process {
  /** Puts an effect into the process, and so into its world. */
  readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  readonly kill: () => void
  readonly isAlive: () => boolean
}

/** A world. */
export interface World {
  /** Milliseconds since 1970. */
  readonly now: () => number
  /** Tasks that have run. */
  readonly steps: () => number
  /**
   * When the next of those that sleep is due; `undefined` where nobody does. Who sleeps for ever is never due. `counts` says of the
   * milliseconds that somebody sleeps whether that one is asked for.
   */
  readonly due: (counts?: (millis: number) => boolean) => number | undefined
  /** Puts an effect into the world; it goes on when the world runs. */
  readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  /** `fork` for effects that need these services; make it once for many of them. */
  readonly forkWith: <R>(services: Context.Context<R>) => <A, E>(effect: Effect.Effect<A, E, R>) => Fiber.Fiber<A, E>
  /** Makes a process of its own in this world. */
  readonly process: () => Process
  /** Runs until nobody can go on without the clock, or so many steps. */
  readonly settle: (maxSteps?: number) => Stopped
  /**
   * Moves the clock forward; whoever wakes meanwhile goes on at its own time, and those of one instant in the order that the seed says.
   * It stands still where so many steps were taken.
   */
  readonly advance: (millis: number, maxSteps?: number) => void
  /** Goes back to its beginning: clock, order and numbers are as at first. `false` where somebody sleeps or could go on. */
  readonly rewind: () => boolean
  /**
   * Runs an effect to its end, and the clock with it. `undefined` when it waits for something that never comes, or has not ended after
   * so many steps.
   */
  readonly run: <A, E>(effect: Effect.Effect<A, E>, maxSteps?: number) => Exit.Exit<A, E> | undefined
}

/** The random numbers of a seed, which can begin anew. */
class Numbers implements Context.Service.Shape<typeof Random.Random> {
  private readonly seed: number
  private next: () => number

  constructor(seed: number) {
    this.seed = seed
    this.next = chance(seed)
  }

  rewind(): void {
    this.next = chance(this.seed)
  }

  nextDoubleUnsafe(): number {
    return this.next()
  }

  nextIntUnsafe(): number {
    return Math.floor(this.next() * (Number.MAX_SAFE_INTEGER - Number.MIN_SAFE_INTEGER + 1)) + Number.MIN_SAFE_INTEGER
  }
}

// ----------------------------------------------------------------------------------------------------------- schedule

type Task = () => void

/** What could go on, in the order of arrival; of equal priority the seed chooses. */
class Schedule implements Scheduler.Scheduler {
  readonly executionMode = "async"
  private readonly tasks: Array<{ readonly task: Task; readonly priority: number }> = []
  private readonly seed: number | undefined
  private next: (() => number) | undefined
  private readonly preemption: number

  constructor(seed: number | undefined, preemption: number) {
    this.seed = seed
    this.next = seed === undefined ? undefined : chance(seed)
    this.preemption = preemption
  }

  get isIdle(): boolean {
    return this.tasks.length === 0
  }

  rewind(): void {
    this.next = this.seed === undefined ? undefined : chance(this.seed)
  }

  shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    if (this.next !== undefined && this.next() < this.preemption) return true
    return fiber.currentOpCount >= 2048
  }

  makeDispatcher(): Scheduler.SchedulerDispatcher {
    return {
      scheduleTask: (task, priority) => void this.tasks.push({ task, priority }),
      // Somebody wants an answer at once, as `runSync` does.
      flush: () => {
        while (this.step()) { /* all that can */ }
      }
    }
  }

  /** Runs one task; whether there was one. */
  step(): boolean {
    const { tasks } = this
    if (tasks.length === 0) return false
    let least = Infinity
    for (const { priority } of tasks) if (priority < least) least = priority
    const first = tasks.findIndex(({ priority }) => priority === least)
    let at = first
    if (this.next !== undefined && tasks.length > 1) {
      const open = tasks.flatMap(({ priority }, index) => priority === least ? [index] : [])
      at = open[Math.floor(this.next() * open.length)] ?? first
    }
    const [chosen] = tasks.splice(at, 1)
    chosen?.task()
    return true
  }
}

/** The schedule of a process: what it could do goes into that of the world, and nothing of it is done once it is dead. */
class Mortal implements Scheduler.Scheduler {
  readonly executionMode = "async"
  isAlive = true
  private readonly schedule: Schedule

  constructor(schedule: Schedule) {
    this.schedule = schedule
  }

  shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    // Who gives way once it is dead does not come back.
    return !this.isAlive || this.schedule.shouldYield(fiber)
  }

  makeDispatcher(): Scheduler.SchedulerDispatcher {
    const { flush, scheduleTask } = this.schedule.makeDispatcher()
    const mortal = (task: Task) => () => {
      if (this.isAlive) task()
    }
    return { scheduleTask: (task, priority) => scheduleTask(mortal(task), priority), flush }
  }
}

// -------------------------------------------------------------------------------------------------------------- clock

/** A clock that only `advance` moves. */
class StillClock implements Clock.Clock {
  private millis: number
  private readonly sleepers: Array<{ readonly due: number; readonly millis: number; readonly wake: () => void }> = []
  private readonly schedule: (task: Task) => void

  constructor(startAt: number, schedule: (task: Task) => void) {
    this.millis = startAt
    this.schedule = schedule
  }

  /** With its fractions. */
  get now(): number {
    return this.millis
  }
  // As any clock has them: whole.
  currentTimeMillisUnsafe(): number {
    return Math.floor(this.millis)
  }
  currentTimeNanosUnsafe(): bigint {
    return BigInt(Math.round(this.millis * 1_000_000))
  }
  monotonicTimeNanosUnsafe(): bigint {
    return this.currentTimeNanosUnsafe()
  }
  readonly currentTimeMillis = Effect.sync(() => this.currentTimeMillisUnsafe())
  readonly currentTimeNanos = Effect.sync(() => this.currentTimeNanosUnsafe())
  readonly monotonicTimeNanos = Effect.sync(() => this.currentTimeNanosUnsafe())

  sleep(duration: Duration.Duration): Effect.Effect<void> {
    const millis = Duration.toMillis(duration)
    if (millis <= 0) return Effect.yieldNow
    if (millis === Infinity) return Effect.never
    return Effect.callback((resume) => {
      const sleeper = { due: this.millis + millis, millis, wake: () => resume(Effect.void) }
      // After those that wake at the same time.
      const after = this.sleepers.findIndex(({ due }) => due > sleeper.due)
      this.sleepers.splice(after < 0 ? this.sleepers.length : after, 0, sleeper)
      return Effect.sync(() => {
        const at = this.sleepers.indexOf(sleeper)
        if (at >= 0) this.sleepers.splice(at, 1)
      })
    })
  }

  rewind(startAt: number): void {
    this.millis = startAt
  }

  due(counts: (millis: number) => boolean = () => true): number | undefined {
    return this.sleepers.find(({ millis }) => counts(millis))?.due
  }

  /** Goes to a time, but no further than to the next who is due by then, and wakes all who are due with it; whether there was one. */
  goTo(millis: number): boolean {
    const due = this.due()
    if (due === undefined || due > millis) {
      this.millis = Math.max(this.millis, millis)
      return false
    }
    this.millis = Math.max(this.millis, due)
    const later = this.sleepers.findIndex((sleeper) => sleeper.due > due)
    // As tasks: which of them goes on first is chosen as it always is.
    for (const { wake } of this.sleepers.splice(0, later < 0 ? this.sleepers.length : later)) this.schedule(wake)
    return true
  }
}

// ---------------------------------------------------------------------------------------------------------------- make

const endless = 10_000_000

/** Makes a world. */
export const make = ({ order = "seeded", preemption, seed, startAt = 0 }: Options = {}): World => {
  const schedule = order === "arrival" || seed === undefined ? new Schedule(undefined, 0) : new Schedule(seed, preemption ?? 0.1)
  const numbers = new Numbers(~(seed ?? 0))
  const dispatcher = schedule.makeDispatcher()
  const clock = new StillClock(startAt, (wake) => dispatcher.scheduleTask(wake, 0))
  const own = Context.make(Scheduler.Scheduler, schedule).pipe(
    Context.add(Clock.Clock, clock),
    Context.add(Random.Random, numbers)
  )
  let steps = 0

  // What a fiber reads of its context is looked up once for each context, and not once for each fiber.
  const forkWith = <R>(services: Context.Context<R>) => {
    const run = Effect.runForkWith(Context.merge(own, services))
    return <A, E>(effect: Effect.Effect<A, E, R>): Fiber.Fiber<A, E> => run(effect)
  }
  const process = (): Process => {
    const mortal = new Mortal(schedule)
    const run = Effect.runForkWith(Context.add(own, Scheduler.Scheduler, mortal))
    return { fork: (effect) => run(effect), isAlive: () => mortal.isAlive, kill: () => void (mortal.isAlive = false) }
  }

  /** Runs until nobody can go on, it is done, or so many steps. */
  const go = (maxSteps: number, isDone: () => boolean): Stopped | "done" => {
    for (let left = maxSteps; left > 0; left--) {
      if (isDone()) return "done"
      if (!schedule.step()) return "idle"
      steps++
    }
    return "steps"
  }
  const settle = (maxSteps = endless): Stopped => go(maxSteps, () => false) === "steps" ? "steps" : "idle"

  const advance = (millis: number, maxSteps = endless): void => {
    const end = clock.now + millis
    const last = steps + maxSteps
    // What goes on for ever at one instant lets no time pass.
    while (settle(last - steps) === "idle" && clock.goTo(end)) { /* the next who is due */ }
  }

  const run = <A, E>(effect: Effect.Effect<A, E>, maxSteps = endless): Exit.Exit<A, E> | undefined => {
    const fiber = forkWith(Context.empty())(effect)
    const last = steps + maxSteps
    for (;;) {
      const stopped = go(last - steps, () => fiber.pollUnsafe() !== undefined)
      const due = clock.due()
      if (stopped !== "idle" || due === undefined) return fiber.pollUnsafe()
      clock.goTo(due)
    }
  }
  const rewind = (): boolean => {
    if (!schedule.isIdle || clock.due() !== undefined) return false
    schedule.rewind()
    numbers.rewind()
    clock.rewind(startAt)
    return true
  }
  return {
    now: () => clock.now, steps: () => steps, due: (counts) => clock.due(counts),
    fork: forkWith(Context.empty()), forkWith, process, settle, advance, run, rewind
  }
}
