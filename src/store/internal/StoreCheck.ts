/**
 * Whether a store's file holds what KSI has put into it: SQLite's own checks, and what KSI promises of its tables.
 *
 * The rule: it only reads, each check in one transaction, so that it may run while a daemon writes. What is damaged does
 * not keep it from looking at the rest.
 *
 * **Gotchas** Facts that were removed on purpose leave holes. Where streams have settings of how long facts are kept, a
 * hole is counted and no problem; else it is one.
 */
import type { DatabaseSync, SQLOutputValue } from "node:sqlite"
import * as Json from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import * as StoreInspection from "../StoreInspection.ts"
import * as StoreFile from "./StoreFile.ts"
import type { Checked, Problem, Report } from "./StoreJob.ts"
import { has, lastPosition, openReading } from "./StoreReading.ts"

/** So many problems of a check are told; all are counted. */
const mostTold = 20
const rowsPerTick = 16_384

const restore = "ksi restore <a backup>; ksi verify <a backup> says whether it is sound"
const asStored = "the facts themselves are there: import what ksi export prints into a new store"

/** Says that something is wrong. */
type Wrong = (problem: string) => void

/** What is wrong: all of it counted, the first ones in words. */
class Wrongs {
  count = 0
  readonly told: Array<string> = []
  readonly say: Wrong = (problem) => {
    if (++this.count <= mostTold) this.told.push(problem)
  }
}

/** What is found, check by check. */
class Findings {
  readonly checks: Array<Checked> = []
  readonly problems: Array<Problem> = []
  private readonly db: DatabaseSync

  constructor(db: DatabaseSync) {
    this.db = db
  }

  add(check: string, help: string, [count, of]: readonly [count: number, of: string], wrongs: Wrongs): void {
    this.problems.push(...wrongs.told.map((problem) => ({ check, problem, help })))
    this.checks.push({ check, count, of, problems: wrongs.count })
  }

  /** Runs a check, which answers with how many of what it looked at, and says what is wrong with them. */
  run(check: string, help: string, look: (wrong: Wrong) => readonly [count: number, of: string]): void {
    const wrongs = new Wrongs()
    let looked: readonly [count: number, of: string] = [0, "rows"]
    try {
      // Of one moment of its own: the longer a reader stays at one, the longer the writer's log becomes.
      this.db.exec("BEGIN")
      looked = look(wrongs.say)
    } catch (cause) {
      wrongs.say(`it cannot be read: ${KsiError.sentenceOf(cause)}`)
    }
    // Of nothing that was written; of a damaged file it may have been done already.
    if (this.db.isTransaction) this.db.exec("ROLLBACK")
    this.add(check, help, looked, wrongs)
  }
}

// ------------------------------------------------------------------------------------------------------------- SQLite

const pages = (db: DatabaseSync, quick: boolean) => (wrong: Wrong) => {
  for (const row of db.prepare(`PRAGMA ${quick ? "quick_check" : "integrity_check"}(${mostTold})`).iterate()) {
    const [said] = Object.values(row)
    if (said !== "ok") wrong(String(said).replaceAll("\n", "; "))
  }
  return [StoreFile.number(db, "PRAGMA page_count"), "pages"] as const
}

const layout = (db: DatabaseSync, format: number) => (wrong: Wrong) => {
  for (const name of StoreInspection.alteredIn(db, format)) wrong(`${name} is missing, or other than this KSI makes it`)
  return [StoreFile.number(db, "SELECT count(*) FROM sqlite_master WHERE sql IS NOT NULL"), "tables and indexes"] as const
}

// -------------------------------------------------------------------------------------------------------------- facts

/** The columns of a fact in the order of `factColumns`. */
type Fact = Readonly<Record<"position" | "stream" | "version" | "source" | "name" | "recorded" | "data" | "attributes", SQLOutputValue>>

const textsOf = (db: DatabaseSync, table: string): ReadonlySet<SQLOutputValue | undefined> =>
  new Set(db.prepare(`SELECT id FROM ${table} WHERE typeof(text) = 'text'`).all().map(({ id }) => id))

// As the writer tells them apart.
const isCareful = (text: string): boolean => Json.isSuspicious(text) && JSON.stringify(JSON.parse(text)) !== text

/** Whether facts may have been removed on purpose. */
const mayRemove = (db: DatabaseSync): boolean =>
  has(db, "stream_settings") && StoreFile.number(db, "SELECT count(*) FROM stream_settings") > 0

/** Goes through all facts once, in the order of their positions. */
class Facts {
  /** Facts seen, and places where there is none on purpose. */
  count = 0
  removed = 0
  readonly wrong = { positions: new Wrongs(), versions: new Wrongs(), order: new Wrongs(), names: new Wrongs(), json: new Wrongs() }
  private readonly versions = new Map<number, number>()
  private readonly dictionaries: ReadonlyArray<readonly ["stream" | "name" | "source", ReadonlySet<SQLOutputValue | undefined>]>
  private readonly careful: number
  private readonly mayRemove: boolean
  private position = 0
  private recorded = -Infinity

