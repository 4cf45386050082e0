// A daemon that is reached over TCP, HTTP and WebSocket by KSI's own commands: by whom, and what they are told where it cannot be.
import { Effect } from "effect"
import * as Net from "node:net"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import * as Client from "../../src/wire/Client.ts"
import { Home } from "./Daemon.ts"

const home = new Home()
let tcp = ""
let http = ""
let token = ""

const at = (variables: Readonly<Record<string, string>>) => async (...argv: ReadonlyArray<string>) => {
  const running = home.spawnIn({ env: variables }, ...argv)
  running.child.stdin?.end()
  return running.ended()
}

beforeAll(async () => {
  const { stdout } = await home.start("test/scenarios/fixtures/streams.ts", "--tcp", "0", "--port", "0")
  tcp = /tcp {5}(tcp:\S+)/.exec(stdout)?.[1] ?? ""
  http = /http {4}(http:\S+)/.exec(stdout)?.[1] ?? ""
  const created = await home.ksi("token", "create", "--profile", "trusted", "--json")
  token = String(JSON.parse(created.stdout).token)
})
afterAll(() => home[Symbol.asyncDispose]())

describe("ksi --url", () => {
  it("reaches the daemon over TCP, HTTP and WebSocket, with a token", async () => {
    expect(tcp).toMatch(/^tcp:\/\/127\.0\.0\.1:\d+$/)
    const run = at({ KSI_TOKEN: token, KSI_HOME: "/nonexistent" })
    for (const url of [tcp, http, http.replace("http", "ws"), `unix:${home.socket}`]) {
      expect(await run("stream", "tick:count", "to=3", "--url", url), url).toMatchObject({ code: 0, stdout: "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n" })
    }
    const named = at({ KSI_TOKEN: token, KSI_HOME: "/nonexistent", KSI_URL: tcp })
    expect(await named("stream", "tick:count", "to=200", "--buffer", "5")).toMatchObject({ code: 0, stderr: "" })
    const { stdout } = await named("status", "--json")
    expect(JSON.parse(stdout)).toMatchObject({ status: "running", tcp, url: http, socket: home.socket })
    expect(await named("backup", "b.db")).toMatchObject({ code: 2, stderr: expect.stringContaining("where it runs") })
  })

  it("without a token, or with a wrong one, is nobody", async () => {
    expect(await at({})("health", "--url", tcp)).toMatchObject({ code: 4, stderr: expect.stringContaining("Unauthenticated") })
    expect(await at({ KSI_TOKEN: "ksi_wrong" })("health", "--url", tcp)).toMatchObject({ code: 4, stderr: expect.stringContaining("Unauthenticated") })
    expect(await at({ KSI_TOKEN: "ksi_wrong" })("health", "--url", http)).toMatchObject({ code: 4, stderr: expect.stringContaining("Unauthenticated") })
  })

  it("says what is wrong with where it is", async () => {
    const free = await new Promise<number>((resolve) => {
      const server = Net.createServer().listen(0, "127.0.0.1", () => {
        const { port } = server.address() as Net.AddressInfo // it listens on a port
        server.close(() => resolve(port))
      })
    })
    const run = at({ KSI_TOKEN: token })
    expect(await run("health", "--url", `tcp://127.0.0.1:${free}`)).toMatchObject({ code: 5, stderr: expect.stringContaining("look whether a daemon runs there") })
    expect(await run("health", "--url", "ftp://here")).toMatchObject({ code: 2, stderr: expect.stringContaining("where the daemon is (--url, KSI_URL): ") })
    expect(await run("health", "--url", tcp, "--home", home.path)).toMatchObject({ code: 2, stderr: expect.stringContaining("give one of them") })
    expect(await run("verify", "a.db", "--url", tcp)).toMatchObject({ code: 2, stderr: expect.stringContaining("a file is looked at where it lies") })
    expect(await run("start", "--url", tcp)).toMatchObject({ code: 2, stderr: expect.stringContaining("--url is for commands that ask a daemon") })
    expect(await run("stream", "tick:count", "to=1", "--buffer", "0")).toMatchObject({ code: 2, stderr: expect.stringContaining("--buffer: expected 1 or more") })
  })
})

