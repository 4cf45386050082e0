// One subscription of a connection, as it is told to the client: a fiber for as long as there is something to tell, and nothing but
// a place to wake it while there is not.
//
// The rule: what may not be told yet, because the client lets no more be sent or the socket takes none, is not taken from the
// subscription: what becomes of it there is the subscription's own policy.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { Subscription } from "../../bus/Subscription.ts"
import type { Delivery } from "../../event/Envelope.ts"
import type * as KsiError from "../../event/KsiError.ts"
import * as Frame from "../Frame.ts"
import type { Outgoing } from "./Outgoing.ts"
import { type Credit, Window } from "./Window.ts"

/** Runs an effect in a fiber of its own. */
export type Fork = <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>

/** How a subscription is told. */
export interface Manner {
  /** What the client calls it, as its frames say. */
  readonly id: string
  readonly withMetadata?: boolean | undefined
  /** What it may be told before the client grants more. */
  readonly credit?: Credit | undefined
  readonly accepts: (delivery: Delivery) => boolean
}

/** One subscription, as it is told. */
export class Telling {
  readonly id: string
  readonly window: Window
  readonly scope = Scope.makeUnsafe()
  private readonly outgoing: Outgoing
  private readonly manner: Manner
  private readonly failed: (cause: Cause.Cause<KsiError.KsiError>) => Effect.Effect<void>
  /** While there is something to tell. */
  private fiber: Fiber.Fiber<unknown, unknown> | undefined

  constructor(outgoing: Outgoing, manner: Manner, failed: (cause: Cause.Cause<KsiError.KsiError>) => Effect.Effect<void>) {
    this.outgoing = outgoing
    this.id = manner.id
    this.manner = manner
    this.failed = failed
    this.window = new Window(manner.credit ?? {})
  }

  private tell(subscription: Subscription, delivery: Delivery): void {
    const { outgoing, window, manner: { accepts, id, withMetadata } } = this
    if (!subscription.hears(delivery.name) || !accepts(delivery)) return
    const line = Frame.encodeDelivery(delivery, id, delivery.data, withMetadata, window.marked())
    window.spend(1, line.length - 1)
    outgoing.append(line)
  }

  /** Tells what there is. */
  private *all(subscription: Subscription, wake: () => void) {
    const { outgoing, window } = this
    // Never on the stack of who publishes.
    yield* Effect.yieldNow
    while (!subscription.rests(wake)) {
      // What may not be told yet is not taken.
      if (window.room <= 0) yield* window.opened
      if (!outgoing.hasRoom) yield* outgoing.room
      for (const delivery of yield* subscription.next) {
        if (window.room <= 0) yield* window.opened
        if (!outgoing.hasRoom) yield* outgoing.room
        this.tell(subscription, delivery)
      }
    }
    this.fiber = undefined
  }

  /** Begins to tell, and goes on until it is closed. */
  begin(subscription: Subscription, fork: Fork): void {
    const wake = () => {
      this.fiber = fork(Effect.catchCause(Effect.gen(() => this.all(subscription, wake)), (cause) =>
        Cause.hasInterruptsOnly(cause) ? Effect.interrupt : this.failed(cause)))
    }
    wake()
  }

  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    const { fiber, scope } = this
    const closed = Scope.close(scope, Exit.void)
    return fiber === undefined ? closed : Effect.andThen(closed, Fiber.interrupt(fiber))
  })
}
