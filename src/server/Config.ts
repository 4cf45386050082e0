/**
 * Every setting of the daemon, declared once, and the value each has: from a flag, else its `KSI_*` variable, else
 * `ksi.toml` in the working directory, else (for what OpenTelemetry has a variable of its own) that one, else its default.
 *
 * The rule: each value has an origin, and each mistake is told, of whatever source, also where a nearer source says
 * otherwise. A key of the file that is no setting is a problem; a variable that is none is a warning, for others may have
 * set it. Of a variable that is not a setting only the name is told, never the value.
 *
 * **Example**
 *
 * ```ts
 * const file = yield* ConfigFile.parse("ksi.toml", "sync = \"normal\"\ndrain = \"1 minute\"\nstroe = \"memory\"")
 * const config = Config.resolve({ flags: { drain: "5 s" }, environment: { KSI_HOME: "/srv" }, file })
 * config.values.drain                         // 5000
 * config.values.socket                        // "/srv/run/daemon.sock"
 * config.settings.map(({ origin, text }) => `${text} (${origin})`).slice(9, 11)
 * // ["normal (ksi.toml:1)", "5 seconds (--drain)"]
 * config.problems.map(Config.sentence)
 * // ["ksi.toml:3: \"stroe\" is no setting"]
 * ```
 *
 * **Gotchas** `--home` says which daemon is meant: it sets a socket of the environment or the file aside.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Result from "effect/Result"
import { join } from "node:path"
import * as EventName from "../event/EventName.ts"
import { isObject } from "../event/Json.ts"
import * as Limits from "../event/Limits.ts"
import * as ConfigFile from "./ConfigFile.ts"
import * as HttpGuard from "./HttpGuard.ts"
import * as Setting from "./Setting.ts"

// ------------------------------------------------------------------------------------------------------- declarations

const day = 86_400_000
const MiB = 1024 * 1024

/** Every setting but the limits. */
export const settings = {
  home: Setting.make({
    name: "home", kind: Setting.path("DIR"), default: "var", description: "Directory of everything the daemon keeps"
  }),
  socket: Setting.make({
    name: "socket", kind: Setting.derivedPath("PATH"), default: undefined,
    otherwise: "<home>/run/daemon.sock", description: "The daemon's Unix socket"
  }),
  host: Setting.make({
    name: "host", kind: Setting.host, default: "127.0.0.1",
    description: "The address of HTTP; on one that is no loopback address everybody needs a token"
  }),
  port: Setting.make({
    name: "port", kind: Setting.port, default: 4600, description: "The port of HTTP; 0 takes a free one, off is no HTTP"
  }),
  hosts: Setting.make({
    name: "hosts", kind: Setting.list("name", HttpGuard.isHost), default: [],
    description: "More names by which HTTP may be asked, beside the loopback ones; with a port or for any"
  }),
  tcp: Setting.make({
    name: "tcp", kind: Setting.tcp, default: Setting.off,
    description: "The address of the plain socket over TCP, for programs elsewhere; everybody needs a token there"
  }),
  store: Setting.make({
    name: "store", kind: Setting.choice("sqlite", "memory"), default: "sqlite", description: "Where facts are kept"
  }),
  storeFile: Setting.make({
    name: "storeFile", kind: Setting.derivedPath("PATH"), default: undefined,
    otherwise: "<home>/ksi.db", description: "The database file"
  }),
  audit: Setting.make({
    name: "audit", kind: Setting.choice("all", "outline", "off"), default: "all",
    description: "What is kept of requests: all, all but payloads, nothing"
  }),
  sync: Setting.make({
    name: "sync", kind: Setting.choice("full", "normal"), default: "full",
    description: "When a fact counts as stored; normal may lose the last ones at a power cut"
  }),
  drain: Setting.make({
    name: "drain", kind: Setting.duration(0, 3_600_000), default: 20_000,
    description: "How long requests may still run when the daemon stops"
  }),
  retain: Setting.make({
    name: "retain", kind: Setting.duration(1000, day), default: 60_000,
    description: "How often facts go that their streams no longer keep"
  }),
  logLevel: Setting.make({
    name: "logLevel", kind: Setting.choice("debug", "info", "warn", "error", "none"), default: "info",
    description: "The least that is logged"
  }),
  otlp: Setting.make({
    name: "otlp", kind: Setting.endpoint, default: "off", fallback: "OTEL_EXPORTER_OTLP_ENDPOINT",
    description: "Collector that traces, metrics and logs go to, by OTLP over HTTP"
  }),
  otlpFormat: Setting.make({
    name: "otlpFormat", kind: Setting.choice("json", "protobuf"), default: "json",
    description: "How they are written; protobuf is for collectors that take nothing else: it costs several times as much"
  }),
  otlpHeaders: Setting.make({
    name: "otlpHeaders", kind: Setting.secret(Setting.headers), default: undefined, fallback: "OTEL_EXPORTER_OTLP_HEADERS",
    description: "Headers for the collector; a secret"
  }),
  otlpHeadersFile: Setting.make({
    name: "otlpHeadersFile", kind: Setting.optionalPath("FILE"), default: undefined, fileOf: "otlpHeaders",
    description: "A file that holds them instead"
  }),
  traceShare: Setting.make({
    name: "traceShare", kind: Setting.share, default: 1,
    description: "How many of the traces that begin here are recorded; of others whoever began them decides"
  }),
  serviceName: Setting.make({
    name: "serviceName", kind: Setting.text("NAME"), default: "ksi", fallback: "OTEL_SERVICE_NAME",
    description: "What the daemon is called in traces, metrics and logs"
  }),
  resourceAttributes: Setting.make({
    name: "resourceAttributes", kind: Setting.pairs, default: "", fallback: "OTEL_RESOURCE_ATTRIBUTES",
    description: "What else is said of it there, as deployment.environment.name=production"
  })
} as const

