/**
 * What every program says to KSI, in five words: `call` a request, `emit` a fact, `stream` the items of a request,
 * `subscribe` to what happens, and `dispatch` what is only known by name at run time.
 *
 * The rule: the same service in a test, in a script, in the daemon and (later) against another one; only its layer
 * changes.
 *
 * **Example**
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const ksi = yield* Ksi
 *   const { holdId } = yield* ksi.call(Reserve, { sku: "tea", quantity: 1 })
 *   return holdId.length > 0
 * })
 * yield* program                              // true
 * ```
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { Delivery, Envelope } from "../event/Envelope.ts"
import type * as Event from "../event/Event.ts"
import { isObject } from "../event/Json.ts"
import type { KsiError } from "../event/KsiError.ts"
import type { Origin } from "./Causation.ts"
import type { Expectations } from "./Journal.ts"

/** Where a fact now is. */
export interface Emitted {
  readonly id: string
  readonly streamId: string
  /** Place in the order of everything, from 1. */
  readonly position: bigint
  /** Place in its stream, from 1. */
  readonly version: number
}

/** The answer to a dispatch, as JSON. */
export type Answer =
  | { readonly kind: "value"; readonly value: unknown }
  | { readonly kind: "fact"; readonly id: string; readonly position: number; readonly version: number }

/** A handler failed with an error that its event declares. */
export class DeclaredFailure extends Schema.TaggedClass<DeclaredFailure>()("DeclaredFailure", {
  event: Schema.String,
  /** The error, as JSON. */
  error: Schema.Unknown,
  message: Schema.String
}) {
  /** What kind of error: its tag where it has one. */
  get reason(): string {
    const { error } = this
    return isObject(error) && typeof error["_tag"] === "string" ? error["_tag"] : "Failed"
  }
}

/** What came of a dispatch. */
export type Dispatched = Exit.Exit<Answer, KsiError | DeclaredFailure>

/** How somebody is told of what broke or was interrupted: where to look, and nothing of what it was. */
export interface Broken {
  readonly reason: "Defect" | "Interrupted"
  readonly message: string
  /** Whether the same call may succeed later. */
  readonly retryable: boolean
}

/** What is told of a cause that has no error in it. */
export const brokenOf = (cause: Cause.Cause<unknown>, { metadata: { correlationId }, name }: Envelope): Broken =>
  Cause.hasInterruptsOnly(cause)
    ? { reason: "Interrupted", message: `${name} was interrupted`, retryable: true }
    : { reason: "Defect", message: `${name} failed unexpectedly; the daemon's log has it under ${correlationId}`, retryable: false }

/** What a dispatch may say besides name and data. */
export interface DispatchOptions extends Partial<Origin> {
  /** What the caller believes the event to be; `WrongShape` if it is not. Absent: the definition decides. */
  readonly as?: "call" | "emit" | undefined
}

/** Where a subscription starts: a position (inclusive), the first fact ever, or what comes from now on. */
export type From = bigint | number | "start" | "now"

/**
 * What happens when a subscriber is slower than what it follows, once it has caught up:
 *
 * - `spill` (the default): facts beyond its buffer are read back from the store, nobody waits, no fact is lost. Requests
 *   have no place in the store: those beyond the buffer are left out and counted.
 * - `block`: no fact is lost, and whoever emits (or calls, where it hears requests) waits until there is room.
 * - `latest`: the oldest in the buffer make room for the newest, and are counted.
 * - `drop`: the newest are left out, and counted.
 * - `sample`: however fast it is, it is told of one every so often (`every`), the newest; the others are counted.
 * - `disconnect`: it is told of what is in its buffer, and fails with `SlowConsumer`, which says where to go on.
 */
export type Overflow = "spill" | "block" | "latest" | "drop" | "sample" | "disconnect"

