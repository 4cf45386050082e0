/**
 * A projection is a state computed from facts: a value to start with, and for each fact a pure step to the next one.
 * The same facts always give the same state: it can be thrown away, rebuilt, and asked for at any moment of the past.
 *
 * The rule: reducers are synchronous and need no services; what they see is decoded by the event's own schema. A stored
 * fact that no longer fits its event stops the fold with an error that names its position; it is never skipped.
 *
 * **Example**
 *
 * ```ts
 * const Level = Projection.make("stock-level", {
 *   events: [Reserved],
 *   state: Schema.Struct({ held: Schema.Int }),
 *   initial: { held: 0 },
 *   on: { [Reserved.name]: (state, { quantity }) => ({ held: state.held + quantity }) }
 * })
 * Level.handles("stock:reserved")      // true
 * ```
 *
 * `serve` offers a projection under its name to whoever asks the runtime (`time:at`, `ksi time at --projection`), for as
 * long as its layer lives.
 *
 * Facts that were stored with older data, or under a name that the event had before, are folded as they would be written today
 * (`Event.fact`: `version`, `upcast`, `formerly`).
 *
 * **Gotchas** `initial` is shared by all streams: a reducer answers with a new state and leaves the one it was given
 * alone. Facts whose name is not among `events` change nothing. A reducer that throws stops the fold as well, with an error
 * that names the fact and says why. Snapshots tell a projection's code from what it was by the reducers' own text: when a
 * function changes that a reducer calls, or a value that it closes over, change `version`. A state must come back from JSON as it was (`state` says how it is written).
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as JIT from "effect/schema/SchemaJITCompiler"
import type * as Scope from "effect/Scope"
import { type StoredFact, versionAttribute } from "../event/CloudEvent.ts"
import * as Envelope from "../event/Envelope.ts"
import type * as Event from "../event/Event.ts"
import * as EventCodec from "../event/EventCodec.ts"
import * as EventName from "../event/EventName.ts"
import * as Json from "../event/Json.ts"
import type { JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import { fingerprintOf } from "./internal/fingerprint.ts"

/** A state computed from facts. */
export interface Projection<in out S> {
  readonly name: string
  /** The state before any fact. */
  readonly initial: S
  /** Whether facts of this name can change the state. */
  readonly handles: (event: string) => boolean
  /** The state after one more fact; `StoreFailure` where the fact's payload no longer decodes. */
  readonly apply: (state: S, fact: StoredFact) => Result.Result<S, KsiError.KsiError>
  /** The state as JSON. Throws a `SchemaError` when a reducer made a state that is none. */
  readonly encode: (state: S) => unknown
  /** What a fact counts for; without it, for its stream. Fails as `apply` does. */
  readonly keys: ((fact: StoredFact) => Result.Result<ReadonlyArray<string>, KsiError.KsiError>) | undefined
}

/** A schema that reads and writes without any service. */
type PlainSchema = Schema.Top & { readonly DecodingServices: never; readonly EncodingServices: never }

/** The payload of the event of this name. */
type PayloadOf<Ev extends Event.AnyFact, Name> = Ev extends { readonly name: Name } ? Event.Payload<Ev> : never

/** One reducer for each event, by its name. */
export type Reducers<S, Ev extends Event.AnyFact> = {
  readonly [Name in Ev["name"]]: (
    state: S,
    payload: PayloadOf<Ev, Name>,
    envelope: Envelope.Delivery<PayloadOf<Ev, Name>>
  ) => S
}

/** What a fact of these events counts for. */
export type KeyOf<Ev extends Event.AnyFact> = (
  payload: Event.Payload<Ev>,
  envelope: Envelope.Delivery<Event.Payload<Ev>>
) => string | ReadonlyArray<string>

type AnyReducer<S> = (state: S, payload: unknown, envelope: Envelope.Delivery) => S

const unreadable = (name: string, fact: StoredFact, error: KsiError.KsiError): KsiError.KsiError => {
  const operation = `fold the projection "${name}"`
  // It says which fact, and why.
  if (error.reason._tag === "StoreFailure") return KsiError.make(new KsiError.StoreFailure({ operation, problem: error.reason.problem }))
  const why = error.reason._tag === "PayloadInvalid" ? KsiError.problemsText(error.reason.problems) : ""
  return KsiError.make(
    new KsiError.StoreFailure({
      operation,
      problem: `the fact "${fact.id}" at position ${fact.position} is no ${fact.name} any more: ${why || error.message}`
    })
  )
}

