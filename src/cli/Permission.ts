/**
 * `ksi permission`: who may do what; grant it, take it away, ask why.
 *
 * **Example**
 *
 * ```ts
 * const grant = { principal: "token:till-1a2b3c4d", pattern: "order:*", actions: ["call", "subscribe"], allow: true }
 * Permission.columns(grant)
 * // ["token:till-1a2b3c4d", "allow", "order:*", "call, subscribe"]
 * ```
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as EventName from "../event/EventName.ts"
import { actions, profileNames } from "../event/Grant.ts"
import { isObject, type JsonObject } from "../event/Json.ts"
import * as Output from "./Output.ts"
import { tellUnknown } from "./Registry.ts"
import * as Remote from "./Remote.ts"
import { momentOf } from "./Time.ts"

const listOf = (u: unknown): ReadonlyArray<unknown> => Array.isArray(u) ? u : []

/** Something that was given, as columns for people. */
export const columns = (item: JsonObject): ReadonlyArray<string> => {
  const { actions: given, allow, pattern, principal, profile } = item
  const whose = principal === undefined ? [] : [Output.textOf(principal)]
  if (profile !== undefined) return [...whose, "profile", Output.textOf(profile), ""]
  const isAll = listOf(given).length === actions.length
  return [...whose, allow === false ? "deny" : "allow", Output.textOf(pattern), isAll ? "everything" : listOf(given).map(Output.textOf).join(", ")]
}

const principal = Argument.String("principal").pipe(Argument.withDescription("Who, as token:till-1a2b3c4d or local-http"))
const pattern = Argument.String("pattern").pipe(Argument.withDescription("Which events, as order:* or order:placed"), Argument.optional)
const profile = Flag.Literals("profile", profileNames).pipe(
  Flag.withDescription("A named set of rules, each more than the one before"),
  Flag.withMetavar(profileNames.join("|")),
  Flag.optional
)
const action = Flag.Literals("action", actions).pipe(
  Flag.withDescription("What may be done; may be repeated; default all"),
  Flag.withMetavar(actions.join("|")),
  Flag.atLeast(0)
)
const at = Flag.String("at").pipe(Flag.withDescription("As of this instant or position"), Flag.withMetavar("MOMENT"), Flag.optional)

interface Chosen {
  readonly principal: string
  readonly pattern: Option.Option<string>
  readonly profile: Option.Option<string>
  readonly action: ReadonlyArray<string>
}

const chosen = ({ action, pattern, principal, profile }: Chosen): JsonObject =>
  Remote.given({
    principal,
    pattern: Option.getOrUndefined(pattern),
    profile: Option.getOrUndefined(profile),
    actions: action.length === 0 ? undefined : action
  })

/** Says what a principal has now, under whatever was said about it. */
const tell = (reply: JsonObject) => {
  const { principal, profiles, rules } = reply
  const rows = [
    ...listOf(profiles).map((profile) => columns({ profile })),
    ...listOf(rules).filter(isObject).map(columns)
  ]
  const text = Output.aligned(rows).map((line) => `  ${line}\n`).join("")
  return Output.documentOr({ principal, profiles, rules }, () =>
    `${Output.textOf(principal)} has ${rows.length === 0 ? "nothing now" : "now"}\n${text}`)
}

/** Says so where nobody has the name that something was given to, as far as one may know. Silent with `--json`. */
const tellNobody = Effect.fnUntraced(function*(remote: Remote.Remote, principal: string) {
  if (yield* Output.Json) return
  const { tokens } = yield* remote.call("permission:token_list", {}).pipe(Effect.orElseSucceed((): JsonObject => ({})))
  if (tokens === undefined) return
  const known = ["local-http", ...listOf(tokens).filter(isObject).map((token) => Output.textOf(token["principal"]))]
  if (known.includes(principal)) return
  // A token's bearer has a longer name than the token was given.
  const bearers = known.filter((name) => name.startsWith(`token:${principal}-`) || name === `token:${principal}`)
  const near = bearers.length > 0 ? bearers : EventName.nearest(principal, known)
  yield* Output.narrate(`nobody is called "${principal}" yet${near.length === 0 ? "" : `; nearest: ${near.join(", ")}`}`)
})

