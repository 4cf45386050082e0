// Runs requests, whether they are answered once or by a stream: depth, deadline, middleware, handlers, check of the
// reply, activity. Every request that names a registered event is recorded exactly once, also one that no handler saw.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as KsiError from "../../event/KsiError.ts"
import { Limits } from "../../event/Limits.ts"
import { Activity } from "../Activity.ts"
import type { LiveEnvelope } from "../Causation.ts"
import { Subscriptions } from "../Subscription.ts"
import { ask, Lanes } from "./answers.ts"
import * as Compiled from "./compiled.ts"
import { type AnyExit, type AnyFiber, contextOf, enter, type Finish, type Run, settle } from "./drive.ts"
import { type Core, effectful, isWrapping, Passage, takesElapsed } from "./pipeline.ts"
import type { Reactions } from "./reactions.ts"
import { steadyMillis } from "./steady.ts"
import * as Streams from "./streams.ts"
import type { Runner, Table, TableEntry } from "./table.ts"

const leaveOut = () => null
const asItIs = (data: unknown) => data

/** A reply that its event does not promise is an error of KSI's. */
const invalid = ({ codec, event }: TableEntry, exit: AnyExit): AnyExit =>
  Exit.isFailure(exit) ? exit : KsiError.exit(new KsiError.ReplyInvalid({ event: event.name, problems: codec.successProblems(exit.value) }))

const checked = (entry: TableEntry, exit: AnyExit): AnyExit =>
  Exit.isFailure(exit) || entry.codec.isSuccess(exit.value) ? exit : invalid(entry, exit)

/** Writes the trail of requests. */
const makeRecorder = Effect.fnUntraced(function*({ clock }: Table) {
  const activity = yield* Activity
  const record = (
    entry: TableEntry,
    envelope: LiveEnvelope,
    exit: AnyExit,
    startedAt: bigint,
    encode = entry.codec.encodePayload
  ): Effect.Effect<void> | undefined => {
    const duration = Number(clock.monotonicTimeNanosUnsafe() - startedAt) / 1e6
    if (entry.tally !== undefined) entry.tally.ended(exit, duration)
    const kept = entry.event.annotations.audit === "outline" ? leaveOut : encode
    return activity.record({ envelope, encode: kept, exit, duration })
  }
  return {
    now: () => clock.monotonicTimeNanosUnsafe(),
    record,
    /** Records, and is the exit; waits only where the journal is full. */
    recorded: (entry: TableEntry, envelope: LiveEnvelope, exit: AnyExit, startedAt: bigint): Run => {
      const wait = record(entry, envelope, exit, startedAt)
      return wait === undefined ? exit : Effect.flatMap(wait, () => exit)
    },
    /** Records a request that was refused before it was one: its payload does not fit. */
    refused: (entry: TableEntry, envelope: LiveEnvelope, exit: AnyExit): Run => {
      const wait = record(entry, envelope, exit, clock.monotonicTimeNanosUnsafe(), asItIs)
      return wait === undefined ? exit : Effect.flatMap(wait, () => exit)
    }
  }
})

/** Deadlines of envelopes. */
const makeDeadlines = ({ clock }: Table) => {
  /** Milliseconds that are left, where the envelope must be answered earlier than what caused it. */
  const millisLeft = (envelope: LiveEnvelope): number | undefined =>
    envelope.origin.due === undefined || !envelope.isDeadlineOwn ? undefined : envelope.origin.due - steadyMillis(clock)
  const late = (envelope: LiveEnvelope) =>
    KsiError.exit(
      new KsiError.DeadlineExceeded({ event: envelope.name, millis: (envelope.deadline ?? 0) - envelope.timestamp })
    )
  return {
    millisLeft,
    late,
    /** Runs something in this fiber, or, where there is a deadline, in one that is interrupted when it passes. */
    inTime: (
      envelope: LiveEnvelope,
      fiber: AnyFiber,
      run: (fiber: AnyFiber, end: (exit: AnyExit) => Run) => Run,
      finish: Finish
    ): Run => {
      const millis = millisLeft(envelope)
      if (millis === undefined) return run(fiber, finish)
      const timed = Effect.timeoutOrElse(
        Effect.withFiber((inner: AnyFiber) => enter(inner, run(inner, identity))),
        { duration: Math.max(0, millis), orElse: () => late(envelope) }
      )
      return settle(timed, finish)
    }
  }
}

