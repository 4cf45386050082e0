/**
 * What every benchmark needs: interleaved rounds, medians, the machine's own speed, folders for fixtures, one line a case.
 *
 * The rule: subjects of one case take turns within each round, so that a machine that slows down slows all of them. Only
 * the ratios are quoted; absolute figures are this machine's, at this time.
 */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"

/** One of the things compared. `run` works for about `millis` and says how much it did and how long it took. */
export interface Subject {
  readonly name: string
  readonly run: (millis: number) => Promise<Amount> | Amount
}

/** One of the things measured; `run` answers with the figure. */
export interface Gauge {
  readonly name: string
  readonly run: () => Promise<number> | number
}

/** So much work in so many milliseconds. */
export interface Amount {
  readonly count: number
  readonly millis: number
}

const median = (values: ReadonlyArray<number>): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const high = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? Number.NaN) + high) / 2
}

const shown = (value: number): string =>
  value >= 10_000 ? `${(value / 1000).toFixed(1)} k` : value >= 100 ? value.toFixed(0) : value.toPrecision(3)

/** One run of one benchmark. */
export class Bench {
  readonly name: string
  readonly quick: boolean
  /** A folder that is gone afterwards. */
  readonly folder: string
  /** A folder that stays: fixtures that take long to make. */
  readonly cache: string
  private readonly json: boolean

  constructor(name: string, quick: boolean, json: boolean) {
    this.name = name
    this.quick = quick
    this.json = json
    this.cache = Path.join(import.meta.dirname, ".cache")
    Fs.mkdirSync(this.cache, { recursive: true })
    // Beside the fixtures: the system's folder may be in memory, where a sync costs nothing.
    this.folder = Fs.mkdtempSync(Path.join(this.cache, `run-${name}-`))
  }

  /** Tells people; with `--json` on stderr. */
  say(text: string): void {
    const out = this.json ? process.stderr : process.stdout
    out.write(`${text}\n`)
  }

  /** Measures and prints how fast this machine syncs and computes, now. */
  calibrate(): void {
    const file = Fs.openSync(Path.join(this.folder, "floor"), "w")
    const block = Buffer.alloc(4096, 1)
    const syncs: Array<number> = []
    for (const end = performance.now() + 500; performance.now() < end;) {
      const start = performance.now()
      Fs.writeSync(file, block)
      Fs.fdatasyncSync(file)
      syncs.push(performance.now() - start)
    }
    Fs.closeSync(file)
    const text = JSON.stringify(Array.from({ length: 100 }, (_, i) => ({ id: `item-${i}`, value: i * 1.5, tags: ["a", "b"] })))
    const start = performance.now()
    let parses = 0
    while (performance.now() - start < 300) {
      JSON.parse(text)
      parses++
    }
    const mbps = parses * text.length / (performance.now() - start) / 1000
    this.say(`machine     ${Os.availableParallelism()} cores; node ${process.version}; fdatasync of 4 KiB ${shown(1000 / median(syncs))}/s; JSON.parse ${shown(mbps)} MB/s`)
  }

  /** Runs the subjects in turns, the first of them KSI; prints the medians and how KSI compares. */
  async compare(options: {
    readonly case: string
    readonly metric: string
    readonly unit: string
    readonly subjects: readonly [Subject, ...Array<Subject>]
    readonly millis?: number
    /** Fewer where a turn must be long. */
    readonly rounds?: number
  }): Promise<void> {
    const { subjects } = options
    // Many short turns: the machine's mood changes more slowly than that.
    const rounds = options.rounds ?? (this.quick ? 9 : 25)
    const millis = options.millis ?? 200
    const rates = new Map<string, Array<number>>(subjects.map(({ name }) => [name, []]))
    for (const { run } of subjects) await run(millis)
    for (let round = 0; round < rounds; round++) {
      // Nobody always runs after the same neighbour.
      const order = round % 2 === 0 ? subjects : subjects.toReversed()
      for (const { name, run } of order) {
        globalThis.gc?.()
        const { count, millis: took } = await run(millis)
        rates.get(name)?.push(count / took * 1000)
      }
    }
    this.print(options, rounds, rates)
  }

  /** As `compare`, for what is measured as one number where less is better: milliseconds, megabytes. */
  async measure(options: {
    readonly case: string
    readonly metric: string
    readonly unit: string
    readonly subjects: readonly [Gauge, ...Array<Gauge>]
    /** Fewer where a turn is long. */
    readonly rounds?: number
  }): Promise<void> {
    const rounds = options.rounds ?? (this.quick ? 3 : 5)
    const values = new Map<string, Array<number>>(options.subjects.map(({ name }) => [name, []]))
    for (let round = 0; round < rounds; round++) {
      const order = round % 2 === 0 ? options.subjects : options.subjects.toReversed()
      for (const { name, run } of order) values.get(name)?.push(await run())
    }
    this.print(options, rounds, values, "lower")
  }

  /**
   * A copy, for this run to change, of a file that takes long to make: made once and kept beside the others. Another name, for
   * instance with the format, makes another one.
   */
  async fixture(name: string, make: (filename: string) => Promise<unknown>): Promise<string> {
    const kept = Path.join(this.cache, name)
    if (!Fs.existsSync(kept)) {
      // Under its name it is whole.
      const unfinished = Path.join(this.folder, `new-${name}`)
      await make(unfinished)
      Fs.renameSync(unfinished, kept)
    }
    const copy = Path.join(this.folder, name)
    Fs.copyFileSync(kept, copy)
    return copy
  }

  /** Removes what the run made. */
  close(): void {
    Fs.rmSync(this.folder, { recursive: true, force: true })
  }

  private print(
    { case: id, metric, subjects, unit }: {
      readonly case: string
      readonly metric: string
      readonly unit: string
      readonly subjects: readonly [{ readonly name: string }, ...Array<{ readonly name: string }>]
    },
    rounds: number,
    rates: ReadonlyMap<string, ReadonlyArray<number>>,
    better: "higher" | "lower" = "higher"
  ): void {
    const [{ name: own }, ...peers] = subjects
    const values = rates.get(own) ?? []
    const mid = median(values)
    const against = Object.fromEntries(peers.map(({ name }) => {
      const peer = median(rates.get(name) ?? [])
      return [name, Number((better === "higher" ? mid / peer : peer / mid).toPrecision(3))]
    }))
    const [min, max] = [Math.min(...values), Math.max(...values)]
    this.say(`${`${this.name}/${id}`.padEnd(31)} ${own} ${shown(mid)} ${unit} (${shown(min)}-${shown(max)})`)
    for (const { name } of peers) {
      this.say(`${"".padEnd(32)}${name} ${shown(median(rates.get(name) ?? []))} ${unit}, ${own} x ${against[name]}`)
    }
    if (this.json) {
      const line = { bench: this.name, case: id, metric, unit, better, subject: own, min, median: mid, max, rounds, against }
      process.stdout.write(`${JSON.stringify(line)}\n`)
    }
  }
}
