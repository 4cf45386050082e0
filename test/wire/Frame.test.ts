import { describe, expect, it } from "@effect/vitest"
import { Cause, Exit, Result, Schema } from "effect"
import { LiveEnvelope, own } from "../../src/bus/Causation.ts"
import { type Answer, DeclaredFailure } from "../../src/bus/KsiService.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import * as Frame from "../../src/wire/Frame.ts"

const now = 1_795_333_214_410
const envelope = (name = "t:echo", clientId?: string) =>
  new LiveEnvelope(name, {}, undefined, { ...own, clientId }, { now: () => now, ids: () => "id-1" })
const parsed = (line: string) => {
  expect(line.endsWith("\n")).toBe(true)
  expect(line.indexOf("\n")).toBe(line.length - 1)
  return JSON.parse(line)
}
const reply = (exit: Exit.Exit<Answer, KsiError.KsiError | DeclaredFailure>, correlationId: unknown = "c1") =>
  parsed(Frame.encodeReply(envelope(), correlationId, exit, now + 4))
const value = (of: unknown) => reply(Exit.succeed({ kind: "value", value: of }))

const context = {
  _event_id: "id-1",
  _correlation_id: "id-1",
  _parent_event_id: null,
  _root_event_id: "id-1",
  _event_depth: 0,
  _client_id: null,
  _timestamp: now / 1000,
  _response_id: "resp_id-1"
}

