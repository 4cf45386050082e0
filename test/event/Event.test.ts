import { describe, expect, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Event from "../../src/event/Event.ts"

describe("make", () => {
  it("fills in what is not said", () => {
    const Ping = Event.make("demo:ping")
    expect(Ping).toMatchObject({ kind: "request", name: "demo:ping", mode: "call", idempotent: false, annotations: {} })
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
