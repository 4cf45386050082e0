// Facts that were made elsewhere: what stays as it was sent, what KSI says itself, and who learns of it.
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer, Schema } from "effect"
import type { Ended } from "../../src/bus/Activity.ts"
import { Authorizer, type AuthorizerShape, ownerOnly } from "../../src/bus/Authorizer.ts"
import * as Causation from "../../src/bus/Causation.ts"
import type { NewLetter } from "../../src/bus/DeadLetters.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import { handle, Router, serve } from "../../src/bus/Router.ts"
import type { NewFact } from "../../src/event/CloudEvent.ts"
import * as Envelope from "../../src/event/Envelope.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import { folder } from "../wire/Daemon.ts"
import { Ksi } from "../../src/Ksi.ts"
import { join } from "node:path"
import { telling } from "./Bus.ts"

const Placed = Event.fact("shop:placed", { payload: { n: Schema.Int }, streamId: ({ n }) => `shop-${n}` })
const Ask = Event.make("shop:ask", { success: Schema.Int })
const Group = EventGroup.make(Placed, Ask)
const handlers = Group.toLayer({ "shop:ask": () => Effect.succeed(1) })

const fact = (attributes: NewFact["attributes"] = {}, more: Partial<NewFact> = {}): NewFact => ({
  id: "e-1", source: "/till", name: Placed.name, streamId: "/till", data: { n: 1 }, time: undefined, ...more, attributes: { subject: null, ...attributes }
})

/** A bus whose fact handler tells what it was given, and what it caused. */
const world = (run: (heard: Envelope.Envelope) => Effect.Effect<unknown, unknown, KsiService> = () => Effect.void) => {
  const heard: Array<Envelope.Envelope> = []
  const letters: Array<NewLetter> = []
  const ended: Array<Ended> = []
  const bus = telling((request) => ended.push(request), (letter) => letters.push(letter))
  const observer = handle(Placed, (_, envelope) => {
    heard.push(envelope)
    return Effect.asVoid(Effect.orDie(run(envelope)))
  }, { name: "listener" })
  return { heard, letters, ended, layer: observer.pipe(Layer.provideMerge(serve(Group).pipe(Layer.provide(handlers))), Layer.provideMerge(bus)) }
}

const stored = Effect.flatMap(EventStore, ({ read }) => read({ from: 1, limit: 10 }))
const post = (sent: NewFact, principal = "ann") =>
  Effect.flatMap(Router, (router) => Effect.tap(router.dispatch(router.received(sent, { principal })), () => router.settled))

// Everybody may everything, so that only the facts themselves are looked at.
const open: AuthorizerShape = { ...ownerOnly, allows: () => true, hears: () => true }
const withOpen = <A, E, R>(program: Effect.Effect<A, E, R>, layer: Layer.Layer<R, KsiError>) =>
  Effect.scoped(Effect.provide(program, Layer.fresh(layer).pipe(Layer.provide(Layer.succeed(Authorizer, open)))))

describe("the tags of a fact", () => {
  const Tagged = Event.fact("shop:tagged", {
    payload: { n: Schema.Int, who: Schema.String }, streamId: () => "tagged", tags: ({ n, who }) => n === 0 ? [] : [`who:${who}`, `n:${n}`]
  })
  const layer = serve(EventGroup.make(Tagged)).pipe(Layer.provide(EventGroup.make(Tagged).toLayer({})), Layer.provideMerge(telling(() => {}, () => {})))

  it.effect("are those of its definition, emitted or made elsewhere; with wrong ones it is refused", () => withOpen(Effect.gen(function*() {
    const ksi = yield* KsiService
    yield* ksi.emit(Tagged, { n: 1, who: "ann,bob" })
    yield* ksi.emit(Tagged, { n: 0, who: "ann" })
    const elsewhere = (id: string, n: number) => fact({ ksitags: "forged" }, { id, name: Tagged.name, data: { n, who: "cy" } })
    yield* post(elsewhere("e-1", 2))
    yield* post(elsewhere("e-2", 0))
    const refused = yield* Effect.flip(ksi.emit(Tagged, { n: 1, who: "\ud800" }))
    expect([refused.reason._tag, refused.message]).toEqual(["PayloadInvalid", "shop:tagged rejected before any handler ran: tags: must be well-formed Unicode"])
    expect((yield* stored).map(({ attributes }) => attributes["ksitags"])).toEqual(["n:1,who:ann%2Cbob", undefined, "n:2,who:cy", undefined])
  }), layer))

  it.effect("that a definition says nothing of are kept as they came", () => {
    const { layer } = world()
    return withOpen(Effect.gen(function*() {
      yield* post(fact({ ksitags: "own" }))
      expect((yield* stored).map(({ attributes }) => attributes["ksitags"])).toEqual(["own"])
    }), layer)
  })
})