describe("requests", () => {
  const read = (line: string) => Result.getOrThrow(Frame.decode(line))
  const problem = (line: string) => Result.getOrThrow(Result.flip(Frame.decode(line)))

  it("only `event` is required", () => {
    expect(read("{\"event\":\"a:b\"}")).toEqual({
      event: "a:b", data: undefined, correlationId: undefined, clientId: undefined, deadlineMillis: undefined, idempotencyKey: undefined, bare: false
    })
  })

  it("labels, deadline and key are read", () => {
    expect(read("{\"event\":\"a:b\",\"data\":{\"x\":1},\"correlation_id\":[1],\"_client_id\":\"probe\",\"_agent_id\":\"a\",\"deadline_ms\":20,\"idempotency_key\":\"k\"}"))
      .toEqual({ event: "a:b", data: { x: 1 }, correlationId: [1], clientId: "probe", deadlineMillis: 20, idempotencyKey: "k", bare: false })
  })

  it("what a fact expects of the store is read as an append says it", () => {
    const expects = {
      expectedVersion: 3, expectedVersions: [{ streamId: "a", version: 0 }], condition: { query: [{ names: ["a:b"], tags: ["t"] }], after: 7 }
    }
    expect(read(JSON.stringify({ event: "a:b", expects })).expects).toEqual(expects)
    const text = Frame.encodeRequest({ event: "a:b", correlationId: "c", bare: true, expects: { condition: { query: [], after: 7n } } })
    expect(read(text)).toMatchObject({ bare: true, expects: { condition: { query: [], after: 7 } } })
    for (const expects of [1, { expectedVersion: "3" }, { version: 3 }, { condition: [] }, { expectedVersions: [{ version: 1 }] }]) {
      expect(problem(JSON.stringify({ event: "a:b", correlation_id: 1, expects }))).toMatchObject({ reason: { _tag: "FrameInvalid" }, correlationId: 1 })
    }
  })

  it("a stream is read with its credit", () => {
    const asked = { event: "a:b", stream: true, stream_id: "s" }
    expect(read(JSON.stringify(asked)).stream).toEqual({ id: "s" })
    expect(read(JSON.stringify({ ...asked, credit: { items: 1, bytes: 2 } })).stream).toEqual({ id: "s", items: 1, bytes: 2 })
    expect(read(JSON.stringify({ ...asked, stream: false })).stream).toBeUndefined()
    expect(read(Frame.encodeRequest({ event: "a:b", correlationId: "c", stream: { id: "s", items: 3, bytes: 4 } })).stream).toEqual({ id: "s", items: 3, bytes: 4 })
  })

  it("a trace is read as it stands; what is no text is none, and nothing about it refuses a request", () => {
    const traced = (traceparent: unknown, tracestate: unknown) => {
      const request = read(JSON.stringify({ event: "a:b", traceparent, tracestate }))
      return [request.traceparent, request.tracestate]
    }
    expect(traced("00-1", "a=1")).toEqual(["00-1", "a=1"])
    for (const none of [undefined, null, 7, true, {}, ["00-1"]]) expect(traced(none, none)).toEqual([undefined, undefined])
    expect(read("{\"event\":\"pubsub:subscribe\",\"pattern\":\"a:*\",\"traceparent\":\"00-1\",\"tracestate\":\"a=1\"}").data).toEqual({ pattern: "a:*" })
    const line = Frame.encodeRequest({ event: "a:b", correlationId: "c", traceparent: "00-1", tracestate: "a=\"1\"" })
    expect(read(line)).toMatchObject({ traceparent: "00-1", tracestate: "a=\"1\"" })
    expect(Object.keys(parsed(Frame.encodeRequest({ event: "a:b", correlationId: "c" })))).toEqual(["event", "correlation_id"])
  })

  it("numbers that a double cannot hold keep their digits", () => {
    const { correlationId, data } = read("{\"event\":\"a:b\",\"data\":{\"n\":12345678901234567890},\"correlation_id\":98765432109876543210}")
    expect(JSON.stringify(data)).toBe("{\"n\":12345678901234567890}")
    expect(Frame.encodeReply(envelope(), correlationId, Exit.succeed({ kind: "value", value: data }), now))
      .toMatch(/"n":12345678901234567890.*"correlation_id":98765432109876543210/)
  })

  it("control frames carry their fields beside the event, others do not", () => {
    const text = (event: string) => `{"event":"${event}","pattern":"a:*","data":{"from":3},"_client_id":"x","correlation_id":1}`
    expect(read(text("pubsub:subscribe")).data).toEqual({ pattern: "a:*", from: 3 })
    expect(read(text("wire:hello")).data).toEqual({ pattern: "a:*", from: 3 })
    expect(read(text("monitor:subscribe")).data).toEqual({ from: 3 })
    expect(read("{\"event\":\"wire:hello\",\"data\":7,\"version\":1}").data).toBe(7)
  })

  for (
    const [line, event, correlationId, sentence] of [
      ["{\"event\":", undefined, undefined, "it is not JSON"],
      ["[1]", undefined, undefined, "not a JSON object"],
      ["null", undefined, undefined, "not a JSON object"],
      ["12345678901234567890", undefined, undefined, "not a JSON object"],
      ["{\"data\":{},\"correlation_id\":\"c\"}", undefined, "c", "has no \"event\""],
      ["{\"event\":5,\"correlation_id\":{\"a\":1}}", undefined, { a: 1 }, "\"event\" is not a text"],
      ["{\"event\":\"\"}", undefined, undefined, "not a text"],
      ["{\"event\":\"a:b\",\"deadline_ms\":-1,\"correlation_id\":0}", "a:b", 0, "deadline_ms"],
      ["{\"event\":\"a:b\",\"deadline_ms\":\"soon\"}", "a:b", undefined, "deadline_ms"],
      ["{\"event\":\"a:b\",\"idempotency_key\":\"\"}", "a:b", undefined, "idempotency_key"]
    ] as const
  ) {
    it(`${line} is refused, with what could be read`, () => {
      const refused = problem(line)
      expect(refused.reason._tag).toBe("FrameInvalid")
      expect(refused.reason.message).toContain(sentence)
      expect([refused.event, refused.correlationId]).toEqual([event, correlationId])
      const answer = parsed(Frame.encodeUnreadable(refused, now))
      expect(answer).toMatchObject({
        event: event ?? null, ok: false, count: 1, correlation_id: correlationId ?? null,
        data: { status: "failed", reason: "FrameInvalid", cause: "ksi", retryable: false }
      })
    })
  }
})

