/**
 * `ksi import`: CloudEvents from a file or stdin into the store, in the order of their lines.
 *
 * The rule: one batch is on its way at a time, so that positions follow the order of the lines; the next ones are read
 * and checked meanwhile. A line that is refused is told with its number, and the import goes on. Importing again adds
 * nothing, so an import that broke off is simply repeated.
 *
 * **Example**
 *
 * ```ts
 * Import.sentence({ imported: 2, duplicates: 0, rejected: 0, seconds: 0.5 })
 * // imported 2 events in 0.5 s (4 events/s)
 * ```
 */
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Pull from "effect/Pull"
import * as Stream from "effect/Stream"
import { createGunzip } from "node:zlib"
import type { JsonObject } from "../event/Json.ts"
import { sentenceOf } from "../event/KsiError.ts"
import { Io, IoFailed } from "./Io.ts"
import * as Help from "./Help.ts"
import * as Lines from "./Lines.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

/** A line that was not taken. */
interface Rejection {
  readonly line: number
  readonly reason: string
  readonly error: string
}

/** How far an import is. */
interface Tally {
  imported: number
  /** Stored before with the same content. */
  duplicates: number
  rejected: number
}

/** So many rejected lines are told one by one; all are counted. */
const maxRejections = 1000

const aheadBatches = 4
const barMillis = 100
const lineMillis = 3000

type Item = { readonly batch: Lines.Batch } | { readonly bad: Lines.BadLine }

