import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import { type AddressInfo, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Checks from "../../src/cli/Checks.ts"
import * as Config from "../../src/server/Config.ts"
import { newest, type State } from "../../src/store/StoreInspection.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(join(tmpdir(), "ksi-checks-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true }))
)

const listening = (path: string) =>
  Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer((socket) => void socket.on("error", () => {}).resume())
      server.listen(path, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.callback<void>((resume) => {
      server.close(() => resume(Effect.void))
    })
  )

const is = (status: Checks.Check["status"], message: string) =>
  ({ status, message: expect.stringContaining(message), mend: status === "ok" ? undefined : expect.any(String) })

describe("settings", () => {
  it("each problem and warning is a check with its mend", () => {
    const { defaults } = Config
    const none = { values: defaults, settings: [], problems: [], warnings: [] }
    expect(Checks.configuration(none)).toMatchObject([is("ok", "every setting")])
    const problem = (where: string, setting?: string, similar: ReadonlyArray<string> = []): Config.Problem => ({ where, problem: "is x", similar, setting })
    expect(Checks.configuration({
      ...none, problems: [problem("--sync", "sync"), problem("ksi.toml:1", undefined, ["a", "b"])], warnings: [problem("KSI_X"), problem("ksi.toml:2")]
    })).toMatchObject([
      { status: "problem", mend: "correct it, or leave it out for the default" },
      { status: "problem", mend: "did you mean a or b?" },
      { status: "warning", mend: "unset KSI_X where it is not meant for KSI" },
      { status: "warning", mend: "correct or remove this line" }
    ])
  })
})

it("node", () => {
  expect(["23.9.1", "24.0.0", "25.1.0-nightly"].map((version) => Checks.node(version).status)).toEqual(["problem", "ok", "ok"])
})

describe("home", () => {
  it.live("there, to be made, or in the way of a file", () =>
    Effect.gen(function*() {
      const path = yield* folder
      expect(yield* Checks.home(path)).toMatchObject(is("ok", "can be written"))
      expect(yield* Checks.home(join(path, "a", "b"))).toMatchObject(is("ok", "ksi start makes it"))
      expect(Fs.readdirSync(path)).toEqual([])
      Fs.writeFileSync(join(path, "file"), "")
      for (const home of [join(path, "file"), join(path, "file", "a")]) {
        expect(yield* Checks.home(home)).toMatchObject(is("problem", `${join(path, "file")} is not a directory`))
      }
      Fs.symlinkSync(join(path, "nowhere"), join(path, "link"))
      expect(yield* Checks.home(join(path, "link"))).toMatchObject(is("problem", "is not a directory"))
    }).pipe(Effect.scoped))
})

describe("socket", () => {
  it.live("its length, and who else may enter its directory", () =>
    Effect.gen(function*() {
      const path = yield* folder
      expect(yield* Checks.socket(join(path, "x".repeat(100), "s"))).toMatchObject(is("problem", "at most 107"))
      expect(yield* Checks.socket(join(path, "run", "s"))).toMatchObject(is("ok", "does not exist yet"))
      expect(yield* Checks.socket(join(path, "s"))).toMatchObject(is("ok", "closed to others (0700)"))
      Fs.chmodSync(path, 0o750)
      expect(yield* Checks.socket(join(path, "s"))).toMatchObject(is("warning", "open to others (0750)"))
      Fs.chmodSync(path, 0o1777)
      expect(yield* Checks.socket(join(path, "s"))).toMatchObject(is("problem", "shared by everybody"))
    }).pipe(Effect.scoped))
})

