import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Check } from "../../src/cli/Checks.ts"
import * as Doctor from "../../src/cli/Doctor.ts"
import * as Config from "../../src/server/Config.ts"
import { Kept, ksi } from "./commandLine.ts"

const { settings } = Config.resolve({ flags: {}, environment: { KSI_LIMIT_DEPTH: "3" }, file: undefined })
const checks: ReadonlyArray<Check> = [
  { check: "home", status: "ok", message: "fine", mend: undefined },
  { check: "settings", status: "problem", message: "wrong", mend: "do this" },
  { check: "disk", status: "warning", message: "low", mend: "do that" }
]

describe("report", () => {
  it("has values with their origins, and checks with what to do", () => {
    const text = Doctor.report({ settings, checks }, false)
    expect(text).toMatch(/^settings\n {2}home +var +default\n/)
    expect(text).toMatch(/\n {2}limits\.depth +3 +KSI_LIMIT_DEPTH\n/)
    expect(text).toMatch(/\n\nchecks\n {2}✓ home {6}fine\n {2}✗ settings {2}wrong\n {14}mend: do this\n {2}! disk {6}low\n {14}mend: do that\n$/)
    expect(text).not.toContain("\u001b")
    expect(Doctor.report({ settings, checks }, true)).toContain("\u001b[31m✗\u001b[0m settings")
  })
})

describe("document", () => {
  it("has the same, and the worst of all", () => {
    const document = Doctor.document({ settings, checks })
    expect(document).toMatchObject({ status: "problem", checks })
    expect(document.settings).toHaveLength(Config.all.length)
    expect(document.settings.find(({ name }) => name === "limits.depth")).toEqual({
      name: "limits.depth", variable: "KSI_LIMIT_DEPTH", flag: "--limit-depth", value: 3, text: "3", origin: "KSI_LIMIT_DEPTH"
    })
    expect(Doctor.document({ settings, checks: checks.slice(0, 1) }).status).toBe("ok")
    expect(Doctor.document({ settings, checks: checks.filter(({ status }) => status !== "problem") }).status).toBe("warning")
  })
})

describe("the command", () => {
  it.live("a problem is exit 7 with the report on stdout, and nothing on stderr", () =>
    Effect.gen(function*() {
      const env = { KSI_HOME: "/dev/null/x", KSI_HOEM: "x" }
      for (const argv of [["doctor"], ["doctor", "--json"]]) {
        const { code, stderr, stdout } = yield* ksi(argv, { env })
        expect([code, stderr]).toEqual([7, ""])
        expect(stdout).toContain("is not a directory")
        expect(stdout).toContain("KSI_HOEM is no setting")
      }
    }))
  it.live("colours only for a terminal that takes them", () =>
    Effect.gen(function*() {
      const seen = (env: Record<string, string>, stdout: Kept) =>
        Effect.map(ksi(["doctor", "--home", "/dev/null/x"], { env, stdout, stderr: new Kept(true) }), ({ stdout }) => stdout.includes("\u001b"))
      expect(yield* seen({}, new Kept(true))).toBe(true)
      expect(yield* seen({}, new Kept(false))).toBe(false)
      expect(yield* seen({ NO_COLOR: "1" }, new Kept(true))).toBe(false)
    }))
  it.live("takes the flags of ksi start, and tells what is wrong with all of them", () =>
    Effect.gen(function*() {
      const { code, stdout } = yield* ksi(["doctor", "--sync", "maybe", "--limit-depth", "0", "--json"])
      expect(code).toBe(7)
      const { checks } = JSON.parse(stdout) as { readonly checks: ReadonlyArray<{ readonly message: string }> }
      expect(checks.slice(0, 2).map(({ message }) => message)).toEqual([
        "--sync must be one of full, normal, not \"maybe\"",
        "--limit-depth must be a whole number from 1 to 10,000, not \"0\""
      ])
      expect((yield* ksi(["doctor", "--snyc", "full"])).code).toBe(2)
    }))
})
