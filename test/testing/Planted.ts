/** A shop with one of several bugs in it, or none: what commands are tried on. */
import { Effect, Layer, Schema } from "effect"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { Ksi } from "../../src/Ksi.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as Commands from "../../src/testing/Commands.ts"
import * as KsiTest from "../../src/testing/KsiTest.ts"

export class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { left: Schema.Int }) {}
export class NotPositive extends Schema.TaggedError<NotPositive>()("NotPositive", {}) {}

const Line = { sku: Schema.String, quantity: Schema.Int.check(Schema.isBetween({ minimum: -5, maximum: 20 })) }
/** Takes some; there are ten of everything in the beginning. */
export const Reserve = Event.make("stock:reserve", {
  payload: Line, success: Schema.Struct({ left: Schema.Int }), error: Schema.Union([OutOfStock, NotPositive])
})
/** Gives some back. */
export const Release = Event.make("stock:release", { payload: Line, error: NotPositive })
export const Left = Event.make("stock:left", { payload: { sku: Schema.String }, success: Schema.Int })
/** Holds something, under an id that the handler makes. */
export const Hold = Event.make("stock:hold", { payload: { at: Schema.Date, note: Schema.Option(Schema.String) }, success: Schema.Struct({ id: Schema.String, number: Schema.Int }) })
export const Drop = Event.make("stock:drop", { payload: { id: Schema.String }, success: Schema.Boolean })
/** Takes bytes, which have no form of their own in a program. */
export const Load = Event.make("stock:load", { payload: { bytes: Schema.Uint8Array }, success: Schema.Int })
/** Counts to the next. */
export const Next = Event.make("stock:next", { success: Schema.Int })
export const Reserved = Event.fact("stock:reserved", { payload: Line, streamId: ({ sku }) => `stock-${sku.toWellFormed()}` })
export const Stock = EventGroup.make(Reserve, Release, Left, Hold, Drop, Load, Next, Reserved)

export const Taken = Projection.make("taken", {
  events: [Reserved], state: Schema.Int, initial: 0, on: { "stock:reserved": (taken, { quantity }) => taken + quantity }
})

export type Bug = "forgets a release" | "loses an update" | "takes none" | "reaction" | "drops twice" | "sleeps" | "counts wrong" | "says less" | "late race" | "loses bytes"

const handlers = (bug?: Bug) => Stock.toLayer(Effect.gen(function*() {
  const ksi = yield* Ksi
  const taken = new Map<string, number>()
  const holds = new Set<string>()
  let [made, count] = [0, 0]
  const left = (sku: string) => 10 - (taken.get(sku) ?? 0)
  return {
    "stock:reserve": ({ quantity, sku }) => Effect.gen(function*() {
      if (bug === "takes none" ? quantity < 0 : quantity <= 0) return yield* new NotPositive()
      const now = left(sku)
      if (quantity > now) return yield* new OutOfStock({ left: now })
      if (bug === "loses an update") yield* Effect.yieldNow
      if (bug === "late race") yield* Effect.sleep("1 second")
      taken.set(sku, 10 - now + quantity)
      if (bug === "sleeps" && quantity === 7) yield* Effect.sleep("2 hours")
      if (sku.isWellFormed()) yield* ksi.emit(Reserved, { sku, quantity: bug === "says less" && quantity > 5 ? quantity - 1 : quantity })
      return { left: now - quantity }
    }),
    "stock:release": ({ quantity, sku }) => Effect.gen(function*() {
      if (quantity <= 0) return yield* new NotPositive()
      const before = taken.get(sku) ?? 0
      // The third that comes back is not counted.
      if (bug === "forgets a release" && before > quantity) return
      taken.set(sku, Math.max(0, before - quantity))
    }),
    "stock:left": ({ sku }) => Effect.sync(() => left(sku)),
    "stock:hold": () => Effect.sync(() => {
      const id = `hold-${++made}`
      holds.add(id)
      return { id, number: bug === "counts wrong" && made > 2 ? made - 1 : made }
    }),
    "stock:drop": ({ id }) => Effect.sync(() => bug === "drops twice" ? holds.has(id) : holds.delete(id)),
    "stock:load": ({ bytes }) => Effect.sync(() => bug === "loses bytes" ? Math.min(bytes.length, 2) : bytes.length),
    "stock:next": () => Effect.gen(function*() {
      const read = count
      if (bug === "loses an update") yield* Effect.yieldNow
      count = read + 1
      return count
    }),
    "stock:reserved": ({ quantity }) => bug === "reaction" && quantity > 3 ? Effect.die(new Error("too many for one parcel")) : Effect.void
  }
}))

/** The shop. */
export const shop = (bug?: Bug): Layer.Layer<KsiTest.KsiTest> =>
  KsiTest.layer(Ksi.serve(Stock).pipe(Layer.provide(handlers(bug))), { outsideMillis: 0 })

interface State {
  readonly taken: Counts
  /** All that was ever reserved, where a fact says so. */
  readonly reserved: Counts
  readonly holds: ReadonlyArray<string>
  readonly ids: ReadonlyArray<string>
  readonly count: number
}

type Counts = Readonly<Record<string, number>>
// A name may be that of something that every object has.
const of = (counts: Counts, sku: string): number => Object.hasOwn(counts, sku) ? counts[sku] ?? 0 : 0

/** What the shop should do. */
export const model = Commands.model(Stock, {
  initial: { taken: {}, reserved: {}, holds: [], ids: [], count: 0 } as State,
  commands: {
    "stock:reserve": (state, { quantity, sku }, must) => {
      const now = of(state.taken, sku)
      if (quantity <= 0) return must.fail("NotPositive")
      return quantity > 10 - now
        ? must.fail("OutOfStock")
        : must.reply({ left: 10 - now - quantity }, {
          ...state,
          taken: { ...state.taken, [sku]: now + quantity },
          reserved: sku.isWellFormed() ? { ...state.reserved, [sku]: of(state.reserved, sku) + quantity } : state.reserved
        })
    },
    "stock:release": (state, { quantity, sku }, must) => quantity <= 0
      ? must.fail("NotPositive")
      : must.succeed({ ...state, taken: { ...state.taken, [sku]: Math.max(0, of(state.taken, sku) - quantity) } }),
    "stock:left": (state, { sku }, must) => must.reply(10 - of(state.taken, sku)),
    "stock:hold": (state, _, must) => must.replyLike(
      { number: state.ids.length + 1 }, ({ id }) => ({ ...state, ids: [...state.ids, id], holds: [...state.holds, id] })
    ),
    "stock:drop": (state, { id }, must) => must.reply(state.holds.includes(id), { ...state, holds: state.holds.filter((other) => other !== id) }),
    "stock:load": (_, { bytes }, must) => must.reply(bytes.length),
    "stock:next": (state, _, must) => must.reply(state.count + 1, { ...state, count: state.count + 1 })
  },
  states: (state) => Object.entries(state.reserved).map(([sku, quantity]) => KsiTest.stateOf(Taken, `stock-${sku}`, quantity)),
  payloads: { "stock:drop": ({ ids }, pick) => ({ id: pick(ids) }) }
})
