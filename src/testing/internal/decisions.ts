/**
 * Promises about decisions: what an append expects of several streams and of what else has happened, the tags of facts, and
 * finding them again by a query.
 */
import * as assert from "node:assert/strict"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Append } from "../../bus/Journal.ts"
import * as CloudEvent from "../../event/CloudEvent.ts"
import type { FactQuery } from "../../event/FactQuery.ts"
import * as Limits from "../../event/Limits.ts"
import * as Tags from "../../event/Tags.ts"
import { type Case, everything, fact, facts, invalidAt, kinds, positions, promise, refused, type Store, upTo, versions } from "./promise.ts"

/** A fact with tags. */
const tagged = (id: string, tags: ReadonlyArray<string>, other: Partial<CloudEvent.NewFact> = {}): CloudEvent.NewFact =>
  fact(id, { attributes: { [Tags.attribute]: Tags.toText(tags) }, ...other })

const several: ReadonlyArray<Case> = [
  promise("versions of several streams must hold, also of those that nothing is appended to", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: [fact("1"), fact("2", { streamId: "b" }), fact("3", { streamId: "b" })] })
      const both = [fact("4"), fact("5", { streamId: "c" })]
      const expecting = (...expectedVersions: ReadonlyArray<readonly [string, number]>): Append =>
        ({ facts: both, expectedVersions: expectedVersions.map(([streamId, version]) => ({ streamId, version })) })
      const moved = yield* refused(store.append(expecting(["a", 1], ["b", 1], ["c", 9])), "VersionConflict")
      assert.deepEqual([moved.streamId, moved.expected, moved.actual], ["b", 1, 2])
      const there = yield* refused(store.append(expecting(["b", 0])), "VersionConflict")
      assert.deepEqual([there.streamId, there.actual], ["b", 2])
      const first = yield* refused(store.append({ ...expecting(["b", 7]), expectedVersion: 5 }), "VersionConflict")
      assert.deepEqual([first.streamId, first.expected], ["a", 5])
      assert.equal(store.head(), 3)
      assert.deepEqual(yield* store.streams({ limit: 9 }), [{ streamId: "a", version: 1 }, { streamId: "b", version: 2 }])
      const stored = yield* store.append({ ...expecting(["a", 1], ["b", 2], ["c", 0], ["nobody", 0]), expectedVersion: 1 })
      assert.deepEqual([positions(stored), versions(stored)], [[4, 5], [2, 1]])
    })),
  promise("a retry is a no-op whatever has come since; with a new fact among its own it is refused", (store) =>
    Effect.gen(function*() {
      const query = [{ streamIds: ["a"] }]
      const guarded: Append = {
        facts: [fact("1"), fact("2", { streamId: "b" })], expectedVersions: [{ streamId: "b", version: 0 }], condition: { query, after: 0 }
      }
      assert.deepEqual(kinds(yield* store.append(guarded)), ["appended", "appended"])
      for (const mode of ["all", "each"] as const) {
        const again = yield* store.append({ ...guarded, mode })
        assert.deepEqual([kinds(again), positions(again)], [["duplicate", "duplicate"], [1, 2]])
      }
      const more = [...guarded.facts, fact("3")]
      yield* refused(store.append({ ...guarded, facts: more }), "VersionConflict")
      yield* refused(store.append({ facts: more, condition: { query } }), "ConditionFailed")
      yield* refused(store.append({ facts: more, mode: "each", condition: { query } }), "ConditionFailed")
      yield* refused(store.append({ ...guarded, facts: [fact("1", { data: 0 }), fact("3")] }), "IdConflict")
      assert.equal(store.head(), 2)
    })),
  promise("expectations that make no sense are refused, each at its place", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: [fact("1")] })
      const query = [{ names: ["suite:happened"] }]
      // A program without a compiler passes anything.
      const loose = (other: object) => store.append({ facts: [fact("2")], ...other } as Append)
      for (const bad of [-1, 0.5, Number.NaN, "1", null]) {
        yield* invalidAt("expectedVersion", loose({ expectedVersion: bad }))
        yield* invalidAt("expectedVersions.1.version", loose({ expectedVersions: [{ streamId: "a", version: 1 }, { streamId: "b", version: bad }] }))
        if (bad !== "1" && bad !== null) yield* invalidAt("condition.after", loose({ condition: { query, after: bad } }))
      }
      for (const bad of ["", "\ud800", 5, undefined]) yield* invalidAt("expectedVersions.0.streamId", loose({ expectedVersions: [{ streamId: bad, version: 0 }] }))
      yield* invalidAt("expectedVersions.0.streamId", loose({ expectedVersions: [null] }))
      yield* invalidAt("expectedVersions", loose({ expectedVersions: "a" }))
      yield* invalidAt("condition.after", loose({ condition: { query, after: 2 } }))
      yield* invalidAt("query", loose({ condition: { after: 0 } }))
      yield* invalidAt("query", loose({ condition: { query: "all" } }))
      yield* refused(loose({ condition: { query: [{ names: ["a*"] }] } }), "PatternInvalid")
      const many = upTo(Limits.defaults.queryTerms + 1).map((n) => ({ streamId: `s${n}`, version: 0 }))
      assert.equal((yield* refused(loose({ expectedVersions: many }), "LimitExceeded")).limit, "queryTerms")
      assert.equal(store.head(), 1)
      yield* store.append({ facts: [fact("2")], expectedVersions: many.slice(1), condition: { query: [{ names: ["other:*"] }], after: 1n } })
      assert.equal(store.head(), 2)
    }))
]

