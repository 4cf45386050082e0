import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Option, Schema, Tracer } from "effect"
import * as TraceContext from "../../src/event/TraceContext.ts"

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
const spanId = "00f067aa0ba902b7"
const of = (flags: string, version = "00") => `${version}-${traceId}-${spanId}-${flags}`
const context = (more: Partial<TraceContext.TraceContext> = {}): TraceContext.TraceContext =>
  ({ traceId, spanId, sampled: true, random: false, tracestate: undefined, ...more })

const Hex = (length: number) =>
  Schema.String.check(Schema.isPattern(new RegExp(`^[0-9a-f]{${length}}$`))).check(Schema.isPattern(/[^0]/))
const Place = Schema.Struct({
  traceId: Hex(32),
  spanId: Hex(16),
  sampled: Schema.Boolean,
  random: Schema.Boolean,
  tracestate: Schema.UndefinedOr(Schema.String.check(Schema.isPattern(/^[ -~]{1,512}$/)))
})

describe("parse and format", () => {
  it.prop("what is written is read", [Place], ([place]) => {
    const { traceparent, tracestate } = TraceContext.format(place)
    expect(traceparent).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]$/)
    expect(TraceContext.parse(traceparent, tracestate)).toEqual(place)
    expect(TraceContext.accept(traceparent, tracestate)).toEqual({ traceparent, tracestate })
  })

  it.prop("no value makes it throw, and what it accepts it accepts again", [
    Schema.Union([Schema.Json, Schema.String.check(Schema.isPattern(/^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,9})?$/))]),
    Schema.Json
  ], ([traceparent, tracestate]) => {
    const accepted = TraceContext.accept(traceparent, tracestate)
    if (accepted !== undefined) expect(TraceContext.accept(accepted.traceparent, accepted.tracestate)).toEqual(accepted)
  })

  it("the flags: only the first two mean something", () => {
    expect(TraceContext.parse(of("00"))).toEqual(context({ sampled: false }))
    expect(TraceContext.parse(of("01"))).toEqual(context())
    expect(TraceContext.parse(of("02"))).toEqual(context({ sampled: false, random: true }))
    expect(TraceContext.parse(of("ff"))).toEqual(context({ random: true }))
    expect(TraceContext.accept(of("ff"), undefined)).toEqual({ traceparent: of("03"), tracestate: undefined })
  })

  it("a later version is read as far as it is known, and written as the one that is", () => {
    for (const later of [of("01", "01"), `${of("01", "cc")}-what-the-future-brings`, `${of("09", "fe")}-`]) {
      expect(TraceContext.parse(later)).toEqual(context())
      expect(TraceContext.accept(later, "a=1")).toEqual({ traceparent: of("01"), tracestate: "a=1" })
    }
  })

  const malformed: ReadonlyArray<readonly [what: string, value: unknown]> = [
    ["nothing", undefined],
    ["null", null],
    ["a number", 7],
    ["an object", { traceparent: of("01") }],
    ["a list of one", [of("01")]],
    ["an empty text", ""],
    ["junk", "00-1"],
    ["the forbidden version", of("01", "ff")],
    ["a version that is no number", of("01", "zz")],
    ["a version in upper case", of("01", "0A")],
    ["a short version", of("01", "0")],
    ["upper case", of("01").toUpperCase()],
    ["a trace id in upper case", of("01").replace("4bf9", "4BF9")],
    ["a trace id of zeros", of("01").replace(traceId, "0".repeat(32))],
    ["a span id of zeros", of("01").replace(spanId, "0".repeat(16))],
    ["a short trace id", of("01").replace("4bf9", "4bf")],
    ["a long span id", of("01").replace("02b7", "02b70")],
    ["no flags", of("").slice(0, -1)],
    ["one digit of flags", of("1")],
    ["flags that are no number", of("0x")],
    ["version 00 with more", `${of("01")}-more`],
    ["version 00 with an empty more", `${of("01")}-`],
    ["a later version that runs on without a dash", `${of("01", "01")}0`],
    ["white space around", ` ${of("01")} `],
    ["a newline at the end", `${of("01")}\n`],
    ["a newline in what follows", `${of("01", "01")}-\r\nx: y`],
    ["megabytes", "0".repeat(4_000_000)]
  ]
  it.each(malformed)("ignored: %s", (_, value) => {
    expect(TraceContext.parse(value, "a=1")).toBeUndefined()
    expect(TraceContext.accept(value, "a=1")).toBeUndefined()
    expect(typeof value === "string" ? TraceContext.toSpan({ traceparent: value, tracestate: "a=1" }) : undefined).toBeUndefined()
  })

  it("a tracestate is passed on as it is, or left out", () => {
    const state = (tracestate: unknown) => TraceContext.parse(of("01"), tracestate)?.tracestate
    for (const kept of ["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", " ", "not,=even\tone", "x".repeat(512)]) expect(state(kept)).toBe(kept)
    for (const left of ["", "x".repeat(513), "a=1\r\nx: y", "a=\u0000", "a=é", 1, null, undefined, ["a=1"]]) expect(state(left)).toBeUndefined()
  })
})

