/**
 * Saying what happened, to three listeners isolated from each other: when one fails, the others have heard it all the
 * same. Eight events in turn, one emit after the other, and every 64 of them wait until all listeners are done.
 *
 * KSI checks the payload, gives the fact a position and a version, keeps it in memory as JSON that nobody can change, and
 * runs each handler in a fiber of its own with a timeout; what fails is a dead letter. The others keep nothing: Moleculer,
 * whose listeners get a context each and are awaited by `emit`; Nest's EventBus; `bare`, node's EventEmitter. There the
 * first listener checks the payload (fastest-validator; `bare` by hand), so that everyone checks once. KSI's handlers are
 * generators, the others' async functions without an await.
 */
import { NestFactory } from "@nestjs/core"
import { CqrsModule, EventBus, EventsHandler } from "@nestjs/cqrs"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import FastestValidator from "fastest-validator"
import { ServiceBroker } from "moleculer"
import { EventEmitter } from "node:events"
import { Router, handle } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import { Ksi } from "../../src/Ksi.ts"
import type { Bench, Subject } from "./Bench.ts"
import { type Data, effectSchema, fastestSchema, handWritten, samples, shapes } from "./Shapes.ts"

const listeners = 3
const batch = 64

/** How often each listener was reached; the first one fails when it is told to. */
const heard = [0, 0, 0]
let failing = false

const listen = (listener: number, data: Data): void => {
  if (data === undefined) throw new Error("no data")
  if (failing && listener === 0) throw new Error("told to fail")
  heard[listener] = (heard[listener] ?? 0) + 1
}

const each = <A>(make: (listener: number) => A): Array<A> => Array.from({ length: listeners }, (_, listener) => make(listener))

/** What is compared, and how it ends. */
interface Measured extends Subject {
  readonly close: () => Promise<unknown>
}

/** Emits for so long; answers when all listeners have heard all of it. */
type Loop = (millis: number) => Promise<{ readonly count: number; readonly millis: number }>

const sample = (n: number): Data => samples[n & 7]?.[n >> 3 & 63] ?? {}

/** A wrong set-up must not look fast: everything is heard by everyone, and one that fails stops nobody. */
const checked = async (name: string, loop: Loop, close: () => Promise<unknown>): Promise<Measured> => {
  const run: Loop = async (millis) => {
    const before = [...heard]
    const amount = await loop(millis)
    const reached = heard.map((count, listener) => count - (before[listener] ?? 0))
    const expected = each((listener) => failing && listener === 0 ? 0 : amount.count)
    if (String(reached) !== String(expected)) throw new Error(`${name}: of ${amount.count} events the listeners heard ${reached}`)
    return amount
  }
  failing = true
  await run(0)
  failing = false
  return { name, run, close }
}

// ---------------------------------------------------------------------------------------------------------------- KSI

const facts = shapes.map(({ name, payload }) => Event.fact(name, { payload: effectSchema(payload), streamId: () => name }))

const handlers = facts.flatMap((fact) =>
  each((listener) => handle(fact, function*(payload) {
    // What a fact carries is an object.
    listen(listener, yield* Effect.succeed(payload as Data))
  }))
)

