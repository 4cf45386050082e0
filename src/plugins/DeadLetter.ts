/**
 * Dead letters for people: what failed to react to a fact, why, and what to do about it.
 *
 * The rule: nothing is rerun by itself. A rerun runs the one handler of the letter, with the event as it was, as a new
 * envelope caused by the old one; the other handlers of the event hear nothing. Handled, the letter is gone; failed
 * again, it stays with its newest error and one rerun more.
 *
 * **Example**
 *
 * ```ts
 * const ksi = yield* KsiService
 * const letters = yield* DeadLetters
 * const event = { id: "1", name: "stock:reserved", data: {}, streamId: "stock-tea", position: 1, attributes: {} }
 * letters.record({ handler: "stock:reserved#1", reason: "failed", error: "no paper", event, timestamp: 0 })
 * const { items, total } = yield* ksi.call(DeadLetter.List, { pattern: "stock:*" })
 * [items.length, total]                       // [1, 1]
 * yield* ksi.call(DeadLetter.Discard, { letters: [1] })    // { discarded: 1 }
 * ```
 *
 * **Gotchas** Reruns take turns, so that two people do not run one letter twice. A handler that is not there any more
 * cannot be rerun (`NotFound`); its letters wait for it, or for being discarded.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import { DeadLetters, type Letter } from "../bus/DeadLetters.ts"
import * as Router from "../bus/Router.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import type * as KsiError from "../event/KsiError.ts"
import { Limits, type LimitsShape } from "../event/Limits.ts"
import { Count, Opaque, optional, Ordinal, Page, paging } from "./internal/fields.ts"
import * as Paging from "./internal/paging.ts"

// ------------------------------------------------------------------------------------------------------------- events

const LetterNumber = Ordinal.annotate({ description: "the letter's number, as `deadletter:list` tells it" })

const outline = {
  letter: LetterNumber,
  event: Schema.String.annotate({ description: "the event's name" }),
  event_id: Schema.String,
  stream_id: optional(Schema.String, "the event's stream; none for a request"),
  position: optional(Ordinal, "the event's position; none for a request"),
  handler: Schema.String.annotate({ description: "who did not deal with it" }),
  reason: Schema.Literals(["failed", "died", "timed-out", "overloaded"]),
  error: Schema.String.annotate({ description: "what it said the last time" }),
  reruns: Count.annotate({ description: "how often it was rerun in vain" }),
  timestamp: Schema.Finite.annotate({ description: "when it failed first: seconds since 1970" })
}

/** The letters there are. */
export const List = Event.make("deadletter:list", {
  payload: {
    pattern: optional(
      Schema.Union([Schema.String, Schema.Array(Schema.String)]),
      "only letters whose event one of these patterns matches"
    ),
    ...paging
  },
  success: Schema.Struct({ ...Page.fields, total: Count.annotate({ description: "how many there are on all pages" }) }),
  idempotent: true,
  annotations: {
    description: "Reactions that failed, newest first, each `{ letter, event, event_id, handler, reason, error, reruns, " +
      "timestamp }`, with `stream_id` and `position` of a fact.",
    examples: [{}, { pattern: "order:*", limit: 10 }]
  }
})

/** One letter, with the event's data. */
export const Show = Event.make("deadletter:show", {
  payload: { letter: LetterNumber },
  success: Schema.Struct({
    ...outline,
    data: Opaque.annotate({ description: "the event's data" }),
    attributes: Opaque.annotate({ description: "the event's extension attributes" })
  }),
  idempotent: true,
  annotations: { description: "A reaction that failed, with the event that it failed on.", examples: [{ letter: 1 }] }
})

/** Runs the handler of a letter once more. */
export const Rerun = Event.make("deadletter:rerun", {
  payload: { letter: LetterNumber },
  success: Schema.Struct({ letter: LetterNumber, handled: Schema.Literal(true) }),
  annotations: {
    description: "Runs the one handler of a letter once more. Handled, the letter is gone; `HandlerFailed`, it stays with " +
      "the new error.",
    examples: [{ letter: 1 }]
  }
})

