// Middleware: a typed service for handlers, a typed error for callers, an answer instead of the handler, the built-in ones.
//   npx node --conditions=ksi-source scratchpad/examples/06_middleware.ts
import { Console, Context, Effect, Layer, Schema } from "effect"
import { Builtin, Event, EventGroup, Ksi, Middleware } from "ksi"

class Member extends Context.Service<Member, { readonly name: string }>()("library/Member") {}
class NoMember extends Schema.TaggedError<NoMember>()("NoMember", { name: Schema.String }) {}

const Borrow = Event.make("library:borrow", {
  payload: { book: Schema.String },
  success: Schema.String
})
const Reprint = Event.make("library:reprint", { payload: { book: Schema.String } })

// Who asks? What `before` makes is there for the handlers behind it; what it fails with is in the callers' types.
const Membership = Middleware.make("membership", {
  provides: Member,
  error: NoMember,
  before: ({ metadata: { clientId = "Ada" } }) =>
    clientId === "Eve" ? Effect.fail(new NoMember({ name: clientId })) : Effect.succeed({ name: clientId })
})

// A `before` may answer itself; one that returns nothing costs next to nothing.
const Closed = Middleware.make("closed-shelf", {
  before: ({ data }) => JSON.stringify(data).includes("Necronomicon") ? Middleware.answer("not for you") : Effect.void
})

const Library = EventGroup.make(Borrow).middleware(Membership).middleware(Closed)
const LibraryHandlers = Library.toLayer({
  *"library:borrow"({ book }) {
    const { name } = yield* Member
    return `${name} has ${book}`
  }
})

// `timeout` wraps; this group is the only one behind it.
const Patience = Builtin.timeout("20 millis")
const Press = EventGroup.make(Reprint).middleware(Patience)
const PressHandlers = Press.toLayer({ "library:reprint": () => Effect.sleep("1 minute") })

const seen: Array<string> = []
const Main = Layer.mergeAll(
  // Leave a layer out and it does not compile.
  Ksi.serve(Library).pipe(Layer.provide([LibraryHandlers, Membership.layer, Closed.layer])),
  Ksi.serve(Press).pipe(Layer.provide([PressHandlers, Patience.layer])),
  // Before everything, outside of the groups' own, for as long as this layer is there.
  Middleware.use(Builtin.record(({ name }, { _tag }) => void seen.push(`${name} ${_tag}`))),
  Middleware.use(Builtin.idempotency)
).pipe(Layer.provideMerge(Ksi.layerMemory))

const program = Effect.gen(function*() {
  const ksi = yield* Ksi
  // Effect<string, NoMember | KsiError>
  const borrow = (book: string) => ksi.call(Library.events["library:borrow"], { book })
  yield* Console.log(yield* borrow("Dune"))
  yield* Console.log(yield* borrow("Necronomicon"))

  // What comes from outside, as the socket hands it over: JSON, a client, an idempotency key.
  const outside = (clientId: string, idempotencyKey?: string) =>
    ksi.dispatch("library:borrow", { book: "Dune" }, { clientId, ...(idempotencyKey === undefined ? {} : { idempotencyKey }) })
  yield* outside("Eve").pipe(
    Effect.catchTag("DeclaredFailure", ({ error }) => Console.log("refused:", JSON.stringify(error)))
  )
  const first = yield* outside("Bob", "k1")
  const again = yield* outside("Carol", "k1")
  yield* Console.log(JSON.stringify(first) === JSON.stringify(again), JSON.stringify(again))

  yield* ksi.call(Press.events["library:reprint"], { book: "Dune" }).pipe(
    Effect.catchReason("KsiError", "DeadlineExceeded", ({ message }) => Console.log(message))
  )
  yield* Console.log(seen.map((end) => end.replace("library:", "")).join(", "))
})

await Effect.runPromise(program.pipe(Effect.provide(Main)))
// prints:
// Ada has Dune
// not for you
// refused: {"_tag":"NoMember","name":"Eve"}
// true {"kind":"value","value":"Bob has Dune"}
// library:reprint did not answer within 20 ms
// borrow Success, borrow Success, borrow Failure, borrow Success, borrow Success, reprint Failure
