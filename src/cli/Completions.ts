/**
 * `ksi completions`: a script with which a shell completes commands, flags, their values and file names at the TAB key.
 *
 * The rule: the script is made of the commands themselves and asks nobody when it runs, so that TAB answers at once.
 *
 * **Example**
 *
 * ```ts
 * const { Command } = yield* Effect.promise(() => import("effect/cli"))
 * Completions.script(Command.make("ksi"), "fish").split("\n").at(-2)   // "###-end-ksi-completions-###"
 * ```
 *
 * **Gotchas** Names of events are not completed: which ones there are is the daemon's to say.
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Generator from "effect/cli/Completions"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Config from "../server/Config.ts"

const shells = ["bash", "zsh", "fish"] as const

/** A shell whose script can be made. */
export type Shell = typeof shells[number]

/** The line that installs the script for oneself. */
export const installation: Readonly<Record<Shell, string>> = {
  bash: "ksi completions bash > ~/.ksi.bash && echo '. ~/.ksi.bash' >> ~/.bashrc",
  zsh: "ksi completions zsh > ~/.ksi.zsh && echo '. ~/.ksi.zsh' >> ~/.zshrc",
  fish: "mkdir -p ~/.config/fish/completions && ksi completions fish > ~/.config/fish/completions/ksi.fish"
}

type Flag = Generator.FlagDescriptor

const boolean = { _tag: "Boolean" } as const
const text = { _tag: "String" } as const
const file = { _tag: "Path", pathType: "file" } as const
const directory = { _tag: "Path", pathType: "directory" } as const

/** What a setting takes, by what help says stands for its value. */
const typeOf = (name: string): Flag["type"] | undefined => {
  const metavar = Config.all.find(({ flag }) => flag === name)?.kind.metavar ?? ""
  if (metavar.includes("|")) return { _tag: "Choice", values: metavar.split("|") }
  return metavar === "PATH" || metavar === "FILE" ? file : metavar === "DIR" ? directory : undefined
}

const flagOf = (flag: Flag): Flag => ({ ...flag, type: typeOf(flag.name) ?? flag.type, negation: false })

const flag = (name: string, description: string, alias: ReadonlyArray<string> = [], type: Flag["type"] = boolean): Flag =>
  flagOf({ name, aliases: alias, description, type })

const shared: ReadonlyArray<Flag> = [
  flag("help", "Show help", ["h"]),
  flag("json", "Print JSON"),
  flag("home", "Directory of everything the daemon keeps"),
  flag("socket", "The daemon's Unix socket"),
  flag("url", "Where the daemon is, instead of its socket", [], text)
]

const files: ReadonlySet<string> = new Set(["module", "file"])

const enriched = (node: Generator.CommandDescriptor): Generator.CommandDescriptor => ({
  ...node,
  flags: [...node.flags.map(flagOf), ...shared],
  arguments: node.arguments.map((argument) => files.has(argument.name) ? { ...argument, type: file } : argument),
  subcommands: node.subcommands.map(enriched)
})

/** The names that `ksi help` takes first. */
const withTopics = (node: Generator.CommandDescriptor, values: ReadonlyArray<string>): Generator.CommandDescriptor =>
  node.name === "help" ? { ...node, arguments: node.arguments.map((argument) => ({ ...argument, type: { _tag: "Choice", values } })) } : node

/** The script of a shell for a tree of commands. */
export const script = (root: Command.Command.Any, shell: Shell): string => {
  const tree = enriched(Generator.fromCommand(root))
  const topics = [...tree.subcommands.map(({ name }) => name), "limits"]
  const text = Generator.generate("ksi", shell, { ...tree, subcommands: tree.subcommands.map((node) => withTopics(node, topics)) })
  // The generator's own words name a flag that is not there.
  return `${text.replace(/^# +ksi --completions .*$/m, () => `#   ${installation[shell]}`).replace(/^# +then add .*\n/m, "")}\n`
}

/** The script of a shell is wanted; the one who knows all commands makes it. */
export class Wanted extends Schema.TaggedClass<Wanted>()("CompletionsWanted", { shell: Schema.Literals(shells) }) {}

/** `ksi completions`. */
export const completions = Command.make(
  "completions",
  { shell: Argument.Literals("shell", shells).pipe(Argument.withDescription("bash, zsh or fish")) },
  ({ shell }) => Effect.fail(new Wanted({ shell }))
).pipe(
  Command.withDescription("Print a script that lets a shell complete commands and flags"),
  Command.withExamples(shells.map((shell) => ({ command: installation[shell], description: `Installs it for ${shell}` })))
)
