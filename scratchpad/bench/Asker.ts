/** Connections that ask one thing after the other, over HTTP or the Unix socket, with as little of their own as a client can have. */
import { once } from "node:events"
import * as Net from "node:net"
import type { Amount } from "./Bench.ts"

/** What is asked for: the request of Hold.ts. */
const data = JSON.stringify({ sku: "tea", quantity: 12, customer: { id: "customer-12", vip: true } })
const held = /"holdId":"hold-1","sku":"tea","quantity":12/

/** Where it is over HTTP. */
export const path = "/events/bench:hold"

/** A whole request over HTTP. */
export const posted = (port: number, headers = "", body = data): string =>
  `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: application/json\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body}`

/** The same as a line of the socket. */
export const line = `{"event":"bench:hold","data":${data}}\n`

/** Where an answer ends in a text, which may have only its beginning. */
const endOfAnswer = (text: string): number => {
  const head = text.indexOf("\r\n\r\n")
  if (head < 0) return Infinity
  return head + 4 + Number(/content-length: (\d+)/i.exec(text)?.[1] ?? Number.NaN)
}

const endOfLine = (text: string): number => text.endsWith("\n") ? text.length : Infinity

/** One connection, one request in flight. */
export class Asker {
  private readonly socket: Net.Socket
  private readonly request: string
  private text = ""
  private expected = 0
  private answered: (answer: string) => void = () => {}
  private lost: (cause: Error) => void = () => {}

  private constructor(socket: Net.Socket, request: string, endOf: (text: string) => number) {
    this.socket = socket
    this.request = request
    socket.setNoDelay(true)
    socket.on("close", () => this.lost(new Error("the connection was closed before it was answered")))
    socket.on("data", (chunk: Buffer) => {
      this.text += chunk.toString("latin1")
      // All answers over HTTP are of the length of the first, and are looked at no further.
      if (this.text.length < (this.expected || endOf(this.text))) return
      const { text } = this
      this.text = ""
      this.answered(text)
    })
  }

  private static async open(socket: Net.Socket, request: string, endOf: (text: string) => number): Promise<Asker> {
    await once(socket, "connect")
    const asker = new Asker(socket, request, endOf)
    const answer = await asker.ask()
    if (!held.test(answer)) throw new Error(`not answered as it should be: ${answer}`)
    return asker
  }

  /** Connects and asks once; throws where that is not answered with the hold. */
  static async http(port: number): Promise<Asker> {
    const asker = await Asker.open(Net.connect(port, "127.0.0.1"), posted(port), endOfAnswer)
    asker.expected = (await asker.ask()).length
    return asker
  }

  /** The same over the Unix socket. */
  static unix(socket: string): Promise<Asker> {
    return Asker.open(Net.connect(socket), line, endOfLine)
  }

  /** How long its answers over HTTP are, headers and all. */
  get answerLength(): number {
    return this.expected
  }

  ask(): Promise<string> {
    return new Promise((resolve, reject) => {
      this.answered = resolve
      this.lost = reject
      if (this.socket.closed) reject(new Error("the connection is closed"))
      this.socket.write(this.request)
    })
  }

  /** Asks again with each answer, for so long. */
  drive(millis: number): Promise<Amount> {
    const startedAt = performance.now()
    let count = 0
    return new Promise((resolve, reject) => {
      this.lost = reject
      this.answered = () => {
        count++
        const took = performance.now() - startedAt
        if (took > millis) resolve({ count, millis: took })
        else this.socket.write(this.request)
      }
      this.socket.write(this.request)
    })
  }

  /** Asks every so many milliseconds, for so long, and sooner where an answer took longer; microseconds each took. */
  async latencies(millis: number, every: number): Promise<ReadonlyArray<number>> {
    const taken: Array<number> = []
    for (const end = performance.now() + millis; performance.now() < end;) {
      const before = performance.now()
      await this.ask()
      const took = performance.now() - before
      taken.push(took * 1000)
      if (took < every) await new Promise((resolve) => setTimeout(resolve, every - took))
    }
    return taken.toSorted((a, b) => a - b)
  }

  close(): void {
    this.socket.destroy()
  }
}

/** A quantile of sorted figures. */
export const quantile = (sorted: ReadonlyArray<number>, q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN
