// A module for the daemon whose requests end in every way that a request can.
import { Effect, Layer, Schema } from "effect"
import { Event, EventGroup, Ksi } from "ksi"

class Refused extends Schema.TaggedError<Refused>()("Refused", { why: Schema.String }) {
  override get message() {
    return `refused: ${this.why}`
  }
}

const Add = Event.make("app:add", {
  payload: { a: Schema.Finite, b: Schema.Finite },
  success: Schema.Finite,
  annotations: { description: "Adds two numbers.", examples: [{ a: 1, b: 2 }] }
})
const Echo = Event.make("app:echo", { payload: { value: Schema.Json }, success: Schema.Struct({ value: Schema.Json }) })
const Refuse = Event.make("app:refuse", { payload: { why: Schema.String }, error: Refused })
class Poor extends Schema.TaggedError<Poor>()("Poor", { missing: Schema.Int }) {}

const Wordless = Event.make("app:poor", { error: Poor })
const Isbn = Event.make("app:isbn", { payload: { isbn: Schema.String }, success: Schema.String })
const Crash = Event.make("app:crash")
const Lie = Event.make("app:lie", { success: Schema.Struct({ n: Schema.Int }) })
const Hang = Event.make("app:hang")
const Noted = Event.fact("app:noted", { payload: { text: Schema.String }, streamId: () => "notes" })

const App = EventGroup.make(Add, Echo, Refuse, Wordless, Isbn, Crash, Lie, Hang, Noted)

const Handlers = App.toLayer({
  "app:add": ({ a, b }) => Effect.succeed(a + b),
  "app:echo": ({ value }) => Effect.succeed({ value }),
  "app:refuse": ({ why }) => Effect.fail(new Refused({ why })),
  "app:poor": () => Effect.fail(new Poor({ missing: 3 })),
  "app:isbn": ({ isbn }) => Effect.succeed(isbn),
  "app:crash": () => Effect.die(new Error("the inside of the handler")),
  // The type says that this cannot be; a handler written in JavaScript does not listen.
  "app:lie": () => Effect.succeed({ n: "one" } as unknown as { readonly n: number }),
  "app:hang": () => Effect.never
})

export default Ksi.serve(App).pipe(Layer.provide(Handlers))
