// Where HTTP is spoken, and is to be: apart from what speaks it, so that a program can name it without loading that.
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"

/** Where to listen, and who is who. */
export interface Options {
  /** Default: `127.0.0.1`. */
  readonly host?: string | undefined
  /** 0 takes a free one. Default: 4600. */
  readonly port?: number | undefined
  /** Names by which it may be asked, beside the loopback ones; see `HttpGuard`. Default: none. */
  readonly hosts?: ReadonlyArray<string> | undefined
  /** Who presents it is `owner`. Default: nobody is. */
  readonly ownerToken?: string | undefined
  /** How long requests may still run when the layer closes, before they are interrupted. Default: not at all. */
  readonly drain?: Duration.Input | undefined
}

/** The place where HTTP is spoken. */
export class Http extends Context.Service<Http, {
  /** As `http://127.0.0.1:4600`. */
  readonly url: string
  /** How many connections are open, WebSockets among them. */
  readonly connections: () => number
}>()("ksi/server/Http") {}
