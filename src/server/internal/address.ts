// Where HTTP is spoken: apart from what speaks it, so that a program can name it without loading that.
import * as Context from "effect/Context"

/** The place where HTTP is spoken. */
export class Http extends Context.Service<Http, {
  /** As `http://127.0.0.1:4600`. */
  readonly url: string
  /** How many connections are open, WebSockets among them. */
  readonly connections: () => number
}>()("ksi/server/Http") {}
