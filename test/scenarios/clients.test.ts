// Clients that know nothing of KSI, beside a real daemon: curl, netcat, Python, and node's own WebSocket and EventSource. Where the
// README says what to type, that is what is typed.
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { Home, root } from "./Daemon.ts"

const readme = readFileSync(join(root, "README.md"), "utf8")
const modules = ["scratchpad/examples/05_service.ts", "test/scenarios/fixtures/streams.ts", "test/scenarios/fixtures/stock.ts"]
const home = new Home()
let url = ""

/** What a program says of itself; `undefined`, and told so, where there is none that knows what is needed. */
const here = (program: string, flag: string, needed = ""): string | undefined => {
  const { error, stderr, stdout } = spawnSync(program, [flag], { encoding: "utf8" })
  const said = `${stdout}${stderr}`
  if (error === undefined && said.includes(needed)) return said
  console.info(`clients: ${error === undefined ? `${program} does not know ${needed}` : `${program} is not here (${error.message})`}: what needs it is not tried`)
  return undefined
}
const curl = here("curl", "--version")
const netcat = here("nc", "-h", "-U")
const python = here("python3", "--version", "Python 3")

/** A program of somebody else's, and what it says line by line. */
class Foreign implements Disposable {
  readonly child: ChildProcess
  text = ""
  private ended = false

  constructor(command: string, args: ReadonlyArray<string>) {
    this.child = spawn(command, args, { cwd: root, stdio: ["pipe", "pipe", "inherit"] })
    this.child.stdout?.setEncoding("utf8").on("data", (text: string) => (this.text += text))
    this.child.on("close", () => (this.ended = true))
  }

  /** As it is typed. */
  static typed(line: string): Foreign {
    return new Foreign("sh", ["-c", `exec ${line}`])
  }

  get lines(): ReadonlyArray<string> {
    return this.text.split("\n").slice(0, -1)
  }

  // Anything may be in them.
  // oxlint-disable-next-line typescript/no-explicit-any
  get frames(): ReadonlyArray<any> {
    return this.lines.map((line) => JSON.parse(line))
  }

  send(...lines: ReadonlyArray<string | object>): void {
    for (const line of lines) this.child.stdin?.write(`${typeof line === "string" ? line : JSON.stringify(line)}\n`)
  }

  async until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      if (this.ended) throw new Error(`it ended: ${this.text}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  async end(): Promise<number | null> {
    if (!this.ended) await once(this.child, "close")
    return this.child.exitCode
  }

  [Symbol.dispose](): void {
    this.child.kill("SIGKILL")
  }
}

const post = async (event: string, data: object = {}): Promise<unknown> => {
  const answer = await fetch(`${url}/events/${event}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(data) })
  expect(answer.status).toBe(200)
  return answer.json()
}
const order = (sku: string) => post("shop:order", { sku, quantity: 1 })
const orders = async (...skus: ReadonlyArray<string>) => {
  for (const sku of skus) await order(sku)
}

/** Waits until it is so. */
const comes = async (holds: () => Promise<boolean>) => {
  while (!await holds()) await new Promise((resolve) => setTimeout(resolve, 10))
}
/** Waits until so many `tick:endless` are running. */
const runningIs = (count: number) => comes(async () => await post("tick:running") === count)
const subscriptionsAre = (count: number) => comes(async () => expect.objectContaining({ subscriptions: count }).asymmetricMatch(await post("system:health")))

const startDaemon = async (port = "0") => {
  const daemon = await home.start("--port", port, ...modules)
  url = /http:\/\/[\d.:]+/.exec(daemon.stdout)?.[0] ?? expect.fail(`no URL in ${daemon.stdout}`)
  return daemon
}
let daemon: Awaited<ReturnType<typeof startDaemon>>
/** Another daemon at the same place, in the same home. */
const again = async (signal: NodeJS.Signals) => {
  await daemon.kill(signal)
  daemon = await startDaemon(new URL(url).port)
}

