// Words about an event for people: parameters out of its JSON Schema, and commands that can be pasted into a shell.
import type * as Event from "../../event/Event.ts"
import * as EventRegistry from "../../event/EventRegistry.ts"
import { isObject, type JsonObject } from "../../event/Json.ts"

const objectOf = (u: unknown): JsonObject => isObject(u) ? u : {}

const listOf = (u: unknown): ReadonlyArray<unknown> => Array.isArray(u) ? u : []

const text = (u: unknown): string | undefined => typeof u === "string" && u !== "" ? u : undefined

/** Follows a `$ref` into the document's `$defs`. */
const resolve = (schema: unknown, definitions: JsonObject): JsonObject => {
  const node = objectOf(schema)
  const name = text(node["$ref"])?.split("/").at(-1)
  return name === undefined ? node : objectOf(definitions[name])
}

/** A type in few words: `integer`, `"a" | "b"`, `array of string`. */
const typeText = (schema: unknown, definitions: JsonObject, depth = 0): string => {
  const node = resolve(schema, definitions)
  if (depth > 4) return "object"
  const values = listOf(node["enum"])
  if (values.length > 0) return values.map((value) => JSON.stringify(value)).join(" | ")
  if (node["const"] !== undefined) return JSON.stringify(node["const"])
  const union = [...listOf(node["anyOf"]), ...listOf(node["oneOf"])]
  if (union.length > 0) return [...new Set(union.map((item) => typeText(item, definitions, depth + 1)))].join(" | ")
  if (node["type"] === "array" && isObject(node["items"])) {
    return `array of ${typeText(node["items"], definitions, depth + 1)}`
  }
  return text(node["type"]) ?? "any"
}

/** A value that the schema most likely accepts. */
const skeleton = (schema: unknown, definitions: JsonObject, depth = 0): unknown => {
  const node = resolve(schema, definitions)
  const [first] = listOf(node["enum"])
  if (first !== undefined) return first
  if (node["const"] !== undefined) return node["const"]
  const [member] = [...listOf(node["anyOf"]), ...listOf(node["oneOf"])]
  if (member !== undefined && depth < 4) return skeleton(member, definitions, depth + 1)
  switch (node["type"]) {
    case "string":
      return "text"
    case "integer":
    case "number":
      return typeof node["minimum"] === "number" && node["minimum"] > 0 ? node["minimum"] : 1
    case "boolean":
      return true
    case "array":
      return []
    case "object":
      return depth < 4 ? requiredOf(node, definitions, depth) : {}
    default:
      return null
  }
}

const requiredOf = (node: JsonObject, definitions: JsonObject, depth: number): JsonObject =>
  Object.fromEntries(listOf(node["required"]).map(String).map((name) =>
    [name, skeleton(objectOf(node["properties"])[name], definitions, depth + 1)]))

/** One parameter of an event. */
interface Parameter {
  readonly type: string
  readonly required: boolean
  readonly description: string
}

/** The fields of a payload whose schema is an object. */
export const parameters = (payload: object): Record<string, Parameter> => {
  const root = objectOf(payload)
  const definitions = objectOf(root["$defs"])
  const node = resolve(root, definitions)
  const required = new Set(listOf(node["required"]))
  return Object.fromEntries(Object.entries(objectOf(node["properties"])).map(([name, field]) => [name, {
    type: typeText(field, definitions),
    required: required.has(name),
    description: text(objectOf(field)["description"]) ?? text(resolve(field, definitions)["description"]) ?? ""
  }]))
}

const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`

const cliCommand = (event: Event.Any, data: unknown): string => {
  const json = JSON.stringify(data)
  return `ksi ${event.kind === "fact" ? "emit" : event.mode} ${event.name}${json === "{}" ? "" : ` --data ${quoted(json)}`}`
}

const socketCommand = (event: Event.Any, data: unknown, socket: string): string => {
  const stream = event.kind === "request" && event.mode === "stream" ? { stream: true, stream_id: "s1" } : {}
  return `echo ${quoted(JSON.stringify({ event: event.name, ...stream, data }))} | nc -N -U ${socket}`
}

/** Commands to try: for each example of the event, else for the least payload that its schema accepts. */
export const commands = (event: Event.Any, payload: object, socket: string): {
  readonly examples: ReadonlyArray<{ readonly command: string }>
  readonly usage: { readonly command: string }
} => {
  const given = event.annotations.examples ?? []
  const data = given.length > 0 ? given : [skeleton(payload, objectOf(objectOf(payload)["$defs"])) ?? {}]
  return {
    examples: data.map((example) => ({ command: cliCommand(event, example) })),
    usage: { command: socketCommand(event, data[0], socket) }
  }
}

/** The JSON Schemas of an event, without the sides it does not have. */
export const schemas = (event: Event.Any): { readonly payload: object; readonly success?: object; readonly error?: object } => {
  const { error, payload, success } = EventRegistry.schemas(event)
  return {
    payload,
    ...(success === undefined ? {} : { success }),
    ...(error === undefined || event.kind !== "request" || event.error.ast._tag === "Never" ? {} : { error })
  }
}
