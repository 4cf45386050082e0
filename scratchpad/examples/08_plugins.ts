// Plugins: layers with a name that start together, share services, stop in reverse, and are told about when they cannot.
//   npx node --conditions=ksi-source scratchpad/examples/08_plugins.ts
import { Console, Context, Effect, Layer, Schema, Stream } from "effect"
import { Event, EventGroup, Ksi, Plugin } from "ksi"

class Rates extends Context.Service<Rates, { readonly cents: (sku: string) => number }>()("bank/Rates") {}

// A layer acquires when it starts and releases when it stops; what it provides is there for the plugins that need it.
const Bank = Plugin.make("bank", Layer.effect(Rates, Effect.acquireRelease(
  Effect.succeed({ cents: (sku: string) => sku.length * 100 }),
  () => Console.log("bank closes")
)))

const Quote = Event.make("till:quote", { payload: { sku: Schema.String }, success: Schema.Struct({ cents: Schema.Int }) })
// A request may be answered by a stream: its items come as they are pulled, and ending it early ends the handler's.
const Ticker = Event.make("till:ticker", { payload: { sku: Schema.String }, success: Schema.Int, stream: true })
const Till = EventGroup.make(Quote, Ticker)
const TillHandlers = Till.toLayer(Effect.map(Rates, ({ cents }) => ({
  "till:quote": ({ sku }) => Effect.succeed({ cents: cents(sku) }),
  "till:ticker": ({ sku }) => Stream.iterate(cents(sku), (last) => last + 1)
})))
const TillPlugin = Plugin.make("till", Layer.merge(
  Ksi.serve(Till).pipe(Layer.provide(TillHandlers)),
  Layer.effectDiscard(Effect.addFinalizer(() => Console.log("till closes")))
), { needs: ["bank"] })

// `ksi start app.ts` loads modules; a program hands them over.
const source = (plugin: Plugin.Plugin) => ({ from: `${plugin.name}.ts`, load: Effect.succeed(plugin) })

const program = Effect.gen(function*() {
  const ksi = yield* Ksi
  const plugins = yield* Plugin.Plugins
  yield* plugins.start([source(TillPlugin), source(Bank)])
  for (const { events, name, services, state } of yield* plugins.list) {
    yield* Console.log(name, state, [...events, ...services].join(" "))
  }
  yield* Console.log((yield* ksi.call(Quote, { sku: "tea" })).cents)
  yield* Console.log((yield* ksi.stream(Ticker, { sku: "tea" }).pipe(Stream.take(3), Stream.runCollect)).join(" "))
})

// They stop with the scope that they were started in.
const Main = Plugin.Plugins.layer.pipe(Layer.provideMerge(Ksi.layerMemory))
await Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(Main)))

// All faults of all plugins are told at once, and what had started is closed.
const Broken = Plugin.make("broken", Layer.effectDiscard(Effect.fail("no such till")))
const Lonely = Plugin.make("lonely", Layer.empty, { needs: ["nobody"] })
const failing = Effect.flatMap(Plugin.Plugins, (plugins) => plugins.start([source(Bank), source(Broken), source(Lonely)]))
await Effect.runPromise(Effect.scoped(failing).pipe(Effect.catch((error) => Console.log(error.message)), Effect.provide(Main)))
// prints:
// till running till:quote till:ticker
// bank running bank/Rates
// 300
// 300 301 302
// till closes
// bank closes
// bank closes
// broken.ts, lonely.ts cannot start: 2 faults
//   broken.ts: no such till
//   lonely.ts: it needs "nobody", which is not started with it
