// Requests that answer with streams, at the command line, against a real daemon.
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { ksi } from "../cli/commandLine.ts"
import { Home } from "./Daemon.ts"

const home = new Home()
const run = (...argv: ReadonlyArray<string>) => Effect.runPromise(ksi(argv, { env: { KSI_HOME: home.path } }))
const root = Path.join(import.meta.dirname, "../..")
const runningIs = async (count: number) => {
  while ((await run("call", "tick:running")).stdout !== `${count}\n`) await new Promise((resolve) => setTimeout(resolve, 20))
}
const started = (...argv: ReadonlyArray<string>) =>
  spawn(process.execPath, ["--disable-warning=ExperimentalWarning", "--conditions=ksi-source", "src/main.ts", ...argv], {
    cwd: root, env: { ...process.env, KSI_HOME: home.path }, stdio: ["ignore", "pipe", "pipe"]
  })

beforeAll(async () => {
  await home.start("test/scenarios/fixtures/streams.ts")
})
afterAll(() => home[Symbol.asyncDispose]())

describe("ksi stream", () => {
  it("prints an item a line, with --json too", async () => {
    const three = "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n"
    expect(await run("stream", "tick:count", "to=3")).toEqual({ code: 0, stdout: three, stderr: "" })
    expect(await run("stream", "tick:count", "--data", "{\"to\":100}", "--limit", "3", "--json")).toEqual({ code: 0, stdout: three, stderr: "" })
    expect((await run("stream", "tick:count", "to=20000")).stdout.split("\n")).toHaveLength(20_001)
  })

  it("says how it ended, after what it had", async () => {
    const { code, stderr, stdout } = await run("stream", "tick:count", "to=9", "wear=3")
    expect([code, stdout]).toEqual([1, "{\"n\":1}\n{\"n\":2}\n"])
    expect(stderr).toContain("it is worn after 2")
    const json = await run("stream", "tick:count", "to=9", "wear=1", "--json")
    expect([json.code, json.stdout, JSON.parse(json.stderr)]).toMatchObject([1, "", { error: { reason: "DeclaredFailure", message: "tick:count failed: it is worn after 0" } }])
    expect(await run("stream", "tick:count", "to=x")).toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining("PayloadInvalid") })
    expect(await run("stream", "tick:cuont")).toMatchObject({ code: 3, stderr: expect.stringMatching(/nearest +tick:count/) })
    expect(await run("stream", "tick:count", "to=1", "--limit", "0")).toMatchObject({ code: 2, stderr: expect.stringContaining("--limit: expected 1 or more, found 0") })
  })

  it("each command names the other where it is meant", async () => {
    expect(await run("call", "tick:count", "to=1")).toMatchObject({ code: 2, stderr: expect.stringMatching(/use stream, not call\n +next +ksi stream tick:count/) })
    expect(await run("stream", "tick:running")).toMatchObject({ code: 2, stderr: expect.stringMatching(/use call, not stream\n +next +ksi call tick:running/) })
    expect((await run("send", "tick:count")).stderr).toMatch(/next +ksi stream tick:count/)
    expect((await run("describe", "tick:count")).stdout).toContain("ksi stream tick:count --data '{\"to\":3}'")
  })

  it("ends the handler when it ends: by a limit, by who reads no further, by Ctrl-C", async () => {
    expect((await run("stream", "tick:endless", "--limit", "2")).stdout).toBe("1\n2\n")
    await runningIs(0)
    const head = started("stream", "tick:endless")
    await once(head.stdout, "data")
    await runningIs(1)
    head.stdout.destroy()
    expect(await once(head, "exit")).toEqual([0, null])
    await runningIs(0)
    const stopped = started("stream", "tick:endless")
    await once(stopped.stdout, "data")
    stopped.kill("SIGINT")
    stopped.stdout.resume()
    expect(await once(stopped, "exit")).toEqual([130, null])
    await runningIs(0)
  })
})
