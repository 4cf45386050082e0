/**
 * The newest events by stream: position of each version, in memory, until they are sorted into the stream index.
 *
 * Keeping an index of (stream, version) up to date event by event dirties one page per event. Sorted by the thousand,
 * the same entries touch each page once (measured: several times the appends per second on a large store).
 *
 * The rule: the versions of one stream are without gaps, so one number and an array say where each of them is.
 */

interface Run {
  /** Version of the first of `positions`. */
  readonly first: number
  readonly positions: Array<number>
}

/** Events not yet in the stream index. */
export class StreamTail {
  private readonly runs = new Map<number, Run>()
  private size = 0

  /** How many events. */
  get count(): number {
    return this.size
  }

  /** Adds the next event of a stream. */
  push(stream: number, version: number, position: number): void {
    const run = this.runs.get(stream)
    if (run === undefined) this.runs.set(stream, { first: version, positions: [position] })
    else run.positions.push(position)
    this.size++
  }

  /** Takes the last event of a stream back. */
  pop(stream: number): void {
    const run = this.runs.get(stream)
    if (run === undefined) return
    run.positions.pop()
    if (run.positions.length === 0) this.runs.delete(stream)
    this.size--
  }

  /** The first version that is here. */
  first(stream: number): number | undefined {
    return this.runs.get(stream)?.first
  }

  /** The last version that is here. */
  last(stream: number): number | undefined {
    const run = this.runs.get(stream)
    return run === undefined ? undefined : run.first + run.positions.length - 1
  }

  /** The position of a version, if it is here. */
  position(stream: number, version: number): number | undefined {
    const run = this.runs.get(stream)
    return run?.positions[version - run.first]
  }

  /** `stream, version, position` of every event one after the other, in the order of the index. */
  sorted(): ReadonlyArray<number> {
    const entries: Array<number> = []
    for (const stream of [...this.runs.keys()].toSorted((a, b) => a - b)) {
      const run = this.runs.get(stream)
      run?.positions.forEach((position, i) => entries.push(stream, run.first + i, position))
    }
    return entries
  }
}
