import { describe, expect, it } from "@effect/vitest"
import { Cause, Clock, Context, Effect, Exit, Fiber, Layer, Logger, Schema, Scope } from "effect"
import { Router, serve } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import { TestClock } from "effect/testing"
import * as Limits from "../../src/event/Limits.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as Connection from "../../src/wire/Connection.ts"
import { Driven } from "./Driven.ts"
import { eventually, makeCounts, type Reply, runtime } from "./Daemon.ts"

const bytes = (text: string) => new TextEncoder().encode(text)

const open = Effect.fnUntraced(function*(limits: Partial<Limits.LimitsShape> = {}, shared?: Connection.Shared) {
  const counts = makeCounts()
  const context = yield* Layer.build(runtime(counts)).pipe(Effect.provideService(Limits.Limits, { ...Limits.defaults, ...limits }))
  const transport = new Driven()
  const fiber = yield* Connection.run(transport, { principal: "owner", shared }).pipe(
    Effect.provideContext(context),
    Effect.provideService(Limits.Limits, { ...Limits.defaults, ...limits }),
    Effect.forkScoped({ startImmediately: true })
  )
  return { transport, fiber, counts, context, subscriptions: Context.get(context, Subscriptions) }
})

const echo = (value: unknown, correlation_id: unknown = value) => ({ event: "t:echo", data: { value }, correlation_id })
const later = (value: unknown) => ({ event: "t:later", data: { value }, correlation_id: value })
const happened = (n: number) => ({ event: "t:happened", data: { n }, correlation_id: n })

