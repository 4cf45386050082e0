import { describe, expect, it } from "@effect/vitest"
import { Effect, Random, Schema } from "effect"
import * as CloudEvent from "../../src/event/CloudEvent.ts"
import * as Envelope from "../../src/event/Envelope.ts"

const v7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const millisOf = (id: string) => Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)

describe("randomIds", () => {
  it.effect("takes the source's own bits from Random", () =>
    Effect.gen(function*() {
      const ids = Effect.map(Envelope.randomIds, (make) => make(1000))
      const [first, second] = [yield* ids, yield* ids]
      expect(first).toMatch(v7)
      expect(first.slice(-12)).not.toBe(second.slice(-12))
      const again = ids.pipe(Random.withSeed("seed"))
      expect(yield* again).toBe(yield* again)
    }))
})

describe("makeIds", () => {
  it("makes UUIDv7 of the given millisecond, with the source's own bits", () => {
    const id = Envelope.makeIds(0x1234, 0x9abcdef0)(1_795_333_214_410)
    expect(id).toMatch(v7)
    expect(millisOf(id)).toBe(1_795_333_214_410)
    expect(id.endsWith("12349abcdef0")).toBe(true)
  })

  it("a hundred thousand ids within one millisecond increase strictly and differ", () => {
    const ids = Envelope.makeIds(1, 2)
    const seen = new Set<string>()
    let last = ""
    for (let i = 0; i < 100_000; i++) {
      const id = ids(1000)
      if (!(id > last) || !v7.test(id)) expect.fail(`${id} after ${last}`)
      last = id
      seen.add(id)
    }
    expect(seen.size).toBe(100_000)
  })

  it("moves on to the next millisecond when the counter is used up", () => {
    const ids = Envelope.makeIds(1, 2)
    // Reached without 2^26 calls: the counter is read from the id.
    const first = ids(1000)
    const second = ids(1000)
    const counter = (id: string) => Number.parseInt(id.slice(15, 18), 16) * 0x4000 + (Number.parseInt(id.slice(19, 23), 16) & 0x3fff)
    expect(counter(second) - counter(first)).toBe(1)
    for (let i = 0; i < 0x4000; i++) ids(1000)
    expect(ids(1000) > second).toBe(true)
    expect(counter(ids(1000))).toBe(0x4000 + 3)
  })

  it("fractions of a millisecond do not begin the counter anew", () => {
    const ids = Envelope.makeIds(1, 2)
    const made = [1000, 1000.2, 1000.7, 1000.7, 1001].map(ids)
    expect(made.toSorted()).toEqual(made)
    expect(new Set(made).size).toBe(5)
  })

  it.prop("increases strictly whatever the clock does", [
    Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: -1000, maximum: 1000 })))
  ], ([steps]) => {
    const ids = Envelope.makeIds(0xffff, 0xffffffff)
    let now = 1_795_333_214_410
    let last = ids(now)
    for (const step of steps) {
      now += step
      const id = ids(now)
      expect(id).toMatch(v7)
      expect(id > last, `${id} after ${last}`).toBe(true)
      expect(millisOf(id)).toBeGreaterThanOrEqual(now)
      last = id
    }
  })

  it("two sources do not meet", () => {
    const one = Envelope.makeIds(1, 2)
    const other = Envelope.makeIds(1, 3)
    expect(one(1000)).not.toBe(other(1000))
  })
})

const metadata: Envelope.Metadata = {
  correlationId: "root", causationId: "parent", depth: 2, timestamp: 1_795_333_214_410, source: Envelope.ownSource, principal: "ann",
  streamId: undefined, deadline: 5, idempotencyKey: "k", clientCorrelationId: "label", clientId: "c1", traceparent: undefined, tracestate: undefined
}
const store = (fact: CloudEvent.NewFact): CloudEvent.StoredFact => ({
  ...fact, position: 3, version: 1, timestamp: CloudEvent.parseTime(fact.time ?? "") ?? 0, recordedAt: 9
})

