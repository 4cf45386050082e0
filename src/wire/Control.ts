/**
 * The events that belong to a connection: greeting it, following what happens over it. They are ordinary requests of
 * the router (described, recorded, published like all others), only that their handler must know which connection asked.
 *
 * The rule: a connection hands its doors over beside the envelope (`attach`); an envelope without doors did not come
 * over a connection, and its request fails with `WrongShape`.
 *
 * **Example**
 *
 * ```ts
 * const payload = { pattern: "order:*", subscription_id: "s1", from: "start" as const }
 * Schema.is(Control.Subscribe.payload)(payload)         // true
 * ```
 *
 * **Gotchas** The token of a greeting is looked at when its line is read, and is in no envelope: whatever follows that line
 * is asked by who the token stands for. Only another token changes it again; one that is not valid leaves nobody
 * (`anonymous`), who may only greet.
 *
 * On the wire `wire:`, `pubsub:` and `stream:` frames carry these fields beside `event`, `monitor:` frames in `data`.
 * `monitor:subscribe` is the original's word for the same thing, with requests; again by the same client replaces what
 * it followed.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { SubscribeOptions } from "../bus/KsiService.ts"
import { Router, serveBuiltin } from "../bus/Router.ts"
import type { Envelope } from "../event/Envelope.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import { owner } from "../event/Grant.ts"
import * as KsiError from "../event/KsiError.ts"

// ------------------------------------------------------------------------------------------------------------- events

/** The one version of the wire that is spoken here. */
export const version = 1

const Id = Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(256))
const Pattern = Schema.String.check(Schema.isMaxLength(256))
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const Texts = Schema.Union([Pattern, Schema.Array(Pattern).check(Schema.isMaxLength(100))])

/** Greets: says which version of the wire the client speaks, and who it is. */
export const Hello = Event.make("wire:hello", {
  payload: {
    version: Schema.Int.annotate({ description: "the version of the wire that the client speaks" }),
    token: Schema.optionalKey(Schema.String.annotate({
      description: "says who the client is, from this line on; with one that is not valid it is nobody"
    }))
  },
  success: Schema.Struct({
    version: Schema.Int,
    limits: Schema.Record(Schema.String, Schema.Finite).annotate({ description: "every limit in force, by name" }),
    principal: Schema.String.annotate({ description: "who the client is taken for" })
  }),
  idempotent: true,
  annotations: {
    // A connection takes the token out before anybody sees it; no other way of sending one shall keep it either.
    audit: "outline",
    description: "Greets the daemon: answers with the wire's version, the limits and who the client is.",
    examples: [{ version }]
  }
})

/** Follows events over the connection. */
export const Subscribe = Event.make("pubsub:subscribe", {
  payload: {
    pattern: Schema.Union([Pattern, Schema.Array(Pattern).check(Schema.isBetweenLength(1, 100))]).annotate({
      description: "which events, as in \"order:*\"; a list for any of several"
    }),
    subscription_id: Id.annotate({ description: "chosen by the client, unique on its connection" }),
    from: Schema.optionalKey(
      Schema.Union([Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)), Schema.Literals(["now", "start"])])
        .annotate({ description: "the first position wanted, \"start\", or \"now\" (the default)" })
    ),
    requests: Schema.optionalKey(Schema.Boolean.annotate({ description: "whether to hear requests too, live" })),
    metadata: Schema.optionalKey(Schema.Boolean.annotate({ description: "whether each frame tells all that is known of the event: who asked, what caused it" })),
    overflow: Schema.optionalKey(
      Schema.Literals(["spill", "latest", "drop", "sample", "disconnect", "block"]).annotate({
        description: "when the client is slow: read on from the store (the default), keep the newest, keep the oldest, tell of the newest once in every_ms, or end with SlowConsumer; what is left out is counted in \"missed\". \"block\" lets publishers wait, and is for the owner alone"
      })
    ),
    every_ms: Schema.optionalKey(
      Schema.Finite.check(Schema.isGreaterThanOrEqualTo(1)).annotate({ description: "how often \"sample\" tells of the newest, in milliseconds; 1000 when absent" })
    ),
    credit: Schema.optionalKey(
      Schema.Struct({ items: Schema.optionalKey(Count), bytes: Schema.optionalKey(Count) }).annotate({
        description: "how many frames (and characters of them) may come before a stream:credit grants more; when absent, what the socket takes"
      })
    ),
    buffer: Schema.optionalKey(
      Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)).annotate({ description: "how many facts, and how many requests, may wait in the daemon" })
    )
  },
  success: Schema.Struct({
    status: Schema.Literal("subscribed"),
    subscription_id: Schema.String,
    position: Schema.Int.annotate({ description: "the last position that was stored when it opened" })
  }),
  annotations: {
    description: "Follows facts (and, if asked, requests) over this connection: first the stored ones, then live.",
    examples: [{ pattern: "order:*", subscription_id: "s1", from: "start" }]
  }
})

/** What the bus is asked for where a client subscribes. Fails where it would let publishers wait, and is not the owner. */
export const optionsOf = (payload: Event.Payload<typeof Subscribe>, principal: string): Effect.Effect<SubscribeOptions, KsiError.KsiError> => {
  const { buffer, every_ms: every, from, overflow, requests } = payload
  if (overflow === "block" && principal !== owner) {
    return KsiError.fail(KsiError.invalidAt(Subscribe.name, "overflow", "\"block\" lets publishers wait, and is for the owner alone"))
  }
  return Effect.succeed({ buffer, every, from, overflow, requests, principal })
}

