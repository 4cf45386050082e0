/**
 * `ksi start [app.ts …]`: the daemon. The store, the built-in plugins, the modules in parallel (each after those it
 * needs, as `bus/Plugin.ts` says), and last the socket: what is reachable is ready.
 *
 * The rule: everything is acquired in one scope and released in reverse. Every module that cannot start is named with
 * its causes, what was started is closed, and nothing was ever reachable.
 *
 * **Example**
 *
 * ```ts
 * Start.defaults.home                         // "var"
 * ```
 */
import * as Cause from "effect/Cause"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Builtin from "../bus/Builtin.ts"
import * as Middleware from "../bus/Middleware.ts"
import * as Plugin from "../bus/Plugin.ts"
import * as EventName from "../event/EventName.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import { Ksi } from "../Ksi.ts"
import * as Consumers from "../plugins/Consumers.ts"
import * as DeadLetter from "../plugins/DeadLetter.ts"
import * as Maintenance from "../plugins/Maintenance.ts"
import * as Module from "../plugins/Module.ts"
import * as Monitor from "../plugins/Monitor.ts"
import * as Permission from "../plugins/Permission.ts"
import * as ReadModels from "../plugins/ReadModels.ts"
import * as Store from "../plugins/Store.ts"
import * as Streams from "../plugins/Streams.ts"
import * as System from "../plugins/System.ts"
import * as Time from "../plugins/Time.ts"
import * as Trace from "../plugins/Trace.ts"
import * as Config from "../server/Config.ts"
import * as HttpGuard from "../server/HttpGuard.ts"
import * as HttpServer from "../server/HttpServer.ts"
import * as HttpToken from "../server/HttpToken.ts"
import * as Logs from "../server/Logs.ts"
import * as Metrics from "../server/Metrics.ts"
import * as Setting from "../server/Setting.ts"
import * as Connection from "../wire/Connection.ts"
import * as Control from "../wire/Control.ts"
import * as Listener from "../wire/Listener.ts"
import * as Help from "./Help.ts"
import { Io } from "./Io.ts"
import * as Output from "./Output.ts"
import * as Settings from "./Settings.ts"

/** What a daemon is started with: the settings, but the log's, and the modules. */
export interface Options extends Omit<Config.Values, "socket" | "storeFile" | "logLevel"> {
  /** Path of the Unix socket; default `<home>/run/daemon.sock`. */
  readonly socket: string | undefined
  /** Default `<home>/ksi.db`. */
  readonly storeFile: string | undefined
  /** Modules whose default export is a Layer or a Plugin. */
  readonly modules: ReadonlyArray<string>
}

/** The defaults of `ksi start`; the paths follow from the home. */
export const defaults: Options = { ...Config.defaults, socket: undefined, storeFile: undefined, modules: [] }

/** What only the process can do for a daemon; its entry point provides it. */
export class Host extends Context.Service<Host, {
  /** Imports a module by a path relative to the working directory. */
  readonly load: (path: string) => Promise<unknown>
  /** How people call this CLI here: `ksi`, or `npm run -s ksi --` in a checkout. */
  readonly command: string
  /** Told when a daemon is what this process runs: it was right to stop when it is interrupted. */
  readonly serves: () => void
  /** Completes with the first exception that nobody caught. */
  readonly uncaught: Effect.Effect<unknown>
  /** Ends the process at once. */
  readonly exit: (code: number) => void
  readonly info: Pick<System.InfoShape, "version" | "pid" | "memoryBytes">
}>()("ksi/cli/Host") {}

const sentence = (cause: Cause.Cause<unknown>): string => KsiError.sentenceOf(Cause.squash(cause))

/** Where in a file it went wrong, from the stack: of text that cannot be parsed the first line, else the first frame. */
const placeOf = (cause: unknown): string => {
  const stack = cause instanceof Error ? cause.stack ?? "" : ""
  const [, unread] = /^(\/\S+:\d+)\n/.exec(stack) ?? []
  const [, thrown] = /\(?(file:\/\/\S+?:\d+):\d+\)?(?:\n|$)/.exec(stack) ?? []
  const place = unread ?? thrown?.slice("file://".length)
  return place === undefined ? "" : `, at ${place}`
}

