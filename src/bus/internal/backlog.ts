// What waits for one subscriber: facts and requests, each kind bounded for itself so that a flood of the one cannot push
// out the other, handed out in one order.
import type { StoredFact } from "../../event/CloudEvent.ts"
import * as Envelope from "../../event/Envelope.ts"

/** Things of one kind in the order they came, each with how many were left out just before it. */
export class Lane<A> {
  private items: Array<A> = []
  private gaps: Array<number> = []
  private left = 0

  get size(): number {
    return this.items.length
  }

  at(index: number): A | undefined {
    return this.items[index]
  }

  gapAt(index: number): number {
    return this.gaps[index] ?? 0
  }

  /** Adds the next one; `missed` came before it and are not in here. */
  push(item: A, missed = 0): void {
    this.items.push(item)
    this.gaps.push(missed + this.left)
    this.left = 0
  }

  /** Counts some that are left out before the next one. */
  skip(count: number): void {
    this.left += count
  }

  /** Adds one in place of the oldest. */
  slide(item: A): void {
    const missed = this.gapAt(0) + 1
    this.drop(1)
    this.push(item)
    this.gaps[0] = this.gapAt(0) + missed
  }

  /** Takes the first ones out. */
  drop(count: number): void {
    if (count === 0) return
    if (count >= this.items.length) {
      this.items = []
      this.gaps = []
    } else if (count === 1) {
      this.items.shift()
      this.gaps.shift()
    } else {
      this.items.splice(0, count)
      this.gaps.splice(0, count)
    }
  }
}

const withMissed = (delivery: Envelope.Delivery, missed: number): Envelope.Delivery =>
  missed === 0 ? delivery : { ...delivery, missed }

/** The facts and the requests of one subscriber. */
export class Backlog {
  readonly facts = new Lane<StoredFact>()
  readonly requests = new Lane<Envelope.Delivery>()

  get isEmpty(): boolean {
    return this.facts.size === 0 && this.requests.size === 0
  }

  /** Takes out at most so many. Facts keep the order of their positions; requests fall in between by time. */
  take(max: number): ReadonlyArray<Envelope.Delivery> {
    const { facts, requests } = this
    const deliveries: Array<Envelope.Delivery> = []
    let nextFact = 0
    let nextRequest = 0
    while (deliveries.length < max) {
      const fact = facts.at(nextFact)
      const request = requests.at(nextRequest)
      if (request !== undefined && (fact === undefined || request.metadata.timestamp <= fact.recordedAt)) {
        deliveries.push(withMissed(request, requests.gapAt(nextRequest++)))
      } else if (fact !== undefined) {
        deliveries.push(withMissed(Envelope.fromFact(fact, fact.data), facts.gapAt(nextFact++)))
      } else break
    }
    facts.drop(nextFact)
    requests.drop(nextRequest)
    return deliveries
  }
}
