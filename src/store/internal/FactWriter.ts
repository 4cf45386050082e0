/**
 * Writes facts: many appends in one transaction, each checked against what is committed and against those before it.
 *
 * The rule: an append that fails leaves nothing behind and frees its positions, so positions and versions are gapless.
 * When the transaction fails, every append in it fails and the writer is as it was before.
 *
 * Uniqueness of (source, id) is the table's: a fact is inserted first and looked at only when it was there already.
 * Uniqueness of (stream, version) is the writer's, who is alone with the file; `data_version` tells when it was not.
 */
import type { SQLInputValue, StatementSync } from "node:sqlite"
import type { Append, Outcome } from "../../bus/Journal.ts"
import * as CloudEvent from "../../event/CloudEvent.ts"
import type { NewFact, StoredFact } from "../../event/CloudEvent.ts"
import type { Compiled } from "../../event/FactQuery.ts"
import * as Json from "../../event/Json.ts"
import type { JsonObject } from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import * as Tags from "../../event/Tags.ts"
import * as Expectations from "./Expectations.ts"
import { FactFinder } from "./FactFinder.ts"
import type { FactReader } from "./FactReader.ts"
import { Participants } from "./Participants.ts"
import * as StoreFile from "./StoreFile.ts"
import { StreamIndex } from "./StreamIndex.ts"

/** A fact as it will be written. */
export interface Row {
  readonly fact: NewFact
  readonly data: string | null
  readonly attributes: string | null
  readonly tags: ReadonlyArray<string>
  /** Whether it holds a number that a double cannot. */
  readonly careful: boolean
}

/** A fact that is written: its place, and the number of its stream. */
export interface Written {
  readonly row: Row
  readonly stream: number
  readonly position: number
  readonly version: number
  readonly timestamp: number
  readonly recordedAt: number
}

/** An append whose facts are texts. */
export interface Encoded {
  readonly rows: ReadonlyArray<Row>
  readonly expected: Expectations.Expectations | undefined
  readonly each: boolean
}

/** What an append comes to. */
export type Answer = ReadonlyArray<Outcome> | KsiError.KsiError

/** What a batch of appends came to: an answer for each, and the facts that are new. */
interface Committed {
  readonly answers: ReadonlyArray<Answer>
  readonly facts: ReadonlyArray<Written>
}

// Only a number kept as its text can differ from what plain parsing makes of it.
const isCareful = (text: string): boolean =>
  Json.isSuspicious(text) && JSON.stringify(JSON.parse(text)) !== text

const isEmpty = (attributes: JsonObject): boolean => {
  for (const _ in attributes) return false
  return true
}

const untagged: ReadonlyArray<string> = []

const encodeFact = (fact: NewFact): Row => {
  // A function or a symbol has no JSON and counts as no data; the event store lets neither through.
  const data: string | undefined = JSON.stringify(fact.data)
  const attributes = isEmpty(fact.attributes) ? null : JSON.stringify(fact.attributes)
  return {
    fact,
    data: data ?? null,
    attributes,
    tags: attributes === null ? untagged : Tags.of(fact),
    careful: (data !== undefined && isCareful(data)) || (attributes !== null && isCareful(attributes))
  }
}

/** Makes texts of an append's facts; the failure names the one that is no JSON (a bigint, a cycle). */
export const encode = (request: Append): Encoded | KsiError.KsiError => {
  const rows: Array<Row> = []
  for (const fact of request.facts) {
    try {
      rows.push(encodeFact(fact))
    } catch (cause) {
      const problem = `cannot be written as JSON: ${KsiError.sentenceOf(cause)}`
      return KsiError.make(KsiError.invalidAt(fact.name, "data", problem))
    }
  }
  const expected = Expectations.of(request)
  return KsiError.is(expected) ? expected : { rows, expected, each: request.mode === "each" }
}

/** The fact as it will be read: made of the text that was written, so it shares nothing with who appended it. */
export const storedFact = ({ position, recordedAt, row, timestamp, version }: Written): StoredFact => {
  const { attributes, careful, data, fact: { id, name, source, streamId, time } } = row
  const parse = careful ? Json.parse : Json.parsePlain
  return {
    id,
    source,
    name,
    streamId,
    data: data === null ? undefined : parse(data),
    time,
    // JSON of an object is an object.
    attributes: attributes === null ? {} : parse(attributes) as JsonObject,
    position,
    version,
    timestamp,
    recordedAt
  }
}

