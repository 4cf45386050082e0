import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { Activity } from "../../src/bus/Activity.ts"
import { Plugins } from "../../src/bus/Plugin.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import type * as Limits from "../../src/event/Limits.ts"
import * as Permission from "../../src/plugins/Permission.ts"
import * as Store from "../../src/plugins/Store.ts"
import * as System from "../../src/plugins/System.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Commands from "../../src/testing/Commands.ts"
import * as KsiTest from "../../src/testing/KsiTest.ts"
import { ask, pagesOf, reasonOf, type Runtime, withRuntime } from "./Builtins.ts"

const test = <E>(name: string, program: Effect.Effect<void, E, Runtime | Scope.Scope>, limits?: Partial<Limits.LimitsShape>) =>
  it.effect(name, () => withRuntime(program, limits))

const daemon = Layer.mergeAll(System.layer, Store.layer, Permission.layer).pipe(Layer.provide(Layer.merge(System.Shutdown.layer, Plugins.layer)))
const play = <E>(scenario: Effect.Effect<void, E, KsiTest.KsiTest>) => Effect.provide(scenario, KsiTest.layer(daemon, { outsideMillis: 5 }))

const as = Effect.fnUntraced(function*(principal: string, name: string, data: unknown = {}) {
  const ksi = yield* KsiService
  const answer = yield* ksi.dispatch(name, data, { principal })
  return answer.kind === "value" ? answer.value as Record<string, unknown> : answer
})

describe("permission:grant and permission:revoke", () => {
  test("answer with all there is then", Effect.gen(function*() {
    expect(yield* ask("permission:grant", { principal: "ann", pattern: "shop:*", actions: ["call", "subscribe"] })).toEqual({
      principal: "ann", profiles: [], rules: [{ pattern: "shop:*", actions: ["call", "subscribe"], allow: true }]
    })
    yield* ask("permission:grant", { principal: "ann", profile: "restricted" })
    expect(yield* ask("permission:grant", { principal: "ann", pattern: "shop:*", actions: ["call"], allow: false })).toEqual({
      principal: "ann", profiles: ["restricted"],
      rules: [{ pattern: "shop:*", actions: ["subscribe"], allow: true }, { pattern: "shop:*", actions: ["call"], allow: false }]
    })
    expect(yield* ask("permission:revoke", { principal: "ann", pattern: "shop:*" })).toEqual({ principal: "ann", profiles: ["restricted"], rules: [] })
    expect(yield* ask("permission:revoke", { principal: "ann", profile: "restricted" })).toEqual({ principal: "ann", profiles: [], rules: [] })
    for (const data of [{ principal: "ann" }, { principal: "ann", pattern: "*", profile: "owner" }, { principal: "ann", profile: "king" }]) {
      expect(yield* reasonOf(ask("permission:grant", data))).toMatchObject({ _tag: "PayloadInvalid" })
      expect(yield* reasonOf(ask("permission:revoke", data))).toMatchObject({ _tag: "PayloadInvalid" })
    }
  }))

  test("who may grant gives what they have, and the facts say who did", Effect.gen(function*() {
    yield* ask("permission:grant", { principal: "boss", pattern: "permission:grant", actions: ["call"] })
    yield* ask("permission:grant", { principal: "boss", pattern: "shop:*" })
    yield* as("boss", "permission:grant", { principal: "ann", pattern: "shop:order" })
    for (const data of [{ pattern: "*" }, { pattern: "permission:revoke", actions: ["call"] }, { profile: "standard" }]) {
      expect(yield* reasonOf(as("boss", "permission:grant", { principal: "ann", ...data }))).toMatchObject({ _tag: "PermissionDenied", principal: "boss" })
      expect(yield* reasonOf(as("boss", "permission:grant", { principal: "boss", ...data }))).toMatchObject({ _tag: "PermissionDenied", principal: "boss" })
    }
    expect(yield* reasonOf(as("boss", "permission:revoke", { principal: "ann", pattern: "shop:order" }))).toMatchObject({ _tag: "PermissionDenied" })
    const { items } = yield* ask("store:read", { stream: "ksi-permission", backward: true, limit: 1 })
    expect(items).toMatchObject([{ type: "permission:granted", data: { principal: "ann", by: "boss" }, principal: "boss", depth: 1 }])
  }))

  test("their facts come from nowhere else", Effect.gen(function*() {
    const ksi = yield* KsiService
    const data = { principal: "ann", profile: "owner", by: "owner" }
    expect(yield* reasonOf(ksi.dispatch("permission:granted", data))).toMatchObject({ _tag: "PayloadInvalid" })
    const imported = yield* ask("store:import", {
      events: ["ksi-permission", "order-1"].map((subject, n) => ({ specversion: "1.0", id: `${n}`, source: "/x", type: "permission:granted", subject, data }))
    })
    expect(imported).toMatchObject({ imported: 1, rejections: [{ index: 0 }] })
    expect(yield* ask("permission:check", { principal: "ann", event: "shop:order" })).toMatchObject({ allowed: false })
  }))
})

