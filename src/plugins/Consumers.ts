/**
 * Consumer groups for people: how far each is, what it has set aside and why, and what becomes of that.
 *
 * The rule: what is parked stays until a person deals with it. Handled again it goes in the order of its stream, and stops at
 * the first fact that fails once more.
 *
 * **Example**
 *
 * ```ts
 * const Shipping = Consumer.layer("shipping", {
 *   events: [Reserved], start: "start", maxAttempts: 1, handler: () => Effect.fail("no paper")
 * })
 * yield* Layer.build(Layer.mergeAll(Consumers.layer, Shipping))
 * const ksi = yield* KsiService
 * yield* ksi.emit(Reserved, { sku: "tea", quantity: 1 })
 * yield* Consumer.settled("shipping")
 * const { items } = yield* ksi.call(Consumers.Parked, { group: "shipping" })
 * items.length                                // 1
 * yield* ksi.call(Consumers.Discard, { group: "shipping", positions: [1] })    // { discarded: 1 }
 * ```
 *
 * **Gotchas** A group that nobody works for here can be looked at and its facts discarded, not handled again.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Router from "../bus/Router.ts"
import * as Envelope from "../event/Envelope.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import type * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import { Consumers } from "../store/Consumer.ts"
import { Count, optional, Ordinal, pageOf, paging } from "./internal/fields.ts"
import * as Paging from "./internal/paging.ts"

const Name = Schema.String.annotate({ description: "the group's name, as `consumer:list` tells it" })

/** The groups there are. */
export const List = Event.make("consumer:list", {
  success: Schema.Struct({
    items: Schema.Array(Schema.Struct({
      group: Schema.String,
      status: Schema.Literals(["following", "blocked", "idle"])
        .annotate({ description: "`idle`: nobody here works for it; `blocked`: too much is set aside" }),
      position: Count.annotate({ description: "everything up to here is dealt with" }),
      lag: Count.annotate({ description: "positions that are not" }),
      pending: Count.annotate({ description: "facts under way" }),
      parked: Count.annotate({ description: "facts that are set aside" }),
      members: Count,
      problem: optional(Schema.String, "why it waits")
    }))
  }),
  idempotent: true,
  annotations: { description: "The consumer groups, how far each is, and how much it has set aside.", examples: [{}] }
})

/** What a group has set aside. */
export const Parked = Event.make("consumer:parked", {
  payload: { group: Name, stream: optional(Schema.String, "only facts of this stream"), ...paging },
  success: pageOf(Schema.Struct({
    position: Ordinal,
    streamId: Schema.String,
    attempts: Count,
    error: optional(Schema.String, "why it was set aside; without one it waits behind one that was"),
    parkedAt: Schema.String.annotate({ description: "when it was set aside: RFC 3339" })
  })),
  idempotent: true,
  annotations: {
    description: "Facts that a group has set aside, by position: `{ position, streamId, attempts, parkedAt }`, with the `error` of one " +
      "that failed; one without waits behind it.",
    examples: [{ group: "billing" }]
  }
})

/** Handles again what is set aside. */
export const Retry = Event.make("consumer:retry", {
  payload: { group: Name, stream: optional(Schema.String, "only facts of this stream") },
  success: Schema.Struct({ handled: Count, parked: Count.annotate({ description: "facts that are still set aside" }) }),
  annotations: {
    description: "Handles once more what a group has set aside, each stream in its order.",
    examples: [{ group: "billing", stream: "order-1" }]
  }
})

/** Gives up what is set aside. */
export const Discard = Event.make("consumer:discard", {
  payload: {
    group: Name,
    positions: Schema.Array(Ordinal).check(Schema.isBetweenLength(1, 1000)).annotate({ description: "positions, at most 1000" })
  },
  success: Schema.Struct({ discarded: Count.annotate({ description: "how many of them were set aside" }) }),
  idempotent: true,
  annotations: { description: "Gives up facts that a group has set aside: they count as dealt with.", examples: [{ group: "billing", positions: [7] }] }
})

/** The events of `consumer:*`. */
export const Group = EventGroup.make(List, Parked, Retry, Discard)

const handlers = Group.toLayer(Effect.gen(function*() {
  const consumers = yield* Consumers
  const { pageBytes, pageItems } = yield* Limits
  return {
    *"consumer:list"() {
      const all = yield* consumers.status
      return {
        items: all.map(({ name: group, trouble, ...figures }) => ({ group, ...figures, ...(trouble === undefined ? {} : { problem: trouble }) }))
      }
    },
    *"consumer:parked"(payload: Event.Payload<typeof Parked>) {
      const { cursor, next, query: { group, stream: streamId } } = yield* Paging.open(Parked, payload, 0)
      const limit = Math.min(payload.limit ?? pageItems, pageItems)
      const fits = Paging.makeBudget(pageBytes)
      const items: Array<unknown> = []
      let after = typeof next === "number" ? next : 0
      for (const row of yield* consumers.parked(group, { streamId, after, limit })) {
        const { attempts, error, position, streamId, timestamp } = row
        const item = { position, streamId, attempts, ...(error === undefined ? {} : { error }), parkedAt: Envelope.timeText(timestamp) }
        if (!fits(item)) return Paging.page(items, cursor(after))
        items.push(item)
        after = position
      }
      return Paging.page(items, items.length < limit ? undefined : cursor(after))
    },
    *"consumer:retry"({ group, stream }: Event.Payload<typeof Retry>) {
      const { handled, left } = yield* consumers.retry(group, stream)
      return { handled, parked: left }
    },
    *"consumer:discard"({ group, positions }: Event.Payload<typeof Discard>) {
      return { discarded: yield* consumers.discard(group, positions) }
    }
  }
}))

/** Serves `consumer:*`. */
export const layer: Layer.Layer<never, KsiError.KsiError, Router.Router | Consumers> = Router.serveBuiltin(Group).pipe(
  Layer.provide(handlers)
)
