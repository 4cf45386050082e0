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
  it.effect("a URL goes before what is as near or further, and is not said beside a socket or a home", () =>
    Effect.gen(function*() {
      const far = "tcp://far.example:4601"
      expect(yield* placed({ KSI_URL: "tcp://e:1", KSI_SOCKET: "/e.sock" }, { url: far })).toBe(far)
      expect(yield* placed({ KSI_URL: far, KSI_SOCKET: "/e.sock" })).toBe(far)
      expect(yield* placed({ KSI_URL: far }, { home: "/f" })).toBe("/f/run/daemon.sock")
      expect((yield* Effect.flip(placed({}, { url: far, home: "/f" }))).message).toBe("--url says which daemon is meant, and so does --home: give one of them")
      expect((yield* Effect.flip(placed({}, { url: "ftp://far.example" }))).message).toMatch(/^--url: expected unix:.*, got ftp:\/\/$/)
      const secret = (yield* Effect.flip(placed({ KSI_URL: "tcp://a:s3cret@b:1" }))).message
      expect(secret).toContain("KSI_URL: has a name or a password in it")
      expect(secret).not.toContain("s3cret")
    }))
  it.effect("a command of this machine takes no URL, and where it matters no variable", () =>
    Effect.gen(function*() {
      const far = "tcp://far.example:4601"
      expect((yield* Effect.flip(Settings.local("ksi start").pipe(given({}, { url: far })))).message).toContain("without --url")
      yield* Settings.local("ksi start").pipe(given({ KSI_URL: far }))
      expect((yield* Effect.flip(Settings.local("ksi backup", true).pipe(given({ KSI_URL: far })))).message).toContain("without KSI_URL")
      yield* Settings.local("ksi backup", true).pipe(given({ KSI_URL: far }, { home: "/f" }))
    }))
  it.effect("does not care about other settings", () =>
    Effect.gen(function*() {
      expect(yield* placed({ KSI_HOME: "/e", KSI_SYNC: "maybe", KSI_LIMIT_DEPTH: "0" })).toBe("/e/run/daemon.sock")
      const { message } = yield* Effect.flip(placed({ KSI_HOME: "a\0b" }))
      expect(message).toBe("KSI_HOME must be a path, not \"a\\u0000b\"")
    }))
})

describe("load", () => {
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
