/**
 * A module for `node --import`: plants the bug that the environment variable `KSI_PLANT` names into KSI's sources as they
 * load, so that a whole application runs with it. Without the variable nothing is planted; an unknown name ends the process.
 *
 * **Example**
 *
 * ```sh
 * KSI_PLANT=some-plant node --import ./test/scenarios/arena/load.ts --conditions=ksi-source app.ts
 * ```
 *
 * **Gotchas** Only what runs from the sources has the bug: say `--conditions=ksi-source`. A plant that found no file to go
 * into says so on standard error when the process ends, and makes it fail (70). Vitest reads sources by itself: there
 * nothing is planted, and what is to have the bug runs in a process of its own.
 */
import * as Fs from "node:fs"
import * as Module from "node:module"
import * as Path from "node:path"
import * as Url from "node:url"
import { planted, plants } from "./plants.ts"

const name = process.env["KSI_PLANT"]
const src = Path.join(import.meta.dirname, "../../../src")

if (name !== undefined && name !== "") {
  const plant = plants.find((each) => each.name === name)
  if (plant === undefined) throw new Error(`KSI_PLANT: there is no plant "${name}"; there are ${plants.map((each) => each.name).join(", ")}`)
  const files = new Map(plant.edits.map(({ file }) => [Url.pathToFileURL(Path.join(src, file)).href, file]))
  const missing = new Set(files.keys())
  Module.registerHooks({
    load: (url, context, nextLoad) => {
      const file = files.get(url)
      if (file === undefined) return nextLoad(url, context)
      missing.delete(url)
      // Node strips the types of what it is given here, as of what it reads itself.
      const source = planted(Fs.readFileSync(new URL(url), "utf8"), plant, file)
      return { format: "module-typescript", source, shortCircuit: true }
    }
  })
  process.on("exit", () => {
    if (missing.size === 0) return
    process.stderr.write(`KSI_PLANT: "${plant.name}" was planted nowhere; run the sources of KSI (--conditions=ksi-source)\n`)
    process.exitCode ||= 70
  })
}
