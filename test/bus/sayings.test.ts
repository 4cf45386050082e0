// The short way of a fact into memory, against the long way: a journal that somebody has wrapped knows no other.
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer, Schema, type Scope, Tracer } from "effect"
import { TestClock } from "effect/testing"
import { Authorizer, ownerOnly } from "../../src/bus/Authorizer.ts"
import { Activity } from "../../src/bus/Activity.ts"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { type Append, Journal, sayingOf } from "../../src/bus/Journal.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import { handle, Router } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import type { StoredFact } from "../../src/event/CloudEvent.ts"
import type { Envelope } from "../../src/event/Envelope.ts"
import * as Event from "../../src/event/Event.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as EventStore from "../../src/store/EventStore.ts"

const Payload = Schema.Struct({
  text: Schema.String,
  n: Schema.Finite,
  note: Schema.optionalKey(Schema.String),
  side: Schema.NullOr(Schema.Literals(["left", "right", 3])),
  lines: Schema.Array(Schema.Struct({ price: Schema.Finite, sold: Schema.Boolean }))
})
type Payload = typeof Payload.Type

const Said = Event.fact("test:said", { payload: Payload, streamId: ({ text }) => text })
const Echoed = Event.fact("test:echoed", { payload: { text: Schema.String }, streamId: () => "echo" })
const Open = Event.fact("test:opened", { payload: { any: Schema.Unknown }, streamId: () => "open" })
const Plain = Event.fact("test:plain", { payload: {}, streamId: () => "plain" })

const sample: Payload = { text: "a", n: 1.5, side: null, lines: [{ price: 2, sold: true }] }

const asItIs = Layer.empty
/** Counts appends, and closes the short way. */
const wrapped = (appends: Array<Append>) => Layer.effect(Journal, Effect.map(Journal, (journal) => ({
  ...journal,
  append: (request: Append) => Effect.suspend(() => (appends.push(request), journal.append(request)))
})))

interface Heard {
  readonly handler: string
  readonly envelope: Envelope
}

const make = (heard: Array<Heard>, journal: Layer.Layer<never> | Layer.Layer<Journal, never, Journal>, limits = Limits.defaults) => {
  const hear = (handler: string) => (_: unknown, envelope: Envelope) => void heard.push({ handler, envelope })
  const handlers = Layer.mergeAll(
    handle(Said, function*(payload, envelope) {
      yield* Effect.void
      hear("first")(payload, envelope)
    }, { name: "first" }),
    handle(Said, function*(payload) {
      const ksi = yield* KsiService
      if (payload.text === "echo me") yield* ksi.emit(Echoed, { text: payload.note ?? "nothing" })
    }, { name: "echoes" }),
    handle(Said, ({ text }) => text === "fail" ? Effect.fail("told to") : Effect.void, { name: "fails" }),
    handle(Echoed, (payload, envelope) => Effect.sync(() => hear("echo")(payload, envelope)), { name: "echo" })
  )
  return handlers.pipe(
    Layer.provideMerge(Router.layer),
    Layer.provideMerge(Subscriptions.layer),
    Layer.provideMerge(journal as Layer.Layer<never>),
    Layer.provideMerge(Layer.mergeAll(EventStore.layerMemory, Activity.layerOff, DeadLetters.layerOff)),
    Layer.provide(Layer.succeed(Limits.Limits, limits))
  )
}

type Services = KsiService | Router | EventStore.EventStore | Journal | Scope.Scope
const run = <A, E>(layer: ReturnType<typeof make>, effect: Effect.Effect<A, E, Services>) =>
  Effect.gen(function*() {
    const router = yield* Router
    for (const event of [Said, Echoed, Open, Plain]) yield* router.define(event)
    return yield* effect
  }).pipe(Effect.scoped, Effect.provide(layer))

/** Ids by the order in which they are first seen: those of two runtimes differ. */
const renamed = (value: unknown): unknown => {
  const known = new Map<string, string>()
  const text = JSON.stringify(value, (_, part: unknown) => typeof part === "bigint" ? `${part}n` : part)
  return JSON.parse(text.replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}/g, (id) => {
    const name = known.get(id) ?? `id-${known.size}`
    known.set(id, name)
    return name
  }))
}

