/**
 * Which facts belong to a chain of causes: an index by correlation id, and by the label that a client gave.
 *
 * The rule: whoever appends pays nothing for it. The index is brought up to date when somebody asks, a slice of facts in a
 * transaction and a turn of the event loop each, and what was indexed once stays indexed. An index written with every fact
 * would cost each append a page of its own; a trace is asked for by a person, now and then.
 *
 * **Gotchas** The first question to a large store has all of it to read: a second or two for a million facts, while
 * everything else goes on. A fact that is its own root is found by its id, and is not here.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite"

// So many facts are looked at in one turn of the event loop: some milliseconds.
const sliceFacts = 2048

/**
 * The entries of facts that a condition selects. What another program wrote may be no JSON, or have something else than a
 * text there.
 */
export const entriesOf = (condition: string): string =>
  `WITH slice AS MATERIALIZED (
    SELECT position, id, attributes ->> '$.correlationid' AS chain, attributes ->> '$.clientcorrelationid' AS label
    FROM events WHERE ${condition} AND attributes IS NOT NULL AND json_valid(attributes)
  )
  SELECT chain AS correlation, position FROM slice WHERE typeof(chain) = 'text' AND chain <> id
  UNION ALL SELECT label, position FROM slice WHERE typeof(label) = 'text'`

const insert = `INSERT OR IGNORE INTO correlations ${entriesOf("position > ?1 AND position <= ?2")}`

type Transaction = <A>(f: () => A) => A

/** The index of an open store. */
export class CorrelationIndex {
  private readonly transaction: Transaction
  private readonly through: StatementSync
  private readonly insert: StatementSync
  private readonly setThrough: StatementSync
  private readonly select: StatementSync

  /** `transaction` is that of what is written behind: what is lost of the index is written again. */
  constructor(db: DatabaseSync, transaction: Transaction) {
    this.transaction = transaction
    this.through = db.prepare("SELECT through FROM correlated")
    this.insert = db.prepare(insert)
    this.setThrough = db.prepare("UPDATE correlated SET through = ?")
    // Facts may have been removed since.
    this.select = db.prepare(`SELECT c.position FROM correlations c CROSS JOIN events e ON e.position = c.position
      WHERE c.correlation = ? AND c.position >= ? ORDER BY c.position LIMIT ?`)
  }

  /** Indexes the next slice of the facts up to `head`; whether all are indexed. */
  advance(head: number): boolean {
    const from = Number(this.through.get()?.["through"] ?? 0)
    if (from >= head) return true
    const to = Math.min(head, from + sliceFacts)
    this.transaction(() => {
      this.insert.run(from, to)
      this.setThrough.run(to)
    })
    return to === head
  }

  /** Where the facts of a chain are, or those with a label, from a position on; of what is indexed. */
  positions(correlationId: string, from: number, limit: number): ReadonlyArray<number> {
    return this.select.all(correlationId, from, limit).map((row) => Number(row["position"]))
  }
}
