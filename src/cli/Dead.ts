/**
 * `ksi dead`: reactions to facts that failed; look at them, rerun them, discard them.
 *
 * **Example**
 *
 * ```ts
 * const letter = { letter: 3, event: "order:placed", handler: "order:placed#1", timestamp: 1521115200 }
 * Dead.columns({ ...letter, reason: "failed", error: "no paper", reruns: 1 })
 * // ["3", "2018-03-15T12:00:00.000Z", "order:placed", "order:placed#1", "failed", "1", "no paper"]
 * ```
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { JsonObject } from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import { answerOf } from "./Call.ts"
import * as Output from "./Output.ts"
import { tellUnknown } from "./Registry.ts"
import * as EventPattern from "../event/EventPattern.ts"
import * as Remote from "./Remote.ts"

/** A letter as columns for people. */
export const columns = (item: JsonObject): ReadonlyArray<string> => [
  Output.textOf(item["letter"]),
  new Date(Number(item["timestamp"]) * 1000).toISOString(),
  Output.textOf(item["event"]),
  Output.textOf(item["handler"]),
  Output.textOf(item["reason"]),
  Output.grouped(Number(item["reruns"])),
  Output.textOf(item["error"])
]

const lineOf = (item: object): string => JSON.stringify(item)

const letterArgument = Argument.Int("letter").pipe(Argument.withDescription("The letter's number, as ksi dead ls tells it"))

const lettersArgument = letterArgument.pipe(Argument.atLeast(1))

const ls = Command.make(
  "ls",
  {
    pattern: Argument.String("pattern").pipe(
      Argument.withDescription("Only letters of these events, as order:* or order"),
      Argument.optional
    )
  },
  Effect.fnUntraced(function*({ pattern }) {
    const remote = yield* Remote.connect
    let some = false
    const items = Remote.pages(remote, "deadletter:list", Remote.given({
      pattern: Option.getOrUndefined(Option.map(pattern, EventPattern.said))
    })).pipe(Stream.mapArray((page) => {
      some = true
      return page
    }))
    yield* Output.items(items, lineOf, columns, ["letter", "failed at", "event", "handler", "reason", "reruns", "error"])
    if (some) return
    yield* Output.narrate("no dead letters")
    if (Option.isSome(pattern)) yield* tellUnknown(remote, EventPattern.said(pattern.value))
  }, Effect.scoped)
).pipe(
  Command.withDescription("List reactions that failed, newest first"),
  Command.withExamples([{ command: "ksi dead ls 'order:*'" }])
)

const show = Command.make(
  "show",
  { letter: letterArgument },
  Effect.fnUntraced(function*({ letter }) {
    const remote = yield* Remote.connect
    yield* Output.document(answerOf(yield* remote.call("deadletter:show", { letter }), {}))
  }, Effect.scoped)
).pipe(
  Command.withDescription("Show a letter with its event and data"),
  Command.withExamples([{ command: "ksi dead show 3" }])
)

/** What became of a rerun. */
interface Rerun {
  readonly letter: number
  readonly status: "handled" | "failed"
  readonly error?: string
}

const rerunOne = (remote: Remote.Remote, letter: number): Effect.Effect<Rerun, Remote.RemoteError> =>
  remote.call("deadletter:rerun", { letter }).pipe(
    Effect.map((): Rerun => ({ letter, status: "handled" })),
    // The others can still be tried; anything else than a handler that failed again concerns them too.
    Effect.catchIf(
      (error) => KsiError.is(error) && error.reason._tag === "HandlerFailed",
      (error) => Effect.succeed<Rerun>({ letter, status: "failed", error: error.message })
    )
  )

const rerun = Command.make(
  "rerun",
  { letters: lettersArgument },
  Effect.fnUntraced(function*({ letters }) {
    const remote = yield* Remote.connect
    let failed = 0
    const reruns = Stream.fromIterable(letters).pipe(
      Stream.rechunk(1),
      Stream.mapEffect((letter) => rerunOne(remote, letter)),
      Stream.tap(({ status }) => Effect.sync(() => void (failed += status === "failed" ? 1 : 0)))
    )
    yield* Output.items(reruns, lineOf, ({ error = "", letter, status }) => [`${letter}`, status, error])
    if (failed > 0) return yield* Effect.fail(new Output.Ended({ code: Output.exitCodes.HandlerFailed }))
  }, Effect.scoped)
).pipe(
  Command.withDescription("Run the handlers of letters once more, one after the other"),
  Command.withExamples([{ command: "ksi dead ls --json | jq .letter | xargs ksi dead rerun" }])
)

const discard = Command.make(
  "discard",
  { letters: lettersArgument },
  Effect.fnUntraced(function*({ letters }) {
    const remote = yield* Remote.connect
    const reply = yield* remote.call("deadletter:discard", { letters })
    const discarded = Number(reply["discarded"])
    if (discarded === 0) {
      return yield* KsiError.fail(new KsiError.NotFound({ what: "dead letter", id: letters.join(", "), similar: [] }))
    }
    yield* Output.documentOr({ discarded }, () => `discarded ${Output.counted(discarded, "letter")}\n`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("Remove letters without running anything"),
  Command.withExamples([{ command: "ksi dead discard 3 4" }])
)

/** `ksi dead`. */
export const dead = Command.make("dead").pipe(
  Command.withDescription("Reactions to facts that failed: look, rerun, discard"),
  Command.withSubcommands([ls, show, rerun, discard])
)
