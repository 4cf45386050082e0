/**
 * `Consumers` beside the daemon, over the five words alone: `Consumer.layer` and `Consumer.layerPattern` work for their groups there
 * as they do in its process. `Ksi.layerRemote` brings it along.
 *
 * The rule: the daemon keeps how far the group is and what is parked, and hands over the next fact of a stream when the one before is
 * reported; several programs may work for one group, and each handles what it has room for. When the connection is lost the handlers
 * under way are interrupted, and the work begins again by itself when it is back: what was not reported is handed over again, here or
 * to another, and nobody goes on with a fact that another has. A stop lets the handlers end and reports them.
 *
 * **Example**
 *
 * ```ts
 * yield* Layer.build(Consumers.layer)
 * const shipped: Array<string> = []
 * const Shipping = Consumer.layer("shipping", {
 *   events: [Reserved],
 *   start: "start",
 *   handler: ({ sku }, { attempt }) => Effect.sync(() => void shipped.push(`${sku} ${attempt}`))
 * })
 * const ksi = yield* KsiService
 * yield* ksi.emit(Reserved, { sku: "tea", quantity: 1 })
 * const beside = yield* Layer.build(Layer.provideMerge(Shipping, RemoteConsumers.layer))
 * yield* Effect.provideContext(Consumer.settled("shipping"), beside)
 * shipped                                     // ["tea 1"]
 * ```
 *
 * **Gotchas** All programs that work for a group at the same time ask for the same events with the same options, but `concurrency`, which
 * each has for itself; another is refused with `PluginInvalid`. `retry` is a schedule, which cannot travel: the program that has a fact tries it
 * again itself, and reports it when it went well or has to be parked. A program that goes counts as no attempt: one that a fact brings down each time
 * is given it each time. What a handler emits has the fact's trace, and no cause in the daemon's eyes: a client cannot say what caused what.
 * `blocked` knows of the groups of this process, and there are none.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { plain } from "../bus/Causation.ts"
import { KsiService, type KsiShape } from "../bus/KsiService.ts"
import { parseTime } from "../event/CloudEvent.ts"
import type { Delivery, Metadata } from "../event/Envelope.ts"
import type * as Event from "../event/Event.ts"
import * as KsiError from "../event/KsiError.ts"
import { type Consuming, Consumers, type Parked as ParkedFact, resolved, type Status } from "../store/Consumer.ts"
import { makeAttempts } from "../store/internal/consuming.ts"
import { Remote } from "../wire/Remote.ts"
import { Discard, Done, type HandedOver, List, Parked, Retry, Settled, Work } from "./internal/consumerEvents.ts"

// ------------------------------------------------------------------------------------------------------------- working

const stopMillis = 30_000
const leastPauseMillis = 100
const mostPauseMillis = 30_000

const payloadOf = (group: string, { concurrency, events, maxAttempts, maxParked, parking, start, window }: Consuming): Event.PayloadInput<typeof Work> => ({
  group,
  events,
  ...Object.fromEntries(Object.entries({ concurrency, maxAttempts, maxParked, parking, start, window }).filter(([, value]) => value !== undefined))
})

const deliveryOf = ({ data, dataVersion, event, id, metadata, position, version }: HandedOver): Delivery => ({
  id,
  name: event,
  data,
  // As the daemon wrote it; what nobody said is left out there.
  metadata: plain(metadata as unknown as Metadata),
  position: BigInt(position),
  version,
  missed: 0,
  ...dataVersion === undefined ? {} : { dataVersion }
})

const isReason = (error: unknown, tag: KsiError.Reason["_tag"]): boolean => KsiError.is(error) && error.reason._tag === tag

/** One fact, from where it is handed over to its report. */
const makeHandling = (ksi: KsiShape, work: Consuming, stop: Latch.Latch, isStopping: () => boolean) => {
  const { maxAttempts, retry } = resolved(work)
  const attempts = makeAttempts<Delivery>({ handle: work.handle, maxAttempts, retry }, stop, isStopping)
  return Effect.fnUntraced(function*(item: HandedOver) {
    const before = item.attempt - 1
    const attempted = yield* attempts(deliveryOf(item), before)
    // Not reported: another program gets it, or this one when it is back.
    if (attempted === "stopped") return
    const { attempts: tried, wrong } = attempted
    const report = wrong === undefined ? {} : { error: wrong.error, retryable: false, attempts: tried - before }
    yield* ksi.call(Done, { ticket: item.ticket, ...report }).pipe(
      // It is somebody else's, or will be: the items end as well.
      Effect.catch((error) => isReason(error, "NotFound") || isReason(error, "ConnectionLost") ? Effect.void : Effect.fail(error))
    )
  })
}

/** Works until the items end; when this ends, so have the handlers. */
const makeSession = (
  ksi: KsiShape, group: string, work: Consuming, handle: ReturnType<typeof makeHandling>, begun: Effect.Effect<unknown>, isStopping: () => boolean
) => {
  const handlers = new Set<FiberSet.FiberSet<unknown, unknown>>()
  const session = Effect.scoped(Effect.gen(function*() {
    const running = yield* FiberSet.make<void, KsiError.KsiError>()
    handlers.add(running)
    yield* Effect.addFinalizer(() => Effect.sync(() => handlers.delete(running)))
    const items = Stream.runForEach(ksi.stream(Work, payloadOf(group, work)), (item) => {
      if (item.kind === "begun") return begun
      // What is not begun any more somebody else gets, as soon as this one is gone.
      return isStopping() ? Effect.void : FiberSet.run(running, handle(item))
    })
    // A report that is refused leaves its fact out for ever, unless the work begins anew.
    yield* Effect.raceFirst(items, FiberSet.join(running))
  }))
  return { session, settled: Effect.suspend(() => Effect.forEach(handlers, FiberSet.awaitEmpty, { discard: true })) }
}