describe("permission:check", () => {
  test("says what decides, and what would help", Effect.gen(function*() {
    expect(yield* ask("permission:check", { event: "system:shutdown" })).toEqual({
      principal: "owner", event: "system:shutdown", action: "call", allowed: true, because: "the owner may everything"
    })
    const check = (data: object) => ask("permission:check", { principal: "local-http", ...data })
    expect(yield* check({ event: "store:import" })).toEqual({
      principal: "local-http", event: "store:import", action: "call", allowed: false, because: "store:* of the profile standard denies it",
      next: "ksi permission grant local-http store:import --action call --action emit"
    })
    expect(yield* check({ event: "store:read" })).toMatchObject({ allowed: true, because: "store:read of the profile standard allows it" })
    expect(yield* check({ event: "shop:order", action: "subscribe" })).toMatchObject({ allowed: true, because: "* of the profile standard allows it" })
    expect(yield* check({ event: "permission:granted" })).toMatchObject({ action: "emit", allowed: false })
    expect(yield* check({ event: "system:help" })).toMatchObject({ allowed: true })
    expect(yield* check({ principal: "ann", event: "shop:order" })).toMatchObject({ allowed: false, because: "nothing allows it" })
  }))

  test("the grant that is told helps, whatever denies it", Effect.gen(function*() {
    yield* ask("permission:grant", { principal: "ann", profile: "standard" })
    yield* ask("permission:grant", { principal: "ann", pattern: "shop:*", allow: false })
    yield* ask("permission:grant", { principal: "ann", pattern: "shop:order", allow: false })
    for (const event of ["shop:order", "shop:refund", "store:import", "permission:granted", "system:shutdown"]) {
      const { action, next } = yield* ask("permission:check", { principal: "ann", event })
      const [, principal, pattern, told] = /^ksi permission grant (\S+) (\S+) --action (.+)$/.exec(String(next)) ?? []
      const actions = String(told).split(" --action ")
      expect([principal, pattern, actions]).toEqual(["ann", event, expect.arrayContaining([action])])
      yield* ask("permission:grant", { principal, pattern, actions })
      expect(yield* ask("permission:check", { principal: "ann", event })).toMatchObject({ allowed: true, because: `${event} allows it` })
    }
  }))

  it.effect("of oneself everybody may ask, of others who may list", () => play(
    KsiTest.scenario.as("ann", { profile: "restricted" })
      .when(Permission.Check, { event: "store:read" }).thenReplies(({ allowed, principal }) => principal === "ann" && !allowed)
      .when(Permission.Check, { event: "store:read", principal: "ann" }).thenReplies(({ allowed }) => !allowed)
      .when(Permission.Check, { event: "store:read", principal: "bea" }).thenRefused("PermissionDenied", ({ event }) => event === "permission:list")
      .as("bea", { profile: "trusted" })
      .when(Permission.Check, { event: "store:read", principal: "ann" }).thenReplies(({ allowed }) => !allowed)
  ))

  test("at a moment of the past", Effect.gen(function*() {
    yield* TestClock.adjust("1 day")
    yield* ask("permission:grant", { principal: "ann", profile: "standard" })
    const { head } = yield* EventStore
    const granted = head()
    yield* TestClock.adjust("1 day")
    yield* ask("permission:revoke", { principal: "ann", profile: "standard" })
    const may = Effect.fnUntraced(function*(at: unknown) {
      return (yield* ask("permission:check", { principal: "ann", event: "shop:order", ...(at === undefined ? {} : { at }) }))["allowed"]
    })
    expect([yield* may(undefined), yield* may(granted), yield* may(granted - 1), yield* may(granted + 1)]).toEqual([false, true, false, false])
    expect([yield* may("1970-01-02T00:00:00Z"), yield* may("1970-01-02T23:59:59Z"), yield* may("1970-01-03")]).toEqual([true, true, false])
    expect(yield* reasonOf(may("yesterday"))).toMatchObject({ _tag: "PayloadInvalid" })
    expect((yield* ask("permission:list", { at: granted }))["items"]).toEqual([
      { principal: "ann", profile: "standard" }, { principal: "local-http", profile: "standard" }
    ])
  }))
})

