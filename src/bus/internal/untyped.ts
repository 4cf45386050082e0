// The untyped door: what comes from outside by name, as JSON, and what goes back, as JSON; answers and items.
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type * as Envelope from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import { jsonCodec } from "../../event/EventCodec.ts"
import * as KsiError from "../../event/KsiError.ts"
import * as Causation from "../Causation.ts"
import { type Answer, DeclaredFailure, type DispatchOptions, type Emitted } from "../KsiService.ts"
import type { Door } from "./door.ts"
import { type AnyExit, type AnyFiber, enterWithin, type Run } from "./drive.ts"
import * as Facts from "./facts.ts"
import type { Reactions } from "./reactions.ts"
import type { Requests } from "./requests.ts"
import * as Streams from "./streams.ts"
import type { Table, TableEntry } from "./table.ts"

/** How an event is used. */
export type Use = "call" | "emit" | "stream"

/** How an event is to be used. */
export const useOf = (event: Event.Any): Use => event.kind === "fact" ? "emit" : event.mode

/** A handler was added to an event of a group that nobody serves: without what stands before it nothing is carried out. */
export const unguarded = ({ event, unguarded: middleware }: TableEntry) =>
  KsiError.exit(new KsiError.PluginInvalid({
    plugin: event.name, problem: `it stands behind the middleware "${middleware ?? ""}", which is not there: serve its group`
  }))

/** An event was used as something else than it is. */
export const wrongShape = (event: Event.Any, used: string) =>
  KsiError.exit(new KsiError.WrongShape({ event: event.name, used, expected: useOf(event) }))

/** What a router is made of. */
export interface Parts {
  readonly door: Door
  readonly table: Table
  readonly requests: Requests
  readonly facts: Facts.Facts
  readonly reactions: Reactions
}

const unwritable = ({ event }: TableEntry, cause: unknown) =>
  KsiError.exit(new KsiError.ReplyInvalid({ event: event.name, problems: [{ path: "", problem: cause instanceof Error ? cause.message : String(cause) }] }))

/** A reply as JSON. One that its schema accepts and JSON does not (a bigint where anything is allowed) is invalid too. */
const encodeValue = (entry: TableEntry, value: unknown): Exit.Exit<Answer, KsiError.KsiError> => {
  try {
    return Exit.succeed({ kind: "value", value: entry.codec.encodeSuccess(value) })
  } catch (cause) {
    return unwritable(entry, cause)
  }
}

/** An item, as a reply is. */
const encodeItem = (entry: TableEntry, item: unknown): Exit.Exit<unknown, KsiError.KsiError> => {
  try {
    return Exit.succeed(entry.codec.encodeSuccess(item))
  } catch (cause) {
    return unwritable(entry, cause)
  }
}

/** How an error is written, where the event or its middleware declares it. */
const encoderOf = ({ codec, hooks }: TableEntry, error: unknown): ((error: unknown) => unknown) | undefined => {
  if (codec.isError(error)) return codec.encodeError
  const hook = hooks.find(({ error: schema }) => Schema.is(schema)(error))
  return hook && Schema.encodeUnknownSync(jsonCodec(hook.error))
}

/** What is left of an exit at a boundary: JSON, an error that may be told, or something that broke. */
const encodeExit = (
  entry: TableEntry,
  envelope: Envelope.Envelope,
  exit: AnyExit
): Effect.Effect<Answer, KsiError.KsiError | DeclaredFailure> => {
  if (Exit.isSuccess(exit)) return encodeValue(entry, exit.value)
  const error = Cause.findErrorOption(exit.cause)
  if (error._tag === "Some") {
    if (KsiError.is(error.value)) return Exit.fail(error.value)
    const encode = encoderOf(entry, error.value)
    if (encode !== undefined) {
      const message = error.value instanceof Error && error.value.message !== "" ? error.value.message : undefined
      const failure = { event: envelope.name, error: encode(error.value), message: message ?? `${envelope.name} failed` }
      return Exit.fail(new DeclaredFailure(failure))
    }
  }
  // What is left is a defect or an interruption; it stays what it is, and the boundary hides its text.
  const cause = Cause.fromReasons<never>(exit.cause.reasons.map((reason) =>
    reason._tag === "Fail" ? Cause.makeDieReason(reason.error) : reason
  ))
  if (Cause.hasInterruptsOnly(cause)) return Exit.failCause(cause)
  const line = Effect.annotateLogs(Effect.logError(`a handler of ${envelope.name} died`, cause), Causation.labelsOf(envelope))
  const span = Causation.spanOf(envelope)
  return Effect.andThen(span === undefined ? line : Effect.withParentSpan(line, span), Exit.failCause(cause))
}

