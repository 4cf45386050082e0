/**
 * The port through which the bus remembers answers, so that the same request with the same key is carried out once.
 *
 * The rule: the key is (principal, event, idempotency key). Who comes first runs; who comes with the same payload while
 * it runs waits for its answer; who comes later gets the answer that is kept (24 hours by default). The same key with
 * another payload is `IdempotencyConflict`. A run that was interrupted or died leaves nothing behind.
 *
 * **Example**
 *
 * ```ts
 * const idempotency = yield* Idempotency
 * const key = { principal: "owner", event: "stock:reserve", key: "k1" }
 * const first = yield* idempotency.once(key, { sku: "tea" }, Effect.succeed(1))
 * const again = yield* idempotency.once(key, { sku: "tea" }, Effect.succeed(2))
 * [first, again]                              // [1, 1]
 * ```
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { KsiError } from "../event/KsiError.ts"

/** What makes a request the same request. */
export interface IdempotencyKey {
  readonly principal: string
  readonly event: string
  readonly key: string
}

/** Answers that are kept. */
export class Idempotency extends Context.Service<Idempotency, {
  /**
   * Runs `work` once for the key, or answers with what it answered before. `payload` and the answer are JSON; only
   * a success and a failure are kept (`E` as JSON too). Fails with `IdempotencyConflict` or `StoreFailure`.
   */
  readonly once: <A, E, R>(
    key: IdempotencyKey,
    payload: unknown,
    work: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | KsiError, R>
}>()("ksi/bus/Idempotency") {}
