import { describe, expect, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as Json from "../../src/event/Json.ts"

const round = (text: string) => JSON.stringify(Json.parse(text))

describe("parse", () => {
  it("keeps the digits of numbers that a double cannot hold", () => {
    for (
      const n of [
        "12345678901234567890", "-9007199254740993", "0.1234567890123456789", "1e400", "-1E999", "1e-400", "9007199254740993",
        "123456789012345.6789", "1000000000000000000001", "-0", "-0.00", "-0e5"
      ]
    ) {
      expect(round(n), n).toBe(n)
      expect(round(`{"a":[${n},{"b":${n}}],"c":"${n}"}`)).toBe(`{"a":[${n},{"b":${n}}],"c":"${n}"}`)
      expect(Json.isRaw(Json.parse(n))).toBe(true)
    }
  })

  it("finds a long number wherever it stands, and however short the long part is", () => {
    for (let before = 0; before < 20; before++) {
      for (const n of ["9007199254740993", "0.1234567890123456789", "123456789012345.67"]) {
        const text = `{"${"k".repeat(before)}":${n},"after":1}`
        expect(Json.isSuspicious(text), text).toBe(true)
        expect(round(text)).toBe(text)
      }
    }
    expect(["{\"n\":123456789012345}", "{\"n\":1.5,\"m\":[1234567,7654321]}", "{\"id\":\"a-1-b\",\"n\":1e5}", "{\"id\":\"01234567-89012-7345\"}"].map(Json.isSuspicious)).toEqual([false, false, false, false])
  })

  it("reads numbers that a double holds as numbers, however they are written", () => {
    for (const n of ["9007199254740992", "1e21", "1.50", "100000000000000000000", "0.1", "1e300", "0.0000000000000000001", "-0.5", "0e999"]) {
      expect(Json.parse(n), n).toBe(JSON.parse(n))
    }
  })

  it("throws what JSON.parse throws; parseResult says it", () => {
    for (const text of ["", "{", "nope", "{\"a\":12345678901234567890", "01", "[1,]"]) {
      expect(() => Json.parse(text), text).toThrow(SyntaxError)
      expect(Result.isFailure(Json.parseResult(text))).toBe(true)
    }
    expect(Json.parseResult("{\"a\":1}")).toEqual(Result.succeed({ a: 1 }))
  })

  it("takes no harm from a key called __proto__", () => {
    const value = Json.parse("{\"__proto__\":{\"polluted\":12345678901234567890}}")
    expect(Reflect.get({}, "polluted")).toBe(undefined)
    expect(JSON.stringify(value)).toBe("{\"__proto__\":{\"polluted\":12345678901234567890}}")
  })

  it.prop("equals JSON.parse for what JavaScript can write", [Schema.Json], ([value]) => {
    const text = JSON.stringify(value)
    expect(Json.parse(text)).toEqual(JSON.parse(text))
    expect(round(text)).toBe(JSON.stringify(JSON.parse(text)))
  }, { arbitrary: { runs: 300 } })

  const digits = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 9 }))).check(Schema.isBetweenLength(1, 40))
  it.prop("keeps integers and fractions of any length", [digits, digits, Schema.Boolean], ([a, b, negative]) => {
    const whole = a.join("").replace(/^0+(?=\d)/, "")
    for (const text of [whole, `${whole}.${b.join("")}5`]) {
      const signed = `${negative ? "-" : ""}${text}`
      const again = round(`[${signed}]`)
      // Either the very digits, or a shorter spelling of exactly the same number.
      expect(Json.equal(Json.parse(again), Json.parse(`[${signed}]`)), signed).toBe(true)
      if (Json.isRaw(Json.parse(signed))) expect(again).toBe(`[${signed}]`)
      else expect(exact(String(Number(signed)))).toBe(exact(signed))
    }
  }, { arbitrary: { runs: 500 } })
})

/** A decimal without the freedom of spelling: sign, digits, power of ten. */
const exact = (text: string): string => {
  const [mantissa = "", power = "0"] = text.replace("-", "").split("e")
  const [whole = "", fraction = ""] = mantissa.split(".")
  const significant = (whole + fraction).replace(/^0+/, "").replace(/0+$/, "")
  const trailing = (whole + fraction).length - (whole + fraction).replace(/0+$/, "").length
  return significant === "" ? "0" : `${text.startsWith("-") ? "-" : ""}${significant}e${Number(power) - fraction.length + trailing}`
}

