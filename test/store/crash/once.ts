// A process that carries out one request under a key, says what it was answered, and then waits to be killed.
import { Effect } from "effect"
import { writeSync } from "node:fs"
import { Idempotency } from "../../../src/bus/Idempotency.ts"
import * as SqliteEventStore from "../../../src/store/SqliteEventStore.ts"

const [, , filename = ""] = process.argv
await Effect.runPromise(Effect.provide(
  Effect.gen(function*() {
    const { once } = yield* Idempotency
    const key = { principal: "owner", event: "a:b", key: "k" }
    const answer = yield* once(key, { a: 1, b: 2 }, Effect.sync(() => `ran in ${process.pid}`))
    writeSync(1, `${answer}\n`)
    setInterval(() => {}, 1000)
    yield* Effect.never
  }),
  SqliteEventStore.layer({ filename })
))
