/**
 * The dead letters, in a table: reactions to facts that failed, until a person deals with them.
 *
 * The rule: a letter is the event as its handler got it, so that a rerun needs nothing else. Letters are written behind
 * in batches; what finds no room in the buffer is what the bound would drop from the table next. Batches that cannot be
 * written (disk full) are said once and counted in the metric `ksi_dead_letters_lost`.
 *
 * **Example**
 *
 * ```ts
 * const letters = yield* DeadLetters
 * letters.record({
 *   handler: "stock:reserved#1", reason: "failed", error: "no paper", timestamp: 0,
 *   event: { id: "1", name: "stock:reserved", data: { sku: "tea" }, streamId: "stock-tea", position: 1, attributes: {} }
 * })
 * const { letters: [first] } = yield* letters.list({ patterns: ["stock:*"], limit: 10 })
 * [first?.error, first?.event.data]           // ["no paper", { sku: "tea" }]
 * ```
 *
 * **Gotchas** Data that have no JSON are left out, and the letter's error says so. Numbers are never given twice, also
 * after the file was closed and opened again.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type { SQLOutputValue } from "node:sqlite"
import { DeadLetters, type Letter, type LetterQuery, type LetterReason, type NewLetter, notFound } from "../bus/DeadLetters.ts"
import * as EventPattern from "../event/EventPattern.ts"
import * as Json from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import { onForget } from "./Forgetting.ts"
import * as StoreFile from "./internal/StoreFile.ts"
import * as WriteBehind from "./internal/WriteBehind.ts"

// ------------------------------------------------------------------------------------------------------------ letters

/** A letter as it is kept: the event is text, so that nobody can change it and its size is known. */
interface Kept extends Omit<NewLetter, "event"> {
  readonly name: string
  readonly event: string
}

const keep = ({ event, ...letter }: NewLetter): Kept => {
  const { name } = event
  try {
    return { ...letter, name, event: JSON.stringify(event) }
  } catch (cause) {
    const problem = `its data could not be kept: ${KsiError.sentenceOf(cause)}`
    return { ...letter, name, error: `${letter.error}; ${problem}`, event: JSON.stringify({ ...event, data: undefined }) }
  }
}

const letterOf = (letter: number, { event, name: _, ...kept }: Kept, reruns: number): Letter => {
  // `keep` wrote it; JSON leaves out what is undefined.
  const { attributes, data, id, name, position, streamId } = Json.parse(event) as NewLetter["event"]
  return { ...kept, letter, reruns, event: { id, name, data, streamId, position, attributes } }
}

// --------------------------------------------------------------------------------------------------------------- rows

type Matches = (name: string) => boolean

interface Page {
  readonly letters: ReadonlyArray<Letter>
  readonly total: number
}

/** Where letters are kept: each is a step within one turn of the event loop, and may throw. */
interface Rows {
  readonly write: (batch: ReadonlyArray<Kept>) => void
  readonly list: (query: LetterQuery, matches: Matches | undefined) => Page
  readonly get: (letter: number) => Letter | undefined
  /** Whether there was one. */
  readonly rerun: (letter: number, error: string) => boolean
  readonly discard: (letters: ReadonlyArray<number>) => number
}

/** Says whether one more letter fits into a page; the first always does. */
const makeRoom = (limit: number, pageBytes: number) => {
  let letters = 0
  let left = pageBytes
  return ({ event }: { readonly event: string }): boolean => {
    left -= event.length
    return letters++ < limit && (left >= 0 || letters === 1)
  }
}

const makeMemory = ({ deadLetters, pageBytes }: Limits.LimitsShape): Rows & { readonly forget: () => boolean } => {
  const rows = new Map<number, { readonly kept: Kept; readonly reruns: number }>()
  let last = 0
  return {
    write: (batch) => {
      for (const kept of batch) rows.set(++last, { kept, reruns: 0 })
      for (const oldest of rows.keys()) {
        if (rows.size <= deadLetters) break
        rows.delete(oldest)
      }
    },
    list: ({ after = Infinity, limit }, matches) => {
      const found = [...rows].filter(([, { kept }]) => matches === undefined || matches(kept.name)).toReversed()
      const fits = makeRoom(limit, pageBytes)
      const letters: Array<Letter> = []
      for (const [letter, { kept, reruns }] of found) {
        if (letter >= after) continue
        if (!fits(kept)) break
        letters.push(letterOf(letter, kept, reruns))
      }
      return { letters, total: found.length }
    },
    get: (letter) => {
      const row = rows.get(letter)
      return row === undefined ? undefined : letterOf(letter, row.kept, row.reruns)
    },
    rerun: (letter, error) => {
      const row = rows.get(letter)
      if (row !== undefined) rows.set(letter, { kept: { ...row.kept, error }, reruns: row.reruns + 1 })
      return row !== undefined
    },
    discard: (letters) => letters.filter((letter) => rows.delete(letter)).length,
    forget: () => {
      rows.clear()
      last = 0
      return true
    }
  }
}

type Columns = Record<string, SQLOutputValue>

const ofRow = (row: Columns): Letter =>
  letterOf(
    Number(row["letter"]),
    {
      handler: String(row["handler"]),
      // Only this module writes the column.
      reason: row["reason"] as LetterReason,
      error: String(row["error"]),
      name: String(row["name"]),
      event: String(row["event"]),
      timestamp: Number(row["timestamp"])
    },
    Number(row["reruns"])
  )