/** Facts of two courses, three students, and some that are about neither. */
const history: ReadonlyArray<CloudEvent.NewFact> = [
  tagged("1", ["course:c1"], { name: "course:defined", streamId: "course-c1" }),
  tagged("2", ["course:c2"], { name: "course:defined", streamId: "course-c2" }),
  tagged("3", ["course:c1", "student:ann"], { name: "student:subscribed", streamId: "ann" }),
  fact("4", { name: "weather:changed", streamId: "weather" }),
  tagged("5", ["course:c1", "student:bob"], { name: "student:subscribed", streamId: "bob" }),
  tagged("6", ["student:ann", "course:c2"], { name: "student:subscribed", streamId: "ann" }),
  tagged("7", ["course:c1", "student:ann"], { name: "student:left", streamId: "ann" }),
  fact("8", { name: "weather:forecast:changed", streamId: "weather" }),
  tagged("9", ["course:c1"], { name: "course:capacity:changed", streamId: "course-c1" }),
  fact("10", { name: "com.example.odd", streamId: "b\u{1F600}" })
]

/** Queries, and the positions of the history that match. */
const answers: ReadonlyArray<readonly [FactQuery, ReadonlyArray<number>]> = [
  [[{}], upTo(10)],
  [[{ names: ["course:defined"] }], [1, 2]],
  [[{ names: ["com.example.odd", "student:left"] }], [7, 10]],
  [[{ names: ["course:*"] }], [1, 2, 9]],
  [[{ names: ["*:changed"] }], [4]],
  [[{ names: ["weather:*", "student:left"] }], [4, 7, 8]],
  [[{ names: ["nobody:*"] }], []],
  [[{ names: ["nobody:there"] }], []],
  [[{ streamIds: ["ann"] }], [3, 6, 7]],
  [[{ streamIds: ["weather", "course-c1", "nobody"] }], [1, 4, 8, 9]],
  [[{ streamIds: ["nobody"] }], []],
  [[{ streamIds: ["b\u{1F600}"] }], [10]],
  [[{ streamIds: ["ann", "bob"], names: ["student:subscribed"] }], [3, 5, 6]],
  [[{ tags: ["course:c1"] }], [1, 3, 5, 7, 9]],
  [[{ tags: ["student:ann", "course:c1"] }], [3, 7]],
  [[{ tags: ["student:ann", "course:c1", "student:bob"] }], []],
  [[{ tags: ["course"] }], []],
  [[{ tags: ["course:c1"], names: ["student:*"] }], [3, 5, 7]],
  [[{ tags: ["course:c1"], streamIds: ["ann", "course-c1"] }], [1, 3, 7, 9]],
  [[{ tags: ["course:c1"], streamIds: ["ann"], names: ["student:left"] }], [7]],
  [[{ tags: ["course:c2"] }, { tags: ["student:bob"] }, { names: ["weather:changed"] }], [2, 4, 5, 6]],
  [[{ tags: ["course:c1"] }, { tags: ["student:ann"] }, { streamIds: ["ann"] }], [1, 3, 5, 6, 7, 9]]
]

