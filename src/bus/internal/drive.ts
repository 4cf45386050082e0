// Runs what a handler returned: an Effect as it is, a generator step by step. As long as the generator yields effects
// that are complete, no fiber operation is needed at all; from the first one that suspends, Effect takes over.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { Envelope } from "../../event/Envelope.ts"
import type { HandlerEntry } from "../../event/EventGroup.ts"
import { Current } from "../Causation.ts"

/** Something that runs in the context its fiber has. */
export type Run = Effect.Effect<unknown, unknown>
/** How it ended. */
export type AnyExit = Exit.Exit<unknown, unknown>
/** A fiber, whatever it does. */
export type AnyFiber = Fiber.Fiber<unknown, unknown>

type Steps = Generator<Effect.Effect<unknown, unknown, unknown>, unknown, unknown>
type Step = IteratorResult<Effect.Effect<unknown, unknown, unknown>, unknown>

/** Steps of a generator before others run: as many as Effect's own loop takes, or one that never suspends holds the process. */
export const stepsPerTurn = 2048

/** Runs a generator on, from a step that it has taken. */
export const carryOn = (generator: Steps, first: Step): Run => {
  let state = first
  for (let n = 0; n < stepsPerTurn; n++) {
    if (state.done === true) return Exit.succeed(state.value)
    const yielded = state.value
    if (!Exit.isExit(yielded)) {
      if (!Effect.isEffect(yielded)) return Exit.die(new TypeError("a handler must yield effects"))
      // The handler runs in the context of its layer, which has what the yielded effect needs.
      return Effect.flatMap(yielded as Run, (value) => carryOn(generator, generator.next(value)))
    }
    if (Exit.isFailure(yielded)) return Exit.failCause(yielded.cause)
    state = generator.next(yielded.value)
  }
  return letOthersRun(generator, state)
}

/** `carryOn`, after others have run. */
export const letOthersRun = (generator: Steps, state: Step): Run => Effect.flatMap(Effect.yieldNow, () => carryOn(generator, state))

const isSteps = (u: unknown): u is Steps => typeof u === "object" && u !== null && typeof (u as Partial<Steps>).next === "function" // of any object

/** What a handler returned, as an effect; complete at once where it is. */
export const drive = (returned: unknown): Run => {
  // Generators first: they are the most, and asking them what they are not costs as much as running them.
  if (isSteps(returned)) return carryOn(returned, returned.next())
  // As above: its context is the handler's.
  if (Effect.isEffect(returned)) return returned as Run
  return Exit.die(new TypeError("a handler must return an Effect or be a generator method"))
}

/** What a handler does with an envelope; complete at once where the handler is. Needs the handler's context. */
export const start = (handler: HandlerEntry, envelope: Envelope): Run => {
  try {
    return drive(handler.run(envelope.data, envelope))
  } catch (defect) {
    return Exit.die(defect)
  }
}

// Told by its prototype: to ask whatever is yielded for a property costs as much as the rest of a step.
const success: unknown = Object.getPrototypeOf(Exit.void)
const isDone = (u: unknown): u is Exit.Success<unknown> => typeof u === "object" && u !== null && Object.getPrototypeOf(u) === success

/** As `start`, where nobody wants the answer: `undefined` for a handler that is done. */
export const tell = (handler: HandlerEntry, envelope: Envelope): Run | undefined => {
  try {
    const returned = handler.run(envelope.data, envelope)
    if (!isSteps(returned)) return isDone(returned) ? undefined : drive(returned)
    let step = returned.next()
    for (let n = 0; n < stepsPerTurn; n++) {
      if (step.done === true) return undefined
      if (!isDone(step.value)) return carryOn(returned, step)
      step = returned.next(step.value.value)
    }
    return letOthersRun(returned, step)
  } catch (defect) {
    return Exit.die(defect)
  }
}

/** The context a handler runs in: that of its layer, the envelope it handles, and what its middleware provides. */
export const contextOf = (
  handler: HandlerEntry,
  envelope: Envelope,
  provided?: Context.Context<never>
): Context.Context<never> => {
  const own = Context.add(handler.context, Current, envelope)
  return provided === undefined ? own : Context.merge(own, provided)
}

/**
 * What follows an effect. `cut` is how its fiber ends, where it was interrupted while that effect could not be: what
 * follows is then a finalizer, and its caller sees `cut`.
 */
export type Finish = (exit: AnyExit, cut?: AnyExit) => Run

