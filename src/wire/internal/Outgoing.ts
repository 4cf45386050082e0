// What waits to be written to one connection. Everything appended in one turn of the event loop leaves in one write;
// while the other side does not read, what comes after gathers here, up to what all connections may hold together.
import { Buffer } from "node:buffer"
import * as Effect from "effect/Effect"

// Short texts are gathered up to here, so that no write is much longer: one text of everything might be too long to be.
const chunkLength = 256 * 1024
// Of a text no longer than this the characters are counted, which costs nothing; more than three times as many bytes
// they cannot be.
const shortLength = 1024

const bytesOf = (text: string): number => text.length <= shortLength ? text.length : Buffer.byteLength(text)

interface Chunk {
  readonly text: string
  readonly bytes: number
}

const nothing: Chunk = { text: "", bytes: 0 }

/** Who holds bytes that the other side has not read. */
export interface Holder {
  readonly bytes: number
  /** Whether some of it may leave at once. */
  readonly canFlush: boolean
  readonly flush: () => void
  /** Gives it all up, and says so (`change`) before it returns. */
  readonly overflow: () => void
}

/** What may wait in all connections together. When it is too much, whoever holds most of it must go. */
export class Budget {
  private readonly max: number
  private used = 0
  private readonly members = new Set<Holder>()

  /** `max` in bytes. */
  constructor(max: number) {
    this.max = max
  }

  /** Counts what a connection holds more (or less), and breaks connections until it fits. */
  change(member: Holder, bytes: number): void {
    this.used += bytes
    if (member.bytes > 0) this.members.add(member)
    else this.members.delete(member)
    while (this.used > this.max) {
      const [first, ...others] = this.members
      if (first === undefined) return
      const most = others.reduce((most, other) => other.bytes > most.bytes ? other : most, first)
      // One that has just been answered much may well be reading.
      if (most.canFlush) most.flush()
      else most.overflow()
    }
  }
}

/** The writing side of one connection, and the place to wait for it. */
export class Outgoing implements Holder {
  /** What waits, in its order; `tail` comes after it. */
  private readonly chunks: Array<Chunk> = []
  private tail: Chunk = nothing
  private queued = 0
  /** Bytes that were handed over and not read yet. */
  private unread = 0
  private blocked = false
  private broken = false
  private scheduled = false
  private held = false
  private readonly waiting = new Set<() => void>()
  private readonly write: (text: string) => boolean
  private readonly capacity: number
  private readonly budget: Budget
  private readonly onOverflow: (bytes: number) => void

  /**
   * `write` says whether more may follow at once, else `drained` is called later; `capacity` is in bytes. `onOverflow` is
   * called when this one had to give back what waits in it, because all together hold too much.
   */
  constructor(
    write: (text: string) => boolean,
    capacity: number,
    budget: Budget = new Budget(Infinity),
    onOverflow: (bytes: number) => void = () => {}
  ) {
    this.write = write
    this.capacity = capacity
    this.budget = budget
    this.onOverflow = onOverflow
  }

  /** Bytes that the other side has not read. */
  get bytes(): number {
    return this.queued + this.unread
  }

  /** Whether more may be appended; it is never refused, only waited for. */
  get hasRoom(): boolean {
    return this.queued < this.capacity
  }

  /** Whether nothing can be written any more. */
  get isBroken(): boolean {
    return this.broken
  }

  /** Whether something waits that the other side may take at once. */
  get canFlush(): boolean {
    return this.queued > 0 && !this.blocked && !this.broken
  }

  /** Whether everything appended has been handed over. */
  get isEmpty(): boolean {
    return this.queued === 0
  }

  /** Promises a `flush` within this turn, so that `append` need not schedule one. */
  hold(): void {
    this.held = true
  }

  /** Adds text; it leaves with the next `flush`, which is scheduled for the end of this turn unless one is promised. */
  append(text: string): void {
    if (this.broken) return
    if (this.tail.bytes > 0 && this.tail.text.length + text.length > chunkLength) this.closeTail()
    const bytes = bytesOf(text)
    this.tail = { text: this.tail.text + text, bytes: this.tail.bytes + bytes }
    this.queued += bytes
    this.budget.change(this, bytes)
    if (this.held || this.scheduled || this.blocked || this.broken) return
    this.scheduled = true
    setImmediate(this.onTurn)
  }

  /** Writes now what has gathered, unless the other side does not read. */
  flush(): void {
    this.held = false
    if (!this.canFlush) return
    this.closeTail()
    let written = 0
    while (written < this.chunks.length && !this.blocked) this.hand(this.chunks[written++] ?? nothing)
    this.chunks.splice(0, written)
    this.wake()
  }

  /** The other side reads again. */
  drained(): void {
    this.blocked = false
    this.release(0, this.unread)
    this.flush()
  }

  /** Nothing can be written any more; what waits is dropped. */
  break(): void {
    this.broken = true
    this.chunks.length = 0
    this.tail = nothing
    this.release(this.queued, this.unread)
    this.wake()
  }

  /** Gives up what waits. */
  overflow(): void {
    const { bytes } = this
    this.break()
    this.onOverflow(bytes)
  }

  /** Waits until there is room; for ever once broken, when whoever waits is interrupted. */
  readonly room: Effect.Effect<void> = Effect.callback<void>((resume) => {
    const look = () => {
      if (this.hasRoom && !this.broken && this.waiting.delete(look)) resume(Effect.void)
    }
    this.waiting.add(look)
    look()
    return Effect.sync(() => this.waiting.delete(look))
  })

  private readonly onTurn = () => {
    this.scheduled = false
    this.flush()
  }

  private closeTail(): void {
    if (this.tail.bytes > 0) this.chunks.push(this.tail)
    this.tail = nothing
  }

  private hand({ bytes, text }: Chunk): void {
    this.blocked = !this.write(text)
    if (this.blocked) {
      this.queued -= bytes
      this.unread += bytes
    } else this.release(bytes, 0)
  }

  private release(queued: number, unread: number): void {
    this.queued -= queued
    this.unread -= unread
    this.budget.change(this, -queued - unread)
  }

  private wake(): void {
    for (const look of this.waiting) look()
  }
}