beforeAll(async () => {
  daemon = await startDaemon()
})
afterAll(() => home[Symbol.asyncDispose]())

/** The lines that the README has from this one on, to the end of their block; here is where it says. */
const shown = (beginning: string): string => {
  const at = readme.indexOf(`\n${beginning}`)
  if (at < 0) throw new Error(`the README has no ${beginning}`)
  return readme.slice(at + 1, readme.indexOf("\n```", at)).replaceAll("localhost:4600", new URL(url).host).replaceAll("var/run/daemon.sock", home.socket)
}
/** A command of the README, and what it says comes of it. */
const command = (beginning: string): { readonly typed: string; readonly said: string } => {
  const [first = "", ...said] = shown(beginning).split("\n")
  return { typed: first.replace(/^\$ /, ""), said: said.join("\n") }
}

describe.runIf(curl !== undefined)("curl", () => {
  it("follows as the README says, and its end ends the subscription", async () => {
    await orders("tea", "rum")
    const { typed } = command("curl -sN 'localhost:4600/subscribe")
    using following = Foreign.typed(typed)
    await following.until(() => following.text.includes("\"sku\":\"rum\""))
    await order("ale")
    await following.until(() => following.text.includes("\"sku\":\"ale\""))
    const facts = following.lines.filter((line) => line.startsWith("data: ")).map((line) => JSON.parse(line.slice("data: ".length)))
    expect(facts.map(({ data, event, version }) => [event, data.sku, version])).toEqual([["shop:ordered", "tea", 1], ["shop:ordered", "rum", 1], ["shop:ordered", "ale", 1]])
    expect(following.lines.filter((line) => line.startsWith("id: ")).map((line) => Number(line.slice("id: ".length)))).toEqual([0, ...facts.map(({ position }) => position)])
    await subscriptionsAre(1)
    following.child.kill("SIGINT")
    await subscriptionsAre(0)
  })

  it("takes a stream as events, and one that fails as lines, as the README says", async () => {
    const events = command("$ curl -sN localhost:4600/events/stock:watch -d '{\"sku\":\"tea\"}'")
    using tea = Foreign.typed(events.typed)
    expect([await tea.end(), tea.text]).toEqual([0, `${events.said}\n\n`])
    const lines = command("$ curl -sN localhost:4600/events/stock:watch -d '{\"sku\":\"gold\"}'")
    using gold = Foreign.typed(lines.typed)
    const plain = (text: string) => text.replace(/"correlationId":"[^"]+"/, "\"correlationId\":\"…\"")
    expect([await gold.end(), plain(gold.text)]).toEqual([0, `${plain(lines.said)}\n`])
  })

  it("that is stopped stops what is made for it", async () => {
    using endless = new Foreign("curl", ["-sN", "--limit-rate", "1k", `${url}/events/tick:endless`, "-d", "{}", "-H", "Content-Type: application/json", "-H", "Accept: text/event-stream"])
    await runningIs(1)
    endless.child.kill("SIGINT")
    await endless.end()
    await runningIs(0)
  })
})

