// How the consumer groups of a store are laid out in its file.

/**
 * A group has dealt with everything up to `position`, and beyond that with the positions in `done` (a JSON array, as short
 * as the group's window). What it has set aside has a row; `error` is null where it only waits behind another of its stream.
 */
export const tables: ReadonlyArray<string> = [
  `CREATE TABLE consumer_groups (
  consumer INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, position INTEGER NOT NULL, done TEXT NOT NULL
)`,
  `CREATE TABLE consumer_parked (
  consumer INTEGER NOT NULL, position INTEGER NOT NULL, stream TEXT NOT NULL, attempts INTEGER NOT NULL, error TEXT,
  timestamp INTEGER NOT NULL, PRIMARY KEY (consumer, position)
) WITHOUT ROWID`,
  "CREATE INDEX consumer_parked_stream ON consumer_parked (consumer, stream, position)"
]
