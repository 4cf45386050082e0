// Runs requests, whether they are answered once or by a stream: depth, deadline, middleware, handlers, check of the
// reply, activity. Every request that names a registered event is recorded exactly once, also one that no handler saw.
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as KsiError from "../../event/KsiError.ts"
import { Limits } from "../../event/Limits.ts"
import { Activity } from "../Activity.ts"
import type { LiveEnvelope } from "../Causation.ts"
import { Subscriptions } from "../Subscription.ts"
import { ask, isPass, Lanes } from "./answers.ts"
import { type AnyExit, type AnyFiber, contextOf, type Run } from "./drive.ts"
import type { Provided } from "./pipeline.ts"
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
const makeDeadlines = ({ clock }: Table) => ({
  /** Milliseconds that are left, where the envelope must be answered earlier than what caused it. */
  millisLeft: (envelope: LiveEnvelope): number | undefined =>
    envelope.deadline === undefined || !envelope.isDeadlineOwn
      ? undefined
      : envelope.deadline - clock.currentTimeMillisUnsafe(),
  late: (envelope: LiveEnvelope) =>
    KsiError.exit(
      new KsiError.DeadlineExceeded({ event: envelope.name, millis: (envelope.deadline ?? 0) - envelope.timestamp })
    )
})

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
      return Stream.onExit(yield* Deferred.await(inside), (exit) =>
        Effect.andThen(Deferred.done(ended, Exit.asVoid(exit)), Effect.asVoid(Fiber.await(fiber))))
    }))
  }
}

/** The requests of one router. */
export const make = Effect.fnUntraced(function*(table: Table, reactions: Reactions) {
  const { noHandler, refuse } = table
  const subscriptions = yield* Subscriptions
  const lanes = new Lanes((yield* Limits).keyedHandlers)
  const { now, record, recorded, rejected } = yield* makeRecorder(table)
  const { late, millisLeft } = makeDeadlines(table)
  const opened = makeStreams(table)

  /** Tells who listens, and says why the request may go no further. */
  const admit = (entry: TableEntry, envelope: LiveEnvelope) => {
    subscriptions.publishRequest(envelope, entry.codec.encodePayload)
    reactions.observe(entry, envelope)
    return refuse(envelope) ?? (entry.handlers.length === 0 ? noHandler(envelope.name, 0) : undefined)
  }

  /** Middleware, handlers, check of the reply. */
  const answer = (fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope, finish: (exit: AnyExit) => Run): Run =>
    entry.pipeline(fiber, envelope, (inner, provided, done) =>
      ask(inner, entry.handlers, envelope, provided, lanes, (exit) =>
        done(isPass(exit) ? noHandler(envelope.name, entry.handlers.length) : checked(entry, exit))), finish)

  const run = (fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope): Run => {
    const startedAt = now()
    const refused = admit(entry, envelope)
    if (refused !== undefined) return recorded(entry, envelope, refused, startedAt)
    const millis = millisLeft(envelope)
    if (millis === undefined) {
      return answer(fiber, entry, envelope, (exit) => recorded(entry, envelope, exit, startedAt))
    }
    const timed = Effect.timeoutOrElse(
      // The fiber in which the timed part runs is another one.
      Effect.withFiber((inner: AnyFiber) => answer(inner, entry, envelope, (exit) => exit)),
      { duration: millis, orElse: () => late(envelope) }
    )
    // The envelope is answered when this ends: only now is it known whether it was in time.
    return Effect.onExit(timed, (exit) => record(entry, envelope, exit, startedAt) ?? Effect.void)
  }

  const items = (entry: TableEntry, envelope: LiveEnvelope): Stream.Stream<unknown, unknown> =>
    Stream.suspend(() => {
      const startedAt = now()
      const refused = admit(entry, envelope)
      const stream = refused === undefined ? opened(entry, envelope) : Stream.fromEffect(refused)
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
