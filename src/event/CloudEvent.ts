/**
 * CloudEvents 1.0 in the JSON format: how facts come in and go out, without loss. The text of `time`, the extension
 * attributes, an absent `subject` and the digits of large numbers are kept.
 *
 * The identity of an event is (`source`, `id`). Its stream is its `subject`, else its `source`.
 *
 * **Example**
 *
 * ```ts
 * const fact = Result.getOrThrow(CloudEvent.decode({ specversion: "1.0", id: "1", source: "/a", type: "order:placed" }))
 * fact.streamId                    // "/a"
 * CloudEvent.encode(fact)          // { specversion: "1.0", id: "1", source: "/a", type: "order:placed" }
 * ```
 *
 * **Gotchas** The extensions `position` and `version` are KSI's own: `encode` adds them to a stored fact, `decode`
 * drops the pair when both are positive integers, so that an export can be imported again. A foreign event that has
 * one of these attributes itself keeps it, and is exported without KSI's.
 *
 * Source: CloudEvents 1.0.2, and its JSON format.
 */
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as EventName from "./EventName.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import * as Limits from "./Limits.ts"

/** A fact as it is appended: what happened, to which stream, and who says so. */
export interface NewFact {
  /** Unique within `source`. */
  readonly id: string
  readonly source: string
  /** The event's name; the `type` of a CloudEvent. */
  readonly name: string
  readonly streamId: string
  /** A JSON value; `undefined` where the event has no data. */
  readonly data: unknown
  /** RFC 3339, verbatim; `undefined` where the event has none. */
  readonly time: string | undefined
  /** All other attributes, by their CloudEvents names; `subject: null` says that the event had none. */
  readonly attributes: JsonObject
}

/** A fact with its place in the store. */
export interface StoredFact extends NewFact {
  /** Place in the order of everything, from 1, gapless. */
  readonly position: number
  /** Place in its stream, from 1, gapless. */
  readonly version: number
  /** When it happened: its `time` in milliseconds since 1970, else `recordedAt`. */
  readonly timestamp: number
  /** When it was committed, in milliseconds since 1970; never decreases with position. */
  readonly recordedAt: number
}

/**
 * The extension attribute that says which version of its event's data a fact has; one without it has version 1. An event says
 * its version in its definition (`Event.fact`), and those of version 1 write none.
 */
export const versionAttribute = "dataversion"

