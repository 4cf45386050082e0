/**
 * Moves what was committed from a database's log into the database, in a thread of its own, while much is written.
 *
 * SQLite does that itself within the commit that makes the log too long: then the event loop stands still for as long as
 * the disk takes to write and sync a thousand pages. In a thread it takes nobody's turn. Measured: with 256 appends in flight
 * the longest turns are a third as long; but both sync the same disk, so that there are a quarter fewer appends a second, and
 * half as many of one caller. So it is for who asks for it.
 *
 * The rule: a commit is durable in the log, whoever moves it and whenever. So nothing depends on the thread: while there
 * is none SQLite does as ever, and when it falls behind the log grows to `backstop` pages and SQLite helps again.
 *
 * **Gotchas** The thread is started when the log first grows long and ends when nobody has committed for some seconds:
 * most programs never need it. The log is written anew from its start whenever all of it was moved at a commit; under
 * load without a pause it grows to `backstop` pages (64 MiB) and stays that long until the store is closed.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { DatabaseSync, StatementSync } from "node:sqlite"
import { Worker } from "node:worker_threads"

/** What a transaction tells of. */
export interface Checkpointer {
  /** Call it after each commit. */
  readonly committed: () => void
}

/** Pages in the log at which SQLite moves them within a commit, while there is no thread. */
export const pages = 1000
const backstop = 16_000
// Long enough that a thread pays, and well before SQLite would do it within a commit.
const long = 500
// How often the log's length is asked for, which costs two microseconds.
const everyCommits = 4

/** What the thread is started with. */
export interface Task {
  readonly filename: string
  /** SQLite's `synchronous`. */
  readonly sync: string
  /** Pages that are moved at a time. */
  readonly pages: number
  /** Shared: whether to stop, and how many commits there were. */
  readonly control: Int32Array
}

// Beside this file, whether it is the source or what the package was built to.
const program = new URL(`./CheckpointThread${import.meta.url.endsWith(".ts") ? ".ts" : ".js"}`, import.meta.url)

class Thread {
  private readonly worker: Worker
  private readonly gone: Promise<void>
  private readonly control = new Int32Array(new SharedArrayBuffer(8))

  constructor(filename: string, sync: string, ended: () => void) {
    const workerData: Task = { filename, sync, pages, control: this.control }
    // Its output is its own: passing it on would make that of this process non-blocking.
    this.worker = new Worker(program, { workerData, stdout: true, stderr: true })
    const { worker } = this
    // It keeps no program alive.
    worker.unref()
    this.gone = new Promise((resolve) => {
      // What it could not do SQLite does: there is nothing to tell.
      worker.once("error", () => undefined)
      worker.once("exit", () => {
        ended()
        resolve()
      })
    })
  }

  committed(): void {
    Atomics.add(this.control, 1, 1)
  }

  stop(): Promise<void> {
    Atomics.store(this.control, 0, 1)
    Atomics.notify(this.control, 0)
    // But it is waited for here.
    this.worker.ref()
    return this.gone
  }
}

/** Leaves it all to SQLite. */
export const none: Checkpointer = { committed: () => undefined }

/** Looks after the log of an open database until the scope closes; its thread has closed the file by then. */
export const make = (db: DatabaseSync, filename: string, sync: string): Effect.Effect<Checkpointer, never, Scope.Scope> =>
  Effect.gen(function*() {
    let length: StatementSync | undefined
    let thread: Thread | undefined
    let commits = 0
    let closed = false
    const within = (limit: number) => db.exec(`PRAGMA wal_autocheckpoint = ${limit}`)
    const ended = () => {
      thread = undefined
      if (!closed) within(pages)
    }
    yield* Effect.addFinalizer(() =>
      Effect.promise(async () => {
        closed = true
        await thread?.stop()
      }))
    return {
      committed: () => {
        if (thread !== undefined) return thread.committed()
        if (++commits % everyCommits !== 0) return
        try {
          const { checkpointed, log } = (length ??= db.prepare("PRAGMA wal_checkpoint(NOOP)")).get() ?? {}
          if (Number(log) - Number(checkpointed) < long) return
          thread = new Thread(filename, sync, ended)
          within(backstop)
        } catch {
          // The commit is done, whatever becomes of the log: the next ones ask again.
        }
      }
    }
  })