const limit = (name: keyof Limits.LimitsShape, kind: Setting.Kind<number>, description: string): Setting.Setting<number> =>
  Setting.make({ name, kind, default: Limits.defaults[name], description, limit: true })

const { bytes, count, millis } = Setting

/** Every limit of `Limits`; its unit is in its name. */
export const limits: { readonly [K in keyof Limits.LimitsShape]: Setting.Setting<number> } = {
  depth: limit("depth", count(1, 10_000), "Nested calls and emits below one request"),
  frameBytes: limit("frameBytes", bytes(4096, 256 * MiB), "One line of the socket, and one event's data"),
  jsonDepth: limit("jsonDepth", count(8, 2000), "Arrays and objects within one another"),
  pageBytes: limit("pageBytes", bytes(1024, 256 * MiB), "One page of a long answer"),
  pageItems: limit("pageItems", count(1, 100_000), "Items of one page where the caller does not say"),
  keptAnswerBytes: limit("keptAnswerBytes", bytes(0, 1024 * MiB), "Long answers of time:* that are kept between their pages"),
  appendEvents: limit("appendEvents", count(1, 100_000), "Events of one import call, and of one append"),
  factTags: limit("factTags", count(1, 1000), "Tags of one fact"),
  queryTerms: limit("queryTerms", count(1, 10_000), "Items, names, streams and tags of one query"),
  appendQueue: limit("appendQueue", count(1, 1_000_000), "Appends that wait for the writer as text already"),
  connectionRequests: limit("connectionRequests", count(1, 1_000_000), "Requests that one connection may have running"),
  connectionSubscriptions: limit("connectionSubscriptions", count(1, 1_000_000), "Subscriptions of one connection"),
  connectionStreams: limit("connectionStreams", count(1, 1_000_000), "Streams of one connection"),
  streamItems: limit("streamItems", count(1, 16_777_216), "Items of one stream that a client may hold, and have on their way"),
  streamBytes: limit("streamBytes", bytes(1024, 1024 * 1024 * 1024), "The same, in characters of their frames"),
  connections: limit("connections", count(1, 1_000_000), "Open connections of each way in: the socket, HTTP, TCP"),
  headerBytes: limit("headerBytes", bytes(1024, 1024 * 1024), "The line and the headers of one HTTP request"),
  headerMillis: limit("headerMillis", millis(100, day), "How long the head of an HTTP request may take to arrive"),
  bodyMillis: limit("bodyMillis", millis(100, day), "How long a whole HTTP request may take to arrive"),
  idleMillis: limit("idleMillis", millis(100, day), "How long an HTTP connection may be idle, and a WebSocket silent"),
  connectionBufferBytes: limit("connectionBufferBytes", bytes(4096, 1024 * MiB),
    "What may wait to be written to one connection before its subscriptions pause"),
  incomingBytes: limit("incomingBytes", bytes(4096, 64 * 1024 * MiB),
    "What long lines of all connections may hold, coming in or running; beyond it one is refused"),
  outgoingBytes: limit("outgoingBytes", bytes(4096, 64 * 1024 * MiB),
    "What may wait to be written to all connections; beyond it the one that reads least is closed"),
  subscriptionBuffer: limit("subscriptionBuffer", count(1, 1_000_000), "Live facts held for one subscriber"),
  subscriptionBlockMillis: limit("subscriptionBlockMillis", millis(1, day),
    "How long a subscriber that blocks may take nothing while publishers wait for it"),
  factHandlers: limit("factHandlers", count(1, 1_000_000), "Fact handlers running at once"),
  keyedHandlers: limit("keyedHandlers", count(1, 1_000_000), "Calls of one keyed handler that may wait for one key"),
  factHandlerMillis: limit("factHandlerMillis", millis(1, day), "How long one fact handler may run"),
  activityBuffer: limit("activityBuffer", count(1, 1_000_000),
    "Requests of the activity journal that wait for their write before callers are slowed"),
  activityRows: limit("activityRows", count(1, 1_000_000_000), "Requests that the activity journal keeps"),
  activityBytes: limit("activityBytes", bytes(4096, 1024 * 1024 * MiB), "Payloads and labels that the activity journal keeps"),
  deadLetters: limit("deadLetters", count(1, 10_000_000), "Failed reactions that are kept until a person deals with them"),
  idempotencyKeys: limit("idempotencyKeys", count(1, 100_000_000), "Answers that are kept under their idempotency key"),
  grants: limit("grants", count(1, 1_000_000), "Grants (and profiles given) of all principals together"),
  tokens: limit("tokens", count(1, 1_000_000), "Tokens that are neither revoked nor expired"),
  idLength: limit("idLength", count(64, 65_536), "Characters of a foreign id, source, stream id or event type")
}

