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
import * as Flag from "effect/cli/Flag"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import * as Builtin from "../bus/Builtin.ts"
import * as Middleware from "../bus/Middleware.ts"
import * as Plugin from "../bus/Plugin.ts"
import * as KsiError from "../event/KsiError.ts"
import { Ksi } from "../Ksi.ts"
import * as DeadLetter from "../plugins/DeadLetter.ts"
import * as Module from "../plugins/Module.ts"
import * as Monitor from "../plugins/Monitor.ts"
import * as Permission from "../plugins/Permission.ts"
import * as Store from "../plugins/Store.ts"
import * as System from "../plugins/System.ts"
import * as Time from "../plugins/Time.ts"
import * as Control from "../wire/Control.ts"
import * as Listener from "../wire/Listener.ts"
import { Io } from "./Io.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

/** What a daemon is started with. */
export interface Options {
  /** Directory of everything the daemon keeps. */
  readonly home: string
  /** Path of the Unix socket; default `<home>/run/daemon.sock`. */
  readonly socket: string | undefined
  readonly store: "sqlite" | "memory"
  /** Default `<home>/ksi.db`. */
  readonly storeFile: string | undefined
  /** What the activity journal keeps of a request: all of it, all but the payload, or nothing. */
  readonly audit: "all" | "outline" | "off"
  /** `normal` may lose the last facts when the machine loses power, never when the process dies. */
  readonly sync: "full" | "normal"
  /** Modules whose default export is a Layer or a Plugin. */
  readonly modules: ReadonlyArray<string>
}

/** The defaults of `ksi start`. */
export const defaults: Options = {
  home: "var",
  socket: undefined,
  store: "sqlite",
  storeFile: undefined,
  audit: "all",
  sync: "full",
  modules: []
}

// How long requests that run may still take when the daemon stops; then they are interrupted.
const drain = "20 seconds"

/** What only the process can do for a daemon; its entry point provides it. */
export class Host extends Context.Service<Host, {
  /** Imports a module by a path relative to the working directory. */
  readonly load: (path: string) => Promise<unknown>
  /** How people call this CLI here: `ksi`, or `npm run -s ksi --` in a checkout. */
  readonly command: string
  /** Told when a daemon is what this process runs: it was right to stop when it is interrupted. */
  readonly serves: () => void
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

/** The plugin that a module exports; a plain Layer is named after its file. Fails with a sentence. */
const loadModule = Effect.fnUntraced(function*(host: Host["Service"], path: string) {
  const module = yield* Effect.tryPromise({ try: () => host.load(path), catch: (cause) => cause }).pipe(
    Effect.catchCause((cause) => Effect.fail(`${sentence(cause)}${placeOf(Cause.squash(cause))}`))
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
  yield* plugins.start(paths.map((path) => ({ from: path, load: loadModule(host, path) })))
})

const builtins = Layer.mergeAll(
  System.layer, Store.layer, Time.layer, Monitor.layer, DeadLetter.layer, Module.layer, Permission.layer, Control.layer,
  Middleware.use(Builtin.idempotency)
)

const runtime = Effect.fnUntraced(function*(options: Options) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const filename = options.storeFile ?? path.join(options.home, "ksi.db")
  const { audit, sync } = options
  if (options.store === "memory") return Ksi.layerMemoryWith({ audit })
  yield* fs.makeDirectory(path.dirname(filename), { recursive: true }).pipe(
    Effect.catch((cause) =>
      KsiError.fail(new KsiError.StoreFailure({ operation: "open", problem: `${filename}: ${cause.message}` }))
    )
  )
  return Ksi.layerSqlite({ filename, sync, audit })
})

/** What a started daemon says of itself. */
export interface Started {
  readonly socket: string
  readonly store: string
  /** Completes when somebody asked the daemon to stop. */
  readonly stopped: Effect.Effect<void>
}

/** Starts a daemon in the scope. Fails with `StoreLocked`, `StoreFailure`, `PluginInvalid` or `ListenFailed`. */
export const daemon = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<
  Started,
  KsiError.KsiError,
  Scope.Scope | FileSystem.FileSystem | Path.Path | Host
> {
  const path = yield* Path.Path
  const host = yield* Host
  const socket = options.socket ?? path.join(options.home, "run", "daemon.sock")
  // Before the store is made: a daemon that cannot be reached leaves nothing behind.
  yield* Listener.checkPath(socket)
  let connections = () => 0
  const info = Layer.succeed(System.Info, {
    ...host.info, home: options.home, socket, startedAt: yield* Clock.currentTimeMillis, connections: () => connections()
  })
  const core = (yield* runtime(options)).pipe(Layer.provideMerge(Layer.merge(System.Shutdown.layer, Plugin.Plugins.layer)))
  const context = yield* Layer.build(builtins.pipe(Layer.provide(info), Layer.provideMerge(core)))
  yield* Effect.provideContext(startModules(options.modules), context)
  const listening = yield* Effect.provideContext(Layer.build(Listener.layerUnix({ path: socket, drain })), context)
  connections = Context.get(listening, Listener.Listener).connections
  return {
    socket,
    store: options.store === "memory" ? "in memory" : options.storeFile ?? path.join(options.home, "ksi.db"),
    stopped: Context.get(context, System.Shutdown).requested
  }
})

