// Checks of what lies in a store's file beside the facts: what is made of them, what points to them, what else is kept.
import type { DatabaseSync, SQLOutputValue } from "node:sqlite"
import * as Json from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import * as EventTags from "../../event/Tags.ts"
import * as CorrelationIndex from "./CorrelationIndex.ts"
import * as StoreFile from "./StoreFile.ts"
import { has, lastPosition } from "./StoreReading.ts"

/** So many problems of a check are told; all are counted. */
export const mostTold = 20

/** Says that something is wrong. */
export type Wrong = (problem: string) => void

/** Looks, says what is wrong, and answers with how many of what it looked at. */
type Check = (wrong: Wrong) => readonly [count: number, what: string]

const count = (db: DatabaseSync, table: string): number => StoreFile.number(db, `SELECT count(*) FROM ${table}`)

/** Says a sentence of every row that a query finds. */
const eachOf = (db: DatabaseSync, sql: string, wrong: Wrong, sentence: (row: Record<string, string>) => string): void => {
  for (const row of db.prepare(`${sql} LIMIT ${mostTold}`).iterate()) {
    wrong(sentence(Object.fromEntries(Object.entries(row).map(([name, value]) => [name, String(value)]))))
  }
}

/** The tags of facts against their table. */
export class Tags {
  /** Tags that facts have. */
  count = 0
  private readonly db: DatabaseSync
  private readonly wrong: Wrong
  private readonly has: ((tag: string, position: number) => boolean) | undefined

  constructor(db: DatabaseSync, wrong: Wrong) {
    this.db = db
    this.wrong = wrong
    const select = has(db, "fact_tags") ? db.prepare("SELECT 1 FROM fact_tags WHERE tag = ? AND position = ?") : undefined
    this.has = select === undefined ? undefined : (tag, position) => select.get(tag, position) !== undefined
  }

  /** Of a fact with these attributes. */
  see(position: number, attributes: unknown): void {
    if (this.has === undefined || !Json.isObject(attributes)) return
    for (const tag of EventTags.of({ attributes })) {
      this.count++
      if (!this.has(tag, position)) this.wrong(`"${tag}" of position ${position} is missing`)
    }
  }

  /** After all facts: what is in the table and of none of them. */
  end(): void {
    if (this.has === undefined) return
    const rows = this.db.prepare(`SELECT t.tag, t.position, e.position IS NULL AS gone,
      CASE WHEN json_valid(e.attributes) THEN e.attributes ->> '$.${EventTags.attribute}' END AS text
      FROM fact_tags t LEFT JOIN events e ON e.position = t.position`)
    for (const { gone, position, tag, text } of rows.iterate()) {
      if (gone === 1) this.wrong(`"${String(tag)}" is said of position ${String(position)}, where no fact is`)
      else if (typeof text !== "string" || !EventTags.fromText(text).includes(String(tag))) {
        this.wrong(`"${String(tag)}" is said of position ${String(position)}, which does not have it`)
      }
    }
  }
}

/** The index of causes, as far as it is: what facts say is in it, and nothing else. */
export const correlations = (db: DatabaseSync): Check => (wrong) => {
  const head = lastPosition(db)
  if (count(db, "correlated") !== 1) wrong("the table correlated has not one row")
  const through = StoreFile.number(db, "SELECT through FROM correlated")
  if (through > head) wrong(`it says to hold everything up to position ${through}, and the last one is ${head}`)
  const entries = CorrelationIndex.entriesOf(`position <= ${through}`)
  const kept = "SELECT correlation, position FROM correlations"
  eachOf(db, `${entries} EXCEPT ${kept}`, wrong, ({ correlation, position }) => `"${correlation}" of position ${position} is missing`)
  eachOf(db, `${kept} EXCEPT SELECT * FROM (${entries})`, wrong, ({ correlation, position }) => `"${correlation}" is said of position ${position}, where no fact says so`)
  return [count(db, "correlations"), `entries of chains of causes, up to position ${through}`]
}

/** Snapshots belong to code and a subject, and are not of what never was. */
export const snapshots = (db: DatabaseSync): Check => (wrong) => {
  const head = lastPosition(db)
  const without = (table: string, column: string, other: string, key: string) =>
    `SELECT t.${column} AS id FROM ${table} t LEFT JOIN ${other} o ON o.${key} = t.${column} WHERE o.${key} IS NULL`
  eachOf(db, without("snapshot_chains", "fingerprint", "snapshot_fingerprints", "id"), wrong, ({ id }) => `there is no code number ${id}, of which snapshots are`)
  eachOf(db, without("snapshot_points", "chain", "snapshot_chains", "chain"), wrong, ({ id }) => `there is no chain number ${id}, in which a snapshot is`)
  eachOf(db, `SELECT s.chain, s.position FROM snapshots s LEFT JOIN snapshot_points p ON p.chain = s.chain AND p.position = s.position
    WHERE p.chain IS NULL`, wrong, ({ chain, position }) => `a state of chain number ${chain} at position ${position} is of no snapshot`)
  eachOf(db, `SELECT chain, position FROM snapshot_points WHERE position > ${head}`, wrong, ({ chain, position }) =>
    `a snapshot of chain number ${chain} is of position ${position}, and the last one is ${head}`)
  return [count(db, "snapshot_points"), "snapshots"]
}

