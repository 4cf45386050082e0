/**
 * `ksi token`: tokens, with which a client says who it is. The token itself is all that `create` writes to stdout.
 *
 * **Example**
 *
 * ```ts
 * Token.secondsOf("30d")                      // 2592000
 * Token.secondsOf("90 minutes")               // undefined
 * ```
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { profileNames } from "../event/Grant.ts"
import { isObject, type JsonObject } from "../event/Json.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

const units: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 }

/** Seconds of a text such as `45s`, `10m`, `12h`, `30d` or `4w`; `undefined` for another one. */
export const secondsOf = (text: string): number | undefined => {
  const [, count, unit = ""] = /^(\d{1,9})([smhdw])$/.exec(text) ?? []
  const seconds = Number(count) * (units[unit] ?? Number.NaN)
  return seconds >= 1 ? seconds : undefined
}

const timeText = (seconds: unknown): string => new Date(Number(seconds) * 1000).toISOString()

const expiry = ({ expires }: JsonObject): string => expires === undefined ? "never expires" : `expires ${timeText(expires)}`

/** A token as columns for people. */
export const columns = (token: JsonObject): ReadonlyArray<string> => {
  const { by, created, id, profiles, valid } = token
  const names = Array.isArray(profiles) ? profiles.map(Output.textOf).join(", ") : ""
  return [Output.textOf(id), names === "" ? "no profile" : names, timeText(created), valid === false ? "expired" : expiry(token), Output.textOf(by)]
}

const create = Command.make(
  "create",
  {
    name: Argument.String("name").pipe(Argument.withDescription("What its id begins with, as till"), Argument.optional),
    profile: Flag.Literals("profile", profileNames).pipe(
      Flag.withDescription("What it may do; nothing when absent"),
      Flag.withMetavar(profileNames.join("|")),
      Flag.optional
    ),
    expires: Flag.String("expires").pipe(
      Flag.withDescription("How long it is valid: 45s, 10m, 12h, 30d, 4w; for ever when absent"),
      Flag.withMetavar("TIME"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function*({ expires, name, profile }) {
    const text = Option.getOrUndefined(expires)
    const seconds = text === undefined ? undefined : secondsOf(text)
    if (text !== undefined && seconds === undefined) {
      const message = `--expires must be a time such as 12h or 30d, not "${text}"`
      return yield* Effect.fail(new Output.Usage({ message, similar: [], next: "ksi token create --help" }))
    }
    const remote = yield* Remote.connect
    const { _ksi_context: _, status: __, ...made } = yield* remote.call("permission:token_create", Remote.given({
      name: Option.getOrUndefined(name), profile: Option.getOrUndefined(profile), expires_in: seconds
    }))
    const { principal, token } = made
    yield* Output.narrate(`${Output.textOf(principal)}, ${expiry(made)}; the token is shown this one time:`)
    yield* Output.documentOr(made, () => `${Output.textOf(token)}\n`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("Make a token; it is shown once"),
  Command.withExamples([
    { command: "ksi token create till --profile standard --expires 30d > till.token" },
    { command: "KSI_TOKEN_FILE=till.token ksi discover", description: "What its bearer may use" }
  ])
)

const ls = Command.make("ls", {}, Effect.fnUntraced(function*() {
  const remote = yield* Remote.connect
  const { tokens: given } = yield* remote.call("permission:token_list", {})
  const tokens = Array.isArray(given) ? given.filter(isObject) : []
  yield* Output.items(Stream.fromIterable(tokens), (token) => JSON.stringify(token), columns)
  if (tokens.length === 0) yield* Output.narrate("no tokens")
}, Effect.scoped)).pipe(
  Command.withDescription("List the tokens that were not revoked"),
  Command.withExamples([{ command: "ksi token ls" }])
)

const revoke = Command.make(
  "revoke",
  { id: Argument.String("id").pipe(Argument.withDescription("The token's id, as ksi token ls tells it")) },
  Effect.fnUntraced(function*({ id }) {
    const remote = yield* Remote.connect
    const { principal } = yield* remote.call("permission:token_revoke", { id })
    yield* Output.documentOr({ id, principal }, () => `revoked ${id}\n`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("End a token at once, also for connections that are open"),
  Command.withExamples([{ command: "ksi token revoke till-1a2b3c4d" }])
)

/** `ksi token`. */
export const token = Command.make("token").pipe(
  Command.withDescription("Tokens, with which clients say who they are: create, list, revoke"),
  Command.withSubcommands([create, ls, revoke])
)
