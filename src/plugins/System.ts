/**
 * What a running KSI says about itself: is it well, what events does it know, how is one used; and how to stop it.
 *
 * The rule: `system:health` answers from memory. It touches no disk, so that it still answers when the disk does not.
 *
 * **Example**
 *
 * ```ts
 * const ksi = yield* KsiService
 * const { namespaces } = yield* ksi.call(System.Discover, { namespace: "system" })
 * namespaces["system"]?.count                 // 4
 * ```
 *
 * `system:discover` and `system:help` tell whoever asks of the events that they may use, and of no others.
 *
 * **Gotchas** What the process alone knows (version, pid, home, memory) comes from `System.Info`, whose defaults are
 * harmless; the process entry point provides the real ones. `system:shutdown` answers before anything stops: whoever
 * runs the process waits for `Shutdown.requested`.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Authorizer, mayUse, unknownTo } from "../bus/Authorizer.ts"
import * as Router from "../bus/Router.ts"
import { Subscriptions } from "../bus/Subscription.ts"
import type { Envelope } from "../event/Envelope.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import * as EventName from "../event/EventName.ts"
import * as EventPattern from "../event/EventPattern.ts"
import type * as EventRegistry from "../event/EventRegistry.ts"
import * as KsiError from "../event/KsiError.ts"
import { Consumers } from "../store/Consumer.ts"
import { EventStore } from "../store/EventStore.ts"
import { ReadModels } from "../store/ReadModel.ts"
import { Count, Opaque, optional } from "./internal/fields.ts"
import * as Help from "./internal/help.ts"

// ------------------------------------------------------------------------------------------------------------ events

/** Whether the runtime is well, and its figures. */
export const Health = Event.make("system:health", {
  success: Schema.Struct({
    status: Schema.Literal("healthy"),
    version: Schema.String.annotate({ description: "KSI's version" }),
    uptime: Schema.Finite.annotate({ description: "seconds since the start" }),
    position: Count.annotate({ description: "the last position of the store" }),
    store: Schema.Struct({ kind: Schema.String, file: optional(Schema.String, "the database file") }),
    events: Count.annotate({ description: "registered events" }),
    subscriptions: Count.annotate({ description: "open subscriptions" }),
    failed_projections: optional(Schema.Array(Schema.String), "read models that have stopped at a fact; see `projection:list`"),
    blocked_consumers: optional(Schema.Array(Schema.String), "consumer groups that have set too much aside; see `consumer:list`"),
    connections: optional(Count, "open connections"),
    memory_bytes: optional(Schema.Finite, "resident memory of the process"),
    pid: optional(Schema.Int, "process id"),
    home: optional(Schema.String, "KSI_HOME"),
    socket: optional(Schema.String, "path of the Unix socket"),
    url: optional(Schema.String, "where HTTP is"),
    tcp: optional(Schema.String, "where TCP is")
  }),
  idempotent: true,
  annotations: { description: "Says whether the runtime is well, from memory: no disk is touched.", examples: [{}] }
})

const Listed = Schema.Struct({
  name: Schema.String,
  kind: Schema.Literals(["request", "fact"]),
  mode: optional(Schema.Literals(["call", "stream"]), "how a request is answered"),
  description: optional(Schema.String, "what it does"),
  handlers: Count
})

/** The events this runtime knows, by namespace. */
export const Discover = Event.make("system:discover", {
  payload: {
    namespace: optional(Schema.String, "only this namespace"),
    event: optional(Schema.String, "only the event of this name"),
    module: optional(Schema.String, "only the module of this name; a module is a namespace"),
    pattern: optional(Schema.String, "only events that this pattern matches, listed one by one"),
    level: optional(Schema.Literals(["summary", "events"]), "counts only, or each event; `events` when a pattern is given"),
    detail: optional(Schema.Boolean, "accepted for older clients; see `level`")
  },
  success: Schema.Struct({
    namespaces: Schema.Record(
      Schema.String,
      Schema.Struct({
        count: Count,
        description: Schema.String,
        events: optional(Schema.Array(Listed), "the events, at level `events`")
      })
    ),
    total_namespaces: Count,
    total_events: Count,
    _level: Schema.String,
    _filters: Schema.Struct({
      namespace: Schema.NullOr(Schema.String),
      event: Schema.NullOr(Schema.String),
      module: Schema.NullOr(Schema.String)
    })
  }),
  idempotent: true,
  annotations: {
    description: "Lists the events that this runtime knows, by namespace.",
    examples: [{}, { namespace: "store" }, { pattern: "store:*" }]
  }
})

const Command = Schema.Struct({ command: Schema.String })

