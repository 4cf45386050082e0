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
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Router } from "../bus/Router.ts"
import type { Subscriptions } from "../bus/Subscription.ts"
import type { KsiError } from "../event/KsiError.ts"
import { Http } from "./internal/address.ts"

/** Where to listen, and who is who. */
export interface Options {
  /** Default: `127.0.0.1`. */
  readonly host?: string | undefined
  /** 0 takes a free one. Default: 4600. */
  readonly port?: number | undefined
  /** Names by which it may be asked, beside the loopback ones, with a port or for any. Default: none. */
  readonly hosts?: ReadonlyArray<string> | undefined
  /** Who presents it is `owner`. Default: nobody is. */
  readonly ownerToken?: string | undefined
  /** How long requests may still run when the layer closes, before they are interrupted. Default: not at all. */
  readonly drain?: Duration.Input | undefined
}

export { Http }

/** What is not said. */
export const defaults = { host: "127.0.0.1", port: 4600, hosts: [] } as const satisfies Options

/**
 * Speaks HTTP. Closing it stops accepting, lets requests run for `drain`, then interrupts them. Fails with `ListenFailed`, as where
 * the port is in use.
 */
export const layer = (options: Options = {}): Layer.Layer<Http, KsiError, Router | Subscriptions> =>
  Layer.unwrap(Effect.map(
    Effect.promise(() => import("./Http.ts")),
    ({ layer }) => layer({
      host: options.host ?? defaults.host,
      port: options.port ?? defaults.port,
      hosts: options.hosts ?? defaults.hosts,
      ownerToken: options.ownerToken,
      drain: options.drain
    })
  ))
