// Deciding on what is known: a decision about more than one stream reads what a query asks for, and what it says is stored
// only if nothing that the query asks for has come meanwhile.
//   npx node --conditions=ksi-source scratchpad/examples/16_decide.ts
import { Console, Effect, Layer, Schema, Stream } from "effect"
import { Event, EventGroup, EventStore, Ksi } from "ksi"

class SoldOut extends Schema.TaggedError<SoldOut>()("SoldOut", { flight: Schema.String }) {}

const Book = Event.make("seat:book", {
  payload: { flight: Schema.String, passenger: Schema.String },
  success: Schema.Int,
  error: SoldOut
})
const Booked = Event.fact("seat:booked", {
  payload: { flight: Schema.String, passenger: Schema.String },
  streamId: ({ passenger }) => `passenger-${passenger}`,
  tags: ({ flight }) => [`flight:${flight}`]
})
const Seats = EventGroup.make(Book, Booked)
const seats = 2

const SeatsLive = Seats.toLayer(Effect.gen(function*() {
  const ksi = yield* Ksi
  const store = yield* EventStore.EventStore
  const decide = Effect.fnUntraced(function*(flight: string, passenger: string) {
    const query = [{ names: [Booked.name], tags: [`flight:${flight}`] }]
    const { facts, position } = yield* store.readAll({ query })
    const taken = yield* Stream.runCount(facts)
    if (taken >= seats) return yield* new SoldOut({ flight })
    yield* ksi.emit(Booked, { flight, passenger }, { condition: { query, after: position } })
    return taken + 1
  })
  return {
    // Somebody was faster: what they booked is known now.
    "seat:book": ({ flight, passenger }) =>
      Effect.retry(decide(flight, passenger), { while: (error) => error._tag === "KsiError" && error.reason._tag === "ConditionFailed" })
  }
}))

const program = Effect.gen(function*() {
  const ksi = yield* Ksi
  const book = (passenger: string) => Effect.match(ksi.call(Book, { flight: "KL1", passenger }), {
    onSuccess: (nth) => `${passenger} has seat ${nth}`,
    onFailure: (error) => `${passenger}: ${error._tag}`
  })
  const told = yield* Effect.forEach(["ann", "bob", "eve"], book, { concurrency: "unbounded" })
  yield* Effect.forEach(told.toSorted(), (line) => Console.log(line))
})

await Effect.runPromise(Effect.provide(program, Ksi.serve(Seats).pipe(Layer.provide(SeatsLive), Layer.provideMerge(Ksi.layerMemory))))
// prints:
// ann has seat 1
// bob has seat 2
// eve: SoldOut
