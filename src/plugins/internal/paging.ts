// Long answers in pages. The first page fixes the position that all pages answer for; the cursor carries that position,
// the place to go on at, and the query, so that a page needs no memory in the runtime and survives its restart.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Json from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import { Ordinal } from "./fields.ts"

/** Where a page starts. */
export interface Place {
  /** What all pages answer for. */
  readonly position: number
  /** A position or a version to start at, or a text to start after; `undefined` on the first page. */
  readonly next: number | string | undefined
}

/** What the pages of one query have in common. */
export interface Paged<Q> extends Place {
  readonly query: Q
  /** The cursor of the page that starts at `next`. */
  readonly cursor: (next: number | string) => string
}

interface Request {
  readonly cursor?: string
  readonly limit?: number
}

const Cursor = Schema.Struct({
  event: Schema.String,
  position: Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)),
  next: Schema.Union([Ordinal, Schema.String]),
  query: Schema.Record(Schema.String, Schema.Json)
})

const decodeCursor = Schema.decodeUnknownExit(Cursor)

const parse = (text: string): typeof Cursor.Type | undefined => {
  const json = Json.parseResult(Buffer.from(text, "base64url").toString("utf8"))
  if (json._tag === "Failure") return undefined
  const decoded = decodeCursor(json.success)
  return Exit.isSuccess(decoded) ? decoded.value : undefined
}

const invalid = (event: string, problem: string): Effect.Effect<never, KsiError.KsiError> =>
  KsiError.fail(KsiError.invalidAt(event, "cursor", problem))

/** The query without paging and without what was not given. */
const queryOf = (payload: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(payload).filter(([key, value]) =>
    key !== "cursor" && key !== "limit" && value !== undefined))

/**
 * Opens a page: the first where the payload has no cursor, else the one that the cursor says. A cursor that was not made
 * by this event, for this query and this store is `PayloadInvalid` at `cursor`.
 */
export const open = Effect.fnUntraced(function*<P extends Request>(
  event: { readonly name: string; readonly payload: Schema.Codec<P, unknown> },
  payload: P,
  head: number
): Effect.fn.Return<Paged<P>, KsiError.KsiError> {
  const cursorOf = (position: number, query: object) => (next: number | string) =>
    Buffer.from(JSON.stringify({ event: event.name, position, next, query })).toString("base64url")
  const given = queryOf(payload)
  if (payload.cursor === undefined) {
    return { position: head, next: undefined, query: payload, cursor: cursorOf(head, given) }
  }
  const mark = parse(payload.cursor)
  if (mark === undefined) return yield* invalid(event.name, "is not a cursor; leave it out to start again")
  if (mark.event !== event.name) {
    return yield* invalid(event.name, `belongs to ${mark.event}`)
  }
  if (mark.position > head) {
    return yield* invalid(event.name, `belongs to another store: this one ends at position ${head}`)
  }
  const other = Object.keys(given).find((key) => !Json.equal(given[key], mark.query[key]))
  if (other !== undefined) return yield* invalid(event.name, `belongs to a query with another "${other}"`)
  const query = Schema.decodeUnknownExit(event.payload)(mark.query)
  if (Exit.isFailure(query)) return yield* invalid(event.name, "is not a cursor; leave it out to start again")
  return { position: mark.position, next: mark.next, query: query.value, cursor: cursorOf(mark.position, mark.query) }
})

/** Bytes of a page that its frame, context and cursor may take. */
const frame = 4096

/**
 * Says whether one more item fits into a page of `pageBytes`. The first always fits: an item is never split, and a page
 * that carries nothing would never end.
 */
export const makeBudget = (pageBytes: number): ((item: unknown) => boolean) => {
  let left = pageBytes - Math.min(frame, pageBytes / 4)
  let first = true
  return (item) => {
    left -= Buffer.byteLength(JSON.stringify(item)) + 1
    const fits = first || left >= 0
    first = false
    return fits
  }
}

/** A page as it is answered. */
export const page = (
  items: ReadonlyArray<unknown>,
  cursor: string | undefined
): { readonly items: ReadonlyArray<unknown>; readonly cursor?: string } =>
  Predicate.isUndefined(cursor) ? { items } : { items, cursor }
