import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import * as Fs from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as KsiError from "../../src/event/KsiError.ts"
import { checkFile } from "../../src/store/internal/StoreCheck.ts"
import * as StoreBackup from "../../src/store/StoreBackup.ts"
import { alter, fill, folder, idsOf, made, opened } from "./files.ts"
import * as Format1 from "./format1.ts"
import * as Format2 from "./format2.ts"

// Threads are started, of which each reads its modules anew: on a busy machine that takes its time.
const patience = 60_000

const problemOf = <A, R>(effect: Effect.Effect<A, KsiError.KsiError, R>) =>
  Effect.map(Effect.flip(effect), ({ message }) => message)

/** Without a thread of its own, which takes longer to start than this takes. */
const checked = (file: string) => Effect.sync(() => checkFile(file, false, () => {}))

const found = (file: string) =>
  Effect.map(checked(file), ({ problems }) => problems.map(({ check, problem }) => `${check}: ${problem}`))

describe("backup", () => {
  it.live("is the store at one moment, while it is written, for its user alone", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const [file, copy] = [join(path, "a.db"), join(path, "copy.db")]
      const shares: Array<number> = []
      yield* opened(file, (store) =>
        Effect.gen(function*() {
          yield* fill(store, 3000)
          const writer = yield* Effect.forkChild(Effect.forEach(Array.from({ length: 50 }, (_, n) => n), (n) =>
            Effect.andThen(fill(store, 20, `w${n}`), Effect.yieldNow)))
          const before = store.head()
          const { bytes, position } = yield* StoreBackup.backup({ from: file, to: copy }, (share) => shares.push(share))
          expect(position).toBeGreaterThanOrEqual(before)
          expect(position).toBeLessThanOrEqual(store.head())
          yield* Fiber.join(writer)
          expect(Fs.statSync(copy).size).toBe(bytes)
          expect(yield* found(copy)).toEqual([])
          const ids = (yield* store.read({ from: 1, limit: 10_000 })).map(({ id }) => id)
          expect(yield* idsOf(copy)).toEqual(ids.slice(0, position))
          expect(store.head()).toBe(4000)
        }))
      expect(Fs.statSync(copy).mode & 0o777).toBe(0o600)
      expect(shares.every((share, i) => share > (shares[i - 1] ?? 0) && share <= 1)).toBe(true)
      expect(Fs.readdirSync(path).filter((name) => name.includes("part"))).toEqual([])
    }).pipe(Effect.scoped), patience)

  it.live("replaces nothing but by force, and not the store", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const [file, copy] = [join(path, "a.db"), join(path, "copy.db")]
      yield* made(file, 30)
      Fs.writeFileSync(copy, "mine")
      const to = (to: string, force = false) => StoreBackup.backup({ from: file, to, force })
      expect(yield* problemOf(to(copy))).toContain("exists already")
      for (const own of [file, `${file}.lock`]) expect(yield* problemOf(to(own, true))).toContain("is the store itself")
      Fs.symlinkSync(file, join(path, "link"))
      expect(yield* problemOf(to(join(path, "link"), true))).toContain("is the store itself")
      expect(yield* problemOf(to(path))).toContain("is a directory")
      expect(yield* problemOf(to(join(path, "no", "a")))).toContain("there is no directory")
      expect(yield* problemOf(to(join(copy, "a")))).toContain("there is no directory")
      expect(yield* problemOf(StoreBackup.backup({ from: join(path, "none"), to: join(path, "b") }))).toContain("there is no store")
      // Not by force either: what is no store is somebody's.
      expect(yield* problemOf(to(copy, true))).toContain("is no store")
      expect(Fs.readFileSync(copy, "utf8")).toBe("mine")
      Fs.rmSync(copy)
      // A name that leads beside the store through a link is its own too, also when nothing is there yet.
      Fs.symlinkSync(path, join(path, "folder"))
      expect(yield* problemOf(to(join(path, "folder", "a.db-wal"), true))).toContain("is the store itself")
      yield* to(copy)
      yield* to(copy, true)
      expect(yield* idsOf(copy)).toHaveLength(40)
    }).pipe(Effect.scoped), patience)

  it.live("of a damaged store is refused, and one that is given up leaves nothing", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const file = join(path, "a.db")
      yield* made(file, 2000)
      const before = Fs.readdirSync(path)
      for (const delay of [0, 20, 60]) {
        const giving = yield* Effect.forkChild(StoreBackup.backup({ from: file, to: join(path, "given-up") }))
        yield* Effect.sleep(delay)
        yield* Fiber.interrupt(giving)
        expect(Fs.readdirSync(path).filter((name) => name !== "given-up")).toEqual(before)
      }
      const bytes = Fs.readFileSync(file)
      Fs.writeFileSync(file, bytes.fill(0xee, 8 * 4096, 12 * 4096))
      expect(yield* problemOf(StoreBackup.backup({ from: file, to: join(path, "b") }))).toContain("damaged")
      expect(Fs.existsSync(join(path, "b"))).toBe(false)
    }).pipe(Effect.scoped), patience)
})

