import { expect, it } from "@effect/vitest"
import { Context, Effect } from "effect"
import { Idempotency } from "../../src/bus/Idempotency.ts"
import type { KsiError } from "../../src/event/KsiError.ts"

class Stock extends Context.Service<Stock, { readonly left: number }>()("test/Stock") {}

it.effect("an answer has the types of the work, which runs in the caller's context", () =>
  Effect.gen(function*() {
    const { once } = yield* Idempotency
    const work = Effect.flatMap(Stock, ({ left }) => left > 0 ? Effect.succeed(left) : Effect.fail("none" as const))
    const answer: Effect.Effect<number, "none" | KsiError, Stock> = once({ principal: "owner", event: "a:b", key: "k" }, {}, work)
    expect(yield* Effect.provideService(answer, Stock, { left: 3 })).toBe(3)
    expect(yield* Effect.flip(Effect.provideService(answer, Stock, { left: 0 }))).toBe("none")
  }).pipe(
    // Keeps nothing: what is tested is the port.
    Effect.provideService(Idempotency, { once: (_key, _payload, work) => work })
  ))