/** Waits for the connection, where there is one that comes back; says whether there will be any. */
const makeReady = Effect.map(Effect.serviceOption(Remote), (remote) =>
  remote._tag === "None" ? Effect.succeed(true) : Effect.map(
    Stream.runHead(Stream.filter(remote.value.states, ({ _tag }) => _tag === "connected" || _tag === "closed")),
    (state) => state._tag === "Some" && state.value._tag === "connected"
  ))

const makeConsume = (ksi: KsiShape, ready: Effect.Effect<boolean>): Consumers["Service"]["consume"] =>
  Effect.fnUntraced(function*(group: string, work: Consuming): Effect.fn.Return<void, KsiError.KsiError, Scope.Scope> {
    const stop = Latch.makeUnsafe()
    let isStopping = false
    let pause = leastPauseMillis
    const first = yield* Deferred.make<void, KsiError.KsiError>()
    const isStopped = () => isStopping
    const handle = makeHandling(ksi, work, stop, isStopped)
    const { session, settled } = makeSession(ksi, group, work, handle, Deferred.succeed(first, undefined), isStopped)
    yield* Effect.forkScoped(Effect.gen(function*() {
      for (;;) {
        const exit = yield* Effect.exit(session)
        // The first time somebody waits for it.
        if (!(yield* Deferred.isDone(first))) return yield* Deferred.done(first, Exit.isFailure(exit) ? exit : neverBegun(group))
        if (isStopping) return
        const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        const problem = error === undefined ? "the daemon ended it" : KsiError.sentenceOf(error)
        yield* Effect.logWarning(`the work for the consumer group "${group}" was cut off, and begins again`, { problem })
        // A connection comes back. What is refused may be refused for long.
        pause = error === undefined || isReason(error, "ConnectionLost") ? leastPauseMillis : Math.min(pause * 2, mostPauseMillis)
        yield* Effect.sleep(pause)
        if (!(yield* ready)) return yield* Effect.logError(`the work for the consumer group "${group}" has ended: there is no connection any more`)
      }
    }))
    yield* Effect.addFinalizer(() => {
      isStopping = true
      stop.openUnsafe()
      return Effect.ignore(Effect.timeout(settled, stopMillis))
    })
    yield* Deferred.await(first)
  })

const neverBegun = (group: string) =>
  KsiError.exit(new KsiError.PluginInvalid({ plugin: `the consumer group "${group}"`, problem: "the daemon ended the work before it began" }))

// ------------------------------------------------------------------------------------------------------------- looking

const statusOf = ({ group, problem, ...figures }: Event.Success<typeof List>["items"][number]): Status => ({ name: group, ...figures, trouble: problem })

/** As the daemon writes an item of `consumer:parked`. */
interface ParkedItem extends Omit<ParkedFact, "timestamp" | "error"> {
  readonly error?: string
  readonly parkedAt: string
}

const parkedOf = ({ attempts, error, parkedAt, position, streamId }: ParkedItem): ParkedFact =>
  ({ position, streamId, attempts, error, timestamp: parseTime(parkedAt) ?? 0 })

const parkedIn = (ksi: KsiShape): Consumers["Service"]["parked"] =>
  Effect.fnUntraced(function*(group, { after = 0, limit, streamId }) {
    const found: Array<ParkedFact> = []
    const asked = { group, ...(streamId === undefined ? {} : { stream: streamId }) }
    let cursor: string | undefined
    do {
      const page: Event.Success<typeof Parked> = yield* ksi.call(Parked, cursor === undefined ? asked : { ...asked, cursor })
      // What the event promises; pages are typed as what all of them have in common.
      for (const item of page.items as ReadonlyArray<ParkedItem>) if (item.position > after) found.push(parkedOf(item))
      cursor = page.cursor
    } while (cursor !== undefined && found.length < limit)
    return found.slice(0, limit)
  })

// -------------------------------------------------------------------------------------------------------------- layer

/** The consumer groups of a daemon, for who asks it. */
export const make: Effect.Effect<Consumers["Service"], never, KsiService> = Effect.gen(function*() {
  const ksi = yield* KsiService
  return {
    status: Effect.map(ksi.call(List, {}), ({ items }) => items.map(statusOf)),
    blocked: () => [],
    parked: parkedIn(ksi),
    retry: (group, stream) =>
      Effect.map(ksi.call(Retry, { group, ...(stream === undefined ? {} : { stream }) }), ({ handled, parked }) => ({ handled, left: parked })),
    discard: (group, positions) => Effect.map(ksi.call(Discard, { group, positions }), ({ discarded }) => discarded),
    settled: (group, position) => ksi.call(Settled, { group, ...(position === undefined ? {} : { position }) }),
    consume: makeConsume(ksi, yield* makeReady)
  }
})

/** `make` as a layer. */
export const layer: Layer.Layer<Consumers, never, KsiService> = Layer.effect(Consumers, make)
