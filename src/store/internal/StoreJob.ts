/**
 * Work on a whole database file, done in a thread of its own: to copy it, to look at every page of it.
 *
 * The rule: the thread has its own connection, and stores nothing: what it copies is the file as it was at one moment, and
 * the thread that appends goes on meanwhile. Interrupting a job ends its thread.
 *
 * **Gotchas** While a reader stays at its moment, SQLite cannot begin its log anew: `<file>-wal` grows by what is
 * written meanwhile, and shrinks when the writer ends or compacts. A thread reads the real disk, whatever `Disk` is.
 */
import * as Effect from "effect/Effect"
import { Worker } from "node:worker_threads"
import * as KsiError from "../../event/KsiError.ts"

/** What is to be done. */
export type Job =
  /** Copies the pages of `from` into `to`, which must not exist, syncs it, and reads it back. */
  | { readonly job: "copy"; readonly from: string; readonly to: string }
  /** Moves the log of a file that is open elsewhere into it, as far as nobody is in the way. */
  | { readonly job: "checkpoint"; readonly file: string }
  /** Checks a file; `quick` leaves out what takes long. */
  | { readonly job: "check"; readonly file: string; readonly quick: boolean }

/** A thing that is not as it should be. */
export interface Problem {
  /** Which check found it. */
  readonly check: string
  readonly problem: string
  /** What helps. */
  readonly mend: string
}

/** What a check looked at. */
export interface Checked {
  readonly check: string
  /** How many, of what: `1,204 pages`. */
  readonly count: number
  readonly what: string
  /** How many are not as they should be; `problems` has the first ones. */
  readonly wrong: number
}

/** What was found in a file. */
export interface Report {
  readonly format: number
  /** The last one; 0 where there is none. */
  readonly position: number
  readonly checks: ReadonlyArray<Checked>
  readonly problems: ReadonlyArray<Problem>
}

/** What became of a copy. */
export interface Copied {
  /** The last position in it. */
  readonly position: number
  readonly bytes: number
}

/** What the thread says: how far it is (from 0 to 1), what came of it, or why nothing did. */
export type Message = { readonly share: number } | { readonly answer: Report | Copied | undefined } | { readonly failed: string }

const failure = (operation: string, problem: string): KsiError.KsiError =>
  KsiError.make(new KsiError.StoreFailure({ operation, problem }))

// Beside this file, whether it is the source or what the package was built to.
const thread = new URL(`./StoreThread${import.meta.url.endsWith(".ts") ? ".ts" : ".js"}`, import.meta.url)

const run = <A extends Report | Copied | undefined>(
  operation: string,
  job: Job,
  onProgress: (share: number) => void
): Effect.Effect<A, KsiError.KsiError> =>
  Effect.callback<A, KsiError.KsiError>((resume) => {
    // Its output is its own: passing it on would make that of this process non-blocking.
    const worker = new Worker(thread, { workerData: job, stdout: true, stderr: true })
    worker.on("message", (message: Message) => {
      if ("share" in message) return onProgress(message.share)
      // The thread answers each job with what belongs to it.
      resume("answer" in message ? Effect.succeed(message.answer as A) : Effect.fail(failure(operation, message.failed)))
    })
    worker.on("error", (cause) => resume(Effect.fail(failure(operation, KsiError.sentenceOf(cause)))))
    worker.on("exit", () => resume(Effect.fail(failure(operation, "its thread ended before it was done"))))
    return Effect.promise(() => worker.terminate())
  })

const nothing = (): void => {}

/** Copies a database into a file that does not exist yet, and reads that back. */
export const copy = (
  options: { readonly from: string; readonly to: string; readonly operation: string },
  onProgress: (share: number) => void = nothing
): Effect.Effect<Copied, KsiError.KsiError> =>
  run(options.operation, { job: "copy", from: options.from, to: options.to }, onProgress)

/** Looks at a whole file; what is wrong with it is in the report. Fails where the file cannot be looked at. */
export const check = (
  options: { readonly file: string; readonly quick: boolean },
  onProgress: (share: number) => void = nothing
): Effect.Effect<Report, KsiError.KsiError> => run("verify", { job: "check", ...options }, onProgress)

/** Moves the log into the file while others write; what is left of it afterwards takes the writer no time. */
export const checkpoint = (file: string): Effect.Effect<void, KsiError.KsiError> =>
  Effect.asVoid(run<undefined>("checkpoint", { job: "checkpoint", file }, nothing))
