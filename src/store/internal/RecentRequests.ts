// The last requests of a process, in columns. What is kept is carried along by the collector until it is old, object by
// object, and that is most of what a short request costs: so nothing is kept of an envelope but its payload, and the texts
// and numbers that are asked for later; and what many requests have in common, once.
import * as Exit from "effect/Exit"
import { type ActivityRecord, type Ended, outcomeOf, reasonOf } from "../../bus/Activity.ts"

/** One request, as it is found again. */
export interface Row {
  readonly record: Omit<ActivityRecord, "data">
  readonly data: unknown
  readonly encode: Ended["encode"]
}

/** What requests of one event, asked by one client, have in common. */
interface Kind {
  readonly name: string
  readonly encode: Ended["encode"]
  readonly exit: Ended["exit"]
  /** `undefined` for a request that nothing caused: then it is its own id. */
  readonly correlationId: string | undefined
  readonly causationId: string | undefined
  readonly depth: number
  readonly principal: string
  readonly clientId: string | undefined
}

const isSame = (a: Kind, b: Kind): boolean =>
  a.name === b.name && a.encode === b.encode && a.exit === b.exit && a.correlationId === b.correlationId && a.causationId === b.causationId &&
  a.depth === b.depth && a.principal === b.principal && a.clientId === b.clientId

const kindOf = ({ encode, envelope: { id, metadata, name }, exit }: Ended): Kind => {
  const { correlationId } = metadata
  return {
    name,
    encode,
    // What was answered is not recorded, and a long answer must not be kept.
    exit: Exit.isSuccess(exit) ? Exit.void : exit,
    correlationId: correlationId === id ? undefined : correlationId,
    causationId: metadata.causationId,
    depth: metadata.depth,
    principal: metadata.principal,
    clientId: metadata.clientId
  }
}

const rowsOfSegment = 1024
// The first segment begins small: most runtimes of a test record a handful.
const rowsAtFirst = 16

const grown = (numbers: Float64Array): Float64Array => {
  const more = new Float64Array(rowsOfSegment)
  more.set(numbers)
  return more
}

/** So many requests in a row; forgotten as a whole, and then used again. */
class Segment {
  length = 0
  private readonly kinds: Array<Kind>
  private readonly ids: Array<string>
  private readonly data: Array<unknown>
  private readonly labels: Array<string | undefined>
  private durations: Float64Array
  private timestamps: Float64Array

  /** `rows`: room for so many; the lists grow by themselves, the numbers when they must. */
  constructor(rows: number) {
    this.kinds = new Array(rows)
    this.ids = new Array(rows)
    this.data = new Array(rows)
    this.labels = new Array(rows)
    this.durations = new Float64Array(rows)
    this.timestamps = new Float64Array(rows)
  }

  private grow(): void {
    this.durations = grown(this.durations)
    this.timestamps = grown(this.timestamps)
  }

  add(kind: Kind, { duration, envelope: { data, id, metadata } }: Ended): void {
    const at = this.length++
    if (at === this.durations.length) this.grow()
    this.kinds[at] = kind
    this.ids[at] = id
    this.data[at] = data
    this.labels[at] = metadata.clientCorrelationId
    this.durations[at] = duration
    this.timestamps[at] = metadata.timestamp
  }

  at(row: number): Row | undefined {
    const kind = this.kinds[row]
    const id = this.ids[row]
    if (kind === undefined || id === undefined) return undefined
    const { causationId, clientId, correlationId = id, depth, encode, exit, name, principal } = kind
    const [outcome, error] = outcomeOf(exit)
    return {
      data: this.data[row],
      encode,
      record: {
        id, name, outcome, error, reason: reasonOf(exit), duration: this.durations[row] ?? 0, timestamp: this.timestamps[row] ?? 0, correlationId, causationId, depth,
        principal, clientId, clientCorrelationId: this.labels[row]
      }
    }
  }
}

/** The last `max` requests. */
export class RecentRequests {
  private readonly max: number
  private readonly full: Array<Segment> = []
  private last = new Segment(rowsAtFirst)
  private kind: Kind | undefined

  constructor(max: number) {
    this.max = max
  }

  add(ended: Ended): void {
    if (this.last.length === rowsOfSegment) this.turn()
    const kind = kindOf(ended)
    if (this.kind === undefined || !isSame(this.kind, kind)) this.kind = kind
    this.last.add(this.kind, ended)
  }

  private turn(): void {
    this.full.push(this.last)
    const spare = this.full.length * rowsOfSegment >= this.max + rowsOfSegment ? this.full.shift() : undefined
    this.last = spare ?? new Segment(rowsOfSegment)
    this.last.length = 0
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
