/**
 * What can be said of a database file from outside, also while a daemon writes it.
 *
 * The rule: looking changes nothing. No file is made, no lock is held, and nobody who writes is made to wait.
 *
 * **Example**
 *
 * ```ts
 * yield* Effect.scoped(Layer.build(SqliteEventStore.layer({ filename: "var/ksi.db" })))
 * const { lock, state } = yield* StoreInspection.inspect("var/ksi.db")
 * [lock, state]                               // ["free", { _tag: "Ready", format: 3, position: 0, recordedAt: undefined, altered: [] }]
 * ```
 *
 * **Gotchas** It reads the format, the layout and the last fact, not every page: that a file is sound in its middle is
 * not said. After a crash SQLite rebuilds `<file>-shm`, which it shares between processes; what is stored stays as it is.
 */
import * as Effect from "effect/Effect"
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { pathToFileURL } from "node:url"
import * as KsiError from "../event/KsiError.ts"
import { applicationId, schema, schemaVersion } from "./internal/schema.ts"
import * as StoreFile from "./internal/StoreFile.ts"
import * as StoreUpgrade from "./internal/StoreUpgrade.ts"

/** The format that a file has when a daemon of this KSI has opened it. */
export const newest: number = schemaVersion

/** How a file is. */
export type State =
  | { readonly _tag: "Absent" }
  /** There is a file with nothing in it; a daemon lays it out. */
  | { readonly _tag: "Empty" }
  | { readonly _tag: "Unreadable"; readonly problem: string }
  /** The file, or its lock, may not be written by whoever looks. */
  | { readonly _tag: "ReadOnly"; readonly file: string }
  /** A database of another program. */
  | { readonly _tag: "Foreign" }
  | { readonly _tag: "Newer"; readonly format: number; readonly known: number }
  | {
    readonly _tag: "Ready"
    readonly format: number
    /** Of the last fact; 0 where there is none. */
    readonly position: number
    /** When the last fact was stored, in milliseconds since 1970. */
    readonly recordedAt: number | undefined
    /** Tables and indexes that are missing or other than this KSI makes them. */
    readonly altered: ReadonlyArray<string>
  }

/** What was found. */
export interface Inspection {
  /** Whether a process holds the file as its writer. */
  readonly lock: "free" | "held"
  readonly state: State
}

const SQLITE_BUSY = 5

const sizeOf = (path: string): number | undefined => Fs.statSync(path, { throwIfNoEntry: false })?.size

/** Runs a function on a database opened for reading, and closes it. */
const reading = <A>(path: string, immutable: boolean, f: (db: DatabaseSync) => A): A => {
  const url = pathToFileURL(path)
  if (immutable) url.searchParams.set("immutable", "1")
  const db = new DatabaseSync(url, { readOnly: true, timeout: 0 })
  try {
    return f(db)
  } finally {
    db.close()
  }
}

/** As the writer asks when it opens it. */
const mayWrite = (path: string): boolean => {
  try {
    Fs.accessSync(path, Fs.constants.R_OK | Fs.constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** A writer holds an exclusive transaction on the lock for as long as it lives: then nobody can read it. */
const lockOf = (path: string): Inspection["lock"] => {
  if (sizeOf(path) === undefined) return "free"
  try {
    reading(path, false, (db) => StoreFile.number(db, "SELECT count(*) FROM sqlite_master"))
    return "free"
  } catch (cause) {
    // node:sqlite puts SQLite's own code there.
    if (cause instanceof Error && "errcode" in cause && cause.errcode === SQLITE_BUSY) return "held"
    throw cause
  }
}

const layoutOf = (db: DatabaseSync): ReadonlyMap<unknown, unknown> =>
  new Map(db.prepare("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all().map(({ name, sql }) => [name, sql]))

/** Tables and indexes of a store that are missing, or other than this KSI makes them. */
export const alteredIn = (db: DatabaseSync, format: number): ReadonlyArray<string> => {
  const fresh = new DatabaseSync(":memory:")
  try {
    fresh.exec(schema)
    const there = layoutOf(db)
    // An older format is not altered where the newest one is: opening the file brings it there.
    const isKnown = (name: unknown) => format < schemaVersion && StoreUpgrade.changed.has(String(name))
    return [...layoutOf(fresh)].filter(([name, sql]) => there.get(name) !== sql && !isKnown(name)).map(([name]) => String(name))
  } finally {
    fresh.close()
  }
}

const stateOf = (db: DatabaseSync): State => {
  const id = StoreFile.number(db, "PRAGMA application_id")
  const format = StoreFile.number(db, "PRAGMA user_version")
  if (id === 0 && StoreFile.number(db, "SELECT count(*) FROM sqlite_master") === 0) return { _tag: "Empty" }
  if (id !== applicationId) return { _tag: "Foreign" }
  if (format > schemaVersion) return { _tag: "Newer", format, known: schemaVersion }
  const altered = alteredIn(db, format)
  if (altered.includes("events")) return { _tag: "Ready", format, position: 0, recordedAt: undefined, altered }
  const position = StoreFile.number(db, !layoutOf(db).has("log_end")
    ? "SELECT max(position) FROM events"
    // The last fact may have been removed.
    : "SELECT max(p) FROM (SELECT max(position) AS p FROM events UNION ALL SELECT position FROM log_end)")
  const recordedAt = StoreFile.number(db, "SELECT recorded FROM events ORDER BY position DESC LIMIT 1")
  return { _tag: "Ready", format, position, recordedAt: position === 0 ? undefined : recordedAt, altered }
}

const look = (filename: string): Inspection => {
  const stat = Fs.statSync(filename, { throwIfNoEntry: false })
  if (stat === undefined) return { lock: "free", state: { _tag: "Absent" } }
  const unreadable = (problem: string): Inspection => ({ lock: "free", state: { _tag: "Unreadable", problem } })
  if (!stat.isFile()) return unreadable("it is not a file")
  if (stat.nlink > 1) return unreadable(`it has ${stat.nlink} names (hard links); keep one`)
  const real = Fs.realpathSync(filename)
  const lock = lockOf(`${real}.lock`)
  const readOnly = [real, `${real}.lock`].find((file) => sizeOf(file) !== undefined && !mayWrite(file))
  if (readOnly !== undefined) return { lock, state: { _tag: "ReadOnly", file: readOnly } }
  // A reader of a database with a log joins those who share it; where nobody does, it would make the files they share.
  const shared = (sizeOf(`${real}-wal`) ?? 0) > 0 && sizeOf(`${real}-shm`) !== undefined
  try {
    return { lock, state: reading(real, lock === "free" && !shared, stateOf) }
  } catch (cause) {
    return { lock, state: { _tag: "Unreadable", problem: KsiError.sentenceOf(cause) } }
  }
}

/** Looks at a file. Never fails: what cannot be read is a state too. */
export const inspect = (filename: string): Effect.Effect<Inspection> =>
  Effect.sync((): Inspection => {
    try {
      return look(filename)
    } catch (cause) {
      return { lock: "free", state: { _tag: "Unreadable", problem: KsiError.sentenceOf(cause) } }
    }
  })
