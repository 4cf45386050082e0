// How a scenario is played: what is asked goes to the app, all goes on until nothing comes any more, and what came of it is kept.
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import type { Dispatched } from "../../bus/KsiService.ts"
import { Router } from "../../bus/Router.ts"
import type { Delivery } from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import { attributesOf } from "../../event/Event.ts"
import { jsonCodec } from "../../event/EventCodec.ts"
import * as Grant from "../../event/Grant.ts"
import * as KsiError from "../../event/KsiError.ts"
import type { Runtime } from "../../Ksi.ts"
import { EventStore } from "../../store/EventStore.ts"
import { outcomeOf, revivedReply } from "./laws.ts"
import * as Report from "./report.ts"
import type * as Stage from "./stage.ts"

/** A scenario did not go as it should; the message says what was expected, what came, and all that happened. */
export class ScenarioFailed extends Data.TaggedError("ScenarioFailed")<{
  readonly message: string
  readonly expected: unknown
  readonly actual: unknown
  /** Where commands were tried: the least scenario that shows it, as text of a test. */
  readonly scenario?: string
}> {}

/** The payloads of all calls of a mock. */
export type Called = Map<object, Array<unknown>>

/** What was asked or said once, and what came of it. */
export interface Call {
  readonly event: Event.Any
  /** `undefined` while it has not answered. */
  exit: Dispatched | undefined
  /** Whether an expectation has looked at what came of it. */
  isLooked: boolean
  /** When it began and ended, among all calls; it has ended never where it has not. */
  from: number
  to: number
}

/** A scenario that is being played. */
export interface Running {
  readonly stage: Stage.Stage
  readonly called: Called
  /** All that was asked, as it stands in the scenario. */
  readonly calls: Array<Call>
  /** Facts at whose reactions' failure an expectation has looked. */
  readonly failing: Set<string>
  principal: string
  /** What was asked last, where it was asked alone. */
  asked: Call | undefined
  /** Where in the calls the last began that were asked together, and whether nothing has looked at them as a whole. */
  together: number
  isTogether: boolean
  /** Why it goes no further. */
  stopped: Stage.Stopped
  /** How much had happened when it was asked. */
  from: number
  ticks: number
}

/** One step of a scenario. */
export type Step = (running: Running) => Effect.Effect<void, ScenarioFailed>

/** A scenario at its beginning. */
export const running = (stage: Stage.Stage, called: Called = new Map()): Running => ({
  stage, called, calls: [], failing: new Set(), principal: Grant.owner, asked: undefined, together: 0, isTogether: false, stopped: "done", from: 0, ticks: 0
})

/** What an expectation expected, and what came instead. */
export interface Shown {
  readonly expected: unknown
  readonly actual: unknown
}

/** Ends the scenario, with all that happened in the message. */
export const failed = ({ stage }: Running, headline: string, shown?: Shown): Effect.Effect<never, ScenarioFailed> =>
  Effect.fail(new ScenarioFailed({
    message: Report.message(headline, shown && Report.difference(shown.expected, shown.actual), stage.happened),
    expected: shown?.expected,
    actual: shown?.actual
  }))

/** Plays an effect that must end. */
export const must = <A, E>(running: Running, what: string, effect: Effect.Effect<A, E, Runtime>): Effect.Effect<A, ScenarioFailed> =>
  Effect.flatMap(running.stage.play(effect), (exit) => {
    if (exit === undefined) return failed(running, `${what} does not end: it waits for the clock, or for something outside`)
    return Exit.isSuccess(exit) ? Effect.succeed(exit.value) : failed(running, `${what} failed: ${KsiError.sentenceOf(Cause.squash(exit.cause))}`)
  })

/** A value of a schema, as JSON. */
export const jsonOf = (schema: Schema.Top, value: unknown): unknown => Schema.encodeUnknownSync(jsonCodec(schema))(value)

/** What an exit says, for people. */
export const toldOf = (exit: Dispatched): unknown => {
  if (Exit.isSuccess(exit)) return exit.value.kind === "value" ? { reply: exit.value.value ?? null } : { stored: exit.value.position }
  const [reason] = exit.cause.reasons
  if (reason?._tag === "Fail") {
    const { error } = reason
    return KsiError.is(error) ? { refused: error.reason._tag, because: error.message } : { failed: error.reason, error: error.error }
  }
  return reason?._tag === "Die" ? { died: KsiError.sentenceOf(reason.defect) } : { interrupted: true }
}

/** Stores facts as history: nobody reacts to them. */
export const history = (facts: ReadonlyArray<Event.FactOf<Event.AnyFact>>) =>
  Effect.gen(function*() {
    const store = yield* EventStore
    for (const { event, payload } of facts) {
      const fact = { name: event.name, data: jsonOf(event.payload, payload), attributes: attributesOf(event), tags: event.tags?.(payload) }
      yield* store.appendTo(event.streamId(payload), [fact])
    }
  })

// ---------------------------------------------------------------------------------------------------------------- asking

/** What was answered before. */
export interface Earlier {
  /** The reply to a request that was asked before: to the first of this event, or to the one of this number. */
  readonly reply: <Ev extends Event.AnyRequest>(event: Ev, nth?: number) => Event.Success<Ev>
}