describe("replies", () => {
  it("an object gets a status and the context", () => {
    expect(value({ a: 1 })).toEqual({
      event: "t:echo", ok: true, data: { a: 1, status: "success", _ksi_context: context }, count: 1, correlation_id: "c1", timestamp: (now + 4) / 1000
    })
    expect(value({}).data).toEqual({ status: "success", _ksi_context: context })
    expect(value({ gone: undefined }).data).toEqual({ status: "success", _ksi_context: context })
  })

  it("a status of its own stays; a context of its own does not", () => {
    expect(value({ status: "queued" }).data).toEqual({ status: "queued", _ksi_context: context })
    expect(value({ status: null }).data).toEqual({ status: null, _ksi_context: context })
    expect(value({ status: undefined, a: 1 }).data).toEqual({ a: 1, status: "success", _ksi_context: context })
    expect(value({ a: 1, _ksi_context: "forged" }).data).toEqual({ a: 1, status: "success", _ksi_context: context })
  })

  it("what is no object is a result, nothing is nothing", () => {
    for (const other of [1, "x", false, null, [1, 2]]) expect(value(other).data).toEqual({ status: "success", result: other, _ksi_context: context })
    expect(value(undefined).data).toEqual({ status: "success", _ksi_context: context })
  })

  it("a fact says where it is", () => {
    expect(reply(Exit.succeed({ kind: "fact", id: "id-1", position: 7, version: 2 })).data)
      .toEqual({ status: "success", event_id: "id-1", position: 7, _ksi_context: context })
  })

  it("timestamps are floats even on the second, and labels are texts however they look", () => {
    const line = Frame.encodeReply(envelope("a\"b", "c\"1\n"), undefined, Exit.succeed({ kind: "value", value: 1 }), 1_795_333_214_000)
    expect(line).toContain("\"timestamp\":1795333214.0}")
    expect(parsed(line)).toMatchObject({ event: "a\"b", correlation_id: null, data: { _ksi_context: { _client_id: "c\"1\n" } } })
  })

  it.prop("any correlation id and any value come back as they are", [Schema.Json, Schema.Json], ([correlationId, given]) => {
    const line = Frame.encodeReply(envelope(), correlationId, Exit.succeed({ kind: "value", value: given }), now)
    const read = JSON.parse(line)
    const plain = JSON.parse(JSON.stringify(given))
    expect(read.correlation_id).toEqual(JSON.parse(JSON.stringify(correlationId)))
    expect(read.data._ksi_context).toEqual(context)
    if (plain === null || typeof plain !== "object" || Array.isArray(plain)) expect(read.data.result).toEqual(plain)
    else expect(read.data).toEqual({ status: "success", ...plain, _ksi_context: context })
  })
})

