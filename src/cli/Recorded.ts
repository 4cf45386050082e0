/**
 * `ksi export --as test`: recorded requests as given/when/then tests.
 *
 * **Example**
 *
 * ```ts
 * const some = { app: Option.none(), given: [], group: ["Shop"], trace: Option.some("c1") }
 * Recorded.payloadOf({ ...some, from: Option.none(), stream: Option.none(), to: Option.none() })
 * // => { trace: "c1", groups: ["Shop"] }
 * ```
 */
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { JsonObject } from "../event/Json.ts"
import { Io } from "./Io.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

/** What `export` takes besides, where it writes tests. */
export const flags = {
  as: Flag.Literals("as", ["events", "test"]).pipe(
    Flag.withDescription("events: the facts (default); test: the requests that led to them, as a given/when/then test that runs"),
    Flag.withMetavar("events|test"),
    Flag.withDefault("events" as const)
  ),
  trace: Flag.String("trace").pipe(Flag.withDescription("As a test: only this trace"), Flag.optional),
  given: Flag.String("given").pipe(
    Flag.withDescription("As a test: also the facts of this stream are given; may be repeated"), Flag.between(0, 100)
  ),
  app: Flag.String("app").pipe(Flag.withDescription("As a test: the module of the app; default ./app.ts"), Flag.optional),
  group: Flag.String("group").pipe(
    Flag.withDescription("As a test: a group of events that it exports; may be repeated; default by namespace"), Flag.between(0, 100)
  )
}

interface Only {
  readonly app: Option.Option<string>
  readonly given: ReadonlyArray<string>
  readonly group: ReadonlyArray<string>
  readonly trace: Option.Option<string>
}

interface Selected extends Only {
  readonly from: Option.Option<number>
  readonly stream: Option.Option<string>
  readonly to: Option.Option<number>
}

/** What `time:test` is asked. */
export const payloadOf = ({ app, from, given, group, stream, to, trace }: Selected): JsonObject => Remote.given({
  trace: Option.getOrUndefined(trace),
  stream: Option.getOrUndefined(stream),
  from: Option.getOrUndefined(from),
  to: Option.getOrUndefined(to),
  app: Option.getOrUndefined(app),
  given: given.length === 0 ? undefined : given,
  groups: group.length === 0 ? undefined : group
})

const usage = (message: string) => new Output.Usage({ message, similar: [], next: "ksi export --help" })

/** What chooses facts one by one, where a test needs all that a request led to. */
interface Filters {
  readonly pattern: Option.Option<string>
  readonly tag: Option.Option<string>
}

/** Prints the tests. */
export const print = Effect.fnUntraced(function*(remote: Remote.Remote, selected: Selected & Filters) {
  if (Option.isSome(selected.pattern) || Option.isSome(selected.tag)) {
    return yield* Effect.fail(usage("--pattern and --tag choose facts; a test has all that a request led to: choose with --trace or --stream"))
  }
  const { write } = yield* Io
  const { text } = yield* remote.call("time:test", payloadOf(selected))
  yield* (yield* Output.Json) ? write(`${JSON.stringify({ text })}\n`) : write(Output.textOf(text))
})

/** Refuses what makes no sense of facts as they are. */
export const refuse = ({ app, given, group, trace }: Only): Effect.Effect<void, Output.Usage> =>
  Option.isNone(app) && Option.isNone(trace) && given.length + group.length === 0
    ? Effect.void
    : Effect.fail(usage("--trace, --given, --app and --group are for --as test"))