/** A request or a fact, and its payload. */
export interface Asking {
  readonly event: Event.Any
  /** Or what makes it of what was answered before. */
  readonly payload: unknown
}

const earlierOf = ({ calls }: Running): Earlier => ({
  reply: (event, nth = 1) => {
    const { exit } = calls.filter((call) => call.event.name === event.name)[nth - 1] ?? {}
    if (exit === undefined || Exit.isFailure(exit)) throw new Error(`${event.name} has no ${nth === 1 ? "reply" : `reply ${nth}`} to build on`)
    // Decoded by the schema that this type is made of.
    return revivedReply(event, exit.value) as Event.Success<typeof event>
  }
})

/** As JSON; what the schema does not take is sent as it is, and refused at the door. */
const sent = (event: Event.Any, payload: unknown): unknown => {
  try {
    return jsonOf(event.payload, event.payload.make(payload))
  } catch {
    return payload
  }
}

/** The data of each, before any of them is asked. */
const dataOf = (running: Running, { event, payload }: Asking): Effect.Effect<unknown, ScenarioFailed> =>
  Effect.suspend(() => {
    try {
      // A payload is data: what is a function makes one.
      return Effect.succeed(sent(event, typeof payload === "function" ? (payload as (earlier: Earlier) => unknown)(earlierOf(running)) : payload))
    } catch (error) {
      return failed(running, `the payload of ${event.name} cannot be made: ${KsiError.sentenceOf(error)}`)
    }
  })

const ask = (running: Running, call: Call, data: unknown) =>
  Effect.gen(function*() {
    const router = yield* Router
    call.from = running.ticks++
    call.exit = yield* Effect.exit(router.dispatch(router.envelope(call.event.name, data, { principal: running.principal })))
    call.to = running.ticks++
  })

const waiting = (event: Event.Any): Call => ({ event, exit: undefined, isLooked: false, from: Infinity, to: Infinity })

/** Goes on until all has ended, or nothing comes any more. */
export const resting: Step = (running) =>
  Effect.flatMap(running.stage.rest(() => running.calls.every(({ exit }) => exit !== undefined)), (stopped) => {
    running.stopped = stopped
    if (stopped !== "endless") return Effect.void
    return failed(running, "something goes on for ever and lets no time pass: it was stopped after a million steps")
  })

/** Asks, waits for what can be waited for, and keeps what came of it. */
export const asking = (asked: Asking): Step => (running) =>
  Effect.gen(function*() {
    const data = yield* dataOf(running, asked)
    const call = waiting(asked.event)
    running.calls.push(call)
    running.asked = call
    running.from = running.stage.happened.length
    running.stage.begin(ask(running, call, data))
    yield* resting(running)
  })

/** Asks several at the same time: those of one list in turn, each when the one before has answered. */
export const askingTogether = (fibers: ReadonlyArray<ReadonlyArray<Asking>>): Step => (running) =>
  Effect.gen(function*() {
    const all: Array<ReadonlyArray<{ readonly call: Call; readonly data: unknown }>> = []
    for (const fiber of fibers) {
      all.push(yield* Effect.forEach(fiber, (asked) => Effect.map(dataOf(running, asked), (data) => ({ call: waiting(asked.event), data }))))
    }
    running.together = running.calls.length
    running.isTogether = true
    running.asked = undefined
    running.from = running.stage.happened.length
    running.calls.push(...all.flat().map(({ call }) => call))
    for (const fiber of all) running.stage.begin(Effect.forEach(fiber, ({ call, data }) => ask(running, call, data), { discard: true }))
    yield* resting(running)
  })

/** Lets time pass from one who wakes to the next; between them the outside has its turns. */
export const passing = (duration: Duration.Input): Step => (running) =>
  Effect.gen(function*() {
    const { happened, world } = running.stage
    const millis = Duration.toMillis(Duration.fromInputUnsafe(duration))
    if (millis === Infinity) return yield* failed(running, "thenAfter(Infinity) would never come: say how long, as thenAfter(\"1 hour\")")
    running.from = happened.length
    const end = world.now() + millis
    for (;;) {
      const next = Math.min(world.due() ?? end, end)
      world.advance(next - world.now())
      yield* resting(running)
      if (next >= end) return
    }
  })

const hour = 3_600_000

/** Lets as much time pass as what is under way needs, an hour at most; answers with the milliseconds. */
export const unfolding = (running: Running): Effect.Effect<number, ScenarioFailed> =>
  Effect.gen(function*() {
    const { stage } = running
    const begin = stage.world.now()
    for (;;) {
      const due = stage.due()
      if (running.stopped !== "quiet" || due === undefined || due - begin > hour) return stage.world.now() - begin
      yield* passing(due - stage.world.now())(running)
    }
  })

/** The facts since the last step that asked, or let time pass. */
export const factsSince = ({ from, stage }: Running): ReadonlyArray<Delivery> =>
  stage.happened.slice(from).filter(({ position }) => position !== undefined)

/** What became of a request, typed; `undefined` where it broke. */
export const answerOf = ({ event, exit }: Call) => exit !== undefined && event.kind === "request" ? outcomeOf(event, exit) : undefined
