// The store against its model, in simulated worlds whose disks fail. KSI_MODEL_SEEDS says how many seeds; `npm run soak -- store` more.
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Simulation from "../../../src/testing/Simulation.ts"
import { removing } from "./removing.ts"
import { simulated } from "./simulated.ts"

const seeds = Number(process.env["KSI_MODEL_SEEDS"] ?? 12)
const first = Number(process.env["KSI_MODEL_FROM"] ?? 1)

describe("a store whose process dies and whose disk is full", () => {
  it.live("has written what the model writes, and answered what it answers", () =>
    Effect.gen(function*() {
      const counts: Record<string, number> = {}
      let crashes = 0
      for (let seed = first; seed < first + seeds; seed++) {
        const { log, value } = yield* Simulation.run({ ...simulated, seed })
        for (const [said, count] of Object.entries(value)) counts[said] = (counts[said] ?? 0) + count
        crashes += log.filter((line) => line.includes(" dies")).length
      }
      // All of it has happened, so that each was looked at.
      for (const said of ["stored", "VersionConflict", "ConditionFailed", "IdConflict", "StoreFailure"]) expect(counts[said], said).toBeGreaterThan(seeds / 4)
      expect(crashes).toBeGreaterThan(seeds)
    }), 600_000)

  it.live("keeps what is not to go, and nothing else: retention and deleted streams, also long ones", () =>
    Effect.gen(function*() {
      const counts: Record<string, number> = {}
      let crashes = 0
      for (let seed = first; seed < first + seeds; seed++) {
        const { log, value } = yield* Simulation.run({ ...removing, seed })
        for (const [said, count] of Object.entries(value)) counts[said] = (counts[said] ?? 0) + count
        crashes += log.filter((line) => line.includes(" dies")).length
      }
      for (const said of ["retain", "delete", "whole", "deleted", "StoreFailure"]) expect(counts[said], said).toBeGreaterThan(seeds / 4)
      expect(crashes).toBeGreaterThan(seeds / 2)
    }), 600_000)
})
