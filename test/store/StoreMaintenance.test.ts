import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer } from "effect"
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { join } from "node:path"
import { Ksi } from "../../src/Ksi.ts"
import { EventStore, type FactInput } from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as StoreBackup from "../../src/store/StoreBackup.ts"
import * as TimeTravel from "../../src/store/TimeTravel.ts"
import { StoreMaintenance } from "../../src/store/StoreMaintenance.ts"
import { alter, fill, folder, idsOf, made } from "./files.ts"
import * as Format2 from "./format2.ts"

const opening = (filename: string) =>
  Effect.map(Layer.build(Ksi.layerSqlite({ filename, sync: "normal" })), (context) =>
    ({ store: Context.get(context, EventStore), ...Context.get(context, StoreMaintenance) }))

const pragma = (filename: string, name: string): unknown => {
  const db = new DatabaseSync(filename, { readOnly: true })
  try {
    return Object.values(db.prepare(`PRAGMA ${name}`).get() ?? {})[0]
  } finally {
    db.close()
  }
}

/** Takes the space of something large, and gives it up. */
const waste = (filename: string) =>
  alter(filename, "CREATE TABLE waste (text); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO waste SELECT hex(randomblob(500)) FROM n; DROP TABLE waste")

const facts = (count: number) => ({ what: "facts", count })
const snapshots = (count: number) => ({ what: "outdated snapshots", count })

