/**
 * The command line of KSI: every command, the flags they share, and what becomes of an error.
 *
 * The rule: `run` never fails. It says what went wrong on stderr and answers with the exit code; `Output.exitCodes` is
 * the table.
 *
 * **Example**
 *
 * ```ts
 * // NodeRuntime.runMain(Cli.run(argv, { version, node, start }).pipe(Effect.provide(world)), { teardown: Cli.teardown })
 * let code = -1
 * Cli.teardown(Exit.succeed(3), (given) => { code = given })
 * code                                        // 3
 * ```
 *
 * **Gotchas** Interrupting `run` interrupts it: whoever runs the process turns that into exit code 130 with `teardown`.
 */
import * as CliConfig from "effect/cli/CliConfig"
import * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import type * as HelpDoc from "effect/cli/HelpDoc"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Runtime from "effect/Runtime"
import * as EventName from "../event/EventName.ts"
import * as Config from "../server/Config.ts"
import * as Bench from "./Bench.ts"
import * as Call from "./Call.ts"
import * as Completions from "./Completions.ts"
import * as Daemon from "./Daemon.ts"
import * as Dead from "./Dead.ts"
import * as Doctor from "./Doctor.ts"
import * as Groups from "./Groups.ts"
import * as Help from "./Help.ts"
import * as Import from "./Import.ts"
import { Io } from "./Io.ts"
import * as Maintenance from "./Maintenance.ts"
import * as Models from "./Models.ts"
import * as Output from "./Output.ts"
import * as Permission from "./Permission.ts"
import * as Plugin from "./Plugin.ts"
import * as Registry from "./Registry.ts"
import * as Settings from "./Settings.ts"
import * as Store from "./Store.ts"
import * as StreamSettings from "./StreamSettings.ts"
import * as StreamRequest from "./StreamRequest.ts"
import * as Subscribe from "./Subscribe.ts"
import * as Time from "./Time.ts"
import * as Token from "./Token.ts"
import * as Trace from "./Trace.ts"

/** Every command. */
export const rootOf = <Name extends string, Input, ContextInput, E, R>(
  start: Command.Command<Name, Input, ContextInput, E, R>,
  node: string
) =>
  Command.make("ksi").pipe(
    Command.withDescription("Typed events, an event store with time travel, and a daemon that speaks them"),
    Command.annotate(Help.Sections, [Help.exitCodes]),
    Command.withExamples([
      { command: "ksi start app.ts", description: "A daemon with your module, and in another terminal" },
      { command: "ksi discover" },
      { command: "ksi call shop:order sku=tea quantity=2" },
      { command: "ksi subscribe 'shop:*' --from start" }
    ]),
    Command.withSubcommands([
      { group: "Daemon", commands: [start, Daemon.status, Daemon.health, Daemon.stop, Doctor.make(node), Plugin.plugin] },
      { group: "Who may do what", commands: [Permission.permission, Token.token] },
      {
        group: "Events",
        commands: [
          Registry.discover, Registry.describe, Call.call, Call.emit, Call.dispatch, StreamRequest.stream, Subscribe.subscribe, Dead.dead,
          Bench.bench
        ]
      },
      {
        group: "Store",
        commands: [
          Import.importEvents,
          Store.exportEvents,
          Store.streams,
          Store.streamLog,
          StreamSettings.info,
          StreamSettings.keep,
          StreamSettings.remove,
          Time.time,
          Trace.trace,
          Models.projection,
          Groups.consumer,
          Maintenance.backup,
          Maintenance.restore,
          Maintenance.verify,
          Maintenance.compact
        ]
      },
      { group: "Help", commands: [Help.help, Completions.completions] }
    ]),
    Command.withGlobalFlags([Output.Json, Settings.Socket, Settings.Home, Settings.Url])
  )

/** Whether `--json` was given, even where the rest of the line cannot be parsed. */
const wantsJson = (argv: ReadonlyArray<string>): boolean => {
  const end = argv.indexOf("--")
  return (end < 0 ? argv : argv.slice(0, end)).some((arg) => arg === "--json" || arg === "--json=true")
}

const globalFlags = ["--json", "--socket", "--home", "--url", "--help", "--version"]

const limitFlags = Config.all.filter(({ table }) => table !== undefined).map(({ flag }) => `--${flag}`)

