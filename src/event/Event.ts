/**
 * An event is a value with schemas on all sides. Two kinds, fixed by the definition:
 *
 * - a **request** (`Event.make`) asks and is answered, once or, with `stream: true`, by a stream of items;
 * - a **fact** (`Event.fact`) says what happened: it is durable and has a position before anyone hears of it.
 *
 * **Example**
 *
 * ```ts
 * const Reserve = Event.make("stock:reserve", {
 *   payload: { sku: Schema.String, quantity: Schema.Int },
 *   success: Schema.Struct({ holdId: Schema.String }),
 *   error: OutOfStock
 * })
 * const Reserved = Event.fact("stock:reserved", {
 *   payload: { sku: Schema.String, quantity: Schema.Int },
 *   streamId: ({ sku }) => `stock-${sku}`,
 *   tags: ({ sku }) => [`sku:${sku}`]
 * })
 * Reserve.mode                                          // "call"
 * Reserved.streamId({ sku: "tea", quantity: 1 })        // "stock-tea"
 * ```
 *
 * A stream may say how it is gone on with (`cursor`): a program beside the daemon does so by itself where the connection was lost.
 *
 * ```ts
 * const Watch = Event.make("stock:watch", {
 *   payload: { sku: Schema.String, after: Schema.optionalKey(Schema.Int) },
 *   success: Schema.Struct({ change: Schema.Int, level: Schema.Int }),
 *   stream: true,
 *   cursor: ({ change }, { sku }) => ({ sku, after: change })
 * })
 * Watch.cursor?.({ change: 7, level: 2 }, { sku: "tea" })    // { sku: "tea", after: 7 }
 * ```
 *
 * **Gotchas** A name that is not an event name throws where it is defined. Schemas must be synchronous and need no
 * services; anything that `Schema.toCodecJson` can write as JSON is fine.
 *
 * Source: seed section 4; option names follow Effect's `Rpc.make`.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { versionAttribute } from "./CloudEvent.ts"
import * as EventName from "./EventName.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"

/** How a request is answered. */
export type Mode = "call" | "stream"

/** Words for people and documents. */
export interface Annotations {
  /** One or two sentences: what it does. */
  readonly description?: string
  /** Payloads that are valid, for documents. */
  readonly examples?: ReadonlyArray<unknown>
  /** `outline`: the activity journal leaves the payload out, because it is large and kept elsewhere. Default: `all`. */
  readonly audit?: "all" | "outline"
}

/** What the types know of a middleware: what it may fail with, and what it provides to handlers. */
export interface AnyMiddleware {
  readonly name: string
  readonly error: Schema.Top
  /** The services it provides; only a type. */
  readonly "~provides": unknown
}

interface Common {
  readonly name: string
  readonly payload: Schema.Top
  readonly annotations: Annotations
  /** What stands before its handler, outermost first; callers see its errors. */
  readonly middleware: ReadonlyArray<AnyMiddleware>
  /** File, line and column of the definition, for messages about two definitions of one name. */
  readonly definedAt: string
}

/** Any request. */
export interface AnyRequest extends Common {
  readonly kind: "request"
  readonly mode: Mode
  readonly success: Schema.Top
  readonly error: Schema.Top
  readonly idempotent: boolean
  readonly cursor: Cursor | undefined
}

/** What to ask a stream for to get what comes after an item; the definition's types are on its option. */
export type Cursor = { step(item: unknown, payload: unknown): unknown }["step"]

/**
 * Makes JSON data of one version of the next: a pure function. Its parameter's type says what the old data was; nobody else
 * knows, so that it may say what it likes.
 */
export type Upcaster = { step(data: unknown): unknown }["step"]

type Below<V extends number, Count extends ReadonlyArray<unknown> = readonly [unknown]> = Count["length"] extends V ? never
  : Count["length"] | Below<V, readonly [...Count, unknown]>

