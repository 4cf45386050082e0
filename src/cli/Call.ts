/**
 * `ksi call`, `emit` and `send`: one event with its data, one answer.
 *
 * The rule: the event's definition is looked up before anything is sent, so that a call of a fact or an emit of a
 * request has no effect and names the command that was meant.
 *
 * **Example**
 *
 * ```ts
 * Call.payload({}, ["sku=tea", "quantity=2", "ship.to=Delft"])
 * // Result.succeed({ sku: "tea", quantity: 2, ship: { to: "Delft" } })
 * ```
 *
 * **Gotchas** A value that is valid JSON is that JSON, unless the event's schema wants a text there and would not take
 * it: `zip=2134` is a text where `zip` is one, else a number; `zip='"2134"'` is a text anywhere.
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as Json from "../event/Json.ts"
import type { JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Limits from "../event/Limits.ts"
import { maxKeyLength } from "../wire/Frame.ts"
import * as Help from "./Help.ts"
import { Io } from "./Io.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

const listOf = (u: unknown): ReadonlyArray<unknown> => Array.isArray(u) ? u : []

/** A JSON Schema and what its `$ref`s mean. */
interface Field {
  readonly schema: unknown
  readonly definitions: JsonObject
}

/** The node of a field, and the members of its union: one of them must accept a value. */
const nodesOf = ({ definitions, schema }: Field, depth = 0): ReadonlyArray<JsonObject> => {
  if (!Json.isObject(schema) || depth > 8) return []
  const name = typeof schema["$ref"] === "string" ? schema["$ref"].split("/").at(-1) ?? "" : undefined
  if (name !== undefined) return nodesOf({ definitions, schema: definitions[name] }, depth + 1)
  const members = [...listOf(schema["anyOf"]), ...listOf(schema["oneOf"])]
  return members.length === 0 ? [schema] : members.flatMap((member) => nodesOf({ definitions, schema: member }, depth + 1))
}

/** The field below a field; nothing is known of one that no schema names. */
const below = (field: Field, key: string): Field => {
  for (const node of nodesOf(field)) {
    const properties = node["properties"]
    if (Json.isObject(properties) && Object.hasOwn(properties, key)) return { ...field, schema: properties[key] }
    if (Json.isObject(node["additionalProperties"])) return { ...field, schema: node["additionalProperties"] }
  }
  return { ...field, schema: undefined }
}

/** The JSON types that a field takes; `undefined` among them: it may take any. */
const typesOf = (field: Field): ReadonlySet<unknown> =>
  new Set(nodesOf(field).flatMap((node) => Array.isArray(node["type"]) ? node["type"] : [node["type"]]))

/** The JSON type of a text that is JSON. */
const typeOfText = (text: string): string => {
  switch (text.trim().charAt(0)) {
    case "\"":
      return "string"
    case "{":
      return "object"
    case "[":
      return "array"
    case "t":
    case "f":
      return "boolean"
    case "n":
      return "null"
    default:
      return "number"
  }
}

/** Whether a text that is JSON must be taken as it is written: the field takes texts, and not what the JSON says. */
const isText = (field: Field, text: string): boolean => {
  const types = typesOf(field)
  const type = typeOfText(text)
  return types.has("string") && !types.has(undefined) && !types.has(type) && !(type === "number" && types.has("integer"))
}

/** A value of the command line: JSON where it is valid JSON and the field takes it, else the text. */
const valueOf = (field: Field, text: string): unknown => {
  const parsed = Json.parseResult(text)
  return Result.isFailure(parsed) || isText(field, text) ? text : parsed.success
}

const maxDepth = Limits.defaults.jsonDepth

/** An object with own keys only, so that a key such as `__proto__` is a key. */
const copyOf = (object: JsonObject): Record<string, unknown> => Object.assign(Object.create(null), object)

const put = (
  target: JsonObject,
  [head = "", ...rest]: ReadonlyArray<string>,
  value: unknown,
  key: string
): Result.Result<JsonObject, string> => {
  const copy = copyOf(target)
  if (rest.length === 0) {
    copy[head] = value
    return Result.succeed(copy)
  }
  const inner = copy[head] ?? Object.create(null)
  if (!Json.isObject(inner)) return Result.fail(`"${key}" goes below "${head}", which is ${Output.textOf(inner)} and not an object`)
  return Result.map(put(inner, rest, value, key), (nested) => {
    copy[head] = nested
    return copy
  })
}