describe("a daemon elsewhere", () => {
  it("that is not there is not taken for the files here, and is stopped when nobody answers there any more", async () => {
    await using other = new Home()
    const daemon = await other.start("--tcp", "0")
    const url = /tcp {5}(tcp:\S+)/.exec(daemon.stdout)?.[1] ?? ""
    const owner = String(JSON.parse((await other.ksi("token", "create", "--profile", "owner", "--json")).stdout).token)
    const away = { KSI_HOME: other.path, KSI_URL: url, KSI_TOKEN: owner }
    expect(await at(away)("stop")).toMatchObject({ code: 0, stdout: "stopped\n" })
    expect((await daemon.ended()).code).toBe(0)
    // Without the URL its store would be found.
    expect(await at(away)("compact")).toMatchObject({ code: 5, stderr: expect.stringContaining("ConnectionLost") })
    expect(await at({ KSI_HOME: other.path })("compact")).toMatchObject({ code: 0 })
  })
})

describe("a daemon that is frozen", () => {
  it("is lost to its client, though its machine still answers for it", async () => {
    await using other = new Home()
    const daemon = await other.start("--tcp", "0")
    const url = /tcp {5}(tcp:\S+)/.exec(daemon.stdout)?.[1] ?? ""
    const known = String(JSON.parse((await other.ksi("token", "create", "--profile", "restricted", "--json")).stdout).token)
    const problem = Effect.gen(function*() {
      const client = yield* Client.connect({ url, token: known, idle: 400 })
      yield* client.call("system:health", {})
      daemon.child.kill("SIGSTOP")
      return (yield* Effect.flip(client.call("system:health", {}))).message
    }).pipe(Effect.scoped, Effect.runPromise)
    expect(await problem).toContain("was lost: it has not answered for 200 ms")
    daemon.child.kill("SIGCONT")
    expect((await other.ksi("health")).code).toBe(0)
  })
})

describe("ksi start --tcp", () => {
  it("says why it cannot listen, and that nobody else should read along", async () => {
    await using other = new Home()
    const port = tcp.replace("tcp://127.0.0.1:", "")
    expect(await other.ksi("start", "--tcp", port)).toMatchObject({ code: 5, stderr: expect.stringContaining("ListenFailed") })
    expect(await other.ksi("start", "--tcp", "nowhere")).toMatchObject({ code: 2, stderr: expect.stringContaining("--tcp must be a port") })
    expect(await other.ksi("start", "--tcp", "no.such.host.invalid:0")).toMatchObject({ code: 5, stderr: expect.stringContaining("ListenFailed") })
    const daemon = await other.start("--tcp", "0.0.0.0:0")
    await daemon.tells("is not encrypted")
    await daemon.kill("SIGTERM")
  })

  it("ksi doctor looks at it", async () => {
    await using other = new Home()
    const tell = async (text: string, ...flags: ReadonlyArray<string>) => {
      writeFileSync(join(other.path, "ksi.toml"), text)
      const running = other.spawnIn({ cwd: other.path }, "doctor", "--json", ...flags)
      const { stdout } = await running.ended()
      const { checks, settings } = JSON.parse(stdout)
      return { checks: checks.filter(({ check }: { check: string }) => check === "tcp"), of: settings.find(({ name }: { name: string }) => name === "tcp") }
    }
    expect((await tell("")).checks).toMatchObject([{ status: "ok", message: "it is off" }])
    const port = tcp.replace("tcp://127.0.0.1:", "")
    expect(await tell(`tcp = ${port}`)).toMatchObject({ of: { text: `127.0.0.1:${port}`, origin: "ksi.toml:1" }, checks: [{ status: "problem" }] })
    const clash = await tell("tcp = 4411", "--port", "4411")
    expect(clash.checks).toMatchObject([{ status: "problem", message: "127.0.0.1:4411 shall be HTTP's as well", mend: expect.stringContaining("--tcp") }])
    expect((await tell("tcp = \"no.such.host.invalid:4411\"")).checks[0]).toMatchObject({ status: "problem", message: expect.stringMatching(/names no host that is known here|EAI_AGAIN/) })
    expect((await tell("tcp = \"0.0.0.0:0\"")).checks).toMatchObject([{ status: "ok" }, { status: "warning" }])
  })
})