const conditions: ReadonlyArray<Case> = [
  promise("a condition fails at the first fact that matches its query, behind what the decision knew", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: history })
      for (const [query, matching] of answers) {
        for (const after of [0, 3, 6, 10]) {
          const first = matching.find((position) => position > after)
          if (first === undefined) continue
          const failed = yield* refused(store.append({ facts: [fact("new")], condition: { query, after } }), "ConditionFailed")
          assert.deepEqual([failed.position, failed.after], [first, after], JSON.stringify(query))
        }
      }
      assert.equal(store.head(), history.length)
      assert.deepEqual(yield* store.byId("new"), [])
    })),
  promise("where nothing that matches has come, the append is stored", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: history })
      let head = store.head()
      for (const [index, [query, matching]] of answers.entries()) {
        const [appended] = yield* store.append({ facts: [fact(`n${index}`)], condition: { query, after: head } })
        assert.equal(appended?.position, head + 1, JSON.stringify(query))
        head++
        if (matching.length > 0) continue
        yield* store.append({ facts: [fact(`m${index}`)], condition: { query } })
        head++
      }
    })),
  promise("appends of one moment are checked against one another", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: [tagged("0", ["seat:7"])] })
      const book = (n: number) =>
        Effect.exit(store.append({
          facts: [tagged(`b${n}`, ["seat:8", `by:${n}`], { streamId: `s${n}` }), fact(`c${n}`, { streamId: `s${n}` })],
          condition: { query: [{ tags: ["seat:8"] }], after: 1 }
        }))
      const booked = yield* Effect.forEach(upTo(64), book, { concurrency: "unbounded" })
      assert.equal(booked.filter(Exit.isSuccess).length, 1)
      const stored = yield* everything(store)
      assert.deepEqual(positions(stored), [1, 2, 3])
      const other = yield* Effect.forEach(["name:x", "name:y"], (name) =>
        Effect.exit(store.append({ facts: [fact(name, { name })], condition: { query: [{ names: ["name:*"] }] } })), { concurrency: "unbounded" })
      assert.deepEqual(other.map(Exit.isSuccess), [true, false])
      const stream = yield* Effect.forEach(["p", "q"], (id) =>
        Effect.exit(store.append({ facts: [fact(id, { streamId: "one" })], condition: { query: [{ streamIds: ["one"] }] } })), { concurrency: "unbounded" })
      assert.deepEqual(stream.map(Exit.isSuccess), [true, false])
    })),
  promise("64 who decide by what they read, and guard it by the same query: nobody overlooks another", (store) =>
    Effect.gen(function*() {
      const query = [{ names: ["seat:*"], tags: ["flight:1"] }]
      const book = (n: number) =>
        Effect.gen(function*() {
          for (;;) {
            const { facts, position } = yield* store.readAll({ query })
            const seats = (yield* Stream.runCollect(facts)).length
            if (seats === 10) return false
            yield* Effect.yieldNow
            const tried = yield* Effect.result(store.append({
              facts: [tagged(`seat-${n}`, ["flight:1"], { name: "seat:booked", streamId: `seat-${seats}` })],
              condition: { query, after: position }
            }))
            if (tried._tag === "Success") return true
            assert.equal(tried.failure.reason._tag, "ConditionFailed")
          }
        })
      const won = yield* Effect.forEach(upTo(64), book, { concurrency: "unbounded" })
      assert.equal(won.filter((isWon) => isWon).length, 10)
      assert.deepEqual((yield* everything(store)).map(({ streamId }) => streamId), upTo(10).map((n) => `seat-${n - 1}`))
    }))
]

const tags: ReadonlyArray<Case> = [
  promise("tags are kept with the fact, in one text, and come back with an export", (store) =>
    Effect.gen(function*() {
      yield* store.appendTo("a", [{ name: "a:b", tags: ["z", "a,b", "100%", "z"], attributes: { tenant: "x" } }, { name: "a:b", tags: [] }])
      const [first, second] = yield* everything(store)
      assert.deepEqual(first?.attributes, { tenant: "x", ksitags: "100%25,a%2Cb,z" })
      assert.deepEqual(second?.attributes, {})
      assert.deepEqual(Tags.of(first ?? fact("none")), ["100%", "a,b", "z"])
      assert.deepEqual(positions(yield* Stream.runCollect(store.all({ query: [{ tags: ["a,b", "100%"] }] }))), [1])
      assert.equal(first === undefined ? "" : CloudEvent.encode(first)["ksitags"], "100%25,a%2Cb,z")
    })),
  promise("other tags are other content", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: [tagged("1", ["a", "b"])] })
      assert.deepEqual(kinds(yield* store.append({ facts: [tagged("1", ["b", "a"])] })), ["duplicate"])
      yield* refused(store.append({ facts: [tagged("1", ["a"])] }), "IdConflict")
      yield* refused(store.append({ facts: [fact("1")] }), "IdConflict")
    })),
  promise("too many tags, too long ones, empty ones and broken Unicode are refused, as many and as long are taken", (store) =>
    Effect.gen(function*() {
      const { factTags, idLength } = Limits.defaults
      const long = "é".repeat(idLength)
      const many = upTo(factTags).map((n) => `t${n}`)
      const bad = [[...many, "more"], [`${long}x`], [""], ["a", ""], ["\ud800"]]
      for (const each of bad) yield* invalidAt("tags", store.append({ facts: [fact("0"), fact("1", { attributes: { ksitags: each.join(",") } })] }))
      yield* invalidAt("tags", store.append({ facts: [fact("1", { attributes: { ksitags: 7 } })] }))
      assert.equal(store.head(), 0)
      yield* store.append({ facts: [tagged("1", [long]), tagged("2", many)] })
      assert.deepEqual(positions(yield* Stream.runCollect(store.all({ query: [{ tags: [long] }, { tags: many }] }))), [1, 2])
    })),
  promise("an append that is refused leaves no tag and no name behind", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: [fact("1")] })
      yield* refused(store.append({ facts: [tagged("2", ["x"], { name: "new:one" }), fact("1", { data: 0 })] }), "IdConflict")
      yield* store.append({ facts: [tagged("3", ["y"]), fact("4", { name: "other:one" })] })
      const found = (query: FactQuery) => Effect.map(Stream.runCollect(store.all({ query })), positions)
      assert.deepEqual(yield* found([{ tags: ["x"] }, { names: ["new:*"] }]), [])
      assert.deepEqual(yield* found([{ tags: ["y"] }, { names: ["other:*"] }]), [2, 3])
    }))
]

