/**
 * What takes too long for every run of the tests, by name. Each is seeded, and says what it found; a failure ends with exit code 1.
 *
 *   npm run soak -- suite [times]     the whole suite again and again (20)
 *   npm run soak -- arena [times]     the promises of the arena in so many times their seeds, from 1000 on (20)
 *   npm run soak -- crash [times]     kills a process that uses a store, so many times (1,000), and looks at what is left
 *   npm run soak -- cuts [times]      cuts the connection of a subscriber, so many times (1,000), and looks at what it was told
 *   npm run soak -- store [times]     the store against its model, under disk faults, in so many times 100 seeds (20)
 *   npm run soak -- control           the arena's bugs, first come, first served: what is found without a seeded order
 */
import { spawnSync, type SpawnSyncReturns } from "node:child_process"
import * as Path from "node:path"
import { plants } from "../scenarios/arena/plants.ts"

const arena = Path.join(import.meta.dirname, "../scenarios/arena")
const say = (text: string): void => void process.stdout.write(`${text}\n`)

const hunt = (plant: string, timeout: number, ...options: ReadonlyArray<string>): SpawnSyncReturns<string> => {
  const node = ["--disable-warning=ExperimentalWarning", "--conditions=ksi-source", "--import", Path.join(arena, "load.ts"), Path.join(arena, "hunt.ts")]
  return spawnSync(process.execPath, [...node, ...options], { env: { ...process.env, KSI_PLANT: plant }, encoding: "utf8", timeout })
}

/** Whether a hunt could not be: it neither found, nor found nothing, nor went on for ever. */
const isBroken = ({ error, status, stderr }: SpawnSyncReturns<string>): boolean => {
  if (status === 0 || Reflect.get(Object(error), "code") === "ETIMEDOUT") return false
  say(`the hunt ended with ${status}: ${error?.message ?? stderr}`)
  return true
}

/** Whether a script of its own went well. */
const script = (name: string, times: number): boolean => {
  const node = ["--disable-warning=ExperimentalWarning", "--conditions=ksi-source"]
  return spawnSync(process.execPath, [...node, Path.join(import.meta.dirname, name), `${times}`], { stdio: "inherit" }).status === 0
}

const controlMillis = 60_000
const firstSeed = 1000
const modelSeeds = 100

const soaks: Readonly<Record<string, (times: number) => boolean>> = {
  suite: (times) => {
    for (let run = 1; run <= times; run++) {
      const { status, stdout } = spawnSync("npx", ["vitest", "run", "--reporter=dot"], { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"], maxBuffer: Infinity })
      say(`run ${run} of ${times}: ${status === 0 ? "green" : `not green\n${stdout}`}`)
      if (status !== 0) return false
    }
    return true
  },
  arena: (times) => {
    // Each round has as many seeds of its own as there are at most for one check.
    for (let round = 1; round <= times; round++) {
      const hunted = hunt("", 0, "--from", `${firstSeed * round}`)
      if (isBroken(hunted)) return false
      say(`round ${round} of ${times}: ${hunted.stdout === "" ? "every promise was kept" : hunted.stdout}`)
      if (hunted.stdout !== "") return false
    }
    return true
  },
  crash: (times) => script("crash.ts", times),
  cuts: (times) => script("cuts.ts", times),
  store: (times) => {
    for (let round = 1; round <= times; round++) {
      const env = { ...process.env, KSI_MODEL_SEEDS: String(modelSeeds), KSI_MODEL_FROM: String(firstSeed + modelSeeds * round) }
      const { status, stdout } = spawnSync("npx", ["vitest", "run", "--reporter=dot", "test/store/model"], { env, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"], maxBuffer: Infinity })
      say(`round ${round} of ${times}: ${status === 0 ? "as the model" : stdout}`)
      if (status !== 0) return false
    }
    return true
  },
  control: () => {
    let count = 0
    for (const { kind, name } of plants) {
      const hunted = hunt(name, controlMillis, "--order", "arrival")
      if (isBroken(hunted)) return false
      const { error, stdout } = hunted
      const found = error !== undefined || stdout !== ""
      if (found) count++
      say(`${found ? "found    " : "not found"} ${kind}: ${name}${error === undefined ? "" : " (it does not end)"}`)
    }
    say(`${count} of ${plants.length} are found without a seeded order`)
    return true
  }
}

const usually: Readonly<Record<string, string>> = { crash: "1000", cuts: "1000" }

const [, , name = "", given = usually[name] ?? "20"] = process.argv
const soak = soaks[name]
const times = Number(given)
if (soak === undefined || !Number.isInteger(times) || times < 1) {
  say(soak === undefined ? `npm run soak -- <name>: there are ${Object.keys(soaks).join(", ")}` : `npm run soak -- ${name} [times]: "${given}" is no whole number from 1 on`)
  process.exitCode = 2
} else if (!soak(times)) process.exitCode = 1
