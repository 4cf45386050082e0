/**
 * Who may do what, for people: grant, revoke, check, list; and tokens.
 *
 * The rule: nobody gives more than they have, and everybody may ask about themselves. A token is shown once, when it is
 * made; nothing that is kept can make it again.
 *
 * **Example**
 *
 * ```ts
 * const ksi = yield* KsiService
 * const { principal } = yield* ksi.call(Permission.TokenCreate, { name: "till", profile: "restricted" })
 * yield* ksi.call(Permission.Grant, { principal, pattern: "stock:*", actions: ["call"] })
 * const { allowed, because } = yield* ksi.call(Permission.Check, { principal, event: "stock:reserve" })
 * [allowed, because]                          // [true, "stock:* allows it"]
 * ```
 *
 * **Gotchas** A grant to a token ends with the token. What one may not do to an event is told by `permission:check` with the
 * grant that would help (`next`). Of another than oneself only they are told who may call `permission:list`.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Router from "../bus/Router.ts"
import type { Envelope } from "../event/Envelope.ts"
import * as Event from "../event/Event.ts"
import * as EventGroup from "../event/EventGroup.ts"
import * as Rights from "../event/Grant.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import { EventStore } from "../store/EventStore.ts"
import * as Permissions from "../store/Permissions.ts"
import * as TimeTravel from "../store/TimeTravel.ts"
import { Count, optional, Page, paging, upTo } from "./internal/fields.ts"
import * as Paging from "./internal/paging.ts"

// ------------------------------------------------------------------------------------------------------------- events

const Principal = Schema.String.annotate({ description: "who, as token:till-1a2b3c4d or local-http" })
const Pattern = Schema.String.check(Schema.isMaxLength(256))
const Actions = Schema.Array(Rights.Action).check(Schema.isMaxLength(4))
const profile = optional(Rights.ProfileName, "a named set of rules, each more than the one before")
const pattern = optional(Pattern, "which events, as in \"order:*\"")
const actions = optional(Actions, "what may be done to them; all of it when absent")
const At = optional(
  Schema.Union([Schema.String, Schema.Int]),
  "as of this position, instant in RFC 3339, or date; now when absent"
)

const Held = Schema.Struct({
  principal: Schema.String,
  profiles: Schema.Array(Rights.ProfileName),
  rules: Schema.Array(Rights.Rule).annotate({ description: "its own; of several the most specific pattern decides" })
})

/** Gives somebody a profile, or a rule of their own. */
export const Grant = Event.make("permission:grant", {
  payload: {
    principal: Principal,
    profile,
    pattern,
    actions,
    allow: optional(Schema.Boolean, "false denies it, whatever a profile says; true when absent")
  },
  success: Held,
  idempotent: true,
  annotations: {
    description: "Gives somebody a profile, or allows (or denies) them events by a pattern. Nobody gives more than they have.",
    examples: [{ principal: "local-http", pattern: "order:*", actions: ["call", "subscribe"] }, { principal: "local-http", profile: "trusted" }]
  }
})

/** Takes a profile or a rule away. */
export const Revoke = Event.make("permission:revoke", {
  payload: { principal: Principal, profile, pattern, actions },
  success: Held,
  annotations: {
    description: "Takes a profile or a rule away, from the next request on; subscriptions hear no more of it at once.",
    examples: [{ principal: "local-http", pattern: "order:*" }, { principal: "local-http", profile: "standard" }]
  }
})

/** Whether somebody may. */
export const Check = Event.make("permission:check", {
  payload: {
    event: Schema.String.annotate({ description: "the event's name" }),
    principal: optional(Schema.String, "who; oneself when absent"),
    action: optional(Rights.Action, "what; what the event is for when absent"),
    at: At
  },
  success: Schema.Struct({
    principal: Schema.String,
    event: Schema.String,
    action: Rights.Action,
    allowed: Schema.Boolean,
    because: Schema.String.annotate({ description: "what decides" }),
    next: optional(Schema.String, "the command that would help")
  }),
  idempotent: true,
  annotations: {
    description: "Whether somebody may do this to an event, now or at a moment of the past, and what decides.",
    examples: [{ event: "system:health" }, { event: "store:import", principal: "local-http" }]
  }
})

/** Who was given what. */
export const List = Event.make("permission:list", {
  payload: {
    principal: optional(Schema.String, "only what this one was given"),
    profile: optional(Rights.ProfileName, "what this profile means, instead"),
    at: At,
    ...paging
  },
  success: Page,
  idempotent: true,
  annotations: {
    description: "Who was given what, now or at a moment of the past: `{ principal, profile }` or `{ principal, pattern, " +
      "actions, allow }`, by principal.",
    examples: [{}, { principal: "local-http" }, { profile: "standard" }]
  }
})

