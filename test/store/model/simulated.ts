// Writers append to one SQLite store, while its process dies between two writes, before and after a commit, and its disk is full:
// appends of several streams, with versions, conditions, duplicates and conflicts. In the end its log must be one that the model
// writes, append by append, and every answer one that the model gave in that order.
import * as assert from "node:assert/strict"
import { Effect, Exit, Layer, Random, Schema, Stream } from "effect"
import { Journal } from "../../../src/bus/Journal.ts"
import * as Tags from "../../../src/event/Tags.ts"
import * as KsiError from "../../../src/event/KsiError.ts"
import { EventStore } from "../../../src/store/EventStore.ts"
import type * as Simulation from "../../../src/testing/Simulation.ts"
import * as Model from "./Model.ts"

const writers = 6
const rounds = 10
const streams = ["s0", "s1", "s2", "s3"]
const tags = ["t0", "t1", "t2", "t3"]
const names = ["m:a", "m:b", "m:c:d"]
const queries: ReadonlyArray<NonNullable<Model.Request["condition"]>["query"]> = [
  [{ tags: ["t0"] }], [{ tags: ["t1", "t2"] }], [{ streamIds: ["s0", "s2"] }], [{ names: ["m:b"] }], [{ names: ["m:c:*"], tags: ["t3"] }],
  [{ streamIds: ["s1"], names: ["*:a"] }, { tags: ["t0", "t3"], streamIds: ["s3"] }]
]

/** What one attempt came to, between two looks at the head. */
interface Attempt {
  readonly request: Model.Request
  readonly before: number
  readonly after: number
  readonly exit: Exit.Exit<ReadonlyArray<object>, KsiError.KsiError>
}

const below = (n: number) => Random.nextIntBetween(0, n - 1)
const pick = <A>(items: ReadonlyArray<A>) => Effect.map(below(items.length), (index) => items[index] as A) // from 0 and below its length
const often = (percent: number) => Effect.map(below(100), (drawn) => drawn < percent)
const orNot = <A>(percent: number, make: Effect.Effect<A>) => Effect.flatMap(often(percent), (isMade) => isMade ? make : Effect.succeed(undefined))

/** An append that somebody might make who has seen this much of the log; `known` is what has been acknowledged. */
const draw = Effect.fnUntraced(function*(id: string, head: number, versions: ReadonlyMap<string, number>, known: ReadonlyArray<Model.Fact>) {
  const facts: Array<Model.Fact> = []
  const count = 1 + (yield* below(3))
  for (let n = 0; n < count; n++) {
    const old = known.length > 0 ? yield* orNot(15, pick(known)) : undefined
    if (old !== undefined) facts.push((yield* often(60)) ? old : { ...old, data: old.data + 1 })
    else {
      const own = (yield* Effect.forEach(tags, (tag) => orNot(30, Effect.succeed(tag)))).filter((tag) => tag !== undefined)
      facts.push({ id: `${id}.${n}`, name: yield* pick(names), streamId: yield* pick(streams), tags: own, data: n })
    }
  }
  const versionNear = (streamId: string) => Effect.map(often(85), (isRight) => (versions.get(streamId) ?? 0) + (isRight ? 0 : 1))
  const expectedVersion = yield* orNot(25, versionNear(facts[0]?.streamId ?? ""))
  const expected = yield* orNot(25, Effect.flatMap(pick(streams), (streamId) => Effect.map(versionNear(streamId), (version) => [{ streamId, version }])))
  const condition = yield* orNot(50, Effect.gen(function*() {
    return { query: yield* pick(queries), after: (yield* often(80)) ? head : yield* below(head + 1) }
  }))
  const request: Model.Request = {
    facts,
    mode: (yield* often(70)) ? "all" : "each",
    ...(expectedVersion === undefined ? {} : { expectedVersion }),
    ...(expected === undefined ? {} : { expectedVersions: expected }),
    ...(condition === undefined ? {} : { condition })
  }
  return request
})

/** Appends until somebody says what came of it, as whoever wants to know must. */
const insist = Effect.fnUntraced(function*(node: Simulation.Node, request: Model.Request, attempts: Array<Attempt>) {
  for (;;) {
    const tried = yield* Effect.result(node.use(Effect.gen(function*() {
      const journal = yield* Journal
      const before = journal.head()
      const exit = yield* Effect.exit(journal.append(Model.toAppend(request)))
      return { request, before, exit, after: journal.head() }
    })))
    if (tried._tag === "Success") {
      attempts.push(tried.success)
      const { exit } = tried.success
      const error = Exit.isFailure(exit) ? exit.cause.reasons.find((reason) => reason._tag === "Fail")?.error : undefined
      if (Exit.isSuccess(exit) || (error !== undefined && error.reason._tag !== "StoreFailure")) return exit
    } else assert.equal(tried.failure.reason._tag, "ConnectionLost")
    yield* Effect.sleep("100 millis")
  }
})

