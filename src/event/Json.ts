/**
 * JSON that keeps what it was given. `JSON.parse` turns `12345678901234567890` into another number without a word;
 * data that only passes through KSI (an imported event, a page of an export) must come out as it went in.
 *
 * Numbers that a double cannot hold become `JSON.rawJSON` values, which `JSON.stringify` writes back digit for digit.
 * Texts without such a number (nearly all) take the plain, fast path.
 *
 * **Example**
 *
 * ```ts
 * JSON.stringify(Json.parse("{\"n\":12345678901234567890}"))     // "{\"n\":12345678901234567890}"
 * ```
 */
import * as Result from "effect/Result"
import { endOfString, hasEscapedKey, readText } from "./internal/reader.ts"
import * as KsiError from "./KsiError.ts"

/** A JSON object. */
export type JsonObject = { readonly [key: string]: unknown }

// Sixteen digits are the least that a double may not hold; an exponent of three digits is the least that can
// overflow one; zero has a sign that a double has too, but that is not written back. A hit inside a string only costs
// the careful path.
const manyDigits = /\d[\d.]{15}/
const largeExponent = /\d[eE][+-]?\d{3,}\s*(?:[,}\]]|$)/
const negativeZero = /-0(?:\.0*)?(?:[eE][+-]?\d+)?\s*(?:[,}\]]|$)/

const dot = 0x2e
const zero = 0x30
const nine = 0x39

const isDigit = (text: string, at: number): boolean => {
  const code = text.charCodeAt(at)
  return code <= nine && (code >= zero || code === dot)
}

/** Whether sixteen digits and dots stand in a row: they cover two of every eighth character. An id may do so with fewer. */
const mayHaveManyDigits = (text: string): boolean => {
  let before = false
  for (let i = 7; i < text.length; i += 8) {
    const isOne = isDigit(text, i)
    if (isOne && before) {
      let first = i
      let end = i + 1
      while (isDigit(text, first - 1)) first--
      while (isDigit(text, end)) end++
      if (end - first >= 16) return true
    }
    before = isOne
  }
  return false
}

interface RawJson {
  readonly rawJSON: string
}

// Node 24 has both; the type library of this TypeScript does not yet list them.
const native = JSON as unknown as {
  readonly rawJSON: (text: string) => RawJson
  readonly isRawJSON: (u: unknown) => u is RawJson
  readonly parse: (text: string, reviver: (key: string, value: unknown, context: { source?: string }) => unknown) => unknown
}

/** Beyond so many characters two exponents are the same only when they are written the same way. */
const exponentLength = 1000

const withoutZeros = (digits: string): string => {
  let end = digits.length
  // No pattern: one that looks for zeros at the end begins anew at each zero on the way.
  while (end > 0 && digits.charCodeAt(end - 1) === 0x30) end--
  return digits.slice(0, end)
}

/** The decimal digits and exponent of a number's text, so that `1.50` and `15e-1` compare equal. */
const canonical = (text: string): string => {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text)
  if (match === null) return text
  const fraction = match[3] ?? ""
  const digits = ((match[2] ?? "") + fraction).replace(/^0+/, "")
  const significant = withoutZeros(digits)
  const sign = match[1] ?? ""
  if (significant === "") return `${sign}0`
  const written = match[4] ?? "0"
  const shift = digits.length - significant.length - fraction.length
  const exponent = written.length > exponentLength ? `${written}+${shift}` : BigInt(written) + BigInt(shift)
  return `${sign}${significant}e${exponent}`
}

const numberOf = (text: string): unknown => {
  const value = Number(text)
  return canonical(text) === canonical(Object.is(value, -0) ? "0" : String(value)) ? value : native.rawJSON(text)
}

const keep = (_key: string, value: unknown, context: { source?: string }): unknown =>
  typeof value === "number" && context.source !== undefined ? numberOf(context.source) : value

/** Whether the text may hold a number that a double cannot: then `parse` reads it with care. */
export const isSuspicious = (text: string): boolean =>
  (mayHaveManyDigits(text) && manyDigits.test(text)) || largeExponent.test(text) || (text.includes("-0") && negativeZero.test(text))

/**
 * Parses; throws a `SyntaxError` as `JSON.parse` does. Numbers that a double cannot hold are kept as raw JSON, and keys
 * with escapes are what they say (`internal/reader.ts` tells why that needs saying).
 */
export const parse = (text: string): unknown =>
  hasEscapedKey(text) ? readText(text, numberOf) : isSuspicious(text) ? native.parse(text, keep) : JSON.parse(text)

/** As `parse`, for a text of which is known that a double holds all its numbers. */
export const parsePlain = (text: string): unknown => hasEscapedKey(text) ? readText(text, Number) : JSON.parse(text)

/**
 * Whether arrays and objects of a JSON text stand more than `max` deep within one another. What is deeper can be read,
 * but not be written, compared or walked through: each of these needs the stack. Linear in the text; of a text that is
 * not JSON it may say either.
 */
