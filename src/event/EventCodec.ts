/**
 * How one event's payload, reply and error are read, checked and written; compiled once, when the event is registered.
 *
 * The rule: decode once, at the edge. Outside is JSON, inside are typed values. Where a schema has no transformation
 * (nearly all), its encoded form *is* its value and nothing is copied.
 *
 * **Example**
 *
 * ```ts
 * const codec = EventCodec.compile(Reserve)
 * codec.decodePayload({ sku: "tea", quantity: 1 })        // Exit.succeed({ sku: "tea", quantity: 1 })
 * codec.isSuccess({ hold: "h1" })                         // false
 * codec.successProblems({ hold: "h1" })                   // [{ path: "holdId", problem: "is missing" }]
 * ```
 *
 * **Gotchas** The JIT compiler is switched on for these schemas only, never globally, and falls back to interpretation
 * where `Function` is refused.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import * as JIT from "effect/schema/SchemaJITCompiler"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaParser from "effect/SchemaParser"
import type * as Event from "./Event.ts"
import { compileCopier, type Copier } from "./internal/copier.ts"
import { compilePattern, type Pattern } from "./internal/pattern.ts"
import * as Json from "./Json.ts"
import * as KsiError from "./KsiError.ts"

/** What is stored of a fact, and where; no position yet in an import. */
export interface StoredData {
  readonly id: string
  readonly position?: number | bigint | undefined
  readonly data: unknown
}

/** Compiled readers and writers of one event. */
export interface EventCodec {
  /** JSON to payload. */
  readonly decodePayload: (input: unknown) => Exit.Exit<unknown, KsiError.KsiError>
  /**
   * Stored data of any version (the attribute `dataversion`; none is 1) to payload: older data is brought to today's shape first.
   * `StoreFailure` where it is newer than the event, or cannot be brought there; `PayloadInvalid` where it is not what it should be.
   */
  readonly decodeFact: (fact: StoredData, version: unknown) => Exit.Exit<unknown, KsiError.KsiError>
  /** A program's value to payload: applies constructor defaults, checks the type side. */
  readonly makePayload: (input: unknown) => Exit.Exit<unknown, KsiError.KsiError>
  /**
   * `makePayload` without the `Exit`, where a payload is its own JSON: throws what it does not take at once. What it
   * throws says nothing; `makePayload` knows better.
   */
  readonly quickPayload: ((input: unknown) => unknown) | undefined
  /**
   * How the JSON texts of payloads look, where the schema says it; the groups are numbered from `first` on. What it reads of a
   * text is what `JSON.parse` reads, and is for `decodePayload` to look at.
   */
  readonly payloadPattern: (first: number) => Pattern | undefined
  /** Copies payloads of a fact that have just been made, where its schema says all that is in them. */
  readonly copier: Copier | undefined
  /** The payload of a stored fact, for one who reacts to it: frozen JSON is handed on, anything else is made anew. */
  readonly readFact: (stored: unknown) => unknown
  /** Payload to JSON. */
  readonly encodePayload: (payload: unknown) => unknown
  /** Whether a handler's reply (or item) is what the event promises. */
  readonly isSuccess: (reply: unknown) => boolean
  /** Why it is not. */
  readonly successProblems: (reply: unknown) => ReadonlyArray<KsiError.Problem>
  readonly encodeSuccess: (reply: unknown) => unknown
  /** Whether an error is one that the event declares. */
  readonly isError: (error: unknown) => boolean
  readonly encodeError: (error: unknown) => unknown
}

const formatIssue = SchemaIssue.makeFormatterStandardSchemaV1()

// What is wrong is told to people: a few problems, each in a line. An input that is large is looked at until the first.
const maxProblems = 20
const maxProblemLength = 500
const maxShown = 60
const maxLooked = 5000

const cut = (text: string, max: number): string => text.length > max ? `${text.slice(0, max - 3)}...` : text

/** The beginning of a value: enough of it to fill a line, whatever its size. */
const beginning = (value: unknown): unknown => {
  let left = maxShown
  return JSON.stringify(value, (_key, part: unknown) => {
    if (left-- <= 0) return null
    if (typeof part === "bigint") return `${part}n`
    if (typeof part === "string") return part.slice(0, maxShown)
    if (Array.isArray(part)) return part.slice(0, maxShown)
    if (!Json.isObject(part)) return part
    const keys = Object.keys(part)
    return keys.length <= maxShown ? part : Object.fromEntries(keys.slice(0, maxShown).map((key) => [key, part[key]]))
  })
}

const show = (value: unknown): string => {
  if (value === undefined) return "nothing"
  if (typeof value === "bigint") return `${value}n`
  return cut(String(Result.getOrElse(Result.try(() => beginning(value)), () => undefined) ?? typeof value), maxShown)
}

