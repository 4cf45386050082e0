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
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import * as JIT from "effect/schema/SchemaJITCompiler"
import * as SchemaIssue from "effect/SchemaIssue"
import type * as Event from "./Event.ts"
import * as KsiError from "./KsiError.ts"

/** Compiled readers and writers of one event. */
export interface EventCodec {
  /** JSON to payload. */
  readonly decodePayload: (input: unknown) => Exit.Exit<unknown, KsiError.KsiError>
  /** A program's value to payload: applies constructor defaults, checks the type side. */
  readonly makePayload: (input: unknown) => Exit.Exit<unknown, KsiError.KsiError>
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

const show = (value: unknown): string => {
  if (value === undefined) return "nothing"
  const text = typeof value === "bigint" ? `${value}n` : JSON.stringify(value) ?? String(value)
  return text.length > 60 ? `${text.slice(0, 57)}...` : text
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

/** What is wrong with a value, one line a problem: `quantity`, `expected number, got "two"`. */
export const problemsOf = (issue: SchemaIssue.Issue, input: unknown): ReadonlyArray<KsiError.Problem> =>
  formatIssue(issue).issues.map(({ message, path }) => {
    const keys = (path ?? []).map((part) => typeof part === "object" ? part.key : part)
    const found = at(input, keys)
    const missing = message.startsWith("Missing key")
    return {
      path: keys.map(String).join("."),
      problem: missing ? "is missing" : `${lowerFirst(message)}, got ${show(found)}`
    }
  })

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

// Events have no schema services (Event.ts), which the wide type `Schema.Top` cannot say.
type Plain = Schema.Codec<unknown, unknown>
const jsonCodec = (schema: Schema.Top): Plain => Schema.toCodecJson(schema) as unknown as Plain

/** Whether every value is its own JSON form. */
const isIdentity = (codec: Plain): boolean => SchemaAST.toEncoded(codec.ast) === codec.ast

const encoder = (codec: Plain): (value: unknown) => unknown =>
  isIdentity(codec) ? (value) => value : Schema.encodeUnknownSync(codec)

type Invalid = (problems: ReadonlyArray<KsiError.Problem>) => KsiError.Reason

const decoder = (codec: Plain, invalid: Invalid) => {
  const decode = Schema.decodeUnknownExit(codec)
  return (input: unknown): Exit.Exit<unknown, KsiError.KsiError> => {
    const exit = decode(input)
    if (Exit.isSuccess(exit)) return exit as Exit.Exit<unknown> // a success has no error to widen
    const issue = issueOf(decode(input, all)) ?? issueOf(exit)
    // Without an issue the schema itself threw: a defect of the definition, kept as it is.
    return issue === undefined ? exit as Exit.Exit<never, never> : KsiError.exit(invalid(problemsOf(issue, input)))
  }
}

const maker = (schema: Schema.Top, codec: Plain, decode: EventCodec["decodePayload"], invalid: Invalid) => {
  const identity = isIdentity(codec)
  return (input: unknown): Exit.Exit<unknown, KsiError.KsiError> => {
    if (identity) {
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

/** Compiles an event's schemas. */
export const compile = (event: Event.Any): EventCodec => {
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
    makePayload: maker(event.payload, payload, decodePayload, payloadInvalid),
    encodePayload: encoder(payload),
    isSuccess: Schema.is(success),
    successProblems: (reply) => {
      const issue = issueOf(checkSuccess(reply, all))
      return issue === undefined ? [] : problemsOf(issue, reply)
    },
    // Nothing is nothing, not `null`.
    encodeSuccess: event.kind === "request" && SchemaAST.isVoid(event.success.ast) ? () => undefined : encoder(success),
    isError: Schema.is(error),
    encodeError: encoder(error)
  }
}
