/**
 * Reads facts by the page: SQLite joins a page into one JSON text, which is parsed once.
 *
 * The rule: a page has at most `limit` facts and at most `pageBytes`, but at least one; what would not fit is not
 * loaded (its size stands in the record's header). The text of data comes out as it went in.
 *
 * **Gotchas** A fact whose text cannot be parsed (another program wrote it) comes without data, with the attribute
 * `ksiunreadable`: it must not hide those around it.
 *
 * Numbers that a double cannot hold need a careful parser that is ten times slower. The store remembers the
 * first position that holds one; pages before it take the fast path.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite"
import type { StoredFact } from "../../event/CloudEvent.ts"
import * as Json from "../../event/Json.ts"
import type { JsonObject } from "../../event/Json.ts"
import { Dictionary } from "./Dictionary.ts"
import { Removals } from "./Removals.ts"
import * as StoreFile from "./StoreFile.ts"

// What a fact costs on a page besides its data and attributes.
const overheadBytes = 160

const size = `${overheadBytes} + ifnull(octet_length(e.data), 0) + ifnull(octet_length(e.attributes), 0)`

// concat() makes nothing of NULL, so a fact without data has one field less than one whose data is null.
const jsonWith = (attributes: string, data: string) =>
  `concat('[', e.position, ',', e.version, ',', e.stream, ',', e.source, ',', json_quote(e.id), ',', e.name,
  ',', ${attributes}, ',', json_quote(e.time), ',', e.timestamp, ',', e.recorded, ${data}, ']')`

const json = jsonWith("ifnull(e.attributes, '0')", "',' || e.data")
const withoutTexts = jsonWith("'{\"ksiunreadable\":true}'", "''")

const range = "events e WHERE e.position BETWEEN ?1 AND ?2"

// Together they are one text: so many that a statement's own cost is little, so few that their texts may be thrown away.
const versionsPerStatement = 32

/** One fact as the page has it. */
type Row = readonly [
  position: number, version: number, stream: number, source: number, id: string, name: number,
  attributes: JsonObject | 0, time: string | null, timestamp: number, recorded: number, data?: unknown
]

/** Reads the facts of an open store. */
export class FactReader {
  readonly streams: Dictionary
  readonly names: Dictionary
  readonly sources: Dictionary
  readonly removals: Removals
  /** The first position with a number that a double cannot hold. */
  careful: number
  private readonly readCareful: () => number
  private readonly pageBytes: number
  private readonly bytes: StatementSync
  private readonly fitting: StatementSync
  private readonly left: StatementSync
  private readonly joined: StatementSync
  private readonly listed: StatementSync
  private readonly indexed: StatementSync
  private readonly single: StatementSync
  private readonly unreadable: StatementSync
  private readonly positionsIn: StatementSync
  private readonly positionsById: StatementSync
  private readonly positionById: StatementSync

  constructor(db: DatabaseSync, pageBytes: number) {
    this.streams = new Dictionary(db, "streams")
    this.names = new Dictionary(db, "names")
    this.sources = new Dictionary(db, "sources")
    this.removals = new Removals(db)
    this.pageBytes = pageBytes
    this.readCareful = () => StoreFile.number(db, "SELECT careful FROM meta") || Infinity
    this.careful = this.readCareful()
    this.bytes = db.prepare(`SELECT total(${size}) AS n FROM ${range}`)
    this.fitting = db.prepare(`SELECT max(position) AS last FROM
      (SELECT e.position, sum(${size}) OVER (ORDER BY e.position ROWS UNBOUNDED PRECEDING) AS upto FROM ${range}) WHERE upto <= ?3`)
    this.left = db.prepare(`SELECT min(position) AS first, max(position) AS last FROM
      (SELECT e.position FROM ${range} ORDER BY e.position LIMIT ?3)`)
    this.joined = db.prepare(`SELECT concat('[', group_concat(${json}), ']') AS page FROM ${range}`)
    // CROSS JOIN keeps the order of the list.
    this.listed = db.prepare(`SELECT ${size}, ${json} FROM json_each(?) p CROSS JOIN events e ON e.position = p.value`, {
      returnArrays: true
    })
    // In the order of the index, which this reads from one end to the other.
    this.indexed = db.prepare(`SELECT group_concat(${json}) AS page, total(${size}) AS bytes, max(e.position) AS newest, count(*) AS n
      FROM stream_index i CROSS JOIN events e ON e.position = i.position WHERE i.stream = ? AND i.version BETWEEN ? AND ?`)
    this.single = db.prepare(`SELECT ${json} AS page FROM events e WHERE e.position = ?`)
    this.unreadable = db.prepare(`SELECT ${withoutTexts} AS page FROM events e WHERE e.position = ?`)
    this.positionsIn = db.prepare(`SELECT e.position FROM ${range} ORDER BY e.position`)
    this.positionsById = db.prepare("SELECT position FROM events WHERE id = ? ORDER BY position LIMIT ?")
    this.positionById = db.prepare("SELECT position FROM events WHERE id = ? AND source = ?")
  }