// What an effect does when its fiber comes to it stands under a key of Effect's own, which an effect of ours tells.
const probe = (): Run => Effect.void
const probed = Effectable.Prototype<Run>({ label: "probe", evaluate: probe })
const stepKey = Reflect.ownKeys(probed).find((key) => Reflect.get(probed, key) === probe)

/**
 * Does what a fiber would do with an effect next, here and now; for who is in that fiber. Between two steps of its loop a
 * fiber may be interrupted: what must not be parted from what was just done goes before the loop gets its turn.
 */
const step = (run: Run, fiber: AnyFiber): Run => {
  const evaluate: unknown = stepKey === undefined ? undefined : Reflect.get(run, stepKey)
  return typeof evaluate === "function" ? evaluate.call(run, fiber) : run
}

/** Something that begins when its fiber comes to it: all of its beginning, or nothing. */
class Entered {
  readonly begin: (fiber: AnyFiber) => Run
  constructor(begin: (fiber: AnyFiber) => Run) {
    this.begin = begin
  }
}
Object.setPrototypeOf(Entered.prototype, Effectable.Prototype<Run & Entered>({
  label: "Ksi.entered",
  evaluate(fiber) {
    return this.begin(fiber)
  }
}))

/** An effect that is begun as a whole; see `enter`. */
export const entered = (begin: (fiber: AnyFiber) => Run): Run => new Entered(begin) as unknown as Run // by its prototype

/** Begins what was made for this fiber, without giving the loop its turn; anything else is itself. */
export const enter = (fiber: AnyFiber, run: Run): Run => run instanceof Entered ? run.begin(fiber) : run

// More frames than anything here puts around something.
const maxFrames = 4

/** `enter`, of something that has other effects around it, which are begun first. */
export const enterWithin = <A, E>(fiber: AnyFiber, whole: Effect.Effect<A, E>, run: Run): Effect.Effect<A, E> => {
  if (!(run instanceof Entered)) return whole
  let next: Run = whole
  for (let n = 0; n < maxFrames && next !== run; n++) next = step(next, fiber)
  // A step of an effect succeeds and fails as it does.
  return enter(fiber, next) as Effect.Effect<A, E>
}

/** Begins an effect in a context; then `ended`, whatever becomes of it, when the fiber has its own context back. */
export const within = (fiber: AnyFiber, context: Context.Context<never>, run: Run, ended: (exit: AnyExit) => Run | undefined): Run => {
  const previous = fiber.context
  fiber.setContext(context)
  return step(Effect.onExitPrimitive(run, (exit) => {
    fiber.setContext(previous)
    // What it comes to is the exit, or a failure.
    return ended(exit) as Effect.Effect<void, unknown> | undefined
  }), fiber)
}

/**
 * Goes on with `finish` when an effect has ended, also when its fiber is interrupted: then as a finalizer, since nothing
 * else runs in such a fiber. It runs in `context`, where one is given, and what follows in the fiber's own.
 */
export const settle = (run: Run, finish: Finish, context?: Context.Context<never>): Run => {
  if (Exit.isExit(run)) return finish(run)
  return entered((fiber) => {
    // How it ended, until somebody goes on with it: an interrupted fiber passes over the step in the middle.
    let ended: AnyExit | undefined
    const previous = fiber.context
    const noted = Effect.onExitPrimitive(run, (exit) => {
      fiber.setContext(previous)
      ended = exit
      return undefined
    })
    const goOn = (exit: AnyExit): Run => {
      ended = undefined
      return enter(fiber, finish(exit))
    }
    const gone = Effect.matchCauseEffect(noted, {
      onSuccess: (value) => goOn(ended ?? Exit.succeed(value)),
      onFailure: (cause) => goOn(ended ?? Exit.failCause(cause))
    })
    const whole = Effect.onExitPrimitive(gone, (cut) => ended === undefined ? undefined : Effect.asVoid(finish(ended, cut)))
    if (context !== undefined) fiber.setContext(context)
    return enter(fiber, step(step(step(whole, fiber), fiber), fiber))
  })
}

/** Something more in a finalizer: it can be interrupted as long as its fiber is not. */
export const afterwards = (run: Run): Run =>
  Exit.isExit(run) ? run : Effect.matchCauseEffect(Effect.interruptible(Effect.void), {
    onSuccess: (_) => Effect.interruptible(run),
    onFailure: (_) => run
  })
