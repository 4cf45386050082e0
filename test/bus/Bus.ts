import { Effect, Layer } from "effect"
import { Activity, type Ended } from "../../src/bus/Activity.ts"
import { DeadLetters, type NewLetter } from "../../src/bus/DeadLetters.ts"
import { Router } from "../../src/bus/Router.ts"
import { Subscriptions } from "../../src/bus/Subscription.ts"
import * as EventStore from "../../src/store/EventStore.ts"

/** The bus over a store in memory, which tells of every request that has ended and of every dead letter. */
export const telling = (ended: (request: Ended) => void, letter: (letter: NewLetter) => void = () => {}) =>
  Router.layer.pipe(
    Layer.provideMerge(Subscriptions.layer),
    Layer.provideMerge(Layer.mergeAll(
      EventStore.layerMemory,
      Layer.succeed(Activity, {
        isOn: true,
        record: (request) => (ended(request), undefined),
        query: () => Effect.succeed({ records: [], total: 0 }),
        flush: Effect.void
      }),
      Layer.effect(DeadLetters, Effect.map(DeadLetters, (none) => ({ ...none, record: letter }))).pipe(Layer.provide(DeadLetters.layerOff))
    ))
  )
