// The dead letters, in memory and in a real SQLite file.
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Logger, Metric } from "effect"
import { TestClock } from "effect/testing"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { DeadLetters, type NewLetter } from "../../src/bus/DeadLetters.ts"
import * as Json from "../../src/event/Json.ts"
import type { KsiError } from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as DeadLetterTable from "../../src/store/DeadLetterTable.ts"
import * as StoreFile from "../../src/store/internal/StoreFile.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-dead-letters-"))
afterAll(() => Fs.rmSync(folder, { recursive: true }))
let files = 0
const fresh = () => Path.join(folder, `${++files}.db`)

const inFile = (filename = fresh()) =>
  DeadLetterTable.layer.pipe(
    Layer.provideMerge(Layer.effect(StoreFile.StoreFile, StoreFile.make({ filename, sync: "normal" })))
  )
const bounded = (limits: Partial<Limits.LimitsShape>) =>
  Effect.provideService(Limits.Limits, { ...Limits.defaults, ...limits })

type Event = NewLetter["event"]
const letter = (id: string, event: Partial<Event> = {}, more: Partial<NewLetter> = {}): NewLetter => ({
  handler: "stock:reserved#1",
  reason: "failed",
  error: "no paper",
  timestamp: 5,
  event: { id, name: "stock:reserved", data: { sku: "tea" }, streamId: "stock-tea", position: 7, attributes: {}, ...event },
  ...more
})
const ids = (page: { readonly letters: ReadonlyArray<{ readonly event: Event }> }) => page.letters.map(({ event }) => event.id)
const reason = <A, R>(effect: Effect.Effect<A, KsiError, R>) => Effect.map(Effect.flip(effect), (error) => error.reason)

const kinds: ReadonlyArray<readonly [name: string, layer: () => Layer.Layer<DeadLetters, KsiError>]> = [
  ["in memory", () => DeadLetterTable.layerMemory],
  ["in a file", () => inFile()]
]

