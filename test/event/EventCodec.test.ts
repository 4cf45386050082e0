import { describe, expect, it } from "@effect/vitest"
import { Arbitrary, Effect, Exit, Option, Schema, SchemaIssue } from "effect"
import * as Event from "../../src/event/Event.ts"
import * as EventCodec from "../../src/event/EventCodec.ts"
import * as Json from "../../src/event/Json.ts"
import type { KsiError } from "../../src/event/KsiError.ts"
import { watch } from "../bus/Generation.ts"
import { seeded } from "../Seeded.ts"

const codecOf = (payload: Schema.Top | Schema.Struct.Fields) => EventCodec.compile(Event.make("demo:codec", { payload }))
const json = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

const problems = (exit: Exit.Exit<unknown, KsiError>): ReadonlyArray<string> => {
  if (Exit.isSuccess(exit)) return ["valid"]
  return exit.cause.reasons.flatMap((reason) => {
    if (reason._tag !== "Fail") return [reason._tag]
    const { reason: why } = reason.error
    return why._tag === "PayloadInvalid" || why._tag === "ReplyInvalid"
      ? why.problems.map(({ path, problem }) => `${path}: ${problem}`)
      : [why._tag]
  })
}

describe("jsonCodec", () => {
  it("writes what JSON cannot hold in a form that JSON can, and reads it again", () => {
    const codec = EventCodec.jsonCodec(Schema.Struct({ position: Schema.BigInt, at: Schema.Date }))
    const value = { position: 2n ** 64n, at: new Date(0) }
    const written = Schema.encodeUnknownSync(codec)(value)
    expect(json(written)).toEqual(written)
    expect(Schema.decodeUnknownSync(codec)(written)).toEqual(value)
  })
})

