/**
 * Copies of a store: made while it is written, checked before they count, and put back.
 *
 * The rule: a backup is the store at one moment, with every fact that was acknowledged before. It has its name only when
 * it is whole and was read back; a file that is there already stays, unless it may be replaced. `restore` takes the
 * writer's lock, so that no daemon runs; it keeps the present store beside the new one, and whenever the process dies,
 * there is either the old store or the new one.
 *
 * **Example**
 *
 * ```ts
 * yield* Effect.scoped(Layer.build(SqliteEventStore.layer({ filename: "var/mine.db" })))
 * const { position } = yield* StoreBackup.backup({ from: "var/mine.db", to: "var/mine.bak" })
 * const { kept } = yield* StoreBackup.restore({ from: "var/mine.bak", to: "var/mine.db" })
 * [position, kept !== undefined]             // [0, true]
 * ```
 *
 * **Gotchas** While a backup is made SQLite keeps what is written meanwhile in `<file>-wal`; it shrinks afterwards. A
 * backup is a database in WAL mode without a log: copy it as a file, and open it with `ksi restore`.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as KsiError from "../event/KsiError.ts"
import { Disk, type Open } from "./Disk.ts"
import * as StoreCopy from "./internal/StoreCopy.ts"
import { applicationId } from "./internal/schema.ts"
import * as StoreFile from "./internal/StoreFile.ts"
import * as StoreJob from "./internal/StoreJob.ts"

export type { Checked, Problem, Report } from "./internal/StoreJob.ts"

/** What was backed up. */
export interface Backup {
  readonly file: string
  readonly bytes: number
  /** The last fact in it; 0 where there is none. */
  readonly position: number
}

/** From where to where. */
export interface Options {
  readonly from: string
  readonly to: string
  /** Replaces a file that is there. */
  readonly force?: boolean | undefined
}

/** What was put back. */
export interface Restored {
  readonly position: number
  /** Where the store is that was there before; none where there was none. */
  readonly kept: string | undefined
}

/** A backup that cannot be restored, for it is damaged or no store. */
export interface Refused {
  readonly report: StoreJob.Report
}

/** Behind symbolic links, also where the file itself is still to come. */
const realOf = (file: string): string => {
  if (Fs.existsSync(file)) return Fs.realpathSync(file)
  const folder = Path.dirname(Path.resolve(file))
  return Path.join(Fs.existsSync(folder) ? Fs.realpathSync(folder) : folder, Path.basename(file))
}

// Where the header of a SQLite database says whose it is.
const applicationIdAt = 68

/** Whether a file is a store, as far as its header says. */
const isStore = (file: string): boolean => {
  const header = Buffer.alloc(applicationIdAt + 4)
  const opened = Fs.openSync(file, "r")
  try {
    return Fs.readSync(opened, header) === header.length && header.readUInt32BE(applicationIdAt) === applicationId
  } finally {
    Fs.closeSync(opened)
  }
}

const isPartOf = (store: string, file: string): boolean =>
  ["", "-wal", "-shm", ".lock"].some((end) => realOf(file) === `${realOf(store)}${end}`)

const nameOf = (from: string, to: string, force: boolean): string | undefined => {
  if (isPartOf(from, to)) return `${to} is the store itself`
  const stat = Fs.statSync(to, { throwIfNoEntry: false })
  if (stat?.isDirectory() === true) return `${to} is a directory; name a file in it`
  if (stat !== undefined && !stat.isFile()) return `${to} is not a file`
  if (stat !== undefined && !force) return `${to} exists already; say force to replace it`
  if (stat !== undefined && !isStore(to)) return `${to} is no store; a backup replaces nothing else`
  if (Fs.statSync(Path.dirname(to), { throwIfNoEntry: false })?.isDirectory() !== true) return `there is no directory ${Path.dirname(to)}`
  return undefined
}

/** Why a backup cannot get this name, in a sentence; `undefined` where it can. */
export const nameProblem = ({ force = false, from, to }: Options): string | undefined => {
  try {
    return nameOf(from, to, force)
  } catch (cause) {
    return KsiError.sentenceOf(cause)
  }
}

const failed = (operation: string, problem: string) => KsiError.fail(new KsiError.StoreFailure({ operation, problem }))

