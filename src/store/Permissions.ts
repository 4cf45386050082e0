/**
 * Who may do what, remembered: profiles and rules of principals, and tokens, each change a fact of the stream
 * `ksi-permission`. Provides the bus's `Authorizer`.
 *
 * The rule: what is in force is what the facts say, from the turn in which a change is committed. Nobody can pass on more
 * than they may themselves. A token is 256 random bits that are shown once; what is kept is their SHA-256, which is enough
 * for a secret that nobody can guess.
 *
 * **Example**
 *
 * ```ts
 * const permissions = yield* Permissions.Permissions
 * const { principal, token } = yield* permissions.createToken({ by: "owner", name: "till", profile: "restricted" })
 * yield* permissions.grant({ by: "owner", principal, rule: { pattern: "stock:*", actions: ["call"], allow: true } })
 * const { allows, authenticate } = permissions.authorizer
 * Result.getOrThrow(authenticate(token)) === principal     // true
 * allows(principal, "call", "stock:reserve")               // true
 * allows(principal, "emit", "stock:reserved")              // false
 * ```
 *
 * **Gotchas** A request that has begun is finished, also when what allowed it is revoked meanwhile; the next one is denied,
 * and subscriptions hear no more. A token's principal is its own for ever (`token:<name>-<random>`): revoking it takes its
 * grants along. What a profile means is written down with the first change after a KSI that defines it otherwise, so that
 * the past stays what it was.
 *
 * Source: NIST SP 800-63B 5.1.2 (look-up secrets of 112 bits and more may be hashed without salt and stretching).
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as WebCrypto from "effect/crypto/WebCrypto"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { Buffer } from "node:buffer"
import { hash, timingSafeEqual } from "node:crypto"
import { Authorizer, type AuthorizerShape } from "../bus/Authorizer.ts"
import { LiveEnvelope, originOf, own, type Stamps } from "../bus/Causation.ts"
import type { StoredFact } from "../event/CloudEvent.ts"
import * as Envelope from "../event/Envelope.ts"
import type * as Event from "../event/Event.ts"
import * as EventPattern from "../event/EventPattern.ts"
import * as EventName from "../event/EventName.ts"
import * as Grant from "../event/Grant.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits, type LimitsShape } from "../event/Limits.ts"
import { EventStore } from "./EventStore.ts"
import { onForget } from "./Forgetting.ts"
import * as GrantBook from "./internal/GrantBook.ts"

export { Granted, ProfileDefined, Revoked, TokenCreated, TokenRevoked } from "./internal/GrantBook.ts"

// ------------------------------------------------------------------------------------------------------------- models

/** Who wants a change. */
export interface Wish {
  /** Who may not give more than they have; `owner` has everything. */
  readonly by: string
  /** The request that it is done for. */
  readonly cause?: Envelope.Envelope | undefined
}

/** What is to be given: a profile, or a rule that takes the place of an earlier one for the same pattern and actions. */
export type Gift = { readonly principal: string } & (
  | { readonly profile: Grant.ProfileName; readonly rule?: undefined }
  | { readonly rule: Grant.Rule; readonly profile?: undefined }
)

/** What is to be taken away: a profile, or what there is for a pattern (all actions where none are named). */
export type Taking = { readonly principal: string } & (
  | { readonly profile: Grant.ProfileName; readonly pattern?: undefined }
  | { readonly pattern: string; readonly actions?: ReadonlyArray<Grant.Action> | undefined; readonly profile?: undefined }
)

/** A token to be made. */
export interface TokenWish {
  /** Lower-case letters, digits and `-`, at most 32. Default: `token`. */
  readonly name?: string | undefined
  readonly profile?: Grant.ProfileName | undefined
  /** Milliseconds from now; default: never. */
  readonly expiresIn?: number | undefined
}

/** A token, the only time that it can be seen. */
export interface NewToken {
  readonly id: string
  readonly principal: string
  /** `ksi_<id>_<secret>` */
  readonly token: string
  /** Milliseconds since 1970. */
  readonly expires: number | undefined
}