  /** How many facts to look at for a page of `limit`. */
  rows(limit: number): number {
    return Math.max(1, Math.min(limit, Math.ceil(this.pageBytes / overheadBytes)))
  }

  /** The first facts with `from <= position <= to`, at most `limit`; none only where none is left. */
  read(from: number, to: number, limit: number): ReadonlyArray<StoredFact> {
    const rows = this.rows(limit)
    if (!this.removals.hasHoles) return this.between(from, Math.min(to, from + rows - 1))
    const { first, last } = this.left.get(from, to, rows) ?? {}
    return typeof first === "number" && typeof last === "number" ? this.between(first, last) : []
  }

  /** Facts with `from <= position <= to`, both of them there. */
  private between(from: number, to: number): ReadonlyArray<StoredFact> {
    const { pageBytes } = this
    const last = Number(this.bytes.get(from, to)?.["n"]) <= pageBytes
      ? to
      : Number(this.fitting.get(from, to, pageBytes)?.["last"] ?? from)
    const page = String(this.joined.get(from, last)?.["page"])
    return this.parse(page, last) ?? this.salvageAll(from, last)
  }

  /** The facts at these positions, in this order. */
  at(positions: ReadonlyArray<number>): ReadonlyArray<StoredFact> {
    if (positions.length === 0) return []
    const texts: Array<string> = []
    let left = this.pageBytes
    // One after another: they lie apart, and looking at their sizes first would cost as much again. With returnArrays
    // a row is an array; the type library knows only objects.
    for (const row of this.listed.iterate(JSON.stringify(positions)) as unknown as Iterable<readonly [number, string]>) {
      left -= row[0]
      if (left < 0 && texts.length > 0) break
      texts.push(row[1])
    }
    if (left >= 0 && texts.length < positions.length) throw new Error("the store is corrupt: an event of the index is missing")
    return this.parse(`[${texts.join(",")}]`, positions.reduce((a, b) => Math.max(a, b))) ??
      positions.slice(0, texts.length).map((position) => this.salvage(position))
  }

  /**
   * Facts with `from <= version <= to` of a stream, all of them in the stream index; `undefined` where they are better read one
   * by one: the first of them are long, or one cannot be parsed.
   */
  ofIndex(stream: number, from: number, to: number): ReadonlyArray<StoredFact> | undefined {
    const texts: Array<string> = []
    let left = this.pageBytes
    let newest = 0
    for (let first = from; first <= to; first += versionsPerStatement) {
      const last = Math.min(to, first + versionsPerStatement - 1)
      const part = this.indexed.get(stream, first, last)
      left -= Number(part?.["bytes"])
      if (left < 0) break
      if (part?.["n"] !== last - first + 1) return undefined
      texts.push(String(part["page"]))
      newest = Math.max(newest, Number(part["newest"]))
    }
    return texts.length === 0 ? undefined : this.parse(`[${texts.join(",")}]`, newest)
  }

  /** Facts with this id, of any source. */
  byId(id: string): ReadonlyArray<StoredFact> {
    return this.at(this.positionsById.all(id, this.rows(Infinity)).map((row) => Number(row["position"])))
  }

  /** The fact with this identity. */
  identity(id: string, source: number): StoredFact | undefined {
    const position = this.positionById.get(id, source)?.["position"]
    return position === undefined ? undefined : this.at([Number(position)])[0]
  }

  /** Forgets what a transaction that is gone had written, and learns what another program wrote. */
  reset(): void {
    this.streams.reset()
    this.names.reset()
    this.sources.reset()
    this.removals.reset()
    this.careful = this.readCareful()
  }

  /** The facts of a page; `undefined` where one of them is no JSON. */
  private parse(page: string, newest: number): ReadonlyArray<StoredFact> | undefined {
    let rows: ReadonlyArray<Row>
    try {
      // The statements build exactly these rows.
      rows = (newest < this.careful ? Json.parsePlain(page) : Json.parse(page)) as ReadonlyArray<Row>
    } catch {
      return undefined
    }
    return rows.map((row) => this.factOf(row))
  }

  private salvageAll(from: number, to: number): ReadonlyArray<StoredFact> {
    return this.positionsIn.all(from, to).map(({ position }) => this.salvage(Number(position)))
  }

  /** One fact, of a page that could not be parsed. */
  private salvage(position: number): StoredFact {
    const textOf = (statement: StatementSync) => `[${String(statement.get(position)?.["page"])}]`
    const fact = this.parse(textOf(this.single), Infinity)?.[0] ?? this.parse(textOf(this.unreadable), Infinity)?.[0]
    if (fact === undefined) throw new Error(`the store is corrupt: position ${position} cannot be read`)
    return fact
  }

  private factOf(row: Row): StoredFact {
    return {
      id: row[4],
      source: this.sources.text(row[3]),
      name: this.names.text(row[5]),
      streamId: this.streams.text(row[2]),
      data: row[10],
      time: row[7] ?? undefined,
      attributes: row[6] === 0 ? {} : row[6],
      position: row[0],
      version: row[1],
      timestamp: row[8],
      recordedAt: row[9]
    }
  }
}
