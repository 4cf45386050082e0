/**
 * Commands that a seed chooses, asked of an app one after another or at the same time, and held against a model: a small pure function
 * that says what must come of each. What does not fit is made smaller and told as a scenario that can be pasted into a test.
 *
 * The rule: what is told is what happened. The scenario asks the same, in the same order of the same seed, through the same steps; it
 * fails as long as the app is wrong, and passes when it is right.
 *
 * **Example**
 *
 * ```ts
 * const stock = Commands.model(Stock, {
 *   initial: { left: 3 },
 *   commands: {
 *     // What must come of it in this state, and the state after it.
 *     "stock:reserve": ({ left }, { quantity }, must) => quantity > left
 *       ? must.fail("OutOfStock")
 *       : must.succeed({ left: left - quantity })
 *   },
 *   payloads: { "stock:reserve": (_, pick) => ({ sku: "tea", quantity: pick([1, 2, 3]) }) }
 * })
 * const app = KsiTest.layer(Ksi.serve(Stock).pipe(Layer.provide(StockHandlers)), { outsideMillis: 0 })
 * // These handlers forget what they have given out.
 * const { scenario } = yield* Effect.flip(Effect.provide(Commands.check(stock), app))
 * scenario?.split("\n")
 * // => ["// Reserve is stock:reserve", "KsiTest.scenario", "  .givenCall(Reserve, { sku: \"tea\", quantity: 2 })", "  .when(Reserve, { sku: \"tea\", quantity: 2 })", "  .thenFails(\"OutOfStock\")"]
 * ```
 *
 * With `fibers`, some are asked at the same time, in an order that the seed chooses: then what came must fit some order of them, one
 * after another, in which each had ended before any that began later (they are *linearisable*). Without a model, the laws hold that hold for every
 * app: nothing breaks, replies are what was promised, everything ends within an hour, no reaction fails, no fact is missing.
 *
 * **Gotchas** Only the commands that the model names are asked. What a handler makes up (an id) is not the model's to say: `replyLike`
 * leaves it open, and the state after it may be made of the reply. A text in a payload that `payloads` chose, and that was replied
 * before, is told as `reply(Hold).holdId`. An app keeps nothing outside of it from one scenario to the next, or nothing is the same twice.
 *
 * Source: seed section 11; Hypothesis (stateful), Quviq QuickCheck (parallel state machines), Wing and Gong 1993.
 */
import * as Effect from "effect/Effect"
import type * as Event from "../event/Event.ts"
import type { AnyGroup, EventGroup } from "../event/EventGroup.ts"
import * as KsiError from "../event/KsiError.ts"
import type { Answer, StateOf } from "./internal/expectations.ts"
import { payloads } from "./internal/laws.ts"
import { checkWhole, mostSeed } from "./internal/options.ts"
import type { Told } from "./internal/orders.ts"
import { jsonOf, ScenarioFailed } from "./internal/playing.ts"
import * as Program from "./internal/program.ts"
import * as Search from "./internal/search.ts"
import * as Written from "./internal/written.ts"
import { KsiTest } from "./KsiTest.ts"

// ------------------------------------------------------------------------------------------------------------- models

type Tags<E> = E extends { readonly _tag: infer T extends string } ? T : never

/** What must come of a command, and the state after it. */
export interface Outcome<out S> {
  readonly "~ksi/Outcome": Told
  /** Only a type. */
  readonly "~state"?: S
}

/** What must come of an event, and the state after it; where none is given, it stays as it is. */
export interface Must<in Ev extends Event.Any, S> {
  /** Reply, whatever it is; or be stored, where it is a fact. */
  readonly succeed: (next?: S | ((reply: ReplyOf<Ev>) => S)) => Outcome<S>
  /** Reply this: the reply first, then the state after it. */
  readonly reply: (reply: ReplyOf<Ev>, next?: S) => Outcome<S>
  /** Reply something that has these fields; what else there is in it is the handler's to say. */
  readonly replyLike: (part: Partial<ReplyOf<Ev>>, next?: S | ((reply: ReplyOf<Ev>) => S)) => Outcome<S>
  /** Fail with an error that it, or its middleware, declares. */
  readonly fail: (tag: Ev extends Event.AnyRequest ? Tags<Event.Failure<Ev>> : never, next?: S) => Outcome<S>
  /** Be refused by KSI. */
  readonly beRefused: (tag: KsiError.Reason["_tag"], next?: S) => Outcome<S>
}

