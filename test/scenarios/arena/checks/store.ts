/** What the event store promises to those who write and those who follow. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Event from "../../../../src/event/Event.ts"
import * as EventGroup from "../../../../src/event/EventGroup.ts"
import * as KsiError from "../../../../src/event/KsiError.ts"
import { Ksi } from "../../../../src/Ksi.ts"
import { Router } from "../../../../src/bus/Router.ts"
import { EventStore } from "../../../../src/store/EventStore.ts"
import * as Simulation from "../../../../src/testing/Simulation.ts"
import { below, type Check, must, oneOf, pause, same, simulate, together, upTo } from "./Check.ts"

const Added = Event.fact("count:added", { payload: { by: Schema.Int, writer: Schema.Int }, streamId: ({ by }) => `sum-${by % 2}` })
const Noise = Event.fact("noise:made", { payload: { text: Schema.String }, streamId: ({ text }) => `noise-${text.length % 3}` })
const Group = EventGroup.make(Added, Noise)
const app = Ksi.serve(Group).pipe(Layer.provide(Group.toLayer({ "noise:made": () => Effect.yieldNow })))

type Store = EventStore["Service"]

const isConflict = (error: KsiError.KsiError): boolean => error.reason._tag === "VersionConflict"

/** Everything, by pages of a size. */
const everything = (store: Store, limit: number) =>
  Effect.gen(function*() {
    const facts = []
    for (let from = 1;;) {
      const page = yield* store.read({ from, limit })
      facts.push(...page)
      const last = page.at(-1)
      if (last === undefined) return facts
      from = last.position + 1
    }
  })

/** One more in a stream that counts, by reading and appending at the version that was read; again where somebody was quicker. */
const increment = (store: Store, stream: string, writer: number): Effect.Effect<void, KsiError.KsiError> =>
  Effect.gen(function*() {
    const [newest] = yield* store.readStream({ streamId: stream, from: 1, limit: 1, backward: true })
    const version = newest?.version ?? 0
    yield* pause(3)
    const count = Schema.decodeUnknownSync(Schema.Struct({ count: Schema.Int }))(newest?.data ?? { count: 0 }).count
    yield* store.appendTo(stream, [{ name: "counter:set", data: { count: count + 1, writer } }], { expectedVersion: version })
  }).pipe(Effect.retry({ while: isConflict, times: 50 }))

/** An append to several streams of which one fact cannot be: nothing of it may remain. */
const spoiled = (store: Store, id: string) =>
  Effect.gen(function*() {
    const fact = (streamId: string, own: string, data: unknown) =>
      ({ id: own, source: "/arena", name: "spoiled:fact", streamId, data, time: undefined, attributes: {} })
    const streams = yield* Effect.forEach(upTo(1 + (yield* below(3))), () => oneOf(["spoiled-a", "spoiled-b", "counter-0", "taken"]))
    const others = streams.map((stream, n) => fact(stream, `${id}-${n}-new`, { n }))
    const bad = yield* oneOf([fact("spoiled-a", "taken", { other: id }), fact("spoiled-a", `${id}-0-new`, { other: id })])
    return yield* Effect.exit(store.append({ facts: [...others, bad] }))
  })

/** Writes of all kinds, at the same time; answers with how many facts were acknowledged in the counting streams. */
const writing = (node: Simulation.Node) =>
  Effect.gen(function*() {
    const counted = yield* Effect.forEach(upTo(4), (writer) =>
      Effect.forEach(upTo(3), (n) => Effect.andThen(pause(20), Effect.exit(node.use(Effect.flatMap(EventStore, (store) => increment(store, `counter-${(writer + n) % 2}`, writer)))))), together)
    return counted.flat().filter(Exit.isSuccess).length
  })

const disturbing = (node: Simulation.Node) =>
  Effect.forEach(upTo(6), (n) =>
    Effect.gen(function*() {
      yield* pause(30)
      const word = ["a", "bb", "ccc"][n % 3] ?? ""
      yield* Effect.exit(node.use(n % 2 === 0
        ? Effect.flatMap(EventStore, (store) => Effect.asVoid(spoiled(store, `${n}`)))
        : Effect.flatMap(Ksi, ({ emit }) => Effect.asVoid(emit(Noise, { text: word })))))
    }), together)

