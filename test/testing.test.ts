// What `ksi/testing` is to those who import it.
import { expect, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import * as testing from "../src/testing.ts"

it("has these names, and each of them is a module", () => {
  expect(Object.keys(testing).toSorted()).toEqual(["Commands", "EventStoreSuite", "KsiTest", "Recording", "Simulation", "World"])
  expect([testing.EventStoreSuite.cases.length > 10, typeof testing.KsiTest.layer, typeof testing.World.make]).toEqual([true, "function", "function"])
})

it("needs no test runner", () => {
  const src = join(import.meta.dirname, "..", "src")
  const files = readdirSync(join(src, "testing"), { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".ts"))
  expect(files).toContain("KsiTest.ts")
  for (const path of ["testing.ts", ...files.map((each) => join("testing", each))]) {
    expect(readFileSync(join(src, path), "utf8"), path).not.toMatch(/from "(?:vitest|@effect\/vitest|node:test)/)
  }
})