const identity = (exit: AnyExit): Run => exit

/** Opens streams of items. */
const makeStreams = (
  { noHandler, refuse }: Table,
  { announce }: Effect.Success<ReturnType<typeof makeAnswers>>,
  { inTime, millisLeft }: ReturnType<typeof makeDeadlines>,
  { now, recorded }: Effect.Success<ReturnType<typeof makeRecorder>>
) =>
  Streams.make({
    checked,
    mayEnd: (entry, envelope) => entry.wrapping.length > 0 || millisLeft(envelope) !== undefined,
    request: (fiber, entry, envelope, core) => {
      const startedAt = now()
      const refused = refuse(envelope)
      if (refused !== undefined) return recorded(entry, envelope, refused, startedAt)
      const room = announce(entry, envelope)
      if (entry.handlers.length === 0) return recorded(entry, envelope, noHandler(envelope.name), startedAt)
      return inTime(envelope, fiber, (running, end) => {
        const begin = () => entry.pipeline(running, envelope, core, end)
        return room === undefined ? begin() : settle(room, (exit, cut = exit) => Exit.isSuccess(cut) ? begin() : end(exit))
      }, (exit) => recorded(entry, envelope, exit, startedAt))
    }
  })

/** What `run` and `items` share: who is told of a request, and how it is answered the long way. */
const makeAnswers = Effect.fnUntraced(function*(reactions: Reactions) {
  const subscriptions = yield* Subscriptions
  const lanes = new Lanes((yield* Limits).keyedHandlers)
  return {
    /** Tells who listens. What it answers with is a wait for subscribers that hold up callers. */
    announce: (entry: TableEntry, envelope: LiveEnvelope): Effect.Effect<void> | undefined => {
      const room = subscriptions.publishRequest(envelope, entry.codec.encodePayload)
      reactions.observe(entry, envelope)
      return room
    },
    /** Handlers and the check of the reply. */
    core: (entry: TableEntry, envelope: LiveEnvelope): Core => (fiber, provided, done) =>
      ask(fiber, entry.handlers, envelope, provided, lanes, (exit) => done(checked(entry, exit)))
  }
})

const isWrapped = ({ wrapping }: TableEntry, envelope: LiveEnvelope): boolean => {
  for (const hook of wrapping) if (isWrapping(hook, envelope)) return true
  return false
}

/** How a request goes on where the short way ends: with a fiber operation for each step, in time, from any step on. */
const makeLongWay = (
  { clock }: Table,
  { core }: Effect.Success<ReturnType<typeof makeAnswers>>,
  { inTime }: ReturnType<typeof makeDeadlines>,
  recorded: Compiled.Surroundings["recorded"]
): Pick<Compiled.Surroundings, "entered" | "handled" | "left" | "wrapped"> & { readonly long: Compiled.Surroundings["wrapped"] } => {
  // With the hooks that it began with: those of the event may have changed meanwhile.
  const passage = (hooks: TableEntry["hooks"], fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope, startedAt: bigint, end: (exit: AnyExit) => Run) =>
    new Passage(hooks, fiber, envelope, core(entry, envelope), end, hooks.some(takesElapsed) ? clock : undefined, startedAt)
  const ended = (entry: TableEntry, envelope: LiveEnvelope, startedAt: bigint): ((exit: AnyExit) => Run) =>
    recorded === undefined ? identity : (exit) => recorded(entry, envelope, exit, startedAt)
  return {
    wrapped: (fiber, entry, envelope, startedAt) =>
      inTime(envelope, fiber, (running, end) => entry.pipeline(running, envelope, core(entry, envelope), end), ended(entry, envelope, startedAt)),
    long: (fiber, entry, envelope, startedAt) =>
      inTime(envelope, fiber, (running, end) => passage(entry.hooks, running, entry, envelope, startedAt, end).enter(0), ended(entry, envelope, startedAt)),
    entered: (hooks, fiber, entry, envelope, startedAt, at, run) =>
      inTime(envelope, fiber, (running, end) => passage(hooks, running, entry, envelope, startedAt, end).resume(at, effectful(run)), ended(entry, envelope, startedAt)),
    handled: (hooks, fiber, entry, envelope, startedAt, handler, run) =>
      inTime(envelope, fiber, (running, end) =>
        settle(run, (exit) => passage(hooks, running, entry, envelope, startedAt, end).leave(hooks.length - 1, checked(entry, exit)),
          contextOf(handler, envelope)), ended(entry, envelope, startedAt)),
    left: (hooks, fiber, entry, envelope, startedAt, at, run, exit) =>
      inTime(envelope, fiber, (running, end) => passage(hooks, running, entry, envelope, startedAt, end).left(at, effectful(run), exit), ended(entry, envelope, startedAt))
  }
}

