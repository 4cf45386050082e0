/** Draft: the event definition; the handler follows. */
import * as Schema from "effect/Schema"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import { optional, Page, paging } from "./internal/fields.ts"

/** The state of every stream, or of one, at a moment. */
export const At = Event.make("time:at", {
  payload: {
    at: Schema.Union([Schema.String, Schema.Int]).annotate({
      description: "a position, or an instant in RFC 3339"
    }),
    stream: optional(Schema.String, "only this stream"),
    projection: optional(Schema.String, "how facts become state; `latest` (the default) merges their data"),
    recorded: optional(Schema.Boolean, "go by the time a fact was stored, not by the time it happened"),
    all: optional(Schema.Boolean, "also KSI's own streams (`ksi-…`)"),
    ...paging
  },
  success: Page,
  idempotent: true,
  annotations: {
    description: "The state of streams at a moment, ordered by stream id: " +
      "`{ streamId, version, lastEvent, lastEventId, timestamp, state }`.",
    examples: [{ at: 100 }, { at: "2026-01-31T12:00:00Z", stream: "order-1" }]
  }
})

/** The events of `time:*`. */
export const Group = EventGroup.make(At)