describe("restore", () => {
  it.live("puts a backup where the store was, and keeps the store", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const [file, copy] = [join(path, "a.db"), join(path, "copy.db")]
      yield* made(file, 30)
      yield* StoreBackup.backup({ from: file, to: copy })
      const ids = yield* idsOf(file)
      yield* opened(file, (store) => fill(store, 5, "later"))
      const first = yield* StoreBackup.restore({ from: copy, to: file })
      if ("report" in first) throw new Error("it was sound")
      expect(first).toMatchObject({ position: 40, kept: expect.stringContaining(`${file}.before-restore-`) })
      expect(yield* idsOf(file)).toEqual(ids)
      expect(yield* idsOf(first.kept ?? "")).toHaveLength(45)
      // And the other way, to where nothing was.
      const fresh = join(path, "new", "b.db")
      expect(yield* StoreBackup.restore({ from: first.kept ?? "", to: fresh })).toEqual({ position: 45, kept: undefined })
      expect(yield* idsOf(fresh)).toHaveLength(45)
      // Twice within a second: both are kept.
      const again = yield* StoreBackup.restore({ from: copy, to: file })
      expect("kept" in again && again.kept !== first.kept && Fs.existsSync(again.kept ?? "")).toBe(true)
    }).pipe(Effect.scoped), patience)

  it.live("waits for nobody: a store that is written stays", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const [file, copy] = [join(path, "a.db"), join(path, "copy.db")]
      yield* made(file, 30)
      yield* StoreBackup.backup({ from: file, to: copy })
      yield* opened(file, (store) =>
        Effect.gen(function*() {
          const locked = yield* Effect.flip(StoreBackup.restore({ from: copy, to: file }))
          expect(locked.reason._tag).toBe("StoreLocked")
          yield* fill(store, 1, "more")
        }))
      expect(yield* idsOf(file)).toHaveLength(41)
    }).pipe(Effect.scoped), patience)

  it.live("refuses a damaged backup before it changes anything, and what is no store", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const [file, copy] = [join(path, "a.db"), join(path, "copy.db")]
      yield* made(file, 500)
      yield* StoreBackup.backup({ from: file, to: copy })
      const names = Fs.readdirSync(path)
      const before = Fs.readFileSync(file)
      const refused = (problem: string) =>
        Effect.gen(function*() {
          const answer = yield* StoreBackup.restore({ from: copy, to: file })
          expect("report" in answer && answer.report.problems.map((each) => `${each.check}: ${each.problem}`).join("\n")).toContain(problem)
          expect(Fs.readFileSync(file)).toEqual(before)
          expect(Fs.readdirSync(path)).toEqual(names)
        })
      const sound = Fs.readFileSync(copy)
      Fs.writeFileSync(copy, Buffer.from(sound).fill(0xee, 20 * 4096, 22 * 4096))
      yield* refused("pages: ")
      Fs.writeFileSync(copy, "no database")
      yield* refused("header: it cannot be read: file is not a database")
      Fs.writeFileSync(copy, sound)
      alter(copy, "DELETE FROM events WHERE position = 7")
      yield* refused("positions: position 7 is missing")
      expect(yield* problemOf(StoreBackup.restore({ from: file, to: file }))).toContain("is the store itself")
    }).pipe(Effect.scoped), patience)

  it.live("takes the place of a store that is damaged, and keeps that one with its log", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const [file, copy] = [join(path, "a.db"), join(path, "copy.db")]
      yield* made(file, 30)
      yield* StoreBackup.backup({ from: file, to: copy })
      Fs.writeFileSync(file, "broken beyond hope")
      Fs.writeFileSync(`${file}-wal`, "a log of nothing")
      const restored = yield* StoreBackup.restore({ from: copy, to: file })
      if ("report" in restored) throw new Error("it was sound")
      expect(yield* idsOf(file)).toHaveLength(40)
      expect(Fs.readFileSync(restored.kept ?? "", "utf8")).toBe("broken beyond hope")
    }).pipe(Effect.scoped), patience)
})

