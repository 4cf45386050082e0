// What can be expected: each a step that fails the scenario where it has not come true.
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import { DeclaredFailure, type Dispatched } from "../../bus/KsiService.ts"
import type * as Event from "../../event/Event.ts"
import * as Json from "../../event/Json.ts"
import type { JsonObject } from "../../event/Json.ts"
import * as KsiError from "../../event/KsiError.ts"
import type { Projection } from "../../store/Projection.ts"
import * as TimeTravel from "../../store/TimeTravel.ts"
import * as Laws from "./laws.ts"
import { type Call, factsSince, failed, jsonOf, must, type Running, type ScenarioFailed, type Step, toldOf } from "./playing.ts"

/** What holds it up, for people. */
const waiting = ({ stage }: Running): string => {
  const at = stage.due()
  if (at === undefined) return "it waits for something outside"
  return `it waits for the clock: thenAfter(${JSON.stringify(Duration.format(Duration.millis(at - stage.world.now())))})`
}

const answered = (running: Running, expected: string): Effect.Effect<Dispatched, ScenarioFailed> => {
  const { asked } = running
  if (asked !== undefined) asked.isLooked = true
  if (asked?.exit !== undefined) return Effect.succeed(asked.exit)
  return failed(running, `expected ${asked?.event.name ?? ""} to ${expected}, and it has not answered: ${waiting(running)}`)
}

const mustHaveGoneWell = (running: Running, { event: { name }, exit }: Call) => {
  if (exit === undefined) return failed(running, `${name} has not answered: ${waiting(running)}`)
  return Exit.isSuccess(exit) ? Effect.void : failed(running, `${name} did not succeed, and nothing expected that`, { expected: "success", actual: toldOf(exit) })
}

/** What nobody looked at must have gone well. What was asked together, and after that, may be looked at as a whole later. */
export const overlooked: Step = (running) =>
  running.asked === undefined || running.asked.isLooked || running.isTogether ? Effect.void : mustHaveGoneWell(running, running.asked)

/** The same of all that was asked, at the end; and every reaction that nobody looked at has ended well, and no fact is missing. */
export const ending: Step = (running) =>
  Effect.gen(function*() {
    for (const call of running.calls) if (!call.isLooked) yield* mustHaveGoneWell(running, call)
    const letter = (yield* Laws.buried(running.stage)).findLast(({ event }) => !running.failing.has(event.name))
    if (letter !== undefined) yield* failed(running, Laws.letterSays(letter))
    yield* expecting(() => Effect.void)(running)
    const gap = Laws.gapIn(running.stage.happened)
    if (gap !== undefined) yield* failed(running, gap)
  })

/** A call that was given has succeeded. */
export const given: Step = (running) => {
  const { asked } = running
  if (asked === undefined) return Effect.void
  asked.isLooked = true
  running.asked = undefined
  const what = `the given call of ${asked.event.name}`
  if (asked.exit === undefined) return failed(running, `${what} has not answered: ${waiting(running)}`)
  return Exit.isSuccess(asked.exit) ? Effect.void : failed(running, `${what} failed`, { expected: "success", actual: toldOf(asked.exit) })
}

/** Looks at what has come; where something is under way that nobody can foresee, that is nothing to look at yet. */
export const expecting = (step: Step): Step => (running) => {
  const { calls, stage, stopped } = running
  if (stopped !== "quiet" || stage.due() !== undefined) return step(running)
  const open = calls.find(({ exit }) => exit === undefined)
  const who = open === undefined ? "a reaction has not ended" : `${open.event.name} has not answered`
  return failed(running, `something outside is still under way: ${who}, and nobody waits for the clock`)
}

// ---------------------------------------------------------------------------------------------------------------- answers

