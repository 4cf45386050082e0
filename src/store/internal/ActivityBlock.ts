// Requests of the activity journal, many to a row of its table: what is written once for all of them, what is looked for, and
// payloads, each a text of JSON. A row for each request is three times the work, and twice the bytes.
import type { SQLInputValue, SQLOutputValue } from "node:sqlite"
import type { ActivityQuery, ActivityRecord, OutcomeKind } from "../../bus/Activity.ts"
import * as Json from "../../event/Json.ts"

/** Writes a block; one that begins with the same request is replaced. */
export const insert = "INSERT OR REPLACE INTO activity VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

/** A request, with its payload as JSON text. */
export interface Entry {
  readonly data: string | null
  readonly record: Omit<ActivityRecord, "data">
}

/**
 * What requests have in common: name, outcome, error, correlation (of a root its own id: `null`), causation, depth, principal, client,
 * and the tag of the error, which blocks that were written before it was kept do not have.
 */
type Kind = readonly [
  name: string,
  outcome: OutcomeKind,
  error: string | null,
  correlationId: string | null,
  causationId: string | null,
  depth: number,
  principal: string,
  clientId: string | null,
  reason?: string | undefined
]

/** What each request has of its own. */
interface Columns {
  readonly ids: ReadonlyArray<string>
  /** Milliseconds after the block's first one. */
  readonly times: ReadonlyArray<number>
  readonly durations: ReadonlyArray<number>
  /** Each one's kind; absent where there is one kind. */
  readonly of?: ReadonlyArray<number> | undefined
  /** Absent where there are none. */
  readonly labels?: ReadonlyArray<string | null> | undefined
}

/** The values of a row, in the order of the table. */
export type Values = readonly [
  first: number,
  last: number,
  since: number,
  until: number,
  bytes: number,
  kinds: string,
  columns: string,
  data: string
]

/** Of a root it is its own id, and no kind's. */
const correlationOf = ({ correlationId, id }: Entry["record"]): string | null => correlationId === id ? null : correlationId

const kindOf = (record: Entry["record"]): Kind => {
  const { causationId, clientId, depth, error, name, outcome, principal, reason } = record
  const kind = [name, outcome, error ?? null, correlationOf(record), causationId ?? null, depth, principal, clientId ?? null] as const
  return reason === undefined ? kind : [...kind, reason]
}

/** Whether a request is of a kind; nothing is made to compare them, for nearly all are. */
const isOf = (record: Entry["record"], [name, outcome, error, correlationId, causationId, depth, principal, clientId, reason]: Kind): boolean =>
  record.name === name && record.outcome === outcome && record.reason === reason && (record.error ?? null) === error && correlationOf(record) === correlationId &&
  (record.causationId ?? null) === causationId && record.depth === depth && record.principal === principal && (record.clientId ?? null) === clientId

// Further back nobody looks: a kind may well be there twice.
const recentKinds = 8

const placeOf = (record: Entry["record"], kinds: Array<Kind>): number => {
  for (let place = kinds.length - 1; place >= Math.max(0, kinds.length - recentKinds); place--) {
    const known = kinds[place]
    if (known !== undefined && isOf(record, known)) return place
  }
  return kinds.push(kindOf(record)) - 1
}

// A row, its page and its place in them.
const rowBytes = 64

// To the microsecond: what a clock says beyond that is longer to write than the rest of a request's columns.
const micros = (millis: number): number => Math.round(millis * 1000) / 1000

/** A block of some requests, the first of which has this number. */
export const encode = (first: number, entries: ReadonlyArray<Entry>): Values => {
  const since = entries.reduce((least, { record }) => Math.min(least, record.timestamp), Infinity)
  const until = entries.reduce((most, { record }) => Math.max(most, record.timestamp), -Infinity)
  const kinds: Array<Kind> = []
  const of = entries.map(({ record }) => placeOf(record, kinds))
  const columns: Columns = {
    ids: entries.map(({ record }) => record.id),
    times: entries.map(({ record }) => record.timestamp - since),
    durations: entries.map(({ record }) => micros(record.duration)),
    of: kinds.length === 1 ? undefined : of,
    labels: entries.every(({ record }) => record.clientCorrelationId === undefined)
      ? undefined
      : entries.map(({ record }) => record.clientCorrelationId ?? null)
  }
  const texts = [JSON.stringify(kinds), JSON.stringify(columns), `[${entries.map(({ data }) => data ?? "null").join(",")}]`] as const
  const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), rowBytes)
  return [first, first + entries.length - 1, since, until, bytes, ...texts]
}

/** So much a block may take, that it does not take long to read for one request. */
export const mostBytes = 256 * 1024

const mostRows = 1024

// Not counted, but about that: what a request takes besides its long texts.
const entryBytes = 100

