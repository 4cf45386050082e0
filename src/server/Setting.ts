/**
 * One setting: what it is called in each place, which values it takes, and what it is when nobody says.
 *
 * The rule: one name gives all the others. `storeFile` is `--store-file` as a flag, `KSI_STORE_FILE` in the environment
 * and `store_file` in `ksi.toml`; the limit `depth` is `--limit-depth`, `KSI_LIMIT_DEPTH`, and `depth` in the table
 * `[limits]`. A value that cannot be read says what is expected in its place.
 *
 * **Example**
 *
 * ```ts
 * const drain = Setting.make({
 *   name: "drain", kind: Setting.duration(0, 3_600_000), default: 20_000, description: "How long requests may still run"
 * })
 * drain.variable                              // "KSI_DRAIN"
 * drain.kind.read("1.5 minutes")              // 90000
 * drain.kind.show(90_000)                     // "90 seconds"
 * drain.kind.read("soon")                     // undefined
 * ```
 *
 * A secret is a setting of two names: `otlpHeaders` is the secret itself, and `otlpHeadersFile` the path of a file that holds
 * it (`KSI_OTLP_HEADERS_FILE`, as containers are given secrets). Whichever is given nearer counts. Its value is `Redacted`
 * from here on: nobody is shown it, also not where it cannot be read.
 *
 * **Gotchas** A number without a unit is bytes for a size and milliseconds for a limit whose name ends with `millis`; a
 * `duration` must say its unit, but for 0.
 */
import * as ByteSize from "effect/ByteSize"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"

/** Which values a setting takes. */
export interface Kind<A> {
  /** The end of the sentence "it must be …". */
  readonly expects: string
  /** A text of a flag or variable, or a value of the file; `undefined` where it is none of these values. */
  readonly read: (given: unknown) => A | undefined
  /** As people write it; `read` takes it back. */
  readonly show: (value: A) => string
  /** For help: what stands for the value. */
  readonly metavar: string
  /** Whether nobody may be shown what was given. */
  readonly isSecret?: true
}

/** One setting. */
export interface Setting<A> {
  readonly name: string
  readonly kind: Kind<A>
  readonly default: A
  /** The default in words; from other settings where it follows from them. */
  readonly otherwise: string
  readonly description: string
  /** Its flag of `ksi start`, without the dashes. */
  readonly flag: string
  readonly variable: string
  /** Its table in the file; none for the settings at the top. */
  readonly table: string | undefined
  /** Its key in the file, within its table. */
  readonly key: string
  /** A variable that others have agreed on, for who says nothing to KSI itself. */
  readonly fallback: string | undefined
  /** The setting that is read from the file of this path. */
  readonly fileOf: string | undefined
}

const words = (name: string): ReadonlyArray<string> => name.split(/(?=[A-Z])/).map((word) => word.toLowerCase())

/** Declares a setting; the limits live in a table of their own. */
export const make = <A>(options: {
  readonly name: string
  readonly kind: Kind<A>
  readonly default: NoInfer<A>
  readonly description: string
  readonly otherwise?: string
  readonly limit?: boolean
  readonly fallback?: string
  readonly fileOf?: string
}): Setting<A> => {
  const { fallback, fileOf, limit = false, otherwise = options.kind.show(options.default), ...setting } = options
  const own = words(setting.name)
  const all = limit ? ["limit", ...own] : own
  return {
    ...setting,
    otherwise,
    flag: all.join("-"),
    variable: `KSI_${all.join("_").toUpperCase()}`,
    table: limit ? "limits" : undefined,
    key: own.join("_"),
    fallback,
    fileOf
  }
}

/** Where it stands in the file: `store_file`, `limits.depth`. */
export const place = ({ key, table }: Setting<never>): string => table === undefined ? key : `${table}.${key}`

// -------------------------------------------------------------------------------------------------------------- kinds

/** One of some words, in capitals or not. */
export const choice = <const A extends string>(...values: ReadonlyArray<A>): Kind<A> => ({
  expects: `one of ${values.join(", ")}`,
  read: (given) => typeof given === "string" ? values.find((value) => value === given.toLowerCase()) : undefined,
  show: (value) => value,
  metavar: values.join("|")
})

/** The path of a file or directory; a relative one is relative to the working directory. */
export const path = (metavar: string): Kind<string> => ({
  expects: "a path",
  read: (given) => typeof given === "string" && given !== "" && !given.includes("\0") ? given : undefined,
  show: (value) => value,
  metavar
})

/** As `path`; where nobody gives it, it follows from another setting. */
export const derivedPath = (metavar: string): Kind<string | undefined> => ({ ...path(metavar), show: (value) => value ?? "" })

// A line that a terminal shows as it is.
const plainText = /^[^\p{Cc}\s](?:[^\p{Cc}]{0,253}[^\p{Cc}\s])?$/u

/** A name: one line. */
export const text = (metavar: string): Kind<string> => ({
  expects: "one line of 1 to 255 characters",
  read: (given) => typeof given === "string" && plainText.test(given) ? given : undefined,
  show: (value) => value,
  metavar
})

