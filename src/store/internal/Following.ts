// Follows the facts of a store from a position: stored ones first, then live ones, without a gap and without a repeat.
//
// What is committed while somebody is behind is read back when it comes to that. Once there is nothing left to read, commits are
// held as they are heard, up to a bound; beyond it the first that found no room is where reading begins again. The step from
// reading to hearing is one turn of the event loop, after a look at the head.
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { StoredFact } from "../../event/CloudEvent.ts"
import type { Compiled } from "../../event/FactQuery.ts"
import type { KsiError } from "../../event/KsiError.ts"
import type { Driver } from "./Driver.ts"

class Following {
  private readonly driver: Driver
  private readonly query: Compiled
  private readonly capacity: number
  private held: Array<StoredFact> = []
  /** The first position that has not been looked at. */
  private next: number
  private isLive = false
  private resume: (() => void) | undefined

  constructor(driver: Driver, query: Compiled, capacity: number, from: number) {
    this.driver = driver
    this.query = query
    this.capacity = capacity
    this.next = from
  }

  readonly isIdle = (): boolean => !this.isLive

  readonly hear = (facts: ReadonlyArray<StoredFact>): void => {
    if (!this.isLive) return
    for (const fact of facts) {
      if (fact.position < this.next) continue
      if (this.query.matches(fact)) {
        if (this.held.length === this.capacity) {
          this.isLive = false
          break
        }
        this.held.push(fact)
      }
      this.next = fact.position + 1
    }
    const { resume } = this
    if (this.held.length === 0 || resume === undefined) return
    this.resume = undefined
    resume()
  }

  /** The next facts, at least one. */
  readonly take: Effect.Effect<ReadonlyArray<StoredFact>, KsiError> = Effect.suspend(() => {
    if (this.held.length > 0) {
      const { held } = this
      this.held = []
      return Effect.succeed(held)
    }
    if (!this.isLive && this.next > this.driver.head()) this.isLive = true
    return this.isLive ? Effect.flatMap(this.somethingCame, () => this.take) : this.readOn
  })

  private readonly readOn = Effect.suspend(() => {
    const { capacity, driver, next, query } = this
    const head = driver.head()
    return Effect.flatMap(driver.search({ query, from: next, to: head, limit: capacity, backward: false }), (found) => {
      this.next = found.next ?? head + 1
      // A page may be empty, and many may follow one another.
      return found.facts.length > 0 ? Effect.succeed(found.facts) : Effect.andThen(Effect.yieldNow, this.take)
    })
  })

  private readonly somethingCame: Effect.Effect<void> = Effect.callback<void>((resume) => {
    // The fiber may have yielded since it looked.
    if (this.held.length > 0 || !this.isLive) return resume(Effect.void)
    // In a turn of its own: never on the stack of who commits.
    this.resume = () => resume(Effect.yieldNow)
    return Effect.sync(() => {
      this.resume = undefined
    })
  })
}

/** The facts from a position on, for ever. */
export const follow = (driver: Driver, query: Compiled, capacity: number, from: number): Stream.Stream<StoredFact, KsiError> =>
  Stream.unwrap(Effect.gen(function*() {
    const following = new Following(driver, query, capacity, from)
    yield* driver.listen(following.hear, following.isIdle)
    return Stream.paginate(undefined, () => Effect.map(following.take, (facts) => [facts, Option.some(undefined)] as const))
  }))
