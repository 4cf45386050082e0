/**
 * The activity journal, in a table: what was asked, by whom, how it ended and how long it took. No positions, no
 * streams; written behind in batches, and the oldest go when there are too many.
 *
 * The rule: complete, and never in the way. `record` puts a request into a buffer; a full buffer slows the caller down
 * instead of forgetting. A journal that cannot be written (disk full) loses its batch, says so once, counts the
 * records lost in the metric `ksi_activity_lost`, and no request fails for it.
 *
 * **Example**
 *
 * ```ts
 * yield* (yield* Ksi).call(Reserve, { sku: "tea", quantity: 1 })
 * const activity = yield* Activity
 * const { records, total } = yield* activity.query({ patterns: [yield* EventPattern.fromText("stock:*")], limit: 20 })
 * [total, records[0]?.data]                   // [1, { sku: "tea", quantity: 1 }]
 * ```
 *
 * **Gotchas** Payloads are encoded when the batch is written, not when the request ended. A request is listed where it
 * ended, not where it began: a long one comes after short ones that began later. `outline` keeps no payloads.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type { SQLInputValue, SQLOutputValue } from "node:sqlite"
import { Activity, type ActivityQuery, type ActivityRecord, type Ended, type OutcomeKind, outcomeOf } from "../bus/Activity.ts"
import * as Json from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import { onForget } from "./Forgetting.ts"
import { RecentRequests, type Row } from "./internal/RecentRequests.ts"
import * as StoreFile from "./internal/StoreFile.ts"
import * as WriteBehind from "./internal/WriteBehind.ts"

/** What is kept of a request. */
export interface Options {
  /** `all` (the default), `outline`: everything but the payload, or `off`: nothing. */
  readonly audit?: "all" | "outline" | "off" | undefined
}

const lost = Metric.counter("ksi_activity_lost", {
  description: "requests that the activity journal could not write",
  incremental: true
})

// ------------------------------------------------------------------------------------------------ what became of it

/** The payload as JSON text; where it has none, the note that says why. */
const payloadOf = ({ data, encode }: Row): readonly [data: string | null, note: string | undefined] => {
  try {
    // Data that is absent has no text.
    const text: string | undefined = JSON.stringify(encode(data))
    return [text ?? null, undefined]
  } catch (cause) {
    return [null, `the payload could not be recorded: ${KsiError.sentenceOf(cause)}`]
  }
}

/** The same without what was answered: it is not recorded, and a long answer must not wait for the writer. */
const withoutAnswer = (ended: Ended): Ended =>
  Exit.isSuccess(ended.exit)
    ? { envelope: ended.envelope, encode: ended.encode, exit: Exit.void, duration: ended.duration }
    : ended

interface Entry {
  readonly data: string | null
  readonly record: Row["record"]
}

const rowOf = ({ duration, encode, envelope: { data, id, metadata, name }, exit }: Ended): Row => {
  const [outcome, error] = outcomeOf(exit)
  return {
    data,
    encode,
    record: {
      id,
      name,
      outcome,
      error,
      duration,
      timestamp: metadata.timestamp,
      correlationId: metadata.correlationId,
      causationId: metadata.causationId,
      depth: metadata.depth,
      principal: metadata.principal,
      clientId: metadata.clientId,
      clientCorrelationId: metadata.clientCorrelationId
    }
  }
}

const entryOf = (row: Row, audit: "all" | "outline"): Entry => {
  const { record } = row
  const [data, note] = audit === "all" ? payloadOf(row) : [null, undefined]
  const error = note === undefined ? record.error : record.error === undefined ? note : `${record.error}; ${note}`
  return { data, record: { ...record, error } }
}

const withData = ({ data, record }: Entry): ActivityRecord => ({ ...record, data: data === null ? null : Json.parse(data) })

// --------------------------------------------------------------------------------------------------------- queries

const matchesName = ({ patterns }: ActivityQuery, name: string): boolean =>
  patterns === undefined || patterns.some((pattern) => pattern.matches(name))

