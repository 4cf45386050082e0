/**
 * Given what has happened, when something is asked, then this follows: scenarios on an app's real handlers, middleware and
 * permissions, on the real bus and an event store in memory, with a clock that only the scenario moves.
 *
 * The rule: a scenario changes nothing but the surroundings. What it asks goes through the door that every surface uses (name,
 * permission, payload, middleware, handlers, reply), as JSON and back; it has an app of its own; it goes the same way each time.
 *
 * **Example**
 *
 * ```ts
 * const stock = KsiTest.layer(Ksi.serve(Stock).pipe(Layer.provide(StockHandlers)))
 * const tooMuch = KsiTest.scenario
 *   .given(Reserved.of({ sku: "tea", quantity: 1 }))
 *   .when(Reserve, { sku: "tea", quantity: 4 })
 *   .thenFails("OutOfStock", ({ left }) => left === 3)
 *   .thenEmits()
 * yield* Effect.provide(tooMuch, stock)
 * ```
 *
 * **Gotchas** `given` is history: no handler runs. `givenCall` runs one. The facts that a `then` looks at are those since the last
 * `when` or `thenAfter`. What waits for something outside (a file, a timer of node) has `outsideMillis` of real time, and is then told to
 * be missing. A `when` that did not succeed, and at whose outcome no `then` looked, fails the scenario; so does a reaction that failed,
 * or never ended, where no `thenReactionFails` looked at it. What is asked together (`whenTogether`) goes in the order of arrival
 * where no seed chooses another.
 *
 * Source: seed section 11; AxonTestFixture, Emmett.
 */
import * as Arbitrary from "effect/Arbitrary"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { handle } from "../bus/Router.ts"
import type * as Event from "../event/Event.ts"
import type { RequestHandler } from "../event/EventGroup.ts"
import * as Grant from "../event/Grant.ts"
import * as KsiError from "../event/KsiError.ts"
import type { Runtime } from "../Ksi.ts"
import { Permissions } from "../store/Permissions.ts"
import type { Projection } from "../store/Projection.ts"
import * as Expectations from "./internal/expectations.ts"
import * as Laws from "./internal/laws.ts"
import * as Playing from "./internal/playing.ts"
import * as Stage from "./internal/stage.ts"

// ------------------------------------------------------------------------------------------------------------- models

export { ScenarioFailed } from "./internal/playing.ts"

/** How scenarios begin. */
export interface Options {
  /** What the clock says, in milliseconds since 1970. Default: the beginning of 2020. */
  readonly startAt?: number | undefined
  /** Chooses an order of what happens at the same time. Default: that of arrival. */
  readonly seed?: number | undefined
  /**
   * How long something outside (a file, a timer of node) may take to go on, in milliseconds of real time at least. Default: 100. Nothing
   * is waited for where everything has ended; where a call or reaction sleeps, nobody knows what else may come, and each `when` and
   * each time that somebody wakes takes this long. 0 for an app that waits for nothing outside.
   */
  readonly outsideMillis?: number | undefined
  /**
   * Whether a scenario may have the app of one before it, where that has ended clean: nothing goes on, nobody follows, nobody was
   * granted anything. What KSI keeps is forgotten, time and order begin anew; what handlers keep in their own layers stays. For apps
   * whose state is in the store: several times as many scenarios a second. Scenarios with mocks have an app of their own. Default: false.
   */
  readonly reuse?: boolean | undefined
}

type App = Layer.Layer<never, unknown, Runtime>

/** How one scenario begins where it is another way than all. */
export interface Starting {
  /** Chooses the order of what happens at the same time. */
  readonly seed?: number | undefined
  /** Whether nothing of it is logged. */
  readonly isQuiet?: boolean | undefined
}

/** What scenarios are played on. */
export class KsiTest extends Context.Service<KsiTest, {
  /** Starts the app, anew for each scenario, with these before it; in the order of a seed where one is given, and not in the layer's. */
  readonly start: (mocks: ReadonlyArray<App>, options?: Starting) => Effect.Effect<Stage.Stage, unknown>
}>()("ksi/testing/KsiTest") {}

// --------------------------------------------------------------------------------------------------------------- layer

const year2020 = 1_577_836_800_000

/** What belongs to a world, and is not taken over from outside of it. */
const own = [Clock.Clock, Random.Random, Scheduler.Scheduler, Scope.Scope, Tracer.ParentSpan] as const

/**
 * Plays scenarios on an app. Its services come from around this layer, all but those of the runtime itself. An app that does not start
 * makes every scenario die of its error.
 */
