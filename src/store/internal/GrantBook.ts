// Who may do what, folded from the facts of the stream `ksi-permission`; as of now, or as of any fact before.
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import type { StoredFact } from "../../event/CloudEvent.ts"
import * as Event from "../../event/Event.ts"
import * as EventCodec from "../../event/EventCodec.ts"
import * as Grant from "../../event/Grant.ts"
import * as KsiError from "../../event/KsiError.ts"

/** The stream of these facts. */
export const stream = "ksi-permission"

const by = Schema.String.annotate({ description: "who said so" })
const principal = Schema.String.annotate({ description: "whom it is about" })
const streamId = () => stream

/** Somebody was given a profile, or a rule of their own. */
export const Granted = Event.fact("permission:granted", {
  payload: {
    principal,
    profile: Schema.optionalKey(Grant.ProfileName),
    rule: Schema.optionalKey(Grant.Rule),
    by
  },
  streamId,
  annotations: { description: "Somebody was given a profile, or a rule of their own." }
})

/** A profile or a rule was taken away. */
export const Revoked = Event.fact("permission:revoked", {
  payload: {
    principal,
    profile: Schema.optionalKey(Grant.ProfileName),
    pattern: Schema.optionalKey(Schema.String),
    actions: Schema.optionalKey(Schema.Array(Grant.Action)),
    by
  },
  streamId,
  annotations: { description: "A profile or a rule was taken away." }
})

/** A token was made; its secret is in no fact. */
export const TokenCreated = Event.fact("permission:token_created", {
  payload: {
    id: Schema.String,
    principal,
    hash: Schema.String.annotate({ description: "SHA-256 of the secret, which is 256 random bits" }),
    profile: Schema.optionalKey(Grant.ProfileName),
    expires: Schema.optionalKey(Schema.Finite.annotate({ description: "milliseconds since 1970" })),
    by
  },
  streamId,
  annotations: { description: "A token was made." }
})

/** A token is not valid any more. */
export const TokenRevoked = Event.fact("permission:token_revoked", {
  payload: { id: Schema.String, principal, by },
  streamId,
  annotations: { description: "A token is not valid any more, and what was granted to it is gone." }
})

/** What a profile is from here on; written with the first change after it was defined otherwise. */
export const ProfileDefined = Event.fact("permission:profile_defined", {
  payload: { profile: Grant.ProfileName, rules: Schema.Array(Grant.Rule) },
  streamId,
  annotations: { description: "What a profile means from here on." }
})

/** A token, without its secret. */
export interface Token {
  readonly id: string
  readonly principal: string
  /** SHA-256 of its secret, as hexadecimal digits. */
  readonly hash: string
  /** Milliseconds since 1970; `undefined`: it does not expire. */
  readonly expires: number | undefined
  readonly created: number
  readonly by: string
}

/** What one principal was given. */
export interface Holder {
  readonly profiles: ReadonlySet<Grant.ProfileName>
  /** By pattern. */
  readonly rules: ReadonlyMap<string, { readonly allow: number; readonly deny: number }>
}

const nobody: Holder = { profiles: new Set(), rules: new Map() }

const tokenPrefix = "token:"

/** The principal that a token stands for. */
export const principalOf = (id: string): string => `${tokenPrefix}${id}`

/** Whether a principal is that of a token, whatever has become of it. */
export const isOfToken = (principal: string): boolean => principal.startsWith(tokenPrefix)

/** The rules of a holder, as it was given them. */
export const rulesOf = ({ rules }: Holder): ReadonlyArray<Grant.Rule> =>
  [...rules].flatMap(([pattern, { allow, deny }]) => [
    ...(allow === 0 ? [] : [{ pattern, actions: Grant.actionsOf(allow), allow: true }]),
    ...(deny === 0 ? [] : [{ pattern, actions: Grant.actionsOf(deny), allow: false }])
  ])

