/**
 * What an operator does with an open store: back it up, look at all of it, make its file smaller.
 *
 * The rule: everybody else goes on meanwhile. Whole files are read in a thread of their own; what is written is done in
 * small transactions, with a turn of the event loop between them.
 *
 * `compact` first applies retention (`EventStore.retain`), removes answers that have expired and snapshots that belong to
 * nothing any more. Whoever else knows what may go says so with `onCompact`. Then the free pages are given back.
 *
 * **Example**
 *
 * ```ts
 * const compacted = Effect.gen(function*() {
 *   const maintenance = yield* StoreMaintenance.StoreMaintenance
 *   yield* maintenance.onCompact({ what: "drafts", remove: Effect.succeed(3) })
 *   return yield* maintenance.compact
 * }).pipe(Effect.scoped, Effect.provide(Ksi.layerSqlite({ filename: "var/compacted.db" })))
 * const { bytesAfter, bytesBefore, removed } = yield* compacted
 * removed.map(({ what }) => what)             // ["facts", "expired answers", "outdated snapshots", "drafts"]
 * bytesAfter <= bytesBefore                   // true
 * ```
 *
 * **Gotchas** A file that was made before format 3 cannot give pages back while it is open: `bytesFree` says how many bytes are
 * free in it. They are used again for new facts; `ksi compact` without a daemon writes the file anew.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Fs from "node:fs"
import type { DatabaseSync } from "node:sqlite"
import * as KsiError from "../event/KsiError.ts"
import { EventStore } from "./EventStore.ts"
import * as SnapshotTable from "./internal/SnapshotTable.ts"
import * as StoreCopy from "./internal/StoreCopy.ts"
import * as StoreFile from "./internal/StoreFile.ts"
import * as StoreJob from "./internal/StoreJob.ts"
import * as StoreBackup from "./StoreBackup.ts"

/** Something that may be removed when a store is compacted. */
export interface Removable {
  /** What it is, for people: `expired answers`. */
  readonly what: string
  /** Removes it in small transactions, and answers with how many. */
  readonly remove: Effect.Effect<number, KsiError.KsiError>
}

/** What compacting came to. Sizes are those of the file and its log, in bytes. */
export interface Compacted {
  readonly bytesBefore: number
  readonly bytesAfter: number
  /** Free in the file, and not given back. */
  readonly bytesFree: number
  readonly removed: ReadonlyArray<{ readonly what: string; readonly count: number }>
}

/** What can be done with a store that is open. */
export interface Maintenance {
  /** Its file; none in memory. */
  readonly file: string | undefined
  /** Copies the store as it is at this moment. Fails with `StoreFailure`, also of a store in memory. */
  readonly backup: (
    options: { readonly to: string; readonly force?: boolean | undefined }
  ) => Effect.Effect<StoreBackup.Backup, KsiError.KsiError>
  /** Looks at every page and every fact. Fails with `StoreFailure`, also of a store in memory. */
  readonly verify: (options: { readonly quick: boolean }) => Effect.Effect<StoreBackup.Report, KsiError.KsiError>
  /** Removes what may go, and gives free pages back to the disk. */
  readonly compact: Effect.Effect<Compacted, KsiError.KsiError>
  /**
   * As `compact`, and writes the whole file anew: also one that was made before format 3, which gives pages back from
   * then on. Blocks the event loop for as long as that takes: for a process that does nothing else.
   */
  readonly rewrite: Effect.Effect<Compacted, KsiError.KsiError>
  /** Adds something that `compact` removes, until the scope closes. */
  readonly onCompact: (removable: Removable) => Effect.Effect<void, never, Scope.Scope>
}

const makeRemovables = () => {
  const all = new Set<Removable>()
  return {
    add: (removable: Removable) =>
      Effect.asVoid(Effect.acquireRelease(Effect.sync(() => all.add(removable)), () => Effect.sync(() => all.delete(removable)))),
    remove: Effect.suspend(() =>
      Effect.forEach([...all], ({ remove, what }) => Effect.map(remove, (count) => ({ what, count }))))
  }
}

const inMemory = (operation: string): Effect.Effect<never, KsiError.KsiError> =>
  KsiError.fail(new KsiError.StoreFailure({ operation, problem: "it is in memory and has no file; ksi export writes its facts down" }))

/** Of a store in memory: what may go is removed, and there is no file. */
export const makeMemory = (): Maintenance => {
  const removables = makeRemovables()
  const compact = Effect.map(removables.remove, (removed) => ({ bytesBefore: 0, bytesAfter: 0, bytesFree: 0, removed }))
  return {
    file: undefined,
    backup: () => inMemory("back up"),
    verify: () => inMemory("verify"),
    compact,
    rewrite: compact,
    onCompact: removables.add
  }
}