/** It replies this, or what the predicate accepts. */
export const reply = (event: Event.AnyRequest, expected: unknown): Step => (running) =>
  Effect.flatMap(answered(running, "reply"), (exit) => {
    if (Exit.isFailure(exit) || exit.value.kind !== "value") {
      return failed(running, `expected ${event.name} to reply`, { expected: { reply: typeof expected === "function" ? "…" : expected }, actual: toldOf(exit) })
    }
    const { value } = exit.value
    if (typeof expected === "function") {
      return expected(Laws.revivedReply(event, exit.value)) === true ? Effect.void : failed(running, `the reply of ${event.name} is not as it should be: ${JSON.stringify(value)}`)
    }
    const wanted = jsonOf(event.success, expected)
    return Json.equal(wanted ?? null, value ?? null) ? Effect.void : failed(running, `${event.name} replied otherwise`, { expected: wanted, actual: value ?? null })
  })

/** It fails with an error that it declares. */
export const failure = (event: Event.AnyRequest, tag: string, holds: (error: never) => boolean): Step => (running) =>
  Effect.flatMap(answered(running, `fail with ${tag}`), (exit) => {
    const error = Laws.errorIn(exit)
    if (!(error instanceof DeclaredFailure) || error.reason !== tag) {
      return failed(running, `expected ${event.name} to fail with ${tag}`, { expected: { failed: tag }, actual: toldOf(exit) })
    }
    // The tag is the one that the type of the predicate names.
    return holds(Laws.revived(event, error) as never) ? Effect.void : failed(running, `${tag} is not as it should be: ${JSON.stringify(error.error)}`)
  })

/** KSI refuses it. */
export const refusal = (tag: string, holds: (reason: never) => boolean): Step => (running) =>
  Effect.flatMap(answered(running, `be refused with ${tag}`), (exit) => {
    const error = Laws.errorIn(exit)
    if (!KsiError.is(error) || error.reason._tag !== tag) {
      return failed(running, `expected ${running.asked?.event.name ?? ""} to be refused with ${tag}`, { expected: { refused: tag }, actual: toldOf(exit) })
    }
    return holds(error.reason as never) ? Effect.void : failed(running, `${tag} is not as it should be: ${error.message}`) // of this tag
  })

// ----------------------------------------------------------------------------------------------------- facts and state

interface Said {
  readonly event: string
  readonly data: unknown
}

/** A fact of which only some fields are told. */
export interface FactLike<out Ev extends Event.AnyFact = Event.AnyFact> {
  readonly event: Ev
  readonly like: object
}

/** A fact that should come: all of its data, or some fields of it. */
export type Expected = Event.FactOf<Event.AnyFact> | FactLike

interface Wanted {
  readonly event: string
  readonly data?: unknown
  readonly like?: JsonObject
}

/** Some fields of a payload as JSON, each by its own schema. */
const partOf = ({ event: { name, payload }, like }: FactLike): JsonObject => {
  const fields: unknown = "fields" in payload ? payload.fields : undefined
  return Object.fromEntries(Object.entries(like).map(([key, value]) => {
    const field: unknown = typeof fields === "object" && fields !== null ? Reflect.get(fields, key) : undefined
    if (!Schema.isSchema(field)) throw new TypeError(`${name} has no field "${key}" that could be told apart`)
    return [key, jsonOf(field, value)]
  }))
}

const wantedOf = (facts: ReadonlyArray<Expected>): ReadonlyArray<Wanted> =>
  facts.map((fact) => "like" in fact
    ? { event: fact.event.name, like: partOf(fact) }
    : { event: fact.event.name, data: jsonOf(fact.event.payload, fact.payload) })

const isAs = (said: Said | undefined, { data, event, like }: Wanted): boolean => {
  if (said?.event !== event) return false
  if (like === undefined) return Json.equal(data, said.data)
  const known: JsonObject = Json.isObject(said.data) ? said.data : {}
  return Object.entries(like).every(([key, value]) => Object.hasOwn(known, key) && Json.equal(known[key], value))
}

/** Whether each has one of its own among these. Who is told as a whole comes first: it fits least. */
const areAmong = (wanted: ReadonlyArray<Wanted>, actual: ReadonlyArray<Said>): boolean => {
  const left = [...actual]
  const fields = ({ like }: Wanted) => like === undefined ? Infinity : Object.keys(like).length
  return [...wanted].toSorted((a, b) => fields(b) === fields(a) ? 0 : fields(b) - fields(a)).every((each) => {
    const at = left.findIndex((said) => isAs(said, each))
    return at >= 0 && left.splice(at, 1).length === 1
  })
}

