// Answers under idempotency keys, in memory and in a real SQLite file.
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Idempotency } from "../../src/bus/Idempotency.ts"
import * as Json from "../../src/event/Json.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import * as Limits from "../../src/event/Limits.ts"
import * as IdempotencyTable from "../../src/store/IdempotencyTable.ts"
import * as StoreFile from "../../src/store/internal/StoreFile.ts"
import * as SqliteEventStore from "../../src/store/SqliteEventStore.ts"

const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-idempotency-"))
afterAll(() => Fs.rmSync(folder, { recursive: true }))
let files = 0
const fresh = () => Path.join(folder, `${++files}.db`)

const inFile = (filename = fresh()) =>
  IdempotencyTable.layer.pipe(
    Layer.provideMerge(Layer.effect(StoreFile.StoreFile, StoreFile.make({ filename, sync: "normal" })))
  )
const few = Effect.provideService(Limits.Limits, { ...Limits.defaults, idempotencyKeys: 10 })

const key = (text = "k", more: { readonly principal?: string; readonly event?: string } = {}) => ({
  principal: "owner", event: "stock:reserve", key: text, ...more
})
const payload = { sku: "tea", quantity: 1 }

/** Work that counts its runs and answers with their number. */
const counter = () => {
  let runs = 0
  return { runs: () => runs, work: Effect.sync(() => ++runs) }
}

const kinds: ReadonlyArray<readonly [name: string, layer: () => Layer.Layer<Idempotency, KsiError.KsiError>]> = [
  ["in memory", () => IdempotencyTable.layerMemory],
  ["in a file", () => inFile()]
]

