// A network between simulated daemons: messages are texts that are late, lost, doubled or overtaken as a seed says, and that
// do not cross a partition.
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import { type Answer, type Broken, brokenOf, DeclaredFailure, type Dispatched, type KsiShape } from "../../bus/KsiService.ts"
import type { Envelope } from "../../event/Envelope.ts"
import type * as Event from "../../event/Event.ts"
import { compile, jsonCodec } from "../../event/EventCodec.ts"
import * as KsiError from "../../event/KsiError.ts"
import type { World } from "../World.ts"
import { revived } from "./laws.ts"

/** What becomes of messages. */
export interface Weather {
  /** Milliseconds that a message takes, from and to: those that take longer are overtaken. */
  readonly delay: readonly [number, number]
  /** How often one is lost, from 0 to 1. */
  readonly loss: number
  /** How often one comes twice, from 0 to 1. */
  readonly duplication: number
}

/** Carries messages. */
export class Network {
  /** How many are on their way. */
  underWay = 0
  private readonly world: World
  private readonly below: () => number
  private readonly weather: () => Weather
  private readonly note: (who: string, text: string) => void
  private groups: ReadonlyArray<ReadonlyArray<string>> = []

  constructor(world: World, below: () => number, weather: () => Weather, note: (who: string, text: string) => void) {
    this.world = world
    this.below = below
    this.weather = weather
    this.note = note
  }

  /** Who is in one group does not reach who is in another. Nobody is in a group: all reach one another. */
  partition(groups: ReadonlyArray<ReadonlyArray<string>>): void {
    this.groups = groups
  }

  /** Sends something: `deliver` runs when it arrives, as often as it does. */
  send(from: string, to: string, what: string, deliver: () => void): void {
    const { duplication } = this.weather()
    const copies = duplication > 0 && this.below() < duplication ? 2 : 1
    this.note(from, `-> ${to} ${what}${copies === 2 ? " (comes twice)" : ""}`)
    for (let copy = 0; copy < copies; copy++) this.carry(from, to, what, deliver)
  }

  private carry(from: string, to: string, what: string, deliver: () => void): void {
    const { delay: [least, most], loss } = this.weather()
    if (loss > 0 && this.below() < loss) return this.note(from, `-> ${to} is lost: ${what}`)
    this.underWay++
    const arrive = () => {
      this.underWay--
      if (this.reaches(from, to)) deliver()
      else this.note(from, `-> ${to} does not get through: ${what}`)
    }
    this.world.fork(Effect.andThen(Effect.sleep(least + this.below() * (most - least)), Effect.sync(arrive)))
  }

  private reaches(from: string, to: string): boolean {
    const groupOf = (name: string) => this.groups.find((group) => group.includes(name))
    const [one, other] = [groupOf(from), groupOf(to)]
    return one === undefined || other === undefined || one === other
  }
}

// ------------------------------------------------------------------------------------------------------------- messages

/** What is asked, as it travels. */
export interface Question {
  readonly event: string
  readonly data: unknown
  readonly idempotencyKey: string | undefined
  /** Milliseconds that the answer is waited for. */
  readonly millis: number
}

const AnswerText = Schema.fromJsonString(Schema.Union([
  Schema.Struct({ kind: Schema.tag("answer"), answer: Schema.Unknown }),
  Schema.Struct({ kind: Schema.tag("refusal"), reason: KsiError.ReasonJson }),
  Schema.Struct({ kind: Schema.tag("failure"), failure: Schema.toCodecJson(DeclaredFailure) }),
  Schema.Struct({ kind: Schema.tag("broken"), message: Schema.String, isInterrupted: Schema.Boolean })
]))

const brokenText = ({ message, reason }: Broken) => ({ kind: "broken", message, isInterrupted: reason === "Interrupted" }) as const

const encode = Schema.encodeSync(AnswerText)

/** What KSI refuses with, as it travels. */
export const refusalText = ({ reason }: KsiError.KsiError): string => encode({ kind: "refusal", reason })

