/**
 * Who may do what: one check in nanoseconds, and what the look at the door costs a request from outside.
 *
 * `check` asks about eight events in turn, for a token with the profile `standard` and a hundred grants of its own; `raw`
 * is a set of the eight names, asked the same way. `door` is a request of an event by name (`dispatch`) as such a token;
 * `owner` is the same request as the owner, who is not looked at.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"
import { Permissions } from "../../src/store/Permissions.ts"
import type { Bench } from "./Bench.ts"

const Ask = Event.make("shop:ask", { payload: { n: Schema.Int }, success: Schema.Int })
const Shop = EventGroup.make(Ask)
const names = ["shop:ask", "shop:order:placed", "stock:level", "system:health", "store:import", "system:shutdown", "deep:a:b:c:d", "store:read"]

const checks = 1_000_000

/** Asks a million times; nanoseconds for each, and whether what was answered is right. */
const timed = (expected: number, ask: (name: string) => boolean) => () => {
  let allowed = 0
  const start = performance.now()
  for (let n = 0; n < checks; n++) if (ask(names[n & 7] ?? "")) allowed++
  const nanos = (performance.now() - start) * 1e6 / checks
  if (allowed !== expected) throw new Error(`${allowed} of ${checks} were allowed, not ${expected}`)
  return nanos
}

export const run = async (bench: Bench): Promise<void> => {
  const scope = Scope.makeUnsafe()
  const layer = Ksi.serve(Shop).pipe(
    Layer.provide(Shop.toLayer({ "shop:ask": ({ n }) => Effect.succeed(n) })),
    Layer.provideMerge(Ksi.layerMemoryWith({ audit: "off" }))
  )
  const context = await Effect.runPromise(Layer.buildWithScope(layer, scope))
  const permissions = Context.get(context, Permissions)
  const ksi = Context.get(context, Ksi)
  const { principal } = await Effect.runPromise(permissions.createToken({ by: "owner", profile: "standard" }))
  for (let n = 0; n < 100; n++) {
    const rule = { pattern: `own${n}:*`, actions: ["call"], allow: n % 2 === 0 } as const
    await Effect.runPromise(permissions.grant({ by: "owner", principal, rule }))
  }
  const { allows } = permissions.authorizer
  const set = new Set(names.filter((name) => allows(principal, "call", name)))
  const expected = checks / 8 * 6
  await bench.measure({
    case: "check", metric: "one check", unit: "ns",
    subjects: [
      { name: "ksi", run: timed(expected, (name) => allows(principal, "call", name)) },
      { name: "raw", run: timed(expected, (name) => set.has(name)) }
    ]
  })
  const asking = (who: string) => (millis: number) => {
    const options = { principal: who }
    const start = performance.now()
    let count = 0
    while (performance.now() - start < millis) {
      for (let n = 0; n < 100; n++) {
        const exit = Effect.runSyncExit(ksi.dispatch("shop:ask", { n }, options))
        if (Exit.isFailure(exit)) throw new Error("it was not answered")
        count++
      }
    }
    return { count, millis: performance.now() - start }
  }
  await bench.compare({
    case: "door", metric: "requests by name", unit: "/s",
    subjects: [{ name: "ksi", run: asking(principal) }, { name: "owner", run: asking("owner") }]
  })
  await Effect.runPromise(Scope.close(scope, Exit.void))
}