/**
 * The payload of `key=value` pairs over `data`; the failure is a sentence. Dots in a key nest. `schema` is the JSON
 * Schema of the payload, where it is known.
 */
export const payload = (data: unknown, pairs: ReadonlyArray<string>, schema?: unknown): Result.Result<JsonObject, string> => {
  if (!Json.isObject(data)) return Result.fail(`the data must be a JSON object, found ${Output.textOf(data).slice(0, 80)}`)
  const definitions = Json.isObject(schema) && Json.isObject(schema["$defs"]) ? schema["$defs"] : {}
  const keys: Array<string> = []
  let result: Result.Result<JsonObject, string> = Result.succeed(data)
  for (const pair of pairs) {
    const at = pair.indexOf("=")
    if (at < 1) return Result.fail(`expected key=value, found "${pair}"`)
    const key = pair.slice(0, at)
    const path = key.split(".")
    if (path.length > maxDepth || Json.isDeeper(pair.slice(at + 1), maxDepth)) return Result.fail(`"${path[0]}" is nested deeper than ${maxDepth}`)
    if (path.includes("")) return Result.fail(`"${key}" has an empty part; a dot nests: a.b=1 is {"a":{"b":1}}`)
    if (keys.includes(key)) return Result.fail(`"${key}" is given twice`)
    const covered = keys.find((other) => other.startsWith(`${key}.`))
    if (covered !== undefined) return Result.fail(`"${key}" would take the place of "${covered}"`)
    keys.push(key)
    const value = valueOf(path.reduce(below, { schema, definitions }), pair.slice(at + 1))
    result = Result.flatMap(result, (object) => put(object, path, value, key))
  }
  return result
}

const schemaOf = (help: JsonObject, side: "payload" | "success"): unknown => {
  const schemas = help["schemas"]
  return Json.isObject(schemas) ? schemas[side] : undefined
}

const schemaSays = (help: JsonObject, key: string): boolean => {
  const success = schemaOf(help, "success")
  const properties = Json.isObject(success) ? success["properties"] : undefined
  return Json.isObject(properties) && Object.hasOwn(properties, key)
}

/**
 * The handler's own answer in a reply's data: what the wire added (`status`, `result`, `_ksi_context`) is taken away
 * again, unless the event's success schema has a field of that name.
 */
export const answerOf = (data: JsonObject, help: JsonObject): unknown => {
  const { _ksi_context: _, ...answer } = data
  if (schemaSays(help, "status") || answer["status"] !== "success") return answer
  const { status: _status, ...own } = answer
  return Object.hasOwn(own, "result") && Object.keys(own).length === 1 && !schemaSays(help, "result") ? own["result"] : own
}

const usage = (event: string, message: string) =>
  Effect.fail(new Output.Usage({ message, similar: [], next: `ksi describe ${event}` }))

const stdinText = Effect.gen(function*() {
  const { stdin } = yield* Io
  return yield* Stream.mkString(Stream.decodeText(stdin))
})

const dataText = Effect.fnUntraced(function*(event: string, data: string) {
  if (data === "-") return yield* stdinText
  if (!data.startsWith("@")) return data
  const fs = yield* FileSystem.FileSystem
  const file = data.slice(1)
  return yield* fs.readFileString(file).pipe(
    Effect.catch((cause) => usage(event, `cannot read "${file}": ${Remote.fileProblem(cause)}`))
  )
})

const overlaid = (event: string, data: unknown, pairs: ReadonlyArray<string>, schema?: unknown) => {
  const result = payload(data, pairs, schema)
  return Result.isFailure(result) ? usage(event, result.failure) : Effect.succeed(result.success)
}

const input = Effect.fnUntraced(function*(event: string, data: Option.Option<string>) {
  const text = Option.isNone(data) ? "{}" : yield* dataText(event, data.value)
  if (Json.isDeeper(text, maxDepth)) return yield* usage(event, `--data is nested deeper than ${maxDepth}`)
  const parsed = Json.parseResult(text.replace(/^\uFEFF/, ""))
  if (Result.isFailure(parsed)) return yield* usage(event, `--data is not JSON: ${parsed.failure}`)
  return parsed.success
})

type Word = "call" | "emit" | "stream"

