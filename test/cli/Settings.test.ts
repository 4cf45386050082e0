import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Option } from "effect"
import * as Settings from "../../src/cli/Settings.ts"
import * as Config from "../../src/server/Config.ts"
import { ksi, world } from "./commandLine.ts"

const given = (env: Record<string, string>, flags: { readonly socket?: string; readonly home?: string; readonly url?: string } = {}) =>
  Effect.provide(Layer.mergeAll(
    world({ env }),
    Layer.succeed(Settings.Socket, Option.fromUndefinedOr(flags.socket)),
    Layer.succeed(Settings.Home, Option.fromUndefinedOr(flags.home)),
    Layer.succeed(Settings.Url, Option.fromUndefinedOr(flags.url))
  ))

describe("address", () => {
  const placed = (...[env, flags]: Parameters<typeof given>) => Settings.address.pipe(given(env, flags))
  it.effect("a flag goes before the environment, a socket before a home", () =>
    Effect.gen(function*() {
      const env = { KSI_SOCKET: "/e.sock", KSI_HOME: "/e" }
      expect(yield* placed(env, { socket: "/f.sock", home: "/f" })).toBe("/f.sock")
      expect(yield* placed(env, { home: "/f" })).toBe("/f/run/daemon.sock")
      expect(yield* placed(env)).toBe("/e.sock")
      expect(yield* placed({ KSI_HOME: "/e" })).toBe("/e/run/daemon.sock")
      expect(yield* placed({})).toBe("var/run/daemon.sock")
    }))
  it.effect("a URL goes before the socket, and the nearer source before the other", () =>
    Effect.gen(function*() {
      const env = { KSI_SOCKET: "/e.sock", KSI_URL: "tcp://e:1" }
      expect(yield* placed(env)).toBe("tcp://e:1")
      expect(yield* placed(env, { url: "ws://f" })).toBe("ws://f")
      expect(yield* placed(env, { home: "/f" })).toBe("/f/run/daemon.sock")
      expect((yield* Effect.flip(placed({}, { url: "ws://f", socket: "/f.sock" }))).message).toContain("give one of them")
    }))
  it.effect("does not care about other settings", () =>
    Effect.gen(function*() {
      expect(yield* placed({ KSI_HOME: "/e", KSI_SYNC: "maybe", KSI_LIMIT_DEPTH: "0" })).toBe("/e/run/daemon.sock")
      const { message } = yield* Effect.flip(placed({ KSI_HOME: "a\0b" }))
      expect(message).toBe("KSI_HOME must be a path, not \"a\\u0000b\"")
    }))
})

describe("load", () => {
  it.effect("what is about this machine has no use for a URL", () =>
    Effect.gen(function*() {
      const config = yield* Settings.load({}).pipe(given({}, { url: "tcp://e:1" }))
      expect((yield* Effect.flip(Settings.valid(config))).message).toBe("--url is for commands that ask a daemon; this one is about this machine")
    }))
  it.effect("flags, then the environment", () =>
    Effect.gen(function*() {
      const load = (flags: Record<string, string>) =>
        Settings.load(Object.fromEntries(Object.entries(flags).map(([name, text]) => [name, Option.some(text)]))).pipe(given({ KSI_DRAIN: "1 s" }))
      expect((yield* load({})).values.drain).toBe(1000)
      expect((yield* load({ drain: "2 s", "limit-depth": "3" })).values).toMatchObject({ drain: 2000, limits: { depth: 3 } })
    }))
})

describe("usageOf", () => {
  const problem = (where: string, problem: string, similar: ReadonlyArray<string> = []): Config.Problem => ({ where, problem, similar, setting: undefined })
  it("one is a sentence, several are lines; next is where they can be looked at", () => {
    expect(Settings.usageOf([problem("--sync", "must be x")])).toMatchObject({ message: "--sync must be x", next: "ksi start --help" })
    expect(Settings.usageOf([problem("ksi.toml:3", "\"x\" is no setting", ["y"])])).toMatchObject({
      message: "ksi.toml:3: \"x\" is no setting", similar: ["y"], next: "ksi doctor"
    })
    expect(Settings.usageOf([problem("--sync", "must be x"), problem("ksi.toml:3", "\"x\" is no setting", ["y"])])).toMatchObject({
      message: "2 problems\n  --sync must be x\n  ksi.toml:3: \"x\" is no setting; nearest: y", similar: [], next: "ksi doctor"
    })
  })
})

describe("flags", () => {
  it("there is one for each setting; limits are not listed in help", () =>
    Effect.gen(function*() {
      const names = Config.all.map(({ flag }) => flag).filter((flag) => flag !== "home" && flag !== "socket")
      expect(Object.keys(Settings.flags)).toEqual(names)
      const stdout = (yield* ksi(["doctor", "--help"])).stdout + (yield* ksi(["--help"])).stdout
      const onOneLine = stdout.replace(/\s+/g, " ")
      for (const { description, flag, kind, otherwise, table, variable } of Config.all) {
        if (table === undefined) expect(onOneLine).toContain(` --${flag} ${kind.metavar} ${description} (${variable}); default ${otherwise}`)
        else expect(stdout).not.toMatch(new RegExp(`^ {2}--${flag}`, "m"))
      }
    }).pipe(Effect.runPromise))
})
