// Snapshots in the file of their facts, written without a sync of their own: what a power failure takes is folded again.
import type { DatabaseSync, SQLOutputValue } from "node:sqlite"
import * as Snapshots from "../Snapshots.ts"
import { BoundedMap } from "./BoundedMap.ts"
import { toSortable } from "./sortable.ts"
import * as StoreFile from "./StoreFile.ts"

type Chain = Snapshots.Chain
type Point = Snapshots.Point

const cachedChains = 4096
/** Chains of outdated code that go with each write, so that no write is long. */
const staleChains = 64

const flag = (value: SQLOutputValue | undefined): boolean => value === 1

const pointOf = (row: Record<string, SQLOutputValue> | undefined): Point | undefined =>
  row === undefined ? undefined : {
    position: Number(row["position"]),
    through: Number(row["through"]),
    previous: Number(row["previous"]),
    newest: Number(row["newest"]),
    oldest: Number(row["oldest"]),
    late: flag(row["late"]),
    chunks: Number(row["chunks"]),
    written: Number(row["written"])
  }

const bodyOf = (body: SQLOutputValue | undefined): Snapshots.Body | undefined =>
  typeof body === "string" || body instanceof Uint8Array ? body : undefined

// Of a chain whose code is outdated, or gone.
const deadChains = `SELECT c.chain FROM snapshot_chains c LEFT JOIN snapshot_fingerprints f ON f.id = c.fingerprint
  WHERE f.id IS NULL OR f.stale = 1`

/**
 * Remove what belongs to nothing, so many rows each: states, points, chains, code. In this order: what is asked meanwhile is
 * found incomplete, and folded; and no new chain gets the number of one that has rows left.
 */
export const outdated: ReadonlyArray<string> = [
  `DELETE FROM snapshots WHERE rowid IN (SELECT s.rowid FROM snapshots s
    LEFT JOIN snapshot_points p ON p.chain = s.chain AND p.position = s.position LEFT JOIN snapshot_chains c ON c.chain = s.chain
    WHERE p.chain IS NULL OR c.chain IS NULL OR s.chain IN (${deadChains}) LIMIT ?)`,
  `DELETE FROM snapshot_points WHERE (chain, position) IN (SELECT p.chain, p.position FROM snapshot_points p
    LEFT JOIN snapshot_chains c ON c.chain = p.chain WHERE c.chain IS NULL OR p.chain IN (${deadChains}) LIMIT ?)`,
  `DELETE FROM snapshot_chains WHERE chain IN (${deadChains} LIMIT ?)`,
  "DELETE FROM snapshot_fingerprints WHERE id IN (SELECT id FROM snapshot_fingerprints WHERE stale = 1 LIMIT ?)"
]

