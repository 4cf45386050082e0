/**
 * `ksi time at`: the state of every stream, or of one, at a position or an instant.
 *
 * **Example**
 *
 * ```ts
 * Time.momentOf("41")                         // 41
 * Time.momentOf("2018-03-15T12:00:00Z")       // "2018-03-15T12:00:00Z"
 * ```
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import type { JsonObject } from "../event/Json.ts"
import * as TimeTravel from "../store/TimeTravel.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

/** Digits are a position; everything else is an instant, which the daemon reads. */
export const momentOf = (text: string): string | number => /^\d{1,15}$/.test(text) ? Number(text) : text

/** A stream's state as columns for people. */
export const columns = (item: JsonObject): ReadonlyArray<string> => [
  Output.textOf(item["streamId"]),
  `v${Output.textOf(item["version"])}`,
  Output.textOf(item["lastEvent"]),
  Output.textOf(item["timestamp"] ?? "-"),
  JSON.stringify(item["state"] ?? null)
]

/** Exactly the promised fields, in their order. */
const lineOf = (item: JsonObject): string => {
  const { lastEvent, lastEventId, state, streamId, timestamp, version } = item
  return JSON.stringify({ streamId, version, lastEvent, lastEventId, timestamp, state })
}

/** A moment in words; of a position beyond the last one, the last one. */
const momentText = Effect.fnUntraced(function*(remote: Remote.Remote, moment: string, recorded: boolean) {
  const position = momentOf(moment)
  if (typeof position === "string") return recorded ? `${moment}, by when facts were recorded` : moment
  const { position: last } = yield* remote.call("system:health", {})
  return typeof last === "number" && position >= last ? `position ${last} (the last)` : `position ${position}`
})

const at = Command.make(
  "at",
  {
    moment: Argument.String("instant|position").pipe(
      Argument.withDescription("An RFC 3339 instant, as 2018-03-15T12:00:00Z, or a position")
    ),
    stream: Flag.String("stream").pipe(Flag.withDescription("Only this stream"), Flag.optional),
    projection: Flag.String("projection").pipe(Flag.withDescription("How facts become state; default latest"), Flag.optional),
    recorded: Flag.Boolean("recorded").pipe(
      Flag.withDescription("With an instant: go by when facts were recorded here, not by when they happened"),
      Flag.withDefault(false)
    ),
    all: Flag.Boolean("all").pipe(Flag.withDescription("Also KSI's own streams (ksi-…)"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function*({ all, moment, projection, recorded, stream }) {
    const wrong = TimeTravel.parseMoment(moment)
    if (Result.isFailure(wrong)) {
      return yield* Effect.fail(new Output.Usage({ message: wrong.failure, similar: [], next: "ksi time at --help" }))
    }
    const remote = yield* Remote.connect
    let count = 0
    const items = Remote.pages(remote, "time:at", {
      at: momentOf(moment),
      ...Remote.given({ stream: Option.getOrUndefined(stream), projection: Option.getOrUndefined(projection) }),
      ...(recorded ? { recorded } : {}),
      ...(all ? { all } : {})
    }).pipe(Stream.mapArray((page) => {
      count += page.length
      return page
    }))
    yield* Output.items(items, lineOf, columns)
    if (yield* Output.Json) return
    yield* Output.narrate(`${Output.counted(count, "stream")} as of ${yield* momentText(remote, moment, recorded)}`)
  }, Effect.scoped)
).pipe(
  Command.withDescription("The state of every stream at a moment"),
  Command.withExamples([{ command: "ksi time at 2018-03-15T12:00:00Z --stream order-1" }])
)

/** `ksi time`. */
export const time = Command.make("time").pipe(
  Command.withDescription("Look back: state as of a moment"),
  Command.withSubcommands([at])
)
