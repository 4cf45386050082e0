// The generated way of a request and the long way are equal: random hooks and handlers, once with a function generated
// for the event and once where that is refused. Hooks are called in the same order and see the same, the handler gets the
// same envelope, the caller the same exit, and the journal the same record.
import { describe, expect, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Layer, Logger, Option, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Activity } from "../../src/bus/Activity.ts"
import * as Causation from "../../src/bus/Causation.ts"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import { pass, Router } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import type { Envelope } from "../../src/event/Envelope.ts"
import type { HandlerEntry } from "../../src/event/EventGroup.ts"
import * as EventPattern from "../../src/event/EventPattern.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventCodec from "../../src/event/EventCodec.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import { watch } from "./Generation.ts"
import { seeded } from "../Seeded.ts"

const payload = Schema.Struct({ n: Schema.Int })
const success = Schema.Struct({ text: Schema.String })
const ask = "ways:ask"
// Anew for each run: what has been generated for an event is used again. Its schemas are compiled before anybody watches.
const makeAsk = () => {
  const event = Event.make(ask, { payload, success, error: Schema.String })
  const { decodePayload, isError, isSuccess, makePayload } = EventCodec.compile(event)
  for (const read of [decodePayload, makePayload, isSuccess, isError]) read({})
  return event
}
const Other = Event.make("ways:other", { success: Schema.Unknown })
class Guest extends Context.Service<Guest, { readonly of: string }>()("test/Guest") {}

const good = { text: "good" }
const later = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => Effect.andThen(Effect.sleep(10), effect)
const soon = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => Effect.andThen(Effect.yieldNow, effect)
const thrown = (text: string) => (): never => { throw new Error(text) }

/** What a hook or a handler writes into. */
type Log = (line: string) => void
type Handler = (log: Log) => HandlerEntry["run"]

const spins = (steps: number, last: Effect.Effect<unknown, unknown>): Handler => () => function*() {
  for (let i = 0; i < steps; i++) yield Effect.void
  yield last
  return good
}

/** All that a handler can see. */
const looks = (log: Log) => Effect.gen(function*() {
  const current = yield* Causation.Current
  const guest = yield* Effect.serviceOption(Guest)
  log(`sees ${current?.name} and ${Option.getOrUndefined(guest)?.of ?? "nobody"}`)
})

const handlers: Readonly<Record<string, Handler>> = {
  "completes": () => () => Exit.succeed(good),
  "completes in a generator": spins(2, Effect.void),
  "suspends in a generator": spins(2, later(Effect.void)),
  "looks around in a generator": (log) => function*() {
    yield Effect.void
    yield looks(log)
    return good
  },
  "looks around": (log) => () => Effect.as(looks(log), good),
  "is a function of effects": (log) => Effect.fnUntraced(function*() {
    yield* looks(log)
    yield* Effect.sleep(10)
    return good
  }),
  "is suspended": () => () => Effect.suspend(() => Exit.succeed(good)),
  "runs at once": () => () => Effect.sync(() => good),
  "calls": (log) => () => Effect.gen(function*() {
    const ksi = yield* KsiService
    const cause = yield* ksi.call(Other, {})
    const own = yield* Causation.Current
    log(`is the cause: ${cause === own?.id}`)
    return good
  }),
  "calls at the second step": (log) => function*() {
    yield Effect.void
    const cause: unknown = yield Effect.flatMap(KsiService, (ksi) => ksi.call(Other, {}))
    log(`has a cause: ${typeof cause}`)
    return good
  },
  "fails": () => () => Exit.fail("no"),
  "fails in a generator": spins(1, Exit.fail("no")),
  "fails later": () => () => later(Effect.fail("no")),
  "fails soon": spins(1, soon(Effect.fail("no"))),
  "dies": () => () => Exit.die("dead"),
  "dies later": () => () => later(Effect.die("dead")),
  "throws": () => thrown("thrown"),
  "throws in a generator": () => function*() {
    yield Effect.void
    throw new Error("thrown")
  },
  "throws later": () => function*() {
    yield later(Effect.void)
    throw new Error("thrown")
  },
  "passes": () => () => pass,
  "passes in a generator": spins(1, pass),
  "passes later": () => () => later(pass),
  "answers wrongly": () => () => Exit.succeed({ text: 7 }),
  "answers wrongly, later": () => () => later(Effect.succeed({ text: 7 })),
  "interrupts itself": () => () => Effect.interrupt,
  "interrupts itself in a generator": spins(1, Effect.interrupt),
  "interrupts itself later": () => () => later(Effect.interrupt),
  "hangs": () => () => Effect.never,
  "takes its time": () => () => Effect.as(Effect.sleep(40), good),
  "takes its time, and does not listen": () => () => Effect.uninterruptible(Effect.as(Effect.sleep(40), good)),
  "fails in time, and does not listen": () => () => Effect.uninterruptible(Effect.andThen(Effect.sleep(40), Effect.fail("no"))),
  "spins": spins(5000, Effect.void),
  "spins, and waits": spins(2500, later(Effect.void)),
  "spins, and fails": spins(2048, Exit.fail("no")),
  "yields what is no effect": () => function*() { yield 7 },
  "yields nothing": () => function*() { yield undefined },
  "yields what is no effect, later": () => function*() {
    yield later(Effect.void)
    yield 7
  },
  "returns nothing": () => () => undefined,
  "returns a value": () => () => 7
}