/** Whether there is so much in a value that telling all that is wrong with it would cost too much. */
const isLarge = (value: unknown): boolean => {
  const parts: Array<unknown> = [value]
  let looked = 0
  for (let part = parts.pop(); looked < maxLooked; part = parts.pop()) {
    looked++
    if (typeof part === "object" && part !== null) {
      const inner: ReadonlyArray<unknown> = Array.isArray(part) ? part : Object.values(part)
      if (inner.length > maxLooked) return true
      for (const item of inner) parts.push(item)
    }
    if (parts.length === 0) return false
  }
  return true
}

const at = (value: unknown, path: ReadonlyArray<unknown>): unknown => {
  let current = value
  for (const key of path) {
    if (current === null || typeof current !== "object") return undefined
    current = Reflect.get(current, key as PropertyKey) // the path of an issue holds keys only
  }
  return current
}

const lowerFirst = (text: string) => text.slice(0, 1).toLowerCase() + text.slice(1)

/** What is wrong with a value, one line a problem, at most 20: `quantity`, `expected number, got "two"`. */
export const problemsOf = (issue: SchemaIssue.Issue, input: unknown): ReadonlyArray<KsiError.Problem> => {
  const { issues } = formatIssue(issue)
  const problems = issues.slice(0, maxProblems).map(({ message, path }) => {
    const keys = (path ?? []).map((part) => typeof part === "object" ? part.key : part)
    const found = at(input, keys)
    const missing = message.startsWith("Missing key")
    return {
      path: cut(keys.map(String).join("."), maxProblemLength),
      problem: missing ? "is missing" : `${lowerFirst(cut(message, maxProblemLength))}, got ${show(found)}`
    }
  })
  const more = issues.length - problems.length
  return more > 0 ? [...problems, { path: "", problem: `${more} more problems` }] : problems
}

const all = { errors: "all" } as const

const issueOf = (exit: Exit.Exit<unknown, Schema.SchemaError>): SchemaIssue.Issue | undefined => {
  if (exit._tag === "Success") return undefined
  for (const reason of exit.cause.reasons) if (reason._tag === "Fail") return reason.error.issue
  return undefined
}

const enable = (ast: SchemaAST.AST): void => {
  JIT.enable(ast)
  JIT.enable(SchemaAST.toType(ast))
  JIT.enable(SchemaAST.flip(ast))
}

type Plain = Schema.Codec<unknown, unknown>

/** How values of a schema are written as JSON and read again; for the schemas of events and of their middleware. */
export const jsonCodec = (schema: Schema.Top): Plain =>
  Schema.toCodecJson(schema) as unknown as Plain // they have no services (Event.ts), which `Schema.Top` cannot say

/** Whether every value is its own JSON form. */
const isIdentity = (codec: Plain): boolean => SchemaAST.toEncoded(codec.ast) === codec.ast

/** Whether making a value may add to it: a default of a field, however deep. */
const hasDefaults = (ast: SchemaAST.AST, seen = new Set<SchemaAST.AST>()): boolean => {
  if (ast.context?.constructorDefault !== undefined) return true
  if (seen.has(ast)) return false
  seen.add(ast)
  const inner = (each: SchemaAST.AST) => hasDefaults(each, seen)
  if (SchemaAST.isObjects(ast)) return ast.propertySignatures.some(({ type }) => inner(type)) || ast.indexSignatures.some(({ type }) => inner(type))
  if (SchemaAST.isArrays(ast)) return ast.elements.some(inner) || ast.rest.some(inner)
  if (SchemaAST.isUnion(ast)) return ast.types.some(inner)
  return SchemaAST.isSuspend(ast) && inner(ast.thunk())
}

const encoder = (codec: Plain): (value: unknown) => unknown =>
  isIdentity(codec) ? (value) => value : Schema.encodeUnknownSync(codec)

type Invalid = (problems: ReadonlyArray<KsiError.Problem>) => KsiError.Reason

const decoder = (codec: Plain, invalid: Invalid) => {
  const decode = Schema.decodeUnknownExit(codec)
  const invalidExit = (input: unknown): Exit.Exit<unknown, KsiError.KsiError> => {
    const exit = decode(input)
    if (Exit.isSuccess(exit)) return exit as Exit.Exit<unknown> // a success has no error to widen
    const issue = (isLarge(input) ? undefined : issueOf(decode(input, all))) ?? issueOf(exit)
    // Without an issue the schema itself threw: a defect of the definition, kept as it is.
    return issue === undefined ? exit as Exit.Exit<never, never> : KsiError.exit(invalid(problemsOf(issue, input)))
  }
  // What has compiled is run without a detour; a third of a call is spent here.
  const quick = SchemaParser.decodeUnknownSync(codec)
  return (input: unknown): Exit.Exit<unknown, KsiError.KsiError> => {
    try {
      return Exit.succeed(quick(input))
    } catch {
      return invalidExit(input)
    }
  }
}

