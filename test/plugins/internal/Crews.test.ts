// Workers that come and go as they like, and report when they like: no fact is lost, and no stream gets out of order.
import { expect, it } from "@effect/vitest"
import { Effect, Fiber, Queue, Schema, Stream } from "effect"
import { KsiService } from "../../../src/bus/KsiService.ts"
import { type Delivery, metadataOf } from "../../../src/event/Envelope.ts"
import type * as Event from "../../../src/event/Event.ts"
import * as KsiError from "../../../src/event/KsiError.ts"
import * as Consumers from "../../../src/plugins/Consumers.ts"
import { Crew, favourite, Worker } from "../../../src/plugins/internal/Crews.ts"
import * as Consumer from "../../../src/store/Consumer.ts"
import { EventStore } from "../../../src/store/EventStore.ts"
import { withRuntime } from "../Builtins.ts"

type Fact = Extract<Event.Success<typeof Consumers.Work>, { readonly kind: "fact" }>

interface Member {
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly has: Map<number, Fact>
}

const nth = Schema.Literals([0, 1, 2])
const Step = Schema.Struct({
  what: Schema.Union([
    Schema.Struct({ kind: Schema.Literals(["fact"]), stream: Schema.Literals(["a", "b", "c", "d"]) }),
    Schema.Struct({ kind: Schema.Literals(["join"]), concurrency: Schema.Literals([1, 2, 5]) }),
    Schema.Struct({ kind: Schema.Literals(["leave", "report", "fail"]), nth })
  ]),
  /** Turns of the scheduler before the next step. */
  turns: Schema.Literals([0, 3, 100])
})

/** Plays the steps, and looks at each fact as it is handed over. */
const play = Effect.fnUntraced(function*(steps: ReadonlyArray<typeof Step.Type>) {
  const { call, stream } = yield* KsiService
  const store = yield* EventStore
  const members: Array<Member> = []
  const dealtWith = new Set<number>()
  // A worker that throws would end by itself.
  const wrong: Array<string> = []
  const streamOf = new Map<number, string>()
  let position = 0
  const take = (has: Member["has"], concurrency: number) => (item: Event.Success<typeof Consumers.Work>) => Effect.sync(() => {
    if (item.kind === "begun") return
    const before = [...streamOf].flatMap(([other, name]) => name === item.streamId && other < item.position ? [other] : [])
    if (before.some((other) => !dealtWith.has(other))) wrong.push(`${item.position} before its time`)
    if (dealtWith.has(item.position)) wrong.push(`${item.position} when it was dealt with`)
    if (members.some((member) => [...member.has.values()].some(({ streamId }) => streamId === item.streamId))) wrong.push(`two facts of ${item.streamId}`)
    has.set(item.position, item)
    if (has.size > concurrency) wrong.push(`more than ${concurrency} at a time`)
  })
  const join = Effect.fnUntraced(function*(concurrency: number) {
    const has: Member["has"] = new Map()
    const asked = { group: "g", events: ["t:*"], start: "start", concurrency, maxAttempts: 1000, retry: { firstMillis: 1, mostMillis: 1 } } as const
    const fiber = yield* Effect.forkChild(Stream.runForEach(stream(Consumers.Work, asked), take(has, concurrency)))
    members.push({ has, fiber })
  })
  const leave = (member: Member | undefined) => Effect.suspend(() => {
    if (member === undefined) return Effect.void
    members.splice(members.indexOf(member), 1)
    return Fiber.interrupt(member.fiber)
  })
  const report = Effect.fnUntraced(function*(member: Member | undefined, isWell: boolean) {
    const [fact] = member?.has.values() ?? []
    if (member === undefined || fact === undefined) return
    member.has.delete(fact.position)
    if (isWell) dealtWith.add(fact.position)
    yield* call(Consumers.Done, { ticket: fact.ticket, ...(isWell ? {} : { error: "not now" }) })
  })
  for (const { turns, what: step } of steps) {
    if (step.kind === "fact") {
      streamOf.set(++position, step.stream)
      yield* store.appendTo(step.stream, [{ name: "t:done", data: position }])
    } else if (step.kind === "join") yield* join(step.concurrency)
    else if (step.kind === "leave") yield* leave(members[step.nth])
    else yield* report(members[step.nth], step.kind === "report")
    for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
  }
  yield* join(2)
  const isSettled = Effect.map(call(Consumers.List, {}), ({ items: [only] }) => dealtWith.size === position && only?.status === "following")
  while (!(yield* isSettled)) {
    for (const member of members) yield* report(member, true)
    yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
  }
  expect(wrong).toEqual([])
  yield* call(Consumers.Settled, { group: "g" })
  const { items } = yield* call(Consumers.List, {})
  expect(items).toMatchObject([{ position, lag: 0, pending: 0, parked: 0 }])
  while (members.length > 0) yield* leave(members[0])
  expect((yield* call(Consumers.List, {})).items).toMatchObject([{ status: "idle", position }])
})

