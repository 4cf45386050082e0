/**
 * Read models: the states of a projection, kept by key and brought up to date behind the store, or with every fact in its own
 * transaction (`mode: "inline"`), so that asking for one is one look and no fold.
 *
 * The rule: states and the position they stand for are written together. So every fact counts once, whatever dies when;
 * a fact that cannot be folded stops its model with a failure that names it, and is never skipped; what readers see is
 * always a whole version of the model. Reducers need no services: building one anew can do nothing else.
 *
 * When the projection's code is another than the kept states were made with (its `fingerprint`), or on request (`rebuild`), a
 * new version is folded from the first fact beside the old one, which is asked meanwhile; when it has caught up it takes over
 * in one step. A process that dies in between goes on where it was.
 *
 * **Example**
 *
 * ```ts
 * const Held = Projection.make("held-by-sku", {
 *   events: [Reserved], state: Schema.Int, initial: 0,
 *   key: ({ sku }) => sku,
 *   on: { [Reserved.name]: (held, { quantity }) => held + quantity }
 * })
 * yield* Layer.build(ReadModel.layer(Held))
 * const ksi = yield* KsiService
 * const { position } = yield* ksi.emit(Reserved, { sku: "tea", quantity: 2 })
 * yield* ReadModel.waitFor(Held, position)
 * const tea = yield* ReadModel.get(Held, "tea")
 * Option.getOrUndefined(tea)?.state           // 2
 * ```
 *
 * One that changes with the facts has them as soon as they are stored, and refuses those that it cannot fold:
 *
 * ```ts
 * const Free = Projection.make("free-by-sku", {
 *   events: [Reserved], state: Schema.Int, initial: 3,
 *   on: { [Reserved.name]: (free, { quantity }) => {
 *     if (quantity > free) throw new Error(`only ${free} are left`)
 *     return free - quantity
 *   } }
 * })
 * yield* Layer.build(ReadModel.layer(Free, { mode: "inline" }))
 * const ksi = yield* KsiService
 * yield* ksi.emit(Reserved, { sku: "tea", quantity: 2 })
 * const tooMany = yield* Effect.flip(ksi.emit(Reserved, { sku: "tea", quantity: 2 }))
 * tooMany.reason.problem                      // "stock:reserved in \"stock-tea\": only 1 are left"
 * ```
 *
 * A stream that is deleted takes the state along that was kept under its id; what it did under keys of the projection's own
 * making stays, for nobody knows whose it is.
 *
 * **Gotchas** A model is behind the store by a moment: `waitFor` the position of what was written to read it. One that is inline
 * is not, and makes its appends as slow as its reducers; facts that it does not fold cost nothing. KSI's own streams (`ksi-…`)
 * are left out. The fingerprint sees the text of the reducers, not what they call: say another `version` then.
 * When code changes with a restart, the old version answers as of where it was: nobody has its code any more. Where its
 * states are none of the new schema, `get` and `list` fail until the new version takes over.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as EventName from "../event/EventName.ts"
import * as Json from "../event/Json.ts"
import * as KsiError from "../event/KsiError.ts"
import { Limits } from "../event/Limits.ts"
import { EventStore } from "./EventStore.ts"
import { onForget } from "./Forgetting.ts"
import { type Failure, follow, type Folding, type Progress, progressOf } from "./internal/modelFolding.ts"
import { type Inline, makeInline } from "./internal/modelInline.ts"
import * as ModelRows from "./internal/ModelRows.ts"
import * as StoreFile from "./internal/StoreFile.ts"
import { type Format, formatOf, type Projection } from "./Projection.ts"

export type { Failure } from "./internal/modelFolding.ts"

/** The state of one key. */
export interface Entry<out S> {
  readonly key: string
  readonly state: S
  /** The fact that changed it last. */
  readonly position: number
}

/** Which states, in the order of their keys (by code unit). */
export interface Query {
  /** Only keys that begin so. */
  readonly prefix?: string | undefined
  /** Only keys after this one: the last of the page before. */
  readonly after?: string | undefined
  /** Default: `pageItems` of the limits. */
  readonly limit?: number | undefined
}

