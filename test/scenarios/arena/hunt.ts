/**
 * Holds all promises, each in its seeds, against the source as it is loaded; prints the first that is broken, a line each.
 *   node --conditions=ksi-source test/scenarios/arena/hunt.ts [seeded|arrival] [name of a check]
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Cause from "effect/Cause"
import type { Check } from "./checks/Check.ts"
import { checks as bus } from "./checks/bus.ts"
import { checks as rights } from "./checks/rights.ts"
import { checks as store } from "./checks/store.ts"

const [, , order = "seeded", only] = process.argv
const hunt = async ({ name, run, seeds }: Check): Promise<boolean> => {
  for (let seed = 0; seed < seeds; seed++) {
    const exit = await Effect.runPromiseExit(run(seed, order === "arrival" ? "arrival" : "seeded"))
    if (Exit.isSuccess(exit)) continue
    const error = Cause.squash(exit.cause)
    console.log(JSON.stringify({ check: name, seed, message: error instanceof Error ? error.message : String(error) }))
    return true
  }
  return false
}
for (const check of [...store, ...bus, ...rights]) {
  if (only !== undefined && check.name !== only) continue
  const start = performance.now()
  const found = await hunt(check)
  if (process.env["KSI_HUNT_TIMES"] !== undefined) console.log(check.name, (performance.now() - start).toFixed(0), "ms", found)
  if (found && process.env["KSI_HUNT_ALL"] === undefined) break
}
