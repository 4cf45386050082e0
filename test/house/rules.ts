/**
 * The rules of the house, each a function from sources to offenders. An offender is
 * a line for people: place, and what to do.
 */
import * as Path from "node:path/posix"
import { importsOf, lineAt, type Source } from "./Source.ts"

/** A rule over all files at once. */
export type Rule = (sources: ReadonlyArray<Source>) => ReadonlyArray<string>

const at = (source: Source, offset: number, problem: string) => `${source.path}:${lineAt(source, offset)} ${problem}`
const each = (rule: (source: Source) => ReadonlyArray<string>): Rule => (sources) => sources.flatMap(rule)

/** Offenders where a pattern matches in the code, outside comments and strings. */
const forbid = (pattern: RegExp, problem: string, except: RegExp = /^$/): Rule =>
  each((source) =>
    except.test(source.path)
      ? []
      : [...source.code.matchAll(pattern)].map((match) => at(source, match.index, `${match[0].trim()}: ${problem}`)))

const floors: Readonly<Record<string, number>> = {
  event: 0, resilience: 1, bus: 2, store: 3, flow: 4, wire: 4, federation: 5, plugins: 6, server: 6, testing: 7, cli: 7,
  "Ksi.ts": 7, "main.ts": 8, "index.ts": 8, "testing.ts": 8
}
// What others import: names, one line each.
const isEntry = ({ path }: Source): boolean => path === "src/index.ts" || path === "src/testing.ts"

const floorOf = (path: string): number | undefined => floors[path.split("/")[1] ?? ""]

const target = (source: Source, specifier: string): string | undefined =>
  specifier.startsWith(".") ? Path.join(Path.dirname(source.path), specifier) : undefined

export const knownFloors: Rule = each((source) =>
  floorOf(source.path) === undefined ? [`${source.path} is on no floor: ${Object.keys(floors).join(", ")}`] : [])

export const importsDownward: Rule = each((source) =>
  importsOf(source).flatMap(({ line, specifier }) => {
    const to = target(source, specifier)
    if (to === undefined) return []
    if (!to.startsWith("src/")) return [`${source.path}:${line} imports ${specifier}, which is outside src`]
    return (floorOf(to) ?? 9) > (floorOf(source.path) ?? -1)
      ? [`${source.path}:${line} (floor ${floorOf(source.path)}) imports ${to} (floor ${floorOf(to)})`]
      : []
  }))

export const importsExist: Rule = (sources) => {
  const known = new Set(sources.map(({ path }) => path))
  return sources.flatMap((source) =>
    importsOf(source).flatMap(({ line, specifier }) => {
      const to = target(source, specifier)
      return to === undefined || known.has(to) ? [] : [`${source.path}:${line} imports ${specifier}, which is no file`]
    }))
}

export const noCycles: Rule = (sources) => {
  const edges = new Map(sources.map((source) => [
    source.path,
    importsOf(source).flatMap(({ specifier }) => target(source, specifier) ?? [])
  ]))
  const offenders: Array<string> = []
  const done = new Set<string>()
  const walk = (path: string, trail: ReadonlyArray<string>): void => {
    const seen = trail.indexOf(path)
    if (seen >= 0) offenders.push([...trail.slice(seen), path].join(" -> "))
    if (seen >= 0 || done.has(path)) return
    for (const next of edges.get(path) ?? []) walk(next, [...trail, path])
    done.add(path)
  }
  for (const path of edges.keys()) walk(path, [])
  return offenders
}

const barrels = new Set(["effect", "@effect/platform-node", "@effect/sql-pg"])

export const noBarrels: Rule = each((source) =>
  importsOf(source).flatMap(({ line, specifier }) =>
    barrels.has(specifier) ? [`${source.path}:${line} imports the barrel ${specifier}; import its submodule`] : []))

const heavy = /^(effect\/(http-api|ai|cluster|workflow)(\/|$)|@effect\/sql-pg(\/|$))/

