// The middleware of one event, compiled into one function. Hooks are a loop; only `around` nests. As long as every hook
// and the handler complete at once, nothing here needs a fiber operation.
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Tracer from "effect/Tracer"
import type { Envelope } from "../../event/Envelope.ts"
import type { AnyMiddleware } from "../../event/Event.ts"
import { Current } from "../Causation.ts"
import { type AnyExit, type AnyFiber, enter, type Run, settle } from "./drive.ts"

/** An answer of a middleware instead of the handler's. */
export class Answered extends Schema.TaggedClass<Answered>()("Answered", { value: Schema.Unknown }) {}

/** A middleware as it is run. */
export interface Hook {
  readonly name: string
  readonly error: Schema.Top
  readonly provides: Context.Key<never, unknown> | undefined
  readonly before: ((envelope: Envelope) => Run | undefined) | undefined
  readonly after: ((envelope: Envelope, exit: AnyExit, elapsed: number) => Run | undefined) | undefined
  readonly around: ((next: Run, envelope: Envelope) => Run) | undefined
  /** Around each reaction to an event. */
  readonly reaction?: ((next: Run, envelope: Envelope, handler: string) => Run) | undefined
  /** Which events `around` wraps; all when absent. */
  readonly when: ((envelope: Envelope) => boolean) | undefined
  /** What the hooks run in. */
  readonly context: Context.Context<never>
}

/** The service that says "this middleware is there"; `Ksi.serve` asks for it. */
export interface MiddlewareService<in out Name extends string> {
  readonly "~ksi/Middleware": Name
}

/** The key under which a middleware's hooks are found. */
export const hookKey = (name: string): Context.Service<MiddlewareService<string>, Hook> =>
  Context.Service<MiddlewareService<string>, Hook>(`ksi/Middleware/${name}`)

/** The hooks of the middleware in a context, in order; those that are not there are left out. */
export const hooksIn = (
  context: Context.Context<never>,
  middleware: ReadonlyArray<AnyMiddleware>
): ReadonlyArray<Hook> =>
  middleware.flatMap(({ name }) => {
    const hook = Context.getOption(context, hookKey(name))
    return hook._tag === "Some" ? [hook.value] : []
  })

/** What the middleware provided so far. */
export type Provided = Context.Context<never> | undefined

/** What is behind the middleware. */
export type Core = (fiber: AnyFiber, provided: Provided, finish: (exit: AnyExit) => Run) => Run

/** Runs an event through its middleware: the core, and then `finish` with what became of it. */
export type Pipeline = (fiber: AnyFiber, envelope: Envelope, core: Core, finish: (exit: AnyExit) => Run) => Run

const answered = (exit: AnyExit): AnyExit => {
  if (Exit.isSuccess(exit)) return exit
  for (const reason of exit.cause.reasons) {
    if (reason._tag === "Fail" && reason.error instanceof Answered) return Exit.succeed(reason.error.value)
  }
  return exit
}

/** What a hook returned, which must be an effect: anything else would end the caller's fiber on the spot, past every `after`. */
export const effectful = (run: Run): Run =>
  Effect.isEffect(run) ? run : Exit.die(new TypeError("a hook must return an effect or nothing"))

/** What a `before` returned, or the defect that it threw. */
export const guarded = (before: NonNullable<Hook["before"]>, envelope: Envelope): Run | undefined => {
  try {
    const run = before(envelope)
    return run === undefined ? undefined : effectful(run)
  } catch (defect) {
    return Exit.die(defect)
  }
}

/** What an `after` returned, or the defect that it threw. */
export const guardedAfter = (
  after: NonNullable<Hook["after"]>,
  envelope: Envelope,
  exit: AnyExit,
  elapsed: number
): Run | undefined => {
  try {
    const run = after(envelope, exit, elapsed)
    return run === undefined ? undefined : effectful(run)
  } catch (defect) {
    return Exit.die(defect)
  }
}

/** One passage of one envelope through the hooks. */
export class Passage {
  private readonly hooks: ReadonlyArray<Hook>
  private readonly fiber: AnyFiber
  private readonly envelope: Envelope
  private readonly core: Core
  private readonly finish: (exit: AnyExit) => Run
  private readonly clock: Clock.Clock | undefined
  private readonly startedAt: bigint
  private provided: Provided = undefined

  constructor(
    hooks: ReadonlyArray<Hook>,
    fiber: AnyFiber,
    envelope: Envelope,
    core: Core,
    finish: (exit: AnyExit) => Run,
    clock: Clock.Clock | undefined,
    startedAt: bigint
  ) {
    this.hooks = hooks
    this.fiber = fiber
    this.envelope = envelope
    this.core = core
    this.finish = finish
    this.clock = clock
    this.startedAt = startedAt
  }

  /** Goes in from the hook at `from` on. */
  enter(from: number): Run {
    for (let i = from; i < this.hooks.length; i++) {
      const before = this.hooks[i]?.before
      if (before === undefined) continue
      const run = guarded(before, this.envelope)
      if (run !== undefined) return this.resume(i, run)
    }
    return this.core(this.fiber, this.provided, (exit) => this.leave(this.hooks.length - 1, exit))
  }

  /** Goes on with what the `before` of the hook at `at` returned. */
  resume(at: number, run: Run): Run {
    const hook = this.hooks[at]
    if (hook === undefined) return this.enter(at + 1)
    const context = Exit.isExit(run) ? hook.context : contextOf(hook, this.envelope, this.fiber)
    // Nobody goes further in for a caller who is gone; a hook that has let it through comes out like the others.
    return settle(run, (exit, cut) => {
      const stopped = this.entered(hook, at, exit)
      if (stopped !== undefined) return stopped
      return cut === undefined ? this.enter(at + 1) : this.leave(at, cut)
    }, context)
  }

