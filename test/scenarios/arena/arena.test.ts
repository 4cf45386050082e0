// The harness against bugs that somebody else has planted: promises that KSI keeps, and that no planted bug survives. The checks know
// no bug; a bug is planted in a process of its own, and all checks are held against it, in the same seeds, until one is broken.
import { expect, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import * as Path from "node:path"
import { kinds, plants } from "./plants.ts"

const here = import.meta.dirname
const conditions = ["--disable-warning=ExperimentalWarning", "--conditions=ksi-source", "--import", Path.join(here, "load.ts")]

interface Found {
  readonly check: string
  readonly seed: number
  readonly message: string
}

/** What is found with a bug planted, or with none. */
const hunt = (plant: string, ...options: ReadonlyArray<string>): Promise<Found | undefined> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...conditions, Path.join(here, "hunt.ts"), ...options], { env: { ...process.env, KSI_PLANT: plant } })
    let [out, err] = ["", ""]
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()))
    child.on("error", reject)
    child.on("close", (code) => {
      if (code !== 0) return reject(new Error(`the hunt ended with ${code}\n${err}`))
      resolve(out === "" ? undefined : JSON.parse(out) as Found) // what hunt.ts prints
    })
  })

it("all promises are kept where nothing is planted", async () => {
  expect(await hunt("")).toBeUndefined()
}, 120_000)

/** What is found, and says by which seed. */
const findingOf = async (name: string): Promise<Found> => {
  const found = await hunt(name)
  if (found === undefined) return expect.fail("it is not found")
  expect(found.message).toMatch(new RegExp(`^Simulation\\.run\\(\\{ seed: ${found.seed}, … \\}\\) fails: .`))
  return found
}

// That a seed says all is the harness's promise, not the bug's: a few of them, each in a process of its own, are enough.
const [first, second, third, ...others] = plants

it.concurrent.each([first, second, third].filter((plant) => plant !== undefined))("$kind: $name is found, and found again by its seed", async ({ name }) => {
  const found = await findingOf(name)
  expect(await hunt(name, "--check", found.check, "--from", `${found.seed}`)).toEqual(found)
}, 120_000)

it.concurrent.each(others)("$kind: $name is found", async ({ name }) => {
  await findingOf(name)
}, 120_000)

it("is of twelve kinds", () => {
  expect(new Set(plants.map(({ kind }) => kind))).toEqual(new Set(kinds))
})