const look = (node: Simulation.Node) =>
  Effect.gen(function*() {
    for (;;) {
      const seen = yield* Effect.result(node.use(Effect.gen(function*() {
        const store = yield* EventStore
        return { head: store.head(), versions: new Map((yield* store.streams({ limit: 9 })).map(({ streamId, version }) => [streamId, version])) }
      })))
      if (seen._tag === "Success") return seen.success
      yield* Effect.sleep("100 millis")
    }
  })

const write = Effect.fnUntraced(function*(node: Simulation.Node, writer: number, attempts: Array<Attempt>, requests: Array<Model.Request>) {
  const known: Array<Model.Fact> = []
  for (let round = 0; round < rounds; round++) {
    const { head, versions } = yield* look(node)
    const request = yield* draw(`${writer}.${round}`, head, versions, known)
    requests.push(request)
    const exit = yield* insist(node, request, attempts)
    if (Exit.isSuccess(exit)) known.push(...request.facts.filter((_, at) => Reflect.get(exit.value[at] ?? {}, "kind") === "appended"))
  }
})

/** The log is what the model writes when it is given the appends in its order. */
const replay = (log: ReadonlyArray<Model.Fact>, requests: ReadonlyArray<Model.Request>): void => {
  // Others repeat a fact only after it was acknowledged: whoever drew it first has written it.
  const owners = new Map<string, Model.Request>()
  for (const request of requests) for (const { id } of request.facts) if (!owners.has(id)) owners.set(id, request)
  for (let at = 0; at < log.length;) {
    const owner = owners.get(log[at]?.id ?? "")
    assert.ok(owner !== undefined, `nobody has appended ${log[at]?.id}`)
    const answer = Model.append(log.slice(0, at), owner)
    assert.ok(answer.kind === "stored", `position ${at + 1} is of an append that must be refused`)
    assert.deepEqual(log.slice(0, answer.log.length), answer.log)
    assert.ok(answer.log.length > at)
    at = answer.log.length
  }
}

/** Every answer is what the model says at a place of the log between the two looks at the head. */
const explain = (log: ReadonlyArray<Model.Fact>, { after, before, exit, request }: Attempt): string => {
  const error = Exit.isFailure(exit) ? exit.cause.reasons.find((reason) => reason._tag === "Fail")?.error : undefined
  if (Exit.isFailure(exit) && error === undefined) return assert.fail(`an append died: ${String(exit.cause)}`)
  if (error?.reason._tag === "StoreFailure") return "StoreFailure"
  const said = Exit.isSuccess(exit) ? exit.value : { ...error?.reason }
  for (let head = before; head <= after; head++) {
    const answer = Model.append(log.slice(0, head), request)
    const told = answer.kind === "stored" ? answer.outcomes : answer.why
    if (JSON.stringify(sorted(told)) === JSON.stringify(sorted(said))) return Exit.isSuccess(exit) ? "stored" : String(error?.reason._tag)
  }
  return assert.fail(`no order of the appends explains ${JSON.stringify(said)} to ${JSON.stringify(request)}`)
}

const sorted = (value: object): unknown =>
  Array.isArray(value) ? value.map(sorted) : Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => a < b ? -1 : 1))

const readBack = Effect.gen(function*() {
  const store = yield* EventStore
  const stored = yield* Stream.runCollect(store.all())
  const log = stored.map((fact): Model.Fact => ({ id: fact.id, name: fact.name, streamId: fact.streamId, tags: Tags.of(fact), data: Schema.decodeUnknownSync(Schema.Number)(fact.data) }))
  assert.deepEqual(stored.map(({ position }) => position), log.map((_, at) => at + 1))
  assert.deepEqual(stored.map(({ version }) => version), log.map(({ streamId }, at) => Model.versionOf(log.slice(0, at + 1), streamId)))
  const known = [...new Set(log.map(({ streamId }) => streamId))].toSorted()
  assert.deepEqual(yield* store.streams({ limit: 9 }), known.map((streamId) => ({ streamId, version: Model.versionOf(log, streamId) })))
  for (const query of queries) {
    const found = (yield* Stream.runCollect(store.all({ query }))).map(({ position }) => position)
    assert.deepEqual(found, log.flatMap((fact, at) => Model.matches(query, fact) ? [at + 1] : []))
  }
  return log
})

/** What one seed simulates; answers with how often what was said. */
export const simulated = {
  nodes: { store: Layer.empty },
  disk: { crash: 0.01, full: 0.01 },
  program: ({ calm, nodes: { store } }: Simulation.Simulation<"store">) =>
    Effect.gen(function*() {
      const attempts: Array<Attempt> = []
      const requests: Array<Model.Request> = []
      yield* Effect.forEach(Array.from({ length: writers }, (_, writer) => writer), (writer) => write(store, writer, attempts, requests), { concurrency: "unbounded" })
      yield* calm
      const log = yield* store.use(readBack)
      replay(log, requests)
      const counts: Record<string, number> = {}
      for (const attempt of attempts) {
        const said = explain(log, attempt)
        counts[said] = (counts[said] ?? 0) + 1
      }
      return counts
    })
}