export const layer = <E, R>(
  app: Layer.Layer<never, E, R>,
  { outsideMillis = 100, reuse = false, ...options }: Options = {}
): Layer.Layer<KsiTest, never, Exclude<R, Runtime>> =>
  Layer.effect(KsiTest, Effect.gen(function*() {
    // The type of this layer asks for whatever the app needs beyond the runtime: it is all in the context.
    const outside = Context.omit(...own)((yield* Effect.context<Exclude<R, Runtime>>()) as Context.Context<never>)
    const appWith = (mocks: ReadonlyArray<App>) => mocks.reduceRight<App>((above, mock) => Layer.provideMerge(above, mock), app as App) // as above
    const anew: KsiTest["Service"]["start"] = (mocks, { isQuiet = false, seed = options.seed } = {}) =>
      Stage.make(appWith(mocks), outside, { startAt: year2020, ...options, seed, isQuiet, patience: outsideMillis })
    const again = Stage.reusing(anew([]))
    yield* Effect.addFinalizer(() => again.close)
    const isUsual = ({ isQuiet, seed }: Starting) => isQuiet !== true && seed === undefined
    return KsiTest.of({
      start: (mocks, starting = {}) => reuse && mocks.length === 0 && isUsual(starting) ? again.start : anew(mocks, starting)
    })
  }))

// --------------------------------------------------------------------------------------------------------------- mocks

/** A handler that stands in for the app's, behind the same middleware; it answers first, so that the app's own is not asked. */
export interface Mock<in out Ev extends Event.AnyRequest> {
  readonly event: Ev
  readonly handler: RequestHandler<Ev>
}

/** Makes a stand-in for the handlers of a request. */
export const mock = <Ev extends Event.AnyRequest>(event: Ev, handler: RequestHandler<Ev>): Mock<Ev> => ({ event, handler })

type AnyMock = Mock<never>

const layerOf = (stand: AnyMock, called: Playing.Called): App => {
  // A mock of any event: what it is called with is what its own event says.
  const { event, handler } = stand as unknown as Mock<Event.AnyRequest>
  const calls: Array<unknown> = []
  called.set(stand, calls)
  const noting = (payload: unknown, ...rest: ReadonlyArray<unknown>) => {
    // As it is now: the handler may change it.
    calls.push(Playing.jsonOf(event.payload, payload))
    return (handler as (...all: ReadonlyArray<unknown>) => unknown)(payload, ...rest) // whatever it takes
  }
  // The services of a mock are the runtime's, or its type would not have been accepted.
  return handle(event, noting as never, { execution: "sequential", name: `mock of ${event.name}` }) as App
}

// ------------------------------------------------------------------------------------------------------------ scenario

type Tags<E> = E extends { readonly _tag: infer T extends string } ? T : never

/** A scenario: an effect that fails with `ScenarioFailed` where it does not go as it should. */
export interface Scenario extends Effect.Effect<void, Playing.ScenarioFailed, KsiTest> {
  /** Stand-ins for handlers of the app; of two of the same event the later one. */
  readonly with: (...mocks: ReadonlyArray<{ readonly event: Event.AnyRequest }>) => Scenario
  /** Who asks from here on; `grants` are patterns that it may use. Default: `owner`. */
  readonly as: (principal: string, options?: { readonly profile?: Grant.ProfileName; readonly grants?: ReadonlyArray<string> }) => Scenario
  /** What has happened before: facts are stored, and nobody reacts to them. */
  readonly given: (...facts: ReadonlyArray<Event.FactOf<Event.AnyFact>>) => Scenario
  /** What happens at the same time goes in the order of this seed; without it, in that of the layer. */
  readonly withSeed: (seed: number) => Scenario
  /** What was asked before, and must have succeeded. */
  readonly givenCall: <Ev extends Event.AnyRequest>(event: Ev, payload: PayloadOf<Ev>) => Scenario
  /** Asks a request, or says a fact. What its schema does not take is sent as it is, and refused. */
  readonly when: {
    <Ev extends Event.AnyRequest>(event: Ev, payload: PayloadOf<Ev>): Asked<Ev>
    <Ev extends Event.AnyFact>(fact: Event.FactOf<Ev>): Then
  }
  /** Asks several at the same time; those of one list in turn, each when the one before has answered. */
  readonly whenTogether: (...fibers: ReadonlyArray<AskOf | ReadonlyArray<AskOf>>) => Then
}

/** What was answered before, to those that build on it. */
export type Earlier = Playing.Earlier

/** A payload, or what makes it of what was answered before: `({ reply }) => ({ holdId: reply(Hold).holdId })`. */
export type PayloadOf<Ev extends Event.AnyRequest> = Event.PayloadInput<Ev> | ((earlier: Earlier) => Event.PayloadInput<Ev>)