/** How a model is. */
export interface Status {
  readonly name: string
  /** `idle`: it is kept, and nobody here has its code. `rebuilding`: a new version is under way. */
  readonly status: "following" | "rebuilding" | "failed" | "idle"
  /** `inline`: readers see every fact as soon as it is stored. One that is yet to catch up is `async`. */
  readonly mode: "async" | "inline"
  /** What readers see stands for this position. */
  readonly position: number
  /** Positions that readers do not see yet. */
  readonly lag: number
  /** How far the new version is. */
  readonly rebuilt: number | undefined
  /** The fact that cannot be folded. */
  readonly failure: Failure | undefined
  /** Why it waits; it tries again. */
  readonly trouble: string | undefined
}

/** How a model is kept. */
export interface Options {
  /**
   * `async` (the default): behind the store, so that an append never waits for it, and a fact that cannot be folded stops the
   * model. `inline`: in the transaction of the append, so that a fact that is stored is in the state; one that cannot be folded
   * fails its append, and no other, with a `StoreFailure` that names the projection.
   */
  readonly mode?: "async" | "inline" | undefined
}

/** The read models of a runtime, by name; states as JSON. */
export class ReadModels extends Context.Service<ReadModels, {
  /** The state of a key, as JSON. `NotFound` where there is no such model. */
  readonly get: (name: string, key: string) => Effect.Effect<Entry<unknown> | undefined, KsiError.KsiError>
  /** States, as JSON. `NotFound` where there is no such model. */
  readonly list: (name: string, query?: Query) => Effect.Effect<ReadonlyArray<Entry<unknown>>, KsiError.KsiError>
  /** Every model that is kept, by name. */
  readonly status: Effect.Effect<ReadonlyArray<Status>, KsiError.KsiError>
  /** Those that have failed, from memory. */
  readonly failures: () => ReadonlyArray<Failure & { readonly name: string }>
  /** Waits until readers see everything up to a position; fails where the model fails before. */
  readonly waitFor: (name: string, position: number) => Effect.Effect<void, KsiError.KsiError>
  /** Folds a model from the first fact once more, beside the version that is asked. `NotFound` where nobody has its code. */
  readonly rebuild: (name: string) => Effect.Effect<void, KsiError.KsiError>
  /** Keeps a projection's states until the scope closes; `PluginInvalid` where somebody does already. See `layer`. */
  readonly keep: <S>(projection: Projection<S>, options?: Options) => Effect.Effect<void, KsiError.KsiError, Scope.Scope | EventStore>
}>()("ksi/store/ReadModels") {}

// ------------------------------------------------------------------------------------------------------------ keeping

/** States of a dropped version that are deleted in one step. */
const sweepRows = 500

/** A model whose code is here. */
interface Kept {
  serving: Progress | undefined
  building: Progress | undefined
  /** Position of a version that is asked and that nobody's code follows. */
  frozen: number
  readonly rebuild: Effect.Effect<void, KsiError.KsiError>
  readonly waiting: Set<() => void>
  /** Whether the version that is asked changes with the facts. */
  isInline: boolean
}

const lagOf = Metric.gauge("ksi_read_model_lag", { description: "positions that a read model is behind the store" })

const stopped = (name: string, { position, problem }: Failure) =>
  KsiError.make(new KsiError.StoreFailure({ operation: `keep the read model "${name}"`, problem: `it stopped at position ${position}: ${problem}` }))

/** How states are kept: only `Projection.make` knows what code they come from. */
const formatFor = <S>(projection: Projection<S>): Effect.Effect<Format<S>, KsiError.KsiError> => {
  const format = formatOf(projection)
  if (format !== undefined) return Effect.succeed(format)
  const plugin = `the read model "${projection.name}"`
  return KsiError.fail(new KsiError.PluginInvalid({ plugin, problem: "it is a copy of a projection; only what Projection.make made can be kept" }))
}

/** What there is to do in a model's scope. */
interface Place<S> {
  readonly projection: Projection<S>
  readonly rows: ModelRows.ModelRows
  readonly store: EventStore["Service"]
  readonly kept: Kept
  readonly moved: () => void
}

