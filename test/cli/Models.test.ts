import { expect, it } from "@effect/vitest"
import * as Models from "../../src/cli/Models.ts"

it("a projection is its name, whether time travel knows it, and of a model its kind, how it is, how far, and what has stopped it where", () => {
  const item = { projection: "totals", timeTravel: true, mode: "inline", status: "following", position: 12_345, lag: 0 }
  expect(Models.columns(item)).toEqual(["totals", "yes", "inline", "following", "12345", "0", "-", ""])
  expect(Models.columns({ ...item, lag: 12_345, rebuiltPosition: 7, problem: "the disk is full" }).slice(5)).toEqual(["12,345", "7", "the disk is full"])
  expect(Models.columns({ ...item, failedPosition: 8, problem: "no sku" }).at(-1)).toBe("at 8: no sku")
  expect(Models.columns({ projection: "latest", timeTravel: false })).toEqual(["latest", "no", "-", "-", "-", "-", "-", ""])
  expect(Models.stateColumns({ key: "a b", position: 3, state: "text" })).toEqual(["a b", "3", "\"text\""])
})
