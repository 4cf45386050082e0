/**
 * A store is used as a daemon uses it, by a process that is killed; then it is looked at. A seed makes one history of three
 * lives on one file: what is done, and where it ends.
 */
import { Effect, Logger } from "effect"
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { StoredFact } from "../../../src/event/CloudEvent.ts"
import { EventStore } from "../../../src/store/EventStore.ts"
import * as SqliteEventStore from "../../../src/store/SqliteEventStore.ts"
import { checkFile } from "../../../src/store/internal/StoreCheck.ts"
import { seeded } from "../../Seeded.ts"
import * as Format1 from "../format1.ts"
import * as Format2 from "../format2.ts"

/** What a life is about. */
export interface Plan {
  readonly file: string
  /** Where it says what it was told. */
  readonly told: string
  readonly seed: number
  readonly life: number
  readonly does: "live" | "upgrade" | "restore" | "rewrite"
  readonly operates: boolean
  /** Applies retention, and deletes streams. */
  readonly removes: boolean
  readonly sync: "full" | "normal"
  readonly indexThreshold: number
  /** Killed at this step of a transaction; else from outside. */
  readonly dieAfter?: number
  /** Killed when the file of the store was seen to change so many times, by whatever thread. */
  readonly dieOnChange?: number
  /** The last positions that the followers have heard of in earlier lives. */
  readonly subscribed: number
  readonly paged: number
}

type Seen = ReadonlyArray<readonly [position: number, id: string]>

/** What a life says. */
export type Said =
  | { readonly open: number }
  | { readonly stored: ReadonlyArray<readonly [id: string, streamId: string, position: number, version: number]> }
  | { readonly subscribed: Seen }
  | { readonly paged: Seen }
  | { readonly operated: true }
  | { readonly deleted: string }

/** So many facts stay of a stream whose name begins with `short-`. */
export const kept = 5
/** Streams of which facts may go: the former keep some, the latter are deleted. */
const mayRemove = /^(short|gone)-/

const script = join(import.meta.dirname, "life.ts")

/** Lives until it is killed: so many milliseconds after it opened the store, or where the plan says. */
const lived = (plan: Plan, delay: number): Promise<ReadonlyArray<Said>> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", "--conditions=ksi-source", script, JSON.stringify(plan)], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NODE_COMPILE_CACHE: join(import.meta.dirname, "../../../node_modules/.cache/ksi") }
    })
    let problem = ""
    child.stdout.once("data", () => {
      // Where it dies by itself, it still must not live for ever.
      setTimeout(() => child.kill("SIGKILL"), plan.dieAfter === undefined && plan.dieOnChange === undefined ? delay : 3000)
    })
    child.stderr.setEncoding("utf8").on("data", (text: string) => (problem += text))
    child.on("close", (_, signal) => {
      if (signal !== "SIGKILL") return reject(new Error(`it ended by itself: ${problem}`))
      // A last line that is cut was not said.
      resolve(Fs.readFileSync(plan.told, "utf8").split("\n").slice(0, -1).map((line) => JSON.parse(line) as Said))
    })
  })

const insist = (holds: boolean, what: () => string): void => {
  if (!holds) throw new Error(what())
}

/** What there is, by position; and which version each stream begins with. */
interface Found {
  readonly facts: ReadonlyMap<number, StoredFact>
  readonly first: ReadonlyMap<string, number>
  readonly deleted: ReadonlySet<string>
}

/** The facts of a stream are those that its details say, in the order of their versions. */
const holdStream = Effect.fnUntraced(function*(store: EventStore["Service"], streamId: string, positions: ReadonlyArray<number>) {
  const details = yield* store.details(streamId)
  const { count, first, isDeleted, version } = details
  insist(count === positions.length, () => `${streamId} has ${positions.length} facts, and says ${count}`)
  insist(first === 1 || mayRemove.test(streamId), () => `${streamId} begins with version ${first}, and nobody removed from it`)
  if (isDeleted) insist(count === 1 && streamId.startsWith("gone-"), () => `${streamId} is deleted and has ${count} facts`)
  else if (streamId.startsWith("gone-")) insist(first === 1, () => `${streamId} is not deleted and begins with version ${first}`)
  else insist(count >= Math.min(version, kept), () => `${streamId} has ${count} facts of ${version}: too few`)
  const read: Array<number> = []
  while (read.length < positions.length) {
    const page = yield* store.readStream({ streamId, from: first + read.length, limit: 1000 })
    insist(page.length > 0, () => `stream ${streamId} ends after ${read.length} facts of ${positions.length}`)
    for (const fact of page) insist(read.push(fact.position) === fact.version - first + 1, () => `version ${fact.version} of ${streamId} is out of place`)
  }
  insist(String(read) === String(positions), () => `stream ${streamId} is read in another order`)
  return details
})

