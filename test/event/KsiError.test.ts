import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Schema } from "effect"
import * as KsiError from "../../src/event/KsiError.ts"

const codec = Schema.toCodecJson(KsiError.KsiError)
const encode = Schema.encodeUnknownSync(codec)
const decode = Schema.decodeUnknownSync(codec)
const members = KsiError.Reason.members

const problems = [{ path: "a.b", problem: "is missing" }, { path: "", problem: "expected object, got 1" }]
const samples: ReadonlyArray<readonly [reason: KsiError.Reason, message: string, retryable: boolean]> = [
  [new KsiError.UnknownEvent({ event: "stock:resrve", similar: ["stock:reserve"], namespaces: ["stock"] }), "no event is called \"stock:resrve\"; nearest: \"stock:reserve\"", false],
  [new KsiError.NoHandler({ event: "stock:reserve", passed: 2, similar: [] }), "nobody handles \"stock:reserve\" (2 passed)", false],
  [new KsiError.PayloadInvalid({ event: "a:b", problems }), "a:b rejected before any handler ran: a.b: is missing; expected object, got 1", false],
  [new KsiError.PatternInvalid({ pattern: "st*ck", problem: "no" }), "\"st*ck\" is not a pattern: no", false],
  [new KsiError.ReplyInvalid({ event: "a:b", problems }), "the handler of a:b answered with an invalid reply: a.b: is missing; expected object, got 1", false],
  [new KsiError.WrongShape({ event: "a:b", used: "call", expected: "emit" }), "a:b is a fact: use emit, not call", false],
  [new KsiError.NotFound({ what: "stream", id: "s", similar: [] }), "there is no stream \"s\"", false],
  [new KsiError.FrameInvalid({ problem: "not JSON" }), "the frame could not be read: not JSON", false],
  [new KsiError.LimitExceeded({ limit: "depth", max: 64, actual: 65, retryable: false }), "the limit depth of 64 was reached (65)", false],
  [new KsiError.SlowConsumer({ pattern: "a:*", buffer: 2, position: 3 }), "the subscriber to a:* was behind by more than its buffer of 2, and is told no more", true],
  [new KsiError.DeadlineExceeded({ event: "a:b", millis: 50 }), "a:b did not answer within 50 ms", true],
  [new KsiError.VersionConflict({ streamId: "s", expected: 1, actual: 2 }), "stream \"s\" is at version 2, not 1", true],
  [new KsiError.ConditionFailed({ position: 7, after: 5 }), "a fact that matches the condition of the append is at position 7, after 5", false],
  [new KsiError.StreamDeleted({ streamId: "s" }), "stream \"s\" was deleted; no fact can be appended to it any more", false],
  [new KsiError.IdConflict({ source: "/a", id: "1", position: 7 }), "an event \"1\" of source \"/a\" is stored at position 7 with other content", false],
  [new KsiError.IdempotencyConflict({ event: "a:b", key: "k" }), "the idempotency key \"k\" of a:b was used with another payload", false],
  [new KsiError.StoreLocked({ file: "ksi.db" }), "another process is writing ksi.db", true],
  [new KsiError.StoreFailure({ operation: "append", problem: "disk full" }), "the store failed to append: disk full", true],
  [new KsiError.ConnectionLost({ address: "unix:a", problem: "gone", unsent: true }), "no daemon answers at unix:a: gone", true],
  [new KsiError.ListenFailed({ address: "a.sock", problem: "a daemon is there", taken: true }), "cannot listen at a.sock: a daemon is there", false],
  [new KsiError.PluginInvalid({ plugin: "stock", problem: "no" }), "stock cannot start: no", false],
  [new KsiError.Rejected({ event: "a:b", middleware: "auth", problem: "no token" }), "middleware \"auth\" rejected a:b: no token", false],
  [new KsiError.PermissionDenied({ principal: "token:till-1", event: "a:b", action: "call" }), "token:till-1 may not call a:b", false],
  [new KsiError.Unauthenticated({ problem: "no token" }), "it is not known who asks: no token", false],
  [new KsiError.HandlerFailed({ event: "a:b", handler: "a:b#1", problem: "no" }), "handler a:b#1 of a:b failed again: no", true]
]