/** How to subscribe. */
export interface SubscribeOptions {
  /** Default: `now`. */
  readonly from?: From | undefined
  /** Whether to hear requests too. They come live only, without position. Default: false. */
  readonly requests?: boolean | undefined
  /** What happens when it is too slow. Default: `spill`. */
  readonly overflow?: Overflow | undefined
  /**
   * How many facts, and how many requests, may wait for it: from 1 to the limit `subscriptionBuffer`, which is the
   * default. `1` with `latest` is the newest one only; with `sample` it is always 1.
   */
  readonly buffer?: number | undefined
  /** How often one with `overflow: "sample"` is told of the newest: at least a millisecond. Default: a second. */
  readonly every?: Duration.Input | undefined
  /**
   * Who hears: only what it may subscribe to, as if nothing else had happened. `PermissionDenied` where that can never be
   * anything, at the start or later. Default: `owner`, who hears everything.
   */
  readonly principal?: string | undefined
}

/** How to read a stream. */
export interface StreamOptions {
  /** How long its first item may take; then it fails with `DeadlineExceeded` and its handler is interrupted. Default: `idle`. */
  readonly firstItem?: Duration.Input | undefined
  /** The same between one item and the next, while the consumer waits for it. Default: as long as it takes. */
  readonly idle?: Duration.Input | undefined
  /**
   * How many items may have been made and not taken, here and on their way from a daemon. Default: the limit `streamItems`.
   * In the handler's process none are: it is asked for an item when the consumer wants it.
   */
  readonly bufferSize?: number | undefined
}

type CallEvent = Event.AnyRequest & { readonly mode: "call" }
type StreamEvent = Event.AnyRequest & { readonly mode: "stream" }

/** The five words. */
export interface KsiShape {
  /**
   * Asks, and answers with the handler's reply. Fails with what the event declares, or with a `KsiError`:
   * `PayloadInvalid` (no handler ran), `NoHandler`, `UnknownEvent`, `ReplyInvalid`, `DeadlineExceeded`, `LimitExceeded`.
   * Interrupting the caller interrupts the handler.
   */
  readonly call: <Ev extends CallEvent>(
    event: Ev,
    payload: Event.PayloadInput<Ev>
  ) => Effect.Effect<Event.Success<Ev>, Event.Failure<Ev> | KsiError>
  /**
   * Says what happened. Answers when the fact is durable and has its position; its handlers then run on their own.
   * Fails with `PayloadInvalid`, `UnknownEvent`, `LimitExceeded`, `StoreFailure`; where it expects something of the store, with
   * `VersionConflict` or `ConditionFailed`, and then nothing happened.
   */
  readonly emit: <Ev extends Event.AnyFact>(
    event: Ev,
    payload: Event.PayloadInput<Ev>,
    expects?: Expectations
  ) => Effect.Effect<Emitted, KsiError>
  /** Asks for a stream of items, pulled by the consumer. Ending the stream early interrupts the handler's. */
  readonly stream: <Ev extends StreamEvent>(
    event: Ev,
    payload: Event.PayloadInput<Ev>,
    options?: StreamOptions
  ) => Stream.Stream<Event.Success<Ev>, Event.Failure<Ev> | KsiError>
  /**
   * Follows facts: first those stored from `from` on, then live, without a gap and without a repeat. Given a fact's
   * definition the data is decoded, and facts are there that were stored under names it had before; given a pattern it is JSON. A slow consumer holds a bounded buffer and, unless its
   * `overflow` says otherwise, reads on from the store.
   */
  readonly subscribe: {
    <Ev extends Event.AnyFact>(event: Ev, options?: SubscribeOptions): Stream.Stream<Delivery<Event.Payload<Ev>>, KsiError>
    (pattern: string, options?: SubscribeOptions): Stream.Stream<Delivery, KsiError>
    // Where none fits, the compiler says what is wrong with the last one: with either of the others last, a wrong option
    // beside the other one would be told as a wrong event or pattern.
    (what: string | Event.AnyFact, options?: SubscribeOptions): Stream.Stream<Delivery, KsiError>
  }
  /** The untyped door: JSON in, JSON out, by name. The definition decides between call and emit. */
  readonly dispatch: (
    name: string,
    data: unknown,
    options?: DispatchOptions
  ) => Effect.Effect<Answer, KsiError | DeclaredFailure>
}

/** The tag of the five words. */
export class KsiService extends Context.Service<KsiService, KsiShape>()("ksi/Ksi") {}