describe("decodePayload", () => {
  const codec = codecOf({
    sku: Schema.String,
    quantity: Schema.Int,
    note: Schema.optionalKey(Schema.String),
    lines: Schema.optionalKey(Schema.Array(Schema.Struct({ price: Schema.Finite })))
  })

  it("gives an encoded form that is its own value back without copying", () => {
    const input = { sku: "tea", quantity: 1 }
    const exit = codec.decodePayload(input)
    expect(exit).toEqual(Exit.succeed(input))
    expect(codec.encodePayload(input)).toBe(input)
  })

  it("tells every problem, with its path and what was found", () => {
    expect(problems(codec.decodePayload({ quantity: "two", note: 1 }))).toEqual([
      "sku: is missing",
      "quantity: expected number, got \"two\"",
      "note: expected string, got 1"
    ])
    expect(problems(codec.decodePayload({ sku: "a", quantity: 1, lines: [{ price: 1 }, { price: null }, {}] }))).toEqual([
      "lines.1.price: expected number, got null",
      "lines.2.price: is missing"
    ])
    expect(problems(codec.decodePayload({ sku: "a", quantity: 1.5 }))).toEqual(["quantity: expected an integer, got 1.5"])
  })

  it.each([
    [undefined, "got nothing"], [null, "got null"], ["x".repeat(100), "xx..."], [[], "got []"], [5n, "got 5n"]
  ])("is clear about %s", (input, text) => {
    const [first] = problems(codec.decodePayload(input))
    expect(first).toContain(": expected object")
    expect(first).toContain(text)
    expect(first?.length).toBeLessThan(120)
  })

  it("of much that is wrong tells a little, and in time", () => {
    const lists = codecOf({ list: Schema.Array(Schema.String) })
    const told = problems(lists.decodePayload({ list: Array.from({ length: 300 }, () => ({ a: [1, "x".repeat(1000)] })) }))
    expect(told.length).toBe(21)
    expect(told.at(-1)).toBe(": 280 more problems")
    expect(Math.max(...told.map((line) => line.length))).toBeLessThan(200)
    const started = performance.now()
    const many = Array.from({ length: 1_900_000 }, () => 1)
    expect(problems(lists.decodePayload({ list: many }))).toEqual(["list.0: expected string, got 1"])
    expect(problems(lists.decodePayload({ list: { many } }))[0]).toMatch(/^list: expected array, got \{"many":\[1,1,.*\.\.\.$/)
    expect(performance.now() - started).toBeLessThan(2000)
  })

  it.each([
    ["a cycle", (() => {
      const cycle: Record<string, unknown> = {}
      cycle["a"] = cycle
      return cycle
    })()],
    ["depth", JSON.parse(`${"[".repeat(20_000)}${"]".repeat(20_000)}`)],
    ["a bigint within", [1n]]
  ])("is clear about a text that is %s", (_, text) => {
    const [first] = problems(codec.decodePayload({ sku: text, quantity: 1 }))
    expect(first).toContain("sku: expected string")
    expect(first?.length).toBeLessThan(120)
  })

  it("ignores keys that it does not know", () => {
    expect(codec.decodePayload({ sku: "a", quantity: 1, more: true })).toEqual(Exit.succeed({ sku: "a", quantity: 1 }))
  })

  it("any object is fine for an event without payload", () => {
    const none = EventCodec.compile(Event.make("demo:none"))
    expect(Exit.isSuccess(none.decodePayload({}))).toBe(true)
    expect(Exit.isSuccess(none.decodePayload({ a: 1 }))).toBe(true)
  })
})

describe("transformations", () => {
  class Point extends Schema.Class<Point>("Point")({ x: Schema.Number, y: Schema.Number }) {}
  const codec = codecOf({
    at: Schema.Date,
    big: Schema.BigInt,
    count: Schema.NumberFromString,
    point: Point,
    kind: Schema.Union([Schema.Literals(["a", "b"]), Schema.Null]),
    bytes: Schema.Uint8Array,
    some: Schema.Option(Schema.Int),
    tags: Schema.ReadonlySet(Schema.String)
  })
  const at = new Date(Date.UTC(2026, 0, 2, 3, 4, 5, 6))

  const value = {
    at, big: 12345678901234567890n, count: 5, point: new Point({ x: 1, y: 2 }), kind: null, bytes: new Uint8Array([1, 2, 255]),
    some: Option.some(1), tags: new Set(["x"])
  }

  it("a payload survives the wire, and comes back as what it was", () => {
    expect(codec.makePayload(value)).toEqual(Exit.succeed(value))
    const wire = json(codec.encodePayload(value))
    expect(wire).toMatchObject({ at: "2026-01-02T03:04:05.006Z", big: "12345678901234567890", count: "5", point: { x: 1, y: 2 }, kind: null })
    const back = codec.decodePayload(wire)
    expect(back).toEqual(Exit.succeed(value))
    expect(Exit.isSuccess(back) && Reflect.get(Object(back.value), "point") instanceof Point).toBe(true)
  })

  it("a program's value is checked by its type side, not guessed", () => {
    expect(problems(codec.makePayload({ ...value, some: 1 }))[0]).toContain("some: ")
    expect(problems(codecOf({ at: Schema.Date }).makePayload({ at: "2026-01-02T03:04:05.006Z" }))[0]).toContain("at: ")
    expect(problems(codecOf({ n: Schema.NumberFromString }).makePayload({ n: "5" }))[0]).toContain("n: ")
  })

  it("what cannot be transformed is a problem, not a defect", () => {
    const small = codecOf({ at: Schema.Date, big: Schema.BigInt, count: Schema.Int })
    for (const input of [{ at: 1, big: "1", count: 1 }, { at: "2026-01-01T00:00:00Z", big: "x", count: 1 }, { at: "2026-01-01T00:00:00Z", big: "1", count: "1" }]) {
      const [first] = problems(small.decodePayload(input))
      expect(first).toMatch(/^(at|big|count): /)
    }
  })
})

describe("makePayload", () => {
  const codec = codecOf({
    sku: Schema.String,
    quantity: Schema.Int.pipe(Schema.withConstructorDefault(Effect.succeed(1)))
  })

  it("applies the defaults of a program's value; the wire has none", () => {
    expect(codec.makePayload({ sku: "tea" })).toEqual(Exit.succeed({ sku: "tea", quantity: 1 }))
    expect(codec.makePayload({ sku: "tea", quantity: 2 })).toEqual(Exit.succeed({ sku: "tea", quantity: 2 }))
    expect(problems(codec.decodePayload({ sku: "tea" }))).toEqual(["quantity: is missing"])
  })

  it("tells what is wrong", () => {
    expect(problems(codec.makePayload({ sku: 1 }))[0]).toContain("sku: expected string")
    expect(problems(codec.makePayload({ sku: "a", quantity: 0.5 }))[0]).toContain("quantity: ")
  })

  it("a default that a field further in has is applied too", () => {
    const deep = codecOf({ line: Schema.Struct({ n: Schema.Int.pipe(Schema.withConstructorDefault(Effect.succeed(3))) }) })
    expect(deep.makePayload({ line: {} })).toEqual(Exit.succeed({ line: { n: 3 } }))
  })
})

describe("replies and errors", () => {
  class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { left: Schema.Int }) {}
  class Closed extends Schema.TaggedError<Closed>()("Closed", { until: Schema.Date }) {}
  const codec = EventCodec.compile(Event.make("demo:reply", {
    success: Schema.Struct({ at: Schema.Date, n: Schema.Int }),
    error: Schema.Union([OutOfStock, Closed])
  }))
  const reply = { at: new Date(0), n: 1 }

  it("a reply is checked by its type side, and written as JSON", () => {
    expect(codec.isSuccess(reply)).toBe(true)
    expect(codec.successProblems(reply)).toEqual([])
    expect(codec.isSuccess({ at: "1970-01-01T00:00:00.000Z", n: 1 })).toBe(false)
    expect(codec.successProblems({ at: new Date(0), n: "1" })).toEqual([{ path: "n", problem: "expected number, got \"1\"" }])
    expect(codec.encodeSuccess(reply)).toEqual({ at: "1970-01-01T00:00:00.000Z", n: 1 })
  })

  it("only declared errors are errors of the event", () => {
    expect(codec.isError(new OutOfStock({ left: 1 }))).toBe(true)
    expect(codec.isError(new Closed({ until: new Date(0) }))).toBe(true)
    expect(codec.isError(new Error("x"))).toBe(false)
    expect(codec.isError({ _tag: "OutOfStock", left: 1 })).toBe(false)
    expect(json(codec.encodeError(new OutOfStock({ left: 1 })))).toEqual({ _tag: "OutOfStock", left: 1 })
    expect(json(codec.encodeError(new Closed({ until: new Date(0) })))).toEqual({ _tag: "Closed", until: "1970-01-01T00:00:00.000Z" })
  })

  it("an event that answers nothing is answered with nothing, and fails with nothing", () => {
    const none = EventCodec.compile(Event.make("demo:none"))
    expect(none.isSuccess(undefined)).toBe(true)
    // As in TypeScript, whatever is returned for `void` is nothing; it does not leave the process.
    expect(none.isSuccess({ secret: 1 })).toBe(true)
    expect(none.encodeSuccess({ secret: 1 })).toBe(undefined)
    expect(none.isError(new OutOfStock({ left: 1 }))).toBe(false)
    expect(none.isError(undefined)).toBe(false)
  })

  it("a fact has neither", () => {
    const fact = EventCodec.compile(Event.fact("demo:was", { payload: { at: Schema.Date }, streamId: () => "s" }))
    expect(fact.encodePayload({ at: new Date(0) })).toEqual({ at: "1970-01-01T00:00:00.000Z" })
    expect(fact.isError("x")).toBe(false)
  })
})

// ---------------------------------------------------------------- compiled and interpreted agree

/** Runs with another `Function`, the constructor that compiling needs. */
const withFunction = <A>(replacement: (...args: ReadonlyArray<string>) => unknown, body: () => A): A => {
  const original = globalThis.Function
  // Only called, never constructed or subclassed, while the body runs.
  globalThis.Function = replacement as unknown as FunctionConstructor
  try {
    return body()
  } finally {
    globalThis.Function = original
  }
}

describe("compilation", () => {
  const original = globalThis.Function
  const answers = () => {
    const codec = codecOf({ n: Schema.Int, at: Schema.Date })
    return [codec.decodePayload({ n: 1, at: "1970-01-01T00:00:00.000Z" }), problems(codec.decodePayload({ n: "1" }))]
  }

  it("happens, for these schemas only", () => {
    let compiled = 0
    const counting = (...args: ReadonlyArray<string>) => {
      compiled++
      return original(...args)
    }
    withFunction(counting, () => Schema.decodeUnknownExit(Schema.Struct({ n: Schema.Int }))({ n: 1 }))
    expect(compiled).toBe(0)
    withFunction(counting, answers)
    expect(compiled).toBeGreaterThan(0)
  })

  it("is done without where Function is refused", () => {
    const refused = withFunction(() => {
      throw new EvalError("Code generation from strings disallowed")
    }, answers)
    expect(refused).toEqual(answers())
    expect(refused[1]).toEqual(["n: expected number, got \"1\"", "at: is missing"])
  })
})

const leaf = (pick: (below: number) => number): Schema.Top =>
  [
    () => Schema.String,
    () => Schema.Int,
    () => Schema.Finite,
    () => Schema.Boolean,
    () => Schema.Null,
    () => Schema.Literals(["a", "b", 1]),
    () => Schema.String.check(Schema.isMinLength(2)),
    () => Schema.Int.check(Schema.isBetween({ minimum: -5, maximum: 5 })),
    () => Schema.Date,
    () => Schema.BigInt,
    () => Schema.NumberFromString
  ][pick(11)]?.() ?? Schema.String

const build = (pick: (below: number) => number, depth: number): Schema.Top => {
  const inner = () => build(pick, depth - 1)
  switch (depth === 0 ? 0 : pick(7)) {
    case 1: return Schema.Array(inner())
    case 2: return fields(pick, depth)
    case 3: return Schema.Union([Schema.Struct({ tag: Schema.Literal("l"), value: inner() }), Schema.Struct({ tag: Schema.Literal("r"), other: inner() })])
    case 4: return Schema.Tuple([inner(), inner()])
    case 5: return Schema.Record(Schema.String, inner())
    case 6: return Schema.NullOr(inner())
    default: return leaf(pick)
  }
}

const fields = (pick: (below: number) => number, depth: number): Schema.Top => {
  const result: Record<string, Schema.Top> = {}
  for (let i = 0, count = 1 + pick(4); i < count; i++) {
    const field = build(pick, depth - 1)
    result[`f${i}`] = pick(3) === 0 ? Schema.optionalKey(field) : field
  }
  return Schema.Struct(result)
}

const junk = [null, "junk", "", 1.5, -7, true, [], {}, [null], { tag: "x" }]

/** A copy with one place of it spoiled. */
const spoil = (value: unknown, pick: (below: number) => number): unknown => {
  const down = typeof value === "object" && value !== null && pick(4) > 0
  if (Array.isArray(value) && value.length > 0 && down) {
    const at = pick(value.length)
    return value.map((item: unknown, i) => i === at ? spoil(item, pick) : item)
  }
  const keys = typeof value === "object" && value !== null && !Array.isArray(value) ? Object.keys(value) : []
  const key = keys[pick(Math.max(1, keys.length))]
  if (key === undefined || !down) return junk[pick(junk.length)]
  const { [key]: old, ...rest } = Object(value) as Record<string, unknown>
  return pick(4) === 0 ? rest : { ...rest, [key]: spoil(old, pick) }
}

it.effect.prop("compiled and interpreted decoding agree on values, on problems and on the way back", [Schema.Int], ([seed]) =>
  Effect.gen(function*() {
    // Two schemas of one shape: only the first is compiled, for the compiler is switched on by schema.
    const compiled = codecOf(fields(seeded(seed), 3))
    const schema = fields(seeded(seed), 3)
    const interpreted = Schema.toCodecJson(schema) as unknown as Schema.Codec<unknown, unknown>
    const decode = Schema.decodeUnknownExit(interpreted)
    const format = SchemaIssue.makeFormatterStandardSchemaV1()
    const pick = seeded(seed + 1)
    const values = yield* Arbitrary.sampleEffect(Arbitrary.schema(schema), { count: 5, size: 6, seed })
    for (const value of values) {
      const encoded = json(Schema.encodeUnknownSync(interpreted)(value))
      for (const input of [encoded, spoil(encoded, pick), spoil(encoded, pick), spoil(spoil(encoded, pick), pick)]) {
        const ours = compiled.decodePayload(input)
        const theirs = decode(input, { errors: "all" })
        if (Exit.isSuccess(theirs)) {
          expect(ours).toEqual(theirs)
          expect(json(compiled.encodePayload(theirs.value))).toEqual(json(Schema.encodeUnknownSync(interpreted)(theirs.value)))
        } else {
          const issues = theirs.cause.reasons.flatMap((reason) => reason._tag === "Fail" ? format(reason.error.issue).issues : [])
          const paths = issues.map(({ path }) => (path ?? []).map((part) => String(typeof part === "object" ? part.key : part)).join("."))
          expect(problems(ours).map((line) => line.slice(0, line.indexOf(": ")))).toEqual(paths)
        }
      }
    }
  }), { arbitrary: { runs: 100 }
})

describe("replies", () => {
  it("a reply that throws when it is looked at is invalid, and so is an error", () => {
    const codec = EventCodec.compile(Event.make("demo:mine", {
      success: Schema.Struct({ text: Schema.String }), error: Schema.Struct({ text: Schema.String })
    }))
    const mine = { get text(): string { throw new Error("boom") } }
    expect([codec.isSuccess(mine), codec.isError(mine)]).toEqual([false, false])
    expect(codec.successProblems(mine)).toEqual([{ path: "", problem: "it cannot be looked at: boom" }])
  })
})

describe("copier", () => {
  const factOf = (payload: Schema.Top) => EventCodec.compile(Event.fact("demo:fact", { payload: payload as Schema.Struct<{}>, streamId: () => "s" })).copier
  const room = 1000

  it.each<readonly [string, Schema.Top, unknown, unknown]>([
    ["fields", Schema.Struct({ text: Schema.String, n: Schema.Finite, is: Schema.Boolean }), { text: "a", n: -0, is: true }, { text: "a", n: 0, is: true }],
    ["fields that may be missing, in their order", Schema.Struct({ a: Schema.optionalKey(Schema.String), "b \"": Schema.Int }), { "b \"": 1 }, { "b \"": 1 }],
    ["objects in arrays", Schema.Struct({ list: Schema.Array(Schema.Struct({ n: Schema.Int })) }), { list: [{ n: 1 }, { n: -0 }] }, { list: [{ n: 1 }, { n: 0 }] }],
    ["one of several", Schema.Struct({ side: Schema.NullOr(Schema.Literals(["left", 3])), n: Schema.NullOr(Schema.Int) }), { side: null, n: -0 }, { side: null, n: 0 }]
  ])("copies %s as JSON would", (_, schema, payload, copy) => {
    const copied = factOf(schema)?.copy(payload, room)
    expect(copied).toStrictEqual(copy)
    expect(copied).not.toBe(payload)
    expect(JSON.stringify(copied)).toBe(JSON.stringify(payload))
  })

  it("knows only what a schema says in full, and no requests", () => {
    expect(factOf(Schema.Struct({ any: Schema.Unknown }))).toBeUndefined()
    expect(factOf(Schema.Struct({}))).toBeUndefined()
    expect(factOf(Schema.Struct({ n: Schema.Number }))).toBeUndefined()
    expect(factOf(Schema.Struct({ at: Schema.Date }))).toBeUndefined()
    expect(factOf(Schema.Struct({ ["__proto__"]: Schema.String }))).toBeUndefined()
    expect(factOf(Schema.Record(Schema.String, Schema.Int))).toBeUndefined()
    expect(factOf(Schema.Struct({ list: Schema.Array(Schema.Unknown) }))).toBeUndefined()
    expect(codecOf({ text: Schema.String }).copier).toBeUndefined()
  })

  it.prop("copies nothing whose text may be longer than there is room for", [
    Schema.Struct({ text: Schema.String, list: Schema.Array(Schema.Finite) }), Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 300 }))
  ], ([payload, max]) => {
    const copied = factOf(Schema.Struct({ text: Schema.String, list: Schema.Array(Schema.Finite) }))?.copy(payload, max)
    if (copied !== undefined) expect(Buffer.byteLength(JSON.stringify(payload))).toBeLessThanOrEqual(max)
  })

  it("says how deep a payload may be", () => {
    expect(factOf(Schema.Struct({ a: Schema.Struct({ b: Schema.Array(Schema.Int) }) }))?.depth).toBe(3)
  })
})

