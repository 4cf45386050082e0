/**
 * `ksi backup`, `restore`, `verify` and `compact`: operating the store.
 *
 * The rule: with a daemon the daemon does it, while it serves; without one the command does it on the file that the
 * settings name. Only `restore` wants no daemon, for it puts another file in the place of the store.
 *
 * **Example**
 *
 * ```ts
 * Maintenance.size(1536)                      // "1.5 KiB"
 * const checks = [{ check: "pages", count: 12, what: "pages", wrong: 0 }]
 * Maintenance.report("a.db", { format: 3, position: 7, checks, problems: [] }, false)
 * // => "  ✓ pages  12 pages\n✓ a.db is sound: format 3, everything up to position 7\n"
 * ```
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Fs from "node:fs"
import * as Path from "node:path"
import type { JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import type * as StoreBackup from "../store/StoreBackup.ts"
import type { Compacted } from "../store/StoreMaintenance.ts"
import * as Help from "./Help.ts"
import { Io } from "./Io.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"
import * as Settings from "./Settings.ts"

const units = ["bytes", "KiB", "MiB", "GiB", "TiB"] as const

/** A size for people. */
export const size = (bytes: number): string => {
  const power = bytes < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10))
  return `${power === 0 ? Output.grouped(bytes) : (bytes / 1024 ** power).toFixed(1)} ${units[power]}`
}

/** A daemon where one answers; the store's file where none does. */
const reach = Effect.gen(function*() {
  const connected = yield* Effect.exit(Remote.connect)
  if (Exit.isSuccess(connected)) return { remote: connected.value }
  const error = Exit.findErrorOption(connected)
  // A daemon that may be elsewhere is meant, and no file here.
  const isAlone = !(yield* Settings.isElsewhere) && Option.exists(error, (error) => KsiError.is(error) && error.reason._tag === "ConnectionLost" && error.reason.unsent)
  if (!isAlone) return yield* Effect.failCause(connected.cause)
  const { store, storeFile } = yield* Settings.valid(yield* Settings.load({}))
  if (store === "memory") {
    const problem = "the settings say store = memory: without a daemon there is nothing"
    return yield* KsiError.fail(new KsiError.StoreFailure({ operation: "open", problem }))
  }
  return { file: Path.resolve(storeFile) }
})

// Only who asks for it loads what works on files.
const loaded = Effect.promise(() => import("../store/StoreBackup.ts"))

const tickShare = 0.01

/** Says how far it is, over one line of a terminal. */
const withProgress = <A, E, R>(what: string, work: (onProgress: (share: number) => void) => Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const { animated, writeError } = yield* Io
    if (!animated || (yield* Output.Json)) return yield* work(() => {})
    const fork = Effect.runForkWith(yield* Effect.context())
    let told = 0
    const tell = (share: number) => {
      if (share - told < tickShare) return
      told = share
      fork(writeError(`\r${what} ${Math.floor(share * 100)} %\u001b[K`))
    }
    return yield* Effect.ensuring(work(tell), writeError("\r\u001b[K"))
  })

/** How far a store goes, for people: where facts were removed there are fewer than positions. */
const upTo = (position: unknown): string => position === 0 ? "a store without facts" : `everything up to position ${Output.grouped(Number(position))}`

const fileArgument = Argument.String("file")

// ------------------------------------------------------------------------------------------------------------- backup

const refuseName = (options: StoreBackup.Options, problemOf: typeof StoreBackup.nameProblem) => {
  const problem = problemOf(options)
  if (problem === undefined) return Effect.void
  const next = options.force !== true && Fs.existsSync(options.to) ? `ksi backup --force ${options.to}` : "ksi backup --help"
  return Effect.fail(new Output.Usage({ message: problem, similar: [], next }))
}