/** What the command line says of an event and its data. */
interface Given {
  readonly event: string
  readonly pairs: ReadonlyArray<string>
  readonly data: Option.Option<string>
}

/** The data of an event, ready to be sent, and what the daemon that `connect` reaches says of the event. */
export const prepared = Effect.fnUntraced(function*<E, R>(
  { data, event, pairs }: Given,
  connect: Effect.Effect<Remote.Remote, E, R>
) {
  const given = yield* input(event, data)
  // What is wrong in itself is said before anybody is asked.
  yield* overlaid(event, given, pairs)
  const remote = yield* connect
  const help = yield* remote.call("system:help", { event })
  const expected: Word = help["kind"] === "fact" ? "emit" : help["mode"] === "stream" ? "stream" : "call"
  return { remote, help, expected, body: yield* overlaid(event, given, pairs, schemaOf(help, "payload")) }
})

/** An event that is sent once. */
interface Sent extends Given {
  readonly key: Option.Option<string>
}

const send = (as: Word | undefined) =>
  Effect.fnUntraced(function*(given: Sent) {
    const { event } = given
    const idempotencyKey = Option.getOrUndefined(given.key)
    // An empty one is a variable that was never set: asked without it, a second try would do it twice.
    if (idempotencyKey !== undefined && (idempotencyKey === "" || idempotencyKey.length > maxKeyLength)) {
      return yield* usage(event, `--idempotency-key must have 1 to ${maxKeyLength} characters, found ${idempotencyKey.length}`)
    }
    const { body, expected, help, remote } = yield* prepared(given, Remote.connect)
    if ((as ?? expected) !== expected || expected === "stream") {
      return yield* KsiError.fail(new KsiError.WrongShape({ event, used: as ?? "send", expected }))
    }
    const reply = yield* remote.call(event, body, { idempotencyKey })
    yield* Output.document(
      expected === "emit" ? { event_id: reply["event_id"], position: reply["position"] } : answerOf(reply, help)
    )
  }, Effect.scoped)

/** The arguments and the flag that say which event, and with which data. */
export const fields = (what: string) => ({
  event: Argument.String("event").pipe(Argument.withDescription(`The ${what}'s name, as stock:reserve`)),
  pairs: Argument.String("key=value").pipe(
    Argument.withDescription("Fields of the data: JSON where the value is JSON and the event takes it there, else text; dots nest"),
    Argument.variadic()
  ),
  data: Flag.String("data").pipe(
    Flag.withDescription("The data as a JSON object, @file, or - for stdin; key=value pairs go over it"),
    Flag.withMetavar("JSON"),
    Flag.optional
  )
})

const sentFields = (what: string) => ({
  ...fields(what),
  key: Flag.String("idempotency-key").pipe(
    Flag.withDescription("Carry it out once: the same again with this key gets the same reply for 24 hours"),
    Flag.withMetavar("KEY"),
    Flag.optional
  )
})

const answers = [Help.exits(0, 1, 2, 3, 4, 5, 6, 70)]

/** `ksi call`. */
export const call = Command.make("call", sentFields("request"), send("call")).pipe(
  Command.withDescription("Ask a request; its reply goes to stdout"),
  Command.annotate(Help.Sections, answers),
  Command.withExamples([
    { command: "ksi call stock:reserve sku=tea quantity=2" },
    { command: "ksi call stock:reserve sku=tea quantity=2 --idempotency-key order-17", description: "Safe to try again" },
    {
      command: "TRACEPARENT=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ksi call stock:reserve sku=tea quantity=2",
      description: "In a trace that goes on (W3C Trace Context); so do emit and send"
    }
  ])
)

/** `ksi emit`. */
export const emit = Command.make("emit", sentFields("fact"), send("emit")).pipe(
  Command.withDescription("Say that a fact happened; prints its id and position"),
  Command.annotate(Help.Sections, answers),
  Command.withExamples([{ command: "ksi emit stock:arrived --data '{\"sku\":\"tea\"}' quantity=7" }])
)

/** `ksi send`. */
export const dispatch = Command.make("send", sentFields("event"), send(undefined)).pipe(
  Command.withDescription("Call or emit, whichever the event's definition says"),
  Command.annotate(Help.Sections, answers),
  Command.withExamples([{ command: "ksi send stock:reserve sku=tea quantity=2" }])
)
