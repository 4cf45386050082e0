import { describe, expect, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as Call from "../../src/cli/Call.ts"

const made = (pairs: ReadonlyArray<string>, data: unknown = {}) =>
  Result.map(Call.payload(data, pairs), (value) => JSON.parse(JSON.stringify(value)))
const problem = (pairs: ReadonlyArray<string>, data: unknown = {}) => Result.getOrThrow(Result.flip(Call.payload(data, pairs)))

describe("payload", () => {
  it("a value is JSON where it is valid JSON, else text", () => {
    expect(made(["a=1", "b=true", "c=null", "d=[1]", "e={\"x\":1}", "f=\"1\"", "g=tea", "h=007", "i=", "j=a=b", "k=1e3"]))
      .toEqual(Result.succeed({
        a: 1, b: true, c: null, d: [1], e: { x: 1 }, f: "1", g: "tea", h: "007", i: "", j: "a=b", k: 1000
      }))
  })
  it("dots nest, pairs go over the data and leave the rest of it", () => {
    const data = { ship: { to: "Delft", by: "boat" }, sku: "tea" }
    expect(made(["ship.to=Oss", "a.b.c=1", "a.b.d=2"], data)).toEqual(
      Result.succeed({ ship: { to: "Oss", by: "boat" }, sku: "tea", a: { b: { c: 1, d: 2 } } })
    )
    expect(data).toEqual({ ship: { to: "Delft", by: "boat" }, sku: "tea" })
  })
  it("a field that takes texts, and not what the JSON says, takes the text as it is written", () => {
    const text = { type: "string", allOf: [{ minLength: 1 }] }
    const schema = {
      type: "object",
      properties: {
        isbn: text,
        maybe: { anyOf: [{ type: "string" }, { type: "null" }] },
        either: { anyOf: [{ type: "string" }, { type: "integer" }] },
        count: { type: "integer" },
        ship: { anyOf: [{ $ref: "#/$defs/Address" }, { type: "null" }] },
        labels: { type: "object", additionalProperties: text },
        any: {}
      },
      $defs: { Address: { type: "object", properties: { zip: { $ref: "#/$defs/Zip" } } }, Zip: text }
    }
    const of = (...pairs: ReadonlyArray<string>) => Result.map(Call.payload({}, pairs, schema), (value) => JSON.parse(JSON.stringify(value)))
    expect(of("isbn=12", "maybe=null", "either=12", "count=12", "ship.zip=2134", "labels.a=true", "any=12", "other=12")).toEqual(
      Result.succeed({ isbn: "12", maybe: null, either: 12, count: 12, ship: { zip: "2134" }, labels: { a: "true" }, any: 12, other: 12 })
    )
    for (const [written, value] of [["1e3", "1e3"], ["[1]", "[1]"], ["{}", "{}"], ["\"12\"", "12"], ["false", "false"], ["tea", "tea"]]) {
      expect(of(`isbn=${written}`)).toEqual(Result.succeed({ isbn: value }))
    }
    expect(of("maybe=12")).toEqual(Result.succeed({ maybe: "12" }))
  })
  it("digits survive", () => {
    expect(JSON.stringify(Result.getOrThrow(Call.payload({}, ["n=12345678901234567890", "m=0.10000000000000000001"]))))
      .toBe("{\"n\":12345678901234567890,\"m\":0.10000000000000000001}")
  })
  it("__proto__ is a key like any other", () => {
    const value = Result.getOrThrow(Call.payload({}, ["__proto__.polluted=1", "constructor=2"]))
    expect(JSON.stringify(value)).toBe("{\"__proto__\":{\"polluted\":1},\"constructor\":2}")
    expect(Reflect.get({}, "polluted")).toBeUndefined()
  })
  it("says what is wrong", () => {
    expect(problem(["two"])).toBe("expected key=value, found \"two\"")
    expect(problem(["=1"])).toBe("expected key=value, found \"=1\"")
    for (const deep of ["a=" + "[".repeat(257) + "]".repeat(257), "\"a=" + "[".repeat(5000) + "]".repeat(5000), "a.".repeat(300) + "a=1"]) {
      expect(problem([deep])).toContain("is nested deeper than 256")
    }
    expect(problem(["a..b=1"])).toContain("has an empty part")
    expect(problem([".a=1"])).toContain("has an empty part")
    expect(problem(["sku=a", "sku=b"])).toBe("\"sku\" is given twice")
    expect(problem(["a.b=1", "a=2"])).toBe("\"a\" would take the place of \"a.b\"")
    expect(problem(["a=1", "a.b=2"])).toBe("\"a.b\" goes below \"a\", which is 1 and not an object")
    expect(problem(["a.0=2"], { a: [1] })).toBe("\"a.0\" goes below \"a\", which is [1] and not an object")
    expect(problem([], [1])).toBe("the data must be a JSON object, found [1]")
    expect(problem([], "x")).toBe("the data must be a JSON object, found x")
  })

  const Key = Schema.String.check(Schema.isPattern(/^[^=.]+$/))
  it.prop("every JSON value comes through as it was said", [Key, Schema.toCodecJson(Schema.Json)], ([key, value]) => {
    expect(made([`${key}=${JSON.stringify(value)}`])).toEqual(Result.succeed({ [key]: JSON.parse(JSON.stringify(value)) }))
  })
  it.prop("every path comes through", [Schema.NonEmptyArray(Key)], ([path]) => {
    const expected = path.reduceRight<unknown>((inner, key) => ({ [key]: inner }), 1)
    expect(JSON.stringify(Result.getOrThrow(Call.payload({}, [`${path.join(".")}=1`])))).toBe(JSON.stringify(expected))
  })
  it.prop("every text that is no JSON is that text", [Key, Schema.String], ([key, text]) => {
    const value = Result.getOrThrow(Call.payload({}, [`${key}=${text}`]))[key]
    const parsed = Result.try(() => JSON.parse(text) as unknown)
    if (Result.isFailure(parsed)) expect(value).toBe(text)
    else expect(JSON.parse(JSON.stringify(value))).toEqual(JSON.parse(JSON.stringify(parsed.success)))
  })
})

describe("answerOf", () => {
  const help = (...keys: ReadonlyArray<string>) => ({
    schemas: { success: { type: "object", properties: Object.fromEntries(keys.map((key) => [key, {}])) } }
  })
  it("takes away what the wire added", () => {
    expect(Call.answerOf({ status: "success", holdId: "h", _ksi_context: {} }, help("holdId"))).toEqual({ holdId: "h" })
    expect(Call.answerOf({ status: "success", result: 5 }, {})).toBe(5)
    expect(Call.answerOf({ status: "success" }, {})).toEqual({})
  })
  it("leaves what is the handler's own", () => {
    expect(Call.answerOf({ status: "success", result: 5 }, help("result"))).toEqual({ result: 5 })
    expect(Call.answerOf({ status: "success", n: 1 }, help("status", "n"))).toEqual({ status: "success", n: 1 })
    expect(Call.answerOf({ status: "healthy" }, {})).toEqual({ status: "healthy" })
    expect(Call.answerOf({ status: "success", result: 5, more: 1 }, {})).toEqual({ result: 5, more: 1 })
  })
})