const condition = (
  query: ActivityQuery,
  names: ReadonlyArray<string> | undefined
): readonly [where: string, values: ReadonlyArray<SQLInputValue>] => {
  const parts: Array<string> = ["1"]
  const values: Array<SQLInputValue> = []
  const add = (sql: string, ...given: ReadonlyArray<SQLInputValue | undefined>) => {
    const known = given.filter((value) => value !== undefined)
    if (known.length === 0) return
    parts.push(sql)
    values.push(...known)
  }
  add("timestamp >= ?", query.since)
  add("timestamp <= ?", query.until)
  add("(correlation = ? OR label = ?)", query.correlationId, query.correlationId)
  add("id = ?", query.id)
  add("client = ?", query.clientId)
  add("outcome = ?", query.outcome)
  add("name IN (SELECT value FROM json_each(?))", names === undefined ? undefined : JSON.stringify(names))
  return [parts.join(" AND "), values]
}

const text = (value: SQLOutputValue | undefined): string | undefined => typeof value === "string" ? value : undefined

const recordOf = (row: Record<string, SQLOutputValue>): ActivityRecord =>
  withData({
    data: text(row["data"]) ?? null,
    record: {
      id: String(row["id"]),
      name: String(row["name"]),
      // Only this module writes the column.
      outcome: row["outcome"] as OutcomeKind,
      error: text(row["error"]),
      duration: Number(row["duration"]),
      timestamp: Number(row["timestamp"]),
      correlationId: String(row["correlation"]),
      causationId: text(row["causation"]),
      depth: Number(row["depth"]),
      principal: String(row["principal"]),
      clientId: text(row["client"]),
      clientCorrelationId: text(row["label"])
    }
  })

// ------------------------------------------------------------------------------------------------------- the table

type Answer = Effect.Success<ReturnType<Activity["Service"]["query"]>>

type Limited = Pick<Limits.LimitsShape, "activityBytes" | "activityRows">

// What a row costs besides its long texts: labels, numbers, its place in the indexes.
const rowBytes = 512
const size = `${rowBytes} + ifnull(octet_length(data), 0) + ifnull(octet_length(error), 0)`

const sizeOf = ({ data, record }: Entry): number =>
  rowBytes + Buffer.byteLength(data ?? "") + Buffer.byteLength(record.error ?? "")

/**
 * Forgets the oldest requests: those beyond so many, and those beyond so many bytes. Answers with the bytes left, or more:
 * what went because of its number is not subtracted, and counted again only when there seem to be too many.
 */
const makeForgetting = ({ db }: StoreFile.StoreFile["Service"], { activityBytes, activityRows }: Limited) => {
  const last = db.prepare("SELECT max(row) AS row FROM activity")
  const oldest = db.prepare(`SELECT row, ${size} AS bytes FROM activity ORDER BY row`)
  const forget = db.prepare("DELETE FROM activity WHERE row <= ?")
  // Row numbers have no gaps but those at the old end.
  let first = StoreFile.number(db, "SELECT min(row) FROM activity")
  const forgetUpTo = (row: number): void => {
    if (row < first) return
    forget.run(row)
    first = row + 1
  }
  /** The number of the last row that must go, so that `excess` bytes do; and what is left then. */
  const beyond = (): number => {
    const held = StoreFile.number(db, `SELECT total(${size}) FROM activity`)
    let left = held
    for (const { bytes, row } of oldest.iterate()) {
      if (left <= activityBytes) break
      left -= Number(bytes)
      first = Number(row) + 1
    }
    if (left < held) forget.run(first - 1)
    return left
  }
  return (bytes: number, written: number): number => {
    forgetUpTo(Math.min(Number(last.get()?.["row"]) - activityRows, first - 1 + 2 * written))
    return bytes <= activityBytes ? bytes : beyond()
  }
}

