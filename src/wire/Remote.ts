/**
 * The five words against a daemon: the same `Ksi` service as in its process, over a connection that comes back.
 *
 * The rule: what arrives there as it is arrives here as it is. Values and declared errors are decoded by the definitions that the
 * program has; a handler that died or was interrupted over there is a defect or an interruption here. What cannot be known is said:
 * a request that was under way when the connection was lost fails with `ConnectionLost`, which is `retryable` only where the
 * request cannot have left, or where its event says that it may be carried out twice (`idempotent`). With `resend` none of that is seen:
 * every request has a key by which the daemon carries it out once (`Builtin.idempotency`, which `ksi start` has before everything), and
 * is sent again when the connection is back.
 *
 * A token that is not valid, or no longer, ends the connection for good: its state is `closed`, with the `error` that everything fails
 * with from then on (`Unauthenticated`). Where only the connection is lost, it is tried again, first after the first delay of `reconnect`.
 *
 * Subscriptions go on by themselves after the last fact that was handed out: nothing is left out and nothing comes twice. A
 * stream of items does where its event says how (`cursor`); another one fails.
 *
 * **Example**
 *
 * ```ts
 * yield* Layer.build(Layer.mergeAll(Control.layer, Listener.layerUnix({ path: "var/run/daemon.sock" })))
 * const reserve = Effect.flatMap(Ksi, (ksi) => ksi.call(Reserve, { sku: "tea", quantity: 1 }))
 * const { holdId } = yield* reserve.pipe(Effect.provide(Remote.layer({ url: "unix:var/run/daemon.sock" })))
 * holdId.length > 0                           // true
 * ```
 *
 * **Gotchas** Building the layer waits for the first connection, and fails with `ConnectionLost` where nobody answers. `as` of a
 * `dispatch` is not looked at: the definition over there decides. A subscription's `buffer` is that of the daemon, and as many may be
 * held here, or be on their way; what is left out on either side is counted in `missed`. `overflow: "block"` is for the daemon's owner.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Stream from "effect/Stream"
import { KsiService } from "../bus/KsiService.ts"
import type * as KsiError from "../event/KsiError.ts"
import type { Options, State } from "./internal/remoting.ts"

export type { Options, State } from "./internal/remoting.ts"

// ------------------------------------------------------------------------------------------------------------ service

/** The connection of a program to its daemon. */
export class Remote extends Context.Service<Remote, {
  readonly address: string
  /** How it is now. */
  readonly state: Effect.Effect<State>
  /** How it is, and each change of that. */
  readonly states: Stream.Stream<State>
}>()("ksi/wire/Remote") {}

// -------------------------------------------------------------------------------------------------------------- layer

/**
 * The five words against a daemon, over a connection that comes back until the layer closes. Fails with `ConnectionLost` where
 * nobody answers.
 */
export const layer = (options: Options): Layer.Layer<KsiService | Remote, KsiError.KsiError> =>
  // What speaks the wire is loaded by who needs it.
  Layer.effectContext(Effect.gen(function*() {
    const { make } = yield* Effect.promise(() => import("./internal/remoting.ts"))
    const { connection, ksi } = yield* make(options)
    return Context.make(KsiService, ksi).pipe(Context.add(Remote, Remote.of(connection)))
  }))
