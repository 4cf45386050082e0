import { expect, it } from "@effect/vitest"
import * as Store from "../../src/cli/Store.ts"

it("a fact of a log is version, position, time, name and data", () => {
  expect(Store.logRow({ version: 2, position: 7, time: "2018-03-15T12:00:00.50Z", type: "a:b", data: { x: 1 } }))
    .toEqual(["v2", "7", "2018-03-15T12:00:00.50Z", "a:b", "{\"x\":1}"])
})
it("a fact without time or data says so", () => {
  expect(Store.logRow({ version: 1, position: 1, type: "a:b" })).toEqual(["v1", "1", "-", "a:b", "-"])
  expect(Store.logRow({ version: 1, position: 1, type: "a:b", data: null }).at(-1)).toBe("null")
})
