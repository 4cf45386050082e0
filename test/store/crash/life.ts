// One life of a process that uses a store as a daemon does: 16 writers, two followers, and somebody who operates it. Each says
// what it was told before it goes on, until the process is killed: from outside at any instant, or here at the n-th step of
// what it does with the disk: before and after the store begins or commits, makes, syncs, renames or removes a file.
import { Context, Effect, Layer, Logger, Stream } from "effect"
import Fs from "node:fs"
import { syncBuiltinESMExports } from "node:module"
import { DatabaseSync } from "node:sqlite"
import * as KsiError from "../../../src/event/KsiError.ts"
import { Ksi } from "../../../src/Ksi.ts"
import * as Disk from "../../../src/store/Disk.ts"
import { EventStore, type FactInput } from "../../../src/store/EventStore.ts"
import * as StoreBackup from "../../../src/store/StoreBackup.ts"
import { StoreMaintenance } from "../../../src/store/StoreMaintenance.ts"
import { seeded } from "../../Seeded.ts"
import { kept, type Plan, type Said } from "./Crash.ts"

// Whoever starts it says what to do.
const plan = JSON.parse(process.argv[2] ?? "{}") as Plan
// What is written to a file outlives the process; a pipe may be full.
const told = Fs.openSync(plan.told, "a")
const say = (said: Said): void => {
  Fs.writeSync(told, `${JSON.stringify(said)}\n`)
  if ("open" in said) process.stdout.write("open\n")
}
const random = seeded(plan.seed)

let left = plan.dieAfter ?? Infinity
/** A step that may be the last one. */
const step = (): void => {
  if (--left <= 0) process.kill(process.pid, "SIGKILL")
}
for (const name of ["renameSync", "linkSync", "unlinkSync", "rmSync", "fsyncSync"] as const) {
  const real: (...args: ReadonlyArray<never>) => void = Fs[name]
  Object.assign(Fs, {
    [name]: (...args: ReadonlyArray<never>): void => {
      step()
      real(...args)
      step()
    }
  })
}
const copyFile = Fs.copyFileSync
Fs.copyFileSync = (from, to, mode) => {
  // As far as it had come.
  Fs.writeFileSync(to, Fs.readFileSync(from).subarray(0, Fs.statSync(from).size / 2))
  step()
  Fs.truncateSync(to)
  copyFile(from, to, (mode ?? 0) & ~Fs.constants.COPYFILE_EXCL)
  step()
}
syncBuiltinESMExports()

if (plan.dieOnChange !== undefined) {
  const stamp = () => {
    const stat = Fs.statSync(plan.file, { throwIfNoEntry: false })
    return stat === undefined ? "none" : `${stat.ino} ${stat.size}`
  }
  let changes = plan.dieOnChange
  let last = stamp()
  const look = (): void => {
    const now = stamp()
    if (now !== last && --changes === 0) process.kill(process.pid, "SIGKILL")
    last = now
    setImmediate(look)
  }
  look()
}

class Mortal extends DatabaseSync {
  override exec(sql: string): void {
    step()
    super.exec(sql)
    step()
  }
}

const writers = 16
const shared = 3

const writer = (store: EventStore["Service"], w: number) =>
  Effect.gen(function*() {
    const versionOf = (streamId: string) =>
      Effect.map(store.readStream({ streamId, from: 1, limit: 1, backward: true }), ([fact]) => fact?.version ?? 0)
    for (let n = 0;; n++) {
      const streamId = random(3) === 0 ? `shared-${random(shared)}` : `${plan.removes && random(2) === 0 ? "short" : "own"}-${w}`
      const count = random(3) === 0 ? 2 + random(5) : 1
      const facts = Array.from({ length: count }, (_, i): FactInput =>
        ({ name: "crash:tested", id: `${plan.life}-${w}-${n}-${i}`, data: { count, text: "x".repeat(random(300)) } }))
      const expectedVersion = yield* versionOf(streamId)
      // Others write between the question and the append, in a turn of their own.
      if (random(2) === 0) yield* Effect.yieldNow
      const outcome = yield* Effect.result(store.appendTo(streamId, facts, { expectedVersion }))
      if (outcome._tag === "Success") {
        say({ stored: outcome.success.map(({ position, version }, i) => [facts[i]?.id ?? "", streamId, position, version] as const) })
      } else if (KsiError.is(outcome.failure) && outcome.failure.reason._tag === "VersionConflict" && streamId.startsWith("shared")) {
        continue
      } else return yield* Effect.fail(outcome.failure)
    }
  })

