/**
 * Local calls, one after the other, of eight events in turn: payload checked, envelope made, handler run, reply checked.
 *
 * `ksi` has generator methods as handlers and is called from one fiber; in `…-untraced` it has `Effect.fnUntraced`
 * handlers instead; in `…-promise` each call is a `runPromise` of its own. Three middlewares stand before every handler. Moleculer
 * checks payloads (fastest-validator) but not replies; oRPC checks both with Zod, the hand-written `bare` both; Nest's bus
 * has neither checks nor middlewares, so its handler checks the payload with fastest-validator. KSI's handlers yield
 * once, the others' are async functions without an await. In `all-on` everything that exists is on: KSI is asked by name,
 * with JSON, a deadline and a client's label, and records every request in memory (`ksi`) or in a file (`sqlite`);
 * Moleculer tracks, measures, bounds, retries, breaks circuits and times out.
 */
import { NestFactory } from "@nestjs/core"
import { CommandBus, CommandHandler, CqrsModule } from "@nestjs/cqrs"
import { createProcedureClient, os } from "@orpc/server"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import FastestValidator from "fastest-validator"
import { ServiceBroker } from "moleculer"
import * as Path from "node:path"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as Middleware from "../../src/bus/Middleware.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import type { Bench, Subject } from "./Bench.ts"
import { type Data, effectSchema, fastestSchema, handWritten, samples, shapes, zodSchema } from "./Shapes.ts"

/** What middlewares have seen: they count calls, look who asks, and count answers. */
const seen = { calls: 0, answers: 0 }

/** What is compared, and how it ends. */
interface Measured extends Subject {
  readonly close: () => Promise<unknown>
}

/** Calls for so long, looking at the clock every 256 calls. */
const repeat = (name: string, call: (shape: number, data: Data) => Promise<unknown>, close: () => Promise<unknown> = async () => {}): Measured => ({
  name,
  close,
  run: async (millis) => {
    const start = performance.now()
    let count = 0
    while (performance.now() - start < millis) {
      for (let i = 0; i < 256; i++, count++) await call(count & 7, samples[count & 7]?.[count >> 3 & 63] ?? {})
    }
    return { count, millis: performance.now() - start }
  }
})

/** A wrong set-up must not look fast. */
const checked = async (name: string, call: (shape: number, data: Data) => Promise<unknown>): Promise<void> => {
  const before = { ...seen }
  for (const [at, { answer }] of shapes.entries()) {
    const data = samples[at]?.[7] ?? {}
    const reply = JSON.stringify(await call(at, data))
    if (reply !== JSON.stringify(answer(data, "id-1"))) throw new Error(`${name} answered ${reply}`)
    const refused = await call(at, { ...data, ...Object.fromEntries(Object.keys(data).map((key) => [key, null])) }).then(() => false, () => true)
    if (!refused) throw new Error(`${name} accepts anything`)
  }
  const passed = Math.min(seen.calls - before.calls, seen.answers - before.answers)
  if (name !== "nest" && passed < shapes.length) throw new Error(`${name} has not all of its middlewares`)
}

// ---------------------------------------------------------------------------------------------------------------- KSI

type Style = "generator" | "untraced"

const events = shapes.map(({ name, payload, reply }) =>
  Event.make(name, { payload: effectSchema(payload), success: effectSchema(reply) }))
const Calls = Middleware.make("calls", { before: () => void seen.calls++ })
const Callers = Middleware.make("callers", {
  before: (envelope) => envelope.metadata.principal === "nobody" ? Effect.die(new Error("who?")) : undefined
})
const Answers = Middleware.make("answers", { after: () => void seen.answers++ })
const group = EventGroup.make(...events).middleware(Calls).middleware(Callers).middleware(Answers)
const secured: Readonly<Record<string, Event.Any>> = group.events

const handlers = Object.fromEntries(shapes.map(({ answer, name }) => [name, {
  *generator(payload: Data) {
    return answer(payload, yield* Effect.succeed("id-1"))
  },
  untraced: Effect.fnUntraced(function*(payload: Data) {
    return answer(payload, yield* Effect.succeed("id-1"))
  })
}]))