describe("toFact and fromFact", () => {
  it("carry who caused what into the store and out again", () => {
    const fact = Envelope.toFact({ id: "id", name: "a:b", data: "typed", metadata }, "s-1", { n: 1 })
    expect(fact).toEqual({
      id: "id", source: "/ksi", name: "a:b", streamId: "s-1", data: { n: 1 }, time: "2026-11-22T07:40:14.410Z",
      attributes: { correlationid: "root", causationid: "parent", depth: 2, principal: "ann", clientcorrelationid: "label", clientid: "c1" }
    })
    const back = Envelope.fromFact(store(fact), "typed")
    expect(back).toEqual({
      id: "id", name: "a:b", data: "typed", position: 3n, version: 1, missed: 0,
      // A deadline and a key belong to the request, not to what happened.
      metadata: { ...metadata, streamId: "s-1", deadline: undefined, idempotencyKey: undefined }
    })
  })

  it("write only what is not the rule, and read it back as the rule", () => {
    const root = { ...metadata, causationId: undefined, depth: 0, principal: "owner", clientCorrelationId: undefined, clientId: undefined }
    const fact = Envelope.toFact({ id: "id", name: "a:b", data: 1, metadata: root }, "s", 1)
    expect(fact.attributes).toEqual({ correlationid: "root" })
    expect(Envelope.fromFact(store(fact), 1).metadata).toMatchObject({ depth: 0, principal: "owner", causationId: undefined })
  })

  const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

  it("carry the trace as the distributed tracing extension of CloudEvents has it", () => {
    const traced = { ...metadata, traceparent, tracestate: "a=1" }
    const fact = Envelope.toFact({ id: "id", name: "a:b", data: 1, metadata: traced }, "s", 1)
    expect(CloudEvent.encode(fact)).toMatchObject({ traceparent, tracestate: "a=1" })
    expect(Envelope.fromFact(store(fact), 1).metadata).toMatchObject({ traceparent, tracestate: "a=1" })
    const own = Envelope.toFact({ id: "id", name: "a:b", data: 1, metadata: traced }, "s", 1, { traceparent: "00-2", tracestate: undefined })
    expect(own.attributes).toMatchObject({ traceparent: "00-2" })
    expect(own.attributes).not.toHaveProperty("tracestate")
  })

  it.prop("an imported trace comes out as it came in, also one that is none", [
    Schema.Struct({ traceparent: Schema.optionalKey(Schema.Union([Schema.Literals([traceparent, "00-1", ""]), Schema.String])), tracestate: Schema.optionalKey(Schema.String) })
  ], ([attributes]) => {
    const fact = store({ id: "i", source: "/x", name: "t", streamId: "s", data: 1, time: undefined, attributes: { correlationid: "i", ...attributes } })
    expect(Envelope.toFact(Envelope.fromFact(fact, 1), "s", 1).attributes).toEqual(fact.attributes)
  })

  it("are valid CloudEvents", () => {
    const fact = Envelope.toFact({ id: "id", name: "a:b", data: 1, metadata }, "s", 1)
    expect(CloudEvent.decode(CloudEvent.encode(fact))).toMatchObject({ _tag: "Success", success: fact })
  })

  it("an imported event is its own root, whatever its attributes claim to be", () => {
    const fact = store({ id: "i", source: "/x", name: "t", streamId: "s", data: 1, time: undefined, attributes: { subject: null, depth: "deep", correlationid: 7 } })
    expect(Envelope.fromFact(fact, 1).metadata).toMatchObject({ correlationId: "i", depth: 0, source: "/x", principal: "owner" })
    for (const depth of [-1, 0.5, 1e300, Number.NaN]) expect(Envelope.fromFact({ ...fact, attributes: { depth } }, 1).metadata.depth).toBe(0)
  })
})

describe("receivedFact", () => {
  const sent = { id: "i", source: "/x", name: "a:b", streamId: "/x", data: 1, time: "2001-02-03T04:05:06.789123Z" }
  const received = (attributes: object, principal = "ann") =>
    Envelope.receivedFact({ ...sent, attributes: { ...attributes } }, "s-1", { n: 1 }, principal)

  it("keeps what is the sender's to say", () => {
    expect(received({ subject: null, rating: 5, clientid: "c", traceparent: "00-1" })).toEqual({
      ...sent, streamId: "s-1", data: { n: 1 }, attributes: { rating: 5, clientid: "c", traceparent: "00-1", principal: "ann" }
    })
  })

  it("and nothing of what KSI says: who it was, and what caused it", () => {
    const forged = { principal: "bob", correlationid: "root", causationid: "parent", depth: 63 }
    expect(received(forged).attributes).toEqual({ clientcorrelationid: "root", principal: "ann" })
    expect(received(forged, "owner").attributes).toEqual({ clientcorrelationid: "root" })
    expect(received({ ...forged, clientcorrelationid: "label" }).attributes).toEqual({ clientcorrelationid: "label", principal: "ann" })
  })
})