/** An answer as it travels. */
export const answerText = (exit: Dispatched, envelope: Envelope): string => {
  if (Exit.isSuccess(exit)) return encode({ kind: "answer", answer: exit.value })
  const error = Cause.findErrorOption(exit.cause)
  if (error._tag === "None") return encode(brokenText(brokenOf(exit.cause, envelope)))
  return error.value instanceof DeclaredFailure ? encode({ kind: "failure", failure: error.value }) : refusalText(error.value)
}

/** The answer again; what broke over there breaks here. */
export const answerOf = (text: string): Dispatched => {
  const read = Schema.decodeSync(AnswerText)(text)
  switch (read.kind) {
    // Only `answerText` writes these.
    case "answer": return Exit.succeed(read.answer as Answer)
    case "refusal": return KsiError.exit(read.reason)
    case "failure": return Exit.fail(read.failure)
    case "broken": return read.isInterrupted ? Exit.interrupt() : Exit.die(new Error(read.message))
  }
}

// --------------------------------------------------------------------------------------------------------------- remote

/** How a call of another daemon is made. */
export interface AskOptions {
  /** How long the answer is waited for; then the call fails with `ConnectionLost`. Default: a second. */
  readonly timeout?: Duration.Input | undefined
  readonly idempotencyKey?: string | undefined
}

/** Another daemon, as one sees it over the network. */
export interface Remote {
  /** As `Ksi.call`. Fails with `ConnectionLost` too: `unsent` where it was not asked for sure. */
  readonly call: <Ev extends Event.AnyRequest & { readonly mode: "call" }>(
    event: Ev,
    payload: Event.PayloadInput<Ev>,
    options?: AskOptions
  ) => Effect.Effect<Event.Success<Ev>, Event.Failure<Ev> | KsiError.KsiError>
  /** As `Ksi.emit`. Fails with `ConnectionLost` too. */
  readonly emit: <Ev extends Event.AnyFact>(event: Ev, payload: Event.PayloadInput<Ev>, options?: AskOptions) => ReturnType<KsiShape["emit"]>
  /** As `Ksi.dispatch`: by name. Fails with `ConnectionLost` too. */
  readonly dispatch: (name: string, data: unknown, options?: AskOptions) => Effect.Effect<Answer, KsiError.KsiError | DeclaredFailure>
}

/** How a question is answered. */
export type Answering = Effect.Effect<Answer, KsiError.KsiError | DeclaredFailure>

const defaultMillis = 1000

/** The typed words over a way to ask. */
export const remote = (ask: (question: Question) => Answering): Remote => {
  const dispatch: Remote["dispatch"] = (event, data, { idempotencyKey, timeout = defaultMillis } = {}) =>
    ask({ event, data, idempotencyKey, millis: Duration.toMillis(Duration.fromInputUnsafe(timeout)) })
  const sent = (event: Event.Any, payload: unknown, options?: AskOptions) => {
    const { encodePayload, makePayload } = compile(event)
    return Effect.flatMap(makePayload(payload), (made) => Effect.map(dispatch(event.name, encodePayload(made), options), (answer) => ({ answer, made })))
  }
  return {
    dispatch,
    call: (event, payload, options) =>
      sent(event, payload, options).pipe(
        Effect.mapError((error) => error instanceof DeclaredFailure ? revived(event, error) as Event.Failure<typeof event> : error), // the event's own
        Effect.map(({ answer }) =>
          // What the other side has checked; JSON has no undefined.
          Schema.decodeUnknownSync(jsonCodec(event.success))(answer.kind === "value" ? answer.value ?? null : null) as Event.Success<typeof event>)
      ),
    emit: (event, payload, options) =>
      sent(event, payload, options).pipe(
        // A fact declares no error.
        Effect.catchIf((error) => error instanceof DeclaredFailure, Effect.die),
        Effect.flatMap(({ answer, made }) =>
          answer.kind === "fact"
            ? Effect.succeed({ id: answer.id, streamId: event.streamId(made), position: BigInt(answer.position), version: answer.version })
            : Effect.die(new Error(`${event.name} was no fact over there`)))
      )
  }
}