/** All facts, by the store itself; what is not as promised is thrown. */
const factsOf = (file: string, indexThreshold: number): Promise<Found> =>
  Effect.gen(function*() {
    const store = yield* EventStore
    const facts = new Map<number, StoredFact>()
    const streams = new Map<string, Array<number>>()
    for (let from = 1, isOver = false; !isOver;) {
      const page = yield* store.read({ from, limit: 1000 })
      isOver = page.length === 0
      for (const fact of page) {
        insist(fact.position >= from, () => `position ${fact.position} is read after ${from - 1}`)
        from = fact.position + 1
        facts.set(fact.position, fact)
        const positions = streams.get(fact.streamId) ?? []
        streams.set(fact.streamId, positions)
        positions.push(fact.position)
      }
    }
    insist(new Set([...facts.values()].map(({ id }) => id)).size === facts.size, () => "a fact is there twice")
    const first = new Map<string, number>()
    const deleted = new Set<string>()
    let removed = 0
    for (const [streamId, positions] of streams) {
      const details = yield* holdStream(store, streamId, positions)
      first.set(streamId, details.first)
      if (details.isDeleted) deleted.add(streamId)
      removed += details.first - 1
    }
    // Of every stream something is left here: so nothing else is missing.
    insist(store.head() === facts.size + removed, () => `of ${store.head()} positions ${facts.size} hold a fact, and ${removed} were removed`)
    return { facts, first, deleted }
  }).pipe(
    Effect.provide(SqliteEventStore.layer({ filename: file, sync: "normal", indexThreshold })),
    Effect.provide(Logger.layer([])),
    Effect.runPromise
  )

/** What every store on the disk must be. */
const sound = (file: string): void => {
  const { problems } = checkFile(file, false, () => {})
  insist(problems.length === 0, () => `${file}: ${problems.map(({ check, problem }) => `${check}: ${problem}`).join("; ")}`)
}

interface Told {
  readonly id: string
  readonly streamId: string
  readonly version: number
}

/** What is known of a file from those who were told. */
class History {
  subscribed = 0
  paged = 0
  acknowledged = 0
  private readonly told = new Map<number, Told>()
  private readonly deleted = new Set<string>()

  /** Takes what a life said, and holds the store against it. */
  hold(said: ReadonlyArray<Said>, found: Found): void {
    for (const line of said) {
      if ("stored" in line) {
        this.acknowledged += line.stored.length
        for (const [id, streamId, position, version] of line.stored) this.told.set(position, { id, streamId, version })
      } else if ("subscribed" in line) this.subscribed = this.follow("a subscriber", this.subscribed, line.subscribed, found)
      else if ("paged" in line) this.paged = this.follow("a reader", this.paged, line.paged, found)
      else if ("deleted" in line) this.deleted.add(line.deleted)
    }
    // Of earlier lives too.
    for (const [position, told] of this.told) {
      const fact = found.facts.get(position)
      const isRemoved = fact === undefined && told.version < (found.first.get(told.streamId) ?? 1)
      const isThere = fact?.id === told.id && fact.streamId === told.streamId && fact.version === told.version
      insist(isThere || isRemoved, () => `${told.id} was acknowledged at position ${position}, where ${fact?.id ?? "nothing"} is`)
    }
    for (const streamId of this.deleted) insist(found.deleted.has(streamId), () => `${streamId} was deleted, and is there`)
    this.whole(found.facts)
  }

  private follow(who: string, last: number, seen: Seen, { facts }: Found): number {
    for (const [position, id] of seen) {
      insist(position > last, () => `${who} heard of position ${position} after ${last}`)
      // What it did not hear of was removed before it came there.
      while (++last < position) insist(!facts.has(last), () => `${who} did not hear of position ${last}`)
      const fact = facts.get(position)
      insist((fact?.id ?? id) === id, () => `${who} heard of ${id} at position ${position}, where ${fact?.id ?? "nothing"} is`)
    }
    return last
  }

