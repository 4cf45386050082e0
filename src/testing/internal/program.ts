// Programs: lists of commands with payloads that a schema made, and how one is played and judged.
import type * as Arbitrary from "effect/Arbitrary"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import type * as Event from "../../event/Event.ts"
import * as Json from "../../event/Json.ts"
import type { StateOf } from "./expectations.ts"
import * as Expectations from "./expectations.ts"
import * as Laws from "./laws.ts"
import { fitting, type Told } from "./orders.ts"
import * as Playing from "./playing.ts"
import type * as Stage from "./stage.ts"

/** What a model says of one event. */
export interface Modelled {
  readonly made: Arbitrary.Arbitrary<unknown>
  /** The payload in this state, of what was made; `undefined` where there is none. */
  readonly payload: (state: unknown, picks: ReadonlyArray<number>, made: unknown) => { readonly payload: unknown } | undefined
  /** Whether the state has a say in it. */
  readonly isChosen: boolean
  /** What must come of it; `undefined` where only the laws hold. */
  readonly next: ((state: unknown, payload: unknown) => Told) | undefined
}

/** What commands are tried by. */
export interface Plan {
  readonly commands: ReadonlyArray<readonly [event: Event.Any, modelled: Modelled]>
  readonly initial: unknown
  readonly states: (state: unknown) => ReadonlyArray<StateOf>
}

/** A payload that was made, and how to make it again. */
export interface Sample {
  readonly payload: unknown
  readonly made: Arbitrary.Arbitrary<unknown>
  readonly seed: number
  readonly size: number
}

/** A command: an event, which sample is its payload, and which fields come from samples of others. */
export interface Command {
  readonly event: Event.Any
  readonly modelled: Modelled
  readonly sample: number
  readonly links: Readonly<Record<string, number>>
  readonly picks: ReadonlyArray<number>
}

/** Commands in turn, then at the same time, then in turn again. */
export interface Program {
  readonly samples: ReadonlyArray<Sample>
  readonly before: ReadonlyArray<Command>
  readonly together: ReadonlyArray<ReadonlyArray<Command>>
  readonly after: ReadonlyArray<Command>
  /** The seed of the order; `undefined` for the layer's. */
  readonly order: number | undefined
}

/** A command that was asked, and what came of it. */
export interface Asked {
  readonly command: Command
  readonly payload: unknown
  readonly call: Playing.Call
  /** What the model says must come of it, where it was asked alone. */
  readonly told: Told | undefined
}

/** What was asked, up to where it went wrong. */
export interface Trace {
  readonly before: ReadonlyArray<Asked & { readonly millis: number }>
  readonly together: ReadonlyArray<ReadonlyArray<Asked>>
  /** How long those together took. */
  readonly millis: number
  readonly after: ReadonlyArray<Asked & { readonly millis: number }>
  /** The state of the model when those together began. */
  readonly middle: unknown
  /** What the projections must be in the end, where they are another. */
  readonly states: ReadonlyArray<StateOf>
}

/** What went wrong. */
export interface Problem {
  readonly kind: "answer" | "law" | "order" | "state" | "end" | "stopped"
  readonly error: Playing.ScenarioFailed
}

/** A program that was played. */
export interface Played {
  readonly program: Program
  readonly trace: Trace
  readonly problem: Problem | undefined
}

/** The payload as it was made, with the fields that come from elsewhere, where the schema takes them. */
export const madeOf = ({ samples }: Pick<Program, "samples">, { event, links, sample }: Command): unknown => {
  const own = samples[sample]?.payload
  if (!Json.isObject(own)) return own
  const linked: Record<string, unknown> = {}
  for (const [key, from] of Object.entries(links)) {
    const other = samples[from]?.payload
    if (Json.isObject(other) && key in other) linked[key] = other[key]
  }
  const whole = { ...own, ...linked }
  return Object.getPrototypeOf(own) === Object.prototype && Schema.is(event.payload)(whole) ? whole : own
}

const problem = (kind: Problem["kind"], failing: Effect.Effect<unknown, Playing.ScenarioFailed>): Effect.Effect<Problem | undefined> =>
  Effect.match(failing, { onFailure: (error): Problem => ({ kind, error }), onSuccess: () => undefined })

/** The law that one answer breaks, or that it is not what the model says. */
const judge = (running: Playing.Running, { call: { event, exit }, told }: Asked): Effect.Effect<Problem | undefined> => {
  const law = Laws.brokenAnswer(exit)
  if (law !== undefined) {
    const shown = told && exit && { expected: Expectations.answerSays(event, told.answer), actual: Playing.toldOf(exit) }
    return problem("law", Playing.failed(running, `${event.name}: ${law}`, shown))
  }
  if (told === undefined || exit === undefined || Expectations.fits(event, told.answer, exit)) return Effect.undefined
  const shown = { expected: Expectations.answerSays(event, told.answer), actual: Playing.toldOf(exit) }
  return problem("answer", Playing.failed(running, `${event.name} is not what the model says`, shown))
}

/** The reply of a call, typed; `undefined` where it has none. */
export const replyOf = ({ event, exit }: Playing.Call): unknown =>
  event.kind === "request" && exit !== undefined && Exit.isSuccess(exit) ? Laws.revivedReply(event, exit.value) : undefined

