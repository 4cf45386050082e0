// Read models, in memory and in a real SQLite file: always what a full replay gives, whatever happens between.
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Layer, Option, Result, Schema, Scope } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Event from "../../src/event/Event.ts"
import * as Json from "../../src/event/Json.ts"
import type { KsiError } from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Projection from "../../src/store/Projection.ts"
import * as ReadModel from "../../src/store/ReadModel.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-read-models-"))
afterAll(() => Fs.rmSync(folder, { recursive: true }))
let files = 0
const fresh = () => Path.join(folder, `${++files}.db`)

const Placed = Event.fact("order:placed", {
  payload: { order: Schema.String, customers: Schema.Array(Schema.String), total: Schema.Int },
  streamId: ({ order }) => order
})
type Total = { readonly sum: number; readonly orders: number }
const totals = (factor = 1, add = (state: Total, total: number): Total => ({ sum: state.sum + factor * total, orders: state.orders + 1 })) =>
  Projection.make("totals", {
    events: [Placed],
    state: Schema.Struct({ sum: Schema.Int, orders: Schema.Int }),
    initial: { sum: 0, orders: 0 },
    version: factor,
    key: ({ customers }) => customers,
    on: { [Placed.name]: (state, { total }) => add(state, total) }
  })
const Totals = totals()

interface Order {
  readonly order: string
  readonly customers: ReadonlyArray<string>
  readonly total: number
}
const place = Effect.fnUntraced(function*(...orders: ReadonlyArray<Order>) {
  const store = yield* EventStore
  for (const data of orders) yield* store.appendTo(data.order, [{ name: Placed.name, data }])
})
const order = (total: number, ...customers: ReadonlyArray<string>): Order => ({ order: `order-${total % 5}`, customers, total })
/** What a full replay gives. */
const replayed = Effect.fnUntraced(function*<S>(projection: Projection.Projection<S>) {
  const store = yield* EventStore
  const states = new Map<string, S>()
  for (const fact of yield* store.read({ from: 1, limit: 100_000 })) {
    // A key that is said twice counts once.
    for (const key of new Set(Result.getOrThrow(projection.keys?.(fact) ?? Result.succeed([fact.streamId])))) {
      states.set(key, Result.getOrThrow(projection.apply(states.get(key) ?? projection.initial, fact)))
    }
  }
  return [...states].toSorted(([a], [b]) => a < b ? -1 : 1)
})
const kept = Effect.fnUntraced(function*<S>(projection: Projection.Projection<S>) {
  yield* ReadModel.waitFor(projection, (yield* EventStore).head())
  const states: Array<readonly [string, S]> = []
  let after: string | undefined
  for (;;) {
    const page = yield* ReadModel.list(projection, { after, limit: 3 })
    if (page.length === 0) return states
    states.push(...page.map(({ key, state }) => [key, state] as const))
    after = page.at(-1)?.key
  }
})
const sumOf = (key: string) => Effect.map(ReadModel.get(Totals, key), (entry) => Option.getOrUndefined(entry)?.state.sum)
const statusOf = (name = "totals") =>
  Effect.flatMap(ReadModel.ReadModels, ({ status }) => Effect.map(status, (all) => all.find((one) => one.name === name)))
const reason = <A, R>(effect: Effect.Effect<A, KsiError, R>) => Effect.map(Effect.flip(effect), (error) => error.reason)
/** Keeps a model until the effect has ended. */
const keeping = <S>(projection: Projection.Projection<S>) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.andThen(Layer.build(ReadModel.layer(projection)), effect))

const bounded = (pageItems: number) => Layer.succeed(Limits.Limits, { ...Limits.defaults, pageItems })
const kinds: ReadonlyArray<readonly [name: string, layer: (filename?: string) => Layer.Layer<Runtime, KsiError>]> = [
  ["in memory", () => Layer.fresh(Ksi.layerMemory)],
  ["in a file", (filename = fresh()) => Layer.fresh(Ksi.layerSqlite({ filename, sync: "normal" }))]
]