const compiled = Object.fromEntries(
  [Granted, Revoked, TokenCreated, TokenRevoked, ProfileDefined].map((event) => [event.name, EventCodec.compile(event)] as const)
)

const base = Grant.rules(Grant.known)

/** Rights that were looked up, and until when they are any. */
interface Known {
  readonly rights: Grant.Rights
  readonly expires: number | undefined
}

/** The book of who may do what. */
export class GrantBook {
  readonly holders = new Map<string, Holder>([[Grant.localHttp, { profiles: new Set(["standard"]), rules: new Map() }]])
  readonly tokens = new Map<string, Token>()
  /** What the facts say of the profiles. */
  readonly recorded = new Map<Grant.ProfileName, ReadonlyArray<Grant.Rule>>()
  /** Position of the last fact in it; 0 before the first. */
  position = 0
  /** How many rules and profiles were given, to all together. */
  grants = 1
  private readonly profiles = new Map<Grant.ProfileName, Grant.Rules>()
  private readonly rights = new Map<string, Known>()
  private readonly past: boolean

  /** `past`: profiles mean what the facts say that they meant, and not what they mean today. */
  constructor(past = false) {
    this.past = past
  }

  // ----------------------------------------------------------------------------------------------------------- reading

  holder(principal: string): Holder {
    return this.holders.get(principal) ?? nobody
  }

  /** The rules of a profile. */
  profile(name: Grant.ProfileName): ReadonlyArray<Grant.Rule> {
    return (this.past ? this.recorded.get(name) : undefined) ?? Grant.profiles[name]
  }

  /** Whether a token is valid at this time. */
  isValid({ expires }: Token, now: number): boolean {
    return expires === undefined || now < expires
  }

  /** What a principal may; `undefined` for one that nobody knows, or whose token is not valid any more. */
  rightsOf(principal: string, now: () => number): Grant.Rights | undefined {
    const known = this.rights.get(principal) ?? this.compile(principal)
    return known === undefined || (known.expires !== undefined && now() >= known.expires) ? undefined : known.rights
  }

  /** What decides, as a person wants to read it: the rule, and the profile that it is of. */
  deciding(principal: string, action: Grant.Action, event: string) {
    const holder = this.holder(principal)
    const own = Grant.rules(rulesOf(holder)).deciding(event, action)
    if (own !== undefined) return { ...own, profile: undefined }
    const found = [...holder.profiles].flatMap((profile) => {
      const deciding = this.profileRules(profile).deciding(event, action)
      return deciding === undefined ? [] : [{ ...deciding, profile }]
    })
    return found.find(({ allow }) => allow) ?? found[0]
  }

  /** Facts that must stand before the next one, so that what the profiles mean today is known for ever. */
  undefinedProfiles(): ReadonlyArray<Event.Payload<typeof ProfileDefined>> {
    return Grant.profileNames
      .filter((profile) => JSON.stringify(this.recorded.get(profile)) !== JSON.stringify(Grant.profiles[profile]))
      .map((profile) => ({ profile, rules: Grant.profiles[profile] }))
  }

  private profileRules(name: Grant.ProfileName): Grant.Rules {
    const rules = this.profiles.get(name) ?? Grant.rules(this.profile(name))
    this.profiles.set(name, rules)
    return rules
  }

  private compile(principal: string): Known | undefined {
    const token = isOfToken(principal) ? this.tokens.get(principal.slice(tokenPrefix.length)) : undefined
    if (isOfToken(principal) ? token === undefined : !this.holders.has(principal)) return undefined
    const holder = this.holder(principal)
    const profiles = [base, ...[...holder.profiles].map((name) => this.profileRules(name))]
    const known = { rights: Grant.rights(Grant.rules(rulesOf(holder)), profiles), expires: token?.expires }
    this.rights.set(principal, known)
    return known
  }

  // ----------------------------------------------------------------------------------------------------------- folding

