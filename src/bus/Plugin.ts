/**
 * A plugin is a Layer with a name: building it starts the plugin, its finalizers stop it, and the services that it
 * provides are there for the plugins that need it. `Plugins` starts them and knows how each is.
 *
 * The rule: plugins that are started together start in parallel. One that declares `needs: ["stock"]` starts after
 * `stock` and finds in its context what `stock` provides, and of the others nothing. They stop in reverse of one fixed
 * order: as they were named, each after those it needs. What cannot be wired is told all at once: of every plugin,
 * every fault.
 *
 * **Example**
 *
 * ```ts
 * class Rate extends Context.Service<Rate, number>()("Rate") {}
 * const bank = Plugin.make("bank", Layer.succeed(Rate, 3))
 * const shop = Plugin.make("shop", Layer.effectDiscard(Rate), { needs: ["bank"] })
 * const plugins = yield* Plugin.Plugins
 * yield* plugins.start([{ from: "shop.ts", load: Effect.succeed(shop) }, { from: "bank.ts", load: Effect.succeed(bank) }])
 * const list = yield* plugins.list
 * list.map(({ name, services, state }) => [name, state, services])
 * // [["shop", "running", []], ["bank", "running", ["Rate"]]]
 * ```
 *
 * **Gotchas** While a plugin starts, its Router takes a definition that collides as a fault to be told later and goes on,
 * so that a layer cannot catch it. What a plugin's layer needs is not known before it is built: of the services that
 * nobody provides only the first one that it asks for is named. Needs are not inherited: who uses the services of two
 * plugins names both. Handlers of one request count in the order in which they were registered: a plugin that adds one to
 * another plugin's event needs that plugin.
 *
 * Source: seed section 6.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type * as Event from "../event/Event.ts"
import * as EventName from "../event/EventName.ts"
import * as KsiError from "../event/KsiError.ts"
import { Router } from "./Router.ts"

// ------------------------------------------------------------------------------------------------------------- models

const TypeId = "~ksi/bus/Plugin"

/** A Layer with a name. */
export interface Plugin<out L extends Layer.Any = Layer.Any> {
  readonly [TypeId]: typeof TypeId
  readonly name: string
  readonly layer: L
  /** The plugins that must run before this one, whose services it is given. */
  readonly needs: ReadonlyArray<string>
}

/** How a plugin is. */
export interface Status {
  readonly name: string
  /** Where it comes from: the module's path. */
  readonly from: string
  readonly needs: ReadonlyArray<string>
  readonly state: "starting" | "running" | "failed" | "stopped"
  /** The events that it defined or handles, by name. */
  readonly events: ReadonlyArray<string>
  /** The keys of the services that it provides. */
  readonly services: ReadonlyArray<string>
  /** When it began to start, in milliseconds since 1970; none while it waits for those it needs. */
  readonly startedAt: number | undefined
  /** How many milliseconds it took to start; none before it runs. */
  readonly took: number | undefined
  /** Why it could not start. */
  readonly error: string | undefined
}

/** A plugin that may have to be read first; what it fails with is the problem, in a sentence. */
export interface Source {
  readonly from: string
  readonly load: Effect.Effect<Plugin, string>
}

// ------------------------------------------------------------------------------------------------------- constructors

/** Gives a layer a name, and says which plugins must run before it. */
export const make = <L extends Layer.Any>(
  name: string,
  layer: L,
  { needs = [] }: { readonly needs?: ReadonlyArray<string> } = {}
): Plugin<L> => ({ [TypeId]: TypeId, name, layer, needs })

/** Whether a value is a plugin. */
export const isPlugin = (u: unknown): u is Plugin => typeof u === "object" && u !== null && TypeId in u

/** The name of a plugin whose module gives it none: that of its file, `shop` of `src/shop.ts`. */
export const nameOf = (path: string): string => (path.split(/[/\\]/).at(-1) ?? path).replace(/\.[cm]?[jt]sx?$/, "")

// -------------------------------------------------------------------------------------------------------- one plugin

/** A plugin of this runtime. */
interface Entry {
  readonly name: string
  readonly from: string
  readonly needs: ReadonlyArray<string>
  readonly layer: Layer.Any | undefined
  readonly events: Map<string, Event.Any>
  readonly handled: Set<string>
  /** What is wrong with it; each is told once. */
  readonly faults: Set<string>
  /** Done when it runs or is known not to. */
  readonly decided: Deferred.Deferred<void>
  state: Status["state"]
  /** What it provides, when it was built. */
  services: Context.Context<never> | undefined
  startedAt: number | undefined
  took: number | undefined
}

const entryOf = ({ from }: Source, loaded: Result.Result<Plugin, string>): Entry => {
  const plugin = Result.getOrUndefined(loaded)
  return {
    name: plugin?.name ?? nameOf(from),
    from,
    needs: plugin?.needs ?? [],
    layer: plugin?.layer,
    events: new Map(),
    handled: new Set(),
    faults: new Set(Result.isFailure(loaded) ? [loaded.failure] : []),
    decided: Deferred.makeUnsafe(),
    state: "starting",
    services: undefined,
    startedAt: undefined,
    took: undefined
  }
}