/** Lets a version change with the facts from now on, and the one before it no more. */
const makeJoining = <S>({ kept, moved, rows, store }: Place<S>) => {
  let inline: Inline | undefined
  let leave = () => {}
  // Nothing of it is lost where this cannot be written: a start folds it again.
  const end = Effect.suspend(() => {
    const was = inline
    leave()
    inline = undefined
    return was === undefined ? Effect.void : Effect.ignore(StoreFile.attempt("write read models", () => was.save(store.head())))
  })
  const join = (folding: Folding<S>, { role, set }: ModelRows.ModelSet, progress: Progress, taken: () => void) =>
    StoreFile.attempt("write read models", () => {
      const { position } = progress
      // In one turn from here on: no fact comes between what is folded and what takes part.
      if (store.head() > position) return false
      rows.now.commit({ set, from: position, position, rows: [], takeOver: true })
      leave()
      inline = makeInline(folding, set, position)
      leave = store.driver.join(inline)
      if (role === "building") taken()
      kept.serving = { set, failure: undefined, trouble: undefined, get position() { return store.head() } }
      kept.isInline = true
      moved()
      return true
    })
  // Nobody waits for long: what is stored is in it.
  const listening = store.listen(moved, () => kept.waiting.size === 0)
  return { end, join, listening }
}

/** The fibers that keep one model, in the scope of whoever keeps it. */
const keepOne = Effect.fnUntraced(function*<S>(projection: Projection<S>, rows: ModelRows.ModelRows, isInline: boolean) {
  const { name } = projection
  const format = yield* formatFor(projection)
  const store = yield* EventStore
  const { pageItems } = yield* Limits
  const scope = yield* Effect.scope
  const lag = Metric.withAttributes(lagOf, { projection: name })
  const waiting = new Set<() => void>()
  let followers: ReadonlyArray<{ readonly set: number; readonly fiber: Fiber.Fiber<unknown, unknown> }> = []

  const moved = () => {
    const { position = kept.frozen } = kept.serving ?? {}
    lag.updateUnsafe(Math.max(0, store.head() - position), Context.empty())
    for (const wake of waiting) wake()
  }
  // Deleting can wait: what is left over is found again at the next start.
  const sweep = Effect.ignore(Effect.repeat(Effect.tap(rows.sweep(sweepRows), () => Effect.yieldNow), { while: (more) => more }))
  const taken = (progress: Progress) => () => {
    const old = followers.filter(({ set }) => set !== progress.set)
    followers = followers.filter(({ set }) => set === progress.set)
    kept.serving = progress
    kept.building = undefined
    const end = Effect.forEach(old, ({ fiber }) => Fiber.interrupt(fiber), { discard: true })
    run(Effect.andThen(end, sweep))
  }
  const forked = yield* Effect.context<never>()
  const run = (effect: Effect.Effect<void>) => void Effect.runForkWith(forked)(Effect.forkIn(effect, scope))

  const begin = Effect.fnUntraced(function*(set: ModelRows.ModelSet) {
    const progress = progressOf(set)
    if (set.role === "serving") kept.serving = progress
    else kept.building = progress
    const folding = { store, rows, projection, format, batch: pageItems, moved, isInline }
    const told = Effect.suspend(() =>
      progress.failure === undefined ? Effect.void : Effect.logError(`the read model "${name}" stopped`, stopped(name, progress.failure).message))
    const arrival = { taken: taken(progress), join: joining.join(folding, set, progress, taken(progress)) }
    const fiber = yield* Effect.forkIn(Effect.andThen(follow(folding, set, progress, arrival), told), scope)
    followers = [...followers, { set: set.set, fiber }]
  })
  const start = Effect.fnUntraced(function*(rebuild: boolean) {
    const building = kept.building?.set
    for (const set of yield* rows.open(name, format.fingerprint, rebuild)) {
      if (followers.some((follower) => follower.set === set.set)) continue
      if (set.role === "serving" && set.fingerprint !== format.fingerprint) kept.frozen = set.position
      else yield* begin(set)
    }
    const dropped = followers.filter(({ set }) => set === building)
    if (!rebuild || building === undefined) return
    followers = followers.filter(({ set }) => set !== building)
    yield* Effect.forEach(dropped, ({ fiber }) => Fiber.interrupt(fiber), { discard: true })
  })
  const kept: Kept = {
    serving: undefined, building: undefined, frozen: 0, waiting, isInline: false, rebuild: Effect.uninterruptible(start(true))
  }
  const joining = makeJoining({ projection, rows, store, kept, moved })
  yield* Effect.addFinalizer(() => joining.end)
  if (isInline) yield* joining.listening
  yield* start(false)
  yield* Effect.forkIn(sweep, scope)
  return kept
})

