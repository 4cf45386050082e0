// A node:net socket as a connection sees it. Used on both sides.
//
// Own code instead of effect's SocketServer, because of what was measured and what it has no door for: a pull and a
// write through fibers double what a call costs in processor time; it cannot stop accepting while running requests
// finish, nor tell a client that shut down its half from one that is gone; and it loads `ws`.
import type * as Net from "node:net"
import type { Sink, Transport } from "../Connection.ts"

// What fills a read: there is more at hand.
const fullRead = 64 * 1024

/** After how long the system asks a silent peer over TCP whether it is still there; who does not answer is gone. */
export const keepAliveMillis = 30_000

/** One socket. */
export class NetTransport implements Transport {
  private readonly socket: Net.Socket
  private sink: Sink | undefined
  private failure: string | undefined
  private paused = false

  constructor(socket: Net.Socket) {
    this.socket = socket
    // Without a listener an error would end the process.
    socket.on("error", (error) => {
      this.failure ??= error.message
    })
  }

  /** Why it broke; `undefined` when it did not. */
  get problem(): string | undefined {
    return this.failure
  }

  /** Begins when the other side has said something. Who comes and leaves without a word costs no more than that. */
  begin(serve: () => void): void {
    this.socket.once("readable", () => {
      if (this.socket.readableLength > 0) serve()
      else this.close()
    })
  }

  readonly start = (sink: Sink): void => {
    this.sink = sink
    if (this.socket.destroyed) return sink.ended("gone")
    this.socket.on("data", (chunk: Uint8Array) => {
      // Afterwards there may be nothing left of it.
      const isFull = chunk.length >= fullRead
      sink.bytes(chunk)
      if (isFull && !this.paused) this.letOthersRead()
    })
    this.socket.on("drain", sink.drained)
    this.socket.on("close", () => sink.ended("gone"))
    this.socket.on("end", () => {
      if (this.socket.writableEnded) return
      // A write of nothing fails when the other side is gone, and says nothing to one that still reads.
      this.socket.write("", (error) => sink.ended(error === null || error === undefined ? "half-closed" : "gone"))
    })
  }

  readonly pause = (): void => {
    this.paused = true
    this.socket.pause()
  }

  readonly resume = (): void => {
    this.paused = false
    this.socket.resume()
  }

  /** Of what is at hand the system reads megabytes before it looks at anybody else: one read in each turn is this socket's. */
  private letOthersRead(): void {
    this.socket.pause()
    setImmediate(() => {
      if (!this.paused) this.socket.resume()
    })
  }

  readonly write = (text: string): boolean => this.socket.destroyed || this.socket.write(text)

  /** Reads no further; the connection finishes what it has begun. */
  stop(): void {
    if (this.sink === undefined) return this.close()
    this.pause()
    this.sink.ended("stopping")
  }

  /** Ends after what was written has left. */
  close(): void {
    this.socket.destroySoon()
  }

  /** Ends at once. */
  readonly destroy = (): void => {
    this.socket.destroy()
  }
}