describe("a fact that was made elsewhere", () => {
  const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

  it.effect("keeps its identity, its time and its attributes; a handler is told what is stored, to the letter", () => {
    const { heard, layer } = world()
    const sent = fact({ rating: 5, traceparent, tracestate: "a=1", clientid: "till-7" }, { time: "2001-02-03T04:05:06.123456789Z", id: "日本 \r\n1" })
    return withOpen(Effect.gen(function*() {
      yield* post(sent)
      const [kept, ...others] = yield* stored
      expect(others).toEqual([])
      expect(kept).toMatchObject({ id: sent.id, source: "/till", streamId: "shop-1", time: sent.time, attributes: { rating: 5, traceparent, tracestate: "a=1", clientid: "till-7", principal: "ann" } })
      expect(heard.map(({ data, id, metadata }) => ({ data, id, metadata }))).toEqual(kept === undefined ? expect.fail() : [kept].map((kept) => {
        const { data, id, metadata } = Envelope.fromFact(kept, kept.data)
        return { data, id, metadata }
      }))
      expect(heard[0]?.metadata).toMatchObject({ correlationId: sent.id, source: "/till", principal: "ann", clientId: "till-7", depth: 0, timestamp: Date.parse("2001-02-03T04:05:06.123Z") })
    }), layer)
  })

  for (const principal of ["ann", "owner"]) {
    it.effect(`cannot stand in a chain of causes of this daemon, nor name another sender (${principal})`, () => {
      const { heard, layer } = world()
      return withOpen(Effect.gen(function*() {
        yield* post(fact({ correlationid: "root-of-somebody", causationid: "request-of-somebody", depth: 1e9, principal: "mallory" }), principal)
        const [kept] = yield* stored
        expect(kept?.attributes).toEqual({ clientcorrelationid: "root-of-somebody", ...(principal === "owner" ? {} : { principal }) })
        expect(heard[0]?.metadata).toMatchObject({ correlationId: "e-1", causationId: undefined, depth: 0, principal, clientCorrelationId: "root-of-somebody" })
      }), layer)
    })
  }

  it.effect("is told to who stands before it as to who hears it", () => {
    const { heard, layer } = world()
    const seen: Array<Envelope.Envelope> = []
    const look = Middleware.use(Middleware.make("look", { before: (envelope) => Effect.sync(() => void seen.push(envelope)) }))
    return withOpen(Effect.gen(function*() {
      yield* post(fact({ correlationid: "theirs", clientid: "till-7", traceparent }, { time: "2001-02-03T04:05:06Z" }))
      const { traceparent: asked, ...before } = Causation.plain(seen[0]?.metadata ?? expect.fail())
      const { streamId: _, traceparent: said, ...after } = heard[0]?.metadata ?? expect.fail()
      expect({ ...before, streamId: undefined }).toEqual({ ...after, streamId: undefined })
      expect([asked, said, seen[0]?.id]).toEqual([traceparent, traceparent, "e-1"])
    }), look.pipe(Layer.provideMerge(layer)))
  })

  it.effect("what its handler causes is its child", () => {
    const { layer } = world(({ id }) => Effect.flatMap(KsiService, (ksi) => id === "e-1" ? ksi.emit(Placed, { n: 2 }) : Effect.void))
    return withOpen(Effect.gen(function*() {
      yield* post(fact({ correlationid: "x", depth: -5 }))
      expect((yield* stored)[1]).toMatchObject({ streamId: "shop-2", attributes: { correlationid: "e-1", causationid: "e-1", depth: 1, principal: "ann" } })
    }), layer)
  })

  it.effect("that fails in its handler is a dead letter that can be rerun, whatever depth it claimed", () => {
    let fails = true
    const asked: Array<unknown> = []
    const { layer, letters } = world(() => Effect.gen(function*() {
      if (fails) throw new Error("not today")
      asked.push(yield* (yield* KsiService).call(Ask, {}))
    }))
    return withOpen(Effect.gen(function*() {
      const router = yield* Router
      yield* post(fact({ depth: 1e9, causationid: "x" }))
      const [letter] = letters
      expect(letter).toMatchObject({ handler: "listener", event: { id: "e-1", attributes: { correlationid: "e-1", principal: "ann" } } })
      fails = false
      yield* router.rerun({ ...letter ?? expect.fail(), letter: 1, reruns: 0 })
      expect(asked).toEqual([1])
    }), layer)
  })

  const stores = [
    ["memory", Effect.succeed(Ksi.layerMemory)],
    ["SQLite", Effect.map(folder, (place) => Ksi.layerSqlite({ filename: join(place, "ksi.db") }))]
  ] as const
  const guards = [
    ["no middleware", Layer.empty],
    ["middleware that wraps", Middleware.use(Middleware.make("wrap", { around: (next) => Effect.andThen(Effect.yieldNow, next) }))],
    ["middleware that looks", Middleware.use(Middleware.make("look", { before: () => Effect.yieldNow, after: () => Effect.void }))]
  ] as const
  for (const [store, runtime] of stores) {
    for (const [name, guard] of guards) {
      it.live(`posted fifty times at once is stored once and handled once: ${store}, ${name}`, () =>
        Effect.gen(function*() {
          const heard: Array<string> = []
          const listener = handle(Placed, (_, { id }) => Effect.sync(() => heard.push(id)))
          const context = yield* Layer.build(Layer.merge(listener, guard).pipe(
            Layer.provideMerge(serve(Group).pipe(Layer.provide(handlers))), Layer.provideMerge(Layer.fresh(yield* runtime))
          ))
          const answers = yield* Effect.provideContext(
            Effect.forEach(Array.from({ length: 50 }), () => post(fact({ rating: 1 }), "owner"), { concurrency: "unbounded" }), context)
          expect(new Set(answers.map((answer) => JSON.stringify(answer)))).toEqual(new Set([JSON.stringify({ kind: "fact", id: "e-1", position: 1, version: 1 })]))
          const other = yield* Effect.flip(Effect.provideContext(post(fact({ rating: 2 }), "owner"), context))
          expect(other).toMatchObject({ reason: { _tag: "IdConflict" } })
          expect([heard, Context.get(context, EventStore).head()]).toEqual([["e-1"], 1])
        }))
    }
  }

  it.effect("that is refused says no more to who may nothing than a name that nobody registered", () => {
    const { ended, heard, layer } = world()
    return Effect.gen(function*() {
      const router = yield* Router
      const refusal = (name: string) =>
        Effect.map(Effect.flip(router.dispatch(router.envelope(name, { n: 1 }, { principal: "ann" }))), (error) => JSON.stringify(error).replaceAll(name, "NAME"))
      expect(yield* refusal("shop:placed")).toBe(yield* refusal("shop:nothing"))
      expect(yield* refusal("shop:ask")).toBe(yield* refusal("shop:nothing"))
      // It is in the journal without what was sent.
      yield* Effect.flip(router.dispatch(router.received(fact(), { principal: "ann" })))
      expect(ended.map(({ encode, envelope }) => [envelope.name, encode(envelope.data)])).toEqual([["shop:placed", null], ["shop:ask", null], ["shop:placed", null]])
      expect([heard, yield* stored]).toEqual([[], []])
    }).pipe(Effect.provide(Layer.fresh(layer)), Effect.scoped)
  })
})
