// Folders and stores on a real disk, for tests of files.
import { Effect, Logger, type Scope } from "effect"
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as EventStore from "../../src/store/EventStore.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"

/** A folder that is gone at the end. */
export const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(join(tmpdir(), "ksi-files-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
)

type Store = EventStore.EventStore["Service"]

/** Opens a store, does this with it, and closes it. */
export const opened = <A, E>(
  filename: string,
  body: (store: Store) => Effect.Effect<A, E, Scope.Scope>,
  options: Partial<SqliteEventStore.Options> = {}
) => Effect.scoped(Effect.provide(Effect.flatMap(EventStore.EventStore, body), SqliteEventStore.layer({ filename, sync: "normal", ...options }))).pipe(
    // What an operator would be told of a damaged file.
    Effect.provide(Logger.layer([]))
  )

/** Appends so many facts, one each, to ten streams. */
export const fill = (store: Store, count: number, label = "f") =>
  Effect.forEach(Array.from({ length: count }, (_, n) => n), (n) =>
    store.appendTo(`s-${n % 10}`, [{ name: "a:b", id: `${label}-${n}`, data: { n, text: "x".repeat(50) } }]), { concurrency: "unbounded" })

/** A closed store with so many facts, most of them in the stream index. */
export const made = (filename: string, count: number) =>
  opened(filename, (store) =>
    Effect.gen(function*() {
      yield* fill(store, count)
      yield* fill(store, 10, "last")
    }), { indexThreshold: 20 })

/** Ids in the order of positions. */
export const idsOf = (filename: string) =>
  opened(filename, (store) => Effect.map(store.read({ from: 1, limit: 100_000 }), (facts) => facts.map(({ id }) => id)))

/** Runs SQL on a file, as another program would. */
export const alter = (filename: string, sql: string): void => {
  const db = new DatabaseSync(filename)
  try {
    db.exec(sql)
  } finally {
    db.close()
  }
}