  constructor(db: DatabaseSync) {
    this.dictionaries = [["stream", textsOf(db, "streams")], ["name", textsOf(db, "names")], ["source", textsOf(db, "sources")]]
    this.careful = StoreFile.number(db, "SELECT careful FROM meta") || Infinity
    this.mayRemove = mayRemove(db)
  }

  see(fact: Fact): void {
    this.count++
    const position = Number(fact.position)
    this.hole("positions", position - this.position - 1, `position ${this.position + 1}`, `position ${position}`)
    this.position = position
    const stream = Number(fact.stream)
    const before = this.versions.get(stream) ?? 0
    const version = Number(fact.version)
    const at = (version: number) => `version ${version} of stream number ${stream}`
    if (version <= before) this.wrong.versions.say(`${at(version)} at position ${position} comes after ${at(before)}`)
    else this.hole("versions", version - before - 1, at(before + 1), `${at(version)} at position ${position}`)
    this.versions.set(stream, version)
    const recorded = Number(fact.recorded)
    if (!(recorded >= this.recorded)) this.wrong.order.say(`position ${position} was stored before the one before it`)
    this.recorded = recorded
    for (const [column, known] of this.dictionaries) {
      if (!known.has(fact[column])) this.wrong.names.say(`${column} number ${String(fact[column])} of position ${position} stands for nothing`)
    }
    this.text(position, "data", fact.data)
    this.text(position, "attributes", fact.attributes)
  }

  private hole(kind: "positions" | "versions", size: number, first: string, next: string): void {
    if (size === 0) return
    if (!this.mayRemove) this.wrong[kind].say(`${first} is missing: ${next} follows what is before it`)
    else if (kind === "positions") this.removed += size
  }

  private text(position: number, part: "data" | "attributes", text: SQLOutputValue): void {
    if (text === null) return
    try {
      const value: unknown = JSON.parse(String(text))
      if (part === "attributes" && !Json.isObject(value)) this.wrong.json.say(`the attributes of position ${position} are no object`)
      if (position < this.careful && isCareful(String(text))) {
        this.wrong.json.say(`position ${position} holds a number that would be rounded: the store does not know of it`)
      }
    } catch (cause) {
      this.wrong.json.say(`the ${part} of position ${position} are no JSON: ${KsiError.sentenceOf(cause)}`)
    }
  }
}

const factColumns = "position, stream, version, source, name, recorded, data, attributes"

const facts = (db: DatabaseSync, findings: Findings, last: number, progress: (share: number) => void): void => {
  let all: Facts | undefined
  findings.run("facts", restore, (wrong) => {
    const seen = all = new Facts(db)
    // Exactly these columns.
    for (const row of db.prepare(`SELECT ${factColumns} FROM events ORDER BY position`).iterate()) {
      seen.see(row as Fact)
      if (seen.count % rowsPerTick === 0) progress(seen.count / Math.max(1, last))
    }
    if (StoreFile.number(db, "SELECT count(*) FROM events") !== seen.count) wrong("counting the facts gives another number than reading them")
    return [seen.count, "facts"]
  })
  const { removed = 0, count = 0, wrong } = all ?? {}
  if (wrong === undefined) return
  const told = (check: keyof typeof wrong, of: string, help: string, number = count) =>
    findings.add(check, help, [number, of], wrong[check])
  told("positions", removed === 0 ? "positions without a gap" : `positions, ${removed} of them removed on purpose`, restore, count + removed)
  told("versions", "versions, gapless in their streams", restore)
  told("order", "moments of storing, none before the one before it", "set the clock (timedatectl)")
  told("names", "facts whose stream, name and source are known", restore)
  told("json", "facts whose JSON can be read", restore)
}

const identity = (db: DatabaseSync) => (wrong: Wrong) => {
  // By the index of identities; that this holds what the table holds is among what SQLite looks at.
  const twice = db.prepare(`SELECT id, min(position) AS a, max(position) AS b FROM events
    GROUP BY id, source HAVING count(*) > 1 LIMIT ${mostTold}`)
  for (const { a, b, id } of twice.iterate()) wrong(`event "${String(id)}" is stored twice: at positions ${String(a)} and ${String(b)}`)
  return [StoreFile.number(db, "SELECT count(*) FROM events"), "identities, each of one fact"] as const
}

