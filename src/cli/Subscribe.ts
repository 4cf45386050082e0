/**
 * `ksi subscribe`: what happens, as it happens.
 *
 * The rule: nothing is lost and nothing is said twice. When the daemon goes away the command waits for it and goes on
 * at the position after the last one it printed.
 *
 * **Example**
 *
 * ```ts
 * Subscribe.fromOf("41")                      // Result.succeed(41)
 * Subscribe.fromOf("yesterday")               // Result.fail("expected start, now or a position from 1, found \"yesterday\"")
 * ```
 *
 * **Gotchas** Requests (`--requests`) come live only: those of the time without a connection are not told later.
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import type { JsonObject } from "../event/Json.ts"
import * as EventPattern from "../event/EventPattern.ts"
import * as KsiError from "../event/KsiError.ts"
import * as Output from "./Output.ts"
import * as Registry from "./Registry.ts"
import * as Remote from "./Remote.ts"

/** Where to start: `start`, `now`, or a position; the failure is a sentence. */
export const fromOf = (text: string): Result.Result<Remote.From, string> => {
  if (text === "start" || text === "now") return Result.succeed(text)
  return /^[1-9]\d{0,14}$/.test(text)
    ? Result.succeed(Number(text))
    : Result.fail(`expected start, now or a position from 1, found "${text}"`)
}

/** What is printed of a delivery. */
export const itemOf = (frame: JsonObject): JsonObject =>
  Remote.given({
    position: frame["position"],
    version: frame["version"],
    stream_id: frame["stream_id"],
    event: frame["event"],
    event_id: frame["event_id"],
    timestamp: frame["timestamp"],
    data: frame["data"] ?? null
  })

/** A delivery as columns for people; a request has no position and no stream. */
export const columns = (item: JsonObject): ReadonlyArray<string> => [
  Output.textOf(item["position"] ?? "-"),
  new Date(Number(item["timestamp"]) * 1000).toISOString(),
  Output.textOf(item["event"]),
  Output.textOf(item["stream_id"] ?? "-"),
  JSON.stringify(item["data"])
]

// Doubling from a tenth of a second to at most five seconds, each a little off, so that many clients do not come back at once.
const backoff = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")]).pipe(Schedule.jittered)

const isLost = (error: unknown): boolean => KsiError.is(error) && error.reason._tag === "ConnectionLost"

/**
 * Follows a pattern across connections. `again` is told when the daemon is back, `lost` when it went away. The first
 * connection is not waited for.
 */
export const follow = <E, R, R2, R3>(options: {
  readonly connect: Effect.Effect<Pick<Remote.Remote, "subscribe">, E, R>
  readonly pattern: string
  readonly from: Remote.From
  readonly requests: boolean
  readonly lost: Effect.Effect<void, never, R2>
  readonly again: Effect.Effect<void, never, R3>
}) => {
  let from = options.from
  let live = false
  return Stream.unwrap(Effect.gen(function*() {
    const remote = yield* options.connect
    if (live) yield* options.again
    const frames = remote.subscribe(options.pattern, {
      from,
      requests: options.requests,
      opened: (position) => {
        live = true
        if (from === "now") from = position + 1
      }
    })
    return Stream.map(frames, (frame) => {
      const at = frame["position"]
      if (typeof at === "number") from = at + 1
      return itemOf(frame)
    })
  })).pipe(
    Stream.tapError((error) => live && isLost(error) ? options.lost : Effect.void),
    Stream.retry(Schedule.while(backoff, ({ input }) => live && isLost(input)))
  )
}

const fromText = (from: Remote.From): string =>
  from === "now" ? "from now on" : from === "start" ? "from the start" : `from position ${from} on`

/** Says what is followed, and whether any event is called so. */
const greet = Effect.fnUntraced(function*(remote: Remote.Remote, pattern: string, from: Remote.From) {
  if (yield* Output.Json) return
  yield* Output.narrate(`following ${pattern} ${fromText(from)}`)
  if (pattern === "*") return
  const { total_events: total } = yield* remote.call("system:discover", { pattern })
  if (total !== 0) return
  const nearest = yield* Registry.nearest(remote, pattern)
  // Facts of the past may be there all the same, and will show themselves.
  if (from !== "now" && nearest === "") return
  yield* Output.narrate(`no event is defined that ${pattern} matches; imported facts need no definition${nearest}`)
})

/** `ksi subscribe`. */
export const subscribe = Command.make(
  "subscribe",
  {
    pattern: Argument.String("pattern").pipe(Argument.withDescription("As stock:* or stock; * is everything")),
    from: Flag.String("from").pipe(
      Flag.withDescription("Where to start: start, now or a position"),
      Flag.withMetavar("start|now|POSITION"),
      Flag.withDefault("now")
    ),
    limit: Flag.Int("limit").pipe(Flag.withDescription("Stop after so many"), Flag.withMetavar("N"), Flag.optional),
    requests: Flag.Boolean("requests").pipe(Flag.withDescription("Requests too, live"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function*({ from: text, limit, pattern: words, requests }) {
    const pattern = EventPattern.said(words)
    const from = fromOf(text)
    const next = "ksi subscribe --help"
    if (Result.isFailure(from)) {
      return yield* Effect.fail(new Output.Usage({ message: `--from: ${from.failure}`, similar: [], next }))
    }
    if (Option.isSome(limit) && limit.value < 1) {
      return yield* Effect.fail(new Output.Usage({ message: `--limit: expected 1 or more, found ${limit.value}`, similar: [], next }))
    }
    yield* EventPattern.fromText(pattern)
    let waiting = false
    let greeted = false
    const items = follow({
      connect: Effect.tap(Remote.connect, (remote) => {
        if (greeted) return Effect.void
        greeted = true
        return greet(remote, pattern, from.success)
      }),
      pattern,
      from: from.success,
      requests,
      lost: Effect.suspend(() => {
        if (waiting) return Effect.void
        waiting = true
        return Output.narrate("the daemon went away; waiting for it")
      }),
      again: Effect.suspend(() => {
        waiting = false
        return Output.narrate("connected again")
      })
    })
    yield* Output.items(
      Option.isSome(limit) ? Stream.take(items, limit.value) : items,
      (item) => JSON.stringify(item),
      columns
    )
  })
).pipe(
  Command.withDescription("Print what happens, as it happens"),
  Command.withExamples([{ command: "ksi subscribe 'order:*' --from start" }])
)
