// What once brought a daemon down: it must answer, refuse or close, and go on. A real daemon, a real socket.
import { afterAll, beforeEach, describe, expect, it } from "@effect/vitest"
import { once } from "node:events"
import * as Fs from "node:fs"
import { connect, type Socket } from "node:net"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { Home, root, type Running } from "./Daemon.ts"

interface Reply {
  readonly ok: boolean
  readonly correlation_id: unknown
  // The tests look into replies of many shapes.
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly data: any
}

const module = join(root, "test", "scenarios", "fixtures", "hostile.ts")
const nested = (depth: number, leaf = "") => `${"[".repeat(depth)}${leaf}${"]".repeat(depth)}`
const event = (fields: string) => `{"specversion":"1.0","id":"d","source":"/d","type":"d:d",${fields}}`
const importOf = (...events: ReadonlyArray<string>) => `{"event":"store:import","data":{"events":[${events.join(",")}]},"correlation_id":"x"}`

/** Sends lines over a connection of their own and waits for as many replies, or for its end. */
const ask = async (home: Home, ...lines: ReadonlyArray<string>): Promise<ReadonlyArray<Reply>> => {
  const socket = connect(home.socket)
  socket.on("error", () => {})
  await once(socket, "connect")
  socket.write(lines.map((line) => `${line}\n`).join(""))
  const replies: Array<Reply> = []
  for await (const line of createInterface({ input: socket })) {
    replies.push(JSON.parse(line) as Reply)
    if (replies.length === lines.length) break
  }
  socket.destroy()
  return replies
}

/** A connection that never reads. */
const deaf = async (home: Home, lines: string): Promise<Socket> => {
  const socket = connect(home.socket)
  socket.on("error", () => {})
  await once(socket, "connect")
  socket.pause()
  socket.write(lines)
  return socket
}

const health = async (home: Home) => (await ask(home, `{"event":"system:health"}`))[0]
const residentBytes = ({ child }: Running): number =>
  Number(/VmRSS:\s+(\d+)/.exec(Fs.readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1] ?? 0) * 1024

