// Exchanges recorded from the original: what its clients read must be in our answers. Values are free; so are the keys
// that describe the original's own code or its agents, and its errors. A request about an event that KSI does not have
// asks about one that it has.
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Ksi } from "../../src/Ksi.ts"
import * as Monitor from "../../src/plugins/Monitor.ts"
import * as Store from "../../src/plugins/Store.ts"
import * as System from "../../src/plugins/System.ts"
import * as Time from "../../src/plugins/Time.ts"
import * as Control from "../../src/wire/Control.ts"
import * as Listener from "../../src/wire/Listener.ts"
import { folder, Plain } from "../wire/Daemon.ts"

interface Frame {
  readonly event: string
  readonly data: Readonly<Record<string, unknown>>
  readonly [key: string]: unknown
}
interface Exchange {
  readonly request?: Frame
  readonly response?: Frame
  readonly subscribe_response?: Frame
}

const file = Path.join(import.meta.dirname, "../../../shared/compat/wire-examples.json")
const exchanges: ReadonlyArray<Exchange> = Fs.existsSync(file) ? JSON.parse(Fs.readFileSync(file, "utf8")) : []
if (exchanges.length === 0) console.info(`compat: the recorded exchanges are not there (${file}); nothing to compare with`)

const answered = /^(system:(discover|help)|event_log:query|monitor:[a-z_]+)$/
const free = new Set(["module", "handler", "agents", "error"])

const daemon = Effect.gen(function*() {
  const path = Path.join(yield* folder, "run", "daemon.sock")
  const builtins = Layer.mergeAll(System.layer, Store.layer, Time.layer, Monitor.layer, Control.layer, Listener.layerUnix({ path }))
  yield* Layer.build(builtins.pipe(Layer.provide(System.Shutdown.layer), Layer.provideMerge(Ksi.layerMemory)))
  return path
})

/** The request, about events that exist here. */
const ours = (request: Frame): Frame => {
  const { data } = request
  if (request.event === "system:discover") return { ...request, data: { ...data, namespace: "system" } }
  if (request.event === "system:help") return { ...request, data: { ...data, event: "system:discover" } }
  const patterns = ["system:*"]
  return {
    ...request,
    data: {
      ...data,
      ...("event_patterns" in data ? { event_patterns: patterns } : {}),
      ...("pattern" in data ? { pattern: patterns } : {})
    }
  }
}

const keys = (u: unknown): ReadonlyArray<string> =>
  typeof u === "object" && u !== null && !Array.isArray(u) ? Object.keys(u).filter((key) => !free.has(key)) : []
const first = (u: unknown): unknown => Array.isArray(u) ? u[0] : undefined

const expectKeys = (actual: unknown, recorded: unknown, where: string): void => {
  expect(keys(actual), where).toEqual(expect.arrayContaining([...keys(recorded)]))
}

const recorded = exchanges.flatMap(({ request, response }) =>
  request !== undefined && response !== undefined && answered.test(request.event) ? [{ request, response }] : [])

describe.runIf(exchanges.length > 0)("exchanges recorded from the original", () => {
  it("there are some of each kind", () => {
    expect(new Set(recorded.map(({ request }) => request.event)).size).toBeGreaterThanOrEqual(6)
  })

  for (const { request, response } of recorded) {
    it.live(request.event, () =>
      Effect.gen(function*() {
        const plain = yield* Plain.connect(yield* daemon)
        for (let i = 0; i < 3; i++) yield* plain.ask({ event: "system:discover", data: {} })
        const reply = yield* plain.ask(ours(request))
        expectKeys(reply, response, "the reply")
        expect(reply.correlation_id).toBe(request["correlation_id"])
        // Where the original knew only to fail, there is nothing to compare but the frame.
        if (response.data["status"] === "failed") return
        expect(reply.ok, JSON.stringify(reply.data)).toBe(true)
        expectKeys(reply.data, response.data, "data")
        expectKeys(reply.data._ksi_context, response.data["_ksi_context"], "data._ksi_context")
        expectKeys(first(reply.data.events), first(response.data["events"]), "data.events[0]")
      }))
  }

  const subscribed = exchanges.find(({ subscribe_response }) => subscribe_response !== undefined)?.subscribe_response
  it.live("monitor:subscribe, and what it brings", () =>
    Effect.gen(function*() {
      const plain = yield* Plain.connect(yield* daemon)
      const reply = yield* plain.ask({
        event: "monitor:subscribe", data: { event_patterns: ["system:*"], client_id: "sub1" }, correlation_id: "s0"
      })
      expectKeys(reply, subscribed, "the reply")
      expectKeys(reply.data, subscribed?.data, "data")
      expectKeys(reply.data._ksi_context, subscribed?.data["_ksi_context"], "data._ksi_context")
      plain.send({ event: "system:discover", data: { namespace: "system" } })
      const told = (yield* plain.received(3)).find(({ event_name }) => event_name !== undefined)
      expectKeys(told, { event_name: "", timestamp: 0, data: {} }, "the broadcast")
      expect(told).toMatchObject({ event_name: "system:discover", data: { namespace: "system" } })
    }))
})
