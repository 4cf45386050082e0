// The wire over TCP, where nobody is anybody without a token.
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Logger, Scope } from "effect"
import * as Net from "node:net"
import { serve } from "../../src/bus/Router.ts"
import * as Limits from "../../src/event/Limits.ts"
import { Permissions } from "../../src/store/Permissions.ts"
import * as Control from "../../src/wire/Control.ts"
import * as Listener from "../../src/wire/Listener.ts"
import { runtime } from "../plugins/Builtins.ts"
import { eventually, Group, handlers, makeCounts, Plain } from "./Daemon.ts"

const start = Effect.fnUntraced(function*(options: Partial<Listener.TcpOptions> & { readonly limits?: Partial<Limits.LimitsShape> } = {}) {
  const counts = makeCounts()
  const app = Layer.mergeAll(serve(Group).pipe(Layer.provide(handlers(counts))), Control.layer).pipe(Layer.provideMerge(runtime()))
  const context = yield* Layer.build(app)
  const doors = yield* Scope.fork(yield* Effect.scope)
  const limits = { ...Limits.defaults, ...options.limits }
  const built = yield* Layer.buildWithScope(Listener.layerTcp({ port: 0, ...options }), doors).pipe(
    Effect.provideContext(context), Effect.provideService(Limits.Limits, limits)
  )
  const listener = Context.get(built, Listener.Listener)
  return { counts, context, doors, listener, permissions: Context.get(context, Permissions), port: Number(new URL(listener.address).port) }
})

const hello = (token: string) => ({ event: "wire:hello", data: { version: 1, token } })
const echo = { event: "t:echo", data: { value: 1 } }

describe("who connects over TCP", () => {
  it.live("may only greet", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const plain = yield* Plain.connect(port)
      for (const event of ["t:echo", "system:health", "system:shutdown", "pubsub:subscribe", "no:such"]) {
        expect((yield* plain.ask({ event, data: { value: 1 } })).data.reason, event).toBe("Unauthenticated")
      }
      expect((yield* plain.ask({ event: "wire:hello", data: { version: 1 } })).data.principal).toBe("anonymous")
      expect((yield* plain.ask(hello("ksi_wrong_" + "0".repeat(64)))).data.reason).toBe("Unauthenticated")
      expect((yield* plain.ask(echo)).data.reason).toBe("Unauthenticated")
    }))

  it.live("is the bearer of a valid token, and may what that may", () =>
    Effect.gen(function*() {
      const { permissions, port } = yield* start()
      const { principal, token } = yield* permissions.createToken({ by: "owner" })
      const plain = yield* Plain.connect(port)
      expect((yield* plain.ask(hello(token))).data.principal).toBe(principal)
      expect((yield* plain.ask(echo)).data.reason).toBe("PermissionDenied")
      yield* permissions.grant({ by: "owner", principal, rule: { pattern: "t:echo", actions: ["call"], allow: true } })
      expect((yield* plain.ask(echo)).ok).toBe(true)
      expect((yield* plain.ask({ event: "system:shutdown" })).data.reason).toBe("PermissionDenied")
    }))

  it.live("hears nothing more once its token is revoked", () =>
    Effect.gen(function*() {
      const { permissions, port } = yield* start()
      const { id, token } = yield* permissions.createToken({ by: "owner", profile: "trusted" })
      const plain = yield* Plain.connect(port)
      yield* plain.ask(hello(token))
      yield* plain.ask({ event: "pubsub:subscribe", data: { pattern: "t:*", subscription_id: "s" } })
      yield* permissions.revokeToken({ id, by: "owner" })
      const end = (yield* plain.received(3)).at(-1)
      expect(JSON.stringify(end)).toContain("Unauthenticated")
      expect((yield* plain.ask(echo)).data.reason).toBe("Unauthenticated")
    }))

  it.live("is gone where no valid token comes in time, silent or not", () =>
    Effect.gen(function*() {
      const { listener, permissions, port } = yield* start({ limits: { headerMillis: 300 } })
      const { token } = yield* permissions.createToken({ by: "owner", profile: "trusted" })
      const [silent, wrong, known, fallen] = [yield* Plain.connect(port), yield* Plain.connect(port), yield* Plain.connect(port), yield* Plain.connect(port)]
      yield* known.ask(hello(token))
      yield* fallen.ask(hello(token))
      yield* fallen.ask(hello("wrong"))
      yield* wrong.ask(hello("wrong"))
      yield* Effect.all([silent.ended, wrong.ended, fallen.ended])
      expect(silent.lines.join("")).toContain("no valid token came within 300 ms")
      expect((yield* known.ask(echo)).ok).toBe(true)
      yield* eventually(() => listener.connections() === 1)
    }))
})

describe("the port", () => {
  it.live("that is in use is said to be, and so is an address that is not this machine's", () =>
    Effect.gen(function*() {
      const { port } = yield* start()
      const taken = yield* Effect.flip(start({ port }))
      expect(taken.reason).toMatchObject({ _tag: "ListenFailed", address: `tcp://127.0.0.1:${port}`, problem: "the port is in use", taken: true })
      expect(taken.reason.next).toBe("ksi start --tcp <another address>, or --tcp off")
      expect((yield* Effect.flip(start({ host: "192.0.2.1" }))).reason.message).toContain("does not have that address")
    }))

  it.live("takes no more than the limit of connections", () =>
    Effect.gen(function*() {
      const { port } = yield* start({ limits: { connections: 1 } })
      const first = yield* Plain.connect(port)
      yield* first.ask({ event: "wire:hello", data: { version: 1 } })
      const second = yield* Plain.connect(port)
      expect((yield* second.received(1))[0]?.data.reason).toBe("LimitExceeded")
      yield* second.ended
    }))

  it.live("closes when its layer does, and what still runs is answered", () =>
    Effect.gen(function*() {
      const { counts, doors, permissions, port } = yield* start({ drain: 50 })
      const { token } = yield* permissions.createToken({ by: "owner", profile: "trusted" })
      const plain = yield* Plain.connect(port)
      yield* plain.ask(hello(token))
      plain.send({ event: "t:forever" })
      yield* eventually(() => counts.running === 1)
      yield* Scope.close(doors, Exit.void)
      expect((yield* plain.received(2))[1]).toMatchObject({ ok: false, data: { cause: "interrupt" } })
      yield* plain.ended
      const again = yield* Effect.callback<string>((resume) => {
        Net.connect(port, "127.0.0.1").on("error", (error) => resume(Effect.succeed(error.message)))
      })
      expect(again).toContain("ECONNREFUSED")
    }).pipe(Effect.provide(Logger.layer([]))))
})
