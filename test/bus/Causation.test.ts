import { describe, expect, it } from "@effect/vitest"
import { Context, Effect } from "effect"
import * as Causation from "../../src/bus/Causation.ts"
import * as Envelope from "../../src/event/Envelope.ts"

const counted = () => {
  let made = 0
  const ids: Envelope.Ids = () => `id-${++made}`
  return { ids, made: () => made }
}

describe("LiveEnvelope", () => {
  it("knows whose handler made it, however indirectly", () => {
    const { ids } = counted()
    const make = (parent?: Causation.LiveEnvelope) => new Causation.LiveEnvelope("a:b", {}, parent, Causation.own, 5, ids)
    const root = make()
    const child = make(root)
    const grandchild = make(child)
    expect([grandchild.comesFrom(root), grandchild.comesFrom(child), child.comesFrom(grandchild), root.comesFrom(root), make().comesFrom(root)])
      .toEqual([true, true, false, false, false])
  })

  it("makes no id until somebody reads one, and then one only", () => {
    const { ids, made } = counted()
    const root = new Causation.LiveEnvelope("a:b", {}, undefined, Causation.own, 5, ids)
    const child = new Causation.LiveEnvelope("c:d", {}, root, Causation.own, 6, ids)
    expect(child.depth).toBe(1)
    expect(made()).toBe(0)
    expect(root.id).toBe(root.id)
    expect(made()).toBe(1)
  })

  it("a root is its own correlation; a child inherits it and names its cause, whatever is read first", () => {
    for (const childFirst of [true, false]) {
      const { ids } = counted()
      const root = new Causation.LiveEnvelope("a:b", {}, undefined, Causation.own, 5, ids)
      const child = new Causation.LiveEnvelope("c:d", {}, root, Causation.own, 6, ids)
      const grandchild = new Causation.LiveEnvelope("e:f", {}, child, Causation.own, 7, ids)
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
    const root = new Causation.LiveEnvelope("a:b", {}, undefined, origin, 5, ids)
    expect(Causation.originOf(root)).toEqual({ ...origin, idempotencyKey: undefined })
    expect(Causation.originOf(undefined)).toBe(Causation.own)
  })

  it("what a stored fact causes continues its chain", () => {
    const { ids } = counted()
    const root = new Causation.LiveEnvelope("a:b", {}, undefined, { ...Causation.own, principal: "node:x" }, 5, ids)
    const stored = Envelope.fromFact(
      { ...Envelope.toFact(root, "s", {}), position: 1, version: 1, timestamp: 5, recordedAt: 5 },
      {}
    )
    const child = new Causation.LiveEnvelope("c:d", {}, stored, Causation.originOf(stored), 6, ids)
    expect(child.metadata).toMatchObject({
      correlationId: root.id, causationId: root.id, depth: 1, principal: "node:x"
    })
  })
})

describe("Current", () => {
  it.effect("is nothing outside of a handler, and stays with its fiber", () =>
    Effect.gen(function*() {
      expect(yield* Causation.Current).toBeUndefined()
      const { ids } = counted()
      const envelope = new Causation.LiveEnvelope("a:b", {}, undefined, Causation.own, 5, ids)
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
