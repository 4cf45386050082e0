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
 * be missing. A `when` that did not succeed, and at whose outcome no `then` looked, fails the scenario.
 *
 * Source: seed section 11; AxonTestFixture, Emmett.
 */
import * as Arbitrary from "effect/Arbitrary"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { DeclaredFailure, type Dispatched } from "../bus/KsiService.ts"
import { handle, Router } from "../bus/Router.ts"
import type { Delivery } from "../event/Envelope.ts"
import * as Event from "../event/Event.ts"
import { jsonCodec } from "../event/EventCodec.ts"
import type { RequestHandler } from "../event/EventGroup.ts"
import * as Grant from "../event/Grant.ts"
import * as Json from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import type { Runtime } from "../Ksi.ts"
import { EventStore } from "../store/EventStore.ts"
import { Permissions } from "../store/Permissions.ts"
import type { Projection } from "../store/Projection.ts"
import * as TimeTravel from "../store/TimeTravel.ts"
import * as Laws from "./internal/laws.ts"
import * as Report from "./internal/report.ts"
import * as Stage from "./internal/stage.ts"

// ------------------------------------------------------------------------------------------------------------- models

/** A scenario did not go as it should; the message says what was expected, what came, and all that happened. */
export class ScenarioFailed extends Data.TaggedError("ScenarioFailed")<{
  readonly message: string
  readonly expected: unknown
  readonly actual: unknown
}> {}

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
}

type App = Layer.Layer<never, unknown, Runtime>

/** What scenarios are played on. */
export class KsiTest extends Context.Service<KsiTest, {
  /** Starts the app, anew for each scenario, with these before it. */
  readonly start: (mocks: ReadonlyArray<App>) => Effect.Effect<Stage.Stage, unknown>
}>()("ksi/testing/KsiTest") {}

// --------------------------------------------------------------------------------------------------------------- layer

const year2020 = 1_577_836_800_000

/** What belongs to a world, and is not taken over from outside of it. */
const own = [Clock.Clock, Random.Random, Scheduler.Scheduler, Scope.Scope, Tracer.ParentSpan] as const

/**
 * Plays scenarios on an app. Its services come from around this layer, all but those of the runtime itself. An app that does not start
 * makes every scenario die of its error.
 */