const startKsi = async () => {
  const main = Layer.mergeAll(...handlers as [typeof handlers[0], ...typeof handlers]).pipe(Layer.provideMerge(Ksi.layerMemory))
  const scope = Scope.makeUnsafe()
  // That a listener fails is part of the check; its log is not.
  const context = await Effect.runPromise(Layer.buildWithScope(main, scope).pipe(Effect.provideService(References.MinimumLogLevel, "None")))
  const ksi = Context.get(context, Ksi)
  const { settled } = Context.get(context, Router)
  const emits = Effect.fnUntraced(function*(from: number) {
    for (let n = from; n < from + batch; n++) yield* ksi.emit(facts[n & 7] as never, sample(n) as never)
    yield* settled
  })
  return { emits, close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

/** The store in memory keeps everything, so that it is a new one from time to time, warmed up when no clock runs. */
const renewAfter = 100_000
const warmUp = 50

const ksi = async (): Promise<Measured> => {
  let runtime = await startKsi()
  let stored = 0
  const loop = Effect.fnUntraced(function*(millis: number) {
    const start = performance.now()
    let count = 0
    do {
      yield* runtime.emits(count)
      count += batch
    } while (performance.now() - start < millis)
    stored += count
    return { count, millis: performance.now() - start }
  })
  return checked("ksi", async (millis) => {
    if (stored > renewAfter) {
      await runtime.close()
      runtime = await startKsi()
      stored = 0
      const before = [...heard]
      for (let n = 0; n < warmUp; n++) await Effect.runPromise(runtime.emits(n))
      heard.splice(0, listeners, ...before)
    }
    return Effect.runPromise(loop(millis))
  }, () => runtime.close())
}

// -------------------------------------------------------------------------------------------------------------- peers

/** `emit` waits for what the peer waits for; after a batch, all listeners are given their turn. */
const repeat = (emit: (shape: number, data: Data) => unknown): Loop => async (millis) => {
  const start = performance.now()
  let count = 0
  do {
    for (let i = 0; i < batch; i++, count++) await emit(count & 7, sample(count))
    await new Promise((resolve) => setImmediate(resolve))
  } while (performance.now() - start < millis)
  return { count, millis: performance.now() - start }
}

const moleculer = async (): Promise<Measured> => {
  const broker = new ServiceBroker({ logger: false })
  for (const listener of each((at) => at)) {
    broker.createService({
      name: `listener-${listener}`,
      events: Object.fromEntries(shapes.map(({ name, payload }) => [name, {
        ...(listener === 0 ? { params: fastestSchema(payload) as never } : {}),
        handler: async (ctx: { readonly params: Data }) => listen(listener, ctx.params)
      }]))
    })
  }
  await broker.start()
  const names = shapes.map(({ name }) => name)
  return checked("moleculer", repeat((shape, data) => broker.emit(names[shape] ?? "", data)), () => broker.stop())
}

const nest = async (): Promise<Measured> => {
  const validator = new FastestValidator()
  const events = shapes.map(({ payload }) => {
    class Happened {
      readonly data: Data
      constructor(data: Data) { this.data = data }
    }
    const check = validator.compile(fastestSchema(payload) as never)
    const classes = each((listener) => {
      class Handler {
        async handle({ data }: Happened) {
          if (listener === 0 && check(data) !== true) throw new Error("invalid")
          listen(listener, data)
        }
      }
      EventsHandler(Happened)(Handler)
      return Handler
    })
    return { Happened, classes }
  })
  const App = { module: function App() {}, imports: [CqrsModule.forRoot()], providers: events.flatMap(({ classes }) => classes) }
  const app = await NestFactory.createApplicationContext(App, { logger: false })
  await app.init()
  const bus = app.get(EventBus)
  const make = events.map(({ Happened }) => (data: Data) => new Happened(data))
  return checked("nest", repeat((shape, data) => void bus.publish(make[shape]?.(data) ?? {})), () => app.close())
}

const bare = async (): Promise<Measured> => {
  const emitter = new EventEmitter()
  const failed = () => {}
  for (const { name, payload } of shapes) {
    const check = handWritten(payload)
    for (const listener of each((at) => at)) {
      const handler = async (data: Data) => {
        if (listener === 0 && !check(data)) throw new Error("invalid")
        listen(listener, data)
      }
      emitter.on(name, (data: Data) => void handler(data).catch(failed))
    }
  }
  return checked("bare", repeat((shape, data) => void emitter.emit(shapes[shape]?.name ?? "", data)), async () => {})
}

/** `emit/3-observers`. */
export const run = async (bench: Bench): Promise<void> => {
  const subjects: readonly [Measured, ...Array<Measured>] = [await ksi(), await moleculer(), await nest(), await bare()]
  await bench.compare({ case: "3-observers", metric: "throughput", unit: "events/s", subjects })
  for (const { close } of subjects) await close()
}