type Reading<A> = (fact: StoredFact, use: (payload: unknown, envelope: Envelope.Delivery) => A) => Result.Result<A, KsiError.KsiError>

/** Reads facts of one event for whoever uses their payload. */
const reading = <A>(name: string, event: Event.AnyFact): Reading<A> => {
  const { decodeFact } = EventCodec.compile(event)
  // What was called otherwise is called what its event is.
  const today = (fact: StoredFact): StoredFact => fact.name === event.name ? fact : { ...fact, name: event.name }
  return (fact, use) => {
    const payload = decodeFact(fact, fact.attributes[versionAttribute])
    if (Exit.isSuccess(payload)) return Result.succeed(use(payload.value, Envelope.fromFact(today(fact), payload.value)))
    for (const reason of payload.cause.reasons) {
      if (reason._tag === "Fail") return Result.fail(unreadable(name, fact, reason.error))
    }
    // A schema that throws is a defect of its definition, not a problem of the fact.
    throw KsiError.defectOf(payload.cause)
  }
}

/**
 * One more fact: as `projection.apply`, and a reducer that throws is an error too, which names the fact. Whoever folds history goes
 * through here. (A read model tells of its facts in its own words, and a branch takes what throws for a fact that does not fit.)
 */
export const step = <S>(projection: Projection<S>, state: S, fact: StoredFact): Result.Result<S, KsiError.KsiError> => {
  try {
    return projection.apply(state, fact)
  } catch (cause) {
    const problem = `its code throws at the fact "${fact.id}" (${fact.name}) at position ${fact.position}: ${KsiError.sentenceOf(cause)}`
    // The same fact makes it throw again.
    return Result.fail(KsiError.make(new KsiError.StoreFailure({ operation: `fold the projection "${projection.name}"`, problem, refused: true, position: fact.position })))
  }
}

/** How states of a projection are kept. */
export interface Format<out S> {
  /** Of its code: its name and version, its schemas, its reducers as they are written. Another one is another projection. */
  readonly fingerprint: string
  /** The state of what `encode` made of it. Throws where it is none. */
  readonly decode: (json: unknown) => S
}

// By the very projection: a copy with another reducer must not find the states of the first.
const formats = new WeakMap<object, Format<unknown>>()

/** The format of a projection; a copy of one has none: it is folded without snapshots, and no read model keeps it. */
export const formatOf = <S>(projection: Projection<S>): Format<S> | undefined =>
  // It was put there together with the projection.
  formats.get(projection) as Format<S> | undefined

/** Defines a projection from reducers keyed by the names of `events`; each of them must have one. */
export const make = <
  const Name extends string,
  St extends PlainSchema,
  const Events extends ReadonlyArray<Event.AnyFact>
>(
  name: Name,
  options: {
    /** The facts that change the state. */
    readonly events: Events
    /** What the state is; how it is written as JSON. */
    readonly state: St
    readonly initial: NoInfer<St>["Type"]
    readonly on: Reducers<NoInfer<St>["Type"], NoInfer<Events>[number]>
    /** Say another one when functions change that the reducers call: what is kept knows the reducers' own text only. */
    readonly version?: string | number
    /**
     * What a fact counts for in a read model (`ReadModel.layer`): one state is kept for each key, so that it may gather
     * several streams. Several keys change several states, none changes nothing. Default: the id of the stream.
     */
    readonly key?: KeyOf<NoInfer<Events>[number]>
  }
): Projection<St["Type"]> => {
  // Keyed by exactly the names of `events`; a payload is what its event decodes, so each reducer gets its own.
  const reducers = options.on as Readonly<Record<string, AnyReducer<St["Type"]>>>
  // As above: it gets what its events decode.
  const key = options.key as ((payload: unknown, envelope: Envelope.Delivery) => string | ReadonlyArray<string>) | undefined
  const steps = new Map<string, Projection<St["Type"]>["apply"]>()
  const keys = new Map<string, NonNullable<Projection<St["Type"]>["keys"]>>()
  for (const event of options.events) {
    const reducer = reducers[event.name]
    if (reducer === undefined) throw new TypeError(`the projection "${name}" has no reducer for ${event.name}`)
    const step = reading<St["Type"]>(name, event)
    const find = reading<ReadonlyArray<string>>(name, event)
    for (const called of [event.name, ...event.formerly]) {
      if (steps.has(called)) throw new TypeError(`the projection "${name}" has two events for facts called ${called}`)
      steps.set(called, (state, fact) => step(fact, (payload, envelope) => reducer(state, payload, envelope)))
      if (key !== undefined) keys.set(called, (fact) => find(fact, (payload, envelope) => [key(payload, envelope)].flat()))
    }
  }
  const codec = Schema.toCodecJson(options.state)
  const projection: Projection<St["Type"]> = {
    name,
    initial: options.initial,
    handles: (event) => steps.has(event),
    apply: (state, fact) => steps.get(fact.name)?.(state, fact) ?? Result.succeed(state),
    encode: Schema.encodeUnknownSync(codec),
    keys: key === undefined ? undefined : (fact) => keys.get(fact.name)?.(fact) ?? Result.succeed([])
  }
  let fingerprint: string | undefined
  let decode: ((json: unknown) => St["Type"]) | undefined
  formats.set(projection, {
    // Both cost something, and most projections of a short-lived program never need them.
    get fingerprint() {
      return fingerprint ??= fingerprintOf([name, options.version, options.initial, codec, options.events, options.on, options.key])
    },
    decode: (json) => {
      if (decode === undefined) JIT.enable(codec.ast)
      return (decode ??= Schema.decodeUnknownSync(codec))(json)
    }
  })
  return projection
}

