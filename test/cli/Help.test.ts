import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Completions from "effect/cli/Completions"
import * as Cli from "../../src/cli/Cli.ts"
import * as Help from "../../src/cli/Help.ts"
import * as Start from "../../src/cli/Start.ts"
import * as Config from "../../src/server/Config.ts"
import { Kept, ksi } from "./commandLine.ts"

/** All commands by their words, but the root. */
const commands = (node: Completions.CommandDescriptor, path: ReadonlyArray<string> = []): ReadonlyArray<ReadonlyArray<string>> =>
  node.subcommands.flatMap((sub) => [[...path, sub.name], ...commands(sub, [...path, sub.name])])
const all = commands(Completions.fromCommand(Cli.rootOf(Start.start, process.versions.node)))

describe("the page of every command", () => {
  it("there are many", () => expect(all.length).toBeGreaterThan(30))
  for (const path of all) {
    it.effect(path.join(" "), () =>
      Effect.gen(function*() {
        const { code, stderr, stdout } = yield* ksi([...path, "--help"], { start: Start.start })
        expect([code, stderr]).toEqual([0, ""])
        expect(stdout).toMatch(/^DESCRIPTION\n {2}\S.*\n\nUSAGE\n {2}ksi /)
        // How it is used, unless there are commands below it to choose from.
        expect(stdout).toMatch(stdout.includes("\nSUBCOMMANDS\n") ? /^ {2}\w+ {2,}\S/m : /\nEXAMPLES\n(.*\n)* {2}.*ksi /)
        expect(stdout).not.toMatch(/undefined|\bchoice\b|--limit-(?!…|depth 128)/)
        // What concerns all commands is told once.
        expect(stdout).not.toContain("--version")
        expect(yield* ksi(["help", ...path], { start: Start.start })).toEqual({ code, stderr, stdout })
      }))
  }
})

describe("what is told once", () => {
  it.effect("the flags of every command and the exit codes", () =>
    Effect.gen(function*() {
      const { stdout } = yield* ksi(["help"])
      expect(stdout).toBe((yield* ksi(["--help"])).stdout)
      expect(stdout).toMatch(/\nFLAGS OF EVERY COMMAND\n(.*\n)* {2}--json /)
      expect(stdout).toMatch(/\nEXIT CODES\n {2}0 {4}done\n(.*\n)* {2}130 {2}interrupted\n/)
    }))
  it.effect("the limits, all of them with their defaults", () =>
    Effect.gen(function*() {
      const { stdout } = yield* ksi(["help", "limits"])
      for (const { flag, otherwise } of Object.values(Config.limits)) {
        expect(stdout).toMatch(new RegExp(`^ {2}--${flag} \\w+(\\n)? +\\S.*; default ${otherwise}$`, "m"))
      }
      for (const command of ["start", "doctor"]) {
        expect((yield* ksi([command, "--help"], { start: Start.start })).stdout).toContain("ksi help limits lists them")
      }
    }))
  it("exits: those that are asked for", () => {
    expect(Help.exits(0, 4)).toEqual({ title: "EXIT CODES", rows: [["0", "done"], ["4", "denied, or not known"]] })
  })
})

describe("a command that is not there", () => {
  for (
    const [argv, nearest, next] of [
      [["help", "statsu"], "status", "ksi --help"], [["statsu", "--help"], "status", "ksi --help"],
      [["help", "token", "creat"], "create", "ksi token --help"], [["dead", "sl", "-h"], "ls", "ksi dead --help"]
    ] as const
  ) {
    it.effect(argv.join(" "), () =>
      Effect.gen(function*() {
        const { code, stderr, stdout } = yield* ksi(argv)
        expect([code, stdout]).toEqual([2, ""])
        expect(stderr).toMatch(new RegExp(`^✗ Usage {2}Unknown subcommand ".*" for "ksi.*"\n {2}nearest {4}${nearest}\n {2}next {7}${next}\n$`))
      }))
  }
})

describe("how it looks", () => {
  it("a description goes on below its own beginning; what is too long stands alone", () => {
    expect(Help.table([["--a", "one two three four five six seven eight nine ten"], [`--${"b".repeat(40)}`, "text"]], 40)).toEqual([
      "  --a  one two three four five six seven\n       eight nine ten", `  --${"b".repeat(40)}\n       text`
    ])
  })
  it.effect("headings are bold on a terminal", () =>
    Effect.gen(function*() {
      expect((yield* ksi(["--help"], { stdout: new Kept(true), stderr: new Kept(true) })).stdout).toContain("\u001b[1mUSAGE\u001b[0m")
    }))
})
