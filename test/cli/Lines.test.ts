import { describe, expect, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Lines from "../../src/cli/Lines.ts"

const bytes = (text: string) => new TextEncoder().encode(text)

const read = (chunks: ReadonlyArray<Uint8Array>, max?: number) => {
  const reader = new Lines.Reader(max)
  return [...chunks.flatMap((chunk) => reader.push(chunk)), ...reader.end()]
}

describe("Reader", () => {
  it("numbers lines and passes their text on as it is", () => {
    expect(read([bytes("{\"a\": 1}\n{\"n\":12345678901234567890}\n")])).toEqual([
      { number: 1, text: "{\"a\": 1}" },
      { number: 2, text: "{\"n\":12345678901234567890}" }
    ])
  })
  it("takes a missing last line feed, CRLF, blank lines and a byte order mark", () => {
    expect(read([bytes("\uFEFF{\"a\":1}\r\n\r\n   \n{\"b\":2}")])).toEqual([
      { number: 1, text: "{\"a\":1}" },
      { number: 4, text: "{\"b\":2}" }
    ])
    expect(read([])).toEqual([])
    expect(read([bytes("\n\n")])).toEqual([])
    expect(read([bytes("\uFEFF")])).toEqual([])
  })
  it("a byte order mark belongs to the first line only", () => {
    expect(read([bytes("{}\n\uFEFF{}\n")])).toMatchObject([{ number: 1 }, { number: 2, problem: expect.stringContaining("not JSON") }])
  })
  it("tells what is no event, and goes on", () => {
    expect(read([bytes("{\n[1]\nnull\n3\n\"x\"\n{} {}\n{}\n")])).toEqual([
      { number: 1, problem: expect.stringContaining("not JSON") },
      { number: 2, problem: "an event must be a JSON object" },
      { number: 3, problem: "an event must be a JSON object" },
      { number: 4, problem: "an event must be a JSON object" },
      { number: 5, problem: "an event must be a JSON object" },
      { number: 6, problem: expect.stringContaining("not JSON") },
      { number: 7, text: "{}" }
    ])
  })
  it("tells a line that is not UTF-8, and takes its neighbours", () => {
    const bad = Uint8Array.of(0x7b, 0xff, 0x7d, 10)
    expect(read([Buffer.concat([bytes("{}\n"), bad, bytes("{\"ü\":1}\n")])])).toEqual([
      { number: 1, text: "{}" },
      { number: 2, problem: "not UTF-8" },
      { number: 3, text: "{\"ü\":1}" }
    ])
  })
  it("tells a line that is nested too deeply; data as deep as the store takes is passed on", () => {
    const reader = new Lines.Reader()
    const nested = (depth: number) => `{"data":${"[".repeat(depth)}${"]".repeat(depth)}}\n`
    const read = [256, 257, 100_000].flatMap((depth) => reader.push(new TextEncoder().encode(nested(depth))))
    const problem = "nested deeper than 256"
    expect(read).toEqual([{ number: 1, text: nested(256).trim() }, { number: 2, problem }, { number: 3, problem }])
  })

  it("tells a line that is too long, whole or in pieces, and keeps none of it", () => {
    const long = `{"a":"${"x".repeat(100)}"}`
    const expected = [
      { number: 1, text: "{}" },
      { number: 2, problem: "the line has more than 50 bytes" },
      { number: 3, text: "{}" }
    ]
    const all = bytes(`{}\n${long}\n{}`)
    expect(read([all], 50)).toEqual(expected)
    expect(read([...all].map((byte) => Uint8Array.of(byte)), 50)).toEqual(expected)
  })
  it("counts bytes, not characters, and not the line's end", () => {
    const text = `{"a":"${"ü".repeat(10)}"}`
    expect(read([bytes(`${text}\r\n`)], 28)).toEqual([{ number: 1, text }])
    expect(read([bytes(text)], 27)).toEqual([{ number: 1, problem: "the line has more than 27 bytes" }])
  })
  const Text = Schema.Union([
    Schema.Literals(["", "{}", "{\"ü\":\"€\"}", "[1]", "{", "\r", " {\"x\":1} "]),
    Schema.String
  ])
  const Cut = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 200 }))
  it.prop("reads the same however the bytes are cut", [Schema.Array(Text), Schema.Boolean, Schema.Array(Cut)], ([lines, ended, cuts]) => {
    const all = bytes(lines.join("\n") + (ended ? "\n" : ""))
    const places = [0, ...cuts.filter((cut) => cut < all.length).toSorted((a, b) => a - b), all.length]
    const chunks = places.slice(1).map((end, i) => all.slice(places[i], end))
    expect(read(chunks)).toEqual(read([all]))
  })
  it("does not keep the chunk it was given", () => {
    const reader = new Lines.Reader()
    const chunk = bytes("{\"a\":")
    reader.push(chunk)
    chunk.fill(0)
    expect(reader.push(bytes("1}\n"))).toEqual([{ number: 1, text: "{\"a\":1}" }])
  })
})

describe("Batcher", () => {
  const batches = (texts: ReadonlyArray<string>, maxEvents: number, maxBytes: number) => {
    const batcher = Lines.makeBatcher(maxEvents, maxBytes)
    const out = texts.map((text, i) => batcher.add({ number: i + 1, text }))
    return [...out, batcher.end()].filter((batch) => batch !== undefined)
  }
  it("is a JSON array of the lines, with their numbers", () => {
    expect(batches(["{\"a\":1}", "{}", "{\"b\":2}"], 2, 1000)).toEqual([
      { numbers: [1, 2], json: "[{\"a\":1},{}]" },
      { numbers: [3], json: "[{\"b\":2}]" }
    ])
  })
  it("ends before it is too large; a line larger than that goes alone", () => {
    expect(batches(["{}", "{\"a\":\"xxxxxxxx\"}", "{}"], 100, 10).map(({ numbers }) => numbers)).toEqual([[1], [2], [3]])
  })
  it("nothing gathered is no batch", () => {
    expect(batches([], 2, 10)).toEqual([])
  })
  it.prop(
    "every line is in exactly one batch, in order, within the limits",
    [
      Schema.Array(Schema.String),
      Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 5 })),
      Schema.Int.check(Schema.isBetween({ minimum: 20, maximum: 200 }))
    ],
    ([strings, maxEvents, maxBytes]) => {
      const texts = strings.map((x) => JSON.stringify({ x }))
      const made = batches(texts, maxEvents, maxBytes)
      expect(made.flatMap(({ numbers }) => numbers)).toEqual(texts.map((_, i) => i + 1))
      expect(made.flatMap(({ json }) => JSON.parse(json))).toEqual(texts.map((text) => JSON.parse(text)))
      for (const { json, numbers } of made) {
        expect(numbers.length).toBeLessThanOrEqual(maxEvents)
        if (numbers.length > 1) expect(Buffer.byteLength(json)).toBeLessThanOrEqual(maxBytes)
      }
    }
  )
})
