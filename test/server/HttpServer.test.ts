import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer, Schema } from "effect"
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as Config from "../../src/server/Config.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as HttpServer from "../../src/server/HttpServer.ts"
import { ask, json, post } from "./Server.ts"

const Add = Event.make("shop:add", { payload: { n: Schema.Int }, success: Schema.Int })
const Shop = EventGroup.make(Add)
const runtime = Ksi.serve(Shop).pipe(Layer.provide(Shop.toLayer({ "shop:add": ({ n }) => Effect.succeed(n + 1) })), Layer.provideMerge(Ksi.layerMemory))
const start = (options: HttpServer.Options) =>
  Effect.map(Layer.build(HttpServer.layer(options).pipe(Layer.provideMerge(Layer.fresh(runtime)))), (context) => Context.get(context, HttpServer.Http))

describe("the layer", () => {
  it.live("stands in front of any runtime; what a program did not say is as in the daemon", () =>
    Effect.gen(function*() {
      const { connections, url } = yield* start({ port: 0, ownerToken: "t" })
      const port = Number(new URL(url).port)
      expect(url).toBe(`http://127.0.0.1:${port}`)
      expect(yield* post(port, "shop:add", { n: 1 })).toMatchObject({ status: 200, body: 2 })
      expect((yield* ask(port, "GET", "/subscribe?from=soon")).status).toBe(400)
      expect((yield* ask(port, "GET", "/events", { ...json, host: "ksi.example" })).status).toBe(403)
      expect(connections()).toBeGreaterThanOrEqual(0)
    }))

  it.live("that is told nothing listens where the daemon does", () =>
    Effect.gen(function*() {
      // Whether or not that port is free here.
      const url = yield* Effect.match(start({}), { onSuccess: ({ url }) => url, onFailure: ({ reason }) => reason._tag === "ListenFailed" ? reason.address : "" })
      expect(url).toBe(`http://${Config.defaults.host}:${Config.defaults.port}`)
    }))

  it.live("has no events but the program's own", () =>
    Effect.gen(function*() {
      const port = Number(new URL((yield* start({ port: 0 })).url).port)
      expect((yield* ask(port, "GET", "/events")).body).toMatchObject({ status: 404, reason: "UnknownEvent" })
      expect((yield* ask(port, "GET", "/health/ready")).status).toBe(200)
    }))

  it("loads nothing of HTTP before it is built", async () => {
    const program = `
      const server = () => process.moduleLoadList.includes("NativeModule _http_server")
      const { Http } = await import("ksi")
      const { Effect, Layer } = await import("effect")
      const { Ksi } = await import("ksi")
      const before = server()
      await Effect.runPromise(Effect.scoped(Layer.build(Http.layer({ port: 0 }).pipe(Layer.provide(Ksi.layerMemory)))))
      console.log(before, server())
    `
    const { stdout } = await promisify(execFile)(process.execPath, ["--disable-warning=ExperimentalWarning", "--conditions=ksi-source", "--input-type=module", "-e", program], {
      cwd: join(import.meta.dirname, "..", "..")
    })
    expect(stdout.trim()).toBe("false true")
  })
})
