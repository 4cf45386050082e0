// Read models and a consumer group of a real daemon, as a person sees them at the command line.
import { Effect } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { ksi } from "../cli/commandLine.ts"
import { Home } from "./Daemon.ts"

const home = new Home()
const run = (...argv: ReadonlyArray<string>) => Effect.runPromise(ksi(argv, { env: { KSI_HOME: home.path } }))
const pay = (bill: string, by: string, cents: number) => run("emit", "bill:paid", `bill=${bill}`, `by=${by}`, `cents=${cents}`)
/** Asks until the answer is this one: both follow the store on their own. */
const until = async (text: RegExp, ...argv: ReadonlyArray<string>): Promise<string> => {
  for (;;) {
    const { stdout } = await run(...argv)
    if (text.test(stdout)) return stdout
  }
}

beforeAll(async () => {
  await home.start("test/scenarios/fixtures/models.ts")
})
afterAll(() => home[Symbol.asyncDispose]())

describe("ksi projection", () => {
  it("an inline model has what is emitted at once, and refuses what it cannot fold", async () => {
    expect(await run("projection", "get", "balance")).toEqual({ code: 0, stdout: "", stderr: "no states\n" })
    expect((await pay("bill-1", "ann", 5)).code).toBe(0)
    expect((await pay("bill-2", "bob", 7)).code).toBe(0)
    expect((await run("projection", "get", "balance")).stdout).toBe(
      "key     position  state\nbill-1  1         {\"cents\":5}\nbill-2  2         {\"cents\":7}\n"
    )
    const refused = await pay("bill-1", "ann", -1)
    expect([refused.code, refused.stdout]).toEqual([5, ""])
    expect(refused.stderr).toContain("the inline read model \"balance\": bill:paid in \"bill-1\": nobody pays less than nothing")
    expect(JSON.parse((await run("projection", "get", "balance", "bill-1", "--json")).stdout)).toEqual({ key: "bill-1", state: { cents: 5 }, position: 1 })
    expect((await run("projection", "get", "balance", "bill-9"))).toMatchObject({ code: 3, stderr: expect.stringContaining("there is no key \"bill-9\"") })
    expect((await run("projection", "get", "balence"))).toMatchObject({ code: 3, stderr: expect.stringMatching(/balance[^]*next +ksi projection ls/) })
    expect((await run("projection", "get", "balance", "--prefix", "x")).stderr).toBe("no keys that start with \"x\"\n")
  })

  it("ls says how far each is, rebuild begins anew", async () => {
    expect(await until(/sums {8}no +async +following +2 /, "projection", "ls")).toBe(
      "projection  time travel  mode    status     position  behind by  rebuilt  problem\n" +
      "balance     no           inline  following  2         0          -\n" +
      "latest      yes          -       -          -         -          -\n" +
      "sums        no           async   following  2         0          -\n"
    )
    expect(await run("projection", "rebuild", "sums")).toMatchObject({
      code: 0, stdout: "sums is being rebuilt; the version that is asked goes on (ksi projection ls)\n"
    })
    expect((await run("projection", "rebuild", "sums", "--json")).stdout).toBe("{\"projection\":\"sums\",\"status\":\"rebuilding\"}\n")
    await until(/sums +no +async +following/, "projection", "ls")
  })

  it("one that has stopped says where and why, and health says its name", async () => {
    expect((await run("health", "--json")).stdout).not.toContain("failed_projections")
    await pay("bill-1", "ann", 13)
    expect(await until(/failed/, "projection", "ls")).toMatch(/sums +no +async +failed +2 +1 +- +at 3: 13 is too much\n/)
    expect(JSON.parse((await run("health", "--json")).stdout)).toMatchObject({ failed_projections: ["sums"] })
  })
})

describe("ksi consumer", () => {
  it("what is parked is listed with its reason; handled again it goes as far as it goes", async () => {
    expect(await until(/following +3 +0 +0 +3 /, "consumer", "ls")).toMatch(/^group +status +position +behind by +under way +parked +members +problem\nprinting +following +3 +0 +0 +3 +8\n$/)
    const rows = (await run("consumer", "parked", "printing")).stdout
    expect(rows).toMatch(/^position {2}parked at +stream +attempts +error\n1 {9}\S+Z {2}bill-1 {2}1 +no paper for 5\n2 .*\n3 {9}\S+Z {2}bill-1 {2}0 +waits behind one that failed\n$/)
    expect((await run("consumer", "parked", "printing", "bill-2", "--json")).stdout).toMatch(/^\{"position":2,"streamId":"bill-2","attempts":1,"error":"no paper for 7","parkedAt":"[^"]+Z"\}\n$/)
    await run("call", "bill:refill", "sheets=1")
    expect(await run("consumer", "retry", "printing", "bill-2")).toMatchObject({ stdout: expect.stringMatching(/^handled 1 fact, \d still parked\n$/) })
    expect(await run("consumer", "retry", "printing", "bill-1", "--json")).toMatchObject({ code: 1, stdout: "{\"handled\":0,\"parked\":2}\n" })
    expect(await run("consumer", "discard", "printing", "1", "3", "9")).toMatchObject({ code: 0, stdout: "discarded 2 facts\n" })
    expect(await run("consumer", "discard", "printing", "1")).toMatchObject({ code: 3, stderr: expect.stringContaining("there is no parked fact \"1\"") })
    expect(await run("consumer", "parked", "printing")).toEqual({ code: 0, stdout: "", stderr: "nothing is parked\n" })
    expect(await run("consumer", "retry", "printing", "--json")).toMatchObject({ code: 0, stdout: "{\"handled\":0,\"parked\":0}\n" })
    expect(await run("consumer", "parked", "printin")).toMatchObject({ code: 3, stderr: expect.stringMatching(/printing[^]*next +ksi consumer ls/) })
  })
})