  // A hook that stops the event has no `after` of its own: it saw everything already.
  private entered({ provides }: Hook, at: number, exit: AnyExit): Run | undefined {
    if (Exit.isFailure(exit)) return this.leave(at - 1, answered(exit))
    if (provides !== undefined) this.provided = Context.add(this.provided ?? Context.empty(), provides, exit.value as never)
    return undefined
  }

  /** Comes out through the hooks from `from` down. */
  leave(from: number, exit: AnyExit): Run {
    let result = exit
    for (let i = from; i >= 0; i--) {
      const hook = this.hooks[i]
      if (hook?.after === undefined) continue
      const { after } = hook
      const seen = result
      const run = guardedAfter(after, this.envelope, seen, this.elapsed())
      if (run === undefined || (Exit.isExit(run) && Exit.isSuccess(run))) continue
      if (Exit.isExit(run)) result = run
      else return this.left(i, run, seen)
    }
    return this.finish(result)
  }

  /** Goes on with what the `after` of the hook at `at` returned, which had seen `exit`. */
  left(at: number, run: Run, exit: AnyExit): Run {
    const hook = this.hooks[at]
    if (hook === undefined) return this.leave(at - 1, exit)
    return settle(run, (done) => this.leave(at - 1, Exit.isFailure(done) ? done : exit), contextOf(hook, this.envelope, this.fiber))
  }

  private elapsed(): number {
    return this.clock === undefined ? 0 : Number(this.clock.monotonicTimeNanosUnsafe() - this.startedAt) / 1e6
  }
}

/** A context in the span of another, if that has one. */
const inSpanOf = (context: Context.Context<never>, other: Context.Context<never>): Context.Context<never> => {
  const span = Context.getOrUndefined(other, Tracer.ParentSpan)
  return span === undefined ? context : Context.add(context, Tracer.ParentSpan, span)
}

/** What a hook runs in: its own context, the envelope, and the span of whoever asks. */
const contextOf = (hook: Hook, envelope: Envelope, fiber: AnyFiber): Context.Context<never> =>
  inSpanOf(Context.add(hook.context, Current, envelope), fiber.context)

/** A reaction behind the hooks that stand around it: each in its own context, the reaction in that of whoever runs this. */
export const reacting = (hooks: ReadonlyArray<Hook>, handler: string, envelope: Envelope, run: Run): Run =>
  hooks.reduceRight<Run>((inner, hook) => Effect.withFiber((fiber: AnyFiber) => {
    const { context } = fiber
    const next = Effect.updateContext(inner, (within: Context.Context<never>) => inSpanOf(context, within))
    const { reaction } = hook
    const wrapped = reaction === undefined ? next : guarded((event) => reaction(next, event, handler), envelope) ??
      Exit.die(new TypeError(`middleware "${hook.name}": reaction must return an effect`))
    return Effect.updateContext(wrapped, (_: Context.Context<never>) => contextOf(hook, envelope, fiber))
  }), run)

const identity = (exit: AnyExit): Run => exit

/** Whether a hook's `around` wraps this event. A condition that throws says yes: nothing is left out silently. */
export const isWrapping = ({ around, when }: Hook, envelope: Envelope): boolean => {
  if (around === undefined) return false
  try {
    return when === undefined || when(envelope)
  } catch {
    return true
  }
}

/** Everything behind an `around`, as the effect that it wraps. */
const wrapped = (hook: Hook, inner: Pipeline): Pipeline => (fiber, envelope, core, finish) => {
  const { around } = hook
  if (around === undefined) return inner(fiber, envelope, core, finish)
  if (!isWrapping(hook, envelope)) return inner(fiber, envelope, core, finish)
  const next = Effect.withFiber((running: AnyFiber) => enter(running, inner(running, envelope, core, identity)))
  const run = guarded((event) => around(next, event), envelope) ?? Exit.die(new TypeError(`middleware "${hook.name}": around must return an effect`))
  return settle(run, finish, contextOf(hook, envelope, fiber))
}

/** Whether a hook wants to know how long it took. */
export const takesElapsed = ({ after }: Hook): boolean => after !== undefined && after.length > 2

/** Compiles the hooks of an event, outermost first. */
export const compile = (hooks: ReadonlyArray<Hook>, clock: Clock.Clock): Pipeline => {
  if (hooks.length === 0) return (fiber, _, core, finish) => core(fiber, undefined, finish)
  const at = hooks.findIndex(({ around }) => around !== undefined)
  const wrapping = hooks[at]
  if (wrapping === undefined) {
    const timed = hooks.some(takesElapsed) ? clock : undefined
    return (fiber, envelope, core, finish) => new Passage(hooks, fiber, envelope, core, finish, timed, timed?.monotonicTimeNanosUnsafe() ?? 0n).enter(0)
  }
  // Its own `before` and `after` stand outside of what it wraps; what was provided before it is handed on.
  const outer = hooks.slice(0, at + 1).map((hook) => ({ ...hook, around: undefined }))
  const outside = compile(outer, clock)
  const inside = compile(hooks.slice(at + 1), clock)
  return (fiber, envelope, core, finish) =>
    outside(fiber, envelope, (running, provided, done) => {
      const merged: Core = (innermost, more, end) =>
        core(innermost, provided === undefined ? more : more === undefined ? provided : Context.merge(provided, more), end)
      return wrapped(wrapping, inside)(running, envelope, merged, done)
    }, finish)
}
