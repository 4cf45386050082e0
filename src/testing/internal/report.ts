// What is said when a scenario does not go as it should: what was expected, what came instead, and everything that happened.
import * as TextDiff from "effect/TextDiff"
import type { Delivery } from "../../event/Envelope.ts"

const pretty = (value: unknown): string => JSON.stringify(value, undefined, 2) ?? String(value)

/** What there is and what there should be, line by line. */
export const difference = (expected: unknown, actual: unknown): string => {
  const edits = TextDiff.lines(`${pretty(expected)}\n`, `${pretty(actual)}\n`, { maxEdits: 2000 })
  const marks = { Equal: " ", Delete: "-", Insert: "+" } as const
  const text = edits.flatMap(({ _tag, items }) => items.map((line) => `  ${marks[_tag]} ${line.replace(/\n$/, "")}`))
  return ["  - expected", "  + came", ...text].join("\n")
}

const shortest = (data: unknown): string => {
  const text = JSON.stringify(data) ?? ""
  return text.length > 100 ? `${text.slice(0, 97)}...` : text
}

const line = ({ data, name, position }: Delivery): string => `${position === undefined ? "?" : "!"} ${name} ${shortest(data)}`

/** Who caused what: each below its cause, in the order in which they happened. */
export const tree = (happened: ReadonlyArray<Delivery>): string => {
  const known = new Set(happened.map(({ id }) => id))
  const below = (cause: string | undefined, indent: string): ReadonlyArray<string> =>
    happened.flatMap((each) => {
      const { causationId } = each.metadata
      const parent = causationId !== undefined && known.has(causationId) ? causationId : undefined
      return parent === cause ? [`${indent}${line(each)}`, ...below(each.id, `${indent}  `)] : []
    })
  const lines = below(undefined, "  ")
  return lines.length === 0 ? "  nothing" : lines.join("\n")
}

/** The whole message. */
export const message = (headline: string, detail: string | undefined, happened: ReadonlyArray<Delivery>): string =>
  [headline, ...(detail === undefined ? [] : ["", detail]), "", "what happened (? a request, ! a fact):", tree(happened), ""].join("\n")