describe("a daemon bears", () => {
  let home: Home
  let daemon: Running
  let started = 0
  // One that came down is replaced, so that each case stands for itself.
  beforeEach(async () => {
    if (started > 0 && await health(home).catch(() => undefined) !== undefined) return
    if (started > 0) await home[Symbol.asyncDispose]()
    home = new Home()
    daemon = await home.start(module)
    started++
  })
  afterAll(() => home[Symbol.asyncDispose]())

  const deep = nested(100_000)
  const poison = nested(2200, "1e400")
  const cases: ReadonlyArray<readonly [what: string, line: string, reason: string]> = [
    ["a deep correlation id", `{"event":"system:health","correlation_id":${deep}}`, "LimitExceeded"],
    ["a deep correlation id without an event", `{"correlation_id":${deep}}`, "LimitExceeded"],
    ["deep data", `{"event":"hostile:echo","data":{"value":${deep}},"correlation_id":"x"}`, "LimitExceeded"],
    ["data that is deep itself", `{"event":"system:health","data":${deep},"correlation_id":"x"}`, "LimitExceeded"],
    ["a deep client id", `{"event":"system:health","_client_id":${deep},"correlation_id":"x"}`, "LimitExceeded"],
    ["a deep import", importOf(event(`"data":${deep}`)), "LimitExceeded"],
    ["a deep import with a number that needs care", importOf(event(`"data":${poison}`)), "LimitExceeded"],
    ["a deep time", importOf(event(`"time":${deep}`)), "LimitExceeded"],
    ["a deep attribute", importOf(event(`"foo":${deep}`)), "LimitExceeded"],
    ["a deep pattern", `{"event":"pubsub:subscribe","pattern":${deep},"subscription_id":"s"}`, "LimitExceeded"],
    ["a name of megabytes", `{"event":"system:${"a".repeat(4_000_000)}","correlation_id":"x"}`, "FrameInvalid"],
    ["a client id of megabytes", `{"event":"system:health","_client_id":"${"a".repeat(3_000_000)}"}`, "FrameInvalid"],
    ["a correlation id of megabytes", `{"event":"system:health","correlation_id":"${"a".repeat(3_000_000)}"}`, "FrameInvalid"],
    ["a million patterns that are none", `{"event":"monitor:subscribe","data":{"event_patterns":[${"1,".repeat(1_900_000)}1]}}`, "PayloadInvalid"],
    ["many patterns", `{"event":"monitor:subscribe","data":{"event_patterns":[${"\"a:b\",".repeat(600_000)}"a:b"]}}`, "PayloadInvalid"],
    ["an answer that contains itself", `{"event":"hostile:cycle"}`, "ReplyInvalid"],
    ["an answer that is no JSON", `{"event":"hostile:bigint"}`, "ReplyInvalid"]
  ]
  it.each(cases)("%s", async (_, line, reason) => {
    const [reply] = await ask(home, line)
    expect(reply).toMatchObject({ ok: false, data: { reason } })
    expect(JSON.stringify(reply).length).toBeLessThan(5000)
    expect(await health(home)).toMatchObject({ ok: true })
  })

  it("depth just within the limit, in every way of reading", async () => {
    const lines = [256, 255, 2].map((depth) => importOf(event(`"data":${nested(depth, "1e400")}`).replace("\"d\"", `"in-${depth}"`)))
    for (const line of [...lines, ...lines]) expect(await ask(home, line)).toMatchObject([{ ok: true, data: { rejections: [] } }])
    const texts = ["store:export", "monitor:get_events", "event_log:query"].map((name) => `{"event":"${name}","correlation_id":"x"}`)
    const ways = [...texts, `{"event":"store:read","data":{"stream":"/d"}}`, `{"event":"time:at","data":{"at":1000}}`]
    for (const way of ways) expect(await ask(home, way), way).toMatchObject([{ ok: true }])
    const [exported] = await ask(home, `{"event":"store:export"}`)
    expect(await ask(home, `{"event":"store:import","data":{"events":${JSON.stringify(exported?.data.items).replaceAll("null", "1e400")}}}`))
      .toMatchObject([{ ok: true, data: { imported: 0, duplicates: 3, rejections: [] } }])
  })

  it("facts said for a stream of KSI's", async () => {
    for (const id of ["ksi-evil", "ksi-\uffff\uffff"]) {
      expect(await ask(home, JSON.stringify({ event: "hostile:put", data: { id } }))).toMatchObject([{ ok: false, data: { reason: "PayloadInvalid" } }])
    }
    expect(await ask(home, JSON.stringify({ event: "hostile:put", data: { id: "zeta" } }))).toMatchObject([{ ok: true }])
  })

  it("clients that ask for gigabytes and never read them", async () => {
    const before = residentBytes(daemon)
    const line = `{"event":"hostile:big","data":{"n":3900000}}\n`
    const sockets = [await deaf(home, line.repeat(256)), await deaf(home, line.repeat(256))]
    const closed = sockets.map((socket) => once(socket.resume().pause(), "close"))
    // Each is closed as soon as too much waits; one that is paused learns of it when it reads again.
    await new Promise((resolve) => setTimeout(resolve, 1500))
    expect(await health(home)).toMatchObject({ ok: true })
    for (const socket of sockets) socket.resume()
    await Promise.all(closed)
    expect(daemon.stderr).toContain("a connection was closed that had not read")
    expect(residentBytes(daemon) - before).toBeLessThan(1024 * 1024 * 1024)
  })

  it("a flood of bad bytes that nobody reads the answers of", async () => {
    const before = residentBytes(daemon)
    const socket = await deaf(home, "")
    const chunk = Buffer.from("\u00ff\n".repeat(32_768), "latin1")
    for (let i = 0; i < 500; i++) socket.write(chunk)
    await new Promise((resolve) => setTimeout(resolve, 700))
    expect(await health(home)).toMatchObject({ ok: true })
    expect(residentBytes(daemon) - before).toBeLessThan(256 * 1024 * 1024)
    socket.destroy()
  })

  it("nothing of it ended it, and it ends when it is told", async () => {
    expect(started).toBe(1)
    expect((await daemon.kill("SIGTERM")).code).toBe(0)
  })
})

