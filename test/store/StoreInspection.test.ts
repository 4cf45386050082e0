import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as EventStore from "../../src/store/EventStore.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import { inspect } from "../../src/store/StoreInspection.ts"
import * as Format1 from "./format1.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(join(tmpdir(), "ksi-inspect-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true }))
)

/** Every file of a folder with its content; looking must change none of it. */
const contentOf = (path: string) =>
  Object.fromEntries(Fs.readdirSync(path).toSorted().map((name) => {
    const file = join(path, name)
    return [name, Fs.statSync(file).isFile() ? Fs.readFileSync(file).toString("base64") : "no file"]
  }))

const untouched = (path: string, file: string) =>
  Effect.gen(function*() {
    const before = contentOf(path)
    const found = yield* inspect(file)
    expect(contentOf(path)).toEqual(before)
    return found
  })

const filled = (filename: string) =>
  Effect.gen(function*() {
    const store = yield* EventStore.EventStore
    yield* store.appendTo("cart-1", [{ name: "cart:opened" }, { name: "cart:closed" }])
  }).pipe(Effect.provide(SqliteEventStore.layer({ filename })))

describe("inspect", () => {
  it.live("none, an empty one, what is no file, no database, and another program's", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const file = join(path, "ksi.db")
      const state = Effect.map(untouched(path, file), ({ lock, state }) => {
        expect(lock).toBe("free")
        return state
      })
      expect(yield* state).toEqual({ _tag: "Absent" })
      Fs.symlinkSync(join(path, "nowhere"), join(path, "link"))
      expect((yield* inspect(join(path, "link"))).state).toEqual({ _tag: "Absent" })
      Fs.unlinkSync(join(path, "link"))
      Fs.writeFileSync(file, "")
      expect(yield* state).toEqual({ _tag: "Empty" })
      Fs.linkSync(file, join(path, "second"))
      expect(yield* state).toMatchObject({ _tag: "Unreadable", problem: "it has 2 names (hard links); keep one" })
      Fs.unlinkSync(join(path, "second"))
      Fs.writeFileSync(file, "this is text and no database\n".repeat(500))
      expect(yield* state).toMatchObject({ _tag: "Unreadable", problem: expect.stringContaining("not a database") })
      Fs.unlinkSync(file)
      const other = new DatabaseSync(file)
      other.exec("CREATE TABLE t (a)")
      other.close()
      expect(yield* state).toEqual({ _tag: "Foreign" })
      Fs.unlinkSync(file)
      Fs.mkdirSync(file)
      expect(yield* state).toEqual({ _tag: "Unreadable", problem: "it is not a file" })
    }).pipe(Effect.scoped))

  it.live("a store: its format, its last fact, what was altered", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const file = join(path, "a b?%.db")
      yield* filled(file)
      const { lock, state } = yield* untouched(path, file)
      expect([lock, state]).toEqual(["free", { _tag: "Ready", format: 3, position: 2, recordedAt: expect.any(Number), altered: [] }])
      const db = new DatabaseSync(file)
      db.exec("DROP TABLE dead_letters; ALTER TABLE idempotency ADD COLUMN more")
      db.close()
      expect((yield* inspect(file)).state).toMatchObject({ altered: ["dead_letters", "dead_letters_name", "idempotency"] })
      const newer = new DatabaseSync(file)
      newer.exec("DROP TABLE activity; PRAGMA user_version = 99")
      newer.close()
      expect((yield* inspect(file)).state).toEqual({ _tag: "Newer", format: 99, known: 3 })
    }).pipe(Effect.scoped))

  it.live("one of an older format, which is not altered by being older", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const file = join(path, "ksi.db")
      Format1.make(file, 10)
      expect((yield* untouched(path, file)).state).toEqual({ _tag: "Ready", format: 1, position: 1, recordedAt: 1001, altered: [] })
    }).pipe(Effect.scoped))

  it.live("one that is damaged where its facts are", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const file = join(path, "ksi.db")
      yield* filled(file)
      const bytes = Fs.readFileSync(file)
      Fs.writeFileSync(file, Buffer.concat([bytes.subarray(0, 4096), Buffer.alloc(bytes.length - 4096, 0xee)]))
      expect((yield* untouched(path, file)).state).toMatchObject({ _tag: "Unreadable", problem: expect.stringContaining("malformed") })
    }).pipe(Effect.scoped))

  it.live("one that is written meanwhile, also through a link: what is in its log is seen, and the writer goes on", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const file = join(path, "ksi.db")
      const link = join(path, "link.db")
      yield* Effect.gen(function*() {
        const store = yield* EventStore.EventStore
        yield* store.appendTo("cart-1", [{ name: "cart:opened" }])
        Fs.symlinkSync(file, link)
        for (const name of [file, link]) {
          expect(yield* inspect(name)).toMatchObject({ lock: "held", state: { _tag: "Ready", position: 1 } })
        }
        yield* store.appendTo("cart-1", [{ name: "cart:closed" }])
        expect(yield* inspect(file)).toMatchObject({ lock: "held", state: { position: 2 } })
      }).pipe(Effect.provide(SqliteEventStore.layer({ filename: file })))
      expect(yield* inspect(file)).toMatchObject({ lock: "free", state: { position: 2 } })
    }).pipe(Effect.scoped))

  it.live("looking does not keep a writer from starting", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const file = join(path, "ksi.db")
      for (let i = 0; i < 5; i++) {
        yield* inspect(file)
        yield* Effect.scoped(Layer.build(SqliteEventStore.layer({ filename: file })))
      }
    }).pipe(Effect.scoped))
})
