/**
 * What `ksi time` says to people: changes as aligned lines with a mark, facts in a headline.
 *
 * **Example**
 *
 * ```ts
 * const item = {
 *   streamId: "order-1", from: { version: 1, lastEvent: "order:placed" }, to: { version: 2, lastEvent: "order:paid" },
 *   patch: [{ op: "add", path: "/paid", value: true }, { op: "replace", path: "/total", value: 35 }],
 *   words: ["paid true (new)", "total 20 → 35"]
 * }
 * TimeText.diff(item, { coloured: false, width: 80 })
 * // order-1  v1 order:placed → v2 order:paid
 * //   + paid   true
 * //   ~ total  20 → 35
 * ```
 */
import * as Json from "../event/Json.ts"
import type { JsonObject } from "../event/Json.ts"
import * as Difference from "../store/Difference.ts"
import * as Output from "./Output.ts"

/** How it is shown. */
export interface Look {
  readonly coloured: boolean
  /** Characters of a line; what is longer is cut. */
  readonly width: number
}

const objectOf = (u: unknown): JsonObject => Json.isObject(u) ? u : {}
const listOf = (u: unknown): ReadonlyArray<unknown> => Array.isArray(u) ? u : []
const text = Output.textOf

const marks: Readonly<Record<string, readonly [mark: string, colour: string]>> = {
  add: ["+", "32"], remove: ["-", "31"], replace: ["~", "33"]
}

const painted = (code: string, line: string, coloured: boolean): string => coloured ? `\u001b[${code}m${line}\u001b[0m` : line

/** A headline: its first words stand out. What does not fit beside them stands below. */
const headline = (subject: string, rest: string, { coloured, width }: Look): string => {
  const bold = painted("1", Output.shortened(subject, width), coloured)
  return subject.length + 2 + rest.length <= width ? `${bold}  ${rest}` : `${bold}\n    ${Output.shortened(rest, width - 4)}`
}

/** A row below a headline. Colours are added after it was cut, for they take no room. */
const row = (mark: string, label: string, rest: string, labelWidth: number, colour: string, { coloured, width }: Look): string => {
  const line = `  ${mark} ${label.padEnd(labelWidth)}  ${rest}`.trimEnd()
  // What it was and what it is: below one another where they do not fit side by side.
  const [was, is] = line.length > width && mark === "~" ? rest.split(arrow, 2) : []
  const lines = was === undefined || is === undefined
    ? [line]
    : [`  ${mark} ${label.padEnd(labelWidth)}  ${was}`, `${" ".repeat(5 + labelWidth)}${arrow}${rest.slice(was.length + arrow.length)}`]
  return lines.map((each) => Output.shortened(each, width)).join("\n").replace(mark, () => painted(colour, mark, coloured && mark !== " "))
}

const arrow = " → "

