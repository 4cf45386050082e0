// What was worked out whole for one page, kept for the next ones: no more bytes than the limit `keptAnswerBytes`, no longer than a
// minute after the last page, and not beyond the removal of facts. Who comes later has it worked out again.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import { Limits } from "../../event/Limits.ts"
import { EventStore } from "../../store/EventStore.ts"
import { pace } from "../../store/internal/turns.ts"

/** Answers that are kept. */
const most = 2
/** How long, in milliseconds, after their last page. */
const keptMillis = 60_000

interface Kept<A> {
  readonly by: unknown
  readonly epoch: number
  readonly answer: A
  readonly bytes: number
  readonly until: number
}

/** Answers by the cursor that all their pages have in common. */
export interface KeptAnswers<A> {
  /** What this very projection answered, where no fact was removed since. */
  readonly get: (key: string, by: unknown) => A | undefined
  /** Keeps an answer as the newest, where it is not too long; `epoch` is of when it was begun, `items` are what it says. */
  readonly keep: (key: string, by: unknown, epoch: number, answer: A, items: ReadonlyArray<unknown>) => Effect.Effect<void>
  readonly forget: (key: string) => void
  /** To be asked before an answer is begun. */
  readonly epoch: () => number
}

/** About how many bytes items have as JSON; `undefined` where these are more than `max`. */
const bytesOf = Effect.fnUntraced(function*(items: ReadonlyArray<unknown>, max: number): Effect.fn.Return<number | undefined> {
  const { isLong, rest } = yield* pace
  let bytes = 0
  for (const item of items) {
    bytes += JSON.stringify(item).length
    if (bytes > max) return undefined
    if (isLong()) yield* rest
  }
  return bytes
})

/** Answers that live as long as the scope. */
export const make = <A>(): Effect.Effect<KeptAnswers<A>, never, EventStore | Scope.Scope> =>
  Effect.gen(function*() {
    const store = yield* EventStore
    const clock = yield* Clock.Clock
    const { keptAnswerBytes } = yield* Limits
    const answers = new Map<string, Kept<A>>()
    const some = Latch.makeUnsafe()
    const epoch = () => store.driver.snapshots.epoch()
    const isOver = ({ epoch: then, until }: Kept<A>): boolean => then !== epoch() || until <= clock.currentTimeMillisUnsafe()
    const sweep = () => {
      for (const [key, kept] of answers) if (isOver(kept)) answers.delete(key)
      if (answers.size === 0) some.closeUnsafe()
    }
    // Asleep where nothing is kept.
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(some.await, Effect.andThen(Effect.sleep(keptMillis), Effect.sync(sweep)))))
    /** The oldest go until the rest is within the bounds. */
    const shrink = () => {
      let bytes = 0
      for (const kept of answers.values()) bytes += kept.bytes
      for (const [key, kept] of answers) {
        if (answers.size <= most && bytes <= keptAnswerBytes) return
        answers.delete(key)
        bytes -= kept.bytes
      }
    }
    return {
      get: (key, by) => {
        sweep()
        const kept = answers.get(key)
        return kept?.by === by ? kept?.answer : undefined
      },
      keep: Effect.fnUntraced(function*(key, by, epoch, answer, items) {
        const known = answers.get(key)
        const bytes = known?.answer === answer ? known.bytes : yield* bytesOf(items, keptAnswerBytes)
        answers.delete(key)
        if (bytes === undefined) return
        answers.set(key, { by, epoch, answer, bytes, until: clock.currentTimeMillisUnsafe() + keptMillis })
        shrink()
        some.openUnsafe()
      }),
      forget: (key) => void answers.delete(key),
      epoch
    }
  })
