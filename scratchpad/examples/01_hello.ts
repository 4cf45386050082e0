// The smallest program: one request, one fact, a handler, and everything in memory.
//   npx node --conditions=ksi-source scratchpad/examples/01_hello.ts
import { Console, Effect, Layer, Schema } from "effect"
import { Event, EventGroup, Ksi } from "ksi"

const Greet = Event.make("hello:greet", { payload: { name: Schema.String }, success: Schema.String })
const Greeted = Event.fact("hello:greeted", { payload: { name: Schema.String }, streamId: ({ name }) => `guest-${name}` })
const Hello = EventGroup.make(Greet, Greeted)

const HelloHandlers = Hello.toLayer({
  *"hello:greet"({ name }) {
    const ksi = yield* Ksi
    const { version } = yield* ksi.emit(Greeted, { name })
    return version === 1 ? `Welcome, ${name}!` : `Welcome back, ${name}! Visit ${version}.`
  }
})

const Main = Ksi.serve(Hello).pipe(Layer.provide(HelloHandlers), Layer.provideMerge(Ksi.layerMemory))

const program = Effect.gen(function*() {
  const ksi = yield* Ksi
  yield* Console.log(yield* ksi.call(Greet, { name: "Ada" }))
  yield* Console.log(yield* ksi.call(Greet, { name: "Ada" }))
})

await Effect.runPromise(program.pipe(Effect.provide(Main)))
// prints:
// Welcome, Ada!
// Welcome back, Ada! Visit 2.