describe("payloadPattern", () => {
  const read = (payload: Schema.Top | Schema.Struct.Fields) => {
    const pattern = codecOf(payload).payloadPattern(1)
    if (pattern === undefined) return undefined
    const whole = new RegExp(`^${pattern.source}$`)
    return (text: string): unknown => {
      const parts = whole.exec(text)
      return parts === null ? "not read" : pattern.value(parts)
    }
  }
  const Order = Schema.Struct({
    sku: Schema.String, quantity: Schema.Int, price: Schema.Number, side: Schema.Literals(["buy", "sell"]), at: Schema.Date,
    customer: Schema.Struct({ id: Schema.NullOr(Schema.String), vip: Schema.Boolean }), note: Schema.optionalKey(Schema.String), rank: Schema.NullOr(Schema.Finite)
  })

  it.prop("reads what JSON.parse reads, or nothing", [Order, Schema.Boolean], ([order, spaced]) => {
    const encoded = codecOf(Order).encodePayload(order)
    const text = JSON.stringify(encoded)
    const written = spaced ? text.replaceAll(",\"", ", \"").replaceAll("\":", "\": ") : text
    const found = read(Order)?.(written)
    if (found !== "not read") expect(found).toStrictEqual(Json.parse(written))
  }, { arbitrary: { runs: 300 } })

  it("reads common texts, with a key that may be missing and without", () => {
    const order = { sku: "tea", quantity: 3, price: 1.25, side: "buy", at: "2026-01-01T00:00:00.000Z", customer: { id: "a customer with a long name", vip: true }, note: "ü€😀", rank: null }
    const { note: _, ...rest } = order
    for (const each of [order, rest, { ...order, customer: { id: null, vip: false }, rank: 0 }]) expect(read(Order)?.(JSON.stringify(each))).toStrictEqual(each)
    expect(read({ n: Schema.Int, word: Schema.String })?.("{\"n\": -12, \"word\": \"\"}")).toStrictEqual({ n: -12, word: "" })
  })

  it("does not read what needs care, looks otherwise, or is no JSON", () => {
    const reading = read({ n: Schema.Finite, word: Schema.String })
    for (
      const text of [
        "{\"n\":-0,\"word\":\"\"}", "{\"n\":9007199254740993,\"word\":\"\"}", "{\"n\":1e3,\"word\":\"\"}", "{\"n\":-0.5,\"word\":\"\"}", "{\"n\":01,\"word\":\"\"}",
        "{\"n\":1,\"word\":\"\\n\"}", "{\"n\":1,\"word\":\"\n\"}", "{\"word\":\"\",\"n\":1}", "{\"n\":1,\"word\":\"\",\"more\":1}", "{\"n\":1}",
        "{\"n\":1,\"word\":\"\",}", "{\"n\":1  ,\"word\":\"\"}", "{\"n\":\"1\",\"word\":\"\"}"
      ]
    ) expect(reading?.(text), text).toBe("not read")
  })

  it("knows only what a schema says in full, and few enough fields", () => {
    for (
      const payload of [
        { any: Schema.Unknown }, {}, { list: Schema.Array(Schema.Int) }, { "a key": Schema.String }, { first: Schema.optionalKey(Schema.String) },
        { ["__proto__"]: Schema.String }, Object.fromEntries(Array.from({ length: 60 }, (_, n) => [`f${n}`, Schema.String]))
      ]
    ) expect(read(payload), Object.keys(payload).join()).toBeUndefined()
  })

  it("is not there where code may not be generated", () => {
    const codec = codecOf({ n: Schema.Int })
    const { restore } = watch(true)
    try {
      expect(codec.payloadPattern(1)).toBeUndefined()
    } finally {
      restore()
    }
    expect(codec.payloadPattern(1)).toBeDefined()
  })
})

