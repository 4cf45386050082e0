/**
 * How a command speaks: documents and lines on stdout, errors in words on stderr, and what the exit code means.
 *
 * The rule: an error says its subject, its cause, the evidence, the nearest match and the next command, in aligned
 * lines. With `--json` it is exactly one line on stderr, and nothing else is said there.
 *
 * **Example**
 *
 * ```ts
 * const failure = Output.failureOf(
 *   KsiError.make(new KsiError.NoHandler({ event: "stock:reserve", passed: 0, similar: [] })))
 * failure.code                                // 3
 * Output.render(failure, false)
 * // ✗ NoHandler  nobody handles "stock:reserve"
 * //   next       ksi describe stock:reserve
 * ```
 */
import * as Cause from "effect/Cause"
import * as Flag from "effect/cli/Flag"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { DeclaredFailure } from "../bus/KsiService.ts"
import { isObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import { RemoteFailure } from "../wire/Frame.ts"
import { Closed, Io, IoFailed } from "./Io.ts"

/** `--json`: documents for programs. */
export const Json = GlobalFlag.Setting("json")({
  flag: Flag.Boolean("json").pipe(
    Flag.withDescription("Print JSON: one document, or a line for each item"),
    Flag.withDefault(false)
  )
})

/** The command line itself is wrong. */
export class Usage extends Schema.TaggedClass<Usage>()("Usage", {
  message: Schema.String,
  /** What was probably meant. */
  similar: Schema.Array(Schema.String),
  /** The next command. */
  next: Schema.String
}) {}

/** Something threw where nobody catches: a timer, a promise that nobody waits for. */
export class Uncaught extends Schema.TaggedClass<Uncaught>()("Uncaught", { message: Schema.String }) {}

/** The command has said all there is to say; only the exit code is left. */
export class Ended extends Schema.TaggedClass<Ended>()("Ended", { code: Schema.Int }) {}

/** What was to be used is not as it should be, and nothing was done with it. */
export class Damaged extends Schema.TaggedClass<Damaged>()("Damaged", {
  message: Schema.String,
  problems: Schema.Array(Schema.String),
  /** The next command. */
  next: Schema.String
}) {}

/** The exit code of every reason: the one table. */
export const exitCodes = {
  DeclaredFailure: 1,
  Rejected: 1,
  HandlerFailed: 1,
  Usage: 2,
  PayloadInvalid: 2,
  PatternInvalid: 2,
  FrameInvalid: 2,
  WrongShape: 2,
  UnknownEvent: 3,
  NoHandler: 3,
  NotFound: 3,
  PermissionDenied: 4,
  Unauthenticated: 4,
  ConnectionLost: 5,
  DeadlineExceeded: 5,
  LimitExceeded: 5,
  SlowConsumer: 5,
  StoreFailure: 5,
  StoreLocked: 5,
  PluginInvalid: 5,
  ListenFailed: 5,
  IoFailed: 5,
  VersionConflict: 6,
  ConditionFailed: 6,
  StreamDeleted: 6,
  IdConflict: 6,
  IdempotencyConflict: 6,
  CheckFailed: 7,
  ReplyInvalid: 70,
  Defect: 70,
  Interrupted: 130
} as const satisfies Record<KsiError.Reason["_tag"] | "DeclaredFailure" | "Usage" | "CheckFailed" | "Defect" | "IoFailed" | "Interrupted", number>

/** An error ready to be shown. */
export interface Failure {
  readonly reason: string
  /** One sentence with everything in it. */
  readonly message: string
  /** The same without what `rows` say. */
  readonly headline: string
  /** Label and text, as `["next", "ksi start"]`. */
  readonly rows: ReadonlyArray<readonly [label: string, text: string]>
  readonly details: object
  readonly retryable: boolean
  readonly code: number
}

// A daemon of a newer version may say a reason that is not in the table.
const codes: ReadonlyMap<string, number> = new Map(Object.entries(exitCodes))

const withoutTag = (value: object): object => {
  const { _tag, ...fields } = { _tag: undefined, ...value }
  return fields
}

const nearestRow = (names: ReadonlyArray<string>): Failure["rows"] =>
  names.length === 0 ? [] : [["nearest", names.join(", ")]]

const problemRows = (root: "data" | "reply", problems: ReadonlyArray<KsiError.Problem>): Failure["rows"] =>
  problems.map(({ path, problem }) =>
    path === "" ? [root, problem] : [path.split(".").at(-1) ?? path, `${problem}   (at ${root}.${path})`])

/** The headline of a reason: its message without what gets a row of its own. */
const headlineOf = (reason: KsiError.Reason): string => {
  switch (reason._tag) {
    case "PayloadInvalid":
      return `${reason.event} rejected before any handler ran`
    case "ReplyInvalid":
      return `the handler of ${reason.event} answered with an invalid reply`
    case "UnknownEvent":
      return new KsiError.UnknownEvent({ ...reason, similar: [] }).message
    case "NoHandler":
      return new KsiError.NoHandler({ ...reason, similar: [] }).message
    case "NotFound":
      return new KsiError.NotFound({ ...reason, similar: [] }).message
    default:
      return reason.message
  }
}

const ofReason = (reason: KsiError.Reason): Failure => ({
  reason: reason._tag,
  message: reason.message,
  headline: headlineOf(reason),
  rows: [
    ...("problems" in reason ? problemRows(reason._tag === "ReplyInvalid" ? "reply" : "data", reason.problems) : []),
    ...("similar" in reason ? nearestRow(reason.similar) : []),
    ["next", reason.next]
  ],
  details: withoutTag(reason),
  retryable: reason.retryable,
  code: exitCodes[reason._tag]
})

/** What a declared error says of itself; of one without words its tag, and on one line its fields. */
const declaredText = ({ error, event, message }: DeclaredFailure): { readonly short: string; readonly whole: string } => {
  if (message !== "" && message !== `${event} failed`) return { short: message, whole: message }
  if (!isObject(error)) return { short: textOf(error), whole: textOf(error) }
  const { _tag: tag = "as declared", ...fields } = error
  const named = Object.entries(fields).map(([key, value]) => `${key}: ${textOf(value)}`)
  return { short: textOf(tag), whole: [textOf(tag), ...named].join(", ") }
}

const ofDeclared = (failure: DeclaredFailure): Failure => declaredOf(failure, declaredText(failure))

const declaredOf = ({ error, event }: DeclaredFailure, text: ReturnType<typeof declaredText>): Failure => ({
  reason: "DeclaredFailure",
  message: `${event} failed: ${text.whole}`,
  headline: `${event} failed: ${text.short}`,
  rows: [
    ...(isObject(error)
      ? Object.entries(error).map(([key, value]) => [key === "_tag" ? "error" : key, textOf(value)] as const)
      : [["error", textOf(error)] as const]),
    ["next", `ksi describe ${event}`]
  ],
  details: { event, error },
  retryable: false,
  code: exitCodes.DeclaredFailure
})

const ofDefect = (message: string, details: object, next: string): Failure => ({
  reason: "Defect",
  message,
  headline: message,
  rows: [["next", next]],
  details,
  retryable: false,
  code: exitCodes.Defect
})

// A request that the daemon interrupted was not answered because the daemon is ending.
const remoteReasons: ReadonlyMap<string, string> = new Map([["defect", "Defect"], ["interrupt", "ConnectionLost"]])

const ofRemote = ({ cause, details, event, message, reason, retryable }: RemoteFailure): Failure => ({
  reason: remoteReasons.get(cause) ?? reason,
  message,
  headline: message,
  rows: [["next", cause === "defect" ? "look for it in the daemon's log" : "ksi status"]],
  details: { event, ...(isObject(details) ? details : {}) },
  retryable,
  code: codes.get(remoteReasons.get(cause) ?? reason) ?? (retryable ? exitCodes.ConnectionLost : exitCodes.Defect)
})

/** A text as it is, any other value as JSON. */
export const textOf = (value: unknown): string => typeof value === "string" ? value : JSON.stringify(value) ?? "nothing"

/** How an error is shown, and with which exit code. */
export const failureOf = (error: unknown): Failure => {
  if (KsiError.is(error)) return ofReason(error.reason)
  if (error instanceof DeclaredFailure) return ofDeclared(error)
  if (error instanceof Usage) {
    const { message, next, similar } = error
    return {
      reason: "Usage",
      message,
      headline: message,
      rows: [...nearestRow(similar), ["next", next]],
      details: similar.length === 0 ? {} : { similar },
      retryable: false,
      code: exitCodes.Usage
    }
  }
  if (error instanceof IoFailed) {
    const message = `${error.stream} failed: ${error.problem}`
    return {
      reason: "IoFailed", message, headline: message, rows: [], details: withoutTag(error), retryable: false,
      code: exitCodes.IoFailed
    }
  }
  if (error instanceof Damaged) {
    const { message, next, problems } = error
    return {
      reason: "CheckFailed", message, headline: message, rows: [...problems.map((each) => ["problem", each] as const), ["next", next]],
      details: { problems }, retryable: false, code: exitCodes.CheckFailed
    }
  }
  if (error instanceof Uncaught) return ofDefect(error.message, {}, "look for it in the log above")
  if (error instanceof RemoteFailure) return ofRemote(error)
  return ofDefect(error instanceof Error ? error.message : textOf(error), {}, "report this: it is a defect of ksi")
}

const paint = (code: string, text: string, coloured: boolean) => coloured ? `\u001b[${code}m${text}\u001b[0m` : text

/** The error in words: a headline, then aligned rows. Ends with a line feed. */
export const render = (failure: Failure, coloured: boolean): string => {
  // As wide as the widest label, at least as the shortest reason, so that errors look alike.
  const width = Math.max(9, ...failure.rows.map(([label]) => label.length))
  const rows = failure.rows.map(([label, text]) =>
    `  ${paint("2", label.padEnd(width), coloured)}  ${text.replaceAll("\n", `\n${" ".repeat(width + 4)}`)}\n`)
  return `${paint("31", "✗", coloured)} ${paint("1", failure.reason, coloured)}  ${failure.headline}\n${rows.join("")}`
}

/** The error for programs: one line. Ends with a line feed. */
export const renderJson = ({ details, message, reason, retryable }: Failure): string =>
  `${JSON.stringify({ error: { reason, message, details, retryable } })}\n`

/** Says what went wrong, and answers with the exit code. */
export const report = Effect.fnUntraced(function*(cause: Cause.Cause<unknown>, json: boolean) {
  const io = yield* Io
  const error = Cause.squash(cause)
  if (error instanceof Closed) return 0
  if (error instanceof Ended) return error.code
  if (Cause.hasInterruptsOnly(cause)) return exitCodes.Interrupted
  const failure = failureOf(error)
  yield* io.writeError(json ? renderJson(failure) : render(failure, io.coloured))
  return failure.code
})

/** Prints one JSON document: compact with `--json`, indented for people. */
export const document = Effect.fnUntraced(function*(value: unknown) {
  const { write } = yield* Io
  const json = yield* Json
  yield* write(`${json ? JSON.stringify(value) : JSON.stringify(value, null, 2)}\n`)
})

/** Prints a JSON document with `--json`, else the text (which ends with a line feed). */
export const documentOr = Effect.fnUntraced(function*(value: unknown, text: () => string) {
  const { write } = yield* Io
  yield* write((yield* Json) ? `${JSON.stringify(value)}\n` : text())
})

/** Says something about the work on stderr; silent with `--json`. */
export const narrate = Effect.fnUntraced(function*(text: string) {
  const { writeError } = yield* Io
  if (!(yield* Json)) yield* writeError(`${text}\n`)
})

/** `3790` as `3,790`. */
export const grouped = (n: number): string => String(n).replace(/\B(?=(\d{3})+$)/g, ",")

/** `1 stream`, `3,790 streams`. */
export const counted = (n: number, noun: string): string => `${grouped(n)} ${noun}${n === 1 ? "" : "s"}`

/** Rows as aligned columns, a line each; `widths` remembers how wide earlier rows were. The last column is not padded. */
export const aligned = (rows: ReadonlyArray<ReadonlyArray<string>>, widths: Array<number> = []): ReadonlyArray<string> => {
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)))
  return rows.map((row) =>
    row.map((cell, i) => i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0)).join("  ").trimEnd())
}

