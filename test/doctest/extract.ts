/**
 * Turns the example of a module comment into a program.
 *
 * An example is the body of an `Effect.gen`. A comment which is a JavaScript literal (or starts with `=>`) is a claim:
 * `expression   // value`, the comment on the line or below it, must be equal. Every other comment is a comment.
 * `import` lines are not needed: the names of the prelude, of KSI's modules (as a namespace where a dot follows, else
 * as the export of that name; the example's own module first, then its own floor) and of `effect` are there, and so is
 * `ksi`. It runs in an empty folder that has a `var`.
 */
import * as effect from "effect"
import * as Path from "node:path/posix"

export interface Example {
  /** Path of the module from the root. */
  readonly path: string
  /** Line of the module where the example starts, from 1. */
  readonly line: number
  readonly code: string
}

const literal = /(?:["'`[{]|-?\d|(?:true|false|null|undefined)\b|(?:Result|Exit|Option)\.\w+\()/
const startsLiteral = new RegExp(`^${literal.source}`)
const claimBelow = new RegExp(`\n(// (?:=> |${literal.source}).*)`, "g")

/** The examples of a module's opening comment. */
export const examplesOf = (path: string, text: string): ReadonlyArray<Example> => {
  const comment = text.slice(0, Math.max(0, text.indexOf("*/")))
  return [...comment.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => ({
    path,
    line: comment.slice(0, match.index).split("\n").length + 1,
    code: (match[1] ?? "").replaceAll(/^ \* ?/gm, "").trimEnd()
  }))
}

const claim = (line: string): { readonly expression: string; readonly value: string } | undefined => {
  const match = /^(.*\S)\s+\/\/ (=> )?(.+)$/.exec(line)
  const [, expression, arrow, value] = match ?? []
  if (expression === undefined || value === undefined) return undefined
  return arrow !== undefined || startsLiteral.test(value) ? { expression, value } : undefined
}

const rewrite = (example: Example): string =>
  // A claim below its expression moves up; the count of lines stays.
  example.code.replaceAll(claimBelow, "   $1\n").split("\n").map((line, i) => {
    const found = claim(line)
    if (found === undefined) return line
    const { expression, value } = found
    const place = JSON.stringify(`${example.path}:${example.line + i}`)
    const bound = /^\s*const\s+([\w$]+)\s*=/.exec(expression)
    // After a binding the claim is about what was bound. The leading `;` keeps a line from continuing the one before.
    return bound === null
      ? `;$equal((${expression}), (${value}), ${place})`
      : `${expression}\n$equal(${bound[1]}, (${value}), ${place})`
  }).join("\n")

const uses = (code: string, name: string) => new RegExp(`(?<![.\\w$"])${name}\\b`).test(code)

/**
 * The program: a module whose default export is an Effect that fails where a claim is wrong. `modules` are the paths
 * of src, `preludeNames` what the prelude exports, `from` the folder where the program will be.
 */
export const programOf = (
  example: Example,
  modules: ReadonlyArray<string>,
  preludeNames: ReadonlyArray<string>,
  from: string
): string => {
  const { code } = example
  const declared = (name: string) => new RegExp(`\\b(?:const|let|class|function\\*?)\\s+${name}\\b`).test(code)
  const wanted = (name: string) => name !== "Effect" && uses(code, name) && !declared(name)
  const mine = preludeNames.filter((name) => name !== "layer" && wanted(name))
  const near = (path: string) => path === example.path ? 0 : Path.dirname(path) === Path.dirname(example.path) ? 1 : 2
  const candidates = modules.toSorted((a, b) => near(a) - near(b))
  const own = candidates.flatMap((path) => {
    const name = Path.basename(path, ".ts")
    if (!/^[A-Z]/.test(name) || !wanted(name) || mine.includes(name)) return []
    if (candidates.find((other) => Path.basename(other, ".ts") === name) !== path) return []
    const binding = new RegExp(`(?<![.\\w$])${name}\\.`).test(code) ? `* as ${name}` : `{ ${name} }`
    return [{ name, line: `import ${binding} from ${JSON.stringify(Path.relative(from, path))}` }]
  })
  const effects = Object.keys(effect)
    .filter((name) => wanted(name) && !(name in globalThis) && !mine.includes(name) && own.every((module) => module.name !== name))
  return [
    `// The example of ${example.path}:${example.line}; written by test/doctest.test.ts`,
    `import { ${["Effect", ...effects].join(", ")} } from "effect"`,
    `import { equal as $equal } from ${JSON.stringify(Path.relative(from, "test/doctest/equal.ts"))}`,
    `import { ${["Ksi as $Ksi", ...mine].join(", ")} } from ${JSON.stringify(Path.relative(from, "test/doctest/prelude.ts"))}`,
    ...own.map(({ line }) => line),
    "export default Effect.gen(function*() {",
    ...(uses(code, "ksi") && !declared("ksi") ? ["const ksi = yield* $Ksi"] : []),
    rewrite(example),
    "})",
    ""
  ].join("\n")
}