/** Settings and limits, in the order in which they are shown. */
export const all: ReadonlyArray<Setting.Setting<never>> = [...Object.values(settings), ...Object.values(limits)]
  // Each is read, shown and kept with its own kind only.
  .map((setting) => setting as unknown as Setting.Setting<never>)

// Promised, and not there yet. Both spellings of a secret.
const later = ["DATABASE_URL", "DATABASE_URL_FILE", "NODE", "LISTEN", "JOIN", "FEDERATION_KEY_FILE"]

// Those of commands that talk to a daemon (cli/Remote.ts): they say who asks, and whom, and are none of its settings.
const ofClients: ReadonlySet<string> = new Set(["KSI_TOKEN", "KSI_TOKEN_FILE", "KSI_URL"])

// ------------------------------------------------------------------------------------------------------------- models

type ValueOf<S> = S extends Setting.Setting<infer A> ? A : never

/** The value of every setting; paths that follow from others are there, and a secret that a file holds. */
export type Values =
  & { readonly [K in Exclude<keyof typeof settings, "socket" | "storeFile">]: ValueOf<typeof settings[K]> }
  & { readonly socket: string; readonly storeFile: string }
  & { readonly limits: Limits.LimitsShape }

/** What each source says. */
export interface Sources {
  /** Texts by the flag's name without dashes. */
  readonly flags: Readonly<Record<string, string | undefined>>
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly file: ConfigFile.ConfigFile | undefined
  /** What the files of secrets hold, by their paths; one that is not here was not read yet. */
  readonly secrets?: ReadonlyMap<string, string>
}

