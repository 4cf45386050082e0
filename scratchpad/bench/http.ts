/**
 * `http/post`: requests over HTTP, sixteen keep-alive connections with one in flight each, the client in one process and each
 * server in another; `http/post-1` on one connection; `http/post-audit-off` the first without the activity journal. `http/post-cpu` is the processor time that a
 * server spends on one of these, which says the same on a machine that has other work too.
 *
 * `ksi` is the daemon as users start it: SQLite, the journal at its default, a module of the user's. `bare` is `node:http`
 * that parses the body, checks nothing and answers with the very same headers, byte for byte as long; `effect` the
 * same over effect's `NodeHttpServer`, with one route.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import * as NodeHttp from "node:http"
import type { AddressInfo } from "node:net"
import * as Path from "node:path"
import { Asker, path } from "./Asker.ts"
import type { Amount, Bench, Gauge, Subject } from "./Bench.ts"
import * as Daemon from "./Daemon.ts"
import * as Process from "./Process.ts"

// ------------------------------------------------------------------------------------------------------------ servers

const idleMillis = 60_000

const headersOf = (text: string): ReadonlyArray<string> => [
  "content-type", "application/json",
  "content-length", String(Buffer.byteLength(text)),
  "cache-control", "no-store",
  "x-content-type-options", "nosniff",
  "x-correlation-id", "01a204ca-b9fe-7000-8000-c7d2756bf695"
]

const answerOf = ({ quantity, sku }: { readonly quantity: number; readonly sku: string }): string =>
  JSON.stringify({ holdId: "hold-1", sku, quantity })

const serveBare = (): void => {
  const server = NodeHttp.createServer({ keepAliveTimeout: idleMillis }, (request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => {
      const text = answerOf(JSON.parse(Buffer.concat(chunks).toString("utf8")))
      response.writeHead(200, [...headersOf(text)])
      response.end(text)
    })
  })
  server.listen(0, "127.0.0.1", () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`))
}

const serveEffect = (): void => {
  const server = NodeHttp.createServer({ keepAliveTimeout: idleMillis })
  const echo = Effect.gen(function*() {
    const request = yield* HttpServerRequest.HttpServerRequest
    // What the client posts.
    const text = answerOf((yield* request.json) as { readonly quantity: number; readonly sku: string })
    const [, , , , ...pairs] = headersOf(text)
    const headers = Object.fromEntries(Array.from({ length: pairs.length / 2 }, (_, n) => [pairs[2 * n], pairs[2 * n + 1]]))
    return HttpServerResponse.text(text, { contentType: "application/json", headers })
  })
  const main = HttpRouter.serve(HttpRouter.add("POST", path, echo), { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provide(NodeHttpServer.layer(() => server, { port: 0, host: "127.0.0.1" }))
  )
  server.on("listening", () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`))
  Effect.runFork(Layer.launch(main))
}

// This file is also the program that its servers run.
const [, program, kind] = process.argv
if (program === import.meta.filename) {
  if (kind === "bare") serveBare()
  else serveEffect()
}

interface Server {
  readonly port: number
  readonly pid: number | undefined
  readonly stop: () => Promise<void>
}

const start = async (name: string): Promise<Server> => {
  const child: ChildProcess = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", import.meta.filename, name], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  const [line] = child.stdout === null ? [] : await once(child.stdout, "data")
  const stop = async () => {
    child.kill()
    await once(child, "exit")
  }
  return { port: Number(line), pid: child.pid, stop }
}

const startKsi = async (bench: Bench, name: string, ...args: ReadonlyArray<string>): Promise<Server> => {
  const daemon = await Daemon.start(Path.join(bench.folder, name), ...args, Path.join(import.meta.dirname, "Hold.ts"))
  return { port: Number(new URL(daemon.url).port), pid: daemon.process.pid, stop: daemon.stop }
}

// --------------------------------------------------------------------------------------------------------------- runs

const connect = (port: number, count: number): Promise<ReadonlyArray<Asker>> =>
  Promise.all(Array.from({ length: count }, () => Asker.http(port)))

/** Keeps every connection busy; what they did together. */
const together = (connections: ReadonlyArray<Asker>) => async (millis: number) => {
  const amounts = await Promise.all(connections.map((connection) => connection.drive(millis)))
  return { count: amounts.reduce((sum, { count }) => sum + count, 0), millis: Math.max(...amounts.map(({ millis }) => millis)) }
}

const many = 16

/** Microseconds of processor time that a server spends on one request. */
const processorTime = async ({ pid }: Server, drive: (millis: number) => Promise<Amount>): Promise<number> => {
  const before = Process.cpuSeconds(pid)
  const { count } = await drive(1000)
  return (Process.cpuSeconds(pid) - before) * 1e6 / count
}

export const run = async (bench: Bench): Promise<void> => {
  const servers = new Map<string, Server>()
  const open = new Map<string, ReadonlyArray<Asker>>()
  try {
    servers.set("ksi", await startKsi(bench, "all"))
    servers.set("ksi-audit-off", await startKsi(bench, "off", "--audit", "off"))
    for (const name of ["bare", "effect"]) servers.set(name, await start(name))
    for (const [name, { port }] of servers) open.set(name, await connect(port, many))
    const lengths = new Map([...open].map(([name, [first]]) => [name, first?.answerLength]))
    if (lengths.get("ksi") !== lengths.get("bare")) throw new Error(`answers differ in length: ${JSON.stringify([...lengths])}`)
    const subject = (name: string, count: number, from = name): Subject => ({ name, run: together(open.get(from)?.slice(0, count) ?? []) })
    const compare = (id: string, count: number, from?: string) =>
      bench.compare({
        case: id, metric: "throughput", unit: "requests/s",
        subjects: [subject("ksi", count, from), subject("bare", count), subject("effect", count)]
      })
    await compare("post", many)
    await compare("post-1", 1)
    await compare("post-audit-off", many, "ksi-audit-off")
    const gauge = (name: string): Gauge => ({
      name,
      run: () => {
        const server = servers.get(name)
        if (server === undefined) throw new Error(`${name} is not running`)
        return processorTime(server, together(open.get(name) ?? []))
      }
    })
    await bench.measure({
      case: "post-cpu", metric: "processor time", unit: "us a request",
      subjects: [gauge("ksi"), gauge("ksi-audit-off"), gauge("bare"), gauge("effect")]
    })
  } finally {
    for (const connections of open.values()) for (const connection of connections) connection.close()
    for (const { stop } of servers.values()) await stop()
  }
}