describe("http", () => {
  const none = { running: false, check: Checks.node("24.0.0") }
  const at = (port: Config.Values["port"], host = "127.0.0.1", hosts: ReadonlyArray<string> = []) => Checks.http({ host, hosts, port }, none)

  it.live("is free, taken or off, and looking takes nothing", () =>
    Effect.gen(function*() {
      const server = createServer()
      const port = yield* Effect.callback<number>((resume) => {
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed((server.address() as AddressInfo).port)))
      })
      expect(yield* at(port)).toMatchObject([is("problem", "is taken by another process")])
      yield* Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
      })
      expect(yield* at(port)).toMatchObject([is("ok", `port ${port} of 127.0.0.1 is free`)])
      expect(yield* at(port)).toMatchObject([is("ok", "is free")])
      expect(yield* at("off")).toMatchObject([is("ok", "off")])
      expect(yield* at(0)).toMatchObject([is("ok", "any free port")])
      expect(yield* at(4600, "192.0.2.1")).toMatchObject([is("problem", "is on no address of this machine"), is("warning", "no loopback address")])
    }))

  it.live("on an address that others can reach is a warning", () =>
    Effect.gen(function*() {
      expect(yield* at(0, "0.0.0.0")).toMatchObject([is("ok", "any free port"), is("warning", "no name in hosts")])
      expect(yield* at(0, "0.0.0.0", ["ksi.example"])).toMatchObject([is("ok", "any free port"), is("warning", "needs a token")])
    }))

  it.effect("of a daemon that runs is where that one has it", () =>
    Effect.gen(function*() {
      const values = { host: "127.0.0.1", hosts: [], port: 4600 }
      expect(yield* Checks.http(values, { ...none, running: true, url: "http://127.0.0.1:1" })).toMatchObject([is("ok", "at http://127.0.0.1:1")])
      expect(yield* Checks.http(values, { ...none, running: true })).toMatchObject([is("ok", "has none")])
    }))
})

describe("daemon", () => {
  it.live("none, something that is no socket, and something that does not answer", () =>
    Effect.gen(function*() {
      const path = yield* folder
      expect(yield* Checks.daemon(join(path, "s"))).toMatchObject({ running: false, check: is("ok", "none runs") })
      Fs.writeFileSync(join(path, "file"), "")
      expect(yield* Checks.daemon(join(path, "file"))).toMatchObject({ running: false, check: is("problem", "no socket") })
      yield* listening(join(path, "mute"))
      expect(yield* Checks.daemon(join(path, "mute"))).toMatchObject({ running: true, check: is("problem", "does not say how it is") })
    }).pipe(Effect.scoped))
})

describe("store and lock", () => {
  it("say what every state means", () => {
    const check = (state: State) => Checks.store("f.db", { lock: "free", state })
    const ready = { _tag: "Ready", format: newest, position: 1234, recordedAt: 1, altered: [] } as const
    expect(check({ _tag: "Absent" })).toMatchObject(is("ok", "does not exist yet"))
    expect(check({ _tag: "Empty" })).toMatchObject(is("ok", "is empty"))
    expect(check({ _tag: "Unreadable", problem: "why" })).toMatchObject(is("problem", "f.db cannot be read: why"))
    expect(check({ _tag: "Foreign" })).toMatchObject(is("problem", "another program"))
    expect(check({ _tag: "ReadOnly", file: "ksi.db.lock" })).toMatchObject(is("problem", "ksi.db.lock cannot be written"))
    expect(check({ _tag: "Newer", format: 9, known: 1 })).toMatchObject(is("problem", "format 9; this KSI knows formats up to 1"))
    expect(check(ready)).toMatchObject(is("ok", `format ${newest} and 1,234 facts`))
    expect(check({ ...ready, format: 2 })).toMatchObject({
      ...is("warning", `format 2 and 1,234 facts; ksi start brings it to format ${newest}`), mend: expect.stringContaining("f.db.format-2.bak")
    })
    expect(check({ ...ready, altered: ["a", "b"] })).toMatchObject(is("problem", "a, b are missing or altered"))
  })
  it("a lock is fine where the daemon that runs holds it", () => {
    const check = (lock: "free" | "held", running: boolean) => Checks.lock("f.db", { lock, state: { _tag: "Absent" } }, running)
    expect(check("free", false)).toMatchObject(is("ok", "nobody"))
    expect(check("held", true)).toMatchObject(is("ok", "held by the daemon"))
    expect(check("held", false)).toMatchObject(is("problem", "another process"))
    expect(check("free", true)).toMatchObject(is("warning", "nobody writes f.db"))
  })
  it("durability is said plainly", () => {
    expect(Checks.durability({ store: "sqlite", sync: "full" })).toMatchObject(is("ok", "survives a power cut"))
    expect(Checks.durability({ store: "sqlite", sync: "normal" })).toMatchObject(is("warning", "may be lost when the machine loses power, never when the process dies"))
    for (const [origin, mend] of [["--sync", "give --sync full"], ["ksi.toml:3", "change ksi.toml:3 to \"full\""], ["KSI_SYNC", "set KSI_SYNC to full"]] as const) {
      expect(Checks.durability({ store: "sqlite", sync: "normal" }, () => origin).mend).toBe(`${mend} to keep them`)
    }
    expect(Checks.durability({ store: "memory", sync: "full" })).toMatchObject(is("warning", "gone when the daemon ends"))
  })
})

