import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Fiber, Option, Tracer } from "effect"
import * as Causation from "../../src/bus/Causation.ts"
import * as Envelope from "../../src/event/Envelope.ts"
import * as TraceContext from "../../src/event/TraceContext.ts"

const counted = () => {
  let made = 0
  const ids: Envelope.Ids = () => `id-${++made}`
  return { ids, made: () => made }
}

describe("LiveEnvelope", () => {
  it("knows whose handler made it, however indirectly", () => {
    const { ids } = counted()
    const make = (parent?: Causation.LiveEnvelope) => new Causation.LiveEnvelope("a:b", {}, parent, Causation.own, { now: () => 5, ids })
    const root = make()
    const child = make(root)
    const grandchild = make(child)
    expect([grandchild.comesFrom(root), grandchild.comesFrom(child), child.comesFrom(grandchild), root.comesFrom(root), make().comesFrom(root)])
      .toEqual([true, true, false, false, false])
  })

  it("makes no id until somebody reads one, and then one only", () => {
    const { ids, made } = counted()
    const root = new Causation.LiveEnvelope("a:b", {}, undefined, Causation.own, { now: () => 5, ids })
    const child = new Causation.LiveEnvelope("c:d", {}, root, Causation.own, { now: () => 6, ids })
    expect(child.depth).toBe(1)
    expect(made()).toBe(0)
    expect(root.id).toBe(root.id)
    expect(made()).toBe(1)
  })

  it("a root is its own correlation; a child inherits it and names its cause, whatever is read first", () => {
    for (const childFirst of [true, false]) {
      const { ids } = counted()
      const root = new Causation.LiveEnvelope("a:b", {}, undefined, Causation.own, { now: () => 5, ids })
      const child = new Causation.LiveEnvelope("c:d", {}, root, Causation.own, { now: () => 6, ids })
      const grandchild = new Causation.LiveEnvelope("e:f", {}, child, Causation.own, { now: () => 7, ids })
      const read = [() => grandchild.metadata, () => root.metadata]
      for (const look of childFirst ? read : read.toReversed()) look()
      expect(root.metadata).toMatchObject({ correlationId: root.id, causationId: undefined, depth: 0, timestamp: 5 })
      expect(grandchild.metadata).toMatchObject({ correlationId: root.id, causationId: child.id, depth: 2, timestamp: 7 })
      expect(new Set([root.id, child.id, grandchild.id]).size).toBe(3)
    }
  })

  it("a child has its client's labels and deadline, but not its idempotency key", () => {
    const { ids } = counted()
    const origin = {
      ...Causation.own, principal: "token:1", clientId: "cli", clientCorrelationId: "c0", deadline: 99, idempotencyKey: "k"
    }
    const root = new Causation.LiveEnvelope("a:b", {}, undefined, origin, { now: () => 5, ids })
    expect(Causation.originOf(root)).toEqual({ ...origin, idempotencyKey: undefined })
    expect(Causation.originOf(undefined)).toBe(Causation.own)
  })

  it("what a stored fact causes continues its chain", () => {
    const { ids } = counted()
    const root = new Causation.LiveEnvelope("a:b", {}, undefined, { ...Causation.own, principal: "node:x" }, { now: () => 5, ids })
    const stored = Envelope.fromFact(
      { ...Envelope.toFact(root, "s", {}), position: 1, version: 1, timestamp: 5, recordedAt: 5 },
      {}
    )
    const child = new Causation.LiveEnvelope("c:d", {}, stored, Causation.originOf(stored), { now: () => 6, ids })
    expect(child.metadata).toMatchObject({
      correlationId: root.id, causationId: root.id, depth: 1, principal: "node:x"
    })
  })
})

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
const other = "00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000aa-00"
const texts = ({ traceparent, tracestate }: TraceContext.Texts): TraceContext.Texts => ({ traceparent, tracestate })
const span = (parent: Tracer.AnySpan | undefined) =>
  new Tracer.NativeSpan({
    name: "s", parent: Option.fromUndefinedOr(parent), annotations: Context.empty(), links: [], startTime: 0n, kind: "internal", sampled: true
  })