const native = (name: string, parent?: Tracer.AnySpan, annotations = Context.empty()) =>
  new Tracer.NativeSpan({
    name, parent: Option.fromUndefinedOr(parent), annotations, links: [], startTime: 0n, kind: "internal", sampled: parent?.sampled ?? true
  })

describe("toSpan and ofSpan", () => {
  it.prop("the span of another process names itself", [Place], ([place]) => {
    const texts = TraceContext.format(place)
    const span = TraceContext.toSpan(texts)
    expect(span).toMatchObject({ _tag: "ExternalSpan", traceId: place.traceId, spanId: place.spanId, sampled: place.sampled })
    expect(span && TraceContext.ofSpan(span)).toEqual(texts)
  })

  it("a span below it is in its trace, with its state; one that begins a trace has no state", () => {
    const texts = TraceContext.format(context({ random: true, tracestate: "a=1", sampled: false }))
    const inner = native("inner", native("outer", TraceContext.toSpan(texts)))
    expect(TraceContext.ofSpan(inner)).toEqual({ traceparent: `00-${traceId}-${inner.spanId}-02`, tracestate: "a=1" })
    const root = native("root")
    expect(TraceContext.ofSpan(root)).toEqual({ traceparent: `00-${root.traceId}-${root.spanId}-01`, tracestate: undefined })
  })

  it.effect("where tracing is off, the span above goes on", () =>
    Effect.gen(function*() {
      const texts = TraceContext.format(context({ tracestate: "a=1" }))
      const parent = TraceContext.toSpan(texts)
      const silent = (options: Tracer.SpanOptionsNoTrace) => Effect.withTracerEnabled(Effect.makeSpan("silent", options), false)
      expect(TraceContext.ofSpan(yield* silent({ parent }))).toEqual(texts)
      expect(TraceContext.ofSpan(yield* silent({ root: true }))).toBeUndefined()
      expect(TraceContext.ofSpan(native("hidden", parent, Context.make(Tracer.DisablePropagation, true)))).toEqual(texts)
    }))

  it("ids that are not W3C's: short trace ids are filled up, others are not told", () => {
    const external = (traceId: string, spanId: string) => TraceContext.ofSpan(Tracer.externalSpan({ traceId, spanId }))
    expect(external("a3ce929d0e0e4736", spanId)?.traceparent).toBe(`00-0000000000000000a3ce929d0e0e4736-${spanId}-01`)
    for (const [trace, span] of [["noop", "noop"], [traceId, "7"], ["0", spanId], [traceId.toUpperCase(), spanId], [traceId, "0".repeat(16)]] as const) {
      expect(external(trace, span)).toBeUndefined()
    }
  })
})
