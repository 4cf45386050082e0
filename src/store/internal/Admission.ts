// What may go into a store: facts whose labels are within their limits, whose time is one and whose data is JSON; in streams that
// are not KSI's own; under expectations that can be asked. Whether those hold is asked when it is stored (`Expectations`).
import * as Result from "effect/Result"
import type { Append, Saying } from "../../bus/Journal.ts"
import { type NewFact, parseTime } from "../../event/CloudEvent.ts"
import * as EventName from "../../event/EventName.ts"
import * as FactQuery from "../../event/FactQuery.ts"
import * as Json from "../../event/Json.ts"
import type { JsonObject } from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import type * as Limits from "../../event/Limits.ts"
import * as Tags from "../../event/Tags.ts"

/** Bytes left of `budget` after the JSON of `value`, at its longest; negative where only writing it can tell. */
const spend = (value: unknown, budget: number, depth: number): number => {
  if (typeof value === "string") return budget - 6 * value.length - 2
  if (typeof value === "number") return Number.isFinite(value) ? budget - 25 : -1
  if (typeof value === "boolean" || value === null) return budget - 5
  if (typeof value !== "object" || depth === 0) return -1
  let left = budget - 2
  if (Array.isArray(value)) {
    for (const item of value) if ((left = spend(item, left - 1, depth - 1)) < 0) return -1
    return left
  }
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return -1
  for (const key of Object.keys(value)) {
    left = spend(Reflect.get(value, key), left - 6 * key.length - 4, depth - 1)
    if (left < 0) return -1
  }
  return left
}

const overLimit = (limit: keyof Limits.LimitsShape, max: number, actual: number): KsiError.Reason =>
  new KsiError.LimitExceeded({ limit, max, actual, retryable: false })

// A recursion that surely finds room on the stack.
const walkDepth = 64

/** Whether a value surely is JSON within the limits, without writing it. */
export const fits = (value: unknown, { frameBytes, jsonDepth }: Limits.LimitsShape): boolean =>
  spend(value, frameBytes, Math.min(walkDepth, jsonDepth)) >= 0

/** The same as a JSON value: itself where it is one that surely fits, else what its JSON text says. */
const toJson = (
  fact: NewFact,
  part: "data" | "attributes",
  limits: Limits.LimitsShape
): Result.Result<unknown, KsiError.Reason> => {
  const value = fact[part]
  if (fits(value, limits)) return Result.succeed(value)
  const { frameBytes: max, jsonDepth } = limits
  const text = Result.try({
    try: (): string | undefined => JSON.stringify(value),
    // The sentence on a cycle draws it in further lines.
    catch: (cause) => cause instanceof RangeError && cause.message.includes("call stack")
      ? undefined
      : KsiError.sentenceOf(cause).split("\n")[0] ?? ""
  })
  const deep = new KsiError.LimitExceeded({ limit: "jsonDepth", max: jsonDepth, retryable: false })
  if (Result.isFailure(text) && text.failure === undefined) return Result.fail(deep)
  if (Result.isFailure(text)) return Result.fail(KsiError.invalidAt(fact.name, part, `cannot be written as JSON: ${text.failure}`))
  if (text.success === undefined) return Result.fail(KsiError.invalidAt(fact.name, part, `a ${typeof value} is not JSON`))
  const bytes = Buffer.byteLength(text.success)
  if (bytes > max) return Result.fail(overLimit("frameBytes", max, bytes))
  return Json.isDeeper(text.success, jsonDepth) ? Result.fail(deep) : Result.succeed(Json.parse(text.success))
}

/** What is wrong with an id or a name; `undefined` where nothing is. Not every program has a compiler behind it. */
export const labelProblem = (text: unknown, max: number): string | undefined => {
  if (typeof text !== "string") return "must be a text"
  if (text.length === 0) return "must not be empty"
  if (text.length > max) return `has ${text.length} characters, at most ${max} are allowed`
  return text.isWellFormed() ? undefined : "must be well-formed Unicode"
}

const labels = ["streamId", "id", "source", "name"] as const

