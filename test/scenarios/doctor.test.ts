// `ksi doctor` and the settings of `ksi start`, as processes: what is in ksi.toml, and homes in every state.
import { describe, expect, it, onTestFinished } from "vitest"
import { connect, createServer } from "node:net"
import { once } from "node:events"
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { Home, root, Running } from "./Daemon.ts"

const shop = join(root, "scratchpad/examples/05_service.ts")

interface Report {
  readonly status: string
  readonly settings: ReadonlyArray<{ readonly name: string; readonly value: unknown; readonly text: string; readonly origin: string }>
  readonly checks: ReadonlyArray<{ readonly check: string; readonly status: string; readonly message: string; readonly mend?: string }>
}

/** A working directory with a `ksi.toml`, gone when the test ends. */
const folder = (text?: string): string => {
  const path = Fs.mkdtempSync(join(tmpdir(), "ksi-doctor-"))
  onTestFinished(() => Fs.rmSync(path, { recursive: true, force: true }))
  if (text !== undefined) Fs.writeFileSync(join(path, "ksi.toml"), text)
  return path
}

const run = (args: ReadonlyArray<string>, cwd: string, env: Record<string, string> = {}, uid?: number) => {
  const process = new Running(args, env, uid === undefined ? { cwd } : { cwd, uid })
  onTestFinished(async () => void (await process.kill("SIGKILL")))
  process.child.stdin?.end()
  return process
}

/** The report, and the status of each check. */
const examine = async (args: ReadonlyArray<string>, cwd: string, env: Record<string, string> = {}, uid?: number) => {
  const { code, stderr, stdout } = await run(["doctor", "--json", ...args], cwd, env, uid).ended()
  expect(stderr).toBe("")
  expect(stdout.trimEnd().split("\n")).toHaveLength(1)
  const report = JSON.parse(stdout) as Report
  expect(code).toBe(report.status === "problem" ? 7 : 0)
  expect(report.checks.some(({ status }) => status === "problem")).toBe(report.status === "problem")
  for (const { mend, status } of report.checks) expect(mend === undefined).toBe(status === "ok")
  const of = (name: string) => report.checks.filter(({ check }) => check === name)
  const origins = Object.fromEntries(report.settings.map(({ name, origin, text }) => [name, `${text} (${origin})`]))
  return { ...report, of, origins }
}

/** Every file below a directory, with what is in it; what processes share meanwhile is left out. */
const contentOf = (path: string) =>
  Fs.readdirSync(path, { recursive: true, withFileTypes: true })
    .filter(({ name }) => !name.endsWith("-shm"))
    .map((entry) => {
      const file = join(entry.parentPath, entry.name)
      return [file, entry.isFile() ? Fs.readFileSync(file).toString("base64") : "no file"]
    }).toSorted()

