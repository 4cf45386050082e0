// The thread of a job: `StoreJob` starts it and says what is to be done.
import * as Fs from "node:fs"
import { backup, DatabaseSync } from "node:sqlite"
import { parentPort, workerData } from "node:worker_threads"
import type { Copied, Job, Message, Report } from "./StoreJob.ts"
import { lastPosition, openReading, readBack } from "./StoreReading.ts"

const say = (message: Message): void => parentPort?.postMessage(message, [])

// 4 MiB at a time; each is synced before the next one, or the disk would be busy with all of them at once when the
// last one is in, and appends would wait for that.
const slicePages = 1024

const copyOnce = async (from: string, to: string): Promise<Copied | undefined> => {
  const { changed, db } = openReading(from)
  const file = Fs.openSync(to, "wx", 0o600)
  try {
    // Stays at this moment until the end.
    db.exec("BEGIN")
    const position = lastPosition(db)
    await backup(db, to, {
      rate: slicePages,
      progress: ({ remainingPages, totalPages }) => {
        Fs.fdatasyncSync(file)
        say({ share: 1 - remainingPages / Math.max(1, totalPages) })
      }
    })
    Fs.fsyncSync(file)
    return changed() ? undefined : { position, bytes: Fs.fstatSync(file).size }
  } finally {
    Fs.closeSync(file)
    db.close()
  }
}

const copy = async (from: string, to: string): Promise<Copied> => {
  for (;;) {
    const copied = await copyOnce(from, to)
    if (copied !== undefined) {
      const position = readBack(to)
      if (position !== copied.position) throw new Error(`the copy ends at position ${position}, not at ${copied.position}`)
      return copied
    }
    Fs.rmSync(to)
  }
}

const check = async (file: string, quick: boolean): Promise<Report> => {
  const { checkFile } = await import("./StoreCheck.ts")
  return checkFile(file, quick, (share) => say({ share }))
}

const checkpoint = (file: string): undefined => {
  const db = new DatabaseSync(file)
  try {
    db.exec("PRAGMA wal_checkpoint(PASSIVE)")
  } finally {
    db.close()
  }
}

const answer = async (job: Job): Promise<Report | Copied | undefined> => {
  switch (job.job) {
    case "copy":
      return copy(job.from, job.to)
    case "checkpoint":
      return checkpoint(job.file)
    case "check":
      return check(job.file, job.quick)
  }
}

// Whoever starts the thread hands it a job.
const job = workerData as Job
try {
  say({ answer: await answer(job) })
} catch (cause) {
  say({ failed: cause instanceof Error ? cause.message : String(cause) })
}
