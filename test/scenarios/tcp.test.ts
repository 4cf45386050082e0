// TCP of a real daemon: where it is, who it lets in, what becomes of it where it cannot listen.
import { Effect } from "effect"
import { describe, expect, it } from "vitest"
import { once } from "node:events"
import { writeFileSync } from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { createInterface } from "node:readline"
import * as Client from "../../src/wire/Client.ts"
import { ksi } from "../cli/commandLine.ts"
import { Home, root } from "./Daemon.ts"

const urlIn = (stdout: string): string => /tcp:\/\/[\d.:]+/.exec(stdout)?.[0] ?? expect.fail(`no URL in ${stdout}`)

interface Reply {
  readonly ok: boolean
  readonly data: { readonly reason?: string; readonly principal?: string; readonly status?: string }
}

/** Sends frames over one connection, and answers with as many replies. */
const frames = async (url: string, ...requests: ReadonlyArray<object>): Promise<ReadonlyArray<Reply>> => {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  await once(socket, "connect")
  socket.write(requests.map((request) => `${JSON.stringify(request)}\n`).join(""))
  const replies: Array<Reply> = []
  for await (const line of createInterface({ input: socket })) {
    // The daemon's own words.
    replies.push(JSON.parse(line) as Reply)
    if (replies.length === requests.length) break
  }
  socket.destroy()
  return replies
}

const shop = join(root, "scratchpad", "examples", "05_service.ts")

const hello = (token: string) => ({ event: "wire:hello", version: 1, token })

describe("TCP of a daemon", () => {
  it("is off, until somebody wants it: then start, status, health and doctor say where, and a token lets in", async () => {
    await using home = new Home()
    const off = await home.start()
    expect(off.stdout).not.toContain("tcp")
    expect(JSON.parse((await home.ksi("status", "--json")).stdout)).not.toHaveProperty("tcp")
    await off.kill("SIGTERM")

    writeFileSync(join(home.path, "ksi.toml"), "tcp = 0\n")
    const daemon = await home.startIn({ cwd: home.path })
    const url = urlIn(daemon.stdout)
    expect(url).toMatch(/^tcp:\/\/127\.0\.0\.1:\d+$/)
    expect(daemon.stdout).toContain("token create")
    expect(daemon.stderr).not.toContain("WARN")
    expect(JSON.parse((await home.ksi("status", "--json")).stdout)).toMatchObject({ tcp: url })
    expect(JSON.parse((await home.ksi("health", "--json")).stdout)).toMatchObject({ tcp: url })
    const examined = home.spawnIn({ cwd: home.path }, "doctor", "--json")
    // As `ksi doctor --json` writes it.
    const { checks, settings } = JSON.parse((await examined.ended()).stdout) as { checks: ReadonlyArray<object>; settings: ReadonlyArray<object> }
    expect(settings).toContainEqual(expect.objectContaining({ name: "tcp", text: "127.0.0.1:0", origin: "ksi.toml:1" }))
    expect(checks).toContainEqual(expect.objectContaining({ check: "tcp", status: "ok", message: `the daemon that runs has it at ${url}` }))

    const health = { event: "system:health" }
    expect((await frames(url, health))[0]).toMatchObject({ ok: false, data: { reason: "Unauthenticated" } })
    expect((await frames(url, hello("ksi_no"), health)).map(({ data }) => data.reason)).toEqual(["Unauthenticated", "Unauthenticated"])
    const token = (await home.ksi("token", "create", "till", "--profile", "restricted")).stdout.trim()
    const [greeted, healthy, streams] = await frames(url, hello(token), health, { event: "store:streams" })
    expect(greeted?.data.principal).toMatch(/^token:till-/)
    expect(healthy?.data.status).toBe("healthy")
    expect(streams?.data.reason).toBe("PermissionDenied")
  })

  it("a port that is taken, and a host that nobody knows, are exit code 5; nothing is reachable then", async () => {
    await using home = new Home()
    await using other = new Home()
    const url = urlIn((await home.start("--tcp", "0")).stdout)
    const taken = await other.ksi("start", "--tcp", url.slice("tcp://".length))
    expect([taken.code, taken.stdout]).toEqual([5, ""])
    expect(taken.stderr).toContain(`✗ ListenFailed  cannot listen at ${url}: the port is in use`)
    expect(taken.stderr).toContain("next       ksi start --tcp <another host:port>")
    const unknown = await other.ksi("start", "--tcp", "no-such-host.invalid:4601")
    expect([unknown.code, unknown.stdout]).toEqual([5, ""])
    expect(unknown.stderr).toMatch(/cannot listen at tcp:\/\/no-such-host\.invalid:4601: (nobody knows that name|that name cannot be looked up now)/)
    expect((await other.ksi("health")).code).toBe(5)
    const wrong = await other.ksi("start", "--tcp", "here")
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining("--tcp must be a port from 0 to 65,535, or host:port, or off, not \"here\"")])
  })

  it("where others can reach it, it says that nothing is encrypted and what to do", async () => {
    await using home = new Home()
    const daemon = await home.start("--tcp", "0.0.0.0:0")
    await daemon.tells("KSI does not encrypt TCP")
    await daemon.tells("ssh -L")
    expect((await daemon.kill("SIGTERM")).code).toBe(0)
  })
})