describe("isObject", () => {
  it("is none of the other JSON values", () => {
    const values = ["{}", "{\"a\":1}", "[]", "null", "1", "\"a\"", "true", "12345678901234567890"].map(Json.parse)
    expect(values.map(Json.isObject)).toEqual([true, true, false, false, false, false, false, false])
    expect(Json.isObject(undefined)).toBe(false)
  })
})

describe("equal", () => {
  it("does not mind the order of keys, but that of items", () => {
    expect(Json.equal({ a: 1, b: [1, 2] }, { b: [1, 2], a: 1 })).toBe(true)
    expect(Json.equal([1, 2], [2, 1])).toBe(false)
    expect(Json.equal({ a: undefined }, {})).toBe(false)
    expect(Json.equal({ a: 1 }, { b: 1 })).toBe(false)
    expect(Json.equal({ a: 1 }, { a: 1, b: 1 })).toBe(false)
    expect(Json.equal({ a: 1, b: 1 }, { a: 1 })).toBe(false)
    expect(Json.equal(undefined, null)).toBe(false)
    expect(Json.equal([], {})).toBe(false)
    expect(Json.equal(null, {})).toBe(false)
    expect(Json.equal("1", 1)).toBe(false)
  })

  it("compares large numbers by value", () => {
    const big = (text: string) => Json.parse(text)
    expect(Json.equal(big("12345678901234567890"), big("1234567890123456789.0e1"))).toBe(true)
    expect(Json.equal(big("12345678901234567890"), big("12345678901234567891"))).toBe(false)
    expect(Json.equal(big("-12345678901234567890"), big("12345678901234567890"))).toBe(false)
    expect(Json.equal(big("12345678901234567890"), Number("12345678901234567890"))).toBe(false)
  })

  it.prop("holds of a value and its copy, and not of a changed one", [Schema.Json], ([value]) => {
    expect(Json.equal(value, structuredClone(value))).toBe(true)
    expect(Json.equal({ value }, { value: [value] })).toBe(false)
  })
})

/** The same value, with the keys of every object the other way round. */
const turned = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(turned)
  if (!Json.isObject(value)) return value
  return Object.fromEntries(Object.entries(value).toReversed().map(([key, item]) => [key, turned(item)]))
}

describe("canonicalText", () => {
  it("sorts keys at every depth, leaves out what is undefined, and keeps the order of items", () => {
    expect(Json.canonicalText({ b: [2, 1, { d: null, c: "ü\"" }], a: undefined, "": true }))
      .toBe("{\"\":true,\"b\":[2,1,{\"c\":\"ü\\\"\",\"d\":null}]}")
    expect(Json.canonicalText(undefined)).toBe("null")
    expect(Json.canonicalText(-0)).toBe("0")
  })

  it("writes a number that a double cannot hold by its value", () => {
    const of = (text: string) => Json.canonicalText(Json.parse(text))
    expect(of("[12345678901234567890]")).toBe(of("[1234567890123456789.0e1]"))
    expect(of("12345678901234567890")).not.toBe(of("12345678901234567891"))
    expect(of("12345678901234567890")).not.toBe(Json.canonicalText(Number("12345678901234567890")))
    expect(of("-1e400")).not.toBe(of("1e400"))
  })

  const few = Schema.Literals(["null", "1", "\"1\"", "{}", "[]", "{\"a\":1,\"b\":[]}", "{\"b\":[],\"a\":1}", "12345678901234567890", "1234567890123456789e1", "[1,{\"x\":2}]"])
  it.prop("is the same exactly where the values are equal", [few, few, Schema.Json], ([a, b, json]) => {
    const [left, right] = [Json.parse(a), Json.parse(b)]
    expect(Json.canonicalText(left) === Json.canonicalText(right)).toBe(Json.equal(left, right))
    expect(Json.canonicalText(turned(json))).toBe(Json.canonicalText(json))
    expect(Json.canonicalText({ json })).not.toBe(Json.canonicalText({ json: [json] }))
  }, { arbitrary: { runs: 500 } })
})

