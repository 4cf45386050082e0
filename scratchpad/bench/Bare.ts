/**
 * node:sqlite alone, doing what the event store does: the same tables, the same identity, versions in memory, the stream
 * index written behind; no checks, no errors, no fibers. Or with UNIQUE (stream, version), as most stores have it.
 */
import { DatabaseSync } from "node:sqlite"
import * as Envelope from "../../src/event/Envelope.ts"
import type { Subject } from "./Bench.ts"
import { dataOf, names, streams } from "./Orders.ts"

const columns = `position INTEGER PRIMARY KEY, stream INTEGER NOT NULL, version INTEGER NOT NULL, source INTEGER NOT NULL,
  id TEXT NOT NULL, name INTEGER NOT NULL, data TEXT, attributes TEXT, time TEXT, timestamp INTEGER NOT NULL,
  recorded INTEGER NOT NULL`

/** One file. */
export class Bare {
  readonly db: DatabaseSync
  private readonly unique: boolean
  private readonly ids = Envelope.makeIds(1, 2)
  private readonly versions: Array<number>
  private position: number
  private tail: Array<readonly [stream: number, version: number, position: number]> = []
  private moving: typeof this.tail = []
  private readonly insert
  private readonly index

  constructor(file: string, unique: boolean) {
    this.db = new DatabaseSync(file)
    this.unique = unique
    this.db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 1000")
    this.db.exec(unique
      ? `CREATE TABLE IF NOT EXISTS events (${columns}, UNIQUE (stream, version))`
      : `CREATE TABLE IF NOT EXISTS events (${columns}, UNIQUE (id, source));
         CREATE TABLE IF NOT EXISTS stream_index (stream INTEGER NOT NULL, version INTEGER NOT NULL,
           position INTEGER NOT NULL, PRIMARY KEY (stream, version)) WITHOUT ROWID`)
    this.insert = this.db.prepare("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
    this.index = unique ? undefined : this.db.prepare("INSERT INTO stream_index VALUES (?, ?, ?)")
    this.position = Number(this.db.prepare("SELECT max(position) AS n FROM events").get()?.["n"] ?? 0)
    this.versions = Array.from({ length: streams }, () => 0)
    const heads = this.db.prepare("SELECT stream, max(version) AS version FROM events GROUP BY stream").all()
    for (const { stream, version } of heads) this.versions[Number(stream) - 1] = Number(version)
  }

  private slice(): void {
    for (const [stream, version, position] of this.moving.splice(0, 1024)) this.index?.run(stream, version, position)
    if (this.moving.length === 0 && this.tail.length >= 16_384) {
      this.moving = this.tail.toSorted((a, b) => a[0] - b[0] || a[1] - b[1])
      this.tail = []
    }
  }

  /** One transaction; so many of its facts in a row are of one stream. */
  append(count: number, perStream = 1): void {
    this.db.exec("BEGIN IMMEDIATE")
    for (let i = 0; i < count; i++) {
      const now = Date.now()
      const position = ++this.position
      const stream = Math.floor(position / perStream) % streams
      const version = (this.versions[stream] ?? 0) + 1
      this.versions[stream] = version
      this.insert.run(
        position, stream + 1, version, 1, this.ids(now), 1 + position % names.length, JSON.stringify(dataOf(position)), null,
        Envelope.timeText(now), now, now
      )
      if (!this.unique) this.tail.push([stream + 1, version, position])
    }
    if (!this.unique) this.slice()
    this.db.exec("COMMIT")
  }

  /** So many facts in each transaction, with a turn of the event loop between them where others are to run too. */
  subject(name: string, callers: number, perStream = 1, turns = false): Subject {
    return {
      name,
      run: async (millis) => {
        const start = performance.now()
        let count = 0
        while (performance.now() - start < millis) {
          this.append(callers, perStream)
          count += callers
          if (turns) await new Promise((resolve) => setImmediate(resolve))
        }
        return { count, millis: performance.now() - start }
      }
    }
  }
}
