// The event store on real SQLite files: the conformance suite, and what only a file can do.
import { afterAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import * as EventStoreSuite from "../../src/testing/EventStoreSuite.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-sqlite-"))
afterAll(() => Fs.rmSync(folder, { recursive: true }))
let files = 0
const fresh = () => Path.join(folder, `${++files}.db`)

describe("keeps the promises of every event store", () => {
  for (const { name, run } of EventStoreSuite.cases) {
    it.effect(name, () => run.pipe(Effect.provide(SqliteEventStore.layer({ filename: fresh(), sync: "normal" }))))
  }
})
describe("keeps them while events move into the stream index", () => {
  for (const { name, run } of EventStoreSuite.cases) {
    it.effect(name, () =>
      run.pipe(Effect.provide(SqliteEventStore.layer({ filename: fresh(), sync: "normal", indexThreshold: 3 }))))
  }
})