const found = (store: Store, options: Parameters<Store["all"]>[0]) => Effect.map(Stream.runCollect(store.all(options)), positions)

const searching: ReadonlyArray<Case> = [
  promise("all: facts of a query or a pattern, forwards and backwards, between two positions", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: history })
      for (const [query, matching] of answers) {
        const about = JSON.stringify(query)
        assert.deepEqual(yield* found(store, { query }), matching, about)
        assert.deepEqual(yield* found(store, { query, backward: true }), matching.toReversed(), about)
        const inside = matching.filter((position) => position >= 3 && position <= 7)
        assert.deepEqual(yield* found(store, { query, from: 3, to: 7n }), inside, about)
        assert.deepEqual(yield* found(store, { query, from: 3n, to: 7, backward: true }), inside.toReversed(), about)
      }
      assert.deepEqual(yield* found(store, { backward: true }), upTo(10).toReversed())
      assert.deepEqual(yield* found(store, { pattern: "weather:*" }), [4, 8])
      assert.deepEqual(yield* found(store, { pattern: "student:*", query: [{ tags: ["course:c1"] }, { names: ["weather:*"] }] }), [3, 5, 7])
      assert.deepEqual(yield* found(store, { query: [{}], from: 11 }), [])
      yield* refused(found(store, { pattern: "st*" }), "PatternInvalid")
      yield* invalidAt("query.0.tags", found(store, { query: [{ tags: [] }] }))
    })),
  promise("a search of many pages and many positions finds each once, in order", (store) =>
    Effect.gen(function*() {
      const count = 70_000
      const batch = 1000
      for (let first = 0; first < count; first += batch) {
        yield* store.append({
          facts: facts(batch, (index) => {
            const n = first + index + 1
            const rare = n === 1 || n === 2 || n === 66_000 || n === count
            return { id: `${n}`, data: null, name: rare ? "rare:one" : n % 30 === 0 ? "some:one" : "suite:happened", streamId: n % 30 === 0 ? "thirty" : "a", ...(rare ? { attributes: { ksitags: "rare" } } : {}) }
          })
        })
      }
      const rare = [1, 2, 66_000, count]
      const some = upTo(count).filter((n) => n % 30 === 0)
      for (const backward of [false, true]) {
        const order = (list: ReadonlyArray<number>) => backward ? list.toReversed() : list
        assert.deepEqual(yield* found(store, { pattern: "rare:*", backward }), order(rare))
        assert.deepEqual(yield* found(store, { query: [{ tags: ["rare"] }], backward }), order(rare))
        assert.deepEqual(yield* found(store, { query: [{ streamIds: ["thirty"] }], backward }), order(some))
        assert.deepEqual(yield* found(store, { query: [{ names: ["some:one"], streamIds: ["thirty"] }, { tags: ["rare"] }], backward }),
          order([...some.filter((n) => !rare.includes(n)), ...rare].toSorted((a, b) => a - b)))
      }
      const failed = yield* refused(store.append({ facts: [fact("new")], condition: { query: [{ names: ["rare:*"] }], after: 2 } }), "ConditionFailed")
      assert.equal(failed.position, 66_000)
    })),
  promise("a page of a search ends at its bytes, but holds at least one fact", (store) =>
    Effect.gen(function*() {
      const sizes = [400, 400, 400, 1500, 10]
      for (const [index, size] of sizes.entries()) yield* store.append({ facts: [tagged(`${index}`, ["big"], { data: "x".repeat(size * 1024) })] })
      for (const backward of [false, true]) {
        const order = backward ? upTo(5).toReversed() : upTo(5)
        assert.deepEqual(yield* found(store, { query: [{ tags: ["big"] }], backward }), order)
      }
    }))
]

