// One word means one thing in all answers about what is stored: whoever adds a field takes a word of this list, or says here what
// a new one means, and that no other one means it already.
import { expect, it } from "vitest"
import * as EventRegistry from "../../src/event/EventRegistry.ts"
import * as Json from "../../src/event/Json.ts"
import { events } from "./Builtins.ts"

const groups = /^(time|store|projection|consumer):/

/** What a word is, in JSON, and what it means. A state, and a value in it, is any JSON. */
const words: Readonly<Record<string, readonly [type: string, meaning: string]>> = {
  // A fact, and where it is.
  streamId: ["string", "its stream"],
  position: ["integer", "a place among all facts: its own, or that of the last one that counts"],
  version: ["integer", "a place in a stream: its own, or that of the last one that counts"],
  id: ["string", "its id; of a trace also that of a request"],
  event: ["string", "the event's name"],
  timestamp: ["string", "when it happened: RFC 3339, of a fact in its own words"],
  lastEvent: ["string", "`event` of the last fact"],
  lastEventId: ["string", "`id` of the last fact"],
  firstVersion: ["integer", "`version` of the first fact that is left"],
  rebuiltPosition: ["integer", "`position` that a new version of a read model is at"],
  failedPosition: ["integer", "`position` of the fact that cannot be folded"],
  parkedAt: ["string", "when it was set aside: RFC 3339"],
  // States, and what is different between two.
  state: ["any", "of a stream or a key"],
  before: ["any", "the state before a fact"],
  after: ["any", "the state after a fact"],
  a: ["any", "the state that the projection asked for as `a` has"],
  b: ["any", "the state that the projection asked for as `b` has"],
  real: ["object", "a stream as it was"],
  branch: ["object", "a stream as it would have been"],
  from: ["object", "a stream at the first moment"],
  to: ["object", "a stream at the second moment"],
  patch: ["array", "RFC 6902: from the one state to the other"],
  words: ["array", "the patch in words"],
  field: ["string", "the path to a value in a state"],
  value: ["any", "what is there"],
  divergence: ["object", "the fact after which two states are no longer the same"],
  misfits: ["array", "facts that do not fit a branch"],
  // A trace.
  kind: ["string", "what a node of a trace is, or an item among others"],
  parent: ["string", "`id` of the node above it"],
  depth: ["integer", "how far it is from its root"],
  offset: ["number", "milliseconds from the beginning of the trace"],
  duration: ["number", "milliseconds from its beginning to its end"],
  own: ["number", "milliseconds of those in which it waited for nothing that it had asked for"],
  outcome: ["string", "how a request ended"],
  principal: ["string", "who it was"],
  truncated: ["boolean", "whether something is left out"],
  text: ["string", "a test, in TypeScript"],
  // What is wrong.
  reason: ["string", "the tag of a failure"],
  error: ["string", "a failure in a sentence"],
  problem: ["string", "why something is not as it should be, or does not go on"],
  problems: ["array", "each a `problem`, and what mends it"],
  mend: ["string", "what helps"],
  check: ["string", "the name of a check"],
  checks: ["array", "each a `check`, and what it looked at"],
  wrong: ["integer", "how many are not as they should be"],
  // How many, of what.
  what: ["string", "what is counted, for people"],
  count: ["integer", "how many there are, or were"],
  imported: ["integer", "facts that are new"],
  duplicates: ["integer", "facts that were there already"],
  rejected: ["integer", "events that were not stored"],
  rejections: ["array", "each one of these, and why"],
  index: ["integer", "a place in the list that was sent, from 0"],
  removed: ["array", "what was removed, and how much"],
  bytes: ["integer", "the size of a file"],
  bytesBefore: ["integer", "`bytes` before it was made smaller"],
  bytesAfter: ["integer", "`bytes` after that"],
  bytesFree: ["integer", "`bytes` in it that are free"],
  file: ["string", "the path of a file"],
  format: ["integer", "the format of a store"],
  // Who follows the store.
  projection: ["string", "the name of a projection"],
  timeTravel: ["boolean", "whether `time:*` can be asked for it"],
  key: ["string", "what a state of a read model is kept for"],
  group: ["string", "the name of a consumer group"],
  status: ["string", "how it does"],
  mode: ["string", "how a read model is kept"],
  lag: ["integer", "positions that it is behind by"],
  pending: ["integer", "facts under way"],
  parked: ["integer", "facts that are set aside"],
  handled: ["integer", "facts that were set aside and no longer are"],
  discarded: ["integer", "facts that were given up"],
  attempts: ["integer", "how often it was tried"],
  attempt: ["integer", "which of these it is"],
  data: ["any", "what a fact says"],
  dataVersion: ["any", "which version of its event's data a fact has, as it says itself"],
  ticket: ["string", "what a fact that was handed over is reported with"],
  members: ["integer", "how many work for a group"],
  // Streams.
  isDeleted: ["boolean", "whether all that is left is a tombstone"],
  already: ["boolean", "whether it was so before"],
  settings: ["object", "what is kept of a stream"],
  maxAge: ["integer", "a setting: milliseconds"],
  maxCount: ["integer", "a setting: facts"],
  truncateBefore: ["integer", "a setting: a `version`"],
  metadata: ["object", "what is known of a fact besides its data; of a stream, as a setting, what its owner says of it"],
  // Pages.
  items: ["array", "what was asked for"],
  cursor: ["string", "where to go on"]
}

const typeOf = (schema: unknown): string => {
  if (!Json.isObject(schema)) return "any"
  const { anyOf, type } = schema
  if (Array.isArray(anyOf)) return [...new Set(anyOf.map(typeOf))].filter((each) => each !== "null").join(" or ")
  return typeof type === "string" ? type : "any"
}

/** Each field of a JSON Schema, however deep, with its type. */
const fieldsOf = (schema: unknown): ReadonlyArray<readonly [name: string, type: string]> => {
  if (Array.isArray(schema)) return schema.flatMap(fieldsOf)
  if (!Json.isObject(schema)) return []
  const { properties = {}, ...rest } = schema
  const own = Object.entries(Object(properties))
  return [...own.map(([name, field]) => [name, typeOf(field)] as const), ...own.flatMap(([, field]) => fieldsOf(field)), ...fieldsOf(Object.values(rest))]
}

const said = events.filter(({ name }) => groups.test(name)).flatMap((event) =>
  fieldsOf(EventRegistry.schemas(event).success).map(([name, type]) => ({ event: event.name, name, type })))

it("every field of time:*, store:*, projection:* and consumer:* is one of these words, and always the same", () => {
  const strange = said.filter(({ name, type }) => words[name]?.[0] !== type)
  expect(strange).toEqual([])
  expect(Object.keys(words).filter((word) => said.every(({ name }) => name !== word)), "words that nobody says").toEqual([])
  const meanings = Object.values(words).map(([, meaning]) => meaning)
  expect(meanings.filter((meaning, nth) => meanings.indexOf(meaning) !== nth), "two words for one thing").toEqual([])
})

it("a field that is added, also within a list or where it may be null, is seen", () => {
  const nested = { items: { anyOf: [{ type: "null" }, { type: "object", properties: { stream: { type: "string" }, at: { anyOf: [{ type: "integer" }, { type: "null" }] } } }] } }
  expect(fieldsOf({ type: "object", properties: { items: { type: "array", ...nested } } })).toEqual([["items", "array"], ["stream", "string"], ["at", "integer"]])
})
