import { expect, it } from "@effect/vitest"
import { Effect, Option } from "effect"
import * as Recorded from "../../src/cli/Recorded.ts"
import { ksi } from "./commandLine.ts"

const none = Option.none()

it("asks for what was given, and leaves the rest to the daemon", () => {
  const nothing = { app: none, from: none, given: [], group: [], stream: none, to: none, trace: none }
  expect(Recorded.payloadOf(nothing)).toEqual({})
  expect(Recorded.payloadOf({ ...nothing, stream: Option.some("s"), from: Option.some(1), to: Option.some(2), given: ["a"], group: ["Shop"], app: Option.some("./x.ts") }))
    .toEqual({ stream: "s", from: 1, to: 2, given: ["a"], groups: ["Shop"], app: "./x.ts" })
})

it.effect("words of tests are refused where facts are exported", () =>
  Effect.gen(function*() {
    expect(yield* Effect.flip(Recorded.refuse({ app: none, given: [], group: [], trace: Option.some("c1") }))).toMatchObject({ _tag: "Usage", next: "ksi export --help" })
    expect(yield* Recorded.refuse({ app: none, given: [], group: [], trace: none })).toBe(undefined)
    const { stdout } = yield* ksi(["export", "--help"])
    for (const word of ["--as events|test", "--trace", "--given", "--app", "--group"]) expect(stdout).toContain(word)
  }))
