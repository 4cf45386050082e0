// A node:net socket as a connection sees it: pull bytes, write text, learn how it ended. Used on both sides.
//
// Own code instead of effect's SocketServer for three things that it has no door for: to stop accepting and reading
// while running requests finish, to tell a client that shut down its half from one that is gone, and not to load `ws`.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Net from "node:net"
import type { Ended, Transport } from "../Connection.ts"

type Bytes = readonly [Uint8Array | string]

const gone = Exit.fail("the other side is gone")

/** One socket. Nothing is read before somebody pulls, beyond what Node buffers. */
export class NetTransport implements Transport {
  private readonly socket: Net.Socket
  private waiter: ((effect: Effect.Effect<Bytes, string>) => void) | undefined
  private noMore = false
  private stopping = false
  private failure: string | undefined

  constructor(socket: Net.Socket) {
    this.socket = socket
    socket.on("readable", this.hand)
    socket.on("end", this.end)
    socket.on("close", this.end)
    socket.on("error", (error) => {
      this.failure ??= error.message
      this.end()
    })
  }

  /** Why it broke; `undefined` when it did not. */
  get problem(): string | undefined {
    return this.failure
  }

  readonly pull: Transport["pull"] = Effect.callback<Bytes, string>((resume) => {
    this.waiter = resume
    this.hand()
    return Effect.sync(() => {
      if (this.waiter === resume) this.waiter = undefined
    })
  })

  readonly write: Transport["write"] = (text) =>
    Effect.suspend(() => {
      if (this.socket.destroyed || this.socket.writableEnded) return gone
      return this.socket.write(text) ? Effect.void : this.drained
    })

  // A write of nothing fails when the other side is gone, and says nothing to one that still reads.
  readonly ended: Effect.Effect<Ended> = Effect.callback<Ended>((resume) => {
    if (this.stopping) return resume(Effect.succeed("stopping"))
    if (this.socket.destroyed || this.socket.writableEnded || this.failure !== undefined) return resume(Effect.succeed("gone"))
    this.socket.write("", (error) => resume(Effect.succeed(error === null || error === undefined ? "half-closed" : "gone")))
  })

  /** Reads no further: what is buffered is dropped, and the connection finishes what it has begun. */
  stop(): void {
    this.stopping = true
    this.end()
  }

  /** Ends after what was written has left; at once when the other side is gone. */
  close(): void {
    this.stop()
    this.socket.destroySoon()
  }

  /** Ends at once. */
  destroy(): void {
    this.socket.destroy()
  }

  private readonly drained: Effect.Effect<void, string> = Effect.callback<void, string>((resume) => {
    const onDrain = () => done(Exit.void)
    const onClose = () => done(gone)
    const forget = () => {
      this.socket.off("drain", onDrain)
      this.socket.off("close", onClose)
    }
    const done = (exit: Exit.Exit<void, string>) => {
      forget()
      resume(exit)
    }
    this.socket.on("drain", onDrain)
    this.socket.on("close", onClose)
    return Effect.sync(forget)
  })

  private readonly end = () => {
    this.noMore = true
    this.hand()
  }

  private readonly hand = () => {
    const { waiter } = this
    if (waiter === undefined) return
    // The types of node:net say `any`; without an encoding a socket reads buffers.
    const chunk = this.stopping ? null : this.socket.read() as Uint8Array | null
    if (chunk === null && !this.noMore) return
    this.waiter = undefined
    waiter(chunk === null ? gone : Exit.succeed([chunk]))
  }
}