const encodeEmitted = (entry: TableEntry, envelope: Envelope.Envelope, exit: AnyExit) => {
  if (Exit.isFailure(exit)) return encodeExit(entry, envelope, exit)
  // What `facts.emit` succeeds with; a middleware that answered for a fact has stored nothing.
  const { id, position, version } = exit.value as Emitted
  return Exit.succeed<Answer>({ kind: "fact", id, position: Number(position), version })
}

type Dispatched = Effect.Effect<Answer, KsiError.KsiError | DeclaredFailure>

/** Goes on with what is not complete: here, in the fiber that it was begun for, or in one that is yet to come. */
const goOn = (fiber: AnyFiber, whole: Dispatched, run: Run, isHere: boolean): Dispatched =>
  isHere ? enterWithin(fiber, whole, run) : Effect.withFiber((own: AnyFiber) => enterWithin(own, whole, run))

/** `dispatch` and `begin`: JSON in, JSON out. */
export const makeDispatch = ({ door, facts, requests, table }: Parts) => {
  const ask = (fiber: AnyFiber, envelope: Causation.LiveEnvelope, as: DispatchOptions["as"], isHere: boolean): Dispatched => {
    const entry = table.get(envelope.name)
    const use = entry === undefined ? as ?? "call" : useOf(entry.event)
    const refused = door.refuse(entry, envelope, use)
    if (refused !== undefined) return refused
    if (entry === undefined) return door.unknown(envelope)
    if (as !== undefined && as !== use) return wrongShape(entry.event, as)
    if (use === "stream") return wrongShape(entry.event, "call")
    if (entry.unguarded !== undefined) return unguarded(entry)
    const decoded = entry.codec.decodePayload(envelope.data ?? {})
    if (Facts.isFactEntry(entry)) {
      if (Exit.isFailure(decoded)) return Exit.failCause(decoded.cause)
      envelope.data = decoded.value
      const emitting = facts.emit(fiber, entry, envelope, envelope.expects)
      return goOn(fiber, Effect.flatMap(Effect.exit(emitting), (exit) => encodeEmitted(entry, envelope, exit)), emitting, isHere)
    }
    if (Exit.isSuccess(decoded)) envelope.data = decoded.value
    const run = Exit.isSuccess(decoded) ? requests.run(fiber, entry, envelope) : requests.refused(entry, envelope, decoded)
    return Exit.isExit(run)
      ? encodeExit(entry, envelope, run)
      : goOn(fiber, Effect.flatMap(Effect.exit(run), (exit) => encodeExit(entry, envelope, exit)), run, isHere)
  }
  return {
    dispatch: (envelope: Causation.LiveEnvelope, as?: DispatchOptions["as"]): Dispatched => Effect.withFiber((fiber: AnyFiber) => ask(fiber, envelope, as, true)),
    begin: (fiber: AnyFiber, envelope: Causation.LiveEnvelope): Dispatched => {
      try {
        return ask(fiber, envelope, undefined, false)
      } catch (defect) {
        return Exit.die(defect)
      }
    }
  }
}

type Failed = KsiError.KsiError | DeclaredFailure
type Pulled = Pull.Pull<Arr.NonEmptyReadonlyArray<unknown>, Failed>

/** `items`: JSON in, JSON out. */
export const makeItems = ({ door, requests, table }: Parts) => (envelope: Causation.LiveEnvelope): Stream.Stream<unknown, Failed> =>
  // A pull of its own each time: what `Stream` would put around it is paid for by every item that is made alone.
  Stream.fromChannel(Channel.fromTransform((_, scope) => Effect.suspend((): Effect.Effect<Pulled, Failed> => {
    const entry = table.get(envelope.name)
    const refused = door.refuse(entry, envelope, entry === undefined ? "stream" : useOf(entry.event))
    if (refused !== undefined) return refused
    if (entry === undefined) return door.unknown(envelope)
    if (useOf(entry.event) !== "stream") return wrongShape(entry.event, "stream")
    if (entry.unguarded !== undefined) return unguarded(entry)
    const decoded = entry.codec.decodePayload(envelope.data ?? {})
    // Answers with the failure it is given.
    if (Exit.isFailure(decoded)) return requests.refused(entry, envelope, decoded) as Effect.Effect<never, KsiError.KsiError>
    envelope.data = decoded.value
    return Effect.map(Channel.toPullScoped(Stream.toChannel(requests.items(entry, envelope)), scope), (pull) =>
      Effect.catchCause(Streams.through(pull, (item) => encodeItem(entry, item)), (cause): Pulled =>
        // An end is none; of a failure comes a failure.
        (Pull.isDoneCause(cause) ? Exit.failCause(cause) : encodeExit(entry, envelope, Exit.failCause(cause))) as Pulled))
  })))