describe("trace", () => {
  const { ids } = counted()
  const live = (parent: Envelope.Envelope | undefined, origin = Causation.originOf(parent)) =>
    new Causation.LiveEnvelope("a:b", {}, parent, origin, { now: () => 5, ids })
  const labelled = (labels: Partial<Causation.Origin>, parent?: Envelope.Envelope) =>
    live(parent, Causation.narrow(parent, Causation.originOf(parent), labels))

  it("is inherited where nobody makes spans, and nobody pays for it: the origin is shared", () => {
    const root = labelled({ traceparent, tracestate: "a=1" })
    const child = live(live(root))
    expect(texts(child.metadata)).toEqual({ traceparent, tracestate: "a=1" })
    expect(Causation.originOf(child)).toBe(Causation.originOf(root))
    expect([root.isTraceOwn, child.isTraceOwn]).toEqual([true, false])
    expect(texts(live(live(undefined)).metadata)).toEqual(TraceContext.none)
    expect(Causation.plain(child.metadata)).toMatchObject({ traceparent, tracestate: "a=1" })
  })

  it("a child names the span of what caused it, and its own parent once it is known", () => {
    const root = labelled({ traceparent, tracestate: "a=1" })
    const child = live(root)
    const outer = span(TraceContext.toSpan(texts(root.metadata)))
    Causation.setSpan(root, outer)
    expect(texts(root.metadata)).toEqual({ traceparent, tracestate: "a=1" })
    expect(texts(child.metadata)).toEqual({ traceparent: `00-${outer.traceId}-${outer.spanId}-01`, tracestate: "a=1" })
    const work = span(outer)
    Causation.setSpan(child, span(work))
    expect(child.metadata.traceparent).toBe(`00-${outer.traceId}-${work.spanId}-01`)
    expect(outer.traceId).toBe("4bf92f3577b34da6a3ce929d0e0e4736")
  })

  it("a label replaces it, without the state of the old one; a malformed one is ignored", () => {
    const root = labelled({ traceparent, tracestate: "a=1" })
    expect(texts(labelled({ traceparent: other }, root).metadata)).toEqual({ traceparent: other, tracestate: undefined })
    expect(texts(labelled({ traceparent: "00-1", tracestate: "b=2" }, root).metadata)).toEqual({ traceparent, tracestate: "a=1" })
    expect(texts(labelled({ tracestate: "b=2" }, root).metadata)).toEqual({ traceparent, tracestate: "a=1" })
    expect(texts(labelled({ traceparent: "00-1", tracestate: "b=2" }).metadata)).toEqual(TraceContext.none)
    Causation.setSpan(root, span(undefined))
    expect(labelled({ traceparent: other }, root).isTraceOwn).toBe(true)
    expect(labelled({ traceparent: other }, root).metadata.traceparent).toBe(other)
  })

  it("what a stored fact causes stays in the fact's trace; a malformed one is nobody's parent", () => {
    const stored = (attributes: Record<string, unknown>) =>
      Envelope.fromFact({
        id: "f", source: "/x", name: "a:b", streamId: "s", data: 1, time: undefined, attributes, position: 1, version: 1, timestamp: 5, recordedAt: 5
      }, 1)
    expect(texts(live(stored({ traceparent, tracestate: "a=1" })).metadata)).toEqual({ traceparent, tracestate: "a=1" })
    expect(live(stored({ traceparent })).isTraceOwn).toBe(false)
    expect(texts(live(stored({ traceparent: "00-1", tracestate: "a=1" })).metadata)).toEqual(TraceContext.none)
  })
})

describe("outgoing", () => {
  const asked = (context: Context.Context<never>) =>
    Effect.map(Effect.provideContext(Effect.withFiber((fiber: Fiber.Fiber<unknown, unknown>) => Effect.succeed(Causation.outgoing(fiber))), context), (found) => found && texts(found))
  it.effect("is that of the current span, else of the envelope being handled, else none", () =>
    Effect.gen(function*() {
      const envelope = new Causation.LiveEnvelope("a:b", {}, undefined, { ...Causation.own, traceparent, tracestate: "a=1" }, { now: () => 5, ids: () => "id" })
      const handled = Context.make(Causation.Current, envelope)
      const current = span(undefined)
      expect(yield* asked(Context.empty())).toBeUndefined()
      expect(yield* asked(handled)).toEqual({ traceparent, tracestate: "a=1" })
      expect((yield* asked(Context.add(handled, Tracer.ParentSpan, current)))?.traceparent).toBe(`00-${current.traceId}-${current.spanId}-01`)
      expect(yield* asked(Context.add(handled, Tracer.ParentSpan, Tracer.externalSpan({ traceId: "mine", spanId: "1" })))).toEqual({ traceparent, tracestate: "a=1" })
    }))
})

describe("Current", () => {
  it.effect("is nothing outside of a handler, and stays with its fiber", () =>
    Effect.gen(function*() {
      expect(yield* Causation.Current).toBeUndefined()
      const { ids } = counted()
      const envelope = new Causation.LiveEnvelope("a:b", {}, undefined, Causation.own, { now: () => 5, ids })
      const inside = Effect.gen(function*() {
        yield* Effect.yieldNow
        return yield* Causation.Current
      })
      const [one, other] = yield* Effect.all([
        Effect.provideContext(inside, Context.make(Causation.Current, envelope)),
        inside
      ], { concurrency: 2 })
      expect(one).toBe(envelope)
      expect(other).toBeUndefined()
    }))
})
