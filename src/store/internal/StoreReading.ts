// Reading a whole database file beside whoever writes it. Nothing else is imported here: a thread that copies starts at once.
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { pathToFileURL } from "node:url"

const busyMillis = 5000

/** A file that is open for reading. */
interface Reading {
  readonly db: DatabaseSync
  /** Whether it was written since, though nobody seemed to have it open: then what was read of it means nothing. */
  readonly changed: () => boolean
}

/**
 * Opens a file to read it as it is now. One that nobody has open (it has no log) is read as if it could not change: no
 * file is made beside it, and it may be on a disk that cannot be written.
 */
export const openReading = (file: string): Reading => {
  if (!Fs.statSync(file).isFile()) throw new Error(`${file} is not a file`)
  const real = Fs.realpathSync(file)
  const url = pathToFileURL(real)
  const stamp = () => {
    const { ctimeMs, ino, size } = Fs.statSync(real)
    return Fs.existsSync(`${real}-wal`) ? "open" : `${ino} ${size} ${ctimeMs}`
  }
  const before = stamp()
  if (before !== "open") url.searchParams.set("immutable", "1")
  return { db: new DatabaseSync(url, { readOnly: true, timeout: busyMillis }), changed: () => before !== "open" && stamp() !== before }
}

/** Whether there is a table. */
export const has = (db: DatabaseSync, table: string): boolean =>
  db.prepare("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?").get(table) !== undefined

/** The last position in a store, also where the fact there was removed; 0 where it never had one. */
export const lastPosition = (db: DatabaseSync): number => {
  if (!has(db, "events")) return 0
  const last = "SELECT max(position) AS last FROM events"
  const row = db.prepare(has(db, "log_end") ? `SELECT max(last) AS last FROM (${last} UNION ALL SELECT position FROM log_end)` : last).get()
  return Number(row?.["last"] ?? 0)
}

/** Reads every page of a file that nobody writes; throws where one is damaged. Answers with the last position. */
export const readBack = (file: string): number => {
  const { db } = openReading(file)
  try {
    const [said] = Object.values(db.prepare("PRAGMA quick_check(1)").get() ?? {})
    if (said !== "ok") throw new Error(`it is damaged: ${String(said).replaceAll("\n", "; ")}`)
    return lastPosition(db)
  } finally {
    db.close()
  }
}
