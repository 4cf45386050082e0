// `ksi start`, as a process: modules in order, what cannot start is named, one daemon a home, signals, kill -9.
import { describe, expect, it, onTestFailed } from "vitest"
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { Home, root } from "./Daemon.ts"

const fixture = (name: string) => `test/scenarios/fixtures/${name}.ts`
const shop = "scratchpad/examples/05_service.ts"

// No port that another daemon of this machine may have, and nothing compiled twice: as `Home` starts its processes.
const surroundings = { PATH: process.env["PATH"] ?? "", KSI_PORT: "off", NODE_COMPILE_CACHE: join(root, "node_modules", ".cache", "ksi") }

/** Waits until a process has written a text, and fails with all it wrote where it ends before; `ended` is all it wrote by its end. */
const heard = (child: ChildProcessWithoutNullStreams, text: string): Promise<{ readonly ended: Promise<string> }> =>
  new Promise((resolve, reject) => {
    let written = ""
    const ended = once(child, "close").then(() => written)
    const hear = (more: string) => {
      written += more
      if (written.includes(text)) resolve({ ended })
    }
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", hear)
    void ended.then(() => reject(new Error(`it ended and never wrote "${text}":\n${written}`)), reject)
  })

describe("ksi start", () => {
  it("says where it listens and what to try, serves its modules, and stops when asked", async () => {
    await using home = new Home()
    const daemon = await home.start(shop)
    expect(daemon.stdout).toContain(home.socket)
    expect(daemon.stdout.match(/ksi (health|discover|subscribe)/g)).toHaveLength(3)
    expect(statSync(home.socket).mode & 0o777).toBe(0o600)

    const ordered = await home.ksi("call", "shop:order", "sku=tea", "quantity=2", "--json")
    expect(ordered).toEqual({ code: 0, stdout: "{\"order\":\"tea-1\"}\n", stderr: "" })
    const [sold, unknown] = await home.frames(
      { event: "shop:order", data: { sku: "gold", quantity: 1 }, correlation_id: 7 },
      { event: "shop:ordr" }
    )
    expect(sold).toMatchObject({
      ok: false, correlation_id: 7,
      data: { status: "failed", cause: "domain", reason: "SoldOut", error: "gold is sold out", error_data: { sku: "gold" } }
    })
    expect(unknown).toMatchObject({ ok: false, data: { status: "error", details: { similar: ["shop:order", "shop:ordered"] } } })

    expect((await home.ksi("stop")).code).toBe(0)
    const ended = await daemon.ended()
    expect(ended.code).toBe(0)
    expect(ended.stderr).toContain("2 tea ordered")
  })

  it("folds facts with the projections of its modules, at any moment", async () => {
    await using home = new Home()
    await home.start("--store", "memory", shop)
    for (const quantity of [2, 3, 4]) {
      expect((await home.ksi("call", "shop:order", "sku=tea", `quantity=${quantity}`)).code).toBe(0)
    }
    const at = await home.ksi("time", "at", "2", "--stream", "shop-tea", "--projection", "shop-sales", "--json")
    expect(at.code).toBe(0)
    expect(JSON.parse(at.stdout)).toMatchObject({ streamId: "shop-tea", version: 2, state: { orders: 2, quantity: 5 } })
    // Like a check: 0 where they say the same, 7 where they part.
    const parted = await home.ksi("time", "compare", "latest", "shop-sales", "--stream", "shop-tea", "--json")
    expect([parted.code, JSON.parse(parted.stdout)]).toEqual([7, expect.objectContaining({ streamId: "shop-tea" })])
    expect(await home.ksi("time", "compare", "shop-sales", "shop-sales")).toMatchObject({ code: 0, stdout: "" })
    const wrong = await home.ksi("time", "at", "2", "--projection", "shop-sale", "--json")
    expect(wrong.code).toBe(3)
    expect(JSON.parse(wrong.stderr)).toMatchObject({ error: { reason: "NotFound", details: { similar: ["shop-sales"] } } })
  })

  it("answers the one who asked it to stop", async () => {
    await using home = new Home()
    const daemon = await home.start()
    const [reply] = await home.frames({ event: "system:shutdown", correlation_id: "bye" })
    expect(reply).toMatchObject({ ok: true, correlation_id: "bye", data: { status: "shutting_down" } })
    expect((await daemon.ended()).code).toBe(0)
  })

  it("starts modules in order and stops them in reverse", async () => {
    await using home = new Home()
    const daemon = await home.start(fixture("first"), shop)
    const ended = await daemon.kill("SIGTERM")
    expect(ended.code).toBe(0)
    expect(ended.stderr.indexOf("first started")).toBeGreaterThanOrEqual(0)
    expect(ended.stderr.indexOf("first stopped")).toBeGreaterThan(ended.stderr.indexOf("first started"))
  })

  it.for([
    ["broken", "the warehouse does not answer"],
    ["needy", "fixtures/Missing"],
    ["nothing", "default export must be a Layer"],
    ["program", "it has no default export; is it a program? run it with node"],
    ["forgetful", "nobody handles forgetful:order, forgetful:watch; "],
    ["absent", "absent.ts"]
  ] as const)("names a module that cannot start (%s), closes what was started, exit 5", async ([name, why]) => {
    await using home = new Home()
    const ended = await home.ksi("start", fixture("first"), fixture(name))
    expect(ended.code).toBe(5)
    expect(ended.stdout).toBe("")
    expect(ended.stderr).toContain(`✗ PluginInvalid  ${fixture(name)}`)
    expect(ended.stderr).toContain(why)
    expect(ended.stderr).toContain("first stopped")
    // The home is free again.
    const daemon = await home.start()
    expect((await daemon.kill("SIGINT")).code).toBe(0)
  })

  it("tells the faults of all modules at once, and nothing was reachable", async () => {
    await using home = new Home()
    const bad = ["broken", "needy", "nothing", "forgetful", "absent"].map(fixture)
    const ended = await home.ksi("start", fixture("first"), ...bad, "--json")
    expect(ended.code).toBe(5)
    expect(ended.stdout).toBe("")
    const line = ended.stderr.trimEnd().split("\n").find((each) => each.startsWith("{\"error\"")) ?? ""
    const { error } = JSON.parse(line) as { readonly error: { readonly reason: string; readonly details: { readonly plugin: string; readonly problem: string } } }
    expect(error.reason).toBe("PluginInvalid")
    expect(error.details.plugin).toBe(bad.join(", "))
    const [head, ...faults] = error.details.problem.split("\n")
    expect(head).toBe("5 faults")
    expect(faults.map((fault) => fault.trim().split(": ")[0])).toEqual(bad)
    expect(ended.stderr).toContain("first stopped")
    expect(existsSync(home.socket)).toBe(false)
  })

  it("starts a module after the one it needs, gives it its services, lists both, and stops them in reverse", async () => {
    await using home = new Home()
    const daemon = await home.start(fixture("till"), fixture("bank"))
    expect(await home.ksi("call", "till:percent")).toMatchObject({ code: 0, stdout: "3\n" })
    const { code, stdout } = await home.ksi("plugin", "ls", "--json")
    expect(code).toBe(0)
    const [cashier, bank, ...others] = stdout.trimEnd().split("\n").map((line) => JSON.parse(line) as { readonly took_ms: number; readonly started_at: number })
    expect(others).toEqual([])
    expect(cashier).toMatchObject({
      name: "cashier", file: fixture("till"), state: "running", events: ["till:percent"], services: [], needs: ["bank"]
    })
    expect(bank).toMatchObject({ name: "bank", state: "running", events: [], services: ["fixtures/Rate"] })
    expect(bank?.took_ms).toBeGreaterThanOrEqual(40)
    expect(cashier?.started_at).toBeGreaterThan(bank?.started_at ?? Infinity)
    expect((await home.ksi("plugin", "ls")).stdout).toMatch(/^cashier {2}running {2}\S+Z {2}\d+ ms {2,}1 event {3}till:percent\nbank {5}running/)
    const { stderr } = await daemon.kill("SIGTERM")
    const places = ["bank started", "till started", "till stopped", "bank stopped"].map((text) => stderr.indexOf(text))
    expect(places[0]).toBeGreaterThanOrEqual(0)
    expect(places).toEqual(places.toSorted((a, b) => a - b))
  })

  it("one daemon a home: the second one is refused with exit 5, the first one is not disturbed", async () => {
    await using home = new Home()
    await home.start()
    const second = await home.ksi("start", "--json")
    expect(second.code).toBe(5)
    expect(JSON.parse(second.stderr)).toMatchObject({ error: { reason: "StoreLocked", retryable: true } })
    expect((await home.ksi("health")).code).toBe(0)
  })

  it("kill -9 leaves a home that starts again, with every acknowledged fact", async () => {
    await using home = new Home()
    const first = await home.start(shop)
    for (let n = 1; n <= 3; n++) {
      expect((await home.frames({ event: "shop:order", data: { sku: "tea", quantity: n } }))[0]).toMatchObject({ ok: true })
    }
    await first.kill("SIGKILL")
    await home.start(shop)
    const log = await home.ksi("stream-log", "shop-tea", "--json")
    const facts = log.stdout.trimEnd().split("\n").map((line) => JSON.parse(line) as { position: number; data: { quantity: number } })
    expect(facts.map(({ data, position }) => [position, data.quantity])).toEqual([[1, 1], [2, 2], [3, 3]])
  })

  it("in memory nothing is left behind", async () => {
    await using home = new Home()
    const first = await home.start("--store", "memory", shop)
    await home.frames({ event: "shop:order", data: { sku: "tea", quantity: 1 } })
    await first.kill("SIGTERM")
    await home.start("--store", "memory", shop)
    const streams = await home.ksi("streams", "--json")
    expect(streams).toEqual({ code: 0, stdout: "", stderr: "" })
  })

  it("a module that cannot be read is named with its line", async () => {
    await using home = new Home()
    const file = join(home.path, "unread.ts")
    writeFileSync(file, "const a = 1\nconst = 2\nexport default a\n")
    expect((await home.ksi("start", file)).stderr).toContain(`, at ${file}:2\n`)
    writeFileSync(file, "\nthrow new Error(\"not today\")\n")
    expect((await home.ksi("start", file)).stderr).toContain(`not today, at ${file}:2\n`)
  })

  it("is interrupted as it should be, wherever its flags stand, and says so in its log", async () => {
    await using home = new Home()
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      const daemon = home.spawn("--home", home.path, "start", "--log-level", "info")
      await daemon.says("ksi is ready")
      const { code, stderr } = await daemon.kill(signal)
      expect(code).toBe(0)
      const logged = stderr.trimEnd().split("\n").map((line) => JSON.parse(line) as { readonly message: unknown; readonly annotations: unknown })
      expect(logged.map(({ message }) => message)).toEqual(["ready", "stopping"])
      expect(logged[0]?.annotations).toEqual({ socket: home.socket, store: join(home.path, "ksi.db") })
    }
  })

  it.skipIf(!existsSync("/usr/bin/script"))("logs for people on a terminal, without colours where NO_COLOR says so", async () => {
    const logged = async (env: Record<string, string>) => {
      await using home = new Home()
      const main = [process.execPath, "--disable-warning=ExperimentalWarning", "--conditions=ksi-source", "src/main.ts"]
      const command = [...main, "start", "--home", home.path, "--store", "memory"].map((word) => `'${word}'`).join(" ")
      const terminal = spawn("/usr/bin/script", ["-qec", command, "/dev/null"], { cwd: root, env: { ...surroundings, ...env } })
      const whole = await heard(terminal, "subscribe '*'")
      // Asked at its socket: `ksi stop` would be two more processes to wait for.
      expect((await home.frames({ event: "system:shutdown" }))[0]).toMatchObject({ ok: true })
      return await whole.ended
    }
    const plain = await logged({ NO_COLOR: "1", TERM: "xterm" })
    expect(plain).toMatch(/INFO.*: ready/)
    expect(plain).not.toContain("\u001b")
    expect(plain).not.toContain("\"level\"")
    expect((await logged({ TERM: "xterm" })).split("INFO")[0]).toContain("\u001b[")
  })

  it("the npm scripts hand a signal to the daemon: no process is left behind", async () => {
    await using home = new Home()
    const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { readonly scripts: Record<string, string> }
    const child = spawn("sh", ["-c", `${scripts["start"]} "$@"`, "sh", "--home", home.path], {
      cwd: root, env: { ...surroundings, PATH: `${dirname(process.execPath)}:${process.env["PATH"]}` },
      // A group of its own: whatever is left of it can be ended.
      detached: true
    })
    const { pid } = child
    // A group of which nobody is left cannot be ended.
    onTestFailed(() => void (pid !== undefined && child.exitCode === null && process.kill(-pid, "SIGKILL")))
    const exited = once(child, "exit")
    await heard(child, "ksi is ready")
    child.kill("SIGTERM")
    expect(await exited).toEqual([0, null])
    expect(existsSync(home.socket)).toBe(false)
  })

  it("a wrong setting is a usage error that names the choices", async () => {
    await using home = new Home()
    const flag = await home.ksi("start", "--sync", "maybe")
    expect(flag.code).toBe(2)
    expect(flag.stderr).toContain("--sync must be one of full, normal, not \"maybe\"")
    const level = await home.ksi("start", "--log-level", "loud")
    expect(level.stderr).toContain("--log-level must be one of debug, info, warn, error, none, not \"loud\"")
  })
})
