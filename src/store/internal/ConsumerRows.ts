// Where consumer groups keep how far they are and what they have set aside, in memory or in the store's file. A checkpoint and
// what was set aside before it are one transaction.
import type * as Effect from "effect/Effect"
import type { DatabaseSync, SQLOutputValue } from "node:sqlite"
import type * as KsiError from "../../event/KsiError.ts"
import { fromSortable, toSortable } from "./sortable.ts"
import * as StoreFile from "./StoreFile.ts"

/** How far a group is: everything up to `position` is dealt with, and what is in `done`. */
export interface Checkpoint {
  readonly position: number
  readonly done: ReadonlyArray<number>
}

/** A fact that was set aside. */
export interface Parked {
  readonly position: number
  readonly streamId: string
  /** How often it was tried. */
  readonly attempts: number
  /** What its handler said the last time; `undefined` where it waits behind another of its stream. */
  readonly error: string | undefined
  /** When it was set aside, in milliseconds since 1970. */
  readonly timestamp: number
}

/** A group that is kept. */
export interface Group extends Checkpoint {
  readonly name: string
  readonly parked: number
}

/** Which of the facts that are set aside, in the order of their positions. */
export interface ParkedQuery {
  readonly streamId?: string | undefined
  readonly after?: number | undefined
  readonly limit: number
}

/** What every database does for consumer groups. Each is all or nothing; a driver over SQLite does it in one turn. */
export interface ConsumerRows {
  readonly groups: () => Effect.Effect<ReadonlyArray<Group>, KsiError.KsiError>
  /** The group of this name; a new one has dealt with everything up to `position`. */
  readonly open: (name: string, position: number) => Effect.Effect<Group, KsiError.KsiError>
  /** Notes how far a group is, and what it has set aside meanwhile. */
  readonly save: (name: string, checkpoint: Checkpoint, parked: ReadonlyArray<Parked>) => Effect.Effect<void, KsiError.KsiError>
  readonly parked: (name: string, query: ParkedQuery) => Effect.Effect<ReadonlyArray<Parked>, KsiError.KsiError>
  /** How many facts of each stream are set aside. */
  readonly streams: (name: string) => Effect.Effect<ReadonlyMap<string, number>, KsiError.KsiError>
  /** Notes that a fact was tried again, in vain. */
  readonly again: (name: string, parked: Parked) => Effect.Effect<void, KsiError.KsiError>
  /** Removes facts from those that are set aside; answers with those that were. */
  readonly remove: (name: string, positions: ReadonlyArray<number>) => Effect.Effect<ReadonlyArray<Parked>, KsiError.KsiError>
}

const step = <A>(operation: string, f: () => A) => StoreFile.attempt(`${operation} consumer groups`, f)

// ------------------------------------------------------------------------------------------------------------- memory

interface KeptGroup {
  checkpoint: Checkpoint
  /** By position; positions are parked in any order. */
  readonly parked: Map<number, Parked>
}

/** Consumer groups in memory. */
export const makeMemory = (): ConsumerRows & { readonly forget: () => boolean } => {
  const groups = new Map<string, KeptGroup>()
  const groupOf = (name: string, kept: KeptGroup): Group => ({ name, ...kept.checkpoint, parked: kept.parked.size })
  const parkedOf = (name: string) => groups.get(name)?.parked ?? new Map<number, Parked>()
  return {
    groups: () => step("list", () => Array.from(groups, ([name, kept]) => groupOf(name, kept)).toSorted((a, b) => a.name < b.name ? -1 : 1)),
    open: (name, position) =>
      step("open", () => {
        const kept = groups.get(name) ?? { checkpoint: { position, done: [] }, parked: new Map<number, Parked>() }
        groups.set(name, kept)
        return groupOf(name, kept)
      }),
    save: (name, checkpoint, parked) =>
      step("write", () => {
        const kept = groups.get(name)
        if (kept === undefined) return
        kept.checkpoint = checkpoint
        for (const row of parked) kept.parked.set(row.position, row)
      }),
    parked: (name, { after = 0, limit, streamId }) =>
      step("read", () =>
        [...parkedOf(name).values()]
          .filter((row) => row.position > after && (streamId === undefined || row.streamId === streamId))
          .toSorted((a, b) => a.position - b.position).slice(0, limit)),
    streams: (name) =>
      step("read", () => {
        const counts = new Map<string, number>()
        for (const { streamId } of parkedOf(name).values()) counts.set(streamId, (counts.get(streamId) ?? 0) + 1)
        return counts
      }),
    again: (name, row) => step("write", () => void (parkedOf(name).has(row.position) && parkedOf(name).set(row.position, row))),
    remove: (name, positions) =>
      step("write", () =>
        positions.flatMap((position) => {
          const row = parkedOf(name).get(position)
          return row !== undefined && parkedOf(name).delete(position) ? [row] : []
        })),
    forget: () => {
      groups.clear()
      return true
    }
  }
}

