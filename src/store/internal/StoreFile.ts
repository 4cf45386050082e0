/**
 * One database file of KSI: opened, recognised, locked against a second writer, and laid out.
 *
 * The rule: a file that is not KSI's, or that a newer KSI made, is refused before anything is written to it. The writer
 * holds an exclusive transaction on `<file>.lock` (a database of its own); the kernel frees it when the process dies.
 *
 * Everything of KSI that writes this file uses this one connection, in transactions that begin and end within one turn
 * of the event loop. So no statement ever waits for another fiber, and no fiber can hold the file across a suspension.
 *
 * **Example**
 *
 * ```ts
 * const file = yield* StoreFile.make({ filename: "var/ksi.db" })
 * file.transaction(() => file.db.exec("DELETE FROM activity"))
 * ```
 *
 * **Gotchas** SQLite keeps its log beside the name that a file was opened by: so a link leads to its file before that is
 * opened, and a file with several names is refused.
 *
 * The lock keeps KSI's processes apart. It cannot stop another program from writing the file, so the writer
 * compares `PRAGMA data_version` too.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Fs from "node:fs"
import * as Path from "node:path"
import type { DatabaseSync } from "node:sqlite"
import * as KsiError from "../../event/KsiError.ts"
import * as Disk from "../Disk.ts"
import * as Checkpointer from "./Checkpointer.ts"
import { applicationId, schema, schemaVersion } from "./schema.ts"
import * as StoreCopy from "./StoreCopy.ts"
import * as StoreUpgrade from "./StoreUpgrade.ts"

/** Which file, and how durable a commit is. */
export interface Options {
  readonly filename: string
  /**
   * `full` (the default): a commit survives a power failure. `normal`: it survives the death of the process, the last
   * ones may be lost when the machine loses power.
   */
  readonly sync?: "full" | "normal" | undefined
  /**
   * Who moves what was committed from the log into the file. `commit` (the default): the commit that makes the log long, which
   * then takes some milliseconds longer. `thread`: a thread of its own, so that the event loop is never held for that; on a disk
   * that is busy with both, fewer appends a second.
   */
  readonly checkpoints?: "commit" | "thread" | undefined
}

/** The file, open. */
export class StoreFile extends Context.Service<StoreFile, {
  readonly filename: string
  readonly db: DatabaseSync
  /** Runs a synchronous function in a transaction; when it or the commit throws, nothing of it remains. */
  readonly transaction: <A>(f: () => A) => A
  /**
   * As `transaction`, for what is written behind: it survives the death of the process, and a power failure only once a
   * later commit was synced.
   */
  readonly transactionBehind: <A>(f: () => A) => A
}>()("ksi/store/internal/StoreFile") {}

const busyMillis = 500
// Long enough for two openers that meet on the lock to sort out who is first; blocks the event loop, once.
const lockMillis = 50
const SQLITE_BUSY = 5

/** What SQLite said, as KSI's error. */
export const failure = (operation: string, cause: unknown): KsiError.KsiError =>
  KsiError.is(cause)
    ? cause
    : KsiError.make(
      new KsiError.StoreFailure({ operation, problem: KsiError.sentenceOf(cause) })
    )

/** Runs a synchronous function on the database; what it throws becomes a `StoreFailure`. */
export const attempt = <A>(operation: string, f: () => A): Effect.Effect<A, KsiError.KsiError> =>
  Effect.try({ try: f, catch: (cause) => failure(operation, cause) })

/** The number in the first column of the first row. */
export const number = (db: DatabaseSync, sql: string): number => {
  const [value] = Object.values(db.prepare(sql).get() ?? {})
  return typeof value === "number" ? value : 0
}

const refuse = (problem: string): never => {
  throw failure("open", new Error(problem))
}