const befores: Readonly<Record<string, () => unknown>> = {
  "nothing": () => undefined,
  "complete": () => Effect.void,
  "soon": () => Effect.yieldNow,
  "later": () => Effect.sleep(10),
  "later, and does not listen": () => Effect.uninterruptible(Effect.sleep(40)),
  "fails": () => Exit.fail("refused"),
  "fails later": () => later(Effect.fail("refused")),
  "dies": () => Exit.die("before died"),
  "throws": thrown("before threw"),
  "answers": () => Middleware.answer({ text: "mine" }),
  "answers later": () => later(Middleware.answer({ text: "mine" })),
  "hangs": () => Effect.never,
  "interrupts": () => Effect.interrupt,
  "a value": () => 7
}

const afters: Readonly<Record<string, () => unknown>> = {
  "nothing": () => undefined,
  "complete": () => Effect.void,
  "soon": () => Effect.yieldNow,
  "later": () => Effect.sleep(10),
  "takes its time": () => Effect.sleep(60),
  "dies": () => Exit.die("after died"),
  "dies later": () => later(Effect.die("after died")),
  "fails": () => Exit.fail("after failed"),
  "throws": thrown("after threw"),
  "hangs": () => Effect.never,
  "interrupts": () => Effect.interrupt,
  "a value": () => 7,
  "null": () => null
}

const arounds: Readonly<Record<string, (next: Effect.Effect<unknown, unknown>) => unknown>> = {
  "hands on": (next) => next,
  "retries": (next) => Effect.retry(next, { times: 1 }),
  "cuts off": (next) => Effect.timeoutOrElse(next, { duration: 20, orElse: () => Effect.fail("cut off") }),
  "answers": () => Effect.succeed({ text: "around" }),
  "throws": thrown("around threw"),
  "nothing": () => undefined
}

const whens: Readonly<Record<string, () => boolean>> = { "always": () => true, "never": () => false, "throws": thrown("when threw") }

interface HookPlan {
  readonly before: string | undefined
  readonly provides: boolean
  readonly after: string | undefined
  readonly takesElapsed: boolean
  readonly around: readonly [what: string, when: string] | undefined
}

interface Plan {
  readonly hooks: ReadonlyArray<HookPlan>
  readonly handler: string
  readonly audit: boolean
  readonly deadline: number | undefined
  readonly observed: boolean
  readonly subscribed: "no" | "follows" | "holds up"
  readonly interruptedAt: number | undefined
}

const planOf = (seed: number): Plan => {
  const pick = seeded(seed)
  const one = <A>(list: ReadonlyArray<A>): A => list[pick(list.length)] as A
  // Every second is harmless: a plan that ends at its first hook says little about the rest.
  const often = (names: ReadonlyArray<string>, harmless: number) => pick(2) === 0 ? names[pick(harmless)] : one(names)
  const maybe = <A>(some: () => A): A | undefined => pick(3) === 0 ? undefined : some()
  return {
    hooks: Array.from({ length: pick(4) }, () => ({
      before: maybe(() => often(Object.keys(befores), 3)),
      provides: pick(4) === 0,
      after: maybe(() => often(Object.keys(afters), 4)),
      takesElapsed: pick(2) === 0,
      around: pick(4) === 0 ? [one(Object.keys(arounds)), pick(2) === 0 ? "never" : one(Object.keys(whens))] as const : undefined
    })),
    handler: one(Object.keys(handlers)),
    audit: pick(2) === 0,
    deadline: pick(3) === 0 ? 25 : undefined,
    observed: pick(4) === 0,
    subscribed: pick(4) === 0 ? one(["follows", "holds up"]) : "no",
    interruptedAt: pick(4) === 0 ? 15 : undefined
  }
}

