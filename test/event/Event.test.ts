import { describe, expect, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Event from "../../src/event/Event.ts"

describe("make", () => {
  it("fills in what is not said", () => {
    const Ping = Event.make("demo:ping")
    expect(Ping).toMatchObject({ kind: "request", name: "demo:ping", mode: "call", idempotent: false, cursor: undefined, annotations: {} })
    expect(Ping.payload).toBe(Event.NoPayload)
    expect(Ping.success).toBe(Schema.Void)
    expect(Ping.error).toBe(Schema.Never)
  })

  it("keeps what is said; fields become a struct, a schema stays itself", () => {
    const Payload = Schema.Struct({ n: Schema.Int })
    const annotations = { description: "Counts.", examples: [{ n: 1 }] }
    const Count = Event.make("demo:count", { payload: Payload, success: Schema.Int, stream: true, idempotent: true, annotations })
    expect(Count).toMatchObject({ mode: "stream", idempotent: true, annotations })
    expect(Count.payload).toBe(Payload)
    expect(Schema.is(Event.make("demo:fields", { payload: { n: Schema.Int } }).payload)({ n: 1 })).toBe(true)
  })

  it("has a cursor only where there is a stream", () => {
    const cursor = () => ({})
    expect(Event.make("demo:count", { stream: true, cursor }).cursor).toBe(cursor)
    expect(() => Event.make("demo:count", { cursor })).toThrow("demo:count has a cursor and is no stream")
  })

  it("remembers where it was written, and leaves the engine as it was", () => {
    const limit = Error.stackTraceLimit
    Error.stackTraceLimit = 17
    expect(Event.make("demo:here").definedAt).toMatch(/Event\.test\.ts:\d+:\d+$/)
    expect(Event.fact("demo:there", { payload: {}, streamId: () => "s" }).definedAt).toMatch(/Event\.test\.ts:\d+:\d+$/)
    expect(Error.stackTraceLimit).toBe(17)
    Error.stackTraceLimit = limit
  })
})

describe("fact", () => {
  const Counted = Event.fact("demo:counted", {
    payload: { who: Schema.String, n: Schema.Int.pipe(Schema.withConstructorDefault(Effect.succeed(1))) },
    streamId: ({ who }) => `counter-${who}`
  })

  it("knows its stream", () => {
    expect(Counted).toMatchObject({ kind: "fact", name: "demo:counted" })
    expect(Counted.streamId({ who: "ann", n: 1 })).toBe("counter-ann")
  })

  it("`of` applies the defaults and refuses what the schema refuses", () => {
    expect(Counted.of({ who: "ann" })).toEqual({ event: Counted, payload: { who: "ann", n: 1 } })
    expect(() => Counted.of({ who: "ann", n: 1.5 })).toThrow()
  })
})

describe("versions of a fact", () => {
  const streamId = () => "s"
  const step = (old: object) => old

  it("a fact without has version 1, and carries nothing for it", () => {
    const plain = Event.fact("order:paid", { payload: { cents: Schema.Int }, streamId })
    expect(plain).toMatchObject({ version: 1, upcast: [], formerly: [] })
    expect(Event.attributesOf(plain)).toEqual({})
    expect(Event.attributesOf(Event.fact("order:paid", { payload: {}, streamId, version: 2, upcast: { 1: step } }))).toEqual({ dataversion: 2 })
  })

  it("a step that is missing, or leads nowhere, is an error where the event is defined", () => {
    const define = (version: number, upcast?: Readonly<Record<number, Event.Upcaster>>) => () =>
      Event.fact("order:paid", { payload: {}, streamId, version, ...(upcast === undefined ? {} : { upcast }) })
    expect(define(2)).toThrow("order:paid has version 2, and no upcast from version 1")
    expect(define(3, { 1: step })).toThrow("no upcast from version 2")
    expect(define(2, { 1: step, 2: step })).toThrow("there is nothing to upcast from version 2")
    expect(define(1, { 1: step })).toThrow("there is nothing to upcast from version 1")
    expect(define(2, { 0: step, 1: step })).toThrow("there is nothing to upcast from version 0")
    for (const version of [0, -1, 1.5, NaN]) expect(define(version)).toThrow("must be an integer from 1")
    expect(() => Event.fact("order:paid", { payload: {}, streamId, formerly: ["order:paid"] })).toThrow("cannot have been called")
  })

  it("and does not compile", () => {
    expect(() => {
      // @ts-expect-error the step from 2 to 3 is missing
      Event.fact("order:paid", { payload: {}, streamId, version: 3, upcast: { 1: step } })
    }).toThrow(TypeError)
    // @ts-expect-error nobody knows what the old data was: whoever writes the step says it
    expect(Event.fact("order:paid", { payload: {}, streamId, version: 2, upcast: { 1: (old) => old.price } }).version).toBe(2)
  })

  it("the payload's type is that of today, and middleware changes nothing of the versions", () => {
    const Paid = Event.fact("order:paid", {
      payload: { cents: Schema.Int },
      streamId: ({ cents }) => `s-${cents}`,
      version: 2,
      upcast: { 1: ({ price }: { readonly price: number }) => ({ cents: price * 100 }) },
      formerly: ["order:payed"]
    })
    expect(Paid.of({ cents: 1 }).payload).toEqual({ cents: 1 })
    const added = Event.middleware(Paid, { name: "m", error: Schema.Never, "~provides": undefined })
    expect(added).toMatchObject({ version: 2, formerly: ["order:payed"] })
    expect(added.upcast).toBe(Paid.upcast)
  })
})