/** What holds of any store at rest. */
const inOrder = (store: Store) =>
  Effect.gen(function*() {
    const facts = yield* everything(store, yield* oneOf([1, 2, 3, 100]))
    yield* same("positions", facts.map(({ position }) => position), facts.map((_, index) => index + 1))
    yield* same("the head", store.head(), facts.length)
    const versions = new Map<string, number>()
    for (const { position, streamId, version } of facts) {
      const next = (versions.get(streamId) ?? 0) + 1
      versions.set(streamId, next)
      yield* must(version === next, `position ${position} is version ${version} of ${streamId}, expected ${next}`)
    }
    const streams = yield* store.streams({ limit: 100 })
    yield* same("versions of streams", streams.map(({ streamId, version }) => [streamId, version]), [...versions].toSorted(([a], [b]) => a < b ? -1 : 1))
    for (const [streamId, version] of versions) {
      const own = yield* Stream.runCollect(store.stream(streamId))
      yield* same(`the facts of ${streamId}`, own.map((fact) => fact.position), facts.filter((fact) => fact.streamId === streamId).map((fact) => fact.position))
      yield* same(`how many ${streamId} has`, own.length, version)
    }
    return facts
  })

const writers: Check["run"] = (seed, order) =>
  simulate({
    seed, order, nodes: { store: app }, ...(seed % 2 === 0 ? {} : { disk: { full: seed % 4 === 1 ? 0.05 : 0, crash: seed % 4 === 3 ? 0.01 : 0 } }),
    program: ({ calm, nodes: { store: node } }) => Effect.gen(function*() {
      yield* node.use(Effect.flatMap(EventStore, (store) => Effect.ignore(store.appendTo("taken", [{ name: "id:taken", id: "taken", source: "/arena" }])))).pipe(Effect.ignore)
      const [acknowledged] = yield* Effect.all([writing(node), disturbing(node)], together)
      const isClean = node.isUp()
      yield* calm
      const facts = yield* node.use(Effect.flatMap(EventStore, inOrder))
      yield* must(!facts.some(({ id }) => id.endsWith("-new")) || !facts.some((each) => each.id === "taken"), "a fact of a refused append is there")
      const counts = ["counter-0", "counter-1"].map((stream) => facts.filter(({ streamId }) => streamId === stream))
      for (const stream of counts) {
        yield* same("what was counted", stream.map(({ data }) => Reflect.get(Object(data), "count")), stream.map((_, index) => index + 1))
      }
      const stored = counts.reduce((sum, { length }) => sum + length, 0)
      yield* must(stored >= acknowledged, `${acknowledged} were acknowledged, ${stored} are there`)
      if (seed % 2 === 0 && isClean) yield* same("what was counted", stored, 12)
      // Everything goes on from what is there.
      for (const stream of ["after", "spoiled-a", "spoiled-b", "taken"]) {
        yield* node.use(Effect.flatMap(EventStore, (store) => store.appendTo(stream, [{ name: "all:over" }, { name: "all:over" }])))
      }
      yield* node.use(Effect.flatMap(EventStore, inOrder))
      if (seed % 2 === 0) return
      yield* Effect.andThen(node.kill, node.start)
      yield* same("after a restart", (yield* node.use(Effect.flatMap(EventStore, inOrder))).length, facts.length + 8)
    })
  })

/** Follows until told to stop; answers with the positions it heard. */
const follow = (heard: Array<number>, from: number | "start") =>
  Effect.flatMap(Ksi, (ksi) =>
    Effect.gen(function*() {
      const buffer = yield* oneOf([1, 2, 5, 100])
      const overflow = yield* oneOf(["spill", "spill", "block"] as const)
      const slow = yield* oneOf([0, 0, 3])
      yield* Stream.runForEach(ksi.subscribe("*", { from, buffer, overflow }), ({ position }) =>
        Effect.andThen(Effect.sync(() => heard.push(Number(position))), slow === 0 ? Effect.void : pause(slow)))
    }))

const followers: Check["run"] = (seed, order) =>
  simulate({
    seed, order, nodes: { store: app }, ...(seed % 3 === 2 ? { disk: { full: 0.03 } } : {}),
    program: ({ calm, nodes: { store: node } }) => Effect.gen(function*() {
      const all: Array<{ readonly from: number; readonly heard: Array<number> }> = []
      const fibers = yield* Effect.forkChild(Effect.forEach(upTo(5), () => Effect.gen(function*() {
        yield* pause(25)
        const from = yield* oneOf<number | "start">(["start", 1, 2, 4])
        const heard: Array<number> = []
        all.push({ from: from === "start" ? 1 : from, heard })
        yield* node.use(follow(heard, from))
      }), together))
      const emits = Effect.forEach(upTo(15), (n) => Effect.andThen(pause(25), Effect.exit(node.use(Effect.flatMap(Ksi, ({ emit }) => emit(Noise, { text: "x".repeat(n) }))))), together)
      yield* Effect.all([writing(node), emits], together)
      yield* calm
      yield* Effect.sleep("1 second")
      const { length: head } = yield* node.use(Effect.flatMap(EventStore, inOrder))
      for (const { from, heard } of all) {
        yield* same(`heard by a follower from ${from}`, heard, upTo(head).map((index) => index + 1).filter((position) => position >= from))
      }
      yield* Fiber.interrupt(fibers)
    })
  })

