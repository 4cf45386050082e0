import { expect, it } from "@effect/vitest"
import * as StreamSettings from "../../src/cli/StreamSettings.ts"

it("each limit is a line, and so is what is noted", () => {
  expect(StreamSettings.lines({ maxCount: 1, maxAge: 90_000, truncateBefore: 4, metadata: { by: "ann" } })).toEqual([
    "keeps the newest 1 fact", "keeps a fact for 90 seconds after it was stored", "keeps facts from version 4 on", "notes {\"by\":\"ann\"}"
  ])
  expect(StreamSettings.lines({ metadata: {} })).toEqual(["keeps everything", "notes {}"])
})

it("what a stream holds: some, nothing, or its tombstone", () => {
  const some = { version: 1200, firstVersion: 1200, count: 1, isDeleted: false }
  expect(StreamSettings.holding(some)).toBe("version 1200, 1 fact from version 1200 on")
  expect(StreamSettings.holding({ ...some, firstVersion: 1201, count: 0 })).toBe("version 1200, no facts")
  expect(StreamSettings.holding({ ...some, isDeleted: true })).toBe("version 1200, deleted: what is left is its tombstone")
})