describe("doctor", () => {
  it("no home: all is well, nothing is made, every value has its origin", async () => {
    const cwd = folder("home = \"data\"\n\n[limits]\nframe_bytes = \"2 MiB\"\n")
    const { of, origins, settings, status } = await examine(["--drain", "1 minute"], cwd, { KSI_AUDIT: "outline" })
    expect(status).toBe("ok")
    expect(Fs.readdirSync(cwd)).toEqual(["ksi.toml"])
    expect(settings).toHaveLength(56)
    expect(origins).toMatchObject({
      home: "data (ksi.toml:1)", socket: "data/run/daemon.sock (default)", audit: "outline (KSI_AUDIT)", drain: "1 minute (--drain)",
      sync: "full (default)", "limits.frame_bytes": "2 MiB (ksi.toml:4)"
    })
    expect(["settings", "node", "home", "socket", "daemon", "store", "lock", "disk", "durability", "clock", "limits"].map((name) => of(name).length))
      .toEqual(Array.from({ length: 11 }, () => 1))
  })

  it("beside a running daemon, after it, after kill -9: it sees how it is, and changes nothing", async () => {
    await using home = new Home()
    const daemon = await home.start(shop)
    await home.frames({ event: "shop:order", data: { sku: "tea", quantity: 1 } })
    const look = () => examine([], home.path, { KSI_HOME: home.path })
    const running = await look()
    expect(running.status).toBe("ok")
    expect(running.of("daemon")[0]?.message).toContain(`runs with process id ${daemon.child.pid}, at position 1`)
    expect(running.of("store")[0]?.message).toContain("1 fact")
    expect(running.of("lock")[0]?.message).toBe("held by the daemon that runs")
    expect((await home.frames({ event: "shop:order", data: { sku: "tea", quantity: 1 } }))[0]).toMatchObject({ ok: true })

    await daemon.kill("SIGKILL")
    const left = contentOf(home.path)
    const killed = await look()
    expect(killed.status).toBe("warning")
    expect(killed.of("daemon")).toMatchObject([{ status: "warning", message: expect.stringContaining("of a daemon that is gone"), mend: expect.stringContaining("ksi start") }])
    expect(killed.of("store")[0]?.message).toContain("2 facts")
    expect(killed.of("lock")[0]?.status).toBe("ok")
    expect(contentOf(home.path)).toEqual(left)

    await (await home.start(shop)).kill("SIGTERM")
    const stopped = contentOf(home.path)
    expect((await look()).of("daemon")[0]?.message).toContain("none runs")
    expect(contentOf(home.path)).toEqual(stopped)
    expect(Fs.existsSync(join(home.path, "ksi.db-shm"))).toBe(false)
  })

  it("a store that somebody else writes", async () => {
    await using home = new Home()
    await home.start()
    const other = join(home.path, "other.sock")
    const { of } = await examine(["--socket", other], home.path, { KSI_HOME: home.path })
    expect(of("lock")).toMatchObject([{ status: "problem", message: expect.stringContaining("another process writes") }])
    expect((await home.ksi("health")).code).toBe(0)
  })

  it.for([
    ["text", (file: string) => Fs.writeFileSync(file, "no database at all\n".repeat(400)), "not a database"],
    ["zeros", (file: string) => Fs.writeFileSync(file, Buffer.alloc(8192)), "not a database"],
    ["newer", (file: string) => {
      const db = new DatabaseSync(file)
      db.exec("CREATE TABLE t (a); PRAGMA application_id = 1263749425; PRAGMA user_version = 7")
      db.close()
    }, "format 7; this KSI knows formats up to 3"],
    ["directory", (file: string) => Fs.mkdirSync(file), "it is not a file"]
  ] as const)("a store file that cannot be used: %s", async ([, make, why], { expect }) => {
    const cwd = folder()
    make(join(cwd, "ksi.db"))
    const before = contentOf(cwd)
    const { of, status } = await examine(["--home", "."], cwd)
    expect(status).toBe("problem")
    expect(of("store")).toMatchObject([{ status: "problem", message: expect.stringContaining(why) }])
    expect(contentOf(cwd)).toEqual(before)
    // The daemon says so too.
    expect((await run(["start", "--home", "."], cwd).ended()).code).toBe(5)
  })

  it("a clock that is behind the last fact", async () => {
    await using home = new Home()
    await (await home.start()).kill("SIGTERM")
    const db = new DatabaseSync(join(home.path, "ksi.db"))
    db.exec(`INSERT INTO events VALUES (1, 1, 1, 1, 'e', 1, NULL, NULL, NULL, 0, ${Date.UTC(2999, 0, 1)})`)
    db.close()
    const { of } = await examine([], home.path, { KSI_HOME: home.path })
    expect(of("clock")).toMatchObject([{ status: "problem", message: expect.stringContaining("stored at 2999-01-01") }])
  })

  // Root may write everywhere: then another user looks, who must be able to read what is run.
  const isRoot = process.getuid?.() === 0
  const open = (path: string): boolean => path === "/" || ((Fs.statSync(path).mode & 0o001) !== 0 && open(dirname(path)))
  it.skipIf(isRoot && !(open(root) && open(process.execPath)))("a home that cannot be written (as root: where other users may read KSI)", async () => {
    const cwd = folder()
    Fs.mkdirSync(join(cwd, "home"), { mode: 0o555 })
    Fs.chmodSync(cwd, 0o755)
    const nobody = isRoot ? 65_534 : undefined
    const { of } = await examine(["--home", join(cwd, "home")], cwd, {}, nobody)
    expect(of("home")).toMatchObject([{ status: "problem", message: expect.stringContaining("cannot be written") }])
    const inside = await examine(["--home", join(cwd, "home", "deeper")], cwd, {}, nobody)
    expect(inside.of("home")).toMatchObject([{ status: "problem", message: expect.stringContaining("does not exist, and") }])
  })

  it("something that listens and is no daemon", async () => {
    const cwd = folder()
    const server = createServer((socket) => void socket.on("error", () => {}).end("HTTP/1.1 400 Bad Request\r\n\r\n"))
    await once(server.listen(join(cwd, "s")), "listening")
    onTestFinished(() => void server.close())
    const { of } = await examine(["--socket", join(cwd, "s")], cwd)
    expect(of("daemon")).toMatchObject([{ status: "problem", message: expect.stringContaining("does not say how it is") }])
  })

  it("limits that contradict one another, and those out of their range", async () => {
    const cwd = folder("[limits]\nsubscription_buffer = 0\noutgoing_bytes = \"1 MiB\"\n")
    const { of } = await examine(["--sync", "normal"], cwd)
    expect(of("settings")).toMatchObject([{ status: "problem", message: expect.stringContaining("ksi.toml:2: limits.subscription_buffer must be") }])
    expect(of("limits")).toMatchObject([{ status: "problem", message: expect.stringContaining("frame_bytes (4 MiB) is more than outgoing_bytes (1 MiB)") }])
    expect(of("durability")).toMatchObject([{ status: "warning", message: expect.stringContaining("may be lost when the machine loses power") }])
  })

  it("a file that is no TOML is one problem, and the rest is looked at", async () => {
    const { checks, of } = await examine([], folder("home = \"x\"\n[limits\n"))
    expect(of("settings")).toMatchObject([{ status: "problem", message: expect.stringContaining("ksi.toml:2: this is not TOML") }])
    expect(checks).toHaveLength(13)
  })

  it("for people: the same in words, exit 7", async () => {
    const { code, stderr, stdout } = await run(["doctor"], folder("hoem = \"x\"\n")).ended()
    expect([code, stderr]).toEqual([7, ""])
    expect(stdout).toMatch(/^settings\n {2}home +var +default\n/)
    expect(stdout).toContain("  ✗ settings    ksi.toml:1: \"hoem\" is no setting\n                mend: did you mean home?\n")
  })
})

