// Who answers a request that several handlers may answer: the reply rule.
//
// Handlers are ordered by registration. A failure, a defect and a timeout are answers; only a pass moves on. A maximal run
// of adjacent concurrent handlers starts together: its answer is the earliest in order that did not pass, as soon as all
// before it have passed; those still running are then interrupted. A sequential handler starts when all before it passed.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Semaphore from "effect/Semaphore"
import type { Envelope } from "../../event/Envelope.ts"
import type { HandlerEntry } from "../../event/EventGroup.ts"
import * as KsiError from "../../event/KsiError.ts"
import { Current } from "../Causation.ts"
import { type AnyExit, type AnyFiber, contextOf, inContext, type Run, settle, start } from "./drive.ts"
import type { Provided } from "./pipeline.ts"

// Who passes says so with the error that its caller gets when nobody else answers: an error of this list is a pass of the
// envelope beside it, and an answer of any other.
const passes = new WeakMap<object, Envelope>()

/** "Not mine", said by the handler of the envelope that this fiber handles. */
export const pass: Effect.Effect<never, KsiError.KsiError> = Effect.withFiber((fiber: AnyFiber) => {
  const envelope = fiber.getRef(Current)
  if (envelope === undefined) return Exit.die(new Error("Router.pass is for handlers: nothing is being handled here"))
  const error = KsiError.make(new KsiError.NoHandler({ event: envelope.name, passed: 1, similar: [] }))
  passes.set(error, envelope)
  return Exit.fail(error)
})

/** Whether an exit says "not mine" of an envelope. */
export const isPass = (exit: AnyExit, envelope: Envelope): boolean => {
  if (Exit.isSuccess(exit)) return false
  for (const reason of exit.cause.reasons) {
    if (reason._tag === "Fail" && KsiError.is(reason.error) && passes.get(reason.error) === envelope) return true
  }
  return false
}

interface Lane {
  readonly semaphore: Semaphore.Semaphore
  users: number
}

/** One at a time for each key of each handler, in the order of arrival; keys that nobody uses are forgotten. */
export class Lanes {
  private readonly lanes = new Map<HandlerEntry, Map<string, Lane>>()
  private readonly max: number

  /** `max`: how many may wait for one key. */
  constructor(max: number) {
    this.max = max
  }

  /** The effect, in its turn. */
  inTurn(handler: HandlerEntry, envelope: Envelope, run: Run): Run {
    const { key } = handler
    if (key === undefined) return run
    return Effect.suspend(() => {
      const name = key(envelope.data)
      const lanes = this.lanes.get(handler) ?? new Map<string, Lane>()
      this.lanes.set(handler, lanes)
      const lane = lanes.get(name) ?? { semaphore: Semaphore.makeUnsafe(1), users: 0 }
      lanes.set(name, lane)
      if (lane.users >= this.max) {
        return KsiError.fail(new KsiError.LimitExceeded({ limit: "keyedHandlers", max: this.max, retryable: true }))
      }
      lane.users++
      return Effect.ensuring(
        lane.semaphore.withPermits(1)(run),
        Effect.sync(() => {
          if (--lane.users === 0) lanes.delete(name)
          if (lanes.size === 0) this.lanes.delete(handler)
        })
      )
    })
  }
}

/** A handler with its turn and its timeout, in its own context; for a fiber of its own. */
const alone = (handler: HandlerEntry, envelope: Envelope, provided: Provided, lanes: Lanes): Run => {
  const run = Effect.provideContext(
    Effect.suspend(() => start(handler, envelope)),
    contextOf(handler, envelope, provided)
  )
  const { timeoutMillis: millis } = handler
  const timed = millis === undefined ? run : Effect.timeoutOrElse(run, {
    duration: millis,
    orElse: () => KsiError.fail(new KsiError.DeadlineExceeded({ event: envelope.name, millis }))
  })
  return lanes.inTurn(handler, envelope, timed)
}

const isPlain = ({ key, timeoutMillis }: HandlerEntry): boolean => key === undefined && timeoutMillis === undefined

const concurrentRun = (handlers: ReadonlyArray<HandlerEntry>, from: number): ReadonlyArray<HandlerEntry> => {
  let end = from
  while (handlers[end] !== undefined && handlers[end]?.execution !== "sequential") end++
  return handlers.slice(from, Math.max(end, from + 1))
}

const together = Effect.fnUntraced(function*(
  handlers: ReadonlyArray<HandlerEntry>,
  envelope: Envelope,
  provided: Provided,
  lanes: Lanes
) {
  const fibers = yield* Effect.forEach(handlers, (handler) =>
    Effect.forkChild(alone(handler, envelope, provided, lanes), { startImmediately: true }))
  for (const fiber of fibers) {
    const exit = yield* Fiber.await(fiber)
    if (!isPass(exit, envelope)) return exit
  }
  return undefined
}, (run) => Effect.scoped(run))

const oneAfterTheOther = Effect.fnUntraced(function*(
  handlers: ReadonlyArray<HandlerEntry>,
  envelope: Envelope,
  provided: Provided,
  lanes: Lanes
) {
  for (let at = 0; at < handlers.length;) {
    const run = concurrentRun(handlers, at)
    const [only] = run
    const exit: AnyExit | undefined = run.length === 1 && only !== undefined
      ? yield* Effect.exit(alone(only, envelope, provided, lanes))
      : yield* together(run, envelope, provided, lanes)
    if (exit !== undefined && !isPass(exit, envelope)) return yield* exit
    at += run.length
  }
  return yield* KsiError.fail(new KsiError.NoHandler({ event: envelope.name, passed: handlers.length, similar: [] }))
})

/** Asks the handlers of an event. `finish` gets the answer: where nobody had one, `NoHandler` with how many were asked. */
export const ask = (
  fiber: AnyFiber,
  handlers: ReadonlyArray<HandlerEntry>,
  envelope: Envelope,
  provided: Provided,
  lanes: Lanes,
  finish: (exit: AnyExit) => Run
): Run => {
  const [first] = handlers
  if (handlers.length === 1 && first !== undefined && isPlain(first)) {
    const run = start(first, envelope)
    return Exit.isExit(run) ? finish(run) : inContext(fiber, contextOf(first, envelope, provided), run, finish)
  }
  return settle(oneAfterTheOther([...handlers], envelope, provided, lanes), finish)
}
