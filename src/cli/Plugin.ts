/**
 * `ksi plugin ls`: the daemon's modules, how each is, since when, and which events it brought.
 *
 * **Example**
 *
 * ```ts
 * const shop = { name: "shop", file: "src/shop.ts", state: "running", events: ["shop:order"], started_at: 1521115200, took_ms: 12 }
 * Plugin.columns(shop)
 * // ["shop", "running", "2018-03-15T12:00:00.000Z", "12 ms", "1 event", "shop:order"]
 * ```
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { isObject, type JsonObject } from "../event/Json.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

const listAt = (object: JsonObject, key: string): ReadonlyArray<unknown> => {
  const value: unknown = object[key]
  return Array.isArray(value) ? value : []
}

/** A module as columns for people: what it brought, or why it could not start. */
export const columns = (module: JsonObject): ReadonlyArray<string> => {
  const { error, name, started_at: startedAt, state, took_ms: took } = module
  const events = listAt(module, "events").map(Output.textOf)
  return [
    Output.textOf(name),
    Output.textOf(state),
    startedAt === undefined ? "" : new Date(Number(startedAt) * 1000).toISOString(),
    took === undefined ? "" : `${Output.grouped(Number(took))} ms`,
    Output.counted(events.length, "event"),
    error === undefined ? events.join(", ") : Output.textOf(error).replaceAll("\n", "; ")
  ]
}

const ls = Command.make("ls", {}, Effect.fnUntraced(function*() {
  const remote = yield* Remote.connect
  const modules = listAt(yield* remote.call("module:list", {}), "modules").filter(isObject)
  yield* Output.items(Stream.fromIterable(modules), (module) => JSON.stringify(module), columns)
  if (modules.length === 0) yield* Output.narrate("no modules; name them to ksi start")
}, Effect.scoped)).pipe(
  Command.withDescription("List the daemon's modules: state, start, events"),
  Command.withExamples([{ command: "ksi plugin ls" }])
)

/** `ksi plugin`. */
export const plugin = Command.make("plugin").pipe(
  Command.withDescription("The modules that the daemon was started with"),
  Command.withSubcommands([ls])
)