describe("verify", () => {
  it.live("finds nothing in a sound store, also of an older format, and changes nothing", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const makers = [(file: string) => Format1.make(file, 10), (file: string) => Format2.make(file, 100)]
      for (const [i, make] of makers.entries()) {
        const file = join(path, `${i}.db`)
        make(file)
        const before = Fs.readFileSync(file)
        expect(yield* found(file)).toEqual([])
        expect(Fs.readFileSync(file)).toEqual(before)
        expect(Fs.readdirSync(path).filter((name) => name.startsWith(`${i}.`))).toEqual([`${i}.db`])
      }
      const file = join(path, "a.db")
      yield* made(file, 300)
      const report = yield* StoreBackup.verify(file)
      expect(report).toMatchObject({ format: 3, position: 310, problems: [] })
      expect(Object.fromEntries(report.checks.map(({ check, count }) => [check, count]))).toMatchObject({
        facts: 310, positions: 310, versions: 310, order: 310, names: 310, json: 310, identity: 310
      })
      expect(report.checks.find(({ check }) => check === "index")?.count).toBeGreaterThan(200)
    }).pipe(Effect.scoped), patience)

  const damages: ReadonlyArray<readonly [sql: string, problem: string]> = [
    ["DELETE FROM events WHERE position = 5", "positions: position 5 is missing"],
    ["UPDATE events SET position = 1000 WHERE position = 310", "positions: position 310 is missing"],
    ["UPDATE events SET version = 40 WHERE position = 310", "versions: version 31 of stream number"],
    ["UPDATE events SET version = 1 WHERE position = 310", "versions: version 1 of stream number 10 at position 310 comes after"],
    ["UPDATE events SET recorded = 1 WHERE position = 9", "order: position 9 was stored before"],
    ["DELETE FROM streams WHERE id = 3", "names: stream number 3 of position 3 stands for nothing"],
    ["DELETE FROM names", "names: name number 1 of position 1 stands for nothing"],
    ["UPDATE events SET data = '{' WHERE position = 4", "json: the data of position 4 are no JSON"],
    ["UPDATE events SET attributes = '[]' WHERE position = 4", "json: the attributes of position 4 are no object"],
    ["UPDATE events SET data = '12345678901234567890' WHERE position = 4", "json: position 4 holds a number that would be rounded"],
    ["DELETE FROM stream_index WHERE position = 6", "index: position 6 is not in it"],
    ["UPDATE stream_index SET position = 8 WHERE position = 6", "index: position 6 is not in it, or elsewhere"],
    ["INSERT INTO stream_index VALUES (99, 1, 5)", "index: it has 1 more entries than there are facts"],
    ["UPDATE meta SET through = 5; UPDATE stream_index SET position = 8 WHERE position = 7; DELETE FROM stream_index WHERE position = 6", "index: it says of position 8 what is not so"],
    ["UPDATE meta SET through = 5000", "index: it says to hold everything up to position 5000"],
    ["DELETE FROM meta", "index: the table meta has not one row"],
    ["DROP TABLE idempotency", "layout: idempotency is missing"],
    ["PRAGMA user_version = 99", "layout: it has format 99; this KSI knows formats up to"],
    ["PRAGMA application_id = 7", "layout: it is not a store of KSI's"],
    ["INSERT INTO activity VALUES (5, 4, 0, 0, 0, '[]', '{}', '[')", "requests: the block of requests from 5 to 4 does not follow"],
    ["INSERT INTO dead_letters VALUES (1, 'a', 'b', 'c', 'd', 'nothing', 1, 0)", "dead letters: dead letter 1 is no JSON"],
    ["INSERT INTO idempotency VALUES (1, 'a', 'b', 'c', 'nothing', 1)", "keys: answer 1 is no JSON"],
    ["ALTER TABLE streams ADD COLUMN more", "layout: streams is missing, or other"]
  ]
  const allFound = (path: string, sound: string, damages: ReadonlyArray<readonly [sql: string, problem: string]>) =>
    Effect.forEach(damages, ([sql, problem], i) =>
      Effect.sync(() => {
        const file = join(path, `damaged-${i}.db`)
        Fs.copyFileSync(sound, file)
        alter(file, sql)
        const report = checkFile(file, false, () => {})
        expect(report.problems.map((each) => `${each.check}: ${each.problem}`).join("\n"), sql).toContain(problem)
        expect(checkFile(file, true, () => {}).problems.every((each) => each.check === "layout"), sql).toBe(true)
        expect(report.problems.every(({ mend }) => mend !== "")).toBe(true)
      }))
  it.live("finds what is wrong, and says what helps", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const sound = join(path, "sound.db")
      yield* made(sound, 300)
      yield* allFound(path, sound, damages)
    }).pipe(Effect.scoped), patience)

  /** A store of which facts were removed, with something in each table that is made of facts. */
  const removed = (file: string) =>
    opened(file, (store) =>
      Effect.gen(function*() {
        yield* fill(store, 110)
        const tagged = (n: number, streamId: string) =>
          store.appendTo(streamId, [{ name: "a:b", id: `t-${n}`, data: { n }, tags: ["course:c1", `size:${n}`], attributes: { correlationid: "root" } }])
        yield* tagged(1, "s-1")
        yield* tagged(2, "s-2")
        yield* tagged(3, "s-4")
        yield* store.driver.byCorrelation({ correlationId: "root", from: 1, limit: 10 })
        yield* store.configure("s-1", { truncateBefore: 6 })
        yield* store.delete("s-2")
        for (let n = 0; n < 4; n++) yield* store.appendTo("s-6", [{ name: "a:b", id: `last-${n}` }])
        yield* store.appendTo("s-3", [{ name: "a:b", id: "the end" }])
        yield* store.configure("s-3", { truncateBefore: 100 })
        expect(yield* store.retain).toBe(5 + 12)
      }), { indexThreshold: 20 }).pipe(Effect.tap(() =>
        Effect.sync(() => alter(file, `INSERT INTO snapshot_fingerprints VALUES (1, 'p', 'f', 0); INSERT INTO snapshot_chains VALUES (1, 1, 'all');
          INSERT INTO snapshot_points VALUES (1, 110, 110, 0, 1, 1, 0, 1, 110); INSERT INTO snapshots VALUES (1, 0, 110, '{}');
          INSERT INTO read_models VALUES (1, 'carts', 'f', 'serving', 110); INSERT INTO read_model_states VALUES (1, 'k', '{}', 110);
          INSERT INTO consumer_groups VALUES (1, 'mailer', 110, '[112]')`))))

  const removals: ReadonlyArray<readonly [sql: string, problem: string]> = [
    ["DELETE FROM events WHERE position = 5", "versions: version 1 of stream number 5 is missing"],
    ["DELETE FROM events WHERE position = 113", "positions: 29 facts were removed on purpose, and 30 positions are empty"],
    ["DELETE FROM stream_cuts WHERE stream = 2", "versions: version 1 of stream number 2 is missing: version 6"],
    ["UPDATE stream_cuts SET first = 8 WHERE stream = 2", "versions: version 6 of stream number 2 is at position 52, and was removed on purpose"],
    ["UPDATE stream_cuts SET first = 5 WHERE stream = 2", "versions: version 5 of stream number 2 is missing"],
    ["UPDATE stream_cuts SET first = 12 WHERE stream = 4", "positions: 28 facts were removed on purpose, and 29 positions are empty"],
    ["INSERT INTO stream_cuts VALUES (99, 1, 0)", "names: stream number 99, of which facts were removed, stands for nothing"],
    ["DELETE FROM log_end", "positions: 29 facts were removed on purpose, and 28 positions are empty"],
    ["UPDATE log_end SET position = 500", "positions: 29 facts were removed on purpose, and 410 positions are empty"],
    ["UPDATE log_end SET position = 5, recorded = recorded + 1000000", "order: position 6 was stored before"],
    ["DELETE FROM events WHERE stream = 3", "versions: the tombstone of stream number 3, version 13, is missing"],
    ["UPDATE events SET name = 1 WHERE stream = 3", "versions: version 13 of stream number 3 at position 114 should be its tombstone"],
    ["UPDATE events SET stream = 3, version = 14 WHERE position = 118", "versions: version 14 of stream number 3 at position 118 comes after the stream was deleted"],
    ["DELETE FROM fact_tags WHERE tag = 'size:3'", "tags: \"size:3\" of position 113 is missing"],
    ["INSERT INTO fact_tags VALUES ('size:3', 6)", "tags: \"size:3\" is said of position 6, which does not have it"],
    ["INSERT INTO fact_tags VALUES ('size:2', 112)", "tags: \"size:2\" is said of position 112, where no fact is"],
    ["DELETE FROM correlations WHERE position = 113", "causes: \"root\" of position 113 is missing"],
    ["INSERT INTO correlations VALUES ('root', 112)", "causes: \"root\" is said of position 112, where no fact says so"],
    ["UPDATE correlated SET through = 700", "causes: it says to hold everything up to position 700, and the last one is 119"],
    ["DELETE FROM correlated", "causes: the table correlated has not one row"],
    ["DELETE FROM snapshot_fingerprints", "snapshots: there is no code number 1"],
    ["DELETE FROM snapshot_chains", "snapshots: there is no chain number 1"],
    ["DELETE FROM snapshot_points", "snapshots: a state of chain number 1 at position 110 is of no snapshot"],
    ["UPDATE snapshot_points SET position = 200; UPDATE snapshots SET position = 200", "snapshots: a snapshot of chain number 1 is of position 200, and the last one is 119"],
    ["UPDATE read_models SET position = 120", "read models: \"carts\" is at position 120, and the last one is 119"],
    ["UPDATE read_model_states SET position = 111", "read models: state \"k\" of position 111 is not of version number 1"],
    ["UPDATE read_model_states SET state = '{'", "read models: state \"k\" of version number 1 is no JSON"],
    ["UPDATE consumer_groups SET position = 120", "consumers: \"mailer\" is at position 120, and the last one is 119"],
    ["UPDATE consumer_groups SET done = '[150]'", "consumers: \"mailer\" has done position 150"],
    ["INSERT INTO consumer_parked VALUES (2, 3, 's', 1, NULL, 0)", "consumers: position 3 was set aside by group number 2, which is not there"]
  ]

  it.live("looks at a store that is written", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a.db")
      yield* opened(file, (store) =>
        Effect.gen(function*() {
          yield* fill(store, 500)
          const looking = yield* Effect.forkChild(StoreBackup.verify(file))
          for (let n = 0; n < 50; n++) yield* fill(store, 20, `w${n}`)
          expect((yield* Fiber.join(looking)).problems).toEqual([])
        }), { indexThreshold: 50 })
    }).pipe(Effect.scoped), patience)

  it.live("knows what was removed on purpose, and finds what is missing beside it", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const file = join(path, "a.db")
      yield* removed(file)
      const { checks, position, problems } = yield* checked(file)
      expect(problems).toEqual([])
      expect(position).toBe(119)
      const of = (name: string) => checks.find(({ check }) => check === name)
      // Five of s-1, twelve of s-2, and all of s-3, with which the log ended.
      expect([of("facts")?.count, of("positions")]).toMatchObject([119 - 29, { count: 119, what: "positions, 29 of them removed on purpose" }])
      expect(["tags", "causes", "snapshots", "read models", "consumers"].map((name) => of(name)?.count)).toEqual([4, 2, 1, 1, 1])
      yield* allFound(path, file, removals)
      // It goes on where it was.
      yield* opened(file, (store) => Effect.map(store.appendTo("s-5", [{ name: "a:b" }]), ([outcome]) => expect(outcome?.position).toBe(120)))
      expect((yield* checked(file)).problems).toEqual([])
      // Also a copy ends where the log did, though that fact is gone.
      yield* StoreBackup.backup({ from: file, to: join(path, "copy.db") })
    }).pipe(Effect.scoped), patience)
})

