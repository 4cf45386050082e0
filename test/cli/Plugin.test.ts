import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Plugin from "../../src/cli/Plugin.ts"
import { ksi } from "./commandLine.ts"

it("a module is its name, state, start, duration, and what it brought", () => {
  const module = { name: "shop", file: "a/shop.ts", state: "running", events: ["shop:a", "shop:b"], started_at: 1521115200.5, took_ms: 1234 }
  expect(Plugin.columns(module)).toEqual(["shop", "running", "2018-03-15T12:00:00.500Z", "1,234 ms", "2 events", "shop:a, shop:b"])
})

it("of one that could not start, why", () => {
  expect(Plugin.columns({ name: "shop", state: "failed", events: [], error: "no power\nno light" }))
    .toEqual(["shop", "failed", "", "", "0 events", "no power; no light"])
})

it.live("is in the help, and without a daemon exit 5", () =>
  Effect.gen(function*() {
    expect((yield* ksi(["--help"])).stdout).toContain("plugin")
    expect((yield* ksi(["plugin", "--help"])).stdout).toContain("ls")
    const { code, stderr, stdout } = yield* ksi(["plugin", "ls", "--json", "--socket", "/nowhere/daemon.sock"])
    expect([code, stdout]).toEqual([5, ""])
    expect(JSON.parse(stderr)).toMatchObject({ error: { reason: "ConnectionLost" } })
  }))
