/**
 * Opening a store of a million facts: until the first fact can be appended and the last one read.
 *
 * `bare` is node:sqlite alone on the same file: it opens it, asks for the last position and reads its row.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { DatabaseSync } from "node:sqlite"
import { EventStore } from "../../src/store/EventStore.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import { fixture } from "./append.ts"
import type { Bench, Gauge } from "./Bench.ts"

const facts = 1_000_000

const own = (filename: string): Gauge => ({
  name: "ksi",
  run: async () => {
    const scope = Scope.makeUnsafe()
    const start = performance.now()
    const context = await Effect.runPromise(Layer.buildWithScope(SqliteEventStore.layer({ filename }), scope))
    const store = Context.get(context, EventStore)
    const [last] = await Effect.runPromise(store.read({ from: store.head(), limit: 1 }))
    const took = performance.now() - start
    await Effect.runPromise(Scope.close(scope, Exit.void))
    if (last === undefined || last.position < facts) throw new Error("the store has not all of it")
    return took
  }
})

const bare = (filename: string): Gauge => ({
  name: "bare",
  run: () => {
    const start = performance.now()
    const db = new DatabaseSync(filename)
    const row = db.prepare("SELECT * FROM events WHERE position = (SELECT max(position) FROM events)").get()
    const took = performance.now() - start
    db.close()
    if (row === undefined) throw new Error("there is no row")
    return took
  }
})

/** All cases. */
export const run = async (bench: Bench): Promise<void> => {
  const filename = await fixture(bench, "ksi", facts)
  const subjects: readonly [Gauge, Gauge] = [own(filename), bare(filename)]
  await bench.measure({ case: "open-1m", metric: "opening a store of a million facts", unit: "ms", subjects })
}