/** What can be done with the store of this runtime. */
export const StoreMaintenance: Context.Reference<Maintenance> = Context.Reference<Maintenance>("ksi/store/StoreMaintenance", {
  defaultValue: makeMemory
})

// Some 256 KiB at a time: it takes about a millisecond, and one sync.
const slicePages = 64
const sliceRows = 1000

/** Runs a step in transactions until it says that nothing is left; others have their turn between two. */
const inSlices = (file: StoreFile.StoreFile["Service"], step: () => number): Effect.Effect<number, KsiError.KsiError> =>
  Effect.gen(function*() {
    for (let sum = 0;;) {
      const done = yield* StoreFile.attempt("compact", () => file.transactionBehind(step))
      if (done === 0) return sum
      sum += done
      yield* Effect.yieldNow
    }
  })

// The log is beside the file, and not beside a link to it.
const sizesOf = (filename: string): number => {
  const real = Fs.realpathSync(filename)
  return StoreCopy.sizeOf(real) + StoreCopy.sizeOf(`${real}-wal`)
}

const expired = (file: StoreFile.StoreFile["Service"]): Effect.Effect<number, KsiError.KsiError> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const remove = file.db.prepare("DELETE FROM idempotency WHERE row IN (SELECT row FROM idempotency WHERE expires <= ? LIMIT ?)")
    return inSlices(file, () => Number(remove.run(now, sliceRows).changes))
  })

/** Snapshots of code that is not asked any more, or of nothing: what a damaged file may hold. */
const outdated = (file: StoreFile.StoreFile["Service"]): Effect.Effect<number, KsiError.KsiError> =>
  Effect.suspend(() => {
    const statements = SnapshotTable.outdated.map((sql) => file.db.prepare(sql))
    return Effect.map(
      Effect.forEach(statements, (remove) => inSlices(file, () => Number(remove.run(sliceRows).changes))),
      ([, points = 0]) => points
    )
  })

const freePages = (file: StoreFile.StoreFile["Service"]): number => StoreFile.number(file.db, "PRAGMA freelist_count")

const incremental = 2

const giveBack = (file: StoreFile.StoreFile["Service"]): Effect.Effect<number, KsiError.KsiError> =>
  StoreFile.number(file.db, "PRAGMA auto_vacuum") !== incremental ? Effect.succeed(0) : inSlices(file, () => {
    const before = freePages(file)
    if (before > 0) file.db.exec(`PRAGMA incremental_vacuum(${slicePages})`)
    return before - freePages(file)
  })

/** Where a reader stays at its moment the log remains until it leaves: nobody waits for it. */
const truncateLog = (db: DatabaseSync): void => {
  const millis = StoreFile.number(db, "PRAGMA busy_timeout")
  db.exec("PRAGMA busy_timeout = 0")
  try {
    db.exec("PRAGMA wal_checkpoint(TRUNCATE)")
  } finally {
    db.exec(`PRAGMA busy_timeout = ${millis}`)
  }
}

const makeFile = Effect.gen(function*() {
  const file = yield* StoreFile.StoreFile
  const removables = makeRemovables()
  const { retain } = yield* EventStore
  yield* removables.add({ what: "facts", remove: retain })
  yield* removables.add({ what: "expired answers", remove: expired(file) })
  yield* removables.add({ what: "outdated snapshots", remove: outdated(file) })
  const { db, filename } = file
  const compacted = (giveBack: Effect.Effect<unknown, KsiError.KsiError>) =>
    Effect.gen(function*() {
      const bytesBefore = sizesOf(filename)
      const removed = yield* removables.remove
      yield* giveBack
      // A long log would block the event loop for as long as it takes to move it.
      yield* StoreJob.checkpoint(Fs.realpathSync(filename))
      return yield* StoreFile.attempt("compact", (): Compacted => {
        truncateLog(db)
        const bytesFree = freePages(file) * StoreFile.number(db, "PRAGMA page_size")
        return { bytesBefore, bytesAfter: sizesOf(filename), bytesFree, removed }
      })
    })
  const rewrite = Effect.andThen(
    // Once beside the file, once in its log.
    Effect.suspend(() => StoreCopy.haveRoom("compact", filename, 2 * sizesOf(filename))),
    StoreFile.attempt("compact", () => db.exec("PRAGMA auto_vacuum = INCREMENTAL; VACUUM"))
  )
  return {
    file: filename,
    backup: ({ force, to }) => StoreBackup.backup({ from: filename, to, force }),
    verify: (options) => StoreBackup.verify(filename, options),
    compact: compacted(Effect.suspend(() => giveBack(file))),
    rewrite: compacted(rewrite),
    onCompact: removables.add
  } satisfies Maintenance
})

/** Of the store in this file. */
export const layer: Layer.Layer<never, KsiError.KsiError, StoreFile.StoreFile | EventStore> = Layer.effect(StoreMaintenance, makeFile)
