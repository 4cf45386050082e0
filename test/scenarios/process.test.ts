// What may happen to a daemon that is left running: signals, clocks that are set, exceptions that nobody catches, readers
// that go away, a second daemon. Each with a real process; what is acknowledged is never lost.
import { describe, expect, it } from "vitest"
import { spawnSync } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { DatabaseSync } from "node:sqlite"
import { pathToFileURL } from "node:url"
import { Home, root, type Running } from "./Daemon.ts"

const fixture = (name: string) => join(root, "test", "scenarios", "fixtures", `${name}.ts`)
const notes = fixture("notes")
const note = (n: number) => ({ event: "note:noted", data: { n, text: "" }, correlation_id: n })
const slow = (millis: number) => ({ event: "note:slow", data: { millis } })

interface Reply {
  readonly ok: boolean
  readonly correlation_id: unknown
  readonly data: Readonly<Record<string, unknown>>
}

const ask = async (home: Home, ...requests: ReadonlyArray<object>): Promise<ReadonlyArray<Reply>> =>
  // The wire's replies have this shape.
  await home.frames(...requests) as unknown as ReadonlyArray<Reply>

/** A connection that tells what it hears. */
const talk = async (home: Home) => {
  const socket = connect(home.socket)
  socket.on("error", () => {})
  await once(socket, "connect")
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]()
  return {
    send: (request: object) => void socket.write(`${JSON.stringify(request)}\n`),
    /** The next reply; `undefined` where the connection has ended. */
    hear: async (): Promise<Reply | undefined> => {
      // A process that is killed ends its connections otherwise than one that stops.
      const { done, value } = await lines.next().catch(() => ({ done: true, value: "" }))
      return done === true ? undefined : JSON.parse(value) as Reply
    }
  }
}

/** Why one cannot connect; `undefined` where one can. */
const refusal = (home: Home): Promise<unknown> =>
  new Promise((resolve) => {
    const socket = connect(home.socket, () => {
      socket.destroy()
      resolve(undefined)
    })
    socket.on("error", (error) => resolve(Reflect.get(error, "code")))
  })

interface Stored {
  readonly id: string
  readonly position: number
  readonly data: { readonly n: number }
}

/** Everything that is stored, page by page. */
const stored = async (home: Home): Promise<ReadonlyArray<Stored>> => {
  const all: Array<Stored> = []
  let cursor: unknown
  do {
    const [reply] = await ask(home, { event: "store:export", data: cursor === undefined ? {} : { cursor } })
    // Facts of `note:noted`, as they are exported.
    all.push(...reply?.data["items"] as ReadonlyArray<Stored>)
    cursor = reply?.data["cursor"]
  } while (cursor !== undefined)
  return all
}

const pause = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))

