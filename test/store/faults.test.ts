// What a disk may do to a store: pages that are not what was written, a log that is cut off, files that are gone or stay.
// Whatever is asked then fails with a typed error or is answered rightly; what a check can tell, `verify` tells.
import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Fs from "node:fs"
import { join } from "node:path"
import type { StoredFact } from "../../src/event/CloudEvent.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import type { EventStore } from "../../src/store/EventStore.ts"
import { checkFile } from "../../src/store/internal/StoreCheck.ts"
import { seeded } from "../Seeded.ts"
import { fill, folder, idsOf, made, opened } from "./files.ts"

const pageBytes = 4096

type Store = EventStore["Service"]

const allOf = (store: Store) => Stream.runCollect(store.all())

/** What was read; `undefined` where that failed as it may. Anything else than a `StoreFailure` is a fault. */
const readable = <A>(effect: Effect.Effect<A, KsiError.KsiError>, seed: number) =>
  Effect.map(Effect.exit(effect), (exit): A | undefined => {
    if (Exit.isSuccess(exit)) return exit.value
    for (const reason of exit.cause.reasons) {
      const typed = reason._tag === "Fail" && ["StoreFailure", "NotFound"].includes(reason.error.reason._tag)
      if (!typed) throw new Error(`seed ${seed}: ${Cause.pretty(exit.cause)}`)
    }
    return undefined
  })

/** Asks a store everything; answers with the facts that it gave. */
const askAll = (store: Store, seed: number, last: number) =>
  Effect.gen(function*() {
    const given: Array<StoredFact> = [...(yield* readable(allOf(store), seed)) ?? []]
    for (let from = 1; from <= last; from += 50) given.push(...(yield* readable(store.read({ from, to: from + 49, limit: 50 }), seed)) ?? [])
    for (let s = 0; s < 10; s++) given.push(...(yield* readable(store.readStream({ streamId: `s-${s}`, from: 1, limit: 1000 }), seed)) ?? [])
    for (const id of ["f-3", "last-7"]) given.push(...(yield* readable(store.byId(id), seed)) ?? [])
    yield* readable(store.streams({ limit: 100 }), seed)
    yield* readable(store.appendTo("s-1", [{ name: "a:b" }]), seed)
    return given
  })

/** Opens a damaged file, and asks everything; nothing where it cannot be opened. */
const asked = (file: string, seed: number, last: number) =>
  Effect.map(readable(opened(file, (store) => askAll(store, seed, last), { indexThreshold: 20 }), seed), (given) => given ?? [])

const textOf = (fact: StoredFact): string => JSON.stringify(fact)

describe("pages that are not what was written", () => {
  const count = 400

  it.live("fail or are right, and are found", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const sound = join(path, "sound.db")
      yield* made(sound, count)
      const bytes = Fs.readFileSync(sound)
      const right = new Map((yield* opened(sound, allOf)).map((fact) => [fact.position, textOf(fact)]))
      const pages = bytes.length / pageBytes
      let refused = 0
      for (let seed = 0; seed < 40; seed++) {
        const random = seeded(seed)
        const file = join(path, `${seed}.db`)
        const damaged = Buffer.from(bytes)
        const page = 1 + random(pages - 1)
        const how = seed % 2
        if (how === 0) damaged.fill(0, page * pageBytes, (page + 1) * pageBytes)
        else for (let i = 0; i < pageBytes; i++) damaged[page * pageBytes + i] = random(256)
        Fs.writeFileSync(file, damaged)
        expect(checkFile(file, false, () => {}).problems.length, `seed ${seed}: page ${page}`).toBeGreaterThan(0)
        const given = yield* asked(file, seed, right.size)
        if (given.length < 3 * right.size) refused++
        // The append at the end makes one more.
        for (const fact of given) expect(textOf(fact), `seed ${seed}: page ${page}`).toBe(right.get(fact.position))
      }
      // The other pages are of tables without rows: nothing that is asked here reads them.
      expect(refused).toBeGreaterThan(10)
    }).pipe(Effect.scoped), 30_000)

  it.live("however few bits are wrong, nothing dies of it", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const sound = join(path, "sound.db")
      yield* made(sound, 100)
      const bytes = Fs.readFileSync(sound)
      let found = 0
      for (let seed = 0; seed < 150; seed++) {
        const random = seeded(seed + 1000)
        const file = join(path, "damaged.db")
        for (const end of ["", "-wal", "-shm"]) Fs.rmSync(`${file}${end}`, { force: true })
        const damaged = Buffer.from(bytes)
        // Most of them where SQLite keeps what it needs to find anything: at the beginning of a page.
        for (let n = 0; n <= random(4); n++) {
          const page = random(bytes.length / pageBytes)
          const at = page * pageBytes + random(random(3) === 0 ? pageBytes : 64)
          damaged[at] = (damaged[at] ?? 0) ^ (1 << random(8))
        }
        Fs.writeFileSync(file, damaged)
        if (checkFile(file, false, () => {}).problems.length > 0) found++
        yield* asked(file, seed, 110)
      }
      expect(found).toBeGreaterThan(50)
    }).pipe(Effect.scoped), 30_000)
})