const makeTable = (
  { db, transaction }: StoreFile.StoreFile["Service"],
  { deadLetters, pageBytes }: Limits.LimitsShape
): Rows => {
  const insert = db.prepare("INSERT INTO dead_letters VALUES (NULL, ?, ?, ?, ?, ?, ?, 0)")
  const forget = db.prepare("DELETE FROM dead_letters WHERE letter IN (SELECT letter FROM dead_letters ORDER BY letter LIMIT ?)")
  const names = db.prepare("SELECT DISTINCT name FROM dead_letters")
  const among = "(?1 IS NULL OR name IN (SELECT value FROM json_each(?1)))"
  const count = db.prepare(`SELECT count(*) AS n FROM dead_letters WHERE ${among}`)
  const page = db.prepare(`SELECT * FROM dead_letters WHERE letter < ?2 AND ${among} ORDER BY letter DESC LIMIT ?3`)
  const one = db.prepare("SELECT * FROM dead_letters WHERE letter = ?")
  const again = db.prepare("UPDATE dead_letters SET reruns = reruns + 1, error = ? WHERE letter = ?")
  const remove = db.prepare("DELETE FROM dead_letters WHERE letter = ?")
  return {
    write: (batch) =>
      transaction(() => {
        for (const { error, event, handler, name, reason, timestamp } of batch) {
          insert.run(name, handler, reason, error, event, timestamp)
        }
        const excess = Number(count.get(null)?.["n"]) - deadLetters
        // A bound that was lowered is reached step by step.
        if (excess > 0) forget.run(Math.min(excess, 2 * batch.length))
      }),
    list: ({ after = Number.MAX_SAFE_INTEGER, limit }, matches) => {
      const wanted = matches === undefined
        ? null
        : JSON.stringify(names.all().map(({ name }) => String(name)).filter(matches))
      const fits = makeRoom(limit, pageBytes)
      const letters: Array<Letter> = []
      for (const row of page.iterate(wanted, after, Math.max(0, Math.min(limit, deadLetters)))) {
        if (!fits({ event: String(row["event"]) })) break
        letters.push(ofRow(row))
      }
      return { letters, total: Number(count.get(wanted)?.["n"]) }
    },
    get: (letter) => {
      const row = one.get(letter)
      return row === undefined ? undefined : ofRow(row)
    },
    rerun: (letter, error) => Number(transaction(() => again.run(error, letter)).changes) > 0,
    discard: (letters) =>
      transaction(() => letters.reduce((removed, letter) => removed + Number(remove.run(letter).changes), 0))
  }
}

// ------------------------------------------------------------------------------------------------------------- layers

const lost = Metric.counter("ksi_dead_letters_lost", {
  description: "dead letters that could not be written",
  incremental: true
})

const matcher = (patterns: ReadonlyArray<string> | undefined): Effect.Effect<Matches | undefined, KsiError.KsiError> =>
  patterns === undefined
    ? Effect.succeed(undefined)
    : Effect.map(Effect.forEach(patterns, EventPattern.fromText), (parsed) => (name: string) =>
      parsed.some((pattern) => pattern.matches(name)))

const serviceOf = (
  rows: Rows,
  record: DeadLetters["Service"]["record"],
  flush: Effect.Effect<void>
): DeadLetters["Service"] => {
  const step = <A>(operation: string, f: () => A) => Effect.andThen(flush, StoreFile.attempt(`${operation} dead letters`, f))
  return {
    record,
    list: (query) => Effect.flatMap(matcher(query.patterns), (matches) => step("list", () => rows.list(query, matches))),
    get: (letter) =>
      Effect.flatMap(step("read", () => rows.get(letter)), (found) =>
        found === undefined ? notFound(letter) : Effect.succeed(found)),
    rerun: (letter, error) =>
      Effect.flatMap(step("note", () => rows.rerun(letter, error)), (found) => found ? Effect.void : notFound(letter)),
    discard: (letters) => step("discard", () => rows.discard(letters))
  }
}

/** The dead letters in the store's file. */
export const layer: Layer.Layer<DeadLetters, KsiError.KsiError, StoreFile.StoreFile> = Layer.effect(
  DeadLetters,
  Effect.gen(function*() {
    const file = yield* StoreFile.StoreFile
    const limits = yield* Limits.Limits
    const table = yield* StoreFile.attempt("open", () => makeTable(file, limits))
    const { flush, push } = yield* WriteBehind.make({
      operation: "record dead letters",
      write: table.write,
      max: limits.deadLetters,
      whenFull: "forget",
      rows: "dead letters",
      lost
    })
    return serviceOf(table, (letter) => void push(keep(letter)), flush)
  })
)

/** Dead letters in memory, gone with who has them. */
export const inMemory: Effect.Effect<DeadLetters["Service"]> = Effect.gen(function*() {
  const rows = makeMemory(yield* Limits.Limits)
  yield* onForget(rows.forget)
  return serviceOf(rows, (letter) => rows.write([keep(letter)]), Effect.void)
})

/** `inMemory` as a layer. */
export const layerMemory: Layer.Layer<DeadLetters> = Layer.effect(DeadLetters, inMemory)
