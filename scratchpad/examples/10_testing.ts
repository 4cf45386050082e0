// Testing: given what has happened, when something is asked, then this follows. On the app's own handlers and permissions, with a
// clock that only the scenario moves. In a test file: `it.effect("…", () => play(KsiTest.scenario…))`, or any other runner.
//   npx node --conditions=ksi-source scratchpad/examples/10_testing.ts
import { Console, Effect, Layer, Schema } from "effect"
import { Event, EventGroup, Ksi, Projection } from "ksi"
import { KsiTest, World } from "ksi/testing"

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { left: Schema.Int }) {}
const Reserve = Event.make("stock:reserve", {
  payload: { sku: Schema.String, quantity: Schema.Int }, success: Schema.Struct({ left: Schema.Int }), error: OutOfStock
})
const Ship = Event.make("parcel:ship", { payload: { sku: Schema.String }, success: Schema.String })
const Reserved = Event.fact("stock:reserved", {
  payload: { sku: Schema.String, quantity: Schema.Int }, streamId: ({ sku }) => `stock-${sku}`
})
const Level = Projection.make("stock-held", {
  events: [Reserved], state: Schema.Int, initial: 0, on: { [Reserved.name]: (held, { quantity }) => held + quantity }
})
const Stock = EventGroup.make(Reserve, Ship, Reserved)
const Handlers = Stock.toLayer({
  *"stock:reserve"({ quantity, sku }) {
    if (quantity > 3) return yield* new OutOfStock({ left: 3 })
    const ksi = yield* Ksi
    yield* ksi.emit(Reserved, { sku, quantity })
    return { left: 3 - quantity }
  },
  "parcel:ship": () => Effect.die("no parcel leaves this test"),
  // What is reserved is shipped a little later.
  *"stock:reserved"({ sku }) {
    yield* Effect.sleep("10 seconds")
    yield* (yield* Ksi).call(Ship, { sku })
  }
})

// Nothing here waits for a file or a socket; where something does, leave `outsideMillis` away.
const app = KsiTest.layer(Ksi.serve(Stock).pipe(Layer.provide(Handlers)), { outsideMillis: 0 })
const play = (name: string, scenario: Effect.Effect<void, KsiTest.ScenarioFailed, KsiTest.KsiTest>) =>
  scenario.pipe(
    Effect.matchEffect({
      onSuccess: () => Console.log(`ok      ${name}`),
      onFailure: ({ message }) => Console.log(`not ok  ${name}\n${message.trimEnd()}`)
    }),
    Effect.provide(app)
  )

const tea = (quantity: number) => ({ sku: "tea", quantity })
const ship = KsiTest.mock(Ship, ({ sku }) => Effect.succeed(`${sku} is on its way`))

await Effect.runPromise(Effect.gen(function*() {
  yield* play("refuses more than it has", KsiTest.scenario
    .given(Reserved.of(tea(1)))
    .when(Reserve, tea(4))
    .thenFails("OutOfStock", ({ left }) => left === 3)
    .thenEmits()
    .thenState(Level, "stock-tea", 1))

  yield* play("ships what is reserved, ten seconds later", KsiTest.scenario
    .with(ship)
    .when(Reserve, tea(2))
    .thenReplies({ left: 1 })
    .thenEmits(Reserved.of(tea(2)))
    .thenCalled(ship)
    .thenAfter("10 seconds")
    .thenCalled(ship, { sku: "tea" }))

  yield* play("asks who asks", KsiTest.scenario
    .as("bob").when(Reserve, tea(1)).thenDenied()
    .as("ann", { grants: ["stock:*"] }).when(Reserve, tea(1)).thenReplies({ left: 2 }))

  yield* play("is wrong, and says how", KsiTest.scenario
    .when(Reserve, tea(2))
    .thenEmits(Reserved.of(tea(1))))

  // Two fibers that read and then write: a seed that loses an update is found, and found again.
  const count = (seed: number) => {
    let n = 0
    const one = Effect.flatMap(Effect.sync(() => n), (read) => Effect.sync(() => (n = read + 1)))
    World.make({ seed }).run(Effect.all([one, one], { concurrency: "unbounded" }))
    return n
  }
  const lost = Array.from({ length: 1000 }, (_, seed) => seed).find((seed) => count(seed) === 1) ?? -1
  yield* Console.log(`an update is lost: ${count(lost) === 1 && count(lost) === 1}`)
}))
// prints:
// ok      refuses more than it has
// ok      ships what is reserved, ten seconds later
// ok      asks who asks
// not ok  is wrong, and says how
// expected exactly these facts, in this order
//
//   - expected
//   + came
//     [
//       {
//         "event": "stock:reserved",
//         "data": {
//           "sku": "tea",
//   -       "quantity": 1
//   +       "quantity": 2
//         }
//       }
//     ]
//
// what happened (? a request, ! a fact):
//   ? stock:reserve {"sku":"tea","quantity":2}
//     ! stock:reserved {"sku":"tea","quantity":2}
// an update is lost: true
