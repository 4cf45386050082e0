// A program that is asked over HTTP, and followed: events are posted as JSON, facts are told as server-sent events.
//   npx node --conditions=ksi-source scratchpad/examples/09_http.ts
import { Console, Effect, Layer, Schema } from "effect"
import { Event, EventGroup, Http, Ksi } from "ksi"

class SoldOut extends Schema.TaggedError<SoldOut>()("SoldOut", { sku: Schema.String }) {}
const Order = Event.make("shop:order", { payload: { sku: Schema.String }, success: Schema.Struct({ order: Schema.Int }), error: SoldOut })
const Ordered = Event.fact("shop:ordered", { payload: { sku: Schema.String }, streamId: ({ sku }) => `shop-${sku}` })
const Shop = EventGroup.make(Order, Ordered)
const ShopHandlers = Shop.toLayer({
  *"shop:order"({ sku }) {
    if (sku === "gold") return yield* new SoldOut({ sku })
    const ksi = yield* Ksi
    return { order: Number((yield* ksi.emit(Ordered, { sku })).position) }
  }
})

// In front of any runtime. Without `port` it is 4600; 0 takes a free one.
const Main = Http.layer({ port: 0, drain: "10 seconds" }).pipe(
  Layer.merge(Ksi.serve(Shop).pipe(Layer.provide(ShopHandlers))),
  Layer.provideMerge(Ksi.layerMemory)
)

const program = Effect.gen(function*() {
  const { url } = yield* Http.Http
  const post = (event: string, data: object) =>
    Effect.promise(() => fetch(`${url}/events/${event}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(data) }))
  const json = (response: Response) => Effect.promise(() => response.text())

  yield* Console.log(yield* json(yield* post("shop:order", { sku: "tea" })))
  // What goes wrong says why: a declared error, a payload that is none.
  const refused = yield* post("shop:order", { sku: "gold" })
  const { error, reason } = JSON.parse(yield* json(refused)) as { reason: string; error: unknown }
  yield* Console.log(refused.status, reason, JSON.stringify(error))
  yield* Console.log((yield* post("shop:order", { sku: 7 })).status)

  // A browser's EventSource follows the same way, and goes on where it was cut off.
  const following = yield* Effect.promise(() => fetch(`${url}/subscribe?pattern=shop:*&from=start`))
  yield* post("shop:order", { sku: "salt" })
  let told = ""
  const decoder = new TextDecoder()
  yield* Effect.promise(async () => {
    for await (const chunk of following.body ?? []) {
      told += decoder.decode(chunk, { stream: true })
      if (told.includes("salt")) break
    }
  })
  for (const [, id, data] of told.matchAll(/^id: (\d+)\ndata: (.*)$/gm)) {
    yield* Console.log(id, JSON.stringify((JSON.parse(data ?? "") as { data: unknown }).data))
  }
})

await Effect.runPromise(program.pipe(Effect.provide(Main)))
// prints:
// {"order":1}
// 422 SoldOut {"_tag":"SoldOut","sku":"gold"}
// 400
// 1 {"sku":"tea"}
// 2 {"sku":"salt"}
