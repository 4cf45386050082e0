// The door for what comes from outside: who may not come in is told so here, before anything of the request is read.
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { type Action, owner } from "../../event/Grant.ts"
import * as KsiError from "../../event/KsiError.ts"
import { Activity } from "../Activity.ts"
import { Authorizer, toldTo, unknownTo } from "../Authorizer.ts"
import type { LiveEnvelope } from "../Causation.ts"
import type { Table, TableEntry } from "./table.ts"

type Refused = Effect.Effect<never, KsiError.KsiError>

const leaveOut = () => null

/** The door of one router. */
export const make = Effect.fnUntraced(function*({ meter, registry }: Table) {
  const authorizer = yield* Authorizer
  const activity = yield* Activity

  /** Recorded as a request that failed, without the payload, which nobody read; also where it would have been a fact. */
  const recorded = (entry: TableEntry, envelope: LiveEnvelope, refused: Exit.Exit<never, KsiError.KsiError>): Refused => {
    entry.tally?.ended(refused, 0)
    const wait = activity.record({ envelope, encode: leaveOut, exit: refused, duration: 0 })
    return wait === undefined ? refused : Effect.flatMap(wait, () => refused)
  }

  /** Whether the envelope came from outside, from somebody who must be looked at. */
  const isForeign = ({ origin, parent }: LiveEnvelope): boolean => origin.principal !== owner && parent === undefined

  return {
    /**
     * Why an envelope may not come in; `undefined` where it may. Names that are not registered are not recorded: there is
     * no end of them.
     */
    refuse: (entry: TableEntry | undefined, envelope: LiveEnvelope, action: Action): Refused | undefined => {
      if (!isForeign(envelope)) return undefined
      const { name, origin: { principal } } = envelope
      if (authorizer.allows(principal, action, name)) return undefined
      const refused = KsiError.exit(authorizer.refusal(principal, toldTo(authorizer, principal, action, name), name))
      if (entry !== undefined) return recorded(entry, envelope, refused)
      meter?.unknown()
      return refused
    },
    /** No event is called so. */
    unknown: ({ name, origin: { principal }, parent }: LiveEnvelope): Refused => {
      meter?.unknown()
      return KsiError.exit(parent === undefined ? unknownTo(authorizer, registry, principal, name) : registry.unknown(name))
    }
  }
})

/** The door of one router. */
export type Door = Effect.Success<ReturnType<typeof make>>
