import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Schema, Stream } from "effect"
import type { Envelope } from "../../src/event/Envelope.ts"
import * as Event from "../../src/event/Event.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"

const Reserve = Event.make("stock:reserve", { payload: { sku: Schema.String }, success: Schema.String })
const Watch = Event.make("stock:watch", { success: Schema.Int, stream: true })
const Reserved = Event.fact("stock:reserved", { payload: { sku: Schema.String }, streamId: ({ sku }) => sku })
const Stock = EventGroup.make(Reserve, Watch, Reserved)
class Clerk extends Context.Service<Clerk, { readonly name: string }>()("test/Clerk") {}

// The handlers here do not look at it.
const envelope = {} as Envelope

const entry = (context: Context.Context<never>, name: string) => {
  const found = Context.getOption(context, EventGroup.handlerKey(name))
  return found._tag === "Some" ? found.value : undefined
}

describe("make", () => {
  it("keeps the events by name", () => {
    expect(Stock.events["stock:reserve"]).toBe(Reserve)
    expect(Object.keys(Stock.events)).toEqual(["stock:reserve", "stock:watch", "stock:reserved"])
  })

  it("refuses two events of one name", () => {
    const again = Event.make("stock:reserve")
    expect(() => EventGroup.make(Reserve, again)).toThrow("\"stock:reserve\" is twice in one group")
    expect(() => Stock.add(again)).toThrow(TypeError)
  })

  it("adding leaves the group as it was", () => {
    const More = Stock.add(Event.make("stock:more"))
    expect(Object.keys(More.events)).toEqual(["stock:reserve", "stock:watch", "stock:reserved", "stock:more"])
    expect(Object.keys(Stock.events).length).toBe(3)
  })
})

describe("toLayer", () => {
  it.effect("puts one entry for each handler into the context, with the context it was built in", () =>
    Effect.gen(function*() {
      const layer = Stock.toLayer(Effect.gen(function*() {
        const clerk = yield* Clerk
        return {
          "stock:reserve": ({ sku }) => Effect.succeed(`${clerk.name} ${sku}`),
          "stock:watch": () => Stream.make(1)
        }
      }))
      const context = yield* Layer.build(layer.pipe(Layer.provide(Layer.succeed(Clerk, { name: "ann" }))))
      const reserve = entry(context, "stock:reserve")
      expect(reserve?.name).toBe("stock:reserve")
      expect(reserve?.run({ sku: "tea" }, envelope)).toEqual(Exit.succeed("ann tea"))
      expect(Context.getOption(reserve?.context ?? Context.empty(), Clerk)).toMatchObject({ value: { name: "ann" } })
      expect(entry(context, "stock:watch")?.name).toBe("stock:watch")
      // A fact that nobody handles has no entry.
      expect(entry(context, "stock:reserved")).toBe(undefined)
    }))

  it.effect("a method keeps its this, and a generator method is not run before it is asked", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      const handlers = {
        greeting: "hello",
        *"stock:reserve"({ sku }: { readonly sku: string }) {
          seen.push(sku)
          yield* Effect.void
          return `${this.greeting} ${sku}`
        },
        "stock:watch": () => Stream.empty
      }
      const context = yield* Layer.build(Stock.toLayer(handlers))
      const steps = entry(context, "stock:reserve")?.run({ sku: "tea" }, envelope)
      expect(seen).toEqual([])
      const result = yield* Effect.gen(() => steps as Generator<Effect.Effect<void>, string, never>)
      expect(result).toBe("hello tea")
    }))

  it.effect("a handler of a stranger is refused at run time too", () =>
    Effect.gen(function*() {
      const handlers = { "stock:reserve": () => Effect.succeed(""), "stock:watch": () => Stream.empty }
      // The wider object has the narrower type: as good as a module whose types nobody checked.
      const misspelt: typeof handlers = Object.assign({ "stock:resrved": () => Effect.void }, handlers)
      const layer = Stock.toLayer(misspelt)
      const exit = yield* Effect.exit(Layer.build(layer))
      const defect = Exit.isFailure(exit) ? KsiError.defectOf(exit.cause) : undefined
      expect(defect).toBeInstanceOf(TypeError)
      expect(String(defect)).toContain("\"stock:resrved\" is no event of this group; nearest: \"stock:reserved\"")
    }))

  it.effect("what building acquires is released with the layer; a failure to build is the layer's", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const handlers = { "stock:reserve": () => Effect.succeed(""), "stock:watch": () => Stream.empty }
      const layer = Stock.toLayer(Effect.as(
        Effect.acquireRelease(Effect.sync(() => log.push("open")), () => Effect.sync(() => log.push("close"))),
        handlers
      ))
      yield* Effect.scoped(Effect.andThen(Layer.build(layer), Effect.sync(() => log.push("used"))))
      expect(log).toEqual(["open", "used", "close"])
      const failing = Stock.toLayer(Effect.andThen(Effect.fail("no"), Effect.succeed(handlers)))
      expect(yield* Effect.exit(Layer.build(failing))).toEqual(Exit.fail("no"))
    }))
})