for (const [name, make] of kinds) {
  describe(name, () => {
    it.effect("keeps the event as the handler got it", () =>
      Effect.gen(function*() {
        const dead = yield* DeadLetters
        const data = Json.parse("{\"n\":12345678901234567890,\"s\":\"ü\\ud800\",\"none\":null}")
        const first = letter("a", { data, attributes: { traceparent: "00-1", depth: 2 } }, { reason: "timed-out" })
        dead.record(first)
        dead.record(letter("b", { data: undefined, streamId: undefined, position: undefined }))
        const { letters, total } = yield* dead.list({ limit: 10 })
        expect(total).toBe(2)
        expect(letters[1]).toEqual({ ...first, letter: 1, reruns: 0 })
        expect(JSON.stringify(letters[1]?.event.data)).toBe(JSON.stringify(data))
        expect(letters[0]?.event).toEqual({ ...letter("b").event, data: undefined, streamId: undefined, position: undefined })
        expect(yield* dead.get(2)).toEqual(letters[0])
      }).pipe(Effect.provide(make())))

    it.effect("what is changed afterwards is not changed here", () =>
      Effect.gen(function*() {
        const dead = yield* DeadLetters
        const data = { n: 1 }
        dead.record(letter("a", { data }))
        data.n = 2
        expect((yield* dead.get(1)).event.data).toEqual({ n: 1 })
      }).pipe(Effect.provide(make())))

    it.effect("data without JSON are left out, with a note", () =>
      Effect.gen(function*() {
        const dead = yield* DeadLetters
        dead.record(letter("a", { data: 1n }))
        const { error, event } = yield* dead.get(1)
        expect(error).toMatch(/^no paper; its data could not be kept: .*BigInt/)
        expect(event).toEqual({ ...letter("a").event, data: undefined })
      }).pipe(Effect.provide(make())))

    it.effect("lists newest first, by pattern, in pages that new letters do not disturb", () =>
      Effect.gen(function*() {
        const dead = yield* DeadLetters
        for (let n = 1; n <= 6; n++) dead.record(letter(`${n}`, { name: n % 2 === 0 ? "order:placed" : "stock:level:set" }))
        expect(ids(yield* dead.list({ limit: 9 }))).toEqual(["6", "5", "4", "3", "2", "1"])
        const first = yield* dead.list({ patterns: ["stock:*"], limit: 2 })
        expect([ids(first), first.total]).toEqual([["5", "3"], 3])
        dead.record(letter("7", { name: "stock:gone" }))
        const second = yield* dead.list({ patterns: ["stock:*"], limit: 2, after: first.letters.at(-1)?.letter })
        expect([ids(second), second.total]).toEqual([["1"], 4])
        expect(ids(yield* dead.list({ patterns: ["stock:level:set", "order:placed"], limit: 9 }))).toHaveLength(6)
        expect(yield* dead.list({ patterns: [], limit: 9 })).toEqual({ letters: [], total: 0 })
        expect(yield* dead.list({ limit: 0 })).toEqual({ letters: [], total: 7 })
        expect(yield* reason(dead.list({ patterns: ["st*ck"], limit: 9 }))).toMatchObject({ _tag: "PatternInvalid", pattern: "st*ck" })
      }).pipe(Effect.provide(make())))

    it.effect("a page has bounded bytes, and one letter at least", () =>
      Effect.gen(function*() {
        const dead = yield* DeadLetters
        for (let n = 1; n <= 5; n++) dead.record(letter(`${n}`, { data: "x".repeat(n === 3 ? 5000 : 300) }))
        const pages: Array<ReadonlyArray<string>> = []
        for (let after: number | undefined;;) {
          const { letters } = yield* dead.list({ limit: 9, after })
          if (letters.length === 0) break
          pages.push(letters.map(({ event }) => event.id))
          after = letters.at(-1)?.letter
        }
        expect(pages).toEqual([["5", "4"], ["3"], ["2", "1"]])
      }).pipe(Effect.provide(make()), bounded({ pageBytes: 1000 })))

    it.effect("counts reruns with their errors, and discards", () =>
      Effect.gen(function*() {
        const dead = yield* DeadLetters
        for (const id of ["a", "b", "c"]) dead.record(letter(id))
        yield* dead.rerun(2, "still no paper")
        yield* dead.rerun(2, "out of ink")
        expect(yield* dead.get(2)).toEqual({ ...letter("b"), error: "out of ink", letter: 2, reruns: 2 })
        expect(yield* dead.discard([1, 2, 2, 99])).toBe(2)
        expect(ids(yield* dead.list({ limit: 9 }))).toEqual(["c"])
        for (const gone of [dead.get(2), dead.rerun(2, "no")]) {
          expect(yield* reason(gone)).toMatchObject({ _tag: "NotFound", what: "dead letter", id: "2", next: "ksi dead ls" })
        }
        yield* dead.discard([3])
        dead.record(letter("d"))
        expect((yield* dead.list({ limit: 1 })).letters[0]?.letter).toBe(4)
      }).pipe(Effect.provide(make())))

    it.effect("the oldest go first, however they come", () =>
      Effect.gen(function*() {
        const dead = yield* DeadLetters
        for (let n = 1; n <= 25; n++) {
          dead.record(letter(`${n}`))
          if (n % 3 === 0 || n > 20) yield* dead.list({ limit: 1 })
        }
        yield* dead.discard([20])
        dead.record(letter("26"))
        const { letters, total } = yield* dead.list({ limit: 99 })
        expect(total).toBe(10)
        expect([letters[0]?.event.id, letters.at(-1)?.event.id]).toEqual(["26", "16"])
        // More at once than are kept: those that are kept are the newest.
        for (let n = 27; n <= 60; n++) dead.record(letter(`${n}`))
        expect(ids(yield* dead.list({ limit: 99 }))).toEqual(Array.from({ length: 10 }, (_, i) => `${60 - i}`))
      }).pipe(Effect.provide(make()), bounded({ deadLetters: 10 })))
  })
}

const stored = Effect.map(StoreFile.StoreFile, ({ db }) => StoreFile.number(db, "SELECT count(*) FROM dead_letters"))

