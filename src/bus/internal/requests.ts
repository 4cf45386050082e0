// Runs requests, whether they are answered once or by a stream: depth, deadline, middleware, handlers, check of the
// reply, activity. Every request that names a registered event is recorded exactly once, also one that no handler saw.
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import type { HandlerEntry } from "../../event/EventGroup.ts"
import * as KsiError from "../../event/KsiError.ts"
import { Limits } from "../../event/Limits.ts"
import { Activity } from "../Activity.ts"
import type { LiveEnvelope } from "../Causation.ts"
import { Subscriptions } from "../Subscription.ts"
import { ask, isPass, Lanes } from "./answers.ts"
import { type AnyExit, type AnyFiber, contextOf, inContext, type Run, settle, start } from "./drive.ts"
import { type Core, guarded, guardedAfter, isWrapping, Passage, type Provided } from "./pipeline.ts"
import type { Reactions } from "./reactions.ts"
import type { Table, TableEntry } from "./table.ts"

const leaveOut = () => null
const asItIs = (data: unknown) => data

/** A reply that its event does not promise is an error of KSI's. */
const checked = (entry: TableEntry, exit: AnyExit): AnyExit => {
  if (Exit.isFailure(exit) || entry.codec.isSuccess(exit.value)) return exit
  const problems = entry.codec.successProblems(exit.value)
  return KsiError.exit(new KsiError.ReplyInvalid({ event: entry.event.name, problems }))
}

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
    const duration = Number(clock.currentTimeNanosUnsafe() - startedAt) / 1e6
    const kept = entry.event.annotations.audit === "outline" ? leaveOut : encode
    return activity.record({ envelope, encode: kept, exit, duration })
  }
  return {
    now: () => clock.currentTimeNanosUnsafe(),
    record,
    /** Records, and is the exit; waits only where the journal is full. */
    recorded: (entry: TableEntry, envelope: LiveEnvelope, exit: AnyExit, startedAt: bigint): Run => {
      const wait = record(entry, envelope, exit, startedAt)
      return wait === undefined ? exit : Effect.flatMap(wait, () => exit)
    },
    /** Records a request that was refused before it was one: its payload does not fit. */
    rejected: (entry: TableEntry, envelope: LiveEnvelope, exit: AnyExit): Run => {
      const wait = record(entry, envelope, exit, clock.currentTimeNanosUnsafe(), asItIs)
      return wait === undefined ? exit : Effect.flatMap(wait, () => exit)
    }
  }
})

/** Deadlines of envelopes. */
const makeDeadlines = ({ clock }: Table) => {
  /** Milliseconds that are left, where the envelope must be answered earlier than what caused it. */
  const millisLeft = (envelope: LiveEnvelope): number | undefined =>
    envelope.deadline === undefined || !envelope.isDeadlineOwn
      ? undefined
      : envelope.deadline - clock.currentTimeMillisUnsafe()
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
      finish: (exit: AnyExit) => Run
    ): Run => {
      const millis = millisLeft(envelope)
      if (millis === undefined) return run(fiber, finish)
      const timed = Effect.timeoutOrElse(
        Effect.withFiber((inner: AnyFiber) => run(inner, identity)),
        { duration: Math.max(0, millis), orElse: () => late(envelope) }
      )
      return settle(timed, finish)
    }
  }
}

const identity = (exit: AnyExit): Run => exit

/** Opens streams of items. */
const makeStreams = ({ noHandler }: Table) => {
  /** The items of the first handler, each checked. */
  const itemsOf = (entry: TableEntry, envelope: LiveEnvelope, provided: Provided): Stream.Stream<unknown, unknown> => {
    const [handler] = entry.handlers
    if (handler === undefined) return Stream.fromEffect(noHandler(envelope.name, 0))
    // The handler's type, checked where it was written, says that it returns a Stream.
    return Stream.suspend(() => handler.run(envelope.data, envelope) as Stream.Stream<unknown, unknown>).pipe(
      Stream.mapEffect((item) => checked(entry, Exit.succeed(item))),
      Stream.provideContext(contextOf(handler, envelope, provided))
    )
  }

  /**
   * The stream behind its middleware. The passage through the middleware is a fiber that waits inside for as long as the
   * stream runs; what it says before it is inside (a failure, an answer) is the stream.
   */
  return (entry: TableEntry, envelope: LiveEnvelope): Stream.Stream<unknown, unknown> => {
    if (entry.hooks.length === 0) return itemsOf(entry, envelope, undefined)
    return Stream.unwrap(Effect.gen(function*() {
      const inside = yield* Deferred.make<Stream.Stream<unknown, unknown>>()
      const ended = yield* Deferred.make<void, unknown>()
      const passage = Effect.withFiber((fiber: AnyFiber) =>
        entry.pipeline(fiber, envelope, (_, provided, finish) =>
          Deferred.succeed(inside, itemsOf(entry, envelope, provided)).pipe(
            Effect.andThen(Effect.exit(Deferred.await(ended))),
            Effect.flatMap(finish)
          ), (exit) => exit))
      const fiber = yield* Effect.forkScoped(Effect.onExit(passage, (exit) =>
        Deferred.succeed(inside, Exit.isSuccess(exit) ? Stream.make(exit.value) : Stream.fromEffect(Exit.failCause(exit.cause)))))
      // A middleware that ends first, as a timeout does, ends the stream.
      const cut = Stream.interruptWhen(yield* Deferred.await(inside), Effect.flatMap(Fiber.await(fiber), (exit) =>
        Exit.isFailure(exit) ? exit : Effect.never))
      return Stream.onExit(cut, (exit) =>
        Effect.andThen(Deferred.done(ended, Exit.asVoid(exit)), Effect.asVoid(Fiber.await(fiber))))
    }))
  }
}