const Plan = Schema.Array(Schema.Struct({
  orders: Schema.Array(Schema.Struct({
    order: Schema.Literals(["o1", "o2", "o3"]),
    customers: Schema.Array(Schema.Literals(["ann", "bob", "eve", "\ud83d\ude00", "\uff5e"])),
    total: Schema.Int
  })),
  restart: Schema.Boolean,
  wait: Schema.Boolean
}))

for (const [name, make] of kinds) {
  describe(name, () => {
    it.effect.prop("is what a full replay gives, in any batches, with restarts", [Plan, Schema.Literals([1, 2, 7, 1000])], ([plan, pageItems]) =>
      Effect.gen(function*() {
        let scope = yield* Scope.make()
        const start = Effect.suspend(() => Layer.buildWithScope(ReadModel.layer(Totals), scope))
        yield* start
        for (const { orders, restart, wait } of plan) {
          yield* place(...orders)
          if (wait) yield* ReadModel.waitFor(Totals, (yield* EventStore).head())
          if (!restart) continue
          yield* Scope.close(scope, Exit.void)
          scope = yield* Scope.make()
          yield* start
        }
        expect(yield* kept(Totals)).toEqual(yield* replayed(Totals))
        yield* Scope.close(scope, Exit.void)
      }).pipe(Effect.provide(make()), Effect.provide(bounded(pageItems))), { arbitrary: { runs: name === "in memory" ? 60 : 15 } })

    it.effect("a stream is the key by default; KSI's own streams are left out", () =>
      Effect.gen(function*() {
        const Latest = Projection.latest
        yield* Layer.build(ReadModel.layer(Latest))
        yield* place(order(1, "ann"), order(2, "bob"), order(6, "eve"))
        yield* (yield* EventStore).driver.append({ facts: [{ id: "x", source: "/ksi", name: "a:b", streamId: "ksi-own", data: {}, time: undefined, attributes: {} }] })
        expect((yield* kept(Latest)).map(([key, state]) => [key, state["total"]])).toEqual([["order-1", 6], ["order-2", 2]])
        expect(yield* ReadModel.list(Latest, { prefix: "order-2" })).toMatchObject([{ key: "order-2", position: 2 }])
        expect(yield* ReadModel.list(Latest, { prefix: "order-2", after: "order-1" })).toHaveLength(1)
        expect(yield* ReadModel.list(Latest, { prefix: "order-1", after: "order-2" })).toEqual([])
      }).pipe(Effect.scoped, Effect.provide(make())))

    it.effect("a fact that cannot be folded stops the model where it is, says so, and is not skipped", () =>
      Effect.gen(function*() {
        const Strict = totals(1, (state, total) => {
          if (total === 3) throw new RangeError("three is too many")
          return { sum: state.sum + total, orders: state.orders + 1 }
        })
        yield* place(order(1, "ann"), order(2, "ann"), order(3, "bob", "ann"), order(4, "ann"))
        yield* Effect.gen(function*() {
          expect(yield* reason(ReadModel.waitFor(Strict, 4))).toMatchObject({ _tag: "StoreFailure", problem: expect.stringContaining("position 3: three is too many") })
          yield* ReadModel.waitFor(Strict, 2)
          expect(yield* statusOf()).toMatchObject({ status: "failed", position: 2, lag: 2, failure: { position: 3 } })
          expect((yield* ReadModel.ReadModels).failures()).toMatchObject([{ name: "totals", position: 3 }])
          expect([yield* sumOf("ann"), yield* sumOf("bob")]).toEqual([3, undefined])
        }).pipe(keeping(Strict))
        expect(yield* statusOf()).toMatchObject({ status: "idle", position: 2 })
        // Mended code is other code: it begins anew, and gets past it.
        expect(yield* kept(Totals).pipe(keeping(Totals))).toEqual(yield* replayed(Totals))
      }).pipe(Effect.provide(make())))

    it.effect("a state that cannot be written is found among the others of its batch", () =>
      Effect.gen(function*() {
        const Wrong = totals(1, (state, total) => total === 3 ? { sum: 0.5, orders: 0 } : { ...state, sum: state.sum + total })
        yield* place(order(1, "ann"), order(2, "bob"), order(3, "eve"), order(4, "ann"))
        yield* Effect.gen(function*() {
          expect(yield* reason(ReadModel.waitFor(Wrong, 4))).toMatchObject({ problem: expect.stringContaining("position 3") })
          expect(yield* sumOf("ann")).toBe(1)
        }).pipe(keeping(Wrong))
      }).pipe(Effect.provide(make())))

    it.effect("numbers that no double holds stay as they are, also when they are read back", () =>
      Effect.gen(function*() {
        const store = yield* EventStore
        yield* store.appendTo("a", [{ name: "n:noted", data: Json.parse("{\"n\":12345678901234567890}") }])
        yield* keeping(Projection.latest)(kept(Projection.latest))
        // A keeper that begins anew folds on over what was kept.
        yield* store.appendTo("a", [{ name: "n:noted", data: { m: 1 } }])
        const [one] = yield* keeping(Projection.latest)(kept(Projection.latest))
        expect(JSON.stringify(one)).toBe("[\"a\",{\"n\":12345678901234567890,\"m\":1}]")
      }).pipe(Effect.provide(make())))

    it.effect("a reducer that makes nothing of a state stops the model: its key is not taken for a deleted one", () =>
      Effect.gen(function*() {
        const Forgetful = Projection.make("forgetful", {
          events: [Placed], state: Schema.Any, initial: null, on: { [Placed.name]: (_, { total }) => total === 2 ? undefined : total }
        })
        yield* place({ ...order(1), order: "o1" }, { ...order(2), order: "o1" })
        yield* Effect.gen(function*() {
          expect(yield* reason(ReadModel.waitFor(Forgetful, 2))).toMatchObject({
            _tag: "StoreFailure", problem: "it stopped at position 2: the state that it makes is none: the type undefined is not JSON's"
          })
          expect(Option.getOrUndefined(yield* ReadModel.get(Forgetful, "o1"))).toMatchObject({ state: 1, position: 1 })
        }).pipe(keeping(Forgetful))
      }).pipe(Effect.provide(make())))

    it.effect("changed code: the old version answers until the new one has caught up, and takes over whole", () =>
      Effect.gen(function*() {
        const store = yield* EventStore
        const models = yield* ReadModel.ReadModels
        for (let n = 1; n <= 60; n++) yield* place(order(n, "ann", `c${n % 7}`))
        const before = yield* kept(Totals).pipe(keeping(Totals))
        const Double = totals(2)
        const seen = new Set<string>()
        yield* Effect.gen(function*() {
          // Every turn of the build is looked at, and closed in the middle once.
          for (let turns = 0; turns < 10_000; turns++) {
            const states = (yield* models.list("totals", { limit: 4 })).map(({ key, state }) => [key, state])
            seen.add(JSON.stringify(states))
            const status = yield* statusOf()
            if (status?.status === "following" && status.rebuilt === undefined) break
            yield* Effect.yieldNow
          }
        }).pipe(keeping(Double))
        const after = yield* replayed(Double)
        expect([...seen]).toEqual([JSON.stringify(before.slice(0, 4)), JSON.stringify(after.slice(0, 4))])
        expect(store.head()).toBe(60)
      }).pipe(Effect.provide(make()), Effect.provide(bounded(4))))

    it.effect("a rebuild that is cut off goes on at its checkpoint", () =>
      Effect.gen(function*() {
        let folded = 0
        const counting = totals(2, (state, total) => {
          folded++
          return { sum: state.sum + 2 * total, orders: state.orders + 1 }
        })
        for (let n = 1; n <= 60; n++) yield* place(order(n, "ann"))
        yield* kept(Totals).pipe(keeping(Totals))
        yield* Effect.gen(function*() {
          while (((yield* statusOf())?.rebuilt ?? 0) < 20) yield* Effect.yieldNow
        }).pipe(keeping(counting))
        const { position, rebuilt = 0 } = (yield* statusOf()) ?? {}
        expect(position).toBe(60)
        expect(rebuilt).toBeGreaterThanOrEqual(20)
        expect(rebuilt).toBeLessThan(60)
        yield* Effect.gen(function*() {
          while ((yield* statusOf())?.rebuilt !== undefined) yield* Effect.yieldNow
          expect(yield* kept(counting)).toEqual([["ann", { sum: 2 * 1830, orders: 60 }]])
        }).pipe(keeping(counting))
        // Nothing that was written was folded again.
        expect(folded).toBeLessThanOrEqual(60 + 4)
      }).pipe(Effect.provide(make()), Effect.provide(bounded(4))))

    it.effect("a rebuild on request: the version that is asked goes on following meanwhile", () =>
      Effect.gen(function*() {
        for (let n = 1; n <= 40; n++) yield* place(order(n, "ann"))
        yield* kept(Totals)
        yield* ReadModel.rebuild(Totals)
        for (let n = 41; n <= 50; n++) {
          yield* place(order(n, "ann"))
          expect(yield* kept(Totals)).toEqual(yield* replayed(Totals))
        }
        while ((yield* statusOf())?.status !== "following") yield* Effect.yieldNow
        expect(yield* kept(Totals)).toEqual(yield* replayed(Totals))
        // Twice at once: the second begins anew.
        yield* Effect.all([ReadModel.rebuild(Totals), ReadModel.rebuild(Totals)])
        while ((yield* statusOf())?.status !== "following") yield* Effect.yieldNow
        expect(yield* kept(Totals)).toEqual(yield* replayed(Totals))
      }).pipe(keeping(Totals), Effect.provide(make()), Effect.provide(bounded(4))))

    it.effect("one name, one keeper; an unknown name is said with its neighbours", () =>
      Effect.gen(function*() {
        expect(yield* reason(Effect.scoped(Layer.build(ReadModel.layer(totals(2)))))).toMatchObject({ _tag: "PluginInvalid" })
        const models = yield* ReadModel.ReadModels
        expect(yield* reason(models.get("total", "ann"))).toMatchObject({ _tag: "NotFound", similar: ["totals"] })
        expect(yield* reason(models.rebuild("total"))).toMatchObject({ _tag: "NotFound", what: "read model" })
        expect(yield* sumOf("nobody")).toBe(undefined)
      }).pipe(keeping(Totals), Effect.provide(make())))
  })
}

