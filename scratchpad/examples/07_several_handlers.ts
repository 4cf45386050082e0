// Several handlers of one request: the first in order that does not pass answers. And observers, which only look on.
//   npx node --conditions=ksi-source scratchpad/examples/07_several_handlers.ts
import { Console, Effect, Layer, Schema } from "effect"
import { Event, EventGroup, Ksi, Router } from "ksi"

class Unpriced extends Schema.TaggedError<Unpriced>()("Unpriced", { sku: Schema.String }) {}

const Price = Event.make("price:ask", {
  payload: { sku: Schema.String },
  success: Schema.Struct({ cents: Schema.Int, from: Schema.String }),
  error: Unpriced
})
const Asked = Event.fact("price:asked", { payload: { sku: Schema.String }, streamId: ({ sku }) => `price-${sku}` })
const Prices = EventGroup.make(Price, Asked)

// The group's own handler comes first. `Router.pass` says "not mine"; a failure is an answer.
const Catalogue = Prices.toLayer({
  *"price:ask"({ sku }) {
    yield* (yield* Ksi).emit(Asked, { sku })
    if (sku === "nothing") return yield* new Unpriced({ sku })
    if (sku !== "tea") return yield* Router.pass
    return { cents: 350, from: "catalogue" }
  }
})

// Plugins add theirs. Sequential: it starts only when all before it have passed; else neighbours start together, and
// those whose answer is not needed are interrupted.
const Market = Router.handle(Price, function*({ sku }) {
  if (sku === "gold") return yield* Router.pass
  yield* Effect.sleep("5 millis")
  return { cents: sku.length * 100, from: "market" }
}, { execution: "sequential", timeout: "1 second", name: "market" })

const seen: Array<string> = []
const Audit = Router.observe("price:*", ({ name }) => Effect.sync(() => void seen.push(name)))

// Handlers are asked in the order in which they are registered: the market's after the group's.
const Main = Layer.merge(Market, Audit).pipe(
  Layer.provideMerge(Ksi.serve(Prices).pipe(Layer.provide(Catalogue))),
  Layer.provideMerge(Ksi.layerMemory)
)

const program = Effect.gen(function*() {
  const ksi = yield* Ksi
  for (const sku of ["tea", "coffee", "nothing", "gold"]) {
    const text = yield* ksi.call(Price, { sku }).pipe(
      Effect.map(({ cents, from }) => `${sku}: ${cents} from the ${from}`),
      Effect.catchTag("Unpriced", () => Effect.succeed(`${sku}: the catalogue says it has no price, and that is the answer`)),
      Effect.catchReason("KsiError", "NoHandler", ({ passed }) => Effect.succeed(`${sku}: ${passed} were asked, and passed`))
    )
    yield* Console.log(text)
  }
  const { handlers } = (yield* Router.Router).describe("price:ask")
  yield* Console.log(handlers.map(({ execution, name }) => `${name} (${execution})`).join(", "))
  yield* Console.log([...new Set(seen)].toSorted().map((name) => `${name} ${seen.filter((each) => each === name).length}`).join(", "))
})

await Effect.runPromise(program.pipe(Effect.provide(Main)))
// prints:
// tea: 350 from the catalogue
// coffee: 600 from the market
// nothing: the catalogue says it has no price, and that is the answer
// gold: 2 were asked, and passed
// price:ask (concurrent), market (sequential)
// price:ask 4, price:asked 4
