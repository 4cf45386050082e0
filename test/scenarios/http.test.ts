// HTTP of a real daemon: where it is, who the owner is, what becomes of it when its port is taken or it is told to stop.
import { describe, expect, it } from "vitest"
import { existsSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { Home, Running } from "./Daemon.ts"

const urlIn = (stdout: string): string => /http:\/\/[\d.:]+/.exec(stdout)?.[0] ?? expect.fail(`no URL in ${stdout}`)
const json = { "content-type": "application/json" }

/** A body as it is read here: anything may be in it. */
// oxlint-disable-next-line typescript/no-explicit-any
const bodyOf = async (response: Response): Promise<any> => response.json()

describe("HTTP of a daemon", () => {
  it("says where it is; the token beside the socket makes its bearer the owner, and is gone with the daemon", async () => {
    await using home = new Home()
    const daemon = await home.start("--port", "0")
    const url = urlIn(daemon.stdout)
    const file = join(home.path, "run", "http.token")
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(JSON.parse((await home.ksi("status", "--json")).stdout)).toMatchObject({ url })
    expect((await fetch(`${url}/health/ready`)).status).toBe(200)
    expect((await fetch(`${url}/events/system:shutdown`, { method: "POST", headers: json, body: "{}" })).status).toBe(401)
    expect(existsSync(file)).toBe(true)
    const authorization = `Bearer ${readFileSync(file, "utf8").trim()}`
    const stopped = await fetch(`${url}/events/system:shutdown`, { method: "POST", headers: { ...json, authorization }, body: "{}" })
    expect([stopped.status, await bodyOf(stopped)]).toEqual([200, { status: "shutting_down" }])
    expect((await daemon.ended()).code).toBe(0)
    expect(existsSync(file)).toBe(false)
  })

  it("a port that is taken is named; the daemon that has it goes on, and the other leaves nothing reachable behind", async () => {
    await using home = new Home()
    await using other = new Home()
    const url = urlIn((await home.start("--port", "0")).stdout)
    const { code, stderr, stdout } = await other.ksi("start", "--port", new URL(url).port)
    expect([code, stdout]).toEqual([5, ""])
    expect(stderr).toContain(`✗ ListenFailed  cannot listen at ${url}: the port is in use`)
    expect(stderr).toContain("next       ksi start --port <another port>")
    expect(existsSync(other.socket)).toBe(false)
    expect((await fetch(`${url}/health/live`)).status).toBe(200)
    // The store is not held any more.
    const again = await other.start("--port", "0")
    expect(urlIn(again.stdout)).not.toBe(url)
  })

  it("what Kubernetes puts into KSI_PORT is ignored with a warning, and off is no HTTP", async () => {
    await using home = new Home()
    const started = new Running(["start", "--store", "memory", "--port", "0"], { KSI_HOME: home.path, KSI_PORT: "tcp://10.0.0.1:4600" })
    await started.says("ksi is ready")
    await started.tells("KSI_PORT is ignored: Kubernetes sets it for a service of this name")
    urlIn(started.stdout)
    await started.kill("SIGTERM")
    await using silent = new Home()
    const daemon = await silent.start("--port", "off")
    expect(daemon.stdout).not.toContain("http")
    expect(existsSync(join(silent.path, "run", "http.token"))).toBe(false)
  })

  it("lets a request end that runs when it is told to stop, and tells nobody else anything", async () => {
    await using home = new Home()
    const daemon = await home.start("--port", "0", "test/scenarios/fixtures/slow.ts")
    const url = urlIn(daemon.stdout)
    const asked = fetch(`${url}/events/slow:answer`, { method: "POST", headers: json, body: "{}" })
    await daemon.tells("it has begun")
    daemon.child.kill("SIGTERM")
    await daemon.tells("stopping")
    await expect(fetch(`${url}/health/live`)).rejects.toThrow()
    const answered = await asked
    expect([answered.status, await bodyOf(answered)]).toEqual([200, "done"])
    expect((await daemon.ended()).code).toBe(0)
  })
})