/**
 * The projection that needs no code: a stream's data merged shallowly in position order, `null` overwrites. Data that
 * is not an object counts as `{ "value": data }`; a fact without data changes nothing.
 */
export const latest: Projection<JsonObject> = {
  name: "latest",
  initial: {},
  handles: () => true,
  apply: (state, { data }) => {
    if (data === undefined) return Result.succeed(state)
    // Spread defines keys, as JSON.parse does: "__proto__" is a key like any other.
    return Result.succeed(Json.isObject(data) ? { ...state, ...data } : { ...state, value: data })
  },
  encode: (state) => state,
  keys: undefined
}

formats.set(latest, {
  fingerprint: "latest-1",
  decode: (json) => {
    if (!Json.isObject(json)) throw new TypeError("the state of latest is an object")
    return json
  }
})

// ------------------------------------------------------------------------------------------------------------ by name

/** A projection of which only the name is known; whoever uses it does so for any state. */
export interface Served {
  readonly name: string
  readonly use: <A>(how: <S>(projection: Projection<S>) => A) => A
}

const served = <S>(projection: Projection<S>): Served => ({ name: projection.name, use: (how) => how(projection) })

/** The projections of a runtime, by name. */
export class Projections extends Context.Service<Projections, {
  /** The projection of this name; `NotFound` with the nearest names where there is none. */
  readonly get: (name: string) => Effect.Effect<Served, KsiError.KsiError>
  /** Every name there is, in order. */
  readonly names: () => ReadonlyArray<string>
  /** Offers a projection until the scope closes; `PluginInvalid` where the name is taken. */
  readonly add: <S>(projection: Projection<S>) => Effect.Effect<void, KsiError.KsiError, Scope.Scope>
}>()("ksi/store/Projections") {
  /** Only `latest`, whose name stays reserved. */
  static readonly layer: Layer.Layer<Projections> = Layer.sync(Projections, () => makeProjections())
}

/** What `Projections.layer` provides. */
export const makeProjections = (): Projections["Service"] => {
  const known = new Map([[latest.name, served(latest)]])
  const taken = (name: string) =>
    KsiError.fail(
      new KsiError.PluginInvalid({ plugin: `the projection "${name}"`, problem: "there is one of this name already" })
    )
  return {
    names: () => [...known.keys()].toSorted(),
    get: (name) =>
      Effect.suspend(() => {
        const found = known.get(name)
        if (found !== undefined) return Effect.succeed(found)
        const similar = EventName.nearest(name, known.keys())
        return KsiError.fail(new KsiError.NotFound({ what: "projection", id: name, similar }))
      }),
    add: (projection) =>
      Effect.asVoid(Effect.acquireRelease(
        Effect.suspend(() => {
          const { name } = projection
          if (known.has(name)) return taken(name)
          known.set(name, served(projection))
          return Effect.succeed(name)
        }),
        (name) => Effect.sync(() => known.delete(name))
      ))
  }
}

/**
 * Offers a projection to the runtime under its name for as long as the layer lives. Fails with `PluginInvalid` where
 * the name is taken; `latest` always is.
 */
export const serve = <S>(projection: Projection<S>): Layer.Layer<never, KsiError.KsiError, Projections> =>
  Layer.effectDiscard(Effect.flatMap(Projections, ({ add }) => add(projection)))
