/**
 * `ksi discover` and `ksi describe`: which events there are, and how one is used.
 *
 * **Example**
 *
 * ```ts
 * Registry.listing({ stock: { count: 1, description: "", events: [
 *   { name: "stock:reserve", kind: "request", handlers: 1, description: "Holds goods" }] } })
 * // stock  1 event
 * //   stock:reserve  request  Holds goods
 * ```
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { isObject, type JsonObject } from "../event/Json.ts"
import { answerOf } from "./Call.ts"
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

const eventRow = (event: JsonObject): ReadonlyArray<string> => {
  const nobody = event["handlers"] === 0 && event["kind"] === "request" ? "(nobody answers) " : ""
  return [`  ${textAt(event, "name")}`, kindOf(event), `${nobody}${textAt(event, "description")}`]
}

/** Events by namespace, for people. */
export const listing = (namespaces: JsonObject): string => {
  const names = Object.keys(namespaces)
  const rows = names.flatMap((name) => listAt(objectAt(namespaces, name), "events").map(eventRow))
  const table = Output.aligned(rows)
  let next = 0
  return names.map((name) => {
    const namespace = objectAt(namespaces, name)
    const count = listAt(namespace, "events").length
    const description = textAt(namespace, "description")
    const head = `${name}  ${Output.counted(count, "event")}${description === "" ? "" : `  ${description}`}`
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

const section = (title: string, body: string): string => body === "" ? "" : `\n${title}\n${body}`

const indented = (value: unknown): string => `${JSON.stringify(value, null, 2).replace(/^/gm, "  ")}\n`

/** How an event is used, for people. */
export const description = (help: JsonObject): string => {
  const schemas = objectAt(help, "schemas")
  const kind = kindOf(help)
  const handlers = Number(help["handlers"])
  return [
    `${textAt(help, "event")}  ${kind}, ${handlers === 0 ? "no handler" : Output.counted(handlers, "handler")}\n`,
    textAt(help, "summary") === "" ? "" : `  ${textAt(help, "summary")}\n`,
    section("payload", Output.aligned(parameterRows(help)).map((row) => `${row}\n`).join("")),
    section("examples", listAt(help, "examples").map((example) => `  ${textAt(example, "command")}\n`).join("")),
    ...["payload", "success", "error"].map((side) =>
      schemas[side] === undefined || schemas[side] === null ? "" : section(`${side} schema`, indented(schemas[side])))
  ].join("")
}

/** A pattern as people say it: a bare namespace means everything in it. */
export const patternOf = (text: string): string => text.includes(":") || text === "*" ? text : `${text}:*`

/** `ksi discover`. */
export const discover = Command.make(
  "discover",
  { pattern: Argument.String("pattern").pipe(Argument.withDescription("As stock:* or stock; default everything"), Argument.optional) },
  Effect.fnUntraced(function*({ pattern }) {
    const remote = yield* Remote.connect
    const wanted = Option.match(pattern, { onNone: () => "*", onSome: patternOf })
    const reply = yield* remote.call("system:discover", { pattern: wanted, level: "events" })
    const namespaces = objectAt(reply, "namespaces")
    if (Object.keys(namespaces).length === 0) {
      yield* Output.narrate(`no event matches ${wanted}`)
    }
    yield* Output.documentOr(answerOf(reply, {}), () => listing(namespaces))
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
).pipe(Command.withDescription("Show an event's schemas, handlers and examples"))
