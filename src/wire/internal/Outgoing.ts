// What waits to be written to one connection. Everything appended in one turn of the event loop leaves in one write;
// while a write waits for the other side to read, what comes after it gathers here.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"

/** The writing side of one connection, and the place to wait for it. */
export class Outgoing {
  /** Whether writing has failed: nothing more can be said. */
  broken = false
  private text = ""
  private writing: Fiber.Fiber<void, unknown> | undefined
  private scheduled = false
  private held = false
  private readonly waiting = new Set<() => void>()
  private readonly write: (text: string) => Effect.Effect<void, unknown>
  private readonly capacity: number

  private constructor(write: (text: string) => Effect.Effect<void, unknown>, capacity: number) {
    this.write = write
    this.capacity = capacity
  }

  /** `capacity` in characters; a write that is under way when the scope closes is interrupted. */
  static make(
    write: (text: string) => Effect.Effect<void, unknown>,
    capacity: number
  ): Effect.Effect<Outgoing, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.sync(() => new Outgoing(write, capacity)),
      (self) => self.close
    )
  }

  /** Whether more may be appended; it is never refused, only waited for. */
  get hasRoom(): boolean {
    return this.text.length < this.capacity
  }

  /** Whether everything appended has been handed over. */
  get isEmpty(): boolean {
    return this.text === "" && this.writing === undefined
  }

  /** Promises a `flush` within this turn, so that `append` need not schedule one. */
  hold(): void {
    this.held = true
  }

  /** Adds text; it leaves with the next `flush`, which is scheduled for the end of this turn unless one is promised. */
  append(text: string): void {
    if (this.broken) return
    this.text += text
    if (!this.held && !this.scheduled && this.writing === undefined) {
      this.scheduled = true
      setImmediate(this.onTurn)
    }
  }

  /** Writes now what has gathered, unless a write is under way. */
  flush(): void {
    this.held = false
    while (this.text !== "" && this.writing === undefined && !this.broken) {
      const text = this.text
      this.text = ""
      const fiber = Effect.runFork(this.write(text))
      const exit = fiber.pollUnsafe()
      if (exit === undefined) {
        this.writing = fiber
        fiber.addObserver(this.onWritten)
      } else this.written(exit)
    }
  }

  /** Waits until `condition` holds or nothing can be written any more; `changed` makes it look again. */
  until(condition: () => boolean): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const holds = () => this.broken || condition()
      if (holds()) return resume(Effect.void)
      const look = () => {
        if (!holds() || !this.waiting.delete(look)) return
        resume(Effect.void)
      }
      this.waiting.add(look)
      return Effect.sync(() => {
        this.waiting.delete(look)
      })
    })
  }

  /** Tells those who wait that something they look at has changed. */
  changed(): void {
    if (this.waiting.size > 0) for (const look of [...this.waiting]) look()
  }

  private readonly onTurn = () => {
    this.scheduled = false
    this.flush()
  }

  private readonly onWritten = (exit: Exit.Exit<void, unknown>) => {
    this.writing = undefined
    this.written(exit)
    this.flush()
  }

  private written(exit: Exit.Exit<void, unknown>): void {
    if (Exit.isFailure(exit)) {
      this.broken = true
      this.text = ""
    }
    this.changed()
  }

  private readonly close: Effect.Effect<void> = Effect.suspend(() => {
    const { writing } = this
    this.broken = true
    this.text = ""
    this.changed()
    return writing === undefined ? Effect.void : Fiber.interrupt(writing)
  })
}
