// A WebSocket as a connection of the wire sees it: one message is one frame. Used on both sides.
//
// Source: RFC 6455; the protocol itself is the package ws, which is loaded with the first one.
import type { WebSocket } from "@effect/platform-node/NodeWS"
import { Buffer } from "node:buffer"
import type { Duplex } from "node:stream"
import type { Sink, Transport } from "../Connection.ts"

const newline = 0x0a
const carriageReturn = 0x0d
const end = Buffer.from("\n")

/** Codes of RFC 6455 section 7.4. */
const goingAway = 1001
/** The other side is gone without a word. */
const noCode = 1006

/**
 * The bytes of a message as one line. A newline between the tokens of JSON is a space; within a text it is an error, which a
 * carriage return is too.
 */
export const lineOf = (message: Buffer): Buffer => {
  for (let at = message.indexOf(newline); at >= 0; at = message.indexOf(newline, at + 1)) message[at] = carriageReturn
  return Buffer.concat([message, end], message.length + 1)
}

/** One WebSocket. */
export class WebSocketTransport implements Transport {
  private readonly webSocket: WebSocket
  private readonly stream: Duplex
  private sink: Sink | undefined
  private failure: string | undefined
  private answered = true

  constructor(webSocket: WebSocket, stream: Duplex) {
    this.webSocket = webSocket
    this.stream = stream
    // Without a listener an error would end the process; what follows it is `close`.
    webSocket.on("error", (error) => {
      this.failure ??= error.message
    })
    for (const sign of ["pong", "ping", "message"]) {
      webSocket.on(sign, () => {
        this.answered = true
      })
    }
  }

  /** Why it broke or was closed; `undefined` where nothing was said. */
  get problem(): string | undefined {
    return this.failure
  }

  readonly start = (sink: Sink): void => {
    this.sink = sink
    if (this.webSocket.readyState !== this.webSocket.OPEN) return sink.ended("gone")
    // Binary or not: a frame is UTF-8. By default a message is a Buffer.
    this.webSocket.on("message", (message) => sink.bytes(lineOf(message as Buffer)))
    this.webSocket.on("close", (code, reason) => {
      if (code !== goingAway && code !== noCode) this.failure ??= `it closed the connection (${[code, reason.toString()].join(" ").trim()})`
      sink.ended("gone")
    })
    this.stream.on("drain", sink.drained)
    // Who dialled has let nothing come before it could be taken.
    if (this.webSocket.isPaused) this.webSocket.resume()
  }

  readonly pause = (): void => this.webSocket.pause()

  readonly resume = (): void => this.webSocket.resume()

  readonly write = (text: string): boolean => {
    if (this.webSocket.readyState !== this.webSocket.OPEN) return true
    let from = 0
    for (let to = text.indexOf("\n"); to >= 0; to = text.indexOf("\n", from)) {
      this.webSocket.send(text.slice(from, to))
      from = to + 1
    }
    return !this.stream.writableNeedDrain
  }

  /** Ends one that has neither answered nor said anything since the last time this asked whether it is still there. */
  check(): void {
    // What is not read now cannot be heard.
    if (this.webSocket.isPaused) return
    // One that has not read what came before has not been asked yet; where it is gone, the system finds nobody to give that to.
    if (this.stream.writableLength > 0) {
      this.answered = true
      return
    }
    if (!this.answered) return this.destroy()
    this.answered = false
    this.webSocket.ping()
  }

  /** Reads no further; the connection finishes what it has begun. */
  stop(): void {
    this.sink?.ended("stopping")
  }

  /** Ends after what was written has left. */
  close(): void {
    this.webSocket.close(goingAway)
  }

  /** Ends at once. */
  readonly destroy = (): void => this.webSocket.terminate()
}
