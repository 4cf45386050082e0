import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit } from "effect"
import * as Cli from "../../src/cli/Cli.ts"
import { Kept, ksi } from "./commandLine.ts"

describe("help and version", () => {
  it.effect("help is data: stdout, exit 0", () =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* ksi(["--help"])
      expect([code, stderr]).toEqual([0, ""])
      const commands = [
        "start", "status", "health", "stop", "doctor", "discover", "describe", "call", "emit", "send", "subscribe", "import",
        "export", "streams", "stream-log", "stream-info", "stream-keep", "stream-delete", "time", "projection", "consumer", "dead", "bench"
      ]
      for (const name of commands) expect(stdout).toMatch(new RegExp(`^  ${name} `, "m"))
      expect(stdout).not.toContain("\u001b")
      expect((yield* ksi([])).stdout).toBe(stdout)
    }))
  it.effect("every command has help, and says what it does", () =>
    Effect.gen(function*() {
      for (const name of ["status", "call", "import", "subscribe", "bench"]) {
        const { code, stdout } = yield* ksi([name, "--help"])
        expect(code).toBe(0)
        expect(stdout).toContain(`ksi ${name}`)
        expect(stdout).toContain("DESCRIPTION")
      }
      expect((yield* ksi(["time", "at", "--help"])).stdout).toContain("ksi time at [flags] <instant|position>")
      for (const name of ["ls", "show", "rerun", "discard"]) {
        expect((yield* ksi(["dead", name, "--help"])).stdout).toContain(`ksi dead ${name} [flags]`)
      }
    }))
  it.effect("the version, for people and for programs", () =>
    Effect.gen(function*() {
      expect(yield* ksi(["--version"])).toEqual({ code: 0, stdout: "ksi 1.2.3\n", stderr: "" })
      expect(yield* ksi(["--version", "--json"])).toEqual({ code: 0, stdout: "{\"version\":\"1.2.3\"}\n", stderr: "" })
    }))
  it.effect("a reader that goes away is exit 0", () =>
    Effect.gen(function*() {
      expect((yield* ksi(["--help"], { stdout: new Kept(false, 0) })).code).toBe(0)
    }))
})

describe("usage", () => {
  const cases: ReadonlyArray<readonly [argv: ReadonlyArray<string>, text: string]> = [
    [["statsu"], "nearest    status"],
    [["export", "--form", "1"], "nearest    --from"],
    [["status", "--jsn"], "nearest    --json"],
    [["doctor", "--limit-dept", "3"], "nearest    --limit-depth"],
    [["doctor", "--sink", "full"], "nearest    --sync"],
    [["token", "create", "--profile", "standrd"], "nearest    standard"],
    [["permission", "grant", "x", "--action", "cal"], "nearest    call"],
    [["completions", "tcsh"], "Expected: \"bash\" | \"zsh\" | \"fish\""],
    [["token", "create", "--expires", "30"], "--expires must be a time such as 12h or 30d, not \"30\""],
    [["stream-keep", "s", "--max-age", "30"], "--max-age must be a time such as 12h or \"30 days\", not \"30\""],
    [["stream-keep", "s", "--max-age", "0s"], "--max-age must be a time"],
    [["stream-keep", "s", "--max-cont", "3"], "nearest    --max-count"],
    [["stream-keep", "s"], "say what is kept: --max-count, --max-age, --truncate-before or --everything"],
    [["stream-keep", "s", "--everything", "--max-count", "3"], "not both"],
    [["stream-keep", "s", "--metadata", "[1]"], "--metadata must be a JSON object, not [1]"],
    [["stream-keep", "s", "--metadata", "{"], "--metadata must be a JSON object, not {"],
    [["stream-delete", "s", "--forse"], "nearest    --force"],
    [["stream-inof", "s"], "nearest    stream-info"],
    [["bench", "a:b", "--for", "5"], "--for: expected a duration such as 500ms, 5s or 2m, found \"5\""],
    [["bench", "a:b", "--rate", "0"], "--rate: expected more than 0, found 0"],
    [["export", "--from", "x"], "Expected a number"],
    [["call", "a:b", "--data"], "Missing value for flag --data"],
    [["dead", "sl"], "nearest    ls"],
    [["plugin", "la"], "nearest    ls"],
    [["permission", "chek", "a:b"], "nearest    check"],
    [["import", "a", "b"], "Unexpected positional argument: \"b\""],
    [["start", "--hoem", "x"], "nearest    --home"],
    [["time", "at", "yesterday"], "\"yesterday\" is no moment"],
    [["call", "a:b", "sku=a", "sku=b"], "\"sku\" is given twice"],
    [["call"], "Missing required argument: event"],
    [["describe"], "Missing required argument: event"],
    [["time", "at"], "Missing required argument"],
    [["projection", "gte"], "nearest    get"],
    [["consumer", "discard", "g", "one"], "position"],
    [["dead", "show"], "Missing required argument: letter"],
    [["dead", "rerun"], "letter"],
    [["dead", "discard", "one"], "letter"],
    [["status", "extra"], "extra"],
    [["subscribe", "*", "--limit", "few"], "--limit"],
    [["subscribe", "*", "--limit", "0"], "--limit: expected 1 or more, found 0"],
    [["subscribe", "*", "--from", "then"], "--from: expected start, now or a position from 1, found \"then\""],
    [["call", "a:b", "two"], "expected key=value, found \"two\""],
    [["call", "a:b", "--data", "{"], "--data is not JSON"],
    [["call", "a:b", "--data", "[1]"], "the data must be a JSON object"],
    [["call", "a:b", "--data", "@/nonexistent/file"], "cannot read \"/nonexistent/file\": there is no such file"],
    [["import", "/nonexistent/file"], "cannot read \"/nonexistent/file\": there is no such file"],
    [["import", "/"], "it is a directory"]
  ]
  for (const [argv, text] of cases) {
    it.live(`ksi ${argv.join(" ")}`, () =>
      Effect.gen(function*() {
        const human = yield* ksi(argv)
        expect([human.code, human.stdout]).toEqual([2, ""])
        expect(human.stderr).toMatch(/^✗ Usage {2}/)
        expect(human.stderr).toContain(text)
        expect(human.stderr).toMatch(/\n {2}next {7}ksi .*\n$/)
        const json = yield* ksi([...argv, "--json"])
        expect([json.code, json.stdout]).toEqual([2, ""])
        expect(json.stderr.trimEnd().split("\n").length).toBe(1)
        expect(JSON.parse(json.stderr)).toMatchObject({ error: { reason: "Usage", retryable: false } })
      }))
  }
})

