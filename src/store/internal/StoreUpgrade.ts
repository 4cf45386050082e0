// Brings a store's file of an older format to the newest, in the transaction of the caller: all of it, or nothing.
import type { DatabaseSync, SQLOutputValue } from "node:sqlite"
import type { OutcomeKind } from "../../bus/Activity.ts"
import * as ActivityBlock from "./ActivityBlock.ts"

/** The newest format. 1: requests of the activity journal had a row each. 2: they are in blocks. */
export const newest = 2

/** Tables that an older format has otherwise. */
export const changed: ReadonlyArray<string> = ["activity"]

const text = (value: SQLOutputValue | undefined): string | undefined => typeof value === "string" ? value : undefined

const entryOf = (row: Record<string, SQLOutputValue>): ActivityBlock.Entry => ({
  data: text(row["data"]) ?? null,
  record: {
    id: String(row["id"]),
    name: String(row["name"]),
    // Only the activity journal wrote the column.
    outcome: row["outcome"] as OutcomeKind,
    error: text(row["error"]),
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
export const upgrade = (db: DatabaseSync): void => {
  db.exec("DROP INDEX activity_correlation; ALTER TABLE activity RENAME TO activity_1")
  db.exec(ActivityBlock.table)
  const insert = db.prepare(ActivityBlock.insert)
  let first = 1
  for (const block of ActivityBlock.split(entries(db), ActivityBlock.mostBytes)) {
    insert.run(...ActivityBlock.encode(first, block))
    first += block.length
  }
  db.exec(`DROP TABLE activity_1; PRAGMA user_version = ${newest}`)
}