describe("machine", () => {
  it("space", () => {
    const MiB = 1024 ** 2
    expect([5000, 1024, 1023, 64, 63, 0].map((free) => Checks.space("/", free * MiB).status)).toEqual([
      "ok", "ok", "warning", "warning", "problem", "problem"
    ])
  })
  it.live("of a directory that is still to be made, that of the one above", () =>
    Effect.gen(function*() {
      expect((yield* Checks.disk("/nonexistent/a/ksi.db")).message).toMatch(/^[\d,]+ MiB are free at \/$/)
    }))
  it("clock", () => {
    const now = Date.UTC(2026, 0, 2)
    expect(Checks.clock(now, undefined)).toMatchObject(is("ok", "it is 2026-01-02T00:00:00.000Z"))
    expect([now - 1, now, now + 1, now + 60_000, now + 60_001].map((at) => Checks.clock(now, at).status)).toEqual([
      "ok", "ok", "warning", "warning", "problem"
    ])
    expect(Checks.clock(now, now + 86_400_000)).toMatchObject(is("problem", "the last fact was stored at 2026-01-03T00:00:00.000Z"))
    expect(Checks.clock(0, undefined)).toMatchObject(is("problem", "long before this KSI was made"))
  })
})

it("limits that contradict one another", () => {
  const { limits } = Config.defaults
  expect(Checks.limits(limits)).toMatchObject([is("ok", "no limit")])
  expect(Checks.limits({ ...limits, outgoingBytes: 1024 ** 2 })).toMatchObject([
    { ...is("problem", "frame_bytes (4 MiB) is more than outgoing_bytes (1 MiB)"), mend: "lower KSI_LIMIT_FRAME_BYTES or raise KSI_LIMIT_OUTGOING_BYTES" }
  ])
  expect(Checks.limits({ ...limits, outgoingBytes: 1024 ** 2, connectionBufferBytes: 2 * 1024 ** 2 })).toHaveLength(2)
  expect(Checks.limits({ ...limits, activityRows: 10 })).toMatchObject([is("warning", "activity_buffer (8192) is more than activity_rows (10)")])
})

it.live("what a backup or a restore has left is told, with how to be rid of it", () =>
  Effect.gen(function*() {
    const home = Fs.mkdtempSync(join(tmpdir(), "ksi-leftovers-"))
    const store = join(home, "ksi.db")
    expect(yield* Checks.leftovers(store)).toEqual([])
    for (const end of ["", "-wal", ".lock", ".part-0badcafe", ".before-restore-2026-01-02T030405Z", ".before-restore-2026-01-02T030405Z-wal", ".party"]) Fs.writeFileSync(`${store}${end}`, "")
    const found = yield* Checks.leftovers(store)
    expect(found.map(({ check, mend, status }) => [check, status, mend])).toEqual([
      ["leftovers", "warning", `rm ${store}.before-restore-2026-01-02T030405Z* when the restored one is good`],
      ["leftovers", "warning", `rm ${store}.part-0badcafe where none is under way`]
    ])
    Fs.rmSync(home, { recursive: true })
    expect(yield* Checks.leftovers(store)).toEqual([])
  }))
