/**
 * Cuts incoming bytes into lines of UTF-8.
 *
 * The rule: memory is bounded by the longest line allowed, and by what all that share a `Gathering` may hold together. A chunk that holds many lines is decoded once; a line that
 * arrives in pieces is gathered in one growing buffer, so that a sender of single bytes costs linear time.
 *
 * **Example**
 *
 * ```ts
 * const told: Array<string> = []
 * const lines = new Lines(8, { line: (text) => told.push(text), bad: (why) => told.push(`(${why})`) })
 * lines.push(new TextEncoder().encode("one\nmuch too long\ntw"))
 * lines.push(new TextEncoder().encode("o\n"))
 * told                                        // ["one", "(too long)", "two"]
 * ```
 *
 * **Gotchas** A line ends with a line feed; a carriage return before it belongs to the line, as does a byte order mark. What
 * is pushed belongs to the lines: of a long chunk that has been read nothing is left.
 */
import { Buffer, isUtf8 } from "node:buffer"
import { type Gathering, shortBytes as firstCapacity } from "./internal/Gathering.ts"

/** Why a line could not be handed on. */
export type BadLine = "too long" | "not UTF-8" | "one too many"

/** Who hears of lines. */
interface LineSink {
  readonly line: (text: string) => void
  /** Called once for a bad line; what is left of one that is too long is skipped. */
  readonly bad: (why: BadLine) => void
}

const newline = 10
const none = Buffer.alloc(0)
/** A chunk of this length is kept as it came; node reads at most four times as much at once. */
const wholeBytes = 16 * 1024
const tailCapacity = 64 * 1024

/**
 * Gives back the memory of a long chunk that nobody reads any more, where it is all its own: what waits for the collector makes it
 * collect everything, again and again, while others wait.
 */
export const letGo = (bytes: Buffer): void => {
  if (bytes.length < wholeBytes) return
  const { buffer } = bytes
  if (bytes.length === buffer.byteLength && buffer instanceof ArrayBuffer) buffer.transfer(0)
}

/** The cutter of one stream of bytes; a line has at most `maxBytes`, its newline not counted. */
export class Lines {
  private readonly maxBytes: number
  private readonly sink: LineSink
  private readonly gathering: Gathering | undefined
  // A line under way: chunks as they came, and at its end what small ones were put together in.
  private readonly pieces: Array<Buffer> = []
  private tail: Buffer = none
  private tailBytes = 0
  private heldBytes = 0
  private skipping = false

  constructor(maxBytes: number, sink: LineSink, gathering?: Gathering) {
    this.maxBytes = maxBytes
    this.sink = sink
    this.gathering = gathering
  }

  /** Bytes of memory that the line under way takes, where it is more than every connection has anyway. */
  get gathered(): number {
    return this.pieces.length > 0 || this.tail.length > firstCapacity ? this.heldBytes : 0
  }

  /** Lets the line under way go: there are too many, and it is the longest. */
  giveUp(): void {
    this.skipping = true
    this.release()
    this.sink.bad("one too many")
  }

  /** There will be no more. */
  close(): void {
    this.release()
  }

  /** Takes the next bytes. */
  push(chunk: Uint8Array): void {
    const bytes = Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    const last = bytes.length - 1
    // Nearly every chunk holds whole lines and nothing else: then nothing is looked for but their ends.
    if (bytes[last] === newline && this.heldBytes === 0 && !this.skipping) return this.whole(bytes)
    const first = bytes.indexOf(newline)
    if (first < 0) return this.hold(bytes)
    let from = 0
    if (this.skipping) {
      this.skipping = false
      from = first + 1
    } else if (this.heldBytes > 0) {
      this.hold(bytes.subarray(0, first))
      from = first + 1
      if (this.skipping) this.skipping = false
      else this.finish()
    }
    const end = bytes.lastIndexOf(newline)
    if (end >= from) this.whole(from === 0 && end === bytes.length - 1 ? bytes : bytes.subarray(from, end + 1))
    if (end + 1 < bytes.length) this.hold(bytes.subarray(Math.max(from, end + 1)))
  }

  /** Takes what is held as a last line: the sender has ended without a newline. */
  end(): void {
    if (!this.skipping && this.heldBytes > 0) this.finish()
  }

  private hold(bytes: Buffer): void {
    if (this.skipping) return letGo(bytes)
    const length = this.heldBytes + bytes.length
    if (length > this.maxBytes) {
      this.skipping = true
      letGo(bytes)
      this.release()
      return this.sink.bad("too long")
    }
    const before = this.gathered
    if (bytes.length >= wholeBytes) this.keep(bytes)
    else this.put(bytes)
    this.heldBytes = length
    this.tell(before)
  }

  /** Keeps a chunk as it is: to copy megabytes again and again is what most of a long line would cost. */
  private keep(bytes: Buffer): void {
    this.closeTail()
    this.pieces.push(bytes)
  }

  /** Copies a small chunk behind the last: kept as it is it would hold all that it was read with. */
  private put(bytes: Buffer): void {
    if (this.tailBytes + bytes.length > this.tail.length) {
      if (this.tailBytes + bytes.length > tailCapacity) this.closeTail()
      const grown = Buffer.allocUnsafeSlow(Math.max(firstCapacity, Math.min(tailCapacity, this.tail.length * 4), this.tailBytes + bytes.length))
      this.tail.copy(grown, 0, 0, this.tailBytes)
      this.tail = grown
    }
    bytes.copy(this.tail, this.tailBytes)
    this.tailBytes += bytes.length
  }

  private closeTail(): void {
    if (this.tailBytes > 0) this.pieces.push(this.tail.subarray(0, this.tailBytes))
    this.tail = none
    this.tailBytes = 0
  }

  private finish(): void {
    if (this.pieces.length > 0) this.closeTail()
    if (this.pieces.length === 0) this.one(this.tail.subarray(0, this.tailBytes))
    else {
      const line = Buffer.concat(this.pieces, this.heldBytes)
      for (const piece of this.pieces) letGo(piece)
      this.one(line)
      letGo(line)
    }
    this.release()
  }

  private release(): void {
    const before = this.gathered
    for (const piece of this.pieces) letGo(piece)
    this.pieces.length = 0
    this.heldBytes = 0
    this.tailBytes = 0
    if (this.tail.length > firstCapacity) this.tail = none
    this.tell(before)
  }

  private tell(before: number): void {
    if (this.gathered !== before) this.gathering?.change(this, this.gathered - before)
  }

  private one(line: Buffer): void {
    if (line.length > this.maxBytes) this.sink.bad("too long")
    else if (isUtf8(line)) this.sink.line(line.toString("utf8"))
    else this.sink.bad("not UTF-8")
  }

  /** Complete lines, each with its newline. */
  private whole(lines: Buffer): void {
    const last = lines.length - 1
    if (last > this.maxBytes || !isUtf8(lines)) return this.apart(lines)
    const text = lines.toString("utf8", 0, last)
    letGo(lines)
    let from = 0
    for (let to = text.indexOf("\n"); to >= 0; to = text.indexOf("\n", from)) {
      this.sink.line(text.slice(from, to))
      from = to + 1
    }
    this.sink.line(from === 0 ? text : text.slice(from))
  }

  /** The same where one of them is bad, or all together are too long for one look. */
  private apart(lines: Buffer): void {
    let from = 0
    for (let to = lines.indexOf(newline); to >= 0; to = lines.indexOf(newline, from)) {
      this.one(lines.subarray(from, to))
      from = to + 1
    }
    letGo(lines)
  }
}