// The more rows a statement takes, the less each costs; what is left over goes into smaller ones.
const rowsPerStatement = 64
const fewerRowsPerStatement = 16
/** Thrown where a fact of several was there before. */
const stumbled = Symbol("stumbled")

const columnCount = 11

const insertInto = (rows: number): string => {
  const row = `(${Array.from({ length: columnCount }, () => "?").join(", ")})`
  return `INSERT INTO main.events VALUES ${Array.from({ length: rows }, () => row).join(", ")} ON CONFLICT (id, source) DO NOTHING`
}

/** `end` is the last position that will stand: what is behind it goes with the append. */
const idConflict = ({ id, source }: NewFact, { position }: Outcome, end: number) =>
  KsiError.make(new KsiError.IdConflict({ id, source, position: position > end ? 0 : position }))

/** Why the append of a fact that came to this is refused; `undefined` where it is not. */
const refusal = ({ fact }: Row, outcome: Outcome | KsiError.KsiError, each: boolean, end = Infinity): KsiError.KsiError | undefined => {
  if (KsiError.is(outcome)) return outcome
  return outcome.kind === "conflict" && !each ? idConflict(fact, outcome, end) : undefined
}

/** The writer of an open store. */
export class FactWriter {
  /** The last committed position. */
  head = 0
  readonly index: StreamIndex
  readonly finder: FactFinder
  /** Who changes something in the transactions of appends. */
  readonly participants = new Participants()
  private readonly file: StoreFile.StoreFile["Service"]
  private readonly reader: FactReader
  private readonly insert: StatementSync
  private readonly inserts: ReadonlyArray<readonly [values: number, statement: StatementSync]>
  private readonly removeAfter: StatementSync
  private readonly insertTag: StatementSync
  private readonly dataVersion: StatementSync
  private seen = 0
  private recorded = 0
  /** The facts of the batch at hand. */
  private facts: Array<Written> = []
  /** Values of rows that wait for their statement to be full; `undefined` where each is written at once. */
  private pending: Array<SQLInputValue> | undefined

  constructor(file: StoreFile.StoreFile["Service"], reader: FactReader, threshold: number) {
    const { db } = file
    this.file = file
    this.reader = reader
    this.index = new StreamIndex(db, reader.removals, threshold)
    this.finder = new FactFinder(db, reader, this.index)
    this.insert = db.prepare(insertInto(1))
    this.inserts = [rowsPerStatement, fewerRowsPerStatement, 1].map((rows) => [rows * columnCount, db.prepare(insertInto(rows))])
    this.removeAfter = db.prepare("DELETE FROM main.events WHERE position > ?")
    this.insertTag = db.prepare("INSERT INTO fact_tags VALUES (?, ?)")
    this.dataVersion = db.prepare("PRAGMA data_version")
    this.load()
  }

  /**
   * Writes appends in one transaction, and what belongs into it after them. Throws where that fails as a whole; then nothing of
   * it remains.
   */
  commit(appends: ReadonlyArray<Encoded>, now: number, after?: (answers: ReadonlyArray<Answer>) => void): Committed {
    this.facts = []
    let recorded = now
    const careful = this.reader.careful
    try {
      const answers = this.file.transaction(() => {
        if (this.fileVersion() !== this.seen) this.load()
        recorded = Math.max(now, this.recorded)
        const answers = this.together(appends, recorded) ?? appends.map((append) => this.append(append, recorded))
        this.index.advance(this.facts.length)
        // Last: nothing of it has to be taken back for an append that is refused.
        this.tag()
        after?.(answers)
        this.participants.write(this.head + this.facts.length)
        if (this.reader.careful !== careful) this.file.db.prepare("UPDATE meta SET careful = ?").run(this.reader.careful)
        return answers
      })
      this.head += this.facts.length
      this.recorded = recorded
      this.index.committed(this.head)
      this.participants.ended(true)
      return { answers, facts: this.facts }
    } catch (cause) {
      this.undo(0)
      this.participants.ended(false)
      this.reader.reset()
      throw cause
    }
  }

  /** Removes facts, or changes what is kept beside them, in a transaction of its own. */
  change<A>(f: () => A): A {
    return this.changeIn(this.file.transaction, f)
  }

  /** As `change`, for what may be lost in a power failure and is done again then. */
  changeBehind<A>(f: () => A): A {
    return this.changeIn(this.file.transactionBehind, f)
  }

