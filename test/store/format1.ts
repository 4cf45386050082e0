/** A store's file as KSI made it in format 1, with what was in it: a fact and some requests. */
import { DatabaseSync } from "node:sqlite"

// Never changed again: files like it may be anywhere.
const schema = `
CREATE TABLE events (
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
INSERT INTO meta VALUES (1, 0, 0);
CREATE TABLE activity (
  row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, name TEXT NOT NULL, data TEXT, outcome TEXT NOT NULL,
  error TEXT, duration REAL NOT NULL, timestamp INTEGER NOT NULL, correlation TEXT NOT NULL, causation TEXT,
  depth INTEGER NOT NULL, principal TEXT NOT NULL, client TEXT, label TEXT
);
-- Chains are looked up; ids and labels are looked for, in so many rows as are kept: every index costs each request.
CREATE INDEX activity_correlation ON activity (correlation);
CREATE TABLE dead_letters (
  letter INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, handler TEXT NOT NULL, reason TEXT NOT NULL,
  error TEXT NOT NULL, event TEXT NOT NULL, timestamp INTEGER NOT NULL, reruns INTEGER NOT NULL
);
CREATE INDEX dead_letters_name ON dead_letters (name);
CREATE TABLE idempotency (
  row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, request TEXT NOT NULL, kind TEXT NOT NULL,
  value TEXT, expires INTEGER NOT NULL
);
PRAGMA application_id = 1263749425;
PRAGMA user_version = 1;
`

/** Makes the file: a fact, then so many requests, numbered from 1; every tenth one failed, a child of the one before it. */
export const make = (filename: string, requests: number): void => {
  const db = new DatabaseSync(filename)
  db.exec(`PRAGMA journal_mode = WAL; BEGIN; ${schema}
    INSERT INTO streams VALUES (1, 'order-1'); INSERT INTO names VALUES (1, 'order:placed'); INSERT INTO sources VALUES (1, '/ksi');
    INSERT INTO events VALUES (1, 1, 1, 1, 'fact-1', 1, '{"sku":"tea"}', NULL, NULL, 1000, 1001)`)
  const insert = db.prepare("INSERT INTO activity VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
  for (let i = 1; i <= requests; i++) {
    if (i % 10 === 0) insert.run(`${i}`, "stock:reserve", null, "failure", "none left", 2.5, 1000 + i, `${i - 1}`, `${i - 1}`, 1, "owner", "till", `label ${i}`)
    else insert.run(`${i}`, "order:place", `{"n":${i},"big":12345678901234567890}`, "success", null, 1.5, 1000 + i, `${i}`, null, 0, "local-http", null, null)
  }
  db.exec("COMMIT")
  db.close()
}
