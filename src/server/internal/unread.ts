// What clients have not read of their answers: each within its own bound, and together within that of all.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ServerResponse } from "node:http"
import type { LimitsShape } from "../../event/Limits.ts"
import { type Budget, Outgoing } from "../../wire/Connection.ts"
import type { Exchange } from "./exchange.ts"

/** What bounds an answer that goes on. */
export interface Bounds {
  readonly limits: LimitsShape
  /** What may wait to be read by all clients together. */
  readonly budget: Budget
}

/** Counts what the other side has not read of its answer among what waits for all. */
export const count = (budget: Budget, { request: { socket }, response }: Exchange): void => {
  const { writableLength: bytes } = response
  // Nearly always: the system took it all.
  if (bytes === 0 || response.destroyed) return
  const change = (now: number) => {
    const more = now - holder.bytes
    holder.bytes = now
    budget.change(more)
    if (now === 0) budget.leave(holder)
  }
  const holder = {
    bytes: 0,
    giveUp: () => {
      // An answer whose turn has not come has no connection yet.
      socket.destroy()
      change(0)
    }
  }
  budget.join(holder)
  response.on("close", () => change(0))
  change(bytes)
}

/** What waits to be written to a response that goes on; `write` hands it over, and says whether more may follow at once. */
export const outgoingOf = (
  { budget, limits }: Bounds,
  response: ServerResponse,
  write: (text: string) => boolean
): Effect.Effect<Outgoing> =>
  Effect.map(Effect.context<never>(), (context) => {
    const outgoing = new Outgoing(write, limits.connectionBufferBytes, budget, (bytes) => {
      Effect.runForkWith(context)(Effect.logWarning(`who followed over HTTP was cut off: ${bytes} bytes had not been read`))
      response.destroy()
    })
    response.on("drain", () => outgoing.drained())
    return outgoing
  })

/** What server-sent events are sent with. */
export const eventHeaders: ReadonlyArray<string> = [
  "content-type", "text/event-stream", "cache-control", "no-store", "x-content-type-options", "nosniff", "x-accel-buffering", "no"
]

// Proxies close what is silent for long.
const heartbeat = "15 seconds"

/** Says something to nobody from time to time, where there is nothing else to say, until the scope closes. */
export const keepAlive = (outgoing: Outgoing): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.forkScoped(
    Effect.forever(Effect.delay(Effect.sync(() => outgoing.isEmpty && outgoing.append(":\n\n")), heartbeat))
  ))