/** Every fact up to `through` is in the index, and what is in the index is so in the facts. */
const index = (db: DatabaseSync) => (wrong: Wrong) => {
  const through = StoreFile.number(db, "SELECT through FROM meta")
  if (StoreFile.number(db, "SELECT count(*) FROM meta") !== 1) wrong("the table meta has not one row")
  if (through > lastPosition(db)) wrong(`it says to hold everything up to position ${through}, and the last one is ${lastPosition(db)}`)
  const entry = "i.stream = e.stream AND i.version = e.version"
  const missing = db.prepare(`SELECT e.position FROM events e LEFT JOIN stream_index i ON ${entry}
    WHERE e.position <= ? AND i.position IS NOT e.position LIMIT ${mostTold}`)
  for (const { position } of missing.iterate(through)) wrong(`position ${String(position)} is not in it, or elsewhere`)
  // What is being moved into it. An entry of a fact that was removed stays: it holds the version of its stream.
  const other = db.prepare(`SELECT i.position FROM stream_index i JOIN events e ON e.position = i.position
    WHERE i.position > ? AND NOT (${entry}) LIMIT ${mostTold}`)
  for (const { position } of other.iterate(through)) wrong(`it says of position ${String(position)} what is not so`)
  const count = (table: string) => Number(db.prepare(`SELECT count(*) AS n FROM ${table} WHERE position <= ?`).get(through)?.["n"])
  const more = count("stream_index") - count("events")
  if (more > 0 && !mayRemove(db)) wrong(`it has ${more} more entries than there are facts`)
  return [StoreFile.number(db, "SELECT count(*) FROM stream_index"), `places of streams, up to position ${through}`] as const
}

// ------------------------------------------------------------------------------------------------------- other tables

const parsed = (wrong: Wrong, what: string, ...texts: ReadonlyArray<SQLOutputValue | undefined>): void => {
  for (const text of texts) {
    try {
      if (text !== null) JSON.parse(String(text))
    } catch (cause) {
      wrong(`${what} is no JSON: ${KsiError.sentenceOf(cause)}`)
    }
  }
}

const activity = (db: DatabaseSync) => (wrong: Wrong) => {
  let requests = 0
  let next: number | undefined
  for (const { columns, data, first, kinds, last } of db.prepare("SELECT * FROM activity ORDER BY first").iterate()) {
    const block = `the block of requests from ${String(first)} to ${String(last)}`
    if (Number(last) < Number(first) || (next !== undefined && Number(first) !== next)) wrong(`${block} does not follow the one before it`)
    parsed(wrong, block, kinds, columns, data)
    next = Number(last) + 1
    requests += Number(last) - Number(first) + 1
  }
  return [requests, "requests of the activity journal"] as const
}

const letters = (db: DatabaseSync) => (wrong: Wrong) => {
  for (const { event, letter } of db.prepare("SELECT letter, event FROM dead_letters").iterate()) parsed(wrong, `dead letter ${String(letter)}`, event)
  return [StoreFile.number(db, "SELECT count(*) FROM dead_letters"), "dead letters"] as const
}

const answers = (db: DatabaseSync) => (wrong: Wrong) => {
  for (const { row, value } of db.prepare("SELECT row, value FROM idempotency").iterate()) parsed(wrong, `answer ${String(row)}`, value)
  return [StoreFile.number(db, "SELECT count(*) FROM idempotency"), "answers under idempotency keys"] as const
}

const firstWithBlocks = 2

/** What the file says of itself; nothing where it is no database, or one that is cut off. */
const headerOf = (db: DatabaseSync, findings: Findings): { readonly format: number; readonly application: number } | undefined => {
  let header: ReturnType<typeof headerOf>
  findings.run("header", restore, () => {
    header = { format: StoreFile.number(db, "PRAGMA user_version"), application: StoreFile.number(db, "PRAGMA application_id") }
    StoreFile.number(db, "SELECT count(*) FROM sqlite_master")
    return [1, "database"]
  })
  return findings.problems.length === 0 ? header : undefined
}

const look = (db: DatabaseSync, quick: boolean, progress: (share: number) => void): Report => {
  const findings = new Findings(db)
  const header = headerOf(db, findings)
  if (header === undefined) return { format: 0, position: 0, checks: findings.checks, problems: findings.problems }
  const { application, format } = header
  findings.run("pages", restore, pages(db, quick))
  if (application !== StoreFile.applicationId) {
    findings.run("layout", restore, (wrong) => {
      wrong("it is not a store of KSI's")
      return [0, "tables and indexes"]
    })
  } else if (format > StoreFile.schemaVersion) {
    findings.run("layout", "use the newer KSI that made it", (wrong) => {
      wrong(`it has format ${format}; this KSI knows formats up to ${StoreFile.schemaVersion}`)
      return [0, "tables and indexes"]
    })
  } else findings.run("layout", restore, layout(db, format))
  let position = 0
  const isReadable = findings.checks.every(({ check, problems }) => check !== "layout" || problems === 0)
  if (isReadable) {
    findings.run("head", restore, () => {
      position = lastPosition(db)
      return [position, "is the last position"]
    })
  }
  if (!quick && isReadable) {
    facts(db, findings, position, progress)
    findings.run("identity", restore, identity(db))
    findings.run("index", asStored, index(db))
    if (format >= firstWithBlocks) findings.run("requests", restore, activity(db))
    findings.run("dead letters", restore, letters(db))
    findings.run("keys", restore, answers(db))
  }
  return { format, position, checks: findings.checks, problems: findings.problems }
}

/** Looks at a file; `quick` only at its pages and its layout. Throws where it cannot be opened. */
export const checkFile = (file: string, quick: boolean, progress: (share: number) => void): Report => {
  for (;;) {
    const { changed, db } = openReading(file)
    try {
      const report = look(db, quick, progress)
      if (!changed()) return report
    } finally {
      db.close()
    }
  }
}
