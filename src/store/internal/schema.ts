// The schema of a store's file: every table and index, in the one place where it is written down. Whoever reads and writes a
// table owns its statements; a file of an older format is brought to this by `StoreUpgrade`.

/** Marks a database as KSI's. */
export const applicationId = 0x4b534931

/**
 * The newest format. 1: requests of the activity journal had a row each. 2: they are in blocks. 3: the tables of
 * `since3`.
 */
export const schemaVersion = 3

/** Facts by position; by stream and version; and numbers for the texts that repeat. */
const facts = `CREATE TABLE events (
  position INTEGER PRIMARY KEY, stream INTEGER NOT NULL, version INTEGER NOT NULL, source INTEGER NOT NULL,
  id TEXT NOT NULL, name INTEGER NOT NULL, data TEXT, attributes TEXT, time TEXT,
  timestamp INTEGER NOT NULL, recorded INTEGER NOT NULL,
  UNIQUE (id, source)
);
CREATE TABLE stream_index (
  stream INTEGER NOT NULL, version INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (stream, version)
) WITHOUT ROWID;
CREATE TABLE streams (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE names (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE sources (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  -- Every position up to here is in stream_index.
  through INTEGER NOT NULL,
  -- The first position that holds a number a double cannot; 0 where there is none.
  careful INTEGER NOT NULL
);
INSERT INTO meta VALUES (1, 0, 0)`

/** Requests of the activity journal, in blocks. Their numbers have no gaps but at the old end; `bytes` is about what a block takes of the file. */
export const activity = `CREATE TABLE activity (
  first INTEGER PRIMARY KEY, last INTEGER NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL, bytes INTEGER NOT NULL,
  -- What many requests have in common, once: as JSON, like the columns of each and their payloads.
  kinds TEXT NOT NULL, columns TEXT NOT NULL, data TEXT NOT NULL
)`

/** Reactions that failed, and answers under idempotency keys. */
const answers = `CREATE TABLE dead_letters (
  letter INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, handler TEXT NOT NULL, reason TEXT NOT NULL,
  error TEXT NOT NULL, event TEXT NOT NULL, timestamp INTEGER NOT NULL, reruns INTEGER NOT NULL
);
CREATE INDEX dead_letters_name ON dead_letters (name);
CREATE TABLE idempotency (
  row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, request TEXT NOT NULL, kind TEXT NOT NULL,
  value TEXT, expires INTEGER NOT NULL
)`

/** Which facts belong to a chain of causes, as far as somebody asked: `correlated` has one row. */
const correlations = `CREATE TABLE correlations (
  correlation TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (correlation, position)
) WITHOUT ROWID;
CREATE TABLE correlated (through INTEGER NOT NULL);
INSERT INTO correlated VALUES (0)`

/** Snapshots: which code, of which subject, at which points, the chunks of its states. */
const snapshots = `CREATE TABLE snapshot_fingerprints (
  id INTEGER PRIMARY KEY, projection TEXT NOT NULL, fingerprint TEXT NOT NULL, stale INTEGER NOT NULL,
  UNIQUE (projection, fingerprint)
);
CREATE TABLE snapshot_chains (
  chain INTEGER PRIMARY KEY, fingerprint INTEGER NOT NULL, subject TEXT NOT NULL, UNIQUE (subject, fingerprint)
);
CREATE INDEX snapshot_chains_fingerprint ON snapshot_chains (fingerprint);
CREATE TABLE snapshot_points (
  chain INTEGER NOT NULL, position INTEGER NOT NULL, through INTEGER NOT NULL, previous INTEGER NOT NULL,
  newest REAL NOT NULL, oldest REAL NOT NULL, late INTEGER NOT NULL, chunks INTEGER NOT NULL, written INTEGER NOT NULL,
  PRIMARY KEY (chain, position)
) WITHOUT ROWID;
CREATE INDEX snapshot_late ON snapshot_points (chain, position) WHERE late = 1;
CREATE TABLE snapshots (
  chain INTEGER NOT NULL, chunk INTEGER NOT NULL, position INTEGER NOT NULL, body BLOB NOT NULL,
  UNIQUE (chain, chunk, position)
)`

/** Which facts have which tag. Only a fact that has any has rows here; they are written with it. */
const tags = `CREATE TABLE fact_tags (
  tag TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (tag, position)
) WITHOUT ROWID`

/**
 * A set is one version of a read model: which code it was folded with, how far it is, and whether it is asked (`serving`),
 * under way to be (`building`) or to be deleted (`dropped`). Its states are under its number, by key.
 */
const readModels: ReadonlyArray<string> = [
  `CREATE TABLE read_models (
  model INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, fingerprint TEXT NOT NULL, role TEXT NOT NULL,
  position INTEGER NOT NULL
)`,
  "CREATE INDEX read_models_name ON read_models (name)",
  `CREATE TABLE read_model_states (
  model INTEGER NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (model, key)
) WITHOUT ROWID`
]

/**
 * A group has dealt with everything up to `position`, and beyond that with the positions in `done` (a JSON array, as short
 * as the group's window). What it has set aside has a row; `error` is null where it only waits behind another of its stream.
 */
const consumers: ReadonlyArray<string> = [
  `CREATE TABLE consumer_groups (
  consumer INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, position INTEGER NOT NULL, done TEXT NOT NULL
)`,
  `CREATE TABLE consumer_parked (
  consumer INTEGER NOT NULL, position INTEGER NOT NULL, stream TEXT NOT NULL, attempts INTEGER NOT NULL, error TEXT,
  timestamp INTEGER NOT NULL, PRIMARY KEY (consumer, position)
) WITHOUT ROWID`,
  "CREATE INDEX consumer_parked_stream ON consumer_parked (consumer, stream, position)"
]

/** What was removed: settings by stream id (also of a stream to come), what streams have lost, what the log was. */
const removals = `CREATE TABLE stream_settings (stream TEXT PRIMARY KEY, settings TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE stream_cuts (stream INTEGER PRIMARY KEY, first INTEGER NOT NULL, deleted INTEGER NOT NULL);
CREATE TABLE log_end (one INTEGER PRIMARY KEY CHECK (one = 1), position INTEGER NOT NULL, recorded INTEGER NOT NULL)`

/** The tables that came with format 3. */
export const since3: ReadonlyArray<string> = [correlations, snapshots, tags, ...readModels, ...consumers, removals]

/** How a new file is laid out. */
export const schema = `
${[facts, activity, answers, ...since3].map((table) => `${table};`).join("\n")}
PRAGMA application_id = ${applicationId};
PRAGMA user_version = ${schemaVersion};
`
