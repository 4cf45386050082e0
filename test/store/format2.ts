/** A store's file as KSI made it in format 2, with what was in it: facts, the older half of them in the stream index, and a block of requests. */
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
  first INTEGER PRIMARY KEY, last INTEGER NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL, bytes INTEGER NOT NULL,
  -- What many requests have in common, once: as JSON, like the columns of each and their payloads.
  kinds TEXT NOT NULL, columns TEXT NOT NULL, data TEXT NOT NULL
);
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
PRAGMA user_version = 2;
`

/** Makes the file: so many facts, one after the other in ten streams, and a block of two requests. */
export const make = (filename: string, facts: number): void => {
  const db = new DatabaseSync(filename)
  db.exec(`PRAGMA journal_mode = WAL; BEGIN; ${schema}
    INSERT INTO names VALUES (1, 'order:placed'); INSERT INTO sources VALUES (1, '/ksi')`)
  for (let stream = 1; stream <= Math.min(10, facts); stream++) db.exec(`INSERT INTO streams VALUES (${stream}, 'order-${stream}')`)
  const insert = db.prepare("INSERT INTO events VALUES (?, ?, ?, 1, ?, 1, ?, NULL, NULL, ?, ?)")
  const index = db.prepare("INSERT INTO stream_index VALUES (?, ?, ?)")
  const through = Math.floor(facts / 2)
  for (let position = 1; position <= facts; position++) {
    const stream = 1 + (position - 1) % 10
    const version = 1 + Math.floor((position - 1) / 10)
    insert.run(position, stream, version, `fact-${position}`, `{"n":${position}}`, 1000 + position, 1000 + position)
    if (position <= through) index.run(stream, version, position)
  }
  db.exec(`UPDATE meta SET through = ${through};
    INSERT INTO activity VALUES (1, 2, 1000, 1005, 200, '[["order:place","success",null,null,null,0,"owner",null]]',
      '{"ids":["a","b"],"times":[0,5],"durations":[1.5,2]}', '[{"n":1},{"n":2}]'); COMMIT`)
  db.close()
}