/** How one event is used. */
export const HelpOf = Event.make("system:help", {
  payload: { event: Schema.String.annotate({ description: "the event's name" }) },
  success: Schema.Struct({
    event: Schema.String,
    kind: Schema.Literals(["request", "fact"]),
    mode: optional(Schema.Literals(["call", "stream"]), "how a request is answered"),
    module: Schema.String.annotate({ description: "the event's namespace" }),
    handler: Schema.NullOr(Schema.String).annotate({ description: "who answers; null when nobody does" }),
    handlers: Count,
    handled_by: Schema.Array(Schema.Struct({ name: Schema.String, execution: Schema.Literals(["concurrent", "sequential"]) }))
      .annotate({ description: "the handlers, in the order in which their answers count" }),
    middleware: Schema.Array(Schema.String).annotate({ description: "what stands before the handlers, outermost first" }),
    observers: Schema.Array(Schema.String).annotate({ description: "who is told of it beside the handlers" }),
    async: Schema.Boolean,
    idempotent: optional(Schema.Boolean, "whether asking twice does no more than asking once"),
    summary: Schema.String,
    parameters: Schema.Record(
      Schema.String,
      Schema.Struct({ type: Schema.String, required: Schema.Boolean, description: Schema.String })
    ),
    triggers: Schema.Array(Schema.String),
    examples: Schema.Array(Command),
    usage: Command,
    schemas: Opaque.annotate({ description: "JSON Schema of payload, success and error" })
  }),
  idempotent: true,
  annotations: {
    description: "Describes one event: what it does, its parameters, its schemas, and commands to try.",
    examples: [{ event: "system:discover" }]
  }
})

/** Asks the process to stop. */
export const ShutDown = Event.make("system:shutdown", {
  success: Schema.Struct({ status: Schema.Literal("shutting_down") }),
  idempotent: true,
  annotations: {
    description: "Asks the process to stop: running requests are finished, then it ends.",
    examples: [{}]
  }
})

/** The events of `system:*`. */
export const Group = EventGroup.make(Health, Discover, HelpOf, ShutDown)

// ---------------------------------------------------------------------------------------------------------- services

/** What only the process knows; the defaults are those of a process that says nothing. */
export interface InfoShape {
  readonly version: string
  readonly pid?: number | undefined
  /** KSI_HOME. */
  readonly home?: string | undefined
  /** Path of the Unix socket. */
  readonly socket?: string | undefined
  /** Where HTTP is, once it is. */
  readonly url?: (() => string | undefined) | undefined
  /** Where TCP is, once it is there. */
  readonly tcp?: (() => string | undefined) | undefined
  /** Resident memory, in bytes. */
  readonly memoryBytes?: (() => number) | undefined
  /** How many connections are open. */
  readonly connections?: (() => number) | undefined
}

/** What only the process knows; `main.ts` provides it. */
export const Info: Context.Reference<InfoShape> = Context.Reference<InfoShape>("ksi/plugins/System/Info", {
  defaultValue: () => ({ version: "0.0.0" })
})

/** The wish to stop: `system:shutdown` states it, whoever runs the process waits for it. */
export class Shutdown extends Context.Service<Shutdown, {
  /** States the wish; again is the same as once. */
  readonly request: Effect.Effect<void>
  /** Waits for the wish. */
  readonly requested: Effect.Effect<void>
}>()("ksi/plugins/System/Shutdown") {
  /** One wish for as long as the layer lives. */
  static readonly layer: Layer.Layer<Shutdown> = Layer.effect(
    Shutdown,
    Effect.map(Deferred.make<void>(), (wish) => ({
      request: Effect.asVoid(Deferred.succeed(wish, undefined)),
      requested: Deferred.await(wish)
    }))
  )
}

// ---------------------------------------------------------------------------------------------------------- handlers

type Entries = ReadonlyArray<EventRegistry.Entry>

const described: { readonly [namespace: string]: string } = {
  system: "The runtime itself: health, what there is to call, help, shutdown",
  store: "Facts: import, export, streams and their logs",
  time: "State as it was at any moment",
  monitor: "What happened: requests and facts, and who caused what",
  event_log: "What happened, filtered and paged",
  deadletter: "Reactions to facts that failed: list, show, rerun, discard",
  projection: "Read models: how far each is, its states, build one anew",
  consumer: "Consumer groups: how far each is, what is parked; work for one",
  pubsub: "Following events over a connection",
  stream: "Streams over a connection",
  module: "The daemon's modules: state, events, start",
  permission: "Who may do what: grants, profiles, tokens",
  wire: "The connection itself"
}

/** What a namespace is about; of a user's own, its events. */
const describe = (namespace: string, entries: Entries): string => {
  const known = described[namespace]
  if (known !== undefined) return known
  const verbs = entries.slice(0, 5).map(({ event }) => event.name.slice(namespace.length + 1))
  return verbs.join(", ") + (entries.length > verbs.length ? `, and ${entries.length - verbs.length} more` : "")
}

const modeOf = (event: Event.Any) => event.kind === "request" ? { mode: event.mode } : {}

const listed = (handlers: (name: string) => number) => ({ event }: EventRegistry.Entry): typeof Listed.Type => ({
  name: event.name,
  kind: event.kind,
  ...modeOf(event),
  ...(event.annotations.description === undefined ? {} : { description: event.annotations.description }),
  handlers: handlers(event.name)
})

const byNamespace = (entries: Entries): ReadonlyMap<string, Entries> =>
  Map.groupBy(entries, ({ event }) => EventName.namespace(event.name))

// Not by the time of day: somebody may set that.
const nanosPerMilli = 1_000_000n

