import { NodeServices } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as ConfigFile from "../../src/server/ConfigFile.ts"

const linesOf = (text: string) =>
  Effect.map(ConfigFile.parse("ksi.toml", text), ({ entries }) => entries.map(({ line, path }) => `${path.join(".")}:${line}`))

const problemOf = (text: string) => Effect.map(Effect.flip(ConfigFile.parse("ksi.toml", text)), ({ problem, where }) => `${where}: ${problem}`)

describe("lines", () => {
  const cases: ReadonlyArray<readonly [text: string, lines: ReadonlyArray<string>]> = [
    ["", []],
    ["# nothing\n\n", []],
    ["a = 1", ["a:1"]],
    ["\uFEFFa = 1\r\n\r\nb = 2\r\n", ["a:1", "b:3"]],
    ["\n# [b]\na = \"[b]\" # c = 1\nb = '''\nc = 2\n[d]\n'''\ne = 3\n", ["a:3", "b:4", "e:8"]],
    ["a = [\n  1, # one\n  2\n]\nb = 1", ["a:1", "b:5"]],
    ["[limits]\ndepth = 1\n\n[ \"other\" ]\n'depth' = 2", ["limits:1", "limits.depth:2", "other:4", "other.depth:5"]],
    ["limits.depth = 1\nlimits.\"page_items\" = 2", ["limits:1", "limits.depth:1", "limits.page_items:2"]],
    ["limits = { depth = 1, page_items = 2 }", ["limits:1", "limits.depth:1", "limits.page_items:1"]],
    ["[a.b.c]\nd = 1\n[[e]]\nf = 1\n[[e]]\nf = 2", ["a:1", "a.b:1", "e:3"]]
  ]
  for (const [text, lines] of cases) {
    it.effect(JSON.stringify(text), () => Effect.map(linesOf(text), (found) => expect(found).toEqual(lines)))
  }
})

describe("what is not TOML", () => {
  const cases: ReadonlyArray<readonly [text: string, where: string]> = [
    ["a =", "ksi.toml:1: this is not TOML: "],
    ["a = 1\nb = \"x\nc = 2", "ksi.toml:2: this is not TOML: "],
    ["a = 1\n\n[limits\n", "ksi.toml:3: this is not TOML: "],
    ["a = 1\na = 2", "ksi.toml:2: this is not TOML: "],
    ["a = 1 b = 2", "ksi.toml:1: this is not TOML: "],
    ["a = maybe", "ksi.toml:1: this is not TOML: "],
    ["home: var", "ksi.toml:1: this is not TOML: "],
    [`a = ${"[".repeat(60_000)}`, "ksi.toml: this is not TOML: "],
    [`# ${"x".repeat(70_000)}`, "ksi.toml: it has 70002 characters, at most 65536 are read"]
  ]
  for (const [text, where] of cases) {
    it.effect(JSON.stringify(text.slice(0, 30)), () => Effect.map(problemOf(text), (problem) => expect(problem).toContain(where)))
  }
})

describe("read", () => {
  it.effect("a file; none is no error; what is no file is told", () =>
    Effect.gen(function*() {
      const folder = yield* Effect.acquireRelease(Effect.sync(() => mkdtempSync(join(tmpdir(), "ksi-file-"))), (path) =>
        Effect.sync(() => rmSync(path, { recursive: true })))
      expect(yield* ConfigFile.read(join(folder, "ksi.toml"))).toBe(undefined)
      writeFileSync(join(folder, "ksi.toml"), "home = \"x\"\n")
      expect(yield* ConfigFile.read(join(folder, "ksi.toml"))).toEqual({
        name: join(folder, "ksi.toml"), entries: [{ path: ["home"], value: "x", line: 1 }]
      })
      mkdirSync(join(folder, "other.toml"))
      expect(yield* Effect.flip(ConfigFile.read(join(folder, "other.toml")))).toMatchObject({
        where: join(folder, "other.toml"), problem: expect.stringContaining("it cannot be read: ")
      })
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