describe("reasons", () => {
  it("each has a sample here", () => {
    expect(samples.map(([reason]) => reason._tag).toSorted()).toEqual(members.map((member) => member.identifier).toSorted())
  })

  for (const [reason, message, retryable] of samples) {
    it(`${reason._tag} says what happened, whether to try again and what to do next`, () => {
      const error = KsiError.make(reason)
      expect(error.message).toBe(message)
      expect(error.retryable).toBe(retryable)
      expect(reason.next.length).toBeGreaterThan(0)
    })
  }

  for (const member of members) {
    it.prop(`${member.identifier} crosses the wire as what it is`, [member], ([reason]) => {
      const error = KsiError.make(reason)
      expect(reason.message.length).toBeGreaterThan(0)
      expect(reason.next.length).toBeGreaterThan(0)
      expect(typeof reason.retryable).toBe("boolean")
      const text = JSON.stringify(encode(error))
      const back = decode(JSON.parse(text))
      expect(back).toBeInstanceOf(KsiError.KsiError)
      expect(back.reason).toBeInstanceOf(member)
      // As text, for JSON has no minus zero.
      expect(JSON.stringify(encode(back))).toBe(text)
      expect(back.message).toBe(error.message)
    }, { arbitrary: { runs: 30 } })
  }

  it("say the right thing next", () => {
    const { ConnectionLost, LimitExceeded, NotFound, UnknownEvent, WrongShape } = KsiError
    expect(new UnknownEvent({ event: "stock:x", similar: [], namespaces: ["stock"] }).next).toBe("ksi discover 'stock:*'")
    expect(new UnknownEvent({ event: "x", similar: [], namespaces: ["stock"] }).next).toBe("ksi discover")
    expect(new NotFound({ what: "stream", id: "s", similar: [] }).next).toBe("ksi streams")
    expect(new NotFound({ what: "dead letter", id: "1", similar: [] }).next).toBe("ksi dead ls")
    const shape = (expected: string) => new WrongShape({ event: "a:b", used: "call", expected })
    expect([shape("call"), shape("emit"), shape("stream")].map(({ next }) => next)).toEqual(["ksi call a:b", "ksi emit a:b", "ksi stream a:b"])
    expect(shape("stream").message).toBe("a:b is a stream: use stream, not call")
    expect(shape("connection").message).toContain("belongs to a connection")
    const limit = { limit: "depth", max: 1 }
    expect(new LimitExceeded({ ...limit, retryable: true }).next).not.toBe(new LimitExceeded({ ...limit, retryable: false }).next)
    const lost = (unsent: boolean) => new ConnectionLost({ address: "a", problem: "p", unsent })
    expect([lost(true).retryable, lost(false).retryable]).toEqual([true, false])
    expect([lost(true).next, lost(false).next]).toEqual(["ksi start", "ksi status"])
  })
})

describe("KsiError", () => {
  const reason = new KsiError.FrameInvalid({ problem: "p" })

  it("is made without a stack, and leaves the engine as it was", () => {
    const limit = Error.stackTraceLimit
    Error.stackTraceLimit = 17
    const error = KsiError.make(reason)
    expect(error.stack?.includes("\n    at ") ?? false).toBe(false)
    expect(Error.stackTraceLimit).toBe(17)
    Error.stackTraceLimit = limit
    expect(KsiError.is(error)).toBe(true)
    expect(KsiError.is(new Error("p"))).toBe(false)
    expect(KsiError.is({ _tag: "KsiError", reason })).toBe(false)
  })

  it.effect("is caught by its reason", () =>
    Effect.gen(function*() {
      const caught = yield* KsiError.fail(reason).pipe(
        Effect.catchReason("KsiError", "FrameInvalid", ({ problem }) => Effect.succeed(problem))
      )
      expect(caught).toBe("p")
      expect(yield* Effect.exit(KsiError.fail(reason))).toEqual(KsiError.exit(reason))
    }))

  it("the wire refuses a reason that is none", () => {
    expect(() => decode({ _tag: "KsiError", reason: { _tag: "Nonsense" } })).toThrow()
  })

  it("says what is wrong in one place, and in several", () => {
    expect(KsiError.invalidAt("a:b", "c", "is missing")).toEqual(
      new KsiError.PayloadInvalid({ event: "a:b", problems: [{ path: "c", problem: "is missing" }] })
    )
    expect(KsiError.problemsText(problems)).toBe("a.b: is missing; expected object, got 1")
  })

  it("says what an exception says", () => {
    expect([new Error("a"), "b", undefined, new TypeError("")].map(KsiError.sentenceOf)).toEqual(["a", "b", "undefined", "TypeError"])
    // Anything can be thrown.
    const mute = Object.defineProperty(new Error("x"), "message", { get: () => { throw new Error("no") } })
    expect([Object.create(null), mute].map(KsiError.sentenceOf)).toEqual(Array.from({ length: 2 }, () => "a thrown object without a text"))
  })

  it("finds the defect of a cause", () => {
    const of = (exit: Exit.Exit<unknown, unknown>) => Exit.isFailure(exit) ? KsiError.defectOf(exit.cause) : "none"
    expect(of(Exit.die("boom"))).toBe("boom")
    expect(of(Exit.fail("e"))).toBe(undefined)
    expect(of(Exit.failCause(Cause.combine(Cause.fail("e"), Cause.die("boom"))))).toBe("boom")
  })
})
