// Laws: what must hold for every payload that the schema of an event allows, and what must hold for every event there is.
import * as Arbitrary from "effect/Arbitrary"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import { DeadLetters, type Letter } from "../../bus/DeadLetters.ts"
import { DeclaredFailure, type Dispatched } from "../../bus/KsiService.ts"
import { Router } from "../../bus/Router.ts"
import type { Delivery } from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import { compile, jsonCodec } from "../../event/EventCodec.ts"
import * as Json from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import { chance } from "./chance.ts"
import * as Stage from "./stage.ts"

/** What became of a request: its reply, the error that it declares, or why KSI refused it. */
export type Outcome<Ev extends Event.AnyRequest> =
  | { readonly kind: "reply"; readonly reply: Event.Success<Ev> }
  | { readonly kind: "failure"; readonly error: Event.Failure<Ev> }
  | { readonly kind: "refusal"; readonly reason: KsiError.Reason }

/** Asks by name, as every surface does, and lets time pass until all has ended; `undefined` where that takes more than an hour. */
export const dispatch = (stage: Stage.Stage, event: Event.Any, data: unknown): Effect.Effect<Dispatched | undefined> =>
  Effect.gen(function*() {
    // What breaks is told once, by the law; each try of it would log it again.
    const poll = stage.begin(Effect.provideService(
      Effect.flatMap(Router, (router) => router.dispatch(router.envelope(event.name, data))), References.MinimumLogLevel, "None"
    ))
    const stopped = yield* stage.restOn(() => poll() !== undefined)
    return stopped === "done" ? poll() : undefined
  })

type Answer = Dispatched extends Exit.Exit<infer A, infer _> ? A : never

const valueOf = (answer: Answer): unknown => answer.kind === "value" ? answer.value ?? null : null

/** What it failed with, where it did not break. */
export const errorIn = (exit: Dispatched): KsiError.KsiError | DeclaredFailure | undefined => {
  const reason = Exit.isFailure(exit) ? exit.cause.reasons[0] : undefined
  return reason?._tag === "Fail" ? reason.error : undefined
}

/** The declared error as it was, by the first schema that takes it. */
export const revived = ({ error, middleware }: Event.AnyRequest, { error: json }: DeclaredFailure): unknown => {
  for (const schema of [error, ...middleware.map((each) => each.error)]) {
    const exit = Schema.decodeUnknownExit(jsonCodec(schema))(json)
    if (Exit.isSuccess(exit)) return exit.value
  }
  return json
}

/** The reply as it was. */
export const revivedReply = ({ success }: Event.AnyRequest, answer: Answer): unknown =>
  Schema.decodeUnknownSync(jsonCodec(success))(valueOf(answer))

/** What became of a request; `undefined` where it broke. */
export const outcomeOf = (event: Event.AnyRequest, exit: Dispatched): Outcome<Event.AnyRequest> | undefined => {
  if (Exit.isSuccess(exit)) return { kind: "reply", reply: revivedReply(event, exit.value) }
  const error = errorIn(exit)
  if (KsiError.is(error)) return { kind: "refusal", reason: error.reason }
  return error === undefined ? undefined : { kind: "failure", error: revived(event, error) as Event.Failure<Event.AnyRequest> } // the event's own
}

// ------------------------------------------------------------------------------------------------------ universal laws

const pick = (below: () => number) => <A>(items: ReadonlyArray<A>): A | undefined => items[Math.floor(below() * items.length)]

const strangers: ReadonlyArray<unknown> = [null, 0, -1, 1.5, 1e308, "", "text", true, [], {}, [[]], { a: 1 }, "\u0000"]

/** The data with one place changed, taken away or added; it may still be what the schema takes. */
const spoiled = (data: unknown, below: () => number): unknown => {
  const one = pick(below)
  if (!Json.isObject(data) || below() < 0.2) return one(strangers)
  const keys = Object.keys(data)
  const key = one(keys)
  if (key === undefined) return one(strangers)
  if (below() < 0.3) return Object.fromEntries(Object.entries(data).filter(([name]) => name !== key))
  return { ...data, [key]: below() < 0.3 ? spoiled(data[key], below) : one(strangers) }
}

/** The law that an answer breaks by itself, whatever it was asked; `undefined` where it breaks none. */
export const brokenAnswer = (exit: Dispatched | undefined): string | undefined => {
  if (exit === undefined) return "it never answers, or what it caused never ends"
  const error = errorIn(exit)
  if (Exit.isFailure(exit) && error === undefined) return `it broke: ${KsiError.sentenceOf(Cause.squash(exit.cause))}`
  return KsiError.is(error) && error.reason._tag === "ReplyInvalid" ? `its reply is not what it promises: ${error.message}` : undefined
}

