/**
 * Reading everything from the start, and one stream of 10,000 events, decoded, in pages of 1000.
 *
 * `bare` is node:sqlite alone on the same file: a page of rows, JSON.parse of their data, nothing else; for the stream it
 * joins the stream index. It neither looks up names nor bounds the bytes of a page.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import { EventStore } from "../../src/store/EventStore.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import type { Amount, Bench, Subject } from "./Bench.ts"
import { dataOf } from "./Orders.ts"

const events = 200_000
const streams = 20
const pageItems = 1000

const fill = (store: EventStore["Service"]) =>
  Effect.gen(function*() {
    for (let at = 0; at < events; at += pageItems) {
      const facts = Array.from({ length: pageItems }, (_, i) => ({
        id: `id-${String(at + i).padStart(9, "0")}`,
        source: "/bench",
        name: `order:event-${i % 5}`,
        streamId: `stream-${i % streams}`,
        data: dataOf(at + i),
        time: "2026-01-01T00:00:00.000Z",
        attributes: { correlationid: `correlation-${at + i}` }
      }))
      yield* store.append({ facts })
    }
  })

/** Repeats until the time is up. */
const repeat = async (millis: number, once: () => Promise<number> | number): Promise<Amount> => {
  const start = performance.now()
  let count = 0
  while (performance.now() - start < millis) count += await once()
  return { count, millis: performance.now() - start }
}

interface Row {
  readonly data: string
}

const bare = (db: DatabaseSync, sql: string, last: number): Subject => {
  const page = db.prepare(sql)
  return {
    name: "bare",
    run: (millis) =>
      repeat(millis, () => {
        let seen = 0
        for (let from = 1; from <= last; from += pageItems) {
          // The statement selects data.
          for (const row of page.all(from, Math.min(last, from + pageItems - 1)) as unknown as ReadonlyArray<Row>) {
            if (JSON.parse(row.data) !== undefined) seen++
          }
        }
        return seen
      })
  }
}

const own = (read: Stream.Stream<unknown, unknown>): Subject => ({
  name: "ksi",
  run: (millis) => repeat(millis, () => Effect.runPromise(Stream.runCount(read)))
})

/** All cases. */
export const run = (bench: Bench): Promise<void> => {
  const filename = Path.join(bench.folder, "read.db")
  return Effect.runPromise(Effect.provide(
    Effect.gen(function*() {
      const store = yield* EventStore
      yield* fill(store)
      const db = new DatabaseSync(filename, { readOnly: true })
      yield* Effect.promise(async () => {
        const all = "SELECT * FROM events WHERE position BETWEEN ? AND ?"
        const unit = "events/s"
        const catchUp: readonly [Subject, Subject] = [own(store.all()), bare(db, all, events)]
        await bench.compare({ case: "catch-up", metric: "events read and parsed", unit, subjects: catchUp })
        const joined = `SELECT e.* FROM stream_index i JOIN events e ON e.position = i.position
          WHERE i.stream = 1 AND i.version BETWEEN ? AND ? ORDER BY i.version`
        // The newest are still in memory: so as far as the index goes.
        const [indexed] = Object.values(db.prepare("SELECT max(version) FROM stream_index WHERE stream = 1").get() ?? {})
        const last = Math.min(Number(indexed), events / streams)
        const stream: readonly [Subject, Subject] = [own(store.stream("stream-0", { to: last })), bare(db, joined, last)]
        await bench.compare({ case: "stream-10k", metric: "events of one stream", unit, subjects: stream })
      })
      db.close()
    }),
    SqliteEventStore.layer({ filename, sync: "normal" })
  ))
}