/** What was probably meant. The parser knows a command's own flags only, and proposes no values. */
const similarOf = (commandPath: ReadonlyArray<string>, error: CliError.NonShowHelpErrors): ReadonlyArray<string> => {
  if (error._tag === "UnknownSubcommand") return error.suggestions
  if (error._tag === "InvalidValue") {
    return EventName.nearest(error.value, Array.from(error.expected.matchAll(/"([^"]+)"/g), ([, choice = ""]) => choice), 1)
  }
  if (error._tag !== "UnrecognizedOption") return []
  const takesLimits = commandPath[1] === "start" || commandPath[1] === "doctor"
  const others = EventName.nearest(error.option, takesLimits ? [...globalFlags, ...limitFlags] : globalFlags, 1)
  return [...error.suggestions, ...others.filter((flag) => !error.suggestions.includes(flag))]
}

/** What the parser found, as an error of this CLI. */
const usageOf = (commandPath: ReadonlyArray<string>, error: CliError.NonShowHelpErrors): Output.Usage => {
  const [sentence = ""] = error.message.split("\n")
  return new Output.Usage({
    message: sentence.replace("a string representing a finite number", "a number"),
    similar: similarOf(commandPath, error),
    next: `${commandPath.join(" ")} --help`
  })
}

/** A word that is no command, of a line that asks for help: the page that is there is not the one that was meant. */
const unknownIn = (argv: ReadonlyArray<string>, doc: HelpDoc.HelpDoc): Output.Usage | undefined => {
  const path = doc.commandPath ?? []
  const names = (doc.subcommands ?? []).flatMap(({ commands }) => commands.map(({ name }) => name))
  const end = argv.findIndex((word) => word.startsWith("-"))
  const word = argv.slice(0, end < 0 ? argv.length : end)[path.length - 1]
  if (word === undefined || names.length === 0) return undefined
  return new Output.Usage({
    message: `Unknown subcommand "${word}" for "${path.join(" ")}"`, similar: EventName.nearest(word, names, 1), next: `${path.join(" ")} --help`
  })
}

/** Prints help and the version to stdout; errors are told by `report`. */
const makePresenter = (io: Io["Service"], json: boolean, argv: ReadonlyArray<string>) => {
  let implicit = ""
  let unknown: Output.Usage | undefined
  const print = (text: string) => Effect.ignore(io.write(text))
  const page = (doc: HelpDoc.HelpDoc) => Help.render(doc, { bold: io.interactive && io.coloured, width: io.width })
  const present: CliOutput.Presenter["present"] = (event) => {
    if (event._tag === "Version") {
      return print(`${json ? JSON.stringify({ version: event.version }) : `${event.name} ${event.version}`}\n`)
    }
    if (event._tag === "Help" && event.reason === "Requested") {
      unknown = unknownIn(argv, event.helpDoc)
      return unknown === undefined ? print(page(event.helpDoc)) : Effect.void
    }
    // The help of a group without a command, or what comes before the errors of a line that cannot be parsed.
    implicit = page(event.helpDoc)
    return Effect.void
  }
  const afterHelp = ({ commandPath, errors: [error] }: CliError.ShowHelp): Effect.Effect<void, Output.Usage> =>
    error === undefined ? print(implicit) : Effect.fail(usageOf(commandPath, error))
  const checked = Effect.suspend(() => unknown === undefined ? Effect.void : Effect.fail(unknown))
  return { present, afterHelp, checked }
}

/** Runs one command line and answers with its exit code. */
export const run = Effect.fnUntraced(function*<Name extends string, Input, ContextInput, E, R>(
  argv: ReadonlyArray<string>,
  options: {
    readonly version: string
    /** The version of Node. */
    readonly node: string
    /** `ksi start`: what it needs is what `run` needs. */
    readonly start: Command.Command<Name, Input, ContextInput, E, R>
  }
) {
  const io = yield* Io
  const json = wantsJson(argv)
  const root = rootOf(options.start, options.node)
  const line = (words: ReadonlyArray<string>) => {
    const presenter = makePresenter(io, json, words)
    return Command.runWith(root, { version: options.version, renderErrors: false })(words).pipe(
      Effect.catch((error) =>
        CliError.isCliError(error) && error._tag === "ShowHelp" ? presenter.afterHelp(error) : Effect.fail(error)),
      Effect.andThen(presenter.checked),
      Effect.provideService(CliOutput.Presenter, presenter)
    )
  }
  return yield* line(argv).pipe(
    Effect.catchIf((error) => error instanceof Help.Wanted, ({ path }) => line([...path, "--help"])),
    Effect.catchIf((error) => error instanceof Completions.Wanted, ({ shell }) => io.write(Completions.script(root, shell))),
    Effect.as(0),
    Effect.catchCause((cause) => Output.report(cause, json)),
    Effect.provideService(CliConfig.CliConfig, CliConfig.make({ builtIns: [GlobalFlag.Help, GlobalFlag.Version] }))
  )
})

/** Ends the process with the code that `run` answered with; 130 when it was interrupted. */
export const teardown: Runtime.Teardown = (exit, onExit) => {
  if (Exit.isSuccess(exit)) return onExit(typeof exit.value === "number" ? exit.value : 0)
  return onExit(Exit.hasInterrupts(exit) ? Output.exitCodes.Interrupted : Output.exitCodes.Defect)
}