const urlOf = (given: string): string | undefined => {
  const url = URL.canParse(given) ? new URL(given) : undefined
  const isPlain = url !== undefined && url.username === "" && url.password === "" && url.search === "" && url.hash === ""
  return isPlain && (url.protocol === "http:" || url.protocol === "https:") ? given.replace(/\/+$/, "") : undefined
}

/** Where something is sent over HTTP, or `off`. What a URL says of who asks is no place for a secret: it is shown. */
export const endpoint: Kind<string> = {
  expects: "an http or https URL without user, query or fragment, or off",
  read: (given) => typeof given !== "string" ? undefined : given.toLowerCase() === "off" ? "off" : urlOf(given),
  show: (value) => value,
  metavar: "URL"
}

// Names of HTTP headers and of OpenTelemetry's attributes, and what follows them percent-encoded.
const pairFormat = /^\s*([\w.!#$&'*+^`|~-]+)\s*=\s*([^,;"\\]*?)\s*$/

const decoded = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

/** The pairs of a text `name=value,name=value`, as OpenTelemetry writes headers and attributes; `undefined` for another text. */
export const pairsOf = (text: string): Readonly<Record<string, string>> | undefined => {
  const pairs: Array<readonly [name: string, value: string]> = []
  for (const part of text.split(",").filter((part) => part.trim() !== "")) {
    const [, name, encoded] = pairFormat.exec(part) ?? []
    const value = encoded === undefined ? undefined : decoded(encoded)
    if (name === undefined || value === undefined || /\p{Cc}/u.test(value)) return undefined
    pairs.push([name, value])
  }
  return Object.fromEntries(pairs)
}

/** Pairs in one text; `none` for no pair. */
export const pairs: Kind<string> = {
  expects: "pairs as \"name=value,other=value\", values percent-encoded, or none",
  read: (given) => typeof given !== "string" || given === "" ? undefined : given === "none" ? "" : pairsOf(given) && given,
  show: (value) => value === "" ? "none" : value,
  metavar: "PAIRS"
}

/** Pairs that can be headers of HTTP: their names are tokens, their values have no character beyond ISO 8859-1. */
export const headers: Kind<string> = {
  ...pairs,
  expects: `${pairs.expects}; each can be a header of HTTP`,
  read: (given) => {
    const text = pairs.read(given)
    const isHeader = ([name, value]: readonly [string, string]) => /^[!#$%&'*+.^`|~\w-]+$/.test(name) && /^[\t\x20-\xff]*$/.test(value)
    return text !== undefined && Object.entries(pairsOf(text) ?? {}).every(isHeader) ? text : undefined
  }
}

/** A secret of another kind. */
export const secret = (kind: Kind<string>): Kind<Redacted.Redacted<string> | undefined> => ({
  ...kind,
  read: (given) => {
    const value = kind.read(typeof given === "string" ? given.trim() : given)
    return value === undefined ? undefined : Redacted.make(value, { label: "secret" })
  },
  show: (value) => value === undefined ? "none" : "(secret)",
  isSecret: true
})

/** As `path`; where nobody gives it, there is none. */
export const optionalPath = (metavar: string): Kind<string | undefined> => ({ ...path(metavar), show: (value) => value ?? "none" })

const grouped = (n: number): string => String(n).replace(/\B(?=(\d{3})+$)/g, ",")

const within = (value: number | undefined, min: number, max: number): number | undefined =>
  value !== undefined && Number.isSafeInteger(value) && value >= min && value <= max ? value : undefined

/** A number as the file has it, or its digits; `_` may group them. */
const numberOf = (given: unknown): number | undefined => {
  if (typeof given === "number") return given
  return typeof given === "string" && /^\d+(?:_\d+)*$/.test(given) ? Number(given.replaceAll("_", "")) : undefined
}

/** How many, from `min` to `max`. */
export const count = (min: number, max: number): Kind<number> => ({
  expects: `a whole number from ${grouped(min)} to ${grouped(max)}`,
  read: (given) => within(numberOf(given), min, max),
  show: String,
  metavar: "N"
})

/** A share: from nothing, 0, to everything, 1. */
export const share: Kind<number> = {
  expects: "a number from 0 to 1, as 0.1",
  read: (given) => {
    const value = typeof given === "number" ? given : typeof given === "string" && /^\d(?:\.\d{1,9})?$/.test(given) ? Number(given) : NaN
    return value >= 0 && value <= 1 ? value : undefined
  },
  show: String,
  metavar: "SHARE"
}

const sizes = [["GiB", 1024 ** 3], ["MiB", 1024 ** 2], ["KiB", 1024]] as const

/** A size in words, exactly: `4 MiB`. */
export const sizeText = (bytes: number): string => {
  const unit = bytes === 0 ? undefined : sizes.find(([, factor]) => bytes % factor === 0)
  return unit === undefined ? `${bytes} bytes` : `${bytes / unit[1]} ${unit[0]}`
}

const bytesOf = (given: unknown): number | undefined => {
  if (typeof given !== "string") return numberOf(given)
  return numberOf(given) ?? Option.getOrUndefined(Option.map(ByteSize.fromString(given), Number))
}

/** A size from `min` to `max` bytes, in words or as a number of bytes. */
export const bytes = (min: number, max: number): Kind<number> => ({
  expects: `a size from ${sizeText(min)} to ${sizeText(max)}, as "4 MiB" or 4194304`,
  read: (given) => within(bytesOf(given), min, max),
  show: sizeText,
  metavar: "SIZE"
})

const times = [["day", 86_400_000], ["hour", 3_600_000], ["minute", 60_000], ["second", 1000], ["millisecond", 1]] as const

const factors: ReadonlyMap<string, number> = new Map([
  ["ms", 1], ["milli", 1], ["millis", 1], ["s", 1000], ["sec", 1000], ["min", 60_000], ["h", 3_600_000], ["d", 86_400_000],
  ...times.flatMap(([unit, factor]) => [[unit, factor], [`${unit}s`, factor]] as const)
])

/** A duration in words, exactly: `90 seconds`. */
export const durationText = (millis: number): string => {
  const [unit, factor] = times.find(([, size]) => millis % size === 0 && (millis !== 0 || size === 1000)) ?? ["millisecond", 1]
  return `${millis / factor} ${unit}${millis === factor ? "" : "s"}`
}

const millisOf = (given: unknown): number | undefined => {
  const [, number, unit = ""] = typeof given === "string" ? /^\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*$/i.exec(given) ?? [] : []
  const factor = factors.get(unit.toLowerCase())
  return number === undefined || factor === undefined ? undefined : Number((Number(number) * factor).toFixed(6))
}

/** A duration from `min` to `max` milliseconds, in words. Its value is in milliseconds. */
export const duration = (min: number, max: number): Kind<number> => ({
  expects: `a duration from ${durationText(min)} to ${durationText(max)}, as "20 seconds"`,
  read: (given) => within(millisOf(given) ?? (numberOf(given) === 0 ? 0 : undefined), min, max),
  show: durationText,
  metavar: "DURATION"
})

/** As `duration`; a number without a unit is milliseconds, as the setting's name says. */
export const millis = (min: number, max: number): Kind<number> => ({
  ...duration(min, max),
  expects: `a duration from ${durationText(min)} to ${durationText(max)}, as "30 seconds", or milliseconds`,
  read: (given) => within(millisOf(given) ?? numberOf(given), min, max)
})

/** No port at all. */
export const off = "off"

/** A TCP port; 0 is any free one, `off` none. */
export const port: Kind<number | typeof off> = {
  expects: "a port from 0 to 65,535, or off",
  read: (given) => typeof given === "string" && given.toLowerCase() === off ? off : within(numberOf(given), 0, 65_535),
  show: String,
  metavar: "PORT"
}

/** A name or an address to listen on. */
export const host: Kind<string> = {
  expects: "a host name or an IP address",
  read: (given) => typeof given === "string" && /^(?:[a-zA-Z\d._-]+|\[?[\da-fA-F:.]+\]?)$/.test(given) ? given : undefined,
  show: (value) => value,
  metavar: "HOST"
}

/** Where to listen on TCP. */
export interface TcpPlace {
  readonly host: string
  readonly port: number
}

/** The place that a text says: a port of the loopback address, or a host and a port; `undefined` where it is none. */
export const tcpPlaceOf = (text: string): TcpPlace | undefined => {
  const [, given, digits = ""] = /^(?:(.+):)?(\d{1,5})$/.exec(text) ?? []
  const name = given === undefined ? "127.0.0.1" : host.read(given)
  const number = digits === "" ? undefined : within(Number(digits), 0, 65_535)
  // An address of IPv6 has colons itself: it stands in brackets.
  const isPlain = name !== undefined && (!name.includes(":") || name.startsWith("["))
  return !isPlain || number === undefined ? undefined : { host: name, port: number }
}

/** Where to listen on TCP, or `off`. */
export const tcp: Kind<string> = {
  expects: "a port from 0 to 65,535, a host and a port as 10.0.0.1:4601, or off",
  read: (given) => {
    const text = typeof given === "number" ? String(given) : given
    if (typeof text !== "string") return undefined
    if (text.toLowerCase() === off) return off
    const place = tcpPlaceOf(text)
    return place && `${place.host}:${place.port}`
  },
  show: (value) => value,
  metavar: "[HOST:]PORT"
}

/** Several of something: a list in the file, elsewhere a text with commas. `what` is one of them. */
export const list = (what: string, isItem: (text: string) => boolean): Kind<ReadonlyArray<string>> => ({
  expects: `one ${what} or several, with commas between them`,
  read: (given) => {
    const items: ReadonlyArray<unknown> = typeof given === "string" ? given.split(",").map((item) => item.trim()).filter((item) => item !== "")
      : Array.isArray(given) ? given : [undefined]
    return items.every((item): item is string => typeof item === "string" && isItem(item)) ? items : undefined
  },
  show: (items) => items.join(", "),
  metavar: `${what.toUpperCase()},…`
})