for (const [name, make] of kinds) {
  const test = <E>(title: string, program: () => Effect.Effect<void, E, Idempotency>) =>
    it.effect(title, () => Effect.provide(program(), make()))

  describe(name, () => {
    test("runs once for a key, whatever the order of the payload's keys", Effect.fnUntraced(function*() {
      const { once } = yield* Idempotency
      const { runs, work } = counter()
      expect(yield* once(key(), payload, work)).toBe(1)
      expect(yield* once(key(), { quantity: 1, sku: "tea" }, work)).toBe(1)
      expect(runs()).toBe(1)
    }))

    test("principal, event and key make the key", Effect.fnUntraced(function*() {
      const { once } = yield* Idempotency
      const { work } = counter()
      const keys = [
        key(), key("k2"), key("k", { principal: "guest" }), key("k", { event: "stock:release" }),
        key("b\",\"c", { event: "a" }), key("c", { event: "a\",\"b" }), key("\ud800"), key("\ud801"), key("k\u0000"),
        key("x".repeat(100_000))
      ]
      for (const round of [1, 2]) {
        const answers: Array<number> = []
        for (const each of keys) answers.push(yield* once(each, payload, work))
        expect(answers, `round ${round}`).toEqual(keys.map((_, i) => i + 1))
      }
    }))

    test("another payload is a conflict, later and while it runs; the answer that is kept stays", Effect.fnUntraced(function*() {
      const { once } = yield* Idempotency
      const { runs, work } = counter()
      const conflict = { _tag: "IdempotencyConflict", event: "stock:reserve", key: "k" }
      const gate = yield* Deferred.make<void>()
      const first = yield* Effect.forkChild(once(key(), payload, Effect.andThen(Deferred.await(gate), work)), { startImmediately: true })
      expect((yield* Effect.flip(once(key(), { ...payload, quantity: 2 }, work))).reason).toMatchObject(conflict)
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.join(first)).toBe(1)
      expect((yield* Effect.flip(once(key(), { ...payload, quantity: 2 }, work))).reason).toMatchObject(conflict)
      expect(yield* once(key(), payload, work)).toBe(1)
      expect(runs()).toBe(1)
    }))

    test("of a thousand at once one runs, and all are answered", Effect.fnUntraced(function*() {
      const { once } = yield* Idempotency
      const { runs, work } = counter()
      const slow = Effect.andThen(Effect.yieldNow, work)
      const answers = yield* Effect.forEach(Array.from({ length: 1000 }), () => once(key(), payload, slow), { concurrency: "unbounded" })
      expect([new Set(answers), answers.length, runs()]).toEqual([new Set([1]), 1000, 1])
    }))

    test("of a thousand keys at once each runs", Effect.fnUntraced(function*() {
      const { once } = yield* Idempotency
      const many = Array.from({ length: 2000 }, (_, n) => n)
      const ask = (n: number) => once(key(`${n % 1000}`), { n: n % 1000 }, Effect.succeed(n))
      const answers = yield* Effect.forEach(many, ask, { concurrency: "unbounded" })
      expect(answers).toEqual(many.map((n) => n % 1000))
    }))

    test("JSON comes back as it went in", Effect.fnUntraced(function*() {
      const { once } = yield* Idempotency
      const values = [null, undefined, 0, "", "ü\ud800", [1, { a: null }], Json.parse("{\"n\":12345678901234567890}")]
      for (const [n, value] of values.entries()) {
        yield* once(key(`${n}`), payload, Effect.succeed(value))
        const again = yield* once(key(`${n}`), payload, Effect.die("ran again"))
        expect(JSON.stringify(again)).toBe(JSON.stringify(value))
      }
    }))

    test("failures are kept too: declared ones, and those of KSI that are final", Effect.fnUntraced(function*() {
      const { once } = yield* Idempotency
      const { runs, work } = counter()
      const failing = (error: unknown) => Effect.andThen(work, Effect.fail(error))
      const declared = { _tag: "OutOfStock", left: 0 }
      const final = KsiError.make(new KsiError.NotFound({ what: "stream", id: "s", similar: ["t"] }))
      for (const [n, error] of [declared, final, null].entries()) {
        expect(yield* Effect.flip(once(key(`${n}`), payload, failing(error)))).toBe(error)
        expect(yield* Effect.flip(once(key(`${n}`), payload, work))).toEqual(error)
      }
      expect(runs()).toBe(3)
      const again = yield* Effect.flip(once(key("1"), payload, work))
      expect(KsiError.is(again) && again.reason).toBeInstanceOf(KsiError.NotFound)
    }))

    test("a failure of KSI that may pass is not kept, but told to all who wait", Effect.fnUntraced(function*() {
      const { once } = yield* Idempotency
      const { runs, work } = counter()
      const error = KsiError.make(new KsiError.DeadlineExceeded({ event: "stock:reserve", millis: 5 }))
      const failing = Effect.andThen(Effect.andThen(Effect.yieldNow, work), Effect.fail(error))
      const told = yield* Effect.forEach([1, 2, 3], () => Effect.flip(once(key(), payload, failing)), { concurrency: "unbounded" })
      expect(told).toEqual([error, error, error])
      expect(runs()).toBe(1)
      expect(yield* once(key(), payload, work)).toBe(2)
    }))

    test("what died leaves nothing; who waited runs itself", Effect.fnUntraced(function*() {
      const { once } = yield* Idempotency
      let runs = 0
      const work = Effect.suspend(() => ++runs <= 2 ? Effect.andThen(Effect.yieldNow, Effect.die(`bug ${runs}`)) : Effect.succeed(runs))
      const exits = yield* Effect.forEach([1, 2, 3, 4], () => Effect.exit(once(key(), payload, work)), { concurrency: "unbounded" })
      const told = exits.map((exit) => Exit.isSuccess(exit) ? exit.value : KsiError.defectOf(exit.cause))
      expect(told).toEqual(["bug 1", "bug 2", 3, 3])
      // A defect beside a failure is a defect.
      const both = Exit.failCause(Cause.combine(Cause.fail("no"), Cause.die("bug")))
      yield* Effect.exit(once(key("both"), payload, both))
      expect(yield* once(key("both"), payload, Effect.succeed("ran"))).toBe("ran")
      // An answer that is no JSON is the caller's bug.
      expect(yield* Effect.exit(once(key("big"), payload, Effect.succeed(1n)))).toMatchObject({ _tag: "Failure" })
      expect(yield* once(key("big"), payload, Effect.succeed(1))).toBe(1)
    }))

    test("what was interrupted leaves nothing; who waited runs itself, in its own context", Effect.fnUntraced(function*() {
      const { once } = yield* Idempotency
      let finalized = 0
      const never = Effect.onInterrupt(Effect.never, () => Effect.sync(() => void finalized++))
      const first = yield* Effect.forkChild(once(key(), payload, never), { startImmediately: true })
      const second = yield* Effect.forkChild(once(key(), payload, Effect.succeed("second")), { startImmediately: true })
      const third = yield* Effect.forkChild(once(key(), payload, Effect.succeed("third")), { startImmediately: true })
      yield* Effect.yieldNow
      yield* Fiber.interrupt(first)
      expect(yield* Fiber.join(second)).toBe("second")
      expect(yield* Fiber.join(third)).toBe("second")
      expect(finalized).toBe(1)
    }))

    test("who waits can be interrupted, and disturbs nobody", Effect.fnUntraced(function*() {
      const { once } = yield* Idempotency
      const gate = yield* Deferred.make<string>()
      const first = yield* Effect.forkChild(once(key(), payload, Deferred.await(gate)), { startImmediately: true })
      const gone = yield* Effect.forkChild(once(key(), payload, Effect.succeed("never")), { startImmediately: true })
      const waits = yield* Effect.forkChild(once(key(), payload, Effect.succeed("never")), { startImmediately: true })
      yield* Fiber.interrupt(gone)
      yield* Deferred.succeed(gate, "first")
      expect([yield* Fiber.join(first), yield* Fiber.join(waits)]).toEqual(["first", "first"])
    }))

    test("an answer is kept for 24 hours", Effect.fnUntraced(function*() {
      const { once } = yield* Idempotency
      const { work } = counter()
      yield* TestClock.adjust("1 hour")
      yield* once(key(), payload, work)
      yield* TestClock.adjust(24 * 60 * 60 * 1000 - 1)
      expect(yield* once(key(), payload, work)).toBe(1)
      yield* TestClock.adjust(1)
      // With any payload: the key is free again.
      expect(yield* once(key(), {}, work)).toBe(2)
      expect(yield* once(key(), {}, work)).toBe(2)
      expect((yield* Effect.flip(once(key(), payload, work))).reason._tag).toBe("IdempotencyConflict")
    }))

    it.effect("so many are kept, the oldest go first", () =>
      Effect.gen(function*() {
        const { once } = yield* Idempotency
        for (let n = 1; n <= 25; n++) yield* once(key(`${n}`), payload, Effect.succeed(n))
        const kept: Array<number> = []
        for (let n = 25; n >= 1; n--) {
          // Nothing is added: what is not kept dies.
          const exit = yield* Effect.exit(once(key(`${n}`), payload, Effect.die("gone")))
          if (Exit.isSuccess(exit)) kept.push(n)
        }
        expect(kept).toEqual([25, 24, 23, 22, 21, 20, 19, 18, 17, 16])
      }).pipe(Effect.provide(make()), few))

    it.effect("an answer that takes the place of an old one is a new one", () =>
      Effect.gen(function*() {
        const { once } = yield* Idempotency
        const ask = (n: number, answer: string) => once(key(`${n}`), payload, Effect.succeed(answer))
        for (let n = 1; n <= 9; n++) yield* ask(n, "old")
        yield* TestClock.adjust("1 day")
        yield* ask(1, "new")
        for (let n = 10; n <= 18; n++) yield* ask(n, "new")
        expect(yield* ask(1, "again")).toBe("new")
        expect(yield* ask(2, "again")).toBe("again")
      }).pipe(Effect.provide(make()), few))

    test("a payload that is nested too deeply is refused before anything runs", Effect.fnUntraced(function*() {
      const { once } = yield* Idempotency
      let deep: unknown = 1
      for (let n = 0; n < 100_000; n++) deep = [deep]
      const { reason } = yield* Effect.flip(once(key(), deep, Effect.die("ran")))
      expect(reason._tag).toBe("PayloadInvalid")
    }))
  })
}

