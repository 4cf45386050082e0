import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Schema, type Scope } from "effect"
import { DeadLetters, type NewLetter } from "../../src/bus/DeadLetters.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import { Router, serve } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import type * as Limits from "../../src/event/Limits.ts"
import * as DeadLetter from "../../src/plugins/DeadLetter.ts"
import { ask, pagesOf, reasonOf, type Runtime, withRuntime } from "./Builtins.ts"

const test = <E>(
  name: string,
  program: Effect.Effect<void, E, Runtime | Scope.Scope>,
  limits?: Partial<Limits.LimitsShape>
) => it.effect(name, () => withRuntime(program, limits))

type Facts = NewLetter["event"]
const record = Effect.fnUntraced(function*(id: string, event: Partial<Facts> = {}, more: Partial<NewLetter> = {}) {
  const dead = yield* DeadLetters
  dead.record({
    handler: "order:placed#1", reason: "failed", error: "no paper", timestamp: 1500,
    event: { id, name: "order:placed", data: { total: 5 }, streamId: "order-1", position: 7, attributes: { depth: 1 }, ...event },
    ...more
  })
})

const outline = (letter: number, id: string) => ({
  letter, event: "order:placed", event_id: id, stream_id: "order-1", position: 7, handler: "order:placed#1",
  reason: "failed", error: "no paper", reruns: 0, timestamp: 1.5
})

describe("deadletter:list", () => {
  test("newest first, with all of a letter but its data", Effect.gen(function*() {
    yield* record("a")
    yield* record("b", { streamId: undefined, position: undefined })
    const { position: _, stream_id: __, ...bare } = outline(2, "b")
    expect(yield* ask("deadletter:list")).toEqual({ items: [bare, outline(1, "a")], total: 2 })
  }))

  test("by pattern, by several, by one that is none", Effect.gen(function*() {
    for (const name of ["order:placed", "order:paid", "stock:level:set"]) yield* record(name, { name })
    const ids = Effect.fnUntraced(function*(pattern: unknown) {
      const { items, total } = yield* ask("deadletter:list", { pattern })
      return [total, ...(items as ReadonlyArray<{ readonly event_id: string }>).map(({ event_id }) => event_id)]
    })
    expect(yield* ids("order:*")).toEqual([2, "order:paid", "order:placed"])
    expect(yield* ids(["stock:*", "order:paid"])).toEqual([2, "stock:level:set", "order:paid"])
    expect(yield* ids([])).toEqual([0])
    expect(yield* reasonOf(ask("deadletter:list", { pattern: "st*ck" }))).toMatchObject({ _tag: "PatternInvalid" })
    expect(yield* reasonOf(ask("deadletter:list", { limit: 0 }))).toMatchObject({ _tag: "PayloadInvalid" })
  }))

  test("pages hold what there was and what is left, while letters come and go", Effect.gen(function*() {
    for (let n = 1; n <= 10; n++) yield* record(`${n}`)
    let round = 0
    const between = Effect.gen(function*() {
      yield* record(`new ${++round}`)
      if (round === 1) yield* ask("deadletter:discard", { letters: [10, 5] })
    })
    const { items, pages } = yield* pagesOf("deadletter:list", { pattern: "order:*", limit: 4 }, between)
    expect(items.map(({ event_id }) => event_id)).toEqual(["10", "9", "8", "7", "6", "4", "3", "2", "1"])
    expect(pages).toBe(3)
    const { cursor } = yield* ask("deadletter:list", { pattern: "order:*", limit: 4 })
    const other = yield* reasonOf(ask("deadletter:list", { pattern: "order:paid", cursor }))
    expect(other).toMatchObject({ _tag: "PayloadInvalid", problems: [{ path: "cursor" }] })
  }))

  test("a page has bounded bytes, also where the data that are not shown are large", Effect.gen(function*() {
    for (let n = 1; n <= 100; n++) yield* record(`${n}`, { data: "x".repeat(2000) })
    const { items, pages, sizes } = yield* pagesOf("deadletter:list", {})
    expect(items.map(({ event_id }) => Number(event_id))).toEqual(Array.from({ length: 100 }, (_, i) => 100 - i))
    expect(Math.max(...sizes)).toBeLessThan(4096)
    expect(pages).toBeGreaterThan(5)
  }), { pageBytes: 4096 })
})

describe("deadletter:show", () => {
  test("is all of it; NotFound where there is none", Effect.gen(function*() {
    yield* record("a")
    expect(yield* ask("deadletter:show", { letter: 1 })).toEqual({ ...outline(1, "a"), data: { total: 5 }, attributes: { depth: 1 } })
    const gone = { _tag: "NotFound", what: "dead letter", id: "2" }
    expect(yield* reasonOf(ask("deadletter:show", { letter: 2 }))).toMatchObject(gone)
    expect(yield* reasonOf(ask("deadletter:rerun", { letter: 2 }))).toMatchObject(gone)
    expect(yield* reasonOf(ask("deadletter:show", { letter: 0 }))).toMatchObject({ _tag: "PayloadInvalid" })
  }))
})