/** The first law that what happened breaks; `undefined` where all hold. */
const broken = (happened: ReadonlyArray<Delivery>, event: Event.Any, valid: boolean, exit: Dispatched | undefined): string | undefined => {
  const problem = brokenAnswer(exit)
  if (problem !== undefined || exit === undefined) return problem
  const error = errorIn(exit)
  // The handler may have let through what another event refused: that is no refusal of its own.
  const isRefused = KsiError.is(error) && error.reason._tag === "PayloadInvalid" && error.reason.event === event.name
  if (!valid && !isRefused) return "it takes a payload that its schema does not allow"
  const [root, ...rest] = happened
  if (!valid && happened.some(({ position }) => position !== undefined)) return "a fact came of a payload that its schema does not allow"
  if (root !== undefined && rest.some(({ metadata }) => metadata.correlationId !== root.metadata.correlationId)) return "what it caused has another correlation"
  return undefined
}

/** The reactions that failed, the last first. */
export const buried = (stage: Stage.Stage): Effect.Effect<ReadonlyArray<Letter>> =>
  Effect.map(
    stage.play(Effect.flatMap(DeadLetters, ({ list }) => list({ limit: 100 }))),
    (exit) => exit !== undefined && Exit.isSuccess(exit) ? exit.value.letters : []
  )

/** A reaction that failed, for people. */
export const letterSays = ({ error, event, handler }: Letter): string => `the reaction ${handler} to ${event.name} failed: ${error}`

/** Where the facts of one stream have a gap. */
export const gapIn = (happened: ReadonlyArray<Delivery>): string | undefined => {
  const last = new Map<string, number>()
  for (const { metadata: { streamId = "" }, version } of happened) {
    if (version === undefined) continue
    const before = last.get(streamId)
    if (before !== undefined && version !== before + 1) return `the facts of "${streamId}" come with a gap: ${version} after ${before}`
    last.set(streamId, version)
  }
  return undefined
}

const reactions = (stage: Stage.Stage): Effect.Effect<string | undefined> =>
  Effect.map(buried(stage), ([letter]) => letter && `it broke: ${letterSays(letter)}`)

/** A payload that is not allowed, made of one that is. */
const invalidOf = (event: Event.Any, valid: unknown, seed: number): { readonly data: unknown } | undefined => {
  const { decodePayload } = compile(event)
  const below = chance(seed)
  for (let tries = 0; tries < 20; tries++) {
    const data = spoiled(valid, below)
    if (Exit.isFailure(decodePayload(data ?? {}))) return { data }
  }
  return undefined
}

const factsOf = (happened: ReadonlyArray<Delivery>): number => happened.filter(({ position }) => position !== undefined).length

/** Asks once more what says that it may be asked twice. */
const askAgain = (stage: Stage.Stage, event: Event.Any, data: unknown, first: Answer, hasSaid: boolean): Effect.Effect<string | undefined> =>
  Effect.gen(function*() {
    const before = factsOf(stage.happened)
    const again = yield* dispatch(stage, event, data)
    const twice = "it says that it may be asked twice, and"
    if (again === undefined) return `${twice} never answers the second time`
    if (Exit.isFailure(again)) return `${twice} fails the second time`
    if (factsOf(stage.happened) > before) return `${twice} says facts the second time as well`
    // What only reads may read something newer.
    return hasSaid && !Json.equal(valueOf(first), valueOf(again.value)) ? `${twice} replies otherwise the second time` : undefined
  })

/** Asks one event with a payload, and with one that is spoiled; answers with the law that was broken. */
export const tryOne = (
  start: Effect.Effect<Stage.Stage, unknown>,
  event: Event.Any,
  payload: unknown,
  seed: number
): Effect.Effect<string | undefined> =>
  Effect.gen(function*() {
    const { encodePayload } = compile(event)
    const data = encodePayload(payload)
    const invalid = invalidOf(event, data, seed)
    for (const [valid, given] of [[true, { data }], [false, invalid]] as const) {
      if (given === undefined) continue
      const stage = yield* Effect.orDie(start)
      const from = stage.happened.length
      const exit = yield* dispatch(stage, event, given.data)
      const first = broken(stage.happened.slice(from), event, valid, exit) ?? (yield* reactions(stage))
      const isAsked = valid && first === undefined && event.kind === "request" && event.idempotent && exit !== undefined && Exit.isSuccess(exit)
      const problem = isAsked ? yield* askAgain(stage, event, given.data, exit.value, factsOf(stage.happened.slice(from)) > 0) : first
      const hasEnded = yield* stage.end
      const told = problem ?? (hasEnded ? undefined : "the app does not end")
      if (told !== undefined) return `${event.name} ${JSON.stringify(given.data)}: ${told}`
    }
    return undefined
  })

/** Payloads of an event, as its schema allows. */
export const payloads = (event: Event.Any): Arbitrary.Arbitrary<unknown> => Arbitrary.schema(event.payload)
