/**
 * What `--help` and `ksi help` look like, and what they say beside what the commands say of themselves.
 *
 * The rule: a page of help is about its command. What concerns all commands is told once, by `ksi --help`; the many
 * limits by `ksi help limits`.
 *
 * **Example**
 *
 * ```ts
 * Help.table([["--stream ID", "Only this stream"], ["--all", "Also KSI's own streams"]], Infinity)
 * // ["  --stream ID  Only this stream", "  --all        Also KSI's own streams"]
 * ```
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import type * as HelpDoc from "effect/cli/HelpDoc"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Config from "../server/Config.ts"
import { Io } from "./Io.ts"
import * as Output from "./Output.ts"

type Rows = ReadonlyArray<readonly [left: string, right: string]>

/** A part of a page that a command adds. */
export interface Section {
  readonly title: string
  readonly rows: Rows
}

/** The parts that a command adds to its page, before the examples. */
export const Sections = Context.Reference<ReadonlyArray<Section>>("ksi/cli/Help/Sections", { defaultValue: () => [] })

/** What the exit codes mean to those who do not look at one command. */
export const exitCodes: Section = {
  title: "EXIT CODES",
  rows: [
    ["0", "done"], ["1", "the handler failed with a declared error, or lines of an import were rejected"],
    ["2", "the command line or the payload is wrong"], ["3", "not found"], ["4", "denied, or not known"],
    ["5", "unavailable: no daemon, a deadline, a limit"], ["6", "conflict"], ["7", "a check found a problem"],
    ["70", "a bug"], ["130", "interrupted"]
  ]
}

/** The exit codes that a command has to do with. */
export const exits = (...codes: ReadonlyArray<number>): Section =>
  ({ ...exitCodes, rows: exitCodes.rows.filter(([code]) => codes.includes(Number(code))) })

/** For commands that take every setting as a flag. */
export const limits: Section = {
  title: "LIMITS",
  rows: [["--limit-… VALUE", "Every limit is a flag, as --limit-depth 128; ksi help limits lists them"]]
}

// What is longer has its text on the next line.
const maxLeft = 34

/** Rows in two columns; the second one goes on below its own beginning where it is too wide. */
export const table = (rows: Rows, width: number): ReadonlyArray<string> => {
  const column = 4 + Math.max(0, ...rows.map(([left]) => left.length).filter((length) => length <= maxLeft))
  return rows.map(([left, right]) => {
    const text = Output.hanging(right, column, width)
    return (left.length > maxLeft ? `  ${left}\n${" ".repeat(column)}${text}` : `  ${left.padEnd(column - 2)}${text}`).trimEnd()
  })
}

/** The values of a flag stand after its name; they need not be said again. */
const descriptionOf = (description: Option.Option<string>): string => Option.getOrElse(description, () => "").replace(/ \(choices: [^)]*\)$/, "")

const flagRow = ({ aliases, description, name, type }: HelpDoc.FlagDoc) =>
  [`${[`--${name}`, ...aliases].join(", ")}${type === "boolean" ? "" : ` ${type}`}`, descriptionOf(description)] as const

const argumentRow = ({ description, name, required, variadic }: HelpDoc.ArgDoc) =>
  [`${name}${variadic ? " …" : ""}`, `${descriptionOf(description)}${required ? "" : " (optional)"}`] as const

const usageOf = (usage: string): string => usage.replace(/\.\.\.>/g, " …>").replace(/\[<([^>]+)>\]/g, "[$1]")

const exampleRow = ({ command, description = "" }: HelpDoc.ExampleDoc) => description === "" ? [command] : [`# ${description}`, command]

/** A page of help, at most `width` characters wide where words allow it. Ends with a line feed. */
export const render = (doc: HelpDoc.HelpDoc, { bold, width }: { readonly bold: boolean; readonly width: number }): string => {
  const parts: Array<string> = []
  const add = (title: string, lines: ReadonlyArray<string>) => {
    if (lines.length > 0) parts.push([bold ? `\u001b[1m${title}\u001b[0m` : title, ...lines, ""].join("\n"))
  }
  const isRoot = doc.commandPath === undefined || doc.commandPath.length === 1
  add("DESCRIPTION", [`  ${Output.hanging(doc.description, 2, width)}`])
  add("USAGE", [`  ${usageOf(doc.usage)}`])
  for (const { commands, group = "SUBCOMMANDS" } of doc.subcommands ?? []) {
    add(group.toUpperCase(), table(commands.map(({ description, name }) => [name, description]), width))
  }
  add("ARGUMENTS", table((doc.args ?? []).map(argumentRow), width))
  add("FLAGS", table(doc.flags.map(flagRow), width))
  if (isRoot) add("FLAGS OF EVERY COMMAND", table((doc.globalFlags ?? []).map(flagRow), width))
  for (const { rows, title } of Context.get(doc.annotations, Sections)) add(title, table(rows, width))
  add("EXAMPLES", (doc.examples ?? []).flatMap(exampleRow).map((line) => `  ${line}`))
  if (!isRoot) parts.push("--json, --home, --socket, --url and other flags of every command: ksi --help\n")
  return parts.join("\n")
}

/** A command that is about all commands; the one who knows them all carries it out. */
export class Wanted extends Schema.TaggedClass<Wanted>()("HelpWanted", { path: Schema.Array(Schema.String) }) {}

const limitsPage = (width: number): string => {
  const rows = Config.all.filter(({ table }) => table !== undefined).map(({ description, flag, kind, otherwise }) =>
    [`--${flag} ${kind.metavar}`, `${description}; default ${otherwise}`] as const)
  const how = "Flags of ksi start and ksi doctor; --limit-depth is KSI_LIMIT_DEPTH in the environment, and depth in [limits] of ksi.toml"
  return ["LIMITS", `  ${Output.hanging(how, 2, width)}`, "", ...table(rows, width), ""].join("\n")
}

/** `ksi help`. */
export const help = Command.make(
  "help",
  { path: Argument.String("command").pipe(Argument.withDescription("A command, as call or token create; or limits"), Argument.variadic()) },
  Effect.fnUntraced(function*({ path }) {
    if (path.join(" ") !== "limits") return yield* Effect.fail(new Wanted({ path }))
    const io = yield* Io
    yield* io.write(limitsPage(io.width))
  })
).pipe(
  Command.withDescription("Show the help of a command, as its --help does"),
  Command.withExamples([{ command: "ksi help token create" }, { command: "ksi help limits", description: "All limits with their defaults" }])
)
