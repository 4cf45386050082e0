import { describe, expect, it } from "@effect/vitest"
import { Effect, JsonPatch, Schema } from "effect"
import { parseTime } from "../../src/event/CloudEvent.ts"
import * as Json from "../../src/event/Json.ts"
import * as Difference from "../../src/store/Difference.ts"
import * as Projection from "../../src/store/Projection.ts"
import { seeded } from "../Seeded.ts"
import { append, factsOf, memory, stores, streams, valueOf } from "./histories.ts"

const { latest } = Projection
// A patch of ours says nothing that the other implementation does not know.
const applied = (patch: ReadonlyArray<Difference.Operation>, value: unknown) =>
  JsonPatch.apply(patch as JsonPatch.JsonPatch, value as Schema.Json)
const text = (value: unknown) => Json.canonicalText(value)

describe("between", () => {
  it("gives a patch that, applied to the first value, gives the second", () => {
    for (let seed = 0; seed < 2000; seed++) {
      const random = seeded(seed)
      const a = valueOf(random, 3)
      const b = valueOf(random, 3)
      const changes = Difference.between(a, b)
      expect(text(applied(Difference.patchOf(changes), a)), `seed ${seed}`).toBe(text(b))
      expect(changes.length === 0, `seed ${seed}`).toBe(text(a) === text(b))
      expect(Difference.words(changes)).toHaveLength(changes.length)
    }
  })
  it.prop("for any JSON", [Schema.Json, Schema.Json], ([a, b]) => {
    const patch = Difference.patchOf(Difference.between(a, b))
    expect(text(applied(patch, a))).toBe(text(b))
    expect(Difference.between(a, structuredClone(a))).toEqual([])
  }, { arbitrary: { runs: 300 } })

  it("says what was taken out of the middle of a list, not that all the rest has moved", () => {
    const words = (a: unknown, b: unknown) => Difference.words(Difference.between(a, b))
    expect(words({ l: [1, 2, 3, 4] }, { l: [1, 3, 4] })).toEqual(["l[1] removed (was 2)"])
    expect(words({ l: [1, 2] }, { l: [0, 1, 2] })).toEqual(["l[0] 0 (new)"])
    expect(words([{ n: 1, x: 1 }, 2, 3], [{ n: 1, x: 5 }, 3])).toEqual(["[0].x 1 → 5", "[1] removed (was 2)"])
    expect(words({ l: [{ n: 1 }, 2, 3, 4] }, { l: [2, 5, 4, 6] })).toEqual(["l[0] removed (was {\"n\":1})", "l[1] 3 → 5", "l[3] 6 (new)"])
    expect(words([{ id: 1, q: 1 }, { id: 2, q: 1 }], [{ id: 0 }, { id: 1, q: 1 }, { id: 2, q: 3 }])).toEqual(["[0] {\"id\":0} (new)", "[2].q 1 → 3"])
    expect(words([1, 1, 1], [1])).toEqual(["[2] removed (was 1)", "[1] removed (was 1)"])
  })

  it("leads from one list to another one, whatever they have in common, also where they are long", () => {
    for (let seed = 0; seed < 300; seed++) {
      const random = seeded(seed)
      const list = () => Array.from({ length: random(seed % 30 === 0 ? 600 : 12) }, () => random(5) === 0 ? { n: random(3), m: [random(2)] } : random(6))
      const [a, b] = [list(), list()]
      expect(applied(Difference.patchOf(Difference.between(a, b)), a), `seed ${seed}`).toEqual(b)
    }
  })

  it("is exact about numbers that no double holds", () => {
    const [a, b] = [Json.parse("{\"n\":12345678901234567890}"), Json.parse("{\"n\":12345678901234567891}")]
    expect(Difference.words(Difference.between(a, b))).toEqual(["n 12345678901234567890 → 12345678901234567891"])
    expect(JSON.stringify(Difference.patchOf(Difference.between(a, b)))).toBe("[{\"op\":\"replace\",\"path\":\"/n\",\"value\":12345678901234567891}]")
    expect(Difference.between(a, Json.parse("{\"n\":12345678901234567890}"))).toEqual([])
  })

  it("writes paths for programs and for people, and cuts what is long", () => {
    const path = ["lines", 1, "a/b~", "x-1", "größe"]
    expect(Difference.pointer(path)).toBe("/lines/1/a~1b~0/x-1/größe")
    expect(Difference.pathText(path)).toBe("lines[1][\"a/b~\"].x-1.größe")
    expect(Difference.words(Difference.between(1, "x"))).toEqual(["state 1 → \"x\""])
    const [word] = Difference.words(Difference.between({}, { t: "😀".repeat(200) }))
    expect(word).toMatch(/^t "😀+… \(new\)$/u)
    expect(word?.isWellFormed()).toBe(true)
  })
})

for (const [where, layer] of stores) {
  describe(`diff, ${where}`, () => {
    it.effect("of every pair of moments leads from the one state to the other", () =>
      Effect.gen(function*() {
        yield* append(factsOf(5, 40))
        const moments = [{ position: 1n }, { position: 11n }, { position: 40n }, { instant: parseTime("2026-01-13T00:00:00Z") }, {}]
        for (const a of moments) {
          for (const b of moments) {
            const diffs = yield* Difference.diff(latest, a, b)
            for (const { from, patch, to } of diffs) expect(text(applied(patch, from?.state ?? {}))).toBe(text(to?.state ?? {}))
            for (const streamId of streams) {
              const one = yield* Effect.result(Difference.diff(latest, a, b, { streamId }))
              const all = diffs.find((diff) => diff.streamId === streamId)
              if (one._tag === "Success" && one.success.changes.length > 0) expect(all).toEqual(one.success)
              else expect(all).toBe(undefined)
            }
          }
        }
      }).pipe(Effect.provide(layer)))
  })
}

it.effect("a stream that is not there yet differs from nothing; one that is in neither is not found", () =>
  Effect.gen(function*() {
    yield* append([
      { id: "1", source: "/t", name: "test:n", streamId: "a", data: { x: 1 }, time: undefined, attributes: {} },
      { id: "2", source: "/t", name: "test:n", streamId: "b", data: { y: 2 }, time: undefined, attributes: {} }
    ])
    expect(yield* Difference.diff(latest, { position: 1n }, {}, { streamId: "b" })).toMatchObject({ from: undefined, patch: [{ op: "add", path: "/y", value: 2 }] })
    expect(yield* Difference.diff(latest, {}, { position: 1n }, { streamId: "b" })).toMatchObject({ to: undefined, patch: [{ op: "remove", path: "/y" }] })
    const missing = yield* Effect.flip(Difference.diff(latest, { position: 1n }, { position: 1n }, { streamId: "b" }))
    expect(missing.reason).toMatchObject({ _tag: "NotFound", detail: expect.stringMatching(/^at position 1: it begins at position 2/) })
    const never = yield* Effect.flip(Difference.diff(latest, { position: 1n }, {}, { streamId: "c" }))
    expect(never.reason).toMatchObject({ _tag: "NotFound", what: "stream" })
  }).pipe(Effect.provide(memory)))