/** Plays one program after another's state. */
class Player {
  private readonly plan: Plan
  private readonly program: Program
  private readonly running: Playing.Running
  /** The states that the model may be in. */
  private possible: ReadonlyArray<unknown>
  private readonly before: Array<Asked & { readonly millis: number }> = []
  private readonly after: Array<Asked & { readonly millis: number }> = []
  private together: ReadonlyArray<ReadonlyArray<Asked>> = []
  private middle: unknown
  private millis = 0
  private states: ReadonlyArray<StateOf> = []

  constructor(plan: Plan, program: Program, running: Playing.Running) {
    this.plan = plan
    this.program = program
    this.running = running
    this.possible = [plan.initial]
  }

  private payload(command: Command) {
    return command.modelled.payload(this.possible[0], command.picks, madeOf(this.program, command))
  }

  /** Asks one alone. */
  private *alone(command: Command, asked: Array<Asked & { readonly millis: number }>) {
    const { running } = this
    const chosen = this.payload(command)
    if (chosen === undefined) return undefined
    const { payload } = chosen
    yield* Playing.asking({ event: command.event, payload })(running)
    const millis = yield* Playing.unfolding(running)
    const call = running.calls.at(-1)
    if (call === undefined) return undefined
    const { next } = command.modelled
    const told = next === undefined ? [] : this.possible.map((state) => next(state, payload))
    const fit = told.filter(({ answer }) => Expectations.fits(command.event, answer, call.exit))
    const one: Asked & { readonly millis: number } = { command, payload, call, told: fit[0] ?? told[0], millis }
    asked.push(one)
    const broken = yield* judge(running, one)
    if (broken === undefined && next !== undefined) this.possible = fit.map((each) => each.next(replyOf(call)))
    return broken
  }

  /** Asks those that are asked at the same time. */
  private *atOnce() {
    const { program, running } = this
    this.middle = this.possible[0]
    const fibers = program.together.map((fiber) => fiber.flatMap((command) => {
      const chosen = this.payload(command)
      return chosen === undefined ? [] : [{ command, payload: chosen.payload }]
    })).filter((fiber) => fiber.length > 0)
    if (fibers.length === 0) return undefined
    yield* Playing.askingTogether(fibers.map((fiber) => fiber.map(({ command: { event }, payload }) => ({ event, payload }))))(running)
    this.millis = yield* Playing.unfolding(running)
    let at = running.together
    this.together = fibers.map((fiber) => fiber.flatMap(({ command, payload }) => {
      const call = running.calls[at++]
      return call === undefined ? [] : [{ command, payload, call, told: undefined }]
    }))
    const all = this.together.flat()
    for (const one of all) {
      const broken = yield* judge(running, one)
      if (broken !== undefined) return broken
    }
    const ends = fitting(this.possible[0], all.map(({ call, command, payload }) => ({ call, payload, next: command.modelled.next, reply: replyOf(call) })))
    if (ends.length > 0) {
      this.possible = ends
      return undefined
    }
    return yield* problem("order", Playing.failed(running, `no order of what was asked together explains what came of it, each list in turn:${
      this.together.map((fiber) => `\n  ${fiber.map(({ call: { event, exit } }) => `${event.name} ${exit === undefined ? "" : JSON.stringify(Playing.toldOf(exit))}`).join(", then ")}`).join("")
    }`))
  }

  /** Looks at what must be so in the end. */
  private *atTheEnd() {
    const { plan, possible, running } = this
    for (const call of running.calls) call.isLooked = true
    const broken = yield* problem("end", Expectations.ending(running))
    if (broken !== undefined) return broken
    const wanted = possible.map(plan.states)
    for (const states of wanted) {
      let holds = true
      for (const each of states) holds &&= yield* each.holds(running)
      if (holds) return undefined
    }
    this.states = wanted[0] ?? []
    const expecting = Effect.forEach(this.states, ({ expectation }) => expectation(running))
    return yield* problem("state", expecting)
  }

  private *all() {
    for (const command of this.program.before) {
      const broken = yield* this.alone(command, this.before)
      if (broken !== undefined) return broken
    }
    if (this.program.together.length > 0) {
      const broken = yield* this.atOnce()
      if (broken !== undefined) return broken
    }
    for (const command of this.program.after) {
      const broken = yield* this.alone(command, this.after)
      if (broken !== undefined) return broken
    }
    return yield* this.atTheEnd()
  }

  get played(): Effect.Effect<Played> {
    const playing: Effect.Effect<Problem | undefined, Playing.ScenarioFailed> = Effect.gen({ self: this }, function*() {
      return yield* this.all()
    })
    const toldOf = (broken: Problem | undefined): Played => {
      const { after, before, middle, millis, states, together } = this
      return { program: this.program, problem: broken, trace: { before, together, millis, after, middle, states } }
    }
    return Effect.match(playing, { onFailure: (error) => toldOf({ kind: "stopped", error }), onSuccess: toldOf })
  }
}

/** Plays a program on an app of its own. */
export const play = (start: Effect.Effect<Stage.Stage, unknown>, plan: Plan, program: Program): Effect.Effect<Played> =>
  Effect.gen(function*() {
    const stage = yield* Effect.orDie(start)
    const running = Playing.running(stage)
    const played = yield* Effect.onError(new Player(plan, program, running).played, () => stage.end)
    const hasEnded = yield* stage.end
    if (hasEnded || played.problem !== undefined) return played
    return { ...played, problem: yield* problem("end", Playing.failed(running, "the app does not end: it waits for something outside, or for longer than an hour")) }
  })
