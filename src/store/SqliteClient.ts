/**
 * A `SqlClient` over Node's own SQLite, with the shape of the official driver: `SqliteClient.layer({ filename })`
 * provides `SqliteClient` and `SqlClient`.
 *
 * The rule: one connection, lent to one fiber at a time. A statement borrows it; a transaction, a `Stream` and `reserve`
 * hold it until they end. A failure is a `SqlError` whose reason says what kind (unique violation, lock, …).
 *
 * **Example**
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const sql = yield* SqlClient.SqlClient
 *   yield* sql`INSERT INTO people ${sql.insert({ name: "Ann" })}`
 *   return yield* sql`SELECT name FROM people`
 * }).pipe(Effect.provide(SqliteClient.layer({ filename: "people.db" })))
 * ```
 *
 * **Gotchas** Statements run synchronously, on the thread of the event loop. A `Stream` holds the only connection until
 * it ends: inside it, another statement of the same client waits for ever. Rows have no prototype. Integers
 * beyond 2^53 fail unless `readBigInts` is set.
 *
 * `@effect/sql-sqlite-node` has no release for Effect 4.1 yet; this can then be replaced by it, except for `use`.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import { classifySqliteError, SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite"
import { sentenceOf } from "../event/KsiError.ts"
import { BoundedMap } from "./internal/BoundedMap.ts"

/** How the database is opened. */
export interface SqliteClientConfig {
  /** A path, or `:memory:`. */
  readonly filename: string
  readonly readonly?: boolean | undefined
  /** Leaves the journal mode as it is; else WAL. */
  readonly disableWAL?: boolean | undefined
  /** Integers come as `bigint`. */
  readonly readBigInts?: boolean | undefined
  /** How long a statement waits for another process's lock, in milliseconds; blocks the event loop. Default: 500. */
  readonly busyTimeout?: number | undefined
  readonly spanAttributes?: Record<string, unknown> | undefined
  readonly transformResultNames?: ((name: string) => string) | undefined
  readonly transformQueryNames?: ((name: string) => string) | undefined
}

/** A `SqlClient` for one SQLite database. */
export interface SqliteClient extends SqlClient.SqlClient {
  readonly config: SqliteClientConfig
  /**
   * Runs a synchronous function on the connection, while nobody else has it; what it throws becomes a `SqlError`.
   * It waits where a transaction is open, also that of its own caller: use it outside of `withTransaction`.
   */
  readonly use: <A>(f: (db: DatabaseSync) => A) => Effect.Effect<A, SqlError>
}

/** The SQLite client. */
export const SqliteClient = Context.Service<SqliteClient>("ksi/store/SqliteClient")

const cachedStatements = 128
const streamRows = 128
const defaultBusyMillis = 500

const sqlError = (cause: unknown, operation: string): SqlError => {
  // node:sqlite calls SQLite's code `errcode`; the classifier looks for `errno`.
  if (cause instanceof Error && "errcode" in cause) Object.assign(cause, { errno: cause.errcode })
  const message = sentenceOf(cause)
  return new SqlError({ reason: classifySqliteError(cause, { message, operation }) })
}

const attempt = <A>(operation: string, f: () => A): Effect.Effect<A, SqlError> =>
  Effect.try({ try: f, catch: (cause) => sqlError(cause, operation) })

/** What SQLite can bind: a boolean is 0 or 1, a date is its text. */
const bind = (params: ReadonlyArray<unknown>): Array<SQLInputValue> =>
  params.map((value) => {
    if (typeof value === "boolean") return value ? 1 : 0
    if (value instanceof Date) return value.toISOString()
    // Anything else that cannot be bound is refused by SQLite itself, by name.
    return (value ?? null) as SQLInputValue
  })

interface SqliteConnection extends Connection {
  readonly db: DatabaseSync
}

