// The near end of a stream: what has come and was not taken yet, and how much more may come.
//
// The rule: no more is held than was granted, here and on the way; what is taken is granted again, by the quarter of a window. Who takes
// what has come holds it until the next pull. Who is content with the newest is granted more for all that comes, and holds the
// newest of it.
//
// How large the window is, is measured: with a grant goes a mark, which the next frame brings back. If what came between fills half
// of the window, then it is the window that the sender waits for, and it is doubled, up to what the caller allows. So a slow way is
// filled as a fast one is, and a stream of which little is read never gets a large one. (The estimate is that of gRPC's transports:
// bytes of one round trip against the window.)
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Pull from "effect/Pull"

/** Items, and characters of their frames. */
export interface Amount {
  readonly items: number
  readonly bytes: number
}

const first: Amount = { items: 64, bytes: 64 * 1024 }

type NonEmpty<A> = readonly [A, ...ReadonlyArray<A>]

/** Who is content with the newest: how many may be held, and what the next of them says of one that is pushed out before it. */
export interface Newest<A> {
  readonly items: number
  /** The kinds are held apart: one pushes out none of another. */
  readonly kindOf: (item: A) => unknown
  readonly after: (gone: A, next: A) => A
}

/** One dimension of a window. */
class Measure {
  private readonly max: number
  size: number
  /** Came altogether. */
  came = 0
  /** Was taken, and not granted again. */
  taken = 0
  private cameAtMark = 0

  constructor(size: number, max: number) {
    this.size = Math.min(size, max)
    this.max = max
  }

  /** Whether enough was taken to say so. */
  get isDue(): boolean {
    return this.taken * 4 >= this.size
  }

  regrant(): number {
    const { taken } = this
    this.taken = 0
    return taken
  }

  mark(): void {
    this.cameAtMark = this.came
  }

  /** Doubles when the sender waited for it; by how much it is larger now. */
  grow(): number {
    // A quarter of it is granted at a time: of a window that the sender waits for, most of the rest is on its way meanwhile.
    if ((this.came - this.cameAtMark) * 2 < this.size) return 0
    const { size } = this
    this.size = Math.min(this.max, size * 2)
    return this.size - size
  }
}

/** One stream that comes in. */
export class Receiving<A, E> {
  private readonly items: Measure
  private readonly bytes: Measure
  private readonly grant: (more: Amount, mark: number | undefined) => void
  private held: Array<A> = []
  private heldBytes = 0
  /** What was handed out last: taken when more is asked for. */
  private out: Amount = { items: 0, bytes: 0 }
  private ended: Exit.Exit<void, E> | undefined
  private wake: (() => void) | undefined
  private marks = 0
  private isMarked = false

  private readonly onEnd: () => void
  private readonly newest: Newest<A> | undefined

  /** `max` is the largest window; `onEnd` is called when no more will come. */
  constructor(max: Amount, grant: (more: Amount, mark: number | undefined) => void, onEnd: () => void, newest?: Newest<A>) {
    this.onEnd = onEnd
    this.newest = newest
    this.items = new Measure(first.items, max.items)
    this.bytes = new Measure(first.bytes, max.bytes)
    this.grant = grant
  }

  /** What may come at first. */
  get initial(): Amount {
    return { items: this.items.size, bytes: this.bytes.size }
  }

  get isEnded(): boolean {
    return this.ended !== undefined
  }

  /** A frame has come, of so many characters. */
  push(values: ReadonlyArray<A>, bytes: number, mark: unknown): void {
    this.items.came += values.length
    this.bytes.came += bytes
    const { newest } = this
    if (newest === undefined) {
      if (this.held.length === 0) this.held = [...values]
      else for (const value of values) this.held.push(value)
      this.heldBytes += bytes
    } else {
      for (const value of values) this.keep(newest, value)
      this.out = { items: values.length, bytes }
      this.regrant()
    }
    if (this.isMarked && mark === this.marks) {
      this.isMarked = false
      const more = { items: this.items.grow(), bytes: this.bytes.grow() }
      if (more.items > 0 || more.bytes > 0) this.grant(more, undefined)
    }
    this.wake?.()
  }

  /** Holds it among the newest: the oldest of its kind makes room, and the next of them tells of that. What has come counts as taken. */
  private keep({ after, items, kindOf }: Newest<A>, value: A): void {
    const same = this.held.filter((item) => kindOf(item) === kindOf(value))
    const [gone, second] = same
    if (gone === undefined || same.length < items) return void this.held.push(value)
    const rest = this.held.filter((item) => item !== gone)
    this.held = second === undefined
      ? [...rest, after(gone, value)]
      : [...rest.map((item) => item === second ? after(gone, second) : item), value]
  }

  /** No more will come; what has come is handed out before. */
  end(exit: Exit.Exit<void, E>): void {
    this.ended ??= exit
    this.onEnd()
    this.wake?.()
  }

  private regrant(): void {
    this.items.taken += this.out.items
    this.bytes.taken += this.out.bytes
    this.out = { items: 0, bytes: 0 }
    if (this.ended !== undefined || !(this.items.isDue || this.bytes.isDue)) return
    const more = { items: this.items.regrant(), bytes: this.bytes.regrant() }
    if (this.isMarked) return this.grant(more, undefined)
    this.isMarked = true
    this.items.mark()
    this.bytes.mark()
    this.grant(more, ++this.marks)
  }

  private take(): NonEmpty<A> | undefined {
    const { held, heldBytes } = this
    if (held.length === 0) return undefined
    this.held = []
    this.heldBytes = 0
    // Of the newest, what was taken was granted again when it came.
    if (this.newest === undefined) this.out = { items: held.length, bytes: heldBytes }
    // The length was looked at.
    return held as unknown as NonEmpty<A>
  }

  private next(): Pull.Pull<NonEmpty<A>, E> | undefined {
    const items = this.take()
    if (items !== undefined) return Effect.succeed(items)
    if (this.ended === undefined) return undefined
    return Exit.isSuccess(this.ended) ? Cause.done() : Exit.failCause(this.ended.cause)
  }

  /** All that has come, or the wait for more. For one fiber at a time. */
  readonly pull: Pull.Pull<NonEmpty<A>, E> = Effect.suspend((): Pull.Pull<NonEmpty<A>, E> => {
    this.regrant()
    return this.next() ?? this.waited
  })

  private readonly waited: Pull.Pull<NonEmpty<A>, E> = Effect.callback((resume) => {
    const look = () => {
      const next = this.next()
      if (next === undefined) return
      this.wake = undefined
      resume(next)
    }
    this.wake = look
    look()
    return Effect.sync(() => {
      this.wake = undefined
    })
  })
}
