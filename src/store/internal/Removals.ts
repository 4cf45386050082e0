// What a file has lost on purpose: which stream begins where, which are deleted, and how far the log was.
//
// The rule: of a stream, only the beginning goes; so one version says what is left. Entries of the stream index before it are
// ignored wherever they lie (in memory, or written later), so removing needs no agreement with who writes that index behind.
//
// A deleted stream may be too long to be erased at once. Until all of it is, nobody sees what is left: its row says so (`deleted`
// is 2, and stays so when the process dies), and on this connection `events` is a view without it. The table is `main.events`.
import type { DatabaseSync, StatementSync } from "node:sqlite"
import * as Tags from "../../event/Tags.ts"
import { BoundedMap } from "./BoundedMap.ts"
import * as CorrelationIndex from "./CorrelationIndex.ts"
import type { Removed } from "./Driver.ts"
import { securely } from "./erasing.ts"

interface Cut {
  readonly first: number
  readonly isDeleted: boolean
}

const whole: Cut = { first: 1, isDeleted: false }

/** What `deleted` says: facts stay, all are gone, those before `first` wait to be erased. */
const [notDeleted, isErased, isWaiting] = [0, 1, 2]

const hide = `CREATE TEMP VIEW IF NOT EXISTS events AS SELECT * FROM main.events e WHERE NOT EXISTS
  (SELECT 1 FROM main.stream_cuts c WHERE c.stream = e.stream AND c.deleted = ${isWaiting} AND e.version < c.first)`

/** A fact that waits to be erased. */
interface Waiting {
  readonly stream: number
  readonly position: number
}

const cached = 32_768
const positionsPerStatement = 512

/** The removals of an open store. */
export class Removals {
  /** Whether anything was ever removed: where not, there are no holes. */
  hasHoles = false
  /** Whether facts of deleted streams wait to be erased. */
  hasWaiting = false
  /** The position and commit time of the last fact at the last removal; it may be gone itself. */
  end = { position: 0, recorded: 0 }
  /** Told, in the transaction, of the facts of a stream that go. What one throws stops the removal. */
  readonly hooks: Array<(removed: Removed) => void> = []
  private readonly db: DatabaseSync
  private readonly cuts = new BoundedMap<number, Cut>(cached)
  private readonly select: StatementSync
  private readonly put: StatementSync
  private readonly putEnd: StatementSync
  private readonly selectEnd: StatementSync
  private readonly blank: StatementSync
  private readonly removeEvents: StatementSync
  private readonly tagged: StatementSync
  private readonly removeTag: StatementSync
  private readonly removeCorrelations: StatementSync
  private readonly removeIndex: StatementSync
  private readonly waiting: StatementSync
  private readonly indexed: StatementSync
  private readonly recent: StatementSync
  private readonly hidden: StatementSync

  constructor(db: DatabaseSync) {
    this.db = db
    this.select = db.prepare("SELECT first, deleted FROM stream_cuts WHERE stream = ?")
    this.put = db.prepare("INSERT OR REPLACE INTO stream_cuts VALUES (?, ?, ?)")
    this.putEnd = db.prepare("INSERT OR REPLACE INTO log_end VALUES (1, ?, ?)")
    this.selectEnd = db.prepare("SELECT position, recorded FROM log_end")
    // As long as before, so that SQLite writes it where it was: a row that is deleted may leave a copy of its neighbour behind when
    // a page is joined with another.
    this.blank = db.prepare(`UPDATE main.events SET data = printf('%*s', octet_length(data), ''), attributes = printf('%*s', octet_length(attributes), '')
      WHERE position IN (SELECT value FROM json_each(?))`)
    this.removeEvents = db.prepare("DELETE FROM main.events WHERE position IN (SELECT value FROM json_each(?))")
    this.tagged = db.prepare(`SELECT position, attributes ->> '$.${Tags.attribute}' AS tags FROM main.events
      WHERE position IN (SELECT value FROM json_each(?)) AND instr(attributes, '"${Tags.attribute}"') AND json_valid(attributes)`)
    this.removeTag = db.prepare("DELETE FROM fact_tags WHERE tag = ? AND position = ?")
    // An entry may be a label that a client gave: it goes with the fact, wherever the index has come to.
    this.removeCorrelations = db.prepare(`DELETE FROM correlations WHERE (correlation, position) IN
      (${CorrelationIndex.entriesOf("position IN (SELECT value FROM json_each(?1))")})`)
    this.removeIndex = db.prepare("DELETE FROM stream_index WHERE stream = ? AND version < ?")
    this.waiting = db.prepare(`SELECT stream, first FROM stream_cuts WHERE deleted = ${isWaiting} LIMIT 1`)
    // An entry may be of a fact that is gone: it was written after that.
    this.indexed = db.prepare(`SELECT i.version, e.position FROM stream_index i LEFT JOIN main.events e ON e.position = i.position
      WHERE i.stream = ? AND i.version < ? ORDER BY i.version LIMIT ?`)
    this.recent = db.prepare(`SELECT position FROM main.events
      WHERE position > (SELECT through FROM meta) AND stream = ? AND version < ? ORDER BY position LIMIT ?`)
    this.hidden = db.prepare("SELECT stream, position FROM main.events WHERE id = ? AND source = ?")
  }

