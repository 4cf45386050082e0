// The thread that moves what was committed from the log into the database, on real files.
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Checkpointer from "../../../src/store/internal/Checkpointer.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-checkpointer-"))
afterAll(() => Fs.rmSync(folder, { recursive: true }))
let files = 0

/** A database in WAL mode that nothing but the checkpointer, or SQLite from `Checkpointer.pages` on, looks after. */
const open = () => {
  const filename = Path.join(folder, `${++files}.db`)
  const db = new DatabaseSync(filename)
  db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = ${Checkpointer.pages}; CREATE TABLE t (a TEXT)`)
  const insert = db.prepare("INSERT INTO t VALUES (?)")
  return { filename, db, commit: (pages: number) => insert.run("x".repeat(4096 * pages)) }
}

const log = (db: DatabaseSync) => {
  const { checkpointed, log } = db.prepare("PRAGMA wal_checkpoint(NOOP)").get() ?? {}
  return { log: Number(log), checkpointed: Number(checkpointed) }
}

const limit = (db: DatabaseSync) => Number(Object.values(db.prepare("PRAGMA wal_autocheckpoint").get() ?? {})[0])

/** Lets the other thread run until this is so. */
const until = (holds: () => boolean) =>
  Effect.promise(async () => {
    while (!holds()) await new Promise((resolve) => setTimeout(resolve, 2))
  })

describe("Checkpointer", () => {
  it.live("while much is written a thread moves it: the commits themselves move nothing", () =>
    Effect.scoped(Effect.gen(function*() {
      const { commit, db, filename } = open()
      const { committed } = yield* Checkpointer.make(db, filename, "NORMAL")
      expect(limit(db)).toBe(Checkpointer.pages)
      for (let i = 0; i < 60; i++) {
        commit(10)
        committed()
      }
      // The log is long, and no commit has moved any of it: that is the thread's.
      expect(limit(db)).toBeGreaterThan(Checkpointer.pages)
      yield* until(() => {
        commit(1)
        committed()
        return log(db).checkpointed > 500
      })
      expect(Number(db.prepare("SELECT count(*) AS n FROM t").get()?.["n"])).toBeGreaterThan(60)
    })))

  it.live("a store that is written little never has a thread", () =>
    Effect.scoped(Effect.gen(function*() {
      const { commit, db, filename } = open()
      const { committed } = yield* Checkpointer.make(db, filename, "NORMAL")
      for (let i = 0; i < 40; i++) {
        commit(10)
        committed()
      }
      expect(limit(db)).toBe(Checkpointer.pages)
      expect(log(db).checkpointed).toBe(0)
    })))

  it.live("its thread has let go of the file when the scope closes: the last to close it removes the log", () =>
    Effect.gen(function*() {
      const { commit, db, filename } = open()
      const scope = yield* Scope.make()
      const { committed } = yield* Scope.provide(Checkpointer.make(db, filename, "NORMAL"), scope)
      for (let i = 0; i < 100; i++) {
        commit(10)
        committed()
      }
      expect(limit(db)).toBeGreaterThan(Checkpointer.pages)
      yield* Scope.close(scope, Exit.void)
      db.close()
      expect(Fs.existsSync(`${filename}-wal`)).toBe(false)
      const again = new DatabaseSync(filename, { readOnly: true })
      expect(again.prepare("SELECT count(*) AS n FROM t").get()?.["n"]).toBe(100)
      again.close()
    }))

  it.live("where the thread cannot work SQLite moves it within commits, as ever", () =>
    Effect.scoped(Effect.gen(function*() {
      const { commit, db } = open()
      const { committed } = yield* Checkpointer.make(db, Path.join(folder, "no", "such", "folder.db"), "NORMAL")
      for (let i = 0; i < 60; i++) {
        commit(10)
        committed()
      }
      expect(limit(db)).toBeGreaterThan(Checkpointer.pages)
      yield* until(() => limit(db) === Checkpointer.pages)
      // Without asking again, so that SQLite alone is left: when all of the log was moved, it begins anew.
      for (let i = 0; i < 60; i++) commit(10)
      expect(log(db).log).toBeLessThan(Checkpointer.pages)
    })))
})
