/**
 * A stream of Effect's RPC over a Unix socket, each end in a process of its own: lines of JSON, no spans, items checked by the
 * same schema. A client of it holds 16 items by default, or one chunk where that is more.
 */
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Rpc from "effect/rpc/Rpc"
import * as RpcClient from "effect/rpc/RpcClient"
import * as RpcGroup from "effect/rpc/RpcGroup"
import * as RpcSerialization from "effect/rpc/RpcSerialization"
import * as RpcServer from "effect/rpc/RpcServer"
import * as Path from "node:path"
import * as Child from "./Child.ts"
import { checked, chunked, counted, Item, type Reader } from "./Items.ts"

const group = RpcGroup.make(Rpc.make("items", { payload: { chunk: Schema.Int }, success: Item, stream: true }))

interface Order {
  readonly chunk: number
  readonly millis: number
}

const serve = async (path: string): Promise<void> => {
  const handlers = group.toLayer({ items: ({ chunk }) => chunked(chunk) })
  const main = RpcServer.layer(group, { disableTracing: true }).pipe(
    Layer.provide(handlers), Layer.provide(RpcServer.layerProtocolSocketServer), Layer.provide(RpcSerialization.layerNdjson),
    Layer.provide(NodeSocketServer.layer({ path }))
  )
  await Effect.runPromise(Layer.buildWithScope(main, Scope.makeUnsafe()))
  Child.obey("ready", async () => undefined)
}

const read = async (path: string): Promise<void> => {
  const protocol = RpcClient.layerProtocolSocket().pipe(
    Layer.provide(RpcSerialization.layerNdjson), Layer.provide(NodeSocket.layerNet({ path }))
  )
  const scope = Scope.makeUnsafe()
  const client = await Effect.runPromise(Effect.gen(function*() {
    const context = yield* Layer.buildWithScope(protocol, scope)
    return yield* RpcClient.make(group, { disableTracing: true }).pipe(Effect.provideContext(context), Scope.provide(scope))
  }))
  const items = (chunk: number) => client.items({ chunk }, { streamBufferSize: Math.max(16, chunk) })
  checked("effect-rpc", await Effect.runPromise(Stream.runCollect(Stream.take(items(2), 3))))
  Child.obey<Order>("ready", ({ chunk, millis }) => Effect.runPromise(counted(items(chunk), millis)))
}

// This file is also the program that both ends run.
const [, program, kind, place = ""] = process.argv
if (program === import.meta.filename) await (kind === "serve" ? serve(place) : read(place))

/** Starts both ends. */
export const start = async (folder: string): Promise<Reader> => {
  const path = Path.join(folder, "effect-rpc")
  const server = await Child.start(import.meta.filename, "serve", path)
  const client = await Child.start(import.meta.filename, "read", path)
  return {
    read: async (chunk, millis) => await client.ask({ chunk, millis }) as { readonly count: number; readonly millis: number }, // as it is told above
    stop: async () => {
      await client.stop()
      await server.stop()
    }
  }
}
