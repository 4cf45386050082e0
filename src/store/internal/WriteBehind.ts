// Rows that are written behind: a buffer, and the fiber that writes it in batches, each in one turn of the event loop.
// Nobody fails for it: a batch that cannot be written (disk full) is lost, counted, and said once until it goes well again.
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import * as StoreFile from "./StoreFile.ts"

const batchMillis = 25
const batchRows = 512

/** Where rows go, and what becomes of those that find no room. */
export interface Options<A> {
  /** What the writer does, for the error: `record activity`. */
  readonly operation: string
  /** Writes rows, in one transaction. */
  readonly write: (batch: ReadonlyArray<A>) => void
  /** Rows that may wait. */
  readonly max: number
  /** `slow`: who brings one more is told to wait. `forget`: the oldest goes, for it is the next to go anyway. */
  readonly whenFull: "slow" | "forget"
  /** The rows, for what is said when they are lost, and when they are not any more: `requests`. */
  readonly rows: string
  readonly lost: Metric.Counter<number>
}

/** Rows on their way. */
export interface WriteBehind<A> {
  /** Takes a row. `undefined`, or with `slow` and no room an effect to wait for. */
  readonly push: (row: A) => Effect.Effect<void> | undefined
  /** Writes all that wait. */
  readonly flush: Effect.Effect<void>
}

/** A buffer that lives as long as the scope, which writes the rest when it closes. */
export const make = <A>(options: Options<A>): Effect.Effect<WriteBehind<A>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { lost, max, operation, rows, whenFull, write } = options
    const buffer: Array<A> = []
    const some = Latch.makeUnsafe()
    const full = Latch.makeUnsafe()
    const room = Latch.makeUnsafe(true)
    let missing = 0

    // Who waits for room goes on in a turn of its own, when the batch is written: it may flush, and find nothing left to write.
    const makeRoom = Effect.suspend(() => buffer.length < max ? Effect.asVoid(room.open) : Effect.void)

    // Taken and written in one step, and then counted: whoever flushes may be interrupted at any other.
    const writeBatch = Effect.uninterruptible(Effect.suspend(() => {
      let batch: ReadonlyArray<A> = []
      const writing = StoreFile.attempt(operation, () => {
        batch = buffer.splice(0, batchRows)
        if (batch.length > 0) write(batch)
      })
      const written = Effect.matchEffect(writing, {
        onSuccess: () => {
          const were = missing
          missing = 0
          return were === 0 ? Effect.void : Effect.logInfo(`${rows} are recorded again; ${were} were not`)
        },
        onFailure: (error) => {
          const first = missing === 0
          missing += batch.length
          const counted = Metric.update(lost, batch.length)
          return first ? Effect.andThen(counted, Effect.logError(`${rows} are not recorded`, error.message)) : counted
        }
      })
      return Effect.andThen(written, makeRoom)
    }))
    // A turn of the event loop between batches, so that requests go on meanwhile. What they bring waits for the next time: else
    // each turn's few rows would be a batch of their own.
    const writeRows = (left: number): Effect.Effect<void> =>
      left <= 0 ? Effect.void : Effect.flatMap(writeBatch, () => Effect.andThen(Effect.yieldNow, writeRows(left - batchRows)))
    const flush = Effect.suspend(() => writeRows(buffer.length))

    // Nobody comes any more, and who is still there shall not be missing.
    yield* Effect.addFinalizer(() => Effect.repeat(flush, { until: () => buffer.length === 0 }))
    yield* Effect.forkScoped(Effect.forever(Effect.gen(function*() {
      yield* some.await
      yield* Effect.raceFirst(Effect.sleep(batchMillis), full.await)
      some.closeUnsafe()
      full.closeUnsafe()
      yield* flush
    })))

    return {
      flush,
      push: (row) => {
        buffer.push(row)
        some.openUnsafe()
        if (buffer.length < max) return undefined
        if (whenFull === "forget") {
          full.openUnsafe()
          if (buffer.length > max) buffer.shift()
          return undefined
        }
        // It is taken all the same: so the buffer holds at most one more for every request that is running. Closed before the
        // writer is woken: that one may write all of it at once, and open it again.
        room.closeUnsafe()
        full.openUnsafe()
        return room.await
      }
    }
  })
