import { describe, expect, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Layer, Result, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { KsiService } from "../../src/bus/KsiService.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Grant from "../../src/event/Grant.ts"
import { KsiError } from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import { type NewToken, Permissions } from "../../src/store/Permissions.ts"

const test = <E>(name: string, program: Effect.Effect<void, E, Runtime | Scope.Scope>, limits: Partial<Limits.LimitsShape> = {}) =>
  it.effect(name, () =>
    Effect.scoped(program).pipe(
      Effect.provide(Layer.fresh(Ksi.layerMemory)),
      Effect.provideService(Limits.Limits, { ...Limits.defaults, ...limits })
    ))

const reasonOf = <A, R>(effect: Effect.Effect<A, unknown, R>) =>
  Effect.map(Effect.flip(effect), (error) => error instanceof KsiError ? error.reason : error)

const by = "owner"
const call = ["call"] as const
const allow = (pattern: string, actions: ReadonlyArray<Grant.Action> = Grant.actions) => ({ rule: { pattern, actions, allow: true } })
const deny = (pattern: string, actions: ReadonlyArray<Grant.Action> = Grant.actions) => ({ rule: { pattern, actions, allow: false } })

describe("grants", () => {
  test("are in force when they are acknowledged, and facts", Effect.gen(function*() {
    const permissions = yield* Permissions
    const { allows } = permissions.authorizer
    expect(allows("ann", "call", "shop:order")).toBe(false)
    yield* permissions.grant({ by, principal: "ann", ...allow("shop:*", call) })
    expect([allows("ann", "call", "shop:order"), allows("ann", "emit", "shop:order")]).toEqual([true, false])
    yield* permissions.grant({ by, principal: "ann", ...deny("shop:refund") })
    expect(allows("ann", "call", "shop:refund")).toBe(false)
    yield* permissions.grant({ by, principal: "ann", profile: "trusted" })
    // What is its own goes before what a profile says.
    expect([allows("ann", "call", "shop:refund"), allows("ann", "call", "store:import")]).toEqual([false, true])
    yield* permissions.revoke({ by, principal: "ann", pattern: "shop:refund" })
    expect(allows("ann", "call", "shop:refund")).toBe(true)
    yield* permissions.revoke({ by, principal: "ann", profile: "trusted" })
    yield* permissions.revoke({ by, principal: "ann", pattern: "shop:*", actions: ["call"] })
    expect(allows("ann", "call", "shop:order")).toBe(false)
    expect(allows("ann", "call", "system:help")).toBe(false)
    const store = yield* EventStore
    const facts = yield* Stream.runCollect(store.stream("ksi-permission"))
    expect(facts.map(({ name }) => name.slice("permission:".length)).slice(4)).toEqual(["granted", "granted", "granted", "revoked", "revoked", "revoked"])
    expect(facts.slice(0, 4).map(({ data }) => data)).toMatchObject(Grant.profileNames.map((profile) => ({ profile, rules: Grant.profiles[profile] })))
    expect(facts[4]?.data).toEqual({ principal: "ann", rule: { pattern: "shop:*", actions: ["call"], allow: true }, by })
  }))

  test("nothing there is taken away, nothing is given to the owner or to nobody, and what is no pattern is refused", Effect.gen(function*() {
    const { grant, revoke } = yield* Permissions
    for (const principal of ["owner", "anonymous", "", "Ann", "a b", "a'; rm -rf ~"]) {
      expect(yield* reasonOf(grant({ by, principal, ...allow("*") })), principal).toMatchObject({ _tag: "PayloadInvalid" })
      expect(yield* reasonOf(revoke({ by, principal, pattern: "*" })), principal).toMatchObject({ _tag: "PayloadInvalid" })
    }
    expect(yield* reasonOf(grant({ by, principal: "ann", ...allow("sh*p") }))).toMatchObject({ _tag: "PatternInvalid" })
    expect(yield* reasonOf(grant({ by, principal: "ann", ...allow("shop:*", []) }))).toMatchObject({ _tag: "PayloadInvalid" })
    expect(yield* reasonOf(grant({ by, principal: "token:nobody-1", ...allow("shop:*") }))).toMatchObject({ _tag: "NotFound", what: "token" })
    expect(yield* reasonOf(revoke({ by, principal: "ann", pattern: "shop:*" }))).toMatchObject({ _tag: "NotFound", what: "grant" })
    expect(yield* reasonOf(revoke({ by, principal: "ann", profile: "standard" }))).toMatchObject({ _tag: "NotFound", what: "profile" })
    expect((yield* EventStore).head()).toBe(0)
  }))

  test("nobody gives more than they have", Effect.gen(function*() {
    const { authorizer: { allows }, grant, revoke } = yield* Permissions
    yield* grant({ by, principal: "boss", ...allow("shop:*") })
    yield* grant({ by, principal: "boss", ...deny("shop:refund", call) })
    const from = (pattern: string, actions?: ReadonlyArray<Grant.Action>) => grant({ by: "boss", principal: "ann", ...allow(pattern, actions) })
    for (const [pattern, actions] of [["*", call], ["shop:*", call], ["shop:refund", call], ["*:refund", call], ["stock:level", call]] as const) {
      expect(yield* reasonOf(from(pattern, actions)), pattern).toMatchObject({ _tag: "PermissionDenied", principal: "boss", event: pattern })
    }
    yield* from("shop:order")
    yield* from("shop:*", ["emit", "subscribe"])
    for (const profile of Grant.profileNames) {
      expect(yield* reasonOf(grant({ by: "boss", principal: "ann", profile }))).toMatchObject({ _tag: "PermissionDenied" })
    }
    // A profile is passed on by who has it, or more, and no denial of its own.
    yield* grant({ by, principal: "chief", profile: "standard" })
    yield* grant({ by: "chief", principal: "bea", profile: "restricted" })
    expect(yield* reasonOf(grant({ by: "chief", principal: "bea", profile: "trusted" }))).toMatchObject({ _tag: "PermissionDenied", principal: "chief" })
    yield* grant({ by, principal: "chief", ...deny("shop:refund") })
    expect(yield* reasonOf(grant({ by: "chief", principal: "bea", profile: "standard" }))).toMatchObject({ _tag: "PermissionDenied" })
    // To take a denial away is to give; of oneself too.
    expect(yield* reasonOf(revoke({ by: "boss", principal: "boss", pattern: "shop:refund" }))).toMatchObject({ _tag: "PermissionDenied" })
    expect([allows("ann", "call", "shop:order"), allows("ann", "call", "shop:refund")]).toEqual([true, false])
  }))

  test("races: each looks at what those before it have made", Effect.gen(function*() {
    const { authorizer: { allows }, grant, revoke, view } = yield* Permissions
    const names = Array.from({ length: 40 }, (_, n) => `shop:n${n}`)
    const outcomes = yield* Effect.forEach(names, (name) => Effect.exit(grant({ by, principal: "ann", ...allow(name) })), { concurrency: "unbounded" })
    // One grant is there from the start: that of local-http.
    expect(outcomes.filter(Exit.isSuccess).length).toBe(19)
    expect((yield* view()).items().length).toBe(20)
    const gone = yield* Effect.forEach([1, 2, 3], () => Effect.exit(revoke({ by, principal: "ann", pattern: "shop:n0" })), { concurrency: "unbounded" })
    expect(gone.filter(Exit.isSuccess).length).toBe(1)
    expect(allows("ann", "call", "shop:n0")).toBe(false)
  }), { grants: 20 })
})

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ksi-permissions-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

describe("a restart", () => {
  it.effect("changes nothing of who may what", () =>
    Effect.gen(function*() {
      const filename = join(yield* folder, "ksi.db")
      const start = <A, E>(program: Effect.Effect<A, E, Runtime>) => Effect.provide(program, Layer.fresh(Ksi.layerSqlite({ filename })))
      const made = yield* start(Effect.gen(function*() {
        const permissions = yield* Permissions
        const kept = yield* permissions.createToken({ by, name: "kept", profile: "restricted", expiresIn: 60_000 })
        const gone = yield* permissions.createToken({ by, name: "gone", profile: "owner" })
        yield* permissions.grant({ by, principal: kept.principal, ...allow("shop:*") })
        yield* permissions.grant({ by, principal: "ann", profile: "standard" })
        yield* permissions.revoke({ by, principal: "local-http", profile: "standard" })
        yield* permissions.revokeToken({ by, id: gone.id })
        return { kept, gone, items: (yield* permissions.view()).items() }
      }))
      yield* start(Effect.gen(function*() {
        const { authorizer, view } = yield* Permissions
        expect((yield* view()).items()).toEqual(made.items)
        expect(authorizer.authenticate(made.kept.token)).toEqual(Result.succeed(made.kept.principal))
        expect(Result.isFailure(authorizer.authenticate(made.gone.token))).toBe(true)
        expect(authorizer.allows(made.kept.principal, "call", "shop:order")).toBe(true)
        expect(authorizer.allows(made.gone.principal, "call", "shop:order")).toBe(false)
        expect(authorizer.allows("local-http", "call", "system:health")).toBe(false)
        yield* TestClock.adjust(60_000)
        expect(Result.isFailure(authorizer.authenticate(made.kept.token))).toBe(true)
        // Not one fact more: the profiles are what they were.
        expect((yield* EventStore).head()).toBe(10)
      }))
    }))

  it.effect("a fact that cannot be read keeps everybody out: the store does not open", () =>
    Effect.gen(function*() {
      const filename = join(yield* folder, "ksi.db")
      yield* Effect.provide(Effect.gen(function*() {
        const store = yield* EventStore
        yield* store.driver.append({ facts: [{ id: "1", source: "/ksi", name: "permission:unheard_of", streamId: "ksi-permission", data: {}, time: undefined, attributes: {} }] })
      }), Layer.fresh(Ksi.layerSqlite({ filename })))
      expect(yield* reasonOf(Effect.scoped(Layer.build(Layer.fresh(Ksi.layerSqlite({ filename })))))).toMatchObject({
        _tag: "StoreFailure", problem: expect.stringContaining("position 1")
      })
    }))
})

describe("tokens", () => {
  test("are shown once; what is kept is a hash", Effect.gen(function*() {
    const { authorizer, createToken, view } = yield* Permissions
    const { id, principal, token } = yield* createToken({ by, name: "till" })
    expect(token).toMatch(/^ksi_till-[0-9a-f]{8}_[0-9a-f]{64}$/)
    expect([principal, authorizer.authenticate(token)]).toEqual([`token:${id}`, Result.succeed(principal)])
    const [, , secret = ""] = token.split("_")
    const everything = JSON.stringify([yield* Stream.runCollect((yield* EventStore).all()), (yield* view()).tokens(), (yield* view()).items()])
    expect(everything).not.toContain(secret)
    expect((yield* createToken({ by, name: "till" })).id).not.toBe(id)
    for (const name of ["", "Till", "a_b", "-a", "a--b", "é", "x".repeat(33)]) {
      expect(yield* reasonOf(createToken({ by, name })), name).toMatchObject({ _tag: "PayloadInvalid" })
    }
  }))

  test("what is no token is nobody, whatever it is", Effect.gen(function*() {
    const { authorizer: { authenticate }, createToken } = yield* Permissions
    const { id, token } = yield* createToken({ by, name: "till", profile: "owner" })
    const [prefix, , secret = ""] = token.split("_")
    const other = yield* createToken({ by, name: "till" })
    const hostile: ReadonlyArray<unknown> = [
      "", "ksi", "ksi__", `${prefix}_${id}_`, `${token}0`, token.slice(0, -1), ` ${token}`, `${token}\n`, token.toUpperCase(),
      `KSI_${id}_${secret}`, `${prefix}_${other.id}_${secret}`, `${prefix}_unknown_${secret}`, `${prefix}_${id}_${"0".repeat(64)}`,
      `${prefix}_${id}_${"é".repeat(64)}`, `${prefix}_${id}_${"\u0000".repeat(64)}`, `${prefix}_${id}_${"０".repeat(64)}`,
      `${prefix}___proto___${secret}`, `${prefix}_constructor_${secret}`, "x".repeat(1024 * 1024), `${token}${" ".repeat(1024 * 1024)}`,
      "\ud800", null, undefined, 7, true, {}, [token], { toString: () => token }, "owner", "token:till", id
    ]
    for (const text of hostile) expect(Result.isFailure(authenticate(text)), String(JSON.stringify(text)).slice(0, 90)).toBe(true)
    expect(Result.isSuccess(authenticate(token))).toBe(true)
  }))

  test("are bounded; those that have expired make room", Effect.gen(function*() {
    const { createToken, view } = yield* Permissions
    for (let n = 0; n < 3; n++) yield* createToken({ by, expiresIn: 1000 })
    expect(yield* reasonOf(createToken({ by }))).toMatchObject({ _tag: "LimitExceeded", limit: "tokens" })
    yield* TestClock.adjust(1000)
    expect((yield* view()).tokens().map(({ valid }) => valid)).toEqual([false, false, false])
    yield* createToken({ by, name: "new" })
    expect((yield* view()).tokens().map(({ id }) => id.slice(0, 3))).toEqual(["new"])
  }), { tokens: 3 })

  test("an end takes the grants along, and a token of less cannot make one of more", Effect.gen(function*() {
    const { authorizer: { allows }, createToken, grant, revokeToken, view } = yield* Permissions
    const { id, principal } = yield* createToken({ by, name: "till", profile: "standard" })
    yield* grant({ by, principal, ...allow("module:list") })
    expect(yield* reasonOf(createToken({ by: principal, profile: "trusted" }))).toMatchObject({ _tag: "PermissionDenied", principal })
    yield* createToken({ by: principal, profile: "standard" })
    expect((yield* revokeToken({ by, id })).valid).toBe(false)
    expect(yield* reasonOf(revokeToken({ by, id }))).toMatchObject({ _tag: "NotFound" })
    expect(allows(principal, "call", "module:list")).toBe(false)
    expect((yield* view()).items().some((item) => item.principal === principal)).toBe(false)
  }))
})

describe("subscriptions", () => {
  const subscriber = Effect.fnUntraced(function*({ principal }: Pick<NewToken, "principal">) {
    const { open } = yield* Subscriptions
    const { next } = yield* open("*", { principal })
    return yield* Effect.forkChild(Effect.exit(next), { startImmediately: true })
  })

  test("end when nothing is left that they may hear, and hear less from then on otherwise", Effect.gen(function*() {
    const permissions = yield* Permissions
    const store = yield* EventStore
    const token = yield* permissions.createToken({ by })
    for (const pattern of ["shop:*", "stock:*"]) yield* permissions.grant({ by, principal: token.principal, ...allow(pattern, ["subscribe"]) })
    const { open } = yield* Subscriptions
    const { next } = yield* open("*", { principal: token.principal })
    // Heard before the grant is gone, taken after: not told.
    yield* store.appendTo("s", [{ name: "stock:level" }, { name: "shop:order" }])
    yield* permissions.revoke({ by, principal: token.principal, pattern: "stock:*" })
    yield* store.appendTo("s", [{ name: "stock:level" }, { name: "shop:order" }])
    expect((yield* next).map(({ missed, name }) => [name, missed])).toEqual([["shop:order", 0], ["shop:order", 0]])
    const waiting = yield* subscriber(token)
    yield* permissions.revoke({ by, principal: token.principal, pattern: "shop:*" })
    expect(yield* Fiber.join(waiting)).toMatchObject({ _tag: "Failure" })
    expect(yield* reasonOf(next)).toMatchObject({ _tag: "PermissionDenied", event: "*", action: "subscribe" })
  }))

  test("end with their token, revoked or expired", Effect.gen(function*() {
    const permissions = yield* Permissions
    const revoked = yield* permissions.createToken({ by, profile: "standard" })
    const expiring = yield* permissions.createToken({ by, profile: "standard", expiresIn: 40 * 24 * 60 * 60 * 1000 })
    const staying = yield* permissions.createToken({ by, profile: "standard" })
    const fibers = yield* Effect.forEach([revoked, expiring, staying], subscriber)
    const [first, second, third] = fibers
    yield* permissions.revokeToken({ by, id: revoked.id })
    expect(yield* reasonOf(Effect.flatten(Fiber.join(first ?? expect.fail())))).toMatchObject({ _tag: "Unauthenticated" })
    expect(second?.pollUnsafe()).toBeUndefined()
    yield* TestClock.adjust("40 days")
    expect(yield* reasonOf(Effect.flatten(Fiber.join(second ?? expect.fail())))).toMatchObject({ _tag: "Unauthenticated" })
    expect(third?.pollUnsafe()).toBeUndefined()
  }))

  test("of the five words hear what their principal may", Effect.gen(function*() {
    const ksi = yield* KsiService
    const store = yield* EventStore
    yield* store.appendTo("s", [{ name: "shop:order" }, { name: "node:secret" }, { name: "shop:order" }])
    const heard = yield* ksi.subscribe("*", { from: "start", principal: "local-http" }).pipe(Stream.take(2), Stream.runCollect)
    expect(heard.map(({ position }) => position)).toEqual([1n, 3n])
    expect(yield* reasonOf(Stream.runDrain(ksi.subscribe("node:*", { principal: "local-http" })))).toMatchObject({ _tag: "PermissionDenied" })
  }))
})

describe("time travel", () => {
  test("tells who might what at any position and instant", Effect.gen(function*() {
    const { createToken, grant, revoke, revokeToken, view } = yield* Permissions
    const store = yield* EventStore
    const moments: Array<{ readonly position: number; readonly instant: number; readonly may: readonly [boolean, boolean] }> = []
    const token = yield* createToken({ by, profile: "restricted", expiresIn: 10_000 })
    const note = Effect.gen(function*() {
      const now = yield* view()
      const may = [now.allows("ann", "call", "shop:order"), now.allows(token.principal, "call", "system:health")] as const
      moments.push({ position: store.head(), instant: yield* Clock.currentTimeMillis, may })
      yield* TestClock.adjust(1000)
    })
    yield* note
    yield* grant({ by, principal: "ann", ...allow("shop:*") })
    yield* note
    yield* grant({ by, principal: "ann", ...deny("shop:order") })
    yield* note
    yield* revoke({ by, principal: "ann", pattern: "shop:order" })
    yield* note
    yield* TestClock.adjust(10_000)
    yield* store.appendTo("s", [{ name: "shop:order" }])
    yield* note
    yield* revokeToken({ by, id: token.id })
    yield* note
    expect(moments.map(({ may }) => may)).toEqual([[false, true], [true, true], [false, true], [true, true], [true, false], [true, false]])
    for (const { instant, may, position } of moments) {
      for (const at of [{ instant }, { position }]) {
        const then = yield* view(at)
        expect([then.allows("ann", "call", "shop:order"), then.allows(token.principal, "call", "system:health")], JSON.stringify(at)).toEqual(may)
      }
    }
    expect((yield* view({ position: 1_000_000 })).items()).toEqual((yield* view()).items())
    expect((yield* view({ instant: -1 })).items()).toEqual([{ principal: "local-http", profile: "standard" }])
  }))
})