/** Requests as they are split into blocks: none takes many more bytes than these, but for a request that does alone. */
export const split = function*(entries: Iterable<Entry>, maxBytes: number): Generator<ReadonlyArray<Entry>> {
  let block: Array<Entry> = []
  let bytes = 0
  for (const entry of entries) {
    const more = entryBytes + (entry.data?.length ?? 0) + (entry.record.error?.length ?? 0)
    if (block.length === mostRows || (block.length > 0 && bytes + more > maxBytes)) {
      yield block
      block = []
      bytes = 0
    }
    block.push(entry)
    bytes += more
  }
  if (block.length > 0) yield block
}

// ------------------------------------------------------------------------------------------------------------- to read

/** Which blocks may have what is looked for: a condition in SQL, and its values. Texts are in them as JSON writes them. */
export const condition = (
  { clientId, correlationId, id, outcome, since, until }: ActivityQuery
): readonly [where: string, values: ReadonlyArray<SQLInputValue>] => {
  const parts: Array<string> = ["1"]
  const values: Array<SQLInputValue> = []
  const add = (sql: string, ...given: ReadonlyArray<SQLInputValue | undefined>) => {
    const known = given.filter((value) => value !== undefined)
    if (known.length === 0) return
    parts.push(sql)
    values.push(...known)
  }
  const written = (text: string | undefined) => text === undefined ? undefined : JSON.stringify(text)
  add("until >= ?", since)
  add("since <= ?", until)
  add("(instr(columns, ?) OR instr(kinds, ?))", written(correlationId), written(correlationId))
  add("instr(columns, ?)", written(id))
  add("instr(kinds, ?)", written(clientId))
  add("instr(kinds, ?)", written(outcome))
  return [parts.join(" AND "), values]
}

const isKindOf = ([name, outcome, , , , , , clientId]: Kind, query: ActivityQuery): boolean =>
  (query.outcome === undefined || query.outcome === outcome) && (query.clientId === undefined || query.clientId === clientId) &&
  (query.patterns === undefined || query.patterns.some((pattern) => pattern.matches(name)))

/** One block. What is not asked for is not read: long texts cost most. */
export class Block {
  private readonly row: Record<string, SQLOutputValue>
  private readonly read: (text: "columns" | "data", first: number) => string
  private readonly kinds: ReadonlyArray<Kind>
  private known: Columns | undefined

  constructor(row: Record<string, SQLOutputValue>, read: (text: "columns" | "data", first: number) => string) {
    this.row = row
    this.read = read
    // Only `encode` writes it.
    this.kinds = JSON.parse(String(row["kinds"])) as ReadonlyArray<Kind>
  }

  private get columns(): Columns {
    // As above.
    return this.known ??= JSON.parse(this.read("columns", this.number("first"))) as Columns
  }

  private number(column: "first" | "last" | "since" | "until"): number {
    return Number(this.row[column])
  }

  /** The places of those after a number that a query asks for. */
  matching(query: ActivityQuery, after: number): ReadonlyArray<number> {
    const { correlationId, id, since = -Infinity, until = Infinity } = query
    const first = this.number("first")
    const places: Array<number> = []
    for (let place = Math.max(0, after + 1 - first); place <= this.number("last") - first; place++) places.push(place)
    const kinds = this.kinds.map((kind) => isKindOf(kind, query))
    if (!kinds.includes(true)) return []
    const isWhole = this.number("since") >= since && this.number("until") <= until
    if (isWhole && correlationId === undefined && id === undefined && !kinds.includes(false)) return places
    return places.filter((place) => {
      if (kinds[this.columns.of?.[place] ?? 0] !== true) return false
      const { clientCorrelationId, correlationId: own, id: its, timestamp } = this.at(place)
      return timestamp >= since && timestamp <= until && (id === undefined || id === its) &&
        (correlationId === undefined || correlationId === own || correlationId === clientCorrelationId)
    })
  }

  /** Those at some places. */
  records(places: ReadonlyArray<number>): ReadonlyArray<ActivityRecord> {
    // An array, for `encode` wrote one.
    const data = Json.parse(this.read("data", this.number("first"))) as ReadonlyArray<unknown>
    return places.map((place) => ({ ...this.at(place), data: data[place] }))
  }

  private at(place: number): Entry["record"] {
    const { durations, ids, labels, of, times } = this.columns
    const kind = this.kinds[of?.[place] ?? 0]
    const id = ids[place]
    if (kind === undefined || id === undefined) throw new Error(`block ${this.number("first")} of the activity journal is damaged`)
    const [name, outcome, error, correlationId, causationId, depth, principal, clientId, reason] = kind
    return {
      id,
      name,
      outcome,
      error: error ?? undefined,
      reason,
      duration: durations[place] ?? 0,
      timestamp: this.number("since") + (times[place] ?? 0),
      correlationId: correlationId ?? id,
      causationId: causationId ?? undefined,
      depth,
      principal,
      clientId: clientId ?? undefined,
      clientCorrelationId: labels?.[place] ?? undefined
    }
  }
}
