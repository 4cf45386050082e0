/**
 * Who follows what: one name looked up among 100,000 patterns, and one fact told to 100 live subscribers.
 *
 * `match-repeated` is a service's own names coming again and again (`bare` is a Map from the name to the answer);
 * `match-new` names that never come again, as foreign ones with an id in them, so that nothing can be remembered (`bare`
 * makes the names and does not find them in its Map). In `fan-out` a fact is checked, appended to the store in memory
 * and told to streams of `ksi.subscribe`; `effect-pubsub` is a bounded PubSub of Effect with as many streams and `bare`
 * node's EventEmitter, which neither check nor keep anything.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { EventEmitter } from "node:events"
import { Router } from "../../src/bus/Router.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventPattern from "../../src/event/EventPattern.ts"
import { Ksi } from "../../src/Ksi.ts"
import type { Amount, Bench, Gauge, Subject } from "./Bench.ts"
import { type Data, effectSchema, samples, shapes } from "./Shapes.ts"

// -------------------------------------------------------------------------------------------------------------- match

const patternCount = 100_000
const contexts = ["order", "stock", "payment", "invoice", "shipment", "customer", "catalogue", "ticket"]
const things = ["line", "address", "price", "label", "note", "hold", "refund", "contact"]
const verbs = ["created", "changed", "removed", "approved", "rejected", "started", "finished", "failed", "moved", "paid"]

const pick = (list: ReadonlyArray<string>, n: number): string => list[n % list.length] ?? ""

/** 400 teams with eight contexts of ten events each: 32,000 names of three segments. */
const nameOf = (n: number): string => {
  const team = Math.floor(n / 80) % 400
  return `${pick(contexts, team)}-${team}:${pick(things, Math.floor(n / 10))}:${pick(verbs, n)}`
}

/** Of 40 patterns 30 are one event, 7 all events of a thing, 2 all of a team, 1 an event of a thing by somebody. */
const patternOf = (n: number): string => {
  // A step that has no common divisor with the number of names, so that neighbours are not alike.
  const [team = "", thing = "", verb = ""] = nameOf(n * 7919).split(":")
  switch (n % 40) {
    case 37: case 38: return `${team}:*`
    case 39: return `*:${thing}:${verb}:by-${n % 4000}`
    default: return n % 40 < 30 ? `${team}:${thing}:${verb}` : `${team}:${thing}:*`
  }
}

const repeated = Array.from({ length: 1000 }, (_, n) => nameOf(n * 31))

const filled = () => {
  const patterns = Array.from({ length: patternCount }, (_, n) => Result.getOrThrow(EventPattern.parse(patternOf(n))))
  const trie = EventPattern.makeTrie<number>()
  for (const [n, pattern] of patterns.entries()) trie.add(pattern, n)
  const answers = new Map<string, ReadonlyArray<number>>()
  const linear = (name: string) => patterns.flatMap((pattern, n) => pattern.matches(name) ? [n] : [])
  for (const name of [...repeated.slice(0, 20), `${repeated[3]}:by-39`, "nothing:like:this"]) {
    const found: Array<number> = []
    trie.match(name, (n) => found.push(n))
    const expected = linear(name)
    if (String(found.toSorted((a, b) => a - b)) !== String(expected)) throw new Error(`${name}: found ${found}, expected ${expected}`)
  }
  for (const name of repeated) {
    const found: Array<number> = []
    trie.match(name, (n) => found.push(n))
    answers.set(name, found)
  }
  return { trie, answers }
}

/** Nanoseconds of one look-up; `batch` answers with how many patterns it told. */
const gauge = (name: string, times: number, batch: () => number): Gauge => ({
  name,
  run: () => {
    batch()
    const start = performance.now()
    if (batch() === 0) throw new Error(`${name} found nothing`)
    return (performance.now() - start) / times * 1e6
  }
})

const match = async (bench: Bench): Promise<void> => {
  const { answers, trie } = filled()
  let visited = 0
  const visit = () => void visited++
  const times = bench.quick ? 1_000_000 : 5_000_000
  const counted = (one: (n: number) => void) => () => {
    visited = 0
    for (let n = 0; n < times; n++) one(n)
    return visited
  }
  const told = [...answers.values()].reduce((sum, found) => sum + found.length, 0) / answers.size
  bench.say(`match       ${patternCount} patterns; a repeated name is told to ${told.toFixed(1)} of them`)
  const unit = "ns"
  await bench.measure({
    case: "match-repeated", metric: "time of one look-up", unit,
    subjects: [
      gauge("ksi", times, counted((n) => trie.match(repeated[n % 1000] ?? "", visit))),
      gauge("bare", times, counted((n) => answers.get(repeated[n % 1000] ?? "")?.forEach(visit)))
    ]
  })
  // Making the name is part of a look-up: nobody hands out a name that was looked up before.
  let last = 0
  const fresh = (n: number) => `${repeated[n % 1000]}:by-${last++}`
  await bench.measure({
    case: "match-new", metric: "time of one look-up, making the name included", unit,
    subjects: [
      gauge("ksi", times, counted((n) => trie.match(fresh(n), visit))),
      gauge("bare", times, counted((n) => answers.get(fresh(n)) === undefined && visit()))
    ]
  })
}

