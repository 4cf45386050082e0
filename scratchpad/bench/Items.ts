/** What the benchmark of streams streams: small objects without end, made by everybody in the same way. */
import type * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { Amount } from "./Bench.ts"

/** One item, some 50 characters of JSON. */
export const Item = Schema.Struct({ n: Schema.Int, sku: Schema.String, quantity: Schema.Int, open: Schema.Boolean })

export const itemOf = (n: number): typeof Item.Type => ({ n, sku: `sku-${n % 1000}`, quantity: n % 100, open: n % 2 === 0 })

/** Items in chunks of this size, each made when it is asked for. `made` is told of each chunk. */
export const chunked = (size: number, made?: (count: number) => void): Stream.Stream<typeof Item.Type> =>
  Stream.suspend(() => {
    let n = 0
    return Stream.fromPull(Effect.succeed(Effect.sync(() => {
      const chunk = Array.from({ length: size }, () => itemOf(n++))
      made?.(size)
      // A chunk has at least one.
      return chunk as unknown as Arr.NonEmptyReadonlyArray<typeof Item.Type>
    })))
  })

/** Reads for so long, and leaves the stream. */
export const counted = (items: Stream.Stream<unknown, unknown>, millis: number): Effect.Effect<Amount, unknown> =>
  Effect.scoped(Effect.gen(function*() {
    const start = performance.now()
    const pull = yield* Stream.toPull(items)
    let count = 0
    do count += (yield* pull).length
    while (performance.now() - start < millis)
    return { count, millis: performance.now() - start }
  }))

/** Throws where the first items are not what they should be. */
export const checked = (name: string, first: ReadonlyArray<unknown>): void => {
  const expected = JSON.stringify([itemOf(0), itemOf(1), itemOf(2)])
  if (JSON.stringify(first) !== expected) throw new Error(`${name} began with ${JSON.stringify(first)}`)
}

/** Who reads items from another process. */
export interface Reader {
  /** Reads chunks of this size for so long. */
  readonly read: (chunk: number, millis: number) => Promise<Amount>
  readonly stop: () => Promise<void>
}