  /** Of facts that were appended together all are there, side by side; where the first one was removed, nothing can be said. */
  private whole(facts: Found["facts"]): void {
    for (const [position, { data, id }] of facts) {
      const [life, w, n, place] = id.split("-")
      if (typeof data !== "object" || data === null || !("count" in data) || place !== "0") continue
      for (let k = 1; k < Number(data.count); k++) {
        insist(facts.get(position + k)?.id === `${life}-${w}-${n}-${k}`, () => `of the ${String(data.count)} facts that begin with ${id} there are ${k}`)
      }
    }
  }
}

const livesOf = async (folder: string, seed: number): Promise<number> => {
  const random = seeded(seed)
  const file = join(folder, "a.db")
  const history = new History()
  const isOld = random(2) === 0
  // Of the second there are enough that they move into the stream index in several transactions.
  if (isOld) (random(2) === 0 ? () => Format1.make(file, 2000) : () => Format2.make(file, 9000))()
  let known: Found["facts"] = new Map()
  for (let life = 0; life < 3; life++) {
    const does = life === 0 && isOld ? "upgrade" : "live"
    const plan: Plan = {
      file, told: join(folder, `told-${life}`), seed: seed * 16 + life, life, does, operates: random(3) === 0, removes: random(2) === 0, sync: random(2) === 0 ? "full" : "normal",
      indexThreshold: [50, 3500, 16_384][random(3)] ?? 50, subscribed: history.subscribed, paged: history.paged,
      // Most is done at the beginning.
      ...(random(3) > 0 ? { dieAfter: 1 + random(does === "upgrade" ? 30 : [30, 100, 600][random(3)] ?? 30) } : {})
    }
    const said = await lived(plan, random(does === "upgrade" ? 150 : 120))
    for (const name of Fs.readdirSync(folder)) {
      if (name.endsWith(".copy") || name.endsWith(".bak")) sound(join(folder, name))
    }
    const found = await factsOf(file, plan.indexThreshold)
    sound(file)
    for (const [position, { id, streamId, version }] of known) {
      const isRemoved = !found.facts.has(position) && version < (found.first.get(streamId) ?? 1)
      insist(isRemoved || found.facts.get(position)?.id === id, () => `${id} is not at position ${position} any more`)
    }
    history.hold(said, found)
    known = found.facts
  }
  return history.acknowledged
}

/** A life that replaces or rewrites a file again and again: afterwards it is one of those it may be, and sound. */
const replaced = async (folder: string, seed: number): Promise<number> => {
  const random = seeded(seed)
  const file = join(folder, "a.db")
  Format2.make(file, 1500)
  Fs.copyFileSync(file, `${file}.first`)
  Format2.make(`${file}.other`, 700)
  const does = random(2) === 0 ? "restore" : "rewrite"
  for (let life = 0; life < 3; life++) {
    await lived({
      file, told: join(folder, `told-${life}`), seed, life, does, operates: false, removes: false, sync: "full", indexThreshold: 300, subscribed: 0, paged: 0,
      // A thread of its own does the copying: what it does to the store's file shows in the file alone.
      ...[{}, { dieOnChange: 1 + random(4) }, { dieAfter: 1 + random(40) }, { dieAfter: 1 + random(40) }][random(4)]
    }, random(400))
    const { facts } = await factsOf(file, 300)
    sound(file)
    const allowed = does === "restore" ? [700, 1500] : [1500]
    insist(allowed.includes(facts.size), () => `after ${does} there are ${facts.size} facts`)
  }
  return 0
}

/** How many processes a seed kills. */
export const livesPerSeed = 3

/** Three lives of a store that end by SIGKILL. Answers with how many facts were acknowledged; rejects where a promise was broken. */
export const crash = async (seed: number): Promise<number> => {
  const folder = Fs.mkdtempSync(join(tmpdir(), "ksi-crash-"))
  try {
    const acknowledged = await (seed % 4 === 3 ? replaced : livesOf)(folder, seed)
    Fs.rmSync(folder, { recursive: true })
    return acknowledged
  } catch (cause) {
    // What is left is what there is to look at.
    throw new Error(`seed ${seed} (its files are in ${folder}): ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
  }
}