  /** Reads everything held in memory: at the start, after a transaction that is gone, after another program wrote. */
  reset(): void {
    this.cuts.clear()
    const end = this.selectEnd.get()
    this.hasHoles = end !== undefined
    this.end = { position: Number(end?.["position"] ?? 0), recorded: Number(end?.["recorded"] ?? 0) }
    this.hideWaiting()
  }

  /** The first version that a stream may hold. */
  first(stream: number): number {
    return this.cutOf(stream).first
  }

  /** Whether a stream is deleted: its tombstone is all it holds, and it takes no more. */
  isDeleted(stream: number): boolean {
    return this.hasHoles && this.cutOf(stream).isDeleted
  }

  /**
   * Removes these facts, which are all that a stream holds before version `first`; `end` is the last fact of the log. In a
   * transaction: after one that fails, `reset`.
   */
  remove(stream: number, removed: Removed, first: number, end: Removals["end"]): void {
    this.erase(removed)
    this.removeIndex.run(stream, first)
    this.cut(stream, first, notDeleted, end)
  }

  /**
   * Deletes a stream whose tombstone is version `first`: at once nobody sees the facts before it, and so many of them are erased.
   * As `remove`, in a transaction; the others are erased by `eraseSome`.
   */
  delete(stream: number, streamId: string, first: number, end: Removals["end"], facts: number): void {
    this.cut(stream, first, isWaiting, end)
    this.eraseOf(stream, streamId, first, facts)
    this.hideWaiting()
  }

  /** Erases some facts that wait for it, in a transaction; whether others are left. */
  eraseSome(nameOf: (stream: number) => string, facts: number): boolean {
    const next = this.waiting.get()
    const stream = Number(next?.["stream"])
    if (next !== undefined) this.eraseOf(stream, nameOf(stream), Number(next["first"]), facts)
    this.hideWaiting()
    return this.hasWaiting
  }

  /** The fact that waits to be erased and has this identity until then. */
  waitingFor(id: string, source: number): Waiting | undefined {
    const row = this.hasWaiting ? this.hidden.get(id, source) : undefined
    return row === undefined ? undefined : { stream: Number(row["stream"]), position: Number(row["position"]) }
  }

  /** Takes these facts out of the file, and whatever is kept of them. */
  erase(removed: Removed): void {
    const { positions } = removed
    for (let at = 0; at < positions.length; at += positionsPerStatement) {
      const some = JSON.stringify(positions.slice(at, at + positionsPerStatement))
      for (const { position, tags } of this.tagged.all(some)) {
        if (typeof tags === "string") for (const tag of Tags.fromText(tags)) this.removeTag.run(tag, Number(position))
      }
      this.removeCorrelations.run(some)
      this.blank.run(some)
      this.removeEvents.run(some)
    }
    if (positions.length > 0) for (const hook of this.hooks) hook(removed)
  }

  /**
   * Runs a removal with what it frees overwritten by zeros, also pages that become free. At other times only what is written
   * anyway is (`FAST`): appends do not pay. What the log beside the file holds is overwritten by later commits, or at once by `ksi compact`.
   */
  securely<A>(f: () => A): A {
    return securely(this.db, f)
  }

  /** Erases the first facts of a deleted stream, as they lie in the index and, newer ones, beside it. */
  private eraseOf(stream: number, streamId: string, first: number, facts: number): void {
    const rows = this.indexed.all(stream, first, facts)
    const recent = this.recent.all(stream, first, facts - rows.length)
    const positions = new Set([...rows, ...recent].flatMap(({ position }) => typeof position === "number" ? [position] : []))
    this.erase({ streamId, positions: [...positions] })
    const isOver = rows.length + recent.length < facts
    this.removeIndex.run(stream, isOver ? first : Number(rows.at(-1)?.["version"] ?? 0) + 1)
    if (isOver) this.put.run(stream, first, isErased)
  }

  private cut(stream: number, first: number, deleted: number, end: Removals["end"]): void {
    this.put.run(stream, first, deleted)
    this.putEnd.run(end.position, end.recorded)
    this.cuts.set(stream, { first, isDeleted: deleted !== notDeleted })
    this.end = end
    this.hasHoles = true
  }

  /** Makes `events` what may be seen of it: the table, or a view. Statements follow by themselves. */
  private hideWaiting(): void {
    this.hasWaiting = this.hasHoles && this.waiting.get() !== undefined
    this.db.exec(this.hasWaiting ? hide : "DROP VIEW IF EXISTS temp.events")
  }

  private cutOf(stream: number): Cut {
    if (!this.hasHoles) return whole
    const known = this.cuts.get(stream)
    if (known !== undefined) return known
    const row = this.select.get(stream)
    const cut = row === undefined ? whole : { first: Number(row["first"]), isDeleted: row["deleted"] !== notDeleted }
    this.cuts.set(stream, cut)
    return cut
  }
}
