// What every door of the router needs: the table of events and handlers, time and ids, the envelopes of what comes from
// outside and of what a handler causes.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Envelope from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import type { HandlerEntry } from "../../event/EventGroup.ts"
import * as EventRegistry from "../../event/EventRegistry.ts"
import * as KsiError from "../../event/KsiError.ts"
import { Limits } from "../../event/Limits.ts"
import * as Causation from "../Causation.ts"
import type { AnyFiber } from "./drive.ts"

/** An event and who handles it. */
export interface TableEntry extends EventRegistry.Entry {
  readonly handlers: Array<HandlerEntry>
  /** How many layers define it; it is forgotten with the last one. */
  definitions: number
}

const failedToWire = (plugin: string, problem: string) =>
  KsiError.fail(new KsiError.PluginInvalid({ plugin, problem }))

const makeEntries = (registry: EventRegistry.EventRegistry) => {
  const entries = new Map<string, TableEntry>()

  const take = (event: Event.Any): Effect.Effect<TableEntry, KsiError.KsiError> => {
    const registered = registry.register(event)
    if (Result.isFailure(registered)) return failedToWire(event.name, registered.failure)
    const entry = entries.get(event.name) ?? { ...registered.success, handlers: [], definitions: 0 }
    entry.definitions++
    entries.set(event.name, entry)
    return Effect.succeed(entry)
  }
  const giveBack = (entry: TableEntry) =>
    Effect.sync(() => {
      if (--entry.definitions > 0) return
      entries.delete(entry.event.name)
      registry.unregister(entry.event.name)
    })
  const define = (event: Event.Any) => Effect.acquireRelease(Effect.suspend(() => take(event)), giveBack)

  const handle = Effect.fnUntraced(function*(event: Event.Any, handler: HandlerEntry) {
    const { handlers } = yield* define(event)
    if (event.kind === "request" && handlers.length > 0) {
      return yield* failedToWire(event.name, "it has a handler already")
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => handlers.push(handler)),
      () => Effect.sync(() => handlers.splice(handlers.indexOf(handler), 1))
    )
  })
  return { entries, define, handle }
}

/** The table of one router. */
export const make = Effect.gen(function*() {
  const limits = yield* Limits
  const clock = yield* Clock.Clock
  const ids = yield* Envelope.randomIds
  const registry = EventRegistry.make()
  const { define, entries, handle } = makeEntries(registry)

  const envelope = (name: string, data: unknown, parent: Envelope.Envelope | undefined, origin: Causation.Origin) =>
    new Causation.LiveEnvelope(name, data, parent, origin, clock.currentTimeMillisUnsafe(), ids)

  return {
    registry,
    define,
    handle,
    clock,
    get: (name: string) => entries.get(name),
    /** The envelope of something that comes from outside. */
    root: (name: string, data: unknown, labels?: Partial<Causation.Origin>) =>
      envelope(name, data, undefined, labels === undefined ? Causation.own : { ...Causation.own, ...labels }),
    /** The envelope of what is asked or said in this fiber; `labels` may narrow what it inherits, never widen it. */
    child: (fiber: AnyFiber, name: string, data: unknown, labels?: Partial<Causation.Origin>) => {
      const parent = fiber.getRef(Causation.Current)
      const origin = Causation.originOf(parent)
      return envelope(name, data, parent, labels === undefined ? origin : Causation.narrow(parent, origin, labels))
    },
    /** Why an envelope may go no further: its chain of causes is too long, or its time is over. */
    refuse: (envelope: Causation.LiveEnvelope): Exit.Exit<never, KsiError.KsiError> | undefined => {
      const { deadline, depth } = envelope
      if (depth > limits.depth) {
        return KsiError.exit(
          new KsiError.LimitExceeded({ limit: "depth", max: limits.depth, actual: depth, retryable: false })
        )
      }
      return deadline !== undefined && deadline <= clock.currentTimeMillisUnsafe()
        ? KsiError.exit(new KsiError.DeadlineExceeded({ event: envelope.name, millis: 0 }))
        : undefined
    },
    unknown: (name: string) => KsiError.exit(registry.unknown(name)),
    noHandler: (event: string) =>
      KsiError.exit(new KsiError.NoHandler({ event, passed: 0, similar: registry.similar(event) }))
  }
})

/** The table of one router. */
export type Table = Effect.Success<typeof make>
