// A program beside the daemon: the same as in its process, only its layer is another one.
//   npx node --conditions=ksi-source scratchpad/examples/17_remote.ts
import { Console, Effect, Layer, Schema, Stream } from "effect"
import { Event, EventGroup, Ksi } from "ksi"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

class SoldOut extends Schema.TaggedError<SoldOut>()("SoldOut", { sku: Schema.String }) {}

const Reserve = Event.make("depot:reserve", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  success: Schema.Int,
  error: SoldOut
})
const Count = Event.make("depot:count", { payload: { sku: Schema.String }, success: Schema.Int, stream: true })
const Reserved = Event.fact("depot:reserved", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  streamId: ({ sku }) => `depot-${sku}`
})
const Depot = EventGroup.make(Reserve, Count, Reserved)

const DepotLive = Depot.toLayer({
  *"depot:reserve"({ quantity, sku }) {
    if (sku === "gold") return yield* new SoldOut({ sku })
    const { version } = yield* (yield* Ksi).emit(Reserved, { sku, quantity })
    return version
  },
  "depot:count": () => Stream.range(1, 1_000_000),
  "depot:reserved": () => Effect.void
})

/** Knows nothing of where the depot is. */
const program = Effect.gen(function*() {
  const ksi = yield* Ksi
  const first = yield* ksi.call(Reserve, { sku: "tea", quantity: 2 })
  const refused = yield* Effect.flip(ksi.call(Reserve, { sku: "gold", quantity: 1 }))
  const counted = yield* ksi.stream(Count, { sku: "tea" }, { firstItem: "5 seconds" }).pipe(Stream.take(3), Stream.runCollect)
  const [fact] = yield* ksi.subscribe(Reserved, { from: "start" }).pipe(Stream.take(1), Stream.runCollect)
  yield* Console.log(first, refused._tag, counted, fact?.data)
})

const place = mkdtempSync(join(tmpdir(), "depot-"))
const path = join(place, "run", "daemon.sock")
const Daemon = Ksi.listen({ path }).pipe(
  Layer.provideMerge(Ksi.serve(Depot).pipe(Layer.provide(DepotLive))),
  Layer.provideMerge(Ksi.layerMemory)
)

// In the daemon's process, which listens, and then beside it.
await Effect.runPromise(Effect.gen(function*() {
  yield* program
  yield* Effect.provide(program, Ksi.layerRemote({ url: `unix:${path}` }))
}).pipe(Effect.provide(Daemon), Effect.ensuring(Effect.sync(() => rmSync(place, { recursive: true })))))

// prints:
// 1 SoldOut [ 1, 2, 3 ] { sku: 'tea', quantity: 2 }
// 2 SoldOut [ 1, 2, 3 ] { sku: 'tea', quantity: 2 }
