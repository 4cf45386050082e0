/**
 * Who may do what, as data: rules (actions × event pattern × allow), the named sets of them that KSI brings along
 * (profiles), and what they come to for an event. Pure.
 *
 * The rule: what no rule allows is denied. Of several rules that match an event the most specific decides, segment by
 * segment from the left (a name before `*`); of two with one pattern the one that denies. A principal's own rules decide
 * before its profiles; of several profiles one that allows is enough.
 *
 * **Example**
 *
 * ```ts
 * const every = Grant.actions
 * const own = Grant.rules([
 *   { pattern: "shop:*", actions: every, allow: true },
 *   { pattern: "shop:refund", actions: ["call"], allow: false }
 * ])
 * const rights = Grant.rights(own, [])
 * rights.allows("call", "shop:order")          // true
 * rights.allows("call", "shop:refund")         // false
 * rights.allows("subscribe", "shop:refund")    // true
 * rights.allows("call", "stock:reserve")       // false
 * ```
 *
 * **Gotchas** Profiles are made of one table, `builtins`: the least profile that may use each of KSI's own events. One that
 * is missing there is for the owner alone.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as EventName from "./EventName.ts"
import * as EventPattern from "./EventPattern.ts"

// ------------------------------------------------------------------------------------------------------------- models

/** What one may do to an event. */
export const actions = ["call", "emit", "stream", "subscribe"] as const

/** What one may do to an event. */
export const Action = Schema.Literals(actions)
/** What one may do to an event. */
export type Action = typeof Action.Type

/** One rule. */
export const Rule = Schema.Struct({
  /** Which events; of what one subscribes to, which of it is heard. */
  pattern: Schema.String,
  actions: Schema.Array(Action),
  /** Whether it allows or denies. */
  allow: Schema.Boolean
})
/** One rule. */
export type Rule = typeof Rule.Type

/** The process itself, and whoever can open its Unix socket: may everything and is never asked. */
export const owner = "owner"
/** Who came with a token that is none: may greet, and nothing else. */
export const anonymous = "anonymous"
/** Who speaks HTTP on this machine without a token. */
export const localHttp = "local-http"

const bits = { call: 1, emit: 2, stream: 4, subscribe: 8 } as const
const all = 15

/** Actions as a number that has a bit for each. */
export const maskOf = (given: ReadonlyArray<Action>): number => given.reduce((mask, action) => mask | bits[action], 0)

/** The actions that a mask has bits for. */
export const actionsOf = (mask: number): ReadonlyArray<Action> => actions.filter((action) => (mask & bits[action]) !== 0)

// ----------------------------------------------------------------------------------------------------------- patterns

type Segments = ReadonlyArray<string>

const isRest = (segments: Segments, at: number): boolean => segments[at] === "*" && at === segments.length - 1

/** The pattern of what both match; `undefined` where nothing is matched by both. */
const intersect = (a: Segments, b: Segments): Segments | undefined => {
  const common: Array<string> = []
  for (let at = 0;; at++) {
    if (at === a.length || at === b.length) return a.length === b.length ? common : undefined
    if (isRest(a, at)) return [...common, ...b.slice(at)]
    if (isRest(b, at)) return [...common, ...a.slice(at)]
    const [mine = "", other = ""] = [a[at], b[at]]
    if (mine !== "*" && other !== "*" && mine !== other) return undefined
    common.push(mine === "*" ? other : mine)
  }
}

/** Whether everything that `inner` matches is matched by `outer` too. */
const contains = (outer: Segments, inner: Segments): boolean => {
  for (let at = 0;; at++) {
    if (at === outer.length || at === inner.length) return outer.length === inner.length
    if (isRest(outer, at)) return true
    if (isRest(inner, at)) return false
    if (outer[at] !== "*" && outer[at] !== inner[at]) return false
  }
}

const rank = (segments: Segments, at: number): number => segments[at] !== "*" ? 2 : isRest(segments, at) ? 0 : 1

