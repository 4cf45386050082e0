/**
 * How a store comes by its database files: the one place where it meets the disk.
 *
 * The rule: everything that a store reads and writes goes through connections that this has opened. Whoever puts another in its
 * place decides what the disk does: that it is full, or that the process dies between two writes.
 *
 * **Example**
 *
 * ```ts
 * const opened: Array<string> = []
 * const noting: Disk.Open = (filename, options) => {
 *   opened.push(filename)
 *   return Disk.open(filename, options)
 * }
 * yield* Effect.scoped(Layer.build(Layer.provide(Ksi.layerSqlite({ filename: "var/noted.db" }), Layer.succeed(Disk.Disk, noting))))
 * opened.some((filename) => filename.endsWith("noted.db.lock"))     // true
 * ```
 */
import * as Context from "effect/Context"
import { DatabaseSync } from "node:sqlite"

/** Opens a file; throws where that fails. `timeout` is how long a lock is waited for, in milliseconds. */
export type Open = (filename: string, options: { readonly timeout: number }) => DatabaseSync

/** The real disk. */
export const open: Open = (filename, options) => new DatabaseSync(filename, options)

/** Whose disk; by default the real one. */
export const Disk: Context.Reference<Open> = Context.Reference<Open>("ksi/store/Disk", { defaultValue: () => open })
