/**
 * `import/real`: 55,628 real events (BPI Challenge 2020) through `ksi import` into a daemon with a new store, from the
 * start of the command to its end. `bare` reads the same file, parses every line and inserts it with node:sqlite in one
 * process: no socket, no checks, no index of streams; transactions of 1,000, synchronous=FULL.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Zlib from "node:zlib"
import type { Bench } from "./Bench.ts"
import * as Daemon from "./Daemon.ts"

const shared = Path.join(import.meta.dirname, "..", "..", "..", "shared", "data", "domestic-declarations.ndjson.gz")
const sample = Path.join(import.meta.dirname, "..", "examples", "declarations.ndjson")

const linesOf = (file: string): ReadonlyArray<string> => {
  const bytes = Fs.readFileSync(file)
  return (file.endsWith(".gz") ? Zlib.gunzipSync(bytes) : bytes).toString("utf8").trimEnd().split("\n")
}

const bare = (file: string, database: string): number => {
  const began = performance.now()
  const db = new DatabaseSync(database)
  db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
  db.exec("CREATE TABLE events (position INTEGER PRIMARY KEY, id TEXT UNIQUE, stream TEXT, name TEXT, data TEXT, time TEXT)")
  const insert = db.prepare("INSERT INTO events (id, stream, name, data, time) VALUES (?, ?, ?, ?, ?)")
  const lines = linesOf(file)
  for (let at = 0; at < lines.length; at += 1000) {
    db.exec("BEGIN")
    for (const line of lines.slice(at, at + 1000)) {
      const event = JSON.parse(line) as { id: string; subject: string; type: string; data: unknown; time: string }
      insert.run(event.id, event.subject, event.type, JSON.stringify(event.data), event.time)
    }
    db.exec("COMMIT")
  }
  db.close()
  return performance.now() - began
}

export const run = async (bench: Bench): Promise<void> => {
  const file = Fs.existsSync(shared) ? shared : sample
  const count = linesOf(file).length
  if (file === sample) bench.say(`the full file is not here: importing the sample of ${count} events, which says little`)
  let turn = 0
  await bench.compare({
    case: "real",
    metric: "import",
    unit: "events/s",
    subjects: [
      {
        name: "ksi",
        run: async () => {
          const home = Path.join(bench.folder, `home-${turn++}`)
          const daemon = await Daemon.start(home)
          const began = performance.now()
          await Daemon.ksi(home, "import", file, "--json")
          const millis = performance.now() - began
          await daemon.stop()
          return { count, millis }
        }
      },
      { name: "bare", run: () => ({ count, millis: bare(file, Path.join(bench.folder, `bare-${turn++}.db`)) }) }
    ]
  })
}