const statements = (db: DatabaseSync) => ({
  chain: db.prepare(`SELECT c.chain FROM snapshot_fingerprints f JOIN snapshot_chains c ON c.fingerprint = f.id
    WHERE f.projection = ? AND f.fingerprint = ? AND c.subject = ? AND f.stale = 0`),
  fingerprint: db.prepare("SELECT id, stale FROM snapshot_fingerprints WHERE projection = ? AND fingerprint = ?"),
  addFingerprint: db.prepare("INSERT INTO snapshot_fingerprints VALUES (NULL, ?, ?, 0)"),
  revive: db.prepare("UPDATE snapshot_fingerprints SET stale = 0 WHERE id = ?"),
  age: db.prepare(`UPDATE snapshot_fingerprints SET stale = 1 WHERE projection = ?1 AND id <> ?2 AND id NOT IN
    (SELECT id FROM snapshot_fingerprints WHERE projection = ?1 AND stale = 0 AND id <> ?2 ORDER BY id DESC LIMIT ?3)`),
  stale: db.prepare("SELECT id FROM snapshot_fingerprints WHERE stale = 1 LIMIT 1"),
  removeFingerprint: db.prepare("DELETE FROM snapshot_fingerprints WHERE id = ?"),
  addChain: db.prepare("INSERT INTO snapshot_chains VALUES (NULL, ?, ?)"),
  chainsOf: db.prepare("SELECT chain FROM snapshot_chains WHERE fingerprint = ? LIMIT ?"),
  chainsAbout: db.prepare("SELECT chain FROM snapshot_chains WHERE subject = ?"),
  removeChain: db.prepare("DELETE FROM snapshot_chains WHERE chain = ?"),
  cutPoints: db.prepare("DELETE FROM snapshot_points WHERE chain = ? AND position >= ?"),
  cutChunks: db.prepare("DELETE FROM snapshots WHERE chain = ? AND position >= ?"),
  newest: db.prepare("SELECT * FROM snapshot_points WHERE chain = ? ORDER BY position DESC LIMIT 1"),
  before: db.prepare("SELECT * FROM snapshot_points WHERE chain = ? AND position <= ? ORDER BY position DESC LIMIT 1"),
  after: db.prepare("SELECT * FROM snapshot_points WHERE chain = ? AND position > ? ORDER BY position LIMIT 1"),
  late: db.prepare(`SELECT * FROM snapshot_points WHERE chain = ? AND late = 1 AND position > ? AND position <= ? AND oldest <= ?
    ORDER BY position`),
  chunk: db.prepare("SELECT position, body FROM snapshots WHERE chain = ? AND chunk = ? AND position <= ? ORDER BY position DESC LIMIT 1"),
  addPoint: db.prepare("INSERT INTO snapshot_points VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"),
  addChunk: db.prepare("INSERT INTO snapshots VALUES (?, ?, ?, ?)")
})

/** The snapshots of an open store. */
class SnapshotTable {
  epoch = 0
  private readonly file: StoreFile.StoreFile["Service"]
  private readonly sql: ReturnType<typeof statements>
  private readonly chains = new BoundedMap<string, number>(cachedChains)
  /** Whether there may be snapshots of outdated code. */
  private someStale = true

  constructor(file: StoreFile.StoreFile["Service"]) {
    this.file = file
    this.sql = statements(file.db)
  }

  newest(chain: Chain): Point | undefined {
    const id = this.find(chain)
    return id === undefined ? undefined : pointOf(this.sql.newest.get(id))
  }

  before(chain: Chain, position: number, instant: number): Point | undefined {
    const id = this.find(chain)
    if (id === undefined) return undefined
    const last = pointOf(this.sql.before.get(id, position))
    if (last === undefined || last.newest <= instant) return last
    // The newest time never falls along a chain: so halves of the positions are tried, the lower one where it is too new.
    let found: Point | undefined
    let high = last.position - 1
    for (let low = 1; low <= high;) {
      const middle = Math.floor((low + high) / 2)
      const point = pointOf(this.sql.before.get(id, middle))
      if (point !== undefined && point.newest > instant) high = point.position - 1
      else {
        found = point ?? found
        low = middle + 1
      }
    }
    return found
  }

  after(chain: Chain, position: number): Point | undefined {
    const id = this.find(chain)
    return id === undefined ? undefined : pointOf(this.sql.after.get(id, position))
  }

  late(chain: Chain, from: number, to: number, instant: number): ReadonlyArray<Point> {
    const id = this.find(chain)
    return id === undefined ? [] : this.sql.late.all(id, from, to, instant).flatMap((row) => pointOf(row) ?? [])
  }

  chunks(chain: Chain, { chunks, position }: Point, first: number, limit: number): ReadonlyArray<Snapshots.Chunk> {
    const id = this.find(chain)
    if (id === undefined) return []
    const found: Array<Snapshots.Chunk> = []
    for (let chunk = first; chunk < chunks && found.length < limit; chunk++) {
      const row = this.sql.chunk.get(id, chunk, position)
      const body = bodyOf(row?.["body"])
      if (body === undefined) break
      found.push({ position: Number(row?.["position"]), body })
    }
    return found
  }

