// The figures with a clock in hand; then the command against a real daemon in a process of its own.
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Result } from "effect"
import { TestClock } from "effect/testing"
import { afterAll, beforeAll } from "vitest"
import * as Bench from "../../src/cli/Bench.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import { Home } from "../scenarios/Daemon.ts"
import { ksi } from "./commandLine.ts"

/** Measures under the test clock, which goes on until nothing is left to do. */
const measured = Effect.fnUntraced(function*<E>(call: Effect.Effect<unknown, E>, plan: Bench.Plan, fatal = false) {
  const reports: Array<Bench.Report> = []
  const tell = (report: Bench.Report) => Effect.sync(() => void reports.push(report))
  const fiber = yield* Effect.forkChild(Bench.measure(call, plan, () => fatal, tell))
  for (let step = 0; step < plan.millis + 1100; step += 5) yield* TestClock.adjust(5)
  const exit = yield* Fiber.await(fiber)
  expect(reports.length).toBe(1)
  return { exit, report: reports[0] }
})

describe("tally", () => {
  it("quantiles are at most one in a hundred too high, and never above the longest", () => {
    const tally = new Bench.Tally()
    const values = Array.from({ length: 10_000 }, (_, i) => 0.01 * 1.001 ** i)
    for (const value of values.toReversed()) tally.answered(value)
    for (const part of [0.01, 0.5, 0.9, 0.99, 1]) {
      const exact = values[Math.ceil(part * values.length) - 1] ?? 0
      expect(tally.quantile(part)).toBeGreaterThanOrEqual(exact * 0.999_999)
      expect(tally.quantile(part)).toBeLessThanOrEqual(exact * 1.010_001)
    }
    expect(tally.quantile(1)).toBe(tally.max)
  })
  it("nothing measured is nothing claimed", () => {
    expect(new Bench.Tally().report(0, { millis: 10, inflight: 1 })).toEqual({
      seconds: 0, calls: 0, calls_per_second: 0, latency_ms: null, failures: [], unanswered: 0, not_started: 0
    })
  })
})

describe("measure", () => {
  it.effect("closed loop: as many as fit, n at once", () =>
    Effect.gen(function*() {
      let most = 0
      let open = 0
      const call = Effect.suspend(() => {
        most = Math.max(most, ++open)
        return Effect.sleep(10)
      }).pipe(Effect.ensuring(Effect.sync(() => open--)))
      const { report } = yield* measured(call, { millis: 100, inflight: 3 })
      expect(report).toMatchObject({ seconds: 0.1, calls: 30, calls_per_second: 300, failures: [], unanswered: 0, not_started: 0 })
      expect(report?.latency_ms).toEqual({ p50: 10, p90: 10, p99: 10, max: 10 })
      expect(most).toBe(3)
    }))
  it.effect("open loop: calls start on time, whatever the answers take", () =>
    Effect.gen(function*() {
      const { report } = yield* measured(Effect.sleep(50), { millis: 200, inflight: 64, rate: 100 })
      expect(report).toMatchObject({ calls: 20, unanswered: 0, not_started: 0 })
      expect(report?.latency_ms?.max).toBe(50)
    }))
  it.effect("open loop: waiting for a turn is latency, and calls without a turn are told", () =>
    Effect.gen(function*() {
      const { report } = yield* measured(Effect.sleep(50), { millis: 200, inflight: 1, rate: 100 })
      // Due at 0, 10, 20, 30; started at 0, 50, 100, 150.
      expect(report).toMatchObject({ calls: 4, not_started: 16 })
      expect(report?.latency_ms).toMatchObject({ max: 170 })
    }))
  it.effect("failures are counted by reason and are no calls", () =>
    Effect.gen(function*() {
      let n = 0
      const call = Effect.suspend(() =>
        Effect.andThen(
          Effect.sleep(10),
          ++n % 2 === 0 ? Effect.void : KsiError.fail(new KsiError.NoHandler({ event: "a:b", passed: 0, similar: [] }))
        ))
      const { exit, report } = yield* measured(call, { millis: 100, inflight: 1 })
      expect(exit).toEqual(Exit.succeed(5))
      expect(report).toMatchObject({ calls: 5, failures: [{ reason: "NoHandler", count: 5, message: "nobody handles \"a:b\"" }] })
    }))
  it.effect("what never answers is unanswered, and does not hold up the end", () =>
    Effect.gen(function*() {
      const { exit, report } = yield* measured(Effect.never, { millis: 100, inflight: 2 })
      expect(exit).toEqual(Exit.succeed(0))
      expect(report).toMatchObject({ seconds: 0.1, calls: 0, latency_ms: null, unanswered: 2 })
    }))
  it.effect("a fatal failure ends it, after the report", () =>
    Effect.gen(function*() {
      const { exit, report } = yield* measured(Effect.andThen(Effect.sleep(10), Effect.fail("gone")), { millis: 100, inflight: 1 }, true)
      expect(exit).toEqual(Exit.fail("gone"))
      expect(report).toMatchObject({ seconds: 0.01, calls: 0 })
      expect(report?.failures[0]?.count).toBe(1)
    }))
})

it("durations", () => {
  expect(["500ms", "5s", "1.5s", "2m"].map((text) => Result.getOrThrow(Bench.millisOf(text)))).toEqual([500, 5000, 1500, 120_000])
  for (const text of ["", "5", "0s", "-1s", "s", "5h", "5 s", "Infinitys"]) {
    expect(Result.getOrThrow(Result.flip(Bench.millisOf(text)))).toBe(`expected a duration such as 500ms, 5s or 2m, found "${text}"`)
  }
})