/** A step for each version before this one, by the version that it takes. */
export type Upcasters<V extends number> = { readonly [N in Below<V>]: Upcaster }

/** Any fact. */
export interface AnyFact extends Common {
  readonly kind: "fact"
  /** Which shape its data has, from 1. */
  readonly version: number
  /** From version 1 to 2, from 2 to 3, and so on to `version`. */
  readonly upcast: ReadonlyArray<Upcaster>
  /** Names under which it was stored before. */
  readonly formerly: ReadonlyArray<string>
  // A method, so that a fact of any payload is an AnyFact.
  streamId(payload: unknown): string
  tags?(payload: unknown): ReadonlyArray<string>
}

/** Any event. */
export type Any = AnyRequest | AnyFact

/** A request: payload in, success or declared error out. */
export interface Request<
  in out Name extends string,
  in out P extends Schema.Top,
  out A extends Schema.Top,
  out E extends Schema.Top,
  out M extends Mode,
  out Mw extends AnyMiddleware = never
> extends AnyRequest {
  readonly name: Name
  readonly payload: P
  readonly success: A
  readonly error: E
  readonly mode: M
  readonly middleware: ReadonlyArray<Mw>
}

/** A fact: what happened, in which stream. */
export interface Fact<in out Name extends string, in out P extends Schema.Top, out Mw extends AnyMiddleware = never>
  extends AnyFact
{
  readonly name: Name
  readonly payload: P
  readonly middleware: ReadonlyArray<Mw>
  /** This fact with its payload, as history for tests and appends. */
  readonly of: (payload: P["~type.make.in"]) => FactOf<Fact<Name, P, Mw>>
}

/** A fact with its payload. */
export interface FactOf<out Ev extends AnyFact> {
  readonly event: Ev
  readonly payload: Ev["payload"]["Type"]
}

/** What a payload may be built from: constructor input, so defaults may be left out. */
export type PayloadInput<Ev extends Any> = Ev["payload"]["~type.make.in"]
/** The payload that a handler sees. */
export type Payload<Ev extends Any> = Ev["payload"]["Type"]
/** The reply, or an item of the reply of a stream. */
export type Success<Ev extends AnyRequest> = Ev["success"]["Type"]
/** The errors that the event declares: what its handler may fail with. */
export type Declared<Ev extends AnyRequest> = Ev["error"]["Type"]
/** The middleware of an event. */
export type MiddlewareOf<Ev extends Any> = Ev["middleware"][number]
/** What a caller of the event may see besides `KsiError`: the declared errors and those of its middleware. */
export type Failure<Ev extends AnyRequest> = Declared<Ev> | MiddlewareOf<Ev>["error"]["Type"]
/** What a middleware or a request provides to the event's handler. */
export type Provided<Ev extends Any> = MiddlewareOf<Ev>["~provides"]

/** The event with one more middleware, inside of those it has. */
export type WithMiddleware<Ev extends Any, Mw extends AnyMiddleware> =
  Ev extends Request<infer N, infer P, infer A, infer E, infer M, infer W> ? Request<N, P, A, E, M, W | Mw>
    : Ev extends Fact<infer N, infer P, infer W> ? Fact<N, P, W | Mw>
    : never

type Fields<P> = P extends Schema.Top ? P : P extends Schema.Struct.Fields ? Schema.Struct<P> : never

/** The payload of an event that takes none: every object is accepted, and its fields are ignored. */
export const NoPayload = Schema.Struct({}).check(
  Schema.makeFilter((value: unknown) => Json.isObject(value), { expected: "an object" })
)

const payloadSchema = (payload: Schema.Top | Schema.Struct.Fields | undefined): Schema.Top =>
  payload === undefined ? NoPayload : Schema.isSchema(payload) ? payload : Schema.Struct(payload)

