// What a file has lost on purpose: which stream begins where, which are deleted, and how far the log was.
//
// The rule: of a stream, only the beginning goes; so one version says what is left. Entries of the stream index before it are
// ignored wherever they lie (in memory, or written later), so removing needs no agreement with who writes that index behind.
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
const cached = 32_768
const positionsPerStatement = 512

/** The removals of an open store. */
export class Removals {
  /** Whether anything was ever removed: where not, there are no holes. */
  hasHoles = false
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

  constructor(db: DatabaseSync) {
    this.db = db
    this.select = db.prepare("SELECT first, deleted FROM stream_cuts WHERE stream = ?")
    this.put = db.prepare("INSERT OR REPLACE INTO stream_cuts VALUES (?, ?, ?)")
    this.putEnd = db.prepare("INSERT OR REPLACE INTO log_end VALUES (1, ?, ?)")
    this.selectEnd = db.prepare("SELECT position, recorded FROM log_end")
    // As long as before, so that SQLite writes it where it was: a row that is deleted may leave a copy of its neighbour behind when
    // a page is joined with another.
    this.blank = db.prepare(`UPDATE events SET data = printf('%*s', octet_length(data), ''), attributes = printf('%*s', octet_length(attributes), '')
      WHERE position IN (SELECT value FROM json_each(?))`)
    this.removeEvents = db.prepare("DELETE FROM events WHERE position IN (SELECT value FROM json_each(?))")
    this.tagged = db.prepare(`SELECT position, attributes ->> '$.${Tags.attribute}' AS tags FROM events
      WHERE position IN (SELECT value FROM json_each(?)) AND instr(attributes, '"${Tags.attribute}"') AND json_valid(attributes)`)
    this.removeTag = db.prepare("DELETE FROM fact_tags WHERE tag = ? AND position = ?")
    // An entry may be a label that a client gave: it goes with the fact, wherever the index has come to.
    this.removeCorrelations = db.prepare(`DELETE FROM correlations WHERE (correlation, position) IN
      (${CorrelationIndex.entriesOf("position IN (SELECT value FROM json_each(?1))")})`)
    this.removeIndex = db.prepare("DELETE FROM stream_index WHERE stream = ? AND version < ?")
  }

  /** Reads everything held in memory: at the start, after a transaction that is gone, after another program wrote. */
  reset(): void {
    this.cuts.clear()
    const end = this.selectEnd.get()
    this.hasHoles = end !== undefined
    this.end = { position: Number(end?.["position"] ?? 0), recorded: Number(end?.["recorded"] ?? 0) }
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
  remove(stream: number, positions: ReadonlyArray<number>, cut: Cut, end: Removals["end"]): void {
    for (let at = 0; at < positions.length; at += positionsPerStatement) {
      const some = JSON.stringify(positions.slice(at, at + positionsPerStatement))
      for (const { position, tags } of this.tagged.all(some)) {
        if (typeof tags === "string") for (const tag of Tags.fromText(tags)) this.removeTag.run(tag, Number(position))
      }
      this.removeCorrelations.run(some)
      this.blank.run(some)
      this.removeEvents.run(some)
    }
    this.removeIndex.run(stream, cut.first)
    this.put.run(stream, cut.first, cut.isDeleted ? 1 : 0)
    this.putEnd.run(end.position, end.recorded)
    this.cuts.set(stream, cut)
    this.end = end
    this.hasHoles = true
  }

  /**
   * Runs a removal with what it frees overwritten by zeros, also pages that become free. At other times only what is written
   * anyway is (`FAST`): appends do not pay. What the log beside the file holds is overwritten by later commits, or at once by `ksi compact`.
   */
  securely<A>(f: () => A): A {
    return securely(this.db, f)
  }

  private cutOf(stream: number): Cut {
    if (!this.hasHoles) return whole
    const known = this.cuts.get(stream)
    if (known !== undefined) return known
    const row = this.select.get(stream)
    const cut = row === undefined ? whole : { first: Number(row["first"]), isDeleted: row["deleted"] === 1 }
    this.cuts.set(stream, cut)
    return cut
  }
}
