// What every door of the router needs: the table of events and handlers, time and ids, the envelopes of what comes from
// outside and of what a handler causes.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import type { NewFact } from "../../event/CloudEvent.ts"
import * as Envelope from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import type { HandlerEntry } from "../../event/EventGroup.ts"
import type { EventPattern } from "../../event/EventPattern.ts"
import * as EventRegistry from "../../event/EventRegistry.ts"
import * as KsiError from "../../event/KsiError.ts"
import { Limits } from "../../event/Limits.ts"
import * as Causation from "../Causation.ts"
import type { Letter } from "../DeadLetters.ts"
import * as Meter from "../Meter.ts"
import type { AnyFiber, Run } from "./drive.ts"
import * as Pipelines from "./pipeline.ts"
import type { Hook, Pipeline } from "./pipeline.ts"
import { makeSteady } from "./steady.ts"

/** Runs the requests of an event in the fiber that asks. */
export interface Runner {
  /** From its envelope on, whose data is decoded. */
  readonly run: (fiber: AnyFiber, envelope: Causation.LiveEnvelope) => Run
  /** From what a program hands over on. */
  readonly call: (fiber: AnyFiber, payload: unknown) => Run
}

/** An event, what stands before it, and who handles it. */
export interface TableEntry extends EventRegistry.Entry {
  readonly handlers: Array<HandlerEntry>
  /** Names of the middleware that its definitions stand behind. */
  readonly guards: Set<string>
  /** One of them that is not there: nothing of this event is carried out without it. */
  unguarded: string | undefined
  /** The middleware of the layers that define it. */
  readonly own: Set<ReadonlyArray<Hook>>
  /** All of its middleware, outermost first. */
  hooks: ReadonlyArray<Hook>
  /** Runs an envelope through the middleware. */
  pipeline: Pipeline
  /** The short way, where there is one: one plain handler, and hooks that do not wrap every event. */
  direct: HandlerEntry | undefined
  /** The hooks that wrap some events; those take the long way. */
  wrapping: ReadonlyArray<Hook>
  /** The hooks that stand around its reactions. */
  reacting: ReadonlyArray<Hook>
  /** Whether a hook wants to know how long it took. */
  timed: boolean
  /** Whether a hook may fail with an error of its own. */
  mayRefuse: boolean
  /** Runs its requests; made when the first one comes after the event was wired anew. */
  runner: Runner | undefined
  /** Its counters, where somebody counts. */
  readonly tally: Meter.Tally | undefined
  /** How many layers define it; it is forgotten with the last one. */
  definitions: number
}

/** A fact's entry. */
export type FactEntry = TableEntry & { readonly event: Event.AnyFact }

const failedToWire = (plugin: string, problem: string) =>
  KsiError.fail(new KsiError.PluginInvalid({ plugin, problem }))

const makeEntries = (registry: EventRegistry.EventRegistry, clock: Clock.Clock, meter: Meter.Meter | undefined) => {
  const entries = new Map<string, TableEntry>()
  const everywhere = new Set<readonly [hook: Hook, pattern: EventPattern]>()

  const compile = (entry: TableEntry): void => {
    const around = [...everywhere].filter(([, pattern]) => pattern.matches(entry.event.name)).map(([hook]) => hook)
    entry.hooks = [...around, ...[...entry.own].flat()]
    entry.pipeline = Pipelines.compile(entry.hooks, clock)
    entry.timed = entry.hooks.some(Pipelines.takesElapsed)
    const [only, ...others] = entry.handlers
    const isPlain = only !== undefined && others.length === 0 && only.key === undefined && only.timeoutMillis === undefined
    entry.wrapping = entry.hooks.filter(({ around }) => around !== undefined)
    entry.reacting = entry.hooks.filter(({ reaction }) => reaction !== undefined)
    entry.direct = isPlain && entry.wrapping.every(({ when }) => when !== undefined) ? only : undefined
    entry.unguarded = [...entry.guards].find((name) => !entry.hooks.some((hook) => hook.name === name))
    entry.mayRefuse = entry.hooks.some(({ error }) => error.ast._tag !== "Never")
    entry.runner = undefined
  }

  const take = (event: Event.Any, hooks: ReadonlyArray<Hook>): Effect.Effect<TableEntry, KsiError.KsiError> => {
    const registered = registry.register(event)
    if (Result.isFailure(registered)) return failedToWire(event.name, registered.failure)
    const entry: TableEntry = entries.get(event.name) ??
      { ...registered.success, handlers: [], guards: new Set(), unguarded: undefined, own: new Set(), hooks: [], pipeline: Pipelines.compile([], clock), direct: undefined, wrapping: [], reacting: [], timed: false, mayRefuse: false, runner: undefined, tally: meter?.of(event.name), definitions: 0 }
    entry.definitions++
    if (hooks.length > 0) entry.own.add(hooks)
    for (const { name } of event.middleware) entry.guards.add(name)
    entries.set(event.name, entry)
    compile(entry)
    return Effect.succeed(entry)
  }
  const giveBack = (entry: TableEntry, hooks: ReadonlyArray<Hook>) =>
    Effect.sync(() => {
      entry.own.delete(hooks)
      compile(entry)
      if (--entry.definitions > 0) return
      entries.delete(entry.event.name)
      registry.unregister(entry.event.name)
    })
  const define = (event: Event.Any, hooks: ReadonlyArray<Hook> = []) =>
    Effect.acquireRelease(Effect.suspend(() => take(event, hooks)), (entry) => giveBack(entry, hooks))

  const handle = Effect.fnUntraced(function*(event: Event.Any, handler: HandlerEntry) {
    const entry = yield* define(event)
    const { handlers } = entry
    const change = (f: () => unknown) => Effect.sync(() => (f(), compile(entry)))
    yield* Effect.acquireRelease(
      change(() => handlers.push(handler)),
      () => change(() => handlers.splice(handlers.indexOf(handler), 1))
    )
  })

  /** Puts a hook before all events that the pattern matches, until the scope closes. */
  const use = (hook: Hook, pattern: EventPattern) => {
    const pair = [hook, pattern] as const
    const all = Effect.sync(() => entries.forEach(compile))
    return Effect.acquireRelease(
      Effect.andThen(Effect.sync(() => everywhere.add(pair)), all),
      () => Effect.andThen(Effect.sync(() => everywhere.delete(pair)), all)
    )
  }
  return { entries, define, handle, use }
}