describe("without a daemon", () => {
  const commands = [
    ["status"], ["health"], ["stop"], ["discover"], ["describe", "a:b"], ["call", "a:b"], ["emit", "a:b"], ["send", "a:b"],
    ["subscribe", "*"], ["bench", "a:b"], ["import", "-"], ["export"], ["streams"], ["stream-log", "s"], ["time", "at", "1"],
    ["stream-info", "s"], ["stream-keep", "s", "--max-count", "1"], ["stream-delete", "s"],
    ["dead", "ls"], ["dead", "show", "1"], ["dead", "rerun", "1"], ["dead", "discard", "1"], ["plugin", "ls"], ["token", "create"],
    ["token", "ls"], ["token", "revoke", "t"], ["permission", "grant", "x", "a:*"], ["permission", "revoke", "x", "a:*"],
    ["permission", "check", "a:b"], ["permission", "ls"], ["projection", "ls"], ["projection", "get", "p", "k"], ["projection", "rebuild", "p"],
    ["consumer", "ls"], ["consumer", "parked", "g"], ["consumer", "retry", "g"], ["consumer", "discard", "g", "1"]
  ]
  for (const argv of commands) {
    it.live(`ksi ${argv.join(" ")} is 5, next ksi start`, () =>
      Effect.gen(function*() {
        const env = { KSI_HOME: "/nonexistent" }
        const human = yield* ksi(argv, { env })
        expect([human.code, human.stdout]).toEqual([5, ""])
        expect(human.stderr).toMatch(/^✗ ConnectionLost {2}no daemon answers at \/nonexistent\/run\/daemon\.sock: .*\n {2}next {7}ksi start\n$/)
        const json = yield* ksi(["--json", ...argv], { env })
        expect([json.code, json.stdout]).toEqual([5, ""])
        expect(JSON.parse(json.stderr)).toMatchObject({ error: { reason: "ConnectionLost", retryable: true } })
      }))
  }
  it.live("colour where people watch, not with NO_COLOR", () =>
    Effect.gen(function*() {
      const seen = (env: Record<string, string>) =>
        Effect.map(ksi(["status", "--home", "/nonexistent"], { stderr: new Kept(true), env }), ({ stderr }) => stderr.includes("\u001b"))
      expect(yield* seen({})).toBe(true)
      expect(yield* seen({ NO_COLOR: "1" })).toBe(false)
    }))
})

describe("teardown", () => {
  const codeOf = (exit: Exit.Exit<unknown, unknown>) => {
    let code = -1
    Cli.teardown(exit, (given) => {
      code = given
    })
    return code
  }
  it("is the answer of run, 130 when interrupted, 70 when broken", () => {
    expect([Exit.succeed(3), Exit.interrupt(1), Exit.die("x"), Exit.failCause(Cause.fail("x"))].map(codeOf)).toEqual([3, 130, 70, 70])
  })
})
