import type * as Connection from "../../src/wire/Connection.ts"
import type { Reply } from "./Daemon.ts"

const bytes = (text: string) => new TextEncoder().encode(text)

/** A transport that the test drives; `reads` says whether the other side takes what is written. */
export class Driven implements Connection.Transport {
  readonly writes: Array<string> = []
  paused = false
  reads = true
  sink: Connection.Sink = { bytes: () => {}, drained: () => {}, ended: () => {} }
  readonly start = (sink: Connection.Sink) => {
    this.sink = sink
  }
  readonly pause = () => {
    this.paused = true
  }
  readonly resume = () => {
    this.paused = false
  }
  readonly write = (text: string) => {
    this.writes.push(text)
    return this.reads
  }
  destroyed = false
  readonly destroy = () => {
    this.destroyed = true
  }
  send(...frames: ReadonlyArray<unknown>): void {
    this.sink.bytes(bytes(frames.map((frame) => `${JSON.stringify(frame)}\n`).join("")))
  }
  /** Every line that was written. */
  get frames(): ReadonlyArray<Readonly<Record<string, unknown>>> {
    return this.replies as ReadonlyArray<never>
  }
  get replies(): ReadonlyArray<Reply> {
    return this.writes.join("").split("\n").slice(0, -1).map((line) => JSON.parse(line))
  }
}
