import { expect, it } from "@effect/vitest"
import * as Models from "../../src/cli/Models.ts"

it("a model is its name, its kind, how it is, how far, and what has stopped it where", () => {
  const item = { projection: "totals", mode: "inline", status: "following", position: 12_345, lag: 0 }
  expect(Models.columns(item)).toEqual(["totals", "inline", "following", "12345", "0", "-", ""])
  expect(Models.columns({ ...item, lag: 12_345, rebuilt: 7, problem: "the disk is full" }).slice(4)).toEqual(["12,345", "7", "the disk is full"])
  expect(Models.columns({ ...item, failed_at: 8, problem: "no sku" }).at(-1)).toBe("at 8: no sku")
  expect(Models.stateColumns({ key: "a b", position: 3, state: "text" })).toEqual(["a b", "3", "\"text\""])
})