const subscriber = Effect.gen(function*() {
  const ksi = yield* Ksi
  yield* Stream.runForEachArray(ksi.subscribe("*", { from: plan.subscribed + 1 }), (events) =>
    Effect.sync(() => say({ subscribed: events.map(({ position, id }) => [Number(position), id] as const) })))
})

const pager = (store: EventStore["Service"]) =>
  Effect.gen(function*() {
    for (let from = plan.paged + 1;;) {
      const page = yield* store.read({ from, limit: 64 })
      if (page.length > 0) say({ paged: page.map(({ id, position }) => [position, id] as const) })
      from = (page.at(-1)?.position ?? from - 1) + 1
      yield* Effect.sleep(page.length === 0 ? 2 : 0)
    }
  })

const operator = Effect.gen(function*() {
  const { backup, compact } = yield* StoreMaintenance
  for (;;) {
    yield* Effect.sleep(random(20))
    if (random(2) === 0) yield* compact
    else yield* backup({ to: `${plan.file}.copy`, force: true })
    say({ operated: true })
  }
})

const remover = (store: EventStore["Service"]) =>
  Effect.gen(function*() {
    for (let w = 0; w < writers; w++) yield* store.configure(`short-${w}`, { maxCount: kept })
    for (let n = 0;; n++) {
      yield* Effect.sleep(random(4))
      if (random(2) === 0) {
        yield* store.retain
        continue
      }
      const streamId = `gone-${plan.life}-${n}`
      // Some are longer than what is erased at once.
      const facts = Array.from({ length: 1 + random(random(4) === 0 ? 900 : 40) }, (_, i): FactInput => ({ name: "crash:tested", id: `${streamId}/${i}`, data: {}, tags: [streamId, "some"] }))
      yield* store.appendTo(streamId, facts)
      yield* store.delete(streamId)
      say({ deleted: streamId })
    }
  })

const live = Effect.gen(function*() {
  const store = yield* EventStore
  say({ open: store.head() })
  const all = [...Array.from({ length: writers }, (_, w) => writer(store, w)), subscriber, pager(store), ...(plan.operates ? [operator] : []), ...(plan.removes ? [remover(store)] : [])]
  yield* Effect.all(all, { concurrency: "unbounded" })
})

const program = plan.does === "restore"
  ? Effect.gen(function*() {
    say({ open: 0 })
    for (let n = 0;; n++) {
      yield* StoreBackup.restore({ from: `${plan.file}.${n % 2 === 0 ? "other" : "first"}`, to: plan.file })
      say({ operated: true })
    }
  })
  : plan.does === "rewrite"
  ? Effect.gen(function*() {
    say({ open: 0 })
    for (;;) {
      const opened = Layer.build(Ksi.layerSqlite({ filename: plan.file }))
      yield* Effect.scoped(Effect.flatMap(opened, (context) => Context.get(context, StoreMaintenance).rewrite))
      say({ operated: true })
    }
  })
  : Effect.provide(live, Ksi.layerSqlite({ filename: plan.file, sync: plan.sync, indexThreshold: plan.indexThreshold }))

if (plan.does === "upgrade") say({ open: 0 })
await Effect.runPromise(program.pipe(
  Effect.provideService(Disk.Disk, (name, options) => new Mortal(name, options)),
  Effect.provide(Logger.layer([]))
))