describe("against a daemon", () => {
  const home = new Home()
  beforeAll(async () => {
    await home.start("test/cli/app.ts")
  })
  afterAll(() => home[Symbol.asyncDispose]())
  const run = (...argv: ReadonlyArray<string>) => Effect.runPromise(ksi(["bench", ...argv], { env: { KSI_HOME: home.path } }))
  const reportOf = (text: string) => JSON.parse(text) as Bench.Report & { readonly event: string }

  it("closed loop, for programs", async () => {
    const { code, stderr, stdout } = await run("app:add", "a=1", "b=2", "--for", "300ms", "--inflight", "8", "--json")
    expect([code, stderr]).toEqual([0, ""])
    const report = reportOf(stdout)
    expect(report).toMatchObject({ event: "app:add", failures: [], unanswered: 0, not_started: 0 })
    expect(report.calls).toBeGreaterThan(8)
    expect(report.calls_per_second).toBeCloseTo(report.calls / report.seconds, -2)
    const { max = 0, p50 = 0, p90 = 0, p99 = 0 } = report.latency_ms ?? {}
    expect([p50, p90, p99, max]).toEqual([p50, p90, p99, max].toSorted((a, b) => a - b))
    expect(p50).toBeGreaterThan(0)
  })
  it("open loop, for people", async () => {
    const { code, stderr, stdout } = await run("app:add", "--data", "{\"a\":1,\"b\":2}", "--rate", "100", "--for", "200ms")
    expect([code, stderr]).toEqual([0, "calling app:add for 200ms, 100 a second, at most 64 in flight\n"])
    expect(stdout).toMatch(/^calls {7}[1-9]\d* in \d+\.\d\d s\ncalls\/s {5}\d+\nlatency ms {2}p50 [\d.]+ {3}p90 [\d.]+ {3}p99 [\d.]+ {3}max [\d.]+\nfailures {4}0\n/)
  })
  it("what fails is told by reason, and nothing that succeeded is exit 1", async () => {
    const { code, stdout } = await run("app:refuse", "why=tea", "--for", "100ms", "--json")
    expect(code).toBe(1)
    expect(reportOf(stdout)).toMatchObject({ calls: 0, latency_ms: null, failures: [{ reason: "DeclaredFailure", message: "app:refuse failed: refused: tea" }] })
    expect((await run("app:add", "a=1", "--for", "50ms")).stdout).toMatch(/failures {4}\d+\n {12}PayloadInvalid \d+: /)
  })
  it("facts only with --emit, which is for nothing else", async () => {
    const count = async () => JSON.parse((await Effect.runPromise(ksi(["health", "--json"], { env: { KSI_HOME: home.path } }))).stdout).position as number
    const before = await count()
    const refused = await run("app:noted", "text=x", "--for", "50ms")
    expect([refused.code, refused.stdout]).toEqual([2, ""])
    expect(refused.stderr).toContain("app:noted is a fact")
    expect(refused.stderr).toContain("next       ksi bench app:noted --emit\n")
    expect(await count()).toBe(before)
    const { code, stdout } = await run("app:noted", "text=x", "--for", "50ms", "--emit", "--json")
    expect(code).toBe(0)
    expect(await count()).toBe(before + reportOf(stdout).calls)
    expect((await run("app:add", "a=1", "b=2", "--emit")).stderr).toContain("WrongShape")
  })
  it.for([
    [["--for", "5"], "--for: expected a duration"],
    [["--rate", "0"], "--rate: expected more than 0, found 0"],
    [["--inflight", "0"], "--inflight: expected 1 to 256, found 0"],
    [["--inflight", "257"], "--inflight: expected 1 to 256, found 257"],
    [["a"], "expected key=value"]
  ] as const)("%j is usage", async ([argv, text]) => {
    const { code, stderr, stdout } = await run("app:add", ...argv)
    expect([code, stdout]).toEqual([2, ""])
    expect(stderr).toContain(text)
  })
  it("Ctrl-C prints what was measured, and is 130", async () => {
    const running = home.spawn("bench", "app:add", "a=1", "b=2", "--for", "10m")
    await running.tells("calling app:add")
    await new Promise((resolve) => setTimeout(resolve, 300))
    const { code, stdout } = await running.kill("SIGINT")
    expect(code).toBe(130)
    expect(stdout).toMatch(/^calls {7}[1-9][\d,]* in \d+\.\d\d s\n/)
    expect(stdout).toMatch(/failures {4}0\n(?:unanswered {2}1\n)?$/)
  })
  it("a daemon that goes away ends it with what was measured, and is 5", async () => {
    await using other = new Home()
    const daemon = await other.start("test/cli/app.ts")
    const running = other.spawn("bench", "app:add", "a=1", "b=2", "--for", "10m", "--inflight", "4")
    await running.tells("calling app:add")
    await new Promise((resolve) => setTimeout(resolve, 200))
    await daemon.kill("SIGKILL")
    const { code, stderr, stdout } = await running.ended()
    expect(code).toBe(5)
    expect(stdout).toMatch(/^calls {7}[1-9]/)
    expect(stdout).toMatch(/\n {12}ConnectionLost \d+: /)
    expect(stderr).toMatch(/\n✗ ConnectionLost /)
  })
})