/** What went wrong with a module that is there. The words that V8 has for one that is read as CommonJS do not say why. */
const faultOf = (cause: Cause.Cause<unknown>): string => {
  const said = `${sentence(cause)}${placeOf(Cause.squash(cause))}`
  return /import statement outside a module|Unexpected token 'export'/.test(said)
    ? `${said}; it is read as CommonJS: set "type": "module" in package.json`
    : said
}

/** Why there is nothing to load at a path, in a sentence; `undefined` where a file is there. */
const absence = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const info = yield* Effect.option(fs.stat(file))
  if (Option.isSome(info)) {
    return info.value.type === "Directory" ? "it is a directory; name the file in it that exports the Layer" : undefined
  }
  const names = yield* fs.readDirectory(path.dirname(file)).pipe(Effect.orElseSucceed(() => []))
  const near = EventName.nearest(path.basename(file), names).map((name) => path.join(path.dirname(file), name))
  return `there is no such file${near.length === 0 ? "" : `; nearest: ${near.join(", ")}`}`
})

/** The plugin that a module exports; a plain Layer is named after its file. Fails with a sentence. */
const loadModule = Effect.fnUntraced(function*(host: Host["Service"], path: string) {
  const module = yield* Effect.tryPromise({ try: () => host.load(path), catch: (cause) => cause }).pipe(
    Effect.catchCause((cause) =>
      Effect.flatMap(absence(path), (absent) => Effect.fail(absent ?? faultOf(cause))))
  )
  if (typeof module !== "object" || module === null || !("default" in module)) {
    return yield* Effect.fail("it has no default export; is it a program? run it with node")
  }
  const exported: unknown = module.default
  if (Plugin.isPlugin(exported)) return exported
  if (Layer.isLayer(exported)) return Plugin.make(Plugin.nameOf(path), exported)
  return yield* Effect.fail("its default export must be a Layer, or a Plugin")
})

/** Starts the modules; closing the scope closes them in reverse. */
const startModules = Effect.fnUntraced(function*(paths: ReadonlyArray<string>) {
  const host = yield* Host
  const plugins = yield* Plugin.Plugins
  const platform = yield* Effect.context<FileSystem.FileSystem | Path.Path>()
  yield* plugins.start(paths.map((path) => ({ from: path, load: Effect.provideContext(loadModule(host, path), platform) })))
})

const builtins = Layer.mergeAll(
  System.layer,
  Store.layer,
  Streams.layer,
  Maintenance.layer,
  Time.layer,
  Trace.layer,
  Monitor.layer,
  DeadLetter.layer,
  ReadModels.layer,
  Consumers.layer,
  Module.layer,
  Permission.layer,
  Control.layer,
  Middleware.use(Builtin.idempotency)
)

const runtime = Effect.fnUntraced(function*(options: Options) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const filename = options.storeFile ?? path.join(options.home, "ksi.db")
  const { audit, sync } = options
  if (options.store === "memory") return Ksi.layerMemoryWith({ audit })
  const directory = path.dirname(filename)
  yield* fs.makeDirectory(directory, { recursive: true, mode: 0o700 }).pipe(
    Effect.catch(({ reason }) => {
      const problem = `${directory} cannot be made a directory (${KsiError.sentenceOf(reason.cause ?? reason)})`
      return KsiError.fail(new KsiError.StoreFailure({ operation: "open", problem }))
    })
  )
  return Ksi.layerSqlite({ filename, sync, audit })
})

/** HTTP, and the token that makes its bearer the owner; `undefined` where it is off. */
const listenHttp = Effect.fnUntraced(function*({ drain, home, host, hosts, port }: Options) {
  if (port === Setting.off) return undefined
  const path = yield* Path.Path
  const ownerToken = yield* HttpToken.make(path.join(home, "run"))
  return Context.get(yield* Layer.build(HttpServer.layer({ host, port, hosts, ownerToken, drain })), HttpServer.Http)
})

/** TCP, without HTTP; `undefined` where it is off. What it says is read by everybody on the way. */
const listenTcp = Effect.fnUntraced(function*({ drain, tcp }: Options) {
  const place = Setting.tcpPlaceOf(tcp)
  if (place === undefined) return undefined
  const listener = Context.get(yield* Layer.build(Listener.layerTcp({ ...place, drain })), Listener.Listener)
  if (!HttpGuard.isLoopback(place.host)) {
    yield* Effect.logWarning(`TCP is open beyond this machine (${tcp}) and is not encrypted: whoever can read the network reads the tokens; let a tunnel or a proxy with TLS carry it`)
  }
  return listener
})