describe("depth", () => {
  const nested = (depth: number, inner = "1") => `${"[".repeat(depth)}${inner}${"]".repeat(depth)}`

  it("is that of arrays and objects, whatever the strings hold", () => {
    const deep = [nested(9), `{"a":{"b":${nested(7)}}}`, `["\\\\",${nested(8)}]`, `["\\"[",${nested(8)}]`, `[[[]],[],${nested(8)}]`]
    for (const text of deep) expect(Json.isDeeper(text, 8), text).toBe(true)
    for (const text of deep) expect(Json.isDeeper(text, 9), text).toBe(false)
    const brackets = JSON.stringify("[{".repeat(20))
    for (const text of [brackets, `[${brackets},"${"\\"}"[[[[[[[[[["]`, `{${brackets}:1}`]) expect(Json.isDeeper(text, 1), text).toBe(false)
    expect(Json.isDeeper("\"[[[[[[[[[[", 2)).toBe(false)
  })

  it("is told of a text of megabytes, however deep", () => {
    expect(Json.isDeeper(nested(1_000_000), 256)).toBe(true)
    expect(Json.isDeeper(`[${"\"\\\\\",".repeat(500_000)}1]`, 256)).toBe(false)
  })

  const Tree = Schema.Json
  it.prop("is what walking through the value says", [Tree], ([value]) => {
    const depthOf = (of: unknown): number =>
      typeof of === "object" && of !== null ? 1 + Math.max(0, ...Object.values(of).map(depthOf)) : 0
    const depth = depthOf(value)
    const text = `${" ".repeat(2 * depth)}${JSON.stringify(value)}`
    expect(Json.isDeeper(text, depth)).toBe(false)
    if (depth > 0) expect(Json.isDeeper(text, depth - 1)).toBe(true)
  }, { arbitrary: { runs: 300 } })
})

describe("exact numbers", () => {
  const same = (a: string, b: string) => Json.equal(Json.parse(a), Json.parse(b))

  it("exponents of any length are compared as they are", () => {
    expect(same("1e99999999999999999999", "1e99999999999999999998")).toBe(false)
    expect(same("10e99999999999999999998", "1e99999999999999999999")).toBe(true)
    expect(same("1e+0099999999999999999999", "1e99999999999999999999")).toBe(true)
    const long = "9".repeat(5000)
    expect([same(`1e${long}`, `1e${long}`), same(`1e${long}`, `1e-${long}`)]).toEqual([true, false])
  })

  it("zero has a sign", () => {
    expect([same("-0", "0"), same("-0", "-0.0"), same("-0", "-0e7")]).toEqual([false, true, true])
  })

  it("a number of a million digits costs what it has digits", () => {
    const zeros = "0".repeat(1_000_000)
    expect(same(`[1${zeros}1]`, `[1${zeros}2]`)).toBe(false)
  }, 2000)
})

describe("keys with escapes", () => {
  it("are what they say, whatever was parsed before", () => {
    // After the first text JSON.parse itself answers with the key of the first for the second.
    for (const [before, text, key] of [["{\"a\":1,\"\\\\\":2}", "{\"a\":1,\"\\n\":2}", "\n"], ["{\"a\":1,\"b\\\\\":2}", "{\"a\":1,\"b\\t\":2}", "b\t"]] as const) {
      JSON.parse(before)
      Json.parse(before)
      expect(Object.keys(Json.parse(text) as object)).toEqual(["a", key])
      expect(Object.keys(Json.parsePlain(text) as object)).toEqual(["a", key])
    }
  })

  it.prop("any text is read as JSON.parse should, with its numbers kept", [Schema.Json, Schema.String], ([value, key]) => {
    const text = JSON.stringify({ [`${key}\n"\\`]: value, "\u0000": [value] })
    expect(JSON.stringify(Json.parse(text))).toBe(text)
    expect(Json.equal(Json.parse(text), { [`${key}\n"\\`]: value, "\u0000": [value] })).toBe(true)
  })

  it("what is not JSON is refused as JSON.parse does", () => {
    for (const text of ["{\"\\n\":1", "{\"\\n\":}", "{\"\\n\":1}x", "{\"\\n\":01}", "{\"\\n\":[1,]}", "{\"\\n\" 1}", "{\"\\x\":1}", "{\"\\n\":\"\u0001\"}", "{\"\\n\":nul}", "{,\"\\n\":1}"]) {
      expect(() => Json.parse(text), text).toThrow(SyntaxError)
      expect(() => JSON.parse(text), text).toThrow(SyntaxError)
    }
    expect(JSON.stringify(Json.parse(" { \"\\n\" : [ 1 , -0 , 1e400 , true , null , \"\\u0041\" ] } "))).toBe("{\"\\n\":[1,-0,1e400,true,null,\"A\"]}")
    expect(Object.keys(Json.parse("{\"__proto__\":1,\"\\n\":2}") as object)).toEqual(["__proto__", "\n"])
  })
})

it("detached is the same text, long or short", () => {
  for (const text of ["", "short", "a text that is longer than what is copied anyway", "ü€😀".repeat(9)]) expect(Json.detached(text)).toBe(text)
})