describe("the short way of a fact", () => {
  const text = Schema.Literals(["a", "b", "echo me", "fail", "", "ksi-own", "x".repeat(300), "\ud800"])
  const step = Schema.Struct({ ...Payload.fields, text, n: Schema.Union([Schema.Finite, Schema.Literal(-0)]), millis: Schema.Literals([0, 0, 7]) })

  it.effect.prop("stores, answers and tells what the long way does", [Schema.Array(step)], ([steps]) =>
    Effect.gen(function*() {
      const ends = yield* Effect.forEach([asItIs, wrapped([])], (journal) => {
        const heard: Array<Heard> = []
        const layer = make(heard, journal as typeof asItIs, { ...Limits.defaults, frameBytes: 8192 })
        return run(layer, Effect.gen(function*() {
          const ksi = yield* KsiService
          const store = yield* EventStore.EventStore
          const answers: Array<unknown> = []
          for (const { millis, ...payload } of steps) {
            yield* TestClock.adjust(millis)
            answers.push(yield* Effect.result(ksi.emit(Said, payload)))
          }
          yield* (yield* Router).settled
          return renamed({ facts: yield* store.read({ from: 1, limit: 10_000 }), heard, answers })
        })).pipe(Effect.provide(TestClock.layer()))
      })
      expect(ends[0]).toEqual(ends[1])
    }))

  const own = run.bind(undefined, make([], asItIs))

  it.effect("is taken for data of which all is known, and into a store that nobody has wrapped", () =>
    Effect.gen(function*() {
      const said = yield* run(make([], asItIs), Effect.map(Journal, ({ append }) => sayingOf(append)))
      expect(said).toBeDefined()
      const appends: Array<Append> = []
      const facts = yield* run(make([], wrapped(appends)), Effect.gen(function*() {
        const { emit } = yield* KsiService
        yield* emit(Said, sample)
        yield* emit(Plain, {})
        return yield* (yield* EventStore.EventStore).read({ from: 1, limit: 9 })
      }))
      expect(appends.map(({ facts: [fact] }) => fact?.id)).toEqual(facts.map(({ id }) => id))
    }))

  it.effect("is closed by whoever takes the place of append later, however it looks", () =>
    own(Effect.gen(function*() {
      const { emit } = yield* KsiService
      const journal = yield* Journal
      const appends: Array<Append> = []
      yield* emit(Said, sample)
      const spy = new Proxy(journal.append, { apply: (append, _, [request]) => (appends.push(request), append(request)) })
      Object.assign(journal, { append: spy })
      const { position } = yield* emit(Said, sample)
      expect([position, appends.length]).toEqual([2n, 1])
    })))

  it.effect("nobody can change what is stored: not who said it, not who heard it, not who read it", () =>
    own(Effect.gen(function*() {
      const { emit } = yield* KsiService
      const store = yield* EventStore.EventStore
      const router = yield* Router
      const given = { ...sample, lines: [{ price: -0, sold: true }] }
      yield* router.handle(Said, {
        name: "vandal",
        run: (payload) => Effect.sync(() => Object.assign(Object(payload).lines[0], { price: 9 })),
        context: Context.empty()
      })
      yield* emit(Said, given)
      Object.assign(given.lines[0] ?? {}, { price: 8 })
      const [fact] = yield* store.read({ from: 1, limit: 1 })
      expect(fact?.data).toEqual({ ...sample, lines: [{ price: 0, sold: true }] })
      expect(Object.isFrozen(fact) && Object.isFrozen(fact?.attributes) && Object.isFrozen(Object(fact?.data).lines[0])).toBe(true)
      expect((yield* store.readStream({ streamId: "a", from: 1, limit: 1 }))[0]).toBe(fact)
    })))

  it.effect("an id that was said is known: the same fact again is a duplicate, another one a conflict", () =>
    own(Effect.gen(function*() {
      const { emit } = yield* KsiService
      const store = yield* EventStore.EventStore
      const { id } = yield* emit(Said, sample)
      yield* emit(Said, sample)
      const [first] = yield* store.byId(id)
      expect(first?.position).toBe(1)
      const fact = first as StoredFact // it was found just above
      yield* emit(Said, sample)
      expect(yield* store.append({ facts: [fact] })).toEqual([{ kind: "duplicate", position: 1, version: 1 }])
      expect(yield* store.append({ facts: [{ ...fact, data: 0 }], mode: "each" })).toEqual([{ kind: "conflict", position: 1, version: 1 }])
      const lost = yield* Effect.flip(store.append({ facts: [{ ...fact, id: "new" }, { ...fact, data: 0 }] }))
      expect(lost.reason._tag).toBe("IdConflict")
      expect(yield* store.byId("new")).toEqual([])
      const { position, version } = yield* emit(Said, sample)
      expect([position, version, store.head()]).toEqual([4n, 4, 4])
      expect((yield* store.streams({ limit: 9 }))).toEqual([{ streamId: "a", version: 4 }])
    })))

  it.effect("listeners hear in order, also of what one of them says; one that throws is in the log", () =>
    own(Effect.gen(function*() {
      const ksi = yield* KsiService
      const store = yield* EventStore.EventStore
      const heard: Array<number> = []
      yield* store.listen(([fact]) => {
        if (fact?.position === 1) Effect.runSync(ksi.emit(Said, sample))
        throw new Error("not today")
      })
      yield* store.listen((facts) => heard.push(...facts.map(({ position }) => position)))
      expect((yield* ksi.emit(Said, sample)).position).toBe(1n)
      expect(heard).toEqual([1, 2])
    })))

  it.effect("what is said in a span, and by whom a client asked, takes the long way with all its attributes", () =>
    own(Effect.gen(function*() {
      const { emit } = yield* KsiService
      const router = yield* Router
      const store = yield* EventStore.EventStore
      const span = Tracer.externalSpan({ traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331" })
      yield* Effect.provideService(emit(Said, sample), Tracer.ParentSpan, span)
      yield* router.dispatch(router.envelope("test:said", sample, { principal: "ann", clientId: "c-1" }))
      const facts = yield* store.read({ from: 1, limit: 2 })
      expect(facts[0]?.attributes["traceparent"]).toContain("0af7651916cd43dd8448eb211c80319c")
      expect(facts[1]?.attributes).toMatchObject({ principal: "ann", clientid: "c-1" })
    })).pipe(Effect.provideService(Authorizer, { ...ownerOnly, allows: () => true })))
})