describe("permission:list", () => {
  test("pages answer for one moment", Effect.gen(function*() {
    for (let n = 10; n < 20; n++) yield* ask("permission:grant", { principal: "ann", pattern: `shop:n${n}` })
    const between = ask("permission:revoke", { principal: "ann", profile: "restricted" })
    yield* ask("permission:grant", { principal: "ann", profile: "restricted" })
    let changed = false
    const { items, pages } = yield* pagesOf("permission:list", { principal: "ann", limit: 4 }, Effect.suspend(() => {
      if (changed) return Effect.void
      changed = true
      return between
    }))
    expect(pages).toBe(3)
    expect(items.map((item) => item["profile"] ?? item["pattern"])).toEqual(["restricted", ...Array.from({ length: 10 }, (_, n) => `shop:n${n + 10}`)])
    expect((yield* ask("permission:list", { principal: "ann" }))["items"]).toHaveLength(10)
    const { items: rules } = yield* ask("permission:list", { profile: "restricted" })
    expect(rules).toContainEqual({ pattern: "system:health", actions: ["call", "stream"], allow: true })
  }))
})

describe("tokens", () => {
  test("the secret is in the answer, and nowhere else", Effect.gen(function*() {
    const { id, principal, token } = yield* ask("permission:token_create", { name: "till", profile: "restricted", expires_in: 60 })
    expect(yield* ask("permission:token_list")).toEqual({
      tokens: [{ id, principal, profiles: ["restricted"], created: 0, expires: 60, valid: true, by: "owner" }], count: 1
    })
    expect(yield* as(String(principal), "system:health")).toMatchObject({ status: "healthy" })
    const { records } = yield* (yield* Activity).query({ limit: 100 })
    const facts = yield* ask("store:export", { all: true })
    expect(JSON.stringify([records, facts])).not.toContain(String(token).split("_")[2])
    yield* TestClock.adjust("60 seconds")
    expect(yield* reasonOf(as(String(principal), "system:health"))).toMatchObject({ _tag: "Unauthenticated" })
    expect(yield* ask("permission:token_list")).toMatchObject({ tokens: [{ valid: false }] })
    expect(yield* ask("permission:token_revoke", { id })).toEqual({ id, principal })
    expect(yield* ask("permission:token_list")).toEqual({ tokens: [], count: 0 })
  }))

  test("no answer with a token is kept under a key", Effect.gen(function*() {
    const ksi = yield* KsiService
    expect(yield* reasonOf(ksi.dispatch("permission:token_create", {}, { idempotencyKey: "k" }))).toMatchObject({ _tag: "PayloadInvalid" })
  }))
})

describe("what one is told of", () => {
  const { "system:help": Help } = System.Group.events
  const ann = KsiTest.scenario.as("ann", { profile: "restricted", grants: ["store:streams"] })
  it.effect("is what one may use", () => play(
    ann.when(System.Discover, { level: "events" })
      .thenReplies((found) => /store:streams/.test(JSON.stringify(found)) && !/store:import|system:shutdown|permission:grant/.test(JSON.stringify(found)))
      .when(Help, { event: "store:streams" }).thenReplies(({ event }) => event === "store:streams")
      .when(Help, { event: "system:shutdown" }).thenDenied()
      .when(Help, { event: "permission:granted" }).thenRefused("PermissionDenied", ({ action }) => action === "call")
  ))
})

describe("grants and revocations", () => {
  const people = ["ann", "bea"]
  const patterns = ["shop:order", "shop:*"]
  // Of each, what was last said of it. The more special pattern decides.
  const model = Commands.model(Permission.Group, {
    initial: {} as Readonly<Record<string, boolean>>,
    commands: {
      "permission:grant": (rules, { allow = true, pattern = "", principal }, must) => must.replyLike({ principal }, { ...rules, [`${principal} ${pattern}`]: allow }),
      "permission:revoke": (rules, { pattern = "", principal }, must) => rules[`${principal} ${pattern}`] === undefined
        ? must.beRefused("NotFound")
        : must.replyLike({ principal }, Object.fromEntries(Object.entries(rules).filter(([key]) => key !== `${principal} ${pattern}`))),
      "permission:check": (rules, { event, principal = "" }, must) =>
        must.replyLike({ allowed: rules[`${principal} ${event}`] ?? rules[`${principal} shop:*`] ?? false })
    },
    payloads: {
      "permission:grant": (_, pick) => ({ principal: pick(people), pattern: pick(patterns), allow: pick([true, false]), actions: ["call", "emit"] }),
      "permission:revoke": (_, pick) => ({ principal: pick(people), pattern: pick(patterns) }),
      "permission:check": (_, pick) => ({ principal: pick(people), event: pick(["shop:order", "shop:refund"]), action: "call" })
    }
  })

  it.effect("are true of every order in which they come", () => play(Effect.andThen(
    Commands.check(model, { runs: 40 }),
    Commands.check(model, { runs: 40, fibers: 3 })
  )))
})