/** Takes from a following stream until `count` facts have come. */
const following = (store: Store, options: Parameters<Store["subscribe"]>[0], count: number) =>
  store.subscribe(options).pipe(Stream.take(count), Stream.runCollect, Effect.map(positions))

const subscribing: ReadonlyArray<Case> = [
  promise("subscribe: what is stored, then what comes, without a gap and without a repeat, however slow", (store) =>
    Effect.gen(function*() {
      const batch = (n: number) => facts(7).map((f) => fact(`${n}/${f.id}`))
      for (const n of upTo(200)) yield* store.append({ facts: batch(n) })
      const write = (n: number) => Effect.andThen(store.append({ facts: batch(n) }), Effect.yieldNow)
      const writer = yield* Effect.forkChild(Effect.forEach(upTo(200).map((n) => n + 200), write, { concurrency: 4 }))
      const slow = yield* Effect.forkChild(store.subscribe({ from: "start" }).pipe(
        Stream.tap(({ position }) => position % 100 === 0 ? Effect.yieldNow : Effect.void), Stream.take(2800), Stream.runCollect))
      const fast = yield* Effect.forkChild(following(store, { from: 700n }, 2101))
      yield* Fiber.join(writer)
      assert.deepEqual(positions(yield* Fiber.join(slow)), upTo(2800))
      assert.deepEqual(yield* Fiber.join(fast), upTo(2800).slice(699))
    })),
  promise("subscribe: who takes nothing while more comes than is held misses nothing", (store) =>
    Effect.gen(function*() {
      const seen: Array<number> = []
      const more = Limits.defaults.subscriptionBuffer + 300
      const reader = yield* Effect.forkChild(store.subscribe().pipe(
        Stream.take(1 + 2 * more),
        Stream.runForEach(({ position }) => {
          seen.push(position)
          // Far more than is held comes while this one is being looked at.
          return position === 1 ? Effect.forEach(upTo(2 * more), (n) => store.append({ facts: [fact(`m${n}`)] }), { discard: true }) : Effect.void
        })
      ))
      while (seen.length === 0) {
        if (store.head() === 0) yield* Effect.yieldNow
        yield* Effect.yieldNow
        if (store.head() === 0) yield* store.append({ facts: [fact("first")] })
      }
      yield* Fiber.join(reader)
      assert.deepEqual(seen, upTo(1 + 2 * more))
    })),
  promise("subscribe: only what a pattern and a query match, and a start beyond the head waits for it", (store) =>
    Effect.gen(function*() {
      yield* store.append({ facts: history })
      const query = [{ tags: ["course:c1"] }]
      const matched = yield* Effect.forkChild(following(store, { from: "start", pattern: "student:*", query }, 4))
      const later = yield* Effect.forkChild(following(store, { from: 13 }, 1))
      yield* Effect.yieldNow
      yield* store.append({ facts: [fact("11"), tagged("12", ["course:c1"], { name: "student:came" }), tagged("13", ["course:c1"])] })
      assert.deepEqual(yield* Fiber.join(matched), [3, 5, 7, 12])
      assert.deepEqual(yield* Fiber.join(later), [13])
      yield* refused(following(store, { pattern: "" }, 1), "PatternInvalid")
      yield* invalidAt("from", following(store, { from: -1 }, 1))
    })),
  promise("subscribe: nothing is heard any more once it has ended", (store) =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const heard: Array<number> = []
      yield* Effect.forkIn(Stream.runForEach(store.subscribe({ from: "start" }), ({ position }) => Effect.sync(() => heard.push(position))), scope)
      yield* store.append({ facts: [fact("1")] })
      while (heard.length < 1) yield* Effect.yieldNow
      yield* Scope.close(scope, Exit.void)
      yield* store.append({ facts: [fact("2")] })
      yield* Effect.yieldNow
      assert.deepEqual(heard, [1])
    }))
]

/** The promises of this file. */
export const cases: ReadonlyArray<Case> = [...several, ...conditions, ...tags, ...searching, ...subscribing]
