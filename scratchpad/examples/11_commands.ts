// Commands: a model says what must come of each, a seed chooses which are asked, one after another or at the same time. What does not
// fit is told as the least scenario that shows it: paste it into a test, and it fails until the app is right.
//   npx node --conditions=ksi-source scratchpad/examples/11_commands.ts
import { Console, Effect, Layer, Schema, Semaphore } from "effect"
import { Event, EventGroup, Ksi } from "ksi"
import { Commands, KsiTest } from "ksi/testing"

class TooLittle extends Schema.TaggedError<TooLittle>()("TooLittle", { balance: Schema.Int }) {}
const amount = { amount: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100 })) }
const Deposit = Event.make("bank:deposit", { payload: amount, success: Schema.Int })
const Withdraw = Event.make("bank:withdraw", { payload: amount, success: Schema.Int, error: TooLittle })
const Bank = EventGroup.make(Deposit, Withdraw)

/** Reads the balance, gives way, and writes it. Where two are let in at once, who comes between is forgotten. */
const bank = (atOnce: number) => Bank.toLayer(Effect.gen(function*() {
  const door = yield* Semaphore.make(atOnce)
  let balance = 0
  const change = (by: number) => door.withPermits(1)(Effect.gen(function*() {
    const before = balance
    yield* Effect.yieldNow
    if (before + by < 0) return yield* new TooLittle({ balance })
    balance = before + by
    return balance
  }))
  return {
    "bank:deposit": ({ amount }) => Effect.orDie(change(amount)),
    "bank:withdraw": ({ amount }) => change(-amount)
  }
}))

const model = Commands.model(Bank, {
  initial: 0,
  commands: {
    "bank:deposit": (balance, { amount }, must) => must.reply(balance + amount, balance + amount),
    "bank:withdraw": (balance, { amount }, must) =>
      amount > balance ? must.fail("TooLittle") : must.reply(balance - amount, balance - amount)
  }
})

const app = (atOnce: number) => KsiTest.layer(Ksi.serve(Bank).pipe(Layer.provide(bank(atOnce))), { outsideMillis: 0 })

// What is told below, as it was pasted.
const pasted = KsiTest.scenario
  .withSeed(8)
  .whenTogether(
    [KsiTest.ask(Deposit, { amount: 1 })],
    [KsiTest.ask(Deposit, { amount: 1 })]
  )
  .thenOneOf(
    [{ reply: 1 }, { reply: 2 }],
    [{ reply: 2 }, { reply: 1 }]
  )

const says = (what: string, atOnce: number, effect: Effect.Effect<void, KsiTest.ScenarioFailed, KsiTest.KsiTest>) => effect.pipe(
  Effect.matchEffect({
    onSuccess: () => Console.log(`ok      ${what}`),
    onFailure: ({ message, scenario }) => Console.log(`not ok  ${what}: ${message.split("\n")[0]}${scenario === undefined ? "" : `\n${scenario}`}`)
  }),
  Effect.provide(app(atOnce))
)

await Effect.runPromise(Effect.gen(function*() {
  yield* says("in turn", 2, Commands.check(model))
  yield* says("at the same time", 2, Commands.check(model, { fibers: 3 }))
  yield* says("that, as a test", 2, pasted)
  yield* says("the same test, one at a time", 1, pasted)
  yield* says("any, one at a time", 1, Commands.check(model, { fibers: 3 }))
}))
// prints:
// ok      in turn
// not ok  at the same time: no order of what was asked together explains what came of it, each list in turn:
// // Deposit is bank:deposit
// KsiTest.scenario
//   .withSeed(0)
//   .whenTogether(
//     [KsiTest.ask(Deposit, { amount: 1 })],
//     [KsiTest.ask(Deposit, { amount: 1 })]
//   )
//   .thenOneOf(
//     [{ reply: 1 }, { reply: 2 }],
//     [{ reply: 2 }, { reply: 1 }]
//   )
// not ok  that, as a test: what came of what was asked together is none of these
// ok      the same test, one at a time
// ok      any, one at a time