describe("a daemon with many clients whose long line does not end", () => {
  it("refuses the longest of them, serves everybody else, and takes what is ended after all", async () => {
    await using home = new Home()
    const max = 16 * 1024 * 1024
    const many = 80
    const daemon = await home.startIn({ env: { KSI_LIMIT_INCOMING_BYTES: "16 MiB" } }, "--store", "memory", module)
    const before = residentBytes(daemon)
    const long = `{"event":"hostile:echo","data":{"value":"${"x".repeat(3 * 1024 * 1024)}`
    const clients = await Promise.all(Array.from({ length: many }, async () => {
      const socket = connect(home.socket)
      await once(socket, "connect")
      let heard = ""
      socket.setEncoding("utf8").on("data", (text: string) => (heard += text))
      await new Promise((resolve) => socket.write(long, resolve))
      return { socket, heard: () => heard }
    }))
    expect(await health(home)).toMatchObject({ ok: true })
    // What came last may still be on its way through the socket; so may the answers.
    const answers = Promise.all(clients.map(async ({ heard, socket }) => {
      socket.write("\"}}\n{\"event\":\"hostile:echo\",\"data\":{\"value\":1}}\n")
      while (heard().split("\n").length < 3) await once(socket, "data")
      socket.destroy()
      return heard().trimEnd().split("\n").map((line) => JSON.parse(line) as Reply)
    }))
    const refused = (await answers).filter((replies) => {
      // In whatever order: each has an answer to both of its lines, and the short one is taken.
      expect(replies.filter(({ data }) => data.result === 1)).toHaveLength(1)
      const [other] = replies.filter(({ data }) => data.result !== 1)
      if (other?.ok === true) return false
      expect(other?.data).toMatchObject({ reason: "LimitExceeded", retryable: true, details: { limit: "incomingBytes", max } })
      return true
    })
    expect(refused.length).toBeGreaterThanOrEqual(many - max / (3 * 1024 * 1024))
    expect(refused.length).toBeLessThan(many)
    // All lines together are 240 MiB; what was let go is not collected at once.
    expect(residentBytes(daemon) - before).toBeLessThan(192 * 1024 * 1024)

    // The same with long requests that run: the room they take is not there for others that are long.
    const value = "x".repeat(3 * 1024 * 1024)
    const holder = connect(home.socket)
    await once(holder, "connect")
    for (let n = 0; n < 20; n++) holder.write(`${JSON.stringify({ event: "hostile:hold", data: { value }, correlation_id: n })}\n`)
    const told: Array<Reply> = []
    for await (const line of createInterface({ input: holder })) {
      told.push(JSON.parse(line) as Reply)
      if (told.length === 15) break
    }
    for (const { data } of told) expect(data).toMatchObject({ reason: "LimitExceeded", retryable: true, details: { limit: "incomingBytes" } })
    const echo = async () => (await ask(home, JSON.stringify({ event: "hostile:echo", data: { value } })))[0]
    expect(await echo()).toMatchObject({ ok: false, data: { reason: "LimitExceeded" } })
    expect(await ask(home, `{"event":"hostile:echo","data":{"value":2}}`)).toMatchObject([{ ok: true, data: { result: 2 } }])
    holder.destroy()
    // They end with their connection, which the daemon notices soon.
    while ((await echo())?.ok !== true) await health(home)
    expect((await daemon.kill("SIGTERM")).code).toBe(0)
  })
})

describe("a daemon whose handler cannot be interrupted", () => {
  it("waits for it when it is told to end, and no longer when it is told again", async () => {
    await using home = new Home()
    const daemon = await home.start("--store", "memory", module)
    const socket = await deaf(home, `{"event":"hostile:stubborn"}\n`)
    await health(home)
    daemon.child.kill("SIGTERM")
    daemon.child.kill("SIGINT")
    await new Promise((resolve) => setTimeout(resolve, 500))
    expect(daemon.child.exitCode).toBe(null)
    const started = performance.now()
    expect((await daemon.kill("SIGTERM")).code).toBe(143)
    expect(performance.now() - started).toBeLessThan(2000)
    socket.destroy()
  })
})

describe("a daemon that cannot listen", () => {
  it("says that a link leads nowhere, and that a path is too long before it makes a store", async () => {
    await using home = new Home()
    Fs.mkdirSync(join(home.path, "run"), { mode: 0o700 })
    Fs.symlinkSync("/nonexistent/x", home.socket)
    const dangling = await home.ksi("start", "--store", "memory")
    expect(dangling.code).not.toBe(0)
    expect(dangling.stderr).toContain("a symbolic link that leads nowhere")
    const long = join(home.path, "l".repeat(120))
    const tooLong = await home.ksi("start", "--home", long)
    expect(tooLong.code).not.toBe(0)
    expect(tooLong.stderr).toContain("a Unix socket's has at most 107")
    expect(Fs.existsSync(long)).toBe(false)
  })
})
