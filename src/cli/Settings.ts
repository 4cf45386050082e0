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

/** `--url`, of every command that asks a daemon. */
export const Url = GlobalFlag.Setting("url")({
  flag: Flag.String("url").pipe(
    Flag.withDescription("Where the daemon is, instead of its socket: tcp://host:port, http(s)://…, ws(s)://… or unix:path (KSI_URL)"),
    Flag.withMetavar("URL"),
    Flag.optional
  )
})

/** `--home`, of every command. */
export const Home = GlobalFlag.Setting("home")({ flag: flagOf(told(Config.settings.home)) })

/** What says where a daemon is. */
export type Addressing = GlobalFlag.Setting.Identifier<"socket"> | GlobalFlag.Setting.Identifier<"home"> | GlobalFlag.Setting.Identifier<"url">

/** The flags of all other settings by their names. Those of the limits are not listed in help: `ksi doctor` lists them. */
export const flags: Readonly<Record<string, Flag.Flag<Option.Option<string>>>> = Object.fromEntries(
  Config.all.filter(({ name }) => !global.includes(name)).map((setting) =>
    [setting.flag, setting.table === undefined ? flagOf(setting) : Flag.withHidden(flagOf(setting))])
)

/** The settings of a command with these flags. Never fails: `valid` does. */
export const load = Effect.fnUntraced(function*(given: Given): Effect.fn.Return<
  Config.Config,
  never,
  Io | FileSystem.FileSystem | Addressing
> {
  const { environment } = yield* Io
  const texts = { ...given, socket: yield* Socket, home: yield* Home }
  const flags = Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, Option.getOrUndefined(text)]))
  const config = yield* Config.load({ flags, environment })
  if (Option.isNone(yield* Url)) return config
  const elsewhere = { where: "--url", problem: "is for commands that ask a daemon; this one is about this machine", similar: [], setting: undefined }
  return { ...config, problems: [...config.problems, elsewhere] }
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

/** Whether a daemon is named by a URL, so that it may be elsewhere; `--socket` and `--home` set `KSI_URL` aside. */
export const isElsewhere = Effect.gen(function*() {
  const { variable } = yield* Io
  const isPlaced = [yield* Socket, yield* Home].some(Option.isSome)
  return Option.isSome(yield* Url) || (!isPlaced && variable("KSI_URL") !== undefined)
})

/**
 * Where the daemon is: what `--url` says; else, where neither `--socket` nor `--home` is given, what `KSI_URL` does; else its socket. Fails only where what it depends on is wrong: a command that asks a daemon does not care
 * about the daemon's other settings.
 */
export const address = Effect.gen(function*() {
  const given = yield* Url
  const nearer = [yield* Socket, yield* Home].some(Option.isSome)
  if (Option.isSome(given) && nearer) {
    return yield* Effect.fail(new Output.Usage({ message: "--url says where the daemon is, and so do --socket and --home: give one of them", similar: [], next: "ksi help" }))
  }
  if (Option.isSome(given)) return given.value
  const { variable } = yield* Io
  const url = nearer ? undefined : variable("KSI_URL")
  if (url !== undefined) return url
  const config = yield* load({})
  const origin = (name: string) => config.settings.find(({ setting }) => setting.name === name)?.origin ?? ""
  const decided = origin("socket") !== "default" || origin("home").startsWith("--")
  const matter = config.problems.filter(({ setting, unread }) =>
    (unread === true && !decided) || setting === "home" || setting === "socket")
  return matter.length === 0 ? config.values.socket : yield* Effect.fail(usageOf(matter))
})
