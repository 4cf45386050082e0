// What `ksi/testing` is to those who import it.
import { expect, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import * as testing from "../src/testing.ts"

it("has these names, and each of them is a module", () => {
  expect(Object.keys(testing).toSorted()).toEqual(["Commands", "EventStoreSuite", "KsiTest", "World"])
  expect([testing.EventStoreSuite.cases.length > 10, typeof testing.KsiTest.layer, typeof testing.World.make]).toEqual([true, "function", "function"])
})

it("needs no test runner", () => {
  const text = (path: string) => readFileSync(join(import.meta.dirname, "..", "src", path), "utf8")
  for (const path of ["testing.ts", "testing/Commands.ts", "testing/KsiTest.ts", "testing/World.ts", "testing/EventStoreSuite.ts", "testing/internal/stage.ts", "testing/internal/laws.ts"]) {
    expect(text(path), path).not.toMatch(/from "(?:vitest|@effect\/vitest|node:test)/)
  }
})
