/**
 * `time:trace`: who caused what, as a tree of requests and facts over all streams. `time:test`: the same as a test that runs.
 *
 * The rule: the answer is of a moment. What is found for the first page is what the next pages tell; a tree of more than
 * 10,000 nodes is cut, and says so.
 *
 * **Example**
 *
 * ```ts
 * const { holdId } = yield* program
 * const { items } = yield* (yield* Ksi).call(Trace.GetTrace, { id: holdId, as: "mermaid" })
 * items[0]                                    // "flowchart TD"
 * ```
 *
 * **Gotchas** What the next pages are cut from is kept for the last two questions, for a minute, up to the limit
 * `keptAnswerBytes` and until facts are removed: a page that is asked for later is of a trace that may be another one by then. `text` and `mermaid` are lines, to be joined by line feeds.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Activity } from "../bus/Activity.ts"
import * as Router from "../bus/Router.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import * as Json from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import { EventStore } from "../store/EventStore.ts"
import * as Trace from "../store/Trace.ts"
import { Count, optional, Ordinal, pageOf, paging, place, Timestamp } from "./internal/fields.ts"
import * as KeptAnswers from "./internal/keptAnswers.ts"
import * as Paging from "./internal/paging.ts"

const duration = Schema.Finite.annotate({ description: "milliseconds from its beginning to its end" })

const common = {
  id: place.id,
  parent: Schema.NullOr(Schema.String).annotate({ description: "the id of the node above it" }),
  depth: Count.annotate({ description: "how far it is from its root, by its own words" }),
  offset: Schema.Finite.annotate({ description: "milliseconds from the beginning of the trace; of a fact, until it was stored" })
}
const recorded = { event: place.event, ...common, timestamp: Timestamp, principal: Schema.String }

const RequestNode = Schema.Struct({
  kind: Schema.Literal("request"),
  ...recorded,
  outcome: Schema.Literals(["success", "failure", "defect", "interrupted"]),
  reason: optional(Schema.String, "the tag of what it failed with"),
  error: optional(Schema.String, "what it failed with, in a sentence"),
  duration,
  own: Schema.Finite.annotate({ description: "milliseconds of those in which none of the requests that it caused ran" })
})

const FactNode = Schema.Struct({
  kind: Schema.Literal("fact"), ...recorded, position: place.position, version: place.version, streamId: place.streamId
})

const MissingNode = Schema.Struct({ kind: Schema.Literal("missing"), ...common })

/** The tree of causes that a request or fact belongs to. */
export const GetTrace = Event.make("time:trace", {
  payload: {
    id: Schema.String.annotate({ description: "of a fact or of a request, KSI's correlation id, or the label that a client gave" }),
    as: optional(Schema.Literals(["nodes", "text", "mermaid"]), "what the items are: objects (the default), or lines to be joined"),
    ...paging
  },
  success: Schema.Struct({
    ...pageOf(Schema.Union([RequestNode, FactNode, MissingNode, Schema.String])).fields,
    duration,
    truncated: Schema.Boolean.annotate({ description: "whether the trace has more than 10,000 nodes, of which the latest are left out" })
  }),
  idempotent: true,
  annotations: {
    description: "Who caused what, each after its cause: `{ kind, event, id, parent, depth, offset, timestamp, principal }`, of a " +
      "request also its `outcome`, `duration` and `own` time, of a fact `position`, `version` and `streamId`; of a cause that is not " +
      "recorded only `id` and its place (`kind` is `missing`). `duration`, `own` and `offset` are milliseconds.",
    examples: [{ id: "01a20232-d0ca-7000-8000-123400005678" }, { id: "c1", as: "mermaid" }]
  }
})

/** A part of history as a test. */
export const GetTest = Event.make("time:test", {
  payload: {
    trace: optional(Schema.String, "the requests of this trace: the id of a request or fact, or the label of a client"),
    stream: optional(Schema.String, "the requests that led to facts of this stream"),
    from: optional(Ordinal, "those that led to facts from this position on"),
    to: optional(Ordinal, "and up to this one"),
    given: optional(Schema.Array(Schema.String), "streams whose facts are given, besides those that a request wrote to"),
    app: optional(Schema.String, "the module that the test imports; its default export is the app's layer. Default: ./app.ts"),
    groups: optional(
      Schema.Array(Schema.String.check(Schema.isPattern(/^[A-Za-z_$][\w$]*$/))),
      "exports of it that are groups of events. Default: one for each namespace, `Stock` for `stock:…`"
    )
  },
  success: Schema.Struct({ text: Schema.String.annotate({ description: "TypeScript, for vitest" }) }),
  idempotent: true,
  annotations: {
    description: "Recorded requests as given/when/then tests: the facts that were there, the request, the facts that came of it.",
    examples: [{ trace: "c1" }, { stream: "order-1", app: "../src/shop.ts", groups: ["Shop"] }]
  }
})

