/**
 * The port through which the bus remembers answers, so that the same request with the same key is carried out once.
 *
 * The rule: the key is (principal, event, idempotency key). Who comes first runs; who comes with the same payload while
 * it runs waits for its answer; who comes later gets the answer that is kept (24 hours). The same key with another
 * payload is `IdempotencyConflict`. A run that was interrupted or died leaves nothing behind: who waits for it runs.
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
 *
 * **Gotchas** Work that asks for its own key waits for itself, until its deadline. What the work did and its answer are not one
 * transaction: where the process dies after the one and before the other is kept, the same key runs the work again after the restart.
 * What must not happen twice even then says so itself, as with `expectedVersion: 0` for the first fact of its stream.
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
   * Runs `work` once for the key, or answers as it answered before. `payload` and what `work` answers are JSON; the order
   * of an object's keys does not matter. A success is kept, and so is a failure (JSON, or a `KsiError`), unless it is a
   * `KsiError` that may be tried again: that is what the key is for. What is kept is durable before the caller has it.
   * Fails with `IdempotencyConflict`, or `StoreFailure` where the answer cannot be kept: asking again keeps it then, and
   * does not run `work` again in this process.
   */
  readonly once: <A, E, R>(
    key: IdempotencyKey,
    payload: unknown,
    work: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | KsiError, R>
}>()("ksi/bus/Idempotency") {}