/** A request with its payload, as `ask` makes it, or a fact with its own. */
export interface AskOf<out Ev extends Event.Any = Event.Any> {
  readonly event: Ev
  readonly payload: unknown
}

/** A request with its payload, to be asked together with others. */
export const ask = <Ev extends Event.AnyRequest>(event: Ev, payload: PayloadOf<Ev>): AskOf<Ev> => ({ event, payload })

/**
 * A fact with these fields, whatever else it has: for `thenEmits`, where a handler makes up the rest (an id, a time). Its payload
 * is a struct.
 */
export const like = <Ev extends Event.AnyFact>(event: Ev, fields: Partial<Event.Payload<Ev>>): Expectations.FactLike<Ev> => ({ event, like: fields as object }) // of a struct

export { type Answer, type Expected, type FactLike, type StateOf, stateOf } from "./internal/expectations.ts"

/** What can be expected of everything that was asked or said. What did not succeed fails where nothing here looks at how it ended. */
export interface Then extends Scenario {
  /** KSI itself refuses it, and no handler's answer counts: `PayloadInvalid`, `DeadlineExceeded`, … */
  readonly thenRefused: <T extends KsiError.Reason["_tag"]>(tag: T, holds?: (reason: Extract<KsiError.Reason, { readonly _tag: T }>) => boolean) => this
  /** Who asks may not. */
  readonly thenDenied: () => this
  /** These facts came of it, in this order, and no others. */
  readonly thenEmits: (...facts: ReadonlyArray<Expectations.Expected>) => this
  /** These facts came of it, among others. */
  readonly thenEmitsAmongOthers: (...facts: ReadonlyArray<Expectations.Expected>) => this
  /** The state of one stream, as a projection folds it; where it has no facts, the projection's initial one. */
  readonly thenState: <S>(projection: Projection<S>, streamId: string, expected: NoInfer<S> | ((state: NoInfer<S>) => boolean)) => this
  /** The mock was called with exactly these payloads, since the scenario began. */
  readonly thenCalled: <Ev extends Event.AnyRequest>(mock: Mock<Ev>, ...payloads: ReadonlyArray<Event.PayloadInput<Ev>>) => this
  /** A reaction to this fact failed: a handler that fails, breaks or takes too long. Where nothing expects that, the scenario fails. */
  readonly thenReactionFails: (event: Event.AnyFact, holds?: (error: string) => boolean) => this
  /**
   * Everything since the last `whenTogether` ended as in one of these lists: an answer for each that was asked, in the order in which
   * it stands there, and then states. Several are right where any order is.
   */
  readonly thenOneOf: (...lists: ReadonlyArray<ReadonlyArray<Expectations.Answer | Expectations.StateOf>>) => this
  /** Lets time pass. What follows looks at what happened meanwhile. */
  readonly thenAfter: (duration: Duration.Input) => this
}

/** What can be expected of a request. */
export interface Asked<Ev extends Event.AnyRequest> extends Then {
  /** It replies this, or what the predicate accepts. */
  readonly thenReplies: (expected: Event.Success<Ev> | ((reply: Event.Success<Ev>) => boolean)) => this
  /** It fails with an error that it, or its middleware, declares. */
  readonly thenFails: <T extends Tags<Event.Failure<Ev>>>(
    tag: T,
    holds?: (error: Extract<Event.Failure<Ev>, { readonly _tag: T }>) => boolean
  ) => this
}

const granting = (principal: string, { grants = [], profile }: { readonly profile?: Grant.ProfileName; readonly grants?: ReadonlyArray<string> }) =>
  Effect.gen(function*() {
    const { grant } = yield* Permissions
    if (profile !== undefined) yield* grant({ by: Grant.owner, principal, profile })
    for (const pattern of grants) yield* grant({ by: Grant.owner, principal, rule: { pattern, actions: Grant.actions, allow: true } })
  })

const always = () => true

interface Surroundings {
  readonly mocks: ReadonlyArray<AnyMock>
  readonly seed: number | undefined
}

class Built {
  private readonly steps: ReadonlyArray<Playing.Step>
  private readonly around: Surroundings
  private readonly event: Event.Any | undefined

  constructor(steps: ReadonlyArray<Playing.Step>, around: Surroundings, event: Event.Any | undefined) {
    this.steps = steps
    this.around = around
    this.event = event
  }

  private and(step: Playing.Step, event = this.event): Built {
    return new Built([...this.steps, step], this.around, event)
  }

  private looking(step: Playing.Step): Built {
    return this.and(Expectations.expecting(step))
  }