/** The labels of a fact that was made elsewhere: what it will say of itself once it is stored, so that who stands before it is told the same. */
const labelsOf = (fact: NewFact, labels: Partial<Causation.Origin>): Partial<Causation.Origin> => {
  const { principal = Causation.own.principal, traceparent } = labels
  const told = Envelope.metadataOf(Envelope.receivedFact(fact, fact.streamId, fact.data, principal), 0)
  const { clientCorrelationId, clientId, source } = told
  // Where nobody says which span it is sent in, it is the one that it was made in.
  const { tracestate } = traceparent === undefined ? told : labels
  return { ...labels, clientCorrelationId, clientId, source, traceparent: traceparent ?? told.traceparent, tracestate }
}

/** The table of one router. */
export const make = Effect.gen(function*() {
  const limits = yield* Limits
  const clock = yield* Clock.Clock
  const stamps: Causation.Stamps = { ids: yield* Envelope.randomIds, now: () => clock.currentTimeMillisUnsafe() }
  const registry = EventRegistry.make()
  const meter = yield* Meter.Current
  const { define, entries, handle, use } = makeEntries(registry, clock, meter)

  const envelope = (name: string, data: unknown, parent: Envelope.Envelope | undefined, origin: Causation.Origin) =>
    new Causation.LiveEnvelope(name, data, parent, origin, stamps)
  const steady = makeSteady(clock)
  const labelled = (parent: Envelope.Envelope | undefined, origin: Causation.Origin, labels: Partial<Causation.Origin>) => {
    const { deadline } = labels
    // From here on the clock on the wall may be set: what is left is left.
    return Causation.narrow(parent, origin, labels, deadline === undefined ? undefined : steady() + deadline - clock.currentTimeMillisUnsafe())
  }

  const currentOf = Causation.makeFinder()
  return {
    registry,
    /** Who counts, if somebody does. */
    meter,
    stamps,
    /** The envelope that a fiber is handling. */
    currentOf,
    define,
    handle,
    use,
    clock,
    get: (name: string) => entries.get(name),
    /** The envelope of something that comes from outside. */
    root: (name: string, data: unknown, labels?: Partial<Causation.Origin>) =>
      envelope(name, data, undefined, labels === undefined ? Causation.own : labelled(undefined, Causation.own, labels)),
    /** The envelope of a fact that was made elsewhere. */
    received: (fact: NewFact, labels: Partial<Causation.Origin>) =>
      new Causation.ReceivedEnvelope(fact, labelled(undefined, Causation.own, labelsOf(fact, labels)), stamps),
    /** The envelope of what is asked or said in this fiber; `labels` may narrow what it inherits, never widen it. */
    child: (fiber: AnyFiber, name: string, data: unknown, labels?: Partial<Causation.Origin>) => {
      const parent = currentOf(fiber)
      const origin = Causation.originOf(parent)
      return envelope(name, data, parent, labels === undefined ? origin : labelled(parent, origin, labels))
    },
    /** The envelope of something that a person runs once more: new, and caused by the old one. */
    again: (fiber: AnyFiber, old: Letter["event"], data: unknown): Envelope.Envelope => {
      const { attributes, id, name, streamId } = old
      const before = Envelope.fromFact({
        id, name, streamId: streamId ?? "", source: Envelope.ownSource, data, time: undefined, attributes,
        position: old.position ?? 0, version: 0, timestamp: 0, recordedAt: 0
      }, data)
      const asked = fiber.getRef(Causation.Current)
      const { principal } = asked?.metadata ?? Causation.own
      return envelope(name, data, before, { ...Causation.originOf(before), principal })
    },
    /** Why an envelope may go no further: its chain of causes is too long, or its time is over. */
    refuse: (envelope: Causation.LiveEnvelope): Exit.Exit<never, KsiError.KsiError> | undefined => {
      const { deadline = 0, depth, origin: { due } } = envelope
      if (depth > limits.depth) {
        return KsiError.exit(
          new KsiError.LimitExceeded({ limit: "depth", max: limits.depth, actual: depth, retryable: false })
        )
      }
      return due !== undefined && due <= steady()
        ? KsiError.exit(new KsiError.DeadlineExceeded({ event: envelope.name, millis: Math.max(0, deadline - envelope.timestamp) }))
        : undefined
    },
    unknown: (name: string) => KsiError.exit(registry.unknown(name)),
    /** Nobody answers: no handler is there. */
    noHandler: (event: string) => KsiError.exit(new KsiError.NoHandler({ event, passed: 0, similar: registry.similar(event) }))
  }
})

/** The table of one router. */
export type Table = Effect.Success<typeof make>