const own = new Set(["specversion", "id", "source", "type", "subject", "time", "data"])
// The attributes that CloudEvents or its JSON format name with other than lower-case letters and digits.
const attributeName = /^([a-z0-9]+|data_base64)$/
// RFC 3339: date, time, optional fraction, mandatory offset.
const rfc3339 =
  /^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])[Tt](?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/

const daysIn = (year: number, month: number): number =>
  month === 2 ? (year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28) : month < 8 === (month % 2 === 1) ? 31 : 30

const readTime = (text: string): number | undefined => {
  if (!rfc3339.test(text)) return undefined
  // Date.parse rolls the 31st of February over.
  const day = Number(text.slice(8, 10))
  if (day > 28 && day > daysIn(Number(text.slice(0, 4)), Number(text.slice(5, 7)))) return undefined
  const leap = text.startsWith("60", 17)
  const millis = Date.parse(leap ? `${text.slice(0, 17)}59${text.slice(19)}` : text)
  return Number.isNaN(millis) ? undefined : leap ? millis + 1000 : millis
}

const makeParseTime = () => {
  // Several facts of one turn have the same time: reading it is the dearest part of an append.
  let last: string | undefined
  let millis: number | undefined
  return (text: string): number | undefined => {
    if (text !== last) {
      millis = readTime(text)
      last = text
    }
    return millis
  }
}

/** Milliseconds since 1970 of an RFC 3339 text; `undefined` if it is none. A leap second counts as the next second. */
export const parseTime: (text: string) => number | undefined = makeParseTime()

const isPositiveInteger = (u: unknown): boolean => Number.isSafeInteger(u) && Number(u) > 0

/** What is wrong with an attribute that must be a text; `undefined` where nothing is. */
const problemOf = (value: unknown, key: string, max: number): string | undefined => {
  if (value === undefined) return `"${key}" is missing`
  if (!Predicate.isString(value) || value.length === 0) return `"${key}" must be a non-empty text`
  return value.length > max ? `"${key}" has ${value.length} characters, at most ${max} are allowed` : undefined
}

/** What is wrong with an attribute of the event's own making; `undefined` where nothing is. */
const extensionProblem = (key: string, value: unknown): string | undefined => {
  if (!attributeName.test(key)) return `the attribute "${key}" must be lower-case letters and digits`
  return typeof value === "object" && value !== null && !Json.isRaw(value)
    ? `the attribute "${key}" must be a text, a number or a boolean`
    : undefined
}

/** What is wrong with attributes that are given beside an event's own fields, in one sentence; `undefined` where nothing is. */
export const attributeProblem = (attributes: JsonObject): string | undefined => {
  for (const [key, value] of Object.entries(attributes)) {
    if (own.has(key)) return `"${key}" is not an extension attribute`
    const problem = value === null ? undefined : extensionProblem(key, value)
    if (problem !== undefined) return problem
  }
  return undefined
}

const attributesOf = (input: JsonObject): Result.Result<JsonObject, string> => {
  const exported = isPositiveInteger(input["position"]) && isPositiveInteger(input["version"])
  const attributes: Record<string, unknown> = {}
  if (input["subject"] === undefined || input["subject"] === null) attributes["subject"] = null
  for (const key of Object.keys(input)) {
    if (own.has(key) || (exported && (key === "position" || key === "version"))) continue
    const value = input[key]
    if (value === null) continue
    const problem = extensionProblem(key, value)
    if (problem !== undefined) return Result.fail(problem)
    attributes[key] = value
  }
  return Result.succeed(attributes)
}

/** Reads a CloudEvent; the failure is one sentence that names the attribute. */
export const decode = (input: unknown, maxLength = Limits.defaults.idLength): Result.Result<NewFact, string> => {
  if (!Json.isObject(input)) return Result.fail("an event must be a JSON object")
  const { data, id, source, specversion, type } = input
  const subject = input["subject"] ?? undefined
  const time = input["time"] ?? undefined
  if (specversion !== "1.0") return Result.fail("\"specversion\" must be \"1.0\"")
  const problem = problemOf(id, "id", maxLength) ?? problemOf(source, "source", maxLength) ??
    problemOf(type, "type", EventName.maxForeignLength) ??
    (subject === undefined ? undefined : problemOf(subject, "subject", maxLength))
  if (problem !== undefined) return Result.fail(problem)
  if (time !== undefined && (!Predicate.isString(time) || parseTime(time) === undefined)) {
    const found = Predicate.isString(time) ? JSON.stringify(time.slice(0, 60)) : "no text"
    return Result.fail(`"time" must be an RFC 3339 text such as "2018-03-15T12:00:00Z", found ${found}`)
  }
  if (data !== undefined && input["data_base64"] !== undefined) {
    return Result.fail("\"data\" and \"data_base64\" exclude each other")
  }
  // All four are texts: they have no problem.
  const fact = { id, source, name: type, streamId: subject ?? source } as { [K in "id" | "source" | "name" | "streamId"]: string }
  return Result.map(attributesOf(input), (attributes) => ({ ...fact, data, time, attributes }))
}

/** The CloudEvent of a fact; of a stored one with the extensions `position` and `version`. */
export const encode = (fact: NewFact | StoredFact): JsonObject => {
  const event: Record<string, unknown> = { specversion: "1.0", id: fact.id, source: fact.source, type: fact.name }
  if (fact.attributes["subject"] !== null) event["subject"] = fact.streamId
  if (fact.time !== undefined) event["time"] = fact.time
  for (const key of Object.keys(fact.attributes)) if (key !== "subject") event[key] = fact.attributes[key]
  if (fact.data !== undefined) event["data"] = fact.data
  // All or nothing: half of the pair would come back as an attribute of the event's own, or take one away.
  if ("position" in fact && event["position"] === undefined && event["version"] === undefined) {
    event["position"] = fact.position
    event["version"] = fact.version
  }
  return event
}

/** Whether two facts of one identity say the same; the order of keys does not matter. */
export const sameContent = (a: NewFact, b: NewFact): boolean =>
  a.name === b.name && a.streamId === b.streamId && a.time === b.time && Json.equal(a.data, b.data) &&
  Json.equal(a.attributes, b.attributes)