describe("a daemon that is frozen", () => {
  it("is lost to its client, though its machine still answers for it", async () => {
    await using home = new Home()
    const daemon = await home.start("--tcp", "0")
    const token = (await home.ksi("token", "create", "till", "--profile", "restricted")).stdout.trim()
    const problem = Effect.gen(function*() {
      const client = yield* Client.connect({ url: urlIn(daemon.stdout), token, idle: 400 })
      yield* client.call("system:health", {})
      daemon.child.kill("SIGSTOP")
      const error = yield* Effect.flip(client.call("system:health", {}))
      return error.message
    }).pipe(Effect.scoped, Effect.runPromise)
    expect(await problem).toContain("was lost: it has not answered for 200 ms")
    daemon.child.kill("SIGCONT")
    expect((await home.ksi("health")).code).toBe(0)
  })
})

describe("the CLI with a URL", () => {
  it("asks a daemon elsewhere, over TCP, HTTP and WebSocket, as the bearer of a token", async () => {
    await using home = new Home()
    // Commands that find no daemon of their own.
    await using away = new Home()
    const daemon = await home.start("--tcp", "0", "--port", "0", shop)
    const http = /http:\/\/[\d.:]+/.exec(daemon.stdout)?.[0] ?? ""
    const url = urlIn(daemon.stdout)
    const token = (await home.ksi("token", "create", "till", "--profile", "trusted")).stdout.trim()
    const file = join(home.path, "till.token")
    writeFileSync(file, `${token}\n`)
    const placed = (env: Record<string, string>, ...argv: ReadonlyArray<string>) => Effect.runPromise(ksi(argv, { env: { KSI_HOME: away.path, ...env } }))
    const asked = (...argv: ReadonlyArray<string>) => placed({}, ...argv)

    const ordered = await away.ksi("call", "shop:order", "sku=tea", "quantity=1", "--url", url, "--token", token)
    expect([ordered.code, ordered.stderr]).toEqual([0, ""])
    for (const each of [url, http, http.replace("http", "ws"), `unix:${home.socket}`, home.socket]) {
      const health = await placed({ KSI_URL: each, KSI_TOKEN_FILE: file }, "health", "--json")
      expect([each, health.stderr]).toEqual([each, ""])
      expect(JSON.parse(health.stdout)).toMatchObject({ status: "healthy", tcp: url })
    }
    const named = ["--url", url, "--token", token]
    expect(JSON.parse((await asked("status", "--json", ...named)).stdout)).toMatchObject({ status: "running", url: http })
    expect((await asked("subscribe", "shop:*", "--from", "start", "--limit", "1", ...named)).stdout).toContain("shop:ordered")
    expect((await asked("time", "at", "1", "--all", ...named)).stdout).toContain("ksi-permission")

    const wrong = await asked("health", "--url", url, "--token", "ksi_no")
    expect([wrong.code, wrong.stderr]).toEqual([4, expect.stringContaining("Unauthenticated")])
    const overHttp = await asked("health", "--url", http, "--token", "ksi_no")
    expect([overHttp.code, overHttp.stderr]).toEqual([4, expect.stringContaining("Unauthenticated")])
    expect((await asked("health", "--url", url)).code).toBe(4)
    const owner = (await placed({ KSI_HOME: home.path }, "token", "create", "boss", "--profile", "owner")).stdout.trim()
    expect((await asked("stop", "--url", url, "--token", owner)).code).toBe(0)
    const gone = await asked("health", ...named)
    expect([gone.code, gone.stderr]).toEqual([5, expect.stringContaining("ECONNREFUSED")])
    expect(gone.stderr).toContain("listens")
  })

  it("says what is wrong with it, and which command takes none", async () => {
    await using home = new Home()
    const url = "tcp://127.0.0.1:1"
    const run = (...argv: ReadonlyArray<string>) => Effect.runPromise(ksi(argv, { env: { KSI_HOME: home.path } }))
    const [scheme, both, start, doctor, backup, empty] = await Promise.all([
      run("health", "--url", "ftp://a:1"), run("health", "--url", url, "--home", "x"), home.ksi("start", "--url", url),
      run("doctor", "--url", url), run("backup", "b.db", "--url", url), run("health", "--url", url, "--token", "")
    ])
    for (const { code, stdout } of [scheme, both, start, doctor, backup, empty]) expect([code, stdout]).toEqual([2, ""])
    expect(scheme.stderr).toContain("--url: expected unix:/path/of/daemon.sock, tcp://host:port")
    expect(both.stderr).toContain("give one of them")
    expect(start.stderr).toContain("ksi start works on what is on this machine")
    expect(doctor.stderr).toContain("ksi doctor works on what is on this machine")
    expect(backup.stderr).toContain("ksi backup works on what is on this machine")
    expect(empty.stderr).toContain("--token is empty")
  })
})