/** A token without its secret. */
export interface TokenInfo {
  readonly id: string
  readonly principal: string
  readonly profiles: ReadonlyArray<Grant.ProfileName>
  /** Milliseconds since 1970. */
  readonly created: number
  readonly expires: number | undefined
  readonly valid: boolean
  readonly by: string
}

/** One thing that a principal was given. */
export type Item =
  | { readonly principal: string; readonly profile: Grant.ProfileName }
  | { readonly principal: string } & Grant.Rule

/** Who might do what at one moment. */
export interface View {
  readonly allows: (principal: string, action: Grant.Action, event: string) => boolean
  /** The rule that decides, and the profile that it is of; `undefined` where no rule does. */
  readonly deciding: (principal: string, action: Grant.Action, event: string) =>
    | (Grant.Deciding & { readonly profile: Grant.ProfileName | undefined })
    | undefined
  /** Everything given, by principal. */
  readonly items: () => ReadonlyArray<Item>
  readonly tokens: () => ReadonlyArray<TokenInfo>
  /** What a profile means. */
  readonly profile: (name: Grant.ProfileName) => ReadonlyArray<Grant.Rule>
}

/** A moment of the past: after a position, or at an instant in milliseconds since 1970. */
export type Moment = { readonly position: number } | { readonly instant: number }

// ------------------------------------------------------------------------------------------------------------ service

/** Who may do what, and who says so. */
export class Permissions extends Context.Service<Permissions, {
  readonly authorizer: AuthorizerShape
  /** Fails with `PermissionDenied` for what `by` may not do itself, `PayloadInvalid`, `LimitExceeded`, `StoreFailure`. */
  readonly grant: (gift: Gift & Wish) => Effect.Effect<void, KsiError.KsiError>
  /** As `grant`; `NotFound` where there is nothing to take away. */
  readonly revoke: (taking: Taking & Wish) => Effect.Effect<void, KsiError.KsiError>
  readonly createToken: (wish: TokenWish & Wish) => Effect.Effect<NewToken, KsiError.KsiError>
  /** Ends a token at once; `NotFound` where there is none of this id. */
  readonly revokeToken: (wish: { readonly id: string } & Wish) => Effect.Effect<TokenInfo, KsiError.KsiError>
  /** Who may what: now, or at a moment of the past, which is read from the store. */
  readonly view: (at?: Moment) => Effect.Effect<View, KsiError.KsiError>
}>()("ksi/store/Permissions") {
  /** Over the event store in context; provides the bus's `Authorizer` too. Fails where the facts cannot be read. */
  static readonly layer: Layer.Layer<Permissions, KsiError.KsiError, EventStore> = Layer.effectContext(Effect.suspend(() => make))
}

// ------------------------------------------------------------------------------------------------------------- tokens

const tokenText = /^ksi_([a-z][a-z0-9-]{0,60})_([0-9a-f]{64})$/
const maxTokenLength = 160
const secretWords = 8

const digest = (secret: string): string => hash("sha256", secret, "hex")

// A hash that is no secret's: a token whose id is unknown costs as much as one whose secret is wrong.
const noHash = "0".repeat(64)

const sameHash = (a: string, b: string): boolean => timingSafeEqual(Buffer.from(a, "utf8"), Buffer.from(b, "utf8"))

const invalidToken = new KsiError.Unauthenticated({ problem: "the token is not valid here: it is no token, was revoked, or has expired" })

/** Whose token it is. What is wrong with one is not told. */
const authenticator = (book: GrantBook.GrantBook, now: () => number): AuthorizerShape["authenticate"] => (token) => {
  const [, id = "", secret = ""] = typeof token === "string" && token.length <= maxTokenLength ? tokenText.exec(token) ?? [] : []
  const found = book.tokens.get(id)
  const isSame = sameHash(digest(secret), found?.hash ?? noHash)
  return found !== undefined && isSame && book.isValid(found, now()) ? Result.succeed(found.principal) : Result.fail(invalidToken)
}

