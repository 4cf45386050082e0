// Every example of the tour is run as a program of its own, and says what its last comment promises.
import { describe, expect, it } from "vitest"
import { execFile } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { promisify } from "node:util"

const root = join(import.meta.dirname, "..", "..")
const folder = join(root, "scratchpad", "examples")
const names = readdirSync(folder).filter((name) => /^\d\d_.*\.ts$/.test(name)).toSorted()

const promised = (text: string): string | undefined => {
  const at = text.lastIndexOf("\n// prints:\n")
  if (at < 0) return undefined
  return text.slice(at + "\n// prints:\n".length).split("\n").filter((line) => line.startsWith("//"))
    .map((line) => line.replace(/^\/\/ ?/, "")).join("\n")
}

describe("the README", () => {
  it("shows only code that stands in an example", () => {
    const readme = readFileSync(join(root, "README.md"), "utf8")
    const shown = [...readme.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map((match) => match[1] ?? "")
    const examples = names.map((name) => readFileSync(join(folder, name), "utf8"))
    expect(shown.length).toBeGreaterThan(2)
    // Every line, in order; what stands between them in the example may be left out.
    const stands = (code: string, text: string) => {
      let at = 0
      return code.trim().split("\n").every((line) => {
        const found = text.indexOf(line.trim(), at)
        at = found + line.trim().length
        return found >= 0
      })
    }
    for (const code of shown) expect(examples.some((text) => stands(code, text)), code).toBe(true)
  })
})

describe("the tour", () => {
  it("is there, in order", () => {
    expect(names.length).toBeGreaterThanOrEqual(5)
    expect(names.map((name) => Number(name.slice(0, 2)))).toEqual(names.map((_, i) => i + 1))
  })

  for (const name of names) {
    const text = readFileSync(join(folder, name), "utf8")
    const expected = promised(text)
    if (expected === undefined) {
      it(`${name} is a module for the daemon`, () => {
        // test/scenarios/start.test.ts starts it.
        expect(text).toContain("export default ")
      })
      continue
    }
    it.concurrent(`${name} prints what it promises`, async () => {
      const flags = ["--disable-warning=ExperimentalWarning", "--conditions=ksi-source"]
      const { stderr, stdout } = await promisify(execFile)(process.execPath, [...flags, join(folder, name)], { cwd: root })
      expect(stdout.trimEnd()).toBe(expected)
      expect(stderr).toBe("")
    })
  }
})
