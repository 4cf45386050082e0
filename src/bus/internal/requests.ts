// Runs requests, whether they are answered once or by a stream: depth, deadline, handler, check of the reply, activity.
// Every request that names a registered event is recorded exactly once, also one that no handler saw.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Stream from "effect/Stream"
import * as KsiError from "../../event/KsiError.ts"
import { Activity } from "../Activity.ts"
import type { LiveEnvelope } from "../Causation.ts"
import { Subscriptions } from "../Subscription.ts"
import { type AnyExit, type AnyFiber, contextOf, type Run, runIn } from "./drive.ts"
import type { Table, TableEntry } from "./table.ts"

const leaveOut = () => null
const asItIs = (data: unknown) => data

/** A reply that its event does not promise is an error of KSI's. */
const checked = (entry: TableEntry, exit: AnyExit): AnyExit => {
  if (Exit.isFailure(exit) || entry.codec.isSuccess(exit.value)) return exit
  const problems = entry.codec.successProblems(exit.value)
  return KsiError.exit(new KsiError.ReplyInvalid({ event: entry.event.name, problems }))
}

/** The requests of one router. */
export const make = Effect.fnUntraced(function*({ clock, noHandler, refuse }: Table) {
  const activity = yield* Activity
  const subscriptions = yield* Subscriptions

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

  const recorded = (entry: TableEntry, envelope: LiveEnvelope, exit: AnyExit, startedAt: bigint): Run => {
    const wait = record(entry, envelope, exit, startedAt)
    return wait === undefined ? exit : Effect.flatMap(wait, () => exit)
  }

  /** Milliseconds that are left, where the envelope must be answered earlier than what caused it. */
  const millisLeft = (envelope: LiveEnvelope): number | undefined =>
    envelope.deadline === undefined || !envelope.isDeadlineOwn
      ? undefined
      : envelope.deadline - clock.currentTimeMillisUnsafe()

  const late = (envelope: LiveEnvelope, millis: number) =>
    KsiError.exit(new KsiError.DeadlineExceeded({ event: envelope.name, millis }))

  const run = (fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope): Run => {
    const startedAt = clock.currentTimeNanosUnsafe()
    subscriptions.publishRequest(envelope, entry.codec.encodePayload)
    const handler = entry.handlers[0]
    const refused = refuse(envelope) ?? (handler === undefined ? noHandler(envelope.name) : undefined)
    if (handler === undefined || refused !== undefined) {
      return recorded(entry, envelope, refused ?? noHandler(envelope.name), startedAt)
    }
    const millis = millisLeft(envelope)
    if (millis === undefined) {
      return runIn(fiber, handler, envelope, (exit) => recorded(entry, envelope, checked(entry, exit), startedAt))
    }
    const timed = Effect.timeoutOrElse(
      // The fiber in which the timed part runs is another one.
      Effect.withFiber((inner) => runIn(inner, handler, envelope, (exit) => checked(entry, exit))),
      { duration: millis, orElse: () => late(envelope, millis) }
    )
    // The envelope is answered when this ends: only now is it known whether it was in time.
    return Effect.onExit(timed, (exit) => record(entry, envelope, exit, startedAt) ?? Effect.void)
  }

  const items = (entry: TableEntry, envelope: LiveEnvelope): Stream.Stream<unknown, unknown> =>
    Stream.suspend(() => {
      const startedAt = clock.currentTimeNanosUnsafe()
      subscriptions.publishRequest(envelope, entry.codec.encodePayload)
      const handler = entry.handlers[0]
      const refused = refuse(envelope) ?? (handler === undefined ? noHandler(envelope.name) : undefined)
      const stream = handler === undefined || refused !== undefined
        ? Stream.fromEffect(refused ?? noHandler(envelope.name))
        // The handler's type, checked where it was written, says that it returns a Stream.
        : Stream.suspend(() => handler.run(envelope.data, envelope) as Stream.Stream<unknown, unknown>).pipe(
          Stream.mapEffect((item) => checked(entry, Exit.succeed(item))),
          Stream.provideContext(contextOf(handler, envelope))
        )
      const millis = millisLeft(envelope)
      const timed = millis === undefined
        ? stream
        : Stream.interruptWhen(stream, Effect.delay(Effect.suspend(() => late(envelope, millis)), Math.max(0, millis)))
      return Stream.onExit(timed, (exit) => record(entry, envelope, exit, startedAt) ?? Effect.void)
    })

  /** A request that was refused before it was one: its payload does not fit. */
  const rejected = (entry: TableEntry, envelope: LiveEnvelope, exit: AnyExit): Run => {
    const wait = record(entry, envelope, exit, clock.currentTimeNanosUnsafe(), asItIs)
    return wait === undefined ? exit : Effect.flatMap(wait, () => exit)
  }

  return { run, items, rejected }
})

/** The requests of one router. */
export type Requests = Effect.Success<ReturnType<typeof make>>