const shown = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return `ok ${JSON.stringify(exit.value)}`
  const texts = exit.cause.reasons.map((reason) =>
    reason._tag === "Interrupt" ? "interrupted" : reason._tag === "Die" ? `died: ${Cause.squash(Cause.fromReasons([reason]))}`
      : reason.error instanceof KsiError ? `failed: ${JSON.stringify(reason.error.reason)}` : `failed: ${JSON.stringify(reason.error)}`)
  return [...new Set(texts)].toSorted().join(" + ")
}

/** What is seen of an envelope, with times as they are since the beginning. */
const letterOf = ({ data, metadata, name }: Envelope, since: number): string => {
  const { causationId, deadline, depth, principal, timestamp } = metadata
  return JSON.stringify([name, data, depth, causationId, principal, timestamp - since, deadline === undefined ? undefined : deadline - since])
}

const hookOf = (name: string, plan: HookPlan, log: Log) => {
  const ended = (exit: Exit.Exit<unknown, unknown>, elapsed: string) => {
    log(`${name} after ${shown(exit)}${elapsed}`)
    return afters[plan.after ?? ""]?.()
  }
  const before = plan.before === undefined && !plan.provides ? undefined : () => {
    log(`${name} before`)
    const made = befores[plan.before ?? ""]?.()
    return plan.provides ? Effect.as((made ?? Effect.void) as Effect.Effect<unknown>, { of: name }) : made
  }
  const after = plan.after === undefined ? undefined
    : plan.takesElapsed ? (_: unknown, exit: Exit.Exit<unknown, unknown>, elapsed: number) => ended(exit, ` in ${elapsed}`)
    : (_: unknown, exit: Exit.Exit<unknown, unknown>) => ended(exit, "")
  const around = plan.around === undefined ? undefined : (next: Effect.Effect<unknown, unknown>) => {
    log(`${name} around`)
    return arounds[plan.around?.[0] ?? ""]?.(next)
  }
  const hook = { before, after, around, when: plan.around && whens[plan.around[1]], ...(plan.provides ? { provides: Guest } : {}) }
  // Untyped inside: as plain JavaScript could.
  return Middleware.make(name, Object.fromEntries(Object.entries(hook).filter(([, part]) => part !== undefined)) as object)
}

const busWith = (isOn: boolean, log: Log) => Router.layer.pipe(
  Layer.provideMerge(Subscriptions.layer),
  Layer.provideMerge(Layer.mergeAll(
    EventStore.layerMemory,
    Layer.succeed(Activity, {
      isOn,
      record: ({ duration, envelope, exit }) => {
        if (envelope.name === ask) log(`recorded ${shown(exit)} in ${duration}`)
        return undefined
      },
      query: () => Effect.succeed({ records: [], total: 0 }),
      flush: Effect.void
    }),
    DeadLetters.layerOff
  ))
)

const settle = Effect.gen(function*() {
  for (let i = 0; i < 30; i++) yield* Effect.yieldNow
})

/** Everything that a plan does, line by line. */
/** Who asks: a program, or a connection, with a fiber for it and without. */
type Door = "call" | "dispatch" | "begin"