describe("written behind", () => {
  it.effect("a batch is written 25 ms after its first letter; a full buffer at once", () =>
    Effect.gen(function*() {
      const dead = yield* DeadLetters
      yield* TestClock.adjust("1 hour")
      dead.record(letter("a"))
      yield* TestClock.adjust("24 millis")
      expect(yield* stored).toBe(0)
      yield* TestClock.adjust("1 millis")
      expect(yield* stored).toBe(1)
      for (let n = 0; n < 10; n++) dead.record(letter(`${n}`))
      yield* TestClock.adjust("0 millis")
      expect(yield* stored).toBe(10)
    }).pipe(Effect.provide(inFile()), bounded({ deadLetters: 10 })))

  it.effect("what would not be kept is not written either", () =>
    Effect.gen(function*() {
      const dead = yield* DeadLetters
      for (let n = 1; n <= 1000; n++) dead.record(letter(`${n}`))
      const { letters } = yield* dead.list({ limit: 1 })
      expect(letters.map(({ event, letter }) => [letter, event.id])).toEqual([[10, "1000"]])
    }).pipe(Effect.provide(inFile()), bounded({ deadLetters: 10 })))

  it.effect("closing writes the rest; numbers go on where they were, reruns stay", () => {
    const filename = fresh()
    const opened = <A>(f: (dead: DeadLetters["Service"]) => Effect.Effect<A, KsiError>) =>
      Effect.scoped(Effect.provide(Effect.flatMap(DeadLetters, f), inFile(filename)))
    return Effect.gen(function*() {
      yield* opened((dead) => Effect.sync(() => [letter("a"), letter("b")].forEach(dead.record)))
      yield* opened((dead) => Effect.andThen(dead.rerun(1, "again"), dead.discard([2])))
      yield* opened((dead) => Effect.sync(() => dead.record(letter("c"))))
      const { letters } = yield* opened((dead) => dead.list({ limit: 9 }))
      expect(letters.map(({ error, event, letter, reruns }) => [letter, event.id, error, reruns])).toEqual([
        [3, "c", "no paper", 0], [1, "a", "again", 1]
      ])
    })
  })

  it.effect("a bound that was lowered is reached step by step", () => {
    const filename = fresh()
    return Effect.gen(function*() {
      yield* Effect.scoped(Effect.provide(
        Effect.map(DeadLetters, (dead) => Array.from({ length: 20 }, (_, n) => dead.record(letter(`${n}`)))),
        inFile(filename)
      ))
      yield* Effect.gen(function*() {
        const dead = yield* DeadLetters
        const totals: Array<number> = []
        for (let n = 0; n < 16; n++) {
          dead.record(letter("new"))
          totals.push((yield* dead.list({ limit: 0 })).total)
        }
        expect(totals.slice(0, 3)).toEqual([19, 18, 17])
        expect(totals.slice(-2)).toEqual([5, 5])
      }).pipe(Effect.provide(inFile(filename)), bounded({ deadLetters: 5 }))
    })
  })

  it.effect("a disk that is full fails nobody, is said once and counted", () => {
    const logged: Array<unknown> = []
    const capture = Logger.layer([Logger.make(({ message }) => void logged.push(message))])
    return Effect.gen(function*() {
      const dead = yield* DeadLetters
      const { db } = yield* StoreFile.StoreFile
      db.exec(`PRAGMA max_page_count = ${StoreFile.number(db, "PRAGMA page_count")}`)
      for (let n = 0; n < 3; n++) {
        dead.record(letter("lost", { data: "x".repeat(50_000) }))
        expect((yield* dead.list({ limit: 9 })).total).toBe(0)
      }
      expect(logged).toHaveLength(1)
      db.exec("PRAGMA max_page_count = 1000000")
      dead.record(letter("after"))
      expect(ids(yield* dead.list({ limit: 9 }))).toEqual(["after"])
      const snapshot = yield* Metric.snapshot
      expect(snapshot.find(({ id }) => id === "ksi_dead_letters_lost")).toMatchObject({ state: { count: 3 } })
    }).pipe(Effect.provide(Layer.merge(inFile(), capture)), Effect.provideService(Metric.MetricRegistry, new Map()))
  })
})
