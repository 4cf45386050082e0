/**
 * Names of events and values as somebody would have written them in TypeScript: for scenarios that are told as text.
 *
 * The rule: what is written compiles, and is the value that it was; what has no such form is `undefined`, and never almost it.
 *
 * **Example**
 *
 * ```ts
 * SourceText.literal({ sku: "tea", at: new Date(0), "two words": [1, null] })
 * // => "{ sku: \"tea\", at: new Date(\"1970-01-01T00:00:00.000Z\"), \"two words\": [1, null] }"
 * SourceText.literal(new Map())                                              // => undefined
 * Object.fromEntries(SourceText.variables(["stock:reserve", "shop:buy", "till:buy"]))
 * // => { "stock:reserve": "Reserve", "shop:buy": "ShopBuy", "till:buy": "TillBuy" }
 * ```
 */
import * as Option from "effect/Option"

const capital = (text: string): string => text.slice(0, 1).toUpperCase() + text.slice(1)
// A projection may be called anything.
/** A name as a variable that begins with a capital. */
export const words = (name: string): string => name.split(/[^A-Za-z0-9]+/).map(capital).join("").replace(/^(?=\d|$)/, "_")

// What the text itself speaks of. All else in it that is capital is a name; a reserved word is none.
const spokenOf = ["Date", "Effect", "JSON", "KsiTest", "NaN", "Infinity", "Option", "Schema"]

/** What each of these names is called in the text: the last part, or all of it where that is taken, or with a number where that is too. */
export const variables = (names: ReadonlyArray<string>): ReadonlyMap<string, string> => {
  const short = (name: string) => words(name.split(":").at(-1) ?? name)
  const isShort = (name: string) => !spokenOf.includes(short(name)) && names.every((other) => other === name || short(other) !== short(name))
  // Who is called by its last part keeps that, whatever the whole of another is.
  const taken = new Set([...spokenOf, ...names.filter(isShort).map(short)])
  return new Map([...new Set(names)].map((name) => {
    if (isShort(name)) return [name, short(name)]
    let called = words(name)
    for (let nth = 2; taken.has(called); nth++) called = `${words(name)}${nth}`
    taken.add(called)
    return [name, called]
  }))
}

/** Whether a key needs no quotes. */
export const isIdentifier = (key: string): boolean => /^[A-Za-z_$][\w$]*$/.test(key)

/** A value as a programmer writes it; `undefined` where it is none that has such a form. `leaf` may write a text in its own way. */
export const literal = (value: unknown, leaf: (text: string) => string | undefined = () => undefined): string | undefined => {
  if (typeof value === "string") return leaf(value) ?? JSON.stringify(value)
  if (typeof value === "number") return Object.is(value, -0) ? "-0" : String(value)
  if (typeof value === "bigint") return `${value}n`
  if (value === null || value === undefined || typeof value === "boolean") return String(value)
  if (typeof value !== "object") return undefined
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "new Date(NaN)" : `new Date(${JSON.stringify(value.toISOString())})`
  if (Option.isOption(value)) {
    if (Option.isNone(value)) return "Option.none()"
    const inner = literal(value.value, leaf)
    return inner && `Option.some(${inner})`
  }
  const entries: Array<string> = []
  if (Array.isArray(value)) {
    for (const item of value) {
      const text = literal(item, leaf)
      if (text === undefined) return undefined
      entries.push(text)
    }
    return `[${entries.join(", ")}]`
  }
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return undefined
  for (const [key, field] of Object.entries(value)) {
    const text = literal(field, leaf)
    // It would be the prototype.
    if (text === undefined || key === "__proto__") return undefined
    entries.push(`${isIdentifier(key) ? key : JSON.stringify(key)}: ${text}`)
  }
  return entries.length === 0 ? "{}" : `{ ${entries.join(", ")} }`
}