// --------------------------------------------------------------------------------------------------------------- file

type Columns = Record<string, SQLOutputValue>

const parkedRow = (row: Columns): Parked => ({
  position: Number(row["position"]),
  streamId: fromSortable(String(row["stream"])),
  attempts: Number(row["attempts"]),
  error: typeof row["error"] === "string" ? row["error"] : undefined,
  timestamp: Number(row["timestamp"])
})

const groupRow = (row: Columns): Group => ({
  name: String(row["name"]),
  position: Number(row["position"]),
  // Only this module writes the column.
  done: JSON.parse(String(row["done"])) as ReadonlyArray<number>,
  parked: Number(row["parked"])
})

const one = "(SELECT consumer FROM consumer_groups WHERE name = ?1)"

const statements = (db: DatabaseSync) => ({
  every: db.prepare("SELECT g.*, (SELECT count(*) FROM consumer_parked p WHERE p.consumer = g.consumer) AS parked FROM consumer_groups g ORDER BY name"),
  named: db.prepare("SELECT g.*, (SELECT count(*) FROM consumer_parked p WHERE p.consumer = g.consumer) AS parked FROM consumer_groups g WHERE name = ?1"),
  add: db.prepare("INSERT INTO consumer_groups VALUES (NULL, ?, ?, '[]') ON CONFLICT DO NOTHING"),
  move: db.prepare("UPDATE consumer_groups SET position = ?2, done = ?3 WHERE name = ?1"),
  park: db.prepare(`INSERT OR REPLACE INTO consumer_parked VALUES (${one}, ?2, ?3, ?4, ?5, ?6)`),
  page: db.prepare(`SELECT * FROM consumer_parked WHERE consumer = ${one} AND position > ?2 ORDER BY position LIMIT ?3`),
  ofStream: db.prepare(`SELECT * FROM consumer_parked WHERE consumer = ${one} AND stream = ?4 AND position > ?2 ORDER BY position LIMIT ?3`),
  counts: db.prepare(`SELECT stream, count(*) AS n FROM consumer_parked WHERE consumer = ${one} GROUP BY stream`),
  again: db.prepare(`UPDATE consumer_parked SET attempts = ?3, error = ?4 WHERE consumer = ${one} AND position = ?2`),
  at: db.prepare(`SELECT * FROM consumer_parked WHERE consumer = ${one} AND position = ?2`),
  remove: db.prepare(`DELETE FROM consumer_parked WHERE consumer = ${one} AND position = ?2`)
})

/** Consumer groups in the store's file. Written behind: what a power failure takes back is handled again. */
export const makeTable = ({ db, transactionBehind }: StoreFile.StoreFile["Service"]): ConsumerRows => {
  const sql = statements(db)
  return {
    groups: () => step("list", () => sql.every.all().map(groupRow)),
    open: (name, position) =>
      step("open", () =>
        transactionBehind(() => {
          sql.add.run(name, position)
          return groupRow(sql.named.get(name) ?? {})
        })),
    save: (name, { done, position }, parked) =>
      step("write", () =>
        transactionBehind(() => {
          sql.move.run(name, position, JSON.stringify(done))
          for (const { attempts, error, position, streamId, timestamp } of parked) {
            sql.park.run(name, position, toSortable(streamId), attempts, error ?? null, timestamp)
          }
        })),
    parked: (name, { after = 0, limit, streamId }) =>
      step("read", () =>
        (streamId === undefined ? sql.page.all(name, after, limit) : sql.ofStream.all(name, after, limit, toSortable(streamId))).map(parkedRow)),
    streams: (name) =>
      step("read", () => new Map(sql.counts.all(name).map((row) => [fromSortable(String(row["stream"])), Number(row["n"])]))),
    again: (name, { attempts, error, position }) =>
      step("write", () => transactionBehind(() => void sql.again.run(name, position, attempts, error ?? null))),
    remove: (name, positions) =>
      step("write", () =>
        transactionBehind(() =>
          positions.flatMap((position) => {
            const row = sql.at.get(name, position)
            if (row === undefined) return []
            sql.remove.run(name, position)
            return [parkedRow(row)]
          })))
  }
}