/** Heavy modules may be reached only through an `import()`: a file that itself loads lazily may import them. */
export const heavyIsLazy: Rule = (sources) => {
  const byPath = new Map(sources.map((source) => [source.path, source]))
  const statics = (source: Source) => importsOf(source).filter(({ kind }) => kind === "static")
  const paths = (kind: "static" | "dynamic") =>
    new Set(sources.flatMap((source) =>
      importsOf(source).flatMap((i) => i.kind === kind ? target(source, i.specifier) ?? [] : [])))
  const lazily = paths("dynamic")
  const eagerly = paths("static")
  const eager = new Set<string>()
  const load = (path: string): void => {
    const source = byPath.get(path)
    if (source === undefined || eager.has(path)) return
    eager.add(path)
    for (const { specifier } of statics(source)) load(target(source, specifier) ?? "")
  }
  for (const { path } of sources) if (!lazily.has(path) && !eagerly.has(path)) load(path)
  return sources.flatMap((source) =>
    !eager.has(source.path) ? [] : statics(source).flatMap(({ line, specifier }) =>
      heavy.test(specifier) ? [`${source.path}:${line} loads ${specifier} at start; reach it by import()`] : []))
}

const maxLines = 600

export const shortFiles: Rule = each((source) => {
  const lines = source.text.trimEnd().split("\n").length
  return lines > maxLines ? [`${source.path} has ${lines} lines, at most ${maxLines} are allowed`] : []
})

export const honestNames: Rule = each((source) => {
  const [, ...parts] = source.path.split("/")
  const bad = parts.find((part) => /^(utils?|helpers?|common|types?|misc|shared|lib)(\.|$)/i.test(part))
  if (bad !== undefined) return [`${source.path}: "${bad}" says nothing; name the noun`]
  return parts.length > 1 && parts.at(-1) === "index.ts" ? [`${source.path}: only src/index.ts is an index`] : []
})