/** Something that is wrong, or that has no effect. */
export interface Problem {
  /** `--sync`, `KSI_SYNC`, `ksi.toml:3`. */
  readonly where: string
  readonly problem: string
  /** What was probably meant. */
  readonly similar: ReadonlyArray<string>
  /** The setting that has no valid value by this; none where the file, or a name in it, is wrong. */
  readonly setting: string | undefined
  /** The file as a whole could not be read. */
  readonly unread?: true
}

/** A setting with its value. */
export interface Resolved {
  readonly setting: Setting.Setting<never>
  readonly value: unknown
  /** The value as people write it. */
  readonly text: string
  /** `--sync`, `KSI_SYNC`, `ksi.toml:3`, a variable of OpenTelemetry's, or `default`. */
  readonly origin: string
}

/** The settings in force. */
export interface Config {
  readonly values: Values
  /** As `all`. */
  readonly settings: ReadonlyArray<Resolved>
  /** With any of these a daemon does not start. */
  readonly problems: ReadonlyArray<Problem>
  readonly warnings: ReadonlyArray<Problem>
}

/** The problem in one sentence, without what was probably meant. */
export const sentence = ({ problem, where }: Problem): string =>
  problem.startsWith("must ") || problem.startsWith("is ") ? `${where} ${problem}` : `${where}: ${problem}`

// ------------------------------------------------------------------------------------------------------------ sources

/** What a source says of a setting. */
interface Given {
  readonly value: unknown
  readonly origin: string
  /** How the error calls it: a line of the file says also which key. */
  readonly subject: string
  /** The place of its source in their order, nearest first. */
  readonly rank: number
}

// The order of sources; what is a default comes last.
const ranks = { flag: 0, variable: 1, file: 2, fallback: 3, none: 4 } as const

