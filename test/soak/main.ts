/**
 * What takes too long for every run of the tests, by name. Each is seeded, and says what it found; a failure ends with exit code 1.
 *
 *   npm run soak -- suite [times]     the whole suite again and again (20)
 *   npm run soak -- arena [times]     the promises of the arena in so many times their seeds, from 1000 on (20)
 *   npm run soak -- control           the arena's bugs, first come, first served: what is found without a seeded order
 */
import { spawnSync } from "node:child_process"
import * as Path from "node:path"
import { plants } from "../scenarios/arena/plants.ts"

const arena = Path.join(import.meta.dirname, "../scenarios/arena")
const say = (text: string): void => void process.stdout.write(`${text}\n`)

const hunt = (plant: string, ...options: ReadonlyArray<string>) => {
  const node = ["--disable-warning=ExperimentalWarning", "--conditions=ksi-source", "--import", Path.join(arena, "load.ts"), Path.join(arena, "hunt.ts")]
  return spawnSync(process.execPath, [...node, ...options], { env: { ...process.env, KSI_PLANT: plant }, encoding: "utf8", timeout: plant === "" ? 0 : 60_000 })
}

const soaks: Readonly<Record<string, (times: string | undefined) => boolean>> = {
  suite: (times = "20") => {
    for (let run = 1; run <= Number(times); run++) {
      const { status } = spawnSync("npx", ["vitest", "run", "--reporter=dot"], { stdio: ["ignore", "ignore", "inherit"] })
      say(`run ${run} of ${times}: ${status === 0 ? "green" : "not green"}`)
      if (status !== 0) return false
    }
    return true
  },
  arena: (times = "20") => {
    const { status, stderr, stdout } = hunt("", "--from", "1000", "--times", times)
    say(stdout === "" ? `every promise was kept in ${times} times its seeds` : stdout)
    if (status !== 0) say(stderr)
    return status === 0 && stdout === ""
  },
  control: () => {
    let count = 0
    for (const { kind, name } of plants) {
      const { error, stdout } = hunt(name, "--order", "arrival")
      const found = error !== undefined || stdout !== ""
      if (found) count++
      say(`${found ? "found    " : "not found"} ${kind}: ${name}${error === undefined ? "" : " (it does not end)"}`)
    }
    say(`${count} of ${plants.length} are found without a seeded order`)
    return true
  }
}

const [, , name = "", times] = process.argv
const soak = soaks[name]
if (soak === undefined) {
  say(`npm run soak -- <name>: there are ${Object.keys(soaks).join(", ")}`)
  process.exitCode = 2
} else if (!soak(times)) process.exitCode = 1
