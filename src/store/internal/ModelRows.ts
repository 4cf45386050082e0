// Where the states of read models are kept, in memory or in the store's file: versions of a model (`sets`), each with its
// checkpoint and one state for each key. A batch of states and the checkpoint behind them are one transaction.
import type * as Effect from "effect/Effect"
import type { DatabaseSync, SQLOutputValue } from "node:sqlite"
import * as KsiError from "../../event/KsiError.ts"
import { firstWhere } from "./bisect.ts"
import { securely } from "./erasing.ts"
import { fromSortable, toSortable } from "./sortable.ts"
import * as StoreFile from "./StoreFile.ts"

/** One version of a read model. */
export interface ModelSet {
  readonly set: number
  readonly name: string
  readonly fingerprint: string
  readonly role: "serving" | "building" | "dropped"
  /** Everything up to here is in its states. */
  readonly position: number
}

/** The state of one key, as text. */
export interface StateRow {
  readonly key: string
  readonly state: string
  /** The fact that changed it last. */
  readonly position: number
}

/** Which states of a model, in the order of their keys (by code unit). */
export interface StateQuery {
  readonly prefix?: string | undefined
  readonly after?: string | undefined
  readonly limit: number
}

/** A state to be kept; without one, what was kept under the key is removed. */
export interface ChangedRow extends Omit<StateRow, "state"> {
  readonly state: string | undefined
}

/** What was folded. */
export interface Batch {
  readonly set: number
  /** The checkpoint that it was folded from: where that is not the set's, nothing is written. */
  readonly from: number
  readonly position: number
  readonly rows: ReadonlyArray<ChangedRow>
  /** Whether a set that is being built shall be asked from now on, if it is as far as the one that is. */
  readonly takeOver?: boolean | undefined
}

/** What every database does for read models. Each is all or nothing; a driver over SQLite does it in one turn. */
export interface ModelRows {
  /** The versions of a model that are there for somebody, or of all models. */
  readonly sets: (name?: string) => Effect.Effect<ReadonlyArray<ModelSet>, KsiError.KsiError>
  /** The versions of a model that somebody with this code keeps; what is not needed any more is dropped. */
  readonly open: (name: string, fingerprint: string, rebuild: boolean) => Effect.Effect<ReadonlyArray<ModelSet>, KsiError.KsiError>
  readonly load: (set: number, keys: ReadonlyArray<string>) => Effect.Effect<ReadonlyMap<string, string>, KsiError.KsiError>
  /** Answers with whether the set is the one that is asked. */
  readonly commit: (batch: Batch) => Effect.Effect<boolean, KsiError.KsiError>
  /** For who does it in the turn in which facts are written. What these throw is the writer's to answer for. */
  readonly now: {
    readonly state: (set: number, key: string) => string | undefined
    /** As `commit`, in the transaction at hand. */
    readonly write: (batch: Batch) => boolean
    readonly commit: (batch: Batch) => boolean
  }
  /** Of the version that is asked. */
  readonly get: (name: string, key: string) => Effect.Effect<StateRow | undefined, KsiError.KsiError>
  /** Of the version that is asked. */
  readonly list: (name: string, query: StateQuery) => Effect.Effect<ReadonlyArray<StateRow>, KsiError.KsiError>
  /** Deletes at most so many states of dropped versions; answers with whether there may be more. */
  readonly sweep: (limit: number) => Effect.Effect<boolean, KsiError.KsiError>
}

/** What becomes of the versions of a model: which are dropped, and which is made. */
export const plan = (sets: ReadonlyArray<ModelSet>, fingerprint: string, rebuild: boolean): {
  readonly drop: ModelSet | undefined
  readonly make: "serving" | "building" | undefined
} => {
  const serving = sets.find(({ role }) => role === "serving")
  const building = sets.find(({ role }) => role === "building")
  if (serving === undefined) return { drop: undefined, make: "serving" }
  // One that was begun with this code goes on at its checkpoint.
  if (building?.fingerprint === fingerprint && !rebuild) return { drop: undefined, make: undefined }
  const isOther = rebuild || serving.fingerprint !== fingerprint
  return { drop: building, make: isOther ? "building" : undefined }
}

const movedOn = (): never => {
  throw new Error("somebody else keeps this read model")
}

// ------------------------------------------------------------------------------------------------------------- memory

interface KeptSet {
  info: ModelSet
  readonly states: Map<string, StateRow>
  /** The keys in order; made when somebody lists them. */
  sorted: ReadonlyArray<string> | undefined
}

/** Index of the first key that is not before `key`. */
const indexOf = (keys: ReadonlyArray<string>, key: string): number =>
  firstWhere(0, keys.length, (index) => (keys[index] ?? "") >= key)