/** A reaction that failed may be why. */
const becauseOf = (running: Running) =>
  Effect.map(Laws.buried(running.stage), (letters) => {
    const letter = letters.findLast(({ event }) => !running.failing.has(event.name))
    return letter === undefined ? "" : `; ${Laws.letterSays(letter)}`
  })

/** These facts came. */
export const facts = (expectedFacts: ReadonlyArray<Expected>, exactly: boolean): Step => (running) =>
  Effect.suspend(() => {
    const expected = wantedOf(expectedFacts)
    const actual = factsSince(running).map(({ data, name }): Said => ({ event: name, data }))
    const isSame = exactly
      ? expected.length === actual.length && expected.every((wanted, nth) => isAs(actual[nth], wanted))
      : areAmong(expected, actual)
    const what = expected.length === 0 ? "no fact" : exactly ? "exactly these facts, in this order" : "these facts among others"
    return isSame ? Effect.void : Effect.flatMap(becauseOf(running), (because) => failed(running, `expected ${what}${because}`, { expected, actual }))
  })

const stateNow = <S>(running: Running, projection: Projection<S>, streamId: string): Effect.Effect<S, ScenarioFailed> =>
  Effect.map(must(running, `the state ${projection.name} of "${streamId}"`, Effect.catchTag(
    TimeTravel.at(projection, { streamId }),
    "KsiError",
    (error) => error.reason._tag === "NotFound" ? Effect.succeed({ state: projection.initial }) : Effect.fail(error)
  )), ({ state }) => state)

/** The state of one stream. */
export const state = <S>(projection: Projection<S>, streamId: string, expected: S | ((state: S) => boolean)): Step => (running) =>
  Effect.gen(function*() {
    const now = yield* stateNow(running, projection, streamId)
    const actual = projection.encode(now)
    if (typeof expected === "function") {
      // A state is data: what is a function is the predicate.
      if ((expected as (state: S) => boolean)(now)) return
      return yield* failed(running, `the state ${projection.name} of "${streamId}" is not as it should be: ${JSON.stringify(actual)}`)
    }
    const wanted = projection.encode(expected)
    if (!Json.equal(wanted, actual)) yield* failed(running, `the state ${projection.name} of "${streamId}" is another one`, { expected: wanted, actual })
  })

/** A mock was called with these. */
export const calls = ({ name, payload }: Event.AnyRequest, stand: object, payloads: ReadonlyArray<unknown>): Step => (running) =>
  Effect.suspend(() => {
    const called = running.called.get(stand)
    if (called === undefined) return failed(running, `the mock of ${name} is not in this scenario: add it with .with(mock)`)
    const expected = payloads.map((each) => jsonOf(payload, payload.make(each)))
    return Json.equal(expected, called) ? Effect.void : failed(running, `the mock of ${name} was called otherwise`, { expected, actual: [...called] })
  })

/** A reaction to this fact failed. */
export const reactionFails = ({ name }: Event.AnyFact, holds: (error: string) => boolean): Step => (running) =>
  Effect.gen(function*() {
    running.failing.add(name)
    const letters = (yield* Laws.buried(running.stage)).filter(({ event }) => event.name === name)
    if (letters.length === 0) return yield* failed(running, `expected a reaction to ${name} to fail, and none has`)
    if (!letters.some(({ error }) => holds(error))) yield* failed(running, `a reaction to ${name} failed otherwise: ${letters[0]?.error ?? ""}`)
  })

// ------------------------------------------------------------------------------------------------------------ one of many

/** What may come of one call. */
export type Answer =
  | { readonly reply: unknown }
  /** A reply that has these fields, whatever else it has. */
  | { readonly replyLike: object }
  /** Any reply; a fact that is stored. */
  | { readonly done: true }
  /** The tag of a declared error. */
  | { readonly fails: string }
  | { readonly refused: KsiError.Reason["_tag"] }

