import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { PassThrough, Readable, Writable } from "node:stream"
import { Closed, Io, IoFailed } from "../../src/cli/Io.ts"
import { Kept } from "./commandLine.ts"

const with_ = (streams: Partial<Parameters<typeof Io.layer>[0]>) =>
  Io.layer({ env: {}, stdin: Readable.from([]), stdout: new Kept(), stderr: new Kept(), ...streams })

const failing = (code: string) =>
  new Writable({
    write: (_chunk, _encoding, done) => done(Object.assign(new Error(`write ${code}`), { code }))
  })

describe("Io", () => {
  it.live("write waits until the text is taken", () =>
    Effect.gen(function*() {
      let take: (() => void) | undefined
      const stdout = new Writable({ highWaterMark: 1, write: (_chunk, _encoding, done) => void (take = done) })
      const { write } = yield* Io.pipe(Effect.provide(with_({ stdout })))
      const fiber = yield* Effect.forkChild(write("text"), { startImmediately: true })
      yield* Effect.yieldNow
      expect(fiber.pollUnsafe()).toBeUndefined()
      take?.()
      yield* Fiber.join(fiber)
    }))

  for (const code of ["EPIPE", "ECONNRESET"]) {
    it.live(`a reader that went away (${code}) is Closed, and ends nothing else`, () =>
      Effect.gen(function*() {
        const { write } = yield* Io.pipe(Effect.provide(with_({ stdout: failing(code) })))
        expect(yield* Effect.flip(write("x"))).toBeInstanceOf(Closed)
        // The stream is destroyed now; another write is no crash either.
        expect(yield* Effect.flip(write("y"))).toBeInstanceOf(Closed)
      }))
  }

  it.live("a full disk is an error", () =>
    Effect.gen(function*() {
      const { write } = yield* Io.pipe(Effect.provide(with_({ stdout: failing("ENOSPC") })))
      const error = yield* Effect.flip(write("x"))
      expect(error).toEqual(new IoFailed({ stream: "stdout", problem: "write ENOSPC" }))
    }))

  it.live("stderr never fails", () =>
    Effect.gen(function*() {
      const { writeError } = yield* Io.pipe(Effect.provide(with_({ stderr: failing("EPIPE") })))
      yield* writeError("x")
    }))

  it.live("stdin is bytes to the end, or says what failed", () =>
    Effect.gen(function*() {
      const stdin = Readable.from([Buffer.from("ab"), Buffer.from("c")])
      const io = yield* Io.pipe(Effect.provide(with_({ stdin })))
      expect(yield* Stream.mkString(Stream.decodeText(io.stdin))).toBe("abc")
      const broken = new PassThrough()
      const other = yield* Io.pipe(Effect.provide(with_({ stdin: broken })))
      broken.destroy(new Error("gone"))
      expect(yield* Effect.flip(Stream.runDrain(other.stdin))).toEqual(new IoFailed({ stream: "stdin", problem: "gone" }))
    }))

  it.effect("an empty variable is absent", () =>
    Effect.gen(function*() {
      const { variable } = yield* Io.pipe(Effect.provide(with_({ env: { A: "", B: "b" } })))
      expect([variable("A"), variable("B"), variable("C")]).toEqual([undefined, "b", undefined])
    }))

  it.effect("the width of stdout is that of its terminal; without one nothing limits it", () =>
    Effect.gen(function*() {
      const width = (stdout: Kept) => Effect.map(Io.pipe(Effect.provide(with_({ stdout }))), (io) => io.width)
      expect(yield* width(new Kept())).toBe(Infinity)
      expect(yield* width(new Kept(true))).toBe(80)
      expect(yield* width(Object.assign(new Kept(true), { columns: 40 }))).toBe(40)
    }))

  it.effect("colour and animation need a terminal on stderr, and are refused by NO_COLOR and TERM=dumb", () =>
    Effect.gen(function*() {
      const seen = (stderr: Kept, env = {}) =>
        Effect.map(Io.pipe(Effect.provide(with_({ stderr, env }))), ({ animated, coloured }) => [animated, coloured])
      expect(yield* seen(new Kept(true))).toEqual([true, true])
      expect(yield* seen(new Kept(false))).toEqual([false, false])
      expect(yield* seen(new Kept(true), { NO_COLOR: "1" })).toEqual([true, false])
      expect(yield* seen(new Kept(true), { NO_COLOR: "" })).toEqual([true, true])
      expect(yield* seen(new Kept(true), { TERM: "dumb" })).toEqual([false, false])
    }))
})
