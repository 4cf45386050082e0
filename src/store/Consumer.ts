/**
 * Consumer groups: facts handled by their handlers' effects, behind the store, at least once, in the order of each stream.
 *
 * The rule: a group remembers under its name what it has dealt with; after a crash only the rest is handled again. Its members
 * share the streams by a hash of the id: facts of one stream come one after the other, those of different streams at the same
 * time. A fact whose handler keeps failing is *parked*: set aside with its error, kept and shown until a person has it
 * handled again (`consumer:retry`) or discards it. What comes later in its stream is set aside behind it, so that the order
 * is kept; with `parking: "fact"` it goes on.
 *
 * **Example**
 *
 * ```ts
 * const shipped: Array<string> = []
 * const Shipping = Consumer.layer("shipping", {
 *   events: [Reserved],
 *   start: "start",
 *   handler: ({ sku }, { attempt }) => Effect.sync(() => void shipped.push(`${sku} ${attempt}`))
 * })
 * const ksi = yield* KsiService
 * yield* ksi.emit(Reserved, { sku: "tea", quantity: 1 })
 * yield* Layer.build(Shipping)
 * yield* Consumer.settled("shipping")
 * shipped                                     // ["tea 1"]
 * ```
 *
 * **Gotchas** At least once: a process that dies between a handler's end and the note of it hands the fact over again.
 * `delivery.id` with `delivery.metadata.source` is its identity, `delivery.attempt` the number of the attempt. While a member
 * waits for the next attempt, the other streams of its partition wait too: more members (`concurrency`), less waiting. KSI's
 * own streams (`ksi-…`) are left out, and so is what retention or a deletion removed before the group got there: a group that
 * must not miss anything has to be faster than its streams' `maxAge` and `maxCount`. `concurrency` may change between starts; `start` counts only for a group that is new.
 * Beside the daemon (`Ksi.layerRemote`) the same layers share the work with other programs: `plugins/RemoteConsumers.ts` says what is
 * otherwise there.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { Current, servicesOf } from "../bus/Causation.ts"
import * as Envelope from "../event/Envelope.ts"
import type * as Event from "../event/Event.ts"
import * as EventCodec from "../event/EventCodec.ts"
import * as EventName from "../event/EventName.ts"
import * as EventPattern from "../event/EventPattern.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import { EventStore } from "./EventStore.ts"
import { onForget } from "./Forgetting.ts"
import * as ConsumerRows from "./internal/ConsumerRows.ts"
import * as consuming from "./internal/consuming.ts"
import * as StoreFile from "./internal/StoreFile.ts"

/** A fact as a group hands it over. */
export interface Handed<out P> extends Envelope.Delivery<P> {
  readonly group: string
  /** 1, and one more each time that it is handled again; counted anew after a restart, and kept while it is parked. */
  readonly attempt: number
}

/** How a group works. */
export interface Options {
  /** Members, each with a partition of the streams. Default: 8. */
  readonly concurrency?: number | undefined
  /** When to try again; gets what the handler said. Default: after 200 ms, doubled each time. */
  readonly retry?: Schedule.Schedule<unknown, string> | undefined
  /** Attempts before a fact is parked. Default: 5. */
  readonly maxAttempts?: number | undefined
  /** What is set aside with a fact: all that follows in its `stream` (the default), or the `fact` alone. */
  readonly parking?: "stream" | "fact" | undefined
  /** Facts that may be set aside; beyond it the group waits for room. Default: 10,000. */
  readonly maxParked?: number | undefined
  /** Facts under way, and done out of order, at most. Default: 1,024. */
  readonly window?: number | undefined
  /** Where a new group begins: at the first fact, with the next one (the default), or at a position. */
  readonly start?: "start" | "now" | number | undefined
}

/** How a group is. */
export interface Status {
  readonly name: string
  /** `idle`: nobody here works for it. `blocked`: too much is set aside. */
  readonly status: "following" | "blocked" | "idle"
  /** Everything up to here is dealt with. */
  readonly position: number
  /** Positions that are not. */
  readonly lag: number
  /** Facts under way. */
  readonly pending: number
  readonly parked: number
  readonly members: number
  /** Why it waits; it tries again. */
  readonly trouble: string | undefined
}

/** A fact that is set aside. */
export type Parked = ConsumerRows.Parked

/** How an attempt ended: well (`undefined`), with something wrong, or not at all because who works stops. */
export type Outcome = consuming.Outcome

type Handle = (fact: Envelope.Delivery, attempt: number) => Effect.Effect<Outcome>

