import { expect, it } from "@effect/vitest"
import * as Groups from "../../src/cli/Groups.ts"

it("a group is its name, how it is, how far, and its figures; a parked fact says why", () => {
  const item = { group: "billing", status: "blocked", position: 9, lag: 1200, pending: 2, parked: 10_000, members: 8 }
  expect(Groups.columns(item)).toEqual(["billing", "blocked", "9", "1,200", "2", "10,000", "8", ""])
  expect(Groups.columns({ ...item, problem: "the disk is full" }).at(-1)).toBe("the disk is full")
  const parked = { position: 7, streamId: "order-1", attempts: 0, parkedAt: "2018-03-15T12:00:00.000Z" }
  expect(Groups.parkedColumns(parked)).toEqual(["7", "2018-03-15T12:00:00.000Z", "order-1", "0", "waits behind one that failed"])
})
