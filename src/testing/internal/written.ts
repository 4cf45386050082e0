// A program as the text of a scenario: what somebody would have written to show what went wrong, to be pasted into a test.
import * as Exit from "effect/Exit"
import { DeclaredFailure } from "../../bus/KsiService.ts"
import type * as Event from "../../event/Event.ts"
import * as KsiError from "../../event/KsiError.ts"
import { isIdentifier, literal, variables, words } from "../../event/SourceText.ts"
import type { Answer, StateOf } from "./expectations.ts"
import * as Laws from "./laws.ts"
import { allOrders } from "./orders.ts"
import { type Call, jsonOf } from "./playing.ts"
import { type Asked, type Plan, type Played, replyOf } from "./program.ts"

/** Where a text stands in a value: `.holds[0].id`. */
const pathOf = (value: unknown, text: string): string | undefined => {
  if (value === text) return ""
  if (typeof value !== "object" || value === null) return undefined
  for (const [key, field] of Object.entries(value)) {
    const path = pathOf(field, text)
    if (path !== undefined) return `${Array.isArray(value) ? `[${key}]` : isIdentifier(key) ? `.${key}` : `[${JSON.stringify(key)}]`}${path}`
  }
  return undefined
}

/** Writes one scenario. */
class Writer {
  private readonly names: ReadonlyMap<string, string>
  private readonly used = new Set<string>()
  private readonly calls: Array<Call> = []
  private readonly lines: Array<string> = []

  constructor(names: ReadonlyArray<string>) {
    this.names = variables(names)
  }

  line(text: string): void {
    this.lines.push(`  ${text}`)
  }

  private name(name: string): string {
    this.used.add(name)
    return this.names.get(name) ?? words(name)
  }

  private value(schema: Event.AnyRequest["success"], place: string, value: unknown, leaf?: (text: string) => string | undefined): string {
    return literal(value, leaf) ?? `Schema.decodeSync(Schema.toCodecJson(${place}))(${JSON.stringify(jsonOf(schema, value))})`
  }

  /** What was replied before is referred to, where the model chose the payload. */
  private payload({ call: { event }, command, payload }: Asked): string {
    let hasReference = false
    const reference = (text: string): string | undefined => {
      if (!command.modelled.isChosen || text === "") return undefined
      for (const call of this.calls) {
        const path = pathOf(replyOf(call), text)
        if (path === undefined) continue
        hasReference = true
        const nth = this.calls.filter((other) => other.event.name === call.event.name).indexOf(call) + 1
        return `reply(${this.name(call.event.name)}${nth === 1 ? "" : `, ${nth}`})${path}`
      }
      return undefined
    }
    const text = this.value(event.payload, `${this.name(event.name)}.payload`, payload, reference)
    return hasReference ? `({ reply }) => (${text})` : text
  }

  /** What is asked, between parentheses. */
  asks(asked: Asked): string {
    const { event } = asked.call
    return event.kind === "fact" ? `${this.name(event.name)}.of(${this.payload(asked)})` : `${this.name(event.name)}, ${this.payload(asked)}`
  }

  asked(...asked: ReadonlyArray<Asked>): void {
    this.calls.push(...asked.map(({ call }) => call))
  }

  after(millis: number): void {
    if (millis <= 0) return
    const [count, unit] = millis % 1000 === 0 ? [millis / 1000, "second"] : [millis, "milli"]
    this.line(`.thenAfter("${count} ${unit}${count === 1 ? "" : "s"}")`)
  }

  /** That this comes of it. */
  then({ event }: Call, answer: Answer): void {
    if ("fails" in answer) this.line(`.thenFails(${JSON.stringify(answer.fails)})`)
    if ("refused" in answer) this.line(`.thenRefused(${JSON.stringify(answer.refused)})`)
    if (event.kind === "fact") return
    if ("reply" in answer) this.line(`.thenReplies(${this.value(event.success, `${this.name(event.name)}.success`, answer.reply)})`)
    if ("replyLike" in answer) this.line(`.thenReplies(${this.like(answer.replyLike)})`)
  }

  private like(part: object): string {
    const tests = Object.entries(part).map(([key, value]) => {
      const [place, text] = [`reply${isIdentifier(key) ? `.${key}` : `[${JSON.stringify(key)}]`}`, literal(value)]
      return typeof value === "object" && value !== null ? `JSON.stringify(${place}) === ${JSON.stringify(JSON.stringify(value))}` : `${place} === ${text ?? "undefined"}`
    })
    return `(reply) => ${tests.length === 0 ? "true" : tests.join(" && ")}`
  }