/** Whether the file is empty; throws where it is not KSI's. */
const isEmpty = (db: DatabaseSync, filename: string): boolean => {
  // In this order: another daemon may be laying it out, tables and id in one transaction.
  const tables = number(db, "SELECT count(*) FROM sqlite_master")
  const id = number(db, "PRAGMA application_id")
  const version = number(db, "PRAGMA user_version")
  if (id === 0 && tables === 0) return true
  if (id !== applicationId) refuse(`${filename} is a database of another program`)
  if (version > schemaVersion) {
    refuse(`${filename} has format ${version}; this KSI knows formats up to ${schemaVersion}, a newer one is needed`)
  }
  return false
}

/**
 * The file itself, behind symbolic links: its lock must be the same by whatever name it is opened. A file with several
 * names has no such one.
 */
const realFile = (filename: string): string => {
  const names = Fs.statSync(filename).nlink
  if (names > 1) refuse(`${filename} has ${names} names (hard links), so that nobody could tell who else writes it; keep one`)
  return Fs.realpathSync(filename)
}

/**
 * Opens a database for reading and writing. SQLite says only that it cannot, and would open a file that may not be written
 * for reading alone: so the file system is asked which it is, and why.
 */
const openWritable = (disk: Disk.Open, filename: string, timeout: number): DatabaseSync => {
  const db = opened(disk, filename, timeout)
  try {
    Fs.accessSync(filename, Fs.constants.R_OK | Fs.constants.W_OK)
    return db
  } catch (cause) {
    db.close()
    return refuse(`${filename} cannot be written (${KsiError.sentenceOf(cause)})`)
  }
}

const opened = (disk: Disk.Open, filename: string, timeout: number): DatabaseSync => {
  try {
    return disk(filename, { timeout })
  } catch (cause) {
    return refuse(`${filename} cannot be opened (${whyNot(filename) ?? KsiError.sentenceOf(cause)})`)
  }
}

/** What the file system has against a file, or against one being made there. */
const whyNot = (filename: string): string | undefined => {
  try {
    Fs.accessSync(Fs.existsSync(filename) ? filename : Path.dirname(filename), Fs.constants.R_OK | Fs.constants.W_OK)
    return undefined
  } catch (cause) {
    return KsiError.sentenceOf(cause)
  }
}

/** The process that holds a lock, where the kernel tells: a line is `3: POSIX  ADVISORY  WRITE 1234 fe:00:2720002 …`. */
const holderOf = (lock: string): number | undefined => {
  try {
    const { ino } = Fs.statSync(lock)
    const held = new RegExp(`WRITE (\\d+) \\S+:${ino} `).exec(Fs.readFileSync("/proc/locks", "utf8"))
    // Of a process in another container the kernel says 0.
    return Number(held?.[1]) || undefined
  } catch {
    return undefined
  }
}

/**
 * Becomes the writer of a file, which need not be there: holds its lock until the connection is closed. Throws
 * `StoreLocked` where another process has it.
 */
export const takeLock = (disk: Disk.Open, filename: string): DatabaseSync => {
  const lock = openWritable(disk, `${filename}.lock`, lockMillis)
  try {
    lock.exec("BEGIN EXCLUSIVE")
    return lock
  } catch (cause) {
    lock.close()
    // node:sqlite puts SQLite's own code there.
    const busy = cause instanceof Error && "errcode" in cause && cause.errcode === SQLITE_BUSY
    if (!busy) throw cause
    const pid = holderOf(`${filename}.lock`)
    throw KsiError.make(new KsiError.StoreLocked({ file: filename, ...(pid === undefined ? {} : { pid }) }))
  }
}

const transactionOn = (db: DatabaseSync, { committed }: Checkpointer.Checkpointer) => <A>(f: () => A): A => {
  db.exec("BEGIN IMMEDIATE")
  let result: A
  try {
    result = f()
    db.exec("COMMIT")
  } catch (cause) {
    // SQLite rolls back by itself after some failures, and after others it does not.
    if (db.isTransaction) db.exec("ROLLBACK")
    throw cause
  }
  committed()
  return result
}

type Transaction = StoreFile["Service"]["transaction"]