const Token = {
  id: Schema.String,
  principal: Schema.String,
  expires: optional(Schema.Finite, "seconds since 1970; absent: never")
}

/** Makes a token. */
export const TokenCreate = Event.make("permission:token_create", {
  payload: {
    name: optional(Schema.String, "what its id begins with: lower-case letters, digits and -, at most 32"),
    profile,
    expires_in: optional(upTo(100 * 366 * 24 * 60 * 60), "seconds; never when absent")
  },
  success: Schema.Struct({ ...Token, token: Schema.String.annotate({ description: "the token; it is never shown again" }) }),
  annotations: {
    description: "Makes a token, which is shown this one time. A client presents it in wire:hello.",
    examples: [{ name: "till", profile: "standard", expires_in: 2_592_000 }]
  }
})

/** The tokens there are. */
export const TokenList = Event.make("permission:token_list", {
  success: Schema.Struct({
    tokens: Schema.Array(Schema.Struct({
      ...Token,
      profiles: Schema.Array(Rights.ProfileName),
      created: Schema.Finite.annotate({ description: "seconds since 1970" }),
      valid: Schema.Boolean.annotate({ description: "false: it has expired" }),
      by: Schema.String.annotate({ description: "who made it" })
    })),
    count: Count
  }),
  idempotent: true,
  annotations: { description: "The tokens that were not revoked, without their secrets.", examples: [{}] }
})

/** Ends a token. */
export const TokenRevoke = Event.make("permission:token_revoke", {
  payload: { id: Schema.String.annotate({ description: "as permission:token_list tells it" }) },
  success: Schema.Struct({ id: Schema.String, principal: Schema.String }),
  annotations: {
    description: "Ends a token at once, also for connections that are open, and takes back what was granted to it.",
    examples: [{ id: "till-1a2b3c4d" }]
  }
})

/** The events of `permission:*`: the requests, and the facts in which changes are kept. */
export const Group = EventGroup.make(
  Grant, Revoke, Check, List, TokenCreate, TokenList, TokenRevoke,
  Permissions.Granted, Permissions.Revoked, Permissions.TokenCreated, Permissions.TokenRevoked, Permissions.ProfileDefined
)

// ----------------------------------------------------------------------------------------------------------- handlers

type Service = Permissions.Permissions["Service"]

const invalid = (event: Event.Any, path: string, problem: string) => KsiError.fail(KsiError.invalidAt(event.name, path, problem))

const momentOf = (event: Event.Any, at: string | number | undefined): Effect.Effect<Permissions.Moment | undefined, KsiError.KsiError> => {
  if (at === undefined) return Effect.succeed(undefined)
  const parsed = TimeTravel.parseMoment(String(at))
  if (Result.isFailure(parsed)) return invalid(event, "at", parsed.failure)
  return Effect.succeed("instant" in parsed.success ? { instant: parsed.success.instant } : { position: Number(parsed.success.position) })
}

/** What is given or taken: a profile or a pattern, one of the two. */
const oneOf = (event: Event.Any, { pattern, profile }: { readonly pattern?: string; readonly profile?: Rights.ProfileName }) =>
  (pattern === undefined) === (profile === undefined)
    ? invalid(event, pattern === undefined ? "pattern" : "profile", "give a profile or a pattern, one of the two")
    : Effect.void

const heldBy = Effect.fnUntraced(function*(permissions: Service, principal: string) {
  const items = (yield* permissions.view()).items().filter((item) => item.principal === principal)
  const rules: Array<Rights.Rule> = []
  const profiles: Array<Rights.ProfileName> = []
  for (const item of items) {
    if ("profile" in item) profiles.push(item.profile)
    else rules.push({ pattern: item.pattern, actions: item.actions, allow: item.allow })
  }
  return { principal, profiles, rules }
})

const makeChanges = (permissions: Service) => ({
  grant: Effect.fnUntraced(function*(payload: Event.Payload<typeof Grant>, cause: Envelope) {
    yield* oneOf(Grant, payload)
    const { actions = Rights.actions, allow = true, pattern, principal, profile } = payload
    const wish = { principal, by: cause.metadata.principal, cause }
    if (profile !== undefined) yield* permissions.grant({ ...wish, profile })
    else if (pattern !== undefined) yield* permissions.grant({ ...wish, rule: { pattern, actions, allow } })
    return yield* heldBy(permissions, principal)
  }),
  revoke: Effect.fnUntraced(function*(payload: Event.Payload<typeof Revoke>, cause: Envelope) {
    yield* oneOf(Revoke, payload)
    const { actions, pattern, principal, profile } = payload
    const wish = { principal, by: cause.metadata.principal, cause }
    if (profile !== undefined) yield* permissions.revoke({ ...wish, profile })
    else if (pattern !== undefined) yield* permissions.revoke({ ...wish, pattern, actions })
    return yield* heldBy(permissions, principal)
  })
})

