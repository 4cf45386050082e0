import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Layer, Result, Schema, Stream } from "effect"
import { Activity, type Ended } from "../../src/bus/Activity.ts"
import * as Authorizer from "../../src/bus/Authorizer.ts"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import { Router, serve } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as Grant from "../../src/event/Grant.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import * as EventStore from "../../src/store/EventStore.ts"

const Ask = Event.make("shop:ask", { payload: { n: Schema.Int }, success: Schema.Unknown })
const Outer = Event.make("shop:outer", { success: Schema.Unknown })
const Items = Event.make("shop:items", { success: Schema.Int, stream: true })
const Placed = Event.fact("shop:placed", { payload: { n: Schema.Int }, streamId: () => "shop" })
const Group = EventGroup.make(Ask, Outer, Items, Placed)

/** A runtime in which `ann` may do what the rules say, and the requests that ended in it. */
const world = (rules: ReadonlyArray<Grant.Rule> | undefined) => {
  const ended: Array<Ended> = []
  const ran: Array<string> = []
  const handlers = Group.toLayer({
    "shop:ask": (_, { metadata }) => Effect.sync(() => {
      ran.push("ask")
      return metadata.principal
    }),
    *"shop:outer"() {
      const ksi = yield* KsiService
      yield* ksi.emit(Placed, { n: 1 })
      return yield* ksi.call(Ask, { n: 1 })
    },
    "shop:items": () => Stream.make(1)
  })
  const activity = Layer.succeed(Activity, {
    isOn: true,
    record: (request: Ended) => void ended.push(request),
    query: () => Effect.succeed({ records: [], total: 0 }),
    flush: Effect.void
  })
  const rights = rules && Grant.rights(Grant.rules(rules), [])
  const authorizer: Authorizer.AuthorizerShape = rights === undefined ? Authorizer.ownerOnly : {
    ...Authorizer.ownerOnly,
    allows: (principal, action, event) => principal === "owner" || (principal === "ann" && rights.allows(action, event)),
    hears: (principal, pattern) => principal === "owner" || (principal === "ann" && rights.reaches("subscribe", pattern))
  }
  const seen: Array<string> = []
  const layer = Layer.mergeAll(
    serve(Group).pipe(Layer.provide(handlers)),
    Middleware.use(Middleware.make("look", { before: ({ name }) => Effect.sync(() => void seen.push(name)) }))
  ).pipe(
    Layer.provideMerge(Router.layer),
    Layer.provideMerge(Subscriptions.layer),
    Layer.provideMerge(Layer.mergeAll(EventStore.layerMemory, activity, DeadLetters.layerOff)),
    Layer.provide(Layer.succeed(Authorizer.Authorizer, authorizer))
  )
  return { layer, ended, ran, seen }
}

const reasonOf = <A, R>(effect: Effect.Effect<A, unknown, R>) =>
  Effect.map(Effect.flip(effect), (error) => error instanceof KsiError ? error.reason : error)

describe("the default", () => {
  it.effect("nobody but the owner may anything, but greet", () => {
    const { layer, ran, seen } = world(undefined)
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      expect(yield* ksi.dispatch("shop:ask", { n: 1 })).toMatchObject({ value: "owner" })
      for (const principal of ["ann", "local-http", "token:x", "", "Owner", "owner ", "anonymous"]) {
        for (const [name, data] of [["shop:ask", { n: 1 }], ["shop:placed", { n: 1 }], ["shop:items", {}], ["shop:nothing", {}], ["system:health", {}]] as const) {
          const { _tag } = (yield* reasonOf(ksi.dispatch(name, data, { principal }))) as { _tag: string }
          expect(_tag, `${principal} ${name}`).toBe(principal === "anonymous" ? "Unauthenticated" : "PermissionDenied")
        }
        expect(Exit.isFailure(yield* Effect.exit(Stream.runCollect(Stream.take(ksi.subscribe("*", { principal, from: "start" }), 1))))).toBe(true)
      }
      expect([ran, seen]).toEqual([["ask"], ["shop:ask"]])
      expect(Result.isFailure(Authorizer.ownerOnly.authenticate("ksi_a_b"))).toBe(true)
      expect(Authorizer.ownerOnly.allows("ann", "call", "wire:hello")).toBe(true)
    }).pipe(Effect.provide(layer))
  })
})

