// A process that appends as fast as it can and says what was acknowledged, until somebody kills it.
import { Effect } from "effect"
import { writeSync } from "node:fs"
import { EventStore } from "../../../src/store/EventStore.ts"
import * as SqliteEventStore from "../../../src/store/SqliteEventStore.ts"

const [, , filename = "", run = ""] = process.argv
const caller = (store: EventStore["Service"], c: number) =>
  Effect.gen(function*() {
    for (let n = 0;; n++) {
      const id = `${run}-${c}-${n}`
      const [outcome] = yield* store.appendTo(`stream-${(c * 7 + n) % 50}`, [{ name: "a:b", id, data: { run, c, n } }])
      writeSync(1, `${id} ${outcome?.position} ${outcome?.version}\n`)
    }
  })

await Effect.runPromise(Effect.provide(
  Effect.gen(function*() {
    const store = yield* EventStore
    writeSync(1, "open\n")
    yield* Effect.forEach(Array.from({ length: 32 }, (_, c) => c), (c) => caller(store, c), { concurrency: "unbounded" })
  }),
  SqliteEventStore.layer({ filename, indexThreshold: 200 })
))