// ----------------------------------------------------------------------------------------------------------- asking

const jsonOf = ({ key, position, state }: ModelRows.StateRow): Entry<unknown> => {
  // What no double holds stays as it was written.
  const json = Json.parse(state)
  return { key, state: json, position }
}

const statusOf = (name: string, sets: ReadonlyArray<ModelRows.ModelSet>, kept: Kept | undefined, head: number): Status => {
  const serving = sets.find(({ role }) => role === "serving")
  const building = sets.find(({ role }) => role === "building")
  const position = kept?.serving?.position ?? serving?.position ?? 0
  const failure = kept?.building?.failure ?? kept?.serving?.failure
  return {
    name,
    status: kept === undefined ? "idle" : failure !== undefined ? "failed" : kept.building !== undefined ? "rebuilding" : "following",
    mode: kept?.isInline === true ? "inline" : "async",
    position,
    lag: Math.max(0, head - position),
    rebuilt: kept?.building?.position ?? building?.position,
    failure,
    trouble: kept?.building?.trouble ?? kept?.serving?.trouble
  }
}

/** Waits until a model that is kept here is at a position. */
const arrived = (name: string, kept: Kept, position: number): Effect.Effect<void, KsiError.KsiError> =>
  Effect.callback<void, KsiError.KsiError>((resume) => {
    const look = (): boolean => {
      const { building, frozen, serving } = kept
      if ((serving?.position ?? frozen) >= position) resume(Effect.void)
      else {
        // A version that is being built may still get there where the one that is asked cannot.
        const failure = building === undefined ? serving?.failure : building.failure
        if (failure === undefined) return false
        resume(Effect.fail(stopped(name, failure)))
      }
      kept.waiting.delete(look)
      return true
    }
    if (look()) return
    kept.waiting.add(look)
    return Effect.sync(() => void kept.waiting.delete(look))
  })

/** Waits until an inline model changes with the facts, or it is known that this will not be soon. */
const caughtUp = (kept: Kept): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const look = () => {
      const { isInline, serving, waiting } = kept
      if (!isInline && serving !== undefined && serving.failure === undefined && serving.trouble === undefined) return
      waiting.delete(look)
      resume(Effect.void)
    }
    kept.waiting.add(look)
    look()
    return Effect.sync(() => void kept.waiting.delete(look))
  })

const make = (rows: ModelRows.ModelRows): Effect.Effect<ReadModels["Service"], never, EventStore> =>
  Effect.map(Effect.context<EventStore>(), (context) => {
    const store = Context.get(context, EventStore)
    const keptHere = new Map<string, Kept>()
    const names = Effect.map(rows.sets(), (sets) => new Set(sets.map(({ name }) => name)))
    const missing = (name: string, known: Iterable<string>) =>
      KsiError.fail(new KsiError.NotFound({ what: "read model", id: name, similar: EventName.nearest(name, [...known]) }))
    const known = (name: string) =>
      keptHere.has(name)
        ? Effect.void
        : Effect.flatMap(names, (all) => all.has(name) ? Effect.void : missing(name, all))
    const here = (name: string) =>
      Effect.suspend(() => {
        const kept = keptHere.get(name)
        return kept === undefined ? missing(name, keptHere.keys()) : Effect.succeed(kept)
      })
    return {
      get: (name, key) => Effect.andThen(known(name), Effect.map(rows.get(name, key), (row) => row === undefined ? undefined : jsonOf(row))),
      list: (name, query = {}) =>
        Effect.flatMap(Limits, ({ pageItems }) =>
          Effect.andThen(
            known(name),
            Effect.map(rows.list(name, { ...query, limit: Math.min(query.limit ?? pageItems, pageItems) }), (found) => found.map(jsonOf))
          )),
      status: Effect.map(rows.sets(), (sets) =>
        [...Map.groupBy(sets, ({ name }) => name)].map(([name, versions]) => statusOf(name, versions, keptHere.get(name), store.head()))),
      failures: () =>
        [...keptHere].flatMap(([name, { building, serving }]) => {
          const failure = building?.failure ?? serving?.failure
          return failure === undefined ? [] : [{ name, ...failure }]
        }),
      waitFor: (name, position) => Effect.flatMap(here(name), (kept) => arrived(name, kept, position)),
      rebuild: (name) => Effect.flatMap(here(name), ({ rebuild }) => rebuild),
      keep: (projection, { mode } = {}) => {
        const { name } = projection
        const taken = new KsiError.PluginInvalid({ plugin: `the read model "${name}"`, problem: "somebody keeps it already" })
        const kept = Effect.suspend(() => keptHere.has(name) ? KsiError.fail(taken) : keepOne(projection, rows, mode === "inline"))
        // Its fibers end before its name is free.
        const begun = Effect.uninterruptible(Effect.gen(function*() {
          let isOurs = false
          yield* Effect.addFinalizer(() => Effect.sync(() => isOurs && keptHere.delete(name)))
          const one = yield* kept
          isOurs = true
          keptHere.set(name, one)
          return one
        }))
        return Effect.flatMap(begun, (one) => mode === "inline" ? caughtUp(one) : Effect.void)
      }
    }
  })

