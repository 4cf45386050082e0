import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Result, Schema } from "effect"
import type { StoredFact } from "../../src/event/CloudEvent.ts"
import type { Delivery } from "../../src/event/Envelope.ts"
import * as Event from "../../src/event/Event.ts"
import * as Json from "../../src/event/Json.ts"
import type * as KsiError from "../../src/event/KsiError.ts"
import * as Projection from "../../src/store/Projection.ts"

const stored = (name: string, data: unknown, position = 1): StoredFact => ({
  id: `id-${position}`, source: "/test", name, streamId: "stock-tea", data, time: undefined, attributes: { correlationid: "root" },
  position, version: position, timestamp: 1_000, recordedAt: 1_000
})

const Reserved = Event.fact("stock:reserved", {
  payload: { sku: Schema.String, quantity: Schema.Int },
  streamId: ({ sku }) => `stock-${sku}`
})
const Expires = Event.fact("stock:expires", {
  payload: { sku: Schema.String, at: Schema.Date },
  streamId: ({ sku }) => `stock-${sku}`
})

const Level = Projection.make("stock-level", {
  events: [Reserved, Expires],
  state: Schema.Struct({ held: Schema.Int, expires: Schema.NullOr(Schema.Date) }),
  initial: { held: 0, expires: null },
  on: {
    [Reserved.name]: (state, { quantity }) => ({ ...state, held: state.held + quantity }),
    [Expires.name]: (state, { at }) => ({ ...state, expires: at })
  }
})

const folded = <S>(projection: Projection.Projection<S>, facts: ReadonlyArray<StoredFact>) =>
  facts.reduce(
    (state, fact) => Result.flatMap(state, (s) => projection.apply(s, fact)),
    Result.succeed(projection.initial) as ReturnType<Projection.Projection<S>["apply"]>
  )

describe("Projection.make", () => {
  it("folds facts with the reducer of their name, leaves others out", () => {
    const facts = [
      stored("stock:reserved", { sku: "tea", quantity: 2 }),
      stored("stock:other", { sku: "tea", quantity: 100 }, 2),
      stored("stock:reserved", { sku: "tea", quantity: 3 }, 3)
    ]
    expect(folded(Level, facts)).toEqual(Result.succeed({ held: 5, expires: null }))
    expect(["stock:reserved", "stock:expires", "stock:other"].map(Level.handles)).toEqual([true, true, false])
  })

  it("reducers see decoded payloads; the state is written as JSON", () => {
    const state = Result.getOrThrow(folded(Level, [stored("stock:expires", { sku: "tea", at: "2020-01-01T00:00:00.000Z" })]))
    expect(state.expires).toEqual(new Date("2020-01-01T00:00:00Z"))
    expect(Level.encode(state)).toEqual({ held: 0, expires: "2020-01-01T00:00:00.000Z" })
  })

  it("reducers see the envelope with position and version", () => {
    const seen: Array<Delivery<{ readonly sku: string }>> = []
    const Log = Projection.make("log", {
      events: [Reserved],
      state: Schema.Int,
      initial: 0,
      on: {
        [Reserved.name]: (state, _payload, envelope) => {
          seen.push(envelope)
          return state + 1
        }
      }
    })
    folded(Log, [stored("stock:reserved", { sku: "tea", quantity: 2 }, 7)])
    expect(seen[0]).toMatchObject({
      id: "id-7", name: "stock:reserved", position: 7n, version: 7, data: { sku: "tea", quantity: 2 },
      metadata: { correlationId: "root", streamId: "stock-tea" }
    })
  })

  it("a fact that no longer fits its event stops the fold and says where and why", () => {
    const error = Result.flip(folded(Level, [
      stored("stock:reserved", { sku: "tea", quantity: 2 }),
      stored("stock:reserved", { sku: "tea", quantity: "two" }, 41),
      stored("stock:reserved", { sku: "tea", quantity: 3 }, 42)
    ]))
    expect(Result.getOrThrow(error).reason._tag).toBe("StoreFailure")
    expect(Result.getOrThrow(error).message).toBe(
      "the store failed to fold the projection \"stock-level\": the fact \"id-41\" at position 41 is no stock:reserved any " +
        "more: quantity: expected number, got \"two\""
    )
  })

  it("a fact without data is told as such", () => {
    const error = Result.getOrThrow(Result.flip(folded(Level, [stored("stock:reserved", undefined, 3)])))
    expect(error.message).toContain("at position 3 is no stock:reserved any more")
  })

  it("a reducer that throws is an error that names the projection, the fact and why; trying again helps nobody", () => {
    const Fragile = Projection.make("fragile", {
      events: [Reserved], state: Schema.Int, initial: 0,
      on: { [Reserved.name]: () => {
        throw new Error("no such shelf")
      } }
    })
    const error = Result.getOrThrow(Result.flip(Projection.step(Fragile, 0, stored("stock:reserved", { sku: "tea", quantity: 1 }, 41))))
    expect([error.message, error.retryable, error.reason.next]).toEqual([
      "the store failed to fold the projection \"fragile\": its code throws at the fact \"id-41\" (stock:reserved) at position 41: no such shelf",
      false, "ksi export --from 41 --to 41"
    ])
  })

  it("a missing reducer is refused when the types were evaded", () => {
    expect(() =>
      Projection.make("broken", {
        events: [Reserved], state: Schema.Int, initial: 0,
        // @ts-expect-error: each event needs its reducer
        on: {}
      })
    ).toThrow("the projection \"broken\" has no reducer for stock:reserved")
  })
})

