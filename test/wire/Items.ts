/** Requests that are answered with streams, for the tests of the wire. */
import { Deferred, Effect, Exit, Layer, Schema, Stream } from "effect"
import { Activity } from "../../src/bus/Activity.ts"
import { DeadLetters } from "../../src/bus/DeadLetters.ts"
import { Router, serve } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Control from "../../src/wire/Control.ts"

export class Refused extends Schema.TaggedError<Refused>()("Refused", { why: Schema.String }) {}

export const Count = Event.make("s:count", { payload: { to: Schema.Int, chunk: Schema.Int }, success: Schema.Int, error: Refused, stream: true })
export const Endless = Event.make("s:endless", { success: Schema.String, stream: true })
export const Broken = Event.make("s:broken", { payload: { how: Schema.Literals(["fail", "die", "interrupt", "wrong", "unwritable", "long"]) }, success: Schema.Unknown, error: Refused, stream: true })
export const Dates = Event.make("s:dates", { payload: { of: Schema.Date }, success: Schema.Date, stream: true })
export const Once = Event.make("s:once", { success: Schema.Int })
/** A chunk whose third item is too long for a small frame. */
export const Together = Event.make("s:together", { success: Schema.String, stream: true })
export const Group = EventGroup.make(Together, Count, Endless, Broken, Dates, Once)

/** What the handlers did. */
export interface Made {
  pulled: number
  finished: number
  readonly finishing: Deferred.Deferred<void>
}

export const handlers = (made: Made) =>
  Group.toLayer({
    "s:count": ({ chunk, to }) => Stream.rechunk(Stream.range(1, to), chunk),
    "s:endless": () => Stream.fromEffectRepeat(Effect.sync(() => `item ${++made.pulled}`)).pipe(
      Stream.ensuring(Effect.andThen(Deferred.await(made.finishing), Effect.sync(() => made.finished++)))
    ),
    "s:broken": ({ how }) => Stream.concat(Stream.fromArray<unknown>([1, 2]), ({
      fail: Stream.fail(new Refused({ why: "so" })),
      die: Stream.die(new Error("a secret")),
      interrupt: Stream.fromEffect(Effect.interrupt),
      wrong: Stream.succeed(undefined),
      unwritable: Stream.succeed(1n),
      long: Stream.succeed("x".repeat(2000))
    } satisfies Record<string, Stream.Stream<unknown, Refused>> as Record<string, Stream.Stream<unknown, Refused>>)[how] ?? Stream.empty),
    "s:together": () => Stream.fromArray(["one", "two", "x".repeat(2000), "four"]),
    "s:dates": ({ of }) => Stream.fromArray([of, new Date(of.getTime() + 1)]),
    "s:once": () => Effect.succeed(1)
  })

/** `finishing`: whether finalizers need not wait. */
export const makeMade = (finishing = true): Made => {
  const made = { pulled: 0, finished: 0, finishing: Deferred.makeUnsafe<void>() }
  if (finishing) Deferred.doneUnsafe(made.finishing, Exit.void)
  return made
}

/** The runtime without a socket. */
export const runtime = (made: Made = makeMade()) =>
  Layer.mergeAll(serve(Group).pipe(Layer.provide(handlers(made))), Control.layer).pipe(
    Layer.provideMerge(Router.layer),
    Layer.provideMerge(Subscriptions.layer),
    Layer.provideMerge(Layer.mergeAll(EventStore.layerMemory, Activity.layerOff, DeadLetters.layerOff))
  )
