// Streams over a connection: what is sent, when, and how it ends.
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Layer } from "effect"
import * as Limits from "../../src/event/Limits.ts"
import * as Connection from "../../src/wire/Connection.ts"
import { eventually } from "./Daemon.ts"
import { Driven } from "./Driven.ts"
import { makeMade, runtime } from "./Items.ts"

const open = Effect.fnUntraced(function*(limits: Partial<Limits.LimitsShape> = {}, finishing = true) {
  const made = makeMade(finishing)
  const within = { ...Limits.defaults, ...limits }
  const context = yield* Layer.build(runtime(made)).pipe(Effect.provideService(Limits.Limits, within))
  const transport = new Driven()
  yield* Connection.run(transport, { principal: "owner" }).pipe(
    Effect.provideContext(context), Effect.provideService(Limits.Limits, within), Effect.forkScoped({ startImmediately: true })
  )
  const frames = (id: string) => transport.frames.filter((frame) => frame["stream_id"] === id && frame["seq"] !== undefined)
  const ended = (id: string) => eventually(() => frames(id).at(-1)?.["stream_end"] === true)
  return { transport, made, frames, ended }
})

const ask = (event: string, stream_id: string, data: unknown = {}, more: object = {}) =>
  ({ event, stream: true, stream_id, data, correlation_id: stream_id, ...more })

describe("items", () => {
  it.live("come one a frame, numbered, and the last frame says that it is the last", () =>
    Effect.gen(function*() {
      const { ended, frames, transport } = yield* open()
      transport.send(ask("s:count", "a", { to: 3, chunk: 2 }))
      yield* ended("a")
      expect(frames("a")).toEqual([
        { event: "s:count", stream_id: "a", seq: 0, data: 1 },
        { event: "s:count", stream_id: "a", seq: 1, data: 2 },
        { event: "s:count", stream_id: "a", seq: 2, data: 3 },
        { event: "s:count", stream_id: "a", seq: 3, stream_end: true, ok: true, correlation_id: "a", timestamp: expect.any(Number) }
      ])
    }))

  it.live("that are made in one turn share a frame once the client has said that it knows such", () =>
    Effect.gen(function*() {
      const { ended, frames, transport } = yield* open()
      transport.send({ event: "wire:hello", version: 1 })
      yield* eventually(() => transport.frames.length === 1)
      transport.send(ask("s:count", "a", { to: 5, chunk: 2 }))
      yield* ended("a")
      expect(frames("a").map(({ data, items, seq, stream_end }) => [seq, items ?? data ?? stream_end])).toEqual([
        [0, [1, 2, 3, 4, 5]], [5, true]
      ])
      // What is let through later goes later.
      transport.send(ask("s:count", "b", { to: 5, chunk: 5 }, { credit: { items: 1 } }))
      yield* eventually(() => frames("b").length === 1)
      transport.send({ event: "stream:credit", stream_id: "b", items: 3 })
      yield* eventually(() => frames("b").length === 2)
      transport.send({ event: "stream:credit", stream_id: "b", items: 3 })
      yield* ended("b")
      expect(frames("b").map(({ data, items, seq, stream_end }) => [seq, items ?? data ?? stream_end])).toEqual([
        [0, 1], [1, [2, 3, 4]], [4, 5], [5, true]
      ])
    }))

  it.live("are JSON as their schema writes them", () =>
    Effect.gen(function*() {
      const { ended, frames, transport } = yield* open()
      transport.send(ask("s:dates", "a", { of: "2020-02-02T00:00:00.000Z" }))
      yield* ended("a")
      expect(frames("a").map(({ data }) => data)).toEqual(["2020-02-02T00:00:00.000Z", "2020-02-02T00:00:00.001Z", undefined])
    }))
})