describe("what does not compile", () => {
  it("a reducer with another state, a schema with services, a request", () => {
    class Rates extends Schema.Class<Rates>("Rates")({ euro: Schema.Number }) {}
    const Reserve = Event.make("stock:reserve", { payload: { sku: Schema.String } })
    const needy: Schema.Codec<number, number, "Database"> = Schema.Int
    const options = { events: [Reserved], state: Schema.Struct({ held: Schema.Int }), initial: { held: 0 } } as const
    const programs = [
      // @ts-expect-error: the state of another type
      () => Projection.make("a", { ...options, on: { [Reserved.name]: () => ({ held: "1" }) } }),
      // @ts-expect-error: initial of another type
      () => Projection.make("b", { ...options, initial: { held: "0" }, on: { [Reserved.name]: (state) => state } }),
      // @ts-expect-error: a request changes no state
      () => Projection.make("c", { ...options, events: [Reserve], on: { [Reserve.name]: (state) => state } }),
      // @ts-expect-error: no such field in the payload
      () => Projection.make("d", { ...options, on: { [Reserved.name]: (state, { colour }) => colour ?? state } }),
      // @ts-expect-error: a state that can only be read with a service
      () => Projection.make("e", { ...options, state: needy, initial: 0, on: { [Reserved.name]: () => 1 } })
    ]
    expect(programs).toHaveLength(5)
    const classes = Projection.make("rates", {
      events: [Reserved], state: Rates, initial: new Rates({ euro: 1 }),
      on: { [Reserved.name]: ({ euro }, { quantity }) => new Rates({ euro: euro + quantity }) }
    })
    expect(classes.encode(Result.getOrThrow(folded(classes, [stored("stock:reserved", { sku: "tea", quantity: 2 })]))))
      .toEqual({ euro: 3 })
  })
})

describe("Projection.latest", () => {
  const latest = (...data: ReadonlyArray<unknown>) =>
    Result.getOrThrow(folded(Projection.latest, data.map((item, index) => stored("any:name", item, index + 1))))

  it("merges shallowly, null overwrites, absent data changes nothing", () => {
    expect(latest({ a: 1, b: { c: 1 } }, { b: { d: 2 } }, undefined, { a: null })).toEqual({ a: null, b: { d: 2 } })
  })

  it("data that is not an object is a value", () => {
    expect(latest({ a: 1 }, 7)).toEqual({ a: 1, value: 7 })
    expect(latest({ a: 1 }, null)).toEqual({ a: 1, value: null })
    expect(latest([1, 2])).toEqual({ value: [1, 2] })
    expect(latest(Json.parse("12345678901234567890"))).toEqual({ value: Json.parse("12345678901234567890") })
    expect(latest("x", false)).toEqual({ value: false })
  })

  it("is not fooled by the names of an object's own machinery", () => {
    const text = `{"__proto__":{"admin":true},"constructor":1,"toString":2}`
    const state = latest(JSON.parse(text), { a: 1 }, JSON.parse(`{"__proto__":{"admin":false}}`))
    expect(Object.getPrototypeOf(state)).toBe(Object.prototype)
    expect("admin" in state).toBe(false)
    expect(JSON.stringify(state)).toBe(`{"__proto__":{"admin":false},"constructor":1,"toString":2,"a":1}`)
  })

  it("leaves the states before alone", () => {
    const before = latest({ a: 1 })
    Projection.latest.apply(before, stored("any:name", { a: 2 }))
    expect(before).toEqual({ a: 1 })
    expect(Projection.latest.initial).toEqual({})
  })

  const entry = Schema.Tuple([Schema.Literals(["a", "b", "c", "value", "__proto__"]), Schema.Json])
  it.effect.prop("is what merging key by key gives", [Schema.Array(Schema.Array(entry))], ([documents]) =>
    Effect.sync(() => {
      const merged = latest(...documents.map((entries) => Object.fromEntries(entries)))
      expect(new Map(Object.entries(merged))).toEqual(new Map(documents.flat()))
    }))
})