// Few texts, so that equal values meet often, differently spelt.
const Spelt = Schema.Literals(["null", "[]", "{}", "1", "1.0", "{\"a\":1,\"b\":[1,2]}", "{\"b\":[1,2],\"a\":1}", "{\"b\":[2,1],\"a\":1}", "12345678901234567890", "1234567890123456789e1"])

it.effect.prop("equal payloads share an answer, others conflict", [Spelt, Spelt], ([a, b]) =>
  Effect.gen(function*() {
    const { once } = yield* Idempotency
    yield* once(key(), { payload: Json.parse(a) }, Effect.succeed("a"))
    const exit = yield* Effect.exit(once(key(), { payload: Json.parse(b) }, Effect.succeed("b")))
    expect(Exit.isSuccess(exit)).toBe(Json.equal(Json.parse(a), Json.parse(b)))
  }).pipe(Effect.provide(IdempotencyTable.layerMemory)), { arbitrary: { runs: 200 } })

const rows = Effect.map(StoreFile.StoreFile, ({ db }) => StoreFile.number(db, "SELECT count(*) FROM idempotency"))

describe("the file", () => {
  it.effect("answers survive closing and opening, also failures", () => {
    const filename = fresh()
    const opened = <A, E>(program: Effect.Effect<A, E, Idempotency>) => Effect.scoped(Effect.provide(program, inFile(filename)))
    const ask = (text: string, work: Effect.Effect<unknown, unknown>) =>
      Effect.flatMap(Idempotency, ({ once }) => Effect.exit(once(key(text), payload, work)))
    return Effect.gen(function*() {
      const final = KsiError.make(new KsiError.NotFound({ what: "stream", id: "s", similar: [] }))
      const works = { a: Effect.succeed({ n: 1 }), b: Effect.fail({ _tag: "Poor" }), c: Effect.fail(final) }
      for (const [text, work] of Object.entries(works)) {
        const first = yield* opened(ask(text, work))
        expect(yield* opened(ask(text, Effect.die("ran again")))).toEqual(first)
      }
    })
  })

  it.effect("an answer is durable before the caller has it", () =>
    Effect.gen(function*() {
      const { once } = yield* Idempotency
      yield* once(key(), payload, Effect.succeed(1))
      expect(yield* rows).toBe(1)
    }).pipe(Effect.provide(inFile())))

  it.effect("old answers are swept a few at a time, with the commits", () =>
    Effect.gen(function*() {
      const { once } = yield* Idempotency
      for (let n = 0; n < 20; n++) yield* once(key(`${n}`), payload, Effect.succeed(n))
      yield* TestClock.adjust("2 days")
      const counts: Array<number> = []
      for (let n = 20; n < 42; n++) {
        yield* once(key(`${n}`), payload, Effect.succeed(n))
        counts.push(yield* rows)
      }
      expect(counts.slice(0, 3)).toEqual([19, 18, 17])
      expect(counts.at(-1)).toBe(22)
    }).pipe(Effect.provide(inFile())))

  it.effect("an answer that cannot be kept is not told; asking again keeps it and does not run again", () =>
    Effect.gen(function*() {
      const { once } = yield* Idempotency
      const { db } = yield* StoreFile.StoreFile
      const { runs, work } = counter()
      const big = Effect.map(work, (n) => `${n}`.repeat(50_000))
      db.exec(`PRAGMA max_page_count = ${StoreFile.number(db, "PRAGMA page_count")}`)
      for (let n = 0; n < 3; n++) {
        const { reason } = yield* Effect.flip(once(key(), payload, big))
        expect(reason).toMatchObject({ _tag: "StoreFailure", operation: "keep an answer" })
      }
      expect((yield* Effect.flip(once(key(), {}, big))).reason._tag).toBe("IdempotencyConflict")
      db.exec("PRAGMA max_page_count = 1000000")
      expect(yield* once(key(), payload, big)).toBe("1".repeat(50_000))
      expect([runs(), yield* rows]).toEqual([1, 1])
    }).pipe(Effect.provide(inFile())))

  it.effect("a file that cannot be read is a StoreFailure, and nothing runs", () =>
    Effect.gen(function*() {
      const { once } = yield* Idempotency
      const { db } = yield* StoreFile.StoreFile
      yield* once(key(), payload, Effect.succeed(1))
      db.exec("UPDATE idempotency SET kind = 'ksi', value = '{\"_tag\":\"Newer\"}'")
      expect((yield* Effect.flip(once(key(), payload, Effect.die("ran")))).reason).toMatchObject({ _tag: "StoreFailure", operation: "read an answer" })
      db.exec("DROP TABLE idempotency")
      expect((yield* Effect.flip(once(key(), payload, Effect.die("ran")))).reason).toMatchObject({ _tag: "StoreFailure", operation: "look for an answer" })
    }).pipe(Effect.provide(inFile())))

  it.effect("closing commits what waits for its commit", () =>
    Effect.gen(function*() {
      const filename = fresh()
      const scope = yield* Scope.make()
      const { once } = Context.get(yield* Layer.buildWithScope(inFile(filename), scope), Idempotency)
      const waits = yield* Effect.forkChild(once(key(), payload, Effect.succeed("first")), { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      expect(yield* Fiber.join(waits)).toBe("first")
      const again = Effect.flatMap(Idempotency, ({ once }) => once(key(), payload, Effect.die("ran again")))
      expect(yield* Effect.provide(again, inFile(filename))).toBe("first")
    }))

  it.effect("work that ends after the store was closed is not told as kept", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(inFile(), scope)
      const { once } = Context.get(context, Idempotency)
      const gate = yield* Deferred.make<number>()
      const late = yield* Effect.forkChild(Effect.exit(once(key(), payload, Deferred.await(gate))), { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      yield* Deferred.succeed(gate, 1)
      const exit = yield* Fiber.join(late)
      expect(Exit.isFailure(exit) && String(exit.cause)).toContain("it is closed")
    }))

  it.live("kill -9: an answer that was told is there, and is told again", () =>
    Effect.gen(function*() {
      const filename = fresh()
      const script = Path.join(import.meta.dirname, "crash/once.ts")
      const said = yield* Effect.callback<string>((resume) => {
        const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", script, filename], { stdio: ["ignore", "pipe", "inherit"] })
        let text = ""
        child.stdout.on("data", (chunk) => {
          text += chunk
          if (text.endsWith("\n")) child.kill("SIGKILL")
        })
        child.on("close", () => resume(Effect.succeed(text.trimEnd())))
        return Effect.sync(() => child.kill("SIGKILL"))
      })
      expect(said).toMatch(/^ran in \d+$/)
      const again = Effect.flatMap(Idempotency, ({ once }) =>
        once({ principal: "owner", event: "a:b", key: "k" }, { b: 2, a: 1 }, Effect.die("ran again")))
      expect(yield* Effect.scoped(Effect.provide(again, SqliteEventStore.layer({ filename })))).toBe(said)
    }), 30_000)
})