  private get request(): Event.AnyRequest {
    // Only what follows the `when` of a request has these in its type.
    return this.event as Event.AnyRequest
  }

  with(...mocks: ReadonlyArray<AnyMock>) {
    // The last of an event stands in for it.
    const all = [...this.around.mocks, ...mocks] as unknown as ReadonlyArray<Mock<Event.AnyRequest>> // as in `layerOf`
    const kept = all.filter(({ event: { name } }, index) => all.findLastIndex(({ event }) => event.name === name) === index)
    return new Built(this.steps, { ...this.around, mocks: kept as unknown as ReadonlyArray<AnyMock> }, this.event) // the same ones
  }

  withSeed(seed: number) {
    return new Built(this.steps, { ...this.around, seed }, this.event)
  }

  as(principal: string, options: { readonly profile?: Grant.ProfileName; readonly grants?: ReadonlyArray<string> } = {}) {
    return this.and((running) => {
      running.principal = principal
      return Playing.must(running, `granting to ${principal}`, granting(principal, options))
    })
  }

  given(...facts: ReadonlyArray<Event.FactOf<Event.AnyFact>>) {
    return this.and((running) => Playing.must(running, "what was given", Playing.history(facts)))
  }

  givenCall(event: Event.AnyRequest, payload: unknown) {
    return this.and(Expectations.overlooked).and(Playing.asking({ event, payload })).and(Expectations.given)
  }

  when(what: Event.AnyRequest | Event.FactOf<Event.AnyFact>, payload?: unknown) {
    const asked = "event" in what ? what : { event: what, payload }
    return this.and(Expectations.overlooked).and(Playing.asking(asked), asked.event)
  }

  whenTogether(...fibers: ReadonlyArray<AskOf | ReadonlyArray<AskOf>>) {
    const lists = fibers.map((each) => "event" in each ? [each] : each)
    return this.and(Expectations.overlooked).and(Playing.askingTogether(lists))
  }

  thenReplies(expected: unknown) {
    return this.looking(Expectations.reply(this.request, expected))
  }

  thenFails(tag: string, holds: (error: never) => boolean = always) {
    return this.looking(Expectations.failure(this.request, tag, holds))
  }

  thenRefused(tag: string, holds: (reason: never) => boolean = always) {
    return this.looking(Expectations.refusal(tag, holds))
  }

  thenDenied() {
    return this.looking(Expectations.refusal("PermissionDenied", always))
  }

  thenEmits(...facts: ReadonlyArray<Expectations.Expected>) {
    return this.looking(Expectations.facts(facts, true))
  }

  thenEmitsAmongOthers(...facts: ReadonlyArray<Expectations.Expected>) {
    return this.looking(Expectations.facts(facts, false))
  }

  thenState<S>(projection: Projection<S>, streamId: string, expected: S | ((state: S) => boolean)) {
    return this.looking(Expectations.state(projection, streamId, expected))
  }

  thenCalled(stand: AnyMock, ...payloads: ReadonlyArray<unknown>) {
    // Any mock, as in `layerOf`.
    return this.looking(Expectations.calls((stand as unknown as Mock<Event.AnyRequest>).event, stand, payloads))
  }

  thenReactionFails(event: Event.AnyFact, holds: (error: string) => boolean = always) {
    return this.looking(Expectations.reactionFails(event, holds))
  }

  thenOneOf(...lists: ReadonlyArray<ReadonlyArray<Expectations.Answer | Expectations.StateOf>>) {
    return this.looking(Expectations.oneOf(lists))
  }

  thenAfter(duration: Duration.Input) {
    return this.and(Playing.passing(duration))
  }

  get run(): Effect.Effect<void, Playing.ScenarioFailed, KsiTest> {
    return Effect.gen({ self: this }, function*() {
      const { start } = yield* KsiTest
      const called: Playing.Called = new Map()
      const { mocks, seed } = this.around
      const stage = yield* Effect.orDie(start(mocks.map((each) => layerOf(each, called)), { seed }))
      const running = Playing.running(stage, called)
      const played = Effect.forEach([...this.steps, Expectations.ending], (step) => step(running), { discard: true })
      const hasEnded = yield* Effect.andThen(Effect.onError(played, () => stage.end), stage.end)
      if (!hasEnded) yield* Playing.failed(running, "the app does not end: it waits for something outside, or for longer than an hour")
    })
  }
}
Object.setPrototypeOf(Built.prototype, Effectable.Prototype<Effect.Effect<void, Playing.ScenarioFailed, KsiTest> & Built>({
  label: "KsiTest.scenario",
  evaluate() {
    return this.run
  }
}))

