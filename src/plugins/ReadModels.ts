/**
 * Read models for people: which there are, how far each is, what it says, and how it is built anew.
 *
 * The rule: who asks sees what the program sees, always of one whole version; a model that has stopped says at which fact.
 *
 * **Example**
 *
 * ```ts
 * const Held = Projection.make("held", {
 *   events: [Reserved], state: Schema.Int, initial: 0, on: { [Reserved.name]: (held, { quantity }) => held + quantity }
 * })
 * yield* Layer.build(Layer.mergeAll(ReadModels.layer, ReadModel.layer(Held)))
 * const ksi = yield* KsiService
 * const { position } = yield* ksi.emit(Reserved, { sku: "tea", quantity: 2 })
 * yield* ReadModel.waitFor(Held, position)
 * const { items } = yield* ksi.call(ReadModels.Get, { projection: "held", key: "stock-tea" })
 * items                                       // [{ key: "stock-tea", state: 2, position: 1 }]
 * ```
 *
 * **Gotchas** Pages of a model that goes on are not of one moment; `time:at` answers for one.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Router from "../bus/Router.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import type * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import * as Projection from "../store/Projection.ts"
import * as ReadModel from "../store/ReadModel.ts"
import { Count, optional, Ordinal, pageOf, paging, State } from "./internal/fields.ts"
import * as Paging from "./internal/paging.ts"

const Name = Schema.String.annotate({ description: "the projection's name, as `projection:list` tells it" })

/** The projections there are. */
export const List = Event.make("projection:list", {
  success: Schema.Struct({
    items: Schema.Array(Schema.Struct({
      projection: Schema.String,
      timeTravel: Schema.Boolean.annotate({ description: "whether `time:*` can be asked for it, as its `projection`" }),
      status: optional(
        Schema.Literals(["following", "rebuilding", "failed", "idle"]),
        "of a read model, as all that follows; `idle`: nobody here has its code"
      ),
      mode: optional(Schema.Literals(["async", "inline"]), "`inline`: it changes in the transactions of the facts"),
      position: optional(Count, "what readers see stands for this position"),
      lag: optional(Count, "positions that readers do not see yet"),
      rebuiltPosition: optional(Count, "how far the version is that is being built"),
      failedPosition: optional(Ordinal, "the fact that cannot be folded"),
      problem: optional(Schema.String, "why it does not go on")
    }))
  }),
  idempotent: true,
  annotations: {
    description: "The projections there are, by name: the read models that are kept, how far each is and whether one has stopped; and " +
      "those that `time:*` can be asked for.",
    examples: [{}]
  }
})

/** What a read model says. */
export const Get = Event.make("projection:get", {
  payload: {
    projection: Name,
    key: optional(Schema.String, "only this key"),
    prefix: optional(Schema.String, "only keys that begin so"),
    ...paging
  },
  success: pageOf(Schema.Struct({
    key: Schema.String, state: State, position: Ordinal.annotate({ description: "the fact that changed it last" })
  })),
  idempotent: true,
  annotations: {
    description: "The states of a read model, ordered by key: `{ key, state, position }`.",
    examples: [{ projection: "totals", key: "ann" }, { projection: "totals", prefix: "a", limit: 10 }]
  }
})

/** Builds a read model anew. */
export const Rebuild = Event.make("projection:rebuild", {
  payload: { projection: Name },
  success: Schema.Struct({ projection: Schema.String, status: Schema.Literal("rebuilding") }),
  annotations: {
    description: "Folds a read model from the first fact once more, beside the version that is asked; that one answers meanwhile.",
    examples: [{ projection: "totals" }]
  }
})

/** The events of `projection:*`. */
export const Group = EventGroup.make(List, Get, Rebuild)

/** How a read model is; nothing of what is none. */
const keptOf = (model: ReadModel.Status | undefined) => {
  if (model === undefined) return {}
  const { failure, lag, mode, position, rebuilt, status, trouble } = model
  const problem = failure?.problem ?? trouble
  return {
    status, mode, position, lag,
    ...(rebuilt === undefined ? {} : { rebuiltPosition: rebuilt }),
    ...(failure === undefined ? {} : { failedPosition: failure.position }),
    ...(problem === undefined ? {} : { problem })
  }
}

const handlers = Group.toLayer(Effect.gen(function*() {
  const models = yield* ReadModel.ReadModels
  const projections = yield* Projection.Projections
  const { pageBytes, pageItems } = yield* Limits
  return {
    *"projection:list"() {
      const kept = new Map((yield* models.status).map((status) => [status.name, status]))
      const served = new Set(projections.names())
      return {
        items: [...new Set([...kept.keys(), ...served])].toSorted().map((name) => ({
          projection: name, timeTravel: served.has(name), ...keptOf(kept.get(name))
        }))
      }
    },
    *"projection:get"(payload: Event.Payload<typeof Get>) {
      const { cursor, next, query: { key, prefix, projection } } = yield* Paging.open(Get, payload, 0)
      if (key !== undefined) {
        const entry = yield* models.get(projection, key)
        return Paging.page(entry === undefined ? [] : [entry], undefined)
      }
      const limit = Math.min(payload.limit ?? pageItems, pageItems)
      const fits = Paging.makeBudget(pageBytes)
      const items: Array<unknown> = []
      let after = typeof next === "string" ? next : undefined
      for (const entry of yield* models.list(projection, { prefix, after, limit })) {
        if (!fits(entry)) return Paging.page(items, cursor(after ?? ""))
        items.push(entry)
        after = entry.key
      }
      return Paging.page(items, items.length < limit ? undefined : cursor(after ?? ""))
    },
    *"projection:rebuild"({ projection }: Event.Payload<typeof Rebuild>) {
      yield* models.rebuild(projection)
      return { projection, status: "rebuilding" as const }
    }
  }
}))

/** Serves `projection:*`. */
export const layer: Layer.Layer<never, KsiError.KsiError, Router.Router | ReadModel.ReadModels | Projection.Projections> = Router.serveBuiltin(Group).pipe(
  Layer.provide(handlers)
)