describe("ksi start with ksi.toml", () => {
  it("takes it, and the CLI beside it finds the daemon", async () => {
    const cwd = folder("home = \"data\"\nstore = \"memory\"\nlog_level = \"debug\"\nlisten = 4600\n[limits]\nframe_bytes = \"8 KiB\"\n")
    const daemon = run(["start", "--drain", "0"], cwd, { KSI_HOEM: "x", KSI_LIMIT_DEPTH: "7" })
    await daemon.says("ksi is ready")
    expect((await run(["status", "--json"], cwd).ended()).stdout).toContain("\"home\":\"data\"")
    const socket = connect(join(cwd, "data", "run", "daemon.sock"))
    socket.end("{\"event\":\"wire:hello\",\"version\":1}\n")
    const [hello]: Array<unknown> = await once(socket, "data")
    expect(JSON.parse(String(hello))).toMatchObject({ data: { limits: { frameBytes: 8192, depth: 7, jsonDepth: 256 } } })
    expect((await run(["stop"], cwd).ended()).code).toBe(0)
    const { code, stderr } = await daemon.ended()
    expect(code).toBe(0)
    const logged = stderr.trimEnd().split("\n").map((line) => JSON.parse(line) as { readonly level: string; readonly message: string; readonly annotations: Record<string, string> })
    expect(logged.filter(({ level }) => level === "WARN").map(({ message }) => message)).toEqual([
      "KSI_HOEM is no setting, it has no effect; nearest: KSI_HOME", "ksi.toml:4: listen is not supported yet, it has no effect"
    ])
    expect(logged.find(({ message }) => message === "settings")?.annotations).toMatchObject({
      home: "data (ksi.toml:1)", drain: "0 seconds (--drain)", "limits.depth": "7 (KSI_LIMIT_DEPTH)", "limits.frame_bytes": "8 KiB (ksi.toml:6)"
    })
  })

  it("tells every mistake at once, exit 2, and nothing was made", async () => {
    const cwd = folder("hoem = \"x\"\n[limits]\ndepth = 0\n")
    const { code, stderr, stdout } = await run(["start"], cwd, { KSI_SYNC: "maybe" }).ended()
    expect([code, stdout]).toEqual([2, ""])
    expect(stderr).toBe([
      "✗ Usage  3 problems",
      "  KSI_SYNC must be one of full, normal, not \"maybe\"",
      "  ksi.toml:3: limits.depth must be a whole number from 1 to 10,000, not 0",
      "  ksi.toml:1: \"hoem\" is no setting; nearest: home",
      "  next       ksi doctor",
      ""
    ].join("\n"))
    expect(Fs.readdirSync(cwd)).toEqual(["ksi.toml"])
    Fs.writeFileSync(join(cwd, "ksi.toml"), "home = \"x\nsync = 1")
    for (const argv of [["start"], ["status"]]) {
      const broken = await run([...argv, "--json"], cwd).ended()
      expect([broken.code, broken.stdout]).toEqual([2, ""])
      expect(JSON.parse(broken.stderr)).toMatchObject({ error: { reason: "Usage", message: expect.stringMatching(/^ksi\.toml:1: this is not TOML: /) } })
    }
    // Whoever says where it is needs no file.
    expect((await run(["status", "--home", "x"], cwd).ended()).code).toBe(5)
  })

  it("interrupts what still runs when its drain is over", async () => {
    const cwd = folder("drain = \"10 ms\"\n")
    const daemon = run(["start", "--home", "h", "--store", "memory", join(root, "test/scenarios/fixtures/hanging.ts")], cwd)
    await daemon.says("ksi is ready")
    const hanging = run(["call", "hanging:hang", "--home", "h", "--json"], cwd)
    await daemon.tells("it hangs")
    expect((await daemon.kill("SIGTERM")).code).toBe(0)
    expect((await hanging.ended()).code).toBe(5)
  })
})
