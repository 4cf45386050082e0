// How snapshots lie in a store's file.

/** The tables of snapshots: which code, of which subject, at which points, the chunks of its states. */
export const tables = `CREATE TABLE snapshot_fingerprints (
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
