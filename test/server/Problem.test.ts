import { describe, expect, it } from "@effect/vitest"
import { Cause, Schema } from "effect"
import { LiveEnvelope, own } from "../../src/bus/Causation.ts"
import { DeclaredFailure } from "../../src/bus/KsiService.ts"
import * as KsiError from "../../src/event/KsiError.ts"
import * as Problem from "../../src/server/Problem.ts"

const envelope = new LiveEnvelope("stock:reserve", {}, undefined, own, { now: () => 0, ids: () => "id-1" })

describe("a reason", () => {
  it.prop("every one has its status, its sentence and its fields, and can be written", [KsiError.Reason], ([reason]) => {
    const problem = Problem.ofReason(reason)
    expect(problem).toMatchObject({ reason: reason._tag, detail: reason.message, retryable: reason.retryable, next: reason.next })
    expect(problem.status).toBe(reason._tag === "LimitExceeded" && reason.retryable ? 503 : Problem.statuses[reason._tag])
    const written: unknown = JSON.parse(JSON.stringify(Problem.document(problem)))
    expect(written).toMatchObject({ type: `urn:ksi:reason:${reason._tag}`, status: problem.status, reason: reason._tag })
    // It comes back as it was.
    expect(Schema.decodeUnknownSync(Schema.toCodecJson(KsiError.Reason))({ ...problem.details as object, _tag: reason._tag })).toEqual(reason)
  })

  it("one that is denied is 401 where a token may help", () => {
    const denied = (principal: string) => Problem.ofReason(new KsiError.PermissionDenied({ principal, action: "call", event: "a:b" }), principal)
    expect([denied("local-http").status, denied("bob").status]).toEqual([401, 403])
    expect(Problem.headers(denied("local-http"))).toEqual({ "www-authenticate": "Bearer realm=\"ksi\"" })
    expect(Problem.headers(denied("bob"))).toEqual({})
  })

  it("one that may pass says when to come back", () =>
    expect(Problem.headers(Problem.ofReason(new KsiError.StoreFailure({ operation: "append", problem: "full" })))).toEqual({ "retry-after": "1" }))
})

describe("a failed request", () => {
  it("of a declared error has it, as its schema writes it", () => {
    const failure = new DeclaredFailure({ event: "stock:reserve", error: { _tag: "OutOfStock", left: 3 }, message: "only 3 left" })
    expect(Problem.document(Problem.ofCause(Cause.fail(failure), envelope))).toMatchObject({
      status: 422, reason: "OutOfStock", title: "Out Of Stock", detail: "only 3 left", error: { _tag: "OutOfStock", left: 3 }, correlationId: "id-1"
    })
    const plain = new DeclaredFailure({ event: "stock:reserve", error: "no", message: "no" })
    expect(Problem.ofCause(Cause.fail(plain), envelope).reason).toBe("Failed")
  })

  it("of KSI's own has its correlation id too", () =>
    expect(Problem.ofCause(Cause.fail(KsiError.make(new KsiError.DeadlineExceeded({ event: "stock:reserve", millis: 5 }))), envelope))
      .toMatchObject({ status: 504, reason: "DeadlineExceeded", correlationId: "id-1", retryable: true }))

  it("of a defect shows nothing but where to look", () => {
    const text = JSON.stringify(Problem.document(Problem.ofCause(Cause.die(new Error("a secret")), envelope)))
    expect(text).not.toContain("secret")
    expect(JSON.parse(text)).toMatchObject({ status: 500, reason: "Defect", correlationId: "id-1", retryable: false })
  })

  it("that was interrupted may be tried again", () =>
    expect(Problem.ofCause(Cause.interrupt(1), envelope)).toMatchObject({ status: 503, reason: "Interrupted", retryable: true }))
})

describe("the document", () => {
  it("has what the RFC names, and leaves out what is not known", () =>
    expect(JSON.parse(JSON.stringify(Problem.document(Problem.make("MethodNotAllowed", "it takes GET", { allow: "GET" }))))).toEqual({
      type: "urn:ksi:reason:MethodNotAllowed", title: "Method Not Allowed", status: 405, detail: "it takes GET", retryable: false, reason: "MethodNotAllowed"
    }))
  it("a method that is not allowed names those that are", () =>
    expect(Problem.headers(Problem.make("MethodNotAllowed", "", { allow: "GET, POST" }))).toEqual({ allow: "GET, POST" }))
})