/** The fact as a driver may take it: labels within their limits, a real time, data that is JSON and not too long. */
export const admit = (
  fact: NewFact,
  limits: Limits.LimitsShape
): Result.Result<NewFact, KsiError.Reason> => {
  for (const label of labels) {
    const problem = labelProblem(fact[label], label === "name" ? EventName.maxForeignLength : limits.idLength)
    if (problem !== undefined) return Result.fail(KsiError.invalidAt(fact.name, label, problem))
  }
  const time: unknown = fact.time
  if (time !== undefined && (typeof time !== "string" || parseTime(time) === undefined)) {
    const found = typeof time === "string" ? JSON.stringify(time.slice(0, 60)) : "no text"
    return Result.fail(KsiError.invalidAt(fact.name, "time", `expected an RFC 3339 text, got ${found}`))
  }
  const tags: unknown = fact.attributes[Tags.attribute]
  const tagProblem = tags === undefined ? undefined : Tags.problem(tags, limits.factTags, limits.idLength)
  if (tagProblem !== undefined) return Result.fail(KsiError.invalidAt(fact.name, "tags", tagProblem))
  const data = fact.data === undefined ? Result.succeed(undefined) : toJson(fact, "data", limits)
  if (Result.isFailure(data)) return Result.fail(data.failure)
  const attributes = toJson(fact, "attributes", limits)
  if (Result.isFailure(attributes)) return Result.fail(attributes.failure)
  return data.success === fact.data && attributes.success === fact.attributes
    ? Result.succeed(fact)
    // JSON of an object is an object.
    : Result.succeed({ ...fact, data: data.success, attributes: attributes.success as JsonObject })
}

/** Whether a stream belongs to KSI: its id starts with `ksi-`. Users may read such a stream, never append to it. */
export const ownStream = (streamId: string): boolean => streamId.startsWith("ksi-")

/** A fact of this name may not go into a stream of KSI's. */
export const notOwn = (name: string): KsiError.Reason =>
  KsiError.invalidAt(name, "streamId", "streams named \"ksi-…\" belong to KSI; choose another id")

/** What is left to ask of a fact that the bus has made: its name is an event's, its attributes are ids and a number. */
export const sayingOver = (below: Saying, limits: Limits.LimitsShape): Saying => ({
  frameBytes: limits.frameBytes,
  jsonDepth: limits.jsonDepth,
  say: below.say,
  takes: (said) =>
    labelProblem(said.streamId, limits.idLength) === undefined && !ownStream(said.streamId) &&
    said.id.length <= limits.idLength && (said.cause === undefined || said.cause.correlationId.length <= limits.idLength) &&
    below.takes(said)
})

/** Whether it is a version, or 0. */
export const isWhole = (value: unknown): boolean => Number.isSafeInteger(value) && Number(value) >= 0

const expectsSomething = ({ condition, expectedVersion, expectedVersions }: Append): boolean =>
  expectedVersion !== undefined || expectedVersions !== undefined || condition !== undefined

/** What is wrong with what an append expects; `undefined` where nothing is. */
const expectationProblem = (request: Append, head: number, { idLength, queryTerms: max }: Limits.LimitsShape): KsiError.Reason | undefined => {
  const { condition, expectedVersion, expectedVersions, facts: [first] } = request
  const wrong = (path: string, problem: string) => KsiError.invalidAt(first?.name ?? "append", path, problem)
  if (expectedVersion !== undefined && !isWhole(expectedVersion)) return wrong("expectedVersion", "must be a whole number from 0 on")
  if (expectedVersions !== undefined) {
    if (!Array.isArray(expectedVersions)) return wrong("expectedVersions", "must be a list")
    if (expectedVersions.length > max) return overLimit("queryTerms", max, expectedVersions.length)
    for (const [at, expected] of expectedVersions.entries()) {
      const path = `expectedVersions.${at}`
      const problem = labelProblem(expected?.streamId, idLength)
      if (problem !== undefined) return wrong(`${path}.streamId`, problem)
      if (!isWhole(expected.version)) return wrong(`${path}.version`, "must be a whole number from 0 on")
    }
  }
  if (condition === undefined) return undefined
  const { after = 0, query } = condition
  if (!isWhole(Number(after))) return wrong("condition.after", "must be a position, or 0")
  // Facts that come before it would never be looked at.
  if (Number(after) > head) return wrong("condition.after", `is behind the last position, ${head}`)
  // Not every program has a compiler behind it: what is no query must not become one of everything.
  const compiled = FactQuery.compile({ query: query ?? [] }, max)
  return Result.isFailure(compiled) ? compiled.failure : undefined
}

/** The append with every fact checked; the first thing wrong refuses all of it. */
export const admitAll = (request: Append, limits: Limits.LimitsShape, own: boolean, head: () => number): Result.Result<Append, KsiError.Reason> => {
  const unfit = expectsSomething(request) ? expectationProblem(request, head(), limits) : undefined
  if (unfit !== undefined) return Result.fail(unfit)
  if (request.facts.length > limits.appendEvents) {
    return Result.fail(overLimit("appendEvents", limits.appendEvents, request.facts.length))
  }
  let facts: Array<NewFact> | undefined
  for (const [at, fact] of request.facts.entries()) {
    const admitted = admit(fact, limits)
    if (Result.isFailure(admitted)) return Result.fail(admitted.failure)
    if (!own && ownStream(fact.streamId)) return Result.fail(notOwn(fact.name))
    if (admitted.success !== fact) (facts ??= [...request.facts])[at] = admitted.success
  }
  return Result.succeed(facts === undefined ? request : { ...request, facts })
}
