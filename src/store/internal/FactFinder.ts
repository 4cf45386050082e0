/**
 * Finds where the facts of a query are, without reading them: by the index of tags, by the index of streams, else by a scan
 * of the positions in question. Names are numbers, so a pattern is a set of numbers by the time that SQLite looks.
 *
 * The rule: positions that are committed. Each item of a query is looked for by itself, for as many positions as are
 * wanted of all: the first of their union are among the first of each.
 */
import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite"
import { type Compiled, matchesNames, type Term } from "../../event/FactQuery.ts"
import { firstWhere } from "./bisect.ts"
import { BoundedMap } from "./BoundedMap.ts"
import type { FactReader } from "./FactReader.ts"
import type { StreamIndex } from "./StreamIndex.ts"

/** Where to look, both ends inclusive, and for how many. */
export interface Range {
  readonly from: number
  readonly to: number
  readonly limit: number
  readonly backward: boolean
}

// Statements by their text: queries are few, and alike.
const statements = 64
// How far tags are counted to find the rarest.
const countedTags = 1024
const chunk = 256

const list = (values: Iterable<number>): string => JSON.stringify([...values])

/** Looks in an open store. */
export class FactFinder {
  private readonly db: DatabaseSync
  private readonly reader: FactReader
  private readonly index: StreamIndex
  private readonly prepared = new BoundedMap<string, StatementSync>(statements)
  private readonly tagged: StatementSync
  private readonly named: StatementSync

  constructor(db: DatabaseSync, reader: FactReader, index: StreamIndex) {
    this.db = db
    this.reader = reader
    this.index = index
    this.tagged = db.prepare(
      `SELECT count(*) AS n FROM (SELECT 1 FROM fact_tags WHERE tag = ? AND position BETWEEN ? AND ? LIMIT ${countedTags})`
    )
    this.named = db.prepare(`SELECT e.position FROM json_each(?) p CROSS JOIN events e ON e.position = p.value
      WHERE e.name IN (SELECT value FROM json_each(?))`)
  }

  /** Positions of the facts that match, in order. */
  positions({ terms }: Compiled, range: Range): ReadonlyArray<number> {
    if (range.from > range.to || range.limit < 1) return []
    const [only, ...others] = terms
    if (only === undefined) return []
    if (others.length === 0) return this.ofTerm(only, range)
    const all = new Set(terms.flatMap((term) => this.ofTerm(term, range)))
    return [...all].toSorted((a, b) => range.backward ? b - a : a - b).slice(0, range.limit)
  }

  private ofTerm(term: Term, range: Range): ReadonlyArray<number> {
    const names = this.namesOf(term)
    if (names?.size === 0) return []
    if (term.tags.length > 0) return this.byTags(term, names, range)
    return term.streamIds === undefined ? this.byScan(names, range) : this.byStreams(term.streamIds, names, range)
  }

  /** The numbers of the names that a term takes; `undefined` where it takes all. */
  private namesOf({ names: groups }: Term): ReadonlySet<number> | undefined {
    const { names } = this.reader
    const [first, ...others] = groups
    if (first === undefined) return undefined
    const found = new Set<number>()
    for (const name of first.exact) {
      const id = names.find(name)
      if (id !== undefined) found.add(id)
    }
    for (const pattern of first.patterns) for (const id of names.matching(pattern)) found.add(id)
    for (const id of found) if (!others.every((group) => matchesNames(group, names.text(id)))) found.delete(id)
    return found
  }

  /** The numbers of streams, those that there are. */
  private streamsOf(streamIds: Iterable<string>): ReadonlyArray<number> {
    const { streams } = this.reader
    return [...streamIds].flatMap((streamId) => streams.find(streamId) ?? [])
  }

  private select(text: string): StatementSync {
    const known = this.prepared.get(text)
    if (known !== undefined) return known
    const statement = this.db.prepare(text)
    this.prepared.set(text, statement)
    return statement
  }

