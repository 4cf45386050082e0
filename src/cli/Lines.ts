/**
 * NDJSON as it comes from files: bytes to numbered lines, lines to batches of CloudEvents that fit one request.
 *
 * The rule: nothing is read twice and nothing grows with the file. A line that cannot be an event (no JSON, no object,
 * not UTF-8, too long, too deep) is told by its number and the reading goes on; every other line is passed on as the text it is.
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
import * as Json from "../event/Json.ts"
import { sentenceOf } from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import * as Wire from "../wire/Lines.ts"

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

// An event is one object around its data.
const maxDepth = Limits.defaults.jsonDepth + 1

const problemOf = (text: string): string | undefined => {
  if (Json.isDeeper(text, maxDepth)) return `nested deeper than ${Limits.defaults.jsonDepth}`
  try {
    return Json.isObject(JSON.parse(text)) ? undefined : "an event must be a JSON object"
  } catch (cause) {
    return `not JSON: ${sentenceOf(cause)}`
  }
}

// A byte order mark and a carriage return do not count.
const ornamentBytes = 4

/** Reads numbered lines of at most `max` bytes out of chunks of bytes. */
export class Reader {
  private readonly lines: Wire.Lines
  private readonly max: number
  private number = 0
  private out: Array<Line | BadLine> = []

  constructor(max = maxLineBytes) {
    this.max = max
    this.lines = new Wire.Lines(max + ornamentBytes, {
      line: (text) => this.line(text),
      bad: (why) => this.bad(why === "too long" ? this.tooLong() : why)
    })
  }

  /** The lines that end in this chunk, or turn out to be too long in it; the bytes after them are copied. */
  push(chunk: Uint8Array): ReadonlyArray<Line | BadLine> {
    this.lines.push(chunk)
    return this.taken()
  }

  /** The last line, if it has no line feed. */
  end(): ReadonlyArray<Line | BadLine> {
    this.lines.end()
    return this.taken()
  }

  private taken(): ReadonlyArray<Line | BadLine> {
    const { out } = this
    this.out = []
    return out
  }

  private line(raw: string): void {
    const marked = this.number === 0 && raw.startsWith("\uFEFF") ? raw.slice(1) : raw
    const text = marked.endsWith("\r") ? marked.slice(0, -1) : marked
    // Only a text of so many characters can have too many bytes.
    const long = text.length * 3 > this.max && Buffer.byteLength(text) > this.max
    const problem = long ? this.tooLong() : text.trim() === "" ? "" : problemOf(text)
    if (problem === undefined) this.out.push({ number: ++this.number, text })
    else if (problem === "") this.number++
    else this.bad(problem)
  }

  private bad(problem: string): void {
    this.out.push({ number: ++this.number, problem })
  }

  private tooLong(): string {
    return `the line has more than ${this.max} bytes`
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
