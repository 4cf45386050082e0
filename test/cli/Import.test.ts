import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import { gunzipSync, gzipSync } from "node:zlib"
import * as Import from "../../src/cli/Import.ts"
import { IoFailed } from "../../src/cli/Io.ts"
import * as Output from "../../src/cli/Output.ts"
import { Kept, world } from "./commandLine.ts"

const cut = (bytes: Uint8Array, size: number) =>
  Stream.fromIterable(Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.slice(i * size, (i + 1) * size))).pipe(
    Stream.rechunk(1)
  )
const text = (stream: Stream.Stream<Uint8Array, IoFailed>) => Stream.mkString(Stream.decodeText(stream))

describe("unpacked", () => {
  const plain = "{\"a\":\"ü\"}\n".repeat(1000)
  for (const size of [1, 2, 7, 65_536]) {
    it.live(`gzip is known by its first bytes, in chunks of ${size}`, () =>
      Effect.gen(function*() {
        expect(yield* text(Import.unpacked(cut(gzipSync(plain), size)))).toBe(plain)
        expect(yield* text(Import.unpacked(cut(Buffer.from("{}\n"), size)))).toBe("{}\n")
      }))
  }
  it.live("nothing, and a single byte, are no gzip", () =>
    Effect.gen(function*() {
      expect(yield* text(Import.unpacked(Stream.empty))).toBe("")
      expect(yield* text(Import.unpacked(cut(Buffer.from("x"), 1)))).toBe("x")
    }))
  it.live("several members are one text", () =>
    Effect.gen(function*() {
      expect(yield* text(Import.unpacked(cut(Buffer.concat([gzipSync("a\n"), gzipSync("b\n")]), 10)))).toBe("a\nb\n")
    }))
  it.live("what is cut off is said so", () =>
    Effect.gen(function*() {
      const packed = gzipSync(plain)
      const error = yield* Effect.flip(text(Import.unpacked(cut(packed.subarray(0, packed.length - 20), 100))))
      expect(error).toEqual(new IoFailed({ stream: "gzip", problem: "the gzip data end too early; the file is cut off" }))
    }))
  it.live("what is damaged is said so", () =>
    Effect.gen(function*() {
      const packed = gzipSync(Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919) % 251)))
      packed.fill(0xff, 30, 60)
      expect(() => gunzipSync(packed)).toThrow()
      const error = yield* Effect.flip(text(Import.unpacked(cut(packed, 100))))
      expect(error.problem).toContain("the gzip data are damaged")
    }))
})

describe("itemsOf", () => {
  it.effect("are batches in the order of the lines, and the lines that are no events", () =>
    Effect.gen(function*() {
      const lines = Array.from({ length: 2500 }, (_, i) => i % 1000 === 7 ? "nope" : `{"i":${i}}`)
      const items = yield* Stream.runCollect(Import.itemsOf(cut(Buffer.from(lines.join("\n")), 1000)))
      const batches = items.flatMap((item) => "batch" in item ? [item.batch] : [])
      expect(batches.map(({ numbers }) => numbers.length)).toEqual([1000, 1000, 497])
      expect(batches.flatMap(({ json }) => JSON.parse(json)).map(({ i }: { i: number }) => i))
        .toEqual(lines.flatMap((line, i) => line === "nope" ? [] : [i]))
      expect(items.flatMap((item) => "bad" in item ? [item.bad.number] : [])).toEqual([8, 1008, 2008])
    }))
})

describe("words", () => {
  const tally = { imported: 0, duplicates: 0, rejected: 0, seconds: 2 }
  it("say what was done", () => {
    expect(Import.sentence({ ...tally, imported: 55_628 })).toBe("imported 55,628 events in 2.0 s (27,814 events/s)")
    expect(Import.sentence({ ...tally, duplicates: 2 })).toBe("nothing new, 2 events there already in 2.0 s (1 events/s)")
    expect(Import.sentence({ ...tally, imported: 1, duplicates: 1, rejected: 1 }))
      .toBe("imported 1 event, 1 event there already, 1 line rejected in 2.0 s (1 events/s)")
    expect(Import.sentence({ ...tally, seconds: 0 })).toBe("imported 0 events in 0.0 s (0 events/s)")
  })
  it("the bar is as wide as fits", () => {
    const done = { ...tally, imported: 500 }
    expect(Import.bar(done, 0.5, 1000, 60)).toBe("[###############--------------]  50 %  500 events  1,000/s")
    expect(Import.bar(done, 0.5, 1000, 30)).toBe(" 50 %  500 events  1,000/s")
    expect(Import.bar(done, undefined, 1000, 60)).toBe("500 events  1,000/s")
    expect(Import.bar(done, 1, 1000, 200).length).toBeLessThan(80)
  })
})

describe("progress", () => {
  const said = (terminal: boolean, json: boolean) =>
    Effect.gen(function*() {
      const stderr = new Kept(terminal)
      const tally = { imported: 0, duplicates: 0, rejected: 0 }
      const seen: Array<string> = []
      yield* Effect.gen(function*() {
        const progress = yield* Import.makeProgress(tally, () => undefined)
        for (const [millis, imported] of [[50, 10], [60, 20], [50, 30], [3000, 4000]] as const) {
          yield* TestClock.adjust(millis)
          tally.imported = imported
          yield* progress.tick
          seen.push(stderr.text)
          stderr.text = ""
        }
        yield* progress.clear
        expect(yield* progress.seconds).toBe(3.16)
      }).pipe(Effect.provide(Layer.mergeAll(world({ stderr }), Layer.succeed(Output.Json, json))))
      return [...seen, stderr.text]
    })
  it.effect("is written over on a terminal, ten times a second, and gone at the end", () =>
    Effect.gen(function*() {
      expect(yield* said(true, false)).toEqual(["", "\r20 events  182/s\u001b[K", "", "\r4,000 events  1,266/s\u001b[K", "\r\u001b[K"])
    }))
  it.effect("is a line every few seconds elsewhere", () =>
    Effect.gen(function*() {
      expect(yield* said(false, false)).toEqual(["", "", "", "4,000 events  1,266/s\n", ""])
    }))
  it.effect("is silent for programs", () =>
    Effect.gen(function*() {
      expect(yield* said(true, true)).toEqual(["", "", "", "", ""])
    }))
})