describe.runIf(netcat !== undefined)("netcat", () => {
  it("asks as the README says", async () => {
    const { typed } = command("$ echo '{\"event\":\"shop:order\"")
    // One that does not know the flag needs none.
    const asked = spawnSync("sh", ["-c", netcat?.includes("-N") === true ? typed : typed.replace(" -N", "")], { encoding: "utf8" })
    expect(JSON.parse(asked.stdout)).toMatchObject({ event: "shop:order", ok: true, data: { order: expect.stringMatching(/^tea-\d+$/) } })
  })

  it("takes a stream as the README says: as much of it as it grants", async () => {
    const dialogue = shown("{\"event\":\"stock:watch\",\"stream\":true").split("\n")
    using nc = new Foreign("nc", ["-U", home.socket])
    const expected: Array<object> = []
    const heard = async () => {
      await nc.until(() => nc.lines.length >= expected.length)
      expect(nc.frames).toEqual(expected)
    }
    for (const line of dialogue) {
      const frame = JSON.parse(line)
      if (frame.stream !== true && frame.event !== "stream:credit") expected.push({ ...frame, ..."timestamp" in frame ? { timestamp: expect.any(Number) } : {} })
      else {
        // What is granted next comes after what was granted before, and nothing comes meanwhile.
        await heard()
        nc.send(line)
      }
    }
    await heard()
    expect(expected).toHaveLength(3)
  })

  it("is sent no more than it grants, and cancels as the README says", async () => {
    const cancel = /`(\{"event":"stream:cancel","stream_id":"w1"\})`/.exec(readme)?.[1] ?? expect.fail("the README cancels nothing")
    using nc = new Foreign("nc", ["-U", home.socket])
    nc.send({ event: "tick:endless", stream: true, stream_id: "w1", credit: { items: 3 } }, { event: "tick:running", correlation_id: 1 })
    await nc.until(() => nc.frames.some(({ correlation_id }) => correlation_id === 1) && nc.lines.length >= 4)
    const items = () => nc.frames.filter(({ data, stream_id }) => stream_id === "w1" && data !== undefined).map(({ data }) => data)
    expect(items()).toEqual([1, 2, 3])
    nc.send({ event: "stream:credit", stream_id: "w1", items: 2 })
    await nc.until(() => items().length >= 5)
    nc.send(cancel)
    await nc.until(() => nc.frames.some(({ event }) => event === "stream:cancel"))
    // It was answered when the finalizers had run.
    nc.send({ event: "tick:running", correlation_id: 2 })
    await nc.until(() => nc.frames.some(({ correlation_id }) => correlation_id === 2))
    expect(nc.frames.find(({ correlation_id }) => correlation_id === 2)).toMatchObject({ ok: true, data: { result: 0 } })
    expect(items()).toEqual([1, 2, 3, 4, 5])
    expect(nc.frames.find(({ event }) => event === "stream:cancel")).toMatchObject({ ok: true })
    expect(nc.frames.find(({ stream_end }) => stream_end === true)).toMatchObject({ seq: 5, ok: false, error: { reason: "Interrupted", cause: "interrupt" } })
  })
})

describe.runIf(python !== undefined)("Python, with its own library", () => {
  const run = (...args: ReadonlyArray<string>) => new Foreign("python3", ["scratchpad/examples/client.py", home.socket, ...args])

  it("asks, takes a stream to its end, and leaves one that has none, whose handler ends", async () => {
    using asked = run("call", "shop:order", "{\"sku\": \"gin\", \"quantity\": 1}")
    expect([await asked.end(), asked.frames[0]]).toMatchObject([0, { ok: true, data: { order: expect.stringMatching(/^gin-/) } }])
    using all = run("stream", "tick:count", "{\"to\": 7}", "100")
    expect([await all.end(), all.frames.map(({ n }) => n)]).toEqual([0, [1, 2, 3, 4, 5, 6, 7]])
    using some = run("stream", "tick:endless", "{}", "5")
    expect([await some.end(), some.frames]).toEqual([0, [1, 2, 3, 4, 5]])
    await runningIs(0)
  })

  it("follows on where it was when the daemon died, without a gap and without a repeat", async () => {
    using following = run("follow", "shop:*", "1", "1000000")
    await orders("p1", "p2")
    await following.until(() => following.text.includes("\"p2\""))
    await again("SIGKILL")
    await orders("p3", "p4")
    await following.until(() => following.text.includes("\"p4\""))
    const positions = following.frames.map(({ position }) => position)
    expect(positions).toEqual(positions.map((_, n) => n + 1))
  })
})