/** Positive where `a` is the more specific of two patterns that match one name. */
const compare = (a: Segments, b: Segments): number => {
  for (let at = 0; at < Math.min(a.length, b.length); at++) {
    const difference = rank(a, at) - rank(b, at)
    if (difference !== 0) return difference
  }
  return 0
}

// -------------------------------------------------------------------------------------------------------------- rules

interface Masks {
  allow: number
  deny: number
}

interface Entry extends Masks {
  readonly text: string
  readonly segments: Segments
}

interface Node {
  readonly children: Map<string, Node>
  any: Node | undefined
  exact: Masks | undefined
  rest: Masks | undefined
}

const makeNode = (): Node => ({ children: new Map(), any: undefined, exact: undefined, rest: undefined })

/** What is decided for a name so far; the most specific masks come first. */
const settle = (decided: Masks, { allow, deny }: Masks): boolean => {
  const open = all & ~(decided.allow | decided.deny)
  decided.deny |= deny & open
  decided.allow |= allow & ~deny & open
  return (decided.allow | decided.deny) === all
}

/** From the most specific on; true when everything is decided. */
const decideFrom = (node: Node, name: string, from: number, decided: Masks): boolean => {
  if (from > name.length) return node.exact !== undefined && settle(decided, node.exact)
  const colon = name.indexOf(":", from)
  const end = colon < 0 ? name.length : colon
  const child = node.children.size === 0 ? undefined : node.children.get(name.slice(from, end))
  if (child !== undefined && decideFrom(child, name, end + 1, decided)) return true
  if (node.any !== undefined && decideFrom(node.any, name, end + 1, decided)) return true
  return node.rest !== undefined && settle(decided, node.rest)
}

const insert = (root: Node, segments: Segments, masks: Masks): void => {
  let node = root
  for (const [at, part] of segments.entries()) {
    if (isRest(segments, at)) {
      node.rest = masks
      return
    }
    const next: Node = (part === "*" ? node.any : node.children.get(part)) ?? makeNode()
    if (part === "*") node.any = next
    else node.children.set(part, next)
    node = next
  }
  node.exact = masks
}

/** The rule that decides, as a person wants to read it. */
export interface Deciding {
  readonly pattern: string
  readonly allow: boolean
}

/** Rules, ready to be asked. */
export interface Rules {
  /** What is allowed and denied for a name, as masks; what is in neither is not decided here. */
  readonly decide: (name: string) => { readonly allow: number; readonly deny: number }
  /** Which rule decides. */
  readonly deciding: (name: string, action: Action) => Deciding | undefined
  /** Whether everything that a pattern matches is allowed, denied somewhere, or left to others. */
  readonly covers: (pattern: Segments, action: Action) => "allowed" | "denied" | "open"
  /** Whether something that a pattern matches is allowed, where `denied` says which patterns are denied before. */
  readonly reaches: (pattern: Segments, action: Action, denied: (pattern: Segments) => boolean) => boolean
  /** Whether a rule denies everything that a pattern matches. */
  readonly denies: (pattern: Segments, action: Action) => boolean
  readonly hasDenials: boolean
}

const entriesOf = (given: Iterable<Rule>): ReadonlyArray<Entry> => {
  const entries = new Map<string, Entry>()
  for (const { actions, allow, pattern } of given) {
    const entry = entries.get(pattern) ?? { text: pattern, segments: pattern.split(":"), allow: 0, deny: 0 }
    entries.set(pattern, entry)
    if (allow) entry.allow |= maskOf(actions)
    else entry.deny |= maskOf(actions)
  }
  return [...entries.values()]
}

