/**
 * Where the events of a stream are: an index on disk for the old ones, two tails in memory for the new ones.
 *
 * The rule: what is on disk is a prefix. New events go to `tail`. When that has `threshold` events it becomes `moving`,
 * which is written to `stream_index` in the order of the index, a slice with each append's transaction; `meta.through`
 * follows with the last slice. Opening a store reads only the events after `through` back into the tail.
 *
 * **Gotchas** `push` and `advance` happen inside a transaction that may fail: then `pop` what was pushed, newest first.
 * A slice that went with it is written again, for only `committed` says that it was written.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite"
import { BoundedMap } from "./BoundedMap.ts"
import type { Removals } from "./Removals.ts"
import { StreamTail } from "./StreamTail.ts"

const cachedHeads = 32_768
const sliceEvents = 1024
const rowsPerStatement = 64

/** The versions of a stream that are wanted, in order. */
interface Range {
  readonly stream: number
  readonly from: number
  readonly to: number
  readonly limit: number
  readonly backward: boolean
}

/** The stream index of an open store. */
export class StreamIndex {
  private readonly db: DatabaseSync
  private readonly removals: Removals
  private readonly threshold: number
  private readonly heads = new BoundedMap<number, number>(cachedHeads)
  private readonly maxVersion: StatementSync
  private readonly forward: StatementSync
  private readonly reverse: StatementSync
  private readonly insert: StatementSync
  private readonly insertMany: StatementSync
  private readonly setThrough: StatementSync
  private tail = new StreamTail()
  private moving: StreamTail | undefined
  private sorted: ReadonlyArray<number> = []
  private written = 0
  private staged = 0
  private target = 0

  constructor(db: DatabaseSync, removals: Removals, threshold: number) {
    this.db = db
    this.removals = removals
    this.threshold = threshold
    this.maxVersion = db.prepare("SELECT max(version) AS version FROM stream_index WHERE stream = ?")
    const select = "SELECT position FROM stream_index WHERE stream = ? AND version BETWEEN ? AND ? ORDER BY version"
    this.forward = db.prepare(`${select} LIMIT ?`)
    this.reverse = db.prepare(`${select} DESC LIMIT ?`)
    const into = "INSERT OR IGNORE INTO stream_index VALUES"
    this.insert = db.prepare(`${into} (?, ?, ?)`)
    this.insertMany = db.prepare(`${into} ${Array.from({ length: rowsPerStatement }, () => "(?, ?, ?)").join(", ")}`)
    this.setThrough = db.prepare("UPDATE meta SET through = ?")
  }

  /** Reads what is not on disk yet back into memory. */
  load(): void {
    this.heads.clear()
    this.tail = new StreamTail()
    this.moving = undefined
    this.staged = 0
    const rows = this.db.prepare(
      "SELECT stream, version, position FROM events WHERE position > (SELECT through FROM meta) ORDER BY position"
    )
    for (const { stream, version, position } of rows.iterate()) {
      this.tail.push(Number(stream), Number(version), Number(position))
    }
  }

  /** The last version of a stream, also where that fact was removed; 0 where it never had one. */
  version(stream: number): number {
    const known = this.heads.get(stream)
    if (known !== undefined) return known
    const version = this.tail.last(stream) ?? this.moving?.last(stream) ??
      Number(this.maxVersion.get(stream)?.["version"] ?? this.removals.first(stream) - 1)
    this.heads.set(stream, version)
    return version
  }

  /** Adds the next event of a stream. */
  push(stream: number, version: number, position: number): void {
    this.tail.push(stream, version, position)
    this.heads.set(stream, version)
  }

  /** Takes the last event of a stream back. */
  pop(stream: number): void {
    this.tail.pop(stream)
    this.heads.delete(stream)
  }

  /** Writes the next slice, in the transaction of `events` appended ones: always more than came in. */
  advance(events: number): void {
    this.staged = 0
    if (this.moving === undefined) return
    const { sorted } = this
    const end = Math.min(sorted.length, this.written + 3 * Math.max(sliceEvents, 2 * events))
    const step = 3 * rowsPerStatement
    let at = this.written
    for (; at + step <= end; at += step) this.insertMany.run(...sorted.slice(at, at + step))
    for (; at < end; at += 3) this.insert.run(...sorted.slice(at, at + 3))
    if (end === sorted.length) this.setThrough.run(this.target)
    this.staged = end
  }

  /** The transaction was committed; `head` is the last position. */
  committed(head: number): void {
    if (this.staged > 0) this.written = this.staged
    if (this.moving !== undefined && this.written === this.sorted.length) this.moving = undefined
    if (this.moving === undefined && this.tail.count >= this.threshold) {
      this.moving = this.tail
      this.tail = new StreamTail()
      this.sorted = this.moving.sorted()
      this.written = 0
      this.target = head
    } else if (this.moving === undefined) this.sorted = []
    this.staged = 0
  }

  /** The first version that is in memory; those before it are all on disk. */
  firstRecent(stream: number): number {
    return this.moving?.first(stream) ?? this.tail.first(stream) ?? Infinity
  }

  /** Positions of versions, in the order asked for. */
  positions(range: Range): ReadonlyArray<number> {
    const { backward, stream } = range
    const to = Math.min(range.to, this.version(stream))
    const from = Math.max(range.from, this.removals.first(stream))
    if (from > to || range.limit < 1) return []
    const count = Math.min(range.limit, to - from + 1)
    const low = backward ? to - count + 1 : from
    const high = low + count - 1
    const recentFrom = this.firstRecent(stream)
    const memory = Math.min(high + 1, Math.max(low, recentFrom))
    const old: Array<number> = []
    if (memory > low) {
      const rows = (backward ? this.reverse : this.forward).all(stream, low, memory - 1, count)
      for (const row of rows) old.push(Number(row["position"]))
    }
    const recent: Array<number> = []
    for (let version = memory; version <= high; version++) {
      const position = this.tail.position(stream, version) ?? this.moving?.position(stream, version)
      if (position !== undefined) recent.push(position)
    }
    return backward ? [...recent.toReversed(), ...old] : [...old, ...recent]
  }
}