/** Where the function `below` was called from, as the engine writes it. */
const callSite = (below: (...args: never) => unknown): string => {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 1
  const at: { stack?: string } = {}
  Error.captureStackTrace(at, below)
  Error.stackTraceLimit = limit
  return /\(?((?:file:|\/|node:)[^()]*:\d+:\d+)\)?$/m.exec(at.stack ?? "")?.[1] ?? "unknown place"
}

const checkedName = (name: string): void => {
  const result = EventName.parse(name)
  if (Result.isFailure(result)) throw new TypeError(result.failure.message)
}

/** Defines a request. Throws a `TypeError` when the name is not an event name. */
export const make = <
  const Name extends `${string}:${string}`,
  P extends Schema.Top | Schema.Struct.Fields = typeof NoPayload,
  A extends Schema.Top = Schema.Void,
  E extends Schema.Top = Schema.Never,
  const Stream extends boolean = false
>(
  name: Name,
  options?: {
    /** Fields of a struct, or a schema. */
    readonly payload?: P
    /** What is answered; for a stream, each item. */
    readonly success?: A
    /** What the handler may fail with; a union for several. */
    readonly error?: E
    /** Whether the answer is a stream of items. */
    readonly stream?: Stream
    /** Whether asking twice does no more than asking once: then a retry is safe. */
    readonly idempotent?: boolean
    /**
     * For a stream: what to ask for to get what comes after an item. A program beside the daemon goes on with it by itself where
     * the connection was lost.
     */
    readonly cursor?: (item: NoInfer<A>["Type"], payload: NoInfer<Fields<P>>["Type"]) => NoInfer<Fields<P>>["~type.make.in"]
    readonly annotations?: Annotations
  }
): Request<Name, Fields<P>, A, E, Stream extends true ? "stream" : "call"> => {
  checkedName(name)
  if (options?.cursor !== undefined && options.stream !== true) throw new TypeError(`${name} has a cursor and is no stream`)
  return {
    kind: "request",
    name,
    // The four casts say what the type parameters' defaults say: an absent option is its default schema.
    payload: payloadSchema(options?.payload) as Fields<P>,
    success: (options?.success ?? Schema.Void) as A,
    error: (options?.error ?? Schema.Never) as E,
    mode: (options?.stream === true ? "stream" : "call") as Stream extends true ? "stream" : "call",
    idempotent: options?.idempotent ?? false,
    // Called with the payload and the items of this event only.
    cursor: options?.cursor as Cursor | undefined,
    annotations: options?.annotations ?? {},
    middleware: [],
    definedAt: callSite(make)
  }
}

/** The steps in their order; throws where one is missing, or leads nowhere. */
const stepsOf = (name: string, version: number, upcast: Readonly<Record<string, Upcaster>>): ReadonlyArray<Upcaster> => {
  if (!Number.isSafeInteger(version) || version < 1) throw new TypeError(`the version of ${name} must be an integer from 1, got ${version}`)
  const steps = Array.from({ length: version - 1 }, (_, index) => {
    const step = upcast[index + 1]
    if (step === undefined) throw new TypeError(`${name} has version ${version}, and no upcast from version ${index + 1}`)
    return step
  })
  const other = Object.keys(upcast).find((key) => !(Number(key) >= 1 && Number(key) < version))
  if (other !== undefined) throw new TypeError(`${name} has version ${version}: there is nothing to upcast from version ${other}`)
  return steps
}

/** The names in history; the event's own is none. */
const namesOf = (name: string, formerly: ReadonlyArray<string>): ReadonlyArray<string> => {
  for (const old of formerly) {
    if (old === name || old === "") throw new TypeError(`${name} cannot have been called "${old}" before`)
  }
  return formerly
}

/** The attributes that a fact of this event has besides all others: what says the version of its data, where that is not 1. */
export const attributesOf = ({ version }: AnyFact): JsonObject => version === 1 ? {} : { [versionAttribute]: version }

