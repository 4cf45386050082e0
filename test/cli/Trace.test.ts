import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Trace from "../../src/cli/Trace.ts"
import { text } from "../../src/store/Trace.ts"
import { ksi } from "./commandLine.ts"

it("what the daemon told is drawn as the trace that it was", () => {
  const node = { kind: "fact", id: "2", event: "order:placed", parent: null, depth: 1, offset: 3, timestamp: "2026-01-01T00:00:00.003Z", principal: "owner", position: 7, version: 1, streamId: "o" }
  const trace = Trace.traceOf("2", [node], { duration: 12.5, truncated: true })
  expect(trace).toEqual({ id: "2", nodes: [node], duration: 12.5, more: true })
  expect(text(trace)).toEqual(["0 requests, 1 fact in 12.5 ms; there is more, which is left out", "+3 ms    • order:placed  #7  o v1  ←"])
  expect(Trace.traceOf("2", [], {})).toMatchObject({ duration: 0, more: false })
})

it.effect("a diagram is no JSON, and nobody is asked for it", () =>
  Effect.gen(function*() {
    const { code, stderr, stdout } = yield* ksi(["trace", "x", "--mermaid", "--json"])
    expect([code, stdout]).toEqual([2, ""])
    expect(stderr).toContain("--json prints nodes")
  }))