// ------------------------------------------------------------------------------------------------------------- layers

/** The states in the store's file. */
export const layerTable: Layer.Layer<ReadModels, KsiError.KsiError, StoreFile.StoreFile | EventStore> = Layer.effect(
  ReadModels,
  Effect.gen(function*() {
    const file = yield* StoreFile.StoreFile
    return yield* make(yield* StoreFile.attempt("open", () => ModelRows.makeTable(file)))
  })
)

/** The states in memory, gone with who has them. */
export const inMemory: Effect.Effect<ReadModels["Service"], never, EventStore> = Effect.gen(function*() {
  const rows = ModelRows.makeMemory()
  yield* onForget(rows.forget)
  return yield* make(rows)
})

/** `inMemory` as a layer. */
export const layerMemory: Layer.Layer<ReadModels, never, EventStore> = Layer.effect(ReadModels, inMemory)

/**
 * Keeps the states of a projection for as long as the layer lives, and follows the store. Fails with `PluginInvalid` where
 * somebody keeps one of this name already. An inline model is ready when it has caught up; where its code is new, the old
 * version answers until then and nobody waits; where it has failed, appends go on without it.
 */
export const layer = <S>(
  projection: Projection<S>,
  options: Options = {}
): Layer.Layer<never, KsiError.KsiError, ReadModels | EventStore> =>
  Layer.effectDiscard(Effect.flatMap(ReadModels, ({ keep }) => keep(projection, options)))

// ------------------------------------------------------------------------------------------------------------- asking

const typed = <S>(projection: Projection<S>) => (entry: Entry<unknown>): Effect.Effect<Entry<S>, KsiError.KsiError> =>
  Effect.flatMap(formatFor(projection), ({ decode }) => Effect.try({
    try: () => ({ ...entry, state: decode(entry.state) }),
    catch: (cause) => {
      const problem = `the state of "${entry.key}" is one of an older version (${KsiError.sentenceOf(cause)}); the new one is being built`
      return KsiError.make(new KsiError.StoreFailure({ operation: `read the read model "${projection.name}"`, problem }))
    }
  }))

/** The state of a key; none where no fact has counted for it. */
export const get = <S>(projection: Projection<S>, key: string): Effect.Effect<Option.Option<Entry<S>>, KsiError.KsiError, ReadModels> =>
  Effect.flatMap(ReadModels, (models) =>
    Effect.flatMap(models.get(projection.name, key), (entry) =>
      entry === undefined ? Effect.succeedNone : Effect.asSome(typed(projection)(entry))))

/** States in the order of their keys, a page of them. */
export const list = <S>(
  projection: Projection<S>,
  query?: Query
): Effect.Effect<ReadonlyArray<Entry<S>>, KsiError.KsiError, ReadModels> =>
  Effect.flatMap(ReadModels, (models) =>
    Effect.flatMap(models.list(projection.name, query), Effect.forEach(typed(projection))))

/** Waits until readers see everything up to a position; fails with `StoreFailure` where the model stops before. */
export const waitFor = <S>(projection: Projection<S>, position: number | bigint): Effect.Effect<void, KsiError.KsiError, ReadModels> =>
  Effect.flatMap(ReadModels, (models) => models.waitFor(projection.name, Number(position)))

/** Folds a model from the first fact once more, beside the version that is asked. */
export const rebuild = <S>(projection: Projection<S>): Effect.Effect<void, KsiError.KsiError, ReadModels> =>
  Effect.flatMap(ReadModels, (models) => models.rebuild(projection.name))
