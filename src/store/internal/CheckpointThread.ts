// The thread of a `Checkpointer`: moves what is in the log while there are commits, and ends when there are none for a while.
import { DatabaseSync } from "node:sqlite"
import { workerData } from "node:worker_threads"
import type { Task } from "./Checkpointer.ts"

// Between two looks, and how long it waits for the next commit. Milliseconds.
const pause = 10
const patience = 5000

// Whoever starts the thread hands it this.
const { control, filename, pages, sync } = workerData as Task
const db = new DatabaseSync(filename, { timeout: 0 })
db.exec(`PRAGMA synchronous = ${sync}`)
const length = db.prepare("PRAGMA wal_checkpoint(NOOP)")
const checkpoint = db.prepare("PRAGMA wal_checkpoint(PASSIVE)")
for (let seen = -1, quiet = 0; quiet < patience && Atomics.load(control, 0) === 0;) {
  const commits = Atomics.load(control, 1)
  quiet = commits === seen ? quiet + pause : 0
  seen = commits
  const { checkpointed, log } = length.get() ?? {}
  // As much at a time as SQLite would: a page that changes often is moved no more often than it must.
  if (Number(log) - Number(checkpointed) >= pages) checkpoint.get()
  Atomics.wait(control, 0, 0, pause)
}
checkpoint.get()
db.close()