/** The figures of `system:health`, from what is in memory. */
const makeHealth = Effect.gen(function*() {
  const info = yield* Info
  const store = yield* EventStore
  const subscriptions = yield* Subscriptions
  const { registry } = yield* Router.Router
  const models = yield* ReadModels
  const consumers = yield* Consumers
  const everything = yield* EventPattern.fromText("*")
  const startedAt = yield* Clock.monotonicTimeNanos
  const { file, kind } = store.driver.describe
  const still = {
    ...(info.pid === undefined ? {} : { pid: info.pid }),
    ...(info.home === undefined ? {} : { home: info.home }),
    ...(info.socket === undefined ? {} : { socket: info.socket })
  }
  const named = (field: "failed_projections" | "blocked_consumers", names: ReadonlyArray<string>) => names.length === 0 ? {} : { [field]: names }
  const placed = (field: "url" | "tcp", place: string | undefined) => place === undefined ? {} : { [field]: place }
  return (now: bigint): Event.Success<typeof Health> => ({
    status: "healthy",
    version: info.version,
    uptime: Number((now - startedAt) / nanosPerMilli) / 1000,
    position: store.head(),
    store: { kind, ...(file === undefined ? {} : { file }) },
    events: registry.list(everything).length,
    subscriptions: subscriptions.count(),
    ...named("failed_projections", models.failures().map(({ name }) => name)),
    ...named("blocked_consumers", consumers.blocked()),
    ...(info.connections === undefined ? {} : { connections: info.connections() }),
    ...(info.memoryBytes === undefined ? {} : { memory_bytes: info.memoryBytes() }),
    ...still,
    ...placed("url", info.url?.()),
    ...placed("tcp", info.tcp?.())
  })
})

const discovered = (
  entries: Entries,
  payload: Event.Payload<typeof Discover>,
  handlers: (name: string) => number
): Event.Success<typeof Discover> => {
  const { event, module, namespace } = payload
  const level = payload.level ?? (payload.pattern === undefined ? "summary" : "events")
  const chosen = entries.filter(({ event: { name } }) =>
    (event === undefined || event === name) &&
    (namespace === undefined || namespace === EventName.namespace(name)) &&
    (module === undefined || module === EventName.namespace(name)))
  const groups = byNamespace(chosen)
  return {
    namespaces: Object.fromEntries([...groups].map(([name, members]) => [name, {
      count: members.length,
      description: describe(name, members),
      ...(level === "events" ? { events: members.map(listed(handlers)) } : {})
    }])),
    total_namespaces: groups.size,
    total_events: chosen.length,
    _level: level,
    _filters: { namespace: namespace ?? null, event: event ?? null, module: module ?? null }
  }
}

const helpOf = (event: Event.Any, wiring: Router.Wiring, socket: string): Event.Success<typeof HelpOf> => {
  const { length: handlers } = wiring.handlers
  const schemas = Help.schemas(event)
  return {
    event: event.name,
    kind: event.kind,
    ...modeOf(event),
    module: EventName.namespace(event.name),
    handler: handlers === 0 ? null : event.name,
    handlers,
    handled_by: wiring.handlers,
    middleware: wiring.middleware,
    observers: wiring.observers,
    async: true,
    ...(event.kind === "request" ? { idempotent: event.idempotent } : {}),
    summary: event.annotations.description ?? `${event.name} is a ${event.kind} without a description`,
    parameters: Help.parameters(schemas.payload),
    triggers: [],
    ...Help.commands(event, schemas.payload, socket),
    schemas
  }
}

const handlers = Group.toLayer(Effect.gen(function*() {
  const router = yield* Router.Router
  const shutdown = yield* Shutdown
  const { socket = "var/run/daemon.sock" } = yield* Info
  const health = yield* makeHealth
  const authorizer = yield* Authorizer
  return {
    *"system:health"() {
      return health(yield* Clock.monotonicTimeNanos)
    },
    *"system:discover"(payload: Event.Payload<typeof Discover>, { metadata: { principal } }: Envelope) {
      const pattern = yield* EventPattern.fromText(payload.pattern ?? "*")
      const entries = router.registry.list(pattern).filter(({ event }) => mayUse(authorizer, principal, event.name))
      return discovered(entries, payload, router.handlers)
    },
    *"system:help"({ event: name }: Event.Payload<typeof HelpOf>, { metadata: { principal } }: Envelope) {
      const entry = router.registry.get(name)
      if (!mayUse(authorizer, principal, name)) {
        return yield* KsiError.fail(authorizer.refusal(principal, "call", name))
      }
      if (entry === undefined) return yield* KsiError.fail(unknownTo(authorizer, router.registry, principal, name))
      return helpOf(entry.event, router.describe(name), socket)
    },
    *"system:shutdown"() {
      yield* shutdown.request
      return { status: "shutting_down" as const }
    }
  }
}))

/** Serves `system:*`. */
export const layer: Layer.Layer<
  never,
  KsiError.KsiError,
  Router.Router | Subscriptions | EventStore | ReadModels | Consumers | Shutdown
> = Router.serveBuiltin(Group).pipe(Layer.provide(handlers))
