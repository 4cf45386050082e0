/**
 * `ksi discover` and `ksi describe`: which events there are, and how one is used.
 *
 * **Example**
 *
 * ```ts
 * Registry.listing({ stock: { count: 1, description: "", events: [
 *   { name: "stock:reserve", kind: "request", handlers: 1, description: "Holds goods. At once." }] } })
 * // stock  1 event
 * //   stock:reserve  request  Holds goods
 * ```
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { isObject, type JsonObject } from "../event/Json.ts"
import * as EventName from "../event/EventName.ts"
import * as EventPattern from "../event/EventPattern.ts"
import { answerOf } from "./Call.ts"
import * as Help from "./Help.ts"
import { Io } from "./Io.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

const objectAt = (object: JsonObject, key: string): JsonObject => {
  const value = object[key]
  return isObject(value) ? value : {}
}

const listAt = (object: JsonObject, key: string): ReadonlyArray<JsonObject> => {
  const value: unknown = object[key]
  return Array.isArray(value) ? value : []
}

const textAt = (object: JsonObject, key: string): string => {
  const value = object[key]
  return value === undefined || value === null ? "" : Output.textOf(value)
}

const kindOf = (event: JsonObject): string => event["mode"] === "stream" ? "stream" : textAt(event, "kind")

const firstSentence = (text: string): string => /^.*?[.!?](?=\s|$)/s.exec(text)?.[0] ?? text

const eventRow = (event: JsonObject): readonly [name: string, kind: string, description: string] => {
  const nobody = event["handlers"] === 0 && event["kind"] === "request" ? "(nobody answers) " : ""
  return [`  ${textAt(event, "name")}`, kindOf(event), `${nobody}${firstSentence(textAt(event, "description"))}`]
}

/** Events by namespace, for people: at most `width` characters wide, with names in bold where `bold`. */
export const listing = (
  namespaces: JsonObject,
  { bold = false, width = Infinity }: { readonly bold?: boolean; readonly width?: number } = {}
): string => {
  const names = Object.keys(namespaces)
  const rows = names.flatMap((name) => listAt(objectAt(namespaces, name), "events").map(eventRow))
  const widths: Array<number> = []
  Output.aligned(rows, widths)
  const [first = 0, second = 0] = widths
  const indent = first + second + 4
  const table = Output.aligned(rows.map(([name, kind, text]) => [name, kind, Output.hanging(text, indent, width)]), widths)
  let next = 0
  return names.map((name) => {
    const namespace = objectAt(namespaces, name)
    const count = listAt(namespace, "events").length
    const description = textAt(namespace, "description")
    const head = `${bold ? `\u001b[1m${name}\u001b[0m` : name}  ${Output.counted(count, "event")}${description === "" ? "" : `  ${description}`}`
    const events = table.slice(next, next + count)
    next += count
    return [head, ...events, ""].join("\n")
  }).join("\n")
}

const parameterRows = (help: JsonObject): ReadonlyArray<ReadonlyArray<string>> => {
  const parameters = objectAt(help, "parameters")
  return Object.keys(parameters).map((name) => {
    const parameter = objectAt(parameters, name)
    return [`  ${name}`, textAt(parameter, "type"), parameter["required"] === true ? "required" : "optional", textAt(parameter, "description")]
  })
}

const rowsOf = (rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  Output.aligned(rows.map(([first = "", ...others]) => [`  ${first}`, ...others])).map((row) => `${row}\n`).join("")

const namesAt = (help: JsonObject, key: string): string => {
  const names: unknown = help[key]
  return Array.isArray(names) ? rowsOf(names.map((name) => [Output.textOf(name)])) : ""
}

const section = (title: string, body: string): string => body === "" ? "" : `\n${title}\n${body}`

const indented = (value: unknown): string => `${JSON.stringify(value, null, 2).replace(/^/gm, "  ")}\n`

// What the JSON Schema of an event without a payload says: anything but null.
const isNothing = (schema: unknown): boolean => {
  const not = isObject(schema) && Object.keys(schema).length === 1 ? schema["not"] : undefined
  return isObject(not) && not["type"] === "null"
}

const schemaText = (schema: unknown): string => isObject(schema) && schema["type"] === "null" ? "  null\n" : indented(schema)

/** How an event is used, for people. */
export const description = (help: JsonObject): string => {
  const { payload, ...others } = objectAt(help, "schemas")
  const schemas: JsonObject = isNothing(payload) ? others : { payload, ...others }
  const kind = kindOf(help)
  const handlers = Number(help["handlers"])
  return [
    `${textAt(help, "event")}  ${kind}, ${handlers === 0 ? "no handler" : Output.counted(handlers, "handler")}\n`,
    textAt(help, "summary") === "" ? "" : `  ${textAt(help, "summary")}\n`,
    section("payload", isNothing(payload) ? "  none\n" : Output.aligned(parameterRows(help)).map((row) => `${row}\n`).join("")),
    section("examples", listAt(help, "examples").map((example) => `  ${textAt(example, "command")}\n`).join("")),
    section("middleware, outermost first", namesAt(help, "middleware")),
    section("handlers, in order", rowsOf(listAt(help, "handled_by").map((by) => [textAt(by, "name"), textAt(by, "execution")]))),
    section("observers", namesAt(help, "observers")),
    ...["payload", "success", "error"].map((side) =>
      schemas[side] === undefined || schemas[side] === null ? "" : section(`${side} schema`, schemaText(schemas[side])))
  ].join("")
}

/** The namespaces or events near a pattern that matches none, as the end of a sentence. */
export const nearest = Effect.fnUntraced(function*(remote: Remote.Remote, pattern: string) {
  const namespaces = objectAt(yield* remote.call("system:discover", { level: "events" }), "namespaces")
  const events = Object.keys(namespaces).flatMap((name) => listAt(objectAt(namespaces, name), "events"))
  const names = pattern.endsWith(":*")
    ? EventName.nearest(pattern.slice(0, -2), Object.keys(namespaces))
    : EventName.nearest(pattern, events.map((event) => textAt(event, "name")))
  return names.length === 0 ? "" : `; nearest: ${names.join(", ")}`
})

/** Says so where no event is called as a pattern says; for commands that take it all the same. Silent with `--json`. */
export const tellUnknown = Effect.fnUntraced(function*(remote: Remote.Remote, pattern: string) {
  if (yield* Output.Json) return
  const { total_events: total } = yield* remote.call("system:discover", { pattern })
  if (total === 0) yield* Output.narrate(`no event matches ${pattern}${yield* nearest(remote, pattern)}`)
})

/** `ksi discover`. */
export const discover = Command.make(
  "discover",
  { pattern: Argument.String("pattern").pipe(Argument.withDescription("As stock:* or stock; default everything"), Argument.optional) },
  Effect.fnUntraced(function*({ pattern }) {
    const remote = yield* Remote.connect
    const wanted = Option.match(pattern, { onNone: () => "*", onSome: EventPattern.said })
    const reply = yield* remote.call("system:discover", { pattern: wanted, level: "events" })
    const namespaces = objectAt(reply, "namespaces")
    if (Object.keys(namespaces).length === 0) {
      yield* Output.narrate(`no event matches ${wanted}${(yield* Output.Json) ? "" : yield* nearest(remote, wanted)}`)
    }
    const { coloured, interactive, width } = yield* Io
    yield* Output.documentOr(answerOf(reply, {}), () => listing(namespaces, { bold: interactive && coloured, width }))
  }, Effect.scoped)
).pipe(Command.withDescription("List events by namespace"), Command.withExamples([{ command: "ksi discover 'store:*'" }]))

/** `ksi describe`. */
export const describe = Command.make(
  "describe",
  { event: Argument.String("event").pipe(Argument.withDescription("The event's name")) },
  Effect.fnUntraced(function*({ event }) {
    const remote = yield* Remote.connect
    const help = yield* remote.call("system:help", { event })
    yield* Output.documentOr(answerOf(help, {}), () => description(help))
  }, Effect.scoped)
).pipe(
  Command.withDescription("Show an event's schemas, handlers and examples"),
  Command.annotate(Help.Sections, [Help.exits(0, 3)]),
  Command.withExamples([{ command: "ksi describe store:import" }])
)
