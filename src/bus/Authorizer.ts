/**
 * The port through which the bus asks who may do what, and through which a surface learns who bears a token.
 *
 * The rule: it is asked where something comes from outside: a request without a cause, whose principal is not `owner`,
 * before its payload is read and before any middleware. What a handler then calls or emits is its module's business; who
 * asked stays in the envelope, so that a handler can ask too. The default fails closed: nobody but `owner` may anything.
 *
 * **Example**
 *
 * ```ts
 * const authorizer = yield* Authorizer.Authorizer
 * authorizer.allows("owner", "call", "stock:reserve")      // true
 * authorizer.allows("somebody", "call", "stock:reserve")   // false
 * authorizer.refusal("somebody", "call", "stock:reserve").next
 * // "ksi permission grant somebody stock:reserve --action call --action emit"
 * ```
 *
 * **Gotchas** The principal is bound to a connection by whoever accepts it. Labels of a message (`_client_id`, `_agent_id`)
 * are never asked.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as EventName from "../event/EventName.ts"
import * as EventPattern from "../event/EventPattern.ts"
import type { EventRegistry } from "../event/EventRegistry.ts"
import * as Grant from "../event/Grant.ts"
import * as KsiError from "../event/KsiError.ts"

/** Why somebody may not. */
export type Refusal = KsiError.PermissionDenied | KsiError.Unauthenticated

/** Who may do what. */
export interface AuthorizerShape {
  /** Whether a principal may do this to an event of this name, now. */
  readonly allows: (principal: string, action: Grant.Action, event: string) => boolean
  /** Whether there can be anything that the pattern matches and the principal may hear. */
  readonly hears: (principal: string, pattern: EventPattern.EventPattern) => boolean
  /** Why it may not; for who has been told that it may not. */
  readonly refusal: (principal: string, action: Grant.Action, event: string) => Refusal
  /** Who bears a token; anything may be given. */
  readonly authenticate: (token: unknown) => Result.Result<string, KsiError.Unauthenticated>
  /** Calls `listener` after every change of who may what, synchronously, until the scope closes. */
  readonly changes: (listener: () => void) => Effect.Effect<void, never, Scope.Scope>
}

/** Nobody but `owner` may anything, and no token is known. */
export const ownerOnly: AuthorizerShape = {
  allows: (principal, action, event) => principal === Grant.owner || Grant.isForAnyone(action, event),
  hears: (principal) => principal === Grant.owner,
  refusal: (principal, action, event) =>
    principal === Grant.anonymous
      ? new KsiError.Unauthenticated({ problem: "no valid token was presented" })
      : new KsiError.PermissionDenied({ principal, action, event }),
  authenticate: () => Result.fail(new KsiError.Unauthenticated({ problem: "no token is known here" })),
  changes: () => Effect.void
}

/** The authorizer in force; `store/Permissions.ts` provides the one with grants and tokens. */
export const Authorizer: Context.Reference<AuthorizerShape> = Context.Reference<AuthorizerShape>("ksi/bus/Authorizer", {
  defaultValue: () => ownerOnly
})

/** Whether a principal may do anything at all to an event: what it is told of. */
export const mayUse = ({ allows }: Pick<AuthorizerShape, "allows">, principal: string, event: string): boolean =>
  principal === Grant.owner || Grant.actions.some((action) => allows(principal, action, event))

/** What a principal is told that it may not do: who may nothing to an event does not learn what it is, nor that it is. */
export const toldTo = (authorizer: Pick<AuthorizerShape, "allows">, principal: string, action: Grant.Action, event: string): Grant.Action =>
  mayUse(authorizer, principal, event) ? action : "call"

const everything = Result.getOrThrow(EventPattern.parse("*"))

/** What a principal is told of a name that nobody registered: of events that are not for it nothing is learnt by asking. */
export const unknownTo = (
  authorizer: Pick<AuthorizerShape, "allows">,
  { list, unknown }: Pick<EventRegistry, "list" | "unknown">,
  principal: string,
  name: string
): KsiError.UnknownEvent => {
  const reason = unknown(name)
  if (principal === Grant.owner) return reason
  const isUsable = (event: string) => mayUse(authorizer, principal, event)
  const usable = new Set(list(everything).flatMap(({ event }) => isUsable(event.name) ? [EventName.namespace(event.name)] : []))
  return new KsiError.UnknownEvent({
    event: name,
    similar: reason.similar.filter(isUsable),
    namespaces: reason.namespaces.filter((namespace) => usable.has(namespace))
  })
}