  private changeIn<A>(transaction: StoreFile.StoreFile["Service"]["transaction"], f: () => A): A {
    try {
      return transaction(() => {
        if (this.fileVersion() !== this.seen) this.load()
        return f()
      })
    } catch (cause) {
      this.reader.reset()
      throw cause
    }
  }

  /** The last fact of the log, with those of the batch at hand. */
  end(): { readonly position: number; readonly recorded: number } {
    const last = this.facts.at(-1)
    return { position: Math.max(this.head, last?.position ?? 0), recorded: Math.max(this.recorded, last?.recordedAt ?? 0) }
  }

  private fileVersion(): number {
    return Number(this.dataVersion.get()?.["data_version"])
  }

  /** Reads everything held in memory, at the start and after another program wrote the file. */
  private load(): void {
    const { db } = this.file
    this.seen = this.fileVersion()
    this.reader.reset()
    const { position, recorded } = this.reader.removals.end
    this.head = Math.max(position, StoreFile.number(db, "SELECT max(position) FROM events"))
    this.recorded = Math.max(recorded, StoreFile.number(db, "SELECT recorded FROM events ORDER BY position DESC LIMIT 1"))
    this.index.load()
  }

  /**
   * All appends with many rows to a statement, which costs a good deal less but does not tell which of them were there
   * before. Where one was, this leaves nothing behind and answers `undefined`: then they are written one by one.
   */
  private together(appends: ReadonlyArray<Encoded>, recorded: number): ReadonlyArray<Answer> | undefined {
    if (appends.reduce((count, { rows }) => count + rows.length, 0) < fewerRowsPerStatement) return undefined
    const streams = this.reader.streams.mark
    this.pending = []
    try {
      const answers = appends.map((append) => this.append(append, recorded))
      this.flush()
      return answers
    } catch (cause) {
      if (cause !== stumbled) throw cause
      this.undo(0)
      this.participants.ended(false)
      this.removeAfter.run(this.head)
      this.reader.streams.undo(streams)
      return undefined
    } finally {
      this.pending = undefined
    }
  }

  /** Writes the rows that wait for company; throws `stumbled` where one of them was there before. */
  private flush(): void {
    const { pending } = this
    if (pending === undefined) return
    const rows = pending.length / columnCount
    let changes = 0
    let at = 0
    for (const [values, statement] of this.inserts) {
      for (; pending.length - at >= values; at += values) {
        changes += Number(statement.run(...(values === pending.length ? pending : pending.slice(at, at + values))).changes)
      }
    }
    if (changes !== rows) throw stumbled
    pending.length = 0
  }

  /** Puts the tags of the batch into their index. */
  private tag(): void {
    for (const { position, row } of this.facts) for (const tag of row.tags) this.insertTag.run(tag, position)
  }

  private append(append: Encoded, recorded: number): Answer {
    const moved = this.gone(append) ?? this.moved(append)
    if (moved !== undefined) return moved
    const facts = this.facts.length
    const streams = this.reader.streams.mark
    const outcomes: Array<Outcome> = []
    for (const row of append.rows) {
      const outcome = this.one(row, recorded)
      const refused = refusal(row, outcome, append.each, this.head + facts)
      if (refused !== undefined) {
        this.takeBack(facts, streams)
        return refused
      }
      if (!KsiError.is(outcome)) outcomes.push(outcome)
    }
    const unfit = this.participants.isEmpty ? undefined : this.unfit(facts)
    if (unfit === undefined) return outcomes
    this.takeBack(facts, streams)
    return unfit
  }

  /** Why somebody who takes part refuses the append whose facts begin here. */
  private unfit(from: number): KsiError.KsiError | undefined {
    const concerned: Array<StoredFact> = []
    for (let at = from; at < this.facts.length; at++) {
      const written = this.facts[at]
      if (written === undefined || !this.participants.handles(written.row.fact.name, written.row.fact.streamId)) continue
      concerned.push(storedFact(written))
    }
    return concerned.length === 0 ? undefined : this.participants.refusal(concerned)
  }

  /** Leaves nothing of an append that began after so many facts of the batch, and after this stream. */
  private takeBack(facts: number, streams: number): void {
    this.flush()
    if (this.undo(facts)) this.removeAfter.run(this.head + facts)
    this.reader.streams.undo(streams)
  }

  /** Why an append to a deleted stream is refused. */
  private gone({ rows }: Encoded): KsiError.KsiError | undefined {
    const { removals, streams } = this.reader
    if (!removals.hasHoles) return undefined
    for (const { fact: { streamId } } of rows) {
      const stream = streams.find(streamId)
      if (stream !== undefined && removals.isDeleted(stream)) return KsiError.make(new KsiError.StreamDeleted({ streamId }))
    }
    return undefined
  }

