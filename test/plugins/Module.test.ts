import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as Plugin from "../../src/bus/Plugin.ts"
import { handle } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import { ask, withRuntime } from "./Builtins.ts"

const Ping = Event.make("net:ping", { success: Schema.String })

describe("module:list", () => {
  it.effect("tells nothing where nothing was started", () =>
    withRuntime(Effect.gen(function*() {
      expect(yield* ask("module:list")).toEqual({ modules: [], count: 0 })
    })))

  it.effect("tells state, events, start, and why one could not", () =>
    withRuntime(Effect.gen(function*() {
      const { start } = yield* Plugin.Plugins
      yield* TestClock.adjust("90 seconds")
      const good = Plugin.make("net", handle(Ping, () => Effect.succeed("pong")))
      const bad = Plugin.make("bad", Layer.effectDiscard(Effect.fail("no power")), { needs: ["net"] })
      yield* start([
        { from: "src/net.ts", load: Effect.succeed(good) }, { from: "src/bad.ts", load: Effect.succeed(bad) }
      ]).pipe(Effect.flip)
      expect(yield* ask("module:list")).toEqual({
        count: 2,
        modules: [
          {
            name: "net", file: "src/net.ts", state: "running", events: ["net:ping"], services: [], needs: [], started_at: 90,
            took_ms: 0
          },
          {
            name: "bad", file: "src/bad.ts", state: "failed", events: [], services: [], needs: ["net"], started_at: 90,
            error: "no power"
          }
        ]
      })
    })))
})