/** The ways in: all close at once, and each waits for what it has begun. */
const listenAll = Effect.fnUntraced(function*(options: Options, path: string) {
  const doors = yield* Scope.fork(yield* Effect.scope, "parallel")
  // A port is taken more often than a socket: where it is, nobody has reached anything.
  const http = yield* Scope.provide(listenHttp(options), yield* Scope.fork(doors))
  const tcp = yield* Scope.provide(listenTcp(options), yield* Scope.fork(doors))
  const unix = yield* Layer.buildWithScope(Listener.layerUnix({ path, drain: options.drain }), yield* Scope.fork(doors))
  return { http, tcp, unix: Context.get(unix, Listener.Listener) }
}, (effect, { limits }) => Effect.provideService(effect, Connection.Shared, Connection.makeShared(limits)))

/** What a started daemon says of itself. */
export interface Started {
  readonly socket: string
  /** Where HTTP is; none where it is off. */
  readonly url: string | undefined
  /** Where TCP is; none where it is off. */
  readonly tcp: string | undefined
  readonly store: string
  /** Completes when somebody asked the daemon to stop. */
  readonly stopped: Effect.Effect<void>
}

const assemble = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<
  Started,
  KsiError.KsiError,
  Scope.Scope | FileSystem.FileSystem | Path.Path | Host
> {
  const path = yield* Path.Path
  const host = yield* Host
  const socket = options.socket ?? path.join(options.home, "run", "daemon.sock")
  // Before the store is made: a daemon that cannot be reached leaves nothing behind.
  yield* Listener.checkPath(socket)
  let ways: Effect.Success<ReturnType<typeof listenAll>> | undefined
  const info = Layer.succeed(System.Info, {
    ...host.info, home: options.home, socket,
    url: () => ways?.http?.url, tcp: () => ways?.tcp?.address,
    connections: () => [ways?.unix, ways?.http, ways?.tcp].reduce((sum, way) => sum + (way?.connections() ?? 0), 0)
  })
  const core = (yield* runtime(options)).pipe(
    Layer.provideMerge(Layer.merge(System.Shutdown.layer, Plugin.Plugins.layer)), Layer.provide(Metrics.layerMeter)
  )
  // Outside of all other middleware.
  const traced = options.otlp === "off" ? Layer.empty : Middleware.use(Builtin.trace)
  const context = yield* Layer.build(Layer.mergeAll(builtins, Streams.layerRetaining(options.retain), Metrics.layer).pipe(Layer.provide(info), Layer.provideMerge(traced), Layer.provideMerge(core)))
  yield* Effect.provideContext(startModules(options.modules), context)
  ways = yield* Effect.provideContext(listenAll(options, socket), context)
  // While they can still be heard: programs that work for consumer groups report what they have.
  yield* Effect.addFinalizer(() => Context.get(context, Consumers.Workers).end(options.drain))
  return {
    socket,
    url: ways.http?.url,
    tcp: ways.tcp?.address,
    store: options.store === "memory" ? "in memory" : options.storeFile ?? path.join(options.home, "ksi.db"),
    stopped: Context.get(context, System.Shutdown).requested
  }
})

/** Starts a daemon in the scope. Fails with `StoreLocked`, `StoreFailure`, `PluginInvalid` or `ListenFailed`. */
export const daemon = (options: Options) => Effect.provideService(assemble(options), Limits, options.limits)

const greeting = (started: Started, command: string): string =>
  [
    "ksi is ready",
    `  socket  ${started.socket}`,
    ...(started.url === undefined ? [] : [`  http    ${started.url}`]),
    ...(started.tcp === undefined ? [] : [`  tcp     ${started.tcp}`]),
    `  store   ${started.store}`,
    `  try     ${command} health`,
    `          ${command} discover`,
    `          ${command} subscribe '*'`,
    ""
  ].join("\n")

// What was interrupted may take so long to end, when there may be nobody who insists.
const insistAfterMillis = 10_000

/**
 * An exception that nobody caught, as in a timer of a module, leaves something half done and nobody knows what. So the
 * daemon ends, as if it had been told to, and says why: whoever watches over it starts it again.
 */
