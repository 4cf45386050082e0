// HTTP in front of a runtime in memory with KSI's own events and a few more, on a port of its own.
import { Context, Effect, Layer } from "effect"
import * as NodeHttp from "node:http"
import * as Net from "node:net"
import * as Builtin from "../../src/bus/Builtin.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import { serve } from "../../src/bus/Router.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as Http from "../../src/server/Http.ts"
import * as Metrics from "../../src/server/Metrics.ts"
import * as IdempotencyTable from "../../src/store/IdempotencyTable.ts"
import * as Control from "../../src/wire/Control.ts"
import { runtime } from "../plugins/Builtins.ts"
import { type Counts, Group, handlers, makeCounts } from "../wire/Daemon.ts"

/** The token of the owner. */
export const ownerToken = "ksi_http_test"

/** Everything behind the server. */
export const app = (counts: Counts, limits: Partial<Limits.LimitsShape> = {}) =>
  Layer.mergeAll(serve(Group).pipe(Layer.provide(handlers(counts))), Control.layer, Middleware.use(Builtin.idempotency)).pipe(
    Layer.provideMerge(IdempotencyTable.layerMemory),
    Layer.provideMerge(runtime(limits))
  )

/** A server in the scope of the test. */
export const start = Effect.fnUntraced(function*(
  { limits = {}, ...options }: Partial<Http.Options> & { readonly limits?: Partial<Limits.LimitsShape> } = {}
) {
  const counts = makeCounts()
  const http = Http.layer({ host: "127.0.0.1", port: 0, hosts: [], ownerToken, ...options })
  const context = yield* Layer.build(http.pipe(
    Layer.provide(Metrics.layer),
    Layer.provideMerge(app(counts, limits)),
    Layer.provide(Layer.succeed(Limits.Limits, { ...Limits.defaults, ...limits }))
  ))
  const server = Context.get(context, Http.Http)
  return { ...server, context, counts, port: Number(new URL(server.url).port) }
})

/** An answer as it came. */
export interface Answered {
  readonly status: number
  readonly headers: NodeHttp.IncomingHttpHeaders
  readonly text: string
  // The tests look into answers of many shapes.
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly body: any
}

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** One request, with any headers: `fetch` would not send some of these. */
export const ask = (
  port: number,
  method: string,
  path: string,
  headers: Readonly<Record<string, string | ReadonlyArray<string>>> = {},
  body?: string | Uint8Array
): Effect.Effect<Answered> =>
  Effect.callback((resume) => {
    const request = NodeHttp.request({ port, host: "127.0.0.1", method, path, agent: false, headers: { ...headers } as NodeHttp.OutgoingHttpHeaders }, (response) => {
      let text = ""
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk)).on("end", () =>
        resume(Effect.succeed({ status: response.statusCode ?? 0, headers: response.headers, text, body: parsed(text) })))
    })
    request.on("error", (error) => resume(Effect.die(error)))
    request.end(body)
    return Effect.sync(() => request.destroy())
  })

export const json = { "content-type": "application/json" }
export const asOwner = { ...json, authorization: `Bearer ${ownerToken}` }

/** Posts data to an event. */
export const post = (port: number, event: string, data: unknown = {}, headers: Readonly<Record<string, string>> = json) =>
  ask(port, "POST", `/events/${event}`, headers, typeof data === "string" ? data : JSON.stringify(data))

/** Bytes by hand, for what no client would send. */
export class Raw {
  readonly socket: Net.Socket
  text = ""
  closed = false

  private constructor(socket: Net.Socket) {
    this.socket = socket
    socket.setEncoding("utf8")
    socket.on("error", () => {})
    socket.on("data", (chunk: string) => (this.text += chunk))
    const end = () => (this.closed = true)
    socket.on("end", end)
    socket.on("close", end)
  }

  static connect(port: number) {
    return Effect.acquireRelease(
      Effect.callback<Raw>((resume) => {
        const socket = Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true }, () => resume(Effect.succeed(new Raw(socket))))
      }),
      ({ socket }) => Effect.sync(() => socket.destroy())
    )
  }
}