// A URL may have a password in it, before its host or in its query.
const withoutSecrets = (text: string): string =>
  text.includes("://") ? text.replace(/:\/\/[^/@\s]*@/, "://…@").replace(/\?[^"\s]*/, "?…") : text

const shown = (value: unknown): string => {
  const text = withoutSecrets(JSON.stringify(value) ?? String(value))
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}

const entryOf = (file: ConfigFile.ConfigFile | undefined, { key, table }: Setting.Setting<never>) =>
  file?.entries.find(({ path }) => table === undefined
    ? path.length === 1 && path[0] === key
    : path.length === 2 && path[0] === table && path[1] === key)

// What Kubernetes sets for services whose name starts with "ksi".
const injected = /^KSI_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)$/
const isInjected = (name: string, value: string): boolean =>
  injected.test(name) || (name.endsWith("_PORT") && /^(?:tcp|udp|sctp):\/\//.test(value))

/** What is said of a setting, nearest first. */
const givenOf = (setting: Setting.Setting<never>, { environment, file, flags }: Sources): ReadonlyArray<Given> => {
  const flag = flags[setting.flag]
  const variable = isInjected(setting.variable, environment[setting.variable] ?? "") ? undefined : environment[setting.variable]
  const entry = entryOf(file, setting)
  const given: Array<Given> = []
  const add = (rank: keyof typeof ranks, value: unknown, origin: string, subject = "") => given.push({ value, origin, subject, rank: ranks[rank] })
  if (flag !== undefined) add("flag", flag, `--${setting.flag}`)
  // A variable that is set to nothing is not set.
  if (variable !== undefined && variable !== "") add("variable", variable, setting.variable)
  if (entry !== undefined) add("file", entry.value, `${file?.name}:${entry.line}`, Setting.place(setting))
  const shared = setting.fallback === undefined ? undefined : environment[setting.fallback]
  if (setting.fallback !== undefined && shared !== undefined && shared !== "") add("fallback", shared, setting.fallback)
  // --home says which daemon is meant.
  return setting.name === "socket" && flag === undefined && flags["home"] !== undefined ? [] : given
}

const invalid = ({ kind, name }: Setting.Setting<never>, { origin, subject, value }: Given): Problem => {
  const postgres = name === "store" && value === "postgres" ? " (postgres is not supported yet)" : ""
  const must = kind.isSecret === true ? `must be ${kind.expects}; what it is is not shown`
    : `must be ${kind.expects}, not ${shown(value)}${postgres}`
  return { where: origin, problem: subject === "" ? must : `${subject} ${must}`, similar: [], setting: name }
}

/** Keys of the file that are no settings, or not yet. */
const inFile = (file: ConfigFile.ConfigFile): { readonly problems: ReadonlyArray<Problem>; readonly warnings: ReadonlyArray<Problem> } => {
  const known = new Set(all.map(Setting.place))
  const tables = new Set(all.flatMap(({ table }) => table ?? []))
  const problems: Array<Problem> = []
  const warnings: Array<Problem> = []
  const unknown = new Set<string>()
  for (const { line, path, value } of file.entries) {
    const [top = "", key] = path
    const name = path.join(".")
    const where = `${file.name}:${line}`
    const add = (problem: string, similar: ReadonlyArray<string>) => problems.push({ where, problem, similar, setting: undefined })
    if (key === undefined && tables.has(top)) {
      if (!isObject(value)) add(`${top} must be a table, as [${top}]`, [])
    } else if (key === undefined && later.includes(top.toUpperCase())) {
      warnings.push({ where, problem: `${top} is not supported yet, it has no effect`, similar: [], setting: undefined })
      unknown.add(top)
    } else if (!known.has(name) && !unknown.has(top)) {
      // The name alone may stand elsewhere: a limit outside its table, or a setting in it.
      const moved = all.filter((setting) => setting.key === path.at(-1)).map(Setting.place)
      const nearest = EventName.nearest(name, [...known, ...tables], 1)
      add(`"${name}" is no setting`, moved.length > 0 ? moved : nearest)
      if (key === undefined) unknown.add(top)
    }
  }
  return { problems, warnings }
}

/** Variables that are no settings, or not yet. */
const inEnvironment = (environment: Sources["environment"]): ReadonlyArray<Problem> => {
  const variables = all.map(({ variable }) => variable)
  const warning = (where: string, problem: string, similar: ReadonlyArray<string> = []): Problem =>
    ({ where, problem, similar, setting: undefined })
  return Object.keys(environment).toSorted().flatMap((name) => {
    const value = environment[name]
    if (!name.startsWith("KSI_") || ofClients.has(name)) return []
    if (value === undefined || value === "") return []
    if (isInjected(name, value)) return [warning(name, "is ignored: Kubernetes sets it for a service of this name")]
    if (variables.includes(name)) return []
    if (later.includes(name.slice("KSI_".length))) return [warning(name, "is not supported yet, it has no effect")]
    return [warning(name, "is no setting, it has no effect", EventName.nearest(name, variables, 1))]
  })
}

// --------------------------------------------------------------------------------------------------------- resolution

/** The value of a setting, and where it was found. */
interface Found {
  readonly value: unknown
  readonly origin: string
  readonly rank: number
}

/** The value of every setting, and what is wrong. A value that cannot be read counts as not given. */
export const resolve = (sources: Sources): Config => {
  const { file } = sources
  const problems: Array<Problem> = []
  const warnings: Array<Problem> = []
  const found = new Map<string, Found>()
  const take = (setting: Setting.Setting<never>, given: ReadonlyArray<Given>, otherwise: Found) => {
    const read = given.flatMap((each): ReadonlyArray<Found> => {
      const value: unknown = setting.kind.read(each.value)
      if (value !== undefined) return [{ value, origin: each.origin, rank: each.rank }]
      // What all programs of a machine are told is not KSI's to refuse.
      if (each.rank === ranks.fallback) warnings.push({ ...invalid(setting, each), setting: undefined })
      else problems.push(invalid(setting, each))
      return []
    })
    found.set(setting.name, read[0] ?? otherwise)
  }
  for (const setting of all) take(setting, givenOf(setting, sources), { value: setting.default, origin: "default", rank: ranks.none })
  for (const { fileOf, name } of all) {
    const path = found.get(name)
    const setting = all.find((each) => each.name === fileOf)
    const held = found.get(fileOf ?? "")
    if (path === undefined || setting === undefined || held === undefined || path.rank >= held.rank) continue
    const value = sources.secrets?.get(String(path.value))
    if (value !== undefined) take(setting, [{ value, origin: path.origin, subject: "the file", rank: path.rank }], held)
  }
  const of = (name: string) => found.get(name)?.value
  const home = String(of("home"))
  for (const [name, derived] of [["socket", join(home, "run", "daemon.sock")], ["storeFile", join(home, "ksi.db")]] as const) {
    if (of(name) === undefined) found.set(name, { value: derived, origin: "default", rank: ranks.none })
  }
  const settled = all.map((setting): Resolved => {
    const { origin, value }: Pick<Found, "origin" | "value"> = found.get(setting.name) ?? { value: setting.default, origin: "default" }
    // The kind itself made the value, or it is the default.
    return { setting, value, origin, text: setting.kind.show(value as never) }
  })
  const named = (names: object) => Object.fromEntries(Object.keys(names).map((name) => [name, of(name)]))
  const unknown = file === undefined ? { problems: [], warnings: [] } : inFile(file)
  return {
    // By name, each value of its own kind, as declared above.
    values: { ...named(settings), limits: named(limits) } as unknown as Values,
    settings: settled,
    problems: [...problems, ...unknown.problems],
    warnings: [...inEnvironment(sources.environment), ...unknown.warnings, ...warnings]
  }
}

/** The file of settings. */
export const fileName = "ksi.toml"

// A secret is short; a longer file is something else.
const maxSecretCharacters = 64 * 1024

/** What the files of secrets hold, and which of them cannot be read. */
const readSecrets = Effect.fnUntraced(function*({ settings }: Config) {
  const fs = yield* FileSystem.FileSystem
  const secrets = new Map<string, string>()
  const problems: Array<Problem> = []
  for (const { origin, setting, value } of settings) {
    if (setting.fileOf === undefined || typeof value !== "string") continue
    const text = yield* Effect.result(fs.readFileString(value))
    const wrong = Result.isFailure(text) ? `${value} cannot be read: ${text.failure.reason._tag}`
      : text.success.length > maxSecretCharacters ? `${value} is too long for a secret` : undefined
    if (wrong === undefined && Result.isSuccess(text)) secrets.set(value, text.success)
    else problems.push({ where: origin, problem: wrong ?? "", similar: [], setting: setting.name })
  }
  return { secrets, problems }
})

/** As `resolve`, with the file of the working directory and those of secrets. One that cannot be read is one more problem. */
export const load = Effect.fnUntraced(function*(
  sources: Omit<Sources, "file">,
  name = fileName
): Effect.fn.Return<Config, never, FileSystem.FileSystem> {
  const { file, unreadable } = yield* ConfigFile.read(name).pipe(Effect.match({
    onFailure: (unreadable) => ({ file: undefined, unreadable }),
    onSuccess: (file) => ({ file, unreadable: undefined })
  }))
  const said = { ...sources, file }
  const { problems, secrets } = yield* readSecrets(resolve(said))
  const config = resolve({ ...said, secrets })
  const unread: ReadonlyArray<Problem> = unreadable === undefined ? [] : [{ ...unreadable, similar: [], setting: undefined, unread: true }]
  return { ...config, problems: [...unread, ...config.problems, ...problems] }
})

/** The defaults. */
export const defaults: Values = resolve({ flags: {}, environment: {}, file: undefined }).values
