import { defineConfig } from "vitest/config"

// Two workers: the tests are mostly processor-bound, and two cores are what a small machine has. Type tests
// (test/types/*.test-d.ts) hold when they compile: `npm run types` is what runs them.
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/soak/**", "**/node_modules/**"],
    pool: "forks",
    maxWorkers: 2,
    execArgv: ["--disable-warning=ExperimentalWarning"],
    testTimeout: 20_000,
    hookTimeout: 20_000
  }
})