/** What a group is made of. */
export interface Consuming extends Options {
  /** Names of facts, and patterns of them. */
  readonly events: ReadonlyArray<string>
  /** What is done with a fact, whose data is as it is stored. */
  readonly handle: Handle
  /** How many work for it, where they are not its own members. */
  readonly members?: (() => number) | undefined
}

/** Options with what holds where nothing is said. */
export const resolved = (
  { concurrency = 8, maxAttempts = 5, maxParked = 10_000, parking = "stream", retry = Schedule.exponential("200 millis"), start = "now", window = 1024 }: Options
): { readonly [K in keyof Options]-?: Exclude<Options[K], undefined> } => ({ concurrency, maxAttempts, maxParked, parking, retry, start, window })

/** The consumer groups of a runtime, by name. */
export class Consumers extends Context.Service<Consumers, {
  readonly status: Effect.Effect<ReadonlyArray<Status>, KsiError.KsiError>
  /** Groups of this process that wait for room among what they have set aside, from memory. */
  readonly blocked: () => ReadonlyArray<string>
  /** What a group has set aside, in the order of positions. `NotFound` where there is no such group. */
  readonly parked: (name: string, query: ConsumerRows.ParkedQuery) => Effect.Effect<ReadonlyArray<Parked>, KsiError.KsiError>
  /** Handles what is set aside once more, of one stream or of all; answers with how many went well, and how many are left. */
  readonly retry: (name: string, streamId?: string) => Effect.Effect<{ readonly handled: number; readonly left: number }, KsiError.KsiError>
  /** Removes facts from those that are set aside; they count as dealt with. Answers with how many there were. */
  readonly discard: (name: string, positions: ReadonlyArray<number>) => Effect.Effect<number, KsiError.KsiError>
  /** Waits until a group has dealt with everything up to a position; default: with everything that is stored now. */
  readonly settled: (name: string, position?: number) => Effect.Effect<void, KsiError.KsiError>
  /** Works for a group until the scope closes; `PluginInvalid` where somebody does already. */
  readonly consume: (name: string, work: Consuming) => Effect.Effect<void, KsiError.KsiError, Scope.Scope>
}>()("ksi/store/Consumers") {}

// ------------------------------------------------------------------------------------------------------------ service

const stopMillis = 30_000
const lagOf = Metric.gauge("ksi_consumer_lag", { description: "positions that a consumer group is behind the store" })

const startOf = (start: Options["start"], head: number): number =>
  start === "start" ? 0 : typeof start === "number" ? Math.min(head, Math.max(0, start - 1)) : head

const invalid = (name: string, problem: string) => KsiError.fail(new KsiError.PluginInvalid({ plugin: `the consumer group "${name}"`, problem }))

const positive = (value: number): boolean => Number.isInteger(value) && value >= 1

// Each member is a fiber with a queue of its own.
const maxConcurrency = 10_000

const isStart = (start: unknown): boolean =>
  start === undefined || start === "start" || start === "now" || (Number.isSafeInteger(start) && Number(start) >= 0)

interface AtWork extends consuming.Working {
  readonly members: () => number
  readonly waiting: Set<() => void>
}

/** Whether a fact of this name is for who asks for these. */
const wanting = Effect.fnUntraced(function*(events: ReadonlyArray<string>) {
  const names = new Set(events)
  const patterns = yield* Effect.forEach(events.filter((event) => event.includes("*")), EventPattern.fromText)
  return (name: string) => names.has(name) || patterns.some(({ matches }) => matches(name))
})

/** The fibers of one group. */
const begin = Effect.fnUntraced(function*(name: string, options: Consuming, rows: ConsumerRows.ConsumerRows, store: EventStore["Service"]) {
  const { idLength, pageItems } = yield* Limits
  const { concurrency, maxAttempts, maxParked, parking, retry, start, window } = resolved(options)
  const wants = yield* wanting(options.events)
  if (name === "") return yield* invalid(name, "it needs a name")
  if (name.length > idLength) return yield* invalid(name.slice(0, 60), `its name has ${name.length} characters, at most ${idLength} are allowed`)
  if (!name.isWellFormed()) return yield* invalid(name, "its name must be well-formed Unicode")
  for (const [what, value] of Object.entries({ concurrency, maxAttempts, maxParked, window })) {
    if (!positive(value)) return yield* invalid(name, `${what} must be an integer from 1, got ${value}`)
  }
  if (concurrency > maxConcurrency) return yield* invalid(name, `concurrency must be at most ${maxConcurrency}, got ${concurrency}`)
  // Not every program has a compiler behind it: what is none must not become "now".
  if (!isStart(start)) return yield* invalid(name, `start must be "start", "now" or a position, got ${String(start)}`)
  const lag = Metric.withAttributes(lagOf, { group: name })
  const waiting = new Set<() => void>()
  const working = yield* consuming.start({
    name, store, rows, concurrency, maxAttempts, maxParked, window, stopMillis, page: pageItems,
    noted: (position) => {
      lag.updateUnsafe(Math.max(0, store.head() - position), Context.empty())
      for (const look of waiting) look()
    },
    wants: (fact) => wants(fact.name),
    handle: (fact, attempt) => options.handle(Envelope.fromFact(fact, fact.data), attempt),
    retry,
    parking
  }, startOf(start, store.head()))
  return { ...working, members: options.members ?? (() => concurrency), waiting }
})