/** `ksi backup`. */
export const backup = Command.make(
  "backup",
  {
    file: fileArgument.pipe(Argument.withDescription("The file to make")),
    force: Flag.Boolean("force").pipe(Flag.withDescription("Replace a file that is there"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function*({ file, force }) {
    const elsewhere = yield* Settings.isElsewhere
    if (elsewhere && !Path.isAbsolute(file)) {
      return yield* Effect.fail(new Output.Usage({ message: `the daemon writes ${file} where it runs: give a path from the root`, similar: [], next: "ksi backup --help" }))
    }
    const to = Path.resolve(file)
    const { backup, nameProblem } = yield* loaded
    const at = yield* reach
    // What is there already is the daemon's to say, where its files may be others than those here.
    if (!elsewhere) yield* refuseName({ from: at.file ?? "", to, force }, nameProblem)
    const { bytes, position }: JsonObject | StoreBackup.Backup = at.remote === undefined
      ? yield* withProgress("backing up", (tell) => backup({ from: at.file, to, force }, tell))
      : yield* at.remote.call("store:backup", { file: to, ...(force ? { force } : {}) })
    yield* Output.documentOr({ file: to, bytes, position }, () =>
      `backed up ${upTo(position)} to ${to} (${size(Number(bytes))})\n`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("Copy the store to a file, also while a daemon writes it, and read the copy back"),
  Command.annotate(Help.Sections, [Help.exits(0, 2, 4, 5)]),
  Command.withExamples([{ command: "ksi backup /var/backups/ksi-monday.db" }])
)

// ------------------------------------------------------------------------------------------------------------ restore

/** `ksi restore`. */
export const restore = Command.make(
  "restore",
  { file: fileArgument.pipe(Argument.withDescription("A backup")) },
  Effect.fnUntraced(function*({ file }) {
    const from = Path.resolve(file)
    const { store, storeFile } = yield* Settings.valid(yield* Settings.load({}))
    if (!Fs.existsSync(from)) {
      return yield* Effect.fail(new Output.Usage({ message: `there is no file ${from}`, similar: [], next: "ksi restore --help" }))
    }
    if (store === "memory") {
      return yield* Effect.fail(new Output.Usage({ message: "the settings say store = memory: there is no file to restore", similar: [], next: "ksi doctor" }))
    }
    const to = Path.resolve(storeFile)
    const { restore } = yield* loaded
    const restored = yield* withProgress("checking the backup", (tell) => restore({ from, to }, tell))
    if ("report" in restored) {
      const problems = restored.report.problems.slice(0, 3).map(({ check, problem }) => `${check}: ${problem}`)
      return yield* Effect.fail(new Output.Damaged({ message: `${from} is damaged, and nothing was restored`, problems, next: `ksi verify ${file}` }))
    }
    const { kept, position } = restored
    yield* Output.documentOr({ file: to, backup: from, position, ...(kept === undefined ? {} : { kept }) }, () =>
      `restored ${upTo(position)} to ${to}\n${kept === undefined ? "" : `the store that was there is ${kept}\n`}`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("Put a backup in the place of the store, while no daemon runs, and keep the store beside it"),
  Command.annotate(Help.Sections, [Help.exits(0, 2, 5, 7)]),
  Command.withExamples([{ command: "ksi stop && ksi restore /var/backups/ksi-monday.db && ksi start" }])
)

// ------------------------------------------------------------------------------------------------------------- verify

/** What was found in a file, for people. */
export const report = (file: string, { checks, format, position, problems }: StoreBackup.Report, coloured: boolean): string => {
  const paint = (code: string, text: string) => coloured ? `\u001b[${code}m${text}\u001b[0m` : text
  const [good, bad] = [paint("32", "✓"), paint("31", "✗")]
  const width = Math.max(...checks.map(({ check }) => check.length))
  const indent = " ".repeat(width + 6)
  const lines = checks.flatMap(({ check, count, what, wrong }) => {
    const told = problems.filter((problem) => problem.check === check)
    const head = `  ${wrong === 0 ? good : bad} ${check.padEnd(width)}  ${Output.grouped(count)} ${what}`
    if (wrong === 0) return [head]
    return [
      `${head}: ${Output.counted(wrong, "problem")}`, ...told.map(({ problem }) => `${indent}${problem}`),
      ...told.slice(0, 1).map(({ mend }) => `${indent}mend: ${mend}`)
    ]
  })
  // A quick look counts no facts.
  const facts = checks.find(({ check }) => check === "facts")
  const extent = facts === undefined ? upTo(position) : Output.counted(facts.count, "fact")
  const sum = problems.length === 0
    ? `${good} ${file} is sound: format ${format}, ${extent}`
    : `${bad} ${file} is damaged`
  return [...lines, sum, ""].join("\n")
}

/** What was named must be there; where nothing was, there is no store yet. */
const absent = (file: string, isNamed: boolean): Effect.Effect<never, Output.Usage | KsiError.KsiError> =>
  isNamed
    ? Effect.fail(new Output.Usage({ message: `there is no file ${file}`, similar: [], next: "ksi verify --help" }))
    : KsiError.fail(new KsiError.StoreFailure({ operation: "verify", problem: `there is no store ${file}` }))

/** `ksi verify`. */
export const verify = Command.make(
  "verify",
  {
    file: fileArgument.pipe(Argument.withDescription("A store or a backup; the store of the daemon, or of the settings, where none is named"), Argument.optional),
    quick: Flag.Boolean("quick").pipe(Flag.withDescription("Only pages and layout, not every fact"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function*({ file: given, quick }) {
    const { coloured, interactive } = yield* Io
    const { verify } = yield* loaded
    if (Option.isSome(given) && Option.isSome(yield* Settings.Url)) {
      return yield* Effect.fail(new Output.Usage({ message: "a file is looked at where it lies, and --url names a daemon: give one of them", similar: [], next: "ksi verify --help" }))
    }
    const at = Option.isSome(given) ? { file: Path.resolve(given.value) } : yield* reach
    if (at.file !== undefined && !Fs.existsSync(at.file)) return yield* absent(at.file, Option.isSome(given))
    const reply = at.file === undefined ? yield* at.remote.call("store:verify", quick ? { quick } : {}) : undefined
    // The event's schema says so.
    const found = (reply as StoreBackup.Report | undefined) ??
      (yield* withProgress("verifying", (onProgress) => verify(at.file ?? "", { quick, onProgress })))
    const file = at.file ?? Output.textOf(reply?.["file"])
    const { checks, format, position, problems } = found
    const status = problems.length === 0 ? "ok" : "problem"
    yield* Output.documentOr({ file, status, format, position, checks, problems }, () => report(file, found, interactive && coloured))
    if (status === "problem") return yield* Effect.fail(new Output.Ended({ code: Output.exitCodes.CheckFailed }))
  }, Effect.scoped)
).pipe(
  Command.withDescription("Look at every page and every fact of a store, also while a daemon writes it"),
  Command.annotate(Help.Sections, [Help.exits(0, 2, 4, 5, 7)]),
  Command.withExamples([{ command: "ksi verify" }, { command: "ksi verify /var/backups/ksi-monday.db" }])
)

// ------------------------------------------------------------------------------------------------------------ compact

/** On a file that nobody else has open. */
const rewrite = Effect.fnUntraced(function*(filename: string) {
  if (!Fs.existsSync(filename)) {
    return yield* KsiError.fail(new KsiError.StoreFailure({ operation: "compact", problem: `there is no store ${filename}` }))
  }
  const { layer } = yield* Effect.promise(() => import("../store/SqliteEventStore.ts"))
  const { StoreMaintenance } = yield* Effect.promise(() => import("../store/StoreMaintenance.ts"))
  return yield* Context.get(yield* Layer.build(layer({ filename })), StoreMaintenance).rewrite
}, (effect) =>
  // What is said of an upgrade is no data.
  Effect.flatMap(Output.Json, (json) =>
    effect.pipe(Effect.provideService(Logger.LogToStderr, true), Effect.provideService(References.MinimumLogLevel, json ? "None" : "Info"))))

/** `ksi compact`. */
export const compact = Command.make("compact", {}, Effect.fnUntraced(function*() {
  const at = yield* reach
  // The event's schema says so.
  const { bytesAfter, bytesBefore, bytesFree, removed } = at.remote === undefined ? yield* rewrite(at.file) : (yield* at.remote.call("store:compact", {})) as unknown as Compacted
  yield* Output.documentOr({ bytesBefore, bytesAfter, bytesFree, removed }, () => {
    const gone = removed.filter(({ count }) => count > 0).map(({ count, what }) => `removed ${Output.grouped(count)} ${what}\n`)
    const rest = bytesFree === 0 ? "" : `${size(bytesFree)} in it are free and will be used again; stop the daemon and run ksi compact to give them back\n`
    return `${gone.join("")}${size(bytesBefore)} before, ${size(bytesAfter)} now\n${rest}`
  })
}, Effect.scoped)).pipe(
  Command.withDescription("Remove what may go, and give free space of the store's file back to the disk"),
  Command.annotate(Help.Sections, [Help.exits(0, 4, 5)]),
  Command.withExamples([
    { command: "ksi compact", description: "While a daemon runs, it is done piece by piece; without one, the file is written anew" }
  ])
)