/** Read models in memory. */
export const makeMemory = (): ModelRows & { readonly forget: () => boolean } => {
  const sets = new Map<number, KeptSet>()
  let last = 0
  const step = <A>(operation: string, f: () => A) => StoreFile.attempt(`${operation} read models`, f)
  const live = (name?: string) =>
    Array.from(sets.values(), ({ info }) => info).filter((info) => name === undefined || info.name === name)
  const serving = (name: string) => sets.values().find(({ info }) => info.name === name && info.role === "serving")
  const commit = ({ from, position, rows, set, takeOver = false }: Batch): boolean => {
    const kept = sets.get(set)
    if (kept === undefined || kept.info.position !== from) return movedOn()
    const before = kept.states.size
    for (const { key, position, state } of rows) {
      if (state !== undefined) kept.states.set(key, { key, state, position })
      else if (kept.states.delete(key)) kept.sorted = undefined
    }
    if (kept.states.size !== before) kept.sorted = undefined
    kept.info = { ...kept.info, position }
    if (!takeOver || kept.info.role === "serving") return kept.info.role === "serving"
    const other = serving(kept.info.name)
    if (other !== undefined && other.info.position > position) return false
    if (other !== undefined) sets.delete(other.info.set)
    kept.info = { ...kept.info, role: "serving" }
    return true
  }
  return {
    sets: (name) => step("list", () => live(name)),
    open: (name, fingerprint, rebuild) =>
      step("open", () => {
        const { drop, make } = plan(live(name), fingerprint, rebuild)
        if (drop !== undefined) sets.delete(drop.set)
        if (make !== undefined) {
          const info: ModelSet = { set: ++last, name, fingerprint, role: make, position: 0 }
          sets.set(info.set, { info, states: new Map(), sorted: undefined })
        }
        return live(name)
      }),
    load: (set, keys) =>
      step("read", () =>
        new Map(keys.flatMap((key) => {
          const row = sets.get(set)?.states.get(key)
          return row === undefined ? [] : [[key, row.state]]
        }))),
    commit: (batch) => step("write", () => commit(batch)),
    now: { state: (set, key) => sets.get(set)?.states.get(key)?.state, write: commit, commit },
    get: (name, key) => step("read", () => serving(name)?.states.get(key)),
    list: (name, { after, limit, prefix = "" }) =>
      step("read", () => {
        const kept = serving(name)
        if (kept === undefined) return []
        const keys = kept.sorted ??= [...kept.states.keys()].toSorted((a, b) => a < b ? -1 : a > b ? 1 : 0)
        const rows: Array<StateRow> = []
        for (let at = indexOf(keys, after === undefined || after < prefix ? prefix : after); at < keys.length && rows.length < limit; at++) {
          const row = kept.states.get(keys[at] ?? "")
          if (row === undefined || row.key === after) continue
          if (!row.key.startsWith(prefix)) break
          rows.push(row)
        }
        return rows
      }),
    // What is dropped is gone at once.
    sweep: () => step("delete", () => false),
    forget: () => {
      sets.clear()
      last = 0
      return true
    }
  }
}

// --------------------------------------------------------------------------------------------------------------- file

type Columns = Record<string, SQLOutputValue>

const setOf = (row: Columns): ModelSet => ({
  set: Number(row["model"]),
  name: String(row["name"]),
  fingerprint: String(row["fingerprint"]),
  // Only this module writes the column.
  role: row["role"] as ModelSet["role"],
  position: Number(row["position"])
})

const stateOf = (row: Columns): StateRow => ({
  key: fromSortable(String(row["key"])),
  state: String(row["state"]),
  position: Number(row["position"])
})