it.live.prop("workers come and go: each fact is handed over until it is reported, and no stream gets out of order",
  [Schema.Array(Step).check(Schema.isBetweenLength(10, 60))], ([steps]) => withRuntime(play(steps)), { arbitrary: { runs: 60 } })

const deliveryOf = (position: number, streamId: string): Delivery => ({
  id: `${position}`, name: "t:done", data: position, position: BigInt(position), version: 1, missed: 0,
  metadata: metadataOf({ id: `${position}`, source: "/t", name: "t:done", streamId, data: position, attributes: {}, time: undefined }, 0)
})

it("when a worker comes or goes, only its streams move, and each gets its share", () => {
  const three = ["x", "y", "z"].map((secret) => ({ secret: `${secret}-0f5c` }))
  const streams = Array.from({ length: 3000 }, (_, n) => `order-${n}`)
  const before = streams.map((stream) => favourite(three, stream)?.secret)
  const left = three.slice(0, 2)
  for (const [n, stream] of streams.entries()) {
    if (before[n] !== three[2]?.secret) expect(favourite(left, stream)?.secret).toBe(before[n])
  }
  for (const { secret } of three) expect(Math.abs(before.filter((each) => each === secret).length - 1000)).toBeLessThan(200)
})

it.effect("a stream stays with its worker while that has room, and goes to another while it has none", () =>
  Effect.gen(function*() {
    const crew = new Crew({ allows: () => true, refusal: () => new KsiError.Unauthenticated({ problem: "never" }) })
    const workers = yield* Effect.forEach(["x", "y"], (secret) => Effect.map(Queue.unbounded<never, never>(), (queue) =>
      // It takes what it is given.
      new Worker("owner", 2, secret, queue as unknown as Worker["queue"])))
    for (const worker of workers) crew.join(worker)
    const own = Array.from({ length: 200 }, (_, n) => `s${n}`).filter((stream) => favourite(workers, stream) === workers[0])
    for (const [n, stream] of own.slice(0, 4).entries()) yield* Effect.forkChild(crew.handle(deliveryOf(n + 1, stream), 1), { startImmediately: true })
    const has = () => workers.map(({ out }) => [...out.values()].map(({ delivery }) => Number(delivery.position)))
    expect(has()).toEqual([[1, 2], [3, 4]])
    const waits = yield* Effect.forkChild(crew.handle(deliveryOf(5, "any"), 1), { startImmediately: true })
    const [first, second] = workers
    if (first === undefined || second === undefined) throw new Error("there are two")
    crew.report(second, "y-1", undefined)
    expect(has()).toEqual([[1, 2], [4, 5]])
    crew.report(second, "y-3", { error: "no", retryable: true })
    expect(yield* Fiber.join(waits)).toEqual({ error: "no", retryable: true })
  }))

it.effect("works for many groups at once, and is told of no fact that nobody asked for", () =>
  withRuntime(Effect.gen(function*() {
    const { stream } = yield* KsiService
    const store = yield* EventStore
    const consumers = yield* Consumer.Consumers
    const heard: Array<string> = []
    for (const [group, event] of [["one", "t:one"], ["two", "t:*"], ["three", "*"]] as const) {
      yield* Effect.forkChild(Stream.runForEach(stream(Consumers.Work, { group, events: [event], start: "start" }), (item) => item.kind === "begun" ? Effect.void
        : Effect.andThen(Effect.sync(() => void heard.push(`${group} ${item.event}`)), Effect.flatMap(KsiService, ({ call }) => call(Consumers.Done, { ticket: item.ticket })))))
    }
    for (const name of ["t:one", "t:two", "u:one"]) yield* store.appendTo("s", [{ name, data: {} }])
    while ((yield* consumers.status).filter(({ position }) => position === 3).length < 3) yield* Effect.yieldNow
    expect(heard.toSorted()).toEqual(["one t:one", "three t:one", "three t:two", "three u:one", "two t:one", "two t:two"])
  })))