/** So many random bits as hexadecimal digits, 32 a word. Their source is made with the first token: most runtimes make none. */
const makeHex = Effect.map(WebCrypto.WebCrypto, (crypto) => (words: number) =>
  SecureRandom.SecureRandom.use(({ intBetween }) => Effect.replicateEffect(intBetween(0, 0xffffffff), words)).pipe(
    Effect.map((numbers) => numbers.map((number) => number.toString(16).padStart(8, "0")).join("")),
    Effect.provide(SecureRandom.layerWebCrypto),
    Effect.provideService(WebCrypto.WebCrypto, crypto)
  ))

// -------------------------------------------------------------------------------------------------------------- views

const infoOf = (book: GrantBook.GrantBook, now: number) => (token: GrantBook.Token): TokenInfo => {
  const { by, created, expires, id, principal } = token
  return { id, principal, profiles: [...book.holder(principal).profiles], created, expires, valid: book.isValid(token, now), by }
}

const itemsOf = (book: GrantBook.GrantBook): ReadonlyArray<Item> =>
  [...book.holders].toSorted(([a], [b]) => a < b ? -1 : 1).flatMap(([principal, holder]) => [
    ...[...holder.profiles].map((profile) => ({ principal, profile })),
    ...GrantBook.rulesOf(holder).map((rule) => ({ principal, ...rule }))
  ])

const allowsIn = (book: GrantBook.GrantBook, now: () => number): AuthorizerShape["allows"] => (principal, action, event) =>
  principal === Grant.owner || Grant.isForAnyone(action, event) || book.rightsOf(principal, now)?.allows(action, event) === true

const viewOf = (book: GrantBook.GrantBook, now: () => number): View => ({
  allows: allowsIn(book, now),
  deciding: (principal, action, event) => book.deciding(principal, action, event),
  items: () => itemsOf(book),
  tokens: () => [...book.tokens.values()].map(infoOf(book, now())),
  profile: (name) => book.profile(name)
})

/** The facts of the stream, page by page, as long as `wanted` says so. */
const fold = Effect.fnUntraced(function*(
  store: EventStore["Service"],
  book: GrantBook.GrantBook,
  limit: number,
  wanted: (fact: StoredFact) => "take" | "skip" | "end"
) {
  for (let from = 1;;) {
    const page = yield* store.readStream({ streamId: GrantBook.stream, from, limit })
    for (const fact of page) {
      const what = wanted(fact)
      if (what === "end") return
      const problem = what === "skip" ? undefined : book.apply(fact)
      if (problem !== undefined) return yield* Effect.fail(problem)
      from = fact.version + 1
    }
    if (page.length === 0) return
  }
})

const makeView = (store: EventStore["Service"], live: View, limit: number) =>
  Effect.fnUntraced(function*(at?: Moment): Effect.fn.Return<View, KsiError.KsiError> {
    if (at === undefined) return live
    const book = new GrantBook.GrantBook(true)
    if ("instant" in at) {
      // An instant is the event's time, as everywhere; these facts are said when they are stored, in order.
      yield* fold(store, book, limit, ({ timestamp }) => timestamp > at.instant ? "end" : "take")
      return viewOf(book, () => at.instant)
    }
    let last = 0
    yield* fold(store, book, limit, ({ position, timestamp }) => {
      if (position > at.position) return "end"
      last = timestamp
      return "take"
    })
    // The last one by then that is left.
    const fact = Option.getOrUndefined(yield* Stream.runHead(store.all({ to: at.position, backward: true })))
    const now = Math.max(last, fact?.recordedAt ?? 0)
    return viewOf(book, () => now)
  })

// ------------------------------------------------------------------------------------------------------------ changes

const invalid = (event: string, path: string, problem: string) => KsiError.fail(KsiError.invalidAt(event, path, problem))