/** The reply to a request; a fact has none. */
export type ReplyOf<Ev extends Event.Any> = Ev extends Event.AnyRequest ? Event.Success<Ev> : never

/** One of these, as the seed says. Of none: the command is left out. */
export type Pick = <A>(items: ReadonlyArray<A>) => A

/** What must come of a command in a state. Pure: it is asked many times. */
export type Next<Ev extends Event.Any, S> = (state: S, payload: Event.Payload<Ev>, must: Must<Ev, S>) => Outcome<S>

/** What must come of each command, by the name of its event. */
export type Nexts<Evs extends Event.Any, S> = { readonly [Ev in Evs as Ev["name"]]: Next<Ev, S> }

/**
 * A payload that makes sense in this state, of what the schema made. Commands at the same time have theirs made of the state before all
 * of them.
 */
export type Choice<Ev extends Event.Any, S> = (state: S, pick: Pick, made: Event.Payload<Ev>) => Event.PayloadInput<Ev>

/** What makes payloads, by the name of the event; what its schema allows where there is none. */
export type Choices<Evs extends Event.Any, S> = { readonly [Ev in Evs as Ev["name"]]: Choice<Ev, S> }

/** What an app should do. */
export interface Model {
  readonly "~ksi/Model": Program.Plan
  readonly group: AnyGroup
}

// ---------------------------------------------------------------------------------------------------------------- model

const told = (answer: Answer, next: unknown): Outcome<unknown> => ({
  "~ksi/Outcome": {
    answer,
    // A state is data: what is a function makes one of the reply.
    next: (reply) => typeof next === "function" ? (next as (reply: unknown) => unknown)(reply) : next,
    needsReply: typeof next === "function"
  }
})

/** The reply, where it is one. */
const promised = (event: Event.Any, reply: unknown): unknown => {
  if (event.kind === "fact") throw new TypeError(`the model says that ${event.name} replies, and a fact has no reply`)
  try {
    jsonOf(event.success, reply)
    return reply
  } catch (cause) {
    throw new TypeError(`the model says a reply of ${event.name} that is none: ${KsiError.sentenceOf(cause)}`, { cause })
  }
}

const mustIn = (event: Event.Any, state: unknown): Must<Event.AnyRequest, unknown> => ({
  succeed: (next = state) => told({ done: true }, next),
  reply: (reply, next = state) => told({ reply: promised(event, reply) }, next),
  replyLike: (part, next = state) => told({ replyLike: Object(part) }, next),
  fail: (tag, next = state) => told({ fails: tag }, next),
  beRefused: (tag, next = state) => told({ refused: tag }, next)
})

/** Thrown by `pick` where there is nothing to pick from. */
const nothing = new Error("there is nothing to pick from")

const picker = (picks: ReadonlyArray<number>): Pick => {
  let nth = 0
  return (items) => {
    const at = Math.floor((picks[nth++ % picks.length] ?? 0) * items.length)
    if (items.length === 0) throw nothing
    // There is one at this place.
    return items[at] as typeof items[number]
  }
}

type AnyNext = Next<Event.AnyRequest, unknown>
type AnyChoice = Choice<Event.AnyRequest, unknown>

const modelled = (event: Event.Any, next: AnyNext, choice: AnyChoice | undefined): Program.Modelled => ({
  made: payloads(event),
  isChosen: choice !== undefined,
  payload: (state, picks, made) => {
    if (choice === undefined) return { payload: made }
    try {
      return { payload: event.payload.make(choice(state, picker(picks), made)) }
    } catch (error) {
      if (error === nothing) return undefined
      throw error
    }
  },
  next: (state, asked) => next(state, asked, mustIn(event, state))["~ksi/Outcome"]
})

/**
 * A model of an app: the state in the beginning, what must come of each command, and, if one likes, what projections must make of it all
 * in the end (`KsiTest.stateOf`).
 */