describe("failures", () => {
  const failure = (error: KsiError.KsiError | DeclaredFailure) => reply(Exit.fail(error)).data

  it("KSI's own", () => {
    expect(failure(KsiError.make(new KsiError.PayloadInvalid({ event: "a:b", problems: [{ path: "n", problem: "is missing" }] })))).toEqual({
      status: "failed",
      error: "a:b rejected before any handler ran: n: is missing",
      reason: "PayloadInvalid",
      cause: "ksi",
      error_data: null,
      details: { event: "a:b", problems: [{ path: "n", problem: "is missing" }] },
      retryable: false,
      _ksi_context: context
    })
  })

  it("an unknown event is an error with the nearest names", () => {
    const reason = new KsiError.UnknownEvent({ event: "a:c", similar: ["a:b"], namespaces: ["a"] })
    expect(failure(KsiError.make(reason))).toMatchObject({ status: "error", details: { similar: ["a:b"], namespaces: ["a"] } })
  })

  it("a declared one", () => {
    expect(failure(new DeclaredFailure({ event: "a:b", error: { _tag: "Refused", why: "no" }, message: "no" })))
      .toMatchObject({ status: "failed", error: "no", reason: "Refused", cause: "domain", error_data: { _tag: "Refused", why: "no" }, retryable: false })
    expect(failure(new DeclaredFailure({ event: "a:b", error: 5, message: "no" }))).toMatchObject({ reason: "Failed", error_data: 5 })
  })

  it("a defect shows its correlation id and nothing else, an interruption what it is", () => {
    const line = Frame.encodeReply(envelope(), 1, Exit.die(new Error("a secret")), now)
    expect(line).not.toContain("secret")
    expect(line).not.toContain("Frame.test")
    expect(JSON.parse(line).data).toMatchObject({ cause: "defect", reason: "Defect", details: { correlation_id: "id-1" } })
    expect(JSON.parse(line).data.error).toContain("id-1")
    expect(reply(Exit.failCause(Cause.interrupt(1))).data).toMatchObject({ cause: "interrupt", reason: "Interrupted" })
  })

  const back = (exit: Exit.Exit<Answer, KsiError.KsiError | DeclaredFailure>) =>
    Frame.failureOf(Result.getOrThrow(Frame.decodeIncoming(Frame.encodeReply(envelope(), "c", exit, now))))

  it("every reason comes back as its class", () => {
    const reasons: ReadonlyArray<KsiError.Reason> = [
      new KsiError.UnknownEvent({ event: "a:b", similar: [], namespaces: [] }),
      new KsiError.NoHandler({ event: "a:b", passed: 1, similar: [] }),
      new KsiError.PayloadInvalid({ event: "a:b", problems: [] }),
      new KsiError.ReplyInvalid({ event: "a:b", problems: [] }),
      new KsiError.WrongShape({ event: "a:b", used: "call", expected: "emit" }),
      new KsiError.NotFound({ what: "stream", id: "s", similar: [] }),
      new KsiError.FrameInvalid({ problem: "p" }),
      new KsiError.LimitExceeded({ limit: "depth", max: 1, retryable: true }),
      new KsiError.LimitExceeded({ limit: "depth", max: 1, actual: 2, retryable: false }),
      new KsiError.SlowConsumer({ pattern: "a:*", buffer: 2, position: 3 }),
      new KsiError.DeadlineExceeded({ event: "a:b", millis: 5 }),
      new KsiError.VersionConflict({ streamId: "s", expected: 1, actual: 2 }),
      new KsiError.ConditionFailed({ position: 4, after: 3 }),
      new KsiError.StreamDeleted({ streamId: "s" }),
      new KsiError.IdConflict({ source: "/a", id: "1", position: 4 }),
      new KsiError.StoreLocked({ file: "f" }),
      new KsiError.StoreFailure({ operation: "append", problem: "full" }),
      new KsiError.ConnectionLost({ address: "a", problem: "p", unsent: true }),
      new KsiError.ListenFailed({ address: "a", problem: "p", taken: false }),
      new KsiError.PluginInvalid({ plugin: "p", problem: "q" })
    ]
    for (const reason of reasons) {
      const error = back(KsiError.exit(reason))
      expect(KsiError.is(error) ? error.reason : error).toStrictEqual(reason)
    }
  })

  it("what has no class here keeps its fields", () => {
    const line = JSON.stringify({
      event: "a:b", ok: false,
      data: { status: "failed", error: "too warm", reason: "Overheated", cause: "ksi", details: { degrees: 90 }, retryable: true }
    })
    expect(Frame.failureOf(Result.getOrThrow(Frame.decodeIncoming(line)))).toEqual(
      new Frame.RemoteFailure({ event: "a:b", cause: "ksi", reason: "Overheated", message: "too warm", details: { degrees: 90 }, retryable: true })
    )
    expect(back(Exit.die("x"))).toMatchObject({ _tag: "RemoteFailure", cause: "defect" })
    expect(back(Exit.fail(new DeclaredFailure({ event: "t:echo", error: { a: 1 }, message: "m" }))))
      .toStrictEqual(new DeclaredFailure({ event: "t:echo", error: { a: 1 }, message: "m" }))
  })
})
