import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Schema } from "effect"
import { execFile } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { promisify } from "node:util"
import { Plugins } from "../../src/bus/Plugin.ts"
import * as Event from "../../src/event/Event.ts"
import * as EventGroup from "../../src/event/EventGroup.ts"
import * as DeadLetter from "../../src/plugins/DeadLetter.ts"
import * as Module from "../../src/plugins/Module.ts"
import * as Monitor from "../../src/plugins/Monitor.ts"
import * as Permission from "../../src/plugins/Permission.ts"
import * as Store from "../../src/plugins/Store.ts"
import * as System from "../../src/plugins/System.ts"
import * as Time from "../../src/plugins/Time.ts"
import * as Trace from "../../src/plugins/Trace.ts"
import * as Commands from "../../src/testing/Commands.ts"
import { allOrders, fitting, type Operation } from "../../src/testing/internal/orders.ts"
import * as KsiTest from "../../src/testing/KsiTest.ts"
import { type Bug, model, Next, shop, Stock } from "./Planted.ts"

const root = Path.join(import.meta.dirname, "..", "..")

/** What the first of these seeds that finds it says of a bug. */
const found = (bug: Bug, what: Commands.Model | typeof Stock = model, options: Commands.Options = {}) =>
  Effect.flip(Effect.provide(Commands.check(what, { runs: 1000, ...options }), shop(bug)))

