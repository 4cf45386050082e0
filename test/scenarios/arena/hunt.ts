/**
 * Holds all promises, each in its seeds, against the source as it is loaded, and prints the first that is broken as a line of JSON.
 *
 *   node --conditions=ksi-source test/scenarios/arena/hunt.ts [--order arrival] [--check <name>] [--from 1000]
 *
 * `--order arrival` is the control: the same runs with the same network, disks and pauses, first come, first served. `--from` is the
 * first seed.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { parseArgs } from "node:util"
import { checks as bus } from "./checks/bus.ts"
import type { Check } from "./checks/Check.ts"
import { checks as rights } from "./checks/rights.ts"
import { checks as store } from "./checks/store.ts"

const { values: { check: only, from, order } } = parseArgs({
  options: {
    order: { type: "string", default: "seeded" }, check: { type: "string" },
    from: { type: "string", default: "0" }
  }
})

const hunt = async ({ name, run, seeds }: Check): Promise<boolean> => {
  for (let seed = Number(from); seed < Number(from) + seeds; seed++) {
    const exit = await Effect.runPromiseExit(run(seed, order === "arrival" ? "arrival" : "seeded"))
    if (Exit.isSuccess(exit)) continue
    const error = Cause.squash(exit.cause)
    process.stdout.write(`${JSON.stringify({ check: name, seed, message: error instanceof Error ? error.message : String(error) })}\n`)
    return true
  }
  return false
}

const checks = [...store, ...bus, ...rights].filter(({ name }) => only === undefined || only === name)
if (checks.length === 0) throw new Error(`there is no check "${only}"`)
if (!Number.isInteger(Number(from))) throw new Error(`--from is "${from}": it is a whole number`)
for (const check of checks) if (await hunt(check)) break