describe("a signal", () => {
  it.for(["SIGTERM", "SIGINT"] as const)("%s: nobody may come in, who is in is answered, exit 0", async (signal) => {
    await using home = new Home()
    const daemon = await home.start(notes)
    const inside = await talk(home)
    inside.send(slow(700))
    await daemon.tells("slow began")
    daemon.child.kill(signal)
    await daemon.tells("\"stopping\"")
    // Node takes the socket away as soon as nobody may come in.
    while (await refusal(home) !== "ENOENT") await pause(5)
    expect(daemon.child.exitCode).toBe(null)
    expect(await inside.hear()).toMatchObject({ ok: true, data: { result: 700 } })
    expect(await inside.hear()).toBeUndefined()
    expect(await daemon.ended()).toMatchObject({ code: 0 })
    expect(daemon.stderr.indexOf("notes closed")).toBeGreaterThan(daemon.stderr.indexOf("\"stopping\""))
    expect(Fs.existsSync(home.socket)).toBe(false)
  })

  it.for([["SIGTERM", "SIGINT", 130], ["SIGINT", "SIGTERM", 143]] as const)("%s and then %s: it ends now, and what was acknowledged is there", async ([first, second, code]) => {
    await using home = new Home()
    const daemon = await home.start(notes)
    const inside = await talk(home)
    inside.send(slow(60_000))
    await daemon.tells("slow began")
    expect((await ask(home, ...[1, 2, 3].map(note))).map(({ ok }) => ok)).toEqual([true, true, true])
    daemon.child.kill(first)
    await daemon.tells("\"stopping\"")
    // What comes together is one signal.
    await pause(300)
    const at = performance.now()
    expect(await daemon.kill(second)).toMatchObject({ code })
    expect(performance.now() - at).toBeLessThan(1000)
    const next = await home.start(notes)
    expect((await stored(home)).map(({ data, position }) => [position, data.n])).toEqual([[1, 1], [2, 2], [3, 3]])
    expect((await next.kill("SIGTERM")).code).toBe(0)
  })

  it("SIGKILL in the middle of a hundred conversations: every acknowledged fact is where it was said to be", async () => {
    await using home = new Home()
    const daemon = await home.start(notes)
    const acknowledged = new Map<number, number>()
    const conversation = async (first: number) => {
      const { hear, send } = await talk(home)
      for (let n = first;; n += 100) {
        send(note(n))
        const reply = await hear()
        if (reply === undefined) return
        expect(reply).toMatchObject({ ok: true, correlation_id: n })
        acknowledged.set(Number(reply.data["position"]), n)
        if (acknowledged.size === 1000) daemon.child.kill("SIGKILL")
      }
    }
    await Promise.all(Array.from({ length: 100 }, (_, first) => conversation(first)))
    expect((await daemon.ended()).code).toBeUndefined()
    // Its socket is still there, and nobody behind it.
    expect(await refusal(home)).toBe("ECONNREFUSED")
    await home.start(notes)
    const facts = await stored(home)
    expect(facts.map(({ position }) => position)).toEqual(facts.map((_, i) => i + 1))
    expect(new Set(facts.map(({ id }) => id)).size).toBe(facts.length)
    for (const [position, n] of acknowledged) expect(facts[position - 1]?.data.n).toBe(n)
  })

  const namespaces = ["--fork", "--pid", "--mount-proc"]
  const canBeFirst = spawnSync("unshare", [...namespaces, "true"]).status === 0
  if (!canBeFirst) process.stdout.write("process number 1 is not tested: no namespace of its own can be had here\n")
  it.runIf(canBeFirst)("reaches it where it is process number 1, as in a container", async () => {
    await using home = new Home()
    const daemon = await home.startIn({ under: ["unshare", ...namespaces] }, notes)
    expect((await ask(home, { event: "system:health" }))[0]).toMatchObject({ data: { pid: 1 } })
    const { pid } = daemon.child
    const first = Number(Fs.readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8"))
    process.kill(first, "SIGTERM")
    expect((await daemon.ended()).code).toBe(0)
    expect(Fs.existsSync(home.socket)).toBe(false)
  })
})

describe("two daemons", () => {
  it("one home has one: the other one says whose it is, exit 5, and the first one does not notice", async () => {
    await using home = new Home()
    const daemon = await home.start(notes)
    const inside = await talk(home)
    const before = Fs.readdirSync(home.path, { recursive: true }).toSorted()
    // The kernel tells on Linux only.
    const who = Fs.existsSync("/proc/locks") ? `process ${daemon.child.pid}` : "another process"
    const locked = `✗ StoreLocked  ${who} is writing ${home.path}/ksi.db\n  next       ksi stop, or start with another --home\n`
    const taken = `✗ ListenFailed  cannot listen at ${home.socket}: a daemon listens there already\n  next       ksi status, or ksi stop\n`
    const others = await Promise.all([[], ["--socket", join(home.path, "other", "s")], ["--store", "memory"]].map((args) => home.ksi("start", ...args)))
    expect(others).toEqual([locked, locked, taken].map((stderr) => ({ code: 5, stdout: "", stderr })))
    expect(Fs.readdirSync(home.path, { recursive: true }).toSorted()).toEqual(before)
    inside.send(note(1))
    expect(await inside.hear()).toMatchObject({ ok: true, data: { position: 1 } })
    expect((await daemon.kill("SIGTERM")).code).toBe(0)
  })

  it("that start at once: one of them serves, whichever", async () => {
    await using home = new Home()
    const starting = Array.from({ length: 3 }, () => home.spawn("start", notes))
    const ready = starting.map((each) => each.says("ksi is ready").then(() => true, () => false))
    expect((await Promise.all(ready)).filter((each) => each)).toHaveLength(1)
    for (const each of starting) {
      if (each.child.exitCode !== null) expect(await each.ended()).toMatchObject({ code: 5, stderr: expect.stringContaining("✗ StoreLocked") })
    }
    expect((await ask(home, note(1)))[0]).toMatchObject({ ok: true })
  })
})

describe("an exception that nobody caught", () => {
  it.for([["note:throw", "thrown in a timer"], ["note:reject", "rejected, and nobody waits"]] as const)("%s: the daemon says where, finishes what it has begun, exit 70", async ([event, why]) => {
    await using home = new Home()
    const daemon = await home.start(notes)
    const inside = await talk(home)
    inside.send(note(1))
    expect(await inside.hear()).toMatchObject({ ok: true })
    inside.send(slow(300))
    await daemon.tells("slow began")
    await ask(home, { event })
    expect(await inside.hear()).toMatchObject({ ok: true, data: { result: 300 } })
    const { code, stderr } = await daemon.ended()
    expect(code).toBe(70)
    const [told] = stderr.split("\n").filter((line) => line.includes("\"FATAL\"")).map((line) => JSON.parse(line) as { readonly message: string; readonly cause: string })
    expect(told).toMatchObject({ message: "nobody caught an exception", cause: expect.stringContaining(why) })
    expect(told?.cause).toContain("fixtures/notes.ts")
    expect(stderr).toContain("notes closed")
    expect(stderr).toMatch(new RegExp(`✗ Defect  nobody caught an exception: ${why}\n  next +look for it in the log above\n$`))
    expect(Fs.existsSync(home.socket)).toBe(false)
  })

  it("is said with --json in one line, also where nothing is logged", async () => {
    await using home = new Home()
    const daemon = home.spawn("start", "--json", "--log-level", "none", "--store", "memory", notes)
    await daemon.says("\"socket\"")
    await ask(home, { event: "note:throw" })
    const { code, stderr } = await daemon.ended()
    expect(code).toBe(70)
    expect(JSON.parse(stderr)).toMatchObject({ error: { reason: "Defect", message: "nobody caught an exception: thrown in a timer", retryable: false } })
  })
})

describe("nobody reads what it says", () => {
  const serves = async (home: Home, daemon: Running) => {
    while (await refusal(home) !== undefined) await pause(20)
    for (let i = 0; i < 2; i++) expect((await ask(home, slow(1)))[0]).toMatchObject({ ok: true })
    expect((await daemon.kill("SIGTERM")).code).toBe(0)
    expect(Fs.existsSync(home.socket)).toBe(false)
  }

  it("pipes that are closed", async () => {
    await using home = new Home()
    const daemon = home.spawn("start", notes)
    daemon.child.stdout?.destroy()
    daemon.child.stderr?.destroy()
    await serves(home, daemon)
  })

  it.runIf(Fs.existsSync("/dev/full"))("a disk that is full", async () => {
    await using home = new Home()
    const daemon = home.spawnIn({ under: ["sh", "-c", "exec \"$@\" >/dev/full 2>/dev/full", "sh"] }, "start", notes)
    await serves(home, daemon)
  })
})

describe("a clock that is set", () => {
  it("forward and back: nothing ends before its time, ids and positions go on, time travel goes by what facts say", async () => {
    await using home = new Home()
    const wall = join(home.path, "wall")
    const hour = 60 * 60 * 1000
    const set = (millis: number) => {
      // Renamed: it is read at any moment.
      Fs.writeFileSync(`${wall}.new`, String(millis))
      Fs.renameSync(`${wall}.new`, wall)
    }
    const circumstances = { env: { WALL_FILE: wall }, node: ["--import", pathToFileURL(fixture("wall")).href] }
    set(0)
    const daemon = await home.startIn(circumstances, notes)
    const began = Date.now()
    const inside = await talk(home)
    const ids: Array<string> = []
    const positions: Array<unknown> = []
    const say = async (n: number) => {
      const [reply] = await ask(home, note(n))
      ids.push(String(reply?.data["event_id"]))
      positions.push(reply?.data["position"])
    }
    let n = 0
    for (const shift of [0, hour, -hour, 0]) {
      // Its deadline is far, and stays far however the clock is set.
      inside.send({ ...slow(150), deadline_ms: 5000 })
      set(shift)
      for (let i = 0; i < 3; i++) await say(++n)
      expect(await inside.hear()).toMatchObject({ ok: true, data: { result: 150 } })
      // One whose deadline is near ends near it.
      const at = performance.now()
      expect((await ask(home, { ...slow(60_000), deadline_ms: 100 }))[0]).toMatchObject({ ok: false, data: { reason: "DeadlineExceeded" } })
      expect(performance.now() - at).toBeGreaterThanOrEqual(99)
      expect(performance.now() - at).toBeLessThan(3000)
      const [health] = await ask(home, { event: "system:health" })
      expect(health).toMatchObject({ ok: true })
      expect(Number(health?.data["uptime"])).toBeGreaterThan(0)
      expect(Number(health?.data["uptime"])).toBeLessThan(60)
    }
    expect(ids.toSorted()).toEqual(ids)
    expect(new Set(ids).size).toBe(n)
    expect(positions).toEqual(Array.from({ length: n }, (_, i) => i + 1))

    // Half an hour before the beginning only what was said while the clock was behind had happened.
    const at = async (instant: number, recorded: boolean) => {
      const data = { at: new Date(instant).toISOString(), stream: "notes", recorded }
      const [reply] = await ask(home, { event: "time:at", data })
      const items = reply?.data["items"] as ReadonlyArray<{ readonly state: { readonly n: number } }> | undefined
      return items?.[0]?.state.n
    }
    expect(await at(began - hour / 2, false)).toBe(9)
    expect(await at(began + hour / 2, false)).toBe(12)
    // What came after the leap was recorded no earlier than the leap.
    expect(await at(began + hour / 2, true)).toBe(3)

    // Another start, an hour behind.
    await daemon.kill("SIGTERM")
    set(-hour)
    const next = await home.startIn(circumstances, notes)
    await say(++n)
    expect(positions.at(-1)).toBe(n)
    expect(new Set(ids).size).toBe(n)
    expect((await next.kill("SIGTERM")).code).toBe(0)
    const db = new DatabaseSync(join(home.path, "ksi.db"), { readOnly: true })
    const recorded = db.prepare("SELECT recorded FROM events ORDER BY position").all().map((row) => Number(row["recorded"]))
    db.close()
    expect(recorded).toHaveLength(n)
    expect(recorded.toSorted((a, b) => a - b)).toEqual(recorded)
  })
})
