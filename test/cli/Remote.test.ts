import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Option, Stream } from "effect"
import { PlatformError, SystemError } from "effect/PlatformError"
import * as KsiError from "../../src/event/KsiError.ts"
import * as Remote from "../../src/cli/Remote.ts"
import * as Settings from "../../src/cli/Settings.ts"
import { world } from "./commandLine.ts"

describe("trace", () => {
  const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
  it.effect("is that of the environment; a malformed one is ignored", () =>
    Effect.gen(function*() {
      const of = (env: Record<string, string>) => Effect.provide(Remote.trace, world({ env }))
      expect(yield* of({ TRACEPARENT: traceparent, TRACESTATE: "a=1" })).toEqual({ traceparent, tracestate: "a=1" })
      expect(yield* of({ TRACEPARENT: traceparent })).toEqual({ traceparent, tracestate: undefined })
      for (const env of [{}, { TRACEPARENT: "", TRACESTATE: "a=1" }, { TRACEPARENT: "00-1", TRACESTATE: "a=1" }]) {
        expect(yield* of(env)).toEqual({ traceparent: undefined, tracestate: undefined })
      }
    }))
})

describe("pages", () => {
  const remote = (replies: ReadonlyArray<object>) => {
    const asked: Array<object> = []
    const never = () => Effect.die("not asked for")
    const answer: Remote.Remote = {
      address: "a",
      call: (_event, data) =>
        Effect.suspend(() => {
          asked.push(data)
          return Effect.succeed({ ...replies[asked.length - 1] })
        }),
      callRaw: never,
      stream: () => Stream.empty,
  subscribe: () => Stream.empty
    }
    return { asked, answer }
  }
  it.effect("follow the cursor, with the first question beside it", () =>
    Effect.gen(function*() {
      const { answer, asked } = remote([{ items: [{ n: 1 }], cursor: "c1" }, { items: [], cursor: "c2" }, { items: [{ n: 2 }] }])
      expect(yield* Stream.runCollect(Remote.pages(answer, "store:export", { from: 1 }))).toEqual([{ n: 1 }, { n: 2 }])
      expect(asked).toEqual([{ from: 1 }, { from: 1, cursor: "c1" }, { from: 1, cursor: "c2" }])
    }))
  it.effect("are asked for as they are consumed", () =>
    Effect.gen(function*() {
      const { answer, asked } = remote([{ items: [{ n: 1 }], cursor: "c1" }, { items: [{ n: 2 }] }])
      yield* Remote.pages(answer, "store:export", {}).pipe(Stream.take(1), Stream.runDrain)
      expect(asked.length).toBe(1)
    }))
})

describe("connect", () => {
  it.live("nobody there is ConnectionLost, unsent", () =>
    Effect.gen(function*() {
      const settings = Layer.mergeAll(
        world({}),
        Layer.succeed(Settings.Socket, Option.some("/nonexistent/daemon.sock")),
        Layer.succeed(Settings.Home, Option.none()),
        Layer.succeed(Settings.Url, Option.none())
      )
      const error = yield* Effect.flip(Effect.scoped(Remote.connect)).pipe(Effect.provide(settings))
      expect(KsiError.is(error) && error.reason).toMatchObject({ _tag: "ConnectionLost", unsent: true, address: "/nonexistent/daemon.sock" })
    }))
})

it("file problems are in plain words", () => {
  const error = (_tag: "NotFound" | "PermissionDenied" | "Busy") =>
    new PlatformError(new SystemError({ _tag, module: "FileSystem", method: "open", description: "why" }))
  expect(Remote.fileProblem(error("NotFound"))).toBe("there is no such file")
  expect(Remote.fileProblem(error("PermissionDenied"))).toBe("permission denied")
  expect(Remote.fileProblem(error("Busy"))).toContain("why")
})