describe("lines", () => {
  it.live("a long one is refused while all connections hold too much of such, and finds room when they have ended", () =>
    Effect.gen(function*() {
      const shared = Connection.makeShared({ incomingBytes: 100_000, outgoingBytes: 1_000_000 })
      const [{ counts, transport: holder }, { transport }] = yield* Effect.all([open({}, shared), open({}, shared)])
      const long = (event: string, correlation_id: number) => ({ event, data: { value: "x".repeat(60_000) }, correlation_id })
      holder.send(long("t:forever", 1), long("t:forever", 2))
      expect(counts.running).toBe(1)
      expect(holder.replies).toMatchObject([
        { ok: false, correlation_id: 2, event: "t:forever", data: { reason: "LimitExceeded", retryable: true, details: { limit: "incomingBytes", max: 100_000 } } }
      ])
      transport.send(long("t:echo", 3), { event: "t:echo", data: { value: 4 }, correlation_id: 4 })
      transport.sink.bytes(bytes(`{"event":"t:echo","data":{"value":"${"x".repeat(70_000)}`))
      transport.sink.bytes(bytes(`"}}\n`))
      expect(transport.replies.map(({ correlation_id, ok }) => [correlation_id, ok])).toEqual([[3, false], [4, true], [null, false]])
      holder.sink.ended("gone")
      yield* eventually(() => counts.interrupted === 1)
      transport.send(long("t:echo", 5), long("t:echo", 6))
      expect(transport.replies.slice(3).map(({ correlation_id, ok }) => [correlation_id, ok])).toEqual([[5, true], [6, true]])
    }))

  it.live("bad lines are answered, and the connection stays usable", () =>
    Effect.gen(function*() {
      const { transport } = yield* open({ frameBytes: 1000 })
      transport.sink.bytes(bytes("\n   \n\r\nnot json\n[]\n{\"correlation_id\":4}\n"))
      transport.sink.bytes(Uint8Array.from([123, 0xff, 0xfe, 125, 10]))
      transport.sink.bytes(bytes(`{"event":"t:echo","data":{"value":"${"x".repeat(2000)}"}}\n`))
      transport.send(echo("fine"))
      expect(transport.replies.map(({ correlation_id, data, ok }) => [ok, data.reason ?? data.result, correlation_id])).toEqual([
        [false, "FrameInvalid", null],
        [false, "FrameInvalid", null],
        [false, "FrameInvalid", 4],
        [false, "FrameInvalid", null],
        [false, "LimitExceeded", null],
        [true, "fine", "fine"]
      ])
      expect(transport.replies[4]?.data.details).toEqual({ limit: "frameBytes", max: 1000, retryable: false })
    }))

  it.live("a line that is too long is answered once and skipped, however it arrives", () =>
    Effect.gen(function*() {
      const { transport } = yield* open({ frameBytes: 100 })
      for (let i = 0; i < 50; i++) transport.sink.bytes(bytes("y".repeat(30)))
      transport.sink.bytes(bytes("y\n{\"event\":\"t:echo\",\"data\":{\"value\":1}}\nz"))
      transport.sink.bytes(bytes("z\n"))
      expect(transport.replies.map(({ data }) => data.reason ?? data.result)).toEqual(["LimitExceeded", 1, "FrameInvalid"])
    }))

  it.live("the limit is exact, in bytes", () =>
    Effect.gen(function*() {
      const line = "{\"event\":\"t:echo\",\"data\":{\"value\":\"éé\"}}"
      const length = bytes(line).length
      const fits = yield* open({ frameBytes: length })
      fits.transport.sink.bytes(bytes(`${line}\n${line}\n`))
      expect(fits.transport.replies.map(({ ok }) => ok)).toEqual([true, true])
      const tooLong = yield* open({ frameBytes: length - 1 })
      tooLong.transport.sink.bytes(bytes(`${line}\n${line}\n`))
      expect(tooLong.transport.replies.map(({ data }) => data.reason)).toEqual(["LimitExceeded", "LimitExceeded"])
    }))

  const Text = Schema.Array(Schema.String)
  it.effect.prop("however the bytes are cut, the replies are the same", [Text, Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 40 })))], ([values, cuts]) =>
    Effect.gen(function*() {
      const frames = [...values, "süß 🫖"].map((value) => `${JSON.stringify(echo(value))}\n`).join("")
      const all = bytes(frames)
      const whole = yield* open()
      whole.transport.sink.bytes(all)
      const cut = yield* open()
      for (let at = 0, i = 0; at < all.length; i++) {
        const size = cuts[i % cuts.length] ?? 1
        cut.transport.sink.bytes(all.slice(at, at + size))
        at += size
      }
      const seen = (replies: ReadonlyArray<Reply>) => replies.map(({ correlation_id, data }) => [correlation_id, data.result])
      expect(seen(whole.transport.replies)).toEqual([...values, "süß 🫖"].map((value) => [value, value]))
      expect(seen(cut.transport.replies)).toEqual(seen(whole.transport.replies))
    }))

  it.live("a last line without a newline counts when its sender still reads", () =>
    Effect.gen(function*() {
      const { fiber, transport } = yield* open()
      transport.sink.bytes(bytes(JSON.stringify(later("last"))))
      transport.sink.ended("half-closed")
      yield* Fiber.join(fiber)
      expect(transport.replies.map(({ data }) => data.result)).toEqual(["last"])
    }))
})