/** Bytes to batches and lines that are none, in the order of the lines as far as positions are concerned. */
export const itemsOf = <E, R>(bytes: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Item, E, R> =>
  Stream.mapAccumArray(bytes, () => ({ reader: new Lines.Reader(), batcher: Lines.makeBatcher() }), (state, chunks) => {
    const items: Array<Item> = []
    for (const chunk of chunks) gather(state.batcher, state.reader.push(chunk), items)
    return [state, items]
  }, {
    onHalt: ({ batcher, reader }) => {
      const items: Array<Item> = []
      gather(batcher, reader.end(), items)
      const batch = batcher.end()
      return batch === undefined ? items : [...items, { batch }]
    }
  })

const gather = (batcher: Lines.Batcher, lines: ReadonlyArray<Lines.Line | Lines.BadLine>, items: Array<Item>): void => {
  for (const line of lines) {
    if ("problem" in line) items.push({ bad: line })
    else {
      const batch = batcher.add(line)
      if (batch !== undefined) items.push({ batch })
    }
  }
}

const isGzip = (start: Uint8Array): boolean => start[0] === 0x1f && start[1] === 0x8b

/** The bytes themselves, or what is packed in them when they start as gzip does. */
export const unpacked = <E, R>(bytes: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Uint8Array, E | IoFailed, R> =>
  Stream.unwrap(Effect.gen(function*() {
    const pull = yield* Stream.toPull(bytes)
    const start: Array<Uint8Array> = []
    let done = false
    while (!done && start.reduce((n, chunk) => n + chunk.length, 0) < 2) {
      const chunks = yield* Pull.catchDone(pull, () => Effect.succeed(undefined))
      if (chunks === undefined) done = true
      else start.push(...chunks)
    }
    const head = Buffer.concat(start)
    const whole = done ? Stream.make<[Uint8Array]>(head) : Stream.concat(Stream.make<[Uint8Array]>(head), Stream.fromPull(Effect.succeed(pull)))
    return isGzip(head)
      ? NodeStream.pipeThroughDuplex(whole, {
        evaluate: createGunzip,
        onError: (cause) => new IoFailed({ stream: "gzip", problem: gzipProblem(cause) })
      })
      : whole
  }))

const gzipProblem = (cause: unknown): string =>
  typeof cause === "object" && cause !== null && "code" in cause && cause.code === "Z_BUF_ERROR"
    ? "the gzip data end too early; the file is cut off"
    : `the gzip data are damaged: ${sentenceOf(cause)}`

/** What was done, in words. */
export const sentence = ({ duplicates, imported, rejected, seconds }: Tally & { readonly seconds: number }): string => {
  const total = imported + duplicates
  const rate = `in ${seconds.toFixed(1)} s (${Output.grouped(Math.round(total / Math.max(seconds, 0.001)))} events/s)`
  const there = duplicates === 0 ? "" : `, ${Output.counted(duplicates, "event")} there already`
  const refused = rejected === 0 ? "" : `, ${Output.counted(rejected, "line")} rejected`
  return imported === 0 && duplicates > 0
    ? `nothing new${there}${refused} ${rate}`
    : `imported ${Output.counted(imported, "event")}${there}${refused} ${rate}`
}

/** The progress on a terminal: a bar as wide as fits where the size is known. */
export const bar = (tally: Tally, share: number | undefined, perSecond: number, columns: number): string => {
  const text = `${Output.counted(tally.imported + tally.duplicates, "event")}  ${Output.grouped(Math.round(perSecond))}/s`
  if (share === undefined) return text
  const percent = `${Math.floor(share * 100)}`.padStart(3)
  const width = Math.min(40, columns - text.length - 12)
  if (width < 5) return `${percent} %  ${text}`
  const filled = Math.round(share * width)
  return `[${"#".repeat(filled)}${"-".repeat(width - filled)}] ${percent} %  ${text}`
}

interface Source {
  readonly bytes: Stream.Stream<Uint8Array, IoFailed>
  /** Bytes in all; undefined for stdin. */
  readonly size: number | undefined
}

const open = Effect.fnUntraced(function*(file: string) {
  const { stdin } = yield* Io
  if (file === "-") return { bytes: stdin, size: undefined } satisfies Source
  const fs = yield* FileSystem.FileSystem
  const refuse = (problem: string) =>
    Effect.fail(new Output.Usage({ message: `cannot read "${file}": ${problem}`, similar: [], next: "ksi import --help" }))
  const info = yield* fs.stat(file).pipe(Effect.catch((cause) => refuse(Remote.fileProblem(cause))))
  if (info.type === "Directory") return yield* refuse("it is a directory")
  yield* fs.access(file, { readable: true }).pipe(Effect.catch((cause) => refuse(Remote.fileProblem(cause))))
  return {
    bytes: Stream.mapError(fs.stream(file), (cause) => new IoFailed({ stream: file, problem: Remote.fileProblem(cause) })),
    size: Number(info.size)
  } satisfies Source
})

/**
 * Says how it goes: over one line on a terminal, else a line now and then; nothing with `--json`. `share` is the part
 * that is done, from 0 to 1, where it is known.
 */
export const makeProgress = Effect.fnUntraced(function*(tally: Tally, share: () => number | undefined) {
  const { animated, columns, writeError } = yield* Io
  const json = yield* Output.Json
  const start = yield* Clock.currentTimeMillis
  let told = start
  let shown = false
  const clear = Effect.suspend(() => shown ? writeError("\r\u001b[K") : Effect.void)
  const tick = Effect.gen(function*() {
    const now = yield* Clock.currentTimeMillis
    if (json || now - told < (animated ? barMillis : lineMillis)) return
    told = now
    shown = animated
    const text = bar(tally, share(), (tally.imported + tally.duplicates) * 1000 / Math.max(1, now - start), columns)
    yield* writeError(animated ? `\r${text}\u001b[K` : `${text}\n`)
  })
  const seconds = Effect.map(Clock.currentTimeMillis, (now) => (now - start) / 1000)
  return { tick, clear, seconds }
})

const numberAt = (object: JsonObject, key: string): number => Number(object[key] ?? 0)

const rejectionsOf = (reply: JsonObject, { numbers }: Lines.Batch): ReadonlyArray<Rejection> => {
  const { rejections } = reply
  if (!Array.isArray(rejections)) return []
  return rejections.map((each: JsonObject) => ({
    line: numbers[numberAt(each, "index")] ?? 0,
    reason: Output.textOf(each["reason"]),
    error: Output.textOf(each["error"])
  }))
}

const run = Effect.fnUntraced(function*(source: Source, remote: Remote.Remote) {
  const { writeError } = yield* Io
  const json = yield* Output.Json
  const tally: Tally = { imported: 0, duplicates: 0, rejected: 0 }
  const rejections: Array<Rejection> = []
  let read = 0
  const progress = yield* makeProgress(tally, () => source.size === undefined || source.size === 0 ? undefined : Math.min(1, read / source.size))

  const reject = Effect.fnUntraced(function*(found: ReadonlyArray<Rejection>) {
    tally.rejected += found.length
    const told = found.slice(0, maxRejections - rejections.length)
    rejections.push(...told)
    if (json || told.length === 0) return
    yield* progress.clear
    yield* writeError(told.map(({ error, line }) => `✗ line ${line}  ${error}\n`).join(""))
    if (rejections.length === maxRejections) yield* writeError("  further rejected lines are only counted\n")
  })

  const send = Effect.fnUntraced(function*(batch: Lines.Batch) {
    const reply = yield* remote.callRaw("store:import", `{"events":${batch.json}}`)
    tally.imported += numberAt(reply, "imported")
    tally.duplicates += numberAt(reply, "duplicates")
    yield* reject(rejectionsOf(reply, batch))
    yield* progress.tick
  })

  const bytes = Stream.map(source.bytes, (chunk) => {
    read += chunk.length
    return chunk
  })
  yield* itemsOf(unpacked(bytes)).pipe(
    Stream.buffer({ capacity: aheadBatches }),
    Stream.runForEach((item) =>
      "batch" in item
        ? send(item.batch)
        : reject([{ line: item.bad.number, reason: "LineInvalid", error: item.bad.problem }])),
    Effect.onExit((exit) =>
      Effect.andThen(
        progress.clear,
        exit._tag === "Success" || tally.imported === 0 ? Effect.void : Output.narrate(
          `stopped after ${Output.counted(tally.imported + tally.duplicates, "event")}; import again: what is stored is not added twice`
        )
      ))
  )
  return { ...tally, rejections, seconds: yield* progress.seconds }
})

/** `ksi import`. */
export const importEvents = Command.make(
  "import",
  { file: Argument.String("file").pipe(Argument.withDescription("NDJSON of CloudEvents, plain or gzip; - for stdin")) },
  Effect.fnUntraced(function*({ file }) {
    const source = yield* open(file)
    const remote = yield* Remote.connect
    const { duplicates, imported, rejected, rejections, seconds } = yield* run(source, remote)
    yield* Output.documentOr(
      {
        imported,
        duplicates,
        rejected,
        seconds,
        eventsPerSecond: Math.round((imported + duplicates) / Math.max(seconds, 0.001)),
        rejections
      },
      () => `${sentence({ imported, duplicates, rejected, seconds })}\n`
    )
    if (rejected > 0) return yield* Effect.fail(new Output.Ended({ code: Output.exitCodes.DeclaredFailure }))
  }, Effect.scoped)
).pipe(
  Command.withDescription("Store CloudEvents as facts, a line each, in their order"),
  Command.annotate(Help.Sections, [Help.exits(0, 1, 2, 5)]),
  Command.withExamples([{ command: "ksi import orders.ndjson.gz" }, { command: "ksi export --home old | ksi import -" }])
)