describe("in a file", () => {
  it.effect("is there when the file is opened again, and what a dropped version has left is deleted", () =>
    Effect.gen(function*() {
      const filename = fresh()
      const layer = () => Layer.fresh(Ksi.layerSqlite({ filename, sync: "normal" }))
      yield* place(...Array.from({ length: 30 }, (_, n) => order(n, `c${n}`))).pipe(Effect.andThen(kept(Totals)), keeping(Totals), Effect.provide(layer()))
      yield* sumOf("c7").pipe(Effect.tap((sum) => Effect.sync(() => expect(sum).toBe(7))), Effect.provide(layer()))
      const Double = totals(2)
      yield* Effect.gen(function*() {
        while ((yield* statusOf())?.rebuilt !== undefined) yield* Effect.yieldNow
        for (let n = 0; n < 20; n++) yield* Effect.yieldNow
      }).pipe(keeping(Double), Effect.provide(layer()))
      const { DatabaseSync } = yield* Effect.promise(() => import("node:sqlite"))
      const db = new DatabaseSync(filename, { readOnly: true })
      expect(db.prepare("SELECT count(*) AS n FROM read_model_states").get()?.["n"]).toBe(30)
      expect(db.prepare("SELECT count(*) AS n FROM read_models").get()?.["n"]).toBe(1)
      db.close()
    }))
})

describe("fingerprint", () => {
  it("is another for other reducers, another version, another start; the same for the same", () => {
    const fingerprint = (projection: typeof Totals) => Projection.formatOf(projection)?.fingerprint
    expect(fingerprint(totals())).toBe(fingerprint(totals()))
    expect(fingerprint(totals(2))).not.toBe(fingerprint(Totals))
    const decode = Projection.formatOf(Totals)?.decode
    expect(decode?.(Totals.encode({ sum: 1, orders: 2 }))).toEqual({ sum: 1, orders: 2 })
    expect(() => decode?.({ sum: "x" })).toThrow()
  })
})