/** How many are asked in a scenario, those together included. */
const asked = (text: string): number => [...text.matchAll(/\.(?:givenCall|when)\(|KsiTest\.ask\(/g)].length

describe("a model", () => {
  it.effect("holds of an app that is right, in turn and at the same time", () =>
    Effect.provide(Effect.andThen(Commands.check(model), Commands.check(model, { runs: 60, fibers: 3 })), shop()))

  it.effect("the laws of every app hold without one, in turn and at the same time", () =>
    Effect.provide(Effect.andThen(Commands.check(Stock, { runs: 40 }), Commands.check(Stock, { runs: 20, fibers: 2 })), shop()))

  it.effect("nothing tried is nothing found: it is refused", () => Effect.gen(function*() {
    const never = Commands.model(Stock, { initial: 0, commands: {} })
    const refused = (what: Commands.Model | typeof Stock, options: Commands.Options) =>
      Effect.map(Effect.exit(Effect.provide(Commands.check(what, options), shop("counts wrong"))), (exit) =>
        Exit.isFailure(exit) ? String(Cause.squash(exit.cause)) : "it passed")
    for (const runs of [0, -1, 1.5, NaN]) expect(yield* refused(model, { runs })).toBe(`Error: runs is ${runs}: it is a whole number from 1 to 4294967295`)
    expect(yield* refused(model, { seed: -1 })).toContain("seed is -1")
    expect(yield* refused(model, { maxCommands: 0 })).toContain("maxCommands is 0")
    for (const fibers of [0, 9, NaN]) expect(yield* refused(model, { fibers })).toContain(`fibers is ${fibers}: it is a whole number from 1 to 8`)
    expect(yield* refused(never, {})).toContain("there is no command to ask")
  }))

  it.effect("they hold of KSI's own events, whatever comes after what", () => {
    const own = [System, Store, Time, Monitor, DeadLetter, Permission, Module]
    const layers = Layer.mergeAll(System.layer, Store.layer, Time.layer, Trace.layer, Monitor.layer, DeadLetter.layer, Permission.layer, Module.layer)
    const daemon = KsiTest.layer(layers.pipe(Layer.provide(Layer.merge(System.Shutdown.layer, Plugins.layer))), { outsideMillis: 5 })
    const all = EventGroup.make(...own.flatMap(({ Group }): ReadonlyArray<Event.Any> => Object.values(Group.events)))
    return Effect.provide(Effect.andThen(Commands.check(all, { runs: 40 }), Commands.check(all, { runs: 40, fibers: 3 })), daemon)
  })

  const bugs: ReadonlyArray<readonly [bug: Bug, options: Commands.Options, says: string, text: ReadonlyArray<string>]> = [
    ["takes none", {}, "stock:reserve is not what the model says", [
      "// Reserve is stock:reserve", "KsiTest.scenario", "  .when(Reserve, { sku: \"\", quantity: 0 })", "  .thenFails(\"NotPositive\")"
    ]],
    ["drops twice", {}, "stock:drop is not what the model says", [
      "// Hold is stock:hold, Drop is stock:drop",
      "KsiTest.scenario",
      "  .givenCall(Hold, { at: new Date(\"1970-01-01T00:00:00.000Z\"), note: Option.none() })",
      "  .givenCall(Drop, ({ reply }) => ({ id: reply(Hold).id }))",
      "  .when(Drop, ({ reply }) => ({ id: reply(Hold).id }))",
      "  .thenReplies(false)"
    ]],
    ["says less", {}, "the state taken of \"stock-\" is another one", [
      "// Reserve is stock:reserve, Taken is taken", "KsiTest.scenario", "  .when(Reserve, { sku: \"\", quantity: 6 })", "  .thenState(Taken, \"stock-\", 6)"
    ]],
    ["reaction", {}, "the reaction stock:reserved to stock:reserved failed: too many for one parcel", [
      "// Reserve is stock:reserve", "KsiTest.scenario", "  .when(Reserve, { sku: \"\", quantity: 4 })"
    ]],
    ["sleeps", {}, "stock:reserve: it never answers", [
      "// Reserve is stock:reserve", "KsiTest.scenario", "  .when(Reserve, { sku: \"\", quantity: 7 })", "  .thenReplies({ left: 3 })"
    ]],
    ["loses bytes", {}, "stock:load is not what the model says", [
      "// Load is stock:load",
      "KsiTest.scenario",
      "  .when(Load, Schema.decodeSync(Schema.toCodecJson(Load.payload))({\"bytes\":\"AAAA\"}))",
      "  .thenReplies(3)"
    ]],
    ["late race", { fibers: 2 }, "no order of what was asked together", [
      "// Reserve is stock:reserve",
      "KsiTest.scenario",
      "  .withSeed(0)",
      "  .whenTogether(",
      "    [KsiTest.ask(Reserve, { sku: \"\", quantity: 1 })],",
      "    [KsiTest.ask(Reserve, { sku: \"\", quantity: 1 })]",
      "  )",
      "  .thenAfter(\"1 second\")",
      "  .thenOneOf(",
      "    [{ reply: { left: 9 } }, { reply: { left: 8 } }],",
      "    [{ reply: { left: 8 } }, { reply: { left: 9 } }]",
      "  )"
    ]]
  ]
  for (const [bug, options, says, text] of bugs) {
    it.effect(`finds "${bug}", and tells the least that shows it`, () => Effect.map(found(bug, model, options), ({ message, scenario }) => {
      expect(message).toContain(says)
      // What is wrong stands first, then the seed, then what shows it.
      expect(message.indexOf(says)).toBeLessThan(message.indexOf("(found by the seed"))
      expect(message).toContain(`)\n\n${scenario ?? ""}\n\n`)
      expect(scenario?.replace(/withSeed\(\d+\)/, "withSeed(0)").split("\n")).toEqual(text)
    }))
  }

  it.effect("the same seed finds the same, and tells it in the same words", () =>
    Effect.gen(function*() {
      for (const [bug, options] of [["forgets a release", { seed: 7 }], ["loses an update", { fibers: 2, seed: 7 }]] as const) {
        const [one, two] = [yield* found(bug, model, options), yield* found(bug, model, options)]
        expect(two.message).toBe(one.message)
        const [, seed] = /found by the seed (\d+)/.exec(one.message) ?? []
        expect((yield* found(bug, model, { ...options, seed: Number(seed), runs: 1 })).scenario).toBe(one.scenario)
      }
    }))

  it.effect("what it finds is small, whatever the seed", () =>
    Effect.gen(function*() {
      const sizes: Array<number> = []
      for (let seed = 0; seed < 2000; seed += 1000) {
        for (const bug of ["forgets a release", "counts wrong"] as const) sizes.push(asked((yield* found(bug, model, { seed })).scenario ?? ""))
        sizes.push(asked((yield* found("loses an update", model, { seed, fibers: 3 })).scenario ?? ""))
      }
      expect(Math.max(...sizes)).toBeLessThanOrEqual(6)
      expect(Math.min(...sizes)).toBeGreaterThanOrEqual(2)
    }))

  it("that says what no app can do is told so", () => {
    const Other = Event.make("other:ask", { success: Schema.Int })
    const Items = Event.make("other:items", { success: Schema.Int, stream: true })
    // As from where types were not checked.
    const unknown = { "other:asks": () => 1 } as object
    expect(() => Commands.model(EventGroup.make(Other), { initial: 0, commands: unknown })).toThrow("other:asks, which the group does not have")
    expect(() => Commands.model(EventGroup.make(Items), { initial: 0, commands: { "other:items": (_, __, must) => must.succeed() } })).toThrow("is a stream")
  })

  it.effect("a reply that is none is the model's own mistake", () => {
    const wrong = Commands.model(EventGroup.make(Next), { initial: 0, commands: { "stock:next": (_, __, must) => must.reply(1.5) } })
    return Effect.map(Effect.exit(Effect.provide(Commands.check(wrong), shop())), (exit) =>
      expect(String(exit)).toContain("the model says a reply of stock:next that is none"))
  })
})

describe("what is told can be pasted", () => {
  /** A module with the text in it, as somebody would write it. */
  const moduleOf = (text: string): string => [
    "import { Option, Schema } from \"effect\"",
    `import { KsiTest } from "${root}/src/testing.ts"`,
    `import { Drop, Hold, Left, Load, Next, Release, Reserve, Reserved, Stock, Taken } from "${root}/test/testing/Planted.ts"`,
    "export default (",
    text,
    ")",
    // All are there for whatever the text needs.
    "export const names = [Drop, Hold, Left, Load, Next, Option, Release, Reserve, Reserved, Schema, Stock, Taken]",
    ""
  ].join("\n")

  const bugs: ReadonlyArray<readonly [bug: Bug, what: Commands.Model | typeof Stock, options: Commands.Options]> = [
    ["forgets a release", model, {}],
    ["loses an update", model, { fibers: 3 }],
    ["takes none", model, {}],
    ["drops twice", model, {}],
    ["counts wrong", model, {}],
    ["says less", model, {}],
    ["loses bytes", model, {}],
    ["sleeps", model, {}],
    ["reaction", Stock, {}],
    ["reaction", Stock, { fibers: 2 }]
  ]

  it.live("it compiles, fails as long as the bug is there, and passes when it is not", () =>
    Effect.gen(function*() {
      const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-pasted-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => Fs.rmSync(folder, { recursive: true })))
      let files = 0
      for (const [bug, what, options] of bugs) {
        const { scenario = "" } = yield* found(bug, what, options)
        const file = Path.join(folder, `pasted${files++}.ts`)
        Fs.writeFileSync(file, moduleOf(scenario))
        // What this test has just written.
        const { default: pasted } = yield* Effect.promise(() => import(/* @vite-ignore */ file) as Promise<{ default: KsiTest.Scenario }>)
        const error = yield* Effect.flip(Effect.provide(pasted, shop(bug)))
        expect(error._tag, scenario).toBe("ScenarioFailed")
        yield* Effect.provide(pasted, shop())
      }
      Fs.symlinkSync(Path.join(root, "node_modules"), Path.join(folder, "node_modules"))
      Fs.writeFileSync(Path.join(folder, "package.json"), JSON.stringify({ type: "module" }))
      Fs.writeFileSync(Path.join(folder, "tsconfig.json"), JSON.stringify({
        extends: Path.join(root, "tsconfig.json"),
        compilerOptions: { noEmit: true, allowImportingTsExtensions: true, rewriteRelativeImportExtensions: false },
        include: ["*.ts"]
      }))
      const tsc = Path.join(root, "node_modules", "typescript", "bin", "tsc")
      yield* Effect.promise(() => promisify(execFile)(process.execPath, [tsc, "-p", folder]).catch((error: { stdout: string }) => expect(error.stdout).toBe("")))
    }), 60_000)
})

