// Who hears of commits. Told in the order of the commits, even when one who is told commits again.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { StoredFact } from "../../event/CloudEvent.ts"

type Listener = (facts: ReadonlyArray<StoredFact>) => void

/** The listeners of one store. */
export interface Announcer {
  /** Whether nobody listens, or nobody would do anything with a commit. */
  readonly isIdle: () => boolean
  /** Tells all listeners of a commit; answers with what they threw. */
  readonly announce: (facts: ReadonlyArray<StoredFact>) => ReadonlyArray<unknown>
  /** Tells `call` of every commit until the scope closes; while it is idle it may be left out. */
  readonly listen: (call: Listener, isIdle?: () => boolean) => Effect.Effect<void, never, Scope.Scope>
}

const never = () => false

/** An announcer that nobody listens to yet. */
export const makeAnnouncer = (): Announcer => {
  // Replaced, never changed: who is told of a commit is settled before the first one is.
  let listeners: ReadonlyArray<{ readonly call: Listener; readonly isIdle: () => boolean; gone: boolean }> = []
  const waiting: Array<ReadonlyArray<StoredFact>> = []
  let busy = false
  const announce = (facts: ReadonlyArray<StoredFact>): ReadonlyArray<unknown> => {
    waiting.push(facts)
    if (busy) return []
    busy = true
    const thrown: Array<unknown> = []
    for (let batch = waiting.shift(); batch !== undefined; batch = waiting.shift()) {
      for (const listener of listeners) {
        if (listener.gone) continue
        try {
          listener.call(batch)
        } catch (cause) {
          thrown.push(cause)
        }
      }
    }
    busy = false
    return thrown
  }
  const listen = (call: Listener, isIdle = never): Effect.Effect<void, never, Scope.Scope> =>
    Effect.asVoid(Effect.acquireRelease(
      Effect.sync(() => {
        const listener = { call, isIdle, gone: false }
        listeners = [...listeners, listener]
        return listener
      }),
      (listener) =>
        Effect.sync(() => {
          listener.gone = true
          listeners = listeners.filter((other) => other !== listener)
        })
    ))
  return {
    isIdle: () => {
      for (const listener of listeners) if (!listener.isIdle()) return false
      return true
    },
    announce,
    listen
  }
}
