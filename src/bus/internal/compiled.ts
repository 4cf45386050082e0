// The short way of a request: one function, generated for each event. It is for an event with one plain handler and hooks
// that do not wrap it, and as long as all of them complete at once it is a handful of calls: no fiber operation, no
// closure. From the first that suspends on, a `Passage` goes on where it stopped.
//
// Why it is generated: eight events that share one function share what V8 learns of it, and every look at a payload, a
// generator or a reply becomes one at "some object". A function of its own sees one shape, and is compiled for it. Where
// code may not be generated from text, every request takes the long way, which is the reference: a property test holds
// both equal. In one thing they are not: where a handler that suspended has failed and an `after` fails too, the caller's
// cause has both reasons here, and on the long way the later one. To leave one out would cost every call a step.
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Envelope } from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import type { HandlerEntry } from "../../event/EventGroup.ts"
import { Current, LiveEnvelope, originOf, type Stamps } from "../Causation.ts"
import { afterwards, type AnyExit, type AnyFiber, carryOn, drive, entered, letOthersRun, type Run, stepsPerTurn, within } from "./drive.ts"
import { type Hook, takesElapsed } from "./pipeline.ts"
import type { Runner, TableEntry } from "./table.ts"

/** What the short way needs of the router. */
export interface Surroundings {
  readonly clock: Clock.Clock
  readonly stamps: Stamps
  /** The envelope that a fiber is handling. */
  readonly currentOf: (fiber: AnyFiber) => Envelope | undefined
  /** Tells who listens; answers with a wait where somebody holds up callers. */
  readonly announce: (entry: TableEntry, envelope: LiveEnvelope) => Effect.Effect<void> | undefined
  /** The long way, after a wait. */
  readonly held: (fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope, startedAt: bigint, room: Effect.Effect<void>) => Run
  readonly maxDepth: number
  readonly refuse: (envelope: LiveEnvelope) => AnyExit | undefined
  /** Answers what is no payload of the event. */
  readonly rejected: (fiber: AnyFiber, entry: TableEntry, payload: unknown, exit: AnyExit) => Run
  /** Records how a request ended, and is how it ended; `undefined` where nothing is recorded. */
  readonly recorded: ((entry: TableEntry, envelope: LiveEnvelope, exit: AnyExit, startedAt: bigint) => Run) | undefined
  /** What is left of a reply that its event does not promise. */
  readonly invalid: (entry: TableEntry, exit: AnyExit) => AnyExit
  readonly isWrapped: (entry: TableEntry, envelope: LiveEnvelope) => boolean
  /** The long way, from the first hook on, of an event that a hook wraps. */
  readonly wrapped: (fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope, startedAt: bigint) => Run
  /** The long way from the `before` of the hook at `at` on, which has returned `run`. */
  readonly entered: (hooks: ReadonlyArray<Hook>, fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope, startedAt: bigint, at: number, run: Run) => Run
  /** The long way from the handler on, which has returned `run`. */
  readonly handled: (hooks: ReadonlyArray<Hook>, fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope, startedAt: bigint, handler: HandlerEntry, run: Run) => Run
  /** The long way from the `after` of the hook at `at` on, which has seen `exit` and returned `run`. */
  readonly left: (hooks: ReadonlyArray<Hook>, fiber: AnyFiber, entry: TableEntry, envelope: LiveEnvelope, startedAt: bigint, at: number, run: Run, exit: AnyExit) => Run
}

// Effects that are complete are told from others by their prototype: to ask for a property of whatever was yielded costs
// as much as the rest of a step.
const success: unknown = Object.getPrototypeOf(Exit.void)
const suspended: unknown = Object.getPrototypeOf(Effect.suspend(() => Effect.void))

/** Whether a generator yielded nothing at all, which has no prototype to be told by. */
const isNothing = (step: IteratorResult<unknown> | null | undefined): boolean =>
  step !== undefined && step !== null && step.done !== true && (step.value === undefined || step.value === null)

const numbered = (hooks: ReadonlyArray<Hook>, name: "before" | "after"): ReadonlyArray<number> =>
  hooks.flatMap((hook, at) => hook[name] === undefined ? [] : [at])

// One after the other as long as they say nothing.
const beforeText = (hooks: ReadonlyArray<Hook>): string =>
  numbered(hooks, "before").reduceRight((inner, at) => `at = ${at}; run = before${at}(envelope); ${inner === "" ? "" : `if (run === undefined) { ${inner} }`}`, "")

const afterText = (hooks: ReadonlyArray<Hook>): string =>
  numbered(hooks, "after").toReversed().map((at) => `
  try { run = after${at}(envelope, exit, ${hooks.some(takesElapsed) ? "Number(now() - startedAt) / 1e6" : "0"}) } catch (defect) { run = die(defect) }
  if (run !== undefined && (run === null || prototypeOf(run) !== success)) {
    if (!isExit(run)) return parts.left(hooks, fiber, entry, envelope, startedAt, ${at}, run, exit)
    exit = run
  }`).join("")

/** All that the texts of events differ in. */
const piecesOf = ({ hooks, mayRefuse, wrapping }: TableEntry, isRecorded: boolean) => ({
  hooks: hooks.map((_, at) => `const { before: before${at}, after: after${at} } = hooks[${at}]`).join("\n"),
  before: beforeText(hooks),
  after: afterText(hooks),
  isRecorded,
  isTimed: isRecorded || hooks.some(takesElapsed),
  mayBeWrapped: wrapping.length > 0,
  mayRefuse
})

