/**
 * Read models: how fast one catches up with a store, and what one that changes with the facts costs appends.
 *
 * In `projection/catch-up` 100,000 facts of 1,000 streams are folded into states by stream in the store's file; `bare` is
 * node:sqlite alone that reads the same rows in position order, parses them and adds them up in a Map, without a schema, without a
 * name, and writes nothing. In `projection/inline` 64 callers append: `none` to a store without a read model, `other` beside an
 * inline one that folds no such fact, `ksi` with one that folds each of them.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Event from "../../src/event/Event.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as ReadModel from "../../src/store/ReadModel.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"
import type { Bench, Subject } from "./Bench.ts"
import { dataOf, streams } from "./Orders.ts"

const callers = 64
const page = 500

const projectionOf = (name: string, event: string) => {
  const fact = Event.fact(event, { payload: { total: Schema.Number }, streamId: () => "order" })
  return Projection.make(name, {
    events: [fact],
    state: Schema.Struct({ orders: Schema.Int, total: Schema.Number }),
    initial: { orders: 0, total: 0 },
    on: { [fact.name]: ({ orders, total }, placed: { readonly total: number }) => ({ orders: orders + 1, total: total + placed.total }) }
  })
}
const totals = projectionOf("totals", "order:placed")
const others = projectionOf("others", "order:lost")

type Services = EventStore | ReadModel.ReadModels

const opened = async (filename: string, inline?: Projection.Projection<{ readonly orders: number; readonly total: number }>) => {
  const scope = Scope.makeUnsafe()
  const context: Context.Context<Services> = await Effect.runPromise(Layer.buildWithScope(SqliteEventStore.layer({ filename }), scope))
  if (inline !== undefined) {
    await Effect.runPromise(Effect.provide(Layer.buildWithScope(ReadModel.layer(inline, { mode: "inline" }), scope), context))
  }
  return { context, store: Context.get(context, EventStore), close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

// ----------------------------------------------------------------------------------------------------------- catch-up

const catchUp = async (bench: Bench): Promise<void> => {
  const count = bench.quick ? 20_000 : 100_000
  const filename = Path.join(bench.folder, "catch-up.db")
  const { close, context, store } = await opened(filename)
  for (let n = 0; n < count; n += page) {
    const facts = Array.from({ length: page }, (_, i) => ({
      id: `fact-${n + i}`, source: "/ksi", name: "order:placed", streamId: `order-${(n + i) * 7919 % streams}`, data: dataOf(n + i), time: undefined, attributes: {}
    }))
    await Effect.runPromise(store.append({ facts }))
  }
  let name = 0
  const ksi: Subject = {
    name: "ksi",
    run: async () => {
      // Another name is another model: each begins at the first fact.
      const model = projectionOf(`totals-${++name}`, "order:placed")
      const start = performance.now()
      await Effect.runPromise(Effect.provide(
        Effect.scoped(Effect.andThen(Layer.build(ReadModel.layer(model)), ReadModel.waitFor(model, count))),
        context
      ))
      return { count, millis: performance.now() - start }
    }
  }
  const bare: Subject = {
    name: "bare",
    run: () => {
      const db = new DatabaseSync(filename, { readOnly: true })
      const rows = db.prepare("SELECT * FROM events ORDER BY position")
      const start = performance.now()
      const states = new Map<unknown, { readonly orders: number; readonly total: number }>()
      for (const { data, stream } of rows.iterate()) {
        const { orders, total } = states.get(stream) ?? { orders: 0, total: 0 }
        const placed = JSON.parse(String(data)) as { readonly total: number } // as it was written above
        states.set(stream, { orders: orders + 1, total: total + placed.total })
      }
      const millis = performance.now() - start
      db.close()
      if (states.size !== streams) throw new Error(`${states.size} states`)
      return { count, millis }
    }
  }
  await bench.compare({ case: "catch-up", metric: "facts folded", unit: "facts/s", subjects: [ksi, bare] })
  await close()
}

// ------------------------------------------------------------------------------------------------------------- inline

const appending = (name: string, store: EventStore["Service"]): Subject => ({
  name,
  run: async (millis) => {
    const start = performance.now()
    let count = 0
    const caller = (first: number) =>
      Effect.gen(function*() {
        for (let n = first; performance.now() < start + millis; n += callers) {
          yield* store.appendTo(`order-${n % streams}`, [{ name: "order:placed", data: dataOf(n) }])
          count++
        }
      })
    await Effect.runPromise(Effect.forEach(Array.from({ length: callers }, (_, c) => c), caller, { concurrency: "unbounded" }))
    return { count, millis: performance.now() - start }
  }
})

const inline = async (bench: Bench): Promise<void> => {
  const file = (name: string) => Path.join(bench.folder, `inline-${name}.db`)
  const all = [await opened(file("ksi"), totals), await opened(file("none")), await opened(file("other"), others)] as const
  await bench.compare({
    case: "inline", metric: "durable appends", unit: "appends/s",
    subjects: [appending("ksi", all[0].store), appending("none", all[1].store), appending("other", all[2].store)]
  })
  for (const { close } of all) await close()
}

/** Runs it. */
export const run = async (bench: Bench): Promise<void> => {
  await catchUp(bench)
  await inline(bench)
}
