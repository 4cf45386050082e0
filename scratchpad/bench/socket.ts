/**
 * Calls over a Unix socket, the client in one process and each server in another.
 *
 * `raw` is a line of JSON parsed, its data written back, one write a reply; `raw-coalesced` the same with one write a
 * chunk read. Neither checks, names, times nor remembers anything. At 64 in flight the client writes each request on its
 * own. `moleculer-tcp` is Moleculer's broker at both ends over TCP (MoleculerTcp.ts): its client, in a process of its own
 * too, does a broker's whole work, where the client of the others only counts lines. `python-1` and `python-32` are the same with a client in Python, where there is one.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { Ksi } from "../../src/Ksi.ts"
import * as System from "../../src/plugins/System.ts"
import * as Control from "../../src/wire/Control.ts"
import * as Listener from "../../src/wire/Listener.ts"
import type { Amount, Bench, Subject } from "./Bench.ts"
import * as Hold from "./Hold.ts"
import type { MoleculerTcp } from "./MoleculerTcp.ts"

// ------------------------------------------------------------------------------------------------------------ servers

const serveKsi = (path: string): void => {
  const Main = Layer.mergeAll(
    Hold.layer, System.layer, Control.layer, Listener.layerUnix({ path })
  ).pipe(Layer.provide(System.Shutdown.layer), Layer.provide(Ksi.layerMemory))
  const fiber = Effect.runFork(Layer.launch(Main))
  process.once("SIGINT", () => { fiber.interruptUnsafe(); setTimeout(() => process.exit(), 200) })
}

const serveRaw = (path: string, coalesced: boolean): void => {
  Net.createServer((socket) => {
    let rest = ""
    socket.on("error", () => socket.destroy())
    socket.on("data", (chunk) => {
      const lines = (rest + chunk.toString("utf8")).split("\n")
      rest = lines.pop() ?? ""
      let out = ""
      for (const line of lines) {
        const { correlation_id, data, event } = JSON.parse(line)
        const reply = `${JSON.stringify({ event, ok: true, data, correlation_id })}\n`
        if (coalesced) out += reply
        else socket.write(reply)
      }
      if (out !== "") socket.write(out)
    })
  }).listen(path)
}

const servers: Readonly<Record<string, (path: string) => void>> = {
  ksi: serveKsi,
  raw: (path) => serveRaw(path, false),
  "raw-coalesced": (path) => serveRaw(path, true)
}

// This file is also the program that its servers run.
const [, program, kind = "", place = ""] = process.argv
if (program === import.meta.filename) servers[kind]?.(place)

const start = async (name: string, folder: string): Promise<{ readonly path: string; readonly process: ChildProcess }> => {
  const path = Path.join(folder, name, "s")
  Fs.mkdirSync(Path.dirname(path), { mode: 0o700 })
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", import.meta.filename, name, path], { stdio: "inherit" })
  while (!Fs.existsSync(path)) {
    if (child.exitCode !== null) throw new Error(`the server ${name} ended`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return { path, process: child }
}

// ------------------------------------------------------------------------------------------------------------- client

const request = (n: number) =>
  `{"event":"bench:hold","data":{"sku":"tea","quantity":${n % 100},"customer":{"id":"customer-${n % 1000}","vip":true}},"correlation_id":"c${n}"}\n`

/** Keeps `inFlight` requests under way for `millis`, each in a write of its own. */
const drive = (socket: Net.Socket, inFlight: number, millis: number): Promise<Amount> =>
  new Promise((resolve) => {
    let sent = 0
    let answered = 0
    let stopping = false
    const startedAt = performance.now()
    const send = () => socket.write(request(sent++))
    const onData = (chunk: Buffer) => {
      let replies = 0
      for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) replies++
      answered += replies
      stopping ||= performance.now() - startedAt > millis
      if (!stopping) { for (; replies > 0; replies--) send() }
      else if (answered === sent) {
        socket.off("data", onData)
        resolve({ count: answered, millis: performance.now() - startedAt })
      }
    }
    socket.on("data", onData)
    for (let i = 0; i < inFlight; i++) send()
  })

const connected = (path: string): Promise<Net.Socket> =>
  new Promise((resolve, reject) => {
    const socket = Net.connect(path, () => resolve(socket))
    socket.once("error", reject)
  })

const checked = async (socket: Net.Socket, name: string): Promise<void> => {
  const line = await new Promise<string>((resolve) => {
    socket.once("data", (chunk) => resolve(String(chunk)))
    socket.write(request(7))
  })
  const { correlation_id, data, ok } = JSON.parse(line)
  if (ok !== true || correlation_id !== "c7" || data.sku !== "tea") throw new Error(`${name} answered ${line}`)
}

/** The same from Python; `undefined` where there is none. */
const python = (path: string, inFlight: number): ((millis: number) => Amount) | undefined => {
  const script = Path.join(import.meta.dirname, "client.py")
  if (spawnSync("python3", ["--version"]).status !== 0) return undefined
  return (millis) => {
    const { status, stderr, stdout } = spawnSync("python3", [script, path, String(inFlight), String(millis)], { encoding: "utf8" })
    if (status !== 0) throw new Error(`the client in Python failed: ${stderr}`)
    return JSON.parse(stdout)
  }
}

// --------------------------------------------------------------------------------------------------------------- runs

const names = ["ksi", "raw", "raw-coalesced"] as const

/** `socket/sequential`, `socket/64`, and the same from Python. */
export const run = async (bench: Bench): Promise<void> => {
  const started = new Map<string, Awaited<ReturnType<typeof start>>>()
  const sockets = new Map<string, Net.Socket>()
  let moleculer: MoleculerTcp | undefined
  try {
    // Not for the servers, which this file is too.
    const peer = moleculer = await (await import("./MoleculerTcp.ts")).start()
    for (const name of names) {
      const server = await start(name, bench.folder)
      started.set(name, server)
      const socket = await connected(server.path)
      sockets.set(name, socket)
      await checked(socket, name)
    }
    const subject = (name: string, inFlight: number): Subject => ({
      name,
      run: (millis) => {
        const socket = sockets.get(name)
        if (socket === undefined) throw new Error(`${name} is not connected`)
        return drive(socket, inFlight, millis)
      }
    })
    const all = (inFlight: number) => [
      subject("ksi", inFlight),
      subject("raw", inFlight),
      subject("raw-coalesced", inFlight),
      { name: "moleculer-tcp", run: (millis: number) => peer.run(inFlight, millis) }
    ] as const
    await bench.compare({ case: "sequential", metric: "throughput", unit: "calls/s", subjects: [...all(1)] })
    await bench.compare({ case: "64", metric: "throughput", unit: "calls/s", subjects: [...all(64)] })
    for (const inFlight of [1, 32]) {
      const from = (name: string): Subject => {
        const call = python(started.get(name)?.path ?? "", inFlight)
        if (call === undefined) throw new Error("no python3")
        return { name, run: call }
      }
      if (python("", 1) === undefined) bench.say("python      there is no python3; its cases are left out")
      else await bench.compare({
        case: `python-${inFlight}`, metric: "throughput", unit: "calls/s", millis: 300, subjects: [from("ksi"), from("raw"), from("raw-coalesced")]
      })
    }
  } finally {
    moleculer?.stop()
    for (const socket of sockets.values()) socket.destroy()
    for (const { process: server } of started.values()) server.kill()
  }
}