/**
 * Defines a fact. Throws a `TypeError` when the name is not an event name, and where an upcaster is missing.
 *
 * What is stored is never changed. When the data of a fact gets another shape, its definition gets the next `version` and a step
 * from the one before; whoever reads an older fact as this event (projections, consumer groups, typed subscriptions, `store:import`) sees it as it
 * would be written today.
 *
 * **Example**
 *
 * ```ts
 * const Paid = Event.fact("order:paid", {
 *   payload: { cents: Schema.Int, currency: Schema.String },
 *   streamId: () => "orders",
 *   version: 3,
 *   upcast: {
 *     1: ({ price }: { price: number }) => ({ cents: Math.round(price * 100) }),
 *     2: (old: { cents: number }) => ({ ...old, currency: "EUR" })
 *   },
 *   formerly: ["order:payed"]
 * })
 * const codec = EventCodec.compile(Paid)
 * codec.decodeFact({ id: "1", position: 1, data: { price: 9.99 } }, undefined)
 * // => Exit.succeed({ cents: 999, currency: "EUR" })
 * codec.decodeFact({ id: "2", position: 2, data: { cents: 500 } }, 2)
 * // => Exit.succeed({ cents: 500, currency: "EUR" })
 * ```
 */
export const fact = <const Name extends `${string}:${string}`, P extends Schema.Top | Schema.Struct.Fields, const V extends number = 1>(
  name: Name,
  options: {
    /** Fields of a struct, or a schema. */
    readonly payload: P
    /** The stream this fact belongs to: the one thing whose history it is part of. At most 256 characters. */
    readonly streamId: (payload: NoInfer<Fields<P>["Type"]>) => string
    /**
     * Which shape the data has: 1 (the default), and one more each time that facts with other data are there already. Facts carry
     * it in their attribute `dataversion`, from 2 on.
     */
    readonly version?: V
    /** How data of an older version becomes that of the next one: JSON to JSON, by the version that a step takes. */
    readonly upcast?: Upcasters<NoInfer<V>>
    /** Names that this fact had before: what a projection of it folds too, and a consumer group handles. */
    readonly formerly?: ReadonlyArray<string>
    /** What else this fact is about, to find it and to guard decisions by: see `Tags`. */
    readonly tags?: (payload: NoInfer<Fields<P>["Type"]>) => ReadonlyArray<string>
    readonly annotations?: Annotations
  }
): Fact<Name, Fields<P>> => {
  checkedName(name)
  const version: number = options.version ?? 1
  const self: Fact<Name, Fields<P>> = {
    kind: "fact",
    name,
    // `payloadSchema` does at run time what `Fields` says; `streamId` and `tags` are only ever called with this fact's payload.
    payload: payloadSchema(options.payload) as Fields<P>,
    streamId: options.streamId as (payload: unknown) => string,
    version,
    upcast: stepsOf(name, version, options.upcast ?? {}),
    formerly: namesOf(name, options.formerly ?? []),
    // As above.
    ...(options.tags === undefined ? {} : { tags: options.tags as (payload: unknown) => ReadonlyArray<string> }),
    annotations: options.annotations ?? {},
    middleware: [],
    definedAt: callSite(fact),
    // Widened: the constructor input of a struct that is still a type parameter cannot be checked here.
    of: (payload) => ({ event: self, payload: (self.payload as Schema.Top).make(payload) })
  }
  return self
}

/** The event with one more middleware, inside of those it has; the event that was given stays as it is. */
export const middleware = <Ev extends Any, Mw extends AnyMiddleware>(event: Ev, added: Mw): WithMiddleware<Ev, Mw> => {
  const copy = { ...event, middleware: [...event.middleware, added] }
  // `of` names the fact it belongs to.
  const whole = "of" in copy ? { ...copy, of: (payload: unknown) => ({ event: whole, payload: copy.payload.make(payload) }) } : copy
  return whole as unknown as WithMiddleware<Ev, Mw>
}