describe("compact", () => {
  it.live("applies retention; what was removed is in no byte of the file or of its log", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a.db")
      const { compact, store } = yield* opening(file)
      const secret = "Ada Lovelace"
      const bytesOf = (end: string) => Fs.existsSync(`${file}${end}`) ? Fs.readFileSync(`${file}${end}`) : Buffer.alloc(0)
      const isThere = () => ["", "-wal"].some((end) => bytesOf(end).includes(secret))
      const fact = (n: number): FactInput => ({
        name: "user:changed", id: `${n}`, data: { name: `${secret} ${n}`, text: "x".repeat(n % 3 === 0 ? 6000 : 20) },
        tags: [`name:${secret} ${n}`, "some"], attributes: { correlationid: "root", clientcorrelationid: `by ${secret}` }
      })
      const label = { correlationId: `by ${secret}`, from: 1, limit: 1000 }
      for (let n = 0; n < 300; n++) {
        yield* store.appendTo(["deleted", "short", "other"][n % 3] ?? "", [n % 3 === 2 ? { name: "a:b", tags: [`t:${n * 7919 % 100}`] } : fact(n)])
      }
      expect(yield* store.driver.byCorrelation(label)).toHaveLength(200)
      for (const streamId of ["deleted", "short"]) yield* TimeTravel.at(Projection.latest, { streamId }).pipe(Effect.provideService(EventStore, store))
      yield* TimeTravel.at(Projection.latest, {}).pipe(Effect.provideService(EventStore, store))
      yield* store.delete("deleted")
      yield* store.configure("short", { truncateBefore: 1000 })
      expect(isThere()).toBe(true)
      expect((yield* compact).removed).toEqual([facts(100), { what: "expired answers", count: 0 }, snapshots(0)])
      expect(isThere()).toBe(false)
      expect(yield* store.driver.byCorrelation(label)).toEqual([])
      expect((yield* StoreBackup.verify(file)).problems).toEqual([])
    }).pipe(Effect.scoped))

  it.live("removes snapshots that belong to nothing, of which verify says so", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a.db")
      yield* made(file, 10)
      alter(file, `INSERT INTO snapshot_fingerprints VALUES (1, 'p', 'old', 1), (2, 'p', 'new', 0);
        INSERT INTO snapshot_chains VALUES (1, 1, 'all'), (2, 2, 'all'), (3, 9, 'all');
        INSERT INTO snapshot_points SELECT column1, 5, 5, 0, 1, 1, 0, 1, 5 FROM (VALUES (1), (2), (3), (4));
        INSERT INTO snapshots SELECT column1, 0, 5, '{}' FROM (VALUES (1), (2), (3), (4), (5))`)
      const before = yield* StoreBackup.verify(file)
      expect(before.problems.map(({ check, mend }) => [check, mend.includes("ksi compact")])).toEqual(Array.from({ length: 3 }, () => ["snapshots", true]))
      const { compact } = yield* opening(file)
      expect((yield* compact).removed).toContainEqual(snapshots(3))
      expect((yield* StoreBackup.verify(file)).problems).toEqual([])
      const db = new DatabaseSync(file, { readOnly: true })
      expect(db.prepare("SELECT chain FROM snapshots").all()).toEqual([{ chain: 2 }])
      db.close()
    }).pipe(Effect.scoped))

  it.live("gives free pages back piece by piece, while facts are stored", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a.db")
      yield* made(file, 300)
      waste(file)
      const { compact, store } = yield* opening(file)
      const wasted = Fs.statSync(file).size
      const writer = yield* Effect.forkChild(Effect.forEach(Array.from({ length: 30 }, (_, n) => n), (n) => fill(store, 10, `w${n}`)))
      const { bytesAfter, bytesBefore, bytesFree, removed } = yield* compact
      yield* Fiber.join(writer)
      expect(bytesBefore).toBeGreaterThanOrEqual(wasted)
      expect(bytesAfter).toBeLessThan(wasted / 2)
      expect([bytesFree, removed]).toEqual([0, [facts(0), { what: "expired answers", count: 0 }, snapshots(0)]])
      expect(pragma(file, "freelist_count")).toBe(0)
      yield* compact
      expect(Fs.statSync(`${file}-wal`).size).toBe(0)
      expect((yield* StoreBackup.verify(file)).problems).toEqual([])
      expect(store.head()).toBe(610)
    }).pipe(Effect.scoped))

  it.live("waits for no reader: the log stays until it has left", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a.db")
      const { compact, store } = yield* opening(file)
      yield* fill(store, 100)
      const reader = new DatabaseSync(file, { readOnly: true })
      reader.exec("BEGIN")
      expect(reader.prepare("SELECT count(*) AS n FROM events").get()).toEqual({ n: 100 })
      yield* fill(store, 100, "more")
      yield* compact
      expect(Fs.statSync(`${file}-wal`).size).toBeGreaterThan(0)
      reader.close()
      yield* compact
      expect(Fs.statSync(`${file}-wal`).size).toBe(0)
      expect(store.head()).toBe(200)
    }).pipe(Effect.scoped))

  it.live("removes what whoever knows says may go, and answers that have expired", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a.db")
      yield* made(file, 10)
      alter(file, `INSERT INTO idempotency VALUES (1, 'old', 'r', 'success', NULL, 1), (2, 'new', 'r', 'success', NULL, ${Date.now() + 1e6})`)
      const { compact, onCompact } = yield* opening(file)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* onCompact({ what: "drafts", remove: Effect.succeed(7) })
        expect((yield* compact).removed).toEqual([facts(0), { what: "expired answers", count: 1 }, snapshots(0), { what: "drafts", count: 7 }])
      }))
      expect((yield* compact).removed).toEqual([facts(0), { what: "expired answers", count: 0 }, snapshots(0)])
      const db = new DatabaseSync(file, { readOnly: true })
      expect(db.prepare("SELECT id FROM idempotency").all()).toEqual([{ id: "new" }])
      db.close()
    }).pipe(Effect.scoped))

  it.live("cannot shrink a file made before format 3; writing it anew can, and from then on it can be", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a.db")
      Format2.make(file, 200)
      waste(file)
      yield* Effect.scoped(Effect.gen(function*() {
        const { compact, rewrite } = yield* opening(file)
        const { bytesAfter, bytesBefore, bytesFree } = yield* compact
        expect(bytesFree).toBeGreaterThan(500_000)
        expect(bytesAfter).toBeGreaterThan(bytesBefore / 2)
        const anew = yield* rewrite
        expect([anew.bytesFree, anew.bytesAfter < bytesAfter / 2]).toEqual([0, true])
      }))
      expect(pragma(file, "auto_vacuum")).toBe(2)
      expect(yield* idsOf(file)).toHaveLength(200)
      expect((yield* StoreBackup.verify(file)).problems).toEqual([])
    }).pipe(Effect.scoped))
})

describe("a store in memory", () => {
  it.live("has no file; what may go is removed there too", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(Layer.fresh(Ksi.layerMemory))
      const { backup, compact, file, onCompact, verify } = Context.get(context, StoreMaintenance)
      expect(file).toBeUndefined()
      for (const refused of [yield* Effect.flip(backup({ to: "/b" })), yield* Effect.flip(verify({ quick: true }))]) {
        expect(refused.reason).toMatchObject({ _tag: "StoreFailure", problem: expect.stringContaining("in memory") })
      }
      yield* onCompact({ what: "drafts", remove: Effect.succeed(1) })
      expect(yield* compact).toEqual({ bytesBefore: 0, bytesAfter: 0, bytesFree: 0, removed: [{ what: "drafts", count: 1 }] })
      const other = yield* Layer.build(Layer.fresh(Ksi.layerMemory))
      expect((yield* Context.get(other, StoreMaintenance).compact).removed).toEqual([])
    }).pipe(Effect.scoped))
})