describe("requests", () => {
  it.live("the answers of one chunk leave in one write, and so do those of one turn", () =>
    Effect.gen(function*() {
      const { transport } = yield* open()
      transport.send(...Array.from({ length: 64 }, (_, i) => echo(i)))
      expect(transport.writes.length).toBe(1)
      transport.send(...Array.from({ length: 64 }, (_, i) => later(i)))
      yield* eventually(() => transport.replies.length === 128)
      expect(transport.writes.length).toBeLessThanOrEqual(4)
    }))

  it.live("an event that answers nothing, values with a codec, declared failures, defects, streams", () =>
    Effect.gen(function*() {
      const { transport } = yield* open()
      transport.send(
        { event: "t:nothing" },
        { event: "t:when", data: { at: "2020-01-01T00:00:00.000Z" } },
        { event: "t:refuse", data: { why: "no" } },
        { event: "t:die" },
        { event: "t:items" },
        { event: "t:ech" },
        echo(null)
      )
      yield* eventually(() => transport.replies.length === 7)
      const plain = (event: string) => {
        const { _ksi_context, ...data } = (transport.replies.find((reply) => reply.event === event) as Reply).data
        return data
      }
      expect(plain("t:nothing")).toEqual({ status: "success" })
      expect(plain("t:when")).toEqual({ status: "success", result: "2020-01-01T00:00:00.000Z" })
      expect(plain("t:refuse")).toMatchObject({ cause: "domain", reason: "Refused", error_data: { _tag: "Refused", why: "no" } })
      expect(plain("t:die")).toMatchObject({ cause: "defect" })
      expect(transport.writes.join("")).not.toContain("secret")
      expect(plain("t:items")).toMatchObject({ reason: "WrongShape", details: { used: "call", expected: "stream" } })
      expect(plain("t:ech")).toMatchObject({ status: "error", details: { similar: ["t:echo"] } })
      expect(plain("t:echo")).toEqual({ status: "success", result: null })
    }).pipe(Effect.provide(Logger.layer([]))))

  it.live("each request is a root with an id of its own; labels are told", () =>
    Effect.gen(function*() {
      const { transport } = yield* open()
      transport.send({ ...echo(1), _client_id: "probe" }, { ...echo(2), _client_id: 7 })
      const [first, second] = transport.replies.map(({ data }) => data._ksi_context)
      expect(first).toMatchObject({ _parent_event_id: null, _event_depth: 0, _client_id: "probe" })
      expect([first._root_event_id, first._correlation_id]).toEqual([first._event_id, first._event_id])
      expect(second._client_id).toBe(null)
      expect(second._event_id).not.toBe(first._event_id)
    }))

  it.live("a deadline in milliseconds from now interrupts the handler", () =>
    Effect.gen(function*() {
      const { counts, transport } = yield* open()
      transport.send({ event: "t:forever", deadline_ms: 20 })
      yield* eventually(() => transport.replies.length === 1)
      expect(transport.replies[0]?.data.reason).toBe("DeadlineExceeded")
      expect(counts).toMatchObject({ running: 0, interrupted: 1 })
    }))

  it.live("a deadline is told as it was asked for, even when the clock goes on meanwhile", () =>
    Effect.gen(function*() {
      let reads = 0
      const clock = yield* Clock.Clock
      const stepping: Clock.Clock = Object.create(clock, {
        currentTimeMillisUnsafe: { value: () => 1_000_000 + (reads++ === 0 ? 0 : 1) }
      })
      const { transport } = yield* open().pipe(Effect.provideService(Clock.Clock, stepping))
      reads = 0
      transport.send({ event: "t:forever", deadline_ms: 20 })
      yield* eventually(() => transport.replies.length === 1)
      expect(transport.replies[0]?.data.details).toEqual({ event: "t:forever", millis: 20 })
    }))

  it.live("no more than `connectionRequests` run, and no more is read than may wait", () =>
    Effect.gen(function*() {
      const { counts, transport } = yield* open({ connectionRequests: 3, connectionBufferBytes: 500 })
      const forever = { event: "t:forever", deadline_ms: 30 }
      transport.send(...Array.from({ length: 20 }, () => forever))
      expect(counts.running).toBe(3)
      expect(transport.paused).toBe(true)
      yield* eventually(() => transport.replies.length === 20)
      expect(counts).toMatchObject({ running: 0, interrupted: 20 })
      expect(transport.paused).toBe(false)
    }))

  it.live("a reply longer than a frame may be is a failure", () =>
    Effect.gen(function*() {
      const { transport } = yield* open({ frameBytes: 1000 })
      transport.send({ event: "t:big", data: { size: 10_000 } })
      expect(transport.replies[0]?.data).toMatchObject({ reason: "LimitExceeded", details: { limit: "frameBytes", max: 1000 } })
    }))
})