export const layer = <E, R>(app: Layer.Layer<never, E, R>, { outsideMillis = 100, ...options }: Options = {}): Layer.Layer<KsiTest, never, Exclude<R, Runtime>> =>
  Layer.effect(KsiTest, Effect.map(Effect.context<Exclude<R, Runtime>>(), (context) => {
    // The type of this layer asks for whatever the app needs beyond the runtime: it is all in the context.
    const outside = Context.omit(...own)(context as Context.Context<never>)
    const start = (mocks: ReadonlyArray<App>) => mocks.reduceRight<App>((above, mock) => Layer.provideMerge(above, mock), app as App) // as above
    return KsiTest.of({ start: (mocks) => Stage.make(start(mocks), outside, { startAt: year2020, ...options, patience: outsideMillis }) })
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
type Called = Map<AnyMock, Array<unknown>>

const layerOf = (stand: AnyMock, called: Called): App => {
  // A mock of any event: what it is called with is what its own event says.
  const { event, handler } = stand as unknown as Mock<Event.AnyRequest>
  const calls: Array<unknown> = []
  called.set(stand, calls)
  const noting = (payload: unknown, ...rest: ReadonlyArray<unknown>) => {
    // As it is now: the handler may change it.
    calls.push(jsonOf(event.payload, payload))
    return (handler as (...all: ReadonlyArray<unknown>) => unknown)(payload, ...rest) // whatever it takes
  }
  // The services of a mock are the runtime's, or its type would not have been accepted.
  return handle(event, noting as never, { execution: "sequential", name: `mock of ${event.name}` }) as App
}

// ------------------------------------------------------------------------------------------------------------- running

interface Running {
  readonly stage: Stage.Stage
  readonly called: Called
  principal: string
  /** The event that was asked last, and what came of it; `undefined` while it has not answered. */
  asked: Event.Any | undefined
  poll: () => Dispatched | undefined
  /** Whether an expectation has looked at what came of it. */
  isLooked: boolean
  /** Why it goes no further. */
  stopped: Stage.Stopped
  /** How much had happened when it was asked. */
  from: number
}

type Step = (running: Running) => Effect.Effect<void, ScenarioFailed>

const failed = ({ stage }: Running, headline: string, shown?: { readonly expected: unknown; readonly actual: unknown }) =>
  Effect.fail(new ScenarioFailed({
    message: Report.message(headline, shown && Report.difference(shown.expected, shown.actual), stage.happened),
    expected: shown?.expected,
    actual: shown?.actual
  }))

/** Plays an effect that must end. */
const must = <A, E>(running: Running, what: string, effect: Effect.Effect<A, E, Runtime>): Effect.Effect<A, ScenarioFailed> =>
  Effect.flatMap(running.stage.play(effect), (exit) => {
    if (exit === undefined) return failed(running, `${what} does not end: it waits for the clock, or for something outside`)
    return Exit.isSuccess(exit) ? Effect.succeed(exit.value) : failed(running, `${what} failed: ${KsiError.sentenceOf(Cause.squash(exit.cause))}`)
  })

const jsonOf = (schema: Schema.Top, value: unknown): unknown => Schema.encodeUnknownSync(jsonCodec(schema))(value)

const ask = (running: Running, name: string, data: unknown) =>
  Effect.flatMap(Router, (router) => router.dispatch(router.envelope(name, data, { principal: running.principal })))

const history = (facts: ReadonlyArray<Event.FactOf<Event.AnyFact>>) =>
  Effect.gen(function*() {
    const store = yield* EventStore
    for (const { event, payload } of facts) yield* store.appendTo(event.streamId(payload), [{ name: event.name, data: jsonOf(event.payload, payload) }])
  })

/** As JSON; what the schema does not take is sent as it is, and refused at the door. */
const sent = (event: Event.Any, payload: unknown): unknown => {
  try {
    return jsonOf(event.payload, event.payload.make(payload))
  } catch {
    return payload
  }
}

const notForEver = (running: Running, stopped: Stage.Stopped): Effect.Effect<void, ScenarioFailed> =>
  stopped === "endless" ? failed(running, "something goes on for ever and lets no time pass: it was stopped after a million steps") : Effect.void

/** Goes on until all has ended, or nothing comes any more. */
const resting: Step = (running) =>
  Effect.flatMap(running.stage.rest(() => running.poll() !== undefined), (stopped) => {
    running.stopped = stopped
    return notForEver(running, stopped)
  })

/** Asks, waits for what can be waited for, and keeps what came of it. */
const asking = (event: Event.Any, payload: unknown): Step => (running) =>
  Effect.gen(function*() {
    yield* overlooked(running)
    running.from = running.stage.happened.length
    running.asked = event
    running.isLooked = false
    running.poll = running.stage.begin(ask(running, event.name, sent(event, payload)))
    yield* resting(running)
  })

/** Lets time pass from one who wakes to the next; between them the outside has its turns. */
const passing = (duration: Duration.Input): Step => (running) =>
  Effect.gen(function*() {
    const { happened, world } = running.stage
    running.from = happened.length
    const end = world.now() + Duration.toMillis(Duration.fromInputUnsafe(duration))
    for (;;) {
      const next = Math.min(world.due() ?? end, end)
      world.advance(next - world.now())
      yield* resting(running)
      if (next >= end) return
    }
  })

const factsSince = ({ from, stage }: Running): ReadonlyArray<Delivery> =>
  stage.happened.slice(from).filter(({ position }) => position !== undefined)

// ---------------------------------------------------------------------------------------------------------- expectations

/** What holds it up, for people. */
const waiting = ({ stage }: Running): string => {
  const at = stage.due()
  if (at === undefined) return "it waits for something outside"
  return `it waits for the clock: thenAfter(${JSON.stringify(Duration.format(Duration.millis(at - stage.world.now())))})`
}

const answered = (running: Running, expected: string): Effect.Effect<Dispatched, ScenarioFailed> => {
  running.isLooked = true
  const exit = running.poll()
  if (exit !== undefined) return Effect.succeed(exit)
  return failed(running, `expected ${running.asked?.name ?? ""} to ${expected}, and it has not answered: ${waiting(running)}`)
}

/** What nobody looked at must have gone well. */
const overlooked: Step = (running) => {
  const { asked, isLooked, poll } = running
  if (asked === undefined || isLooked) return Effect.void
  const exit = poll()
  if (exit === undefined) return failed(running, `${asked.name} has not answered: ${waiting(running)}`)
  return Exit.isSuccess(exit) ? Effect.void : failed(running, `${asked.name} did not succeed, and nothing expected that`, { expected: "success", actual: outcomeOf(exit) })
}

/** Looks at what has come; where something is under way that nobody can foresee, that is nothing to look at yet. */
const expecting = (step: Step): Step => (running) => {
  const { asked, poll, stage, stopped } = running
  if (stopped !== "quiet" || stage.due() !== undefined) return step(running)
  const who = poll() === undefined ? `${asked?.name ?? ""} has not answered` : "a reaction has not ended"
  return failed(running, `something outside is still under way: ${who}, and nobody waits for the clock`)
}

/** What an exit says, for people. */
const outcomeOf = (exit: Dispatched): unknown => {
  if (Exit.isSuccess(exit)) return exit.value.kind === "value" ? { reply: exit.value.value ?? null } : { stored: exit.value.position }
  const [reason] = exit.cause.reasons
  if (reason?._tag === "Fail") {
    const { error } = reason
    return KsiError.is(error) ? { refused: error.reason._tag, because: error.message } : { failed: error.reason, error: error.error }
  }
  return reason?._tag === "Die" ? { died: KsiError.sentenceOf(reason.defect) } : { interrupted: true }
}

const expectReply = (event: Event.AnyRequest, expected: unknown): Step => (running) =>
  Effect.flatMap(answered(running, "reply"), (exit) => {
    if (Exit.isFailure(exit) || exit.value.kind !== "value") {
      return failed(running, `expected ${event.name} to reply`, { expected: { reply: typeof expected === "function" ? "…" : expected }, actual: outcomeOf(exit) })
    }
    const { value } = exit.value
    if (typeof expected === "function") {
      const reply: unknown = Schema.decodeUnknownSync(jsonCodec(event.success))(value)
      return expected(reply) === true ? Effect.void : failed(running, `the reply of ${event.name} is not as it should be: ${JSON.stringify(value)}`)
    }
    const wanted = jsonOf(event.success, expected)
    return Json.equal(wanted ?? null, value ?? null) ? Effect.void : failed(running, `${event.name} replied otherwise`, { expected: wanted, actual: value ?? null })
  })

const expectFailure = (event: Event.AnyRequest, tag: string, holds: (error: never) => boolean): Step => (running) =>
  Effect.flatMap(answered(running, `fail with ${tag}`), (exit) => {
    const error = Laws.errorIn(exit)
    if (!(error instanceof DeclaredFailure) || error.reason !== tag) {
      return failed(running, `expected ${event.name} to fail with ${tag}`, { expected: { failed: tag }, actual: outcomeOf(exit) })
    }
    // The tag is the one that the type of the predicate names.
    return holds(Laws.revived(event, error) as never) ? Effect.void : failed(running, `${tag} is not as it should be: ${JSON.stringify(error.error)}`)
  })

const expectRefusal = (tag: string, holds: (reason: never) => boolean): Step => (running) =>
  Effect.flatMap(answered(running, `be refused with ${tag}`), (exit) => {
    const error = Laws.errorIn(exit)
    if (!KsiError.is(error) || error.reason._tag !== tag) {
      return failed(running, `expected ${running.asked?.name ?? ""} to be refused with ${tag}`, { expected: { refused: tag }, actual: outcomeOf(exit) })
    }
    return holds(error.reason as never) ? Effect.void : failed(running, `${tag} is not as it should be: ${error.message}`) // of this tag
  })

interface Said {
  readonly event: string
  readonly data: unknown
}

const saidOf = (facts: ReadonlyArray<Event.FactOf<Event.AnyFact>>): ReadonlyArray<Said> =>
  facts.map(({ event, payload }) => ({ event: event.name, data: jsonOf(event.payload, payload) }))

const timesIn = (all: ReadonlyArray<Said>, one: Said): number => all.filter((said) => Json.equal(one, said)).length

const expectFacts = (facts: ReadonlyArray<Event.FactOf<Event.AnyFact>>, exactly: boolean): Step => (running) =>
  Effect.suspend(() => {
    const expected = saidOf(facts)
    const actual = factsSince(running).map(({ data, name }): Said => ({ event: name, data }))
    const isSame = exactly
      ? Json.equal(expected, actual)
      : expected.every((wanted) => timesIn(actual, wanted) >= timesIn(expected, wanted))
    const what = expected.length === 0 ? "no fact" : exactly ? "exactly these facts, in this order" : "these facts among others"
    return isSame ? Effect.void : failed(running, `expected ${what}`, { expected, actual })
  })

const expectState = <S>(projection: Projection<S>, streamId: string, expected: S | ((state: S) => boolean)): Step => (running) =>
  Effect.gen(function*() {
    const { state } = yield* must(running, `the state ${projection.name} of "${streamId}"`, Effect.catchTag(
      TimeTravel.at(projection, { streamId }),
      "KsiError",
      (error) => error.reason._tag === "NotFound" ? Effect.succeed({ state: projection.initial }) : Effect.fail(error)
    ))
    const actual = projection.encode(state)
    if (typeof expected === "function") {
      // A state is data: what is a function is the predicate.
      if ((expected as (state: S) => boolean)(state)) return
      return yield* failed(running, `the state ${projection.name} of "${streamId}" is not as it should be: ${JSON.stringify(actual)}`)
    }
    const wanted = projection.encode(expected)
    if (!Json.equal(wanted, actual)) yield* failed(running, `the state ${projection.name} of "${streamId}" is another one`, { expected: wanted, actual })
  })

const expectCalls = (stand: AnyMock, payloads: ReadonlyArray<unknown>): Step => (running) =>
  Effect.suspend(() => {
    const { event: { name, payload } } = stand as unknown as Mock<Event.AnyRequest> // as in `layerOf`
    const calls = running.called.get(stand)
    if (calls === undefined) return failed(running, `the mock of ${name} is not in this scenario: add it with .with(mock)`)
    const expected = payloads.map((each) => jsonOf(payload, payload.make(each)))
    return Json.equal(expected, calls) ? Effect.void : failed(running, `the mock of ${name} was called otherwise`, { expected, actual: [...calls] })
  })

// ------------------------------------------------------------------------------------------------------------ scenario

type Tags<E> = E extends { readonly _tag: infer T extends string } ? T : never

/** A scenario: an effect that fails with `ScenarioFailed` where it does not go as it should. */
export interface Scenario extends Effect.Effect<void, ScenarioFailed, KsiTest> {
  /** Stand-ins for handlers of the app; of two of the same event the later one. */
  readonly with: (...mocks: ReadonlyArray<{ readonly event: Event.AnyRequest }>) => Scenario
  /** Who asks from here on; `grants` are patterns that it may use. Default: `owner`. */
  readonly as: (principal: string, options?: { readonly profile?: Grant.ProfileName; readonly grants?: ReadonlyArray<string> }) => Scenario
  /** What has happened before: facts are stored, and nobody reacts to them. */
  readonly given: (...facts: ReadonlyArray<Event.FactOf<Event.AnyFact>>) => Scenario
  /** What was asked before, and must have succeeded. */
  readonly givenCall: <Ev extends Event.AnyRequest>(event: Ev, payload: Event.PayloadInput<Ev>) => Scenario
  /** Asks a request, or says a fact. What its schema does not take is sent as it is, and refused. */
  readonly when: {
    <Ev extends Event.AnyRequest>(event: Ev, payload: Event.PayloadInput<Ev>): Asked<Ev>
    <Ev extends Event.AnyFact>(fact: Event.FactOf<Ev>): Then
  }
}

/** What can be expected of everything that was asked or said. What did not succeed fails where nothing here looks at how it ended. */
export interface Then extends Scenario {
  /** KSI itself refuses it, and no handler's answer counts: `PayloadInvalid`, `DeadlineExceeded`, … */
  readonly thenRefused: <T extends KsiError.Reason["_tag"]>(tag: T, holds?: (reason: Extract<KsiError.Reason, { readonly _tag: T }>) => boolean) => this
  /** Who asks may not. */
  readonly thenDenied: () => this
  /** These facts came of it, in this order, and no others. */
  readonly thenEmits: (...facts: ReadonlyArray<Event.FactOf<Event.AnyFact>>) => this
  /** These facts came of it, among others. */
  readonly thenEmitsAmongOthers: (...facts: ReadonlyArray<Event.FactOf<Event.AnyFact>>) => this
  /** The state of one stream, as a projection folds it; where it has no facts, the projection's initial one. */
  readonly thenState: <S>(projection: Projection<S>, streamId: string, expected: S | ((state: S) => boolean)) => this
  /** The mock was called with exactly these payloads, since the scenario began. */
  readonly thenCalled: <Ev extends Event.AnyRequest>(mock: Mock<Ev>, ...payloads: ReadonlyArray<Event.PayloadInput<Ev>>) => this
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

class Built {
  private readonly steps: ReadonlyArray<Step>
  private readonly mocks: ReadonlyArray<AnyMock>
  private readonly event: Event.Any | undefined

  constructor(steps: ReadonlyArray<Step>, mocks: ReadonlyArray<AnyMock>, event: Event.Any | undefined) {
    this.steps = steps
    this.mocks = mocks
    this.event = event
  }

  private and(step: Step, event = this.event): Built {
    return new Built([...this.steps, step], this.mocks, event)
  }

  private looking(step: Step): Built {
    return this.and(expecting(step))
  }

  private get request(): Event.AnyRequest {
    // Only what follows the `when` of a request has these in its type.
    return this.event as Event.AnyRequest
  }

  with(...mocks: ReadonlyArray<AnyMock>) {
    // The last of an event stands in for it.
    const all = [...this.mocks, ...mocks] as unknown as ReadonlyArray<Mock<Event.AnyRequest>> // as in `layerOf`
    const kept = all.filter(({ event: { name } }, index) => all.findLastIndex(({ event }) => event.name === name) === index)
    return new Built(this.steps, kept as unknown as ReadonlyArray<AnyMock>, this.event) // the same ones
  }

  as(principal: string, options: { readonly profile?: Grant.ProfileName; readonly grants?: ReadonlyArray<string> } = {}) {
    return this.and((running) => {
      running.principal = principal
      return must(running, `granting to ${principal}`, granting(principal, options))
    })
  }

  given(...facts: ReadonlyArray<Event.FactOf<Event.AnyFact>>) {
    return this.and((running) => must(running, "what was given", history(facts)))
  }

  givenCall(event: Event.AnyRequest, payload: unknown) {
    return this.and((running) => Effect.andThen(
      must(running, `the given call of ${event.name}`, ask(running, event.name, sent(event, payload))),
      Effect.flatMap(running.stage.rest(always), (stopped) => notForEver(running, stopped))
    ))
  }

  when(what: Event.AnyRequest | Event.FactOf<Event.AnyFact>, payload?: unknown) {
    return "event" in what ? this.and(asking(what.event, what.payload), what.event) : this.and(asking(what, payload), what)
  }

  thenReplies(expected: unknown) {
    return this.looking(expectReply(this.request, expected))
  }

  thenFails(tag: string, holds: (error: never) => boolean = always) {
    return this.looking(expectFailure(this.request, tag, holds))
  }

  thenRefused(tag: string, holds: (reason: never) => boolean = always) {
    return this.looking(expectRefusal(tag, holds))
  }

  thenDenied() {
    return this.looking(expectRefusal("PermissionDenied", always))
  }

  thenEmits(...facts: ReadonlyArray<Event.FactOf<Event.AnyFact>>) {
    return this.looking(expectFacts(facts, true))
  }

  thenEmitsAmongOthers(...facts: ReadonlyArray<Event.FactOf<Event.AnyFact>>) {
    return this.looking(expectFacts(facts, false))
  }

  thenState<S>(projection: Projection<S>, streamId: string, expected: S | ((state: S) => boolean)) {
    return this.looking(expectState(projection, streamId, expected))
  }

  thenCalled(stand: AnyMock, ...payloads: ReadonlyArray<unknown>) {
    return this.looking(expectCalls(stand, payloads))
  }

  thenAfter(duration: Duration.Input) {
    return this.and(passing(duration))
  }

  get run(): Effect.Effect<void, ScenarioFailed, KsiTest> {
    return Effect.gen({ self: this }, function*() {
      const { start } = yield* KsiTest
      const called: Called = new Map()
      const stage = yield* Effect.orDie(start(this.mocks.map((each) => layerOf(each, called))))
      const running: Running = { stage, called, principal: Grant.owner, asked: undefined, poll: () => undefined, isLooked: false, stopped: "done", from: 0 }
      const played = Effect.forEach([...this.steps, overlooked], (step) => step(running), { discard: true })
      const hasEnded = yield* Effect.andThen(Effect.onError(played, () => stage.end), stage.end)
      if (!hasEnded) yield* failed(running, "the app does not end: it waits for something outside, or for longer than an hour")
    })
  }
}
Object.setPrototypeOf(Built.prototype, Effectable.Prototype<Effect.Effect<void, ScenarioFailed, KsiTest> & Built>({
  label: "KsiTest.scenario",
  evaluate() {
    return this.run
  }
}))

/** The beginning of every scenario: an app that has just started. */
export const scenario: Scenario = new Built([], [], undefined) as unknown as Scenario // by its prototype

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
}

const lawBroken = (message: string, actual: unknown) => Effect.fail(new ScenarioFailed({ message, expected: undefined, actual }))

/**
 * A law that holds for every payload of a request: each is asked of an app of its own, on the history given. Where it does not
 * hold, the least payload that was found is told, and how to come back to it.
 */
export const property = <Ev extends Event.AnyRequest>(
  event: Ev,
  law: (outcome: Laws.Outcome<Ev>, payload: Event.Payload<Ev>) => boolean,
  { given = [], runs = 100, seed = 0, ...options }: LawOptions & { readonly given?: ReadonlyArray<Event.FactOf<Event.AnyFact>> } = {}
): Effect.Effect<void, ScenarioFailed, KsiTest> =>
  Effect.gen(function*() {
    const { start } = yield* KsiTest
    const holds = (payload: unknown) =>
      Effect.gen(function*() {
        const stage = yield* Effect.orDie(start([]))
        const before = yield* stage.play(history(given))
        if (before === undefined || Exit.isFailure(before)) {
          yield* stage.end
          return yield* Effect.fail(`what was given ${before === undefined ? "does not end" : `failed: ${KsiError.sentenceOf(Cause.squash(before.cause))}`}`)
        }
        const exit = yield* Laws.dispatch(stage, event, jsonOf(event.payload, payload))
        const hasEnded = yield* stage.end
        if (exit === undefined) return yield* Effect.fail(`${event.name} never answers, or what it caused never ends`)
        if (!hasEnded) return yield* Effect.fail("the app does not end")
        const outcome = Laws.outcomeOf(event, exit)
        if (outcome === undefined) return yield* Effect.fail(`${event.name} broke: ${JSON.stringify(outcomeOf(exit))}`)
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
  { runs = 25, seed = 0, ...options }: LawOptions = {}
): Effect.Effect<void, ScenarioFailed, KsiTest> =>
  Effect.gen(function*() {
    const { start } = yield* KsiTest
    for (const event of Object.values(group.events)) {
      // A stream has no one reply.
      if (event.kind === "request" && event.mode === "stream") continue
      let nth = seed
      const holds = (payload: unknown) =>
        Effect.flatMap(Laws.tryOne(start([]), event, payload, nth++), (problem) => problem === undefined ? Effect.succeed(true) : Effect.fail(problem))
      const result = yield* Arbitrary.checkEffect(Laws.payloads(event), holds, { runs, seed, ...options })
      const failure = Arbitrary.formatCheckFailure(result)
      if (failure !== undefined) yield* lawBroken(`a law does not hold for ${event.name}\n${failure}`, result)
    }
  })