/** Makes rules ready. Their patterns are patterns: whoever takes one in has parsed it. */
export const rules = (given: Iterable<Rule>): Rules => {
  const entries = entriesOf(given)
  const root = makeNode()
  for (const entry of entries) insert(root, entry.segments, entry)
  const best = (found: ReadonlyArray<Entry>): Entry | undefined =>
    found.reduce<Entry | undefined>((a, b) => a === undefined || compare(b.segments, a.segments) > 0 ? b : a, undefined)
  const about = (bit: number) => entries.filter(({ allow, deny }) => ((allow | deny) & bit) !== 0)
  return {
    hasDenials: entries.some(({ deny }) => deny !== 0),
    decide: (name) => {
      const decided: Masks = { allow: 0, deny: 0 }
      decideFrom(root, name, 0, decided)
      return decided
    },
    deciding: (name, action) => {
      const found = best(about(bits[action]).filter(({ segments }) => contains(segments, name.split(":"))))
      return found && { pattern: found.text, allow: (found.deny & bits[action]) === 0 }
    },
    covers: (pattern, action) => {
      const bit = bits[action]
      const container = best(about(bit).filter(({ segments }) => contains(segments, pattern)))
      const denied = about(bit).some(({ deny, segments }) =>
        (deny & bit) !== 0 && intersect(segments, pattern) !== undefined &&
        (container === undefined || compare(segments, container.segments) >= 0))
      if (denied) return "denied"
      return container === undefined ? "open" : "allowed"
    },
    reaches: (pattern, action, denied) => {
      const bit = bits[action]
      return about(bit).some(({ allow, deny, segments }) => {
        if ((allow & ~deny & bit) === 0) return false
        const common = intersect(segments, pattern)
        // Names are without end: what several denials take away together one of them takes away alone.
        return common !== undefined && !denied(common) && !about(bit).some((other) =>
          (other.deny & bit) !== 0 && compare(other.segments, segments) > 0 && contains(other.segments, common))
      })
    },
    denies: (pattern, action) =>
      about(bits[action]).some(({ deny, segments }) => (deny & bits[action]) !== 0 && contains(segments, pattern))
  }
}

// ------------------------------------------------------------------------------------------------------------- rights

/** What a principal may do. */
export interface Rights {
  readonly allows: (action: Action, name: string) => boolean
  /** Whether it may do so to everything that a pattern matches: what it may pass on. Says no where it is not sure. */
  readonly covers: (action: Action, pattern: EventPattern.EventPattern) => boolean
  /** Whether there can be anything that the pattern matches and it may do so to. */
  readonly reaches: (action: Action, pattern: EventPattern.EventPattern) => boolean
}

// More names than any registry has; beyond it foreign names only pass through.
const maxKnown = 10_000

/** What own rules and profiles come to. What was decided for a name is remembered: these rights never change. */
export const rights = (own: Rules, profiles: ReadonlyArray<Rules>): Rights => {
  const known = new Map<string, number>()
  const look = (name: string): number => {
    const decided = own.decide(name)
    const others = profiles.reduce((mask, profile) => mask | profile.decide(name).allow, 0)
    const mask = decided.allow | (others & ~decided.deny)
    if (known.size >= maxKnown) known.clear()
    known.set(name, mask)
    return mask
  }
  return {
    allows: (action, name) => ((known.get(name) ?? look(name)) & bits[action]) !== 0,
    covers: (action, { segments }) => {
      const mine = own.covers(segments, action)
      return mine === "allowed" || (mine === "open" && profiles.some((profile) => profile.covers(segments, action) === "allowed"))
    },
    reaches: (action, { segments }) =>
      own.reaches(segments, action, () => false) ||
      profiles.some((profile) => profile.reaches(segments, action, (common) => own.denies(common, action)))
  }
}

// ----------------------------------------------------------------------------------------------------------- profiles

/** The named sets of rules that KSI brings along, each more than the one before. */
export const profileNames = ["restricted", "standard", "trusted", "owner"] as const

/** The name of a profile. */
export const ProfileName = Schema.Literals(profileNames)
/** The name of a profile. */
export type ProfileName = typeof ProfileName.Type

/** Who may use one of KSI's own events: anyone, everyone who is known, or a profile and those beyond it. */
export type Level = "anyone" | "known" | ProfileName

const levels: ReadonlyArray<Level> = ["anyone", "known", ...profileNames]

