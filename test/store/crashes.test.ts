// A sample of `npm run soak -- crash`: processes that use a store are killed, and nothing that they promised is broken.
import { describe, expect, it } from "vitest"
import { crash } from "./crash/Crash.ts"

describe("kill -9", () => {
  // One of each kind: facts being stored and followed, with somebody who operates the store; an upgrade; a restore.
  const seeds = [1, 2, 3]
  it.concurrent.each(seeds)("at seed %i loses nothing that was acknowledged, and leaves a sound store", async (seed) => {
    expect(await crash(seed)).toBeGreaterThanOrEqual(0)
  }, 60_000)
})