const withoutSync = (db: DatabaseSync, transaction: Transaction, sync: string): Transaction => (f) => {
  db.exec("PRAGMA synchronous = NORMAL")
  try {
    return transaction(f)
  } finally {
    db.exec(`PRAGMA synchronous = ${sync}`)
  }
}

/** As `attempt`; what SQLite says is told with the file. */
const opening = <A>(filename: string, f: () => A): Effect.Effect<A, KsiError.KsiError> =>
  attempt("open", () => {
    try {
      return f()
    } catch (cause) {
      if (KsiError.is(cause)) throw cause
      return refuse(`${filename}: ${KsiError.sentenceOf(cause)}`)
    }
  })

const scoped = (filename: string, acquire: () => DatabaseSync) =>
  Effect.acquireRelease(opening(filename, acquire), (db) => Effect.ignore(attempt("close", () => db.close())))

/** The first name for a backup of a file of an older format that is still free. */
const backupName = (filename: string, format: number): string => {
  const name = `${filename}.format-${format}.bak`
  let free = name
  for (let n = 2; Fs.existsSync(free); n++) free = `${name}.${n}`
  return free
}

/** Brings a file of an older format to the newest, after a backup beside it: without one it stays as it is. */
const upgraded = Effect.fnUntraced(function*(
  filename: string,
  db: DatabaseSync,
  format: number,
  transaction: StoreFile["Service"]["transaction"]
) {
  const to = backupName(filename, format)
  const operation = `back ${filename} up before it is brought from format ${format} to ${schemaVersion}`
  const { position } = yield* StoreCopy.copyTo({ from: filename, to, force: false, operation })
  yield* opening(filename, () => transaction(() => StoreUpgrade.upgrade(db, format)))
  yield* Effect.logInfo("the store was brought to a newer format").pipe(
    Effect.annotateLogs({ file: filename, from: format, to: schemaVersion, position, backup: to })
  )
})

/** Opens or creates the file. Fails with `StoreLocked` or `StoreFailure`. */
export const make = (options: Options): Effect.Effect<StoreFile["Service"], KsiError.KsiError, Scope.Scope> =>
  Effect.gen(function*() {
    const { filename } = options
    if (filename === "" || filename.startsWith(":")) {
      return yield* Effect.fail(failure("open", new Error(`"${filename}" is not a file; use the memory store`)))
    }
    // A stranger's file must not even get a lock beside it: so it is looked at first, locked, and looked at again.
    const disk = yield* Disk.Disk
    const open = (name: string) => scoped(name, () => openWritable(disk, name, busyMillis))
    yield* Effect.scoped(Effect.flatMap(open(filename), (db) => opening(filename, () => isEmpty(db, filename))))
    const real = yield* attempt("open", () => realFile(filename))
    yield* scoped(real, () => takeLock(disk, real))
    const db = yield* open(real)
    const sync = options.sync === "normal" ? "NORMAL" : "FULL"
    // A disk that is not the real one is not there for another thread.
    const inThread = options.checkpoints === "thread" && disk === Disk.open
    const checkpointer = inThread ? yield* Checkpointer.make(db, real, sync) : Checkpointer.none
    const transaction = transactionOn(db, checkpointer)
    const format = yield* opening(real, () => {
      const empty = isEmpty(db, filename)
      // Only a file with nothing in it can still become one that gives pages back; that costs appends nothing to measure.
      if (empty) db.exec("PRAGMA auto_vacuum = INCREMENTAL")
      // Where SQLite moves rows within a page it writes, it leaves nothing of them behind: what is removed one day shall be gone.
      db.exec(`PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = ${Checkpointer.pages};
        PRAGMA synchronous = ${sync}; PRAGMA secure_delete = FAST`)
      if (empty) transaction(() => db.exec(schema))
      return number(db, "PRAGMA user_version")
    })
    if (format < schemaVersion) yield* upgraded(real, db, format, transaction)
    return { filename, db, transaction, transactionBehind: withoutSync(db, transaction, sync) }
  })
