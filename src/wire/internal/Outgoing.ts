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

/** Who holds bytes that the other side has not read. */
export interface Holder {
  readonly bytes: number
  /** Holds less: writes what may leave at once, else gives it all up. Says so (`change`) before it returns. */
  readonly giveUp: () => void
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

  /** One more holds part of it, until it leaves. */
  join(member: Holder): void {
    this.members.add(member)
  }

  leave(member: Holder): void {
    this.members.delete(member)
  }

  /** Counts what a connection holds more (or less), and breaks connections until it fits. */
  change(bytes: number): void {
    this.used += bytes
    while (this.used > this.max) {
      const most = this.largest()
      if (most === undefined) return
      most.giveUp()
    }
  }

  private largest(): Holder | undefined {
    let largest: Holder | undefined
    for (const member of this.members) if (member.bytes > (largest?.bytes ?? 0)) largest = member
    return largest
  }
}

/** The writing side of one connection, and the place to wait for it. */
export class Outgoing implements Holder {
  /** What waits, in its order; the tail comes after it. */
  private readonly chunks: Array<Chunk> = []
  private tail = ""
  private tailBytes = 0
  private queued = 0
  /** Bytes that were handed over and not read yet. */
  private unread = 0
  private blocked = false
  private broken = false
  private scheduled = false
  private held = false
  private readonly waiting = new Set<() => void>()
  /** Those who gather what they have to say until it leaves. */
  private gathering: Array<() => void> = []
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
    budget.join(this)
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
  private get canFlush(): boolean {
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
    if (this.tail.length + text.length > chunkLength) this.closeTail()
    const bytes = bytesOf(text)
    this.tail += text
    this.tailBytes += bytes
    this.queued += bytes
    this.budget.change(bytes)
    this.schedule()
  }

  private schedule(): void {
    if (this.held || this.scheduled || this.blocked || this.broken) return
    this.scheduled = true
    setImmediate(this.onTurn)
  }

  /** `close` is called before anything leaves, in this turn unless the other side does not read: it appends what somebody has gathered. */
  beforeFlush(close: () => void): void {
    this.gathering.push(close)
    this.schedule()
  }

  /** Writes now what has gathered, unless the other side does not read. */
  flush(): void {
    if (this.gathering.length > 0) this.closeAll()
    this.held = false
    if (!this.canFlush) return
    if (this.chunks.length === 0) this.handTail()
    else this.handAll()
    if (this.waiting.size > 0) this.wake()
  }

  /** The other side reads again. */
  drained(): void {
    this.blocked = false
    this.release(0, this.unread)
    this.flush()
  }

  /** Hands over all that waits, read or not: what takes it holds it from here on. Nothing can be written any more. */
  finish(): void {
    if (this.broken) return
    if (this.gathering.length > 0) this.closeAll()
    this.closeTail()
    for (const { text } of this.chunks) this.write(text)
    this.break()
  }

  /** Nothing can be written any more; what waits is dropped. */
  break(): void {
    this.broken = true
    this.gathering = []
    this.chunks.length = 0
    this.tail = ""
    this.tailBytes = 0
    this.release(this.queued, this.unread)
    this.budget.leave(this)
    this.wake()
  }

  /** Gives up what waits, unless some of it may leave: one that has just been answered much may well be reading. */
  giveUp(): void {
    if (this.canFlush) return this.flush()
    const { bytes } = this
    this.break()
    this.onOverflow(bytes)
  }

  /** Calls `then` once there is room, which may be at once; never once broken. Answers with how to wait no longer. */
  whenRoom(then: () => void): () => void {
    const look = () => {
      if (this.hasRoom && !this.broken && this.waiting.delete(look)) then()
    }
    this.waiting.add(look)
    look()
    return () => void this.waiting.delete(look)
  }

  /** Waits until there is room; for ever once broken, when whoever waits is interrupted. */
  readonly room: Effect.Effect<void> = Effect.callback<void>((resume) => {
    const leave = this.whenRoom(() => resume(Effect.void))
    return Effect.sync(leave)
  })

  private readonly onTurn = () => {
    this.scheduled = false
    this.flush()
  }

  private closeAll(): void {
    const { gathering } = this
    this.gathering = []
    // What they append leaves with this flush.
    this.held = true
    for (const close of gathering) close()
  }

  private closeTail(): void {
    if (this.tailBytes > 0) this.chunks.push({ text: this.tail, bytes: this.tailBytes })
    this.tail = ""
    this.tailBytes = 0
  }

  /** What has gathered in one turn, where nothing waits before it. */
  private handTail(): void {
    const text = this.tail
    const bytes = this.tailBytes
    this.tail = ""
    this.tailBytes = 0
    this.hand(text, bytes)
  }

  private handAll(): void {
    this.closeTail()
    let written = 0
    for (const { bytes, text } of this.chunks) {
      if (this.blocked) break
      this.hand(text, bytes)
      written++
    }
    this.chunks.splice(0, written)
  }

  private hand(text: string, bytes: number): void {
    this.blocked = !this.write(text)
    if (this.blocked) {
      this.queued -= bytes
      this.unread += bytes
    } else this.release(bytes, 0)
  }

  private release(queued: number, unread: number): void {
    this.queued -= queued
    this.unread -= unread
    this.budget.change(-queued - unread)
  }

  private wake(): void {
    for (const look of this.waiting) look()
  }
}