const statusOf = ({ events, faults, from, name, needs, services, startedAt, state, took }: Entry): Status => ({
  name, from, needs, state, startedAt, took,
  events: [...events.keys()].toSorted(),
  services: [...services?.mapUnsafe.keys() ?? []].toSorted(),
  error: faults.size === 0 ? undefined : [...faults].join("\n")
})

const wiringFault = ({ reason }: KsiError.KsiError): string =>
  reason._tag === "PluginInvalid" ? `${reason.plugin}: ${reason.problem}` : reason.message

/** The router as one plugin sees it: what it wires is known to be its own, and its faults are kept while it starts. */
const routerOf = (router: Router["Service"], entry: Entry): Router["Service"] => {
  const kept = (event: Event.Any, wired: Effect.Effect<void, KsiError.KsiError, Scope.Scope>) =>
    wired.pipe(
      Effect.tap(() => Effect.sync(() => entry.events.set(event.name, event))),
      Effect.catch((error) =>
        entry.state === "starting" ? Effect.sync(() => void entry.faults.add(wiringFault(error))) : Effect.fail(error))
    )
  return Router.of({
    ...router,
    define: (event, hooks) => kept(event, router.define(event, hooks)),
    handle: (event, handler) => {
      entry.handled.add(event.name)
      return kept(event, router.handle(event, handler))
    }
  })
}

const sentencesOf = (cause: Cause.Cause<unknown>): ReadonlyArray<string> => {
  const causes = cause.reasons.flatMap((reason) =>
    reason._tag === "Fail" ? [reason.error] : reason._tag === "Die" ? [reason.defect] : [])
  return causes.length === 0
    ? ["it was interrupted"]
    : causes.map((each) => KsiError.is(each) ? wiringFault(each) : KsiError.sentenceOf(each))
}

/** Builds a plugin in its scope, where those it needs run; otherwise says why not. */
const build = Effect.fnUntraced(function*(entry: Entry, scope: Scope.Scope, needed: ReadonlyArray<Entry>) {
  const router = yield* Router
  let services = Context.empty()
  for (const need of needed) {
    yield* Deferred.await(need.decided)
    if (need.services === undefined) entry.faults.add(`it needs "${need.name}", which cannot start`)
    else services = Context.merge(services, need.services)
  }
  if (entry.faults.size > 0 || entry.layer === undefined) return
  // The first finalizer of its scope is the last to run.
  yield* Scope.addFinalizer(scope, Effect.sync(() => {
    if (entry.state === "running") entry.state = "stopped"
  }))
  entry.startedAt = yield* Clock.currentTimeMillis
  const begun = yield* Clock.monotonicTimeNanos
  // What a plugin needs cannot be checked here; a service that is missing is a defect of its build.
  const layer = entry.layer as Layer.Layer<never, unknown>
  const built = yield* Layer.buildWithScope(layer, scope).pipe(
    Effect.provideContext(Context.add(services, Router, routerOf(router, entry))),
    Effect.catchCause((cause) => Effect.sync(() => sentencesOf(cause).forEach((sentence) => entry.faults.add(sentence))))
  )
  if (built === undefined) return
  // Also where its wiring is wrong: those that need it show their own faults.
  entry.services = Context.omit(Layer.CurrentMemoMap, Scope.Scope)(built)
  if (entry.faults.size > 0) return
  entry.took = Math.round(Number((yield* Clock.monotonicTimeNanos) - begun) / 1e6)
  entry.state = "running"
  yield* Effect.logDebug(`started ${entry.name}`)
})

// -------------------------------------------------------------------------------------------------------- all of them

/** Each after those it needs, else as they were named. One that needs itself ends somewhere. */
const inOrder = (entries: ReadonlyArray<Entry>, neededBy: (entry: Entry) => ReadonlyArray<Entry>): ReadonlyArray<Entry> => {
  const ordered = new Set<Entry>()
  const seen = new Set<Entry>()
  const visit = (entry: Entry): void => {
    if (seen.has(entry)) return
    seen.add(entry)
    neededBy(entry).forEach(visit)
    ordered.add(entry)
  }
  entries.forEach(visit)
  return [...ordered]
}

/** What is wrong before anything is built: names that are taken, needs that nobody meets. */
const examine = (entries: ReadonlyArray<Entry>, neededBy: (entry: Entry) => ReadonlyArray<Entry>): void => {
  const names = entries.map(({ name }) => name)
  for (const entry of entries) {
    const same = entries.find((other) => other !== entry && other.name === entry.name)
    if (same !== undefined) {
      entry.faults.add(`${same.from} is called "${entry.name}" too; name one of them with Plugin.make`)
    }
    for (const need of entry.needs.filter((need) => !names.includes(need))) {
      const [nearest] = EventName.nearest(need, names, 1)
      entry.faults.add(`it needs "${need}", which is not started with it${nearest === undefined ? "" : `; nearest: "${nearest}"`}`)
    }
    if (neededBy(entry).some((need) => inOrder([need], neededBy).includes(entry))) {
      entry.faults.add(`it needs itself: ${[...entry.needs].join(", ")} cannot start before it`)
    }
  }
}

