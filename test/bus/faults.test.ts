// The fault matrix: everything that a handler, an observer, a subscriber or a middleware can do wrong, in every place,
// through every door. What breaks is that call; what stands beside it, before it and after it is not touched.
import { afterAll, beforeAll, describe, expect, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Result, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { NewLetter } from "../../src/bus/DeadLetters.ts"
import { DeclaredFailure, KsiService } from "../../src/bus/KsiService.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import { pass, Router } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import type { HandlerEntry } from "../../src/event/EventGroup.ts"
import * as EventPattern from "../../src/event/EventPattern.ts"
import * as Event from "../../src/event/Event.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import { watch } from "./Generation.ts"
import { telling } from "./Bus.ts"

const Payload = { what: Schema.Literals(["bad", "good", "slow"]), key: Schema.String }
const Ask = Event.make("fault:ask", { payload: Payload, success: Schema.Struct({ text: Schema.String }), error: Schema.Literal("no") })
const Happened = Event.fact("fault:happened", { payload: Payload, streamId: ({ key }) => key })
const Count = Event.make("fault:count", { payload: Payload, success: Schema.Struct({ text: Schema.String }), error: Schema.Literal("no"), stream: true })
type Asked = (typeof Ask)["payload"]["Type"]

/** How a call ends: with a reply, an error, a defect, an interruption, or not at all. */
type End = "ok" | "no" | "odd" | "dies" | "interrupted" | "never" | "ReplyInvalid" | "DeadlineExceeded" | "LimitExceeded"

interface Fault {
  readonly name: string
  readonly run: (again: Effect.Effect<unknown, unknown>) => unknown
  /** How a call ends that it answers alone. */
  readonly end: End
  /** How a reaction ends: a dead letter's reason, or nothing. */
  readonly letter: NewLetter["reason"] | undefined
  /** Whether interruption cannot reach it for a while. */
  readonly deaf?: boolean
  /** Whether finalizers run. */
  readonly unwound?: boolean
}

const timeout = 100
const boom = () => new Error("boom")
const good = { text: "good" }
/** Has no text and no prototype. */
const unspeakable = () => Object.create(null) as object
const explosive = () => ({ get text(): string { throw boom() } })

const leaked: Array<Fiber.Fiber<unknown, unknown>> = []
const fault = (name: string, end: End, letter: Fault["letter"], run: Fault["run"], more: Partial<Fault> = {}): Fault => ({ name, end, letter, run, ...more })

const faults: ReadonlyArray<Fault> = [
  fault("fails as declared", "no", "failed", () => Effect.fail("no")),
  fault("fails with what nobody declared", "odd", "failed", () => Effect.fail({ odd: true })),
  fault("dies", "dies", "died", () => Effect.die(boom())),
  fault("dies later", "dies", "died", () => Effect.andThen(Effect.yieldNow, Effect.die(boom()))),
  fault("dies of what has no text", "dies", "died", () => Effect.die(unspeakable())),
  fault("throws", "dies", "died", () => { throw boom() }),
  fault("throws what has no text", "dies", "died", () => { throw unspeakable() }),
  fault("throws in a callback", "dies", "died", () => Effect.map(Effect.yieldNow, () => { throw boom() })),
  fault("throws at the start of a generator", "dies", "died", function*() { throw boom() }),
  fault("throws in a generator that never waited", "dies", "died", function*() {
    yield* Effect.void
    throw boom()
  }),
  fault("throws in a generator that waited", "dies", "died", function*() {
    yield* Effect.yieldNow
    throw boom()
  }),
  fault("yields what is no effect", "dies", "died", function*() { yield 7 }),
  // Ends its fiber on the spot: Effect runs nothing after what is no effect, not even finalizers.
  fault("goes on with what is no effect", "dies", "died", () => Effect.flatMap(Effect.yieldNow, () => undefined as never), { unwound: false }),
  fault("returns nothing", "dies", "died", () => undefined),
  fault("returns a promise", "dies", "died", () => Promise.resolve(good)),
  fault("returns a plain value", "dies", "died", () => good),
  fault("hangs", "never", "timed-out", () => Effect.never),
  fault("hangs in a generator", "never", "timed-out", function*() { yield* Effect.never }),
  fault("does not listen to interruption", "ok", undefined, () => Effect.uninterruptible(Effect.as(Effect.sleep(3 * timeout), good)), { deaf: true }),
  fault("spins through many steps", "ok", undefined, function*() {
    for (let i = 0; i < 20_000; i++) yield* Effect.void
    return good
  }),
  fault("spins through many steps as an effect", "ok", undefined, () =>
    Effect.as(Effect.forEach(Array.from({ length: 20_000 }), () => Effect.void, { discard: true }), good)),
  fault("leaks a fiber", "ok", undefined, () => Effect.map(Effect.forkDetach(Effect.never), (fiber) => {
    leaked.push(fiber)
    return good
  })),
  fault("leaks a finalizer", "dies", "died", () => Effect.as(Effect.addFinalizer(() => Effect.die("late")), good)),
  fault("interrupts itself", "interrupted", "died", () => Effect.interrupt),
  fault("interrupts itself later", "interrupted", "died", () => Effect.andThen(Effect.yieldNow, Effect.interrupt)),
  fault("throws in its finalizer", "dies", "died", () => Effect.ensuring(Effect.andThen(Effect.yieldNow, Effect.succeed(good)), Effect.sync(() => { throw boom() }))),
  fault("replies with a great deal", "ok", undefined, () => Effect.succeed({ text: "x".repeat(5_000_000) })),
  fault("replies with something else", "ReplyInvalid", undefined, () => Effect.succeed({ text: 7 })),
  fault("replies with nothing", "ReplyInvalid", undefined, () => Effect.void),
  fault("replies with what throws when it is looked at", "ReplyInvalid", undefined, () => Effect.succeed(explosive())),
  fault("replies with what throws, later", "ReplyInvalid", undefined, () => Effect.andThen(Effect.yieldNow, Effect.succeed(explosive()))),
  fault("calls itself without end", "LimitExceeded", "failed", (again) => again)
]

// ---------------------------------------------------------------------------------------------------------- the stage

const letters: Array<NewLetter> = []
const recorded: Array<string> = []
const ran: Array<string> = []
const slow = { gate: Deferred.makeUnsafe<void>() }
let running = 0

const bus = telling(({ envelope }) => void recorded.push(envelope.id), (letter) => void letters.push(letter)).pipe(
  Layer.provide(Layer.succeed(Limits.Limits, { ...Limits.defaults, depth: 8, factHandlerMillis: timeout }))
)

type Services = KsiService | Router | Subscriptions | EventStore.EventStore | Scope.Scope
const run = <A, E>(effect: Effect.Effect<A, E, Services>) =>
  Effect.suspend(() => {
    for (const list of [letters, recorded, ran]) list.length = 0
    slow.gate = Deferred.makeUnsafe()
    running = 0
    return effect
  }).pipe(
    Effect.ensuring(Effect.suspend(() => Fiber.interruptAll(leaked.splice(0)))),
    Effect.scoped, Effect.provide(bus), Effect.provide(Logger.layer([]))
  )

const settle = Effect.gen(function*() {
  for (let i = 0; i < 40; i++) yield* Effect.yieldNow
})

/** Counts an effect as running until it has ended. */
const counted = (returned: unknown): unknown =>
  Effect.isEffect(returned)
    // In one step: between counting and watching for the end, an interruption would be counted for ever.
    ? Effect.acquireUseRelease(
      Effect.sync(() => running++),
      () => returned as Effect.Effect<unknown>,
      () => Effect.sync(() => running--)
    )
    : returned

const isBad = (data: unknown) => (data as Asked).what === "bad"
const behave = (data: unknown): Effect.Effect<unknown> =>
  (data as Asked).what === "slow" ? Effect.as(Deferred.await(slow.gate), good) : Effect.succeed(good)

/** A handler that does what it should, but for the bad payload. */
const bad = (fault: Fault, again: Effect.Effect<unknown, unknown>): HandlerEntry["run"] => (data) =>
  isBad(data) ? counted(fault.run(again)) : counted(behave(data))

const entry = (name: string, run: HandlerEntry["run"], more: Partial<HandlerEntry> = {}): HandlerEntry => ({ name, run, context: Context.empty(), ...more })
const sibling = (name: string, effect: (data: unknown) => Effect.Effect<unknown, unknown>): HandlerEntry["run"] => (data) =>
  Effect.suspend(() => {
    ran.push(`${name} ${(data as Asked).what}`)
    return effect(data)
  })

const endOf = (exit: Exit.Exit<unknown, unknown> | undefined): string => {
  if (exit === undefined) return "never"
  if (Exit.isSuccess(exit)) return "ok"
  if (Cause.hasInterruptsOnly(exit.cause)) return "interrupted"
  const error = Result.getOrUndefined(Cause.findError(exit.cause))
  if (error instanceof KsiError) return error.reason._tag
  if (error === "no" || error instanceof DeclaredFailure) return "no"
  return error === undefined ? "dies" : "odd"
}

/** Runs one act: how it ended, after the time that a handler may take; one that has not is interrupted. */
const ended = Effect.fnUntraced(function*(act: Effect.Effect<unknown, unknown>, { deaf = false }: Fault) {
  const fiber = yield* Effect.forkDetach(act, { startImmediately: true })
  yield* settle
  // What was in flight when it happened goes on; only then does time pass.
  yield* Deferred.succeed(slow.gate, undefined)
  for (const millis of deaf ? [0, timeout, 3 * timeout] : [0, timeout]) {
    yield* Effect.andThen(TestClock.adjust(millis), settle)
    if (fiber.pollUnsafe() !== undefined) return endOf(fiber.pollUnsafe())
  }
  yield* Fiber.interrupt(fiber)
  return "never"
})

interface Doors {
  readonly name: string
  readonly open: (ksi: KsiService["Service"], what: Asked["what"], key: string) => Effect.Effect<unknown, unknown>
}

interface Place {
  readonly name: string
  /** Puts the fault in its place, and good ones beside it. */
  readonly set: (fault: Fault, again: Effect.Effect<unknown, unknown>) => Effect.Effect<unknown, unknown, Services>
  /** How the bad call ends; by default as the fault does. */
  readonly end?: (fault: Fault) => End
  readonly letter?: (fault: Fault) => Fault["letter"]
  /** Siblings that take part in the bad call too. */
  readonly beside?: ReadonlyArray<string>
}

/** One fault in one place, through one door. */
const act = (place: Place, doors: Doors, fault: Fault) =>
  run(Effect.gen(function*() {
    const ksi = yield* KsiService
    const router = yield* Router
    const open = (what: Asked["what"], key: string) => doors.open(ksi, what, key)
    yield* place.set(fault, Effect.suspend(() => open("bad", "k")))
    const inFlight = yield* Effect.forkDetach(open("slow", "other"), { startImmediately: true })
    yield* settle

    const natural = place.end?.(fault) ?? fault.end
    const end = doors.name === "dispatch" && natural === "odd" ? "dies" : natural
    expect(yield* ended(open("bad", "k"), fault)).toBe(end)
    for (const name of place.beside ?? []) expect(ran, name).toContain(`${name} bad`)

    // The one that was in flight, and one that comes after it, with the same key.
    expect(endOf(yield* Fiber.await(inFlight))).toBe("ok")
    expect(yield* ended(open("good", "k"), fault)).toBe("ok")
    for (const name of place.beside ?? []) expect(ran.filter((line) => line === `${name} good`), name).toHaveLength(1)

    yield* TestClock.adjust(4 * timeout)
    yield* router.settled
    yield* settle
    if (fault.unwound !== false) expect(running).toBe(0)
    const letter = place.letter?.(fault)
    const reasons = letters.map(({ reason }) => reason)
    expect(new Set(reasons)).toEqual(new Set(letter === undefined ? [] : [letter]))
    if (letter !== undefined && fault.end !== "LimitExceeded") expect(reasons).toHaveLength(1)
    expect(new Set(recorded).size).toBe(recorded.length)
    if (doors.name === "emit") expect(recorded).toEqual([])
    else if (fault.end !== "LimitExceeded" && fault.unwound !== false) expect(recorded).toHaveLength(3)
  }))

const matrix = (places: ReadonlyArray<Place>, doors: ReadonlyArray<Doors>, wrongs = faults) => {
  for (const place of places) for (const door of doors) {
    describe(`${place.name}, by ${door.name}`, () => {
      it.effect.each(wrongs.map((fault) => [fault.name, fault] as const))("%s", ([, fault]) => act(place, door, fault))
    })
  }
}

// -------------------------------------------------------------------------------------------------------------- places

/** In the context that the handler's layer would have. */
const settled = (handler: HandlerEntry) =>
  Effect.map(Effect.context<never>(), (context): HandlerEntry => ({ ...handler, context: Context.omit(Scope.Scope)(context) as Context.Context<never> }))
const handleAll = Effect.fnUntraced(function*(event: Event.Any, handlers: ReadonlyArray<HandlerEntry>) {
  const router = yield* Router
  for (const handler of handlers) yield* router.handle(event, yield* settled(handler))
})
const timely = (end: End): End => end === "never" ? "DeadlineExceeded" : end
const key = (data: unknown) => (data as Asked).key
const answers = (name: string) => entry(name, sibling(name, behave))
const passes = (name: string) => entry(name, sibling(name, () => pass))
const ok = (): End => "ok"
const letterOf = ({ deaf, letter }: Fault) => deaf === true ? "timed-out" : letter

const everything = Effect.map(EventPattern.fromText("*"), (pattern) => pattern)
const observing = Effect.fnUntraced(function*(...observers: ReadonlyArray<HandlerEntry>) {
  const router = yield* Router
  const pattern = yield* everything
  for (const observer of observers) yield* router.observe(pattern, yield* settled(observer))
})

/** A subscriber that does what is wrong when it hears of it, and one that hears everything. */
const following = Effect.fnUntraced(function*(fault: Fault, again: Effect.Effect<unknown, unknown>) {
  const ksi = yield* KsiService
  const heard = (data: unknown) => Effect.sync(() => ran.push(`reader ${(data as Asked).what}`))
  const wrong = (data: unknown) => Effect.suspend(() => {
    const returned = isBad(data) ? fault.run(again) : undefined
    return Effect.isEffect(returned) ? returned as Effect.Effect<unknown, unknown> : Effect.die(boom())
  })
  for (const tell of [wrong, heard]) {
    yield* Effect.forkScoped(Stream.runForEach(ksi.subscribe("*", { requests: true }), ({ data }) => tell(data)), { startImmediately: true })
  }
})

const requestPlaces: ReadonlyArray<Place> = [
  { name: "the only handler", set: (fault, again) => handleAll(Ask, [entry("bad", bad(fault, again))]) },
  {
    name: "a handler with a timeout",
    set: (fault, again) => handleAll(Ask, [entry("bad", bad(fault, again), { timeoutMillis: timeout })]),
    end: ({ deaf, end }) => deaf === true ? "DeadlineExceeded" : timely(end)
  },
  {
    name: "the first of three concurrent handlers",
    set: (fault, again) => handleAll(Ask, [entry("bad", bad(fault, again)), answers("second"), answers("third")]),
    beside: ["second", "third"]
  },
  {
    name: "the second of two concurrent handlers",
    set: (fault, again) => handleAll(Ask, [answers("first"), entry("bad", bad(fault, again))]),
    end: ok,
    beside: ["first"]
  },
  {
    name: "a sequential handler after one that passes",
    set: (fault, again) => handleAll(Ask, [passes("first"), entry("bad", bad(fault, again), { execution: "sequential" })]),
    beside: ["first"]
  },
  {
    name: "a handler before a sequential one",
    set: (fault, again) => handleAll(Ask, [passes("first"), entry("bad", bad(fault, again)), entry("last", sibling("last", behave), { execution: "sequential" })]),
    beside: ["first"]
  },
  {
    name: "a keyed handler",
    set: (fault, again) => handleAll(Ask, [entry("bad", bad(fault, again), { key })])
  },
  {
    name: "a keyed handler with a timeout",
    set: (fault, again) => handleAll(Ask, [entry("bad", bad(fault, again), { key, timeoutMillis: timeout })]),
    end: ({ deaf, end }) => deaf === true ? "DeadlineExceeded" : timely(end)
  },
  {
    name: "an observer",
    set: (fault, again) => Effect.andThen(
      handleAll(Ask, [answers("handler")]),
      observing(answers("before"), entry("bad", bad(fault, again)), answers("after"))
    ),
    end: ok, letter: letterOf, beside: ["handler", "before", "after"]
  },
  {
    name: "a subscriber",
    set: (fault, again) => Effect.andThen(handleAll(Ask, [answers("handler")]), following(fault, again)),
    end: ok, beside: ["handler", "reader"]
  }
]

const factPlaces: ReadonlyArray<Place> = [
  {
    name: "a handler of a fact",
    set: (fault, again) => handleAll(Happened, [answers("first"), entry("bad", bad(fault, again)), answers("last")]),
    end: ok, letter: letterOf, beside: ["first", "last"]
  },
  {
    name: "a keyed handler of a fact",
    set: (fault, again) => handleAll(Happened, [answers("first"), entry("bad", bad(fault, again), { key }), answers("last")]),
    end: ok, letter: letterOf, beside: ["first", "last"]
  },
  {
    name: "an observer of a fact",
    set: (fault, again) => Effect.andThen(
      handleAll(Happened, [answers("handler")]),
      observing(answers("before"), entry("bad", bad(fault, again)), answers("after"))
    ),
    end: ok, letter: letterOf, beside: ["handler", "before", "after"]
  },
  {
    name: "a subscriber of a fact",
    set: (fault, again) => Effect.andThen(handleAll(Happened, [answers("handler")]), following(fault, again)),
    end: ok, beside: ["handler", "reader"]
  }
]

// ---------------------------------------------------------------------------------------------------------- middleware

const isGenerator = ({ run }: Fault) => run.constructor.name === "GeneratorFunction"

/** A hook returns an effect or nothing. */
const isNoEffect = (fault: Fault) => isGenerator(fault) || /promise|plain value/.test(fault.name)
const hookFaults = faults.filter(({ name }) => name !== "goes on with what is no effect")

/** How a call ends whose hook does that: what it succeeds with is nobody's reply. */
const hookEnd = (fault: Fault): End =>
  isNoEffect(fault) ? "dies" : fault.name === "returns nothing" || fault.end === "ReplyInvalid" ? "ok" : fault.end

class Guest extends Context.Service<Guest, { readonly text: string }>()("test/Guest") {}

/** A middleware before everything, which does what is wrong to the bad call only; a good one on either side of it. */
const standing = (make: (hook: (data: unknown) => unknown) => Middleware.Middleware<"bad", never, Schema.Top, never>) =>
  Effect.fnUntraced(function*(fault: Fault, again: Effect.Effect<unknown, unknown>) {
    for (const event of [Ask, Happened]) yield* handleAll(event, [answers("handler")])
    yield* handleAll(Count, [entry("handler", (data, envelope) => Stream.fromEffect(sibling("handler", behave)(data, envelope) as Effect.Effect<unknown, unknown>))])
    const wrong = make((data) => isBad(data) ? counted(fault.run(again)) : undefined)
    const watch = (name: string) => Middleware.make(name, { after: ({ data }) => void ran.push(`${name} ${(data as Asked).what}`) })
    yield* Layer.build(Middleware.use(watch("outer")))
    // Untyped inside: as plain JavaScript could.
    yield* Layer.build(Middleware.use(wrong))
    yield* Layer.build(Middleware.use(watch("inner")))
  })

const hookPlaces: ReadonlyArray<Place> = [
  { name: "a before", set: standing((hook) => Middleware.make("bad", { before: ({ data }) => hook(data) as never })), end: hookEnd, beside: ["outer"] },
  { name: "an after", set: standing((hook) => Middleware.make("bad", { after: ({ data }) => hook(data) as never })), end: hookEnd, beside: ["outer", "inner"] },
  {
    name: "an around",
    set: standing((hook) => Middleware.make("bad", { around: (next, { data }) => isBad(data) ? hook(data) as typeof next : next })),
    end: (fault) => fault.name === "returns nothing" ? "dies" : hookEnd(fault),
    beside: ["outer"]
  },
  {
    name: "an around behind a condition",
    set: standing((hook) => Middleware.make("bad", { around: (next, { data }) => isBad(data) ? hook(data) as typeof next : next, when: ({ data }) => isBad(data) })),
    end: (fault) => fault.name === "returns nothing" ? "dies" : hookEnd(fault),
    beside: ["outer"]
  },
  {
    name: "the condition of an around",
    // Only what is thrown at once is a fault here: it is asked for yes or no, and when in doubt it wraps.
    set: standing((hook) => Middleware.make("bad", { around: (next) => next, when: ({ data }) => hook(data) as boolean })),
    end: ok,
    beside: ["outer", "inner", "handler"]
  },
  {
    name: "a before that provides",
    set: standing((hook) => Middleware.make("bad", { provides: Guest, before: ({ data }) => (hook(data) ?? Effect.succeed(good)) as never }) as never),
    end: hookEnd,
    beside: ["outer"]
  }
]

// ------------------------------------------------------------------------------------------------------------- streams

const asStream = (run: HandlerEntry["run"], before: ReadonlyArray<unknown>): HandlerEntry["run"] => (data, envelope) => {
  const returned = run(data, envelope)
  return Effect.isEffect(returned)
    ? Stream.concat(Stream.fromIterable(before), Stream.fromEffect(returned as Effect.Effect<unknown, unknown>))
    : returned
}
const streamEnd = (fault: Fault): End => isGenerator(fault) ? "dies" : fault.end

const streamPlaces: ReadonlyArray<Place> = [
  { name: "a stream", set: (fault, again) => handleAll(Count, [entry("bad", asStream(bad(fault, again), []))]), end: streamEnd },
  { name: "a stream that has begun", set: (fault, again) => handleAll(Count, [entry("bad", asStream(bad(fault, again), [good, good]))]), end: streamEnd }
]

const call: Doors = { name: "call", open: (ksi, what, key) => ksi.call(Ask, { what, key }) }
const dispatch: Doors = { name: "dispatch", open: (ksi, what, key) => ksi.dispatch(Ask.name, { what, key }) }
const emit: Doors = { name: "emit", open: (ksi, what, key) => ksi.emit(Happened, { what, key }) }
const stream: Doors = { name: "stream", open: (ksi, what, key) => Stream.runDrain(ksi.stream(Count, { what, key })) }

// First: what has been made of an event is used again.
describe("where code may not be made from text", () => {
  let watched: ReturnType<typeof watch> | undefined
  beforeAll(() => {
    watched = watch(true)
  })
  afterAll(() => {
    watched?.restore()
    expect(watched?.made.refusals).toBeGreaterThan(0)
  })
  matrix(requestPlaces.slice(0, 1), [call, dispatch])
  matrix(hookPlaces, [call], hookFaults)
})

describe("requests", () => matrix(requestPlaces, [call, dispatch]))
describe("facts", () => matrix(factPlaces, [emit]))
describe("streams", () => matrix(streamPlaces, [stream]))
describe("middleware", () => {
  matrix(hookPlaces, [call, dispatch, emit], hookFaults)
  matrix(hookPlaces, [stream], hookFaults)
})
