// Requests that are answered by a stream. The request itself is a fiber that goes through deadline and middleware like every
// other, waits inside for as long as the stream runs, and is recorded when it ends; whoever reads pulls the items of the
// handler, one pull after the other, and learns from that fiber how it ended.
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { HandlerEntry } from "../../event/EventGroup.ts"
import type { LiveEnvelope } from "../Causation.ts"
import { afterwards, type AnyExit, type AnyFiber, contextOf, enter, type Run, settle } from "./drive.ts"
import type { Core, Provided } from "./pipeline.ts"
import type { TableEntry } from "./table.ts"

/** What a stream is behind. */
export interface Surroundings {
  readonly checked: (entry: TableEntry, exit: AnyExit) => AnyExit
  /** Runs the request to its end: everything but the handler, which `core` stands for. */
  readonly request: (fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope, core: Core) => Run
  /** Whether the request may end before its stream does. */
  readonly mayEnd: (entry: TableEntry, envelope: LiveEnvelope) => boolean
}

type Items = Arr.NonEmptyReadonlyArray<unknown>
type Source = Pull.Pull<Items, unknown>

const streamOf = (handler: HandlerEntry, envelope: LiveEnvelope): Stream.Stream<unknown, unknown> => {
  const returned = handler.run(envelope.data, envelope)
  if (!Stream.isStream(returned)) return Stream.die(new TypeError("a handler of a stream must return a Stream"))
  // What it needs is in the context of its layer.
  return returned as Stream.Stream<unknown, unknown>
}

/** Each item as `f` makes it, many at a time as they come. The first for which it fails ends them, after those before it. */
export const through = (source: Source, f: (item: unknown) => AnyExit): Source => {
  let failed: Source | undefined
  return Effect.suspend(() =>
    failed ?? Effect.flatMap(source, (items): Source => {
      const made: Array<unknown> = []
      for (const item of items) {
        const exit = f(item)
        if (Exit.isFailure(exit)) {
          failed = Exit.failCause(exit.cause)
          break
        }
        made.push(exit.value)
      }
      const [first, ...more] = made
      return failed !== undefined && made.length === 0 ? failed : Exit.succeed<Items>([first, ...more])
    }))
}

/** One stream that somebody reads. */
class Reading {
  private readonly surroundings: Surroundings
  private readonly entry: TableEntry
  private readonly envelope: LiveEnvelope
  /** Done when the request is through its middleware, or has ended before. */
  private readonly inside = Deferred.makeUnsafe<Provided>()
  /** How the items ended. */
  private readonly ended = Deferred.makeUnsafe<void, unknown>()
  /** Fails when the request ends while the stream runs. */
  private readonly cut = Deferred.makeUnsafe<never, unknown>()
  /** Where the handler's finalizers are: they run in its context, as it does. */
  private readonly scope = Scope.makeUnsafe()
  private readonly request: AnyFiber
  private context: Context.Context<never> = Context.empty()
  private source: Source | undefined
  private isOver = false

  constructor(fiber: AnyFiber, surroundings: Surroundings, entry: TableEntry, envelope: LiveEnvelope) {
    this.surroundings = surroundings
    this.entry = entry
    this.envelope = envelope
    this.request = Effect.runForkWith(fiber.context)(Effect.withFiber((running: AnyFiber) =>
      enter(running, surroundings.request(running, entry, envelope, (_, provided, finish) => {
        Deferred.doneUnsafe(this.inside, Exit.succeed(provided))
        return settle(Deferred.await(this.ended), finish)
      }))))
    this.request.addObserver((exit) => {
      Deferred.doneUnsafe(this.inside, Exit.succeed(undefined))
      if (Exit.isFailure(exit)) Deferred.doneUnsafe(this.cut, Exit.failCause(exit.cause))
    })
  }

  /** The next items. */
  readonly pull: Source = Effect.suspend((): Source => {
    if (this.isOver) return Cause.done()
    const next = this.source ?? this.open()
    const raced = this.surroundings.mayEnd(this.entry, this.envelope) ? Effect.raceFirst(next, Deferred.await(this.cut)) : next
    return Effect.catchCause(raced, (cause) => this.end(Pull.doneExitFromCause(cause)))
  })

  private open(): Source {
    return Effect.flatMap(Deferred.await(this.inside), (provided): Source => {
      const exit = this.request.pollUnsafe()
      if (exit !== undefined) {
        // A middleware answered, or failed: that is the stream.
        this.source = Cause.done()
        return Exit.isSuccess(exit) ? Exit.succeed<Items>([exit.value]) : Exit.failCause(exit.cause)
      }
      const [handler] = this.entry.handlers
      if (handler === undefined) return Cause.done()
      this.context = contextOf(handler, this.envelope, provided)
      const items = Stream.suspend(() => streamOf(handler, this.envelope))
      const opened = this.alone(Channel.toTransform(Stream.toChannel(items))(Cause.done(), this.scope))
      return Effect.flatMap(opened, (source) => {
        // What the handler makes, as it made it: the first that the event does not promise ends it.
        return this.source = through(this.alone(source), (item) => this.surroundings.checked(this.entry, Exit.succeed(item)))
      })
    })
  }

  /** In the handler's context and in no other: the reader's services, and its scope, are none of the handler's. */
  private alone<A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.updateContext(effect, (_: Context.Context<never>) => this.context)
  }

  /** No more items: the request ends, and the stream as the request does. */
  private end(exit: Exit.Exit<unknown, unknown>): Source {
    this.isOver = true
    const closed = Effect.exit(this.alone(Scope.close(this.scope, exit)))
    return Effect.flatMap(closed, (finalized) =>
      Effect.flatMap(this.leave(Exit.isFailure(finalized) ? finalized : exit), (last): Source =>
        Exit.isFailure(last) ? Exit.failCause(last.cause) : Cause.done()))
  }

  /** Tells the request how the stream ended, and waits for its end; who stops waiting interrupts it. */
  private leave(exit: AnyExit): Effect.Effect<AnyExit> {
    Deferred.doneUnsafe(this.ended, Exit.asVoid(exit))
    return Effect.onInterrupt(Fiber.await(this.request), () => Fiber.interrupt(this.request))
  }

  /** The reader is gone, however it went. */
  close(exit: AnyExit): Run {
    if (this.isOver) return Effect.asVoid(Effect.andThen(this.alone(Scope.close(this.scope, exit)), Fiber.interrupt(this.request)))
    this.isOver = true
    const isInterrupted = Exit.isFailure(exit) && Cause.hasInterrupts(exit.cause)
    return Effect.flatMap(Effect.exit(this.alone(Scope.close(this.scope, exit))), (finalized) => {
      const how = Exit.isFailure(finalized) ? finalized : exit
      if (isInterrupted) return Effect.andThen(Fiber.interrupt(this.request), how)
      const left = afterwards(this.leave(how)) as Effect.Effect<AnyExit> // what it was given
      // A reader that fails knows that it does.
      return Effect.flatMap(left, (last) => Exit.isFailure(exit) && how === exit ? Effect.void : last)
    })
  }
}

/** The items of a request. */
export const make = (surroundings: Surroundings) => (entry: TableEntry, envelope: LiveEnvelope): Stream.Stream<unknown, unknown> =>
  Stream.fromChannel(Channel.fromTransform((_, scope) => Effect.withFiber((fiber: AnyFiber) => {
    const reading = new Reading(fiber, surroundings, entry, envelope)
    return Effect.as(Scope.addFinalizerExit(scope, (exit) => Effect.orDie(reading.close(exit))), reading.pull)
  })))