const run = (plan: Plan, door: Door = "call", Ask = makeAsk()) => Effect.suspend(() => {
  const lines: Array<string> = []
  const log = (line: string): void => void lines.push(line)
  return Effect.gen(function*() {
    const ksi = yield* KsiService
    const router = yield* Router
    const { now, wait } = yield* TestClock.testClockWith((clock) => Effect.succeed({ now: () => clock.currentTimeMillisUnsafe(), wait: clock.adjust }))
    const since = now()
    const context = Context.omit(Scope.Scope)(yield* Effect.context<Scope.Scope>()) as Context.Context<never>
    const made = handlers[plan.handler]?.(log)
    yield* router.handle(Ask, {
      name: "it", context,
      run: (data, envelope) => {
        log(`handles ${letterOf(envelope, since)}`)
        return made?.(data, envelope)
      }
    })
    yield* router.handle(Other, { name: "other", context, run: (_, { metadata }) => Effect.succeed(metadata.causationId) })
    for (const [at, hook] of plan.hooks.entries()) yield* Layer.build(Middleware.use(hookOf(`h${at}`, hook, log), { pattern: Ask.name }))
    if (plan.observed) {
      yield* router.observe(yield* EventPattern.fromText("*"), { name: "observer", context, run: (data) => Effect.sync(() => log(`observed ${JSON.stringify(data)}`)) })
    }
    const subscriptions = yield* Subscriptions
    const follows = plan.subscribed === "no" ? undefined
      : yield* subscriptions.open("*", { requests: true, ...(plan.subscribed === "holds up" ? { overflow: "block", buffer: 1 } : {}) })
    if (plan.subscribed === "holds up") yield* ksi.call(Other, {})

    const options = plan.deadline === undefined ? {} : { deadline: since + plan.deadline }
    const open: Record<Door, Effect.Effect<Effect.Effect<unknown, unknown>>> = {
      call: Effect.succeed(plan.deadline === undefined ? ksi.call(Ask, { n: 1 }) : ksi.dispatch(Ask.name, { n: 1 }, options)),
      dispatch: Effect.sync(() => router.dispatch(router.envelope(Ask.name, { n: 1 }, options))),
      begin: Effect.withFiber((fiber) => Effect.succeed(router.begin(fiber, router.envelope(Ask.name, { n: 1 }, options))))
    }
    const asked = yield* open[door]
    const before = yield* Effect.context<never>()
    const caller = Effect.onExit(asked, () => Effect.map(Effect.context<never>(), ({ mapUnsafe }) =>
      log(`gives the context back: ${Context.getOrUndefined(Context.makeUnsafe(mapUnsafe), Causation.Current) === undefined}`)))
    const fiber = yield* Effect.forkDetach(Effect.provideContext(caller, before), { startImmediately: true })
    for (let millis = 0; millis <= 150; millis += 5) {
      yield* settle
      if (millis === 5 && plan.subscribed === "holds up" && follows !== undefined) yield* follows.next
      if (millis === plan.interruptedAt) fiber.interruptUnsafe()
      yield* wait(5)
    }
    const exit = fiber.pollUnsafe()
    log(exit === undefined ? "has not ended" : `ended: ${shown(exit)}`)
    fiber.interruptUnsafe()
    yield* Effect.andThen(wait(100), settle)
    log(`in the end: ${fiber.pollUnsafe() === undefined ? "runs" : "ended"}`)
    return [...lines]
  }).pipe(Effect.scoped, Effect.provide(busWith(plan.audit, log)), Effect.provide(Logger.layer([])))
})

const watched = <A, E, R>(isRefused: boolean, effect: Effect.Effect<A, E, R>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => watch(isRefused)),
    ({ made }) => Effect.map(effect, (value) => ({ value, made })),
    ({ restore }) => Effect.sync(restore)
  )

// Where a handler that suspended has failed and an `after` fails too, the generated way tells both reasons.
const reasonsOf = (line = "") => line.replace("ended: ", "").split(" + ").map((reason) => reason.replace(/^(died|failed): /, "").replaceAll("\"", ""))
const isEqual = (generated: ReadonlyArray<string>, refused: ReadonlyArray<string>): boolean =>
  generated.length === refused.length && generated.every((line, at) => {
    const other = refused[at]
    if (line === other || !line.startsWith("ended: ") || !refused.some((said) => / after (died|failed|interrupted)/.test(said))) return line === other
    const told = new Set(reasonsOf(line))
    return reasonsOf(other).every((reason) => told.has(reason))
  })

const count = 480
const part = 60

describe("the generated way and the long way are equal", () => {
  it.effect.each(Array.from({ length: count / part }, (_, i) => i * part))("from seed %d on", (from) =>
    Effect.gen(function*() {
      for (let seed = from; seed < from + part; seed++) {
        const plan = planOf(seed)
        const generated = yield* watched(false, run(plan))
        const refused = yield* watched(true, run(plan))
        expect(generated.made.functions, JSON.stringify(plan)).toBeGreaterThan(0)
        expect(refused.made.functions).toBe(0)
        expect(refused.made.refusals).toBeGreaterThan(0)
        if (!isEqual(generated.value, refused.value)) expect(generated.value, `seed ${seed}: ${JSON.stringify(plan, null, 2)}`).toEqual(refused.value)
      }
    }))
})

describe("what is begun without a fiber", () => {
  it.effect.each([5000, 5060])("is what is dispatched in one, from seed %d on", (from) =>
    Effect.gen(function*() {
      let complete = 0
      for (let seed = from; seed < from + part; seed++) {
        const plan = planOf(seed)
        const dispatched = yield* run(plan, "dispatch")
        const begun = yield* run(plan, "begin")
        if (JSON.stringify(begun) !== JSON.stringify(dispatched)) expect(begun, `seed ${seed}: ${JSON.stringify(plan, null, 2)}`).toEqual(dispatched)
        if (begun.some((line) => line.startsWith("ended"))) complete++
      }
      expect(complete).toBeGreaterThan(part / 2)
    }))
})
