/**
 * `ksi stream`: the items of a request that answers with a stream, a line each, as they are made.
 *
 * The rule: no more is asked of the handler than is printed: who reads slowly, or stops reading, holds it up, or ends it.
 *
 * **Example**
 *
 * ```ts
 * StreamRequest.countProblem("limit", 0)      // "--limit: expected 1 or more, found 0"
 * ```
 *
 * **Gotchas** A line is an item as JSON. What was printed before a failure stays printed; the exit code says that it is not all.
 */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as KsiError from "../event/KsiError.ts"
import * as Call from "./Call.ts"
import * as Help from "./Help.ts"
import * as Output from "./Output.ts"
import * as Remote from "./Remote.ts"

/** What is wrong with a number of items; `undefined` where nothing is. */
export const countProblem = (flag: "limit" | "buffer", count: number | undefined): string | undefined =>
  count === undefined || count >= 1 ? undefined : `--${flag}: expected 1 or more, found ${count}`

/** `ksi stream`. */
export const stream = Command.make(
  "stream",
  {
    ...Call.fields("request"),
    limit: Flag.Int("limit").pipe(Flag.withDescription("Stop after so many"), Flag.withMetavar("N"), Flag.optional),
    buffer: Flag.Int("buffer").pipe(
      Flag.withDescription("Items that may be made and not printed yet; default 65536"), Flag.withMetavar("N"), Flag.optional
    )
  },
  Effect.fnUntraced(function*(given) {
    const { event } = given
    const limit = Option.getOrUndefined(given.limit)
    const bufferSize = Option.getOrUndefined(given.buffer)
    const message = countProblem("limit", limit) ?? countProblem("buffer", bufferSize)
    if (message !== undefined) return yield* Effect.fail(new Output.Usage({ message, similar: [], next: "ksi stream --help" }))
    const { body, expected, remote } = yield* Call.prepared(given, Remote.connect)
    if (expected !== "stream") return yield* KsiError.fail(new KsiError.WrongShape({ event, used: "stream", expected }))
    const items = remote.stream(event, body, { bufferSize })
    yield* Output.lines(limit === undefined ? items : Stream.take(items, limit), (item) => JSON.stringify(item))
  }, Effect.scoped)
).pipe(
  Command.withDescription("Ask a request that answers with a stream; prints its items, one JSON a line"),
  Command.annotate(Help.Sections, [Help.exits(0, 1, 2, 3, 4, 5, 70, 130)]),
  Command.withExamples([{ command: "ksi stream stock:watch sku=tea --limit 3" }])
)
