// Takes facts out of a file: by what is set for their streams, or with the whole stream. Each change is one transaction.
import type { DatabaseSync, StatementSync } from "node:sqlite"
import type { Outcome } from "../../bus/Journal.ts"
import type { NewFact } from "../../event/CloudEvent.ts"
import * as Json from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import * as StreamSettings from "../StreamSettings.ts"
import type { Driver, Retained, StreamDetails } from "./Driver.ts"
import type { FactReader } from "./FactReader.ts"
import { encode, type FactWriter, type Written } from "./FactWriter.ts"
import { fromSortable, toSortable } from "./sortable.ts"

/** Removes facts of an open store. */
export class Retention {
  private readonly reader: FactReader
  private readonly writer: FactWriter
  private readonly select: StatementSync
  private readonly next: StatementSync
  private readonly put: StatementSync
  private readonly remove: StatementSync
  private readonly recorded: StatementSync

  constructor(db: DatabaseSync, reader: FactReader, writer: FactWriter) {
    this.reader = reader
    this.writer = writer
    this.select = db.prepare("SELECT settings FROM stream_settings WHERE stream = ?")
    this.next = db.prepare("SELECT stream, settings FROM stream_settings WHERE stream >= ? ORDER BY stream LIMIT ?")
    this.put = db.prepare("INSERT OR REPLACE INTO stream_settings VALUES (?, ?)")
    this.remove = db.prepare("DELETE FROM stream_settings WHERE stream = ?")
    this.recorded = db.prepare("SELECT recorded FROM events WHERE position = ?")
  }

  details(streamId: string): StreamDetails | undefined {
    const text = this.select.get(toSortable(streamId))?.["settings"]
    const stream = this.reader.streams.find(streamId)
    if (stream === undefined && text === undefined) return undefined
    const version = stream === undefined ? 0 : this.writer.index.version(stream)
    const first = stream === undefined ? 1 : this.reader.removals.first(stream)
    const isDeleted = stream !== undefined && this.reader.removals.isDeleted(stream)
    return { streamId, version, first, count: version - first + 1, isDeleted, settings: settingsOf(text) }
  }

  configure(streamId: string, settings: StreamSettings.StreamSettings): void {
    this.writer.change(() => {
      const stream = this.reader.streams.find(streamId)
      if (stream !== undefined && this.reader.removals.isDeleted(stream)) throw deleted(streamId)
      if (StreamSettings.isNone(settings)) this.remove.run(toSortable(streamId))
      else this.put.run(toSortable(streamId), JSON.stringify(settings))
    })
  }

  /** One turn of retention: looks at so many streams, and removes so many facts. */
  apply({ facts, from, streams }: Parameters<Driver["applyRetention"]>[0], now: number): Retained {
    const rows = this.next.all(toSortable(from), streams + 1)
    const after = rows.length > streams ? fromSortable(String(rows.at(-1)?.["stream"])) : undefined
    let removed = 0
    return this.reader.removals.securely(() =>
      this.writer.change(() => {
        for (const { settings, stream } of rows.slice(0, streams)) {
          const streamId = fromSortable(String(stream))
          const { isOver, gone } = this.applyTo(streamId, settingsOf(settings), now, facts - removed)
          removed += gone
          if (!isOver) return { facts: removed, next: streamId }
        }
        return { facts: removed, next: after }
      }))
  }

  /** Appends the tombstone and removes everything before it. */
  deleteStream(tombstone: NewFact, expectedVersion: number | undefined, now: number): {
    readonly facts: ReadonlyArray<Written>
    readonly outcome: Outcome
  } {
    const encoded = encode({ facts: [tombstone], expectedVersion })
    if (KsiError.is(encoded)) throw encoded
    const { answers, facts } = this.reader.removals.securely(() =>
      this.writer.commit([encoded], now, ([answer]) => {
        if (KsiError.is(answer)) throw answer
        const [outcome] = answer ?? []
        const stream = this.reader.streams.find(tombstone.streamId)
        if (outcome?.kind !== "appended" || stream === undefined) throw wasThere(tombstone, outcome?.position ?? 0)
        this.cut(tombstone.streamId, stream, outcome.version, true)
        this.remove.run(toSortable(tombstone.streamId))
      }))
    const [answer] = answers
    const outcome = KsiError.is(answer) ? undefined : answer?.[0]
    // A refusal was thrown inside.
    if (outcome === undefined) throw new Error(`the tombstone of "${tombstone.streamId}" was not written`)
    return { facts, outcome }
  }

  private applyTo(streamId: string, settings: StreamSettings.StreamSettings, now: number, budget: number) {
    const stream = this.reader.streams.find(streamId)
    if (stream === undefined) return { isOver: true, gone: 0 }
    const first = this.reader.removals.first(stream)
    const last = this.writer.index.version(stream)
    const kept = StreamSettings.firstKept(settings, {
      first, last, now,
      recordedAt: (version) => Number(this.recorded.get(this.position(stream, version))?.["recorded"])
    })
    const cut = Math.min(kept, first + budget)
    if (cut > first) this.cut(streamId, stream, cut, false)
    return { isOver: cut === kept, gone: cut - first }
  }

  private cut(streamId: string, stream: number, first: number, isDeleted: boolean): void {
    const { index } = this.writer
    const { removals } = this.reader
    const positions = index.positions({ stream, from: 1, to: first - 1, limit: Number.MAX_SAFE_INTEGER, backward: false })
    removals.remove(stream, positions, { first, isDeleted }, this.writer.end())
    if (positions.length > 0) for (const hook of removals.hooks) hook({ streamId, positions })
  }

  private position(stream: number, version: number): number {
    return this.writer.index.positions({ stream, from: version, to: version, limit: 1, backward: false })[0] ?? 0
  }
}

// Only this writes the column.
const settingsOf = (text: unknown) => (typeof text === "string" ? Json.parse(text) : StreamSettings.none) as StreamSettings.StreamSettings

const deleted = (streamId: string) => KsiError.make(new KsiError.StreamDeleted({ streamId }))

const wasThere = ({ id, source }: NewFact, position: number) => KsiError.make(new KsiError.IdConflict({ source, id, position }))
