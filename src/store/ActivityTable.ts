/**
 * The activity journal, in a table: what was asked, by whom, how it ended and how long it took. No positions, no
 * streams; written behind in batches, and the oldest go when there are too many.
 *
 * The rule: complete, and never in the way. `record` puts a request into a buffer; a full buffer slows the caller down
 * instead of forgetting. A journal that cannot be written (disk full) loses its batch, says so once, counts the
 * records lost in the metric `ksi_activity_lost`, and no request fails for it.
 *
 * In the file a batch is a row, not a request: so writing, finding room and forgetting are paid once for many.
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
import { Activity, type ActivityQuery, type ActivityRecord, type Ended, outcomeOf, reasonOf } from "../bus/Activity.ts"
import * as Json from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import { onForget } from "./Forgetting.ts"
import * as ActivityBlock from "./internal/ActivityBlock.ts"
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
      reason: reasonOf(exit),
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

const entryOf = (row: Row, audit: "all" | "outline"): ActivityBlock.Entry => {
  const { record } = row
  const [data, note] = audit === "all" ? payloadOf(row) : [null, undefined]
  if (note === undefined) return { data, record }
  const error = record.error === undefined ? note : `${record.error}; ${note}`
  return { data, record: { ...record, error } }
}

const withData = ({ data, record }: ActivityBlock.Entry): ActivityRecord => ({ ...record, data: data === null ? null : Json.parse(data) })

// ------------------------------------------------------------------------------------------------------- the table

type Answer = Effect.Success<ReturnType<Activity["Service"]["query"]>>

type Limited = Pick<Limits.LimitsShape, "activityBytes" | "activityRows">

// Blocks are forgotten as wholes: so each is a small part of what is kept.
const partOfAll = 16

// A block of fewer takes the next batch too: where requests are rare, many blocks of one would take long to look through.
const fewRows = 64

// More than are written go, so that a smaller limit is reached soon; but not all at once, while requests wait.
const atOnce = 16

/** The newest block, while it has room: written again with what comes next. Where it has none, the one to come, still empty. */
interface Open {
  readonly first: number
  readonly entries: ReadonlyArray<ActivityBlock.Entry>
  readonly bytes: number
}

const empty = (first: number): Open => ({ first, entries: [], bytes: 0 })

/** Forgets the oldest blocks: those beyond so many requests, and those beyond so many bytes. Answers with the bytes left. */
const makeForgetting = ({ db }: StoreFile.StoreFile["Service"], { activityBytes, activityRows }: Limited) => {
  const oldest = db.prepare("SELECT first, last, bytes FROM activity ORDER BY first LIMIT 1")
  const forget = db.prepare("DELETE FROM activity WHERE first = ?")
  return (held: number, { first }: Open, written: number): number => {
    let left = held
    for (let most = atOnce + 2 * written; most > 0; most--) {
      const block = oldest.get()
      // The open one is written again.
      if (block === undefined || Number(block["first"]) >= first) return left
      if (left <= activityBytes && Number(block["last"]) >= first - activityRows) return left
      left -= Number(block["bytes"])
      forget.run(Number(block["first"]))
    }
    return left
  }
}

/** Writes batches, and forgets what there is no room for any more. */
const makeWriter = (file: StoreFile.StoreFile["Service"], limits: Limited, audit: "all" | "outline") => {
  const { db, transactionBehind } = file
  const insert = db.prepare(ActivityBlock.insert)
  const forget = makeForgetting(file, limits)
  const maxBytes = Math.min(ActivityBlock.mostBytes, limits.activityBytes / partOfAll)
  let held = StoreFile.number(db, "SELECT total(bytes) FROM activity")
  let open = empty(StoreFile.number(db, "SELECT max(last) FROM activity") + 1)
  return {
    /** The number of the last request. */
    last: () => open.first + open.entries.length - 1,
    write: (batch: ReadonlyArray<Ended>): void => {
      const entries = [...open.entries, ...batch.map((ended) => entryOf(rowOf(ended), audit))]
      const written = transactionBehind(() => {
        let next = empty(open.first)
        let bytes = held - open.bytes
        let blocks = 0
        for (const block of ActivityBlock.split(entries, maxBytes)) {
          const values = ActivityBlock.encode(next.first + next.entries.length, block)
          insert.run(...values)
          const [first, last, , , more] = values
          next = block.length < fewRows && more < maxBytes ? { first, entries: block, bytes: more } : empty(last + 1)
          bytes += more
          blocks++
        }
        return { open: next, held: forget(bytes, next, blocks) }
      })
      open = written.open
      held = written.held
    }
  }
}

/** The table's statements, each run within one turn of the event loop. */
const makeTable = (file: StoreFile.StoreFile["Service"], limits: Limited, audit: "all" | "outline") => {
  const { db } = file
  const { last, write } = makeWriter(file, limits, audit)
  const texts = {
    columns: db.prepare("SELECT columns FROM activity WHERE first = ?"),
    data: db.prepare("SELECT data FROM activity WHERE first = ?")
  }
  const read = (text: "columns" | "data", first: number): string => String(texts[text].get(first)?.[text])
  const query = (query: ActivityQuery): Answer => {
    // Of the oldest block there may be requests that are beyond the limit.
    const after = last() - limits.activityRows
    const [where, values] = ActivityBlock.condition(query)
    const blocks = db.prepare(`SELECT first, last, since, until, kinds FROM activity WHERE last > ? AND ${where}
      ORDER BY first ${query.forward === true ? "" : "DESC"}`)
    const records: Array<ActivityRecord> = []
    const from = Math.max(0, query.offset ?? 0)
    const to = from + Math.max(0, query.limit)
    let total = 0
    for (const row of blocks.iterate(after, ...values)) {
      const block = new ActivityBlock.Block(row, read)
      const places = block.matching(query, after)
      const ordered = query.forward === true ? places : places.toReversed()
      const page = ordered.slice(Math.max(0, from - total), Math.max(0, to - total))
      if (page.length > 0) records.push(...block.records(page))
      total += places.length
    }
    return { records, total }
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

const matchesName = ({ patterns }: ActivityQuery, name: string): boolean =>
  patterns === undefined || patterns.some((pattern) => pattern.matches(name))

const matchesRecord = (record: Row["record"], query: ActivityQuery): boolean =>
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
