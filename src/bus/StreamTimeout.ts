/**
 * Streams whose items may not take for ever.
 *
 * The rule: only the wait for an item counts, not what its consumer does with it. A stream that takes too long fails with
 * `DeadlineExceeded`, and whoever makes its items is interrupted.
 *
 * **Example**
 *
 * ```ts
 * const slow = Stream.concat(Stream.succeed(1), Stream.never)
 * const error = yield* Effect.flip(Stream.runDrain(StreamTimeout.within("stock:watch", slow, { idle: "10 millis" })))
 * error.message                               // "stock:watch did not answer within 10 ms"
 * ```
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as KsiError from "../event/KsiError.ts"
import type { StreamOptions } from "./KsiService.ts"

const millisOf = (input: Duration.Input | undefined): number | undefined =>
  input === undefined ? undefined : Duration.toMillis(Duration.fromInputUnsafe(input))

/** The items of an event, which fail where the first of them, or the next, takes too long. Without such a time it is the stream itself. */
export const within = <A, E>(event: string, stream: Stream.Stream<A, E>, { firstItem, idle }: StreamOptions = {}): Stream.Stream<A, E | KsiError.KsiError> => {
  const between = millisOf(idle)
  const beginning = millisOf(firstItem) ?? between
  if (beginning === undefined && between === undefined) return stream
  return Stream.unwrap(Effect.map(Stream.toPull(stream), (pull) => {
    let isFirst = true
    return Stream.fromPull(Effect.succeed(Effect.suspend(() => {
      const millis = isFirst ? beginning : between
      isFirst = false
      return millis === undefined ? pull : Effect.timeoutOrElse(pull, {
        duration: millis, orElse: () => KsiError.fail(new KsiError.DeadlineExceeded({ event, millis }))
      })
    })))
  }))
}
