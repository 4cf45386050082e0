/**
 * The settings as a command sees them: its flags, the environment and `ksi.toml`.
 *
 * The rule: `server/Config.ts` declares every setting; here each becomes a flag, and what is wrong with them an error of
 * this CLI, which tells all of it at once.
 *
 * **Example**
 *
 * ```ts
 * const config = Config.resolve({ flags: { sync: "maybe" }, environment: {}, file: undefined })
 * Settings.usageOf(config.problems).message   // "--sync must be one of full, normal, not \"maybe\""
 * ```
 */
import * as Flag from "effect/cli/Flag"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Config from "../server/Config.ts"
import * as Client from "../wire/Client.ts"
import type * as Setting from "../server/Setting.ts"
import { Io } from "./Io.ts"
import * as Output from "./Output.ts"

type Given = Readonly<Record<string, Option.Option<string>>>

/** What help says of a setting. */
export const help = ({ description, otherwise, variable }: Setting.Setting<never>): string =>
  `${description} (${variable}); default ${otherwise}`

const flagOf = (setting: Setting.Setting<never>): Flag.Flag<Option.Option<string>> =>
  Flag.String(setting.flag).pipe(
    Flag.withDescription(help(setting)),
    Flag.withMetavar(setting.kind.metavar),
    Flag.optional
  )

const global: ReadonlyArray<string> = [Config.settings.home.name, Config.settings.socket.name]

// What is declared for one kind is told for any: its words are the same.
const told = (setting: unknown) => setting as Setting.Setting<never>

/** `--socket`, of every command. */
export const Socket = GlobalFlag.Setting("socket")({ flag: flagOf(told(Config.settings.socket)) })

/** `--home`, of every command. */
export const Home = GlobalFlag.Setting("home")({ flag: flagOf(told(Config.settings.home)) })

const ofClients = <const Name extends string>(name: Name, metavar: string, description: string) =>
  GlobalFlag.Setting(name)({ flag: Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar(metavar), Flag.optional) })

/** `--url`, of every command that asks a daemon. */
export const Url = ofClients("url", "URL",
  "The daemon to ask: unix:PATH, tcp://HOST:PORT, ws://HOST:PORT, or wss:, http:, https: (KSI_URL); default its socket")

/** `--token`, of every command that asks a daemon. */
export const Token = ofClients("token", "TOKEN",
  "Who asks (KSI_TOKEN, or KSI_TOKEN_FILE with its path; who lists the processes of this machine sees what a flag says)")

/** The flags of all other settings by their names. Those of the limits are not listed in help: `ksi doctor` lists them. */
export const flags: Readonly<Record<string, Flag.Flag<Option.Option<string>>>> = Object.fromEntries(
  Config.all.filter(({ name }) => !global.includes(name)).map((setting) =>
    [setting.flag, setting.table === undefined ? flagOf(setting) : Flag.withHidden(flagOf(setting))])
)

/** The settings of a command with these flags. Never fails: `valid` does. */
export const load = Effect.fnUntraced(function*(given: Given): Effect.fn.Return<
  Config.Config,
  never,
  Io | FileSystem.FileSystem | GlobalFlag.Setting.Identifier<"socket"> | GlobalFlag.Setting.Identifier<"home">
> {
  const { environment } = yield* Io
  const texts = { ...given, socket: yield* Socket, home: yield* Home }
  const flags = Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, Option.getOrUndefined(text)]))
  return yield* Config.load({ flags, environment })
})

/** All problems as one error of the command line. */
export const usageOf = (problems: ReadonlyArray<Config.Problem>): Output.Usage => {
  const [first] = problems
  const flagged = problems.every(({ where }) => where.startsWith("--"))
  const next = flagged ? "ksi start --help" : "ksi doctor"
  if (problems.length === 1 && first !== undefined) {
    return new Output.Usage({ message: Config.sentence(first), similar: first.similar, next })
  }
  const lines = problems.map((problem) =>
    `  ${Config.sentence(problem)}${problem.similar.length === 0 ? "" : `; nearest: ${problem.similar.join(", ")}`}`)
  return new Output.Usage({ message: [`${problems.length} problems`, ...lines].join("\n"), similar: [], next })
}

/** The values, where nothing is wrong; else an error that tells all of it. */
export const valid = (config: Config.Config): Effect.Effect<Config.Values, Output.Usage> =>
  config.problems.length === 0 ? Effect.succeed(config.values) : Effect.fail(usageOf(config.problems))

const clientUsage = (message: string) => Effect.fail(new Output.Usage({ message, similar: [], next: "ksi --help" }))

/** The URL by which a daemon is named, and who names it; none where it is the one of this home. */
export const url = Effect.gen(function*() {
  const { variable } = yield* Io
  const [flag, socket, home] = [yield* Url, yield* Socket, yield* Home]
  const isPlaced = Option.isSome(socket) || Option.isSome(home)
  if (Option.isSome(flag) && isPlaced) {
    return yield* clientUsage(`--url says which daemon is meant, and so does --${Option.isSome(socket) ? "socket" : "home"}: give one of them`)
  }
  // Flags go before the environment.
  const given = Option.getOrUndefined(flag) ?? (isPlaced ? undefined : variable("KSI_URL"))
  if (given === undefined) return undefined
  const origin = Option.isSome(flag) ? "--url" : "KSI_URL"
  const problem = Client.urlProblem(given)
  return problem === undefined ? { origin, url: given } as const : yield* clientUsage(`${origin}: ${problem}`)
})

/**
 * Fails where a command that works on what is on this machine is told by `--url` of a daemon, which may be elsewhere; where it
 * could take the wrong one for the right one (`heeds`), by `KSI_URL` too.
 */
export const local = Effect.fnUntraced(function*(command: string, heeds = false) {
  const isFlagged = Option.isSome(yield* Url)
  if (!isFlagged && !heeds) return
  const named = yield* url
  if (named === undefined) return
  yield* clientUsage(`${command} works on what is on this machine, and asks no daemon elsewhere: run it there, without ${named.origin}`)
})

/**
 * Where the daemon is: its URL, or the path of its socket. Fails only where what it depends on is wrong: a command that asks a daemon
 * does not care about the daemon's other settings.
 */
export const address = Effect.gen(function*() {
  const named = yield* url
  if (named !== undefined) return named.url
  const config = yield* load({})
  const origin = (name: string) => config.settings.find(({ setting }) => setting.name === name)?.origin ?? ""
  const decided = origin("socket") !== "default" || origin("home").startsWith("--")
  const matter = config.problems.filter(({ setting, unread }) =>
    (unread === true && !decided) || setting === "home" || setting === "socket")
  return matter.length === 0 ? config.values.socket : yield* Effect.fail(usageOf(matter))
})
