// The last requests of a process, in columns. What is kept is carried along by the collector until it is old, object by
// object, and that is most of what a short request costs: so nothing is kept of an envelope but the texts and numbers that
// are asked for later, and its payload.
import * as Exit from "effect/Exit"
import { type ActivityRecord, type Ended, outcomeOf } from "../../bus/Activity.ts"

/** One request, as it is found again. */
export interface Row {
  readonly record: Omit<ActivityRecord, "data">
  readonly data: unknown
  readonly encode: Ended["encode"]
}

const rowsOfSegment = 1024

const column = <A>(): Array<A> => new Array<A>(rowsOfSegment)

/** So many requests in a row; forgotten as a whole. */
class Segment {
  length = 0
  private readonly ids = column<string>()
  private readonly names = column<string>()
  private readonly data = column<unknown>()
  private readonly encoders = column<Ended["encode"]>()
  private readonly exits = column<Ended["exit"]>()
  private readonly durations = new Float64Array(rowsOfSegment)
  private readonly timestamps = new Float64Array(rowsOfSegment)
  private readonly correlationIds = column<string>()
  private readonly causationIds = column<string | undefined>()
  private readonly depths = column<number>()
  private readonly principals = column<string>()
  private readonly clientIds = column<string | undefined>()
  private readonly labels = column<string | undefined>()

  add({ duration, encode, envelope, exit }: Ended): void {
    const at = this.length++
    const { metadata } = envelope
    this.ids[at] = envelope.id
    this.names[at] = envelope.name
    this.data[at] = envelope.data
    this.encoders[at] = encode
    // What was answered is not recorded, and a long answer must not be kept.
    this.exits[at] = Exit.isSuccess(exit) ? Exit.void : exit
    this.durations[at] = duration
    this.timestamps[at] = metadata.timestamp
    this.correlationIds[at] = metadata.correlationId
    this.causationIds[at] = metadata.causationId
    this.depths[at] = metadata.depth
    this.principals[at] = metadata.principal
    this.clientIds[at] = metadata.clientId
    this.labels[at] = metadata.clientCorrelationId
  }

  at(row: number): Row | undefined {
    const [exit, encode] = [this.exits[row], this.encoders[row]]
    if (exit === undefined || encode === undefined) return undefined
    const [outcome, error] = outcomeOf(exit)
    return {
      data: this.data[row],
      encode,
      record: {
        id: this.ids[row] ?? "",
        name: this.names[row] ?? "",
        outcome,
        error,
        duration: this.durations[row] ?? 0,
        timestamp: this.timestamps[row] ?? 0,
        correlationId: this.correlationIds[row] ?? "",
        causationId: this.causationIds[row],
        depth: this.depths[row] ?? 0,
        principal: this.principals[row] ?? "",
        clientId: this.clientIds[row],
        clientCorrelationId: this.labels[row]
      }
    }
  }
}

/** The last `max` requests. */
export class RecentRequests {
  private readonly max: number
  private readonly full: Array<Segment> = []
  private last = new Segment()

  constructor(max: number) {
    this.max = max
  }

  add(ended: Ended): void {
    if (this.last.length === rowsOfSegment) {
      this.full.push(this.last)
      this.last = new Segment()
      if (this.full.length * rowsOfSegment >= this.max + rowsOfSegment) this.full.shift()
    }
    this.last.add(ended)
  }

  /** All of them, the oldest first. */
  *[Symbol.iterator](): Generator<Row> {
    let skipped = Math.max(0, this.full.length * rowsOfSegment + this.last.length - this.max)
    for (const segment of [...this.full, this.last]) {
      for (let at = Math.min(skipped, segment.length); at < segment.length; at++) {
        const row = segment.at(at)
        if (row !== undefined) yield row
      }
      skipped = Math.max(0, skipped - segment.length)
    }
  }
}