  /** One more fact of the stream. Fails where it cannot be read: who may what is then not known. */
  apply(fact: StoredFact): KsiError.KsiError | undefined {
    const payload = compiled[fact.name]?.decodePayload(fact.data)
    if (payload === undefined || Exit.isFailure(payload)) {
      const problem = `the fact "${fact.id}" at position ${fact.position} is no ${fact.name} that this version knows`
      return KsiError.make(new KsiError.StoreFailure({ operation: "read who may do what", problem }))
    }
    this.position = fact.position
    // What the codec of the event of this name decodes.
    this.take(fact, payload.value as never)
    return undefined
  }

  private take(fact: StoredFact, payload: never): void {
    switch (fact.name) {
      case Granted.name:
        return this.granted(payload)
      case Revoked.name:
        return this.revoked(payload)
      case TokenCreated.name:
        return this.tokenCreated(payload, fact)
      case TokenRevoked.name:
        return this.tokenRevoked(payload)
      default:
        return this.defined(payload)
    }
  }

  private granted({ principal, profile, rule }: Event.Payload<typeof Granted>): void {
    const { profiles, rules } = this.holder(principal)
    if (profile !== undefined) this.hold(principal, { profiles: new Set([...profiles, profile]), rules })
    if (rule === undefined) return
    const { allow, deny } = rules.get(rule.pattern) ?? { allow: 0, deny: 0 }
    const mask = Grant.maskOf(rule.actions)
    const masks = rule.allow ? { allow: allow | mask, deny: deny & ~mask } : { allow: allow & ~mask, deny: deny | mask }
    this.hold(principal, { profiles, rules: new Map([...rules, [rule.pattern, masks]]) })
  }

  private revoked({ actions = Grant.actions, pattern, principal, profile }: Event.Payload<typeof Revoked>): void {
    const { profiles, rules } = this.holder(principal)
    const left = new Map(rules)
    const masks = pattern === undefined ? undefined : rules.get(pattern)
    if (pattern !== undefined && masks !== undefined) {
      const keep = ~Grant.maskOf(actions)
      const { allow, deny } = { allow: masks.allow & keep, deny: masks.deny & keep }
      if ((allow | deny) === 0) left.delete(pattern)
      else left.set(pattern, { allow, deny })
    }
    this.hold(principal, { profiles: new Set([...profiles].filter((name) => name !== profile)), rules: left })
  }

  private tokenCreated({ by, expires, hash, id, principal, profile }: Event.Payload<typeof TokenCreated>, fact: StoredFact): void {
    this.tokens.set(id, { id, principal, hash, expires, created: fact.timestamp, by })
    this.hold(principal, { profiles: new Set(profile === undefined ? [] : [profile]), rules: new Map() })
  }

  private tokenRevoked({ id, principal }: Pick<Token, "id" | "principal">): void {
    this.tokens.delete(id)
    this.hold(principal, nobody)
  }

  private defined({ profile, rules }: Event.Payload<typeof ProfileDefined>): void {
    this.recorded.set(profile, rules)
    if (!this.past) return
    this.profiles.delete(profile)
    this.rights.clear()
  }

  /** Forgets the tokens that have expired: their facts stay. */
  prune(now: number): void {
    for (const token of this.tokens.values()) {
      if (!this.isValid(token, now)) this.tokenRevoked(token)
    }
  }

  private hold(principal: string, holder: Holder): void {
    const sizeOf = ({ profiles, rules }: Holder) => profiles.size + rules.size
    const size = sizeOf(holder)
    this.grants += size - sizeOf(this.holder(principal))
    if (size === 0) this.holders.delete(principal)
    else this.holders.set(principal, holder)
    this.rights.delete(principal)
  }

  /** The first time at which a token that is valid now will not be; `undefined` where none will. */
  nextExpiry(now: number): number | undefined {
    let next: number | undefined
    for (const { expires } of this.tokens.values()) {
      if (expires !== undefined && expires > now && (next === undefined || expires < next)) next = expires
    }
    return next
  }
}