/** The requests of one router. */
export const make = Effect.fnUntraced(function*(table: Table, reactions: Reactions) {
  const { clock, noHandler, refuse } = table
  const { depth: maxDepth } = yield* Limits
  const { isOn } = yield* Activity
  const recorder = yield* makeRecorder(table)
  const recorded = isOn || table.meter !== undefined ? recorder.recorded : undefined
  const deadlines = makeDeadlines(table)
  const answers = yield* makeAnswers(reactions)
  const longWay = makeLongWay(table, answers, deadlines, recorded)
  const items = makeStreams(table, answers, deadlines, recorder)
  /** What a program hands over does not fit. */
  const rejected = (fiber: AnyFiber, entry: TableEntry, payload: unknown, exit: AnyExit): Run =>
    recorder.refused(entry, table.child(fiber, entry.event.name, payload), exit)
  const recordedOr = recorded ?? ((_entry, _envelope, exit) => exit)
  /** A subscriber is slow, and callers wait for it. */
  const held: Compiled.Surroundings["held"] = (fiber, entry, envelope, startedAt, room) =>
    deadlines.inTime(envelope, fiber, (_, end) => settle(room, end), (exit, cut = exit) =>
      Exit.isSuccess(cut) ? begun(fiber, entry, envelope, startedAt) : recordedOr(entry, envelope, cut, startedAt))
  const surroundings: Compiled.Surroundings = {
    clock, stamps: table.stamps, currentOf: table.currentOf, announce: answers.announce,
    maxDepth, refuse, rejected, recorded, invalid, isWrapped, held, ...longWay
  }

  // Any number of handlers, middleware that wraps; and everything where no code may be generated.
  const begun = (fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope, startedAt: bigint): Run => {
    if (entry.handlers.length === 0) return recordedOr(entry, envelope, noHandler(envelope.name), startedAt)
    return isWrapped(entry, envelope) ? longWay.wrapped(fiber, entry, envelope, startedAt) : longWay.long(fiber, entry, envelope, startedAt)
  }
  const runnerOf = (entry: TableEntry): Runner => {
    const run: Runner["run"] = (fiber, envelope) => {
      const startedAt = recorded === undefined && !entry.timed ? 0n : recorder.now()
      // Who listens hears of what is carried out: a listener that asks again must come to the end of its depth.
      const refused = refuse(envelope)
      if (refused !== undefined) return recordedOr(entry, envelope, refused, startedAt)
      const room = answers.announce(entry, envelope)
      return room === undefined ? begun(fiber, entry, envelope, startedAt) : held(fiber, entry, envelope, startedAt, room)
    }
    return {
      run,
      call: (fiber, payload) => {
        const made = entry.codec.makePayload(payload)
        return Exit.isSuccess(made)
          ? run(fiber, table.child(fiber, entry.event.name, made.value))
          : rejected(fiber, entry, payload, made)
      }
    }
  }
  const wired = (entry: TableEntry): Runner => (entry.runner = Compiled.compile(surroundings, entry) ?? runnerOf(entry))

  return {
    run: (fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope): Run => (entry.runner ?? wired(entry)).run(fiber, envelope),
    call: (fiber: AnyFiber, entry: TableEntry, payload: unknown): Run => (entry.runner ?? wired(entry)).call(fiber, payload),
    items,
    refused: recorder.refused,
    rejected
  }
})

/** The requests of one router. */
export type Requests = Effect.Success<ReturnType<typeof make>>