describe("orders", () => {
  const Add = Event.make("count:add", { success: Schema.Int })
  const exitOf = (value: number) => ({ _tag: "Success", value: { kind: "value", value } })
  const operation = (from: number, to: number, reply: number): Operation => ({
    // An exit as the router makes it, of which only this is looked at.
    call: { event: Add, exit: undefined, isLooked: false, from, to },
    payload: {},
    reply,
    next: (state) => ({ answer: { reply: Number(state) + 1 }, next: () => Number(state) + 1, needsReply: false })
  })
  const done = (from: number, to: number, reply: number): Operation => {
    const made = operation(from, to, reply)
    Reflect.set(made.call, "exit", Effect.runSyncExit(Effect.succeed(exitOf(reply).value)))
    return made
  }

  it("of two at the same time any will do, of two in turn only that", () => {
    expect(fitting(0, [done(0, 3, 2), done(1, 2, 1)])).toEqual([2])
    expect(fitting(0, [done(0, 1, 2), done(2, 3, 1)])).toEqual([])
    expect(fitting(0, [done(0, 1, 1), done(2, 3, 2)])).toEqual([2])
    expect(fitting(0, [done(0, 3, 1), done(1, 2, 1)])).toEqual([])
    expect(fitting(0, [done(0, 9, 3), done(1, 2, 1), done(3, 4, 2)])).toEqual([3])
    expect(fitting(0, [done(0, 9, 1), done(1, 2, 3), done(3, 4, 2)])).toEqual([])
  })

  it("eight at the same time are soon seen through, fit or not", () => {
    const eight = (last: number) => Array.from({ length: 8 }, (_, nth) => done(nth, 100 + nth, nth === 7 ? last : nth + 1))
    expect([fitting(0, eight(8)), fitting(0, eight(7))]).toEqual([[8], []])
  })

  it("all of them are told once each, as the model sees them", () => {
    const [a, b, c] = [done(0, 5, 1), done(1, 5, 2), done(6, 7, 3)]
    expect(allOrders(0, [[a], [b]], [c]).map(({ answers }) => answers)).toEqual([[{ reply: 1 }, { reply: 2 }, { reply: 3 }], [{ reply: 2 }, { reply: 1 }, { reply: 3 }]])
  })
})
