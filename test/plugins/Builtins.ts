// The built-in plugins on the real router, with store and activity journal in memory.
import { Effect, Layer, type Scope } from "effect"
import { Activity } from "../../src/bus/Activity.ts"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import { Plugins } from "../../src/bus/Plugin.ts"
import { Router } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as Consumers from "../../src/plugins/Consumers.ts"
import * as DeadLetter from "../../src/plugins/DeadLetter.ts"
import * as Maintenance from "../../src/plugins/Maintenance.ts"
import * as Module from "../../src/plugins/Module.ts"
import * as Monitor from "../../src/plugins/Monitor.ts"
import * as Permission from "../../src/plugins/Permission.ts"
import * as ReadModels from "../../src/plugins/ReadModels.ts"
import * as Store from "../../src/plugins/Store.ts"
import * as Streams from "../../src/plugins/Streams.ts"
import * as System from "../../src/plugins/System.ts"
import * as Time from "../../src/plugins/Time.ts"
import * as Trace from "../../src/plugins/Trace.ts"
import * as ActivityTable from "../../src/store/ActivityTable.ts"
import * as Consumer from "../../src/store/Consumer.ts"
import * as DeadLetterTable from "../../src/store/DeadLetterTable.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import { Permissions } from "../../src/store/Permissions.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as ReadModel from "../../src/store/ReadModel.ts"

export const groups = [
  System.Group,
  Store.Group,
  Streams.Group,
  Maintenance.Group,
  Time.Group,
  Trace.Group,
  Monitor.Group,
  DeadLetter.Group,
  ReadModels.Group,
  Consumers.Group,
  Module.Group,
  Permission.Group
]
export const events = groups.flatMap((group) => Object.values(group.events))

const bus = Router.layer.pipe(
  Layer.provideMerge(Subscriptions.layer),
  Layer.provideMerge(Permissions.layer),
  Layer.provideMerge(Layer.mergeAll(
    EventStore.layerMemory, ActivityTable.layerMemory(), DeadLetterTable.layerMemory, Projection.Projections.layer,
    System.Shutdown.layer, Plugins.layer
  ).pipe((stores) => Layer.provideMerge(Layer.merge(ReadModel.layerMemory, Consumer.layerMemory), stores)))
)

const plugins = Layer.mergeAll(
  System.layer,
  Store.layer,
  Streams.layer,
  Maintenance.layer,
  Time.layer,
  Trace.layer,
  Monitor.layer,
  DeadLetter.layer,
  ReadModels.layer,
  Consumers.layer,
  Module.layer,
  Permission.layer
)

export type Runtime =
  | Router | KsiService | Subscriptions | EventStore.EventStore | Activity | DeadLetters | Projection.Projections
  | System.Shutdown | Plugins | Permissions | ReadModel.ReadModels | Consumer.Consumers

/** A fresh runtime; `limits` replaces some of the defaults. */
export const runtime = (limits: Partial<Limits.LimitsShape> = {}, more: Layer.Layer<never> = Layer.empty) =>
  plugins.pipe(
    Layer.provideMerge(bus),
    Layer.provide(Layer.mergeAll(Layer.succeed(Limits.Limits, { ...Limits.defaults, ...limits }), more)),
    Layer.fresh
  )

/** Runs a program against a fresh runtime. */
export const withRuntime = <A, E>(
  program: Effect.Effect<A, E, Runtime | Scope.Scope>,
  limits: Partial<Limits.LimitsShape> = {}
) => Effect.provide(Effect.scoped(program), runtime(limits))

/** Asks by name, as the wire does. */
export const ask = Effect.fnUntraced(function*(name: string, data: unknown = {}) {
  const ksi = yield* KsiService
  const answer = yield* ksi.dispatch(name, data)
  if (answer.kind !== "value") throw new Error(`${name} is a fact`)
  return answer.value as Record<string, unknown>
})

/** The reason that a program fails with. */
export const reasonOf = <A, E, R>(program: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(program), (error) => {
    if (!KsiError.is(error)) throw new Error(`expected a KsiError, got ${String(error)}`)
    return error.reason
  })

/** All items of a paged request, and how many pages there were; `between` runs before each page but the first. */
export const pagesOf = Effect.fnUntraced(function*(
  name: string,
  payload: Record<string, unknown>,
  between: Effect.Effect<unknown, unknown, Runtime> = Effect.void
) {
  const items: Array<Record<string, unknown>> = []
  const sizes: Array<number> = []
  let cursor: unknown
  do {
    if (cursor !== undefined) yield* between
    const page = yield* ask(name, cursor === undefined ? payload : { ...payload, cursor })
    items.push(...page["items"] as Array<Record<string, unknown>>)
    sizes.push(Buffer.byteLength(JSON.stringify(page)))
    cursor = page["cursor"]
    if (sizes.length > 1000) throw new Error("the pages do not end")
  } while (cursor !== undefined)
  return { items, sizes, pages: sizes.length }
})

/** A CloudEvent. */
export const cloudEvent = (id: string | number, more: Record<string, unknown> = {}) => ({
  specversion: "1.0", id: String(id), source: "/test", type: "order:placed", subject: "order-1", ...more
})

/** What the original answered to an event, without what the wire adds. */
export const recorded = (event: string): ReadonlyArray<string> => keys[event] ?? []

// Keys of `data` in exchanges recorded from the original; `status` and `_ksi_context` are added by the wire.
const keys: Record<string, ReadonlyArray<string>> = {
  "system:discover": ["namespaces", "total_namespaces", "total_events", "_level", "_filters"],
  "system:help": ["module", "handler", "async", "summary", "parameters", "triggers", "examples", "usage"],
  "monitor:get_status": ["events", "event_count", "agents", "agent_count", "total_identities", "timestamp", "status"],
  "monitor:get_events": ["events", "count", "total_events", "query"],
  "event_log:query": ["events", "total", "has_more", "offset"]
}