export const model = <Evs extends Event.Any, S>(
  group: EventGroup<Evs>,
  options: {
    readonly initial: S
    // Not `?` in the mapped types themselves: the parameters of their functions would be implicit.
    readonly commands: Partial<Nexts<Evs, NoInfer<S>>>
    readonly payloads?: Partial<Choices<Evs, NoInfer<S>>>
    readonly states?: (state: NoInfer<S>) => ReadonlyArray<StateOf>
  }
): Model => {
  // Each of these is that of the event of its name.
  const commands = Object.entries(options.commands as Readonly<Record<string, AnyNext | undefined>>)
  const choices = (options.payloads ?? {}) as Readonly<Record<string, AnyChoice | undefined>>
  // States are only ever those that the model itself has made.
  const states = options.states as ((state: unknown) => ReadonlyArray<StateOf>) | undefined
  const events: Readonly<Record<string, Event.Any>> = group.events
  return {
    group,
    "~ksi/Model": {
      initial: options.initial,
      states: states ?? (() => []),
      commands: commands.flatMap(([name, next]) => {
        const event = events[name]
        if (event === undefined) throw new TypeError(`the model says something of ${name}, which the group does not have`)
        if (event.kind === "request" && event.mode === "stream") throw new TypeError(`${name} is a stream, which has no one reply`)
        return next === undefined ? [] : [[event, modelled(event, next, choices[name])] as const]
      })
    }
  }
}

/** The laws that hold for every app, as a model. */
const lawful = (group: AnyGroup): Model => ({
  group,
  "~ksi/Model": {
    initial: undefined,
    states: () => [],
    commands: Object.values(group.events).filter((event) => event.kind === "fact" || event.mode === "call").map((event) => [event, {
      made: payloads(event), isChosen: false, payload: (_, __, made) => ({ payload: made }), next: undefined
    }])
  }
})

// ---------------------------------------------------------------------------------------------------------------- check

/** How commands are tried. */
export interface Options {
  /** How many programs. Default: 100. */
  readonly runs?: number | undefined
  /** The seed of the first program; each other has the next one. Default: 0. */
  readonly seed?: number | undefined
  /** Commands in turn, at most. Default: 20. */
  readonly maxCommands?: number | undefined
  /** How many are asked at the same time, at most 8, each up to three in turn. Default: 1, which is all in turn. */
  readonly fibers?: number | undefined
}

// Orders of more take too long to look through.
const mostFibers = 8

const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`

/**
 * Asks commands of an app, each program of an app of its own. Fails with `ScenarioFailed` where what came is not what the model says: its
 * `scenario` is the least that was found to show it, as text to be pasted. The same seed finds the same.
 */
export const check = (
  what: Model | AnyGroup,
  { fibers = 1, maxCommands = 20, runs = 100, seed = 0 }: Options = {}
): Effect.Effect<void, ScenarioFailed, KsiTest> =>
  Effect.gen(function*() {
    const { start } = yield* KsiTest
    const { "~ksi/Model": plan, group } = "~ksi/Model" in what ? what : lawful(what)
    checkWhole("runs", runs, 1, mostSeed)
    checkWhole("seed", seed, 0, mostSeed)
    checkWhole("maxCommands", maxCommands, 1, 1000)
    checkWhole("fibers", fibers, 1, mostFibers)
    if (plan.commands.length === 0) throw new Error("there is no command to ask: the model names none, or the group has only streams")
    const play = (program: Program.Program) => Program.play(start([], { seed: program.order, isQuiet: true }), plan, program)
    for (let nth = seed; nth < seed + runs; nth++) {
      const first = yield* play(yield* Search.make(plan, { maxCommands, fibers }, nth))
      if (first.problem === undefined) continue
      const { played, tries } = yield* Search.shrink(play, first)
      const { error } = played.problem ?? first.problem
      const scenario = Written.scenario({ ...plan, names: Object.keys(group.events) }, played)
      const found = `found by the seed ${nth} with ${counted(Search.length(first.program), "command")}, ${counted(Search.length(played.program), "command")} after ${counted(tries, "try").replace("trys", "tries")}`
      // What is wrong is told as a whole, before what shows it.
      const [problem = "", ...happened] = error.message.split("\n\n")
      const message = [`${problem}\n(${found})`, scenario, ...happened].join("\n\n")
      return yield* new ScenarioFailed({ message, expected: error.expected, actual: error.actual, scenario })
    }
  })
