// What waits to be written to one connection. Everything appended in one turn of the event loop leaves in one write;
// while the other side does not read, what comes after gathers here.
import * as Effect from "effect/Effect"

/** The writing side of one connection, and the place to wait for it. */
export class Outgoing {
  private text = ""
  private blocked = false
  private broken = false
  private scheduled = false
  private held = false
  private readonly waiting = new Set<() => void>()
  private readonly write: (text: string) => boolean
  private readonly capacity: number

  /** `write` says whether more may follow at once, else `drained` is called later; `capacity` is in characters. */
  constructor(write: (text: string) => boolean, capacity: number) {
    this.write = write
    this.capacity = capacity
  }

  /** Whether more may be appended; it is never refused, only waited for. */
  get hasRoom(): boolean {
    return this.text.length < this.capacity
  }

  /** Whether everything appended has been handed over. */
  get isEmpty(): boolean {
    return this.text === ""
  }

  /** Promises a `flush` within this turn, so that `append` need not schedule one. */
  hold(): void {
    this.held = true
  }

  /** Adds text; it leaves with the next `flush`, which is scheduled for the end of this turn unless one is promised. */
  append(text: string): void {
    if (this.broken) return
    this.text += text
    if (this.held || this.scheduled || this.blocked) return
    this.scheduled = true
    setImmediate(this.onTurn)
  }

  /** Writes now what has gathered, unless the other side does not read. */
  flush(): void {
    this.held = false
    if (this.text === "" || this.blocked || this.broken) return
    const { text } = this
    this.text = ""
    this.blocked = !this.write(text)
    this.wake()
  }

  /** The other side reads again. */
  drained(): void {
    this.blocked = false
    this.flush()
  }

  /** Nothing can be written any more; what waits is dropped. */
  break(): void {
    this.broken = true
    this.text = ""
    this.wake()
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

  private wake(): void {
    for (const look of this.waiting) look()
  }
}