/** Removes letters. */
export const Discard = Event.make("deadletter:discard", {
  payload: {
    letters: Schema.Array(Ordinal).check(Schema.isBetweenLength(1, 1000)).annotate({ description: "numbers, at most 1000" })
  },
  success: Schema.Struct({ discarded: Count.annotate({ description: "how many of them there were" }) }),
  idempotent: true,
  annotations: { description: "Removes letters without a rerun.", examples: [{ letters: [1, 2] }] }
})

/** The events of `deadletter:*`. */
export const Group = EventGroup.make(List, Show, Rerun, Discard)

// ----------------------------------------------------------------------------------------------------------- handlers

const itemOf = ({ error, event, handler, letter, reason, reruns, timestamp }: Letter) => ({
  letter,
  event: event.name,
  event_id: event.id,
  ...(event.streamId === undefined ? {} : { stream_id: event.streamId }),
  ...(event.position === undefined ? {} : { position: event.position }),
  handler, reason, error, reruns,
  timestamp: timestamp / 1000
})

/** Reads of the letters for one page; large events are read and not shown. */
const maxReads = 16

const listPage = Effect.fnUntraced(function*(
  dead: DeadLetters["Service"],
  payload: Event.Payload<typeof List>,
  { pageBytes, pageItems }: LimitsShape
): Effect.fn.Return<Event.Success<typeof List>, KsiError.KsiError> {
  // No position is needed: new letters come before those that a page has shown, never behind them.
  const { cursor, next, query: { pattern } } = yield* Paging.open(List, payload, 0)
  const { limit = pageItems } = payload
  const patterns = typeof pattern === "string" ? [pattern] : pattern
  const fits = Paging.makeBudget(pageBytes)
  const items: Array<unknown> = []
  let after = typeof next === "number" ? next : Number.MAX_SAFE_INTEGER
  let count = 0
  for (let reads = 0; reads < maxReads; reads++) {
    const { letters, total } = yield* dead.list({ patterns, after, limit: limit - items.length + 1 })
    if (letters.length === 0) return { ...Paging.page(items, undefined), total }
    count = total
    for (const letter of letters) {
      const item = itemOf(letter)
      if (items.length === limit || !fits(item)) return { ...Paging.page(items, cursor(after)), total }
      items.push(item)
      after = letter.letter
    }
  }
  return { ...Paging.page(items, cursor(after)), total: count }
})

const handlers = Group.toLayer(Effect.gen(function*() {
  const dead = yield* DeadLetters
  const router = yield* Router.Router
  const limits = yield* Limits
  const turns = yield* Semaphore.make(1)

  const rerun = (number: number) =>
    // Between the handler's end and the note of it nobody may get in.
    Effect.uninterruptibleMask((restore) => Effect.gen(function*() {
      const letter = yield* dead.get(number)
      yield* Effect.tapError(restore(router.rerun(letter)), ({ reason }) =>
        // Whoever asked wants to know why the handler failed, also where that cannot be noted.
        reason._tag === "HandlerFailed" ? Effect.ignore(dead.rerun(number, reason.problem)) : Effect.void)
      yield* dead.discard([number])
    }))

  return {
    "deadletter:list": (payload: Event.Payload<typeof List>) => listPage(dead, payload, limits),
    *"deadletter:show"({ letter }: Event.Payload<typeof Show>) {
      const found = yield* dead.get(letter)
      return { ...itemOf(found), data: found.event.data, attributes: found.event.attributes }
    },
    *"deadletter:rerun"({ letter }: Event.Payload<typeof Rerun>) {
      yield* turns.withPermit(rerun(letter))
      return { letter, handled: true as const }
    },
    *"deadletter:discard"({ letters }: Event.Payload<typeof Discard>) {
      return { discarded: yield* dead.discard(letters) }
    }
  }
}))

/** Serves `deadletter:*`. */
export const layer: Layer.Layer<never, KsiError.KsiError, Router.Router | DeadLetters> = Router.serveBuiltin(Group).pipe(
  Layer.provide(handlers)
)