const startKsi = async (style: Style, runtime: Layer.Layer<Runtime, unknown>) => {
  const own = Object.fromEntries(Object.entries(handlers).map(([name, styles]) => [name, styles[style]]))
  // The names are not known to the compiler.
  const main = Ksi.serve(group).pipe(
    Layer.provide([group.toLayer(own as never), Calls.layer, Callers.layer, Answers.layer]), Layer.provideMerge(runtime)
  ) as Layer.Layer<Runtime, unknown>
  const scope = Scope.makeUnsafe()
  const context = await Effect.runPromise(Layer.buildWithScope(main, scope))
  const run = Effect.runPromiseWith(context)
  return { ksi: Context.get(context, Ksi), run, close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

/** Nothing recorded: the peers do not either. */
const inMemory = Ksi.layerMemoryWith({ audit: "off" })

type Door = (ksi: Ksi["Service"], shape: number, data: Data) => Effect.Effect<unknown, unknown>

const requests = shapes.map(({ name }) => secured[name])
const typed: Door = (ksi, shape, data) => ksi.call(requests[shape] as never, data as never)

let labels = 0
const byName: Door = (ksi, shape, data) => {
  const options = { as: "call", deadline: Date.now() + 30_000, clientCorrelationId: `c${labels++}` } as const
  return Effect.map(ksi.dispatch(shapes[shape]?.name ?? "", data, options), (answer) => answer.kind === "value" ? answer.value : undefined)
}

const inFiber = async (name: string, style: Style, runtime = inMemory, door = typed): Promise<Measured> => {
  const { close, ksi, run } = await startKsi(style, runtime)
  await checked(name, (shape, data) => run(door(ksi, shape, data)))
  const loop = Effect.fnUntraced(function*(millis: number) {
    const start = performance.now()
    let count = 0
    while (performance.now() - start < millis) {
      for (let i = 0; i < 256; i++, count++) yield* door(ksi, count & 7, samples[count & 7]?.[count >> 3 & 63] ?? {})
    }
    return { count, millis: performance.now() - start }
  })
  return { name, close, run: (millis) => run(loop(millis)) }
}

const byPromise = async (name: string): Promise<Measured> => {
  const { close, ksi, run } = await startKsi("generator", inMemory)
  return repeat(name, (shape, data) => run(typed(ksi, shape, data)), close)
}

// -------------------------------------------------------------------------------------------------------------- peers

interface MoleculerContext {
  readonly params: Data
  readonly meta: { readonly principal?: string }
}
type MoleculerNext = (ctx: MoleculerContext) => Promise<unknown>

const moleculerMiddlewares = [
  { localAction: (next: MoleculerNext): MoleculerNext => (ctx) => { seen.calls++; return next(ctx) } },
  {
    localAction: (next: MoleculerNext): MoleculerNext => (ctx) =>
      ctx.meta.principal === "nobody" ? Promise.reject(new Error("who?")) : next(ctx)
  },
  { localAction: (next: MoleculerNext): MoleculerNext => (ctx) => next(ctx).then((reply) => { seen.answers++; return reply }) }
]

const allOfMoleculer = {
  requestTimeout: 30_000,
  retryPolicy: { enabled: true, retries: 2 },
  circuitBreaker: { enabled: true },
  bulkhead: { enabled: true, concurrency: 100 },
  tracking: { enabled: true },
  metrics: { enabled: true },
  maxCallLevel: 64
}

const moleculer = async (everything: boolean): Promise<Measured> => {
  const broker = new ServiceBroker({
    logger: false,
    ...(everything ? allOfMoleculer : {}),
    middlewares: moleculerMiddlewares as never
  })
  broker.createService({
    name: "bench",
    actions: Object.fromEntries(shapes.map(({ answer, name, payload }) => [name.slice("bench:".length), {
      params: fastestSchema(payload) as never,
      handler: async (ctx: MoleculerContext) => answer(ctx.params, "id-1")
    }]))
  })
  await broker.start()
  const names = shapes.map(({ name }) => name.replace(":", "."))
  const call = everything
    ? (shape: number, data: Data) => broker.call(names[shape] ?? "", data, { timeout: 30_000, meta: { label: `c${labels++}` } })
    : (shape: number, data: Data) => broker.call(names[shape] ?? "", data)
  await checked("moleculer", call)
  return repeat("moleculer", call, () => broker.stop())
}

const orpc = async (): Promise<Measured> => {
  const base = os.$context<{ readonly principal?: string }>()
  const counted = base.middleware(({ next }) => { seen.calls++; return next() })
  const allowed = base.middleware(({ context, next }) => {
    if (context.principal === "nobody") throw new Error("who?")
    return next()
  })
  const answered = base.middleware(async ({ next }) => { const reply = await next(); seen.answers++; return reply })
  const clients = shapes.map(({ answer, payload, reply }) => {
    const procedure = base.use(counted).use(allowed).use(answered).input(zodSchema(payload)).output(zodSchema(reply))
      .handler(async ({ input }) => answer(input as Data, "id-1"))
    return createProcedureClient(procedure, { context: {} })
  })
  const call = async (shape: number, data: Data) => clients[shape]?.(data)
  await checked("orpc", call)
  return repeat("orpc", (shape, data) => clients[shape]?.(data) ?? Promise.reject(new Error("no client")))
}

const nest = async (): Promise<Measured> => {
  const validator = new FastestValidator()
  const commands = shapes.map(({ answer, payload }) => {
    class Command {
      readonly data: Data
      constructor(data: Data) { this.data = data }
    }
    const check = validator.compile(fastestSchema(payload) as never)
    class Handler {
      async execute({ data }: Command) {
        if (check(data) !== true) throw new Error("invalid")
        return answer(data, "id-1")
      }
    }
    CommandHandler(Command)(Handler)
    return { Command, Handler }
  })
  const App = { module: function App() {}, imports: [CqrsModule.forRoot()], providers: commands.map(({ Handler }) => Handler) }
  const app = await NestFactory.createApplicationContext(App, { logger: false })
  const bus = app.get(CommandBus)
  const make = commands.map(({ Command }) => (data: Data) => new Command(data))
  const call = (shape: number, data: Data): Promise<unknown> => bus.execute(make[shape]?.(data) ?? {})
  await app.init()
  await checked("nest", call)
  return repeat("nest", call, () => app.close())
}

const bare = async (): Promise<Measured> => {
  interface Request { readonly name: string; readonly data: Data; readonly principal: string }
  type Next = (request: Request) => Promise<unknown>
  const wrappers: ReadonlyArray<(next: Next) => Next> = [
    (next) => async (request) => { seen.calls++; return await next(request) },
    (next) => async (request) => {
      if (request.principal === "nobody") throw new Error("who?")
      return await next(request)
    },
    (next) => async (request) => { const reply = await next(request); seen.answers++; return reply }
  ]
  const table = new Map<string, Next>(shapes.map(({ answer, name, payload, reply }) => {
    const isPayload = handWritten(payload)
    const isReply = handWritten(reply)
    const handler: Next = async ({ data }) => {
      if (!isPayload(data)) throw new Error("invalid payload")
      const answered = answer(data, "id-1")
      if (!isReply(answered)) throw new Error("invalid reply")
      return answered
    }
    return [name, wrappers.reduceRight((next, wrap) => wrap(next), handler)]
  }))
  const call = async (shape: number, data: Data) => {
    const name = shapes[shape]?.name ?? ""
    const handler = table.get(name)
    if (handler === undefined) throw new Error("nobody handles this")
    return handler({ name, data, principal: "owner" })
  }
  await checked("bare", call)
  return repeat("bare", call)
}

// --------------------------------------------------------------------------------------------------------------- runs

const compared = async (
  bench: Bench,
  id: string,
  subjects: readonly [Measured, ...Array<Measured>],
  millis = 200
): Promise<void> => {
  await bench.compare({ case: id, metric: "throughput", unit: "calls/s", subjects, millis })
  for (const { close } of subjects) await close()
}

/** All cases. */
export const run = async (bench: Bench): Promise<void> => {
  const id = "validated-3mw"
  await compared(bench, id, [
    await inFiber("ksi", "generator"), await moleculer(false), await orpc(), await nest(), await bare()
  ])
  await compared(bench, `${id}-untraced`, [await inFiber("ksi", "untraced"), await moleculer(false), await bare()])
  await compared(bench, `${id}-promise`, [await byPromise("ksi"), await moleculer(false), await bare()])
  const file = Ksi.layerSqlite({ filename: Path.join(bench.folder, "all-on.db") })
  await compared(bench, "all-on", [
    await inFiber("ksi", "generator", Ksi.layerMemory, byName),
    await inFiber("sqlite", "generator", file, byName),
    await moleculer(true)
  ], bench.quick ? 600 : 1200)
}
