/**
 * The face of KSI: the five words (`call`, `emit`, `stream`, `subscribe`, `dispatch`) and the layers that stand behind
 * them.
 *
 * The rule: a program says what it needs (`Ksi`), a layer says what backs it. Swap the layer and the program runs in a
 * test, in a script, or in the daemon.
 *
 * **Example**
 *
 * ```ts
 * const Main = Ksi.serve(Stock).pipe(Layer.provide(StockHandlers), Layer.provideMerge(Ksi.layerMemory))
 * const program = Effect.gen(function*() {
 *   const ksi = yield* Ksi
 *   const { position } = yield* ksi.emit(Reserved, { sku: "tea", quantity: 1 })
 *   return Number(position)
 * })
 * yield* program.pipe(Effect.provide(Main))   // 1
 * ```
 */
import * as Layer from "effect/Layer"
import type { Activity } from "./bus/Activity.ts"
import type { DeadLetters } from "./bus/DeadLetters.ts"
import type { Idempotency } from "./bus/Idempotency.ts"
import type { Journal } from "./bus/Journal.ts"
import { KsiService } from "./bus/KsiService.ts"
import { Router, serve } from "./bus/Router.ts"
import { Subscriptions } from "./bus/Subscription.ts"
import type { KsiError } from "./event/KsiError.ts"
import * as ActivityTable from "./store/ActivityTable.ts"
import * as DeadLetterTable from "./store/DeadLetterTable.ts"
import * as EventStore from "./store/EventStore.ts"
import * as IdempotencyTable from "./store/IdempotencyTable.ts"
import { Permissions } from "./store/Permissions.ts"
import * as Projection from "./store/Projection.ts"
import * as SqliteEventStore from "./store/SqliteEventStore.ts"

/** What a layer of this module provides: the five words, and the parts that plugins build on. */
export type Runtime =
  | KsiService
  | Router
  | Subscriptions
  | EventStore.EventStore
  | Journal
  | Activity
  | DeadLetters
  | Idempotency
  | Permissions
  | Projection.Projections

// The permissions come first: router and subscriptions ask them who may.
const bus = Layer.merge(Router.layer, Projection.Projections.layer).pipe(
  Layer.provideMerge(Subscriptions.layer),
  Layer.provideMerge(Permissions.layer)
)

const inMemory = (options?: ActivityTable.Options): Layer.Layer<Runtime> =>
  bus.pipe(
    Layer.provideMerge(Layer.mergeAll(
      EventStore.layerMemory,
      ActivityTable.layerMemory(options),
      DeadLetterTable.layerMemory,
      IdempotencyTable.layerMemory
    )),
    // There is nothing yet that could not be read.
    Layer.orDie
  )

/** The tag of the five words, with its layers. */
export class Ksi extends KsiService {
  /**
   * Serves a group's events until the layer closes. Asks in its type for exactly the group's handlers: a missing one
   * does not compile. Fails with `PluginInvalid` for a name that is defined otherwise, handled already or reserved.
   */
  static readonly serve = serve

  /**
   * A module for the daemon: the layer itself, of which the compiler checks that nothing is missing but what the daemon
   * gives. Handlers that were forgotten do not compile here.
   */
  static readonly module = <E>(layer: Layer.Layer<never, E, Runtime>): Layer.Layer<never, E, Runtime> => layer

  /** Everything in memory, gone with the process. For tests and scripts. */
  static readonly layerMemory: Layer.Layer<Runtime> = inMemory()

  /** As `layerMemory`, with what is kept of requests. */
  static readonly layerMemoryWith: (options: ActivityTable.Options) => Layer.Layer<Runtime> = inMemory

  /**
   * Everything that is kept, in one SQLite file. Fails with `StoreLocked` when another process writes it, and with
   * `StoreFailure` when it cannot be opened.
   */
  static readonly layerSqlite = (options: SqliteEventStore.Options): Layer.Layer<Runtime, KsiError> =>
    bus.pipe(Layer.provideMerge(SqliteEventStore.layer(options)))
}
