// What was recorded of a real run, written as a file of tests; and that file, run: it passes, and fails where the app is changed.
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { execFile } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { promisify } from "node:util"
import { Ksi, type Runtime } from "../../src/Ksi.ts"
import { Activity } from "../../src/bus/Activity.ts"
import { KsiService } from "../../src/bus/KsiService.ts"
import { Router } from "../../src/bus/Router.ts"
import type { NewFact } from "../../src/event/CloudEvent.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import type * as ActivityTable from "../../src/store/ActivityTable.ts"
import { EventStore } from "../../src/store/EventStore.ts"
import * as Recording from "../../src/store/Recording.ts"
import app, { Break, Buy, Stocked } from "./recorded/app.ts"

const root = Path.join(import.meta.dirname, "..", "..")
const cache = Path.join(import.meta.dirname, ".cache", "recorded")
afterAll(() => Fs.rmSync(cache, { recursive: true, force: true }))

const running = <A, E>(body: Effect.Effect<A, E, Runtime>, options: ActivityTable.Options = {}) =>
  Effect.provide(body, app.pipe(Layer.provideMerge(Layer.fresh(Ksi.layerMemoryWith(options)))))

const until = new Date("2030-01-01T00:00:00Z")
const buy = (sku: string, count = 1) => Effect.flatMap(KsiService, (ksi) => Effect.exit(ksi.call(Buy, { sku, count, until })))
const stock = (sku: string, count: number) => Effect.flatMap(KsiService, (ksi) => ksi.emit(Stocked, { sku, count }))
const settled = Effect.flatMap(Router, (router) => router.settled)
const lastRequest = (name: string) =>
  Effect.gen(function*() {
    const { records } = yield* (yield* Activity).query({ limit: 10 })
    return records.find((record) => record.name === name)?.id ?? ""
  })
/** Lines of the scenarios only. */
const steps = (text: string) => text.split("\n").filter((line) => /^ {4}(?: {2})?(?:\.|\/\/|\w+\.of)/.test(line) && !line.includes("KsiTest.layer")).map((line) => line.trim())
const failing = <A>(effect: Effect.Effect<A, KsiError.KsiError, Runtime>) => Effect.map(Effect.flip(effect), ({ reason }) => reason)

