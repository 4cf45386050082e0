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
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Activity } from "./bus/Activity.ts"
import { DeadLetters } from "./bus/DeadLetters.ts"
import { Idempotency } from "./bus/Idempotency.ts"
import { Journal } from "./bus/Journal.ts"
import { KsiService } from "./bus/KsiService.ts"
import * as Router from "./bus/Router.ts"
import * as Subscription from "./bus/Subscription.ts"
import type { KsiError } from "./event/KsiError.ts"
import * as ActivityTable from "./store/ActivityTable.ts"
import * as Consumer from "./store/Consumer.ts"
import * as DeadLetterTable from "./store/DeadLetterTable.ts"
import * as EventStore from "./store/EventStore.ts"
import * as IdempotencyTable from "./store/IdempotencyTable.ts"
import * as Permissions from "./store/Permissions.ts"
import * as Projection from "./store/Projection.ts"
import * as ReadModel from "./store/ReadModel.ts"
import * as SqliteEventStore from "./store/SqliteEventStore.ts"
import * as StoreMaintenance from "./store/StoreMaintenance.ts"
import type * as Listener from "./wire/Listener.ts"
import * as Remote from "./wire/Remote.ts"

/** What a layer of this module provides: the five words, and the parts that plugins build on. */
export type Runtime =
  | KsiService
  | Router.Router
  | Subscription.Subscriptions
  | EventStore.EventStore
  | Journal
  | Activity
  | DeadLetters
  | Idempotency
  | Permissions.Permissions
  | Projection.Projections
  | ReadModel.ReadModels
  | Consumer.Consumers

// One after the other, each in the context of those before it: a layer for each part takes longer to build than the part, and
// a test starts a runtime for every scenario.

// The permissions come first: router and subscriptions ask them who may.
const bus = Effect.gen(function*() {
  const permissions = yield* Permissions.make
  const below = Context.add(permissions, Subscription.Subscriptions, yield* Effect.provideContext(Subscription.make, permissions))
  const router = yield* Effect.provideContext(Router.make, below)
  return Context.add(Context.merge(below, router), Projection.Projections, Projection.makeProjections())
})

const inMemory = (options?: ActivityTable.Options): Layer.Layer<Runtime> =>
  Layer.effectContext(Effect.gen(function*() {
    const store = yield* EventStore.inMemory
    const stores = Context.make(EventStore.EventStore, store).pipe(
      Context.add(Journal, store),
      Context.add(Activity, yield* ActivityTable.inMemory(options)),
      Context.add(DeadLetters, yield* DeadLetterTable.inMemory),
      Context.add(Idempotency, yield* IdempotencyTable.inMemory),
      Context.add(StoreMaintenance.StoreMaintenance, StoreMaintenance.makeMemory()),
      Context.add(ReadModel.ReadModels, yield* Effect.provideService(ReadModel.inMemory, EventStore.EventStore, store)),
      Context.add(Consumer.Consumers, yield* Effect.provideService(Consumer.inMemory, EventStore.EventStore, store))
    )
    // There is nothing yet that could not be read.
    return Context.merge(stores, yield* Effect.orDie(Effect.provideContext(bus, stores)))
  }))

/** The tag of the five words, with its layers. */
export class Ksi extends KsiService {
  /**
   * Serves a group's events until the layer closes. Asks in its type for exactly the group's handlers: a missing one
   * does not compile. Fails with `PluginInvalid` for a name that is defined otherwise, handled already or reserved.
   */
  static readonly serve = Router.serve

  /**
   * A module for the daemon: the layer itself, of which the compiler checks that nothing is missing but what the daemon
   * gives. Handlers that were forgotten do not compile here.
   */
  static readonly module = <E>(layer: Layer.Layer<never, E, Runtime>): Layer.Layer<never, E, Runtime> => layer

  /**
   * Lets other programs reach this runtime at a Unix socket, in a directory that only its owner can enter: a daemon in a program.
   * They may work for its consumer groups. Fails with `ListenFailed`.
   */
  static readonly listen = (
    options: Listener.UnixOptions
  ): Layer.Layer<Listener.Listener, KsiError, Router.Router | Subscription.Subscriptions | Consumer.Consumers> =>
    // What speaks the wire is loaded by who needs it.
    Layer.unwrap(Effect.map(
      Effect.promise(() => Promise.all([import("./wire/Control.ts"), import("./wire/Listener.ts"), import("./plugins/Consumers.ts")])),
      ([control, { layerUnix }, consumers]) => Layer.mergeAll(control.layer, consumers.layer, layerUnix(options))
    ))

  /** Everything in memory, gone with the process. For tests and scripts. */
  static readonly layerMemory: Layer.Layer<Runtime> = inMemory()

  /** As `layerMemory`, with what is kept of requests. */
  static readonly layerMemoryWith: (options: ActivityTable.Options) => Layer.Layer<Runtime> = inMemory

  /**
   * Everything that is kept, in one SQLite file. Fails with `StoreLocked` when another process writes it, and with
   * `StoreFailure` when it cannot be opened.
   */
  static readonly layerSqlite = (options: SqliteEventStore.Options): Layer.Layer<Runtime, KsiError> =>
    Layer.effectContext(bus).pipe(Layer.provideMerge(SqliteEventStore.layer(options)))

  /**
   * Everything in a daemon, which a program reaches at a URL (`unix:var/run/daemon.sock`); the program itself stays as it is, and may
   * work for consumer groups there (`Consumer.layer`). Fails with `ConnectionLost` where nobody answers; a connection that is lost later comes
   * back by itself.
   */
  static readonly layerRemote = (options: Remote.Options): Layer.Layer<KsiService | Remote.Remote | Consumer.Consumers, KsiError> =>
    Layer.unwrap(Effect.map(
      Effect.promise(() => import("./plugins/RemoteConsumers.ts")),
      (consumers) => Layer.provideMerge(consumers.layer, Remote.layer(options))
    ))
}