/** No read model is further than the facts, and every state is of one. */
export const readModels = (db: DatabaseSync): Check => (wrong) => {
  const head = lastPosition(db)
  eachOf(db, `SELECT name, position FROM read_models WHERE position > ${head}`, wrong, ({ name, position }) =>
    `"${name}" is at position ${position}, and the last one is ${head}`)
  eachOf(db, `SELECT name FROM read_models WHERE role = 'serving' GROUP BY name HAVING count(*) > 1`, wrong, ({ name }) => `two versions of "${name}" are asked`)
  eachOf(db, `SELECT s.model, s.key, s.position FROM read_model_states s LEFT JOIN read_models m ON m.model = s.model
    WHERE m.model IS NULL OR s.position > m.position`, wrong, ({ key, model, position }) => `state "${key}" of position ${position} is not of version number ${model}`)
  eachOf(db, "SELECT model, key FROM read_model_states WHERE NOT json_valid(state)", wrong, ({ key, model }) => `state "${key}" of version number ${model} is no JSON`)
  return [count(db, "read_model_states"), "states of read models"]
}

/** No consumer group is further than the facts. */
export const consumers = (db: DatabaseSync): Check => (wrong) => {
  const head = lastPosition(db)
  eachOf(db, `SELECT name, position FROM consumer_groups WHERE position > ${head}`, wrong, ({ name, position }) =>
    `"${name}" is at position ${position}, and the last one is ${head}`)
  eachOf(db, "SELECT name FROM consumer_groups WHERE NOT json_valid(done)", wrong, ({ name }) => `what "${name}" has done is no JSON`)
  eachOf(db, `SELECT name, value FROM consumer_groups, json_each(CASE WHEN json_valid(done) THEN done ELSE '[]' END)
    WHERE value > ${head}`, wrong, ({ name, value }) => `"${name}" has done position ${value}, and the last one is ${head}`)
  eachOf(db, `SELECT p.consumer, p.position, g.consumer IS NULL AS alone FROM consumer_parked p LEFT JOIN consumer_groups g ON g.consumer = p.consumer
    WHERE g.consumer IS NULL OR p.position > ${head}`, wrong, ({ alone, consumer, position }) => alone === "1"
      ? `position ${position} was set aside by group number ${consumer}, which is not there`
      : `position ${position} was set aside, and the last one is ${head}`)
  return [count(db, "consumer_groups"), "consumer groups"]
}

const parsed = (wrong: Wrong, what: string, ...texts: ReadonlyArray<SQLOutputValue | undefined>): void => {
  for (const text of texts) {
    try {
      if (text !== null) JSON.parse(String(text))
    } catch (cause) {
      wrong(`${what} is no JSON: ${KsiError.sentenceOf(cause)}`)
    }
  }
}

/** Blocks of requests follow one another. */
export const activity = (db: DatabaseSync): Check => (wrong) => {
  let requests = 0
  let next: number | undefined
  for (const { columns, data, first, kinds, last } of db.prepare("SELECT * FROM activity ORDER BY first").iterate()) {
    const block = `the block of requests from ${String(first)} to ${String(last)}`
    if (Number(last) < Number(first) || (next !== undefined && Number(first) !== next)) wrong(`${block} does not follow the one before it`)
    parsed(wrong, block, kinds, columns, data)
    next = Number(last) + 1
    requests += Number(last) - Number(first) + 1
  }
  return [requests, "requests of the activity journal"]
}

/** Dead letters are JSON. */
export const letters = (db: DatabaseSync): Check => (wrong) => {
  for (const { event, letter } of db.prepare("SELECT letter, event FROM dead_letters").iterate()) parsed(wrong, `dead letter ${String(letter)}`, event)
  return [count(db, "dead_letters"), "dead letters"]
}

/** Answers under idempotency keys are JSON. */
export const answers = (db: DatabaseSync): Check => (wrong) => {
  for (const { row, value } of db.prepare("SELECT row, value FROM idempotency").iterate()) parsed(wrong, `answer ${String(row)}`, value)
  return [count(db, "idempotency"), "answers under idempotency keys"]
}
