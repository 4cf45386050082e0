// The disk that a store is on: full, refusing, read-only, or no disk at all. Real file systems and a real daemon.
import { describe, expect, it } from "vitest"
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import * as Format2 from "../store/format2.ts"
import { type Ended, Home, root, type Running } from "./Daemon.ts"

const notes = join(root, "test/scenarios/fixtures/notes.ts")
const isRoot = process.getuid?.() === 0

// ---------------------------------------------------------------------------------------------------- what there is

const skipped = (what: string, why: string) => {
  process.stdout.write(`${what} is not tested: ${why}\n`)
  return false
}

/** A small file system at a path. */
class Disk implements Disposable {
  readonly path: string

  constructor(path: string, megabytes: number) {
    this.path = path
    const { status, stderr } = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${megabytes}m`, "tmpfs", path], { encoding: "utf8" })
    if (status !== 0) throw new Error(stderr)
  }

  /** Writes a file, as large as there is room for. */
  fill(name: string, megabytes: number): void {
    const file = Fs.openSync(join(this.path, name), "w")
    try {
      for (let i = 0; i < megabytes * 256; i++) Fs.writeSync(file, Buffer.alloc(4096))
    } catch {
      // It is full.
    } finally {
      Fs.closeSync(file)
    }
  }

  /** Leaves so much room. */
  fillBut(megabytes: number): void {
    const { bavail, bsize } = Fs.statfsSync(this.path)
    this.fill("ballast", bavail * bsize / 1024 ** 2 - megabytes)
  }

  [Symbol.dispose](): void {
    // What is still open goes with whoever has it open.
    spawnSync("umount", ["-l", this.path])
  }
}

const canMount = (() => {
  const place = Fs.mkdtempSync(join(tmpdir(), "ksi-disk-"))
  try {
    new Disk(place, 1)[Symbol.dispose]()
    return true
  } catch {
    return skipped("a full disk", "no file system can be mounted here")
  } finally {
    Fs.rmdirSync(place)
  }
})()

const canLimit = spawnSync("prlimit", ["--version"]).status === 0 || skipped("a disk that refuses to write", "there is no prlimit here")

// Root may write everywhere: then another user tries, who must be able to read what is run.
const mayEnter = (path: string): boolean => path === "/" || ((Fs.statSync(path).mode & 0o001) !== 0 && mayEnter(dirname(path)))
const canBeNobody = !isRoot || (mayEnter(root) && mayEnter(process.execPath)) ||
  skipped("a home that is read-only", "this is root, and nobody else may read this checkout")
const nobody = isRoot ? { uid: 65_534 } : {}

// ------------------------------------------------------------------------------------------------------- the stories

interface Item {
  readonly position: number
  readonly data: { readonly n: number }
}

interface Reply {
  readonly ok: boolean
  readonly data: { readonly position?: number; readonly error?: string; readonly reason?: string; readonly retryable?: boolean; readonly result?: unknown; readonly cursor?: string; readonly items?: ReadonlyArray<Item> }
}

const text = "x".repeat(20_000)
const ask = async (home: Home, ...requests: ReadonlyArray<object>): Promise<ReadonlyArray<Reply>> =>
  // The wire's replies have this shape.
  await home.frames(...requests) as unknown as ReadonlyArray<Reply>
const note = (n: number) => ({ event: "note:noted", data: { n, text } })

const logged = ({ stderr }: Running): ReadonlyArray<string> =>
  stderr.trimEnd().split("\n").map((line) => {
    const { message } = JSON.parse(line) as { readonly message: string | ReadonlyArray<string> }
    return typeof message === "string" ? message : message[0] ?? ""
  })

/** What is in the store: position and `n` of each fact, page by page. */
const stored = async (home: Home) => {
  const all: Array<readonly [number, number]> = []
  let cursor: string | undefined
  do {
    const [reply] = await ask(home, { event: "store:export", data: cursor === undefined ? {} : { cursor } })
    expect(reply).toMatchObject({ ok: true })
    for (const { data, position } of reply?.data.items ?? []) all.push([position, data.n])
    cursor = reply?.data.cursor
  } while (cursor !== undefined)
  return all
}

/** Emits until the store refuses `refusals` times; answers with what was acknowledged, as `stored` would tell it. */
const emitUntilRefused = async (home: Home, from: number, refusals: number, why: string) => {
  const acknowledged: Array<readonly [number, number]> = []
  for (let n = from, refused = 0; refused < refusals; n++) {
    const [reply] = await ask(home, note(n))
    if (reply?.ok === true) acknowledged.push([reply.data.position ?? 0, n])
    else {
      refused++
      expect(reply?.data).toMatchObject({ reason: "StoreFailure", retryable: true, error: expect.stringContaining(why) })
    }
    expect(n).toBeLessThan(from + 1000)
  }
  return acknowledged
}

/** Requests go on, reads go on, and what is written behind is given up without growing. */
const servesAllTheSame = async (home: Home) => {
  const count = { event: "note:count", data: { text } }
  for (let i = 0; i < 5; i++) {
    const replies = await ask(home, ...Array.from({ length: 100 }, () => count))
    expect(replies.filter(({ data }) => data.result === text.length)).toHaveLength(100)
  }
  const reads = [{ event: "store:read", data: { stream: "notes", limit: 1 } }, { event: "time:at", data: { at: 1 } }, { event: "monitor:get_events" }, { event: "system:health" }]
  for (const reply of await ask(home, ...reads)) expect(reply).toMatchObject({ ok: true })
}

/** A store that refuses, and does not any more. */
const story = async (home: Home, daemon: Running, why: string, meanwhile: () => Promise<void>, makeRoom: () => void) => {
  const before = await emitUntilRefused(home, 1, 3, why)
  expect(before.length).toBeGreaterThan(2)
  await meanwhile()
  const once = { ...note(5000), idempotency_key: "k" }
  expect((await ask(home, once))[0]).toMatchObject({ ok: false, data: { reason: "StoreFailure" } })
  await servesAllTheSame(home)
  expect(await stored(home)).toEqual(before)

  makeRoom()
  const after: Array<readonly [number, number]> = []
  for (const request of [note(6000), once, once, note(6001)]) {
    const [reply] = await ask(home, request)
    expect(reply).toMatchObject({ ok: true })
    after.push([reply?.data.position ?? 0, request.data.n])
  }
  const [first, again, same, last] = after
  expect(same).toEqual(again)
  const all = [...before, first, again, last]
  expect(all.map((each) => each?.[0])).toEqual(all.map((_, i) => i + 1))
  expect(await stored(home)).toEqual(all)
  expect((await ask(home, { event: "monitor:get_events" }))[0]).toMatchObject({ ok: true })
  const told = logged(daemon)
  expect(told.filter((line) => line === "facts are not stored")).toHaveLength(1)
  expect(told.filter((line) => line === "facts are stored again")).toHaveLength(1)
  return all
}

describe("a disk that is full", () => {
  it.runIf(canMount)("refuses facts with a reason, answers everything else, and goes on when there is room", async () => {
    await using home = new Home()
    using disk = new Disk(home.path, 4)
    disk.fill("ballast", 2)
    const daemon = await home.start(notes)
    const meanwhile = async () => {
      const human = await home.ksi("emit", "note:noted", "n=0", `text=${text}`)
      expect([human.code, human.stdout]).toEqual([5, ""])
      expect(human.stderr).toBe("✗ StoreFailure  the store failed to append: database or disk is full\n  next       ksi doctor\n")
    }
    const all = await story(home, daemon, "database or disk is full", meanwhile, () => Fs.rmSync(join(disk.path, "ballast")))
    // Killed or not, it is all there.
    await daemon.kill("SIGKILL")
    await home.start(notes)
    expect(await stored(home)).toEqual(all)
  })

  it.runIf(canLimit)("as one that fails to write for another reason", async () => {
    await using home = new Home()
    const daemon = await home.startIn({ under: ["sh", "-c", "trap '' XFSZ; ulimit -S -f 900; exec \"$@\"", "sh"] }, notes)
    await story(home, daemon, "disk I/O error", async () => {}, () => {
      expect(spawnSync("prlimit", ["--pid", String(daemon.child.pid), "--fsize=unlimited:"]).status).toBe(0)
    })
  })

  it.runIf(canMount)("is told at the start, and lets a daemon start as soon as there is room", async () => {
    await using home = new Home()
    using disk = new Disk(home.path, 1)
    disk.fill("ballast", 2)
    const refused = await home.ksi("start", "--json")
    expect([refused.code, refused.stdout]).toEqual([5, ""])
    const { error } = JSON.parse(refused.stderr) as { readonly error: { readonly reason: string; readonly message: string } }
    expect(error).toMatchObject({ reason: "StoreFailure", message: expect.stringMatching(/ksi\.db.*disk is full/) })
    Fs.rmSync(join(disk.path, "ballast"))
    await (await home.start()).kill("SIGTERM")
  })
})

describe("a disk without room for a copy", () => {
  it.runIf(canMount)("has no backup, says so, and the daemon goes on", async () => {
    await using home = new Home()
    using disk = new Disk(home.path, 12)
    const daemon = await home.start(notes)
    for (let n = 0; n < 60; n++) await ask(home, note(n))
    disk.fillBut(1)
    const backup = await home.ksi("backup", join(disk.path, "b.db"))
    expect([backup.code, backup.stdout]).toEqual([5, ""])
    expect(backup.stderr).toMatch(/^✗ StoreFailure {2}the store failed to back up: \d+ MiB are needed at .*, and \d+ MiB are free\n/)
    expect(Fs.readdirSync(disk.path).filter((name) => !name.startsWith("ksi.db")).toSorted()).toEqual(["ballast", "run"])
    expect((await ask(home, note(61)))[0]).toMatchObject({ ok: true })
    Fs.rmSync(join(disk.path, "ballast"))
    expect((await home.ksi("backup", join(disk.path, "b.db"))).code).toBe(0)
    await daemon.kill("SIGTERM")
  })

  it.runIf(canMount)("keeps a store in its older format, and says so", async () => {
    await using home = new Home()
    using disk = new Disk(home.path, 2)
    Format2.make(join(disk.path, "ksi.db"), 5000)
    // Enough to open it.
    disk.fillBut(0.3)
    const before = Fs.readFileSync(join(disk.path, "ksi.db"))
    const refused = await home.ksi("start")
    expect([refused.code, refused.stdout]).toEqual([5, ""])
    expect(refused.stderr).toMatch(/StoreFailure {2}the store failed to back .*ksi\.db up before it is brought from format 2 to 3: \d+ MiB are needed/)
    expect(Fs.readFileSync(join(disk.path, "ksi.db"))).toEqual(before)
    Fs.rmSync(join(disk.path, "ballast"))
    await home.start()
    expect(Fs.existsSync(join(disk.path, "ksi.db.format-2.bak"))).toBe(true)
    expect((await home.ksi("streams")).stdout.trimEnd().split("\n")).toHaveLength(10)
  })

  it.runIf(canMount)("or that cannot be written: a backup on it is verified and restored from there", async () => {
    await using home = new Home()
    const place = join(home.path, "medium")
    Fs.mkdirSync(place)
    using disk = new Disk(place, 4)
    Format2.make(join(home.path, "ksi.db"), 100)
    expect((await home.ksi("backup", join(disk.path, "b.db"))).code).toBe(0)
    expect(spawnSync("mount", ["-o", "remount,ro", place]).status).toBe(0)
    expect(await home.ksi("verify", join(disk.path, "b.db"))).toMatchObject({ code: 0, stdout: expect.stringContaining("is sound: format 2, 100 facts") })
    expect(await home.ksi("restore", join(disk.path, "b.db"))).toMatchObject({ code: 0, stdout: expect.stringContaining("restored everything up to position 100") })
    expect(await home.ksi("backup", join(disk.path, "c.db"))).toMatchObject({ code: 5, stderr: expect.stringContaining("✗ StoreFailure") })
  })
})

describe("a home that cannot be one", () => {
  const refused = ({ code, stderr, stdout }: Ended, ...why: ReadonlyArray<string>) => {
    expect([code, stdout]).toEqual([5, ""])
    expect(stderr).toMatch(/^✗ (StoreFailure|ListenFailed) {2}/)
    for (const each of why) expect(stderr).toContain(each)
    expect(stderr.split("\n")).toHaveLength(3)
  }

  it("is a file, or below one", async () => {
    await using home = new Home()
    const file = join(home.path, "file")
    Fs.writeFileSync(file, "not a home")
    refused(await home.ksi("start", "--home", file), `${file} cannot be made a directory`, "EEXIST")
    refused(await home.ksi("start", "--home", join(file, "below")), `${file}/below cannot be made a directory`, "ENOTDIR")
    refused(await home.ksi("start", "--home", file, "--store", "memory"), `${file}/run`, "ENOTDIR")
    expect(Fs.readFileSync(file, "utf8")).toBe("not a home")
    expect(Fs.readdirSync(home.path)).toEqual(["file"])
  })

  it("is made with all above it where there is none", async () => {
    await using home = new Home()
    const deep = join(home.path, "a", "b")
    const daemon = home.spawn("start", "--home", deep)
    await daemon.says("ksi is ready")
    expect((await daemon.kill("SIGTERM")).code).toBe(0)
    expect(Fs.readdirSync(deep).toSorted()).toEqual(["ksi.db", "ksi.db.lock", "run"])
  })

  it.runIf(canBeNobody)("may not be written", async () => {
    await using home = new Home()
    const closed = join(home.path, "closed")
    Fs.mkdirSync(closed, { mode: 0o555 })
    Fs.chmodSync(home.path, 0o755)
    const start = (...args: ReadonlyArray<string>) => home.spawnIn(nobody, "start", ...args).ended()
    refused(await start("--home", closed), `${closed}/ksi.db cannot be opened`, "EACCES")
    refused(await start("--home", closed, "--store", "memory"), `${closed}/run`, "EACCES")
    expect(Fs.readdirSync(closed)).toEqual([])
  })

  it.runIf(canBeNobody)("has a store that may be read only, or a lock that may", async () => {
    await using home = new Home()
    await (await home.start()).kill("SIGTERM")
    const before = Fs.readdirSync(home.path).toSorted()
    for (const each of isRoot ? [".", ...before] : []) Fs.chownSync(join(home.path, each), 65_534, 65_534)
    for (const [name, command] of [["ksi.db", "start"], ["ksi.db.lock", "start"], ["ksi.db.lock", "doctor"]] as const) {
      const file = join(home.path, name)
      Fs.chmodSync(file, 0o444)
      const ended = await home.spawnIn(nobody, command).ended()
      if (command === "start") refused(ended, `${file} cannot be written`, "EACCES")
      else expect([ended.code, ended.stdout]).toEqual([7, expect.stringMatching(new RegExp(`✗ store +${file} cannot be written\n`))])
      expect(Fs.readdirSync(home.path).toSorted()).toEqual(before)
      Fs.chmodSync(file, 0o644)
    }
  })
})