/** Ends a subscription of the connection. */
export const Unsubscribe = Event.make("pubsub:unsubscribe", {
  payload: { subscription_id: Id },
  success: Schema.Struct({ status: Schema.Literal("unsubscribed"), subscription_id: Schema.String }),
  annotations: { description: "Ends a subscription of this connection.", examples: [{ subscription_id: "s1" }] }
})

/** Follows events and requests, in the original's words. */
export const MonitorSubscribe = Event.make("monitor:subscribe", {
  payload: {
    event_patterns: Schema.optionalKey(Texts.annotate({ description: "which events; all when absent" })),
    patterns: Schema.optionalKey(Texts.annotate({ description: "another name of event_patterns" })),
    client_id: Schema.optionalKey(Id.annotate({ description: "names the subscription; the frame's _client_id when absent" }))
  },
  success: Schema.Struct({
    status: Schema.Literal("subscribed"),
    client_id: Schema.String,
    patterns: Schema.Array(Schema.String)
  }),
  annotations: {
    description: "Follows facts and requests live over this connection, as clients of the original do.",
    examples: [{ event_patterns: ["order:*"], client_id: "probe" }]
  }
})

/** Ends what `monitor:subscribe` began. */
export const MonitorUnsubscribe = Event.make("monitor:unsubscribe", {
  payload: { client_id: Schema.optionalKey(Id) },
  success: Schema.Struct({ status: Schema.Literal("unsubscribed"), client_id: Schema.String }),
  annotations: { description: "Ends what monitor:subscribe began on this connection.", examples: [{ client_id: "probe" }] }
})

/** Ends a stream of the connection. */
export const Cancel = Event.make("stream:cancel", {
  payload: { stream_id: Id },
  success: Schema.Struct({ status: Schema.Literal("cancelled"), stream_id: Schema.String }),
  annotations: {
    description: "Ends a stream that was asked for over this connection; answers when what its handler had to finish is done.",
    examples: [{ stream_id: "s1" }]
  }
})

/**
 * The frame that lets a stream of the connection (`stream_id`), or a subscription (`subscription_id`), send more: so many items, and
 * characters of their frames. It is no event: there may be thousands of it, and it has no answer but where it makes no sense.
 * What stands in `mark` (a whole number) stands in the next frame of that stream too.
 */
export const credit = "stream:credit"

/**
 * The frame with which a client asks whether anybody is there, and what it is answered with, at once: it is no event, and whoever
 * has not shown a token yet may ask too.
 */
export const ping = "wire:ping"

/** The line of a `ping`, as KSI's own clients write it: it goes before what waits for its turn. */
export const pingLine = `{"event":"${ping}"}`

/** What a `ping` is answered with. */
export const pongLine = "{\"event\":\"wire:pong\"}\n"

/** The events that belong to a connection. */
export const Group = EventGroup.make(Hello, Subscribe, Unsubscribe, Cancel, MonitorSubscribe, MonitorUnsubscribe)

const names: ReadonlySet<string> = new Set(Object.keys(Group.events))

/** Whether an event belongs to a connection. */
export const isControl = (name: string): boolean => names.has(name)

// -------------------------------------------------------------------------------------------------------------- doors

type Answer<Ev extends Event.AnyRequest> = Effect.Effect<Event.Success<Ev>, KsiError.KsiError>

/** What a connection can do for the request that it attached them to. */
export interface Doors {
  readonly hello: (payload: Event.Payload<typeof Hello>) => Answer<typeof Hello>
  readonly subscribe: (payload: Event.Payload<typeof Subscribe>) => Answer<typeof Subscribe>
  readonly unsubscribe: (payload: Event.Payload<typeof Unsubscribe>) => Answer<typeof Unsubscribe>
  readonly cancel: (payload: Event.Payload<typeof Cancel>) => Answer<typeof Cancel>
  readonly monitor: (payload: Event.Payload<typeof MonitorSubscribe>) => Answer<typeof MonitorSubscribe>
  readonly unmonitor: (payload: Event.Payload<typeof MonitorUnsubscribe>) => Answer<typeof MonitorUnsubscribe>
}

const attached = new WeakMap<Envelope, Doors>()

/** Says which connection an envelope came over. */
export const attach = (envelope: Envelope, doors: Doors): void => {
  attached.set(envelope, doors)
}

const through = <A>(envelope: Envelope, use: (doors: Doors) => Effect.Effect<A, KsiError.KsiError>) => {
  const doors = attached.get(envelope)
  return doors === undefined
    ? KsiError.fail(new KsiError.WrongShape({ event: envelope.name, used: "call", expected: "connection" }))
    : use(doors)
}

const Handlers = Group.toLayer({
  "wire:hello": (payload, envelope) => through(envelope, (doors) => doors.hello(payload)),
  "pubsub:subscribe": (payload, envelope) => through(envelope, (doors) => doors.subscribe(payload)),
  "pubsub:unsubscribe": (payload, envelope) => through(envelope, (doors) => doors.unsubscribe(payload)),
  "stream:cancel": (payload, envelope) => through(envelope, (doors) => doors.cancel(payload)),
  "monitor:subscribe": (payload, envelope) => through(envelope, (doors) => doors.monitor(payload)),
  "monitor:unsubscribe": (payload, envelope) => through(envelope, (doors) => doors.unmonitor(payload))
})

// -------------------------------------------------------------------------------------------------------------- layer

/** Serves the events that belong to a connection. Fails with `PluginInvalid` where they are served already. */
export const layer: Layer.Layer<never, KsiError.KsiError, Router> = serveBuiltin(Group).pipe(Layer.provide(Handlers))
