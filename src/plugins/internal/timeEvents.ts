// The events of `time:*` beyond `time:at`: what they take, and what they answer with.
import * as Schema from "effect/Schema"
import * as Event from "../../event/Event.ts"
import { Count, Opaque, optional, Ordinal, pageOf, paging, Patch, place, State, Timestamp } from "./fields.ts"

/** A moment as it is asked for. */
export const Moment = Schema.Union([Schema.String, Schema.Int])

const moment = (description: string) =>
  Moment.annotate({ description: `${description}: a position, an instant in RFC 3339, a date, which is its midnight in UTC, \`now\` or \`start\`` })

const projection = optional(Schema.String, "how facts become state; `latest` (the default) merges their data")
const recorded = optional(Schema.Boolean, "go by the time a fact was stored, not by the time it happened")
const all = optional(Schema.Boolean, "also KSI's own streams (`ksi-…`)")
const stream = optional(Schema.String, "only this stream")
const bounds = {
  from: optional(Ordinal, "first position that may be found"),
  to: optional(Ordinal, "last position that may be found")
}
const words = Schema.Array(Schema.String).annotate({ description: "what the patch changes, in words" })
const fact = "{ streamId, position, id, event, version, timestamp"
const searching = "An empty page with a cursor means that it has looked at many facts and is not done."

const Side = Schema.NullOr(Schema.Struct({ version: Ordinal, lastEvent: Schema.String, timestamp: Timestamp }))

/** What is different between two moments. */
export const Diff = Event.make("time:diff", {
  payload: {
    from: moment("the first moment"),
    to: moment("the second moment; it may be the earlier one"),
    stream, projection, recorded, all, ...paging
  },
  success: pageOf(Schema.Struct({ streamId: Schema.String, from: Side, to: Side, patch: Patch, words })),
  idempotent: true,
  annotations: {
    description: "What is different between two moments: of one stream, or of each whose state differs, by stream id: " +
      "`{ streamId, from, to, patch, words }`, where `from` and `to` are `{ version, lastEvent, timestamp }`, or null where " +
      "it has no fact by then, `patch` is a JSON Patch (RFC 6902), and `words` says the same.",
    examples: [{ from: 40, to: 60, stream: "order-1" }, { from: "2026-01-01", to: "2026-02-01" }]
  }
})

/** The first fact after which something holds. */
export const Find = Event.make("time:find", {
  payload: {
    where: Schema.String.annotate({
      description: "a condition in CEL over `state` (of the fact's stream, after it), `event` (name, id, time, position, version) and `data`"
    }),
    monotone: optional(Schema.Boolean, "once it holds it goes on holding: found by bisecting; it may ask for `state` only"),
    stream,
    prefix: optional(Schema.String, "only streams whose id starts like this"),
    pattern: optional(Schema.String, "only facts of events of this pattern may be found"),
    projection, ...bounds, ...paging
  },
  success: pageOf(Schema.Struct({ ...place, before: State, after: State })),
  idempotent: true,
  annotations: {
    description: "The first fact after which a condition holds: no item, or one: " +
      `\`${fact}, before, after }\`. ${searching}`,
    examples: [{ where: "state.total > 100", stream: "order-1" }, { where: "data.total > 100", pattern: "order:placed", prefix: "order-" }]
  }
})

/** Which fact gave each field its value. */
export const Blame = Event.make("time:blame", {
  payload: {
    stream: Schema.String.annotate({ description: "the stream's id" }),
    field: optional(Schema.String, "this field and what is in it: `lines[1].sku`, or the JSON Pointer `/lines/1/sku`"),
    at: Schema.optionalKey(moment("default now")),
    projection, recorded, ...paging
  },
  success: pageOf(Schema.Struct({
    field: Schema.String.annotate({ description: "the path to it: `lines[1].sku`" }),
    position: Schema.NullOr(place.position),
    id: Schema.NullOr(place.id),
    event: Schema.NullOr(place.event),
    timestamp: Schema.NullOr(Timestamp),
    value: Opaque
  })),
  idempotent: true,
  annotations: {
    description: "For each field of a stream's state the fact that gave it its value: `{ field, position, id, event, timestamp, " +
      "value }`; those of the fact are null where the value is that of the projection's initial state.",
    examples: [{ stream: "order-1" }, { stream: "order-1", field: "total" }]
  }
})

const Target = Schema.Union([Ordinal, Schema.String])

/** One change of the history. */
export const Edit = Schema.Union([
  Schema.Struct({ drop: Target.annotate({ description: "position or id of a fact that did not happen" }) }),
  Schema.Struct({
    replace: Target.annotate({ description: "position or id of a fact that said something else" }),
    data: Schema.optionalKey(Opaque),
    name: optional(Schema.String, "another name of the fact"),
    time: optional(Schema.String, "another time, in RFC 3339")
  }),
  Schema.Struct({
    insert: Schema.Struct({
      name: Schema.String,
      data: Schema.optionalKey(Opaque),
      stream: optional(Schema.String, "default: the stream that the branch is of"),
      id: Schema.optionalKey(Schema.String),
      time: optional(Schema.String, "RFC 3339; default: that of the fact before it")
    }),
    after: Count.annotate({ description: "the position right after which it happened; 0 is before everything" })
  })
])

const imagined = {
  ...place,
  position: Count.annotate({ description: "its place among all facts; of an inserted one that of the fact before it" }),
  version: Count.annotate({ description: "its place in its stream; in the branch, of one that does not fit; 0 of an inserted one" })
}
const AfterIt = Schema.Struct({ state: State })

/** What would have been. */
export const Branch = Event.make("time:branch", {
  payload: {
    edits: Schema.Array(Edit).annotate({ description: "`{ drop }`, `{ replace, data }` or `{ insert, after }`; at most 1000" }),
    at: Schema.optionalKey(moment("as of when both are compared; default now")),
    stream, projection,
    with: optional(Schema.String, "the projection that reads the branch; default the same"),
    recorded, ...paging
  },
  success: pageOf(Schema.Struct({
    streamId: Schema.String,
    real: Schema.Struct({ version: Count, state: State }),
    branch: Schema.Struct({ version: Count, state: State }),
    patch: Patch, words,
    divergence: Schema.NullOr(Schema.Struct({ ...imagined, real: AfterIt, branch: AfterIt })),
    misfits: Schema.Array(Schema.Struct({ ...imagined, problem: Schema.String }))
  })),
  idempotent: true,
  annotations: {
    description: "The history with edits beside the real one; nothing is written. For each stream that they touch: " +
      "`{ streamId, real, branch, patch, words, divergence, misfits }`: both states with their versions, the JSON Patch from the " +
      "one to the other, the fact where they part with both states after it, and the facts that no longer fit.",
    examples: [{ edits: [{ drop: 41 }] }, { edits: [{ replace: 41, data: { total: 5 } }], stream: "order-1" }]
  }
})

/** Where two projections part. */
export const Compare = Event.make("time:compare", {
  payload: {
    a: Schema.String.annotate({ description: "name of a projection" }),
    b: Schema.String.annotate({ description: "name of another one" }),
    stream, ...bounds, ...paging
  },
  success: pageOf(Schema.Struct({ ...place, a: State, b: State, patch: Patch, words })),
  idempotent: true,
  annotations: {
    description: "The first fact after which two projections differ: no item, or one: " +
      `\`${fact}, a, b, patch, words }\`. ${searching}`,
    examples: [{ a: "latest", b: "totals" }, { a: "latest", b: "totals", stream: "order-1" }]
  }
})
