import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Maintenance from "../../src/plugins/Maintenance.ts"
import * as Store from "../../src/plugins/Store.ts"
import { Ksi } from "../../src/Ksi.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import { ask, reasonOf, withRuntime } from "./Builtins.ts"

describe("store:backup, store:verify, store:compact", () => {
  it.live("work on the store that is open", () => {
    const path = Fs.mkdtempSync(join(tmpdir(), "ksi-maintenance-"))
    const file = join(path, "a.db")
    return Effect.gen(function*() {
      const store = yield* EventStore
      yield* store.appendTo("a", [{ name: "a:b" }, { name: "a:c" }])
      const copy = join(path, "copy.db")
      expect(yield* ask("store:backup", { file: copy })).toMatchObject({ file: copy, position: 2 })
      expect(yield* reasonOf(ask("store:backup", { file: copy }))).toMatchObject({
        _tag: "PayloadInvalid", problems: [{ path: "file", problem: expect.stringContaining("exists already") }]
      })
      expect(yield* ask("store:backup", { file: copy, force: true })).toMatchObject({ position: 2 })
      for (const other of ["copy2.db", "./a", file]) {
        expect(yield* reasonOf(ask("store:backup", { file: other, force: true }))).toMatchObject({ _tag: "PayloadInvalid" })
      }
      expect(yield* ask("store:verify")).toMatchObject({ file, format: 3, position: 2, problems: [] })
      const quick = yield* ask("store:verify", { quick: true })
      expect(quick["checks"]).toMatchObject([{ check: "header" }, { check: "pages" }, { check: "layout" }, { check: "head" }])
      expect(yield* ask("store:compact")).toMatchObject({ bytesFree: 0 })
      expect(yield* ask("store:streams")).toEqual({ items: [{ streamId: "a", version: 2 }] })
    }).pipe(
      Effect.provide(Layer.mergeAll(Maintenance.layer, Store.layer).pipe(Layer.provideMerge(Ksi.layerSqlite({ filename: file })))),
      Effect.ensuring(Effect.sync(() => Fs.rmSync(path, { recursive: true })))
    )
  })

  it.effect("say what a store in memory cannot do", () =>
    withRuntime(Effect.gen(function*() {
      expect(yield* reasonOf(ask("store:backup", { file: "/b" }))).toMatchObject({ _tag: "StoreFailure", operation: "back up" })
      expect(yield* reasonOf(ask("store:verify"))).toMatchObject({ _tag: "StoreFailure", operation: "verify" })
      expect(yield* ask("store:compact")).toMatchObject({ bytesBefore: 0, bytesAfter: 0, bytesFree: 0 })
    })))
})
