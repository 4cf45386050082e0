/**
 * `store:stream_info`, `configure_stream` and `delete_stream`: what is kept of a stream.
 *
 * The rule: whoever destroys history is the owner, or was allowed just that. A setting destroys nothing by itself: facts go when
 * retention is applied, which `layerRetaining` does now and then.
 *
 * **Example**
 *
 * ```ts
 * const ksi = yield* KsiService.KsiService
 * const store = yield* EventStore.EventStore
 * for (const name of ["cart:opened", "cart:filled", "cart:paid"]) yield* store.appendTo("cart-1", [{ name }])
 * yield* ksi.call(Streams.Configure, { stream: "cart-1", settings: { maxCount: 1 } })
 * const removed = yield* store.retain
 * const { count, firstVersion } = yield* ksi.call(Streams.Info, { stream: "cart-1" })
 * [removed, firstVersion, count]                            // [2, 3, 1]
 * ```
 *
 * **Gotchas** Settings are replaced as a whole: `{ settings: {} }` keeps everything from now on. What has gone does not come
 * back.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Router from "../bus/Router.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import type * as KsiError from "../event/KsiError.ts"
import { EventStore } from "../store/EventStore.ts"
import { StreamSettings } from "../store/StreamSettings.ts"
import { Count, optional, Ordinal } from "./internal/fields.ts"

// ------------------------------------------------------------------------------------------------------------- events

const settings = StreamSettings.annotate({ description: "what is kept of the stream; what is left out keeps everything" })
const stream = Schema.String.annotate({ description: "the stream's id" })

/** What a stream holds. */
export const Info = Event.make("store:stream_info", {
  payload: { stream },
  success: Schema.Struct({
    streamId: Schema.String,
    version: Count.annotate({ description: "of the last fact, also where that was removed; 0 where there never was one" }),
    firstVersion: Ordinal.annotate({ description: "the first version that is left; `version + 1` where none is" }),
    count: Count.annotate({ description: "facts that are left" }),
    isDeleted: Schema.Boolean.annotate({ description: "whether all that is left is its tombstone" }),
    settings
  }),
  idempotent: true,
  annotations: { description: "What a stream holds, and what is set for it.", examples: [{ stream: "order-1" }] }
})

/** Sets what is kept of a stream. */
export const Configure = Event.make("store:configure_stream", {
  payload: { stream, settings },
  success: Schema.Struct({ settings }),
  idempotent: true,
  annotations: {
    description: "Sets what is kept of a stream, in place of what was set before; `{}` keeps everything. Facts go when " +
      "retention is applied, not before.",
    examples: [{ stream: "sensor-1", settings: { maxCount: 1000, maxAge: 86_400_000 } }, { stream: "sensor-1", settings: {} }]
  }
})

/** Deletes a stream. */
export const Delete = Event.make("store:delete_stream", {
  payload: {
    stream,
    expectedVersion: optional(Ordinal, "the version that the stream must have"),
    reason: optional(Schema.String, "kept in the tombstone")
  },
  success: Schema.Struct({
    already: Schema.Boolean.annotate({ description: "whether it was deleted before" }),
    version: Ordinal.annotate({ description: "of the tombstone" })
  }),
  idempotent: true,
  annotations: {
    description: "Appends a tombstone (`store:stream_deleted`) to a stream and removes all facts before it. It takes no fact any more.",
    examples: [{ stream: "order-1", reason: "the customer asked for it" }]
  }
})

/** The events. */
export const Group = EventGroup.make(Info, Configure, Delete)

// ----------------------------------------------------------------------------------------------------------- handlers

const handlers = Group.toLayer(Effect.map(EventStore, (store) => ({
  *"store:stream_info"({ stream }: Event.Payload<typeof Info>) {
    const { first: firstVersion, ...details } = yield* store.details(stream)
    return { ...details, firstVersion }
  },
  *"store:configure_stream"({ settings, stream }: Event.Payload<typeof Configure>) {
    yield* store.configure(stream, settings)
    return { settings }
  },
  *"store:delete_stream"({ expectedVersion, reason, stream }: Event.Payload<typeof Delete>) {
    const { kind, version } = yield* store.delete(stream, { expectedVersion, reason })
    return { already: kind === "already", version }
  }
})))

/** Serves them. */
export const layer: Layer.Layer<never, KsiError.KsiError, Router.Router | EventStore> = Router.serveBuiltin(Group).pipe(
  Layer.provide(handlers)
)

/** Applies retention at the start and then again and again, as long as its scope lives; a failure is logged, and the next time comes. */
export const layerRetaining = (every: Duration.Input): Layer.Layer<never, never, EventStore> =>
  Layer.effectDiscard(Effect.gen(function*() {
    const store = yield* EventStore
    const once = Effect.matchEffect(store.retain, {
      onSuccess: (removed) => removed === 0 ? Effect.void : Effect.logInfo(`retention removed ${removed} facts`),
      onFailure: (error) => Effect.logError("retention could not be applied", error.message)
    })
    yield* Effect.forkScoped(Effect.repeat(once, Schedule.spaced(every)))
  }))
