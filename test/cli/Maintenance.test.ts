import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import { join } from "node:path"
import * as Maintenance from "../../src/cli/Maintenance.ts"
import { alter, folder, idsOf, made, opened } from "../store/files.ts"
import * as Format2 from "../store/format2.ts"
import { ksi } from "./commandLine.ts"

// Threads are started, of which each reads its modules anew: on a busy machine that takes its time.
const patience = 60_000

it("a size has the unit that suits it", () => {
  expect([0, 1023, 1024, 1536, 5 * 1024 ** 2, 3 * 1024 ** 3, 2048 * 1024 ** 4].map(Maintenance.size))
    .toEqual(["0 bytes", "1,023 bytes", "1.0 KiB", "1.5 KiB", "5.0 MiB", "3.0 GiB", "2048.0 TiB"])
})

it("a report tells each check, the first problems and what helps", () => {
  const checks = [{ check: "pages", count: 1200, what: "pages", wrong: 0 }, { check: "json", count: 7, what: "facts", wrong: 2 }]
  const problems = [{ check: "json", problem: "bad", mend: "mend it" }, { check: "json", problem: "worse", mend: "mend it" }]
  expect(Maintenance.report("a.db", { format: 3, position: 7, checks, problems }, false)).toBe([
    "  ✓ pages  1,200 pages", "  ✗ json   7 facts: 2 problems", "           bad", "           worse", "           mend: mend it", "✗ a.db is damaged", ""
  ].join("\n"))
})

describe("without a daemon", () => {
  const at = (home: string) => (...argv: ReadonlyArray<string>) => ksi(argv, { env: { KSI_HOME: home } })

  it.live("the commands work on the file of the settings", () =>
    Effect.gen(function*() {
      const home = yield* folder
      const run = at(home)
      const file = join(home, "ksi.db")
      yield* made(file, 300)
      const copy = join(home, "copy.db")
      const backed = yield* run("backup", copy)
      expect([backed.code, backed.stdout, backed.stderr]).toEqual([0, expect.stringMatching(/^backed up everything up to position 310 to .*copy\.db \(\d+\.\d KiB\)\n$/), ""])
      const again = yield* run("backup", copy)
      expect([again.code, again.stdout, again.stderr]).toEqual([2, "", expect.stringMatching(/exists already.*\n +next +ksi backup --force /)])
      expect(JSON.parse((yield* run("backup", copy, "--force", "--json")).stdout)).toMatchObject({ file: copy, position: 310 })
      const verified = yield* run("verify")
      expect([verified.code, verified.stdout]).toEqual([0, expect.stringContaining(`✓ ${file} is sound: format 3, 310 facts\n`)])
      yield* opened(file, (store) => store.appendTo("late", [{ name: "a:b" }]))
      const compacted = yield* run("compact")
      expect([compacted.code, compacted.stdout]).toEqual([0, expect.stringMatching(/^\d+\.\d KiB before, \d+\.\d KiB now\n$/)])
      const restored = yield* run("restore", copy)
      expect([restored.code, restored.stdout]).toEqual([0, expect.stringMatching(/^restored everything up to position 310 to .*ksi\.db\nthe store that was there is .*ksi\.db\.before-restore-/)])
      expect(yield* idsOf(file)).toHaveLength(310)
    }).pipe(Effect.scoped), patience)

  it.live("what is damaged is told with exit code 7, and not restored", () =>
    Effect.gen(function*() {
      const home = yield* folder
      const run = at(home)
      const [file, bad] = [join(home, "ksi.db"), join(home, "bad.db")]
      yield* made(file, 30)
      Fs.copyFileSync(file, bad)
      alter(bad, "DELETE FROM events WHERE position = 3")
      const verified = yield* run("verify", bad)
      expect([verified.code, verified.stdout, verified.stderr]).toEqual([7, expect.stringMatching(/✗ positions .*: 1 problem\n +position 3 is missing: .*\n +mend: ksi restore /), ""])
      const json = yield* run("verify", bad, "--json")
      expect([json.code, JSON.parse(json.stdout)]).toMatchObject([7, { status: "problem", file: bad, position: 40 }])
      const restored = yield* run("restore", bad)
      expect([restored.code, restored.stdout, restored.stderr]).toEqual([7, "", expect.stringMatching(/^✗ CheckFailed {2}.*bad\.db is damaged, and nothing was restored\n +problem +positions: position 3/)])
      expect(JSON.parse((yield* run("restore", bad, "--json")).stderr)).toMatchObject({ error: { reason: "CheckFailed", retryable: false } })
      expect(Fs.readdirSync(home).toSorted()).toEqual(["bad.db", "ksi.db", "ksi.db.lock"])
      expect((yield* run("restore", join(home, "none"))).code).toBe(2)
    }).pipe(Effect.scoped), patience)

  it.live("a store that is not there, and one in memory", () =>
    Effect.gen(function*() {
      const home = yield* folder
      const run = at(home)
      for (const argv of [["backup", join(home, "b")], ["verify"], ["compact"]]) expect(yield* run(...argv), argv.join(" ")).toMatchObject({ code: 5, stdout: "" })
      expect((yield* run("verify")).stderr).toMatch(/^✗ StoreFailure {2}the store failed to verify: there is no store .*ksi\.db\n/)
      expect(yield* run("verify", join(home, "none"))).toEqual({
        code: 2, stdout: "", stderr: `✗ Usage  there is no file ${join(home, "none")}\n  next       ksi verify --help\n`
      })
      expect(Fs.readdirSync(home)).toEqual([])
      const inMemory = { env: { KSI_HOME: home, KSI_STORE: "memory" } }
      expect(yield* ksi(["verify"], inMemory)).toMatchObject({ code: 5, stderr: expect.stringContaining("store = memory") })
      expect(yield* ksi(["restore", process.execPath], inMemory)).toMatchObject({ code: 2, stderr: expect.stringContaining("store = memory") })
    }).pipe(Effect.scoped), patience)

  it.live("compacting a file of an older format upgrades it first, and says so beside the data", () =>
    Effect.gen(function*() {
      const home = yield* folder
      const file = join(home, "ksi.db")
      Format2.make(file, 50)
      const { code, stdout } = yield* at(home)("compact", "--json")
      expect(code).toBe(0)
      expect(JSON.parse(stdout)).toMatchObject({ bytesFree: 0 })
      expect(Fs.existsSync(`${file}.format-2.bak`)).toBe(true)
    }).pipe(Effect.scoped), patience)
})