/** A principal that something can be given to. */
const checkPrincipal = (event: string, principal: string): Effect.Effect<void, KsiError.KsiError> => {
  if (principal === Grant.owner) return invalid(event, "principal", "the owner may everything: nothing is given to it or taken from it")
  if (principal === Grant.anonymous) return invalid(event, "principal", "who came with an invalid token is nobody; nothing can be given to it")
  return Grant.isPrincipal(principal)
    ? Effect.void
    : invalid(event, "principal", "expected lower-case letters and digits with . _ : - between, at most 128 characters")
}

const denied = (principal: string, event: string, action: Grant.Action) =>
  KsiError.fail(new KsiError.PermissionDenied({ principal, event, action }))

/** Nobody gives what they do not have. */
const makeReach = (book: GrantBook.GrantBook, now: () => number) => {
  const hasProfile = (by: string, profile: Grant.ProfileName) => {
    const { profiles, rules } = book.holder(by)
    const denies = [...rules.values()].some(({ deny }) => deny !== 0)
    // Each profile has all of those before it.
    const rank = (name: Grant.ProfileName) => Grant.profileNames.indexOf(name)
    return book.rightsOf(by, now) !== undefined && !denies && [...profiles].some((own) => rank(own) >= rank(profile))
  }
  return {
    /** Whether `by` may itself do all of this. */
    rule: Effect.fnUntraced(function*(by: string, pattern: EventPattern.EventPattern, actions: ReadonlyArray<Grant.Action>) {
      if (by === Grant.owner) return
      const missing = actions.find((action) => book.rightsOf(by, now)?.covers(action, pattern) !== true)
      if (missing !== undefined) return yield* denied(by, pattern.text, missing)
    }),
    /** Whether `by` has this profile itself, or one that is more. */
    profile: (by: string, profile: Grant.ProfileName) =>
      by === Grant.owner || hasProfile(by, profile) ? Effect.void : denied(by, "*", "call")
  }
}

/**
 * Appends facts of this stream; the book has them in the turn of their commit. Nobody else writes this stream, so that
 * commits are listened to only meanwhile: every other one would pay for it.
 */
const makeAppend = Effect.fnUntraced(function*(heard: (facts: ReadonlyArray<StoredFact>) => void) {
  const store = yield* EventStore
  const clock = yield* Clock.Clock
  const stamps: Stamps = { ids: yield* Envelope.randomIds, now: () => clock.currentTimeMillisUnsafe() }
  return (book: GrantBook.GrantBook, name: string, data: object, { cause }: Wish) => {
    const said = (name: string, data: object) =>
      Envelope.toFact(new LiveEnvelope(name, data, cause, cause === undefined ? own : originOf(cause), stamps), GrantBook.stream, data)
    const defined = book.undefinedProfiles().map((definition) => said(GrantBook.ProfileDefined.name, definition))
    // Who comes next must find what this one has made, also where nobody waits for it any more.
    const appended = store.driver.append({ facts: [...defined, said(name, data)] })
    return Effect.uninterruptible(Effect.scoped(Effect.asVoid(Effect.andThen(store.listen(heard), appended))))
  }
})

type Append = Effect.Success<ReturnType<typeof makeAppend>>

const full = (limit: "grants" | "tokens", limits: LimitsShape) =>
  KsiError.fail(new KsiError.LimitExceeded({ limit, max: limits[limit], retryable: false }))