/** Copies a store, also while it is written. Fails with `StoreFailure`; then there is no new file. */
export const backup = Effect.fnUntraced(function*(
  { force = false, from, to }: Options,
  onProgress?: (share: number) => void
): Effect.fn.Return<Backup, KsiError.KsiError> {
  const problem = yield* StoreCopy.attempt("back up", () => Fs.existsSync(from) ? nameProblem({ from, to, force }) : `there is no store ${from}`)
  if (problem !== undefined) return yield* failed("back up", problem)
  const { bytes, position } = yield* StoreCopy.copyTo({ from, to, force, operation: "back up" }, onProgress)
  return { file: to, bytes, position }
})

/** Looks at every page and every fact of a file; `quick` leaves out the facts. What is wrong is in the report. */
export const verify = (
  file: string,
  { onProgress, quick = false }: { readonly quick?: boolean; readonly onProgress?: (share: number) => void } = {}
): Effect.Effect<StoreJob.Report, KsiError.KsiError> => StoreJob.check({ file, quick }, onProgress)

const ends = ["", "-wal"] as const

/** Brings everything into the one file. Where that fails the file is damaged, and its log is kept beside it. */
const settle = (disk: Open, file: string): void => {
  try {
    const db = disk(file, { timeout: 0 })
    try {
      db.exec("PRAGMA wal_checkpoint(TRUNCATE)")
    } finally {
      // The last one to leave removes the log.
      db.close()
    }
  } catch {
    // Whatever it is, it shall be replaced.
  }
}

/** Copies the store that is there to a name that is free, and answers with the name. */
const keep = (file: string, millis: number): string => {
  const stamp = new Date(millis).toISOString().replace(/\.\d+Z$/, "Z").replaceAll(":", "")
  for (let n = 1;; n++) {
    const kept = `${file}.before-restore-${stamp}${n === 1 ? "" : `-${n}`}`
    if (ends.some((end) => Fs.existsSync(`${kept}${end}`))) continue
    for (const end of ends) {
      if (!Fs.existsSync(`${file}${end}`)) continue
      Fs.copyFileSync(`${file}${end}`, `${kept}${end}`, Fs.constants.COPYFILE_EXCL | Fs.constants.COPYFILE_FICLONE)
      const opened = Fs.openSync(`${kept}${end}`, "r")
      Fs.fsyncSync(opened)
      Fs.closeSync(opened)
    }
    StoreCopy.syncDirectory(Path.dirname(file))
    return kept
  }
}

/**
 * Puts a backup where the store is, under the writer's lock. A damaged backup is refused before anything is changed,
 * with what is wrong. Fails with `StoreLocked` while a daemon runs, and with `StoreFailure`.
 */
export const restore = Effect.fnUntraced(function*(
  { from, to }: Pick<Options, "from" | "to">,
  onProgress?: (share: number) => void
): Effect.fn.Return<Restored | Refused, KsiError.KsiError> {
  const operation = "restore"
  const disk = yield* Disk
  const isThere = yield* StoreCopy.attempt(operation, () => {
    if (!Fs.existsSync(from)) throw new Error(`there is no file ${from}`)
    if (isPartOf(to, from)) throw new Error(`${from} is the store itself`)
    Fs.mkdirSync(Path.dirname(to), { recursive: true, mode: 0o700 })
    return Fs.existsSync(to)
  })
  const real = isThere ? realOf(to) : to
  return yield* Effect.scoped(Effect.gen(function*() {
    yield* Effect.acquireRelease(
      StoreFile.attempt(operation, () => StoreFile.takeLock(disk, real)),
      (lock) => Effect.sync(() => lock.close())
    )
    const report = yield* verify(from, onProgress === undefined ? {} : { onProgress })
    if (report.problems.length > 0) return { report }
    const part = yield* StoreCopy.partOf(real)
    yield* StoreCopy.haveRoom(operation, real, StoreCopy.sizeOf(from) + StoreCopy.sizeOf(real) + StoreCopy.sizeOf(`${real}-wal`))
    const { position } = yield* StoreCopy.copyPart({ from, part, operation })
    const now = yield* Clock.currentTimeMillis
    return yield* StoreCopy.attempt(operation, () => {
      if (isThere) settle(disk, real)
      const kept = isThere ? keep(real, now) : undefined
      // A log belongs to the file that it was written for: none may be there when another file takes its place.
      for (const end of ["-wal", "-shm"]) Fs.rmSync(`${real}${end}`, { force: true })
      Fs.renameSync(part, real)
      StoreCopy.syncDirectory(Path.dirname(real))
      return { position, kept }
    })
  }))
})
