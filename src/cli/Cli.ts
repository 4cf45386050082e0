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
import type * as Cause from "effect/Cause"
import * as CliConfig from "effect/cli/CliConfig"
import * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Runtime from "effect/Runtime"
import * as EventName from "../event/EventName.ts"
import * as Bench from "./Bench.ts"
import * as Call from "./Call.ts"
import * as Daemon from "./Daemon.ts"
import * as Dead from "./Dead.ts"
import * as Doctor from "./Doctor.ts"
import * as Import from "./Import.ts"
import { Io } from "./Io.ts"
import * as Output from "./Output.ts"
import * as Permission from "./Permission.ts"
import * as Plugin from "./Plugin.ts"
import * as Registry from "./Registry.ts"
import * as Settings from "./Settings.ts"
import * as Store from "./Store.ts"
import * as Subscribe from "./Subscribe.ts"
import * as Time from "./Time.ts"
import * as Token from "./Token.ts"

const rootOf = <Name extends string, Input, ContextInput, E, R>(
  start: Command.Command<Name, Input, ContextInput, E, R>,
  node: string
) =>
  Command.make("ksi").pipe(
    Command.withDescription("Typed events, an event store with time travel, and a daemon that speaks them"),
    Command.withSubcommands([
      { group: "Daemon", commands: [start, Daemon.status, Daemon.health, Daemon.stop, Doctor.make(node), Plugin.plugin] },
      { group: "Who may do what", commands: [Permission.permission, Token.token] },
      {
        group: "Events",
        commands: [
          Registry.discover, Registry.describe, Call.call, Call.emit, Call.dispatch, Subscribe.subscribe, Dead.dead,
          Bench.bench
        ]
      },
      { group: "Store", commands: [Import.importEvents, Store.exportEvents, Store.streams, Store.streamLog, Time.time] }
    ]),
    Command.withGlobalFlags([Output.Json, Settings.Socket, Settings.Home])
  )

/** Whether `--json` was given, even where the rest of the line cannot be parsed. */
const wantsJson = (argv: ReadonlyArray<string>): boolean => {
  const end = argv.indexOf("--")
  return (end < 0 ? argv : argv.slice(0, end)).some((arg) => arg === "--json" || arg === "--json=true")
}

const globalFlags = ["--json", "--socket", "--home", "--help", "--version"]

/** What was probably meant. The parser knows a command's own flags only. */
const similarOf = (error: CliError.NonShowHelpErrors): ReadonlyArray<string> => {
  if (error._tag === "UnknownSubcommand") return error.suggestions
  if (error._tag !== "UnrecognizedOption") return []
  const shared = EventName.nearest(error.option, globalFlags, 1)
  return [...error.suggestions, ...shared.filter((flag) => !error.suggestions.includes(flag))]
}

/** What the parser found, as an error of this CLI. */
const usageOf = (commandPath: ReadonlyArray<string>, error: CliError.NonShowHelpErrors): Output.Usage => {
  const [sentence = ""] = error.message.split("\n")
  return new Output.Usage({ message: sentence, similar: similarOf(error), next: `${commandPath.join(" ")} --help` })
}

/** Prints help and the version to stdout; errors are told by `report`. */
const makePresenter = (io: Io["Service"], json: boolean) => {
  const formatter = CliOutput.defaultFormatter({ colors: io.interactive && io.coloured })
  let implicit = ""
  const print = (text: string) => Effect.ignore(io.write(`${text}\n`))
  const present: CliOutput.Presenter["present"] = (event) => {
    if (event._tag === "Version") {
      return print(json ? JSON.stringify({ version: event.version }) : `${event.name} ${event.version}`)
    }
    if (event._tag === "Help" && event.reason === "Requested") return print(formatter.formatHelpDoc(event.helpDoc))
    // The help of a group without a command, or what comes before the errors of a line that cannot be parsed.
    implicit = formatter.formatHelpDoc(event.helpDoc)
    return Effect.void
  }
  const afterHelp = ({ commandPath, errors: [error] }: CliError.ShowHelp): Effect.Effect<void, Output.Usage> =>
    error === undefined ? print(implicit) : Effect.fail(usageOf(commandPath, error))
  return { present, afterHelp }
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
  const presenter = makePresenter(io, json)
  const report = (cause: Cause.Cause<unknown>) => Output.report(cause, json)
  return yield* Command.runWith(rootOf(options.start, options.node), { version: options.version, renderErrors: false })(argv).pipe(
    Effect.catch((error) =>
      CliError.isCliError(error) && error._tag === "ShowHelp" ? presenter.afterHelp(error) : Effect.fail(error)),
    Effect.as(0),
    Effect.catchCause(report),
    Effect.provideService(CliOutput.Presenter, presenter),
    Effect.provideService(CliConfig.CliConfig, CliConfig.make({ builtIns: [GlobalFlag.Help, GlobalFlag.Version] }))
  )
})

/** Ends the process with the code that `run` answered with; 130 when it was interrupted. */
export const teardown: Runtime.Teardown = (exit, onExit) => {
  if (Exit.isSuccess(exit)) return onExit(typeof exit.value === "number" ? exit.value : 0)
  return onExit(Exit.hasInterrupts(exit) ? Output.exitCodes.Interrupted : Output.exitCodes.Defect)
}
