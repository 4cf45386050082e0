import { describe, expect, it } from "@effect/vitest"
import { Schema } from "effect"
import { Gathering } from "../../src/wire/internal/Gathering.ts"
import { Lines } from "../../src/wire/Lines.ts"

const bytes = (text: string) => new TextEncoder().encode(text)

/** What is told of chunks, and after how many of them each was told. */
const told = (chunks: ReadonlyArray<Uint8Array>, max = 1000) => {
  const out: Array<string> = []
  const lines = new Lines(max, { line: (text) => out.push(text), bad: (why) => out.push(`(${why})`) })
  const counts = chunks.map((chunk) => {
    lines.push(chunk)
    return out.length
  })
  lines.end()
  return { out, counts }
}

describe("Lines", () => {
  it("cuts at line feeds only, and keeps everything else", () => {
    expect(told([bytes("\uFEFFa\r\n\n b \n")]).out).toEqual(["\uFEFFa\r", "", " b "])
  })

  it("a last line needs no line feed; nothing is no line", () => {
    expect(told([bytes("a\nb")]).out).toEqual(["a", "b"])
    expect(told([]).out).toEqual([])
    expect(told([bytes("")]).out).toEqual([])
  })

  it("a line that is too long is told once, as soon as that is known, and takes no neighbour along", () => {
    const chunks = ["12\n", "1234", "5", "6789", "\n12", "34\n"].map(bytes)
    expect(told(chunks, 4)).toEqual({ out: ["12", "(too long)", "1234"], counts: [1, 1, 2, 2, 2, 3] })
    expect(told([bytes("12\n123456789\n1234\n12345")], 4).out).toEqual(["12", "(too long)", "1234", "(too long)"])
  })

  it("counts bytes", () => {
    expect(told([bytes("üü\n")], 4).out).toEqual(["üü"])
    expect(told([bytes("üü\n")], 3).out).toEqual(["(too long)"])
  })

  it("what is not UTF-8 takes no neighbour along, also when a character is cut in two", () => {
    expect(told([Uint8Array.of(97, 10, 0xff, 10, 98, 10)]).out).toEqual(["a", "(not UTF-8)", "b"])
    expect(told([...bytes("ü€😀\n")].map((byte) => Uint8Array.of(byte))).out).toEqual(["ü€😀"])
  })

  it("keeps no chunk", () => {
    const out: Array<string> = []
    const lines = new Lines(100, { line: (text) => out.push(text), bad: () => {} })
    const chunk = bytes("one")
    lines.push(chunk)
    chunk.fill(0)
    lines.push(bytes("\n"))
    expect(out).toEqual(["one"])
  })

  it("nothing is left of a long chunk that has been read, kept or skipped; what others have a part of stays", () => {
    const out: Array<string> = []
    const lines = new Lines(100_000, { line: (text) => out.push(`${text.length} ${text.slice(-1)}`), bad: (why) => out.push(`(${why})`) })
    const long = (text: string) => bytes(text.repeat(30_000))
    const chunks = [long("a"), long("b"), long("c"), bytes("\n"), long("d"), long("e"), long("f"), long("g"), long("h"), bytes("\n"), bytes(`${"i".repeat(30_000)}\n`)]
    const left = () => chunks.map(({ length }) => length > 0)
    for (const chunk of chunks.slice(0, 3)) lines.push(chunk)
    expect(left().slice(0, 3)).toEqual([true, true, true])
    for (const chunk of chunks.slice(3)) lines.push(chunk)
    expect(out).toEqual(["90000 c", "(too long)", "30000 i"])
    // Short ones are not worth it.
    expect(left()).toEqual([false, false, false, true, false, false, false, false, false, true, false])
    const shared = long("j")
    lines.push(shared.subarray(0, 20_000))
    lines.push(shared.subarray(20_000))
    lines.push(bytes("\n"))
    expect([out.at(-1), shared.length]).toEqual(["30000 j", 30_000])
  })

  const Piece = Schema.Literals(["", "a", "ü€", "too long for it", "\r", "\n", "\n\n"])
  const Cut = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100 }))
  it.prop("tells the same however the bytes are cut", [Schema.Array(Piece), Schema.Array(Cut)], ([pieces, cuts]) => {
    const text = pieces.join("")
    const all = bytes(text)
    const places = [0, ...cuts.filter((cut) => cut < all.length).toSorted((a, b) => a - b), all.length]
    const chunks = places.slice(1).map((end, i) => all.slice(places[i], end))
    const expected = text.split("\n").map((line) => bytes(line).length > 10 ? "(too long)" : line)
    if (expected.at(-1) === "") expected.pop()
    expect(told(chunks, 10).out).toEqual(expected)
  })

  it("what all gather is bounded: the longest gives up, is told once, and goes on with its next line", () => {
    const gathering = new Gathering(20_000)
    const lines = Array.from({ length: 3 }, () => {
      const out: Array<string> = []
      return { out, lines: new Lines(15_000, { line: (text) => out.push(`${text.length}`), bad: (why) => out.push(`(${why})`) }, gathering) }
    })
    const [a, b, c] = lines.map(({ lines }) => (length: number, end = "") => lines.push(bytes("x".repeat(length) + end)))
    a?.(9000)
    b?.(8000)
    c?.(100)
    expect(lines.map(({ out }) => out)).toEqual([[], [], []])
    // Short lines count nothing; the one that goes over the bound need not be the longest.
    c?.(5000)
    expect(lines.map(({ out }) => out)).toEqual([["(one too many)"], [], []])
    a?.(4000)
    a?.(1000, "\n")
    a?.(7, "\n")
    b?.(0, "\n")
    c?.(0, "\n")
    expect(lines.map(({ out }) => out)).toEqual([["(one too many)", "7"], ["8000"], ["5100"]])
    // Those that have ended, or are closed, hold nothing.
    for (let round = 0; round < 10; round++) {
      b?.(14_000)
      lines[1]?.lines.close()
      c?.(14_000, "\n")
    }
    expect(lines.flatMap(({ out }) => out).filter((told) => told === "(one too many)")).toHaveLength(1)
  })

  it("one that is longer than all may be gives up itself", () => {
    const out: Array<string> = []
    const lines = new Lines(100_000, { line: (text) => out.push(`${text.length}`), bad: (why) => out.push(`(${why})`) }, new Gathering(10_000))
    for (let i = 0; i < 5; i++) lines.push(bytes("x".repeat(5000)))
    lines.push(bytes("\nabc\n"))
    expect(out).toEqual(["(one too many)", "3"])
  })
})