const statusOf = (group: ConsumerRows.Group, working: AtWork | undefined, head: number): Status => {
  const position = working?.ledger.saved ?? group.position
  return {
    name: group.name,
    status: working === undefined ? "idle" : working.ledger.blocked ? "blocked" : "following",
    position,
    lag: Math.max(0, head - position),
    pending: working?.ledger.pending.size ?? 0,
    parked: working?.ledger.parked ?? group.parked,
    members: working?.members() ?? 0,
    trouble: working?.ledger.trouble
  }
}

/** Waits until what is noted of a group is at a position. */
const arrived = ({ ledger, waiting }: AtWork, position: number): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    // What is not noted yet would be handled again.
    const look = () => {
      if (ledger.saved < position) return
      waiting.delete(look)
      resume(Effect.void)
    }
    waiting.add(look)
    look()
    return Effect.sync(() => void waiting.delete(look))
  })

const make = (rows: ConsumerRows.ConsumerRows): Effect.Effect<Consumers["Service"], never, EventStore> =>
  Effect.map(EventStore, (store) => {
    const here = new Map<string, AtWork>()
    const missing = (name: string) =>
      Effect.flatMap(rows.groups(), (groups) =>
        KsiError.fail(new KsiError.NotFound({ what: "consumer group", id: name, similar: EventName.nearest(name, groups.map((group) => group.name)) })))
    const known = (name: string): Effect.Effect<unknown, KsiError.KsiError> =>
      here.has(name) ? Effect.void : Effect.flatMap(rows.groups(), (groups) => groups.some((group) => group.name === name) ? Effect.void : missing(name))
    const working = (name: string) =>
      Effect.suspend(() => {
        const found = here.get(name)
        return found === undefined ? missing(name) : Effect.succeed(found)
      })
    return {
      status: Effect.map(Effect.suspend(() => rows.groups()), (groups) => groups.map((group) => statusOf(group, here.get(group.name), store.head()))),
      blocked: () => [...here].flatMap(([name, { ledger }]) => ledger.blocked ? [name] : []),
      parked: (name, query) =>
        Effect.andThen(known(name), Effect.andThen(Effect.suspend(() => here.get(name)?.flush ?? Effect.void), rows.parked(name, query))),
      retry: Effect.fnUntraced(function*(name, streamId) {
        const group = yield* working(name)
        const streams = streamId === undefined ? [...group.ledger.parkedStreams.keys()] : [streamId]
        const counts = yield* Effect.forEach(streams, group.again, { concurrency: "unbounded" })
        return { handled: counts.reduce((sum, count) => sum + count, 0), left: group.ledger.parked }
      }),
      discard: Effect.fnUntraced(function*(name, positions) {
        yield* known(name)
        const group = here.get(name)
        if (group !== undefined) yield* group.flush
        const removed = yield* rows.remove(name, positions)
        for (const row of removed) group?.ledger.unpark(row)
        group?.madeRoom()
        return removed.length
      }),
      settled: (name, position) => Effect.flatMap(working(name), (group) => arrived(group, position ?? store.head())),
      consume: (name, work) =>
        Effect.uninterruptible(Effect.gen(function*() {
          if (here.has(name)) return yield* invalid(name, "somebody here works for it already; `concurrency` gives it more members")
          let isOurs = false
          yield* Effect.addFinalizer(() => Effect.sync(() => isOurs && here.delete(name)))
          const group = yield* begin(name, work, rows, store)
          isOurs = true
          here.set(name, group)
        }))
    }
  })

// -------------------------------------------------------------------------------------------------------------- layers

/** The groups in the store's file. */
export const layerTable: Layer.Layer<Consumers, KsiError.KsiError, StoreFile.StoreFile | EventStore> = Layer.effect(
  Consumers,
  Effect.gen(function*() {
    const file = yield* StoreFile.StoreFile
    return yield* make(yield* StoreFile.attempt("open", () => ConsumerRows.makeTable(file)))
  })
)