const newcomers: Check["run"] = (seed, order) =>
  simulate({
    seed, order, nodes: { store: app },
    program: ({ calm, nodes: { store: node } }) => Effect.gen(function*() {
      // Who begins now hears all from the first one on, whatever it is: nothing between that and the end is left out.
      const all = upTo(4).map((): Array<number> => [])
      const hear = (heard: Array<number>) => Effect.flatMap(Ksi, (ksi) =>
        Stream.runForEach(ksi.subscribe("noise:*", { buffer: 2 }), ({ position }) => Effect.sync(() => heard.push(Number(position)))))
      yield* Effect.forkChild(Effect.forEach(all, (heard) => Effect.andThen(pause(10), node.use(hear(heard))), together))
      yield* Effect.forEach(upTo(20), () => Effect.andThen(pause(20), node.use(Effect.flatMap(Ksi, ({ emit }) => emit(Noise, { text: "x" })))), together)
      yield* calm
      yield* Effect.sleep("1 second")
      for (const heard of all) {
        const [first = 21] = heard
        yield* same("heard by one who begins now", heard, upTo(21 - first).map((index) => index + first))
      }
    })
  })

/** The same foreign fact again and again is one fact, and sets off its handlers once. */
const twice: Check["run"] = (seed, order) =>
  Effect.suspend(() => {
    const reacted: Array<string> = []
    const Arrived = Event.fact("parcel:arrived", { payload: { n: Schema.Int }, streamId: ({ n }) => `parcel-${n}` })
    const Parcels = EventGroup.make(Arrived)
    const parcels = Ksi.serve(Parcels).pipe(Layer.provide(Parcels.toLayer({ "parcel:arrived": ({ n }) => Effect.sync(() => reacted.push(`${n}`)) })))
    const sent = (n: number) => ({ id: `p${n}`, source: "/post", name: "parcel:arrived", streamId: `parcel-${n}`, data: { n }, time: undefined, attributes: {} })
    return simulate({
      seed, order, nodes: { post: parcels }, disk: {},
      program: ({ calm, nodes: { post } }) => Effect.gen(function*() {
        const receive = (n: number) => Effect.andThen(pause(10), post.use(Effect.flatMap(Router, (router) => router.dispatch(router.received(sent(n), { principal: "owner" })))))
        yield* Effect.forEach([0, 1, 0, 2, 1, 0], receive, together)
        yield* calm
        yield* same("who reacted to facts that came often", reacted.toSorted(), ["0", "1", "2"])
        yield* Effect.andThen(post.kill, post.start)
        yield* Effect.forEach([0, 1, 2], receive, together)
        const read = yield* post.use(Effect.flatMap(EventStore, (store) => everything(store, 1 + (seed % 3))))
        yield* post.use(Effect.flatMap(Ksi, (ksi) => Stream.runDrain(Stream.take(ksi.subscribe("*", { from: "start" }), 3))))
        yield* calm
        yield* same("facts", read.length, 3)
        yield* same("who reacted after a restart", reacted.length, 3)
        const other = yield* Effect.result(post.use(Effect.flatMap(Router, (router) => router.dispatch(router.received({ ...sent(0), data: { n: 0 }, name: "parcel:arrived", attributes: { x: "y" } }, { principal: "owner" })))))
        yield* must(Result.isFailure(other), "other content under a known identity is taken")
        yield* same("who reacted to what was refused", reacted.length, 3)
      })
    })
  })

/** Promises of the store. */
export const checks: ReadonlyArray<Check> = [
  { name: "writers lose nothing, and leave no gap", seeds: 40, run: writers },
  { name: "followers hear everything once, in order", seeds: 60, run: followers },
  { name: "newcomers miss nothing from their first on", seeds: 30, run: newcomers },
  { name: "the same fact again changes nothing", seeds: 20, run: twice }
]