describe("the door", () => {
  it.effect("looks before the payload is read and before any middleware, and keeps what was refused without its payload", () => {
    const { ended, layer, ran, seen } = world([{ pattern: "shop:outer", actions: ["call"], allow: true }])
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const ask = (name: string, data: unknown) => reasonOf(ksi.dispatch(name, data, { principal: "ann" }))
      expect(yield* ask("shop:ask", { n: "no number" })).toMatchObject({ _tag: "PermissionDenied", principal: "ann", event: "shop:ask", action: "call" })
      expect(yield* ask("shop:placed", { n: 1 })).toMatchObject({ _tag: "PermissionDenied", action: "call" })
      // What it is, and that it is at all, is not for who may nothing to it.
      expect(yield* ask("shop:items", {})).toMatchObject({ _tag: "PermissionDenied", action: "call" })
      expect(yield* ask("shop:nowhere", {})).toMatchObject({ _tag: "PermissionDenied", event: "shop:nowhere" })
      expect([ran, seen]).toEqual([[], []])
      expect(ended.map(({ encode, envelope: { data, metadata, name }, exit }) => [name, metadata.principal, exit._tag, encode(data)])).toEqual([
        ["shop:ask", "ann", "Failure", null], ["shop:placed", "ann", "Failure", null], ["shop:items", "ann", "Failure", null]
      ])
    }).pipe(Effect.provide(layer))
  })

  it.effect("says what is missing to who may something else to the event", () => {
    const { layer } = world([{ pattern: "shop:*", actions: ["subscribe"], allow: true }])
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      const ask = (name: string, data: unknown) => reasonOf(ksi.dispatch(name, data, { principal: "ann" }))
      expect(yield* ask("shop:placed", { n: 1 })).toMatchObject({ _tag: "PermissionDenied", action: "emit" })
      expect(yield* ask("shop:items", {})).toMatchObject({ _tag: "PermissionDenied", action: "stream" })
    }).pipe(Effect.provide(layer))
  })

  it.effect("what a handler does is its module's business; who asked stays who asked", () => {
    const { layer, ran } = world([{ pattern: "shop:outer", actions: ["call"], allow: true }])
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      expect(yield* ksi.dispatch("shop:outer", {}, { principal: "ann" })).toMatchObject({ value: "ann" })
      expect(ran).toEqual(["ask"])
      const store = yield* EventStore.EventStore
      expect((yield* store.read({ from: 1, limit: 9 })).map(({ attributes }) => attributes["principal"])).toEqual(["ann"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("labels grant nothing", () => {
    const { layer } = world([])
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      for (const label of ["owner", "ann"]) {
        const labels = { principal: "bob", clientId: label, clientCorrelationId: label, source: label, idempotencyKey: label }
        expect(yield* reasonOf(ksi.dispatch("shop:ask", { n: 1, _agent_id: label, _client_id: label }, labels))).toMatchObject({ _tag: "PermissionDenied", principal: "bob" })
      }
    }).pipe(Effect.provide(layer))
  })

  it.effect("who misspells is told of what it may use, and of nothing else", () => {
    const { layer } = world([
      { pattern: "shop:*", actions: ["call"], allow: true }, { pattern: "shop:items", actions: [...Grant.actions], allow: false }, { pattern: "shop:ask", actions: ["call"], allow: false }
    ])
    return Effect.gen(function*() {
      const ksi = yield* KsiService
      expect(yield* reasonOf(ksi.dispatch("shop:askk", {}))).toMatchObject({ _tag: "UnknownEvent", similar: expect.arrayContaining(["shop:ask"]), namespaces: ["shop"] })
      expect(yield* reasonOf(ksi.dispatch("shop:askk", {}, { principal: "ann" }))).toMatchObject({ _tag: "UnknownEvent", similar: [], namespaces: ["shop"] })
    }).pipe(Effect.provide(layer))
  })
})

describe("subscriptions", () => {
  it.effect("hear what their principal may, as if nothing else had happened", () => {
    const { layer } = world([{ pattern: "*", actions: ["subscribe"], allow: true }, { pattern: "shop:ask", actions: ["subscribe"], allow: false }, { pattern: "stock:*", actions: ["subscribe"], allow: false }])
    return Effect.scoped(Effect.gen(function*() {
      const ksi = yield* KsiService
      const store = yield* EventStore.EventStore
      const subscriptions = yield* Subscriptions
      yield* store.appendTo("s", [{ name: "stock:level" }, { name: "shop:placed" }, { name: "stock:level" }])
      const options = { principal: "ann", from: "start", requests: true, overflow: "drop", buffer: 2 } as const
      const { next } = yield* subscriptions.open("*", options)
      expect((yield* next).map(({ missed, name, position }) => [name, position, missed])).toEqual([["shop:placed", 2n, 0]])
      for (let n = 0; n < 5; n++) yield* ksi.call(Ask, { n })
      for (let n = 0; n < 5; n++) yield* store.appendTo("s", [{ name: "stock:level" }])
      yield* ksi.emit(Placed, { n: 1 })
      expect((yield* next).map(({ missed, name }) => [name, missed])).toEqual([["shop:placed", 0]])
      // Requests that it may not hear take no room, count as nothing, and hold up no caller.
      const blocking = yield* subscriptions.open("*", { principal: "ann", requests: true, overflow: "block", buffer: 1 })
      for (let n = 0; n < 5; n++) yield* ksi.call(Ask, { n })
      yield* ksi.dispatch("shop:outer", {})
      expect((yield* next).map(({ missed, name }) => [name, missed])).toEqual([["shop:outer", 0]])
      expect((yield* blocking.next).map(({ missed, name }) => [name, missed])).toEqual([["shop:outer", 0]])
    })).pipe(Effect.provide(layer))
  })

  it.effect("a pattern of which nothing may be heard is refused; a wider one is not", () => {
    const { layer } = world([{ pattern: "shop:placed", actions: ["subscribe"], allow: true }])
    return Effect.scoped(Effect.gen(function*() {
      const subscriptions = yield* Subscriptions
      const open = (pattern: string, principal: string) => subscriptions.open(pattern, { principal })
      for (const pattern of ["stock:*", "shop:placed:*", "shop:ask", "*:*:*"]) {
        expect(yield* reasonOf(open(pattern, "ann"))).toMatchObject({ _tag: "PermissionDenied", principal: "ann", event: pattern, action: "subscribe" })
      }
      for (const pattern of ["*", "shop:*", "*:placed", "shop:placed"]) yield* open(pattern, "ann")
      expect(yield* reasonOf(open("shop:placed", "bob"))).toMatchObject({ _tag: "PermissionDenied" })
      expect(subscriptions.count()).toBe(4)
    })).pipe(Effect.provide(layer))
  })
})
