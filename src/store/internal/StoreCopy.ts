/**
 * A copy of a database file that is there whole, or not at all.
 *
 * The rule: it is written under a name of its own, checked, and only then given the name that was asked for. Nobody but
 * the user may read it. A process that dies meanwhile leaves `<name>.part-…` behind, which may be removed.
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as KsiError from "../../event/KsiError.ts"
import * as StoreJob from "./StoreJob.ts"

/** What is copied where. */
export interface Options {
  readonly from: string
  readonly to: string
  /** Whether a file of that name may be replaced. */
  readonly force: boolean
  /** What this is for, in an error: `back up`. */
  readonly operation: string
}

const failure = (operation: string, problem: string): KsiError.KsiError =>
  KsiError.make(new KsiError.StoreFailure({ operation, problem }))

/** Does something with files; what the file system has against it becomes a `StoreFailure`. */
export const attempt = <A>(operation: string, f: () => A): Effect.Effect<A, KsiError.KsiError> =>
  Effect.try({ try: f, catch: (cause) => KsiError.is(cause) ? cause : failure(operation, KsiError.sentenceOf(cause)) })

/** Bytes of a file, 0 where there is none. */
export const sizeOf = (file: string): number => Fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0

const mib = (bytes: number): string => `${Math.ceil(bytes / (1024 * 1024))} MiB`

/** Fails where so many bytes more do not fit beside a file. */
export const haveRoom = (operation: string, file: string, bytes: number): Effect.Effect<void, KsiError.KsiError> =>
  attempt(operation, () => {
    const directory = Path.dirname(file)
    const { bavail, bsize } = Fs.statfsSync(directory)
    if (bavail * bsize < bytes) throw new Error(`${mib(bytes)} are needed at ${directory}, and ${mib(bavail * bsize)} are free`)
  })

/** Makes names in a directory last through a power cut. */
export const syncDirectory = (directory: string): void => {
  const opened = Fs.openSync(directory, "r")
  try {
    Fs.fsyncSync(opened)
  } finally {
    Fs.closeSync(opened)
  }
}

/** Gives a finished file its name. */
const publish = (part: string, to: string, force: boolean): void => {
  // Of a hard link the file system itself sees that the name is free; some have no such links.
  const isLinked = !force && (() => {
    try {
      Fs.linkSync(part, to)
      return true
    } catch (cause) {
      if (Fs.existsSync(to)) throw new Error(`${to} exists already`, { cause })
      return false
    }
  })()
  if (isLinked) Fs.unlinkSync(part)
  else Fs.renameSync(part, to)
  syncDirectory(Path.dirname(to))
}

/** A name beside a file, for what is to become that file; what is still there at the end of the scope is removed. */
export const partOf = (to: string) =>
  Effect.acquireRelease(
    Effect.map(Random.nextIntBetween(0, 0xffffffff), (n) => `${to}.part-${n.toString(16).padStart(8, "0")}`),
    (part) => Effect.ignore(attempt("remove", () => Fs.rmSync(part, { force: true })))
  )

/** Copies to a name of its own. */
export const copyPart = Effect.fnUntraced(function*(
  { from, operation, part }: { readonly from: string; readonly part: string; readonly operation: string },
  onProgress?: (share: number) => void
) {
  yield* haveRoom(operation, part, sizeOf(from) + sizeOf(`${from}-wal`))
  return yield* StoreJob.copy({ from, to: part, operation }, onProgress)
})

/** Copies a database file as it is at this moment. Fails with `StoreFailure`, and then leaves nothing behind. */
export const copyTo = (
  { force, from, operation, to }: Options,
  onProgress?: (share: number) => void
): Effect.Effect<StoreJob.Copied, KsiError.KsiError> =>
  Effect.scoped(Effect.gen(function*() {
    const part = yield* partOf(to)
    const copied = yield* copyPart({ from, operation, part }, onProgress)
    yield* attempt(operation, () => publish(part, to, force))
    return copied
  }))