const statements = (db: DatabaseSync) => ({
  every: db.prepare("SELECT * FROM read_models WHERE role <> 'dropped' ORDER BY name, model"),
  named: db.prepare("SELECT * FROM read_models WHERE name = ? AND role <> 'dropped' ORDER BY model"),
  add: db.prepare("INSERT INTO read_models VALUES (NULL, ?, ?, ?, 0)"),
  turn: db.prepare("UPDATE read_models SET role = ? WHERE model = ?"),
  one: db.prepare("SELECT * FROM read_models WHERE model = ? AND role <> 'dropped'"),
  move: db.prepare("UPDATE read_models SET position = ? WHERE model = ?"),
  put: db.prepare("INSERT OR REPLACE INTO read_model_states VALUES (?, ?, ?, ?)"),
  erase: db.prepare("DELETE FROM read_model_states WHERE model = ? AND key = ?"),
  state: db.prepare("SELECT state FROM read_model_states WHERE model = ? AND key = ?"),
  asked: db.prepare(`SELECT s.* FROM read_models m JOIN read_model_states s ON s.model = m.model AND s.key = ?2
    WHERE m.name = ?1 AND m.role = 'serving'`),
  page: db.prepare(`SELECT * FROM read_model_states
    WHERE model = (SELECT model FROM read_models WHERE name = ?1 AND role = 'serving') AND key >= max(?2, ?3) AND key <> ?3
    ORDER BY key LIMIT ?4`),
  first: db.prepare("SELECT * FROM read_model_states WHERE model = (SELECT model FROM read_models WHERE name = ?1 AND role = 'serving') AND key >= ?2 ORDER BY key LIMIT ?3"),
  dropped: db.prepare("SELECT model FROM read_models WHERE role = 'dropped' ORDER BY model LIMIT 1"),
  clear: db.prepare("DELETE FROM read_model_states WHERE model = ?1 AND key IN (SELECT key FROM read_model_states WHERE model = ?1 ORDER BY key LIMIT ?2)"),
  remove: db.prepare("DELETE FROM read_models WHERE model = ?")
})

/** Writes a batch into the tables. */
const makeCommit = (sql: ReturnType<typeof statements>, named: (name: string) => ReadonlyArray<ModelSet>) =>
  ({ from, position, rows, set, takeOver = false }: Batch): boolean => {
    const row = sql.one.get(set)
    if (row === undefined) return movedOn()
    const { name, position: at, role } = setOf(row)
    if (at !== from) return movedOn()
    for (const { key, position, state } of rows) {
      if (state === undefined) sql.erase.run(set, toSortable(key))
      else sql.put.run(set, toSortable(key), state, position)
    }
    if (position !== from) sql.move.run(position, set)
    if (!takeOver || role === "serving") return role === "serving"
    const other = named(name).find(({ role }) => role === "serving")
    if (other !== undefined && other.position > position) return false
    if (other !== undefined) sql.turn.run("dropped", other.set)
    sql.turn.run("serving", set)
    return true
  }

/** Read models in the store's file. Written behind: what a power failure takes back is folded again. */
export const makeTable = ({ db, transactionBehind }: StoreFile.StoreFile["Service"]): ModelRows => {
  const sql = statements(db)
  const step = <A>(operation: string, f: () => A) => StoreFile.attempt(`${operation} read models`, f)
  const named = (name: string) => sql.named.all(name).map(setOf)
  const commit = makeCommit(sql, named)
  // What is removed is overwritten, as the facts were that it came from.
  const apart = (batch: Batch): boolean => {
    const erases = batch.rows.some(({ state }) => state === undefined)
    return erases ? securely(db, () => transactionBehind(() => commit(batch))) : transactionBehind(() => commit(batch))
  }
  return {
    sets: (name) => step("list", () => name === undefined ? sql.every.all().map(setOf) : named(name)),
    open: (name, fingerprint, rebuild) =>
      step("open", () =>
        transactionBehind(() => {
          const { drop, make } = plan(named(name), fingerprint, rebuild)
          if (drop !== undefined) sql.turn.run("dropped", drop.set)
          if (make !== undefined) sql.add.run(name, fingerprint, make)
          return named(name)
        })),
    load: (set, keys) =>
      step("read", () =>
        new Map(keys.flatMap((key) => {
          const row = sql.state.get(set, toSortable(key))
          return row === undefined ? [] : [[key, String(row["state"])]]
        }))),
    commit: (batch) => step("write", () => apart(batch)),
    now: {
      state: (set, key) => {
        const row = sql.state.get(set, toSortable(key))
        return row === undefined ? undefined : String(row["state"])
      },
      write: commit,
      commit: apart
    },
    get: (name, key) =>
      step("read", () => {
        const row = sql.asked.get(name, toSortable(key))
        return row === undefined ? undefined : stateOf(row)
      }),
    list: (name, { after, limit, prefix = "" }) =>
      step("read", () => {
        const from = toSortable(prefix)
        const rows = after === undefined ? sql.first.iterate(name, from, limit) : sql.page.iterate(name, from, toSortable(after), limit)
        const found: Array<StateRow> = []
        for (const row of rows) {
          const state = stateOf(row)
          if (!state.key.startsWith(prefix)) break
          found.push(state)
        }
        return found
      }),
    sweep: (limit) =>
      step("delete", () => {
        const row = sql.dropped.get()
        if (row === undefined) return false
        const set = Number(row["model"])
        transactionBehind(() => {
          if (Number(sql.clear.run(set, limit).changes) < limit) sql.remove.run(set)
        })
        return true
      })
  }
}