/** The table's statements, each run within one turn of the event loop. */
const makeTable = (file: StoreFile.StoreFile["Service"], limits: Limited, audit: "all" | "outline") => {
  const { db, transactionBehind } = file
  const insert = db.prepare("INSERT INTO activity VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
  const forget = makeForgetting(file, limits)
  let held = StoreFile.number(db, `SELECT total(${size}) FROM activity`)
  const write = (batch: ReadonlyArray<Ended>): void => {
    held = transactionBehind(() => {
      let bytes = held
      for (const ended of batch) {
        const entry = entryOf(rowOf(ended), audit)
        const { data, record } = entry
        bytes += sizeOf(entry)
        insert.run(
          record.id, record.name, data, record.outcome, record.error ?? null, record.duration, record.timestamp,
          record.correlationId, record.causationId ?? null, record.depth, record.principal, record.clientId ?? null,
          record.clientCorrelationId ?? null
        )
      }
      return forget(bytes, batch.length)
    })
  }
  const namesOf = (query: ActivityQuery) =>
    db.prepare("SELECT DISTINCT name FROM activity").all()
      .map((row) => String(row["name"])).filter((name) => matchesName(query, name))
  const query = (query: ActivityQuery): Answer => {
    const [where, values] = condition(query, query.patterns === undefined ? undefined : namesOf(query))
    const total = Number(db.prepare(`SELECT count(*) AS n FROM activity WHERE ${where}`).get(...values)?.["n"])
    const order = query.forward === true ? "" : "DESC"
    const rows = db.prepare(`SELECT * FROM activity WHERE ${where} ORDER BY row ${order} LIMIT ? OFFSET ?`)
      .all(...values, Math.max(0, Math.min(query.limit, limits.activityRows)), Math.max(0, query.offset ?? 0))
    return { records: rows.map(recordOf), total }
  }
  return { write, query }
}

/** The activity journal in the store's file. */
export const layer = (
  { audit = "all" }: Options = {}
): Layer.Layer<Activity, KsiError.KsiError, StoreFile.StoreFile> =>
  audit === "off" ? Activity.layerOff : Layer.effect(
    Activity,
    Effect.gen(function*() {
      const file = yield* StoreFile.StoreFile
      const limits = yield* Limits.Limits
      const table = yield* StoreFile.attempt("open", () => makeTable(file, limits, audit))
      const { flush, push } = yield* WriteBehind.make({
        operation: "record activity",
        write: table.write,
        max: limits.activityBuffer,
        whenFull: "slow",
        rows: "requests",
        lost
      })
      return {
        isOn: true,
        record: (ended) => push(withoutAnswer(ended)),
        flush,
        query: (query) => Effect.andThen(flush, StoreFile.attempt("query activity", () => table.query(query)))
      }
    })
  )

// -------------------------------------------------------------------------------------------------------- in memory

const matchesRecord = (record: Entry["record"], query: ActivityQuery): boolean =>
  record.timestamp >= (query.since ?? -Infinity) && record.timestamp <= (query.until ?? Infinity) &&
  (query.correlationId === undefined || query.correlationId === record.correlationId ||
    query.correlationId === record.clientCorrelationId) &&
  (query.id === undefined || query.id === record.id) &&
  (query.clientId === undefined || query.clientId === record.clientId) &&
  (query.outcome === undefined || query.outcome === record.outcome) && matchesName(query, record.name)

/** An activity journal in memory: the last `activityRows` requests, gone with who has it. */
export const inMemory = ({ audit = "all" }: Options = {}): Effect.Effect<Activity["Service"]> =>
  audit === "off" ? Effect.succeed(Activity.off) : Effect.gen(function*() {
    const { activityRows } = yield* Limits.Limits
    // As they came: what nobody asks for is never written as text.
    let recent = new RecentRequests(activityRows)
    yield* onForget(() => {
      recent = new RecentRequests(activityRows)
      return true
    })
    return Activity.of({
      isOn: true,
      record: (ended) => {
        recent.add(ended)
        return undefined
      },
      flush: Effect.void,
      query: (query) =>
        Effect.sync(() => {
          const found: Array<Row> = []
          for (const row of recent) if (matchesRecord(row.record, query)) found.push(row)
          const ordered = query.forward === true ? found : found.toReversed()
          const offset = Math.max(0, query.offset ?? 0)
          return { records: ordered.slice(offset, offset + Math.max(0, query.limit)).map((row) => withData(entryOf(row, audit))), total: found.length }
        })
    })
  })

/** `inMemory` as a layer. */
export const layerMemory = (options?: Options): Layer.Layer<Activity> => Layer.effect(Activity, inMemory(options))
