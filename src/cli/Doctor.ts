/**
 * `ksi doctor`: every setting with its origin, and whether a daemon can run with them. It takes the flags of `ksi start`.
 *
 * The rule: it works without a daemon and beside one, and changes nothing; of a daemon that runs it asks
 * `system:health`, as `ksi status` does. Exit code 7 where a check found a problem; warnings are told and are no failure.
 *
 * **Example**
 *
 * ```ts
 * const { settings } = Config.resolve({ flags: { sync: "normal" }, environment: {}, file: undefined })
 * Doctor.report({ settings: settings.slice(9, 10), checks: [Checks.node("24.1.0")] }, false)
 * // => "settings\n  sync  normal  --sync\n\nchecks\n  ✓ node  Node 24.1.0\n"
 * ```
 */
import * as Clock from "effect/Clock"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import type * as Config from "../server/Config.ts"
import * as Setting from "../server/Setting.ts"
import type * as Checks from "./Checks.ts"
import * as Help from "./Help.ts"
import { Io } from "./Io.ts"
import * as Output from "./Output.ts"
import * as Settings from "./Settings.ts"

/** What was found. */
export interface Findings {
  readonly settings: ReadonlyArray<Config.Resolved>
  readonly checks: ReadonlyArray<Checks.Check>
}

const order = ["ok", "warning", "problem"] as const

/** The worst of all. */
const statusOf = (checks: Findings["checks"]): Checks.Check["status"] =>
  order.findLast((status) => checks.some((check) => check.status === status)) ?? "ok"

const marks = { ok: "✓", warning: "!", problem: "✗" } as const
const colours = { ok: "32", warning: "33", problem: "31" } as const

/** The findings for people. */
export const report = ({ checks, settings }: Findings, coloured: boolean): string => {
  const values = Output.aligned(settings.map(({ origin, setting, text }) => [`  ${Setting.place(setting)}`, text, origin]))
  const width = Math.max(...checks.map(({ check }) => check.length))
  const mark = (status: Checks.Check["status"]) =>
    coloured ? `\u001b[${colours[status]}m${marks[status]}\u001b[0m` : marks[status]
  const lines = checks.flatMap(({ check, mend, message, status }) => [
    `  ${mark(status)} ${check.padEnd(width)}  ${message}`,
    ...(mend === undefined ? [] : [`    ${" ".repeat(width)}  mend: ${mend}`])
  ])
  return ["settings", ...values, "", "checks", ...lines, ""].join("\n")
}

/** The findings for programs. */
export const document = ({ checks, settings }: Findings) => ({
  status: statusOf(checks),
  settings: settings.map(({ origin, setting, text, value }) =>
    ({ name: Setting.place(setting), variable: setting.variable, flag: `--${setting.flag}`, value, text, origin })),
  checks
})

/** Looks at everything that these settings name. */
export const examine = Effect.fnUntraced(function*(config: Config.Config, node: string): Effect.fn.Return<Findings> {
  // Only who asks for them loads them.
  const look = yield* Effect.promise(() => import("./Checks.ts"))
  const { home, limits, socket, store, storeFile, sync } = config.values
  const checks: Array<Checks.Check> = [
    ...look.configuration(config), look.node(node), yield* look.home(home), yield* look.socket(socket)
  ]
  const daemon = yield* look.daemon(socket)
  checks.push(daemon.check, ...yield* look.http(config.values, daemon), ...yield* look.tcp(config.values, daemon))
  let recordedAt: number | undefined
  if (store === "sqlite") {
    const { inspect } = yield* Effect.promise(() => import("../store/StoreInspection.ts"))
    const inspection = yield* inspect(storeFile)
    if (inspection.state._tag === "Ready") recordedAt = inspection.state.recordedAt
    checks.push(look.store(storeFile, inspection), look.lock(storeFile, inspection, daemon.running), yield* look.disk(storeFile), ...yield* look.leftovers(storeFile))
  }
  checks.push(
    look.durability({ store, sync }, (name) => config.settings.find(({ setting }) => setting.name === name)?.origin ?? "default"),
    look.clock(yield* Clock.currentTimeMillis, recordedAt),
    ...look.limits(limits)
  )
  return { settings: config.settings, checks }
})

/** `ksi doctor`, in a process of this version of Node. */
export const make = (node: string) => Command.make("doctor", { settings: Settings.flags }, Effect.fnUntraced(function*(given) {
  const { coloured, interactive } = yield* Io
  const findings = yield* examine(yield* Settings.load(given.settings), node)
  yield* Output.documentOr(document(findings), () => report(findings, interactive && coloured))
  if (statusOf(findings.checks) === "problem") return yield* Effect.fail(new Output.Ended({ code: Output.exitCodes.CheckFailed }))
})).pipe(
  Command.withDescription("Show every setting and where it comes from, and check that a daemon can run with them"),
  Command.annotate(Help.Sections, [Help.limits, Help.exits(0, 2, 7)]),
  Command.withExamples([
    { command: "ksi doctor", description: "With the flags, variables and ksi.toml that ksi start would use" },
    { command: "ksi doctor --sync normal", description: "What this flag of ksi start would mean" }
  ])
)
