import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer } from "effect"
import { Journal } from "../../src/bus/Journal.ts"
import * as EventStore from "../../src/store/EventStore.ts"
import * as EventStoreSuite from "../../src/testing/EventStoreSuite.ts"

type Store = EventStore.EventStore["Service"]

/** The store in memory with one promise broken. */
const broken = (breakIt: (store: Store) => Partial<Store>) =>
  Layer.effectContext(Effect.gen(function*() {
    const store = yield* EventStore.EventStore
    const worse = { ...store, ...breakIt(store) }
    return yield* Effect.context<EventStore.EventStore | Journal>().pipe(
      Effect.provideService(EventStore.EventStore, worse),
      Effect.provideService(Journal, worse)
    )
  })).pipe(Layer.provide(EventStore.layerMemory))

describe("EventStoreSuite", () => {
  it("names each promise once", () => {
    const names = EventStoreSuite.cases.map(({ name }) => name)
    expect(new Set(names).size).toBe(names.length)
  })

  it.effect("a store that breaks a promise fails the case that names it, with an AssertionError", () =>
    Effect.gen(function*() {
      const defects: ReadonlyArray<readonly [promise: string, layer: Layer.Layer<EventStore.EventStore | Journal>]> = [
        ["`all` stores every fact or none", broken((store) => ({
          append: (request) => store.append({ ...request, mode: "each" })
        }))],
        ["an expected version must be the stream's", broken((store) => ({
          append: ({ facts, mode }) => store.append({ facts, mode })
        }))],
        ["readStream: by version", broken((store) => ({
          readStream: (options) => store.readStream({ ...options, backward: false })
        }))],
        ["listeners hear every commit", broken((store) => ({
          listen: (listener) => store.listen((facts) => queueMicrotask(() => listener(facts)))
        }))],
        ["the text of `time` is verbatim", broken((store) => ({
          append: (request) => store.append({
            ...request,
            facts: request.facts.map((fact) => ({ ...fact, time: fact.time?.toUpperCase() }))
          })
        }))]
      ]
      for (const [promise, layer] of defects) {
        const found = EventStoreSuite.cases.find(({ name }) => name.startsWith(promise))
        if (found === undefined) return expect.fail(`no case is called ${promise}`)
        const exit = yield* Effect.exit(Effect.provide(found.run, layer))
        if (Exit.isSuccess(exit)) return expect.fail(`nobody noticed: ${promise}`)
        expect(Cause.squash(exit.cause)).toHaveProperty("name", "AssertionError")
      }
    }))
})
