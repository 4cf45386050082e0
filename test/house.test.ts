// The rules of the house, enforced on every file of src and test. Each rule is first shown to fail on a fixture.
import { describe, expect, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as rules from "./house/rules.ts"
import { cut, importsOf } from "./house/Source.ts"

const root = Path.join(import.meta.dirname, "..")
const walk = (folder: string): ReadonlyArray<string> =>
  Fs.globSync(`${folder}/**/*.ts`, { cwd: root }).map((path) => path.replaceAll("\\", "/")).toSorted()
const read = (path: string) => cut(path, Fs.readFileSync(Path.join(root, path), "utf8"))

const src = walk("src").map(read)
const tests = walk("test").map(read)
const testPaths = new Set(tests.map(({ path }) => path))

/** The linter on some files; offenders of one rule. */
const oxlint = (rule: string, files: ReadonlyArray<string>, cwd: string): ReadonlyArray<string> => {
  const bin = Path.join(root, "node_modules/oxlint/bin/oxlint")
  const run = spawnSync(process.execPath, [bin, "-c", Path.join(cwd, ".oxlintrc.json"), "--format", "json", ...files], {
    cwd,
    encoding: "utf8"
  })
  const { diagnostics } = JSON.parse(run.stdout) as { diagnostics: ReadonlyArray<{ code: string; filename: string; message: string }> }
  return diagnostics.filter(({ code }) => code.includes(`(${rule})`)).map(({ filename, message }) => `${filename}: ${message}`)
}

/** A rule, files it must refuse (each alone), and files it must accept together. */
interface Case {
  readonly rule: rules.Rule
  readonly refuses: ReadonlyArray<Readonly<Record<string, string>>>
  readonly accepts: Readonly<Record<string, string>>
}

const inFile = (...texts: ReadonlyArray<string>) => texts.map((text) => ({ "src/event/A.ts": text }))
const fence = "```"
const essay = `/**\n * What it is.\n *\n * **Example**\n *\n * ${fence}ts\n * 1 // 1\n * ${fence}\n */\n`

const cases: Readonly<Record<string, Case>> = {
  "every file is on a floor": {
    rule: rules.knownFloors,
    refuses: [{ "src/core/A.ts": "" }, { "src/Other.ts": "" }],
    accepts: { "src/bus/Router.ts": "", "src/main.ts": "", "src/Ksi.ts": "" }
  },
  "imports go to the own or a lower floor": {
    rule: rules.importsDownward,
    refuses: [
      { "src/event/A.ts": `import * as B from "../bus/B.ts"` },
      { "src/event/A.ts": `import type { B } from "../bus/B.ts"` },
      { "src/store/A.ts": `export {\n  a\n} from "../cli/B.ts"` },
      { "src/bus/A.ts": `const a = () => import("../wire/B.ts")` },
      { "src/bus/A.ts": `import "../../test/B.ts"` }
    ],
    accepts: {
      "src/bus/A.ts": `import * as B from "../event/B.ts"\nimport { c } from "./C.ts"\nconst text = "from '../cli/B.ts'"`,
      "src/main.ts": `import { Ksi } from "./Ksi.ts"\n// import "../bus/nowhere.ts"`
    }
  },
  "imports name files that exist": {
    rule: rules.importsExist,
    refuses: inFile(`import * as B from "./B.ts"`, `import * as A from "./A"`),
    accepts: { "src/event/A.ts": `import * as B from "./B.ts"`, "src/event/B.ts": "" }
  },
  "no cycles": {
    rule: rules.noCycles,
    refuses: [
      { "src/event/A.ts": `import * as B from "./B.ts"`, "src/event/B.ts": `import type { A } from "./A.ts"` },
      { "src/event/A.ts": `import "./A.ts"` }
    ],
    accepts: {
      "src/event/A.ts": `import "./B.ts"\nimport "./C.ts"`,
      "src/event/B.ts": `import "./C.ts"`,
      "src/event/C.ts": ""
    }
  },
  "no barrel is imported": {
    rule: rules.noBarrels,
    refuses: inFile(`import { Effect } from "effect"`, `import { NodeRuntime } from "@effect/platform-node"`),
    accepts: { "src/event/A.ts": `import * as Effect from "effect/Effect"` }
  },
  "heavy modules load at first use": {
    rule: rules.heavyIsLazy,
    refuses: [
      { "src/event/A.ts": `import * as HttpApi from "effect/http-api/HttpApi"` },
      { "src/event/A.ts": `import "./B.ts"`, "src/event/B.ts": `import * as P from "@effect/sql-pg/PgClient"` },
      {
        "src/main.ts": `import "./Ksi.ts"; import("./server/Mcp.ts")`,
        "src/Ksi.ts": `import "./server/Mcp.ts"`,
        "src/server/Mcp.ts": `import * as McpServer from "effect/ai/McpServer"`
      }
    ],
    accepts: {
      "src/main.ts": `import type { X } from "effect/ai/X"\nconst mcp = () => import("./server/Mcp.ts")`,
      "src/server/Mcp.ts": `import * as McpServer from "effect/ai/McpServer"\nimport "./Tool.ts"`,
      "src/server/Tool.ts": `import * as Tool from "effect/ai/Tool"`,
      "src/cli/A.ts": `const a = () => import("effect/cluster/Sharding")`
    }
  },
  "files are short": {
    rule: rules.shortFiles,
    refuses: inFile("const a = 1\n".repeat(601)),
    accepts: { "src/event/A.ts": "const a = 1\n".repeat(600) }
  },
  "names say something": {
    rule: rules.honestNames,
    refuses: ["src/event/utils.ts", "src/common/A.ts", "src/bus/Types.ts", "src/bus/helper.ts", "src/event/index.ts"]
      .map((path) => ({ [path]: "" })),
    accepts: { "src/index.ts": "", "src/event/internal/Trie.ts": "", "src/event/Utilization.ts": "" }
  },
  "no any": {
    rule: rules.noAny,
    refuses: inFile("const a: any = 1", "const a = f<any>()", "type A = B | any", "(x: Array<any>) => x", "x as any", "type A = any[]"),
    accepts: { "src/event/A.ts": "node.any = { any: undefined }; const s = \"any\" // any\ninterface A { readonly any?: string; any(x: 1): void }" }
  },
  "no non-null assertion": {
    rule: rules.noNonNull,
    refuses: inFile("a!.b", "f()!", "a[0]!"),
    accepts: { "src/event/A.ts": "if (!a && a !== b && a != c) f(!b) // a!\nconst s = \"a!\" + `b! ${!c}`\nconst r = /a!/" }
  },
  "time is the Clock": {
    rule: rules.noHiddenClock,
    refuses: inFile("Date.now()", "new Date()", "new Date( ).x", "setTimeout(f, 1)", "globalThis.setInterval(f)", "performance.now()", "Date()"),
    accepts: { "src/event/A.ts": "new Date(millis); Date.parse(text); Schema.Date; setImmediate(f); Date.UTC(1)\nconst s = `new Date()`" }
  },
  "randomness is Random": {
    rule: rules.noHiddenRandomness,
    refuses: inFile("Math.random()", "crypto.randomUUID()", "import { randomBytes } from \"node:crypto\"", "`${Math.random()}`"),
    accepts: { "src/event/A.ts": "Random.next; Math.floor(1) // Math.random()" }
  },
  "only main.ts speaks to the process": {
    rule: rules.noProcess,
    refuses: inFile("process.env.HOME", "process.stdout.write(s)", "import process from \"node:process\"", "process[key]"),
    accepts: { "src/main.ts": "process.exit(1)", "src/bus/A.ts": "queue.process.run; const process_ = 1 // process.env" }
  },
  "no console": {
    rule: rules.noConsole,
    refuses: inFile("console.log(1)", "if (a) console\n.error(2)"),
    accepts: { "src/event/A.ts": "Console.log(1); this.console.draw(); \"console.log\"" }
  },
  "nothing is left to do": {
    rule: rules.nothingLeft,
    refuses: inFile("// TODO: later", "/* FIXME */", "const a = \"XXX\""),
    accepts: { "src/event/A.ts": "// what is to do is done; todos" }
  },
  "every file has its test": {
    rule: rules.mirrored(new Set(["test/event/B.test.ts"])),
    refuses: inFile(""),
    accepts: { "src/event/B.ts": "", "src/index.ts": "", "src/main.ts": "", "src/event/internal/C.ts": "" }
  },
  "every export has a doc comment": {
    rule: rules.exportsDocumented,
    refuses: inFile("export const a = 1", "/** A. */\nexport type A = 1\nexport interface B {}", "// not a doc\nexport class A {}", "/** A. */\nconst b = 1\nexport const a = b", "export default class A {}"),
    accepts: {
      "src/event/A.ts": "/** A. */\nexport const a = 1\n/**\n * B.\n */\nexport function b(x: 1): 1\nexport function b(x: 2): 2\nconst c = 1",
      "src/index.ts": "export * as Event from \"./event/Event.ts\""
    }
  },
  "every file opens with what it is and an example": {
    rule: rules.opensWithEssay,
    refuses: inFile("import \"a\"", "/** What it is. */\nimport \"a\"", "const a = 1\n" + essay, essay.replace("**Example**", "Example"), "// What it is.\n" ),
    accepts: { "src/event/A.ts": essay + "const a = 1", "src/main.ts": "#!/usr/bin/env node\n/** The bin. */", "src/index.ts": "", "src/bus/internal/A.ts": "" }
  },
  "every cast has its reason": {
    rule: rules.castsExplained,
    refuses: inFile(
      "const a = b as string",
      "/** A doc is no reason. */\nconst a = b as string",
      "// too far away\n\n\n\n\nconst a = b as string",
      "const a = (b as unknown) as A",
      "const s = `${b as string}`"
    ),
    accepts: {
      "src/event/A.ts": [
        "import * as B from \"b\"\nimport { c as d } from \"d\"\nexport {\n  x as y\n} from \"z\"\nexport * as E from \"e\"",
        "const a = [1] as const",
        "type M = { [K in Keys as Name<K>]: 1 }",
        "const x = 1 satisfies number",
        "Effect.as(1)",
        "const s = \"b as c\" // as said",
        "\n\n\n\n",
        "// because\nconst a = b as string",
        "const c = b as string // because\n\n\n\n",
        "// because of all four\nf({\n  a: a as A,\n  b: b as B,\n  c: c as C,\n  d: d as D\n})"
      ].join("\n")
    }
  },
  "every test runs": {
    rule: rules.everyTestRuns,
    refuses: inFile("it.only(\"a\", f)", "describe.skip(\"a\", f)", "it.effect.skip(\"a\", f)", "it.todo(\"a\")"),
    accepts: { "src/event/A.ts": "it.skipIf(a)(\"b\", f); Stream.skip(1); it(\"it.only\", f)" }
  }
}

const sourcesOf = (files: Readonly<Record<string, string>>) => Object.entries(files).map(([path, text]) => cut(path, text))
const none = (offenders: ReadonlyArray<string>): void => {
  if (offenders.length > 0) expect.fail(`${offenders.length} offenders\n${offenders.join("\n")}`)
}

describe("the rules can fail", () => {
  for (const [name, { accepts, refuses, rule }] of Object.entries(cases)) {
    it(name, () => {
      for (const files of refuses) {
        expect(rule(sourcesOf(files)), `accepted ${JSON.stringify(files)}`).not.toEqual([])
      }
      none(rule(sourcesOf(accepts)))
    })
  }

  it("functions are short, by the linter", () => {
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-house-"))
    try {
      const lines = (count: number) => `export const f = () => {\n${"  g()\n".repeat(count - 2)}}\n`
      Fs.copyFileSync(Path.join(root, ".oxlintrc.json"), Path.join(folder, ".oxlintrc.json"))
      Fs.mkdirSync(Path.join(folder, "src"))
      Fs.writeFileSync(Path.join(folder, "src/Long.ts"), lines(71))
      Fs.writeFileSync(Path.join(folder, "src/Short.ts"), lines(70))
      const offenders = oxlint("max-lines-per-function", ["src"], folder)
      expect(offenders.length).toBe(1)
      expect(offenders[0]).toContain("Long.ts")
    } finally {
      Fs.rmSync(folder, { recursive: true })
    }
  })

  it("peers of the benchmarks stay out of the root", () => {
    expect(rules.peersStayOut({ dependencies: { moleculer: "1" } }, undefined)).not.toEqual([])
    expect(rules.peersStayOut({ devDependencies: { rival: "1" } }, { dependencies: { rival: "1" } })).not.toEqual([])
    none(rules.peersStayOut({ dependencies: { effect: "1" } }, { dependencies: { effect: "1", moleculer: "1" } }))
  })
})

describe("the scanner", () => {
  it("blanks comments, strings, templates and regular expressions, and keeps every place", () => {
    const text = "const a = \"x // y\" // c1\nconst b = `t ${f({ k: \"v\" }, `n ${1}`)} // u` /* c2 */ + /[/\"]\\/`/g.source / 2\nlast()"
    const source = cut("A.ts", text)
    expect(source.code.length).toBe(text.length)
    expect(source.code.split("\n").length).toBe(3)
    expect(source.comments.map((comment) => comment.text)).toEqual(["// c1", "/* c2 */"])
    expect(source.strings.map((string) => string.text)).toEqual(["x // y", "v"])
    expect(source.code.replaceAll(/\s+/g, " ")).toBe("const a = \" \" const b = ` ${f({ k: \" \" }, ` ${1}`)} ` + / /g.source / 2 last()")
  })

  it("tells the kinds of imports apart", () => {
    const source = cut("A.ts", `import a, { b } from "1"\nimport type { c } from "2"\nexport * from "3"\nimport "4"\nconst x = Array.from("5")\nawait import(\n  "6"\n)\nimport {\n  d\n} from "7"\nexport const y = "8"\n`)
    expect(importsOf(source).map(({ kind, specifier }) => `${specifier} ${kind}`)).toEqual([
      "1 static", "2 type", "3 static", "4 static", "6 dynamic", "7 static"
    ])
  })
})

describe("src keeps the rules", () => {
  it("src was found", () => expect(src.length).toBeGreaterThan(10))
  for (const [name, { rule }] of Object.entries(cases)) {
    if (rule === rules.everyTestRuns) it(name, () => none(rule(tests)))
    else if (name === "every file has its test") it(name, () => none(rules.mirrored(testPaths)(src)))
    else it(name, () => none(rule(src)))
  }

  it("functions are short", () => none(oxlint("max-lines-per-function", ["src"], root)))

  it("peers of the benchmarks stay out of the root", () => {
    const manifest = (path: string) => JSON.parse(Fs.readFileSync(Path.join(root, path), "utf8")) as object
    const bench = "scratchpad/bench/package.json"
    none(rules.peersStayOut(manifest("package.json"), Fs.existsSync(Path.join(root, bench)) ? manifest(bench) : undefined))
  })
})
