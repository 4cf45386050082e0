// What people and programs are told when a command cannot do what it should, by a daemon that is there: the subject and
// the cause, what was probably meant, and the next command; or one line of JSON. Nothing goes to stdout.
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { Effect } from "effect"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { ksi } from "../cli/commandLine.ts"
import { Home } from "./Daemon.ts"

const home = new Home()
const run = (argv: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  Effect.runPromise(ksi(argv, { env: { KSI_HOME: home.path, ...env } }))

beforeAll(async () => {
  await home.start("test/scenarios/fixtures/printer.ts", "test/cli/app.ts")
  await run(["emit", "app:noted", "text=one"])
  await run(["token", "create", "till"])
  await run(["permission", "grant", "local-http", "order:*"])
})
afterAll(() => home[Symbol.asyncDispose]())

interface Told {
  readonly code: number
  readonly reason: string
  readonly says: string
  readonly nearest?: string
  readonly next: string
}

const cases: ReadonlyArray<readonly [argv: ReadonlyArray<string>, told: Told]> = [
  [["call", "app:ad"], { code: 3, reason: "UnknownEvent", says: "no event is called \"app:ad\"", nearest: "app:add", next: "ksi discover 'app:*'" }],
  [["describe", "APP:ADD"], { code: 3, reason: "UnknownEvent", says: "APP:ADD", nearest: "app:add", next: "ksi discover" }],
  [["bench", "app:ad"], { code: 3, reason: "UnknownEvent", says: "app:ad", nearest: "app:add", next: "ksi discover 'app:*'" }],
  [["emit", "app:noten"], { code: 3, reason: "UnknownEvent", says: "app:noten", nearest: "app:noted", next: "ksi discover 'app:*'" }],
  [["emit", "app:add"], { code: 2, reason: "WrongShape", says: "app:add is a request", next: "ksi call app:add" }],
  [["call", "app:noted"], { code: 2, reason: "WrongShape", says: "app:noted is a fact", next: "ksi emit app:noted" }],
  [["call", "app:add", "a=1", "b=two"], { code: 2, reason: "PayloadInvalid", says: "(at data.b)", next: "ksi describe app:add" }],
  [["call", "app:refuse", "why=so"], { code: 1, reason: "DeclaredFailure", says: "refused: so", next: "ksi describe app:refuse" }],
  [["call", "app:crash"], { code: 70, reason: "Defect", says: "app:crash", next: "look for it in the daemon's log" }],
  [["call", "app:lie"], { code: 70, reason: "ReplyInvalid", says: "app:lie", next: "ksi describe app:lie" }],
  [["bench", "app:noted", "text=x"], { code: 2, reason: "Usage", says: "app:noted is a fact", next: "ksi bench app:noted --emit" }],
  [["subscribe", "a**"], { code: 2, reason: "PatternInvalid", says: "a**", next: "ksi discover" }],
  [["discover", "or*er:x"], { code: 2, reason: "PatternInvalid", says: "or*er:x", next: "ksi discover" }],
  [["dead", "ls", "or*er:x"], { code: 2, reason: "PatternInvalid", says: "or*er:x", next: "ksi discover" }],
  [["stream-log", "note"], { code: 3, reason: "NotFound", says: "there is no stream \"note\"", nearest: "notes", next: "ksi streams" }],
  [["export", "--stream", "nots"], { code: 3, reason: "NotFound", says: "nots", nearest: "notes", next: "ksi streams" }],
  [["time", "at", "1", "--stream", "noets"], { code: 3, reason: "NotFound", says: "noets", nearest: "notes", next: "ksi streams" }],
  [["time", "at", "1", "--projection", "latst"], { code: 3, reason: "NotFound", says: "latst", nearest: "latest", next: "ksi projection ls" }],
  [["export", "--from", "-3"], { code: 2, reason: "PayloadInvalid", says: "(at data.from)", next: "ksi describe store:export" }],
  [["dead", "show", "9"], { code: 3, reason: "NotFound", says: "there is no dead letter \"9\"", next: "ksi dead ls" }],
  [["dead", "rerun", "9"], { code: 3, reason: "NotFound", says: "there is no dead letter \"9\"", next: "ksi dead ls" }],
  [["dead", "discard", "9"], { code: 3, reason: "NotFound", says: "there is no dead letter \"9\"", next: "ksi dead ls" }],
  [["token", "revoke", "till"], { code: 3, reason: "NotFound", says: "there is no token \"till\"", nearest: "till-", next: "ksi token ls" }],
  [["permission", "revoke", "local-http", "ordr:*"], { code: 3, reason: "NotFound", says: "no grant \"ordr:*\" of local-http", nearest: "order:*", next: "ksi permission ls" }],
  [["permission", "grant", "local-http"], { code: 2, reason: "PayloadInvalid", says: "give a profile or a pattern", next: "ksi describe permission:grant" }],
  [["token", "create", "No Name"], { code: 2, reason: "PayloadInvalid", says: "permission:token_create", next: "ksi describe permission:token_create" }]
]

describe("a failure", () => {
  for (const [argv, { code, nearest, next, reason, says }] of cases) {
    it(`ksi ${argv.join(" ")}`, async () => {
      const human = await run(argv)
      expect([human.code, human.stdout]).toEqual([code, ""])
      const at = human.stderr.indexOf("✗ ")
      // Commands that follow or measure say first what they are about to do.
      expect(human.stderr.slice(at)).toMatch(new RegExp(`^✗ ${reason} {2}\\S`))
      expect(human.stderr).toContain(says)
      if (nearest === undefined) expect(human.stderr).not.toMatch(/^ {2}nearest /m)
      else expect(human.stderr).toMatch(new RegExp(`^ {2}nearest +${nearest.replaceAll("*", "\\*")}`, "m"))
      expect(human.stderr.trimEnd().split("\n").at(-1)).toMatch(/^ {2}next +\S/)
      expect(human.stderr.trimEnd().endsWith(next)).toBe(true)
      const json = await run([...argv, "--json"])
      expect([json.code, json.stdout]).toEqual([code, ""])
      expect(json.stderr.trimEnd().split("\n").length).toBe(1)
      const { error } = JSON.parse(json.stderr) as { readonly error: Readonly<Record<string, unknown>> }
      expect(Object.keys(error)).toEqual(["reason", "message", "details", "retryable"])
      expect(error["reason"]).toBe(reason)
    })
  }
  it("a token that is not known: nobody", async () => {
    const human = await run(["health"], { KSI_TOKEN: "ksi_x_y" })
    expect([human.code, human.stdout]).toEqual([4, ""])
    expect(human.stderr).toMatch(/^✗ Unauthenticated {2}\S.*\n {2}next +\S/)
  })
})

it("the log line of a failed reaction names the command that shows it", async () => {
  await using other = new Home()
  const daemon = await other.start("test/scenarios/fixtures/printer.ts")
  await Effect.runPromise(ksi(["emit", "order:placed", "total=1"], { env: { KSI_HOME: other.path } }))
  await daemon.tells("handler order:placed")
  await daemon.tells("\"next\":\"ksi dead ls order:placed\"")
})

describe("what is allowed and may be a mistake is told beside the answer", () => {
  const told: ReadonlyArray<readonly [argv: ReadonlyArray<string>, says: string]> = [
    [["discover", "ap:*"], "no event matches ap:*; nearest: app\n"],
    [["dead", "ls", "ordr:*"], "no dead letters\nno event matches ordr:*; nearest: order\n"],
    [["permission", "grant", "local-htp", "ordr:*"], "nobody is called \"local-htp\" yet; nearest: local-http\nno event matches ordr:*; nearest: order\n"],
    [["permission", "check", "app:ad"], "no event matches app:ad; nearest: app:add\n"],
    [["permission", "ls", "local-thtp"], "nothing was granted\nnobody is called \"local-thtp\" yet; nearest: local-http\n"]
  ]
  for (const [argv, says] of told) {
    it(`ksi ${argv.join(" ")}`, async () => {
      expect(await run(argv)).toMatchObject({ code: 0, stderr: says })
      expect(await run([...argv, "--json"])).toMatchObject({ code: 0, stderr: "" })
    })
  }
})

describe("ksi start with what is no module", () => {
  it("says of each what it is", async () => {
    await using other = new Home()
    const at = (name: string) => join(other.path, name)
    mkdirSync(at("folder"), { recursive: true })
    writeFileSync(at("app.mjs"), "export const a = 1\n")
    writeFileSync(at("package.json"), "{\"type\":\"commonjs\"}")
    writeFileSync(at("common.js"), "import { Ksi } from \"ksi\"\n")
    const { code, stderr, stdout } = await other.ksi("start", at("folder"), at("ap.mjs"), at("app.mjs"), at("common.js"))
    expect([code, stdout]).toEqual([5, ""])
    expect(stderr).toContain(`${at("folder")}: it is a directory; name the file in it that exports the Layer\n`)
    expect(stderr).toContain(`${at("ap.mjs")}: there is no such file; nearest: ${at("app.mjs")}\n`)
    expect(stderr).toContain(`${at("app.mjs")}: it has no default export; is it a program? run it with node\n`)
    expect(stderr).toMatch(/common\.js: .*; it is read as CommonJS: set "type": "module" in package\.json\n/)
    const json = await other.ksi("start", at("ap.mjs"), "--json")
    expect([json.code, json.stdout]).toEqual([5, ""])
    expect(JSON.parse(json.stderr)).toMatchObject({ error: { reason: "PluginInvalid", retryable: false } })
    expect((await other.ksi("start", at("ap.mjs"))).stderr).toContain("\n  next       name the file of a module: ksi start --help\n")
  })
})