const becauseOf = (principal: string, allowed: boolean, deciding: ReturnType<Permissions.View["deciding"]>): string => {
  if (principal === Rights.owner) return "the owner may everything"
  if (deciding !== undefined && deciding.allow === allowed) {
    const whose = deciding.profile === undefined ? deciding.pattern : `${deciding.pattern} of the profile ${deciding.profile}`
    return `${whose} ${allowed ? "allows" : "denies"} it`
  }
  return allowed ? "everybody who is known may" : "nothing allows it"
}

const makeCheck = (permissions: Service, registry: Router.Router["Service"]["registry"]) =>
  Effect.fnUntraced(function*(payload: Event.Payload<typeof Check>, { metadata }: Envelope) {
    const { at, event, principal = metadata.principal } = payload
    const { authorizer } = permissions
    const asker = metadata.principal
    if (principal !== asker && !authorizer.allows(asker, "call", List.name)) {
      return yield* KsiError.fail(authorizer.refusal(asker, "call", List.name))
    }
    const known = registry.get(event)?.event
    const action = payload.action ?? (known?.kind === "fact" ? "emit" : known?.mode ?? "call")
    const view = yield* permissions.view(yield* momentOf(Check, at))
    const allowed = view.allows(principal, action, event)
    const because = becauseOf(principal, allowed, view.deciding(principal, action, event))
    return {
      principal, event, action, allowed, because,
      ...(allowed || at !== undefined ? {} : { next: authorizer.refusal(principal, action, event).next })
    }
  })

const listPage = Effect.fnUntraced(function*(
  permissions: Service,
  payload: Event.Payload<typeof List>,
  head: number,
  { pageBytes, pageItems }: { readonly pageBytes: number; readonly pageItems: number }
): Effect.fn.Return<Event.Success<typeof List>, KsiError.KsiError> {
  const { cursor, next, position, query } = yield* Paging.open(List, payload, head)
  const { limit = pageItems } = payload
  const asked = yield* momentOf(List, query.at)
  // The pages after the first answer for the moment of the first.
  const moment = asked ?? (position === head ? undefined : { position })
  const view = yield* permissions.view(moment)
  const all: ReadonlyArray<unknown> = query.profile !== undefined
    ? view.profile(query.profile)
    : view.items().filter(({ principal }) => query.principal === undefined || principal === query.principal)
  const fits = Paging.makeBudget(pageBytes)
  const items: Array<unknown> = []
  for (let at = typeof next === "number" ? next : 0; at < all.length; at++) {
    if (items.length >= limit || !fits(all[at])) return Paging.page(items, cursor(at))
    items.push(all[at])
  }
  return Paging.page(items, undefined)
})

const seconds = (millis: number | undefined) => millis === undefined ? {} : { expires: millis / 1000 }

const handlers = Group.toLayer(Effect.gen(function*() {
  const permissions = yield* Permissions.Permissions
  const { head } = yield* EventStore
  const { registry } = yield* Router.Router
  const limits = yield* Limits
  const { grant, revoke } = makeChanges(permissions)
  return {
    "permission:grant": grant,
    "permission:revoke": revoke,
    "permission:check": makeCheck(permissions, registry),
    "permission:list": (payload: Event.Payload<typeof List>) => listPage(permissions, payload, head(), limits),
    *"permission:token_create"({ expires_in, name, profile }: Event.Payload<typeof TokenCreate>, cause: Envelope) {
      // The answer under a key is kept, and this one must not be.
      if (cause.metadata.idempotencyKey !== undefined) {
        return yield* invalid(TokenCreate, "", "a token is shown once: no idempotency key can be given")
      }
      const { expires, ...made } = yield* permissions.createToken({
        by: cause.metadata.principal, cause, name, profile, expiresIn: expires_in === undefined ? undefined : expires_in * 1000
      })
      return { ...made, ...seconds(expires) }
    },
    *"permission:token_list"() {
      const tokens = (yield* permissions.view()).tokens().map(({ created, expires, ...token }) =>
        ({ ...token, created: created / 1000, ...seconds(expires) }))
      return { tokens, count: tokens.length }
    },
    *"permission:token_revoke"({ id }: Event.Payload<typeof TokenRevoke>, cause: Envelope) {
      const { principal } = yield* permissions.revokeToken({ id, by: cause.metadata.principal, cause })
      return { id, principal }
    }
  }
}))

/** Serves `permission:*`. */
export const layer: Layer.Layer<never, KsiError.KsiError, Router.Router | EventStore | Permissions.Permissions> = Router
  .serveBuiltin(Group).pipe(Layer.provide(handlers))
