/**
 * Consumer groups for people and for programs beside the daemon: how far each is, what it has set aside and why, and what becomes of
 * that; and the work for one: facts are handed over (`consumer:work`) and reported (`consumer:done`).
 *
 * The rule: what is parked stays until a person deals with it. Handled again it goes in the order of its stream, and stops at
 * the first fact that fails once more. What is handed over stays with its worker until that reports it or is gone; no other can.
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
 *
 * // Work by hand, as a program in another language does it.
 * const [begun, fact] = yield* ksi.stream(Consumers.Work, { group: "printing", events: ["stock:*"], start: "start" }).pipe(
 *   Stream.tap((item) => item.kind === "fact" ? ksi.call(Consumers.Done, { ticket: item.ticket }) : Effect.void),
 *   Stream.take(2), Stream.runCollect)
 * [begun?.kind, fact?.kind === "fact" && fact.event]    // ["begun", "stock:reserved"]
 * ```
 *
 * **Gotchas** A group that nobody works for can be looked at and its facts discarded, not handled again. A ticket that is reported
 * late, when its fact was handed to somebody else, is `NotFound`. `RemoteConsumers.ts` does the work for programs in TypeScript.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Router from "../bus/Router.ts"
import * as Envelope from "../event/Envelope.ts"
import type * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import type * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import { Consumers } from "../store/Consumer.ts"
import { Discard, Done, List, Parked, Retry, Settled, Work } from "./internal/consumerEvents.ts"
import * as Crews from "./internal/Crews.ts"
import * as Paging from "./internal/paging.ts"

export { Discard, Done, List, Parked, Retry, Settled, Work } from "./internal/consumerEvents.ts"

/** The events of `consumer:*`. */
export const Group = EventGroup.make(List, Parked, Retry, Discard, Settled, Work, Done)

/** The programs beside the daemon that work for groups. */
export class Workers extends Context.Service<Workers, {
  /** Hands over nothing more, and waits until what was is reported, at most so long; then their work ends. */
  readonly end: (patience: Duration.Input) => Effect.Effect<void>
}>()("ksi/plugins/Consumers/Workers") {}

const handlers = (crews: Effect.Success<typeof Crews.make>) => Group.toLayer(Effect.gen(function*() {
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
    },
    "consumer:settled": ({ group, position }: Event.Payload<typeof Settled>) => consumers.settled(group, position),
    "consumer:work": (asked: Event.Payload<typeof Work>, { metadata: { principal } }: Envelope.Envelope) => crews.work(asked, principal),
    "consumer:done": (report: Event.Payload<typeof Done>, { metadata: { principal } }: Envelope.Envelope) => crews.done(report, principal)
  }
}))

/** Serves `consumer:*`. */
export const layer: Layer.Layer<Workers, KsiError.KsiError, Router.Router | Consumers> = Layer.unwrap(
  Effect.map(Crews.make, (crews) =>
    Layer.merge(
      Router.serveBuiltin(Group).pipe(Layer.provide(handlers(crews))),
      Layer.succeed(Workers, { end: crews.end })
    ))
)