const missing = /^Service not found: (.+)$/

/** What shows when all are built: requests that nobody handles, and services that another plugin has. */
const wired = (entries: ReadonlyArray<Entry>, router: Router["Service"]): void => {
  for (const entry of entries) {
    // Of one that was not built to its end nobody knows which handlers were still to come.
    const forgotten = entry.services === undefined ? [] : [...entry.events.values()].filter(({ kind, name }) =>
      kind === "request" && router.handlers(name) === 0 && !entries.some(({ handled }) => handled.has(name)))
    if (forgotten.length > 0) {
      const names = forgotten.map(({ name }) => name).toSorted().join(", ")
      entry.faults.add(`nobody handles ${names}; provide the handlers' layer to Ksi.serve`)
    }
    const lacking = [...entry.faults].flatMap((fault) => {
      const [, key] = missing.exec(fault) ?? []
      return key === undefined ? [] : [{ fault, key }]
    })
    for (const { fault, key } of lacking) {
      const provider = entries.find(({ services }) => services?.mapUnsafe.has(key))
      entry.faults.delete(fault)
      entry.faults.add(provider === undefined
        ? `nobody provides the service ${key}`
        : `it needs the service ${key} of "${provider.name}": say so with Plugin.make(…, { needs: ["${provider.name}"] })`)
    }
    if (entry.faults.size > 0) entry.state = "failed"
  }
}

const told = (failed: ReadonlyArray<Entry>): KsiError.PluginInvalid => {
  const faults = failed.flatMap(({ faults, from }) => [...faults].map((fault) => [from, fault] as const))
  const [only, ...others] = faults
  return new KsiError.PluginInvalid({
    plugin: failed.map(({ from }) => from).join(", "),
    problem: only !== undefined && others.length === 0
      ? only[1]
      : [`${faults.length} faults`, ...faults.map(([from, fault]) => `  ${from}: ${fault}`)].join("\n")
  })
}

// How long a start may take before it says for whom it waits.
const patience = "10 seconds"

/** Says again and again who is still starting: a module that hangs is named. */
const impatient = (entries: ReadonlyArray<Entry>): Effect.Effect<never> =>
  Effect.sleep(patience).pipe(
    Effect.andThen(Effect.suspend(() => {
      const slow = entries.filter(({ decided, startedAt }) => startedAt !== undefined && !Deferred.isDoneUnsafe(decided))
      return Effect.logWarning(`still starting: ${slow.map(({ from }) => from).join(", ")}`)
    })),
    Effect.forever
  )

const startAll = Effect.fnUntraced(function*(sources: ReadonlyArray<Source>, register: (entries: ReadonlyArray<Entry>) => void) {
  const router = yield* Router
  const parent = yield* Scope.Scope
  const entries = yield* Effect.forEach(
    sources,
    (source) => Effect.map(Effect.result(source.load), (loaded) => entryOf(source, loaded)),
    { concurrency: "unbounded" }
  )
  register(entries)
  const neededBy = ({ needs }: Entry) => entries.filter(({ name }) => needs.includes(name))
  examine(entries, neededBy)
  // A scope for each in this order: the parent closes them in reverse, whichever was ready first.
  const scoped = yield* Effect.forEach(inOrder(entries, neededBy), (entry) =>
    Effect.map(Scope.fork(parent), (scope) => ({ entry, scope })))
  yield* Effect.forEach(
    scoped,
    ({ entry, scope }) =>
      // What is wrong already waits for nobody, so that two that need each other do not wait forever.
      build(entry, scope, entry.faults.size > 0 ? [] : neededBy(entry)).pipe(
        Effect.ensuring(Deferred.succeed(entry.decided, undefined))
      ),
    { concurrency: "unbounded", discard: true }
  ).pipe(Effect.raceFirst(impatient(entries)))
  wired(entries, router)
  const failed = entries.filter(({ state }) => state === "failed")
  if (failed.length > 0) return yield* KsiError.fail(told(failed))
})

// ------------------------------------------------------------------------------------------------------------ service

/** The plugins of a runtime. */
export class Plugins extends Context.Service<Plugins, {
  /** How each is that was ever started here, in the order they were named. */
  readonly list: Effect.Effect<ReadonlyArray<Status>>
  /**
   * Starts plugins in the scope, and stops them in reverse when it closes. Fails with one `PluginInvalid` that tells
   * every fault of every plugin, after everything that can start has started; closing the scope closes that.
   */
  readonly start: (sources: ReadonlyArray<Source>) => Effect.Effect<void, KsiError.KsiError, Scope.Scope | Router>
}>()("ksi/bus/Plugins") {
  /** None at first. */
  static readonly layer: Layer.Layer<Plugins> = Layer.sync(Plugins, () => {
    const known: Array<Entry> = []
    return {
      list: Effect.sync(() => known.map(statusOf)),
      start: (sources) => startAll(sources, (entries) => void known.push(...entries))
    }
  })
}