export const noAny: Rule = forbid(/(?<![.\w$])any(?![\w$])(?!\s*\??:)(?!\s*\()/g, "use unknown")
export const noNonNull: Rule = forbid(/[\w$)\]]!(?!=)/g, "prove it or handle it")
export const noHiddenClock: Rule = forbid(
  /\bDate\.now\b|\bnew Date\s*\(\s*\)|(?<!new )(?<![.\w$])Date\s*\(|\bperformance\.(?:now|timeOrigin)\b|\bsetTimeout\b|\bsetInterval\b|\bhrtime\b/g,
  "time is Effect's Clock"
)
export const noHiddenRandomness: Rule = forbid(
  /\bMath\.random\b|\brandomUUID\b|\bgetRandomValues\b|\brandomBytes\b|\brandomInt\b/g,
  "randomness is Effect's Random"
)
export const noProcess: Rule = (sources) => [
  ...forbid(/(?<![.\w$])process\s*(?:\.|\?\.|\[)/g, "only src/main.ts speaks to the process", /^src\/main\.ts$/)(sources),
  ...sources.filter(({ path }) => path !== "src/main.ts").flatMap((source) =>
    importsOf(source).flatMap(({ line, specifier }) =>
      /^(node:)?process$/.test(specifier) ? [`${source.path}:${line} imports ${specifier}; only src/main.ts may`] : []))
]
export const noConsole: Rule = forbid(/(?<![.\w$])console\s*\./g, "log with Effect")

export const nothingLeft: Rule = each((source) =>
  [...source.text.matchAll(/\b(?:TODO|FIXME|XXX|HACK)\b/g)].map((match) =>
    at(source, match.index, `${match[0]}: do it, or open an issue`)))

/** `paths` are those of the tests. */
export const mirrored = (paths: ReadonlySet<string>): Rule =>
  each((source) => {
    if (/^src\/(index|main)\.ts$|\/internal\//.test(source.path)) return []
    const test = source.path.replace(/^src\//, "test/").replace(/\.ts$/, ".test.ts")
    return paths.has(test) ? [] : [`${source.path} has no ${test}`]
  })

const declaration = /^export\s+(?:default\s+)?(?:declare\s+)?(?:abstract\s+)?(?:async\s+)?(?:const|let|function\*?|class|interface|type|enum|namespace)\s+([\w$]+)/gm

export const exportsDocumented: Rule = each((source) =>
  isEntry(source) ? [] : [...source.code.matchAll(declaration)].flatMap((match) => {
    const comment = source.comments.findLast(({ end }) => end <= match.index)
    const documented = comment !== undefined && comment.text.startsWith("/**") &&
      /^\s*$/.test(source.code.slice(comment.end, match.index))
    // Overloads of one function share the comment of the first.
    const overload = new RegExp(`^export function ${match[1]}\\b`, "m").test(source.code.slice(0, match.index))
    return documented || overload ? [] : [at(source, match.index, `${match[1]} has no doc comment`)]
  }))

export const opensWithEssay: Rule = each((source) => {
  if (isEntry(source) || source.path.includes("/internal/")) return []
  const [first] = source.comments
  const opens = first !== undefined && first.text.startsWith("/**") && /^(#!.*\n)?\s*$/.test(source.text.slice(0, first.start))
  if (!opens) return [`${source.path} does not open with a comment that says what it is`]
  // The entry point is a command; its example would be a shell's.
  return source.path === "src/main.ts" || /\*\*Example\*\*[\s*]*```ts\n/.test(first.text)
    ? []
    : [`${source.path}: its opening comment has no **Example** in a \`\`\`ts fence`]
})

/** Offsets of the type assertions: not `as const`, not `import * as`, not a renamed import, not a mapped type's key. */
const castsOf = (source: Source): ReadonlyArray<number> => {
  const renames = [...source.code.matchAll(/^(?:import|export)\s+(?:type\s+)?(?:\*|\{|[\w$]+\s*,)[^"'`=;]*/gm)]
  return [...source.code.matchAll(/(?<=[\w$)\]}"'`>]\s+)as\s+(?!const\b)(?=[\w$({["'`])/g)]
    .map(({ index }) => index)
    .filter((index) =>
      !renames.some((rename) => rename.index < index && index < rename.index + rename[0].length) &&
      !/\[\s*[\w$]+\s+in\s[^;{}]*$/.test(source.code.slice(Math.max(0, index - 200), index)))
}

/**
 * A cast needs its reason: a `//` comment on its line or at most three lines above. Lines that hold casts themselves
 * do not count, so that one comment may speak for a run of them.
 */
export const castsExplained: Rule = each((source) => {
  const casts = castsOf(source)
  const castLines = new Set(casts.map((index) => lineAt(source, index)))
  const explained = new Set(source.comments.filter(({ text }) => text.startsWith("//")).map(({ start }) => lineAt(source, start)))
  return casts.flatMap((index) => {
    let left = 3
    for (let line = lineAt(source, index); left >= 0 && line > 0; line--) {
      if (explained.has(line)) return []
      if (!castLines.has(line - 1)) left--
    }
    return [at(source, index, `${source.text.slice(index, index + 30).split("\n")[0]}: why is this true? (// comment beside it)`)]
  })
})

/** For tests: nothing focused, nothing skipped for good. */
export const everyTestRuns: Rule = forbid(
  /\b(?:it|test|describe|effect|live|prop|layer)\s*\.\s*(?:only|skip|todo|fails)\b(?!If)/g,
  "every test runs"
)

const peers = /^(moleculer|@orpc\/.*|@nestjs\/.*|@event-driven-io\/.*|@dbos-inc\/.*|@restatedev\/.*|nats|generic-pool|opossum|cockatiel|zod)$/

/** `own` is the root package.json, `bench` that of the benchmarks, where their peers live. */
export const peersStayOut = (own: object, bench: object | undefined): ReadonlyArray<string> => {
  const names = (manifest: object | undefined) =>
    ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"]
      .flatMap((key) => Object.keys(Object(Reflect.get(manifest ?? {}, key))))
  const mine = new Set(names(bench).filter((name) => !/^(effect|@effect\/.*|ksi|node|typescript|@types\/.*)$/.test(name)))
  return names(own).filter((name) => peers.test(name) || mine.has(name))
    .map((name) => `package.json: ${name} belongs in scratchpad/bench/package.json`)
}
