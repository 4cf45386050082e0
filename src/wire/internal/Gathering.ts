// What all connections of a listener hold together of lines that have not ended. Each may send a long one, but so many
// clients with one each must not fill the memory: beyond the bound the one that holds most gives its line up.

/** Who gathers a line. */
export interface Gatherer {
  /** Bytes that it holds. */
  readonly gathered: number
  /** Lets them go, and skips what is left of the line. */
  readonly giveUp: () => void
}

/** The lines of all connections that are under way. */
export class Gathering {
  /** In bytes. */
  readonly max: number
  private used = 0
  private readonly gatherers = new Set<Gatherer>()

  constructor(max: number) {
    this.max = max
  }

  /** Counts what a gatherer holds more (or less), and makes others give up until it fits. */
  change(gatherer: Gatherer, bytes: number): void {
    this.used += bytes
    if (gatherer.gathered > 0) this.gatherers.add(gatherer)
    else this.gatherers.delete(gatherer)
    while (this.used > this.max) {
      const [first, ...others] = this.gatherers
      if (first === undefined) return
      others.reduce((most, other) => other.gathered > most.gathered ? other : most, first).giveUp()
    }
  }
}
