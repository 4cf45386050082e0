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
  readonly sync: "full" | "normal"
  readonly indexThreshold: number
  /** Killed at this step of a transaction; else from outside. */
  readonly dieAfter?: number
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
      setTimeout(() => child.kill("SIGKILL"), plan.dieAfter === undefined ? delay : 3000)
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

/** All facts, by the store itself; what is not as promised is thrown. */
const factsOf = (file: string, indexThreshold: number): Promise<ReadonlyArray<StoredFact>> =>
  Effect.gen(function*() {
    const store = yield* EventStore
    const facts: Array<StoredFact> = []
    for (let from = 1; from <= store.head(); from = facts.length + 1) facts.push(...yield* store.read({ from, limit: 1000 }))
    const streams = new Map<string, Array<number>>()
    for (const [i, { position, streamId, version }] of facts.entries()) {
      insist(position === i + 1, () => `position ${i + 1} is missing`)
      const positions = streams.get(streamId) ?? []
      streams.set(streamId, positions)
      insist(positions.push(position) === version, () => `position ${position} is version ${version} of ${streamId}, after ${positions.length - 1} others`)
    }
    insist(new Set(facts.map(({ id }) => id)).size === facts.length, () => "a fact is there twice")
    for (const [streamId, positions] of streams) {
      const read: Array<number> = []
      while (read.length < positions.length) {
        const page = yield* store.readStream({ streamId, from: read.length + 1, limit: 1000 })
        insist(page.length > 0, () => `stream ${streamId} ends after ${read.length} facts of ${positions.length}`)
        read.push(...page.map(({ position }) => position))
      }
      insist(String(read) === String(positions), () => `stream ${streamId} is read in another order`)
    }
    return facts
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

/** What is known of a file from those who were told. */
class History {
  subscribed = 0
  paged = 0
  acknowledged = 0
  private readonly told = new Map<number, string>()

  /** Takes what a life said, and holds the store against it. */
  hold(said: ReadonlyArray<Said>, facts: ReadonlyArray<StoredFact>): void {
    for (const line of said) {
      if ("stored" in line) {
        this.acknowledged += line.stored.length
        for (const [id, streamId, position, version] of line.stored) {
          const fact = facts[position - 1]
          insist(fact?.id === id && fact.streamId === streamId && fact.version === version, () => `${id} was acknowledged at position ${position}, where ${fact?.id ?? "nothing"} is`)
          this.told.set(position, id)
        }
      } else if ("subscribed" in line) this.subscribed = this.follow("a subscriber", this.subscribed, line.subscribed, facts)
      else if ("paged" in line) this.paged = this.follow("a reader", this.paged, line.paged, facts)
    }
    // Of earlier lives too.
    for (const [position, id] of this.told) insist(facts[position - 1]?.id === id, () => `${id} is not at position ${position} any more`)
    this.whole(facts)
  }

  private follow(who: string, last: number, seen: Seen, facts: ReadonlyArray<StoredFact>): number {
    for (const [position, id] of seen) {
      insist(position === ++last, () => `${who} heard of position ${position}, not of ${last}`)
      insist(facts[position - 1]?.id === id, () => `${who} heard of ${id} at position ${position}, where ${facts[position - 1]?.id ?? "nothing"} is`)
    }
    return last
  }

  /** Of facts that were appended together all are there, side by side. */
  private whole(facts: ReadonlyArray<StoredFact>): void {
    for (const [i, { data, id }] of facts.entries()) {
      const [life, w, n, place] = id.split("-")
      if (typeof data !== "object" || data === null || !("count" in data) || place !== "0") continue
      for (let k = 1; k < Number(data.count); k++) {
        insist(facts[i + k]?.id === `${life}-${w}-${n}-${k}`, () => `of the ${String(data.count)} facts that begin with ${id} there are ${k}`)
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
  let known: ReadonlyArray<StoredFact> = []
  for (let life = 0; life < 3; life++) {
    const does = life === 0 && isOld ? "upgrade" : "live"
    const plan: Plan = {
      file, told: join(folder, `told-${life}`), seed: seed * 16 + life, life, does, operates: random(3) === 0, sync: random(2) === 0 ? "full" : "normal",
      indexThreshold: [50, 3500, 16_384][random(3)] ?? 50, subscribed: history.subscribed, paged: history.paged,
      // Most is done at the beginning.
      ...(random(3) > 0 ? { dieAfter: 1 + random(does === "upgrade" ? 30 : [30, 100, 600][random(3)] ?? 30) } : {})
    }
    const said = await lived(plan, random(does === "upgrade" ? 150 : 120))
    for (const name of Fs.readdirSync(folder)) {
      if (name.endsWith(".copy") || name.endsWith(".bak")) sound(join(folder, name))
    }
    const facts = await factsOf(file, plan.indexThreshold)
    sound(file)
    known.forEach(({ id }, i) => insist(facts[i]?.id === id, () => `${id} is not at position ${i + 1} any more`))
    history.hold(said, facts)
    known = facts
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
      file, told: join(folder, `told-${life}`), seed, life, does, operates: false, sync: "full", indexThreshold: 300, subscribed: 0, paged: 0,
      ...(random(4) > 0 ? { dieAfter: 1 + random(40) } : {})
    }, random(400))
    const facts = await factsOf(file, 300)
    sound(file)
    const allowed = does === "restore" ? [700, 1500] : [1500]
    insist(allowed.includes(facts.length), () => `after ${does} there are ${facts.length} facts`)
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