const makeConnection = (db: DatabaseSync, readBigInts: boolean): SqliteConnection => {
  const cache = new BoundedMap<string, StatementSync>(cachedStatements)
  const prepare = (sql: string): StatementSync => db.prepare(sql, { readBigInts })
  const prepared = (sql: string): StatementSync => {
    const known = cache.get(sql)
    if (known !== undefined) return known
    const statement = prepare(sql)
    cache.set(sql, statement)
    return statement
  }
  const values = (sql: string, params: ReadonlyArray<unknown>): ReadonlyArray<ReadonlyArray<unknown>> =>
    // With returnArrays a row is an array; the type library knows only objects.
    db.prepare(sql, { readBigInts, returnArrays: true }).all(...bind(params)) as unknown as ReadonlyArray<ReadonlyArray<unknown>>
  const rows = (statement: (sql: string) => StatementSync): Connection["execute"] => (sql, params, transform) =>
    attempt("execute", () => (transform ?? identity)(statement(sql).all(...bind(params))))
  return {
    db,
    execute: rows(prepared),
    executeUnprepared: rows(prepare),
    executeRaw: (sql, params) => attempt("executeRaw", () => prepared(sql).run(...bind(params))),
    executeValues: (sql, params) => attempt("executeValues", () => values(sql, params)),
    executeValuesUnprepared: (sql, params) => attempt("executeValues", () => values(sql, params)),
    executeStream: (sql, params, transform) => streamRowsOf(() => prepare(sql).iterate(...bind(params)), transform)
  }
}

/** Rows in chunks, read when asked for; leaving early gives the statement back. */
const streamRowsOf = (
  iterate: () => NodeJS.Iterator<object>,
  transform: Parameters<Connection["execute"]>[2]
): ReturnType<Connection["executeStream"]> =>
  Stream.unwrap(Effect.map(
    Effect.acquireRelease(attempt("executeStream", iterate), (iterator) => Effect.sync(() => iterator.return?.())),
    (iterator) =>
      Stream.paginate(undefined, () =>
        attempt("executeStream", () => {
          const rows: Array<object> = []
          let row = iterator.next()
          while (row.done !== true && rows.push(row.value) < streamRows) row = iterator.next()
          return [transform === undefined ? rows : transform(rows), row.done === true ? Option.none() : Option.some(undefined)] as const
        }))
  ))

const open = (config: SqliteClientConfig): DatabaseSync => {
  const db = new DatabaseSync(config.filename, {
    readOnly: config.readonly ?? false,
    timeout: config.busyTimeout ?? defaultBusyMillis
  })
  if (config.disableWAL !== true && config.readonly !== true) db.exec("PRAGMA journal_mode = WAL")
  return db
}

/** Opens a client; its scope closes the database. Fails with `SqlError` where the file cannot be opened. */
export const make = (
  config: SqliteClientConfig
): Effect.Effect<SqliteClient, SqlError, Scope.Scope | Reactivity.Reactivity> =>
  Effect.gen(function*() {
    const { transformQueryNames, transformResultNames } = config
    const db = yield* Effect.acquireRelease(attempt("open", () => open(config)), (db) =>
      Effect.ignore(attempt("close", () => db.close())))
    const semaphore = Semaphore.makeUnsafe(1)
    const lending = SqlClient.makeSqliteAcquirers({
      connection: Effect.succeed(makeConnection(db, config.readBigInts ?? false)),
      semaphore,
      isTransaction: ({ db }) => db.isTransaction
    })
    const client = yield* SqlClient.make({
      ...lending,
      driver: "sqlite-node",
      compiler: Statement.makeCompilerSqlite(transformQueryNames),
      releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
      prepareTransactionControls: true,
      spanAttributes: [...Object.entries(config.spanAttributes ?? {}), ["db.system.name", "sqlite"]],
      transformRows: transformResultNames === undefined
        ? undefined
        : Statement.defaultTransforms(transformResultNames).array
    })
    return Object.assign(client, {
      config,
      use: <A>(f: (db: DatabaseSync) => A) => lending.borrower(() => attempt("use", () => f(db)))
    })
  })

/** The client as `SqliteClient` and as `SqlClient`. */
export const layer = (
  config: SqliteClientConfig
): Layer.Layer<SqliteClient | SqlClient.SqlClient, SqlError> =>
  Layer.effectContext(
    Effect.map(make(config), (client) =>
      Context.make(SqliteClient, client).pipe(Context.add(SqlClient.SqlClient, client)))
  ).pipe(Layer.provide(Reactivity.layer))