describe("node's own WebSocket", () => {
  /** As a browser has it. */
  const open = async () => {
    // Anything may be in them.
    // oxlint-disable-next-line typescript/no-explicit-any
    const frames: Array<any> = []
    const socket = new WebSocket(`${url.replace("http", "ws")}/ws`)
    socket.addEventListener("message", ({ data }) => frames.push(JSON.parse(String(data))))
    await once(socket, "open")
    const send = (frame: object) => socket.send(JSON.stringify(frame))
    const until = async (holds: () => boolean) => {
      while (!holds()) await once(socket, "message")
    }
    return { frames, send, until, [Symbol.dispose]: () => socket.close() }
  }

  it("calls, takes what it grants of a stream and cancels it, and follows", async () => {
    using client = await open()
    const { frames, send, until } = client
    send({ event: "pubsub:subscribe", pattern: "shop:*", subscription_id: "f", from: "now", correlation_id: "f" })
    send({ event: "tick:endless", stream: true, stream_id: "s", credit: { items: 2 } })
    const items = () => frames.filter(({ data, stream_id }) => stream_id === "s" && data !== undefined).map(({ data }) => data as number)
    await until(() => items().length === 2 && frames.some(({ correlation_id }) => correlation_id === "f"))
    // A stream that waits holds up nothing else.
    send({ event: "shop:order", data: { sku: "ws", quantity: 1 }, correlation_id: "c" })
    await until(() => frames.some(({ correlation_id }) => correlation_id === "c") && frames.some(({ subscription_id, position }) => subscription_id === "f" && position !== undefined))
    expect(frames.find(({ correlation_id }) => correlation_id === "c")).toMatchObject({ ok: true, data: { order: "ws-1" } })
    expect(frames.find(({ position }) => position !== undefined)).toMatchObject({ event: "shop:ordered", data: { sku: "ws" }, version: 1 })
    expect(items()).toEqual([1, 2])
    send({ event: "stream:credit", stream_id: "s", items: 3 })
    await until(() => items().length === 5)
    send({ event: "stream:cancel", stream_id: "s", correlation_id: "x" })
    await until(() => frames.some(({ correlation_id }) => correlation_id === "x"))
    send({ event: "tick:running", correlation_id: "r" })
    await until(() => frames.some(({ correlation_id }) => correlation_id === "r"))
    expect(frames.find(({ correlation_id }) => correlation_id === "r")).toMatchObject({ data: { result: 0 } })
    expect(items()).toEqual([1, 2, 3, 4, 5])
  })
})

describe("node's own EventSource", () => {
  it("follows on by itself when the daemon has stopped, and when it has died, without a gap and without a repeat", async () => {
    await order("es0")
    // Between two connections it keeps no process alive.
    const script = `setInterval(() => {}, 1e6); const source = new EventSource(process.argv[1]); source.onopen = () => console.log('"open"'); source.onmessage = ({ data, lastEventId }) => console.log(JSON.stringify([lastEventId, JSON.parse(data).position]))`
    using source = new Foreign(process.execPath, ["--experimental-eventsource", "--disable-warning=ExperimentalWarning", "-e", script, `${url}/subscribe?pattern=shop:*&from=now`])
    const opened = () => source.frames.filter((frame) => frame === "open").length
    const heard = () => source.frames.filter((frame): frame is [string, number] => Array.isArray(frame))
    await source.until(() => opened() === 1)
    await orders("es1", "es2")
    await source.until(() => heard().length === 2)
    const [[, first] = ["", 0]] = heard()
    for (const [at, signal] of (["SIGTERM", "SIGKILL"] as const).entries()) {
      await again(signal)
      // What happened while it was not there.
      await orders(`es${3 + 2 * at}`, `es${4 + 2 * at}`)
      await source.until(() => heard().length >= 4 + 2 * at)
    }
    await order("es7")
    await source.until(() => heard().length >= 7)
    expect(heard()).toEqual(Array.from({ length: 7 }, (_, n) => [String(first + n), first + n]))
    expect(opened()).toBe(3)
  })
})
