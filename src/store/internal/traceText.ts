// A trace as text for a terminal, and as a Mermaid diagram. Names and errors may be anybody's: nothing of them is left that a
// terminal or a diagram would take for more than text.
import type { FactNode, Node, RequestNode, Trace } from "./traceTree.ts"

const unit = (value: number, name: string): string => `${Number.isInteger(value) ? value : value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : Math.round(value)} ${name}`

/** Milliseconds as people say them: `3 ms`, `8.21 ms`, `128 ms`, `1.53 s`, `2 min 5 s`, `3 h 20 min`, `4 d 1 h`. */
export const spoken = (millis: number): string => {
  if (millis < 0) return `-${spoken(-millis)}`
  if (millis < 999.5) return unit(millis, "ms")
  if (millis < 59_950) return unit(millis / 1000, "s")
  const seconds = Math.round(millis / 1000)
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`
  const hours = Math.floor(minutes / 60)
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`
}

const offsetText = (millis: number): string => millis < 0 ? spoken(millis) : `+${spoken(millis)}`

const visible = (text: string): string => text.replaceAll(/\p{Cc}/gu, "\u00b7")

const hasFailed = (node: Node): boolean => node.kind === "request" && node.outcome !== "success"

const factText = ({ position, streamId, version }: FactNode): string => `#${position}  ${streamId} v${version}`

// The tag says more than the kind of outcome, where there is one; the sentence often begins with it.
const failureText = ({ error = "", outcome, reason }: RequestNode): string => {
  const tag = reason ?? outcome
  return error === "" || error === tag ? tag : error.startsWith(tag) ? error : `${tag}: ${error}`
}

