/**
 * The modules that `ksi start` was given: how each is, since when, and which events it brought.
 *
 * The rule: what is told is what `bus/Plugin.ts` knows; nothing is asked of the modules themselves, so that one that hangs
 * is told like any other.
 *
 * **Example**
 *
 * ```ts
 * const ksi = yield* KsiService
 * const plugins = yield* Plugin.Plugins
 * yield* plugins.start([{ from: "till.ts", load: Effect.succeed(Plugin.make("till", Layer.empty)) }])
 * const { modules } = yield* ksi.call(Module.List, {})
 * modules.map(({ name, state }) => [name, state])      // [["till", "running"]]
 * ```
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Plugins, type Status } from "../bus/Plugin.ts"
import * as Router from "../bus/Router.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import type * as KsiError from "../event/KsiError.ts"
import { Count, optional } from "./internal/fields.ts"

const Names = Schema.Array(Schema.String)

const Listed = Schema.Struct({
  name: Schema.String,
  file: Schema.String.annotate({ description: "the module's path, as it was given" }),
  state: Schema.Literals(["starting", "running", "failed", "stopped"]),
  events: Names.annotate({ description: "the events that it defined or handles" }),
  services: Names.annotate({ description: "the services that it provides" }),
  needs: Names.annotate({ description: "the modules that had to run before it" }),
  started_at: optional(Schema.Finite, "when it began to start: seconds since 1970"),
  took_ms: optional(Schema.Finite, "how many milliseconds it took to start"),
  error: optional(Schema.String, "why it could not start")
})

/** The modules of this daemon. */
export const List = Event.make("module:list", {
  success: Schema.Struct({ modules: Schema.Array(Listed), count: Count }),
  idempotent: true,
  annotations: { description: "Lists the daemon's modules: state, events, when it started and how long that took.", examples: [{}] }
})

/** The events of `module:*`. */
export const Group = EventGroup.make(List)

const listed = ({ error, events, from, name, needs, services, startedAt, state, took }: Status): typeof Listed.Type => ({
  name, file: from, state, events, services, needs,
  ...(startedAt === undefined ? {} : { started_at: startedAt / 1000 }),
  ...(took === undefined ? {} : { took_ms: took }),
  ...(error === undefined ? {} : { error })
})

const handlers = Group.toLayer(Effect.map(Plugins, (plugins) => ({
  *"module:list"() {
    const modules = (yield* plugins.list).map(listed)
    return { modules, count: modules.length }
  }
})))

/** Serves `module:*`. */
export const layer: Layer.Layer<never, KsiError.KsiError, Router.Router | Plugins> = Router.serveBuiltin(Group).pipe(
  Layer.provide(handlers)
)
