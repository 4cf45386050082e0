// The two tests of KSI's seed, on a service that completes prompts. The seed had them in Python:
//   test_completion_with_permission_check   given permission:grant { user: "alice", permission: "completion:*" },
//     when completion:async { prompt: "Hello", user: "alice" }, then there is a response, and the permission was checked
//   a property: whatever the prompt (1 to 1000 characters) and the temperature (0 to 2), a completion is a text that is not empty
//
// Two things were wrong with the first. Who asks was read from the payload, so that anybody could say that he is alice; here it is bound
// to the connection (`as`), and a payload has no say in it. And that it was checked was looked for in the log of events, which says that
// somebody checked, not that it mattered; here it is shown by what follows: with the grant it replies, without it is denied, and
// the model was not asked.
//   npx node --conditions=ksi-source scratchpad/examples/12_completion.ts
import { Console, Effect, Layer, Schema } from "effect"
import { Event, EventGroup, Ksi } from "ksi"
import { KsiTest } from "ksi/testing"

const Prompt = Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(1000))
const Temperature = Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 2 }))
const Text = Schema.String.check(Schema.isMinLength(1))

const Complete = Event.make("completion:async", { payload: { prompt: Prompt, temperature: Schema.optionalKey(Temperature) }, success: Text })
/** What the model of a provider answers. */
const Ask = Event.make("provider:ask", { payload: { prompt: Prompt, temperature: Temperature }, success: Schema.String })
const Completion = EventGroup.make(Complete, Ask)
const Handlers = Completion.toLayer({
  *"completion:async"({ prompt, temperature = 1 }) {
    const text = yield* (yield* Ksi).call(Ask, { prompt, temperature })
    return text.trim() === "" ? "(nothing came to mind)" : text
  },
  "provider:ask": () => Effect.die("no test asks a provider")
})
const app = KsiTest.layer(Ksi.serve(Completion).pipe(Layer.provide(Handlers)), { outsideMillis: 0 })

// As providers are: some prompts get no answer.
const provider = KsiTest.mock(Ask, ({ prompt, temperature }) => Effect.succeed(temperature > 1.5 ? " " : `You said: ${prompt}`))

const allowed = KsiTest.scenario
  .with(provider)
  .as("alice", { grants: ["completion:*"] })
  .when(Complete, { prompt: "Hello" })
  .thenReplies("You said: Hello")
  .thenCalled(provider, { prompt: "Hello", temperature: 1 })

const denied = KsiTest.scenario
  .with(provider)
  .as("bob")
  .when(Complete, { prompt: "Hello" })
  .thenDenied()
  .thenCalled(provider)

const always = KsiTest.property(Complete, (outcome) => outcome.kind === "reply" && outcome.reply.length > 0, { mocks: [provider] })

const says = (what: string, effect: Effect.Effect<void, KsiTest.ScenarioFailed, KsiTest.KsiTest>) => effect.pipe(
  Effect.andThen(Console.log(`ok  ${what}`)),
  Effect.provide(app)
)

await Effect.runPromise(Effect.gen(function*() {
  yield* says("who may is answered", allowed)
  yield* says("who may not is denied, and the provider was not asked", denied)
  yield* says("a completion is always a text that is not empty", always)
}))
// prints:
// ok  who may is answered
// ok  who may not is denied, and the provider was not asked
// ok  a completion is always a text that is not empty