const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`

// --------------------------------------------------------------------------------------------------------------- text

type Style = "plain" | "dim" | "red" | "cyan" | "bold"
type Piece = readonly [text: string, style: Style]

const codes: Readonly<Record<Style, string>> = { plain: "", dim: "2", red: "31", cyan: "36", bold: "1" }

/** Pieces side by side, in at most `width` characters. */
const painted = (pieces: ReadonlyArray<Piece>, coloured: boolean, width: number): string => {
  let left = width
  let line = ""
  for (const [text, style] of pieces) {
    if (left <= 0) break
    const characters = Array.from(text)
    const cut = characters.length <= left ? text : `${characters.slice(0, Math.max(0, left - 1)).join("")}…`
    left -= characters.length
    line += coloured && codes[style] !== "" ? `\u001b[${codes[style]}m${cut}\u001b[0m` : cut
  }
  return line
}

/** What a node says of itself. `above` is the principal of what caused it. */
const labelOf = (node: Node, above: string | undefined, isAsked: boolean): ReadonlyArray<Piece> => {
  const asked: ReadonlyArray<Piece> = isAsked ? [["  ←", "bold"]] : []
  if (node.kind === "missing") {
    return [["? ", "dim"], [`${visible(node.id)}  not recorded: it still runs, or its record is gone`, "dim"], ...asked]
  }
  const who: ReadonlyArray<Piece> = node.principal === above ? [] : [[`  ${visible(node.principal)}`, "dim"]]
  if (node.kind === "fact") return [["• ", "cyan"], [visible(node.event), "cyan"], [`  ${visible(factText(node))}`, "dim"], ...who, ...asked]
  const own: ReadonlyArray<Piece> = node.own < node.duration ? [[`  own ${spoken(node.own)}`, "dim"]] : []
  if (node.outcome === "success") return [[visible(node.event), "plain"], ...own, ...who, ...asked]
  return [["✗ ", "red"], [visible(node.event), "plain"], [`  ${visible(failureText(node))}`, "red"], ...own, ...who, ...asked]
}

/** The lines of a tree that lead to each node. */
const branches = (nodes: ReadonlyArray<Node>): ReadonlyArray<string> => {
  const last = new Map<string | null, Node>()
  for (const node of nodes) last.set(node.parent, node)
  const indents = new Map<string, string>()
  return nodes.map((node) => {
    const { id, parent } = node
    const indent = parent === null ? undefined : indents.get(parent) ?? ""
    const isLast = last.get(parent) === node
    indents.set(id, indent === undefined ? "" : `${indent}${isLast ? "   " : "│  "}`)
    return indent === undefined ? "" : `${indent}${isLast ? "└─ " : "├─ "}`
  })
}

/** What a trace is, in a line. */
const headline = ({ duration, more, nodes }: Trace): string => {
  const count = (is: (node: Node) => boolean) => nodes.filter(is).length
  const failed = count(hasFailed)
  const parts = [
    counted(count(({ kind }) => kind === "request"), "request"),
    counted(count(({ kind }) => kind === "fact"), "fact"),
    ...(failed === 0 ? [] : [`${failed} failed`])
  ]
  return `${parts.join(", ")} in ${spoken(duration)}${more ? "; there is more, which is left out" : ""}`
}

/** How a trace is drawn as text. */
export interface TextOptions {
  /** Whether there are colours. Default: no. */
  readonly coloured?: boolean | undefined
  /** Characters of a line; a longer one ends in `…`. Default: no limit. */
  readonly width?: number | undefined
}

/**
 * A trace as a tree: when each began, how long it took, what it is. A line each, without line feeds.
 *
 * `•` is a fact, `✗` a request that did not succeed, `?` a cause that is not recorded, `←` what was asked for. `own` is the
 * part of a request's time in which nothing ran that it had asked for itself.
 */
export const text = (trace: Trace, { coloured = false, width = Infinity }: TextOptions = {}): ReadonlyArray<string> => {
  const { id: asked, nodes } = trace
  const times = nodes.map((node) => [offsetText(node.offset), node.kind === "request" ? spoken(node.duration) : ""] as const)
  const widths = [0, 1].map((column) => times.reduce((most, cells) => Math.max(most, cells[column]?.length ?? 0), 0))
  const principals = new Map<string | null, string>([[null, "owner"]])
  const lines = branches(nodes)
  return [
    painted([[headline(trace), "dim"]], coloured, width),
    ...nodes.map((node, nth) => {
      const [at = "", took = ""] = times[nth] ?? []
      const above = principals.get(node.parent)
      principals.set(node.id, node.kind === "missing" ? above ?? "owner" : node.principal)
      const columns = `${at.padStart(widths[0] ?? 0)}  ${took.padStart(widths[1] ?? 0)}  `
      return painted([[columns, "dim"], [lines[nth] ?? "", "dim"], ...labelOf(node, above, node.id === asked)], coloured, width)
    })
  ]
}

// ------------------------------------------------------------------------------------------------------------ mermaid

// Between quotes Mermaid takes these as they are; all else as the number of its character.
const escaped = (text: string): string =>
  Array.from(visible(text), (character) => /[\p{L}\p{N} .,:/+_-]/u.test(character) ? character : `#${character.codePointAt(0) ?? 32};`).join("")

const longest = 120

const shortened = (text: string): string => {
  const characters = Array.from(text)
  return characters.length <= longest ? text : `${characters.slice(0, longest - 1).join("")}…`
}

const boxOf = (node: Node): string => {
  const words = (...lines: ReadonlyArray<string>) => `"${lines.map((line) => escaped(shortened(line))).join("<br/>")}"`
  if (node.kind === "missing") return `[${words(node.id, "not recorded")}]:::missing`
  if (node.kind === "fact") return `([${words(node.event, factText(node))}])`
  return node.outcome === "success"
    ? `[${words(node.event, spoken(node.duration))}]`
    : `[${words(node.event, spoken(node.duration), failureText(node))}]:::failed`
}

/** A trace as a Mermaid flowchart; arrows say how much later it began than its cause. */
export const mermaid = ({ nodes }: Trace): ReadonlyArray<string> => {
  const numbers = new Map<string, number>()
  const offsets = new Map<string, number>()
  const lines = nodes.map((node, nth) => {
    const above = node.parent === null ? undefined : numbers.get(node.parent)
    // Of two with one id the first is the cause.
    if (!numbers.has(node.id)) numbers.set(node.id, nth)
    if (!offsets.has(node.id)) offsets.set(node.id, node.offset)
    const box = `n${nth}${boxOf(node)}`
    if (above === undefined || node.parent === null) return `  ${box}`
    return `  n${above} -->|"${escaped(offsetText(node.offset - (offsets.get(node.parent) ?? 0)))}"| ${box}`
  })
  return ["flowchart TD", ...lines, "  classDef failed stroke:#c00,stroke-width:2px", "  classDef missing stroke-dasharray:4"]
}