/** The groups in memory, gone with who has them. */
export const inMemory: Effect.Effect<Consumers["Service"], never, EventStore> = Effect.gen(function*() {
  const rows = ConsumerRows.makeMemory()
  yield* onForget(rows.forget)
  return yield* make(rows)
})

/** `inMemory` as a layer. */
export const layerMemory: Layer.Layer<Consumers, never, EventStore> = Layer.effect(Consumers, inMemory)

/** Runs a handler as what it reacts to: what it emits is caused by the fact; how it ends is said in a sentence. */
const attempted = <R>(effect: Effect.Effect<unknown, unknown, R>, delivery: Envelope.Delivery, context: Context.Context<R>) =>
  Effect.map(
    Effect.exit(Effect.updateContext(effect, (_: Context.Context<never>) => Context.add(context, Current, delivery))),
    (exit): Outcome => {
      if (Exit.isSuccess(exit)) return undefined
      const error = Cause.hasInterruptsOnly(exit.cause) ? "it interrupted itself" : KsiError.sentenceOf(Cause.squash(exit.cause))
      return { error, retryable: true }
    }
  )

const contextOf = <R>() =>
  // Neither the scope nor the span of the layer is the handler's.
  Effect.map(Effect.context<R>(), (context) => servicesOf(context as Context.Context<never>) as Context.Context<R>)

/** The events by the names of their facts, those that they had before too. */
const eventsByName = Effect.fnUntraced(function*<Ev extends Event.AnyFact>(group: string, events: ReadonlyArray<Ev>) {
  const byName = new Map<string, { readonly name: string; readonly codec: EventCodec.EventCodec }>()
  for (const event of events) {
    const entry = { name: event.name, codec: EventCodec.compile(event) }
    for (const called of [event.name, ...event.formerly]) {
      if (byName.has(called)) return yield* invalid(group, `it has two events for facts called ${called}`)
      byName.set(called, entry)
    }
  }
  return byName
})

/**
 * Handles the facts of these events, with their payloads decoded: also facts of older versions, and under names that an event had
 * before, as they would be written today. One that no longer fits its event is parked at once.
 */
export const layer = <const Events extends ReadonlyArray<Event.AnyFact>, E, R>(
  name: string,
  options: Options & {
    readonly events: Events
    readonly handler: (
      payload: Event.Payload<NoInfer<Events>[number]>,
      delivery: Handed<Event.Payload<NoInfer<Events>[number]>>
    ) => Effect.Effect<unknown, E, R>
  }
): Layer.Layer<never, KsiError.KsiError, Consumers | R> =>
  Layer.effectDiscard(Effect.gen(function*() {
    const consumers = yield* Consumers
    const context = yield* contextOf<R>()
    const events = yield* eventsByName(name, options.events)
    const handle: Handle = (fact, attempt) => {
      const event = events.get(fact.name)
      if (event === undefined) return Effect.succeed({ error: "nobody reads this event", retryable: false })
      const payload = event.codec.decodeFact(fact, fact.dataVersion)
      if (Exit.isFailure(payload)) {
        return Effect.succeed({ error: KsiError.sentenceOf(Cause.squash(payload.cause)), retryable: false })
      }
      // Each event decodes its own payload; the handler takes those of all.
      const data = payload.value as Event.Payload<Events[number]>
      const delivery = { ...fact, data, name: event.name, group: name, attempt }
      return attempted(Effect.suspend(() => options.handler(data, delivery)), delivery, context)
    }
    yield* consumers.consume(name, { ...options, events: [...events.keys()], handle })
  }))

/** Handles the facts whose names a pattern matches, with their data as it is stored. Fails with `PatternInvalid`. */
export const layerPattern = <E, R>(
  name: string,
  pattern: string,
  options: Options & { readonly handler: (data: unknown, delivery: Handed<unknown>) => Effect.Effect<unknown, E, R> }
): Layer.Layer<never, KsiError.KsiError, Consumers | R> =>
  Layer.effectDiscard(Effect.gen(function*() {
    const consumers = yield* Consumers
    const context = yield* contextOf<R>()
    const { text } = yield* EventPattern.fromText(pattern)
    const handle: Handle = (fact, attempt) => {
      const delivery = { ...fact, group: name, attempt }
      return attempted(Effect.suspend(() => options.handler(fact.data, delivery)), delivery, context)
    }
    yield* consumers.consume(name, { ...options, events: [text], handle })
  }))

/** Waits until a group has dealt with everything up to a position; default: with everything that is stored now. */
export const settled = (name: string, position?: number | bigint): Effect.Effect<void, KsiError.KsiError, Consumers> =>
  Effect.flatMap(Consumers, (consumers) => consumers.settled(name, position === undefined ? undefined : Number(position)))
