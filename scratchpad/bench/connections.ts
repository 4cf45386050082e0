/**
 * `connections/<unix|http|websocket>`: the median time of a call while 10,000 connections are open and idle, all that the limit
 * `connections` allows (1,000 with `--quick`), the caller's own among them, against the same daemon before they were opened; `-p99` the 99th
 * percentile. `-memory`: kilobytes that each of them holds in the daemon.
 *
 * The caller asks every two milliseconds. Every connection is opened for real, answered once before and once after; one more
 * than the limit must be refused in words, and one fewer must be served again.
 */
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { setTimeout as wait } from "node:timers/promises"
import { Asker, quantile } from "./Asker.ts"
import type { Bench } from "./Bench.ts"
import * as Daemon from "./Daemon.ts"
import * as Holder from "./Holder.ts"
import { residentMegabytes } from "./Process.ts"

const limit = 10_000
const quickly = 1000
// What the daemon needs open besides connections, with room to spare.
const reserve = 300

/** How many connections a process of this user may hold; node itself raises the soft limit to the hard one. */
const most = (): number => {
  const hard = /^Max open files\s+\d+\s+(\d+)/m.exec(Fs.readFileSync("/proc/self/limits", "utf8"))?.[1]
  return Math.min(limit, hard === undefined ? limit : Number(hard) - reserve)
}

interface Figures {
  readonly alone: ReadonlyArray<number>
  readonly among: ReadonlyArray<number>
  readonly kilobytes: number
}

/** What one connection more is told. */
const refusal = async (kind: Holder.Kind, { socket, url }: Daemon.Daemon): Promise<string> => {
  const one = kind === "unix" ? Net.connect(socket) : Net.connect(Number(new URL(url).port), "127.0.0.1")
  let text = ""
  one.setEncoding("utf8").on("data", (chunk: string) => (text += chunk)).on("error", () => {})
  await once(one, "close")
  return text
}

const settle = 1000
const every = 2

/** One turn with a daemon of its own. */
const turn = async (kind: Holder.Kind, count: number, millis: number, home: string): Promise<Figures> => {
  // Idle longer than the default minute: opening takes some of it.
  const flags = ["--limit-idle-millis", "10 minutes", "--limit-connections", String(count)]
  const daemon = await Daemon.start(home, ...flags, Path.join(import.meta.dirname, "Hold.ts"))
  const { port } = new URL(daemon.url)
  const ask = async () => kind === "unix" ? Asker.unix(daemon.socket) : Asker.http(Number(port))
  try {
    const caller = await ask()
    await caller.drive(millis)
    const alone = await caller.latencies(millis, every)
    const before = residentMegabytes(daemon.process.pid)
    const held = await Holder.start(kind, kind === "unix" ? daemon.socket : port, count - 1)
    await wait(settle)
    const kilobytes = (residentMegabytes(daemon.process.pid) - before) * 1024 / count
    const among = await caller.latencies(millis, every)
    const text = await refusal(kind, daemon)
    if (!text.includes("\"LimitExceeded\"")) throw new Error(`one connection too many was told ${JSON.stringify(text)}`)
    const alive = await held.alive()
    if (alive !== count - 1) throw new Error(`of ${count - 1} connections ${alive} were answered`)
    await held.close()
    await wait(settle)
    const again = await ask()
    again.close()
    caller.close()
    return { alone, among, kilobytes }
  } finally {
    await daemon.stop()
  }
}

export const run = async (bench: Bench): Promise<void> => {
  const room = most()
  const count = bench.quick ? Math.min(room, quickly) : room
  bench.say(`connections ${count} on each listener${room < limit ? ", for no more files may be open" : ""}`)
  for (const kind of ["unix", "http", "websocket"] as const) {
    const turns: Array<Promise<Figures>> = []
    // Each round is one turn, whichever figure of it is asked for first.
    const figure = (of: (figures: Figures) => number) => {
      let round = 0
      return async () => {
        const n = round++
        return of(await (turns[n] ??= turn(kind, count, bench.quick ? 500 : 3000, Path.join(bench.folder, `${kind}-${n}`))))
      }
    }
    for (const [id, q] of [[kind, 0.5], [`${kind}-p99`, 0.99]] as const) {
      await bench.measure({
        case: id, metric: "latency of a call", unit: "us",
        subjects: [{ name: "ksi", run: figure(({ among }) => quantile(among, q)) }, { name: "alone", run: figure(({ alone }) => quantile(alone, q)) }]
      })
    }
    await bench.measure({
      case: `${kind}-memory`, metric: "memory of a connection", unit: "KB", subjects: [{ name: "ksi", run: figure(({ kilobytes }) => kilobytes) }]
    })
  }
}