const grant = Command.make(
  "grant",
  {
    principal, pattern, profile, action,
    deny: Flag.Boolean("deny").pipe(Flag.withDescription("Deny it, whatever a profile says"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function*({ deny, ...given }) {
    const remote = yield* Remote.connect
    yield* tell(yield* remote.call("permission:grant", { ...chosen(given), ...(deny ? { allow: false } : {}) }))
    yield* tellNobody(remote, given.principal)
    if (Option.isSome(given.pattern)) yield* tellUnknown(remote, given.pattern.value)
  }, Effect.scoped)
).pipe(
  Command.withDescription("Give somebody a profile, or allow them events by a pattern"),
  Command.withExamples([
    { command: "ksi permission grant local-http 'order:*' --action call --action subscribe" },
    { command: "ksi permission grant local-http --profile trusted" }
  ])
)

const revoke = Command.make(
  "revoke",
  { principal, pattern, profile, action },
  Effect.fnUntraced(function*(given) {
    const remote = yield* Remote.connect
    yield* tell(yield* remote.call("permission:revoke", chosen(given)))
  }, Effect.scoped)
).pipe(
  Command.withDescription("Take a profile or a grant away, at once"),
  Command.withExamples([{ command: "ksi permission revoke local-http --profile standard" }])
)

const momentIn = (at: Option.Option<string>) => Option.getOrUndefined(Option.map(at, momentOf))

const check = Command.make(
  "check",
  {
    event: Argument.String("event").pipe(Argument.withDescription("The event's name")),
    principal: Argument.String("principal").pipe(Argument.withDescription("Who; oneself when absent"), Argument.optional),
    action: Flag.Literals("action", actions).pipe(
      Flag.withDescription("What; what the event is for when absent"), Flag.withMetavar(actions.join("|")), Flag.optional
    ),
    at
  },
  Effect.fnUntraced(function*({ action, at, event, principal }) {
    const remote = yield* Remote.connect
    const { _ksi_context: _, status: __, ...reply } = yield* remote.call("permission:check", Remote.given({
      event, principal: Option.getOrUndefined(principal), action: Option.getOrUndefined(action), at: momentIn(at)
    }))
    const { action: what, allowed, because, next, principal: who } = reply
    yield* Output.documentOr(reply, () =>
      `${Output.textOf(who)} ${allowed === true ? "may" : "may not"} ${Output.textOf(what)} ${event}: ${Output.textOf(because)}\n` +
      (next === undefined ? "" : `  next  ${Output.textOf(next)}\n`))
    yield* tellUnknown(remote, event)
    if (allowed !== true) return yield* Effect.fail(new Output.Ended({ code: Output.exitCodes.PermissionDenied }))
  }, Effect.scoped)
).pipe(
  Command.withDescription("Whether somebody may, and what decides; exit code 4 where not"),
  Command.withExamples([{ command: "ksi permission check store:import local-http" }])
)

const ls = Command.make(
  "ls",
  {
    principal: Argument.String("principal").pipe(Argument.withDescription("Only what this one was given"), Argument.optional),
    profile: Flag.Literals("profile", profileNames).pipe(Flag.withDescription("What this profile means, instead"), Flag.withMetavar(profileNames.join("|")), Flag.optional),
    at
  },
  Effect.fnUntraced(function*({ at, principal, profile }) {
    const remote = yield* Remote.connect
    let some = false
    const items = Remote.pages(remote, "permission:list", Remote.given({
      principal: Option.getOrUndefined(principal), profile: Option.getOrUndefined(profile), at: momentIn(at)
    })).pipe(Stream.mapArray((page) => {
      some = true
      return page
    }))
    yield* Output.items(items, (item) => JSON.stringify(item), columns)
    if (some) return
    yield* Output.narrate("nothing was granted")
    if (Option.isSome(principal)) yield* tellNobody(remote, principal.value)
  }, Effect.scoped)
).pipe(
  Command.withDescription("List who was given what"),
  Command.withExamples([{ command: "ksi permission ls local-http" }, { command: "ksi permission ls --profile standard", description: "What the profile allows" }])
)

/** `ksi permission`. */
export const permission = Command.make("permission").pipe(
  Command.withDescription("Who may do what: grant, revoke, check, list"),
  Command.withSubcommands([grant, revoke, check, ls])
)