const crash = Effect.fnUntraced(function*(drainMillis: number) {
  const { exit, uncaught } = yield* Host
  const cause = yield* uncaught
  yield* Effect.logFatal("nobody caught an exception", Cause.die(cause))
  const insist = Effect.sync(() => exit(Output.exitCodes.Defect))
  yield* Effect.forkDetach(Effect.delay(insist, drainMillis + insistAfterMillis))
  return yield* Effect.fail(new Output.Uncaught({ message: `nobody caught an exception: ${KsiError.sentenceOf(cause)}` }))
})

// What Effect calls them.
const levels = { debug: "Debug", info: "Info", warn: "Warn", error: "Error", none: "None" } as const

/** Logs go to stderr: for people on a terminal, as JSON lines for a collector. Each line says which event it is of. */
const logging = ({ coloured, watched }: Io["Service"], level: typeof levels[keyof typeof levels]) =>
  Layer.mergeAll(
    Logger.layer([Logs.labelled(watched ? Logger.consolePrettyTty({ colors: coloured }) : Logger.withConsoleError(Logger.formatJson))]),
    Layer.succeed(Logger.LogToStderr, true),
    Layer.succeed(References.MinimumLogLevel, level)
  )

/** Traces, metrics and logs for a collector, where one is named; else nothing of it is loaded. */
const telemetry = (values: Omit<Config.Values, "logLevel">, serviceVersion: string): Layer.Layer<never> => {
  const { otlp: endpoint, otlpFormat: format, otlpHeaders: headers, resourceAttributes: attributes, serviceName, traceShare } = values
  if (endpoint === "off") return Layer.empty
  return Layer.unwrap(Effect.map(Effect.promise(() => import("../server/Telemetry.ts")), ({ layer }) =>
    layer({ endpoint, format, headers, traceShare, serviceName, serviceVersion, attributes })))
}

/** Warnings of the settings, and for those who look for faults every value with its origin. */
const tellSettings = Effect.fnUntraced(function*({ settings, warnings }: Config.Config) {
  for (const warning of warnings) {
    const nearest = warning.similar.length === 0 ? "" : `; nearest: ${warning.similar.join(", ")}`
    yield* Effect.logWarning(`${Config.sentence(warning)}${nearest}`)
  }
  const values = settings.map(({ origin, setting, text }) => [Setting.place(setting), `${text} (${origin})`] as const)
  yield* Effect.logDebug("settings").pipe(Effect.annotateLogs(Object.fromEntries(values)))
})

/** `ksi start`. */
export const start = Command.make("start", {
  modules: Argument.String("module").pipe(
    Argument.withDescription("Modules whose default export is a Layer or a Plugin, as app.ts; started in parallel, each after those it needs"),
    Argument.variadic()
  ),
  settings: Settings.flags
}, Effect.fnUntraced(function*(flags) {
  const io = yield* Io
  const config = yield* Settings.load(flags.settings)
  const { logLevel, ...values } = yield* Settings.valid(config)
  const options: Options = { ...values, modules: flags.modules }
  const { command, info: { version }, serves } = yield* Host
  serves()
  yield* Effect.gen(function*() {
    yield* tellSettings(config)
    const started = yield* daemon(options)
    const { socket, store, tcp, url } = started
    const told = { socket, store, ...(url === undefined ? {} : { url }), ...(tcp === undefined ? {} : { tcp }) }
    yield* Effect.logInfo("ready").pipe(Effect.annotateLogs(told))
    // Whoever started it may have gone, or the disk that its output goes to may be full: it serves all the same.
    yield* Effect.ignore(io.write((yield* Output.Json) ? `${JSON.stringify(told)}\n` : greeting(started, command)))
    yield* started.stopped.pipe(Effect.onExit(() => Effect.logInfo("stopping")))
  }).pipe(
    Effect.raceFirst(crash(options.drain)), Effect.scoped,
    Effect.provide(telemetry(values, version)), Effect.provide(logging(io, levels[logLevel]))
  )
})).pipe(
  Command.withDescription("Run the daemon: the built-in events and the layers of your modules"),
  Command.annotate(Help.Sections, [Help.limits, Help.exits(0, 2, 5)]),
  Command.withExamples([
    { command: "ksi start", description: "The daemon alone, with its store in var/" },
    { command: "ksi start app.ts", description: "With the layer that app.ts exports by default" }
  ])
)