  private run(from: string, conditions: ReadonlyArray<string>, values: ReadonlyArray<SQLInputValue>, { backward, limit }: Range): ReadonlyArray<number> {
    const sql = `SELECT e.position FROM ${from} WHERE ${conditions.join(" AND ")} ORDER BY e.position ${backward ? "DESC" : "ASC"} LIMIT ?`
    return this.select(sql).all(...values, Math.min(limit, Number.MAX_SAFE_INTEGER)).map(({ position }) => Number(position))
  }

  private byTags({ streamIds, tags }: Term, names: ReadonlySet<number> | undefined, range: Range): ReadonlyArray<number> {
    const [rarest = "", ...others] = tags.length === 1 ? tags : this.rarestFirst(tags, range)
    const conditions = ["t.tag = ?", "t.position BETWEEN ? AND ?"]
    const values: Array<SQLInputValue> = [rarest, range.from, range.to]
    for (const tag of others) {
      conditions.push("EXISTS (SELECT 1 FROM fact_tags o WHERE o.tag = ? AND o.position = t.position)")
      values.push(tag)
    }
    if (streamIds !== undefined) {
      conditions.push("e.stream IN (SELECT value FROM json_each(?))")
      values.push(list(this.streamsOf(streamIds)))
    }
    this.addNames(conditions, values, names)
    // CROSS JOIN: from the tag to its facts, never the other way round.
    return this.run("fact_tags t CROSS JOIN events e ON e.position = t.position", conditions, values, range)
  }

  private rarestFirst(tags: ReadonlyArray<string>, { from, to }: Range): ReadonlyArray<string> {
    const counts = new Map(tags.map((tag) => [tag, Number(this.tagged.get(tag, from, to)?.["n"])]))
    return tags.toSorted((a, b) => (counts.get(a) ?? 0) - (counts.get(b) ?? 0))
  }

  private addNames(conditions: Array<string>, values: Array<SQLInputValue>, names: ReadonlySet<number> | undefined): void {
    if (names === undefined) return
    conditions.push("e.name IN (SELECT value FROM json_each(?))")
    values.push(list(names))
  }

  private byScan(names: ReadonlySet<number> | undefined, range: Range): ReadonlyArray<number> {
    const conditions = ["e.position BETWEEN ? AND ?"]
    const values: Array<SQLInputValue> = [range.from, range.to]
    this.addNames(conditions, values, names)
    return this.run("events e", conditions, values, range)
  }

  private byStreams(streamIds: Iterable<string>, names: ReadonlySet<number> | undefined, range: Range): ReadonlyArray<number> {
    const found = this.streamsOf(streamIds).flatMap((stream) => this.inStream(stream, names, range))
    return found.sort((a, b) => range.backward ? b - a : a - b).slice(0, range.limit)
  }

  private inStream(stream: number, names: ReadonlySet<number> | undefined, { backward, from, limit, to }: Range): ReadonlyArray<number> {
    const { index } = this
    const found: Array<number> = []
    const last = index.version(stream)
    let at = backward ? this.firstVersion(stream, last, to + 1) - 1 : this.firstVersion(stream, last, from)
    while (found.length < limit && at >= 1 && at <= last) {
      const positions = index.positions({ stream, from: backward ? 1 : at, to: backward ? at : last, limit: chunk, backward })
      const inside = positions.filter((position) => position >= from && position <= to)
      if (inside.length === 0) break
      const wanted = names === undefined ? inside : this.withNames(inside, names)
      for (const position of wanted) found.push(position)
      at += backward ? -positions.length : positions.length
    }
    return found.slice(0, limit)
  }

  private withNames(positions: ReadonlyArray<number>, names: ReadonlySet<number>): ReadonlyArray<number> {
    return this.named.all(JSON.stringify(positions), list(names)).map(({ position }) => Number(position))
  }

  /** The first version of a stream that is not before `position`; `last + 1` where none is. */
  private firstVersion(stream: number, last: number, position: number): number {
    // Mostly nothing has come since, or all of it is wanted.
    if (last === 0 || this.positionOf(stream, last) < position) return last + 1
    return firstWhere(1, last, (version) => this.positionOf(stream, version) >= position)
  }

  private positionOf(stream: number, version: number): number {
    return this.index.positions({ stream, from: version, to: version, limit: 1, backward: false })[0] ?? 0
  }
}