  write({ bodies, chain, epoch, last, point }: Parameters<Snapshots.Snapshots["write"]>[0]): boolean {
    if (epoch !== this.epoch) return false
    try {
      return this.file.transactionBehind(() => {
        if ((this.newest(chain)?.position ?? 0) !== last) return false
        const { chunks, late, newest, oldest, position, previous, through, written } = point
        const id = this.find(chain) ?? this.add(chain)
        this.sql.addPoint.run(id, position, through, previous, newest, oldest, late ? 1 : 0, chunks, written)
        for (const [chunk, body] of bodies) this.sql.addChunk.run(id, chunk, position, body)
        this.sweep()
        return true
      })
    } catch (cause) {
      // A chain that was new is none.
      this.chains.clear()
      throw cause
    }
  }

  drop(chain: Chain): void {
    const id = this.find(chain)
    if (id !== undefined) this.file.transactionBehind(() => this.remove(id))
    this.chains.clear()
  }

  /** Within the transaction of whoever takes the facts away. */
  forget(streamId: string, fromPosition: number): void {
    this.epoch++
    for (const subject of [Snapshots.ofAll, Snapshots.ofEverything, Snapshots.ofStream(streamId)]) {
      for (const { chain } of this.sql.chainsAbout.all(toSortable(subject))) this.cut(Number(chain), fromPosition)
    }
  }

  private find(chain: Chain): number | undefined {
    const key = `${chain.fingerprint} ${chain.projection} ${chain.subject}`
    const known = this.chains.get(key)
    if (known !== undefined) return known
    const id = this.sql.chain.get(toSortable(chain.projection), chain.fingerprint, toSortable(chain.subject))?.["chain"]
    if (typeof id !== "number") return undefined
    this.chains.set(key, id)
    return id
  }

  private add({ fingerprint, projection, subject }: Chain): number {
    const { addChain, addFingerprint, age, revive } = this.sql
    const name = toSortable(projection)
    const known = this.sql.fingerprint.get(name, fingerprint)
    const by = Number(known?.["id"] ?? addFingerprint.run(name, fingerprint).lastInsertRowid)
    if (flag(known?.["stale"])) revive.run(by)
    // Numbers are given out again: chains that are of this one already are of code that somebody removed by hand.
    if (known === undefined) for (const { chain } of this.sql.chainsOf.all(by, -1)) this.remove(Number(chain))
    if (known === undefined && Number(age.run(name, by, Snapshots.keptFingerprints - 1).changes) > 0) {
      this.someStale = true
      this.chains.clear()
    }
    return Number(addChain.run(by, toSortable(subject)).lastInsertRowid)
  }

  /** Removes some of what outdated code has left. */
  private sweep(): void {
    if (!this.someStale) return
    const stale = this.sql.stale.get()?.["id"]
    if (typeof stale !== "number") {
      this.someStale = false
      return
    }
    const chains = this.sql.chainsOf.all(stale, staleChains)
    for (const { chain } of chains) this.remove(Number(chain))
    if (chains.length < staleChains) this.sql.removeFingerprint.run(stale)
    this.chains.clear()
  }

  private remove(chain: number): void {
    this.cut(chain, 0)
    this.sql.removeChain.run(chain)
  }

  private cut(chain: number, from: number): void {
    this.sql.cutPoints.run(chain, from)
    this.sql.cutChunks.run(chain, from)
  }
}

/** The snapshots of a file. */
export const make = (file: StoreFile.StoreFile["Service"]): Snapshots.Snapshots => {
  // Made when somebody asks: most runtimes never do, and opening a store stays quick.
  let made: SnapshotTable | undefined
  const table = () => made ??= new SnapshotTable(file)
  const reading = <A>(f: () => A) => StoreFile.attempt("read snapshots", f)
  const writing = <A>(f: () => A) => StoreFile.attempt("write snapshots", f)
  return {
    epoch: () => made?.epoch ?? 0,
    newest: (chain) => reading(() => table().newest(chain)),
    before: (chain, position, instant) => reading(() => table().before(chain, position, instant)),
    after: (chain, position) => reading(() => table().after(chain, position)),
    late: (chain, from, to, instant) => reading(() => table().late(chain, from, to, instant)),
    chunks: (chain, point, first, limit) => reading(() => table().chunks(chain, point, first, limit)),
    write: (options) => writing(() => table().write(options)),
    drop: (chain) => writing(() => table().drop(chain)),
    forget: ({ fromPosition, streamId }) => table().forget(streamId, fromPosition)
  }
}