/** What a projection should make of a stream. */
export interface StateOf {
  readonly projection: { readonly name: string }
  readonly streamId: string
  readonly state: unknown
  readonly expectation: Step
  readonly holds: (running: Running) => Effect.Effect<boolean, ScenarioFailed>
}

/** The state of one stream, as a value. */
export const stateOf = <S>(projection: Projection<S>, streamId: string, expected: NoInfer<S>): StateOf => ({
  projection,
  streamId,
  state: expected,
  // A state is data; a function would be a predicate of it.
  expectation: state(projection, streamId, expected),
  holds: (running) => Effect.map(stateNow(running, projection, streamId), (now) => Json.equal(projection.encode(now), projection.encode(expected)))
})

const valueIn = (exit: Dispatched): { readonly value: unknown } | undefined =>
  Exit.isSuccess(exit) ? { value: exit.value.kind === "value" ? exit.value.value ?? null : null } : undefined

const isLike = (event: Event.Any, part: object, decoded: unknown): boolean => {
  if (event.kind !== "request" || !Json.isObject(decoded)) return false
  const json = (value: object) => Object(jsonOf(event.success, value))
  // Compared as JSON: the rest of the reply fills in what the schema needs.
  const [actual, wanted] = [json(decoded), json({ ...decoded, ...part })]
  return Object.keys(part).every((key) => Json.equal(actual[key], wanted[key]))
}

/** Whether this came of it. */
export const fits = (event: Event.Any, answer: Answer, exit: Dispatched | undefined): boolean => {
  if (exit === undefined) return false
  const error = Laws.errorIn(exit)
  if ("fails" in answer) return error instanceof DeclaredFailure && error.reason === answer.fails
  if ("refused" in answer) return KsiError.is(error) && error.reason._tag === answer.refused
  const came = valueIn(exit)
  if (came === undefined) return false
  if ("done" in answer) return true
  if (event.kind === "fact") return false
  if ("replyLike" in answer) return isLike(event, answer.replyLike, Laws.revivedReply(event, { kind: "value", value: came.value }))
  return Json.equal(jsonOf(event.success, answer.reply) ?? null, came.value)
}

/** An answer, for people. */
export const answerSays = (event: Event.Any, answer: Answer): unknown => {
  if ("reply" in answer) return { reply: (event.kind === "request" ? jsonOf(event.success, answer.reply) : undefined) ?? null }
  if ("replyLike" in answer) return { reply: answer.replyLike, and: "…" }
  if ("fails" in answer) return { failed: answer.fails }
  return "refused" in answer ? answer : "success"
}

/** A state, for people. */
export const stateSays = ({ projection: { name }, state, streamId }: Pick<StateOf, "projection" | "streamId" | "state">): unknown => ({ [`${name} of ${streamId}`]: state })

/** Whether what came of these calls, and the states, are those of one of the lists. */
export const oneOf = (lists: ReadonlyArray<ReadonlyArray<Answer | StateOf>>): Step => (running) =>
  Effect.gen(function*() {
    const calls = running.calls.slice(running.together)
    running.isTogether = false
    for (const call of calls) call.isLooked = true
    for (const list of lists) {
      const answers = list.filter((each): each is Answer => !("projection" in each))
      const states = list.filter((each): each is StateOf => "projection" in each)
      if (answers.length !== calls.length) {
        return yield* failed(running, `${calls.length} were asked since whenTogether, and thenOneOf has a list of ${answers.length} answers`)
      }
      if (!calls.every(({ event, exit }, nth) => fits(event, answers[nth] ?? { done: true }, exit))) continue
      let holds = true
      for (const each of states) holds &&= yield* each.holds(running)
      if (holds) return
    }
    const expected = lists.map((list) => list.map((each, nth) => {
      const event = calls[nth]?.event
      return "projection" in each || event === undefined ? "projection" in each ? stateSays(each) : each : answerSays(event, each)
    }))
    yield* failed(running, "what came of what was asked together is none of these", { expected, actual: calls.map(({ exit }) => exit === undefined ? "no answer" : toldOf(exit)) })
  })