/** What `run` and `items` share: who is told of a request, and how it is answered the long way. */
const makeAnswers = Effect.fnUntraced(function*({ noHandler }: Table, reactions: Reactions) {
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
      ask(fiber, entry.handlers, envelope, provided, lanes, (exit) =>
        done(isPass(exit) ? noHandler(envelope.name, entry.handlers.length) : checked(entry, exit)))
  }
})

/**
 * The short way of an event with one plain handler and hooks that do not wrap it: as long as all of them complete at once,
 * two loops and a call. From the first that suspends on, a `Passage` goes on where it stopped; only then does a deadline
 * need a fiber that watches it.
 */
const makeDirect = (
  { clock, noHandler }: Table,
  { core }: Effect.Success<ReturnType<typeof makeAnswers>>,
  { inTime }: ReturnType<typeof makeDeadlines>
) => {
  const leave = (passage: () => Passage, hooks: TableEntry["hooks"], envelope: LiveEnvelope, exit: AnyExit, startedAt: bigint): Run => {
    let result = exit
    for (let i = hooks.length - 1; i >= 0; i--) {
      const after = hooks[i]?.after
      if (after === undefined) continue
      const elapsed = startedAt === 0n ? 0 : Number(clock.currentTimeNanosUnsafe() - startedAt) / 1e6
      const run = guardedAfter(after, envelope, result, elapsed)
      if (run === undefined) continue
      if (!Exit.isExit(run)) return passage().left(i, run, result)
      if (Exit.isFailure(run)) result = run
    }
    return result
  }
  return (
    fiber: AnyFiber,
    entry: TableEntry,
    handler: HandlerEntry,
    envelope: LiveEnvelope,
    finish: (exit: AnyExit) => Run
  ): Run => {
    const { hooks, timed } = entry
    const startedAt = timed ? clock.currentTimeNanosUnsafe() : 0n
    const passage = (running: AnyFiber, end: (exit: AnyExit) => Run) =>
      new Passage(hooks, running, envelope, core(entry, envelope), end, timed ? clock : undefined, startedAt)
    for (let i = 0; i < hooks.length; i++) {
      const before = hooks[i]?.before
      if (before === undefined) continue
      const run = guarded(before, envelope)
      if (run === undefined) continue
      return inTime(envelope, fiber, (running, end) => passage(running, end).resume(i, run), finish)
    }
    const run = start(handler, envelope)
    const answered = (exit: AnyExit) => isPass(exit) ? noHandler(envelope.name, 1) : checked(entry, exit)
    if (!Exit.isExit(run)) {
      return inTime(envelope, fiber, (running, end) =>
        inContext(running, contextOf(handler, envelope), run, (exit) =>
          hooks.length === 0 ? end(answered(exit)) : passage(running, end).leave(hooks.length - 1, answered(exit))), finish)
    }
    const left = leave(() => passage(fiber, identity), hooks, envelope, answered(run), startedAt)
    return settle(left, finish)
  }
}

const isWrapped = ({ wrapping }: TableEntry, envelope: LiveEnvelope): boolean => {
  for (const hook of wrapping) if (isWrapping(hook, envelope)) return true
  return false
}

/** The requests of one router. */
export const make = Effect.fnUntraced(function*(table: Table, reactions: Reactions) {
  const { noHandler, refuse } = table
  const { isOn } = yield* Activity
  const { now, record, recorded, rejected } = yield* makeRecorder(table)
  const deadlines = makeDeadlines(table)
  const { inTime, late, millisLeft } = deadlines
  const answers = yield* makeAnswers(table, reactions)
  const direct = makeDirect(table, answers, deadlines)
  const opened = makeStreams(table)

  const run = (fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope): Run => {
    const startedAt = isOn ? now() : 0n
    const room = answers.announce(entry, envelope)
    if (room === undefined) return carryOut(fiber, entry, envelope, startedAt)
    return inTime(envelope, fiber, (_, end) => settle(room, end), (exit) =>
      Exit.isSuccess(exit) ? carryOut(fiber, entry, envelope, startedAt) : recorded(entry, envelope, exit, startedAt))
  }

  const carryOut = (fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope, startedAt: bigint): Run => {
    const refused = refuse(envelope) ?? (entry.handlers.length === 0 ? noHandler(envelope.name, 0) : undefined)
    if (refused !== undefined) return recorded(entry, envelope, refused, startedAt)
    const finish = isOn ? (exit: AnyExit) => recorded(entry, envelope, exit, startedAt) : identity
    if (entry.direct !== undefined && !isWrapped(entry, envelope)) return direct(fiber, entry, entry.direct, envelope, finish)
    // The long way: any number of handlers, middleware that wraps.
    const core = answers.core(entry, envelope)
    return inTime(envelope, fiber, (running, end) => entry.pipeline(running, envelope, core, end), finish)
  }

  const items = (entry: TableEntry, envelope: LiveEnvelope): Stream.Stream<unknown, unknown> =>
    Stream.suspend(() => {
      const startedAt = now()
      const room = answers.announce(entry, envelope)
      const refused = refuse(envelope)
      const ready = refused === undefined ? opened(entry, envelope) : Stream.fromEffect(refused)
      const stream = room === undefined ? ready : Stream.unwrap(Effect.as(room, ready))
      const millis = millisLeft(envelope)
      const timed = millis === undefined
        ? stream
        : Stream.interruptWhen(stream, Effect.delay(Effect.suspend(() => late(envelope)), Math.max(0, millis)))
      return Stream.onExit(timed, (exit) => record(entry, envelope, exit, startedAt) ?? Effect.void)
    })

  return { run, items, rejected }
})

/** The requests of one router. */
export type Requests = Effect.Success<ReturnType<typeof make>>
