// The fields that several built-in events share, so that one word means one thing everywhere.
import * as Schema from "effect/Schema"

/**
 * A JSON value that passes through as it is: not copied, not looked at. `Schema.Unknown` would walk through every
 * value of a page twice to prove that it is JSON, which it is: it came out of the store.
 */
export const Opaque: Schema.Codec<unknown> = Schema.Any

/** A field that may be left out. */
export const optional = <S extends Schema.Top>(schema: S, description: string) =>
  Schema.optionalKey(schema).annotate({ description })

/** A field that may be left out or null, as the original's clients write "not given". */
export const nullable = <S extends Schema.Top>(schema: S, description: string) =>
  optional(Schema.NullOr(schema), description)

/** A position or version: from 1. */
export const Ordinal = Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))

/** A count or a size: from 0. */
export const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/** An integer from 1 to `max`. */
export const upTo = (max: number) => Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: max }))

/** What every paged request takes. */
export const paging = {
  limit: optional(upTo(10_000), "items of this page; the page may be shorter, its bytes are bounded"),
  cursor: optional(Schema.String, "where to go on: the `cursor` of the page before")
}

/** What every paged request answers with. */
export const Page = Schema.Struct({
  items: Schema.Array(Opaque).annotate({ description: "the items of this page" }),
  cursor: optional(Schema.String, "present while there is more: send it to get the next page")
})

/** A page of items that are like this. Handlers make them of states that have any type, so that only running shows what they are. */
export const pageOf = (item: Schema.Codec<unknown>): typeof Page =>
  // Checked and written by the schema of the item; typed as what all pages have in common.
  Page.mapFields(({ cursor, items }) => ({ items: Schema.Array(item).annotate({ description: "the items of this page" }) as typeof items, cursor }))

// ------------------------------------------------------------------------------------------------- the words of answers

/** When it happened. */
export const Timestamp = Schema.String.annotate({ description: "when it happened: RFC 3339, of a fact its own words" })

/** The state of a stream, or of a key. */
export const State = Opaque.annotate({ description: "the state, as JSON" })

/** A JSON Patch. */
export const Patch = Schema.Array(Opaque).annotate({ description: "a JSON Patch (RFC 6902)" })

/** A fact among others: where it is, and what it is called. */
export const place = {
  streamId: Schema.String,
  position: Ordinal.annotate({ description: "its place among all facts" }),
  id: Schema.String,
  event: Schema.String.annotate({ description: "the event's name" }),
  version: Ordinal.annotate({ description: "its place in its stream" }),
  timestamp: Timestamp
}
