import { describe, expect, it } from "@effect/vitest"
import { Schema } from "effect"
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
})
