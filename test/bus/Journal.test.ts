import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { Journal } from "../../src/bus/Journal.ts"
import type { NewFact } from "../../src/event/CloudEvent.ts"
import * as EventStore from "../../src/store/EventStore.ts"

const fact = (id: string): NewFact => ({
  id, source: "/t", name: "a:b", streamId: "s", data: { id }, time: undefined, attributes: {}
})

describe("the journal that the event store provides", () => {
  it.effect("listeners hear of a commit in order, before its append answers, until their scope closes", () =>
    Effect.gen(function*() {
      const journal = yield* Journal
      const heard: Array<number> = []
      yield* Effect.scoped(Effect.gen(function*() {
        yield* journal.listen((facts) => heard.push(...facts.map(({ position }) => position)))
        yield* journal.append({ facts: [fact("1"), fact("2")] })
        expect(heard).toEqual([1, 2])
        yield* journal.append({ facts: [fact("1")] })
        expect(heard).toEqual([1, 2])
      }))
      yield* journal.append({ facts: [fact("3")] })
      expect(heard).toEqual([1, 2])
      expect(journal.head()).toBe(3)
    }).pipe(Effect.provide(EventStore.layerMemory)))

  it.effect("is the event store itself, not a copy", () =>
    Effect.gen(function*() {
      const journal = yield* Journal
      const store = yield* EventStore.EventStore
      yield* journal.append({ facts: [fact("1")] })
      expect(store.head()).toBe(1)
      expect((yield* store.byId("1")).map(({ version }) => version)).toEqual([1])
    }).pipe(Effect.provide(EventStore.layerMemory)))
})