const makeGrants = (book: GrantBook.GrantBook, limits: LimitsShape, append: Append, now: () => number) => {
  const may = makeReach(book, now)

  const grant = Effect.fnUntraced(function*(gift: Gift & Wish): Effect.fn.Return<void, KsiError.KsiError> {
    const { by, principal, profile, rule } = gift
    yield* checkPrincipal("permission:grant", principal)
    if (GrantBook.isOfToken(principal) && book.rightsOf(principal, now) === undefined) {
      return yield* KsiError.fail(new KsiError.NotFound({ what: "token", id: principal, similar: [] }))
    }
    if (profile !== undefined) yield* may.profile(by, profile)
    if (rule !== undefined) {
      const pattern = yield* EventPattern.fromText(rule.pattern)
      if (rule.actions.length === 0) return yield* invalid("permission:grant", "actions", "name at least one")
      // To deny somebody something takes no more than being allowed to grant.
      if (rule.allow) yield* may.rule(by, pattern, rule.actions)
    }
    if (book.grants >= limits.grants) return yield* full("grants", limits)
    const given: Event.Payload<typeof GrantBook.Granted> = profile === undefined ? { principal, rule, by } : { principal, profile, by }
    yield* append(book, GrantBook.Granted.name, given, gift)
  })

  const revoke = Effect.fnUntraced(function*(taking: Taking & Wish): Effect.fn.Return<void, KsiError.KsiError> {
    const { by, pattern, principal, profile } = taking
    yield* checkPrincipal("permission:revoke", principal)
    const holder = book.holder(principal)
    const actions = taking.profile === undefined ? taking.actions ?? Grant.actions : []
    const masks = pattern === undefined ? undefined : holder.rules.get(pattern)
    const mask = Grant.maskOf(actions)
    const isThere = profile === undefined ? masks !== undefined && ((masks.allow | masks.deny) & mask) !== 0 : holder.profiles.has(profile)
    if (!isThere) {
      const what = profile === undefined ? "grant" : "profile"
      const similar = what === "grant" ? [...holder.rules.keys()].slice(0, 3) : [...holder.profiles]
      return yield* KsiError.fail(new KsiError.NotFound({ what, id: pattern ?? profile ?? "", similar, detail: `of ${principal}` }))
    }
    // Taking a denial away is giving.
    if (masks !== undefined && (masks.deny & mask) !== 0) {
      yield* may.rule(by, yield* EventPattern.fromText(pattern ?? ""), Grant.actionsOf(masks.deny & mask))
    }
    const taken: Event.Payload<typeof GrantBook.Revoked> = profile === undefined
      ? { principal, pattern: pattern ?? "", actions, by }
      : { principal, profile, by }
    yield* append(book, GrantBook.Revoked.name, taken, taking)
  })
  return { grant, revoke, may }
}

const nameText = /^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$/
const maxNameLength = 32

const makeTokens = Effect.fnUntraced(function*(book: GrantBook.GrantBook, limits: LimitsShape, append: Append, now: () => number) {
  const hex = yield* makeHex
  const may = makeReach(book, now)

  const createToken = Effect.fnUntraced(function*(wish: TokenWish & Wish): Effect.fn.Return<NewToken, KsiError.KsiError> {
    const { by, expiresIn, name = "token", profile } = wish
    if (!nameText.test(name) || name.length > maxNameLength) {
      return yield* invalid("permission:token_create", "name", "expected lower-case letters, digits and single -, at most 32 characters")
    }
    if (profile !== undefined) yield* may.profile(by, profile)
    if (book.tokens.size >= limits.tokens) book.prune(now())
    if (book.tokens.size >= limits.tokens) return yield* full("tokens", limits)
    const id = `${name}-${yield* hex(1)}`
    if (book.tokens.has(id)) return yield* createToken(wish)
    const secret = yield* hex(secretWords)
    const principal = GrantBook.principalOf(id)
    const expires = expiresIn === undefined ? undefined : now() + expiresIn
    const made: Event.Payload<typeof GrantBook.TokenCreated> = {
      id, principal, hash: digest(secret), by,
      ...(profile === undefined ? {} : { profile }),
      ...(expires === undefined ? {} : { expires })
    }
    yield* append(book, GrantBook.TokenCreated.name, made, wish)
    return { id, principal, token: `ksi_${id}_${secret}`, expires }
  })

  const revokeToken = Effect.fnUntraced(function*(wish: { readonly id: string } & Wish): Effect.fn.Return<TokenInfo, KsiError.KsiError> {
    const token = book.tokens.get(wish.id)
    if (token === undefined) {
      const similar = EventName.nearest(wish.id, book.tokens.keys())
      return yield* KsiError.fail(new KsiError.NotFound({ what: "token", id: wish.id, similar }))
    }
    const info = infoOf(book, now())(token)
    const { id, principal } = token
    yield* append(book, GrantBook.TokenRevoked.name, { id, principal, by: wish.by }, wish)
    return { ...info, valid: false }
  })
  return { createToken, revokeToken }
})

