import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Layer } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as KsiError from "../../src/event/KsiError.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as Disk from "../../src/store/Disk.ts"
import { EventStore } from "../../src/store/EventStore.ts"

describe("Disk", () => {
  it.effect("opens every file of a store, its lock too, and decides what becomes of writes", () => Effect.gen(function*() {
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "ksi-disk-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true }))
    )
    const filename = join(folder, "a.db")
    const opened = new Set<string>()
    let isFull = false
    class Full extends DatabaseSync {
      override exec(sql: string): void {
        if (isFull && sql === "COMMIT") throw new Error("database or disk is full")
        super.exec(sql)
      }
    }
    const disk: Disk.Open = (name, options) => {
      opened.add(name)
      return new Full(name, options)
    }
    yield* Effect.gen(function*() {
      const store = yield* EventStore
      const append = Effect.exit(store.appendTo("a", [{ name: "a:b" }]))
      expect(Exit.isSuccess(yield* append)).toBe(true)
      isFull = true
      const refused = yield* Effect.flip(store.appendTo("a", [{ name: "a:b" }]))
      expect(refused.reason).toBeInstanceOf(KsiError.StoreFailure)
      isFull = false
      expect(Exit.isSuccess(yield* append)).toBe(true)
      expect((yield* store.read({ from: 1, limit: 9 })).map(({ position, version }) => [position, version])).toEqual([[1, 1], [2, 2]])
    }).pipe(Effect.provide(Ksi.layerSqlite({ filename }).pipe(Layer.provide(Layer.succeed(Disk.Disk, disk)))))
    expect([...opened]).toEqual([filename, `${filename}.lock`])
  }))
})