const textOf = ({ after, before, hooks, isRecorded, isTimed, mayBeWrapped, mayRefuse }: ReturnType<typeof piecesOf>): string => `"use strict"
const { add, announce, context, Current, currentOf, die, drive, entry, handle, handler, hooks, isExit, isNothing, isSuccess, LiveEnvelope, makePayload, maxDepth, name, now, originOf, prototypeOf, quickPayload, stamps, succeed, success, suspended, within } = parts
${hooks}
const finish = (fiber, envelope, given, startedAt) => {
  let exit = given, run
  if (given._tag === "Success" && !isSuccess(given.value)) exit = parts.invalid(entry, given)
  ${after}
  return ${isRecorded ? "parts.recorded(entry, envelope, exit, startedAt)" : "exit"}
}
// By itself: what a closure keeps is kept elsewhere than what is only passed on, and that costs every call.
const waiting = (fiber, envelope, startedAt, run, isDirect) => {
  const inside = add(context, Current, envelope)
  const ended = (exit) => {
    const end = finish(fiber, envelope, exit, startedAt)
    return end === exit ? undefined : parts.afterwards(end)
  }
  return isDirect ? within(fiber, inside, run, ended) : parts.later((running) => within(running, inside, run, ended))
}
const run = (fiber, envelope, isDirect) => {
  const startedAt = ${isTimed ? "now()" : "0n"}
  if (envelope.depth > maxDepth || envelope.deadline !== undefined) {
    const refused = parts.refuse(envelope)
    if (refused !== undefined) return ${isRecorded ? "parts.recorded(entry, envelope, refused, startedAt)" : "refused"}
  }
  const room = announce(entry, envelope)
  if (room !== undefined) return parts.held(fiber, entry, envelope, startedAt, room)
  ${mayBeWrapped ? "if (parts.isWrapped(entry, envelope)) return parts.wrapped(fiber, entry, envelope, startedAt)" : ""}
  let run, at = 0
  try { ${before} } catch (defect) { run = die(defect) }
  if (run !== undefined) return parts.entered(hooks, fiber, entry, envelope, startedAt, at, run)
  let isPending = false, steps, step
  try {
    run = handle(envelope.data, envelope)
    if (run !== undefined && run !== null && typeof run.next === "function") {
      steps = run
      step = steps.next()
      let left = ${stepsPerTurn}
      for (;;) {
        if (step.done === true) { run = succeed(step.value); break }
        const yielded = step.value
        if (prototypeOf(yielded) !== success) { run = parts.carryOn(steps, step); break }
        if (--left === 0) { run = parts.letOthersRun(steps, step); break }
        step = steps.next(yielded.value)
      }
    } else {
      isPending = run !== undefined && run !== null && prototypeOf(run) === suspended
      if (!isPending) run = drive(run)
    }
  } catch (defect) { run = isNothing(step) ? parts.carryOn(steps, step) : die(defect) }
  if (!isPending && (prototypeOf(run) === success || isExit(run))) return finish(fiber, envelope, run, startedAt)
  if (envelope.deadline !== undefined && envelope.isDeadlineOwn) return parts.handled(hooks, fiber, entry, envelope, startedAt, handler, run)
  return waiting(fiber, envelope, startedAt, run, isDirect)
}
const slowly = (fiber, payload) => {
  const made = makePayload(payload)
  return made._tag === "Success" ? asked(fiber, made.value) : parts.rejected(fiber, entry, payload, made)
}
const asked = (fiber, data) => {
  const parent = currentOf(fiber)
  return run(fiber, new LiveEnvelope(name, data, parent, originOf(parent), stamps), ${!mayRefuse})
}
const call = quickPayload === undefined ? slowly : (fiber, payload) => {
  let data
  try { data = quickPayload(payload) } catch { return slowly(fiber, payload) }
  return asked(fiber, data)
}
return { call, run }`

type Make = (parts: object) => Runner

// Of an event's definition, as its codec is: runtimes that serve the same event share the function and what V8 has learned of it.
// There are as many of an event as there are rows of hooks that it has stood behind; found by the pieces, which are shorter than
// the text.
const generated = new WeakMap<Event.Any, Map<string, Make>>()

const generate = (event: Event.Any, pieces: ReturnType<typeof piecesOf>, parts: object): Runner | undefined => {
  const known = generated.get(event) ?? new Map<string, Make>()
  generated.set(event, known)
  const key = Object.values(pieces).join("\n")
  try {
    // The text above, and nothing of anybody else's, is what it makes a function of.
    const make = known.get(key) ?? new Function("parts", textOf(pieces)) as Make
    known.set(key, make)
    return make(parts)
  } catch {
    return undefined
  }
}

/** The function of an event; `undefined` where it has no short way, or code may not be generated. */
export const compile = (surroundings: Surroundings, entry: TableEntry): Runner | undefined => {
  const { codec, direct: handler, event } = entry
  if (handler === undefined) return undefined
  const { clock, recorded } = surroundings
  return generate(event, piecesOf(entry, recorded !== undefined), {
    ...surroundings,
    add: Context.add,
    afterwards,
    carryOn,
    context: handler.context,
    Current,
    die: Exit.die,
    drive,
    entry,
    handle: handler.run,
    handler,
    hooks: entry.hooks,
    isExit: Exit.isExit,
    later: entered,
    isNothing,
    isSuccess: codec.isSuccess,
    LiveEnvelope,
    makePayload: codec.makePayload,
    name: event.name,
    originOf,
    quickPayload: codec.quickPayload,
    letOthersRun,
    now: () => clock.monotonicTimeNanosUnsafe(),
    prototypeOf: Object.getPrototypeOf,
    succeed: Exit.succeed,
    success,
    suspended,
    within
  })
}