describe("a recorded request as a test", () => {
  it.live("is what was there, what was asked, and what came of it", () =>
    running(Effect.gen(function*() {
      yield* (yield* EventStore).appendTo("stock-tea", [{ name: "shop:stocked", data: { sku: "tea", dozens: 1 } }, { name: "other:noted" }])
      yield* stock("tea", 3)
      yield* stock("rice", 9)
      yield* buy("tea", 2)
      yield* settled
      const text = yield* Recording.test({ trace: yield* lastRequest("shop:buy") })
      expect(text.split("\n").slice(0, 9)).toEqual([
        "// Made of what was recorded: the facts that were there, what was asked, and what came of it.",
        "import { it } from \"@effect/vitest\"",
        "import { Effect } from \"effect\"",
        "import { KsiTest } from \"ksi/testing\"",
        "import app, { Parcel as ParcelEvents, Shop as ShopEvents } from \"./app.ts\"",
        "",
        "const events = { ...ParcelEvents.events, ...ShopEvents.events }",
        "const { \"parcel:shipped\": Shipped, \"shop:bought\": Bought, \"shop:buy\": Buy, \"shop:stocked\": Stocked } = events",
        ""
      ])
      expect(text).toMatch(/^it\.effect\("shop:buy as recorded at \d{4}-.*Z", \(\) =>$/m)
      expect(steps(text)).toEqual([
        "// left out, for the app does not know them: other:noted",
        ".given(",
        // Stored as dozens: it is told as it would be written today.
        "Stocked.of({ sku: \"tea\", count: 12 }),",
        "Stocked.of({ sku: \"tea\", count: 3 })",
        ".when(Buy, { sku: \"tea\", count: 2, until: new Date(\"2030-01-01T00:00:00.000Z\") })",
        "// made up by a handler, and another the next time: order",
        ".thenEmits(",
        "Shipped.of({ sku: \"tea\" })"
      ])
      expect(text).toContain("KsiTest.like(Bought, { sku: \"tea\", count: 2, at: new Date(\"2030-01-01T00:00:00.000Z\") }),")
      expect(yield* Recording.test({ trace: yield* lastRequest("shop:buy") }, { app: "../shop.ts", groups: ["All"] })).toContain(
        "import app, { All as AllEvents } from \"../shop.ts\""
      )
    })))

  it.live("of a failure names its tag, of a defect its words; what it read elsewhere is told", () =>
    running(Effect.gen(function*() {
      yield* stock("tea", 1)
      yield* buy("tea", 2)
      const trace = yield* lastRequest("shop:buy")
      expect(steps(yield* Recording.test({ trace }))).toEqual([
        ".when(Buy, { sku: \"tea\", count: 2, until: new Date(\"2030-01-01T00:00:00.000Z\") })", ".thenFails(\"SoldOut\")", ".thenEmits()"
      ])
      expect(steps(yield* Recording.test({ trace }, { given: ["stock-tea"] }))[0]).toBe(".given(Stocked.of({ sku: \"tea\", count: 1 }))")
      yield* Effect.exit((yield* KsiService).call(Break, {}))
      expect(steps(yield* Recording.test({ trace: yield* lastRequest("shop:break") }))).toEqual([
        ".when(Break, {})", "// when it was recorded, it died: no paper", ".thenEmits()"
      ])
    })))

  it.live("is asked by who asked; what was refused is refused", () =>
    running(Effect.gen(function*() {
      const ksi = yield* KsiService
      const ask = (data: unknown, principal: string) => Effect.exit(ksi.dispatch("shop:buy", data, { principal }))
      yield* stock("tea", 1)
      yield* ask({ sku: "tea", count: 1, until: until.toISOString() }, "local-http")
      yield* settled
      expect(steps(yield* Recording.test({ trace: yield* lastRequest("shop:buy") }))).toContain(
        ".as(\"local-http\", { grants: [\"shop:buy\", \"parcel:ship\", \"shop:bought\", \"parcel:shipped\"] })"
      )
      yield* ask({ sku: 5 }, "owner")
      expect(steps(yield* Recording.test({ trace: yield* lastRequest("shop:buy") }))).toEqual([
        ".when(Buy, ({ sku: 5 }) as never)", ".thenRefused(\"PayloadInvalid\")", ".thenEmits()"
      ])
    })))

  it.live("of a stream, or of positions, is a test for each request that led there, in order", () =>
    running(Effect.gen(function*() {
      yield* stock("tea", 2)
      yield* buy("tea")
      yield* settled
      yield* buy("tea")
      yield* settled
      const whens = (text: string) => steps(text).filter((line) => line.startsWith(".when"))
      expect(whens(yield* Recording.test({ stream: "stock-tea" })).map((line) => line.slice(0, 18))).toEqual([".when(Stocked.of({", ".when(Buy, { sku: ", ".when(Buy, { sku: "])
      expect(whens(yield* Recording.test({ stream: "parcel-tea" }))).toHaveLength(2)
      expect(whens(yield* Recording.test({ from: 1, to: 1 }))).toHaveLength(1)
      expect(whens(yield* Recording.test({ stream: "stock-tea", from: 4 }))).toHaveLength(1)
      for (const selection of [{ stream: "nothing" }, { from: 100 }, { trace: "nobody" }, { stream: "stock-tea", from: 100 }]) {
        expect(yield* failing(Recording.test(selection))).toMatchObject({ _tag: "NotFound" })
      }
      // Of a long stream the end is found; but the test would be given all that is before.
      yield* (yield* EventStore).append({ facts: Array.from({ length: 1000 }, (_, n) => ({ id: `${n}`, source: "/there", name: "other:noted", streamId: "long", data: {}, time: undefined, attributes: {} })) })
      yield* (yield* EventStore).appendTo("long", [{ name: "other:noted" }])
      const { id } = yield* stock("nut", 1)
      yield* (yield* EventStore).appendTo("long", [{ name: "parcel:shipped", data: { sku: "nut" }, attributes: { correlationid: id, causationid: id, depth: 1 } }])
      expect(yield* failing(Recording.test({ stream: "long", from: 1005 }))).toMatchObject({ _tag: "LimitExceeded", max: 1000 })
      for (let n = 0; n < 51; n++) yield* stock("rice", 1)
      expect(yield* failing(Recording.test({ stream: "stock-rice" }))).toMatchObject({ _tag: "LimitExceeded", max: 50, actual: 51 })
    })))

  it.live("is an error where what it needs was not recorded, or did not begin here", () =>
    Effect.gen(function*() {
      const once = Effect.gen(function*() {
        yield* stock("tea", 1)
        yield* buy("tea")
        yield* settled
        return (yield* (yield* EventStore).read({ from: 2, limit: 1 }))[0]?.id ?? ""
      })
      const outline = yield* running(Effect.flatMap(once, (trace) => failing(Recording.test({ trace }))), { audit: "outline" })
      expect(outline.message).toMatch(/^there is no payload of the request ".+" \(shop:buy\) in the activity journal, which keeps none with KSI_AUDIT=outline$/)
      const off = yield* running(Effect.flatMap(once, (trace) => failing(Recording.test({ trace }))), { audit: "off" })
      expect(off.message).toMatch(/^there is no request ".+" in the activity journal \(any more\)/)
      // Of a stream, what began by itself is still told, and that something is missing.
      const text = yield* running(Effect.andThen(once, Recording.test({ stream: "stock-tea" })), { audit: "off" })
      expect(text).toMatch(/^\/\/ Left out: what 1 request caused that is not recorded any more\.$/m)
      expect(steps(text)[0]).toBe(".when(Stocked.of({ sku: \"tea\", count: 1 }))")
      const fact: NewFact = { id: "1", source: "/there", name: "shop:stocked", streamId: "stock-tea", data: { sku: "tea", dozens: 1 }, time: undefined, attributes: {} }
      const imported = yield* running(Effect.gen(function*() {
        yield* (yield* EventStore).append({ facts: [fact] })
        return yield* failing(Recording.test({ stream: "stock-tea" }))
      }))
      expect(imported).toMatchObject({ _tag: "NotFound", detail: expect.stringContaining("imported") })
    }))
})

describe("the file", () => {
  const node = (...args: ReadonlyArray<string>) =>
    promisify(execFile)(process.execPath, [...args], { cwd: root, env: { ...process.env, NO_COLOR: "1" } }).then(
      ({ stdout }) => ({ code: 0, stdout }),
      (error: { readonly code: number; readonly stdout: string }) => ({ code: error.code, stdout: error.stdout })
    )
  const recorded = running(Effect.gen(function*() {
    yield* stock("tea", 3)
    yield* buy("tea", 2)
    yield* settled
    yield* buy("tea", 2)
    yield* buy("none", 1)
    const all = yield* Recording.test({ stream: "stock-tea" })
    const failed = yield* Recording.test({ trace: yield* lastRequest("shop:buy") }, { app: "./app.ts" })
    return { all, failed }
  }))

  it("compiles, passes, and fails when a handler does something else", async () => {
    const texts = await Effect.runPromise(recorded)
    Fs.mkdirSync(cache, { recursive: true })
    const original = Fs.readFileSync(Path.join(import.meta.dirname, "recorded", "app.ts"), "utf8").replace("../../../src/index.ts", "ksi")
    Fs.writeFileSync(Path.join(cache, "app.ts"), original)
    for (const [name, text] of Object.entries(texts)) Fs.writeFileSync(Path.join(cache, `${name}.ts`), text)
    Fs.writeFileSync(Path.join(cache, "tsconfig.json"), JSON.stringify({ extends: Path.join(root, "tsconfig.json"), include: ["*.ts"] }))
    const types = await node("node_modules/typescript/bin/tsc", "--noEmit", "-p", cache)
    expect(types.stdout).toBe("")
    const alias = { "ksi/testing": Path.join(root, "src/testing.ts"), ksi: Path.join(root, "src/index.ts") }
    Fs.writeFileSync(Path.join(cache, "vitest.config.mjs"), `export default ${JSON.stringify({ resolve: { alias }, test: { include: ["all.ts", "failed.ts"] } })}`)
    const report = Path.join(cache, "report.json")
    const run = async () => {
      const { code } = await node("node_modules/vitest/vitest.mjs", "run", "--root", cache, "--reporter", "json", "--outputFile", report)
      const text = Fs.readFileSync(report, "utf8")
      const { numFailedTests, numPassedTests } = JSON.parse(text) as { readonly numPassedTests: number; readonly numFailedTests: number }
      return { code, text, numFailedTests, numPassedTests }
    }
    const { text, ...right } = await run()
    expect(right, text).toEqual({ code: 0, numPassedTests: 3, numFailedTests: 0 })
    Fs.writeFileSync(Path.join(cache, "app.ts"), original.replace("left < count", "left <= count").replace("ksi.emit(Shipped, { sku })", "Effect.void"))
    const wrong = await run()
    expect(wrong).toMatchObject({ code: 1, numPassedTests: 2, numFailedTests: 1 })
    expect(wrong.text).toContain("exactly these facts, in this order")
  }, 60_000)
})