export const isDeeper = (text: string, max: number): boolean => {
  // Each level takes two characters.
  if (text.length <= 2 * max) return false
  let depth = 0
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === quote) {
      i = endOfString(text, i)
      if (i < 0) return false
    } else if (code === openArray || code === openObject) {
      if (++depth > max) return true
    } else if (code === closeArray || code === closeObject) depth--
  }
  return false
}

const quote = 0x22
const openArray = 0x5b
const closeArray = 0x5d
const openObject = 0x7b
const closeObject = 0x7d

// V8 copies shorter parts anyway.
const copiedLength = 12

/** The same text, which keeps no longer one alive that it may be a part of. */
export const detached = (text: string): string => text.length > copiedLength ? `${text} `.slice(0, -1) : text

/** Parses; the failure is the sentence of the parser. */
export const parseResult = (text: string): Result.Result<unknown, string> =>
  Result.try({ try: () => parse(text), catch: KsiError.sentenceOf })

/** Whether a value is a number kept as its text. */
export const isRaw = (u: unknown): u is RawJson => native.isRawJSON(u)

/** Whether a JSON value is an object: no array, and no number kept as its text. */
export const isObject = (u: unknown): u is JsonObject =>
  typeof u === "object" && u !== null && !Array.isArray(u) && !isRaw(u)

const notPlain = Symbol("not plain")

// A frozen object whose fields are read anew each time may say something else each time.
const hasGetter = (value: object): boolean =>
  Object.values(Object.getOwnPropertyDescriptors(value)).some(({ get }) => get !== undefined)

const freezeCopy = (value: unknown, depth: number): unknown => {
  if (typeof value === "string" || typeof value === "boolean" || value === null) return value
  // JSON knows no negative zero.
  if (typeof value === "number" && Number.isFinite(value)) return value + 0
  if (typeof value !== "object" || depth === 0) return notPlain
  if (Array.isArray(value)) {
    const items: Array<unknown> = []
    for (const item of value) {
      const copy = freezeCopy(item, depth - 1)
      if (copy === notPlain) return notPlain
      items.push(copy)
    }
    return Object.freeze(items)
  }
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype === null && isRaw(value)) return value
  if ((prototype !== Object.prototype && prototype !== null) || "toJSON" in value) return notPlain
  // Spreading keeps the shape; an own "__proto__" stays a key. What is frozen is looked through, and copied if need be.
  const given = value as { readonly [key: string]: unknown } // it is an object of its own keys
  let copy: Record<string, unknown> | undefined = Object.isFrozen(value) && !hasGetter(value) ? undefined : { ...value }
  for (const key of Object.keys(given)) {
    const item = (copy ?? given)[key]
    const inner = typeof item === "string" ? item : freezeCopy(item, depth - 1)
    if (inner === notPlain) return notPlain
    if (!Object.is(inner, item)) (copy ??= { ...value })[key] = inner
  }
  return copy === undefined ? value : Object.freeze(copy)
}

// A recursion that surely finds room on the stack.
const copyDepth = 64

/**
 * A copy of a JSON value that nobody can change: what its text would say when it is parsed again. Throws where the value
 * has no text, or too deep a one.
 */
export const frozen = (value: unknown): unknown => {
  const copy = freezeCopy(value, copyDepth)
  return copy === notPlain ? freeze(parse(JSON.stringify(value))) : copy
}

/** Freezes a JSON value with all that is in it. What is frozen already is taken to be so all through. */
export const freeze = (value: unknown): unknown => {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value
  for (const item of Object.values(value)) freeze(item)
  return Object.freeze(value)
}

/**
 * Whether two JSON values mean the same: the order of an object's keys does not matter, that of an array does.
 */
export const equal = (a: unknown, b: unknown): boolean => {
  if (a === b) return true
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false
  if (isRaw(a) || isRaw(b)) return isRaw(a) && isRaw(b) && canonical(a.rawJSON) === canonical(b.rawJSON)
  if (Array.isArray(a) || Array.isArray(b)) {
    if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false
    return a.every((item, i) => equal(item, b[i]))
  }
  const left = Object.entries(a)
  const right = new Map(Object.entries(b))
  return left.length === right.size && left.every(([key, value]) => right.has(key) && equal(value, right.get(key)))
}

const byKey = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => a < b ? -1 : a > b ? 1 : 0

/**
 * The text of a JSON value in its one canonical form: two values have the same text exactly where `equal` holds. Keys
 * are sorted; what has no JSON in an object is left out. Throws a `RangeError` where the value is nested too deeply.
 */
export const canonicalText = (value: unknown): string => {
  if (isRaw(value)) return canonical(value.rawJSON)
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null"
  if (Array.isArray(value)) return `[${value.map(canonicalText).join(",")}]`
  const fields = Object.entries(value).filter(([, item]) => item !== undefined).toSorted(byKey)
  return `{${fields.map(([key, item]) => `${JSON.stringify(key)}:${canonicalText(item)}`).join(",")}}`
}
