/**
 * A bad neighbour, in a process of its own: the same hostile thing again and again, so many times a second, or as fast as it is answered.
 *
 * `Flooder.ts <attack> <path or port> <a second>` says how often it was done, at every line of its stdin, and ends with it.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Net from "node:net"
import { posted } from "./Asker.ts"

// More than a frame or a body may have.
const tooLong = "x".repeat(5 * 1024 * 1024)
// Under way at once.
const connections = 16
const slow = 1000

/** One hostile thing, and its end. */
type Once = () => Promise<void>

const connected = async (place: string): Promise<Net.Socket> => {
  const socket = /^\d+$/.test(place) ? Net.connect(Number(place), "127.0.0.1") : Net.connect(place)
  socket.on("error", () => socket.destroy())
  await once(socket, "connect")
  return socket
}

const ended = async (socket: Net.Socket): Promise<void> => {
  if (!socket.closed) await once(socket, "close")
}

/** Says something on one of a few connections and waits for the answer; one that was closed is opened again. */
const saying = (place: string, texts: () => ReadonlyArray<string>): Once => {
  interface Line {
    readonly socket: Net.Socket
    done: () => void
  }
  const free: Array<Line> = []
  const fresh = async (): Promise<Line> => {
    const line: Line = { socket: await connected(place), done: () => {} }
    line.socket.on("data", () => line.done()).on("close", () => line.done())
    return line
  }
  return async () => {
    const kept = free.pop()
    const line = kept === undefined || kept.socket.closed ? await fresh() : kept
    const answered = new Promise<void>((resolve) => (line.done = resolve))
    // What is answered early is said to its end all the same.
    const said = texts().map((text) => new Promise<void>((resolve) => void line.socket.write(text, () => resolve())))
    await Promise.all([answered, ...said])
    if (!line.socket.closed) free.push(line)
  }
}

/** Connects and is gone. */
const coming = (place: string): Once => async () => {
  const socket = await connected(place)
  socket.destroy()
  await ended(socket)
}

/** Keeps a thousand connections that never finish what they say; once is one byte. */
const dripping = (place: string, beginning: string): Once => {
  const open: Array<Net.Socket | undefined> = Array.from({ length: slow })
  let next = 0
  return async () => {
    const at = next++ % slow
    const socket = open[at]
    if (socket !== undefined && !socket.closed) return void socket.write("x")
    const fresh = open[at] = await connected(place)
    fresh.resume()
    fresh.write(beginning)
  }
}

let turn = 0
const attacks = {
  "token-http": (port: string) => saying(port, () => [posted(Number(port), `Authorization: Bearer ksi_no_${turn++}\r\n`)]),
  "token-unix": (path: string) => saying(path, () => [`{"event":"wire:hello","version":1,"token":"ksi_no_${turn++}"}\n`]),
  "long-http": (port: string) =>
    saying(port, () => [
      posted(Number(port), "Transfer-Encoding: chunked\r\n", "").replace("Content-Length: 0\r\n", ""),
      `${tooLong.length.toString(16)}\r\n`, tooLong, "\r\n0\r\n\r\n"
    ]),
  "long-unix": (path: string) => saying(path, () => [tooLong, "\n"]),
  "connect-http": coming,
  "connect-unix": coming,
  "slow-http": (port: string) => dripping(port, `POST /events/bench:hold HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nX-Slow: `),
  "slow-unix": (path: string) => dripping(path, "{\"event\":\"")
} satisfies Record<string, (place: string) => Once>

/** What it does. */
export type Attack = keyof typeof attacks | "burn"

/** All that reach the daemon. */
export const all = Object.keys(attacks) as ReadonlyArray<keyof typeof attacks> // its own keys

const tickMillis = 4

const flood = (one: Once, rate: number): () => number => {
  let done = 0
  let running = 0
  let due = 0
  let last = performance.now()
  const begin = (): void => {
    running++
    one().then(() => done++, () => {}).finally(() => {
      running--
      if (rate === Infinity) begin()
    })
  }
  if (rate === Infinity) for (let n = 0; n < connections; n++) begin()
  else {
    setInterval(() => {
      const now = performance.now()
      // What could not be done in time is left out: the rate is never more than was asked for.
      due = Math.min(due + (now - last) * rate / 1000, rate / 10 + 1)
      last = now
      for (; due >= 1 && running < connections; due--) begin()
    }, tickMillis)
  }
  return () => done
}

/** Does nothing but compute, with a look at its stdin now and then. */
const burn = (): number => {
  const end = performance.now() + 10
  while (performance.now() < end);
  setImmediate(burn)
  return 0
}

// This file is also the program.
const [, program, attack = "", place = "", rate] = process.argv
if (program === import.meta.filename) {
  // The only caller is below.
  const count = attack === "burn" ? burn : flood(attacks[attack as keyof typeof attacks](place), Number(rate))
  if (attack === "burn") burn()
  process.stdin.on("data", () => process.stdout.write(`${count()}\n`)).on("end", () => process.exit())
}

/** A flood under way. */
export interface Flood {
  readonly pid: number | undefined
  /** How often it was done so far. */
  readonly count: () => Promise<number>
  readonly stop: () => Promise<void>
}

/** Begins a flood; `rate` is a second, and may be `Infinity`. */
export const start = (attack: Attack, place: string, rate: number): Flood => {
  const args = ["--disable-warning=ExperimentalWarning", import.meta.filename, attack, place, String(rate)]
  const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] })
  return {
    pid: child.pid,
    count: async () => {
      child.stdin.write("?\n")
      const [text] = await once(child.stdout, "data")
      return Number(text)
    },
    stop: async () => {
      child.stdin.end()
      await once(child, "exit")
    }
  }
}