const greeting = (started: Started, command: string): string =>
  [
    "ksi is ready",
    `  socket  ${started.socket}`,
    `  store   ${started.store}`,
    `  try     ${command} health`,
    `          ${command} discover`,
    `          ${command} subscribe '*'`,
    ""
  ].join("\n")

type Setting<A extends string> = { readonly flag: string; readonly choices: ReadonlyArray<A>; readonly description: string }

const audit: Setting<Options["audit"]> = {
  flag: "audit",
  choices: ["all", "outline", "off"],
  description: "What is kept of requests: all, all but payloads, nothing (KSI_AUDIT); default all"
}
const sync: Setting<Options["sync"]> = {
  flag: "sync",
  choices: ["full", "normal"],
  description: "When a fact counts as stored (KSI_SYNC); normal may lose the last ones at a power cut; default full"
}
const store: Setting<Options["store"]> = {
  flag: "store",
  choices: ["sqlite", "memory"],
  description: "Where facts are kept (KSI_STORE); default sqlite"
}
const levels = ["Debug", "Info", "Warn", "Error", "None"] as const
const logLevel: Setting<typeof levels[number]> = {
  flag: "log-level",
  choices: levels,
  description: "The least that is logged (KSI_LOG_LEVEL); default info"
}

const literals = <A extends string>(setting: Setting<A>) =>
  Flag.String(setting.flag).pipe(
    Flag.withDescription(setting.description),
    Flag.withMetavar(setting.choices.join("|").toLowerCase()),
    Flag.optional
  )

/** A flag, else its `KSI_*` variable, else the default; in capitals or not. Another value is a usage error. */
const resolve = Effect.fnUntraced(function*<A extends string>(setting: Setting<A>, flag: Option.Option<string>, otherwise: A) {
  const { variable } = yield* Io
  const given = Option.isSome(flag)
  const name = given ? `--${setting.flag}` : `KSI_${setting.flag.toUpperCase().replaceAll("-", "_")}`
  const text = given ? flag.value : variable(name)
  if (text === undefined) return otherwise
  const choice = setting.choices.find((candidate) => candidate.toLowerCase() === text.toLowerCase())
  if (choice !== undefined) return choice
  return yield* Effect.fail(
    new Output.Usage({
      message: `${name} must be one of ${setting.choices.join(", ").toLowerCase()}, not "${text}"`,
      similar: [],
      next: "ksi start --help"
    })
  )
})

/** Logs go to stderr: for people on a terminal, as JSON lines for a collector. */
const logging = ({ coloured, watched }: Io["Service"], level: typeof levels[number]) =>
  Layer.mergeAll(
    Logger.layer([watched ? Logger.consolePrettyTty({ colors: coloured }) : Logger.withConsoleError(Logger.formatJson)]),
    Layer.succeed(Logger.LogToStderr, true),
    Layer.succeed(References.MinimumLogLevel, level)
  )

/** `ksi start`. */
export const start = Command.make("start", {
  modules: Argument.String("module").pipe(
    Argument.withDescription("Modules whose default export is a Layer or a Plugin, as app.ts; started in parallel, each after those it needs"),
    Argument.variadic()
  ),
  store: literals(store),
  storeFile: Flag.String("store-file").pipe(
    Flag.withDescription("The database file (KSI_STORE_FILE); default <home>/ksi.db"),
    Flag.withMetavar("PATH"),
    Flag.optional
  ),
  audit: literals(audit),
  sync: literals(sync),
  logLevel: literals(logLevel)
}, Effect.fnUntraced(function*(flags) {
  const io = yield* Io
  const options: Options = {
    home: Option.getOrUndefined(yield* Remote.Home) ?? io.variable("KSI_HOME") ?? defaults.home,
    socket: yield* Remote.address,
    store: yield* resolve(store, flags.store, defaults.store),
    storeFile: Option.getOrUndefined(flags.storeFile) ?? io.variable("KSI_STORE_FILE"),
    audit: yield* resolve(audit, flags.audit, defaults.audit),
    sync: yield* resolve(sync, flags.sync, defaults.sync),
    modules: flags.modules
  }
  const level = yield* resolve(logLevel, flags.logLevel, "Info")
  const { command, serves } = yield* Host
  serves()
  yield* Effect.gen(function*() {
    const started = yield* daemon(options)
    yield* Effect.logInfo("ready").pipe(Effect.annotateLogs({ socket: started.socket, store: started.store }))
    if (yield* Output.Json) {
      yield* io.write(`${JSON.stringify({ socket: started.socket, store: started.store })}\n`)
    } else yield* io.write(greeting(started, command))
    yield* started.stopped.pipe(Effect.onExit(() => Effect.logInfo("stopping")))
  }).pipe(Effect.scoped, Effect.provide(logging(io, level)))
})).pipe(
  Command.withDescription("Run the daemon: the built-in events and the layers of your modules"),
  Command.withExamples([
    { command: "ksi start", description: "The daemon alone, with its store in var/" },
    { command: "ksi start app.ts", description: "With the layer that app.ts exports by default" }
  ])
)