  /**
   * The answer of an append that expected something else than there is; `undefined` where it may go on. Only a new
   * fact minds: those that are stored already have their place.
   */
  private moved({ each, expected, rows }: Encoded): Answer | undefined {
    const unmet = expected === undefined ? undefined : Expectations.unmet(expected, this)
    if (unmet === undefined) return undefined
    this.flush()
    const outcomes: Array<Outcome> = []
    for (const row of rows) {
      const source = this.reader.sources.find(row.fact.source)
      const outcome = source === undefined ? undefined : this.stored(row, source)
      if (outcome === undefined) return KsiError.make(unmet)
      const refused = refusal(row, outcome, each)
      if (refused !== undefined) return refused
      if (!KsiError.is(outcome)) outcomes.push(outcome)
    }
    return outcomes
  }

  /** The version that a stream has by now, in this batch. */
  version(streamId: string): number {
    const stream = this.reader.streams.find(streamId)
    return stream === undefined ? 0 : this.index.version(stream)
  }

  /** The first position behind `after` of a fact that matches: committed, or of this batch. */
  first(query: Compiled, after: number): number | undefined {
    const [committed] = this.finder.positions(query, { from: after + 1, to: this.head, limit: 1, backward: false })
    return committed ?? this.facts.find(({ position, row }) => position > after && query.matches(row.fact))?.position
  }

  /** What is known of a fact's identity; the failure is this fact's alone. */
  private stored({ data, fact }: Row, source: number): Outcome | KsiError.KsiError | undefined {
    const before = this.reader.identity(fact.id, source)
    if (before === undefined) return undefined
    const { position, version } = before
    try {
      // Compared as JSON: what a text does not hold (undefined fields, a Date's class) is no difference.
      const same = CloudEvent.sameContent(before, data === null ? fact : { ...fact, data: Json.parse(data) })
      return { kind: same ? "duplicate" : "conflict", position, version }
    } catch (cause) {
      return StoreFile.failure(`compare event "${fact.id}" with the one at position ${position}`, cause)
    }
  }

  /** Erases the fact of a deleted stream that still has this identity; whether there is one. */
  private makeWay(id: string, source: number): boolean {
    const { removals, streams } = this.reader
    const waiting = removals.waitingFor(id, source)
    if (waiting !== undefined) removals.erase({ streamId: streams.text(waiting.stream), positions: [waiting.position] })
    return waiting !== undefined
  }

  private one(row: Row, recordedAt: number): Outcome | KsiError.KsiError {
    const { fact } = row
    const { names, sources, streams } = this.reader
    const known = streams.find(fact.streamId)
    // A stream gets its row only when its first fact is in.
    const stream = known ?? streams.mark + 1
    const version = known === undefined ? 1 : this.index.version(known) + 1
    const position = this.head + this.facts.length + 1
    const source = sources.intern(fact.source)
    const timestamp = (fact.time === undefined ? undefined : CloudEvent.parseTime(fact.time)) ?? recordedAt
    const name = names.intern(fact.name)
    const time = fact.time ?? null
    if (this.pending !== undefined) {
      const values = this.pending.push(
        position, stream, version, source, fact.id, name, row.data, row.attributes, time, timestamp, recordedAt
      )
      if (values === rowsPerStatement * columnCount) this.flush()
    } else {
      const insert = () =>
        this.insert.run(position, stream, version, source, fact.id, name, row.data, row.attributes, time, timestamp, recordedAt).changes > 0
      if (!insert()) {
        const outcome = this.stored(row, source)
        if (outcome !== undefined) return outcome
        if (!this.makeWay(fact.id, source) || !insert()) throw new Error(`the store is corrupt: event "${fact.id}" is and is not there`)
      }
    }
    if (known === undefined) streams.add(fact.streamId)
    if (row.careful) this.reader.careful = Math.min(this.reader.careful, position)
    this.index.push(stream, version, position)
    this.facts.push({ row, stream, position, version, timestamp, recordedAt })
    return { kind: "appended", position, version }
  }

  /** Takes back what the batch added to memory after its first `count` facts; whether there was anything. */
  private undo(count: number): boolean {
    const some = this.facts.length > count
    for (const { stream } of this.facts.slice(count).toReversed()) this.index.pop(stream)
    this.facts.length = count
    return some
  }
}