/** Prints a line for each item, as they come; what comes together is written together. */
export const lines = Effect.fnUntraced(function*<A, E, R>(source: Stream.Stream<A, E, R>, toLine: (item: A) => string) {
  const { write } = yield* Io
  yield* Stream.runForEachArray(source, (page) => write(`${page.map(toLine).join("\n")}\n`))
})

// A column narrower than this is harder to read than a line that the terminal breaks.
const minColumn = 24

/** A text in lines of at most so many characters, those after the first one below its beginning. */
export const hanging = (text: string, indent: number, width: number): string => {
  const room = width - indent
  if (text.length <= room || room < minColumn) return text
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > room) {
      lines.push(line)
      line = word
    } else line = line === "" ? word : `${line} ${word}`
  }
  return [...lines, line].join(`\n${" ".repeat(indent)}`)
}

/** A line that fits: one that is wider ends in `…`. */
export const shortened = (line: string, width: number): string => {
  if (line.length <= width) return line
  const characters = Array.from(line)
  return characters.length <= width ? line : `${characters.slice(0, Math.max(0, width - 1)).join("")}…`
}

/**
 * Prints items as they come: a JSON line each with `--json`, else aligned columns. Widths grow as wider items come, so
 * that nothing is held back; `heads` stand above them where there are any. On a terminal a line is cut to its width; what
 * is piped is whole.
 */
export const items = Effect.fnUntraced(function*<A, E, R>(
  source: Stream.Stream<A, E, R>,
  toLine: (item: A) => string,
  toRow: (item: A) => ReadonlyArray<string>,
  heads: ReadonlyArray<string> = []
) {
  if (yield* Json) return yield* lines(source, toLine)
  const { width, write } = yield* Io
  const widths: Array<number> = []
  let above = heads.length === 0 ? [] : [heads]
  yield* Stream.runForEachArray(source, (page) => {
    const rows = aligned([...above, ...page.map(toRow)], widths)
    above = []
    return write(rows.map((line) => `${shortened(line, width)}\n`).join(""))
  })
})