// ------------------------------------------------------------------------------------------------------------ fan-out

const subscribers = 100
const batch = 64
const sample = (n: number): Data => samples[n & 7]?.[n >> 3 & 63] ?? {}

/** What is compared, and how it ends. */
interface Measured extends Subject {
  readonly close: () => Promise<unknown>
}

/** Publishes batches, each of which everybody has before the next one. Counts deliveries. */
const paced = (publish: (from: number) => Effect.Effect<unknown, unknown>, received: () => number) =>
  Effect.fnUntraced(function*(millis: number): Effect.fn.Return<Amount, unknown> {
    const before = received()
    const start = performance.now()
    let count = 0
    do {
      yield* publish(count)
      count += batch
      while (received() - before < count * subscribers) yield* Effect.yieldNow
    } while (performance.now() - start < millis)
    if (received() - before !== count * subscribers) throw new Error("something was told twice")
    return { count: count * subscribers, millis: performance.now() - start }
  })

const ksi = async (): Promise<Measured> => {
  const facts = shapes.map(({ name, payload }) => Event.fact(name, { payload: effectSchema(payload), streamId: () => name }))
  const define = Layer.effectDiscard(Effect.gen(function*() {
    const router = yield* Router
    for (const fact of facts) yield* router.define(fact)
  }))
  const scope = Scope.makeUnsafe()
  const context = await Effect.runPromise(Layer.buildWithScope(define.pipe(Layer.provideMerge(Ksi.layerMemory)), scope))
  const service = Context.get(context, Ksi)
  let received = 0
  for (let n = 0; n < subscribers; n++) {
    const follow = Stream.runForEachArray(service.subscribe("bench:*"), (page) => Effect.sync(() => void (received += page.length)))
    await Effect.runPromise(Effect.forkIn(follow, scope))
  }
  // Those that are not live yet would miss what comes first.
  await new Promise((resolve) => setTimeout(resolve, 100))
  const loop = paced(Effect.fnUntraced(function*(from: number) {
    // The names are not known to the compiler.
    for (let n = from; n < from + batch; n++) yield* service.emit(facts[n & 7] as never, sample(n) as never)
  }), () => received)
  return { name: "ksi", run: (millis) => Effect.runPromise(loop(millis)), close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

const pubsub = async (): Promise<Measured> => {
  const scope = Scope.makeUnsafe()
  const hub = await Effect.runPromise(PubSub.bounded<Data>(512))
  let received = 0
  for (let n = 0; n < subscribers; n++) {
    const follow = Stream.runForEachArray(Stream.fromPubSub(hub), (page) => Effect.sync(() => void (received += page.length)))
    await Effect.runPromise(Effect.forkIn(follow, scope))
  }
  await new Promise((resolve) => setTimeout(resolve, 100))
  const loop = paced(Effect.fnUntraced(function*(from: number) {
    for (let n = from; n < from + batch; n++) yield* PubSub.publish(hub, sample(n))
  }), () => received)
  return { name: "effect-pubsub", run: (millis) => Effect.runPromise(loop(millis)), close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

const bare = async (): Promise<Measured> => {
  const emitter = new EventEmitter().setMaxListeners(subscribers)
  let received = 0
  for (let n = 0; n < subscribers; n++) emitter.on("bench", () => void received++)
  const loop = paced((from) => Effect.sync(() => {
    for (let n = from; n < from + batch; n++) emitter.emit("bench", sample(n))
  }), () => received)
  return { name: "bare", run: (millis) => Effect.runPromise(loop(millis)), close: async () => {} }
}

/** `subscribe/match-repeated`, `subscribe/match-new`, `subscribe/fan-out`. */
export const run = async (bench: Bench): Promise<void> => {
  await match(bench)
  const subjects: readonly [Measured, ...Array<Measured>] = [await ksi(), await pubsub(), await bare()]
  await bench.compare({ case: "fan-out", metric: "deliveries", unit: "deliveries/s", subjects })
  for (const { close } of subjects) await close()
}