/** The files as a process leaves them that is killed now. */
const leave = (from: string, to: string, ends: ReadonlyArray<string> = ["", "-wal", "-shm"]): void => {
  for (const end of ends) Fs.copyFileSync(`${from}${end}`, `${to}${end}`)
}

describe("files beside the store", () => {
  it.live("a log without its index of pages holds everything", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const [file, left] = [join(path, "a.db"), join(path, "left.db")]
      yield* opened(file, (store) =>
        Effect.gen(function*() {
          yield* fill(store, 200)
          leave(file, left, ["", "-wal"])
        }))
      expect(checkFile(left, false, () => {}).problems).toEqual([])
      expect(yield* idsOf(left)).toHaveLength(200)
    }).pipe(Effect.scoped))

  it.live("a log that is cut off anywhere holds what was stored before", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const [file, left] = [join(path, "a.db"), join(path, "left.db")]
      const ids: Array<string> = []
      yield* opened(file, (store) =>
        Effect.gen(function*() {
          for (let n = 0; n < 30; n++) yield* fill(store, 5, `f${n}`)
          ids.push(...(yield* allOf(store)).map(({ id }) => id))
          leave(file, left)
        }), { indexThreshold: 20 })
      const log = Fs.readFileSync(`${left}-wal`)
      const database = Fs.readFileSync(left)
      const lengths = new Set<number>()
      for (let seed = 0; seed < 25; seed++) {
        const cut = join(path, `${seed}.db`)
        Fs.writeFileSync(cut, database)
        Fs.writeFileSync(`${cut}-wal`, log.subarray(0, seeded(seed)(log.length)))
        const kept = yield* idsOf(cut)
        lengths.add(kept.length)
        expect(kept).toEqual(ids.slice(0, kept.length))
        expect(checkFile(cut, false, () => {}).problems, `seed ${seed}`).toEqual([])
      }
      expect(lengths.size).toBeGreaterThan(10)
    }).pipe(Effect.scoped))

  it.live("a lock that stays keeps nobody out, one that is no lock is told", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a.db")
      yield* made(file, 10)
      expect(Fs.existsSync(`${file}.lock`)).toBe(true)
      Fs.writeFileSync(`${file}.lock-journal`, "left by somebody")
      expect(yield* idsOf(file)).toHaveLength(20)
      Fs.writeFileSync(`${file}.lock`, "no database ".repeat(100))
      expect(yield* Effect.flip(idsOf(file))).toMatchObject({ reason: { _tag: "StoreFailure", operation: "open" } })
      Fs.rmSync(`${file}.lock`)
      expect(yield* idsOf(file)).toHaveLength(20)
    }).pipe(Effect.scoped))
})

describe("a clock that goes back", () => {
  it.effect("leaves the moments of storing in order, also over a restart", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a.db")
      const moments: Array<readonly [number, number]> = []
      for (const [at, back] of [[50_000, 20_000], [10_000, 70_000]] as const) {
        yield* opened(file, (store) =>
          Effect.gen(function*() {
            for (const millis of [at, back]) {
              yield* TestClock.setTime(millis)
              yield* store.appendTo("a", [{ name: "a:b" }])
            }
            moments.length = 0
            moments.push(...(yield* allOf(store)).map(({ recordedAt, timestamp }) => [recordedAt, timestamp] as const))
          }))
      }
      expect(moments).toEqual([[50_000, 50_000], [50_000, 20_000], [50_000, 10_000], [70_000, 70_000]])
      expect(checkFile(file, false, () => {}).problems).toEqual([])
    }).pipe(Effect.scoped))
})