/** The beginning of every scenario: an app that has just started. */
export const scenario: Scenario = new Built([], { mocks: [], seed: undefined }, undefined) as unknown as Scenario // by its prototype

// ---------------------------------------------------------------------------------------------------------------- laws

export type { Outcome } from "./internal/laws.ts"

/** How often a law is tried, and with which payloads. */
export interface LawOptions {
  /** Default: 100. */
  readonly runs?: number | undefined
  /** The same seed makes the same payloads. Default: 0. */
  readonly seed?: number | undefined
  /** The `Replay` that a failure names: this payload only. */
  readonly replay?: string | undefined
  /** Stand-ins for handlers of the app. */
  readonly mocks?: ReadonlyArray<{ readonly event: Event.AnyRequest }> | undefined
}

/** And after what. */
export interface PropertyOptions extends LawOptions {
  /** What has happened before. */
  readonly given?: ReadonlyArray<Event.FactOf<Event.AnyFact>> | undefined
}

// Each is one that `mock` made.
const layersOf = (mocks: ReadonlyArray<object>) => mocks.map((each) => layerOf(each as AnyMock, new Map()))

const lawBroken = (message: string, actual: unknown) => Effect.fail(new Playing.ScenarioFailed({ message, expected: undefined, actual }))

/**
 * A law that holds for every payload of a request: each is asked of an app of its own, on the history given. Where it does not
 * hold, the least payload that was found is told, and how to come back to it.
 */
export const property = <Ev extends Event.AnyRequest>(
  event: Ev,
  law: (outcome: Laws.Outcome<Ev>, payload: Event.Payload<Ev>) => boolean,
  { given = [], mocks = [], runs = 100, seed = 0, ...options }: PropertyOptions = {}
): Effect.Effect<void, Playing.ScenarioFailed, KsiTest> =>
  Effect.gen(function*() {
    const { start } = yield* KsiTest
    const holds = (payload: unknown) =>
      Effect.gen(function*() {
        const stage = yield* Effect.orDie(start(layersOf(mocks)))
        const before = yield* stage.play(Playing.history(given))
        if (before === undefined || Exit.isFailure(before)) {
          yield* stage.end
          return yield* Effect.fail(`what was given ${before === undefined ? "does not end" : `failed: ${KsiError.sentenceOf(Cause.squash(before.cause))}`}`)
        }
        const exit = yield* Laws.dispatch(stage, event, Playing.jsonOf(event.payload, payload))
        const hasEnded = yield* stage.end
        if (exit === undefined) return yield* Effect.fail(`${event.name} never answers, or what it caused never ends`)
        if (!hasEnded) return yield* Effect.fail("the app does not end")
        const outcome = Laws.outcomeOf(event, exit)
        if (outcome === undefined) return yield* Effect.fail(`${event.name} broke: ${JSON.stringify(Playing.toldOf(exit))}`)
        // Both are of this event.
        return law(outcome as Laws.Outcome<Ev>, payload as Event.Payload<Ev>)
      })
    const result = yield* Arbitrary.checkEffect(Laws.payloads(event), holds, { runs, seed, ...options })
    const failure = Arbitrary.formatCheckFailure(result)
    if (failure !== undefined) yield* lawBroken(`the law does not hold for ${event.name}\n${failure}`, result)
  })

/**
 * The laws that hold for every event: a payload that its schema does not allow is refused before anything comes of it; a reply is what
 * was promised; nothing breaks, and everything ends within an hour; what is caused keeps its correlation; what may be asked twice says
 * no further fact the second time, and where it said one, replies the same.
 */
export const fuzz = (
  group: { readonly events: Readonly<Record<string, Event.Any>> },
  { mocks = [], runs = 25, seed = 0, ...options }: LawOptions = {}
): Effect.Effect<void, Playing.ScenarioFailed, KsiTest> =>
  Effect.gen(function*() {
    const { start } = yield* KsiTest
    for (const event of Object.values(group.events)) {
      // A stream has no one reply.
      if (event.kind === "request" && event.mode === "stream") continue
      let nth = seed
      const holds = (payload: unknown) =>
        Effect.flatMap(Laws.tryOne(start(layersOf(mocks)), event, payload, nth++), (problem) => problem === undefined ? Effect.succeed(true) : Effect.fail(problem))
      const result = yield* Arbitrary.checkEffect(Laws.payloads(event), holds, { runs, seed, ...options })
      const failure = Arbitrary.formatCheckFailure(result)
      if (failure !== undefined) yield* lawBroken(`a law does not hold for ${event.name}\n${failure}`, result)
    }
  })
