// Runs the example of every module comment (test/doctest/extract.ts says how one is read). An example that cannot run
// fails; none is skipped.
import { describe, expect, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Layer, type Scope } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { type Example, examplesOf, programOf } from "./doctest/extract.ts"
import * as prelude from "./doctest/prelude.ts"

const root = Path.join(import.meta.dirname, "..")
// Not under node_modules: Node strips no types there, and vitest transforms nothing.
const folder = "test/doctest/.cache"
const modules = Fs.globSync("src/**/*.ts", { cwd: root }).map((path) => path.replaceAll("\\", "/")).toSorted()
const names = Object.keys(prelude)

/** A folder of its own to run in, with the `var` that a daemon's home would have. */
const inFolder = Effect.acquireRelease(
  Effect.sync(() => {
    const place = Fs.mkdtempSync(Path.join(Os.tmpdir(), "ksi-doctest-"))
    Fs.mkdirSync(Path.join(place, "var"))
    process.chdir(place)
    return place
  }),
  (place) =>
    Effect.sync(() => {
      process.chdir(root)
      Fs.rmSync(place, { recursive: true })
    })
)

const run = (example: Example) =>
  Effect.gen(function*() {
    // vitest transforms what is imported, so that an example may use types.
    const file = Path.join(root, folder, `${example.path.replaceAll(/[/.]/g, "_")}_${example.line}.ts`)
    Fs.mkdirSync(Path.dirname(file), { recursive: true })
    Fs.writeFileSync(file, programOf(example, modules, names, folder))
    // A module just written by this test: its default export is what programOf ends with.
    const { default: program } = yield* Effect.promise(() =>
      import(/* @vite-ignore */ file) as Promise<{ default: Effect.Effect<void, unknown, Scope.Scope> }>
    )
    yield* inFolder
    // A memo map of its own, so that a layer that an example provides is another than this one's.
    const memo = yield* Layer.makeMemoMap
    const context = yield* Layer.buildWithMemoMap(prelude.layer, memo, yield* Effect.scope)
    yield* program.pipe(Effect.scoped, Effect.provideContext(Context.omit(Layer.CurrentMemoMap)(context)))
  })

describe("the mechanism", () => {
  let fixtures = 0
  const outcome = (code: string) => Effect.exit(run({ path: "src/Fixture.ts", line: ++fixtures, code }))
  const failure = (exit: Exit.Exit<unknown, unknown>) => Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "no failure"

  it.live("runs what is true", () =>
    Effect.gen(function*() {
      const code = [
        "const one = 1                     // 1",
        "one + 1                           // => 2",
        "Result.succeed([one])             // Result.succeed([1])",
        "(yield* ksi.call(Reserve, { sku: \"tea\", quantity: 9 }).pipe(Effect.flip)).left   // 3",
        "EventName.namespace(\"a:b\")        // \"a\"",
        "one                               // a remark, and no claim",
      "one + 2",
      "// 3"
      ].join("\n")
      expect(failure(yield* outcome(code))).toBe("no failure")
    }))

  for (const [name, code, message] of [
    ["a wrong value", "1 + 1     // 3", "the claim at src/Fixture"],
    ["a wrong value after a binding", "const a = 1   // 2", "the claim at src/Fixture"],
    ["a wrong value below its expression", "1 + 1\n// 3", "the claim at src/Fixture"],
    ["a failing effect", "yield* Effect.fail(\"nope\")", "nope"],
    ["a name that nobody knows", "Nobody.knows()", "Nobody is not defined"],
    ["what does not parse", "const = 1", ""]
  ] as const) {
    it.live(`refuses ${name}`, () =>
      Effect.gen(function*() {
        const exit = yield* outcome(code)
        expect(Exit.isFailure(exit)).toBe(true)
        expect(failure(exit)).toContain(message)
      }))
  }
})

describe("examples", () => {
  const examples = modules.flatMap((path) => examplesOf(path, Fs.readFileSync(Path.join(root, path), "utf8")))
  it("were found", () => expect(examples.length).toBeGreaterThan(10))
  for (const example of examples) it.live(`${example.path}:${example.line}`, () => run(example))
})
