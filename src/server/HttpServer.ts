/**
 * HTTP in front of a runtime, as a layer: what a program adds to be asked, and followed, over HTTP and WebSocket.
 *
 * The rule: who does not build it does not pay for it. What speaks HTTP is loaded with the first one that is built.
 *
 * **Example**
 *
 * ```ts
 * const main = HttpServer.layer({ port: 0 }).pipe(Layer.provideMerge(Ksi.layerMemory))
 * const { url } = Context.get(yield* Layer.build(main), HttpServer.Http)
 * const answer = yield* Effect.promise(() => fetch(`${url}/health/ready`))
 * answer.status                               // 200
 * ```
 *
 * **Gotchas** What KSI itself is asked (`system:*`, following over `/ws`) is served by the daemon, not by this layer: in a program,
 * `GET /events` finds nothing to answer it. A loopback address answers everybody on this machine as `local-http`; any other
 * asks for a token, of `Permissions` or the owner's.
 *
 * `ksi` exports this module as `Http`.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Router } from "../bus/Router.ts"
import type { Subscriptions } from "../bus/Subscription.ts"
import type { KsiError } from "../event/KsiError.ts"
import { Http, type Options } from "./internal/address.ts"

export { Http, type Options }

/**
 * Speaks HTTP. Closing it stops accepting, lets requests run for `drain`, then interrupts them. Fails with `ListenFailed`, as where
 * the port is in use.
 */
export const layer = (options: Options = {}): Layer.Layer<Http, KsiError, Router | Subscriptions> =>
  Layer.unwrap(Effect.map(Effect.promise(() => import("./Http.ts")), (http) => http.layer(options)))