// A field may have blanks, in brackets and quotes: `["unit price"]`.
const worded = /^((?:\["(?:[^"\\]|\\.)*"\]|\S)+) (.*)$/s

interface Row {
  readonly mark: string
  readonly colour: string
  readonly label: string
  readonly rest: string
}

const plain = (label: string, rest: string): Row => ({ mark: " ", colour: "0", label, rest })

/** Changes as rows, out of the words of each and its operation in the patch. */
const changeRows = (patch: unknown, words: unknown): ReadonlyArray<Row> => {
  const operations = listOf(patch)
  return listOf(words).map((word, i) => {
    const [mark, colour] = marks[text(objectOf(operations[i])["op"])] ?? ["~", "33"]
    const [, label = "", rest = ""] = worded.exec(text(word)) ?? []
    // The mark says what these words do.
    return { mark, colour, label, rest: mark === "+" ? rest.replace(/ \(new\)$/, "") : mark === "-" ? rest.replace(/^removed \((was .*)\)$/s, "$1") : rest }
  })
}

const block = (head: string, rows: ReadonlyArray<Row>, look: Look): string => {
  const labelWidth = Math.min(32, Math.max(0, ...rows.map(({ label }) => label.length)))
  return [head, ...rows.map(({ colour, label, mark, rest }) => row(mark, label, rest, labelWidth, colour, look))].map((line) => `${line}\n`).join("")
}

const sideText = (side: unknown): string => Json.isObject(side) ? `v${text(side["version"])} ${text(side["lastEvent"])}` : "nothing yet"

/** A stream at two moments. */
export const diff = (item: JsonObject, look: Look): string => {
  const rows = changeRows(item["patch"], item["words"])
  const head = headline(text(item["streamId"]), `${sideText(item["from"])} → ${sideText(item["to"])}`, look)
  return block(head, rows.length === 0 ? [plain("the same", "")] : rows, look)
}

const placeText = (item: JsonObject): string =>
  `position ${text(item["position"])}, v${text(item["version"])} of ${text(item["streamId"])}, ${text(item["timestamp"])}`

/** The fact that was found, what it changed, and what else is in the state after it. */
export const found = (item: JsonObject, look: Look): string => {
  const changes = Difference.between(item["before"], item["after"])
  const rows = changeRows(Difference.patchOf(changes), Difference.words(changes))
  return block(headline(text(item["event"]), placeText(item), look), [
    ...(rows.length === 0 ? [plain("it changed nothing", "")] : rows),
    // What the changes have told already need not be told twice.
    ...stateRows(item["after"]).filter(({ label }) => rows.every((row) => row.label !== label))
  ], look)
}

/** A state as a row for each of its fields; one without fields as a row. */
const stateRows = (state: unknown): ReadonlyArray<Row> =>
  Json.isObject(state) && Object.keys(state).length > 0
    ? Object.entries(state).map(([field, value]) => plain(Difference.pathText([field]), JSON.stringify(value)))
    : [plain("state", JSON.stringify(state ?? null))]

/** The state of a stream; of one among many in a line, which is cut. */
export const at = (isOfOne: boolean) => (item: JsonObject, look: Look): string => {
  const head = headline(text(item["streamId"]), `v${text(item["version"])} ${text(item["lastEvent"])}, ${text(item["timestamp"] ?? "-")}`, look)
  const { state } = item
  return block(head, isOfOne ? stateRows(state) : [plain(JSON.stringify(state ?? null), "")], look)
}

/** The fields of a state below the facts that gave them their values, in the order of these. */
export const blame = (items: ReadonlyArray<JsonObject>, look: Look): string => {
  const facts = [...Map.groupBy(items, ({ position }) => Number(position ?? 0))].toSorted(([a], [b]) => a - b)
  return facts.map(([position, fields]) => {
    const head = position === 0
      ? headline("(initial)", "there before any fact", look)
      : headline(text(fields[0]?.["event"]), `position ${position}, ${text(fields[0]?.["timestamp"])}`, look)
    return block(head, fields.map(({ field, value }) => plain(field === "" ? "state" : text(field), JSON.stringify(value ?? null))), look)
  }).join("")
}

const maxValue = 40

/** The field and its value, and where it comes from, as columns. */
export const blamed = (item: JsonObject): ReadonlyArray<string> => {
  const field = text(item["field"])
  const value = Output.shortened(JSON.stringify(item["value"] ?? null), maxValue)
  return item["position"] === null
    ? [field === "" ? "state" : field, value, "-", "(initial)", "-"]
    : [field === "" ? "state" : field, value, text(item["position"]), text(item["event"]), text(item["timestamp"])]
}

/** A stream as it was and as it would have been. */
export const branched = (item: JsonObject, look: Look): string => {
  const [real, branch] = [objectOf(item["real"]), objectOf(item["branch"])]
  const rows = changeRows(item["patch"], item["words"])
  const divergence = objectOf(item["divergence"])
  const misfits = listOf(item["misfits"]).map(objectOf)
  const head = headline(text(item["streamId"]), `v${text(real["version"])} as it was, v${text(branch["version"])} as it would have been`, look)
  return block(head, [
    ...(rows.length === 0 ? [plain("the same state", "")] : rows),
    ...(item["divergence"] === null ? [] : [plain("parts at", `position ${text(divergence["position"])}, ${text(divergence["event"])}`)]),
    ...misfits.map((misfit) => ({
      mark: "!", colour: "31", label: "does not fit", rest: `position ${text(misfit["position"])}, ${text(misfit["event"])}: ${text(misfit["problem"])}`
    }))
  ], look)
}

/** The first fact after which two projections differ, what leads from the one state to the other, and both. */
export const compared = (item: JsonObject, [a, b]: readonly [string, string], look: Look): string => {
  const head = headline(text(item["event"]), placeText(item), look)
  return block(head, [
    ...changeRows(item["patch"], item["words"]),
    plain(a, JSON.stringify(item["a"] ?? null)),
    plain(b, JSON.stringify(item["b"] ?? null))
  ], look)
}

/** An expression with a mark below its place. */
export const pointed = (expression: string, at: number | undefined): string => {
  if (at === undefined) return ""
  const before = expression.slice(0, at)
  const line = expression.slice(before.lastIndexOf("\n") + 1).split("\n", 1).join()
  return `\n  ${line}\n  ${" ".repeat(at - before.lastIndexOf("\n") - 1)}^`
}
