// A program that works for a consumer group beside the daemon, which keeps how far the group is and what is parked. The same layer
// works in the daemon's process; any number of programs may share the work.
//   npx node --conditions=ksi-source scratchpad/examples/18_worker.ts
import { Console, Effect, Layer, Logger, Schedule, Schema } from "effect"
import { Consumer, Event, EventGroup, Ksi } from "ksi"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const Ordered = Event.fact("mill:ordered", {
  payload: { sku: Schema.String, pounds: Schema.Int },
  streamId: ({ sku }) => sku
})
const Mill = EventGroup.make(Ordered)

/** Knows nothing of where the mill is: only its layer says. */
const Grinding = (who: string) =>
  Consumer.layer("grinding", {
    events: [Ordered],
    start: "start",
    maxAttempts: 2,
    retry: Schedule.spaced("1 millis"),
    handler: ({ pounds, sku }, { attempt }) =>
      sku === "pebbles"
        ? Effect.fail(`no mill grinds pebbles (attempt ${attempt})`)
        : Console.log(`${who} ground ${pounds} lb of ${sku}`)
  })

const place = mkdtempSync(join(tmpdir(), "mill-"))
const url = `unix:${join(place, "run", "daemon.sock")}`
const Daemon = Ksi.listen({ path: url.slice("unix:".length) }).pipe(
  Layer.provideMerge(Ksi.serve(Mill).pipe(Layer.provide(Mill.toLayer({})))),
  Layer.provideMerge(Ksi.layerMemory)
)

/** Works until everything that is stored now is dealt with. */
const workedOff = (who: string) => Effect.scoped(Effect.andThen(Layer.build(Grinding(who)), Consumer.settled("grinding")))

const program = Effect.gen(function*() {
  const ksi = yield* Ksi
  yield* ksi.emit(Ordered, { sku: "rye", pounds: 10 })
  yield* workedOff("the daemon")
  yield* ksi.emit(Ordered, { sku: "rye", pounds: 20 })
  yield* ksi.emit(Ordered, { sku: "pebbles", pounds: 30 })
  // The next one goes on where that one was.
  yield* Effect.provide(workedOff("a worker"), Ksi.layerRemote({ url }))
  const [parked] = yield* (yield* Consumer.Consumers).parked("grinding", { limit: 10 })
  yield* Console.log(`parked: ${parked?.streamId}, after ${parked?.attempts} attempts: ${parked?.error}`)
})

await Effect.runPromise(program.pipe(
  Effect.provide(Daemon), Effect.provide(Logger.layer([])), Effect.ensuring(Effect.sync(() => rmSync(place, { recursive: true })))
))

// prints:
// the daemon ground 10 lb of rye
// a worker ground 20 lb of rye
// parked: pebbles, after 2 attempts: no mill grinds pebbles (attempt 2)