describe("deadletter:discard", () => {
  test("says how many of them there were", Effect.gen(function*() {
    for (const id of ["a", "b", "c"]) yield* record(id)
    expect(yield* ask("deadletter:discard", { letters: [1, 3, 99] })).toEqual({ discarded: 2 })
    expect(yield* ask("deadletter:discard", { letters: [1] })).toEqual({ discarded: 0 })
    expect((yield* ask("deadletter:list"))["total"]).toBe(1)
    expect(yield* reasonOf(ask("deadletter:discard", { letters: [] }))).toMatchObject({ _tag: "PayloadInvalid" })
  }))
})

const Placed = Event.fact("order:placed", { payload: { total: Schema.Int }, streamId: () => "order-1" })
const Orders = EventGroup.make(Placed)

/** A printer that has no paper until it is given some, beside a handler that always works. */
const orders = (hear: (what: string) => Effect.Effect<void, string>) =>
  serve(Orders).pipe(Layer.provide(Orders.toLayer({
    "order:placed": ({ total }, envelope) => hear(`${total} ${envelope.metadata.causationId ?? "first"}`)
  })))

describe("deadletter:rerun", () => {
  test("a fact's handler that failed is rerun until it works; then the letter is gone", Effect.gen(function*() {
    const ksi = yield* KsiService
    const router = yield* Router
    const heard: Array<string> = []
    let paper = false
    yield* Layer.build(orders((what) => {
      heard.push(what)
      return paper ? Effect.void : Effect.fail("no paper")
    }))
    const { id } = yield* ksi.emit(Placed, { total: 5 })
    yield* router.settled
    const { items: [letter], total } = yield* ksi.call(DeadLetter.List, {})
    expect([total, letter]).toMatchObject([1, { letter: 1, event: "order:placed", event_id: id, reason: "failed", position: 1, reruns: 0 }])

    const failed = { _tag: "HandlerFailed", event: "order:placed" }
    expect(yield* reasonOf(ask("deadletter:rerun", { letter: 1 }))).toMatchObject(failed)
    expect(yield* reasonOf(ask("deadletter:rerun", { letter: 1 }))).toMatchObject(failed)
    expect(yield* ask("deadletter:show", { letter: 1 })).toMatchObject({ reruns: 2, event_id: id, data: { total: 5 } })

    paper = true
    expect(yield* ask("deadletter:rerun", { letter: 1 })).toEqual({ letter: 1, handled: true })
    // A rerun is caused by the event, and leaves no letters of its own.
    expect(heard).toEqual(["5 first", `5 ${id}`, `5 ${id}`, `5 ${id}`])
    expect((yield* ask("deadletter:list"))["total"]).toBe(0)
  }))

  test("a handler that is not there any more: the letter waits", Effect.gen(function*() {
    yield* record("a", {}, { handler: "order:placed#9" })
    expect(yield* reasonOf(ask("deadletter:rerun", { letter: 1 }))).toMatchObject({ _tag: "UnknownEvent" })
    yield* Layer.build(orders(() => Effect.void))
    expect(yield* reasonOf(ask("deadletter:rerun", { letter: 1 }))).toMatchObject({ _tag: "NotFound", what: "handler" })
    expect(yield* ask("deadletter:show", { letter: 1 })).toMatchObject({ reruns: 0, error: "no paper" })
  }))

  test("two at once run the handler once; an interrupted one keeps the letter as it was", Effect.gen(function*() {
    const router = yield* Router
    const ksi = yield* KsiService
    const gate = yield* Deferred.make<void>()
    let runs = 0
    yield* Layer.build(orders(() => ++runs === 1 ? Effect.fail("no paper") : Deferred.await(gate)))
    yield* ksi.emit(Placed, { total: 5 })
    yield* router.settled
    const rerun = Effect.forkChild(Effect.exit(ask("deadletter:rerun", { letter: 1 })), { startImmediately: true })
    yield* Fiber.interrupt(yield* rerun)
    expect(runs).toBe(2)
    expect(yield* ask("deadletter:show", { letter: 1 })).toMatchObject({ reruns: 0 })
    const [first, second] = [yield* rerun, yield* rerun]
    yield* Deferred.succeed(gate, undefined)
    expect(yield* Fiber.join(first)).toMatchObject({ _tag: "Success", value: { handled: true } })
    expect(yield* Fiber.join(second)).toMatchObject({ _tag: "Failure" })
    expect(runs).toBe(3)
  }))
})
