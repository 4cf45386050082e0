/**
 * Whether a store's file holds what KSI has put into it: SQLite's own checks, and what KSI promises of its tables.
 *
 * The rule: it only reads, each check in one transaction, so that it may run while a daemon writes. What is damaged does
 * not keep it from looking at the rest.
 *
 * **Gotchas** Facts that were removed on purpose leave holes. Of a stream only its beginning goes, and the file says how much
 * of it (`Removals`): so a version that is missing is found wherever it is, and there must be exactly as many empty positions
 * as facts were removed. Which one of them is wrong nobody can tell. Facts of a deleted stream may still wait to be erased.
 */
import type { DatabaseSync, SQLOutputValue } from "node:sqlite"
import * as Json from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import { streamDeleted } from "../EventStore.ts"
import * as StoreInspection from "../StoreInspection.ts"
import { applicationId, schemaVersion } from "./schema.ts"
import * as StoreFile from "./StoreFile.ts"
import type { Checked, Problem, Report } from "./StoreJob.ts"
import { has, lastPosition, openReading } from "./StoreReading.ts"
import * as TableChecks from "./TableChecks.ts"
import { mostTold, type Wrong } from "./TableChecks.ts"

const rowsPerTick = 16_384

const restore = "ksi restore <a backup>; ksi verify <a backup> says whether it is sound"
const aCache = "nothing is lost by it, snapshots are made anew: ksi compact removes what belongs to nothing"
const asStored = "the facts themselves are there: import what ksi export prints into a new store"

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

  add(check: string, mend: string, [count, what]: readonly [count: number, what: string], wrongs: Wrongs): void {
    this.problems.push(...wrongs.told.map((problem) => ({ check, problem, mend })))
    this.checks.push({ check, count, what, wrong: wrongs.count })
  }

  /** Runs a check, which answers with how many of what it looked at, and says what is wrong with them. */
  run(check: string, mend: string, look: (wrong: Wrong) => readonly [count: number, what: string]): void {
    const wrongs = new Wrongs()
    let looked: readonly [count: number, what: string] = [0, "rows"]
    try {
      // Of one moment of its own: the longer a reader stays at one, the longer the writer's log becomes.
      this.db.exec("BEGIN")
      looked = look(wrongs.say)
    } catch (cause) {
      wrongs.say(`it cannot be read: ${KsiError.sentenceOf(cause)}`)
    }
    // Of nothing that was written; of a damaged file it may have been done already.
    if (this.db.isTransaction) this.db.exec("ROLLBACK")
    this.add(check, mend, looked, wrongs)
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

/** What a file says of itself that it has lost on purpose. */
interface Lost {
  /** The first version that is left of a stream, and whether that is its tombstone. */
  readonly cuts: ReadonlyMap<number, { readonly first: number; readonly isDeleted: boolean; readonly isWaiting: boolean }>
  /** The last fact of the log when something was removed. */
  readonly end: { readonly position: number; readonly recorded: number }
}

const lostIn = (db: DatabaseSync): Lost => {
  if (!has(db, "stream_cuts")) return { cuts: new Map(), end: { position: 0, recorded: -Infinity } }
  const cuts = db.prepare("SELECT stream, first, deleted FROM stream_cuts").all()
    .map(({ deleted, first, stream }) => [Number(stream), { first: Number(first), isDeleted: deleted !== 0, isWaiting: deleted === 2 }] as const)
  const end = db.prepare("SELECT position, recorded FROM log_end").get()
  return { cuts: new Map(cuts), end: { position: Number(end?.["position"] ?? 0), recorded: Number(end?.["recorded"] ?? -Infinity) } }
}

/** Goes through all facts once, in the order of their positions. */
class Facts {
  /** Facts seen, and places where there is none on purpose. */
  count = 0
  removed = 0
  readonly wrong = {
    positions: new Wrongs(), versions: new Wrongs(), order: new Wrongs(), names: new Wrongs(), json: new Wrongs(), tags: new Wrongs()
  }
  private readonly versions = new Map<number, number>()
  private readonly dictionaries: ReadonlyArray<readonly ["stream" | "name" | "source", ReadonlySet<SQLOutputValue | undefined>]>
  private readonly careful: number
  private readonly tombstone: SQLOutputValue | undefined
  private readonly lost: Lost
  private readonly tags: TableChecks.Tags
  private position = 0
  private recorded = -Infinity
  private empty = 0
  private firstEmpty = 0

  constructor(db: DatabaseSync) {
    this.dictionaries = [["stream", textsOf(db, "streams")], ["name", textsOf(db, "names")], ["source", textsOf(db, "sources")]]
    this.careful = StoreFile.number(db, "SELECT careful FROM meta") || Infinity
    this.tombstone = db.prepare("SELECT id FROM names WHERE text = ?").get(streamDeleted)?.["id"]
    this.lost = lostIn(db)
    for (const { first } of this.lost.cuts.values()) this.removed += first - 1
    this.tags = new TableChecks.Tags(db, this.wrong.tags.say)
  }

  get tagged(): number {
    return this.tags.count
  }

  see(fact: Fact): void {
    this.count++
    const position = Number(fact.position)
    this.hole(position, `position ${position} follows what is before it`)
    this.position = position
    this.version(position, fact)
    const recorded = Number(fact.recorded)
    if (position > this.lost.end.position) this.recorded = Math.max(this.recorded, this.lost.end.recorded)
    if (!(recorded >= this.recorded)) this.wrong.order.say(`position ${position} was stored before the one before it`)
    this.recorded = recorded
    for (const [column, known] of this.dictionaries) {
      if (!known.has(fact[column])) this.wrong.names.say(`${column} number ${String(fact[column])} of position ${position} stands for nothing`)
    }
    this.text(position, "data", fact.data)
    this.text(position, "attributes", fact.attributes)
  }

  /** What shows only when all facts were seen. */
  end(): void {
    const { cuts, end } = this.lost
    this.hole(end.position + 1, `the log went up to position ${end.position}`)
    if (this.removed > 0 && this.empty !== this.removed) {
      this.wrong.positions.say(`${this.removed} facts were removed on purpose, and ${this.empty} positions are empty${
        this.empty === 0 ? "" : `, the first of them ${this.firstEmpty}`}`)
    }
    const [, streams] = this.dictionaries[0] ?? []
    for (const [stream, { first, isDeleted }] of cuts) {
      if (!(first >= 1)) this.wrong.versions.say(`stream number ${stream} cannot begin with version ${first}`)
      if (streams?.has(stream) !== true) this.wrong.names.say(`stream number ${stream}, of which facts were removed, stands for nothing`)
      if (isDeleted && !this.versions.has(stream)) this.wrong.versions.say(`the tombstone of stream number ${stream}, version ${first}, is missing`)
    }
    this.tags.end()
  }

  private hole(next: number, why: string): void {
    const size = next - this.position - 1
    if (!(size > 0)) return
    if (this.empty === 0) this.firstEmpty = this.position + 1
    this.empty += size
    if (this.removed === 0) this.wrong.positions.say(`position ${this.position + 1} is missing: ${why}`)
  }

  private version(position: number, { name, stream: number, version: value }: Fact): void {
    const stream = Number(number)
    const { first, isDeleted, isWaiting } = this.lost.cuts.get(stream) ?? { first: 1, isDeleted: false, isWaiting: false }
    const before = this.versions.get(stream) ?? first - 1
    const version = Number(value)
    // Removed, and not erased yet.
    if (isWaiting && version < first) return void this.removed--
    const at = (version: number) => `version ${version} of stream number ${stream}`
    const say = this.wrong.versions.say
    if (version < first) say(`${at(version)} is at position ${position}, and was removed on purpose`)
    else if (version <= before) say(`${at(version)} at position ${position} comes after ${at(before)}`)
    else if (version > before + 1) say(`${at(before + 1)} is missing: ${at(version)} at position ${position} follows what is before it`)
    if (isDeleted && version > first) say(`${at(version)} at position ${position} comes after the stream was deleted`)
    if (isDeleted && version === first && name !== this.tombstone) say(`${at(version)} at position ${position} should be its tombstone`)
    this.versions.set(stream, version)
  }

  private text(position: number, part: "data" | "attributes", text: SQLOutputValue): void {
    if (text === null) return
    try {
      const value: unknown = JSON.parse(String(text))
      if (part === "attributes" && !Json.isObject(value)) this.wrong.json.say(`the attributes of position ${position} are no object`)
      else if (part === "attributes") this.tags.see(position, value)
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
    seen.end()
    if (StoreFile.number(db, "SELECT count(*) FROM events") !== seen.count) wrong("counting the facts gives another number than reading them")
    return [seen.count, "facts"]
  })
  if (all === undefined) return
  const { count, removed, tagged, wrong } = all
  const told = (check: keyof typeof wrong, what: string, mend: string, number = count) =>
    findings.add(check, mend, [number, what], wrong[check])
  told("positions", removed === 0 ? "positions without a gap" : `positions, ${removed} of them removed on purpose`, restore, count + removed)
  told("versions", "versions, gapless in their streams", restore)
  told("order", "moments of storing, none before the one before it", "set the clock (timedatectl)")
  told("names", "facts whose stream, name and source are known", restore)
  told("json", "facts whose JSON can be read", restore)
  told("tags", "tags, each of a fact that says so", asStored, tagged)
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
  // An entry from before what is left of its stream may have been written after it was removed: nobody looks at it.
  const live = has(db, "stream_cuts")
    ? "stream_index i LEFT JOIN stream_cuts c ON c.stream = i.stream WHERE i.version >= coalesce(c.first, 1) AND i.position <= ?"
    : "stream_index i WHERE i.position <= ?"
  const count = (from: string) => Number(db.prepare(`SELECT count(*) AS n FROM ${from}`).get(through)?.["n"])
  const more = count(live) - count("events WHERE position <= ?")
  if (more > 0) wrong(`it has ${more} more entries than there are facts`)
  return [StoreFile.number(db, "SELECT count(*) FROM stream_index"), `places of streams, up to position ${through}`] as const
}

const firstWithBlocks = 2
const firstWithRemovals = 3

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

/** What is made of the facts, or says how far somebody is with them. */
const beside = (db: DatabaseSync, findings: Findings): void => {
  findings.run("causes", asStored, TableChecks.correlations(db))
  findings.run("snapshots", aCache, TableChecks.snapshots(db))
  findings.run("read models", "rebuild the read model: its states are made of the facts", TableChecks.readModels(db))
  findings.run("consumers", restore, TableChecks.consumers(db))
}

const look = (db: DatabaseSync, quick: boolean, progress: (share: number) => void): Report => {
  const findings = new Findings(db)
  const header = headerOf(db, findings)
  if (header === undefined) return { format: 0, position: 0, checks: findings.checks, problems: findings.problems }
  const { application, format } = header
  findings.run("pages", restore, pages(db, quick))
  if (application !== applicationId) {
    findings.run("layout", restore, (wrong) => {
      wrong("it is not a store of KSI's")
      return [0, "tables and indexes"]
    })
  } else if (format > schemaVersion) {
    findings.run("layout", "use the newer KSI that made it", (wrong) => {
      wrong(`it has format ${format}; this KSI knows formats up to ${schemaVersion}`)
      return [0, "tables and indexes"]
    })
  } else findings.run("layout", restore, layout(db, format))
  let position = 0
  const isReadable = findings.checks.every(({ check, wrong }) => check !== "layout" || wrong === 0)
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
    if (format >= firstWithBlocks) findings.run("requests", restore, TableChecks.activity(db))
    findings.run("dead letters", restore, TableChecks.letters(db))
    findings.run("keys", restore, TableChecks.answers(db))
    if (format >= firstWithRemovals) beside(db, findings)
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
