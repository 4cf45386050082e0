// What all connections of a listener hold together of long lines: while they come in, and while their requests run. Each
// client may send some, but so many clients must not fill the memory: beyond the bound the longest that has not ended is given
// up, and one that has ended is refused. Short lines go on, so that others are served: their number is bounded elsewhere.

/** Who gathers a line. */
export interface Gatherer {
  /** Bytes that it holds. */
  readonly gathered: number
  /** Lets them go, and skips what is left of the line. */
  readonly giveUp: () => void
}

/** A line of at most so many bytes counts nothing. */
export const shortBytes = 4096

/** The long lines of all connections. */
export class Gathering {
  /** In bytes. */
  readonly max: number
  private used = 0
  private readonly gatherers = new Set<Gatherer>()

  constructor(max: number) {
    this.max = max
  }

  /** Whether a line of so many bytes may become a request. */
  hasRoom(bytes: number): boolean {
    return bytes <= shortBytes || this.used + bytes <= this.max
  }

  /** Counts the line of a request that runs (negative: has ended). */
  pin(bytes: number): void {
    if (Math.abs(bytes) > shortBytes) this.used += bytes
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
