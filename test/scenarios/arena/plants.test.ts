// The arena's bugs fit the sources as they are: each finds its place, and is one of the kinds that are asked for.
import { describe, expect, it } from "vitest"
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Module from "node:module"
import * as Path from "node:path"
import { kinds, planted, plants } from "./plants.ts"

const src = Path.join(import.meta.dirname, "../../../src")
const read = (file: string) => Fs.readFileSync(Path.join(src, file), "utf8")
const filesOf = ({ edits }: (typeof plants)[number]) => [...new Set(edits.map(({ file }) => file))]

describe("the planted bugs", () => {
  it.each(plants)("$name finds its place, once", (plant) => {
    for (const file of filesOf(plant)) {
      const source = read(file)
      const bad = planted(source, plant, file)
      expect(bad).not.toBe(source)
      // No edit has undone another.
      for (const { replace } of plant.edits.filter((edit) => edit.file === file)) expect(bad).toContain(replace)
      // Node can load it.
      expect(() => Module.stripTypeScriptTypes(bad)).not.toThrow()
    }
  })

  it("are of twelve kinds, and each has a name of its own", () => {
    expect(new Set(kinds).size).toBe(12)
    expect(new Set(plants.map(({ kind }) => kind))).toEqual(new Set(kinds))
    expect(new Set(plants.map(({ name }) => name)).size).toBe(plants.length)
  })

  it("leave files alone that they do not touch", () => {
    for (const plant of plants) expect(planted("text", plant, "bus/none.ts")).toBe("text")
  })

  it("are not planted where the source has moved on, or has the text twice", () => {
    for (const plant of plants) {
      const [edit] = plant.edits
      if (edit === undefined) throw new Error(`${plant.name} has no edit`)
      const { file, find } = edit
      expect(() => planted(read(file).replace(find, ""), plant, file)).toThrow(`"${plant.name}" finds its place in src/${file} 0 times`)
      expect(() => planted(read(file) + find, plant, file)).toThrow(`"${plant.name}" finds its place in src/${file} 2 times`)
    }
  })
})

describe("the loader", () => {
  const [plant] = plants
  const [edit] = plant?.edits ?? []
  if (plant === undefined || edit === undefined) throw new Error("there is no plant")
  const load = Path.join(import.meta.dirname, "load.ts")
  const root = Path.join(src, "..")
  const run = (name: string, program: string) => {
    const args = ["--disable-warning=ExperimentalWarning", "--import", load, "--conditions=ksi-source", "--input-type=module", "--eval", program]
    return spawnSync(process.execPath, args, { cwd: root, encoding: "utf8", env: { ...process.env, KSI_PLANT: name } })
  }
  // Two writers of one stream: of two that expect it to be new one is right.
  const program = `import { makeMemory } from "./src/store/internal/MemoryDriver.ts"
import * as Effect from "effect/Effect"
const { append } = await Effect.runPromise(makeMemory)
const fact = { id: "1", source: "/a", name: "a:b", streamId: "a", data: {}, time: undefined, attributes: {} }
const race = Effect.all([append({ facts: [fact], expectedVersion: 0 }), append({ facts: [{ ...fact, id: "2" }], expectedVersion: 0 })].map(Effect.exit), { concurrency: 2 })
process.stdout.write((await Effect.runPromise(race)).map(({ _tag }) => _tag).join(" "))`

  it("plants the bug that is named, and none where none is", () => {
    expect(plant.name).toBe("append-looks-then-writes")
    expect(run(plant.name, program)).toMatchObject({ status: 0, stdout: "Success Success" })
    expect(run("", program)).toMatchObject({ status: 0, stdout: "Success Failure" })
  })

  it("refuses a name that nobody has, and a program without the sources", () => {
    const unknown = run("no-such-plant", "")
    expect(unknown.status).not.toBe(0)
    expect(unknown.stderr).toContain("there is no plant \"no-such-plant\"")
    const elsewhere = run(plant.name, "")
    expect(elsewhere.status).toBe(70)
    expect(elsewhere.stderr).toContain("was planted nowhere")
  })
})