describe("hostile lines", () => {
  const nested = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`

  it.live("what is nested too deeply is refused, with the labels that can be told", () =>
    Effect.gen(function*() {
      const { transport } = yield* open({ jsonDepth: 8 })
      const deep = nested(100_000)
      const lines = [
        `{"event":"t:echo","data":{"value":${deep}},"correlation_id":"a"}`,
        `{"event":"t:echo","data":{"value":1},"correlation_id":${deep}}`,
        `{"event":${deep},"correlation_id":7}`,
        deep,
        `{"event":"t:echo","data":{"value":${nested(8)}},"correlation_id":"b"}`
      ]
      for (const line of lines) transport.sink.bytes(bytes(`${line}\n`))
      expect(transport.replies.map(({ correlation_id, data, event, ok }) => [ok, event, data.details?.limit, correlation_id])).toEqual([
        [false, "t:echo", "jsonDepth", "a"], [false, "t:echo", "jsonDepth", null], [false, null, "jsonDepth", 7],
        [false, null, "jsonDepth", null], [true, "t:echo", undefined, "b"]
      ])
    }))

  it.live("labels that are too long are refused", () =>
    Effect.gen(function*() {
      const { transport } = yield* open({ idLength: 10 })
      const long = "x".repeat(100_000)
      transport.send(echo(1, long), echo(1, [long]), { ...echo(1, "c"), _client_id: "x".repeat(11) }, { event: long, correlation_id: "d" }, echo(2))
      expect(transport.replies.map(({ correlation_id, data }) => [data.reason ?? data.result, correlation_id])).toEqual([
        ["FrameInvalid", null], ["FrameInvalid", null], ["FrameInvalid", "c"], ["FrameInvalid", "d"], [2, 2]
      ])
      expect(transport.writes.join("").length).toBeLessThan(5000)
    }))

  it.live("a reply that cannot be written is told to its client, and logged", () => {
    const logged: Array<string> = []
    return Effect.gen(function*() {
      const { context, transport } = yield* open()
      const cycle: Record<string, unknown> = {}
      cycle["self"] = cycle
      const Odd = Event.make("odd:reply", { payload: { n: Schema.Int }, success: Schema.Any })
      const values: ReadonlyArray<unknown> = [cycle, { n: 1n }, JSON.parse(nested(100_000))]
      const OddGroup = EventGroup.make(Odd)
      const handlers = OddGroup.toLayer({ "odd:reply": ({ n }) => n < 3 ? Effect.succeed(values[n]) : Effect.as(Effect.yieldNow, values[n - 3]) })
      yield* Layer.build(serve(OddGroup).pipe(Layer.provide(handlers))).pipe(Effect.provideContext(context))
      transport.send(...[0, 1, 2, 3, 4, 5].map((n) => ({ event: "odd:reply", data: { n }, correlation_id: n })), echo("fine"))
      yield* eventually(() => transport.replies.length === 7)
      const odd = transport.replies.filter(({ event }) => event === "odd:reply")
      expect(new Set(odd.map(({ data }) => data.reason))).toEqual(new Set(["ReplyInvalid"]))
      expect(odd.map(({ correlation_id }) => correlation_id).toSorted()).toEqual([0, 1, 2, 3, 4, 5])
      yield* eventually(() => logged.length === 6)
      expect(logged.join("\n")).toContain("circular")
    }).pipe(Effect.provide(Logger.layer([Logger.make(({ cause, message }) => logged.push(`${String(message)} ${Cause.pretty(cause)}`))])))
  })

  it.live("bad lines count as what waits", () =>
    Effect.gen(function*() {
      const { transport } = yield* open({ connectionBufferBytes: 20_000 })
      transport.reads = false
      let sent = 0
      while (!transport.paused && sent < 100) {
        transport.sink.bytes(Uint8Array.from({ length: 200 }, (_, i) => i % 2 === 0 ? 0xff : 10))
        sent++
      }
      expect(transport.paused).toBe(true)
      transport.reads = true
      while (transport.replies.length < sent * 100) transport.sink.drained()
      expect(transport.paused).toBe(false)
    }))

  it.live("a request whose data has no JSON form is told of without it, and the subscription goes on", () =>
    Effect.gen(function*() {
      const { context, subscriptions, transport } = yield* open()
      const subscribe = { event: "pubsub:subscribe", pattern: "odd:*", subscription_id: "s", requests: true }
      transport.send(subscribe)
      yield* eventually(() => transport.replies.length === 1)
      const Odd = Event.make("odd:request", { payload: { value: Schema.Any } })
      const OddGroup = EventGroup.make(Odd)
      yield* Layer.build(serve(OddGroup).pipe(Layer.provide(OddGroup.toLayer({ "odd:request": () => Effect.void })))).pipe(Effect.provideContext(context))
      const router = Context.get(context, Router)
      yield* router.dispatch(router.envelope("odd:request", { value: 1n }, { principal: "owner" }))
      yield* eventually(() => transport.replies.length === 2)
      expect(transport.replies[1]).toMatchObject({ event: "odd:request", subscription_id: "s", data: null })
      yield* router.dispatch(router.envelope("odd:request", { value: 1 }, { principal: "owner" }))
      yield* eventually(() => transport.replies.length === 3)
      expect(transport.replies[2]).toMatchObject({ event: "odd:request", subscription_id: "s", data: { value: 1 } })
      expect(subscriptions.count()).toBe(1)
    }).pipe(Effect.provide(Logger.layer([]))))
})

describe("what waits in all connections", () => {
  it.live("is bounded: the one in which most waits is closed, the others are not", () =>
    Effect.gen(function*() {
      const shared = Connection.makeShared({ incomingBytes: 1_000_000, outgoingBytes: 200_000 })
      const lazy = yield* open({ connectionBufferBytes: 1_000_000 }, shared)
      const small = yield* open({}, shared)
      const reading = yield* open({}, shared)
      for (const { transport } of [lazy, small]) transport.reads = false
      small.transport.send(echo("x".repeat(10_000)))
      lazy.transport.send({ event: "t:forever" }, ...Array.from({ length: 3 }, () => echo("x".repeat(20_000), "lazy")))
      reading.transport.send(...Array.from({ length: 20 }, () => echo("x".repeat(20_000))))
      expect([lazy, small, reading].map(({ transport }) => transport.destroyed)).toEqual([false, false, false])
      expect(reading.transport.replies.length).toBe(20)
      lazy.transport.send(...Array.from({ length: 8 }, () => echo("x".repeat(20_000), "lazy")), { event: "t:forever" })
      yield* Fiber.join(lazy.fiber)
      expect([lazy, small, reading].map(({ transport }) => transport.destroyed)).toEqual([true, false, false])
      expect(lazy.counts).toMatchObject({ running: 0, interrupted: 1 })
      // What it held is free again.
      small.transport.send(...Array.from({ length: 3 }, () => echo("x".repeat(20_000), "small")))
      expect(small.transport.destroyed).toBe(false)
    }).pipe(Effect.provide(Logger.layer([]))))
})

describe("a client that does not read", () => {
  it.live("holds back its requests within a bound, and gets every answer when it reads again", () =>
    Effect.gen(function*() {
      const { transport } = yield* open({ connectionBufferBytes: 10_000 })
      transport.reads = false
      for (let i = 0; i < 200; i++) transport.send(echo(`${i} ${"x".repeat(1000)}`, i))
      expect(transport.writes.length).toBe(1)
      expect(transport.paused).toBe(true)
      transport.reads = true
      while (transport.replies.length < 200) transport.sink.drained()
      expect(transport.replies.map(({ correlation_id }) => correlation_id)).toEqual(Array.from({ length: 200 }, (_, i) => i))
      // One write and what was gathered behind it: never more than the bound and one reply.
      expect(Math.max(...transport.writes.map((text) => text.length))).toBeLessThan(10_000 + 2000)
      expect(transport.paused).toBe(false)
    }))

  it.live("holds back its subscription, which misses nothing", () =>
    Effect.gen(function*() {
      const { context, transport } = yield* open({ connectionBufferBytes: 5000, subscriptionBuffer: 8 })
      const store = Context.get(context, EventStore.EventStore)
      transport.send({ event: "pubsub:subscribe", pattern: "t:*", subscription_id: "s", from: "start" })
      yield* eventually(() => transport.replies.length === 1)
      transport.reads = false
      for (let n = 1; n <= 100; n++) yield* store.appendTo("s", [{ name: "t:happened", data: { n, pad: "x".repeat(200) } }])
      const held = () => transport.writes.slice(1).join("").length
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 20)))
      expect(held()).toBeLessThan(5000 + 1000)
      transport.reads = true
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(
        Effect.promise(() => new Promise((resolve) => setImmediate(resolve))), Effect.sync(() => transport.sink.drained()))))
      yield* eventually(() => transport.replies.length === 101)
      expect(transport.replies.slice(1).map(({ position }) => position)).toEqual(Array.from({ length: 100 }, (_, i) => i + 1))
    }))
})

describe("subscriptions", () => {
  it.live("leave out what a slow client cannot take where it says so, and tell how many", () =>
    Effect.gen(function*() {
      for (const [overflow, last] of [["latest", [99, 100]], ["drop", [1, 2]]] as const) {
        const { context, transport } = yield* open({ connectionBufferBytes: 5000 })
        const store = Context.get(context, EventStore.EventStore)
        transport.reads = false
        transport.send({ event: "pubsub:subscribe", pattern: "t:*", subscription_id: "s", overflow, buffer: 2 })
        yield* eventually(() => transport.replies.length === 1)
        // In one commit: nothing can be taken in between.
        const append = (from: number, to: number) =>
          store.appendTo("s", Array.from({ length: to - from + 1 }, (_, i) => ({ name: "t:happened", data: { n: from + i } })))
        yield* append(1, 100)
        transport.reads = true
        transport.sink.drained()
        yield* eventually(() => transport.replies.length >= 3)
        expect(transport.replies.slice(1).map(({ data }) => data["n"])).toEqual(last)
        expect(transport.replies[1]?.["missed"]).toBe(overflow === "latest" ? 98 : undefined)
        yield* append(101, 101)
        yield* eventually(() => transport.replies.length === 4)
        expect(transport.replies[3]?.["missed"]).toBe(overflow === "latest" ? undefined : 98)
      }
    }))

  it.live("tell no more than their credit, and hold up nobody while they wait for more", () =>
    Effect.gen(function*() {
      const { context, transport } = yield* open()
      const store = Context.get(context, EventStore.EventStore)
      const credit = (subscription_id: string, more: object) => transport.send({ event: "stream:credit", subscription_id, ...more })
      const told = (id: string) => transport.replies.filter((reply) => reply["subscription_id"] === id)
      const positions = (id: string) => told(id).map(({ position }) => position)
      yield* store.appendTo("s", Array.from({ length: 50 }, (_, n) => ({ name: "t:happened", data: { n } })))
      transport.send({ event: "pubsub:subscribe", pattern: "t:*", subscription_id: "few", from: "start", credit: { items: 2 } })
      transport.send({ event: "pubsub:subscribe", pattern: "t:*", subscription_id: "all", from: "start" })
      yield* eventually(() => told("all").length === 50)
      expect(positions("few")).toEqual([1, 2])
      credit("few", { items: 3, mark: 7 })
      yield* eventually(() => told("few").length === 5)
      expect(told("few").map(({ mark }) => mark)).toEqual([undefined, undefined, 7, undefined, undefined])
      // One frame may exceed the characters.
      transport.send({ event: "pubsub:subscribe", pattern: "t:*", subscription_id: "short", from: "start", credit: { bytes: 1 } })
      yield* eventually(() => told("short").length === 1)
      credit("short", { bytes: 10_000 })
      yield* eventually(() => told("short").length > 1)
      expect(told("few")).toHaveLength(5)
      // One that is left while it waits is left.
      transport.send({ event: "pubsub:unsubscribe", subscription_id: "few", correlation_id: "u" })
      yield* eventually(() => transport.replies.some(({ correlation_id }) => correlation_id === "u"))
      credit("few", { items: 100 })
      yield* store.appendTo("s", [{ name: "t:happened", data: { n: 51 } }])
      yield* eventually(() => told("all").length === 51)
      expect(told("few")).toHaveLength(5)
    }))

  it.live("a credit that makes no sense is answered with what is wrong", () =>
    Effect.gen(function*() {
      const { transport } = yield* open()
      const bad = [{}, { stream_id: "a", subscription_id: "b" }, { subscription_id: 1 }, { subscription_id: "a", items: -1 }, { subscription_id: "a", bytes: 0.5 }, { stream_id: "a", mark: "x" }]
      transport.send(...bad.map((fields, n) => ({ event: "stream:credit", correlation_id: n, ...fields })))
      expect(transport.replies.map(({ correlation_id, data }) => [correlation_id, data.reason])).toEqual(bad.map((_, n) => [n, "PayloadInvalid"]))
      // What is not there has just ended.
      transport.send({ event: "stream:credit", subscription_id: "gone", items: 1 })
      expect(transport.replies).toHaveLength(bad.length)
    }))

  it.live("are announced before their first frame, and catch up", () =>
    Effect.gen(function*() {
      const { transport } = yield* open()
      transport.send(happened(1), happened(2))
      yield* eventually(() => transport.replies.length === 2)
      transport.send({ event: "pubsub:subscribe", pattern: "t:*", subscription_id: "s1", from: 2, correlation_id: "sub" })
      transport.send(happened(3))
      yield* eventually(() => transport.replies.length === 6)
      const [announced, ...rest] = transport.replies.slice(2).filter(({ correlation_id }) => typeof correlation_id !== "number")
      expect(announced).toMatchObject({ correlation_id: "sub", data: { status: "subscribed", subscription_id: "s1", position: 2 } })
      const { event_id, timestamp } = rest[0] as Reply
      expect(rest[0]).toEqual({
        event: "t:happened", event_name: "t:happened", data: { n: 2 }, subscription_id: "s1", position: 2, version: 2, stream_id: "t",
        event_id, timestamp
      })
      expect(rest.map(({ position }) => position)).toEqual([2, 3])
    }))

  it.live("tell of requests when asked to, as their schemas write them and without a position", () =>
    Effect.gen(function*() {
      const { transport } = yield* open()
      transport.send({ event: "pubsub:subscribe", pattern: "t:*", subscription_id: "s1", requests: true })
      yield* eventually(() => transport.replies.length === 1)
      transport.send({ event: "t:when", data: { at: "2020-01-01T00:00:00.000Z" } })
      yield* eventually(() => transport.replies.length === 3)
      const told = transport.replies.find(({ event_name }) => event_name === "t:when")
      expect(told).toMatchObject({ data: { at: "2020-01-01T00:00:00.000Z" }, subscription_id: "s1" })
      expect([told?.["position"], told?.["version"]]).toEqual([undefined, undefined])
    }))

  it.live("refuse a name twice, a bad pattern, too many, and an end of what is not open", () =>
    Effect.gen(function*() {
      const { subscriptions, transport } = yield* open({ connectionSubscriptions: 2 })
      const subscribe = (subscription_id: string, pattern = "t:*") => ({ event: "pubsub:subscribe", pattern, subscription_id, correlation_id: subscription_id })
      transport.send(subscribe("a"), subscribe("a"), subscribe("x", "t*"), subscribe("b"), subscribe("c"))
      transport.send({ event: "pubsub:unsubscribe", subscription_id: "nope" }, { event: "pubsub:unsubscribe", subscription_id: "a" })
      yield* eventually(() => transport.replies.length === 7)
      expect(transport.replies.map(({ data }) => data.reason ?? data.status)).toEqual([
        "subscribed", "PayloadInvalid", "PatternInvalid", "subscribed", "LimitExceeded", "NotFound", "unsubscribed"
      ])
      expect(subscriptions.count()).toBe(1)
    }))

  it.live("the original's word follows several patterns with requests, each event once; again replaces", () =>
    Effect.gen(function*() {
      const { subscriptions, transport } = yield* open()
      const monitor = (event_patterns: unknown) => ({ event: "monitor:subscribe", data: { event_patterns, client_id: "sub1" }, correlation_id: "s0" })
      transport.send(monitor(["t:echo", "t:*", "u:*"]))
      yield* eventually(() => transport.replies.length === 1)
      expect(transport.replies[0]?.data).toMatchObject({ status: "subscribed", client_id: "sub1", patterns: ["t:echo", "t:*", "u:*"] })
      transport.send(echo(1), happened(1))
      yield* eventually(() => transport.replies.length === 5)
      expect(transport.replies.flatMap(({ event_name }) => event_name ?? []).toSorted()).toEqual(["t:echo", "t:happened"])
      transport.send(monitor("u:*"), { event: "monitor:unsubscribe", data: {}, _client_id: "sub1" }, { event: "monitor:unsubscribe" })
      yield* eventually(() => transport.replies.length === 8)
      expect(transport.replies.slice(5).map(({ data }) => data.reason ?? data.status)).toEqual(["subscribed", "unsubscribed", "NotFound"])
      expect(subscriptions.count()).toBe(0)
    }))
})

describe("the end", () => {
  it.live("a client that is gone takes its requests and subscriptions with it, silently", () => {
    const logged: Array<unknown> = []
    return Effect.gen(function*() {
      const { counts, fiber, subscriptions, transport } = yield* open()
      transport.send({ event: "t:forever" }, { event: "t:forever" }, { event: "pubsub:subscribe", pattern: "*", subscription_id: "s" })
      yield* eventually(() => transport.replies.length === 1)
      expect([counts.running, subscriptions.count()]).toEqual([2, 1])
      transport.sink.ended("gone")
      yield* Fiber.join(fiber)
      expect(counts).toMatchObject({ running: 0, interrupted: 2 })
      expect(subscriptions.count()).toBe(0)
      expect(transport.replies.length).toBe(1)
      expect(logged).toEqual([])
    }).pipe(Effect.provide(Logger.layer([Logger.make(({ message }) => logged.push(message))])))
  })

  it.live("interrupting it answers what was running", () =>
    Effect.gen(function*() {
      const { fiber, transport } = yield* open()
      transport.send({ event: "t:forever", correlation_id: 1 })
      yield* Fiber.interrupt(fiber)
      expect(transport.replies.map(({ correlation_id, data }) => [correlation_id, data.cause])).toEqual([[1, "interrupt"]])
    }))

  it.live("stopping closes subscriptions, begins nothing, and waits for what runs", () =>
    Effect.gen(function*() {
      const { fiber, subscriptions, transport } = yield* open()
      transport.send({ event: "pubsub:subscribe", pattern: "*", subscription_id: "s" }, later(1))
      transport.sink.ended("stopping")
      transport.send(later(2))
      yield* Fiber.join(fiber)
      expect(subscriptions.count()).toBe(0)
      expect(transport.replies.map(({ correlation_id, data }) => data.result ?? correlation_id)).toEqual([null, 1])
    }))

  it.live("a handler that cannot be interrupted does not hold up the end, and is logged", () => {
    const logged: Array<string> = []
    return Effect.gen(function*() {
      const { context, fiber, transport } = yield* open()
      const Stubborn = EventGroup.make(Event.make("odd:stubborn"))
      const handlers = Stubborn.toLayer({ "odd:stubborn": () => Effect.uninterruptible(Effect.never) })
      yield* Layer.build(serve(Stubborn).pipe(Layer.provide(handlers))).pipe(Effect.provideContext(context))
      transport.send({ event: "odd:stubborn" }, { event: "odd:stubborn" })
      transport.sink.ended("gone")
      yield* Effect.yieldNow
      yield* Effect.yieldNow
      yield* TestClock.adjust("6 seconds")
      yield* Fiber.join(fiber)
      expect(logged).toEqual([expect.stringContaining("2 requests were interrupted and go on")])
    }).pipe(
      Effect.provide(TestClock.layer()),
      Effect.provide(Logger.layer([Logger.make(({ message }) => logged.push(String(message)))]))
    )
  })

  it.live("its scope is its own", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { counts, transport } = yield* open().pipe(Scope.provide(scope))
      transport.send({ event: "t:forever" })
      yield* Scope.close(scope, Exit.void)
      expect(counts).toMatchObject({ running: 0, interrupted: 1 })
    }))
})

