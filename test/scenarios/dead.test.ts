// Dead letters from one end to the other: a handler of a real daemon fails, a person looks, reruns, discards.
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { Effect } from "effect"
import { ksi } from "../cli/commandLine.ts"
import { Home } from "./Daemon.ts"

const home = new Home()
const run = (...argv: ReadonlyArray<string>) => Effect.runPromise(ksi(argv, { env: { KSI_HOME: home.path } }))
const linesOf = (text: string) => text.trimEnd().split("\n").map((line) => JSON.parse(line) as Record<string, unknown>)
/** Numbers of the letters there are, once there are so many: handlers run on their own. */
const letters = async (count: number): Promise<ReadonlyArray<unknown>> => {
  for (;;) {
    const { stdout } = await run("dead", "ls", "--json")
    const found = stdout === "" ? [] : linesOf(stdout).map(({ letter }) => letter)
    if (found.length === count) return found
  }
}

beforeAll(async () => {
  await home.start("test/scenarios/fixtures/printer.ts")
})
afterAll(() => home[Symbol.asyncDispose]())

describe("dead letters", () => {
  it("there are none", async () => {
    expect(await run("dead", "ls")).toEqual({ code: 0, stdout: "", stderr: "no dead letters\n" })
    expect(await run("dead", "ls", "--json")).toEqual({ code: 0, stdout: "", stderr: "" })
  })

  it("what failed is listed newest first, by pattern, and shown with its event", async () => {
    for (const total of ["1", "2", "3", "4"]) expect((await run("emit", "order:placed", `total=${total}`)).code).toBe(0)
    expect(await letters(4)).toEqual([4, 3, 2, 1])
    const rows = (await run("dead", "ls", "order")).stdout
    expect(rows).toMatch(
      /^letter {2}failed at +event +handler +reason +reruns +error\n4 {7}\S+Z {2}order:placed {2}order:placed\S* {2}failed {2}0 {7}no paper for 4\n3 {7}/
    )
    expect((await run("dead", "ls", "stock:*")).stdout).toBe("")
    expect(linesOf((await run("dead", "ls", "order:*", "--json")).stdout)[3]).toMatchObject({
      letter: 1, event: "order:placed", stream_id: "orders", position: 1, reason: "failed", error: "no paper for 1", reruns: 0
    })
    const shown = await run("dead", "show", "2", "--json")
    expect(JSON.parse(shown.stdout)).toMatchObject({ letter: 2, event: "order:placed", data: { total: 2 }, position: 2 })
    expect((await run("dead", "show", "2")).stdout).toContain("  \"data\": {\n    \"total\": 2\n  }")
  })

  it("rerun: what works is gone, what fails again stays, and the exit code says so", async () => {
    await run("call", "order:refill", "sheets=1")
    const human = await run("dead", "rerun", "1", "2")
    expect(human).toMatchObject({ code: 1, stderr: "" })
    expect(human.stdout).toMatch(/^1 {2}handled\n2 {2}failed {3}handler order:placed\S* of order:placed failed again: no paper for 2\n$/)
    expect(linesOf((await run("dead", "rerun", "2", "--json")).stdout)).toEqual([
      { letter: 2, status: "failed", error: expect.stringContaining("no paper for 2") }
    ])
    expect(linesOf((await run("dead", "show", "2", "--json")).stdout)).toMatchObject([{ reruns: 2 }])
    await run("call", "order:refill", "sheets=1")
    expect(await run("dead", "rerun", "2", "--json")).toEqual({ code: 0, stdout: "{\"letter\":2,\"status\":\"handled\"}\n", stderr: "" })
    expect(await letters(2)).toEqual([4, 3])
  })
})

describe("a daemon of its own", () => {
  it("what is not there is exit 3; letters survive kill -9, and are discarded", async () => {
    await using fresh = new Home()
    const ask = (...argv: ReadonlyArray<string>) => Effect.runPromise(ksi(argv, { env: { KSI_HOME: fresh.path } }))
    expect((await ask("dead", "ls")).code).toBe(5)
    const daemon = await fresh.start("test/scenarios/fixtures/printer.ts")
    for (const command of ["show", "rerun", "discard"]) {
      const { code, stderr, stdout } = await ask("dead", command, "7")
      expect([code, stdout]).toEqual([3, ""])
      expect(stderr).toBe("✗ NotFound  there is no dead letter \"7\"\n  next       ksi dead ls\n")
    }
    expect((await ask("dead", "ls", "st*ck:x")).code).toBe(2)

    // Across a restart, however the daemon ended.
    await ask("emit", "order:placed", "total=1")
    while ((await ask("dead", "ls")).stdout === "") { /* the handler runs on its own */ }
    await daemon.kill("SIGKILL")
    await fresh.start("test/scenarios/fixtures/printer.ts")
    expect((await ask("dead", "ls")).stdout).toContain("no paper for 1")
    expect(await ask("dead", "discard", "1", "9")).toEqual({ code: 0, stdout: "discarded 1 letter\n", stderr: "" })
    expect((await ask("dead", "ls")).stdout).toBe("")
  })
})