// --------------------------------------------------------------------------------------------------------- in force

// A timer counts on while the clock is set, and stands still while a machine sleeps: so it is looked at again.
const maxSleep = 10 * 60 * 1000

/** Tells of changes: those that are committed, and tokens that expire by themselves. */
const makeChanges = Effect.fnUntraced(function*(book: GrantBook.GrantBook, clock: Clock.Clock) {
  const listeners = new Set<() => void>()
  const fork = Effect.runForkWith(Context.make(Clock.Clock, clock))
  let alarm: { readonly interruptUnsafe: () => void } | undefined
  let isClosed = false
  const tell = (): void => {
    for (const listener of listeners) listener()
    alarm?.interruptUnsafe()
    alarm = undefined
    const now = clock.currentTimeMillisUnsafe()
    const next = isClosed || listeners.size === 0 ? undefined : book.nextExpiry(now)
    if (next !== undefined) alarm = fork(Effect.andThen(Effect.sleep(Math.min(next - now, maxSleep)), Effect.sync(tell)))
  }
  yield* Effect.addFinalizer(() => Effect.sync(() => {
    isClosed = true
    alarm?.interruptUnsafe()
  }))
  const changes = (listener: () => void): Effect.Effect<void, never, Scope.Scope> =>
    Effect.asVoid(Effect.acquireRelease(
      Effect.sync(() => {
        listeners.add(listener)
        tell()
      }),
      () => Effect.sync(() => listeners.delete(listener))
    ))
  return { changes, tell }
})

const makeAuthorizer = (
  book: GrantBook.GrantBook,
  now: () => number,
  changes: AuthorizerShape["changes"]
): AuthorizerShape => ({
  allows: allowsIn(book, now),
  hears: (principal, pattern) => principal === Grant.owner || book.rightsOf(principal, now)?.reaches("subscribe", pattern) === true,
  refusal: (principal, action, event) => {
    if (principal === Grant.anonymous) return new KsiError.Unauthenticated({ problem: "no valid token was presented" })
    return GrantBook.isOfToken(principal) && book.rightsOf(principal, now) === undefined
      ? new KsiError.Unauthenticated({ problem: `${principal} was revoked, or has expired` })
      : new KsiError.PermissionDenied({ principal, action, event })
  },
  authenticate: authenticator(book, now),
  changes
})

/** What `Permissions.layer` provides, the `Authorizer` with it. */
export const make = Effect.gen(function*() {
  const store = yield* EventStore
  const limits = yield* Limits
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const book = new GrantBook.GrantBook()
  // Who was granted something is in more places than this.
  yield* onForget(() => book.position === 0)
  const { changes, tell } = yield* makeChanges(book, clock)
  yield* fold(store, book, limits.pageItems, () => "take")
  const append = yield* makeAppend((facts) => {
    const own = facts.filter(({ position, streamId }) => streamId === GrantBook.stream && position > book.position)
    // What this process has written it can read.
    for (const fact of own) book.apply(fact)
    if (own.length > 0) tell()
  })
  const { grant, revoke } = makeGrants(book, limits, append, now)
  const { createToken, revokeToken } = yield* makeTokens(book, limits, append, now)
  const turns = yield* Semaphore.make(1)
  const inTurn = turns.withPermits(1)
  const authorizer = makeAuthorizer(book, now, changes)
  const permissions = Permissions.of({
    authorizer,
    // One change at a time, each looking at what those before it have made.
    grant: (gift) => inTurn(grant(gift)),
    revoke: (taking) => inTurn(revoke(taking)),
    createToken: (wish) => inTurn(createToken(wish)),
    revokeToken: (wish) => inTurn(revokeToken(wish)),
    view: makeView(store, viewOf(book, now), limits.pageItems)
  })
  return Context.make(Permissions, permissions).pipe(Context.add(Authorizer, authorizer))
})
