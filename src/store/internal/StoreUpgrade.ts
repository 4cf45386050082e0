// Brings a store's file of an older format to the newest, in the transaction of the caller: all of it, or nothing.
import type { DatabaseSync, SQLOutputValue } from "node:sqlite"
import type { OutcomeKind } from "../../bus/Activity.ts"
import * as ActivityBlock from "./ActivityBlock.ts"
import { activity, schemaVersion, since3 } from "./schema.ts"

/** Tables and indexes that files of an older format lack, or have otherwise. */
export const changed: ReadonlySet<string> = new Set([
  "activity",
  ...since3.flatMap((sql) => Array.from(sql.matchAll(/CREATE (?:UNIQUE )?(?:TABLE|INDEX) (\w+)/g), (found) => found[1] ?? ""))
])

const text = (value: SQLOutputValue | undefined): string | undefined => typeof value === "string" ? value : undefined

const entryOf = (row: Record<string, SQLOutputValue>): ActivityBlock.Entry => ({
  data: text(row["data"]) ?? null,
  record: {
    id: String(row["id"]),
    name: String(row["name"]),
    // Only the activity journal wrote the column.
    outcome: row["outcome"] as OutcomeKind,
    error: text(row["error"]),
    reason: undefined,
    duration: Number(row["duration"]),
    timestamp: Number(row["timestamp"]),
    correlationId: String(row["correlation"]),
    causationId: text(row["causation"]),
    depth: Number(row["depth"]),
    principal: String(row["principal"]),
    clientId: text(row["client"]),
    clientCorrelationId: text(row["label"])
  }
})

const entries = function*(db: DatabaseSync): Generator<ActivityBlock.Entry> {
  for (const row of db.prepare("SELECT * FROM activity_1 ORDER BY row").iterate()) yield entryOf(row)
}

/** Format 1 to 2. */
const toBlocks = (db: DatabaseSync): void => {
  db.exec("DROP INDEX activity_correlation; ALTER TABLE activity RENAME TO activity_1")
  db.exec(activity)
  const insert = db.prepare(ActivityBlock.insert)
  let first = 1
  for (const block of ActivityBlock.split(entries(db), ActivityBlock.mostBytes)) {
    insert.run(...ActivityBlock.encode(first, block))
    first += block.length
  }
  db.exec("DROP TABLE activity_1")
}

/** Format 2 to 3. */
const toTables = (db: DatabaseSync): void => {
  for (const table of since3) db.exec(table)
}

/** What is done to a file of format 1, of format 2, and so on. */
const steps: ReadonlyArray<(db: DatabaseSync) => void> = [toBlocks, toTables]

/** Brings a file of this format to the newest. */
export const upgrade = (db: DatabaseSync, format: number): void => {
  for (const step of steps.slice(format - 1)) step(db)
  db.exec(`PRAGMA user_version = ${schemaVersion}`)
}
