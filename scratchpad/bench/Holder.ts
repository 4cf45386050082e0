/**
 * Many connections that are open and idle, in a process of their own.
 *
 * `Holder.ts <unix|http|websocket> <path or port> <count>` opens them, each with one question that is answered, says "open", and
 * at every line of its stdin asks on each once more and says on how many that was answered. It ends with its stdin.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process"
import { once } from "node:events"
import * as Net from "node:net"
import type { Readable, Writable } from "node:stream"

/** What a connection speaks. */
export type Kind = "unix" | "http" | "websocket"

// Opened at once: fewer than a listener keeps waiting.
const atOnce = 200

/** Of a message whose mask is nothing: the rules ask for one. */
const framed = (opcode: number, text: string): Buffer => Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | text.length, 0, 0, 0, 0]), Buffer.from(text)])

const hello = "{\"event\":\"wire:hello\",\"version\":1}"
const pingByte = 0x89
const pong = framed(0xa, "")

const questions: { readonly [K in Kind]: (host: string) => string | Buffer } = {
  unix: () => `${hello}\n`,
  http: (host) => `GET /health/live HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
  websocket: () => framed(1, hello)
}

const upgrade = (host: string): string =>
  `GET /ws HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`

const heard = (socket: Net.Socket, said: string | Buffer): Promise<boolean> =>
  new Promise((resolve) => {
    if (socket.closed || !socket.writable) return resolve(false)
    const data = (chunk: Buffer) => {
      if (chunk[0] === pingByte) return
      socket.off("close", closed)
      socket.off("data", data)
      resolve(!chunk.toString("latin1").startsWith("HTTP/1.1 5"))
    }
    const closed = () => resolve(false)
    socket.on("data", data).on("close", closed).write(said)
  })

const hold = async (kind: Kind, place: string, count: number): Promise<void> => {
  const host = `127.0.0.1:${place}`
  const question = questions[kind](host)
  const sockets: Array<Net.Socket> = []
  const open = async () => {
    const socket = kind === "unix" ? Net.connect(place) : Net.connect(Number(place), "127.0.0.1")
    sockets.push(socket)
    socket.on("error", () => socket.destroy())
    await once(socket, "connect")
    socket.on("data", (chunk: Buffer) => {
      if (kind === "websocket" && chunk[0] === pingByte) socket.write(pong)
    })
    if (kind === "websocket" && !await heard(socket, upgrade(host))) throw new Error("no WebSocket was opened")
    if (!await heard(socket, question)) throw new Error(`connection ${sockets.length} was not answered`)
  }
  for (let n = 0; n < count; n += atOnce) await Promise.all(Array.from({ length: Math.min(atOnce, count - n) }, open))
  process.stdout.write("open\n")
  process.stdin.on("data", async () => {
    let answered = 0
    for (let n = 0; n < sockets.length; n += atOnce) {
      const some = await Promise.all(sockets.slice(n, n + atOnce).map((socket) => heard(socket, question)))
      answered += some.filter(Boolean).length
    }
    process.stdout.write(`${answered}\n`)
  }).on("end", () => process.exit())
}

// This file is also the program.
const [, program, kind, place = "", count] = process.argv
if (program === import.meta.filename) await hold(kind as Kind, place, Number(count)) // the only caller is below

/** Connections that are held. */
export interface Held {
  /** Asks on each of them; on how many that was answered. */
  readonly alive: () => Promise<number>
  readonly close: () => Promise<void>
}

const firstLine = async (child: ChildProcessByStdio<Writable, Readable, null>): Promise<string> => {
  const [chunk] = await Promise.race([
    once(child.stdout, "data"),
    once(child, "exit").then(() => {
      throw new Error("the holder of connections ended")
    })
  ])
  return String(chunk).trim()
}

/** Opens so many connections in a process of their own; answers when all are open. */
export const start = async (kind: Kind, place: string, count: number): Promise<Held> => {
  const args = ["--disable-warning=ExperimentalWarning", import.meta.filename, kind, place, String(count)]
  const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] })
  await firstLine(child)
  return {
    alive: async () => {
      child.stdin.write("?\n")
      return Number(await firstLine(child))
    },
    close: async () => {
      child.stdin.end()
      await once(child, "exit")
    }
  }
}
