// The SQL client on real database files.
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Stream } from "effect"
import { SqlClient } from "effect/sql"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as SqliteClient from "../../src/store/SqliteClient.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-client-"))
afterAll(() => Fs.rmSync(folder, { recursive: true }))
let files = 0
const fresh = () => Path.join(folder, `${++files}.db`)

const table = Effect.gen(function*() {
  const sql = yield* SqliteClient.SqliteClient
  yield* sql`CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT UNIQUE, age INTEGER CHECK (age >= 0))`
  return sql
})
const provided = <A, E>(
  effect: Effect.Effect<A, E, SqliteClient.SqliteClient | SqlClient.SqlClient>,
  config?: Partial<SqliteClient.SqliteClientConfig>
) => Effect.provide(effect, SqliteClient.layer({ filename: fresh(), ...config }))

describe("SqliteClient", () => {
  it.effect("inserts, returns, reads rows, values and raw results", () =>
    provided(Effect.gen(function*() {
      const sql = yield* table
      const inserted = yield* sql`INSERT INTO people ${sql.insert([{ name: "Ann", age: 1 }, { name: "Bob", age: 2 }])} RETURNING id`
      expect(inserted.map((row) => row["id"])).toEqual([1, 2])
      const rows = yield* sql<{ name: string }>`SELECT name FROM people WHERE age IN ${sql.in([2, 3])}`
      expect(rows.map((row) => row.name)).toEqual(["Bob"])
      expect(yield* sql`SELECT id, name FROM people ORDER BY id`.values).toEqual([[1, "Ann"], [2, "Bob"]])
      expect(yield* sql`UPDATE people SET age = 9`.raw).toMatchObject({ changes: 2 })
      const other = yield* SqlClient.SqlClient
      expect((yield* other`SELECT count(*) AS n FROM people`)[0]).toMatchObject({ n: 2 })
      expect(other.driver).toBe("sqlite-node")
      expect(yield* sql`SELECT ${true} AS yes, ${null} AS empty, ${new Date(0)} AS at`.values)
        .toEqual([[1, null, "1970-01-01T00:00:00.000Z"]])
    })))

  it.effect("renames columns as told, and reads big integers as told", () =>
    provided(Effect.gen(function*() {
      const sql = yield* SqliteClient.SqliteClient
      yield* sql`CREATE TABLE t (first_name TEXT, n INTEGER)`
      yield* sql`INSERT INTO t ${sql.insert({ firstName: "Ann", n: 2n ** 60n })}`
      expect((yield* sql`SELECT * FROM t`)[0]).toMatchObject({ firstName: "Ann", n: 2n ** 60n })
    }), {
      readBigInts: true,
      transformQueryNames: (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      transformResultNames: (name) => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())
    }))

  it.effect("a failure says what kind it is", () =>
    provided(Effect.gen(function*() {
      const sql = yield* table
      const kind = (statement: Effect.Effect<unknown, { readonly reason: { readonly _tag: string } }>) =>
        Effect.map(Effect.flip(statement), (error) => error.reason._tag)
      yield* sql`INSERT INTO people (name) VALUES ('Ann')`
      const unique = yield* Effect.flip(sql`INSERT INTO people (name) VALUES ('Ann')`)
      expect(unique.reason).toMatchObject({ _tag: "UniqueViolation", constraint: "people.name" })
      expect(yield* kind(sql`INSERT INTO people (age) VALUES (-1)`)).toBe("ConstraintError")
      expect(yield* kind(sql`SELECT * FROM nowhere`)).toBe("UnknownError")
      expect(yield* kind(sql.use((db) => db.exec("nonsense")))).toBe("UnknownError")
      expect(yield* kind(sql`SELECT ${Symbol("s") as unknown as string}`)).toBe("UnknownError")
    })))

  it.effect("a file that cannot be opened is a ConnectionError, a locked one a LockTimeoutError", () =>
    Effect.gen(function*() {
      const missing = yield* Effect.flip(Effect.scoped(Effect.provide(table, SqliteClient.layer({ filename: Path.join(folder, "no", "x.db") }))))
      expect(missing.reason._tag).toBe("ConnectionError")
      const filename = fresh()
      const locked = yield* Effect.flip(provided(Effect.gen(function*() {
        const sql = yield* table
        yield* sql.use((db) => db.exec("BEGIN IMMEDIATE"))
        return yield* Effect.provide(
          Effect.flatMap(SqliteClient.SqliteClient, (second) => second`DELETE FROM people`),
          SqliteClient.layer({ filename, busyTimeout: 1 }),
          { local: true }
        )
      }), { filename }))
      expect(locked.reason._tag).toBe("LockTimeoutError")
    }))

  it.effect("a transaction is all or nothing, a savepoint too, and callbacks run after the commit", () =>
    provided(Effect.gen(function*() {
      const sql = yield* table
      const names = Effect.map(sql`SELECT name FROM people ORDER BY id`.values, (rows) => rows.flat())
      const insert = (name: string) => sql`INSERT INTO people ${sql.insert({ name })}`
      yield* Effect.exit(sql.withTransaction(Effect.andThen(insert("gone"), Effect.fail("no"))))
      expect(yield* names).toEqual([])
      const heard: Array<string> = []
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* insert("Ann")
        yield* Effect.exit(sql.withTransaction(Effect.andThen(insert("gone"), Effect.fail("no"))))
        yield* sql.withTransaction(insert("Bob"))
        yield* sql.afterCommit(Effect.sync(() => heard.push("committed")))
        expect(heard).toEqual([])
      }))
      expect(yield* names).toEqual(["Ann", "Bob"])
      expect(heard).toEqual(["committed"])
    })))

  it.effect("transactions of many fibers do not mix, and an interrupted one is rolled back", () =>
    provided(Effect.gen(function*() {
      const sql = yield* table
      const started = yield* Deferred.make<void>()
      const holder = yield* Effect.forkChild(sql.withTransaction(Effect.gen(function*() {
        yield* sql`INSERT INTO people (name) VALUES ('gone')`
        yield* Deferred.succeed(started, undefined)
        return yield* Effect.never
      })))
      yield* Deferred.await(started)
      const waiter = yield* Effect.forkChild(sql`SELECT 1`)
      const user = yield* Effect.forkChild(sql.use((db) => db.isTransaction))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(waiter)
      yield* Fiber.interrupt(holder)
      expect(yield* Fiber.join(user)).toBe(false)
      yield* Effect.forEach(Array.from({ length: 100 }, (_, i) => i), (i) =>
        sql.withTransaction(Effect.gen(function*() {
          yield* sql`INSERT INTO people ${sql.insert({ name: `p${i}` })}`
          yield* Effect.yieldNow
          if (i % 2 === 1) return yield* Effect.fail("odd")
          return yield* Effect.void
        })).pipe(Effect.ignore), { concurrency: "unbounded" })
      expect(yield* sql`SELECT count(*) FROM people`.values).toEqual([[50]])
    })))

  it.effect("a failed COMMIT leaves the connection usable", () =>
    provided(Effect.gen(function*() {
      const sql = yield* table
      yield* sql`PRAGMA foreign_keys = ON`
      yield* sql`CREATE TABLE pets (owner INTEGER REFERENCES people (id) DEFERRABLE INITIALLY DEFERRED)`
      const exit = yield* Effect.exit(sql.withTransaction(sql`INSERT INTO pets VALUES (7)`))
      expect(Exit.isFailure(exit)).toBe(true)
      yield* sql.withTransaction(sql`INSERT INTO people (name) VALUES ('Ann')`)
      expect(yield* sql`SELECT (SELECT count(*) FROM pets), (SELECT count(*) FROM people)`.values).toEqual([[0, 1]])
    })))

  it.effect("streams in chunks, and leaving early gives the connection back", () =>
    provided(Effect.gen(function*() {
      const sql = yield* SqliteClient.SqliteClient
      const numbers = sql<{ n: number }>`WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 1000) SELECT n FROM r`.stream
      const sum = yield* Stream.runFold(numbers, () => 0, (total, row) => total + row.n)
      expect(sum).toBe(500_500)
      const exact = yield* Stream.runCollect(Stream.take(numbers, 256))
      expect(exact.at(-1)?.n).toBe(256)
      expect(yield* sql`SELECT 1`.values).toEqual([[1]])
      const failed = yield* Effect.flip(Stream.runDrain(sql`SELECT * FROM nowhere`.stream))
      expect(failed._tag).toBe("SqlError")
    })))

  it.effect("what is committed is there after closing and opening; a read-only client cannot write", () =>
    Effect.gen(function*() {
      const filename = fresh()
      yield* provided(Effect.flatMap(table, (sql) => sql`INSERT INTO people (name) VALUES ('Ann')`), { filename })
      yield* provided(Effect.gen(function*() {
        const sql = yield* SqliteClient.SqliteClient
        expect(yield* sql`SELECT name FROM people`.values).toEqual([["Ann"]])
        const error = yield* Effect.flip(sql`DELETE FROM people`)
        expect(error.reason.message).toContain("readonly")
      }), { filename, readonly: true })
    }))
})
