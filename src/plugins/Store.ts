/** Draft: the event definitions; handlers follow. */
import * as Schema from "effect/Schema"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import { Count, Opaque, optional, Ordinal, Page, paging } from "./internal/fields.ts"

/** Takes facts in, as CloudEvents. */
export const Import = Event.make("store:import", {
  payload: {
    events: Schema.Array(Opaque).annotate({ description: "CloudEvents 1.0 in the JSON format, at most 1000" })
  },
  success: Schema.Struct({
    imported: Count.annotate({ description: "facts that are new" }),
    duplicates: Count.annotate({ description: "facts that were stored before with the same content" }),
    rejected: Schema.Array(Schema.Struct({
      index: Count.annotate({ description: "place in `events`, from 0" }),
      reason: Schema.String,
      message: Schema.String
    })),
    position: Count.annotate({ description: "the last position of the store" })
  }),
  idempotent: true,
  annotations: {
    description: "Stores CloudEvents as facts. No handler runs; subscribers hear them. Whatever is wrong with one event " +
      "is told in `rejected`, and the others are stored.",
    examples: [{ events: [{ specversion: "1.0", id: "1", source: "/shop", type: "order:placed", subject: "order-1", data: { total: 5 } }] }]
  }
})

/** Gives facts out, as CloudEvents. */
export const Export = Event.make("store:export", {
  payload: {
    stream: optional(Schema.String, "only facts of this stream"),
    from: optional(Ordinal, "first position"),
    to: optional(Ordinal, "last position"),
    all: optional(Schema.Boolean, "also KSI's own streams (`ksi-…`)"),
    ...paging
  },
  success: Page,
  idempotent: true,
  annotations: {
    description: "Facts in the order of their positions, as CloudEvents with the extensions `position` and `version`; " +
      "what `store:import` takes.",
    examples: [{}, { from: 1, to: 1000, limit: 100 }, { stream: "order-1" }]
  }
})

/** The log of one stream. */
export const Read = Event.make("store:read", {
  payload: {
    stream: Schema.String.annotate({ description: "the stream's id" }),
    from: optional(Ordinal, "first version"),
    to: optional(Ordinal, "last version"),
    backward: optional(Schema.Boolean, "newest first"),
    ...paging
  },
  success: Page,
  idempotent: true,
  annotations: {
    description: "The facts of one stream in the order of their versions, as CloudEvents with `position` and `version`.",
    examples: [{ stream: "order-1" }, { stream: "order-1", backward: true, limit: 10 }]
  }
})

/** The streams there are. */
export const Streams = Event.make("store:streams", {
  payload: {
    prefix: optional(Schema.String, "only streams whose id starts like this"),
    all: optional(Schema.Boolean, "also KSI's own streams (`ksi-…`)"),
    ...paging
  },
  success: Page,
  idempotent: true,
  annotations: {
    description: "Streams by id, each `{ streamId, version }`, as of the position of the first page.",
    examples: [{}, { prefix: "order-", limit: 100 }]
  }
})

/** The events of `store:*`. */
export const Group = EventGroup.make(Import, Export, Read, Streams)