describe("a restore", () => {
  it.live("is refused while another program reads the store, and changes nothing", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const [file, copy] = [join(path, "a.db"), join(path, "copy.db")]
      yield* made(file, 20)
      yield* StoreBackup.backup({ from: file, to: copy })
      const reader = new DatabaseSync(file)
      reader.exec("CREATE TABLE IF NOT EXISTS noise (a); INSERT INTO noise VALUES (1); BEGIN")
      reader.prepare("SELECT count(*) FROM events").get()
      const writer = new DatabaseSync(file)
      writer.exec("INSERT INTO noise VALUES (2)")
      writer.close()
      expect(yield* problemOf(StoreBackup.restore({ from: copy, to: file }))).toContain("a.db; end it first")
      expect(Fs.readdirSync(path).filter((name) => /part|before/.test(name))).toEqual([])
      reader.close()
      expect(yield* StoreBackup.restore({ from: copy, to: file })).toMatchObject({ kept: expect.stringContaining("before-restore") })
    }).pipe(Effect.scoped), patience)
})

describe("a file of an older format", () => {
  it.live("is backed up beside itself before it is brought to the newest", () =>
    Effect.gen(function*() {
      const path = yield* folder
      for (const format of [1, 2]) {
        const file = join(path, `${format}.db`)
        if (format === 1) Format1.make(file, 25)
        else Format2.make(file, 100)
        const count = format === 1 ? 1 : 100
        expect(yield* idsOf(file)).toHaveLength(count)
        expect(yield* checked(file)).toMatchObject({ format: 3, position: count, problems: [] })
        const backup = `${file}.format-${format}.bak`
        expect(yield* checked(backup)).toMatchObject({ format, position: count, problems: [] })
        expect(Fs.statSync(backup).mode & 0o777).toBe(0o600)
        // The backup put back is upgraded again, and a name that is taken stays taken.
        yield* StoreBackup.restore({ from: backup, to: file })
        expect(yield* idsOf(file)).toHaveLength(count)
        expect(Fs.existsSync(`${backup}.2`)).toBe(true)
      }
    }).pipe(Effect.scoped), patience)

  it.live("knows its tags afterwards: an import had kept them as attributes", () =>
    Effect.gen(function*() {
      const path = yield* folder
      for (const format of [1, 2]) {
        const file = join(path, `${format}.db`)
        if (format === 1) Format1.make(file, 25)
        else Format2.make(file, 3)
        const db = new DatabaseSync(file)
        const count = format === 1 ? 1 : 3
        const put = db.prepare("INSERT INTO events VALUES (?, 1, ?, 1, ?, 1, NULL, ?, NULL, 1, 2000)")
        const attributes = ['{"ksitags":"flight:1,seat%2Ca"}', '{"other":"ksitags"}', '{"ksitags":7}', '{"ksitags":"flight:1"}', "{\"ksitags\""]
        attributes.forEach((text, n) => put.run(count + 1 + n, 2 + n, `tagged-${n}`, text))
        db.close()
        const found = (tag: string) =>
          opened(file, (store) => Effect.map(Stream.runCollect(store.all({ query: [{ tags: [tag] }] })), (facts) => facts.map(({ id }) => id)))
        expect(yield* found("flight:1")).toEqual(["tagged-0", "tagged-3"])
        expect(yield* found("seat,a")).toEqual(["tagged-0"])
        expect((yield* checked(file)).problems.filter(({ check }) => check === "tags")).toEqual([])
      }
    }).pipe(Effect.scoped), patience)

  it.live("stays as it is where there can be no backup", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const file = join(path, "a.db")
      Format2.make(file, 100)
      const bytes = Fs.readFileSync(file)
      Fs.writeFileSync(file, Buffer.from(bytes).fill(0xee, 9 * 4096, 10 * 4096))
      expect(yield* problemOf(idsOf(file))).toMatch(/back .*a\.db up before it is brought from format 2 to 3: it is damaged/)
      expect(yield* checked(file)).toMatchObject({ format: 2 })
      expect(Fs.readdirSync(path).filter((name) => name.includes("bak"))).toEqual([])
      Fs.writeFileSync(file, bytes)
      expect(yield* idsOf(file)).toHaveLength(100)
    }).pipe(Effect.scoped), patience)
})
