// Who answers a request that several handlers may answer: the reply rule.
//
// Handlers are ordered by registration. A failure, a defect and a timeout are answers; only a pass moves on. A maximal run
// of adjacent concurrent handlers starts together: its answer is the earliest in order that did not pass, as soon as all
// before it have passed; those still running are then interrupted. A sequential handler starts when all before it passed.
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { Envelope } from "../../event/Envelope.ts"
import type { HandlerEntry } from "../../event/EventGroup.ts"
import * as KsiError from "../../event/KsiError.ts"
import { Current, LiveEnvelope } from "../Causation.ts"
import { type AnyExit, type AnyFiber, contextOf, type Run, settle, start } from "./drive.ts"
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

/** One that has, or waits for, the turn of a key. */
interface Turn {
  readonly envelope: Envelope
  begin: (() => void) | undefined
}

/** Those of one key: the first has the turn. */
type Lane = Array<Turn>

const isCausedBy = (envelope: Envelope, cause: Envelope | undefined): boolean =>
  cause !== undefined && envelope instanceof LiveEnvelope && envelope.comesFrom(cause)

/** One at a time for each key of each handler, in the order of arrival; keys that nobody uses are forgotten. */
export class Lanes {
  private readonly lanes = new Map<HandlerEntry, Map<string, Lane>>()
  private readonly max: number

  /** `max`: how many may wait for one key. */
  constructor(max: number) {
    this.max = max
  }

  /** The effect, in its turn. What the holder of a turn calls itself is part of it: waiting would be for ever. */
  inTurn(handler: HandlerEntry, envelope: Envelope, run: Run): Run {
    const { key } = handler
    if (key === undefined) return run
    return Effect.withFiber((fiber: AnyFiber) => {
      const name = key(envelope.data)
      const lanes = this.lanes.get(handler) ?? new Map<string, Lane>()
      const lane = lanes.get(name) ?? []
      if (isCausedBy(envelope, lane[0]?.envelope)) return run
      if (lane.length >= this.max) {
        return KsiError.fail(new KsiError.LimitExceeded({ limit: "keyedHandlers", max: this.max, retryable: true }))
      }
      this.lanes.set(handler, lanes)
      lanes.set(name, lane)
      const turn: Turn = { envelope, begin: undefined }
      lane.push(turn)
      const leave = () => {
        const index = lane.indexOf(turn)
        if (index < 0) return
        lane.splice(index, 1)
        if (index === 0) lane[0]?.begin?.()
        if (lane.length === 0) lanes.delete(name)
        if (lanes.size === 0) this.lanes.delete(handler)
      }
      // What is no effect at all ends its fiber on the spot, without its finalizers: the turn must not end with it.
      const forget = fiber.addObserver(leave)
      return Effect.ensuring(
        lane[0] === turn ? run : Effect.andThen(begun(lane, turn), run),
        Effect.sync(() => (forget(), leave()))
      )
    })
  }
}

const begun = (lane: Lane, turn: Turn): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (lane[0] === turn) return resume(Effect.void)
    // Not on the stack of the one before.
    turn.begin = () => resume(Effect.yieldNow)
  })

/** A handler with its turn and its timeout, in its own context and in no other. */
const alone = (handler: HandlerEntry, envelope: Envelope, provided: Provided, lanes: Lanes): Run => {
  // Replaced, not merged: the caller's services, and its scope, are none of the handler's.
  const run = Effect.updateContext(
    Effect.suspend(() => start(handler, envelope)),
    (_: Context.Context<never>) => contextOf(handler, envelope, provided)
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
    Effect.forkScoped(alone(handler, envelope, provided, lanes), { startImmediately: true }))
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
    return Exit.isExit(run) ? finish(run) : settle(run, finish, contextOf(first, envelope, provided))
  }
  return settle(oneAfterTheOther([...handlers], envelope, provided, lanes), finish)
}