describe("facts of older versions", () => {
  // What the data was in each version; the last is today's.
  const First = Schema.Struct({ who: Schema.String, price: Schema.Int })
  const Second = Schema.Struct({ who: Schema.String, cents: Schema.Int })
  const Paid = Event.fact("order:paid", {
    payload: { payer: Schema.String, cents: Schema.Int, at: Schema.NullOr(Schema.Date) },
    streamId: () => "s",
    version: 3,
    upcast: {
      1: ({ price, who }: typeof First.Encoded) => ({ who, cents: price * 100 }),
      2: ({ cents, who }: typeof Second.Encoded) => ({ payer: who, cents, at: null })
    }
  })
  const { decodeFact, decodePayload, encodePayload } = EventCodec.compile(Paid)
  const read = (data: unknown, version?: unknown) => decodeFact({ id: "e", position: 7, data }, version)
  const reasonOf = (exit: Exit.Exit<unknown, KsiError>) =>
    Exit.isSuccess(exit) ? undefined : exit.cause.reasons.flatMap((reason) => reason._tag === "Fail" ? [reason.error.reason] : [])[0]

  it.effect("are read as what would be written today, whatever they hold", () =>
    Effect.gen(function*() {
      for (const { price, who } of yield* Arbitrary.sampleEffect(Arbitrary.schema(First), { count: 50, size: 20, seed: 1 })) {
        const today = encodePayload({ payer: who, cents: price * 100, at: null })
        const wanted = decodePayload(today)
        expect(read({ who, price })).toEqual(wanted)
        expect(read({ who, price }, 1)).toEqual(wanted)
        expect(read({ who, cents: price * 100 }, 2)).toEqual(wanted)
        expect(read(today, 3)).toEqual(wanted)
      }
      for (const value of yield* Arbitrary.sampleEffect(Arbitrary.schema(Paid.payload), { count: 50, size: 20, seed: 2 })) {
        expect(read(json(encodePayload(value)), 3)).toEqual(Exit.succeed(value))
      }
    }))

  it("nothing of what was stored is changed, and a step that tries is an error", () => {
    const stored = Object.freeze({ who: "ann", price: 5 })
    expect(read(stored)).toEqual(Exit.succeed({ payer: "ann", cents: 500, at: null }))
    expect(stored).toEqual({ who: "ann", price: 5 })
    const Spoils = Event.fact("order:paid", {
      payload: {}, streamId: () => "s", version: 2, upcast: { 1: (old: { n: number }) => Object.assign(old, { n: 1 }) }
    })
    const exit = EventCodec.compile(Spoils).decodeFact({ id: "e", position: 7, data: Object.freeze({ n: 0 }) }, undefined)
    expect(reasonOf(exit)).toMatchObject({ _tag: "StoreFailure", problem: expect.stringContaining("cannot be brought from version 1 to 2: Cannot assign") })
  })

  it("one that is newer than the program knows is a clear error, also where the event has no versions", () => {
    expect(reasonOf(read({}, 4))).toMatchObject({
      _tag: "StoreFailure", operation: "read order:paid",
      problem: "the fact \"e\" at position 7 has data of version 4, and this program knows order:paid up to version 3"
    })
    const plain = EventCodec.compile(Event.fact("order:sent", { payload: {}, streamId: () => "s" }))
    expect(reasonOf(plain.decodeFact({ id: "e", data: {} }, 2))).toMatchObject({ problem: expect.stringContaining("the fact \"e\" has data of version 2") })
    for (const version of [0, -1, 1.5, "2", null, {}]) {
      expect(reasonOf(read({}, version))).toMatchObject({ problem: expect.stringMatching(/says that its data has the version .+, which is none$/) })
    }
  })

  it("data that is not what its version was is invalid, with what is wrong in it today", () => {
    expect(problems(read({ who: "ann" }, 2))).toEqual(["cents: expected number, got nothing"])
    expect(reasonOf(read(null, 1))).toMatchObject({ _tag: "StoreFailure", problem: expect.stringContaining("from version 1 to 2") })
  })
})
