/**
 * Emmett on SQLite, as it comes: the event store for TypeScript that is nearest to KSI's.
 *
 * Its driver `sqlite3` has to be compiled where it is installed; where that cannot be, Emmett is left out, and that is said.
 */
import type { EventStore } from "@event-driven-io/emmett"
import { spawnSync } from "node:child_process"
import type { Bench, Subject } from "./Bench.ts"
import { dataOf } from "./Orders.ts"

const streams = 1000

interface Order {
  readonly type: string
  readonly data: Record<string, unknown>
}

/** Its store over a file; `undefined` where its driver is not to be had. */
export const open = async (bench: Bench, fileName: string): Promise<EventStore | undefined> => {
  const load = () => import("@event-driven-io/emmett-sqlite")
  const module = await load().catch(() => {
    bench.say("bench: compiling sqlite3, which Emmett needs")
    spawnSync("npm", ["rebuild", "sqlite3", "--no-ignore-scripts"], { cwd: import.meta.dirname, stdio: "ignore" })
    return load().catch(() => undefined)
  })
  if (module === undefined) bench.say("            emmett is left out: its driver sqlite3 could not be compiled here")
  return module?.getSQLiteEventStore({ fileName, schema: { autoMigration: "CreateOrUpdate" } })
}

/** Makes a subject of one caller who appends so many facts at a time, each time to the next stream. */
export const appending = (store: EventStore, facts: number): Subject => {
  const versions = new Map<string, bigint>()
  let n = 0
  return {
    name: "emmett",
    run: async (millis) => {
      const start = performance.now()
      let count = 0
      while (performance.now() - start < millis) {
        const streamId = `stream-${n % streams}`
        const events: Array<Order> = Array.from({ length: facts }, (_, i) => ({ type: "order:placed", data: dataOf(n + i) }))
        n += facts
        const version = versions.get(streamId)
        const { nextExpectedStreamVersion } = await store.appendToStream(streamId, events, {
          expectedStreamVersion: version ?? "STREAM_DOES_NOT_EXIST"
        })
        versions.set(streamId, nextExpectedStreamVersion)
        count += facts
      }
      return { count, millis: performance.now() - start }
    }
  }
}

/** How many of so many appends at once, each to a stream of its own, fail. */
export const failingOf = async (store: EventStore, callers: number): Promise<number> => {
  const tried = await Promise.allSettled(Array.from({ length: callers }, (_, i) =>
    store.appendToStream(`together-${i}`, [{ type: "order:placed", data: dataOf(i) }])))
  return tried.filter(({ status }) => status === "rejected").length
}

/** Reads one stream again and again. */
export const reading = (store: EventStore, streamId: string): Subject => ({
  name: "emmett",
  run: async (millis) => {
    const start = performance.now()
    let count = 0
    while (performance.now() - start < millis) count += (await store.readStream(streamId)).events.length
    return { count, millis: performance.now() - start }
  }
})

/** One stream of so many facts. */
export const fill = async (store: EventStore, streamId: string, facts: number): Promise<void> => {
  for (let at = 0; at < facts; at += 1000) {
    await store.appendToStream(streamId, Array.from({ length: Math.min(1000, facts - at) }, (_, i) => ({
      type: `order:event-${i % 5}`,
      data: dataOf(at + i)
    })))
  }
}