/** The events of `time:trace` and `time:test`. */
export const Group = EventGroup.make(GetTrace, GetTest)

/** Nodes of one trace, at most. */
const mostNodes = 10_000

const itemsOf = (trace: Trace.Trace, as: "nodes" | "text" | "mermaid"): ReadonlyArray<unknown> =>
  as === "text" ? Trace.text(trace) : as === "mermaid" ? Trace.mermaid(trace) : trace.nodes

/** What an item is known by: a node by its id, a line by itself. */
const nameOf = (item: unknown): string => Json.isObject(item) ? String(item["id"]) : String(item)

/** What the cursor says of the page after an item. */
const markOf = (index: number, item: unknown): string => `${index} ${nameOf(item)}`

/** Where the page begins; `undefined` where the item before it is not there any more, or not where it was. */
const startOf = (next: number | string | undefined, all: ReadonlyArray<unknown>): number | undefined => {
  if (typeof next !== "string") return next ?? 0
  const [, index, name] = /^(\d+) (.*)$/s.exec(next) ?? []
  if (nameOf(all[Number(index) - 1]) === name) return Number(index)
  const at = all.findIndex((item) => Json.isObject(item) && nameOf(item) === name)
  return at < 0 ? undefined : at + 1
}

const handlers = Group.toLayer(Effect.gen(function*() {
  const activity = yield* Activity
  const store = yield* EventStore
  const services = yield* Effect.context<Activity | EventStore | Router.Router>()
  const { pageBytes, pageItems } = yield* Limits
  const kept = yield* KeptAnswers.make<Trace.Trace>()

  const traceOf = (id: string) => Trace.of(id, { limit: mostNodes }).pipe(
    Effect.provideService(Activity, activity),
    Effect.provideService(EventStore, store)
  )

  return {
    *"time:trace"(payload: Event.Payload<typeof GetTrace>) {
      const { cursor, next, query: { as = "nodes", id } } = yield* Paging.open(GetTrace, payload, store.head())
      const { limit = pageItems } = payload
      // The same for every page of one walk; the first page begins a walk.
      const key = cursor("")
      const epoch = kept.epoch()
      const trace = (next === undefined ? undefined : kept.get(key, undefined)) ?? (yield* traceOf(id))
      const all = itemsOf(trace, as)
      const rest = { duration: trace.duration, truncated: trace.more }
      const fits = Paging.makeBudget(pageBytes)
      const items: Array<unknown> = []
      const start = startOf(next, all)
      if (start === undefined) {
        return yield* KsiError.fail(KsiError.invalidAt(GetTrace.name, "cursor", "the trace is another one now; leave it out to start again"))
      }
      for (let index = start; index < all.length; index++) {
        if (items.length >= limit || !fits(all[index])) {
          yield* kept.keep(key, undefined, epoch, trace, trace.nodes)
          return { ...Paging.page(items, cursor(markOf(index, all[index - 1]))), ...rest }
        }
        items.push(all[index])
      }
      kept.forget(key)
      return { ...Paging.page(items, undefined), ...rest }
    },
    *"time:test"({ app, given, groups, ...selection }: Event.Payload<typeof GetTest>) {
      // What writes tests is for a person, now and then: it is not loaded before that.
      const { test } = yield* Effect.promise(() => import("../store/Recording.ts"))
      const text = yield* test(selection, { app, given, groups }).pipe(Effect.provideContext(services))
      const actual = Buffer.byteLength(text)
      return actual > pageBytes
        ? yield* KsiError.fail(new KsiError.LimitExceeded({ limit: "pageBytes", max: pageBytes, actual, retryable: false }))
        : { text }
    }
  }
}))

/** Serves `time:trace` and `time:test`. */
export const layer: Layer.Layer<never, KsiError.KsiError, Router.Router | EventStore | Activity> = Router.serveBuiltin(Group).pipe(
  Layer.provide(handlers)
)
