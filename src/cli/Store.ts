/**
 * `ksi export`, `streams` and `stream-log`: what is stored, read back without loss.
 *
 * **Example**
 *
 * ```ts
 * Store.logRow({ version: 1, position: 7, time: "2018-03-15T12:00:00Z", type: "order:placed", data: { total: 5 } })
 * // ["v1", "7", "2018-03-15T12:00:00Z", "order:placed", "{\"total\":5}"]
 * ```
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { JsonObject } from "../event/Json.ts"
import * as Output from "./Output.ts"
import * as Recorded from "./Recorded.ts"
import * as Remote from "./Remote.ts"

const all = Flag.Boolean("all").pipe(Flag.withDescription("Also KSI's own streams (ksi-…)"), Flag.withDefault(false))

const lineOf = (item: JsonObject): string => JSON.stringify(item)

/** A fact of a stream's log as columns for people. */
export const logRow = (event: JsonObject): ReadonlyArray<string> => [
  `v${Output.textOf(event["version"])}`,
  Output.textOf(event["position"]),
  Output.textOf(event["time"] ?? "-"),
  Output.textOf(event["type"]),
  event["data"] === undefined ? "-" : JSON.stringify(event["data"])
]

/** `ksi export`. */
export const exportEvents = Command.make(
  "export",
  {
    stream: Flag.String("stream").pipe(Flag.withDescription("Only this stream"), Flag.optional),
    pattern: Flag.String("pattern").pipe(Flag.withDescription("Only events of this pattern, as \"order:*\""), Flag.optional),
    tag: Flag.String("tag").pipe(Flag.withDescription("Only facts that have this tag"), Flag.optional),
    from: Flag.Int("from").pipe(Flag.withDescription("First position"), Flag.optional),
    to: Flag.Int("to").pipe(Flag.withDescription("Last position"), Flag.optional),
    all,
    ...Recorded.flags
  },
  Effect.fnUntraced(function*({ all: own, app, as, from, given, group, pattern, stream, tag, to, trace }) {
    const remote = yield* Remote.connect
    if (as === "test") return yield* Recorded.print(remote, { app, from, given, group, pattern, stream, tag, to, trace })
    yield* Recorded.refuse({ app, given, group, trace })
    const items = Remote.pages(remote, "store:export", {
      ...Remote.given({
        stream: Option.getOrUndefined(stream),
        pattern: Option.getOrUndefined(pattern),
        tag: Option.getOrUndefined(tag),
        from: Option.getOrUndefined(from),
        to: Option.getOrUndefined(to)
      }),
      ...(own ? { all: true } : {})
    })
    // CloudEvents, a line each, for people too: what comes out can be imported.
    yield* Output.lines(items, lineOf)
  }, Effect.scoped)
).pipe(
  Command.withDescription("Print facts as CloudEvents, a line each, without loss"),
  Command.withExamples([
    { command: "ksi export | gzip > facts.ndjson.gz" },
    { command: "ksi export --as test --trace 01a20232-d0ca-7000-8000-123400005678 > order.test.ts" }
  ])
)

/** `ksi streams`. */
export const streams = Command.make(
  "streams",
  {
    prefix: Argument.String("prefix").pipe(Argument.withDescription("Only streams whose id starts so"), Argument.optional),
    all
  },
  Effect.fnUntraced(function*({ all: own, prefix }) {
    const remote = yield* Remote.connect
    let found = false
    const items = Remote.pages(remote, "store:streams", {
      ...Remote.given({ prefix: Option.getOrUndefined(prefix) }),
      ...(own ? { all: true } : {})
    }).pipe(Stream.mapArray((page) => {
      found = true
      return page
    }))
    yield* Output.items(items, lineOf, ({ streamId, version }) => [Output.textOf(streamId), `v${Output.textOf(version)}`])
    if (!found) yield* Output.narrate(Option.match(prefix, { onNone: () => "no streams", onSome: (text) => `no streams that start with "${text}"` }))
  }, Effect.scoped)
).pipe(
  Command.withDescription("List streams and their versions"),
  Command.withExamples([{ command: "ksi streams order-" }])
)

/** `ksi stream-log`. */
export const streamLog = Command.make(
  "stream-log",
  { stream: Argument.String("streamId").pipe(Argument.withDescription("The stream's id")) },
  Effect.fnUntraced(function*({ stream }) {
    const remote = yield* Remote.connect
    yield* Output.items(Remote.pages(remote, "store:read", { stream }), lineOf, logRow)
  }, Effect.scoped)
).pipe(
  Command.withDescription("Print the history of one stream"),
  Command.withExamples([{ command: "ksi stream-log order-1" }])
)