  private answer(event: Event.Any, answer: Answer): string {
    if ("reply" in answer && event.kind === "request") return `{ reply: ${this.value(event.success, `${this.name(event.name)}.success`, answer.reply)} }`
    return literal(answer) ?? "{ done: true }"
  }

  private state({ projection: { name }, state, streamId }: StateOf): string {
    return `${this.name(name)}, ${JSON.stringify(streamId)}, ${literal(state) ?? JSON.stringify(state)}`
  }

  states(states: ReadonlyArray<StateOf>): void {
    for (const each of states) this.line(`.thenState(${this.state(each)})`)
  }

  oneOf(calls: ReadonlyArray<Call>, lists: ReadonlyArray<{ readonly answers: ReadonlyArray<Answer>; readonly states: ReadonlyArray<StateOf> }>): void {
    const all = lists.map(({ answers, states }) => [
      ...answers.map((answer, nth) => calls[nth] === undefined ? "" : this.answer(calls[nth].event, answer)),
      ...states.map((each) => `KsiTest.stateOf(${this.state(each)})`)
    ].join(", "))
    const written = [...new Set(all)]
    const [only] = written
    if (only === undefined) return
    this.line(written.length === 1 ? `.thenOneOf([${only}])` : `.thenOneOf(\n    ${written.map((text) => `[${text}]`).join(",\n    ")}\n  )`)
  }

  get text(): string {
    const known = [...this.used].map((name) => `${this.names.get(name) ?? words(name)} is ${name}`)
    return [...(known.length === 0 ? [] : [`// ${known.join(", ")}`]), "KsiTest.scenario", ...this.lines].join("\n")
  }
}

/** What came of it, as an answer. */
const cameOf = ({ exit }: Call): Answer | undefined => {
  if (exit === undefined || Exit.isSuccess(exit)) return undefined
  const error = Laws.errorIn(exit)
  if (KsiError.is(error)) return { refused: error.reason._tag }
  return error instanceof DeclaredFailure ? { fails: error.reason } : undefined
}

const inTurn = (writer: Writer, asked: Asked & { readonly millis: number }, isLast: boolean, isBroken: boolean): void => {
  const { call, millis, told } = asked
  const isGiven = !isLast && millis === 0 && call.event.kind === "request" && call.exit !== undefined && Exit.isSuccess(call.exit)
  writer.line(`.${isGiven ? "givenCall" : "when"}(${writer.asks(asked)})`)
  writer.asked(asked)
  writer.after(millis)
  const answer = isBroken ? told?.answer : cameOf(call)
  if (answer !== undefined) writer.then(call, answer)
}

const operation = ({ call, command, payload }: Asked) => ({ call, payload, next: command.modelled.next, reply: replyOf(call) })

/** The scenario that shows what went wrong when this program was played. */
export const scenario = ({ initial, names, states }: Plan & { readonly names: ReadonlyArray<string> }, { problem, program, trace }: Played): string => {
  const writer = new Writer([...names, ...states(initial).map(({ projection: { name } }) => name)])
  if (program.order !== undefined) writer.line(`.withSeed(${program.order})`)
  const isTogether = trace.together.length > 0
  const isAnswer = problem?.kind === "answer" || problem?.kind === "law"
  trace.before.forEach((asked, nth) => {
    const isLast = !isTogether && nth === trace.before.length - 1
    inTurn(writer, asked, isLast, isLast && isAnswer)
  })
  if (isTogether) {
    const calls = [...trace.together.flat(), ...trace.after]
    const fiber = (all: ReadonlyArray<Asked>) => all.map((asked) => asked.call.event.kind === "fact" ? writer.asks(asked) : `KsiTest.ask(${writer.asks(asked)})`).join(", ")
    writer.line(`.whenTogether(\n    ${trace.together.map((all) => `[${fiber(all)}]`).join(",\n    ")}\n  )`)
    writer.asked(...trace.together.flat())
    writer.after(trace.millis)
    for (const asked of trace.after) {
      writer.line(`.when(${writer.asks(asked)})`)
      writer.asked(asked)
      writer.after(asked.millis)
    }
    writer.oneOf(calls.map(({ call }) => call), allOrders(trace.middle, trace.together.map((all) => all.map(operation)), trace.after.map(operation)).map(
      ({ answers, state }) => ({ answers, states: problem?.kind === "state" ? states(state) : [] })
    ))
  } else writer.states(trace.states)
  return writer.text
}
