/**
 * `ksi.toml`: what it says, and in which line.
 *
 * The rule: a file that cannot be read or parsed is one sentence with file, line and what; there being none is no error.
 *
 * **Example**
 *
 * ```ts
 * const file = yield* ConfigFile.parse("ksi.toml", "home = \"var\"\n\n[limits]\ndepth = 16\n")
 * file.entries.map(({ line, path }) => `${path.join(".")} in line ${line}`)
 * // ["home in line 1", "limits in line 3", "limits.depth in line 4"]
 * ```
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type { PlatformError } from "effect/PlatformError"
import * as Result from "effect/Result"
import { isObject } from "../event/Json.ts"

/** A key of the file, and its value. */
export interface Entry {
  /** The names of its tables and its own. */
  readonly path: ReadonlyArray<string>
  readonly value: unknown
  /** From 1; where the file is one long statement, its first line. */
  readonly line: number
}

/** What a file says: the keys at its top, and below each table those in it. */
export interface ConfigFile {
  readonly name: string
  readonly entries: ReadonlyArray<Entry>
}

/** Why a file cannot be used. */
export interface Unreadable {
  /** The file, and the line where there is one: `ksi.toml:3`. */
  readonly where: string
  readonly problem: string
}

// A file of settings is short; a longer one is something else.
const maxCharacters = 64 * 1024

type Path = ReadonlyArray<string>
type Values = Readonly<Record<string, unknown>>

const entriesOf = (values: Values, above: Path = []): ReadonlyArray<{ readonly path: Path; readonly value: unknown }> =>
  Object.keys(values).flatMap((key) => {
    const value = values[key]
    const path = [...above, key]
    // No setting is deeper than in a table.
    const nested = above.length === 0 && isObject(value) && !(value instanceof Date) ? entriesOf(value, path) : []
    return [{ path, value }, ...nested]
  })

const idOf = (path: Path): string => path.join("\0")

/** The first line of each statement, by what it defines. The text must be valid as a whole. */
const linesOf = (text: string, parse: (text: string) => Values | undefined): ReadonlyMap<string, number> => {
  const lines = new Map<string, number>()
  let header = ""
  let statement = ""
  let first = 1
  text.split("\n").forEach((line, i) => {
    if (statement === "") first = i + 1
    statement += `${line}\n`
    // A statement that is not whole yet is no valid text; one that is whole is, below the header of its table.
    const isHeader = statement.trimStart().startsWith("[")
    const values = parse(isHeader ? statement : `${header}${statement}`)
    if (values === undefined) return
    if (isHeader) header = statement
    for (const { path } of entriesOf(values)) if (!lines.has(idOf(path))) lines.set(idOf(path), first)
    statement = ""
  })
  return lines
}

const unparsed = (name: string, message: string): Unreadable => {
  const [, problem = message, line] = /^(.*) at line (\d+), column \d+$/s.exec(message) ?? []
  return { where: line === undefined ? name : `${name}:${line}`, problem: `this is not TOML: ${problem}` }
}

/** Parses the text of a file. */
export const parse = Effect.fnUntraced(function*(name: string, text: string): Effect.fn.Return<ConfigFile, Unreadable> {
  if (text.length > maxCharacters) {
    return yield* Effect.fail({ where: name, problem: `it has ${text.length} characters, at most ${maxCharacters} are read` })
  }
  // Few start with a file: those that do load the parser.
  const Toml = yield* Effect.promise(() => import("effect/encoding/Toml"))
  const parsed = Toml.parse(text)
  if (Result.isFailure(parsed)) return yield* Effect.fail(unparsed(name, parsed.failure.message))
  const lines = linesOf(text.replace(/^\uFEFF/, ""), (part) => Result.getOrUndefined(Toml.parse(part)))
  const entries = entriesOf(parsed.success).map((entry) => ({ ...entry, line: lines.get(idOf(entry.path)) ?? 1 }))
  return { name, entries }
})

const problemOf = ({ reason }: PlatformError): string =>
  reason._tag === "PermissionDenied" ? "it cannot be read: permission denied" : `it cannot be read: ${reason.message}`

/** Reads a file; `undefined` where there is none. */
export const read = Effect.fnUntraced(function*(
  name: string
): Effect.fn.Return<ConfigFile | undefined, Unreadable, FileSystem.FileSystem> {
  const fs = yield* FileSystem.FileSystem
  const text = yield* fs.readFileString(name).pipe(
    Effect.catch((error) =>
      error.reason._tag === "NotFound"
        ? Effect.succeed(undefined)
        : Effect.fail<Unreadable>({ where: name, problem: problemOf(error) }))
  )
  return text === undefined ? undefined : yield* parse(name, text)
})
