/**
 * NDJSON as it comes from files: bytes to numbered lines, lines to batches of CloudEvents that fit one request.
 *
 * The rule: nothing is read twice and nothing grows with the file. A line that cannot be an event (no JSON, no object,
 * not UTF-8, too long) is told by its number and the reading goes on; every other line is passed on as the text it is.
 *
 * **Example**
 *
 * ```ts
 * const reader = new Lines.Reader()
 * reader.push(new TextEncoder().encode("{\"id\":\"1\"}\n[1"))     // [{ number: 1, text: "{\"id\":\"1\"}" }]
 * reader.push(new TextEncoder().encode("]"))  // []
 * reader.end()                                // [{ number: 2, problem: "an event must be a JSON object" }]
 * ```
 *
 * **Gotchas** A byte order mark, CRLF, blank lines and a missing last line feed are no errors. Blank lines count.
 */
import * as Limits from "../event/Limits.ts"

/** A line that may be an event. */
export interface Line {
  /** From 1. */
  readonly number: number
  readonly text: string
}

/** A line that cannot be an event. */
export interface BadLine {
  readonly number: number
  readonly problem: string
}

/** Events for one request. */
export interface Batch {
  /** The line of each event. */
  readonly numbers: ReadonlyArray<number>
  /** The events as a JSON array, in bytes at most `batchBytes` unless one line alone is longer. */
  readonly json: string
}

/** The longest line that is sent: a frame, without what goes around the event in it. */
const maxLineBytes = Limits.defaults.frameBytes - 1024
/** The most bytes of a batch of more than one line. */
const batchBytes = 1024 * 1024

const lineFeed = 10

const problemOf = (text: string): string | undefined => {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === "object" && value !== null && !Array.isArray(value) ? undefined : "an event must be a JSON object"
  } catch (cause) {
    return `not JSON: ${cause instanceof Error ? cause.message : String(cause)}`
  }
}

/** Reads numbered lines of at most `max` bytes out of chunks of bytes. */
export class Reader {
  private readonly decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
  private readonly max: number
  private number = 0
  /** The bytes of the line that has not ended yet; when they are too many, only their count. */
  private rest: Array<Uint8Array> = []
  private restBytes = 0
  private out: Array<Line | BadLine> = []

  constructor(max = maxLineBytes) {
    this.max = max
  }

  /** The lines that end in this chunk; the bytes after them are copied. */
  push(chunk: Uint8Array): ReadonlyArray<Line | BadLine> {
    const first = this.restBytes > 0 ? chunk.indexOf(lineFeed) : -1
    if (first >= 0) this.finish(chunk.subarray(0, first))
    const last = this.restBytes > 0 ? -1 : chunk.lastIndexOf(lineFeed)
    if (last > first) this.block(chunk.subarray(first + 1, last))
    this.keep(chunk.slice(Math.max(first, last) + 1))
    return this.taken()
  }

  /** The last line, if it has no line feed. */
  end(): ReadonlyArray<Line | BadLine> {
    if (this.restBytes > 0) this.finish(new Uint8Array(0))
    return this.taken()
  }

  private taken(): ReadonlyArray<Line | BadLine> {
    const { out } = this
    this.out = []
    return out
  }

  private keep(bytes: Uint8Array): void {
    this.restBytes += bytes.length
    // A byte order mark and a carriage return do not count.
    if (this.restBytes > this.max + 4) this.rest = []
    else if (bytes.length > 0) this.rest.push(bytes)
  }

  private finish(tail: Uint8Array): void {
    this.keep(tail)
    if (this.restBytes > this.max + 4) this.bad(this.tooLong(this.restBytes))
    else this.block(Buffer.concat(this.rest))
    this.rest = []
    this.restBytes = 0
  }

  /** Whole lines, the last one without its line feed. */
  private block(bytes: Uint8Array): void {
    const text = this.decoded(bytes)
    if (text !== undefined) {
      for (const each of text.split("\n")) this.line(each)
      return
    }
    // Somewhere in here is a line that is not UTF-8.
    for (let start = 0; start <= bytes.length;) {
      const found = bytes.indexOf(lineFeed, start)
      const end = found < 0 ? bytes.length : found
      const each = this.decoded(bytes.subarray(start, end))
      if (each === undefined) this.bad("not UTF-8")
      else this.line(each)
      start = end + 1
    }
  }

  private decoded(bytes: Uint8Array): string | undefined {
    try {
      return this.decoder.decode(bytes)
    } catch {
      return undefined
    }
  }

  private line(raw: string): void {
    const marked = this.number === 0 && raw.startsWith("\uFEFF") ? raw.slice(1) : raw
    const text = marked.endsWith("\r") ? marked.slice(0, -1) : marked
    // Only a text of so many characters can have too many bytes.
    const bytes = text.length * 3 > this.max ? Buffer.byteLength(text) : 0
    const problem = bytes > this.max ? this.tooLong(bytes) : text.trim() === "" ? "" : problemOf(text)
    if (problem === undefined) this.out.push({ number: ++this.number, text })
    else if (problem === "") this.number++
    else this.bad(problem)
  }

  private bad(problem: string): void {
    this.out.push({ number: ++this.number, problem })
  }

  private tooLong(bytes: number): string {
    return `the line has ${bytes} bytes, at most ${this.max} are allowed`
  }
}

/** Gathers lines into batches, in their order. */
export interface Batcher {
  /** Takes a line; gives the batch that it no longer fits. */
  readonly add: (line: Line) => Batch | undefined
  /** What has been gathered, if anything. */
  readonly end: () => Batch | undefined
}

/** A batcher of at most `maxEvents` events and `maxBytes` bytes. */
export const makeBatcher = (maxEvents = Limits.defaults.appendEvents, maxBytes = batchBytes): Batcher => {
  let numbers: Array<number> = []
  let texts: Array<string> = []
  let bytes = 0
  const end = (): Batch | undefined => {
    if (numbers.length === 0) return undefined
    const batch = { numbers, json: `[${texts.join(",")}]` }
    numbers = []
    texts = []
    bytes = 0
    return batch
  }
  return {
    end,
    add: ({ number, text }) => {
      const size = Buffer.byteLength(text) + 1
      const full = numbers.length >= maxEvents || (numbers.length > 0 && bytes + size + 1 > maxBytes) ? end() : undefined
      numbers.push(number)
      texts.push(text)
      bytes += size
      return full
    }
  }
}
