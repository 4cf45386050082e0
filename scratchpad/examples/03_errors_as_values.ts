// Errors are values: recover from one precisely, map and chain the rest, and look at what is left as a Result.
//   npx node --conditions=ksi-source scratchpad/examples/03_errors_as_values.ts
import { Console, Effect, Layer, Result, Schema } from "effect"
import { Event, EventGroup, EventName, EventPattern, Ksi } from "ksi"

class CardDeclined extends Schema.TaggedError<CardDeclined>()("CardDeclined", { card: Schema.String }) {}
class Poor extends Schema.TaggedError<Poor>()("Poor", { missing: Schema.Int }) {}

const Charge = Event.make("bank:charge", {
  payload: { card: Schema.String, cents: Schema.Int },
  success: Schema.Struct({ receipt: Schema.String }),
  error: Schema.Union([CardDeclined, Poor])
})
const Bank = EventGroup.make(Charge)
const BankHandlers = Bank.toLayer({
  *"bank:charge"({ card, cents }) {
    if (card === "stolen") return yield* new CardDeclined({ card })
    if (cents > 1000) return yield* new Poor({ missing: cents - 1000 })
    return { receipt: `${card}-${cents}` }
  }
})
const Main = Ksi.serve(Bank).pipe(Layer.provide(BankHandlers), Layer.provideMerge(Ksi.layerMemory))

const pay = Effect.fnUntraced(function*(card: string, cents: number) {
  const ksi = yield* Ksi
  return yield* ksi.call(Charge, { card, cents }).pipe(
    // One declared error is recovered from; the compiler knows which are left.
    Effect.catchTag("Poor", ({ missing }) => ksi.call(Charge, { card, cents: cents - missing })),
    // What KSI itself has to say has a reason.
    Effect.catchReason("KsiError", "PayloadInvalid", ({ problems }) =>
      Effect.succeed({ receipt: `not charged: ${problems.map(({ path }) => path).join(", ")} is invalid` }))
  )
})

const program = Effect.gen(function*() {
  for (const [card, cents] of [["visa", 100], ["visa", 5000], ["stolen", 1], ["visa", 0.5]] as const) {
    // Result<{ receipt: string }, CardDeclined | KsiError>
    const outcome = yield* Effect.result(pay(card, cents))
    const text = outcome.pipe(
      Result.map(({ receipt }) => receipt),
      Result.mapError((error) => `${error._tag}: ${error.message || JSON.stringify(error)}`),
      Result.getOrElse((error) => error)
    )
    yield* Console.log(text)
  }

  // Pure stages are Results too: chain them without running anything.
  const rule = (pattern: string, name: string) =>
    Result.gen(function*() {
      const parsed = yield* EventPattern.parse(pattern)
      const checked = yield* EventName.parse(name)
      return parsed.matches(checked)
    }).pipe(Result.mapError(({ message }) => message))
  yield* Console.log(Result.getOrElse(rule("bank:*", "bank:charge"), (why) => why))
  yield* Console.log(Result.getOrElse(rule("b*nk", "bank:charge"), (why) => why))
})

await Effect.runPromise(program.pipe(Effect.provide(Main)))
// prints:
// visa-100
// visa-1000
// CardDeclined: {"_tag":"CardDeclined","card":"stolen"}
// not charged: cents is invalid
// true
// "b*nk" is not a pattern: "*" must be a whole segment, found "b*nk"