describe("credit", () => {
  it.live("is what is sent, and no handler is asked for more", () =>
    Effect.gen(function*() {
      const { frames, made, transport } = yield* open()
      transport.send(ask("s:endless", "a", {}, { credit: { items: 3 } }))
      yield* eventually(() => frames("a").length === 3)
      yield* Effect.yieldNow
      expect([frames("a").length, made.pulled]).toEqual([3, 3])
      transport.send({ event: "stream:credit", stream_id: "a", items: 2, mark: 7 })
      yield* eventually(() => frames("a").length === 5)
      expect(frames("a").map(({ data, mark }) => [data, mark])).toEqual([
        ["item 1", undefined], ["item 2", undefined], ["item 3", undefined], ["item 4", 7], ["item 5", undefined]
      ])
      expect(made.pulled).toBe(5)
    }))

  it.live("in characters lets one frame go beyond it, and no more", () =>
    Effect.gen(function*() {
      const { frames, transport } = yield* open()
      const length = JSON.stringify({ event: "s:endless", stream_id: "a", seq: 0, data: "item 1" }).length
      transport.send(ask("s:endless", "a", {}, { credit: { bytes: length + 1 } }))
      yield* eventually(() => frames("a").length === 2)
      // One character short of nothing is left to owe: so this one is paid for, and the next frame may go.
      transport.send({ event: "stream:credit", stream_id: "a", bytes: length - 1 })
      yield* Effect.yieldNow
      expect(frames("a").length).toBe(2)
      transport.send({ event: "stream:credit", stream_id: "a", bytes: 1 })
      yield* eventually(() => frames("a").length === 3)
    }))

  it.live("of items of one chunk is kept: what is beyond it waits", () =>
    Effect.gen(function*() {
      const { ended, frames, transport } = yield* open()
      transport.send(ask("s:count", "a", { to: 10, chunk: 10 }, { credit: { items: 4 } }))
      yield* eventually(() => frames("a").length === 4)
      transport.send({ event: "stream:credit", stream_id: "a", items: 100 })
      yield* ended("a")
      expect(frames("a").slice(0, -1).map(({ data }) => data)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    }))

  it.live("of one stream holds up no other, and none is needed for its end", () =>
    Effect.gen(function*() {
      const { ended, frames, transport } = yield* open()
      transport.send(
        ask("s:count", "a", { to: 1, chunk: 1 }, { credit: { items: 1 } }),
        ask("s:endless", "b", {}, { credit: { items: 1 } }),
        ask("s:count", "c", { to: 1000, chunk: 7 })
      )
      yield* ended("c")
      yield* eventually(() => frames("b").length === 1)
      expect(frames("c").length).toBe(1001)
    }))

  it.live("that makes no sense is answered; for a stream that has just ended it is no error", () =>
    Effect.gen(function*() {
      const { transport } = yield* open()
      transport.send(
        { event: "stream:credit", stream_id: "gone", items: 1 },
        { event: "stream:credit", stream_id: "a", items: -1, correlation_id: 1 },
        { event: "stream:credit", stream_id: "a", items: 1, bytes: 0.5, correlation_id: 2 },
        { event: "stream:credit", stream_id: "a", items: 1, mark: "m", correlation_id: 3 },
        { event: "stream:credit", items: 1, correlation_id: 4 }
      )
      yield* eventually(() => transport.frames.length === 4)
      expect(transport.frames).toMatchObject([1, 2, 3, 4].map((correlation_id) => ({ ok: false, correlation_id, data: { reason: "PayloadInvalid" } })))
    }))
})

describe("the end", () => {
  it.live("says what went wrong, after all that went well", () =>
    Effect.gen(function*() {
      const { ended, frames, transport } = yield* open({ frameBytes: 1000 })
      const ways = ["fail", "die", "interrupt", "wrong", "unwritable", "long"] as const
      for (const how of ways) transport.send(ask("s:broken", how, { how }))
      for (const how of ways) yield* ended(how)
      expect(ways.map((how) => frames(how).slice(0, 2).map(({ data }) => data))).toEqual(ways.map(() => [1, 2]))
      expect(Object.fromEntries(ways.map((how) => [how, frames(how).slice(2)]))).toMatchObject({
        fail: [{ seq: 2, ok: false, error: { reason: "Refused", cause: "domain", error_data: { _tag: "Refused", why: "so" } } }],
        die: [{ error: { reason: "Defect", cause: "defect" } }],
        interrupt: [{ error: { reason: "Interrupted", cause: "interrupt", retryable: true } }],
        wrong: [{ error: { reason: "ReplyInvalid", cause: "ksi" } }],
        unwritable: [{ error: { reason: "ReplyInvalid", cause: "ksi" } }],
        long: [{ error: { reason: "LimitExceeded", details: { limit: "frameBytes", max: 1000 } } }]
      })
      expect(transport.writes.join("")).not.toContain("a secret")
    }))

  it.live("says what went wrong also where all came in one frame, and what went well stands before it", () =>
    Effect.gen(function*() {
      const { ended, frames, transport } = yield* open({ frameBytes: 1000 })
      transport.send({ event: "wire:hello", version: 1 })
      yield* eventually(() => transport.frames.length === 1)
      transport.send(ask("s:together", "a"))
      yield* ended("a")
      expect(frames("a")).toMatchObject([
        { seq: 0, items: ["one", "two"] }, { seq: 2, stream_end: true, ok: false, error: { reason: "LimitExceeded" } }
      ])
    }))

  it.live("comes at once where the stream cannot begin, and the connection stays usable", () =>
    Effect.gen(function*() {
      const { ended, frames, transport } = yield* open()
      transport.send(ask("s:count", "a", { to: "x" }), ask("s:nope", "b"), ask("s:once", "c"))
      for (const id of ["a", "b", "c"]) yield* ended(id)
      expect(["a", "b", "c"].map((id) => frames(id))).toMatchObject([
        [{ seq: 0, ok: false, error: { reason: "PayloadInvalid" } }],
        [{ seq: 0, ok: false, error: { reason: "UnknownEvent", status: "error" } }],
        [{ seq: 0, ok: false, error: { reason: "WrongShape" } }]
      ])
      transport.send({ event: "s:count", data: { to: 1, chunk: 1 }, correlation_id: 1 }, { event: "s:once", correlation_id: 2 })
      yield* eventually(() => transport.frames.some(({ correlation_id }) => correlation_id === 2))
      expect(transport.frames.filter(({ seq }) => seq === undefined)).toMatchObject([
        { correlation_id: 1, ok: false, data: { reason: "WrongShape" } }, { correlation_id: 2, ok: true }
      ])
    }))

  it.live("a line whose stream makes no sense is answered as such", () =>
    Effect.gen(function*() {
      const { transport } = yield* open()
      const bad = [{ stream: 1 }, { stream: true, stream_id: undefined }, { stream_id: "" }, { stream_id: "x".repeat(300) }, { credit: 1 }, { credit: { items: 0 } }, { credit: { bytes: 1.5 } }]
      bad.forEach((more, at) => transport.send({ ...ask("s:endless", "a"), correlation_id: at, ...more }))
      yield* eventually(() => transport.frames.length === bad.length)
      expect(transport.frames).toMatchObject(bad.map((_, correlation_id) => ({ ok: false, correlation_id, data: { reason: "FrameInvalid" } })))
    }))

  it.live("a name that is taken, and one stream too many, are refused; the others go on", () =>
    Effect.gen(function*() {
      const { frames, transport } = yield* open({ connectionStreams: 2 })
      const credit = { credit: { items: 1 } }
      transport.send(ask("s:endless", "a", {}, credit), ask("s:endless", "a", {}, { ...credit, correlation_id: 2 }), ask("s:endless", "b", {}, credit), ask("s:endless", "c", {}, credit))
      yield* eventually(() => frames("b").length === 1)
      expect(transport.frames.filter(({ seq }) => seq === undefined)).toMatchObject([
        { correlation_id: 2, ok: false, data: { reason: "PayloadInvalid" } },
        { correlation_id: "c", ok: false, data: { reason: "LimitExceeded", retryable: true, details: { limit: "connectionStreams", max: 2 } } }
      ])
      transport.send({ event: "stream:credit", stream_id: "a", items: 1 })
      yield* eventually(() => frames("a").length === 2)
    }))
})

describe("cancelling", () => {
  it.live("interrupts the handler and answers when its finalizers have run", () =>
    Effect.gen(function*() {
      const { frames, made, transport } = yield* open({}, false)
      transport.send(ask("s:endless", "a", {}, { credit: { items: 2 } }))
      yield* eventually(() => frames("a").length === 2)
      transport.send({ event: "stream:cancel", stream_id: "a", correlation_id: 1 })
      yield* Effect.yieldNow
      expect([frames("a").length, made.finished]).toEqual([2, 0])
      Deferred.doneUnsafe(made.finishing, Exit.void)
      yield* eventually(() => transport.frames.some(({ correlation_id }) => correlation_id === 1))
      expect(made.finished).toBe(1)
      expect(transport.frames.slice(-2)).toMatchObject([
        { stream_id: "a", seq: 2, stream_end: true, ok: false, error: { cause: "interrupt" } },
        { event: "stream:cancel", ok: true, data: { status: "cancelled", stream_id: "a" } }
      ])
    }))

  it.live("what is not there, or is another connection's, cannot be cancelled", () =>
    Effect.gen(function*() {
      const [one, other] = yield* Effect.all([open(), open()])
      one.transport.send(ask("s:endless", "a", {}, { credit: { items: 1 } }))
      other.transport.send({ event: "stream:cancel", stream_id: "a", correlation_id: 1 }, { event: "stream:credit", stream_id: "a", items: 5 })
      yield* eventually(() => other.transport.frames.length === 1)
      expect(other.transport.frames).toMatchObject([{ ok: false, data: { reason: "NotFound" } }])
      expect(one.frames("a").length).toBe(1)
    }))

  it.live("a client that is gone has cancelled all it had", () =>
    Effect.gen(function*() {
      const { frames, made, transport } = yield* open()
      transport.send(ask("s:endless", "a", {}, { credit: { items: 2 } }), ask("s:endless", "b", {}, { credit: { items: 2 } }))
      yield* eventually(() => frames("b").length === 2)
      transport.sink.ended("gone")
      yield* eventually(() => made.finished === 2)
    }))

  it.live("one that only stopped sending gets all of it", () =>
    Effect.gen(function*() {
      const { ended, frames, transport } = yield* open()
      transport.send(ask("s:count", "a", { to: 100, chunk: 3 }))
      transport.sink.ended("half-closed")
      yield* ended("a")
      expect(frames("a").length).toBe(101)
    }))

  it.live("who does not read stops the handler at what a connection may hold", () =>
    Effect.gen(function*() {
      const { made, transport } = yield* open({ connectionBufferBytes: 1000 })
      transport.reads = false
      transport.send(ask("s:endless", "a"))
      yield* eventually(() => made.pulled > 5)
      for (let turn = 0; turn < 50; turn++) yield* Effect.yieldNow
      expect(made.pulled).toBeLessThan(60)
      transport.reads = true
      const before = made.pulled
      transport.sink.drained()
      yield* eventually(() => made.pulled > before + 1000)
    }))
})