/** The least profile that may use each of KSI's own events. A test holds that none is missing. */
export const builtins: Readonly<Record<string, Level>> = {
  "wire:hello": "anyone",
  // What one hears of is decided by its pattern; these only say which.
  "pubsub:subscribe": "known",
  "pubsub:unsubscribe": "known",
  "stream:cancel": "known",
  "monitor:subscribe": "known",
  "monitor:unsubscribe": "known",
  // They tell of what the asker may use, and of the asker.
  "system:discover": "known",
  "system:help": "known",
  "permission:check": "known",
  "system:health": "restricted",
  "monitor:get_events": "standard",
  "monitor:get_status": "standard",
  "monitor:get_correlation_chain": "standard",
  "event_log:query": "standard",
  "store:export": "standard",
  "store:read": "standard",
  "store:streams": "standard",
  "store:stream_info": "standard",
  "time:at": "standard",
  "time:test": "standard",
  "time:trace": "standard",
  "time:diff": "standard",
  "time:find": "standard",
  "time:blame": "standard",
  "time:branch": "standard",
  "time:compare": "standard",
  "deadletter:list": "standard",
  "deadletter:show": "standard",
  "projection:list": "standard",
  "projection:get": "standard",
  "consumer:list": "standard",
  "consumer:parked": "standard",
  "consumer:settled": "standard",
  "store:import": "trusted",
  "store:verify": "trusted",
  "deadletter:rerun": "trusted",
  "deadletter:discard": "trusted",
  "consumer:work": "trusted",
  "consumer:done": "trusted",
  "module:list": "trusted",
  "permission:list": "trusted",
  "permission:token_list": "trusted",
  "projection:rebuild": "owner",
  "consumer:retry": "owner",
  "consumer:discard": "owner",
  "store:configure_stream": "owner",
  "store:delete_stream": "owner",
  "system:shutdown": "owner",
  "store:backup": "owner",
  "store:compact": "owner",
  "permission:grant": "owner",
  "permission:revoke": "owner",
  "permission:token_create": "owner",
  "permission:token_revoke": "owner",
  "permission:granted": "owner",
  "permission:revoked": "owner",
  "permission:token_created": "owner",
  "permission:token_revoked": "owner",
  "permission:profile_defined": "owner"
}

const upTo = (level: Level): ReadonlyArray<Rule> =>
  Object.keys(builtins)
    .filter((name) => levels.indexOf(builtins[name] ?? "owner") <= levels.indexOf(level))
    .map((pattern) => ({ pattern, actions: ["call", "stream"], allow: true }))

/** Everything of the users' namespaces, and of KSI's own what the table says. */
const users = (level: Level, closed: ReadonlyArray<Action>): ReadonlyArray<Rule> => [
  { pattern: "*", actions, allow: true },
  ...[...EventName.reserved].map((namespace) => ({ pattern: `${namespace}:*`, actions: closed, allow: false })),
  ...upTo(level)
]

/**
 * The profiles. `restricted` may look whether the runtime is well; `standard` may use everything of the users' namespaces
 * and read; `trusted` may write too, and hear everything, but neither stop the runtime nor say who may what; `owner` may
 * everything.
 */
export const profiles: Readonly<Record<ProfileName, ReadonlyArray<Rule>>> = {
  restricted: upTo("restricted"),
  standard: users("standard", actions),
  trusted: users("trusted", ["call", "emit", "stream"]),
  owner: [{ pattern: "*", actions, allow: true }]
}

/** What everyone may who has a token, a profile or a grant. */
export const known: ReadonlyArray<Rule> = upTo("known")

/** What even those may who are nobody: greet. */
export const isForAnyone = (action: Action, name: string): boolean => action === "call" && builtins[name] === "anyone"

/** Whether a text is the name of a principal that something can be granted to. */
export const isPrincipal = (text: string): boolean => /^[a-z][a-z0-9]*(?:[._:-][a-z0-9]+)*$/.test(text) && text.length <= 128

/** Whether a text is a pattern that a rule can have. */
export const isPattern = (text: string): boolean => Result.isSuccess(EventPattern.parse(text))
