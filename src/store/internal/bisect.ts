// Looks for the place from which on something holds, by halves: with it in order, log2 n looks find it.
import * as Effect from "effect/Effect"

/** The least number from `low` to before `high` for which it holds, `high` where there is none; it must hold for all above. */
export const firstWhere = (low: number, high: number, holds: (n: number) => boolean): number => {
  let from = low
  let to = high
  while (from < to) {
    const middle = Math.floor((from + to) / 2)
    if (holds(middle)) to = middle
    else from = middle + 1
  }
  return from
}

/** The same where a look is an effect. */
export const firstWhereEffect = Effect.fnUntraced(function*<E>(
  low: number,
  high: number,
  holds: (n: number) => Effect.Effect<boolean, E>
): Effect.fn.Return<number, E> {
  let from = low
  let to = high
  while (from < to) {
    const middle = Math.floor((from + to) / 2)
    if (yield* holds(middle)) to = middle
    else from = middle + 1
  }
  return from
})
