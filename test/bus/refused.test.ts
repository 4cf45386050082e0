// What the router and its middleware promise holds as well where code may not be made from text: their tests once more.
import { afterAll, expect } from "@effect/vitest"
import { watch } from "./Generation.ts"

const { made, restore } = watch(true)
afterAll(() => {
  restore()
  expect(made.functions).toBe(0)
  expect(made.refusals).toBeGreaterThan(0)
})

await import("./Router.test.ts")
await import("./Middleware.test.ts")
await import("./Activity.test.ts")
