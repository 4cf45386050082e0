// Whether the other side is still there, as the client finds it out: a process that is stopped, and a network that swallows
// everything, close no connection, and the system's own keep-alive asks the machine over there, not the process.
//
// The rule: whoever says anything is there, so that nobody is asked who has something to say. Who is silent is asked once
// (`wire:ping`), and is gone where nothing at all has come half of `millis` later.
import * as Effect from "effect/Effect"

/** What a silent one is asked with, and what becomes of one that does not answer. */
export interface Parts {
  readonly millis: number
  readonly ask: () => void
  readonly gone: (problem: string) => void
}

// What came while this process had no time for it is read before the end of a turn.
const turn = Effect.promise(() => new Promise<void>((resolve) => void setImmediate(resolve)))

/** Watches over a connection. */
export class Liveness {
  private hasSpoken = true
  private isAsked = false
  private readonly parts: Parts

  constructor(parts: Parts) {
    this.parts = parts
  }

  /** Something came. */
  heard(): void {
    this.hasSpoken = true
    this.isAsked = false
  }

  /** Whether it may be there still. */
  private check(): boolean {
    const { ask, gone, millis } = this.parts
    if (!this.hasSpoken && this.isAsked) {
      gone(`it has not answered for ${millis / 2} ms, whether it is still there`)
      return false
    }
    if (!this.hasSpoken) {
      this.isAsked = true
      ask()
    }
    this.hasSpoken = false
    return true
  }

  /** Until it is gone. */
  readonly watch: Effect.Effect<void> = Effect.suspend(() => Effect.sleep(this.parts.millis / 2)).pipe(
    Effect.andThen(turn),
    Effect.andThen(Effect.sync(() => this.check())),
    Effect.repeat({ while: (isThere) => isThere }),
    Effect.asVoid
  )
}