describe("Projection.serve", () => {
  const named = (name: string) =>
    Projection.make(name, {
      events: [Reserved], state: Schema.Int, initial: 0, on: { [Reserved.name]: (held, { quantity }) => held + quantity }
    })
  const get = (name: string) => Effect.flatMap(Projection.Projections, (projections) => projections.get(name))
  const reason = <A, R>(effect: Effect.Effect<A, KsiError.KsiError, R>) => Effect.map(Effect.flip(effect), (error) => error.reason)

  it.effect("is known by its name for as long as its layer lives", () =>
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Layer.build(Projection.serve(named("level")))
        const found = yield* get("level")
        const fact = stored("stock:reserved", { sku: "tea", quantity: 3 })
        const state = found.use((projection) => projection.encode(Result.getOrThrow(projection.apply(projection.initial, fact))))
        expect([found.name, state]).toEqual(["level", 3])
      }))
      expect(yield* reason(get("level"))).toMatchObject({ _tag: "NotFound", what: "projection", id: "level" })
      yield* Layer.build(Projection.serve(named("level")))
      expect((yield* get("level")).name).toBe("level")
      expect(yield* reason(get("lvel"))).toMatchObject({ _tag: "NotFound", similar: ["level"] })
    }).pipe(Effect.provide(Projection.Projections.layer)))

  it.effect("a name that is taken is refused, and whoever has it keeps it; latest always is", () =>
    Effect.gen(function*() {
      yield* Layer.build(Projection.serve(named("level")))
      const first = yield* get("level")
      for (const name of ["level", "latest"]) {
        expect(yield* reason(Effect.scoped(Layer.build(Projection.serve(named(name)))))).toMatchObject({ _tag: "PluginInvalid" })
      }
      expect(yield* get("level")).toBe(first)
      expect((yield* get("latest")).use((projection) => projection.initial)).toEqual({})
    }).pipe(Effect.provide(Projection.Projections.layer)))

  it.effect("every runtime has its own", () =>
    Effect.gen(function*() {
      yield* Layer.build(Projection.serve(named("level"))).pipe(Effect.provide(Layer.fresh(Projection.Projections.layer)))
      expect(yield* reason(get("level"))).toMatchObject({ _tag: "NotFound" })
    }).pipe(Effect.provide(Projection.Projections.layer)))
})

describe("facts of older versions", () => {
  const Paid = Event.fact("order:paid", {
    payload: { cents: Schema.Int },
    streamId: () => "order",
    version: 2,
    upcast: { 1: ({ price }: { price: number }) => ({ cents: price * 100 }) },
    formerly: ["order:payed", "bill:settled"]
  })
  const names: Array<string> = []
  const Total = Projection.make("total", {
    events: [Paid],
    state: Schema.Int,
    initial: 0,
    on: {
      [Paid.name]: (state, { cents }, { name }) => {
        names.push(name)
        return state + cents
      }
    }
  })
  const old = (name: string, data: unknown, dataversion?: unknown) => ({
    ...stored(name, data, 3), attributes: dataversion === undefined ? {} : { dataversion }
  })

  it("are folded as they would be written today, also under the names that they had", () => {
    const facts = [old("order:payed", { price: 1 }), old("bill:settled", { price: 2 }, 1), old("order:paid", { cents: 5 }, 2)]
    expect(folded(Total, facts)).toEqual(Result.succeed(305))
    expect(names).toEqual(["order:paid", "order:paid", "order:paid"])
    expect(["order:payed", "order:other"].map(Total.handles)).toEqual([true, false])
  })

  it("one that is newer stops the fold, and says where and why", () => {
    const failure = Result.getOrThrow(Result.flip(folded(Total, [old("order:paid", { cents: 5 }, 3)])))
    expect(failure.reason).toMatchObject({
      _tag: "StoreFailure", operation: "fold the projection \"total\"",
      problem: "the fact \"id-3\" at position 3 has data of version 3, and this program knows order:paid up to version 2"
    })
  })

  it("two events for facts of one name are an error where the projection is defined", () => {
    const Payed = Event.fact("order:payed", { payload: {}, streamId: () => "order" })
    expect(() => Projection.make("both", {
      events: [Paid, Payed], state: Schema.Int, initial: 0, on: { [Paid.name]: (n) => n, [Payed.name]: (n) => n }
    })).toThrow("two events for facts called order:payed")
  })
})