const maker = (schema: Schema.Top, codec: Plain, decode: EventCodec["decodePayload"], invalid: Invalid) => {
  const isPlain = isIdentity(codec) && !hasDefaults(schema.ast)
  return (input: unknown): Exit.Exit<unknown, KsiError.KsiError> => {
    if (isPlain) {
      const exit = decode(input)
      if (exit._tag === "Success") return exit
    }
    const made = Effect.runSyncExit(schema.makeEffect(input))
    // A success has no error to widen; below, a failure without a reason of its own is a defect.
    if (Exit.isSuccess(made)) return made as Exit.Exit<unknown>
    for (const reason of made.cause.reasons) {
      if (reason._tag === "Fail") return KsiError.exit(invalid(problemsOf(reason.error, input)))
    }
    return made as Exit.Exit<never, never> // no Fail is left: the schema itself threw
  }
}

/** A check that a value fails which throws when it is looked at. */
const guarded = (is: (value: unknown) => boolean) => (value: unknown): boolean => {
  try {
    return is(value)
  } catch {
    return false
  }
}

/** Reads stored data of this event's version and of all before it. */
const upcaster = (event: Event.Any, decode: EventCodec["decodePayload"]): EventCodec["decodeFact"] => {
  if (event.kind === "request") return ({ data }) => decode(data)
  const { name, upcast, version: newest } = event
  const failed = ({ id, position }: StoredData, problem: string) =>
    KsiError.exit(new KsiError.StoreFailure({
      operation: `read ${name}`,
      problem: `the fact "${id}"${position === undefined ? "" : ` at position ${position}`} ${problem}`
    }))
  return (fact, version = 1) => {
    if (version === newest) return decode(fact.data)
    if (typeof version !== "number" || !Number.isSafeInteger(version) || version < 1) {
      return failed(fact, `says that its data has the version ${show(version)}, which is none`)
    }
    if (version > newest) return failed(fact, `has data of version ${version}, and this program knows ${name} up to version ${newest}`)
    let { data } = fact
    for (let step = version; step < newest; step++) {
      try {
        data = upcast[step - 1]?.(data)
      } catch (cause) {
        return failed(fact, `cannot be brought from version ${step} to ${step + 1}: ${KsiError.sentenceOf(cause)}`)
      }
    }
    return decode(data)
  }
}

const compiled = new WeakMap<Event.Any, EventCodec>()

/** Compiles an event's schemas, once for each definition: runtimes that define the same event share what it has learned. */
export const compile = (event: Event.Any): EventCodec => {
  const known = compiled.get(event) ?? compileNew(event)
  compiled.set(event, known)
  return known
}

const compileNew = (event: Event.Any): EventCodec => {
  const payloadInvalid: Invalid = (problems) => new KsiError.PayloadInvalid({ event: event.name, problems })
  const payload = jsonCodec(event.payload)
  const success = jsonCodec(event.kind === "request" ? event.success : Schema.Void)
  const error = jsonCodec(event.kind === "request" ? event.error : Schema.Never)
  enable(payload.ast)
  enable(success.ast)
  const decodePayload = decoder(payload, payloadInvalid)
  const checkSuccess = Schema.decodeUnknownExit(Schema.toType(success))
  return {
    decodePayload,
    decodeFact: upcaster(event, decodePayload),
    makePayload: maker(event.payload, payload, decodePayload, payloadInvalid),
    quickPayload: isIdentity(payload) && !hasDefaults(event.payload.ast) ? SchemaParser.decodeUnknownSync(payload) : undefined,
    payloadPattern: (first) => compilePattern(SchemaAST.toEncoded(payload.ast), first),
    // What carries a version takes the long way.
    copier: event.kind === "fact" && event.version === 1 && isIdentity(payload) ? compileCopier(payload.ast) : undefined,
    readFact: isIdentity(payload) ? (stored) => stored : Schema.decodeUnknownSync(payload),
    encodePayload: encoder(payload),
    isSuccess: guarded(Schema.is(success)),
    successProblems: (reply) => {
      try {
        const issue = issueOf(checkSuccess(reply, isLarge(reply) ? undefined : all))
        return issue === undefined ? [] : problemsOf(issue, reply)
      } catch (cause) {
        return [{ path: "", problem: `it cannot be looked at: ${KsiError.sentenceOf(cause)}` }]
      }
    },
    // Nothing is nothing, not `null`.
    encodeSuccess: event.kind === "request" && SchemaAST.isVoid(event.success.ast) ? () => undefined : encoder(success),
    isError: guarded(Schema.is(error)),
    encodeError: encoder(error)
  }
}
